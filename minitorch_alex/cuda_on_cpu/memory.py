"""Arrays in memory that notices when a kernel goes too far.

Behind (guard="end") or before (guard="start") the array lies a page of memory that nobody may touch: reading or writing
one element too far is an error at once. Both ends cannot be guarded at the same time, since pages begin and end at
multiples of 4096 bytes. Fresh memory is full of NaN (all bits set: -1 as a signed integer), so that a result made of
what nobody has written shows.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap

import numpy
import numpy.typing

from .error import CudaOnCpuError

Array = numpy.ndarray

ALIGNMENT = 16  # bytes, as float4 needs; so up to 15 bytes between an array and its guard are not guarded
GUARDS = ("end", "start")
NO_ACCESS = 0


class GuardedMemory(mmap.mmap):
    """So many bytes, with a guard at one end. `start` and `end` are their addresses."""

    start: int
    end: int
    pages_start: int
    pages_end: int

    def __new__(cls, size: int, guard: str) -> GuardedMemory:
        if guard not in GUARDS:
            raise CudaOnCpuError(f"guard={guard!r} was given: choose one of {', '.join(map(repr, GUARDS))}")
        inner = max(1, math.ceil(size / mmap.PAGESIZE)) * mmap.PAGESIZE
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        self = super().__new__(cls, -1, inner + 2 * mmap.PAGESIZE, flags)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self))
        self.pages_start = address + mmap.PAGESIZE
        self.pages_end = self.pages_start + inner
        self.start = self.pages_start + ((inner - size) // ALIGNMENT * ALIGNMENT if guard == "end" else 0)
        self.end = self.start + size
        ctypes.memset(self.pages_start, 0xFF, inner)
        for page in (address, self.pages_end):
            if _libc().mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), NO_ACCESS) != 0:
                raise MemoryError("the system does not guard a page")
        return self

    @property
    def untouched(self) -> bool:
        """Whether the rest of the pages, which belongs to no array, is as it was."""
        before = ctypes.string_at(self.pages_start, self.start - self.pages_start)
        after = ctypes.string_at(self.end, self.pages_end - self.end)
        return (before + after).count(0xFF) == len(before) + len(after)

    def array(self, shape: tuple[int, ...], dtype: numpy.dtype) -> Array:
        """These bytes as an array, which keeps them alive."""
        offset = self.start - self.pages_start + mmap.PAGESIZE
        return numpy.frombuffer(self, "uint8", self.end - self.start, offset).view(dtype).reshape(shape)


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def empty(shape: int | tuple[int, ...], dtype: numpy.typing.DTypeLike = "float32", guard: str = "end") -> Array:
    """A NumPy array full of NaN, with a guard at its end or at its start."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = numpy.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = GuardedMemory(size, guard)
    return memory.array(shape, kind) if size else numpy.empty(shape, kind)


def guarded_copy(array: Array, guard: str) -> Array:
    """The same values in guarded memory."""
    copy = empty(array.shape, array.dtype, guard)
    copy[...] = array
    return copy


def memory_of(array: Array) -> GuardedMemory | None:
    """The guarded memory an array lies in, if it lies in such."""
    owner: object = array
    while isinstance(owner, numpy.ndarray):
        owner = owner.base
    if isinstance(owner, memoryview):
        owner = owner.obj
    return owner if isinstance(owner, GuardedMemory) else None


def surroundings(array: Array) -> tuple[int, int]:
    """Where the memory begins and ends that holds this array and can hold nothing that is not an array's of its own."""
    memory = memory_of(array)
    if memory is not None:
        return memory.pages_start, memory.pages_end
    owner = array
    while isinstance(owner.base, numpy.ndarray):
        owner = owner.base
    low, high = numpy.lib.array_utils.byte_bounds(owner)
    start = array.ctypes.data
    return min(low, start), max(high, start + array.nbytes)
