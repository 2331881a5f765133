"""Using trained networks: what predict says and writes, features, figures, and the network that comes along."""

import json
import os
import re
import shutil

import numpy as np
import pytest
from PIL import Image
from test_data import cifar_batches, write_binary

from benchmarks import pretrained
from minitorch_alex import Tensor, backends, figures, manual_seed, models, no_grad, plots, predict, trained
from minitorch_alex import functional as F
from minitorch_alex.checkpoint import CHECKPOINT, read_checkpoint, save_checkpoint
from minitorch_alex.config import Config, ConfigError, read_file
from minitorch_alex.data import Preprocessing, cifar10, digits
from minitorch_alex.picture import Picture
from minitorch_alex.trained import SHIPPED, Trained, load_trained

CLASSES = ["cat", "dog", "ship"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """The commands choose a backend, and write where they stand."""
    monkeypatch.chdir(tmp_path)
    before = backends._current
    backends.use("numpy")
    yield
    backends._current = before


def untrained(classes, shape, model="alexnet_small", data="digits", scale=8.0) -> Trained:
    """Networks of random weights, with a last layer that makes up its mind."""
    manual_seed(3)
    network = models.build(model, len(classes), shape)
    last = list(network.parameters())[-2]
    last.data = last.data * scale
    preprocessing = Preprocessing(np.full(shape[0], 120.0), np.full(shape[0], 60.0))
    return Trained(model, network, classes, shape, preprocessing, {"model": model, "data": data})


def save(t: Trained, folder) -> Trained:
    folder.mkdir()
    info = {"config": t.config, "classes": t.classes, "image_shape": list(t.image_shape)}
    save_checkpoint(folder / CHECKPOINT, t.network, None, info, t.preprocessing)
    return t


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype="uint8")


