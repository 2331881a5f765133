"""Convolution by minimal filtering on the CPU's threads, in all three passes: winograd.py's formula at work.

Each thread takes the images of one sheet after another: lays them out as a picture, takes its tiles to the n x n
points, multiplies there by the filters, comes back, and writes the outputs. All that lies between is scratch memory.
"""

from __future__ import annotations

import functools
import importlib
from math import prod
from types import ModuleType
from typing import NamedTuple

import numpy

from .array_module import Array
from .phases import filters_from_phases, images_from_phases, phases_of_filters, phases_of_images
from .scratch import Scratch
from .thread_pool import ThreadPool, out_of_reach
from .window import Pair, Shape, Window
from .winograd import FILTER_COST, LARGEST_SHEET, OUTPUTS, PASS_COST, Sheet, best_sheet, cost, matrices

UNPACKED = 1_000_000  # multiplications of a product: up to here OpenBLAS (with AVX-512) does not copy its operands
GRADIENT_TILES = 200  # that one product sums into a weight gradient: the more, the fewer such products to add up
SUMS_AT_A_TIME = 250_000  # elements of these products that are added at a time: they fit into a second-level cache

Rows = tuple[tuple[float, ...], ...]  # a matrix as the kernels take it: its size is part of its type


class Transforms(NamedTuple):
    """The matrices of winograd.py as they are applied to rows and columns of a tile."""

    inputs_to_points: Rows  # B^T
    points_to_outputs: Rows  # A^T
    gradients_to_points: Rows  # A
    filters_to_points: Array  # (n*n, r*r): G for rows and columns at once


@functools.cache
def _kernels() -> ModuleType:
    """The compiled kernels. Numba itself may be imported here."""
    return out_of_reach(importlib.import_module, f"{__package__}.winograd_kernels")


@functools.cache
def transforms(r: int, dtype: numpy.dtype) -> Transforms:
    """Those for filters of r taps, with numbers of this type."""
    A, G, B = matrices(r)
    B_T, A_T, A_ = (tuple(tuple(row) for row in matrix.astype(dtype)) for matrix in (B.T, A.T, A))
    return Transforms(B_T, A_T, A_, numpy.kron(G, G).astype(dtype))


