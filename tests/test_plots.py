"""Figures: what they show is what they were given, and nothing overlaps; the reference curves and their command."""

import json
import math
from importlib import resources

import numpy as np
import pytest
from matplotlib.colors import to_hex

from benchmarks import reference
from minitorch_alex import image_plots, plots
from minitorch_alex.config import Config, ConfigError
from minitorch_alex.run_folder import RunFolder

LONG = "African hunting dog, hyena dog, Cape hunting dog, Lycaon pictus, or as many names again as fit nowhere"
AWKWARD = [LONG, "W" * 40, "$x^2$ 100% \\alpha", "two\nlines", "bad \udc80 name"]


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype="uint8")


def probabilities(count, classes):
    values = np.random.default_rng(1).random((count, classes)) ** 8
    return values / values.sum(axis=1, keepdims=True)


def all_texts(figure):
    return [text for text in figure.texts + [t for axes in figure.axes for t in axes.texts] if text.get_text()]


def check_nothing_overlaps(figure):
    """No text touches another one or leaves the figure, and none of the figure's own lies over axes."""
    figure.draw_without_rendering()
    extents = [text.get_window_extent() for text in all_texts(figure)]
    for i, one in enumerate(extents):
        assert figure.bbox.x0 <= one.x0 < one.x1 <= figure.bbox.x1
        assert figure.bbox.y0 <= one.y0 < one.y1 <= figure.bbox.y1
        assert not any(one.overlaps(other) for other in extents[:i])
    boxes = [axes.get_window_extent() for axes in figure.axes]
    for text in figure.texts:
        assert not any(text.get_window_extent().overlaps(box) for box in boxes), text.get_text()
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


# -- the paper's Figure 4, left -------------------------------------------------
@pytest.mark.parametrize(
    ("count", "classes", "shape", "rows", "columns"),
    [(1, 10, (1, 8, 8), 1, 1), (5, 2, (3, 12, 20), 2, 3), (8, 1000, (3, 32, 32), 2, 4), (9, 5, (1, 8, 8), 3, 3)],
)
def test_predictions_in_a_grid_without_overlaps(count, classes, shape, rows, columns):
    names = [f"{AWKWARD[i % 5]} {i}" if i % 3 else AWKWARD[i % 5] for i in range(classes)]
    truth = np.arange(count) % classes
    figure = plots.predictions(images(count, *shape), probabilities(count, classes), names, truth, names * count)
    check_nothing_overlaps(figure)
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == count
    assert len({round(axes.get_position().x0, 6) for axes in shown}) == columns
    assert len({round(axes.get_position().y0, 6) for axes in shown}) == rows
    for axes in figure.axes:
        if not axes.images:
            assert len(axes.patches) == min(5, classes)
            frame = axes.get_window_extent()
            assert all(frame.x0 < text.get_window_extent().x0 for text in axes.texts)
            assert all(text.get_window_extent().x1 < frame.x1 for text in axes.texts)


def test_predictions_are_the_largest_and_the_true_one_is_red():
    chances = np.array([[0.05, 0.5, 0.1, 0.02, 0.3, 0.03], [0.9, 0.02, 0.03, 0.04, 0.004, 0.006], [1, 0, 0, 0, 0, 0]])
    figure = plots.predictions(images(3, 3, 6, 6), chances, list("abcdef"), truth=[4, 4, None])
    first, second, third = [axes for axes in figure.axes if not axes.images]
    assert [bar.get_width() for bar in first.patches] == [0.5, 0.3, 0.1, 0.05, 0.03]
    middles = [first.transData.transform((0, bar.get_y() + bar.get_height() / 2))[1] for bar in first.patches]
    assert middles == sorted(middles, reverse=True)  # the largest on top
    assert first.get_xlim() == (0, 1)
    assert [t.get_text() for t in first.texts] == [
        "b", "50.0 %", "e", "30.0 %", "c", "10.0 %", "a", "5.0 %", "f", "3.0 %"
    ]  # fmt: skip
    colors = [[to_hex(bar.get_facecolor()) for bar in axes.patches] for axes in (first, second, third)]
    blue, red = image_plots.BAR, image_plots.TRUE_BAR
    assert colors == [[blue, red, blue, blue, blue], [blue] * 5, [blue] * 5]  # e is not among the second's five
    *marks, caption = [text.get_text() for text in figure.texts]
    assert marks == ["✗ e", "✗ e"]
    assert "5 largest" in caption
    assert "Red" in caption
    right = plots.predictions(images(1, 3, 6, 6), chances[:1], list("abcdef"), truth=[1])
    assert right.texts[0].get_text() == "✓ b"
    unknown = plots.predictions(images(1, 3, 6, 6), chances[:1], list("abcdef"))
    assert "Red" not in unknown.texts[0].get_text()


