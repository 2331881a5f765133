"""Tensor: an array that remembers how it was made.

An *op* is a function that returns its value and, for each input, a function that turns the gradient of the value into
the gradient of that input. That is the only idea in this file; `backward` just calls those functions, youngest tensor
first.
"""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from . import backends
from .array_box import checked_numbers, explain, number_type
from .backends.number_types import is_floating, wide
from .numpy_operand import NumPyOperand

_births = itertools.count()
_quietly = numpy.errstate(all="ignore")  # a decorator: infinities and NaNs are values like others, as in PyTorch


class _Recording(threading.local):
    on = True
    watcher: Any = None  # is told of every value and of every leaf's gradient, see anomaly.py


_recording = _Recording()


@contextmanager
def no_grad() -> Iterator[None]:
    """Inside this block (or a function decorated with `@no_grad()`) ops compute values and remember nothing.

    The switch belongs to the thread that throws it: other threads go on recording.
    """
    before, _recording.on = _recording.on, False
    try:
        yield
    finally:
        _recording.on = before


class Node:
    """A computed tensor as the tape knows it: where its gradient goes, and of its array only shape and dtype.

    The array itself lives no longer than somebody needs it: a variable of yours, or a gradient function.
    """

    __slots__ = ("born", "dtype", "edges", "made_by", "shape")

    def __init__(self, t: Tensor, made_by: str, edges: Edges) -> None:
        self.born, self.shape, self.dtype = t.born, t.data.shape, t.data.dtype
        self.made_by = made_by
        self.edges: Edges | None = edges  # None once backward() has followed them


class Tensor(NumPyOperand):
    """An array, the backend that owns it, and its node on the tape if it was computed from others.

    `Tensor(array)` wraps the array without copying; `tensor(...)` is the friendly way to make one. Operators and
    methods (`x + y`, `x.sum()`, `x[0]`) are the functions of `minitorch_alex.functional`; methods.py there lists them.
    """

    __slots__ = ("born", "grad", "node", "requires_grad")

    def __init__(self, data: Any, *, backend: backends.Backend | None = None, requires_grad: bool = False) -> None:
        self.backend = backend or backends.current()
        try:
            self.data = checked_numbers(self.backend.asarray(data))
        except ValueError as error:
            raise ValueError(f"Tensor(): the data is not a rectangular block of numbers ({error})") from None
        if requires_grad:
            _check_differentiable(self.data.dtype)
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None  # only ever set on leaves
        self.node: Node | None = None  # a leaf needs none: it stands on the tape itself
        self.born = next(_births)  # inputs are always older than outputs

    @property
    def made_by(self) -> str:
        """The name of the operation that computed it, or "leaf"."""
        return self.node.made_by if self.node else "leaf"

    @property
    def edges(self) -> Edges | None:
        """(input on the tape, its gradient function), ... None once backward() has followed them."""
        return self.node.edges if self.node else ()

    @_quietly
    def backward(self, gradient: Any = None) -> None:
        """Add d(self)/d(leaf), weighted by `gradient`, to `.grad` of every leaf that requires one.

        A node's gradient is complete only when everything computed from it has been visited. Visiting the youngest
        first guarantees that, since whatever was computed from a tensor is younger than it: in `b = a + a; c = b * b`
        both edges out of `b` are followed before `b` itself passes anything on to `a`. There is no recursion, so depth
        is limited by memory alone, and each node's edges are dropped on the way, so what they kept alive dies at once.
        """
        gradients = {self.born: _first_gradient(self, gradient)}
        by_age = sorted(ancestors(self), key=lambda t: t.born)
        while by_age:
            youngest = by_age.pop()
            g = gradients.pop(youngest.born)
            if isinstance(youngest, Tensor):  # a leaf
                youngest.grad = _sum_of(youngest.grad, g, youngest.backend)
                continue
            for parent, gradient_of in _take_edges(youngest):
                part = _passed_on(youngest, parent, gradient_of, g)
                known = gradients.get(parent.born)
                gradients[parent.born] = part if known is None else known + part

    def detach(self) -> Tensor:
        """The same array without its history."""
        return Tensor(self.data, backend=self.backend)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copied and pickled as a new leaf: the same values and class, a birth of its own."""
        return _new_leaf, (type(self), self.backend.to_numpy(self.data), self.backend, self.requires_grad)

    def _history(self) -> str:
        if self.made_by != "leaf":
            return f", made by {self.made_by}"
        return ", requires_grad=True" if self.requires_grad else ""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        if self.requires_grad:
            raise TypeError(
                "a NumPy function was given a Tensor that requires a gradient, which it would forget: use the function "
                "of minitorch_alex.functional, or .numpy() to leave the graph on purpose"
            )
        return super().__array__(dtype, copy)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a Tensor cannot be assigned into, because the tape may still need the old values: build a new one with "
            "functional.where, cat or stack, or change a leaf's array before it is used (leaf.data[...] = value)"
        )

    def _changed_in_place(self, other: Any) -> Any:
        """`x += y` means `x = x + y`, a new tensor. A leaf that is to learn would silently stay what it was."""
        if self.requires_grad and self.node is None:
            raise TypeError(
                "a leaf that requires a gradient is not changed by +=, -=, ...: x = x + y makes a new tensor, and "
                "p.data = p.data - lr * p.grad.data moves the leaf itself, as an optimizer does"
            )
        return NotImplemented  # and Python goes on to x + y

    __iadd__ = __isub__ = __imul__ = __itruediv__ = __ipow__ = __imatmul__ = _changed_in_place

    __hash__ = object.__hash__  # == compares elements, as in NumPy; identity still decides in dicts and sets


OnTape = Tensor | Node  # a leaf as it is, a computed tensor as its node
Edges = tuple[tuple[OnTape, Callable], ...]


def _new_leaf(kind: type[Tensor], data: Any, backend: backends.Backend, requires_grad: bool) -> Tensor:
    leaf = kind.__new__(kind)
    Tensor.__init__(leaf, data.copy(), backend=backend, requires_grad=requires_grad)
    return leaf


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor holding a copy of `data` (numbers, nested lists, an array, a tensor) on the current backend.

    Arrays of float32, float64, integers and booleans keep their type; Python floats become float32, as in PyTorch.
    """
    backend = backends.current()
    if isinstance(data, Tensor):
        data = data.numpy()
    try:
        array = data if hasattr(data, "dtype") else numpy.asarray(data)
        if dtype is None:
            dtype = array.dtype if hasattr(data, "dtype") or array.dtype.kind != "f" else "float32"
        with numpy.errstate(invalid="raise", over="ignore"):
            array = checked_numbers(backend.asarray(array))
            copy = array.astype(number_type("tensor", dtype), copy=True)
        if copy.dtype.kind in "iu" and (copy != array).any():
            raise ValueError("not all of these numbers fit")
    except (ValueError, FloatingPointError, OverflowError) as error:
        wanted = f" as {dtype}" if dtype is not None else ""
        raise ValueError(f"tensor(): the data is not a rectangular block of numbers{wanted} ({error})") from None
    return Tensor(copy, backend=backend, requires_grad=requires_grad)


