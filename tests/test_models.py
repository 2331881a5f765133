"""The AlexNet family: counts, shapes and constants as published, and the parts that only one of them has."""

import math

import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import manual_seed, models, nn, no_grad, optim, philox, tensor
from minitorch_alex.backends.numpy_backend import Backend, Window
from minitorch_alex.data.photographs import find_classes, find_photographs, read_photograph
from minitorch_alex.gradcheck import gradcheck
from minitorch_alex.models.lenet import CONNECTIONS
from minitorch_alex.models.parts import ColumnResponseNorm, PartlyConnectedConv2d, SpatialResponseNorm, Subsampling
from minitorch_alex.summary import summary
from minitorch_alex.torch_weights import read_torch_weights

# parameters and multiply-accumulates at 1000 classes, the moving averages of batch norm, and the sizes of the maps
PUBLISHED = {
    "alexnet": (60_965_224, 724_406_816, 0, [55, 55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 6]),
    "alexnet_2012": (60_965_224, 724_406_816, 0, [227, 55, 55, 27, 27, 27, 27, 27, 27, 13, 13, 13, 13, 13, 13, 6, 6]),
    "alexnet_ungrouped": (62_378_344, 1_135_256_096, 0, [55, 55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 6]),
    "bvlc_alexnet": (60_965_224, 724_406_816, 0, [55, 55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 6]),
    "caffenet": (60_965_224, 724_406_816, 0, [55, 55, 27, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 13, 6]),
    "torchvision_alexnet": (61_100_840, 714_188_480, 0, [55, 55, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 6, 6]),
    "keras_valid_bn": (
        28_056_616, 1_039_559_808, 19_136, [54, 54, 27, 27, 17, 17, 8, 8, 6, 6, 6, 4, 4, 4, 2, 2, 1, 1]
    ),
    "keras_same_bn": (
        62_397_480, 1_176_854_048, 19_136,
        [235, 57, 57, 57, 28, 28, 28, 28, 28, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 13, 6, 6],
    ),
    "keras_plain": (62_378_344, 1_135_256_096, 0, [55, 55, 27, 27, 27, 13, 13, 13, 13, 13, 13, 13, 6]),
}  # fmt: skip
LAYERS = {
    "alexnet": {
        "conv1": 34_944, "conv2": 307_456, "conv3": 885_120, "conv4": 663_936, "conv5": 442_624,
        "fc6": 37_752_832, "fc7": 16_781_312, "fc8": 4_097_000,
    },
    "alexnet_ungrouped": {"conv2": 614_656, "conv4": 1_327_488, "conv5": 884_992},
    "torchvision_alexnet": {
        "features.0": 23_296, "features.3": 307_392, "features.6": 663_936, "features.8": 884_992,
        "features.10": 590_080, "classifier.1": 37_752_832, "classifier.4": 16_781_312, "classifier.6": 4_097_000,
    },
    "keras_valid_bn": {"conv2": 2_973_952, "fc6": 1_052_672},
}  # fmt: skip

# what stands behind what, where they differ
ORDER = {
    "alexnet": ["conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2", "conv5 relu5 pool5 flatten fc6 relu6 drop6 fc7"],
    "alexnet_2012": ["pad1 conv1 norm1 pool1 relu1 conv2 relu2 norm2 spatial2 pool2", "conv5 pool5 relu5 flatten"],
    "bvlc_alexnet": ["conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2"],
    "caffenet": ["conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2"],
    "keras_valid_bn": ["conv1 relu1 pool1 bn1 conv2", "fc6 relu6 drop6 bn6 fc7 relu7 drop7 bn7 fc8"],
    "keras_same_bn": ["pad1 conv1 relu1 bn1 pool1 drop1 conv2", "fc6 relu6 bn6 drop6 fc7 relu7 bn7 drop7 fc8"],
}
# the coefficient on the raw sum of squares, and k
RESPONSE_NORMS = {
    "alexnet": (1e-4, 2), "alexnet_ungrouped": (1e-4, 2), "alexnet_2012": (2e-5, 2),
    "bvlc_alexnet": (2e-5, 1), "caffenet": (2e-5, 1),
}  # fmt: skip


