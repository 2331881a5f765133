"""The one error of this package."""

from __future__ import annotations

from collections.abc import Sequence


class CudaOnCpuError(RuntimeError):
    """A kernel does not compile, was called wrongly, or did something wrong; the message says what and where.

    steps is what the traced thread did until then, if one was.
    """

    def __init__(self, message: str, steps: Sequence = ()) -> None:
        super().__init__(message)
        self.steps = list(steps)