def picture(path, seed=0, side=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels(3, side, side, seed=seed)
    Image.fromarray(image.transpose(1, 2, 0)).save(path)
    return image


def by_hand(t: Trained, image):
    """Probabilities (classes,) of one image that has the network's own size."""
    with no_grad():
        x = (image.astype("float32") - 120) / 60
        scores = t.network.eval()(Tensor(x[None])).numpy()[0].astype("float64")
    return np.exp(scores) / np.exp(scores).sum()


def run(command, *arguments) -> int:
    try:
        return command.main([str(a) for a in arguments] + (["--backend", "numpy"] if "--help" not in arguments else []))
    except SystemExit as stop:
        return stop.code


@pytest.fixture
def small(tmp_path):
    return save(untrained(CLASSES, (3, 8, 8)), tmp_path / "run")


def said(out: str) -> dict[str, list[tuple[float, str, bool]]]:
    """By file: percentage, class, whether marked as the truth. Such lines stand in blocks under the file's name."""
    found = {}
    for block in out.split("\n\n")[1:]:
        file, *lines = block.splitlines()
        told = [re.fullmatch(r"  +([\d.]+) %  (\w+)(   <- so says its folder)?", line) for line in lines]
        found[file] = [(float(match[1]), match[2], bool(match[3])) for match in told if match]
    return {file: lines for file, lines in found.items() if lines}


# -- predict ------------------------------------------------------------------------
def test_what_predict_says(small, tmp_path, capsys):
    images = {
        "photos/a.png": picture(tmp_path / "photos/a.png", 1),
        "photos/dog/deep/b.png": picture(tmp_path / "photos/dog/deep/b.png", 2),
        "photos/dog/ship/c.png": picture(tmp_path / "photos/dog/ship/c.png", 3),
        "cat/one.png": picture(tmp_path / "cat/one.png", 4),
    }
    assert run(predict, "photos", "cat/one.png", "--trained", "run") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "network   run: 3 classes, images of 3 x 8 x 8" in shown.out
    told = said(shown.out)
    assert list(told) == list(images)
    true = {"photos/dog/deep/b.png": "dog", "photos/dog/ship/c.png": "ship", "cat/one.png": "cat"}
    for file, lines in told.items():
        chances = by_hand(small, images[file])
        order = chances.argsort()[::-1]
        assert [name for _, name, _ in lines] == [CLASSES[label] for label in order]
        assert [percent for percent, _, _ in lines] == pytest.approx(list(100 * chances[order]), abs=0.06)
        assert [name for _, name, marked in lines if marked] == ([true[file]] if file in true else [])
    assert len({lines[0][0] for lines in told.values()}) == 4
    with Image.open("predictions.png") as figure:
        assert min(figure.size) > 200


def test_what_predict_draws(small, tmp_path, monkeypatch, capsys):
    drawn = []
    whole = plots.predictions
    monkeypatch.setattr(plots, "predictions", lambda *a: drawn.append(a) or whole(*a))
    monkeypatch.setattr(predict, "DRAWN", 2)
    monkeypatch.setattr(predict, "PIXELS_AT_ONCE", 1)  # batches of one picture
    (tmp_path / "p/ship").mkdir(parents=True)
    (tmp_path / "p/0.png").touch()
    images = [picture(tmp_path / "p/1.png", 1), picture(tmp_path / "p/ship/2.png", 2)]
    picture(tmp_path / "p/ship/3.png", 3)
    assert run(predict, "p", "--trained", "run", "--top", 2, "--out", "p/it.pdf") == 0
    out = capsys.readouterr().out
    assert "p/it.pdf: the figure, of the first 2" in out
    assert all(len(lines) == 2 for lines in said(out).values())
    assert (tmp_path / "p/it.pdf").read_bytes().startswith(b"%PDF")
    shown, chances, classes, truth, names, best = drawn[0]
    assert np.array_equal(shown, images)
    assert np.allclose(chances, [by_hand(small, image) for image in images], atol=1e-5)
    assert (classes, truth, names, best) == (CLASSES, [None, 2], ["1.png", "2.png"], 2)
    assert run(predict, "p/1.png", "--trained", "run") == 0
    assert drawn[1][3] is None  # nothing is known: no caption about it


def test_a_folder_is_known_by_its_name_wherever_one_stands(tmp_path, monkeypatch):
    picture(tmp_path / "x/ship/1.png")
    monkeypatch.chdir(tmp_path / "x/ship")
    here = predict.Path(".")
    assert [f.truth for f in predict.find_images([here, here / "1.png"], CLASSES)] == [2, 2]
    assert [f.truth for f in predict.find_images([tmp_path / "x"], ["x"])] == [0]
    assert [f.truth for f in predict.find_images([tmp_path / "x"], ["x", "ship"])] == [1]
    assert [f.truth for f in predict.find_images([tmp_path / "x/ship/1.png"], ["x", "1.png"])] == [None]


def test_files_that_cannot_be_read_are_named(small, tmp_path, capsys):
    for name in ("p/1.png", "p/3.png", "p/5.png"):
        picture(tmp_path / name)
    (tmp_path / "p/2.jpg").touch()
    (tmp_path / "p/4\n.png").write_text("no picture")
    arguments = ["--trained", "run", "--features", "f.npz"]
    assert run(predict, "p", "absent.jpg", *arguments) == 0
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if line.startswith("left out")] == [
        "left out  p/2.jpg: the file is empty",
        r"left out  'p/4\n.png: this is no picture of a known format'",
        "left out  absent.jpg: No such file or directory",
    ]
    assert np.load("f.npz")["names"].tolist() == ["p/1.png", "p/3.png", "p/5.png"]
    (tmp_path / "f.npz").unlink()
    assert run(predict, "p/2.jpg", "absent.jpg", *arguments) == 2
    shown = capsys.readouterr()
    assert shown.out.count("left out") == 2
    assert shown.err == "predict: there is no picture that can be read\n"
    assert not (tmp_path / "f.npz").exists()


def test_batches_change_nothing(small, tmp_path, monkeypatch, capsys):
    for i in range(7):
        picture(tmp_path / f"p/{i}.png", i)
    (tmp_path / "p/3.png").write_bytes(b"")
    arguments = ["p", "--trained", "run", "--features"]
    assert run(predict, *arguments, "one.npz") == 0
    one = said(capsys.readouterr().out)
    monkeypatch.setattr(predict, "PIXELS_AT_ONCE", 2 * 3 * 8 * 8)
    assert run(predict, *arguments, "many.npz") == 0
    assert said(capsys.readouterr().out) == one
    with np.load("one.npz") as a, np.load("many.npz") as b:
        assert np.allclose(a["features"], b["features"], atol=1e-5)
        assert all(np.array_equal(a[name], b[name]) for name in ("names", "predictions", "classes"))


