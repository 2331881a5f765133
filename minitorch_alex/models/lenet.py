"""LeNet-5 (LeCun, Bottou, Bengio and Haffner, 1998): what AlexNet is compared with."""

from __future__ import annotations

from ..nn import Conv2d, Flatten, Linear, Sequential
from .parts import PartlyConnectedConv2d, ScaledTanh, Subsampling

# Which of S2's six channels each filter of C3 sees: the paper's Table I, read by columns.
CONNECTIONS = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


def lenet5(classes: int = 10) -> Sequential:
    """Grey images of 32 x 32: as published up to F6, with 60,000 trainable parameters.

    Its output layer measured distances to pictures of the characters, drawn by hand. Here a linear layer gives scores.
    """
    return Sequential(
        {
            "c1": Conv2d(1, 6, 5),
            "s2": Subsampling(6),
            "tanh2": ScaledTanh(),
            "c3": PartlyConnectedConv2d(6, 5, CONNECTIONS),
            "s4": Subsampling(16),
            "tanh4": ScaledTanh(),
            "c5": Conv2d(16, 120, 5),
            "tanh5": ScaledTanh(),
            "flatten": Flatten(),
            "f6": Linear(120, 84),
            "tanh6": ScaledTanh(),
            "output": Linear(84, classes),
        }
    )
