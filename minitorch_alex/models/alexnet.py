"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012): the paper, the network behind its numbers, one column, and Caffe's.

All take RGB images and give scores (logits). Two columns are `groups=2`: channels 0 to C/2 - 1 were on the first GPU.
Pixels are meant to be 0..255 minus the mean: on pixels divided by their spread, LRN would do almost nothing.
"""

from __future__ import annotations

from .. import init
from ..nn import Conv2d, Dropout, Flatten, Linear, LocalResponseNorm, MaxPool2d, Module, ReLU, Sequential, ZeroPad2d
from .parts import ColumnResponseNorm, SpatialResponseNorm

BIASES_OF_1 = ("conv2", "conv4", "conv5", "fc6", "fc7")  # so that ReLUs start with positive inputs; section 5


def alexnet(classes: int = 1000, *, groups: int = 2) -> Sequential:
    """The paper: images of 227 x 227 (its 224 does not give 55 x 55 without padding), LRN's formula read literally."""
    network = Sequential(
        {
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "norm1": LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            "pool1": MaxPool2d(3, stride=2),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=groups),
            "relu2": ReLU(),
            "norm2": LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2),
            "pool2": MaxPool2d(3, stride=2),
            "conv3": Conv2d(256, 384, 3, padding=1),
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=groups),
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=groups),
            "relu5": ReLU(),
            "pool5": MaxPool2d(3, stride=2),
            "flatten": Flatten(),
            "fc6": Linear(256 * 6 * 6, 4096),
            "relu6": ReLU(),
            "drop6": Dropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": Dropout(0.5),
            "fc8": Linear(4096, classes),
        }
    )
    return _initialise(network, bias=1.0)


def alexnet_ungrouped(classes: int = 1000) -> Sequential:
    """One column: every filter sees every channel. What most accounts of AlexNet compute with."""
    return alexnet(classes, groups=1)


def alexnet_2012(classes: int = 1000) -> Sequential:
    """The network that produced the paper's numbers, as the original code configures it (its configuration 145).

    It differs from the paper in: images of 224 x 224 with zeros at the right and the bottom only (its convolution
    rounds sizes up); LRN with a coefficient of 1e-4/5, within each column, and in block 1 before ReLU and pooling; a
    third normalisation, spatial, after conv2 (whose additive constant the configuration does not give: 1 is assumed);
    ReLU after pooling in blocks 1 and 5; pooling's gradient to every tied maximum; dropout without scaling while
    training, and times 1/2 in testing; weights of standard deviation 0.03 in conv3 to conv5.
    """
    network = Sequential(
        {
            "pad1": ZeroPad2d((0, 3, 0, 3)),
            "conv1": Conv2d(3, 96, 11, stride=4),
            "norm1": ColumnResponseNorm(2, 5, alpha=1e-4, beta=0.75, k=2),
            "pool1": MaxPool2d(3, stride=2, ties="all"),
            "relu1": ReLU(),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2),
            "relu2": ReLU(),
            "norm2": ColumnResponseNorm(2, 5, alpha=1e-4, beta=0.75, k=2),
            "spatial2": SpatialResponseNorm(5, alpha=1e-3, beta=0.75, k=1),
            "pool2": MaxPool2d(3, stride=2, ties="all"),
            "conv3": Conv2d(256, 384, 3, padding=1),
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding=1, groups=2),
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding=1, groups=2),
            "pool5": MaxPool2d(3, stride=2, ties="all"),
            "relu5": ReLU(),
            "flatten": Flatten(),
            "fc6": Linear(256 * 6 * 6, 4096),
            "relu6": ReLU(),
            "drop6": Dropout(0.5, form="paper"),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": Dropout(0.5, form="paper"),
            "fc8": Linear(4096, classes),
        }
    )
    return _initialise(network, bias=1.0, conv3=0.03, conv4=0.03, conv5=0.03)


def bvlc_alexnet(classes: int = 1000) -> Sequential:
    """Caffe's AlexNet: LRN with k = 1 and a coefficient of 1e-4/5, biases of 0.1, half the spread in fc6 and fc7."""
    network = Sequential(
        {
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "norm1": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1),
            "pool1": MaxPool2d(3, stride=2),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2),
            "relu2": ReLU(),
            "norm2": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1),
            "pool2": MaxPool2d(3, stride=2),
            **_conv3_to_fc8(classes),
        }
    )
    return _initialise(network, bias=0.1, fc6=0.005, fc7=0.005)


def caffenet(classes: int = 1000) -> Sequential:
    """Caffe's reference network: as bvlc_alexnet, but pooling before normalisation, and biases of 1."""
    network = Sequential(
        {
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "pool1": MaxPool2d(3, stride=2),
            "norm1": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1),
            "conv2": Conv2d(96, 256, 5, padding=2, groups=2),
            "relu2": ReLU(),
            "pool2": MaxPool2d(3, stride=2),
            "norm2": LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=1),
            **_conv3_to_fc8(classes),
        }
    )
    return _initialise(network, bias=1.0, fc6=0.005, fc7=0.005)


def _conv3_to_fc8(classes: int) -> dict[str, Module]:
    """Where Caffe's two agree with the paper."""
    return {
        "conv3": Conv2d(256, 384, 3, padding=1),
        "relu3": ReLU(),
        "conv4": Conv2d(384, 384, 3, padding=1, groups=2),
        "relu4": ReLU(),
        "conv5": Conv2d(384, 256, 3, padding=1, groups=2),
        "relu5": ReLU(),
        "pool5": MaxPool2d(3, stride=2),
        "flatten": Flatten(),
        "fc6": Linear(256 * 6 * 6, 4096),
        "relu6": ReLU(),
        "drop6": Dropout(0.5),
        "fc7": Linear(4096, 4096),
        "relu7": ReLU(),
        "drop7": Dropout(0.5),
        "fc8": Linear(4096, classes),
    }


def _initialise(network: Sequential, bias: float, **std: float) -> Sequential:
    """Gaussian weights of standard deviation 0.01 where `std` says nothing else; biases 0, or `bias` in BIASES_OF_1."""
    for path, parameter in network.named_parameters():
        layer, kind = path.split(".")
        if kind == "weight":
            init.normal_(parameter, std=std.get(layer, 0.01))
        else:
            init.constant_(parameter, bias if layer in BIASES_OF_1 else 0.0)
    return network
