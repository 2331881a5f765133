"""The CUDA kernels for matrix products, sums, SGD, batch normalisation and augmentation, run on a CPU.

Each check runs in several orders of the threads, with guards at the ends and the starts of the arrays, and under the
race checker; all must give the same bits. Then bugs are planted, one at a time, and the same checks must find them.
"""

import functools
import re

import numpy as np
import pytest

from benchmarks.nvrtc_table import instances
from minitorch_alex import functional as F
from minitorch_alex import philox, tensor
from minitorch_alex.cuda_on_cpu import CudaOnCpuError, load, why_not
from minitorch_alex.cuda_on_cpu.source import read
from minitorch_alex.data.augmentation import Augmentation, RandomCrop
from minitorch_alex.data.colour import ColourNoise
from minitorch_alex.data.dataset import Preprocessing
from minitorch_alex.nn import Parameter
from minitorch_alex.optim import SGD

CTYPES = {np.dtype("float32"): "float", np.dtype("float64"): "double"}
THREADS = 256


class Kernels:
    """The kernels of one .cu file; or those in which bug number so-and-so is planted."""

    def __init__(self, file, bug=None):
        self.file, self.bug = file, bug

    def run(self, name, dtype, grid, block, *args):
        """Run kernel<dtype>, which writes into arrays among args: in several orders, with guards, looking for races."""
        module = load_once(self.file) if self.bug is None else load_bugs_once(self.file)
        name = f"{bad_name(name, self.bug)}<{CTYPES[np.dtype(dtype)]}>"
        kernel = module.get_function(name)
        kernel.in_every_order(as_tuple(grid), as_tuple(block), args, race=self.bug is None)


@functools.cache
def load_once(file):
    return load(file)


def as_tuple(size):
    return size if isinstance(size, tuple) else (size,)


