"""Every operation against PyTorch: the same values, shapes, dtypes and gradients, in the awkward corners too.

`agree(f, *arrays)` runs the same f(F, *tensors) with both libraries, in float64 and again in float32, and sends the
same random cotangent back through both. Everything runs on each backend.
"""

from __future__ import annotations

import itertools
import math
import random
import warnings

import numpy
import pytest

from minitorch_alex import Tensor, nn, optim, tensor
from minitorch_alex import functional as F
from minitorch_alex.tensor import no_grad

torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install '.[peers]'")

torch.set_num_threads(1)
pytestmark = [  # what PyTorch itself warns of
    pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0:UserWarning"),
    pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning"),
]

NAN, INF = math.nan, math.inf
FLOATS = ("float64", "float32")


@pytest.fixture(autouse=True)
def _on_each_backend(backend):
    """Everything here runs on every backend."""


@pytest.fixture
def quiet():
    """NumPy warns of infinities and NaNs where PyTorch says nothing; here they are what is tested."""
    with numpy.errstate(all="ignore"):
        yield


class TorchFunctions:
    """PyTorch's functions under one roof, as in minitorch_alex.functional."""

    def __getattr__(self, name):
        home = torch if name in ("sigmoid", "tanh") else torch.nn.functional
        return getattr(home, name) if hasattr(home, name) else getattr(torch, name)


T = TorchFunctions()


def normal(*shape, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape)


def same(got, expected, what="value"):
    """A Tensor (or array) of ours and a tensor of theirs are equal, shape and dtype included."""
    got = got.numpy() if isinstance(got, Tensor) else numpy.asarray(got)
    expected = expected.detach().numpy()
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, PyTorch {expected.shape}"
    assert got.dtype == expected.dtype, f"{what}: {got.dtype}, PyTorch {expected.dtype}"
    if expected.dtype.kind != "f":
        numpy.testing.assert_array_equal(got, expected, err_msg=what)
        return
    finite = numpy.abs(expected[numpy.isfinite(expected)])
    tolerance = 2e-5 if expected.dtype == "float32" else 1e-11
    numpy.testing.assert_allclose(
        got, expected, rtol=10 * tolerance, atol=tolerance * max(1.0, finite.max(initial=0.0)), err_msg=what
    )


def compare(f, *arrays, gradients=True):
    """The same f(F, *tensors) with both, as the arrays stand: values, then gradients of every floating input."""
    arrays = [numpy.asarray(a) for a in arrays]
    ours = [Tensor(a.copy(), requires_grad=a.dtype.kind == "f") for a in arrays]
    theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    y, expected = f(F, *ours), f(T, *theirs)
    same(y, expected)
    assert y.requires_grad == expected.requires_grad
    if not (gradients and expected.requires_grad):
        return
    cotangent = normal(*expected.shape, seed=1).astype(y.dtype)
    y.backward(cotangent)
    expected.backward(torch.tensor(cotangent))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if b.grad is not None:
            zeros = numpy.zeros(a.shape, a.dtype)
            same(zeros if a.grad is None else a.grad, b.grad, f"gradient of input {i}")
        else:
            assert a.grad is None or not a.grad.numpy().any(), f"gradient of input {i}: PyTorch has none"


def agree(f, *arrays, gradients=True):
    """`compare` with the float64 inputs as they are, and once more in float32."""
    arrays = [numpy.asarray(a) for a in arrays]
    for dtype in FLOATS:
        compare(f, *(a.astype(dtype) if a.dtype == "float64" else a for a in arrays), gradients=gradients)


def settings(**choices):
    """All combinations of keyword arguments."""
    return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]


def ids(value):
    return (
        str(value).replace(" ", "") if not isinstance(value, dict) else ",".join(f"{k}={v}" for k, v in value.items())
    )


# -- convolution ----------------------------------------------------------------
CONVOLUTIONS = [
    *settings(stride=[1, 2, (2, 3)], padding=[0, 1, (2, 1), "valid"], dilation=[1, 2, (1, 2)]),
    *settings(padding=["same"], dilation=[1, 2, (3, 1)]),
    {"stride": [2, 1], "padding": [1, 0], "dilation": [1, 2]},
    {"stride": numpy.int64(2), "padding": numpy.int32(1)},
    {"stride": 5, "padding": 4},
]


@pytest.mark.parametrize("kw", CONVOLUTIONS, ids=ids)
def test_conv2d(kw):
    agree(lambda F, x, w, b: F.conv2d(x, w, b, **kw), normal(2, 4, 7, 8), normal(6, 4, 3, 2), normal(6))


@pytest.mark.parametrize("kernel", [(1, 1), (2, 2), (4, 3), (2, 5), (6, 1)], ids=ids)
@pytest.mark.parametrize("dilation", [1, 2, (1, 3)], ids=ids)
def test_conv2d_same_keeps_the_size(kernel, dilation):
    agree(lambda F, x, w: F.conv2d(x, w, padding="same", dilation=dilation), normal(2, 3, 7, 8), normal(2, 3, *kernel))


@pytest.mark.parametrize(("groups", "channels", "filters"), [(2, 4, 6), (4, 4, 4), (4, 4, 8), (3, 6, 3)])
def test_conv2d_groups(groups, channels, filters):
    x, w = normal(2, channels, 5, 6), normal(filters, channels // groups, 3, 3)
    agree(lambda F, x, w, b: F.conv2d(x, w, b, stride=2, padding=1, groups=groups), x, w, normal(filters))


@pytest.mark.parametrize(
    ("shape", "kernel", "kw"),
    [
        ((4, 7, 8), (3, 2), {"padding": 1}),
        ((4, 7, 8), (2, 2), {"padding": "same"}),
        ((0, 4, 7, 8), (3, 2), {"stride": 2}),
        ((2, 4, 1, 1), (3, 3), {"padding": 1}),
        ((2, 4, 3, 2), (3, 2), {}),
        ((2, 4, 9, 9), (1, 1), {"stride": 3}),
        ((2, 4, 2, 2), (3, 3), {"stride": 4, "padding": 4, "dilation": 2}),
        ((1, 4, 5, 1), (1, 1), {}),
    ],
    ids=ids,
)
def test_conv2d_shapes(shape, kernel, kw):
    agree(lambda F, x, w, b: F.conv2d(x, w, b, **kw), normal(*shape), normal(3, 4, *kernel), normal(3))


def test_conv2d_of_a_transposed_view():
    agree(lambda F, x, w: F.conv2d(x.permute(0, 3, 1, 2), w.transpose(2, 3)), normal(2, 6, 5, 4), normal(3, 4, 2, 3))


def test_infinities_are_as_silent_in_every_thread_as_in_pytorch():
    """Warnings are errors here. This is enough to be shared out over threads, which do not inherit NumPy's settings."""
    x = numpy.ones((8, 8, 32, 32), "float32")
    x[:, 0, ::7], x[:, 1, ::5] = INF, -INF
    w = numpy.ones((8, 8, 3, 3), "float32")
    y = F.conv2d(Tensor(x, requires_grad=True), Tensor(w, requires_grad=True), padding=1)
    y.backward(numpy.where(numpy.arange(y.numel()).reshape(y.shape) % 2, INF, -INF))
    assert numpy.isnan(y.numpy()).any()


# -- pooling --------------------------------------------------------------------
WINDOWS = settings(kernel_size=[2, 3, (3, 2)], stride=[None, 1, 2, (3, 1)], padding=[0, 1], ceil_mode=[False, True])


@pytest.mark.parametrize("kw", WINDOWS, ids=ids)
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (2, 6, 5), (1, 1, 3, 3)], ids=ids)
def test_pooling(kw, shape):
    x = normal(*shape)
    agree(lambda F, x: F.max_pool2d(x, **kw), x)
    agree(lambda F, x: F.avg_pool2d(x, **kw), x)
    agree(lambda F, x: F.avg_pool2d(x, **kw, count_include_pad=False), x)
    agree(lambda F, x: F.avg_pool2d(x, **kw, divisor_override=3), x)


