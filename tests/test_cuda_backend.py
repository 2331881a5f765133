"""The CUDA kernels as a backend, run on the CPU: equal to the reference, differentiable, good to learn with."""

import math

import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import backends, manual_seed, nn, optim, philox, tensor
from minitorch_alex.backends import cuda_windows
from minitorch_alex.backends.cuda_launcher import Double
from minitorch_alex.backends.numpy_backend import Backend, Window
from minitorch_alex.data import Preprocessing, load
from minitorch_alex.functional.normalization import spatial_response_norm
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
        monkeypatch.setattr(cuda_windows, "COLUMN_BYTES", 1)
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


def test_convolution_of_a_few_images_at_a_time_with_a_rest(cuda, monkeypatch):
    C, filters, G, size, window = SHAPES[0]
    x, w = numbers("float64", 5, C, *size), numbers("float64", filters, C // G, *window.kernel)
    y = REFERENCE.conv2d(x, w, window, G)
    gy = numbers("float64", *y.shape)
    image = C * math.prod(window.kernel) * math.prod(y.shape[2:]) * 8
    monkeypatch.setattr(cuda_windows, "COLUMN_BYTES", 2 * image)
    made, columns = [], type(cuda)._columns
    monkeypatch.setattr(type(cuda), "_columns", lambda self, x, w: (made.append(len(x)), columns(self, x, w))[1])
    close(cuda.conv2d(x, w, window, G), y)
    assert made == [2, 2, 1]
    gx, gw = (getattr(REFERENCE, f"conv2d_{of}_gradient") for of in ("input", "weight"))
    close(cuda.conv2d_input_gradient(gy, w, x.shape, window, G), gx(gy, w, x.shape, window, G))
    close(cuda.conv2d_weight_gradient(gy, x, w.shape, window, G), gw(gy, x, w.shape, window, G))


def test_columns_begin_at_multiples_of_sixteen_bytes(monkeypatch):
    monkeypatch.setattr(cuda_windows, "COLUMN_BYTES", 1000)
    counts = {columns: cuda_windows._images_at_a_time(columns) for columns in (10, 45, 60, 120, 130, 900, 5000)}
    assert counts == {10: 96, 45: 16, 60: 16, 120: 8, 130: 7, 900: 1, 5000: 1}


def test_whole_numbers_of_another_width_are_converted(cuda):
    """A GPU would read two labels of 32 bits as one of 64."""
    x = numbers("float32", 4, 5)
    for dtype in ("int32", "uint8", "int64"):
        labels = np.array([0, 4, 2, 2], dtype)
        loss = F.cross_entropy(tensor(x), labels)
        assert loss.item() == pytest.approx(F.cross_entropy(tensor(x), labels.astype("int64")).item())
        expected = REFERENCE.softmax_cross_entropy(x, labels, -100, 1.0)
        close(cuda.softmax_cross_entropy(x, labels, -100, 1.0)[0], expected[0])
    images, window = numbers("float32", 2, 3, 6, 6), Window((3, 3), (2, 2))
    y, winner = REFERENCE.max_pool2d(images, window)
    expected = REFERENCE.max_pool2d_gradient(y, winner, images.shape, window)
    close(cuda.max_pool2d_gradient(y, winner.astype("int64"), images.shape, window), expected)


def test_one_value_can_be_added_at_many_places(cuda):
    values = np.array(2.0, "float32")
    found = cuda.index_add(np.zeros((3, 2), "float32"), np.array([0, 2, 0]), values)
    np.testing.assert_array_equal(found, [[4, 4], [0, 0], [2, 2]])


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
    assert cuda.relu(np.array([-3, 4])).tolist() == [0, 4]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [5, 4, 1, 90])
@pytest.mark.parametrize("shape", [(2, 5, 9, 8), (2, 1, 4, 11), (3, 9, 2)])
def test_spatial_response_norm(shape, size, dtype, cuda):
    x, gy = numbers(dtype, *shape), numbers(dtype, *shape)
    y, scale = REFERENCE.spatial_response_norm(x, size, 1.5, 0.75, 2.0)
    mine = cuda.spatial_response_norm(x, size, 1.5, 0.75, 2.0)
    close(mine[0], y)
    close(mine[1], scale)
    gradient = REFERENCE.spatial_response_norm_gradient(gy, x, scale, size, 1.5, 0.75)
    close(cuda.spatial_response_norm_gradient(gy, x, scale, size, 1.5, 0.75), gradient)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("of_the_batch", [True, False])
