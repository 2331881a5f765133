"""Examines the exercises of lesson 1, a tensor that remembers."""

from __future__ import annotations

import itertools

import numpy

from .examination import Examination, exercise, shown


@exercise(
    "1.1",
    "the slope of a small formula by hand",
    "c has two parts. The slope of a sum is the sum of the slopes, so do b * b and a by themselves.",
    "b * b grows 2b times as fast as b, and b three times as fast as a. And a grows exactly as fast as a.",
)
def slope_by_hand(exam: Examination) -> None:
    for a in (2.0, 0.0, -1.5):
        suspects = {
            "the second part is missing: a itself adds a slope of 1": 18 * a,
            "a path is missing: c depends on a also through b, which is 3a": 6 * a + 1,
            "the derivative of b * b is 2b, not b": 9 * a + 1,
            "this is the value of c, not its slope": 9 * a * a + a,
        }
        exam.expect(a, gives=18 * a + 1, suspects=suspects)


@exercise(
    "1.2",
    "x cubed as an operation",
    "The value is x * x * x. What is the derivative of that?",
    "The gradient function multiplies the derivative, 3 * x * x, by the gradient g that arrives.",
)
def cube(exam: Examination) -> None:
    x = numpy.array([1.5, -2.0, 0.5])
    value, (gradient,) = exam.operation(x.copy())
    exam.compare("the value of cube(xp, x) for x = [1.5, -2, 0.5]", value, x**3)
    for g in (numpy.ones(3), numpy.array([1.0, -0.5, 2.0])):
        suspects = {
            "the gradient that arrives, g, is not used": 3 * x * x,
            "the derivative of x cubed is 3 x squared": x * x * g,
            "this multiplies g by the value, not by the slope": x**3 * g,
        }
        title = f"the gradient for x = [1.5, -2, 0.5] and g = {g.tolist()}"
        exam.compare(title, exam.call(g, function=gradient, title=title), 3 * x * x * g, suspects)
    exam.gradients(exam.as_op(), (2, 3), title="cube")


@exercise(
    "1.3",
    "the gradient of what was broadcast",
    "One thing after the other: first the axes in front that `shape` does not have, then those of length 1.",
    "While g has more axes than shape, g.sum(axis=0) removes the first. Then look at every axis of shape that is 1.",
)
def unbroadcast(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = [
        ((4, 3), (3,)), ((4, 3), (1, 3)), ((4, 3), (4, 1)), ((4, 3), ()), ((4, 3), (4, 3)),
        ((2, 4, 3), (4, 1)), ((2, 4, 3), (3,)), ((2, 3, 4, 2), (4, 1)), ((2, 4, 3), (1, 1, 1)), ((5, 1, 3), (1, 3)),
        ((3, 3), (3, 1)), ((2, 3, 3), (3, 1)),
    ]  # fmt: skip
    for large, shape in cases:
        g = rng.standard_normal(large)
        extra = len(large) - len(shape)
        axes = (*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1))
        suspects = {"the copies are to be added up: this is their mean": g.mean(axis=axes).reshape(shape)}
        one_copy = g[tuple(slice(0, 1) if i in axes else slice(None) for i in range(g.ndim))].reshape(shape)
        suspects["this takes one of the copies: all of them count, so add them up"] = one_copy
        if extra == 0 and large == (3, 3):
            suspects["the wrong axis is summed: the one where shape has a 1 was copied"] = g.sum(0).reshape(3, 1)
        exam.expect(g, shape, gives=g.sum(axis=axes).reshape(shape), suspects=suspects)


@exercise(
    "1.4",
    "what backward visits, in order",
    "The first half of `backward` in this lesson collects what you need. What does `sorted` still have to be told?",
    "Collect with a loop and a list of numbers to visit. Sort by `born`, the highest first.",
)
def backward_order(exam: Examination) -> None:
    births = itertools.count()

    def number(*sources):
        n = _Node(edges=tuple((s, lambda g: g) for s in sources), born=next(births))
        return n

    a = number()
    _compare_order(exam, "a leaf", a, [a])
    b = number(a, a)
    c = number(b, b)
    _compare_order(exam, "b = a + a; c = b + b", c, [c, b, a])
    number(c)  # computed from c, so not behind it
    x, y = number(), number()
    early = number(x)
    late = number(x, y)
    end = number(late, early)
    _compare_order(exam, "a diamond: early and late from x, end from both", end, [end, late, early, y, x])
    deep = [number()]
    for _ in range(20_000):
        deep.append(number(deep[-1], deep[0]))
    _compare_order(exam, "a chain of 20,000", deep[-1], deep[::-1])
    wide = [number()]
    for _ in range(60):
        wide.append(number(wide[-1], wide[-1]))
    _compare_order(exam, "60 doublings", wide[-1], wide[::-1])


class _Node:
    """Like the lesson's Number, as far as its place on the tape goes. Counts how often its edges are asked for."""

    def __init__(self, edges, born):
        self._edges, self.born, self.visits = edges, born, 0

    @property
    def edges(self):
        self.visits += 1
        if self.visits > 100_000:  # 60 doublings have 2**60 ways to the leaf: that would never end
            raise RuntimeError(f"number {self.born} has been visited 100,000 times")
        return self._edges

    def __repr__(self):
        return f"number {self.born}"


def _compare_order(exam: Examination, what: str, result: _Node, expected: list[_Node]) -> None:
    """Any order will do in which nothing comes before what was computed from it; `expected` is the youngest first."""
    answer = exam.call(result, title=f"the order for {what}")
    got = exam.call(answer, function=list, title=f"{what}: the answer, read as a list")
    place = {number: i for i, number in enumerate(got) if isinstance(number, _Node)}
    cause = ""
    if len(place) < len(got):
        strange = not all(isinstance(number, _Node) for number in got)
        cause = "a number occurs twice: keep a set of those already found"
        cause = (
            "the list is to hold the numbers themselves, not something of theirs such as `born`" if strange else cause
        )
    elif set(got) != set(expected):
        missing = set(expected) - set(got)
        cause = "there are numbers in it that the result was not computed from"
        if missing:
            cause = "numbers are missing: follow every edge of every number found"
        if missing == {result}:
            cause = "the result itself belongs to the list"
    elif any(place[parent] < place[number] for number in got for parent, _ in number.edges):
        cause = "a number comes before one that was computed from it; sort by `born`"
        if got == expected[::-1]:
            cause = "this is oldest first: a gradient is complete only after everything younger"
    short = len(expected) <= 6
    exam.require(
        not cause,
        f"{what}: the order {'is ' + shown(got) if short else 'of ' + str(len(got)) + ' numbers'}",
        f"expected {expected if short else str(len(expected)) + ' numbers, youngest first'}",
        cause=cause,
    )
