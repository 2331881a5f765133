"""Time between two moments: of a CPU, and of a GPU, which computes while Python is somewhere else already."""

from __future__ import annotations

import time
from typing import Any

from .backends import Backend


class Clock:
    """A CPU has computed by the time Python goes on, so a moment is a reading of the system's clock."""

    def now(self) -> Any:
        return time.perf_counter()

    def milliseconds(self, begin: Any, end: Any) -> float:
        return 1000 * (end - begin)

    def wait_for(self, moment: Any) -> None:
        """Until what was asked for before this moment is done."""


class GpuClock(Clock):
    """A moment is an event in the GPU's queue: it is passed when the GPU has done all that was queued before it."""

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy

    def now(self) -> Any:
        event = self.cupy.cuda.Event()
        event.record()
        return event

    def milliseconds(self, begin: Any, end: Any) -> float:
        return self.cupy.cuda.get_elapsed_time(begin, end)

    def wait_for(self, moment: Any) -> None:
        moment.synchronize()


def clock_of(backend: Backend) -> Clock:
    """The one that what this backend computes is timed by."""
    return GpuClock(backend.xp) if backend.has_own_memory else Clock()
