"""Where the time of a training step goes: each layer, forward and backward, beside what this machine can do at most.

A layer's work is what it must do, not what a backend happens to do:

    operations   2 x multiply-accumulates x passes, of convolutions and linear layers: one pass forward, one for the
                 gradient of the input (which the first layer does not need), one for the gradient of the weights
    bytes        forward, input and parameters are read and the output is written; backward, the output's gradient is
                 read, and the gradients of input and parameters are written. Where there are parameters, their gradient
                 looks at the input again, and that of the input at them. What else a backend keeps (which pixel won in
                 a pool, a mask) is not counted: it is "at least".

The share of the peak is the least time in which this machine could do both (peak.py) over the time that it took.
Winograd's convolution multiplies less often than it is credited for here, and what lies in a cache need not come from
memory, so a share can exceed 100 %: operations and bytes a second are effective ones.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import functional as F
from .clock import Clock, clock_of
from .nn import Module
from .optim import SGD
from .peak import Peak, measure_peak
from .tensor import Node, OnTape, Tensor

LEAST_STEPS, MOST_STEPS, SECONDS = 3, 15, 8.0  # after the one that warms up: as many as fit into the time
LOSS, OPTIMIZER, REST = "loss", "optimizer", "the rest"
FORWARD, BACKWARD = "forward", "backward"
BAR = 10  # characters for 100 %
MARKED = 3  # rows of the table
WORTH_NAMING = 0.05  # of the step
HEADINGS = ("layer", "what", "forward ms", "backward ms", "ms", "of step", "GFLOP/s", "GB/s", "of peak", "")
NOTES = """\
GFLOP/s count a multiply-accumulate as two operations, GB/s what must be read and written at least. Both are effective:
Winograd's convolution multiplies less often, and what lies in a cache need not come from memory, so they can exceed
the peak. "the rest" is in no layer: sums of gradients, Python, the copy of the loss.
<-- loses most time against the peak."""

Part = tuple[str, str]  # of a step: a layer's path, and FORWARD or BACKWARD


@dataclass
class Row:
    """A layer, or what else takes time: milliseconds of a step, and what must be done in them at least."""

    path: str
    kind: str
    operations: int = 0
    bytes: int = 0
    forward: float = 0.0
    backward: float = 0.0

    @property
    def milliseconds(self) -> float:
        return self.forward + self.backward


# -- measuring ------------------------------------------------------------------
def profile(network: Module, optimizer: SGD, images: Any, labels: Any) -> Profile:
    """Take some training steps on one batch, and say where their time goes.

    images (N, C, H, W), labels (N,). The steps are real ones: the network learns from them.
    """
    batch = images if isinstance(images, Tensor) else Tensor(images)
    watch = Stopwatch(clock_of(batch.backend))
    peak = measure_peak(batch.backend, batch.dtype)
    with watch.on(network):
        watch.step(network, optimizer, batch, labels)  # compiles, and makes the velocities
        steps: list[dict[Part, float]] = []
        started = time.monotonic()
        while len(steps) < LEAST_STEPS or (len(steps) < MOST_STEPS and time.monotonic() - started < SECONDS):
            steps.append(watch.step(network, optimizer, batch, labels))
    rows = watch.rows
    rows[OPTIMIZER].bytes = bytes_of_a_move(optimizer)
    for path, row in rows.items():
        row.forward, row.backward = (
            statistics.median(step[path, way] for step in steps) for way in (FORWARD, BACKWARD)
        )
    return Profile(list(rows.values()), peak, batch.shape, len(steps))


class Stopwatch:
    """Takes the time of layers: of their calls, and of the gradient functions that these leave on the tape."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.rows: dict[str, Row] = {}
        self.spans: list[tuple[Part, Any, Any]] = []  # of the step in hand: what, and when it began and ended

    def step(self, network: Module, optimizer: SGD, images: Tensor, labels: Any) -> dict[Part, float]:
        """Take a training step. Returns its milliseconds by part; what is in no part is the rest."""
        self.spans, self.rows = [], {}
        begin = self.clock.now()
        optimizer.zero_grad()
        loss = self.call(LOSS, F.cross_entropy, network(images), labels)
        loss.backward()
        self.timed((OPTIMIZER, FORWARD), optimizer.step)()
        loss.item()
        end = self.clock.now()
        self.clock.wait_for(end)
        self.rows |= {name: Row(name, "") for name in (LOSS, OPTIMIZER, REST)}
        found: dict[Part, float] = defaultdict(float)
        for part, first, last in self.spans:
            found[part] += self.clock.milliseconds(first, last)
        found[REST, FORWARD] = self.clock.milliseconds(begin, end) - sum(found.values())
        return found

    @contextmanager
    def on(self, network: Module) -> Iterator[None]:
        """Within it, every layer that has no layers inside is timed whenever it computes."""
        layers: dict[Module, str] = {}
        for path, module in network.named_modules():
            if len(list(module.named_modules())) == 1:
                layers.setdefault(module, path)
        try:
            for layer, path in layers.items():
                layer.forward = self.watched(path, layer)  # type: ignore[method-assign]
            yield
        finally:
            for layer in layers:
                vars(layer).pop("forward", None)

    def watched(self, path: str, layer: Module) -> Callable:
        """The layer's forward(), timed; what it does is noted in the rows."""
        forward = layer.forward

        def watched(x: Tensor, *more: Any) -> Tensor:
            y = self.call(path, forward, x, *more)
            row = self.rows.setdefault(path, Row(path, type(layer).__name__))
            row.operations += operations_of(layer, x, y)
            row.bytes += bytes_of(layer, x, y)
            return y

        return watched

    def call(self, path: str, function: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """function(*inputs), timed, and from now on also each gradient function between its output and the inputs."""
        output = self.timed((path, FORWARD), function)(*inputs)
        stack: list[OnTape | None] = [output.node]
        met = {t.node for t in inputs if isinstance(t, Tensor)}  # what is older belongs to others
        while stack:
            node = stack.pop()
            if isinstance(node, Node) and node not in met:
                met.add(node)
                node.edges = tuple((parent, self.timed((path, BACKWARD), g)) for parent, g in node.edges or ())
                stack += [parent for parent, _ in node.edges]
        return output

    def timed(self, part: Part, function: Callable) -> Callable:
        """The function, with the time of its calls taken."""

        def timed(*inputs: Any) -> Any:
            begin = self.clock.now()
            output = function(*inputs)
            self.spans.append((part, begin, self.clock.now()))
            return output

        return timed


# -- what must be done ------------------------------------------------------------
def operations_of(layer: Module, x: Tensor, y: Tensor) -> int:
    """Multiplications and additions of a step in which the layer turns x (N, ...) into y (N, ...)."""
    passes = 1 + x.requires_grad + any(p.requires_grad for p in layer.parameters())
    return 2 * layer.multiply_accumulates(y.shape[1:]) * len(y.data) * passes


def bytes_of(layer: Module, x: Tensor, y: Tensor) -> int:
    """What must be read and written in such a step. Nothing, where y is only another view of x."""
    if _owner(x.data) is _owner(y.data):
        return 0
    parameters = sum(p.data.nbytes for p in layer.parameters())
    trained = sum(p.data.nbytes for p in layer.parameters() if p.requires_grad)
    forward = x.data.nbytes + parameters + y.data.nbytes
    backward = y.data.nbytes if y.requires_grad else 0
    if trained:
        backward += x.data.nbytes + trained
    if x.requires_grad:
        backward += parameters + x.data.nbytes
    return forward + backward


def _owner(array: Any) -> Any:
    """The array to which the memory belongs."""
    return array if array.base is None else array.base


def bytes_of_a_move(optimizer: SGD) -> int:
    """Weight, gradient and velocity are read, weight and velocity written."""
    moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None and group["lr"]]
    return sum((5 if p in optimizer.velocity else 3) * p.data.nbytes for p in moved)


