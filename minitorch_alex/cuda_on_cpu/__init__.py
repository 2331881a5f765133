"""CUDA kernels without a GPU: the text of a .cu file, compiled by g++ and run thread by thread.

    from minitorch_alex.cuda_on_cpu import empty, load

    kernel = load("vector_add.cu").get_function("vector_add<float>")
    a, b, sum = numpy.ones(1000, "float32"), numpy.ones(1000, "float32"), empty(1000)
    kernel((4,), (256,), (a, b, sum, 1000))

It is called as CuPy's kernels are, on NumPy arrays. It finds what a GPU would not tell: an index too far, a missing
barrier, two threads that write the same place, memory that nobody has written, a number of the wrong width. It tells
nothing about speed, and nothing that runs here is thereby proven on a GPU (shim/cuda_on_cpu.h says what is missing).

`python -m minitorch_alex.cuda_on_cpu` is the same for the hand. It needs Linux and g++; `why_not()` says
what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .compiler import why_not
from .error import CudaOnCpuError
from .kernel import FORWARD, ORDERS, REVERSE, Conditions, Kernel, Module, orders
from .memory import empty
from .source import kernel_folder, read

__all__ = [
    "FORWARD",
    "ORDERS",
    "REVERSE",
    "CudaOnCpuError",
    "Kernel",
    "Module",
    "empty",
    "kernel_folder",
    "load",
    "orders",
    "why_not",
]


def load(
    file_or_text: str | Path,
    name_expressions: Sequence[str] | None = None,
    *,
    options: Sequence[str] = (),
    order: int = FORWARD,
    guard: str = "end",
    race: bool = False,
) -> Module:
    """The kernels of a .cu file: a path, the name of one in the folder of kernels, or CUDA text.

    name_expressions are the kernels to compile, such as ["im2col<float>"]; None means all, templates of one type at
    float and at double, others as the file's comment `// instances:` says. What is not among them is compiled when
    it is asked for. order, guard and race are those of `Conditions`; options go to g++.
    """
    return Module(read(file_or_text), name_expressions, options, Conditions(order, guard, race))
