"""Convolution on the CPU's threads: the cheaper of two methods for each layer, and im2col, the one that always works.

By im2col the columns of a whole batch are never built: each thread fills a buffer that stays in its cache with the
columns of a few images, multiplies it by the filters (BLAS, one thread), and goes on to the next few.

Letters: G groups of C channels and F filters, so x has G*C channels and y has G*F.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator
from math import prod
from types import ModuleType

import numpy

from .array_module import Array
from .numba_products import NumbaProducts
from .numba_winograd import Winograd
from .scratch import Scratch
from .thread_pool import out_of_reach
from .window import Shape, Window

CACHE_BYTES = 512 * 1024  # for one thread's column buffer: half of a common second-level cache
COLUMN_COST = 20  # multiplications that take as long as making one element of the columns


class NumbaConvolution(NumbaProducts):
    """The part of the numba backend in which filters slide over images."""

    def __init__(self) -> None:
        super().__init__()
        self.scratch = Scratch()

    @property
    def winograd(self) -> Winograd:
        return Winograd(self.pool, self.scratch)

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The compiled kernels. Numba itself is imported here, at the first one."""
        return out_of_reach(importlib.import_module, f"{__package__}.numba_kernels")

    def set_convolution(self, method: str) -> None:
        if method not in ("im2col", "winograd", "auto"):
            raise ValueError(f"convolution must be im2col, winograd or auto, not {method!r}")
        self.convolution = method

    # -- the choice -----------------------------------------------------------
    def conv2d(self, x: Array, w: Array, window: Window, groups: int, bias: Array | None = None) -> Array:
        x, filters = numpy.ascontiguousarray(x), _by_group(w, groups)
        y = numpy.empty((x.shape[0], w.shape[0], *window.output_size(*x.shape[2:])), x.dtype)
        bias = numpy.zeros(w.shape[0], x.dtype) if bias is None else numpy.ascontiguousarray(bias, x.dtype)
        with self.pool.one_blas_thread():
            if self._uses_winograd(x.shape, filters.shape, y.shape, window, x.dtype):
                self.winograd.conv2d(x, filters, bias, y, window)
            else:
                self._conv2d(x, filters, bias, y, window)
        return y

    def conv2d_input_gradient(self, gy: Array, w: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        gy, filters = numpy.ascontiguousarray(gy), _by_group(w, groups)
        gx = numpy.empty(shape, gy.dtype)
        with self.pool.one_blas_thread():
            if self._uses_winograd(shape, filters.shape, gy.shape, window, gy.dtype):
                self.winograd.conv2d_input_gradient(gy, filters, gx, window)
            else:
                self._conv2d_input_gradient(gy, filters, gx, window)
        return gx

    def conv2d_weight_gradient(self, gy: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        gy, x, gw = numpy.ascontiguousarray(gy), numpy.ascontiguousarray(x), numpy.empty(shape, x.dtype)
        with self.pool.one_blas_thread():
            if self._uses_winograd(x.shape, _by_group(gw, groups).shape, gy.shape, window, x.dtype):
                self.winograd.conv2d_weight_gradient(gy, x, _by_group(gw, groups), window)
            else:
                self._conv2d_weight_gradient(gy, x, _by_group(gw, groups), window)
        return gw

    def _uses_winograd(self, x: Shape, filters: Shape, y: Shape, window: Window, dtype: numpy.dtype) -> bool:
        """Whether minimal filtering applies to arrays of these shapes, and is asked for or cheaper."""
        if self.convolution == "im2col" or dtype not in ("float32", "float64"):
            return False
        if not (self.winograd.applies(window) and min(x) and min(y)):
            return False
        if self.convolution == "winograd":
            return True
        _, F, C, R, S = filters
        columns = prod(y) // F * C * R * S
        used = min(x[0], self.pool.threads) / self.pool.threads  # minimal filtering shares out images only
        return self.winograd.cost(x, filters, y, window) < used * columns * (F + COLUMN_COST)

    # -- im2col: filters (G, F, C, R, S) ------------------------------------------
    def _conv2d(self, x: Array, filters: Array, bias: Array, y: Array, window: Window) -> None:
        (G, F), P = filters.shape[:2], y.shape[2]
        bias = bias.reshape(G, F, 1, 1, 1)

        def work(start: int, stop: int, top: int = 0, bottom: int = P) -> None:
            for i, j, columns, rows in self._chunks(start, stop, y[:, :, top:bottom], x.shape, window, G):
                self._im2col(x[i:j], columns, window, top)
                numpy.matmul(filters.reshape(G, F, -1), columns.reshape(G, -1, rows.shape[2]), out=rows)
                part = _by_image(y[i:j, :, top:bottom], G)
                numpy.add(rows.reshape(part.shape), bias, out=part)

        if min(self.pool.threads, P) <= len(x):
            self.pool.share(work, len(x), y.size * filters[0, 0].size)
        else:
            self.pool.share(lambda top, bottom: work(0, len(x), top, bottom), P, y.size * filters[0, 0].size)

    def _conv2d_input_gradient(self, gy: Array, filters: Array, gx: Array, window: Window) -> None:
        G, F, C = filters.shape[:3]
        N, image, cost = len(gx), gx.shape[2:], gy.size * filters[0, 0].size

        def work(start: int, stop: int, some_filters: Array, part: Array) -> None:
            transposed = numpy.ascontiguousarray(some_filters).reshape(G, F, -1).swapaxes(1, 2)
            for i, j, columns, rows in self._chunks(start, stop, gy, part.shape, window, G):
                rows[...] = _by_image(gy[i:j], G).reshape(rows.shape)
                numpy.matmul(transposed, rows, out=columns.reshape(*transposed.shape[:2], -1))
                self.kernels.col2im(columns, part[i:j], *window.stride, *window.padding, *window.dilation)

        def some_channels(start: int, stop: int) -> None:
            part = numpy.empty((N, G * (stop - start), *image), gx.dtype)
            work(0, N, filters[:, :, start:stop], part)
            gx.reshape(N, G, C, *image)[:, :, start:stop] = part.reshape(N, G, stop - start, *image)

        if min(self.pool.threads, C) <= N:
            self.pool.share(lambda start, stop: work(start, stop, filters, gx), N, cost)
        else:
            self.pool.share(some_channels, C, cost)

    def _conv2d_weight_gradient(self, gy: Array, x: Array, gw: Array, window: Window) -> None:
        G, F, C = gw.shape[:3]
        N, image, cost = len(x), x.shape[2:], gy.size * gw[0, 0].size

        def add(start: int, stop: int, x: Array, total: Array) -> None:
            for i, j, columns, rows in self._chunks(start, stop, gy, x.shape, window, G):
                self._im2col(x[i:j], columns, window)
                rows[...] = _by_image(gy[i:j], G).reshape(rows.shape)
                total += rows @ columns.reshape(G, -1, rows.shape[2]).swapaxes(1, 2)

        def some_channels(start: int, stop: int) -> None:
            part = numpy.ascontiguousarray(x.reshape(N, G, C, *image)[:, :, start:stop])
            total = numpy.zeros((G, F, gw[0, 0, start:stop].size), x.dtype)
            add(0, N, part.reshape(N, G * (stop - start), *image), total)
            gw[:, :, start:stop] = total.reshape(G, F, stop - start, *gw.shape[3:])

        if min(self.pool.threads, C) <= N:
            sums = {start: numpy.zeros((G, F, gw[0, 0].size), x.dtype) for start, _ in self.pool.slices(N, cost)}
            self.pool.share(lambda start, stop: add(start, stop, x, sums[start]), N, cost)
            gw[...] = sum(sums.values()).reshape(gw.shape)  # type: ignore[union-attr]
        else:
            self.pool.share(some_channels, C, cost)

    def _im2col(self, x: Array, columns: Array, window: Window, top: int = 0) -> None:
        """The columns of x from row `top` of the outputs on, as many rows as there is room for."""
        (vertical, horizontal), (above, left) = window.stride, window.padding
        self.kernels.im2col(x, columns, vertical, horizontal, above - top * vertical, left, *window.dilation)

    def _chunks(
        self, start: int, stop: int, y: Array, shape: tuple[int, ...], window: Window, groups: int
    ) -> Iterator[tuple[int, int, Array, Array]]:
        """(i, j, columns, rows) for images start ... stop, as many at a time as fit in the cache.

        columns (G*C, R, S, n, P, Q) and rows (G, F, n*P*Q) are this thread's buffers, used again for every chunk.
        """
        (F, P, Q), C, (R, S) = y.shape[1:], shape[1], window.kernel
        most = max(1, CACHE_BYTES // (y.itemsize * max(1, (C * R * S + F) * P * Q)))
        for i in range(start, stop, most):
            n = min(most, stop - i)
            columns, rows = self.scratch.arrays(y.dtype, (C, R, S, n, P, Q), (groups, F // groups, n * P * Q))
            yield i, i + n, columns, rows

    def conv2d_buffers(
        self, x: Shape, y: Shape, w: Shape, window: Window, groups: int, dtype: numpy.dtype
    ) -> tuple[int, int]:
        """Each thread keeps the columns and outputs of one image, or of several small ones that fill no more than its
        cache, and adds up the gradient of the weights for its own images, before these are added up."""
        filters = (groups, w[0] // groups, *w[1:])
        if self._uses_winograd(x, filters, y, window, dtype):
            return self.winograd.buffers(x, y, filters, window, dtype)
        threads, pixels = self.pool.threads, prod(y[2:])
        columns = x[1] * prod(window.kernel) * pixels + y[1] * pixels
        sums = threads + 1 if threads <= x[0] else 1  # where there are fewer images, channels are shared out
        return threads * dtype.itemsize * columns, sums * dtype.itemsize * prod(w)


def _by_group(w: Array, groups: int) -> Array:
    """A view of w (G*F, C, R, S) as (G, F, C, R, S)."""
    return w.reshape(groups, w.shape[0] // groups, *w.shape[1:])


def _by_image(y: Array, groups: int) -> Array:
    """A view of y (N, G*F, P, Q) as (G, F, N, P, Q), the order in which `filters @ columns` comes out."""
    N, F, P, Q = y.shape
    return y.reshape(N, groups, F // groups, P, Q).transpose(1, 2, 0, 3, 4)
