"""NumPy arrays, with the kernels compiled by Numba and a batch's images shared out over the cores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType

import numpy

from .. import philox
from . import host_memory
from .array_module import Array
from .numba_convolution import NumbaConvolution
from .window import Window

# What a kernel does with one element of the larger array takes as long as so many multiply-adds of a matrix product.
PASSED, SPREAD, POOLED, NORMALISED, MASKED, EXPONENTIATED = 10, 20, 60, 70, 90, 240


class NumbaBackend(NumbaConvolution):
    """NumPy's arrays, faster kernels. What is not overridden here is the reference's."""

    name = "numba"

    @property
    def description(self) -> str:  # type: ignore[override]
        threads = self.pool.threads
        return f"NumPy arrays, kernels compiled by Numba, {threads} thread{'s' if threads > 1 else ''}"

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The compiled kernels; whoever needs them has arrays that come and go."""
        host_memory.keep_freed_memory()
        return super().kernels

    def prepare(self) -> None:
        _ = self.kernels

    def give_back(self) -> None:
        host_memory.give_back_freed_memory()

    # -- element by element -----------------------------------------------------
    def relu(self, x: Array) -> Array:
        return self._elementwise(self.kernels.relu, x)

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        return self._elementwise(self.kernels.relu_gradient, gy, y)

    def _elementwise(self, kernel: Callable, *arrays: Array, settings: tuple = ()) -> Array:
        """kernel(*inputs, output, *settings) over slices of the flattened arrays."""
        out = numpy.empty(arrays[0].shape, arrays[0].dtype)
        flat = [a.ravel() for a in (*arrays, out)]
        self.pool.share_arrays(kernel, flat, settings, PASSED * out.size)
        return out

    # -- convolution's bias -------------------------------------------------------
    def channel_sums(self, gy: Array) -> Array:
        """In float64, one channel after the other, so the number of threads does not matter."""
        N, F, P, Q = gy.shape
        images, sums = numpy.ascontiguousarray(gy).reshape(N, F, P * Q), numpy.empty(F)
        self.pool.share(
            lambda start, stop: self.kernels.channel_sums(images, sums[start:stop], start), F, PASSED * gy.size
        )
        return sums.astype(gy.dtype)

    # -- pooling ------------------------------------------------------------------
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        P, Q = window.output_size(*x.shape[2:])
        taps = window.kernel[0] * window.kernel[1]
        y = numpy.empty((*x.shape[:2], P, Q), x.dtype)
        winner = numpy.empty(y.shape, "int8" if taps <= 128 else "int32")  # the tape keeps it
        self._pool(self.kernels.max_pool2d, (x, y, winner), window, POOLED * x.size)
        return y, winner

    def max_pool2d_gradient(self, gy: Array, winner: Array, shape: tuple[int, ...], window: Window) -> Array:
        gx = numpy.empty(shape, gy.dtype)
        self._pool(self.kernels.max_pool2d_gradient, (gy, winner, gx), window, SPREAD * gx.size)
        return gx

    def _pool(self, kernel: Callable, arrays: tuple[Array, ...], window: Window, cost: float) -> None:
        """kernel(*arrays, *window) over slices of the N*C channels of all images."""
        sizes = (*window.kernel, *window.stride, *window.padding, *window.dilation)
        count = arrays[0].shape[0] * arrays[0].shape[1]
        flat = [numpy.ascontiguousarray(a).reshape(count, *a.shape[2:]) for a in arrays]
        self.pool.share(lambda start, stop: kernel(*(a[start:stop] for a in flat), *sizes), count, cost)

    # -- local response normalisation -----------------------------------------------
    def local_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        x = numpy.ascontiguousarray(x)
        y, scale = numpy.empty_like(x), numpy.empty_like(x)
        settings = (size // 2, (size - 1) // 2, *_as(x, alpha / size, beta, k))
        self._across_channels(self.kernels.local_response_norm, (x, y, scale), settings)
        return y, scale

    def local_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        gx = numpy.empty(x.shape, x.dtype)
        settings = (size // 2, (size - 1) // 2, *_as(x, alpha / size, beta))
        self._across_channels(self.kernels.local_response_norm_gradient, (gy, x, scale, gx), settings)
        return gx

    def _across_channels(self, kernel: Callable, arrays: tuple[Array, ...], settings: tuple) -> None:
        """kernel(*arrays, first and last pixel, *settings) on arrays (N, C, M): over slices of the images, or of their
        pixels where the images are few."""
        N, C = arrays[0].shape[:2]
        cost, M = NORMALISED * arrays[0].size, int(numpy.prod(arrays[0].shape[2:]))
        flat = [numpy.ascontiguousarray(a).reshape(N, C, M) for a in arrays]
        if self.pool.threads <= N:
            self.pool.share(lambda start, stop: kernel(*(a[start:stop] for a in flat), 0, M, *settings), N, cost)
        else:
            self.pool.share(lambda start, stop: kernel(*flat, start, stop, *settings), M, cost)

    # -- loss and optimizer -----------------------------------------------------------
    def softmax_cross_entropy(self, x: Array, labels: Array, ignore_index: int, slope: float) -> tuple[Array, Array]:
        x, labels = numpy.ascontiguousarray(x), numpy.ascontiguousarray(labels)
        loss, gradient = numpy.empty(len(x), x.dtype), numpy.empty(x.shape, x.dtype)
        arrays, settings = (x, labels, loss, gradient), (ignore_index, *_as(x, slope))
        self.pool.share_arrays(self.kernels.softmax_cross_entropy, arrays, settings, EXPONENTIATED * x.size)
        return loss, gradient

    def sgd_paper(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float
    ) -> tuple[Array, Array]:
        """In one pass."""
        v = numpy.zeros(w.shape, w.dtype) if v is None else v
        if not _alike(w, g, v):
            return super().sgd_paper(w, g, v, lr, momentum, decay)
        settings = _as(w, lr, momentum, decay * lr)
        return self._elementwise(self.kernels.sgd_paper, w, g, v, settings=settings), v

    def sgd_torch(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float, dampening: float,
        nesterov: bool,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """In one pass, where there is a momentum."""
        first, v = v is None, numpy.empty(w.shape, w.dtype) if v is None else v
        if not (momentum and _alike(w, g, v)):
            return super().sgd_torch(w, g, None if first else v, lr, momentum, decay, dampening, nesterov)
        settings = (*_as(w, lr, momentum, decay, 1 - dampening), first, nesterov)
        return self._elementwise(self.kernels.sgd_torch, w, g, v, settings=settings), v

    # -- randomness -------------------------------------------------------------------
    def dropout(self, x: Array, p: float, key: philox.Key, counter: philox.Counter, form: str) -> Array:
        y = numpy.empty(x.shape, x.dtype)
        flat = x.ravel(), y.ravel()
        key_and_counter = [numpy.uint64(word) for word in (*key, *counter)]
        threshold, (scale,) = philox.drop_threshold(p), _as(x, philox.keep_scale(p) if form == "torch" else 1)

        def work(start: int, stop: int) -> None:
            parts = (a[16 * start : 16 * stop] for a in flat)
            self.kernels.dropout(*parts, start, *key_and_counter, threshold, scale)

        self.pool.share(work, -(-x.size // 16), MASKED * x.size)  # a block is 4 words, or 16 elements
        return y

    def dropout_mask(self, shape: tuple[int, ...], p: float, key: philox.Key, counter: philox.Counter, dtype) -> Array:
        return self.dropout(numpy.ones(shape, dtype), p, key, counter, "torch")


def _as(x: Array, *numbers: float) -> tuple:
    """Numbers of the array's own type, so that a kernel is compiled once for each and computes in it."""
    return _converted(x.dtype, numbers)


@functools.lru_cache(maxsize=64)  # an optimizer's are the same at every step
def _converted(dtype: numpy.dtype, numbers: tuple) -> tuple:
    return tuple(dtype.type(number) for number in numbers)


def _alike(w: Array, g: Array, v: Array) -> bool:
    """Whether a kernel may walk through all three at once, and change v in place."""
    return w.shape == g.shape == v.shape and w.dtype == g.dtype == v.dtype and v.flags.c_contiguous


BACKEND = NumbaBackend()
