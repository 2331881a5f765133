"""Prepare a folder of photographs once: `python -m minitorch_alex.pack SRC OUT`.

SRC holds CLASS/IMAGE.jpg, or train/CLASS/IMAGE.jpg and val/CLASS/IMAGE.jpg. See data/packed.py for what OUT holds then.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from pathlib import Path

from .backends.thread_pool import usable_cores
from .command_line import OneLineParser, printable, reported
from .data import DataError
from .data.packed import is_packed, pack_folder
from .data.photographs import find_classes
from .progress import files_bar

MOST_WORKERS = 1024


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.pack",
        description="Store photographs, scaled to 256 x 256 pixels, in one file. Interrupted, it goes on next time.",
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="folder of CLASS/IMAGE.jpg, or of train/ and val/")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the result")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="threads (default: all cores)")
    parser.add_argument("--strict", action="store_true", help="end at the first file that cannot be read")
    given = parser.parse_args(arguments)
    if not 1 <= given.workers <= MOST_WORKERS:
        parser.error(f"--workers must be from 1 to {MOST_WORKERS}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd metadata; what cannot be read is listed in full
        return reported(
            "pack", lambda: pack(given), given.debug, "interrupted; the same command goes on where it stopped",
            given.out,
        )  # fmt: skip


def pack(given: argparse.Namespace) -> int:
    """Pack what the command line names. Returns 0."""
    for part in parts(given.source):
        pack_part(given.source / part, given.out / part, given.workers, given.strict)
    return 0


def parts(source: Path) -> list[str]:
    """train and val where they exist, else the folder itself. Labels mean the same in both."""
    if not (source / "train").is_dir():
        return ["."]
    if not (source / "val").is_dir():
        return ["train"]
    for name in sorted(set(find_classes(source / "train")) ^ set(find_classes(source / "val"))):
        raise DataError(f"{source}: train and val need the same classes, but {name!r} is in only one of them")
    return ["train", "val"]


def pack_part(source: Path, out: Path, workers: int, strict: bool) -> None:
    """Pack one folder of classes, and tell what was left out."""
    if is_packed(out):
        if strict and (out / "unreadable.txt").stat().st_size:
            raise DataError(f"{out}: packed already, but files were left out, see unreadable.txt in it")
        print(printable(f"{out}: packed already"))
        return
    with files_bar(printable(f"{source}")) as tell:
        packed, left_out = pack_folder(source, out, workers, tell, strict)
    with open(out / "unreadable.txt", encoding="utf-8") as lines:
        for line in lines:
            print(f"left out {printable(json.loads(line))}")
    print(printable(f"{out}: {packed:,} images packed, {left_out:,} left out"))


if __name__ == "__main__":
    sys.exit(main())
