"""Find the operation in which a NaN or an infinity begins: `with anomaly(): ...`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy

from .backends import Backend
from .backends.number_types import is_floating
from .nn import Module
from .tensor import Tensor, _recording

PACKAGE = str(Path(__file__).parent)
Gradients = tuple[Callable | None, ...]  # one gradient function for each input


class AnomalyError(RuntimeError):
    """A number that is none, or an array that changed while a gradient needed it. The message says where."""


@contextmanager
def anomaly() -> Iterator[None]:
    """Inside this block (or a function decorated with `@anomaly()`) the first NaN or infinity raises an AnomalyError.

    It is looked for in what every operation computes, and in every gradient on the way back, also where backward() is
    called after the block. The error names the operation and, inside a network, the layer; shapes; how many numbers are
    none, and where the first stands; the range of the others, and that of what they were computed from. For a gradient,
    operation and layer are those of the forward pass, and the line of your code is told that called them.

    Every infinity counts: that of log(0), also where a later operation would hide it, and one that you put in yourself
    as in F.where(mask, x, -inf) (-1e9 does the same). What never leaves a kernel does not count, such as the -inf with
    which max_pool2d pads.

    An array that a gradient function has kept must also be the same when backward() comes to it. To write into `.data`
    in between, or into the NumPy array that a Tensor was made from, is an error here. Outside of such a block nothing
    notices it, and the gradients are simply wrong.

    Blocks may be nested; the switch belongs to the thread that throws it. Inside, every number is looked at: on a CPU a
    training step takes a tenth to a half longer. Outside, it costs an operation one look at a variable.
    """
    before, _recording.watcher = _recording.watcher, _WATCHER
    try:
        yield
    finally:
        _recording.watcher = before


class _Watcher:
    """Is told of every operation and of every leaf's gradient by tensor.py."""

    def computed(self, name: str, inputs: tuple[Any, ...], out: Tensor, gradients: Gradients) -> Gradients:
        """Check an operation's value. Returns its gradient functions, which from now on check theirs."""
        where, xp = _place(name), out.backend
        if not _all_finite(xp, out.data):
            given = ", ".join(f"input {i} {_in_numbers(xp, t)}" for i, t in enumerate(inputs, 1) if t is not None)
            raise AnomalyError(f"{where}: its value is {_in_numbers(xp, out)}, computed from {given}")
        if not _recording.on or len(gradients) != len(inputs):
            return gradients
        names = {id(_owner(out.data)): "its value"}
        names |= {id(_owner(t.data)): f"input {i}" for i, t in enumerate(inputs, 1) if isinstance(t, Tensor)}
        return tuple(
            _Watched(f"the gradient of {where}, for input {i}", xp, gradient_of, names)
            if gradient_of is not None and isinstance(t, Tensor) and t.requires_grad
            else gradient_of
            for i, (t, gradient_of) in enumerate(zip(inputs, gradients, strict=True), 1)
        )

    def arrived(self, gradient: Tensor) -> None:
        """Check the whole gradient of a leaf."""
        xp = gradient.backend
        if not _all_finite(xp, gradient.data):
            raise AnomalyError(
                f"the gradient of a leaf is {_in_numbers(xp, gradient)}: several add up to that, or it was computed "
                "outside of anomaly(), which must be around the forward pass too"
            )


_WATCHER = _Watcher()


class _Watched:
    """A gradient function that checks the gradient it is given, the arrays it has kept, and what it returns."""

    def __init__(self, where: str, xp: Backend, gradient_of: Callable, names: dict[int, str]) -> None:
        self.where, self.xp, self.gradient_of = where, xp, gradient_of
        kept = _arrays_kept_by(gradient_of)
        self.kept = [(names.get(id(_owner(array)), f"its {name}"), array, _checksum(xp, array)) for name, array in kept]

    def __call__(self, g: Any) -> Any:
        xp = self.xp
        if not _all_finite(xp, g):
            raise AnomalyError(
                f"{self.where}: what arrives is {_in_numbers(xp, g)}: several gradients add up to that, or it was "
                "handed to backward()"
            )
        for name, array, before in self.kept:
            if _checksum(xp, array) != before:
                raise AnomalyError(
                    f"{self.where}: {name} of shape {array.shape} has been changed in the meantime, and the old "
                    "numbers are needed: write into .data, or into the array that a Tensor was made from, only after "
                    "backward(), or give the Tensor a new array, as t.data = t.data + 1 does"
                )
        part = self.gradient_of(g)
        if not _all_finite(xp, part):
            given = "".join(f", {name} {_in_numbers(xp, array)}" for name, array, _ in self.kept)
            raise AnomalyError(
                f"{self.where}: it is {_in_numbers(xp, part)}, computed from what arrives {_in_numbers(xp, g)}{given}"
            )
        return part


