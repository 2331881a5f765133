"""The memory that one training step takes at its peak: predicted from the tape, and measured in a process of its own.

A step is what train does: forward pass, cross entropy, backward(), SGD in the paper's form with momentum and decay.
"""

from __future__ import annotations

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy

from . import backends, models
from . import functional as F
from .backends.host_memory import give_back_at_once
from .models import ImageShape
from .nn import Module
from .optim import SGD
from .tensor import OnTape, Tensor, ancestors

MEBIBYTE = 1024**2
IN_A_NEW_PROCESS = """
import json, sys
from minitorch_alex.memory import measure
print(json.dumps(measure(*json.loads(sys.argv[1]))))
"""


class Moment(NamedTuple):
    """What is alive at one moment of a training step, in bytes."""

    name: str
    weights: int
    velocities: int
    images: int  # the batch itself
    kept: int  # by the tape, for gradients that are still to be computed
    gradients: int  # of weights, finished; and of activations, under way
    buffers: int  # what the backend or the optimizer needs while it works

    @property
    def total(self) -> int:
        return sum(self[1:])

    def __str__(self) -> str:
        parts = (self.weights, self.velocities, self.images, self.kept, self.gradients, self.buffers)
        names = ("weights", "velocities", "images", "kept for backward", "gradients", "buffers")
        return ", ".join(f"{name} {_mib(part)}" for name, part in zip(names, parts, strict=True))


# -- predicted ------------------------------------------------------------------
def peak(network: Module, input_shape: tuple[int, ...], batch_size: int) -> Moment:
    """The moment at which a training step on images of (C, H, W) holds most, worked out without taking the step.

    Every moment's memory is a straight line in the size of the batch, and two small batches give the line: a network is
    only sent 2 and then 3 images, forward. It stays as it was, but for the place in the streams of dropout masks.
    """
    modes = {module: module.training for _, module in network.named_modules()}
    averages = {buffer: buffer.data for _, buffer in network.named_buffers()}
    network.train()
    try:
        of_two, of_three = (list(_moments(network, input_shape, n, batch_size)) for n in (2, 3))
    finally:
        for module, mode in modes.items():
            module.training = mode
        for buffer, data in averages.items():
            buffer.data = data
    moments = []
    for two, three in zip(of_two, of_three, strict=True):
        line = (a + (b - a) * (batch_size - 2) for a, b in zip(two[1:], three[1:], strict=True))
        moments.append(Moment(two.name, *line))
    return max(moments, key=lambda moment: moment.total)


def _moments(network: Module, input_shape: tuple[int, ...], images: int, batch_size: int) -> Iterator[Moment]:
    """The end of the forward pass, each operation that backward() passes, and the optimizer's step: of so many images.

    But the buffers are those of a whole batch, which do not lie on a straight line.

    The tape keeps the arrays that gradient functions mention: each until backward() has passed the oldest operation
    that has such a function. An operation's gradient is alive from the moment when the first of those computed from it
    is passed until it is passed itself; a weight's stays.
    """
    batch = Tensor(numpy.zeros((images, *input_shape), "float32"))
    loss = F.cross_entropy(network(batch), numpy.zeros(images, "int64"))
    tape = sorted(ancestors(loss), key=lambda t: t.born)
    xp = batch.backend
    columns = {t: _column_buffers(xp, t, batch_size) for t in tape if t.made_by == "conv2d"}
    kept_by_threads = max((for_good for for_good, _ in columns.values()), default=0)
    weights = {id(_whole(p.data)): p.data.nbytes for p in network.parameters()}
    trained = [p.data.nbytes for p in network.parameters() if p.requires_grad]
    counted_elsewhere = {id(_whole(batch.data)), *weights}

    kept: dict[int, tuple[int, int]] = {}  # by array: the place on the tape of its oldest holder, and bytes
    for place, t in reversed(list(enumerate(tape))):
        mentioned = [value for _, gradient_of in t.edges or () for value in _mentioned(gradient_of).values()]
        for array in (_whole(value) for value in mentioned if hasattr(value, "nbytes")):
            if id(array) not in counted_elsewhere:
                kept[id(array)] = place, array.nbytes

    def moment(name: str, place: int, gradients: int, buffers: int) -> Moment:
        still_kept = sum(size for oldest, size in kept.values() if oldest <= place)
        always = sum(weights.values()), sum(trained), batch.data.nbytes
        return Moment(name, *always, still_kept, gradients, buffers + kept_by_threads)

    yield moment("the end of the forward pass", len(tape), 0, 0)
    gradients = {tape[-1]: _bytes(loss)}
    for place, t in reversed(list(enumerate(tape))):
        if t.edges:
            gradients.update({parent: _bytes(parent) for parent, _ in t.edges})
            yield moment(f"the gradient of {t.made_by}", place, sum(gradients.values()), columns.get(t, (0, 0))[1])
            del gradients[t]
    largest = max(trained, default=0)  # `p.data + v` is there before the old p.data goes
    yield moment("the optimizer's step", -1, sum(trained), largest)