def test_images_are_shown_as_they_are():
    grey, colour = images(1, 1, 8, 8), images(1, 3, 8, 9)
    figure = plots.predictions(grey, np.array([[1.0, 0.0]]), ["a", "b"])
    (shown,) = figure.axes[0].images
    assert np.array_equal(shown.get_array(), grey[0, 0])
    assert shown.get_clim() == (0, 255)  # not stretched
    figure = plots.predictions(colour, np.array([[1.0, 0.0]]), ["a", "b"])
    assert np.array_equal(figure.axes[0].images[0].get_array(), colour[0].transpose(1, 2, 0))


def test_long_labels_are_shortened_and_short_ones_are_not():
    figure = plots.predictions(images(1, 1, 8, 8), np.array([[0.5, 0.3, 0.2]]), [LONG, "mite", AWKWARD[2]])
    long, _, short, _, dollars, _ = figure.axes[1].texts
    assert long.get_text().endswith("…")
    assert LONG.startswith(long.get_text()[:-1])
    assert len(long.get_text()) > 20
    assert long.get_size() >= 6
    assert (short.get_text(), short.get_size()) == ("mite", 8)
    assert (dollars.get_text(), dollars.get_parse_math()) == (AWKWARD[2], False)


# -- the paper's Figure 4, right ------------------------------------------------
@pytest.mark.parametrize(("count", "across"), [(3, 6), (1, 1), (1, 16)])
@pytest.mark.parametrize("titled", [True, False])
def test_neighbours_stand_in_their_order(count, across, titled):
    queries, found = images(count, 3, 8, 8), images(count * across, 3, 8, 8, seed=1).reshape(count, across, 3, 8, 8)
    titles = ([f"query {i}" for i in range(count)], [[LONG] * across] * count) if titled else (None, None)
    figure = plots.neighbours(queries, found, *titles)
    check_nothing_overlaps(figure)
    places = [axes.get_position() for axes in figure.axes]
    order = sorted(range(len(places)), key=lambda i: (-round(places[i].y0, 6), places[i].x0))
    shown = [figure.axes[i].images[0].get_array().transpose(2, 0, 1) for i in order]
    expected = np.concatenate([queries[:, None], found], axis=1)
    assert np.array_equal(shown, expected.reshape(-1, 3, 8, 8))
    if across > 1:
        left = [places[i].x0 for i in order[:3]]
        assert left[1] - left[0] > 1.1 * (left[2] - left[1])  # the gap after the queries
    texts = [text.get_text() for text in figure.texts]
    assert len(texts) == (count * (across + 1) if titled else 0) + 1
    assert [text for text in texts if text.startswith("query")] == [f"query {i}" for i in range(count) if titled]


# -- activations ----------------------------------------------------------------
def tiles(figure, H, W):
    """The pictures in the mosaic: whatever is separated by rows and columns without values."""
    mosaic = np.ma.filled(figure.axes[0].images[0].get_array(), np.nan)
    down = np.flatnonzero(~np.isnan(mosaic[:, 0]))[::H]
    across = np.flatnonzero(~np.isnan(mosaic[0]))[::W]
    found = [mosaic[y : y + H, x : x + W] for y in down for x in across]
    return np.array([tile for tile in found if not np.isnan(tile).any()])


