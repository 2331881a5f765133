"""Cross entropy of random scores and truths, against its definition row by row; and that against PyTorch."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from properties import (
    agree,
    changed,
    dtypes,
    evaluate,
    every_backend,
    examples,
    gradients_by_steps,
    laid_out,
    layouts,
    near,
    refused_everywhere,
    seeds,
    shared_out,
)

from minitorch_alex import Tensor
from minitorch_alex import functional as F


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install '.[peers]'")
    torch.set_num_threads(1)
    return torch


# -- the definition -----------------------------------------------------------------
def log_softmax(row):
    """log(e^x / sum(e^x)) of one row of scores, which may be complex or -infinity."""
    shifted = row - row.real.max()
    return shifted - np.log(np.exp(shifted).sum())


def rows_of(a):
    """(N, K, d1, ...) as (rows, K); (K,) is one row."""
    return np.moveaxis(a, 1, -1).reshape(-1, a.shape[1]) if a.ndim > 1 else a.reshape(1, -1)


def truths(labels, K, weight, ignore_index, smoothing):
    """What a label means, row by row: (1 - s) on its class plus s/K on every one, times the classes' weights. And by
    how much each row counts in the mean."""
    truth, counts = np.zeros((labels.size, K)), np.zeros(labels.size)
    for i, label in enumerate(labels.ravel()):
        if label != ignore_index:
            truth[i] = smoothing / K * weight
            truth[i, label] += (1 - smoothing) * weight[label]
            counts[i] = weight[label]
    return truth, counts


def cross_entropy(x, truth, counts, reduction):
    """-sum of truth * log softmax(x) for each row, of scores (rows, K); then nothing, the sum, or the mean."""
    losses = np.zeros(len(x), x.dtype)
    for i, row in enumerate(x):
        true = truth[i] != 0  # what is not true may be as improbable as it likes
        if true.any():
            losses[i] = -(truth[i][true] * log_softmax(row)[true]).sum()
    if reduction == "none":
        return losses
    count = counts.sum() if reduction == "mean" else 1
    return losses.sum() / count if count else losses.sum() * np.nan  # the mean of nothing


# -- the properties -------------------------------------------------------------------
class Scores(NamedTuple):
    """One to try."""

    shape: tuple[int, ...]  # (N, K), (N, K, d1, ...) or (K,)
    kind: str  # of truth
    weights: str
    ignore_index: int
    smoothing: float
    reduction: str
    size: float  # of the scores
    impossible: float  # so much of the classes has the score -infinity
    label_dtype: str
    dtype: str
    layouts: tuple[str, str]
    seed: int
    threads: int

    @property
    def labels_shape(self):
        return (self.shape[0], *self.shape[2:]) if len(self.shape) > 1 else ()

    def arrays(self):
        """Scores, target, class weights or None, and a cotangent."""
        random = np.random.default_rng(self.seed)
        K = self.shape[1] if len(self.shape) > 1 else self.shape[0]
        x = (self.size * random.standard_normal(self.shape)).astype(self.dtype)
        weight = {"none": None, "all": random.uniform(0.1, 3, K), "some 0": random.integers(0, 3, K)}[self.weights]
        gy = np.asarray(random.standard_normal(self.labels_shape if self.reduction == "none" else ()), self.dtype)
        if self.kind == "probabilities":
            p = random.uniform(0, 1, self.shape)
            target = (p / p.sum(axis=min(1, p.ndim - 1), keepdims=True)).astype(self.dtype)
        else:
            target = np.asarray(random.integers(0, K, self.labels_shape) if K else np.zeros(self.labels_shape))
            x[self.impossible_scores(random, target.astype(int), K)] = -np.inf
            ignored = random.random(self.labels_shape) < {"labels": 0, "some ignored": 0.4, "all ignored": 1}[self.kind]
            target = np.where(ignored, self.ignore_index, target).astype(self.label_dtype)
        weight = None if weight is None else weight.astype(self.dtype)
        return laid_out(x, self.layouts[0]), laid_out(target, self.layouts[1]), weight, gy

    def impossible_scores(self, random, labels, K):
        """Where a score may be -infinity: at no label, and where every class counts nowhere."""
        if self.smoothing or self.layouts[0].endswith("repeated") or self.layouts[1].endswith("repeated"):
            return np.zeros(self.shape, bool)
        dim = min(1, len(self.shape) - 1)
        numbers = np.arange(K).reshape((-1,) + (1,) * (len(self.shape) - 1 - dim))
        return (random.random(self.shape) < self.impossible) & (np.expand_dims(labels, dim) != numbers)

    def settings(self):
        ignore = {} if self.kind == "probabilities" else {"ignore_index": self.ignore_index}
        return {"reduction": self.reduction, "label_smoothing": self.smoothing, **ignore}


few = st.integers(0, 4)
classes = st.integers(1, 6)
scores = st.builds(
    Scores,
    shape=st.one_of(
        st.tuples(few, classes),
        st.tuples(st.integers(3, 9), classes),
        st.tuples(classes),
        st.tuples(few, classes, few),
        st.tuples(few, classes, few, few),
    ),
    kind=st.sampled_from(["some ignored", "labels", "some ignored", "all ignored", "probabilities"]),
    weights=st.sampled_from(["none", "none", "all", "some 0"]),
    ignore_index=st.sampled_from([-100, -1, 0, 255]),
    smoothing=st.sampled_from([0.0, 0.0, 0.1, 1.0]),
    reduction=st.sampled_from(["mean", "sum", "none"]),
    size=st.sampled_from([0.01, 1.0, 30.0, 1e4]),
    impossible=st.sampled_from([0, 0, 0.3]),
    label_dtype=st.sampled_from(["int64", "int64", "int32", "int16"]),
    dtype=dtypes,
    layouts=st.tuples(layouts, layouts),
    seed=seeds,
    threads=st.integers(1, 3),
)


def exactly(one, x, target, weight, gy):
    """The loss, its gradient in the scores, and how many roundings' worth of truth there is."""
    K = rows_of(x).shape[1]
    weight = np.ones(K) if weight is None else weight.astype("float64")
    if one.kind == "probabilities":
        truth = (rows_of(target).astype("float64") * (1 - one.smoothing) + one.smoothing / K) * weight
        counts = np.ones(len(truth))
    else:
        truth, counts = truths(target, K, weight, one.ignore_index, one.smoothing)
    rows = rows_of(x).astype("float64")
    with np.errstate(all="ignore"):
        loss = cross_entropy(rows, truth, counts, one.reduction)
        (gradient,) = gradients_by_steps(
            lambda rows: cross_entropy(rows, truth, counts, one.reduction), [rows], gy.astype("float64").reshape(-1)
        )
    loss = loss.reshape(one.labels_shape) if one.reduction == "none" else loss
    if len(one.shape) > 1:
        gradient = np.moveaxis(gradient.reshape(one.shape[0], *one.shape[2:], K), -1, 1)
    return loss, gradient.reshape(one.shape), truth, counts


