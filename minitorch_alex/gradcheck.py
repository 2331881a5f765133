"""Check gradients against finite differences, and say what is wrong when they differ.

For y = f(x) and a random v, backward() gives g = J^T v in one sweep. Moving one element of x by a tiny e both ways
gives the same number the slow way: g_i = (v . f(x + e_i) - v . f(x - e_i)) / 2e, up to e^2. v is random because with
v = 1 a gradient that is wrong but adds up right would pass.

What a check cannot see: a forward pass that is wrong in a consistent way. Kernels are compared with loops for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy

from . import backends
from .nn import Module, Parameter
from .tensor import Tensor, no_grad


@dataclass
class Mismatch:
    """One element whose gradient is wrong."""

    input: int
    index: tuple[int, ...]
    analytic: float
    numeric: float
    error: float
    cause: str

    def __str__(self) -> str:
        return (
            f"input {self.input} at {self.index}: backward() says {self.analytic:.8g}, finite differences say "
            f"{self.numeric:.8g} (error {self.error:.1e})"
        )


@dataclass
class Report:
    """What a gradient check found. True if everything agreed."""

    function: str
    checked: int = 0
    worst: float = 0.0
    mismatches: list[Mismatch] = field(default_factory=list)

    def __bool__(self) -> bool:
        return not self.mismatches

    def __repr__(self) -> str:
        head = f"gradcheck of {self.function}: {self.checked} elements, largest error {self.worst:.1e}"
        if self:
            return head + ", all agree"
        lines = [f"{head}, {len(self.mismatches)} disagree, the worst of them:"]
        worst = sorted(self.mismatches, key=lambda m: -m.error)[:5]
        for m, following in zip(worst, [*worst[1:], None], strict=True):
            lines.append(f"  {m}")
            if following is None or following.cause != m.cause:  # once for several in a row
                lines.append(f"    {m.cause}")
        return "\n".join(lines)


def gradcheck(
    function: Callable[..., Tensor],
    *inputs: Any,
    eps: float = 1e-5,
    rtol: float = 1e-6,
    atol: float = 1e-8,
    samples: int | None = None,
    seed: int = 0,
    backend: str | None = None,
    allow_float32: bool = False,
) -> Report:
    """Compare backward() through function(*inputs) with central differences, for every floating-point input.

    inputs: arrays or tensors (float64; whole-number inputs are passed on unchecked), or shapes as tuples, for which
    `separated` values are made: random, apart from each other and away from 0, so that no kink lies within eps.
    float32 is refused unless `allow_float32`: its differences drown in rounding, so set eps (1e-3) and rtol to match.

    samples=k checks k random elements per input, and all of them together along one random direction.

    An element agrees if |analytic - numeric| <= atol + rtol * max(|analytic|, |numeric|), and what rounding does to the
    difference; atol is in units of the largest gradient of that input. What disagrees is tried again with eps / 2.
    """
    home = backends.get(backend) if backend is not None else backends.current()
    rng = numpy.random.default_rng(seed)
    arrays = [_prepare(a, rng, allow_float32) for a in inputs]
    checked = [i for i, a in enumerate(arrays) if a.dtype.kind == "f"]
    report = Report(getattr(function, "__name__", type(function).__name__))
    if not eps > 0 or (samples is not None and samples < 1):
        raise ValueError(f"gradcheck: eps must be above 0 and samples at least 1, got {eps!r} and {samples!r}")
    if not checked:
        raise TypeError("gradcheck: none of the inputs is floating-point, so there is nothing to check")

    leaves = [Tensor(a.copy(), backend=home, requires_grad=i in checked) for i, a in enumerate(arrays)]
    out = function(*leaves)
    if not isinstance(out, Tensor):
        raise TypeError(f"gradcheck: the function must return a Tensor, not {type(out).__name__}")
    v = rng.standard_normal(out.shape)
    if not out.requires_grad:
        raise ValueError("gradcheck: the output does not depend on any input that requires a gradient")
    out.backward(home.asarray(v.astype(out.dtype)))
    analytic = [
        numpy.zeros(a.shape) if t.grad is None else t.grad.numpy().astype("float64")
        for t, a in zip(leaves, arrays, strict=True)
    ]

    def value(changed: int, array: numpy.ndarray) -> float:
        with no_grad():
            result = function(*(Tensor(array if i == changed else a, backend=home) for i, a in enumerate(arrays)))
        return float((result.numpy().astype("float64") * v).sum())

    if not numpy.isfinite(out.numpy()).all():
        raise ValueError("gradcheck: the function's value is infinite or NaN there, so it has no gradient to check")
    unrepeatable = value(-1, arrays[0]) != value(-1, arrays[0])
    for i in checked:  # rounding is relative to what is added up, on the way and at the end, however much cancels
        along = numpy.abs(v).max(initial=0) * numpy.abs(arrays[i]).max(initial=0)
        size = float(numpy.abs(out.numpy() * v).sum() + along)
        rounding = 4 * float(numpy.finfo("float64").eps) * size / eps if arrays[i].dtype == "float64" else 0.0
        _check_input(report, i, arrays[i], analytic[i], value, rng, eps, rtol, atol, rounding, samples, unrepeatable)
    return report


def gradcheck_module(module: Module, *inputs: Any, **settings: Any) -> Report:
    """gradcheck of a layer or network, its parameters as further inputs. It becomes float64 for good."""
    module.double()
    parameters = list(module.parameters())
    holders = [holder for _, m in module.named_modules() for holder in (vars(m), *vars(m).values())]
    places = [
        (holder, at, p)
        for holder in holders
        if isinstance(holder, (list, dict))
        for at, p in (holder.items() if isinstance(holder, dict) else enumerate(holder))
        if isinstance(p, Parameter)
    ]

    def call(*tensors: Tensor) -> Tensor:
        stand_in = dict(zip(parameters, tensors[len(inputs) :], strict=True))
        try:
            for holder, at, p in places:
                holder[at] = stand_in[p]
            return module(*tensors[: len(inputs)])
        finally:
            for holder, at, p in places:
                holder[at] = p

    call.__name__ = type(module).__name__
    return gradcheck(call, *inputs, *(p.numpy() for p in parameters), **settings)


def separated(shape: tuple[int, ...], rng: numpy.random.Generator) -> numpy.ndarray:
    """Random float64 values at least 1/n apart and at least 1/2n from 0 (n elements, in about -1 ... 1).

    One from every cell of a grid, in random order and at a random place in its cell, so that two inputs do not tie.
    """
    n = math.prod(shape)
    return ((rng.permutation(n) - n // 2 + 0.5 + rng.uniform(-0.25, 0.25, n)) * 2 / max(n, 1)).reshape(shape)


def _prepare(value: Any, rng: numpy.random.Generator, allow_float32: bool) -> numpy.ndarray:
    if isinstance(value, tuple) and all(isinstance(n, int) for n in value):
        return separated(value, rng)
    array = value.numpy() if isinstance(value, Tensor) else numpy.asarray(value)
    if array.dtype.kind == "f" and array.dtype != "float64" and not allow_float32:
        raise TypeError(
            f"gradcheck: the input is {array.dtype}, whose rounding hides what is to be seen: pass float64 "
            "(.double(), or .astype('float64') of an array), or allow_float32=True with eps and rtol to match"
        )
    return array


def _check_input(report, i, array, analytic, value, rng, eps, rtol, atol, rounding, samples, unrepeatable) -> None:
    """Check input i: every element, or `samples` of them and one direction through all."""
    largest = float(numpy.abs(analytic[numpy.isfinite(analytic)]).max(initial=0.0))
    middle = value(i, array)
    places = list(numpy.ndindex(array.shape))
    if samples is not None and samples < len(places):
        places = [places[k] for k in rng.choice(len(places), samples, replace=False)]
        _check_direction(report, i, array, analytic, value, rng, eps, 10 * rtol, atol * largest + rounding)
    wrong = []
    for place in places:
        stated, numeric = float(analytic[place]), _slope(value, i, array, place, eps)
        if not _agree(
            stated, numeric, largest, atol, rtol, rounding
        ):  # the step may be too wide for a function that bends
            numeric = (4 * _slope(value, i, array, place, eps / 2) - numeric) / 3  # cancels the error in e^2
        report.checked += 1
        size, distance = max(abs(stated), abs(numeric)), abs(stated - numeric)
        if not _agree(stated, numeric, largest, atol, rtol, 3 * rounding):
            up, down = (value(i, _moved(array, place, step)) for step in (eps, -eps))
            bend = abs((up - middle) - (middle - down)) / eps
            cause = "a kink within eps (ReLU at 0, tied maxima)" if bend > 1e-2 * size + 4 * rounding else ""
            wrong.append(Mismatch(i, place, stated, numeric, _relative(distance, size), cause))
        elif size > atol * largest + rounding:
            report.worst = max(report.worst, distance / size)
    general = _suspect(wrong, len(places), array.dtype, unrepeatable)
    for m in wrong:
        overruled = unrepeatable or array.dtype != "float64"
        m.cause = "suspected: " + (general if overruled or not m.cause else m.cause)
        report.worst = max(report.worst, m.error)
    report.mismatches += wrong


def _check_direction(report, i, array, analytic, value, rng, eps, rtol, atol) -> None:
    """Move all elements at once: the slope along a random direction is the gradient's component along it."""
    direction = rng.standard_normal(array.shape)
    numeric = (value(i, array + eps * direction) - value(i, array - eps * direction)) / (2 * eps)
    stated = float((analytic * direction).sum())
    size, distance = max(abs(stated), abs(numeric), float(numpy.linalg.norm(analytic))), abs(stated - numeric)
    if not (math.isfinite(size) and distance <= atol + rtol * size):
        cause = "suspected: an element that was not sampled (this is along a random direction through all of them)"
        report.mismatches.append(Mismatch(i, (), stated, numeric, _relative(distance, size), cause))
        report.worst = max(report.worst, _relative(distance, size))


