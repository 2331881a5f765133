"""A training run, ready to go: from settings, or from a folder where one stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from . import backends, models, philox
from .checkpoint import CheckpointError, preprocessing_in, read_checkpoint, restore, save_checkpoint
from .config import Config, ConfigError, flag, read_file
from .data import ColourNoise, Dataset, DeviceLoader, Loader, Preprocessing, load
from .lsuv import initialise_as
from .nn import Module
from .optim import SGD, MultiStepLR, ReduceLROnPlateau
from .run_folder import RunFolder
from .tensorboard import Board, check_installed
from .trained import Trained, build, load_trained

CHANGEABLE_ON_RESUME = (
    "data", "epochs", "backend", "precision", "convolution", "detect_anomaly", "workers", "tensorboard",
)  # fmt: skip
OF_THE_NETWORK = ("model", "without", "activation")
TORCHVISION = "torchvision_alexnet"  # what PyTorch's files hold
PHOTOGRAPH = 224  # pixels of a photograph that a network made to measure sees
Tell = Callable[[int, int, str | None], Any]


@dataclass
class Progress:
    """Where a run is: enough, with the arrays, to go on as if it had never stopped."""

    step: int = 0  # steps taken
    epoch: int = 0  # epochs completed
    batch: int = 0  # batches of the current epoch taken
    loss_sum: float = 0.0  # of the current epoch, over the images seen in it
    seen: int = 0


@dataclass
class Run:
    """Everything that a run works with."""

    config: Config
    folder: RunFolder
    dataset: Dataset
    preprocessing: Preprocessing
    network: Module
    optimizer: SGD
    schedule: MultiStepLR | ReduceLROnPlateau
    progress: Progress
    backend_note: str
    board: Board | None = None
    warned: bool = False  # that nothing is being learnt

    def log(self, **line: Any) -> None:
        """A line for log.jsonl, and for TensorBoard."""
        self.folder.log(**line)
        if self.board:
            self.board.log(line)

    def loader(self) -> Loader:
        """The training images, varied as the settings say."""
        config, dataset = self.config, self.dataset
        still = "augmentation" in config.without
        backend = backends.current()
        kind = partial(DeviceLoader, backend) if backend.has_own_memory else Loader
        return kind(
            dataset.train_images, dataset.train_labels, config.batch_size, self.preprocessing,
            dataset.still if still else dataset.augmentation, config.seed, config.workers,
            colour=None if still else colour_noise(config, dataset),
        )  # fmt: skip

    def trained(self) -> Trained:
        """The network as it is now, to be evaluated."""
        d = self.dataset
        return Trained(self.config.model, self.network, d.classes, d.image_shape, self.preprocessing)

    def save(self) -> None:
        """Write the checkpoint. The log goes to the disk first, so that it is never behind."""
        self.folder.sync_log()
        if self.board:
            self.board.flush()
        info = {
            "config": asdict(self.config),
            "progress": asdict(self.progress),
            "schedule": self.schedule.state_dict(),
            **description_of_images(self.dataset),
        }
        save_checkpoint(self.folder.checkpoint, self.network, self.optimizer, info, self.preprocessing)


def prepare_new(given: dict[str, Any], out: str | None, file: str | None, tell: Tell | None = None) -> Run:
    """A run from the start, in a folder of its own. `tell` hears of every photograph that is looked at."""
    config = settings(given, file)
    folder = RunFolder(Path(out)) if out else RunFolder.unused(config.data)
    if folder.holds_something():
        raise ConfigError(f"--out {out}: there is something there already; choose another folder, or --resume {out}")
    run = assemble(config, folder, tell)
    while True:
        try:
            run.folder.create(run.config, exist_ok=out is not None)
            run.save()  # so that there is something to resume from the start
            return run
        except FileExistsError:
            if out is not None:
                raise
            run.folder = RunFolder.unused(run.config.data)  # another run has taken that number meanwhile


def settings(given: dict[str, Any], file: str | None) -> Config:
    """Options over a file over the defaults. With --init-from, the network is the source's unless they say another."""
    chosen = {**(read_file(file) if file else {}), **given}
    if chosen.get("init_from") and isinstance(chosen["init_from"], str):
        source = load_trained(chosen["init_from"]).config or {"model": TORCHVISION}
        chosen = {**{name: source[name] for name in OF_THE_NETWORK if name in source}, **chosen}
    return Config(**chosen).check()


