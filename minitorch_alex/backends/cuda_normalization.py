"""Response normalisation across channels and across pixels, and batch normalisation, by CUDA kernels."""

from __future__ import annotations

import math

import numpy

from .array_module import Array
from .cuda_launcher import PAPERS_SIZE, THREADS, CudaLauncher, Double

CHANNELS_PER_WALK = 32  # as in lrn.cu


class CudaNormalization(CudaLauncher):
    """The part of a CUDA backend that normalises."""

    # -- local response normalisation: channels are axis 1 ------------------------
    def local_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        (x,) = self._contiguous(x)
        y, scale = self.xp.empty(x.shape, x.dtype), self.xp.empty(x.shape, x.dtype)
        numbers = float(alpha), float(beta), float(k)
        self._normalise("local_response_norm", (x, y, scale), size, numbers)
        return y, scale

    def local_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        gy, x, scale = self._contiguous(gy, x, scale)
        gx = self.xp.empty(x.shape, x.dtype)
        self._normalise("local_response_norm_gradient", (gy, x, scale, gx), size, (float(alpha), float(beta)))
        return gx

    def _normalise(self, kernel: str, arrays: tuple[Array, ...], size: int, numbers: tuple[float, ...]) -> None:
        """By one thread a pixel for the paper's size, and for others by one thread an element."""
        x = arrays[0]
        if not x.size:
            return
        N, C, M = x.shape[0], x.shape[1], x[0, 0].size
        if size == PAPERS_SIZE:
            walks = N * -(-C // CHANNELS_PER_WALK) * M
            name = f"{kernel}_walk<T, {PAPERS_SIZE}>"
            self.launch("lrn.cu", name, walks, *arrays, C, M, numpy.int64(walks), *numbers)
        else:
            self.launch("lrn.cu", f"{kernel}<T>", x.size, *arrays, C, M, numpy.int64(x.size), size, *numbers)

    # -- spatial response normalisation: pixels are the last two axes -------------
    def spatial_response_norm(self, x: Array, size: int, alpha: float, beta: float, k: float) -> tuple[Array, Array]:
        (x,) = self._contiguous(x)
        y, scale = self.xp.empty(x.shape, x.dtype), self.xp.empty(x.shape, x.dtype)
        sizes = *x.shape[-2:], numpy.int64(x.size), size
        self.launch(
            "spatial_norm.cu", "spatial_norm<T>", x.size, x, y, scale, *sizes, float(alpha), float(beta), float(k)
        )
        return y, scale

    def spatial_response_norm_gradient(self, gy, x, scale, size: int, alpha: float, beta: float) -> Array:
        gy, x, scale = self._contiguous(gy, x, scale)
        gx = self.xp.empty(x.shape, x.dtype)
        sizes = *x.shape[-2:], numpy.int64(x.size), size
        arrays = gy, x, scale, gx
        self.launch("spatial_norm.cu", "spatial_norm_gradient<T>", x.size, *arrays, *sizes, float(alpha), float(beta))
        return gx

    # -- batch normalisation: one block of threads for the pixels of one channel of one image, a *row* ----------
    def batch_norm_statistics(self, x: Array, eps: float) -> tuple[Array, Array, Array]:
        (x,) = self._contiguous(x)
        N, C, pixels = _sizes(x)
        rows = Double(self._doubles(N * C)), Double(self._doubles(N * C))  # means, and squared distances from them
        self.launch_blocks("batch_norm.cu", "batch_norm_rows<T>", N * C, _threads(pixels), x, *rows, pixels)
        mean, var, spread = self._doubles(C), self._doubles(C), self.xp.empty((C,), x.dtype)
        channels = Double(mean), Double(var), spread, N, C, pixels, numpy.float64(eps)
        self.launch_blocks("batch_norm.cu", "batch_norm_statistics<T>", C, _threads(N), *rows, *channels)
        return mean, var, spread

    def batch_norm(self, x: Array, mean: Array, spread: Array, weight: Array | None, bias: Array | None) -> Array:
        N, C, pixels = _sizes(x)
        weight = self.xp.ones((C,), x.dtype) if weight is None else weight
        bias = self.xp.zeros((C,), x.dtype) if bias is None else bias
        x, spread, weight, bias = self._contiguous(x, spread, weight, bias)
        y = self.xp.empty(x.shape, x.dtype)
        arguments = x, self._as_double(mean), spread, weight, bias, y, C, pixels
        self.launch_blocks("batch_norm.cu", "batch_norm<T>", N * C, _threads(pixels), *arguments)
        return y

    def batch_norm_gradients(
        self, gy: Array, x: Array, mean: Array, spread: Array, weight: Array | None, of_the_batch: bool
    ) -> tuple[Array, Array, Array]:
        N, C, pixels = _sizes(x)
        gy, x, spread = self._contiguous(gy, x, spread)
        z_of = x, self._as_double(mean), spread
        rows = Double(self._doubles(N * C)), Double(self._doubles(N * C))  # sums of gy and of gy * z
        arguments = gy, *z_of, *rows, C, pixels
        self.launch_blocks("batch_norm.cu", "batch_norm_backward_rows<T>", N * C, _threads(pixels), *arguments)
        gb, gw, mean_gy, mean_gy_z = (self.xp.empty((C,), x.dtype) for _ in range(4))
        channels = gb, gw, mean_gy, mean_gy_z, N, C, pixels
        self.launch_blocks("batch_norm.cu", "batch_norm_backward_channels<T>", C, _threads(N), *rows, *channels)
        if not of_the_batch:
            mean_gy, mean_gy_z = self.xp.zeros((C,), x.dtype), self.xp.zeros((C,), x.dtype)
        (weight,) = self._contiguous(self.xp.ones((C,), x.dtype) if weight is None else weight)
        gx = self.xp.empty(x.shape, x.dtype)
        whole = gy, *z_of, weight, mean_gy, mean_gy_z, gx, C, pixels
        self.launch_blocks("batch_norm.cu", "batch_norm_backward<T>", N * C, _threads(pixels), *whole)
        return gx, gw, gb

    def _doubles(self, count: int) -> Array:
        return self.xp.empty((count,), "float64")

    def _as_double(self, mean: Array) -> Double:
        return Double(self.xp.ascontiguousarray(mean, "float64"))


def _sizes(x: Array) -> tuple[int, int, int]:
    """N, C and the number of pixels of x (N, C, ...)."""
    return x.shape[0], x.shape[1], math.prod(x.shape[2:])


def _threads(count: int) -> int:
    """How many threads of a block share out so many elements: a power of two."""
    return min(THREADS, 1 << max(0, count - 1).bit_length())
