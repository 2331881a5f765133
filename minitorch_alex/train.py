"""Train a network: `python -m minitorch_alex.train`. With no argument, a small AlexNet on handwritten digits.

This file reads from top to bottom in the order in which a run goes.
"""

from __future__ import annotations

import argparse
import math
import platform
import shlex
import signal
import sys
import threading
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from . import backends, models, philox, plots
from . import functional as F
from .backends.thread_pool import usable_cores
from .checkpoint import CheckpointError, read_checkpoint, restore, save_checkpoint
from .command_line import OneLineParser
from .config import Config, ConfigError, add_arguments, flag, read_file
from .data import DataError, Dataset, Loader, Preprocessing, load
from .nn import Module
from .optim import SGD, MultiStepLR, ReduceLROnPlateau
from .progress import progress_bar
from .run_folder import RunFolder
from .summary import summary
from .tensor import Tensor, no_grad

CHANGEABLE_ON_RESUME = ("epochs", "backend", "workers")
EVALUATION_BATCH = 500


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status: 0 done, 2 something in the request is wrong, 130 interrupted."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.train",
        description="Train a network on images. With no option: a small AlexNet on handwritten digits, for seconds.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    add_arguments(parser)
    parser.add_argument("--out", metavar="FOLDER", help="folder for the results (default: a new one under runs/)")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder where it stopped")
    parser.add_argument(
        "--config", metavar="FILE", help="settings from a TOML file, or the recipe cifar10; options win"
    )
    given = vars(parser.parse_args(arguments))
    out, resume, file = given.pop("out"), given.pop("resume"), given.pop("config")
    try:
        run = prepare_new(given, out, file) if resume is None else prepare_resumed(resume, given, out or file)
        return train(run)
    except (ConfigError, DataError, CheckpointError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"train: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("train: interrupted at once; what the last checkpoint holds can be resumed", file=sys.stderr)
        return 130


# -- getting ready ------------------------------------------------------------
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

    def save(self) -> None:
        """Write the checkpoint. The log goes to the disk first, so that it is never behind."""
        self.folder.sync_log()
        info = {
            "config": asdict(self.config),
            "progress": asdict(self.progress),
            "schedule": self.schedule.state_dict(),
            "preprocessing": self.preprocessing.to_dict(),
            **description_of_images(self),
        }
        save_checkpoint(self.folder.checkpoint, self.network, self.optimizer, info)


def prepare_new(given: dict[str, Any], out: str | None, file: str | None) -> Run:
    """A run from the start, in a folder of its own."""
    config = Config(**{**(read_file(file) if file else {}), **given}).check()
    folder = RunFolder(Path(out)) if out else RunFolder.unused(config.data)
    if folder.holds_something():
        raise ConfigError(f"--out {out}: there is something there already; choose another folder, or --resume {out}")
    run = assemble(config, folder)
    while True:
        try:
            run.folder.create(config, exist_ok=out is not None)
            run.save()  # so that there is something to resume from the start
            return run
        except FileExistsError:
            if out is not None:
                raise
            run.folder = RunFolder.unused(config.data)  # another run has taken that number meanwhile


def prepare_resumed(path: str, given: dict[str, Any], other: str | None) -> Run:
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
    run = assemble(Config(**{**before, **given}).check(), folder)
    images = description_of_images(run)
    if images != {name: info[name] for name in images}:
        raise CheckpointError(f"{folder.checkpoint}: made with other data than {run.config.data} holds now")
    restore(folder.checkpoint, arrays, run.network, run.optimizer)
    try:
        run.progress, run.preprocessing = Progress(**info["progress"]), Preprocessing(**info["preprocessing"])
        run.schedule.load_state_dict(info["schedule"])
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"{folder.checkpoint}: its account of the run is damaged ({error})") from None
    folder.rewind_log(run.progress.step, run.progress.epoch)
    folder.write_config(run.config)
    return run


def check_description(path: Path, info: Any) -> None:
    """Refuse a checkpoint that does not say what one of ours says."""
    kinds: dict[str, type] = {
        "config": dict, "progress": dict, "schedule": dict, "preprocessing": dict,
        "classes": list, "image_shape": list, "training_images": int,
    }  # fmt: skip
    for name, kind in kinds.items():
        if not isinstance(info, dict) or not isinstance(info.get(name), kind):
            raise CheckpointError(f"{path}: a checkpoint that does not say its {name} cannot be resumed")


