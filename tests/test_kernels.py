"""Every kernel of every backend against loops that can be checked by eye.

The data are small whole numbers, so sums are exact in any order and results must be equal, not just close. Only local
response normalisation, which takes roots, is compared with a tolerance.
"""

import functools
import sys
import threading

import numpy as np
import pytest
import threadpoolctl

from minitorch_alex import philox
from minitorch_alex.backends import thread_pool
from minitorch_alex.backends.numpy_backend import Window
from minitorch_alex.backends.thread_pool import ThreadPool

C, H, W, F = 4, 7, 6, 8  # channels, image (not square), filters

WINDOWS = [
    Window((3, 3)),
    Window((1, 1)),
    Window((3, 3), (2, 2)),  # overlapping
    Window((2, 2), (3, 3)),  # some pixels in no window
    Window((1, 1), (4, 3)),
    Window((2, 3), (1, 2), (1, 0)),
    Window((3, 2), (2, 1), (0, 2), (1, 3)),
    Window((2, 2), (2, 3), (1, 1), (3, 2)),
    Window((7, 6)),  # as large as the image
    Window((9, 3), (1, 1), (1, 0)),  # as large as the padded image
    Window((2, 2), (1, 1), (3, 4)),  # some windows see padding only
    Window((3, 3), (2, 2), ceil_mode=True),
    Window((2, 2), (4, 5), ceil_mode=True),
    Window((3, 3), (3, 2), (1, 1), ceil_mode=True),
    Window((2, 3), (3, 3), (1, 2), (2, 2), ceil_mode=True),
]


def short(window):
    return (
        ",".join(f"{name[0]}{a}x{b}" for name, (a, b) in list(window._asdict().items())[:4])
        + ",ceil" * window.ceil_mode
    )


LAYOUTS = ["contiguous", "column-major", "gaps", "backwards", "read-only"]


# -- the loops ------------------------------------------------------------------
def count_windows(n, kernel, stride, padding, dilation, ceil_mode):
    """One window at a time: it must end inside the padded image; the last may hang over, if it starts before the end
    of the image itself (PyTorch's rule)."""
    start, count = -padding, 0
    while start + dilation * (kernel - 1) < n + padding:
        start, count = start + stride, count + 1
    left_over = start - stride + dilation * (kernel - 1) < n + padding - 1
    return count + (ceil_mode and left_over and start < n)


def output_size(window, H, W):
    return tuple(count_windows(n, *(s[i] for s in window[:4]), window.ceil_mode) for i, n in enumerate((H, W)))


@functools.cache
def meetings(window, H, W):
    """All (p, q, r, s, h, w), in scan order: in output (p, q), tap (r, s) lies on pixel (h, w)."""
    P, Q = output_size(window, H, W)
    (R, S), stride, padding, dilation, _ = window
    found = []
    for p in range(P):
        for q in range(Q):
            for r in range(R):
                for s in range(S):
                    h = p * stride[0] + r * dilation[0] - padding[0]
                    w = q * stride[1] + s * dilation[1] - padding[1]
                    if 0 <= h < H and 0 <= w < W:
                        found.append((p, q, r, s, h, w))
    return found


def loop_im2col(x, window):
    columns = np.zeros((*x.shape[:2], *window.kernel, *output_size(window, *x.shape[2:])))
    for p, q, r, s, h, w in meetings(window, *x.shape[2:]):
        columns[:, :, r, s, p, q] = x[:, :, h, w]
    return columns.reshape(len(x), -1, columns.shape[4] * columns.shape[5])


def loop_col2im(columns, shape, window):
    columns = columns.reshape(*shape[:2], *window.kernel, *output_size(window, *shape[2:]))
    x = np.zeros(shape)
    for p, q, r, s, h, w in meetings(window, *shape[2:]):
        x[:, :, h, w] += columns[:, :, r, s, p, q]
    return x


