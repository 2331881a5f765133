"""Initial weights by name: the paper's, He's, and LSUV with its orthonormal matrices."""

import math

import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import backends, init, lsuv, manual_seed, models, nn, no_grad, philox, tensor
from minitorch_alex.lsuv import INITIALISATIONS, initialise_as
from minitorch_alex.models.torchvision import TorchvisionAlexNet
from minitorch_alex.watch import activations


def photographs(*shape):
    """Noise in the range of prepared pixels, 0..255 less the mean."""
    return np.random.default_rng(3).normal(0, 74, shape).astype("float32")


def deep(depth=12):
    """Convolutions with groups, batch norm and ReLUs, then two linear layers. Its scale is off by 1e6 at the start."""
    layers = {"conv0": nn.Conv2d(3, 8, 3, padding=1), "bend0": nn.ReLU()}
    for i in range(1, depth):
        layers[f"conv{i}"] = nn.Conv2d(8, 8, 3, padding=1, groups=1 + i % 2)
        if i % 4 == 0:
            layers[f"norm{i}"] = nn.BatchNorm2d(8)
        layers[f"bend{i}"] = nn.ReLU()
    layers.update(flat=nn.Flatten(), drop=nn.Dropout(0.5), hidden=nn.Linear(8 * 6 * 6, 20), bend=nn.ReLU())
    return nn.Sequential({**layers, "scores": nn.Linear(20, 5)})


