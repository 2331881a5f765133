"""Every kernel that a CUDA backend launches, at the shapes at which AlexNet meets it: is it right, and how fast?

"GB/s" counts the bytes that the computation must read and write, each once: arrays that go in and arrays that come out.
A kernel that reads something twice from memory is slower by that measure, and is meant to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy

from minitorch_alex import philox
from minitorch_alex.backends import Backend
from minitorch_alex.backends.number_types import BFLOAT16, bfloat16
from minitorch_alex.backends.numpy_backend import BACKEND as REFERENCE
from minitorch_alex.backends.numpy_backend import Window

from .gpu_timing import WRONG, Row, attempted, table, timing

SMALL = 2  # images, for comparing with the reference
GOAL = 0.8  # of the speed of a copy
TOLERANCE = {"float32": 1e-5, BFLOAT16: 2e-2}  # of the largest number of a result
BOTH, SINGLE = ("float32", BFLOAT16), ("float32",)
WEIGHTS = 61_000_000  # of AlexNet
LRN = 5, 5e-4, 0.75
POOL = Window((3, 3), (2, 2))
CONV1, CONV2 = Window((11, 11), (4, 4)), Window((5, 5), (1, 1), (2, 2))


class Draw:
    """Makes arrays of random numbers, quickly: the same numbers come again and again."""

    def __init__(self, dtype: str) -> None:
        self.dtype = bfloat16() if dtype == BFLOAT16 else numpy.dtype(dtype)
        self.random = numpy.random.default_rng(0)

    def __call__(self, *shape: int) -> numpy.ndarray:
        """Around 0, with a spread of 1."""
        numbers = self.random.standard_normal(min(math.prod(shape), 1_000_003), "float32")
        return numpy.resize(numbers.astype(self.dtype), shape)

    def positive(self, *shape: int) -> numpy.ndarray:
        """Between 1 and 2."""
        numbers = self.random.uniform(1, 2, min(math.prod(shape), 1_000_003))
        return numpy.resize(numbers.astype(self.dtype), shape)

    def below(self, n: int, *shape: int, dtype: str = "int32") -> numpy.ndarray:
        """Whole numbers from 0 to n - 1."""
        return numpy.resize(self.random.integers(0, n, min(math.prod(shape), 1_000_003), dtype), shape)


class Case(NamedTuple):
    """A method of a backend, and what it is called with for N images."""

    name: str
    method: str
    arguments: Callable[[Draw, int], tuple]
    dtypes: tuple[str, ...] = BOTH  # in which a step in bf16 meets it: loss, batch norm and weights stay in float32
    more: Callable[[tuple], int] = lambda arguments: 0  # bytes besides those of the arrays, which may be too many


def pixels1(draw: Draw, N: int) -> numpy.ndarray:
    """As conv1 gives them."""
    return draw(N, 96, 55, 55)


def pooled1(draw: Draw, N: int) -> numpy.ndarray:
    return draw(N, 96, 27, 27)


def ties(d: Draw, N: int) -> tuple:
    x = numpy.maximum(pixels1(d, N), 0)
    y = x[:, :, :54, :54].reshape(N, 96, 27, 2, 27, 2).max(axis=(3, 5))  # some equal their window's maximum
    return pooled1(d, N), x, y, POOL


def dropout(d: Draw, rows: int) -> tuple:
    return d(rows, 4096), 0.5, philox.key("drop6", 0), (7, 0), "torch"


def scores(d: Draw, rows: int) -> tuple:
    return d(rows, 1000), d.below(1000, rows, dtype="int64"), -100, 1 / rows


def sgd(d: Draw, N: int) -> tuple:
    count = WEIGHTS * N // 128
    return d(count), d(count), d(count), 0.01, 0.9, 5e-4


def crops(d: Draw, N: int, side: int, mean: tuple[int, ...]) -> tuple:
    images = d.below(256, N, 3, 256, 256, dtype="uint8")
    places = d.below(257 - side, N), d.below(257 - side, N), d.below(2, N, dtype="uint8")
    colours = d.positive(*mean), d.positive(3, 1, 1), d(N, 3)
    return images, numpy.arange(N, dtype="int32"), *places, (side, side), 0, *colours, 1.0


def unseen(arguments: tuple) -> int:
    """The bytes of the stored images that no crop shows."""
    images, (P, Q) = arguments[0], arguments[5]
    return -len(images) * images.shape[1] * (images.shape[2] * images.shape[3] - P * Q)


def batch_norm(d: Draw, N: int) -> tuple:
    return pixels1(d, N), d(96).astype("float64"), d.positive(96)


def read_again(arguments: tuple) -> int:
    """Sums over the batch must be known before the gradient can be computed, from gy and x again."""
    return arguments[0].nbytes + arguments[1].nbytes


CASES = [
    Case("ReLU, conv1", "relu", lambda d, N: (pixels1(d, N),)),
    Case("ReLU, gradient", "relu_gradient", lambda d, N: (pixels1(d, N), pixels1(d, N))),
    Case("LRN, conv1", "local_response_norm", lambda d, N: (pixels1(d, N), *LRN, 2.0)),
    Case("LRN, gradient", "local_response_norm_gradient",
         lambda d, N: (pixels1(d, N), pixels1(d, N), d.positive(N, 96, 55, 55), *LRN)),
    Case("LRN over 3 channels", "local_response_norm", lambda d, N: (pixels1(d, N), 3, 5e-4, 0.75, 2.0)),
    Case("LRN over 3 channels, gradient", "local_response_norm_gradient",
         lambda d, N: (pixels1(d, N), pixels1(d, N), d.positive(N, 96, 55, 55), 3, 5e-4, 0.75)),
    Case("spatial norm, conv2", "spatial_response_norm", lambda d, N: (d(N, 256, 27, 27), 5, 1e-3, 0.75, 1.0)),
    Case("spatial norm, gradient", "spatial_response_norm_gradient",
         lambda d, N: (d(N, 256, 27, 27), d(N, 256, 27, 27), d.positive(N, 256, 27, 27), 5, 1e-3, 0.75)),
    Case("max pool, pool1", "max_pool2d", lambda d, N: (pixels1(d, N), POOL)),
    Case("max pool, gradient", "max_pool2d_gradient",
         lambda d, N: (pooled1(d, N), d.below(9, N, 96, 27, 27), (N, 96, 55, 55), POOL)),
    Case("max pool, gradient to ties", "max_pool2d_gradient_to_ties", ties),
    Case("sum pool, pool1", "sum_pool2d", lambda d, N: (pixels1(d, N), POOL)),
    Case("sum pool, gradient", "sum_pool2d_gradient", lambda d, N: (pooled1(d, N), (N, 96, 55, 55), POOL)),
    Case("im2col, conv1", "im2col", lambda d, N: (d(N, 3, 227, 227), CONV1)),
    Case("im2col, conv2", "im2col", lambda d, N: (pooled1(d, N), CONV2)),
    Case("col2im, conv1", "col2im", lambda d, N: (d(N, 363, 3025), (N, 3, 227, 227), CONV1)),
    Case("col2im, conv2", "col2im", lambda d, N: (d(N, 2400, 729), (N, 96, 27, 27), CONV2)),
    Case("batch norm, statistics", "batch_norm_statistics", lambda d, N: (pixels1(d, N), 1e-5), SINGLE),
    Case("batch norm, conv1", "batch_norm", lambda d, N: (*batch_norm(d, N), d(96), d(96)), SINGLE),
    Case("batch norm, gradients", "batch_norm_gradients",
         lambda d, N: (pixels1(d, N), *batch_norm(d, N), d(96), True), SINGLE, read_again),
    Case("dropout, fc6", "dropout", dropout),
    Case("dropout, 64 times fc6", "dropout", lambda d, N: dropout(d, 64 * N)),
    Case("softmax cross entropy", "softmax_cross_entropy", scores, SINGLE),
    Case("softmax cross entropy, 256 times", "softmax_cross_entropy", lambda d, N: scores(d, 256 * N), SINGLE),
    Case("SGD, the paper's, all weights", "sgd_paper", sgd, SINGLE),
    Case("SGD, PyTorch's", "sgd_torch", lambda d, N: (*sgd(d, N), 0.0, False), SINGLE),
    Case("augment to 227, mean image", "augment", lambda d, N: crops(d, N, 227, (3, 227, 227)), SINGLE, unseen),
    Case("augment to 224", "augment", lambda d, N: crops(d, N, 224, (3, 1, 1)), SINGLE, unseen),
    Case("index_add, every row once", "index_add",
         lambda d, N: (d(1000 * N, 64), d.random.permutation(1000 * N), d(1000 * N, 64)), SINGLE),
]  # fmt: skip


# -- one case ---------------------------------------------------------------------------
def measure_kernels(backend: Backend, batch: int, repeats: int, copy: float, tell: Callable[[str], None]) -> list[Row]:
    """A row for each case and type of number. `copy` is the speed of a copy, in GB/s."""
    rows = []
    for case in CASES:
        for dtype in case.dtypes:
            row = {"operation": case.name, "method": case.method, "dtype": dtype, "batch": batch}
            rows.append(attempted(backend, row, lambda c=case, t=dtype: measure(backend, c, t, batch, repeats, copy)))
            tell(f"{case.name}, {dtype}")
    return rows


def measure(backend: Backend, case: Case, dtype: str, batch: int, repeats: int, copy: float) -> Row:
    """Compare with the reference on a few images, then take the time of a whole batch."""
    error, launched = compare(backend, case, dtype)
    arguments = on_device(backend, case.arguments(Draw(dtype), batch))
    method = getattr(backend, case.method)
    moved = least_bytes(case, arguments, method(*arguments))
    found = timing(backend, lambda: method(*arguments), repeats)
    speed = moved / found.gpu / 1e9
    return {
        "launches": launched, "error": error, "bytes": moved, "microseconds": 1e6 * found.gpu,
        "host_microseconds": 1e6 * found.host, "gb_per_s": speed, "of_copy": speed / copy,
        "is_launching": found.is_launching, "reaches_goal": speed / copy >= GOAL,
    }  # fmt: skip


def compare(backend: Backend, case: Case, dtype: str) -> tuple[float, list[str]]:
    """How far the results are from the reference's, in parts of the largest number; and the kernels launched.

    ValueError if they are too far. The reference computes in float32 with what bfloat16 has kept of the numbers.
    """
    arguments = case.arguments(Draw(dtype), SMALL)
    plain = [a.astype("float32") if getattr(a, "dtype", None) == BFLOAT16 else a for a in arguments]
    given = on_device(backend, arguments)  # before the reference changes what it changes in place
    expected = results(
        getattr(REFERENCE, case.method)(*(a.copy() if isinstance(a, numpy.ndarray) else a for a in plain))
    )
    with launches(backend) as names:
        found = results(getattr(backend, case.method)(*given))
    distances = [distance(backend.to_numpy(a), b) for a, b in zip(found, expected, strict=True)]
    error = float(numpy.max(distances))  # NaN if one of them is
    if not error <= TOLERANCE[dtype]:
        raise ValueError(f"{WRONG}{case.method} is {error:.1e} off the reference's results")
    return error, list(dict.fromkeys(names))


def results(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def distance(found: numpy.ndarray, expected: numpy.ndarray) -> float:
    """The largest difference, in parts of the largest number."""
    if found.shape != expected.shape:
        raise ValueError(f"{WRONG}shape {found.shape} instead of {expected.shape}")
    found, expected = found.astype("float64"), expected.astype("float64")
    largest = float(numpy.abs(expected).max(initial=0)) or 1.0
    return float(numpy.abs(found - expected).max(initial=0)) / largest


def on_device(backend: Backend, arguments: tuple) -> tuple:
    """The arguments with arrays of the backend in place of NumPy's; none is shared, for some are changed in place."""
    return tuple(backend.xp.array(a) if isinstance(a, numpy.ndarray) else a for a in arguments)


