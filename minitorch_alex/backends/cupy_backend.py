"""The backend for a GPU: CuPy's arrays, matrix products by cuBLAS, and the kernels of kernels/ compiled by NVRTC."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import cupy
import numpy

from ..cuda_on_cpu.source import read
from . import cupy_transfer
from .array_module import Array
from .cuda_kernels import CudaKernels
from .number_types import bfloat16

AMPERE = 80  # the compute capability with which tf32 and bfloat16 came, times 10
KNOWS_BFLOAT16 = 14  # the version of CuPy
AS_IT_IS, TF32 = 1, 7  # CuPy's names for them are in a private module: cupy._core._routines_linalg.COMPUTE_TYPE_...
A_PAUSE = 0.1  # seconds; CuPy keeps what it has compiled, and what it has kept is there in a few milliseconds


class CupyBackend(CudaKernels):
    """CuPy's arrays; what is computed on them runs on the GPU while Python goes on."""

    name = "cupy"
    description = "CuPy arrays, CUDA kernels"
    xp = cupy
    has_told = False  # that it compiles

    def prepare(self) -> None:
        """Compute something small, which shows whether driver, GPU and CUDA's libraries work together."""
        reason = no_gpu()
        if reason is not None:
            raise RuntimeError(reason)
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)
        self.description = f"CuPy {cupy.__version__} on {properties['name'].decode()}"
        two = cupy.ones((2, 2), "float32")
        if float(self.relu(two @ two).sum()) != 8:
            raise RuntimeError("the GPU miscalculates: see python -m minitorch_alex.doctor")

    def set_precision(self, precision: str) -> None:
        """For training (a network is evaluated in float32 in any case):

        fp32   float32 throughout
        tf32   the same, but matrix products look at only 10 of the 23 bits of fraction of what they multiply
        bf16   activations, and what products multiply and give, are bfloat16, with 7 bits; weights, what is added
               up within a product or a sum, and the loss are float32
        """
        if precision not in ("fp32", "tf32", "bf16"):
            raise ValueError(f"there is no precision {precision!r}: choose fp32, tf32 or bf16")
        capability, version = int(cupy.cuda.Device().compute_capability), int(cupy.__version__.split(".")[0])
        if precision != "fp32" and capability < AMPERE:
            raise ValueError(f"a GPU of compute capability 8.0 or more is needed, this one has {capability / 10}")
        if precision == "bf16" and version < KNOWS_BFLOAT16:
            raise ValueError(f"CuPy {KNOWS_BFLOAT16} or later is needed, this is {cupy.__version__}")
        if precision == "bf16":
            try:
                cupy.zeros(1, bfloat16())
            except (ImportError, TypeError, ValueError) as error:
                raise ValueError(f"{error} (and NumPy 2.1.2 or later)") from None
        cupy._core.set_compute_type(numpy.float32, TF32 if precision == "tf32" else AS_IT_IS)
        self.precision = precision

    def compile(self, file: str, kernels: list[str]) -> Any:
        """By NVRTC, when they are first needed; later runs find them in CuPy's cache (CuPy 13 compiles them again).

        The text holds what it includes, since CuPy knows a compiled kernel again by its text alone.
        """
        module = cupy.RawModule(code=read(file).text, options=("-std=c++17",), name_expressions=kernels)
        start = time.monotonic()
        module.get_function(kernels[0])
        if time.monotonic() - start > A_PAUSE and not self.has_told:
            self.has_told = True
            print("compiling the CUDA kernels", file=sys.stderr, flush=True)
        return module

    def asarray(self, a: Any) -> Array:
        if isinstance(a, cupy.ndarray):
            return a
        host = numpy.asarray(a)
        if host.dtype.kind in "OSUMm":
            raise TypeError(f"a tensor holds numbers or booleans, not {host.dtype}: {repr(host)[:60]}")
        return cupy.asarray(host)

    def where(self, condition: Any, x: Any, y: Any) -> Array:
        """CuPy's takes no plain True or False for the condition, and None for something else."""
        if x is None or y is None:
            raise TypeError("where: None is nothing to choose")
        return cupy.where(cupy.asarray(condition), x, y)

    def to_numpy(self, a: Array) -> numpy.ndarray:
        """A copy in the host's memory, for which the GPU is waited for."""
        return cupy.asnumpy(a)

    # -- images come from the host, while the GPU computes --------------------------
    has_own_memory = True

    def free_bytes(self) -> int:
        return cupy.cuda.Device().mem_info[0] + cupy.get_default_memory_pool().free_bytes()

    def held_bytes(self) -> int:
        return cupy.get_default_memory_pool().total_bytes()

    def give_back(self) -> None:
        cupy.get_default_memory_pool().free_all_blocks()

    def sent_ahead(self, batches: Iterable[tuple[numpy.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        return cupy_transfer.sent_ahead(batches)

    def sent_in_pieces(self, a: numpy.ndarray) -> Array:
        return cupy_transfer.sent_in_pieces(a)


def no_gpu() -> str | None:
    """Why CuPy cannot compute here; None if it finds a GPU."""
    try:
        if cupy.cuda.is_available():
            return None
    except cupy.cuda.runtime.CUDARuntimeError:  # CuPy 13, without a driver
        pass
    return (
        "CuPy is installed but finds no GPU that it can use: python -m minitorch_alex.doctor says what is missing, "
        "and numba computes without one"
    )


BACKEND = CupyBackend()
