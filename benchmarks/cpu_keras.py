"""Keras on TensorFlow, as a contestant of the CPU benchmark."""

from __future__ import annotations

import os
from typing import Any

import numpy

from minitorch_alex import nn
from minitorch_alex.backends.thread_pool import usable_cores

from . import cpu_contestant
from .cpu_contestant import SCORES, Call
from .cpu_networks import DECAY, LR, MOMENTUM, Leaf

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
import keras
import tensorflow


class Contestant(cpu_contestant.Contestant):
    """A whole step as one graph (tf.function), with XLA and without: the faster counts. Images are (N, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        tensorflow.config.threading.set_intra_op_parallelism_threads(usable_cores())

    def about(self) -> dict[str, Any]:
        threads = tensorflow.config.threading.get_intra_op_parallelism_threads()
        return {**super().about(), "keras": keras.__version__, "tensorflow": tensorflow.__version__, "threads": threads}

    def build(self, ours: nn.Module, layers: list[Leaf]) -> None:
        self.translation = Translation(ours, layers)
        self.model = self.translation.model
        self.graphs: dict[tuple[str, str], Any] = {}  # which compile themselves, once for each size of batch

    def ways(self, what: str) -> list[str]:
        return ["tf.function", "tf.function, XLA"]

    def prepared(self, what: str, way: str, images: numpy.ndarray, labels: numpy.ndarray) -> Call:
        if (what, way) not in self.graphs:
            self.graphs[what, way] = self.training(way) if what == "training" else self.forward(way)
        graph, given = self.graphs[what, way], [tensorflow.constant(a) for a in (channels_last(images), labels)]
        return (lambda: float(graph(*given))) if what == "training" else (lambda: graph(*given).numpy())

    def training(self, way: str) -> Any:
        """A training step as a graph: (images, labels) -> loss."""
        variables = self.model.trainable_variables
        optimizer = keras.optimizers.SGD(LR, MOMENTUM, weight_decay=DECAY)
        optimizer.build(variables)

        @tensorflow.function(jit_compile="XLA" in way)
        def step(x: Any, expected: Any) -> Any:
            _, loss, gradients = self.loss_and_gradients(x, expected, training=True)
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
            return loss

        return step

    def forward(self, way: str) -> Any:
        """A forward pass in evaluation as a graph: (images, labels) -> scores."""
        return tensorflow.function(lambda x, expected: self.model(x, training=False), jit_compile="XLA" in way)

    def loss_and_gradients(self, x: Any, expected: Any, training: bool) -> tuple[Any, Any, Any]:
        """(scores, loss, gradients of the trainable variables)"""
        with tensorflow.GradientTape() as tape:
            scores = self.model(x, training=training)
            losses = tensorflow.nn.sparse_softmax_cross_entropy_with_logits(expected, scores)
            loss = tensorflow.reduce_mean(losses)
        return scores, loss, tape.gradient(loss, self.model.trainable_variables)

    def gradients(self, images: numpy.ndarray, labels: numpy.ndarray, training: bool) -> dict[str, numpy.ndarray]:
        whole = tensorflow.function(lambda x, expected: self.loss_and_gradients(x, expected, training))
        x = tensorflow.constant(channels_last(images))
        scores, _, gradients = whole(x, tensorflow.constant(labels))
        return {SCORES: scores.numpy(), **self.translation.as_ours([g.numpy() for g in gradients])}


def channels_last(images: numpy.ndarray) -> numpy.ndarray:
    """(N, C, H, W) -> (N, H, W, C)"""
    return numpy.ascontiguousarray(images.transpose(0, 2, 3, 1)) if images.ndim == 4 else images


class LocalResponseNorm(keras.layers.Layer):
    """TensorFlow's, which does not divide alpha by the size."""

    def __init__(self, ours: nn.LocalResponseNorm) -> None:
        super().__init__()
        self.settings = {"depth_radius": ours.size // 2, "bias": ours.k, "alpha": ours.alpha / ours.size,
                         "beta": ours.beta}  # fmt: skip

    def call(self, x: Any) -> Any:
        return tensorflow.nn.local_response_normalization(x, **self.settings)


