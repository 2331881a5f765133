"""Where the time goes: on a clock that only stands still or jumps, work counted by hand, and what is shown of it."""

import time

import numpy as np
import pytest
import threadpoolctl

import minitorch_alex.functional as F
from minitorch_alex import Tensor, backends, manual_seed, nn, peak, profiler, train
from minitorch_alex.clock import Clock, GpuClock, clock_of
from minitorch_alex.models import MODELS, build
from minitorch_alex.optim import SGD
from minitorch_alex.peak import Peak
from minitorch_alex.profiler import Profile, Row, profile
from minitorch_alex.tensor import op

PEAK = Peak(100e9, 10e9)


class Jumping(Clock):
    """A clock, in milliseconds, that goes on only when it is told to."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def milliseconds(self, begin, end):
        return end - begin


@pytest.fixture
def clock(monkeypatch):
    made = Jumping()
    monkeypatch.setattr(profiler, "clock_of", lambda backend: made)
    monkeypatch.setattr(profiler, "measure_peak", lambda backend, dtype: PEAK)
    monkeypatch.setattr(profiler, "SECONDS", 0.0)
    return made


@op
def slow(xp, x, clock, forward, backward):
    """x, in some time."""
    clock.time += forward

    def gradient(g):
        clock.time += backward
        return g

    return 1 * x, (gradient,)


class Slow(nn.Module):
    """Two operations, of which each takes half of the time."""

    def __init__(self, clock, forward, backward):
        self.clock, self.times = clock, (forward / 2, backward / 2)

    def forward(self, x):
        for _ in range(2):
            x = slow(x, clock=self.clock, forward=self.times[0], backward=self.times[1])
        return x


class Network(nn.Module):
    """b is called twice and has two names, and something is computed in no layer."""

    def __init__(self, clock):
        self.clock = clock
        self.linear = nn.Linear(4, 3)
        self.b = Slow(clock, 10.0, 20.0)
        self.inside = nn.Sequential({"c": Slow(clock, 300.0, 700.0)})
        self.also_b = self.b

    def forward(self, x):
        x = self.b(self.linear(x))
        x = slow(x, clock=self.clock, forward=1000.0, backward=4000.0)
        return self.also_b(self.inside(x))


def in_turn(clock, *times):
    """An optimizer's step that takes these times, one after the other."""
    waiting = list(times)

    def step():
        clock.time += waiting.pop(0)

    return step


def test_every_millisecond_is_somewhere_and_only_once(clock):
    network = Network(clock)
    optimizer = SGD(network.parameters(), 0.1)
    optimizer.step = in_turn(clock, 90_000.0, 5.0, 7.0, 60_000.0)
    found = profile(network, optimizer, np.ones((2, 4), "float32"), np.zeros(2, "int64"))
    times = {row.path: (row.forward, row.backward) for row in found.rows}
    assert list(times.items()) == [
        ("linear", (0, 0)), ("b", (20, 40)), ("inside.c", (300, 700)),
        ("loss", (0, 0)), ("optimizer", (7, 0)), ("the rest", (5000, 0)),
    ]  # fmt: skip
    assert found.steps == 3, "the step that warms up does not count, and the median is not moved by a slow one"
    assert found.milliseconds == 60 + 1000 + 7 + 5000
    assert found.table()[-1][:5] == ("step", "", "5327.00", "740.00", "6067.00")


def test_the_loss_is_a_row_of_its_own(clock, monkeypatch):
    plain = F.cross_entropy
    in_time = {"clock": clock, "forward": 2.0, "backward": 3.0}
    monkeypatch.setattr(F, "cross_entropy", lambda scores, labels: plain(slow(scores, **in_time), labels))
    network = nn.Linear(4, 3)
    found = profile(network, SGD(network.parameters(), 0.1), np.ones((2, 4), "float32"), np.zeros(2, "int64"))
    assert [(row.path, row.forward, row.backward) for row in found.rows if row.milliseconds] == [("loss", 2, 3)]


