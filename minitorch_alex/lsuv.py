"""Three ways to begin: the paper's initial weights, He's, and LSUV, which looks at images.

All begin a network of convolutional and linear layers anew. Batch norm's gains stay, and so does what is frozen
(`requires_grad` is False).
"""

from __future__ import annotations

import math
from contextlib import suppress
from functools import partial
from typing import Any

from . import init
from .nn import Conv2d, Linear, Module, Parameter
from .tensor import Tensor
from .watch import evaluating, watching

INITIALISATIONS = ("paper", "he", "lsuv")
BIASES_OF_1 = (2, 4, 5, 6, 7)  # conv2, conv4, conv5, fc6 and fc7 of the paper's eight layers, counted from 1
TOLERANCE, ROUNDS = 0.1, 10  # of LSUV, as its authors have them


def initialise_as(network: Module, name: str, images: Any = None) -> None:
    """Give the network new initial weights, by name: "paper", "he", or "lsuv", which needs images (N, C, H, W).

    The images are to be prepared as for training. Weights depend on the seed, and with "lsuv" on the images; they are
    the same on every backend, with "lsuv" up to rounding.
    """
    if name not in INITIALISATIONS:
        raise ValueError(f"initialise_as: there is no {name!r}: choose from {', '.join(INITIALISATIONS)}")
    if name == "paper":
        paper(network)
    elif name == "he":
        he(network)
    elif images is None:
        raise ValueError("initialise_as: lsuv looks at images, and there are none")
    else:
        lsuv(network, images)


def paper(network: Module) -> None:
    """Section 5: weights Gaussian with standard deviation 0.01, biases 1 in conv2, conv4, conv5, fc6 and fc7, else 0.

    Which layers these are goes by position, so that torchvision's features.3 is conv2. The last layer, which gives the
    scores, has biases of 0 in every network.
    """
    layers = _layers(network)
    init.initialise(network, partial(init.normal_, std=0.01))
    for number, layer in enumerate(layers[:-1], start=1):
        if number in BIASES_OF_1 and layer.bias is not None and layer.bias.requires_grad:
            init.constant_(layer.bias, 1.0)


def he(network: Module) -> None:
    """Gaussian with variance 2 / fan in, biases 0; the last layer's standard deviation is 0.01.

    So the scores are near 0 at first, and the loss starts at ln(classes).
    """
    last = _layers(network)[-1]
    init.initialise(network, init.kaiming_normal_)
    if last.weight.requires_grad:
        init.normal_(last.weight, std=0.01)


def lsuv(network: Module, images: Any) -> None:
    """Layer-sequential unit variance (Mishkin and Matas, "All you need is a good init", 2016).

    Orthonormal weights and biases of 0; then, layer by layer in the order of computation, the weights are divided by
    the standard deviation of the layer's output (over images, channels and pixels) until its variance is 1 to within
    0.1, at most ten times. Where biases are not frozen, once is enough. In evaluation mode, so nothing is dropped and
    batch norm goes by its running averages. Of layers that share a weight, the first one counts.
    """
    _layers(network)
    init.initialise(network, init.orthogonal_)
    images = images if isinstance(images, Tensor) else Tensor(images)
    for path, layer in _in_order(network, images).items():
        for _ in range(ROUNDS):
            variance = _variance(network, images, layer)
            if not 0 < variance < math.inf:
                raise ValueError(f"lsuv: the outputs of {path} have variance {variance}, which no factor makes 1")
            if abs(variance - 1) <= TOLERANCE:
                break
            layer.weight.data = layer.weight.data / math.sqrt(variance)


def _layers(network: Module) -> list[Conv2d | Linear]:
    """The layers with weights in the order of definition, each once. No other may have any but batch norm's."""
    found: dict[Conv2d | Linear, None] = {}
    for path, module in network.named_modules():
        if isinstance(module, (Conv2d, Linear)):
            found[module] = None
        elif any(isinstance(value, Parameter) and value.ndim >= 2 for _, value in module.members()):
            raise ValueError(
                f"{type(module).__name__} {path}: only the weights of Conv2d and Linear can be initialised by name"
            )
    if not found:
        raise ValueError("this network has no layer with weights")
    return list(found)


def _in_order(network: Module, images: Tensor) -> dict[str, Conv2d | Linear]:
    """The layers that LSUV may scale by path, in the order in which images reach them, one for each weight."""
    found: dict[str, Conv2d | Linear] = {}
    weights: set[Tensor] = set()

    def note(path: str, layer: Module, output: Tensor) -> None:
        if isinstance(layer, (Conv2d, Linear)) and layer.weight.requires_grad and layer.weight not in weights:
            weights.add(layer.weight)
            found[path] = layer

    with evaluating(network), watching(network, note):
        network(images)
    return found


class _Reached(Exception):  # noqa: N818, since it is no error
    """The forward pass has come as far as it has to."""


def _variance(network: Module, images: Tensor, wanted: Module) -> float:
    """The variance of what the layer `wanted` makes of the images. The layers behind it are spared the work."""
    variance = math.nan

    def measure(path: str, layer: Module, output: Tensor) -> None:
        nonlocal variance
        if layer is wanted:
            variance = float(output.numpy().var(dtype="float64"))
            raise _Reached

    with suppress(_Reached), evaluating(network), watching(network, measure):
        network(images)
    return variance
