"""How long a run would take on this machine, from a few of its steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy

from .config import Config
from .data import Dataset, RandomCrop
from .data.photographs import SIDE
from .data.statistics import Statistics
from .models import MODELS
from .run import Run, Tell, assemble
from .run_folder import RunFolder
from .trained import evaluate

STEPS, SECONDS = 3, 10.0  # measured at least
IMAGENET = 1_281_167, 50_000  # training and validation images of ILSVRC-2012
ORIGINAL = "The original took five to six days on two GeForce GTX 580, at 208 to 250 images/s."


class Noise:
    """Random pixels, as if they were photographs: they cost the network as much."""

    def __init__(self, count: int) -> None:
        self.shape = (count, 3, SIDE, SIDE)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> numpy.ndarray:
        count = len(numpy.arange(len(self))[which])
        return numpy.random.default_rng(0).integers(0, 256, (count, *self.shape[1:]), "uint8")


def noise_for_imagenet(crop: int) -> Dataset:
    """A data set of ImageNet's size, for who does not have it."""
    train, test = IMAGENET
    return Dataset(
        f"noise in place of ImageNet's {train:,} photographs", [f"class {i}" for i in range(1000)],
        Noise(train), numpy.zeros(train, "int64"), Noise(test), numpy.zeros(test, "int64"), RandomCrop(crop), crop,
        Statistics(numpy.full((3, SIDE, SIDE), 127.5), numpy.eye(3) * 5500.0),
    )  # fmt: skip


def estimate(config: Config, take_step: Callable[[Run, Any, Any], float], tell: Tell | None = None) -> str:
    """Measure a few steps, and say what the whole run would take. Nothing is written to the disk."""
    takes = MODELS[config.model].image_shape
    absent = config.data not in ("digits", "cifar10") and not Path(config.data).exists()
    run = assemble(
        config, RunFolder.unused(config.data), tell, dataset=noise_for_imagenet(takes[1]) if absent and takes else None
    )
    run.network.train()
    measured: list[tuple[float, int]] = []  # seconds and images of each step
    started = time.perf_counter()
    for images, labels in islice(run.loader().epoch(0), 1000):
        take_step(run, images, labels)
        measured.append((time.perf_counter() - started, len(labels)))
        started = time.perf_counter()
        if len(measured) > STEPS and sum(seconds for seconds, _ in measured[1:]) > SECONDS:
            break
    counted = measured[1:] or measured  # the first one also waits for its images
    rate = float(numpy.median([count / seconds for seconds, count in counted]))
    batch = min(config.batch_size, len(run.dataset.train_images))
    few = slice(0, min(len(run.dataset.test_images), 2 * config.batch_size))
    started = time.perf_counter()
    evaluate([run.trained()], run.dataset.test_images[few], run.dataset.test_labels[few])
    evaluation = (time.perf_counter() - started) / few.stop * len(run.dataset.test_images)
    images_in_all = len(run.dataset.train_images)
    epoch = images_in_all / rate + evaluation
    lines = [
        f"{config.model} on {run.dataset.name}, backend {run.backend_note}",
        f"a step of {batch} images takes {batch / rate:.3g} s: {rate:,.1f} images/s",
        f"an epoch of {images_in_all:,} images, with the evaluation after it, {duration(epoch)}",
        f"{config.epochs} epochs {duration(config.epochs * epoch)}",
    ]
    return "\n".join(lines + ([ORIGINAL] if config.model.startswith("alexnet") and absent else []))


def duration(seconds: float) -> str:
    """In the unit that suits."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} seconds"
