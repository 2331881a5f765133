"""Comparing backends layer by layer: they agree, and a planted bug is told in the layer that has it, and only there."""

import argparse
import sys

import numpy as np
import pytest

from minitorch_alex import Tensor, backends, compare, manual_seed, models, nn
from minitorch_alex.compare import Batch, Difference, Row, difference, first_fault
from minitorch_alex.models import Entry

NUMBA, NUMPY = backends.get("numba"), backends.get("numpy")


@pytest.fixture(autouse=True)
def _as_it_was():
    before = backends._current
    yield
    backends._current = before
    manual_seed(0)


class Block(nn.Module):
    """Not a chain: what goes in also goes around."""

    def __init__(self):
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return x + self.relu(self.conv(x))


def every_kind(classes):
    """Each kind of layer that the models have, at most one of them twice."""
    return nn.Sequential(
        nn.ZeroPad2d((0, 1, 2, 0)), nn.Conv2d(2, 4, 3, stride=(2, 1), padding="valid", groups=2), nn.BatchNorm2d(4),
        nn.Tanh(), Block(), nn.LocalResponseNorm(3, alpha=0.5), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
        nn.AdaptiveAvgPool2d((2, 2)), nn.Flatten(), nn.Dropout(0.4), nn.Linear(16, 8), nn.Sigmoid(), nn.BatchNorm1d(8),
        nn.Dropout(0.25, form="paper"), nn.Linear(8, classes, bias=False),
    )  # fmt: skip


@pytest.fixture
def small(monkeypatch):
    """A network of every kind of layer, called "small", with a batch for it."""
    monkeypatch.setitem(models.MODELS, "small", Entry(every_kind, (2, 9, 8)))
    random = np.random.default_rng(0)
    return Batch(random.standard_normal((5, 2, 9, 8), "float32"), random.integers(0, 3, 5), 3, "noise")


def rows_of(batch, trusted="numpy", checked="numba", dtype="float64"):
    return compare.compare(trusted, checked, "small", batch, 3, dtype)


def faults(rows):
    """The layers that differ, with the columns in which they do."""
    columns = ("value", "input_gradient", "parameter_gradients")
    named = {r.path: [c for c in columns if getattr(r, c) and getattr(r, c).relative > 1e-10] for r in rows}
    return {path: columns for path, columns in named.items() if columns}


# -- they agree -----------------------------------------------------------------------
@pytest.mark.parametrize("trusted", ["numpy", "numba", "torch", "cuda_on_cpu"])
@pytest.mark.parametrize("checked", ["numpy", "numba"])
def test_backends_agree_on_every_kind_of_layer(trusted, checked, small):
    if trusted == "torch":
        pytest.importorskip("torch")
    elif backends.why_not(trusted):
        pytest.skip(backends.why_not(trusted))
    rows = rows_of(small, trusted, checked)
    assert [r.path for r in rows] == [
        "0", "1", "2", "3", "4.conv", "4.relu", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "loss",
    ]  # fmt: skip
    assert faults(rows) == {}
    assert [r.path for r in rows if r.parameter_gradients] == ["1", "2", "4.conv", "10", "12", "14"]
    assert rows[0].output_shape == (2, 11, 9)
    assert rows[-1].output_shape == ()


