"""What the CPU benchmark measures without turns: memory, straight lines, compilation, and the input pipeline."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .cpu_process import OURS, ROOT, ContestantError, Field
from .cpu_scaling import straight_line
from .cpu_statistics import Row

DEPTHS = [2_500, 5_000, 10_000, 15_000, 20_000]


def measure_memory(field: Field, names: list[str], network: str, batch: int) -> Row:
    """Bytes at the peak of a training step less those after importing: of each of these, in a new process."""
    row: Row = {"network": network, "batch": batch, "bytes": {}, "problems": {}}
    for name in names:
        try:
            with field.start(name) as process:
                found = process.ask("peak", network=network, batch=batch)
            if found is None:
                raise ContestantError("only Linux tells it, in /proc")
            row["bytes"][name] = found
        except ContestantError as error:
            row["problems"][name] = str(error)
    return row


def measure_scaling(field: Field, network: str, batches: Sequence[int], repeats: int, seconds: float) -> dict[str, Any]:
    """Step time against the size of the batch, and backward against the depth of the graph, each with its line."""
    times: list[list[float]] = [[] for _ in batches]
    for _ in range(repeats):
        for found, batch in zip(times, batches, strict=True):
            field.ask(OURS, "load", network=network, batch=batch, what="training")
            found.append(field.ask(OURS, "time", seconds=seconds))
    depth = field.ask(OURS, "depth", depths=DEPTHS, repeats=repeats)
    return {"batch": {"network": network, **with_line(batches, times)}, "depth": with_line(DEPTHS, depth)}


def with_line(sizes: Sequence[int], times: list[list[float]]) -> Row:
    medians = [statistics.median(some) for some in times]
    return {"sizes": list(sizes), "seconds": times, **straight_line(sizes, medians)}


def measure_compilation(field: Field, network: str, batch: int) -> Row:
    """Seconds that a new process imports and compiles, with an empty cache of kernels and with a full one."""
    row: Row = {"network": network, "batch": batch}
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "full"):
            with field.start(OURS, NUMBA_CACHE_DIR=folder) as process:
                found = process.ask("first_steps", network=network, batch=batch)
                row[cache] = {**found, "said": process.heard().strip().splitlines()}
    return row


def measure_pipeline(field: Field, folder: Path, batch: int, steps: int) -> list[Row]:
    """How long training on photographs waits for them: as they lie in the folder, and packed."""
    rows = [
        {"images": "as they are", **field.ask(OURS, "waiting", folder=str(folder.resolve()), batch=batch, steps=steps)}
    ]
    with tempfile.TemporaryDirectory() as packed:
        command = [sys.executable, "-m", "minitorch_alex.pack", str(folder.resolve()), packed]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            return [*rows, {"images": "packed", "problem": " ".join(done.stderr.split())[:200]}]
        found = field.ask(OURS, "waiting", folder=packed, batch=batch, steps=steps)
    return [*rows, {"images": "packed", **found}]
