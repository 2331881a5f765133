"""The kernels of a backend as CUDA: how each .cu file in kernels/ is launched, once, whoever runs it.

`cupy_backend` runs them on a GPU, `cuda_on_cpu_backend` compiles the same text for the CPU. Matrix products are the
array module's own.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy

from .. import philox
from .numpy_backend import Array, Backend, Window

THREADS = 256  # in a block
COLUMN_BYTES = 256 << 20  # for the columns of a convolution: as many images at a time as these hold
PAPERS_SIZE = 5  # of local response normalisation: the one that has a kernel of its own
CHANNELS_PER_WALK = 32  # as in lrn.cu
TYPES = {"float32": "float", "float64": "double"}

# What is compiled together: the kernels of each file, T being float or double.
KERNELS = {
    "im2col.cu": ["im2col<T>"],
    "col2im.cu": ["col2im<T>"],
    "max_pool.cu": ["max_pool<T>", "max_pool_gradient<T>", "max_pool_gradient_to_ties<T>"],
    "sum_pool.cu": ["sum_pool<T>", "sum_pool_gradient<T>"],
    "bias_relu.cu": ["relu<T>", "relu_gradient<T>"],
    "lrn.cu": [
        "local_response_norm<T>",
        "local_response_norm_gradient<T>",
        f"local_response_norm_walk<T, {PAPERS_SIZE}>",
        f"local_response_norm_gradient_walk<T, {PAPERS_SIZE}>",
    ],
    "dropout.cu": ["dropout_mask<T>"],
}


class CudaKernels(Backend):
    """Launches the kernels. A backend says how a file is compiled, and which array module it uses."""

    def compile(self, file: str, kernels: list[str]) -> Any:
        """The kernels with these names, compiled: an object whose get_function(name) is called as CuPy's are."""
        raise NotImplementedError(f"{type(self).__name__} must say how {file} is compiled")

    @functools.cache  # noqa: B019, since a backend lives as long as the process
    def _compiled(self, file: str, number: str) -> Any:
        return self.compile(file, [name.replace("<T", f"<{number}") for name in KERNELS[file]])

    def launch(self, file: str, kernel: str, total: int, *arguments: Any) -> None:
        """Call a kernel with at least `total` threads. T is the type of the first array.

        What CUDA does not check is checked here: arrays must be contiguous, and of T or of whole numbers; an int goes
        in as an int of 32 bits, a float as a T, and NumPy's numbers as they are.
        """
        if total == 0:
            return
        dtype = next(a.dtype for a in arguments if hasattr(a, "flags"))
        if dtype.name not in TYPES:
            raise TypeError(f"{kernel}: the CUDA kernels compute in float32 or float64, not in {dtype}")
        number = TYPES[dtype.name]
        passed = [self._argument(kernel, a, dtype) for a in arguments]
        function = self._compiled(file, number).get_function(kernel.replace("<T", f"<{number}"))
        function((-(-total // THREADS),), (THREADS,), tuple(passed))

    @staticmethod
    def _argument(kernel: str, value: Any, dtype: numpy.dtype) -> Any:
        if hasattr(value, "flags"):
            if not value.flags.c_contiguous:
                raise ValueError(f"{kernel}: an array of shape {value.shape} is not contiguous")
            if value.dtype.kind == "f" and value.dtype != dtype:
                raise TypeError(f"{kernel}: arrays of {dtype} and of {value.dtype}")
            return value
        if isinstance(value, float):
            return dtype.type(value)
        return numpy.int32(value) if type(value) is int else value

    def _contiguous(self, *arrays: Array) -> list[Array]:
        return [self.xp.ascontiguousarray(a) for a in arrays]

    # -- sliding windows ------------------------------------------------------
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
    def conv2d(self, x: Array, w: Array, window: Window, groups: int) -> Array:
        F, K = w.shape[0] // groups, math.prod(w.shape[1:])
        y = self.xp.empty((x.shape[0], w.shape[0], *window.output_size(*x.shape[2:])), x.dtype)
        filters = w.reshape(groups, F, K)
        for i, j in self._chunks(x.shape, y, window):
            columns = self._columns(x[i:j], window)
            for g in range(groups):
                product = filters[g] @ columns[g * K : (g + 1) * K].reshape(K, -1)
                y[i:j, g * F : (g + 1) * F] = product.reshape(F, j - i, *y.shape[2:]).swapaxes(0, 1)
        return y

    def conv2d_input_gradient(self, gy: Array, w: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        F, K = w.shape[0] // groups, math.prod(w.shape[1:])
        gx = self.xp.empty(shape, gy.dtype)
        filters = w.reshape(groups, F, K)
        P, Q = gy.shape[2:]
        for i, j in self._chunks(shape, gy, window):
            columns = self.xp.empty((groups * K, j - i, P * Q), gy.dtype)
            for g in range(groups):
                columns[g * K : (g + 1) * K] = (filters[g].T @ self._rows(gy[i:j], g, F)).reshape(K, j - i, P * Q)
            self._col2im(columns, gx[i:j], window, image_step=P * Q, row_step=(j - i) * P * Q)
        return gx

    def conv2d_weight_gradient(self, gy: Array, x: Array, shape: tuple[int, ...], window: Window, groups: int) -> Array:
        F, K = shape[0] // groups, math.prod(shape[1:])
        gw = self.xp.zeros((groups, F, K), x.dtype)
        for i, j in self._chunks(x.shape, gy, window):
            columns = self._columns(x[i:j], window)
            for g in range(groups):
                gw[g] += self._rows(gy[i:j], g, F) @ columns[g * K : (g + 1) * K].reshape(K, -1).T
        return gw.reshape(shape)

    def _chunks(self, shape: tuple[int, ...], y: Array, window: Window) -> list[tuple[int, int]]:
        """(first, last + 1) of the images whose columns are made at a time."""
        N, C = shape[:2]
        bytes_of_an_image = C * math.prod(window.kernel) * math.prod(y.shape[2:]) * y.itemsize
        step = max(1, COLUMN_BYTES // max(1, bytes_of_an_image))
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

    # -- ReLU -----------------------------------------------------------------
    def relu(self, x: Array) -> Array:
        (x,) = self._contiguous(x)
        y = self.xp.empty(x.shape, x.dtype)
        self.launch("bias_relu.cu", "relu<T>", x.size, x, y, numpy.int64(x.size))
        return y

    def relu_gradient(self, gy: Array, y: Array) -> Array:
        gy, y = self._contiguous(gy, y)
        gx = self.xp.empty(gy.shape, gy.dtype)
        self.launch("bias_relu.cu", "relu_gradient<T>", gy.size, gy, y, gx, numpy.int64(gy.size))
        return gx

    # -- pooling ----------------------------------------------------------------
    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        (x,) = self._contiguous(x)
        N, C, H, W = x.shape
        shape = (N, C, *window.output_size(H, W))
        y, winner = self.xp.empty(shape, x.dtype), self.xp.empty(shape, "int32")
        self.launch("max_pool.cu", "max_pool<T>", y.size, x, y, winner, N * C, *self._sizes(H, W, window))
        return y, winner

    def max_pool2d_gradient(self, gy: Array, winner: Array, shape: tuple[int, ...], window: Window) -> Array:
        gy, winner = self._contiguous(gy, winner)
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

    # -- randomness -----------------------------------------------------------
    def dropout_mask(self, shape: tuple[int, ...], p: float, key: philox.Key, counter: philox.Counter, dtype) -> Array:
        mask = self.xp.empty(shape, dtype)
        words = [numpy.uint64(word) for word in (*key, *counter)]
        threshold, scale = philox.drop_threshold(p), float(philox.keep_scale(p))
        blocks = -(-mask.size // 16)  # of Philox: four words, or sixteen elements
        self.launch("dropout.cu", "dropout_mask<T>", blocks, mask, numpy.int64(mask.size), *words, threshold, scale)
        return mask