class Translation:
    """A network of ours as one of Keras', with the same weights; and gradients of Keras' as ours."""

    def __init__(self, ours: nn.Module, leaves: list[Leaf]) -> None:
        first = leaves[0].input_shape
        self.model = keras.Sequential([keras.layers.Input((*first[1:], first[0]) if len(first) == 3 else first)])
        self.of_ours: list[tuple[str, tuple[int, ...] | None]] = []  # paths; of what was flattened to be seen, C, H, W
        modules, flattened = dict(ours.named_modules()), None
        for leaf in leaves:
            layer = modules[leaf.path]
            for theirs in self.like(layer, leaf):
                self.model.add(theirs)
            if isinstance(layer, nn.Flatten):
                flattened = leaf.input_shape
            if list(layer.parameters()):
                self.of_ours.append((leaf.path, flattened if isinstance(layer, nn.Linear) else None))
                weights = self.as_theirs(layer.weight.numpy(), self.of_ours[-1][1])
                theirs.set_weights([weights, layer.bias.numpy()])
                flattened = None

    def like(self, layer: nn.Module, leaf: Leaf) -> list[Any]:
        """Keras' layers for one of ours."""
        kind = keras.layers
        if isinstance(layer, nn.Conv2d):
            before, padding = padding_of(layer)
            settings = {"strides": layer.stride, "padding": padding, "groups": layer.groups}
            return [*before, kind.Conv2D(layer.out_channels, layer.kernel_size, **settings)]
        if isinstance(layer, nn.Linear):
            return [kind.Dense(layer.out_features)]
        if isinstance(layer, nn.MaxPool2d) and not layer.padding:
            return [kind.MaxPooling2D(layer.kernel_size, layer.stride, "same" if layer.ceil_mode else "valid")]
        if isinstance(layer, nn.AdaptiveAvgPool2d) and leaf.input_shape == leaf.output_shape:
            return []
        if type(layer) is nn.LocalResponseNorm:
            return [LocalResponseNorm(layer)]
        if isinstance(layer, nn.ReLU):
            return [kind.ReLU()]
        if isinstance(layer, nn.Flatten):
            return [kind.Flatten()]
        if isinstance(layer, nn.Dropout):
            return [kind.Dropout(layer.p)]
        raise TypeError(f"Keras has no layer like {leaf.path}, {layer!r}")

    def as_theirs(self, weight: numpy.ndarray, flattened: tuple[int, ...] | None) -> numpy.ndarray:
        """(F, C, R, S) -> (R, S, C, F); (outputs, inputs) -> (inputs, outputs), where inputs may be (C, H, W)."""
        if weight.ndim == 4:
            return weight.transpose(2, 3, 1, 0)
        if flattened is not None:  # Keras flattens (H, W, C)
            weight = weight.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(weight.shape)
        return weight.T

    def as_ours(self, arrays: list[numpy.ndarray]) -> dict[str, numpy.ndarray]:
        """The other way round: of Keras' trainable variables, in their order; by the names of ours."""
        found: dict[str, numpy.ndarray] = {}
        for (path, flattened), weight, bias in zip(self.of_ours, arrays[::2], arrays[1::2], strict=True):
            if weight.ndim == 4:
                weight = weight.transpose(3, 2, 0, 1)
            else:
                weight = weight.T
                if flattened is not None:
                    C, H, W = flattened
                    weight = weight.reshape(-1, H, W, C).transpose(0, 3, 1, 2).reshape(weight.shape)
            found |= {f"{path}.weight": weight, f"{path}.bias": bias}
        return found


def padding_of(layer: nn.Conv2d) -> tuple[list[Any], str]:
    """Keras knows "same" and "valid"; anything else is zeros around the image first."""
    if layer.padding in (0, (0, 0)):
        return [], "valid"
    around = tuple((size - 1) // 2 for size in layer.kernel_size)
    sides = layer.padding if isinstance(layer.padding, tuple) else (layer.padding, layer.padding)
    if layer.padding == "same" or (layer.stride in (1, (1, 1)) and sides == around):
        return [], "same"
    return [keras.layers.ZeroPadding2D(sides)], "valid"
