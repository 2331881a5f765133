"""Ours, as a contestant of the CPU benchmark: the steps of minitorch_alex.train."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy

import minitorch_alex.functional as F
from minitorch_alex import backends, no_grad, philox
from minitorch_alex.nn import Module
from minitorch_alex.optim import SGD
from minitorch_alex.tensor import Tensor
from minitorch_alex.train import take_step

from . import cpu_compilation, cpu_contestant, cpu_pipeline, cpu_scaling
from .cpu_contestant import EVALUATED, SCORES, Call
from .cpu_networks import DECAY, LR, MOMENTUM, Leaf


class Contestant(cpu_contestant.Contestant):
    """On the backend for a CPU: numba where it is installed, else numpy."""

    backend, dtype = "numba", "float32"

    def __init__(self) -> None:
        super().__init__()
        backends.use(self.backend if backends.why_not(self.backend) is None else "numpy")

    def about(self) -> dict[str, Any]:
        return {**super().about(), "numpy": numpy.__version__, "backend": backends.current().description}

    def prepare(self) -> None:
        """Import what the backend imports when it is first needed."""
        backends.current().prepare()

    def build(self, ours: Module, layers: list[Leaf]) -> None:
        network = ours.to(self.dtype)
        optimizer = SGD(network.parameters(), LR, MOMENTUM, weight_decay=DECAY)
        self.run: Any = SimpleNamespace(network=network, optimizer=optimizer, progress=SimpleNamespace(step=0))

    def prepared(self, what: str, way: str, images: numpy.ndarray, labels: numpy.ndarray) -> Call:
        run = self.run
        run.network.train(what == "training")

        def step() -> float:
            loss = take_step(run, images, labels)
            run.progress.step += 1
            return loss

        def forward() -> numpy.ndarray:
            with no_grad():
                return run.network(Tensor(images)).numpy()

        return step if what == "training" else forward

    def gradients(self, images: numpy.ndarray, labels: numpy.ndarray, training: bool) -> dict[str, numpy.ndarray]:
        network, x = self.run.network, Tensor(images.astype(self.dtype))
        found = {}
        if training:
            with no_grad():
                found[EVALUATED] = network.eval()(x).numpy()
        philox.set_step(0)  # which decides on the masks of dropout
        network.train(training).zero_grad()
        scores = network(x)
        F.cross_entropy(scores, labels).backward()
        found |= {SCORES: scores.numpy(), **{name: p.grad.numpy() for name, p in network.named_parameters()}}
        network.zero_grad()
        return found

    def prepared_layer(self, place: int, way: str, x: numpy.ndarray, g: numpy.ndarray) -> Call:
        layer = dict(self.run.network.named_modules())[self.leaves[place].path].train()

        def both() -> None:
            layer.zero_grad()
            layer(Tensor(x, requires_grad=place > 0)).backward(g)

        return both

    # -- what only we are asked ------------------------------------------------------------
    def first_steps(self, network: str, batch: int) -> dict[str, Any]:
        return cpu_compilation.first_steps(self, network, batch)

    def waiting(self, **arguments: Any) -> dict[str, Any]:
        return cpu_pipeline.waiting(**arguments)

    def depth(self, **arguments: Any) -> list[list[float]]:
        return cpu_scaling.seconds_by_depth(**arguments)
