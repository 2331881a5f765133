"""The same elements in another arrangement: reshaping, reordering, indexing, joining, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from ..tensor import Tensor, common_backend, op
from ._arguments import KIND, axis, is_whole, number, operation


def _sizes(shape: tuple[Any, ...]) -> tuple[int, ...]:
    """`f(2, 3)` and `f((2, 3))` mean the same."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape


@operation
def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in row-major order under another shape; one size may be -1, and is then worked out."""
    for size in _sizes(shape):
        if is_whole(size) and size < -1:
            raise ValueError(f"reshape: {size} is no size in {_sizes(shape)}")
    return _reshape(input, shape=_sizes(shape))


@op
def _reshape(xp, x, shape):
    before = x.shape
    return x.reshape(shape), (lambda g: g.reshape(before),)


@operation
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions start_dim ... end_dim become one: flatten(x, 1) turns (N, C, H, W) into (N, C*H*W)."""
    first, last = axis("flatten", start_dim, input.ndim), axis("flatten", end_dim, input.ndim)
    if first > last:
        raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    size = int(numpy.prod(input.shape[first : last + 1]))
    return reshape(input, *input.shape[:first], size, *input.shape[last + 1 :])


@operation
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Drop dimensions of size 1: the given ones, or all."""
    dims = range(input.ndim) if dim is None else dim if isinstance(dim, Sequence) else (dim,)
    drop = {axis("squeeze", d, input.ndim) for d in dims}
    return reshape(input, [n for i, n in enumerate(input.shape) if n != 1 or i not in drop])


@operation
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """Insert a dimension of size 1 at `dim`."""
    at = axis("unsqueeze", dim, input.ndim + 1)
    return reshape(input, [*input.shape[:at], 1, *input.shape[at:]])


@operation
def permute(input: Tensor, *dims: Any) -> Tensor:
    """Reorder the dimensions: dimension i of the result is dimension dims[i] of the input."""
    order = tuple(axis("permute", d, input.ndim) for d in _sizes(dims))
    if sorted(order) != list(range(input.ndim)):
        raise ValueError(f"permute: {_sizes(dims)} does not name each of the {input.ndim} dimensions once")
    return _permute(input, order=order)


@op
def _permute(xp, x, order):
    back = tuple(sorted(range(len(order)), key=order.__getitem__))
    return x.transpose(order), (lambda g: g.transpose(back),)


@operation
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Swap two dimensions."""
    order = list(range(input.ndim))
    a, b = axis("transpose", dim0, input.ndim), axis("transpose", dim1, input.ndim)
    if order:
        order[a], order[b] = b, a
    return _permute(input, order=tuple(order))


@operation
def expand(input: Tensor, *sizes: Any) -> Tensor:
    """Repeat dimensions of size 1 (and new leading ones) without copying; -1 keeps a size."""
    wanted = _sizes(sizes)
    extra = len(wanted) - input.ndim
    if extra < 0 or any(n == -1 for n in wanted[:extra]):
        raise ValueError(
            f"expand: shape {input.shape} does not expand to {wanted}: new dimensions go in front, with a size"
        )
    shape = tuple(input.shape[i - extra] if n == -1 else n for i, n in enumerate(wanted))
    return _expand(input, shape=shape)


@op
def _expand(xp, x, shape):
    return xp.broadcast_to(x, shape), (lambda g: g,)  # the walk adds the copies up


@operation
def getitem(input: Tensor, index: Any) -> Tensor:
    """input[index]: whole numbers, slices, None, `...`, arrays or tensors of whole numbers or booleans."""
    parts = index if isinstance(index, tuple) else (index,)
    common_backend("getitem", (input, *parts))
    parts = tuple(_index(part) for part in parts)
    _check_arrays(input, parts)
    if len(parts) > 1 and any(hasattr(part, "dtype") for part in parts):
        return _mixed_getitem(input, parts)
    return _getitem(input, index=parts)


def _check_arrays(input: Tensor, parts: tuple[Any, ...]) -> None:
    """What not every array module reports: some count an index beyond the end from the start again.

    One that lies on a device is left unchecked, for which the device would be waited for.
    """
    arrays = [part for part in parts if hasattr(part, "dtype") and part.dtype.kind != "b"]
    try:
        numpy.broadcast_shapes(*(array.shape for array in arrays))
    except ValueError as error:
        raise IndexError(str(error)) from None
    if isinstance(input.data, numpy.ndarray):
        return  # NumPy reports the rest
    axis, taken = 0, sum(_axes_of(part) for part in parts)
    for part in parts:
        if isinstance(part, numpy.ndarray) and part.dtype.kind != "b" and part.size and axis < input.ndim:
            n, (low, high) = input.shape[axis], (int(part.min()), int(part.max()))
            if low < -n or high >= n:
                wrong = low if low < -n else high
                raise IndexError(f"index {wrong} is out of bounds for axis {axis} with size {n}")
        axis += input.ndim - taken if part is Ellipsis else _axes_of(part)


def _axes_of(part: Any) -> int:
    """How many dimensions a part of an index is about; `...` not counted."""
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if hasattr(part, "dtype") and part.dtype.kind == "b" else 1


