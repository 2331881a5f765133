"""The CUDA kernels on a CPU: the text that a GPU would run, thread by thread, slowly and under watch.

For tests, and for learners without a GPU. See minitorch_alex/cuda_on_cpu.
"""

from __future__ import annotations

from typing import Any

from ..cuda_on_cpu import CudaOnCpuError, load, why_not
from .cuda_kernels import CudaKernels


class CudaOnCpuBackend(CudaKernels):
    """NumPy's arrays, the kernels compiled by g++."""

    name = "cuda_on_cpu"
    description = "NumPy arrays, CUDA kernels compiled for the CPU"

    def prepare(self) -> None:
        reason = why_not()
        if reason is not None:
            raise CudaOnCpuError(reason)

    def compile(self, file: str, kernels: list[str]) -> Any:
        return load(file, kernels)


BACKEND = CudaOnCpuBackend()
