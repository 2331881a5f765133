"""The reference backend: every kernel in plain array code, the definition of correct.

A Backend is an array module plus the few kernels that array modules lack. Other backends subclass it and override a
kernel where they have a faster one; a kernel that is not overridden already works there. Convolution and pooling are in
numpy_windows.py, normalisation is in numpy_normalization.py, and what works element by element is here.
"""

from __future__ import annotations

from typing import Any

import numpy

from .. import philox
from .array_module import Array
from .numpy_normalization import NumpyNormalization
from .numpy_windows import NumpyWindows
from .window import Pair, Window

__all__ = ["BACKEND", "Backend", "Window"]


class Backend(NumpyWindows, NumpyNormalization):
    """NumPy, and the kernels."""

    # -- products, ReLU -------------------------------------------------------
    def matrix_product(self, a: Array, b: Array) -> Array:
        """a (M, K) @ b (K, N)."""
        return a @ b

    def relu(self, x: Array) -> Array:
        """max(x, 0); NaN stays NaN."""
        return self.xp.maximum(x, 0)

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        """gy where the output is positive, else 0."""
        return self.xp.where(y <= 0, gy.dtype.type(0), gy)

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

    # -- images, from bytes to what the network sees ------------------------------
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


BACKEND = Backend()
