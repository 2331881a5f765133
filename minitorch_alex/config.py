"""The settings of a training run: defaults, over which goes a TOML file, over which goes the command line."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from dataclasses import asdict, dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any

from . import backends
from .lsuv import INITIALISATIONS
from .models import MODELS

SCHEDULES = ("constant", "step", "plateau")


class ConfigError(Exception):
    """A setting is unknown or makes no sense. The message says which and why."""


def _setting(default: Any, help: str, **options: Any) -> Any:
    metadata = {"help": help, **options}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Config:
    """Every setting of a run, with the defaults for the digits."""

    data: str = _setting(
        "digits", "digits (embedded), cifar10 (downloaded once), or a folder of images", group="images"
    )
    held_out: float = _setting(
        0.2, "share of the photographs of each class to hold out, where their folder has no val/; 0 for none"
    )
    colour: str = _setting(
        "none",
        "noise in the colours of the training images (AlexNet, 4.1): as far as pixels deviate (the original code), or "
        "as the text has it, by the eigenvalue",
        choices=["none", "deviation", "eigenvalue"],
    )
    workers: int = _setting(1, "threads that prepare images in the background")
    model: str = _setting("alexnet_small", "the network", choices=list(MODELS), group="network")
    init: str = _setting(
        "own",
        "initial weights: the network's own, the paper's, He's, or LSUV's, which look at the first images",
        choices=["own", *INITIALISATIONS],
    )
    without: list[str] = _setting(
        [], "leave out: response normalisation, overlap of pools, dropout, augmentation of the images",
        choices=["lrn", "overlap", "dropout", "augmentation"],
    )  # fmt: skip
    activation: str = _setting("relu", "what to put in the place of ReLU", choices=["relu", "tanh", "sigmoid"])
    init_from: str = _setting(
        "",
        "begin with the weights of this run, checkpoint or PyTorch file; cifar10 is the one that comes along",
        metavar="FILE",
    )
    new_head: bool = _setting(False, "with --init-from: begin the last layer anew, for other classes")
    freeze: list[str] = _setting([], "layers that stay as they are, such as conv1,conv2", metavar="LAYER")
    epochs: int = _setting(30, "how often to go through the training images", group="training")
    batch_size: int = _setting(32, "how many images each step looks at")
    lr: float = _setting(0.02, "learning rate: how far a step goes")
    rates: list[str] = _setting(
        [], "factors on the learning rate of some layers, such as fc8=10; bias=2 for all biases", metavar="LAYER=X"
    )
    momentum: float = _setting(0.9, "how much of the last step's motion goes on")
    weight_decay: float = _setting(0.0005, "how strongly weights are pulled towards 0")
    decay: str = _setting(
        "weights",
        "what is pulled: weights (the original code, Caffe), or biases and gains too (PyTorch's usual)",
        choices=["weights", "everything"],
    )
    sgd: str = _setting(
        "paper",
        "where the learning rate enters: the velocity (paper) or the step (torch)",
        choices=["paper", "torch"],
    )
    schedule: str = _setting(
        "step",
        "when the learning rate drops tenfold: never (constant), at the milestones (step), or whenever the held-out "
        "error stops falling, three times (plateau)",
        choices=list(SCHEDULES),
    )
    milestones: list[int] = _setting([20, 27], "epochs after which 'step' drops the learning rate")
    patience: int = _setting(5, "epochs without progress that 'plateau' waits for")
    seed: int = _setting(0, "start of every random choice: same seed, same run", group="running")
    backend: str = _setting(
        "auto",
        "who computes: numpy (plain), numba (fast on a CPU), cupy (NVIDIA GPU), or auto for the best there is",
        choices=["auto", *backends.NEEDS],
    )
    precision: str = _setting(
        "fp32",
        "on a GPU, in training: fp32, tf32 (matrix products look at 10 bits of fraction), or bf16 (activations and "
        "results of products have 7; weights, sums and the loss stay float32)",
        choices=["fp32", "tf32", "bf16"],
    )
    convolution: str = _setting(
        "auto",
        "on the backend numba: im2col, winograd (minimal filtering, where it applies), or auto for the cheaper of the "
        "two, layer by layer",
        choices=["auto", "im2col", "winograd"],
    )
    detect_anomaly: bool = _setting(
        False, "end at the first NaN or infinity in any value or gradient, and say where it began; takes its time"
    )
    tensorboard: bool = _setting(False, "also write what TensorBoard shows, into the run's folder")

    def check(self) -> Config:
        """Refuse values that cannot be meant. Returns itself."""
        for f in fields(self):
            value, kind = getattr(self, f.name), f.type
            if kind == "list[int]":
                sound = isinstance(value, list) and all(type(v) is int and v >= 1 for v in value)
                _require(sound, f.name, value, "a list of whole numbers from 1 up")
            elif kind == "list[str]":
                sound = isinstance(value, list) and all(isinstance(v, str) and _is_unicode(v) for v in value)
                choices = f.metadata.get("choices")
                sound = sound and (not choices or set(value) <= set(choices)) and len(set(value)) == len(value)
                _require(sound, f.name, value, f"a list of {', '.join(choices)}" if choices else "a list of names")
            elif kind == "bool":
                _require(type(value) is bool, f.name, value, "true or false")
            elif kind == "int":
                least = 0 if f.name in ("seed", "patience") else 1
                _require(type(value) is int and value >= least, f.name, value, f"a whole number from {least} up")
            elif kind == "float":
                sound = type(value) in (int, float) and 0 <= value <= sys.float_info.max
                _require(sound, f.name, value, "a number from 0 up")
                setattr(self, f.name, float(value))
            else:
                _require(isinstance(value, str) and _is_unicode(value), f.name, value, "text in Unicode")
                choices = f.metadata.get("choices")
                _require(not choices or value in choices, f.name, value, "one of " + ", ".join(choices or ()))
        _require(self.seed < 2**64, "seed", self.seed, "below 2^64")
        _require(self.lr > 0, "lr", self.lr, "above 0")
        _require(self.momentum < 1, "momentum", self.momentum, "below 1")
        _require(self.held_out < 1, "held_out", self.held_out, "below 1")
        if self.new_head and not self.init_from:
            raise ConfigError("--new-head goes with --init-from: there are no other layers to keep")
        if self.init != "own" and self.init_from and not self.new_head:
            raise ConfigError(
                "--init and --init-from: choose one of them; with --new-head, --init is for the last layer"
            )
        if self.colour != "none" and "augmentation" in self.without:
            raise ConfigError("--colour is augmentation, which --without leaves out: choose one of them")
        _require(self.data != "", "data", self.data, "digits, cifar10 or a folder")
        self.rate_factors()
        return self

    def rate_factors(self) -> dict[str, float]:
        """--rates by layer."""
        factors: dict[str, float] = {}
        for rate in self.rates:
            layer, _, factor = rate.rpartition("=")
            _require(layer not in factors, "rates", self.rates, "one factor for each layer")
            try:
                factors[layer] = float(factor)
            except ValueError:
                factors[layer] = -1.0
            sound = layer != "" and 0 <= factors[layer] < float("inf")
            _require(sound, "rates", rate, "LAYER=FACTOR, with a factor from 0 up")
        return factors

    def to_toml(self) -> str:
        """As a file that --config can read back."""
        lines = (f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in asdict(self).items())
        return "".join(lines).replace("\x7f", "\\u007f")  # the one character that TOML wants escaped and JSON does not


def _require(condition: bool, name: str, value: Any, what: str) -> None:
    if not condition:
        raise ConfigError(f"{flag(name)} must be {what}, not {value!r}")


def _is_unicode(text: str) -> bool:
    """False for file names that are not UTF-8, which Python holds with placeholders."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def flag(name: str) -> str:
    """What a setting is called on the command line."""
    return "--" + name.replace("_", "-")


