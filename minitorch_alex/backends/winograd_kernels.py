"""Minimal filtering's passes over the data, compiled by Numba: from images to tiles at n x n points, and back.

winograd.py has the formula. Here channels lie together and come last, so that all loops run along them: an image is
transposed into a picture on the way in, and out of one on the way back. Pixel (h, w), channel c of a picture stands at
[h, w % m, w // m, c], so columns with the same remainder lie together. Column j of tile q in a row of tiles is column
m*q + j of the picture, at [j % m, q + j // m]: for one j, all tiles q and channels c are one run of tiles * C numbers.
That makes the transform of a row of tiles two calls of `combine` on long runs: down, from the rows of the picture to
n rows of the strip, and across, from the columns of each of these to n points.

Letters: C channels, H x W pixels, K pictures, m x m outputs of a tile, n x n points, T tiles.
"""

from __future__ import annotations

import numpy as np

from .numba_compiler import approximate as kernel

CHANNELS_AT_A_TIME = 16  # channels transposed at a time: a cache line of a picture


@kernel
def combine(matrix, source, start, offsets, to, to_start, stride, count):
    """to[to_start + i*stride + c] = sum over j of matrix[i][j] * source[start + offsets[j] + c], for c < count.

    The matrix is a tuple of tuples: its size is part of its type, so that LLVM can unroll the loops over i and j.
    """
    for c in range(np.uint64(count)):
        for i in range(len(matrix)):
            total = source.dtype.type(0)
            for j in range(len(matrix[0])):
                total += matrix[i][j] * source[np.uint64(start + offsets[j]) + c]
            to[np.uint64(to_start + i * stride) + c] = total


@kernel
def lay_out(images, pictures, down, across, pitch_v, pitch_h, top, left):
    """images (N, C, H, W) -> pictures (K, rows, m, columns/m, C): down * across images in each, zeros around them."""
    N, C, H, W = images.shape
    _, rows, m, columns, _ = pictures.shape
    pixels, out, apart = images.reshape(-1), pictures.reshape(-1), np.uint64(H * W)
    out[:] = 0
    for image in range(N):
        sheet, place = image // (down * across), image % (down * across)
        for first in range(0, C, CHANNELS_AT_A_TIME):
            for h in range(H):
                row = sheet * rows + place // across * pitch_v + top + h
                for w in range(W):
                    column = place % across * pitch_h + left + w
                    to = np.uint64(((row * m + column % m) * columns + column // m) * C + first)
                    source = np.uint64(((image * C + first) * H + h) * W + w)
                    for c in range(np.uint64(min(CHANNELS_AT_A_TIME, C - first))):
                        out[to + c] = pixels[source + c * apart]


@kernel
def take_out(pictures, images, bias, down, across, pitch_v, pitch_h):
    """pictures (K, rows, m, columns/m, C) -> images (N, C, H, W), plus the bias (C,): undoes lay_out."""
    N, C, H, W = images.shape
    _, rows, m, columns, _ = pictures.shape
    pixels, out, apart = pictures.reshape(-1), images.reshape(-1), np.uint64(H * W)
    for image in range(N):
        sheet, place = image // (down * across), image % (down * across)
        for first in range(0, C, CHANNELS_AT_A_TIME):
            for h in range(H):
                row = sheet * rows + place // across * pitch_v + h
                for w in range(W):
                    column = place % across * pitch_h + w
                    source = np.uint64(((row * m + column % m) * columns + column // m) * C + first)
                    to = np.uint64(((image * C + first) * H + h) * W + w)
                    for c in range(np.uint64(min(CHANNELS_AT_A_TIME, C - first))):
                        out[to + c * apart] = pixels[source + c] + bias[np.uint64(first) + c]


@kernel
def to_points(matrix, pictures, points, tiles_v, tiles_h, row_offsets, column_offsets, strip):
    """pictures (K, rows, m, columns/m, C) -> points (n, n, T, C): matrix @ tile @ matrix^T for the T tiles of them all.

    row_offsets and column_offsets: how far the rows and columns of a tile lie from its first. strip: room for n rows of
    a picture.
    """
    K, height, m, _, C = pictures.shape
    n, T, line = points.shape[1], points.shape[2], pictures[0, 0].size
    source, to = pictures.reshape(-1), points.reshape(-1)
    for k in range(K):
        for v in range(tiles_v):
            combine(matrix, source, (k * height + v * m) * line, row_offsets, strip, 0, line, line)
            for i in range(n):
                at = (i * n * T + (k * tiles_v + v) * tiles_h) * C
                combine(matrix, strip, i * line, column_offsets, to, at, T * C, tiles_h * C)


@kernel
def from_points(matrix, points, pictures, row_offsets, column_offsets, strip):
    """points (n, n, T, C) -> pictures (K, m * tiles down, m, tiles across, C): matrix @ values @ matrix^T for each."""
    _, m, tiles_h, C = pictures.shape[1:]
    n, T, line = points.shape[1], points.shape[2], pictures[0, 0].size
    source, to = points.reshape(-1), pictures.reshape(-1)
    for v in range(pictures.shape[0] * pictures.shape[1] // m):
        for i in range(n):
            at = (i * n * T + v * tiles_h) * C
            combine(matrix, source, at, column_offsets, strip, i * line, tiles_h * C, tiles_h * C)
        combine(matrix, strip, 0, row_offsets, to, v * m * line, line, line)