# -- showing --------------------------------------------------------------------
@dataclass
class Profile:
    """Rows in the order of the step. The times are medians over steps; what they add up to is the time of a step."""

    rows: list[Row]
    peak: Peak
    images_shape: tuple[int, ...]
    steps: int

    @property
    def milliseconds(self) -> float:
        return sum(row.milliseconds for row in self.rows)

    @property
    def least_milliseconds(self) -> float:
        """Of a step in which everything that is counted runs at the peak, and the rest takes no time."""
        return sum(map(self.least, self.rows))

    def least(self, row: Row) -> float:
        return self.peak.least_milliseconds(row.operations, row.bytes)

    def lost(self, row: Row) -> float:
        """Milliseconds above the least; 0 where nothing is counted."""
        return max(0.0, row.milliseconds - self.least(row)) if self.least(row) else 0.0

    def __repr__(self) -> str:
        count, *image = self.images_shape
        what = f"a step of {count} images of {' x '.join(map(str, image))}"
        heading = [
            f"{what}: medians of {self.steps}, after one to warm up",
            f"the peak, measured here: {self.peak}",
        ]
        return "\n".join([*heading, "", *aligned(self.table()), "", NOTES, "", self.conclusion()])

    def table(self) -> list[tuple[str, ...]]:
        """Headings, a line for each row, and the step as a whole."""
        worst = [row.path for row in sorted(self.rows, key=self.lost)[-MARKED:] if self.lost(row)]
        lines: list[tuple[str, ...]] = [HEADINGS]
        for row in self.rows:
            mark = " <--" if row.path in worst else ""
            lines.append(self.line(row, self.least(row), mark))
        work = (sum(row.operations for row in self.rows), sum(row.bytes for row in self.rows))
        ways = (sum(row.forward for row in self.rows), sum(row.backward for row in self.rows))
        return [*lines, self.line(Row("step", "", *work, *ways), self.least_milliseconds, "")]

    def line(self, row: Row, least: float, mark: str) -> tuple[str, ...]:
        time = row.milliseconds
        halves = (f"{row.forward:.2f}", f"{row.backward:.2f}") if row.backward else ("", "")
        rates = (f"{work / time / 1e6:,.1f}" if work and time else "" for work in (row.operations, row.bytes))
        share = least / time if time else 0.0
        return (
            row.path, row.kind, *halves, f"{time:.2f}", f"{100 * time / self.milliseconds:.1f} %", *rates,
            f"{100 * share:.0f} %" if share else "",
            f"{'#' * min(BAR, round(BAR * share)):.<{BAR}}{mark}" if share else "",
        )  # fmt: skip

    def conclusion(self) -> str:
        """Where the time goes, in one line."""
        whole, kinds = self.milliseconds, defaultdict[str, float](float)
        for row in self.rows:
            kinds[row.kind or row.path] += row.milliseconds
        parts = [f"{kind} {100 * time / whole:.0f} %" for kind, time in kinds.items() if time >= WORTH_NAMING * whole]
        slowest = max(self.rows, key=self.lost)
        return (
            f"Where the time goes: {', '.join(parts)}. What is counted would take {self.least_milliseconds:.1f} ms at "
            f"the peak, and the step took {whole:.1f}; most is lost in {slowest.path}: {self.lost(slowest):.1f} ms."
        )


def aligned(table: list[tuple[str, ...]]) -> list[str]:
    """Lines of text: the first two columns and the last to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for cells in table:
        left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
        right = [cell.rjust(width) for cell, width in zip(cells[2:-1], widths[2:-1], strict=True)]
        lines.append("  ".join([*left, *right, cells[-1]]).rstrip())
    return lines
