"""Where the time of a training step goes, on a GPU: each operation and each of its gradients between two events."""

from __future__ import annotations

import importlib
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from minitorch_alex import backends
from minitorch_alex.optim import SGD

from .gpu_timing import Row, table

PROFILED = 3  # steps
MOST_LINES = 16  # of the table for one configuration


def where_time_goes(step: Callable[[], object], optimizer: SGD) -> list[Row]:
    """Milliseconds of each operation of a step and of each of its gradients, the longest first; and the rest.

    "rest" is what lies between: summing gradients, reading the loss, the GPU waiting for Python.
    """
    cupy, found, wholes = backends.current().xp, defaultdict(float), []
    for _ in range(PROFILED):
        begin, end = cupy.cuda.Event(), cupy.cuda.Event()
        with watched(cupy, optimizer) as spans:
            begin.record()
            step()
            end.record()
        end.synchronize()
        for what, first, last in spans:
            found[what] += cupy.cuda.get_elapsed_time(first, last) / PROFILED
        wholes.append(cupy.cuda.get_elapsed_time(begin, end))
    found["rest"] = statistics.fmean(wholes) - sum(found.values())
    rows = [{"what": what, "milliseconds": value} for what, value in found.items()]
    return sorted(rows, key=lambda row: -row["milliseconds"])


@contextmanager
def watched(cupy: Any, optimizer: SGD) -> Iterator[list[tuple[str, Any, Any]]]:
    """Within it each operation of the tape, each gradient function and each optimizer step lies between two events.

    An operation begins by asking for its backend and ends by keeping its edges; backward passes each gradient on.
    """
    tape = importlib.import_module("minitorch_alex.tensor")
    spans: list[tuple[str, Any, Any]] = []
    begun: list[Any] = []
    common_backend, edges, passed_on, move = (
        tape.common_backend,
        tape._edges_that_count,
        tape._passed_on,
        optimizer.step,
    )

    def event() -> Any:
        made = cupy.cuda.Event()
        made.record()
        return made

    def begins(name: str, inputs: tuple) -> Any:
        begun[:] = [event()]
        return common_backend(name, inputs)

    def ends(name: str, inputs: tuple, gradients: tuple) -> Any:
        shape = inputs[min(1, len(inputs) - 1)].shape
        spans.append((f"{name} {shape}", begun.pop(), event()))
        return edges(name, inputs, gradients)

    def passes(child: Any, parent: Any, *rest: Any) -> Any:
        first, part = event(), passed_on(child, parent, *rest)
        spans.append((f"gradient of {child.made_by} to {parent.shape}", first, event()))
        return part

    def steps() -> None:
        first = event()
        move()
        spans.append(("SGD", first, event()))

    tape.common_backend, tape._edges_that_count, tape._passed_on, optimizer.step = begins, ends, passes, steps
    try:
        yield spans
    finally:
        tape.common_backend, tape._edges_that_count, tape._passed_on = common_backend, edges, passed_on
        del optimizer.step


def where_table(rows: list[Row]) -> str:
    """The longest of each configuration."""
    texts = []
    for row in rows:
        if "where" not in row:
            continue
        whole = sum(one["milliseconds"] for one in row["where"])
        title = f"{row['network']}, batch {row['batch']}, {row['precision']}: {whole:.2f} ms a step between events"
        theirs = row.get("where_pytorch", {})
        if theirs:
            title += "; PyTorch: " + ", ".join(f"{name} {value:.2f}" for name, value in theirs.items())
        lines = (
            [one["what"], f"{one['milliseconds']:.3f}", f"{one['milliseconds'] / whole:.1%}"] for one in row["where"]
        )
        texts.append(table(title, {"operation": -60, "ms": 9, "part": 7}, itertools.islice(lines, MOST_LINES)))
    return "\n".join(texts)


if __name__ == "__main__":
    raise SystemExit("this is a part of python -m benchmarks.gpu")