@pytest.mark.parametrize(
    "kw", settings(stride=[1, 2], padding=[0, 1], dilation=[2, (1, 2)], ceil_mode=[False, True]), ids=ids
)
def test_max_pool2d_dilation(kw):
    agree(lambda F, x: F.max_pool2d(x, 3, **kw), normal(2, 3, 7, 8))


POOLED = {
    "ties": numpy.round(normal(2, 3, 7, 8)),
    "constant": numpy.zeros((1, 2, 6, 6)),
    "nan": numpy.where(normal(2, 2, 7, 7) > 1.2, NAN, normal(2, 2, 7, 7, seed=5)),
    "-inf": numpy.full((1, 2, 5, 5), -INF),
    "infinities and nan": numpy.array([[[[-INF, INF, 1, -INF], [NAN, 2, -INF, -INF], [0, 1, -INF, -INF]]]]),
    "empty batch": normal(0, 3, 7, 8),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", POOLED)
@pytest.mark.parametrize(
    "kw",
    [{}, {"stride": 1}, {"stride": 3}, {"padding": 1, "stride": 2, "ceil_mode": True}, {"dilation": 2, "stride": 1}],
    ids=ids,
)
def test_pooling_of_special_values(name, kw):
    agree(lambda F, x: F.max_pool2d(x, 2, **kw), POOLED[name])
    if "dilation" not in kw:
        agree(lambda F, x: F.avg_pool2d(x, 2, **kw), POOLED[name])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9, 16, (3, 4), [2, 5], (None, 3), (4, None), (None, None)], ids=ids)
@pytest.mark.parametrize("shape", [(2, 3, 7, 8), (3, 5, 6), (0, 3, 7, 8)], ids=ids)
def test_adaptive_avg_pool2d(size, shape):
    agree(lambda F, x: F.adaptive_avg_pool2d(x, size), normal(*shape))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", [NAN, INF])
def test_adaptive_avg_pool2d_keeps_bad_pixels_in_their_windows(value):
    x = normal(1, 2, 7, 8)
    x[0, 0, 1, 1] = value
    agree(lambda F, x: F.adaptive_avg_pool2d(x, (3, 4)), x, gradients=False)


# -- normalisation ----------------------------------------------------------------
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 9, 20])
@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 3, 4), (2, 5, 2, 3, 2), (1, 1, 3), (0, 5, 3, 3)], ids=ids)
def test_local_response_norm_windows(size, shape):
    agree(lambda F, x: F.local_response_norm(x, size, alpha=0.5), normal(*shape))


@pytest.mark.parametrize(
    "kw",
    [{}, {"alpha": 1.0, "beta": 0.5}, {"alpha": 1, "beta": 1}, {"k": 2.0}, {"beta": 0.0}, {"beta": -1.0, "alpha": 1.0}],
    ids=ids,
)
def test_local_response_norm_settings(kw):
    agree(lambda F, x: F.local_response_norm(x, 3, **kw), normal(2, 5, 3, 4))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", [NAN, INF, 1e30, 0.0])
def test_local_response_norm_of_special_values(value):
    x = normal(1, 4, 2, 2)
    x[0, 2, 1, 1] = value
    agree(lambda F, x: F.local_response_norm(x, 3, alpha=1.0), x)


