"""A compiled file, as Python calls it. The structs are those of shim/runtime.h, barriers.h and watch.cpp."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

import numpy

from .compiler import lines_of
from .memory import Array, surroundings

ONE_AT_A_TIME = threading.Lock()  # launches: the shim catches signals, of which a process has one set


class Launch(ctypes.Structure):
    _fields_ = [
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint32 * 3),
        ("block", ctypes.c_uint32 * 3),
        ("shared_bytes", ctypes.c_uint64),
        ("shared_limit", ctypes.c_uint64),
        ("order", ctypes.c_int32),
        ("guard_start", ctypes.c_int32),
    ]


class Report(ctypes.Structure):
    _fields_ = [
        ("failed", ctypes.c_int32),
        ("faulted", ctypes.c_int32),
        ("has_thread", ctypes.c_int32),
        ("block", ctypes.c_uint32 * 3),
        ("thread", ctypes.c_uint32 * 3),
        ("address", ctypes.c_uint64),
        ("code", ctypes.c_uint64),
        ("message", ctypes.c_char * 600),
    ]


class SharedArray(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char * 40),
        ("type", ctypes.c_char * 8),
        ("start", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("shape", ctypes.c_int64 * 3),
    ]


class Side(ctypes.Structure):
    _fields_ = [
        ("block", ctypes.c_uint32),
        ("thread", ctypes.c_uint32),
        ("writes", ctypes.c_int32),
        ("atomic", ctypes.c_int32),
        ("code", ctypes.c_uint64),
    ]


class Finding(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("shared", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("element", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("now", Side),
        ("before", Side),
    ]


class Event(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int32),
        ("shared", ctypes.c_int32),
        ("number", ctypes.c_int32),
        ("atomic", ctypes.c_int32),
        ("element", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("code", ctypes.c_uint64),
        ("value", ctypes.c_ubyte * 16),
        ("function", ctypes.c_char * 24),
        ("file", ctypes.c_char * 64),
        ("line", ctypes.c_int32),
    ]


class Library:
    """One compiled file. Call it only while holding ONE_AT_A_TIME."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lines: dict[int, str] = {}
        self.calls = ctypes.CDLL(str(path))
        self.calls.cuda_on_cpu_name.restype = ctypes.c_char_p
        self.calls.cuda_on_cpu_code.restype = ctypes.c_char_p
        names = [self.calls.cuda_on_cpu_name(i).decode() for i in range(self.calls.cuda_on_cpu_count())]
        self.numbers = {name: number for number, name in enumerate(names)}
        self._codes: dict[str, list[str]] = {}

    def codes(self, expression: str) -> list[str]:
        """The types of a kernel's parameters."""
        if expression not in self._codes:
            number = self.numbers[expression]
            count = self.calls.cuda_on_cpu_parameters(number)
            self._codes[expression] = [self.calls.cuda_on_cpu_code(number, i).decode() for i in range(count)]
        return self._codes[expression]

    def launch(self, expression: str, launch: Launch) -> Report:
        """Run a kernel to its end, or to its first error."""
        report = Report()
        self.calls.cuda_on_cpu_launch(self.numbers[expression], ctypes.byref(launch), ctypes.byref(report))
        return report

    def watch(self, values: list[Array | numpy.generic], block: int = -1, thread: int = -1) -> None:
        """Before a launch: which memory to watch, and which thread."""
        self.calls.cuda_on_cpu_watch_nothing()
        for number, array in enumerate(values):
            if isinstance(array, numpy.ndarray) and array.size:
                start, (low, high) = array.ctypes.data, surroundings(array)
                size, end = ctypes.c_uint32(array.dtype.itemsize), start + array.nbytes
                addresses = [ctypes.c_uint64(n) for n in (end - start, low, high)]
                self.calls.cuda_on_cpu_watch_array(number, ctypes.c_uint64(start), addresses[0], size, *addresses[1:])
        self.calls.cuda_on_cpu_trace(ctypes.c_int64(block), ctypes.c_int64(thread))

    def forget(self) -> None:
        """Give back the memory that watching took."""
        self.calls.cuda_on_cpu_watch_nothing()

    def shared_arrays(self) -> list[SharedArray]:
        """Those of the last launch."""
        return self._list("shared_arrays", SharedArray)

    def findings(self) -> list[Finding]:
        """What the last launch, if watched, did wrong."""
        return self._list("findings", Finding)

    def events(self) -> list[Event]:
        """What the watched thread of the last launch did."""
        return self._list("events", Event)

    def lines(self, codes: set[int]) -> dict[int, str]:
        """The source lines of places in the library."""
        unknown = sorted(codes - self._lines.keys())
        if unknown:
            self._lines |= lines_of(self.path, unknown)
        return self._lines

    def _list(self, what: str, kind: Any) -> list:
        first: Any = ctypes.POINTER(kind)()
        count = getattr(self.calls, f"cuda_on_cpu_{what}")(ctypes.byref(first))
        return [kind.from_buffer_copy(first[i]) for i in range(count)]
