"""The benchmark behind Figure 1, without its data."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_hex

import minitorch_alex.functional as F
from benchmarks import figure1
from minitorch_alex import Tensor, manual_seed, nn, plots
from minitorch_alex.data import Loader, Preprocessing
from minitorch_alex.data.augmentation import Augmentation

RATE = 0.02


def test_the_networks_differ_in_nothing_but_the_activation():
    states, kinds = [], []
    for activation in figure1.ACTIVATIONS.values():
        manual_seed(3)
        network = figure1.build(activation)
        states.append(network.state_dict())
        kinds.append([type(layer) for layer in network.layers()])
    assert [np.array_equal(a, b) for a, b in zip(*map(dict.values, states), strict=True)] == 8 * [True]
    differing = [{a, b} for a, b in zip(*kinds, strict=True) if a is not b]
    assert differing == 3 * [{nn.ReLU, nn.Tanh}]


def errors_by_hand(images, labels, batch, rate, epochs):
    """Error (%) of each batch before the step that it leads to, with the momentum written out."""
    preprocessing = Preprocessing.of(images)
    loader = Loader(images, labels, batch, preprocessing, Augmentation(), seed=1)
    manual_seed(1)
    network, errors = figure1.build(nn.Tanh), []
    velocity = dict.fromkeys(network.parameters(), 0.0)
    for epoch in range(epochs):
        for numbers in loader.order(epoch).reshape(-1, batch):
            scores = network(Tensor(preprocessing(images[numbers])))
            errors.append(100 * (scores.numpy().argmax(axis=1) != labels[numbers]).mean())
            F.cross_entropy(scores, labels[numbers]).backward()
            for p in velocity:
                velocity[p] = 0.9 * velocity[p] + p.grad.numpy()
                p.data, p.grad = p.data - rate * velocity[p], None
    return errors


def test_error_is_counted_before_the_network_learns(monkeypatch):
    monkeypatch.setattr(figure1, "BATCH", 4)
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 20)  # dark and bright images
    images = (random.integers(0, 200, (20, 3, 32, 32)) + 50 * labels.reshape(-1, 1, 1, 1)).astype("uint8")
    dataset = SimpleNamespace(train_images=images, train_labels=labels)

    def train(target, most):
        return figure1.train(dataset, "tanh", RATE, seed=1, target=target, most=most)

    expected = errors_by_hand(images, labels, 4, RATE, 2)
    assert len(set(expected)) > 3
    assert train(target=-1.0, most=2.0) == expected  # five batches in an epoch of five parts
    assert train(target=-1.0, most=0.5) == expected[:3]
    assert train(target=100.0, most=1.0) == expected[:1]


def test_a_crossing_lies_between_two_points():
    assert figure1.middles([60.0, 30.0, 20.0]) == pytest.approx([0.1, 0.3, 0.5])
    assert figure1.crossing([60.0, 30.0, 20.0], 25.0) == pytest.approx(0.4)
    assert figure1.crossing([60.0, 30.0, 20.0], 27.5) == pytest.approx(0.35)
    assert figure1.crossing([20.0], 25.0) == pytest.approx(0.1)
    assert figure1.crossing([60.0, 30.0], 25.0) == math.inf


@pytest.mark.parametrize("best", [0.0025, 0.01, 0.08])
def test_the_best_rate_has_a_worse_one_on_either_side(best):
    limits = []

    def time_at(rate, limit):
        limits.append(limit)
        time = 1 + abs(math.log2(rate / best))
        return time if time <= limit else math.inf

    times = figure1.try_rates(time_at)
    assert min(times, key=times.get) == best
    assert {best / 2, 2 * best} <= set(times)
    assert list(times) == sorted(times)
    assert limits[0] == figure1.MOST_EPOCHS
    assert limits[-1] == 1.0  # nobody is given longer than the best so far took


def test_an_interrupted_command_repeats_nothing(tmp_path):
    file, done = tmp_path / "runs" / "kept.jsonl", []

    def work(**settings):
        done.append(settings)
        return [50.0, 25.0]

    for rate in (0.01, 0.02, 0.01):
        assert figure1.Kept(file).curve(work, name="tanh", rate=rate) == [50.0, 25.0]
    assert done == [{"name": "tanh", "rate": 0.01}, {"name": "tanh", "rate": 0.02}]


def test_the_ratio_is_honest_about_who_does_not_arrive():
    ratio = figure1.compare([2.0, 4.0, 3.0], [8.0, 8.0, math.inf])
    assert ratio == {"is_lower_limit": True, "median": 4.0, "by_seed": [4.0, 2.0, 10.0]}
    found = {"ReLU": {"epochs": [2.0, 4.0, 3.0]}, "tanh": {"epochs": [math.inf, 8.0, math.inf]}}
    text = figure1.title(found, ratio)
    assert "ReLU after 3.0 epochs, tanh not within 30 epochs" in text
    assert "at least 4.0 times as fast (2.0 to 10.0, 3 seeds)" in text
    assert json.dumps(figure1.rounded({0.02: [math.inf, 1.23456]})) == '{"0.02": [null, 1.2346]}'


def test_the_figure_is_drawn():
    def run(*errors):
        return figure1.middles(errors), errors

    runs = {"ReLU": [run(60, 20), run(70, 30, 10), run(50, 40, 30, 20)], "tanh": [run(80, 60), run(80, 50, 24)]}
    picture = plots.time_to_error(runs, 25.0, "title")
    (axes,) = picture.axes
    lines = axes.get_lines()
    relu, tanh, target = lines[3], lines[6], lines[7]
    assert [(line.get_linestyle(), to_hex(line.get_color())) for line in (relu, tanh)] == [
        ("-", plots.TRAIN),
        ("--", plots.TEST),
    ]
    assert list(relu.get_ydata()) == [60, 30, 10]  # the third point: one run has ended below, one is above
    assert list(relu.get_xdata()) == pytest.approx([0.1, 0.3, 0.5])
    assert list(tanh.get_ydata()) == [80, 60, 24]
    assert set(target.get_ydata()) == {25.0}
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_title()) == ("epoch", "training error (%)", "title")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "ReLU: median of 3 runs",
        "tanh: median of 2 runs",
        "25 %",
    ]
