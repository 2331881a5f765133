"""Losses: how wrong the network is, as one number."""

from __future__ import annotations

import warnings
from typing import Any

from ..tensor import Tensor, common_backend, op
from ._arguments import at_least, is_whole, operation, tensor_of
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
    if not isinstance(label_smoothing, (int, float)):
        raise TypeError(f"cross_entropy: label_smoothing must be a number, not {label_smoothing!r}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing lies in [0, 1], got {label_smoothing!r}")
    xp, K, dim = common_backend("cross_entropy", (input, target, weight)), _classes(input), _class_dim(input)
    class_weight = _class_weight("cross_entropy", input, weight)
    theirs = (target if isinstance(target, Tensor) else Tensor(target, backend=xp)).data
    if theirs.dtype.kind == "f":
        if theirs.shape != input.shape:
            raise ValueError(
                f"cross_entropy: a target of {theirs.dtype} means probabilities and must have the scores' shape "
                f"{input.shape}, got {theirs.shape}; labels are whole numbers"
            )
        truth = target if isinstance(target, Tensor) else Tensor(theirs, backend=xp)
        if label_smoothing:
            truth = truth * (1 - label_smoothing) + label_smoothing / K
        if weight is not None:
            truth = truth * Tensor(class_weight, backend=xp)
        count = input.data.size / max(K, 1)
        return _cross_entropy(input, truth, dim=dim, reduction=reduction, count=count, looked_at=True)
    hot, counts = _one_hot("cross_entropy", input, theirs, ignore_index)
    picked = hot * class_weight
    count = float(picked.sum())
    if label_smoothing:  # every class matters
        hot = xp.broadcast_to(xp.expand_dims(counts, dim), input.shape)
        picked = (1 - label_smoothing) * picked + (label_smoothing / K) * hot * class_weight
    return _cross_entropy(input, picked, dim=dim, reduction=reduction, count=count, looked_at=hot)


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
    theirs = (target if isinstance(target, Tensor) else Tensor(target, backend=input.backend)).data
    hot, _ = _one_hot("nll_loss", input, theirs, ignore_index)
    picked, dim = hot * _class_weight("nll_loss", input, weight), _class_dim(input)
    return _nll_loss(input, picked=picked, dim=dim, reduction=reduction, count=float(picked.sum()), looked_at=hot)


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
def _class_dim(input: Tensor) -> int:
    return 0 if input.ndim == 1 else 1


def _classes(input: Tensor) -> int:
    return input.shape[_class_dim(input)]


def _check_reduction(operation: str, reduction: str) -> None:
    if reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{operation}: reduction must be 'none', 'mean' or 'sum', not {reduction!r}")


def _check_scores(operation: str, input: Tensor, reduction: str) -> None:
    tensor_of(operation, "input", input, at_least(1), "(N, K), (N, K, d1, ...) or (K,)")
    _check_reduction(operation, reduction)


def _class_weight(operation: str, input: Tensor, weight: Any) -> Any:
    """The class weights, shaped to multiply the scores; all ones if there are none."""
    xp, K = input.backend, _classes(input)
    if weight is None:
        return xp.ones((), input.dtype)
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise TypeError(f"{operation}: there is no gradient for the class weights; detach() them first")
    try:
        values = (weight if isinstance(weight, Tensor) else Tensor(weight, backend=xp)).data.astype(input.dtype)
    except TypeError as error:
        raise TypeError(f"{operation}: weight: {error}") from None
    if values.shape != (K,):
        raise ValueError(f"{operation}: weight must hold one number per class, shape ({K},), got {values.shape}")
    return values.reshape((K,) + (1,) * (input.ndim - 1 - _class_dim(input)))


def _one_hot(operation: str, input: Tensor, labels: Any, ignore_index: int) -> tuple[Any, Any]:
    """Booleans: each label's class, shaped like the scores; and which labels count, shaped like the labels."""
    if not is_whole(ignore_index):
        raise TypeError(f"{operation}: ignore_index must be a whole number, not {ignore_index!r}")
    xp, K, dim = input.backend, _classes(input), _class_dim(input)
    expected = input.shape[:dim] + input.shape[dim + 1 :]
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{operation}: labels must be whole numbers, got {labels.dtype}")
    if labels.shape != expected:
        raise ValueError(f"{operation}: scores {input.shape} need labels of shape {expected}, got {labels.shape}")
    labels = labels.astype("int64")
    counts = labels != ignore_index
    wrong = counts & ((labels < 0) | (labels >= K))
    if wrong.any():
        first = int(labels[wrong].reshape(-1)[0])
        raise IndexError(f"{operation}: label {first} is out of range: there are {K} classes, 0 to {K - 1}")
    classes = xp.arange(K).reshape((K,) + (1,) * (input.ndim - 1 - dim))
    hot = (xp.expand_dims(labels, dim) == classes) & xp.expand_dims(counts, dim)
    return hot, counts


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
