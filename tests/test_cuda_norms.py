"""CUDA on a CPU: response normalisation, softmax with cross entropy, and dropout, against the reference backend.

Every kernel runs with its threads in several orders, which must agree bit for bit. Around every array lies a fence: a
kernel that reads beyond an edge meets NaN (or a label that is no class), and one that writes there is found out. In two
of the orders there is a page at one end that must not be touched at all.
"""

import functools

import numpy as np
import pytest

from minitorch_alex import functional as F
from minitorch_alex import philox, tensor
from minitorch_alex.backends.numpy_backend import BACKEND
from minitorch_alex.cuda_on_cpu import load, why_not
from minitorch_alex.cuda_on_cpu.source import read
from minitorch_alex.models.parts import SpatialResponseNorm

TYPES = {"float32": "float", "float64": "double"}
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
RUNS = (  # threads forwards, backwards and in a random order
    {"order": 0, "guard": "off"},
    {"order": 1, "guard": "end"},
    {"order": 5, "guard": "start"},
)
FENCE, UNTOUCHED = 4096, 7_777_777  # how many elements, and what they hold round an output
IGNORE = -100
rng = np.random.default_rng(0)
dtypes = pytest.mark.parametrize("dtype", TYPES)
pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


# -- running a kernel ------------------------------------------------------------
def both(*names):
    return [f"{name}<{T}>" for name in names for T in TYPES.values()]


WALKS = (1, 2, 5, 8)  # the sizes of windows that the walks are compiled for
LRN = ("local_response_norm", "local_response_norm_gradient")
KERNELS = {
    "lrn.cu": both(*LRN) + [f"{name}_walk<{T}, {size}>" for T in TYPES.values() for size in WALKS for name in LRN],
    "spatial_norm.cu": both("spatial_norm", "spatial_norm_gradient"),
    "softmax_cross_entropy.cu": both("softmax_cross_entropy"),
    "dropout.cu": [*both("dropout", "dropout_by_warp"), "philox_blocks"],
}


@functools.cache
def module(file, planted=(), race=False):
    """A compiled file of kernels; `planted`: pairs (what stands there, what to put in its place)."""
    source, names = read(file).text, KERNELS[file]  # with what it includes
    for there, instead in planted:
        if there not in source:
            raise ValueError(f"{file} no longer contains {there!r}")
        source = source.replace(there, instead)
    if planted or race:
        names = [name for name in names if "float" not in name]  # the checks of checks need one type only
    return load(source, names, race=race)


def fenced(values, outside):
    """A copy of an array in the middle of a larger one, which is filled with what no kernel should meet."""
    whole = np.full(values.size + 2 * FENCE, outside, values.dtype)
    inside = whole[FENCE : FENCE + values.size].reshape(values.shape)
    inside[...] = values
    return whole, inside


def unwritten(dtype):
    return np.nan if np.dtype(dtype).kind == "f" else UNTOUCHED


