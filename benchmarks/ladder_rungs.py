"""The rungs of the ladder: ways to compute a convolution and its two gradients, each with a reason to be faster.

Letters: N images, C channels, H x W pixels, F filters of R x S taps, P x Q outputs, G groups of D channels.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy
import threadpoolctl

import minitorch_alex.functional as F
from minitorch_alex import backends
from minitorch_alex.backends.thread_pool import threads_to_use, usable_cores
from minitorch_alex.tensor import Tensor

from .gpu_convolution import Layer

Results = tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]  # y, and the gradients of x and of w
SIDE, MAPS = 8, 8  # of the images, and channels and filters, that plain Python is given


# -- the definition -------------------------------------------------------------------
def forward(x, w, y):
    """Add w * x to y: x (N, C, H, W) surrounded by zeros, w (F, D, R, S), y (N, F, P, Q)."""
    for n in range(y.shape[0]):
        for f in range(y.shape[1]):
            first = f // (w.shape[0] * w.shape[1] // x.shape[1]) * w.shape[1]  # channel of the filter's group
            for p in range(y.shape[2]):
                for q in range(y.shape[3]):
                    for c in range(w.shape[1]):
                        for r in range(w.shape[2]):
                            for s in range(w.shape[3]):
                                y[n, f, p, q] += w[f, c, r, s] * x[n, first + c, p + r, q + s]


def input_gradient(gx, w, gy):
    """Add to gx: every pixel gets back what it was multiplied with, times the gradient of the sum that it went into."""
    for n in range(gy.shape[0]):
        for f in range(gy.shape[1]):
            first = f // (w.shape[0] * w.shape[1] // gx.shape[1]) * w.shape[1]
            for p in range(gy.shape[2]):
                for q in range(gy.shape[3]):
                    for c in range(w.shape[1]):
                        for r in range(w.shape[2]):
                            for s in range(w.shape[3]):
                                gx[n, first + c, p + r, q + s] += w[f, c, r, s] * gy[n, f, p, q]


def weight_gradient(x, gw, gy):
    """Add to gw: so does every weight."""
    for n in range(gy.shape[0]):
        for f in range(gy.shape[1]):
            first = f // (gw.shape[0] * gw.shape[1] // x.shape[1]) * gw.shape[1]
            for p in range(gy.shape[2]):
                for q in range(gy.shape[3]):
                    for c in range(gw.shape[1]):
                        for r in range(gw.shape[2]):
                            for s in range(gw.shape[3]):
                                gw[f, c, r, s] += x[n, first + c, p + r, q + s] * gy[n, f, p, q]


PASSES: tuple[Callable, ...] = (forward, input_gradient, weight_gradient)


@functools.cache
def compiled() -> tuple[Callable, ...]:
    """The three functions as they stand, as machine code."""
    import numba

    return tuple(numba.njit(function) for function in PASSES)


# -- ways to compute it ---------------------------------------------------------------
def by_loops(passes: tuple[Callable, ...], layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    pad = layer.pad
    padded = numpy.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y, gx, gw = numpy.zeros_like(gy), numpy.zeros_like(padded), numpy.zeros_like(w)
    passes[0](padded, w, y)
    passes[1](gx, w, gy)
    passes[2](padded, gw, gy)
    return y, gx[:, :, pad : pad + layer.H, pad : pad + layer.H], gw


def plain_loops(layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    return by_loops(PASSES, layer, x, w, gy)


def compiled_loops(layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    return by_loops(compiled(), layer, x, w, gy)


def on_numpy(layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    return on_backend(backends.get("numpy"), layer, x, w, gy)


def on_numba(layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    return on_backend(backends.get("numba"), layer, x, w, gy)


def on_backend(backend: backends.Backend, layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    images, weight = (Tensor(a, backend=backend, requires_grad=True) for a in (x, w))
    y = F.conv2d(images, weight, None, layer.stride, layer.pad, groups=layer.groups)
    y.backward(Tensor(gy, backend=backend))
    assert images.grad is not None
    assert weight.grad is not None
    return y.data, images.grad.data, weight.grad.data


def on_pytorch(layer: Layer, x: Any, w: Any, gy: Any) -> Results:
    import torch

    torch.set_num_threads(threads_to_use())
    images, weight = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    y = torch.conv2d(images, weight, None, layer.stride, layer.pad, groups=layer.groups)
    gradients = torch.autograd.grad(y, (images, weight), torch.from_numpy(gy))
    return y.detach().numpy(), *(g.numpy() for g in gradients)


# -- settings in which they do ----------------------------------------------------------
def one_blas_thread() -> AbstractContextManager:
    return threadpoolctl.threadpool_limits(1, user_api="blas")


def blas_on_all_cores() -> AbstractContextManager:
    return threadpoolctl.threadpool_limits(usable_cores(), user_api="blas")


@contextmanager
def convolution(method: str) -> Iterator[None]:
    """Within it, the numba backend computes convolutions in this way."""
    backend = backends.get("numba")
    before = backend.convolution
    backend.set_convolution(method)
    try:
        yield
    finally:
        backend.set_convolution(before)


# -- how much of it ---------------------------------------------------------------------
def all_of_it(layer: Layer, images: int) -> tuple[Layer, int]:
    return layer, images


def one_image(layer: Layer, images: int) -> tuple[Layer, int]:
    return layer, 1


def a_corner(layer: Layer, images: int) -> tuple[Layer, int]:
    """A small image with few channels and filters. A loop does each multiplication like any other."""
    return layer._replace(C=MAPS, H=SIDE, F=MAPS), 1


def multiply_accumulates(layer: Layer, images: int) -> int:
    """Of the three passes together."""
    P, Q = layer.window.output_size(layer.H, layer.H)
    return 3 * images * layer.F * P * Q * (layer.C // layer.groups) * layer.R * layer.R


class Rung(NamedTuple):
    """A way to compute it, why it is faster than the one before, and on how much of the work it is timed."""

    name: str
    why: str
    compute: Callable[[Layer, Any, Any, Any], Results]
    setting: Callable[[], AbstractContextManager] = nullcontext
    part: Callable[[Layer, int], tuple[Layer, int]] = all_of_it
    on: str = ""  # that part, in words
    needs: str = "numpy"  # a package


LADDER = [
    Rung(
        "Python loops",
        "The definition as it stands: seven loops, and for every product Python asks what each thing is.",
        plain_loops,
        part=a_corner,
        on=f"1 image of {SIDE} x {SIDE}, {MAPS} channels, {MAPS} filters; scaled",
    ),
    Rung(
        "compiled loops",
        "The same loops as machine code: what each thing is has been settled before the first product.",
        compiled_loops,
        part=one_image,
        on="1 image; scaled",
        needs="numba",
    ),
    Rung(
        "im2col, one BLAS thread",
        "The loops become matrix products, in which BLAS multiplies several numbers with one instruction and uses each "
        "of them many times while it is in a register.",
        on_numpy,
        one_blas_thread,
    ),
    Rung(
        "im2col, BLAS threads",
        "BLAS shares each product out over the cores; unfolding the images into columns stays with one.",
        on_numpy,
        blas_on_all_cores,
    ),
    Rung(
        "threads over images",
        "Every core does all of the work, for images of its own, and the columns of an image are multiplied while they "
        "are still in its cache.",
        on_numba,
        lambda: convolution("im2col"),
        needs="numba",
    ),
    Rung(
        "Winograd",
        "Fewer multiplications: sums of pixels are multiplied by sums of weights, and each product counts for several "
        "outputs.",
        on_numba,
        lambda: convolution("winograd"),
        needs="numba",
    ),
    Rung("PyTorch", "no rung, but something to compare with.", on_pytorch, needs="torch"),
]


def available() -> list[Rung]:
    """Those whose packages are installed."""
    return [rung for rung in LADDER if importlib.util.find_spec(rung.needs) is not None]
