"""Convolution, im2col and pooling by CUDA kernels: what slides over images."""

from __future__ import annotations

import math

import numpy

from .array_module import Array
from .cuda_launcher import CudaLauncher
from .number_types import wide
from .window import Shape, Window

COLUMN_BYTES = 1 << 30  # for the columns of a convolution: as many images at a time as these hold


class CudaWindows(CudaLauncher):
    """The part of a CUDA backend that slides windows over images. Matrix products are the array module's own."""

    @staticmethod
    def _sizes(H: int, W: int, window: Window) -> tuple[int, ...]:
        """H, W, R, S, P, Q, then stride, padding and dilation, each vertical and horizontal."""
        P, Q = window.output_size(H, W)
        return (H, W, *window.kernel, P, Q, *window.stride, *window.padding, *window.dilation)

    def im2col(self, x: Array, window: Window) -> Array:
        N, C, H, W = x.shape
        P, Q = window.output_size(H, W)
        columns = self.xp.empty((N, C * math.prod(window.kernel), P * Q), x.dtype)
        self._im2col(x, columns, window, image_step=columns[0].size if N else 0, row_step=P * Q)
        return columns

    def _im2col(self, x: Array, columns: Array, window: Window, image_step: int, row_step: int) -> None:
        N, C, H, W = x.shape
        (x,) = self._contiguous(x)
        sizes = self._sizes(H, W, window)
        steps = numpy.int64(image_step), numpy.int64(row_step)
        total = N * C * math.prod(window.output_size(H, W))
        self.launch("im2col.cu", "im2col<T>", total, x, columns, N, C, *sizes, *steps)

    def col2im(self, columns: Array, shape: tuple[int, ...], window: Window) -> Array:
        P, Q = window.output_size(*shape[2:])
        x = self.xp.empty(shape, columns.dtype)
        (columns,) = self._contiguous(columns)
        rows = shape[1] * math.prod(window.kernel)
        self._col2im(columns, x, window, image_step=rows * P * Q, row_step=P * Q)
        return x

    def _col2im(self, columns: Array, x: Array, window: Window, image_step: int, row_step: int) -> None:
        N, C, H, W = x.shape
        sizes = self._sizes(H, W, window)
        steps = numpy.int64(image_step), numpy.int64(row_step)
        self.launch("col2im.cu", "col2im<T>", x.size, columns, x, N, C, *sizes, *steps)

    # -- convolution: one product per group over as many images as COLUMN_BYTES hold ------
    def conv2d(self, x: Array, w: Array, window: Window, groups: int, bias: Array | None = None) -> Array:
        F, K = w.shape[0] // groups, math.prod(w.shape[1:])
        y = self.xp.empty((x.shape[0], w.shape[0], *window.output_size(*x.shape[2:])), x.dtype)
        filters = w.reshape(groups, F, K)
        for i, j in self._chunks(x.shape, y, window):
            columns = self._columns(x[i:j], window)
            for g in range(groups):
                product = filters[g] @ columns[g * K : (g + 1) * K].reshape(K, -1)
                y[i:j, g * F : (g + 1) * F] = product.reshape(F, j - i, *y.shape[2:]).swapaxes(0, 1)
        if bias is not None:
            y += bias.reshape(-1, 1, 1)
        return y

    def conv2d_input_gradient(self, gy: Array, w: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        F, K = w.shape[0] // groups, math.prod(w.shape[1:])
        gx = self.xp.empty(shape, gy.dtype)
        filters = w.reshape(groups, F, K)
        P, Q = gy.shape[2:]
        for i, j in self._chunks(shape, gy, window):
            columns = self.xp.empty((groups * K, j - i, P * Q), gy.dtype)
            for g in range(groups):
                out = columns[g * K : (g + 1) * K].reshape(K, -1)  # a view, written in place
                self.xp.dot(filters[g].T, self._rows(gy[i:j], g, F), out=out)
            self._col2im(columns, gx[i:j], window, image_step=P * Q, row_step=(j - i) * P * Q)
        return gx

    def conv2d_weight_gradient(self, gy: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        F, K = shape[0] // groups, math.prod(shape[1:])
        gw = self.xp.zeros(shape, wide(x.dtype))
        parts = gw.reshape(groups, F, K)
        for i, j in self._chunks(x.shape, gy, window):
            columns = self._columns(x[i:j], window)
            for g in range(groups):
                parts[g] += self._rows(gy[i:j], g, F) @ columns[g * K : (g + 1) * K].reshape(K, -1).T
        return gw

    def conv2d_buffers(
        self, x: Shape, y: Shape, w: Shape, window: Window, groups: int, dtype: numpy.dtype
    ) -> tuple[int, int]:
        """The columns of as many images as COLUMN_BYTES hold, and one group's outputs in the same order."""
        columns = x[1] * math.prod(window.kernel) * math.prod(y[2:]) * dtype.itemsize
        output = math.prod(y[1:]) * dtype.itemsize
        return 0, min(x[0], _images_at_a_time(columns)) * (columns + output // groups)

    def _chunks(self, shape: tuple[int, ...], y: Array, window: Window) -> list[tuple[int, int]]:
        """(first, last + 1) of the images whose columns are made at a time."""
        N, C = shape[:2]
        step = _images_at_a_time(C * math.prod(window.kernel) * math.prod(y.shape[2:]) * y.itemsize)
        return [(i, min(i + step, N)) for i in range(0, N, step)]

    def _columns(self, x: Array, window: Window) -> Array:
        """The columns (C*R*S, N, P*Q) of a few images, side by side, so that one product serves them all."""
        N, C, H, W = x.shape
        P, Q = window.output_size(H, W)
        columns = self.xp.empty((C * math.prod(window.kernel), N, P * Q), x.dtype)
        self._im2col(x, columns, window, image_step=P * Q, row_step=N * P * Q)
        return columns

    def _rows(self, gy: Array, group: int, F: int) -> Array:
        """One group's part of gy (N, F*G, P, Q) in the order of the columns: (F, N*P*Q)."""
        (part,) = self._contiguous(gy[:, group * F : (group + 1) * F].swapaxes(0, 1))
        return part.reshape(F, -1)

    # -- pooling ----------------------------------------------------------------
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        (x,) = self._contiguous(x)
        N, C, H, W = x.shape
        shape = (N, C, *window.output_size(H, W))
        y, winner = self.xp.empty(shape, x.dtype), self.xp.empty(shape, "int32")
        self.launch("max_pool.cu", "max_pool<T>", y.size, x, y, winner, N * C, *self._sizes(H, W, window))
        return y, winner

    def max_pool2d_gradient(self, gy: Array, winner: Array, shape: tuple[int, ...], window: Window) -> Array:
        (gy,), winner = self._contiguous(gy), self.xp.ascontiguousarray(winner, "int32")
        N, C, H, W = shape
        gx = self.xp.empty(shape, gy.dtype)
        sizes = self._sizes(H, W, window)
        self.launch("max_pool.cu", "max_pool_gradient<T>", gx.size, gy, winner, gx, N * C, *sizes)
        return gx

    def max_pool2d_gradient_to_ties(self, gy: Array, x: Array, y: Array, window: Window) -> Array:
        gy, x, y = self._contiguous(gy, x, y)
        N, C, H, W = x.shape
        gx = self.xp.empty(x.shape, gy.dtype)
        sizes = self._sizes(H, W, window)
        self.launch("max_pool.cu", "max_pool_gradient_to_ties<T>", gx.size, gy, x, y, gx, N * C, *sizes)
        return gx

    def sum_pool2d(self, x: Array, window: Window) -> Array:
        (x,) = self._contiguous(x)
        N, C, H, W = x.shape
        y = self.xp.empty((N, C, *window.output_size(H, W)), x.dtype)
        self.launch("sum_pool.cu", "sum_pool<T>", y.size, x, y, N * C, *self._sizes(H, W, window))
        return y

    def sum_pool2d_gradient(self, gy: Array, shape: tuple[int, ...], window: Window) -> Array:
        (gy,) = self._contiguous(gy)
        N, C, H, W = shape
        gx = self.xp.empty(shape, gy.dtype)
        self.launch("sum_pool.cu", "sum_pool_gradient<T>", gx.size, gy, gx, N * C, *self._sizes(H, W, window))
        return gx


def _images_at_a_time(columns: int) -> int:
    """How many images' columns, of so many bytes each, COLUMN_BYTES hold.

    Eights of them, where there is room: so each row of the columns begins at a multiple of 16 bytes, as cuBLAS wants it
    for its quickest products.
    """
    count = max(1, COLUMN_BYTES // max(1, columns))
    return count // 8 * 8 or count