def blocks(total, threads=THREADS):
    """How many blocks hold that many threads."""
    return -(-total // threads)


def power_of_two(n):
    """Threads for n elements: a power of two, at most 256."""
    return min(THREADS, 1 << max(0, n - 1).bit_length())


def output(shape, dtype):
    """What a kernel must fill."""
    return np.full(shape, np.nan, dtype)


def given(*arrays):
    """Inputs: a kernel that writes them is found out."""
    for a in arrays:
        a.flags.writeable = False
    return arrays if len(arrays) > 1 else arrays[0]


def whole(rng, shape, dtype):
    """Small whole numbers: their sums are exact in any order."""
    return given(rng.integers(-8, 9, shape).astype(dtype))


i32 = np.int32
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
both = pytest.mark.parametrize("dtype", ["float32", "float64"])


# -- matrix product -----------------------------------------------------------------
def product(kernels, A, B, tiled):
    (rows, inner), columns = A.shape, B.shape[1]
    Y = output((rows, columns), A.dtype)
    if tiled:
        grid, block, name = (blocks(columns, 16), blocks(rows, 16)), (16, 16), "matmul_tiled"
    else:
        grid, block, name = blocks(rows * columns), THREADS, "matmul"
    kernels.run(name, A.dtype, grid, block, A, B, Y, i32(rows), i32(inner), i32(columns))
    return Y


def check_matmul(kernels, dtype):
    rng = np.random.default_rng(0)
    for rows, inner, columns in ((1, 1, 1), (16, 32, 16), (17, 33, 15), (5, 40, 50), (33, 7, 18), (3, 0, 4)):
        A, B = whole(rng, (rows, inner), dtype), whole(rng, (inner, columns), dtype)
        for tiled in (False, True):
            np.testing.assert_array_equal(product(kernels, A, B, tiled), A @ B)
    A, B = given(*(rng.standard_normal(shape).astype(dtype) for shape in ((20, 37), (37, 21))))
    plain, tiled = product(kernels, A, B, False), product(kernels, A, B, True)
    np.testing.assert_allclose(plain, A @ B, rtol=1e-4 if dtype == "float32" else 1e-12)
    np.testing.assert_array_equal(plain, tiled)
    A = A.copy()
    A[0, 0] = np.inf  # beside the edge of a tile that is filled with zeros
    assert np.isinf(product(kernels, A, B, True)[0]).all()


# -- sums ---------------------------------------------------------------------------
def add_partials(kernels, partials, N, C, pieces, dtype):
    sums = output(C, dtype)
    kernels.run("add_partials", dtype, C, power_of_two(N * pieces), partials, sums, i32(N), i32(C), i32(pieces))
    return sums


def row_partials(kernels, x, pieces, fast):
    rows, columns = x.shape
    partials = output((rows, pieces), "float64")
    args = x, partials, i32(rows), np.int64(columns), i32(pieces)
    if fast:
        kernels.run("row_sums_fast", x.dtype, blocks(32 * rows * pieces), THREADS, *args)
    else:
        kernels.run("row_sums", x.dtype, rows * pieces, power_of_two(blocks(columns, pieces)), *args)
    return partials


def check_sums(kernels, dtype):
    rng = np.random.default_rng(1)
    for rows, columns, pieces in ((1, 1, 1), (3, 5, 1), (7, 169, 1), (2, 1000, 3), (1, 2003, 8), (3, 2, 4), (9, 64, 1)):
        x = whole(rng, (rows, columns), dtype)
        for fast in (False, True):
            partials = row_partials(kernels, x, pieces, fast)
            np.testing.assert_array_equal(partials.sum(axis=1), x.sum(axis=1))
            np.testing.assert_array_equal(add_partials(kernels, partials, 1, rows, pieces, dtype), x.sum(axis=1))
        partials = output((pieces, columns), "float64")
        grid = blocks(pieces * columns)
        kernels.run("column_sums", dtype, grid, THREADS, x, partials, i32(rows), i32(columns), i32(pieces))
        np.testing.assert_array_equal(add_partials(kernels, partials, pieces, columns, 1, dtype), x.sum(axis=0))


def check_channel_sums(kernels, dtype):
    """The bias gradient of a convolution, and everything; of numbers whose sums are rounded."""
    rng = np.random.default_rng(2)
    N, C, H, W, pieces = 3, 4, 13, 29, 2
    x = given((rng.standard_normal((N, C, H, W)) + 100).astype(dtype))
    for fast in (False, True):
        partials = row_partials(kernels, x.reshape(N * C, H * W), pieces, fast)
        sums = add_partials(kernels, partials, N, C, pieces, dtype)
        np.testing.assert_allclose(sums, x.sum(axis=(0, 2, 3), dtype="float64"), rtol=2 * np.finfo(dtype).eps)
        partials = row_partials(kernels, x.reshape(1, -1), 7, fast)
        everything = add_partials(kernels, partials, 1, 1, 7, dtype)
        np.testing.assert_allclose(everything[0], x.sum(dtype="float64"), rtol=2 * np.finfo(dtype).eps)


# -- SGD ----------------------------------------------------------------------------
SETTINGS = [
    {"form": "paper", "momentum": 0.9, "weight_decay": 5e-4},
    {"form": "paper", "momentum": 0.9},
    {"form": "torch", "momentum": 0.9, "weight_decay": 5e-4},
    {"form": "torch", "momentum": 0.9, "weight_decay": 5e-4, "dampening": 0.3},
    {"form": "torch", "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True},
    {"form": "torch", "momentum": 0.0, "weight_decay": 5e-4},
    {"form": "torch", "momentum": 0.0},
]


def check_sgd(kernels, dtype):
    """The very bits of optim.SGD, over three steps of which the last has a lower rate."""
    T, total = np.dtype(dtype).type, 300
    for settings in SETTINGS:
        rng = np.random.default_rng(3)
        p = Parameter(rng.standard_normal(total).astype(dtype))
        optimizer = SGD([p], lr=0.0137, **settings)
        weight, velocity = p.data.copy(), np.zeros(total, dtype)
        for step in range(3):
            group = optimizer.param_groups[0]
            group["lr"] = 0.0137 if step < 2 else 0.00137
            gradient = rng.standard_normal(total).astype(dtype)
            p.grad = tensor(gradient)
            optimizer.step()

            lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
            new_weight = weight if step == 1 else output(total, dtype)  # in place, or not
            arrays = weight, given(gradient), velocity, new_weight
            if settings["form"] == "paper":
                scalars = T(lr), T(momentum), T(decay * lr)
            else:
                flags = i32(group["nesterov"]), i32(step == 0)
                scalars = T(lr), T(momentum), T(decay), T(1 - group["dampening"]), *flags
                if step == 0:
                    velocity[:] = np.nan  # not looked at
            kernels.run("sgd_" + settings["form"], dtype, blocks(total), THREADS, *arrays, *scalars, np.int64(total))
            np.testing.assert_array_equal(new_weight, p.data, err_msg=str(settings))
            if momentum:
                np.testing.assert_array_equal(velocity, optimizer.velocity[p], err_msg=str(settings))
            weight = new_weight


# -- batch normalisation ------------------------------------------------------------
def batch_norm(kernels, x, weight, bias, gy, eps, running=None):
    """mean, var, y, gx, grad_weight, grad_bias by the kernels; `running` mean and var stand for evaluation."""
    N, C = x.shape[:2]
    pixels = int(np.prod(x.shape[2:]))
    rows, threads, dtype = N * C, power_of_two(pixels), x.dtype
    mean, var, spread = output(C, "float64"), output(C, "float64"), output(C, dtype)
    if running is None:
        row_means, row_squares = output(rows, "float64"), output(rows, "float64")
        kernels.run("batch_norm_rows", dtype, rows, threads, x, row_means, row_squares, i32(pixels))
        args = row_means, row_squares, mean, var, spread, i32(N), i32(C), i32(pixels), np.float64(eps)
        kernels.run("batch_norm_statistics", dtype, C, power_of_two(N), *args)
    else:
        mean[:], var[:] = running
        spread[:] = np.sqrt(var + eps)
    y = output(x.shape, dtype)
    sizes = i32(C), i32(pixels)
    kernels.run("batch_norm", dtype, rows, threads, x, mean, spread, weight, bias, y, *sizes)

    row_gy, row_gy_z = output(rows, "float64"), output(rows, "float64")
    kernels.run("batch_norm_backward_rows", dtype, rows, threads, gy, x, mean, spread, row_gy, row_gy_z, *sizes)
    grad_bias, grad_weight, mean_gy, mean_gy_z = (output(C, dtype) for _ in range(4))
    args = row_gy, row_gy_z, grad_bias, grad_weight, mean_gy, mean_gy_z, i32(N), *sizes
    kernels.run("batch_norm_backward_channels", dtype, C, power_of_two(N), *args)
    if running is not None:
        mean_gy[:], mean_gy_z[:] = 0, 0
    gx = output(x.shape, dtype)
    args = gy, x, mean, spread, weight, mean_gy, mean_gy_z, gx, *sizes
    kernels.run("batch_norm_backward", dtype, rows, threads, *args)
    return mean, var, y, gx, grad_weight, grad_bias


def check_batch_norm(kernels, dtype):
    rng = np.random.default_rng(4)
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == "float32" else {"rtol": 1e-11, "atol": 1e-12}
    for shape in ((3, 4, 5, 7), (2, 3, 17, 19), (5, 6), (33, 2, 1, 3)):
        for training in (True, False):
            x = given((rng.standard_normal(shape) * 3 + 5).astype(dtype))
            gy = given(rng.standard_normal(shape).astype(dtype))
            weight, bias, running_mean = given(*rng.standard_normal((3, shape[1])).astype(dtype))
            running_var = given(rng.uniform(1, 2, shape[1]).astype(dtype))
            tensors = [tensor(a, requires_grad=True) for a in (x, weight, bias)]
            running = tensor(running_mean.copy()), tensor(running_var.copy())
            expected = F.batch_norm(tensors[0], *running, *tensors[1:], training=training, eps=1e-3)
            expected.backward(tensor(gy))
            fixed = None if training else (running_mean, running_var)
            mean, var, *got = batch_norm(kernels, x, weight, bias, gy, 1e-3, fixed)
            want = [expected.data, *(t.grad.data for t in tensors)]
            for name, a, b in zip(("y", "gx", "grad_weight", "grad_bias"), got, want, strict=True):
                np.testing.assert_allclose(a, b, **tolerance, err_msg=f"{name} at {shape}, training={training}")
            if training:
                axes = (0, *range(2, len(shape)))
                np.testing.assert_allclose(mean, x.mean(axis=axes, dtype="float64"), rtol=1e-12, atol=1e-14)
                np.testing.assert_allclose(var, x.astype("float64").var(axis=axes), rtol=1e-10)


def check_batch_norm_far_from_zero(kernels, dtype):
    """A mean 10,000 times the spread: the mean of squares less the square of the mean would be rounding alone."""
    rng = np.random.default_rng(5)
    x = given((rng.standard_normal((3, 2, 6, 7)) * 0.01 + 100).astype(dtype))
    one, zero, gy = np.ones(2, dtype), np.zeros(2, dtype), np.ones(x.shape, dtype)
    mean, var, y = batch_norm(kernels, x, one, zero, gy, 1e-12)[:3]
    exact = x.astype("float64")
    exact_mean, exact_var = exact.mean(axis=(0, 2, 3)), exact.var(axis=(0, 2, 3))
    np.testing.assert_allclose(mean, exact_mean, rtol=1e-13)
    np.testing.assert_allclose(var, exact_var, rtol=1e-9)
    z = (exact - exact_mean[:, None, None]) / np.sqrt(exact_var + 1e-12)[:, None, None]
    np.testing.assert_allclose(y, z, rtol=1e-6, atol=1e-6)


# -- augmentation -------------------------------------------------------------------
def augment(kernels, images, which, tops, lefts, mirrored, prepare, shift, divisor, size, fill, dtype):
    C, H, W = images.shape[1:]
    N, (P, Q) = len(which), size
    y = output((N, C, P, Q), dtype)
    draws = [given(a.astype("int32")) for a in (which, tops, lefts)]
    mean, std = (given(np.ascontiguousarray(a, dtype)) for a in (prepare.mean, prepare.std.reshape(C)))
    sizes = [i32(n) for n in (C, H, W, P, Q, fill, prepare.mean.shape[1:] != (1, 1))]
    kernels.run(
        "augment", dtype, (N * C, blocks(P * Q)), THREADS,
        images, *draws, given(mirrored.astype("uint8")), mean, std, given(shift.astype(dtype)), y,
        *sizes, np.dtype(dtype).type(divisor),
    )  # fmt: skip
    return y


def check_augment(kernels, dtype):
    """The very bits of data/, which is in float32; in float64 the same to the rounding of float32."""
    rng = np.random.default_rng(6)
    equal = (
        np.testing.assert_array_equal
        if dtype == "float32"
        else functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4)
    )
    stored = given(rng.integers(0, 256, (9, 3, 20, 23), "uint8"))
    which = np.array([8, 0, 3, 3, 5])
    for seed in (0, 1):
        # a shift, with an edge of grey; digits have no colours and no noise
        shifted = Augmentation(4, flip=True, fill=77)
        prepare = Preprocessing([120, 110.5, 99.25], [50.1, 60.2, 70.3])
        down, right, mirrored = shifted.draw(seed, 2, which)
        noise = np.zeros((5, 3))
        y = augment(kernels, stored, which, -down, -right, mirrored, prepare, noise, 1, (20, 23), 77, dtype)
        equal(y, prepare(shifted(stored[which], seed, 2, which)))

        # a crop, a mean image and noise, as AlexNet
        crop = RandomCrop(17)
        prepare = Preprocessing(rng.uniform(90, 130, (3, 17, 17)), [1.5, 1, 0.7])
        colour = ColourNoise.of(np.cov(rng.uniform(0, 255, (3, 50)))).divided(prepare.std.reshape(3))
        words = philox.first_words(philox.key("crops", seed), 1, which)
        tops, lefts = philox.below(20 - 17 + 1, words[:, 0]), philox.below(23 - 17 + 1, words[:, 1])
        mirrored, drawn = philox.below(2, words[:, 2]), colour.draw(seed, 1, which)
        draws = tops, lefts, mirrored, prepare, drawn, colour.divisor
        y = augment(kernels, stored, which, *draws, (17, 17), 0, dtype)
        equal(y, colour(prepare(crop(stored[which], seed, 1, which)), seed, 1, which))


CHECKS = {
    check_matmul: "matmul.cu",
    check_sums: "reduce.cu",
    check_channel_sums: "reduce.cu",
    check_sgd: "sgd.cu",
    check_batch_norm: "batch_norm.cu",
    check_batch_norm_far_from_zero: "batch_norm.cu",
    check_augment: "augment.cu",
}


@both
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_kernels(check, dtype):
    check(Kernels(CHECKS[check]), dtype)


# -- planted bugs -------------------------------------------------------------------
BARRIER = "__syncthreads();"
BUGS = {
    "matmul, one product short": (check_matmul, "k < inner; k++", "k < inner - 1; k++"),
    "matmul, one element too many": (check_matmul, "element >= (long long)rows", "element > (long long)rows"),
    "tiled, not all copied yet": (check_matmul, BARRIER, "", 0),
    "tiled, overwritten too early": (check_matmul, BARRIER, "", 1),
    "tiled, one k too many": (check_matmul, "k_of_A < inner", "k_of_A <= inner"),
    "tiled, one row too many": (check_matmul, "k_of_B < inner", "k_of_B <= inner"),
    "tiled, one column too many": (check_matmul, "&& j < columns ?", "&& j <= columns ?"),
    "sum, no barrier in the tree": (check_sums, BARRIER, "", 1),
    "sum, no barrier before the tree": (check_sums, BARRIER, "", 0),
    "sum, the last of a piece lost": (check_sums, "j < end", "j < end - 1"),
    "sum, pieces too short": (check_sums, "(length + pieces - 1) / pieces", "length / pieces"),
    "fast sum, nothing before the first load": (check_sums, "lane < before", "lane + 1 < before"),
    "fast sum, nothing after the last": (check_sums, "after + lane < count", "after + lane + 1 < count"),
    "fast sum, more before than there is": (check_sums, "if (before > count) before = count;", ""),
    "fast sum, loads not at 16 bytes": (check_sums, "if (before > count)", "before = 0; if (before > count)"),
    "fast sum, shuffle half as far": (check_sums, "distance = WARP / 2", "distance = WARP / 4"),
    "columns, one thread too many": (check_sums, "i >= (long long)pieces", "i > (long long)pieces"),
    "columns, the last row lost": (check_sums, "row < end", "row < end - 1"),
    "partials, a piece lost": (check_sums, "(n * C + c) * pieces + j % pieces", "(n * C + c) * pieces"),
    "sgd, decay scaled twice": (check_sgd, "times(decay_times_rate, w)", "times(momentum * decay_times_rate, w)"),
    "sgd, rounded once": (check_sgd, "v - times(learning_rate, gradient[i])", "fma(-learning_rate, gradient[i], v)"),
    "sgd, one too many": (check_sgd, "i >= total", "i > total", 1),
    "sgd, first velocity read": (check_sgd, "is_first ?", "false ?"),
    "norm, overwritten too early": (check_batch_norm, BARRIER, "", 2),
    "norm, rows' means forgotten": (check_batch_norm, " + pixels * distance * distance", ""),
    "norm, digits of the mean lost": (check_batch_norm_far_from_zero, "- rest", ""),
    "norm, a shift not taken out": (check_batch_norm, " - mean_gy[c]", ""),
    "norm, one pixel short": (check_batch_norm, "i < pixels", "i < pixels - 1", 3),
    "augment, mirror off by one": (check_augment, "Q - 1 - q", "Q - q"),
    "augment, first row lost": (check_augment, "row >= 0", "row > 0"),
    "augment, one row too many": (check_augment, "row < H", "row <= H"),
    "augment, first column lost": (check_augment, "column >= 0", "column > 0"),
    "augment, one column too many": (check_augment, "column < W", "column <= W"),
    "augment, one thread too many": (check_augment, "place >= P * Q", "place > P * Q"),
    "augment, the first image always": (check_augment, "(long long)which[n]", "(long long)n"),
    "augment, noise of another channel": (check_augment, "shift[plane]", "shift[n]"),
}  # fmt: skip


def bad_name(kernel, bug):
    """What a kernel is called in which a bug is planted."""
    return kernel if bug is None else f"{kernel}_with_bug_{bug}"


@functools.cache
def load_bugs_once(file):
    """The file again and again, each time with another bug, in one text, so that it is compiled once."""
    text = re.sub(r"//.*", "", read(file).text)  # with what it includes; a bug in a comment is none
    kernels = {name.split("<")[0] for name in instances(text)}
    sources, names = [], []
    for bug, (check, old, new, *occurrence) in enumerate(BUGS.values()):
        if CHECKS[check] != file:
            continue
        parts, at = text.split(old), occurrence[0] if occurrence else 0
        assert len(parts) > at + 1, f"{file} has no {old!r} number {at}"
        source = old.join(parts[: at + 1]) + new + old.join(parts[at + 1 :])
        source = re.sub(r"\b\w+(?=\s*\()", lambda m, bug=bug: bad_name(m[0], bug) if m[0] in kernels else m[0], source)
        own = [bad_name(kernel, bug) for kernel in kernels]
        sources += [f"namespace bug_{bug} {{\n{source}\n}}", *(f"using bug_{bug}::{name};" for name in own)]
        names += [f"{name}<float>" for name in own]
    module = load("\n".join(sources), names)
    assert module.get_function(names[0]).codes  # that it does not compile would be no catch
    return module


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(bug):
    check = BUGS[bug][0]
    load_bugs_once(CHECKS[check])
    with pytest.raises((AssertionError, CudaOnCpuError)):
        check(Kernels(CHECKS[check], list(BUGS).index(bug)), "float32")
