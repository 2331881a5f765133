"""What a backend computes with: an array module such as NumPy, and the memory in which its arrays lie."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy

Array = Any  # of the backend's array module


class ArrayModule:
    """NumPy, as what a backend computes with."""

    name = "numpy"
    description = "NumPy arrays, plain array code"
    xp: Any = numpy

    def __getattr__(self, attribute: str) -> Any:  # xp.exp, xp.where, ... : the array module's own
        found = vars(self)[attribute] = getattr(self.xp, attribute)  # next time Python finds it without asking here
        return found

    def prepare(self) -> None:
        """Load what the kernels need now, and fail now if it is broken."""

    def __reduce__(self) -> str:
        return "BACKEND"  # copied and pickled as the one of its kind, by that name in its module

    precision = "fp32"

    def set_precision(self, precision: str) -> None:
        """How training computes from now on: "fp32", and where the hardware can "tf32" or "bf16". Else a ValueError."""
        if precision != "fp32":
            raise ValueError(f"the {self.name} backend computes in fp32 only; tf32 and bf16 are for cupy")

    def asarray(self, a: Any) -> Array:
        """The array module's own array, without a copy where it is one already."""
        return self.xp.asarray(a)

    def to_numpy(self, a: Array) -> numpy.ndarray:
        """The array in the host's memory."""
        return numpy.asarray(a)

    # -- memory ----------------------------------------------------------------
    has_own_memory = False  # to which arrays have to be sent from the host's

    def free_bytes(self) -> int:
        """How much of a memory of its own is free."""
        return 0

    def held_bytes(self) -> int:
        """How much of it is taken: by arrays, and by what is kept in stock for more."""
        return 0

    def give_back(self) -> None:
        """Give back what is kept in stock."""

    def sent_ahead(self, batches: Iterable[tuple[numpy.ndarray, ...]]) -> Iterator[tuple[Array, ...]]:
        """The batches as arrays of this backend, each to be used before the next is asked for."""
        return (tuple(self.asarray(array) for array in batch) for batch in batches)

    def sent_in_pieces(self, a: numpy.ndarray) -> Array:
        """A large array as one of this backend."""
        return self.asarray(a)
