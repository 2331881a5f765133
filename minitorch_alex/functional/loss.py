"""Losses: how wrong the network is, as one number."""

from __future__ import annotations

import warnings
from typing import Any

from ..backends.number_types import is_bfloat16, is_floating
from ..tensor import Tensor, common_backend, op
from ._arguments import at_least, is_whole, operation, tensor_of
from ._labels import array_of, checked_labels, class_dim, class_weight, classes, one_hot
from .activation import log_softmax_of


@operation
def cross_entropy(
    input: Tensor,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """How surprised the softmax of the scores is at the truth: -log softmax(x)[label], in nats.

    input: scores (N, K), (N, K, d1, ...) or (K,). target: labels (N,), (N, d1, ...) or (), or probabilities shaped like
    input. A network that knows nothing scores ln K.

    weight (K,) counts classes unequally, and the mean is then the weighted one. Labels equal to ignore_index do not
    count. With label_smoothing s the truth is (1 - s) on the label plus s/K on every class.
    """
    _check_scores("cross_entropy", input, reduction)
    if is_bfloat16(input.dtype):
        input = input.to("float32")  # a loss of three digits would show no progress
    if not isinstance(label_smoothing, (int, float)):
        raise TypeError(f"cross_entropy: label_smoothing must be a number, not {label_smoothing!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing lies in [0, 1], got {label_smoothing!r}")
    xp, dim = common_backend("cross_entropy", (input, target, weight)), class_dim(input)
    theirs = array_of(target, xp)
    if is_floating(theirs.dtype):
        if is_whole(ignore_index) and ignore_index >= 0:
            raise ValueError(f"cross_entropy: ignore_index {ignore_index} is for labels, not for probabilities")
        truth = target if isinstance(target, Tensor) else Tensor(theirs, backend=xp)
        weights = None if weight is None else class_weight("cross_entropy", input, weight)
        return _of_probabilities(input, truth, weights, reduction, label_smoothing)
    labels, count = checked_labels("cross_entropy", input, theirs, ignore_index)
    if input.ndim == 2 and weight is None and not label_smoothing:
        return _softmax_cross_entropy(
            input, labels=labels, ignore_index=int(ignore_index), reduction=reduction, count=count
        )
    weights = class_weight("cross_entropy", input, weight)
    hot, counts = one_hot(input, labels, ignore_index)
    picked = hot * weights
    if weight is not None:
        count = float(picked.sum())
    if label_smoothing:  # every class matters
        hot = xp.broadcast_to(counts, input.shape)
        picked = (1 - label_smoothing) * picked + (label_smoothing / classes(input)) * hot * weights
    return _cross_entropy(input, picked, dim=dim, reduction=reduction, count=count, looked_at=hot)


def _of_probabilities(input: Tensor, truth: Tensor, weights: Any, reduction: str, label_smoothing: float) -> Tensor:
    K = classes(input)
    if truth.shape != input.shape:
        raise ValueError(
            f"cross_entropy: a target of {truth.dtype} means probabilities and must have the scores' shape "
            f"{input.shape}, got {truth.shape}; labels are whole numbers"
        )
    if label_smoothing:
        truth = truth * (1 - label_smoothing) + label_smoothing / K
    if weights is not None:
        truth = truth * Tensor(weights, backend=input.backend)
    count = input.data.size / max(K, 1)
    return _cross_entropy(input, truth, dim=class_dim(input), reduction=reduction, count=count, looked_at=True)


@op
def _softmax_cross_entropy(xp, x, labels, ignore_index, reduction, count):
    """Scores (N, K) and one label a row: loss and gradient in one pass."""
    slope = 1 / count if reduction == "mean" and count else 1
    loss, gradient = xp.softmax_cross_entropy(x, labels, ignore_index, slope)

    def grad_x(g):
        return gradient * (xp.expand_dims(g, 1) if reduction == "none" else g)

    return _reduce(loss, reduction, count), (grad_x,)


@op
def _cross_entropy(xp, x, truth, dim, reduction, count, looked_at):
    """-(truth * log softmax(x)).sum(dim). With one row's truth adding up to t, its slope is t * softmax(x) - truth.

    Scores that are not looked at may be infinite: they contribute nothing, where 0 * infinity would be NaN.
    """
    log_p = log_softmax_of(xp, x, dim)
    truth = truth.astype(x.dtype, copy=False)

    def grad_x(g):
        rows = looked_at if looked_at is True else looked_at.any(axis=dim, keepdims=True)
        g = _each(xp, g, dim, reduction, count, rows)
        return g * (truth.sum(axis=dim, keepdims=True) * xp.exp(log_p) - truth)

    def grad_truth(g):
        return -_each(xp, g, dim, reduction, count, True) * log_p

    surprise = -xp.where(looked_at, truth * log_p, x.dtype.type(0)).sum(axis=dim)
    return _reduce(surprise, reduction, count), (grad_x, grad_truth)


@operation
def nll_loss(
    input: Tensor, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """-input[label]: cross entropy of scores that have been through log_softmax. Shapes and arguments as there."""
    _check_scores("nll_loss", input, reduction)
    labels, count = checked_labels("nll_loss", input, array_of(target, input.backend), ignore_index)
    hot, _ = one_hot(input, labels, ignore_index)
    picked = hot * class_weight("nll_loss", input, weight)
    if weight is not None:
        count = float(picked.sum())
    return _nll_loss(input, picked=picked, dim=class_dim(input), reduction=reduction, count=count, looked_at=hot)


@op
def _nll_loss(xp, log_p, picked, dim, reduction, count, looked_at):
    loss = -xp.where(looked_at, picked * log_p, log_p.dtype.type(0)).sum(axis=dim)
    return _reduce(loss, reduction, count), (lambda g: -_each(xp, g, dim, reduction, count, looked_at) * picked,)


@operation
def mse_loss(input: Tensor, target: Any, *, reduction: str = "mean") -> Tensor:
    """(input - target)^2, averaged over all elements. The shapes should agree; if they do not, they broadcast."""
    _check_reduction("mse_loss", reduction)
    target = target if isinstance(target, Tensor) else Tensor(target, backend=input.backend)
    if target.shape != input.shape:
        warnings.warn(
            f"mse_loss: input {input.shape} and target {target.shape} differ, so they broadcast: "
            "probably not what you mean",
            stacklevel=3,
        )
    distance = input - target
    square = distance * distance
    return square if reduction == "none" else square.sum() if reduction == "sum" else square.mean()


# -- shared -------------------------------------------------------------------
def _check_reduction(operation: str, reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{operation}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _check_scores(operation: str, input: Tensor, reduction: str) -> None:
    tensor_of(operation, "input", input, at_least(1), "(N, K), (N, K, d1, ...) or (K,)")
    _check_reduction(operation, reduction)


def _reduce(values: Any, reduction: str, count: float) -> Any:
    if reduction == "none":
        return values
    total = values.sum()
    if reduction == "sum":
        return total
    return total / total.dtype.type(count) if count else total * float("nan")  # the mean of nothing


def _each(xp, g: Any, dim: int, reduction: str, count: float, counted: Any) -> Any:
    """The gradient that reaches each row's own loss, shaped to multiply the scores. The mean of nothing spoils it."""
    if reduction == "none":
        return xp.expand_dims(g, dim)
    if reduction == "mean":
        return g / g.dtype.type(count) if count else xp.where(counted, g * float("nan"), g.dtype.type(0))
    return g
