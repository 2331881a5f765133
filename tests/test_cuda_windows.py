"""The CUDA kernels of im2col, col2im, pooling and ReLU, run on a CPU: bit for bit what the NumPy reference gives.

That holds where sums are rounded too, since the kernels add in the reference's order. Only the gradient of a bias is
summed in another order and compared with a tolerance.
"""

import functools
import re

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from minitorch_alex.backends.numpy_backend import BACKEND, Window
from minitorch_alex.cuda_on_cpu import ORDERS, CudaOnCpuError, load, why_not
from minitorch_alex.cuda_on_cpu.source import read

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

THREADS = 256  # a block
SHARED_MEMORY = 48 * 1024  # bytes of a block
C_NAMES = {"float32": "float", "float64": "double"}

# The window, and N, C, H, W.
SHAPES = [
    (Window((3, 3)), (2, 3, 7, 6)),
    (Window((1, 1)), (1, 5, 4, 5)),
    (Window((3, 3), (2, 2)), (2, 3, 9, 7)),  # AlexNet's pooling, overlapping
    (Window((2, 2), (3, 3)), (2, 3, 7, 8)),  # some pixels in no window
    (Window((1, 1), (4, 3)), (3, 2, 7, 6)),
    (Window((2, 3), (1, 2), (1, 0)), (2, 3, 7, 6)),
    (Window((3, 2), (2, 1), (0, 2), (1, 3)), (2, 3, 7, 6)),
    (Window((2, 2), (2, 3), (1, 1), (3, 2)), (2, 3, 7, 6)),
    (Window((2, 3), (3, 2), (1, 2), (2, 2)), (1, 2, 8, 9)),  # dilation and stride share a factor
    (Window((7, 6)), (2, 3, 7, 6)),  # as large as the image
    (Window((2, 2), (1, 1), (3, 4)), (2, 2, 4, 3)),  # some windows see padding only
    (Window((2, 2), (1, 1), (1, 1), (2, 2)), (1, 2, 1, 1)),  # no tap of any window meets a pixel
    (Window((3, 3), (2, 2), ceil_mode=True), (2, 3, 8, 6)),
    (Window((2, 2), (4, 5), ceil_mode=True), (2, 3, 9, 6)),
    (Window((3, 3), (3, 2), (1, 1), ceil_mode=True), (2, 3, 6, 6)),
    (Window((2, 3), (3, 3), (1, 2), (2, 2), ceil_mode=True), (2, 3, 7, 9)),
]
ALEXNET_CONVOLUTIONS = [
    (Window((11, 11), (4, 4), (2, 2)), (2, 3, 224, 224)),
    (Window((5, 5), (1, 1), (2, 2)), (1, 24, 27, 27)),
    (Window((3, 3), (1, 1), (1, 1)), (2, 24, 13, 13)),
]
ALEXNET_POOLS = [
    (Window((3, 3), (2, 2)), (1, 24, 55, 55)),
    (Window((3, 3), (2, 2)), (2, 24, 27, 27)),
    (Window((3, 3), (2, 2)), (2, 24, 13, 13)),
]


# -- running a kernel -------------------------------------------------------------
@functools.cache
def module(file, change=None):
    """A file of kernels; with `change`, (old, new), one that has a bug planted."""
    if change is None:
        return load(file)
    code = read(file).text  # with what it includes
    if code.count(change[0]) != 1:
        raise ValueError(f"{change[0]!r} stands in {file} {code.count(change[0])} times")
    return load(code.replace(*change), [f"{name}<float>" for name in re.findall(r"__global__ void (\w+)", code)])


