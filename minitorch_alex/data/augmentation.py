"""Varied views of the training images: AlexNet, section 4.1. Pure functions of (seed, epoch, image index).

Because every image has a random stream of its own, it does not matter which thread prepares it, in which order, or
whether the run was interrupted before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from .. import philox


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