def run(file, name, threads, inputs, outputs, *scalars, planted=(), race=False, runs=RUNS):
    """Launch a kernel with inputs, new outputs of the given (shape, dtype) and scalars; -> the outputs."""
    function = module(file, planted, race).get_function(name)
    results = []
    for conditions in runs:
        given = [fenced(a, unwritten(a.dtype)) for a in inputs]
        made = [fenced(np.full(shape, unwritten(dtype), dtype), UNTOUCHED) for shape, dtype in outputs]
        arrays = [inside for _, inside in given + made]
        function(((threads + 255) // 256,), (256,), (*arrays, *scalars), **conditions)
        for whole, inside in made:
            assert whole.tobytes() == fenced(inside, UNTOUCHED)[0].tobytes(), "a write outside the array"
        results.append([inside for _, inside in made])
    for others in results[1:]:
        for a, b in zip(results[0], others, strict=True):
            assert a.tobytes() == b.tobytes(), "the order of the threads shows"
    return results[0]


def c(dtype, *numbers):
    return [np.dtype(dtype).type(n) for n in numbers]


def integers(*numbers):
    return [np.int32(n) for n in numbers]


def normal(shape, dtype="float64"):
    return rng.standard_normal(shape).astype(dtype)


def close(found, expected, dtype, size=None):
    """Equal to within rounding, relative to the largest, or to `size`."""
    assert found.dtype == dtype
    expected = np.asarray(expected, "float64")
    assert np.isfinite(expected).all()
    size = max(np.abs(expected).max(), 1e-30) if size is None else size
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE[dtype] * size)


def slopes(f, x, step=1e-5):
    """df/dx by central differences."""
    slope = np.empty_like(x)
    for i in np.ndindex(x.shape):
        there = x[i]
        x[i] = there + step
        above = f(x)
        x[i] = there - step
        slope[i] = (above - f(x)) / (2 * step)
        x[i] = there
    return slope


# -- across channels: x (N, C, M) ---------------------------------------------------
def lrn(x, size, alpha, beta, k, **options):
    (C, M), like = x.shape[1:], (x.shape, x.dtype)
    numbers = (*integers(C, M), np.int64(x.size), np.int32(size), *c(x.dtype, alpha, beta, k))
    name = f"local_response_norm<{TYPES[x.dtype.name]}>"
    return run("lrn.cu", name, x.size, [x], [like, like], *numbers, **options)


def lrn_gradient(gy, x, scale, size, alpha, beta, **options):
    C, M = x.shape[1:]
    numbers = (*integers(C, M), np.int64(x.size), np.int32(size), *c(x.dtype, alpha, beta))
    name = f"local_response_norm_gradient<{TYPES[x.dtype.name]}>"
    return run("lrn.cu", name, x.size, [gy, x, scale], [(x.shape, x.dtype)], *numbers, **options)[0]


def walks(x):
    N, C, M = x.shape
    return N * ((C + 31) // 32) * M


def lrn_walk(x, size, alpha, beta, k, **options):
    (C, M), like = x.shape[1:], (x.shape, x.dtype)
    numbers = (*integers(C, M), np.int64(walks(x)), *c(x.dtype, alpha, beta, k))
    name = f"local_response_norm_walk<{TYPES[x.dtype.name]}, {size}>"
    return run("lrn.cu", name, walks(x), [x], [like, like], *numbers, **options)


def lrn_gradient_walk(gy, x, scale, size, alpha, beta, **options):
    C, M = x.shape[1:]
    numbers = (*integers(C, M), np.int64(walks(x)), *c(x.dtype, alpha, beta))
    name = f"local_response_norm_gradient_walk<{TYPES[x.dtype.name]}, {size}>"
    return run("lrn.cu", name, walks(x), [gy, x, scale], [(x.shape, x.dtype)], *numbers, **options)[0]


def check_lrn(shape, size, alpha, beta, k, dtype, forward=lrn, backward=lrn_gradient, **options):
    """At alpha = 1 the window matters: at the usual 1e-4 any window would pass."""
    x, gy = normal(shape, dtype), normal(shape, dtype)
    expected, expected_scale = BACKEND.local_response_norm(x.astype("float64"), size, alpha, beta, k)
    y, scale = forward(x, size, alpha, beta, k, **options)
    close(scale, expected_scale, dtype)
    close(y, expected, dtype)
    gx = backward(gy, x, scale, size, alpha, beta, **options)
    exact = (a.astype("float64") for a in (gy, x))
    close(gx, BACKEND.local_response_norm_gradient(*exact, expected_scale, size, alpha, beta), dtype)


@dtypes
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 100, 2**31 - 1])
def test_lrn(size, dtype):
    check_lrn((3, 7, 15), size, 1, 0.75, 1, dtype)


@dtypes
@pytest.mark.parametrize(("alpha", "beta", "k"), [(1e-4, 0.75, 2), (2.5, 0.5, 1), (0.3, 1, 0.5), (1, 0, 1)])
def test_lrn_with_other_constants(alpha, beta, k, dtype):
    check_lrn((2, 6, 25), 4, alpha, beta, k, dtype)


@dtypes
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 300), (1, 300, 1), (5, 9, 13)])
def test_lrn_of_odd_shapes(shape, dtype):
    check_lrn(shape, 5, 1, 0.75, 1, dtype)


