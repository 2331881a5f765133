"""What a trained network takes pictures for: `python -m minitorch_alex.predict IMAGE...`. Needs no training first."""

from __future__ import annotations

import argparse
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy

from . import backends, plots
from .backends.thread_pool import usable_cores
from .command_line import OneLineParser, printable, reported
from .config import ConfigError
from .data import DataError, prefetched
from .data.photographs import UnreadableError, find_photographs
from .run import choose_backend
from .trained import PIXELS_AT_ONCE, SHIPPED, Trained, load_trained

DRAWN = 40  # pictures that the figure shows at most
KINDS = (".png", ".pdf", ".svg", ".jpg")  # of figures


class ImageFile(NamedTuple):
    """A file, and its true label where a folder around it has the name of a class."""

    path: Path
    truth: int | None


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.predict",
        description="Show what a trained network takes pictures for: the likeliest classes with their probabilities, "
        "as text and as a figure. Of each picture the central square counts, scaled to what the network is used to. "
        "Where a folder around a picture has the name of a class, that is marked as the truth. A network that has "
        "learnt the digits wants them light on a dark ground; nothing is inverted for it.",
    )
    parser.add_argument(
        "images",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="a picture, or a folder: all pictures in it, at any depth",
    )
    add_trained(parser)
    parser.add_argument(
        "--crops", type=int, choices=[1, 10], default=1,
        help="the centre of each photograph, or the average over the paper's ten (default: 1)",
    )  # fmt: skip
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many classes to show (default: 5)")
    parser.add_argument(
        "--out", type=figure_file, default="predictions.png", metavar="FILE",
        help=f"the figure, of the first {DRAWN} pictures (default: predictions.png)",
    )  # fmt: skip
    parser.add_argument(
        "--features", type=Path, metavar="FILE", help="also write what the network makes of the pictures' centres: a "
        "NumPy archive (.npz) with features (N, ...), names (N,), predictions (N,) and classes",
    )  # fmt: skip
    parser.add_argument("--layer", help="whose output the features are (default: what goes into the last linear layer)")
    given = parser.parse_args(arguments)
    if given.top < 1:
        parser.error("--top must be at least 1")
    if given.layer and not given.features:
        parser.error("--layer says what --features is to write, which is missing")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata; what cannot be read is listed
        return reported("predict", lambda: show(given), given.debug)


def add_trained(parser: argparse.ArgumentParser) -> None:
    """The options that say which network, and who computes."""
    parser.add_argument(
        "--trained", default=SHIPPED, metavar="RUN",
        help="a run's folder, a checkpoint, or torchvision's AlexNet (.pth) (default: the small network that comes "
        "with the package, trained on CIFAR-10)",
    )  # fmt: skip
    parser.add_argument("--backend", choices=["auto", *backends.NEEDS], default="auto", help="who computes")


def figure_file(name: str) -> Path:
    """What the command line calls a figure."""
    if Path(name).suffix.lower() not in KINDS:
        raise argparse.ArgumentTypeError(f"{printable(name)} must end in one of {' '.join(KINDS)}")
    return Path(name)


# -- the pictures -------------------------------------------------------------------
def find_images(places: Sequence[Path], classes: list[str]) -> list[ImageFile]:
    """The files themselves, and those in the folders, in order. The innermost folder that names a class counts."""

    def file(path: Path, *folders: str) -> ImageFile:
        return ImageFile(path, next((classes.index(name) for name in reversed(folders) if name in classes), None))

    found = []
    for place in places:
        if not place.is_dir():
            found.append(file(place, real(place).parent.name))
            continue
        names = list(find_photographs(place, [""]))
        if not names:
            raise DataError(f"{place}: there are no pictures in this folder")
        found += [file(place / name, real(place).name, *Path(name).parts[:-1]) for name in names]
    return found


def real(place: Path) -> Path:
    """With all links followed. Path.resolve() raises a RuntimeError on links in a circle."""
    return Path(os.path.realpath(place))


