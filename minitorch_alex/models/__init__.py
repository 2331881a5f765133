"""Networks by name."""

from __future__ import annotations

from collections.abc import Callable

from ..nn import Module
from .small import alexnet_small

MODELS: dict[str, Callable[[int, tuple[int, int, int]], Module]] = {"alexnet_small": alexnet_small}


def build(name: str, classes: int, image_shape: tuple[int, int, int]) -> Module:
    """The network called `name` for that many classes and images of (C, H, W)."""
    if name not in MODELS:
        raise ValueError(f"there is no model {name!r}: choose from {', '.join(MODELS)}")
    return MODELS[name](classes, image_shape)


__all__ = ["MODELS", "alexnet_small", "build"]