def test_photographs_for_a_network_that_sees_crops(tmp_path, monkeypatch, capsys):
    """12 of 20 pixels, as if photographs had so many: the average of ten probabilities, or the centre's."""
    monkeypatch.setattr(trained, "SIDE", 20)
    t = save(untrained(CLASSES, (3, 12, 12)), tmp_path / "run")
    whole = picture(tmp_path / "a.png", side=20)
    corners = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    crops = [whole[:, y : y + 12, x : x + 12] for y, x in corners]
    crops += [crop[:, :, ::-1] for crop in crops]
    each = [by_hand(t, crop) for crop in crops]
    assert np.ptp(each, axis=0).max() > 0.05
    for count, expected in ((1, each[4]), (10, np.mean(each, axis=0))):
        assert run(predict, "a.png", "--trained", "run", "--crops", count) == 0
        told = {name: percent for percent, name, _ in said(capsys.readouterr().out)["a.png"]}
        assert [told[name] for name in CLASSES] == pytest.approx(list(100 * expected), abs=0.06)


def test_grey_networks_see_the_mean_of_the_channels(tmp_path):
    t = untrained(CLASSES, (1, 8, 8))
    image = picture(tmp_path / "a.png")
    read = t.read(tmp_path / "a.png")
    assert (read.shape, read.dtype) == ((1, 8, 8), np.uint8)
    assert np.abs(read[0] - image.mean(axis=0)).max() <= 0.5
    dark = np.zeros((3, 8, 8), "uint8")
    Image.fromarray(dark.transpose(1, 2, 0)).save("dark.png")
    assert not t.read("dark.png").any()  # nothing is inverted


def test_small_networks_get_the_whole_picture(tmp_path):
    big = np.zeros((3, 64, 96), "uint8")
    big[:, :, 48:] = 200
    Image.fromarray(big.transpose(1, 2, 0)).save("a.png")
    read = untrained(CLASSES, (3, 8, 8)).read("a.png")
    assert read.shape == (3, 8, 8)
    assert (read[..., :3] == 0).all()
    assert (read[..., 5:] == 200).all()
    assert untrained(CLASSES, (3, 136, 136)).read("a.png").shape == (3, 256, 256)


# -- features -----------------------------------------------------------------------
@pytest.mark.parametrize(("model", "shape"), [("alexnet_small", (3, 8, 8)), ("lenet5", (1, 32, 32))])
def test_features_are_what_the_last_layer_takes(model, shape):
    t = untrained(CLASSES, shape, model)
    t.network.train()
    images = pixels(5, *shape)
    features = t.features(images)
    weight, bias = list(t.network.parameters())[-2:]
    assert features.shape == (5, weight.shape[1])
    with no_grad():
        scores = F.linear(Tensor(features), weight, bias)
        assert np.allclose(F.log_softmax(scores, 1).numpy(), t.log_probabilities(images), atol=1e-5)
    assert t.network.training
    assert np.array_equal(features, t.features(images))  # no dropout


def test_features_of_a_layer(small, tmp_path, capsys):
    for i in range(3):
        picture(tmp_path / f"p/{i}.png", i)
    assert run(predict, "p", "--trained", "run", "--features", "f.dat", "--layer", "conv2") == 0
    assert "f.dat: features (3, 64, 4, 4), names, predictions, classes" in capsys.readouterr().out
    with np.load("f.dat") as archive:
        assert archive["features"].shape == (3, 64, 4, 4)
        assert archive["features"].min() < 0  # before its ReLU
        assert archive["classes"].tolist() == CLASSES
        expected = [by_hand(small, picture(tmp_path / f"p/{i}.png", i)).argmax() for i in range(3)]
        assert archive["predictions"].tolist() == expected


# -- requests that are wrong ----------------------------------------------------------
WRONG = [
    (predict, [], "required: IMAGE"),
    (predict, ["empty"], "empty: there are no pictures in this folder"),
    (predict, ["a.png", "--trained", "nowhere"], "nowhere: there is no checkpoint there"),
    (predict, ["a.png", "--trained", "a.png"], "a.png"),
    (predict, ["a.png", "--crops", "10"], "no room for ten crops"),
    (predict, ["a.png", "--crops", "5"], "invalid choice"),
    (predict, ["a.png", "--top", "0"], "at least 1"),
    (predict, ["a.png", "--layer", "conv1"], "--features"),
    (predict, ["a.png", "--features", "f.npz", "--layer", "relu9"], "there is no layer 'relu9'; there are conv1, "),
    (predict, ["a.png", "--out", "a.txt"], "must end in one of .png"),
    (predict, ["a.png", "--out", "no/a.png"], "there is no folder no"),
    (predict, ["a.png", "--features", "no/f.npz"], "there is no folder no"),
    (figures, [], "required: NAME"),
    (figures, ["portrait"], "invalid choice"),
    (figures, ["filters", "--trained", "nowhere"], "nowhere: there is no checkpoint there"),
    (figures, ["filters", "--data", "digits"], "unrecognized"),
    (figures, ["filters", "--out", "no/a.png"], "there is no folder no"),
    (figures, ["curves", "--trained", "run"], "there is no log.jsonl here"),
    (figures, ["predictions", "--data", "empty"], "neither CIFAR-10 files here"),
    (figures, ["neighbours", "--data", "digits"], "was trained on images of (3, 8, 8), these are (1, 8, 8)"),
    (figures, ["neighbours", "--among", "0"], "at least 1"),
    (figures, ["activations", "--image", "absent.png"], "absent.png: No such file"),
    (figures, ["activations", "--image", "a.png", "--layer", "fc4"], "no layer fc4 with maps; there are conv1, "),
]


