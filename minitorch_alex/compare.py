"""Find the layer that computes something else: `python -m minitorch_alex.compare numpy numba`.

One batch goes through a network on B, forward and backward, and what every layer was given and made of it is kept. Then
A is asked, layer by layer: what do you make of this input, and of this gradient? So every layer answers for itself
alone: a fault is told where it is and nowhere else, rounding does not pile up, and no value that differs by a hair
comes to lie on another side of a ReLU or wins another window of a pool.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy

from . import backends, models, philox
from . import functional as F
from .command_line import OneLineParser, printable, reported
from .config import Config, ConfigError
from .data import load
from .nn import Module
from .progress import files_bar
from .run import PHOTOGRAPH, choose_backend, prepare_pixels
from .tensor import Tensor, op
from .torch_twin import TorchTwin

TOLERANCE = {"float32": 1e-4, "float64": 1e-10}  # of a layer's largest value; rounding alone comes to 3e-5 in float32
NOISE_CLASSES = 10
NOISE_SPREAD = 74.0  # the standard deviation of pixels from 0 to 255, each as likely as any other


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py: 1 where they diverge."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.compare",
        description="Run one batch on two backends, and name the first layer where a value or a gradient diverges. "
        "A is the one to trust, B the one to check (but torch is always the one to trust).",
    )
    names, default = [*backends.NEEDS, "torch"], Config()
    parser.add_argument("trusted", metavar="A", choices=names, help=", ".join(names))
    parser.add_argument("checked", metavar="B", choices=names, help="likewise")
    parser.add_argument(
        "--model",
        choices=list(models.MODELS),
        default=default.model,
        help=f"the network (default: {default.model}; only larger ones have convolutions with strides and groups)",
    )
    parser.add_argument(
        "--data",
        metavar="WHERE",
        help="as for train, or noise: random pixels (default: digits, or noise where they are too small)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=default.batch_size, metavar="N", help=f"default: {default.batch_size}"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of weights, dropout and images (default: 0)")
    parser.add_argument("--dtype", choices=list(TOLERANCE), default="float32", help="default: float32, as in training")
    shown = " and ".join(f"{tolerance:.0e} in {dtype}" for dtype, tolerance in TOLERANCE.items())
    parser.add_argument(
        "--tolerance", type=float, metavar="X", help=f"of a layer's largest value or gradient (default: {shown})"
    )
    given = parser.parse_args(arguments)
    if not 1 <= given.batch_size < 2**31:
        parser.error("--batch-size must be at least 1, and below 2^31")
    if not 0 <= given.seed < 2**64:
        parser.error("--seed must be from 0 up and below 2^64")
    if given.tolerance is not None and not 0 <= given.tolerance < float("inf"):
        parser.error("--tolerance must be a number from 0 up")
    if given.trusted == given.checked == "torch":
        parser.error("torch against torch: one of the two must be a backend")
    if given.checked == "torch":
        given.trusted, given.checked = given.checked, given.trusted
    return reported("compare", lambda: show(given), given.debug)


def show(given: argparse.Namespace) -> int:
    """Compare what the command line names, and print a table and a verdict. Returns the exit status."""
    tolerance = TOLERANCE[given.dtype] if given.tolerance is None else given.tolerance
    try:
        batch = batch_of(given)
        rows = compare(given.trusted, given.checked, given.model, batch, given.seed, given.dtype)
    except LayerError as error:
        print(f"{given.checked} cannot be compared with {given.trusted}: {printable(' '.join(str(error).split()))}")
        return 1
    except MemoryError:
        raise ConfigError(f"--batch-size {given.batch_size}: the memory does not suffice") from None
    print(
        f"{given.checked} against {given.trusted}: {given.model}, {len(batch.images)} images ({batch.name}), "
        f"{given.dtype}. Differences, as parts of the layer's largest value; those above {tolerance:.0e} are marked."
    )
    print_table(rows, tolerance)
    fault = first_fault(rows, tolerance)
    if fault:
        print(f"{given.checked} diverges from {given.trusted}: {fault}")
        return 1
    worst = largest(d for row in rows for d in row.differences).relative
    print(f"{given.checked} agrees with {given.trusted}: all {len(rows)} layers, to {worst:.1e}")
    return 0


# -- the batch ------------------------------------------------------------------
class Batch(NamedTuple):
    """Images float32 (N, C, H, W) as the network takes them, labels int64 (N,), how many classes, what they are."""

    images: numpy.ndarray
    labels: numpy.ndarray
    classes: int
    name: str


def batch_of(given: argparse.Namespace) -> Batch:
    """Images and labels as the command line asks for them."""
    takes, centred = models.MODELS[given.model].image_shape, models.MODELS[given.model].centred
    random = philox.generator(philox.key("compare", given.seed))
    if given.data == "noise" or (given.data is None and takes):
        pixels = random.integers(0, 256, (given.batch_size, *(takes or (3, 32, 32)))).astype("float32") - 127.5
        labels = random.integers(0, NOISE_CLASSES, given.batch_size)
        return Batch(pixels if centred else pixels / NOISE_SPREAD, labels, NOISE_CLASSES, "noise")
    with files_bar("looking at the photographs") as tell:
        dataset = load(given.data or "digits", crop=takes[1] if takes else PHOTOGRAPH, tell=tell)
    chosen = random.permutation(len(dataset.train_images))[: given.batch_size]
    pixels = dataset.still(dataset.train_images[chosen], given.seed, 0, chosen)
    images = prepare_pixels(given.model, dataset)(pixels)
    return Batch(images, dataset.train_labels[chosen], len(dataset.classes), printable(dataset.name))


# -- the comparison ---------------------------------------------------------------
@dataclass(eq=False)
class Step:
    """What a layer was given, and then what it made of it; gradients are those of the loss."""

    path: str
    kind: str
    input: numpy.ndarray
    output: numpy.ndarray = field(init=False)
    output_gradient: numpy.ndarray = field(init=False)
    input_gradient: numpy.ndarray = field(init=False)


class LayerError(Exception):
    """A layer raises an error in place of computing, whatever a broken kernel may lead to."""

    def __init__(self, backend: str, step: Step, way: str, error: Exception) -> None:
        super().__init__(f"{backend} stops in {step.path} ({step.kind}), {way}: {error}")


class Difference(NamedTuple):
    """The largest difference between two arrays as a part of the largest trusted value; of what; both values, where."""

    relative: float
    what: str
    values: str = ""


class Row(NamedTuple):
    """A layer, and where it differs most: in what it computes, in its input's gradient, in those of its parameters."""

    path: str
    kind: str
    output_shape: tuple[int, ...]
    value: Difference
    input_gradient: Difference
    parameter_gradients: Difference | None

    @property
    def differences(self) -> list[Difference]:
        return [d for d in (self.value, self.input_gradient, self.parameter_gradients) if d is not None]


