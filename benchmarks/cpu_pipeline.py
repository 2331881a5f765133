"""How long training waits for its images, and what preparing them costs it: for the CPU benchmark."""

from __future__ import annotations

import itertools
import statistics
import time
from pathlib import Path
from typing import Any

from minitorch_alex import backends
from minitorch_alex.config import Config
from minitorch_alex.run import Run, assemble
from minitorch_alex.run_folder import RunFolder
from minitorch_alex.train import take_step


def waiting(folder: str, batch: int, steps: int, model: str = "alexnet") -> dict[str, Any]:
    """Train a network on the photographs in a folder, packed or not, as the command does, for so many steps.

    The first step is not counted: nothing has been prepared for it. Behind them come some with images that are ready
    in memory, while nothing else is done.
    """
    backend = "numba" if backends.why_not("numba") is None else "numpy"
    config = Config(model=model, data=folder, batch_size=batch, lr=1e-4, held_out=0.0, backend=backend).check()
    run = assemble(config, RunFolder(Path(folder)))  # nothing is written
    run.network.train()
    loader = run.loader()
    batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
    seconds(run, *next(batches))
    waits, busy, count = [], [], 0
    for _ in range(steps):
        began = time.perf_counter()
        images, labels = next(batches)
        waits.append(time.perf_counter() - began)
        busy.append(seconds(run, images, labels))
        count += len(labels)
    batches.close()
    alone = [seconds(run, images, labels) for _ in range(max(3, steps // 2))]
    return {
        "batch": batch,
        "waiting_share": sum(waits) / (sum(waits) + sum(busy)),
        "images_per_second": count / (sum(waits) + sum(busy)),
        "images_per_second_without_loader": len(labels) / statistics.median(alone),
        "wait_seconds": waits,
        "step_seconds": busy,
    }


def seconds(run: Run, images: Any, labels: Any) -> float:
    began = time.perf_counter()
    take_step(run, images, labels)
    run.progress.step += 1
    return time.perf_counter() - began
