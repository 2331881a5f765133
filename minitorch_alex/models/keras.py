"""Three networks that articles present as AlexNet, in Keras, layer by layer as their code has them.

None has groups or LRN; two have batch normalisation, which is from 2015. Keras' constants are its own: batch norm with
eps 1e-3 and 0.99 of the old average kept, Glorot's initialisation, biases 0. Images come as (N, C, H, W) here.
"""

from __future__ import annotations

from typing import Any

from .. import init
from ..nn import BatchNorm1d, BatchNorm2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, ReLU, Sequential, ZeroPad2d

BATCH_NORM: dict[str, Any] = {"eps": 1e-3, "momentum": 0.01}


def keras_plain(classes: int = 1000) -> Sequential:
    """Images of 227 x 227, neither normalisation nor groups."""
    network = Sequential(
        {
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "pool1": MaxPool2d(3, stride=2),
            "conv2": Conv2d(96, 256, 5, padding="same"),
            "relu2": ReLU(),
            "pool2": MaxPool2d(3, stride=2),
            "conv3": Conv2d(256, 384, 3, padding="same"),
            "relu3": ReLU(),
            "conv4": Conv2d(384, 384, 3, padding="same"),
            "relu4": ReLU(),
            "conv5": Conv2d(384, 256, 3, padding="same"),
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
    return _initialise(network)


def keras_same_bn(classes: int = 1000) -> Sequential:
    """Images of 227 x 227, 'same' padding throughout, batch norm after every ReLU, much dropout.

    At stride 4 'same' means an output of ceil(227/4) = 57 pixels: 4 zeros on every side. The article also adds 2e-4
    times the square of every kernel to the loss, whose gradient is a weight decay of 4e-4.
    """
    network = Sequential(
        {
            "pad1": ZeroPad2d(4),
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "bn1": BatchNorm2d(96, **BATCH_NORM),
            "pool1": MaxPool2d(3, stride=2),
            "drop1": Dropout(0.25),
            "conv2": Conv2d(96, 256, 5, padding="same"),
            "relu2": ReLU(),
            "bn2": BatchNorm2d(256, **BATCH_NORM),
            "pool2": MaxPool2d(3, stride=2),
            "drop2": Dropout(0.25),
            "conv3": Conv2d(256, 384, 3, padding="same"),
            "relu3": ReLU(),
            "bn3": BatchNorm2d(384, **BATCH_NORM),
            "conv4": Conv2d(384, 384, 3, padding="same"),
            "relu4": ReLU(),
            "bn4": BatchNorm2d(384, **BATCH_NORM),
            "conv5": Conv2d(384, 256, 3, padding="same"),
            "relu5": ReLU(),
            "bn5": BatchNorm2d(256, **BATCH_NORM),
            "pool5": MaxPool2d(3, stride=2),
            "drop5": Dropout(0.25),
            "flatten": Flatten(),
            "fc6": Linear(256 * 6 * 6, 4096),
            "relu6": ReLU(),
            "bn6": BatchNorm1d(4096, **BATCH_NORM),
            "drop6": Dropout(0.5),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "bn7": BatchNorm1d(4096, **BATCH_NORM),
            "drop7": Dropout(0.5),
            "fc8": Linear(4096, classes),
        }
    )
    return _initialise(network)


def keras_valid_bn(classes: int = 1000) -> Sequential:
    """Images of 224 x 224, no padding at all, 11 x 11 filters in conv2: 54, 27, 17, 8, 6, 4, 2 and at last 1 pixel."""
    network = Sequential(
        {
            "conv1": Conv2d(3, 96, 11, stride=4),
            "relu1": ReLU(),
            "pool1": MaxPool2d(2),
            "bn1": BatchNorm2d(96, **BATCH_NORM),
            "conv2": Conv2d(96, 256, 11),
            "relu2": ReLU(),
            "pool2": MaxPool2d(2),
            "bn2": BatchNorm2d(256, **BATCH_NORM),
            "conv3": Conv2d(256, 384, 3),
            "relu3": ReLU(),
            "bn3": BatchNorm2d(384, **BATCH_NORM),
            "conv4": Conv2d(384, 384, 3),
            "relu4": ReLU(),
            "bn4": BatchNorm2d(384, **BATCH_NORM),
            "conv5": Conv2d(384, 256, 3),
            "relu5": ReLU(),
            "pool5": MaxPool2d(2),
            "bn5": BatchNorm2d(256, **BATCH_NORM),
            "flatten": Flatten(),
            "fc6": Linear(256, 4096),
            "relu6": ReLU(),
            "drop6": Dropout(0.4),
            "bn6": BatchNorm1d(4096, **BATCH_NORM),
            "fc7": Linear(4096, 4096),
            "relu7": ReLU(),
            "drop7": Dropout(0.4),
            "bn7": BatchNorm1d(4096, **BATCH_NORM),
            "fc8": Linear(4096, classes),
        }
    )
    return _initialise(network)


def _initialise(network: Sequential) -> Sequential:
    init.initialise(network, init.xavier_uniform_, bias=0.0)
    return network
