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
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy

from . import backends, memory, models, philox, plots
from . import functional as F
from .anomaly import AnomalyError, anomaly
from .backends.thread_pool import usable_cores
from .command_line import OneLineParser, printable, reported
from .config import Config, ConfigError, add_arguments
from .data import DataError, Dataset, Loader, load
from .estimate import estimate, noise_for_imagenet
from .nn import BatchNorm1d, BatchNorm2d
from .profiler import profile
from .progress import files_bar, progress_bar
from .reference import reference_for
from .run import PHOTOGRAPH, Run, Tell, assemble, choose_backend, prepare_new, prepare_resumed, settings
from .run_folder import RunFolder
from .summary import summary
from .tensor import Tensor
from .tensorboard import Board
from .trained import evaluate

SAVE_EVERY = 600.0  # seconds; and at the end of every epoch
AT_CHANCE = 0.98  # of the loss of knowing nothing: a network whose loss is above has not begun to learn
STEPS_TO_LEARN = 100  # and should have by then
CHECKLIST = """\
train: a loss of {loss:.3f} is still that of knowing nothing, {nothing:.3f}. What it may be, the likeliest first:
  - a learning rate too high or too low: try a tenth and ten times of --lr
  - initial weights through which no signal comes (0.01 everywhere, with biases of 1): try --init he or --init lsuv
  - it is early: the paper's network stays here for thousands of steps before it begins to learn
  - pixels on a scale that the network is not made for; labels that do not belong to their images"""


class DivergenceError(Exception):
    """The loss or the weights are no numbers any more."""


def main(arguments: list[str] | None = None) -> int:
    """The command. Returns its exit status, see command_line.py: 1 where the run came to numbers that are none."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.train",
        usage="%(prog)s [OPTION ...]",
        description="Train a network on images. With no option: a small AlexNet on handwritten digits, for seconds.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=100),
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder for the results (default: a new one under runs/)")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with the run in this folder where it stopped")
    parser.add_argument(
        "--config", metavar="FILE", help="settings from a TOML file, or the recipe cifar10 or alexnet; options win"
    )
    parser.add_argument(
        "--estimate", action="store_true", help="do not train: measure a few steps and say how long it would take here"
    )
    parser.add_argument(
        "--memory", action="store_true", help="do not train: measure the memory of a step, beside what is predicted"
    )
    parser.add_argument(
        "--profile", action="store_true", help="do not train: measure in which layers the time of a step goes"
    )
    add_arguments(parser)
    given = vars(parser.parse_args(arguments))
    interrupted = "interrupted at once; a checkpoint, if there is one, can be resumed"
    return reported("train", lambda: obey(given), given.pop("debug"), interrupted)


def obey(given: dict[str, Any]) -> int:
    """Do what the command line asks for."""
    out, resume, file = given.pop("out"), given.pop("resume"), given.pop("config")
    only_estimate, only_memory, only_profile = (given.pop(name) for name in ("estimate", "memory", "profile"))
    if only_estimate + only_memory + only_profile > 1:
        raise ConfigError("--estimate, --memory and --profile: choose one")
    if (only_estimate or only_memory or only_profile) and (resume or out or "detect_anomaly" in given):
        raise ConfigError(
            "--estimate, --memory and --profile train nothing: --resume, --out and --detect-anomaly do not go with them"
        )
    if only_memory:
        print(memory_of_a_step(settings(given, file)))
        return 0
    with files_bar("looking at the photographs") as tell:
        if only_estimate:
            print(estimate(settings(given, file), take_step, tell))
            return 0
        if only_profile:
            print(profile_of_a_step(settings(given, file), tell))
            return 0
        if resume is None:
            run = prepare_new(given, out, file, tell)
        else:
            run = prepare_resumed(resume, given, out or file, tell)
    return train(run)


# -- the run --------------------------------------------------------------------
def train(run: Run) -> int:
    """Train to the end, or until asked to stop. Returns the exit status."""
    config, progress = run.config, run.progress
    print_header(run)
    if progress.epoch >= config.epochs:
        print(f"The run in {run.folder.path} has had {progress.epoch} epochs; a larger --epochs gives it more.")
        return 0
    try:
        with StopRequest() as stop, shown_in_tensorboard(run), anomaly() if config.detect_anomaly else nullcontext():
            if not train_epochs(run, stop):
                return save_interrupted(run, stop)
    except (AnomalyError, DivergenceError) as error:
        told = printable(f"after step {progress.step}, {error}")
        print(f"train: {told}. The checkpoint is from before that.", file=sys.stderr)
        return 1
    draw(run)
    files = ", ".join(sorted(path.name for path in run.folder.path.iterdir()))
    print(f"Results are in {printable(str(run.folder.path))}: {files}")
    return 0


def train_epochs(run: Run, stop: StopRequest) -> bool:
    """Train to the last epoch. False if it was asked to stop."""
    config, progress, loader = run.config, run.progress, run.loader()
    while progress.epoch < config.epochs:
        started, seen_before = time.perf_counter(), progress.seen
        try:
            if not train_epoch(run, loader, stop):
                return False
        except DataError:  # an image has vanished: the steps before it are not to be lost
            save(run)
            raise
        except MemoryError as error:
            raise ConfigError(
                f"--batch-size {config.batch_size}: the memory does not suffice for step {progress.step + 1} "
                f"({error}); a smaller one needs less, and --memory tells how much"
            ) from None
        finish_epoch(run, (progress.seen - seen_before) / (time.perf_counter() - started))
    return True


def set_training_mode(run: Run) -> None:
    """But for the batch norms in frozen layers, whose running averages are to stay as well."""
    run.network.train()
    for path, module in run.network.named_modules():
        if isinstance(module, BatchNorm2d | BatchNorm1d) and any(
            f"{path}.".startswith(f"{f}.") for f in run.config.freeze
        ):
            module.eval()


def take_step(run: Run, images: numpy.ndarray, labels: numpy.ndarray) -> float:
    """One step of gradient descent on a batch. Returns the loss before it."""
    philox.set_step(run.progress.step)
    run.optimizer.zero_grad()
    loss = F.cross_entropy(run.network(at_precision(images)), labels)
    loss.backward()
    run.optimizer.step()
    return loss.item()  # the one place where a GPU would be waited for


def at_precision(images: numpy.ndarray) -> Tensor:
    """The images as the network is to see them in training."""
    x = Tensor(images)
    return x.to("bfloat16") if x.backend.precision == "bf16" else x


def train_epoch(run: Run, loader: Loader, stop: StopRequest) -> bool:
    """Take the rest of the current epoch's steps. False if it was asked to stop."""
    set_training_mode(run)
    progress, saved = run.progress, time.monotonic()
    classes = len(run.dataset.classes)
    bar = progress_bar(
        total=len(loader.images), initial=progress.seen, unit=" images", leave=False,
        desc=f"epoch {progress.epoch + 1}/{run.config.epochs}",
    )  # fmt: skip
    with bar:
        for images, labels in loader.epoch(progress.epoch, start=progress.batch):
            value = take_step(run, images, labels)
            progress.step, progress.batch = progress.step + 1, progress.batch + 1
            progress.loss_sum, progress.seen = progress.loss_sum + value * len(labels), progress.seen + len(labels)
            check_loss(run, value)
            at = progress.epoch + progress.seen / len(loader.images)
            lr = run.optimizer.param_groups[0]["lr"]
            run.log(step=progress.step, epoch=progress.epoch + 1, at=round(at, 4), loss=value, lr=lr)
            bar.update(len(labels))
            bar.set_postfix_str(f"loss {value:.3f} (ln {classes} = {math.log(classes):.3f})")
            if stop.requested:
                return False
            if progress.batch % STEPS_TO_LEARN == 0:
                warn_if_nothing_is_learnt(run, progress.loss_sum / progress.seen)
            if time.monotonic() - saved > SAVE_EVERY:
                save(run)
                saved = time.monotonic()
    return True


