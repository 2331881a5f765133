"""The UCI handwritten digits: 1,797 real images of 8 x 8 pixels in 17 grey levels, embedded in this package.

E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licensed CC BY 4.0. These are the test part of that collection (written by 13 people).
Changed here in two ways: stored as bytes in a NumPy archive, and read out with the grey levels stretched from 0..16 to
0..255.
"""

from __future__ import annotations

from importlib import resources

import numpy

from .augmentation import Augmentation
from .dataset import Dataset, stratified_split

SPLIT_SEED = 0  # which fifth is held out: the same one always, whatever the seed of the run


def load() -> Dataset:
    """1,438 training and 359 test images (1, 8, 8), each digit with the same share of both."""
    with resources.files(__package__).joinpath("digits.npz").open("rb") as file, numpy.load(file) as archive:
        levels, labels = archive["images"], archive["labels"].astype("int64")
    images = (levels.astype("uint16") * 255 // 16).astype("uint8")[:, None]
    train, test = stratified_split(labels, 0.2, SPLIT_SEED)
    return Dataset(
        name="digits",
        classes=[str(digit) for digit in range(10)],
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
        augmentation=Augmentation(shift=1),  # a mirrored digit is another digit, or none
    )
