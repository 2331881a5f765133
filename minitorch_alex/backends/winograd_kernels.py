"""Minimal filtering's passes over the data, compiled by Numba: from images to tiles at n x n points, and back.

winograd.py has the formula. Here channels lie together and come last, so that all loops run along them: an image is
transposed into a picture on the way in, and out of one on the way back. The columns of a picture are sorted into m
phases, column m*q + a as [a, q]: then what one step of a transform takes of all the tiles in a row lies together.

Letters: C channels, H x W pixels, P x Q outputs, m x m outputs of a tile, n x n points, T tiles.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Terms may be fused and reordered, and products with a zero of the matrices left out.
kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "nnan", "ninf"})


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
def lay_out(images, picture, per_row, pitch_v, pitch_h, top, left):
    """images (N, C, H, W) -> picture (rows, m, columns/m, C), `per_row` side by side; zeros around them."""
    N, C, H, W = images.shape
    m, columns = picture.shape[1:3]
    pixels, out, apart = images.reshape(-1), picture.reshape(-1), np.uint64(H * W)
    out[:] = 0
    for image in range(N):
        for h in range(H):
            row = image // per_row * pitch_v + top + h
            for w in range(W):
                column = image % per_row * pitch_h + left + w
                to = np.uint64(((row * m + column % m) * columns + column // m) * C)
                source = np.uint64(image * C * H * W + h * W + w)
                for c in range(np.uint64(C)):
                    out[to + c] = pixels[source + c * apart]


@kernel
def take_out(picture, images, bias, per_row, pitch_v, pitch_h):
    """picture (rows, m, columns/m, C) -> images (N, C, H, W), plus the bias (C,): undoes lay_out."""
    N, C, H, W = images.shape
    m, columns = picture.shape[1:3]
    pixels, out, apart, together = picture.reshape(-1), images.reshape(-1), np.uint64(H * W), 16
    for image in range(N):
        for first in range(0, C, together):  # channels whose rows stay in the cache until they are full
            for h in range(H):
                row = image // per_row * pitch_v + h
                for w in range(W):
                    column = image % per_row * pitch_h + w
                    source = np.uint64(((row * m + column % m) * columns + column // m) * C + first)
                    to = np.uint64(((image * C + first) * H + h) * W + w)
                    for c in range(np.uint64(min(together, C - first))):
                        out[to + c * apart] = pixels[source + c] + bias[np.uint64(first) + c]


@kernel
def to_points(matrix, picture, points, first, tiles_v, tiles_h, rows, columns, strip):
    """picture (rows, m, columns/m, C) -> points (n, n, T, C) from tile `first` on: matrix @ tile @ matrix^T for each.

    rows and columns: how far those of a tile lie from its first. strip: room for n rows of the picture.
    """
    line, C = picture.shape[1] * picture.shape[2] * picture.shape[3], picture.shape[3]
    m, n, T = picture.shape[1], points.shape[1], points.shape[2]
    source, to = picture.reshape(-1), points.reshape(-1)
    for v in range(tiles_v):
        combine(matrix, source, v * m * line, rows, strip, 0, line, line)
        for i in range(n):
            at = (i * n * T + first + v * tiles_h) * C
            combine(matrix, strip, i * line, columns, to, at, T * C, tiles_h * C)


@kernel
def from_points(matrix, points, picture, rows, columns, strip):
    """points (n, n, T, C) -> picture (m * tiles down, m, tiles across, C): matrix @ values @ matrix^T for each tile."""
    m, tiles_h, C = picture.shape[1:]
    n, T = points.shape[1], points.shape[2]
    source, to, line = points.reshape(-1), picture.reshape(-1), m * tiles_h * C
    for v in range(picture.shape[0] // m):
        for i in range(n):
            at = (i * n * T + v * tiles_h) * C
            combine(matrix, source, at, columns, strip, i * line, tiles_h * C, tiles_h * C)
        combine(matrix, strip, 0, rows, to, v * m * line, line, line)
