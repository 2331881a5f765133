"""Measure trained networks on held-out images: `python -m minitorch_alex.evaluate RUN...`. Several make an ensemble."""

from __future__ import annotations

import argparse
import sys

from . import backends
from .backends.thread_pool import usable_cores
from .command_line import OneLineParser, printable, reported
from .config import ConfigError
from .data import Dataset, load
from .progress import files_bar
from .run import Tell, choose_backend
from .trained import Trained, evaluate, load_trained


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.evaluate",
        description="Errors of trained networks on held-out images; of several also with their probabilities averaged.",
    )
    parser.add_argument(
        "trained",
        nargs="+",
        metavar="RUN",
        help="a run's folder, a checkpoint, torchvision's AlexNet (.pth), or cifar10, which comes along",
    )
    parser.add_argument("--data", metavar="WHERE", help="as for train (default: what the first one was trained on)")
    parser.add_argument("--held-out", type=float, metavar="X", help="as for train, if it is not as in the first run")
    parser.add_argument(
        "--crops", type=int, choices=[1, 10], default=1,
        help="the centre of each photograph, or the average over the paper's ten (default: 1)",
    )  # fmt: skip
    parser.add_argument("--backend", choices=["auto", *backends.NEEDS], default="auto", help="who computes")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="threads that read images")
    given = parser.parse_args(arguments)
    if given.workers < 1:
        parser.error("--workers must be at least 1")
    if given.held_out is not None and not 0 <= given.held_out < 1:
        parser.error("--held-out must be from 0 up and below 1")
    return reported("evaluate", lambda: show(given), given.debug)


def show(given: argparse.Namespace) -> int:
    """Evaluate what the command line names, and print a line for each. Returns 0."""
    note = choose_backend(given.backend)
    trained = [load_trained(path) for path in given.trained]
    with files_bar("looking at the photographs") as tell:
        dataset = images_for(trained, given, tell)
    print(f"backend   {note}")
    print(f"data      {printable(dataset.name)}: {len(dataset.test_images):,} images, {dataset.tested_on}")
    for line in dataset.left_out:
        print(f"          left out {printable(line)}")
    for path, t in zip(given.trained, trained, strict=True):
        if dataset.fingerprint and t.trained_on != dataset.fingerprint and not dataset.has_val:
            print(
                f"note      {printable(path)} was not trained on the other images here: it may have learnt from these"
            )
    try:
        scores = evaluate(trained, dataset.test_images, dataset.test_labels, given.crops, given.workers)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    names = [printable(t.name) for t in trained] + ["all, averaged"]
    width = max(map(len, names))
    print(f"\n{'':{width}}     loss   top-1 error   top-5 error")
    for name, s in zip(names, scores, strict=False):
        print(f"{name:{width}}   {s.loss:.4f}   {100 * (1 - s.top1):9.2f} %   {100 * (1 - s.top5):9.2f} %")
    return 0


def images_for(trained: list[Trained], given: argparse.Namespace, tell: Tell) -> Dataset:
    """The data set to evaluate on, whose classes all of them must know."""
    config = trained[0].config
    data = given.data or config.get("data")
    held_out = config.get("held_out", 0.2) if given.held_out is None else given.held_out
    if data is None:
        raise ConfigError(f"{given.trained[0]} does not say what it was trained on: give --data")
    dataset = load(data, crop=max(t.image_shape[1] for t in trained), held_out=held_out, tell=tell, only_test=True)
    for path, t in zip(given.trained, trained, strict=True):
        nameless = not t.config  # PyTorch's weights: taken to be in the order of the folders' names
        if len(t.classes) != len(dataset.classes) or (not nameless and t.classes != dataset.classes):
            raise ConfigError(
                f"{path}: its {len(t.classes)} classes ({t.classes[0]}, ...) are not the {len(dataset.classes)} of "
                f"{data} ({dataset.classes[0]}, ...)"
            )
    return dataset


if __name__ == "__main__":
    sys.exit(main())
