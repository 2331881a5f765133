"""A data set of photographs: from a packed folder, or from plain files that are read whenever they are needed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from threadpoolctl import threadpool_limits

from ..backends.thread_pool import usable_cores
from .augmentation import RandomCrop
from .dataset import DataError, Dataset, Images, stratified_split
from .packed import is_packed, open_packed
from .photographs import SIDE, UnreadableError, find_classes, find_photographs, read_all, read_photograph
from .statistics import PixelSums, Statistics

SPLIT_SEED = 0  # which images are held out: the same ones always, whatever the seed of the run
Tell = Callable[[int, int, str | None], Any]  # hears of each file: (looked at, of, None or "name: why it is left out")


class PhotographFiles:
    """Image files as if they were one array uint8 (N, 3, 256, 256)."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names
        self.shape = (len(names), 3, SIDE, SIDE)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: Any) -> numpy.ndarray:
        try:
            chosen = numpy.arange(len(self.names))[which]
            return numpy.stack([read_photograph(self.root / self.names[i]) for i in chosen])
        except UnreadableError as error:
            raise DataError(f"{self.root}: a photograph that could be read before cannot be now ({error})") from None


class Selection:
    """Some of the images, as if they were all."""

    def __init__(self, images: Images, which: numpy.ndarray) -> None:
        self.images, self.which = images, which
        self.shape = (len(which), *images.shape[1:])

    def __len__(self) -> int:
        return len(self.which)

    def __getitem__(self, which: Any) -> numpy.ndarray:
        return self.images[self.which[which]]


def holds_photographs(folder: Path) -> bool:
    """Whether this is a packed folder, or one of CLASS/IMAGE files, or holds either as train/."""
    places = [place for place in (folder / "train", folder) if place.is_dir()]
    return any(is_packed(p) or next(find_photographs(p, find_classes(p)), None) is not None for p in places)


def load(folder: Path, crop: int, held_out: float = 0.2, tell: Tell | None = None) -> Dataset:
    """Photographs of 256 x 256 pixels, of which the network is to see squares of `crop` pixels.

    The folder holds train/ and val/, or only train/, or the classes themselves; where there is no val/, the fraction
    `held_out` of each class is held out. With held_out = 0 the training images stand in for held-out ones.
    Plain files are all read once, which tells what cannot be read and gives the mean image.
    """
    inside = folder / "train" if (folder / "train").is_dir() else folder
    val = folder / "val" if inside != folder and (folder / "val").is_dir() else None
    whole = _open(inside)
    if val is not None:
        train, test = whole, _open(val)
        for name in sorted(set(train.classes) ^ set(test.classes)):
            raise DataError(f"{folder}: train and val need the same classes, but {name!r} is in only one of them")
    elif held_out == 0:
        train = test = whole
    else:
        kept, tested = stratified_split(whole.labels, held_out, SPLIT_SEED)
        train, test = whole.part(kept), whole.part(tested)
        if not len(kept) or not len(tested):
            raise DataError(
                f"{folder}: the classes are too small to hold out {held_out:g} of each. Give more images, another "
                "--held-out, or --held-out 0, which measures on the training images"
            )
    left_out = train.check_files(tell) + (test.check_files(tell) if test is not train else [])
    return Dataset(
        folder.resolve().name, train.classes, train.images, train.labels, test.images, test.labels, RandomCrop(crop),
        crop, train.statistics, left_out,
    )  # fmt: skip


@dataclass
class _Part:
    """Training or held-out images, packed or plain."""

    classes: list[str]
    images: Images
    labels: numpy.ndarray
    statistics: Statistics | None = None

    def part(self, which: numpy.ndarray) -> _Part:
        """Some of the images; whose statistics are other ones."""
        if isinstance(self.images, PhotographFiles):
            images: Images = PhotographFiles(self.images.root, [self.images.names[i] for i in which])
        else:
            images = Selection(self.images, which)
        return _Part(self.classes, images, self.labels[which])

    def check_files(self, tell: Tell | None) -> list[str]:
        """Read plain files once, add up their pixels, and take out those that cannot be read. Returns what is out."""
        if not isinstance(self.images, PhotographFiles):
            return []
        root, names = self.images.root, self.images.names
        sums, readable, left_out = PixelSums.zero((3, SIDE, SIDE)), [], []
        with ThreadPoolExecutor(usable_cores()) as pool, threadpool_limits(1, "blas"):  # the cores read photographs
            for i, (name, outcome) in enumerate(read_all(pool, usable_cores(), root, iter(names))):
                if isinstance(outcome, str):
                    left_out.append(f"{root / name}: {outcome}")
                else:
                    readable.append(i)
                    sums.add(outcome[None])
                if tell:
                    tell(i + 1, len(names), left_out[-1] if isinstance(outcome, str) else None)
        if not readable:
            raise DataError(f"{root}: not one of {len(names):,} files can be read: {left_out[0]}")
        self.images = PhotographFiles(root, [names[i] for i in readable])
        self.labels, self.statistics = self.labels[readable], sums.statistics()
        return left_out


def _open(root: Path) -> _Part:
    if is_packed(root):
        packed = open_packed(root)
        return _Part(packed.classes, packed.images, packed.labels, packed.statistics)
    classes = find_classes(root)
    names = list(find_photographs(root, classes))
    if not names:
        raise DataError(f"{root}: there are no images in folders of their classes ({root}/CLASS/IMAGE.jpg)")
    label_of = {name: label for label, name in enumerate(classes)}
    labels = numpy.array([label_of[Path(name).parts[0]] for name in names], "int64")
    return _Part(classes, PhotographFiles(root, names), labels)
