"""The Keras networks beside Keras itself: with weights handed over, logits are equal."""

import os

import numpy as np
import pytest

from minitorch_alex import models, nn, no_grad, tensor
from minitorch_alex.data.photographs import find_classes, find_photographs, read_photograph

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed: pip install keras tensorflow")
keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras tensorflow")

pytestmark = pytest.mark.filterwarnings("default")


def conv(filters, size, stride=1, padding="same"):
    return keras.layers.Conv2D(filters, size, strides=stride, padding=padding, activation="relu")


def pool(size, stride):
    return keras.layers.MaxPooling2D(size, strides=stride)


def norm():
    return keras.layers.BatchNormalization()


def dense(units, activation="relu"):
    return keras.layers.Dense(units, activation=activation)


def drop(rate):
    return keras.layers.Dropout(rate)


THEIRS = {
    "keras_plain": lambda: [
        conv(96, 11, 4, "valid"), pool(3, 2), conv(256, 5), pool(3, 2), conv(384, 3), conv(384, 3), conv(256, 3),
        pool(3, 2), keras.layers.Flatten(), dense(4096), drop(0.5), dense(4096), drop(0.5), dense(10, None),
    ],
    "keras_same_bn": lambda: [
        conv(96, 11, 4), norm(), pool(3, 2), drop(0.25), conv(256, 5), norm(), pool(3, 2), drop(0.25),
        conv(384, 3), norm(), conv(384, 3), norm(), conv(256, 3), norm(), pool(3, 2), drop(0.25),
        keras.layers.Flatten(), dense(4096), norm(), drop(0.5), dense(4096), norm(), drop(0.5), dense(10, None),
    ],
    "keras_valid_bn": lambda: [
        conv(96, 11, 4, "valid"), pool(2, 2), norm(), conv(256, 11, 1, "valid"), pool(2, 2), norm(),
        conv(384, 3, 1, "valid"), norm(), conv(384, 3, 1, "valid"), norm(),
        conv(256, 3, 1, "valid"), pool(2, 2), norm(),
        keras.layers.Flatten(), dense(4096), drop(0.4), norm(), dense(4096), drop(0.4), norm(), dense(10, None),
    ],
}  # fmt: skip


def hand_over(theirs, ours):
    """Keras' weights as ours. Filters are (R, S, C, F) there, images (N, H, W, C), and so is what Flatten reads."""
    state = {}
    mine = [
        (path, m)
        for path, m in ours.named_modules()
        if isinstance(m, nn.Conv2d | nn.Linear | nn.BatchNorm2d | nn.BatchNorm1d)
    ]
    layers = [layer for layer in theirs.layers if layer.get_weights()]
    channels = None
    for (path, m), layer in zip(mine, layers, strict=True):
        values = layer.get_weights()
        if isinstance(m, nn.Conv2d):
            state[f"{path}.weight"], state[f"{path}.bias"] = values[0].transpose(3, 2, 0, 1), values[1]
            channels = values[1].size
        elif isinstance(m, nn.Linear):
            kernel = values[0]
            if channels is not None:  # the first: it reads (H, W, C), ours (C, H, W)
                side = round((len(kernel) / channels) ** 0.5)
                kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                channels = None
            state[f"{path}.weight"], state[f"{path}.bias"] = kernel.T, values[1]
        else:
            names = ("weight", "bias", "running_mean", "running_var")
            state |= {f"{path}.{name}": value for name, value in zip(names, values, strict=True)}
            state[f"{path}.num_batches_tracked"] = np.array(0)
    ours.load_state_dict(state)


@pytest.fixture(scope="module", params=THEIRS)
def pair(request):
    """Keras' network, the same one of ours with its weights, and the (C, H, W) of their images."""
    keras.utils.set_random_seed(0)
    C, H, W = models.MODELS[request.param].image_shape
    theirs = keras.Sequential([keras.layers.Input((H, W, C)), *THEIRS[request.param]()])
    rng = np.random.default_rng(0)
    for layer in theirs.layers:  # moving averages and biases that are not 0 and 1
        values = layer.get_weights()
        layer.set_weights([v if v.ndim > 1 else v + rng.uniform(0, 0.2, v.shape).astype(v.dtype) for v in values])
    ours = models.build(request.param, 10).eval()
    hand_over(theirs, ours)
    return theirs, ours, (C, H, W)


def scores(theirs, ours, x):
    """Of both, for images (N, C, H, W): two arrays (N, 10)."""
    expected = np.asarray(theirs(x.transpose(0, 2, 3, 1), training=False))
    with no_grad():
        return ours(tensor(x)).numpy(), expected


def test_parameters_are_as_many_as_those_of_keras(pair):
    theirs, ours, _ = pair
    published = sum(np.prod(v.shape) for v in theirs.weights)
    averages = [b for path, b in ours.named_buffers() if not path.endswith("num_batches_tracked")]
    assert published == sum(p.numel() for p in ours.parameters()) + sum(b.numel() for b in averages)


def test_logits_are_those_of_keras(pair):
    theirs, ours, image_shape = pair
    x = np.random.default_rng(0).standard_normal((2, *image_shape)).astype("float32")
    found, expected = scores(theirs, ours, x)
    assert abs(found - expected).max() <= 1e-4


@pytest.mark.parametrize("scale", [1 / 255, 1.0], ids=["0 to 1", "0 to 255"])
def test_logits_for_photographs_are_those_of_keras(pair, extra_data, scale):
    """Pixels divided by 255 or as they come: the articles do not show which, and both are usual.

    The second gives scores of up to 18, of which float32 keeps 2e-6 or so at best; a few thousand sums of products
    deep, 6e-5 was seen. Scores differ between photographs by far more than that.
    """
    theirs, ours, (_, H, W) = pair
    root = extra_data / "imagenet-1k-sample"
    names = list(find_photographs(root, find_classes(root)))[::250]
    pixels = np.stack([read_photograph(root / name) for name in names]).astype("float32")
    top, left = (256 - H) // 2, (256 - W) // 2
    found, expected = scores(theirs, ours, pixels[:, :, top : top + H, left : left + W] * np.float32(scale))
    assert abs(found - expected).max() <= 1e-4
    assert expected.std(axis=0).mean() > 50 * 1e-4


def test_batch_norm_has_kerass_constants():
    layer = keras.layers.BatchNormalization()
    ours = models.build("keras_valid_bn", 2).bn1
    assert (ours.eps, ours.momentum) == pytest.approx((layer.epsilon, 1 - layer.momentum))
