"""Examines the exercises of lesson 5, learning."""

from __future__ import annotations

import math
from typing import Any

import numpy

from .. import functional as F
from ..nn import Module, Parameter
from ..tensor import Tensor, op, tensor
from .examination import Examination, exercise


def _probabilities(scores: numpy.ndarray) -> numpy.ndarray:
    return F.softmax(tensor(scores), dim=1).numpy()


def _plain_softmax(scores: numpy.ndarray, axis: int | None = 1, shift: Any = 0.0) -> numpy.ndarray:
    with numpy.errstate(all="ignore"):
        e = numpy.exp(scores - shift)
        return e / e.sum(axis=axis, keepdims=True)


@exercise(
    "5.1",
    "softmax of scores of any size",
    "Begin with the naive version of the lesson, and subtract something from the scores first.",
    "scores.max(axis=1, keepdims=True) is the largest score of each row, in a shape that fits below the scores.",
)
def softmax(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    small, square = rng.standard_normal((2, 3)).round(2), rng.standard_normal((4, 4)).round(2)
    apart = numpy.array([[1000.0, 999.0, 997.0], [0.0, 1.0, 3.0]])
    tower = numpy.array([[9000.0, 9000.0], [-9000.0, -9001.0], [0.0, 2.0]])
    wide = numpy.array([[0.0, 3000.0, -3000.0], [3000.0, 0.0, 3000.0], [-3000.0, 0.0, 1.0]])
    for scores in (small, square, small + 50, apart, -apart, tower, wide):
        with numpy.errstate(all="ignore"):  # usual mistakes overflow
            suspects = {
                "all probabilities together add up to 1, but each row should: sum along axis 1": _plain_softmax(
                    scores, None, scores.max()
                ),
                "the columns add up to 1, but each row is one image: sum along axis 1": _plain_softmax(
                    scores, 0, scores.max(axis=0)
                ),
                "the largest of each column is subtracted, but a row is one image: scores.max(axis=1, keepdims=True)": (
                    _plain_softmax(scores, 1, scores.max(axis=0))
                ),
                "this divides the scores themselves: take the exponential first": scores
                / scores.sum(axis=1, keepdims=True),
                "these are the exponentials: divide them by their sum": numpy.exp(
                    scores - scores.max(axis=1, keepdims=True)
                ),
                "this is the logarithm of the softmax": F.log_softmax(tensor(scores), dim=1).numpy(),
                "it overflows: subtract the largest score of each row before the exponential": _plain_softmax(scores),
                "the smallest of each row is subtracted, and the others still overflow: the largest": _plain_softmax(
                    scores, 1, scores.min(axis=1, keepdims=True)
                ),
                "the mean of each row is subtracted, and what is far above it still overflows: the largest": (
                    _plain_softmax(scores, 1, scores.mean(axis=1, keepdims=True))
                ),
                "one number is subtracted from all rows, and the rows far below it become 0/0: "
                "subtract each row's own largest": _plain_softmax(scores, 1, scores.max()),
                "a fixed number is subtracted, so that small scores become 0/0: subtract each row's own largest": (
                    _plain_softmax(scores, 1, 1000.0)
                ),
            }
        title = f"softmax(np.array({scores.tolist()}))"
        exam.compare(title, exam.call(scores, title=title), _probabilities(scores), suspects)


@exercise(
    "5.2",
    "cross entropy as an operation",
    "The lesson has both halves: the naive value, and the gradient (probabilities - one-hot) / N.",
    "log_p = shifted - log(sum(exp(shifted))), with shifted = scores - each row's largest. The value is the mean of "
    "-log_p[xp.arange(N), labels].",
    "The gradient of the scores is g * (exp(log_p) - one_hot) / N. one_hot = labels[:, None] == xp.arange(K).",
)
def cross_entropy(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    large = numpy.array([[1000.0, 0.0, -1000.0], [0.0, 3000.0, 1.0], [5.0, 4.0, 5.0], [-700.0, -800.0, -900.0]])
    cases = [
        (2 * rng.standard_normal((4, 3)), numpy.array([2, 0, 2, 1])),
        (2 * rng.standard_normal((2, 5)), numpy.array([4, 4])),
        (2 * rng.standard_normal((3, 3)), numpy.array([1, 2, 0])),
        (large, numpy.array([1, 1, 0, 2])),
    ]
    for scores, labels in cases:
        with numpy.errstate(all="ignore"):
            _one_cross_entropy(exam, scores, labels)
    labels = cases[0][1]
    exam.gradients(lambda x: op(exam.attempt)(x, labels), (4, 3), title="cross_entropy, in the scores")


def _one_cross_entropy(exam: Examination, scores: numpy.ndarray, labels: numpy.ndarray) -> None:
    N, K = scores.shape
    p, one_hot, rows = _probabilities(scores), numpy.eye(K)[labels], numpy.arange(N)
    surprise = -F.log_softmax(tensor(scores), dim=1).numpy()
    title = f"scores of shape {(N, K)}, labels {labels.tolist()}"
    title += f", the first scores {scores[0].tolist()}" if numpy.abs(scores).max() > 100 else ""
    value, (gradient, _) = exam.operation(scores, labels, without_gradient=(1,))
    why = "it overflows: subtract the largest score of each row, and take the logarithm on paper (log softmax)"
    overflown = -numpy.log(_plain_softmax(scores)[rows, labels]).mean()
    suspects = {
        why: overflown,
        "the surprises are added up: it is their mean over the images": surprise[rows, labels].sum(),
        "the sign: a surprise is minus the logarithm, and never negative": -surprise[rows, labels].mean(),
        "this is the mean over all N x K numbers: only the class that is true counts": (surprise * one_hot).mean(),
        "this is the surprise at every class: pick the true one of each row": surprise.mean(),
        "this is the mean probability of the truth: take minus the logarithm": p[rows, labels].mean(),
        "there is one number for each image: take their mean": surprise[rows, labels],
        "every row is looked up at every label: log_p[xp.arange(N), labels] takes one number from each": (
            surprise[:, labels].mean()
        ),
        "the softmax is missing: these are the scores of the truth": -scores[rows, labels].mean(),
        "exp overflows, or a probability rounds to 0 before its logarithm is taken: compute log p as "
        "shifted - log(sum(exp(shifted))), where each row's largest score is subtracted": (
            -numpy.log(p[rows, labels]).mean()
        ),
    }
    for base in (2, 10):
        why = f"the logarithm is to base {base}: it is the natural one"
        suspects[why] = surprise[rows, labels].mean() / math.log(base)
    exam.compare(f"the value for {title}", value, surprise[rows, labels].mean(), suspects)
    for g in (1.0, -2.5):
        suspects = {
            "the division by N is missing: the loss is a mean over the images": g * (p - one_hot),
            "it is divided by N x K, but the mean is over N images": g * (p - one_hot) / (N * K),
            "the gradient that arrives, g, is not used": (p - one_hot) / N,
            "the sign: it is the probabilities minus the one-hot truth": g * (one_hot - p) / N,
            "the one-hot truth is not subtracted": g * p / N,
            "these are the probabilities' gradients, not the scores': p - one-hot is all": -g * one_hot / p / N,
        }
        got = exam.call(numpy.float64(g), function=gradient, title=f"the gradient function for {title}")
        exam.compare(f"the gradient for {title} and g = {g}", got, g * (p - one_hot) / N, suspects)


@exercise(
    "5.3",
    "one step with momentum and weight decay",
    "First the new velocity, from the formula in the lesson: three terms. Then the new weight, with the new velocity.",
    "v = momentum * v - decay * rate * w - rate * g makes a new array. (v *= momentum would change the old one.)",
)
def momentum_step(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for shape, rate, momentum, decay in (
        ((3,), 0.1, 0.9, 0.05),
        ((2, 4), 0.5, 0.5, 0.0),
        ((4, 2, 3), 0.01, 0.9, 0.0005),
        ((2,), 2.0, 0.0, 0.25),
    ):
        w, v, g = (rng.standard_normal(shape) for _ in range(3))
        title = f"momentum_step(w, v, g, {rate}, {momentum}, {decay}) for arrays of shape {shape}"
        answer = exam.call(w, v, g, rate, momentum, decay, title=title)
        if not (isinstance(answer, tuple | list) and len(answer) == 2):
            raise exam.wrong(
                title,
                f"gives {type(answer).__name__}, expected two arrays, (w, v)",
                cause="return both: the new weight and the new velocity",
            )
        _compare_step(exam, title, answer, (w, v, g), (rate, momentum, decay))


def _compare_step(exam: Examination, title: str, answer: Any, arrays: Any, settings: Any) -> None:
    (w, v, g), (rate, momentum, decay) = arrays, settings
    new = momentum * v - decay * rate * w - rate * g
    velocities = {
        "the two results are swapped: first the weight, then the velocity": w + new,
        "the sign of the gradient: the step goes downhill, against it": momentum * v - decay * rate * w + rate * g,
        "PyTorch's form: in the paper's the learning rate is inside the velocity, and so is the minus": (
            momentum * v + g + decay * w
        ),
        "(1 - momentum) is in no form of the rule: the gradient counts in full": (
            momentum * v - (1 - momentum) * (decay * rate * w + rate * g)
        ),
        "momentum multiplies everything: it belongs to the old velocity alone": momentum
        * (v - decay * rate * w - rate * g),
        "the velocity does not depend on the old one: momentum * v is missing": -decay * rate * w - rate * g,
        "the old velocity counts in full: multiply it by momentum": v - decay * rate * w - rate * g,
    }
    if decay:
        velocities |= {
            "the weight decay is missing": momentum * v - rate * g,
            "the decay is not multiplied by the learning rate": momentum * v - decay * w - rate * g,
            "the sign of the decay: it pulls the weight towards 0": momentum * v + decay * rate * w - rate * g,
            "the decay pulls at the velocity: it should pull at the weight": momentum * v - decay * rate * v - rate * g,
            "the decay multiplies the gradient: it should multiply the weight": momentum * v
            - decay * rate * g
            - rate * g,
        }
    exam.compare(f"the new velocity of {title}", answer[1], new, velocities)
    weights = {
        "this is w + v with the old velocity: use the new one": w + v,
        "the weight did not move": w,
        "the sign: w + v, since the minus is in the velocity already": w - new,
        "the rate is in the velocity already: w + v": w + rate * new,
        "this is plain descent: the weight moves by the new velocity": w - rate * g,
        "momentum twice: the weight moves by v itself": w + momentum * new,
        "this is the velocity alone: the new weight is w + v": new,
    }
    exam.compare(f"the new weight of {title}", answer[0], w + new, weights)


@exercise(
    "5.4",
    "the spread of the first weights by He's rule",
    "How many inputs does one output add up? All axes of the shape but the first.",
    "The spread is the square root of 2 / n, and n is the product of shape[1:].",
    "For the two layers of AlexNet it is 0.041 and 0.0147, so 0.01 is 4.1 and 1.5 times too small.",
)
def he_std(exam: Examination) -> None:
    for shape in ((10, 64), (300, 20), (4096, 9216), (96, 3, 11, 11), (256, 48, 5, 5), (8, 2, 3, 1)):
        n, outputs = math.prod(shape[1:]), shape[0]
        suspects = {
            "n is the number of inputs of one output, and shape[0] counts the outputs": (2 / outputs) ** 0.5,
            "this is n itself: the spread is the square root of 2 / n": n,
            "this is the mean square, 2 / n: take its square root": 2 / n,
            "the 2 is missing: behind a ReLU half of the mean square is lost": (1 / n) ** 0.5,
            "the 2 / n is the wrong way round": (n / 2) ** 0.5,
            "the 2 stands outside of the root: it is the square root of 2 / n": 2 / n**0.5,
            "this counts inputs and outputs, which is Glorot's rule": (2 / (n + outputs * math.prod(shape[2:]))) ** 0.5,
            "n is the product of all axes but the first, and this takes the whole shape": (2 / math.prod(shape)) ** 0.5,
        }
        if len(shape) > 2:
            suspects |= {
                "each output of a convolution adds up C x R x S inputs: the filter's size is missing": (
                    (2 / shape[1]) ** 0.5
                ),
                "each output of a convolution adds up C x R x S inputs: the channels are missing": (
                    (2 / math.prod(shape[2:])) ** 0.5
                ),
                "this adds the axes up: multiply them": (2 / sum(shape[1:])) ** 0.5,
            }
        exam.expect(shape, gives=(2 / n) ** 0.5, suspects=suspects)


@exercise(
    "5.5",
    "convolution, ReLU and overlapping max-pooling as one module",
    "Make an nn.Conv2d in __init__ and keep it as an attribute: self.conv = ... In forward, call it and go on.",
    "A filter of `size` pixels keeps height and width if the padding is size // 2. nn.MaxPool2d(3) moves by 3 pixels: "
    "the 2 has to be given.",
)
def ConvBlock(exam: Examination) -> None:  # noqa: N802
    rng = numpy.random.default_rng(0)
    for channels, filters, size, H, W in ((2, 3, 3, 9, 7), (3, 4, 5, 11, 8), (1, 2, 1, 5, 6)):
        made = f"ConvBlock({channels}, {filters}, {size})"
        block = exam.call(channels, filters, size)
        exam.require(
            isinstance(block, Module),
            f"{made} is of the class {type(block).__name__}, which is no nn.Module",
            cause="the class line must read: class ConvBlock(nn.Module)",
        )
        weight, bias = _weight_and_bias(exam, made, block, (filters, channels, size, size))
        another, _ = _weight_and_bias(exam, made, exam.call(channels, filters, size), weight.shape)
        exam.require(
            not numpy.array_equal(another.numpy(), weight.numpy()),
            f"two blocks made by {made} have equal weights",
            cause="the first weights must be random, and others each time: nn.Conv2d sees to that. (A generator made "
            "with a fixed seed inside __init__ begins anew for every block.)",
        )
        bias.data = bias.data + bias.backend.asarray(rng.uniform(-1, 1, filters).astype(bias.dtype))
        x = tensor(rng.standard_normal((2, channels, H, W)).astype(weight.dtype))
        title = f"{made} of an input of shape {x.shape}"
        y = exam.call(x, function=block, title=title)
        exam.require(
            isinstance(y, Tensor),
            title,
            f"gives {type(y).__name__}, expected a tensor",
            cause="NumPy's arrays have no tape: compute with tensors to the end",
        )
        _compare_block(exam, title, y, x, weight, bias, size)
        _compare_gradients(exam, title, block, x, weight, bias, size)


def _weight_and_bias(
    exam: Examination, made: str, block: Module, shape: tuple[int, ...]
) -> tuple[Parameter, Parameter]:
    parameters = list(block.parameters())
    shapes = sorted((p.shape for p in parameters), key=len, reverse=True)
    expected = [shape, shape[:1]]
    tensors = any(isinstance(value, Tensor) for _, value in block.members())
    cause = ""
    if not parameters:
        cause = (
            "a tensor that training may change is made with nn.Parameter(...)"
            if tensors
            else "parameters are found among the attributes: make the layer in __init__ and keep it as self.conv"
        )
    elif len(parameters) == 1:
        cause = "the bias is missing, or is not an nn.Parameter"
    elif (shape[1], shape[0], *shape[2:]) in shapes:
        cause = "channels and filters are swapped: nn.Conv2d(channels, filters, size)"
    elif len(parameters) == 2 and shape in shapes:
        cause = "the bias has one number per filter: its shape is (filters,)"
    elif len(parameters) > 2:
        cause = "there is one layer with weights in a block"
    exam.require(
        shapes == expected,
        f"{made} has parameters of the shapes {shapes}, expected {expected}",
        cause=cause,
    )
    weight, bias = sorted(parameters, key=lambda p: -p.ndim)
    return weight, bias


def _block(x: Tensor, weight: Any, bias: Any, padding: int, bend: Any = F.relu, pool: Any = (3, 2)) -> Tensor:
    y = bend(F.conv2d(x, weight, bias, padding=padding))
    return F.max_pool2d(y, *pool) if pool else y


def _compare_block(exam: Examination, title: str, y: Tensor, x: Tensor, weight: Any, bias: Any, size: int) -> None:
    p = size // 2
    usual = {
        "the ReLU is missing": (p, lambda t: t, (3, 2)),
        "the windows do not overlap: nn.MaxPool2d(3) moves by 3 pixels, write nn.MaxPool2d(3, 2)": (p, F.relu, (3, 3)),
        "the windows have 2 x 2 pixels, AlexNet's 3 x 3": (p, F.relu, (2, 2)),
        "the pooling is missing": (p, F.relu, ()),
        "the windows move by one pixel: they should move by two": (p, F.relu, (3, 1)),
        "this rounds up: leave ceil_mode as it is": (p, F.relu, (3, 2, 0, 1, True)),
        "the bend is a sigmoid: it should be the ReLU": (p, F.sigmoid, (3, 2)),
        "the bend is tanh: it should be the ReLU": (p, F.tanh, (3, 2)),
        "the convolution shrinks the image: it needs padding, size // 2": (0, F.relu, (3, 2)),
        "the padding is `size`: half of it keeps height and width, size // 2": (size, F.relu, (3, 2)),
    }
    if size != 3:
        usual["the padding fits filters of 3 x 3 only: size // 2 fits all"] = (1, F.relu, (3, 2))
    suspects = {}
    for why, (padding, bend, pool) in usual.items():
        try:
            suspects[why] = _block(x, weight, bias, padding, bend, pool).numpy()
        except ValueError:  # the image is smaller than the window
            continue
    suspects["the bias is not used"] = _block(x, weight, None, p).numpy()
    right = _block(x, weight, bias, p).numpy()
    suspects = {why: a for why, a in suspects.items() if a.shape != right.shape or not numpy.allclose(a, right)}
    exam.compare(title, y, right, suspects, tolerance=1e-5)


def _compare_gradients(
    exam: Examination, title: str, block: Module, x: Tensor, weight: Any, bias: Any, size: int
) -> None:
    """The tape must lead from the result to the parameters and the input."""
    leaves = [tensor(t, requires_grad=True) for t in (x, weight, bias)]
    expected = _block(leaves[0], leaves[1], leaves[2], size // 2)
    direction = numpy.random.default_rng(1).standard_normal(expected.shape)
    expected.backward(direction)
    block.zero_grad()
    leaf = tensor(x, requires_grad=True)
    y = exam.call(leaf, function=block, title=title)
    exam.require(
        y.requires_grad,
        f"{title} remembers nothing of how it was made",
        cause="the tape is cut: .numpy(), .data and no_grad leave it",
    )
    exam.call(function=lambda: (y.backward(direction), "done"), title=f"going back from {title}")
    for name, mine, theirs in zip(("input", "weight", "bias"), (leaf, weight, bias), leaves, strict=True):
        got, right = mine.grad, theirs.grad
        exam.require(
            got is not None and right is not None,
            f"no gradient reaches the {name} of {title}",
            cause="the tape is cut on the way: .numpy(), .data and no_grad leave it",
        )
        exam.compare(f"the gradient of the {name} in {title}", got, right, tolerance=1e-4)
