"""One pool of threads for the kernels of a CPU backend, and BLAS kept out of their way.

The kernels are serial and release Python's global lock; sharing them out over slices of a batch is what uses the cores.
While they run, BLAS is held at one thread: otherwise every one of our threads would start as many of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

import numpy
import threadpoolctl

WORTH_SHARING = 200_000  # multiply-adds, or elements touched: below this, one thread does it all


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quietly(work: Callable[[int, int], None], start: int, stop: int) -> None:
    """NumPy's warnings are switched off thread by thread; an operation has done so for its own thread only."""
    with numpy.errstate(all="ignore"):
        work(start, stop)


class ThreadPool:
    """Threads that share out the images of a batch. Safe to use from several Python threads at once."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()
        if hasattr(os, "register_at_fork"):  # threads do not survive a fork
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._executor = ThreadPoolExecutor(max(1, self.threads - 1), thread_name_prefix="minitorch_alex")
        self._lock = threading.Lock()
        self._sections = 0  # how many callers are inside one_blas_thread now
        self._blas: threadpoolctl.ThreadpoolController | None = None
        self._restore: threadpoolctl.threadpool_limits | None = None

    def share(self, work: Callable[[int, int], None], count: int, cost: float) -> None:
        """Call work(start, stop) on slices that cover range(count). `cost` is that of the whole.

        The slices depend on `count`, `cost` and the number of threads alone, so results repeat bit for bit.
        """
        bounds = self.slices(count, cost)
        others = [self._executor.submit(_quietly, work, start, stop) for start, stop in bounds[1:]]
        try:
            work(*bounds[0])
        finally:
            wait(others)
        for other in others:
            other.result()  # raises what went wrong in it

    def slices(self, count: int, cost: float) -> list[tuple[int, int]]:
        """The slices that `share` uses: as many as there are threads, or one where the work is small."""
        parts = max(1, min(self.threads, count)) if cost >= WORTH_SHARING else 1
        return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]

    @contextmanager
    def one_blas_thread(self) -> Iterator[None]:
        """BLAS at one thread until the last caller has left; then what it was before the first one came."""
        with self._lock:
            self._sections += 1
            if self._sections == 1:
                if self._blas is None:
                    self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
                self._restore = self._blas.limit(limits=1)
        try:
            yield
        finally:
            with self._lock:
                self._sections -= 1
                if self._sections == 0 and self._restore is not None:
                    self._restore.restore_original_limits()