@pytest.mark.parametrize(("command", "arguments", "reason"), WRONG, ids=lambda value: str(value)[:60])
def test_requests_that_are_wrong(command, arguments, reason, small, tmp_path, capsys):
    picture(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    if arguments and arguments != ["portrait"] and "--trained" not in arguments:
        arguments = [*arguments, "--trained", "run"]
    try:
        status = command.main(arguments)
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    error = capsys.readouterr().err
    assert error.startswith(f"{command.__name__.rpartition('.')[2]}: ")
    assert reason in error
    assert error.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "empty", "run"]


@pytest.mark.parametrize(
    "arguments", [[]] + [[n] for n in ("filters", "predictions", "neighbours", "activations", "curves", "architecture")]
)
def test_help(arguments, capsys):
    assert run(figures, *arguments, "--help") == 0
    assert "usage" in capsys.readouterr().out
    assert run(predict, "--help") == 0


# -- figures ------------------------------------------------------------------------
@pytest.fixture
def digit_run(tmp_path):
    return save(untrained([str(i) for i in range(10)], (1, 8, 8)), tmp_path / "run")


@pytest.mark.parametrize("name", ["filters", "predictions", "neighbours", "activations", "architecture"])
def test_figures_from_the_command_line(name, digit_run, capsys):
    assert run(figures, name, "--trained", "run") == 0
    assert capsys.readouterr().out == f"{name}.png\n"
    with Image.open(f"{name}.png") as figure:
        assert min(figure.size) > 200


def test_nearest_against_all_distances():
    t = untrained(CLASSES, (3, 8, 8))
    images, queries = pixels(23, 3, 8, 8), pixels(4, 3, 8, 8, seed=1)
    images[11] = queries[2]
    which = np.array([3, 5, 11, 12, 2, 20, 22, 7, 8])
    for layer in (None, "conv1"):
        a, b = (t.features(x, layer).reshape(len(x), -1).astype("float64") for x in (queries, images[which]))
        expected = np.linalg.norm(a[:, None] - b[None], axis=2).argsort(axis=1)[:, :3]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(figures, "PIXELS_AT_ONCE", 4 * 3 * 8 * 8)
            found = figures.nearest(t, queries, images, which, 3, layer)
        assert np.array_equal(found, expected)
        assert which[found[2, 0]] == 11


def test_what_neighbours_shows(digit_run, monkeypatch):
    dataset = digits.load()
    shown = []
    monkeypatch.setattr(plots, "neighbours", lambda *a: shown.append(a) or Picture())
    figures.neighbours(digit_run, dataset, among=100, queries=3, count=4, seed=1)
    queries, found, query_titles, found_titles = shown[0]
    assert np.asarray(found).shape == (3, 4, 1, 8, 8)
    for row, query in enumerate(queries):
        (place,) = np.flatnonzero((dataset.test_images == query).all(axis=(1, 2, 3)))
        assert query_titles[row] == str(dataset.test_labels[place])
        candidates = np.linspace(0, 1437, 100).astype(int)
        wanted = digit_run.features(query[None])
        distances = ((digit_run.features(dataset.train_images[candidates]) - wanted) ** 2).sum(axis=1)
        nearest = candidates[distances.argsort()[:4]]
        assert np.array_equal(found[row], dataset.train_images[nearest])
        assert found_titles[row] == [str(label) for label in dataset.train_labels[nearest]]
    figures.neighbours(digit_run, dataset, among=10**6, seed=2)
    assert len(shown[1][0]) == 5
    assert np.asarray(shown[1][1]).shape == (5, 6, 1, 8, 8)
    assert not np.array_equal(shown[1][0][:3], queries)


