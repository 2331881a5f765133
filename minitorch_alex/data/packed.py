"""A folder of photographs prepared once: all of them as 256 x 256 pixels in one file, which is read as memory.

    images.u8        uint8 (N, 3, 256, 256), one image after the other
    labels.npy       int64 (N,)
    mean.npy         float32 (3, 256, 256): the mean image
    pack.json        classes, number of images, RGB covariance
    files.txt        the N file names, one a line (as JSON, since names may hold anything)
    unreadable.txt   what was left out, and why, in the same form

While it is being written there are progress.npz and found.txt, the list of all files, in place of pack.json, and
writing goes on where it stopped. Nothing that grows with the number of files is held in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import BadZipFile

import numpy

from .dataset import DataError
from .photographs import SIDE, find_classes, find_photographs, read_all
from .statistics import PixelSums, Statistics

CHUNK = 256  # files between two records of progress
IMAGE_BYTES = 3 * SIDE * SIDE
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, EOFError, BadZipFile)  # what reading such files raises


@dataclass
class Packed:
    """A packed folder, opened. `images` is memory-mapped: only what is looked at is read."""

    classes: list[str]
    images: numpy.ndarray  # uint8 (N, 3, 256, 256)
    labels: numpy.ndarray  # int64 (N,)
    statistics: Statistics


def is_packed(folder: Path) -> bool:
    """Whether a folder holds a finished pack."""
    return (folder / "pack.json").is_file()


def open_packed(folder: Path) -> Packed:
    """Read what pack_folder wrote."""
    try:
        about = json.loads((folder / "pack.json").read_text(encoding="utf-8"))
        classes, count = list(map(str, about["classes"])), int(about["images"])
        file = folder / "images.u8"
        if file.stat().st_size != count * IMAGE_BYTES:
            size = file.stat().st_size
            raise DataError(f"{file}: {count:,} images need {count * IMAGE_BYTES:,} bytes, not {size:,}: pack it again")
        images = numpy.memmap(file, "uint8", "r", shape=(count, 3, SIDE, SIDE))
        with open(folder / "labels.npy", "rb") as first, open(folder / "mean.npy", "rb") as second:
            labels, mean = (numpy.lib.format.read_array(npy, allow_pickle=False) for npy in (first, second))
        covariance = numpy.array(about["covariance"], "float64")
        shapes = labels.shape, mean.shape, covariance.shape
        if shapes != ((count,), (3, SIDE, SIDE), (3, 3)) or labels.dtype != "int64" or mean.dtype != "float32":
            raise DataError(f"{folder}: labels, mean and covariance do not fit {count:,} images: pack it again")
        if not 0 <= labels.min() <= labels.max() < len(classes):
            raise DataError(f"{folder}: a label names none of the {len(classes)} classes: pack it again")
        return Packed(classes, images, labels, Statistics(mean, covariance))
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}") from None
    except DAMAGED as error:
        raise DataError(f"{folder}: this is no packed folder, or a damaged one ({error}): pack it again") from None


def file_names(folder: Path) -> list[str]:
    """The names of the files that the images of a finished pack came from."""
    try:
        with open(folder / "files.txt", "rb") as lines:
            return [json.loads(line) for line in lines]
    except OSError as error:
        raise DataError(f"{error.filename or folder}: {error.strerror or error}") from None
    except ValueError:
        raise DataError(f"{folder / 'files.txt'}: is damaged: pack it again") from None


@dataclass
class Progress:
    """What has been packed so far, with the sums that mean and covariance come from."""

    files: str  # a fingerprint of classes and list of files
    looked_at: int  # files, in the order of find_photographs
    sizes: list[int]  # of images.u8, files.txt and unreadable.txt: what they hold beyond is not counted yet
    sums: PixelSums  # of the images written

    def save(self, folder: Path, growing: tuple[BinaryIO, ...]) -> None:
        """Put it in the place of the last record, once everything it counts is on the disk."""
        for file in growing:
            file.flush()
            os.fsync(file.fileno())
        self.sizes = [os.stat(file.fileno()).st_size for file in growing]
        about = json.dumps([self.files, self.looked_at, self.sums.count, self.sizes])
        with open(folder / "progress.tmp", "wb") as record:
            numpy.savez(record, about=about, total=self.sums.total, products=self.sums.products)
            record.flush()
            os.fsync(record.fileno())
        os.replace(folder / "progress.tmp", folder / "progress.npz")

    @classmethod
    def load(cls, folder: Path, files: str) -> Progress:
        """The last record, or the start where there is none."""
        try:
            with open(folder / "progress.npz", "rb") as file, numpy.load(file, allow_pickle=False) as saved:
                begun_with, looked_at, written, sizes = json.loads(str(saved["about"]))
                sums = PixelSums(written, saved["total"], saved["products"])
                progress = cls(begun_with, looked_at, sizes, sums)
        except FileNotFoundError:
            return cls(files, 0, [0, 0, 0], PixelSums.zero((3, SIDE, SIDE)))
        except DAMAGED:
            raise DataError(f"{folder / 'progress.npz'}: is damaged; remove {folder} and pack again") from None
        if progress.files != files:
            raise DataError(f"{folder}: begun with other files than there are now; remove it and pack again")
        return progress


def pack_folder(
    source: Path, out: Path, workers: int, tell: Callable[[int, int, str | None], Any], strict: bool = False
) -> tuple[int, int]:
    """Pack `source` into `out`, or go on with it. Returns how many images were packed and how many files left out.

    `tell(looked_at, of, left_out)` hears of every file; its last argument is None, or "name: reason". With `strict` the
    first unreadable file ends it with a DataError.
    """
    if is_packed(out):
        raise DataError(f"{out}: there is a pack in it already")
    if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(source)):  # resolve() fails on links in a circle
        raise DataError(f"{out}: lies inside the folder to be packed; choose another place")
    classes = find_classes(source)
    out.mkdir(parents=True, exist_ok=True)
    count, fingerprint = _list_files(source, classes, out / "found.txt")
    progress = Progress.load(out, fingerprint)
    with (
        open(out / "images.u8", "ab") as images,
        open(out / "files.txt", "ab") as kept,
        open(out / "unreadable.txt", "ab") as unreadable,
        open(out / "found.txt", "rb") as found,
        ThreadPoolExecutor(workers) as pool,
    ):
        growing = images, kept, unreadable
        for file, size in zip(growing, progress.sizes, strict=True):
            if os.stat(file.fileno()).st_size < size:
                raise DataError(f"{file.name}: is shorter than when packing stopped; remove {out} and pack again")
            file.truncate(size)  # what was written after the last record comes again
        if strict and progress.looked_at > progress.sums.count:
            raise DataError(f"{out}: files were left out before, see unreadable.txt; remove it and pack again")
        names = map(json.loads, islice(found, progress.looked_at, None))
        for name, outcome in read_all(pool, workers, source, names):
            left_out = None
            if isinstance(outcome, str):
                left_out = f"{name}: {outcome}"
                if strict:
                    raise DataError(f"{source / left_out}")
                unreadable.write(_line(left_out))
            else:
                images.write(outcome.tobytes())
                kept.write(_line(name))
                progress.sums.add(outcome[None])
            progress.looked_at += 1
            if progress.looked_at % CHUNK == 0 or progress.looked_at == count:
                progress.save(out, growing)
            tell(progress.looked_at, count, left_out)
    _finish(out, progress, classes)
    return progress.sums.count, count - progress.sums.count


def _list_files(source: Path, classes: list[str], file: Path) -> tuple[int, str]:
    """Write the list of all photographs to a file. Returns how many there are, and a fingerprint of the list."""
    count, fingerprint = 0, hashlib.sha256(_line(classes))
    with open(file, "wb") as found:
        for name in find_photographs(source, classes):
            count += 1
            fingerprint.update(_line(name))
            found.write(_line(name))
    if not count:
        raise DataError(f"{source}: there are no images in folders of their classes ({source}/CLASS/IMAGE.jpg)")
    return count, fingerprint.hexdigest()


def _line(what: Any) -> bytes:
    """JSON in one line of ASCII."""
    return json.dumps(what).encode() + b"\n"


def _finish(out: Path, progress: Progress, classes: list[str]) -> None:
    """Write what stands beside the images; pack.json last, since it says that all is there."""
    if not progress.sums.count:
        (out / "progress.npz").unlink()
        with open(out / "unreadable.txt", "rb") as lines:
            raise DataError(f"{out}: not one of {progress.looked_at:,} files can be read: {json.loads(next(lines))}")
    label_of = {name: label for label, name in enumerate(classes)}
    with open(out / "files.txt", "rb") as lines:
        labels = numpy.fromiter((label_of[json.loads(line).split(os.sep)[0]] for line in lines), "int64")
    numpy.save(out / "labels.npy", labels)
    mean, covariance = progress.sums.statistics()
    numpy.save(out / "mean.npy", mean.astype("float32"))
    about = {"classes": classes, "images": progress.sums.count, "covariance": covariance.tolist()}
    (out / "pack.tmp").write_text(json.dumps(about, indent=1), encoding="utf-8")
    (out / "found.txt").unlink()
    os.replace(out / "pack.tmp", out / "pack.json")
    (out / "progress.npz").unlink()
