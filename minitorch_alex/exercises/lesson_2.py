"""Examines the exercises of lesson 2, checking gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy

from .examination import Examination, exercise


# -- functions that are given to the learner's ----------------------------------------
def square(x):
    return x * x


def cube(x):
    return x * x * x


def reciprocal(x):
    return 1 / x


def row_sums_of_cubes(x):
    return (x * x * x).sum(axis=-1)


def products_of_neighbours(x):
    return x[..., 1:] * x[..., :-1]


def itself(x):
    return x  # and no copy of it


def total_of_cubes(x):
    return (x * x * x).sum()


# -- the exercises --------------------------------------------------------------------
@exercise(
    "2.1",
    "a central difference",
    "How much does f change between x - e and x + e? And how far apart are these two?",
    "They are 2 * e apart. Mind the order of operations: a / 2 * e is (a / 2) * e.",
)
def central_difference(exam: Examination) -> None:
    for f, slope, x, e in (
        (cube, 12.0, 2.0, 0.25),
        (square, -6.0, -3.0, 0.1),
        (reciprocal, -4.0, 0.5, 0.125),
        (cube, 3.0, -1.0, 1e-3),
    ):
        up, middle, down = f(x + e), f(x), f(x - e)
        right = (up - down) / (2 * e)
        suspects = {
            "this is the forward difference: x is to be moved both ways": (up - middle) / e,
            "this looks down only: x is to be moved both ways": (middle - down) / e,
            "twice too large: the two places are 2 * e apart": (up - down) / e,
            "the change is not divided by anything: the two places are 2 * e apart": up - down,
            "a / 2 * e is (a / 2) * e: put the 2 * e in parentheses": (up - down) / 2 * e,
            "the division is done before the subtraction: put the difference in parentheses": up - down / (2 * e),
            "the wrong way round: this is down minus up": -right,
            "this is the exact slope: what is wanted is the difference for the e that is given": slope,
            "this is twice the change of f: divide by 2 * e, not by e and then times 2": 2 * (up - down) / e,
        }
        exam.expect(f, x, e, gives=right, suspects=suspects)


@exercise(
    "2.2",
    "a numeric gradient for every shape",
    "Begin with zeros of x's shape, and fill in one element after the other. Which copies of x does each one need?",
    "For every place in np.ndindex(x.shape): two fresh copies of x, with e added at [place] in one and subtracted in "
    "the other. Multiply the change of f by v and add up, then divide by 2 * e.",
)
def numeric_gradient(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for f, shape, e in (
        (square, (4,), 0.1),
        (cube, (3,), 0.25),
        (row_sums_of_cubes, (2, 3), 0.25),
        (products_of_neighbours, (3, 4), 1e-2),
        (cube, (2, 1, 3), 0.2),
        (total_of_cubes, (3, 2), 0.125),
        (itself, (2, 2), 0.125),
        (cube, (), 0.25),
    ):
        x = numpy.asarray(rng.uniform(0.5, 2.0, shape))
        v = numpy.asarray(rng.standard_normal(f(x).shape))
        right = _gradient(f, x, v, e)
        suspects = {
            "everything is 0: are both copies the same array? `up = x` makes none, x.copy() does": numpy.zeros(shape),
            "the weights v are not used": _gradient(f, x, numpy.ones_like(v), e),
            "this is the forward difference: each element is to be moved both ways": _gradient(f, x, v, e, down=0.0),
            "twice too large: the two places are 2 * e apart": 2 * right,
            "this is not divided by 2 * e": right * (2 * e),
            "a / 2 * e is (a / 2) * e: put the 2 * e in parentheses": right * e * e,
            "elements stay moved when the next one's turn comes: begin with fresh copies of x for each": _staying(
                f, x, v, e
            ),
            "all elements are moved at once: move one at a time": numpy.full(shape, _along(f, x, v, e, ...)),
        }
        if len(shape) > 1:
            rows = numpy.array([_along(f, x, v, e, i) for i in range(len(x))])
            why = "a whole row is moved at once: index single elements, x[place] with place from np.ndindex(x.shape)"
            suspects[why], suspects[why + ", and give the result x's shape"] = _spread(rows, shape), rows
        exam.expect(f, x, v, e, gives=right, suspects=suspects)


@exercise(
    "2.3",
    "a gradient mended",
    "gradcheck(quotient_wrong, (4,), (4,)) says which input is wrong. What is the slope of x / y when y grows?",
    "x / y is x times 1 / y, and the slope of 1 / y is -1 / (y * y).",
)
def mended(exam: Examination) -> None:
    for x, y, g in (
        (numpy.array([1.5, -2.0, 0.5]), numpy.array([2.0, 0.5, -4.0]), numpy.array([1.0, 1.0, 1.0])),
        (numpy.array([1.5, -2.0, 0.5]), numpy.array([2.0, 0.5, -4.0]), numpy.array([1.0, -0.5, 2.0])),
    ):
        value, (to_x, to_y) = exam.operation(x, y)
        given = f"x = {x.tolist()}, y = {y.tolist()}"
        exam.compare(f"the value for {given}", value, x / y, {"the operation itself was right: x / y": x * y})
        given += f", g = {g.tolist()}"
        unused = "the gradient that arrives, g, is not used"
        title = f"the gradient of x for {given}"
        suspects = {
            unused: 1 / y,
            "this gradient was right before: the slope of x / y, when x grows, is 1 / y": g * y,
            "x has the gradient of y: they stand in the order of the inputs": -g * x / y**2,
        }
        exam.compare(title, exam.call(g, function=to_x, title=title), g / y, suspects)
        title = f"the gradient of y for {given}"
        suspects = {
            unused: -x / y**2,
            "that is what it was: the larger x is, the more x / y changes with y, and x does not occur": -g / y**2,
            "the sign: when y grows, x / y comes closer to 0": g * x / y**2,
            "the slope of 1 / y is -1 / (y * y): y occurs twice": -g * x / y,
            "y has the gradient of x: they stand in the order of the inputs": g / y,
            "x does not grow here: it is a factor, as it stands": -g / (x * y**2),
        }
        exam.compare(title, exam.call(g, function=to_y, title=title), -g * x / y**2, suspects)
    exam.gradients(exam.as_op(), (2, 3), (3,), title="mended")


@exercise(
    "2.4",
    "the largest relative error",
    "First the size of each pair, np.maximum(abs(analytic), abs(numeric)). Where that is 0, divide by something else.",
    "np.where(size == 0, 1.0, size) is safe to divide by. Take the largest with NumPy's max, which keeps NaN. Python's "
    "may lose it, because every comparison with NaN is false.",
)
def largest_relative_error(exam: Examination) -> None:
    for analytic, numeric in (
        ([3.0, 2.0, -4.0], [2.5, 1.8, -5.0]),
        ([3.0, -2.0, 0.5], [2.4, 2.0, 0.45]),
        ([[100.0, 1.0, 5.0], [-1.0, -8.0, 2.0]], [[102.0, 1.1, 4.9], [-0.5, -8.2, 2.1]]),
        ([0.0, 1.0, 4.0], [0.0, 1.25, 4.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([3.0, 0.0], [3.0, 1e-9]),
        ([3.0, 1e-12], [3.0, 2e-12]),
        ([2.0], [2.5]),
        ([3.0, 1e-320], [3.0, 2e-320]),
    ):
        a, n = numpy.array(analytic), numpy.array(numeric)
        with numpy.errstate(all="ignore"):  # whether an answer is safe is seen from what it is
            exam.expect(a, n, gives=_relative(a, n).max(), suspects=_other_errors(a, n))
    nan = numpy.nan
    for analytic, numeric in (([1.0, nan, 2.0], [1.0, 1.0, 2.5]), ([0.0, 2.0], [nan, 2.5]), ([nan], [nan])):
        a, n = numpy.array(analytic), numpy.array(numeric)
        title = f"largest_relative_error({a.tolist()}, {n.tolist()})"
        with numpy.errstate(all="ignore"):
            answer = exam.call(a, n, title=title)
        try:
            number = float(answer)
        except (TypeError, ValueError):
            raise exam.wrong(title, f"gives {type(answer).__name__}, expected NaN") from None
        cause = "NaN is lost: every comparison with NaN is false, and nanmax and Python's max pass over it"
        exam.require(numpy.isnan(number), title, f"gives {number:.6g}, expected NaN", cause=cause)


# -- what is right, and what usual mistakes give --------------------------------------
def _weighted(f: Callable, x: numpy.ndarray, v: numpy.ndarray) -> float:
    return float((v * f(x)).sum())


def _moved(x: numpy.ndarray, place, step: float) -> numpy.ndarray:
    moved = x.copy()
    moved[place] += step
    return moved


def _along(f: Callable, x: numpy.ndarray, v: numpy.ndarray, e: float, place, down: float = 1.0) -> float:
    """The slope when what x[place] holds is moved, both ways if down is 1."""
    change = _weighted(f, _moved(x, place, e), v) - _weighted(f, _moved(x, place, -down * e), v)
    return change / ((1 + down) * e)


def _gradient(f: Callable, x: numpy.ndarray, v: numpy.ndarray, e: float, down: float = 1.0) -> numpy.ndarray:
    slopes = [_along(f, x, v, e, place, down) for place in itertools.product(*map(range, x.shape))]
    return numpy.array(slopes).reshape(x.shape)


def _staying(f: Callable, x: numpy.ndarray, v: numpy.ndarray, e: float) -> numpy.ndarray:
    """What comes out if the same two copies are used for all elements."""
    up, down, slopes = x.copy(), x.copy(), []
    for place in itertools.product(*map(range, x.shape)):
        up[place] += e
        down[place] -= e
        slopes.append((_weighted(f, up, v) - _weighted(f, down, v)) / (2 * e))
    return numpy.array(slopes).reshape(x.shape)


def _spread(rows: numpy.ndarray, shape: tuple[int, ...]) -> numpy.ndarray:
    """One number per row, written into all of the row."""
    return numpy.broadcast_to(rows.reshape(-1, *[1] * (len(shape) - 1)), shape)


def _relative(a: numpy.ndarray, n: numpy.ndarray) -> numpy.ndarray:
    """The relative error of each pair."""
    errors = [0.0 if p == q else abs(p - q) / max(abs(p), abs(q)) for p, q in zip(a.flat, n.flat, strict=True)]
    return numpy.array(errors).reshape(a.shape)


def _other_errors(a: numpy.ndarray, n: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """What somebody else might take for the largest relative error, by what is to be said of it."""
    right, distance, size = _relative(a, n), abs(a - n), numpy.maximum(abs(a), abs(n))
    larger, largest = "divide by the larger of the two", "the largest is wanted"
    each = "divide each by its own size, then take the largest"
    suspects = {
        f"this is the absolute distance: {larger}": distance.max(),
        f"this is the mean: {largest}": right.mean(),
        f"this is the smallest error: {largest}": right.min(),
        "these are the errors of all elements: the largest of them is wanted, one number": right,
        f"divided by the analytic one only: {larger}": (distance / abs(a)).max(),
        f"divided by the numeric one only: {larger}": (distance / abs(n)).max(),
        f"divided by the smaller of the two: {larger}": (distance / numpy.minimum(abs(a), abs(n))).max(),
        f"divided by the sum of the two: {larger}": (distance / (abs(a) + abs(n))).max(),
        f"divided by the mean of the two: {larger}": (2 * distance / (abs(a) + abs(n))).max(),
        "the signs: the distance is abs(analytic - numeric)": ((a - n) / size).max(),
        "the signs: the distance is abs(numeric - analytic)": ((n - a) / size).max(),
        "the signs: the size is the larger of abs(analytic) and abs(numeric)": (distance / numpy.maximum(a, n)).max(),
        f"the largest distance is divided by the largest number: {each}": distance.max() / size.max(),
    }
    for floor in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12):
        added, least = (distance / (size + floor)).max(), (distance / numpy.maximum(size, floor)).max()
        suspects[f"{floor:.0e} is added before dividing: there is to be no floor"] = added
        suspects[f"what is divided by is never less than {floor:.0e}: there is to be no floor"] = least
    suspects = {why: error for why, error in suspects.items() if not numpy.isnan(error).any()}
    return suspects | {"NaN is 0/0, where both elements are 0: divide by something else there": numpy.array(numpy.nan)}