class Winograd:
    """Convolution with filters of r x r taps, a key of OUTPUTS, at stride 1; at stride s by way of s x s phases.

    Letters: G groups of C channels and F filters, so x has G*C channels and y has G*F; tiles of m x m outputs, n x n
    points.
    """

    def __init__(self, pool: ThreadPool, scratch: Scratch) -> None:
        self.pool, self.scratch = pool, scratch

    @property
    def kernels(self) -> ModuleType:
        return _kernels()

    # -- any stride: x (N, G*C, H, W), filters (G, F, C, R, R), bias (G*F,), y (N, G*F, P, Q) ---
    def conv2d(self, x: Array, filters: Array, bias: Array, y: Array, window: Window) -> None:
        """Fill y."""
        s = window.stride[0]
        if s > 1:
            self._conv2d(self._phases(x, y, window), phases_of_filters(filters, s), bias, y, (0, 0))
        else:
            self._conv2d(x, filters, bias, y, window.padding)

    def conv2d_input_gradient(self, gy: Array, filters: Array, gx: Array, window: Window) -> None:
        """Fill gx, of the shape of x."""
        s = window.stride[0]
        if s > 1:
            found = numpy.empty(_phases_shape(gx.shape, gy.shape, window), gx.dtype)
            self._conv2d_input_gradient(gy, phases_of_filters(filters, s), found, (0, 0))

            def work(i: int, j: int) -> None:
                images_from_phases(found[i:j], gx[i:j], s, window.padding)

            self.pool.share(work, len(gx), PASS_COST * gx.size)
        else:
            self._conv2d_input_gradient(gy, filters, gx, window.padding)

    def conv2d_weight_gradient(self, gy: Array, x: Array, gw: Array, window: Window) -> None:
        """Fill gw, of the shape of the filters."""
        s = window.stride[0]
        if s > 1:
            found = numpy.empty(phases_of_filters(gw, s).shape, gw.dtype)
            self._conv2d_weight_gradient(gy, self._phases(x, gy, window), found, (0, 0))
            filters_from_phases(found, gw, s)
        else:
            self._conv2d_weight_gradient(gy, x, gw, window.padding)

    def applies(self, window: Window) -> bool:
        """Whether there is a formula for it, and the filters are larger than their stride."""
        (R, S), (s, horizontal) = window.kernel, window.stride
        square = R == S and s == horizontal and window.dilation == (1, 1) and not window.ceil_mode
        return square and (s == 1 or s < R) and -(-R // s) in OUTPUTS and max(window.padding) < R

    def cost(self, x: Shape, filters: Shape, y: Shape, window: Window) -> float:
        """A pass over arrays of these shapes, in multiplications."""
        x, filters, padding = _at_stride_1(x, filters, y, window)
        return cost(self._plan(x, y, padding, filters), x[0], filters)

    def buffers(self, x: Shape, y: Shape, filters: Shape, window: Window, dtype: numpy.dtype) -> tuple[int, int]:
        """Bytes that a convolution needs in its gradients: of scratch memory, which the threads keep, and of what
        passes: each thread's sums, and phases."""
        x, filters, padding = _at_stride_1(x, filters, y, window)
        plan, r = self._plan(x, y, padding, filters), filters[3]
        n, inputs, outputs = plan.m + r - 1, x[1], y[1]
        sheets = max(1, GRADIENT_TILES // plan.size)
        tiles = n * n * plan.size * (inputs + outputs)
        pictures = prod(plan.picture(n, inputs)) + prod(plan.picture(plan.m, outputs))
        room = sheets * (tiles + pictures) + prod(plan.strip(n, max(inputs, outputs)))
        sums = min(self.pool.threads, x[0]) * n * n * prod(filters[:3])
        phases = prod(x) if window.stride != (1, 1) else 0
        return self.pool.threads * room * dtype.itemsize, (sums + phases) * dtype.itemsize

    def _phases(self, x: Array, y: Array, window: Window) -> Array:
        phases, s = numpy.empty(_phases_shape(x.shape, y.shape, window), x.dtype), window.stride[0]

        def work(i: int, j: int) -> None:
            phases_of_images(x[i:j], phases[i:j], s, window.padding)

        self.pool.share(work, len(x), PASS_COST * phases.size)
        return phases

    # -- stride 1 -------------------------------------------------------------------
    def _conv2d(self, x: Array, filters: Array, bias: Array, y: Array, padding: Pair) -> None:
        """x (N, G*C, H, W), filters (G, F, C, r, r), bias (G*F,) -> y (N, G*F, P, Q)."""
        G, F, C, r, _ = filters.shape
        n, transform = OUTPUTS[r] + r - 1, transforms(r, x.dtype)
        work_of_all = y.size * C * r * r
        plan = self._plan(x.shape, y.shape, padding, filters.shape)
        sheets = max(1, LARGEST_SHEET // plan.size)
        filter_values = self._filter_values(filters.astype(x.dtype, copy=False), sheets * plan.size)
        blocks, F_of_block = filter_values.shape[2], filter_values.shape[4]

        def work(start: int, stop: int) -> None:
            points, products, pictures, outputs, strip = self._room(x.dtype, n, plan, sheets, G * C, G * F)
            left = points.reshape(n * n, -1, G, C).transpose(2, 0, 1, 3)[:, :, None]
            right = products.reshape(n * n, -1, G, blocks, F_of_block).transpose(2, 0, 3, 1, 4)
            for i in range(start, stop, sheets * plan.held):
                j = min(i + sheets * plan.held, stop)
                used = -(-(j - i) // plan.held)
                tiles = used * plan.size
                self._to_points(transform.inputs_to_points, x[i:j], padding, plan, pictures[:used], strip, points)
                numpy.matmul(left[..., :tiles, :], filter_values, out=right[..., :tiles, :])
                self._from_points(transform.points_to_outputs, products, outputs[:used], strip)
                self.kernels.take_out(outputs[:used], y[i:j], bias, *plan.images, *plan.pitch)

        self.pool.share(work, len(x), work_of_all)

    def _conv2d_input_gradient(self, gy: Array, filters: Array, gx: Array, padding: Pair) -> None:
        """gy (N, G*F, P, Q), filters (G, F, C, r, r) -> gx (N, G*C, H, W): gy under the filters turned round."""
        turned = filters.swapaxes(1, 2)[..., ::-1, ::-1]
        around = (filters.shape[3] - 1 - padding[0], filters.shape[4] - 1 - padding[1])
        self._conv2d(gy, turned, numpy.zeros(gx.shape[1], gx.dtype), gx, around)

    def _conv2d_weight_gradient(self, gy: Array, x: Array, gw: Array, padding: Pair) -> None:
        """gy (N, G*F, P, Q), x (N, G*C, H, W) -> gw (G, F, C, r, r)."""
        G, F, C, r, _ = gw.shape
        n, transform = OUTPUTS[r] + r - 1, transforms(r, x.dtype)
        work_of_all = gy.size * C * r * r
        plan = self._plan(x.shape, gy.shape, padding, gw.shape)
        sheets = max(1, GRADIENT_TILES // plan.size)
        block = _block(F, UNPACKED // (C * sheets * plan.size))
        shape = (G, n * n, F // block, C, block)
        sums = {start: numpy.empty(shape, x.dtype) for start, _ in self.pool.slices(len(x), work_of_all)}

        def work(start: int, stop: int) -> None:
            inputs, gradients, pictures, outputs, strip = self._room(x.dtype, n, plan, sheets, G * C, G * F)
            for i in range(start, stop, sheets * plan.held):
                j = min(i + sheets * plan.held, stop)
                used = -(-(j - i) // plan.held)
                tiles = used * plan.size
                self._to_points(transform.inputs_to_points, x[i:j], padding, plan, pictures[:used], strip, inputs)
                self._to_points(transform.gradients_to_points, gy[i:j], (0, 0), plan, outputs[:used], strip, gradients)
                _add_products(inputs[:, :, :tiles], gradients[:, :, :tiles], sums[start], i > start)

        self.pool.share(work, len(x), work_of_all)
        self._gradient_of_filters(list(sums.values()), gw)

    def _plan(self, x: Shape, y: Shape, padding: Pair, filters: Shape) -> Sheet:
        """The sheets for arrays of these shapes."""
        images = max(stop - start for start, stop in self.pool.slices(x[0], prod(y) * prod(filters[2:])))
        return best_sheet(images, x[2:], y[2:], padding, OUTPUTS[filters[3]])

    def _room(self, dtype: numpy.dtype, n: int, plan: Sheet, sheets: int, inputs: int, outputs: int) -> list[Array]:
        """Scratch memory of this thread: values at the points and pictures, of inputs and outputs; a strip."""
        tiles = sheets * plan.size
        return self.scratch.arrays(
            dtype,
            (n, n, tiles, inputs),
            (n, n, tiles, outputs),
            (sheets, *plan.picture(n, inputs)),
            (sheets, *plan.picture(plan.m, outputs)),
            plan.strip(n, max(inputs, outputs)),
        )

    def _to_points(
        self, matrix: Rows, images: Array, corner: Pair, plan: Sheet, pictures: Array, strip: Array, points: Array
    ) -> None:
        """matrix @ tile @ matrix^T, for the tiles of the images."""
        m, columns, C = pictures.shape[2:]
        lines = range(len(matrix[0]))
        rows_of_tile = tuple(j * m * columns * C for j in lines)
        columns_of_tile = tuple((j % m * columns + j // m) * C for j in lines)
        self.kernels.lay_out(images, pictures, *plan.images, *plan.pitch, *corner)
        self.kernels.to_points(matrix, pictures, points, *plan.tiles, rows_of_tile, columns_of_tile, strip)

    def _from_points(self, matrix: Rows, points: Array, pictures: Array, strip: Array) -> None:
        """matrix @ values @ matrix^T, for all tiles."""
        (n, _, T, C), line = points.shape, pictures[0, 0].size
        rows_of_tile, columns_of_tile = tuple(j * line for j in range(n)), tuple(j * T * C for j in range(n))
        self.kernels.from_points(matrix, points, pictures, rows_of_tile, columns_of_tile, strip)

    def _filter_values(self, filters: Array, tiles: int) -> Array:
        """G g G^T of filters (G, F, C, r, r), as (G, n*n, blocks, C, F/blocks): one product for each block."""
        G, F, C, r, _ = filters.shape
        both = transforms(r, filters.dtype).filters_to_points
        size = _block(F, UNPACKED // (C * tiles))
        values = numpy.empty((G, len(both), F // size, C, size), filters.dtype)

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                g, block = divmod(i, F // size)
                taps = filters[g, block * size : (block + 1) * size].transpose(2, 3, 1, 0).reshape(r * r, C * size)
                values[g, :, block] = (both @ taps).reshape(-1, C, size)

        self.pool.share(work, G * F // size, FILTER_COST * values.size)
        return values

    def _gradient_of_filters(self, sums: list[Array], gw: Array) -> None:
        """gw (G, F, C, r, r) = G^T (sum of the sums (G, n*n, blocks, C, F/blocks)) G: _filter_values turned round."""
        G, F, C, r, _ = gw.shape
        both, size = transforms(r, gw.dtype).filters_to_points.T, sums[0].shape[4]

        def work(start: int, stop: int) -> None:
            for i in range(start, stop):
                g, block = divmod(i, F // size)
                taps = both @ sum(one[g, :, block] for one in sums).reshape(-1, C * size)
                gw[g, block * size : (block + 1) * size] = taps.reshape(r, r, C, size).transpose(3, 2, 0, 1)

        self.pool.share(work, G * F // size, FILTER_COST * sums[0].size)


def _add_products(inputs: Array, gradients: Array, sums: Array, again: bool) -> None:
    """sums (G, n*n, blocks, C, F/blocks) = inputs^T @ gradients at each point, added to what was there if `again`."""
    G, points, blocks, C, F = sums.shape
    left = inputs.reshape(points, -1, G, 1, C).transpose(2, 0, 3, 4, 1)
    right = gradients.reshape(points, -1, G, blocks, F).transpose(2, 0, 3, 1, 4)
    if not again:
        numpy.matmul(left, right, out=sums)
        return
    step = max(1, SUMS_AT_A_TIME // (blocks * C * F))
    for g in range(G):
        for k in range(0, points, step):
            sums[g, k : k + step] += left[g, k : k + step] @ right[g, k : k + step]


def _block(F: int, most: int) -> int:
    """How many filters are multiplied at a time: a divisor of F from 16 to 64, near `most`; all where there is none."""
    divisors = [size for size in range(16, 65) if F % size == 0 and size <= max(32, most)]
    return max(divisors, default=F)


def _at_stride_1(x: Shape, filters: Shape, y: Shape, window: Window) -> tuple[Shape, Shape, Pair]:
    """The shapes of x and of the filters, and the padding, after sorting into phases where there is a stride."""
    (G, F, C, R, _), s = filters, window.stride[0]
    if s == 1:
        return x, filters, window.padding
    return _phases_shape(x, y, window), (G, F, C * s * s, -(-R // s), -(-R // s)), (0, 0)


def _phases_shape(shape: Shape, output: Shape, window: Window) -> Shape:
    """That of the phases of x (N, C, H, W), as far as the filters reach."""
    N, C = shape[:2]
    s, more = window.stride[0], -(-window.kernel[0] // window.stride[0]) - 1
    return N, C * s * s, output[2] + more, output[3] + more