@pytest.mark.parametrize(
    "shape", [(4, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 2, 2), (2, 3, 1, 1), (1, 3, 2, 1)], ids=ids
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm(shape, training, affine):
    scale = [normal(3, seed=3), normal(3, seed=4)] if affine else []
    for momentum, dtype in itertools.product((0.1, 0.0, 1.0), FLOATS):
        mean, var = normal(3, seed=1).astype(dtype), (normal(3, seed=2) ** 2).astype(dtype)
        ours, theirs = [Tensor(mean), Tensor(var)], [torch.tensor(mean), torch.tensor(var)]

        def f(L, x, *scale, momentum=momentum, ours=ours, theirs=theirs):
            running = ours if L is F else theirs
            return L.batch_norm(x, *running, *scale, training=training, momentum=momentum, eps=0.01)

        compare(f, *(a.astype(dtype) for a in (normal(*shape), *scale)))
        for a, b in zip(ours, theirs, strict=True):
            same(a, b, "running statistics")


def test_batch_norm_without_running_statistics_and_with_one_of_the_scales():
    agree(lambda F, x: F.batch_norm(x, None, None, training=True), normal(4, 3, 2))
    agree(lambda F, x, w: F.batch_norm(x, None, None, w, training=True), normal(4, 3, 2), normal(3))
    agree(lambda F, x, b: F.batch_norm(x, None, None, None, b, training=True), normal(4, 3, 2), normal(3))


def test_batch_norm_far_from_zero_is_at_least_as_exact():
    x = normal(8, 3, 4) * 1e-2 + 100
    compare(lambda F, x: F.batch_norm(x, None, None, training=True), x)
    x = x.astype("float32")
    exact = T.batch_norm(torch.tensor(x).double(), None, None, training=True).numpy()
    ours = F.batch_norm(Tensor(x), None, None, training=True).numpy()
    theirs = T.batch_norm(torch.tensor(x), None, None, training=True).numpy()
    assert numpy.abs(ours - exact).max() <= numpy.abs(theirs - exact).max() + 1e-6


@pytest.mark.parametrize(("dims", "shape"), [(1, (5, 3)), (1, (5, 3, 4)), (2, (5, 3, 2, 2))])
@pytest.mark.parametrize(
    "kw",
    settings(momentum=[0.1, None, 0.7], affine=[True, False], track_running_stats=[True, False]),
    ids=ids,
)
def test_batch_norm_modules_over_several_steps(dims, shape, kw):
    ours = getattr(nn, f"BatchNorm{dims}d")(3, eps=1e-3, **kw).double()
    theirs = getattr(torch.nn, f"BatchNorm{dims}d")(3, eps=1e-3, **kw).double()
    for step in range(4):
        x = normal(*shape, seed=step) * (step + 1) + step
        if step == 3:
            ours.eval()
            theirs.eval()
        same(ours(Tensor(x)), theirs(torch.tensor(x)))
        state, expected = ours.state_dict(), theirs.state_dict()
        assert list(state) == list(expected)
        for name, value in expected.items():
            same(state[name], value, name)


# -- losses -----------------------------------------------------------------------
SCORES = {"(N,K)": (4, 5), "(N,K,d)": (4, 5, 3), "(N,K,d1,d2)": (2, 5, 3, 2), "(K,)": (5,), "(0,K)": (0, 5)}


def truth(shape, kind):
    """Labels or probabilities for scores of this shape."""
    dim = 0 if len(shape) == 1 else 1
    if kind == "probabilities":
        p = numpy.exp(normal(*shape, seed=7))
        return p / p.sum(axis=dim, keepdims=True)
    labels = numpy.random.default_rng(8).integers(0, 5, shape[:dim] + shape[dim + 1 :])
    if kind == "some ignored":
        labels = numpy.where(numpy.arange(labels.size).reshape(labels.shape) % 3 == 0, -100, labels)
    return numpy.full_like(labels, -100) if kind == "all ignored" else labels


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("shape", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("kind", ["labels", "some ignored", "all ignored", "probabilities"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy(shape, kind, weighted):
    target = truth(shape, kind)
    class_weight = [numpy.array([0.5, 2.0, 0.0, 1.0, 0.3])] if weighted else []
    for smoothing, reduction in itertools.product((0.0, 0.1, 1.0), ("mean", "sum", "none")):
        kw = {"label_smoothing": smoothing, "reduction": reduction}
        agree(
            lambda F, x, t, *w, kw=kw: F.cross_entropy(x, t, *(v.detach() for v in w), **kw),
            normal(*shape),
            target,
            *class_weight,
        )


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("shape", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("kind", ["labels", "some ignored", "all ignored"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll_loss(shape, kind, reduction):
    target, kw = truth(shape, kind), {"reduction": reduction}
    agree(lambda F, x, t: F.nll_loss(x, t, **kw), normal(*shape), target)
    agree(lambda F, x, t, w: F.nll_loss(x, t, w.detach(), **kw), normal(*shape), target, numpy.arange(1.0, 6.0))


@pytest.mark.parametrize("ignore_index", [0, 2, -1, -100])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ignore_index(ignore_index, smoothing):
    labels = numpy.array([0, 2, 1, 4, 2] if ignore_index >= -1 else [0, 2, 1, 4, 3])
    labels = numpy.where(labels == 1, ignore_index, labels)
    kw = {"ignore_index": ignore_index}
    agree(lambda F, x, t: F.cross_entropy(x, t, label_smoothing=smoothing, **kw), normal(5, 5), labels)
    agree(lambda F, x, t: F.nll_loss(x, t, **kw), normal(5, 5), labels)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", [1e4, -1e4, -INF, INF, NAN])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_cross_entropy_of_extreme_scores(value, smoothing, reduction):
    x = normal(4, 5)
    x[0, 0], x[1, 2] = value, value
    kw = {"label_smoothing": smoothing, "reduction": reduction}
    for labels in ([0, 2, 1, 3], [1, 1, 2, 3], [-100, 2, 0, 1]):
        agree(lambda F, x, t: F.cross_entropy(x, t, **kw), x, numpy.array(labels))
    agree(lambda F, x, t: F.cross_entropy(x, t, **kw), numpy.full((2, 5), value), numpy.array([0, 3]))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mean_of_labels_that_weigh_nothing_is_nan_and_so_is_its_gradient(loss, smoothing):
    if loss == "nll_loss" and smoothing:
        pytest.skip("nll_loss has no label smoothing")
    kw = {"label_smoothing": smoothing} if smoothing else {}
    class_weight = numpy.array([0.0, 1, 1, 1, 1])
    for labels in ([0, 0, 0], [0, -100, 0]):
        agree(
            lambda F, x, t, w: getattr(F, loss)(x, t, w.detach(), **kw), normal(3, 5), numpy.array(labels), class_weight
        )


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("value", [NAN, -INF])
def test_a_class_weight_of_zero_does_not_hide_a_bad_score(value):
    x, class_weight = normal(2, 5), numpy.array([0.0, 1, 1, 1, 1])
    x[0, 0] = value
    agree(lambda F, x, t, w: F.nll_loss(x, t, w.detach(), reduction="none"), x, numpy.array([0, 1]), class_weight)


def test_cross_entropy_gradient_of_the_probabilities():
    agree(lambda F, x, t: F.cross_entropy(x, t), normal(4, 5), normal(4, 5, seed=2))
    agree(
        lambda F, x, t: F.cross_entropy(x, t, label_smoothing=0.2, reduction="none"), normal(4, 5), normal(4, 5, seed=2)
    )
    compare(lambda F, x, t: F.cross_entropy(x, t), normal(4, 5), normal(4, 5, seed=2).astype("float32"))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("shape", [(4, 5), (3,), (), (0,)], ids=ids)
def test_mse_loss(reduction, shape):
    agree(lambda F, x, t: F.mse_loss(x, t, reduction=reduction), normal(*shape), normal(*shape, seed=1))


def test_mse_loss_that_broadcasts_warns_in_both():
    with pytest.warns(UserWarning, match="broadcast"):
        agree(lambda F, x, t: F.mse_loss(x, t), normal(4, 5), normal(4, 1))


# -- softmax, activations -----------------------------------------------------------
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize(
    ("shape", "dim"), [((3, 4), 0), ((3, 4), -1), ((2, 3, 4), 1), ((2, 3, 4), -3), ((), 0), ((), -1), ((0, 3), 1)]
)
def test_softmax(name, shape, dim):
    agree(lambda F, x: getattr(F, name)(x, dim), normal(*shape))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
@pytest.mark.parametrize("value", [1e4, -1e4, 1e30, -INF, INF, NAN])
@pytest.mark.parametrize("dim", [0, 1])
def test_softmax_of_extreme_values(name, value, dim):
    x = normal(3, 4)
    x[0, 1], x[2] = value, value
    agree(lambda F, x: getattr(F, name)(x, dim), x)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "exp", "log", "sqrt", "abs", "neg"])
def test_functions_of_one_number(name):
    numbers = numpy.array([-INF, -1e4, -800, -20, -2.0, -1, -0.5, -1e-20, 0, 1e-20, 0.5, 1, 2, 20, 800, 1e4, INF])
    agree(lambda F, x: getattr(F, name)(x), numbers)
    agree(lambda F, x: getattr(F, name)(x), normal())
    agree(lambda F, x: getattr(F, name)(x), normal(0, 3))
    agree(lambda F, x: getattr(F, name)(x), numpy.array([NAN]), gradients=name != "abs")


# -- reductions ---------------------------------------------------------------------
REDUCED = {
    "ordinary": normal(2, 3, 4),
    "ties": numpy.round(normal(2, 3, 4)),
    "one row": normal(1, 5),
    "vector": normal(5),
    "0-d": normal(),
    "float32": normal(3, 2).astype("float32"),
}
DIMS = [None, 0, -1, 1, -2, (0, 1), (-1, 0), [0], ()]


def fits(dim, ndim):
    wanted = [] if dim is None else [dim] if isinstance(dim, int) else list(dim)
    return all(-max(ndim, 1) <= d < max(ndim, 1) for d in wanted) and len({d % max(ndim, 1) for d in wanted}) == len(
        wanted
    )


@pytest.mark.parametrize("name", REDUCED)
@pytest.mark.parametrize("dim", DIMS, ids=ids)
@pytest.mark.parametrize("keepdim", [False, True])
def test_reductions(name, dim, keepdim, quiet):
    x = REDUCED[name]
    if not fits(dim, x.ndim):
        pytest.skip("no such dimension")
    agree(lambda F, x: F.sum(x, dim, keepdim), x)
    agree(lambda F, x: F.mean(x, dim, keepdim), x)
    if dim is not None:
        agree(lambda F, x: F.amax(x, dim, keepdim), x)
        agree(lambda F, x: F.amin(x, dim, keepdim), x)
    if dim != ():  # there PyTorch's gradient of var divides by the wrong count
        agree(lambda F, x: F.var(x, dim, unbiased=True, keepdim=keepdim), x)
        agree(lambda F, x: F.var(x, dim, unbiased=False, keepdim=keepdim), x)
    if isinstance(dim, int):
        agree(lambda F, x: F.max(x, dim, keepdim).values, x)
        agree(lambda F, x: F.max(x, dim, keepdim).indices, x)
        agree(lambda F, x: F.argmax(x, dim, keepdim), x)


@pytest.mark.parametrize("name", REDUCED)
def test_reductions_without_arguments(name, quiet):
    for reduction in ("sum", "mean", "var", "amax", "amin", "max", "argmax"):
        agree(lambda F, x, reduction=reduction: getattr(F, reduction)(x), REDUCED[name])
        agree(lambda F, x, reduction=reduction: getattr(x, reduction)(), REDUCED[name])


@pytest.mark.usefixtures("quiet")
def test_reductions_of_nothing():
    for shape, dim in itertools.product([(0,), (2, 0, 3)], [None, 0, -1]):
        agree(lambda F, x, dim=dim: F.sum(x, dim), normal(*shape))
        agree(lambda F, x, dim=dim: F.mean(x, dim), normal(*shape))
        agree(lambda F, x, dim=dim: F.var(x, dim), normal(*shape))
    agree(lambda F, x: F.amax(x, 0), normal(2, 0, 3))
    agree(lambda F, x: F.amin(x, (0, 2)), normal(2, 0, 3))


@pytest.mark.parametrize("dim", [0, 2, -1])
def test_largest_along_a_dimension_beside_an_empty_one(dim):
    agree(lambda F, x: F.argmax(x, dim), normal(2, 0, 3))
    agree(lambda F, x: F.max(x, dim).values, normal(2, 0, 3))


@pytest.mark.usefixtures("quiet")
def test_variance_of_one_element_is_nan():
    for shape, dim in [((1,), None), ((), None), ((3, 1), 1)]:
        agree(lambda F, x, dim=dim: F.var(x, dim), normal(*shape))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("values", [[NAN, 1, 2], [1, NAN, NAN], [-INF, -INF], [INF, -INF, 1]], ids=ids)
def test_reductions_of_special_values(values):
    for reduction in ("sum", "mean", "var", "max", "amax", "amin", "argmax"):
        agree(lambda F, x, reduction=reduction: getattr(F, reduction)(x), numpy.array(values, float), gradients=False)
    agree(lambda F, x: F.max(x, 0).values, numpy.array(values, float))
    agree(lambda F, x: F.max(x, 0).indices, numpy.array(values, float))


# -- arithmetic ---------------------------------------------------------------------
EDGES = [-INF, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, INF]
PAIRS = numpy.array(list(itertools.product(EDGES, EDGES)))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow", "maximum", "minimum"])
def test_functions_of_two_numbers(name):
    a, b = PAIRS[:, 0], PAIRS[:, 1]
    if name == "pow":  # 0 to a negative power has its own test
        a, b = PAIRS[(a != 0) | (b >= 0)].T
    agree(lambda F, x, y: getattr(F, name)(x, y), a, b)


@pytest.mark.usefixtures("quiet")
def test_zero_to_a_negative_power():
    agree(lambda F, x, y: x**y, numpy.zeros(3), numpy.array([-2.0, -1.0, -0.5]))


@pytest.mark.usefixtures("quiet")
def test_nan_on_one_side():
    a, b = numpy.array([1.0, NAN, NAN, INF]), numpy.array([NAN, 1.0, NAN, NAN])
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
        agree(lambda F, x, y, name=name: getattr(F, name)(x, y), a, b, gradients=name not in ("maximum", "minimum"))
    agree(lambda F, x, y: F.maximum(x, y), a, b)
    agree(lambda F, x, y: F.minimum(x, y), a, b)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("exponent", [0, 0.0, 1, 2, 2.0, 3, 0.5, -1, -1.0, -0.5, 1.5, NAN])
def test_powers_of_and_by_a_plain_number(exponent):
    numbers = numpy.array([-2.0, -1, -0.5, 0, 0.5, 1, 2])
    agree(lambda F, x: x**exponent, numbers)
    if exponent != 0:
        agree(lambda F, x: exponent**x, numbers)
    agree(lambda F, x: 0.0**x, numpy.array([0.0, 0.5, 2.0]))


@pytest.mark.parametrize(
    "kw",
    [
        {"min": 0},
        {"max": 0.5},
        {"min": -1, "max": 1},
        {"min": 1, "max": -1},
        {"min": 0, "max": 0},
        {"min": -INF, "max": INF},
    ],
    ids=ids,
)
def test_clamp_at_its_limits(kw):
    agree(lambda F, x: F.clamp(x, **kw), numpy.array(EDGES))
    agree(lambda F, x: x.clamp(**kw), normal(2, 3))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("kw", [{"min": NAN}, {"max": NAN}, {"min": 0.0, "max": NAN}], ids=ids)
def test_clamp_by_nan(kw):
    agree(lambda F, x: F.clamp(x, **kw), numpy.array([-1.0, 0.0, 1.0, NAN]))


def test_where():
    mask = numpy.array([True, False, True])
    agree(lambda F, c, x, y: F.where(c, x, y), mask, numpy.array([1.0, NAN, 3.0]), numpy.array([INF, 2.0, NAN]))
    agree(lambda F, c, x, y: F.where(c, x, y), mask[:, None], normal(4), normal(3, 1))
    agree(lambda F, c, x, y: F.where(c, x, y), numpy.array(True), normal(3), normal(3, seed=1))
    agree(lambda F, c, x, y: F.where(c, x, y), mask, normal(), normal(1))
    agree(lambda F, c, x: F.where(c, x, 0.0), mask, normal(3))
    agree(lambda F, c, x: F.where(c, 1, x), mask, normal(3))
    agree(lambda F, x: F.where(x > 0, x, -x), normal(3, 4))


SHAPES = [
    ((3,), ()),
    ((2, 1), (3,)),
    ((1, 3, 1), (2, 1, 4)),
    ((0,), (1,)),
    ((2, 1), (0,)),
    ((), (0, 2)),
    ((2, 3), (2, 3)),
]


@pytest.mark.parametrize(("a", "b"), SHAPES, ids=ids)
def test_broadcasting(a, b):
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
        agree(lambda F, x, y, name=name: getattr(F, name)(x, y), numpy.abs(normal(*a)) + 0.1, normal(*b, seed=1))
        agree(lambda F, x, y, name=name: getattr(F, name)(y, x), normal(*a), numpy.abs(normal(*b, seed=1)) + 0.1)
    for relation in ("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"):
        agree(
            lambda F, x, y, relation=relation: getattr(x, relation)(y),
            numpy.round(normal(*a)),
            numpy.round(normal(*b, seed=1)),
        )


def test_operators_with_plain_numbers_on_either_side():
    for number in (2, 2.5, -1, numpy.float64(1.5), numpy.float32(0.5), numpy.int64(3)):
        agree(lambda F, x, n=number: (x + n) * (n - x) / (n + x * x) - (n * x - n) / n, normal(2, 3))
        agree(lambda F, x, n=number: n / x, normal(2, 3))


# -- dtypes ---------------------------------------------------------------------------
DTYPES = ["float32", "float64", "int64", "int32", "uint8", "bool"]


@pytest.mark.parametrize(("a", "b"), list(itertools.product(DTYPES, DTYPES)))
def test_dtype_of_two_operands(a, b):
    for shapes in (((3,), (3,)), ((3,), ()), ((), (3,)), ((), ())):
        x, y = (numpy.full(s, n).astype(d) for s, n, d in zip(shapes, (2, 3), (a, b), strict=True))
        for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum"):
            if "bool" in (a, b) and name in ("sub", "pow"):
                continue  # PyTorch refuses these
            compare(lambda F, x, y, name=name: getattr(F, name)(x, y), x, y, gradients=False)
        compare(lambda F, c, x, y: F.where(c, x, y), numpy.array([True, False, True]), x, y)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "number", [2, 2.5, True, numpy.float64(2.5), numpy.float32(2.5), numpy.int64(2), numpy.int8(2)], ids=repr
)
def test_dtype_beside_a_plain_number(dtype, number):
    for x in (numpy.full(3, 3).astype(dtype), numpy.array(3).astype(dtype)):
        for name in ("add", "mul", "div"):
            compare(lambda F, x, name=name: getattr(F, name)(x, number), x)
        compare(lambda F, x: number + x, x)
        compare(lambda F, x: number / x, x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_of_functions_of_whole_numbers(dtype):
    x = numpy.array([0, 1, 3]).astype(dtype)
    for name in ("exp", "sqrt", "tanh", "sigmoid"):
        compare(lambda F, x, name=name: getattr(F, name)(x), x, gradients=False)
    compare(lambda F, x: F.log(x + 1), x)
    if dtype != "bool":
        compare(lambda F, x: F.abs(x), x)
        compare(lambda F, x: F.relu(x), x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kw", [{"min": 1}, {"max": 2}, {"min": 1.5}, {"max": 2.5}, {"min": 1, "max": 2.5}], ids=ids)
def test_dtype_of_clamp(dtype, kw):
    compare(lambda F, x: F.clamp(x, **kw), numpy.array([1, 2, 3]).astype(dtype))


def test_dtype_of_clamp_beside_a_numpy_number():
    compare(lambda F, x: F.clamp(x, min=numpy.float64(1.5)), numpy.ones(3, "float32"))
    compare(lambda F, x: F.local_response_norm(x, 2, alpha=numpy.float64(0.5)), normal(1, 3, 2).astype("float32"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_of_powers_by_a_plain_number(dtype):
    for exponent in (2, 2.5):
        compare(lambda F, x, e=exponent: x**e, numpy.array([1, 0, 1]).astype(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_of_sums_and_maxima(dtype):
    x = numpy.array([[1, 0, 1], [2, 3, 200]]).astype(dtype)
    compare(lambda F, x: F.sum(x), x)
    compare(lambda F, x: F.sum(x, 1), x)
    compare(lambda F, x: F.amax(x, 1), x)
    compare(lambda F, x: F.max(x, 1).values, x)


@pytest.mark.parametrize(("a", "b"), list(itertools.product(DTYPES, DTYPES)))
def test_dtype_of_joined_tensors(a, b):
    x, y = numpy.ones(2).astype(a), numpy.ones(2).astype(b)
    compare(lambda F, x, y: F.cat([x, y]), x, y)
    compare(lambda F, x, y: F.stack([x, y]), x, y)


def test_conversions():
    agree(lambda F, x: x.float(), normal(3))
    agree(lambda F, x: x.double(), normal(3))
    compare(lambda F, x: x.float(), numpy.array([1, 2]))
    ours, theirs = tensor([1.7, -1.7], requires_grad=True).to("int64"), torch.tensor([1.7, -1.7]).to(torch.int64)
    same(ours, theirs)
    assert not ours.requires_grad  # whole numbers have no gradient


# -- matrix products --------------------------------------------------------------------
OPERANDS = [
    (3,),
    (2, 3),
    (3, 4),
    (3, 3),
    (5, 2, 3),
    (1, 3, 4),
    (5, 3, 4),
    (2, 1, 3, 4),
    (2, 5, 4, 3),
    (4,),
    (4, 3),
    (0, 3),
    (3, 0),
]
PRODUCTS = [(a, b) for a, b in itertools.product(OPERANDS, OPERANDS) if a[-1] == b[max(-2, -len(b))]]


@pytest.mark.parametrize(("a", "b"), PRODUCTS, ids=ids)
def test_matmul(a, b):
    try:
        numpy.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        pytest.skip("these do not broadcast")
    agree(lambda F, x, y: F.matmul(x, y), normal(*a), normal(*b, seed=1))
    agree(lambda F, x, y: x @ y, normal(*a), normal(*b, seed=1))


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 2, 4, 3), (0, 3), (2, 0, 3)], ids=ids)
@pytest.mark.parametrize("outputs", [1, 5, 0])
def test_linear(shape, outputs):
    agree(lambda F, x, w, b: F.linear(x, w, b), normal(*shape), normal(outputs, 3), normal(outputs))
    agree(lambda F, x, w: F.linear(x, w), normal(*shape), normal(outputs, 3))


# -- arrangement ------------------------------------------------------------------------
ARRANGED = {
    "reshape(6, 4)": lambda F, x: x.reshape(6, 4),
    "reshape((6, -1))": lambda F, x: x.reshape((6, -1)),
    "reshape([-1])": lambda F, x: x.reshape([-1]),
    "reshape(2, -1, 1)": lambda F, x: x.reshape(2, -1, 1),
    "view(3, 8)": lambda F, x: x.view(3, 8),
    "reshape of a permuted one": lambda F, x: x.permute(2, 0, 1).reshape(8, 3),
    "flatten": lambda F, x: F.flatten(x),
    "flatten(1)": lambda F, x: F.flatten(x, 1),
    "flatten(0, 1)": lambda F, x: F.flatten(x, 0, 1),
    "flatten(-2, -1)": lambda F, x: F.flatten(x, -2, -1),
    "flatten(1, 1)": lambda F, x: F.flatten(x, 1, 1),
    "permute": lambda F, x: x.permute(2, 0, 1),
    "permute, negative": lambda F, x: F.permute(x, (-1, 0, -2)),
    "transpose": lambda F, x: F.transpose(x, 0, -1),
    "transpose with itself": lambda F, x: F.transpose(x, 1, 1),
    "unsqueeze 0": lambda F, x: F.unsqueeze(x, 0),
    "unsqueeze 3": lambda F, x: F.unsqueeze(x, 3),
    "unsqueeze -1": lambda F, x: F.unsqueeze(x, -1),
    "unsqueeze -4": lambda F, x: F.unsqueeze(x, -4),
    "squeeze": lambda F, x: F.squeeze(x.reshape(1, 2, 1, 12)),
    "squeeze 0": lambda F, x: F.squeeze(x.reshape(1, 2, 1, 12), 0),
    "squeeze 1, which is not 1": lambda F, x: F.squeeze(x.reshape(1, 2, 1, 12), 1),
    "squeeze two": lambda F, x: F.squeeze(x.reshape(1, 2, 1, 12), (0, -2)),
    "expand": lambda F, x: x.unsqueeze(1).expand(2, 5, 3, 4),
    "expand, -1": lambda F, x: x.unsqueeze(0).expand(6, -1, -1, -1),
    "expand in front": lambda F, x: x.expand(5, 1, 2, 3, 4),
    "expand to nothing": lambda F, x: x.unsqueeze(0).expand(0, 2, 3, 4),
    "expand, a tuple": lambda F, x: x[:, :1].expand((2, 7, 4)),
    "cat": lambda F, x: F.cat([x, 2 * x, x]),
    "cat, dim 1": lambda F, x: F.cat([x, x[:, :1]], 1),
    "cat, dim -1, with nothing": lambda F, x: F.cat((x, x[..., :0]), -1),
    "cat of one": lambda F, x: F.cat([x], 2),
    "stack": lambda F, x: F.stack([x, 3 * x]),
    "stack, dim 3": lambda F, x: F.stack([x, 3 * x], 3),
    "stack, dim -2": lambda F, x: F.stack((x, 3 * x), -2),
}


@pytest.mark.parametrize("name", ARRANGED)
def test_arrangement(name):
    agree(ARRANGED[name], normal(2, 3, 4))


ARRANGED_0D = [
    lambda F, x: F.flatten(x),
    lambda F, x: F.squeeze(x),
    lambda F, x: F.squeeze(x, -1),
    lambda F, x: F.unsqueeze(x, 0),
    lambda F, x: x.reshape(1, 1),
    lambda F, x: x.reshape(-1),
    lambda F, x: x.expand(2, 3),
    lambda F, x: F.permute(x, ()),
    lambda F, x: F.transpose(x, 0, -1),
    lambda F, x: F.stack([x, x]),
    lambda F, x: F.stack([x, x], -1),
]
ARRANGED_EMPTY = [
    lambda F, x: F.flatten(x),
    lambda F, x: x.reshape(-1),
    lambda F, x: x.reshape(3, 0),
    lambda F, x: x.reshape(0, 5),
    lambda F, x: x.reshape(-1, 3),
    lambda F, x: F.cat([x, x]),
    lambda F, x: F.transpose(x, 0, 1),
]


def test_arrangement_of_0_d_and_of_nothing():
    for f in ARRANGED_0D:
        agree(f, normal())
    for f in ARRANGED_EMPTY:
        agree(f, normal(0, 3))


PADDINGS = [
    (1, 1),
    (1, 2, 3, 4),
    (0, 0),
    (-1, 0),
    (-1, -1),
    (1, -1),
    (-2, -2),
    (1, 1, -1, -1, 0, 2),
    (-3, 2),
    (3, -3),
    (-4, 4),
    (),
    [2, 1],
]


@pytest.mark.parametrize("padding", PADDINGS, ids=ids)
def test_pad(padding):
    agree(lambda F, x: F.pad(x, padding), normal(2, 3, 4))
    agree(lambda F, x: F.pad(x, padding, value=1.5), normal(2, 3, 4))
    compare(lambda F, x: F.pad(x, padding, value=2), numpy.arange(24).reshape(2, 3, 4))


def test_pad_by_none_is_pad_by_zero():
    agree(lambda F, x: F.pad(x, (1, 1), value=None), normal(2, 3))


def test_pad_of_0_d():
    agree(lambda F, x: F.pad(x, ()), normal())


# -- indexing -----------------------------------------------------------------------------
BASIC = [0, -1, slice(None), slice(1, 3), slice(None, None, 2), slice(3, 1), None, Ellipsis]
ARRAYS = [
    numpy.array([0, 2]), numpy.array([1, 1, 1]), numpy.array([[0, 1], [2, 0]]), numpy.array([-1, 0]), numpy.array(1),
    numpy.array([], int), [0, 2], numpy.array([True, False, True]),
]  # fmt: skip


def index_of(F, index):
    """Arrays become PyTorch's tensors for PyTorch."""
    convert = (lambda i: torch.tensor(i) if isinstance(i, numpy.ndarray) else i) if F is T else (lambda i: i)
    return tuple(convert(i) for i in index) if isinstance(index, tuple) else convert(index)


def whole(part):
    """Selects one element of a dimension, which is a matter of its own beside arrays."""
    return isinstance(part, int) or (isinstance(part, numpy.ndarray) and part.ndim == 0)


def indices(seed, count, length, beside_arrays):
    """Random indices for a tensor of three dimensions of which PyTorch accepts all."""
    rng = random.Random(seed)
    chosen = []
    while len(chosen) < count:
        index = tuple(rng.choice(BASIC if rng.random() < 0.5 else ARRAYS) for _ in range(length))
        several = any(isinstance(p, (list, numpy.ndarray)) and not whole(p) for p in index)
        if (several and any(whole(p) for p in index)) != beside_arrays or sum(p is Ellipsis for p in index) > 1:
            continue
        try:
            torch.zeros(3, 3, 3)[index_of(T, index)]
        except (IndexError, RuntimeError):
            continue
        chosen.append(index)
    return chosen


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_indexing(length):
    for index in indices(length, 40, length, beside_arrays=False):
        try:
            compare(lambda F, x, index=index: x[index_of(F, index)], normal(3, 3, 3))
        except AssertionError as error:
            raise AssertionError(f"x[{index}]: {error}") from None


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_whole_number_beside_arrays_selects_before_the_arrays_do(length):
    """x[0, :, [0, 2]] is x[0][:, [0, 2]] in PyTorch, and not NumPy's transpose of it."""
    for index in indices(length, 40, length, beside_arrays=True):
        try:
            compare(lambda F, x, index=index: x[index_of(F, index)], normal(3, 3, 3))
        except AssertionError as error:
            raise AssertionError(f"x[{index}]: {error}") from None


MASKS = [
    normal(4, 3) > 0,
    normal(4, 3, 5) > 0,
    numpy.zeros((4, 3, 5), bool),
    (slice(None), normal(3, 5) > 0),
    (Ellipsis, normal(3, 5) > 0),
    (None, normal(4, 3) > 0),
    (normal(4) > 0, slice(None), numpy.array([0])),
    numpy.array(True),
    numpy.array(False),
    True,
    [True, False, True, False],
]


@pytest.mark.parametrize("i", range(len(MASKS)))
def test_masks(i):
    compare(lambda F, x: x[index_of(F, MASKS[i])], normal(4, 3, 5))


def test_indexing_by_tensors_of_one_s_own():
    compare(lambda F, x, i: x[i], normal(4, 3), numpy.array([2, 2, 0]))
    compare(lambda F, x, i: x[:, i], normal(4, 3), numpy.array([2, 2, 0]))
    compare(lambda F, x: x[x > 0], normal(4, 3))
    compare(lambda F, x, i: x[i], normal(4, 3), numpy.array(1))
    compare(lambda F, x: x[()], normal())
    compare(lambda F, x: x[None], normal())
    compare(lambda F, x: x[...], normal())


def test_iteration():
    compare(lambda F, x: F.stack([2 * row for row in x]), normal(4, 3))
    compare(lambda F, x: F.stack(list(x)[::-1]), normal(4))


# -- gradients of leaves -----------------------------------------------------------------
def test_gradients_of_two_leaves_are_two_arrays_that_may_be_changed():
    """Clipping one parameter's gradient in place must not touch another's."""
    a, b = tensor([1.0, 2.0], requires_grad=True), tensor([3.0, 4.0], requires_grad=True)
    (a + b).backward([1.0, 1.0])
    a.grad.data *= 2
    assert b.grad.numpy().tolist() == [1.0, 1.0]
    c = tensor([1.0, 2.0], requires_grad=True)
    c.sum().backward()
    c.grad.data *= 2
    assert c.grad.numpy().tolist() == [2.0, 2.0]


def test_gradients_accumulate():
    a, b = tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        (a * a + a).sum().backward()
        (b * b + b).sum().backward()
    same(a.grad, b.grad)


# -- training ------------------------------------------------------------------------------
SGD = [
    {},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3},
    {"momentum": 0.9, "nesterov": True},
    {"weight_decay": 0.1},
    {"momentum": 0.5, "weight_decay": 0.1, "nesterov": True},
    {"momentum": 0.5, "weight_decay": 0.1, "dampening": 0.5},
    {"lr": 0.0},
]


@pytest.mark.parametrize("kw", SGD, ids=ids)
@pytest.mark.parametrize("dtype", FLOATS)
def test_sgd(kw, dtype):
    kw = {"lr": 0.1, **kw}
    start = [normal(3, 2).astype(dtype), normal(2, seed=1).astype(dtype)]
    ours, theirs = [nn.Parameter(a.copy()) for a in start], [torch.nn.Parameter(torch.tensor(a)) for a in start]
    mine, yours = optim.SGD(ours, **kw), torch.optim.SGD(theirs, **kw)
    for step in range(5):
        mine.zero_grad()
        yours.zero_grad()
        for i, (p, q) in enumerate(zip(ours, theirs, strict=True)):
            if step == 2 and i == 1:
                continue  # a parameter without a gradient stays, and so does its velocity
            (p * p * (step + 1)).sum().backward()
            (q * q * (step + 1)).sum().backward()
        mine.step()
        yours.step()
        for p, q in zip(ours, theirs, strict=True):
            same(p, q, f"step {step}")


def test_sgd_with_groups():
    start = [normal(3), normal(2)]
    ours, theirs = [nn.Parameter(a.copy()) for a in start], [torch.nn.Parameter(torch.tensor(a)) for a in start]
    mine = optim.SGD([{"params": ours[:1], "lr": 0.5}, {"params": ours[1:], "weight_decay": 0.2}], lr=0.1, momentum=0.9)
    yours = torch.optim.SGD(
        [{"params": theirs[:1], "lr": 0.5}, {"params": theirs[1:], "weight_decay": 0.2}], lr=0.1, momentum=0.9
    )
    for _ in range(3):
        mine.zero_grad()
        yours.zero_grad()
        for p, q in zip(ours, theirs, strict=True):
            p.sum().backward()
            q.sum().backward()
        mine.step()
        yours.step()
    for p, q in zip(ours, theirs, strict=True):
        same(p, q)


SCHEDULES = {
    "StepLR": [{"step_size": 1}, {"step_size": 3, "gamma": 0.5}],
    "MultiStepLR": [{"milestones": [2, 5]}, {"milestones": [5, 2, 2], "gamma": 0.5}, {"milestones": []}],
}


@pytest.mark.parametrize(("name", "kw"), [(name, kw) for name, kws in SCHEDULES.items() for kw in kws], ids=ids)
def test_schedules(name, kw):
    mine = optim.SGD([nn.Parameter(normal(2))], lr=0.3)
    yours = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.3)
    a, b = getattr(optim, name)(mine, **kw), getattr(torch.optim.lr_scheduler, name)(yours, **kw)
    for _ in range(8):
        yours.step()
        a.step()
        b.step()
        assert mine.param_groups[0]["lr"] == pytest.approx(yours.param_groups[0]["lr"], rel=1e-12)


METRICS = {
    "falling": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5],
    "flat": [1.0] * 12,
    "slowly falling": [1.0 - 5e-5 * i for i in range(12)],
    "rising": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, 0.5, 0.5, 0.5],
    "nan": [1.0, NAN, NAN, NAN, NAN, 0.5, NAN, NAN, NAN],
}


@pytest.mark.parametrize("metrics", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize(
    "kw", [{"patience": 0}, {"patience": 2, "factor": 0.5}, {"patience": 1, "threshold": 0.1}], ids=ids
)
def test_reduce_on_plateau(metrics, kw):
    mine = optim.SGD([nn.Parameter(normal(2))], lr=0.3)
    yours = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.3)
    a = optim.ReduceLROnPlateau(mine, **kw)
    b = torch.optim.lr_scheduler.ReduceLROnPlateau(yours, **kw, eps=0.0)
    for metric in metrics:
        a.step(metric)
        b.step(metric)
        assert mine.param_groups[0]["lr"] == pytest.approx(yours.param_groups[0]["lr"], rel=1e-12)


# -- layers --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make",
    [
        lambda nn: nn.Linear(40, 50),
        lambda nn: nn.Conv2d(4, 30, (3, 5)),
        lambda nn: nn.Conv2d(8, 40, 3, groups=4),
    ],
    ids=["linear", "conv2d", "grouped conv2d"],
)
def test_default_initial_ranges(make):
    """Uniform between the same bounds: the extremes of many draws agree to a few per cent, and so does the spread."""
    ours, theirs = make(nn).state_dict(), make(torch.nn).state_dict()
    assert list(ours) == list(theirs)
    bound = 1 / math.sqrt(math.prod(ours["weight"].shape[1:]))
    for name, value in ours.items():
        assert value.shape == tuple(theirs[name].shape)
        assert value.dtype == "float32"
        assert numpy.abs(value).max() <= bound
        assert numpy.abs(theirs[name].numpy()).max() <= bound * (1 + 1e-6)
        if value.size > 500:
            assert numpy.abs(value).max() > 0.95 * bound
            assert value.std() == pytest.approx(bound / math.sqrt(3), rel=0.1)
            assert theirs[name].numpy().std() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def networks(nn):
    yield nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))
    yield nn.Sequential(nn.Sequential(nn.Linear(2, 3), nn.Tanh()), nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(3)))
    yield nn.BatchNorm1d(3, affine=False)
    yield nn.BatchNorm2d(3, track_running_stats=False)
    yield nn.Linear(2, 3, bias=False)


