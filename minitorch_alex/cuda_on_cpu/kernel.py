"""Calling a kernel, as one calls CuPy's: kernel(grid, block, arguments, shared_mem=0)."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy

from . import arguments, compiler
from .error import CudaOnCpuError
from .library import ONE_AT_A_TIME, Launch, Library, Report
from .memory import GUARDS, Array, guarded_copy, memory_of
from .source import Declaration, Source
from .watch import Step, Watched

FORWARD, REVERSE = 0, 1
ORDERS = FORWARD, REVERSE, 7  # two that differ as much as they can, and a random one
SHARED_BYTES = 48 * 1024  # what a block may have without asking
MOST_SHARED_BYTES = 163 * 1024  # with asking, on an A100; an H100 has 227 KiB, consumer cards of that time 99


@dataclass(frozen=True)
class Conditions:
    """Under which conditions kernels run."""

    order: int = FORWARD  # in which threads and blocks begin: 0 forward, 1 reverse, another number: random, that seed
    guard: str = "end"  # run on copies of the arrays with a guard at the "end" or the "start"; "off": on the arrays
    race: bool = False  # watch every access to memory, for races

    def __str__(self) -> str:
        order = {FORWARD: "forward", REVERSE: "reverse"}.get(self.order, f"random (seed {self.order})")
        return f"the threads in {order} order and a guard at the {self.guard}"


_now: list[Conditions] = []


@contextlib.contextmanager
def orders(order: int = FORWARD, guard: str = "end", race: bool = False) -> Iterator[None]:
    """Kernels called in the `with` block run under these conditions, in the whole process."""
    _now.append(_valid(Conditions(order, guard, race)))
    try:
        yield
    finally:
        _now.pop()


def _valid(conditions: Conditions) -> Conditions:
    if conditions.guard not in (*GUARDS, "off"):
        raise CudaOnCpuError(f"guard={conditions.guard!r} was given: choose 'end', 'start' or 'off'")
    if not isinstance(conditions.order, int) or not 0 <= conditions.order < 2**31:
        raise CudaOnCpuError(
            f"order={conditions.order!r} was given: 0 is forward, 1 reverse, another number a random order"
        )
    return conditions


class Module:
    """The kernels of one file."""

    def __init__(
        self, source: Source, expressions: Sequence[str] | None, options: Sequence[str], conditions: Conditions
    ) -> None:
        self.source = source
        self.options = tuple(options)
        self.conditions = _valid(conditions)
        if expressions is None:
            expressions = [one for kernel in source.kernels.values() for one in kernel.instances]
        self.expressions = tuple(expressions)
        self._libraries: dict[tuple[str, bool], Library] = {}

    def get_function(self, expression: str) -> Kernel:
        """A kernel, by its name and what its template needs: "sum", "im2col<float>", "lrn<double, 5>"."""
        declaration = self.source.declaration(expression)
        if declaration.template and "<" not in expression:
            raise CudaOnCpuError(f"{expression} is a template: say for what, such as {expression}<float>")
        return Kernel(self, expression, declaration)

    def library(self, expression: str, watched: bool) -> Library:
        """The compiled file. Expressions that were not announced are compiled one by one."""
        expressions = self.expressions if expression in self.expressions else (expression,)
        key = ("" if expression in self.expressions else expression), watched
        if key not in self._libraries:
            text = self.source.for_cpu(expressions)
            self._libraries[key] = Library(compiler.library(text, self.source.name, watched, self.options))
        return self._libraries[key]


class Kernel:
    """One kernel, ready to be called."""

    def __init__(self, module: Module, expression: str, declaration: Declaration) -> None:
        self.module, self.name, self.declaration = module, expression, declaration
        self.max_dynamic_shared_size_bytes = SHARED_BYTES  # as CuPy's: raise it to use more

    @property
    def codes(self) -> list[str]:
        """The types of the parameters (kernel_table.h)."""
        return self.module.library(self.name, False).codes(self.name)

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[object],
        *,
        shared_mem: int = 0,
        order: int | None = None,
        guard: str | None = None,
        race: bool | None = None,
    ) -> None:
        """Run it to its end. What is wrong raises CudaOnCpuError, which names the block, the thread and the line.

        order, guard and race are as in `orders`; what is not given here is as the `with orders(...)` around says, and
        without one as `load` was told.
        """
        conditions = _now[-1] if _now else self.module.conditions
        given = {"order": order, "guard": guard, "race": race}
        conditions = _valid(replace(conditions, **{name: value for name, value in given.items() if value is not None}))  # type: ignore[arg-type]
        self._run(grid, block, args, shared_mem, conditions)

    def trace(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[object],
        *,
        shared_mem: int = 0,
        thread: int = 0,
        in_block: int = 0,
    ) -> list[Step]:
        """Run it, and tell what one thread did: every read, write and barrier in order. Both are counted from 0.

        Races do not disturb; another error has in its `steps` what the thread did until then.
        """
        return self._run(grid, block, args, shared_mem, Conditions(race=True), in_block, thread)

    def in_every_order(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[object],
        *,
        shared_mem: int = 0,
        race: bool = False,
    ) -> None:
        """Run it several times from the same arguments, in several orders and with both guards (and once watched).

        The results must be the same bit for bit, and are left in the arguments.
        """
        before = [value.copy() if isinstance(value, numpy.ndarray) else None for value in args]
        results: list[list[Array]] = []
        runs = [Conditions(order, guard) for order in ORDERS for guard in GUARDS]
        for conditions in [*runs, *([Conditions(race=True)] if race else [])]:
            for value, old in zip(args, before, strict=True):
                if isinstance(value, numpy.ndarray) and value.flags.writeable:
                    value[...] = old
            self._run(grid, block, args, shared_mem, conditions)
            results.append([value.copy() for value in args if isinstance(value, numpy.ndarray)])
            self._compare(args, results[0], results[-1], runs[0], conditions)

    def _compare(
        self, args: Sequence[object], first: list[Array], now: list[Array], before: Conditions, conditions: Conditions
    ) -> None:
        arrays = [
            name for name, value in zip(self._names(len(args)), args, strict=True) if isinstance(value, numpy.ndarray)
        ]
        for name, a, b in zip(arrays, first, now, strict=True):
            differ = numpy.flatnonzero(numpy.frombuffer(a.tobytes(), "uint8") != numpy.frombuffer(b.tobytes(), "uint8"))
            if differ.size:
                i = int(differ[0]) // a.itemsize
                raise CudaOnCpuError(
                    f"{self.name}: the result is not always the same: {name}[{i}] is {a.flat[i]} with {before}, "
                    f"and {b.flat[i]} with {conditions}"
                )

    # -- one launch -----------------------------------------------------------
    def _run(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[object],
        shared_mem: int,
        conditions: Conditions,
        traced_block: int = -1,
        traced_thread: int = -1,
    ) -> list[Step]:
        library = self.module.library(self.name, conditions.race)
        codes = library.codes(self.name)
        names = self._names(len(codes))
        values = arguments.check(self.name, names, codes, args)
        grid_3, block_3 = arguments.check_shape(self.name, grid, block, self._most_threads())
        limit = self._shared_limit(shared_mem)
        guarded = _guarded(values, conditions.guard)
        cells = [_cell(value) for value in guarded]
        pointers = (ctypes.c_void_p * max(1, len(cells)))(*[cell.ctypes.data for cell in cells])
        launch = Launch(
            pointers, (ctypes.c_uint32 * 3)(*grid_3), (ctypes.c_uint32 * 3)(*block_3), shared_mem, limit,
            conditions.order, conditions.guard == "start",
        )  # fmt: skip
        with ONE_AT_A_TIME:
            if conditions.race:
                library.watch(guarded, traced_block, traced_thread)
            report = library.launch(self.name, launch)
            watched = Watched(library, names, guarded, block_3, grid_3)
            traced = traced_thread >= 0
            findings = watched.findings() if conditions.race and not traced else []
            steps = watched.steps() if traced else []
            if conditions.race:
                library.forget()
        if report.failed == 2:
            raise KeyboardInterrupt
        if report.failed:
            raise CudaOnCpuError(f"{self.name}: {self._what(report, library, watched, guarded)}", steps)
        if findings:
            raise CudaOnCpuError(f"{self.name}: " + "\n".join(findings))
        self._check_surroundings(names, guarded)
        for value, copy, code in zip(values, guarded, codes, strict=True):
            if copy is not value and isinstance(value, numpy.ndarray) and code[0] == "P":
                value[...] = copy
        return steps

    def _names(self, count: int) -> list[str]:
        names = self.declaration.parameters
        return list(names) if len(names) == count else [f"number {i}" for i in range(count)]

    def _most_threads(self) -> int:
        """What __launch_bounds__ says, if it says a number, or the name of a constant of the file."""
        said = self.declaration.most_threads
        if said and not said.isdigit():
            constant = re.search(rf"\b{re.escape(said)}\s*=\s*(\d+)\s*;", self.module.source.text)
            said = constant[1] if constant else ""
        return int(said) if said else arguments.MOST_THREADS

    def _shared_limit(self, shared_mem: int) -> int:
        allowed = self.max_dynamic_shared_size_bytes
        if allowed > MOST_SHARED_BYTES:
            raise CudaOnCpuError(
                f"{self.name}: a block can have {MOST_SHARED_BYTES} bytes of shared memory, not {allowed}"
            )
        if shared_mem > allowed:
            raise CudaOnCpuError(
                f"{self.name}: shared_mem={shared_mem} bytes were asked for, but {allowed} are allowed "
                f"(max_dynamic_shared_size_bytes can be raised up to {MOST_SHARED_BYTES})"
            )
        return max(allowed, SHARED_BYTES)

    def _check_surroundings(self, names: list[str], values: list[Array | numpy.generic]) -> None:
        for name, value in zip(names, values, strict=True):
            memory = memory_of(value) if isinstance(value, numpy.ndarray) else None
            if memory is not None and not memory.untouched:
                raise CudaOnCpuError(f"{self.name}: a thread wrote next to {name}, outside of it")

    def _what(self, report: Report, library: Library, watched: Watched, values: list[Array | numpy.generic]) -> str:
        """What went wrong, where, and by whom."""
        message = report.message.decode(errors="replace")
        if report.faulted:
            message = "a thread touches memory that it must not" + self._nearest(
                report.address, watched, library, values
            )
        if report.code:
            message += f", in {library.lines({report.code})[report.code]}"
        block = f"block {watched.in_grid(report.block)}"
        return (
            f"{message} [{block}, thread {watched.in_block(report.thread)}]"
            if report.has_thread
            else f"{message} [{block}]"
        )

    def _nearest(self, address: int, watched: Watched, library: Library, values: list[Array | numpy.generic]) -> str:
        """How far the address lies from which array."""
        places = [(value.ctypes.data, memory) for value, memory in zip(values, watched.arguments, strict=True)
                  if isinstance(value, numpy.ndarray) and memory is not None]  # fmt: skip
        places += [(array.start, memory) for array, memory in zip(library.shared_arrays(), watched.shared, strict=True)]
        best, text = 1 << 16, f", far from every array (address {address:#x})"
        for start, memory in places:
            bytes_ = memory.dtype.itemsize * int(numpy.prod(memory.shape))
            distance = start - address if address < start else address - (start + bytes_)
            if 0 <= distance < best:
                number = (address - start) // memory.dtype.itemsize
                text = f": {memory.element(number)}, and {memory.name} has {bytes_ // memory.dtype.itemsize} elements"
                best = distance
        return text


def _cell(value: Array | numpy.generic) -> Array:
    """An argument's bytes: the address of an array, or the number itself."""
    return numpy.array(value.ctypes.data, "uint64") if isinstance(value, numpy.ndarray) else numpy.array(value)


def _guarded(values: list[Array | numpy.generic], guard: str) -> list[Array | numpy.generic]:
    """The arrays copied into guarded memory. The same array twice stays one; overlapping ones stay where they are."""
    if guard == "off":
        return values
    arrays = [value for value in values if isinstance(value, numpy.ndarray) and value.size]
    copies: dict[tuple[int, int], Array] = {}
    result: list[Array | numpy.generic] = []
    for value in values:
        if not isinstance(value, numpy.ndarray) or not value.size:
            result.append(value)
            continue
        place = value.ctypes.data, value.nbytes
        if any((a.ctypes.data, a.nbytes) != place and numpy.may_share_memory(a, value) for a in arrays):
            result.append(value)
            continue
        if place not in copies:
            copies[place] = guarded_copy(value, guard)
        result.append(copies[place])
    return result
