"""A convolution of stride s as one of stride 1: the pixels are sorted into s x s phases, each a channel of its own.

Output p meets pixel s*p + a with tap a. With a = s*u + i that is pixel p + u of phase i: every s-th pixel, from the
i-th on. So filters of R taps at stride s become filters of ceil(R / s) taps at stride 1, over s*s times as many
channels. AlexNet's first layer, 11 x 11 at stride 4 over 3 channels, becomes 3 x 3 over 48, the last row and column of
taps being zeros.
"""

from __future__ import annotations

import numpy

from .array_module import Array
from .window import Pair


def phases_of_images(x: Array, s: int, padding: Pair, size: Pair) -> Array:
    """x (N, C, H, W), with so much padding at the top and the left -> (N, C*s*s, *size)."""
    N, C = x.shape[:2]
    room = numpy.zeros((N, C, size[0] * s, size[1] * s), x.dtype)
    inside = room[:, :, padding[0] :, padding[1] :]
    H, W = min(x.shape[2], inside.shape[2]), min(x.shape[3], inside.shape[3])
    inside[:, :, :H, :W] = x[:, :, :H, :W]
    return room.reshape(N, C, size[0], s, size[1], s).transpose(0, 1, 3, 5, 2, 4).reshape(N, C * s * s, *size)


def images_from_phases(phases: Array, x: Array, s: int, padding: Pair) -> None:
    """Undo phases_of_images: fill x (N, C, H, W). Pixels that no phase holds become 0."""
    N, C, H, W = x.shape
    rows, columns = phases.shape[2:]
    room = phases.reshape(N, C, s, s, rows, columns).transpose(0, 1, 4, 2, 5, 3).reshape(N, C, rows * s, columns * s)
    inside = room[:, :, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
    x[...] = 0
    x[:, :, : inside.shape[2], : inside.shape[3]] = inside


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
