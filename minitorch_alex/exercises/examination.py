"""Look at a learner's function the way a teacher does: try it, and say what is wrong in words that help."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from ..gradcheck import gradcheck
from ..tensor import Tensor, op

PACKAGE = Path(__file__).parents[1]
EXERCISES: dict[str, Exercise] = {}  # by number, in the order of the lessons


@dataclass(frozen=True)
class Exercise:
    """One exercise and how it is examined."""

    number: str  # "3.2": lesson and place
    name: str  # of the function or class to write
    task: str  # in a few words
    hints: tuple[str, ...]
    examine: Callable[[Examination], None]


def exercise(number: str, task: str, *hints: str) -> Callable[[Callable[[Examination], None]], Exercise]:
    """Enter the examining function below into the list, under its own name: that of what the learner writes."""

    def enter(examine: Callable[[Examination], None]) -> Exercise:
        EXERCISES[number] = Exercise(number, examine.__name__, task, hints, examine)
        return EXERCISES[number]

    return enter


class Mistake(Exception):
    """What is wrong with an attempt. A notebook shows the text alone."""

    def _render_traceback_(self) -> list[str]:  # what IPython asks for
        return str(self).splitlines()


class Unsolved(Mistake):
    """Nothing was written yet."""


class Examination:
    """One attempt at one exercise, and how many checks it has passed."""

    def __init__(self, exercise: Exercise, attempt: Any) -> None:
        self.exercise, self.attempt, self.checks = exercise, attempt, 0

    def wrong(self, *lines: str, cause: str = "") -> Mistake:
        """The mistake to raise."""
        e = self.exercise
        advice = [f"likely cause: {cause}"] if cause else []
        return Mistake(
            "\n  ".join([f"{e.number} {e.name}: not right yet.", *lines, *advice, f'hint("{e.number}") helps.'])
        )

    def require(self, holds: Any, *lines: str, cause: str = "") -> None:
        """One check that is a plain condition; the lines say what is wrong if it fails."""
        if not holds:
            raise self.wrong(*lines, cause=cause)
        self.checks += 1

    def call(
        self, *arguments: Any, function: Callable | None = None, title: str = "", stops: dict[str, str] | None = None
    ) -> Any:
        """What the attempt, or a function it returned, makes of these arguments, which it must leave as they are.

        `stops` explains errors by words that occur in them.
        """
        function = self.attempt if function is None else function
        title = title or f"{self.exercise.name}({', '.join(map(shown, arguments))})"
        before = [copy.deepcopy(a) if isinstance(a, numpy.ndarray | Tensor) else a for a in arguments]
        try:
            with numpy.errstate(all="ignore"):  # infinities and NaN are explained here
                answer = function(*arguments)
        except NotImplementedError:
            raise Unsolved(f"{self.exercise.number} {self.exercise.name}: not solved yet.") from None
        except (Exception, SystemExit) as error:
            raise self.wrong(title, *_stopped(error), cause=_cause_of_stop(error, stops)) from None
        if not all(map(_same, before, arguments)):
            raise self.wrong(title, "changes what it was given", cause="it writes into its argument: work on a copy")
        if answer is None:
            raise self.wrong(title, "gives None", cause="there is no return at its end")
        return answer

    def expect(self, *arguments: Any, gives: Any, suspects: dict[str, Any] | None = None, tolerance: float = 1e-7):
        """The attempt must answer `gives`. `suspects`: what usual mistakes would answer, by their explanation."""
        title = f"{self.exercise.name}({', '.join(map(shown, arguments))})"
        self.compare(title, self.call(*arguments), gives, suspects, tolerance)

    def compare(
        self, title: str, got: Any, expected: Any, suspects: dict[str, Any] | None = None, tolerance: float = 1e-7
    ) -> None:
        """One check that an array is what it should be. `title` says what was computed."""
        found, truth = _array(got), numpy.asarray(expected)
        usual = (why for why, answer in (suspects or {}).items() if _equal(found, numpy.asarray(answer), tolerance))
        if found is None:
            kind = f" of {got.dtype}" if isinstance(got, numpy.ndarray) else ""
            raise self.wrong(title, f"gives {type(got).__name__}{kind}, expected {shown(truth)}")
        if found.shape != truth.shape:
            cause = next(usual, _cause_of_shape(found.shape, truth.shape))
            raise self.wrong(title, f"has shape {found.shape}, expected {truth.shape}", cause=cause)
        right = _close(found, truth, tolerance)
        if not right.all():
            cause = next(usual, _cause_of_values(found, truth, right))
            place = tuple(int(i) for i in numpy.argwhere(~right)[0])
            at = f"at [{', '.join(map(str, place))}]: " if place else ""
            count = f"   ({(~right).sum()} of {right.size} elements differ)" if right.size > 1 else ""
            raise self.wrong(
                title, f"{at}got {_number(found[place])}, expected {_number(truth[place])}{count}", cause=cause
            )
        self.checks += 1

    def gradients(self, function: Callable, *inputs: Any, title: str, **settings: Any) -> None:
        """Check op(function), or a function of tensors, against finite differences. Inputs as for gradcheck."""
        try:
            report = gradcheck(function, *inputs, **settings)
        except NotImplementedError:
            raise Unsolved(f"{self.exercise.number} {self.exercise.name}: not solved yet.") from None
        except (Exception, SystemExit) as error:
            raise self.wrong(f"the gradient check of {title}", *_stopped(error), cause=_cause_of_stop(error)) from None
        if not report:
            m = max(report.mismatches, key=lambda m: m.error)
            raise self.wrong(
                f"the gradient of {title}, in input {m.input} at {list(m.index)}:",
                f"got {m.analytic:.6g}, finite differences say {m.numeric:.6g}",
                cause=m.cause.removeprefix("suspected: "),
            )
        self.checks += 1

    def operation(
        self, *inputs: Any, settings: tuple = (), without_gradient: tuple[int, ...] = (), title: str = ""
    ) -> tuple[Any, tuple[Any, ...]]:
        """For exercises in the form of an op: call it with NumPy as xp, and take value and gradient functions apart.

        `settings` follow the inputs and have no gradient function; those of the inputs `without_gradient` are None.
        """
        if hasattr(self.attempt, "__wrapped__"):
            cause = "the decorator @op is too much here: leave it away"
            raise self.wrong("this is an operation on tensors already, and the check gives it arrays", cause=cause)
        title = title or f"{self.exercise.name}({', '.join(map(shown, (numpy, *inputs, *settings)))})"
        answer = self.call(numpy, *inputs, *settings, title=title)
        wanted = ["None" if i in without_gradient else "gradient function" for i in range(len(inputs))]
        form = f"expected (value, ({', '.join(wanted)}{',' if len(wanted) == 1 else ''}))"
        if not (isinstance(answer, tuple) and len(answer) == 2):
            cause = "an op returns two things: its value, and a tuple of gradient functions"
            raise self.wrong(title, f"gives {shown(answer)}", form, cause=cause)
        value, gradients = answer
        gradients = tuple(gradients) if isinstance(gradients, list) else gradients  # `op` takes either
        if not isinstance(gradients, tuple):
            cause = "a missing comma: (lambda g: ...) is no tuple, (lambda g: ...,) is one"
            raise self.wrong(title, f"gives {shown(answer)}", form, cause=cause if callable(gradients) else "")
        if len(gradients) != len(inputs):
            cause = "there is one entry per input, in their order" + (", and settings have none" if settings else "")
            raise self.wrong(title, f"{len(gradients)} gradient functions", form, cause=cause)
        for i, gradient in enumerate(gradients):
            if i in without_gradient and gradient is not None:
                raise self.wrong(title, f"entry {i} is not None", form, cause="that input has no slope: put None there")
            if i not in without_gradient and not callable(gradient):
                cause = "this is the gradient itself: what is wanted is a function of g, lambda g: ..."
                cause = cause if gradient is not None else "this input does have a slope"
                raise self.wrong(title, f"entry {i} is {type(gradient).__name__}", form, cause=cause)
        return value, gradients

    def as_op(self) -> Callable[..., Tensor]:
        """The attempt as an operation on tensors."""
        return op(self.attempt)


def shown(value: Any) -> str:
    """An argument as a reader wants to see it: small arrays in full, others as their shape."""
    if isinstance(value, Tensor):
        return "a tensor" if not value.shape else f"a tensor of shape {value.shape}"
    if isinstance(value, numpy.ndarray):
        small = value.size <= 6 and value.ndim <= 2
        text = " ".join(numpy.array2string(value, separator=", ", precision=4).split())
        return text if small else f"an array of shape {value.shape}"
    if isinstance(value, tuple):
        return f"({', '.join(map(shown, value))}{',' if len(value) == 1 else ''})"
    if value is numpy:
        return "xp"
    try:
        return str(getattr(value, "__name__", repr(value)[:80]))
    except Exception:  # an answer may be anything
        return f"a {type(value).__name__}"


def _array(value: Any) -> numpy.ndarray | None:
    """The numbers in an answer, whatever they are wrapped in."""
    try:
        array = value.numpy() if isinstance(value, Tensor) else numpy.asarray(value)
    except Exception:  # it may be anything
        return None
    return array if array.dtype.kind in "fiub" else None


def _close(found: numpy.ndarray, truth: numpy.ndarray, tolerance: float) -> numpy.ndarray:
    finite = numpy.abs(truth[numpy.isfinite(truth)], dtype="float64") if truth.size else truth
    size = float(finite.max()) if finite.size else 0.0
    return numpy.isclose(
        found.astype("float64"), truth.astype("float64"), rtol=tolerance, atol=tolerance * size, equal_nan=True
    )


def _equal(found: numpy.ndarray | None, truth: numpy.ndarray, tolerance: float) -> bool:
    return found is not None and found.shape == truth.shape and bool(_close(found, truth, tolerance).all())


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, numpy.ndarray):
        return before.shape == after.shape and bool(
            numpy.array_equal(before, after, equal_nan=before.dtype.kind == "f")
        )
    return not isinstance(before, Tensor) or _same(before.numpy(), after.numpy())


def _number(value: Any) -> str:
    return f"{value:.6g}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # an attempt may raise anything
        return ""


def _stopped(error: BaseException) -> list[str]:
    """What an exception says, and the line of the learner's that it came from."""
    message = _text(error).partition("\n")[0]
    lines = [f"stops with {type(error).__name__}: {message}".rstrip(": ")]
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not Path(frame.filename).is_relative_to(PACKAGE) and "site-packages" not in frame.filename and frame.line:
            return [*lines, f"in {frame.name}: {frame.line}"]
    return lines


