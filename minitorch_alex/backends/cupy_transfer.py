"""From the host's memory to the GPU's, while the GPU computes.

The GPU can fetch by itself, beside computing, from memory that the system has promised not to move (pinned). It works
through streams: what is put into one stream happens in order, and two streams wait for each other only at events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import cupy
import cupyx
import numpy

from .array_module import Array

PIECE = 64 << 20  # bytes


class Slot:
    """Room for one array: pinned on the host, and as much on the GPU."""

    def __init__(self, like: numpy.ndarray) -> None:
        self.host, self.device = cupyx.empty_pinned(like.shape, like.dtype), cupy.empty(like.shape, like.dtype)

    def holds(self, array: numpy.ndarray) -> bool:
        """Whether there is room for this array."""
        alike = self.host.dtype == array.dtype and self.host.shape[1:] == array.shape[1:]
        return alike and len(self.host) >= len(array)


class Buffer:
    """Room for one batch, and where it stands."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.arrived = cupy.cuda.Event(disable_timing=True)  # the batch, on the GPU
        self.used = cupy.cuda.Event(disable_timing=True)  # and all that was to be computed with it is done

    def send(self, batch: tuple[numpy.ndarray, ...], stream: cupy.cuda.Stream) -> tuple[Array, ...]:
        """Begin to copy a batch. Its arrays may be read after `arrived`."""
        self.arrived.synchronize()  # the pinned memory must have been read; that was two batches ago
        if len(self.slots) != len(batch) or not all(s.holds(a) for s, a in zip(self.slots, batch, strict=True)):
            self.slots = [Slot(array) for array in batch]
            self.used.record()  # CuPy may have given memory with which something is still being computed
        stream.wait_event(self.used)
        arrays = []
        for slot, array in zip(self.slots, batch, strict=True):
            host, device = slot.host[: len(array)], slot.device[: len(array)]
            host[...] = array
            device.set(host, stream=stream)
            arrays.append(device)
        self.arrived.record(stream)
        return tuple(arrays)


def sent_ahead(batches: Iterable[tuple[numpy.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
    """The batches, as arrays on the GPU: the next one travels while the GPU computes with the one in hand.

    Another thread sends it, since copying to pinned memory takes the host milliseconds. There are two buffers: when a
    batch is asked for, the arrays of the one before are no longer what they were.
    """
    copying, computing = cupy.cuda.Stream(non_blocking=True), cupy.cuda.get_current_stream()
    buffers = [Buffer(), Buffer()]
    on_its_way: tuple[Array, ...] | None = None
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="sender") as sender:
            for number, batch in enumerate(batches):
                sending = sender.submit(buffers[number % 2].send, batch, copying)
                if on_its_way is not None:
                    yield from _handed_over(on_its_way, buffers[(number - 1) % 2], computing)
                on_its_way = sending.result()
        if on_its_way is not None:
            yield from _handed_over(on_its_way, buffers[number % 2], computing)
    finally:
        for buffer in buffers:
            computing.wait_event(buffer.arrived)  # else its memory would be given to others while the copy goes on


def _handed_over(arrays: tuple[Array, ...], buffer: Buffer, computing: cupy.cuda.Stream) -> Iterator[tuple[Array, ...]]:
    computing.wait_event(buffer.arrived)
    yield arrays
    buffer.used.record(computing)


def sent_in_pieces(array: numpy.ndarray) -> Array:
    """A large array on the GPU. CuPy copies through pinned memory, which is scarce: hence in pieces."""
    sent = cupy.empty(array.shape, array.dtype)
    step = max(1, PIECE * len(array) // max(1, array.nbytes))
    for i in range(0, len(array), step):
        sent[i : i + step] = cupy.asarray(array[i : i + step])
    return sent