@pytest.mark.parametrize("i", range(5))
def test_state_dict_names_and_shapes(i):
    ours, theirs = list(networks(nn))[i], list(networks(torch.nn))[i]
    state, expected = ours.state_dict(), theirs.state_dict()
    assert {k: (v.shape, str(v.dtype)) for k, v in state.items()} == {
        k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in expected.items()
    }
    assert [k for k, _ in ours.named_parameters()] == [k for k, _ in theirs.named_parameters()]
    assert [k for k, _ in ours.named_buffers()] == [k for k, _ in theirs.named_buffers()]


def test_state_dict_order():
    for ours, theirs in zip(networks(nn), networks(torch.nn), strict=True):
        assert list(ours.state_dict()) == list(theirs.state_dict())


def test_a_network_with_the_same_weights_computes_the_same():
    ours, theirs = next(networks(nn)), next(networks(torch.nn))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = normal(3, 3, 4, 4).astype("float32")
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        same(ours(Tensor(x)), theirs(torch.tensor(x)))
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        p.grad = q.grad = None
        assert p.shape == tuple(q.shape), name
    ours.train()
    theirs.train()
    F.cross_entropy(ours(Tensor(x)), numpy.array([0, 4, 2])).backward()
    T.cross_entropy(theirs(torch.tensor(x)), torch.tensor([0, 4, 2])).backward()
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        same(p.grad, q.grad, name)