def prepare_resumed(path: str, given: dict[str, Any], other: str | None, tell: Tell | None = None) -> Run:
    """The run in the folder `path` as its checkpoint left it."""
    folder = RunFolder(Path(path))
    if other:
        raise ConfigError(
            f"--resume goes on in its own folder with its own settings, so {other} cannot be given as well"
        )
    arrays, info = read_checkpoint(folder.checkpoint)
    check_description(folder.checkpoint, info)
    before = {name: value for name, value in info["config"].items() if name in {f.name for f in fields(Config)}}
    for name, value in given.items():
        if name not in CHANGEABLE_ON_RESUME and value != before.get(name):
            raise ConfigError(
                f"{flag(name)} {value}: the run in {path} has {before.get(name)}, and --resume can only change "
                + ", ".join(flag(n) for n in CHANGEABLE_ON_RESUME)
            )
    preprocessing = preprocessing_in(folder.checkpoint, arrays, info["image_shape"])
    run = assemble(Config(**{**before, **given}).check(), folder, tell, preprocessing)
    images = description_of_images(run.dataset)
    if images != {name: info.get(name) for name in images}:
        raise CheckpointError(
            f"{folder.checkpoint}: made with other data than {run.config.data} holds now ({info['training_images']:,} "
            f"training images then, {images['training_images']:,} now): put it back as it was, or give its new place "
            "with --data"
        )
    restore(folder.checkpoint, arrays, run.network, run.optimizer)
    try:
        run.progress = Progress(**info["progress"])
        run.schedule.load_state_dict(info["schedule"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder.checkpoint}: its account of the run is damaged ({error})") from None
    folder.rewind_log(run.progress.step, run.progress.epoch)
    folder.write_config(run.config)
    return run


def check_description(path: Path, info: Any) -> None:
    """Refuse a checkpoint that does not say what one of ours says."""
    kinds: dict[str, type] = {
        "config": dict, "progress": dict, "schedule": dict, "classes": list, "image_shape": list,
        "training_images": int,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(info, dict) or not isinstance(info.get(name), kind):
            raise CheckpointError(f"{path}: a checkpoint that does not say its {name} cannot be resumed")


def description_of_images(dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint remembers of the images, to notice others."""
    return {
        "classes": dataset.classes,
        "image_shape": list(dataset.image_shape),
        "training_images": len(dataset.train_images),
        "training_files": dataset.fingerprint,
    }


def assemble(
    config: Config,
    folder: RunFolder,
    tell: Tell | None = None,
    preprocessing: Preprocessing | None = None,
    dataset: Dataset | None = None,
) -> Run:
    """Backend, data, network, optimizer and schedule as the settings say, unless they are given.

    A run that is taken up again brings its preprocessing, and will be given its weights.
    """
    if config.tensorboard:
        try:
            check_installed()
        except ImportError as error:
            raise ConfigError(str(error)) from None
    backend_note = choose_backend(config.backend)
    try:
        backends.current().set_precision(config.precision)
    except ValueError as error:
        raise ConfigError(f"--precision {config.precision}: {error}") from None
    try:
        backends.current().set_convolution(config.convolution)
    except ValueError as error:
        raise ConfigError(f"--convolution {config.convolution}: {error}") from None
    config.backend = backends.current().name  # "auto" is settled: a resumed run goes on with the same one
    takes = models.MODELS[config.model].image_shape
    if dataset is None:
        dataset = load(config.data, crop=takes[1] if takes else PHOTOGRAPH, held_out=config.held_out, tell=tell)
    colour_noise(config, dataset)  # refuses what will not go before anything is computed
    resumed = preprocessing is not None
    source = load_trained(config.init_from) if config.init_from and not resumed else None
    philox.manual_seed(config.seed)
    try:
        network = build(config.model, len(dataset.classes), dataset.image_shape, config.without, config.activation)
    except ValueError as error:
        raise ConfigError(f"--model {config.model}, --data {config.data}: {error}") from None
    if preprocessing is None:
        preprocessing = source.preprocessing if source else prepare_pixels(config.model, dataset)
    groups = parameter_groups(network, config)
    optimizer = SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay, form=config.sgd)
    schedule: MultiStepLR | ReduceLROnPlateau
    if config.schedule == "plateau":
        schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=config.patience, max_reductions=3)
    else:
        schedule = MultiStepLR(optimizer, config.milestones if config.schedule == "step" else [], gamma=0.1)
    run = Run(
        config, folder, dataset, preprocessing, network, optimizer, schedule,
        Progress(), backend_note,
    )  # fmt: skip
    if source:
        take_weights(run, source)
    if config.init != "own" and not resumed:
        begin_anew(run)
    return run


def prepare_pixels(model: str, dataset: Dataset) -> Preprocessing:
    """How the pixels are prepared that this model is made for."""
    if models.MODELS[model].centred:
        return Preprocessing.centred(dataset.statistics, dataset.image_shape[1])
    return Preprocessing.standard(dataset.statistics)


def colour_noise(config: Config, dataset: Dataset) -> ColourNoise | None:
    """The noise that the settings ask for."""
    if config.colour == "none":
        return None
    try:
        return ColourNoise.of(dataset.statistics.covariance, config.colour)
    except ValueError as error:
        raise ConfigError(f"--colour {config.colour}: {error}") from None


def first_images(run: Run) -> numpy.ndarray:
    """The first batch of the first epoch."""
    loader = run.loader()
    return loader.batch(0, loader.order(0)[: run.config.batch_size])[0]


def parameter_groups(network: Module, config: Config) -> list[dict[str, Any]]:
    """What the optimizer is to train, grouped by learning rate and decay. What is frozen is marked so, and left out.

    "Weights" are parameters of two or more dimensions; the rest are biases, and the gains of batch norm.
    """
    factors = config.rate_factors()
    layers = [path for path, module in network.named_modules() if path and list(module.parameters())]
    for setting, name in [("--freeze", n) for n in config.freeze] + [("--rates", n) for n in factors if n != "bias"]:
        if name not in layers:
            raise ConfigError(f"{setting} {name}: {config.model} has no such layer; there are {', '.join(layers)}")
    groups: dict[tuple[float, float], list[Any]] = {(1.0, config.weight_decay): []}  # first, so that it gives the rate
    for path, parameter in network.named_parameters():
        if any(path.startswith(f"{layer}.") for layer in config.freeze):
            parameter.requires_grad = False
            continue
        factor = factors.get("bias", 1.0) if path.endswith(".bias") else 1.0
        for layer in factors:
            factor *= factors[layer] if path.startswith(f"{layer}.") else 1.0
        decays = config.decay == "everything" or parameter.ndim >= 2
        groups.setdefault((factor, config.weight_decay if decays else 0.0), []).append(parameter)
    if not any(groups.values()):
        raise ConfigError("--freeze: every layer is frozen, so there is nothing to train")
    return [
        {"params": parameters, "lr": config.lr * factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]


def take_weights(run: Run, source: Trained) -> None:
    """--init-from: take a trained network's weights, but for the last layer's if that is to begin anew."""
    config, what = run.config, f"--init-from {run.config.init_from}"
    model = source.config.get("model", TORCHVISION)
    if model != config.model:
        raise ConfigError(f"{what}: it is a {model}, not a {config.model}")
    if source.image_shape != run.dataset.image_shape:
        raise ConfigError(f"{what}: it takes images of {source.image_shape}, not {run.dataset.image_shape}")
    state, own = source.network.state_dict(), run.network.state_dict()
    if config.new_head:
        head = last_layer(run.network)
        state = {name: own[name] if name.startswith(head) else a for name, a in state.items()}
    elif len(source.classes) != len(run.dataset.classes):
        raise ConfigError(
            f"{what}: it knows {len(source.classes)} classes, and the data have {len(run.dataset.classes)}; "
            "--new-head begins the last layer anew"
        )
    try:
        run.network.load_state_dict(state)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None


def begin_anew(run: Run) -> None:
    """--init: new initial weights; after --init-from only of the last layer, for the features that come to it."""
    config, network = run.config, run.network
    kept = []
    if config.init_from:
        head = last_layer(network)
        kept = [p for path, p in network.named_parameters() if p.requires_grad and not path.startswith(head)]
    try:
        for parameter in kept:
            parameter.requires_grad = False
        initialise_as(network, config.init, first_images(run) if config.init == "lsuv" else None)
    except ValueError as error:
        raise ConfigError(f"--init {config.init}: {error}") from None
    finally:
        for parameter in kept:
            parameter.requires_grad = True


def last_layer(network: Module) -> str:
    """What the names of its parameters begin with."""
    return list(network.state_dict())[-1].rpartition(".")[0] + "."


def choose_backend(wanted: str) -> str:
    """Make the wanted backend current, and say which it is and why."""
    passed_over: list[str] = []
    for name in ("cupy", "numba", "numpy") if wanted == "auto" else (wanted,):
        reason = backends.why_not(name)
        if reason is None:
            try:
                backends.use(name)
                backends.current().prepare()
                chosen = f"{name} ({backends.current().description})"
                return "; ".join([chosen, *passed_over])
            except Exception as error:  # an installation can be broken in any way
                reason = f"the {name} backend is installed but does not load: {type(error).__name__}: {error}"
        passed_over.append(" ".join(reason.split()))
    raise ConfigError(f"--backend {wanted}: {'; '.join(passed_over)}")
