"""Convolution: slide filters over images. AlexNet, sections 3.2 and 3.5.

Strictly a cross-correlation, since the filter is not flipped; deep learning calls it convolution all the same.
"""

from __future__ import annotations

from typing import Any

from ..backends.window import Window
from ..tensor import Tensor, op
from ._arguments import check_fits, is_whole, operation, optional_vector, pair, same_dtype, tensor_of
from .shape import pad


@operation
def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] | str = 0,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> Tensor:
    """Slide F filters over a batch of images.

    input (N, C, H, W) or one image (C, H, W), weight (F, C/groups, R, S), bias (F,)  ->  (N, F, P, Q) or (F, P, Q)

        y[n, f, p, q] = bias[f] + sum over c, r, s of weight[f, c, r, s] * x[n, c, p*stride + r*dilation - padding, ...]
        P = floor((H + 2*padding - dilation*(R-1) - 1) / stride) + 1,    Q likewise

    padding 'valid' is 0; 'same' keeps H x W at stride 1 (an odd surplus goes to the bottom and the right). With
    `groups` channels and filters are split into that many parts that do not see each other: AlexNet's two columns.
    """
    tensor_of("conv2d", "input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    tensor_of("conv2d", "weight", weight, (4,), "(F, C/groups, R, S)")
    optional_vector("conv2d", "bias", bias, weight.shape[0], "filter")
    same_dtype("conv2d", input=input, weight=weight, bias=bias)
    _check_channels(input, weight, groups)
    if input.ndim == 3:
        batch = input.reshape(1, *input.shape)
        return conv2d(batch, weight, bias, stride, padding, dilation, groups).squeeze(0)
    stride, dilation = pair("conv2d", "stride", stride, 1), pair("conv2d", "dilation", dilation, 1)
    kernel = (weight.shape[2], weight.shape[3])
    if padding == "same":
        input, padding = _pad_same(input, kernel, stride, dilation), 0
    elif isinstance(padding, str) and padding != "valid":
        raise ValueError(f"conv2d: padding must be 'same', 'valid', a whole number or a pair, not {padding!r}")
    padding = (0, 0) if padding == "valid" else pair("conv2d", "padding", padding, 0)
    window = Window(kernel, stride, padding, dilation)
    check_fits("conv2d", input.shape, window)
    return _conv2d(input, weight, bias, window=window, groups=groups)


@op
def _conv2d(xp, x, w, b, window, groups):
    w = w.astype(x.dtype, copy=False)  # float32 beside a bfloat16 input, see same_dtype
    y = xp.conv2d(x, w, window, groups, b if b is None else b.astype(x.dtype, copy=False))

    def grad_x(gy):
        return xp.conv2d_input_gradient(gy, w, x.shape, window, groups)

    def grad_w(gy):
        return xp.conv2d_weight_gradient(gy, x, w.shape, window, groups)

    def grad_b(gy):
        return xp.channel_sums(gy)

    return y, (grad_x, grad_w, grad_b)


def _check_channels(input: Tensor, weight: Tensor, groups: Any) -> None:
    channels, filters = input.shape[-3], weight.shape[0]
    if not is_whole(groups) or groups < 1:
        raise ValueError(f"conv2d: groups must be a whole number from 1 up, not {groups!r}")
    if filters % groups:
        raise ValueError(f"conv2d: {filters} filters (weight {weight.shape}) cannot be split into {groups} groups")
    if channels != weight.shape[1] * groups:
        last = " (if they come last: x.permute(0, 3, 1, 2))" if input.shape[-1] == weight.shape[1] * groups else ""
        raise ValueError(
            f"conv2d: the weight {weight.shape} with groups={groups} takes {weight.shape[1] * groups} channels, "
            f"the input {input.shape} has {channels}{last}"
        )
    if 0 in weight.shape:
        raise ValueError(f"conv2d: the weight {weight.shape} is empty")


def _pad_same(x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int]) -> Tensor:
    """Zeros so that the output is as large as the input: half in front, and an odd surplus behind."""
    if stride != (1, 1):
        raise ValueError(f"conv2d: padding='same' needs stride 1, got {stride}: give the padding as numbers")
    vertical, horizontal = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    top, left = vertical // 2, horizontal // 2
    return pad(x, (left, horizontal - left, top, vertical - top))
