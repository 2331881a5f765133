"""Mean image and colour covariance of many images, from sums of whole numbers: exact, whatever the order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy

AT_ONCE = 2**20  # pixels: bounds the memory


class Statistics(NamedTuple):
    """Of many images."""

    mean: numpy.ndarray  # (C, H, W): the mean image
    covariance: numpy.ndarray  # float64 (C, C), of the channels over all pixels


@dataclass
class PixelSums:
    """What has been added up so far."""

    count: int  # images
    total: numpy.ndarray  # uint64 (C, H, W): the sum of all images
    products: numpy.ndarray  # uint64 (C, C): the sum of products of channels over all pixels

    @classmethod
    def zero(cls, shape: tuple[int, ...]) -> PixelSums:
        """Of no images (C, H, W) yet."""
        return cls(0, numpy.zeros(shape, "uint64"), numpy.zeros((shape[0], shape[0]), "uint64"))

    @classmethod
    def of(cls, images: Any) -> PixelSums:
        """Of images uint8 (N, C, H, W), an array or what can be sliced like one."""
        sums = cls.zero(images.shape[1:])
        step = max(1, AT_ONCE // sums.total[0].size)
        for i in range(0, len(images), step):
            sums.add(images[i : i + step])
        return sums

    def add(self, images: numpy.ndarray) -> None:
        """Count more images, uint8 (N, C, H, W)."""
        self.count += len(images)
        for image in images:
            self.total += image
        channels = images.swapaxes(0, 1).reshape(images.shape[1], -1).astype("float64", order="C")
        products = numpy.einsum("ip,jp->ij", channels, channels)  # not a @: BLAS would wake threads for each image
        self.products += products.astype("uint64")  # below 2^53, so exact

    def without(self, images: Any) -> PixelSums:
        """The sums over all but these images, which have been counted."""
        others = PixelSums.of(images)
        return PixelSums(self.count - others.count, self.total - others.total, self.products - others.products)

    def statistics(self) -> Statistics:
        """In float64."""
        mean_image = self.total / self.count
        mean = mean_image.mean(axis=(1, 2))
        return Statistics(mean_image, self.products / (self.count * mean_image[0].size) - numpy.outer(mean, mean))
