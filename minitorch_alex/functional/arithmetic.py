"""Element by element: arithmetic with broadcasting, powers, roots, logarithms, choices."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..array_box import number_type
from ..backends.number_types import is_floating
from ..tensor import Tensor, common_backend, op
from ._arguments import KIND, floating, number, operation


def op_of_two(function: Callable) -> Callable[..., Tensor]:
    """`op` for two operands, which are first brought to a common dtype (`_match`, at the end of this file)."""

    @op
    @functools.wraps(function)
    def matched(xp, *operands, **by_name):
        if by_name or len(operands) != 2:
            raise TypeError(f"{function.__name__}: takes 2 inputs, by position")
        return function(xp, *_match(*operands))

    return matched


@op_of_two
def add(xp, x, y):
    return x + y, (lambda g: g, lambda g: g)


@op_of_two
def sub(xp, x, y):
    return x - y, (lambda g: g, lambda g: -g)


@op_of_two
def mul(xp, x, y):
    return x * y, (lambda g: g * y, lambda g: g * x)


@op_of_two
def div(xp, x, y):
    x, y = floating(x), floating(y)
    quotient = x / y
    return quotient, (lambda g: g / y, lambda g: -g * quotient / y)


@op
def neg(xp, x):
    if x.dtype == "bool":
        raise TypeError("neg: booleans have no negative")
    return -x, (lambda g: -g,)


@op_of_two
def pow(xp, x, exponent):
    """x ** exponent. At 0 ** 0 the slope in x is 0, and where x = 0 that in the exponent is 0, as in PyTorch."""
    if isinstance(exponent, int) and exponent < 0 and not is_floating(x.dtype):
        raise ValueError("whole numbers have no negative powers: convert with .float()")
    y = x**exponent

    def grad_x(g):
        return xp.where(exponent == 0, 0 * g, g * exponent * x ** xp.where(exponent == 0, 1, exponent - 1))

    def grad_exponent(g):
        return xp.where((x == 0) & (exponent >= 0), 0 * g, g * y * xp.log(x))

    return y, (grad_x, grad_exponent)


@op
def exp(xp, x):
    y = xp.exp(floating(x))
    return y, (lambda g: g * y,)


@op
def log(xp, x):
    x = floating(x)
    return xp.log(x), (lambda g: g / x,)


@op
def sqrt(xp, x):
    y = xp.sqrt(floating(x))
    return y, (lambda g: g / (2 * y),)


@op
def abs(xp, x):
    """|x|; the slope at 0 is 0."""
    return xp.abs(x), (lambda g: g * xp.sign(x),)


@op_of_two
def maximum(xp, x, y):
    """The larger of two, NaN if either is. Where they are equal each receives half of the gradient."""
    return xp.maximum(x, y), (lambda g: _unless(xp, x < y, x == y, g), lambda g: _unless(xp, y < x, x == y, g))


@op_of_two
def minimum(xp, x, y):
    """The smaller of two, NaN if either is. Where they are equal each receives half of the gradient."""
    return xp.minimum(x, y), (lambda g: _unless(xp, x > y, x == y, g), lambda g: _unless(xp, y > x, x == y, g))


def _unless(xp, lost, tied, g):
    """0 where this operand lost, half of g where it tied, else g."""
    return xp.where(lost, g.dtype.type(0), xp.where(tied, g / 2, g))


@operation
def clamp(input: Tensor, min: float | None = None, max: float | None = None) -> Tensor:
    """Limit every element to [min, max]; at the limits themselves the gradient still passes."""
    if min is None and max is None:
        raise ValueError("clamp: give min, max or both")
    low, high = (limit if limit is None else number("clamp", "min or max", limit) for limit in (min, max))
    return _clamp(input, low=low, high=high)


@op
def _clamp(xp, x, low, high):
    for limit in (low, high):
        x, _ = _match(x, limit)
    y = x if low is None else xp.maximum(x, low)
    y = y if high is None else xp.minimum(y, high)
    inside = ((x >= low) if low is not None else True) & ((x <= high) if high is not None else True)
    return y, (lambda g: g * inside,)


@operation
def where(condition: Any, input: Any, other: Any) -> Tensor:
    """`input` where the condition (booleans: a tensor or an array) holds, `other` elsewhere."""
    xp = common_backend("where", (condition, input, other))
    chosen = condition.data if isinstance(condition, Tensor) else condition
    if not isinstance(chosen, bool) and getattr(chosen, "dtype", None) != "bool":
        raise TypeError("where: the condition must be booleans, such as x > 0")
    return _where(input, other, condition=xp.asarray(chosen))


@op
def _where(xp, x, y, condition):
    x, y = _match(x, y)
    chosen = xp.where(condition, x, y)
    if not hasattr(x, "dtype") and not hasattr(y, "dtype") and chosen.dtype == "float64":
        chosen = chosen.astype("float32")  # Python's floats, as in tensor()
    return chosen, (
        lambda g: xp.where(condition, g, g.dtype.type(0)),
        lambda g: xp.where(condition, g.dtype.type(0), g),
    )


@operation
def to(input: Tensor, dtype: Any) -> Tensor:
    """The same values as another dtype; the gradient comes back in the old one. Whole numbers carry none."""
    found = number_type("to", dtype)
    return _to(input if is_floating(found) else input.detach(), dtype=found)


@op
def _to(xp, x, dtype):
    return x.astype(dtype), (lambda g: g,)


@operation
def compare(input: Tensor, other: Any, relation: str) -> Tensor:
    """`input` relation `other`, element by element: a boolean tensor, without a gradient."""
    common_backend(relation, (input, other))
    theirs = other.data if isinstance(other, Tensor) else other
    answer = getattr(input.data, relation)(input.backend.asarray(theirs) if hasattr(theirs, "shape") else theirs)
    if answer is NotImplemented or isinstance(other, complex):
        raise TypeError(f"compare: a tensor has no {relation.strip('_')} with {other!r}")
    return Tensor(answer, backend=input.backend)


def _match(x: Any, y: Any) -> tuple[Any, Any]:
    """Bring two operands to PyTorch's common dtype where NumPy would choose another.

    Booleans follow whole numbers and those floating-point ones (float32 * int64 stays float32), and within a kind a 0-d
    operand follows one with dimensions. Python numbers follow whatever they meet, in NumPy as in PyTorch.
    """
    a, b = getattr(x, "dtype", None), getattr(y, "dtype", None)
    if a == b:
        return x, y
    if a is None or b is None:  # a Python number
        if isinstance(x, float) and b.kind != "f":  # type: ignore[union-attr]
            return x, y.astype("float32")
        if isinstance(y, float) and a.kind != "f":  # type: ignore[union-attr]
            return x.astype("float32"), y
        if isinstance(y, int) and a == "bool" and not isinstance(y, bool):
            return x.astype("int64"), y
    elif KIND[a.kind] < KIND[b.kind] or (KIND[a.kind] == KIND[b.kind] and y.ndim and not x.ndim):
        return x.astype(b), y
    elif KIND[b.kind] < KIND[a.kind] or (x.ndim and not y.ndim):
        return x, y.astype(a)
    return x, y
