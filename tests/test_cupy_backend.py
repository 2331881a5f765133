"""The backend cupy without a GPU: its whole Python, on a stand-in for CuPy that refuses what CuPy refuses.

On it also run the tests of operations, kernels, optimizer and graph that take each backend in turn.
"""

import importlib.util
import sys

import cupy_stand_in
import numpy as np
import pytest

import minitorch_alex.functional as F
from minitorch_alex import backends, nn, optim, run, tensor, train
from minitorch_alex.backends import why_not
from minitorch_alex.checkpoint import read_checkpoint
from minitorch_alex.models.parts import SpatialResponseNorm


@pytest.fixture
def prepared(stand_in, few_digits, tmp_path):
    """A run on 160 digits, on the stand-in."""
    settings = {"backend": "cupy", "batch_size": 32, "epochs": 2}
    return run.prepare_new(settings, str(tmp_path / "run"), None)


def weights_after(backend, out, *options):
    assert train.main(["--backend", backend, "--epochs", "2", "--batch-size", "80", "--out", str(out), *options]) == 0
    arrays, _ = read_checkpoint(out / "checkpoint.safetensors")
    return arrays


def test_it_trains_as_numpy_does_and_goes_on_where_it_stopped(stand_in, few_digits, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)  # figures take longer than the training
    whole = weights_after("cupy", tmp_path / "whole")
    assert "cupy (CuPy 14.2.0 on a stand-in)" in capsys.readouterr().out
    reference = weights_after("numpy", tmp_path / "numpy")
    for name, expected in reference.items():
        np.testing.assert_allclose(whole[name], expected, rtol=0.02, atol=2e-4, err_msg=name)

    half = tmp_path / "half"
    assert train.main(["--backend", "cupy", "--epochs", "1", "--batch-size", "80", "--out", str(half)]) == 0
    assert train.main(["--resume", str(half), "--epochs", "2"]) == 0
    resumed, _ = read_checkpoint(half / "checkpoint.safetensors")
    for name, expected in whole.items():
        np.testing.assert_array_equal(resumed[name], expected, err_msg=name)


def test_a_step_waits_for_the_gpu_once_to_read_the_loss(prepared):
    images, labels = next(prepared.loader().epoch(0))
    train.take_step(prepared, images, labels)  # the first makes the velocities
    cupy_stand_in.waits.clear()
    train.take_step(prepared, images, labels)
    assert [wait.rpartition(":")[0] for wait in cupy_stand_in.waits] == ["get() in cupy_backend.py"]


def test_every_layer_computes_without_waiting(stand_in):
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(), nn.LocalResponseNorm(5, k=2),
        nn.MaxPool2d(3, 2, ceil_mode=True), SpatialResponseNorm(3, alpha=1e-3, beta=0.75, k=1), nn.AvgPool2d(2),
        nn.Dropout(0.5), nn.Flatten(), nn.Linear(24, 5),
    )  # fmt: skip
    optimizer = optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True)
    images = tensor(np.random.default_rng(0).standard_normal((4, 2, 8, 8), "float32"))
    labels = np.array([0, 4, 2, 2])
    for step in range(2):
        stand_in.waits.clear()
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
        assert stand_in.waits == [], f"step {step}"


