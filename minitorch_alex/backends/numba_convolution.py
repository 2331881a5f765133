"""Convolution on the CPU's threads: columns of a few images at a time, and one single-threaded product for each.

The columns of a whole batch are never built: each thread fills a buffer that stays in its cache with the columns of a
few images, multiplies it by the filters (BLAS, one thread), and goes on to the next few.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType

import numpy

from .array_module import Array
from .numpy_backend import Backend
from .thread_pool import ThreadPool, usable_cores
from .window import Window

CACHE_BYTES = 512 * 1024  # for one thread's column buffer: half of a common second-level cache


class NumbaConvolution(Backend):
    """The part of the numba backend in which filters slide over images."""

    def __init__(self) -> None:
        self.pool = ThreadPool(usable_cores())
        self._scratch = threading.local()

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The compiled kernels. Numba itself is imported here, at the first one."""
        from . import numba_kernels

        return numba_kernels

    def conv2d(self, x: Array, w: Array, window: Window, groups: int) -> Array:
        x, filters = numpy.ascontiguousarray(x), numpy.ascontiguousarray(w.reshape(groups, w.shape[0] // groups, -1))
        y = numpy.empty((x.shape[0], w.shape[0], *window.output_size(*x.shape[2:])), x.dtype)

        def work(start: int, stop: int) -> None:
            for i, j, columns, rows in self._chunks(start, stop, y, x.shape, window, groups):
                self.kernels.im2col(x[i:j], columns, *window.stride, *window.padding, *window.dilation)
                numpy.matmul(filters, columns.reshape(groups, filters.shape[2], -1), out=rows)
                _by_image(y[i:j], groups)[...] = rows.reshape(*filters.shape[:2], j - i, -1)

        with self.pool.one_blas_thread():
            self.pool.share(work, len(x), y.size * filters.shape[2])
        return y

    def conv2d_input_gradient(self, gy: Array, w: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        gy = numpy.ascontiguousarray(gy)
        filters = numpy.ascontiguousarray(w.reshape(groups, w.shape[0] // groups, -1))
        gx = numpy.empty(shape, gy.dtype)

        def work(start: int, stop: int) -> None:
            for i, j, columns, rows in self._chunks(start, stop, gy, shape, window, groups):
                rows.reshape(*filters.shape[:2], j - i, -1)[...] = _by_image(gy[i:j], groups)
                numpy.matmul(filters.swapaxes(1, 2), rows, out=columns.reshape(groups, filters.shape[2], -1))
                self.kernels.col2im(columns, gx[i:j], *window.stride, *window.padding, *window.dilation)

        with self.pool.one_blas_thread():
            self.pool.share(work, len(gx), gy.size * filters.shape[2])
        return gx

    def conv2d_weight_gradient(self, gy: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        x, gy = numpy.ascontiguousarray(x), numpy.ascontiguousarray(gy)
        F, K = shape[0] // groups, shape[1] * shape[2] * shape[3]
        cost = gy.size * K
        sums = {start: numpy.zeros((groups, F, K), x.dtype) for start, _ in self.pool.slices(len(x), cost)}

        def work(start: int, stop: int) -> None:
            for i, j, columns, rows in self._chunks(start, stop, gy, x.shape, window, groups):
                self.kernels.im2col(x[i:j], columns, *window.stride, *window.padding, *window.dilation)
                rows.reshape(groups, F, j - i, -1)[...] = _by_image(gy[i:j], groups)
                sums[start] += rows @ columns.reshape(groups, K, -1).swapaxes(1, 2)

        with self.pool.one_blas_thread():
            self.pool.share(work, len(x), cost)
        return sum(sums.values()).reshape(shape)  # type: ignore[union-attr]

    def conv2d_buffers(self, images: int, columns: int, output: int, weight: int, groups: int) -> tuple[int, int]:
        """Each thread keeps the columns and outputs of one image, or of several small ones that fill no more than its
        cache, and adds up the gradient of the weights for its own images, before these are added up."""
        return self.pool.threads * (columns + output), (self.pool.threads + 1) * weight

    def _chunks(self, start: int, stop: int, y: Array, shape: tuple[int, ...], window: Window, groups: int):
        """(i, j, columns, rows) for images start ... stop, as many at a time as fit in the cache.

        columns (C, R, S, n, P, Q) and rows (G, F/G, n*P*Q) are this thread's buffers, used again for every chunk.
        """
        (F, P, Q), C = y.shape[1:], shape[1]
        column_size, row_size = C * window.kernel[0] * window.kernel[1] * P * Q, F * P * Q
        most = max(1, CACHE_BYTES // (y.itemsize * max(1, column_size + row_size)))
        for i in range(start, stop, most):
            n = min(most, stop - i)
            buffer = self._buffer(n * (column_size + row_size), y.dtype)
            columns = buffer[: n * column_size].reshape(C, *window.kernel, n, P, Q)
            rows = buffer[n * column_size :].reshape(groups, F // groups, n * P * Q)
            yield i, i + n, columns, rows

    def _buffer(self, size: int, dtype: numpy.dtype) -> Array:
        """This thread's scratch memory, grown when a larger piece is asked for."""
        scratch = getattr(self._scratch, "array", None)
        if scratch is None or scratch.nbytes < size * dtype.itemsize:
            scratch = self._scratch.array = numpy.empty(size * dtype.itemsize, "uint8")
        return scratch[: size * dtype.itemsize].view(dtype)


def _by_image(y: Array, groups: int) -> Array:
    """A view of y (N, F, P, Q) as (G, F/G, N, P*Q), the order in which `filters @ columns` comes out."""
    N, F, P, Q = y.shape
    return y.reshape(N, groups, F // groups, P * Q).transpose(1, 2, 0, 3)
