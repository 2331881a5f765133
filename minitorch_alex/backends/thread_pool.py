"""One pool of threads for the kernels of a CPU backend, and BLAS kept out of their way.

The kernels are serial and release Python's global lock; sharing them out over slices of a batch is what uses the cores.
While they run, BLAS is held at one thread: otherwise every one of our threads would start as many of its own.

Ctrl-C reaches the main thread between any two of its steps, also here. What it interrupts has stopped writing to its
arrays before the interruption is seen outside, and the next call finds everything as it was.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def out_of_reach(function: Callable, *arguments: Any) -> Any:
    """function(*arguments), where Ctrl-C does not reach: in a thread of its own. It is seen when that is done."""
    with ThreadPoolExecutor(1, thread_name_prefix="minitorch_alex_out_of_reach") as thread:
        return thread.submit(function, *arguments).result()


class Job:
    """One call of `share`: slices that wait for a thread, whichever has time first.

    Without a lock, which an interrupted caller might leave locked: a list grows, and a deque shrinks, in one step.
    """

    def __init__(self, work: Work, slices: list[tuple[int, int]]) -> None:
        self.work, self.waiting = work, deque(slices)
        self.came: list[None] = []  # one for each helper that has come, and for each that has gone
        self.gone: list[None] = []
        self.news: SimpleQueue[None] = SimpleQueue()  # somebody has gone
        self.error: BaseException | None = None
        self.over = False

    def help(self) -> None:
        """Work as one of the helpers. Who takes a slice has come before, so the caller will wait for him."""
        self.came.append(None)
        self.work_off()
        self.gone.append(None)
        self.news.put(None)

    def work_off(self) -> None:
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

    def finish(self) -> None:
        """Hand out nothing more, and wait until all helpers have gone."""
        self.waiting.clear()
        while len(self.gone) < len(self.came):
            self.news.get()
        self.over = True


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
        self._inside: dict[int, object] = {}  # who is inside one_blas_thread now, by thread
        self._blas: threadpoolctl.ThreadpoolController | None = None
        self._before: list[int] | None = None  # BLAS's numbers of threads, while they are held at one

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
        try:
            for _ in slices[1:]:
                self._jobs.put(job)
            job.work_off()
        finally:
            while not job.over:  # Ctrl-C waits as well
                try:
                    job.finish()
                except KeyboardInterrupt as error:
                    job.error = error
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

        BLAS has one number of threads for the whole process: who sets it elsewhere meanwhile is overruled. A thread
        that Ctrl-C kept from leaving has left when it comes again; so none may enter twice, one inside the other.
        """
        thread, visit = threading.get_ident(), object()
        try:
            with self._lock:
                if not self._inside:
                    self._hold_blas()
                self._inside[thread] = visit
            yield
        finally:
            with self._lock:
                if self._inside.get(thread) is visit:
                    del self._inside[thread]
                if not self._inside:
                    self._let_blas_go()

    def _hold_blas(self) -> None:
        """Every BLAS at one thread. What they had before is known before the first of them is touched."""
        if self._blas is None:
            self._blas = threadpoolctl.ThreadpoolController().select(user_api="blas")
        if self._before is None:
            self._before = [library.num_threads for library in self._blas.lib_controllers]
        self._take_control()
        for library in self._blas.lib_controllers:
            library.set_num_threads(1)

    def _let_blas_go(self) -> None:
        """Every BLAS at what it had before. This is forgotten after the last of them has been set."""
        if self._blas is not None and self._before is not None:
            self._take_control()
            for library, threads in zip(self._blas.lib_controllers, self._before, strict=True):
                library.set_num_threads(threads)
            self._take_control()
            self._before = None

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
