"""The curves of several finished runs of a recipe, kept in the package, where curves.png draws them behind a learner's.

    python -m benchmarks.reference RECIPE RUN_FOLDER...

RECIPE is the name of a file in minitorch_alex/recipes, or digits for the default settings. The runs have the recipe's
settings and differ only in their seeds. The result goes to minitorch_alex/recipes/RECIPE.reference.json, with the
machine that this command is run on.
"""

from __future__ import annotations

import json
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from minitorch_alex.config import Config, ConfigError, read_file
from minitorch_alex.run_folder import RunFolder

from .machine import machine

RECIPES = Path(__file__).parents[1] / "minitorch_alex" / "recipes"
CURVES = ("train_loss", "test_loss", "test_top1", "test_top5")
LOCAL = ("seed", "data", "backend", "workers")  # where and with which seed a recipe is run: no part of it


def main(arguments: list[str]) -> int:
    """The command. Returns its exit status: 0 done, 2 the runs are not what they should be."""
    if len(arguments) < 2:
        print("usage: python -m benchmarks.reference RECIPE RUN_FOLDER...", file=sys.stderr)
        return 2
    recipe, *paths = arguments
    try:
        result = gather(recipe, [RunFolder(Path(path)) for path in paths])
    except (ConfigError, OSError) as error:
        print(f"reference: {error}", file=sys.stderr)
        return 2
    file = RECIPES / f"{recipe}.reference.json"
    lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in result.items())
    file.write_text("{" + ",\n ".join(lines) + "}\n")
    top1 = result["test_top1"]
    low, median, high = (100 * top1[kind][-1] for kind in ("low", "median", "high"))
    print(f"{file}: {len(paths)} runs, last held-out top-1 {low:.2f} to {high:.2f} %, median {median:.2f} %")
    return 0


def gather(recipe: str, runs: list[RunFolder]) -> dict[str, Any]:
    """Seeds, machine, epochs, and the smallest, middle and largest of each curve at each epoch."""
    wanted = settings_of(recipe)
    settings, logs = [], []
    for run in runs:
        config = asdict(Config(**read_file(str(run.config))).check())
        for name, value in config.items():
            if name not in LOCAL and value != wanted[name]:
                raise ConfigError(f"{run.path}: {name} is {value} there and {wanted[name]} in the recipe {recipe}")
            if name != "seed" and settings and value != settings[0][name]:
                raise ConfigError(f"{run.path}: {name} is {value} there and {settings[0][name]} in {runs[0].path}")
        if config["seed"] in [other["seed"] for other in settings]:
            raise ConfigError(f"{run.path}: there is a run with the seed {config['seed']} already")
        log = [line for line in run.log_lines() if "test_top1" in line]
        if [line["epoch"] for line in log] != list(range(1, config["epochs"] + 1)):
            raise ConfigError(f"{run.path}: not finished, it has had {len(log)} of {config['epochs']} epochs")
        settings.append(config)
        logs.append(log)
    result: dict[str, Any] = {
        "recipe": recipe,
        "seeds": [config["seed"] for config in settings],
        "machine": machine(),
        "epochs": [line["epoch"] for line in logs[0]],
    }
    for name in CURVES:
        at_epochs = [[line[name] for line in lines] for lines in zip(*logs, strict=True)]
        kinds = {"low": min, "median": statistics.median, "high": max}
        result[name] = {kind: [rounded(of(values)) for values in at_epochs] for kind, of in kinds.items()}
    return result


def settings_of(recipe: str) -> dict[str, Any]:
    """Every setting of a recipe, those that it leaves at their defaults too."""
    return asdict(Config(**({} if recipe == "digits" else read_file(recipe))).check())


def rounded(value: float) -> float:
    """To four significant digits."""
    return float(f"{value:.4g}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
