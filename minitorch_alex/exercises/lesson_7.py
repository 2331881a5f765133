"""Examines the exercises of lesson 7, AlexNet assembled."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy

from .. import functional as F
from ..nn import Conv2d, Dropout, Flatten, Linear, MaxPool2d, Module, ReLU
from ..tensor import Tensor, no_grad, tensor
from ..watch import evaluating, watching
from .examination import Examination, exercise, shown


# -- 7.1 ------------------------------------------------------------------------
@exercise(
    "7.1",
    "the sizes of images that give so many windows",
    "How many pixels do the windows cover together, if nothing is left over? The last one starts at "
    "(outputs - 1) * stride.",
    "With (outputs - 1) * stride + kernel pixels nothing is left over. Rounded down there may be up to stride - 1 "
    "pixels more, rounded up as many fewer.",
)
def images_for(exam: Examination) -> None:
    for outputs, kernel, stride, up in (
        (55, 11, 4, False), (55, 11, 4, True), (13, 3, 2, False), (13, 3, 2, True), (7, 5, 5, False), (6, 7, 3, True),
        (20, 4, 1, False), (20, 4, 1, True), (2, 6, 4, False), (9, 3, 3, True),
    ):  # fmt: skip
        exact, more = (outputs - 1) * stride + kernel, stride - 1
        down_range, up_range = (exact, exact + more), (exact - more, exact)
        right = up_range if up else down_range
        full = outputs * stride + kernel
        suspects = {
            "this is where the number of windows is rounded the other way": down_range if up else up_range,
            "the two are in the wrong order: first the smaller": right[::-1],
            "there are outputs - 1 steps between the windows, not outputs": (full - more, full)
            if up
            else (full, full + more),
            "the window itself is missing: the last one takes `kernel` pixels": (right[0] - kernel, right[1] - kernel),
            "this is one pixel short: the last window ends at (outputs - 1) * stride + kernel": (
                right[0] - 1, right[1] - 1,
            ),
            "`stride` pixels more would give another window: stride - 1 at most": (exact - stride, exact)
            if up
            else (exact, exact + stride),
            "this is the size at which nothing is left over, twice: up to stride - 1 pixels more or fewer give as many "
            "windows": (exact, exact),
            "only one of the two depends on the rounding: here pixels are added on both sides": (
                exact - more, exact + more,
            ),
            "this is one number: a tuple of the smallest and the largest is wanted": exact,
        }  # fmt: skip
        suspects = {why: answer for why, answer in suspects.items() if answer != right}
        exam.expect(outputs, kernel, stride, up, gives=right, suspects=suspects, tolerance=0)


# -- 7.2 ------------------------------------------------------------------------
@exercise(
    "7.2",
    "parameters and multiply-accumulates of a convolution",
    "How many weights has one filter? As many as there are pixels in its window, times the channels that it sees.",
    "In G groups a filter sees channels // groups channels. All filters have a bias besides. Each weight is used once "
    "for each of outputs x outputs windows.",
)
def cost(exam: Examination) -> None:
    for channels, filters, kernel, outputs, groups in (
        (3, 96, 11, 55, 1), (96, 256, 5, 27, 2), (256, 384, 3, 13, 1), (12, 8, 3, 10, 4), (10, 6, 1, 7, 1),
        (6, 6, 5, 9, 6),
    ):  # fmt: skip
        seen = channels // groups
        taps, windows = seen * kernel**2, outputs**2
        right = filters * (taps + 1), filters * taps * windows
        whole = channels * kernel**2
        suspects: dict[str, Any] = {
            "the biases are missing among the parameters: one for each filter": (filters * taps, right[1]),
            "a filter sees only the channels of its own group: channels // groups": (
                filters * (whole + 1), filters * whole * windows,
            ),
            "the number of weights is right, but in the multiply-accumulates a filter sees all channels: divide by "
            "groups": (right[0], right[1] * groups),
            "in the parameters a filter sees all channels: divide by groups": (filters * (whole + 1), right[1]),
            "the filters are shared out among the groups already: all of them count, and each sees channels // groups "
            "channels": (filters // groups * (taps + 1), filters // groups * taps * windows),
            "there is one bias for each filter, not one for the layer": (filters * taps + 1, right[1]),
            "there is one bias for each filter, not for each tap of it": (2 * filters * taps, right[1]),
            "the bias is added once, which is no multiplication: the taps alone are multiplied": (
                right[0], filters * (taps + 1) * windows,
            ),
            "a window has kernel x kernel pixels: the square is missing": (
                filters * (seen * kernel + 1), filters * seen * kernel * windows,
            ),
            "there are outputs x outputs windows: the square is missing": (right[0], filters * taps * outputs),
            "the multiply-accumulates are those of one window: times outputs x outputs": (right[0], filters * taps),
            "the two are swapped: first the parameters": right[::-1],
            "a multiply-accumulate is one here, though a multiplication and an addition": (right[0], 2 * right[1]),
        }  # fmt: skip
        suspects = {why: answer for why, answer in suspects.items() if answer != right}
        exam.expect(channels, filters, kernel, outputs, groups, gives=right, suspects=suspects, tolerance=0)


# -- 7.3 ------------------------------------------------------------------------
def _slips(pixels: int, table: list[tuple[int, int, int, int]], mistake: str = "") -> Any:
    """The rows that do not follow from the row above; or what a usual mistake would answer."""
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        room = n + (1 if mistake == "one side" else 0 if mistake == "no padding" else 2) * padding - kernel
        size = (-(-room // stride) if mistake == "up" else room // stride) + (mistake != "no + 1")
        if size != printed:
            found.append(i + (mistake == "from 1"))
        n = pixels if mistake == "always the input" else size if mistake == "computed" else printed
    if mistake == "first":
        return found[:1]
    if mistake == "count":
        return len(found)
    if mistake == "right ones":
        return [i for i in range(len(table)) if i not in found]
    return [table[i][0] for i in found] if mistake == "sizes" else found


_SLIP_MISTAKES = {
    "it goes on from the size that it computed: compare each row with the size printed above it": "computed",
    "padding is added on both sides: 2 * padding": "one side",
    "the padding is not used": "no padding",
    "the number of windows is rounded up here: it should be down": "up",
    "the formula ends with + 1": "no + 1",
    "rows are counted from 0": "from 1",
    "every row is compared with the input: it follows from the row above": "always the input",
    "these are the rows that are right": "right ones",
    "it stops at the first slip: go on to the end of the table": "first",
    "this is how many there are: a list of their numbers is wanted": "count",
    "these are the sizes that are wrong: the numbers of their rows are wanted": "sizes",
}


@exercise(
    "7.3",
    "the rows of a table that do not follow from those above",
    "Go through the rows with `enumerate`, and keep the size of the row above in a variable that begins as `pixels`.",
    "A row is a slip if (n + 2 * padding - kernel) // stride + 1 is not what is printed. After it, n is what is "
    "*printed*, right or wrong.",
)
def slips(exam: Examination) -> None:
    paper = [(55, 11, 4, 0), (27, 3, 2, 0), (27, 5, 1, 2), (13, 3, 2, 0), (13, 3, 1, 1), (6, 3, 2, 0)]
    one_slip = [(55, 11, 4, 0), (27, 3, 2, 0), (27, 5, 1, 1), (13, 3, 2, 0), (13, 3, 1, 1), (6, 3, 2, 0)]
    not_carried_on = [(57, 11, 4, 4), (16, 3, 2, 0), (28, 5, 1, 2), (13, 3, 2, 0), (13, 3, 1, 1), (13, 3, 2, 0)]
    odd = [(8, 4, 3, 1), (8, 3, 2, 4), (6, 2, 1, 0), (6, 3, 1, 1), (2, 4, 3, 2), (4, 1, 2, 3)]
    for pixels, table in (
        (227, paper), (224, paper), (227, one_slip), (227, not_carried_on), (25, odd), (30, odd[::-1]),
    ):  # fmt: skip
        right = _slips(pixels, table)
        answers = {why: _slips(pixels, table, mistake) for why, mistake in _SLIP_MISTAKES.items()}
        suspects = {why: answer for why, answer in answers.items() if answer != right}
        title = f"slips({pixels}, {table})"
        got = exam.call(pixels, list(table), title=title)
        numbers = _whole_numbers(got)
        if numbers is None:
            usual = (why for why, answer in suspects.items() if type(got) is int and got == answer)
            raise exam.wrong(
                title, f"gives {shown(got)}, expected a list of whole numbers: {right}", cause=next(usual, "")
            )
        cause = next((why for why, answer in suspects.items() if answer == numbers), "")
        exam.require(numbers == right, title, f"gives {numbers}, expected {right}", cause=cause)


def _whole_numbers(value: Any) -> list[int] | None:
    """The whole numbers in a list, tuple or array; None if it is something else."""
    if not isinstance(value, list | tuple | numpy.ndarray):
        return None
    try:
        return [int(i) for i in value] if all(int(i) == i for i in value) else None
    except Exception:  # an answer may hold anything
        return None


# -- 7.4 ------------------------------------------------------------------------
@exercise(
    "7.4",
    "the memory that a training step takes, counted plainly",
    "Two parts: one does not depend on the number of images, the other is the same for each image.",
    "math.prod(shape) is how many numbers an array of that shape holds. Parameters count three times, as weights, "
    "gradients and velocities.",
)
def training_bytes(exam: Examination) -> None:
    alexnet = [(96, 55, 55), (96, 27, 27), (256, 27, 27), (256, 13, 13), (384, 13, 13), (4096,), (1000,)]
    for image, outputs, parameters, batch in (
        ((3, 227, 227), alexnet, 60_965_224, 128), ((1, 8, 8), [(64,), (10,)], 4810, 1), ((2, 5, 3), [(4, 2)], 7, 3),
        ((3, 32, 32), [(16, 32, 32), (16, 16, 16), (10,)], 12_345, 50), ((1, 2, 2), [], 9, 2),
    ):  # fmt: skip
        pixels, made = math.prod(image), sum(math.prod(shape) for shape in outputs)
        numbers = 3 * parameters + batch * (pixels + made)
        suspects = {
            "these are the numbers: each takes 4 bytes": numbers,
            "a number takes 4 bytes here, not 8": 8 * numbers,
            "each parameter needs three numbers: its gradient and its velocity are missing": 4
            * (parameters + batch * (pixels + made)),
            "each parameter needs three numbers: one of gradient and velocity is missing": 4
            * (2 * parameters + batch * (pixels + made)),
            "the weights do not grow with the batch: all images share them": 4
            * (batch * (3 * parameters + pixels + made)),
            "every image has its own outputs: they are to be multiplied by the batch": 4
            * (3 * parameters + pixels + made),
            "every image has its own outputs: only the images are multiplied by the batch here": 4
            * (3 * parameters + batch * pixels + made),
            "there are as many images as the batch says: only the outputs are multiplied by it": 4
            * (3 * parameters + pixels + batch * made),
            "the images themselves are missing": 4 * (3 * parameters + batch * made),
            "the outputs are missing": 4 * (3 * parameters + batch * pixels),
            "an output of shape (C, H, W) holds C x H x W numbers: multiply them, do not add": 4
            * (3 * parameters + batch * (sum(image) + sum(map(sum, outputs)))),
            "outputs need no velocities: only parameters count three times": 12
            * (parameters + batch * (pixels + made)),
        }
        if outputs:
            suspects["only the last output is counted: all layers' are kept"] = 4 * (
                3 * parameters + batch * (pixels + math.prod(outputs[-1]))
            )
        right = 4 * numbers
        suspects = {why: answer for why, answer in suspects.items() if answer != right}
        title = f"training_bytes({image}, {outputs}, {parameters}, {batch})"
        got = exam.call(image, list(outputs), parameters, batch, title=title)
        exam.compare(title, got, right, suspects, tolerance=0)


# -- 7.5 ------------------------------------------------------------------------
FILTERS, KERNELS, STRIDES, PADDINGS = (64, 192, 384, 256, 256), (11, 5, 3, 3, 3), (4, 1, 1, 1, 1), (2, 2, 1, 1, 1)
ORDER = [
    "conv1", "ReLU", "pool1", "conv2", "ReLU", "pool2", "conv3", "ReLU", "conv4", "ReLU", "conv5", "ReLU", "pool5",
    "Flatten", "Dropout", "fc6", "ReLU", "Dropout", "fc7", "ReLU", "fc8",
]  # fmt: skip
KINDS: dict[str, type[Module]] = {
    "conv": Conv2d, "pool": MaxPool2d, "fc": Linear, "ReLU": ReLU, "Flatten": Flatten, "Dropout": Dropout,
}  # fmt: skip


@exercise(
    "7.5",
    "AlexNet in one column, as torchvision has it",
    "Begin with the lesson's network as nn.Sequential(nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), ...), and "
    "change what the description changes.",
    "Behind the last pool there are 256 channels of 6 x 6 pixels, so the first nn.Linear has 256 * 6 * 6 inputs. "
    "Dropout stands between nn.Flatten() and it.",
    "The order of the end: Flatten, Dropout, Linear, ReLU, Dropout, Linear, ReLU, Linear. With 4096 units and 1000 "
    "classes there are 61,100,840 parameters, in the convolutions a few more than AlexNet has.",
)
def one_column(exam: Examination) -> None:
    for classes, units in ((7, 16), (5, 24)):
        made = f"one_column({classes}, {units})"
        network = exam.call(classes, units)
        exam.require(
            isinstance(network, Module),
            f"{made} is of the class {type(network).__name__}, which is no nn.Module",
            cause="return the whole network: nn.Sequential(...)",
        )
        x = tensor(numpy.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype("float32"))
        heard, result = _listen(network, x)
        stopped = isinstance(result, BaseException)
        _compare_order(exam, made, [layer for layer, _ in heard], to_the_end=not stopped)
        _compare_layers(exam, made, heard, classes, units)
        title = f"{made} of an image of 3 x 224 x 224"
        y = exam.call(x, function=partial(_end_with, result), title=title, stops=STOPS)
        parameters = [p for layer, _ in heard for p in layer.parameters()]
        exam.compare(f"what {made} makes of an image, in testing", y, _reference(x, parameters), tolerance=1e-4)


STOPS = {
    "features": "the first nn.Linear must have as many inputs as there are numbers behind nn.Flatten(): 256 * 6 * 6",
    "channels": "a convolution must have as many channels as the one before it has filters",
}


def _listen(network: Module, x: Tensor) -> tuple[list[tuple[Module, Any]], Any]:
    """The layers in the order in which an image passes them, each with the shape of its output; and what comes out at
    the end, or the error that it stops with.
    """
    heard: list[tuple[Module, Any]] = []

    def note(path: str, layer: Module, output: Any) -> None:
        if type(layer).__name__ != "AdaptiveAvgPool2d":  # torchvision has one, which changes nothing
            heard.append((layer, getattr(output, "shape", None)))

    try:
        with evaluating(network), watching(network, note), no_grad():
            return heard, network(x)
    except (Exception, SystemExit) as error:
        return heard, error


def _end_with(result: Any, x: Tensor) -> Any:
    if isinstance(result, BaseException):
        raise result
    return result


def _compare_order(exam: Examination, made: str, found: list[Module], to_the_end: bool) -> None:
    """Each layer must be of the kind that its place wants."""
    wanted = [next(kind for name, kind in KINDS.items() if place.startswith(name)) for place in ORDER]
    names = [type(layer).__name__ for layer in found]
    for i, (place, kind) in enumerate(zip(ORDER, wanted, strict=True)):
        if i == len(found) and not to_the_end:
            return
        layer = found[i] if i < len(found) else None
        exam.require(
            isinstance(layer, kind),
            f"{made}: layer {i}, counted from 0, is {layer!r}, expected {place}, an nn.{kind.__name__}",
            cause=_cause_of_order(place, layer, names),
        )
    extra = found[len(ORDER) :]
    cause = "the last layer gives scores: no bend, dropout or softmax behind it"
    exam.require(not extra, f"{made}: behind fc8 comes {extra[:1]}", cause=cause)


def _cause_of_order(place: str, layer: Module | None, names: list[str]) -> str:
    if not {kind.__name__ for kind in KINDS.values()} & {*names}:
        return "no layers of nn are passed: use nn.Conv2d, nn.ReLU, ... in one nn.Sequential"
    if "LocalResponseNorm" in names or "BatchNorm2d" in names:
        return "this variant has no normalisation"
    if "ReLU" not in names and place == "ReLU":
        return "ReLUs are layers here: nn.ReLU() behind every convolution and behind fc6 and fc7"
    if place == "ReLU":
        return "a ReLU is missing there, or stands elsewhere: it comes directly behind its layer"
    if place == "Dropout":
        return "dropout stands before fc6 and before fc7 in this variant, not behind them"
    if place.startswith("pool") or isinstance(layer, MaxPool2d):
        return "pooling comes behind the ReLUs of conv1, conv2 and conv5, and nowhere else"
    if place == "Flatten":
        return "nn.Flatten() lays each image out as a row, behind the last pool"
    if isinstance(layer, Dropout):
        return "there are two layers of dropout: directly before fc6 and directly before fc7"
    return ""


def _compare_layers(exam: Examination, made: str, heard: list[tuple[Module, Any]], classes: int, units: int) -> None:
    """Settings and output sizes, layer by layer."""
    channels, convolutions, inputs = 3, 0, 256 * 6 * 6
    sizes = iter((55, 27, 27, 13, 13, 13, 13, 6))
    for place, (layer, shape) in zip(ORDER, heard, strict=False):  # it may have stopped on the way
        said = f"{made}: {place} is {layer!r}"
        if isinstance(layer, Conv2d):
            k, convolutions = convolutions, convolutions + 1
            _compare_convolution(exam, said, layer, channels, k)
            channels = FILTERS[k]
        elif isinstance(layer, Linear):
            outputs = classes if place == "fc8" else units
            cause = "the numbers in front of it are 256 * 6 * 6, `units` and `units`; it gives `units` or, at the end, "
            exam.require(
                tuple(layer.weight.shape) == (outputs, inputs) and layer.bias is not None,
                f"{said}, expected {inputs} inputs, {outputs} outputs, and a bias",
                cause=cause + "`classes`",
            )
            inputs = units
        elif isinstance(layer, Dropout):
            exam.require(layer.p == 0.5, said, "expected a probability of 0.5")
        if place[:4] in ("conv", "pool"):
            size = next(sizes)
            exam.require(
                shape == (1, channels, size, size),
                f"{said}, and its output has shape {shape}, expected {(1, channels, size, size)}",
                cause=_cause_of_size(layer),
            )


def _compare_convolution(exam: Examination, said: str, layer: Conv2d, channels: int, k: int) -> None:
    kernel = (KERNELS[k], KERNELS[k])
    weight = tuple(layer.weight.shape)
    cause = ""
    if layer.groups != 1:
        cause = "this variant has one column: no groups"
    elif weight[0] != FILTERS[k]:
        cause = f"it has {FILTERS[k]} filters"
    elif weight[2:] != kernel:
        cause = f"its filters have {KERNELS[k]} x {KERNELS[k]} pixels"
    exam.require(
        weight == (FILTERS[k], channels, *kernel) and layer.groups == 1 and layer.bias is not None,
        f"{said}, whose weight has shape {weight}, expected {(FILTERS[k], channels, *kernel)}, and a bias",
        cause=cause,
    )
    wanted = ((STRIDES[k],) * 2, (PADDINGS[k],) * 2)
    given: tuple[Any, ...] = (layer.stride, layer.padding)
    settings = [tuple(value) if isinstance(value, tuple | list) else (value,) * 2 for value in given]
    same = layer.padding == "same" and STRIDES[k] == 1
    exam.require(
        settings[0] == wanted[0] and (settings[1] == wanted[1] or same),
        f"{said}, expected stride {STRIDES[k]} and padding {PADDINGS[k]}",
        cause="a filter of n pixels keeps height and width with the padding n // 2" if k else "",
    )


def _cause_of_size(layer: Module) -> str:
    if isinstance(layer, MaxPool2d) and layer.stride == layer.kernel_size:
        return "nn.MaxPool2d(3) moves by 3 pixels: write nn.MaxPool2d(3, stride=2)"
    if isinstance(layer, MaxPool2d):
        return "the windows of a pool have 3 x 3 pixels and are two apart, without padding"
    return "the size follows from (n + 2 * padding - kernel) // stride + 1"


def _reference(x: Tensor, parameters: list[Any]) -> numpy.ndarray:
    """The same network with functions."""
    with no_grad():
        for k in range(8):
            weight, bias = parameters[2 * k : 2 * k + 2]
            if k == 5:
                x = F.flatten(x, 1)
            if k < 5:
                x = F.conv2d(x, weight, bias, stride=STRIDES[k], padding=PADDINGS[k])
            else:
                x = F.linear(x, weight, bias)
            x = F.relu(x) if k < 7 else x
            x = F.max_pool2d(x, 3, 2) if k in (0, 1, 4) else x
    return x.numpy()
