"""What PyTorch refuses is refused here, with a message that names the operation, what was given and what to do.

Each row: what is wrong, a call, the error, and the words that its message must contain ("a|b": one of the two).
"""

from __future__ import annotations

import math

import numpy
import pytest

from minitorch_alex import Tensor, backends, init, nn, optim, tensor
from minitorch_alex import functional as F

NAN, INF = math.nan, math.inf


@pytest.fixture(autouse=True)
def _on_each_backend(backend):
    """Everything here runs on every backend."""


def x(*shape, dtype="float32", **kw):
    return Tensor(numpy.ones(shape, dtype), **kw)


def labels(*values):
    return numpy.array(values, "int64")


def conv(**kw):
    return F.conv2d(x(2, 4, 7, 8), x(6, 4, 3, 2), x(6), **kw)


def batch_norm(shape=(4, 3, 2), mean=3, var=3, weight=3, bias=3, dtype="float32", **kw):
    rest = [None if n is None else x(n) for n in (mean, var, weight, bias)]
    return F.batch_norm(x(*shape, dtype=dtype), *rest, **kw)


def cross_entropy(target=(0, 1, 2, 3), shape=(4, 5), **kw):
    return F.cross_entropy(x(*shape), numpy.asarray(target), **kw)


class Words:
    """Not an array, a number or a tensor."""


NOT_NUMBERS = {
    "a string": "abc",
    "None": None,
    "strings": ["a", "b", "c"],
    "a ragged list": [[1], [1, 2]],
    "objects": numpy.array([None, None, None]),
    "complex numbers": numpy.ones(3) * 1j,
    "a complex number": 1j,
    "dates": numpy.array(["2020-01-01"] * 3, "datetime64[D]"),
    "an object": Words(),
    "a dict": {},
    "half precision": numpy.ones(3, "float16"),
}

CONVOLUTION = [
    ("kernel larger than the image", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 3, 3)),
     ValueError, ["conv2d", "3 x 3", "2 x 2", "padding"]),
    ("kernel larger in one direction", lambda: F.conv2d(x(1, 1, 7, 2), x(1, 1, 3, 3)), ValueError, ["conv2d", "7 x 2"]),
    ("dilated kernel larger than the image", lambda: conv(dilation=4),
     ValueError, ["conv2d", "9 x 5", "7 x 8", "dilation"]),
    ("huge dilation", lambda: conv(dilation=2**62), ValueError, ["conv2d", "dilation"]),
    ("channels", lambda: F.conv2d(x(2, 3, 7, 7), x(6, 4, 3, 3)),
     ValueError, ["conv2d", "(6, 4, 3, 3)", "(2, 3, 7, 7)", "4 channels"]),
    ("groups that do not divide the filters", lambda: F.conv2d(x(2, 6, 7, 7), x(4, 2, 3, 3), groups=3),
     ValueError, ["conv2d", "(4, 2, 3, 3)", "3 groups"]),
    ("groups that do not fit the channels", lambda: conv(groups=2),
     ValueError, ["conv2d", "groups=2", "8 channels", "(2, 4, 7, 8)"]),
    ("groups 0", lambda: conv(groups=0), ValueError, ["conv2d", "groups", "0"]),
    ("groups -1", lambda: conv(groups=-1), ValueError, ["conv2d", "groups", "-1"]),
    ("groups 2.0", lambda: conv(groups=2.0), (ValueError, TypeError), ["conv2d", "groups", "2.0"]),
    ("groups True", lambda: conv(groups=True), (ValueError, TypeError), ["conv2d", "groups", "True"]),
    ("groups None", lambda: conv(groups=None), (ValueError, TypeError), ["conv2d", "groups", "None"]),
    ("input of rank 2", lambda: F.conv2d(x(7, 8), x(6, 4, 3, 2)),
     ValueError, ["conv2d", "input", "(N, C, H, W)", "(7, 8)"]),
    ("input of rank 5", lambda: F.conv2d(x(1, 2, 4, 7, 7), x(6, 4, 3, 2)),
     ValueError, ["conv2d", "input", "(1, 2, 4, 7, 7)"]),
    ("weight of rank 3", lambda: F.conv2d(x(2, 4, 7, 8), x(4, 3, 2)), ValueError, ["conv2d", "weight", "(4, 3, 2)"]),
    ("bias of another length", lambda: F.conv2d(x(2, 4, 7, 8), x(6, 4, 3, 2), x(5)),
     ValueError, ["conv2d", "bias", "(6,)", "(5,)"]),
    ("bias of another rank", lambda: F.conv2d(x(2, 4, 7, 8), x(6, 4, 3, 2), x(6, 1)),
     ValueError, ["conv2d", "bias", "(6, 1)"]),
    ("bias a number", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), 1.0), TypeError, ["conv2d", "bias", "float"]),
    ("bias a list", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), [1.0]), TypeError, ["conv2d", "bias", "list"]),
    ("bias an array", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), numpy.ones(1, "float32")),
     TypeError, ["conv2d", "bias", "ndarray"]),
    ("input an array", lambda: F.conv2d(numpy.ones((1, 1, 2, 2)), x(1, 1, 1, 1)),
     TypeError, ["conv2d", "input", "ndarray", "tensor("]),
    ("input a list", lambda: F.conv2d([[[1.0]]], x(1, 1, 1, 1)), TypeError, ["conv2d", "input", "list", "tensor("]),
    ("no weight", lambda: F.conv2d(x(1, 1, 2, 2), None), TypeError, ["conv2d", "weight", "None"]),
    ("no filters", lambda: F.conv2d(x(1, 1, 2, 2), x(0, 1, 1, 1)), ValueError, ["conv2d", "(0, 1, 1, 1)"]),
    ("no taps", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 0, 1)), ValueError, ["conv2d", "(1, 1, 0, 1)"]),
    ("no pixels", lambda: F.conv2d(x(1, 1, 0, 2), x(1, 1, 2, 2), padding=1),
     ValueError, ["conv2d", "(1, 1, 0, 2)|0 x 2"]),
    ("stride 0", lambda: conv(stride=0), ValueError, ["conv2d", "stride", "0"]),
    ("stride -1", lambda: conv(stride=-1), ValueError, ["conv2d", "stride", "-1"]),
    ("one stride 0", lambda: conv(stride=(1, 0)), ValueError, ["conv2d", "stride", "(1, 0)"]),
    ("stride 2.0", lambda: conv(stride=2.0), TypeError, ["conv2d", "stride", "2.0"]),
    ("stride True", lambda: conv(stride=True), TypeError, ["conv2d", "stride", "True"]),
    ("stride None", lambda: conv(stride=None), TypeError, ["conv2d", "stride", "None"]),
    ("stride a string", lambda: conv(stride="2"), TypeError, ["conv2d", "stride", "'2'"]),
    ("three strides", lambda: conv(stride=(1, 2, 3)), TypeError, ["conv2d", "stride", "(1, 2, 3)"]),
    ("no strides", lambda: conv(stride=()), TypeError, ["conv2d", "stride", "()"]),
    ("stride beyond 64 bits", lambda: conv(stride=10**20), ValueError, ["conv2d"]),
    ("padding -1", lambda: conv(padding=-1), ValueError, ["conv2d", "padding", "-1"]),
    ("padding 1.0", lambda: conv(padding=1.0), TypeError, ["conv2d", "padding", "1.0"]),
    ("padding nan", lambda: conv(padding=NAN), TypeError, ["conv2d", "padding", "nan"]),
    ("padding None", lambda: conv(padding=None), TypeError, ["conv2d", "padding", "None"]),
    ("padding unknown", lambda: conv(padding="SAME"), ValueError, ["conv2d", "'same'", "'valid'", "'SAME'"]),
    ("padding same with stride", lambda: conv(padding="same", stride=2),
     ValueError, ["conv2d", "'same'", "stride", "2"]),
    ("dilation 0", lambda: conv(dilation=0), ValueError, ["conv2d", "dilation", "0"]),
    ("dilation -1", lambda: conv(dilation=-1), ValueError, ["conv2d", "dilation", "-1"]),
    ("float32 with float64", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1, dtype="float64")),
     TypeError, ["conv2d", "float32", "float64", ".float()"]),
    ("bias of another dtype", lambda: F.conv2d(x(1, 1, 2, 2), x(1, 1, 1, 1), x(1, dtype="float64")),
     TypeError, ["conv2d", "bias float64"]),
    ("whole numbers", lambda: F.conv2d(x(1, 1, 2, 2, dtype="int64"), x(1, 1, 1, 1)),
     TypeError, ["conv2d", "int64", ".float()"]),
]  # fmt: skip

