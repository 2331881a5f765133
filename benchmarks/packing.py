"""Packing photographs beside plain Pillow in a loop: images a second, and how many cores are busy.

    python -m benchmarks.packing FOLDER

FOLDER holds CLASS/IMAGE.jpg. Both run as processes of their own, in turns, and starting Python counts for both. The
loop only makes the arrays; packing also sums them up for mean and covariance and writes them. On a busy machine only
the core's milliseconds say much. The result goes to benchmarks/results/packing.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image, ImageOps

from minitorch_alex.data.photographs import SIDE, find_classes, find_photographs

ROUNDS = 7
RESULT = Path(__file__).parent / "results" / "packing.json"


def plain(folder: Path) -> None:
    """What most would write: every photograph in turn as an array (256, 256, 3)."""
    for name in find_photographs(folder, find_classes(folder)):
        with Image.open(folder / name) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
        scale = SIDE / min(image.size)
        width, height = (max(SIDE, round(scale * side)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - SIDE) // 2, (height - SIDE) // 2
        numpy.asarray(image.crop((left, top, left + SIDE, top + SIDE)))


def measure(command: list[str]) -> tuple[float, float]:
    """(wall seconds, seconds of processor time over all cores) of one command."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def summarise(images: int, runs: list[tuple[float, float]]) -> dict[str, object]:
    """Of every run and in the median: images a second, busy cores, and milliseconds of one core for an image."""
    figures = {
        "images_per_second": [round(images / wall, 1) for wall, _ in runs],
        "busy_cores": [round(processor / wall, 2) for wall, processor in runs],
        "core_milliseconds_per_image": [round(1000 * processor / images, 3) for _, processor in runs],
    }
    return {**figures, **{f"median_{what}": statistics.median(values) for what, values in figures.items()}}


def main() -> None:
    folder = Path(sys.argv[1])
    if sys.argv[2:] == ["plain"]:
        plain(folder)
        return
    from .machine import machine  # only here: it imports more than the loop should have to wait for

    images = sum(1 for _ in find_photographs(folder, find_classes(folder)))
    load = os.getloadavg()[0]
    loop, packing = [], []
    for _ in range(ROUNDS):
        loop.append(measure([sys.executable, "-m", "benchmarks.packing", str(folder), "plain"]))
        with tempfile.TemporaryDirectory() as out:
            packing.append(measure([sys.executable, "-m", "minitorch_alex.pack", str(folder), f"{out}/packed"]))
    ratios = [a / b for (a, _), (b, _) in zip(loop, packing, strict=True)]
    result = {
        "command": "python -m minitorch_alex.pack",
        "images": images,
        "from": folder.name,
        "machine": machine(),
        "load_average_before": round(load, 1),  # near 0 on a quiet machine
        "pack": summarise(images, packing),
        "pillow_in_a_loop": summarise(images, loop),
        "times_as_fast": [round(r, 2) for r in ratios],
        "median_times_as_fast": round(statistics.median(ratios), 2),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
