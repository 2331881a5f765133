"""A tensor as a mere box with an array in it: what it can hold, what can be asked of it. No gradients here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy

from .backends import Backend
from .backends.number_types import BFLOAT16, bfloat16, is_bfloat16

if TYPE_CHECKING:
    from .tensor import Tensor


NUMBERS = "fd?bBhHiIlLqQ"  # float32, float64, boolean and whole numbers, as NumPy's one-letter codes


class ArrayBox:
    """An array and the backend that owns it. Tensor adds the history."""

    __slots__ = ("__weakref__", "backend", "data")
    __hash__ = object.__hash__  # == compares elements, as in NumPy; identity still decides in dicts and sets

    backend: Backend
    data: Any

    def _history(self) -> str:
        """What repr() adds about where the array came from."""
        return ""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> numpy.dtype:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    def numel(self) -> int:
        """How many numbers it holds."""
        return self.data.size

    def numpy(self) -> numpy.ndarray:
        """The values as a NumPy array: the same memory on a CPU backend, so treat it as read-only."""
        return self.backend.to_numpy(self.data)

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.data.size != 1:
            raise ValueError(f"item() needs exactly one element, this tensor has shape {self.shape}")
        return self.numpy().item()

    def __repr__(self) -> str:
        values = numpy.array2string(self.numpy(), separator=", ", prefix="tensor(", threshold=200)
        return f"tensor({values}, {self.dtype} on {self.backend.name}{self._history()})"

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("a 0-d tensor cannot be iterated over; item() gives its value")
        return (self[i] for i in range(self.shape[0]))

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"the truth value of a tensor of shape {self.shape} is ambiguous: use .numpy().any() or .all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return numpy.array(self.numpy(), dtype=dtype, copy=copy)

    if TYPE_CHECKING:  # attached by functional/methods.py

        def __getattr__(self, name: str) -> Callable[..., Any]: ...
        def __getitem__(self, index: Any) -> Tensor: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __rmatmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...


def number_type(operation: str, dtype: Any) -> numpy.dtype:
    """The dtype called `dtype`, if tensors can have it."""
    if dtype == BFLOAT16:
        return bfloat16()
    try:
        found = numpy.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not _can_be_held(found):
        raise TypeError(
            f"{operation}: {dtype} is no dtype of a tensor: use float32, float64, whole numbers or booleans"
        )
    return found


def _can_be_held(dtype: numpy.dtype) -> bool:
    return dtype.char in NUMBERS or is_bfloat16(dtype)


def checked_numbers(array: Any) -> Any:
    """The array, if it holds what a tensor can hold; in the machine's own byte order."""
    dtype = array.dtype
    if not _can_be_held(dtype):
        raise TypeError(f"a tensor holds float32, float64, whole numbers or booleans, not {dtype}: {repr(array)[:60]}")
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def explain(name: str, inputs: Any, settings: Any, error: Exception) -> None:
    """Raise the same error saying in which operation and of what (shapes of arrays), unless it says so already."""
    if str(error).startswith(name):
        return
    given = " and ".join(str(a.shape) if hasattr(a, "shape") else " ".join(repr(a).split())[:60] for a in inputs)
    given += "".join(f", {key}={repr(value)[:60]}" for key, value in settings.items() if not hasattr(value, "shape"))
    kind: type[Exception] = TypeError
    if isinstance(error, (ValueError, OverflowError)):
        kind = ValueError
    elif isinstance(error, IndexError):
        kind = IndexError
    raise kind(f"{name} of {given}: {error}") from error
