"""PyTorch, as a contestant of the CPU benchmark."""

from __future__ import annotations

from typing import Any

import numpy
import torch

from minitorch_alex.backends.thread_pool import usable_cores
from minitorch_alex.nn import Module

from . import cpu_contestant
from .cpu_contestant import SCORES, Call
from .cpu_networks import DECAY, LR, MOMENTUM, Leaf
from .gpu_training import twin

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


class Contestant(cpu_contestant.Contestant):
    """Either memory layout, and SGD fused into one kernel or in a few passes over all weights: the fastest counts."""

    def __init__(self) -> None:
        super().__init__()
        torch.set_num_threads(usable_cores())

    def about(self) -> dict[str, Any]:
        return {**super().about(), "torch": torch.__version__, "threads": torch.get_num_threads()}

    def build(self, ours: Module, layers: list[Leaf]) -> None:
        self.theirs = twin(torch, ours)
        self.paths = [path for path, _ in ours.named_parameters()]

    def ways(self, what: str) -> list[str]:
        layouts = ["contiguous", "channels_last"] if len(self.leaves[0].input_shape) == 3 else ["contiguous"]
        if what == "training":
            return [f"{layout}, {update}" for update in ("fused", "foreach") for layout in layouts]
        return layouts

    def prepared(self, what: str, way: str, images: numpy.ndarray, labels: numpy.ndarray) -> Call:
        layout, _, update = way.partition(", ")
        network = self.theirs.to(memory_format=LAYOUTS[layout]).train(what == "training")
        x, expected = laid_out(torch.from_numpy(images), layout), torch.from_numpy(labels)
        settings: dict[str, Any] = {"momentum": MOMENTUM, "weight_decay": DECAY, update or "fused": True}
        optimizer = torch.optim.SGD(network.parameters(), LR, **settings)

        def step() -> float:
            optimizer.zero_grad(set_to_none=True)
            loss = torch.nn.functional.cross_entropy(network(x), expected)
            loss.backward()
            optimizer.step()
            return loss.item()

        @torch.inference_mode()
        def forward() -> Any:
            return network(x)

        return step if what == "training" else forward

    def gradients(self, images: numpy.ndarray, labels: numpy.ndarray, training: bool) -> dict[str, numpy.ndarray]:
        network = self.theirs.train(training)
        network.zero_grad()
        scores = network(torch.from_numpy(images))
        torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels)).backward()
        of_parameters = zip(self.paths, network.parameters(), strict=True)
        found = {path: p.grad.numpy(force=True) for path, p in of_parameters}
        network.zero_grad()
        return {SCORES: scores.numpy(force=True), **found}

    def prepared_layer(self, place: int, way: str, x: numpy.ndarray, g: numpy.ndarray) -> Call:
        layer = self.theirs[place].train().to(memory_format=LAYOUTS[way])
        if isinstance(layer, torch.nn.ReLU):
            layer = torch.nn.ReLU()  # a leaf cannot be changed in place
        given, gradient = (laid_out(torch.from_numpy(a), way) for a in (x, g))
        given.requires_grad_(place > 0)

        def both() -> None:
            layer.zero_grad(set_to_none=True)
            given.grad = None
            layer(given).backward(gradient)

        return both


def laid_out(tensor: Any, layout: str) -> Any:
    """Images in this layout; what has other than four dimensions has only one."""
    return tensor.to(memory_format=LAYOUTS[layout]) if tensor.ndim == 4 else tensor