def variances(network, images):
    """The variance of what each layer with weights computes, by path."""
    paths = [path for path, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    return {path: float(y.var(dtype="float64")) for path, y in activations(network, images, *paths).items()}


# -- orthonormal matrices -------------------------------------------------------------------
@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (16, 16), (8, 3, 5, 5), (96, 4, 3, 3), (1, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orthonormal(shape, dtype):
    manual_seed(4)
    t = nn.Parameter(np.zeros(shape, dtype))
    assert init.orthogonal_(t) is t
    assert (t.shape, t.dtype) == (shape, dtype)
    matrix = t.numpy().reshape(shape[0], -1)
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    assert abs(matrix @ matrix.T - np.eye(len(matrix))).max() < (2e-6 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("shape", [(20, 50), (50, 20), (8, 3, 2, 2)])
def test_orthonormal_as_pytorch_has_it(shape, monkeypatch):
    torch = pytest.importorskip("torch")
    manual_seed(4)
    gaussian = philox.generator(philox.key("init")).standard_normal((shape[0], math.prod(shape[1:])))
    theirs, ours = torch.empty(shape, dtype=torch.float64), nn.Parameter(np.zeros(shape, "float64"))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda t, *_, **__: t.copy_(torch.from_numpy(gaussian)))
    torch.nn.init.orthogonal_(theirs)
    np.testing.assert_allclose(init.orthogonal_(ours).numpy(), theirs.numpy(), atol=1e-12)


def test_orthonormal_matrices_are_evenly_distributed():
    """Without the correction of signs, LAPACK's Q has a negative first entry always."""
    manual_seed(0)
    corners = [init.orthogonal_(tensor(np.zeros((3, 3)))).numpy() for _ in range(200)]
    assert abs(np.mean(corners, axis=0)).max() < 5 / math.sqrt(3 * 200)  # each entry has variance 1/3


def test_what_cannot_be_orthonormal():
    with pytest.raises(ValueError, match=r"two or more dimensions.*\(3,\)"):
        init.orthogonal_(tensor(np.zeros(3)))
    with pytest.raises(TypeError, match="int64"):
        init.orthogonal_(tensor(np.zeros((3, 3), "int64")))


# -- the paper's and He's -------------------------------------------------------------------
def biases_of_1(network):
    """The layers with biases of 1, after a check that all others are 0 and that every weight's spread is 0.01."""
    found = []
    for path, p in network.named_parameters():
        values = p.numpy()
        if path.endswith("weight"):
            assert values.std() == pytest.approx(0.01, rel=5 / math.sqrt(p.numel()))
            assert abs(values.mean()) < 0.05 / math.sqrt(p.numel())
        else:
            assert (values == values[0]).all()
            assert values[0] in (0, 1)
            found += [path.removesuffix(".bias")] * int(values[0])
    return found


def narrow_alexnet():
    """The paper's layers by name, a few channels wide."""
    sizes = {"conv1": (3, 8), "conv2": (8, 8), "conv3": (8, 16), "conv4": (16, 8), "conv5": (8, 8)}
    layers = {
        name: nn.Conv2d(*channels, 3, groups=1 + (name in "conv2 conv4 conv5")) for name, channels in sizes.items()
    }
    return nn.Sequential({**layers, "fc6": nn.Linear(8, 9), "fc7": nn.Linear(9, 10), "fc8": nn.Linear(10, 4)})


def narrow_torchvision():
    """torchvision's layers at torchvision's places, a few channels wide."""
    network = TorchvisionAlexNet.__new__(TorchvisionAlexNet)
    conv, fc, relu, pool, drop = lambda c, f: nn.Conv2d(c, f, 3), nn.Linear, nn.ReLU, nn.MaxPool2d(3, 2), nn.Dropout
    network.features = nn.Sequential(
        conv(3, 8), relu(), pool, conv(8, 8), relu(), pool, conv(8, 8), relu(), conv(8, 8), relu(), conv(8, 8)
    )
    network.classifier = nn.Sequential(drop(), fc(8, 9), relu(), drop(), fc(9, 8), relu(), fc(8, 3))
    return network


@pytest.mark.parametrize(
    ("make", "ones"),
    [
        (narrow_alexnet, "conv2 conv4 conv5 fc6 fc7"),
        (narrow_torchvision, "features.3 features.8 features.10 classifier.1 classifier.4"),
        (lambda: models.build("alexnet_small", 10, (1, 8, 8)), "conv2"),  # of four layers, the fourth gives the scores
    ],
)
def test_the_paper(make, ones):
    network = make()
    initialise_as(network, "paper")
    assert biases_of_1(network) == ones.split()


def test_he_starts_at_ln_of_the_classes():
    manual_seed(0)
    network = models.build("alexnet_small", 10, (3, 16, 16))
    for p in network.parameters():
        init.constant_(p, 7)
    initialise_as(network, "he")
    p = {name: q.numpy() for name, q in network.named_parameters()}
    assert p["conv2.weight"].std() == pytest.approx(math.sqrt(2 / (32 * 25)), rel=0.02)
    assert p["fc4.weight"].std() == pytest.approx(0.01, rel=0.02)
    assert not any(p[name].any() for name in p if name.endswith("bias"))
    with no_grad():
        loss = F.cross_entropy(network.eval()(tensor(photographs(20, 3, 16, 16) / 74)), np.arange(20) % 10)
    assert loss.item() == pytest.approx(math.log(10), abs=0.05)


# -- LSUV -------------------------------------------------------------------------------------
def test_lsuv_gives_every_layer_unit_variance(backend):
    network, images = deep(), photographs(16, 3, 6, 6)
    before = variances(network, images)
    assert max(before.values()) > 100 and min(before.values()) < 0.01  # noqa: PT018, one statement
    initialise_as(network, "lsuv", images)
    assert set(variances(network, images)) == set(before)
    assert all(abs(v - 1) <= 0.1 for v in variances(network, images).values()), variances(network, images)
    for path, p in network.named_parameters():
        if p.ndim >= 2:  # orthonormal still, but for a factor
            matrix = p.numpy().reshape(len(p), -1)
            matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
            gram = matrix @ matrix.T
            np.testing.assert_allclose(gram / gram[0, 0], np.eye(len(gram)), atol=1e-5, err_msg=path)
        elif path.endswith("bias"):
            assert not p.numpy().any()
    assert {path: set(b.numpy().reshape(-1).tolist()) for path, b in network.named_buffers()} == {
        f"norm{i}.{name}": {value}
        for i in (4, 8)
        for name, value in (("running_mean", 0), ("running_var", 1), ("num_batches_tracked", 0))
    }
    assert all(module.training and "forward" not in vars(module) for _, module in network.named_modules())


def test_lsuv_goes_by_the_order_of_computation():
    """Were `second`, which is defined first, scaled first, scaling `first` would undo it."""

    class Crossed(nn.Module):
        def __init__(self):
            self.second, self.first = nn.Linear(6, 4), nn.Linear(5, 6)

        def forward(self, x):
            return self.second(F.relu(self.first(x)))

    network, images = Crossed(), photographs(50, 5)
    lsuv.lsuv(network, images)
    assert all(abs(v - 1) <= 0.1 for v in variances(network, images).values())


def test_lsuv_leaves_what_is_frozen_and_scales_a_shared_weight_once():
    """`again` is the layer `shared` in a second place, and `tied` has its weight: each would scale it anew."""
    manual_seed(0)
    shared = nn.Linear(6, 6)
    network = nn.Sequential({
        "frozen": nn.Linear(3, 6), "shared": shared, "bend": nn.Tanh(), "tied": nn.Linear(6, 6), "again": shared,
        "last": nn.Linear(6, 2),
    })  # fmt: skip
    network.tied.weight = shared.weight
    before = [(p, p.numpy().copy()) for p in network.frozen.parameters()]
    for p, _ in before:
        p.requires_grad = False
    images = photographs(40, 3)
    initialise_as(network, "lsuv", images)
    for p, values in before:
        np.testing.assert_array_equal(p.numpy(), values)
    assert shared(network.frozen(tensor(images))).numpy().var() == pytest.approx(1, abs=0.1)
    assert activations(network, images, "last")["last"].var() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("name", ["paper", "he"])
def test_what_is_frozen_stays(name):
    network = narrow_alexnet()
    frozen = [network.conv2.weight, network.conv2.bias, network.fc8.weight, network.fc7.bias]
    for p in frozen:
        init.constant_(p, 5).requires_grad = False
    initialise_as(network, name)
    assert all((p.numpy() == 5).all() for p in frozen)
    assert network.conv4.bias.numpy()[0] == (name == "paper")


@pytest.mark.parametrize("name", INITIALISATIONS)
def test_the_same_seed_gives_the_same_weights(name):
    def weights(backend_name, seed):
        before = backends.current().name
        backends.use(backend_name)
        try:
            network = deep(4)
            manual_seed(seed)
            initialise_as(network, name, photographs(4, 3, 6, 6))
            return network.state_dict()
        finally:
            backends.use(before)

    first, other_seed = weights("numpy", 1), weights("numpy", 2)
    assert (first["hidden.weight"] != other_seed["hidden.weight"]).mean() > 0.99
    for other in [other for other in backends.available() if other != "numpy"]:
        for path, values in weights(other, 1).items():
            if name == "lsuv":
                np.testing.assert_allclose(values, first[path], rtol=1e-4, err_msg=path)
            else:
                np.testing.assert_array_equal(values, first[path], err_msg=path)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda: initialise_as(deep(), "xavier"), "no 'xavier': choose from paper, he, lsuv"),
        (lambda: initialise_as(deep(), "lsuv"), "lsuv looks at images, and there are none"),
        (lambda: initialise_as(deep(2), "lsuv", np.zeros((2, 3, 6, 6), "float32")), "conv0 have variance 0.0"),
        (
            lambda: initialise_as(deep(2), "lsuv", np.full((2, 3, 6, 6), np.nan, "float32")),
            "conv0 have variance nan",
        ),
        (lambda: initialise_as(models.build("lenet5", 10), "paper"), "Subsampling s2: only the weights of Conv2d"),
        (lambda: initialise_as(nn.Sequential(nn.ReLU()), "he"), "no layer with weights"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ValueError, match=words) as caught:
        ask()
    assert "\n" not in str(caught.value)
