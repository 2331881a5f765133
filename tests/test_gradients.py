"""Every differentiable operation against finite differences, on every backend; and what it does at its kinks.

A gradient that agrees with a wrong forward pass passes a gradient check, so values are compared with NumPy as well,
where tests/test_kernels.py does not already compare the kernel underneath with loops.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

from minitorch_alex import functional as F
from minitorch_alex import philox, tensor
from minitorch_alex.functional.arithmetic import to
from minitorch_alex.functional.shape import getitem
from minitorch_alex.gradcheck import gradcheck, separated
from minitorch_alex.tensor import op

rng = np.random.default_rng(5)


class Case(NamedTuple):
    inputs: tuple
    call: Any
    settings: dict

    def __call__(self, function, *tensors):
        return self.call(function, *tensors, **self.settings)


def case(*inputs, call=lambda function, *tensors, **settings: function(*tensors, **settings), **settings):
    """Inputs are shapes, for which separated values are made, or arrays; `call` says how the operation takes them."""
    return Case(inputs, call, settings)


def positive(*shape):
    return separated(shape, rng) + 1.5


def apart(*shape):
    """Values that equal none of `separated(shape)`, and lie at least 1/2n from each of them."""
    return separated(shape, rng) * 0.5 + 0.25 / np.prod(shape)


def probabilities(*shape):
    p = rng.uniform(0.1, 1, shape)
    return p / p.sum(axis=min(1, len(shape) - 1), keepdims=True)


def listed(function, *tensors, **settings):
    return function(tensors, **settings)


def with_arguments(*arguments):
    return lambda function, x: function(x, *arguments)


def dropped(function, x, p):
    philox.set_step(3)  # else every call would draw a mask of its own
    return function(x, p, stream="here")


def with_statistics(function, x, weight=None, bias=None, **settings):
    C = x.shape[1]
    mean, var = tensor(np.linspace(-1, 1, C)), tensor(np.linspace(0.5, 2, C))
    return function(x, mean, var, weight, bias, **settings)


def without_statistics(function, x, weight=None, bias=None, **settings):
    return function(x, None, None, weight, bias, training=True, **settings)


def against(target):
    return lambda function, x, **settings: function(x, target, **settings)


LABELS = np.array([2, 0, 3, 3])
SOME_IGNORED = np.array([2, -100, 3, 1])
MAP_OF_LABELS = np.array([[[0, 2, 1], [1, 1, 0]], [[2, 2, 0], [1, 0, 2]]])  # (N, H, W)
CLASS_WEIGHTS = np.array([0.5, 2.0, 1.0, 0.25])
MASK = rng.random((3, 4)) < 0.5

IMAGE = (2, 4, 6, 5)  # (N, C, H, W), not square
pools = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2},  # overlapping, as in AlexNet
    {"kernel_size": 2, "stride": 3},  # some pixels in no window
    {"kernel_size": (3, 2), "stride": (1, 2), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    {"kernel_size": 2, "stride": 4, "ceil_mode": True},
    {"kernel_size": 1},
]
binary = [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((), (2, 3)), ((2, 1, 3), (4, 1))]
reductions = [
    {},
    {"dim": 0},
    {"dim": -1, "keepdim": True},
    {"dim": (0, 2)},
    {"dim": [2, 1], "keepdim": True},
    {"dim": (), "keepdim": True},
]
reduced = [case((2, 3, 4), **s) for s in reductions] + [case((), dim=0), case((3, 1), dim=1)]

CASES = {
    "abs": [case((3, 4)), case(())],
    "adaptive_avg_pool2d": [
        case(IMAGE, output_size=1),
        case(IMAGE, output_size=4),  # windows of different sizes that overlap
        case(IMAGE, output_size=(3, None)),
        case(IMAGE, output_size=(7, 8)),  # more outputs than pixels
        case((3, 6, 5), output_size=(2, 3)),
    ],
    "add": [case(*shapes) for shapes in binary],
    "amax": reduced,
    "amin": reduced,
    "avg_pool2d": [
        *(case(IMAGE, **s) for s in pools),
        case((3, 6, 5), kernel_size=2),
        case(IMAGE, kernel_size=3, stride=2, padding=1, count_include_pad=False),
        case(IMAGE, kernel_size=3, stride=2, padding=1, ceil_mode=True, count_include_pad=False),
        case(IMAGE, kernel_size=2, divisor_override=3),
    ],
    "batch_norm": [
        *(
            case(shape, *(2 * [positive(shape[1])])[:affine], call=call)
            for shape in ((5, 3), (3, 2, 4), (2, 3, 2, 3))
            for call in (with_statistics, without_statistics)
            for affine in (0, 1, 2)
        ),
        case((4, 3), positive(3), positive(3), call=with_statistics, training=True, eps=0.1),
    ],
    "cat": [case((2, 3), (1, 3), (4, 3), call=listed), case((2, 3), (2, 1), call=listed, dim=-1)],
    "clamp": [case((3, 4), min=-0.33), case((3, 4), max=0.33), case((3, 4), min=-0.5, max=0.5)],
    "conv2d": [
        case(IMAGE, (3, 4, 3, 3)),
        case(IMAGE, (3, 4, 3, 2), (3,), stride=(2, 1), padding=(0, 2)),
        case(IMAGE, (4, 2, 2, 3), (4,), groups=2, stride=2, padding=1),
        case(IMAGE, (4, 1, 3, 3), (4,), groups=4, padding=1),
        case(IMAGE, (8, 1, 2, 2), groups=4, dilation=2),
        case(IMAGE, (2, 4, 2, 3), (2,), dilation=(3, 1), padding=(1, 0), stride=(1, 2)),
        case(IMAGE, (2, 4, 1, 1), (2,), stride=3),  # most pixels are never read
        case(IMAGE, (2, 4, 6, 5), (2,)),  # the filter is as large as the image
        case(IMAGE, (2, 4, 3, 3), padding=3),  # some windows see padding only
        case(IMAGE, (2, 4, 2, 4), (2,), padding="same"),  # even: one more zero behind than in front
        case(IMAGE, (2, 4, 3, 2), padding="same", dilation=(1, 3)),
        case(IMAGE, (2, 4, 3, 3), padding="valid"),
        case((4, 6, 5), (2, 2, 3, 3), (2,), groups=2, stride=2, padding=1),
    ],
    "cross_entropy": [
        *(
            case((4, 4), call=against(labels), weight=weight, reduction=reduction, label_smoothing=smoothing)
            for labels in (LABELS, SOME_IGNORED)
            for weight in (None, CLASS_WEIGHTS)
            for reduction in ("mean", "sum", "none")
            for smoothing in (0.0, 0.1)
        ),
        case((4, 4), call=against(LABELS), ignore_index=3),
        *(case((2, 3, 2, 3), call=against(MAP_OF_LABELS), reduction=r) for r in ("mean", "sum", "none")),
        case((2, 3, 2, 3), call=against(MAP_OF_LABELS), weight=CLASS_WEIGHTS[:3], label_smoothing=0.2),
        case((4,), call=against(np.array(1))),
        *(case((4, 4), probabilities(4, 4), reduction=r, label_smoothing=0.1) for r in ("mean", "sum", "none")),
        case((4, 4), probabilities(4, 4), weight=CLASS_WEIGHTS),
        case((4, 4), positive(4, 4)),  # rows that do not add up to 1
        case((2, 3, 2, 2), probabilities(2, 3, 2, 2)),
        case((4,), probabilities(4)),
    ],
    "div": [case(a, positive(*b)) for a, b in binary],
    "dropout": [case((5, 7), call=dropped, p=p) for p in (0.3, 0.5, 1.0)],
    "exp": [case((3, 4))],
    "expand": [
        case((3, 1), call=with_arguments(3, 4)),
        case((3, 1), call=with_arguments((2, -1, 4))),
        case((), call=with_arguments(2)),
    ],
    "flatten": [case((2, 3, 4)), case((2, 3, 4), start_dim=1), case((2, 3, 4, 2), start_dim=1, end_dim=-2), case(())],
    "linear": [case((4, 3), (2, 3), (2,)), case((2, 4, 3), (2, 3)), case((3,), (2, 3), (2,))],
    "local_response_norm": [
        *(  # alpha = 1: at the usual 1e-4 any window passes. Even windows, and windows wider than the channels
            case((2, 4, 3, 2), size=size, alpha=1.0, beta=beta, k=k)
            for size in (1, 2, 3, 4, 5, 9, 12)
            for beta, k in ((0.75, 1.0), (0.5, 2.0))
        ),
        case((2, 5, 3), size=3, alpha=1.0),
        case((2, 5, 2, 2, 2), size=3, alpha=1.0),
    ],
    "log": [case(positive(3, 4))],
    "log_softmax": [case((3, 4), dim=1), case((2, 3, 4), dim=0), case((2, 3, 4), dim=-2), case((), dim=0)],
    "matmul": [
        case((3, 4), (4, 2)),
        case((4,), (4,)),
        case((3, 4), (4,)),
        case((4,), (4, 2)),
        case((4,), (5, 4, 2)),
        case((5, 3, 4), (4,)),
        case((2, 1, 3, 4), (5, 4, 2)),
        case((3, 4), (2, 4, 2)),
    ],
    "max": [
        case((2, 3, 4)),
        *(
            case((2, 3, 4), call=lambda f, x, **s: f(x, **s).values, dim=dim, keepdim=keep)
            for dim, keep in ((0, False), (-1, True))
        ),
        case((), call=lambda f, x: f(x, 0).values),
    ],
    "max_pool2d": [
        *(case(IMAGE, **s) for s in pools),
        case(IMAGE, kernel_size=2, stride=1, dilation=(3, 2)),
        case(IMAGE, kernel_size=(2, 3), stride=2, padding=1, dilation=2, ceil_mode=True),
        case((3, 6, 5), kernel_size=3, stride=2),
    ],
    "maximum": [case(a, apart(*b)) for a, b in binary if a] + [case(np.array(0.3), (2, 3))],
    "mean": reduced,
    "minimum": [case(a, apart(*b)) for a, b in binary if a] + [case(np.array(0.3), (2, 3))],
    "mse_loss": [
        *(case((3, 4), apart(3, 4), reduction=r) for r in ("mean", "sum", "none")),
        case((3, 4), call=against(apart(3, 4))),
    ],
    "mul": [case(*shapes) for shapes in binary],
    "neg": [case((3, 4))],
    "nll_loss": [
        *(
            case((4, 4), call=against(labels), weight=weight, reduction=reduction)
            for labels in (LABELS, SOME_IGNORED)
            for weight in (None, CLASS_WEIGHTS)
            for reduction in ("mean", "sum", "none")
        ),
        case((2, 3, 2, 3), call=against(MAP_OF_LABELS), ignore_index=1),
        case((4,), call=against(np.array(3))),
    ],
    "pad": [
        case((2, 3, 4), pad=(1, 2)),
        case((2, 3, 4), pad=(1, 0, 2, 3), value=7.0),
        case((2, 3, 4), pad=(-1, 2, 1, -1)),
        case((2, 3), pad=(-1, -1, 0, -1)),
        case((2, 3), pad=()),
    ],
    "permute": [case((2, 3, 4), call=with_arguments(2, 0, 1)), case((2, 3), call=with_arguments((-1, 0)))],
    "pow": [
        *(case(positive(*a), b) for a, b in binary),
        *(case((3, 4), call=with_arguments(n)) for n in (2, 3, 1, 0, -1, -2)),  # of negative numbers too
        case(positive(3, 4), call=with_arguments(0.5)),
        case((3, 4), call=lambda f, x: f(2.5, x)),
    ],
    "relu": [case((3, 4)), case(()), case((2, 3, 4, 2))],
    "reshape": [case((2, 3, 4), call=with_arguments(4, -1)), case((2, 3), call=with_arguments((6,)))],
    "sigmoid": [case((3, 4)), case(5 * positive(2, 3)), case(-5 * positive(2, 3))],
    "softmax": [case((3, 4), dim=1), case((2, 3, 4), dim=0), case((2, 3, 4), dim=-2), case((), dim=0)],
    "sqrt": [case(positive(3, 4))],
    "squeeze": [case((1, 3, 1, 2)), case((1, 3, 1), dim=0), case((1, 3, 1), dim=(0, -1)), case((3, 2), dim=1)],
    "stack": [*(case((2, 3), (2, 3), call=listed, dim=d) for d in (0, 1, 2, -1)), case((), (), call=listed)],
    "sub": [case(*shapes) for shapes in binary],
    "sum": reduced,
    "tanh": [case((3, 4))],
    "transpose": [case((2, 3, 4), dim0=0, dim1=2), case((2, 3, 4), dim0=-1, dim1=1), case((2, 3), dim0=1, dim1=1)],
    "unsqueeze": [case((2, 3), dim=0), case((2, 3), dim=-1), case((), dim=0)],
    "var": [
        case((2, 3, 4)),
        *(case((2, 3, 4), dim=dim, unbiased=u) for dim in (0, (0, 2), -1) for u in (True, False)),
        case((3, 4), dim=1, keepdim=True),
        case((3, 1), dim=1, unbiased=False),
    ],
    "where": [
        *(case(*shapes, call=lambda f, x, y: f(MASK, x, y)) for shapes in (((3, 4), (3, 4)), ((4,), (3, 1)), ((), ()))),
        case((3, 4), call=lambda f, x: f(tensor(MASK), x, 2.0)),
        case((3, 4), call=lambda f, x: f(x > 0, 0.0, x)),
    ],
}
NOT_DIFFERENTIABLE = {"argmax"}

INDICES = [
    0,
    -1,
    np.int64(1),
    slice(1, 3),
    slice(None, None, -2),
    None,
    ...,
    (..., 0),
    (slice(None), None, 1),
    (1, slice(0, 0)),
    [2, 0, 2, 2],  # an element named three times receives three gradients
    np.array([[0, 2], [2, -1]]),  # -1 is 2 once more
    (np.array([0, 2, 2]), np.array([1, 3, 3])),
    (np.array([[0], [2]]), np.array([1, 1, 3])),
    (slice(None), np.array([3, 3]), None),
    (np.array([1, 1]), slice(1, 4), 0),
    [],
    np.array([True, False, True]),
    (1, np.array([True, False, False, True])),
    (np.array([True, False, True]), slice(None), np.array([0, 1])),
    rng.random((3, 4, 2)) < 0.4,
    rng.random((3, 4)) < 0.4,
    (rng.random((3, 4)) < 0.4, 1),
    (..., rng.random((4, 2)) < 0.4),
    (slice(1, 3), ..., np.array([1, 0, 1])),
    (None, ..., np.array([3, 0]), slice(1)),
    np.zeros((3, 4), bool),
]
INDICES_OF_PYTORCH = [(0, slice(None), np.array([1, 1, 0])), (np.array([0, 2, 0]), slice(1, 3), 1)]  # 4 x 3, 3 x 2
OPERATORS = {
    "x + 2": lambda x: x + 2,
    "2 + x": lambda x: 2 + x,
    "x - 2": lambda x: x - 2,
    "2 - x": lambda x: 2 - x,
    "x * 3": lambda x: x * 3,
    "3 * x": lambda x: 3 * x,
    "x / 4": lambda x: x / 4,
    "4 / x": lambda x: 4 / x,
    "x ** 3": lambda x: x**3,
    "3 ** x": lambda x: 3**x,
    "-x": lambda x: -x,
    "abs(x)": lambda x: abs(x),
    "x @ y": lambda x: x @ x.T,
    "array @ x": lambda x: np.arange(6.0).reshape(2, 3) @ x,
    "array - x": lambda x: np.arange(4.0) - x,
    "array / x": lambda x: np.arange(1.0, 5.0) / x,
    "x[1]": lambda x: x[1],
    "x.T": lambda x: x.T,
    "x.view": lambda x: x.view(2, 6),
    "for row in x": lambda x: sum(i * row.sum() for i, row in enumerate(x, 1)),
}
EVERYTHING = [
    *(pytest.param(getattr(F, name), c, id=f"{name}-{i}") for name in CASES for i, c in enumerate(CASES[name])),
    *(
        pytest.param(getitem, case((3, 4, 2), index=index), id=f"getitem-{i}")
        for i, index in enumerate(INDICES + INDICES_OF_PYTORCH)
    ),
    *(pytest.param(to, case((3, 4), dtype=dtype), id=f"to-{dtype}") for dtype in ("float64",)),
    *(pytest.param(o, case((3, 4)), id=f"operator-{name}") for name, o in OPERATORS.items()),
]


@pytest.mark.parametrize(("function", "c"), EVERYTHING)
def test_gradient(backend, function, c):
    report = gradcheck(lambda *tensors: c(function, *tensors), *c.inputs)
    assert report, report


@op
def _scattered(xp, x):
    """The same values with gaps between them in memory, in reverse; its gradient in column-major order."""
    if not x.ndim:
        return x, (lambda g: g,)
    return xp.repeat(x[..., ::-1], 2, axis=-1)[..., ::-2], (lambda g: g.T.copy().T,)


@op
def _scattered_gradient(xp, x):
    if not x.ndim:
        return x, (lambda g: g,)
    return x, (lambda g: xp.repeat(g[..., ::-1], 2, axis=-1)[..., ::-2],)


@pytest.mark.parametrize(("function", "c"), EVERYTHING)
def test_gradient_where_memory_is_not_contiguous(backend, function, c):
    def scattered(*tensors):
        return _scattered_gradient(c(function, *(_scattered(t) for t in tensors)))

    report = gradcheck(scattered, *c.inputs, samples=3)
    assert report, report


def test_every_differentiable_operation_is_checked():
    assert set(CASES) == set(F.__all__) - NOT_DIFFERENTIABLE


def test_float32_to_float64_and_back():
    x = tensor(np.array([1, 2], "float32"), requires_grad=True)
    y = to(x, "float64")
    (y * y).sum().backward()
    assert (y.dtype, x.grad.dtype) == ("float64", "float32")
    assert x.grad.numpy().tolist() == [2, 4]


def test_whole_numbers_carry_no_gradient():
    """Rounding has slope 0 almost everywhere, so the result of `to` is a constant."""
    x = tensor([1.5, 2.5], requires_grad=True)
    assert not to(x, "int64").requires_grad
    (x * to(x, "int64")).sum().backward()
    assert x.grad.numpy().tolist() == [1, 2]


# -- values, where the check above and the kernel tests cannot see a mistake ------
def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


X = separated((3, 4), rng)
BATCH = separated((2, 4, 6, 5), rng)
VALUES = {
    "sigmoid": (F.sigmoid, X, 1 / (1 + np.exp(-X))),
    "sigmoid far out": (F.sigmoid, np.array([-800.0, 800.0]), [0, 1]),
    "tanh": (F.tanh, X, np.tanh(X)),
    "softmax": (lambda x: F.softmax(x, 0), X, softmax(X, 0)),
    "softmax far out": (lambda x: F.softmax(x, 0), np.array([1000.0, 1000.0, -1000.0]), [0.5, 0.5, 0]),
    "log_softmax": (lambda x: F.log_softmax(x, 1), X, np.log(softmax(X, 1))),
    "log_softmax far out": (lambda x: F.log_softmax(x, 0), np.array([1000.0, 0]), [0, -1000]),
    "var": (lambda x: F.var(x, 1), X, X.var(1, ddof=1)),
    "var, biased": (lambda x: F.var(x, (0, 1), False), X, X.var()),
    "mean": (lambda x: F.mean(x, 0), X, X.mean(0)),
    "linear": (lambda x: F.linear(x, tensor(X[:2]), tensor(X[0, :2])), X, X @ X[:2].T + X[0, :2]),
    "mse_loss": (lambda x: F.mse_loss(x, X.T.reshape(3, 4)), X, ((X - X.T.reshape(3, 4)) ** 2).mean()),
    "pad": (lambda x: F.pad(x, (1, 2, 0, 3), value=5), X, np.pad(X, ((0, 3), (1, 2)), constant_values=5)),
    "pad, cutting": (lambda x: F.pad(x, (-1, 2)), X, np.pad(X[:, 1:], ((0, 0), (0, 2)))),
    "stack": (lambda x: F.stack([x, 2 * x], -1), X, np.stack([X, 2 * X], -1)),
    "batch_norm, training": (
        lambda x: F.batch_norm(x, None, None, training=True, eps=0.5),
        X,
        (X - X.mean(0)) / np.sqrt(X.var(0) + 0.5),
    ),
    "batch_norm": (
        lambda x: F.batch_norm(x, tensor(X[0]), tensor(X[1] ** 2), tensor(X[2]), tensor(X[0]), eps=0.5),
        X,
        (X - X[0]) / np.sqrt(X[1] ** 2 + 0.5) * X[2] + X[0],
    ),
    "conv2d, same": (  # a 2 x 2 sum: the odd zero goes to the bottom and the right
        lambda x: F.conv2d(x, tensor(np.ones((1, 4, 2, 2))), padding="same"),
        BATCH,
        sum(np.pad(BATCH, ((0, 0), (0, 0), (0, 1), (0, 1)))[:, :, i : i + 6, j : j + 5] for i in (0, 1) for j in (0, 1))
        .sum(axis=1, keepdims=True),
    ),
    "adaptive_avg_pool2d": (  # rows 0-1, 2-3, 4-5; columns 0-2, 2-4, which overlap
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        BATCH,
        np.stack([BATCH[..., :3], BATCH[..., 2:]], -2).reshape(2, 4, 3, 2, 2, 3).mean(axis=(3, 5)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_value(backend, name):
    function, x, expected = VALUES[name]
    np.testing.assert_allclose(function(tensor(x)).numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_getitem_is_numpys(backend, index):
    x = np.arange(24.0).reshape(3, 4, 2)
    np.testing.assert_array_equal(tensor(x)[index].numpy(), x[index])


def test_numbers_are_taken_before_arrays(backend):
    """As in PyTorch. NumPy would count the number as an array, and put the arrays' dimension in front."""
    x = np.arange(24.0).reshape(3, 4, 2)
    first, second = (tensor(x)[index].numpy() for index in INDICES_OF_PYTORCH)
    np.testing.assert_array_equal(first, x[0][:, [1, 1, 0]])
    np.testing.assert_array_equal(second, x[..., 1][[0, 2, 0], 1:3])


