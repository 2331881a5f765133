"""Many elements to one: sums, means, variances, maxima."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..backends.number_types import is_floating, wide
from ..tensor import Tensor, op
from ._arguments import axes, axis, operation

Dim = int | tuple[int, ...] | list[int] | None


def _spread(xp, g, dims: tuple[int, ...], shape: tuple[int, ...]):
    """Put the reduced dimensions back (as ones, then repeated), so that g lines up with the input."""
    kept = tuple(1 if i in dims else n for i, n in enumerate(shape))
    return xp.broadcast_to(g.reshape(kept), shape)


def _as_floats(operation: str, input: Tensor) -> Tensor:
    if not is_floating(input.data.dtype):
        raise TypeError(f"{operation}: the tensor is {input.dtype}; convert it first, with .float()")
    return input


def _total(x, dims: tuple[int, ...], keepdim: bool):
    """The sum: of whole numbers as int64, and long float32 sums by way of float64, since rounding adds up as well."""
    if not is_floating(x.dtype):
        return x.sum(axis=dims, keepdims=keepdim, dtype="int64")
    long = x.dtype == "float32" and _count(x.shape, dims) > 4096
    return x.sum(axis=dims, keepdims=keepdim, dtype="float64" if long else wide(x.dtype)).astype(x.dtype)


@operation
def sum(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The sum over the given dimensions, or over all of them."""
    return _sum(input, dims=axes("sum", dim, input.ndim), keepdim=keepdim)


@op
def _sum(xp, x, dims, keepdim):
    shape = x.shape
    return _total(x, dims, keepdim), (lambda g: _spread(xp, g, dims, shape),)


@operation
def mean(input: Tensor, dim: Dim = None, keepdim: bool = False) -> Tensor:
    """The mean over the given dimensions, or over all of them; NaN of nothing."""
    return _mean(_as_floats("mean", input), dims=axes("mean", dim, input.ndim), keepdim=keepdim)


@op
def _mean(xp, x, dims, keepdim):
    shape, count = x.shape, _count(x.shape, dims)
    total = _total(x, dims, keepdim)
    y = total / count if count else total * float("nan")
    return y, (lambda g: _spread(xp, g / (count or 1), dims, shape),)


@operation
def var(input: Tensor, dim: Dim = None, unbiased: bool = True, keepdim: bool = False) -> Tensor:
    """The variance: the mean squared distance from the mean, with n - 1 in place of n where `unbiased`.

    One element has no unbiased variance: the result is NaN, as in PyTorch.
    """
    return _var(_as_floats("var", input), dims=axes("var", dim, input.ndim), unbiased=unbiased, keepdim=keepdim)


@op
def _var(xp, x, dims, unbiased, keepdim):
    shape, n = x.shape, _count(x.shape, dims)
    distance = x - _total(x, dims, True) / (n or 1)
    weight = 1 / (n - unbiased) if n > unbiased else float("nan")
    y = _total(distance * distance, dims, keepdim) * weight
    return y, (lambda g: 2 * weight * distance * _spread(xp, g, dims, shape),)


def _count(shape: tuple[int, ...], dims: tuple[int, ...]) -> int:
    count = 1
    for i in dims:
        count *= shape[i]
    return count


@operation
def amax(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The largest element over the given dimensions; equal ones share the gradient. NaN wins."""
    return _extreme(input, dims=axes("amax", dim, input.ndim), keepdim=keepdim, largest=True)


@operation
def amin(input: Tensor, dim: Dim = (), keepdim: bool = False) -> Tensor:
    """The smallest element over the given dimensions; equal ones share the gradient. NaN wins."""
    return _extreme(input, dims=axes("amin", dim, input.ndim), keepdim=keepdim, largest=False)


@op
def _extreme(xp, x, dims, keepdim, largest):
    if any(x.shape[i] == 0 for i in dims):
        kind = "largest" if largest else "smallest"
        raise ValueError(f"shape {x.shape} has no elements along dim {dims}, so there is no {kind} one")
    y = (x.max if largest else x.min)(axis=dims, keepdims=True)

    def grad_x(g):
        tied = (x == y) | (xp.isnan(x) & xp.isnan(y))
        return _spread(xp, g, dims, x.shape) * tied / tied.sum(axis=dims, keepdims=True).astype(g.dtype)

    return y if keepdim else y.reshape([n for i, n in enumerate(x.shape) if i not in dims]), (grad_x,)


class Maximum(NamedTuple):
    """What `max` along one dimension returns."""

    values: Tensor
    indices: Tensor


@operation
def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor | Maximum:
    """Without `dim` the largest element of all (equal ones share the gradient).

    With it the largest along that dimension and where it stands: (values, indices). There the first of equal elements
    wins, and receives the whole gradient.
    """
    if dim is None:
        return amax(input, (), keepdim)
    indices = argmax(input, dim, keepdim=True)
    values = _take_along(input, indices=indices.data, dim=axis("max", dim, input.ndim))
    if not keepdim:
        where = axis("max", dim, input.ndim) if input.ndim else ()
        return Maximum(values.squeeze(where), Tensor(indices.data.squeeze(where), backend=input.backend))
    return Maximum(values, indices)


@op
def _take_along(xp, x, indices, dim):
    if not x.ndim:
        return x, (lambda g: g,)

    shape = x.shape

    def grad_x(g):
        places = xp.arange(shape[dim]).reshape([-1 if i == dim else 1 for i in range(len(shape))])
        return xp.where(places == indices, g, g.dtype.type(0))

    return xp.take_along_axis(x, indices, dim), (grad_x,)


@operation
def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Where the largest element stands, the first of equal ones. Without `dim`, counted through all elements."""
    where = None if dim is None else axis("argmax", dim, input.ndim)
    where = where if input.ndim else None
    if not (input.data.size if where is None else input.shape[where]):
        raise ValueError(f"argmax: shape {input.shape} has no elements to choose from along dim {dim}")
    return Tensor(input.data.argmax(axis=where, keepdims=keepdim), backend=input.backend)
