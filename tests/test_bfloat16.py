"""bfloat16, the upper half of a float32: in kernels, in layers, in training. On the stand-in for CuPy."""

import sys

import cupy_stand_in
import ml_dtypes
import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import backends, manual_seed, nn, run, tensor, train
from minitorch_alex.backends.number_types import BFLOAT16
from minitorch_alex.backends.numpy_backend import Backend, Window
from minitorch_alex.cuda_on_cpu import load, why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
REFERENCE = Backend()
RANDOM = np.random.default_rng(7)
DTYPE = np.dtype(ml_dtypes.bfloat16)
STEP = 2.0**-8  # the largest relative error of rounding to the nearest
CONVERSIONS = """
#include "bfloat16.cuh"
template <typename A, typename B> __device__ void copy(const A* x, B* y) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i];
}
__global__ void widen(const bfloat16* x, float* y) { copy(x, y); }
__global__ void narrow(const float* x, bfloat16* y) { copy(x, y); }
"""


def test_every_bfloat16_becomes_the_right_float():
    x = np.arange(65536, dtype="uint16").view(DTYPE)
    y = np.empty(65536, "float32")
    load(CONVERSIONS).get_function("widen")((256,), (256,), (x, y))
    np.testing.assert_array_equal(y, x.astype("float32"))


