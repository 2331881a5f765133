"""Memory that a thread uses again and again, and keeps."""

from __future__ import annotations

import threading
from math import prod

import numpy

from .array_module import Array

LINE = 64  # bytes of a cache line: every array starts on one


class Scratch(threading.local):
    """One piece of memory for each thread, grown when more is asked for, and kept."""

    memory: Array = numpy.empty(0, "uint8")

    def arrays(self, dtype: numpy.dtype, *shapes: tuple[int, ...]) -> list[Array]:
        """Arrays of these shapes, with anything in them, side by side. They are the same memory at the next call."""
        sizes = [-(-prod(shape) * dtype.itemsize // LINE) * LINE for shape in shapes]
        if self.memory.nbytes < sum(sizes) + LINE:
            self.memory = numpy.empty(0, "uint8")  # the old one goes before the new one comes
            self.memory = numpy.empty(sum(sizes) + LINE, "uint8")
        start, found = -self.memory.ctypes.data % LINE, []
        for shape, size in zip(shapes, sizes, strict=True):
            found.append(self.memory[start : start + prod(shape) * dtype.itemsize].view(dtype).reshape(shape))
            start += size
        return found
