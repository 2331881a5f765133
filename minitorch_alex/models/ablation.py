"""A network without one of AlexNet's ingredients, to see what it did there: the paper's own experiments."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from ..nn import Dropout, LocalResponseNorm, MaxPool2d, Module, ReLU, Sequential, Sigmoid, Tanh
from ..tensor import Tensor
from .parts import SpatialResponseNorm


def ablate(network: Module, without: Collection[str] = (), activation: str = "relu") -> Module:
    """Take ingredients out of a network, in place, and put another activation for its ReLUs. Returns the network.

    - "lrn": no response normalisation. In the paper it is worth 1.4 points of top-1 error and 1.2 of top-5.
    - "overlap": pools of 2 x 2 pixels, side by side, for those of 3 x 3 two apart. Overlap is worth 0.4 and 0.3.
    - "dropout": none. "Without dropout, our network exhibits substantial overfitting."
    - activation "tanh" or "sigmoid": section 3.1 compares ReLU with tanh.

    All sizes stay, and so do the names of layers and parameters, the masks of whatever dropout remains, and the weights
    (the biases of 1 that some networks have are meant for ReLUs). Asked for what changes nothing in this network, it
    raises ValueError and leaves the network alone. Layers are looked for in Sequentials, where MODELS have them.
    """
    for name in without:
        if name not in REMOVALS:
            raise ValueError(f"ablate: nothing is called {name!r}: choose from {', '.join(REMOVALS)}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"ablate: there is no activation {activation!r}: choose from {', '.join(ACTIVATIONS)}")
    changes = {f"without {name}": REMOVALS[name] for name in without}
    if activation != "relu":
        changes[f"with {activation}"] = Change("ReLU", _bends, lambda layer: ACTIVATIONS[activation]())
    blocks = dict.fromkeys(block for _, block in network.named_modules() if isinstance(block, Sequential))
    places = [(block, name, layer) for block in blocks for name, layer in block.named_layers().items()]
    plan = []
    for wish, change in changes.items():
        found = [(block, name, change.instead(layer)) for block, name, layer in places if change.concerns(layer)]
        if not found:
            raise ValueError(f"ablate: {wish} this network is what it was, for it has no {change.what}")
        plan += found
    for block, name, instead in plan:
        if instead is None:
            delattr(block, name)
        else:
            setattr(block, name, instead.train(block.training))
    return network


class Change(NamedTuple):
    """What it is about, in words; whether a layer is such a thing; what comes instead of it, None for nothing."""

    what: str
    concerns: Callable[[Module], bool]
    instead: Callable[[Module], Module | None]


class SeparateMaxPool2d(MaxPool2d):
    """The 3 x 3 windows of a pool with stride 2, each without its last row and column: as many, and none overlap.

    Where H is even, whole windows of 3 leave a row over, and 2 x 2 ones would be one more.
    """

    def __init__(self, ties: str) -> None:
        super().__init__(2, ties=ties)

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[-2:]
        return super().forward(x)[..., : (H - 1) // 2, : (W - 1) // 2]


def _side_by_side(pool: Any) -> Module:
    """A pool of 2 x 2 windows with outputs of the same size as the overlapping `pool`.

    Rounding up, there are H // 2 windows of 3 x 3, as many as whole ones of 2 x 2. (The original experiment,
    configuration 147, rounded up for both, and took padding from conv2 and conv5 to come back to 6 x 6 at the end.)
    """
    return MaxPool2d(2, ties=pool.ties) if pool.ceil_mode else SeparateMaxPool2d(pool.ties)


def _overlaps(layer: Module) -> bool:
    if not isinstance(layer, MaxPool2d):
        return False
    return (layer.kernel_size, layer.stride, layer.padding, layer.dilation) == (3, 2, 0, 1)


def _normalises(layer: Module) -> bool:
    return isinstance(layer, (LocalResponseNorm, SpatialResponseNorm))


def _drops(layer: Module) -> bool:
    return isinstance(layer, Dropout)


def _bends(layer: Module) -> bool:
    return isinstance(layer, ReLU)


def _nothing(layer: Module) -> None:
    return None


REMOVALS = {
    "lrn": Change("response normalisation", _normalises, _nothing),
    "overlap": Change("overlapping max-pooling", _overlaps, _side_by_side),
    "dropout": Change("dropout", _drops, _nothing),
}
ACTIVATIONS: dict[str, type[Module]] = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}
