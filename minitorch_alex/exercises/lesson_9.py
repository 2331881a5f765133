"""Examines the exercises of lesson 9, seeing inside."""

from __future__ import annotations

from typing import Any

import numpy

from .. import functional as F
from ..nn import Conv2d, Dropout, Flatten, Linear, Module, ReLU, Sequential, Tanh
from ..tensor import Tensor, no_grad, tensor
from .examination import Examination, exercise, shown


@exercise(
    "9.1",
    "filters as pictures from 0 to 1",
    "Begin with the lesson's line for one filter. For all at once, the largest tap is taken over the last three axes, "
    "with keepdims=True.",
    "A filter of zeros would be 0/0: divide it by 1. And transpose(0, 2, 3, 1) puts the colours last.",
)
def for_display(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    colour = rng.standard_normal((4, 3, 5, 5)) * numpy.array([1, 0.1, 3, 1]).reshape(4, 1, 1, 1)
    dead = rng.standard_normal((3, 3, 4, 4))
    dead[1] = 0
    for weight in (colour, 0.01 * rng.standard_normal((3, 1, 2, 4)), rng.uniform(-2, -1, (2, 3, 3, 2)), dead):
        pictures = numpy.stack([w / (2 * max(numpy.abs(w).max(), 1e-300)) + 0.5 for w in weight])
        right = pictures.transpose(0, 2, 3, 1)
        exam.expect(weight, gives=right, suspects=_usual_pictures(weight, pictures), tolerance=1e-5)


def _usual_pictures(weight: numpy.ndarray, pictures: numpy.ndarray) -> dict[str, Any]:
    """What usual mistakes make of the weight, if `pictures` (F, C, R, S) are right but for their axes."""
    right, each, colours_last = pictures.transpose(0, 2, 3, 1), (1, 2, 3), (0, 2, 3, 1)
    F_, C, R, S = weight.shape

    def over(axes: Any, of: Any = numpy.abs) -> Any:
        return of(weight).max(axis=axes, keepdims=True)

    with numpy.errstate(all="ignore"):
        low, high = weight.min(axis=each, keepdims=True), weight.max(axis=each, keepdims=True)
        nothing = 0.5 + weight / (2 * over(each))
        suspects = {
            "one scale for all filters: stretch each by its own largest tap, over the axes (1, 2, 3)": (
                0.5 + weight / (2 * over(None))
            ),
            "this stretches from the smallest tap to the largest, so that 0 is not mid-grey: divide by the largest "
            "size instead": (weight - low) / (high - low),
            "the largest tap may be a negative one: take np.abs before the maximum": 0.5
            + weight / (2 * over(each, lambda a: a)),
            "each colour is stretched by itself, which changes the colours: one number for the whole filter": (
                0.5 + weight / (2 * over((2, 3)))
            ),
            "these go from -0.5 to 1.5: divide by twice the largest tap": 0.5 + weight / over(each),
            "0 is black here: add 0.5": weight / (2 * over(each)),
            "these go from -1 to 1: divide by twice the largest tap and add 0.5": weight / over(each),
            "a filter of zeros is divided by its largest tap, 0/0: divide it by 1 instead": nothing,
            "a filter of zeros should be mid-grey, 0.5, and not black": numpy.nan_to_num(nothing, nan=0.0),
            "these go from 0 to 255: from 0 to 1 is wanted": 255 * pictures,
        }
    suspects = {why: a.transpose(colours_last) for why, a in suspects.items()} | {
        "the axes are still (F, C, R, S): transpose(0, 2, 3, 1) puts the colours last": pictures,
        "rows and columns are swapped: it is transpose(0, 2, 3, 1)": pictures.transpose(0, 3, 2, 1),
        "reshape moves no axes, it reads the same numbers in the same order: transpose(0, 2, 3, 1)": pictures.reshape(
            F_, R, S, C
        ),
    }
    return {why: a for why, a in suspects.items() if a.shape != right.shape or not numpy.allclose(a, right)}


@exercise(
    "9.2",
    "the confusion matrix in shares of each class",
    "Count first, as in the lesson, into K rows and K columns. Then divide each row by its sum.",
    "counts.sum(axis=1, keepdims=True) has the shape (K, 1). Where it is 0, divide by 1: np.maximum(..., 1).",
    "To count without a loop, np.add.at(counts, (labels, predicted), 1). counts[labels, predicted] += 1 counts a pair "
    "once, however often it occurs.",
)
def confusion(exam: Examination) -> None:
    for labels, predicted, K in (
        (numpy.array([0, 0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3]), numpy.array([0, 0, 0, 1, 2, 1, 0, 2, 2, 3, 3, 3]), 4),
        (numpy.array([0, 0, 1, 1, 1]), numpy.array([1, 1, 1, 0, 1]), 2),
        (numpy.array([0, 2, 2, 0, 2, 0, 0]), numpy.array([1, 2, 0, 0, 2, 1, 0]), 3),  # class 1 has no images
        (numpy.array([1, 0, 1, 1]), numpy.array([1, 2, 1, 0]), 5),  # two do not occur at all
    ):
        counts = numpy.zeros((K, K))
        for t in range(K):
            for p in range(K):
                counts[t, p] = ((labels == t) & (predicted == p)).sum()
        images = numpy.array([max((labels == t).sum(), 1) for t in range(K)])[:, None]
        right = counts / images
        title = f"confusion(np.array({labels.tolist()}), np.array({predicted.tolist()}), {K})"
        answer = exam.call(labels, predicted, K, title=title)
        exam.compare(title, answer, right, _usual_confusions(counts, right, images))


def _usual_confusions(counts: numpy.ndarray, right: numpy.ndarray, images: numpy.ndarray) -> dict[str, Any]:
    once = (counts > 0) * 1.0
    used = int(numpy.flatnonzero(counts.any(axis=0) | counts.any(axis=1)).max()) + 1
    repeated = "counts[labels, predicted] += 1 counts a pair once, however often it occurs: use a loop or np.add.at"
    suspects = {
        "these are counts: divide each row by the number of images of its class": counts,
        repeated: once / images,
        f"these are no shares, and {repeated}": once,
        "these are counts, with rows and columns swapped": counts.T,
        "rows and columns are swapped: the row is the true class": right.T,
        "these are shares of all images: divide each row by the number of images of its class": counts / counts.sum(),
        "these are per cent: shares are from 0 to 1": 100 * right,
        "K rows and columns are wanted, also for classes that do not occur": right[:used, :used],
        "K rows and columns are wanted, and shares": counts[:used, :used],
    }
    for least, more in (1, ""), (0, ", and what has no images is 0/0"):  # with and without a guard against that

        def over(sums: numpy.ndarray, least: int = least) -> Any:
            return numpy.maximum(sums, least)

        with numpy.errstate(all="ignore"):
            suspects |= {
                f"these are shares of the guesses: divide each row by its sum, not each column{more}": counts
                / over(counts.sum(axis=0)),
                f"rows and columns are swapped: the row is the true class, not the guess{more}": counts.T
                / over(counts.sum(axis=0))[:, None],
                "sum(axis=1) without keepdims divides column p by the images of class p: each row is to be divided by "
                f"its own{more}": counts / over(counts.sum(axis=1)),
                f"{repeated}, and not divided by the images{more}": once / over(once.sum(axis=1, keepdims=True)),
                f"each row is divided by its sum{more}: leave the row of a class without images 0": counts
                / over(counts.sum(axis=1, keepdims=True)),
            }
    return {why: a for why, a in suspects.items() if a.shape != right.shape or not numpy.allclose(a, right)}


@exercise(
    "9.3",
    "a classifier by the vote of the nearest",
    "nearest_rows in the lesson finds the nearest rows of one query. Look up their labels, and count them, with "
    "np.bincount for instance.",
    "Bytes know no negative numbers and end at 255: rows.astype('float64') before anything is subtracted. Subtract "
    "first, then square: |a|^2 - 2ab + |b|^2 loses what is small beside what is large.",
    "The labels of the nearest are in order of distance. Of those with the most votes, the first in this order wins.",
)
def vote(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    rows, queries = rng.standard_normal((60, 4)), rng.standard_normal((80, 4))
    many, few = rng.integers(0, 10, 60), rng.permutation(numpy.repeat(numpy.arange(5), 12))
    tied = numpy.array([_is_tied(q, rows, few, 6) for q in queries])
    _examine_votes(exam, queries[:16], rows, many, 1)
    _examine_votes(exam, queries[~tied][:16], rows, few, 6)
    _examine_votes(exam, queries[tied][:12], rows, few, 6)
    bytes_, asked = rng.integers(0, 256, (50, 6)).astype("uint8"), rng.integers(0, 256, (12, 6)).astype("uint8")
    _examine_votes(exam, asked, bytes_, rng.integers(0, 10, 50), 1, _with_bytes)
    far = (5000 + 0.1 * rng.standard_normal((62, 16))).astype("float32")
    _examine_votes(exam, far[:12], far[12:], rng.integers(0, 10, 50), 3, _with_products)


def _order(query: numpy.ndarray, rows: numpy.ndarray) -> list[int]:
    """The rows' numbers, the nearest first."""
    distances = [sum((float(a) - float(b)) ** 2 for a, b in zip(row, query, strict=True)) for row in rows]
    return sorted(range(len(rows)), key=distances.__getitem__)


def _elected(ballots: Any, tie: str = "nearest") -> int:
    """The class with the most of the ballots, which come in the order of distance."""
    ballots = [int(b) for b in ballots]
    most = max(map(ballots.count, ballots))
    best = [b for b in ballots if ballots.count(b) == most]
    return {"nearest": best[0], "furthest": best[-1], "smallest": min(best), "largest": max(best)}[tie]


def _is_tied(query: numpy.ndarray, rows: numpy.ndarray, labels: numpy.ndarray, count: int) -> bool:
    ballots = labels[_order(query, rows)[:count]]
    return len({_elected(ballots, tie) for tie in ("smallest", "largest")}) > 1


def _examine_votes(
    exam: Examination, queries: Any, rows: numpy.ndarray, labels: numpy.ndarray, count: int, special: Any = None
) -> None:
    orders = [_order(query, rows) for query in queries]

    def elect(chosen: Any, tie: str = "nearest") -> numpy.ndarray:
        return numpy.array([_elected(labels[chosen(order)], tie) for order in orders])

    def by(measure: Any) -> numpy.ndarray:
        with numpy.errstate(all="ignore"):
            found = [numpy.argsort(measure(q), kind="stable")[:count] for q in queries]
        return numpy.array([_elected(labels[f]) for f in found])

    right = elect(lambda order: order[:count])
    suspects = {why: by(lambda q, m=m: m(q, rows)) for why, m in (special() if special else _MEASURES).items()}
    if special is None:
        suspects |= {
            "the rows that are furthest are asked: the smallest distances come first": elect(lambda o: o[::-1][:count]),
            "the nearest row is left out: the query is not among the rows": elect(lambda o: o[1 : count + 1]),
            "these are numbers of rows: look up their labels": numpy.array([o[0] for o in orders]),
            "this is the row that is furthest: the smallest distance wins": elect(lambda o: o[-1:]),
        }
    if special is None and count > 1:
        suspects |= {
            "this is the class of the nearest row: count the votes of all `count`": elect(lambda o: o[:1]),
            "all rows vote: it should be the nearest `count`": elect(lambda o: o),
            "one row too many votes": elect(lambda o: o[: count + 1]),
            "one row too few votes": elect(lambda o: o[: count - 1]),
            "of classes with equally many votes the smallest number wins, as argmax has it: the nearest should": elect(
                lambda o: o[:count], "smallest"
            ),
            "of classes with equally many votes the largest number wins: the nearest should": elect(
                lambda o: o[:count], "largest"
            ),
            "of classes with equally many votes the last wins: the nearest should": elect(
                lambda o: o[:count], "furthest"
            ),
        }
    kind = f"{len(queries)} queries, {len(rows)} rows of {rows.shape[1]} numbers ({rows.dtype})"
    answers = []
    for query in queries:
        title = f"vote(query, rows, labels, {count})"
        answer = exam.call(query, rows, labels, count, title=title)
        answers.append(_one_class(exam, title, answer))
    title = f"the classes that vote(query, rows, labels, {count}) gives: {kind}"
    got = numpy.array(answers)
    if special is _with_products and not numpy.array_equal(got, right):
        wrong = numpy.flatnonzero(got != right)
        raise exam.wrong(
            title,
            f"{len(wrong)} of {len(right)} are wrong. These rows lie around 5000, and differ by about 0.1.",
            cause="small differences of large numbers are lost. Subtract first and then square, "
            "|a|^2 - 2ab + |b|^2 does it the other way round",
        )
    exam.compare(title, got, right, suspects)


_MEASURES = {
    "the distance adds up |a - b|: square the differences": lambda q, rows: numpy.abs(rows - q).sum(axis=1),
    "the distance is the largest difference: add up all squares": lambda q, rows: numpy.abs(rows - q).max(axis=1),
    "the products with the query are compared, largest first: near means a small distance": lambda q, rows: -rows @ q,
    "the products with the query are compared: near means a small distance": lambda q, rows: rows @ q,
    "the differences are added up without a square, so that they cancel": lambda q, rows: (rows - q).sum(axis=1),
    "directions are compared (the cosine): near means a small distance": lambda q, rows: (
        -(rows @ q) / numpy.linalg.norm(rows, axis=1)
    ),
}


def _with_bytes() -> dict[str, Any]:
    wraps = "bytes know no negative numbers, and 3 - 5 is 254 there: convert with astype before you subtract"
    return {
        wraps: lambda q, rows: ((rows - q) ** 2).sum(axis=1),
        f"{wraps}, not after": lambda q, rows: ((rows - q).astype("float64") ** 2).sum(axis=1),
        "the squares do not fit into whole numbers of 16 bits: convert to float64": lambda q, rows: (
            (rows.astype("int16") - q.astype("int16")) ** 2
        ).sum(axis=1),
        "the squares do not fit into whole numbers of 8 bits: convert to float64": lambda q, rows: (
            (rows.astype("int8") - q.astype("int8")) ** 2
        ).sum(axis=1),
    }


def _with_products() -> dict[str, Any]:
    return {}


def _one_class(exam: Examination, title: str, answer: Any) -> int:
    try:
        found = numpy.asarray(answer.numpy() if isinstance(answer, Tensor) else answer)
    except Exception:  # it may be anything
        found = numpy.array(None)
    single = found.size == 1 and found.dtype.kind in "iuf" and float(found.reshape(-1)[0]).is_integer()
    cause = "these are several numbers: they are to vote, and one class is the answer" if found.size > 1 else ""
    exam.require(
        single and found.shape == (),
        title,
        f"gives {shown(answer)}, expected one class, a whole number",
        cause=cause or ("an array of one number: take it out, with [0] or int()" if single else ""),
    )
    return int(found)


@exercise(
    "9.4",
    "the largest slope of a score in each pixel",
    "As in the lesson: a leaf that wants a gradient, the score of the one class, backward().",
    "The image becomes a batch of one with image[None]. network(x)[0, label] is the score, and x.grad.numpy()[0] has "
    "the shape (C, H, W).",
    "The sizes are np.abs(...), and .max(axis=0) is the largest over the channels.",
)
def saliency(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    stops = {
        "'NoneType' object has no attribute": "x.grad is None: the leaf needs requires_grad=True, and backward() must "
        "have been called on what was computed from it",
        "out of bounds for axis 0 with size 1": "the first axis of the scores counts images, and there is one: "
        "scores[0, label]",
        "images are flattened first": "the batch of one is missing: image[None] has the shape (1, C, H, W)",
        "needs a gradient of that shape": "start from one score: scores[0, label].backward()",
    }
    for network, shape, label in (
        (_small_network(rng, 3, 4), (3, 5, 6), 1),
        (_small_network(rng, 1, 3), (1, 5, 6), 2),
        (_small_network(rng, 3, 4), (3, 5, 6), 0),
    ):
        image = rng.standard_normal(shape).astype("float32")
        title = f"saliency(network, image, {label}) for an image of shape {shape}"
        answer = exam.call(network, image, label, title=title, stops=stops)
        slopes = _slopes(network, image, lambda scores, label=label: scores[0, label])
        right = numpy.abs(slopes).max(axis=0)
        suspects = _usual_maps(network, image, label, slopes)
        different = {why: a for why, a in suspects.items() if a.shape != right.shape or not numpy.allclose(a, right)}
        exam.compare(title, answer, right, different, tolerance=1e-4)


def _small_network(rng: numpy.random.Generator, channels: int, classes: int) -> Sequential:
    """For images of 5 x 6 pixels, in evaluation mode, with weights from rng."""
    network = Sequential(
        Conv2d(channels, 4, 3, padding=1), Tanh(), Flatten(), Dropout(0.5), Linear(4 * 5 * 6, classes)
    )  # no kinks
    for parameter in network.parameters():
        parameter.data = parameter.backend.asarray(0.3 * rng.standard_normal(parameter.shape).astype("float32"))
    return network.eval()


def _slopes(network: Module, image: numpy.ndarray, of: Any) -> numpy.ndarray:
    """The gradient (C, H, W) of one number made of the scores."""
    x = tensor(image[None], requires_grad=True)
    of(network(x)).backward()
    network.zero_grad()
    assert x.grad is not None
    return x.grad.numpy()[0]


def _usual_maps(network: Module, image: numpy.ndarray, label: int, slopes: numpy.ndarray) -> dict[str, numpy.ndarray]:
    truth = numpy.array([label])
    with no_grad():
        best = int(network(tensor(image[None])).numpy().argmax())
    sizes = numpy.abs(slopes)
    suspects = {
        "the sizes are missing: a steep slope downhill counts, too, so take np.abs first": slopes.max(axis=0),
        "np.abs comes too late: first the sizes, then the largest of them": numpy.abs(slopes.max(axis=0)),
        "the sizes are added up over the channels: take the largest": sizes.sum(axis=0),
        "this is the mean over the channels: take the largest": sizes.mean(axis=0),
        "the slopes are added up over the channels: take their sizes, and of these the largest": slopes.sum(axis=0),
        "the slopes are added up over the channels before their size is taken": numpy.abs(slopes.sum(axis=0)),
        "this is the length over the channels: take the largest size": numpy.sqrt((slopes**2).sum(axis=0)),
        "this is the first channel alone: take the largest over all": sizes[0],
        "this is the smallest over the channels: take the largest": sizes.min(axis=0),
        "there is one number for each channel and pixel: take the largest over the channels, axis 0": sizes,
        "these are the slopes themselves: take their sizes, and the largest over the channels": slopes,
        "the first axis is left of the batch: take image 0 of the gradient": sizes.max(axis=0)[None],
        "the largest is taken over the whole image: over the channels alone, axis 0": numpy.array(sizes.max()),
        "the slopes are multiplied by the pixels: leave that out": numpy.abs(slopes * image).max(axis=0),
    }
    for why, of in {
        "this is the slope of the loss: take that of the score": lambda s: F.cross_entropy(s, truth),
        "this is the slope of the probability: take that of the score, before the softmax": lambda s: F.softmax(s, 1)[
            0, label
        ],
        "this is the slope of all scores together: of one class alone, scores[0, label]": lambda s: s.sum(),
        "this is the slope of the mean score: of one class alone, scores[0, label]": lambda s: s.mean(),
        "this is the score of the likeliest class: the one that `label` names is wanted": lambda s: s[0, best],
    }.items():
        suspects[why] = numpy.abs(_slopes(network, image, of)).max(axis=0)
    return suspects


@exercise(
    "9.5",
    "frozen layers and a new last one",
    "What is frozen is a parameter: parameter.requires_grad = False, for each of network.parameters(). Then make the "
    "new layer, so that it is not frozen.",
    "layers = network.named_layers() is a dictionary of the layers in order. Put the new one in the place of the last, "
    "and make nn.Sequential(layers).",
    "The new layer takes as many numbers as the old one did: its in_features.",
)
def new_head(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    stops = {
        "does not support item assignment": "a Sequential cannot be assigned into: make a new one, from the dictionary "
        "that named_layers() gives",
    }
    for network, classes in (
        (Sequential({"flatten": Flatten(), "fc1": Linear(12, 7), "tanh1": Tanh(), "fc2": Linear(7, 4)}), 3),
        (Sequential(Conv2d(1, 5, 3), ReLU(), Flatten(), Linear(5 * 1 * 2, 6)), 6),  # as many as before
        (Sequential({"flatten": Flatten(), "inner": Linear(12, 9), "relu": ReLU(), "end": Linear(9, 2)}), 10),
    ):
        x = tensor(rng.standard_normal((4, 1, 3, 4)).astype("float32"))
        old, y = network.layers(), x
        with no_grad():
            for layer in old[:-1]:
                y = layer(y)
        before = {id(layer): [p.numpy().copy() for p in layer.parameters()] for layer in old}
        title = f"new_head(network, {classes}) for a network of {len(old)} layers that ends with {old[-1]!r}"
        new = exam.call(network, classes, title=title, stops=stops)
        _examine_layers(exam, title, new, old, classes)
        _examine_frozen(exam, title, new, network)
        head = new.layers()[-1]
        for place, layer in enumerate(new.layers()[:-1]):
            now, was = [p.numpy() for p in layer.parameters()], before[id(old[place])]
            exam.require(
                len(now) == len(was) and all(map(numpy.array_equal, now, was)),
                title,
                f"layer {place} has other weights than before",
                cause="all layers but the last keep theirs",
            )
        scores = exam.call(x, function=new, title=f"a call of what {title} gives")
        right = y.numpy() @ head.weight.numpy().T + head.bias.numpy()
        exam.compare(f"its scores for 4 images, by {title}", scores, right, tolerance=1e-4)


def _examine_layers(exam: Examination, title: str, new: Any, old: list[Module], classes: int) -> None:
    """As many layers of the same kinds, and a new one at the end."""
    kind = type(new).__name__
    cause = "this is the new layer alone: put it behind the others" if isinstance(new, Linear) else ""
    exam.require(isinstance(new, Sequential), title, f"gives {kind}, expected an nn.Sequential", cause=cause)
    layers = new.layers()
    if len(layers) == len(old) + 1:
        cause = "the old last layer is still there: the new one belongs in its place"
    elif len(layers) == len(old) - 1:
        cause = "the last layer is gone, and no new one is in its place"
    elif any(isinstance(layer, Sequential) for layer in layers):
        cause = "there is a Sequential inside the new one: take its layers out, with named_layers() or layers()"
    else:
        cause = ""
    wanted = f"expected {len(old)}"
    exam.require(len(layers) == len(old), title, f"gives a network of {len(layers)} layers, {wanted}", cause=cause)
    for place, (layer, was) in enumerate(zip(layers, old, strict=True)):
        exam.require(
            type(layer) is type(was),
            title,
            f"layer {place} is {layer!r}, expected {'a new ' if was is old[-1] else ''}{type(was).__name__}",
            cause="all layers but the last stay as they are, in their order",
        )
    head, last = layers[-1], old[-1]
    exam.require(
        head is not last and head.weight is not last.weight,
        title,
        "the last layer is the one that was there before",
        cause="make a new nn.Linear, also where the number of classes is the same",
    )
    inputs, outputs = last.in_features, last.out_features
    causes = {
        (inputs, classes): "nn.Linear(inputs, outputs): the inputs come first",
        (outputs, inputs): "this has the old number of classes",
        (classes, outputs): "the new layer takes what the old one took, its in_features, and not what it gave",
    }
    shape = head.weight.shape
    cause = causes.get(shape, "it takes as many numbers as the old last layer: its in_features")
    lines = title, f"the new layer's weight has shape {shape}, expected {(classes, inputs)}"
    exam.require(shape == (classes, inputs), *lines, cause=cause)
    exam.require(head.bias is not None, title, "the new layer has no bias", cause="leave nn.Linear's own settings")


def _examine_frozen(exam: Examination, title: str, new: Sequential, network: Sequential) -> None:
    """The parameters of the last layer can be trained, and no others."""
    head = set(new.layers()[-1].parameters())
    named = list(new.named_parameters())
    free = [name for name, p in named if p.requires_grad]
    wanted = [name for name, p in named if p in head]
    marked = any("requires_grad" in vars(module) for _, module in [*new.named_modules(), *network.named_modules()])
    if not free:
        cause = "the new layer is frozen as well: freeze first, then make it"
    elif marked:
        cause = "layers have no requires_grad of their own, so this does nothing: their parameters have"
    elif len(free) == len(named):
        cause = "nothing is frozen: set requires_grad = False for each parameter of the other layers"
    elif not set(wanted) & set(free):
        cause = "it is the other way round: the new layer is the one that learns"
    elif all(name in wanted or name.endswith("bias") for name in free):
        cause = "the biases of the other layers are parameters, too"
    elif all(name in wanted or name.endswith("weight") for name in free):
        cause = "the weights of the other layers are parameters, too"
    else:
        cause = "all layers but the last are to be frozen, and nothing of the last"
    lines = f"what can be trained is {', '.join(free) or 'nothing'}", f"expected {', '.join(wanted)}"
    exam.require(free == wanted, title, *lines, cause=cause)