POOLING = [
    row
    for name in ("max_pool2d", "avg_pool2d")
    for pool in [getattr(F, name)]
    for row in [
        (f"{name}: window larger than the image", lambda pool=pool: pool(x(1, 1, 2, 8), 3),
         ValueError, [name, "3 x 3", "2 x 8", "padding"]),
        (f"{name}: padding over half", lambda pool=pool: pool(x(1, 1, 7, 8), 2, padding=2),
         ValueError, [name, "padding 2", "half"]),
        (f"{name}: padding over half of an odd window", lambda pool=pool: pool(x(1, 1, 7, 8), 3, padding=2),
         ValueError, [name, "padding 2", "half"]),
        (f"{name}: padding over half, horizontally", lambda pool=pool: pool(x(1, 1, 7, 8), 2, padding=(0, 2)),
         ValueError, [name, "padding 2", "half"]),
        (f"{name}: padding -1", lambda pool=pool: pool(x(1, 1, 7, 8), 2, padding=-1),
         ValueError, [name, "padding", "-1"]),
        (f"{name}: padding 'same'", lambda pool=pool: pool(x(1, 1, 7, 8), 2, padding="same"),
         TypeError, [name, "padding", "'same'"]),
        (f"{name}: kernel 0", lambda pool=pool: pool(x(1, 1, 7, 8), 0), ValueError, [name, "kernel_size", "0"]),
        (f"{name}: kernel -1", lambda pool=pool: pool(x(1, 1, 7, 8), -1), ValueError, [name, "kernel_size", "-1"]),
        (f"{name}: kernel 2.0", lambda pool=pool: pool(x(1, 1, 7, 8), 2.0), TypeError, [name, "kernel_size", "2.0"]),
        (f"{name}: kernel None", lambda pool=pool: pool(x(1, 1, 7, 8), None), TypeError, [name, "kernel_size", "None"]),
        (f"{name}: kernel of three", lambda pool=pool: pool(x(1, 1, 7, 8), (1, 2, 3)),
         TypeError, [name, "kernel_size", "(1, 2, 3)"]),
        (f"{name}: stride 0", lambda pool=pool: pool(x(1, 1, 7, 8), 2, stride=0), ValueError, [name, "stride", "0"]),
        (f"{name}: stride 2.0", lambda pool=pool: pool(x(1, 1, 7, 8), 2, stride=2.0),
         TypeError, [name, "stride", "2.0"]),
        (f"{name}: stride beyond 64 bits", lambda pool=pool: pool(x(1, 1, 7, 8), 2, stride=10**20), ValueError, [name]),
        (f"{name}: ceil_mode a string", lambda pool=pool: pool(x(1, 1, 7, 8), 2, ceil_mode="no"),
         TypeError, [name, "ceil_mode", "'no'"]),
        (f"{name}: rank 2", lambda pool=pool: pool(x(7, 8), 2), ValueError, [name, "(N, C, H, W)", "(7, 8)"]),
        (f"{name}: rank 5", lambda pool=pool: pool(x(1, 1, 1, 7, 8), 2), ValueError, [name, "(1, 1, 1, 7, 8)"]),
        (f"{name}: no rows", lambda pool=pool: pool(x(1, 1, 0, 8), 2), ValueError, [name, "0 x 8|(1, 1, 0, 8)"]),
        (f"{name}: no rows but padding", lambda pool=pool: pool(x(1, 1, 0, 8), 2, padding=1),
         ValueError, [name, "0 x 8|(1, 1, 0, 8)"]),
        (f"{name}: whole numbers", lambda pool=pool: pool(x(1, 1, 7, 8, dtype="int64"), 2),
         TypeError, [name, "int64", ".float()"]),
        (f"{name}: a list", lambda pool=pool: pool([[[1.0]]], 1), TypeError, [name, "list", "tensor("]),
    ]
] + [
    ("max_pool2d: dilation 0", lambda: F.max_pool2d(x(1, 1, 7, 8), 2, dilation=0),
     ValueError, ["max_pool2d", "dilation", "0"]),
    ("max_pool2d: dilated window too large", lambda: F.max_pool2d(x(1, 1, 7, 8), 3, dilation=4),
     ValueError, ["max_pool2d", "9 x 9", "7 x 8"]),
    ("max_pool2d: padding over half of the kernel, dilated",
     lambda: F.max_pool2d(x(1, 1, 1, 1), 2, padding=2, dilation=3),
     ValueError, ["max_pool2d", "padding 2"]),
    ("avg_pool2d: divisor 0", lambda: F.avg_pool2d(x(1, 1, 7, 8), 2, divisor_override=0),
     ValueError, ["avg_pool2d", "divisor_override", "0"]),
    ("avg_pool2d: divisor nan", lambda: F.avg_pool2d(x(1, 1, 7, 8), 2, divisor_override=NAN),
     (TypeError, ValueError), ["avg_pool2d", "divisor_override", "nan"]),
    ("avg_pool2d: divisor a string", lambda: F.avg_pool2d(x(1, 1, 7, 8), 2, divisor_override="3"),
     TypeError, ["avg_pool2d", "divisor_override", "'3'"]),
    ("adaptive_avg_pool2d: size -1", lambda: F.adaptive_avg_pool2d(x(1, 1, 7, 8), -1),
     ValueError, ["adaptive_avg_pool2d", "output_size", "-1"]),
    ("adaptive_avg_pool2d: three sizes", lambda: F.adaptive_avg_pool2d(x(1, 1, 7, 8), (1, 2, 3)),
     ValueError, ["adaptive_avg_pool2d", "(1, 2, 3)"]),
    ("adaptive_avg_pool2d: size 2.0", lambda: F.adaptive_avg_pool2d(x(1, 1, 7, 8), 2.0),
     (TypeError, ValueError), ["adaptive_avg_pool2d", "output_size", "2.0"]),
    ("adaptive_avg_pool2d: size True", lambda: F.adaptive_avg_pool2d(x(1, 1, 7, 8), True),
     (TypeError, ValueError), ["adaptive_avg_pool2d", "output_size", "True"]),
    ("adaptive_avg_pool2d: a string", lambda: F.adaptive_avg_pool2d(x(1, 1, 7, 8), "22"),
     (TypeError, ValueError), ["adaptive_avg_pool2d", "'22'"]),
    ("adaptive_avg_pool2d: no pixels", lambda: F.adaptive_avg_pool2d(x(1, 1, 0, 8), 2),
     ValueError, ["adaptive_avg_pool2d", "(1, 1, 0, 8)"]),
    ("adaptive_avg_pool2d: rank 2", lambda: F.adaptive_avg_pool2d(x(7, 8), 2),
     ValueError, ["adaptive_avg_pool2d", "(7, 8)"]),
]  # fmt: skip

