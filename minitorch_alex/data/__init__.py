"""Images and labels: where they come from, how they are varied, how they reach the network."""

from __future__ import annotations

from pathlib import Path

from . import cifar10, digits, folder
from .augmentation import Augmentation, RandomCrop
from .colour import ColourNoise
from .dataset import DataError, Dataset, Images, Preprocessing
from .device_loader import DeviceLoader
from .loader import Loader, prefetched

__all__ = [
    "Augmentation", "ColourNoise", "DataError", "Dataset", "DeviceLoader", "Images", "Loader", "Preprocessing",
    "RandomCrop", "load", "prefetched",
]  # fmt: skip


def load(
    source: str,
    cache: str | Path | None = None,
    crop: int = 224,
    held_out: float = 0.2,
    tell: folder.Tell | None = None,
    only_test: bool = False,
) -> Dataset:
    """'digits' (embedded), 'cifar10' (downloaded once), a folder with CIFAR-10's files in it, or one of photographs.

    The last four arguments are for photographs: see folder.load.
    """
    if source == "digits":
        return digits.load()
    if source == "cifar10":
        return cifar10.load(cifar10.find_or_download(cache))
    place = Path(source)
    if not place.is_dir():
        kind = "is a file, not a folder" if place.exists() else "does not exist"
        raise DataError(f"--data {source}: that folder {kind}. Give digits, cifar10, or a folder of images")
    if cifar10.is_here(place):
        return cifar10.load(place)
    if folder.holds_photographs(place):
        return folder.load(place, crop, held_out, tell, only_test)
    raise DataError(
        f"{source}: there are neither CIFAR-10 files here (data_batch_1.bin or data_batch_1), nor images in folders of "
        f"their classes ({source}/CLASS/IMAGE.jpg, or train/ and val/ with such folders)"
    )