def compare(trusted: str, checked: str, model: str, batch: Batch, seed: int, dtype: str) -> list[Row]:
    """A row for each layer, in the order of computation. LayerError where one does not compute at all."""
    use(checked)
    network = build(model, batch, seed, dtype)
    weights = network.state_dict()
    own = Ours(layers_of(network, batch.labels))
    steps = run(network, own.layers, batch.images.astype(dtype))
    use("numpy" if trusted == "torch" else trusted)
    other = build(model, batch, seed, dtype)
    other.load_state_dict(weights)
    layers = layers_of(other, batch.labels)
    judge: Ours | TorchTwin = TorchTwin(layers, dtype) if trusted == "torch" else Ours(layers)
    answers = []
    for step in steps:
        try:
            answers.append(judge.answer(step.path, step.input, step.output_gradient))
        except Exception as error:
            raise LayerError(trusted, step, "forward or backward", error) from None
    return [row_of(step, *answer, own, judge) for step, answer in zip(steps, answers, strict=True)]


def use(name: str) -> None:
    """Make a backend the current one."""
    try:
        choose_backend(name)
    except ConfigError as error:
        raise ConfigError(str(error).removeprefix(f"--backend {name}: ")) from None


def build(model: str, batch: Batch, seed: int, dtype: str) -> Module:
    """The network, in training mode. The streams of dropout's masks begin anew, so that both sides draw the same."""
    philox.manual_seed(seed)
    _, C, H, W = batch.images.shape
    try:
        return models.build(model, batch.classes, (C, H, W)).to(dtype)
    except ValueError as error:
        raise ConfigError(f"--model {model} with {batch.name}: {error}") from None


