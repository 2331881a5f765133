"""How kernels are compiled for a CPU: by Numba, when first called, and kept on disk; the first time says so.

A kernel is serial, and lets other threads run meanwhile: threads are the caller's business. Everything that it calls
must stand in its own file, because Numba takes what it has kept for good as long as that file is unchanged.
"""

from __future__ import annotations

import sys
from typing import Any

from numba import njit
from numba.core import event

kernel = njit(cache=True, nogil=True, error_model="numpy")
in_any_order = njit(
    cache=True, nogil=True, error_model="numpy", fastmath={"reassoc"}
)  # sums may be added up in vectors
# Here products may be fused with sums, too, and those with what is known to be zero left out.
approximate = njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz", "nnan", "ninf"})


class Announcement(event.Listener):
    """Says once that kernels are being compiled, which takes seconds in which nothing else happens."""

    told = False

    def on_start(self, event: Any) -> None:
        if not self.told:
            self.told = True
            print("compiling the kernels for this machine, which happens once", file=sys.stderr, flush=True)  # noqa: T201

    def on_end(self, event: Any) -> None:
        """Nothing: whatever comes next shows that it is over."""


ANNOUNCEMENT = Announcement()
event.register("numba:compile", ANNOUNCEMENT)
