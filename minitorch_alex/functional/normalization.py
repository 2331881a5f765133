"""Local response normalisation (AlexNet, section 3.3) and batch normalisation (Ioffe and Szegedy, 2015)."""

from __future__ import annotations

import numpy

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
    if not is_whole(size) or size < 1:
        raise ValueError(f"local_response_norm: size, the channels in a window, must be at least 1, not {size!r}")
    alpha, beta, k = (number("local_response_norm", n, v) for n, v in (("alpha", alpha), ("beta", beta), ("k", k)))
    return _local_response_norm(input, size=int(size), alpha=alpha, beta=beta, k=k)


@op
def _local_response_norm(xp, x, size, alpha, beta, k):
    y, scale = xp.local_response_norm(x, size, alpha, beta, k)
    return y, (lambda gy: xp.local_response_norm_gradient(gy, x, scale, size, alpha, beta),)


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
    return _standardise(input, weight, bias, mean=running_mean.data, var=running_var.data, eps=eps)


def _batch_norm_training(input, weight, bias, running_mean, running_var, momentum, eps) -> Tensor:
    xp, n = input.backend, input.data.size // input.shape[1] if input.data.size else 0
    if not n:  # nothing to learn from
        mean, var = numpy.zeros(input.shape[1]), numpy.ones(input.shape[1])
        return _standardise(input, weight, bias, mean=xp.asarray(mean), var=xp.asarray(var), eps=eps, of_the_batch=True)
    if n < 2:
        raise ValueError(f"batch_norm: training needs more than one value per channel, got shape {input.shape}")
    axes = (0, *range(2, input.ndim))
    with numpy.errstate(all="ignore"):  # as in every operation: infinities are values like others
        mean = input.data.mean(axis=axes, dtype="float64")
        var = (_distance(input.data, mean) ** 2).mean(axis=axes, dtype="float64")
    if running_mean is not None:
        running_mean.data = (1 - momentum) * running_mean.data + momentum * mean.astype(running_mean.dtype)
    if running_var is not None:
        running_var.data = (1 - momentum) * running_var.data + momentum * (var * n / (n - 1)).astype(running_var.dtype)
    return _standardise(input, weight, bias, mean=mean, var=var, eps=eps, of_the_batch=True)


def _distance(x, mean):
    """x - mean, with the digits of the mean that x's own dtype has no room for."""
    mean = mean.reshape((1, -1) + (1,) * (x.ndim - 2))
    rounded = mean.astype(x.dtype)
    return (x - rounded) - (mean - rounded).astype(x.dtype)


@op
def _standardise(xp, x, w, b, mean, var, eps, of_the_batch=False):
    axes = (0, *range(2, x.ndim))
    per_channel = (1, -1) + (1,) * (x.ndim - 2)
    spread = xp.sqrt(var + eps).astype(x.dtype).reshape(per_channel)
    z = _distance(x, mean) / spread
    gain = x.dtype.type(1) if w is None else w.reshape(per_channel)
    y = z * gain if b is None else z * gain + b.reshape(per_channel)

    def grad_x(g):
        g = g * gain
        if of_the_batch:  # mean and variance move with x: take out what a shift and a stretch of the batch would do
            n = x.size // x.shape[1] or 1
            g = g - g.sum(axis=axes, keepdims=True) / n - z * ((g * z).sum(axis=axes, keepdims=True) / n)
        return g / spread

    return y, (grad_x, lambda g: (g * z).sum(axis=axes), lambda g: g.sum(axis=axes))