def test_what_predictions_shows(digit_run, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "predictions", lambda *a: shown.append(a) or Picture())
    dataset = digits.load()
    figures.predictions(digit_run, dataset)
    images, chances, _, truth = shown[0]
    assert len(images) == len(truth) == 8
    for image, chance, true in zip(images, chances, truth, strict=True):
        (place,) = np.flatnonzero((dataset.test_images == image).all(axis=(1, 2, 3)))
        assert true == dataset.test_labels[place]
        assert chance == pytest.approx(by_hand(digit_run, image), abs=1e-5)
    dataset.classes = [f"the {name}" for name in dataset.classes[:9]] + ["0"]  # only this one is known to the network
    figures.predictions(digit_run, dataset, count=359)
    truth = shown[1][3]
    assert sorted(set(truth), key=str) == [0, None]
    dataset.classes[-1] = "unknown"
    figures.predictions(digit_run, dataset)
    assert shown[2][3] is None


def test_photographs_are_scaled_for_small_networks(tmp_path):
    t = untrained(CLASSES, (3, 8, 8))
    for i in range(4):
        picture(tmp_path / f"photos/{'cat' if i % 2 else 'dog'}/{i}.png", i, side=8)
    dataset = figures.load("photos", crop=8, held_out=0.5)
    whole = dataset.test_images[np.array([1, 0])]
    (images,) = t.views(whole)
    means = whole.reshape(2, 3, 8, 32, 8, 32).mean(axis=(3, 5))
    assert images.shape == means.shape
    assert np.abs(images - means).max() < 40
    (crops,) = untrained(CLASSES, (3, 136, 136)).views(whole)
    assert np.array_equal(crops, whole[:, :, 60:196, 60:196])
    assert figures.neighbours(t, dataset).axes


def test_activations_are_of_the_layer_asked_for(digit_run, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "activations", lambda *a: shown.append(a) or Picture())
    image = digits.load().test_images[0]
    figures.activations(digit_run, image)
    figures.activations(digit_run, image, "pool2", "a digit")
    (first, title), (second, other_title) = shown
    assert (first.shape, second.shape) == ((32, 8, 8), (64, 2, 2))
    assert (title, other_title) == ("relu1 of alexnet_small: an image", "pool2 of alexnet_small: a digit")
    x = (image[None].astype("float32") - 120) / 60
    layer = digit_run.network.conv1
    with no_grad():
        expected = F.relu(F.conv2d(Tensor(x), layer.weight, layer.bias, padding=2)).numpy()[0]
    assert np.allclose(first, expected, atol=1e-5)


def test_any_file_name_is_a_title(tmp_path, capsys):
    strange = os.fsdecode(b"$x^$ \xff\n")
    save(untrained(CLASSES, (3, 8, 8)), tmp_path / strange)
    picture(tmp_path / strange / "$_$.png")
    assert run(figures, "filters", "--trained", strange) == 0
    assert run(figures, "activations", "--trained", strange, "--image", f"{strange}/$_$.png") == 0
    assert run(predict, strange, "--trained", strange, "--features", f"{strange}/f") == 0
    assert capsys.readouterr().err == ""


