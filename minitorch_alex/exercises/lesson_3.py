"""Examines the exercises of lesson 3, convolution."""

from __future__ import annotations

import numpy

from .. import functional as F
from ..tensor import Tensor, tensor
from .examination import Examination, exercise, shown


@exercise(
    "3.1",
    "how many windows fit",
    "How many pixels are there with the zeros on both sides? The first window takes `kernel` of them.",
    "What is left, divided by the stride and rounded down (//), is the number of further windows. Then add the first.",
)
def output_size(exam: Examination) -> None:
    cases = [
        (10, 3, 1, 0), (9, 4, 1, 3), (224, 11, 4, 0), (227, 11, 4, 0), (224, 11, 4, 2), (27, 5, 1, 2), (7, 7, 3, 0),
        (8, 3, 3, 2), (10, 3, 4, 0), (5, 3, 2, 3),
    ]  # fmt: skip
    for n, kernel, stride, padding in cases:
        room = n + 2 * padding - kernel
        suspects = {
            "the first window is not counted: add 1" if stride == 1 else "the 1 goes behind the division": room
            // stride,
            "padding is on both sides, so it counts twice": (room - padding) // stride + 1,
            "the padding is left out": (n - kernel) // stride + 1,
            "this rounds up: a window that does not fit does not count": -(-room // stride) + 1,
            "// binds more strongly than -: put n + 2 * padding - kernel in parentheses": n
            + 2 * padding
            - kernel // stride
            + 1,
            "this is not rounded: use // in place of /": room / stride + 1,
            "the stride is left out": room + 1,
            "the filter's own size is left out": (n + 2 * padding) // stride + 1,
        }
        exam.expect(n, kernel, stride, padding, gives=room // stride + 1, suspects=suspects)
    for case in cases:
        answer = exam.call(*case)
        exam.require(
            isinstance(answer, int | numpy.integer),
            f"output_size{case}",
            f"gives {answer!r}, expected a whole number",
            cause="/ gives a floating-point number, // a whole one; a shape needs whole numbers",
        )


@exercise(
    "3.2",
    "convolution with loops",
    "Surround every channel with zeros first: np.pad(x, ((0, 0), (padding, padding), (padding, padding))).",
    "Three loops are enough, over f, p and q: y[f, p, q] is the sum of w[f] * patch, where the patch has all channels.",
    "The window (p, q) begins at row p * stride and column q * stride of the padded image.",
)
def conv2d_loops(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = [
        ((1, 4, 5), (1, 1, 2, 2), 1, 0), ((1, 5, 7), (2, 1, 3, 2), 2, 0), ((3, 5, 6), (2, 3, 2, 3), 1, 0),
        ((2, 6, 5), (3, 2, 3, 3), 1, 1), ((3, 9, 7), (4, 3, 2, 3), 2, 1), ((2, 8, 11), (3, 2, 3, 2), 3, 2),
    ]  # fmt: skip
    for shape, weight, stride, padding in cases:
        x, w = rng.standard_normal(shape), rng.standard_normal(weight)
        padded = numpy.pad(x, ((0, 0), (padding, padding), (padding, padding)))
        behind = numpy.pad(x, ((0, 0), (0, 2 * padding), (0, 2 * padding)))
        right = _convolved(padded, w, stride)
        suspects = {
            "the filter is turned round: here it is used as it stands": _convolved(padded, w[:, :, ::-1, ::-1], stride),
            "only the first channel counts: add up over all of them": _convolved(padded[:1], w[:, :1], stride),
            "this is the mean of the products: add them up": right / w[0].size,
            "every filter gives the same: take w[f] for output f": right[:1].repeat(len(w), axis=0),
            "the filters are added up: each makes an output channel of its own": right.sum(axis=0),
            "the zeros belong on all four sides, not only below and to the right": _convolved(behind, w, stride),
        }
        if stride > 1:
            near = _convolved(padded, w, 1)[:, : right.shape[1], : right.shape[2]]
            suspects["the stride is missing from where a window begins: row p * stride, column q * stride"] = near
            suspects["the stride is not used"] = _convolved(padded, w, 1)
        if padding:
            suspects["the padding is not used"] = _convolved(x, w, stride)
        title = f"conv2d_loops(x of shape {shape}, w of shape {weight}, stride {stride}, padding {padding})"
        stops = {
            "broadcast": "patch and filter differ in shape: a patch has all C channels, and R x S pixels where it fits",
            "out of bounds": "the result is too small: look at its size, (F, P, Q), and at the order of the indices",
        }
        if padding:
            stops = {
                f"({shape[0] + 2 * padding},": "the channels are surrounded by zeros too: pad rows and columns"
            } | stops
        exam.compare(title, exam.call(x, w, stride, padding, title=title, stops=stops), right, suspects)


@exercise(
    "3.3",
    "image to columns",
    "Make an array of zeros of shape (C*R*S, P*Q) and fill it column by column, with two loops over p and q.",
    "The patch x[:, top : top + R, left : left + S] has all channels. reshape(-1) reads it in the right order.",
    "The window (p, q) begins at row p * stride and column q * stride, and is column p * Q + q.",
)
def im2col(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for shape, kernel, stride in _PATCHES:
        x = rng.standard_normal(shape)
        (C, R, S), (P, Q) = (shape[0], *kernel), _count(shape, kernel, stride)
        right = _patches(x, kernel, stride)
        apart = right.reshape(C, R, S, P, Q)
        suspects = {
            "every patch is a column, not a row: transpose": right.T,
            "the columns are out of order: window (p, q) is column p * Q + q": apart.swapaxes(3, 4).reshape(
                right.shape
            ),
            "the rows are out of order: channel first, then the rows and columns of the patch": (
                apart.transpose(1, 2, 0, 3, 4).reshape(right.shape)
            ),
            "the patches are read column by column: row by row is wanted": apart.swapaxes(1, 2).reshape(right.shape),
            "only the first channel is there": right[: R * S],
            "the channels are added up: each has rows of its own": apart.sum(axis=0).reshape(R * S, P * Q),
            "the result still has its axes apart: reshape it to (C*R*S, P*Q)": apart,
        }
        if stride > 1:
            close = _patches(x, kernel, 1)
            near = close.reshape(C * R * S, *_count(shape, kernel, 1))[:, :P, :Q].reshape(right.shape)
            suspects["the stride is missing from where a window begins: row p * stride, column q * stride"] = near
            suspects["the stride is not used"] = close
        title = f"im2col(x of shape {shape}, {kernel}, {stride})"
        exam.compare(title, exam.call(x, kernel, stride, title=title, stops=_PATCH_STOPS), right, suspects)


@exercise(
    "3.4",
    "columns to image",
    "Begin with an image of zeros, and go through the windows as im2col does. What im2col reads, col2im adds.",
    "Column p * Q + q, reshaped to (C, R, S), belongs to x[:, top : top + R, left : left + S].",
    "A pixel that several windows saw receives the sum: += and not =.",
)
def col2im(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    for shape, kernel, stride in _PATCHES:
        (C, R, S), (P, Q) = (shape[0], *kernel), _count(shape, kernel, stride)
        columns = rng.standard_normal((C * R * S, P * Q))
        apart = columns.reshape(C, R, S, P, Q)
        right, times = _put_back(apart, shape, stride), _put_back(numpy.ones(apart.shape), shape, stride)
        suspects = {
            "a later window overwrites an earlier one: += in place of =": _put_back(apart, shape, stride, adds=False),
            "this is the mean over the windows that saw a pixel: the sum is wanted": right / numpy.maximum(times, 1),
            "the columns are read in the wrong order: window (p, q) is column p * Q + q": (
                _put_back(columns.reshape(C, R, S, Q, P).swapaxes(3, 4), shape, stride)
            ),
            "the rows are read in the wrong order: channel first, then the rows and columns of the patch": (
                _put_back(columns.reshape(R, S, C, P, Q).transpose(2, 0, 1, 3, 4), shape, stride)
            ),
            "the patches are turned over: a column holds its patch row by row": (
                _put_back(columns.reshape(C, S, R, P, Q).swapaxes(1, 2), shape, stride)
            ),
        }
        if C > 1:
            one = numpy.zeros(shape)
            one[0] = right[0]
            suspects["only the first channel is filled"] = one
        if stride > 1:
            why = "the stride is missing from where a window begins: row p * stride, column q * stride"
            suspects[why] = _put_back(apart, shape, 1)
        title = f"col2im(columns of shape {columns.shape}, {shape}, {kernel}, {stride})"
        got = exam.call(columns, shape, kernel, stride, title=title, stops=_PATCH_STOPS)
        exam.compare(title, got, right, suspects)


@exercise(
    "3.5",
    "convolution in any number of groups",
    "Each group has C/groups channels of x, and F/groups filters of weight. Convolve them in a loop over the groups.",
    "With c = C // groups, group g has the channels x[:, g * c : (g + 1) * c]. Likewise for the filters, on axis 0.",
    "Collect the results in a list and join them along axis 1, the channels: F.cat(parts, dim=1).",
)
def conv2d_in_groups(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = [
        ((2, 4, 5, 6), (6, 2, 3, 2), 2), ((1, 6, 4, 5), (9, 2, 2, 2), 3), ((2, 3, 5, 4), (4, 3, 2, 3), 1),
        ((3, 4, 4, 5), (4, 1, 3, 2), 4), ((2, 4, 5, 5), (8, 1, 2, 2), 4),
    ]  # fmt: skip
    for shape, weight, groups in cases:
        x = tensor(rng.standard_normal(shape), requires_grad=True)
        w = tensor(rng.standard_normal(weight), requires_grad=True)
        title = f"conv2d_in_groups({shown(x)}, {shown(w)}, {groups})"
        stops = {"channels, the input": "a group has C // groups channels of x, for F // groups filters of weight"}
        answer = exam.call(x, w, groups, title=title, stops=stops)
        exam.compare(title, answer, _in_groups(x, w, groups), _wrong_groups(x, w, groups))
        exam.require(
            isinstance(answer, Tensor) and answer.requires_grad,
            title,
            "gives the right values, and no gradient can flow back from them",
            cause="a .numpy() or a new tensor on the way: use F.conv2d, parts of tensors and F.cat",
        )
        if groups > 1:
            inputs = [parent.shape for parent, _ in answer.edges or ()]
            exam.require(
                not (answer.made_by == "conv2d" and shape in inputs and weight in inputs),
                title,
                "is right, and F.conv2d has done it with its argument groups",
                cause="the exercise is to do without that argument",
            )
    for shape, weight, groups in cases[:2]:
        title = f"conv2d_in_groups with {groups} groups"
        exam.gradients(lambda x, w, groups=groups: exam.attempt(x, w, groups), shape, weight, title=title)


# -- right answers, and usual wrong ones ------------------------------------------
# Image, kernel, stride: images and kernels that are not square, windows that overlap, just meet, or leave gaps.
_PATCHES = [
    ((1, 4, 5), (2, 2), 1), ((1, 4, 6), (3, 2), 1), ((2, 4, 5), (2, 3), 1), ((3, 5, 8), (3, 2), 2),
    ((2, 6, 10), (2, 2), 2), ((2, 8, 6), (2, 1), 3), ((3, 9, 8), (4, 3), 2),
]  # fmt: skip

_PATCH_STOPS = {
    "out of bounds": "there are (H - R) // stride + 1 windows along an axis, and window (p, q) is column p * Q + q",
    "broadcast": "patch and column differ in size: a patch has all C channels, and R x S pixels where it fits",
    "cannot reshape": "a column has C * R * S numbers, for all channels of one window",
}


def _count(shape, kernel, stride):
    P, Q = ((n - k) // stride + 1 for n, k in zip(shape[1:], kernel, strict=True))
    return P, Q


def _windows(x, kernel, stride):
    """(C, P, Q, R, S): NumPy's own view of all windows."""
    return numpy.lib.stride_tricks.sliding_window_view(x, kernel, axis=(1, 2))[:, ::stride, ::stride]


def _convolved(x, w, stride):
    return numpy.einsum("cpqrs,fcrs->fpq", _windows(x, w.shape[2:], stride), w)


def _patches(x, kernel, stride):
    windows = _windows(x, kernel, stride).transpose(0, 3, 4, 1, 2)
    return windows.reshape(len(x) * kernel[0] * kernel[1], -1)


def _put_back(apart, shape, stride, adds=True):
    """An image from its patches (C, R, S, P, Q), each added to what is there, or in its place."""
    _, R, S, P, Q = apart.shape
    x = numpy.zeros(shape)
    for p, q in numpy.ndindex(P, Q):
        place = x[:, p * stride : p * stride + R, q * stride : q * stride + S]
        place[...] = apart[..., p, q] + place * adds
    return x


def _in_groups(x, w, groups):
    return F.conv2d(x.detach(), w.detach(), groups=groups).numpy()


def _wrong_groups(x, w, groups):
    """What usual mistakes answer, by their explanation."""
    if groups == 1:
        return {}
    images, filters = x.numpy(), w.numpy()
    right = _in_groups(x, w, groups)
    each = numpy.split(right, groups, axis=1)

    def of(images, filters):
        return _in_groups(tensor(images), tensor(filters), groups)

    def dealt(array, axis):  # group g has number g, g + groups, g + 2 * groups, ...
        parts = [array.take(range(g, array.shape[axis], groups), axis=axis) for g in range(groups)]
        return numpy.concatenate(parts, axis=axis)

    first = numpy.concatenate([images[:, : images.shape[1] // groups]] * groups, axis=1)
    same = numpy.concatenate([filters[: len(filters) // groups]] * groups)
    return {
        "the groups are joined along the images: their place is axis 1, the channels": numpy.concatenate(each),
        "the groups are added up: join them along axis 1": sum(each),
        "the groups come in the opposite order": numpy.concatenate(each[::-1], axis=1),
        "the channels are dealt out in turn (::groups): a group has neighbouring ones": of(dealt(images, 1), filters),
        "the filters are dealt out in turn (::groups): a group has neighbouring ones": of(images, dealt(filters, 0)),
        "every group sees the first group's channels": of(first, filters),
        "every group uses the first group's filters": of(images, same),
        "only the first group is there": each[0],
        "only the last group is there": each[-1],
    }