def _slope(value, i: int, array: numpy.ndarray, place: tuple[int, ...], eps: float) -> float:
    """The central difference at one element."""
    return (value(i, _moved(array, place, eps)) - value(i, _moved(array, place, -eps))) / (2 * eps)


def _agree(stated: float, numeric: float, largest: float, atol: float, rtol: float, rounding: float) -> bool:
    """Whether two slopes are equal to within the tolerances. NaN and infinity agree with nothing."""
    size = max(abs(stated), abs(numeric))
    return math.isfinite(size) and abs(stated - numeric) <= atol * max(largest, size) + rtol * size + rounding


def _relative(distance: float, size: float) -> float:
    """The error of what disagrees, infinite where that is not a number."""
    return distance / (size or 1.0) if math.isfinite(distance) else math.inf


def _moved(array: numpy.ndarray, place: tuple[int, ...], step: float) -> numpy.ndarray:
    moved = array.copy()
    moved[place] += step
    return moved


def _suspect(wrong: list[Mismatch], checked: int, dtype: numpy.dtype, unrepeatable: bool) -> str:
    """What the pattern of errors looks like."""
    if unrepeatable:
        return "the function gives another value each time it is called (dropout whose mask is not fixed?)"
    if dtype != "float64":
        return "float32: differences this small drown in rounding; check in float64"
    if all(m.analytic == 0 for m in wrong):
        return "no gradient arrives: an input that the gradient function forgot, or a detach()"
    if all(m.numeric == 0 for m in wrong):
        return "these do not change the result at all, so their gradient should be 0"
    ratios = [m.analytic / m.numeric if m.numeric else math.inf for m in wrong]
    if all(math.isclose(r, 1, rel_tol=1e-3) for r in ratios):
        return "nearly right: a term that is small here, or a function that bends too much for this eps"
    if math.isfinite(ratios[0]) and len(wrong) > 1 and all(math.isclose(r, ratios[0], rel_tol=1e-3) for r in ratios):
        return f"a factor of {ratios[0]:.4g} everywhere: a sign, or a count that is divided by twice or not at all"
    if all(abs(m.analytic) <= abs(m.numeric) * (1 + 1e-6) for m in wrong):
        return "too small: a factor is missing, or contributions are lost (= where += is meant, a sum over copies)"
    if len(wrong) < checked:
        return "some elements are right, so see where the others lie: = where += is meant, a border, a transpose"
    return "the derivative itself, or its elements in the wrong order"
