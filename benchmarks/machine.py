"""What a measurement was made on, to stand beside its figures."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import date

from minitorch_alex.backends.thread_pool import usable_cores
from minitorch_alex.train import processor

PACKAGES = ("minitorch-alex", "numpy", "numba", "torch", "keras", "tensorflow", "tensorflow-cpu", "jax",
            "cupy-cuda12x", "cupy-cuda13x")  # fmt: skip


def machine() -> dict[str, object]:
    """Processor, cores, system, and the versions of the packages that matter, where installed."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": date.today().isoformat(),
        "processor": processor(),
        "cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **versions,
    }