def _mixed_getitem(input: Tensor, parts: tuple[Any, ...]) -> Tensor:
    """Whole numbers, slices and None first, then the arrays: the order of PyTorch. (NumPy counts numbers as arrays.)"""
    rest = input.ndim - sum(_axes_of(part) for part in parts)
    basic: list[Any] = []
    arrays: list[Any] = []
    for part in parts:
        if part is Ellipsis:
            basic += [slice(None)] * rest
            arrays += [slice(None)] * rest
        elif hasattr(part, "dtype"):
            basic += [slice(None)] * _axes_of(part)
            arrays.append(part)
        else:
            basic.append(part)
            arrays += [] if is_whole(part) else [slice(None)]
    return _getitem(_getitem(input, index=tuple(basic)), index=tuple(arrays))


def _index(part: Any) -> Any:
    part = part.data if isinstance(part, Tensor) else part
    if part is None or part is Ellipsis or isinstance(part, slice) or is_whole(part):
        return part
    array = part if hasattr(part, "dtype") else numpy.asarray(part)
    if array.ndim == 0 and array.dtype.kind in "iu":
        return int(array)
    if array.size == 0 and not hasattr(part, "dtype"):
        array = array.astype("int64")
    if array.dtype.kind not in "iub":
        raise TypeError(f"getitem: an index must be whole numbers or booleans, not {array.dtype}")
    return array


@op
def _getitem(xp, x, index):
    shape = x.shape
    repeats = any(hasattr(part, "dtype") and part.dtype.kind != "b" for part in index)  # may name an element twice

    def grad_x(g):
        out = xp.zeros(shape, g.dtype)
        if repeats:
            return xp.index_add(out, index, g)
        out[index] = g
        return out

    return x[index], (grad_x,)


@operation
def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors end to end along `dim`; their other sizes agree."""
    _check_tensors("cat", tensors)
    if any(not t.ndim for t in tensors):
        raise ValueError(f"cat: 0-d tensors cannot be joined end to end; use stack. Shapes: {_shapes(tensors)}")
    return _cat(*tensors, dim=axis("cat", dim, tensors[0].ndim))


@op
def _cat(xp, *arrays, dim):
    top = max(KIND[a.dtype.kind] for a in arrays)
    dtype = numpy.result_type(*(a.dtype for a in arrays if KIND[a.dtype.kind] == top))  # as in arithmetic
    ends = numpy.cumsum([a.shape[dim] for a in arrays])

    def piece(i):
        where = (slice(None),) * dim + (slice(int(ends[i]) - arrays[i].shape[dim], int(ends[i])),)
        return lambda g: g[where]

    return xp.concatenate(arrays, axis=dim, dtype=dtype), tuple(piece(i) for i in range(len(arrays)))


@operation
def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Join tensors of one shape along a new dimension."""
    _check_tensors("stack", tensors)
    if len({t.shape for t in tensors}) > 1:
        raise ValueError(f"stack: the shapes differ: {_shapes(tensors)}")
    at = axis("stack", dim, tensors[0].ndim + 1)
    return cat([unsqueeze(t, at) for t in tensors], at)


def _check_tensors(name: str, tensors: Any) -> None:
    kinds = [type(t).__name__ for t in tensors] if isinstance(tensors, Sequence) else repr(tensors)
    if not isinstance(tensors, Sequence) or not all(isinstance(t, Tensor) for t in tensors):
        raise TypeError(f"{name}: a list of Tensors is needed, not {kinds}")
    if not tensors:
        raise ValueError(f"{name}: there is nothing to join")


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(t.shape) for t in tensors)


@operation
def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = 0) -> Tensor:
    """Surround the last dimensions with `value`.

    pad = (left, right, top, bottom, ...) speaks of the last dimension first. A negative number cuts off instead.
    """
    if mode != "constant":
        raise ValueError(f"pad: mode {mode!r} is not supported, only 'constant'")
    if not isinstance(pad, Sequence) or isinstance(pad, str):
        raise TypeError(f"pad: {pad!r} must be a sequence of whole numbers, two for each padded dimension")
    value = 0 if value is None else number("pad", "value", value)
    if not len(pad):
        return input
    if len(pad) % 2 or len(pad) > 2 * input.ndim or not all(is_whole(n) for n in pad):
        raise ValueError(
            f"pad: {tuple(pad)} must be two whole numbers (before, after) for each padded dimension, the last "
            f"dimension first, and at most {input.ndim} pairs for shape {input.shape}"
        )
    around = [(0, 0)] * (input.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    for n, (before, after) in zip(input.shape, around, strict=True):
        if n + min(before, 0) + min(after, 0) < 0:
            raise ValueError(f"pad: {tuple(pad)} cuts more from shape {input.shape} than there is")
    return _pad(input, around=around, value=value)


@op
def _pad(xp, x, around, value):
    shape = x.shape
    keep = tuple(slice(max(0, -before), n - max(0, -after)) for n, (before, after) in zip(shape, around, strict=True))
    grow = [(max(0, before), max(0, after)) for before, after in around]
    inner = x[keep]
    middle = tuple(slice(before, before + n) for n, (before, _) in zip(inner.shape, grow, strict=True))

    def grad_x(g):
        out = xp.zeros(shape, g.dtype)
        out[keep] = g[middle]
        return out

    return xp.pad(inner, grow, constant_values=value), (grad_x,)
