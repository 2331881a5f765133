"""Pooling: one number for each neighbourhood. AlexNet, section 3.4, pools 3 x 3 windows 2 apart, so they overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

from ..backends.window import Window
from ..tensor import Tensor, op
from ._arguments import is_whole, operation, pooling_window, tensor_of

Size = int | tuple[int, int]


@operation
def max_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    *,
    ties: str = "first",
) -> Tensor:
    """The largest value of each window: (N, C, H, W) -> (N, C, P, Q), or (C, H, W) -> (C, P, Q).

    `stride` is the kernel size unless given. `ceil_mode` adds partial windows where pixels are left over, which is what
    the original code and Caffe do. Of equal values the first in scan order receives the gradient, as in Caffe and
    PyTorch, or with ties="all" each of them all of it, as in the original code. NaN wins; padding never does.
    """
    tensor_of("max_pool2d", "input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    window = pooling_window("max_pool2d", input.shape, kernel_size, stride, padding, dilation, ceil_mode)
    if ties not in ("first", "all"):
        raise ValueError(f"max_pool2d: ties must be 'first' or 'all', not {ties!r}")
    pool = _max_pool2d if ties == "first" else _max_pool2d_all_ties
    if input.ndim == 3:
        return pool(input.unsqueeze(0), window=window).squeeze(0)
    return pool(input, window=window)


@op
def _max_pool2d(xp, x, window):
    shape = x.shape
    y, winner = xp.max_pool2d(x, window)
    return y, (lambda gy: xp.max_pool2d_gradient(gy, winner, shape, window),)


@op
def _max_pool2d_all_ties(xp, x, window):
    y, _ = xp.max_pool2d(x, window)
    return y, (lambda gy: xp.max_pool2d_gradient_to_ties(gy, x, y, window),)


@operation
def avg_pool2d(
    input: Tensor,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """The mean of each window: (N, C, H, W) -> (N, C, P, Q), or (C, H, W) -> (C, P, Q).

    Padding counts as zeros, unless `count_include_pad` is off. What a partial window of `ceil_mode` has beyond the
    padding never counts. `divisor_override` replaces the number of pixels that the sum is divided by.
    """
    tensor_of("avg_pool2d", "input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    window = pooling_window("avg_pool2d", input.shape, kernel_size, stride, padding, 1, ceil_mode)
    if divisor_override is not None and not (is_whole(divisor_override) and divisor_override):
        kind = ValueError if is_whole(divisor_override) else TypeError
        raise kind(f"avg_pool2d: divisor_override must be a whole number other than 0, not {divisor_override!r}")
    H, W = input.shape[-2:]
    rows, columns = (_pixels_counted(window, axis, n, count_include_pad) for axis, n in enumerate((H, W)))
    divisor = numpy.multiply.outer(rows, columns) if divisor_override is None else numpy.array(divisor_override)
    if input.ndim == 3:
        return _avg_pool2d(input.unsqueeze(0), window=window, divisor=divisor).squeeze(0)
    return _avg_pool2d(input, window=window, divisor=divisor)


def _pixels_counted(window: Window, axis: int, n: int, count_include_pad: bool) -> numpy.ndarray:
    """How many pixels each window counts along one axis of n pixels."""
    pad, count = window.padding[axis], window.output_size(n, n)[axis]
    first = numpy.arange(count) * window.stride[axis] - pad
    last = numpy.minimum(first + window.kernel[axis], n + pad)
    if count_include_pad:
        return last - first
    return numpy.minimum(last, n) - numpy.maximum(first, 0)


@op
def _avg_pool2d(xp, x, window, divisor):
    shape = x.shape
    divisor = xp.asarray(divisor.astype(x.dtype))
    return xp.sum_pool2d(x, window) / divisor, (lambda gy: xp.sum_pool2d_gradient(gy / divisor, shape, window),)


@operation
def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """Means over windows chosen so that the output is P x Q whatever the input: (N, C, H, W) -> (N, C, P, Q).

    Window p covers rows floor(p*H/P) to ceil((p+1)*H/P), so sizes may differ by one and neighbours may overlap. None
    keeps a size.
    """
    tensor_of("adaptive_avg_pool2d", "input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    sizes = tuple(output_size) if isinstance(output_size, Sequence) else (output_size, output_size)
    if len(sizes) != 2 or not all(n is None or (is_whole(n) and n >= 0) for n in sizes):
        raise ValueError(f"adaptive_avg_pool2d: output_size is one or two whole numbers or None, not {output_size!r}")
    if 0 in input.shape[-3:]:
        raise ValueError(f"adaptive_avg_pool2d: the input {input.shape} has no pixels")
    H, W = input.shape[-2:]
    P, Q = (n if size is None else int(size) for n, size in zip((H, W), sizes, strict=True))
    if (P, Q) == (H, W):
        return input
    if P and Q and not H % P and not W % Q:  # equal windows that do not overlap
        return avg_pool2d(input, (H // P, W // Q))
    return _adaptive_avg_pool2d(input, rows=_even_windows(H, P), columns=_even_windows(W, Q))


def _even_windows(n: int, count: int) -> list[slice]:
    """`count` windows that cover n pixels evenly."""
    return [slice(p * n // count, -((-(p + 1) * n) // count)) for p in range(count)]


@op
def _adaptive_avg_pool2d(xp, x, rows, columns):
    shape = x.shape
    y = xp.empty((*shape[:-2], len(rows), len(columns)), x.dtype)
    for p, height in enumerate(rows):
        for q, width in enumerate(columns):
            y[..., p, q] = x[..., height, width].mean(axis=(-2, -1))

    def grad_x(gy):
        gx = xp.zeros(shape, gy.dtype)
        for p, height in enumerate(rows):
            for q, width in enumerate(columns):
                window = gx[..., height, width]
                window += gy[..., p, q, None, None] / (window.shape[-2] * window.shape[-1])
        return gx

    return y, (grad_x,)
