"""What this machine can do at most, measured on the spot in about a second: what a layer's speed is judged against.

A computation has to multiply and add, and it has to fetch its numbers from memory and bring the results back. Neither
goes faster than the machine can, so the slower of the two is the least time that it can take:

    least time = max(operations / peak of operations, bytes / peak of bytes)

The first peak is taken from a large matrix product, in which every number is used thousands of times; the second from
the sum of two arrays that no cache can hold, in which every number is used once. (Williams, Waterman and
Patterson 2009 call this the roofline model.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy
import threadpoolctl

from .backends import Backend
from .backends.thread_pool import usable_cores
from .clock import Clock, clock_of

MILLISECONDS = 400.0  # for each of the two
LEAST = 3  # times; the fastest counts
SIDE, SIDE_ON_GPU = 2048, 8192  # of the matrices
NUMBERS, NUMBERS_ON_GPU = 1 << 24, 1 << 28  # in each array: 64 MiB, and 1 GiB
FREE = 16  # an array takes no more of a GPU's free memory than one part in so many


class Peak(NamedTuple):
    """Operations (a multiplication or an addition each) and bytes in a second, of all cores or of the GPU."""

    operations: float
    bytes: float

    def least_milliseconds(self, operations: float, moved: float) -> float:
        """The time below which it cannot be done: so many operations, and so many bytes read and written."""
        return 1000 * max(operations / self.operations, moved / self.bytes)

    def __str__(self) -> str:
        return f"{self.operations / 1e9:,.0f} GFLOP/s in a matrix product, {self.bytes / 1e9:,.1f} GB/s in an addition"


def measure_peak(backend: Backend, dtype: Any = "float32") -> Peak:
    """Of the cores, or of the GPU, on which the backend computes; of products of matrices of this type."""
    clock = clock_of(backend)
    if not backend.has_own_memory:
        return Peak(_of_products(clock, numpy, SIDE, dtype), _of_the_cores_memory(clock))
    room = backend.free_bytes() // (4 * FREE)
    return Peak(
        _of_products(clock, backend.xp, min(SIDE_ON_GPU, math.isqrt(room)), dtype),
        _of_the_gpus_memory(clock, backend.xp, min(NUMBERS_ON_GPU, room)),
    )


def _of_products(clock: Clock, xp: Any, side: int, dtype: Any) -> float:
    """A product of n x n matrices takes n^3 multiplications and as many additions."""
    random = numpy.random.default_rng(0)
    a, b = (xp.asarray(random.standard_normal((side, side), "float32").astype(dtype)) for _ in range(2))
    with threadpoolctl.threadpool_limits(usable_cores(), user_api="blas"):
        return 2e3 * side**3 / fastest(clock, lambda: a @ b)


def _of_the_cores_memory(clock: Clock) -> float:
    """An addition reads two arrays and writes one. Each core takes a slice, since NumPy gives it to one alone."""
    a, b, out = (numpy.ones(NUMBERS, "float32") for _ in range(3))
    cores = usable_cores()
    bounds = [NUMBERS * i // cores for i in range(cores + 1)]

    def add(core: int) -> None:
        part = slice(bounds[core], bounds[core + 1])
        numpy.add(a[part], b[part], out=out[part])

    with ThreadPoolExecutor(cores) as pool:
        return 3e3 * a.nbytes / fastest(clock, lambda: list(pool.map(add, range(cores))))


def _of_the_gpus_memory(clock: Clock, cupy: Any, numbers: int) -> float:
    a, b, out = (cupy.ones(numbers, "float32") for _ in range(3))
    return 3e3 * a.nbytes / fastest(clock, lambda: cupy.add(a, b, out=out))


def fastest(clock: Clock, call: Callable[[], Any]) -> float:
    """Milliseconds of a call that nothing disturbs: the least of as many as fit into the time, after one to warm up."""
    call()
    found: list[float] = []
    while len(found) < LEAST or sum(found) < MILLISECONDS:
        begin = clock.now()
        call()
        end = clock.now()
        clock.wait_for(end)
        found.append(clock.milliseconds(begin, end))
    return min(found)