def connections(w, groups):
    """(f, c, channel): filter f's c-th slice lies on that channel of the input."""
    filters, channels = w.shape[0] // groups, w.shape[1]
    return [(f, c, f // filters * channels + c) for f in range(w.shape[0]) for c in range(channels)]


def loop_conv2d(x, w, window, groups):
    y = np.zeros((len(x), len(w), *output_size(window, *x.shape[2:])))
    for p, q, r, s, h, v in meetings(window, *x.shape[2:]):
        for f, c, channel in connections(w, groups):
            y[:, f, p, q] += w[f, c, r, s] * x[:, channel, h, v]
    return y


def loop_conv2d_gradients(gy, x, w, window, groups):
    gx, gw = np.zeros(x.shape), np.zeros(w.shape)
    for p, q, r, s, h, v in meetings(window, *x.shape[2:]):
        for f, c, channel in connections(w, groups):
            gx[:, channel, h, v] += w[f, c, r, s] * gy[:, f, p, q]
            gw[f, c, r, s] += (gy[:, f, p, q] * x[:, channel, h, v]).sum()
    return gx, gw


def loop_max_pool2d(x, window):
    shape = (*x.shape[:2], *output_size(window, *x.shape[2:]))
    y, winner = np.full(shape, -np.inf), np.full(shape, -1)
    for p, q, r, s, h, w in meetings(window, *x.shape[2:]):
        for n in range(len(x)):
            for c in range(x.shape[1]):
                value = x[n, c, h, w]
                if winner[n, c, p, q] < 0 or value > y[n, c, p, q] or np.isnan(value):
                    y[n, c, p, q], winner[n, c, p, q] = value, r * window.kernel[1] + s
    return y, winner


def loop_max_pool2d_gradient(gy, winner, shape, window):
    gx = np.zeros(shape)
    for p, q, r, s, h, w in meetings(window, *shape[2:]):
        gx[:, :, h, w] += np.where(winner[:, :, p, q] == r * window.kernel[1] + s, gy[:, :, p, q], 0)
    return gx


def loop_sum_pool2d(x, window):
    y = np.zeros((*x.shape[:2], *output_size(window, *x.shape[2:])))
    for p, q, _, _, h, w in meetings(window, *x.shape[2:]):
        y[:, :, p, q] += x[:, :, h, w]
    return y


def loop_sum_pool2d_gradient(gy, shape, window):
    gx = np.zeros(shape)
    for p, q, _, _, h, w in meetings(window, *shape[2:]):
        gx[:, :, h, w] += gy[:, :, p, q]
    return gx


def loop_window_sum(a, before, after):
    out = np.zeros(a.shape)
    for c in range(a.shape[1]):
        for j in range(a.shape[1]):
            if c - before <= j <= c + after:
                out[:, c] += a[:, j]
    return out


def loop_local_response_norm(x, size, alpha, beta, k):
    scale = k + alpha / size * loop_window_sum(x**2, size // 2, (size - 1) // 2)
    return x / scale**beta, scale


def loop_local_response_norm_gradient(gy, x, scale, size, alpha, beta):
    """dy[j]/dx[c] = scale[j]^-beta if j = c, less x[j] beta scale[j]^(-beta-1) 2 alpha/size x[c] if j sees c."""
    gx = gy * scale**-beta
    for c in range(x.shape[1]):
        for j in range(x.shape[1]):
            if j - size // 2 <= c <= j + (size - 1) // 2:
                gx[:, c] -= gy[:, j] * x[:, j] * beta * scale[:, j] ** (-beta - 1) * 2 * alpha / size * x[:, c]
    return gx


def loop_pixel_sum(a, before, after):
    out = np.zeros(a.shape)
    H, W = a.shape[-2:]
    for h in range(H):
        for w in range(W):
            window = a[..., max(0, h - before) : h + after + 1, max(0, w - before) : w + after + 1]
            out[..., h, w] = window.sum(axis=(-1, -2))
    return out


def loop_spatial_response_norm(x, size, alpha, beta, k):
    scale = k + alpha / size**2 * loop_pixel_sum(x**2, size // 2, (size - 1) // 2)
    return x / scale**beta, scale


def loop_spatial_response_norm_gradient(gy, x, scale, size, alpha, beta):
    """As across channels: dy[j]/dx[i] = scale[j]^-beta if j = i, less what i has in the scale of a j that sees it."""
    gx = gy * scale**-beta
    H, W = x.shape[-2:]
    before, after = size // 2, (size - 1) // 2
    for h, w, i, j in np.ndindex(H, W, H, W):
        if h - before <= i <= h + after and w - before <= j <= w + after:
            part = gy[..., h, w] * x[..., h, w] * beta * scale[..., h, w] ** (-beta - 1)
            gx[..., i, j] -= part * 2 * alpha / size**2 * x[..., i, j]
    return gx


# -- helpers ----------------------------------------------------------------------
def whole_numbers(seed, *shape):
    return np.random.default_rng(seed).integers(-4, 5, shape).astype("float64")


def laid_out(backend, array, dtype, layout):
    """The values of `array`, on the backend, in another arrangement in memory."""
    a = backend.asarray(np.array(array, dtype))
    if layout == "column-major":
        return a.T.copy().T
    if layout == "gaps":
        return backend.repeat(a, 2, axis=-1)[..., ::2]
    if layout == "backwards":
        return a[..., ::-1].copy()[..., ::-1]
    if layout == "read-only" and isinstance(a, np.ndarray):
        a.flags.writeable = False
    return a


def same(backend, found, expected, dtype, kernel):
    found = backend.to_numpy(found)
    assert found.dtype == dtype, kernel
    np.testing.assert_array_equal(found, expected, err_msg=kernel)


def near(backend, pairs, dtype):
    """name -> (found, expected): equal to within rounding."""
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for name, (found, expected) in pairs.items():
        assert found.dtype == dtype, name
        atol = tolerance * np.abs(expected).max()
        np.testing.assert_allclose(backend.to_numpy(found), expected, rtol=tolerance, atol=atol, err_msg=name)


@functools.cache
def sliding_by_loops(window, groups, N):
    x, w = whole_numbers(1, N, C, H, W), whole_numbers(2, F, C // groups, *window.kernel)
    columns = loop_im2col(x, window)
    more, gy = whole_numbers(3, *columns.shape), whole_numbers(4, N, F, *output_size(window, H, W))
    gx, gw = loop_conv2d_gradients(gy, x, w, window, groups)
    return (x, w, more, gy), {
        "im2col": columns,
        "col2im": loop_col2im(more, x.shape, window),
        "conv2d": loop_conv2d(x, w, window, groups),
        "conv2d_input_gradient": gx,
        "conv2d_weight_gradient": gw,
        "sum_pool2d": loop_sum_pool2d(x, window),
        "sum_pool2d_gradient": loop_sum_pool2d_gradient(gy[:, :C], x.shape, window),
    }


def check_sliding(backend, window, groups, dtype, layout, N):
    arrays, expected = sliding_by_loops(window, groups, N)
    x, w, columns, gy = (laid_out(backend, a, dtype, layout) for a in arrays)
    found = {
        "im2col": backend.im2col(x, window),
        "col2im": backend.col2im(columns, x.shape, window),
        "conv2d": backend.conv2d(x, w, window, groups),
        "conv2d_input_gradient": backend.conv2d_input_gradient(gy, w, x.shape, window, groups),
        "conv2d_weight_gradient": backend.conv2d_weight_gradient(gy, x, w.shape, window, groups),
        "sum_pool2d": backend.sum_pool2d(x, window),
        "sum_pool2d_gradient": backend.sum_pool2d_gradient(gy[:, :C], x.shape, window),
    }
    for kernel in expected:
        same(backend, found[kernel], expected[kernel], dtype, kernel)


IMAGES = {
    "ties": np.random.default_rng(5).integers(0, 3, (3, 2, H, W)).astype("float64"),
    "all negative": np.random.default_rng(6).integers(-9, 0, (3, 2, H, W)).astype("float64"),
    "minus infinity": np.where(np.random.default_rng(7).random((3, 2, H, W)) < 0.8, -np.inf, 1.0),
    "nan": np.where(np.random.default_rng(8).random((3, 2, H, W)) < 0.2, np.nan, whole_numbers(9, 3, 2, H, W)),
}


@functools.cache
def max_pool_by_loops(window, images):
    y, winner = loop_max_pool2d(IMAGES[images], window)
    gy = whole_numbers(10, *y.shape)
    return y, winner, gy, loop_max_pool2d_gradient(gy, winner, IMAGES[images].shape, window)


def check_max_pool(backend, window, images, dtype, layout):
    y, winner, gy, gx = max_pool_by_loops(window, images)
    x = laid_out(backend, IMAGES[images], dtype, layout)
    found_y, found_winner = backend.max_pool2d(x, window)
    same(backend, found_y, y, dtype, "max_pool2d")
    same(backend, found_winner, winner, found_winner.dtype, "max_pool2d: winner")
    found = backend.max_pool2d_gradient(laid_out(backend, gy, dtype, layout), found_winner, x.shape, window)
    same(backend, found, gx, dtype, "max_pool2d_gradient")


@pytest.fixture
def shared(backend, monkeypatch):
    """However small, work goes to four threads, and through their buffers one image at a time."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    if hasattr(backend, "pool"):
        monkeypatch.setattr(backend, "pool", ThreadPool(4))
    module = sys.modules[type(backend).__module__]
    if hasattr(module, "CACHE_BYTES"):
        monkeypatch.setattr(module, "CACHE_BYTES", 1)


# -- sliding windows ----------------------------------------------------------------
@pytest.mark.parametrize("window", WINDOWS, ids=short)
def test_output_size(window):
    assert window.output_size(H, W) == output_size(window, H, W)
    for n in range(9, 14):
        assert window.output_size(n, n) == output_size(window, n, n)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("window", WINDOWS, ids=short)
def test_sliding_windows(backend, window, dtype, layout):
    check_sliding(backend, window, 1, dtype, layout, N=2)


@pytest.mark.parametrize("groups", [2, 4])
@pytest.mark.parametrize("window", WINDOWS, ids=short)
def test_groups(backend, window, groups):
    check_sliding(backend, window, groups, "float32", "contiguous", N=2)


@pytest.mark.parametrize("N", [1, 4, 5, 7])
@pytest.mark.parametrize("window", WINDOWS[::3], ids=short)
def test_sliding_windows_shared_out(backend, shared, window, N):
    check_sliding(backend, window, 2, "float64", "gaps", N)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("pieces", [1, 2, 3, 5])
def test_convolution_in_pieces_of_a_few_images(backend, monkeypatch, pieces, threads):
    """Seven images: the last piece of a thread's share is smaller than the others."""
    window = Window((3, 2), (2, 1), (1, 1))
    module, (P, Q) = sys.modules[type(backend).__module__], output_size(window, H, W)
    if hasattr(module, "CACHE_BYTES"):
        monkeypatch.setattr(module, "CACHE_BYTES", pieces * 8 * (C * 3 * 2 + F) * P * Q)
    if hasattr(backend, "pool"):
        monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
        monkeypatch.setattr(backend, "pool", ThreadPool(threads))
    check_sliding(backend, window, 2, "float64", "contiguous", N=7)


@pytest.mark.parametrize("window", WINDOWS, ids=short)
def test_col2im_is_the_adjoint_of_im2col(backend, window):
    x = whole_numbers(11, 2, C, H, W)
    columns = backend.to_numpy(backend.im2col(backend.asarray(x), window))
    y = whole_numbers(12, *columns.shape)
    back = backend.to_numpy(backend.col2im(backend.asarray(y), x.shape, window))
    assert (columns * y).sum() == (x * back).sum()


@pytest.mark.parametrize("images", IMAGES)
@pytest.mark.parametrize("window", WINDOWS, ids=short)
def test_max_pool2d(backend, window, images):
    check_max_pool(backend, window, images, "float32", "contiguous")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_max_pool2d_in_any_memory_layout(backend, dtype, layout):
    check_max_pool(backend, WINDOWS[-1], "ties", dtype, layout)


@pytest.mark.parametrize("window", WINDOWS[::3], ids=short)
def test_max_pool2d_shared_out(backend, shared, window):
    check_max_pool(backend, window, "nan", "float64", "gaps")


def test_where_a_window_sees_nothing_the_maximum_is_minus_infinity(backend):
    window = Window((1, 1), padding=(1, 1))
    y, winner = backend.max_pool2d(backend.asarray(np.ones((1, 1, 1, 1))), window)
    assert backend.to_numpy(y).tolist() == [[[[-np.inf] * 3, [-np.inf, 1, -np.inf], [-np.inf] * 3]]]
    gx = backend.max_pool2d_gradient(backend.asarray(np.full((1, 1, 3, 3), 5.0)), winner, (1, 1, 1, 1), window)
    assert gx.item() == 5


def test_empty_batches(backend):
    dtype = "float32"
    window, x = Window((3, 2), (2, 1), (1, 1)), backend.zeros((0, C, H, W), dtype)
    w, gy = backend.ones((F, C, 3, 2), dtype), backend.zeros((0, F, *output_size(window, H, W)), dtype)
    same(backend, backend.conv2d(x, w, window, 1), np.zeros(gy.shape), dtype, "conv2d")
    same(backend, backend.conv2d_input_gradient(gy, w, x.shape, window, 1), np.zeros(x.shape), dtype, "input gradient")
    same(backend, backend.conv2d_weight_gradient(gy, x, w.shape, window, 1), np.zeros(w.shape), dtype, "weights")
    y, winner = backend.max_pool2d(x, window)
    assert y.shape == winner.shape == (0, C, *output_size(window, H, W))
    assert backend.max_pool2d_gradient(y, winner, x.shape, window).shape == x.shape
    assert backend.sum_pool2d_gradient(backend.sum_pool2d(x, window), x.shape, window).shape == x.shape
    y, scale = backend.local_response_norm(x, 5, 1.0, 0.75, 1.0)
    assert backend.local_response_norm_gradient(y, x, scale, 5, 1.0, 0.75).shape == x.shape
    assert backend.relu_gradient(backend.relu(x), x).shape == x.shape
    assert backend.dropout_mask((0, 3), 0.5, (1, 2), (0, 0), dtype).shape == (0, 3)
    assert backend.dropout(x, 0.5, (1, 2), (0, 0), "torch").shape == x.shape
    y, scale = backend.spatial_response_norm(x, 3, 1.0, 0.75, 1.0)
    assert backend.spatial_response_norm_gradient(y, x, scale, 3, 1.0, 0.75).shape == x.shape
    mean, spread = backend.zeros((C,), dtype), backend.ones((C,), dtype)
    y = backend.batch_norm(x, mean, spread, None, None)
    gx, gw, gb = backend.batch_norm_gradients(y, x, mean, spread, None, True)
    assert gx.shape == x.shape
    same(backend, gw, np.zeros(C), dtype, "batch_norm_gradients: weight")
    same(backend, gb, np.zeros(C), dtype, "batch_norm_gradients: bias")
    for shape in ((0, 3), (0, 0)):
        loss, gradient = backend.softmax_cross_entropy(backend.zeros(shape, dtype), backend.zeros((0,), "int64"), -1, 1)
        assert (loss.shape, gradient.shape) == ((0,), shape)
    for w in (backend.zeros((0, 3), dtype), backend.zeros((), dtype)):
        assert backend.sgd_paper(w, w, None, 0.1, 0.9, 0.1)[0].shape == w.shape
        assert backend.sgd_torch(w, w, None, 0.1, 0.9, 0.1, 0.0, False)[0].shape == w.shape


# -- local response normalisation ---------------------------------------------------
def sizes_of_lrn():
    return [(size, beta) for size in (1, 2, 3, 4, 5, 8, 11) for beta in (0.75, 0.5)]


def check_lrn(backend, shape, size, beta, dtype, layout):
    values, alpha, k = whole_numbers(13, *shape), 1.0, 2.0
    expected, scale = loop_local_response_norm(values, size, alpha, beta, k)
    values_of_gy = whole_numbers(14, *shape)
    gradient = loop_local_response_norm_gradient(values_of_gy, values, scale, size, alpha, beta)
    x, gy = (laid_out(backend, a, dtype, layout) for a in (values, values_of_gy))
    y, found_scale = backend.local_response_norm(x, size, alpha, beta, k)
    gx = backend.local_response_norm_gradient(gy, x, found_scale, size, alpha, beta)
    near(backend, {"y": (y, expected), "scale": (found_scale, scale), "gradient": (gx, gradient)}, dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "beta"), sizes_of_lrn())
def test_local_response_norm(backend, size, beta, dtype, layout):
    check_lrn(backend, (2, 6, 3, 2), size, beta, dtype, layout)


@pytest.mark.parametrize("N", [1, 4, 7])
def test_local_response_norm_shared_out(backend, shared, N):
    check_lrn(backend, (N, 6, 3), 4, 0.75, "float64", "gaps")


@pytest.mark.parametrize(
    ("a", "k", "expected"),
    [  # a multiplies the plain sum of squares
        (1e-4, 2.0, [12.5, 14.8650889375, 14.461558974, 13.465395716, 17.4023540546, 22.642841782]),  # the paper
        (2e-5, 2.0, [30.8367835205, 42.0448207627, 43.8191289719, 42.2948505376, 54.5122468433, 70.427020296]),  # code
        (2e-5, 1.0, [36.7419585202, 46.4736160485, 46.5302429551, 43.9536343143, 56.743544856, 73.6238229019]),  # Caffe
    ],
)
def test_local_response_norm_as_alexnet_has_it(backend, a, k, expected):
    x = 100 * np.arange(1.0, 7).reshape(1, 6, 1, 1)
    y, _ = backend.local_response_norm(backend.asarray(x), 5, a * 5, 0.75, k)
    np.testing.assert_allclose(backend.to_numpy(y).reshape(-1), expected, rtol=1e-10)


@pytest.mark.parametrize("before", [0, 1, 2, 7])
@pytest.mark.parametrize("after", [0, 1, 3, 6])
def test_window_sum(backend, before, after):
    a = whole_numbers(15, 2, 5, 3)
    found = backend.window_sum(backend.asarray(a.astype("float32")), before, after)
    same(backend, found, loop_window_sum(a, before, after), "float32", "window_sum")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("size", "beta"), [(1, 0.75), (2, 0.75), (3, 0.5), (4, 0.75), (5, 0.75), (11, 0.75)])
def test_spatial_response_norm(backend, size, beta, dtype, layout):
    values, values_of_gy, alpha, k = whole_numbers(24, 2, 3, 4, 5), whole_numbers(25, 2, 3, 4, 5), 1.0, 2.0
    expected, scale = loop_spatial_response_norm(values, size, alpha, beta, k)
    gradient = loop_spatial_response_norm_gradient(values_of_gy, values, scale, size, alpha, beta)
    x, gy = (laid_out(backend, a, dtype, layout) for a in (values, values_of_gy))
    y, found_scale = backend.spatial_response_norm(x, size, alpha, beta, k)
    gx = backend.spatial_response_norm_gradient(gy, x, found_scale, size, alpha, beta)
    near(backend, {"y": (y, expected), "scale": (found_scale, scale), "gradient": (gx, gradient)}, dtype)


# -- batch normalisation ------------------------------------------------------------
def loop_batch_norm(x, gy, weight, bias, eps):
    """Channel by channel: y and the gradients, which the chain rule gives as (I - 1/n - z z^T/n) gy weight / spread."""
    y, gx = np.zeros(x.shape), np.zeros(x.shape)
    gw, gb = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    for c in range(x.shape[1]):
        values, g = x[:, c].reshape(-1), gy[:, c].reshape(-1)
        n, spread = values.size, np.sqrt(values.var() + eps)
        z = (values - values.mean()) / spread
        slope = (np.eye(n) - 1 / n - np.outer(z, z) / n) / spread
        y[:, c] = (z * weight[c] + bias[c]).reshape(x[:, c].shape)
        gx[:, c] = (slope @ g * weight[c]).reshape(x[:, c].shape)
        gw[c], gb[c] = (g * z).sum(), g.sum()
    return y, gx, gw, gb


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 2, 4, 5), (7, 3), (2, 3, 5)])
def test_batch_norm(backend, shape, dtype, layout):
    values, values_of_gy, eps = whole_numbers(26, *shape), whole_numbers(27, *shape), 0.5
    weights, biases = np.array([2.0, -1.5, 0.5])[: shape[1]], np.array([1.0, 0.0, -3.0])[: shape[1]]
    expected = loop_batch_norm(values, values_of_gy, weights, biases, eps)
    x, gy = (laid_out(backend, a, dtype, layout) for a in (values, values_of_gy))
    weight, bias = (laid_out(backend, a, dtype, layout) for a in (weights, biases))
    mean, var, spread = backend.batch_norm_statistics(x, eps)
    axes = (0, *range(2, len(shape)))
    near(backend, {"mean": (mean, values.mean(axis=axes))}, "float64")
    assert var.dtype == "float64"  # of squares that x's dtype can hold
    rounded = var.astype(dtype)
    expected_spread = np.sqrt(values.var(axis=axes) + eps)
    near(backend, {"var": (rounded, values.var(axis=axes)), "spread": (spread, expected_spread)}, dtype)
    found = (
        backend.batch_norm(x, mean, spread, weight, bias),
        *backend.batch_norm_gradients(gy, x, mean, spread, weight, True),
    )
    near(backend, dict(zip(("y", "gx", "weight", "bias"), zip(found, expected, strict=True), strict=True)), dtype)
    plain = backend.batch_norm(x, mean, spread, None, None)
    fixed = backend.batch_norm_gradients(gy, x, mean, spread, None, False)[0]
    by_channel = (1, -1) + (1,) * (len(shape) - 2)
    weights, biases = weights.reshape(by_channel), biases.reshape(by_channel)
    spreads = np.sqrt(values.var(axis=axes, keepdims=True) + eps)
    near(backend, {"plain": (plain, (expected[0] - biases) / weights), "fixed": (fixed, values_of_gy / spreads)}, dtype)