NORMALISATION = [
    ("local_response_norm: size 0", lambda: F.local_response_norm(x(1, 3, 2), 0),
     ValueError, ["local_response_norm", "size", "0"]),
    ("local_response_norm: size -1", lambda: F.local_response_norm(x(1, 3, 2), -1),
     ValueError, ["local_response_norm", "size", "-1"]),
    ("local_response_norm: size 2.5", lambda: F.local_response_norm(x(1, 3, 2), 2.5),
     (TypeError, ValueError), ["local_response_norm", "size", "2.5"]),
    ("local_response_norm: size None", lambda: F.local_response_norm(x(1, 3, 2), None),
     (TypeError, ValueError), ["local_response_norm", "size", "None"]),
    ("local_response_norm: rank 2", lambda: F.local_response_norm(x(3, 4), 2),
     ValueError, ["local_response_norm", "3 dimensions", "(3, 4)"]),
    ("local_response_norm: beta None", lambda: F.local_response_norm(x(1, 3, 2), 2, beta=None),
     TypeError, ["local_response_norm", "None"]),
    ("local_response_norm: alpha a string", lambda: F.local_response_norm(x(1, 3, 2), 2, alpha="1"),
     TypeError, ["local_response_norm", "str|'1'"]),
    ("local_response_norm: k complex", lambda: F.local_response_norm(x(1, 3, 2), 2, k=1j),
     TypeError, ["local_response_norm", "complex|1j"]),
    ("local_response_norm: whole numbers", lambda: F.local_response_norm(x(1, 3, 2, dtype="int64"), 2),
     TypeError, ["local_response_norm", "int64", ".float()"]),
    ("batch_norm: one value per channel", lambda: batch_norm((1, 3), training=True),
     ValueError, ["batch_norm", "more than one value per channel", "(1, 3)"]),
    ("batch_norm: one pixel", lambda: batch_norm((1, 3, 1, 1), training=True),
     ValueError, ["batch_norm", "more than one value per channel", "(1, 3, 1, 1)"]),
    ("batch_norm: rank 1", lambda: batch_norm((3,)), ValueError, ["batch_norm", "(N, C, ...)", "(3,)"]),
    ("batch_norm: weight", lambda: batch_norm(weight=2), ValueError, ["batch_norm", "weight", "(3,)", "(2,)"]),
    ("batch_norm: bias", lambda: batch_norm(bias=4), ValueError, ["batch_norm", "bias", "(3,)", "(4,)"]),
    ("batch_norm: running_mean", lambda: batch_norm(mean=4),
     ValueError, ["batch_norm", "running_mean", "(3,)", "(4,)"]),
    ("batch_norm: running_var", lambda: batch_norm(var=1), ValueError, ["batch_norm", "running_var", "(3,)", "(1,)"]),
    ("batch_norm: no running statistics to use", lambda: batch_norm(mean=None, var=None),
     ValueError, ["batch_norm", "running_mean", "running_var"]),
    ("batch_norm: one running statistic", lambda: batch_norm(var=None, training=True),
     ValueError, ["batch_norm", "running_mean", "running_var"]),
    ("batch_norm: float32 with float64", lambda: batch_norm(dtype="float64"),
     TypeError, ["batch_norm", "float64", "float32", ".float()"]),
    ("batch_norm: running statistics of another dtype",
     lambda: F.batch_norm(x(4, 3), x(3, dtype="float64"), x(3, dtype="float64")),
     TypeError, ["batch_norm", "running_mean float64"]),
    ("batch_norm: running statistics of whole numbers",
     lambda: F.batch_norm(x(4, 3), x(3, dtype="int64"), x(3, dtype="int64"), training=True),
     TypeError, ["batch_norm", "running_mean int64"]),
    ("batch_norm: running statistics an array",
     lambda: F.batch_norm(x(4, 3), numpy.zeros(3, "float32"), numpy.ones(3, "float32")),
     TypeError, ["batch_norm", "running_mean", "ndarray"]),
    ("batch_norm: running statistics with a gradient",
     lambda: F.batch_norm(x(4, 3), x(3, requires_grad=True), x(3, requires_grad=True)),
     (TypeError, ValueError), ["batch_norm", "running_mean", "gradient"]),
    ("batch_norm: running statistics a list", lambda: F.batch_norm(x(4, 3), [0.0] * 3, [1.0] * 3),
     TypeError, ["batch_norm", "running_mean", "list"]),
    ("batch_norm: weight a list", lambda: F.batch_norm(x(4, 3), None, None, [1.0] * 3, training=True),
     TypeError, ["batch_norm", "weight", "list"]),
    ("batch_norm: whole numbers", lambda: batch_norm(dtype="int64"), TypeError, ["batch_norm", "int64", ".float()"]),
    ("batch_norm: eps 0 in training", lambda: batch_norm(training=True, eps=0.0),
     ValueError, ["batch_norm", "eps", "0.0"]),
    ("batch_norm: eps -1", lambda: batch_norm(eps=-1.0), ValueError, ["batch_norm", "eps", "-1.0"]),
    ("batch_norm: eps None", lambda: batch_norm(eps=None), TypeError, ["batch_norm", "eps", "None"]),
    ("batch_norm: eps a string", lambda: batch_norm(eps="a"), TypeError, ["batch_norm", "eps", "'a'"]),
    ("batch_norm: momentum a string", lambda: batch_norm(training=True, momentum="a"),
     TypeError, ["batch_norm", "momentum", "'a'"]),
    ("dropout: p 1.1", lambda: F.dropout(x(3), 1.1), ValueError, ["dropout", "[0, 1]", "1.1"]),
    ("dropout: p -0.1", lambda: F.dropout(x(3), -0.1), ValueError, ["dropout", "[0, 1]", "-0.1"]),
    ("dropout: p nan", lambda: F.dropout(x(3), NAN), ValueError, ["dropout", "[0, 1]", "nan"]),
    ("dropout: p out of range outside training", lambda: F.dropout(x(3), 2, training=False),
     ValueError, ["dropout", "[0, 1]"]),
    ("dropout: p None", lambda: F.dropout(x(3), None), TypeError, ["dropout", "None"]),
    ("dropout: p a string", lambda: F.dropout(x(3), "0.5"), TypeError, ["dropout", "'0.5'"]),
    ("dropout: p several", lambda: F.dropout(x(3), numpy.array([0.5, 0.5, 0.5])),
     (TypeError, ValueError), ["dropout", "[0.5"]),
    ("dropout: whole numbers", lambda: F.dropout(x(3, dtype="int64")), TypeError, ["dropout", "int64", ".float()"]),
    ("dropout: a list", lambda: F.dropout([1.0]), TypeError, ["dropout", "list", "tensor("]),
]  # fmt: skip