def spread(parameter):
    return float(parameter.numpy().std())


def check_initial_weights(name, network):
    """Standard deviations of the weights and constants of the biases."""
    p = dict(network.named_parameters())
    if name == "torchvision_alexnet":
        assert abs(p["features.0.weight"].numpy()).max() <= 1 / math.sqrt(363)
        return
    if name.startswith("keras"):
        assert not p["conv3.bias"].numpy().any()
        bound = math.sqrt(6 / (9 * p["conv3.weight"].shape[1] + 9 * 384))
        assert bound * 0.99 < p["conv3.weight"].numpy().max() <= bound
        return
    std = {"alexnet_2012": {"conv3": 0.03, "conv4": 0.03, "conv5": 0.03}}.get(name, {})
    std = {"bvlc_alexnet": {"fc6": 0.005, "fc7": 0.005}, "caffenet": {"fc6": 0.005, "fc7": 0.005}}.get(name, std)
    one = 0.1 if name == "bvlc_alexnet" else 1.0
    for layer in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8"):
        assert spread(p[f"{layer}.weight"]) == pytest.approx(std.get(layer, 0.01), rel=0.02)
        expected = one if layer in ("conv2", "conv4", "conv5", "fc6", "fc7") else 0.0
        assert (p[f"{layer}.bias"].numpy() == np.float32(expected)).all()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_family_is_as_published(name):
    manual_seed(0)
    network, shape = models.build(name, 1000), models.MODELS[name].image_shape
    parameters, multiply_accumulates, moving, sizes = PUBLISHED[name]
    told = summary(network, shape)
    assert [layer.output_shape[-1] for layer in told.layers if len(layer.output_shape) == 3] == sizes
    assert told.layers[-1].output_shape == (1000,)
    assert told.totals(told.layers)[:2] == (parameters, multiply_accumulates)
    assert sum(p.numel() for p in network.parameters()) == parameters
    averages = [b for path, b in network.named_buffers() if not path.endswith("num_batches_tracked")]
    assert sum(b.numel() for b in averages) == moving
    by_layer = {layer.path: layer.parameters for layer in told.layers}
    assert {path: by_layer[path] for path in LAYERS.get(name, {})} == LAYERS.get(name, {})
    check_initial_weights(name, network)
    for part in ORDER.get(name, []):
        assert part in " ".join(layer.path for layer in told.layers)
    norms = [m for _, m in network.named_modules() if isinstance(m, nn.LocalResponseNorm)]
    assert len(norms) == (2 if name in RESPONSE_NORMS else 0)
    for norm in norms:
        assert (norm.size, norm.beta) == (5, 0.75)
        assert (norm.alpha / norm.size, norm.k) == pytest.approx(RESPONSE_NORMS[name])


def test_classes_and_images_are_what_one_asks_for():
    assert sum(p.numel() for p in models.build("keras_valid_bn", 10).parameters()) + 19_136 == 24_019_722
    with pytest.raises(ValueError, match=r"alexnet takes images of \(3, 227, 227\), not \(3, 224, 224\)"):
        models.build("alexnet", 10, (3, 224, 224))
    with pytest.raises(ValueError, match="alexnet_small is made to measure"):
        models.build("alexnet_small", 10)
    with pytest.raises(ValueError, match="there is no model 'vgg'"):
        models.build("vgg", 10)


def test_lenet_has_the_published_counts():
    told = summary(models.build("lenet5", 10), (1, 32, 32))
    counts = {layer.path: layer.parameters for layer in told.layers if layer.parameters}
    assert counts == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 850}
    assert sum(counts.values()) - counts["output"] == 60_000
    assert [sum(f in row for row in CONNECTIONS) for f in range(6)] == [10] * 6
    assert [len(row) for row in CONNECTIONS] == [3] * 6 + [4] * 9 + [6]