@pytest.mark.parametrize("shape", [(1, 5, 5), (7, 2, 9), (32, 4, 3), (96, 3, 3), (100, 6, 6)])
def test_activations_on_a_common_scale(shape):
    maps = np.random.default_rng(0).standard_normal(shape)
    figure = plots.activations(maps, "conv1")
    assert np.array_equal(tiles(figure, *shape[1:]), maps[:96])
    axes, bar = figure.axes
    assert axes.images[0].get_clim() == (maps[:96].min(), maps[:96].max())
    assert bar.get_ylabel() == "activation"
    assert axes.get_title() == "conv1"
    below = axes.get_xlabel()
    assert below.startswith(f"{min(shape[0], 96)} channel{'s' * (shape[0] > 1)} of {shape[1]} x {shape[2]}, ")
    assert "one scale" in below
    assert ("4 of 100 left out" in below) == (shape[0] == 100)
    first = [int(label.get_text()) for label in axes.get_yticklabels()]
    assert first == list(range(0, min(shape[0], 96), first[1] if len(first) > 1 else 96))
    figure.draw_without_rendering()
    labels = [text.get_window_extent() for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    assert all(figure.bbox.x0 <= e.x0 and e.x1 <= figure.bbox.x1 and figure.bbox.y0 <= e.y0 for e in labels)


def test_activations_each_on_its_own_scale():
    maps = np.random.default_rng(0).standard_normal((6, 4, 4)) * 10.0 ** np.arange(6).reshape(6, 1, 1)
    maps[5] = 3  # a dead channel
    figure = plots.activations(maps, "conv1", own_scale=True, most=8)
    (axes,) = figure.axes
    shown = tiles(figure, 4, 4)
    assert np.allclose(shown[:5].min(axis=(1, 2)), 0)
    assert np.allclose(shown[:5].max(axis=(1, 2)), 1)
    assert np.array_equal(shown[5], np.zeros((4, 4)))
    assert "own scale" in axes.get_xlabel()


# -- curves with our own behind them ----------------------------------------------
def band(low, median, high):
    return {"low": low, "median": median, "high": high}


OURS = {
    "recipe": "digits",
    "seeds": [0, 1, 2],
    "epochs": [1, 2, 3],
    "train_loss": band([2.0, 1.0, 0.5], [2.1, 1.2, 0.7], [2.2, 1.4, 0.9]),
    "test_loss": band([1.9, 0.9, 0.4], [2.0, 1.0, 0.5], [2.1, 1.1, 0.6]),
    "test_top1": band([0.5, 0.7, 0.8], [0.6, 0.75, 0.9], [0.7, 0.8, 0.95]),
    "test_top5": band([0.8, 0.9, 1.0], [0.8, 0.9, 1.0], [0.8, 0.9, 1.0]),
}
LOG = [
    {"step": 1, "epoch": 1, "at": 0.5, "loss": 2.2, "lr": 0.1},
    {"epoch": 1, "step": 2, "train_loss": 2.15, "test_loss": 2.05, "test_top1": 0.55, "test_top5": 0.8},
]


@pytest.mark.parametrize("log", [LOG, []], ids=["log", "nothing yet"])
def test_curves_with_the_reference_behind(log):
    figure = plots.curves(log, 10, OURS)
    left, right = figure.axes
    for axes, expected in (
        (left, [OURS["train_loss"], OURS["test_loss"]]),
        (right, [{kind: 100 * (1 - np.array(values)) for kind, values in OURS["test_top1"].items()}]),
    ):
        assert len(axes.collections) == len(expected)
        for filled, line, values in zip(axes.collections, axes.lines, expected, strict=False):
            corners = filled.get_paths()[0].vertices
            for epoch, low, median, high in zip(OURS["epochs"], *values.values(), strict=True):
                at = corners[corners[:, 0] == epoch][:, 1]
                assert (at.min(), at.max()) == pytest.approx((min(low, high), max(low, high)))
                assert line.get_ydata()[epoch - 1] == pytest.approx(median)
            assert filled.get_alpha() < 0.5
        entries = [text.get_text() for text in axes.get_legend().get_texts()]
        assert entries.count("our runs (3 seeds)") == 1
    assert right.get_xlim()[1] > 3  # how it will go on


def test_curves_without_a_reference_are_the_run_alone():
    left, right = plots.curves(LOG, 10).axes
    assert not left.collections
    assert not right.collections
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["top-1", "top-5"]
    assert list(right.lines[0].get_ydata()) == pytest.approx([45.0])


# -- gathering it -------------------------------------------------------------------
def run_folder(path, seed, epochs=30, losses=lambda epoch: 1 / epoch, **settings):
    folder = RunFolder(path)
    folder.create(Config(seed=seed, **settings), exist_ok=False)
    for epoch in range(1, epochs + 1):
        folder.log(step=epoch, epoch=epoch, at=epoch, loss=1.0, lr=0.1)
        loss = losses(epoch)
        folder.log(epoch=epoch, step=epoch, train_loss=loss, test_loss=2 * loss, test_top1=1 - loss / 2, test_top5=1.0)
    return folder


def test_reference_gathers_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reference, "RECIPES", tmp_path)
    runs = [run_folder(tmp_path / f"r{i}", i, losses=lambda e, i=i: (2 - i % 3 / math.pi) / e) for i in range(4)]
    assert reference.main(["digits", *[str(run.path) for run in runs]]) == 0
    assert "4 runs, last held-out top-1 96.67 to 97.73 %, median 96.93 %" in capsys.readouterr().out
    written = json.loads((tmp_path / "digits.reference.json").read_text())
    assert list(written) == [
        "recipe", "seeds", "machine", "epochs", "train_loss", "test_loss", "test_top1", "test_top5"
    ]  # fmt: skip
    assert written["seeds"] == [0, 1, 2, 3]
    assert written["epochs"] == list(range(1, 31))
    assert {kind: values[0] for kind, values in written["train_loss"].items()} == band(1.363, 1.841, 2.0)
    assert {kind: values[2] for kind, values in written["test_loss"].items()} == band(0.9089, 1.227, 1.333)
    plots.curves(runs[0].log_lines(), 10, written)