@dtypes
@pytest.mark.parametrize("size", WALKS)
def test_the_walk_equals_the_plain_version(size, dtype):
    for shape in [(1, 1, 1), (2, 3, 150), (3, 32, 3), (1, 33, 5), (2, 70, 7)]:
        x, gy = normal(shape, dtype), normal(shape, dtype)
        for beta in (0.75, 0.6):
            (y, scale), (y_walk, scale_walk) = lrn(x, size, 1, beta, 1), lrn_walk(x, size, 1, beta, 1)
            assert scale.tobytes() == scale_walk.tobytes()
            assert y.tobytes() == y_walk.tobytes()
            gx, gx_walk = (f(gy, x, scale, size, 1, beta) for f in (lrn_gradient, lrn_gradient_walk))
            assert gx.tobytes() == gx_walk.tobytes()


GOLDEN = [  # channels factor * (1 ... 6), size 5, beta 3/4; the implementations agree on these to the digits given
    (1, 5e-4, 2, [0.5942915817, 1.1878710105, 1.7801403936, 2.370418559, 2.9634657383, 3.5573544195]),
    (1, 1e-4, 2, [0.5945411318, 1.1889396136, 1.7830752045, 2.3768100636, 2.9711016329, 3.5655624308]),
    (1, 1e-4, 1, [0.9997900514, 1.9991004722, 2.9975273798, 3.994608491, 4.993559692, 5.993079325]),
    (100, 5e-4, 2, [12.5, 14.8650889375, 14.461558974, 13.465395716, 17.4023540546, 22.642841782]),
    (100, 1e-4, 2, [30.8367835205, 42.0448207627, 43.8191289719, 42.2948505376, 54.5122468433, 70.427020296]),
    (100, 1e-4, 1, [36.7419585202, 46.4736160485, 46.5302429551, 43.9536343143, 56.743544856, 73.6238229019]),
]


@pytest.mark.parametrize(("factor", "alpha", "k", "expected"), GOLDEN)
def test_golden_lrn(factor, alpha, k, expected):
    x = factor * np.arange(1.0, 7).reshape(1, 6, 1)
    for forward in (lrn, lrn_walk):
        np.testing.assert_allclose(forward(x, 5, alpha, 0.75, k)[0].ravel(), expected, rtol=2e-10)


def test_golden_lrn_gradient():
    x = 100 * np.arange(1.0, 7).reshape(1, 6, 1)
    scale = lrn(x, 5, 5e-4, 0.75, 2)[1]
    expected = [0.1025075661, 0.0249496871, -0.0347573709, -0.0472753624, -0.0315288043, -0.0190281047]
    for backward in (lrn_gradient, lrn_gradient_walk):
        gx = backward(np.ones_like(x), x, scale, 5, 5e-4, 0.75)
        np.testing.assert_allclose(gx.ravel(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", WALKS)
def test_the_lrn_gradient_is_the_slope(size):
    x, gy = normal((2, 6, 2)), normal((2, 6, 2))
    scale = lrn(x, size, 1, 0.75, 1)[1]
    expected = slopes(lambda x: (gy * lrn(x, size, 1, 0.75, 1, runs=RUNS[:1])[0]).sum(), x.copy())
    for backward in (lrn_gradient, lrn_gradient_walk):
        np.testing.assert_allclose(backward(gy, x, scale, size, 1, 0.75), expected, atol=1e-9)


# -- across pixels: x (N, C, H, W) ----------------------------------------------------
def spatial(x, size, alpha, beta, k, **options):
    (H, W), like = x.shape[2:], (x.shape, x.dtype)
    numbers = (*integers(H, W), np.int64(x.size), np.int32(size), *c(x.dtype, alpha, beta, k))
    name = f"spatial_norm<{TYPES[x.dtype.name]}>"
    return run("spatial_norm.cu", name, x.size, [x], [like, like], *numbers, **options)


def spatial_gradient(gy, x, scale, size, alpha, beta, **options):
    H, W = x.shape[2:]
    numbers = (*integers(H, W), np.int64(x.size), np.int32(size), *c(x.dtype, alpha, beta))
    name = f"spatial_norm_gradient<{TYPES[x.dtype.name]}>"
    return run("spatial_norm.cu", name, x.size, [gy, x, scale], [(x.shape, x.dtype)], *numbers, **options)[0]


def check_spatial(shape, size, alpha, beta, k, dtype, **options):
    """Against the layer, whose windows have odd sizes."""
    x, gy = normal(shape, dtype), normal(shape, dtype)
    leaf = tensor(x.astype("float64"), requires_grad=True)
    expected = SpatialResponseNorm(size, alpha, beta, k)(leaf)
    (expected * tensor(gy.astype("float64"))).sum().backward()
    y, scale = spatial(x, size, alpha, beta, k, **options)
    close(y, expected.numpy(), dtype)
    close(spatial_gradient(gy, x, scale, size, alpha, beta, **options), leaf.grad.numpy(), dtype)


@dtypes
@pytest.mark.parametrize("size", [1, 3, 5, 9])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 7, 6), (1, 2, 4, 11), (1, 1, 17, 2)])
def test_spatial_norm(shape, size, dtype):
    check_spatial(shape, size, 1, 0.75, 1, dtype)