def description_of_images(run: Run) -> dict[str, Any]:
    """What a checkpoint remembers of the images, to notice others."""
    return {
        "classes": run.dataset.classes,
        "image_shape": list(run.dataset.image_shape),
        "training_images": len(run.dataset.train_images),
    }


def assemble(config: Config, folder: RunFolder) -> Run:
    """Backend, data, network, optimizer and schedule as the settings say."""
    backend_note = choose_backend(config.backend)
    config.backend = backends.current().name  # "auto" is settled: a resumed run goes on with the same one
    dataset = load(config.data)
    philox.manual_seed(config.seed)
    try:
        network = models.build(config.model, len(dataset.classes), dataset.image_shape)
    except ValueError as error:
        raise ConfigError(f"--model {config.model}: {error}") from None
    named = list(network.named_parameters())
    groups = [
        {"params": [p for name, p in named if not name.endswith("bias")]},
        {"params": [p for name, p in named if name.endswith("bias")], "weight_decay": 0.0},
    ]
    optimizer = SGD(groups, config.lr, config.momentum, weight_decay=config.weight_decay, form=config.sgd)
    schedule: MultiStepLR | ReduceLROnPlateau
    if config.schedule == "plateau":
        schedule = ReduceLROnPlateau(optimizer, factor=0.1, patience=config.patience, max_reductions=3)
    else:
        schedule = MultiStepLR(optimizer, config.milestones if config.schedule == "step" else [], gamma=0.1)
    preprocessing = Preprocessing.of(dataset.train_images)
    return Run(config, folder, dataset, preprocessing, network, optimizer, schedule, Progress(), backend_note)


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


# -- the run --------------------------------------------------------------------
def train(run: Run) -> int:
    """Train to the end, or until asked to stop. Returns the exit status."""
    config, progress, dataset = run.config, run.progress, run.dataset
    print_header(run)
    if progress.epoch >= config.epochs:
        print(f"The run in {run.folder.path} has had {progress.epoch} epochs; a larger --epochs gives it more.")
        return 0
    loader = Loader(
        dataset.train_images, dataset.train_labels, config.batch_size,
        run.preprocessing, dataset.augmentation, config.seed, config.workers,
    )  # fmt: skip
    with StopRequest() as stop:
        while progress.epoch < config.epochs:
            started, seen_before = time.perf_counter(), progress.seen
            finished = train_epoch(run, loader, stop)
            speed = (progress.seen - seen_before) / (time.perf_counter() - started)
            if not math.isfinite(progress.loss_sum) or (finished and not finish_epoch(run, speed)):
                print(
                    f"train: the loss is no number after step {progress.step}; the learning rate {config.lr} is "
                    "probably too high. The checkpoint is from before that.",
                    file=sys.stderr,
                )
                return 1
            if not finished:
                return save_interrupted(run, stop)
    draw(run)
    print(f"Results are in {run.folder.path}: {', '.join(sorted(p.name for p in run.folder.path.iterdir()))}")
    return 0


def train_epoch(run: Run, loader: Loader, stop: StopRequest) -> bool:
    """Take the rest of the current epoch's steps. False if it was asked to stop, or the loss is no longer finite."""
    progress, network = run.progress, run.network.train()
    classes = len(run.dataset.classes)
    bar = progress_bar(
        total=len(loader.images), initial=progress.seen, unit=" images", leave=False,
        desc=f"epoch {progress.epoch + 1}/{run.config.epochs}",
    )  # fmt: skip
    with bar:
        for images, labels in loader.epoch(progress.epoch, start=progress.batch):
            philox.set_step(progress.step)
            run.optimizer.zero_grad()
            loss = F.cross_entropy(network(Tensor(images)), labels)
            loss.backward()
            run.optimizer.step()

            value = loss.item()  # the one place where a GPU would be waited for
            progress.step, progress.batch = progress.step + 1, progress.batch + 1
            progress.loss_sum, progress.seen = progress.loss_sum + value * len(labels), progress.seen + len(labels)
            if not math.isfinite(value):
                return False
            at = progress.epoch + progress.seen / len(loader.images)
            lr = run.optimizer.param_groups[0]["lr"]
            run.folder.log(step=progress.step, epoch=progress.epoch + 1, at=round(at, 4), loss=value, lr=lr)
            bar.update(len(labels))
            bar.set_postfix_str(f"loss {value:.3f} (ln {classes} = {math.log(classes):.3f})")
            if stop.requested:
                return False
    return True