class Runner:
    """Runs kernels under given conditions: the order of threads, guarded memory, a race checker, a bug planted."""

    def __init__(self, order=0, guard=None, race=False, change=None):
        self.conditions, self.change = {"order": order, "guard": guard, "race": race}, change

    def run(self, file, name, dtype, threads, *arguments, shared_mem=0):
        """Start `threads` threads in blocks of 256; Python ints become C ints."""
        arguments = tuple(np.int32(a) if isinstance(a, int) else a for a in arguments)
        function = module(file, self.change).get_function(f"{name}<{C_NAMES[np.dtype(dtype).name]}>")
        function((-(-threads // THREADS),), (THREADS,), arguments, shared_mem=shared_mem, **self.conditions)

    # The kernels, with the arguments of the reference.
    def im2col(self, x, window, batched=False):
        N, C, _, _ = x.shape
        (R, S), (P, Q) = window.kernel, window.output_size(*x.shape[2:])
        shape = (C * R * S, N, P * Q) if batched else (N, C * R * S, P * Q)
        columns = unwritten(shape, x.dtype)
        sizes = (N, C, *sizes_of(window, x.shape), *steps(columns, batched))
        self.run("im2col.cu", "im2col", x.dtype, N * C * P * Q, x, columns, *sizes)
        return columns

    def col2im(self, columns, shape, window, batched=False):
        N, C, H, W = shape
        x = unwritten(shape, columns.dtype)
        sizes = (N, C, *sizes_of(window, shape), *steps(columns, batched))
        self.run("col2im.cu", "col2im", columns.dtype, N * C * H * W, columns, x, *sizes)
        return x

    def max_pool2d(self, x, window, planes_per_block=None):
        N, C, H, W = x.shape
        P, Q = window.output_size(H, W)
        y, winner = unwritten((N, C, P, Q), x.dtype), unwritten((N, C, P, Q), "int32")
        arguments = (x, y, winner, N * C, *sizes_of(window, x.shape))
        if planes_per_block is None:
            self.run("max_pool.cu", "max_pool", x.dtype, y.size, *arguments)
        else:
            blocks, memory = -(-N * C // planes_per_block), planes_per_block * H * W * x.itemsize
            arguments += (planes_per_block,)
            self.run("max_pool.cu", "max_pool_planes", x.dtype, blocks * THREADS, *arguments, shared_mem=memory)
        return y, winner

    def max_pool2d_gradient(self, gy, winner, shape, window):
        return self.pool_gradient("max_pool.cu", "max_pool_gradient", shape, window, gy, winner)

    def max_pool2d_gradient_to_ties(self, gy, x, y, window):
        return self.pool_gradient("max_pool.cu", "max_pool_gradient_to_ties", x.shape, window, gy, x, y)

    def sum_pool2d(self, x, window):
        y = unwritten((*x.shape[:2], *window.output_size(*x.shape[2:])), x.dtype)
        planes = x.shape[0] * x.shape[1]
        self.run("sum_pool.cu", "sum_pool", x.dtype, y.size, x, y, planes, *sizes_of(window, x.shape))
        return y

    def sum_pool2d_gradient(self, gy, shape, window):
        return self.pool_gradient("sum_pool.cu", "sum_pool_gradient", shape, window, gy)

    def pool_gradient(self, file, name, shape, window, *arrays):
        gx = unwritten(shape, arrays[0].dtype)
        self.run(file, name, gx.dtype, gx.size, *arrays, gx, shape[0] * shape[1], *sizes_of(window, shape))
        return gx

    def relu(self, x):
        y = unwritten(x.shape, x.dtype)
        self.run("bias_relu.cu", "relu", x.dtype, x.size, x, y, np.int64(x.size))
        return y

    def relu_gradient(self, gy, y):
        gx = unwritten(y.shape, y.dtype)
        arrays = (gy, y, gx)
        self.run("bias_relu.cu", "relu_gradient", y.dtype, y.size, *arrays, np.int64(y.size))
        return gx

    def bias_relu(self, x, bias):
        y = unwritten(x.shape, x.dtype)
        self.run("bias_relu.cu", "bias_relu", x.dtype, x.size, x, bias, y, *x.shape)
        return y

    def bias_relu_gradient(self, gy, y, blocks):
        F, dtype = y.shape[1], y.dtype
        gx, parts, gbias = unwritten(y.shape, dtype), unwritten((F, blocks), dtype), unwritten(F, dtype)
        arrays = (gy, y, gx, parts)
        self.run("bias_relu.cu", "bias_relu_gradient", dtype, F * blocks * THREADS, *arrays, *y.shape, blocks)
        self.run("bias_relu.cu", "add_parts", dtype, F, parts, gbias, F, blocks)
        return gx, gbias


def unwritten(shape, dtype):
    """An array of values that must not stay: NaN, or the lowest number."""
    return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min, dtype)


def sizes_of(window, shape):
    """H, W, R, S, P, Q and the steps of the window, as every kernel takes them."""
    H, W = shape[2:]
    P, Q = window.output_size(H, W)
    return (H, W, *window.kernel, P, Q, *window.stride, *window.padding, *window.dilation)


def steps(columns, batched):
    """image_step, row_step of columns (N, C*R*S, P*Q), or (C*R*S, N, P*Q) if batched."""
    image, row = (1, 0) if batched else (0, 1)
    return tuple(np.int64(columns.strides[axis] // columns.itemsize) for axis in (image, row))


# -- what goes in -----------------------------------------------------------------
def numbers(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def ties(shape, dtype="float32"):
    """Few different values, so that most windows hold their maximum several times."""
    return np.random.default_rng(1).integers(-2, 3, shape).astype(dtype)


def not_numbers(shape, dtype="float32"):
    """Ties, and every fourth pixel a NaN or an infinity."""
    x, generator = ties(shape, dtype), np.random.default_rng(2)
    strange = generator.random(shape) < 0.25
    x[strange] = generator.choice([np.nan, np.nan, -np.inf, np.inf], strange.sum())
    return x


POOL_INPUTS = {
    "numbers": numbers,
    "ties": ties,
    "all negative": lambda shape, dtype="float32": -abs(numbers(shape, dtype)) - 1,
    "all equal": lambda shape, dtype="float32": np.full(shape, -2, dtype),
    "not numbers": not_numbers,
}


def planes_per_block(window, x):
    """As many as give a block's threads an output each, and as fit into its shared memory."""
    P, Q = window.output_size(*x.shape[2:])
    return max(1, min(THREADS // (P * Q), SHARED_MEMORY // x[0, 0].nbytes))


# -- the checks: a kernel against the reference -------------------------------------
def check_columns(runner, window, shape, dtype="float32"):
    x = numbers(shape, dtype)
    columns = BACKEND.im2col(x, window)
    assert_array_equal(runner.im2col(x, window), columns)
    assert_array_equal(runner.im2col(x, window, batched=True), columns.swapaxes(0, 1))


def check_col2im(runner, window, shape, dtype="float32"):
    columns = numbers(BACKEND.im2col(np.zeros(shape), window).shape, dtype)
    x = BACKEND.col2im(columns, shape, window)
    assert_array_equal(runner.col2im(columns, shape, window), x)
    assert_array_equal(runner.col2im(np.ascontiguousarray(columns.swapaxes(0, 1)), shape, window, batched=True), x)


def check_max_pool(runner, window, shape, dtype="float32", kind="ties"):
    x = POOL_INPUTS[kind](shape, dtype)
    y, winner = BACKEND.max_pool2d(x, window)
    for count in (None, 1, 2, planes_per_block(window, x)):  # the plain kernel, and the one with shared memory
        found = runner.max_pool2d(x, window, count)
        assert_array_equal(found[0], y)
        assert_array_equal(found[1], winner)
        assert found[1].dtype == np.int32


def check_max_pool_gradients(runner, window, shape, dtype="float32", kind="ties"):
    x = POOL_INPUTS[kind](shape, dtype)
    y, winner = BACKEND.max_pool2d(x, window)
    gy = numbers(y.shape, dtype, seed=3)
    want = BACKEND.max_pool2d_gradient(gy, winner, shape, window)
    assert_array_equal(runner.max_pool2d_gradient(gy, winner, shape, window), want)
    want = BACKEND.max_pool2d_gradient_to_ties(gy, x, y, window)
    assert_array_equal(runner.max_pool2d_gradient_to_ties(gy, x, y, window), want)


def check_sum_pool(runner, window, shape, dtype="float32"):
    x = numbers(shape, dtype)
    y = BACKEND.sum_pool2d(x, window)
    assert_array_equal(runner.sum_pool2d(x, window), y)
    gy = numbers(y.shape, dtype, seed=3)
    assert_array_equal(runner.sum_pool2d_gradient(gy, shape, window), BACKEND.sum_pool2d_gradient(gy, shape, window))


def check_relu(runner, shape, dtype="float32"):
    x = not_numbers(shape, dtype)
    y = runner.relu(x)
    assert_array_equal(y, BACKEND.relu(x))
    assert not np.signbit(y[y == 0]).any()
    gy = not_numbers(shape[::-1], dtype).reshape(shape)
    assert_array_equal(runner.relu_gradient(gy, y), BACKEND.relu_gradient(gy, y))


def check_bias_relu(runner, shape, dtype="float32"):
    x, bias, gy = not_numbers(shape, dtype), numbers(shape[1], dtype), numbers(shape, dtype, seed=3)
    y = runner.bias_relu(x, bias)
    assert_array_equal(y, BACKEND.relu(x + bias[:, None, None]))
    gx = BACKEND.relu_gradient(gy, y)
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    for blocks in (1, 3):
        found = runner.bias_relu_gradient(gy, y, blocks)
        assert_array_equal(found[0], gx)
        want, size = gx.sum((0, 2, 3), dtype="float64"), abs(gx).sum((0, 2, 3), dtype="float64")
        assert (abs(found[1] - want) <= tolerance * size).all()
        whole = runner.bias_relu_gradient(ties(shape, dtype), y, blocks)[1]  # whole numbers: exact in any order
        assert_array_equal(whole, BACKEND.relu_gradient(ties(shape, dtype), y).sum((0, 2, 3)))


FEATURE_SHAPES = [(3, 5, 13, 11), (2, 3, 1, 1), (300, 2, 1, 1), (1, 1, 16, 16), (2, 4, 17, 31)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("window", "shape"), SHAPES)
def test_columns(window, shape, dtype):
    check_columns(Runner(), window, shape, dtype)
    check_col2im(Runner(), window, shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", POOL_INPUTS)
@pytest.mark.parametrize(("window", "shape"), SHAPES)
def test_max_pool(window, shape, kind, dtype):
    check_max_pool(Runner(), window, shape, dtype, kind)
    check_max_pool_gradients(Runner(), window, shape, dtype, kind)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("window", "shape"), SHAPES)
def test_sum_pool(window, shape, dtype):
    check_sum_pool(Runner(), window, shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", FEATURE_SHAPES)
def test_relu(shape, dtype):
    check_relu(Runner(), shape, dtype)
    check_bias_relu(Runner(), shape, dtype)


@pytest.mark.parametrize(("window", "shape"), ALEXNET_CONVOLUTIONS)
def test_the_shapes_of_alexnets_convolutions(window, shape):
    check_columns(Runner(), window, shape)
    check_col2im(Runner(), window, shape)


@pytest.mark.parametrize(("window", "shape"), ALEXNET_POOLS)
def test_the_shapes_of_alexnets_pools(window, shape):
    check_max_pool(Runner(), window, shape, kind="numbers")
    check_max_pool_gradients(Runner(), window, shape, kind="numbers")


def check_everything(runner):
    """Every kernel on a few shapes, for what does not depend on the values."""
    for window, shape in (SHAPES[2], SHAPES[7], SHAPES[15]):
        check_columns(runner, window, shape)
        check_col2im(runner, window, shape)
        check_max_pool(runner, window, shape)
        check_max_pool_gradients(runner, window, shape)
        check_sum_pool(runner, window, shape)
    for shape in FEATURE_SHAPES[:3]:
        check_relu(runner, shape)
        check_bias_relu(runner, shape)


@pytest.mark.parametrize("guard", ["start", "end"])
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_of_threads_and_no_step_outside_an_array(order, guard):
    check_everything(Runner(order, guard))


def test_no_two_threads_meet_in_one_place():
    check_everything(Runner(race=True))


def test_a_bias_gradient_has_the_same_bits_in_every_order():
    y, gy = abs(numbers((3, 4, 17, 19))), numbers((3, 4, 17, 19), seed=3)
    first, *others = (Runner(order).bias_relu_gradient(gy, y, 2)[1] for order in ORDERS)
    for other in others:
        assert_array_equal(other, first)


# -- gradients are adjoints: <A(v), g> = <v, A^T(g)>, exactly, since whole numbers do not round ----
@pytest.mark.parametrize(("window", "shape"), SHAPES)
def test_gradients_are_adjoints(window, shape):
    runner, v = Runner(), ties(shape)
    columns = runner.im2col(v, window)
    g = ties(columns.shape)
    assert (columns * g).sum() == (v * runner.col2im(g, shape, window)).sum()

    sums = runner.sum_pool2d(v, window)
    g = ties(sums.shape)
    assert (sums * g).sum() == (v * runner.sum_pool2d_gradient(g, shape, window)).sum()

    # Once the winners are known, a maximum is a choice of pixels, which is linear.
    _, winner = runner.max_pool2d(numbers(shape), window)
    taps = columns.reshape(*shape[:2], -1, *winner.shape[2:])
    chosen = np.take_along_axis(taps, np.maximum(winner, 0)[:, :, None], 2)[:, :, 0] * (winner >= 0)
    assert (chosen * g).sum() == (v * runner.max_pool2d_gradient(g, winner, shape, window)).sum()


def test_every_tie_receives_the_whole_gradient():
    x = np.array([[[[2, 2, 0, 2]]]], "float32")
    y, winner = Runner().max_pool2d(x, Window((1, 2), (1, 1)))
    gy = np.array([[[[1, 10, 100]]]], "float32")
    assert_array_equal(winner, [[[[0, 0, 1]]]])
    assert_array_equal(Runner().max_pool2d_gradient(gy, winner, x.shape, Window((1, 2), (1, 1))), [[[[1, 10, 0, 100]]]])
    assert_array_equal(Runner().max_pool2d_gradient_to_ties(gy, x, y, Window((1, 2), (1, 1))), [[[[1, 11, 0, 100]]]])


# -- planted bugs ---------------------------------------------------------------------
BUGS = [
    ("im2col.cu", "if (i >= total) return;", "if (i > total) return;"),
    ("im2col.cu", "w >= 0 &&", ""),
    ("im2col.cu", "h < H", "h <= H"),
    ("im2col.cu", "n * image_step", "n * C * R * S * row_step"),
    ("col2im.cu", "if (i >= total) return;", "if (i > total) return;"),
    ("col2im.cu", "min(Q - 1, (w", "min(Q, (w"),
    ("col2im.cu", "p >= 0", "p > 0"),
    ("col2im.cu", "distance % dilation == 0 ?", "true ?"),
    ("max_pool.cu", "value > maximum", "value >= maximum"),
    ("max_pool.cu", " || winner < 0", ""),
    ("max_pool.cu", "if (w < 0 || w >= W) continue;", "if (w <= 0 || w >= W) continue;"),
    ("max_pool.cu", "__syncthreads();", ""),
    ("max_pool.cu", "min(planes_per_block, planes - first)", "planes_per_block"),
    ("max_pool.cu", "if (winners[p * Q + q] == r * S + s)", "if (winners[p * Q + q] >= r * S + s)"),
    ("max_pool.cu", "if (value == maxima[p * Q + q])", "if (value <= maxima[p * Q + q])"),
    ("sum_pool.cu", "w >= W", "w > W"),
    ("sum_pool.cu", "min(P - 1,", "min(P,"),
    ("bias_relu.cu", "return value <= 0 ? T(0) : value;", "return value > 0 ? value : T(0);"),
    ("bias_relu.cu", "gx[i] = y[i] <= 0 ?", "gx[i] = y[i] < 0 ?"),
    ("bias_relu.cu", "i / (P * Q) % F", "i / P % F"),
    ("bias_relu.cu", "__syncthreads();", ""),
    ("bias_relu.cu", "j < count", "j < count - 1"),
    ("bias_relu.cu", "if (f >= F) return;", "if (f > F) return;"),
]
MORE_BUGS = [
    ("im2col.cu", "h >= 0 &&", "h > 0 &&"),
    ("im2col.cu", "w < W", "w <= W"),
    ("im2col.cu", "r * dilation_v", "r"),
    ("col2im.cu", "min(P - 1, (h", "min(P, (h"),
    ("col2im.cu", "if (down > (R - 1) * dilation_v) break;", ""),
    ("col2im.cu", "if (s < 0) continue;", ""),
    ("col2im.cu", "x[i] = sum;", "x[i] += sum;"),
    ("max_pool.cu", " || not_a_number", ""),
    ("max_pool.cu", "if (h < 0 || h >= H) continue;", "if (h < 0 || h > H) continue;"),
    ("max_pool.cu", "pixels + plane * H * W", "pixels"),
    ("sum_pool.cu", "h >= H", "h >= H - 1"),
    ("sum_pool.cu", "(S - 1) * dilation_h", "S * dilation_h"),
    ("bias_relu.cu", "T gradient = y[i] <= 0 ?", "T gradient = y[i] < 0 ?"),
    ("bias_relu.cu", "lane < WARPS ?", "lane < WARPS - 1 ?"),
    ("bias_relu.cu", "lane < WARPS ? sums[lane] : Wide<T>(0)", "sums[lane]"),
    ("bias_relu.cu", "value += __shfl_xor_sync(ALL_LANES, value, distance)", "value += value"),
]

CHECKS = {
    "im2col.cu": [check_columns],
    "col2im.cu": [check_col2im],
    "max_pool.cu": [check_max_pool, functools.partial(check_max_pool, kind="not numbers"), check_max_pool_gradients],
    "sum_pool.cu": [check_sum_pool],
    "bias_relu.cu": [check_relu, check_bias_relu],
}


def check_file(file, runners):
    """Every check of one file's kernels, by each runner."""
    cases = [(shape,) for shape in FEATURE_SHAPES] if file == "bias_relu.cu" else SHAPES
    for runner in runners:
        for case in cases:
            for check in CHECKS[file]:
                check(runner, *case)


@pytest.mark.parametrize(
    ("file", "old", "new"), [*BUGS, *(pytest.param(*bug, marks=pytest.mark.slow) for bug in MORE_BUGS)]
)
def test_a_planted_bug_is_caught(file, old, new):
    change = (old, new)
    kernels = module(file, change)
    assert kernels.get_function(kernels.expressions[0]).codes  # it compiles: what follows is found by running it
    runners = [Runner(order, guard, change=change) for order in ORDERS for guard in ("start", "end")]
    with pytest.raises((AssertionError, CudaOnCpuError)):
        check_file(file, runners)


@pytest.mark.parametrize("file", ["max_pool.cu", "bias_relu.cu"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_missing_barrier_is_a_race_in_every_order(file, order):
    runner = Runner(order, race=True, change=("__syncthreads();", ""))
    with pytest.raises(CudaOnCpuError, match="race"):
        check_file(file, [runner])
