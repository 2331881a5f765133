"""One pool of threads for the kernels of a CPU backend, and BLAS kept out of their way.

The kernels are serial and release Python's global lock; sharing them out over slices of a batch is what uses the cores.
While they run, BLAS is held at one thread: otherwise every one of our threads would start as many of its own.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

import numpy
import threadpoolctl

WORTH_SHARING = 5_000_000  # multiply-adds of a matrix product: 0.1 ms on one core, and waking a thread takes half of it

Work = Callable[[int, int], None]


def threads_to_use() -> int:
    """All usable cores, or fewer where OMP_NUM_THREADS says so, which BLAS obeys too."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return min(usable_cores(), max(1, int(wished))) if wished.isdecimal() else usable_cores()


def usable_cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Job:
    """One call of `share`: slices that wait for a thread, whichever has time first."""

    def __init__(self, work: Work, slices: list[tuple[int, int]]) -> None:
        self.work, self.waiting, self.unfinished = work, deque(slices), len(slices)
        self.lock, self.finished = threading.Lock(), threading.Event()
        self.error: BaseException | None = None

    def help(self) -> None:
        """Work until no slice waits any longer."""
        while True:
            try:
                start, stop = self.waiting.popleft()
            except IndexError:
                return
            try:
                self.work(start, stop)
            except BaseException as error:  # told to the caller, when the others have finished
                self.error = error
            with self.lock:
                self.unfinished -= 1
                if not self.unfinished:
                    self.finished.set()


class ThreadPool:
    """Threads that share out the images of a batch. Safe to use from several Python threads at once."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._start()
        if hasattr(os, "register_at_fork"):  # threads do not survive a fork
            os.register_at_fork(after_in_child=self._start)

    def _start(self) -> None:
        self._jobs: SimpleQueue[Job] = SimpleQueue()
        self._helpers = 0  # threads beside the callers'; they start when there is something to share
        self._lock = threading.Lock()
        self._sections = 0  # how many callers are inside one_blas_thread now
        self._blas: threadpoolctl.ThreadpoolController | None = None
        self._restore: threadpoolctl.threadpool_limits | None = None

    def share(self, work: Work, count: int, cost: float) -> None:
        """Call work(start, stop) on slices that cover range(count).

        `cost` is that of the whole, in multiply-adds of a matrix product that would take as long. The slices depend on
        `count`, `cost` and the number of threads alone, so results repeat bit for bit. A caller whose helpers come too
        late does their slices as well.
        """
        slices = self.slices(count, cost)
        if len(slices) == 1:
            work(*slices[0])
            return
        self._start_helpers()
        job = Job(work, slices)
        for _ in slices[1:]:
            self._jobs.put(job)
        job.help()
        job.finished.wait()
        if job.error is not None:
            raise job.error

    def share_arrays(self, kernel: Callable, arrays: Sequence[Any], settings: tuple, cost: float) -> None:
        """Call kernel(*arrays, *settings) on slices along the arrays' first dimension; on all of it if it is little."""
        if cost < WORTH_SHARING:  # slicing them would take as long as a small kernel
            kernel(*arrays, *settings)
        else:
            count = len(arrays[0])
            self.share(lambda start, stop: kernel(*(a[start:stop] for a in arrays), *settings), count, cost)

    def would_share(self, count: int, cost: float) -> bool:
        """Whether `share` uses more than one thread."""
        return cost >= WORTH_SHARING and min(self.threads, count) > 1

    def slices(self, count: int, cost: float) -> list[tuple[int, int]]:
        """The slices that `share` uses: as many as there are threads, or one where the work is small."""
        parts = min(self.threads, count) if self.would_share(count, cost) else 1
        return [(count * i // parts, count * (i + 1) // parts) for i in range(parts)]

    def _start_helpers(self) -> None:
        if self._helpers < self.threads - 1:
            with self._lock:
                while self._helpers < self.threads - 1:
                    name = f"minitorch_alex_{self._helpers}"
                    threading.Thread(target=_help, args=(self._jobs,), name=name, daemon=True).start()
                    self._helpers += 1

    @contextmanager
    def one_blas_thread(self) -> Iterator[None]:
        """BLAS at one thread until the last caller has left; then what it was before the first one came.

        BLAS has one number of threads for the whole process: who sets it elsewhere meanwhile is overruled.
        """
        entered = False
        try:
            with self._lock:
                if self._blas is None:
                    self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
                self._sections, entered = self._sections + 1, True
                if self._sections == 1:
                    self._take_control()
                    self._restore = self._blas.limit(limits=1)
            yield
        finally:
            with self._lock:
                self._sections -= entered
                if self._sections == 0 and self._restore is not None:
                    self._take_control()
                    self._restore.restore_original_limits()
                    self._take_control()

    def _take_control(self) -> None:
        """From 3.8 on, threadpoolctl obeys one thread, the first that set a limit, and silently ignores all others."""
        for library in self._blas.lib_controllers if self._blas else ():
            if hasattr(library, "clear_controlling_thread"):
                library.clear_controlling_thread(force=True)


def _help(jobs: SimpleQueue[Job]) -> None:
    """What a helper does all its life. NumPy's warnings are switched off thread by thread; an operation has done so for
    its own thread only."""
    with numpy.errstate(all="ignore"):
        while True:
            jobs.get().help()
