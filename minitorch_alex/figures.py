"""Figures of trained networks: `python -m minitorch_alex.figures NAME`. A notebook calls the functions below."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy

from . import philox, plots
from .command_line import OneLineParser, printable, reported
from .config import Config, ConfigError, read_file
from .data import DataError, Dataset, Images, cifar10, load
from .data.photographs import UnreadableError
from .predict import add_trained, figure_file
from .progress import files_bar, progress_bar
from .reference import reference_for
from .run import Tell, choose_backend
from .run_folder import RunFolder
from .trained import PIXELS_AT_ONCE, Trained, load_trained
from .watch import activations as all_activations

if TYPE_CHECKING:
    from .picture import Picture

WITHOUT_IMAGES = {
    "filters": "the filters of the first layer: the paper's Figure 3",
    "architecture": "the network as a row of blocks",
}
WITH_IMAGES = {
    "predictions": "held-out images above what they are taken for: the paper's Figure 4, left",
    "neighbours": "held-out images beside the training images most like them to the network: Figure 4, right",
    "activations": "what the channels of a layer make of an image",
}
AMONG = 10_000  # training images that neighbours are looked for in


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.figures",
        description="Draw a figure of a trained network. NAME --help explains the options that a figure has.",
    )
    names = parser.add_subparsers(metavar="NAME", dest="name", required=True)

    def add(name: str, what: str) -> argparse.ArgumentParser:
        options = names.add_parser(name, help=what, description=f"Draw {what}.")
        out = f"{name}.png"
        options.add_argument("--out", type=figure_file, default=out, metavar="FILE", help=f"default: {out}")
        return options

    for name, what in WITHOUT_IMAGES.items():
        add_trained(add(name, what))
    options = add("curves", "loss and error of a run")
    options.add_argument("--trained", required=True, metavar="RUN", help="the run's folder")
    for name, what in WITH_IMAGES.items():
        options = add(name, what)
        add_trained(options)
        options.add_argument("--data", metavar="WHERE", help="as for train (default: what it was trained on)")
        options.add_argument("--held-out", type=float, metavar="X", help="as for train, if it is not as in the run")
        options.add_argument("--seed", type=int, default=0, help="which held-out images are drawn (default: 0)")
        if name == "neighbours":
            options.add_argument("--among", type=int, default=AMONG, metavar="N", help="how many training images to "
                                 f"search, evenly taken from all (default: {AMONG})")  # fmt: skip
            options.add_argument("--layer", help="where to compare (default: what goes into the last linear layer)")
        if name == "activations":
            options.add_argument("--image", metavar="FILE", help="a picture (default: a held-out image)")
            options.add_argument("--layer", help="which layer (default: behind the first nonlinearity)")
    given = parser.parse_args(arguments)
    if getattr(given, "among", 1) < 1:
        parser.error("--among must be at least 1")
    if not 0 <= getattr(given, "seed", 0) < 2**64:
        parser.error("--seed must be from 0 up and below 2^64")
    if not 0 <= (getattr(given, "held_out", None) or 0) < 1:
        parser.error("--held-out must be from 0 up and below 1")
    return reported("figures", lambda: draw(given), given.debug)


def draw(given: argparse.Namespace) -> int:
    """Draw what the command line names. Returns 0."""
    if not given.out.parent.is_dir():
        raise ConfigError(f"--out {given.out}: there is no folder {given.out.parent}")
    choose_backend(getattr(given, "backend", "auto"))
    try:
        figure = drawn(load_trained(given.trained), given)
    except (ValueError, KeyError) as error:
        raise ConfigError(str(error.args[0]).removeprefix("activations: ")) from None
    figure.save(given.out)
    print(printable(f"{given.out}"))
    return 0


def drawn(trained: Trained, given: argparse.Namespace) -> Picture:
    """The figure that the command line names."""
    if given.name == "curves":
        return curves(Path(given.trained), len(trained.classes))
    if given.name in WITHOUT_IMAGES:
        return filters(trained) if given.name == "filters" else architecture(trained)
    if given.name == "activations" and given.image:
        try:
            return activations(trained, trained.read(given.image), given.layer, Path(given.image).name)
        except UnreadableError as error:
            raise DataError(f"{given.image}: {error}") from None
    with files_bar("looking at the photographs") as tell:
        dataset = images_for(trained, given, tell)
    if given.name == "predictions":
        return predictions(trained, dataset, seed=given.seed)
    if given.name == "neighbours":
        return neighbours(trained, dataset, given.among, given.layer, seed=given.seed)
    (chosen,) = some_of(len(dataset.test_images), 1, given.seed)
    image = dataset.test_images[[chosen]][0]
    name = dataset.classes[dataset.test_labels[chosen]]
    return activations(trained, image, given.layer, f"an image of the class {name}")


# -- the figures --------------------------------------------------------------------
def filters(trained: Trained) -> Picture:
    """The filters of the first convolution."""
    weights = next(p.numpy() for p in trained.network.parameters() if p.ndim == 4)
    return plots.filters(weights, _plain(f"First-layer filters of {trained.name}"))


def predictions(trained: Trained, dataset: Dataset, count: int = 8, seed: int = 0) -> Picture:
    """Held-out images with bars; their true labels, where the network knows classes of those names."""
    chosen = some_of(len(dataset.test_images), count, seed)
    images = dataset.test_images[chosen]
    names = [dataset.classes[label] for label in dataset.test_labels[chosen]]
    truth = [trained.classes.index(name) if name in trained.classes else None for name in names]
    chances = numpy.exp(trained.log_probabilities(images))
    known = truth if any(label is not None for label in truth) else None
    return plots.predictions(trained.views(images)[0], chances, trained.classes, known)


def neighbours(
    trained: Trained,
    dataset: Dataset,
    among: int = AMONG,
    layer: str | None = None,
    queries: int = 5,
    count: int = 6,
    seed: int = 0,
) -> Picture:
    """Held-out images, each with the `count` nearest of `among` training images, evenly taken from all."""
    held_out, training = dataset.test_images, dataset.train_images
    chosen = some_of(len(held_out), queries, seed)
    candidates = numpy.linspace(0, len(training) - 1, min(among, len(training))).astype(int)
    images = held_out[chosen]
    found = candidates[nearest(trained, images, training, candidates, count, layer)]
    return plots.neighbours(
        trained.views(images)[0],
        [list(trained.views(training[row])[0]) for row in found],
        [dataset.classes[label] for label in dataset.test_labels[chosen]],
        [[dataset.classes[label] for label in dataset.train_labels[row]] for row in found],
    )


def nearest(
    trained: Trained, queries: numpy.ndarray, images: Images, which: numpy.ndarray, count: int, layer: str | None = None
) -> numpy.ndarray:
    """For each of the queries uint8 (Q, C, H, W), which of the images numbered `which` are nearest: places in it
    (Q, count), the nearest first. Near in Euclidean distance between their features: see Trained.features."""
    wanted = trained.features(queries, layer)
    distances = []
    step = max(1, min(500, PIXELS_AT_ONCE // math.prod(trained.image_shape)))
    parts = [which[i : i + step] for i in range(0, len(which), step)]
    for part in progress_bar(parts, desc="looking for neighbours", leave=False):
        features = trained.features(images[part], layer).reshape(len(part), -1)
        distances.append([((features - query.reshape(-1)) ** 2).sum(axis=1) for query in wanted])
    return numpy.concatenate(distances, axis=1).argsort(axis=1, kind="stable")[:, :count]


def activations(trained: Trained, image: numpy.ndarray, layer: str | None = None, what: str = "an image") -> Picture:
    """Of one image uint8 (C, H, W), called `what`, in the layer with this path, or behind the first nonlinearity."""
    made = all_activations(trained.network, trained.preprocessing(trained.views(image[None])[0]))
    maps = {path: output[0] for path, output in made.items() if output.ndim == 4}
    if layer is None:
        kinds = {path: type(module).__name__ for path, module in trained.network.named_modules()}
        bends = ("ReLU", "Tanh", "Sigmoid")
        layer = next((path for path in maps if kinds[path].endswith(bends)), next(iter(maps)))
    if layer not in maps:
        raise KeyError(f"there is no layer {layer} with maps; there are {', '.join(maps)}")
    return plots.activations(maps[layer], _plain(f"{layer} of {trained.name}: {what}"))


def curves(folder: Path, classes: int) -> Picture:
    """Of the run in this folder, before the reference curves of its recipe, if there are any."""
    run = RunFolder(folder)
    if not run.log_file.is_file():
        raise ConfigError(f"{folder}: there is no {run.log_file.name} here; --trained must name the folder of a run")
    config = Config(**read_file(str(run.config))).check()
    data = "cifar10" if cifar10.is_here(Path(config.data)) else config.data
    return plots.curves(run.log_lines(), classes, reference_for(config, data))


def architecture(trained: Trained) -> Picture:
    """The whole network."""
    return plots.architecture(trained.network, trained.image_shape)


def _plain(title: str) -> str:
    """File names as Matplotlib is to write them: not as formulas."""
    return printable(title).replace("$", r"\$")


# -- the images -----------------------------------------------------------------------
def some_of(total: int, count: int, seed: int) -> numpy.ndarray:
    """The numbers of `count` images drawn from that many."""
    return philox.generator(philox.key("figures", seed)).permutation(total)[:count]


def images_for(trained: Trained, given: argparse.Namespace, tell: Tell) -> Dataset:
    """What it was trained on, or other images; their classes may be other ones."""
    data = given.data or trained.config.get("data")
    held_out = trained.config.get("held_out", 0.2) if given.held_out is None else given.held_out
    if data is None:
        raise ConfigError(f"{given.trained} does not say what it was trained on: give --data")
    return load(data, crop=trained.image_shape[1], held_out=held_out, tell=tell)


if __name__ == "__main__":
    sys.exit(main())
