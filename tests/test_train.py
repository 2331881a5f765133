"""The command: what a run leaves behind, that it repeats, how it answers to nonsense, what it reaches."""

import json
import os
import re
import signal
import stat
import struct
import sys
import tomllib
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import keep_digits
from PIL import Image
from safetensors.numpy import load_file, save_file

from minitorch_alex import backends, philox, train
from minitorch_alex import run as run_module
from minitorch_alex import trained as trained_module
from minitorch_alex.checkpoint import CheckpointError, read_checkpoint, restore, save_checkpoint, write_whole
from minitorch_alex.config import Config, ConfigError, flag, read_file
from minitorch_alex.data import Loader, Preprocessing
from minitorch_alex.data import load as load_data
from minitorch_alex.run_folder import RunFolder
from minitorch_alex.trained import Scores

RESULTS = ["checkpoint.safetensors", "config.toml", "curves.png", "filters.png", "log.jsonl"]


@contextmanager
def process_left_alone():
    """A run installs signal handlers, chooses a backend and seeds."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    backend, seed = backends._current, philox._seed
    try:
        yield
    finally:
        backends._current = backend
        philox.manual_seed(seed)
        for number, handler in handlers.items():
            signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    """Without --out a run writes where it stands."""
    monkeypatch.chdir(tmp_path)
    with process_left_alone():
        yield


def run(*arguments: object) -> int:
    try:
        return train.main([str(a) for a in arguments])
    except SystemExit as stop:
        return stop.code


def log_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def epochs_of(log: list[dict]) -> list[dict]:
    return [line for line in log if "test_top1" in line]


def untimed(log: list[dict]) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in log]


# -- what a run leaves behind -------------------------------------------------------
def test_a_run_and_what_it_leaves(few_digits, tmp_path, capsys):
    out = tmp_path / "deep" / "run"
    assert run("--epochs", 2, "--batch-size", 50, "--out", out) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert sorted(path.name for path in out.iterdir()) == RESULTS

    log = log_of(out)
    steps, epochs = [line for line in log if "loss" in line and "test_top1" not in line], epochs_of(log)
    assert len(steps) + len(epochs) == len(log)
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["epoch"] for line in steps] == [1] * 4 + [2] * 4
    assert [line["at"] for line in steps] == [round(k / 160, 4) for k in (50, 100, 150, 160, 210, 260, 310, 320)]
    assert all(line["lr"] == 0.02 and line["loss"] > 0 for line in steps)
    assert [(line["epoch"], line["step"]) for line in epochs] == [(1, 4), (2, 8)]
    for line, first in zip(epochs, (0, 4), strict=True):
        assert 0 <= line["test_top1"] <= line["test_top5"] <= 1
        assert line["test_loss"] > 0
        assert line["images_per_second"] > 0
        mean = np.average([s["loss"] for s in steps[first : first + 4]], weights=[50, 50, 50, 10])
        assert line["train_loss"] == pytest.approx(mean), "the last, smaller batch counts for less"
    assert abs(steps[0]["loss"] - np.log(10)) < 0.2

    header = shown.out
    assert "numba (NumPy arrays" in header or "numpy (" in header
    assert re.search(r"^device +\S.*\d+ cores$", header, re.M)
    assert "160 training images, 80 held-out images, 10 classes" in header
    assert str(out) in header
    assert re.search(r"^ +conv1 +Conv2d +32 x 8 x 8 +832 +51,200 +8.0 KiB$", header, re.M)
    assert re.search(r"^ +total +131,082 +1,170,432 +47.0 KiB$", header, re.M)
    assert header.count("top-1") == 2
    for name in ("curves.png", "filters.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 100


def test_progress_bar_in_a_terminal(few_digits, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(train, "draw", lambda run: None)
    assert run("--epochs", 1, "--out", "run") == 0
    assert "epoch 1/1" in (bar := capsys.readouterr().err)
    assert "(ln 10 = 2.303)" in bar


def test_evaluation_is_right(few_digits, tmp_path, monkeypatch):
    """Losses and ranks against a count by hand, also where the images do not fill the evaluation batches."""
    monkeypatch.setattr(train, "draw", lambda run: None)
    monkeypatch.setattr(trained_module, "PIXELS_AT_ONCE", 30 * 64)
    made = []
    whole = train.finish_epoch
    monkeypatch.setattr(train, "finish_epoch", lambda run, speed: (made.append(run), whole(run, speed)))
    assert run("--epochs", 1, "--out", tmp_path / "run") == 0
    (r,) = made
    r.network.eval()
    scores = np.concatenate(
        [
            r.network(train.Tensor(r.preprocessing(r.dataset.test_images[i : i + 1]))).numpy().astype("float64")
            for i in range(80)
        ]
    )
    right = scores[np.arange(80), r.dataset.test_labels]
    loss = np.log(np.exp(scores).sum(1)) - right
    rank = (scores > right[:, None]).sum(1)
    line = epochs_of(log_of(tmp_path / "run"))[0]
    assert line["test_loss"] == pytest.approx(loss.mean(), rel=1e-4)
    assert line["test_top1"] == (rank == 0).mean()
    assert line["test_top5"] == (rank < 5).mean()


def test_default_folders_are_numbered(no_training, tmp_path):
    for _ in range(2):
        assert run() == 0
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["digits-001", "digits-002"]


def test_two_runs_at_once_do_not_share_a_folder(no_training, tmp_path, monkeypatch):
    """The second starts and chooses its folder while the first is still reading its data."""
    whole, running = run_module.assemble, []

    def assemble(config, folder, tell):
        if not running:
            running.append(1)
            assert run("--seed", 2) == 0
        return whole(config, folder, tell)

    monkeypatch.setattr(run_module, "assemble", assemble)
    assert run("--seed", 1) == 0
    folders = sorted((tmp_path / "runs").iterdir())
    assert sorted(settings_of(folder)["seed"] for folder in folders) == [1, 2]


# -- settings -----------------------------------------------------------------------
def settings_of(folder: Path) -> dict:
    return tomllib.loads((folder / "config.toml").read_text())


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr(train, "train", lambda run: 0)


def test_command_line_over_file_over_defaults(no_training, tmp_path):
    (tmp_path / "my.toml").write_text("lr = 0.5\nepochs = 3\nmilestones = [2]\n")
    assert run("--config", "my.toml", "--epochs", 7, "--out", "a") == 0
    expected = {"lr": 0.5, "epochs": 7, "milestones": [2], "batch_size": 32, "data": "digits"}
    settings = settings_of(tmp_path / "a")
    assert {name: settings[name] for name in expected} == expected


def test_config_reads_back(no_training, tmp_path):
    options = ["--epochs", 3, "--lr", 0.00001, "--milestones", "--schedule", "plateau", "--sgd", "torch", "--seed", 5]
    assert run(*options, "--backend", "numpy", "--workers", 2, "--weight-decay", 0, "--out", "a") == 0
    assert run("--config", "a/config.toml", "--out", "b") == 0
    assert settings_of(tmp_path / "a") == settings_of(tmp_path / "b")
    assert settings_of(tmp_path / "a")["milestones"] == []
    assert set(settings_of(tmp_path / "a")) == {f.name for f in fields(Config)}


@pytest.mark.parametrize("data", ["C:\\my data", 'a "quoted" one', "Bilder für später", "images/😀", "tab\there"])
def test_config_reads_back_whatever_the_folder_is_called(data):
    config = Config(data=data)
    assert tomllib.loads(config.to_toml())["data"] == data


def test_recipe_by_name(no_training, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run_module, "load", lambda source, **_: asked.append(source) or load_data("digits"))
    assert run("--config", "cifar10", "--out", "a") == 0
    assert asked == ["cifar10"]
    assert settings_of(tmp_path / "a")["batch_size"] == 128
    (tmp_path / "cifar10").write_text("batch_size = 7")
    assert run("--config", "cifar10", "--out", "b") == 0
    assert settings_of(tmp_path / "b")["batch_size"] == 7, "a file of that name comes first"


def test_settings_reach_the_run(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(train, "train", lambda run: seen.append(run) or 0)
    options = "--lr 0.5 --momentum 0.3 --weight-decay 0.01 --sgd torch --milestones 4 6"
    assert run(*options.split(), "--backend", "numpy", "--out", "a") == 0
    assert run("--schedule", "plateau", "--patience", 3, "--out", "b") == 0
    assert run("--schedule", "constant", "--out", "c") == 0
    a, b, c = seen
    weights, biases = a.optimizer.param_groups
    names = dict(a.network.named_parameters())
    assert [id(p) for p in weights["params"]] == [id(p) for name, p in names.items() if name.endswith("weight")]
    assert [id(p) for p in biases["params"]] == [id(p) for name, p in names.items() if name.endswith("bias")]
    assert (weights["weight_decay"], biases["weight_decay"]) == (0.01, 0)
    for group in (weights, biases):
        assert (group["lr"], group["momentum"], group["form"]) == (0.5, 0.3, "torch")
    assert names["conv1.weight"].backend.name == "numpy"
    assert a.schedule.milestones == [4, 6]
    assert b.schedule.patience == 3
    assert b.optimizer.param_groups[0]["form"] == "paper"
    assert c.schedule.milestones == []


def test_settings_reach_the_loader(monkeypatch, tmp_path):
    got = []

    def loader(*arguments, colour):
        got.extend(arguments)
        raise ConfigError("that will do")

    monkeypatch.setattr(run_module, "Loader", loader)
    assert run("--batch-size", 7, "--seed", 9, "--workers", 3, "--out", "a") == 2
    images, labels, batch_size, preprocessing, augmentation, seed, workers = got
    d = load_data("digits")
    assert np.array_equal(images, d.train_images)
    assert np.array_equal(labels, d.train_labels)
    expected = Preprocessing.of(d.train_images)
    assert np.array_equal(preprocessing.mean, expected.mean)
    assert np.array_equal(preprocessing.std, expected.std)
    assert (batch_size, augmentation, seed, workers) == (7, d.augmentation, 9, 3)


def test_learning_rate_drops_at_the_milestone(few_digits, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)
    assert run("--epochs", 3, "--milestones", 2, "--batch-size", 80, "--out", tmp_path / "a") == 0
    rates = [line["lr"] for line in log_of(tmp_path / "a") if "lr" in line]
    assert rates == pytest.approx([0.02] * 4 + [0.002] * 2)


def test_help_explains_every_option(capsys):
    assert run("--help") == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for option in [*(flag(f.name) for f in fields(Config)), "--out", "--resume", "--config"]:
        assert re.search(rf"^  {option}[ ,]", shown.out, re.M), option
    assert "%%" not in shown.out


# -- nonsense -------------------------------------------------------------------------
def files_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): b"" if p.is_dir() else p.read_bytes() for p in sorted(folder.rglob("*"))}


def refused(capsys, *arguments: object, says: str = "") -> str:
    """The command answers in one line, with status 2, and touches nothing."""
    before = files_below(Path())
    capsys.readouterr()
    assert run(*arguments) == 2
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1, shown.err
    assert shown.err.startswith("train: ")
    assert shown.out == ""
    assert says in shown.err
    assert files_below(Path()) == before
    return shown.err


BAD_OPTIONS = {
    "data nowhere": ("--data nowhere", "nowhere"),
    "data empty": ("--data empty", "empty"),
    "data is a file": ("--data file.txt", "file.txt"),
    "no batch": ("--batch-size 0", "--batch-size"),
    "negative batch": ("--batch-size -4", "--batch-size"),
    "half a batch": ("--batch-size 1.5", "--batch-size"),
    "no epochs": ("--epochs 0", "--epochs"),
    "lr nan": ("--lr nan", "--lr"),
    "lr inf": ("--lr inf", "--lr"),
    "lr 0": ("--lr 0", "--lr"),
    "lr negative": ("--lr -0.1", "--lr"),
    "lr a word": ("--lr high", "--lr"),
    "momentum 1": ("--momentum 1", "--momentum"),
    "negative decay": ("--weight-decay -1", "--weight-decay"),
    "negative seed": ("--seed -1", "--seed"),
    "no workers": ("--workers 0", "--workers"),
    "milestone 0": ("--milestones 0 3", "--milestones"),
    "backend": ("--backend torch", "torch"),
    "cupy": ("--backend cupy", "cupy"),
    "model": ("--model resnet", "resnet"),
    "option": ("--learning-rate 3", "--learning-rate"),
    "argument": ("digits", "digits"),
    "no value": ("--out", "--out"),
    "config nowhere": ("--config nowhere.toml", "nowhere.toml"),
    "config a folder": ("--config empty", "empty"),
    "config not TOML": ("--config file.txt", "file.txt"),
    "config binary": ("--config binary.toml", "binary.toml"),
    "config unknown": ("--config unknown.toml", "learning_rate"),
    "config type": ("--config type.toml", "--epochs"),
    "config text": ("--config text.toml", "--lr"),
    "config bool": ("--config bool.toml", "--batch-size"),
    "config list": ("--config list.toml", "--milestones"),
    "config table": ("--config table.toml", "--data"),
    "config choice": ("--config choice.toml", "--schedule"),
    "out full": ("--out full", "full"),
    "out a file": ("--out file.txt", "file.txt"),
    "out below a file": ("--out file.txt/run", "file.txt"),
    "resume nowhere": ("--resume nowhere", "nowhere"),
    "resume empty": ("--resume empty", "empty"),
    "resume a file": ("--resume file.txt", "file.txt"),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options(name, tmp_path, capsys):
    if name == "cupy" and backends.why_not("cupy") is None:
        pytest.skip("CuPy can be used here")
    for folder in ("empty", "full"):
        Path(folder).mkdir()
    files = {
        "full/notes": "x", "file.txt": "not TOML\n", "binary.toml": "\udcff\udcfe", "unknown.toml": "learning_rate = 1",
        "type.toml": "epochs = 1.5", "text.toml": 'lr = "high"', "bool.toml": "batch_size = true",
        "list.toml": "milestones = 3", "table.toml": "[data]\nx = 1", "choice.toml": 'schedule = "cosine"',
    }  # fmt: skip
    for file, content in files.items():
        Path(file).write_bytes(content.encode(errors="surrogateescape"))
    options, says = BAD_OPTIONS[name]
    refused(capsys, *options.split(), says=says)


def test_folder_whose_name_is_no_text(capsys, monkeypatch):
    """config.toml could not hold it."""
    monkeypatch.setattr(run_module, "load", lambda source, **_: load_data("digits"))
    refused(capsys, "--data", os.fsdecode(b"\xff"), "--out", "run")


def test_images_too_small_for_the_model(tmp_path, capsys, monkeypatch):
    d = load_data("digits")
    d.train_images = d.train_images[:, :, :4, :4]
    monkeypatch.setattr(run_module, "load", lambda source, **_: d)
    refused(capsys, "--out", "run", says="5 x 5")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission(tmp_path, capsys):
    Path("closed").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    refused(capsys, "--out", "closed/run", says="closed")


def test_loss_that_is_no_number(few_digits, tmp_path, capsys):
    with np.errstate(all="ignore"):
        assert run("--lr", "1e30", "--backend", "numpy", "--out", "run") == 1
    shown = capsys.readouterr()
    assert len(shown.err.splitlines()) == 1
    assert "learning rate 1e+30" in shown.err
    _, info = read_checkpoint(Path("run/checkpoint.safetensors"))
    assert info["progress"]["step"] == 0, "weights that are no numbers are not kept"
    assert all(np.isfinite(line["loss"]) for line in log_of(Path("run")))


# -- checkpoints that cannot be resumed -------------------------------------------------
@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of one short epoch, to be copied."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    with pytest.MonkeyPatch.context() as patch, process_left_alone():
        patch.setattr(train, "draw", lambda run: None)
        assert run("--epochs", 1, "--batch-size", 512, "--backend", "numpy", "--out", folder) == 0
    return folder


@pytest.fixture
def copy(trained) -> Path:
    """Its folder `run` in the current one; the path of the checkpoint."""
    Path("run").mkdir()
    for file in trained.iterdir():
        (Path("run") / file.name).write_bytes(file.read_bytes())
    return Path("run/checkpoint.safetensors")


def test_the_copy_itself_is_sound(copy, capsys):
    assert run("--resume", "run") == 0
    assert "has had 1 epochs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--out other", "other"),
        ("--config cifar10", "cifar10"),
        ("--lr 0.5", "--lr"),
        ("--seed 1", "--seed"),
        ("--batch-size 64", "--batch-size"),
        ("--data elsewhere", "--data"),
        ("--milestones", "--milestones"),
        ("--epochs 0", "--epochs"),
        ("--workers 0", "--workers"),
        ("--backend torch", "torch"),
    ],
)
def test_resume_with_contradictions(options, says, copy, capsys):
    refused(capsys, "--resume", "run", *options.split(), says=says)


def test_resume_with_the_same_settings_again(copy):
    assert run("--resume", "run", "--lr", 0.02, "--batch-size", 512, "--milestones", 20, 27) == 0


def test_resume_of_nothing_is_no_new_run(no_training, capsys):
    """As from a script whose variable is not set: --resume "$RUN"."""
    refused(capsys, "--resume", "")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 1500, 3000, 500_000, -1])
def test_truncated_checkpoint(length, copy, capsys):
    copy.write_bytes(copy.read_bytes()[:length])
    refused(capsys, "--resume", "run", says=str(copy))


def test_checkpoint_with_something_behind_it(copy, capsys):
    copy.write_bytes(copy.read_bytes() + b"\0")
    refused(capsys, "--resume", "run", says=str(copy))


@pytest.mark.parametrize("content", [b"", b"x" * 5000, b"\xff" * 16, struct.pack("<Q", 2) + b"{}", b'{"a": 1}'])
def test_not_a_safetensors_file(content, copy, capsys):
    copy.write_bytes(content)
    refused(capsys, "--resume", "run", says=str(copy))


def test_checkpoint_that_is_a_folder(copy, capsys):
    copy.unlink()
    copy.mkdir()
    refused(capsys, "--resume", "run", says=str(copy))


def test_safetensors_of_somebody_else(copy, capsys):
    save_file({"weight": np.zeros(3)}, copy)
    refused(capsys, "--resume", "run", says="not a checkpoint of minitorch_alex")


class Holder:
    """Stands for a network or an optimizer when a checkpoint is written."""

    def __init__(self, arrays: dict[str, np.ndarray], prefix: str) -> None:
        self.state = {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}

    def state_dict(self) -> dict[str, np.ndarray]:
        return self.state


def save_again(path: Path, arrays: dict[str, np.ndarray], info: object) -> None:
    """A checkpoint that was written properly, of something else."""
    preprocessing = SimpleNamespace(mean=arrays["preprocessing.mean"], std=arrays["preprocessing.std"])
    save_checkpoint(path, Holder(arrays, "model."), Holder(arrays, "optimizer."), info, preprocessing)


def without(part: str, mapping: dict) -> dict:
    return {name: value for name, value in mapping.items() if name != part}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model.fc4.weight": np.zeros((10, 100), "float32")}, "fc4.weight"),
        ({"model.fc4.bias": None}, "fc4.bias"),
        ({"model.fc5.bias": np.zeros(3, "float32")}, "fc5.bias"),
        ({"optimizer.0": np.zeros((2, 2), "float32")}, "velocity"),
        ({"optimizer.99": np.zeros(10, "float32")}, "velocity"),
    ],
    ids=["shape", "missing", "more", "velocity", "more velocities"],
)
def test_checkpoint_of_another_model(change, says, copy, capsys):
    arrays, info = read_checkpoint(copy)
    save_again(copy, {name: a for name, a in {**arrays, **change}.items() if a is not None}, info)
    assert "another model" in refused(capsys, "--resume", "run", says=says)


@pytest.mark.parametrize("info", [None, [], {}, 3, {"config": {}}, {"config": 3, "progress": 4}], ids=repr)
def test_checkpoint_with_another_description(info, copy, capsys):
    save_again(copy, read_checkpoint(copy)[0], info)
    refused(capsys, "--resume", "run", says=str(copy))


@pytest.mark.parametrize("part", ["config", "progress", "schedule", "classes", "image_shape"])
def test_checkpoint_without_a_part_of_its_description(part, copy, no_training, capsys):
    arrays, info = read_checkpoint(copy)
    for wrong in ({**info, part: None}, {**info, part: ["strange"]}, without(part, info)):
        save_again(copy, arrays, wrong)
        refused(capsys, "--resume", "run")


@pytest.mark.parametrize("mean", [np.zeros((2, 1, 1)), np.zeros((1, 3, 3)), np.zeros((1, 1))], ids=["C", "HW", "ndim"])
def test_checkpoint_with_another_preprocessing(mean, copy, no_training, capsys):
    arrays, info = read_checkpoint(copy)
    std = np.ones((len(mean), 1, 1))
    save_again(copy, {**arrays, "preprocessing.mean": mean.astype("float32"), "preprocessing.std": std}, info)
    refused(capsys, "--resume", "run", says="mean")


@pytest.mark.parametrize("text", ["", "{", "[}"])
def test_checkpoint_whose_description_is_no_json(text, copy, capsys):
    raw = copy.read_bytes()
    metadata = json.loads(raw[8 : 8 + struct.unpack("<Q", raw[:8])[0]])["__metadata__"]
    save_file(load_file(copy), copy, {**metadata, "info": text})
    refused(capsys, "--resume", "run", says=str(copy))


def test_flipped_bits_are_noticed(copy, capsys):
    """A checkpoint that differs in one bit, wherever it is, is not the one that was saved."""
    whole = copy.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    random = np.random.default_rng(0)
    places = [*random.integers(0, header, 60), *random.integers(header, len(whole), 20)]
    unnoticed = []
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.integers(8)
        copy.write_bytes(flipped)
        try:
            read_checkpoint(copy)
            unnoticed.append(int(place))
        except CheckpointError:
            pass
    assert not unnoticed, f"{len(unnoticed)} of {len(places)} (the header has {header} bytes)"
    refused(capsys, "--resume", "run", says=str(copy))


def test_run_without_its_log(copy, capsys):
    Path("run/log.jsonl").unlink()
    refused(capsys, "--resume", "run", says="log.jsonl")


def test_restore_is_all_or_nothing(copy):
    arrays, _ = read_checkpoint(copy)
    r = run_module.assemble(Config(backend="numpy"), RunFolder(Path("run")))
    before = r.network.state_dict()
    arrays["optimizer.0"] = np.zeros((2, 2), "float32")
    with pytest.raises(CheckpointError):
        restore(copy, arrays, r.network, r.optimizer)
    after = r.network.state_dict()
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert not r.optimizer.velocity


# -- files are replaced whole -------------------------------------------------------------
def test_a_file_is_replaced_in_one_step(tmp_path):
    path, old = tmp_path / "file", tmp_path / "another name of the old file"
    path.write_bytes(b"old")
    old.hardlink_to(path)
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert old.read_bytes() == b"old", "written over in place: a crash in the middle would have lost both"
    assert sorted(tmp_path.iterdir()) == [old, path]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(fails, tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_reported_in_one_line(few_digits, tmp_path, capsys, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minitorch_alex.run.save_checkpoint", full)
    assert run("--epochs", 1, "--out", "run") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# -- repeatability ----------------------------------------------------------------------
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_same_seed_same_run(backend, few_digits, tmp_path, monkeypatch):
    if backends.why_not(backend):
        pytest.skip(backends.why_not(backend))
    monkeypatch.setattr(train, "draw", lambda run: None)
    logs = {}
    for out, options in {
        "a": ["--seed", 3], "again": ["--seed", 3, "--workers", 4], "other": ["--seed", 4],
    }.items():  # fmt: skip
        np.random.seed(len(logs))
        assert run("--epochs", 2, "--backend", backend, "--out", out, *options) == 0
        logs[out] = untimed(log_of(Path(out)))
    assert logs["a"] == logs["again"]
    assert logs["a"][0] != logs["other"][0]
    a, b = (load_file(f"{out}/checkpoint.safetensors") for out in ("a", "again"))
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_backends_draw_the_same_and_get_to_the_same_place(tmp_path, monkeypatch):
    """Crops and masks are equal bit for bit; the sums are not, so the runs part slowly."""
    if backends.why_not("numba"):
        pytest.skip(backends.why_not("numba"))
    monkeypatch.setattr(train, "draw", lambda run: None)
    keep_digits(monkeypatch, 320, 200)
    drawn: dict[str, list[bytes]] = {}

    def spy_on_batches(name: str, whole):
        def watched(*arguments):
            out = whole(*arguments)
            drawn[name].append(out[0].tobytes())
            return out

        return watched

    def spy_on_masks(name: str, whole):
        def watched(x, *place):
            mask = whole(np.ones_like(x), *place)
            drawn[name].append(np.packbits(mask != 0).tobytes())
            assert set(np.unique(mask).tolist()) <= {0.0, 2.0}
            return whole(x, *place)

        return watched

    accuracy = {}
    for name in ("numpy", "numba"):
        with monkeypatch.context() as patch:
            drawn[name] = []
            patch.setattr(Loader, "batch", spy_on_batches(name, Loader.batch))
            patch.setattr(backends.get(name), "dropout", spy_on_masks(name, backends.get(name).dropout))
            assert run("--epochs", 4, "--backend", name, "--out", name) == 0
        accuracy[name] = [(line["test_top1"], line["train_loss"]) for line in epochs_of(log_of(Path(name)))]
    assert len(drawn["numpy"]) == 3 * 4 * 10  # a mask is made twice, for the values and for the gradients
    assert sorted(drawn["numpy"]) == sorted(drawn["numba"])
    assert len(set(drawn["numpy"])) == 2 * 4 * 10, "every step has a mask and a crop of its own"
    (a, loss_a), (b, loss_b) = accuracy["numpy"][-1], accuracy["numba"][-1]
    assert abs(a - b) <= 0.01
    assert loss_a == pytest.approx(loss_b, rel=0.01)


def test_digits_are_learnt(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)
    assert run("--epochs", 10, "--milestones", 8, "--out", "run") == 0
    log = epochs_of(log_of(Path("run")))
    assert log[-1]["test_top1"] > 0.95
    assert log[-1]["test_top5"] > 0.99
    assert log[-1]["train_loss"] < 0.3


# -- things that are broken --------------------------------------------------------------
def test_a_broken_numba_is_passed_over_or_named(no_training, monkeypatch, capsys):
    def broken(self):
        raise ImportError("Numba needs another NumPy\nthan this")

    monkeypatch.setattr(type(backends.get("numba")), "prepare", broken)
    assert run("--backend", "numba") == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert "does not load: ImportError: Numba needs another NumPy than this" in message
    assert "numpy (NumPy arrays" in run_module.choose_backend("auto")


def test_a_network_that_turns_nan_at_the_end_of_an_epoch_is_not_saved(few_digits, tmp_path, monkeypatch, capsys):
    assert run("--epochs", "1", "--out", "run") == 0
    before = Path("run/checkpoint.safetensors").read_bytes()
    monkeypatch.setattr(train, "evaluate", lambda *_, **__: [Scores(float("nan"), 0.1, 0.5)])
    assert run("--resume", "run", "--epochs", "2") == 1
    assert "loss is no number" in capsys.readouterr().err
    assert Path("run/checkpoint.safetensors").read_bytes() == before
    assert "NaN" not in Path("run/log.jsonl").read_text()


def test_a_folder_called_like_a_recipe_does_not_hide_it(tmp_path):
    Path("cifar10").mkdir()
    assert read_file("cifar10")["data"] == "cifar10"
