"""Broadcasting and indexing: arithmetic number by number, and where each number of x[index] comes from."""

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes
from properties import (
    agree,
    dtypes,
    evaluate,
    every_backend,
    examples,
    laid_out,
    layouts,
    refused_everywhere,
    seeds,
    shared_out,
    whole_numbers,
)

from minitorch_alex import Tensor
from minitorch_alex import functional as F


# -- broadcasting -------------------------------------------------------------------
def share(mine, other):
    """Of the slope 1: all to the larger, half to each of two equal ones."""
    return 0.5 if mine == other else float(mine > other)


# name: (f of tensors, f of numbers, slopes of numbers)
OF_TWO = {
    "add": (lambda a, b: a + b, lambda a, b: a + b, lambda a, b: (1, 1)),
    "sub": (lambda a, b: a - b, lambda a, b: a - b, lambda a, b: (1, -1)),
    "mul": (lambda a, b: a * b, lambda a, b: a * b, lambda a, b: (b, a)),
    "div": (lambda a, b: a / b, lambda a, b: a / b, lambda a, b: (1 / b, -a / b**2)),
    "maximum": (F.maximum, max, lambda a, b: (share(a, b), share(b, a))),
    "minimum": (F.minimum, min, lambda a, b: (share(-a, -b), share(-b, -a))),
}
OF_THREE = {
    "a * b + c": (lambda a, b, c: a * b + c, lambda a, b, c: a * b + c, lambda a, b, c: (b, a, 1)),
    "a - b / c": (lambda a, b, c: a - b / c, lambda a, b, c: a - b / c, lambda a, b, c: (1, -1 / c, b / c**2)),
    "max(a, b) * c": (
        lambda a, b, c: F.maximum(a, b) * c,
        lambda a, b, c: max(a, b) * c,
        lambda a, b, c: (share(a, b) * c, share(b, a) * c, max(a, b)),
    ),
}


def number_by_number(f, slopes, arrays, gy):
    """f of the numbers that broadcasting brings together, and the sum of gy * slope over the copies of each."""
    y, gradients = np.zeros(gy.shape), [np.zeros(a.shape) for a in arrays]
    for place in np.ndindex(y.shape):
        places = [
            tuple(0 if n == 1 else i for i, n in zip(place[len(place) - a.ndim :], a.shape, strict=True))
            for a in arrays
        ]
        numbers = [float(a[at]) for a, at in zip(arrays, places, strict=True)]
        y[place] = f(*numbers)
        for gradient, at, slope in zip(gradients, places, slopes(*numbers), strict=True):
            gradient[at] += gy[place] * slope
    return y, gradients


def common(a, b):
    """The dtype of two: the wider, but a single number follows an array."""
    if bool(a[0]) != bool(b[0]):
        return (a if a[0] else b)[1]
    return max(a[1], b[1])  # "float32" < "float64"


def check_broadcasting(table, name, shapes, types, ways, seed, threads):
    f, of_numbers, slopes = table[name]
    random = np.random.default_rng(seed)
    arrays, divides = [], "/" in name or name == "div"
    for shape, dtype, way in zip(shapes.input_shapes, types, ways, strict=True):
        a = whole_numbers(random, shape, dtype)
        last = len(arrays) == len(types) - 1
        arrays.append(laid_out(np.where(a == 0, a.dtype.type(1), a) if divides and last else a, way))
    gy = whole_numbers(random, shapes.result_shape, "float64")
    expected, gradients = number_by_number(of_numbers, slopes, arrays, gy)
    (shape, dtype), *others = [(a.ndim, a.dtype.name) for a in arrays]
    for other in others:
        shape, dtype = max(shape, other[0]), common((shape, dtype), other)
    narrowest = np.finfo(min(a.dtype.name for a in arrays)).eps
    tolerance = 64 * narrowest * (1 + gy.size) if divides else 0
    for backend in every_backend():
        with shared_out(threads):
            y, found = evaluate(backend, f, arrays, gy)
        agree(y, expected, dtype, tolerance, f"{backend.name}, {name}: value")
        for a, gradient, mine in zip(found, gradients, arrays, strict=True):
            agree(a, gradient, mine.dtype, tolerance, f"{backend.name}, {name}: gradient of {mine.shape}")


two = st.tuples(dtypes, dtypes), st.tuples(layouts, layouts)
three = st.tuples(dtypes, dtypes, dtypes), st.tuples(layouts, layouts, layouts)
threads = st.integers(1, 3)


@examples(60)
@given(
    st.sampled_from(sorted(OF_TWO)),
    mutually_broadcastable_shapes(num_shapes=2, min_side=0, max_side=3, max_dims=4),
    *two, seeds, threads,
)  # fmt: skip
def test_arithmetic_of_two(name, shapes, types, ways, seed, threads):
    check_broadcasting(OF_TWO, name, shapes, types, ways, seed, threads)


