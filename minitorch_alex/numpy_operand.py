"""What NumPy does with a Tensor that it meets: `array + tensor` is the tensor's own +, and numpy.sum reads values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from .array_box import ArrayBox

REFLECTED = {  # what `array + tensor` asks of the tensor, by NumPy's name for +
    "add": "__radd__", "subtract": "__rsub__", "multiply": "__rmul__", "divide": "__rtruediv__", "power": "__rpow__",
    "matmul": "__rmatmul__", "equal": "__eq__", "not_equal": "__ne__", "less": "__gt__", "less_equal": "__ge__",
    "greater": "__lt__", "greater_equal": "__le__",
}  # fmt: skip


class NumPyOperand(ArrayBox):
    """An array box as NumPy's functions and operators see it."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        """NumPy calls this for `array + tensor`; and for numpy.exp(tensor), whose result could know no gradient."""
        operator = REFLECTED.get(ufunc.__name__) if method == "__call__" and not settings else None
        if operator is None or isinstance(inputs[0], ArrayBox):
            raise TypeError(
                f"numpy.{ufunc.__name__} does not compute with Tensors: use operators (x + y, x > 0) and the functions "
                "of minitorch_alex.functional, or .numpy() for the plain values"
            )
        return getattr(self, operator)(inputs[0])

    def __array_function__(self, function: Callable, types: Any, inputs: Any, settings: Any) -> Any:
        """NumPy calls this for numpy.sum(tensor) and its like. They get plain values, of what requires no gradient."""
        return function(*_plain_values(inputs), **_plain_values(settings))


def _plain_values(given: Any) -> Any:
    """What a function was given, with arrays in the place of tensors, also in lists of them."""
    if isinstance(given, ArrayBox):
        return numpy.asarray(given)
    if isinstance(given, tuple):
        return tuple(map(_plain_values, given))
    if isinstance(given, list):
        return list(map(_plain_values, given))
    if isinstance(given, dict):
        return {name: _plain_values(value) for name, value in given.items()}
    return given
