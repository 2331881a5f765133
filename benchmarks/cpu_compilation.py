"""What compiling the kernels costs a new process: for the CPU benchmark."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import cpu_networks
from .cpu_contestant import Contestant

STEPS = 3  # the first has no velocities yet, so the second may need another kernel


def first_steps(ours: Contestant, network: str, batch: int) -> dict[str, Any]:
    """Seconds to import the compiler, those within it in the first steps, and of each step."""
    ours.build(cpu_networks.build(network), [])  # without looking at its layers, which would compile
    began = time.perf_counter()
    ours.prepare()
    imported = time.perf_counter() - began
    ours.call = ours.prepared("training", "", *cpu_networks.batch(network, batch))
    with compiler_watched() as events:
        steps = [ours.time(0.0) for _ in range(STEPS)]
    return {"importing": imported, "compiling": covered(events), "steps": steps}


@contextmanager
def compiler_watched() -> Iterator[list[tuple[float, int]]]:
    """A list that fills with (seconds, +1 or -1) whenever Numba begins or ends to make a kernel, or to read it."""
    events: list[tuple[float, int]] = []
    if "numba" not in sys.modules:  # another backend
        yield events
        return
    from numba.core.dispatcher import Dispatcher

    original = Dispatcher.compile  # asks the cache first

    def watched(self: Any, signature: Any) -> Any:
        events.append((time.perf_counter(), 1))
        try:
            return original(self, signature)
        finally:
            events.append((time.perf_counter(), -1))

    Dispatcher.compile = watched
    try:
        yield events
    finally:
        Dispatcher.compile = original


def covered(events: Iterable[tuple[float, int]]) -> float:
    """Seconds in which at least one thing was under way: one kernel is compiled while another one is, or waits."""
    whole, under_way, began = 0.0, 0, 0.0
    for at, change in sorted(events):
        if not under_way:
            began = at
        under_way += change
        if not under_way:
            whole += at - began
    return whole
