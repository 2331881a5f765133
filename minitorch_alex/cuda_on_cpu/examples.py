"""A small example for each kernel: sizes that a person can follow, and what a launch needs.

`python -m minitorch_alex.cuda_on_cpu` runs these. To add one, write a function here with the kernel's name and file.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy

from .memory import Array

THREADS = 256  # in a block


@dataclass
class Example:
    """One launch."""

    arguments: list  # in the order of the kernel's parameters
    grid: tuple[int, ...] = (1,)
    block: tuple[int, ...] = (THREADS,)
    shared_mem: int = 0
    template: str = ""  # what the template needs besides the type, such as "5"


class Draw:
    """Makes arrays of one type."""

    def __init__(self, dtype: str, seed: int = 0) -> None:
        self.dtype = numpy.dtype(dtype)
        self.random = numpy.random.default_rng(seed)

    def number(self, value: float) -> numpy.generic:
        """A scalar of type T."""
        return self.dtype.type(value)

    def numbers(self, *shape: int) -> Array:
        """Around 0, with two decimals, so that they are easy to read."""
        return self.random.normal(size=shape).round(2).astype(self.dtype)

    def positive(self, *shape: int) -> Array:
        """Between 0.5 and 2."""
        return self.random.uniform(0.5, 2, shape).round(2).astype(self.dtype)

    def below(self, n: int, *shape: int, dtype: str = "int32") -> Array:
        """Whole numbers 0 ... n - 1."""
        return self.random.integers(0, n, shape).astype(dtype)

    def empty(self, *shape: int, dtype: str | None = None) -> Array:
        """For a result: -77 wherever the kernel forgets to write."""
        return numpy.full(shape, 77 if dtype and dtype.startswith("u") else -77, dtype or self.dtype)


EXAMPLES: dict[str, Callable[[Draw], Example]] = {}  # "file:kernel" -> what makes its example


def example(file: str) -> Callable[[Callable[[Draw], Example]], Callable[[Draw], Example]]:
    """The function below is the example for the kernel of its name in this file."""

    def keep(function: Callable[[Draw], Example]) -> Callable[[Draw], Example]:
        EXAMPLES[f"{file}:{function.__name__}"] = function
        return function

    return keep


def blocks(threads: int) -> tuple[int]:
    """As many blocks as so many threads need."""
    return (math.ceil(threads / THREADS),)


# -- to begin with ------------------------------------------------------------------
@example("vector_add.cu")
def vector_add(draw: Draw) -> Example:
    return Example([draw.numbers(10), draw.numbers(10), draw.empty(10), 10])


# -- sliding windows: images (1, 2, 5, 6), windows 3 x 3, 2 apart, 1 pixel of padding ---------
N, C, H, W, R, S, P, Q = 1, 2, 5, 6, 3, 3, 3, 3
WINDOW = [2, 2, 1, 1, 1, 1]  # stride, padding and dilation, each vertical and horizontal


@example("im2col.cu")
def im2col(draw: Draw) -> Example:
    layout = [numpy.int64(C * R * S * P * Q), numpy.int64(P * Q)]
    arguments = [draw.numbers(N, C, H, W), draw.empty(N, C * R * S, P * Q), N, C, H, W, R, S, P, Q, *WINDOW, *layout]
    return Example(arguments, blocks(N * C * P * Q))


@example("col2im.cu")
def col2im(draw: Draw) -> Example:
    layout = [numpy.int64(C * R * S * P * Q), numpy.int64(P * Q)]
    arguments = [draw.numbers(N, C * R * S, P * Q), draw.empty(N, C, H, W), N, C, H, W, R, S, P, Q, *WINDOW, *layout]
    return Example(arguments, blocks(N * C * H * W))


POOLING = [N * C, H, W, R, S, P, Q, *WINDOW]


@example("max_pool.cu")
def max_pool(draw: Draw) -> Example:
    results = [draw.empty(N, C, P, Q), draw.empty(N, C, P, Q, dtype="int32")]
    return Example([draw.numbers(N, C, H, W), *results, *POOLING], blocks(N * C * P * Q))


@example("max_pool.cu")
def max_pool_planes(draw: Draw) -> Example:
    results = [draw.empty(N, C, P, Q), draw.empty(N, C, P, Q, dtype="int32")]
    shared_mem = C * H * W * draw.dtype.itemsize
    return Example([draw.numbers(N, C, H, W), *results, *POOLING, C], shared_mem=shared_mem)


@example("max_pool.cu")
def max_pool_gradient(draw: Draw) -> Example:
    winner = numpy.full((N, C, P, Q), 4, "int32")  # the middle of each window
    return Example([draw.numbers(N, C, P, Q), winner, draw.empty(N, C, H, W), *POOLING], blocks(N * C * H * W))


@example("max_pool.cu")
def max_pool_gradient_to_ties(draw: Draw) -> Example:
    x, y = numpy.ones((N, C, H, W), draw.dtype), numpy.ones((N, C, P, Q), draw.dtype)  # ties everywhere
    return Example([draw.numbers(N, C, P, Q), x, y, draw.empty(N, C, H, W), *POOLING], blocks(N * C * H * W))


@example("sum_pool.cu")
def sum_pool(draw: Draw) -> Example:
    return Example([draw.numbers(N, C, H, W), draw.empty(N, C, P, Q), *POOLING], blocks(N * C * P * Q))


@example("sum_pool.cu")
def sum_pool_gradient(draw: Draw) -> Example:
    return Example([draw.numbers(N, C, P, Q), draw.empty(N, C, H, W), *POOLING], blocks(N * C * H * W))


# -- response normalisation ---------------------------------------------------------
SIZE, ALPHA, BETA, K = 5, 0.5, 0.75, 2.0


def response(draw: Draw, channels: int, gradient: bool) -> list:
    """gy, x and scale for the gradient; x, and room for y and scale, forward."""
    shape = 1, channels, 2, 3
    if gradient:
        return [draw.numbers(*shape), draw.numbers(*shape), draw.positive(*shape) + 1, draw.empty(*shape)]
    return [draw.numbers(*shape), draw.empty(*shape), draw.empty(*shape)]


def response_constants(draw: Draw, gradient: bool) -> list:
    return [draw.number(ALPHA), draw.number(BETA), *([] if gradient else [draw.number(K)])]


@example("lrn.cu")
def local_response_norm(draw: Draw) -> Example:
    return Example([*response(draw, 8, False), 8, 6, numpy.int64(48), SIZE, *response_constants(draw, False)])


@example("lrn.cu")
def local_response_norm_gradient(draw: Draw) -> Example:
    return Example([*response(draw, 8, True), 8, 6, numpy.int64(48), SIZE, *response_constants(draw, True)])


@example("lrn.cu")
def local_response_norm_walk(draw: Draw) -> Example:
    constants = response_constants(draw, False)
    return Example([*response(draw, 8, False), 8, 6, numpy.int64(6), *constants], template=f"{SIZE}")


@example("lrn.cu")
def local_response_norm_gradient_walk(draw: Draw) -> Example:
    constants = response_constants(draw, True)
    return Example([*response(draw, 8, True), 8, 6, numpy.int64(6), *constants], template=f"{SIZE}")


@example("spatial_norm.cu")
def spatial_norm(draw: Draw) -> Example:
    return Example([*response(draw, 3, False), 2, 3, numpy.int64(18), 3, *response_constants(draw, False)])


@example("spatial_norm.cu")
def spatial_norm_gradient(draw: Draw) -> Example:
    return Example([*response(draw, 3, True), 2, 3, numpy.int64(18), 3, *response_constants(draw, True)])


# -- batch normalisation: 3 images, 2 channels, 4 pixels ----------------------------
@example("batch_norm.cu")
def batch_norm_rows(draw: Draw) -> Example:
    return Example(
        [draw.numbers(3, 2, 4), draw.empty(3, 2, dtype="float64"), draw.empty(3, 2, dtype="float64"), 4], (6,), (4,)
    )


@example("batch_norm.cu")
def batch_norm_statistics(draw: Draw) -> Example:
    rows = [draw.numbers(3, 2).astype("float64"), draw.positive(3, 2).astype("float64")]
    results = [draw.empty(2, dtype="float64"), draw.empty(2, dtype="float64"), draw.empty(2)]
    return Example([*rows, *results, 3, 2, 4, 1e-5], (2,), (4,))


@example("batch_norm.cu")
def batch_norm(draw: Draw) -> Example:
    channels = [draw.numbers(2).astype("float64"), draw.positive(2), draw.numbers(2), draw.numbers(2)]
    return Example([draw.numbers(3, 2, 4), *channels, draw.empty(3, 2, 4), 2, 4], (6,), (4,))


@example("batch_norm.cu")
def batch_norm_backward_rows(draw: Draw) -> Example:
    inputs = [draw.numbers(3, 2, 4), draw.numbers(3, 2, 4), draw.numbers(2).astype("float64"), draw.positive(2)]
    return Example([*inputs, draw.empty(3, 2, dtype="float64"), draw.empty(3, 2, dtype="float64"), 2, 4], (6,), (4,))


@example("batch_norm.cu")
def batch_norm_backward_channels(draw: Draw) -> Example:
    rows = [draw.numbers(3, 2).astype("float64"), draw.numbers(3, 2).astype("float64")]
    return Example([*rows, *(draw.empty(2) for _ in range(4)), 3, 2, 4], (2,), (4,))


@example("batch_norm.cu")
def batch_norm_backward(draw: Draw) -> Example:
    inputs = [draw.numbers(3, 2, 4), draw.numbers(3, 2, 4), draw.numbers(2).astype("float64"), draw.positive(2)]
    channels = [draw.numbers(2), draw.numbers(2), draw.numbers(2)]
    return Example([*inputs, *channels, draw.empty(3, 2, 4), 2, 4], (6,), (4,))


# -- activation, loss, dropout ------------------------------------------------------
@example("bias_relu.cu")
def relu(draw: Draw) -> Example:
    return Example([draw.numbers(10), draw.empty(10), numpy.int64(10)])


@example("bias_relu.cu")
def relu_gradient(draw: Draw) -> Example:
    return Example([draw.numbers(10), draw.numbers(10), draw.empty(10), numpy.int64(10)])


@example("bias_relu.cu")
def bias_relu(draw: Draw) -> Example:
    return Example([draw.numbers(2, 3, 2, 2), draw.numbers(3), draw.empty(2, 3, 2, 2), 2, 3, 2, 2])


@example("bias_relu.cu")
def bias_relu_gradient(draw: Draw) -> Example:
    inputs = [draw.numbers(2, 3, 2, 2), draw.numbers(2, 3, 2, 2)]
    return Example([*inputs, draw.empty(2, 3, 2, 2), draw.empty(3, 2), 2, 3, 2, 2, 2], (6,))


@example("bias_relu.cu")
def add_parts(draw: Draw) -> Example:
    return Example([draw.numbers(3, 2), draw.empty(3), 3, 2])


@example("softmax_cross_entropy.cu")
def softmax_cross_entropy(draw: Draw) -> Example:
    inputs = [draw.numbers(3, 5), numpy.array([1, 4, -100])]
    return Example([*inputs, draw.empty(3), draw.empty(3, 5), 3, 5, numpy.int64(-100), draw.number(1 / 3)])


STREAM = [numpy.uint64(n) for n in (1, 2, 0, 0)]  # key, key, step, call
HALF = 1 << 15  # threshold of p = 0.5


@example("dropout.cu")
def dropout(draw: Draw) -> Example:
    return Example([draw.numbers(20), draw.empty(20), numpy.int64(20), *STREAM, HALF, draw.number(2)])


@example("dropout.cu")
def dropout_by_warp(draw: Draw) -> Example:
    return dropout(draw)


@example("dropout.cu")
def philox_blocks(draw: Draw) -> Example:
    counters = numpy.zeros((2, 4), "uint64")
    counters[:, 0] = 1, 2
    return Example([counters, numpy.zeros((2, 4), "uint64"), numpy.int64(2), *STREAM[:2]])


# -- matrices and sums --------------------------------------------------------------
@example("matmul.cu")
def matmul(draw: Draw) -> Example:
    return Example([draw.numbers(3, 4), draw.numbers(4, 5), draw.empty(3, 5), 3, 4, 5])


@example("matmul.cu")
def matmul_tiled(draw: Draw) -> Example:
    return Example([draw.numbers(3, 20), draw.numbers(20, 5), draw.empty(3, 5), 3, 20, 5], (1, 1), (16, 16))


@example("reduce.cu")
def row_sums(draw: Draw) -> Example:
    return Example([draw.numbers(3, 10), draw.empty(3, 2, dtype="float64"), 3, numpy.int64(10), 2], (6,), (8,))


@example("reduce.cu")
def row_sums_fast(draw: Draw) -> Example:
    return Example([draw.numbers(3, 10), draw.empty(3, 1, dtype="float64"), 3, numpy.int64(10), 1])


@example("reduce.cu")
def column_sums(draw: Draw) -> Example:
    return Example([draw.numbers(4, 5), draw.empty(2, 5, dtype="float64"), 4, 5, 2])


@example("reduce.cu")
def add_partials(draw: Draw) -> Example:
    return Example([draw.numbers(2, 3, 4).astype("float64"), draw.empty(3), 2, 3, 4], (3,), (8,))


# -- optimiser, images --------------------------------------------------------------
@example("sgd.cu")
def sgd_paper(draw: Draw) -> Example:
    weight = draw.numbers(8)
    rates = [draw.number(n) for n in (0.01, 0.9, 0.000005)]
    return Example([weight, draw.numbers(8), draw.numbers(8), weight, *rates, numpy.int64(8)])


@example("sgd.cu")
def sgd_torch(draw: Draw) -> Example:
    weight = draw.numbers(8)
    rates = [draw.number(n) for n in (0.01, 0.9, 0.0005, 1)]
    return Example([weight, draw.numbers(8), draw.numbers(8), weight, *rates, 0, 0, numpy.int64(8)])


@example("augment.cu")
def augment(draw: Draw) -> Example:
    where = [numpy.array(n, "int32") for n in ([1, 0], [0, -1], [1, 0])]  # which image, tops, lefts
    mirrored = numpy.array([0, 1], "uint8")
    images, colours = draw.below(256, 2, 3, 4, 4, dtype="uint8"), [draw.positive(3) * 64, draw.positive(3) * 50]
    sizes = [3, 4, 4, 3, 3, 0, 0]
    shift = draw.numbers(2, 3)
    return Example([images, *where, mirrored, *colours, shift, draw.empty(2, 3, 3, 3), *sizes, draw.number(1)], (6, 1))


@example("index_add.cu")
def index_add(draw: Draw) -> Example:
    places = numpy.array([4, 1, 4, 0, 4])
    keys = numpy.sort(places * len(places) + numpy.arange(len(places)))
    return Example([draw.numbers(6), keys, draw.numbers(5), numpy.int64(6), numpy.int64(5)])


# -- mistakes, which the command finds ----------------------------------------------
LINE = 64  # elements, and threads


def line(draw: Draw, *more: object, block: int = LINE) -> Example:
    return Example([draw.numbers(LINE), draw.empty(LINE), *more], block=(block,))


@example("mistakes.cu")
def one_past_the_end(draw: Draw) -> Example:
    return line(draw, LINE, block=128)


@example("mistakes.cu")
def one_before_the_start(draw: Draw) -> Example:
    return line(draw, LINE)


@example("mistakes.cu")
def outside_of_shared_memory(draw: Draw) -> Example:
    return line(draw)


@example("mistakes.cu")
def missing_barrier(draw: Draw) -> Example:
    return line(draw)


@example("mistakes.cu")
def missing_barrier_in_a_loop(draw: Draw) -> Example:
    return Example([draw.numbers(3, LINE), draw.empty(3, LINE), 3], block=(LINE,))


@example("mistakes.cu")
def missing_syncwarp(draw: Draw) -> Example:
    return line(draw, block=32)


@example("mistakes.cu")
def unwritten_memory(draw: Draw) -> Example:
    return line(draw)


@example("mistakes.cu")
def lost_update(draw: Draw) -> Example:
    return Example([draw.numbers(LINE), numpy.zeros(1, draw.dtype)], block=(LINE,))


@example("mistakes.cu")
def lost_update_between_blocks(draw: Draw) -> Example:
    return Example([draw.numbers(LINE), numpy.zeros(1, draw.dtype), 8], (8,), (32,))


@example("mistakes.cu")
def scatter(draw: Draw) -> Example:
    target = (numpy.arange(LINE) // 2).astype("int32")
    return Example([draw.numbers(LINE), target, numpy.zeros(LINE, draw.dtype)], block=(LINE,))


@example("mistakes.cu")
def different_barriers(draw: Draw) -> Example:
    return Example([draw.empty(LINE)], block=(LINE,))


@example("mistakes.cu")
def deadlock(draw: Draw) -> Example:
    return Example([draw.empty(LINE)], block=(LINE,))


@example("mistakes.cu")
def shuffle_from_nobody(draw: Draw) -> Example:
    return line(draw, 20)


@example("mistakes.cu")
def misaligned(draw: Draw) -> Example:
    return line(draw, block=1)
