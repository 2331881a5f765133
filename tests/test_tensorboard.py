"""The files for TensorBoard, read back: scalars, filters, layers, and what a resumed run takes back."""

import io
import struct
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from minitorch_alex import nn, plots, tensorboard
from minitorch_alex.tensorboard import Board, filter_grid, layer_graph

needs_tensorboardx = pytest.mark.usefixtures("tensorboardx")
SHAPE = (3, 6, 6)
WEIGHTS = np.random.default_rng(0).standard_normal((7, 3, 5, 5))


@pytest.fixture
def tensorboardx():
    return pytest.importorskip("tensorboardX", reason="needs tensorboardX: pip install tensorboardX")


@pytest.fixture
def network():
    return nn.Sequential({"conv": nn.Conv2d(3, 7, 5), "relu": nn.ReLU()})


def step_line(step, loss=1.0):
    return {"step": step, "epoch": 1, "at": step / 10, "loss": loss, "lr": 0.1}


def epoch_line(step, epoch):
    line = {"epoch": epoch, "step": step, "train_loss": 1.5, "test_loss": 1.25}
    return {**line, "test_top1": 0.75, "test_top5": 1.0, "images_per_second": 123.4}


def events(folder):
    """All events in the order in which TensorBoard reads them. A record: length, checksum, event, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.iterdir()):
        content = io.BytesIO(file.read_bytes())
        while header := content.read(12):
            (length,) = struct.unpack("<Q", header[:8])
            yield Event.FromString(content.read(length))
            content.read(4)


def shown(folder):
    """Name -> [(step, value), ...] as TensorBoard has it: each START but the first takes back what is after it."""
    from tensorboardX.proto.event_pb2 import SessionLog

    found, started = {}, False
    for event in events(folder):
        if event.session_log.status == SessionLog.START:
            if started:
                found = {name: [v for v in values if v[0] < event.step] for name, values in found.items()}
            started = True
        for value in event.summary.value:
            content = value.image if value.HasField("image") else value.simple_value
            found.setdefault(value.tag, []).append((event.step, content))
    return found


@needs_tensorboardx
def test_scalars(network, tmp_path):
    board = Board(tmp_path, network, SHAPE)
    for line in (step_line(1, 2.5), step_line(2, 2.0), epoch_line(2, 1)):
        board.log(line)
    board.close()
    rounded = {name: [(step, round(v, 4)) for step, v in values] for name, values in shown(tmp_path).items()}
    assert rounded == {
        "loss/each_step": [(1, 2.5), (2, 2.0)],
        "learning_rate": [(1, 0.1), (2, 0.1)],
        "loss/training": [(2, 1.5)],
        "loss/held_out": [(2, 1.25)],
        "error_percent/top-1": [(2, 25.0)],
        "error_percent/top-5": [(2, 0.0)],
        "images_per_second": [(2, 123.4)],
    }
    assert all(abs(event.wall_time - time.time()) < 600 for event in events(tmp_path))


@needs_tensorboardx
@pytest.mark.parametrize("channels", [1, 3])
def test_filters_are_those_of_the_figure(network, tmp_path, channels):
    weights = WEIGHTS[:, :channels]
    board = Board(tmp_path, network, SHAPE)
    board.filters(0, weights)
    board.close()
    ((step, picture),) = shown(tmp_path)["first_layer_filters"]
    pixels = np.asarray(Image.open(io.BytesIO(picture.encoded_image_string)).convert("RGB"), "float64") / 255
    drawn = [np.atleast_3d(axes.images[0].get_array()) for axes in plots.filters(weights).axes if axes.images]
    assert (step, len(drawn), pixels.shape) == (0, 7, (5, 7 * 6 - 1, 3))
    for i, values in enumerate(drawn):
        np.testing.assert_allclose(pixels[:, 6 * i : 6 * i + 5], np.broadcast_to(values, (5, 5, 3)), atol=0.5 / 255)
    assert (pixels[:, 5::6] == 1).all()


def test_filters_fill_rows_from_the_left():
    grid = filter_grid(np.random.default_rng(0).standard_normal((17, 3, 2, 2)))
    assert grid.shape == (3 * 3 - 1, 6 * 3 - 1, 3)
    assert (grid[6:, 15:] == 255).all()  # the place of an eighteenth
    assert [(grid[row : row + 2, 12:14] != 255).any() for row in (0, 3, 6)] == [True] * 3
    assert (grid[2::3] == 255).all()


@needs_tensorboardx
def test_layers_are_a_chain_of_folds():
    features = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    network = nn.Sequential({"features": features, "flatten": nn.Flatten(), "fc": nn.Linear(72, 5)})
    nodes = list(layer_graph(network, SHAPE).node)
    folds = ["features/0/Conv2d", "features/1/ReLU", "features/2/MaxPool2d", "flatten/Flatten", "fc/Linear"]
    assert [node.name for node in nodes] == ["input", *folds]
    assert [list(node.input) for node in nodes] == [[], *([node.name] for node in nodes[:-1])]
    assert [node.op for node in nodes] == ["input", "Conv2d", "ReLU", "MaxPool2d", "Flatten", "Linear"]
    shapes = [[size.size for size in node.attr["_output_shapes"].list.shape[0].dim] for node in nodes]
    assert shapes == [[-1, 3, 6, 6], [-1, 8, 6, 6], [-1, 8, 6, 6], [-1, 8, 3, 3], [-1, 72], [-1, 5]]
    assert [node.attr["parameters"].i for node in nodes] == [0, 8 * 27 + 8, 0, 0, 0, 72 * 5 + 5]
    assert [node.attr["multiply_accumulates"].i for node in nodes] == [0, 8 * 27 * 36, 0, 0, 0, 72 * 5]


@needs_tensorboardx
def test_a_layer_used_twice_and_a_network_of_one():
    class Twice(nn.Module):
        def __init__(self):
            self.fc, self.relu, self.relu_2 = nn.Linear(4, 4), nn.ReLU(), nn.ReLU()

        def forward(self, x):
            return self.relu(self.relu_2(self.relu(self.fc(x))))

    names = [node.name for node in layer_graph(Twice(), (4,)).node]
    assert names == ["input", "fc/Linear", "relu/ReLU", "relu_2/ReLU", "relu_3/ReLU"]
    assert [node.name for node in layer_graph(nn.Linear(4, 4), (4,)).node] == ["input", "Linear"]


def resumed(folder, network):
    """A run killed after its step 6 and resumed from its step 4. Returns its name -> steps."""
    killed = Board(folder, network, SHAPE)
    killed.filters(0, WEIGHTS)
    for step in range(1, 7):
        killed.log(step_line(step, loss=1.0))
        if step == 4:
            killed.log(epoch_line(step, 1))
            killed.filters(step, WEIGHTS)
    killed.log(epoch_line(6, 2))
    killed.close()
    board = Board(folder, network, SHAPE, step=4)
    assert (killed.is_new, board.is_new) == (True, False)
    board.filters(4, WEIGHTS)
    board.log(step_line(5, loss=3.0))
    board.close()
    return {"loss/each_step": [1, 2, 3, 4, 5], "loss/held_out": [4], "first_layer_filters": [0, 4]}


@needs_tensorboardx
def test_a_resumed_run_takes_back_what_came_after_its_checkpoint(network, tmp_path, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)  # as if it were resumed in the same second
    expected = resumed(tmp_path, network)
    assert len(list(tmp_path.iterdir())) == 2
    found = shown(tmp_path)
    assert {name: [step for step, _ in found[name]] for name in expected} == expected
    assert found["loss/each_step"][-1] == (5, 3.0)
    assert sum(event.HasField("graph_def") for event in events(tmp_path)) == 1


@needs_tensorboardx
def test_tensorboard_itself_sees_it_so(network, tmp_path):
    reason = "needs TensorBoard: pip install tensorboard"
    reader = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator", reason=reason)
    expected = resumed(tmp_path, network)
    read = reader.EventAccumulator(str(tmp_path)).Reload()
    assert {name: [event.step for event in read.Tensors(name)] for name in expected} == expected
    assert [node.name for node in read.Graph().node] == ["input", "conv/Conv2d", "relu/ReLU"]


@needs_tensorboardx
def test_what_is_written_outlives_a_killed_run(network, tmp_path, monkeypatch):
    board = Board(tmp_path, network, SHAPE)
    board.log(step_line(1))
    board.filters(1, WEIGHTS)
    assert list(shown(tmp_path)) == ["loss/each_step", "learning_rate", "first_layer_filters"]
    board.log(step_line(2))
    assert len(shown(tmp_path)["loss/each_step"]) == 1  # not every step waits for the disk
    monkeypatch.setattr(time, "monotonic", lambda: board._next_flush)
    board.log(step_line(3))
    assert len(shown(tmp_path)["loss/each_step"]) == 3
    monkeypatch.undo()
    board.log(step_line(4))
    board.flush()
    assert len(shown(tmp_path)["loss/each_step"]) == 4
    board.close()


def test_without_tensorboardx_the_remedy_is_said(network, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'^--tensorboard needs tensorboardX: .*"minitorch_alex\[tensorboard\]"$'):
        Board(tmp_path / "new", network, SHAPE)
    assert not (tmp_path / "new").exists()


def test_tensorboardx_waits_until_it_is_needed():
    code = f"import sys, {tensorboard.__name__}; print('tensorboardX' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
