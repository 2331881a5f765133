"""Convolution and pooling of random shapes, against loops over places and taps; and the loops against PyTorch."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    agree,
    changed,
    dtypes,
    evaluate,
    every_backend,
    examples,
    laid_out,
    layouts,
    near,
    refused_everywhere,
    seeds,
    shared_out,
    whole_numbers,
)

from minitorch_alex import Tensor
from minitorch_alex import functional as F

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")  # PyTorch's
METHODS = {"numpy": ["im2col"], "numba": ["im2col", "winograd", "auto"], "cuda_on_cpu": ["im2col"]}


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install '.[peers]'")
    torch.set_num_threads(1)
    return torch


# -- the loops ------------------------------------------------------------------
def places(n, kernel, stride, padding, dilation=1, ceil_mode=False):
    """For each place of the window along an axis of n pixels, the pixel under each tap: None where that is padding.

    A window ends within the padding. With ceil_mode one more may reach beyond it, if pixels were left over and it does
    not begin behind the last one (taps beyond the padding are left out).
    """
    found, start, reach = [], -padding, dilation * (kernel - 1)
    while start + reach < n + padding or (ceil_mode and start < n and start - stride + reach < n + padding - 1):
        under = [start + tap * dilation for tap in range(kernel)]
        found.append([pixel if 0 <= pixel < n else None for pixel in under if pixel < n + padding])
        start += stride
    return found


def convolve(x, w, bias, gy, rows, columns, groups):
    """y, and the gradients of x, w and bias, in float64. rows and columns: places."""
    x, w, gy = (a.astype("float64") for a in (x, w, gy))
    y, gx, gw = np.zeros(gy.shape), np.zeros(x.shape), np.zeros(w.shape)
    some, C = w.shape[0] // groups, w.shape[1]
    for group in range(groups):
        filters, channels = slice(group * some, (group + 1) * some), slice(group * C, (group + 1) * C)
        for p, q in np.ndindex(gy.shape[2:]):
            for r, h in enumerate(rows[p]):
                for s, v in enumerate(columns[q]):
                    if h is None or v is None:
                        continue
                    pixels, taps, slopes = x[:, channels, h, v], w[filters, :, r, s], gy[:, filters, p, q]
                    y[:, filters, p, q] += pixels @ taps.T
                    gx[:, channels, h, v] += slopes @ taps
                    gw[filters, :, r, s] += slopes.T @ pixels
    if bias is None:
        return y, [gx, gw, None]
    return y + bias.astype("float64").reshape(-1, 1, 1), [gx, gw, gy.sum(axis=(0, 2, 3))]


def max_pool(x, gy, rows, columns, ties):
    """The maximum of each window, a NaN if there is one. The gradient goes to the first that holds it, or the last NaN,
    or to all."""
    y, gx = np.full(gy.shape, -np.inf), np.zeros(x.shape)
    for n, c, p, q in np.ndindex(gy.shape):
        pixels = [(h, v) for h in rows[p] for v in columns[q] if h is not None and v is not None]
        if not pixels:
            continue
        values = [float(x[n, c, h, v]) for h, v in pixels]
        bad = [i for i, value in enumerate(values) if value != value]
        best = bad[-1] if bad else values.index(max(values))
        y[n, c, p, q] = values[best]
        for i, value in enumerate(values):
            if i == best or (ties == "all" and value == values[best]):
                gx[n, c][pixels[i]] += gy[n, c, p, q]
    return y, gx


def avg_pool(x, gy, rows, columns, count_include_pad=True, divisor=None):
    """The mean of each window; padding counts as zeros, or not."""
    y, gx = np.zeros(gy.shape), np.zeros(x.shape)
    for p, q in np.ndindex(gy.shape[2:]):
        pixels = [(h, v) for h in rows[p] for v in columns[q] if h is not None and v is not None]
        count = divisor or (len(rows[p]) * len(columns[q]) if count_include_pad else len(pixels))
        for h, v in pixels:
            y[:, :, p, q] += x[:, :, h, v].astype("float64") / count
            gx[:, :, h, v] += gy[:, :, p, q].astype("float64") / count
    return y, gx


# -- convolution ----------------------------------------------------------------
class Convolution(NamedTuple):
    """One to try."""

    shape: tuple[int, ...]  # of the images (N, C, H, W)
    filters: tuple[int, ...]
    with_bias: bool
    stride: tuple[int, int]
    padding: tuple[int, int] | str
    dilation: tuple[int, int]
    groups: int
    dtype: str
    layouts: tuple[str, str, str]
    seed: int
    threads: int

    def places(self):
        """Along both axes."""
        (R, S), (H, W) = self.filters[2:], self.shape[2:]
        if self.padding != "same":
            axes = zip((H, W), (R, S), self.stride, self.padding, self.dilation, strict=True)
            return [places(*axis) for axis in axes]
        found = []
        for n, kernel, dilation in zip((H, W), (R, S), self.dilation, strict=True):
            before = dilation * (kernel - 1) // 2  # an odd surplus goes behind
            under = [[p - before + tap * dilation for tap in range(kernel)] for p in range(n)]
            found.append([[pixel if 0 <= pixel < n else None for pixel in row] for row in under])
        return found

    def arrays(self):
        """x, w, bias and a cotangent."""
        random, (rows, columns) = np.random.default_rng(self.seed), self.places()
        output = (self.shape[0], self.filters[0], len(rows), len(columns))
        x, w, gy = (
            laid_out(whole_numbers(random, shape, self.dtype), layout)
            for shape, layout in zip((self.shape, self.filters, output), self.layouts, strict=True)
        )
        return x, w, whole_numbers(random, self.filters[0], self.dtype) if self.with_bias else None, gy

    def settings(self):
        return {name: getattr(self, name) for name in ("stride", "padding", "dilation", "groups")}


KINDS = ["to which minimal filtering applies", "of any kind", "that keeps the size"]
counts = st.sampled_from([1, 2, 3, 4, 0])  # of images


@st.composite
def convolutions(draw, kind):
    """All windows fit."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    if kind == KINDS[0]:
        R, s = draw(st.sampled_from([(3, 1), (3, 1), (5, 1), (5, 2), (7, 3), (9, 2)]))
        kernel, stride, dilation, padding = (R, R), (s, s), (1, 1), pair(0, min(4, R - 1))
    else:
        kernel, stride, dilation, padding = pair(1, 4), pair(1, 3), pair(1, 3), pair(0, 3)
    spare = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    size = [max(1, d * (k - 1) + 1 - 2 * p + n) for d, k, p, n in zip(dilation, kernel, padding, spare, strict=True)]
    groups, (C, filters) = draw(st.integers(1, 3)), pair(1, 3)
    return Convolution(
        shape=(draw(counts), groups * C, *size),
        filters=(groups * filters, C, *kernel),
        with_bias=draw(st.booleans()),
        stride=(1, 1) if kind == KINDS[2] else stride,
        padding="same" if kind == KINDS[2] else padding,
        dilation=dilation,
        groups=groups,
        dtype=draw(dtypes),
        layouts=(draw(layouts), draw(layouts), draw(layouts)),
        seed=draw(seeds),
        threads=draw(st.integers(1, 3)),
    )


