"""How kernels are compiled for a CPU: by Numba, when first called, and kept on disk; the first time says so.

A kernel is serial, and lets other threads run meanwhile: threads are the caller's business. Everything that it calls
must stand in its own file, because Numba takes what it has kept for good as long as that file is unchanged. (So a
change of what LLVM may do, here, is not noticed: touch the kernels' files then.)

Numba does not survive a Ctrl-C while it is loaded or compiles: afterwards it lacks what it was about to learn, until
Python is started again. So it does both out of reach.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

from numba import njit
from numba.core import event

from .thread_pool import out_of_reach


def compiled(*liberties: str) -> Callable[[Callable], Callable]:
    """A decorator for kernels. Liberties are those that LLVM may take with floating-point numbers, by its names."""

    def decorate(function: Callable) -> Callable:
        settings: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(liberties)}
        try:
            kernel = njit(cache=True, **settings)(function)
        except RuntimeError:  # there is no folder that could keep it
            kernel = njit(**settings)(function)
        kernel._compile_for_args = functools.partial(out_of_reach, kernel._compile_for_args)
        return kernel

    return decorate


kernel = compiled()
in_any_order = compiled("reassoc")  # sums may be added up in vectors
approximate = compiled("reassoc", "contract", "nsz")  # and products be fused with sums


class Announcement(event.Listener):
    """Says once that kernels are being compiled, which takes seconds in which nothing else happens. Numba tells of all
    that it compiles in this process; other people's functions are their own business."""

    told = False

    def on_start(self, event: Any) -> None:
        ours = event.data["dispatcher"].py_func.__module__.startswith(__package__)
        if ours and not self.told:
            self.told = True
            print("compiling the kernels for this machine, which happens once", file=sys.stderr, flush=True)  # noqa: T201

    def on_end(self, event: Any) -> None:
        """Nothing: whatever comes next shows that it is over."""


ANNOUNCEMENT = Announcement()
event.register("numba:compile", ANNOUNCEMENT)
