"""Batches for training, prepared by background threads while the network computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy

from .. import philox
from .augmentation import Augmentation, CentreCrop, RandomCrop
from .colour import ColourNoise
from .dataset import Images, Preprocessing

Batch = tuple[numpy.ndarray, numpy.ndarray]
T = TypeVar("T")
R = TypeVar("R")


class Loader:
    """Shuffled, augmented, normalised batches (images float32 (N, C, H, W), labels int64 (N,)).

    Which batch comes at which place of which epoch is a function of the seed alone, so a run can be taken up in the
    middle of an epoch by knowing two numbers, and the number of threads changes nothing.
    """

    def __init__(
        self,
        images: Images,
        labels: numpy.ndarray,
        batch_size: int,
        preprocessing: Preprocessing,
        augmentation: Augmentation | RandomCrop | CentreCrop,
        seed: int,
        workers: int = 1,
        prefetch: int = 2,
        colour: ColourNoise | None = None,
    ) -> None:
        if batch_size < 1 or workers < 1 or prefetch < 1:
            got = (batch_size, workers, prefetch)
            raise ValueError(f"Loader: batch_size, workers and prefetch are at least 1, got {got}")
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.preprocessing, self.augmentation, self.seed = preprocessing, augmentation, seed
        self.workers, self.prefetch = workers, prefetch
        self.colour = colour.divided(preprocessing.std) if colour else None

    def __len__(self) -> int:
        """Batches in an epoch; the last may be smaller."""
        return -(-len(self.images) // self.batch_size)

    def order(self, epoch: int) -> numpy.ndarray:
        """The image numbers in the order in which this epoch visits them."""
        return philox.generator(philox.key("shuffle", self.seed), (epoch, 0)).permutation(len(self.images))

    def batch(self, epoch: int, indices: numpy.ndarray) -> Batch:
        """Prepare the images with these numbers."""
        images = self.preprocessing(self.augmentation(self.images[indices], self.seed, epoch, indices))
        if self.colour:
            images = self.colour(images, self.seed, epoch, indices)
        return images, self.labels[indices]

    def parts(self, epoch: int, start: int = 0) -> list[numpy.ndarray]:
        """The image numbers of each batch of one epoch, from batch `start` on."""
        order = self.order(epoch)
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)][start:]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on, a few of them prepared in advance."""
        parts = self.parts(epoch, start)
        return prefetched(lambda part: self.batch(epoch, part), parts, self.workers, self.prefetch)


def prefetched(function: Callable[[T], R], arguments: Iterable[T], workers: int = 1, prefetch: int = 2) -> Iterator[R]:
    """As map(function, arguments), with the next `prefetch` results computed meanwhile by background threads."""
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="loader") as pool:
        try:
            for argument in arguments:
                waiting.append(pool.submit(function, argument))
                if len(waiting) > prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