# -- loss and optimizer ---------------------------------------------------------------
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_cross_entropy(backend, dtype, layout):
    values, labels, slope = whole_numbers(28, 6, 5), np.array([0, 4, -7, 2, 2, -7]), 0.25
    losses, gradients = np.zeros(6), np.zeros((6, 5))
    for n, label in enumerate(labels):
        if label != -7:
            p = np.exp(values[n]) / np.exp(values[n]).sum()
            losses[n] = -np.log(p[label])
            gradients[n] = slope * (p - (np.arange(5) == label))
    x = laid_out(backend, values, dtype, layout)
    loss, gradient = backend.softmax_cross_entropy(x, laid_out(backend, labels, "int64", layout), -7, slope)
    near(backend, {"loss": (loss, losses), "gradient": (gradient, gradients)}, dtype)


def test_softmax_cross_entropy_of_scores_that_would_overflow(backend):
    x = backend.asarray(np.array([[1e4, -1e4], [-1e30, -1e30], [0.0, -np.inf]]))
    loss, gradient = backend.softmax_cross_entropy(x, backend.asarray(np.array([1, 0, 0])), -1, 1.0)
    near(backend, {"loss": (loss, [2e4, np.log(2), 0])}, "float64")
    same(backend, gradient, [[1, -1], [-0.5, 0.5], [0, 0]], "float64", "gradient")


