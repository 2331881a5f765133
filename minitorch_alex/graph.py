"""Draw the tape: which tensors a tensor was computed from, and by what."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from .tensor import Tensor, ancestors

if TYPE_CHECKING:
    from .picture import Picture

LEAF, MADE, EDGE = "#e8f0d8", "#dbe6f4", "#555555"


def graph(tensor: Tensor, **names: Tensor) -> Picture:
    """The tape behind `tensor` from left (leaves) to right, as a picture: `graph(loss, x=x, w=w)`.

    A green box is a leaf that requires a gradient, a blue one the result of an operation. Each shows its shape and,
    after #, its place in the order of birth: backward() visits the highest number first. Arrows point the way the
    values went; gradients go against them. Inputs that require no gradient are not on the tape.
    """
    nodes = sorted(ancestors(tensor), key=lambda t: t.born)
    known = {t: name for name, t in names.items()}
    places = _places(nodes)
    boxes: dict[Tensor, Any] = {}
    width, height = (1 + max(place[axis] for place in places.values()) for axis in (0, 1))
    figure, axes = _canvas(width, height)
    for number, t in enumerate(nodes, start=1):
        made_by = "" if t.made_by == "leaf" else t.made_by
        what = " = ".join(part for part in (known.get(t, ""), made_by) if part) or "leaf"
        box = axes.text(
            *places[t], f"{what}\n{t.shape or 'a number'}  #{number}",
            ha="center", va="center", fontsize=9, linespacing=1.5,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": MADE if made_by else LEAF, "edgecolor": EDGE},
        )  # fmt: skip
        boxes[t] = box.get_bbox_patch()
        twins = Counter(parent for parent, _ in t.edges or ())
        side = 1
        for parent, _ in t.edges or ():
            bend = 0.18 * side if twins[parent] > 1 or places[t][0] - places[parent][0] > 1 else 0
            side = -side if twins[parent] > 1 else side  # a + a: one arrow above the other
            axes.annotate(
                "", places[t], places[parent], zorder=4,  # after the boxes, whose size the arrows need
                arrowprops={
                    "arrowstyle": "-|>", "color": EDGE, "connectionstyle": f"arc3,rad={bend}",
                    "patchA": boxes[parent], "patchB": boxes[t], "shrinkA": 3, "shrinkB": 3, "mutation_scale": 14,
                },
            )  # fmt: skip
    return figure


def _places(nodes: list[Tensor]) -> dict[Tensor, tuple[float, float]]:
    """Column: the longest way from a leaf. Within a column in the order of what each was computed from."""
    columns: dict[int, list[Tensor]] = defaultdict(list)
    depth: dict[Tensor, int] = {}
    for t in nodes:  # oldest first, so parents have their place
        depth[t] = 1 + max((depth[parent] for parent, _ in t.edges or ()), default=-1)
        columns[depth[t]].append(t)
    tallest = max(len(column) for column in columns.values())
    places: dict[Tensor, tuple[float, float]] = {}
    for x, column in sorted(columns.items()):
        heights = {t: [places[parent][1] for parent, _ in t.edges or ()] for t in column}
        column.sort(key=lambda t: -sum(heights[t]) / max(1, len(heights[t])))
        for row, t in enumerate(column):
            places[t] = (x, (tallest - 1) / 2 + (len(column) - 1) / 2 - row)
    return places


def _canvas(width: float, height: float) -> tuple[Picture, Any]:
    from .picture import Picture

    figure = Picture(figsize=(1.9 * width, 0.95 * height + 0.25), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.6, width - 0.4), ylim=(-0.6, height - 0.4))
    axes.axis("off")
    return figure, axes
