"""Draw the tape: which tensors a tensor was computed from, and by what."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from .tensor import OnTape, Tensor, ancestors

if TYPE_CHECKING:
    from .picture import Picture

LEAF, MADE, EDGE = "#e8f0d8", "#dbe6f4", "#555555"
FONT = 9  # points


def graph(tensor: Tensor, /, **names: Tensor) -> Picture:
    """The tape behind `tensor` from left (leaves) to right, as a picture: `graph(loss, x=x, w=w)`.

    A green box is a leaf that requires a gradient, a blue one the result of an operation. Each shows its shape and,
    after #, its place in the order of birth: backward() visits the highest number first. Arrows point the way the
    values went; gradients go against them. Inputs that require no gradient are not on the tape.
    """
    for what, given in {"the first argument": tensor, **names}.items():
        if not isinstance(given, Tensor):
            raise TypeError(f"graph: {what} is {type(given).__name__}, not a Tensor: graph(loss, x=x)")
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.textpath import TextPath

    nodes = sorted(ancestors(tensor), key=lambda t: t.born)
    known = {given.node or given: name for name, given in names.items()}
    labels = {t: _label(t, number, known.get(t, "")) for number, t in enumerate(nodes, start=1)}
    lines = [line for label in labels.values() for line in label.split("\n")]
    longest = max(TextPath((0, 0), line, size=FONT).get_extents().width / 72 for line in lines)
    width, height = longest + 0.25, 0.5  # of a box, in inches
    places = {t: (column * (width + 0.6), row * (height + 0.4)) for t, (column, row) in _places(nodes).items()}

    axes = _canvas(*(max(place[axis] for place in places.values()) + size for axis, size in ((0, width), (1, height))))
    boxes = {
        t: FancyBboxPatch(
            places[t], width, height, boxstyle="round,pad=0,rounding_size=0.08", zorder=2,
            facecolor=LEAF if t.made_by == "leaf" else MADE, edgecolor=EDGE,
        )
        for t in nodes
    }  # fmt: skip
    for t in nodes:
        axes.add_patch(boxes[t])
        left, bottom = places[t]
        middle = left + width / 2, bottom + height / 2
        axes.text(*middle, labels[t], ha="center", va="center", fontsize=FONT, linespacing=1.5, zorder=3)
        twins, side = Counter(parent for parent, _ in t.edges or ()), 1
        for parent, _ in t.edges or ():
            is_twin, far = twins[parent] > 1, places[t][0] - places[parent][0] > 2 * width
            side = -side if is_twin else 1  # a + a: one arrow above the other
            arrow = FancyArrowPatch(
                (places[parent][0] + width / 2, places[parent][1] + height / 2), middle, zorder=1, color=EDGE,
                arrowstyle="-|>", mutation_scale=14, connectionstyle=f"arc3,rad={0.18 * side if is_twin or far else 0}",
                patchA=boxes[parent], patchB=boxes[t], shrinkA=0, shrinkB=2,
            )  # fmt: skip
            axes.add_patch(arrow)
    return axes.figure


def _label(t: OnTape, number: int, name: str) -> str:
    what = [name] if t.made_by == "leaf" else [name, t.made_by]
    return f"{' = '.join(filter(None, what)) or 'leaf'}\n{t.shape or 'a number'}  #{number}"


def _places(nodes: list[OnTape]) -> dict[OnTape, tuple[float, float]]:
    """Column: the longest way from a leaf. Within a column in the order of what each was computed from."""
    columns: dict[int, list[OnTape]] = defaultdict(list)
    depth: dict[OnTape, int] = {}
    for t in nodes:  # oldest first, so parents have their place
        depth[t] = 1 + max((depth[parent] for parent, _ in t.edges or ()), default=-1)
        columns[depth[t]].append(t)
    tallest = max(len(column) for column in columns.values())
    places: dict[OnTape, tuple[float, float]] = {}
    for x, column in sorted(columns.items()):
        heights = {t: [places[parent][1] for parent, _ in t.edges or ()] for t in column}
        column.sort(key=lambda t: -sum(heights[t]) / max(1, len(heights[t])))
        for row, t in enumerate(column):
            places[t] = (x, (tallest - 1) / 2 + (len(column) - 1) / 2 - row)
    return places


def _canvas(width: float, height: float) -> Any:
    """Axes whose unit is an inch, with a margin round about."""
    from .picture import Picture

    margin = 0.15
    figure = Picture(figsize=(width + 2 * margin, height + 2 * margin))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-margin, width + margin), ylim=(-margin, height + margin))
    axes.axis("off")
    return axes
