"""The ladder: one convolution of AlexNet, from plain loops to Winograd, and what each step gains on this machine.

    python -m benchmarks.ladder [--layer conv2|conv3] [--batch N] [--repeats N] [--out FOLDER]

Every rung computes the output and both gradients, is compared with the reference in float64, and then timed, all of
them in turns. Loops are too slow for the whole: they do a part of it, and their time is scaled by the number of
multiplications. GFLOP/s count a multiplication and an addition for every product in the definition, so they are
effective ones: Winograd's convolution gets by with fewer. The results go to ladder.txt and ladder.png in
benchmarks/results, or in the folder --out. Exit status: 0 measured, 1 a rung computes something else.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy

from minitorch_alex import backends
from minitorch_alex.backends.host_memory import keep_freed_memory
from minitorch_alex.command_line import reported
from minitorch_alex.peak import Peak, measure_peak
from minitorch_alex.picture import Picture
from minitorch_alex.plots import GREY, TEST, TRAIN

from .gpu_convolution import LAYERS, Layer
from .gpu_timing import table
from .ladder_rungs import LADDER, Results, Rung, available, multiply_accumulates, on_backend
from .machine import machine

RESULTS = Path(__file__).parent / "results"
CHOICES = {layer.name: layer for layer in LAYERS if layer.name in ("conv2", "conv3")}
TOLERANCE = 1e-4  # of the largest number of a result
PAUSE = 0.05  # seconds before each turn, in which the threads of the one before fall asleep
COLUMNS = {"rung": -24, "ms": 14, "GFLOP/s": 10, "gain": 9, "in all": 12, "error": 8, "timed on": -1}


@dataclass
class Found:
    """What a rung has shown. The error is the largest one, as a part of the largest number of a result."""

    rung: Rung
    operations: int  # of all the work
    share: float  # of it that is timed
    error: float
    seconds: list[float] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        return self.error <= TOLERANCE

    @property
    def is_a_peer(self) -> bool:
        return self.rung.needs == "torch"

    @property
    def milliseconds(self) -> float:
        """For all the work, in the median."""
        return 1000 * statistics.median(self.seconds) / self.share

    @property
    def speed(self) -> float:
        """Effective operations a second."""
        return 1000 * self.operations / self.milliseconds


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if min(given.batch, given.repeats) < 1:
        parser().error("--batch and --repeats must be at least 1")
    return reported("ladder", lambda: measure_and_draw(given), interrupted="interrupted: nothing was written")


def measure_and_draw(given: argparse.Namespace) -> int:
    given.out.mkdir(parents=True, exist_ok=True)
    layer = CHOICES[given.layer]
    found = climb(layer, given.batch, given.repeats)
    peak = measure_peak(backends.get("numpy"))
    text = text_of(layer, given.batch, found, peak)
    print(text)
    if not any(one.is_right for one in found):
        return 1
    (given.out / "ladder.txt").write_text(text + "\n")
    draw(layer, given.batch, found, peak).save(given.out / "ladder.png")
    return 0 if all(one.is_right for one in found) else 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.ladder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--layer", choices=list(CHOICES), default="conv2", help="of AlexNet (default: conv2)")
    made.add_argument("--batch", type=int, default=16, metavar="N", help="images (default: 16)")
    made.add_argument("--repeats", type=int, default=7, metavar="N", help="the median counts (default: 7)")
    made.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the results")
    return made


# -- measuring ------------------------------------------------------------------------
def climb(layer: Layer, images: int, repeats: int) -> list[Found]:
    """Check every rung, and then time those that are right, in turns. All of them with freed memory kept."""
    keep_freed_memory()
    found = [checked(rung, layer, images) for rung in available()]
    for _ in range(repeats):
        for one in found:
            if one.is_right:
                time.sleep(PAUSE)
                one.seconds.append(timed(one.rung, layer, images))
    return found


def checked(rung: Rung, layer: Layer, images: int) -> Found:
    """Compared with the reference. This also compiles what has to be compiled."""
    part, N = rung.part(layer, images)
    arrays = part.arrays(N)
    with rung.setting():
        results = rung.compute(part, *arrays)
    right = on_backend(backends.get("numpy"), part, *(a.astype("float64") for a in arrays))
    all_of_it = multiply_accumulates(layer, images)
    return Found(rung, 2 * all_of_it, multiply_accumulates(part, N) / all_of_it, error(results, right))


def error(results: Results, right: Results) -> float:
    """The largest difference of each result as a part of its largest number; NaN counts as infinite."""
    parts = [float(abs(a - b).max() / abs(b).max()) for a, b in zip(results, right, strict=True)]
    return max(part if part == part else numpy.inf for part in parts)


def timed(rung: Rung, layer: Layer, images: int) -> float:
    """Seconds of one time."""
    part, N = rung.part(layer, images)
    arrays = part.arrays(N)
    with rung.setting():
        began = time.perf_counter()
        rung.compute(part, *arrays)
        return time.perf_counter() - began


# -- showing --------------------------------------------------------------------------
def title_of(layer: Layer, images: int) -> str:
    groups = f", {layer.groups} groups" if layer.groups > 1 else ""
    return (
        f"AlexNet's {layer.name}: {layer.C} channels of {layer.H} x {layer.H}, {layer.F} filters of "
        f"{layer.R} x {layer.R}{groups}; output and both gradients, {images} images"
    )


def text_of(layer: Layer, images: int, found: list[Found], peak: Peak) -> str:
    """The table, why each rung is faster, and the machine."""
    lines = [cells(one, found) for one in found]
    missing = [rung.name for rung in LADDER if rung not in [one.rung for one in found]]
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    return "\n".join(
        [
            table(title_of(layer, images), COLUMNS, lines),
            *(f"{one.rung.name}: {one.rung.why}" for one in found),
            *([f"Not installed here: {', '.join(missing)}."] if missing else []),
            "",
            f"Errors are parts of the largest number. At most, here: {peak.operations / 1e9:,.0f} GFLOP/s.",
            about,
        ]
    )


def cells(one: Found, found: list[Found]) -> list[str]:
    """A line of the table."""
    if not one.is_right:
        return [one.rung.name, "", "", "", "", f"{one.error:.0e}", "wrong, so it is not timed"]
    first = found[0]
    return [
        one.rung.name, f"{one.milliseconds:,.1f}", f"{one.speed / 1e9:,.4g}", gain(one, found),
        times(one, first) if first.is_right else "", f"{one.error:.0e}", one.rung.on,
    ]  # fmt: skip


def gain(one: Found, found: list[Found]) -> str:
    """Over the last rung before it that was timed; nothing for the first, and for a peer, which is no rung."""
    before = [other for other in found[: found.index(one)] if other.is_right]
    return times(one, before[-1]) if before and not one.is_a_peer else ""


def times(fast: Found, slow: Found) -> str:
    ratio = fast.speed / slow.speed
    return f"x {ratio:,.0f}" if ratio >= 100 else f"x {ratio:.3g}"


def draw(layer: Layer, images: int, found: list[Found], peak: Peak) -> Picture:
    """A bar for each rung, on a logarithmic axis; beside it, its speed and its gain over the one before."""
    right = [one for one in found if one.is_right]
    figure = Picture(figsize=(9, 0.5 * len(right) + 1.6), layout="constrained")
    axes = figure.subplots()
    speeds = [one.speed / 1e9 for one in right]
    axes.barh([one.rung.name for one in right], speeds, color=[GREY if one.is_a_peer else TRAIN for one in right])
    for place, one in enumerate(right):
        axes.text(1.02, place, f"{one.speed / 1e9:,.3g}", transform=axes.get_yaxis_transform(), va="center")
        axes.text(1.12, place, gain(one, found), transform=axes.get_yaxis_transform(), va="center")
    product = peak.operations / 1e9
    axes.axvline(product, color=TEST, ls="--")
    axes.text(product / 1.15, 0, "a large matrix product,\nall cores", color=TEST, ha="right", va="center")
    axes.set(xscale="log", xlabel="effective GFLOP/s, and times as fast as the rung above")
    axes.set_title(title_of(layer, images).replace("; ", "\n"))
    axes.set_xlim(min(speeds) / 2, 1.5 * max(*speeds, product))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    return figure


if __name__ == "__main__":
    sys.exit(main())