# -- parts ------------------------------------------------------------------------------
def test_padding_at_the_right_and_bottom_is_the_convolution_that_rounds_up():
    """The original code: sizes round up, and what a window reads outside the image is 0."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 2, 20, 20)), rng.standard_normal((3, 2, 11, 11))
    y = F.conv2d(F.pad(tensor(x), (0, 3, 0, 3)), tensor(w), stride=4).numpy()
    size = 1 + math.ceil((20 - 11) / 4)
    assert y.shape[2:] == (size, size)
    expected = np.zeros_like(y)
    for f in range(3):
        for p in range(size):
            for q in range(size):
                patch = x[0, :, 4 * p : 4 * p + 11, 4 * q : 4 * q + 11]
                expected[0, f, p, q] = (patch * w[f, :, : patch.shape[1], : patch.shape[2]]).sum()
    assert np.allclose(y, expected)


def test_two_columns_on_two_backends_are_a_grouped_convolution():
    """One column on each of two backend objects, which refuse to meet: only the images and the results travel."""
    first, second = Backend(), Backend()
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 6, 9, 9)), rng.standard_normal((8, 3, 5, 5))
    gy = rng.standard_normal((2, 8, 9, 9))
    columns = []
    for home, channels, filters in ((first, slice(0, 3), slice(0, 4)), (second, slice(3, 6), slice(4, 8))):
        mine = [nn.Tensor(a, backend=home, requires_grad=True) for a in (x[:, channels], w[filters])]
        y = F.conv2d(*mine, padding=2)
        y.backward(gy[:, filters])
        columns.append((y.numpy(), mine[0].grad.numpy(), mine[1].grad.numpy()))
    with pytest.raises(ValueError, match="different backends"):
        F.conv2d(nn.Tensor(x, backend=first), nn.Tensor(w, backend=second), groups=2)

    whole = [tensor(a, requires_grad=True) for a in (x, w)]
    y = F.conv2d(*whole, padding=2, groups=2)
    y.backward(gy)
    for i, (got, axis) in enumerate(((y, 1), (whole[0].grad, 1), (whole[1].grad, 0))):
        assert np.allclose(np.concatenate([column[i] for column in columns], axis=axis), got.numpy())


def test_windows_of_a_column_do_not_see_the_other():
    x = np.random.default_rng(0).standard_normal((2, 8, 3, 3))
    y = ColumnResponseNorm(2, 5, alpha=2.0, k=1)(tensor(x)).numpy()
    for half in (slice(0, 4), slice(4, 8)):
        assert np.allclose(y[:, half], F.local_response_norm(tensor(x[:, half]), 5, alpha=2.0).numpy())
    assert not np.allclose(y, F.local_response_norm(tensor(x), 5, alpha=2.0).numpy())


def test_spatial_normalisation_against_loops():
    x = np.random.default_rng(0).standard_normal((2, 3, 6, 7))
    y = SpatialResponseNorm(5, alpha=1.5, beta=0.75, k=1)(tensor(x)).numpy()
    for n, c, i, j in np.ndindex(x.shape):
        around = x[n, c, max(0, i - 2) : i + 3, max(0, j - 2) : j + 3]
        assert y[n, c, i, j] == pytest.approx(x[n, c, i, j] / (1 + 1.5 / 25 * (around**2).sum()) ** 0.75)
    assert gradcheck(SpatialResponseNorm(3, alpha=1.0), (2, 2, 4, 3))


def test_subsampling_adds_up_scales_and_shifts():
    layer = Subsampling(2).double()
    layer.bias.data = np.array([[[0.5]], [[-1.0]]])
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 6))
    sums = x.reshape(1, 2, 2, 2, 3, 2).sum(axis=(3, 5))
    assert np.allclose(layer(tensor(x)).numpy(), sums * layer.coefficient.numpy() + layer.bias.numpy())


def test_partly_connected_filters_see_their_channels_only():
    layer = PartlyConnectedConv2d(3, 2, ((0, 2), (1,), (0, 1, 2))).double()
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5))
    kernels = layer.kernels.numpy()
    weight = np.zeros((3, 3, 2, 2))
    weight[0, 0], weight[0, 2], weight[1, 1], weight[2] = kernels[0], kernels[1], kernels[2], kernels[3:]
    assert np.allclose(layer(tensor(x)).numpy(), F.conv2d(tensor(x), tensor(weight), layer.bias).numpy())
    layer(tensor(x)).sum().backward()
    assert layer.kernels.grad.shape == (6, 2, 2)


def test_every_tied_maximum_gets_the_whole_gradient(backend):
    x = np.array([[1.0, 5.0, 5.0, 0.0], [5.0, 2.0, 0.0, 7.0], [0.0, 0.0, 7.0, 7.0]])
    for padding, ceil_mode in ((0, False), (1, False), (0, True)):
        leaf = tensor(x[None, None], requires_grad=True)
        y = F.max_pool2d(leaf, 3, 1, padding, ceil_mode=ceil_mode, ties="all")
        gy = np.random.default_rng(0).standard_normal(y.shape)
        y.backward(backend.asarray(gy))
        expected = np.zeros_like(x)
        for p, q in np.ndindex(y.shape[2:]):
            for i, j in np.ndindex(x.shape):
                inside = p - padding <= i < p - padding + 3 and q - padding <= j < q - padding + 3
                expected[i, j] += gy[0, 0, p, q] * (inside and x[i, j] == y.numpy()[0, 0, p, q])
        assert np.allclose(leaf.grad.numpy()[0, 0], expected)
    first = tensor(x[None, None], requires_grad=True)
    F.max_pool2d(first, 3, 1).sum().backward()
    assert first.grad.numpy().sum() == 2  # one winner for each of two windows
    with pytest.raises(ValueError, match="ties must be 'first' or 'all', not 'last'"):
        F.max_pool2d(first, 3, ties="last")


def test_pooling_without_ties_is_the_same_either_way(backend):
    def pool(x):
        return F.max_pool2d(x, 3, 2, 1, ceil_mode=True, ties="all")

    assert gradcheck(pool, (2, 2, 6, 5), backend=backend.name)


def test_dropout_in_the_papers_form(backend):
    layer = nn.Dropout(0.25, form="paper")
    x = tensor(np.random.default_rng(0).standard_normal((400, 50)), requires_grad=True)
    manual_seed(1)
    y = layer.train()(x)
    kept = y.numpy() != 0
    assert np.array_equal(y.numpy()[kept], x.numpy()[kept])  # no scaling
    assert kept.mean() == pytest.approx(0.75, abs=0.02)
    manual_seed(1)
    usual = nn.Dropout(0.25).train()(x)
    assert np.array_equal(usual.numpy() != 0, kept)  # the same masks
    y.sum().backward()
    assert np.array_equal(x.grad.numpy(), kept.astype(float))
    assert np.allclose(layer.eval()(x).numpy(), 0.75 * x.numpy())
    with pytest.raises(ValueError, match="form must be 'torch' or 'paper'"):
        F.dropout(x, form="keras")


# -- beside PyTorch -----------------------------------------------------------------------
@pytest.fixture(scope="module")
def pytorchs_network():
    """torchvision's AlexNet, made with PyTorch, with weights that give photographs scores of up to 20."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    t = torch.nn

    class Theirs(t.Module):
        def __init__(self):
            super().__init__()
            self.features = t.Sequential(
                t.Conv2d(3, 64, 11, 4, 2), t.ReLU(), t.MaxPool2d(3, 2), t.Conv2d(64, 192, 5, padding=2), t.ReLU(),
                t.MaxPool2d(3, 2), t.Conv2d(192, 384, 3, padding=1), t.ReLU(), t.Conv2d(384, 256, 3, padding=1),
                t.ReLU(), t.Conv2d(256, 256, 3, padding=1), t.ReLU(), t.MaxPool2d(3, 2),
            )  # fmt: skip
            self.avgpool = t.AdaptiveAvgPool2d((6, 6))
            self.classifier = t.Sequential(
                t.Dropout(), t.Linear(9216, 4096), t.ReLU(), t.Dropout(), t.Linear(4096, 4096), t.ReLU(),
                t.Linear(4096, 1000),
            )  # fmt: skip

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    torch.manual_seed(0)
    network = Theirs().eval()
    for parameter in network.parameters():
        if parameter.ndim > 1:  # from PyTorch's own start all photographs get nearly the same scores
            t.init.kaiming_normal_(parameter, nonlinearity="relu")
    return network