# -- places ---------------------------------------------------------------------
def _place(operation: str) -> str:
    """Such as "log in features.conv1 (Conv2d(...)), lesson.py line 12".

    The innermost layer and the innermost line outside of this package among those that have led here. (Python's own
    start of a command is no such line.)
    """
    layer = line = ""
    frame = inspect.currentframe()
    while frame and not (layer and line):
        code = frame.f_code
        if code is Module.__call__.__code__:
            layer = layer or f" in {frame.f_locals['self'].in_words()}"
        elif not code.co_filename.startswith((PACKAGE, "<frozen")):
            line = line or f", {Path(code.co_filename).name} line {frame.f_lineno}"
        frame = frame.f_back
    return f"{operation}{layer}{line}"


def _arrays_kept_by(function: Callable) -> list[tuple[str, Any]]:
    """(name, array) of every array that a gradient function mentions, also by way of another function or a tuple."""
    found, seen = [], set()
    stack: list[tuple[str, Any]] = [("", function)]
    while stack:
        name, thing = stack.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if inspect.isfunction(thing):
            cells = zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True)
            stack += [(variable, cell.cell_contents) for variable, cell in cells]
        elif isinstance(thing, (tuple, list)):
            stack += [(name, part) for part in thing]
        elif hasattr(thing, "nbytes") and not isinstance(thing, type):
            found.append((name, thing))
    return found


def _owner(array: Any) -> Any:
    """The array whose memory this one is a view of, or itself."""
    while hasattr(getattr(array, "base", None), "nbytes"):
        array = array.base
    return array


# -- numbers --------------------------------------------------------------------
def _all_finite(xp: Backend, array: Any) -> bool:
    if not hasattr(array, "dtype") or not is_floating(array.dtype):
        return True
    return bool(xp.isfinite(array if array.dtype.kind == "f" else array.astype("float32")).all())


def _checksum(xp: Backend, array: Any) -> int:
    """Another one if any bit changes, and as good as surely if the order does: bits as numbers times 1, 3, 5, ..."""
    bits = xp.asarray(array).view(f"uint{8 * array.dtype.itemsize}").reshape(-1)
    return int((bits * xp.arange(1, 2 * bits.size, 2, dtype="uint32")).sum(dtype="uint64"))


def _in_numbers(xp: Backend, given: Any) -> str:
    """Such as "(2, 3) from -1.5 to 2", or "(2, 3) with 1 NaN among 6 numbers, the first at (0, 1), the others ..."."""
    array = given.data if isinstance(given, Tensor) else given
    if not hasattr(array, "dtype"):
        return repr(array)
    values = xp.to_numpy(array).astype("float64")
    finite = numpy.isfinite(values)
    usual = f"from {values[finite].min():.4g} to {values[finite].max():.4g}" if finite.any() else "none"
    if finite.all():
        return f"{values.shape} {usual if values.size else 'of no numbers'}"
    nans, infinities = int(numpy.isnan(values).sum()), int(numpy.isinf(values).sum())
    counts = [f"{nans} NaN"] * (nans > 0) + [f"{infinities} infinite"] * (infinities > 0)
    first = tuple(map(int, numpy.unravel_index((~finite).argmax(), values.shape)))
    return (
        f"{values.shape} with {' and '.join(counts)} among {values.size:,} numbers, the first, {values[first]}, at "
        f"{first}, the others {usual}"
    )