def test_the_network_learns_as_ever_and_is_not_watched_afterwards(clock, backend):
    images = np.random.default_rng(0).standard_normal((4, 1, 8, 8)).astype("float32")
    labels = np.arange(4)
    states = []
    for watched in (True, False):
        manual_seed(0)
        network = build("alexnet_small", 4, (1, 8, 8))
        optimizer = SGD(network.parameters(), 0.01, 0.9)
        if watched:
            profile(network, optimizer, images, labels)
            assert all("forward" not in vars(module) for _, module in network.named_modules())
        else:
            for _ in range(1 + profiler.LEAST_STEPS):
                optimizer.zero_grad()
                F.cross_entropy(network(Tensor(images)), labels).backward()
                optimizer.step()
        states.append(network.state_dict())
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], name)


def test_a_network_that_fails_is_not_watched_any_more(clock):
    network = nn.Sequential(nn.Flatten(), nn.Linear(5, 2))
    with pytest.raises(ValueError, match="features"):
        profile(network, SGD(network.parameters(), 0.1), np.ones((2, 4), "float32"), np.zeros(2, "int64"))
    assert all("forward" not in vars(module) for _, module in network.named_modules())


# -- work ---------------------------------------------------------------------------------
def rows_of(network, shape):
    found = profile(
        network, SGD(network.parameters(), 0.1, 0.9), np.ones(shape, "float32"), np.zeros(shape[0], "int64")
    )
    return {row.path: row for row in found.rows}


def test_work_is_counted_by_hand(clock):
    network = nn.Sequential(
        {
            "first": nn.Conv2d(2, 4, 3),
            "relu": nn.ReLU(),
            "second": nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(6 * 4 * 4, 5),
        }
    )
    rows = rows_of(network, (7, 2, 6, 6))
    N, images, activations = 7, 7 * 2 * 6 * 6, 7 * 4 * 4 * 4  # numbers; a first and a relu output are as large
    first, second, fc = 4 * 2 * 9 + 4, 6 * 2 * 9, 5 * 96 + 5
    assert rows["first"].operations == 2 * N * (4 * 4 * 4 * 2 * 9) * 2, "there is no gradient of the images"
    assert rows["second"].operations == 2 * N * (6 * 4 * 4 * 2 * 9) * 3
    assert rows["fc"].operations == 2 * N * (96 * 5) * 3
    assert rows["relu"].operations == rows["flatten"].operations == 0
    out, scores = N * 6 * 4 * 4, N * 5
    assert rows["first"].bytes == 4 * ((images + first + activations) + (activations + images + first))
    assert rows["relu"].bytes == 4 * (2 * activations + 2 * activations)
    assert rows["second"].bytes == 4 * (
        (activations + second + out) + (out + activations + second + second + activations)
    )
    assert rows["flatten"].bytes == 0, "another view of the same memory"
    assert rows["fc"].bytes == 4 * ((out + fc + scores) + (scores + out + fc + fc + out))
    assert rows["optimizer"].bytes == 4 * 5 * (first + second + fc)
    assert rows["loss"].bytes == rows["the rest"].bytes == 0


def test_what_is_frozen_has_less_to_do(clock):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 2 * 2, 3))
    whole = rows_of(network, (5, 1, 4, 4))
    for p in network[0].parameters():
        p.requires_grad = False
    trained = list(network[2].parameters())
    found = profile(network, SGD(trained, 0.1), np.ones((5, 1, 4, 4), "float32"), np.zeros(5, "int64"))
    rows = {row.path: row for row in found.rows}
    assert (rows["0"].operations, whole["0"].operations) == (2 * 5 * 72, 2 * 5 * 72 * 2)
    assert rows["0"].bytes == 4 * (5 * 16 + 20 + 5 * 8)
    assert (rows["2"].operations, whole["2"].operations) == (2 * 5 * 24 * 2, 2 * 5 * 24 * 3)
    assert rows["optimizer"].bytes == 4 * 3 * 27, "no velocity where there is no momentum"


# -- the machine --------------------------------------------------------------------------
def test_the_nearer_bound_decides():
    assert PEAK.least_milliseconds(3e8, 1e6) == pytest.approx(3.0)
    assert PEAK.least_milliseconds(3e8, 5e7) == pytest.approx(5.0)