@pytest.mark.parametrize("shape", [(3, 4, 5, 7), (2, 3, 17, 19), (5, 6), (300, 2, 3), (2, 3, 1, 1)])
def test_batch_norm(shape, of_the_batch, affine, dtype, cuda):
    """Of the batch, whose mean is far away; and with running statistics, which are of x's own dtype."""
    C = shape[1]
    x, gy = numbers(dtype, *shape) + np.dtype(dtype).type(30), numbers(dtype, *shape)
    weight, bias = (numbers(dtype, C), numbers(dtype, C)) if affine else (None, None)
    mean, var, spread = REFERENCE.batch_norm_statistics(x, 1e-3)
    if of_the_batch:
        mine = cuda.batch_norm_statistics(x, 1e-3)
        assert [a.dtype for a in mine] == ["float64", "float64", dtype]
        for a, b in zip(mine, (mean, var, spread), strict=True):
            np.testing.assert_allclose(a, b, rtol=2e-7 if dtype == "float32" else 1e-12)
    else:
        mean = np.linspace(29, 31, C).astype(dtype)
    close(cuda.batch_norm(x, mean, spread, weight, bias), REFERENCE.batch_norm(x, mean, spread, weight, bias))
    gradients = REFERENCE.batch_norm_gradients(gy, x, mean, spread, weight, of_the_batch)
    for a, b in zip(cuda.batch_norm_gradients(gy, x, mean, spread, weight, of_the_batch), gradients, strict=True):
        close(a, b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ignore_index", [-100, 1])
@pytest.mark.parametrize(("N", "K"), [(1, 1), (5, 3), (9, 33), (300, 5), (2, 1000)])
def test_softmax_cross_entropy(N, K, ignore_index, dtype, cuda):
    x, labels = 3 * numbers(dtype, N, K), RANDOM.integers(0, K, N)
    labels[1::3] = ignore_index
    mine = cuda.softmax_cross_entropy(x, labels, ignore_index, 0.25)
    for a, b in zip(mine, REFERENCE.softmax_cross_entropy(x, labels, ignore_index, 0.25), strict=True):
        close(a, b)
    assert not mine[0][1::3].any()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["torch", "paper"])
@pytest.mark.parametrize("shape", [(), (17,), (7, 5), (3, 1001)])
def test_dropout(shape, form, dtype, cuda):
    """Bit for bit, and an infinity that is dropped is NaN."""
    x = np.where(RANDOM.random(shape) < 0.1, np.inf, numbers(dtype, *shape)).astype(dtype)
    for p in (0.3, 1.0):
        stream = (2**63 + 3, 9), (4, 2**64 - 5)
        with np.errstate(invalid="ignore"):
            expected = REFERENCE.dropout(x, p, *stream, form)
        mine = cuda.dropout(x, p, *stream, form)
        assert mine.dtype == dtype
        assert mine.shape == shape
        assert np.array_equal(mine, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("form", "momentum", "decay", "more"),
    [
        ("paper", 0.9, 5e-4, ()), ("paper", 0.9, 0.0, ()), ("paper", 0.0, 5e-4, ()),
        *(("torch", *rates, (0.0, False)) for rates in ((0.9, 5e-4), (0.9, 0.0), (0.0, 5e-4), (0.0, 0.0))),
        ("torch", 0.9, 5e-4, (0.3, False)), ("torch", 0.9, 5e-4, (0.0, True)),
    ],
)  # fmt: skip
def test_sgd(form, momentum, decay, more, dtype, cuda):
    """Bit for bit over three steps; the old weight stays."""
    w = mine = numbers(dtype, 13, 29)
    v = my_v = None
    for lr in (0.1, 0.1, 0.01):
        g, before = numbers(dtype, 29, 13).T, mine.copy()
        step = f"sgd_{form}"
        w, v = getattr(REFERENCE, step)(w, g, v, lr, momentum, decay, *more)
        old = mine
        mine, my_v = getattr(cuda, step)(old, g, my_v, lr, momentum, decay, *more)
        assert np.array_equal(old, before)
        assert np.array_equal(mine, w)
        assert (my_v is None) == (v is None)
        assert v is None or np.array_equal(my_v, v)


def test_sgd_takes_what_is_laid_out_in_another_way(cuda):
    """Of a velocity that is not contiguous the changed one is the one that comes back."""
    w, g, v = numbers("float32", 4, 6), numbers("float64", 6), numbers("float32", 6, 4)
    expected = REFERENCE.sgd_paper(w, g.astype("float32"), v.T.copy(), 0.1, 0.9, 0.0)
    for a, b in zip(cuda.sgd_paper(w, g, v.T, 0.1, 0.9, 0.0), expected, strict=True):
        assert np.array_equal(a, b)
    with pytest.raises(ValueError, match="broadcast"):
        cuda.sgd_paper(w, numbers("float32", 3), None, 0.1, 0.9, 0.0)


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
    with pytest.raises(TypeError, match="float64 and of float32"):
        cuda.launch_blocks("batch_norm.cu", "batch_norm_rows<T>", 1, 1, b, Double(a), Double(b), 4)
    with pytest.raises(TypeError, match="float32, float64 or bfloat16, not in float16"):
        cuda.launch("bias_relu.cu", "relu<T>", 4, a.astype("float16"), a, np.int64(4))