@dtypes
@pytest.mark.parametrize(("alpha", "beta", "k"), [(1e-3, 0.75, 1), (2.5, 0.5, 2)])
def test_spatial_norm_with_other_constants(alpha, beta, k, dtype):
    check_spatial((2, 2, 6, 5), 5, alpha, beta, k, dtype)


@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_spatial_gradient_is_the_slope(size):
    """And even sizes have the windows of cuda-convnet, one further up and left than down and right."""
    x, gy = normal((1, 2, 4, 3)), normal((1, 2, 4, 3))
    y, scale = spatial(x, size, 1, 0.75, 1)
    before, after = size // 2, (size - 1) // 2
    for n, channel, h, w in np.ndindex(x.shape):
        window = x[n, channel, max(0, h - before) : h + after + 1, max(0, w - before) : w + after + 1]
        assert scale[n, channel, h, w] == pytest.approx(1 + (window**2).sum() / size**2)
    np.testing.assert_allclose(y, x * scale**-0.75)
    expected = slopes(lambda x: (gy * spatial(x, size, 1, 0.75, 1, runs=RUNS[:1])[0]).sum(), x.copy())
    np.testing.assert_allclose(spatial_gradient(gy, x, scale, size, 1, 0.75), expected, atol=1e-9)


# -- softmax and cross entropy: x (N, K) ------------------------------------------------
def softmax(x, label, slope=1.0, **options):
    N, K = x.shape
    outputs = [((N,), x.dtype), (x.shape, x.dtype)]
    numbers = (*integers(N, K), np.int64(IGNORE), *c(x.dtype, slope))
    name = f"softmax_cross_entropy<{TYPES[x.dtype.name]}>"
    return run("softmax_cross_entropy.cu", name, 32 * N, [x, label], outputs, *numbers, **options)


def check_softmax(x, label, reduction="sum", **options):
    counted = int((label != IGNORE).sum())
    leaf = tensor(x.astype("float64"), requires_grad=True)
    F.cross_entropy(leaf, label, ignore_index=IGNORE, reduction=reduction).backward()
    rows = F.cross_entropy(tensor(x.astype("float64")), label, ignore_index=IGNORE, reduction="none")
    slope = 1 / counted if reduction == "mean" else 1
    loss, gx = softmax(x, label, slope, **options)
    close(loss, rows.numpy(), x.dtype.name)
    close(gx, leaf.grad.numpy(), x.dtype.name, size=slope)  # of probabilities, from which 1 may be taken away
    assert not loss[label == IGNORE].any()
    assert not gx[label == IGNORE].any()


@dtypes
@pytest.mark.parametrize("K", [1, 2, 3, 31, 32, 33, 64, 1000])
def test_softmax_cross_entropy(K, dtype):
    for N, reduction in ((1, "sum"), (9, "mean")):
        check_softmax(3 * normal((N, K), dtype), rng.integers(0, K, N), reduction)


