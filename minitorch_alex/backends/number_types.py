"""bfloat16 beside the types that NumPy knows: numbers that are the upper half of a float32 (kernels/bfloat16.cuh)."""

from __future__ import annotations

import numpy

BFLOAT16 = "bfloat16"


def bfloat16() -> numpy.dtype:
    """The type as the package ml_dtypes brings it."""
    try:
        import ml_dtypes
    except ImportError:
        raise ImportError("bfloat16 needs the package ml_dtypes: python -m pip install ml_dtypes") from None
    return numpy.dtype(ml_dtypes.bfloat16)


def is_bfloat16(dtype: numpy.dtype) -> bool:
    """NumPy only knows it by hearsay: to it, it is neither a whole number nor a fraction."""
    return dtype.itemsize == 2 and dtype.name == BFLOAT16  # a name takes a microsecond to find


def is_floating(dtype: numpy.dtype) -> bool:
    """Whether it is a type of floating-point numbers, so that there can be gradients."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def wide(dtype: numpy.dtype) -> numpy.dtype:
    """The type in which to add up numbers of this one, and to keep what must not be rounded: Wide<T> of the kernels."""
    return numpy.dtype("float32") if is_bfloat16(dtype) else dtype