def test_curves_of_a_run(digit_run, tmp_path, monkeypatch, capsys):
    log = [
        {"epoch": 1, "step": 2, "train_loss": 2.0, "test_loss": 1.9, "test_top1": 0.25, "test_top5": 0.5},
        {"epoch": 2, "step": 4, "train_loss": 1.0, "test_loss": 1.1, "test_top1": 0.75, "test_top5": 0.9},
    ]
    (tmp_path / "run/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (tmp_path / "run/config.toml").write_text(Config(seed=5).to_toml())
    shown = []
    whole = plots.curves
    monkeypatch.setattr(plots, "curves", lambda *a: shown.append(a) or whole(*a))
    assert figures.main(["curves", "--trained", "run", "--out", "c.svg"]) == 0
    assert capsys.readouterr().out == "c.svg\n"
    lines, classes, reference = shown[0]
    assert (lines, classes) == (log, 10)
    assert reference["recipe"] == "digits"  # those settings are the recipe's
    write_binary(tmp_path / "images", cifar_batches(1))
    recipe = Config(**{**read_file("cifar10"), "data": str(tmp_path / "images")})
    (tmp_path / "run/config.toml").write_text(recipe.to_toml())
    asked = []
    monkeypatch.setattr(figures, "reference_for", lambda config, data: asked.append(data))
    figures.curves(tmp_path / "run", 10)
    assert asked == ["cifar10"]


# -- the network that comes with the package --------------------------------------------
def test_the_network_that_comes_along():
    assert SHIPPED.stat().st_size <= 1_000_000
    arrays, info = read_checkpoint(SHIPPED)
    assert {name.split(".")[0] for name in arrays} == {"model", "preprocessing"}
    assert info["config"]["data"] == "cifar10"
    assert info["made"]["command"].startswith("python -m minitorch_alex.train --config cifar10 --seed ")
    assert info["made"]["test_top1"] > 0.75
    assert {"machine", "note"} <= set(info["made"])


def test_it_is_there_for_whoever_names_none(tmp_path, capsys):
    t = load_trained("cifar10")
    assert (t.classes, t.image_shape, t.name) == (cifar10.CLASSES, (3, 32, 32), "cifar10")
    picture(tmp_path / "a.png", side=40)
    assert run(predict, "a.png") == 0
    assert "network   cifar10: 10 classes, images of 3 x 32 x 32" in capsys.readouterr().out
    save(untrained(CLASSES, (3, 8, 8)), tmp_path / "cifar10")
    assert load_trained("cifar10").classes == CLASSES  # what lies here goes first
    assert run(predict, "a.png") == 0  # but not where none was named
    assert "10 classes" in capsys.readouterr().out


def test_it_knows_real_photographs(extra_data):
    folder = extra_data / "imagenet-1k-sample"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    t = load_trained(SHIPPED)
    wanted = {"n04285008": "automobile", "n03095699": "ship", "n02389026": "horse", "n02690373": "airplane"}
    for name, expected in wanted.items():
        (file,) = (folder / name).iterdir()
        chances = np.exp(t.log_probabilities(t.read(file)[None]))[0]
        assert t.classes[chances.argmax()] == expected, file.name
        assert chances.sum() == pytest.approx(1, abs=1e-5)


@pytest.fixture
def finished(tmp_path):
    """A run folder that looks like one of the CIFAR-10 recipe, trained to the end."""
    t = untrained(cifar10.CLASSES, (3, 32, 32))
    t.config = {**read_file("cifar10"), "data": "/somewhere/here", "seed": 7, "backend": "numpy"}
    save(t, tmp_path / "run")
    (tmp_path / "run/config.toml").write_text(Config(**t.config).to_toml())
    curve = {"train_loss": 1.0, "test_loss": 1.0, "test_top5": 0.9}
    log = [{"epoch": e, "step": e, "test_top1": 0.7 + e / 1000, **curve} for e in range(1, t.config["epochs"] + 1)]
    (tmp_path / "run/log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return t


def test_what_is_shipped(finished, tmp_path, monkeypatch):
    out = tmp_path / "new" / "cifar10.safetensors"
    assert pretrained.ship(tmp_path / "run", "by mail", out) == pytest.approx(0.714)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    _, info = read_checkpoint(out)
    made = info["made"]
    assert made["command"] == "python -m minitorch_alex.train --config cifar10 --seed 7"
    assert (made["test_top1"], made["note"]) == (0.714, "by mail")
    assert "/somewhere" not in json.dumps(info)
    assert Config(**info["config"]).check().data == "cifar10"
    image = pixels(2, 3, 32, 32)
    assert np.allclose(load_trained(out).log_probabilities(image), finished.log_probabilities(image), atol=1e-6)

    before = out.read_bytes()
    monkeypatch.setattr(pretrained, "MOST_BYTES", 800_000)
    with pytest.raises(ConfigError, match="bytes, more than 800,000"):
        pretrained.ship(tmp_path / "run", "", out)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert out.read_bytes() == before


def test_what_is_not_shipped(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "out.safetensors")

    def refused(*arguments):
        assert pretrained.main(list(arguments)) == 2
        assert not (tmp_path / "out.safetensors").exists()
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    assert "usage" in refused()
    assert "absent" in refused("absent")
    shutil.copytree("run", "short")
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "short/log.jsonl").write_text("".join(lines[:-1]))
    assert "not finished" in refused("short")
    shutil.copytree("run", "other")
    finished.classes = [f"{name}s" for name in finished.classes]
    shutil.rmtree("run")
    save(finished, tmp_path / "run")
    shutil.copy("run/" + CHECKPOINT, "other/" + CHECKPOINT)
    assert "not those of CIFAR-10" in refused("other")