class CrossEntropy(Module):
    """The loss, as one layer more behind the network's."""

    def __init__(self, labels: numpy.ndarray) -> None:
        self.labels = labels

    def forward(self, scores: Tensor) -> Tensor:
        return F.cross_entropy(scores, self.labels)


def layers_of(network: Module, labels: numpy.ndarray) -> dict[str, Module]:
    """By path, the layers that have no layers inside, and the loss. Each is told its path: it names dropout's masks."""
    layers = {}
    for path, module in network.named_modules():
        module.path = path
        if len(list(module.named_modules())) == 1:
            layers[path] = module
    return {**layers, "loss": CrossEntropy(labels)}


# -- the whole way, on the one that is checked --------------------------------------
def run(network: Module, layers: dict[str, Module], images: numpy.ndarray) -> list[Step]:
    """What every layer does with a batch in one pass forward and backward, the images' gradient included."""
    steps: list[Step] = []
    for path, layer in layers.items():
        keep_steps(path, layer, steps)
    start = Tensor(images, requires_grad=True)
    try:
        loss = layers["loss"].forward(network(start))
    except Exception as error:
        raise LayerError(start.backend.name, steps[-1], "forward", error) from None
    try:
        loss.backward()
    except Exception as error:
        reached = next(step for step in steps if hasattr(step, "output_gradient"))
        raise LayerError(start.backend.name, reached, "backward", error) from None
    return steps


def keep_steps(path: str, layer: Module, steps: list[Step]) -> None:
    """Have the layer note in `steps`, from now on, what it is given and what it makes of it."""
    forward = layer.forward

    def noted(x: Tensor) -> Tensor:
        step = Step(path, type(layer).__name__, array_of(x))
        steps.append(step)
        y = forward(listened_to(x, hear=partial(setattr, step, "input_gradient")))
        step.output = array_of(y)
        return listened_to(y, hear=partial(setattr, step, "output_gradient"))

    layer.forward = noted  # type: ignore[method-assign]


@op
def listened_to(xp, x, hear):
    """x as it is. `hear` is told its gradient, as a NumPy array, when backward() comes by."""

    def gradient_of_x(g):
        hear(numpy.array(xp.to_numpy(g), order="C"))
        return g

    return x, (gradient_of_x,)


def array_of(t: Tensor) -> numpy.ndarray:
    """A copy that nobody will overwrite."""
    return numpy.array(t.numpy(), order="C")


# -- layer by layer -------------------------------------------------------------------
class Ours:
    """Layers of this package, asked one by one. TorchTwin can be asked the same."""

    def __init__(self, layers: dict[str, Module]) -> None:
        self.layers = layers

    def answer(self, path: str, given: numpy.ndarray, output_gradient: Any) -> tuple[numpy.ndarray, numpy.ndarray]:
        """What the layer makes of an input, and its gradient once the output's is known."""
        x = Tensor(given, requires_grad=True)
        y = self.layers[path].forward(x)
        y.backward(output_gradient)
        assert x.grad is not None
        return array_of(y), array_of(x.grad)

    def gradients(self, path: str) -> dict[str, numpy.ndarray]:
        """Those of the layer's parameters, by name."""
        return {name: array_of(p.grad) for name, p in self.layers[path].named_parameters() if p.grad is not None}

    def averages(self, path: str) -> dict[str, numpy.ndarray]:
        """The moving averages of batch norm, by name."""
        return {name: array_of(buffer) for name, buffer in self.layers[path].named_buffers()}


