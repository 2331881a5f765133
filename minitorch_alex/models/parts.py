"""Layers that a single historical network needs, built from the operations that everybody has."""

from __future__ import annotations

import math

import numpy

from .. import functional as F
from .. import init
from ..functional.normalization import spatial_response_norm
from ..nn import LocalResponseNorm, Module, Parameter
from ..tensor import Tensor


class ColumnResponseNorm(LocalResponseNorm):
    """LocalResponseNorm within each of `columns` equal parts of the channels: windows do not cross from GPU to GPU."""

    def __init__(self, columns: int, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__(size, alpha, beta, k)
        self.columns = columns

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        apart = x.reshape(N * self.columns, C // self.columns, H, W)
        return super().forward(apart).reshape(N, C, H, W)

    def extra_repr(self) -> str:
        return f"columns={self.columns}, {super().extra_repr()}"


class SpatialResponseNorm(Module):
    """Divide by the energy around a pixel in its own channel; LocalResponseNorm looks at the same pixel in others.

        y = x / (k + alpha/size^2 * sum of x^2 over the size x size pixels around) ** beta

    Pixels outside the image count as 0. ("rnorm" of the 2012 code.)
    """

    def __init__(self, size: int, alpha: float, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return spatial_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class Subsampling(Module):
    """LeNet-5's pooling: the sum of each 2 x 2 window times a trainable coefficient, plus a bias, per channel."""

    def __init__(self, channels: int) -> None:
        self.coefficient = Parameter(init.default((channels, 1, 1), fan_in=4))
        self.bias = Parameter(numpy.zeros((channels, 1, 1), "float32"))

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2, divisor_override=1) * self.coefficient + self.bias


class PartlyConnectedConv2d(Module):
    """Convolution in which each filter sees only the channels that `table` (F rows of channel numbers) gives it."""

    def __init__(self, channels: int, kernel_size: int, table: tuple[tuple[int, ...], ...]) -> None:
        filters, connections = len(table), sum(len(row) for row in table)
        self.kernel_size, self.connections = kernel_size, connections
        fan_in = connections * kernel_size**2 // filters
        self.kernels = Parameter(init.default((connections, kernel_size, kernel_size), fan_in=fan_in))
        self.bias = Parameter(init.default((filters,), fan_in=fan_in))
        self._place = numpy.full((filters, channels), connections)  # of the kernels, behind which stands one of zeros
        pairs = [(f, c) for f, row in enumerate(table) for c in row]
        self._place[tuple(zip(*pairs, strict=True))] = range(connections)

    def forward(self, x: Tensor) -> Tensor:
        zeros = Tensor(self.kernels.backend.zeros_like(self.kernels.data[:1]), backend=self.kernels.backend)
        weight = F.cat([self.kernels, zeros])[self._place]
        return F.conv2d(x, weight, self.bias)

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape[1:]) * self.kernels.numel()

    def extra_repr(self) -> str:
        filters, channels = self._place.shape
        return f"{channels}, {filters}, kernel_size={self.kernel_size}, {self.connections} connections"


class ScaledTanh(Module):
    """1.7159 tanh(2x/3), which takes 1 to 1 and -1 to -1. LeNet-5."""

    def forward(self, x: Tensor) -> Tensor:
        return 1.7159 * F.tanh(x * (2 / 3))
