"""What a network consists of, and what it costs: a line per layer."""

from __future__ import annotations

import html
from dataclasses import dataclass

import numpy

from . import memory
from .nn import Module
from .tensor import Tensor
from .watch import evaluating, watching

BYTES = 4  # of a float32


@dataclass
class Layer:
    """One layer that computes something itself. Everything is counted for one image."""

    path: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_accumulates: int
    is_convolution: bool

    @property
    def activation_bytes(self) -> int:
        """The memory that its output takes."""
        return BYTES * int(numpy.prod(self.output_shape))


@dataclass
class Summary:
    """The layers in the order in which an image passes them. A terminal shows a table, a notebook one in HTML."""

    input_shape: tuple[int, ...]
    layers: list[Layer]
    network: Module

    def training_bytes(self, batch_size: int) -> int:
        """The memory that a training step on so many images takes at its peak: predicted, see memory.py."""
        return memory.peak(self.network, self.input_shape, batch_size).total

    def table(self) -> list[tuple[str, ...]]:
        """Headings, a row per layer, the totals, and the convolutions' share of them."""
        rows: list[tuple[str, ...]] = [("layer", "what", "output", "parameters", "multiply-acc.", "activations")]
        rows.append(("input", "", _size(self.input_shape), "", "", ""))
        for layer in self.layers:
            costs = _count(layer.parameters), _count(layer.multiply_accumulates), _memory(layer.activation_bytes)
            rows.append((layer.path, layer.kind, _size(layer.output_shape), *costs))
        whole, parts = self.totals(self.layers), self.totals([layer for layer in self.layers if layer.is_convolution])
        rows.append(("total", "", "", f"{whole[0]:,}", f"{whole[1]:,}", _memory(whole[2])))
        if any(parts):
            share = [f"{100 * part / of:.1f} %" for part, of in zip(parts, whole, strict=True)]
            rows.append(("of it in convolutions", "", "", *share))
        return rows

    @staticmethod
    def totals(layers: list[Layer]) -> tuple[int, int, int]:
        """Parameters, multiply-accumulates and bytes of activations, added up."""
        return (
            sum(layer.parameters for layer in layers),
            sum(layer.multiply_accumulates for layer in layers),
            sum(layer.activation_bytes for layer in layers),
        )

    def __repr__(self) -> str:
        rows = self.table()
        widths = [max(len(row[i]) for row in rows) for i in range(6)]
        lines = []
        for row in rows:
            left = [cell.ljust(width) for cell, width in zip(row[:2], widths[:2], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[2:], widths[2:], strict=True)]
            lines.append(("  " + "  ".join(left + right)).rstrip())
        rule = "  " + "-" * (sum(widths) + 10)
        end = 2 + len(self.layers)
        return "\n".join([lines[0], rule, *lines[1:end], rule, *lines[end:]])

    def _repr_html_(self) -> str:  # what IPython asks for
        rows = ["<tr>" + "".join(_cell(cell, i) for i, cell in enumerate(row)) + "</tr>" for row in self.table()]
        return f"<table><thead>{rows[0]}</thead><tbody>{''.join(rows[1:])}</tbody></table>"


def summary(network: Module, input_shape: tuple[int, ...]) -> Summary:
    """Send an image of (C, H, W) through the network and note what each layer makes of it.

    Multiply-accumulates are those of convolutions and linear layers. Parameters that layers share count once.
    """
    found: list[Layer] = []
    seen: set[Tensor] = set()

    def note(path: str, layer: Module, output: Tensor) -> None:
        own = [p for p in layer.parameters() if p not in seen]
        seen.update(own)
        cost = layer.multiply_accumulates(output.shape[1:])
        is_convolution = cost > 0 and output.ndim == 4
        count = sum(p.numel() for p in own)
        found.append(Layer(path, type(layer).__name__, output.shape[1:], count, cost, is_convolution))

    with evaluating(network), watching(network, note):
        network(Tensor(numpy.zeros((1, *input_shape), "float32")))
    return Summary(tuple(input_shape), found, network)


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


def _count(n: int) -> str:
    return f"{n:,}" if n else ""


def _memory(n: int) -> str:
    if n < 1024:
        return f"{n} B"
    return f"{n / 1024:,.1f} KiB" if n < 1024**2 else f"{n / 1024**2:,.2f} MiB"


def _cell(text: str, column: int) -> str:
    return f'<td style="text-align:{"left" if column < 2 else "right"}">{html.escape(text)}</td>'