def test_too_little_memory_is_one_line(stand_in, few_digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(stand_in.stock, "limit", stand_in.stock.used + 1_000_000)
    assert train.main(["--backend", "cupy", "--batch-size", "160", "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("train: --batch-size 160: the memory does not suffice for step 1 (Out of memory allocating")


# -- what is said ------------------------------------------------------------------
def test_compiling_is_said_aloud_once_and_only_when_it_takes_time(stand_in, monkeypatch, capsys):
    backend = type(backends.current())()
    said = []
    for pause in (0.0, 0.3, 0.3):
        times = iter((10.0, 10.0 + pause))
        monkeypatch.setattr(sys.modules[cupy_stand_in.BACKEND].time, "monotonic", lambda times=times: next(times))
        backend.compile("bias_relu.cu", ["relu<float>"])
        said.append(capsys.readouterr().err)
    assert said == ["", "compiling the CUDA kernels\n", ""]


def test_what_a_kernel_includes_is_part_of_its_text(stand_in, monkeypatch):
    texts = []
    original = stand_in.RawModule.__init__
    monkeypatch.setattr(
        stand_in.RawModule,
        "__init__",
        lambda self, code, **settings: (texts.append(code), original(self, code, **settings))[1],
    )
    type(backends.current())().compile("dropout.cu", ["dropout_by_warp<float>"])
    assert "Words philox(" in texts[0]
    assert '#include "philox.cuh"' not in texts[0]


@pytest.mark.parametrize("how", ["no driver, as CuPy 14 says", "no driver, as CuPy 13 says", "broken"])
def test_without_a_gpu_the_reason_is_one_line(how, stand_in, monkeypatch):
    def fails():
        raise stand_in.cuda.runtime.CUDARuntimeError("cudaErrorInsufficientDriver")

    if how == "broken":
        monkeypatch.setitem(sys.modules, cupy_stand_in.BACKEND, None)  # its import fails
        assert "cannot be loaded" in why_not("cupy")
    else:
        monkeypatch.setattr(stand_in.cuda, "is_available", fails if "13" in how else lambda: False)
        assert "finds no GPU" in why_not("cupy")
        with pytest.raises(run.ConfigError, match="finds no GPU"):
            run.choose_backend("cupy")
    backends._current = "numpy"
    assert run.choose_backend("auto").startswith("numba")


def test_a_gpu_that_miscalculates_is_not_used(stand_in, monkeypatch):
    monkeypatch.setattr(type(backends.current()), "relu", lambda self, x: x * 2)
    with pytest.raises(run.ConfigError, match="the GPU miscalculates"):
        run.choose_backend("cupy")


def test_auto_takes_the_gpu(stand_in):
    assert run.choose_backend("auto").startswith("cupy (CuPy 14.2.0 on a stand-in)")


# -- the stand-in itself -------------------------------------------------------------
def test_the_stand_in_refuses_what_cupy_refuses(stand_in):
    x = stand_in.ones((2, 3), "float32")
    with pytest.raises(TypeError, match=r"Unsupported type .*ndarray"):
        x + np.ones((2, 3))
    with pytest.raises(TypeError):
        np.ones((2, 3)) * x
    with pytest.raises(TypeError, match="Implicit conversion"):
        np.asarray(x)
    with pytest.raises(TypeError, match="CuPy's own function"):
        np.exp(x)
    with pytest.raises(TypeError, match="CuPy's own function"):
        np.concatenate([x, x])
    with pytest.raises(TypeError, match="unexpected keyword argument 'initial'"):
        x.max(initial=0)
    with pytest.raises(AttributeError, match=r"no cupy\.einsum_path"):
        stand_in.einsum_path  # noqa: B018
    with pytest.raises(ValueError, match="fill"):
        x[0] = np.ones(3, "float32")
    assert np.isnan(stand_in.empty(3, "float32").get()).all()
    assert x.sum().shape == ()
    assert isinstance(x.sum(), stand_in.ndarray)
    assert x[0].base is x


CUPY = importlib.util.find_spec("cupy")


@pytest.mark.skipif(CUPY is None, reason="CuPy is not installed, so the stand-in cannot be compared with it")
def test_the_stand_in_takes_the_arguments_that_cupy_takes():
    import cupy

    for table, owner in ((cupy_stand_in.FUNCTIONS, cupy), (cupy_stand_in.METHODS, cupy.ndarray)):
        for name, parameters in table.items():
            theirs = [p for p in cupy_stand_in.parameters(getattr(owner, name)) if p != "self"]
            assert set(parameters.split(", ")) <= set(theirs), (name, theirs)
    for name in cupy_stand_in.UFUNCS:
        assert isinstance(getattr(cupy, name), cupy.ufunc), name
