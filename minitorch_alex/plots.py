"""Pictures of runs and networks. Each function returns a figure, which a notebook shows and whose `save` writes it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

from .nn import Module
from .summary import Layer, summary

if TYPE_CHECKING:
    from .picture import Picture

TRAIN, TEST = "#3b6fb6", "#c8553d"
COLORS = {"Conv": "#8fb4dd", "Pool": "#e6b8ab", "Linear": "#b9d39b"}  # by kind of layer


def curves(log: Sequence[dict[str, Any]], classes: int) -> Picture:
    """Loss and error against epochs, from the lines of a log.jsonl."""
    from .picture import Picture

    epochs = [line for line in log if "test_top1" in line]
    steps = [line for line in log if "loss" in line and "test_top1" not in line]
    figure = Picture(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if steps:
        left.plot([line["at"] for line in steps], [line["loss"] for line in steps], color=TRAIN, alpha=0.25, lw=0.8)
    number = [line["epoch"] for line in epochs]
    marker = "o" if len(epochs) < 60 else None
    left.plot(number, [line["train_loss"] for line in epochs], color=TRAIN, marker=marker, ms=3, label="training")
    left.plot(number, [line["test_loss"] for line in epochs], color=TEST, marker=marker, ms=3, label="held out")
    left.axhline(math.log(classes), color="grey", ls=":", label=f"knowing nothing: ln {classes}")
    left.set(xlabel="epoch", ylabel="cross entropy (nats)", title="Loss", yscale="log")
    left.legend(framealpha=0.95)
    for name, label, color in (("test_top1", "top-1", TEST), ("test_top5", "top-5", "#e3a857")):
        right.plot(number, [100 * (1 - line[name]) for line in epochs], color=color, marker=marker, ms=3, label=label)
    title = f"Error on held-out images (last top-1: {100 * (1 - epochs[-1]['test_top1']):.2f} %)" if epochs else "Error"
    right.set(xlabel="epoch", ylabel="error (%)", title=title)
    right.set_ylim(bottom=0)
    if epochs:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def filters(weights: numpy.ndarray, title: str = "First-layer filters") -> Picture:
    """Convolution filters (F, C, R, S) as small pictures: in colour if C is 3, else the first channel.

    Each filter is stretched to the full range by itself, with 0 as mid-grey. The paper's Figure 3.
    """
    from .picture import Picture

    count = len(weights)
    about = min(16, max(1, math.ceil(math.sqrt(2 * count))))  # twice as wide as high
    columns = next((n for n in range(about, min(16, 2 * about) + 1) if count % n == 0), about)
    rows = math.ceil(count / columns)
    figure = Picture(figsize=(0.6 * columns + 0.4, 0.6 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = numpy.abs(weights).reshape(count, -1).max(axis=1).reshape(-1, 1, 1, 1)
    pictures = 0.5 + weights / (2 * numpy.maximum(largest, 1e-12))
    for i, axes in enumerate(grid.flat):
        axes.axis("off")
        if i < count:
            picture = pictures[i].transpose(1, 2, 0) if weights.shape[1] == 3 else pictures[i, 0]
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1)
    figure.suptitle(title)
    return figure


def architecture(network: Module, input_shape: tuple[int, ...]) -> Picture:
    """The network as a row of blocks: what its convolutions, pools and linear layers make of an image of (C, H, W).

    A block's face has the height and width of the maps, its depth grows with the logarithm of the channels. A linear
    layer is a bar. Below stand name and channels, above height x width.
    """
    from matplotlib.patches import Polygon

    from .picture import Picture

    layers = [Layer("input", "input", tuple(input_shape), 0, 0, False)]
    layers += [x for x in summary(network, input_shape).layers if "Pool" in x.kind or x.multiply_accumulates]
    figure = Picture(figsize=(max(6.0, 1.05 * len(layers)), 3.2), layout="constrained")
    axes = figure.subplots()
    left = 0.0
    for layer in layers:
        maps = len(layer.output_shape) == 3
        channels, height, width = layer.output_shape if maps else (layer.output_shape[0], 1, 1)
        tall = math.log2(channels) / 6 if not maps else math.sqrt(height / input_shape[1])
        wide = math.sqrt(width / input_shape[2]) if maps else 0.12
        depth = math.log2(channels + 1) / 14 if maps else 0.05
        face = [(left, -tall / 2), (left + wide, -tall / 2), (left + wide, tall / 2), (left, tall / 2)]
        top = [face[3], face[2], (left + wide + depth, tall / 2 + depth), (left + depth, tall / 2 + depth)]
        side = [face[1], (left + wide + depth, depth - tall / 2), top[2], face[2]]
        color = next((c for kind, c in COLORS.items() if kind in layer.kind), "#dddddd")
        for corners, shade in ((face, 1.0), (top, 0.75), (side, 0.55)):
            axes.add_patch(Polygon(corners, facecolor=color, alpha=shade, edgecolor="#444444", lw=0.8))
        middle = left + (wide + depth) / 2
        axes.text(middle, -1.35, f"{layer.path}\n{channels:,}", ha="center", va="top", fontsize=8)
        if maps:
            axes.text(middle, tall / 2 + depth + 0.06, f"{height} x {width}", ha="center", va="bottom", fontsize=8)
        left += max(wide + depth, 0.75) + 0.3
    axes.set(xlim=(-0.4, left), ylim=(-2.0, 1.6))
    axes.axis("off")
    return figure
