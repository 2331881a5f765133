"""Response and batch normalisation of random shapes, against formulas written out; and these against PyTorch.

The formulas take complex numbers, so that `gradients_by_steps` has their gradients from values alone.
"""

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
from minitorch_alex.functional.normalization import spatial_response_norm


@pytest.fixture(scope="module")
def torch():
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install '.[peers]'")
    torch.set_num_threads(1)
    return torch


# -- the formulas -------------------------------------------------------------------
def local_response_norm(x, size, alpha, beta, k):
    """y[c] = x[c] / (k + alpha/size * sum of x[j]^2)^beta, over the `size` channels j around c that there are."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        near = [j for j in range(c - size // 2, c + (size - 1) // 2 + 1) if 0 <= j < x.shape[1]]
        y[:, c] = x[:, c] / (k + alpha / size * sum(x[:, j] ** 2 for j in near)) ** beta
    return y


def spatial_norm(x, size, alpha, beta, k):
    """y[h, w] = x[h, w] / (k + alpha/size^2 * sum of x[i, j]^2)^beta, over the size x size pixels around it."""
    y, (H, W) = np.empty_like(x), x.shape[-2:]
    for h, w in np.ndindex(H, W):
        rows = slice(max(0, h - size // 2), h + (size - 1) // 2 + 1)
        columns = slice(max(0, w - size // 2), w + (size - 1) // 2 + 1)
        energy = (x[..., rows, columns] ** 2).sum(axis=(-2, -1))
        y[..., h, w] = x[..., h, w] / (k + alpha / size**2 * energy) ** beta
    return y


def batch_norm(x, weight, bias, eps, mean=None, var=None):
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel; the batch's own mean and variance unless given."""
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        of_channel = x[:, c]
        centre = of_channel.mean() if mean is None else mean[c]
        spread = ((of_channel - centre) ** 2).mean() if var is None else var[c]
        y[:, c] = (of_channel - centre) / np.sqrt(spread + eps) * weight[c] + bias[c]
    return y


# -- response normalisation -----------------------------------------------------------
class Response(NamedTuple):
    """One to try."""

    shape: tuple[int, ...]
    size: int
    alpha: float
    beta: float
    k: float
    scale: float  # of the numbers
    dtype: str
    layouts: tuple[str, str]
    seed: int
    threads: int

    def arrays(self):
        """x and a cotangent."""
        random = np.random.default_rng(self.seed)
        x = (self.scale * random.standard_normal(self.shape)).astype(self.dtype)
        gy = random.standard_normal(self.shape).astype(self.dtype)
        return laid_out(x, self.layouts[0]), laid_out(gy, self.layouts[1])

    def settings(self):
        return {name: getattr(self, name) for name in ("size", "alpha", "beta", "k")}


def responses(*shape):
    """Of such shapes; the constants around those that AlexNet and others use."""
    numbers = {
        "size": st.integers(1, 7),
        "alpha": st.sampled_from([1e-4, 5e-4, 0.1, 1.0, 3.0]),
        "beta": st.sampled_from([0.75, 0.75, 0.5, 1.0, 0.6]),
        "k": st.sampled_from([1.0, 2.0, 0.5]),
        "scale": st.sampled_from([1e-3, 1.0, 30.0]),
    }
    more = {"dtype": dtypes, "layouts": st.tuples(layouts, layouts), "seed": seeds, "threads": st.integers(1, 3)}
    return st.builds(Response, shape=st.one_of(*shape), **numbers, **more)


few = st.integers(0, 3)
some = st.integers(1, 5)


def check_response(one, name, formula, operation, terms):
    """y is rounded like a power of a sum of so many squares. In gx each of these sums comes in once more, and no part
    of them is larger than the largest |gy| * scale^-beta: a |x[i] x[j]| is at most half the sum that holds both."""
    x, gy = one.arrays()
    exact = [x.astype("float64")]

    def of_numbers(x):
        return formula(x, **one.settings())

    expected = of_numbers(*exact)
    (gradient,) = gradients_by_steps(of_numbers, exact, gy)
    eps = np.finfo(one.dtype).eps
    largest = np.abs(expected).max(initial=0)
    slope = np.abs(gy).max(initial=0) * one.k**-one.beta * (1 + one.beta * terms)
    for backend in every_backend():
        with shared_out(one.threads):
            y, (found,) = evaluate(backend, lambda t: operation(t, **one.settings()), (x,), gy)
        agree(y, expected, one.dtype, (8 + terms) * eps * largest, f"{backend.name}, {name}: value")
        agree(found, gradient, one.dtype, (8 + terms) * eps * slope, f"{backend.name}, {name}: gradient")