@pytest.mark.parametrize("layout", LAYOUTS[:4])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sgd(backend, dtype, layout):
    """In quarters and halves, which are exact. The old weight stays as it was."""
    w, g, v = (laid_out(backend, whole_numbers(seed, 3, 4), dtype, layout) for seed in (29, 30, 31))
    W, G, V = (whole_numbers(seed, 3, 4) for seed in (29, 30, 31))
    rate, m, decay, dampening = 0.5, 0.25, 2.0, 0.75

    def check(found, weight, velocity, name):
        same(backend, found[0], weight, dtype, name)
        if velocity is None:
            assert found[1] is None
        else:
            same(backend, found[1], velocity, dtype, f"{name}: velocity")
        same(backend, w, W, dtype, f"{name}: the old weight")

    moved = m * V - decay * rate * W - rate * G
    check(backend.sgd_paper(w, g, v.copy(), rate, m, decay), W + moved, moved, "paper")
    check(backend.sgd_paper(w, g, None, rate, m, 0.0), W - rate * G, -rate * G, "paper, at first")
    slope = G + decay * W
    new = m * V + (1 - dampening) * slope
    check(backend.sgd_torch(w, g, v.copy(), rate, m, decay, dampening, False), W - rate * new, new, "torch")
    new = m * V + slope
    ahead = slope + m * new
    check(backend.sgd_torch(w, g, v.copy(), rate, m, decay, 0.0, True), W - rate * ahead, new, "nesterov")
    check(backend.sgd_torch(w, g, None, rate, m, decay, dampening, False), W - rate * slope, slope, "torch, at first")
    check(backend.sgd_torch(w, g, None, rate, 0.0, decay, 0.0, False), W - rate * slope, None, "no momentum")


