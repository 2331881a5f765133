"""What was seen in a watched run, in words: races, reads of what nobody wrote, and the diary of one thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy

from .library import Event, Finding, Library, SharedArray, Side
from .memory import Array

RACE, UNWRITTEN, OUTSIDE = range(3)
READS, WRITES, WAITS = range(3)


@dataclass(frozen=True)
class Memory:
    """An array as a report speaks of it: an argument, or one in shared memory."""

    name: str
    dtype: numpy.dtype
    shape: tuple[int, ...]
    shared: bool = False

    def element(self, number: int, count: int = 1) -> str:
        """Element `number` in the order of memory, or `count` from there on: as a kernel would index them.

        A kernel knows the shape of an array in shared memory, but sees the array of an argument as one long row.
        """
        last = f"..{number + count - 1}" if count > 1 else ""
        if len(self.shape) < 2 or not 0 <= number < math.prod(self.shape):
            return f"{self.name}[{number}{last}]"
        at = [str(int(i)) for i in numpy.unravel_index(number, self.shape)]
        if self.shared and not last:
            return self.name + "".join(f"[{i}]" for i in at)
        return f"{self.name}[{number}{last}] (at {', '.join(at)})"


@dataclass(frozen=True)
class Step:
    """One thing that a thread did: where, and what."""

    line: str  # such as "lrn.cu:57"
    text: str  # such as "reads x[5] = 0.25"


class Watched:
    """The last launch of a watched library."""

    def __init__(
        self, library: Library, names: Sequence[str], values: Sequence[Array | numpy.generic], block: Sequence[int],
        grid: Sequence[int],
    ) -> None:  # fmt: skip
        self.library, self.block, self.grid = library, block, grid
        pairs = zip(names, values, strict=True)
        self.arguments = [
            Memory(name, value.dtype, value.shape) if isinstance(value, numpy.ndarray) else None
            for name, value in pairs
        ]
        self.shared = [_shared_memory(array) for array in library.shared_arrays()]

    def memory(self, where: Finding | Event) -> Memory:
        """The array that a finding or an event is about."""
        found = self.shared[where.number] if where.shared else self.arguments[where.number]
        assert found is not None
        return found

    def findings(self) -> list[str]:
        """Each thing that is wrong, in a sentence; once for each array and pair of lines."""
        found = self.library.findings()
        lines = self.library.lines({side.code for one in found for side in (one.now, one.before)})
        sentences: dict[object, str] = {}
        for one in found:
            pair = frozenset((lines[one.now.code], lines[one.before.code]))
            sentences.setdefault((one.kind, one.shared, one.number, pair), self._sentence(one, lines))
        return list(sentences.values())

    def _sentence(self, found: Finding, lines: dict[int, str]) -> str:
        memory = self.memory(found)
        count = max(1, found.bytes // memory.dtype.itemsize)
        element = memory.element(found.element, count)
        kind = "shared memory" if found.shared else "global memory"
        now = f"{lines[found.now.code]}: {self._who(found.now)}"
        if found.kind == UNWRITTEN:
            return f"{now} {element} in {kind}, which no thread of its block has written"
        if found.kind == OUTSIDE:
            return f"{now} {element}, outside of {memory.name}, which has {math.prod(memory.shape)} elements"
        certain = "no barrier between" if found.now.block == found.before.block else "blocks in no certain order"
        return f"race on {element} in {kind}, {certain}: {now}; {lines[found.before.code]}: {self._who(found.before)}"

    def _who(self, side: Side) -> str:
        block, thread = _unravel(side.block, self.grid), _unravel(side.thread, self.block)
        verb = ("atomically " if side.atomic else "") + ("writes" if side.writes else "reads")
        return f"thread {self.in_block(thread)} of block {self.in_grid(block)} {verb}"

    def in_block(self, thread: Sequence[int]) -> str:
        """A thread's position, as one number where the block has one dimension."""
        return _short(thread, self.block)

    def in_grid(self, block: Sequence[int]) -> str:
        """A block's position, as one number where the grid has one dimension."""
        return _short(block, self.grid)

    def steps(self) -> list[Step]:
        """The diary of the chosen thread."""
        events = self.library.events()
        lines = self.library.lines({event.code for event in events if event.kind != WAITS})
        return [self._step(event, lines) for event in events]

    def _step(self, event: Event, lines: dict[int, str]) -> Step:
        if event.kind == WAITS:
            return Step(f"{event.file.decode()}:{event.line}", f"meets the others in {event.function.decode()}")
        memory = self.memory(event)
        count = max(1, event.bytes // memory.dtype.itemsize)
        verb = ("atomically " if event.atomic else "") + ("writes" if event.kind == WRITES else "reads")
        size = min(event.bytes, 16)
        whole = size // memory.dtype.itemsize
        values = numpy.frombuffer(bytes(event.value[:size]), memory.dtype, whole) if whole else numpy.empty(0)
        shown = ", ".join(f"{value:.6g}" if memory.dtype.kind == "f" else str(value) for value in values)
        element = memory.element(event.element, count)
        return Step(lines[event.code], f"{verb} {element} = {shown}")


def _unravel(number: int, sizes: Sequence[int]) -> tuple[int, int, int]:
    """x, y, z of a thread or a block with this number."""
    return number % sizes[0], number // sizes[0] % sizes[1], number // sizes[0] // sizes[1]


def _short(position: Sequence[int], sizes: Sequence[int]) -> str:
    return f"{tuple(position)}" if sizes[1] * sizes[2] > 1 else f"{position[0]}"


def _shared_memory(array: SharedArray) -> Memory:
    code = array.type.decode()
    dtype = numpy.dtype(f"V{code[1:]}" if code[0] == "s" else code)
    shape = tuple(n for n in array.shape if n) or (array.bytes // dtype.itemsize,)
    return Memory(array.name.decode(), dtype, shape, True)
