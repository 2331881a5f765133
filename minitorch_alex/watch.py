"""Look inside a network while it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy

from .nn import Module
from .tensor import Tensor, no_grad


@contextmanager
def watching(network: Module, heard: Callable[[str, Module, Any], None]) -> Iterator[None]:
    """Within it, every layer that has no layers inside tells `heard(path, layer, output)` whenever it has computed.

    A layer that stands in two places is heard twice, both times by the first of its paths.
    """
    inner: dict[Module, str] = {}
    for path, module in network.named_modules():
        if len(list(module.named_modules())) == 1:
            inner.setdefault(module, path)

    def watch(path: str, layer: Module) -> None:
        forward = layer.forward

        def watched(*inputs: Any) -> Any:
            output = forward(*inputs)
            heard(path, layer, output)
            return output

        layer.forward = watched  # type: ignore[method-assign]

    try:
        for layer, path in inner.items():
            watch(path, layer)
        yield
    finally:
        for layer in inner:
            vars(layer).pop("forward", None)


@contextmanager
def evaluating(network: Module) -> Iterator[Module]:
    """Within it, the network is in evaluation mode and nothing is recorded; afterwards all is as it was."""
    modes = {module: module.training for _, module in network.named_modules()}
    try:
        with no_grad():
            yield network.eval()
    finally:
        for module, mode in modes.items():
            module.training = mode


def activations(network: Module, images: Any, *layers: str) -> dict[str, numpy.ndarray]:
    """What the layers with these paths (all, if none is named) make of images (N, C, H, W), by path.

    In evaluation mode. An unknown path raises KeyError.
    """
    kept: dict[str, numpy.ndarray] = {}
    known: list[str] = []

    def keep(path: str, layer: Module, output: Tensor) -> None:
        known.append(path)
        if path in layers or not layers:
            kept[path] = numpy.array(output.numpy())

    with evaluating(network), watching(network, keep):
        network(images if isinstance(images, Tensor) else Tensor(images))
    for path in layers:
        if path not in kept:
            raise KeyError(f"activations: there is no layer {path!r}; there are {', '.join(dict.fromkeys(known))}")
    return kept
