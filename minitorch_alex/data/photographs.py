"""Photographs in folders: which there are, and how a file becomes 256 x 256 pixels in RGB."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from .dataset import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 256  # AlexNet, section 2
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"}
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")  # whatever the suffix; for EPS Pillow runs a program
MOST_PIXELS = 100_000_000  # after JPEG's own reduction: keeps the memory of a thread in bounds
TURNS = {  # EXIF orientation -> what puts the picture upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


class UnreadableError(Exception):
    """A file that is no picture, or a damaged one. The message says why."""


def find_classes(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted: a class's label is its place here. Hidden ones are passed over."""
    try:
        return sorted(name for name in os.listdir(root) if name[0] != "." and os.path.isdir(os.path.join(root, name)))
    except OSError as error:
        raise DataError(f"{root}: {error.strerror}") from None


def find_photographs(root: Path, classes: list[str]) -> Iterator[str]:
    """The path below root, CLASS/..., of every image, class by class, in the order of their names.

    What stands in a class's folder at any depth belongs to it, but links to folders are not followed in there. Hidden
    files and folders and other kinds of files are passed over. A folder that cannot be listed is given in place of
    what it holds.
    """
    start = os.path.join(root, "")
    for class_name in classes:
        folders = [start + class_name]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    found = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries if e.name[0] != ".")
            except OSError:
                yield folder[len(start) :]
                continue
            for name, is_folder in found:
                if not is_folder and os.path.splitext(name)[1].lower() in SUFFIXES:
                    yield os.path.join(folder, name)[len(start) :]
            folders += [os.path.join(folder, name) for name, is_folder in reversed(found) if is_folder]


def read_photograph(path: Path | str, side: int = SIDE) -> numpy.ndarray:
    """The central square of a picture, scaled so that its shortest side has `side` pixels: uint8 (3, side, side).

    It is turned as its EXIF data say. Grey, palette, CMYK and 16-bit pictures become RGB; what is transparent becomes
    white. Of several frames the first one counts. Raises UnreadableError.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        file = os.stat(path)
        if not stat.S_ISREG(file.st_mode):
            raise UnreadableError("this is no regular file, or a folder that cannot be listed")
        if file.st_size == 0:
            raise UnreadableError("the file is empty")
        with Image.open(path, formats=FORMATS) as opened:
            opened.draft("RGB", (2 * side, 2 * side))  # JPEG: leave out detail that is scaled away anyway
            if opened.width * opened.height > MOST_PIXELS:
                raise UnreadableError(f"{opened.width:,} x {opened.height:,} pixels are too many")
            opened.load()
            turn = TURNS.get(_orientation(opened))
            image = to_rgb(opened)
        width, height = image.size
        shortest = min(width, height)
        left, top = (width - shortest) / 2, (height - shortest) / 2
        square = (left, top, left + shortest, top + shortest)
        image = image.resize((side, side), Image.Resampling.BILINEAR, box=square, reducing_gap=3.0)
        if turn is not None:
            image = image.transpose(Image.Transpose[turn])
        return numpy.ascontiguousarray(numpy.asarray(image).transpose(2, 0, 1))
    except UnreadableError:
        raise
    except UnidentifiedImageError:
        raise UnreadableError("this is no picture of a known format") from None
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from None
    except Exception as error:  # there is hardly an exception that Pillow does not raise for damaged files
        raise UnreadableError(str(error) or type(error).__name__) from None


def read_all(
    pool: ThreadPoolExecutor, workers: int, root: Path, names: Iterator[str]
) -> Iterator[tuple[str, numpy.ndarray | str]]:
    """Each name with its picture, or with why it cannot be read, in order; a few ahead, so that memory stays flat."""

    def read(name: str) -> tuple[str, numpy.ndarray | str]:
        try:
            return name, read_photograph(root / name)
        except UnreadableError as error:
            return name, str(error)

    waiting: deque[Any] = deque()
    while True:
        waiting.extend(pool.submit(read, name) for name in islice(names, 2 * workers - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


def _orientation(image: Image) -> int:
    """From 1 to 8, as EXIF has it. Damaged EXIF data say nothing: 1, upright."""
    try:
        return image.getexif().get(0x0112, 1)
    except Exception:
        return 1


def to_rgb(image: Image) -> Image:
    """Any picture in 8-bit RGB. Raises UnreadableError where no scale of the values is agreed on."""
    from PIL import Image

    if image.mode == "F":
        raise UnreadableError("the scale of floating-point pixels is unknown")
    if image.mode.startswith("I"):  # 16 bits, possibly stored in 32
        values = numpy.asarray(image).astype("int32")
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableError("there are pixels outside 0..65535, whose scale is unknown")
        image = Image.fromarray(((values + 128) // 257).astype("uint8"))  # 65535 = 257 * 255
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == "RGB" else image.convert("RGB")
