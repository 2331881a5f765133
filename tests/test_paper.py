"""What the paper says of its network and its training, where no other test holds it: see notebooks/MAP.md."""

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import figure1
from minitorch_alex import backends, init, models, plots, run
from minitorch_alex.config import Config, read_file
from minitorch_alex.run_folder import RunFolder
from minitorch_alex.summary import summary

LAYERS = """
    conv1: Conv2d(3, 96, kernel_size=(11, 11), stride=4)
    relu1: ReLU()
    norm1: LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2)
    pool1: MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=False)
    conv2: Conv2d(96, 256, kernel_size=(5, 5), stride=1, padding=2, groups=2)
    relu2: ReLU()
    norm2: LocalResponseNorm(5, alpha=0.0005, beta=0.75, k=2)
    pool2: MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=False)
    conv3: Conv2d(256, 384, kernel_size=(3, 3), stride=1, padding=1)
    relu3: ReLU()
    conv4: Conv2d(384, 384, kernel_size=(3, 3), stride=1, padding=1, groups=2)
    relu4: ReLU()
    conv5: Conv2d(384, 256, kernel_size=(3, 3), stride=1, padding=1, groups=2)
    relu5: ReLU()
    pool5: MaxPool2d(kernel_size=3, stride=2, padding=0, ceil_mode=False)
    flatten: Flatten()
    fc6: Linear(9216, 4096)
    relu6: ReLU()
    drop6: Dropout(p=0.5)
    fc7: Linear(4096, 4096)
    relu7: ReLU()
    drop7: Dropout(p=0.5)
    fc8: Linear(4096, 1000)
"""


@pytest.fixture
def network(monkeypatch):
    """The paper's, with weights of 0, in memory that nobody has touched yet."""
    monkeypatch.setattr(init, "default", lambda shape, fan_in=None: np.zeros(shape, "float32"))
    monkeypatch.setattr(init, "normal_", lambda t, **_: t)
    return models.build("alexnet", 1000)


def test_the_network_layer_by_layer(network):
    assert [f"{name}: {layer}" for name, layer in network.named_layers().items()] == [
        line.strip() for line in LAYERS.strip().splitlines()
    ]


def test_how_many_neurons(network):
    """Of the layers with weights: 650,000 by the paper's abstract."""
    told = summary(network, (3, 227, 227))
    neurons = [math.prod(layer.output_shape) for layer in told.layers if layer.parameters]
    assert neurons == [290_400, 186_624, 64_896, 64_896, 43_264, 4096, 4096, 1000]
    assert sum(neurons) == 659_272


def test_the_recipe(monkeypatch):
    """One rate for all layers, divided by 10 three times."""
    monkeypatch.setattr(backends, "_current", backends._current)  # put back afterwards
    recipe = Config(**read_file("alexnet"))
    assert recipe.rates == []
    here = Config(backend="numpy", sgd=recipe.sgd, schedule=recipe.schedule, rates=recipe.rates, lr=recipe.lr).check()
    made = run.assemble(here, RunFolder(Path("run")))
    assert {(group["lr"], group["form"]) for group in made.optimizer.param_groups} == {(0.01, "paper")}
    assert (made.schedule.factor, made.schedule.max_reductions) == (0.1, 3)


def test_figure_1_ends_at_25_percent():
    found = {"ReLU": {"epochs": [2.0]}, "tanh": {"epochs": [8.0]}}
    assert figure1.title(found, figure1.compare([2.0], [8.0])).startswith("25 % training error on CIFAR-10: ReLU after")


def test_figure_3_shows_each_kernel():
    """In colour and in order, 0 as middle grey, the largest weight of each kernel black or white."""
    weights = np.random.default_rng(0).normal(0, 0.1, (96, 3, 11, 11)).astype("float32")
    weights[5] *= 100
    figure = plots.filters(weights)
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]
    assert len(shown) == 96
    for kernel, picture in zip(weights, shown, strict=True):
        np.testing.assert_allclose(picture, 0.5 + kernel.transpose(1, 2, 0) / abs(kernel).max() / 2, atol=1e-6)
