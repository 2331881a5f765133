"""What the contestants of the CPU benchmark train: networks, weights, images and labels, the same for each of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy

from minitorch_alex import init, manual_seed, models
from minitorch_alex.nn import Linear, Module, ReLU, Sequential
from minitorch_alex.summary import summary

LR, MOMENTUM, DECAY = 1e-6, 0.9, 5e-4  # so low that steps on the same noise do not end in infinities
SPREAD_OF_PIXELS = 74.0  # of 0..255 less the mean image, which is what the paper's network is made for


class Size(NamedTuple):
    """The shape of one image, and how many classes there are."""

    image_shape: tuple[int, ...]
    classes: int


PHOTOGRAPHS = ("alexnet", "alexnet_ungrouped", "keras_plain", "torchvision_alexnet")
NETWORKS = {
    **{name: Size(models.MODELS[name].image_shape or (), 1000) for name in PHOTOGRAPHS},
    "alexnet_small": Size((3, 32, 32), 10),
    "mlp": Size((64,), 10),
}


def build(name: str) -> Module:
    """The network with He's weights, the same in every process.

    With the paper's, the photographs look so much alike behind a few layers that rounding decides which pixel wins a
    pool, and gradients in float32 would say little.
    """
    manual_seed(0)
    size = NETWORKS[name]
    if name == "mlp":
        network: Module = Sequential({"fc1": Linear(64, 32), "relu1": ReLU(), "fc2": Linear(32, size.classes)})
    else:
        C, H, W = size.image_shape
        network = models.build(name, size.classes, (C, H, W))
    init.initialise(network, init.kaiming_normal_)
    return network


def batch(name: str, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Noise float32 (N, C, H, W) and labels int64 (N,)."""
    random, size = numpy.random.default_rng(0), NETWORKS[name]
    images = numpy.resize(random.standard_normal(1_000_003, "float32"), (count, *size.image_shape))
    centred = name in models.MODELS and models.MODELS[name].centred
    return images * numpy.float32(SPREAD_OF_PIXELS if centred else 1), random.integers(0, size.classes, count)


class Leaf(NamedTuple):
    """A layer that computes something itself. Everything is counted for one image."""

    path: str
    kind: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    multiply_accumulates: int


def leaves(name: str, network: Module) -> list[Leaf]:
    """The layers in the order in which an image passes them."""
    shape, found = NETWORKS[name].image_shape, []
    for layer in summary(network, shape).layers:
        found.append(Leaf(layer.path, layer.kind, shape, tuple(layer.output_shape), layer.multiply_accumulates))
        shape = found[-1].output_shape
    return found


def layer_data(leaf: Leaf, count: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What goes into a layer, and the gradient of what comes out: noise float32."""
    random = numpy.random.default_rng(0).standard_normal(1_000_003, "float32")
    return numpy.resize(random, (count, *leaf.input_shape)), numpy.resize(random[::-1], (count, *leaf.output_shape))
