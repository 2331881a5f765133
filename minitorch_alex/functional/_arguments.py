"""Reading what callers may write in several ways, and saying clearly what is wrong with it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import numpy

from ..array_box import explain
from ..backends.number_types import BFLOAT16, is_floating
from ..backends.window import Pair, Window
from ..tensor import Tensor

KIND = {"b": 0, "u": 1, "i": 1, "f": 2}  # booleans give way to whole numbers, and those to floating-point ones
Function = TypeVar("Function", bound=Callable)


def operation(function: Function) -> Function:
    """Mark a public operation: an error that leaves it names it and what it was given. Its `input` must be a Tensor."""
    name, takes_input = function.__name__, next(iter(inspect.signature(function).parameters)) == "input"

    @functools.wraps(function)
    def named(*inputs: Any, **settings: Any) -> Any:
        if takes_input and inputs and not isinstance(inputs[0], Tensor):
            raise TypeError(f"{name}: input must be a Tensor, not {type(inputs[0]).__name__}: tensor(...) makes one")
        try:
            return function(*inputs, **settings)
        except (ValueError, TypeError, IndexError, AttributeError, KeyError, OverflowError) as error:
            explain(name, inputs, settings, error)
            raise

    return cast(Function, named)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, Python's or NumPy's, and not True or False."""
    return isinstance(value, (int, numpy.integer)) and not isinstance(value, bool)


def pair(operation: str, name: str, value: Any, least: int) -> Pair:
    """One whole number for both axes, or two: (vertical, horizontal)."""
    both = (value, value) if is_whole(value) else value
    if not (isinstance(both, Sequence) and len(both) == 2 and all(is_whole(v) for v in both)):
        raise TypeError(f"{operation}: {name} must be a whole number or a pair of them, not {value!r}")
    if not least <= min(both) <= max(both) < 2**31:
        raise ValueError(f"{operation}: {name} must be at least {least} and below 2^31, not {value!r}")
    return int(both[0]), int(both[1])


def axis(operation: str, dim: Any, ndim: int) -> int:
    """A dimension counted from the front; -1 means the last."""
    if not is_whole(dim):
        raise TypeError(f"{operation}: dim must be a whole number, not {dim!r}")
    ndim = max(ndim, 1)  # a 0-d tensor counts as one-dimensional here, as in PyTorch
    if not -ndim <= dim < ndim:
        raise IndexError(f"{operation}: dim {dim} is out of range for {ndim} dimensions ({-ndim} to {ndim - 1})")
    return int(dim) % ndim