@pytest.mark.parametrize(
    "make",
    [
        lambda nn: nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
        lambda nn: nn.MaxPool2d(2),
        lambda nn: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        lambda nn: nn.LocalResponseNorm(4, alpha=0.3, beta=0.5, k=2.0),
        lambda nn: nn.Flatten(),
        lambda nn: nn.Flatten(0, 1),
        lambda nn: nn.Softmax(1),
        lambda nn: nn.Sigmoid(),
        lambda nn: nn.Dropout(0.3).eval(),
    ],
)
def test_layers_without_weights(make):
    x = normal(2, 6, 7, 5)
    same(make(nn)(Tensor(x)), make(torch.nn)(torch.tensor(x)))


def test_no_grad_and_detach():
    x, y = tensor([1.0, 2.0], requires_grad=True), torch.tensor([1.0, 2.0], requires_grad=True)
    with no_grad(), torch.no_grad():
        assert (x * 2).requires_grad == (y * 2).requires_grad
    assert (x.detach() * 2).requires_grad == (y.detach() * 2).requires_grad


def test_nothing_here_warns_in_ordinary_use():
    """Warnings are errors in this suite; this one says so where it matters: a step of training in float32."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        network = next(networks(nn))
        F.cross_entropy(network(tensor(normal(2, 3, 4, 4).astype("float32"))), numpy.array([0, 1])).backward()