LOSSES = [
    ("label too large", lambda: cross_entropy((0, 1, 2, 5)),
     IndexError, ["cross_entropy", "label 5", "5 classes", "0 to 4"]),
    ("label negative", lambda: cross_entropy((0, 1, 2, -1)), IndexError, ["cross_entropy", "label -1", "5 classes"]),
    ("label huge", lambda: cross_entropy((0, 1, 2, 2**40)), IndexError, ["cross_entropy", str(2**40)]),
    ("float labels", lambda: cross_entropy((0.0, 1.0, 2.0, 3.0)),
     (TypeError, ValueError), ["cross_entropy", "float64", "whole numbers"]),
    ("boolean labels", lambda: cross_entropy((True,) * 4), TypeError, ["cross_entropy", "bool", "whole numbers"]),
    ("string labels", lambda: cross_entropy(("a", "b", "c", "d")), TypeError, ["cross_entropy", "whole numbers"]),
    ("no labels", lambda: F.cross_entropy(x(4, 5), None), TypeError, ["cross_entropy", "None|object"]),
    ("ragged labels", lambda: F.cross_entropy(x(2, 5), [[0], [1, 2]]), (TypeError, ValueError), ["cross_entropy"]),
    ("complex target", lambda: F.cross_entropy(x(2, 5), numpy.ones((2, 5)) * 1j),
     TypeError, ["cross_entropy", "complex128"]),
    ("too few labels", lambda: cross_entropy((0, 1, 2)), ValueError, ["cross_entropy", "(4, 5)", "(4,)", "(3,)"]),
    ("labels in a column", lambda: cross_entropy([[0], [1], [2], [3]]),
     ValueError, ["cross_entropy", "(4,)", "(4, 1)"]),
    ("labels one-hot in whole numbers", lambda: cross_entropy(numpy.eye(5, dtype=int)[:4]),
     ValueError, ["cross_entropy", "(4, 5)"]),
    ("labels without the extra dimension", lambda: cross_entropy((0, 1, 2, 3), (4, 5, 3)),
     ValueError, ["cross_entropy", "(4, 5, 3)", "(4, 3)", "(4,)"]),
    ("several labels for one row", lambda: cross_entropy((0, 1), (5,)),
     ValueError, ["cross_entropy", "(5,)", "()", "(2,)"]),
    ("probabilities of another shape", lambda: cross_entropy(numpy.ones((5, 4))),
     ValueError, ["cross_entropy", "(4, 5)", "(5, 4)"]),
    ("0-d scores", lambda: F.cross_entropy(x(), numpy.array(0)), ValueError, ["cross_entropy", "(N, K)", "()"]),
    ("scores of whole numbers", lambda: F.cross_entropy(x(4, 5, dtype="int64"), labels(0, 1, 2, 3)),
     TypeError, ["cross_entropy", "int64", ".float()"]),
    ("scores an array", lambda: F.cross_entropy(numpy.ones((4, 5)), labels(0, 1, 2, 3)),
     TypeError, ["cross_entropy", "ndarray", "tensor("]),
    ("class weight too short", lambda: cross_entropy(weight=numpy.ones(4)),
     ValueError, ["cross_entropy", "weight", "(5,)", "(4,)"]),
    ("class weight in a column", lambda: cross_entropy(weight=numpy.ones((5, 1))),
     ValueError, ["cross_entropy", "weight", "(5, 1)"]),
    ("class weight a number", lambda: cross_entropy(weight=2.0), ValueError, ["cross_entropy", "weight", "()"]),
    ("class weight complex", lambda: cross_entropy(weight=numpy.ones(5) * 1j),
     TypeError, ["cross_entropy", "weight", "complex"]),
    ("class weight strings", lambda: cross_entropy(weight=["a"] * 5),
     (TypeError, ValueError), ["cross_entropy", "weight"]),
    ("class weight with a gradient", lambda: cross_entropy(weight=x(5, requires_grad=True)),
     TypeError, ["cross_entropy", "weights", "detach"]),
    ("reduction unknown", lambda: cross_entropy(reduction="batchmean"),
     ValueError, ["cross_entropy", "'none', 'mean' or 'sum'", "'batchmean'"]),
    ("reduction None", lambda: cross_entropy(reduction=None),
     ValueError, ["cross_entropy", "'none', 'mean' or 'sum'", "None"]),
    ("label_smoothing 1.1", lambda: cross_entropy(label_smoothing=1.1), ValueError, ["cross_entropy", "[0, 1]", "1.1"]),
    ("label_smoothing -0.1", lambda: cross_entropy(label_smoothing=-0.1),
     ValueError, ["cross_entropy", "[0, 1]", "-0.1"]),
    ("label_smoothing nan", lambda: cross_entropy(label_smoothing=NAN), ValueError, ["cross_entropy", "[0, 1]", "nan"]),
    ("label_smoothing None", lambda: cross_entropy(label_smoothing=None),
     TypeError, ["cross_entropy", "label_smoothing", "None"]),
    ("ignore_index 1.0", lambda: cross_entropy(ignore_index=1.0), TypeError, ["cross_entropy", "ignore_index", "1.0"]),
    ("ignore_index None", lambda: cross_entropy(ignore_index=None),
     TypeError, ["cross_entropy", "ignore_index", "None"]),
    ("nll_loss: label too large", lambda: F.nll_loss(x(2, 3), labels(0, 3)),
     IndexError, ["nll_loss", "label 3", "3 classes"]),
    ("nll_loss: probabilities", lambda: F.nll_loss(x(2, 3), numpy.ones((2, 3))),
     TypeError, ["nll_loss", "float64", "whole numbers"]),
    ("nll_loss: labels of another shape", lambda: F.nll_loss(x(2, 3), labels(0)),
     ValueError, ["nll_loss", "(2,)", "(1,)"]),
    ("nll_loss: class weight", lambda: F.nll_loss(x(2, 3), labels(0, 1), numpy.ones(2)),
     ValueError, ["nll_loss", "weight", "(3,)", "(2,)"]),
    ("nll_loss: reduction", lambda: F.nll_loss(x(2, 3), labels(0, 1), reduction="x"),
     ValueError, ["nll_loss", "'mean'", "'x'"]),
    ("nll_loss: ignore_index 1.0", lambda: F.nll_loss(x(2, 3), labels(0, 1), ignore_index=1.0),
     TypeError, ["nll_loss", "ignore_index", "1.0"]),
    ("mse_loss: reduction", lambda: F.mse_loss(x(2), x(2), reduction="x"), ValueError, ["mse_loss", "'mean'", "'x'"]),
    ("mse_loss: target None", lambda: F.mse_loss(x(2), None), TypeError, ["None"]),
    ("mse_loss: whole numbers", lambda: F.mse_loss(x(2, dtype="int64"), x(2, dtype="int64")),
     TypeError, ["int64", ".float()"]),
]  # fmt: skip

PRODUCTS = [
    ("matmul: inner sizes", lambda: x(2, 3) @ x(4, 5), ValueError, ["matmul", "(2, 3)", "(4, 5)", "3", "4"]),
    ("matmul: vectors", lambda: x(3) @ x(4), ValueError, ["matmul", "(3,)", "(4,)"]),
    ("matmul: matrix and vector", lambda: x(2, 3) @ x(2), ValueError, ["matmul", "(2, 3)", "(2,)"]),
    ("matmul: leading sizes", lambda: x(2, 3, 4) @ x(5, 4, 3), ValueError, ["matmul", "(2, 3, 4)", "(5, 4, 3)"]),
    ("matmul: 0-d", lambda: F.matmul(x(), x(3)), ValueError, ["matmul", "dimension", "()"]),
    ("matmul: float32 with float64", lambda: x(2, 3) @ x(3, 2, dtype="float64"),
     TypeError, ["matmul", "float32", "float64", ".float()"]),
    ("matmul: whole numbers with floats", lambda: x(2, 3, dtype="int64") @ x(3, 2),
     TypeError, ["matmul", "int64", ".float()"]),
    ("matmul: a list", lambda: x(3) @ [1.0, 2.0, 3.0], TypeError, ["matmul", "list", "tensor("]),
    ("matmul: None", lambda: F.matmul(x(3), None), TypeError, ["matmul", "None"]),
    ("linear: features", lambda: F.linear(x(2, 3), x(5, 4)),
     ValueError, ["linear", "(2, 3)", "(5, 4)", "3 features", "4"]),
    ("linear: images", lambda: F.linear(x(2, 3, 4, 4), x(5, 48)), ValueError, ["linear", "(2, 3, 4, 4)", "flatten"]),
    ("linear: 0-d input", lambda: F.linear(x(), x(5, 1)), ValueError, ["linear", "input", "()"]),
    ("linear: weight of rank 3", lambda: F.linear(x(2, 3), x(1, 5, 3)), ValueError, ["linear", "weight", "(1, 5, 3)"]),
    ("linear: bias of another length", lambda: F.linear(x(2, 3), x(5, 3), x(4)),
     ValueError, ["linear", "bias", "(5,)", "(4,)"]),
    ("linear: bias a list", lambda: F.linear(x(2, 3), x(1, 3), [1.0]), TypeError, ["linear", "bias", "list"]),
    ("linear: float32 with float64", lambda: F.linear(x(2, 3), x(5, 3, dtype="float64")),
     TypeError, ["linear", "float32", "float64", ".float()"]),
    ("linear: whole numbers", lambda: F.linear(x(2, 3, dtype="int64"), x(5, 3)),
     TypeError, ["linear", "int64", ".float()"]),
]  # fmt: skip

