"""What features are worth that were learnt on other classes: from seven classes of CIFAR-10 to the remaining three.

    python -m benchmarks.transfer [FOLDER WITH CIFAR-10] ["NOTE ABOUT THE DATA"]

The small AlexNet learns the first seven classes. Then a linear layer learns the other three from 20 images of each, on
what goes into the network's last layer, and beside it on the same features of a network that has learnt nothing (He's
initial weights). Five choices of the 20; the error is of all 3,000 test images of the three classes.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

import numpy

import minitorch_alex.functional as F
from minitorch_alex import backends, init, manual_seed, models, optim, philox, tensor
from minitorch_alex.data import Dataset, Loader, Preprocessing, load
from minitorch_alex.nn import Linear
from minitorch_alex.progress import progress_bar
from minitorch_alex.trained import Trained, evaluate

from .machine import machine

RESULT = Path(__file__).parent / "results" / "transfer.json"
KNOWN, EPOCHS, BATCH, RATE = 7, 4, 128, 0.02
IMAGES, SEEDS, STEPS, HEAD_RATE = 20, 5, 300, 0.01


def main() -> None:
    data, note = [*sys.argv[1:], "cifar10", None][:2]
    backends.use("numba")
    dataset = load(data)
    features = pretrain(dataset)
    known = dataset.test_labels < KNOWN
    scores = evaluate([features], dataset.test_images[known], dataset.test_labels[known])[0]
    print(f"seven classes: {100 * scores.top1:.2f} % right", flush=True)
    manual_seed(1)
    nothing = Trained("random", new_network(dataset), features.classes, features.image_shape, features.preprocessing)
    results: dict[str, list[float]] = {"learnt": [], "random": []}
    for seed in range(SEEDS):
        for name, network in (("learnt", features), ("random", nothing)):
            results[name].append(head_accuracy(network, dataset, seed))
        print(f"seed {seed}: {100 * results['learnt'][-1]:.1f} % on learnt features, "
              f"{100 * results['random'][-1]:.1f} % on random ones", flush=True)  # fmt: skip
    summary = {
        "command": "python -m benchmarks.transfer",
        "data": note or "not stated",
        "machine": machine(),
        "learnt": dataset.classes[:KNOWN],
        "transferred_to": dataset.classes[KNOWN:],
        "epochs": EPOCHS,
        "images_of_each_class": IMAGES,
        "top1_on_seven_classes": round(scores.top1, 4),
        "top1_on_three_classes": {name: [round(a, 4) for a in found] for name, found in results.items()},
        "median": {name: round(statistics.median(found), 4) for name, found in results.items()},
    }
    RESULT.write_text(json.dumps(summary, indent=1) + "\n")
    print(f"median: {summary['median']}; by chance 0.3333")


def new_network(dataset: Dataset):
    return models.build("alexnet_small", KNOWN, dataset.image_shape)


def pretrain(dataset: Dataset) -> Trained:
    """The small AlexNet on the images of the first seven classes."""
    chosen = numpy.flatnonzero(dataset.train_labels < KNOWN)
    images, labels = dataset.train_images[chosen], dataset.train_labels[chosen]
    preprocessing = Preprocessing.of(images)
    manual_seed(0)
    network = new_network(dataset)
    loader = Loader(images, labels, BATCH, preprocessing, dataset.augmentation, seed=0)
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if not name.endswith("bias")], "weight_decay": 5e-4},
        {"params": [p for name, p in named if name.endswith("bias")]},
    ]
    optimizer = optim.SGD(groups, lr=RATE, momentum=0.9, form="paper")
    schedule = optim.MultiStepLR(optimizer, [EPOCHS - 2, EPOCHS - 1])
    step = 0
    for epoch in range(EPOCHS):
        total = 0.0
        for x, y in progress_bar(loader.epoch(epoch), total=len(loader), leave=False):
            philox.set_step(step)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(tensor(x)), y)
            loss.backward()
            optimizer.step()
            step, total = step + 1, total + loss.item()
        schedule.step()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}", flush=True)
    return Trained("seven", network, dataset.classes[:KNOWN], dataset.image_shape, preprocessing)


def head_accuracy(network: Trained, dataset: Dataset, seed: int) -> float:
    """Of a linear layer on the features, learnt from 20 images of each of the three classes, on their test images."""
    random = numpy.random.default_rng(seed)
    chosen = numpy.concatenate(
        [random.permutation(numpy.flatnonzero(dataset.train_labels == label))[:IMAGES] for label in range(KNOWN, 10)]
    )
    tested = numpy.flatnonzero(dataset.test_labels >= KNOWN)
    x = network.features(dataset.train_images[chosen])
    mean, spread = x.mean(axis=0), x.std()  # features of other scales, but the same rate for both
    y = dataset.train_labels[chosen] - KNOWN
    manual_seed(seed)
    head = Linear(x.shape[1], 10 - KNOWN)
    init.constant_(head.weight, 0.0)
    init.constant_(head.bias, 0.0)
    optimizer = optim.SGD(head.parameters(), lr=HEAD_RATE, momentum=0.9, weight_decay=5e-4)
    for _ in range(STEPS):
        optimizer.zero_grad()
        F.cross_entropy(head(tensor((x - mean) / spread)), y).backward()
        optimizer.step()
    right = 0
    for part in numpy.array_split(tested, 6):
        scores = head(tensor((network.features(dataset.test_images[part]) - mean) / spread)).numpy()
        right += int((scores.argmax(axis=1) == dataset.test_labels[part] - KNOWN).sum())
    return right / len(tested)


if __name__ == "__main__":
    main()
