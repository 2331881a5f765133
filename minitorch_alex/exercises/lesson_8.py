"""Examines the exercises of lesson 8, training on photographs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy

from ..tensor import Tensor
from .examination import Examination, exercise, shown


class Case(NamedTuple):
    """What an attempt answered to one call, what is right, and what usual mistakes would answer."""

    title: str
    answer: Any
    right: Any
    mistakes: dict[str, Any]  # by their explanation, the same ones in every case


def _compare_all(exam: Examination, cases: list[Case]) -> None:
    """A mistake explains an answer only if it explains all of them."""
    alike = [why for why in cases[0].mistakes if all(_agree(c.answer, c.mistakes[why]) for c in cases)]
    for c in cases:
        exam.compare(c.title, c.answer, c.right, {why: c.mistakes[why] for why in alike})


def _agree(answer: Any, other: Any) -> bool:
    try:
        answer = answer.numpy() if isinstance(answer, Tensor) else answer
        return numpy.shape(answer) == numpy.shape(other) and bool(numpy.allclose(answer, other, rtol=1e-6, atol=1e-9))
    except Exception:  # an answer may be anything
        return False


@exercise(
    "8.1",
    "how many views an image has",
    "Begin with one axis and a small case: in how many places can 3 pixels begin in a row of 5?",
    "H - size + 1 places along one axis, W - size + 1 along the other, and each with each. Mirror images double that.",
)
def count_views(exam: Examination) -> None:
    calls = [
        (5, 5, 3, False), (5, 5, 3, True), (4, 7, 2, False), (7, 4, 2, True), (6, 6, 6, False), (9, 6, 6, True),
        (32, 32, 28, True), (10, 10, 8, False), (256, 256, 224, True),
    ]  # fmt: skip
    cases = []
    for call in calls:
        title = f"count_views({', '.join(map(shown, call))})"
        cases.append(Case(title, exam.call(*call), _views(*call), _view_count_mistakes(*call)))
    _compare_all(exam, cases)


def _views(H: int, W: int, size: int, mirror: bool) -> int:
    return len(range(H - size + 1)) * len(range(W - size + 1)) * (2 if mirror else 1)


def _view_count_mistakes(H: int, W: int, size: int, mirror: bool) -> dict[str, int]:
    down, across, doubled = H - size, W - size, 2 if mirror else 1
    right = _views(H, W, size, mirror)
    return {
        "a place along each axis is missing: a square may begin at 0 and at H - size, both included": doubled
        * down
        * across,
        "there is a place too many along each axis: the last is H - size": doubled * (down + 2) * (across + 2),
        "each place along one axis goes with each along the other: multiply, do not add": doubled * (down + across + 2),
        "only one axis is counted: there are W - size + 1 places along the other": doubled * (down + 1),
        "the mirror images are missing": (down + 1) * (across + 1),
        "there are mirror images only if `mirror` is True": 2 * (down + 1) * (across + 1),
        "mirroring exchanges left and right alone, which doubles the number": right * doubled,
        "this is right for square images only: W may differ from H": doubled * (down + 1) ** 2,
        "these are squares side by side: a square may begin at any pixel": doubled * (H // size) * (W // size),
    }


@exercise(
    "8.2",
    "the share of images whose true class is not among the first k",
    "Sort the classes of each image from the highest score to the lowest: argsort of -scores does that. Then look "
    "whether the label is among the first k.",
    "order[:, :k] == labels[:, None] compares each image's first k classes with its label. any(axis=1) says whether "
    "one of them is it.",
    "np.argsort(-scores, axis=1, kind='stable') keeps equal scores in the order of their classes. Reversing "
    "argsort(scores) does not.",
)
def top_k_error(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    distinct = rng.permutation(40).reshape(8, 5) / 7.0
    tied = rng.integers(0, 3, (12, 6)).astype("float64")
    calls = [
        (numpy.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]), numpy.array([2, 0]), 1),
        (distinct, rng.integers(0, 5, 8), 1),
        (distinct - 3, rng.integers(0, 5, 8), 2),
        (distinct, numpy.arange(8) % 5, 4),
        (distinct, rng.integers(0, 5, 8), 5),
        (numpy.zeros((4, 4)), numpy.arange(4), 1),
        (tied, rng.integers(0, 6, 12), 2),
        (tied, rng.integers(0, 6, 12), 3),
        (rng.standard_normal((50, 10)), rng.integers(0, 10, 50), 5),
    ]
    cases = []
    for scores, labels, k in calls:
        title = f"top_k_error({shown(scores)}, {shown(labels)}, {k})"
        if any(len(set(row)) < len(row) for row in scores.tolist()):
            title += ", with equal scores" if scores.any() else ", all scores 0"
        right = sum(rank >= k for rank in _ranks(scores, labels)) / len(labels)
        answer = exam.call(scores, labels, k, title=title)
        cases.append(Case(title, answer, right, _top_k_mistakes(scores, labels, k)))
    _compare_all(exam, cases)


def _ranks(scores: numpy.ndarray, labels: numpy.ndarray) -> list[int]:
    """How many classes stand before the true one: those with a higher score, or the same and a smaller number."""
    return [
        sum(bool(s > row[label] or (s == row[label] and k < label)) for k, s in enumerate(row))
        for row, label in zip(scores.tolist(), labels.tolist(), strict=True)
    ]


def _top_k_mistakes(scores: numpy.ndarray, labels: numpy.ndarray, k: int) -> dict[str, float]:
    N, K = scores.shape
    truth = scores[numpy.arange(N), labels][:, None]
    higher, as_high = (scores > truth).sum(axis=1), (scores >= truth).sum(axis=1)
    rising = numpy.argsort(scores, axis=1, kind="stable") == labels[:, None]
    rank = numpy.array(_ranks(scores, labels))
    wrong = {
        "this is the share that is right: the error is the rest": rank < k,
        "these are the k classes with the lowest scores: argsort goes from small to large": rising.argmax(axis=1) >= k,
        "only the class in place k is looked at: those before it count, too": rank != k - 1,
        "this is the top-1 error: k is not used": rank >= 1,
        "a class too few is looked at: order[:, :k] holds k": rank >= k - 1,
        "a class too many is looked at: order[:, :k] holds k": rank >= k + 1,
        "a true class that shares its score counts as before the others: of equal scores the class with the smaller "
        "number comes first": higher >= k,
        "a true class that shares its score counts as behind the others: of equal scores the class with the smaller "
        "number comes first": as_high > k,
        "of equal scores the class with the larger number comes first here, as when argsort is reversed: sort -scores, "
        "with kind='stable'": rising[:, ::-1].argmax(axis=1) >= k,
    }
    shares: dict[str, float] = {why: float(numpy.mean(w)) for why, w in wrong.items()}
    count = float(numpy.sum(rank >= k))
    return shares | {
        "this is in percent: a share is from 0 to 1": 100 * count / N,
        "this is a number of images: divide by how many there are": count,
        "it is divided by the number of classes: divide by the number of images": count / K,
    }


@exercise(
    "8.3",
    "the mean probabilities over ten views",
    "images[:, :, top : top + size, left : left + size] is one view of all images. Which five (top, left) are wanted?",
    "(0, 0), (0, W - size), (H - size, 0), (H - size, W - size), and the centre ((H - size) // 2, (W - size) // 2). "
    "view[:, :, :, ::-1] is the mirror image.",
    "Ask the network about each view, take the softmax of its scores row by row, and only then add up. Divide by 10.",
)
def ten_view_probabilities(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = []
    for shape, size, K in (((2, 3, 7, 7), 4, 3), ((3, 1, 5, 8), 4, 4), ((1, 2, 9, 6), 3, 2), ((2, 1, 6, 6), 4, 5)):
        images = rng.standard_normal(shape)
        network = _network((shape[1], size, size), K, rng)
        title = f"ten_view_probabilities(network, images of shape {shape}, {size})"
        answer = exam.call(network, images, size, title=title, stops=_VIEW_STOPS)
        cases.append(Case(title, answer, _mean_of(network, _ten(images, size)), _view_mistakes(network, images, size)))
    _compare_all(exam, cases)


Network = Callable[[Any], numpy.ndarray]
_VIEW_STOPS = {
    "the network takes views of the shape": "a view is images[:, :, top : top + size, left : left + size]: all images, "
    "all channels, and an end that lies inside the image"
}


def _network(expected: tuple[int, ...], K: int, rng: numpy.random.Generator) -> Network:
    """A function of views that tells all places and channels apart."""
    weights = 0.4 * rng.standard_normal((math.prod(expected), K))

    def network(views: Any) -> numpy.ndarray:
        shape = numpy.shape(views)
        if shape[1:] != expected:
            raise ValueError(f"the network takes views of the shape (N, {str(expected)[1:]}, not {shape}")
        return numpy.asarray(views).reshape(len(views), -1) @ weights

    return network


def _softmax(scores: numpy.ndarray, axis: int | None = 1) -> numpy.ndarray:
    e = numpy.exp(scores - scores.max())
    return e / e.sum(axis=axis, keepdims=True)


def _mean_of(network: Network, views: Sequence[numpy.ndarray]) -> numpy.ndarray:
    return numpy.mean([_softmax(network(view)) for view in views], axis=0)


def _cut(images: numpy.ndarray, size: int, places: Sequence[tuple[int, int]]) -> list[numpy.ndarray]:
    return [images[:, :, top : top + size, left : left + size] for top, left in places]


def _mirrored(views: Sequence[numpy.ndarray]) -> list[numpy.ndarray]:
    return [view[:, :, :, ::-1] for view in views]


def _places(H: int, W: int, size: int) -> list[tuple[int, int]]:
    """Of the corners and, last, the centre."""
    down, across = H - size, W - size
    return [(0, 0), (0, across), (down, 0), (down, across), (down // 2, across // 2)]


def _ten(images: numpy.ndarray, size: int) -> list[numpy.ndarray]:
    H, W = images.shape[2:]
    five = _cut(images, size, _places(H, W, size))
    return five + _mirrored(five)


def _view_mistakes(network: Network, images: numpy.ndarray, size: int) -> dict[str, numpy.ndarray]:
    H, W = images.shape[2:]
    down, across = H - size, W - size
    corners, ten = _places(H, W, size)[:4], _ten(images, size)
    five = ten[:5]
    scores = [network(view) for view in ten]
    right = _mean_of(network, ten)

    def with_centre(top: int, left: int) -> numpy.ndarray:
        views = _cut(images, size, [*corners, (min(top, down), min(left, across))])
        return _mean_of(network, views + _mirrored(views))

    return {
        "the scores are averaged and then made into probabilities: first the softmax of each view, then the mean": (
            _softmax(numpy.mean(scores, axis=0))
        ),
        "these are mean scores: the softmax is missing": numpy.mean(scores, axis=0),
        "this is the sum over the views: divide by 10": 10 * right,
        "the sum over ten views is divided by 5": 2 * right,
        "the logarithms of the probabilities are averaged": numpy.mean(
            [numpy.log(_softmax(s)) for s in scores], axis=0
        ),
        "the mirror images are missing": _mean_of(network, five),
        "the mirror images are missing, and the sum over five views is divided by 10": _mean_of(network, five) / 2,
        "the five views themselves are missing: these are the mirror images alone": _mean_of(network, ten[5:]),
        "this is the centre alone": _mean_of(network, five[4:]),
        "the corners are missing: this is the centre and its mirror image": _mean_of(network, [ten[4], ten[9]]),
        "the centre is missing: four corners and the centre": _mean_of(network, ten[:4] + ten[5:9]),
        "the mirror images are upside down: exchange left and right, the last axis": _mean_of(
            network, five + [view[:, :, ::-1] for view in five]
        ),
        "the mirror images are turned upside down as well: reverse the last axis alone": _mean_of(
            network, five + [view[:, :, ::-1, ::-1] for view in five]
        ),
        "the channels are reversed: the mirror image reverses the last axis": _mean_of(
            network, five + [view[:, ::-1] for view in five]
        ),
        "the centre is rounded up: (H - size) // 2 pixels from the top": with_centre(-(-down // 2), -(-across // 2)),
        "the centre begins at half of the image: it begins at half of what is left over, (H - size) // 2": with_centre(
            H // 2, W // 2
        ),
        "the softmax goes over the images: each row is one image, axis 1": numpy.mean(
            [_softmax(s, 0) for s in scores], axis=0
        ),
        "all probabilities together add up to 1, but each row should: sum along axis 1": numpy.mean(
            [_softmax(s, None) for s in scores], axis=0
        ),
        "this is the largest probability over the views: take the mean": numpy.max(
            [_softmax(s) for s in scores], axis=0
        ),
        "these are the ten answers one by one: take their mean": numpy.array([_softmax(s) for s in scores]),
    }


@exercise(
    "8.4",
    "the rate of each epoch, a tenth whenever the error stops falling",
    "Keep four things: the rate, the best error so far, how many epochs have passed since, and how often the rate has "
    "dropped.",
    "For each error: first note the rate, since that epoch is over. Is the error below the best? Then it is the best, "
    "and the count is 0. Otherwise the count grows, and above `patience` the rate drops.",
    "A drop sets the count to 0, but the best error stays what it was. After three drops nothing happens any more.",
)
def rates_on_plateau(exam: Examination) -> None:
    calls: list[tuple[list[float], float, int]] = [
        ([50, 40, 30, 20], 0.1, 1),
        ([60, 50, 52, 49, 49, 51, 44, 45, 46, 44, 45, 43], 0.01, 1),
        ([50, 50, 50, 50, 50, 50, 50, 50], 1.0, 1),
        ([9, 8, 8.5, 8.2, 8.1, 7.9, 8, 8, 8, 8, 7], 0.5, 2),
        ([30, 31, 30.5, 29, 31, 30, 29.5, 28, 30, 29, 28.5, 28.2, 28.1, 27], 0.02, 0),
        ([5] * 20, 0.4, 2),
        ([3, 4, 5, 4, 3, 2, 5, 4, 3, 4, 1, 2, 3, 2, 3], 0.08, 3),
    ]
    cases = []
    for errors, rate, patience in calls:
        title = f"rates_on_plateau({errors}, {rate}, {patience})"
        answer = exam.call(list(errors), rate, patience, title=title)
        mistakes = {why: _rates(errors, rate, patience, kind) for why, kind in _RATE_MISTAKES.items()}
        cases.append(Case(title, answer, _library_rates(errors, rate, patience), mistakes))
    _compare_all(exam, cases)


def _library_rates(errors: Sequence[float], rate: float, patience: int) -> list[float]:
    """By the library's own schedule."""
    from ..nn import Parameter
    from ..optim import SGD, ReduceLROnPlateau

    optimizer = SGD([Parameter(numpy.zeros(1))], lr=rate)
    schedule = ReduceLROnPlateau(optimizer, patience=patience, threshold=0.0, max_reductions=3)
    rates = []
    for error in errors:
        rates.append(optimizer.param_groups[0]["lr"])
        schedule.step(error)
    return rates


