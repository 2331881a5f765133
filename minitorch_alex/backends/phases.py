"""A convolution of stride s as one of stride 1: the pixels are sorted into s x s phases, each a channel of its own.

Output p meets pixel s*p + a with tap a. With a = s*u + i that is pixel p + u of phase i: every s-th pixel, from the
i-th on. So filters of R taps at stride s become filters of ceil(R / s) taps at stride 1, over s*s times as many
channels. AlexNet's first layer, 11 x 11 at stride 4 over 3 channels, becomes 3 x 3 over 48, the last row and column of
taps being zeros.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy

from .array_module import Array
from .window import Pair


def phases_of_images(x: Array, phases: Array, s: int, padding: Pair) -> None:
    """Fill phases (N, C*s*s, P, Q) with x (N, C, H, W), which has so much padding at the top and the left."""
    phases[...] = 0
    for part, pixels in _matching(x, phases, s, padding):
        part[...] = pixels


def images_from_phases(phases: Array, x: Array, s: int, padding: Pair) -> None:
    """Undo phases_of_images: fill x. Pixels that no phase holds become 0."""
    x[...] = 0
    for part, pixels in _matching(x, phases, s, padding):
        pixels[...] = part


def _matching(x: Array, phases: Array, s: int, padding: Pair) -> Iterator[tuple[Array, Array]]:
    """Views of the phases and of x that belong together, for each of the s*s phases."""
    N, C, H, W = x.shape
    P, Q = phases.shape[2:]
    by_phase = phases.reshape(N, C, s, s, P, Q)
    for i, rows, pixel_rows in _lines(P, H, s, padding[0]):
        for j, columns, pixel_columns in _lines(Q, W, s, padding[1]):
            yield by_phase[:, :, i, j, rows, columns], x[:, :, pixel_rows, pixel_columns]


def _lines(count: int, size: int, s: int, padding: int) -> Iterator[tuple[int, slice, slice]]:
    """For each phase i: the p < count for which pixel s*p + i - padding is one of `size` pixels, and these pixels."""
    for i in range(s):
        first = max(0, -((i - padding) // s))
        last = max(first, min(count, -((i - padding - size) // s)))
        start = s * first + i - padding
        yield i, slice(first, last), slice(start, start + s * (last - first), s)


def phases_of_filters(filters: Array, s: int) -> Array:
    """filters (G, F, C, R, R) -> (G, F, C*s*s, r, r) with r = ceil(R / s)."""
    G, F, C, R, _ = filters.shape
    r = -(-R // s)
    room = numpy.zeros((G, F, C, r * s, r * s), filters.dtype)
    room[..., :R, :R] = filters
    return room.reshape(G, F, C, r, s, r, s).transpose(0, 1, 2, 4, 6, 3, 5).reshape(G, F, C * s * s, r, r)


def filters_from_phases(phases: Array, filters: Array, s: int) -> None:
    """Undo phases_of_filters: fill filters (G, F, C, R, R)."""
    G, F, C, R, _ = filters.shape
    r = phases.shape[-1]
    room = phases.reshape(G, F, C, s, s, r, r).transpose(0, 1, 2, 5, 3, 6, 4).reshape(G, F, C, r * s, r * s)
    filters[...] = room[..., :R, :R]
