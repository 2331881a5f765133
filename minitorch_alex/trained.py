"""A trained network together with what it takes to use it: from a run, a checkpoint, or PyTorch's weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy

from . import functional as F
from . import models
from .checkpoint import CHECKPOINT, CheckpointError, is_checkpoint, preprocessing_in, read_checkpoint, restore
from .config import Config, ConfigError
from .data import Images, Preprocessing, prefetched
from .data.augmentation import centre_crop, ten_crops
from .data.photographs import SIDE, read_photograph
from .models import ImageShape
from .models.ablation import ablate
from .nn import Linear, Module
from .tensor import Tensor
from .torch_weights import read_torch_weights
from .watch import activations, evaluating, watching

SHIPPED = Path(__file__).parent / "pretrained" / "cifar10.safetensors"  # comes with the package
KNOWN = {f.name for f in fields(Config)}
PIXELS_AT_ONCE = 10_000_000  # in evaluation: bounds the memory
IMAGENET = Preprocessing(  # what torchvision's networks expect
    numpy.array([123.675, 116.28, 103.53]), numpy.array([58.395, 57.12, 57.375])
)


@dataclass
class Trained:
    """A network, the classes it knows, the images (C, H, W) it takes, and how pixels are prepared for it."""

    name: str
    network: Module
    classes: list[str]
    image_shape: ImageShape
    preprocessing: Preprocessing
    config: dict[str, Any] = field(default_factory=dict)  # the settings it was trained with, where they are known
    trained_on: str = ""  # Dataset.fingerprint

    def read(self, path: Path | str) -> numpy.ndarray:
        """The central square of a picture in a file, in the size to take `views` of: uint8 (C, side, side).

        Networks for whole small images get it in their size, those for crops of photographs with 256 pixels, those for
        grey images with its channels averaged. Raises UnreadableError.
        """
        C, size, _ = self.image_shape
        pixels = read_photograph(path, size if self.takes_whole_images else SIDE)
        return pixels if C == 3 else pixels.mean(axis=0, keepdims=True).round().astype("uint8")

    @property
    def takes_whole_images(self) -> bool:
        """Whether it sees small images, and not crops of photographs."""
        return self.image_shape[1] <= SIDE // 2

    def views(self, images: numpy.ndarray, crops: int = 1) -> list[numpy.ndarray]:
        """The parts of images uint8 (N, C, H, W) that the network is to look at: the centre, or the paper's ten.

        Photographs for a network that takes small images are scaled to their size instead.
        """
        size = self.image_shape[1]
        if self.takes_whole_images and images.shape[2:] == (SIDE, SIDE):
            images = _scaled(images, size)
        C, H, W = images.shape[1:]
        if self.image_shape[0] != C or size > min(H, W):
            raise ValueError(f"{self.name} was trained on images of {self.image_shape}, these are {images.shape[1:]}")
        if crops == 1:
            return [centre_crop(images, size)]
        if size == min(H, W):
            raise ValueError(f"images of {H} x {W} leave no room for ten crops of {size} x {size}")
        return ten_crops(images, size)

    def log_probabilities(self, images: numpy.ndarray, crops: int = 1) -> numpy.ndarray:
        """Logarithms of the class probabilities, averaged over the crops: uint8 (N, C, H, W) -> (N, K)."""
        with evaluating(self.network) as network:
            scores = [network(Tensor(self.preprocessing(view))) for view in self.views(images, crops)]
            return _log_mean([F.log_softmax(s, 1).numpy() for s in scores])

    def features(self, images: numpy.ndarray, layer: str | None = None) -> numpy.ndarray:
        """What goes into the last linear layer, from the centres of images uint8 (N, C, H, W): (N, D).

        Or what comes out of another layer: (N, ...). An unknown path raises KeyError.
        """
        x = Tensor(self.preprocessing(self.views(images)[0]))
        if layer is not None:
            return activations(self.network, x, layer)[layer]
        before = found = x

        def follow(path: str, module: Module, output: Tensor) -> None:
            nonlocal before, found
            if isinstance(module, Linear):
                found = before  # in all of our networks each layer takes what the one before it has made
            before = output

        with evaluating(self.network) as network, watching(network, follow):
            network(x)
        return found.numpy()


def _scaled(images: numpy.ndarray, side: int) -> numpy.ndarray:
    """RGB images uint8 (N, 3, H, W) in another size."""
    from PIL import Image

    pictures = [Image.fromarray(pixels.transpose(1, 2, 0)) for pixels in images]
    small = [picture.resize((side, side), Image.Resampling.BILINEAR) for picture in pictures]
    return numpy.stack([numpy.asarray(picture) for picture in small]).transpose(0, 3, 1, 2)


def _log_mean(logarithms: Sequence[numpy.ndarray]) -> numpy.ndarray:
    """The logarithm of the mean of what these are the logarithms of, without leaving the range of the numbers."""
    if len(logarithms) == 1:
        return logarithms[0]
    stacked = numpy.stack(logarithms).astype("float64")
    return numpy.logaddexp.reduce(stacked, axis=0) - math.log(len(logarithms))


@dataclass
class Scores:
    """How well images were told: the mean loss in nats, and the fractions right at first and among the first five."""

    loss: float
    top1: float
    top5: float


def evaluate(
    trained: Sequence[Trained], images: Images, labels: numpy.ndarray, crops: int = 1, workers: int = 1
) -> list[Scores]:
    """Of each network, and last, if there are several, of all together: their probabilities averaged, as the paper's
    ensembles. Images uint8 (N, C, H, W), labels (N,)."""
    step = max(1, min(500, PIXELS_AT_ONCE // max(math.prod(t.image_shape) for t in trained)))
    parts = [slice(i, i + step) for i in range(0, len(images), step)]
    kinds = len(trained) + (len(trained) > 1)
    loss, top1, top5 = numpy.zeros(kinds), numpy.zeros(kinds), numpy.zeros(kinds)
    for part, pixels in zip(parts, prefetched(lambda part: images[part], parts, workers), strict=True):
        truth = labels[part]
        each = [t.log_probabilities(pixels, crops) for t in trained]
        for i, logarithms in enumerate([*each, _log_mean(each)][:kinds]):
            loss[i] -= logarithms[numpy.arange(len(truth)), truth].sum(dtype="float64")
            ranking = (-logarithms).argsort(axis=1, kind="stable")
            top1[i] += (ranking[:, 0] == truth).sum()
            top5[i] += (ranking[:, :5] == truth[:, None]).sum()
    N = len(images)
    return [Scores(*map(float, found)) for found in zip(loss / N, top1 / N, top5 / N, strict=True)]


def load_trained(path: Path | str) -> Trained:
    """The network in a run folder, a checkpoint, or a file of torchvision's weights (.pth, .safetensors).

    Where there is nothing called cifar10, that is the checkpoint that comes with the package. Raises CheckpointError.
    """
    path = Path(path)
    if str(path) == SHIPPED.stem and not path.exists():
        path = SHIPPED
    if path.is_dir():
        path = path / CHECKPOINT
    if not path.exists() or is_checkpoint(path):
        return _from_checkpoint(path)
    state = read_torch_weights(path)
    name, shape = "torchvision_alexnet", (3, 224, 224)
    classes = numpy.size(state.get("classifier.6.bias", ()))
    network = models.build(name, classes)
    try:
        network.load_state_dict(state)
    except ValueError as error:
        raise CheckpointError(f"{path}: not the weights of torchvision's AlexNet: {error}") from None
    return Trained(path.stem, network, [f"class {i}" for i in range(classes)], shape, IMAGENET)


def _from_checkpoint(path: Path) -> Trained:
    arrays, info = read_checkpoint(path)
    try:
        config, classes = info["config"], list(map(str, info["classes"]))
        C, H, W = map(int, info["image_shape"])
        without, activation = config.get("without", []), config.get("activation", "relu")
        network = build(config["model"], len(classes), (C, H, W), without, activation)
        Config(**{name: value for name, value in config.items() if name in KNOWN}).check()
    except (KeyError, TypeError, ValueError, AttributeError, MemoryError, ConfigError) as error:
        raise CheckpointError(f"{path}: a checkpoint that does not say what network it holds ({error})") from None
    restore(path, arrays, network)
    name = path.resolve().parent.name if path.name == CHECKPOINT else path.stem
    return Trained(
        name,
        network,
        classes,
        (C, H, W),
        preprocessing_in(path, arrays, (C, H, W)),
        config,
        str(info.get("training_files", "")),
    )


def build(model: str, classes: int, shape: ImageShape, without: Sequence[str], activation: str) -> Module:
    """A network by name, without some of its ingredients. Raises ValueError."""
    switches = [name for name in without if name != "augmentation"]  # that one concerns the images
    network = models.build(model, classes, shape)
    return ablate(network, switches, activation) if switches or activation != "relu" else network
