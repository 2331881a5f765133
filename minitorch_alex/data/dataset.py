"""A data set: training and test images as bytes, their labels, and how to turn bytes into network input."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy

from ..philox import generator, key
from .augmentation import Augmentation, CentreCrop, RandomCrop, centre_crop
from .statistics import PixelSums, Statistics


class DataError(Exception):
    """The data asked for is not there or not what it should be. The message says what to do."""


class Images(Protocol):
    """Images uint8 (N, C, H, W) that may lie on a disk: an array, or what can be indexed by a slice or an array."""

    shape: tuple[int, int, int, int]

    def __len__(self) -> int: ...

    def __getitem__(self, which: Any) -> numpy.ndarray: ...


@dataclass(eq=False)
class Preprocessing:
    """x = (pixel - mean) / std. It travels with the weights.

    The mean is one number per channel or a mean image (C, H, W), std one number per channel.
    """

    mean: numpy.ndarray
    std: numpy.ndarray

    def __post_init__(self) -> None:
        self.mean, self.std = (_per_channel(numpy.asarray(v, "float32")) for v in (self.mean, self.std))
        if self.mean.ndim != 3 or self.std.shape != (len(self.mean), 1, 1):
            shapes = f"{self.mean.shape} and {self.std.shape}"
            raise ValueError(f"Preprocessing: mean is (C,) or (C, H, W) and std (C,), not {shapes}")
        if not (self.std > 0).all():
            raise ValueError("Preprocessing: std must be above 0")

    def __call__(self, images: numpy.ndarray) -> numpy.ndarray:
        """uint8 (N, C, H, W) -> float32."""
        return (images - self.mean) / self.std

    @classmethod
    def of(cls, images: numpy.ndarray) -> Preprocessing:
        """Subtract the mean of these images and divide by their spread, channel by channel."""
        return cls.standard(PixelSums.of(images).statistics())

    @classmethod
    def standard(cls, known: Statistics) -> Preprocessing:
        """The same where the statistics are known. Channels that never change are left at their scale."""
        std = numpy.sqrt(numpy.maximum(numpy.diag(known.covariance), 0)).round(4)
        std[std == 0] = 1
        return cls(known.mean.mean(axis=(1, 2), dtype="float64").round(4), std)

    @classmethod
    def centred(cls, known: Statistics, size: int) -> Preprocessing:
        """Subtract the mean image and leave the scale at 0..255: the paper, section 2.

        From a crop of size x size, wherever it is from, the centre of the mean image is subtracted, as in the code.
        """
        return cls(centre_crop(known.mean, size), numpy.ones(len(known.mean)))

    def __repr__(self) -> str:
        kind = "mean image" if self.mean.shape[1:] != (1, 1) else "mean"
        mean, std = self.mean.mean(axis=(1, 2)), self.std.reshape(-1)
        return f"Preprocessing({kind} {_numbers(mean)}, std {_numbers(std)})"


def _per_channel(values: numpy.ndarray) -> numpy.ndarray:
    return values.reshape(-1, 1, 1) if values.ndim == 1 else values


def _numbers(values: numpy.ndarray) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


@dataclass
class Dataset:
    """Images uint8 (N, C, H, W), labels int64 (N,), and the names of the classes."""

    name: str
    classes: list[str]
    train_images: Images
    train_labels: numpy.ndarray
    test_images: Images
    test_labels: numpy.ndarray
    augmentation: Augmentation | RandomCrop
    crop: int | None = None  # the network sees squares of this size; None for whole images
    known: Statistics | None = None  # of the training images, where it need not be computed
    left_out: list[str] = field(default_factory=list)  # files that cannot be read, with the reason
    fingerprint: str = ""  # of the training files, where they are the user's own
    has_val: bool = False  # whether the test images have a folder of their own

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network sees."""
        C, H, W = self.train_images.shape[1:]
        return (C, H, W) if self.crop is None else (C, self.crop, self.crop)

    @property
    def still(self) -> Augmentation | CentreCrop:
        """Training images as they are, in place of `augmentation`."""
        return Augmentation() if self.crop is None else CentreCrop(self.crop)

    @property
    def tested_on(self) -> str:
        """What the test images are: none may have been held out."""
        return "training images" if self.test_images is self.train_images else "held out"

    @cached_property
    def statistics(self) -> Statistics:
        """Of the training images."""
        return self.known or PixelSums.of(self.train_images).statistics()


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
