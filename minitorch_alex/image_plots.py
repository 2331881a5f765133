"""Pictures that show images: what a network takes them for, and which of them it finds alike. The paper's Figure 4.

Images are arrays of bytes (C, H, W), grey or RGB, of any size. Lengths are in inches.
"""

from __future__ import annotations

import math
import textwrap
from bisect import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .picture import Picture

BAR, TRUE_BAR, TRUE_TEXT = "#b3cbe9", "#f0a69e", "#b3261e"  # bars pale enough to be written on
SIZE, SMALLEST_SIZE = 8.0, 6.0  # of letters, in points
MARGIN, LINE = 0.15, 0.22  # around everything; the height of a line of text


def predictions(
    images: Sequence[numpy.ndarray] | numpy.ndarray,
    probabilities: numpy.ndarray,
    classes: Sequence[str],
    truth: Sequence[int | None] | numpy.ndarray | None = None,
    titles: Sequence[str] | None = None,
    best: int = 5,
) -> Picture:
    """Each image above bars of its largest probabilities, of (N, classes): the paper's Figure 4, left.

    The true label, where it is known (not None), stands in red under the image, with a tick if it is the first guess
    and else a cross, and its bar is red.
    """
    from .picture import Picture

    count, best, side, gap = len(images), min(best, len(classes)), 2.2, 0.25
    rows = math.ceil(count / 4)
    columns = math.ceil(count / rows)
    above, below = LINE * (titles is not None), LINE * (truth is not None)
    bars = 0.2 * best
    cell = above + side + 0.05 + below + bars
    width, height = columns * (side + gap) - gap + 2 * MARGIN, rows * (cell + gap) - gap + 2 * MARGIN
    caption = f"Bars: the {best} largest probabilities, up to 100 % at the frame."
    caption += " Red: the true label (\N{CHECK MARK} guessed first, \N{BALLOT X} not)." if truth is not None else ""
    figure = Picture(figsize=(width, height + _caption_height(caption, width)))
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, top = MARGIN + column * (side + gap), MARGIN + row * (cell + gap)
        _show(_axes(figure, left, top + above, side, side), image)
        if titles is not None:
            _write(figure, left + side / 2, top, titles[i], side)
        true = None if truth is None else truth[i]
        if true is not None:
            mark = "\N{CHECK MARK}" if probabilities[i].argmax() == true else "\N{BALLOT X}"
            _write(figure, left + side / 2, top + above + side + 0.02, f"{mark} {classes[true]}", side, TRUE_TEXT)
        _bars(_axes(figure, left, top + cell - bars, side, bars), probabilities[i], classes, true, best, side)
    _write_caption(figure, caption)
    return figure


def neighbours(
    queries: Sequence[numpy.ndarray] | numpy.ndarray,
    found: Sequence[Sequence[numpy.ndarray]] | numpy.ndarray,
    query_titles: Sequence[str] | None = None,
    found_titles: Sequence[Sequence[str]] | None = None,
) -> Picture:
    """A row per query: the image, a gap, then the K images found for it, nearest first. The paper's Figure 4, right.

    queries (Q, C, H, W), found (Q, K, C, H, W), titles (Q,) and (Q, K).
    """
    from .picture import Picture

    across = len(found[0])
    side, space, gap = min(1.2, 11 / (across + 1)), 0.08, 0.3
    above = LINE * (query_titles is not None or found_titles is not None)
    cell = above + side + space
    width, height = 2 * MARGIN + gap + (across + 1) * (side + space) - space, 2 * MARGIN + len(queries) * cell
    caption = "Left: test images. Right: for each the most similar training images, the nearest first."
    figure = Picture(figsize=(width, height + _caption_height(caption, width)))
    for row, (query, others) in enumerate(zip(queries, found, strict=True)):
        top = MARGIN + row * cell
        for place, image in enumerate([query, *others]):
            left = MARGIN + place * (side + space) + gap * (place > 0)
            _show(_axes(figure, left, top + above, side, side), image)
            titles = query_titles if place == 0 else found_titles[row] if found_titles is not None else None
            if titles is not None:
                _write(figure, left + side / 2, top, titles[row if place == 0 else place - 1], side)
    _write_caption(figure, caption)
    return figure


# -- the parts ------------------------------------------------------------------
def _axes(figure: Picture, left: float, top: float, width: float, height: float) -> Axes:
    """A place in the figure, measured from its upper left corner."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def _show(axes: Axes, image: numpy.ndarray) -> None:
    """The image, small ones enlarged as smoothly as in the paper."""
    axes.axis("off")
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="lanczos")


def _bars(axes: Axes, chances: numpy.ndarray, classes: Sequence[str], true: int | None, best: int, side: float) -> None:
    """The `best` largest of the chances, in an empty frame that is `side` wide, with the names of their classes."""
    order = (-chances).argsort(kind="stable")[:best]
    axes.barh(range(best), chances[order], height=0.8, color=[TRUE_BAR if label == true else BAR for label in order])
    axes.set(xlim=(0, 1), ylim=(best - 0.5, -0.5), xticks=[], yticks=[])
    axes.spines[:].set(color="#999999", linewidth=0.6)
    style: dict[str, Any] = {"va": "center_baseline", "parse_math": False}
    for place, label in enumerate(order):
        axes.text(0.02, place, **_fitted(classes[label], 0.75 * side), **style)
        axes.text(0.985, place, f"{100 * chances[label]:.1f} %", size=7, color="#444444", ha="right", **style)


def _write(figure: Picture, middle: float, top: float, text: str, width: float, color: str = "black") -> None:
    """One line of text, centred."""
    across, down = figure.get_size_inches()
    style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": color, "parse_math": False}
    figure.text(middle / across, 1 - (top + LINE / 2) / down, **_fitted(text, width), **style)


def _fitted(text: str, width: float) -> dict[str, Any]:
    """Text and size of letters with which it takes no more than this width: smaller letters, then the end left out."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    def too_wide(text: str, size: float) -> bool:
        points, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)
        return points > 0.96 * 72 * width  # on the screen letters are put to whole pixels

    text = " ".join(str(text).encode(errors="replace").decode().split())[:300]  # file names can be anything
    size = next((s for s in (SIZE, 7.0, SMALLEST_SIZE) if not too_wide(text, s)), SMALLEST_SIZE)
    if too_wide(text, size):
        beginnings = [text[:n].rstrip(" ,") + "…" for n in range(len(text))]
        text = beginnings[max(0, bisect(beginnings, False, key=lambda short: too_wide(short, size)) - 1)]
    return {"s": text, "size": size}


def _wrapped(caption: str, width: float) -> list[str]:
    return textwrap.wrap(caption, int(14 * (width - 2 * MARGIN)))


def _caption_height(caption: str, width: float) -> float:
    return 0.17 * len(_wrapped(caption, width)) + 0.1


def _write_caption(figure: Picture, caption: str) -> None:
    across, down = figure.get_size_inches()
    text = "\n".join(_wrapped(caption, across))
    figure.text(MARGIN / across, MARGIN / down, text, size=SIZE, va="bottom", color="#444444")