@dtypes
def test_ignored_rows(dtype):
    label = np.array([2, IGNORE, 0, 4, IGNORE, 1, 3])
    check_softmax(normal((7, 5), dtype), label, "mean")
    check_softmax(normal((3, 40), dtype), np.array([39, 0, IGNORE]), "sum")
    nonsense = np.full((2, 5), np.nan, dtype)
    loss, gx = softmax(nonsense, np.array([IGNORE, IGNORE]))
    assert not loss.any()
    assert np.isnan(gx).all()  # 0 times NaN, as in PyTorch
    no_classes, _ = softmax(nonsense[:, :0], np.array([IGNORE, IGNORE]))
    assert not no_classes.any()


@dtypes
def test_large_scores_stay_finite(dtype):
    x = np.array([[1e4, -1e4, 0], [1e30, 1e30, 1e30], [-3e4, -3e4 + 1, -3e4], [-np.inf, 0, 1]], dtype)
    loss, gx = softmax(x, np.array([1, 0, 2, 1]))
    p = np.exp([0, 1, 0]) / np.exp([0, 1, 0]).sum()
    np.testing.assert_allclose(loss, [2e4, np.log(3), -np.log(p[2]), np.log(1 + np.e)], rtol=1e-6)
    np.testing.assert_allclose(gx[0], [1, -1, 0])
    np.testing.assert_allclose(gx[1], np.array([-2, 1, 1]) / 3, rtol=1e-6)
    np.testing.assert_allclose(gx[2], p - [0, 0, 1], rtol=1e-6)
    assert gx[3, 0] == 0


@dtypes
def test_what_is_not_a_number_shows(dtype):
    """NaN among the scores, wherever it stands, and labels that are no class."""
    for j in (0, 3, 39):
        x = normal((1, 40), dtype)
        x[0, j] = np.nan
        loss, gx = softmax(x, np.array([7]))
        assert np.isnan(loss).all()
        assert np.isnan(gx).all()
    for label in (-1, 40, 2**40, -(2**63)):
        loss, gx = softmax(normal((1, 40), dtype), np.array([label]))
        assert np.isnan(loss).all()
        assert np.isnan(gx).all()


def test_the_softmax_gradient_is_the_slope():
    for K in (3, 35):
        x, label = normal((2, K)), np.array([K - 1, 1])
        expected = slopes(lambda x, label=label: softmax(x, label, runs=RUNS[:1])[0].sum(), x.copy())
        np.testing.assert_allclose(softmax(x, label)[1], expected, atol=1e-9)


# -- dropout ----------------------------------------------------------------------
TOP = 2**64 - 1
STREAMS = [((0, 0), (0, 0)), ((1, 2), (3, 4)), ((TOP, 2**63), (2**63 + 7, TOP)), ((2**63 + 1, 5), (0, 2**40))]
COUNTS = [1, 15, 16, 17, 511, 513, 4096, 8209]


def place(key, counter):
    return [np.uint64(n) for n in (*key, *counter)]


def dropout(name, inputs, count, dtype, p, key, counter, scale=None, **options):
    blocks = (count + 15) // 16
    numbers = (np.int64(count), *place(key, counter), np.int32(philox.drop_threshold(p)))
    scale = philox.keep_scale(p) if scale is None else scale
    name = f"{name}<{TYPES[dtype]}>"
    return run("dropout.cu", name, blocks, inputs, [((count,), dtype)], *numbers, *c(dtype, scale), **options)[0]


def check_dropout(count, dtype, p, key, counter, **options):
    """The reference's bits, those of ones being the mask's; signs of zeros, and infinities, included."""
    x = normal(count, dtype)
    x[::37] = 0
    x[5::41] = np.inf
    for values in (np.ones_like(x), x):
        with np.errstate(invalid="ignore"):
            expected = BACKEND.dropout(values, p, key, counter, "torch")
        for name in ("dropout", "dropout_by_warp"):
            y = dropout(name, [values], count, dtype, p, key, counter, **options)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(np.signbit(y[y == 0]), np.signbit(expected[expected == 0]))


@dtypes
@pytest.mark.parametrize(("key", "counter"), STREAMS)
def test_dropout(key, counter, dtype):
    for count in COUNTS:
        check_dropout(count, dtype, 0.5, key, counter)