def axes(operation: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions to reduce over: None or () means all of them."""
    if dim is None or (isinstance(dim, Sequence) and not len(dim)):
        return tuple(range(ndim))
    wanted = [axis(operation, d, ndim) for d in ([dim] if is_whole(dim) or not isinstance(dim, Sequence) else dim)]
    if len(set(wanted)) < len(wanted):
        raise ValueError(f"{operation}: dim {dim} names a dimension twice")
    return tuple(wanted) if ndim else ()


def probability(operation: str, p: Any) -> float:
    """A number in [0, 1]."""
    if not isinstance(p, (int, float)):
        raise TypeError(f"{operation}: p must be a number, not {p!r}")
    if not 0 <= p <= 1:
        raise ValueError(f"{operation}: p is the probability of dropping an element, so it lies in [0, 1]; got {p!r}")
    return float(p)


def number(operation: str, name: str, value: Any, above: float | None = None) -> Any:
    """One real number, perhaps above a limit; as a Python number."""
    if not isinstance(value, (int, float, numpy.number)) or isinstance(value, (bool, numpy.complexfloating)):
        raise TypeError(f"{operation}: {name} must be a number, not {value!r}")
    if above is not None and not value > above:
        raise ValueError(f"{operation}: {name} must be above {above:g}, not {value!r}")
    return value.item() if isinstance(value, numpy.generic) else value


def optional_vector(operation: str, name: str, value: Any, size: int, meaning: str) -> None:
    """Insist on None or a Tensor of shape (size,)."""
    if value is None:
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{operation}: {name} must be a Tensor or None, not {type(value).__name__}")
    if value.shape != (size,):
        raise ValueError(f"{operation}: {name} must have shape ({size},), one per {meaning}, got {value.shape}")


@functools.cache
def at_least(dims: int) -> range:
    """That many dimensions or more, up to the 64 that NumPy has."""
    return range(dims, 65)


def tensor_of(operation: str, name: str, value: Any, dims: Sequence[int], layout: str) -> Tensor:
    """Insist on a floating-point Tensor with one of the numbers of dimensions given."""
    if not isinstance(value, Tensor):
        kind = type(value).__name__
        raise TypeError(f"{operation}: {name} must be a Tensor {layout}, not {kind}: tensor(...) makes one")
    if not is_floating(value.data.dtype):
        raise TypeError(f"{operation}: {name} is {value.dtype}; convert it first, with .float()")
    if value.data.ndim not in dims:
        raise ValueError(f"{operation}: {name} must be {layout}, got shape {value.shape}")
    return value


def floating(x: Any) -> Any:
    """Whole numbers become float32, as in PyTorch."""
    return x if not hasattr(x, "dtype") or is_floating(x.dtype) else x.astype("float32")


def same_dtype(operation: str, **tensors: Tensor | None) -> None:
    """PyTorch mixes float32 and float64 in arithmetic but not in layers; neither do we.

    A bfloat16 input goes with weights of float32, which the layer rounds for itself: to train, they need all digits.
    """
    if len({t.dtype for t in tensors.values() if t is not None}) == 1:
        return  # as nearly always; a dtype's name, which the rest goes by, takes microseconds to find
    found = {name: str(t.dtype) for name, t in tensors.items() if t is not None}
    if found["input"] == BFLOAT16:
        found = {name: BFLOAT16 if dtype == "float32" else dtype for name, dtype in found.items()}
    if len(set(found.values())) > 1:
        listing = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise TypeError(f"{operation}: the inputs differ in dtype ({listing}): convert with .float() or .double()")


def pooling_window(
    operation: str, shape: tuple[int, ...], kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
) -> Window:
    """The window of a pooling operation over images of `shape` (..., H, W)."""
    kernel = pair(operation, "kernel_size", kernel_size, 1)
    if not isinstance(ceil_mode, bool):
        raise TypeError(f"{operation}: ceil_mode must be True or False, not {ceil_mode!r}")
    window = Window(
        kernel,
        pair(operation, "stride", stride, 1) if stride is not None else kernel,
        pair(operation, "padding", padding, 0),
        pair(operation, "dilation", dilation, 1),
        ceil_mode,
    )
    for i, name in enumerate(("height", "width")):
        pad = window.padding[i]
        if 2 * pad > kernel[i]:
            raise ValueError(
                f"{operation}: padding {pad} is more than half of the {name} of the kernel ({kernel[i]}), "
                "so some windows would see padding only"
            )
    check_fits(operation, shape, window)
    return window


def check_fits(operation: str, shape: tuple[int, ...], window: Window) -> None:
    """Refuse a window larger than the padded image."""
    H, W = shape[-2:]
    if not H or not W:
        raise ValueError(f"{operation}: the input {shape} has no pixels")
    if min(window.output_size(H, W)) < 1:
        padded = (H + 2 * window.padding[0], W + 2 * window.padding[1])
        raise ValueError(
            f"{operation}: the window spans {window.extent(0)} x {window.extent(1)} pixels "
            f"(kernel {window.kernel}, dilation {window.dilation}), more than the input {H} x {W} has with "
            f"padding {window.padding}: {padded[0]} x {padded[1]}. Use a smaller kernel, more padding or a larger input"
        )
