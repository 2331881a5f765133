"""The CUDA kernels as a backend, run on the CPU: equal to the reference, differentiable, good to learn with."""

import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import backends, manual_seed, nn, optim, tensor
from minitorch_alex.backends import cuda_kernels
from minitorch_alex.backends.numpy_backend import Backend, Window
from minitorch_alex.data import Preprocessing, load
from minitorch_alex.gradcheck import gradcheck

REASON = backends.why_not("cuda_on_cpu")
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")
REFERENCE = Backend()
RANDOM = np.random.default_rng(0)
SHAPES = [  # channels, filters, groups, image, window
    (4, 6, 2, (9, 8), Window((3, 3), (2, 1), (1, 1))),
    (3, 5, 1, (11, 10), Window((5, 4), (3, 2), (2, 0), (1, 2))),
    (2, 2, 2, (6, 7), Window((2, 2), (2, 2), ceil_mode=True)),
]


@pytest.fixture
def cuda():
    """The backend, made current."""
    before = backends._current
    backends.use("cuda_on_cpu")
    manual_seed(0)
    yield backends.current()
    backends._current = before


def numbers(dtype, *shape):
    return RANDOM.standard_normal(shape).astype(dtype)


def close(mine, theirs):
    assert mine.dtype == theirs.dtype
    np.testing.assert_allclose(mine, theirs, **({"atol": 1e-4} if mine.dtype == "float32" else {"atol": 1e-12}))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("at_a_time", ["all images", "one image"])
@pytest.mark.parametrize(("C", "filters", "G", "size", "window"), SHAPES)
def test_convolution(C, filters, G, size, window, at_a_time, dtype, cuda, monkeypatch):
    if at_a_time == "one image":
        monkeypatch.setattr(cuda_kernels, "COLUMN_BYTES", 1)
    x, w = numbers(dtype, 3, C, *size), numbers(dtype, filters, C // G, *window.kernel)
    y = REFERENCE.conv2d(x, w, window, G)
    gy = numbers(dtype, *y.shape)
    close(cuda.conv2d(x, w, window, G), y)
    gradient = REFERENCE.conv2d_input_gradient(gy, w, x.shape, window, G)
    close(cuda.conv2d_input_gradient(gy, w, x.shape, window, G), gradient)
    close(
        cuda.conv2d_weight_gradient(gy, x, w.shape, window, G),
        REFERENCE.conv2d_weight_gradient(gy, x, w.shape, window, G),
    )
    columns = REFERENCE.im2col(x, window)
    assert np.array_equal(cuda.im2col(x, window), columns)
    assert np.array_equal(cuda.col2im(columns, x.shape, window), REFERENCE.col2im(columns, x.shape, window))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("C", "filters", "G", "size", "window"), SHAPES)
def test_pooling(C, filters, G, size, window, dtype, cuda):
    x = RANDOM.integers(-3, 4, (2, C, *size)).astype(dtype)  # with ties
    y, winner = REFERENCE.max_pool2d(x, window)
    mine = cuda.max_pool2d(x, window)
    assert np.array_equal(mine[0], y)
    assert np.array_equal(mine[1], winner)
    assert mine[1].dtype == winner.dtype
    gy = numbers(dtype, *y.shape)
    close(
        cuda.max_pool2d_gradient(gy, winner, x.shape, window),
        REFERENCE.max_pool2d_gradient(gy, winner, x.shape, window),
    )
    close(cuda.max_pool2d_gradient_to_ties(gy, x, y, window), REFERENCE.max_pool2d_gradient_to_ties(gy, x, y, window))
    close(cuda.sum_pool2d(x, window), REFERENCE.sum_pool2d(x, window))
    close(cuda.sum_pool2d_gradient(gy, x.shape, window), REFERENCE.sum_pool2d_gradient(gy, x.shape, window))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [5, 4, 3, 90])
