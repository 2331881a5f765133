"""What a network consists of: one line per layer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from .nn import Module
from .tensor import Tensor, no_grad


@dataclass
class Layer:
    """One layer that computes something itself."""

    path: str
    kind: str
    output_shape: tuple[int, ...]  # without the batch
    parameters: int


def layers(network: Module, image_shape: tuple[int, ...]) -> list[Layer]:
    """The layers in the order in which one image of (C, H, W) passes them."""
    found: list[Layer] = []

    def watch(path: str, module: Module) -> None:
        forward = module.forward

        def watched(*inputs):
            out = forward(*inputs)
            count = sum(p.numel() for p in module.parameters())
            found.append(Layer(path, type(module).__name__, out.shape[1:], count))
            return out

        module.forward = watched  # type: ignore[method-assign]

    inner = [(path, m) for path, m in network.named_modules() if len(list(m.named_modules())) == 1]
    modes = {m: m.training for _, m in network.named_modules()}
    try:
        for path, module in inner:
            watch(path, module)
        with no_grad():
            network.eval()(Tensor(numpy.zeros((1, *image_shape), "float32")))
    finally:
        for _, module in inner:
            del module.forward
        for module, mode in modes.items():
            module.training = mode
    return found


def summary(network: Module, image_shape: tuple[int, ...]) -> str:
    """A table of layers, output shapes and parameters, with the total."""
    rows = [("layer", "what", "output", "parameters"), ("input", "", _size(image_shape), "")]
    rows += [(l.path, l.kind, _size(l.output_shape), f"{l.parameters:,}") for l in layers(network, image_shape)]  # noqa: E741
    rows.append(("total", "", "", f"{sum(p.numel() for p in network.parameters()):,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = [
        f"  {path:<{widths[0]}}  {kind:<{widths[1]}}  {size:>{widths[2]}}  {count:>{widths[3]}}"
        for path, kind, size, count in rows
    ]
    rule = "  " + "-" * (sum(widths) + 6)
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)