_RATE_MISTAKES = {
    "it drops an epoch too early: it waits for more than `patience` epochs": "early",
    "it drops an epoch too late: it drops as soon as the count is above `patience`": "late",
    "the rate is noted after the decision: what is wanted is the rate at which the epoch was trained": "after",
    "there is one rate for each error: that of the epoch after the last is too much": "one more",
    "it compares with the epoch before: an improvement is below all earlier errors": "previous",
    "an equal error counts as an improvement here: it has to be below": "equal",
    "the count does not begin anew when the error improves: epochs in a row are meant": "in all",
    "the count does not begin anew after a drop": "keeps counting",
    "the best error is forgotten at a drop: it stays what it was": "forgets",
    "there is no end to the drops: three at most": "no end",
    "it drops only once: three times at most": "once",
    "it drops only twice: three times at most": "twice",
    "it drops four times: three at most": "four",
    "it is halved: a tenth is wanted": "half",
    "the rate grows: a tenth is wanted": "grows",
    "the rate never drops": "never",
}


def _rates(errors: Sequence[float], rate: float, patience: int, mistake: str) -> list[float]:
    """What a usual mistake would make of them."""
    rates: list[float] = []
    waited = drops = 0
    most = {"no end": len(errors), "once": 1, "twice": 2, "four": 4, "never": 0}.get(mistake, 3)
    factor = {"half": 0.5, "grows": 10.0}.get(mistake, 0.1)
    limit = patience + {"early": -1, "late": 1}.get(mistake, 0)
    earlier: list[float] = []
    for error in errors:
        before = rate * factor**drops
        against = earlier[-1:] if mistake == "previous" else earlier
        improved = not against or error < min(against) or (mistake == "equal" and error == min(against))
        earlier = [*earlier, error]
        if not improved:
            waited += 1
        elif mistake != "in all":
            waited = 0
        if not improved and waited > limit and drops < most:
            drops += 1
            waited = waited if mistake == "keeps counting" else 0
            earlier = [] if mistake == "forgets" else earlier
        rates.append(rate * factor**drops if mistake == "after" else before)
    return [*rates, rate * factor**drops] if mistake == "one more" else rates