# -- element by element ---------------------------------------------------------------
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu(backend, dtype, layout):
    values = np.array([[-np.inf, -2, -0.0, 0, 1e-30, 3, np.inf, np.nan], [1, -1, 2, -2, 3, -3, 4, -4]])
    y = backend.relu(laid_out(backend, values, dtype, layout))
    same(backend, y, np.where(values <= 0, 0, values).astype(dtype), dtype, "relu")
    gy = whole_numbers(16, *values.shape)
    found = backend.relu_gradient(laid_out(backend, gy, dtype, layout), y)
    same(backend, found, np.where(values <= 0, 0, gy), dtype, "relu_gradient")


@pytest.mark.parametrize("shape", [(), (1,), (3, 1, 2), (65, 129)])
def test_relu_of_any_shape(backend, shared, shape):
    x, gy = whole_numbers(17, *shape), whole_numbers(18, *shape)
    same(backend, backend.relu(backend.asarray(x)), np.maximum(x, 0), "float64", "relu")
    found = backend.relu_gradient(backend.asarray(gy), backend.asarray(np.maximum(x, 0)))
    same(backend, found, gy * (x > 0), "float64", "relu_gradient")


@pytest.mark.parametrize(("shape", "p"), [((1,), 0.5), ((5, 7), 0.3), ((), 0.5), ((2, 3, 11), 0.9), ((16,), 1.0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dropout_mask(backend, shared, shape, p, dtype):
    key, counter = (2**64 - 3, 2**63 + 5), (7, 2)
    found = backend.dropout_mask(shape, p, key, counter, dtype)
    expected = []
    words = np.random.Philox(key=np.array(key, "uint64"), counter=np.array([0, *counter, 0], "uint64")).random_raw(99)
    for i in range(int(np.prod(shape))):
        bits = int(words[i // 4]) >> 16 * (i % 4) & 0xFFFF
        expected.append(65536 / (65536 - round(p * 65536)) if bits >= round(p * 65536) else 0)
    mask = np.array(expected, dtype).reshape(shape)
    same(backend, found, mask, dtype, "dropout_mask")
    x = np.where(whole_numbers(32, *shape) > 3, np.inf, whole_numbers(33, *shape)).astype(dtype)
    with np.errstate(invalid="ignore"):  # an infinity that is dropped
        for form, factors in (("torch", mask), ("paper", (mask > 0).astype(dtype))):
            found = backend.dropout(backend.asarray(x), p, key, counter, form)
            same(backend, found, x * factors, dtype, f"dropout: {form}")


@pytest.mark.parametrize(
    ("shape", "index"),
    [
        ((4,), np.array([1, 3, 1, 1])),
        ((4, 2), np.array([0, -1, 3])),
        ((4, 3), (np.array([1, 1, 2]), np.array([0, 0, 2]))),
        ((4, 3), (slice(None), np.array([2, 2, 2, 1]))),
        ((4,), np.zeros(0, "int64")),
    ],
)
def test_index_add(backend, shape, index):
    place = np.arange(np.prod(shape)).reshape(shape)[index]  # which element each value goes to
    values = whole_numbers(19, *place.shape)
    expected = np.ones(shape)
    for i, value in zip(place.reshape(-1), values.reshape(-1), strict=True):
        expected.reshape(-1)[i] += value
    found = backend.index_add(backend.ones(shape, "float32"), index, backend.asarray(values.astype("float32")))
    same(backend, found, expected, "float32", "index_add")


def test_arrays_large_enough_to_be_worth_sharing(backend):
    """As they stand, without lowering the bar."""
    n = thread_pool.WORTH_SHARING // 5 + 3
    x = np.random.default_rng(20).standard_normal(n).astype("float32")
    same(backend, backend.relu(backend.asarray(x)), np.maximum(x, 0), "float32", "relu")
    words = philox.words((1, 2), (3, 4), -(-n // 4)).view("uint16")[:n]
    found = backend.dropout_mask((n,), 0.5, (1, 2), (3, 4), "float32")
    same(backend, found, np.where(words >= 32768, 2, 0), "float32", "dropout_mask")
    images = x[: 9 * 16 * 50 * 50].reshape(9, 16, 50, 50)
    y, _ = backend.max_pool2d(backend.asarray(images), Window((2, 2), (2, 2)))
    blocks = images.reshape(9, 16, 25, 2, 25, 2)
    same(backend, y, blocks.max(axis=(3, 5)), "float32", "max_pool2d")
    if hasattr(backend, "pool") and backend.pool.threads > 1:
        assert len(backend.pool.slices(n, 10 * n)) > 1


# -- threads ----------------------------------------------------------------------------
def everything(backend):
    """The results of all kernels on data whose sums depend on the order of addition."""
    rng = np.random.default_rng(21)
    window = Window((3, 3), (2, 2), (1, 1))
    x, w = rng.standard_normal((9, C, H, W)).astype("float32"), rng.standard_normal((F, 2, 3, 3)).astype("float32")
    x, w = backend.asarray(x), backend.asarray(w)
    y = backend.conv2d(x, w, window, 2)
    pooled, winner = backend.max_pool2d(x, window)
    normed, scale = backend.local_response_norm(x, 5, 1.0, 0.75, 1.0)
    rows = x.reshape(len(x), -1)
    results = {
        "conv2d": y,
        "conv2d_input_gradient": backend.conv2d_input_gradient(y, w, x.shape, window, 2),
        "conv2d_weight_gradient": backend.conv2d_weight_gradient(y, x, w.shape, window, 2),
        "max_pool2d": pooled,
        "max_pool2d_gradient": backend.max_pool2d_gradient(pooled, winner, x.shape, window),
        "sum_pool2d_gradient": backend.sum_pool2d_gradient(pooled, x.shape, window),
        "local_response_norm": normed,
        "local_response_norm_gradient": backend.local_response_norm_gradient(x, x, scale, 5, 1.0, 0.75),
        "relu": backend.relu(x),
        "relu_gradient": backend.relu_gradient(x, normed),
        "dropout_mask": backend.dropout_mask(x.shape, 0.3, (1, 2), (3, 4), "float32"),
        "dropout": backend.dropout(x, 0.3, (1, 2), (3, 4), "torch"),
        "spatial_response_norm": backend.spatial_response_norm(x, 3, 1.0, 0.75, 1.0)[0],
        "batch_norm_statistics": backend.stack(backend.batch_norm_statistics(x, 1e-5)[:2]),
        "softmax_cross_entropy": backend.softmax_cross_entropy(rows, backend.zeros((len(rows),), "int64"), 1, 1.0)[1],
    }
    return {name: backend.to_numpy(a).tobytes() for name, a in results.items()}


def test_results_repeat_bit_for_bit(backend, shared):
    first = everything(backend)
    for _ in range(19):
        again = everything(backend)
        assert [name for name in first if first[name] != again[name]] == []


def test_kernels_may_be_called_from_several_threads_at_once(backend, shared):
    expected, found = everything(backend), {}

    def run(i):
        found[i] = [everything(backend) == expected for _ in range(5)]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == {i: [True] * 5 for i in range(4)}


def test_sharing_covers_everything_once(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 100)
    pool = ThreadPool(4)
    for count in (0, 1, 3, 4, 5, 17):
        for cost in (99, 100):
            slices, lock = [], threading.Lock()

            def work(start, stop, slices=slices, lock=lock):
                with lock:
                    slices.append((start, stop))

            pool.share(work, count, cost)
            assert [i for start, stop in sorted(slices) for i in range(start, stop)] == list(range(count))
            assert len(slices) == (min(4, max(1, count)) if cost >= 100 else 1)
            assert sorted(slices) == pool.slices(count, cost)


def test_sharing_uses_several_threads(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, together, names = ThreadPool(3), threading.Barrier(3, timeout=10), set()

    def work(start, stop):
        together.wait()  # passes only when three threads are in here at once
        names.add(threading.current_thread().name)

    pool.share(work, 3, 1)
    assert len(names) == 3


@pytest.mark.parametrize("unlucky", [0, 1, 2])
def test_an_error_in_a_slice_comes_out_after_the_others_have_finished(monkeypatch, unlucky):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    done = []

    def work(start, stop):
        if start == unlucky:
            raise ValueError(f"slice {start}")
        threading.Event().wait(0.05)
        done.append(start)

    with pytest.raises(ValueError, match=f"slice {unlucky}"):
        ThreadPool(3).share(work, 3, 1)
    assert sorted(done) == [i for i in range(3) if i != unlucky]


def blas_threads():
    """Those of NumPy's BLAS; SciPy, which Numba loads where it finds it, brings another."""
    found = [library for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]
    of_numpy = [library for library in found if "numpy" in library["filepath"]]
    return [library["num_threads"] for library in of_numpy or found]


@pytest.fixture
def two_blas_threads():
    """What BLAS is set to before the code under test runs, and must be again afterwards."""
    with threadpoolctl.threadpool_limits(2, "blas"):
        if 2 not in blas_threads():
            pytest.skip("this BLAS cannot be given two threads")
        yield


def convolve(backend):
    window = Window((3, 3))
    x, w = backend.asarray(whole_numbers(22, 8, C, H, W)), backend.asarray(whole_numbers(23, F, C, 3, 3))
    y = backend.conv2d(x, w, window, 1)
    backend.conv2d_input_gradient(y, w, x.shape, window, 1)
    backend.conv2d_weight_gradient(y, x, w.shape, window, 1)


@pytest.mark.parametrize("method", ["im2col", "winograd"])
def test_convolution_holds_blas_at_one_thread_and_lets_go_again(backend, shared, two_blas_threads, monkeypatch, method):
    if not hasattr(backend, "pool"):
        pytest.skip(f"the {backend.name} backend leaves BLAS alone")
    seen = []

    def spy(work, count, cost, share=backend.pool.share):
        share(lambda start, stop: (seen.append(blas_threads()), work(start, stop)), count, cost)

    before = blas_threads()
    monkeypatch.setattr(backend.pool, "share", spy)
    backend.set_convolution(method)
    try:
        convolve(backend)
        caller = threading.Thread(target=convolve, args=(backend,))  # another one than the first to set a limit
        caller.start()
        caller.join()
    finally:
        backend.set_convolution("auto")
    assert len(seen) >= 6
    assert all(set(threads) == {1} for threads in seen), seen
    assert blas_threads() == before


def test_blas_recovers_from_callers_in_several_threads(backend, shared, two_blas_threads):
    before = blas_threads()
    threads = [threading.Thread(target=lambda: [convolve(backend) for _ in range(10)]) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert blas_threads() == before


def test_blas_recovers_when_the_last_caller_leaves(two_blas_threads):
    pool, before = ThreadPool(2), blas_threads()
    first, second = pool.one_blas_thread(), pool.one_blas_thread()
    for _ in range(2):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # the first to come need not be the last to go
        assert set(blas_threads()) == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before
        first, second = pool.one_blas_thread(), pool.one_blas_thread()
    with pytest.raises(ValueError, match="inside"), pool.one_blas_thread():
        raise ValueError("inside")
    assert blas_threads() == before


def test_first_and_last():
    """numba: the outputs p with 0 <= p*stride + offset < size, worked out without a loop."""
    kernels = pytest.importorskip("minitorch_alex.backends.numba_kernels", reason="numba is not installed")
    for size in range(1, 6):
        for stride in range(1, 5):
            for offset in range(-9, 8):
                for count in range(5):
                    first, last = kernels.first_and_last(count, size, stride, offset)
                    inside = [p for p in range(count) if 0 <= p * stride + offset < size]
                    assert list(range(first, last)) == inside, (count, size, stride, offset)
                    assert 0 <= first <= last <= count