def op(function: Callable) -> Callable[..., Tensor]:
    """Lift `function(xp, *arrays, **settings) -> value, (gradient function, ...)` from arrays to tensors.

    `xp` is the backend that the inputs live on. There is one gradient function per input, None where there is no
    gradient. Those of inputs that need none are never called, and what only they mention is freed at once.
    Inputs may also be plain numbers, which stay what they are, and None.
    """
    name, compute = function.__name__.strip("_"), _quietly(function)

    @functools.wraps(function)
    def on_tensors(*inputs: Any, **settings: Any) -> Tensor:
        xp = common_backend(name, inputs)
        try:
            arrays = [t.data if isinstance(t, Tensor) else _plain(xp, t) for t in inputs]
            value, gradients = compute(xp, *arrays, **settings)
        except (ValueError, TypeError, IndexError, AttributeError, OverflowError) as error:
            explain(name, inputs, settings, error)
            raise
        out = Tensor(value, backend=xp)
        if _recording.watcher is not None:
            gradients = _recording.watcher.computed(name, inputs, out, gradients)
        if _recording.on:
            edges = _edges_that_count(name, inputs, gradients)
            if edges:
                out.requires_grad, out.node = True, Node(out, name, edges)
        return out

    return on_tensors


def common_backend(name: str, inputs: tuple[Any, ...]) -> backends.Backend:
    """The backend that all tensors among the inputs live on."""
    home = None
    for t in inputs:
        if isinstance(t, Tensor):
            if home is not None and t.backend is not home:
                raise ValueError(
                    f"{name}: inputs live on different backends, {home.name} and {t.backend.name}: "
                    "make both under one backends.use(name)"
                )
            home = t.backend
    return home or backends.current()


