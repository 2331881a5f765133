"""NumPy arrays, with the kernels compiled by Numba and a batch's images shared out over the cores.

Convolution never builds the columns of a whole batch: each thread fills a buffer that stays in its cache with the
columns of a few images, multiplies it by the filters (BLAS, one thread), and goes on to the next few.
"""

from __future__ import annotations

import functools
import threading
from types import ModuleType

import numpy

from .. import philox
from .array_module import Array
from .numpy_backend import Backend
from .thread_pool import ThreadPool, usable_cores
from .window import Window

CACHE_BYTES = 512 * 1024  # for one thread's column buffer: half of a common second-level cache


class NumbaBackend(Backend):
    """NumPy's arrays, faster kernels. What is not overridden here is the reference's."""

    name = "numba"

    def __init__(self) -> None:
        self.pool = ThreadPool(usable_cores())
        self._scratch = threading.local()

    @property
    def description(self) -> str:  # type: ignore[override]
        threads = self.pool.threads
        return f"NumPy arrays, kernels compiled by Numba, {threads} thread{'s' if threads > 1 else ''}"

    @functools.cached_property
    def kernels(self) -> ModuleType:
        """The compiled kernels. Numba itself is imported here, at the first one."""
        from . import numba_kernels

        return numba_kernels

    def prepare(self) -> None:
        _ = self.kernels

    # -- convolution --------------------------------------------------------
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

    # -- ReLU ---------------------------------------------------------------
    def relu(self, x: Array) -> Array:
        return self._elementwise(self.kernels.relu, x)

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        return self._elementwise(self.kernels.relu_gradient, gy, y)

    def _elementwise(self, kernel, *arrays: Array) -> Array:
        """kernel(*inputs, output) over slices of the flattened arrays."""
        out = numpy.empty(arrays[0].shape, arrays[0].dtype)
        flat = [numpy.ascontiguousarray(a).reshape(-1) for a in (*arrays, out)]
        self.pool.share(lambda start, stop: kernel(*(a[start:stop] for a in flat)), out.size, out.size)
        return out

    # -- pooling ------------------------------------------------------------
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        x = numpy.ascontiguousarray(x)
        shape = (*x.shape[:2], *window.output_size(*x.shape[2:]))
        y, winner = numpy.empty(shape, x.dtype), numpy.empty(shape, "int32")

        def work(start: int, stop: int) -> None:
            self.kernels.max_pool2d(
                x[start:stop], y[start:stop], winner[start:stop],
                *window.kernel, *window.stride, *window.padding, *window.dilation,
            )  # fmt: skip

        self.pool.share(work, len(x), y.size * window.kernel[0] * window.kernel[1])
        return y, winner

    def max_pool2d_gradient(self, gy: Array, winner: Array, shape: tuple[int, ...], window: Window) -> Array:
        gy = numpy.ascontiguousarray(gy)
        gx = numpy.empty(shape, gy.dtype)

        def work(start: int, stop: int) -> None:
            self.kernels.max_pool2d_gradient(
                gy[start:stop], winner[start:stop], gx[start:stop],
                window.kernel[1], *window.stride, *window.padding, *window.dilation,
            )  # fmt: skip

        self.pool.share(work, len(gx), gx.size)
        return gx

    # -- local response normalisation -----------------------------------------
    def local_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        x = numpy.ascontiguousarray(x)
        y, scale = numpy.empty_like(x), numpy.empty_like(x)
        flat = (x.shape[0], x.shape[1], x[0, 0].size if x.size else 0)
        images, out, sums = x.reshape(flat), y.reshape(flat), scale.reshape(flat)
        number = x.dtype.type  # scalars of the arrays' own type, so that a kernel is compiled once for each

        def work(start: int, stop: int) -> None:
            self.kernels.local_response_norm(
                images[start:stop], out[start:stop], sums[start:stop],
                size // 2, (size - 1) // 2, number(alpha / size), number(beta), number(k),
            )  # fmt: skip

        self.pool.share(work, len(images), x.size * size)
        return y, scale

    def local_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        gy, x = numpy.ascontiguousarray(gy), numpy.ascontiguousarray(x)
        gx = numpy.empty_like(x)
        flat = (x.shape[0], x.shape[1], x[0, 0].size if x.size else 0)
        arrays = [a.reshape(flat) for a in (gy, x, scale, gx)]
        number = x.dtype.type

        def work(start: int, stop: int) -> None:
            self.kernels.local_response_norm_gradient(
                *(a[start:stop] for a in arrays),
                size // 2, (size - 1) // 2, number(alpha / size), number(beta),
            )  # fmt: skip

        self.pool.share(work, len(arrays[0]), x.size * size)
        return gx

    # -- randomness -----------------------------------------------------------
    def dropout_mask(self, shape: tuple[int, ...], p: float, key: philox.Key, counter: philox.Counter, dtype) -> Array:
        mask = numpy.empty(shape, dtype)
        flat, blocks = mask.reshape(-1), -(-mask.size // 16)  # a block is 4 words, or 16 elements
        key_and_counter = [numpy.uint64(word) for word in (*key, *counter)]
        threshold, scale = philox.drop_threshold(p), numpy.dtype(dtype).type(philox.keep_scale(p))

        def work(start: int, stop: int) -> None:
            part = flat[16 * start : 16 * stop]
            self.kernels.dropout_mask(part, start, *key_and_counter, threshold, scale)

        self.pool.share(work, blocks, mask.size * 4)
        return mask


def _by_image(y: Array, groups: int) -> Array:
    """A view of y (N, F, P, Q) as (G, F/G, N, P*Q), the order in which `filters @ columns` comes out."""
    N, F, P, Q = y.shape
    return y.reshape(N, groups, F // groups, P * Q).transpose(1, 2, 0, 3)


BACKEND = NumbaBackend()
