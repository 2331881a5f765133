"""Examines the exercises of lesson 10, how fast it can be."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy

from .examination import Examination, exercise


# -- bounds -------------------------------------------------------------------------
@exercise(
    "10.1",
    "the roof above a computation",
    "How many operations does each byte serve for? And how many bytes come in a second?",
    "Memory allows operations / moved * peak_bytes operations a second, arithmetic peak_operations: the smaller.",
)
def roofline(exam: Examination) -> None:
    for operations, moved, peak_operations, peak_bytes in (
        (2_000_000_000, 4_000_000_000, 100_000_000_000, 20_000_000_000),
        (8_000_000_000, 100_000_000, 100_000_000_000, 20_000_000_000),
        (3_000_000, 24_000_000, 50_000_000_000, 10_000_000_000),
        (5_000_000_000, 2_000_000_000, 40_000_000_000, 15_000_000_000),
        (6_000_000_000, 2_000_000_000, 40_000_000_000, 15_000_000_000),
        (1_000_000_000_000, 1_000_000_000, 3_000_000_000_000, 50_000_000_000),
    ):
        memory = operations / moved * peak_bytes
        computing, moving = operations / peak_operations, moved / peak_bytes  # seconds
        suspects = {
            "this is the peak of arithmetic, for which memory does not bring the numbers fast enough: the smaller "
            "of the two limits counts": peak_operations,
            "this is what memory allows, and arithmetic is not that fast: the smaller of the two limits counts": memory,
            "this is the least time, in seconds: the operations divided by it are wanted": max(computing, moving),
            "arithmetic and memory work at the same time, so their times do not add up: the slower one decides": (
                operations / (computing + moving)
            ),
            "moved / operations are bytes per operation: the other way round": min(
                peak_operations, moved / operations * peak_bytes
            ),
            "these are the operations per byte: memory allows that times the bytes a second": operations / moved,
            "it does not depend on `moved`: memory allows operations / moved * peak_bytes": min(
                peak_operations, operations * peak_bytes
            ),
            "this is the peak of memory, in bytes a second, and no number of operations yet: times the operations per "
            "byte": peak_bytes,
            "// cuts off the fraction of the operations per byte: use /": min(
                peak_operations, operations // moved * peak_bytes
            ),
        }
        gives = min(peak_operations, memory)
        exam.expect(operations, moved, peak_operations, peak_bytes, gives=gives, suspects=suspects)


# -- fewer multiplications ----------------------------------------------------------------
class Counted:
    """A number that notes in `log` whenever it is multiplied by, or divides, another one of its kind."""

    def __init__(self, value: float, log: list[str]) -> None:
        self.value, self.log = value, log

    def _with(self, other: Any, operation: Callable[[float, float], float], what: str = "") -> Any:
        if isinstance(other, Counted):
            if what:
                self.log.append(what)
            return Counted(operation(self.value, other.value), self.log)
        if isinstance(other, int | float | numpy.number):
            return Counted(operation(self.value, float(other)), self.log)
        return NotImplemented

    def __add__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a + b)

    def __sub__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a - b)

    def __rsub__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: b - a)

    def __mul__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a * b, "*")

    def __truediv__(self, other: Any) -> Any:
        return self._with(other, lambda a, b: a / b, "/")

    def __neg__(self) -> Counted:
        return Counted(-self.value, self.log)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counted) and self.value == other.value

    __radd__, __rmul__ = __add__, __mul__

    def __float__(self) -> float:  # for what is put into an array of plain numbers
        return self.value


@exercise(
    "10.2",
    "three outputs of two taps by four multiplications",
    "Print cook_toom(3, 2, (0, 1, -1)): the rows of B^T say what is made of d, those of G what is made of g.",
    "The four products: (d0 - d2) g0, (d1 + d2) (g0 + g1)/2, (d2 - d1) (g0 - g1)/2, (d3 - d1) g1.",
    "The rows of A^T say how the outputs are made of them: m0 + m1 + m2, then m1 - m2, then m1 + m2 + m3.",
)
def filter_of_two(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for d, g in (
        (numpy.array([1.0, 2.0, 4.0, 8.0]), numpy.array([3.0, 5.0])),
        (rng.standard_normal(4).round(2), rng.standard_normal(2).round(2)),
        (numpy.array([0.0, 0.0, 0.0, 1.0]), numpy.array([0.0, 1.0])),
        (1000 * rng.standard_normal(4).round(2), rng.standard_normal(2).round(2)),
    ):
        title = f"filter_of_two({d.tolist()}, {g.tolist()})"
        stops = {
            "index 2 is out of bounds for axis 0 with size 2": "g has two taps here; the lesson's formula has three",
            "index 4 is out of bounds": "d has four pixels, so there are three outputs",
        }
        answer = exam.call(d, g, title=title, stops=stops)
        exam.compare(title, answer, numpy.correlate(d, g), _slips(d, g))
    _count_products(exam)


def _slips(d: Any, g: Any) -> dict[str, Any]:
    """What usual mistakes would answer."""
    m0, m3 = (d[0] - d[2]) * g[0], (d[3] - d[1]) * g[1]
    m1, m2 = (d[1] + d[2]) * (g[0] + g[1]), (d[2] - d[1]) * (g[0] - g[1])
    h1, h2 = m1 / 2, m2 / 2
    return {
        "the taps are turned round: output p is g[0] d[p] + g[1] d[p + 1]": numpy.correlate(d, g[::-1]),
        "these are the coefficients of a polynomial product, which spreads: the transpose gathers, A^T ((G g) * (B^T "
        "d))": numpy.convolve(d, g),
        "the halves are missing: they stand in B^T, at the points 1 and -1": [m0 + m1 + m2, m1 - m2, m1 + m2 + m3],
        "the halves are there twice": [m0 + (h1 + h2) / 2, (h1 - h2) / 2, (h1 + h2) / 2 + m3],
        "the last output lacks the product at infinity": [m0 + h1 + h2, h1 - h2, h1 + h2],
        "the first output lacks the product at 0": [h1 + h2, h1 - h2, h1 + h2 + m3],
        "the product at infinity has the wrong sign: (d3 - d1) g1": [m0 + h1 + h2, h1 - h2, h1 + h2 - m3],
        "the product at -1 has the wrong sign": [m0 + h1 - h2, h1 + h2, h1 - h2 + m3],
        "the second output is m1 - m2: at the point -1 the values of t are negative": [
            m0 + h1 + h2,
            h1 + h2,
            h1 + h2 + m3,
        ],
        "these are the four products: A^T makes three outputs of them": [m0, h1, h2, m3],
        "these are the first two outputs: there are three": [m0 + h1 + h2, h1 - h2],
        "the outputs are in the opposite order": numpy.correlate(d, g)[::-1],
    }


def _count_products(exam: Examination) -> None:
    """Once more, with numbers that count."""
    log: list[str] = []
    d, g = (numpy.array([Counted(v, log) for v in values]) for values in ((1.0, -2.0, 4.0, 8.0), (3.0, 5.0)))
    title = "filter_of_two with numbers that count multiplications"
    stops = {"Counted": "the check hands in numbers that count; only + - * / and NumPy's products work on them"}
    answer = exam.call(d, g, title=title, stops=stops)
    count = len(log)
    try:
        values = [float(value) for value in answer]
    except Exception:  # an attempt may return anything
        raise exam.wrong(title, f"gives {type(answer).__name__}, expected three numbers") from None
    exam.compare(title, values, [-7.0, 14.0, 52.0])
    exam.require(
        "/" not in log,
        f"{title} divides one of them by another",
        cause="only halves are needed: divide by 2",
    )
    causes = {
        6: "this is the definition: first add pixels, and taps, then multiply",
        5: "one product is too many: m1 and m2 occur in several outputs, compute them once",
        8: "products that occur in several outputs count each time: give them names, and use these",
        9: "products that occur in several outputs count each time: give them names, and use these",
    }
    plain = "a copy made with a dtype, such as np.array(d, float), no longer counts: use d and g as they are"
    exam.require(
        count == 4,
        f"{title}: {count} multiplications, expected 4",
        cause=plain
        if count < 4
        else causes.get(count, "each of the four products should be computed once, and sums of pixels before it"),
    )


@exercise(
    "10.3",
    "how many multiplications tiles of m x m outputs take",
    "How many tiles cover the output, along each axis? Round up.",
    "A tile takes m + r - 1 multiplications along each axis, so (m + r - 1)^2 in all.",
)
def winograd_multiplications(exam: Examination) -> None:
    for P, Q, m, r in ((13, 13, 2, 3), (13, 13, 4, 3), (13, 13, 6, 3), (6, 10, 3, 2), (27, 27, 4, 5), (1, 9, 4, 3)):
        down, across, n = math.ceil(P / m), math.ceil(Q / m), m + r - 1
        suspects = {
            "tiles at the edge that hang over are missing: round up": (P // m) * (Q // m) * n**2,
            "a tile that hangs over counts in full, so this is rounded up along each axis, not at the end": math.ceil(
                P * Q / m**2
            )
            * n**2,
            "a tile that hangs over counts in full: round the number of tiles up along each axis": P * Q / m**2 * n**2,
            "this is one tile: how many are there?": n**2,
            "these are the tiles: a tile takes (m + r - 1)^2 multiplications": down * across,
            "a tile has two dimensions: (m + r - 1)^2": down * across * n,
            "a tile sees m + r - 1 pixels along an axis, not m + r": down * across * (n + 1) ** 2,
            "this is m + r - 2, one too few: a tile of one output sees r pixels": down * across * (n - 1) ** 2,
            "this is the definition, with r^2 multiplications for an output": P * Q * r**2,
            "this is the definition's r^2 for each output of a tile: Winograd takes (m + r - 1)^2 for the tile": (
                down * across * m**2 * r**2
            ),
            "the tiles are counted along one axis only": down * n**2,
            "there are tiles along both axes: multiply their numbers": (down + across) * n**2,
            "this adds a tile where they fit exactly: round up instead": (P // m + 1) * (Q // m + 1) * n**2,
        }
        exam.expect(P, Q, m, r, gives=down * across * n**2, suspects=suspects)


# -- the whole --------------------------------------------------------------------------
@exercise(
    "10.4",
    "Amdahl's law for several parts",
    "Say that the whole takes the time 1. How long does it take when every part has become faster?",
    "A part takes share / speedup. What is left over takes 1 - sum(shares), as before. The speed-up is 1 over the sum.",
)
def amdahl(exam: Examination) -> None:
    for shares, speedups in (
        ([0.4], [3.0]),
        ([0.6, 0.3], [3.0, 10.0]),
        ([0.8, 0.1, 0.05], [4.0, 1.0, 0.5]),
        ([0.9], [math.inf]),
        ([0.5, 0.25], [math.inf, 4.0]),
        ([0.25, 0.75], [5.0, 1.5]),
        ([], []),
    ):
        pairs = list(zip(shares, speedups, strict=True))
        rest = 1 - sum(shares)
        new, improved = rest + sum(p / s for p, s in pairs), sum(p / s for p, s in pairs)
        mean = sum(p * s for p, s in pairs)
        suspects = {
            "what the shares leave over is missing: it takes 1 - sum(shares), as before": _over(improved),
            "this is the new time, as a part of the old: the speed-up is 1 over it": new,
            "this is the new time without what the shares leave over, and the speed-up is 1 over the time": improved,
            "speed-ups do not average: a part takes share / speedup, so add up times": rest + mean,
            "speed-ups do not average: add up times, those of what is left over, too": mean,
            "a part that becomes faster takes less: share / speedup, not share * speedup": _over(rest + mean),
            "speed-ups do not multiply: each holds for its own share of the time": math.prod(speedups),
            "each part by itself, and the results multiplied: all parts have one whole in common, so add up times": (
                math.prod(_over(1 - p + p / s) for p, s in pairs)
            ),
            "this is the limit for speed-ups without end: here each part takes share / speedup": _over(rest),
            "this is the old time in the place of what is left over: 1 - sum(shares)": _over(1 + improved),
        }
        if len(pairs) > 1:
            suspects["only the first part is counted"] = _over(1 - shares[0] + shares[0] / speedups[0])
            suspects["only the last part is counted: is the return inside the loop, or an = in place of +=?"] = _over(
                1 - shares[-1] + shares[-1] / speedups[-1]
            )
        exam.expect(shares, speedups, gives=1 / new, suspects=suspects)


def _over(time: float) -> float:
    return 1 / time if time else math.inf


# -- tiles --------------------------------------------------------------------------------
@exercise(
    "10.5",
    "a matrix product made of products of tiles",
    "Three loops with the step `tile`: over the rows of a, the columns of b, and the length k that they share.",
    "y[i : i + tile, j : j + tile] += a[i : i + tile, k : k + tile] @ b[k : k + tile, j : j + tile]. A slice that goes "
    "too far ends where the array ends, so edges need no care.",
)
def blocked_matmul(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for M, K, L, tile in ((4, 6, 4, 2), (5, 7, 6, 3), (3, 2, 4, 8), (1, 9, 2, 4), (6, 4, 5, 1)):
        a, b = rng.standard_normal((M, K)), rng.standard_normal((K, L))
        title = f"blocked_matmul(a of shape {a.shape}, b of shape {b.shape}, {tile})"
        shapes = "a tile of a spans rows i and columns k, one of b rows k and columns j, one of y rows i and columns j"
        stops = {
            "mismatch in its core dimension": shapes,
            "broadcast": f"{shapes}, and at the edges they are smaller",
            "not aligned": shapes,
        }
        answer = exam.call(a, b, tile, title=title, stops=stops)
        exam.compare(title, answer, a @ b, _tile_slips(a, b, tile))
    for M, K, L, tile in ((5, 7, 6, 3), (4, 4, 8, 2)):
        _watch_products(exam, M, K, L, tile)


def _tile_slips(a: numpy.ndarray, b: numpy.ndarray, tile: int) -> dict[str, Any]:
    (M, K), L = a.shape, b.shape[1]
    rows, columns, inner = (size // tile * tile for size in (M, L, K))  # what whole tiles cover
    right, last = a @ b, (K - 1) // tile * tile
    down, across = numpy.arange(M)[:, None] < rows, numpy.arange(L) < columns
    missing = "the tiles at the edges, of which only a part is left, are missing: range(0, size, tile) begins them, too"
    slips = {
        "only the last tile along k is left: add products up, += in place of =": a[:, last:] @ b[last:],
        "only the first tile along k counts: add up over k": a[:, :tile] @ b[:tile],
        "the sum over k goes on from one tile of y to the next: begin each at 0": _running(a, b, tile),
        f"{missing} (along k)": a[:, :inner] @ b[:inner],
        f"{missing} (below)": right * down,
        f"{missing} (to the right)": right * across,
        missing: (a[:, :inner] @ b[:inner]) * down * across,
        f"{missing} (below and to the right)": right * down * across,
    }
    if rows == M and columns == L and inner == K:
        tiles = [
            sum(a[i : i + tile, k : k + tile] * b[k : k + tile, j : j + tile] for k in range(0, K, tile))
            for i in range(0, M, tile)
            for j in range(0, L, tile)
        ]
        blocks = [tiles[i : i + L // tile] for i in range(0, len(tiles), L // tile)]
        slips["* multiplies element by element: the product of matrices is @"] = numpy.block(blocks)
    return slips


def _running(a: numpy.ndarray, b: numpy.ndarray, tile: int) -> numpy.ndarray | float:
    """Where a sum is never set back to 0; NaN where tiles have different sizes, so that they cannot be added."""
    if a.shape[0] % tile or b.shape[1] % tile:
        return math.nan
    y, total = numpy.zeros((a.shape[0], b.shape[1])), numpy.zeros((tile, tile))
    for i in range(0, y.shape[0], tile):
        for j in range(0, y.shape[1], tile):
            total = total + a[i : i + tile] @ b[:, j : j + tile]
            y[i : i + tile, j : j + tile] = total
    return y


def _watch_products(exam: Examination, M: int, K: int, L: int, tile: int) -> None:
    """Once more, on arrays that note which shapes are multiplied."""
    products: list[tuple[Any, ...]] = []
    kind = _watched(products)
    rng = numpy.random.default_rng(1)
    a, b = rng.standard_normal((M, K)), rng.standard_normal((K, L))
    title = f"blocked_matmul(a of shape {a.shape}, b of shape {b.shape}, {tile})"
    answer = exam.call(a.view(kind), b.view(kind), tile, title=title)
    exam.compare(title, answer, a @ b)
    exam.require(
        products,
        f"{title}: no product of two tiles was seen",
        cause="cut tiles out with slices, a[i : i + tile, k : k + tile], and multiply them with @. (The check watches "
        "the arrays that it hands in, so take the tiles from these, not from copies made with np.array or np.asarray.)",
    )
    large = [shapes for shapes in products if max(size for shape in shapes for size in shape) > tile]
    exam.require(
        not large,
        f"{title} multiplies {' by '.join(map(str, large[0])) if large else ''} at once",
        cause=f"no tile should have more than {tile} rows or columns: cut along all three, the rows of a, the columns "
        "of b and the length that they share",
    )
    count = math.prod(math.ceil(size / tile) for size in (M, K, L))
    exam.require(
        len(products) == count,
        f"{title} takes {len(products)} products of tiles, expected {count}",
        cause="is each tile as large as `tile` says, and each pair multiplied once?",
    )


def _watched(products: list[tuple[Any, ...]]) -> type[numpy.ndarray]:
    """Arrays that note in `products` the shapes of matrices that are multiplied."""
    by_name = numpy.dot, numpy.inner, numpy.vdot, numpy.tensordot, numpy.einsum

    class Watched(numpy.ndarray):
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **settings: Any) -> Any:
            if ufunc is numpy.matmul:
                products.append(tuple(numpy.shape(one) for one in inputs))
            if out is not None:
                settings["out"] = tuple(map(_plain, out))
            result = getattr(ufunc, method)(*map(_plain, inputs), **settings)
            return out[0] if out is not None else _as_kind(result, Watched)

        def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
            if func in by_name:
                products.append(tuple(numpy.shape(one) for one in args if isinstance(one, numpy.ndarray)))
                return func(*map(_plain, args), **{name: _plain(one) for name, one in kwargs.items()})
            return _as_kind(super().__array_function__(func, types, args, kwargs), Watched)

        def dot(self, other: Any, out: Any = None) -> Any:
            products.append((self.shape, numpy.shape(other)))
            return _plain(self).dot(_plain(other), out=out)

    return Watched


def _plain(value: Any) -> Any:
    return value.view(numpy.ndarray) if isinstance(value, numpy.ndarray) else value


def _as_kind(value: Any, kind: type[numpy.ndarray]) -> Any:
    return value.view(kind) if isinstance(value, numpy.ndarray) else value
