"""A data set of photographs: from a packed folder, or from plain files that are read whenever they are needed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from ..backends.thread_pool import usable_cores
from .augmentation import RandomCrop
from .dataset import DataError, Dataset, Images
from .packed import file_names, is_packed, open_packed
from .photographs import SIDE, UnreadableError, find_classes, find_photographs, read_all, read_photograph
from .statistics import PixelSums, Statistics

RESERVED = {"train", "training", "val", "valid", "validation", "test"}  # no names of classes, in any case
Tell = Callable[[int, int, str | None], Any]  # hears of each file: (looked at, of, None or "name: why it is left out")


class PhotographFiles:
    """Image files as if they were one array uint8 (N, 3, 256, 256)."""

    def __init__(self, root: Path, names: list[str]) -> None:
        self.root, self.names = root, names
        self.shape = (len(names), 3, SIDE, SIDE)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, which: Any) -> numpy.ndarray:
        return numpy.stack([self._read(self.names[i]) for i in numpy.arange(len(self.names))[which]])

    def _read(self, name: str) -> numpy.ndarray:
        try:
            return read_photograph(self.root / name)
        except UnreadableError as error:
            raise DataError(
                f"{self.root / name}: could be read before and cannot be now ({error}); put it back"
            ) from None


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
    return is_split(folder) or _has_images(folder)


def is_split(folder: Path) -> bool:
    """Whether it holds train/ with classes in it; a class may be called train."""
    return (folder / "train").is_dir() and _has_images(folder / "train")


def _has_images(folder: Path) -> bool:
    return is_packed(folder) or next(find_photographs(folder, find_classes(folder)), None) is not None


def load(folder: Path, crop: int, held_out: float = 0.2, tell: Tell | None = None, only_test: bool = False) -> Dataset:
    """Photographs of 256 x 256 pixels, of which the network is to see squares of `crop` pixels.

    The folder holds train/ and val/, or only train/, or the classes themselves; where there is no val/, the fraction
    `held_out` of each class is held out. With held_out = 0 the training images stand in for held-out ones.
    Plain files are all read once, which tells what cannot be read and gives the mean image; with `only_test`, those of
    train/ are not, where there is a val/.
    """
    split = is_split(folder)
    whole = _open(folder / "train" if split else folder)
    has_val = split and (folder / "val").is_dir()
    if has_val:
        train, test = whole, _open(folder / "val")
        for name in sorted(set(train.classes) ^ set(test.classes)):
            raise DataError(f"{folder}: train and val need the same classes, but {name!r} is in only one of them")
        left_out = test.check_files(tell)
        if not only_test:
            left_out = train.check_files(tell) + left_out
    else:
        train = test = whole
        left_out = whole.check_files(tell)
        if held_out:
            train, test = whole.divided(held_out)
            if whole.sums:
                train.statistics = whole.sums.without(test.images).statistics()
    _check_classes(folder, train, test)
    return Dataset(
        folder.resolve().name, train.classes, train.images, train.labels, test.images, test.labels, RandomCrop(crop),
        crop, train.statistics, left_out, train.fingerprint(), has_val,
    )  # fmt: skip


def _check_classes(folder: Path, train: _Part, test: _Part) -> None:
    """Refuse what nobody can have meant."""
    if len(train.classes) < 2:
        raise DataError(f"{folder}: there must be two classes at least, but there is only {train.classes[0]!r}")
    if {name.lower() for name in train.classes} <= RESERVED:
        names = ", ".join(train.classes)
        raise DataError(f"{folder}: {names} would be taken for classes. Call them train and val, in small letters")
    counts = numpy.bincount(train.labels, minlength=len(train.classes))
    if not counts.all():
        name = train.classes[int(counts.argmin())]
        raise DataError(f"{folder}: the class {name!r} has no training image: add photographs or remove its folder")
    if not len(test.labels):
        raise DataError(
            f"{folder}: the classes are too small to hold out a part of each. Give more images, another "
            "--held-out, or --held-out 0, which measures on the training images"
        )


@dataclass
class _Part:
    """Training or held-out images, packed or plain."""

    classes: list[str]
    images: Images
    labels: numpy.ndarray
    names: list[str]  # of their files
    statistics: Statistics | None = None
    sums: PixelSums | None = None  # over plain files that have been read

    def fingerprint(self) -> str:
        """Of the files and their labels: who knows it notices other ones."""
        digest = hashlib.sha256(numpy.ascontiguousarray(self.labels))  # type: ignore[arg-type]
        for name in self.names:
            digest.update(os.fsencode(name) + b"\n")
        return digest.hexdigest()

    def divided(self, held_out: float) -> tuple[_Part, _Part]:
        """The part to train on and the fraction of each class that is held out.

        It goes by the files' names, so that no image changes sides where others come, go, or cannot be read (but for
        one in a class whose share grows). At least one image of each class stays.
        """
        rank = [hashlib.sha256(os.fsencode(name)).digest() for name in self.names]
        kept: list[int] = []
        tested: list[int] = []
        for label in range(len(self.classes)):
            members = sorted(numpy.flatnonzero(self.labels == label).tolist(), key=rank.__getitem__)
            cut = min(round(len(members) * held_out), max(0, len(members) - 1))
            tested += members[:cut]
            kept += members[cut:]
        return self.part(numpy.sort(numpy.array(kept, int))), self.part(numpy.sort(numpy.array(tested, int)))

    def part(self, which: numpy.ndarray) -> _Part:
        """Some of the images; whose statistics are other ones."""
        return _Part(self.classes, Selection(self.images, which), self.labels[which], [self.names[i] for i in which])

    def check_files(self, tell: Tell | None) -> list[str]:
        """Read plain files once, add up their pixels, and take out those that cannot be read. Returns what is out."""
        if not isinstance(self.images, PhotographFiles):
            return []
        root, names = self.images.root, self.images.names
        sums, readable, left_out = PixelSums.zero((3, SIDE, SIDE)), [], []
        with ThreadPoolExecutor(usable_cores()) as pool:
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
        self.names = [names[i] for i in readable]
        self.images = PhotographFiles(root, self.names)
        self.labels, self.sums, self.statistics = self.labels[readable], sums, sums.statistics()
        return left_out


def _open(root: Path) -> _Part:
    if is_packed(root):
        packed = open_packed(root)
        return _Part(packed.classes, packed.images, packed.labels, file_names(root), packed.statistics)
    classes = find_classes(root)
    names = list(find_photographs(root, classes))
    if not names:
        raise DataError(f"{root}: there are no images in folders of their classes ({root}/CLASS/IMAGE.jpg)")
    label_of = {name: label for label, name in enumerate(classes)}
    labels = numpy.array([label_of[Path(name).parts[0]] for name in names], "int64")
    return _Part(classes, PhotographFiles(root, names), labels, names)
