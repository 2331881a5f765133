"""Noise in the colours of the training images: AlexNet, section 4.1. A pure function of (seed, epoch, image index)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from .. import philox


@dataclass(frozen=True)
class ColourNoise:
    """A little more or less of the colours that photographs vary in, the same all over an image. AlexNet, section 4.1.

        x <- (x + sum over i of  a_i * step_i) / divisor        a_i drawn from a Gaussian, anew for every image

    `steps` (3, 3) has in column i how far one unit of a_i moves R, G and B: 0.1 of one of the principal components of
    the colours of all training pixels. How long a component is, the paper and its code tell differently:

        "deviation"    as long as pixels deviate along it: the square root of an eigenvalue of their covariance. The
                       code's; on 0..255 about 7 grey levels. It then divides the image by 1.1, and no test image.
        "eigenvalue"   as the eigenvalue itself, for pixels of 0..1. What the paper says, and most others do; about 3
                       grey levels.
    """

    steps: numpy.ndarray
    divisor: float = 1.0

    @classmethod
    def of(cls, covariance: numpy.ndarray, reading: str = "deviation") -> ColourNoise:
        """For pixels of 0..255 whose channels have this covariance (3, 3)."""
        if reading not in ("deviation", "eigenvalue"):
            raise ValueError(f"ColourNoise: the reading is 'deviation' or 'eigenvalue', not {reading!r}")
        if covariance.shape != (3, 3):
            raise ValueError(f"ColourNoise: needs the covariance of 3 channels, not of {len(covariance)}")
        eigenvalues, components = numpy.linalg.eigh(covariance)  # in columns
        eigenvalues = numpy.maximum(eigenvalues, 0)
        components *= numpy.sign(
            components[abs(components).argmax(axis=0), range(3)]
        )  # else their sign is up to LAPACK
        if reading == "deviation":
            return cls(0.1 * components * numpy.sqrt(eigenvalues), 1.1)
        return cls(0.1 * components * eigenvalues / 255)

    def draw(self, seed: int, epoch: int, indices: numpy.ndarray) -> numpy.ndarray:
        """What is added to R, G and B of each image: (N, 3)."""
        key = philox.key("colours", seed)
        a = numpy.array([philox.generator(key, (epoch, int(i))).standard_normal(3) for i in indices])
        return a @ self.steps.T

    def __call__(self, images: numpy.ndarray, seed: int, epoch: int, indices: numpy.ndarray) -> numpy.ndarray:
        """Images (N, 3, H, W), already prepared, of which indices are the numbers in the data set -> the same shape."""
        shift = self.draw(seed, epoch, indices)[:, :, None, None].astype(images.dtype)
        return (images + shift) / numpy.asarray(self.divisor, images.dtype)

    def divided(self, std: numpy.ndarray) -> ColourNoise:
        """The same noise for images whose channels have been divided by std (3,)."""
        return ColourNoise(self.steps / std.reshape(3, 1), self.divisor)