def test_a_batch_of_the_digits_agrees(capsys):
    assert compare.main(["numpy", "numba"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "alexnet_small, 32 images (digits), float32" in lines[0]
    assert " ".join(line.split()[0] for line in lines[2:-1]) == (
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 flatten drop4 fc4 loss"
    )
    assert lines[-1].startswith("numba agrees with numpy: all 14 layers, to ")
    assert float(lines[-1].split()[-1]) < 1e-5
    assert "<--" not in "".join(lines)


def test_the_other_way_round_pytorch_is_still_the_one_to_trust(capsys):
    pytest.importorskip("torch")
    assert compare.main(["numba", "torch", "--batch-size", "4", "--dtype", "float64"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("numba agrees with torch: all 14 layers")


def test_weights_are_handed_over(small, monkeypatch):
    """Whoever makes them: here every network has others."""
    random = np.random.default_rng(0)

    def unlike_any_other(classes):
        network = every_kind(classes)
        for parameter in network.parameters():
            parameter.data = random.standard_normal(parameter.shape).astype("float32")
        return network

    monkeypatch.setitem(models.MODELS, "small", Entry(unlike_any_other, (2, 9, 8)))
    assert faults(rows_of(small)) == {}


# -- planted bugs -----------------------------------------------------------------------
def test_a_wrong_window_of_lrn(monkeypatch, capsys):
    """One channel too few in the sum, forward only; the layers behind are not to be blamed."""
    monkeypatch.setattr(NUMBA, "local_response_norm", lambda x, size, *n: NUMPY.local_response_norm(x, size - 1, *n))
    assert compare.main(["numpy", "numba", "--batch-size", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("numba diverges from numpy: norm1 (LocalResponseNorm), output, by ")
    assert " in place of " in lines[-1]
    assert {line.split()[0] for line in lines if "<--" in line} == {"norm1", "norm2"}


def test_a_pool_that_lets_the_last_maximum_win(monkeypatch, capsys):
    """The same values, but among ties, such as the zeros behind a ReLU, the gradient goes elsewhere."""

    def last_wins(x, window):
        y, _ = NUMPY.max_pool2d(x, window)
        taps = window.kernel[0] * window.kernel[1]
        padded = NUMPY.pad_image(x, window, -np.inf)
        values = [padded[:, :, rows, columns] for _, _, rows, columns in window.taps(*y.shape[2:])]
        return y, taps - 1 - np.argmax(values[::-1], axis=0).astype("int32")

    monkeypatch.setattr(NUMBA, "max_pool2d", last_wins)
    assert compare.main(["numpy", "numba", "--batch-size", "4"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].startswith("numba diverges from numpy: pool2 (MaxPool2d), gradient of its input, by ")
    assert {line.split()[0] for line in lines if "<--" in line} == {"pool1", "pool2"}


def transposed(method):
    """A gradient whose images come in the wrong order."""

    def wrong(*arguments):
        return np.ascontiguousarray(method(*arguments)[::-1])

    return wrong


def in_one_place(method, place):
    """A result with one wrong number."""

    def wrong(*arguments):
        y = np.array(method(*arguments))
        y[place] += 1
        return y

    return wrong


@pytest.mark.parametrize(
    ("method", "wrong", "expected"),
    [
        ("conv2d", transposed, {"1": ["value"], "4.conv": ["value"]}),
        ("conv2d_input_gradient", transposed, {"1": ["input_gradient"], "4.conv": ["input_gradient"]}),
        (
            "conv2d_weight_gradient", lambda f: in_one_place(f, (3, 0, 2, 2)),
            {"1": ["parameter_gradients"], "4.conv": ["parameter_gradients"]},
        ),
        ("relu_gradient", transposed, {"4.relu": ["input_gradient"]}),
        ("max_pool2d_gradient", lambda f: in_one_place(f, (0, 0, 0, 0)), {"6": ["input_gradient"]}),
        ("dropout", transposed, {"9": ["value", "input_gradient"], "13": ["value", "input_gradient"]}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trusted", ["numpy", "torch"])
def test_a_bug_is_told_where_it_is_and_nowhere_else(trusted, method, wrong, expected, small, monkeypatch):
    if trusted == "torch":
        pytest.importorskip("torch")
    monkeypatch.setattr(NUMBA, method, wrong(getattr(NUMBA, method)))
    rows = rows_of(small, trusted)
    assert faults(rows) == expected
    (first, *_), (*_, last) = expected, expected
    told = first_fault(rows, 1e-10)
    assert told.startswith(f"{first} (" if "value" in expected[first] else f"{last} (")


def test_an_input_that_is_overwritten_is_noticed(small, monkeypatch):
    """The output is right; what is left of the input serves the gradient."""

    def in_place(x, *settings):
        y, scale = NUMPY.local_response_norm(x, *settings)
        x[...] = y
        return y, scale

    monkeypatch.setattr(NUMBA, "local_response_norm", in_place)
    assert faults(rows_of(small)) == {"5": ["input_gradient"]}


def test_moving_averages_are_compared(small, monkeypatch):
    """The numba backend is given a batch norm that forgets the old average."""
    forward = nn.BatchNorm1d.forward

    def forgetful(layer, x):
        y = forward(layer, x)
        if x.backend is NUMBA:
            layer.running_var.data = layer.running_var.data * 2
        return y

    monkeypatch.setattr(nn.BatchNorm1d, "forward", forgetful)
    rows = rows_of(small)
    assert faults(rows) == {"12": ["value"]}
    assert first_fault(rows, 1e-10).startswith("12 (BatchNorm1d), running_var, by 1.0e+00: ")


@pytest.mark.parametrize(
    ("method", "arguments", "told"),
    [
        ("conv2d_input_gradient", ["numpy", "numba"], "numba stops in conv3 (Conv2d), backward"),
        ("local_response_norm", ["numpy", "numba"], "numba stops in norm1 (LocalResponseNorm), forward"),
        ("max_pool2d_gradient", ["numba", "numpy"], "numba stops in pool1 (MaxPool2d), forward or backward"),
    ],
)
def test_a_kernel_that_stops_is_named(method, arguments, told, monkeypatch, capsys):
    def broken(*arguments):
        raise RuntimeError("a thread touches\nmemory that it must not")

    monkeypatch.setattr(NUMBA, method, broken)
    assert compare.main([*arguments, "--batch-size", "2"]) == 1
    assert capsys.readouterr().out == (
        f"{arguments[1]} cannot be compared with {arguments[0]}: {told}: a thread touches memory that it must not\n"
    )


# -- the parts ----------------------------------------------------------------------------
def test_listening_changes_nothing():
    heard = []
    x = Tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    y = compare.listened_to(x * 2, hear=heard.append)
    assert np.array_equal(y.numpy(), 2 * x.numpy())
    (y * y).backward(np.ones((2, 3)))
    assert np.array_equal(heard, [2 * y.numpy()])
    assert np.array_equal(x.grad.numpy(), 4 * y.numpy())


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("checked", "trusted", "relative"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0),
        ([1.0, -3.0], [1.0, -4.0], 0.25),
        ([NAN, 2.0], [NAN, 2.0], 0),
        ([INF, 2.0], [INF, 2.0], 0),
        ([NAN, 2.0], [1.0, 2.0], INF),
        ([1.0, 2.0], [NAN, 2.0], INF),
        ([INF, 2.0], [-INF, 2.0], INF),
        ([0.0, 0.0], [0.0, 0.0], 0),
        ([0.0, 1e-30], [0.0, 0.0], INF),
        ([], [], 0),
        (2.0, 4.0, 0.5),
        ([1.0], [[1.0]], INF),
        (np.float32([1]), np.float64([1]), INF),
    ],
)
def test_difference(checked, trusted, relative):
    assert difference("output", np.array(checked), np.array(trusted)).relative == relative


def test_a_difference_says_where_it_is():
    trusted = np.zeros((2, 3), "float32")
    trusted[0, 1] = 5
    checked = trusted.copy()
    checked[1, 2] = -1
    assert difference("output", checked, trusted) == Difference(0.2, "output", "-1 in place of 0 at (1, 2)")
    assert difference("output", checked, trusted, 10.0).relative == 0.1
    told = difference("output", checked, trusted.T).values
    assert told == "float32 (2, 3) in place of float32 (3, 2)"


def row(path, value=0.0, input_gradient=0.0, parameter_gradients=None):
    numbers = [None if x is None else Difference(x, "what", "a in place of b") for x in
               (value, input_gradient, parameter_gradients)]  # fmt: skip
    return Row(path, "Kind", (1,), *numbers)


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([row("a"), row("b", 1e-5, 1e-5)], None),
        ([row("a"), row("b", 0.1), row("c", 0.9), row("d", 0, 0.9)], "b (Kind), what, by 1.0e-01: a in place of b"),
        ([row("a", 0, 0.9), row("b", 0, 0.2), row("c")], "b (Kind), what, by 2.0e-01: a in place of b"),
        ([row("a"), row("b", 0, 0.2, 0.3), row("c")], "b (Kind), what, by 3.0e-01: a in place of b"),
        ([row("a"), row("b", 0, INF), row("c")], "b (Kind), what, by inf: a in place of b"),
    ],
)
def test_the_first_layer_forward_for_values_and_backward_for_gradients(rows, first):
    assert first_fault(rows, 1e-4) == first


# -- the request ----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["numpy", "torch", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["torch", "torch"], "torch against torch"),
        (["numpy", "cudnn"], "invalid choice: 'cudnn'"),
        (["numpy", "numba", "--seed", "-1"], "--seed must be"),
        (["numpy", "numba", "--tolerance", "nan"], "--tolerance must be"),
    ],
)
def test_a_wrong_request_is_told_in_one_line(arguments, complaint, capsys):
    with pytest.raises(SystemExit) as stop:
        compare.main(arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1


def test_what_is_not_here_is_told_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(backends, "why_not", lambda name: "the cupy backend needs CuPy" if name == "cupy" else None)
    assert compare.main(["numpy", "cupy"]) == 2
    assert capsys.readouterr().err == "compare: the cupy backend needs CuPy\n"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert compare.main(["torch", "numpy"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("compare: PyTorch cannot be used here (")
    assert message.endswith("python -m pip install torch\n")
    assert message.count("\n") == 1


def test_data_and_models_that_do_not_fit(capsys):
    assert compare.main(["numpy", "numba", "--model", "lenet5", "--data", "digits"]) == 2
    assert capsys.readouterr().err == (
        "compare: --model lenet5 with digits: lenet5 takes images of (1, 32, 32), not (1, 8, 8)\n"
    )
    assert compare.main(["numpy", "numba", "--model", "lenet5", "--batch-size", "2"]) == 0
    assert "lenet5, 2 images (noise)" in capsys.readouterr().out
    pytest.importorskip("torch")
    assert compare.main(["numba", "torch", "--model", "lenet5", "--batch-size", "2"]) == 2
    assert "PyTorch has no layer like s2, Subsampling()" in capsys.readouterr().err


def test_the_seed_and_the_tolerance_matter(capsys):
    def told(*more):
        status = compare.main(["numpy", "numba", "--batch-size", "2", *more])
        return status, capsys.readouterr().out

    assert told("--seed", "1") == told("--seed", "1") != told("--seed", "2")
    assert told("--tolerance", "0")[0] == 1


def request(model, data, batch_size, seed=0):
    return argparse.Namespace(model=model, data=data, batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("data", ["digits", "noise"])
def test_the_seed_chooses_the_images(data):
    first, again, other = (compare.batch_of(request("alexnet_small", data, 4, seed)).images for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_noise_is_prepared_as_the_network_wants_its_pixels():
    for model, spread in (("alexnet", 74), ("torchvision_alexnet", 1)):
        batch = compare.batch_of(request(model, None, 2))
        assert batch.images.shape == (2, *models.MODELS[model].image_shape)
        assert batch.images.dtype == "float32"
        np.testing.assert_allclose([batch.images.std(), batch.images.mean() + spread], [spread, spread], rtol=0.02)


def test_photographs(plain):
    batch = compare.batch_of(request("alexnet", str(plain), 3))
    assert batch.images.shape == (3, 3, 227, 227)
    assert batch.classes == 2
    assert len(batch.labels) == 3


def test_what_is_equal_agrees_to_the_last_bit(capsys):
    assert compare.main(["numpy", "numpy", "--tolerance", "0", "--batch-size", "4"]) == 0
    assert "agrees with numpy" in capsys.readouterr().out


def test_a_gradient_of_rounding_only_is_measured_against_the_layers_largest():
    """As that of a bias in front of batch norm, which is 0 but for rounding."""

    class Asked:
        def __init__(self, of_bias):
            self.of_bias = of_bias

        def gradients(self, path):
            return {"weight": np.ones(2), "bias": np.array([self.of_bias])}

        def averages(self, path):
            return {}

    step = compare.Step("conv1", "Conv2d", np.ones((1, 2)))
    step.output = step.input_gradient = np.ones((1, 2))
    row = compare.row_of(step, step.output, step.input_gradient, Asked(1e-9), Asked(3e-9))
    assert row.parameter_gradients.relative == pytest.approx(2e-9)


@pytest.mark.parametrize("count", ["0", "2147483648", "99999999999999999999999999"])
def test_absurd_batches_are_refused(count, capsys):
    with pytest.raises(SystemExit):
        compare.main(["numpy", "numba", "--batch-size", count])
    assert capsys.readouterr().err.startswith("compare: --batch-size must be at least 1, and below 2^31")