DIMS = [
    row
    for name, f in {
        "sum": lambda dim: F.sum(x(2, 3), dim),
        "mean": lambda dim: F.mean(x(2, 3), dim),
        "var": lambda dim: F.var(x(2, 3), dim),
        "amax": lambda dim: F.amax(x(2, 3), dim),
        "amin": lambda dim: F.amin(x(2, 3), dim),
        "max": lambda dim: F.max(x(2, 3), dim),
        "argmax": lambda dim: F.argmax(x(2, 3), dim),
        "softmax": lambda dim: F.softmax(x(2, 3), dim),
        "log_softmax": lambda dim: F.log_softmax(x(2, 3), dim),
        "flatten": lambda dim: F.flatten(x(2, 3), dim),
        "squeeze": lambda dim: F.squeeze(x(2, 3), dim),
        "transpose": lambda dim: F.transpose(x(2, 3), dim, 0),
        "cat": lambda dim: F.cat([x(2, 3), x(2, 3)], dim),
    }.items()
    for row in [
        (f"{name}: dim 2 of 2", lambda f=f: f(2), IndexError, [name, "2", "-2 to 1"]),
        (f"{name}: dim -3 of 2", lambda f=f: f(-3), IndexError, [name, "-3", "-2 to 1"]),
        (f"{name}: dim 0.0", lambda f=f: f(0.0), TypeError, [name, "0.0"]),
        (f"{name}: dim True", lambda f=f: f(True), TypeError, [name, "True"]),
        (f"{name}: dim a string", lambda f=f: f("0"), TypeError, [name, "'0'"]),
        (f"{name}: dim an array", lambda f=f: f(numpy.array([0, 1])), TypeError, [name, "array"]),
    ]
] + [
    (f"{name}: dim named twice", lambda f=f, dim=dim: f(x(2, 3), dim), ValueError, [name, str(dim), "twice"])
    for name, f in {"sum": F.sum, "mean": F.mean, "var": F.var, "amax": F.amax, "amin": F.amin}.items()
    for dim in ((0, 0), (1, -1))
] + [
    ("stack: dim 3 of 2 + 1", lambda: F.stack([x(2, 3), x(2, 3)], 3), IndexError, ["stack", "3", "-3 to 2"]),
    ("unsqueeze: dim 3 of 2 + 1", lambda: F.unsqueeze(x(2, 3), 3), IndexError, ["unsqueeze", "3", "-3 to 2"]),
    ("unsqueeze: dim None", lambda: F.unsqueeze(x(2, 3), None), TypeError, ["unsqueeze", "None"]),
    ("unsqueeze: two dims", lambda: F.unsqueeze(x(2, 3), (0, 1)), TypeError, ["unsqueeze", "(0, 1)"]),
    ("argmax: dim 5 of a 0-d tensor", lambda: F.argmax(x(), 5), IndexError, ["argmax", "5"]),
    ("sum: dim 1 of a 0-d tensor", lambda: F.sum(x(), 1), IndexError, ["sum", "1"]),
    ("flatten: ends before it starts", lambda: F.flatten(x(2, 3, 4), 2, 1),
     ValueError, ["flatten", "start_dim 2", "end_dim 1"]),
    ("permute: twice the same", lambda: F.permute(x(2, 3, 4), 0, 0, 1),
     ValueError, ["permute", "(0, 0, 1)", "3 dimensions once"]),
    ("permute: twice the same, negative", lambda: F.permute(x(2, 3, 4), 0, -3, 1),
     ValueError, ["permute", "(0, -3, 1)"]),
    ("permute: too few", lambda: F.permute(x(2, 3, 4), 0, 1), ValueError, ["permute", "(0, 1)", "3 dimensions"]),
    ("permute: too many", lambda: F.permute(x(2, 3), 0, 1, 2), (ValueError, IndexError), ["permute", "2"]),
    ("permute: out of range", lambda: F.permute(x(2, 3, 4), 0, 1, 3), IndexError, ["permute", "3", "-3 to 2"]),
    ("permute: 1.0", lambda: F.permute(x(2, 3), 1.0, 0), TypeError, ["permute", "1.0"]),
]  # fmt: skip

EMPTY = [
    ("max of nothing", lambda: F.max(x(0)), (ValueError, IndexError), ["max", "(0,)"]),
    ("amax of nothing", lambda: F.amax(x(2, 0)), (ValueError, IndexError), ["amax", "(2, 0)"]),
    ("amin along an empty dimension", lambda: F.amin(x(2, 0), 1), (ValueError, IndexError), ["amin", "(2, 0)", "1"]),
    ("argmax of nothing", lambda: F.argmax(x(0)), (ValueError, IndexError), ["argmax", "(0,)"]),
    ("max along an empty dimension", lambda: F.max(x(2, 0), 1), (ValueError, IndexError), ["max", "(2, 0)"]),
    ("mean of whole numbers", lambda: F.mean(x(3, dtype="int64")), TypeError, ["mean", "int64", ".float()"]),
    ("var of booleans", lambda: F.var(x(3, dtype="bool")), TypeError, ["var", "bool", ".float()"]),
    (
        "softmax of whole numbers",
        lambda: F.softmax(x(3, dtype="int64"), 0),
        TypeError,
        ["softmax", "int64", ".float()"],
    ),
    ("sum of a list", lambda: F.sum([1.0, 2.0]), TypeError, ["sum", "list"]),
    ("max of an array", lambda: F.max(numpy.ones(3)), TypeError, ["max", "ndarray"]),
    ("mean of None", lambda: F.mean(None), TypeError, ["mean", "None"]),
]

ARITHMETIC = [
    row
    for name in ("add", "sub", "mul", "div", "pow", "maximum", "minimum")
    for f in [getattr(F, name)]
    for row in [
        (f"{name}: shapes", lambda f=f: f(x(2, 3), x(3, 2)), ValueError, [name, "(2, 3)", "(3, 2)"]),
        (f"{name}: nothing and three", lambda f=f: f(x(0), x(3)), ValueError, [name, "(0,)", "(3,)"]),
        (f"{name}: an array of another shape", lambda f=f: f(x(3), numpy.ones(4)), ValueError, [name, "(3,)", "(4,)"]),
        *(
            (f"{name}: {what}", lambda f=f, v=v: f(x(3), v), (TypeError, ValueError), [name])
            for what, v in NOT_NUMBERS.items()
        ),
    ]
] + [
    (f"{symbol}: {what} on the left", lambda f=f, v=v: f(v), (TypeError, ValueError), [name])
    for symbol, name, f in [
        ("-", "sub", lambda v: v - x(3)), ("*", "mul", lambda v: v * x(3)), ("/", "div", lambda v: v / x(3))
    ]
    for what, v in NOT_NUMBERS.items()
] + [
    (f"{name}: {what}", lambda f=f, v=v: f(v), (TypeError, ValueError), [name])
    for name, f in {n: getattr(F, n) for n in ("relu", "tanh", "sigmoid", "exp", "log", "sqrt", "abs", "neg")}.items()
    for what, v in NOT_NUMBERS.items()
] + [
    (f"compare: {relation} of other shapes", lambda relation=relation: getattr(x(2, 3), relation)(x(3, 2)),
     ValueError, ["compare|" + relation.strip("_"), "(2, 3)", "(3, 2)"])
    for relation in ("__eq__", "__lt__", "__ge__")
] + [
    ("compare: a string", lambda: x(3) < "abc", TypeError, ["compare|lt|<"]),
    ("compare: complex", lambda: x(3) < 1j, TypeError, ["compare|lt|<"]),
    ("sub: booleans", lambda: x(3, dtype="bool") - x(3, dtype="bool"), TypeError, ["sub", "bool"]),
    ("neg: booleans", lambda: -x(3, dtype="bool"), TypeError, ["neg", "bool"]),
    ("pow: a negative power of whole numbers", lambda: x(3, dtype="int64") ** -1, ValueError, ["pow", "negative"]),
    ("add: a number that does not fit", lambda: x(3, dtype="uint8") + 2**40,
     (TypeError, ValueError), ["add", str(2**40)]),
    ("mul: a number beyond float64", lambda: x(3) * 10**400, (TypeError, ValueError), ["mul"]),
    ("clamp: no limit", lambda: F.clamp(x(3)), ValueError, ["clamp", "min", "max"]),
    ("clamp: a string", lambda: F.clamp(x(3), "a"), TypeError, ["clamp"]),
    ("clamp: complex", lambda: F.clamp(x(3), 1j), TypeError, ["clamp", "complex|1j"]),
    ("where: whole numbers as condition", lambda: F.where(labels(1, 0, 1), x(3), x(3)),
     TypeError, ["where", "booleans", "x > 0"]),
    ("where: a float tensor as condition", lambda: F.where(x(3), x(3), x(3)), TypeError, ["where", "booleans"]),
    ("where: None as condition", lambda: F.where(None, x(3), x(3)), TypeError, ["where", "booleans"]),
    ("where: shapes", lambda: F.where(numpy.ones(3, bool), x(4), x(4)), ValueError, ["where", "(4,)", "(3,)"]),
    ("where: None", lambda: F.where(numpy.ones(3, bool), x(3), None), TypeError, ["where", "None"]),
    ("where: a string", lambda: F.where(numpy.ones(3, bool), x(3), "a"), (TypeError, ValueError), ["where"]),
]  # fmt: skip

