"""Minimal filtering: a convolution with fewer multiplications than there are taps (Winograd 1980, Lavin and Gray 2016).

Take m outputs of a filter g of r taps in one dimension, y[p] = sum over s of g[s] * d[p + s], from the n = m + r - 1
inputs that they see. Written with matrices that do not depend on the data, that is

    y = A^T ((G g) * (B^T d)),    * element by element: n multiplications, where the definition has m * r

F(4, 3) takes 6 instead of 12. It is the product of two polynomials, turned around (its transpose): G and A evaluate a
polynomial at n points, B^T is the inverse of such an evaluation. In two dimensions the matrices are applied to rows and
to columns, y = A^T ((G g G^T) * (B^T d B)) A: F(4 x 4, 3 x 3) takes 36 multiplications instead of 144.

With channels, the products at one of the n x n points, summed over the channels, are a matrix product: tiles times
filters. That is where nearly all the time goes. The formula is linear in d and in g, so the gradients follow from it:

    input gradient:    a convolution of gy with the filters turned by 180 degrees, so the same formula
    weight gradient:   gg = G^T ((A gy A^T) * (B^T d B)) G, summed over the tiles: again one matrix product per point

The price is rounding: in float32, on AlexNet's layers, outputs are up to 6e-6 of the largest one off, and gradients up
to 1e-5, where im2col's are off by up to 6e-7. And a NaN or an infinity reaches all outputs whose tiles it meets, those
of the image beside it too, where im2col's reach only the outputs whose windows do.
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
    highest coefficient. Each row of B^T is multiplied by what makes its entries plain numbers, and that of G divided.
    """
    m = OUTPUTS[r]
    points = numpy.array(POINTS[m + r - 1], "float64")

    def evaluate(count: int) -> Array:
        """The matrix (n, count) that turns `count` coefficients into values."""
        return numpy.vstack([points[:, None] ** numpy.arange(count), numpy.arange(count) == count - 1])

    scale = numpy.array([*(numpy.prod([t - other for other in points if other != t]) for t in points), 1.0])
    return Matrices(evaluate(m), evaluate(r) / scale[:, None], numpy.linalg.inv(evaluate(m + r - 1)) * scale)


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
def sheet(most: int, size: tuple[int, int], output: tuple[int, int], padding: tuple[int, int], m: int) -> Sheet:
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