def test_gradients(cuda):
    shapes = (2, 2, 6, 5), (4, 1, 3, 3)
    assert gradcheck(lambda x, w: F.conv2d(x, w, padding=1, groups=2), *shapes)
    assert gradcheck(lambda x: F.max_pool2d(x, 3, 2), (1, 2, 5, 5))
    assert gradcheck(lambda x: F.local_response_norm(x, 5, alpha=1.0, k=2.0), (1, 7, 2, 2))
    assert gradcheck(lambda x: F.avg_pool2d(x, 2), (1, 2, 4, 4))
    assert gradcheck(F.relu, (3, 5))
    assert gradcheck(lambda x: spatial_response_norm(x, 4, 1.5, k=2.0), (1, 2, 5, 4))


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_of_cross_entropy(reduction, cuda):
    labels = np.array([2, -100, 0, 3])
    assert gradcheck(lambda x: F.cross_entropy(x, labels, reduction=reduction), (4, 5))
    on_the_device = tensor(np.array([2, 1, 0, 3]))
    assert gradcheck(lambda x: F.cross_entropy(2 * x, on_the_device, ignore_index=3, reduction=reduction), (4, 5))


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_batch_norm(training, cuda):
    mean, var = tensor(np.array([0.3, -0.2, 0.1])), tensor(np.array([0.5, 1.0, 2.0]))
    for shape in ((2, 3, 2, 3), (5, 3)):

        def normed(x, *affine):
            return F.batch_norm(x, mean, var, *affine, training=training, eps=0.1)

        assert gradcheck(normed, shape, (3,), (3,))
        assert gradcheck(normed, shape)


@pytest.mark.parametrize("form", ["torch", "paper"])
def test_gradient_of_dropout(form, cuda):
    def dropped(x):
        philox.set_step(3)  # else every call would draw a mask of its own
        return F.dropout(x, 0.4, form=form)

    assert gradcheck(dropped, (5, 9))


def test_labels_from_the_host_are_checked_before_they_are_sent(stand_in):
    """The GPU is asked nothing about them: a step waits for nothing. Labels that lie on it are checked there."""
    x = tensor(numbers("float32", 3, 4), requires_grad=True)
    for settings in ({}, {"label_smoothing": 0.1}, {"reduction": "none"}):
        stand_in.waits.clear()
        for labels in (np.array([1, -100, 3]), [1, -100, 3]):
            F.cross_entropy(x, labels, **settings).backward(np.ones(3) if "reduction" in settings else None)
        assert stand_in.waits == []
    F.cross_entropy(x, tensor([1, 2, 3]))
    assert stand_in.waits
    for wrong in (np.array([1, 2, 4]), tensor([1, 2, 4]), tensor([1, 2, 4]).data):
        with pytest.raises(IndexError, match=r"label 4 is out of range: there are 4 classes, 0 to 3"):
            F.cross_entropy(x, wrong)


def test_normalising_and_stepping_wait_for_nothing(stand_in):
    first, last = nn.Conv2d(3, 3, 1), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(48, 2))
    x, mean, var = tensor(numbers("float32", 2, 3, 4, 4)), tensor([0.0, 1, 2]), tensor([1.0, 2, 3])
    for settings in ({"form": "paper"}, {"momentum": 0.9, "weight_decay": 0.1, "nesterov": True}):
        optimizer = optim.SGD([*first.parameters(), *last.parameters()], lr=0.1, **settings)
        stand_in.waits.clear()
        for _ in range(2):
            y = F.batch_norm(first(x), mean, var, training=True)
            y = spatial_response_norm(F.batch_norm(y, mean, var), 3, 1.0)
            F.cross_entropy(last(y), [0, 1]).backward()
            optimizer.step()
        assert stand_in.waits == []
    assert (mean.numpy() != [0, 1, 2]).all()


def losses(backend, steps, network_of, **settings):
    """Of steps on sixty digits, from the same weights."""
    backends.use(backend)
    manual_seed(0)
    d = load("digits")
    images, labels = Preprocessing.of(d.train_images)(d.train_images[:60]), d.train_labels[:60]
    network = network_of()
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9, **settings)
    told = []
    for step in range(steps):
        philox.set_step(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(tensor(images.astype(network[0].weight.dtype))), labels)
        loss.backward()
        optimizer.step()
        told.append(loss.item())
    return told


def test_a_small_network_learns(cuda):
    """AlexNet's ingredients on sixty digits; the same on the reference takes the same way."""

    def network():
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.LocalResponseNorm(5, alpha=0.1, k=2), nn.MaxPool2d(3, 2),
            nn.Flatten(), nn.Dropout(0.2), nn.Linear(72, 10),
        )  # fmt: skip

    mine = losses("cuda_on_cpu", 25, network)
    assert mine[-1] < 0.6 * mine[0]
    np.testing.assert_allclose(mine, losses("numpy", 25, network), rtol=1e-2)


@pytest.mark.parametrize("settings", [{"form": "paper", "weight_decay": 5e-4}, {"nesterov": True}])
def test_batch_norm_dropout_and_momentum_take_the_same_way(settings, cuda):
    """In float64, where two ways that differ by rounding alone stay together."""

    def network():
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(36, 10),
        ).double()  # fmt: skip

    mine = losses("cuda_on_cpu", 10, network, **settings)
    assert mine[-1] < 0.7 * mine[0]
    np.testing.assert_allclose(mine, losses("numpy", 10, network, **settings), rtol=1e-9)