@examples(200)
@given(scores)
def test_cross_entropy(one):
    """log p is rounded like the score's distance from the largest one plus the log of a sum; p itself like a number
    below 1 whose exponent was."""
    x, target, weight, gy = one.arrays()
    loss, gradient, truth, counts = exactly(one, x, target, weight, gy)
    finite = rows_of(x).astype("float64")
    far = np.ptp(np.where(np.isfinite(finite), finite, finite.max(initial=0)), axis=1).max(initial=0) if x.size else 0
    share = 1 / counts.sum() if one.reduction == "mean" and counts.sum() else 1
    eps = np.finfo(one.dtype).eps
    of_loss = 8 * eps * share * np.abs(truth).sum() * (1 + far + np.log(1 + truth.shape[1]))
    of_gradient = 16 * eps * share * np.abs(gy).max(initial=0) * np.abs(truth).sum(axis=1).max(initial=0)
    for backend in every_backend():
        constants = [Tensor(target, backend=backend), None if weight is None else Tensor(weight, backend=backend)]
        with shared_out(one.threads):
            y, (found,) = evaluate(backend, lambda t, c=constants: F.cross_entropy(t, *c, **one.settings()), (x,), gy)
        agree(y, loss, one.dtype, of_loss, f"{backend.name}: value")
        if np.isfinite(loss).all():  # the mean of nothing is no number, and has no gradient
            agree(found, gradient, one.dtype, of_gradient, f"{backend.name}: gradient")


@examples(40)
@given(scores)
def test_the_definition_is_pytorch_s(torch, one):
    one = one._replace(dtype="float64", label_dtype="int64")
    x, target, weight, gy = one.arrays()
    loss, gradient, *_ = exactly(one, x, target, weight, gy)
    t = torch.tensor(x.copy(), requires_grad=True)
    y = torch.nn.functional.cross_entropy(
        t, torch.tensor(target.copy()), None if weight is None else torch.tensor(weight), **one.settings()
    )
    y.backward(torch.tensor(gy))
    agree(y.detach().numpy(), loss, "float64", 1e-10 * (1 + one.size), "value")
    if np.isfinite(loss).all():
        agree(t.grad.numpy(), gradient, "float64", 1e-9, "gradient")


anything = st.integers(0, 3)
LEGAL = {"shape": (2, 3), "target": (2,), "label": 1, "dtype": "int64", "weights": 3, "ignore_index": -100}
CHANGES = {
    "shape": near(2, 3),
    "target": near(2) | near(2, 3),
    "label": st.sampled_from([0, 1, 2, 3, -1, -100]),
    "dtype": st.sampled_from(["int64", "float32", "bool"]),
    "weights": st.none() | anything,
    "ignore_index": st.sampled_from([-100, 0, 2, -1]),
}


@examples(150)
@given(changed(LEGAL, CHANGES))
def test_what_cross_entropy_refuses(one):
    shape, target, label, dtype, weights, ignore_index = one.values()

    def reason():
        if not shape:
            return "rank"
        K, labels = (shape[0], ()) if len(shape) == 1 else (shape[1], (shape[0], *shape[2:]))
        if dtype == "float32":
            return None if target == shape and weights in (None, K) and ignore_index < 0 else "probabilities"
        if dtype == "bool" or target != labels:
            return "labels"
        if np.prod(labels) and label != ignore_index and not 0 <= label < K:
            return "no such class"
        return "weights" if weights not in (None, K) else None

    def loss(backend):
        x = Tensor(np.ones(shape, "float32"), backend=backend)
        weight = None if weights is None else np.ones(weights, "float32")
        return F.cross_entropy(
            x, Tensor(np.full(target, label, dtype), backend=backend), weight, ignore_index=ignore_index
        )

    refused_everywhere("cross_entropy", loss, reason())
