"""What is right: the same networks on the reference backend in float64, for the validation of the CPU benchmark."""

from __future__ import annotations

from typing import Any

import numpy

from . import cpu_networks, cpu_ours


class Contestant(cpu_ours.Contestant):
    """It is never timed."""

    backend, dtype = "numpy", "float64"

    def write(self, network: str, batch: int, training: bool, file: str) -> None:
        """Scores and gradients into a file of NumPy's."""
        self.take(network)
        arrays: dict[str, Any] = self.gradients(*cpu_networks.batch(network, batch), training)
        numpy.savez(file, **arrays)
