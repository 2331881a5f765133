"""A data set in memory: training and test images as bytes, their labels, and how to turn bytes into network input."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy

from ..philox import generator, key
from .augmentation import Augmentation


class DataError(Exception):
    """The data asked for is not there or not what it should be. The message says what to do."""


@dataclass
class Preprocessing:
    """x = (pixel - mean) / std, one mean and std per channel. It travels with the weights."""

    mean: list[float]
    std: list[float]

    def __call__(self, images: numpy.ndarray) -> numpy.ndarray:
        """uint8 (N, C, H, W) -> float32."""
        shape = (1, -1, 1, 1)
        mean, std = (numpy.array(v, "float32").reshape(shape) for v in (self.mean, self.std))
        return (images - mean) / std

    @classmethod
    def of(cls, images: numpy.ndarray) -> Preprocessing:
        """The statistics of these images. Channels that never change are left at their scale."""
        pixels = images.reshape(*images.shape[:2], -1)
        mean = pixels.mean(axis=(0, 2), dtype="float64")
        square = numpy.array([(pixels[:, c].astype("float32") ** 2).mean(dtype="float64") for c in range(len(mean))])
        std = numpy.sqrt(numpy.maximum(square - mean**2, 0))
        return cls([round(float(m), 4) for m in mean], [round(float(s), 4) or 1.0 for s in std])

    def to_dict(self) -> dict[str, Any]:
        """For a checkpoint; Preprocessing(**...) brings it back."""
        return asdict(self)


@dataclass
class Dataset:
    """Images uint8 (N, C, H, W), labels int64 (N,), and the names of the classes."""

    name: str
    classes: list[str]
    train_images: numpy.ndarray
    train_labels: numpy.ndarray
    test_images: numpy.ndarray
    test_labels: numpy.ndarray
    augmentation: Augmentation

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        return self.train_images.shape[1:]


def stratified_split(labels: numpy.ndarray, test_fraction: float, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Indices for training and for testing, with the same share of every class among the test ones."""
    train, test = [], []
    for label in numpy.unique(labels):
        members = numpy.flatnonzero(labels == label)
        members = members[generator(key("split", seed), (0, int(label))).permutation(len(members))]
        cut = round(len(members) * test_fraction)
        test.append(members[:cut])
        train.append(members[cut:])
    return numpy.sort(numpy.concatenate(train)), numpy.sort(numpy.concatenate(test))
