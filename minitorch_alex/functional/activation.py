"""What comes after a layer: nonlinearities, and scores turned into probabilities."""

from __future__ import annotations

from ..tensor import Tensor, op
from ._arguments import at_least, axis, floating, operation, tensor_of


@op
def relu(xp, x):
    """max(x, 0). AlexNet, section 3.1. The slope at 0 is 0."""
    y = xp.relu(x)
    return y, (lambda g: xp.relu_gradient(g, y),)


@op
def tanh(xp, x):
    y = xp.tanh(floating(x))
    return y, (lambda g: g * (1 - y * y),)


@op
def sigmoid(xp, x):
    """1 / (1 + e^-x), computed from e^-|x|, which cannot overflow."""
    x = floating(x)
    small = xp.exp(-xp.abs(x))
    y = xp.where(x >= 0, 1, small) / (1 + small)
    return y, (lambda g: g * y * (1 - y),)


@operation
def softmax(input: Tensor, dim: int) -> Tensor:
    """e^x / sum(e^x) along `dim`. The largest score is subtracted first: the ratio stays, and nothing overflows."""
    tensor_of("softmax", "input", input, at_least(0), "of scores")
    return _softmax(input, dim=axis("softmax", dim, input.ndim))


@op
def _softmax(xp, x, dim):
    if not x.ndim:
        return xp.ones_like(x), (lambda g: xp.zeros_like(g),)
    e = xp.exp(x - _largest(x, dim))
    y = e / e.sum(axis=dim, keepdims=True)
    return y, (lambda g: y * (g - (g * y).sum(axis=dim, keepdims=True)),)


@operation
def log_softmax(input: Tensor, dim: int) -> Tensor:
    """log(softmax(x)), exact also where softmax itself would round to 0: x - log(sum(e^x))."""
    tensor_of("log_softmax", "input", input, at_least(0), "of scores")
    return _log_softmax(input, dim=axis("log_softmax", dim, input.ndim))


@op
def _log_softmax(xp, x, dim):
    if not x.ndim:
        return xp.zeros_like(x), (lambda g: xp.zeros_like(g),)
    y = log_softmax_of(xp, x, dim)
    return y, (lambda g: g - xp.exp(y) * g.sum(axis=dim, keepdims=True),)


def log_softmax_of(xp, x, dim: int):
    """The array computation of log_softmax, which the losses share."""
    shifted = x - _largest(x, dim)
    return shifted - xp.log(xp.exp(shifted).sum(axis=dim, keepdims=True))


def _largest(x, dim: int):
    return x.max(axis=dim, keepdims=True) if x.shape[dim] else 0  # of no scores at all any number will do