# -- what backward() and op() ask for -------------------------------------------
def ancestors(t: Tensor) -> set[OnTape]:
    """`t` and everything that its gradient flows to. Refuses a graph of which a part is already used up."""
    start = t.node or t
    seen, stack = {start}, [start]
    while stack:
        child = stack.pop()
        if child.edges is None:
            raise RuntimeError(
                f"the graph behind {child.made_by} of shape {child.shape} was consumed by an earlier backward(): "
                "compute the value again, or add the losses and call backward() once"
            )
        for parent, _ in child.edges:
            if parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return seen


def _take_edges(node: Node) -> Edges:
    edges, node.edges = node.edges, None
    if edges is None:
        raise RuntimeError(f"another thread's backward() has consumed {node.made_by} meanwhile")
    return edges


def _passed_on(child: Node, parent: OnTape, gradient_of: Callable, g: Any) -> Any:
    """The parent's share of the gradient g of its child."""
    try:
        return _shaped_like(parent, gradient_of(g), g)
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        explain(f"the gradient of {child.made_by}", (g,), {}, error)
        raise


def _shaped_like(parent: OnTape, part: Any, g: Any) -> Any:
    """`part`, computed from g, with the parent's shape and dtype: the copies that broadcasting made are added up."""
    shape = parent.shape
    if part.shape != shape:
        extra = part.ndim - len(shape)
        axes = [*range(extra), *(i + extra for i, n in enumerate(shape) if n == 1 and part.shape[i + extra] != 1)]
        part = part.sum(axis=tuple(axes), keepdims=True, dtype=wide(part.dtype)).reshape(shape)
    if part.dtype != parent.dtype:
        _check_differentiable(parent.dtype)
        part = part.astype(parent.dtype)
    if isinstance(parent, Tensor) and (part is g or part.base is not None):
        part = part.copy()  # a leaf's gradient is its own: somebody may scale it in place
    return part


def _sum_of(grad: Tensor | None, g: Any, backend: backends.Backend) -> Tensor:
    total = Tensor(g if grad is None else grad.data + g, backend=backend)
    if _recording.watcher is not None:
        _recording.watcher.arrived(total)
    return total


def _check_differentiable(dtype: Any) -> None:
    if not is_floating(dtype):
        raise TypeError(f"a tensor of {dtype} cannot require a gradient: make it float32 or float64 first")


def _first_gradient(t: Tensor, gradient: Any) -> Any:
    """What backward() starts from: an array of the tensor's shape and dtype, 1 for a single number."""
    if not t.requires_grad:
        raise RuntimeError(
            f"backward() from {t!r}: nothing it was computed from requires a gradient; "
            "make a leaf with tensor(..., requires_grad=True), and compute outside no_grad()"
        )
    _check_differentiable(t.dtype)  # somebody may have set requires_grad by hand
    if gradient is None:
        if t.data.size != 1:
            raise ValueError(
                f"backward() from shape {t.shape} needs a gradient of that shape; "
                "only from a single number is it 1 by default (reduce with .sum() or .mean(), or pass one)"
            )
        return t.backend.ones(t.shape, t.dtype)
    common_backend("backward", (t, gradient))
    try:
        array = (gradient if isinstance(gradient, Tensor) else Tensor(gradient, backend=t.backend)).data
    except (TypeError, ValueError) as error:
        raise type(error)(f"backward(): the gradient is no block of numbers: {error}") from None
    if array.shape != t.shape:
        raise ValueError(f"backward(): the gradient has shape {array.shape}, the tensor {t.shape}")
    return array.astype(t.dtype)


def _edges_that_count(name: str, inputs: tuple[Any, ...], gradients: tuple[Callable | None, ...]) -> Edges:
    """(input on the tape, its gradient function) for those inputs that require a gradient."""
    if len(gradients) != len(inputs):
        raise TypeError(f"{name}: takes {len(gradients)} inputs, by position, and was given {len(inputs)}")
    edges: Edges = ()
    for t, g in zip(inputs, gradients, strict=True):
        if isinstance(t, Tensor) and t.requires_grad:
            if g is None:
                raise TypeError(
                    f"{name}: there is no gradient for one of the inputs that require it; detach() it first"
                )
            edges += ((t.node or t, g),)
    return edges


def _plain(xp: backends.Backend, value: Any) -> Any:
    """An input that is no Tensor: numbers stay Python numbers (they follow the tensor's dtype), lists become arrays."""
    if isinstance(value, numpy.generic):  # first, for NumPy's float64 is a Python float as well
        return value.item()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if callable(value):  # x @ layer, or x + network.loss
        raise TypeError(f"{getattr(value, '__name__', type(value).__name__)} is to be called, and is no number itself")
    array = checked_numbers(xp.asarray(value))
    return array if hasattr(value, "dtype") or array.dtype.kind != "f" else array.astype("float32")