def _bytes(t: OnTape) -> int:
    return math.prod(t.shape) * t.dtype.itemsize


def _mentioned(function: Callable) -> dict[str, Any]:
    """By name, what a function keeps alive of the one in which it was defined."""
    if not inspect.isfunction(function):
        return {}
    return dict(zip(function.__code__.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True))


def _whole(array: Any) -> Any:
    """The array whose memory this one is a view of, or itself."""
    while hasattr(getattr(array, "base", None), "nbytes"):
        array = array.base
    return array


def _column_buffers(xp: backends.Backend, conv: OnTape, images: int) -> tuple[int, int]:
    """Bytes that a convolution of so many images needs in its gradients: (kept by the backend for good, passing)."""
    known: dict[str, Any] = {}
    for _, gradient_of in conv.edges or ():
        known.update(_mentioned(gradient_of))
    if "w" not in known:  # only the bias is trained
        return 0, 0
    x, y, w = (images, *known["x"].shape[1:]), (images, *conv.shape[1:]), known["w"].shape
    return xp.conv2d_buffers(x, y, w, known["window"], known["groups"], conv.dtype)


# -- measured -------------------------------------------------------------------
def report(model: str, classes: int, image_shape: ImageShape, batch_size: int, backend: str) -> str:
    """Take one training step of this network in a process of its own and tell its peak, measured and predicted."""
    request = json.dumps([model, classes, image_shape, batch_size, backend])
    done = subprocess.run([sys.executable, "-c", IN_A_NEW_PROCESS, request], capture_output=True, text=True)
    if done.returncode < 0:
        raise MemoryError(f"the step was ended by signal {-done.returncode}: probably the memory did not suffice")
    if done.returncode:
        raise RuntimeError(f"the step could not be taken: {''.join(done.stderr.splitlines()[-1:])}")
    measured, parts = json.loads(done.stdout)
    predicted = Moment(*parts)
    known = (
        "cannot be measured here: only Linux tells it, in /proc"
        if measured is None
        else f"{_mib(measured)} MiB measured"
    )
    return f"peak of one step: {known}; {_mib(predicted.total)} MiB predicted, at {predicted.name} ({predicted})"


def measure(
    model: str, classes: int, image_shape: ImageShape, batch_size: int, backend: str
) -> tuple[int | None, Moment]:
    """(bytes, what was predicted) for the peak of one training step, taken in this process, which should be a new one.

    Measured is the largest memory during the step less that before the network was built, so that weights and
    velocities count. By then everything is imported, and a tiny network has taken a step: what the compiler of kernels
    needs is not the step's. The network takes its own first step on 2 images, for only then it has velocities. None
    where the system does not tell.
    """
    backends.use(backend)
    xp = backends.current()
    xp.prepare()
    held = OfTheGPU() if xp.has_own_memory else OfTheProcess()
    tiny = models.build("alexnet_small", 2, (3, 16, 16))
    for method in ("winograd", "auto"):
        with suppress(ValueError):  # most backends have one method only
            xp.set_convolution(method)
        _step(tiny, _optimizer(tiny), (3, 16, 16), 2)
    before = held.now()
    C, H, W = image_shape  # JSON has made a list of it
    network = models.build(model, classes, (C, H, W))
    optimizer = _optimizer(network)
    _step(network, optimizer, image_shape, 2)
    held.forget_the_peak()
    _step(network, optimizer, image_shape, batch_size)
    after = held.peak()
    measured = None if before is None or after is None else after - before
    return measured, peak(network, image_shape, batch_size)


class OfTheProcess:
    """Resident memory, where the system tells: Linux' proc_pid_status(5)."""

    def __init__(self) -> None:
        give_back_at_once()

    def now(self) -> int | None:
        return _status("VmRSS")

    def forget_the_peak(self) -> None:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # proc_pid_clear_refs(5)

    def peak(self) -> int | None:
        return _status("VmHWM")


class OfTheGPU:
    """What the backend has taken of its own memory. It gives nothing back by itself, so what it holds is the peak."""

    def now(self) -> int:
        backends.current().give_back()
        return backends.current().held_bytes()

    forget_the_peak = now

    def peak(self) -> int:
        return backends.current().held_bytes()


def _optimizer(network: Module) -> SGD:
    return SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, form="paper")


def _step(network: Module, optimizer: SGD, image_shape: tuple[int, ...], batch_size: int) -> None:
    """One training step on noise."""
    images = numpy.random.default_rng(0).standard_normal((batch_size, *image_shape), "float32")
    optimizer.zero_grad()
    F.cross_entropy(network(Tensor(images)), numpy.zeros(batch_size, "int64")).backward()
    optimizer.step()


def _status(field: str) -> int | None:
    """A line of /proc/self/status, in bytes: VmRSS is the memory that this process has now, VmHWM the most it had."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), None)


def _mib(size: int) -> str:
    return f"{size / MEBIBYTE:,.0f}"