def row_of(step: Step, output: numpy.ndarray, input_gradient: numpy.ndarray, own: Ours, judge: Ours | TorchTwin) -> Row:
    """What a layer has done beside what it should have done. Parameters may be shared: all steps are to be done."""
    averages, gradients = judge.averages(step.path), judge.gradients(step.path)
    values = [difference("output", step.output, output)]
    values += [difference(name, mine, averages[name]) for name, mine in own.averages(step.path).items()]
    scale = max(map(greatest, gradients.values()), default=0.0)  # a bias before batch norm has none but for rounding
    of_parameters = [
        difference(f"gradient of its {name}", mine, gradients[name], scale)
        for name, mine in own.gradients(step.path).items()
    ]
    return Row(
        step.path, step.kind, step.output.shape[1:], largest(values),
        difference("gradient of its input", step.input_gradient, input_gradient),
        largest(of_parameters) if of_parameters else None,
    )  # fmt: skip


def difference(what: str, checked: numpy.ndarray, trusted: numpy.ndarray, scale: float | None = None) -> Difference:
    """The largest, as a part of `scale`: of the greatest trusted value, if nothing else is said.

    Infinite where only one of the two is NaN, and where they have not even the same shape and dtype.
    """
    if (checked.shape, checked.dtype) != (trusted.shape, trusted.dtype):
        kinds = f"{checked.dtype} {checked.shape} in place of {trusted.dtype} {trusted.shape}"
        return Difference(numpy.inf, what, kinds)
    if not checked.size:
        return Difference(0.0, what)
    a, b = checked.astype("float64"), trusted.astype("float64")
    with numpy.errstate(all="ignore"):
        same = (a == b) | (numpy.isnan(a) & numpy.isnan(b))
        distance = numpy.where(same, 0, numpy.nan_to_num(abs(a - b), nan=numpy.inf, posinf=numpy.inf))
        place = numpy.unravel_index(distance.argmax(), distance.shape)
        relative = numpy.divide(distance[place], greatest(b) if scale is None else scale) if distance[place] else 0.0
    values = f"{checked[place]:.9g} in place of {trusted[place]:.9g}"
    return Difference(float(relative), what, values + (f" at {tuple(map(int, place))}" if place else ""))


def greatest(array: numpy.ndarray) -> float:
    """The greatest of the finite values, without signs."""
    return float(abs(array[numpy.isfinite(array)]).max(initial=0.0))


def largest(differences: Iterable[Difference]) -> Difference:
    return max(differences, key=lambda d: d.relative)


# -- showing -----------------------------------------------------------------------
def first_fault(rows: list[Row], tolerance: float) -> str | None:
    """The first layer that computes something else; if none does, the first from the end whose gradients differ."""
    for row in rows:
        if row.value.relative > tolerance:
            return in_words(row, row.value)
    for row in reversed(rows):
        gradients = largest(row.differences[1:])
        if gradients.relative > tolerance:
            return in_words(row, gradients)
    return None


def in_words(row: Row, found: Difference) -> str:
    return f"{row.path} ({row.kind}), {found.what}, by {found.relative:.1e}: {found.values}"


def print_table(rows: list[Row], tolerance: float) -> None:
    """A line for each layer. 0 means exactly equal."""

    def cell(d: Difference | None) -> str:
        if d is None or not d.relative:
            return "" if d is None else "0    "
        return f"{d.relative:.1e}" + (" <--" if d.relative > tolerance else "    ")

    table: list[tuple[str, ...]] = [
        ("layer", "what", "output", "value    ", "input gradient    ", "parameter gradients    ")
    ]
    for r in rows:
        cells = cell(r.value), cell(r.input_gradient), cell(r.parameter_gradients)
        table.append((r.path, r.kind, " x ".join(map(str, r.output_shape)), *cells))
    widths = [max(len(line[i]) for line in table) for i in range(6)]
    for line in table:
        left = [text.ljust(width) for text, width in zip(line[:3], widths[:3], strict=True)]
        right = [text.rjust(width) for text, width in zip(line[3:], widths[3:], strict=True)]
        print("  ".join(left + right).rstrip())


if __name__ == "__main__":
    sys.exit(main())