@examples(40)
@given(
    st.sampled_from(sorted(OF_THREE)),
    mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3, max_dims=3),
    *three, seeds, threads,
)  # fmt: skip
def test_arithmetic_of_three(name, shapes, types, ways, seed, threads):
    check_broadcasting(OF_THREE, name, shapes, types, ways, seed, threads)


@examples(30)
@given(mutually_broadcastable_shapes(num_shapes=3, min_side=0, max_side=3, max_dims=4), *two, seeds)
def test_where(shapes, types, ways, seed):
    """The condition broadcasts as well."""
    random = np.random.default_rng(seed)
    chosen = random.random(shapes.input_shapes[0]) < 0.5
    a, b = (
        laid_out(whole_numbers(random, shape, dtype), way)
        for shape, dtype, way in zip(shapes.input_shapes[1:], types, ways, strict=True)
    )
    gy = whole_numbers(random, shapes.result_shape, "float64")
    expected, (_, *gradients) = number_by_number(
        lambda c, a, b: a if c else b, lambda c, a, b: (0, c, 1 - c), [chosen, a, b], gy
    )
    dtype = common((a.ndim, a.dtype.name), (b.ndim, b.dtype.name))
    for backend in every_backend():
        y, found = evaluate(backend, lambda a, b: F.where(chosen, a, b), (a, b), gy)
        agree(y, expected, dtype, 0, f"{backend.name}: value")
        for one, gradient, mine in zip(found, gradients, (a, b), strict=True):
            agree(one, gradient, mine.dtype, 0, f"{backend.name}: gradient")


@examples(30)
@given(st.lists(st.integers(0, 4), max_size=4), dtypes, layouts, layouts, seeds, threads)
def test_relu(shape, dtype, way, way_back, seed, threads):
    """Where two arrays are walked through at once, each may lie in memory as it likes."""
    random = np.random.default_rng(seed)
    x, gy = laid_out(whole_numbers(random, shape, dtype), way), laid_out(whole_numbers(random, shape, dtype), way_back)
    for backend in every_backend():
        with shared_out(threads):
            y, (gradient,) = evaluate(backend, F.relu, (x,), gy)
        agree(y, np.maximum(x, 0), dtype, 0, f"{backend.name}: value")
        agree(gradient, np.where(x > 0, gy, 0), dtype, 0, f"{backend.name}: gradient")


sides = st.lists(st.integers(0, 3), max_size=3)


@examples(60)
@given(st.sampled_from(sorted(OF_TWO)), sides, sides)
def test_what_does_not_broadcast_is_refused(name, a, b):
    n = min(len(a), len(b))
    met = zip(a[len(a) - n :], b[len(b) - n :], strict=True)
    reason = "the shapes do not broadcast" if any(i != j and 1 not in (i, j) for i, j in met) else None

    def arithmetic(backend):
        x, y = (Tensor(np.ones(shape, "float32"), backend=backend) for shape in (a, b))
        return OF_TWO[name][0](x, y)

    refused_everywhere(name, arithmetic, reason)


# -- indexing -------------------------------------------------------------------------
class Indexing(NamedTuple):
    """One to try: a tensor's shape, and for each of its dimensions (and new ones) a part of the index."""

    shape: tuple[int, ...]
    parts: list[Any]
    dots: tuple[int, int] | None  # parts first to last - 1, all of them `:`, are written as `...`
    kind: str  # of arrays: how the caller writes them
    dtype: str
    layouts: tuple[str, str]
    seed: int

    def written(self, backend):
        """The index as the caller writes it."""
        parts = [self.array(part, backend) for part in self.parts]
        if self.dots:
            parts[slice(*self.dots)] = [Ellipsis]
        return parts[0] if len(parts) == 1 else tuple(parts)

    def array(self, part, backend):
        if not isinstance(part, np.ndarray):
            return part
        if self.kind == "list" and part.size:
            return part.tolist()
        if self.kind == "tensor":
            return Tensor(part, backend=backend)
        return part.astype("int32") if self.kind == "int32" and part.dtype.kind == "i" else part

    def origins(self):
        """For each number of x[index] its place in x, counted through: NumPy's answer. Beside arrays, whole numbers
        come first, as slices do (in PyTorch, and so here); NumPy would count them among the arrays."""
        places = np.arange(int(np.prod(self.shape))).reshape(self.shape)
        if not any(isinstance(part, np.ndarray) for part in self.parts):
            return places[tuple(self.parts)]
        first, then = [], []
        for part in self.parts:
            if isinstance(part, np.ndarray):
                first += [slice(None)] * (part.ndim if part.dtype == bool else 1)
                then.append(part)
            else:
                first.append(part)
                then += [] if isinstance(part, int) else [slice(None)]
        return places[tuple(first)][tuple(then)]