def test_the_fastest_call_counts_but_not_the_first(monkeypatch):
    clock, times = Jumping(), [1.0, 9.0, 4.0, 6.0, 8.0, 2.0]
    monkeypatch.setattr(peak, "MILLISECONDS", 25.0)

    def call():
        clock.time += times.pop(0)

    assert peak.fastest(clock, call) == 4.0
    assert times == [2.0], "27 ms are enough"


@pytest.fixture
def small_peak(monkeypatch):
    """As quick as can be."""
    for name, value in {
        "MILLISECONDS": 0.0,
        "SIDE": 64,
        "SIDE_ON_GPU": 32,
        "NUMBERS": 999,
        "NUMBERS_ON_GPU": 500,
    }.items():
        monkeypatch.setattr(peak, name, value)


def test_the_peak_is_of_what_is_computed(backend, small_peak, monkeypatch):
    monkeypatch.setattr(peak, "fastest", lambda clock, call: [call()] and 2.0)  # milliseconds
    before = threadpoolctl.threadpool_info()
    found = peak.measure_peak(backend)
    side, numbers = (32, 500) if backend.has_own_memory else (64, 999)
    assert found == (pytest.approx(2 * side**3 / 2e-3), pytest.approx(3 * 4 * numbers / 2e-3))
    assert threadpoolctl.threadpool_info() == before


def test_every_core_adds_its_slice(monkeypatch):
    added = []
    monkeypatch.setattr(peak, "NUMBERS", 1000)
    monkeypatch.setattr(peak, "usable_cores", lambda: 3)
    monkeypatch.setattr(peak.numpy, "add", lambda a, b, out: added.append(len(out)))
    monkeypatch.setattr(peak, "fastest", lambda clock, call: [call()] and 1.0)
    peak._of_the_cores_memory(Clock())
    assert sorted(added) == [333, 333, 334]


def test_a_clock_tells_time(backend):
    clock = clock_of(backend)
    assert isinstance(clock, GpuClock) == backend.has_own_memory
    begin = clock.now()
    time.sleep(0.01)
    end = clock.now()
    clock.wait_for(end)
    assert 9 < clock.milliseconds(begin, end) < 1000


# -- what is shown ------------------------------------------------------------------------
ROWS = [
    Row("conv", "Conv2d", 2_000_000_000, 1000, 10.0, 30.0),  # 20 of 40 ms
    Row("winograd", "Conv2d", 3_000_000_000, 1000, 5.0, 10.0),  # 30 of 15 ms
    Row("relu", "ReLU", 0, 40_000_000, 6.0, 10.0),  # 4 of 16 ms
    Row("pool", "MaxPool2d", 0, 10_000_000, 2.0, 2.0),  # 1 of 4 ms
    Row("lrn", "LocalResponseNorm", 0, 10_000_000, 1.0, 1.0),  # 1 of 2 ms
    Row("flatten", "Flatten", 0, 0, 0.0, 0.0),
    Row("loss", ""),
    Row("optimizer", "", 0, 0, 3.0),
    Row("the rest", "", 0, 0, 20.0),
]


def test_the_table():
    shown = repr(Profile(ROWS, PEAK, (8, 3, 227, 227), 5))
    table = shown.split("\n\n")[1].splitlines()
    lines = {line.split()[0]: line.split() for line in table}
    assert shown.startswith("a step of 8 images of 3 x 227 x 227: medians of 5")
    assert "100 GFLOP/s in a matrix product, 10.0 GB/s in an addition" in shown
    assert lines["conv"][2:] == ["10.00", "30.00", "40.00", "40.0", "%", "50.0", "0.0", "50", "%", "#####.....", "<--"]
    assert lines["winograd"][-3:] == ["200", "%", "##########"]
    assert lines["relu"][2:] == ["6.00", "10.00", "16.00", "16.0", "%", "2.5", "25", "%", "##........", "<--"]
    assert lines["flatten"] == ["flatten", "Flatten", "0.00", "0.0", "%"]
    assert lines["the"] == ["the", "rest", "20.00", "20.0", "%"], "nothing to compare it with"
    assert lines["step"][1:5] == ["47.00", "53.00", "100.00", "100.0"]
    assert [line.split()[0] for line in shown.splitlines() if line.endswith(" <--")] == ["conv", "relu", "pool"]
    assert shown.splitlines()[-1] == (
        "Where the time goes: Conv2d 55 %, ReLU 16 %, the rest 20 %. What is counted would take 56.0 ms at "
        "the peak, and the step took 100.0; most is lost in conv: 20.0 ms."
    )