def rounding(one, method):
    """What minimal filtering may be off by: in the largest sum that there could be, of numbers up to 4, so many of the
    type's last digits. im2col adds up whole numbers, exactly."""
    if method == "im2col":
        return 0
    N, (F, C, R, S) = one.shape[0], one.filters
    rows, columns = one.places()
    terms = max(C * R * S, F // one.groups * R * S, N * len(rows) * len(columns))
    return 30 * np.finfo(one.dtype).eps * 16 * terms


@pytest.mark.parametrize("kind", KINDS)
@examples(60)
@given(st.data())
def test_conv2d(kind, data):
    one = data.draw(convolutions(kind))
    x, w, bias, gy = one.arrays()
    expected, gradients = convolve(x, w, bias, gy, *one.places(), one.groups)
    for backend in every_backend():
        for method in METHODS[backend.name]:
            with shared_out(one.threads):
                backend.set_convolution(method)
                try:
                    y, found = evaluate(backend, lambda *t: F.conv2d(*t, **one.settings()), (x, w, bias), gy)
                finally:
                    backend.set_convolution("auto")
            how, tolerance = f"{backend.name}, {method}: ", rounding(one, method)
            agree(y, expected, one.dtype, tolerance, how + "value")
            for name, a, b in zip(("x", "w", "bias"), found, gradients, strict=True):
                if b is not None:
                    agree(a, b, one.dtype, tolerance, f"{how}gradient of {name}")


@examples(15)
@given(convolutions(KINDS[0]) | convolutions(KINDS[1]))
def test_conv2d_of_one_image_is_that_of_a_batch_of_one(one):
    x, w, bias, gy = one._replace(shape=(1, *one.shape[1:])).arrays()
    for backend in every_backend():
        y, gradients = evaluate(backend, lambda *t: F.conv2d(*t, **one.settings()), (x, w, bias), gy)
        alone, again = evaluate(backend, lambda *t: F.conv2d(*t, **one.settings()), (x[0], w, bias), gy[0])
        agree(alone, y[0], one.dtype, 0, f"{backend.name}: value")
        agree(again[0], gradients[0][0], one.dtype, 0, f"{backend.name}: gradient of x")
        agree(again[1], gradients[1], one.dtype, 0, f"{backend.name}: gradient of w")


@examples(40)
@given(st.sampled_from(KINDS).flatmap(convolutions))
def test_the_loops_convolve_as_pytorch_does(torch, one):
    x, w, bias, gy = one._replace(dtype="float64").arrays()
    expected, gradients = convolve(x, w, bias, gy, *one.places(), one.groups)
    tensors = [None if a is None else torch.tensor(a.copy(), requires_grad=True) for a in (x, w, bias)]
    y = torch.nn.functional.conv2d(*tensors, **one.settings())
    y.backward(torch.tensor(gy.copy()))
    agree(y.detach().numpy(), expected, "float64", 1e-9, "value")
    for t, gradient in zip(tensors, gradients, strict=True):
        if t is not None:
            agree(t.grad.numpy(), gradient, "float64", 1e-9, "gradient")


anything = st.integers(0, 3)
CONVOLUTION = {
    "shape": (2, 2, 3, 4), "filters": (2, 2, 2, 3), "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1,
}  # fmt: skip
CONVOLUTION_CHANGES = {
    "shape": near(2, 2, 3, 4),
    "filters": near(2, 2, 2, 3),
    "bias": anything,
    "stride": st.integers(-1, 3) | st.tuples(anything, anything),
    "padding": st.integers(-1, 2) | st.sampled_from(["same", "valid", "full"]),
    "dilation": st.integers(-1, 3),
    "groups": st.integers(-1, 3),
}


@examples(150)
@given(changed(CONVOLUTION, CONVOLUTION_CHANGES))
def test_what_conv2d_refuses(more):
    shape, filters, bias = (more.pop(name) for name in ("shape", "filters", "bias"))

    def reason():
        stride = more["stride"] if isinstance(more["stride"], tuple) else (more["stride"],) * 2
        padding = 0 if isinstance(more["padding"], str) else more["padding"]
        if len(shape) not in (3, 4) or len(filters) != 4:
            return "rank"
        if min(stride) < 1 or padding < 0 or more["dilation"] < 1 or more["groups"] < 1:
            return "a setting"
        if more["padding"] == "full" or (more["padding"] == "same" and stride != (1, 1)):
            return "padding"
        if filters[0] % more["groups"] or filters[1] * more["groups"] != shape[-3] or 0 in filters:
            return "channels"
        if bias not in (None, filters[0]):
            return "bias"
        if 0 in shape[-2:]:
            return "no pixels"
        if more["padding"] == "same":
            return None
        axes = zip(shape[-2:], filters[2:], stride, strict=True)
        fits = all(places(n, kernel, s, padding, more["dilation"]) for n, kernel, s in axes)
        return None if fits else "no window fits"

    def convolution(backend):
        sizes = (shape, filters, bias)
        x, w, b = (None if a is None else Tensor(np.ones(a, "float32"), backend=backend) for a in sizes)
        return F.conv2d(x, w, b, **more)

    refused_everywhere("conv2d", convolution, reason())


# -- pooling ----------------------------------------------------------------------
class Pooling(NamedTuple):
    """One to try."""

    shape: tuple[int, ...]  # (N, C, H, W)
    kernel: tuple[int, int]
    stride: tuple[int, int] | None
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool
    dtype: str
    layouts: tuple[str, str]
    seed: int
    threads: int

    def places(self):
        """Along both axes."""
        stride = self.stride or self.kernel
        axes = zip(self.shape[2:], self.kernel, stride, self.padding, self.dilation, strict=True)
        return [places(*axis, self.ceil_mode) for axis in axes]

    def arrays(self, special=0):
        """x, of which so much is infinite or NaN, and a cotangent."""
        random, (rows, columns) = np.random.default_rng(self.seed), self.places()
        x = whole_numbers(random, self.shape, self.dtype)
        for value in (-np.inf, np.inf, np.nan):
            x[random.random(self.shape) < special] = value
        gy = whole_numbers(random, (*self.shape[:2], len(rows), len(columns)), self.dtype)
        return laid_out(x, self.layouts[0]), laid_out(gy, self.layouts[1])

    def settings(self):
        return {"stride": self.stride, "padding": self.padding, "ceil_mode": self.ceil_mode}


@st.composite
def poolings(draw, largest_dilation=3):
    """All windows fit."""

    def pair(low, high):
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    kernel, dilation, spare = pair(1, 4), pair(1, largest_dilation), pair(0, 5)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = [max(1, d * (k - 1) + 1 - 2 * p + n) for d, k, p, n in zip(dilation, kernel, padding, spare, strict=True)]
    return Pooling(
        shape=(draw(st.sampled_from([1, 2, 0])), draw(st.sampled_from([1, 2, 3, 0])), *size),
        kernel=kernel,
        stride=draw(st.none() | st.tuples(st.integers(1, 4), st.integers(1, 4))),
        padding=padding,
        dilation=dilation,
        ceil_mode=draw(st.booleans()),
        dtype=draw(dtypes),
        layouts=(draw(layouts), draw(layouts)),
        seed=draw(seeds),
        threads=draw(st.integers(1, 3)),
    )


@examples(100)
@given(poolings(), st.sampled_from([0, 0, 0.1, 0.4]), st.sampled_from(["first", "all"]))
def test_max_pool2d(one, special, ties):
    """Small whole numbers have many ties."""
    x, gy = one.arrays(special if ties == "first" else 0)
    expected, gradient = max_pool(x, gy, *one.places(), ties)

    def pool(t):
        return F.max_pool2d(t, one.kernel, **one.settings(), dilation=one.dilation, ties=ties)

    for backend in every_backend():
        with shared_out(one.threads):
            y, (found,) = evaluate(backend, pool, (x,), gy)
        agree(y, expected, one.dtype, 0, f"{backend.name}: value")
        agree(found, gradient, one.dtype, 0, f"{backend.name}: gradient")


@examples(40)
@given(poolings(largest_dilation=1), st.booleans(), st.sampled_from([None, None, 3, -2]))
def test_avg_pool2d(one, count_include_pad, divisor):
    """One division of a sum up to 64; the gradient adds up at most 16 quotients."""
    x, gy = one.arrays()
    expected, gradient = avg_pool(x, gy, *one.places(), count_include_pad, divisor)

    def pool(t):
        return F.avg_pool2d(
            t, one.kernel, **one.settings(), count_include_pad=count_include_pad, divisor_override=divisor
        )

    eps = np.finfo(one.dtype).eps
    for backend in every_backend():
        y, (found,) = evaluate(backend, pool, (x,), gy)
        agree(y, expected, one.dtype, 32 * eps, f"{backend.name}: value")
        agree(found, gradient, one.dtype, 256 * eps, f"{backend.name}: gradient")


@examples(25)
@given(poolings(), st.tuples(st.integers(1, 7), st.integers(1, 7)))
def test_adaptive_avg_pool2d(one, size):
    """Windows p*n/P up to (p+1)*n/P, rounded down and up; up to 4 of them meet a pixel along each axis."""
    if 0 in one.shape[1:]:
        one = one._replace(shape=(one.shape[0], 1, *one.shape[2:]))
    random = np.random.default_rng(one.seed)
    x = laid_out(whole_numbers(random, one.shape, one.dtype), one.layouts[0])
    gy = laid_out(whole_numbers(random, (*one.shape[:2], *size), one.dtype), one.layouts[1])
    rows, columns = (
        [list(range(p * n // P, -(-(p + 1) * n // P))) for p in range(P)]
        for n, P in zip(one.shape[2:], size, strict=True)
    )
    expected, gradient = avg_pool(x, gy, rows, columns)
    tolerance = 4 * 49 * np.finfo(one.dtype).eps
    for backend in every_backend():
        y, (found,) = evaluate(backend, lambda t: F.adaptive_avg_pool2d(t, size), (x,), gy)
        agree(y, expected, one.dtype, tolerance, f"{backend.name}: value")
        agree(found, gradient, one.dtype, tolerance, f"{backend.name}: gradient")


@examples(40)
@given(poolings(), st.sampled_from([0, 0, 0.3]), st.booleans())
def test_the_loops_pool_as_pytorch_does(torch, one, special, count_include_pad):
    one = one._replace(dtype="float64", shape=(one.shape[0], 1 + one.shape[1], *one.shape[2:]))
    rows, columns = one.places()
    settings = one.settings()
    if all(any(pixel is not None for pixel in line) for line in rows + columns):  # PyTorch's maximum of none is a stray
        x, gy = one.arrays(special)
        compare_with(torch, torch.nn.functional.max_pool2d, x, gy, max_pool(x, gy, rows, columns, "first"),
                     one.kernel, **settings, dilation=one.dilation)  # fmt: skip
    one = one._replace(dilation=(1, 1))
    rows, columns = one.places()
    x, gy = one.arrays()
    if gy.size:
        compare_with(torch, torch.nn.functional.avg_pool2d, x, gy, avg_pool(x, gy, rows, columns, count_include_pad),
                     one.kernel, **settings, count_include_pad=count_include_pad)  # fmt: skip


def compare_with(torch, f, x, gy, expected, *arguments, **settings):
    """PyTorch's value and gradient are the expected ones."""
    t = torch.tensor(x.copy(), requires_grad=True)
    y = f(t, *arguments, **settings)
    y.backward(torch.tensor(gy.copy()))
    agree(y.detach().numpy(), expected[0], "float64", 1e-12, "value")
    agree(t.grad.numpy(), expected[1], "float64", 1e-12, "gradient")


POOLING = {"shape": (2, 2, 3, 4), "kernel_size": (2, 3), "stride": None, "padding": 0, "ceil_mode": False}
POOLING_CHANGES = {
    "shape": near(2, 2, 3, 4),
    "kernel_size": st.tuples(st.integers(0, 4), st.integers(0, 4)),
    "stride": st.integers(-1, 3),
    "padding": st.integers(-1, 2),
    "ceil_mode": st.booleans(),
}


@examples(150)
@given(st.sampled_from(["max_pool2d", "avg_pool2d"]), changed(POOLING, POOLING_CHANGES))
def test_what_pooling_refuses(name, more):
    shape, kernel, stride, padding, ceil_mode = more.values()

    def reason():
        if len(shape) not in (3, 4):
            return "rank"
        if min(kernel) < 1 or (stride is not None and stride < 1) or padding < 0:
            return "a setting"
        if 2 * padding > min(kernel):
            return "padding"
        if 0 in shape[-2:]:
            return "no pixels"
        fits = all(places(n, k, stride or k, padding, 1, ceil_mode) for n, k in zip(shape[-2:], kernel, strict=True))
        return None if fits else "no window fits"

    def pool(backend):
        x = Tensor(np.ones(shape, "float32"), backend=backend)
        return getattr(F, name)(x, kernel, stride, padding, ceil_mode=ceil_mode)

    refused_everywhere(name, pool, reason())
