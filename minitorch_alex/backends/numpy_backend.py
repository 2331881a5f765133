"""The reference backend: every kernel in plain array code, the definition of correct.

A Backend is an array module plus the few kernels that array modules lack. Other backends subclass it and override a
kernel where they have a faster one; a kernel that is not overridden already works there.

Letters: N images, C channels, H x W pixels, F filters of R x S taps, P x Q outputs, G groups.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy

from .. import philox

Array = Any  # of the backend's array module
Pair = tuple[int, int]


class Window(NamedTuple):
    """How a filter or a pool slides over an image: everything is (vertical, horizontal)."""

    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    ceil_mode: bool = False

    def extent(self, axis: int) -> int:
        """How many pixels one window spans, gaps between its taps included."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def output_size(self, H: int, W: int) -> Pair:
        """P, Q: how many windows fit along each axis.

        Floor by default. With `ceil_mode` a last, partial window is added where pixels are left over, provided that it
        starts inside the image or its leading padding.
        """
        sizes = []
        for axis, n in enumerate((H, W)):
            room, stride = n + 2 * self.padding[axis] - self.extent(axis), self.stride[axis]
            count = room // stride + 1
            if self.ceil_mode and room % stride and count * stride < n + self.padding[axis]:
                count += 1
            sizes.append(count)
        return sizes[0], sizes[1]

    def taps(self, P: int, Q: int):
        """(r, s, rows, columns) for each tap of the kernel: the padded pixels that it meets in all P x Q windows."""
        for r in range(self.kernel[0]):
            for s in range(self.kernel[1]):
                top, left = r * self.dilation[0], s * self.dilation[1]
                rows = slice(top, top + (P - 1) * self.stride[0] + 1, self.stride[0])
                columns = slice(left, left + (Q - 1) * self.stride[1] + 1, self.stride[1])
                yield r, s, rows, columns

    def surround(self, H: int, W: int) -> tuple[Pair, Pair]:
        """Zeros to add (before, after) along H and W so that every window lies inside the padded image."""
        P, Q = self.output_size(H, W)
        after = [
            max(0, (count - 1) * self.stride[axis] + self.extent(axis) - n - self.padding[axis])
            for axis, (n, count) in enumerate(((H, P), (W, Q)))
        ]
        return (self.padding[0], after[0]), (self.padding[1], after[1])


class Backend:
    """NumPy, and the kernels."""

    name = "numpy"
    description = "NumPy arrays, plain array code"
    xp: Any = numpy

    def __getattr__(self, attribute: str) -> Any:  # xp.exp, xp.where, ... : the array module's own
        return getattr(self.xp, attribute)

    def prepare(self) -> None:
        """Load what the kernels need now, and fail now if it is broken."""

    def __reduce__(self) -> str:
        return "BACKEND"  # copied and pickled as the one of its kind, by that name in its module

    def asarray(self, a: Any) -> Array:
        """The array module's own array, without a copy where it is one already."""
        return self.xp.asarray(a)

    def to_numpy(self, a: Array) -> numpy.ndarray:
        """The array in the host's memory."""
        return numpy.asarray(a)

    # -- sliding windows ----------------------------------------------------
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
    def conv2d(self, x: Array, w: Array, window: Window, groups: int) -> Array:
        """y = filters @ im2col(x), group by group."""
        N, F, G = x.shape[0], w.shape[0], groups
        P, Q = window.output_size(*x.shape[2:])
        filters = w.reshape(G, F // G, -1)
        columns = self.im2col(x, window).reshape(N, G, filters.shape[2], P * Q)
        return (filters @ columns).reshape(N, F, P, Q)

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

    # -- ReLU -----------------------------------------------------------------
    def relu(self, x: Array) -> Array:
        """max(x, 0); NaN stays NaN."""
        return self.xp.maximum(x, 0)

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        """gy where the output is positive, else 0."""
        return self.xp.where(y <= 0, gy.dtype.type(0), gy)

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

    # -- local response normalisation: channels are axis 1 --------------------
    def window_sum(self, a: Array, before: int, after: int) -> Array:
        """For each channel the sum over channels c-before ... c+after, as far as they exist."""
        C = a.shape[1]
        out = self.xp.zeros_like(a)
        for shift in range(-min(before, C), min(after, C) + 1):
            to, source = slice(max(0, -shift), C - max(0, shift)), slice(max(0, shift), C - max(0, -shift))
            out[:, to] += a[:, source]
        return out

    def local_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        """y = x * scale^-beta and scale = k + alpha/size * (sum of x^2 over the `size` channels around each)."""
        scale = k + alpha / size * self.window_sum(x * x, size // 2, (size - 1) // 2)
        return x * scale**-beta, scale

    def local_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        """gx = gy * scale^-beta - 2 alpha/size beta x * (sum of gy x scale^(-beta-1) over the channels that saw x).

        A channel is seen by those whose window reaches it, so the second sum runs over the mirrored window.
        """
        shrink = scale**-beta
        seen_by = self.window_sum(gy * x * shrink / scale, (size - 1) // 2, size // 2)
        return gy * shrink - 2 * alpha / size * beta * x * seen_by

    # -- randomness, indexing -------------------------------------------------
    def dropout_mask(self, shape: tuple[int, ...], p: float, key: philox.Key, counter: philox.Counter, dtype) -> Array:
        """1/(1-p) where an element is kept, 0 where it is dropped: the same bits on every backend.

        Element i takes the i-th run of 16 bits of the Philox stream (little-endian within a word) and stays where they
        are at least p * 65536.
        """
        count = int(numpy.prod(shape))
        bits = philox.words(key, counter, -(-count // 4)).astype("<u8", copy=False).view("<u2")[:count]
        keep = bits >= philox.drop_threshold(p)
        return self.asarray(numpy.where(keep, philox.keep_scale(p), 0).astype(dtype).reshape(shape))

    def index_add(self, out: Array, index: Any, values: Array) -> Array:
        """out[index] += values, where an index that occurs twice adds twice."""
        self.xp.add.at(out, index, values)
        return out


BACKEND = Backend()
