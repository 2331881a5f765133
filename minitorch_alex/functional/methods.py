"""Which operations are also operators and methods of Tensor: `x + y` is `add(x, y)`, `x.sum()` is `sum(x)`."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from . import activation, arithmetic, linear, reduction, shape

METHODS: dict[str, Any] = {
    "__add__": arithmetic.add,
    "__radd__": lambda x, y: arithmetic.add(y, x),
    "__sub__": arithmetic.sub,
    "__rsub__": lambda x, y: arithmetic.sub(y, x),
    "__mul__": arithmetic.mul,
    "__rmul__": lambda x, y: arithmetic.mul(y, x),
    "__truediv__": arithmetic.div,
    "__rtruediv__": lambda x, y: arithmetic.div(y, x),
    "__pow__": arithmetic.pow,
    "__rpow__": lambda x, y: arithmetic.pow(y, x),
    "__neg__": arithmetic.neg,
    "__abs__": arithmetic.abs,
    "__matmul__": linear.matmul,
    "__rmatmul__": lambda x, y: linear.matmul(Tensor(y, backend=x.backend), x),
    "__getitem__": shape.getitem,
    **{
        relation: lambda x, y, relation=relation: arithmetic.compare(x, y, relation)
        for relation in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__")
    },
    **{f.__name__: f for f in (arithmetic.add, arithmetic.sub, arithmetic.mul, arithmetic.div, arithmetic.neg)},
    **{f.__name__: f for f in (arithmetic.pow, arithmetic.exp, arithmetic.log, arithmetic.sqrt, arithmetic.abs)},
    **{f.__name__: f for f in (arithmetic.maximum, arithmetic.minimum, arithmetic.clamp, arithmetic.to)},
    "float": lambda x: arithmetic.to(x, "float32"),
    "double": lambda x: arithmetic.to(x, "float64"),
    **{f.__name__: f for f in (activation.relu, activation.tanh, activation.sigmoid)},
    **{f.__name__: f for f in (activation.softmax, activation.log_softmax)},
    **{f.__name__: f for f in (reduction.sum, reduction.mean, reduction.var, reduction.max, reduction.argmax)},
    **{f.__name__: f for f in (reduction.amax, reduction.amin, linear.matmul)},
    **{f.__name__: f for f in (shape.reshape, shape.flatten, shape.squeeze, shape.unsqueeze, shape.permute)},
    **{f.__name__: f for f in (shape.transpose, shape.expand)},
    "view": shape.reshape,
    "T": property(lambda x: shape.permute(x, *reversed(range(x.ndim)))),
}

for name, function in METHODS.items():
    setattr(Tensor, name, function)
