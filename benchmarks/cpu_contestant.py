"""One contestant of the CPU benchmark: what all of them are asked, in a process of its own."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy

from minitorch_alex import backends, memory
from minitorch_alex.nn import Module

from . import cpu_networks
from .cpu_networks import Leaf

Call = Callable[[], Any]  # does the work once, and comes back when it is done
SCORES, EVALUATED = "scores", "scores in evaluation"
TRIAL = 0.2  # seconds for each way, or one call
STEPS_TO_SETTLE = 4  # after which no new memory is asked for


class Contestant:
    """Base of all. A subclass says who it is, takes over a network, and gives the calls that are to be timed.

    Its methods are called by name from the process that compares, with arguments and answers that JSON can hold.
    """

    def __init__(self) -> None:
        backends.use("numpy")  # on which the peers are given their networks
        self.network, self.leaves = "", list[Leaf]()
        self.call: Call = lambda: None

    # -- what a subclass says ------------------------------------------------------------
    def about(self) -> dict[str, Any]:
        """Versions and settings."""
        return {"python": platform.python_version()}

    def prepare(self) -> None:
        """Import what would otherwise be imported when it is first needed."""

    def build(self, ours: Module, layers: list[Leaf]) -> None:
        """Take over a network of ours, which consists of these layers, one behind the other."""
        raise NotImplementedError

    def ways(self, what: str) -> list[str]:
        """Settings, of which the fastest is found by trying, for "training", "forward" or "layer"; the usual first."""
        return [""]

    def prepared(self, what: str, way: str, images: numpy.ndarray, labels: numpy.ndarray) -> Call:
        """The call to be timed: a training step that returns the loss, or a forward pass; its data made ready."""
        raise NotImplementedError

    def prepared_layer(self, place: int, way: str, x: numpy.ndarray, g: numpy.ndarray) -> Call:
        """The layer at this place alone: forward from x, and backward from g. Images need no gradient."""
        raise NotImplementedError(f"{type(self).__module__} does not take layers apart")

    def gradients(self, images: numpy.ndarray, labels: numpy.ndarray, training: bool) -> dict[str, numpy.ndarray]:
        """Scores, and the loss' gradient of each parameter: by our names, in our layout."""
        raise NotImplementedError

    # -- what it is asked ----------------------------------------------------------------
    def load(self, network: str, batch: int, what: str, most: int | None = None) -> dict[str, Any]:
        """Get ready to be timed. Tries `most` ways, or all, and returns the fastest, and their seconds."""
        self.take(network)
        data = cpu_networks.batch(network, batch)
        return self._ready(lambda way: self.prepared(what, way, *data), self.ways(what)[:most])

    def layers(self, network: str) -> list[dict[str, Any]]:
        """Those of a network, in the order of their places."""
        self.take(network)
        return [leaf._asdict() for leaf in self.leaves]

    def load_layer(self, network: str, batch: int, place: int) -> dict[str, Any]:
        """Get ready to be timed on one layer. As load."""
        self.take(network)
        data = cpu_networks.layer_data(self.leaves[place], batch)
        return self._ready(lambda way: self.prepared_layer(place, way, *data), self.ways("layer"))

    def take(self, network: str) -> None:
        """The network by that name, new only where another was there before."""
        if self.network != network:
            self.network, self.call = "", lambda: None  # lets go of the one before
            ours = cpu_networks.build(network)
            self.leaves = cpu_networks.leaves(network, ours)
            self.build(ours, self.leaves)
            self.network = network

    def _ready(self, prepared: Callable[[str], Call], ways: list[str]) -> dict[str, Any]:
        """Make the fastest of the calls the one to be timed."""
        tried: dict[str, float] = {}
        for way in ways if len(ways) > 1 else ():
            self.call = prepared(way)
            self.call()  # compiles, and fills caches
            tried[way] = self.time(TRIAL)
        best = min(ways, key=lambda way: tried.get(way, 0.0))
        self.call = prepared(best)
        self.call()
        return {"way": best, "tried": tried}

    def time(self, seconds: float) -> float:
        """Seconds of one call: the mean over all that begin within `seconds`, and one at least."""
        count, value, began = 0, None, time.perf_counter()
        while not count or time.perf_counter() - began < seconds:
            value = self.call()
            count += 1
        mean = (time.perf_counter() - began) / count
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the loss has become {value}: what was timed is no training")
        return mean

    def check(self, network: str, batch: int, training: bool, file: str) -> dict[str, float]:
        """How far scores and gradients are from those in the file, each as a part of the right one's length."""
        self.network = ""  # what was timed has learnt, and the reference has not
        self.take(network)
        found = self.gradients(*cpu_networks.batch(network, batch), training)
        with numpy.load(Path(file)) as right:
            return {name: distance(found.get(name), right[name]) for name in right}

    def peak(self, network: str, batch: int) -> int | None:
        """Bytes at the peak of training steps less those after importing, in a new process; None if unknown."""
        self.prepare()
        before = memory._status("VmRSS")
        self.load(network, batch, "training", most=1)
        for _ in range(STEPS_TO_SETTLE):
            self.call()
        after = memory._status("VmHWM")
        return None if after is None or before is None else after - before


def distance(found: numpy.ndarray | None, right: numpy.ndarray) -> float:
    """|found - right| / |right|, in Euclid's norm; infinite where there is none of this shape."""
    if found is None or found.shape != right.shape:
        return math.inf
    apart = float(numpy.linalg.norm((found.astype("float64") - right).ravel()))
    length = float(numpy.linalg.norm(right.ravel()))
    return apart / length if length else apart
