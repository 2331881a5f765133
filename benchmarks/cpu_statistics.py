"""What is made of the times of the CPU benchmark: medians, ratios within a round and their spread, and the bars."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

from .cpu_process import OURS

Row = dict[str, Any]


class Ratio(NamedTuple):
    """How many times as fast ours is as a peer: of the medians, and the lowest and highest within one round."""

    median: float
    low: float
    high: float


def median(row: Row, name: str) -> float | None:
    """Seconds of this contestant, if it has been timed."""
    times = row.get("seconds", {}).get(name)
    return statistics.median(times) if times else None


def ratio(row: Row, peer: str) -> Ratio | None:
    """Ours beside a peer, if both have been timed."""
    ours, theirs = median(row, OURS), median(row, peer)
    if ours is None or theirs is None:
        return None
    pairs = zip(row["seconds"][OURS], row["seconds"][peer], strict=False)  # who is far behind has fewer rounds
    rounds = [b / a for a, b in pairs]
    return Ratio(theirs / ours, min(rounds), max(rounds))


def best_peer(row: Row) -> str | None:
    """The fastest of the others."""
    timed = {name: median(row, name) for name in row.get("seconds", {}) if name != OURS}
    return min(timed, key=lambda name: timed[name] or 0.0, default=None)


# -- bars -------------------------------------------------------------------------------
class Bar(NamedTuple):
    """What a row must show: at least so many times the speed of a peer, or of the best one."""

    part: str
    network: str
    batch: int
    peer: str
    must: float
    aim: float | None = None


BEST = "best"
THREE = ("alexnet", "keras_plain", "torchvision_alexnet")
BARS = [
    Bar("training", "alexnet", 128, "pytorch", 3.0),
    Bar("training", "keras_plain", 128, "keras", 1.15, 1.3),
    Bar("training", "torchvision_alexnet", 128, "pytorch", 1.3, 1.5),
    *(Bar("training", network, 32, BEST, 1.2) for network in THREE),
    *(Bar("forward", network, batch, BEST, 1.2) for network in THREE for batch in (32, 128)),
    Bar("training", "mlp", 32, "pytorch", 2.0),
]


def bar_of(row: Row) -> Bar | None:
    """The bar that was set for a row, if there is one."""
    place = row["part"], row["network"], row["batch"]
    return next((bar for bar in BARS if bar[:3] == place), None)


def verdict(found: float | None, must: float, aim: float | None = None, most: bool = False) -> str:
    """Whether a figure is at least what it must be; or at most, with `most`."""
    if found is None:
        return "not measured"
    sign = -1 if most else 1
    if sign * found < sign * must:
        return "MISSED"
    return "reached" if aim is None else ("aim reached" if sign * found >= sign * aim else "reached, below the aim")
