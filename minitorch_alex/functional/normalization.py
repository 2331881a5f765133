"""Response normalisation (AlexNet, section 3.3) and batch normalisation (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

from typing import Any

import numpy

from ..backends.number_types import BFLOAT16, is_bfloat16
from ..tensor import Tensor, common_backend, op
from ._arguments import at_least, is_whole, number, operation, optional_vector, same_dtype, tensor_of


@operation
def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each channel by the energy of its neighbours: input (N, C, ...) -> the same shape.

        y[c] = x[c] / (k + alpha/size * sum of x[j]^2) ** beta,    j = c - size//2 ... c + (size-1)//2, where it exists

    Dimension 1 holds the channels, also of a three-dimensional input, as in PyTorch. The same letters mean different
    things elsewhere; a is what multiplies the plain sum of squares:

        who                      a               k             to get that here
        the paper's text         alpha           2             alpha=5e-4, k=2   (its alpha is 1e-4, size 5)
        the original code        alpha / size    1, later 2    alpha=1e-4, k=2
        Caffe's AlexNet          alpha / size    1             alpha=1e-4, k=1
        PyTorch, ONNX, here      alpha / size    1             the same
        TensorFlow               alpha           1             and size = 2*depth_radius + 1, beta = 0.5 by default

    With these constants it does almost nothing to responses near 1. The paper's network sees pixels of 0..255 minus the
    mean, whose responses are hundreds.
    """
    tensor_of("local_response_norm", "input", input, at_least(3), "(N, C, ...) with at least 3 dimensions")
    return _local_response_norm(input, **_response("local_response_norm", "channels", size, alpha, beta, k))


@op
def _local_response_norm(xp, x, size, alpha, beta, k):
    y, scale = xp.local_response_norm(x, size, alpha, beta, k)
    return y, (lambda gy: xp.local_response_norm_gradient(gy, x, scale, size, alpha, beta),)


@operation
def spatial_response_norm(input: Tensor, size: int, alpha: float, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Divide each pixel by the energy around it in its own channel: input (N, C, H, W) or (C, H, W) -> the same shape.

        y[h, w] = x[h, w] / (k + alpha/size^2 * sum of x[i, j]^2) ** beta,    i = h - size//2 ... h + (size-1)//2

    and j likewise, inside the image. The 2012 code's "rnorm"; neither the paper nor PyTorch has it.
    """
    tensor_of("spatial_response_norm", "input", input, (3, 4), "(N, C, H, W) or (C, H, W)")
    return _spatial_response_norm(input, **_response("spatial_response_norm", "rows", size, alpha, beta, k))


@op
def _spatial_response_norm(xp, x, size, alpha, beta, k):
    y, scale = xp.spatial_response_norm(x, size, alpha, beta, k)
    return y, (lambda gy: xp.spatial_response_norm_gradient(gy, x, scale, size, alpha, beta),)


def _response(operation: str, of: str, size: Any, alpha: Any, beta: Any, k: Any) -> dict[str, Any]:
    """The settings of a response normalisation, checked."""
    if not is_whole(size) or size < 1:
        raise ValueError(f"{operation}: size, the {of} in a window, must be at least 1, not {size!r}")
    numbers = {name: number(operation, name, value) for name, value in (("alpha", alpha), ("beta", beta), ("k", k))}
    return {"size": int(size), **numbers}


@operation
def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Give each channel mean 0 and variance 1 over the batch, then scale and shift it: input (N, C, ...).

        y = (x - mean) / sqrt(var + eps) * weight + bias

    In training mean and (biased) variance are the batch's own, and the running ones move towards them by `momentum`
    (the variance unbiased, as in PyTorch); otherwise the running ones are used.
    """
    tensor_of("batch_norm", "input", input, at_least(2), "(N, C, ...)")
    if is_bfloat16(input.dtype):  # mean and variance need all digits
        exact = input.to("float32")
        return batch_norm(exact, running_mean, running_var, weight, bias, training, momentum, eps).to(BFLOAT16)
    C = input.shape[1]
    parts = {"running_mean": running_mean, "running_var": running_var, "weight": weight, "bias": bias}
    for name, t in parts.items():
        optional_vector("batch_norm", name, t, C, f"channel of {input.shape}")
    same_dtype("batch_norm", input=input, **parts)
    if (running_mean is None) != (running_var is None):
        raise ValueError("batch_norm: give both running_mean and running_var, or neither")
    if any(t is not None and t.requires_grad for t in (running_mean, running_var)):
        raise TypeError("batch_norm: running_mean and running_var have no gradient; detach() them first")
    eps, momentum = number("batch_norm", "eps", eps, above=0), number("batch_norm", "momentum", momentum)
    common_backend("batch_norm", (input, *parts.values()))
    if training:
        return _batch_norm_training(input, weight, bias, running_mean, running_var, momentum, eps)
    if running_mean is None or running_var is None:
        raise ValueError("batch_norm: outside training it needs running_mean and running_var")
    with numpy.errstate(all="ignore"):  # as in every operation: infinities and NaNs are values like others
        spread = input.backend.sqrt(running_var.data + eps)
    return _standardise(input, weight, bias, mean=running_mean.data, spread=spread, of_the_batch=False)


def _batch_norm_training(input, weight, bias, running_mean, running_var, momentum, eps) -> Tensor:
    xp, n = input.backend, input.data.size // input.shape[1] if input.data.size else 0
    if not n:  # nothing to learn from
        mean, spread = xp.zeros((input.shape[1],)), xp.ones((input.shape[1],), input.dtype)
        return _standardise(input, weight, bias, mean=mean, spread=spread, of_the_batch=True)
    if n < 2:
        raise ValueError(
            f"batch_norm: training needs more than one value per channel, got shape {input.shape}; where nothing is "
            "learnt, network.eval() comes first"
        )
    with numpy.errstate(all="ignore"):
        mean, var, spread = xp.batch_norm_statistics(input.data, eps)
    if running_mean is not None:
        running_mean.data = (1 - momentum) * running_mean.data + momentum * mean.astype(running_mean.dtype)
    if running_var is not None:
        running_var.data = (1 - momentum) * running_var.data + momentum * (var * n / (n - 1)).astype(running_var.dtype)
    return _standardise(input, weight, bias, mean=mean, spread=spread, of_the_batch=True)


@op
def _standardise(xp, x, w, b, mean, spread, of_the_batch):
    made: list[Any] = []  # all three gradients at once: they share a look at the arrays

    def gradients(gy):
        if not made:
            made.extend(xp.batch_norm_gradients(gy, x, mean, spread, w, of_the_batch))
        return made

    y = xp.batch_norm(x, mean, spread, w, b)
    return y, (lambda gy: gradients(gy)[0], lambda gy: gradients(gy)[1], lambda gy: gradients(gy)[2])
