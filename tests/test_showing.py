"""What notebooks show: the tape as a picture, the engine's source, figures, progress."""

import inspect
import io
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import IPython.display
import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import minitorch_alex.functional as F
from minitorch_alex import nn, no_grad, plots, progress, tensor
from minitorch_alex.graph import LEAF, MADE, graph
from minitorch_alex.source import source
from minitorch_alex.tensor import Tensor


def boxes(picture):
    """Text -> the box around it, and the arrows."""
    (axes,) = picture.axes
    arrows = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    squares = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    return dict(zip([text.get_text() for text in axes.texts], squares, strict=True)), arrows


def test_the_tape_is_drawn():
    x, w = tensor(np.ones((4, 3))), tensor(np.ones((5, 3)), requires_grad=True)
    h = F.linear(x, w)
    loss = (h * h + w.sum()).mean()
    found, arrows = boxes(graph(loss, w=w, loss=loss, x=x))
    assert list(found) == [
        "w\n(5, 3)  #1", "linear\n(4, 5)  #2", "mul\n(4, 5)  #3", "sum\na number  #4", "add\n(4, 5)  #5",
        "loss = mean\na number  #6",
    ]  # fmt: skip
    assert len(arrows) == 1 + 2 + 1 + 2 + 1  # x requires no gradient, so there is no arrow from it
    left = [box.get_x() for box in found.values()]
    columns = [sorted(set(left)).index(x) for x in left]
    assert columns == [0, 1, 2, 1, 3, 4]  # one to the right of the furthest of what it was computed from


def test_boxes_hold_their_text_and_do_not_overlap():
    a = tensor(2.0, requires_grad=True)
    parts = [a * float(i) for i in range(4)]
    whole = parts[0] + parts[1] + parts[2] + parts[3] + a
    picture = graph(whole, a_leaf_with_a_long_name=a)
    picture.draw_without_rendering()
    found, arrows = boxes(picture)
    extents = [box.get_window_extent() for box in found.values()]
    for i, (one, text) in enumerate(zip(extents, picture.axes[0].texts, strict=True)):
        assert not any(one.overlaps(other) for other in extents[:i])
        assert picture.bbox.containsx(one.x0)
        assert picture.bbox.containsy(one.y1)
        inside = text.get_window_extent()
        assert one.x0 < inside.x0 < inside.x1 < one.x1
        assert one.y0 < inside.y0 < inside.y1 < one.y1
    assert all(arrow.zorder < box.zorder for arrow in arrows for box in found.values())


def test_twins_get_an_arrow_each():
    a = tensor(2.0, requires_grad=True)
    _, (one, other) = boxes(graph(a + a))
    assert one.get_connectionstyle().rad == -other.get_connectionstyle().rad != 0


def test_colours_and_the_way_of_the_arrows():
    a = tensor(2.0, requires_grad=True)
    picture = graph(a * 3.0)
    found, (arrow,) = boxes(picture)
    leaf, made = found.values()
    assert [to_hex(box.get_facecolor()) for box in (leaf, made)] == [LEAF, MADE]
    assert (arrow.patchA, arrow.patchB) == (leaf, made)  # the way the values went
    assert arrow.get_connectionstyle().rad == 0


def test_an_arrow_over_a_column_is_bent_round_what_is_between():
    a = tensor(2.0, requires_grad=True)
    b = a * 3.0
    _, arrows = boxes(graph(b + a))
    assert [arrow.get_connectionstyle().rad != 0 for arrow in arrows] == [False, False, True]


def test_lines_of_computation_do_not_cross():
    a, b = tensor(1.0, requires_grad=True), tensor(2.0, requires_grad=True)
    upper, lower = a * 2.0, b * 2.0
    found, _ = boxes(graph(upper + lower, a=a, b=b, upper=upper, lower=lower))
    height = {label.split(" = ")[0].split("\n")[0]: box.get_y() for label, box in found.items()}
    assert height["a"] == height["upper"] > height["b"] == height["lower"]


def test_graph_refuses_what_is_no_tensor():
    a = tensor(1.0, requires_grad=True)
    with pytest.raises(TypeError, match="graph: the first argument is float, not a Tensor"):
        graph(3.0)
    with pytest.raises(TypeError, match="graph: x is list, not a Tensor"):
        graph(a * a, x=[1.0])
    assert graph(a * a, tensor=a)


def test_a_leaf_alone_is_drawn_and_a_consumed_tape_refused():
    a = tensor(2.0, requires_grad=True)
    found, arrows = boxes(graph(a))
    assert (list(found), arrows) == (["leaf\na number  #1"], [])
    b = a * a
    b.backward()
    with pytest.raises(RuntimeError, match="consumed"):
        graph(b)


