"""What the losses are told about the truth: labels, which of them count, and how much each class weighs."""

from __future__ import annotations

from typing import Any

import numpy

from ..array_box import checked_numbers
from ..backends.numpy_backend import BACKEND as HOST
from ..tensor import Tensor
from ._arguments import is_whole


def class_dim(input: Tensor) -> int:
    """The dimension of the scores (N, K), (N, K, d1, ...) or (K,) along which the classes lie."""
    return 0 if input.ndim == 1 else 1


def classes(input: Tensor) -> int:
    """K."""
    return input.shape[class_dim(input)]


def array_of(target: Any, xp: Any) -> Any:
    """The target as an array, where it is: what is no array of the backend's own stays in the host's memory."""
    if isinstance(target, Tensor):
        return target.data
    if isinstance(target, numpy.ndarray):
        return checked_numbers(target)
    return Tensor(target, backend=xp if isinstance(target, xp.ndarray) else HOST).data


def checked_labels(operation: str, input: Tensor, labels: Any, ignore_index: int) -> tuple[Any, float]:
    """The labels as int64 on the scores' backend, and how many of them count.

    They are checked and counted where they are: of those that come from the host's memory a GPU is asked nothing, and
    so nobody waits for it.
    """
    if not is_whole(ignore_index):
        raise TypeError(f"{operation}: ignore_index must be a whole number, not {ignore_index!r}")
    K, dim = classes(input), class_dim(input)
    expected = input.shape[:dim] + input.shape[dim + 1 :]
    if labels.dtype.kind not in "iu":
        raise TypeError(f"{operation}: labels must be whole numbers, got {labels.dtype}")
    if labels.shape != expected:
        raise ValueError(f"{operation}: scores {input.shape} need labels of shape {expected}, got {labels.shape}")
    labels = labels.astype("int64")
    counts = labels != ignore_index
    wrong = counts & (labels.view("uint64") >= K)  # where a negative number is a huge one
    if _how_many(wrong):
        first = int(labels[wrong].reshape(-1)[0])
        raise IndexError(f"{operation}: label {first} is out of range: there are {K} classes, 0 to {K - 1}")
    return input.backend.asarray(labels), _how_many(counts)


def _how_many(booleans: Any) -> int:
    """The number of those that are true, wherever they are. NumPy counts faster than it adds up."""
    return int(numpy.count_nonzero(booleans) if isinstance(booleans, numpy.ndarray) else booleans.sum())


def one_hot(input: Tensor, labels: Any, ignore_index: int) -> tuple[Any, Any]:
    """Booleans: each label's class, shaped like the scores; and which labels count, shaped to meet the scores."""
    xp, dim = input.backend, class_dim(input)
    labels = xp.expand_dims(labels, dim)
    counts = labels != ignore_index
    numbers = xp.arange(classes(input)).reshape((-1,) + (1,) * (input.ndim - 1 - dim))
    return (labels == numbers) & counts, counts


def class_weight(operation: str, input: Tensor, weight: Any) -> Any:
    """The class weights, shaped to multiply the scores; all ones if there are none."""
    xp, K = input.backend, classes(input)
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
    return values.reshape((K,) + (1,) * (input.ndim - 1 - class_dim(input)))