@st.composite
def indexings(draw):
    """Whole numbers, slices, None, `...`, up to two arrays of whole numbers that broadcast, or a mask."""
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4) | st.just([3, 4, 2])))
    rest, parts, arrays = list(shape), [], draw(st.sampled_from(["none", "numbers", "numbers", "mask"]))
    broadcast = draw(st.sampled_from([(3,), (1,), (2, 2), (2, 1), (0,)]))
    left = 2 if arrays == "numbers" else int(arrays == "mask")
    while rest and len(parts) < 6:
        n = rest[0]
        kinds = ["whole", "slice", "slice", "all", "all", "new", "end", *(["array"] * 4 if left else [])]
        kind = draw(st.sampled_from(kinds))
        if kind == "end":
            break
        if kind == "array" and arrays == "mask":
            covered = draw(st.integers(1, min(2, len(rest))))
            parts.append(np.random.default_rng(draw(seeds)).random(rest[:covered]) < 0.5)
            rest, left = rest[covered:], 0
        elif kind == "array" and (n or 0 in broadcast):
            size = tuple(draw(st.sampled_from([k, k, 1])) for k in broadcast) if n else broadcast
            parts.append(np.random.default_rng(draw(seeds)).integers(-n, max(n, 1 - n), size))
            rest, left = rest[1:], left - 1
        elif kind == "new":
            parts.append(None)
        elif kind == "whole" and n:
            parts.append(draw(st.integers(-n, n - 1)))
            rest = rest[1:]
        elif kind == "slice":
            limit = st.none() | st.integers(-6, 6)
            parts.append(slice(draw(limit), draw(limit), draw(st.sampled_from([None, 1, 2, 3, -1, -2]))))
            rest = rest[1:]
        else:
            parts.append(slice(None))
            rest = rest[1:]
    runs = [None, (len(parts), len(parts))]
    for i in range(len(parts) if not rest else 0):
        for j in range(i, len(parts) + 1):
            if all(isinstance(part, slice) and part == slice(None) for part in parts[i:j]):
                runs.append((i, j))
    kinds = ["array", "array", "int32", "list", "tensor"]
    return Indexing(
        shape, parts, draw(st.sampled_from(runs)), draw(st.sampled_from(kinds)),
        draw(st.sampled_from(["float32", "float32", "float64", "int64", "bool"])), (draw(layouts), draw(layouts)),
        draw(seeds),
    )  # fmt: skip


@examples(300)
@given(indexings())
def test_indexing(one):
    """A number that is taken several times receives the gradients of all its copies."""
    random, origins = np.random.default_rng(one.seed), one.origins()
    x = laid_out(whole_numbers(random, one.shape, one.dtype), one.layouts[0])
    gy = laid_out(whole_numbers(random, origins.shape, "float64"), one.layouts[1])
    gradient = np.zeros(x.size)
    for place, slope in zip(origins.ravel(), gy.ravel(), strict=True):
        gradient[place] += slope
    for backend in every_backend():
        y, (found,) = evaluate(backend, lambda t, b=backend: t[one.written(b)], (x,), gy)
        agree(y, x.reshape(-1)[origins], one.dtype, 0, f"{backend.name}: value")
        if found is not None:
            agree(found, gradient.reshape(x.shape), one.dtype, 0, f"{backend.name}: gradient")


@examples(60)
@given(indexings())
def test_what_is_taken_from_a_tensor_is_pytorch_s_choice(one):
    """Of positive steps, the only ones that PyTorch knows."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional peer: pip install '.[peers]'")
    if any(isinstance(part, slice) and (part.step or 1) < 0 for part in one.parts):
        return
    places = torch.arange(int(np.prod(one.shape))).reshape(one.shape)
    index = tuple(torch.tensor(part) if isinstance(part, np.ndarray) else part for part in one.parts)
    agree(places[index].numpy(), one.origins(), "int64", 0, "origins")


WRONG = [
    7, -7, 1.0, "a", np.array([9]), np.array([0.5]), np.zeros(9, bool), np.zeros((2, 9), bool), [[0], [0, 1]], {},
]  # fmt: skip


@examples(60)
@given(indexings(), st.sampled_from(WRONG), st.booleans())
def test_a_wrong_index_is_refused(one, wrong, first):
    """Something that is no index, or goes too far, beside parts that are right and select something: where nothing is
    selected NumPy does not look at the numbers."""
    assume(one.origins().size)
    parts = [wrong, *one.parts] if first else [*one.parts, wrong]
    one = one._replace(kind="array")  # a tensor's words say where it lives

    def take(backend):
        x = Tensor(np.zeros(one.shape, "float32"), backend=backend)
        return x[tuple(one.array(part, backend) for part in parts)]

    refused_everywhere("getitem", take, "a wrong part")


@examples(40)
@given(st.lists(st.integers(0, 3), max_size=3), st.integers(0, 5))
def test_too_many_indices_are_refused(shape, more):
    def take(backend):
        return Tensor(np.zeros(shape, "float32"), backend=backend)[(0,) * (len(shape) + more)]

    fits = not more and 0 not in shape
    refused_everywhere("getitem", take, None if fits else "too many, or nothing there")