def finish_epoch(run: Run, speed: float) -> None:
    """Evaluate, log, report, adjust the learning rate, save."""
    progress, classes = run.progress, len(run.dataset.classes)
    train_loss = progress.loss_sum / progress.seen
    d = run.dataset
    held_out = evaluate([run.trained()], d.test_images, d.test_labels, workers=run.config.workers)[0]
    check_loss(run, held_out.loss)
    check_weights(run)
    progress.epoch, progress.batch, progress.loss_sum, progress.seen = progress.epoch + 1, 0, 0.0, 0
    run.log(
        epoch=progress.epoch, step=progress.step, train_loss=train_loss, test_loss=held_out.loss,
        test_top1=held_out.top1, test_top5=held_out.top5, images_per_second=round(speed, 1),
    )  # fmt: skip
    show_filters(run)
    run.schedule.step(1 - held_out.top1)
    run.save()
    print(
        f"epoch {progress.epoch:>{len(str(run.config.epochs))}}/{run.config.epochs}   "
        f"loss {train_loss:.4f} (ln {classes} = {math.log(classes):.3f})   {d.tested_on}: loss {held_out.loss:.4f}, "
        f"top-1 {100 * held_out.top1:.2f} %, top-5 {100 * held_out.top5:.2f} %   {speed:,.0f} images/s",
        flush=True,
    )
    warn_if_nothing_is_learnt(run, train_loss)


def check_loss(run: Run, loss: float) -> None:
    """Refuse to go on with a loss that is no number."""
    if not math.isfinite(loss):
        raise DivergenceError(
            f"the loss is no number; the learning rate {run.config.lr} is probably too high, and --resume "
            f"{shlex.quote(str(run.folder.path))} --detect-anomaly says where it begins"
        )