ARRANGEMENT = [
    ("reshape: another number of elements", lambda: x(2, 3).reshape(4, 2),
     ValueError, ["reshape", "(2, 3)", "(4, 2)|(4,2)"]),
    ("reshape: two unknown sizes", lambda: x(2, 3).reshape(-1, -1), ValueError, ["reshape", "(2, 3)", "one|-1"]),
    ("reshape: -1 that does not divide", lambda: x(2, 3).reshape(4, -1), ValueError, ["reshape", "(2, 3)"]),
    ("reshape: size -2", lambda: x(2, 3).reshape(-2), ValueError, ["reshape", "-2"]),
    ("reshape: sizes 2, -3", lambda: x(2, 3).reshape(2, -3), ValueError, ["reshape", "-3"]),
    ("reshape: -1 beside 0", lambda: x(0, 3).reshape(0, -1), ValueError, ["reshape", "(0, 3)"]),
    ("reshape: to 0-d", lambda: x(2, 3).reshape(()), ValueError, ["reshape", "(2, 3)", "()"]),
    ("reshape: 2.0", lambda: x(2, 3).reshape(2.0, 3), TypeError, ["reshape", "2.0|float"]),
    ("reshape: a string", lambda: x(2, 3).reshape("6"), (TypeError, ValueError), ["reshape", "'6'|str"]),
    ("reshape: None", lambda: x(2, 3).reshape(None), TypeError, ["reshape", "None"]),
    ("view: another number of elements", lambda: x(2, 3).view(4, 2), ValueError, ["(2, 3)", "(4, 2)|(4,2)"]),
    ("expand: a size that is not 1", lambda: x(2, 3).expand(4, 3), ValueError, ["expand", "(2, 3)", "(4, 3)|(4,3)"]),
    ("expand: fewer dimensions", lambda: x(2, 3).expand(3), ValueError, ["expand", "(2, 3)", "(3,)"]),
    ("expand: -1 in front", lambda: x(3).expand(-1, 3), ValueError, ["expand", "(3,)", "(-1, 3)"]),
    ("expand: -2", lambda: x(1, 3).expand(-2, 3), ValueError, ["expand", "(1, 3)", "-2|negative"]),
    ("expand: 2.0", lambda: x(1, 3).expand(2.0, 3), TypeError, ["expand", "2.0|float"]),
    ("expand: a string", lambda: x(1, 3).expand("2", 3), TypeError, ["expand", "'2'|str"]),
    ("cat: nothing", lambda: F.cat([]), ValueError, ["cat", "nothing"]),
    ("cat: other sizes", lambda: F.cat([x(2, 3), x(2, 4)]), ValueError, ["cat", "(2, 3)", "(2, 4)"]),
    ("cat: other ranks", lambda: F.cat([x(2, 3), x(3)]), ValueError, ["cat", "(2, 3)", "(3,)"]),
    ("cat: 0-d", lambda: F.cat([x(), x()]), ValueError, ["cat", "0-d", "stack"]),
    ("cat: 0-d later", lambda: F.cat([x(3), x()]), ValueError, ["cat", "(3,)", "()"]),
    ("cat: numbers", lambda: F.cat([1.0, 2.0]), TypeError, ["cat", "float"]),
    ("cat: None", lambda: F.cat(None), TypeError, ["cat", "None"]),
    ("cat: None among them", lambda: F.cat([x(3), None]), TypeError, ["cat", "None"]),
    ("cat: strings", lambda: F.cat(["a", "b"]), TypeError, ["cat", "str"]),
    ("stack: nothing", lambda: F.stack([]), ValueError, ["stack", "nothing"]),
    ("stack: other shapes", lambda: F.stack([x(2, 3), x(3, 2)]), ValueError, ["stack", "(2, 3)", "(3, 2)"]),
    ("stack: numbers", lambda: F.stack([1.0, 2.0]), TypeError, ["stack", "float"]),
    ("stack: None", lambda: F.stack(None), TypeError, ["stack", "None"]),
    ("pad: odd length", lambda: F.pad(x(2, 3), (1, 1, 1)), ValueError, ["pad", "(1, 1, 1)", "(2, 3)"]),
    ("pad: too many", lambda: F.pad(x(3), (1, 1, 1, 1)), ValueError, ["pad", "(1, 1, 1, 1)", "(3,)"]),
    ("pad: a number", lambda: F.pad(x(3), 1), (TypeError, ValueError), ["pad", "1"]),
    ("pad: None", lambda: F.pad(x(3), None), (TypeError, ValueError), ["pad", "None"]),
    ("pad: 1.0", lambda: F.pad(x(3), (1.0, 1)), (TypeError, ValueError), ["pad", "(1.0, 1)"]),
    ("pad: a string", lambda: F.pad(x(3), "11"), (TypeError, ValueError), ["pad"]),
    ("pad: cuts more than there is", lambda: F.pad(x(3), (-2, -2)), ValueError, ["pad", "(-2, -2)", "(3,)"]),
    ("pad: cuts more at one end than there is", lambda: F.pad(x(3), (-4, 4)), ValueError, ["pad", "(-4, 4)", "(3,)"]),
    ("pad: cuts more at the other end than there is", lambda: F.pad(x(3), (4, -4)),
     ValueError, ["pad", "(4, -4)", "(3,)"]),
    ("pad: mode", lambda: F.pad(x(3), (1, 1), mode="wrap"), ValueError, ["pad", "'wrap'", "'constant'"]),
    ("pad: a complex value", lambda: F.pad(x(3), (1, 1), value=1j), TypeError, ["pad", "complex|1j"]),
    ("pad: a string for value", lambda: F.pad(x(3), (1, 1), value="a"), (TypeError, ValueError), ["pad", "'a'"]),
]  # fmt: skip


def assign():
    t = x(3)
    t[0] = 1.0


INDEXING = [
    ("index too large", lambda: x(4, 3)[4], IndexError, ["(4, 3)", "4"]),
    ("index too negative", lambda: x(4, 3)[-5], IndexError, ["(4, 3)", "-5"]),
    ("second index too large", lambda: x(4, 3)[0, 3], IndexError, ["(4, 3)", "3"]),
    ("index in an array too large", lambda: x(4, 3)[labels(0, 4)], IndexError, ["(4, 3)", "4"]),
    ("too many indices", lambda: x(4, 3)[0, 0, 0], IndexError, ["(4, 3)", "2", "3"]),
    ("index into a 0-d tensor", lambda: x()[0], IndexError, ["()", "0"]),
    ("float index", lambda: x(4, 3)[1.0], (TypeError, IndexError), ["index", "float64|1.0"]),
    ("float index later", lambda: x(4, 3)[0, 1.0], (TypeError, IndexError), ["index", "float64|1.0"]),
    ("float array as index", lambda: x(4, 3)[numpy.array([1.0])], (TypeError, IndexError), ["index", "float64"]),
    ("float tensor as index", lambda: x(4, 3)[x(2)], (TypeError, IndexError), ["index", "float32"]),
    ("string as index", lambda: x(4, 3)["a"], (TypeError, IndexError), ["index", "'a'|<U1|str"]),
    ("strings as index", lambda: x(4, 3)[numpy.array(["a"])], (TypeError, IndexError), ["index"]),
    ("complex index", lambda: x(4, 3)[1j], (TypeError, IndexError), ["index", "complex"]),
    ("objects as index", lambda: x(4, 3)[numpy.array([None])], (TypeError, IndexError), ["index", "object"]),
    ("ragged index", lambda: x(4, 3)[[0, 1], [[0], [1, 2]]], (TypeError, IndexError, ValueError), ["getitem"]),
    ("slice of floats", lambda: x(4, 3)[0.0:2.0], TypeError, ["(4, 3)", "slice"]),
    ("slice by step 0", lambda: x(4, 3)[::0], ValueError, ["(4, 3)", "step"]),
    ("mask of another length", lambda: x(4, 3)[numpy.ones(3, bool)], IndexError, ["(4, 3)", "4", "3"]),
    ("mask of another shape", lambda: x(4, 3)[numpy.ones((4, 2), bool)], IndexError, ["(4, 3)", "2", "3"]),
    ("mask of too many dimensions", lambda: x(4)[numpy.ones((4, 3), bool)], IndexError, ["(4,)"]),
    ("arrays that do not broadcast", lambda: x(4, 3)[labels(0, 1), labels(0, 1, 2)],
     IndexError, ["(4, 3)", "(2,)", "(3,)"]),
    ("index beyond 64 bits", lambda: x(4, 3)[2**63], (IndexError, ValueError), ["(4, 3)"]),
    ("assignment", assign, TypeError, ["assigned", "where"]),
    ("iteration over a 0-d tensor", lambda: list(x()), TypeError, ["0-d"]),
    ("len of a 0-d tensor", lambda: len(x()), TypeError, ["0-d"]),
    ("truth of several", lambda: bool(x(2)), ValueError, ["(2,)", "ambiguous"]),
    ("truth of none", lambda: bool(x(0)), ValueError, ["(0,)", "ambiguous"]),
    ("item of several", lambda: x(2).item(), ValueError, ["item", "(2,)"]),
    ("float of several", lambda: float(x(2)), ValueError, ["(2,)"]),
]  # fmt: skip

