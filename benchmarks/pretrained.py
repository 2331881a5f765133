"""The checkpoint that comes with the package, from a finished run of the CIFAR-10 recipe.

    python -m benchmarks.pretrained RUN_FOLDER ["NOTE ABOUT THE DATA"]

The result, minitorch_alex/pretrained/cifar10.safetensors, holds the weights and the preprocessing, the settings, and
under "made" how it came about. What only resuming needs, the optimizer above all, is left out.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path

from minitorch_alex.checkpoint import CheckpointError, save_checkpoint
from minitorch_alex.config import Config, ConfigError
from minitorch_alex.data import cifar10
from minitorch_alex.run_folder import RunFolder
from minitorch_alex.trained import SHIPPED, load_trained

from .reference import gather

MOST_BYTES = 1_000_000


def main(arguments: list[str]) -> int:
    """The command. Returns its exit status: 0 done, 2 the run is not what it should be."""
    if len(arguments) not in (1, 2):
        print('usage: python -m benchmarks.pretrained RUN_FOLDER ["NOTE ABOUT THE DATA"]', file=sys.stderr)
        return 2
    folder, note = [*arguments, "not stated"][:2]
    try:
        top1 = ship(Path(folder), note, SHIPPED)
    except (ConfigError, CheckpointError, OSError) as error:
        print(f"pretrained: {error}", file=sys.stderr)
        return 2
    print(f"{SHIPPED}: {SHIPPED.stat().st_size:,} bytes, {100 * top1:.2f} % of the test images right")
    return 0


def ship(folder: Path, note: str, out: Path) -> float:
    """Write the checkpoint of the run in `folder` to `out`. Returns its top-1 accuracy on the test images."""
    run = RunFolder(folder)
    curves = gather("cifar10", [run])  # refuses a run that is not finished, or not of the recipe
    trained = load_trained(folder)
    if trained.classes != cifar10.CLASSES:
        raise ConfigError(f"{folder}: its classes are {', '.join(trained.classes)}, not those of CIFAR-10")
    top1 = [line["test_top1"] for line in run.log_lines() if "test_top1" in line][-1]
    info = {
        "config": asdict(Config(**{**trained.config, "data": "cifar10"}).check()),
        "classes": trained.classes,
        "image_shape": list(trained.image_shape),
        "made": {
            "command": f"python -m minitorch_alex.train --config cifar10 --seed {curves['seeds'][0]}",
            "machine": curves["machine"],
            "test_top1": top1,
            "note": note,
        },
    }
    new = out.with_name(f"{out.stem}-new{out.suffix}")
    try:
        out.parent.mkdir(exist_ok=True)
        save_checkpoint(new, trained.network, None, info, trained.preprocessing)
        if new.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{folder}: the checkpoint has {new.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
        os.replace(new, out)
    finally:
        new.unlink(missing_ok=True)
    return top1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
