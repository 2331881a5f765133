"""What the tape costs, told without a clock: function calls of ours, and arrays that it keeps alive."""

import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

import minitorch_alex
from minitorch_alex import backends, nn, tensor
from minitorch_alex import functional as F
from minitorch_alex.optim import SGD

PACKAGE = str(Path(minitorch_alex.__file__).parent)


@pytest.fixture(autouse=True)
def _plain_arrays(monkeypatch):
    """The tape is the same on every backend. NumPy's has no functions that come and go with a compiler."""
    monkeypatch.setattr(backends, "_current", None)
    backends.use("numpy")


def calls(function):
    """How many functions of the package run when this one is called."""
    count = 0

    def look(frame, event, _):
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def chain(length):
    x, y = tensor([1.0], requires_grad=True), tensor([2.0])
    for _ in range(length):
        x = x + y
    return x


# -- time -----------------------------------------------------------------------
def test_calls_are_a_straight_line_in_the_depth():
    def both(length):
        forward = calls(lambda: chain(length))
        return forward, calls(chain(length).backward)

    both(1)  # the first time, the backend looks up a function of NumPy's
    at_100, at_200, at_400 = map(np.array, (both(100), both(200), both(400)))
    assert ((at_400 - at_200) == 2 * (at_200 - at_100)).all()
    forward, backward = (at_200 - at_100) / 100
    assert forward <= 12  # for one addition: a call more is felt in every network
    assert backward <= 5


def test_a_step_of_a_small_network_stays_within_its_calls():
    """A budget: 225 when this was written. Whoever needs more, for something worth it, raises it."""
    rng = np.random.default_rng(0)
    network = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9)
    x, labels = tensor(rng.standard_normal((32, 64)).astype("float32")), rng.integers(0, 10, 32)

    def step():
        loss = F.cross_entropy(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    step()
    assert calls(step) <= 240


def test_paths_are_worked_out_once_and_only_for_who_asks(monkeypatch):
    walks = []
    named_modules = nn.Sequential.named_modules
    monkeypatch.setattr(nn.Sequential, "named_modules", lambda *self: walks.append(1) or named_modules(*self))
    x = tensor(np.ones((2, 3), "float32"))
    nn.Sequential(nn.Linear(3, 3), nn.ReLU())(x)
    assert walks == []
    nn.Sequential(nn.Dropout(), nn.Linear(3, 3), nn.Dropout())(x)
    assert walks == [1]


def test_a_layer_called_by_hand_keeps_the_path_it_was_told():
    network = nn.Sequential(nn.ReLU())
    network(tensor([1.0]))
    network[0].path = "told"
    assert network[0].path == "told"
    gone = weakref.ref(network)
    del network
    assert gone() is None  # the pass over, nobody holds on to what was called


# -- memory -----------------------------------------------------------------------
ONES, KERNEL = np.ones(4, "float32"), np.ones((2, 3, 3, 3), "float32")
NEEDS_NO_INPUT = {
    "add": lambda h: h + 1,
    "times a number": lambda h: h * 3,
    "times a constant": lambda h: h * tensor(ONES),
    "relu": F.relu,
    "exp": F.exp,
    "sqrt": F.sqrt,
    "softmax": lambda h: F.softmax(h, 1),
    "dropout": lambda h: F.dropout(h, 0.5),
    "max_pool2d": lambda h: F.max_pool2d(h, 2),
    "avg_pool2d": lambda h: F.avg_pool2d(h, 2),
    "cat": lambda h: F.cat([h, h]),
    "sum": lambda h: F.sum(h, 1),
    "mean": lambda h: F.mean(h, 1),
    "var": lambda h: F.var(h, 1),
    "max": lambda h: F.max(h, 1).values,
    "reshape": lambda h: F.exp(h.reshape(-1)),
    "getitem": lambda h: h[[0, 1, 1]],
    "pad": lambda h: F.pad(h, (1, 1)),
    "adaptive_avg_pool2d": lambda h: F.adaptive_avg_pool2d(h, 3),
    "frozen linear": lambda h: F.linear(h, tensor(np.ones((2, 4), "float32"))).relu(),
}


@pytest.mark.parametrize("what", NEEDS_NO_INPUT)
def test_an_array_that_no_gradient_needs_dies_when_you_let_it_go(what):
    """The tape used to hold every tensor on it whole: a network's largest activations for nothing."""
    leaf = tensor(np.random.default_rng(0).random((2, 3, 4, 4)).astype("float32"), requires_grad=True)
    h = leaf + 1
    array = weakref.ref(h.data)
    loss = NEEDS_NO_INPUT[what](h).sum()
    assert array() is not None
    del h
    assert array() is None
    loss.backward()
    assert leaf.grad.shape == leaf.shape


def test_an_array_that_a_gradient_needs_stays_until_then():
    leaf = tensor([1.0, 2.0], requires_grad=True)
    h = leaf * 1
    array = weakref.ref(h.data)
    loss = (h * h).sum()
    del h
    assert array() is not None
    loss.backward()
    assert leaf.grad.numpy().tolist() == [2, 4]
    assert array() is None  # though the loss is still here
    assert loss.made_by == "sum"