@pytest.mark.parametrize(
    ("seed", "epochs", "settings", "message"),
    [
        (0, 30, {}, "there is a run with the seed 0 already"),
        (1, 29, {}, "not finished, it has had 29 of 30 epochs"),
        (1, 30, {"lr": 0.5}, "lr is 0.5 there and 0.02 in the recipe digits"),
        (1, 30, {"backend": "numpy"}, "backend is numpy there and auto in "),
    ],
)
def test_reference_refuses_runs_that_do_not_belong_together(seed, epochs, settings, message, tmp_path, capsys):
    one, other = run_folder(tmp_path / "one", 0), run_folder(tmp_path / "other", seed, epochs, **settings)
    assert reference.main(["digits", str(one.path), str(other.path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"reference: {other.path}: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [["digits"], ["digits", "nowhere"], ["no such recipe", "nowhere"]])
def test_reference_refuses_what_is_not_there_in_one_line(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reference.main(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_shipped_references_fit_their_recipes():
    recipes = resources.files("minitorch_alex").joinpath("recipes")
    found = [file for file in recipes.iterdir() if file.name.endswith(".reference.json")]
    assert "digits.reference.json" in [file.name for file in found]
    for file in found:
        ours = json.loads(file.read_text())
        assert file.name == f"{ours['recipe']}.reference.json"
        settings = reference.settings_of(ours["recipe"])
        assert ours["epochs"] == list(range(1, settings["epochs"] + 1))
        assert len(set(ours["seeds"])) == len(ours["seeds"]) >= 2
        for name in reference.CURVES:
            low, median, high = (np.array(ours[name][kind]) for kind in ("low", "median", "high"))
            assert len(low) == len(ours["epochs"])
            assert (low <= median).all()
            assert (median <= high).all()
    with pytest.raises(ConfigError):
        reference.settings_of("no such recipe")
