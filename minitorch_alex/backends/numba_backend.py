"""NumPy arrays, with the kernels compiled by Numba and a batch's images shared out over the cores."""

from __future__ import annotations

import numpy

from .. import philox
from .array_module import Array
from .numba_convolution import NumbaConvolution
from .window import Window


class NumbaBackend(NumbaConvolution):
    """NumPy's arrays, faster kernels. What is not overridden here is the reference's."""

    name = "numba"

    @property
    def description(self) -> str:  # type: ignore[override]
        threads = self.pool.threads
        return f"NumPy arrays, kernels compiled by Numba, {threads} thread{'s' if threads > 1 else ''}"

    def prepare(self) -> None:
        _ = self.kernels

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


BACKEND = NumbaBackend()
