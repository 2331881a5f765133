"""Rows of the CPU benchmark: a network at a batch size is validated, then timed beside the peers, in turns."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cpu_process import OURS, REFERENCE, ContestantError, Field
from .cpu_statistics import Row
from .gpu_timing import WRONG

SCORES_APART = 1e-4  # at most, as a part of their length
GRADIENTS_APART = 3e-2  # a pixel may win a pool by less than rounding, and its gradient goes elsewhere: 9e-3 was seen
PEERS_BATCH = 2  # that a peer is validated on
Tell = Callable[[str], None]


class Validation:
    """Each contestant's scores and gradients in float32 beside the reference's in float64, before it is timed.

    Ours must be right at the very batch size, in training with its masks of dropout and in evaluation; a peer at a
    small one and without dropout, which shows that it computes the same network.
    """

    def __init__(self, field: Field, folder: Path, tell: Tell) -> None:
        self.field, self.tell = field, tell
        self.file = folder / "right.npz"
        self.written: tuple[str, int, bool] | None = None  # what the file is about
        self.rows: list[Row] = []
        self.done: dict[tuple[str, str, int], str | None] = {}

    def problem(self, name: str, network: str, batch: int) -> str | None:
        """What is wrong with this contestant, or None. Asked again, it remembers."""
        batch, training = (batch, True) if name == OURS else (PEERS_BATCH, False)
        if (name, network, batch) not in self.done:
            self.tell(f"validating {name}, {network}, batch {batch}")
            self.done[name, network, batch] = self._compare(name, network, batch, training)
        return self.done[name, network, batch]

    def _compare(self, name: str, network: str, batch: int, training: bool) -> str | None:
        row: Row = {"contestant": name, "network": network, "batch": batch}
        self.rows.append(row)
        task = {"network": network, "batch": batch, "training": training, "file": str(self.file)}
        try:
            if self.written != (network, batch, training):
                self.written = None
                self.field.ask(REFERENCE, "write", **task)
                self.written = network, batch, training
            apart = self.field.ask(name, "check", **task)
        except ContestantError as error:
            row["problem"] = str(error)
            return row["problem"]
        row |= worst(apart)
        return row.get("problem")


def worst(apart: dict[str, float]) -> Row:
    """The farthest of the scores and of the gradients; and the `problem`, if one is too far."""
    row: Row = {}
    for what, limit in (("scores", SCORES_APART), ("gradients", GRADIENTS_APART)):
        some = {name: d for name, d in apart.items() if name.startswith("scores") == (what == "scores")}
        name = max(some, key=lambda name: math.inf if math.isnan(some[name]) else some[name])
        row[what] = some[name]
        if not some[name] <= limit:
            row.setdefault("problem", f"{WRONG}{what} ({name}) are {some[name]:.1e} apart from float64")
    return row


# -- rows -------------------------------------------------------------------------------
def time_network(
    field: Field, validation: Validation, row: Row, repeats: int, seconds: float, most: int | None = None
) -> Row:
    """Fill a row with its `part` ("training" or "forward"), network and batch. Peers try `most` ways, or all."""
    network, batch = row["network"], row["batch"]
    question = {"question": "load", "network": network, "batch": batch, "what": row["part"], "most": most}
    return _timed(field, validation, row, field.names, question, repeats, seconds)


def time_layer(
    field: Field, validation: Validation, row: Row, place: int, names: list[str], repeats: int, seconds: float
) -> Row:
    """Fill a row of the part "layers": forward and backward of one layer alone."""
    question = {"question": "load_layer", "network": row["network"], "batch": row["batch"], "place": place}
    return _timed(field, validation, row, names, question, repeats, seconds)


def _timed(
    field: Field,
    validation: Validation,
    row: Row,
    names: list[str],
    question: dict[str, Any],
    repeats: int,
    seconds: float,
) -> Row:
    """The row with `seconds` of each contestant, the `ways` that they tried, and the `problems` of others.

    Where ours is wrong, or cannot do it, there is the `problem` and no number at all.
    """
    ways: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name in names:
        problem = validation.problem(name, row["network"], row["batch"])
        try:
            if problem is not None:
                raise ContestantError(problem)
            ways[name] = field.ask(name, **question)
        except ContestantError as error:
            if name == OURS:
                return {**row, "problem": str(error)}
            problems[name] = str(error)
    times, fell_out = field.in_turns(list(ways), repeats, seconds)
    if OURS in fell_out:
        return {**row, "problem": fell_out[OURS]}
    row |= {"seconds": times, "ways": {name: found for name, found in ways.items() if found["tried"] and name in times}}
    problems |= fell_out
    return {**row, "problems": problems} if problems else row
