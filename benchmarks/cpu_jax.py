"""JAX, as a contestant of the CPU benchmark."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy
from jax import lax
from jax import numpy as jnp

from minitorch_alex import nn

from . import cpu_contestant
from .cpu_contestant import SCORES, Call
from .cpu_networks import DECAY, LR, MOMENTUM, Leaf

LAYOUT = ("NHWC", "HWIO", "NHWC")
Weights = dict[str, Any]
Step = Callable[[Weights, Any, Any], Any]  # of one layer: (weights, x, key of random numbers or None) -> y


class Contestant(cpu_contestant.Contestant):
    """A whole step compiled by XLA, which may reuse the old weights' memory. Images are (N, H, W, C)."""

    def about(self) -> dict[str, Any]:
        return {**super().about(), "jax": jax.__version__}

    def build(self, ours: nn.Module, layers: list[Leaf]) -> None:
        modules = dict(ours.named_modules())
        self.steps = [step_like(modules[leaf.path], leaf) for leaf in layers]
        self.weights = {name: jnp.asarray(as_theirs(p.numpy())) for name, p in ours.named_parameters()}
        self.compiled_update = jax.jit(self.update, donate_argnums=(0, 1))
        self.compiled_scores = jax.jit(self.scores)

    def scores(self, weights: Weights, x: Any, key: Any) -> Any:
        for place, step in enumerate(self.steps):
            x = step(weights, x, None if key is None else jax.random.fold_in(key, place))
        return x

    def loss(self, weights: Weights, x: Any, labels: Any, key: Any) -> tuple[Any, Any]:
        """(loss, scores)"""
        scores = self.scores(weights, x, key)
        picked = jnp.take_along_axis(jax.nn.log_softmax(scores), labels[:, None], axis=1)
        return -picked.mean(), scores

    def update(self, weights: Weights, velocity: Weights, x: Any, labels: Any, key: Any) -> tuple[Any, ...]:
        """A training step: (weights, velocity, loss)"""
        (loss, _), gradients = jax.value_and_grad(self.loss, has_aux=True)(weights, x, labels, key)
        velocity = {n: MOMENTUM * velocity[n] + gradients[n] + DECAY * weights[n] for n in weights}
        return {n: weights[n] - LR * velocity[n] for n in weights}, velocity, loss

    def prepared(self, what: str, way: str, images: numpy.ndarray, labels: numpy.ndarray) -> Call:
        x, expected = jnp.asarray(channels_last(images)), jnp.asarray(labels)
        velocity = {name: jnp.zeros_like(w) for name, w in self.weights.items()}
        key = jax.random.key(0)

        def step() -> float:
            nonlocal velocity, key
            key, now = jax.random.split(key)
            self.weights, velocity, loss = self.compiled_update(self.weights, velocity, x, expected, now)
            return float(loss)

        def forward() -> numpy.ndarray:
            return numpy.asarray(self.compiled_scores(self.weights, x, None))

        return step if what == "training" else forward

    def gradients(self, images: numpy.ndarray, labels: numpy.ndarray, training: bool) -> dict[str, numpy.ndarray]:
        whole = jax.jit(jax.value_and_grad(self.loss, has_aux=True))
        x, expected = jnp.asarray(channels_last(images)), jnp.asarray(labels)
        (_, scores), gradients = whole(self.weights, x, expected, jax.random.key(0) if training else None)
        return {SCORES: numpy.asarray(scores), **{name: as_ours(numpy.asarray(g)) for name, g in gradients.items()}}


def channels_last(images: numpy.ndarray) -> numpy.ndarray:
    return images.transpose(0, 2, 3, 1) if images.ndim == 4 else images


def as_theirs(weight: numpy.ndarray) -> numpy.ndarray:
    """(F, C, R, S) -> (R, S, C, F)"""
    return weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight


def as_ours(weight: numpy.ndarray) -> numpy.ndarray:
    return weight.transpose(3, 2, 0, 1) if weight.ndim == 4 else weight


# -- layers ---------------------------------------------------------------------------
def step_like(layer: nn.Module, leaf: Leaf) -> Step:
    """What one of our layers does, in JAX."""
    path = leaf.path
    if isinstance(layer, nn.Conv2d):
        return functools.partial(convolution, layer, path)
    if isinstance(layer, nn.Linear):
        return lambda weights, x, key: x @ weights[f"{path}.weight"].T + weights[f"{path}.bias"]
    if isinstance(layer, nn.MaxPool2d):
        return functools.partial(max_pool, layer, leaf)
    if type(layer) is nn.LocalResponseNorm:
        return functools.partial(local_response_norm, layer)
    if isinstance(layer, nn.ReLU):
        return lambda weights, x, key: jnp.maximum(x, 0)
    if isinstance(layer, nn.Flatten):
        return lambda weights, x, key: x.transpose(0, 3, 1, 2).reshape(len(x), -1)
    if isinstance(layer, nn.Dropout):
        return functools.partial(dropout, layer.p)
    if isinstance(layer, nn.AdaptiveAvgPool2d) and leaf.input_shape == leaf.output_shape:
        return lambda weights, x, key: x
    raise TypeError(f"there is no JAX for {path}, {layer!r}")


def convolution(layer: nn.Conv2d, path: str, weights: Weights, x: Any, key: Any) -> Any:
    padding = "SAME" if layer.padding == "same" else [(side, side) for side in pair(layer.padding)]
    y = lax.conv_general_dilated(
        x,
        weights[f"{path}.weight"],
        pair(layer.stride),
        padding,
        dimension_numbers=LAYOUT,
        feature_group_count=layer.groups,
    )
    return y + weights[f"{path}.bias"]


def max_pool(layer: nn.MaxPool2d, leaf: Leaf, weights: Weights, x: Any, key: Any) -> Any:
    """With -infinity around the image, at the end as much of it as windows reach over when sizes are rounded up."""
    size, stride, sides = pair(layer.kernel_size), pair(layer.stride), pair(layer.padding)
    reach = [(n - 1) * s + k for n, s, k in zip(leaf.output_shape[1:], stride, size, strict=True)]
    around = [(p, max(r - H - p, 0)) for p, r, H in zip(sides, reach, leaf.input_shape[1:], strict=True)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *size, 1), (1, *stride, 1), [(0, 0), *around, (0, 0)])


def local_response_norm(layer: nn.LocalResponseNorm, weights: Weights, x: Any, key: Any) -> Any:
    around = [(0, 0)] * 3 + [(layer.size // 2, (layer.size - 1) // 2)]
    energy = lax.reduce_window(x * x, 0.0, lax.add, (1, 1, 1, layer.size), (1, 1, 1, 1), around)
    return x / (layer.k + layer.alpha / layer.size * energy) ** layer.beta


def dropout(p: float, weights: Weights, x: Any, key: Any) -> Any:
    return x if key is None else jnp.where(jax.random.bernoulli(key, 1 - p, x.shape), x / (1 - p), 0.0)


def pair(value: Any) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