def pytorchs_scores(network, images):
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def test_torchvisions_network_gives_pytorchs_logits(pytorchs_network):
    ours = models.build("torchvision_alexnet", 1000).eval()
    ours.load_state_dict({name: value.numpy() for name, value in pytorchs_network.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((2, 3, 224, 224)).astype("float32")
    with no_grad():
        found = ours(tensor(x)).numpy()
    assert abs(found - pytorchs_scores(pytorchs_network, x)).max() <= 1e-4


def test_torchvisions_network_gives_pytorchs_logits_for_photographs(pytorchs_network, pixels, tmp_path):
    """With the weights as torch.save writes them and the pixels as torchvision prepares them."""
    import torch

    path = tmp_path / "weights.pth"
    torch.save(pytorchs_network.state_dict(), path)
    ours = models.build("torchvision_alexnet", 1000).eval()
    ours.load_state_dict(read_torch_weights(path))
    path.unlink()  # 244 MB
    mean, std = (np.array(v, "float32").reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = (pixels[:, :, 16:240, 16:240] / np.float32(255) - mean) / std
    expected = pytorchs_scores(pytorchs_network, x)
    assert expected.std(axis=0).mean() > 0.5  # photographs differ by far more than the error that is allowed
    with no_grad():
        found = ours(tensor(x)).numpy()
    assert abs(found - expected).max() <= 1e-4


# -- learning ------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["alexnet", "torchvision_alexnet"])
def test_two_steps_lower_the_loss(name):
    manual_seed(0)
    network = models.build(name, 4)
    optimizer = optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, form="paper")
    rng = np.random.default_rng(0)
    scale = 60 if name == "alexnet" else 1
    x = tensor((scale * rng.standard_normal((4, *models.MODELS[name].image_shape))).astype("float32"))
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(network.eval()(x), np.arange(4))  # no dropout: the same function each time
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > losses[1] > losses[2]


def test_a_window_too_large_for_the_network_names_the_layer():
    with pytest.raises(ValueError, match=r"pool5 \(MaxPool2d.*more than the input"):
        models.build("alexnet", 2)(tensor(np.zeros((1, 3, 51, 51), "float32")))


def test_windows_of_the_family_leave_nothing_over():
    """Why floor and ceil pools agree in AlexNet."""
    for n in (55, 27, 13):
        for ceil_mode in (False, True):
            assert Window((3, 3), (2, 2), ceil_mode=ceil_mode).output_size(n, n) == ((n - 1) // 2, (n - 1) // 2)


# -- local response normalisation, golden values ---------------------------------------
GOLDEN = {  # channels 1 to 6 of one pixel, five in a window: (alpha, k) here -> y, at x = 1..6 and at 100 times that
    "the paper, read literally": (
        (5e-4, 2),
        [0.5942915817, 1.1878710105, 1.7801403936, 2.370418559, 2.9634657383, 3.5573544195],
        [12.5, 14.8650889375, 14.461558974, 13.465395716, 17.4023540546, 22.642841782],
    ),
    "the original code": (
        (1e-4, 2),
        [0.5945411318, 1.1889396136, 1.7830752045, 2.3768100636, 2.9711016329, 3.5655624308],
        [30.8367835205, 42.0448207627, 43.8191289719, 42.2948505376, 54.5122468433, 70.427020296],
    ),
    "Caffe": (
        (1e-4, 1),
        [0.9997900514, 1.9991004722, 2.9975273798, 3.994608491, 4.993559692, 5.993079325],
        [36.7419585202, 46.4736160485, 46.5302429551, 43.9536343143, 56.743544856, 73.6238229019],
    ),
}


@pytest.mark.parametrize("who", GOLDEN)
def test_response_normalisation_by_each_convention(backend, who):
    (alpha, k), small, large = GOLDEN[who]
    for scale, expected in ((1.0, small), (100.0, large)):
        x = tensor(scale * np.arange(1.0, 7).reshape(1, 6, 1, 1))
        assert np.allclose(F.local_response_norm(x, 5, alpha, 0.75, k).numpy().ravel(), expected, rtol=1e-9)


def test_the_gradient_of_the_papers_response_normalisation(backend):
    x = tensor(100 * np.arange(1.0, 7).reshape(1, 6, 1, 1), requires_grad=True)
    F.local_response_norm(x, 5, 5e-4, 0.75, 2).sum().backward()
    golden = [0.1025075661, 0.0249496871, -0.0347573709, -0.0472753624, -0.0315288043, -0.0190281047]
    assert np.allclose(x.grad.numpy().ravel(), golden, rtol=1e-8)


# -- real photographs ------------------------------------------------------------------
@pytest.fixture(scope="module")
def pixels(extra_data):
    """Eight real photographs of different classes, 0..255: float32 (8, 3, 256, 256)."""
    root = extra_data / "imagenet-1k-sample"
    names = list(find_photographs(root, find_classes(root)))[::125]
    return np.stack([read_photograph(root / name) for name in names]).astype("float32")


@pytest.fixture(scope="module")
def photographs(pixels):
    """The eight minus their mean."""
    return pixels - pixels.mean(axis=(0, 2, 3), keepdims=True)


def losses_while_training(name, images, steps):
    """Cross entropy of each step on the same eight photographs, each a class of its own."""
    manual_seed(0)
    side = models.MODELS[name].image_shape[-1]
    network = models.build(name, 8)
    top = (256 - side) // 2
    x = images[:, :, top : top + side, top : top + side]
    if name.startswith(("torchvision", "keras")):
        x = x / 60  # these expect pixels of spread 1
    optimizer = optim.SGD(network.parameters(), lr=RATES.get(name, 1e-3), momentum=0.9, weight_decay=5e-4, form="paper")
    found = []
    for step in range(steps):
        philox.set_step(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(tensor(x)), np.arange(8))
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


RATES = {"alexnet": 1e-4, "alexnet_ungrouped": 1e-4, "keras_valid_bn": 1e-2, "torchvision_alexnet": 3e-2}


@pytest.mark.parametrize("name", ["alexnet", "torchvision_alexnet"])
def test_two_steps_on_photographs(name, photographs):
    losses = losses_while_training(name, photographs, 2)
    assert all(map(math.isfinite, losses))
    assert losses[0] < 4 * math.log(8)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_twenty_steps_on_photographs_lower_the_loss(name, photographs):
    losses = losses_while_training(name, photographs, 20)
    assert all(map(math.isfinite, losses))
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02, losses


# -- the summary -----------------------------------------------------------------------
def small_network():
    return nn.Sequential(
        {"conv": nn.Conv2d(4, 6, 3, groups=2), "relu": nn.ReLU(), "flat": nn.Flatten(), "fc": nn.Linear(6 * 2 * 3, 5)}
    )


def test_the_summary_counts_by_hand():
    told = summary(small_network(), (4, 4, 5))
    conv, relu, flat, fc = told.layers
    assert (conv.parameters, conv.multiply_accumulates, conv.activation_bytes) == (6 * 2 * 9 + 6, 36 * 2 * 9, 4 * 36)
    assert (relu.parameters, relu.multiply_accumulates, relu.is_convolution) == (0, 0, False)
    assert (fc.parameters, fc.multiply_accumulates, fc.output_shape) == (36 * 5 + 5, 180, (5,))
    assert flat.output_shape == (36,)
    assert told.totals(told.layers) == (114 + 185, 648 + 180, 4 * (36 + 36 + 36 + 5))
    lines = repr(told).splitlines()
    assert lines[0].split() == ["layer", "what", "output", "parameters", "multiply-acc.", "activations"]
    assert lines[3].split() == ["conv", "Conv2d", "6", "x", "2", "x", "3", "114", "648", "144", "B"]
    assert lines[-1].split() == ["of", "it", "in", "convolutions", "38.1", "%", "78.3", "%", "31.9", "%"]


def test_the_summary_in_a_notebook_is_a_table():
    html = summary(small_network(), (4, 4, 5))._repr_html_()
    assert html.count("<tr>") == 1 + 1 + 4 + 2
    assert ">648</td>" in html


def test_shared_weights_count_once_and_the_network_stays_as_it_was():
    shared = nn.Linear(3, 3)
    network = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared, nn.Dropout(0.5))
    told = summary(network.train(), (3, 1, 1))
    assert sum(layer.parameters for layer in told.layers) == 12
    assert network.training
    assert "forward" not in vars(shared)
