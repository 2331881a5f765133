"""Windows in plain array code: im2col, convolution and pooling, each with its gradients.

Letters: N images, C channels, H x W pixels, F filters of R x S taps, P x Q outputs, G groups.
"""

from __future__ import annotations

import math

import numpy

from .array_module import Array, ArrayModule
from .number_types import wide
from .window import Shape, Window


class NumpyWindows(ArrayModule):
    """The part of the reference backend in which a window slides over images."""

    def pad_image(self, x: Array, window: Window, value: float) -> Array:
        """x (N, C, H, W) surrounded by `value`, as far as the windows reach."""
        around = window.surround(*x.shape[2:])
        return self.xp.pad(x, ((0, 0), (0, 0), *around), constant_values=value) if around != ((0, 0), (0, 0)) else x

    def im2col(self, x: Array, window: Window) -> Array:
        """x (N, C, H, W) -> columns (N, C*R*S, P*Q): column (p, q) is the patch that the window sees there."""
        N, C, H, W = x.shape
        P, Q = window.output_size(H, W)
        x = self.pad_image(x, window, 0)
        columns = self.xp.empty((N, C, *window.kernel, P, Q), x.dtype)
        for r, s, rows, cols in window.taps(P, Q):
            columns[:, :, r, s] = x[:, :, rows, cols]
        return columns.reshape(N, C * window.kernel[0] * window.kernel[1], P * Q)

    def col2im(self, columns: Array, shape: tuple[int, ...], window: Window) -> Array:
        """columns (N, C*R*S, P*Q) -> x (N, C, H, W): add every entry to the pixel that im2col read it from.

        This is im2col's adjoint, <im2col(x), c> = <x, col2im(c)>, and not its inverse: a pixel seen by several windows
        receives their sum.
        """
        N, C, H, W = shape
        P, Q = window.output_size(H, W)
        columns = columns.reshape(N, C, *window.kernel, P, Q)
        (top, bottom), (left, right) = window.surround(H, W)
        x = self.xp.zeros((N, C, top + H + bottom, left + W + right), columns.dtype)
        for r, s, rows, cols in window.taps(P, Q):
            x[:, :, rows, cols] += columns[:, :, r, s]
        return x[:, :, top : top + H, left : left + W]

    # -- convolution: x (N, C, H, W), w (F, C/G, R, S), y (N, F, P, Q) --------
    convolution = "auto"

    def set_convolution(self, method: str) -> None:
        """How convolutions are computed from now on: by "im2col", by "winograd" (minimal filtering) where that applies,
        or by the cheaper of the two, "auto". Else a ValueError."""
        if method not in ("im2col", "auto"):
            raise ValueError(f"the {self.name} backend computes convolutions by im2col only, not by {method!r}")
        self.convolution = method

    def conv2d(self, x: Array, w: Array, window: Window, groups: int, bias: Array | None = None) -> Array:
        """y = filters @ im2col(x) + bias (F,), group by group."""
        N, F, G = x.shape[0], w.shape[0], groups
        P, Q = window.output_size(*x.shape[2:])
        filters = w.reshape(G, F // G, -1)
        columns = self.im2col(x, window).reshape(N, G, filters.shape[2], P * Q)
        y = (filters @ columns).reshape(N, F, P, Q)
        return y if bias is None else y + bias.reshape(-1, 1, 1)

    def conv2d_input_gradient(self, gy: Array, w: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        """gx = col2im(filters^T @ gy): what im2col copied out, col2im adds back."""
        N, F, G = shape[0], w.shape[0], groups
        filters = w.reshape(G, F // G, -1)
        columns = filters.swapaxes(1, 2) @ gy.reshape(N, G, F // G, gy.shape[2] * gy.shape[3])
        return self.col2im(columns, shape, window)

    def conv2d_weight_gradient(self, gy: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        """gw = gy @ im2col(x)^T, summed over the images."""
        N, F, G = x.shape[0], shape[0], groups
        gy = gy.reshape(N, G, F // G, gy.shape[2] * gy.shape[3])
        columns = self.im2col(x, window)
        columns = columns.reshape(N, G, columns.shape[1] // G, columns.shape[2])
        return self.xp.stack(
            [self.xp.tensordot(gy[:, g], columns[:, g], axes=((0, 2), (0, 2))) for g in range(G)]
        ).reshape(shape)

    def conv2d_buffers(
        self, x: Shape, y: Shape, w: Shape, window: Window, groups: int, dtype: numpy.dtype
    ) -> tuple[int, int]:
        """Bytes that the gradients of a convolution of these shapes need beside what they are given and return, as
        (kept for good, passing).

        Here it is the columns of the batch, and to multiply them one group's columns and outputs, laid out once more.
        """
        columns = math.prod(y) // y[1] * x[1] * math.prod(window.kernel)
        return 0, dtype.itemsize * (columns + (columns + math.prod(y)) // groups)

    def channel_sums(self, gy: Array) -> Array:
        """gy (N, F, P, Q) -> (F,): the sum over images and pixels, which is the gradient of a convolution's bias."""
        return gy.sum(axis=(2, 3), dtype=wide(gy.dtype)).sum(axis=0)  # pixels first: they lie together

    # -- pooling: x (N, C, H, W), y (N, C, P, Q) ------------------------------
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        """The maximum of each window, and `winner` (N, C, P, Q) = r*S + s: the tap that held it.

        Of equal values the first in scan order wins; a NaN wins over every number. Padding never wins: it is not there.
        """
        N, C, H, W = x.shape
        P, Q = window.output_size(H, W)
        inside = self.pad_image(self.xp.ones((1, 1, H, W), bool), window, False)
        x = self.pad_image(x, window, -numpy.inf)
        y = self.xp.full((N, C, P, Q), -numpy.inf, x.dtype)
        winner = self.xp.full((N, C, P, Q), -1, "int32")
        for r, s, rows, cols in window.taps(P, Q):
            value = x[:, :, rows, cols]
            better = inside[:, :, rows, cols] & ((value > y) | self.xp.isnan(value) | (winner < 0))
            y = self.xp.where(better, value, y)
            winner = self.xp.where(better, numpy.int32(r * window.kernel[1] + s), winner)
        return y, winner

    def max_pool2d_gradient(self, gy: Array, winner: Array, shape: tuple[int, ...], window: Window) -> Array:
        """Hand each output's gradient to the tap that won; where windows overlap, a pixel's winnings add up."""
        taps = self.xp.arange(window.kernel[0] * window.kernel[1]).reshape(-1, 1, 1)
        columns = self.xp.where(winner[:, :, None] == taps, gy[:, :, None], gy.dtype.type(0))
        return self.col2im(columns, shape, window)

    def max_pool2d_gradient_to_ties(self, gy: Array, x: Array, y: Array, window: Window) -> Array:
        """Hand each output's whole gradient to every tap that equals the maximum."""
        taps = window.kernel[0] * window.kernel[1]
        values = self.im2col(x, window).reshape(*x.shape[:2], taps, *y.shape[2:])  # col2im drops what goes to padding
        columns = self.xp.where(values == y[:, :, None], gy[:, :, None], gy.dtype.type(0))
        return self.col2im(columns, x.shape, window)

    def sum_pool2d(self, x: Array, window: Window) -> Array:
        """The sum of each window; padding counts as zeros."""
        P, Q = window.output_size(*x.shape[2:])
        x = self.pad_image(x, window, 0)
        return sum(x[:, :, rows, cols] for _, _, rows, cols in window.taps(P, Q))

    def sum_pool2d_gradient(self, gy: Array, shape: tuple[int, ...], window: Window) -> Array:
        """Every pixel of a window receives the window's gradient."""
        taps = window.kernel[0] * window.kernel[1]
        columns = self.xp.broadcast_to(gy[:, :, None], (*gy.shape[:2], taps, *gy.shape[2:]))
        return self.col2im(columns, shape, window)
