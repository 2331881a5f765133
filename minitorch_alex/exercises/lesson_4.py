"""Examines the exercises of lesson 4, pooling, normalisation and dropout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from ..backends.numpy_backend import BACKEND, Window
from .examination import Examination, exercise, shown


@exercise(
    "4.1",
    "how many pooling windows contain a pixel",
    "Window p covers the pixels p * stride to p * stride + kernel - 1. Which windows are there at all?",
    "range(0, n - kernel + 1, stride) are the starts of the windows. Count those with start <= i < start + kernel.",
)
def windows_that_see(exam: Examination) -> None:
    cases = [
        (4, 9, 3, 2), (3, 9, 3, 2), (0, 9, 3, 2), (8, 9, 3, 2), (7, 8, 3, 2), (6, 8, 3, 2), (2, 8, 2, 2), (2, 9, 2, 3),
        (3, 9, 2, 3), (5, 12, 5, 1), (1, 12, 5, 1), (10, 12, 5, 1), (0, 5, 5, 2), (9, 10, 4, 4), (27, 55, 3, 2),
        (1, 2, 5, 1),
    ]  # fmt: skip
    answers = [exam.call(*case) for case in cases]
    mistakes = [_window_mistakes(*case) for case in cases]
    for case, here in zip(cases, mistakes, strict=True):
        # a mistake explains an answer only if it explains all of them
        alike = {why: here[why] for why in here if _all_equal(answers, [m[why] for m in mistakes])}
        i, n, kernel, stride = case
        exam.expect(*case, gives=_count(numpy.arange(0, n - kernel + 1, stride), i, kernel), suspects=alike)


def _all_equal(answers: list[Any], others: list[int]) -> bool:
    try:
        return [int(a) for a in answers] == others
    except Exception:  # an answer may be anything
        return False


def _window_mistakes(i: int, n: int, kernel: int, stride: int) -> dict[str, int]:
    """What usual mistakes would answer, by their explanation."""
    starts = numpy.arange(0, n - kernel + 1, stride)
    partial = numpy.arange(0, n, stride)
    anywhere = numpy.arange(-kernel * stride, n + kernel * stride, stride)
    return {
        "the last window is missing: it may start at n - kernel": _count(starts[starts < n - kernel], i, kernel),
        "windows that reach over the end count here: only those that fit exist": _count(partial, i, kernel),
        "this counts windows that begin before pixel 0 or reach over the end": _count(anywhere, i, kernel),
        "a window ends at start + kernel - 1: this one is a pixel too long": _count(starts, i, kernel + 1),
        "this one's windows are a pixel too short: they end at start + kernel - 1": _count(starts, i, kernel - 1),
        "this is the number of all windows: count only those that contain pixel i": (n - kernel) // stride + 1,
        "the windows are `stride` apart, not 1": _count(numpy.arange(n - kernel + 1), i, kernel),
        "this is the same for all pixels: those near the ends are in fewer windows": kernel // stride,
    }


def _count(starts: numpy.ndarray, i: int, kernel: int) -> int:
    return int(((starts <= i) & (i < starts + kernel)).sum())


@exercise(
    "4.2",
    "the gradient of max pooling",
    "Go over all windows. In each, find the place of the largest number: that pixel of gx receives the window's gy.",
    "divmod(window.argmax(), kernel) gives row and column inside the window. Add p * stride and q * stride for the "
    "place in the image, and use += there.",
)
def max_pool_gradient(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    levels = rng.integers(0, 3, (9, 5)).astype("float64")
    cases = [
        (rng.standard_normal((4, 8)), 2, 2),
        (rng.standard_normal((7, 9)), 3, 2),
        (rng.standard_normal((6, 5)), 3, 1),
        (-1e300 * (1 + rng.random((5, 8))), 2, 3),
        (levels, 3, 2),
        (numpy.zeros((2, 4)), 2, 1),
    ]
    for x, kernel, stride in cases:
        window = Window((kernel, kernel), (stride, stride))
        _, winner = BACKEND.max_pool2d(x[None, None], window)
        gy = rng.standard_normal(winner.shape[2:])
        right = BACKEND.max_pool2d_gradient(gy[None, None], winner, (1, 1, *x.shape), window)[0, 0]
        suspects = {why: _pool_back(x, gy, kernel, stride, wrong) for why, wrong in _POOL_MISTAKES.items()}
        exam.expect(x, gy, kernel, stride, gives=right, suspects=suspects)


_POOL_MISTAKES = {
    "a pixel can win in several windows, and its gradients add up: += where = is": "=",
    "row and column inside the window are swapped: argmax counts row by row": "swapped",
    "this is the place inside the window: the window starts at [p * stride, q * stride]": "inside",
    "windows are `stride` apart, not `kernel`": "apart",
    "every tied pixel receives the gradient, as in 2012: here the first in reading order alone does": "all tied",
    "ties go to the last pixel here: the first in reading order wins (> where >= is)": "last",
    "the gradient of a tie is divided here: the first in reading order receives all of it": "shared",
    "every pixel of a window receives its gradient: only the one that won should": "everybody",
    "the gradient that arrives, gy, is not used": "ones",
    "negative numbers never win here: does the search for the maximum begin at 0?": "from 0",
    "the window's maximum was passed on in place of its gradient, gy[p, q]": "value",
}


def _pool_back(x: numpy.ndarray, gy: numpy.ndarray, kernel: int, stride: int, mistake: str) -> numpy.ndarray:
    """What a usual mistake would answer."""
    gx, step = numpy.zeros(x.shape), kernel if mistake == "apart" else stride
    for p, q in numpy.ndindex(gy.shape):
        window = x[p * step : p * step + kernel, q * step : q * step + kernel]
        if not window.size or (mistake == "from 0" and window.max() <= 0):
            continue
        winners = numpy.argwhere(window == window.max())
        if mistake == "last":
            winners = winners[-1:]
        elif mistake == "everybody":
            winners = numpy.argwhere(window == window)
        elif mistake not in ("all tied", "shared"):
            winners = winners[:1]
        gradient = {"ones": 1.0, "value": window.max(), "shared": gy[p, q] / len(winners)}.get(mistake, gy[p, q])
        for r, s in winners[:, ::-1] if mistake == "swapped" else winners:
            place = (r, s) if mistake == "inside" else (p * step + r, q * step + s)
            if all(i < n for i, n in zip(place, x.shape, strict=True)):
                gx[place] = gradient + (0 if mistake == "=" else gx[place])
    return gx


@exercise(
    "4.3",
    "local response normalisation with the paper's constants",
    "x[:, first:stop] are the channels first to stop - 1 of all images and pixels. Which are they for channel c?",
    "first = max(0, c - n // 2), stop = c + n // 2 + 1. The squares are to be summed over axis 1, and the scale is "
    "k + alpha * that sum.",
)
def lrn(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = [
        ((2, 7, 3, 4), 5, 1.0, 0.75, 2.0),
        ((2, 6, 4, 3), 3, 0.5, 0.5, 1.0),
        ((1, 4, 2, 2), 1, 2.0, 0.75, 0.5),
        ((3, 3, 1, 2), 7, 1.0, 0.75, 1.0),  # a window that is wider than there are channels
        ((1, 9, 2, 3), 5, 1e-4, 0.75, 2.0),
    ]
    for shape, n, alpha, beta, k in cases:
        x = rng.standard_normal(shape) * (100 if alpha < 0.01 else 1)
        right, _ = BACKEND.local_response_norm(x, n, alpha * n, beta, k)
        exam.expect(x, n, alpha, beta, k, gives=right, suspects=_lrn_mistakes(x, n, alpha, beta, k))


def _lrn_mistakes(x: numpy.ndarray, n: int, alpha: float, beta: float, k: float) -> dict[str, Any]:
    """What usual mistakes would answer, by their explanation."""
    C, half, square = x.shape[1], n // 2, x * x

    def sums(of: Callable[[int], numpy.ndarray]) -> numpy.ndarray:
        return numpy.stack([of(c) for c in range(C)], axis=1)

    energy = sums(lambda c: square[:, max(0, c - half) : c + half + 1].sum(1))
    energies = {
        "the window ends too early: c + n // 2 belongs to it, and a slice stops before its end": sums(
            lambda c: square[:, max(0, c - half) : c + half].sum(1)
        ),
        "at the first channels the window starts at a negative number, which Python counts from the end": sums(
            lambda c: square[:, c - half : c + half + 1].sum(1)
        ),
        "the window is cut off at the first and last channel: this one goes round to the other end": sum(
            numpy.roll(square, shift, axis=1) for shift in range(-half, half + 1)
        ),
        "n is the number of channels in the whole window: n // 2 to each side": sums(
            lambda c: square[:, max(0, c - n) : c + n + 1].sum(1)
        ),
        "the channel itself belongs to its window": energy - square,
        "the window is to be centred on its channel: n // 2 before it and n // 2 after it": sums(
            lambda c: square[:, max(0, c - n + 1) : c + 1].sum(1)
        ),
        "the responses are to be squared before they are summed": sums(
            lambda c: x[:, max(0, c - half) : c + half + 1].sum(1)
        ),
        "squared after the sum: each response is squared by itself": sums(
            lambda c: x[:, max(0, c - half) : c + half + 1].sum(1) ** 2
        ),
        "each pixel of each image has a sum of its own: sum over axis 1 alone": sums(
            lambda c: numpy.full((x.shape[0], *x.shape[2:]), square[:, max(0, c - half) : c + half + 1].sum())
        ),
        "alpha is divided by n here: in the paper it multiplies the sum": energy / n,
        "alpha is multiplied by n here: the paper's formula has no n in front of the sum": energy * n,
    }
    scale = k + alpha * energy
    with numpy.errstate(all="ignore"):  # a sum that is not of squares may be negative
        answers = {why: x / (k + alpha * e) ** beta for why, e in energies.items()}
        answers |= {
            "k is missing, or not the one that was given": x / (alpha * energy) ** beta,
            "beta is an exponent, not a factor": x / (beta * scale),
            "the exponent beta is missing": x / scale,
            "x is to be divided by the scale to the power beta, not multiplied": x * scale**beta,
            "x itself is missing: this is what it is to be divided by": scale**beta,
            "this is 1 / scale**beta: x is still to be multiplied by it": scale**-beta,
            "alpha multiplies k, too: only the sum is to be multiplied": x / (alpha * (k + energy)) ** beta,
        }
    y = x.copy()
    for c in range(C):
        y[:, c] /= (k + alpha * (y[:, max(0, c - half) : c + half + 1] ** 2).sum(1)) ** beta
    answers["the window holds channels that are normalised already: sum the squares of the original x"] = y
    return answers


@exercise(
    "4.4",
    "the constants of other engines",
    "Three things may differ: what size counts, what alpha multiplies, and k. One of them needs no change at all.",
    "Here alpha is divided by the number of channels in the window. Where it was not, multiply by that number first. A "
    "radius r makes a window of 2 * r + 1 channels.",
)
def settings_here(exam: Examination) -> None:
    cases = [
        ("caffe", 5, 1.0, 1.0), ("paper", 5, 1.0, 2.0), ("tensorflow", 2, 1.0, 1.0), ("paper", 3, 0.25, 1.0),
        ("tensorflow", 5, 0.5, 2.0), ("caffe", 3, 0.25, 2.0), ("tensorflow", 1, 0.125, 0.5), ("paper", 5, 1e-4, 2.0),
    ]  # fmt: skip
    x = numpy.random.default_rng(0).standard_normal((2, 12, 1, 3)) * 2
    for who, size, alpha, k in cases:
        radius = size if who == "tensorflow" else size // 2
        channels = 2 * radius + 1
        right = (channels, alpha if who == "caffe" else alpha * channels, k)
        title = f"settings_here({who!r}, {size}, {alpha}, {k})"
        got = exam.call(who, size, alpha, k)
        exam.compare(title, got, right, _settings_suspects(who, size, alpha, k))
        whole = isinstance(got[0], int | numpy.integer) and not isinstance(got[0], bool)
        exam.require(
            whole,
            title,
            f"size is {shown(got[0])}, expected a whole number",
            cause="a division with / makes a fraction",
        )
        y, _ = BACKEND.local_response_norm(x, int(got[0]), float(got[1]), 0.75, float(got[2]))
        a = alpha / size if who == "caffe" else alpha
        energy = [(x[:, max(0, c - radius) : c + radius + 1] ** 2).sum(1) for c in range(x.shape[1])]
        exam.compare(f"what F.local_response_norm gives with {title}", y, x / (k + a * numpy.stack(energy, 1)) ** 0.75)


def _settings_suspects(who: str, size: int, alpha: float, k: float) -> dict[str, Any]:
    """What usual mistakes would answer, by their explanation."""
    suspects = {}
    if who == "caffe":
        suspects["Caffe divides alpha by size, and so does this engine: nothing changes"] = (size, alpha * size, k)
        suspects["Caffe divides alpha by size itself, and so does this engine: hand it on as it is"] = (
            size, alpha / size, k,
        )  # fmt: skip
    elif who == "paper":
        suspects["alpha will be divided by size here, so multiply by size first"] = (size, alpha, k)
        suspects["alpha will be divided by size here once more: multiply by size, do not divide"] = (
            size, alpha / size, k,
        )  # fmt: skip
    else:
        n = 2 * size + 1
        suspects |= {
            "TensorFlow's alpha multiplies the sum: it will be divided here, so multiply it first": (n, alpha, k),
            "multiply alpha by the number of channels in the window, 2 * size + 1, not by the radius": (
                n, alpha * size, k,
            ),
            "alpha will be divided by the number of channels here once more: multiply": (n, alpha / n, k),
            "a radius is not a size: the window has 2 * size + 1 channels": (size, alpha * size, k),
            "a radius is not a size, and alpha is not divided in TensorFlow": (size, alpha, k),
            "the window has 2 * size + 1 channels: the one in the middle counts, too": (2 * size, alpha * 2 * size, k),
        }  # fmt: skip
    n = size if who != "tensorflow" else 2 * size + 1
    for other in {1.0, 2.0} - {k}:
        suspects["k is the one that was given"] = (n, alpha if who == "caffe" else alpha * n, other)
    return suspects


@exercise(
    "4.5",
    "dropout in the paper's way, with its gradient",
    "The value is x times a factor in both cases. In training the factor is an array of 0 and 1, in testing a number.",
    "u >= p says which units are kept, and in testing the factor is 1 - p. The gradient function multiplies g by the "
    "same factor.",
)
def paper_dropout(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for shape, p, training in (
        ((6,), 0.5, True), ((6,), 0.5, False), ((3, 8), 0.2, True), ((3, 8), 0.2, False), ((40,), 0.9, True),
        ((2, 2, 4), 0.75, False), ((5,), 0.0, True),
    ):  # fmt: skip
        x, u, g = rng.standard_normal(shape) + 3, rng.random(shape), rng.standard_normal(shape)
        u.flat[0] = p  # which is not below p
        mask = u >= p
        title = f"paper_dropout(xp, x, u, p={p}, training={training})"
        value, (gradient,) = exam.operation(x, settings=(u, p, training), title=title)
        factor = mask if training else numpy.full(shape, 1 - p)
        again, _ = exam.operation(x, settings=(u, p, training), title=title)
        own = "it draws random numbers of its own: which units are dropped is decided by u"
        exam.require(not _differ(value, again), title, "gives another value when it is called again", cause=own)

        factors = _wrong_factors(mask, p, training)
        suspects: dict[str, Any] = {why: x * f for why, f in factors.items()}
        exam.compare(f"the value of {title}", value, x * factor, suspects)

        suspects = {why: g * f for why, f in factors.items()}
        suspects["the gradient that arrives, g, is to be multiplied, not x"] = x * factor
        suspects["the gradient that arrives, g, is not used"] = factor
        suspects["x does not belong here: x * factor has the slope factor"] = x * factor * g
        unchanged = "g is passed on as it came: multiply it by what x was multiplied by"
        suspects = {unchanged: g, **suspects}
        if not training:
            suspects = {"in testing the gradient is masked: there it is multiplied by 1 - p": g * mask, **suspects}
        what = f"the gradient of {title}"
        exam.compare(what, exam.call(g, function=gradient, title=what), g * factor + 0.0, suspects)


def _differ(a: Any, b: Any) -> bool:
    try:
        return not numpy.array_equal(numpy.asarray(a), numpy.asarray(b))
    except (TypeError, ValueError):
        return False  # no arrays: what they are is said elsewhere


def _wrong_factors(mask: numpy.ndarray, p: float, training: bool) -> dict[str, Any]:
    """What usual mistakes would multiply by, by their explanation."""
    if p == 0:
        return {}
    if training:
        return {
            "the kept units are scaled up here, which is this engine's way: the paper's leaves them as they are": mask
            / (1 - p),
            "the wrong ones are dropped: those where u is below p": ~mask,
            "the wrong ones are dropped, those where u is below p should be, and the others are scaled up": ~mask
            / (1 - p),
            "the units are scaled down in training: that belongs to testing": mask * (1 - p),
            "nothing is dropped in training": numpy.ones(mask.shape),
            "this is what belongs to testing: look at which case is which": numpy.full(mask.shape, 1 - p),
        }
    return {
        "in testing multiply by the probability of being kept, 1 - p": numpy.full(mask.shape, p),
        "nothing is scaled in testing: that is this engine's way, the paper multiplies by 1 - p": numpy.ones(
            mask.shape
        ),
        "units are dropped in testing: there all of them take part": mask,
        "units are dropped in testing, too: there all of them take part": mask * (1 - p),
        "in testing divided by 1 - p: the paper multiplies": numpy.full(mask.shape, 1 / (1 - p)),
    }
