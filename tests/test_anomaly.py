"""anomaly(): NaN and infinity are found where they begin, and nowhere else; so are arrays that were changed too early.

And what a run does whose loss or weights are no numbers any more.
"""

import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from test_train import _in_an_empty_folder, log_of, run  # noqa: F401

from minitorch_alex import Tensor, anomaly, manual_seed, models, nn, no_grad, optim, tensor, train
from minitorch_alex import functional as F
from minitorch_alex.anomaly import AnomalyError
from minitorch_alex.checkpoint import read_checkpoint
from minitorch_alex.data import Loader
from minitorch_alex.tensor import op

INF, NAN = np.inf, np.nan


def leaf(*values, dtype="float32"):
    return tensor(np.array(values, dtype), requires_grad=True)


def told(work):
    """The message of the AnomalyError that it raises: one line."""
    with pytest.raises(AnomalyError) as caught, anomaly():
        work()
    message = str(caught.value)
    assert "\n" not in message
    return message


# -- values ---------------------------------------------------------------------
VALUES = {  # what is computed -> words of the message
    "log of 0": (
        lambda: leaf(1.0, 0.0).log(), ["log", "(2,) with 1 infinite among 2", "-inf, at (1,)", "1 (2,) from 0 to 1"]),
    "log below 0": (lambda: leaf(-1.0, 1.0).log(), ["log", "1 NaN among 2", "nan, at (0,)", "the others from 0 to 0"]),
    "0 / 0": (lambda: leaf(0.0, 0.0) / 0, ["div", "2 NaN among 2", "others none", "input 2 0"]),
    "overflow": (lambda: leaf([1.0, 2.0], [3.0, 100.0]).exp(), ["exp", "(2, 2)", "inf, at (1, 1)", "from 1 to 100"]),
    "root": (lambda: leaf(4.0, -4.0).sqrt(), ["sqrt", "1 NaN"]),
    "power": (lambda: leaf(0.0) ** -1, ["pow", "1 infinite", "input 2 -1"]),
    "both": (lambda: leaf(0.0, -1.0, 1.0).log(), ["1 NaN and 1 infinite among 3"]),
    "product": (lambda: leaf([1e30]) @ leaf([[1e30]])[0], ["matmul", "1 infinite", "from 1e+30 to 1e+30"]),
    "mean of nothing": (lambda: leaf(1.0)[:0].mean(), ["mean", "() with 1 NaN", "(0,) of no numbers"]),
    "variance of one": (lambda: leaf(1.0).var(), ["var", "1 NaN"]),
    "labels that do not count": (
        lambda: F.cross_entropy(leaf([1.0, 2.0]), np.array([-100])), ["softmax_cross_entropy", "1 NaN"]),
    "an infinity of one's own": (
        lambda: F.where(np.array([True, False]), leaf(1.0, 2.0), -INF), ["where", "-inf, at (1,)"]),
    "a NaN in the data": (lambda: tensor(np.array([1.0, NAN])) * 2, ["mul", "input 1 (2,) with 1 NaN"]),
    "under no_grad": (lambda: no_grad()(lambda: leaf(0.0).log())(), ["log"]),
    "in float64": (lambda: leaf(1e200, dtype="float64") * 1e200, ["mul", "from 1e+200 to 1e+200"]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_a_value(backend, name):
    compute, words = VALUES[name]
    compute()  # which is no error without
    message = told(compute)
    for word in words:
        assert word in message


def test_a_value_in_bfloat16(stand_in):
    x = tensor(np.array([1.0, 3e38], "float32")).to("bfloat16")
    assert "(2,) with 1 infinite" in told(lambda: x * 4)


class Log(nn.Module):
    """Made to fail."""

    def forward(self, x):
        return x.log()


def test_the_layer_is_named():
    network = nn.Sequential({"first": nn.ReLU(), "rest": nn.Sequential(nn.Flatten(), Log())})
    message = told(lambda: network(tensor([[1.0, -1.0]])))
    assert message.startswith("log in rest.1 (Log()), test_anomaly.py line ")


def test_a_layer_by_itself_is_named():
    assert told(lambda: Log()(tensor([0.0]))).startswith("log in Log(), test_anomaly.py line ")


class Block(nn.Module):
    """Computes something itself beside what its layers do."""

    def __init__(self):
        self.inner = nn.ReLU()

    def forward(self, x):
        return self.inner(x).log()


def test_a_layer_that_holds_others_is_named_in_one_line():
    network = nn.Sequential({"block": Block()})
    assert told(lambda: network(tensor([0.0]))).startswith("log in block (Block), ")


# -- gradients --------------------------------------------------------------------
def test_a_gradient(backend):
    x = leaf(4.0, 0.0, 1.0)
    x.sqrt().sum().backward()
    assert x.grad.numpy().tolist() == [0.25, INF, 0.5]
    message = told(lambda: x.sqrt().sum().backward())
    assert re.fullmatch(
        r"the gradient of sqrt, test_anomaly\.py line \d+, for input 1: it is \(3,\) with 1 infinite among 3 numbers, "
        r"the first, inf, at \(1,\), the others from 0\.25 to 0\.5, computed from what arrives \(3,\) from 1 to 1, "
        r"its value \(3,\) from 0 to 2",
        message,
    )


def test_a_gradient_names_layer_and_line_of_the_forward_pass():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()  # this line

    network = nn.Sequential({"root": Root()})
    with anomaly():
        y = network(leaf(0.0))
    with pytest.raises(AnomalyError) as caught:  # it was computed in the block, so it is watched
        y.backward()
    lines = Path(__file__).read_text().splitlines()
    line = lines.index("            return x.sqrt()  # this line") + 1
    assert str(caught.value).startswith(
        f"the gradient of sqrt in root (Root()), test_anomaly.py line {line}, for input 1: "
    )


def test_a_gradient_that_nobody_seems_to_need(backend):
    """The choice of where() does not save it: its gradient at 0 is 0, and 0 times the slope of the root is NaN."""
    x = leaf(0.0, 1.0)
    message = told(lambda: F.where(x > 0, x.sqrt(), 0).sum().backward())
    assert message.startswith("the gradient of sqrt, ")
    assert "1 NaN among 2 numbers, the first, nan, at (0,)" in message


def test_the_second_input(backend):
    x, y = leaf(1.0, 2.0), leaf(0.5, 3.0)
    message = told(lambda: (x * 1e38 / (y * 1e-38 * 1e-4)).sum().backward())
    assert message.startswith("div, ")
    message = told(lambda: (leaf(-1.0) ** leaf(2.0)).backward())
    assert message.startswith("the gradient of pow, ")
    assert "for input 2" in message


def test_gradients_that_add_up_to_infinity(backend):
    x = leaf(1.0)
    assert told(lambda: x * 3e38 + x * 2e38).startswith("add, ")
    h = leaf(1e-20)
    message = told(lambda: (lambda y: (y * 3e38 + y * 2e38).backward())(h * 1.0))
    assert message.startswith("the gradient of mul, ")
    assert "what arrives is (1,) with 1 infinite" in message
    assert "several gradients add up to that" in message
    assert "the gradient of a leaf is (1,) with 1 infinite" in told(lambda: (h * 3e38 + h * 2e38).backward())
    x.grad = tensor(np.array([3e38], "float32"))
    assert "the gradient of a leaf is" in told(lambda: (x * 3e38).backward())


def test_a_gradient_that_was_handed_in(backend):
    x = leaf(1.0, 2.0)
    message = told(lambda: (x * 2).backward([1.0, NAN]))
    assert "the gradient of mul" in message
    assert "what arrives is (2,) with 1 NaN" in message
    assert "handed to backward()" in message


def test_a_forward_pass_outside_is_noticed_at_the_leaf(backend):
    x = leaf(0.0)
    y = x.sqrt()
    message = told(y.backward)
    assert "the gradient of a leaf is (1,) with 1 infinite" in message
    assert "around the forward pass too" in message


def test_a_kernel_that_is_broken_is_named(backend, monkeypatch):
    network = nn.Sequential({"conv1": nn.Conv2d(1, 2, 3), "conv2": nn.Conv2d(2, 2, 3)})
    whole, calls = type(backend).conv2d_weight_gradient, []

    def broken(self, *arguments):
        gw = whole(self, *arguments)
        calls.append(1)
        if len(calls) == 2:  # backwards, so that of conv1
            gw[1, 0, 2, 1] = NAN
        return gw

    monkeypatch.setattr(type(backend), "conv2d_weight_gradient", broken)
    images = tensor(np.ones((2, 1, 6, 6), "float32"))
    message = told(lambda: network(images).sum().backward())
    assert message.startswith("the gradient of conv2d in conv1 (Conv2d(1, 2, kernel_size=(3, 3), stride=1)), ")
    assert "for input 2: it is (2, 1, 3, 3) with 1 NaN among 18 numbers, the first, nan, at (1, 0, 2, 1)" in message


def test_the_first_of_several_is_told():
    x = leaf(0.0, 4.0)
    assert told(lambda: (x.sqrt().log() * NAN).sum()).startswith("log, ")


# -- what is no anomaly -----------------------------------------------------------------
def every_step(model, shape, classes=4):
    """Loss and gradients of two steps of training."""
    manual_seed(3)
    network = models.build(model, classes, shape)
    optimizer = optim.SGD(network.parameters(), lr=1e-4, momentum=0.9, form="paper")
    images = np.random.default_rng(0).standard_normal((2, *shape)).astype("float32")
    for _ in range(2):
        optimizer.zero_grad()
        loss = F.cross_entropy(network(Tensor(images)), np.array([0, 3]))
        loss.backward()
        optimizer.step()
    return [loss.numpy().tobytes(), *(p.grad.numpy().tobytes() for p in network.parameters())]


@pytest.mark.parametrize(("model", "shape"), [("alexnet_small", (3, 16, 16)), ("lenet5", (1, 32, 32))])
def test_training_is_none_and_stays_as_it_is(backend, model, shape):
    """Padding with -inf, dropped units, ties: not one false alarm, and not one other bit."""
    without = every_step(model, shape)
    with anomaly():
        assert every_step(model, shape) == without


def test_padding_of_pools_is_none(backend):
    x = tensor(np.arange(-50.0, -25).reshape(1, 1, 5, 5), requires_grad=True)
    with anomaly():
        y = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        y.sum().backward()
        F.max_pool2d(x, 3, padding=1, ties="all").sum().backward()
    assert y.numpy().max() == -26


LOSSES = {
    "labels": lambda x: F.cross_entropy(x, np.array([0, 1, 2])),
    "each": lambda x: F.cross_entropy(x, np.array([0, 1, 2]), reduction="none").sum(),
    "weights": lambda x: F.cross_entropy(x, np.array([0, 1, 2]), np.array([1.0, 2.0, 3.0])),
    "smoothing": lambda x: F.cross_entropy(x, np.array([0, 1, 2]), label_smoothing=0.1),
    "probabilities": lambda x: F.cross_entropy(x, np.full((3, 3), 1 / 3)),
    "nll": lambda x: F.nll_loss(F.log_softmax(x, 1), np.array([0, 1, 2])),
    "softmax": lambda x: (F.softmax(x, 1) * tensor(np.arange(3.0))).sum(),
    "sigmoid": lambda x: F.sigmoid(x).sum() + F.tanh(x).sum(),
    "squares": lambda x: F.mse_loss(x, np.zeros((3, 3))),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_scores_of_ten_thousand(backend, name, dtype):
    """Where e^x would overflow: the loss and its gradient are numbers, and the right ones."""
    x = leaf([1e4, -1e4, 0.0], [1e4, 1e4, -1e4], [-1e4, -1e4, -1e4], dtype=dtype)
    with anomaly():
        loss = LOSSES[name](x)
        loss.backward()
    if name == "labels":  # rows: right; two of equal rank; three of equal rank
        assert loss.item() == pytest.approx((0 + np.log(2) + np.log(3)) / 3)
        expected = np.array([[0, 0, 0], [1 / 2, -1 / 2, 0], [1 / 3, 1 / 3, -2 / 3]]) / 3
        np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-7)
    wrong = leaf([1e4, -1e4], [-1e4, 1e4], dtype=dtype)
    with anomaly():
        F.cross_entropy(wrong, np.array([1, 0])).backward()
    np.testing.assert_allclose(wrong.grad.numpy(), [[0.5, -0.5], [-0.5, 0.5]])


# -- the switch -------------------------------------------------------------------------
def test_blocks_nest_and_end():
    with anomaly():
        with anomaly():
            pass
        with pytest.raises(AnomalyError):
            leaf(0.0).log()
    leaf(0.0).log()
    with pytest.raises(KeyError), anomaly():
        raise KeyError
    leaf(0.0).log()


def test_as_a_decorator():
    @anomaly()
    def f(x):
        return x.log()

    for _ in range(2):
        with pytest.raises(AnomalyError):
            f(leaf(0.0))
    leaf(0.0).log()


def test_the_switch_is_the_threads_own():
    found, inside, checked = [], threading.Event(), threading.Event()

    def other():
        with anomaly():
            inside.set()
            checked.wait(10)
            try:
                leaf(0.0).log()
            except AnomalyError:
                found.append("noticed")

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    leaf(0.0).log()  # not here
    checked.set()
    thread.join()
    assert found == ["noticed"]


# -- arrays that change too early ---------------------------------------------------------
def rows():
    return leaf([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def weight():
    return leaf([0.5, 1.0, 1.5], [2.0, 2.5, 3.0])


CHANGED = {  # (x, w) -> (loss, the Tensor whose array is written into), words
    "a factor": (lambda x, w: (x * w, w), "the gradient of mul"),
    "the other factor": (lambda x, w: (x * w, x), "input 1 of shape (2, 3)"),
    "a divisor": (lambda x, w: (x / w, w), "the gradient of div"),
    "what exp has made": (lambda x, w: (y := x.exp(), y), "its value of shape (2, 3)"),
    "what relu has made": (lambda x, w: (y := F.relu(x), y), "the gradient of relu"),
    "an input of linear": (lambda x, w: (F.linear(x, w), x), "the gradient of linear"),
    "a view": (lambda x, w: (x.reshape(3, 2) @ w, x), "the gradient of matmul"),
    "whole numbers in an index": (lambda x, w: (x[i := tensor([0, 1, 1])], i), "the gradient of getitem"),
    "what batch norm was given": (lambda x, w: (F.batch_norm(x, None, None, training=True), x), "standardise"),
    "in a layer": (lambda x, w: (nn.Sequential({"fc": nn.Linear(3, 3)})(x), x), "linear in fc (Linear(3, 3))"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
def test_an_array_that_is_written_into_before_backward(backend, name):
    compute, words = CHANGED[name]
    with anomaly():
        out, written = compute(rows(), weight())
        loss = out.sum()
    written.data[..., :1] = 1
    with pytest.raises(AnomalyError, match="has been changed in the meantime") as caught:
        loss.backward()
    assert words in str(caught.value)
    assert "t.data = t.data + 1" in str(caught.value)


def test_a_change_of_order_is_noticed(backend):
    x, w = rows(), weight()
    with anomaly():
        loss = (x * w).sum()
    w.data[...] = w.data[::-1].copy()
    with pytest.raises(AnomalyError, match="changed"):
        loss.backward()


def test_the_array_that_a_tensor_was_made_from():
    batch = np.ones((4, 3), "float32")
    layer = nn.Linear(3, 2)
    with anomaly():
        loss = layer(Tensor(batch)).sum()
        batch[0] = 7  # the next batch, a moment too early
        with pytest.raises(AnomalyError, match=r"linear in Linear\(3, 2\).*input 1 of shape \(4, 3\)"):
            loss.backward()


def test_what_no_gradient_needs_may_be_written_into(backend):
    x = rows()
    with anomaly():
        h = x + 1
        loss = (h.relu() - 2).sum()
        h.data[...] = 0
        x.data[...] = 0
        loss.backward()
    assert (x.grad.numpy() == 1).all()


def test_after_backward_anything_may_be_written_into(backend):
    x, w = rows(), weight()
    with anomaly():
        for _ in range(3):
            x.grad = w.grad = None
            (x * w).sum().backward()
            x.data[...] += 1
            w.data = w.data - 0.1 * w.grad.data
    assert w.grad.numpy().tolist() == (rows().numpy() + 2).tolist()


def test_another_array_is_no_change(backend):
    """As the optimizer does it, with a tape that still needs the old one."""
    w = weight()
    with anomaly():
        first, second = (w * w).sum(), (w * 2).sum()
        second.backward()
        w.data = w.data - w.grad.data
        first.backward()
    np.testing.assert_allclose(w.grad.numpy(), 2 + 2 * weight().numpy())


def test_an_operation_of_ones_own_is_watched():
    @op
    def twice(xp, x):
        def again(g, depth=0):  # which mentions itself
            return again(g, 1) if not depth else 2 * g + 0 * x

        return 2 * x, (again,)

    x = leaf(1.0)
    with anomaly():
        y = twice(x)
    x.data[...] = 3
    with pytest.raises(AnomalyError, match=r"the gradient of twice.*input 1"):
        y.backward()


@pytest.mark.parametrize("gradient", [lambda g: None, lambda g: np.ones((7, 2))])
def test_a_gradient_function_that_returns_nonsense_is_told_as_ever(gradient):
    slip = op(lambda xp, x: (x * 2, (gradient,)))
    with anomaly(), pytest.raises((ValueError, AttributeError, TypeError), match=r"the gradient of .* of \(2, 3\): "):
        slip(rows()).backward(np.ones((2, 3)))


def test_too_few_gradient_functions_are_told_as_ever():
    slip = op(lambda xp, x, y: (x * y, (lambda g: g,)))
    with anomaly(), pytest.raises(TypeError, match="takes 1 inputs"):
        slip(rows(), rows())


# -- the command --------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)


FEW = ["--epochs", 2, "--batch-size", 40, "--backend", "numpy"]


def spoil_batches(monkeypatch, from_step: int, value: float = NAN):
    """From this step on (from 1) a pixel of every batch is no number."""
    whole, batches = Loader.batch, []

    def batch(self, epoch, indices):
        images, labels = whole(self, epoch, indices)
        batches.append(1)
        if len(batches) >= from_step:
            images[0, 0, 2, 3] = value
        return images, labels

    monkeypatch.setattr(Loader, "batch", batch)


def checkpoint() -> bytes:
    return Path("run/checkpoint.safetensors").read_bytes()


def ended_by(capsys, *arguments) -> str:
    """The one line with which a run ends, with status 1."""
    capsys.readouterr()
    assert run(*arguments) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("train: after step ")
    assert line.endswith(". The checkpoint is from before that.")
    assert all(np.isfinite(entry["loss"]) for entry in log_of(Path("run")) if "loss" in entry)
    return line


def test_detect_anomaly_names_operation_and_layer(few_digits, monkeypatch, capsys):
    spoil_batches(monkeypatch, 3)
    line = ended_by(capsys, *FEW, "--detect-anomaly", "--out", "run")
    assert line.startswith(
        "train: after step 2, conv2d in conv1 (Conv2d(1, 32, kernel_size=(5, 5), stride=1, padding=2))"
    )
    assert "input 1 (40, 1, 8, 8) with 1 NaN among 2,560 numbers, the first, nan, at (0, 0, 2, 3)" in line
    assert read_checkpoint(Path("run/checkpoint.safetensors"))[1]["progress"]["step"] == 0


def test_detect_anomaly_changes_no_bit_and_can_be_switched_on_resume(few_digits):
    assert run(*FEW, "--out", "plain") == 0
    assert run(*FEW, "--detect-anomaly", "--epochs", 1, "--out", "run") == 0
    assert run("--resume", "run", "--epochs", 2, "--no-detect-anomaly") == 0
    mine, theirs = (read_checkpoint(Path(f"{name}/checkpoint.safetensors"))[0] for name in ("run", "plain"))
    assert all(mine[name].tobytes() == theirs[name].tobytes() for name in theirs)
    leaf(0.0).log()  # and the switch is off again


@pytest.mark.parametrize("way", [[], ["--detect-anomaly"]], ids=["plain", "detect-anomaly"])
@pytest.mark.parametrize("schedule", [[], ["--schedule", "plateau", "--patience", 0]], ids=["step", "plateau"])
def test_nan_in_the_very_first_step(schedule, way, few_digits, monkeypatch, capsys):
    spoil_batches(monkeypatch, 1)
    line = ended_by(capsys, *FEW, *schedule, *way, "--out", "run")
    assert way or "--resume run --detect-anomaly says where it begins" in line
    assert read_checkpoint(Path("run/checkpoint.safetensors"))[1]["progress"]["step"] == 0


@pytest.mark.parametrize("schedule", [[], ["--schedule", "plateau", "--patience", 0]], ids=["step", "plateau"])
def test_nan_after_resume_leaves_the_checkpoint(schedule, few_digits, monkeypatch, capsys):
    assert run(*FEW, *schedule, "--epochs", 1, "--out", "run") == 0
    before = checkpoint()
    with monkeypatch.context() as patch:
        spoil_batches(patch, 2)
        assert "the loss is no number" in ended_by(capsys, "--resume", "run", "--epochs", 3)
        assert checkpoint() == before
        assert "conv2d in conv1" in ended_by(capsys, "--resume", "run", "--epochs", 3, "--detect-anomaly")
        assert checkpoint() == before
    assert run("--resume", "run", "--epochs", 2, "--no-detect-anomaly") == 0


def spoil_weights(monkeypatch, step: int, value: float, and_stop: bool):
    """After the loss of this step has been computed, as a gradient that overflows does it."""
    whole = train.take_step

    def take_step(run, images, labels):
        loss = whole(run, images, labels)
        if run.progress.step + 1 == step:
            run.network.conv3.bias.data = np.full_like(run.network.conv3.bias.data, value)
            if and_stop:
                signal.raise_signal(signal.SIGINT)
        return loss

    monkeypatch.setattr(train, "take_step", take_step)


@pytest.mark.parametrize("value", [NAN, INF, -INF])  # of -inf a ReLU makes 0, so that the loss is a number for ever
@pytest.mark.parametrize("how", ["at the end of an epoch", "in mid-epoch", "by Ctrl-C"])
def test_weights_that_are_no_numbers_are_not_saved(how, value, few_digits, monkeypatch, capsys):
    assert run(*FEW, "--epochs", 1, "--out", "run") == 0
    spoil_weights(monkeypatch, 8 if how == "at the end of an epoch" else 6, value, how == "by Ctrl-C")
    if how == "in mid-epoch":
        monkeypatch.setattr(train, "SAVE_EVERY", 0.0)
    line = ended_by(capsys, "--resume", "run", "--epochs", 3)
    if how == "at the end of an epoch" and value != -INF:
        assert "the loss is no number" in line
    else:
        assert "conv3.bias holds a NaN or an infinity" in line
    arrays, info = read_checkpoint(Path("run/checkpoint.safetensors"))
    assert info["progress"]["step"] == (5 if how == "in mid-epoch" else 4)
    assert all(np.isfinite(array).all() for array in arrays.values())


def test_what_trains_nothing_detects_nothing(capsys):
    assert run("--profile", "--detect-anomaly") == 2
    assert "--detect-anomaly do not go with them" in capsys.readouterr().err