def _cause_of_stop(error: BaseException, stops: dict[str, str] | None = None) -> str:
    if isinstance(error, RecursionError):
        return "it calls itself once for every step of the graph: use a list of things to do and a loop"
    if isinstance(error, NameError) and error.name:  # an UnboundLocalError has none
        return (
            f"{error.name!r} is not known here. Import it or define it in a cell of its own; `exercises check` reads "
            "imports, functions, classes and constants at the margin of a cell, and nothing that a cell computes"
        )
    for words, cause in {**(stops or {}), **STOPS}.items():
        if words in _text(error):
            return cause
    return ""


STOPS = {
    "has been visited 100,000 times": "it follows the same number again and again: keep a set of those already found",
    "cannot access local variable": "it is used before it is given a value in this function",
    "truth value of a": "`if`, `or` and Python's `max` want one number: use NumPy's, or loop over single elements",
    "setting an array element with a sequence": "a whole array is put where one number belongs: a sum is missing",
    "object has no attribute 'conv2d'": "the name F, the engine's functions, is used for something else here",
    "unexpected keyword argument 'axis'": "NumPy says axis, the engine says dim",
}


def _cause_of_shape(found: tuple[int, ...], truth: tuple[int, ...]) -> str:
    if found == truth[::-1] and len(truth) > 1:
        return "the axes are in the opposite order: a transpose too many or too few"
    if [n for n in found if n != 1] == [n for n in truth if n != 1]:
        return "the same but for axes of length 1: reshape, or sum with keepdims=True"
    if numpy.prod(found) == numpy.prod(truth):
        return "the right number of elements in another arrangement: look at the last reshape"
    if len(found) != len(truth):
        return (
            f"{len(found)} axes where {len(truth)} are wanted: a sum over too many or too few of them, or no keepdims"
        )
    return ""


