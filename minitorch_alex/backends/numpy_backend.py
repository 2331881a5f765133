"""The reference backend: every kernel in plain array code, the definition of correct.

A Backend is an array module plus the few kernels that array modules lack. Other backends subclass it and override a
kernel where they have a faster one; a kernel that is not overridden already works there.

Letters: N images, C channels, H x W pixels, F filters of R x S taps, P x Q outputs, G groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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

    precision = "fp32"

    def set_precision(self, precision: str) -> None:
        """How training computes from now on: "fp32", and where the hardware can "tf32" or "bf16". Else a ValueError."""
        if precision != "fp32":
            raise ValueError(f"the {self.name} backend computes in fp32 only; tf32 and bf16 are for cupy")

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

    def conv2d_buffers(self, images: int, columns: int, output: int, weight: int, groups: int) -> tuple[int, int]:
        """Bytes that the gradients of a convolution need beside what they are given and return: (kept, passing).

        columns and output: bytes of the columns and of the output of one image; weight: bytes of the filters. Here it
        is the columns of the whole batch, and to multiply them one group's columns and outputs, laid out once more.
        """
        return 0, images * (columns + (columns + output) // groups)

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

    # -- spatial response normalisation: pixels are the last two axes ---------
    def spatial_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        """y = x * scale^-beta and scale = k + alpha/size^2 * (sum of x^2 over the size x size pixels around each)."""
        scale = k + alpha / size**2 * self._pixel_sum(x * x, size // 2, (size - 1) // 2)
        return x * scale**-beta, scale

    def spatial_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        """As across channels: the second sum runs over the pixels whose windows reach this one."""
        shrink = scale**-beta
        seen_by = self._pixel_sum(gy * x * shrink / scale, (size - 1) // 2, size // 2)
        return gy * shrink - 2 * alpha / size**2 * beta * x * seen_by

    def _pixel_sum(self, a: Array, before: int, after: int) -> Array:
        """For each pixel the sum over rows h-before ... h+after and columns w-before ... w+after."""
        rows = self.window_sum(a.swapaxes(1, -2), before, after).swapaxes(1, -2)
        return self.window_sum(rows.swapaxes(1, -1), before, after).swapaxes(1, -1)

    # -- batch normalisation: channels are axis 1, z = (x - mean) / spread ----
    def batch_norm_statistics(self, x: Array, eps: float) -> tuple[Array, Array, Array]:
        """mean and (biased) var of each channel in float64, and spread = sqrt(var + eps) in x's dtype; all (C,)."""
        axes = (0, *range(2, x.ndim))
        mean = x.mean(axis=axes, dtype="float64")
        var = (_distance(x, mean) ** 2).mean(axis=axes, dtype="float64")
        return mean, var, self.xp.sqrt(var + eps).astype(x.dtype)

    def batch_norm(self, x: Array, mean: Array, spread: Array, weight: Array | None, bias: Array | None) -> Array:
        """y = z * weight + bias; weight and bias are (C,), or None for 1 and 0."""
        y = _distance(x, mean) / _per_channel(spread, x)
        y = y if weight is None else y * _per_channel(weight, x)
        return y if bias is None else y + _per_channel(bias, x)

    def batch_norm_gradients(
        self, gy: Array, x: Array, mean: Array, spread: Array, weight: Array | None, of_the_batch: bool
    ) -> tuple[Array, Array, Array]:
        """gx, and the sums over each channel of gy * z and of gy: the gradients of weight and bias.

        Where mean and spread are those `of_the_batch`, they move with x, and what a shift and a stretch of the whole
        batch would do is taken out of gx.
        """
        axes, values = (0, *range(2, x.ndim)), x.size // max(1, x.shape[1])  # in a channel
        z = _distance(x, mean) / _per_channel(spread, x)
        gw, gb = (gy * z).sum(axis=axes), gy.sum(axis=axes)
        gx = gy
        if of_the_batch:
            gx = gy - _per_channel(gb, x) / max(1, values) - z * (_per_channel(gw, x) / max(1, values))
        gain = 1 / spread if weight is None else weight / spread
        return gx * _per_channel(gain, x), gw, gb

    # -- loss: scores x (N, K) of K classes -----------------------------------
    def softmax_cross_entropy(self, x: Array, labels: Array, ignore_index: int, slope: float) -> tuple[Array, Array]:
        """loss (N,) = -log softmax(x)[label], and `slope` times the gradient of its sum: softmax(x) - one-hot(label).

        labels (N,) of int64: 0 ... K-1, or ignore_index for a row that does not count, with loss 0 and gradient 0.
        """
        largest = x.max(axis=1, keepdims=True) if x.shape[1] else 0
        shifted = x - largest  # the ratios stay, and nothing overflows
        log_p = shifted - self.xp.log(self.xp.exp(shifted).sum(axis=1, keepdims=True))
        counts = labels[:, None] != ignore_index
        hot = (labels[:, None] == self.xp.arange(x.shape[1])) & counts
        loss = -self.xp.where(hot, log_p, x.dtype.type(0)).sum(axis=1)
        return loss, self.xp.where(counts, x.dtype.type(slope), x.dtype.type(0)) * (self.xp.exp(log_p) - hot)

    # -- one step of the optimizer: weight w, gradient g, velocity v ----------
    def sgd_paper(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float
    ) -> tuple[Array, Array]:
        """v <- m v - d e w - e g, w <- w + v: the new w in an array of its own, and v, which is changed in place.

        The old w stays: a tape that is not consumed yet still needs it. v is None at first, for zeros.
        """
        v = self.xp.zeros_like(w) if v is None else v
        v *= momentum
        if decay:
            v -= (decay * lr) * w
        v -= lr * g
        return w + v, v

    def sgd_torch(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float, dampening: float,
        nesterov: bool,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """v <- m v + (1 - dampening) (g + d w), w <- w - e v; nesterov: w <- w - e (g + d w + m v). w and v as above.

        At first (v is None) v = g + d w. Without momentum there is no v: w <- w - e (g + d w).
        """
        g = g + decay * w if decay else g
        if momentum:
            if v is None:
                v = self.asarray(g).copy()
            else:
                v *= momentum
                v += (1 - dampening) * g
            g = g + momentum * v if nesterov else v
        return w - lr * g, v

    # -- images on their way from the host ------------------------------------
    has_own_memory = False  # to which images have to be sent

    def free_bytes(self) -> int:
        """How much of a memory of its own is free."""
        return 0

    def held_bytes(self) -> int:
        """How much of it is taken: by arrays, and by what is kept in stock for more."""
        return 0

    def give_back(self) -> None:
        """Give back what is kept in stock."""

    def sent_ahead(self, batches: Iterable[tuple[numpy.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        """The batches as arrays of this backend, each to be used before the next is asked for."""
        return (tuple(self.asarray(array) for array in batch) for batch in batches)

    def sent_in_pieces(self, a: numpy.ndarray) -> Array:
        """A large array as one of this backend."""
        return self.asarray(a)

    def augment(
        self,
        images: Array,
        which: Array,
        tops: Array,
        lefts: Array,
        mirrored: Array,
        size: Pair,
        fill: int,
        mean: Array,
        std: Array,
        shift: Array,
        divisor: float,
    ) -> Array:
        """Crop, mirror, normalise and shift the colours of the images with the numbers `which` (N,).

        images uint8 (count, C, H, W) -> (N, C, P, Q), with (P, Q) = size. tops, lefts, mirrored: (N,). Pixels outside
        an image are `fill`. The result is ((pixel - mean) / std + shift) / divisor; mean (C, 1, 1) or (C, P, Q), std
        (C, 1, 1), shift (N, C), all of the result's dtype.
        """
        (C, H, W), (P, Q), xp = images.shape[1:], size, self.xp
        rows, columns = tops[:, None] + xp.arange(P), lefts[:, None] + xp.arange(Q)
        columns = xp.where(mirrored[:, None] != 0, columns[:, ::-1], columns)
        inside = ((rows >= 0) & (rows < H))[:, None, :, None] & ((columns >= 0) & (columns < W))[:, None, None, :]
        rows, columns = xp.clip(rows, 0, H - 1)[:, None, :, None], xp.clip(columns, 0, W - 1)[:, None, None, :]
        pixels = images[which[:, None, None, None], xp.arange(C)[None, :, None, None], rows, columns]
        x = (xp.where(inside, pixels, numpy.uint8(fill)) - mean) / std
        return (x + shift[:, :, None, None]) / x.dtype.type(divisor)

    # -- randomness, indexing -------------------------------------------------
    def dropout(self, x: Array, p: float, key: philox.Key, counter: philox.Counter, form: str) -> Array:
        """x times the mask: kept elements times 1/(1-p) in the form "torch", as they are in the form "paper"."""
        mask = self.dropout_mask(x.shape, p, key, counter, x.dtype)
        return x * (mask if form == "torch" else (mask != 0).astype(x.dtype))

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


def _per_channel(a: Array, x: Array) -> Array:
    """One number per channel (C,), shaped to meet x (N, C, ...)."""
    return a.reshape((1, -1) + (1,) * (x.ndim - 2))


def _distance(x: Array, mean: Array) -> Array:
    """x - mean, with the digits of the mean that x's own dtype has no room for."""
    mean = _per_channel(mean, x)
    rounded = mean.astype(x.dtype)
    return (x - rounded) - (mean - rounded).astype(x.dtype)


BACKEND = Backend()
