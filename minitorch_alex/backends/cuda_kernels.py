"""The kernels of a backend as CUDA: how each .cu file in kernels/ is launched, once, whoever runs it.

`cupy_backend` runs them on a GPU, `cuda_on_cpu_backend` compiles the same text for the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy

from .. import philox
from .array_module import Array
from .cuda_launcher import THREADS
from .cuda_normalization import CudaNormalization
from .cuda_windows import CudaWindows
from .number_types import is_floating
from .window import Pair

WARP = 32  # threads that share a row of scores
PER_PHILOX_BLOCK = 16  # elements that a thread of dropout decides about


class CudaKernels(CudaWindows, CudaNormalization):
    """All that a CUDA backend overrides: windows and normalisation from beside, and what works element by element."""

    # -- ReLU -----------------------------------------------------------------
    def relu(self, x: Array) -> Array:
        if not is_floating(x.dtype):
            return super().relu(x)
        (x,) = self._contiguous(x)
        y = self.xp.empty(x.shape, x.dtype)
        self.launch("bias_relu.cu", "relu<T>", x.size, x, y, numpy.int64(x.size))
        return y

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        gy, y = self._contiguous(gy, y)
        gx = self.xp.empty(gy.shape, gy.dtype)
        self.launch("bias_relu.cu", "relu_gradient<T>", gy.size, gy, y, gx, numpy.int64(gy.size))
        return gx

    # -- loss: scores x (N, K) of K classes ---------------------------------------
    def softmax_cross_entropy(self, x: Array, labels: Array, ignore_index: int, slope: float) -> tuple[Array, Array]:
        (x,), labels = self._contiguous(x), self.xp.ascontiguousarray(labels, "int64")
        N, K = x.shape
        loss, gradient = self.xp.empty((N,), x.dtype), self.xp.empty(x.shape, x.dtype)
        arguments = x, labels, loss, gradient, N, K, numpy.int64(ignore_index), float(slope)
        self.launch("softmax_cross_entropy.cu", "softmax_cross_entropy<T>", N * WARP, *arguments)
        return loss, gradient

    # -- one step of the optimizer: weight w, gradient g, velocity v --------------
    def sgd_paper(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float
    ) -> tuple[Array, Array]:
        v = self.xp.zeros(w.shape, w.dtype) if v is None else v
        w, g, v, new = self._for_a_step(w, g, v)
        rates = float(lr), float(momentum), float(decay * lr)
        self.launch("sgd.cu", "sgd_paper<T>", w.size, w, g, v, new, *rates, numpy.int64(w.size))
        return new, v

    def sgd_torch(
        self, w: Array, g: Array, v: Array | None, lr: float, momentum: float, decay: float, dampening: float,
        nesterov: bool,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        room = v if v is not None else self.xp.empty(w.shape if momentum else (0,), w.dtype)
        w, g, room, new = self._for_a_step(w, g, room)
        rates = float(lr), float(momentum), float(decay), float(1 - dampening)
        arguments = *rates, int(nesterov), int(v is None), numpy.int64(w.size)
        self.launch("sgd.cu", "sgd_torch<T>", w.size, w, g, room, new, *arguments)
        return new, room if momentum else v

    def _for_a_step(self, w: Array, g: Array, v: Array) -> tuple[Array, ...]:
        """Weight, gradient and velocity as the kernels take them, and room for the new weight."""
        g = self.xp.broadcast_to(self.xp.asarray(g, w.dtype), w.shape)
        return *self._contiguous(w, g, v), self.xp.empty(w.shape, w.dtype)

    # -- randomness -----------------------------------------------------------
    def dropout(self, x: Array, p: float, key: philox.Key, counter: philox.Counter, form: str) -> Array:
        (x,) = self._contiguous(x)
        y = self.xp.empty(x.shape, x.dtype)
        words = [numpy.uint64(word) for word in (*key, *counter)]
        scale = float(philox.keep_scale(p)) if form == "torch" else 1.0
        arguments = x, y, numpy.int64(x.size), *words, philox.drop_threshold(p), scale
        self.launch("dropout.cu", "dropout_by_warp<T>", -(-x.size // PER_PHILOX_BLOCK), *arguments)
        return y

    # -- images, indexing -------------------------------------------------------
    def augment(
        self, images: Array, which: Array, tops: Array, lefts: Array, mirrored: Array, size: Pair, fill: int,
        mean: Array, std: Array, shift: Array, divisor: float,
    ) -> Array:  # fmt: skip
        N, (C, H, W), (P, Q) = len(which), images.shape[1:], size
        y = self.xp.empty((N, C, P, Q), mean.dtype)
        places = (self.xp.ascontiguousarray(a, "int32") for a in (which, tops, lefts))
        arrays = *self._contiguous(images), *places, *self._contiguous(mirrored, mean, std, shift)
        numbers = C, H, W, P, Q, fill, int(mean.shape[1:] == size), float(divisor)
        blocks = N * C, -(-P * Q // THREADS)
        self.launch_blocks("augment.cu", "augment<T>", blocks, THREADS, *arrays, y, *numbers)
        return y

    def index_add(self, out: Array, index: Any, values: Array) -> Array:
        places = self.xp.arange(out.size).reshape(out.shape)[index]  # where each value goes
        count = places.size
        if count:
            (values,) = self._contiguous(self.xp.broadcast_to(values, places.shape))
            keys = self.xp.sort(places.reshape(-1) * count + self.xp.arange(count))
            sizes = numpy.int64(out.size), numpy.int64(count)
            self.launch("index_add.cu", "index_add<T>", out.size, out, keys, values, *sizes)
        return out
