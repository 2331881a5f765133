"""The arguments of a launch, checked against the kernel's parameters.

A launch on a GPU copies the bytes of its arguments and asks nothing. CuPy passes a Python float as 8 bytes, of which a
`float` parameter reads the first 4; it passes a transposed view as if it were the whole array in its old order; it
takes float64 where float32 is wanted. All of that ends in wrong numbers. Here it is an error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from .error import CudaOnCpuError
from .memory import Array

NUMBERS = {
    "f4": "float", "f8": "double", "i1": "signed char", "i2": "short", "i4": "int", "i8": "long long",
    "u1": "unsigned char", "u2": "unsigned short", "u4": "unsigned int", "u8": "unsigned long long", "b1": "bool",
}  # fmt: skip
MOST_THREADS = 1024  # in a block
MOST_BLOCKS = 2**31 - 1, 65535, 65535
LONGEST_BLOCK = 1024, 1024, 64


def in_words(code: str) -> str:
    """A parameter's type as C++ writes it; kernel_table.h explains the codes."""
    if code[0] in "PC":
        return ("const " if code[0] == "C" else "") + in_words(code[1:]) + "*"
    return NUMBERS.get(code, f"a type of {code[1:]} bytes")


def check(
    kernel: str, names: Sequence[str], codes: Sequence[str], values: Sequence[object]
) -> list[Array | numpy.generic]:
    """The values as what goes to the kernel: arrays, and numbers of the right width."""
    if len(values) != len(codes):
        wanted = ", ".join(names)
        raise CudaOnCpuError(f"{kernel}: {len(values)} arguments were given, but it takes {len(codes)}: {wanted}")
    checked = []
    for number, (name, code, value) in enumerate(zip(names, codes, values, strict=True)):
        try:
            checked.append(_array(code, value) if code[0] in "PC" else _number(code, value))
        except CudaOnCpuError as error:
            raise CudaOnCpuError(f"{kernel}: argument {number}, {name}, is {in_words(code)}, but {error}") from None
    return checked


def _array(code: str, value: object) -> Array | numpy.generic:
    if value is None:
        return numpy.uint64(0)  # the null pointer
    if not isinstance(value, numpy.ndarray):
        raise CudaOnCpuError(f"{_kind(value)} was given")
    wanted = code[1:]
    given = value.dtype.str[1:].replace("b", "u") if wanted == "u1" else value.dtype.str[1:]
    fits = int(wanted[1:]) % value.dtype.itemsize == 0 if wanted[0] == "s" else given == wanted
    if not fits or not value.dtype.isnative:
        raise CudaOnCpuError(f"an array of {value.dtype} was given")
    if not value.flags.c_contiguous:
        raise CudaOnCpuError(
            f"an array was given whose elements do not lie in order, such as a transposed view: "
            f"shape {value.shape}, strides {value.strides}; copy it with ascontiguousarray"
        )
    if code[0] == "P" and not value.flags.writeable:
        raise CudaOnCpuError("an array was given that may not be written")
    return value


def _number(code: str, value: object) -> numpy.generic:
    if isinstance(value, numpy.ndarray):
        raise CudaOnCpuError(f"an array of shape {value.shape} was given")
    if type(value) is int and code[0] in "iu":
        # CuPy passes 8 bytes, the first of which are the number in fewer bytes, if it fits there.
        limits = numpy.iinfo(code)
        if not limits.min <= value <= limits.max:
            raise CudaOnCpuError(f"{value} was given, which does not fit")
        return numpy.dtype(code).type(value)
    for python_type, dtype in ((bool, "b1"), (float, "f8")):
        if type(value) is python_type and code == dtype:
            return numpy.dtype(dtype).type(value)
    fits = isinstance(value, numpy.generic) and (
        value.dtype.str[1:] == code or (code[0] == "s" and value.dtype.itemsize == int(code[1:]))
    )
    if fits:
        return value  # type: ignore[return-value]
    remedy = f" (numpy.{numpy.dtype(code).name}(...) is right)" if code in NUMBERS else ""
    raise CudaOnCpuError(f"{_kind(value)} was given{remedy}")


def _kind(value: object) -> str:
    if isinstance(value, numpy.generic):
        return f"numpy.{value.dtype.name} {value}"
    return (
        f"the Python {type(value).__name__} {value}"
        if isinstance(value, bool | int | float)
        else f"a {type(value).__name__}"
    )


def check_shape(
    kernel: str, grid: Sequence[int], block: Sequence[int], most_threads: int
) -> tuple[list[int], list[int]]:
    """Grid and block in three dimensions each, within a GPU's limits. 0 blocks count as 1, as in CuPy."""
    for what, given in (("grid", grid), ("block", block)):
        if not isinstance(given, Sequence) or not 1 <= len(given) <= 3:
            raise CudaOnCpuError(f"{kernel}: the {what} must be a tuple of one to three numbers, not {given!r}")
    grid_3, block_3 = ([max(1, int(n)) if n >= 0 else int(n) for n in [*given, 1, 1][:3]] for given in (grid, block))
    for what, given, limits in (("grid", grid_3, MOST_BLOCKS), ("block", block_3, LONGEST_BLOCK)):
        if any(not 1 <= n <= most for n, most in zip(given, limits, strict=True)):
            raise CudaOnCpuError(f"{kernel}: the {what} is {tuple(given)}, but at most {limits} is possible")
    threads = block_3[0] * block_3[1] * block_3[2]
    if threads > most_threads:
        reason = "a block can have" if most_threads == MOST_THREADS else "its __launch_bounds__ allow"
        raise CudaOnCpuError(
            f"{kernel}: {threads} threads in a block, {tuple(block_3)}, but {reason} at most {most_threads}"
        )
    return grid_3, block_3