def check_weights(run: Run) -> None:
    """Refuse to go on with weights that are no numbers. The loss of the same step may still be one."""
    for path, t in (*run.network.named_parameters(), *run.network.named_buffers()):
        if not bool(t.backend.isfinite(t.data).all()):
            raise DivergenceError(
                f"{path} holds a NaN or an infinity; the learning rate {run.config.lr} is probably too high"
            )


def save(run: Run) -> None:
    """Write the checkpoint, unless the one before is worth more."""
    check_weights(run)
    run.save()


def warn_if_nothing_is_learnt(run: Run, train_loss: float) -> None:
    """A checklist, once, if the loss is still that of knowing nothing."""
    knowing_nothing = math.log(len(run.dataset.classes))
    stuck = run.progress.step >= STEPS_TO_LEARN and train_loss > AT_CHANCE * knowing_nothing
    if stuck and not run.warned:
        run.warned = True
        print(CHECKLIST.format(loss=train_loss, nothing=knowing_nothing), file=sys.stderr, flush=True)


def memory_of_a_step(config: Config) -> str:
    """--memory. Of networks for photographs with 1000 classes, of others for the images that they are to learn."""
    if config.precision != "fp32":
        raise ConfigError("--memory measures a step in fp32: leave --precision out")
    if config.convolution != "auto":
        raise ConfigError("--memory measures a step as it is by default: leave --convolution out")
    choose_backend(config.backend)
    classes, shape = 1000, models.MODELS[config.model].image_shape
    if shape is None:
        dataset = load(config.data, crop=PHOTOGRAPH, held_out=config.held_out)
        classes, shape = len(dataset.classes), dataset.image_shape
    try:
        told = memory.report(config.model, classes, shape, config.batch_size, backends.current().name)
    except (RuntimeError, MemoryError) as error:
        raise ConfigError(f"--memory: {error}") from None
    C, H, W = shape
    return f"{config.model}, {classes:,} classes, {config.batch_size} images of {C} x {H} x {W}\n{told}"


def profile_of_a_step(config: Config, tell: Tell) -> str:
    """--profile. Of the first batch, again and again, so that no step waits for images. Nothing is written."""
    run = assemble(config, RunFolder.unused(config.data), tell, dataset=noise_where_absent(config))
    set_training_mode(run)
    images, labels = next(run.loader().epoch(0))
    try:
        told = profile(run.network, run.optimizer, at_precision(images), labels)
    except MemoryError as error:
        raise ConfigError(
            f"--batch-size {config.batch_size}: the memory does not suffice ({error}); a smaller one needs less"
        ) from None
    machine = f"{processor()}, {usable_cores()} cores"
    return f"{config.model} on {run.dataset.name}, backend {run.backend_note}\n{machine}\n{told}"


def noise_where_absent(config: Config) -> Dataset | None:
    """Where the photographs of a network for photographs are not there, noise, with which it has as much to do."""
    takes = models.MODELS[config.model].image_shape
    absent = config.data not in ("digits", "cifar10") and not Path(config.data).exists()
    return noise_for_imagenet(takes[1]) if absent and takes else None


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
    save(run)
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
    tested = "none held out" if d.tested_on != "held out" else f"{len(d.test_images):,} held-out images"
    print(f"data      {d.name}: {len(d.train_images):,} training images, {tested}, {len(d.classes)} classes")
    for line in d.left_out:
        print(f"          left out {printable(line)}")
    print(f"run       {run.folder.path}" + (f", resumed after step {p.step}" if p.step else ""))
    print(f"\n{run.config.model}\n{summary(run.network, d.image_shape)}\n", flush=True)


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def first_filters(run: Run) -> numpy.ndarray | None:
    """The weights of the first convolution (F, C, R, S), if there is one."""
    return next((p.numpy() for p in run.network.parameters() if p.ndim == 4), None)


@contextmanager
def shown_in_tensorboard(run: Run) -> Iterator[None]:
    """Within it, TensorBoard can follow the run, if that is wanted."""
    if not run.config.tensorboard:
        yield
        return
    run.board = Board(run.folder.path / "tensorboard", run.network, run.dataset.image_shape, run.progress.step)
    try:
        for line in run.folder.log_lines() if run.board.is_new else ():  # it may be wanted only now
            run.board.log(line)
        show_filters(run)
        yield
    finally:
        run.board.close()


def show_filters(run: Run) -> None:
    """To TensorBoard, if that is wanted."""
    filters = first_filters(run)
    if run.board and filters is not None:
        run.board.filters(run.progress.step, filters)


def draw(run: Run) -> None:
    """curves.png and filters.png."""
    d = run.dataset
    reference = reference_for(run.config, d.name)
    plots.curves(run.folder.log_lines(), len(d.classes), reference).save(run.folder.curves)
    filters = first_filters(run)
    if filters is not None:
        title = f"First-layer filters after {run.progress.step:,} steps"
        plots.filters(filters, title).save(run.folder.filters)


if __name__ == "__main__":
    sys.exit(main())