def least_bytes(case: Case, arguments: tuple, value: Any) -> int:
    """What must be read and written: the arrays that go in and come out."""
    arrays = [a for a in (*arguments, *results(value)) if hasattr(a, "nbytes")]
    return sum(a.nbytes for a in arrays) + case.more(arguments)


@contextmanager
def launches(backend: Any) -> Iterator[list[str]]:
    """Within it, the names of the kernels launched, as "lrn.cu:local_response_norm"."""
    names: list[str] = []
    original = backend.launch_blocks

    def launch_blocks(file: str, kernel: str, *rest: Any) -> Any:
        names.append(f"{file}:{kernel.split('<')[0]}")
        return original(file, kernel, *rest)

    backend.launch_blocks = launch_blocks
    try:
        yield names
    finally:
        del backend.launch_blocks


# -- the table --------------------------------------------------------------------------
def kernel_table(rows: list[Row], copy: float) -> str:
    columns = {
        "operation": -30,
        "type": -9,
        "us": 9,
        "MB": 8,
        "GB/s": 7,
        "of copy": 8,
        f">= {GOAL:.0%}": -8,
        "kernels": -9,
    }
    title = (
        f"Kernels. A copy on the device: {copy:,.0f} GB/s, bytes read and written. An operation's GB/s count what it\n"
        "must read and write at least. Small arrays may come from the L2 cache and beat the copy.\n"
        '"launch": the GPU waited for Python, which says nothing about the kernel.'
    )
    return table(title, columns, (_cells(row) for row in rows))


def _cells(row: Row) -> list[object]:
    if "problem" in row:
        return [row["operation"], row["dtype"], row["problem"]]
    verdict = "yes" if row["reaches_goal"] else "launch" if row["is_launching"] else "no"
    kernels = " ".join(row["launches"]) or "CuPy's own"
    return [
        row["operation"], row["dtype"], f"{row['microseconds']:.1f}", f"{row['bytes'] / 1e6:.1f}",
        f"{row['gb_per_s']:,.0f}", f"{row['of_copy']:.0%}", verdict, kernels,
    ]  # fmt: skip


if __name__ == "__main__":
    raise SystemExit("this is a part of python -m benchmarks.gpu")
