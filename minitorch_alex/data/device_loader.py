"""Batches for a GPU: what travels there is bytes, and the GPU cuts, mirrors and normalises them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy

from ..backends import Backend
from .loader import Loader, prefetched

Arrays = tuple[numpy.ndarray, ...]


class DeviceLoader(Loader):
    """As Loader, and the same batches to the last bit, as arrays of the backend.

    Where all images fit into half of the memory that the device has free, they are sent there once and for all. Else
    the bytes of a batch are sent while the network works on the batch before it.
    """

    def __init__(self, backend: Backend, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.backend = backend
        self.on_device: Any = None
        if isinstance(self.images, numpy.ndarray) and self.images.nbytes <= backend.free_bytes() / 2:
            self.on_device = backend.sent_in_pieces(self.images)
        self.mean, self.std = (backend.asarray(a) for a in (self.preprocessing.mean, self.preprocessing.std))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Any, numpy.ndarray]]:
        """The batches of one epoch from number `start` on: images on the device, labels on the host."""
        parts = self.parts(epoch, start)
        to_send = prefetched(lambda part: self.to_send(epoch, part), parts, self.workers, self.prefetch)
        for part, arrays in zip(parts, self.backend.sent_ahead(to_send), strict=True):
            yield self.view(*arrays), self.labels[part]

    def to_send(self, epoch: int, indices: numpy.ndarray) -> Arrays:
        """The images with these numbers (numbers alone, if they are there already), and how each is to be seen."""
        N, (C, H, W) = len(indices), self.images.shape[1:]
        crops = self.augmentation.crops(H, W, self.seed, epoch, indices)
        shift = self.colour.draw(self.seed, epoch, indices) if self.colour else numpy.zeros((N, C))
        images = indices.astype("int32") if self.on_device is not None else self.images[indices]
        tops, lefts = crops.tops.astype("int32"), crops.lefts.astype("int32")
        return images, tops, lefts, crops.mirrored.astype("uint8"), shift.astype("float32")

    def view(self, images: Any, tops: Any, lefts: Any, mirrored: Any, shift: Any) -> Any:
        """What the network sees: float32 (N, C, P, Q)."""
        if self.on_device is None:
            stored, which = images, self.backend.arange(len(images), dtype="int32")
        else:
            stored, which = self.on_device, images
        size = self.augmentation.size_of_view(*self.images.shape[2:])
        divisor = self.colour.divisor if self.colour else 1.0
        return self.backend.augment(
            stored, which, tops, lefts, mirrored, size, self.augmentation.fill, self.mean, self.std, shift, divisor
        )
