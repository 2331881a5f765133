"""Networks without one of AlexNet's ingredients: what goes, what comes, and what stays."""

import numpy as np
import pytest

from minitorch_alex import init, manual_seed, models, nn, no_grad, tensor
from minitorch_alex.models.ablation import ablate
from minitorch_alex.summary import summary

# what each network has not
LACKING = {
    "lrn": {"torchvision_alexnet", "keras_plain", "keras_same_bn", "keras_valid_bn", "lenet5"},
    "overlap": {"keras_valid_bn", "lenet5"},
    "dropout": {"lenet5"},
    "activation": {"lenet5"},
}
KINDS = {
    "lrn": {"LocalResponseNorm", "ColumnResponseNorm", "SpatialResponseNorm"},
    "dropout": {"Dropout"},
}


@pytest.fixture
def quick(monkeypatch):
    """All weights are 0, in memory that nobody has touched yet: a network of 60 million is made in no time."""
    monkeypatch.setattr(init, "default", lambda shape, fan_in=None: np.zeros(shape, "float32"))
    for fill in ("normal_", "kaiming_normal_", "xavier_uniform_"):
        monkeypatch.setattr(init, fill, lambda t, **_: t)


def build(name):
    return models.build(name, 10, (3, 32, 32) if name == "alexnet_small" else None)


def kinds(network):
    return {path: type(m).__name__ for path, m in network.named_modules()}


@pytest.mark.parametrize("name", models.MODELS)
def test_each_switch_on_each_network(name, quick):
    for switch, lacking in LACKING.items():
        network = build(name)
        before, weights = kinds(network), dict(network.named_parameters())
        options = {"activation": "tanh"} if switch == "activation" else {"without": [switch]}
        if name in lacking:
            with pytest.raises(ValueError, match=r"this network is what it was, for it has no "):
                ablate(network, **options)
            assert kinds(network) == before
            continue
        assert ablate(network, **options) is network
        after = kinds(network)
        if switch in KINDS:
            assert after == {path: kind for path, kind in before.items() if kind not in KINDS[switch]}
            assert len(after) < len(before)
        else:
            old, new = {"overlap": ("MaxPool2d", None), "activation": ("ReLU", "Tanh")}[switch]
            assert list(after) == list(before)  # in order
            for path, kind in before.items():
                expected = {old: new}.get(kind, kind)
                assert after[path] == expected or (expected is None and after[path].endswith("MaxPool2d"))
        assert dict(network.named_parameters()) == weights


@pytest.mark.parametrize("name", [name for name in models.MODELS if name not in LACKING["overlap"]])
def test_separate_pools_give_the_same_sizes(name, quick):
    shape = models.MODELS[name].image_shape or (3, 32, 32)
    before = {layer.path: layer for layer in summary(build(name), shape).layers}
    told = summary(ablate(build(name), [s for s in ("lrn", "overlap", "dropout") if name not in LACKING[s]]), shape)
    for layer in told.layers:
        assert layer.output_shape == before[layer.path].output_shape
    assert told.totals(told.layers)[:2] == told.totals(list(before.values()))[:2]


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", range(5, 13))
def test_separate_windows_stand_where_the_overlapping_ones_stood(size, ceil_mode):
    network = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=ceil_mode, ties="all"))
    x = np.random.default_rng(0).standard_normal((2, 3, size, size + 3)).astype("float32")
    shape = network(tensor(x)).shape
    y = ablate(network, ["overlap"])(tensor(x)).numpy()
    assert y.shape == shape
    assert network[0].ties == "all"
    for p in range(shape[2]):
        for q in range(shape[3]):
            np.testing.assert_array_equal(y[:, :, p, q], x[:, :, 2 * p : 2 * p + 2, 2 * q : 2 * q + 2].max(axis=(2, 3)))


def test_pools_that_do_not_overlap_stay():
    network = nn.Sequential(nn.MaxPool2d(2), nn.MaxPool2d(3, 2), nn.MaxPool2d(3), nn.MaxPool2d(3, 2, padding=1))
    first, second, third, fourth = network.layers()
    ablate(network, {"overlap"})
    assert [network[0], network[2], network[3]] == [first, third, fourth]
    assert network[1] is not second


def test_remaining_dropout_keeps_its_masks():
    """Masks go by a layer's path, and no path changes."""
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype("float32")

    def dropped(*without):
        manual_seed(0)
        network = ablate(models.build("alexnet_small", 5, (3, 16, 16)), without, "tanh")
        seen = []
        network.drop4.forward, drop = lambda x: seen.append(drop(x)) or seen[-1], network.drop4.forward
        with no_grad():
            network(tensor(images))
        return seen[0].numpy() == 0  # tanh gives no zero itself

    np.testing.assert_array_equal(dropped("lrn", "overlap"), dropped())
    assert 0.4 < dropped().mean() < 0.6


def test_without_lrn_the_responses_pass():
    manual_seed(0)
    network = ablate(models.build("alexnet_small", 5, (1, 8, 8)), ["lrn"]).eval()
    names = [name for name in network.named_layers() if name != "flatten"]
    assert names == ["conv1", "relu1", "pool1", "conv2", "relu2", "pool2", "conv3", "relu3", "drop4", "fc4"]
    x = by_hand = tensor(np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype("float32"))
    for name in [*names[:-2], "flatten", "fc4"]:
        by_hand = network.named_layers()[name](by_hand)
    np.testing.assert_array_equal(network(x).numpy(), by_hand.numpy())


def test_new_layers_are_in_the_mode_of_the_old():
    network = ablate(models.build("alexnet_small", 5, (1, 8, 8)).eval(), ["overlap"], "sigmoid")
    assert not any(module.training for _, module in network.named_modules())
    assert isinstance(network.relu1, nn.Sigmoid)


def test_a_block_that_stands_in_two_places():
    block = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.ReLU())
    network = ablate(nn.Sequential(block, nn.ReLU(), block), ["dropout"], "tanh")
    assert [type(m).__name__ for m in (*block.layers(), network[1])] == ["Linear", "Tanh", "Tanh"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"without": ["lrm"]}, "nothing is called 'lrm': choose from lrn, overlap, dropout"),
        ({"without": ["augmentation"]}, "nothing is called 'augmentation'"),
        ({"activation": "gelu"}, "no activation 'gelu': choose from relu, tanh, sigmoid"),
        ({"without": ["lrn", "overlap"]}, "without lrn this network is what it was, for it has no response norm"),
        ({"without": ["overlap", "dropout"]}, "without dropout this network .* no dropout"),
        ({"without": ["overlap"], "activation": "tanh"}, "with tanh this network .* no ReLU"),
    ],
)
def test_refusals_change_nothing(options, words):
    network = nn.Sequential(nn.MaxPool2d(3, 2), nn.Tanh())
    layers = network.layers()
    with pytest.raises(ValueError, match=words) as caught:
        ablate(network, **options)
    assert "\n" not in str(caught.value)
    assert network.layers() == layers
