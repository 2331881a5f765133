"""Initial weights. All are drawn on the host from the stream "init", so they are the same on every backend.

Each draw takes the next call of that stream: the same seed and the same order of construction give the same network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy

from . import philox
from .tensor import Tensor

if TYPE_CHECKING:
    from .nn import Module


def fan_in(shape: tuple[int, ...]) -> int:
    """How many inputs each output adds up: weight (O, I) or (F, C, R, S)."""
    if len(shape) < 2:
        raise ValueError(f"fan in: only weights of two or more dimensions have one, not shape {shape}")
    return math.prod(shape[1:])


def _draw() -> numpy.random.Generator:
    return philox.generator(*philox.next_call("init"))


def default(shape: tuple[int, ...], fan_in: int | None = None) -> numpy.ndarray:
    """PyTorch's default for linear and convolutional layers and their biases: uniform in +-1/sqrt(fan in)."""
    inputs = math.prod(shape[1:]) if fan_in is None else fan_in
    bound = 1 / math.sqrt(inputs) if inputs else 0.0
    return _draw().uniform(-bound, bound, shape).astype("float32")


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with numbers even between a and b, in place."""
    return _fill(tensor, _draw().uniform(a, b, tensor.shape))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill from a Gaussian, in place. The paper: std 0.01 everywhere (its code: 0.03 in conv3 to conv5)."""
    if std < 0:
        raise ValueError(f"normal_: std must be at least 0, not {std}")
    return _fill(tensor, mean + std * _draw().standard_normal(tensor.shape))


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number, in place."""
    return _fill(tensor, numpy.full(tensor.shape, val))


def kaiming_normal_(tensor: Tensor) -> Tensor:
    """Gaussian with variance 2 / fan in, which keeps the scale of activations through ReLUs (He et al., 2015)."""
    return normal_(tensor, std=math.sqrt(2 / fan_in(tensor.shape)))


def xavier_uniform_(tensor: Tensor) -> Tensor:
    """Uniform with variance 2 / (fan in + fan out), for layers that are nearly linear (Glorot and Bengio, 2010)."""
    inputs = fan_in(tensor.shape)
    outputs = tensor.shape[0] * math.prod(tensor.shape[2:])
    bound = math.sqrt(6 / (inputs + outputs))
    return uniform_(tensor, -bound, bound)


def orthogonal_(tensor: Tensor) -> Tensor:
    """Orthonormal rows, evenly distributed over all such matrices; columns, where there are more rows than columns.

    The tensor counts as a matrix of its first dimension times all others. The Q of a Gaussian matrix' QR decomposition
    is that, once R's diagonal is made positive, without which Q would depend on how LAPACK picks signs (Saxe,
    McClelland and Ganguli, 2014; Mezzadri, 2007).
    """
    import threadpoolctl

    rows, columns = tensor.shape[0], fan_in(tensor.shape)
    gaussian = _draw().standard_normal((rows, columns)).astype(tensor.dtype)
    with threadpoolctl.threadpool_limits(1, user_api="blas"):  # the same however many cores there are, and not slower
        q, r = numpy.linalg.qr(gaussian.T if rows < columns else gaussian)
    q *= numpy.sign(numpy.diagonal(r))
    return _fill(tensor, (q.T if rows < columns else q).reshape(tensor.shape))


def _fill(tensor: Tensor, values: numpy.ndarray) -> Tensor:
    if tensor.dtype.kind != "f":
        raise TypeError(f"init: a tensor of {tensor.dtype} cannot be filled with fractions")
    tensor.data = tensor.backend.asarray(values.astype(tensor.dtype))
    return tensor


def initialise(network: Module, weights: Callable[[Tensor], Tensor], bias: float = 0.0) -> None:
    """Fill every weight of two or more dimensions with `weights` and every layer's bias with one number.

    What is frozen (`requires_grad` is False) stays.
    """
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim >= 2:
            weights(parameter)
        elif name.endswith("bias"):
            constant_(parameter, bias)
