"""Finished runs of the recipes, made by the authors: what one's own run can be compared with."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib import resources
from typing import Any

from .config import Config, read_file

NO_MATTER = (
    "data",
    "epochs",
    "seed",
    "backend",
    "workers",
    "tensorboard",
)  # settings in which a run may differ from the recipe


def reference_for(config: Config, data: str) -> dict[str, Any] | None:
    """The curves of our runs with these settings on the data set called `data`, as recipes/NAME.reference.json holds
    them (see plots.curves), or None if there are none."""
    file = resources.files(__package__).joinpath("recipes", f"{data}.reference.json")
    if not file.is_file():
        return None
    recipe = Config(**read_file(data)) if data != "digits" else Config()  # the defaults are the digits' recipe
    same = {name: value for name, value in asdict(config).items() if name not in NO_MATTER}
    wanted = {name: value for name, value in asdict(recipe.check()).items() if name not in NO_MATTER}
    return json.loads(file.read_text(encoding="utf-8")) if same == wanted else None