def read_images(
    trained: Trained, files: list[ImageFile]
) -> Iterator[tuple[list[ImageFile], list[numpy.ndarray], list[str]]]:
    """In batches: the files, their pixels uint8 (C, H, W), and what cannot be read and why."""

    def read(part: list[ImageFile]) -> tuple[list[ImageFile], list[numpy.ndarray], list[str]]:
        readable, images, left_out = [], [], []
        for file in part:
            try:
                images.append(trained.read(file.path))
                readable.append(file)
            except UnreadableError as error:
                left_out.append(f"{file.path}: {error}")
        return readable, images, left_out

    step = max(1, min(100, PIXELS_AT_ONCE // math.prod(trained.image_shape)))
    return prefetched(read, [files[i : i + step] for i in range(0, len(files), step)], usable_cores())


# -- what the network says ------------------------------------------------------------
def show(given: argparse.Namespace) -> int:
    """Predict what the command line names. Returns 0."""
    for file in filter(None, (given.out, given.features)):
        if not file.parent.is_dir():
            raise ConfigError(f"{file}: there is no folder {file.parent}")
    note = choose_backend(given.backend)
    trained = load_trained(given.trained)
    files = find_images(given.images, trained.classes)
    C, H, W = trained.image_shape
    print(f"backend   {note}")
    print(f"network   {printable(trained.name)}: {len(trained.classes):,} classes, images of {C} x {H} x {W}")
    seen: list[ImageFile] = []
    views: list[numpy.ndarray] = []
    chances: list[numpy.ndarray] = []
    features: list[numpy.ndarray] = []
    for readable, pixels, left_out in read_images(trained, files):
        for line in left_out:
            print(f"left out  {printable(line)}")
        if not readable:
            continue
        images = numpy.stack(pixels)
        if given.features:
            features.append(wanted_features(trained, images, given.layer))
        told = predicted(trained, images, given.crops)
        for file, mine in zip(readable, told, strict=True):
            print("\n" + in_words(trained, file, mine, given.top))
        seen += readable
        chances += list(told)
        views += list(trained.views(images)[0][: max(0, DRAWN - len(views))])
    if not seen:
        raise DataError("there is no picture that can be read")
    known = [file.truth for file in seen[:DRAWN]]
    truth = known if any(label is not None for label in known) else None
    names = [file.path.name for file in seen[:DRAWN]]
    plots.predictions(views, numpy.stack(chances[:DRAWN]), trained.classes, truth, names, given.top).save(given.out)
    print("\n" + printable(f"{given.out}: the figure") + (f", of the first {DRAWN}" if len(seen) > DRAWN else ""))
    if given.features:
        write_features(given.features, trained, seen, numpy.stack(chances), numpy.concatenate(features))
    return 0


def predicted(trained: Trained, images: numpy.ndarray, crops: int) -> numpy.ndarray:
    """Probabilities (N, classes)."""
    try:
        return numpy.exp(trained.log_probabilities(images, crops))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def wanted_features(trained: Trained, images: numpy.ndarray, layer: str | None) -> numpy.ndarray:
    """(N, ...) of that layer, or of what goes into the last linear one."""
    try:
        return trained.features(images, layer)
    except KeyError as error:
        raise ConfigError(f"--layer: {error.args[0].removeprefix('activations: ')}") from None


def in_words(trained: Trained, file: ImageFile, chances: numpy.ndarray, top: int) -> str:
    """The file's name, and a line for each of the likeliest classes."""
    lines = [printable(f"{file.path}")]
    for label in (-chances).argsort(kind="stable")[:top]:
        true = "   <- so says its folder" if label == file.truth else ""
        lines.append(f"  {100 * chances[label]:5.1f} %  {printable(trained.classes[label])}{true}")
    return "\n".join(lines)


def write_features(
    out: Path, trained: Trained, files: list[ImageFile], chances: numpy.ndarray, features: numpy.ndarray
) -> None:
    """An archive that numpy.load opens."""
    names = numpy.array([str(file.path) for file in files])
    arrays = {"features": features, "names": names, "predictions": chances.argmax(axis=1)}
    with out.open("wb") as archive:  # given a name, NumPy would append .npz
        numpy.savez(archive, classes=numpy.array(trained.classes), **arrays)
    print(printable(f"{out}: features {features.shape}, names, predictions, classes"))


if __name__ == "__main__":
    sys.exit(main())
