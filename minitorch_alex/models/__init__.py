"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..nn import Module
from .alexnet import alexnet, alexnet_2012, alexnet_ungrouped, bvlc_alexnet, caffenet
from .keras import keras_plain, keras_same_bn, keras_valid_bn
from .lenet import lenet5
from .small import alexnet_small
from .torchvision import torchvision_alexnet

ImageShape = tuple[int, int, int]


class Entry(NamedTuple):
    """How a network is made, the images (C, H, W) that it takes (None if it is made to measure), and which pixels.

    Where `centred`, they are to be 0..255 less the mean image, as the paper has them: LRN's constants are made for
    that scale, and do almost nothing to standardised pixels.
    """

    make: Callable[..., Module]
    image_shape: ImageShape | None
    centred: bool = False


MODELS: dict[str, Entry] = {
    "alexnet_small": Entry(alexnet_small, None),
    "alexnet": Entry(alexnet, (3, 227, 227), centred=True),
    "alexnet_2012": Entry(alexnet_2012, (3, 224, 224), centred=True),
    "alexnet_ungrouped": Entry(alexnet_ungrouped, (3, 227, 227), centred=True),
    "bvlc_alexnet": Entry(bvlc_alexnet, (3, 227, 227), centred=True),
    "caffenet": Entry(caffenet, (3, 227, 227), centred=True),
    "torchvision_alexnet": Entry(torchvision_alexnet, (3, 224, 224)),
    "keras_valid_bn": Entry(keras_valid_bn, (3, 224, 224)),
    "keras_same_bn": Entry(keras_same_bn, (3, 227, 227)),
    "keras_plain": Entry(keras_plain, (3, 227, 227)),
    "lenet5": Entry(lenet5, (1, 32, 32)),
}


def build(name: str, classes: int, image_shape: ImageShape | None = None) -> Module:
    """The network called `name` for that many classes. Images of (C, H, W) must be what it takes."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose from {', '.join(MODELS)}")
    make, takes, _ = MODELS[name]
    if takes is None:
        if image_shape is None:
            raise ValueError(f"{name} is made to measure: say the image_shape (C, H, W)")
        return make(classes, image_shape)
    if image_shape not in (None, takes):
        raise ValueError(f"{name} takes images of {takes}, not {image_shape}")
    return make(classes)


__all__ = ["MODELS", "build", *MODELS]