def finish_epoch(run: Run, speed: float) -> bool:
    """Evaluate, log, report, adjust the learning rate, save. False, and nothing of it, if the loss is no number."""
    progress, classes = run.progress, len(run.dataset.classes)
    train_loss = progress.loss_sum / progress.seen
    test_loss, top1, top5 = evaluate(run.network, run.dataset.test_images, run.dataset.test_labels, run.preprocessing)
    if not math.isfinite(test_loss):
        return False
    progress.epoch, progress.batch, progress.loss_sum, progress.seen = progress.epoch + 1, 0, 0.0, 0
    run.folder.log(
        epoch=progress.epoch, step=progress.step, train_loss=train_loss, test_loss=test_loss,
        test_top1=top1, test_top5=top5, images_per_second=round(speed, 1),
    )  # fmt: skip
    print(
        f"epoch {progress.epoch:>{len(str(run.config.epochs))}}/{run.config.epochs}   "
        f"loss {train_loss:.4f} (ln {classes} = {math.log(classes):.3f})   held out: loss {test_loss:.4f}, "
        f"top-1 {100 * top1:.2f} %, top-5 {100 * top5:.2f} %   {speed:,.0f} images/s",
        flush=True,
    )
    run.schedule.step(1 - top1)
    run.save()
    return True


def evaluate(network: Module, images, labels, preprocessing: Preprocessing) -> tuple[float, float, float]:
    """(loss, top-1, top-5) on images that the network has not learnt from."""
    network.eval()
    loss, top1, top5 = 0.0, 0, 0
    with no_grad():
        for i in range(0, len(images), EVALUATION_BATCH):
            batch, truth = preprocessing(images[i : i + EVALUATION_BATCH]), labels[i : i + EVALUATION_BATCH]
            scores = network(Tensor(batch))
            loss += F.cross_entropy(scores, truth, reduction="sum").item()
            ranking = (-scores.numpy()).argsort(axis=1, kind="stable")
            top1 += int((ranking[:, 0] == truth).sum())
            top5 += int((ranking[:, :5] == truth[:, None]).sum())
    return loss / len(images), top1 / len(images), top5 / len(images)


# -- telling and stopping -------------------------------------------------------
class StopRequest:
    """Ctrl-C and SIGTERM ask the run to stop after the step in hand; a second Ctrl-C does not wait for it."""

    def __init__(self) -> None:
        self.requested: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # signals reach no other
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: Any) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = number


def save_interrupted(run: Run, stop: StopRequest) -> int:
    """Save in mid-epoch and say how to go on. Returns the conventional status of a process ended by that signal."""
    run.save()
    draw(run)
    print(
        f"Stopped after step {run.progress.step} and saved. Go on with: "
        f"python -m minitorch_alex.train --resume {shlex.quote(str(run.folder.path))}",
        flush=True,
    )
    return 128 + (stop.requested or signal.SIGINT)


def print_header(run: Run) -> None:
    """What is about to happen, on what, with which network."""
    d, p = run.dataset, run.progress
    print(f"device    {processor()}, {usable_cores()} cores")
    print(f"backend   {run.backend_note}")
    print(f"data      {d.name}: {len(d.train_images):,} training and {len(d.test_images):,} held-out images, "
          f"{len(d.classes)} classes")  # fmt: skip
    print(f"run       {run.folder.path}" + (f", resumed after step {p.step}" if p.step else ""))
    print(f"\n{run.config.model}\n{summary(run.network, d.image_shape)}\n", flush=True)


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def draw(run: Run) -> None:
    """curves.png and filters.png."""
    plots.curves(run.folder.log_lines(), len(run.dataset.classes)).save(run.folder.curves)
    first = next((p for _, p in run.network.named_parameters() if p.ndim == 4), None)
    if first is not None:
        title = f"First-layer filters after {run.progress.step:,} steps"
        plots.filters(first.numpy(), title).save(run.folder.filters)


if __name__ == "__main__":
    sys.exit(main())