def test_index_may_be_a_tensor(backend):
    x = tensor(np.arange(12.0).reshape(3, 4))
    assert x[tensor([2, 0])].shape == (2, 4)
    assert x[x > 6].numpy().tolist() == [7, 8, 9, 10, 11]
    assert x[tensor(1), tensor([2])].numpy().tolist() == [6]


@pytest.mark.parametrize(
    ("settings", "divisors"),
    [
        ({"kernel_size": 2}, [4, 4, 4, 4]),
        ({"kernel_size": 2, "padding": 1}, [4, 4, 4, 4, 4, 4, 4, 4, 4]),
        ({"kernel_size": 2, "padding": 1, "count_include_pad": False}, [1, 2, 1, 2, 4, 2, 1, 2, 1]),
        ({"kernel_size": 3, "stride": 3, "ceil_mode": True}, [9, 3, 3, 1]),  # beyond the edge nothing counts
        ({"kernel_size": 3, "stride": 3, "padding": 1, "ceil_mode": True}, [9, 9, 9, 9]),  # but padding does
        ({"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True}, [9, 9, 6, 9, 9, 6, 6, 6, 4]),
        ({"kernel_size": 2, "divisor_override": 7}, [7, 7, 7, 7]),
    ],
)
def test_what_avg_pool2d_divides_by(backend, settings, divisors):
    """Of ones, a window's mean is the number of pixels in it over the divisor: over 4 x 4 ones, zeros around."""
    x = np.ones((1, 1, 4, 4))
    mean = F.avg_pool2d(tensor(x), **settings).numpy().reshape(-1)
    total = F.avg_pool2d(tensor(x), **{**settings, "divisor_override": 1}).numpy().reshape(-1)
    np.testing.assert_allclose(total / mean, divisors)


def cross_entropy_by_hand(x, target, weight, ignore_index, reduction, smoothing):
    """Row by row, x (N, K): target is labels (N,) or probabilities (N, K)."""
    losses, weights = [], []
    for row, truth in zip(x, target, strict=True):
        log_p = np.log(softmax(row, 0))
        if np.ndim(truth):
            truth = (1 - smoothing) * truth + smoothing / len(row)
            losses.append(-(weight * truth * log_p).sum())
            weights.append(1.0)
        elif truth == ignore_index:
            losses.append(0.0)
        else:
            losses.append(
                -(1 - smoothing) * weight[truth] * log_p[truth] - smoothing / len(row) * (weight * log_p).sum()
            )
            weights.append(weight[truth])
    return {"none": losses, "sum": sum(losses), "mean": sum(losses) / sum(weights)}[reduction]


@pytest.mark.parametrize("target", [LABELS, SOME_IGNORED, probabilities(4, 4)], ids=["labels", "ignored", "soft"])
@pytest.mark.parametrize("weight", [None, CLASS_WEIGHTS], ids=["plain", "weighted"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_by_hand(backend, target, weight, reduction, smoothing):
    x = 3 * separated((4, 4), np.random.default_rng(1))
    found = F.cross_entropy(tensor(x), target, weight, reduction=reduction, label_smoothing=smoothing)
    weights = np.ones(4) if weight is None else weight
    expected = cross_entropy_by_hand(x, target, weights, -100, reduction, smoothing)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    if target.dtype.kind != "f" and not smoothing:
        other = F.nll_loss(F.log_softmax(tensor(x), 1), target, weight, reduction=reduction)
        np.testing.assert_allclose(other.numpy(), expected, rtol=1e-12)


def test_cross_entropy_of_a_map_is_that_of_its_pixels(backend):
    x = separated((2, 3, 2, 3), rng)
    pixels = x.transpose(0, 2, 3, 1).reshape(-1, 3)
    for reduction in ("mean", "sum"):
        whole = F.cross_entropy(tensor(x), MAP_OF_LABELS, reduction=reduction).item()
        apart = F.cross_entropy(tensor(pixels), MAP_OF_LABELS.reshape(-1), reduction=reduction).item()
        assert whole == pytest.approx(apart, rel=1e-12)
    soft = probabilities(2, 3, 2, 3)
    whole = F.cross_entropy(tensor(x), soft).item()
    apart = F.cross_entropy(tensor(pixels), soft.transpose(0, 2, 3, 1).reshape(-1, 3)).item()
    assert whole == pytest.approx(apart, rel=1e-12)


def test_the_loss_of_nothing_is_nan(backend):
    """As in PyTorch: 0 / 0, and not a division error."""
    x = tensor(np.ones((2, 3)), requires_grad=True)
    assert np.isnan(F.cross_entropy(x, np.array([-100, -100])).item())
    assert F.cross_entropy(x, np.array([-100, -100]), reduction="sum").item() == 0
    assert np.isnan(tensor(np.ones((0, 3))).mean().item())
    assert np.isnan(tensor([3.0]).var().item())


@pytest.mark.parametrize(("label", "problem"), [(4, IndexError), (-1, IndexError), (1.5, ValueError)])
def test_labels_out_of_range_are_refused(backend, label, problem):
    with pytest.raises(problem, match="cross_entropy"):
        F.cross_entropy(tensor(np.ones((1, 4))), np.array([label]))


def test_argmax(backend):
    x = tensor([[1.0, 7.0, 7.0], [9.0, 0.0, 9.0]])
    assert F.argmax(x).item() == 3
    assert F.argmax(x, 1).numpy().tolist() == [1, 0]
    assert F.argmax(x, 0, keepdim=True).numpy().tolist() == [[1, 0, 1]]
    assert not F.argmax(tensor([1.0], requires_grad=True), 0).requires_grad


# -- kinks, as PyTorch defines them ---------------------------------------------
def gradients(function, *values, seed=None):
    """d(sum of function)/d(value) for each value, as lists."""
    leaves = [tensor(np.array(v, "float64"), requires_grad=True) for v in values]
    out = function(*leaves)
    out.backward(np.ones(out.shape) if seed is None else np.array(seed))
    return [t.grad.numpy().tolist() for t in leaves]


def test_slope_at_zero_of_relu_and_abs(backend):
    assert gradients(F.relu, [-1, -0.0, 0.0, 2]) == [[0, 0, 0, 1]]
    assert gradients(F.abs, [-3, 0, 2]) == [[-1, 0, 1]]


def test_equal_operands_share(backend):
    assert gradients(F.maximum, [1, 2, 3], [1, 5, 0]) == [[0.5, 0, 1], [0.5, 1, 0]]
    assert gradients(F.minimum, [1, 2, 3], [1, 5, 0]) == [[0.5, 1, 0], [0.5, 0, 1]]
    assert gradients(lambda x: F.maximum(x, 0), [-1, 0, 1]) == [[0, 0.5, 1]]


def test_equal_elements_share(backend):
    assert gradients(lambda x: F.amax(x, 1), [[3, 1, 3], [2, 2, 2]], seed=[6, 9]) == [[[3, 0, 3], [3, 3, 3]]]
    assert gradients(lambda x: F.amin(x, 0), [[1, 2], [1, 3]]) == [[[0.5, 1], [0.5, 0]]]
    assert gradients(F.max, [[4, 4], [4, 4]]) == [[[0.25, 0.25], [0.25, 0.25]]]


def test_along_a_dimension_the_first_wins(backend):
    assert gradients(lambda x: F.max(x, 1).values, [[3, 5, 5], [7, 7, 7]]) == [[[0, 1, 0], [1, 0, 0]]]
    assert F.max(tensor([[3, 5, 5], [7, 7, 7]]), 1).indices.numpy().tolist() == [1, 0]


def test_max_pool2d_gives_to_the_first_in_scan_order(backend):
    assert gradients(lambda x: F.max_pool2d(x, 2), [[[1, 4], [4, 4]]]) == [[[[0, 1], [0, 0]]]]
    three_wins = gradients(lambda x: F.max_pool2d(x, (1, 2), 1), [[[0, 9, 9, 0]]])  # windows 0 9, 9 9, 9 0
    assert three_wins == [[[[0, 2, 1, 0]]]]


def test_clamp_passes_at_its_limits(backend):
    assert gradients(lambda x: F.clamp(x, -1, 2), [-2, -1, 0, 2, 3]) == [[0, 1, 1, 1, 0]]
    assert gradients(lambda x: F.clamp(x, max=2), [1, 2, 3]) == [[1, 1, 0]]
    assert gradients(lambda x: F.clamp(x, min=2), [1, 2, 3]) == [[0, 1, 1]]


def test_pow_at_zero(backend):
    assert gradients(lambda x: x**0, [0, 2]) == [[0, 0]]
    assert gradients(lambda x: x**0, [np.inf, np.nan]) == [[0, 0]]
    assert gradients(lambda x: x**1, [0, 2]) == [[1, 1]]
    assert gradients(lambda x: x**2, [0, -2]) == [[0, -4]]
    assert gradients(lambda e: 0.0**e, [0, 2]) == [[0, 0]]
    slope, in_exponent = gradients(F.pow, [0, 0, 3], [0, 2, 1])
    assert slope == [0, 0, 1]
    assert in_exponent == pytest.approx([0, 0, 3 * np.log(3)])
    with np.errstate(divide="ignore"):
        assert gradients(lambda x: x**0.5, [0, 4]) == [[np.inf, 0.25]]


def test_nan_comes_through(backend):
    nan = np.nan
    x = tensor(np.array([[[1, nan, 3, 2], [0, 0, nan, nan]]]))
    pooled = F.max_pool2d(x, 2).numpy()
    assert np.isnan(pooled).all()
    assert not np.isnan(F.max_pool2d(x[..., :1], 1).numpy()).any()
    assert np.isnan(F.max_pool2d(tensor(np.array([[[nan, 5.0, 1.0]]])), (1, 3)).numpy()).all()
    for function in (F.amax, F.amin, F.max):
        assert np.isnan(function(x).item())
    for function in (F.maximum, F.minimum):
        assert np.isnan(function(tensor([nan, 1.0]), tensor([1.0, nan])).numpy()).all()
    assert F.max(tensor([1.0, nan, 2.0]), 0).indices.item() == 1
    assert np.isnan(F.relu(tensor([nan])).item())
    assert np.isnan(F.clamp(tensor([nan]), 0, 1).item())
    assert gradients(F.amax, [1, nan, nan]) == [[0, 0.5, 0.5]]
    assert gradients(lambda x: F.max_pool2d(x, 2), [[[1, nan], [9, 2]]]) == [[[[0, 1], [0, 0]]]]


def test_infinite_scores(backend):
    """A masked class (score -infinity) has probability 0, takes no gradient, and does not spoil the others."""
    assert F.softmax(tensor([0.0, -np.inf]), 0).numpy().tolist() == [1, 0]
    assert gradients(lambda x: F.cross_entropy(x, np.array([0])), [[0, 0, -np.inf]]) == [[[-0.5, 0.5, 0]]]


def test_quotients_neither_overflow_nor_underflow(backend):
    """-x / y^2 = -1/y where x = y, although y^2 does not fit into float32."""
    for size in (1e25, 1e-25):
        x, y = (tensor(np.array([size], "float32"), requires_grad=True) for _ in range(2))
        (x / y).backward()
        assert y.grad.item() == pytest.approx(-1 / size, rel=1e-6)


@pytest.mark.parametrize("pool", [F.max_pool2d, F.avg_pool2d])
def test_pooling_refuses_padding_that_windows_could_drown_in(backend, pool):
    x = tensor(np.ones((1, 5, 5)))
    assert pool(x, 3, 1, 1).shape == (1, 5, 5)
    for size, padding in ((3, 2), (2, (0, 2))):
        with pytest.raises(ValueError, match="more than half of the"):
            pool(x, size, 1, padding)
