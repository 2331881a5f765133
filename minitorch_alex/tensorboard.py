"""A run as TensorBoard shows it: curves, first-layer filters, layers. Written through tensorboardX.

What writes is tensorboardX's EventsWriter, and not its SummaryWriter: that one passes everything on to a thread through
a queue, and what is still in there when a run is killed is lost.
"""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import numpy

from .nn import Module
from .plots import filter_pictures
from .summary import Layer, summary

SCALARS = {  # key in log.jsonl -> name; TensorBoard makes a section of those with the same word before the slash
    "loss": "loss/each_step",
    "train_loss": "loss/training",
    "test_loss": "loss/held_out",
    "test_top1": "error_percent/top-1",
    "test_top5": "error_percent/top-5",
    "lr": "learning_rate",
    "images_per_second": "images_per_second",
}
SECONDS = 5  # between writing to the disk: what TensorBoard shows is no older


def check_installed() -> None:
    """Raise ImportError, with the remedy, where tensorboardX is missing."""
    try:
        importlib.import_module("tensorboardX")
    except ImportError:
        remedy = '--tensorboard needs tensorboardX: python -m pip install "minitorch_alex[tensorboard]"'
        raise ImportError(remedy) from None


class Board:
    """The event files in a folder, which `tensorboard --logdir FOLDER` shows while they grow."""

    def __init__(self, folder: Path, network: Module, image_shape: tuple[int, ...], step: int = 0) -> None:
        """Begin with the layers, or, where there are events already, by taking back those after `step`."""
        check_installed()
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        earlier = len(list(folder.glob("events.*")))
        self.is_new = not earlier
        # tensorboardX names a file by the second: without a number, a run resumed at once would overwrite what it had
        self._file = EventsWriter(str(folder / "events"), f".{earlier:04}")
        self._next_flush = 0.0
        self._filters_until = -1 if self.is_new else step
        # The first of these TensorBoard passes over; at any other it forgets what it has from that step on
        self._write(step + 1, session_log=SessionLog(status=SessionLog.START))
        if self.is_new:
            self._write(0, graph_def=layer_graph(network, image_shape).SerializeToString())

    def log(self, line: dict[str, Any]) -> None:
        """Add the numbers of a line of log.jsonl. A share of right answers becomes an error in percent."""
        from tensorboardX.summary import scalar

        for key, name in SCALARS.items():
            if key in line:
                value = 100 * (1 - line[key]) if name.startswith("error_percent") else line[key]
                self._write(line["step"], summary=scalar(name, value))

    def filters(self, step: int, weights: numpy.ndarray) -> None:
        """Add filters (F, C, R, S) as one picture, unless a resumed run has that of this step already."""
        from tensorboardX.summary import image

        if step > self._filters_until:
            self._filters_until = step
            self._write(step, summary=image("first_layer_filters", filter_grid(weights), dataformats="HWC"))
            self.flush()

    def flush(self) -> None:
        """Have everything on the disk, so that a checkpoint is never ahead of it."""
        self._file.flush()
        self._next_flush = time.monotonic() + SECONDS

    def close(self) -> None:
        """Write what is left."""
        self._file.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write_event(Event(wall_time=time.time(), step=step, **content))
        if time.monotonic() >= self._next_flush:
            self.flush()


def filter_grid(weights: numpy.ndarray) -> numpy.ndarray:
    """Filters (F, C, R, S) -> bytes (H, W, 3 or 1): row after row of what plots.filters draws, white between them."""
    pictures, columns = filter_pictures(weights)
    rows = -(-len(pictures) // columns)
    F, R, S, C = pictures.shape
    grid = numpy.ones((rows * columns, R + 1, S + 1, C))
    grid[:F, :R, :S] = pictures
    grid = grid.reshape(rows, columns, R + 1, S + 1, C).swapaxes(1, 2).reshape(rows * (R + 1), columns * (S + 1), C)
    return numpy.rint(255 * grid[:-1, :-1]).astype("uint8")


def layer_graph(network: Module, image_shape: tuple[int, ...]) -> Any:
    """The layers as a TensorFlow GraphDef: a chain, in the order in which they compute.

    The node features/0/Conv2d is the layer features.0: TensorBoard folds at slashes. So that it draws every layer by
    itself (it merges nodes of one kind with numbered names, conv1 to conv5), each has a fold of its own. A layer that
    computes a second time gets a second one.
    """
    from tensorboardX.proto.attr_value_pb2 import AttrValue
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef
    from tensorboardX.proto.tensor_shape_pb2 import TensorShapeProto

    nodes: dict[str, NodeDef] = {}
    before: list[str] = []
    for layer in [Layer("", "input", tuple(image_shape), 0, 0, False), *summary(network, image_shape).layers]:
        path, times = layer.path.replace(".", "/"), 1
        name = f"{path}/{layer.kind}".lstrip("/")
        while name in nodes:
            times += 1
            name = f"{path}_{times}/{layer.kind}"
        sizes = [TensorShapeProto.Dim(size=n) for n in (-1, *layer.output_shape)]  # -1: any number of images
        shape = AttrValue.ListValue(shape=[TensorShapeProto(dim=sizes)])
        attributes = {
            "_output_shapes": AttrValue(list=shape),  # by this name TensorBoard knows it, and writes it at the arrows
            "parameters": AttrValue(i=layer.parameters),
            "multiply_accumulates": AttrValue(i=layer.multiply_accumulates),
        }
        nodes[name] = NodeDef(name=name, op=layer.kind, input=before, attr=attributes)
        before = [name]
    return GraphDef(node=nodes.values())