@examples(40)
@given(responses(st.tuples(few, some, few), st.tuples(few, some, few, few), st.tuples(few, few, few, few, few)))
def test_local_response_norm(one):
    check_response(one, "local_response_norm", local_response_norm, F.local_response_norm, one.size)


@examples(20)
@given(responses(st.tuples(st.integers(0, 2), st.integers(0, 2), some, some), st.tuples(few, some, some)))
def test_spatial_response_norm(one):
    check_response(one, "spatial_response_norm", spatial_norm, spatial_response_norm, one.size**2)


@examples(20)
@given(responses(st.tuples(some, some, some), st.tuples(some, some, few, some)))
def test_the_formula_for_responses_is_pytorch_s(torch, one):
    x, gy = one._replace(dtype="float64").arrays()
    t = torch.tensor(x.copy(), requires_grad=True)
    y = torch.nn.functional.local_response_norm(t, **one.settings())
    y.backward(torch.tensor(gy.copy()))
    (gradient,) = gradients_by_steps(lambda x: local_response_norm(x, **one.settings()), [x], gy)
    agree(y.detach().numpy(), local_response_norm(x, **one.settings()), "float64", 1e-12 * one.scale, "value")
    agree(t.grad.numpy(), gradient, "float64", 1e-11, "gradient")


@examples(40)
@given(st.lists(few, max_size=5), st.integers(-1, 3) | st.sampled_from([2.0, None]))
def test_what_local_response_norm_refuses(shape, size):
    wrong = len(shape) < 3 or not isinstance(size, int) or size < 1
    refused_everywhere(
        "local_response_norm",
        lambda backend: F.local_response_norm(Tensor(np.ones(shape, "float32"), backend=backend), size),
        wrong,
    )


# -- batch normalisation -----------------------------------------------------------------
class Batch(NamedTuple):
    """One to try."""

    shape: tuple[int, ...]
    training: bool
    with_weight: bool
    with_bias: bool
    running: bool
    momentum: float
    eps: float
    offset: float  # of the numbers, which are spread by 1
    dtype: str
    layouts: tuple[str, str]
    seed: int

    def arrays(self):
        """x, a cotangent, and weight, bias, mean and variance."""
        random, C = np.random.default_rng(self.seed), self.shape[1]
        x = (self.offset + random.standard_normal(self.shape)).astype(self.dtype)
        gy = random.standard_normal(self.shape).astype(self.dtype)
        vectors = random.uniform(0.5, 2, (4, C)).astype(self.dtype)
        vectors[2] += self.offset
        return laid_out(x, self.layouts[0]), laid_out(gy, self.layouts[1]), *vectors


batches = st.builds(
    Batch,
    shape=st.one_of(
        st.tuples(st.integers(2, 6), few),
        st.tuples(st.integers(1, 4), few, st.integers(2, 4)),
        st.tuples(st.integers(1, 3), few, st.integers(2, 3), some),
        st.tuples(st.just(0), few, few),
    ),
    training=st.booleans(),
    with_weight=st.booleans(),
    with_bias=st.booleans(),
    running=st.booleans(),
    momentum=st.sampled_from([0.1, 0.0, 1.0, 0.7]),
    eps=st.sampled_from([1e-5, 1e-3, 1.0]),
    offset=st.sampled_from([0.0, 0.0, 3.0, -1000.0]),
    dtype=dtypes,
    layouts=st.tuples(layouts, layouts),
    seed=seeds,
)


@examples(80)
@given(batches)
def test_batch_norm(one):
    """Far from zero too a number's distance from the mean is rounded like a distance, and not like the number."""
    x, gy, weight, bias, mean, var = one.arrays()
    own, n = one.training, x.size // max(1, one.shape[1])
    running = one.running or not own
    given = (weight if one.with_weight else None, bias if one.with_bias else None)

    def of_numbers(x, weight, bias):
        return batch_norm(x, weight, bias, one.eps, *(() if own else (mean.astype("float64"), var.astype("float64"))))

    ones, zeros = np.ones(one.shape[1]), np.zeros(one.shape[1])
    exact = [a.astype("float64") for a in (x, weight if one.with_weight else ones, bias if one.with_bias else zeros)]
    expected = of_numbers(*exact) if n else np.zeros(one.shape)
    gradients = gradients_by_steps(of_numbers, exact, gy) if n else [np.zeros(one.shape), zeros, zeros]

    eps, (z, steepest) = np.finfo(one.dtype).eps, scores(one, x, mean, var)
    slopes, own_rounding = np.abs(gy).max(initial=0), 1e-15 * (3 + abs(one.offset)) * steepest  # the formula's
    tolerances = [
        slopes * 2 * steepest * (1 + z**2) * (64 * eps + own_rounding),
        (1 + n) * slopes * (16 * eps * z + own_rounding),
        16 * eps * (1 + n) * slopes,
    ]
    for backend in every_backend():
        statistics = [Tensor(a.copy(), backend=backend) if running else None for a in (mean, var)]
        y, found = evaluate(
            backend,
            lambda x, *wb, s=statistics: F.batch_norm(x, *s, *wb, own, one.momentum, one.eps),
            (x, *given),
            gy,
        )
        agree(y, expected, one.dtype, 16 * eps * (2 * z + 2) + own_rounding, f"{backend.name}: value")
        for name, a, b, tolerance in zip(("x", "weight", "bias"), found, gradients, tolerances, strict=True):
            if a is not None:
                agree(a, b, one.dtype, tolerance, f"{backend.name}: gradient of {name}")
        if running:
            check_running_statistics(one, x, (mean, var), statistics, backend.name)