@exercise(
    "8.5",
    "in which share of all splits the difference is as large",
    "np.concatenate([a, b]) is the bag. For each way of itertools.combinations(range(len(bag)), len(a)) the chosen "
    "numbers are one group, and all others the second.",
    "bag[list(way)] is the first group and np.delete(bag, way) the second. Count the ways whose difference of means, "
    "without its sign, is at least that of a and b less 1e-9.",
    "With three and three there are 20 ways, and with five and five 252. The split that was found and its opposite "
    "always count, so the share cannot be below 2/20 or 2/252.",
)
def share_as_large(exam: Examination) -> None:
    calls: list[tuple[list[float], list[float]]] = [
        ([1, 2, 3], [4, 5, 6]),
        ([4, 5, 9], [1, 2, 6]),
        ([3, 7], [5, 5]),
        ([40.1, 41.3, 39.8], [40.4, 38.9, 40.2]),
        ([2, 9, 4, 7], [1, 3, 8]),
        ([0.1, 0.7], [0.2, 0.6, 0.3]),
        ([0.3, 0.1, 0.6, 0.7], [0.2, 0.4, 0.5, 0.9]),
        ([10, 12, 11, 13, 14], [15, 9, 16, 17, 18]),
    ]
    cases = []
    for a, b in calls:
        title = f"share_as_large({a}, {b})"
        answer = exam.call(numpy.array(a, "float64"), numpy.array(b, "float64"), title=title, stops=_SHARE_STOPS)
        cases.append(Case(title, answer, *_shares(a, b, answer)))
    _compare_all(exam, cases)


