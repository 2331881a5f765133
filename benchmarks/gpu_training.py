"""Training steps on a GPU, beside the same network in PyTorch.

A step is that of minitorch_alex.train: forward, loss, backward, SGD, and reading the loss, for which both wait. The two
take turns in one process. PyTorch gets its labels on the GPU, chooses its convolutions by trying (cudnn.benchmark) and
updates all weights in one fused step.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy

import minitorch_alex.nn as nn
from minitorch_alex import backends, manual_seed, models, no_grad
from minitorch_alex import tensor as new_tensor
from minitorch_alex.data import DeviceLoader, Preprocessing, RandomCrop
from minitorch_alex.optim import SGD
from minitorch_alex.torch_twin import torch_layer
from minitorch_alex.train import take_step

from . import gpu_timing
from .gpu_profile import PROFILED, where_time_goes
from .gpu_timing import WRONG, Row, attempted, set_torch_precision, table, torch_with_gpu

NETWORKS = ("alexnet", "torchvision_alexnet")
CLASSES, STORED = 1000, 256  # pixels of the side of a stored image
SMALL_IMAGES = 3, 32, 32  # for networks that take images of any size
LR, MOMENTUM, DECAY = 1e-4, 0.9, 5e-4
BATCHES = 16  # that a loader has in an epoch


def measure_training(
    batches: list[int], precisions: list[str], repeats: int, seconds: float, tell: Callable[[str], None]
) -> list[Row]:
    """A row for each network, batch size and precision, on the current backend."""
    backend, torch, rows = backends.current(), torch_with_gpu(), []
    try:
        for name in NETWORKS:
            contest = attempted(backend, {}, lambda name=name: {"contest": Contest(name, torch)})
            for batch, precision in itertools.product(batches, precisions):
                row = {"network": name, "batch": batch, "precision": precision}
                task = (batch, precision, repeats, seconds)
                one = contest.get("contest")
                found = attempted(backend, row, lambda one=one, task=task: one.measure(*task)) if one else row | contest
                rows.append(found)
                tell(f"{name}, batch {batch}, {precision}")
    finally:
        backend.set_precision("fp32")
    return rows


class Contest:
    """One network, ours and PyTorch's, with the same weights."""

    def __init__(self, name: str, torch: Any) -> None:
        manual_seed(0)
        self.torch, self.device = torch, gpu_timing.DEVICE
        _, self.side, _ = self.image_shape = models.MODELS[name].image_shape or SMALL_IMAGES
        ours = models.build(name, CLASSES, self.image_shape)
        self.run = SimpleNamespace(
            network=ours,
            optimizer=SGD(ours.parameters(), LR, MOMENTUM, weight_decay=DECAY),
            progress=SimpleNamespace(step=0),
        )
        if torch is not None:
            self.theirs = twin(torch, ours).to(self.device)
            settings = {"momentum": MOMENTUM, "weight_decay": DECAY, "fused": True}
            self.their_optimizer = torch.optim.SGD(self.theirs.parameters(), LR, **settings)
            self.disagreement = self.compare()

    def compare(self) -> float:
        """How far the scores of the two are apart, in parts of the largest; ValueError if too far."""
        self.set_precision("fp32")
        images = numpy.random.default_rng(0).standard_normal((2, *self.image_shape), "float32")
        self.run.network.eval(), self.theirs.eval()
        with no_grad(), self.torch.no_grad():
            ours = self.run.network(new_tensor(images)).numpy()
            theirs = self.theirs(self.torch.from_numpy(images).to(self.device)).cpu().numpy()
        apart = float(numpy.abs(ours - theirs).max() / numpy.abs(theirs).max())
        if not apart < 1e-3:
            raise ValueError(f"{WRONG}the scores of the two networks are {apart:.1e} apart")
        return apart

    def set_precision(self, precision: str) -> None:
        backends.current().set_precision(precision)
        if self.torch is not None:
            set_torch_precision(self.torch, precision)

    def measure(self, batch: int, precision: str, repeats: int, seconds: float) -> Row:
        """Images a second of both, of ours with a loader too, and where our time goes."""
        self.set_precision(precision)
        self.run.network.train()
        images, labels = self.batch(batch)
        on_device = backends.current().asarray(images)
        contestants = {"ours": lambda: self.step(on_device, labels)}
        if self.torch is not None:
            self.theirs.train()
            their_images, their_labels = (self.torch.from_numpy(a).to(self.device) for a in (images, labels))
            contestants["pytorch"] = lambda: self.their_step(their_images, their_labels, precision)
        speeds = in_turns(contestants, batch, repeats, seconds)
        found: Row = {name: statistics.median(values) for name, values in speeds.items()}
        found |= {f"{name}_each": values for name, values in speeds.items()}
        if "pytorch" in found:
            found |= {"ratio": found["ours"] / found["pytorch"], "disagreement": self.disagreement}
        found["where"] = where_time_goes(lambda: self.step(on_device, labels), self.run.optimizer)
        if "pytorch" in found:
            found["where_pytorch"] = self.their_phases(their_images, their_labels, precision)
        found |= self.with_loader(batch, repeats, seconds)
        return found

    def batch(self, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        random = numpy.random.default_rng(0)
        images = numpy.resize(random.standard_normal(1_000_003, "float32"), (count, *self.image_shape))
        return images, random.integers(0, CLASSES, count)

    def step(self, images: Any, labels: numpy.ndarray) -> float:
        loss = take_step(self.run, images, labels)
        self.run.progress.step += 1
        return loss

    # -- with images that come as bytes -------------------------------------------------
    def with_loader(self, batch: int, repeats: int, seconds: float) -> Row:
        """Images a second from bytes: all on the GPU, or sent there batch by batch while it computes."""
        images = self.stored_images(BATCHES * batch)
        loaders = {"stored_on_gpu": self.loader(images, batch), "sent": self.loader(images, batch)}
        loaders["sent"].on_device = None
        batches = {name: endless(loader) for name, loader in loaders.items()}
        steps = {name: lambda it=it: self.step(*next(it)) for name, it in batches.items()}
        try:
            speeds = in_turns(steps, batch, repeats, seconds)
        finally:
            for it in batches.values():
                it.close()
        return {name: statistics.median(values) for name, values in speeds.items()}

    def stored_images(self, count: int) -> numpy.ndarray:
        random, stored = numpy.random.default_rng(0), max(STORED, self.side)
        return numpy.resize(random.integers(0, 256, 1_000_003, "uint8"), (count, 3, stored, stored))

    def loader(self, images: numpy.ndarray, batch: int) -> DeviceLoader:
        preprocessing = Preprocessing(numpy.array([120.0, 115, 100]), numpy.array([60.0, 60, 60]))
        labels, crop = numpy.random.default_rng(0).integers(0, CLASSES, len(images)), RandomCrop(self.side)
        return DeviceLoader(
            backends.current(), images, labels, batch, preprocessing, crop, seed=0, workers=8, prefetch=4
        )

    # -- PyTorch ------------------------------------------------------------------------
    def their_step(
        self, images: Any, labels: Any, precision: str, mark: Callable[[str], None] = lambda name: None
    ) -> float:
        """A step of PyTorch's. mark(name) is called when a phase has been launched."""
        torch = self.torch
        self.their_optimizer.zero_grad()
        with torch.autocast(self.device, torch.bfloat16, enabled=precision == "bf16"):
            loss = torch.nn.functional.cross_entropy(self.theirs(images), labels)
        mark("forward")
        loss.backward()
        mark("backward")
        self.their_optimizer.step()
        mark("SGD")
        return loss.item()

    def their_phases(self, images: Any, labels: Any, precision: str) -> dict[str, float]:
        """Milliseconds of the phases of their step."""
        torch, found = self.torch, defaultdict(list)
        for _ in range(PROFILED):
            names, events = ["start"], [torch.cuda.Event(enable_timing=True)]
            events[0].record()

            def mark(name: str, names: list = names, events: list = events) -> None:
                names.append(name)
                events.append(torch.cuda.Event(enable_timing=True))
                events[-1].record()

            self.their_step(images, labels, precision, mark)
            events[-1].synchronize()
            for name, begin, end in zip(names[1:], events, events[1:], strict=False):
                found[name].append(begin.elapsed_time(end))
        return {name: statistics.median(values) for name, values in found.items()}


def endless(loader: DeviceLoader) -> Iterator[tuple[Any, numpy.ndarray]]:
    """The batches of one epoch after the other."""
    for epoch in itertools.count():
        yield from loader.epoch(epoch)


def in_turns(
    steps: dict[str, Callable[[], object]], batch: int, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Images a second of each, `repeats` times by turns, after two steps to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(), step()
    for _ in range(repeats):
        for name, step in steps.items():
            count, began = 0, time.perf_counter()
            while count < 2 or time.perf_counter() - began < seconds:
                step()
                count += 1
            speeds[name].append(count * batch / (time.perf_counter() - began))
    return speeds


def twin(torch: Any, network: nn.Module) -> Any:
    """The same layers in PyTorch, in a row, with the same weights."""
    leaves = [layer for _, layer in network.named_modules() if not list(layer.named_modules())[1:]]
    layers = [torch_layer(torch.nn, layer) for layer in leaves]
    if None in layers:
        raise TypeError(f"PyTorch has no layer like {leaves[layers.index(None)]!r}")
    for theirs in layers:
        if isinstance(theirs, torch.nn.ReLU):
            theirs.inplace = True  # as PyTorch's own AlexNet has it, which saves memory and time
    for ours, theirs in zip(leaves, layers, strict=True):
        theirs.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in ours.state_dict().items()})
    return torch.nn.Sequential(*layers)


# -- the table ----------------------------------------------------------------------------
def training_table(rows: list[Row]) -> str:
    columns = {"network": -20, "batch": 6, "prec.": -6, "ours": 9, "PyTorch": 9, "ratio": 6, "bytes on GPU": 13,
               "bytes sent": 11}  # fmt: skip
    title = "Training: images a second, medians. ratio: ours / PyTorch's, both with images ready on the GPU;\n"
    title += "behind it ours from bytes: all stored on the GPU, or sent there batch by batch."
    return table(title, columns, (_cells(row) for row in rows))


def _cells(row: Row) -> list[object]:
    cells = [row["network"], row["batch"], row["precision"]]
    if "problem" in row:
        return [*cells, row["problem"]]
    speeds = [f"{row[name]:,.0f}" if name in row else "-" for name in ("ours", "pytorch", "stored_on_gpu", "sent")]
    return [*cells, *speeds[:2], f"{row['ratio']:.2f}" if "ratio" in row else "-", *speeds[2:]]


if __name__ == "__main__":
    raise SystemExit("this is a part of python -m benchmarks.gpu")