@dtypes
@pytest.mark.parametrize("p", [1e-5, 0.1, 0.25, 0.3, 0.9, 0.99999, 1.0])
def test_dropout_probabilities(p, dtype):
    check_dropout(2001, dtype, p, (6, 7), (8, 9))


def test_dropout_in_the_papers_form():
    """The paper keeps elements as they are."""
    x, key, counter = normal(100), (1, 2), (3, 4)
    expected = BACKEND.dropout(x, 0.3, key, counter, "paper")
    for name in ("dropout", "dropout_by_warp"):
        np.testing.assert_array_equal(dropout(name, [x], 100, "float64", 0.3, key, counter, scale=1), expected)


KNOWN = [  # Random123, tests/kat_vectors, "philox4x64 10": counter, key, answer
    ((0,) * 4, (0,) * 2, (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((TOP,) * 4, (TOP,) * 2, (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),  # the digits of pi
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]


def philox_blocks(counters, key, **options):
    n = len(counters)
    outputs, key = [((n, 4), np.dtype("uint64"))], [np.uint64(k) for k in key]
    return run("dropout.cu", "philox_blocks", n, [counters], outputs, np.int64(n), *key, **options)[0]


def test_philox():
    for counter, key, answer in KNOWN:
        assert tuple(int(w) for w in philox_blocks(np.array([counter], "uint64"), key)[0]) == answer
    counters = rng.integers(0, 2**64, (300, 4), "uint64")
    for key, _ in STREAMS:
        np.testing.assert_array_equal(philox_blocks(counters, key), philox.blocks(key, counters))


# -- the tests themselves ---------------------------------------------------------
def walk_checks(**options):
    for size in (5, 2):
        check_lrn((2, 35, 9), size, 1, 0.75, 1, "float64", lrn_walk, lrn_gradient_walk, **options)


CHECKS = {
    "lrn": lambda **o: [check_lrn((3, 7, 15), size, 1, 0.75, 1, "float64", **o) for size in (4, 5, 20)],
    "walk": walk_checks,
    "spatial": lambda **o: [check_spatial((2, 2, 7, 6), size, 1, 0.75, 1, "float64", **o) for size in (3, 5)],
    "softmax": lambda **o: [
        check_softmax(normal((9, K)) - 900, np.array([0, K - 1, IGNORE, 1, 2, 0, 1, 2, K - 1]), "mean", **o)
        for K in (3, 70)
    ],
    "dropout": lambda **o: [check_dropout(count, "float64", 0.3, *STREAMS[2], **o) for count in (17, 1001)],
}


@pytest.mark.parametrize("check", CHECKS)
def test_no_races(check):
    """Also: without a planted bug, the checks that are to catch one pass."""
    CHECKS[check](race=True)


PLANTED = [  # check, what stands in the file, what is planted in its place
    ("lrn", "max(c - before, 0)", "max(c - before + 1, 0)"),
    ("lrn", "max(c - before, 0)", "max(c - before, 1)"),
    ("lrn", "max(c - before, 0)", "c - before"),
    ("lrn", "min(c + after, C - 1)", "min(c + after - 1, C - 1)"),
    ("lrn", "min(c + after, C - 1)", "min(c + after, C)"),
    ("lrn", "min(c + after, C - 1)", "min(c + after, C - 2)"),
    ("lrn", "int before = size / 2;\n    int after = (size - 1) / 2;",
     "int before = (size - 1) / 2, after = size / 2;"),
    ("lrn", "int before = (size - 1) / 2;  // the mirrored window\n    int after = size / 2;",
     "int before = size / 2, after = (size - 1) / 2;"),
    ("lrn", "i / M % C", "i / M % (C + 1)"),
    ("lrn", "if (i >= total) return;", "if (i > total) return;"),
    ("lrn", "if (i >= total) return;", "if (i >= total - 1) return;"),
    ("walk", "begin - before; entering", "begin - before + 1; entering"),
    ("walk", "entering < end + after", "entering < end + after - 1"),
    ("walk", "0 <= entering", "0 < entering"),
    ("walk", "0 <= entering && ", "-1 <= entering && "),
    ("walk", "entering < C", "entering <= C"),
    ("walk", "entering < C", "entering < C - 1"),
    ("walk", "if (c < begin) continue;", "if (c <= begin) continue;"),
    ("walk", "if (c < begin) continue;", "if (c < begin - 1) continue;"),
    ("walk", "min(begin + CHANNELS_PER_WALK, C)", "begin + CHANNELS_PER_WALK"),
    ("walk", "(C + CHANNELS_PER_WALK - 1) / CHANNELS_PER_WALK", "C / CHANNELS_PER_WALK"),
    ("walk", "if (i >= walks) return;", "if (i > walks) return;"),
    ("walk", "direct[0] - ", "direct[after] - "),
    ("walk", "const int after = SIZE / 2;", "const int after = (SIZE - 1) / 2;"),
    ("walk", "window[before]", "window[after]"),
    ("spatial", "max(h - before, 0)", "max(h - before, 1)"),
    ("spatial", "max(h - before, 0)", "h - before"),
    ("spatial", "max(w - before, 0)", "max(w - before + 1, 0)"),
    ("spatial", "max(w - before, 0)", "w - before"),
    ("spatial", "min(h + after, H - 1)", "min(h + after, H)"),
    ("spatial", "min(w + after, W - 1)", "min(w + after, W)"),
    ("spatial", "min(w + after, W - 1)", "min(w + after, W - 2)"),
    ("spatial", "min(h + after, H - 1)", "min(h + after, W - 1)"),
    ("spatial", "Wide<T>(size) * size", "Wide<T>(size)"),
    ("spatial", "if (i >= total) return;", "if (i > total) return;"),
    ("softmax", "T value = K > 0 ? row[0] : T(0);", "T value = 0;"),
    ("softmax", "j < K", "j <= K"),
    ("softmax", "j < K", "j < K - 1"),
    ("softmax", "sum(T value) {\n    for (int distance = WARP / 2", "sum(T value) {\n    for (int distance = WARP / 4"),
    ("softmax", "max(T value) {\n    for (int distance = WARP / 2", "max(T value) {\n    for (int distance = WARP / 4"),
    ("softmax", "value += __shfl_xor_sync", "value += __shfl_down_sync"),
    ("softmax", "distance > 0", "distance > 1"),
    ("softmax", "if (n >= N) return;", "if (n > N) return;"),
    ("softmax", "if (n >= N) return;", "if (n >= N - 1) return;"),
    ("softmax", "truth < K", "truth < K - 1"),
    ("softmax", "weight * (p", "(p"),
    ("softmax", "weight = !counts ? T(0) : is_class ?", "weight = is_class || !counts ?"),
    ("softmax", "loss[n] = !counts ? T(0) :", "loss[n] ="),
    ("softmax", "if (lane == 0) loss[n] =", "loss[n] = lane ? T(lane) :"),
    ("dropout", "(unsigned long long)block + 1", "(unsigned long long)block"),
    ("dropout", "bits >= threshold", "bits > threshold + 1000"),
    ("dropout", "16 * (e % 4)", "16 * (3 - e % 4)"),
    ("dropout", "start + e < count", "start + e <= count"),
    ("dropout", "start + place < count", "start + place <= count"),
    ("dropout", "start + place < count", "start + place < count - 1"),
    ("dropout", "place / PER_BLOCK", "place / WARP"),
    ("dropout", "(block - lane) * PER_BLOCK", "block * PER_BLOCK"),
    ("dropout", "if (start >= count) return;                    //", "if (block * PER_BLOCK >= count) return;  //"),
]  # fmt: skip


FILES = dict(
    zip(CHECKS, ["lrn.cu", "lrn.cu", "spatial_norm.cu", "softmax_cross_entropy.cu", "dropout.cu"], strict=True)
)


def some_are_slow(planted):
    """One of each check in every run, the others with -m slow."""
    seen = set()
    for row in planted:
        yield pytest.param(*row, marks=[pytest.mark.slow] if row[0] in seen else [])
        seen.add(row[0])


@pytest.mark.parametrize(("check", "there", "instead"), list(some_are_slow(PLANTED)))
def test_planted_bugs_are_caught(check, there, instead):
    planted = ((there, instead),)
    module(FILES[check], planted)  # it compiles, and then it is wrong
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[check](planted=planted)