def _cause_of_values(found: numpy.ndarray, truth: numpy.ndarray, right: numpy.ndarray) -> str:
    if found.ndim and found.dtype.kind in "iub" and truth.dtype.kind == "f":
        return "the result holds whole numbers, so fractions are cut off: make it with a floating-point dtype"
    if found.dtype == "float32" and _close(found, truth, 1e-5).all():
        return "right, but rounded to float32: let the result have the dtype of the input"
    if numpy.isnan(found).any() and not numpy.isnan(truth).any():
        return "NaN comes from 0/0, infinity - infinity or the log of a negative number: look for an overflow before it"
    if not found.any():
        return "everything is 0: nothing was written into the result"
    if truth.size > 1 and numpy.allclose(numpy.sort(found, axis=None), numpy.sort(truth, axis=None)):
        return "the right numbers in the wrong places: look at the order of the axes, loops or indices"
    wrong = ~right & (truth != 0)
    with numpy.errstate(all="ignore"):
        ratios = (found[wrong] / truth[wrong]) if wrong.any() else numpy.zeros(0)
        shifts = found[~right] - truth[~right]
    if ratios.size > 1 and not right[truth != 0].any() and numpy.allclose(ratios, ratios[0], rtol=1e-6):
        sign = "the sign" if numpy.isclose(ratios[0], -1) else f"a factor of {ratios[0]:.4g} everywhere"
        return f"{sign}: the arrangement is right"
    if truth.size > 1 and not right.any() and numpy.allclose(shifts, shifts.flat[0], rtol=1e-6):
        return f"{shifts.flat[0]:.4g} too much everywhere"
    inside = right[tuple(slice(1, -1) for _ in truth.shape)]
    if right.any() and truth.ndim >= 2 and inside.all() and right.sum() == inside.size:
        return "only the border is wrong: look at the padding and at where the windows end"
    return ""
