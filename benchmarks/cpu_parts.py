"""The parts of the CPU benchmark: what is measured for each, how often, and with --quick how much less."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import cpu_plot
from .cpu_alone import measure_compilation, measure_memory, measure_pipeline, measure_scaling
from .cpu_networks import NETWORKS
from .cpu_process import OURS, ContestantError, Field
from .cpu_rows import Tell, Validation, time_layer, time_network
from .cpu_statistics import Row
from .cpu_tables import text_of

PARTS = ("training", "forward", "layers", "memory", "scaling", "compilation", "pipeline")
BESIDE_PYTORCH = (OURS, "pytorch")  # for layers and memory
PHOTOGRAPHS_IN = "imagenet-1k-sample"  # of the folder with extra data
SKIPPED = "skipped: "


class Plan(NamedTuple):
    """What is measured, and how long."""

    parts: tuple[str, ...]
    networks: tuple[str, ...]
    batches: tuple[int, ...]
    layers_of: tuple[str, ...]
    large: int  # the batch size for layers, memory and pipeline
    scaling: tuple[str, tuple[int, ...]]  # a network and batch sizes
    compiled: int  # the batch size whose first steps are watched
    repeats: int
    turn: float  # seconds, or one call
    most: int | None  # ways that a peer tries


THOROUGH = Plan(
    PARTS, tuple(NETWORKS), (1, 32, 128), ("alexnet", "keras_plain", "torchvision_alexnet"), 128,
    ("alexnet", (16, 32, 64, 96, 128)), 32, 5, 1.0, None,
)  # fmt: skip
QUICK = Plan(
    ("training", "forward", "memory", "scaling", "compilation"), ("alexnet", "alexnet_small", "mlp"), (32,),
    ("alexnet",), 32, ("alexnet_small", (32, 64, 128, 256)), 8, 3, 0.2, 2,
)  # fmt: skip
MLP_BATCHES = (32,)
STEPS_OF_PIPELINE = 12


def validated(row: Row) -> tuple[str, str, int]:
    """Who, and on what."""
    return row["contestant"], row["network"], row["batch"]


class Measuring:
    """The parts, one after the other; what is measured is kept after every row."""

    def __init__(
        self, plan: Plan, field: Field, validation: Validation, result: dict[str, Any], out: Path, tell: Tell
    ) -> None:
        self.plan, self.field, self.validation, self.result, self.out = plan, field, validation, result, out
        self.tell = tell
        self.validated_before = result.get("validation", [])

    def measure(self, part: str, data: Path | None = None) -> None:
        """Measure a part and keep it. `data` is the folder of photographs for the pipeline."""
        self.tell(part)
        parts: dict[str, Callable[[], Any]] = {
            "training": lambda: self.speeds("training"),
            "forward": lambda: self.speeds("forward"),
            "layers": self.layers,
            "memory": self.memory,
            "scaling": lambda: measure_scaling(self.field, *self.plan.scaling, self.plan.repeats, self.plan.turn),
            "compilation": lambda: measure_compilation(self.field, "alexnet", self.plan.compiled),
            "pipeline": lambda: self.pipeline(data),
        }
        try:
            self.result[part] = parts[part]()
        except ContestantError as error:
            self.result[part] = {"problem": str(error)}
        self.keep()

    def keep(self) -> None:
        """cpu.json, cpu.txt and cpu.png."""
        latest = {validated(row): row for row in self.validated_before + self.validation.rows}
        self.result["validation"] = list(latest.values())
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "cpu.json").write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")
        (self.out / "cpu.txt").write_text(text_of(self.result), encoding="utf-8")
        if "training" in self.result or "forward" in self.result:
            cpu_plot.ratios(self.result).save(self.out / "cpu.png")

    def speeds(self, part: str) -> list[Row]:
        """Training steps or forward passes of every network at every batch size, beside those measured before."""
        plan = self.plan
        asked = [(name, batch) for name in plan.networks for batch in (MLP_BATCHES if name == "mlp" else plan.batches)]
        rows = [row for row in self.result.get(part, []) if (row["network"], row["batch"]) not in asked]
        self.result[part] = rows  # which is kept as it grows
        for network, batch in asked:
            row = {"part": part, "network": network, "batch": batch}
            rows.append(time_network(self.field, self.validation, row, plan.repeats, plan.turn, plan.most))
            rows.sort(key=lambda row: (list(NETWORKS).index(row["network"]), row["batch"]))
            self.tell(f"{part}: {network}, batch {batch}")
            self.keep()
        return rows

    def layers(self) -> list[Row]:
        """Each layer of some networks."""
        rows: list[Row] = []
        names = [name for name in BESIDE_PYTORCH if name in self.field.names]
        for network in self.plan.layers_of:
            for place, layer in enumerate(self.field.ask(OURS, "layers", network=network)):
                if layer["kind"] == "Flatten":  # takes no time
                    continue
                row = {"network": network, "batch": self.plan.large, "layer": layer["path"], "kind": layer["kind"]}
                row["multiply_accumulates"] = layer["multiply_accumulates"] * (3 if place else 2)  # of all passes
                rounds = self.plan.repeats, self.plan.turn / 3
                rows.append(time_layer(self.field, self.validation, row, place, names, *rounds))
            self.tell(f"layers: {network}")
        return rows

    def memory(self) -> Row:
        """Beside PyTorch."""
        names = [name for name in BESIDE_PYTORCH if name in self.field.names]
        return measure_memory(self.field, names, "alexnet", self.plan.large)

    def pipeline(self, data: Path | None) -> list[Row]:
        """On the photographs in this folder, or those of the extra data; skipped, and said so, without."""
        extra = os.environ.get("MINITORCH_ALEX_DATA")
        folder = data or (Path(extra) / PHOTOGRAPHS_IN if extra else None)
        if folder is None or not folder.is_dir():
            reason = f"no folder {folder}" if folder else "--data names no photographs, nor does MINITORCH_ALEX_DATA"
            return [{"images": "photographs", "problem": SKIPPED + reason}]
        return measure_pipeline(self.field, folder, self.plan.large, STEPS_OF_PIPELINE)
