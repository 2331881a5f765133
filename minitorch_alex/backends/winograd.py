"""Minimal filtering: a convolution with fewer multiplications than there are taps (Winograd 1980, Lavin and Gray 2016).

Two outputs y[p] = sum over s of g[s] * d[p + s] of a filter with three taps, by four multiplications instead of six:

    a = (d0 - d2) g0,   b = (d1 + d2) (g0 + g1 + g2)/2,   c = (d2 - d1) (g0 - g1 + g2)/2,   e = (d1 - d3) g2
    y0 = a + b + c,     y1 = b - c - e

What is done to g is done once for all the places where the filter stands. In general m outputs of r taps take one
multiplication for each of the n = m + r - 1 inputs that they see:

    y = A^T ((G g) * (B^T d)),    * element by element, and matrices that do not depend on the data

Why there are such matrices: the product of two polynomials with m and r coefficients has n coefficients, so its values
at n points determine it, c = B ((G g) * (A a)), where A and G evaluate the two and B goes back. For a fixed g that is a
matrix applied to a, with g[s] in row p + s of column p. Its transpose takes n numbers d to m of them, y[p] = sum of
g[s] d[p + s]: our convolution. And the transpose of the right-hand side is A^T ((G g) * (B^T d)).

In two dimensions the matrices are applied to rows and columns, y = A^T ((G g G^T) * (B^T d B)) A: F(4 x 4, 3 x 3), with
tiles of 4 x 4 outputs, takes 36 multiplications instead of 144.

With channels, the products at one of the n x n points, summed over the channels, are a matrix product: tiles times
filters. That is where nearly all the time goes. The formula is linear in d and in g, so the gradients follow from it:

    input gradient:    a convolution of gy with the filters turned by 180 degrees, so the same formula
    weight gradient:   gg = G^T ((A gy A^T) * (B^T d B)) G, summed over the tiles: again one matrix product per point

The price is exactness. On AlexNet's layers float32 outputs are up to 6e-6 of the largest one off, and gradients up to
1e-5, where im2col's are off by up to 6e-7. B^T d B can be 49 times as large as d (for 5 x 5 filters 225 times), so it
overflows sooner. And a NaN or an infinity makes NaNs of all outputs whose tiles it meets, those of the image beside it
too, where with im2col it reaches the outputs whose windows meet it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy

from .array_module import Array

POINTS = {6: (0, 1, -1, 1 / 2, -2), 8: (0, 1, -1, 2, -2, 1 / 2, -1 / 2)}  # and infinity; chosen for small errors
LARGEST_SHEET = 64  # tiles that are multiplied at a time, where one image does not have more
FILTER_COST = 180  # multiplications that take as long as one of the filters' values
PASS_COST = 50  # ... as one of the tiles' values, there or back
OUTPUTS = {3: 4, 5: 4}  # by taps: a tile's outputs, in each dimension


class Matrices(NamedTuple):
    """y = A^T ((G g) * (B^T d)), for filters of r taps and tiles of m outputs, n = m + r - 1."""

    A: Array  # (n, m)
    G: Array  # (n, r)
    B: Array  # (n, n)


@functools.cache
def matrices(r: int) -> Matrices:
    """Those for filters of r taps, in float64.

    The polynomial with coefficients c takes the value sum over j of c[j] * t^j at the point t, and at infinity its
    highest coefficient. Row i of B^T holds the coefficients of the polynomial that is zero at all points but the i-th
    and infinity, the last row those of the one that is zero at all but infinity. What the former are worth at their
    own point is divided out of G.
    """
    m = OUTPUTS[r]
    points = numpy.array(POINTS[m + r - 1], "float64")

    def evaluate(count: int) -> Array:
        """The matrix (n, count) that turns `count` coefficients into values."""
        return numpy.vstack([points[:, None] ** numpy.arange(count), numpy.arange(count) == count - 1])

    zero_elsewhere = [numpy.append(numpy.poly(points[points != t])[::-1], 0) for t in points]
    own_values = numpy.array([*(numpy.prod(t - points[points != t]) for t in points), 1])
    B_transposed = numpy.array([*zero_elsewhere, numpy.poly(points)[::-1]])
    return Matrices(evaluate(m), evaluate(r) / own_values[:, None], B_transposed.T)


class Sheet(NamedTuple):
    """A few images laid out as one large picture, so that fewer tiles hang over an edge, and the tiles that cover it.

    13 outputs take 4 tiles of 4 in each dimension and waste 3; those of two images side by side take 7. Neighbours
    share the zeros of their padding.
    """

    images: tuple[int, int]  # one below the other, side by side
    pitch: tuple[int, int]  # pixels from one image to the next
    tiles: tuple[int, int]  # down, across
    m: int  # outputs of a tile, in each dimension

    @property
    def held(self) -> int:
        """How many images."""
        return self.images[0] * self.images[1]

    @property
    def size(self) -> int:
        """How many tiles."""
        return self.tiles[0] * self.tiles[1]

    def picture(self, lines: int, channels: int) -> tuple[int, int, int, int]:
        """The picture's shape (rows, m, columns/m, channels) where each tile takes `lines` rows and columns."""
        over = lines - self.m
        return self.tiles[0] * self.m + over, self.m, self.tiles[1] + -(-over // self.m), channels

    def strip(self, lines: int, channels: int) -> tuple[int]:
        """The shape of so many of its rows, one after the other."""
        _, m, columns, _ = self.picture(lines, channels)
        return (lines * m * columns * channels,)


@functools.cache
def best_sheet(most: int, size: tuple[int, int], output: tuple[int, int], padding: tuple[int, int], m: int) -> Sheet:
    """The sheet of at most `most` images with the fewest tiles for each; of those with as few, the largest."""
    pitch = (size[0] + padding[0], size[1] + padding[1])

    def of(down: int, across: int) -> Sheet:
        tall, wide = (down - 1) * pitch[0] + output[0], (across - 1) * pitch[1] + output[1]
        return Sheet((down, across), pitch, (-(-tall // m), -(-wide // m)), m)

    choice = [of(*images) for images in ((1, 1), (1, 2), (2, 2), (2, 4), (4, 4))]
    fit = [one for one in choice if one.held <= most and one.size <= LARGEST_SHEET] or choice[:1]
    return min(fit, key=lambda one: (one.size / one.held, -one.held))


def cost(plan: Sheet, images: int, filters: tuple[int, ...]) -> float:
    """A pass over so many images with filters (G, F, C, r, r), in multiplications: those of the products at all points,
    and what takes as long as bringing the filters and the tiles there and back."""
    G, F, C, r, _ = filters
    tiles = -(-images // plan.held) * plan.size
    return (plan.m + r - 1) ** 2 * G * (C * F * (tiles + FILTER_COST) + tiles * (C + F) * PASS_COST)
