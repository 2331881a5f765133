"""Varied views of the training images: AlexNet, section 4.1. Pure functions of (seed, epoch, image index).

Because every image has a random stream of its own, it does not matter which thread prepares it, in which order, or
whether the run was interrupted before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy

from .. import philox


class Crops(NamedTuple):
    """Where in each image the part that is seen begins (negative: outside), and if it is mirrored: each (N,)."""

    tops: numpy.ndarray
    lefts: numpy.ndarray
    mirrored: numpy.ndarray


@dataclass(frozen=True)
class Augmentation:
    """Shift by up to `shift` pixels each way (what comes in at the edges is `fill`), and perhaps mirror."""

    shift: int = 0
    flip: bool = False
    fill: int = 0  # a pixel value, 0 to 255

    def draw(self, seed: int, epoch: int, indices: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """(down, right, mirrored) for each image: offsets in -shift ... shift, and booleans."""
        words = philox.first_words(philox.key("crops", seed), epoch, indices)
        span = 2 * self.shift + 1
        down = philox.below(span, words[:, 0]) - self.shift
        right = philox.below(span, words[:, 1]) - self.shift
        mirrored = philox.below(2, words[:, 2]).astype(bool) & self.flip
        return down, right, mirrored

    def crops(self, H: int, W: int, seed: int, epoch: int, indices: numpy.ndarray) -> Crops:
        """Of images (..., H, W), of which indices (N,) are the numbers in the data set."""
        down, right, mirrored = self.draw(seed, epoch, indices)
        return Crops(-down, -right, mirrored)

    def size_of_view(self, H: int, W: int) -> tuple[int, int]:
        """How much of an image is seen."""
        return H, W

    def __call__(self, images: numpy.ndarray, seed: int, epoch: int, indices: numpy.ndarray) -> numpy.ndarray:
        """images (N, C, H, W), of which indices (N,) are the numbers in the data set -> the same shape."""
        if not self.shift and not self.flip:
            return images
        N, C, H, W = images.shape
        down, right, mirrored = self.draw(seed, epoch, indices)
        s = self.shift
        padded = numpy.pad(images, ((0, 0), (0, 0), (s, s), (s, s)), constant_values=self.fill)
        rows = (s - down)[:, None] + numpy.arange(H)
        columns = (s - right)[:, None] + numpy.arange(W)
        columns = numpy.where(mirrored[:, None], columns[:, ::-1], columns)
        image, channel = numpy.arange(N)[:, None, None, None], numpy.arange(C)[None, :, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


@dataclass(frozen=True)
class RandomCrop:
    """A square of size x size pixels from anywhere in the image, and perhaps its mirror image.

    From 256 pixels to 224 there are 33 x 33 places, which with the mirror images makes 2,178 views of an image; the
    paper says 2,048. (Its code drew them once for every 32 images, not for each.)
    """

    size: int
    flip: bool = True
    fill = 0  # never seen

    def crops(self, H: int, W: int, seed: int, epoch: int, indices: numpy.ndarray) -> Crops:
        """Of images (..., H, W), of which indices (N,) are the numbers in the data set."""
        words = philox.first_words(philox.key("crops", seed), epoch, indices)
        tops = philox.below(H - self.size + 1, words[:, 0])
        lefts = philox.below(W - self.size + 1, words[:, 1])
        mirrored = philox.below(2, words[:, 2]).astype(bool) & self.flip
        return Crops(tops, lefts, mirrored)

    def size_of_view(self, H: int, W: int) -> tuple[int, int]:
        """How much of an image is seen."""
        return self.size, self.size

    def __call__(self, images: numpy.ndarray, seed: int, epoch: int, indices: numpy.ndarray) -> numpy.ndarray:
        """images (N, C, H, W), of which indices (N,) are the numbers in the data set -> (N, C, size, size)."""
        N, C, H, W = images.shape
        tops, lefts, mirrored = self.crops(H, W, seed, epoch, indices)
        crops = numpy.empty((N, C, self.size, self.size), images.dtype)
        for crop, image, top, left, mirror in zip(crops, images, tops, lefts, mirrored, strict=True):
            square = image[:, top : top + self.size, left : left + self.size]
            crop[...] = square[:, :, ::-1] if mirror else square
        return crops


@dataclass(frozen=True)
class CentreCrop:
    """What stands in for RandomCrop where nothing is to be varied."""

    size: int
    fill = 0  # never seen

    def crops(self, H: int, W: int, seed: int, epoch: int, indices: numpy.ndarray) -> Crops:
        """Of images (..., H, W)."""
        top, left = _centred(H, W, self.size)
        N = len(indices)
        return Crops(numpy.full(N, top), numpy.full(N, left), numpy.zeros(N, bool))

    def size_of_view(self, H: int, W: int) -> tuple[int, int]:
        """How much of an image is seen."""
        return self.size, self.size

    def __call__(self, images: numpy.ndarray, seed: int, epoch: int, indices: numpy.ndarray) -> numpy.ndarray:
        """images (N, C, H, W) -> (N, C, size, size)."""
        return centre_crop(images, self.size)


def centre_crop(images: numpy.ndarray, size: int) -> numpy.ndarray:
    """The central square of images (..., H, W): (..., size, size)."""
    top, left = _centred(images.shape[-2], images.shape[-1], size)
    return images[..., top : top + size, left : left + size]


def _centred(H: int, W: int, size: int) -> tuple[int, int]:
    return (H - size) // 2, (W - size) // 2


def ten_crops(images: numpy.ndarray, size: int) -> list[numpy.ndarray]:
    """Four corners, the centre, and their mirror images, of images (..., H, W): what the paper averages over."""
    H, W = images.shape[-2:]
    bottom, right = H - size, W - size
    corners = (0, 0), (0, right), (bottom, 0), (bottom, right)
    crops = [images[..., top : top + size, left : left + size] for top, left in corners]
    crops.append(centre_crop(images, size))
    return crops + [crop[..., ::-1] for crop in crops]