def test_local_response_norm(size, dtype, cuda):
    x, gy = numbers(dtype, 2, 37, 3, 5), numbers(dtype, 2, 37, 3, 5)
    y, scale = REFERENCE.local_response_norm(x, size, 1.0, 0.75, 2.0)
    mine = cuda.local_response_norm(x, size, 1.0, 0.75, 2.0)
    close(mine[0], y)
    close(mine[1], scale)
    gradient = REFERENCE.local_response_norm_gradient(gy, x, scale, size, 1.0, 0.75)
    close(cuda.local_response_norm_gradient(gy, x, scale, size, 1.0, 0.75), gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rest(dtype, cuda):
    x = np.array([[-1.0, 0.0, 2.0], [np.nan, -0.0, np.inf]], dtype)
    assert np.array_equal(cuda.relu(x), REFERENCE.relu(x), equal_nan=True)
    assert np.array_equal(cuda.relu_gradient(x, x.T.T), REFERENCE.relu_gradient(x, x), equal_nan=True)
    key, counter = (2**63 + 3, 9), (4, 5)
    mask = REFERENCE.dropout_mask((7, 5), 0.3, key, counter, dtype)
    assert np.array_equal(cuda.dropout_mask((7, 5), 0.3, key, counter, dtype), mask)


def test_views_and_nothing_at_all(cuda):
    x = numbers("float32", 2, 4, 6, 5)
    window = Window((3, 3))
    turned = x.transpose(0, 1, 3, 2)
    assert np.array_equal(cuda.im2col(turned, window), REFERENCE.im2col(turned, window))
    assert cuda.relu(x[:0]).shape == (0, 4, 6, 5)
    assert cuda.max_pool2d(x[:0], window)[0].shape == (0, 4, 4, 3)
    assert cuda.conv2d(x[:0], numbers("float32", 2, 4, 3, 3), window, 1).shape == (0, 2, 4, 3)


def test_what_cuda_would_not_notice_is_refused(cuda):
    a, b = numbers("float32", 4), numbers("float64", 4)
    with pytest.raises(TypeError, match="float32 and of float64"):
        cuda.launch("bias_relu.cu", "relu<T>", 4, a, b, np.int64(4))
    with pytest.raises(ValueError, match="not contiguous"):
        cuda.launch("bias_relu.cu", "relu<T>", 2, a[::2], a[:2], np.int64(2))
    with pytest.raises(TypeError, match="float32 or float64, not in float16"):
        cuda.launch("bias_relu.cu", "relu<T>", 4, a.astype("float16"), a, np.int64(4))


def test_gradients(cuda):
    shapes = (2, 2, 6, 5), (4, 1, 3, 3)
    assert gradcheck(lambda x, w: F.conv2d(x, w, padding=1, groups=2), *shapes)
    assert gradcheck(lambda x: F.max_pool2d(x, 3, 2), (1, 2, 5, 5))
    assert gradcheck(lambda x: F.local_response_norm(x, 5, alpha=1.0, k=2.0), (1, 7, 2, 2))
    assert gradcheck(lambda x: F.avg_pool2d(x, 2), (1, 2, 4, 4))
    assert gradcheck(F.relu, (3, 5))


def test_a_small_network_learns(cuda):
    """AlexNet's ingredients on sixty digits; the same on the reference takes the same way."""

    def losses(backend):
        backends.use(backend)
        manual_seed(0)
        d = load("digits")
        images, labels = Preprocessing.of(d.train_images)(d.train_images[:60]), d.train_labels[:60]
        network = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(5, alpha=0.1, k=2), nn.MaxPool2d(3, 2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 10),
        )  # fmt: skip
        optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        told = []
        for _ in range(25):
            optimizer.zero_grad()
            loss = F.cross_entropy(network(tensor(images)), labels)
            loss.backward()
            optimizer.step()
            told.append(loss.item())
        return told

    mine = losses("cuda_on_cpu")
    assert mine[-1] < 0.6 * mine[0]
    np.testing.assert_allclose(mine, losses("numpy"), rtol=1e-2)
