"""What notebooks show: the tape as a picture, the engine's source, figures, progress."""

import builtins
import inspect
import io
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from PIL import Image

import minitorch_alex.functional as F
from minitorch_alex import no_grad, plots, progress, tensor
from minitorch_alex.graph import graph
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


def test_source_is_what_inspect_finds():
    text = source(F.mul)
    place, *lines = text.splitlines()
    file, line = place.removeprefix("# ").split(", line ")
    assert file == "minitorch_alex/functional/arithmetic.py"
    written = Path(inspect.getsourcefile(inspect.unwrap(F.mul))).read_text().splitlines()
    assert written[int(line) - 1 :][: len(lines)] == lines
    assert "def mul(xp, x, y):" in lines


def test_source_of_methods_and_ones_own_stands_at_the_margin():
    assert source(Tensor.backward).splitlines()[1].startswith("def backward(self")
    assert source(boxes).startswith("# test_showing.py, line ")
    assert source(no_grad).splitlines()[1] == "@contextmanager"


def test_source_is_highlighted_and_keeps_its_text():
    html = source(F.relu)._repr_html_()
    assert "white-space:pre" in html
    assert "max(x, 0). AlexNet, section 3.1." in html
    assert "&lt;" in source(Tensor._history)._repr_html_() or "<span" in html


# -- progress -------------------------------------------------------------------
def test_progress_is_silent_where_nobody_watches(capsys):
    assert list(progress.progress_bar(range(3))) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_progress_in_a_notebook_is_text_without_ipywidgets(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipykernel", builtins)
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)
    assert list(progress.progress_bar(range(3), desc="epochs")) == [0, 1, 2]
    out, err = capsys.readouterr()
    assert "epochs: 100%" in out
    assert "3/3" in out
    assert err == ""
