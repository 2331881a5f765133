"""Launching a CUDA kernel: which are compiled together, and what CUDA does not check."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy

from .array_module import Array
from .number_types import is_floating, wide
from .numpy_backend import Backend

THREADS = 256  # in a block
PAPERS_SIZE = 5  # of local response normalisation: the one that has a kernel of its own
TYPES = {"float32": "float", "float64": "double", "bfloat16": "bfloat16"}

# What is compiled together: the kernels of each file, T being float, double or bfloat16.
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
    "spatial_norm.cu": ["spatial_norm<T>", "spatial_norm_gradient<T>"],
    "batch_norm.cu": [
        "batch_norm_rows<T>",
        "batch_norm_statistics<T>",
        "batch_norm<T>",
        "batch_norm_backward_rows<T>",
        "batch_norm_backward_channels<T>",
        "batch_norm_backward<T>",
    ],
    "softmax_cross_entropy.cu": ["softmax_cross_entropy<T>"],
    "dropout.cu": ["dropout_by_warp<T>"],
    "sgd.cu": ["sgd_paper<T>", "sgd_torch<T>"],
    "index_add.cu": ["index_add<T>"],
    "augment.cu": ["augment<T>"],
}


class Double(NamedTuple):
    """An array that is of double whatever T is."""

    array: Array


class CudaLauncher(Backend):
    """Launches kernels. A backend says how a file is compiled, and which array module it uses."""

    def compile(self, file: str, kernels: list[str]) -> Any:
        """The kernels with these names, compiled: an object whose get_function(name) is called as CuPy's are."""
        raise NotImplementedError(f"{type(self).__name__} must say how {file} is compiled")

    @functools.cache  # noqa: B019, since a backend lives as long as the process
    def _compiled(self, file: str, number: str) -> Any:
        return self.compile(file, [name.replace("<T", f"<{number}") for name in KERNELS[file]])

    @functools.cache  # noqa: B019, since a backend lives long, and CuPy takes its time to find a function
    def _function(self, file: str, kernel: str, number: str) -> Any:
        return self._compiled(file, number).get_function(kernel.replace("<T", f"<{number}"))

    def launch(self, file: str, kernel: str, total: int, *arguments: Any) -> None:
        """Call a kernel with at least `total` threads, and otherwise like launch_blocks."""
        self.launch_blocks(file, kernel, -(-total // THREADS), THREADS, *arguments)

    def launch_blocks(
        self, file: str, kernel: str, blocks: int | tuple[int, ...], threads: int, *arguments: Any
    ) -> None:
        """Call a kernel with so many blocks of so many threads. T is the type of the first array of fractions.

        What CUDA does not check is checked here: arrays must be contiguous, and of T, of whole numbers, or marked as
        Double; an int goes in as an int of 32 bits, a float as a Wide<T>, and NumPy's numbers as they are.
        """
        blocks = (blocks,) if isinstance(blocks, int) else blocks
        if 0 in blocks:
            return
        dtype = next((a.dtype for a in arguments if _is_array(a) and is_floating(a.dtype)), None)
        if dtype is None or dtype.name not in TYPES:
            kind = next(a.dtype for a in arguments if _is_array(a)) if dtype is None else dtype
            raise TypeError(f"{kernel}: the CUDA kernels compute in float32, float64 or bfloat16, not in {kind}")
        passed = tuple(_checked(kernel, a, dtype) for a in arguments)
        self._function(file, kernel, TYPES[dtype.name])(blocks, (threads,), passed)

    def _contiguous(self, *arrays: Array) -> list[Array]:
        return [a if a.flags.c_contiguous else self.xp.ascontiguousarray(a) for a in arrays]


def _checked(kernel: str, value: Any, dtype: numpy.dtype) -> Any:
    """An argument as it is passed on, T being the C++ type of this dtype."""
    if isinstance(value, Double):
        return _checked(kernel, value.array, numpy.dtype("float64"))
    if _is_array(value):
        if not value.flags.c_contiguous:
            raise ValueError(f"{kernel}: an array of shape {value.shape} is not contiguous")
        if is_floating(value.dtype) and value.dtype != dtype:
            raise TypeError(f"{kernel}: arrays of {dtype} and of {value.dtype}")
        return value
    if isinstance(value, float) and not isinstance(value, numpy.generic):
        return wide(dtype).type(value)
    return numpy.int32(value) if type(value) is int else value


def _is_array(value: Any) -> bool:
    return hasattr(value, "flags") and not isinstance(value, numpy.generic)