class _Names(argparse.Action):
    """Values that are separated by spaces or by commas."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        before = getattr(namespace, self.dest, [])  # the option may be given several times
        setattr(namespace, self.dest, before + [name for value in values for name in value.split(",") if name])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """One option per setting. What is not given stays absent, so that a file's value can show through."""
    place: Any = parser
    for f in fields(Config):
        if "group" in f.metadata:
            place = parser.add_argument_group(f.metadata["group"])
        default, choices, kind = getattr(Config(), f.name), f.metadata.get("choices"), str(f.type)
        shown = " ".join(map(str, default)) if isinstance(default, list) else default
        tell_default = f" (default: {shown})" if default is not False and shown != "" else ""
        options: dict[str, Any] = {"help": f"{f.metadata['help']}{tell_default}".replace("%", "%%")}
        if kind == "bool":
            options["action"] = argparse.BooleanOptionalAction
        elif kind == "list[str]":
            options |= {"action": _Names, "nargs": "+", "metavar": "|".join(choices) if choices else None}
        else:
            options["type"] = {"int": int, "float": float, "str": str, "list[int]": int}[kind]
            options["nargs"] = "*" if kind == "list[int]" else None
            options["choices"] = choices
            if not choices:
                options["metavar"] = {"str": "WHERE", "float": "X"}.get(kind, "N")
        if "metavar" in f.metadata:
            options["metavar"] = f.metadata["metavar"]
        place.add_argument(flag(f.name), default=argparse.SUPPRESS, **options)


def read_file(path: str) -> dict[str, Any]:
    """The settings in a TOML file, or in the recipe of that name that comes with the package."""
    recipe = resources.files(__package__).joinpath("recipes", f"{path}.toml")
    try:
        source = recipe if recipe.is_file() and not Path(path).is_file() else Path(path)
        text = source.read_text(encoding="utf-8")
        settings = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not a TOML file ({error})") from None
    unknown = sorted(set(settings) - {f.name for f in fields(Config)})
    if unknown:
        known = ", ".join(f.name for f in fields(Config))
        raise ConfigError(f"--config {path}: unknown setting {', '.join(unknown)}; there are {known}")
    return settings