MAKING = [
    *((f"tensor: {what}", lambda v=v: tensor(v),
     (TypeError, ValueError), ["tensor"]) for what, v in NOT_NUMBERS.items()),
    *((f"Tensor: {what}", lambda v=v: Tensor(v),
     (TypeError, ValueError), ["ensor"]) for what, v in NOT_NUMBERS.items()),
    *(
        (f"tensor: dtype {dtype}", lambda dtype=dtype: tensor([1, 2], dtype=dtype), TypeError, ["tensor", dtype])
        for dtype in ("float16", "complex64", "object", "foo")
    ),
    *(
        (f"to: dtype {dtype}", lambda dtype=dtype: tensor([1.0, 2.0]).to(dtype), TypeError, ["to", dtype])
        for dtype in ("float16", "complex64", "object", "foo")
    ),
    *(
        (f"Module.to: dtype {dtype}", lambda dtype=dtype: nn.Linear(1, 1).to(dtype), TypeError, ["to", dtype])
        for dtype in ("float16", "complex64", "int64", "object", "foo")
    ),
    ("tensor: nan as a whole number", lambda: tensor([NAN], dtype="int64"),
     (TypeError, ValueError), ["tensor", "int64"]),
    ("tensor: 300 in 8 bits", lambda: tensor([300], dtype="uint8"), (TypeError, ValueError), ["tensor", "uint8"]),
    ("tensor: whole numbers with a gradient", lambda: tensor([1, 2], requires_grad=True),
     TypeError, ["int64", "gradient", "float"]),
    ("tensor: booleans with a gradient", lambda: tensor([True], requires_grad=True), TypeError, ["bool", "gradient"]),
    ("Parameter of whole numbers", lambda: nn.Parameter(labels(1)), TypeError, ["int64", "gradient"]),
    ("a NumPy function", lambda: numpy.exp(x(3, requires_grad=True)), TypeError, ["Tensor"]),
    ("an array of a tensor with a gradient", lambda: numpy.asarray(x(3, requires_grad=True)),
     TypeError, ["Tensor", "gradient", "numpy()"]),
    ("backward of several", lambda: (x(2, requires_grad=True) * 2).backward(), ValueError, ["backward", "(2,)", "sum"]),
    ("backward by another shape", lambda: (x(2, requires_grad=True) * 2).backward(numpy.ones(3)),
     ValueError, ["backward", "(3,)", "(2,)"]),
    ("backward by one number", lambda: (x(2, requires_grad=True) * 2).backward(1.0),
     ValueError, ["backward", "()", "(2,)"]),
    ("backward by complex numbers", lambda: (x(2, requires_grad=True) * 2).backward(numpy.ones(2) * 1j),
     TypeError, ["backward", "complex"]),
    ("backward by objects", lambda: (x(2, requires_grad=True) * 2).backward([None, None]),
     (TypeError, ValueError), ["backward"]),
    ("backward by strings", lambda: (x(2, requires_grad=True) * 2).backward(["a", "b"]),
     (TypeError, ValueError), ["backward"]),
]  # fmt: skip

LAYERS = [
    ("Linear: sizes", lambda: nn.Linear(3, 4)(x(2, 5)), ValueError, ["linear", "(2, 5)", "(4, 3)"]),
    ("Linear: -1 features", lambda: nn.Linear(-1, 3), ValueError, ["Linear", "-1"]),
    ("Linear: 2.5 features", lambda: nn.Linear(2.5, 3), TypeError, ["Linear", "2.5"]),
    ("Linear: a string", lambda: nn.Linear("2", 3), TypeError, ["Linear", "'2'"]),
    ("Linear: None", lambda: nn.Linear(3, None), TypeError, ["Linear", "None"]),
    ("Conv2d: groups", lambda: nn.Conv2d(4, 6, 3, groups=3), ValueError, ["Conv2d", "groups=3", "4", "6"]),
    ("Conv2d: groups 0", lambda: nn.Conv2d(4, 4, 3, groups=0), ValueError, ["Conv2d", "groups=0"]),
    ("Conv2d: groups a string", lambda: nn.Conv2d(4, 4, 3, groups="2"), TypeError, ["Conv2d", "groups", "'2'"]),
    ("Conv2d: kernel 0", lambda: nn.Conv2d(4, 4, 0), ValueError, ["Conv2d", "kernel_size", "0"]),
    ("Conv2d: kernel 2.0", lambda: nn.Conv2d(4, 4, 2.0), TypeError, ["Conv2d", "kernel_size", "2.0"]),
    ("Conv2d: -1 channels", lambda: nn.Conv2d(-1, 4, 3), ValueError, ["Conv2d", "-1"]),
    ("Conv2d: 4.0 channels", lambda: nn.Conv2d(4.0, 4, 3), TypeError, ["Conv2d", "4.0"]),
    ("Conv2d: stride 0", lambda: nn.Conv2d(1, 1, 3, stride=0)(x(1, 1, 5, 5)), ValueError, ["onv2d", "stride", "0"]),
    ("Conv2d: padding unknown", lambda: nn.Conv2d(1, 1, 3, padding="full")(x(1, 1, 5, 5)),
     ValueError, ["onv2d", "'same'", "'full'"]),
    ("BatchNorm1d: rank 4", lambda: nn.BatchNorm1d(3)(x(2, 3, 4, 4)),
     ValueError, ["BatchNorm1d", "2 or 3", "(2, 3, 4, 4)"]),
    ("BatchNorm2d: rank 2", lambda: nn.BatchNorm2d(3)(x(2, 3)), ValueError, ["BatchNorm2d", "4", "(2, 3)"]),
    ("BatchNorm1d: channels", lambda: nn.BatchNorm1d(3)(x(2, 4)), ValueError, ["batch_norm", "(3,)", "(2, 4)"]),
    ("BatchNorm1d: one row in training", lambda: nn.BatchNorm1d(3)(x(1, 3)),
     ValueError, ["batch_norm", "more than one", "(1, 3)"]),
    ("BatchNorm1d: -1 features", lambda: nn.BatchNorm1d(-1), ValueError, ["BatchNorm1d", "-1"]),
    ("BatchNorm1d: 2.5 features", lambda: nn.BatchNorm1d(2.5), TypeError, ["BatchNorm1d", "2.5"]),
    ("Dropout: p 1.5", lambda: nn.Dropout(1.5), ValueError, ["Dropout", "[0, 1]", "1.5"]),
    ("Dropout: p None", lambda: nn.Dropout(None), TypeError, ["Dropout", "None"]),
    ("Sequential: not a layer", lambda: nn.Sequential(nn.ReLU(), 3), TypeError, ["Sequential", "1", "int"]),
    ("Sequential: a list", lambda: nn.Sequential([nn.ReLU()]), TypeError, ["Sequential", "list"]),
    ("Sequential: where it went wrong", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 4))(x(2, 5)),
     ValueError, ["1", "Linear(3, 4)", "(2, 5)"]),
    ("a network of float32 given float64", lambda: nn.Linear(2, 2)(x(1, 2, dtype="float64")),
     TypeError, ["linear", "float64", "float32", ".float()"]),
    ("a network given whole numbers", lambda: nn.Linear(2, 2)(x(1, 2, dtype="int64")),
     TypeError, ["linear", "int64", ".float()"]),
    ("a network given an array", lambda: nn.Linear(2, 2)(numpy.ones((1, 2))),
     TypeError, ["linear", "ndarray", "tensor("]),
    ("load_state_dict: nothing", lambda: nn.Linear(2, 2).load_state_dict({}),
     ValueError, ["missing weight", "missing bias"]),
    ("load_state_dict: None", lambda: nn.Linear(2, 2).load_state_dict(None), TypeError, ["load_state_dict", "None"]),
    ("load_state_dict: too much", lambda: nn.Linear(1, 1).load_state_dict({**nn.Linear(1, 1).state_dict(), "x": 1}),
     ValueError, ["unexpected x"]),
    ("load_state_dict: shapes", lambda: nn.Linear(1, 2).load_state_dict(nn.Linear(2, 2).state_dict()),
     ValueError, ["weight", "(2, 2)", "(2, 1)"]),
    ("load_state_dict: complex",
     lambda: nn.Linear(1, 1, bias=False).load_state_dict({"weight": numpy.ones((1, 1)) * 1j}),
     (TypeError, ValueError), ["load_state_dict", "weight", "complex"]),
    ("load_state_dict: lists", lambda: nn.Linear(1, 1, bias=False).load_state_dict({"weight": "x"}),
     (TypeError, ValueError), ["load_state_dict", "weight"]),
    ("normal_ of whole numbers", lambda: init.normal_(Tensor(labels(1, 2))), TypeError, ["int64"]),
    ("uniform_ of whole numbers", lambda: init.uniform_(Tensor(labels(1, 2))), TypeError, ["int64"]),
    ("normal_ with a negative spread", lambda: init.normal_(x(3), 0.0, -1.0), ValueError, ["normal_", "-1.0"]),
    ("kaiming_normal_ of a vector", lambda: init.kaiming_normal_(x(3)), ValueError, ["kaiming_normal_|fan", "(3,)"]),
    ("xavier_uniform_ of a vector", lambda: init.xavier_uniform_(x(3)), ValueError, ["xavier_uniform_|fan", "(3,)"]),
    ("xavier_uniform_ of a number", lambda: init.xavier_uniform_(x()), ValueError, ["xavier_uniform_|fan", "()"]),
]  # fmt: skip


