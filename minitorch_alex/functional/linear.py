"""Matrix products."""

from __future__ import annotations

import math

from ..backends.number_types import wide
from ..tensor import Tensor, op
from ._arguments import at_least, operation, optional_vector, same_dtype, tensor_of


@operation
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """(..., M, K) @ (..., K, L) -> (..., M, L); leading dimensions broadcast.

    A vector counts as one row on the left and as one column on the right, and that dimension is dropped again.
    """
    for name, t in (("input", input), ("other", other)):
        tensor_of("matmul", name, t, at_least(1), "with at least one dimension")
    same_dtype("matmul", input=input, other=other)
    inner = input.shape[-1], other.shape[max(-2, -other.ndim)]
    if inner[0] != inner[1]:
        raise ValueError(
            f"matmul: shapes {input.shape} and {other.shape} do not fit: the last size of the first, {inner[0]}, must "
            f"be the {'only' if other.ndim == 1 else 'last but one'} size of the second, {inner[1]}"
        )
    return _matmul(input, other)


@op
def _matmul(xp, x, y):
    rows = x if x.ndim > 1 else x[None, :]
    columns = y if y.ndim > 1 else y[:, None]

    def full(g):  # put back the dimensions that vectors dropped
        g = g if y.ndim > 1 else g[..., None]
        return g if x.ndim > 1 else g[..., None, :]

    def grad_x(g):
        return full(g) @ columns.swapaxes(-1, -2)

    def grad_y(g):
        gy = rows.swapaxes(-1, -2) @ full(g)
        return gy if y.ndim > 1 else gy[..., 0]

    return x @ y, (grad_x, grad_y)


@operation
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x w^T + b: input (..., I), weight (O, I), bias (O,) -> (..., O)."""
    tensor_of("linear", "input", input, at_least(1), "(..., I)")
    tensor_of("linear", "weight", weight, (2,), "(O, I)")
    optional_vector("linear", "bias", bias, weight.shape[0], "output")
    same_dtype("linear", input=input, weight=weight, bias=bias)
    if input.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"linear: input {input.shape} has {input.shape[-1]} features, but the weight {weight.shape} takes "
            f"{weight.shape[1]} (images are flattened first: x.flatten(1))"
        )
    return _linear(input, weight, bias)


@op
def _linear(xp, x, w, b):
    shape, (O, I) = x.shape, w.shape  # noqa: E741
    N = math.prod(shape[:-1])
    w = w.astype(x.dtype, copy=False)  # float32 beside a bfloat16 input, see same_dtype
    rows = x.reshape(N, I)
    y = xp.matrix_product(rows, w.T)
    if b is not None:
        y += b.astype(x.dtype, copy=False)

    def grad_x(g):
        return xp.matrix_product(g.reshape(N, O), w).reshape(shape)  # mentions no x, so a frozen layer does not keep it

    def grad_w(g):
        return xp.matrix_product(g.reshape(N, O).T, rows)

    def grad_b(g):
        return g.reshape(N, O).sum(axis=0, dtype=wide(g.dtype))

    return y.reshape(*shape[:-1], O), (grad_x, grad_w, grad_b)