def scores(one, x, mean, var):
    """The largest |z| = |x - mean| / spread, and the largest 1 / spread."""
    if not x.size:
        return 0, 1
    axes = (0, *range(2, x.ndim))
    x = x.astype("float64")
    centre, square = (x.mean(axis=axes), x.var(axis=axes)) if one.training else (mean, var)
    spread = np.sqrt(square + one.eps)
    far = np.abs(x - centre.reshape((1, -1) + (1,) * (x.ndim - 2))).max(axis=axes)
    return (far / spread).max(), (1 / spread).max()


def check_running_statistics(one, x, before, after, name):
    """In training they move by `momentum` towards the batch's mean and unbiased variance; else not at all."""
    mean, var = (a.astype("float64") for a in before)
    axes = (0, *range(2, x.ndim))
    if one.training and x.size:
        x = x.astype("float64")
        mean = (1 - one.momentum) * mean + one.momentum * x.mean(axis=axes)
        var = (1 - one.momentum) * var + one.momentum * x.var(axis=axes, ddof=1)
    eps = np.finfo(one.dtype).eps
    agree(after[0].numpy(), mean, one.dtype, 4 * eps * (3 + abs(one.offset)), f"{name}: running mean")
    of_the_mean = 1e-15 * abs(one.offset)  # which is of float64
    tolerance = 64 * eps * (1 + var.max(initial=0)) + of_the_mean
    agree(after[1].numpy(), var, one.dtype, tolerance, f"{name}: running variance")


@examples(20)
@given(batches)
def test_the_formula_for_batches_is_pytorch_s(torch, one):
    one = one._replace(dtype="float64", shape=(max(1, one.shape[0]), max(1, one.shape[1]), *one.shape[2:], 2))
    x, gy, weight, bias, mean, var = one.arrays()
    if not x.size:
        return
    own = one.training
    tensors = [torch.tensor(a.copy(), requires_grad=True) for a in (x, weight, bias)]
    statistics = [torch.tensor(mean), torch.tensor(var)]
    y = torch.nn.functional.batch_norm(tensors[0], *statistics, *tensors[1:], own, one.momentum, one.eps)
    y.backward(torch.tensor(gy.copy()))

    def of_numbers(x, weight, bias):
        return batch_norm(x, weight, bias, one.eps, *(() if own else (mean, var)))

    far = 1 + abs(one.offset)
    agree(y.detach().numpy(), of_numbers(x, weight, bias), "float64", 1e-11 * far, "value")
    for t, gradient in zip(tensors, gradients_by_steps(of_numbers, [x, weight, bias], gy), strict=True):
        agree(t.grad.numpy(), gradient, "float64", 1e-10 * far, "gradient")
    check_running_statistics(one._replace(offset=1e4), x, (mean, var), statistics, "PyTorch")


BATCH_CHANGES = {
    "shape": near(2, 2) | near(1, 2, 1, 1) | st.sampled_from([(1, 2), (1, 2, 1)]),
    **{name: st.none() | few for name in ("mean", "var", "weight", "bias")},
    "training": st.booleans(),
}


@examples(100)
@given(changed({"shape": (2, 2), "mean": 2, "var": 2, "weight": 2, "bias": 2, "training": True}, BATCH_CHANGES))
def test_what_batch_norm_refuses(one):
    shape, *vectors, training = one.values()

    def reason():
        if len(shape) < 2:
            return "rank"
        if any(size not in (None, shape[1]) for size in vectors):
            return "a vector of another length"
        if (vectors[0] is None) != (vectors[1] is None):
            return "one running statistic"
        if not training:
            return "no running statistics" if vectors[0] is None else None
        return "one value per channel" if np.prod(shape) and np.prod(shape) == shape[1] else None

    def normalise(backend):
        x, *rest = (
            None if a is None else Tensor(np.ones(a, "float32"), backend=backend) for a in (tuple(shape), *vectors)
        )
        return F.batch_norm(x, *rest, training=training)

    refused_everywhere("batch_norm", normalise, reason())