def sgd(**kw):
    return optim.SGD([nn.Parameter(numpy.ones(2, "float32"))], **kw)


TRAINING = [
    ("SGD: nothing to train", lambda: optim.SGD([]), ValueError, ["SGD", "no parameters"]),
    ("SGD: a number", lambda: optim.SGD([1]), TypeError, ["SGD", "1"]),
    ("SGD: None", lambda: optim.SGD(None), TypeError, ["SGD", "None"]),
    ("SGD: a tensor without gradient", lambda: optim.SGD([x(2)]), TypeError, ["SGD", "leaves"]),
    ("SGD: not a leaf", lambda: optim.SGD([x(2, requires_grad=True) * 2]), TypeError, ["SGD", "leaves"]),
    ("SGD: a group without params", lambda: optim.SGD([{"lr": 1.0}]), (TypeError, ValueError), ["SGD", "params"]),
    ("SGD: unknown setting", lambda: optim.SGD([{"params": [nn.Parameter(numpy.ones(2))], "speed": 1}]),
     ValueError, ["SGD", "speed"]),
    ("SGD: lr -1", lambda: sgd(lr=-1), ValueError, ["SGD", "lr", "-1"]),
    ("SGD: lr nan", lambda: sgd(lr=NAN), ValueError, ["SGD", "lr", "nan"]),
    ("SGD: lr a string", lambda: sgd(lr="fast"), TypeError, ["SGD", "lr", "'fast'"]),
    ("SGD: momentum -1", lambda: sgd(momentum=-1), ValueError, ["SGD", "momentum", "-1"]),
    ("SGD: weight_decay -1", lambda: sgd(weight_decay=-1), ValueError, ["SGD", "weight_decay", "-1"]),
    ("SGD: nesterov without momentum", lambda: sgd(nesterov=True), ValueError, ["SGD", "nesterov", "momentum"]),
    ("SGD: nesterov with dampening", lambda: sgd(nesterov=True, momentum=0.9, dampening=0.1),
     ValueError, ["SGD", "nesterov", "dampening"]),
    ("SGD: form", lambda: sgd(form="adam"), ValueError, ["SGD", "'torch'", "'paper'", "'adam'"]),
    ("StepLR: step 0", lambda: optim.StepLR(sgd(), 0), ValueError, ["StepLR", "step_size", "0"]),
    ("StepLR: step None", lambda: optim.StepLR(sgd(), None), TypeError, ["StepLR", "step_size", "None"]),
    ("MultiStepLR: a number", lambda: optim.MultiStepLR(sgd(), 3), TypeError, ["MultiStepLR", "milestones", "3"]),
    ("MultiStepLR: strings", lambda: optim.MultiStepLR(sgd(), ["a"]), TypeError, ["MultiStepLR", "milestones", "'a'"]),
    ("ReduceLROnPlateau: factor 1", lambda: optim.ReduceLROnPlateau(sgd(), factor=1.0),
     ValueError, ["ReduceLROnPlateau", "factor", "1.0"]),
    ("ReduceLROnPlateau: factor a string", lambda: optim.ReduceLROnPlateau(sgd(), factor="a"),
     TypeError, ["ReduceLROnPlateau", "factor", "'a'"]),
]  # fmt: skip

TABLE = [
    *CONVOLUTION, *POOLING, *NORMALISATION, *LOSSES, *PRODUCTS, *DIMS, *EMPTY, *ARITHMETIC, *ARRANGEMENT, *INDEXING,
    *MAKING, *LAYERS, *TRAINING,
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_refused(call, error, words):
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for word in words:
        assert any(w in message for w in word.split("|")), f"no {word!r} in {message!r}"


def one_on_each_backend():
    """Two equal tensors, the first on the numpy backend and the second on numba's."""
    if backends.why_not("numba") is not None:
        pytest.skip(backends.why_not("numba"))
    pair = []
    for name in ("numpy", "numba"):
        backends.use(name)
        pair.append(x(2, 2, requires_grad=True))
    return pair


MIXED = {
    "add": lambda a, b: a + b,
    "matmul": lambda a, b: a @ b,
    "maximum": lambda a, b: F.maximum(a, b),
    "linear": lambda a, b: F.linear(a, b),
    "conv2d": lambda a, b: F.conv2d(a.reshape(1, 1, 2, 2), b.reshape(1, 1, 2, 2)),
    "where": lambda a, b: F.where(numpy.ones((2, 2), bool), a, b),
    "cat": lambda a, b: F.cat([a, b]),
    "stack": lambda a, b: F.stack([a, b]),
    "mse_loss": lambda a, b: F.mse_loss(a, b),
    "cross_entropy": lambda a, b: F.cross_entropy(a, b),
    "batch_norm weight": lambda a, b: F.batch_norm(a, None, None, b[0], None, training=True),
    "batch_norm statistics": lambda a, b: F.batch_norm(a, b[0].detach(), b[1].detach()),
    "compare": lambda a, b: a < b,
    "where condition": lambda a, b: F.where(b > 0, a, a),
    "mask": lambda a, b: a[b > 0],
    "labels": lambda a, b: F.cross_entropy(a, b.detach().to("int64")[0]),
    "backward": lambda a, b: (a * 2).backward(b),
}


@pytest.mark.parametrize("name", MIXED)
def test_tensors_of_two_backends(name):
    a, b = one_on_each_backend()
    with pytest.raises(ValueError, match=r"numpy and numba|numba and numpy"):
        MIXED[name](a, b)


def test_foreign_byte_order_is_converted_or_refused():
    """PyTorch refuses it. What must not happen is a tensor that half of the operations cannot read."""
    foreign = numpy.dtype("float32").newbyteorder()
    for make in (tensor, Tensor):
        try:
            t = make(numpy.array([[1.0, -2.0]], foreign))
        except (TypeError, ValueError):
            continue
        assert t.dtype.isnative
        assert F.relu(t).numpy().tolist() == [[1.0, 0.0]]


def test_a_refused_backward_leaves_the_graph_as_it_was():
    t = x(2, requires_grad=True)
    y = t * 2
    with pytest.raises(ValueError, match="backward"):
        y.backward(numpy.ones(3))
    y.backward(numpy.ones(2))
    assert t.grad.numpy().tolist() == [2.0, 2.0]


def test_a_refused_training_batch_leaves_the_running_statistics_as_they_were():
    layer = nn.BatchNorm1d(3)
    before = layer.state_dict()
    for bad in (x(1, 3), x(4, 2), x(4, 3, dtype="float64")):
        with pytest.raises((ValueError, TypeError)):
            layer(bad)
    after = layer.state_dict()
    assert all((before[name] == after[name]).all() for name in before)


def test_refused_weights_change_nothing():
    layer = nn.Linear(2, 2)
    before = layer.state_dict()
    with pytest.raises(ValueError, match="weight"):
        layer.load_state_dict({"weight": numpy.zeros((3, 2)), "bias": numpy.zeros(2)})
    assert all((before[name] == value).all() for name, value in layer.state_dict().items())
