"""The speeds of the CPU benchmark as bars."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cpu_statistics import BEST, bar_of, best_peer, ratio

if TYPE_CHECKING:
    from minitorch_alex.picture import Picture

COLORS = {"training": "#3b6fb6", "forward": "#c8553d"}


def ratios(result: dict[str, Any]) -> Picture:
    """How many times as fast ours is as the best peer, with the spread over the rounds, and the bars that were set.

    A bar for another peer than the best one is not drawn, since it is for another ratio.
    """
    from minitorch_alex.picture import Picture

    rows = [row for part in COLORS for row in result.get(part, []) if best_peer(row)]
    figure = Picture(figsize=(9, 1.6 + 0.32 * max(1, len(rows))), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        peer = best_peer(row) or ""
        found = ratio(row, peer)
        if found is None:
            continue
        spread = [[found.median - min(found.low, found.median)], [max(found.high, found.median) - found.median]]
        axes.barh(place, found.median, color=COLORS[row["part"]], xerr=spread, capsize=3, height=0.7)
        axes.text(0.02, place, f" {peer}", va="center", color="white", fontsize=8)
        bar = bar_of(row)
        if bar is not None and bar.peer in (BEST, peer):
            axes.plot([bar.must, bar.must], [place - 0.45, place + 0.45], color="black", lw=2)
    names = [f"{row['network']}, {row['batch']}, {row['part']}" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the first above
    axes.axvline(1, color="grey", ls=":")
    axes.set(xlabel="times as fast as the best peer, which is named (black: the bar for it)", title="Speed on a CPU")
    axes.grid(axis="x", alpha=0.3)
    return figure