def test_pictures_show_themselves_at_their_size():
    picture = plots.filters(np.random.default_rng(0).standard_normal((8, 3, 5, 5)))
    png, size = picture._repr_png_()
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert image.width == pytest.approx(2 * size["width"], abs=2)  # sharp on screens with small pixels
    assert image.height == pytest.approx(2 * size["height"], abs=2)


def test_pictures_leave_matplotlib_alone(tmp_path):
    before = matplotlib.get_backend(auto_select=False)
    graph(tensor(1.0, requires_grad=True)).save(tmp_path / "g.png")
    assert matplotlib.get_backend(auto_select=False) == before
    with Image.open(tmp_path / "g.png") as image:
        assert min(image.size) > 50
    code = "import sys; import minitorch_alex.picture; print('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_a_network_is_drawn_as_blocks():
    network = nn.Sequential(
        {
            "conv": nn.Conv2d(3, 8, 5),
            "relu": nn.ReLU(),
            "pool": nn.MaxPool2d(2),
            "flat": nn.Flatten(),
            "fc": nn.Linear(72, 5),
        }
    )
    picture = plots.architecture(network, (3, 10, 10))
    (axes,) = picture.axes
    texts = [text.get_text() for text in axes.texts]
    assert texts == ["input\n3", "10 x 10", "conv\n8", "6 x 6", "pool\n8", "3 x 3", "fc\n5"]
    faces = [patch for patch in axes.patches if patch.get_alpha() == 1.0]
    areas = [np.ptp(face.get_xy(), axis=0).prod() for face in faces]
    assert areas[0] > areas[1] > areas[2]  # the maps shrink
    colors = [to_hex(face.get_facecolor()) for face in faces]
    assert colors[1:] == [plots.COLORS["Conv"], plots.COLORS["Pool"], plots.COLORS["Linear"]]
    picture.draw_without_rendering()
    extents = [text.get_window_extent() for text in axes.texts]
    assert not any(one.overlaps(other) for i, one in enumerate(extents) for other in extents[:i])
    assert all(picture.bbox.containsx(e.x0) and picture.bbox.containsy(e.y0) for e in extents)


def test_source_is_what_inspect_finds():
    text = source(F.mul)
    place, *lines = text.splitlines()
    file, line = place.removeprefix("# ").split(", line ")
    assert file == "minitorch_alex/functional/arithmetic.py"
    written = Path(inspect.getsourcefile(inspect.unwrap(F.mul))).read_text().splitlines()
    assert written[int(line) - 1 :][: len(lines)] == lines
    assert "def mul(xp, x, y):" in lines


def test_source_of_methods_and_ones_own_stands_at_the_margin():
    assert source(Tensor.backward).splitlines()[1:3] == [
        "@_quietly",
        "def backward(self, gradient: Any = None) -> None:",
    ]
    assert source(boxes).startswith("# test_showing.py, line ")
    assert source(no_grad).splitlines()[1] == "@contextmanager"


def test_source_escapes_and_carries_its_colours():
    html = source(Tensor._history)._repr_html_()
    assert 'style="' in html.split("<pre", 1)[1].split(">", 1)[1]
    assert "class=" not in html
    compared = source(test_lines_of_computation_do_not_cross)._repr_html_()
    assert "&gt;" in compared


def test_what_has_no_source_is_refused_clearly():
    for thing in (len, 3, "text"):
        with pytest.raises(TypeError, match=r"source: .* has no Python text to show"):
            source(thing)


# -- progress -------------------------------------------------------------------
def test_progress_is_silent_where_nobody_watches(capsys):
    assert list(progress.progress_bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_progress_in_a_notebook_is_text_without_ipywidgets(capsys, monkeypatch):
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    assert list(progress.progress_bar(range(3), desc="epochs")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert "epochs: 100%" in out
    assert "3/3" in out
    assert err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert list(progress.progress_bar(range(3), desc="epochs")) == [0, 1, 2]
    assert "epochs: 100%" in sys.stderr.getvalue()


def test_progress_in_a_notebook_replaces_its_text(monkeypatch):
    shown = []

    class Handle:
        def display(self, text):
            shown.append(("display", str(text)))

        def update(self, text):
            shown.append(("update", str(text)))

    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(IPython.display, "DisplayHandle", Handle)
    list(progress.progress_bar(range(3), mininterval=0))
    assert [what for what, _ in shown].count("display") == 1
    assert shown[-1][0] == "update"
    assert "3/3" in shown[-1][1]


def test_progress_is_a_widget_where_there_are_some(monkeypatch):
    asked = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "tqdm.notebook", SimpleNamespace(tqdm=lambda i, **s: asked.append(s) or i))
    assert list(progress.progress_bar(range(3), desc="d")) == [0, 1, 2]
    assert asked == [{"desc": "d"}]
