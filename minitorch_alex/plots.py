"""Pictures of runs and networks. Each function returns a figure, which a notebook shows and whose `save` writes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from .image_plots import neighbours, predictions  # noqa: F401  (so that every figure is found here)
from .nn import Module
from .summary import Layer, summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .picture import Picture

TRAIN, TEST, GREY = "#3b6fb6", "#c8553d", "#888888"
COLORS = {"Conv": "#8fb4dd", "Pool": "#e6b8ab", "Linear": "#b9d39b"}  # by kind of layer


def curves(log: Sequence[dict[str, Any]], classes: int, reference: dict[str, Any] | None = None) -> Picture:
    """Loss and error against epochs, from the lines of a log.jsonl.

    `reference` is drawn behind them: the median of several finished runs, dashed, in a grey band from their smallest
    to their largest value. It is what a recipes/NAME.reference.json holds.
    """
    from .picture import Picture

    epochs = [line for line in log if "test_top1" in line]
    steps = [line for line in log if "loss" in line and "test_top1" not in line]
    figure = Picture(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    if reference is not None:
        _draw_reference(left, reference, train_loss=TRAIN, test_loss=TEST)
        _draw_reference(right, reference, test_top1=TEST)
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
    if epochs or reference is not None:
        right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    return figure


def _draw_reference(axes: Axes, reference: dict[str, Any], **colors: str) -> None:
    """Range and median of the runs in `reference`, for each of these values; a share that is right as an error in %."""
    seeds, epochs = len(reference["seeds"]), reference["epochs"]
    label: str | None = f"our runs ({seeds} seeds)" if seeds > 1 else "our run"
    for name, color in colors.items():
        low, median, high = (numpy.array(reference[name][kind]) for kind in ("low", "median", "high"))
        if name.startswith("test_top"):
            low, median, high = 100 * (1 - low), 100 * (1 - median), 100 * (1 - high)
        axes.fill_between(epochs, low, high, color=GREY, alpha=0.3, lw=0, label=label)
        axes.plot(epochs, median, color=color, alpha=0.6, lw=0.8, ls="--")
        label = None  # one entry in the legend


def filters(weights: numpy.ndarray, title: str = "First-layer filters") -> Picture:
    """Convolution filters (F, C, R, S) as small pictures: in colour if C is 3, else the first channel.

    Each filter is stretched to the full range by itself, with 0 as mid-grey. The paper's Figure 3.
    """
    from .picture import Picture

    pictures, columns = filter_pictures(weights)
    rows = math.ceil(len(pictures) / columns)
    figure = Picture(figsize=(0.6 * columns + 0.4, 0.6 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for i, axes in enumerate(grid.flat):
        axes.axis("off")
        if i < len(pictures):
            axes.imshow(pictures[i], cmap="gray", vmin=0, vmax=1)
    figure.suptitle(title)
    return figure


def filter_pictures(weights: numpy.ndarray) -> tuple[numpy.ndarray, int]:
    """What `filters` shows: pictures of 0..1, (F, R, S, 3) in colour or (F, R, S, 1) in grey, and how many in a row."""
    count = len(weights)
    about = min(16, max(1, math.ceil(math.sqrt(2 * count))))  # twice as wide as high
    columns = next((n for n in range(about, min(16, 2 * about) + 1) if count % n == 0), about)
    largest = numpy.abs(weights).reshape(count, -1).max(axis=1).reshape(-1, 1, 1, 1)
    pictures = 0.5 + weights / (2 * numpy.maximum(largest, 1e-12))
    return (pictures if weights.shape[1] == 3 else pictures[:, :1]).transpose(0, 2, 3, 1), columns


def activations(maps: numpy.ndarray, title: str, own_scale: bool = False, most: int = 96) -> Picture:
    """What the channels of one layer hold for one image, maps (C, H, W), as grey pictures: at most the first 96.

    On a common scale, from the smallest value in black to the largest in white, they can be compared; with `own_scale`
    each is stretched to its own range, so that faint ones can be seen.
    """
    from .picture import Picture

    count, H, W = maps.shape
    drawn = min(count, most)
    about = min(drawn, math.ceil(math.sqrt(1.5 * drawn * H / W)))  # somewhat wider than high
    columns = next((n for n in range(about, 2 * about) if drawn % n == 0), about)
    rows = math.ceil(drawn / columns)
    gap = math.ceil(max(H, W) / 12)
    mosaic = numpy.full((rows * (H + gap) - gap, columns * (W + gap) - gap), numpy.nan)
    for i, values in enumerate(maps[:drawn]):
        top, left = (i // columns) * (H + gap), (i % columns) * (W + gap)
        if own_scale:
            values = (values - values.min()) / max(numpy.ptp(values), 1e-12)
        mosaic[top : top + H, left : left + W] = values
    figure = Picture(figsize=(8, min(6.5, 0.9 + 6.6 * mosaic.shape[0] / mosaic.shape[1])), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(mosaic, cmap="gray")
    axes.set_xticks([])
    axes.set_yticks([(H - 1) / 2 + row * (H + gap) for row in range(rows)], [str(row * columns) for row in range(rows)])
    axes.set(title=title, ylabel="channel")
    axes.spines[:].set_visible(False)
    scale = "each on its own scale from black to white" if own_scale else "all on one scale"
    left_out = f"; {count - drawn} of {count} left out" if drawn < count else ""
    axes.set_xlabel(f"{drawn} channel{'s' * (drawn > 1)} of {H} x {W}, {scale}{left_out}")
    if not own_scale:
        figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, label="activation")
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


def time_to_error(
    runs: Mapping[str, Sequence[tuple[Sequence[float], Sequence[float]]]], target: float, title: str
) -> Picture:
    """Training error (%) against epochs for two kinds of network, down to a target: the paper's Figure 1.

    `runs` has (epochs, errors) of each run by kind, the first of which is drawn solid and the second dashed. Faint is a
    run, strong the median at each epoch; a run that has ended had reached the target, so it counts as below the others.
    """
    from .picture import Picture

    figure = Picture(figsize=(7.5, 4.5), layout="constrained")
    axes = figure.subplots()
    for (kind, curves), style, color in zip(runs.items(), ("-", "--"), (TRAIN, TEST), strict=True):
        ends = sorted((epochs for epochs, _ in curves), key=len)
        errors = numpy.zeros((len(curves), len(ends[-1])))
        for row, (epochs, values) in zip(errors, curves, strict=True):
            row[: len(values)] = values
            axes.plot(epochs, values, color=color, ls=style, lw=0.9, alpha=0.4)
        middle = ends[len(ends) // 2]  # the epochs until more than half of the runs have ended
        median = numpy.quantile(errors, 0.5, axis=0, method="higher")[: len(middle)]
        axes.plot(middle, median, color=color, ls=style, lw=2, label=f"{kind}: median of {len(curves)} runs")
    axes.axhline(target, color=GREY, lw=1, label=f"{target:g} %")
    axes.set(xlabel="epoch", ylabel="training error (%)", title=title)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
