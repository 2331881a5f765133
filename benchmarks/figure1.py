"""The paper's Figure 1: how much sooner a network with ReLU reaches 25 % training error on CIFAR-10 than with tanh.

    python -m benchmarks.figure1 [FOLDER WITH CIFAR-10] ["NOTE ABOUT THE DATA"]

As in the paper, both networks have four layers, nothing regularises them (no decay, dropout, augmentation, response
normalisation), and each trains at a learning rate of its own that makes it as fast as possible. More the paper does not
say, so this is not its network but one like it: the layers of the small CIFAR-10 examples in the authors' code, on
standardised pixels, with weights that start as PyTorch's do. Within a seed both networks start from the same weights
and see the same batches.

Finished trainings are kept in runs/figure1.jsonl until the end, so the command goes on where it was interrupted; delete
that file to start afresh. The results go to benchmarks/results/figure1.json and figure1.png.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from minitorch_alex import backends, manual_seed, nn, plots
from minitorch_alex import functional as F
from minitorch_alex.data import DataError, Dataset, Loader, Preprocessing, load
from minitorch_alex.data.augmentation import Augmentation
from minitorch_alex.optim import SGD
from minitorch_alex.tensor import Tensor

from .machine import machine

ACTIVATIONS: dict[str, type[nn.Module]] = {"ReLU": nn.ReLU, "tanh": nn.Tanh}
SEEDS = range(2)
TARGET, MOST_EPOCHS = 25.0, 30.0  # % training error, and when to give up
BATCH, MOMENTUM = 128, 0.9
PARTS = 5  # of an epoch, each of which makes a point of the curve
FIRST_RATE, TRIAL_TARGET, TRIAL_SEED = 0.02, 40.0, 100  # a rate is judged by how soon it leads to 40 %
RESULTS = Path(__file__).parent / "results"
KEPT = Path("runs", "figure1.jsonl")

Curve = list[float]  # training error (%) in each part of an epoch, in order


def build(activation: type[nn.Module]) -> nn.Module:
    """(N, 3, 32, 32) -> scores (N, 10). After the first pool an activation does what it would before, at a quarter."""
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 32, 5, padding=2),
            "pool1": nn.MaxPool2d(3, 2, ceil_mode=True),
            "activation1": activation(),
            "conv2": nn.Conv2d(32, 32, 5, padding=2),
            "activation2": activation(),
            "pool2": nn.AvgPool2d(3, 2, ceil_mode=True),
            "conv3": nn.Conv2d(32, 64, 5, padding=2),
            "activation3": activation(),
            "pool3": nn.AvgPool2d(3, 2, ceil_mode=True),
            "flatten": nn.Flatten(),
            "fc4": nn.Linear(64 * 4 * 4, 10),
        }
    )


def train(dataset: Dataset, name: str, rate: float, seed: int, target: float, most: float) -> Curve:
    """Train until the error falls to `target` (%), or `most` epochs are over, or the loss is no number.

    The error is counted on each batch just before the network learns from it. That costs nothing, uses every image, and
    flatters no network with images that it has only just learnt.
    """
    manual_seed(seed)
    network = build(ACTIVATIONS[name])
    optimizer = SGD(network.parameters(), rate, MOMENTUM)
    images = dataset.train_images
    loader = Loader(images, dataset.train_labels, BATCH, Preprocessing.of(images), Augmentation(), seed)
    curve: Curve = []
    wrong = counted = 0
    for epoch in range(math.ceil(most)):
        seen = epoch * len(images)
        for batch, labels in loader.epoch(epoch):
            optimizer.zero_grad()
            scores = network(Tensor(batch))
            loss = F.cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            wrong += int((scores.numpy().argmax(axis=1) != labels).sum())
            counted, seen = counted + len(labels), seen + len(labels)
            if seen * PARTS >= (len(curve) + 1) * len(images):
                curve.append(100 * wrong / counted)
                wrong = counted = 0
                at = len(curve) / PARTS
                print(f"{name}, rate {rate:g}, seed {seed}: {curve[-1]:.2f} % up to epoch {at:g}", flush=True)
                if curve[-1] <= target or at >= most or not math.isfinite(loss.item()):
                    return curve
    return curve


def middles(curve: Curve) -> list[float]:
    """The epochs that belong to its points: the middles of its parts."""
    return [(i + 0.5) / PARTS for i in range(len(curve))]


def crossing(curve: Curve, target: float) -> float:
    """The epochs after which the error first is at `target`, in a straight line between two points; or infinity."""
    at = middles(curve)
    for i, error in enumerate(curve):
        if error <= target:
            back = (target - error) / (curve[i - 1] - error) if i else 0.0
            return at[i] - back / PARTS
    return math.inf


def try_rates(time_at: Callable[[float, float], float]) -> dict[float, float]:
    """Time by rate, for rates a factor of 2 apart, going on until the best has a worse one on either side.

    `time_at(rate, limit)` may give infinity for a time above the limit.
    """
    times = {FIRST_RATE: time_at(FIRST_RATE, MOST_EPOCHS)}
    while True:
        best = min(times, key=times.__getitem__)
        beside = [rate for rate in (2 * best, best / 2) if rate not in times]
        if not beside:
            return dict(sorted(times.items()))
        times[beside[0]] = time_at(beside[0], min(times[best], MOST_EPOCHS))


class Kept:
    """Curves of finished trainings in a file, so that an interrupted command does not repeat them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        lines = file.read_text().splitlines() if file.exists() else []
        self.trainings: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def curve(self, work: Callable[..., Curve], **settings: Any) -> Curve:
        """What work(**settings) gives, or gave."""
        for training in self.trainings:
            if training["settings"] == settings:
                return training["curve"]
        self.trainings.append({"settings": settings, "curve": work(**settings)})
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            file.write(json.dumps(self.trainings[-1]) + "\n")
        return self.trainings[-1]["curve"]


