"""Layers of ours as layers of PyTorch, with the same weights and the same masks of dropout."""

from __future__ import annotations

from typing import Any

import numpy

from . import nn
from .config import ConfigError
from .nn import Module
from .tensor import Tensor


class TorchTwin:
    """By path, the twins of layers on the backend numpy, asked one by one. They compute on the CPU.

    Raises ConfigError where PyTorch is missing, or has no such layer.
    """

    def __init__(self, layers: dict[str, Module], dtype: str) -> None:
        try:
            import torch
        except Exception as error:  # an installation can be broken in any way
            raise ConfigError(f"PyTorch cannot be used here ({error}): python -m pip install torch") from None
        self.torch = torch
        self.layers: dict[str, Any] = {path: self.twin(path, layer) for path, layer in layers.items()}
        for path, twin in self.layers.items():
            if isinstance(twin, torch.nn.Module):
                state = layers[path].state_dict()
                twin.load_state_dict({name: torch.tensor(array) for name, array in state.items()})
                twin.to(getattr(torch, dtype))

    def answer(self, path: str, given: numpy.ndarray, output_gradient: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
        """What the layer makes of an input, and its gradient once the output's is known."""
        x = self.torch.tensor(given, requires_grad=True)
        y = self.layers[path](x)
        y.backward(self.torch.tensor(output_gradient))
        assert x.grad is not None
        return y.detach().numpy(), x.grad.numpy()

    def gradients(self, path: str) -> dict[str, numpy.ndarray]:
        """Those of the layer's parameters, by name."""
        return {name: p.grad.numpy() for name, p in getattr(self.layers[path], "named_parameters", list)()}

    def averages(self, path: str) -> dict[str, numpy.ndarray]:
        """The moving averages of batch norm, by name."""
        return {name: buffer.numpy() for name, buffer in getattr(self.layers[path], "named_buffers", list)()}

    def twin(self, path: str, layer: Any) -> Any:
        """PyTorch's layer, or a function."""
        if type(layer) is nn.Dropout:
            return lambda x: x * self.torch.tensor(layer.forward(Tensor(numpy.ones_like(x.detach().numpy()))).numpy())
        if hasattr(layer, "labels"):  # the loss
            return lambda x: self.torch.nn.functional.cross_entropy(x, self.torch.tensor(layer.labels))
        twin = torch_layer(self.torch.nn, layer)
        if twin is None:
            raise ConfigError(
                f"PyTorch has no layer like {path}, {layer!r}: compare with another backend, such as numpy"
            )
        return twin


def torch_layer(theirs: Any, layer: Any) -> Any:
    """The layer of `theirs`, torch.nn, for one of ours, with weights of its own; None if there is none.

    A subclass of one of ours may do anything, so it has none.
    """
    kind = type(layer)
    if kind is nn.Conv2d:
        sizes = layer.in_channels, layer.out_channels, layer.kernel_size
        window = layer.stride, layer.padding, layer.dilation, layer.groups
        return theirs.Conv2d(*sizes, *window, layer.bias is not None)
    if kind is nn.Linear:
        return theirs.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    if kind is nn.MaxPool2d and layer.ties == "first":
        window = layer.kernel_size, layer.stride, layer.padding, layer.dilation
        return theirs.MaxPool2d(*window, ceil_mode=layer.ceil_mode)
    if kind is nn.AdaptiveAvgPool2d:
        return theirs.AdaptiveAvgPool2d(layer.output_size)
    if kind is nn.ZeroPad2d:
        return theirs.ZeroPad2d(layer.padding)
    if kind is nn.LocalResponseNorm:
        return theirs.LocalResponseNorm(layer.size, layer.alpha, layer.beta, layer.k)
    if kind in (nn.BatchNorm1d, nn.BatchNorm2d):
        has = layer.weight is not None, layer.running_mean is not None
        return getattr(theirs, kind.__name__)(layer.num_features, layer.eps, layer.momentum, *has)
    if kind is nn.Flatten:
        return theirs.Flatten(layer.start_dim, layer.end_dim)
    if kind in (nn.ReLU, nn.Tanh, nn.Sigmoid):
        return getattr(theirs, kind.__name__)()
    return theirs.Dropout(layer.p) if kind is nn.Dropout else None
