"""`alexnet` without dropout learns 64 photographs by heart, or not: what the learning rate decides.

    python -m benchmarks.overfit FOLDER [RATE ...]

FOLDER holds CLASS/IMAGE.jpg; 64 photographs, as far apart in it as possible, are a class each. All of them are every
step's batch: pixels 0..255 minus the mean image of the 64, the central 227 x 227, no augmentation. Everything but the
rate is the paper's: initialisation, momentum 0.9, weight decay 0.0005. The result goes to
benchmarks/results/overfit.json.

What was seen with seed 0, counting steps from 1:

    rate     leaves ln 64   then
    0.01          step 19   58 of 64 right at step 26, loss 9.7 at step 33; stopped at 34, 1 right
    0.005         step 19   62 right at step 34, loss 18 at step 41; stopped at 44, 1 right
    0.002         step 33   64 right at step 59, 48 at step 71, 100 % from step 129 on
    0.001         step 52   100 % from step 93 on

No rate is stuck at ln 64, but each stands there first. Weights of 0.01 shrink what differs between photographs, layer
by layer (standard deviation over them: conv1 10.6, conv2 1.5, conv3 0.35, conv4 0.09, conv5 0.04, fc8 0.011), while
biases of 1 pass on what they have in common (scores of 0.9): the network sees one and the same image. From there the
spread grows by a constant factor a step, which is larger at larger rates, and once it has taken off it overshoots,
presumably on its momentum: at 0.01 and 0.005 all is lost. A warm-up, which was not tried, would soften the start,
where nothing goes wrong; a lower rate is what helps, and of these rates 0.001 is the largest without a fall.
"""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy

import minitorch_alex.functional as F
from minitorch_alex import backends, manual_seed, models, nn, optim, tensor
from minitorch_alex.data.photographs import find_classes, find_photographs, read_photograph

from .machine import machine

IMAGES, SIDE = 64, 227
STAYS = 10  # steps at 100 % after the first
RATES = (0.01, 0.005, 0.002, 0.001)
STEPS = 200
RESULT = Path(__file__).parent / "results" / "overfit.json"


def photographs(folder: Path) -> numpy.ndarray:
    """float32 (64, 3, 227, 227) minus their mean image."""
    names = list(find_photographs(folder, find_classes(folder)))
    names = names[:: len(names) // IMAGES][:IMAGES]
    edge = (256 - SIDE) // 2
    pixels = numpy.stack([read_photograph(folder / name)[:, edge : edge + SIDE, edge : edge + SIDE] for name in names])
    return pixels - pixels.mean(axis=0, dtype="float32")


def overfit(images: numpy.ndarray, rate: float, steps: int = STEPS, seed: int = 0) -> list[dict[str, float]]:
    """Train until 100 % have lasted for STAYS steps, or for `steps`. What each step saw, before it moved the weights.

    `spread` is the standard deviation of a score over the images, averaged over the 64 scores: how far the network
    tells the photographs apart at all.
    """
    manual_seed(seed)
    network = models.build("alexnet", IMAGES)
    for _, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    optimizer = optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, form="paper")
    seen: list[dict[str, float]] = []
    started, right_in_a_row = time.perf_counter(), 0
    while len(seen) < steps and right_in_a_row <= STAYS:
        optimizer.zero_grad()
        scores = network(tensor(images))
        loss = F.cross_entropy(scores, numpy.arange(IMAGES))
        loss.backward()
        optimizer.step()
        values = scores.numpy()
        right = int((values.argmax(axis=1) == numpy.arange(IMAGES)).sum())
        right_in_a_row = right_in_a_row + 1 if right == IMAGES else 0
        spread, seconds = float(values.std(axis=0).mean()), time.perf_counter() - started
        seen.append({"loss": loss.item(), "right": right, "spread": spread, "seconds": seconds})
        if not math.isfinite(loss.item()):
            break
    return seen


def learned(seen: list[dict[str, float]]) -> bool:
    """Whether all photographs were right, and stayed so for STAYS steps."""
    return len(seen) > STAYS and all(step["right"] == IMAGES for step in seen[-STAYS - 1 :])


def main() -> None:
    images = photographs(Path(sys.argv[1]))
    rates = [float(rate) for rate in sys.argv[2:]] or RATES
    result: dict[str, Any] = {"images": IMAGES, "backend": backends.current().name, "machine": machine(), "rates": {}}
    for rate in rates:
        seen = overfit(images, rate)
        outcome = f"100 % from step {len(seen) - STAYS} on" if learned(seen) else f"not learned in {len(seen)} steps"
        print(f"rate {rate}: {outcome}, {seen[-1]['seconds'] / 60:.1f} minutes", flush=True)
        curves = {key: [float(f"{step[key]:.4g}") for step in seen] for key in seen[0]}
        result["rates"][str(rate)] = {"outcome": outcome, **curves}
    RESULT.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