def measure(dataset: Dataset, kept: Kept, name: str) -> dict[str, Any]:
    """Times to 40 % by learning rate, the best rate, and with that each seed's time to 25 % and its curve."""

    def run(rate: float, seed: int, target: float, most: float) -> Curve:
        settings = {"name": name, "rate": rate, "seed": seed, "target": target, "most": most}
        return kept.curve(lambda **settings: train(dataset, **settings), **settings)

    def trial(rate: float, most: float) -> float:
        return crossing(run(rate, TRIAL_SEED, TRIAL_TARGET, most), TRIAL_TARGET)

    times = try_rates(trial)
    rate = min(times, key=times.__getitem__)
    curves = [run(rate, seed, TARGET, MOST_EPOCHS) for seed in SEEDS]
    return {
        f"epochs_to_{TRIAL_TARGET:g}_by_rate": times,
        "rate": rate,
        "epochs": [crossing(curve, TARGET) for curve in curves],
        "curves": curves,
    }


def compare(relu: list[float], tanh: list[float]) -> dict[str, Any]:
    """How many times sooner ReLU arrives, seed by seed. Where tanh does not, it counts as arriving at the end."""
    ratios = [min(slow, MOST_EPOCHS) / fast for fast, slow in zip(relu, tanh, strict=True)]
    return {"is_lower_limit": math.inf in tanh, "median": statistics.median(ratios), "by_seed": ratios}


def title(found: dict[str, dict[str, Any]], ratio: dict[str, Any]) -> str:
    """The result in two lines."""
    medians = {name: statistics.median(network["epochs"]) for name, network in found.items()}
    arrivals = [f"{name} after {time:.1f} epochs" for name, time in medians.items() if time < math.inf]
    arrivals += [f"{name} not within {MOST_EPOCHS:g} epochs" for name, time in medians.items() if time == math.inf]
    spread = f"{min(ratio['by_seed']):.1f} to {max(ratio['by_seed']):.1f}, {len(ratio['by_seed'])} seeds"
    at_least = "at least " if ratio["is_lower_limit"] else ""
    sooner = f"ReLU is {at_least}{ratio['median']:.1f} times as fast ({spread})"
    return f"{TARGET:g} % training error on CIFAR-10: {', '.join(arrivals)}\n{sooner}"


def main(arguments: list[str]) -> int:
    """The command. Returns its exit status: 0 done, 2 the data are not there."""
    data, note = [*arguments, None, None][:2]
    try:
        dataset = load(data or "cifar10")
    except DataError as error:
        print(f"figure1: {error}", file=sys.stderr)
        return 2
    kept = Kept(KEPT)
    found = {name: measure(dataset, kept, name) for name in ACTIVATIONS}
    ratio = compare(*(network["epochs"] for network in found.values()))
    picture = {name: [(middles(curve), curve) for curve in network["curves"]] for name, network in found.items()}
    plots.time_to_error(picture, TARGET, title(found, ratio)).save(RESULTS / "figure1.png")
    settings = {
        "pixels": "standardised", "first weights": "PyTorch's default", "batch": BATCH, "momentum": MOMENTUM,
        "seeds": list(SEEDS), "most_epochs": MOST_EPOCHS, "points_per_epoch": PARTS,
    }  # fmt: skip
    result = {
        "command": "python -m benchmarks.figure1",
        "data": note or "not stated",
        "machine": {**machine(), "backend": backends.current().description},
        "settings": settings,
        "ratio": ratio,
        **found,
    }
    lines = (f"{json.dumps(name)}: {json.dumps(rounded(value))}" for name, value in result.items())
    (RESULTS / "figure1.json").write_text("{" + ",\n ".join(lines) + "}\n")
    KEPT.unlink()
    print(title(found, ratio))
    return 0


def rounded(value: Any) -> Any:
    """For people to read: four decimals, and None for infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {f"{key:g}" if isinstance(key, float) else key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
