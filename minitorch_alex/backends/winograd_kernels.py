"""Minimal filtering's passes over the data, compiled by Numba: from images to tiles at n x n points, and back.

winograd.py has the formula. Here channels lie together and come last, so that all loops run along them: an image is
transposed into a picture on the way in, and out of one on the way back. The columns of a picture are sorted into m
phases, column m*q + a as [a, q]: then what one step of a transform takes of all the tiles in a row lies together.

Letters: C channels, H x W pixels, P x Q outputs, m x m outputs of a tile, n x n points, T tiles.
"""

from __future__ import annotations

import numpy as np

from .numba_compiler import approximate as kernel

TOGETHER = 16  # channels transposed at a time: a cache line of a picture


@kernel
def combine(matrix, source, start, steps, to, first, stride, count):
    """to[first + i*stride + c] = sum over j of matrix[i][j] * source[start + steps[j] + c], for c < count.

    The matrix is a tuple of tuples: its size is part of its type, so that the loops over i and j are unrolled.
    """
    for c in range(np.uint64(count)):
        for i in range(len(matrix)):
            total = source.dtype.type(0)
            for j in range(len(matrix[0])):
                total += matrix[i][j] * source[np.uint64(start + steps[j]) + c]
            to[np.uint64(first + i * stride) + c] = total


@kernel
def lay_out(images, pictures, down, across, pitch_v, pitch_h, top, left):
    """images (N, C, H, W) -> pictures (K, rows, m, columns/m, C): down * across images in each, zeros around them."""
    N, C, H, W = images.shape
    _, rows, m, columns, _ = pictures.shape
    pixels, out, apart = images.reshape(-1), pictures.reshape(-1), np.uint64(H * W)
    out[:] = 0
    for image in range(N):
        sheet, place = image // (down * across), image % (down * across)
        for first in range(0, C, TOGETHER):
            for h in range(H):
                row = sheet * rows + place // across * pitch_v + top + h
                for w in range(W):
                    column = place % across * pitch_h + left + w
                    to = np.uint64(((row * m + column % m) * columns + column // m) * C + first)
                    source = np.uint64(((image * C + first) * H + h) * W + w)
                    for c in range(np.uint64(min(TOGETHER, C - first))):
                        out[to + c] = pixels[source + c * apart]


@kernel
def take_out(pictures, images, bias, down, across, pitch_v, pitch_h):
    """pictures (K, rows, m, columns/m, C) -> images (N, C, H, W), plus the bias (C,): undoes lay_out."""
    N, C, H, W = images.shape
    _, rows, m, columns, _ = pictures.shape
    pixels, out, apart = pictures.reshape(-1), images.reshape(-1), np.uint64(H * W)
    for image in range(N):
        sheet, place = image // (down * across), image % (down * across)
        for first in range(0, C, TOGETHER):
            for h in range(H):
                row = sheet * rows + place // across * pitch_v + h
                for w in range(W):
                    column = place % across * pitch_h + w
                    source = np.uint64(((row * m + column % m) * columns + column // m) * C + first)
                    to = np.uint64(((image * C + first) * H + h) * W + w)
                    for c in range(np.uint64(min(TOGETHER, C - first))):
                        out[to + c * apart] = pixels[source + c] + bias[np.uint64(first) + c]


@kernel
def to_points(matrix, pictures, points, tiles_v, tiles_h, rows, columns, strip):
    """pictures (K, rows, m, columns/m, C) -> points (n, n, T, C): matrix @ tile @ matrix^T for the T tiles of them all.

    rows and columns: how far those of a tile lie from its first. strip: room for n rows of a picture.
    """
    K, height, m, _, C = pictures.shape
    n, T, line = points.shape[1], points.shape[2], pictures[0, 0].size
    source, to = pictures.reshape(-1), points.reshape(-1)
    for k in range(K):
        for v in range(tiles_v):
            combine(matrix, source, (k * height + v * m) * line, rows, strip, 0, line, line)
            for i in range(n):
                at = (i * n * T + (k * tiles_v + v) * tiles_h) * C
                combine(matrix, strip, i * line, columns, to, at, T * C, tiles_h * C)


@kernel
def from_points(matrix, points, pictures, rows, columns, strip):
    """points (n, n, T, C) -> pictures (K, m * tiles down, m, tiles across, C): matrix @ values @ matrix^T for each."""
    _, m, tiles_h, C = pictures.shape[1:]
    n, T, line = points.shape[1], points.shape[2], pictures[0, 0].size
    source, to = points.reshape(-1), pictures.reshape(-1)
    for v in range(pictures.shape[0] * pictures.shape[1] // m):
        for i in range(n):
            at = (i * n * T + v * tiles_h) * C
            combine(matrix, source, at, columns, strip, i * line, tiles_h * C, tiles_h * C)
        combine(matrix, strip, 0, rows, to, v * m * line, line, line)
