"""The memory of a training step: the prediction counted by hand, and against what a process of its own takes."""

import json
import re
import subprocess

import numpy as np
import pytest

from minitorch_alex import backends, memory, nn
from minitorch_alex.backends.thread_pool import usable_cores
from minitorch_alex.backends.window import Window
from minitorch_alex.summary import summary


def test_the_prediction_counts_by_hand(backend):
    network = nn.Sequential({"a": nn.Linear(10, 20), "relu": nn.ReLU(), "b": nn.Linear(20, 5)})
    a, b = 10 * 20 + 20, 20 * 5 + 5  # parameters
    batch = 100
    moment = memory.peak(network, (10,), batch)
    # gradient of relu: that of a's output comes from that of relu's, and b's are finished
    assert moment.name == "the gradient of relu"
    assert (moment.weights, moment.velocities, moment.images) == (4 * (a + b), 4 * (a + b), 4 * 10 * batch)
    assert moment.kept == 4 * batch * 20  # what relu returned; no gradient function asks for what a did
    assert moment.gradients == 4 * (b + batch * (20 + 20))
    assert moment.buffers == 0
    assert summary(network, (10,)).training_bytes(batch) == moment.total == sum(moment[1:])
    # a small batch: now the optimizer's step is the peak, where the largest weight is there twice
    moment = memory.peak(network, (10,), 1)
    assert (moment.name, moment.kept) == ("the optimizer's step", 0)
    assert (moment.gradients, moment.buffers) == (4 * (a + b), 4 * 200)


def test_columns_on_a_gpu_are_those_of_a_few_images(stand_in, monkeypatch):
    import minitorch_alex.backends.cuda_windows as cuda_windows

    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 8 * 8, 2))
    columns, output = 4 * 4 * 9 * 64, 4 * 6 * 64  # bytes for one image
    for limit, at_a_time in ((1 << 28, 50), (7 * columns, 7), (1, 1)):
        monkeypatch.setattr(cuda_windows, "COLUMN_BYTES", limit)
        shapes = (50, 4, 10, 10), (50, 6, 8, 8), (6, 2, 3, 3)
        buffers = backends.current().conv2d_buffers(*shapes, Window((3, 3)), 2, np.dtype("float32"))
        assert buffers == (0, at_a_time * (columns + output // 2))
    assert memory.peak(network, (4, 10, 10), 50).name  # and the network is asked about on it


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_columns_are_those_of_the_batch_or_of_one_image_a_thread(name, monkeypatch):
    reason = backends.why_not(name)
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setattr(backends, "_current", None)
    backends.use(name)
    cores = usable_cores()
    network = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(6 * 8 * 8, 2))
    moment = memory.peak(network, (4, 10, 10), 50)
    columns, output = 4 * 4 * 9 * 64, 4 * 6 * 64  # bytes for one image
    if name == "numpy":
        assert moment.name == "the gradient of conv2d"
        assert moment.buffers == 50 * (columns + columns // 2 + output // 2)
    else:
        assert moment.buffers == cores * (columns + output)
        moment = memory.peak(nn.Sequential(nn.Conv2d(4, 6, 10), nn.Flatten()), (4, 10, 10), 1)  # mostly weights
        assert moment.name == "the gradient of conv2d"
        sums = 2 if cores == 1 else 1  # a single image is shared out by channels
        assert moment.buffers == cores * 4 * (400 + 6) + sums * 4 * 2400


def test_the_network_stays_as_it_was():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 4, 3))
    network[1].eval()
    before = network.state_dict()
    memory.peak(network, (1, 4, 4), 8)
    after = network.state_dict()
    assert all((before[name] == after[name]).all() for name in before)
    assert [m.training for _, m in network.named_modules()] == [True, True, False, True, True]
    assert all(p.grad is None for p in network.parameters())


def test_what_two_share_counts_once():
    shared = nn.Linear(30, 30)
    network = nn.Sequential(nn.Flatten(), shared, nn.Flatten(), shared)  # Flatten gives views here
    moment = memory.peak(network, (30,), 1000)
    assert moment.weights == moment.velocities == 4 * (30 * 30 + 30)
    assert moment.name == "the gradient of linear"  # of the second: what the loss has kept is gone by then
    assert moment.kept == 4 * 1000 * 30  # what the first returned


def test_frozen_weights_have_neither_velocity_nor_gradient():
    network = nn.Sequential({"a": nn.Linear(10, 20), "b": nn.Linear(20, 5)})
    for p in network.a.parameters():
        p.requires_grad = False
    moment = memory.peak(network, (10,), 1)
    assert moment.weights == 4 * (220 + 105)
    assert moment.velocities == 4 * 105
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    network[0].weight.requires_grad = False
    assert memory.peak(network, (1, 3, 3), 1).velocities == 4 * 2  # of the bias


@pytest.mark.parametrize(("name", "classes"), [("numpy", 10), ("numba", 1000)])  # mostly columns; mostly weights
def test_the_prediction_is_within_a_tenth_of_what_is_measured(name, classes):
    reason = backends.why_not(name) or (None if memory._status("VmHWM") else "the system does not tell the peak")
    if reason is not None:
        pytest.skip(reason)
    said = memory.report("alexnet_small", classes, (3, 32, 32), 64, name)
    found = re.fullmatch(r"peak of one step: (\d+) MiB measured; (\d+) MiB predicted, at .+ \(.+\)", said)
    assert found, said
    assert int(found[2]) == pytest.approx(int(found[1]), rel=0.1), said


@pytest.mark.parametrize(("model", "batch"), [("alexnet_small", 64), ("lenet5", 100)])
def test_the_prediction_for_a_gpu_is_within_a_tenth_of_what_the_step_takes(model, batch, stand_in):
    shape = (3, 32, 32) if model == "alexnet_small" else (1, 32, 32)
    measured, predicted = memory.measure(model, 10, shape, batch, "cupy")
    assert predicted.total == pytest.approx(measured, rel=0.1), str(predicted)


def test_a_step_that_cannot_be_taken_says_why():
    with pytest.raises(RuntimeError, match=r"^the step could not be taken: ValueError: there is no model 'vgg'[^\n]*$"):
        memory.report("vgg", 10, (3, 32, 32), 4, "numpy")


def test_what_cannot_be_measured_is_said_in_one_line(monkeypatch):
    answer = json.dumps([None, ["the optimizer's step", *[2**20] * 6]])
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 0, answer, ""))
    assert memory.report("lenet5", 10, (1, 32, 32), 4, "numpy") == (
        "peak of one step: cannot be measured here: only Linux tells it, in /proc; 6 MiB predicted, at the optimizer's "
        "step (weights 1, velocities 1, images 1, kept for backward 1, gradients 1, buffers 1)"
    )
    monkeypatch.setattr(memory.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], -9, "", ""))
    with pytest.raises(MemoryError, match="ended by signal 9: probably the memory did not suffice"):
        memory.report("lenet5", 10, (1, 32, 32), 4, "numpy")


def test_where_the_system_does_not_tell_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(backends, "_current", None)
    monkeypatch.setattr(memory, "_status", lambda field: None)
    monkeypatch.setattr(memory, "give_back_at_once", lambda: None)  # this process is not a new one
    measured, predicted = memory.measure("alexnet_small", 2, (1, 8, 8), 4, "numpy")
    assert measured is None
    assert predicted.total > 0
