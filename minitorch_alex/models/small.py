"""AlexNet's ingredients, in a network for images of 8 to 64 pixels."""

from __future__ import annotations

from .. import init
from ..backends.window import Window
from ..nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, Module, ReLU, Sequential

# The paper normalises responses to pixels of 0..255, whose spread is about 74. Here pixels are divided by their spread
# first, so that alpha = 1e-4 would do next to nothing; times 74^2 it does to these responses what it did to those.
ALPHA = 1e-4 * 74**2


def alexnet_small(classes: int, image_shape: tuple[int, int, int]) -> Module:
    """(N, C, H, W) -> scores (N, classes). Two blocks of convolution, ReLU, LRN and overlapping pooling, one of
    convolution and ReLU, then dropout and a linear layer.

    Pools round up as in the original code: 32 -> 16 -> 8 and 8 -> 4 -> 2 pixels.
    """
    C, H, W = image_shape
    pool = Window((3, 3), (2, 2), ceil_mode=True)
    if min(H, W) < 5:
        raise ValueError(f"alexnet_small needs images of at least 5 x 5 pixels, not {H} x {W}")
    P, Q = pool.output_size(*pool.output_size(H, W))
    network = Sequential(
        {
            "conv1": Conv2d(C, 32, 5, padding=2),
            "relu1": ReLU(),
            "norm1": LocalResponseNorm(5, alpha=ALPHA, beta=0.75, k=2),
            "pool1": MaxPool2d(3, 2, ceil_mode=True),
            "conv2": Conv2d(32, 64, 5, padding=2),
            "relu2": ReLU(),
            "norm2": LocalResponseNorm(5, alpha=ALPHA, beta=0.75, k=2),
            "pool2": MaxPool2d(3, 2, ceil_mode=True),
            "conv3": Conv2d(64, 128, 3, padding=1),
            "relu3": ReLU(),
            "flatten": Flatten(),
            "drop4": Dropout(0.5),
            "fc4": Linear(128 * P * Q, classes),
        }
    )
    init.initialise(network, init.kaiming_normal_)
    init.normal_(network.fc4.weight, std=0.01)  # scores near 0, so that the loss starts at ln(classes)
    return network