def test_the_column_adds_up(clock):
    network = Network(clock)
    found = profile(network, SGD(network.parameters(), 0.1), np.ones((2, 4), "float32"), np.zeros(2, "int64"))
    *rows, whole = found.table()[1:]
    assert sum(float(row[4]) for row in rows) == float(whole[4]) == 6060.0


# -- the command --------------------------------------------------------------------------
@pytest.fixture
def quick(small_peak, monkeypatch, tmp_path):
    monkeypatch.setattr(profiler, "SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)


ROW_BY_ROW = [
    "conv1", "relu1", "norm1", "pool1", "conv2", "relu2", "norm2", "pool2", "conv3", "relu3", "flatten", "drop4", "fc4",
    "loss", "optimizer", "the", "step",
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "precision"), [("numpy", "fp32"), ("numba", "fp32"), ("cupy", "fp32"), ("cupy", "bf16")]
)
def test_profile_of_a_run(name, precision, quick, few_digits, capsys, request, tmp_path, monkeypatch):
    if name == "cupy":
        request.getfixturevalue("stand_in")
    elif backends.why_not(name):
        pytest.skip(backends.why_not(name))
    prepared, given = [], []
    monkeypatch.setattr(train, "set_training_mode", prepared.append)
    monkeypatch.setattr(train, "profile", lambda *arguments: given.extend(arguments) or profile(*arguments))
    assert train.main(["--profile", "--backend", name, "--precision", precision, "--batch-size", "6"]) == 0
    assert [run.network for run in prepared] == [given[0]]
    assert str(given[2].dtype) == ("bfloat16" if precision == "bf16" else "float32")
    head, _, what, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith(f"alexnet_small on digits, backend {name}")
    assert what == "a step of 6 images of 1 x 8 x 8: medians of 3, after one to warm up"
    table = [line.split() for line in lines[3 : 3 + len(ROW_BY_ROW)]]
    assert [cells[0] for cells in table] == ROW_BY_ROW
    assert all(float(cells[4]) > 0 for cells in table[:13])
    assert lines[-1].startswith("Where the time goes: ")
    assert not list(tmp_path.iterdir())


def test_profile_without_imagenet(quick, monkeypatch, capsys):
    entry = MODELS["alexnet"]._replace(make=lambda classes: build("alexnet_small", classes, (3, 8, 8)))
    monkeypatch.setitem(MODELS, "alexnet", entry._replace(image_shape=(3, 8, 8)))
    assert train.main(["--profile", "--config", "alexnet", "--batch-size", "2", "--backend", "numpy"]) == 0
    shown = capsys.readouterr().out
    assert "noise in place of ImageNet's 1,281,167 photographs" in shown
    assert "a step of 2 images of 3 x 8 x 8" in shown


@pytest.mark.parametrize("other", ["--out", "--resume"])
def test_a_profile_leaves_no_run_behind(other, capsys):
    assert train.main(["--profile", other, "somewhere"]) == 2
    assert "--profile train nothing" in capsys.readouterr().err


def test_too_large_a_batch_is_told_in_a_line(quick, few_digits, monkeypatch, capsys):
    def profile(*_):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr(train, "profile", profile)
    assert train.main(["--profile", "--backend", "numpy"]) == 2
    assert capsys.readouterr().err == (
        "train: --batch-size 32: the memory does not suffice (Unable to allocate 9 TiB); a smaller one needs less\n"
    )