_SHARE_STOPS = {
    "could not be broadcast": "a + b adds two arrays number by number: np.concatenate([a, b]) puts one behind the other"
}


def _shares(a: Sequence[float], b: Sequence[float], answer: Any) -> tuple[float, dict[str, float]]:
    """The right share, and what usual mistakes would give. Exact: the differences are fractions."""
    bag = [Fraction(str(value)) for value in (*a, *b)]
    total, first, second = sum(bag, Fraction()), len(a), len(b)
    sums = [sum(way, Fraction()) for way in itertools.combinations(bag, first)]  # that of a comes first
    differences = [s / first - (total - s) / second for s in sums]
    found, ways = differences[0], len(differences)
    right = sum(abs(d) >= abs(found) for d in differences)
    larger = sum(abs(d) > abs(found) for d in differences)
    counts: dict[str, float] = {
        "only larger differences are counted: at least as large": larger,
        "both differences keep their sign: abs() of each is compared": sum(d >= found for d in differences),
        "both differences keep their sign, and the smaller ones are counted: abs() of each is compared": sum(
            d <= found for d in differences
        ),
        "the difference that was found keeps its sign: abs() of both is compared": sum(
            abs(d) >= found for d in differences
        ),
        "the differences of the splits keep their sign: abs() of both is compared": sum(
            d >= abs(found) for d in differences
        ),
        "these are the smaller differences: count those at least as large": sum(
            abs(d) < abs(found) for d in differences
        ),
        "these are the differences that are at most as large: count those at least as large": sum(
            abs(d) <= abs(found) for d in differences
        ),
        "this is the number of splits: divide it by how many there are": right * ways,
        "the split that was found is left out of those that count: it is one of the ways": right - 1,
        "the split that was found is left out: it is one of the ways": (right - 1) * ways / max(1, ways - 1),
        "the groups' sums are compared: their means are wanted": sum(
            abs(2 * s - total) >= abs(2 * sums[0] - total) for s in sums
        ),
    }
    mistakes = {why: float(count / ways) for why, count in counts.items()}
    mistakes["this is the difference of the means itself"] = float(abs(found))
    mistakes["the groups' medians are compared: their means are wanted"] = _share_by_medians([*a, *b], first)
    why = "differences that are equal but for the last digit are missed: smaller by no more than 1e-9 counts, too"
    missed = isinstance(answer, float | numpy.floating) and larger / ways <= float(answer) <= right / ways
    mistakes[why] = float(answer) if missed else -1.0
    return float(right / ways), mistakes


def _share_by_medians(bag: Sequence[float], first: int) -> float:
    values = numpy.array(bag, "float64")
    ways = [list(way) for way in itertools.combinations(range(len(values)), first)]
    differences = [abs(numpy.median(values[way]) - numpy.median(numpy.delete(values, way))) for way in ways]
    return float(numpy.mean(numpy.array(differences) >= differences[0] - 1e-9))
