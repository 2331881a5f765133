"""torchvision's AlexNet: the widths of "One weird trick for parallelizing convolutional neural networks" (2014)."""

from __future__ import annotations

from ..nn import AdaptiveAvgPool2d, Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU, Sequential
from ..tensor import Tensor


class TorchvisionAlexNet(Module):
    """Parameters go by torchvision's names, features.0.weight to classifier.6.bias, so its weights fit as they are.

    One column of 64, 192, 384, 256 and 256 filters, padding in conv1, no LRN, dropout before fc6 and fc7. Pixels are
    meant to be divided by 255, then standardised with ImageNet's mean and spread.
    """

    def __init__(self, classes: int) -> None:
        self.features = Sequential(
            Conv2d(3, 64, 11, stride=4, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(64, 192, 5, padding=2), ReLU(), MaxPool2d(3, stride=2),
            Conv2d(192, 384, 3, padding=1), ReLU(),
            Conv2d(384, 256, 3, padding=1), ReLU(),
            Conv2d(256, 256, 3, padding=1), ReLU(), MaxPool2d(3, stride=2),
        )  # fmt: skip
        self.avgpool = AdaptiveAvgPool2d((6, 6))
        self.flatten = Flatten()
        self.classifier = Sequential(
            Dropout(0.5), Linear(256 * 6 * 6, 4096), ReLU(),
            Dropout(0.5), Linear(4096, 4096), ReLU(),
            Linear(4096, classes),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.flatten(self.avgpool(self.features(x))))


def torchvision_alexnet(classes: int = 1000) -> Module:
    """The network as torchvision has it, with PyTorch's default initialisation, for images of 224 x 224."""
    return TorchvisionAlexNet(classes)