def test_floats_are_rounded_to_the_nearest_and_ties_to_even():
    """All upper halves, followed by what lies just below, at and above the middle between two of them."""
    upper = np.arange(65536, dtype="uint32") << 16
    for lower in (0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (upper | np.uint32(lower)).view("float32")
        y = np.empty(65536, DTYPE)
        load(CONVERSIONS).get_function("narrow")((256,), (256,), (x, y))
        with np.errstate(invalid="ignore"):
            expected = x.astype(DTYPE)
        numbers = ~np.isnan(x)
        np.testing.assert_array_equal(y.view("uint16")[numbers], expected.view("uint16")[numbers], err_msg=hex(lower))
        assert np.isnan(y[~numbers].astype("float32")).all()


# -- kernels ------------------------------------------------------------------------
def some(*shape):
    """Numbers that bfloat16 can hold, on the stand-in and as float32 on the host."""
    values = RANDOM.standard_normal(shape).astype(DTYPE)
    return backends.current().asarray(values), values.astype("float32")


def near(found, expected, what, times=1.5):
    """Within a rounding of what float32 gives (and a little, for rounding that moved another number on its way)."""
    found = backends.current().to_numpy(found)
    assert found.dtype == DTYPE, what
    scale = abs(expected) + 1e-3 * abs(expected).max(initial=0)
    error = (abs(found.astype("float32") - expected) / scale).max(initial=0)
    assert error <= times * STEP, f"{what}: {error / STEP:.2f} roundings"


def test_kernels_round_only_what_they_store(stand_in):
    """Sums of many numbers would be far off if they were rounded at every addition."""
    xp, window = backends.current(), Window((3, 3), (2, 2), (1, 1))
    (x, x32), (gy, gy32) = some(2, 37, 7, 6), some(2, 37, 4, 3)
    y32, winner32 = REFERENCE.max_pool2d(x32, window)
    y, winner = xp.max_pool2d(x, window)
    near(y, y32, "max_pool2d", 0)
    np.testing.assert_array_equal(winner.get(), winner32)
    near(xp.max_pool2d_gradient(gy, winner, x.shape, window),
         REFERENCE.max_pool2d_gradient(gy32, winner32, x.shape, window), "max_pool2d_gradient")  # fmt: skip
    near(xp.max_pool2d_gradient_to_ties(gy, x, y, window),
         REFERENCE.max_pool2d_gradient_to_ties(gy32, x32, y32, window), "max_pool2d_gradient_to_ties")  # fmt: skip
    near(xp.sum_pool2d(x, window), REFERENCE.sum_pool2d(x32, window), "sum_pool2d")
    near(
        xp.sum_pool2d_gradient(gy, x.shape, window),
        REFERENCE.sum_pool2d_gradient(gy32, x.shape, window),
        "sum_pool2d_gradient",
    )
    stand_in.launched.clear()
    near(xp.relu(x), np.maximum(x32, 0), "relu", 0)
    assert stand_in.launched == ["relu<bfloat16>"]
    near(xp.relu_gradient(x, x), np.maximum(x32, 0), "relu_gradient", 0)

    large = Window((7, 7), (1, 1), (3, 3))  # 49 entries for a pixel
    columns, columns32 = some(2, 3 * 49, 7 * 6)
    near(xp.col2im(columns, (2, 3, 7, 6), large), REFERENCE.col2im(columns32, (2, 3, 7, 6), large), "col2im")
    near(xp.im2col(x, window), REFERENCE.im2col(x32, window), "im2col", 0)

    key, counter = (3, 9), (4, 5)
    near(xp.dropout(x, 0.3, key, counter, "torch"), REFERENCE.dropout(x32, 0.3, key, counter, "torch"), "dropout")
    out, out32 = some(5)
    values, values32 = some(300)
    places = RANDOM.integers(0, 5, 300)
    near(xp.index_add(out, places, values), REFERENCE.index_add(out32, places, values32), "index_add")


@pytest.mark.parametrize("size", [5, 4])
def test_response_normalisation(size, stand_in):
    xp, (x, x32), (gy, gy32) = backends.current(), some(2, 37, 7, 6), some(2, 37, 7, 6)
    for name in ("local_response_norm", "spatial_response_norm"):
        y, scale = getattr(xp, name)(x, size, 1.0, 0.75, 2.0)
        y32, scale32 = getattr(REFERENCE, name)(x32, size, 1.0, 0.75, 2.0)
        near(y, y32, name)
        near(scale, scale32, f"scale of {name}")
        rounded = backends.current().to_numpy(scale).astype("float32")
        gradient = getattr(REFERENCE, f"{name}_gradient")(gy32, x32, rounded, size, 1.0, 0.75)
        near(getattr(xp, f"{name}_gradient")(gy, x, scale, size, 1.0, 0.75), gradient, f"{name}_gradient")


def test_convolution_adds_its_weights_gradient_up_in_float32(stand_in, monkeypatch):
    """Over 200 images taken one at a time: rounded at every addition the sum would lose all but two digits."""
    monkeypatch.setattr(sys.modules["minitorch_alex.backends.cuda_windows"], "COLUMN_BYTES", 1)
    xp, window = backends.current(), Window((3, 3))
    (x, x32), (gy, gy32), shape = some(200, 2, 5, 5), some(200, 3, 3, 3), (3, 2, 3, 3)
    found = xp.conv2d_weight_gradient(abs(gy), abs(x), shape, window, 1)
    expected = REFERENCE.conv2d_weight_gradient(abs(gy32), abs(x32), shape, window, 1)
    assert found.dtype == "float32"
    np.testing.assert_allclose(found.get(), expected, rtol=0.3 * STEP)


@pytest.mark.parametrize("layer", [lambda: nn.Linear(2, 3), lambda: nn.Conv2d(2, 3, 1)], ids=["Linear", "Conv2d"])
def test_a_bias_adds_its_gradient_up_in_float32(layer, stand_in):
    """Of bfloat16 256 + 1 is 256."""
    layer = layer()
    shape = (1000, 2) if isinstance(layer, nn.Linear) else (10, 2, 10, 10)
    layer(tensor(np.ones(shape, "float32")).to("bfloat16")).sum().backward()
    np.testing.assert_array_equal(layer.bias.grad.numpy(), 1000)


# -- layers and training ---------------------------------------------------------------
def test_layers_take_bfloat16_and_keep_their_weights_in_float32(stand_in):
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.ReLU(), nn.LocalResponseNorm(5), nn.MaxPool2d(2), nn.BatchNorm2d(6),
        nn.AvgPool2d(2), nn.Dropout(0.2), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    images = tensor(RANDOM.standard_normal((16, 3, 8, 8)).astype("float32"))
    labels = RANDOM.integers(0, 5, 16)

    def gradients(x):
        manual_seed(1)
        network.zero_grad()
        y = network(x)
        assert y.dtype == x.dtype
        loss = F.cross_entropy(y, labels)
        assert loss.dtype == "float32", "a loss of three digits would show no progress"
        loss.backward()
        return loss.item(), [p.grad.numpy() for p in network.parameters()]

    (loss, found), (loss32, expected) = gradients(images.to("bfloat16")), gradients(images)
    assert loss == pytest.approx(loss32, rel=0.03)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == "float32"
        assert np.linalg.norm(a - b) <= 0.1 * np.linalg.norm(b) + 1e-6


def losses(precision, tmp_path, epochs=3):
    settings = {"backend": "cupy", "precision": precision, "epochs": epochs, "seed": 1}
    prepared = run.prepare_new(settings, str(tmp_path / precision), None)
    prepared.network.train()
    told = []
    for epoch in range(epochs):
        for images, labels in prepared.loader().epoch(epoch):
            told.append(train.take_step(prepared, images, labels))
            prepared.progress.step += 1
    return told, prepared


def test_training_takes_nearly_the_same_way(stand_in, few_digits, tmp_path):
    exact, _ = losses("fp32", tmp_path)
    half, prepared = losses("bf16", tmp_path)
    np.testing.assert_allclose(half, exact, rtol=0.1, atol=0.05)
    assert half != exact
    assert {str(p.dtype) for p in prepared.network.parameters()} == {"float32"}
    backends.current().set_precision("fp32")


def test_what_the_network_sees_in_training_is_of_the_precision(stand_in, few_digits, tmp_path, monkeypatch):
    seen = []
    forward = nn.Conv2d.forward
    monkeypatch.setattr(nn.Conv2d, "forward", lambda self, x: (seen.append(str(x.dtype)), forward(self, x))[1])
    for precision, dtype in (("fp32", "float32"), ("tf32", "float32"), ("bf16", BFLOAT16)):
        seen.clear()
        losses(precision, tmp_path, epochs=1)
        assert set(seen) == {dtype}
        assert cupy_stand_in.compute_types[-1] == (7 if precision == "tf32" else 1)  # CuPy's for TF32, and for itself
    backends.current().set_precision("fp32")


@pytest.mark.parametrize(
    ("precision", "change", "complaint"),
    [
        ("tf32", {"compute_capability": "75"}, "compute capability 8.0 or more is needed, this one has 7.5"),
        ("bf16", {"compute_capability": "75"}, "compute capability 8.0"),
        ("bf16", {"__version__": "13.6.0"}, "CuPy 14 or later is needed, this is 13.6.0"),
    ],
)
def test_a_gpu_or_cupy_that_cannot_is_named(precision, change, complaint, stand_in, monkeypatch, few_digits, tmp_path):
    for name, value in change.items():
        monkeypatch.setattr(stand_in.cuda.Device if name == "compute_capability" else stand_in, name, value)
    with pytest.raises(run.ConfigError, match=complaint):
        losses(precision, tmp_path)


def test_the_first_gpus_that_can_are_used(stand_in, monkeypatch):
    monkeypatch.setattr(stand_in.cuda.Device, "compute_capability", "80")
    for precision in ("tf32", "bf16", "fp32"):
        backends.current().set_precision(precision)
        assert backends.current().precision == precision


def test_without_ml_dtypes_it_is_said_at_once(stand_in, monkeypatch, few_digits, tmp_path):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(run.ConfigError, match="--precision bf16: bfloat16 needs the package ml_dtypes"):
        losses("bf16", tmp_path)


def test_a_run_may_change_its_precision_when_it_goes_on(stand_in, few_digits, tmp_path):
    out = str(tmp_path / "run")
    assert train.main(["--backend", "cupy", "--precision", "bf16", "--epochs", "1", "--out", out]) == 0
    assert train.main(["--resume", out, "--backend", "numpy", "--precision", "fp32", "--epochs", "2"]) == 0


def test_memory_is_that_of_fp32(stand_in, capsys):
    assert train.main(["--memory", "--backend", "cupy", "--precision", "bf16"]) == 2
    assert "--memory measures a step in fp32" in capsys.readouterr().err


def test_probabilities_may_be_bfloat16(stand_in):
    scores, truth = tensor(RANDOM.standard_normal((4, 3)).astype("float32")), np.full((4, 3), 1 / 3, "float32")
    loss = F.cross_entropy(scores, tensor(truth).to("bfloat16"))
    assert loss.item() == pytest.approx(F.cross_entropy(scores, tensor(truth)).item(), rel=2 * STEP)


@pytest.mark.parametrize("backend_name", ["numpy", "numba"])
def test_other_backends_refuse(backend_name, tmp_path):
    settings = {"backend": backend_name, "precision": "bf16"}
    before = backends._current
    with pytest.raises(run.ConfigError, match=f"--precision bf16: the {backend_name} backend computes in fp32 only"):
        run.prepare_new(settings, str(tmp_path / "run"), None)
    backends._current = before
