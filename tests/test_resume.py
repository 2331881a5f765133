"""A run that was stopped, killed or torn and then resumed equals the one that never stopped, bit for bit."""

import functools
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import keep_digits
from test_data import cifar_batches, write_binary
from test_train import _in_an_empty_folder, log_of, process_left_alone, run, save_again, untimed  # noqa: F401

from minitorch_alex import backends, philox, train
from minitorch_alex.checkpoint import read_checkpoint
from minitorch_alex.run_folder import RunFolder

with_numba = pytest.mark.skipif(bool(backends.why_not("numba")), reason=str(backends.why_not("numba")))
HOW = [  # backend, workers
    ("numpy", 1),
    ("numpy", 3),
    pytest.param("numba", 1, marks=with_numba),
    pytest.param("numba", 3, marks=with_numba),
]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr(train, "draw", lambda run: None)


@pytest.fixture
def few(monkeypatch):
    """40 digits to learn from, 20 to test on: 5 steps of SETTINGS an epoch."""
    keep_digits(monkeypatch, 40, 20)


def outcome(folder: str | Path) -> tuple[dict, dict, list]:
    """All that a run leaves and that must not depend on whether it was stopped: arrays, counters, log."""
    arrays, info = read_checkpoint(Path(folder) / "checkpoint.safetensors")
    return {name: (a.dtype, a.shape, a.tobytes()) for name, a in arrays.items()}, info, untimed(log_of(Path(folder)))


def assert_same(folder: str | Path, other: str | Path) -> None:
    for mine, theirs in zip(outcome(folder), outcome(other), strict=True):
        assert mine == theirs


def disturb() -> None:
    """What may have happened in this process before a run is resumed."""
    philox.manual_seed(12345)
    philox.set_step(777)
    np.random.seed(3)


def stop_after(monkeypatch, *steps: int, times: int = 1) -> None:
    """Ctrl-C in these steps (here: when they are written to the log)."""
    whole = RunFolder.log

    def log(self, **line):
        whole(self, **line)
        if "loss" in line and line["step"] in steps:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunFolder, "log", log)


# the rate drops once before and once after the places where runs are stopped
SETTINGS = ["--epochs", 4, "--batch-size", 8, "--milestones", 1, 3]


@pytest.mark.parametrize(("backend", "workers"), HOW)
def test_more_epochs(backend, workers, few):
    common = [*SETTINGS, "--backend", backend, "--workers", workers]
    assert run(*common, "--out", "whole") == 0
    assert run(*common, "--epochs", 2, "--out", "parts") == 0
    for epochs in (3, 4):
        disturb()
        assert run("--resume", "parts", "--epochs", epochs) == 0
    assert_same("parts", "whole")
    assert len({line["lr"] for line in log_of(Path("parts")) if "lr" in line}) == 3


def test_config_toml_tells_what_was_run(few):
    """The file that --config reads back gives the run as it was, with the epochs that were added later."""
    assert run(*SETTINGS, "--out", "whole") == 0
    assert run(*SETTINGS, "--epochs", 2, "--out", "parts") == 0
    assert run("--resume", "parts", "--epochs", 4) == 0
    assert Path("parts/config.toml").read_text() == Path("whole/config.toml").read_text()


@pytest.mark.parametrize("form", ["paper", "torch"])
def test_plateau_goes_on_counting(form, few, monkeypatch):
    """At such a learning rate nothing improves: each epoch without progress lowers the rate, three times."""
    common = ["--epochs", 6, "--batch-size", 8, "--schedule", "plateau", "--patience", 0, "--lr", 1e-6, "--sgd", form]
    assert run(*common, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3, 10, 17)
        assert run(*common, "--out", "parts") == 130
        for status in (130, 130, 0):
            assert run("--resume", "parts") == status
    assert_same("parts", "whole")
    assert outcome("parts")[1]["schedule"]["reductions"] == 3


@pytest.mark.parametrize(("backend", "workers"), HOW)
def test_stopped_in_the_middle(backend, workers, few, monkeypatch, capsys):
    """After the first step, in mid-epoch, after the last step of an epoch, the first of the next, the last of all."""
    common = [*SETTINGS, "--backend", backend, "--workers", workers]
    assert run(*common, "--out", "whole") == 0
    stops = [1, 3, 10, 11, 20]
    stop_after(monkeypatch, *stops)
    assert run(*common, "--out", "parts") == 130
    for step in stops:
        shown = capsys.readouterr().out
        assert f"after step {step} " in shown
        assert shown.rstrip().endswith("python -m minitorch_alex.train --resume parts")
        assert outcome("parts")[2][-1]["step"] == step
        disturb()
        assert run("--resume", "parts") == (130 if step < 20 else 0)
    assert_same("parts", "whole")
    assert [line["step"] for line in log_of(Path("parts")) if "loss" in line] == list(range(1, 21))


def test_stopped_while_evaluating(few, monkeypatch):
    """Nothing is lost; in the last epoch the run is simply done."""
    assert run(*SETTINGS, "--out", "whole") == 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # should the command forget to take it
    whole, calls = train.evaluate, []

    def evaluate(*arguments, **options):
        calls.append(1)
        if len(calls) in (2, 4):
            signal.raise_signal(signal.SIGTERM)
        return whole(*arguments, **options)

    monkeypatch.setattr(train, "evaluate", evaluate)
    assert run(*SETTINGS, "--out", "parts") == 143
    assert run("--resume", "parts") == 0
    assert_same("parts", "whole")


def test_the_second_ctrl_c_does_not_wait(few, monkeypatch, capsys):
    assert run(*SETTINGS, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 8, times=2)
        assert run(*SETTINGS, "--out", "parts") == 130
    assert read_checkpoint(Path("parts/checkpoint.safetensors"))[1]["progress"]["step"] == 5
    assert log_of(Path("parts"))[-1]["step"] == 8
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert run("--resume", "parts") == 0
    assert_same("parts", "whole")


@pytest.mark.parametrize(
    "torn", ['{"step": 8, "epoch": 2, "at": 1.6, "lo', '{"step"', "{", '{"epoch": 2, "test_top1": 0.']
)
def test_a_torn_log_line_is_dropped(torn, few, monkeypatch):
    assert run(*SETTINGS, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 7)
        assert run(*SETTINGS, "--out", "parts") == 130
    with open("parts/log.jsonl", "a") as file:
        file.write(torn)
    assert run("--resume", "parts") == 0
    assert_same("parts", "whole")


def test_no_epoch_is_logged_twice(few, monkeypatch):
    """Stopped after an epoch's last step, resumed, stopped again between that epoch's log line and its checkpoint."""
    assert run(*SETTINGS, "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert run(*SETTINGS, "--out", "parts") == 130

    def interrupted(run):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.Run, "save", interrupted)
        assert run("--resume", "parts") == 130
    assert "test_top1" in log_of(Path("parts"))[-1]
    assert run("--resume", "parts") == 0
    assert_same("parts", "whole")


def test_preprocessing_comes_from_the_checkpoint(few, monkeypatch):
    """What the weights were trained on, not what the folder's statistics are today."""
    assert run(*SETTINGS, "--epochs", 1, "--out", "run") == 0
    arrays, info = read_checkpoint(Path("run/checkpoint.safetensors"))
    arrays |= {"preprocessing.mean": np.full((1, 1, 1), 1.5), "preprocessing.std": np.full((1, 1, 1), 2.5)}
    save_again(Path("run/checkpoint.safetensors"), arrays, info)
    resumed = []
    monkeypatch.setattr(train, "train", lambda run: resumed.append(run) or 0)
    assert run("--resume", "run") == 0
    assert (resumed[0].preprocessing.mean, resumed[0].preprocessing.std) == (1.5, 2.5)


def test_a_run_that_is_done_stays_as_it_is(few):
    assert run(*SETTINGS, "--out", "done") == 0
    before = outcome("done")
    for options in ([], ["--epochs", 2]):
        assert run("--resume", "done", *options) == 0
        assert outcome("done") == before


def test_another_backend_can_take_over(few):
    if backends.why_not("numba"):
        pytest.skip(backends.why_not("numba"))
    assert run(*SETTINGS, "--backend", "numpy", "--out", "whole") == 0
    assert run(*SETTINGS, "--epochs", 2, "--backend", "numba", "--out", "parts") == 0
    assert run("--resume", "parts", "--epochs", 4, "--backend", "numpy") == 0
    (a, _, log), (b, _, other) = outcome("parts"), outcome("whole")
    assert a.keys() == b.keys()
    assert log[-1]["train_loss"] == pytest.approx(other[-1]["train_loss"], rel=1e-3)
    for name in a:
        assert np.allclose(np.frombuffer(a[name][2], "f4"), np.frombuffer(b[name][2], "f4"), atol=1e-3), name


def test_other_images_are_noticed(few, monkeypatch, capsys):
    """Step 3 of an epoch over other images is another step."""
    assert run(*SETTINGS, "--epochs", 2, "--out", "run") == 0
    before = outcome("run")
    keep_digits(monkeypatch, 37, 20)
    capsys.readouterr()
    assert run("--resume", "run", "--epochs", 4) == 2
    assert "other data" in capsys.readouterr().err
    assert outcome("run") == before


# -- processes that are really stopped and killed ---------------------------------------
@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder in CIFAR-10's form: 10 images to learn from, 2 to test on."""
    return write_binary(tmp_path_factory.mktemp("images"), cifar_batches(2))


MANY = ["--epochs", "25", "--batch-size", "3", "--milestones", "5", "15"]


@pytest.fixture(scope="module")
def uninterrupted(images, tmp_path_factory) -> Path:
    """25 epochs of four steps, each with a checkpoint."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch, process_left_alone():
        patch.setattr(train, "draw", lambda run: None)
        assert run(*MANY, "--data", images, "--out", folder) == 0
    return folder


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "minitorch_alex.train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until(condition, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.01)
    process.kill()
    raise AssertionError("it took too long")


def lines_in(file: Path) -> int:
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize(("number", "status", "lines"), [(signal.SIGINT, 130, 3), (signal.SIGTERM, 143, 32)])
def test_signals(number, status, lines, images, uninterrupted):
    process = start(*MANY, "--data", str(images), "--out", "run")
    wait_until(lambda: lines_in(Path("run/log.jsonl")) >= lines, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (status, "")
    step = int(re.search(r"Stopped after step (\d+) and saved\.", out)[1])
    assert "python -m minitorch_alex.train --resume run" in out
    assert outcome("run")[1]["progress"]["step"] == step
    assert outcome("run")[2][-1]["step"] == step
    assert run("--resume", "run") == 0
    assert_same("run", uninterrupted)


def killed(times: int, moments: random.Random, *arguments: str) -> int:
    """Start a run in the folder "run" and kill it with -9, so often, wherever it hits: while it starts, in a step, in a
    checkpoint, in between. How often a checkpoint was being written. Whatever is there in the end can be read."""
    checkpoint, torn = Path("run/checkpoint.safetensors"), 0
    for i in range(times):
        process = start(*arguments)
        if i % 2:
            time.sleep(moments.uniform(0, 2))
        else:
            before = lines_in(Path("run/log.jsonl"))
            wait_until(lambda: checkpoint.exists() and lines_in(Path("run/log.jsonl")) > before, process)  # noqa: B023
            time.sleep(moments.uniform(0, 0.2))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it was too fast to be killed"
        torn += checkpoint.with_name("checkpoint.safetensors.tmp").exists()
        read_checkpoint(checkpoint)
        arguments = ("--resume", "run")
    return torn


@pytest.fixture(scope="module")
def whole_run(images, tmp_path_factory):
    """A run that nobody stops, on a backend and for so many epochs; made once."""

    @functools.cache
    def made(backend: str, epochs: int) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "run"
        with pytest.MonkeyPatch.context() as patch, process_left_alone():
            patch.setattr(train, "draw", lambda run: None)
            settings = [*MANY, "--data", images, "--backend", backend, "--epochs", epochs]
            assert run(*settings, "--out", folder) == 0
        return folder

    return made


@pytest.mark.parametrize(("backend", "workers"), HOW)
def test_killed_at_any_moment(backend, workers, images, whole_run):
    settings = [*MANY, "--data", str(images), "--backend", backend]
    killed(1, random.Random(f"{backend} {workers}"), *settings, "--workers", str(workers), "--out", "run")
    assert run("--resume", "run") == 0
    assert_same_but_for_workers("run", whole_run(backend, 25))


@pytest.mark.slow  # six minutes
@pytest.mark.parametrize(("backend", "workers"), HOW)
def test_killed_twenty_five_times(backend, workers, images, whole_run, record_property):
    """A hundred times in all. How often it hit a checkpoint is in the report: pytest -m slow --junitxml=FILE."""
    settings = [*MANY, "--data", str(images), "--backend", backend, "--epochs", "600"]
    torn = killed(25, random.Random(f"{backend} {workers}"), *settings, "--workers", str(workers), "--out", "run")
    record_property("killed while a checkpoint was written", torn)
    assert run("--resume", "run") == 0
    assert_same_but_for_workers("run", whole_run(backend, 600))


def assert_same_but_for_workers(folder: str | Path, other: str | Path) -> None:
    """The number of loader threads stands in the settings, and changes nothing else."""
    (arrays, info, log), (theirs, their_info, their_log) = outcome(folder), outcome(other)
    info["config"].pop("workers"), their_info["config"].pop("workers")
    assert (arrays, info, log) == (theirs, their_info, their_log)


KILLED = {
    "while the checkpoint of the third epoch is written": (
        "import os\nfrom minitorch_alex import checkpoint\nwhole, calls = os.fsync, []\n"
        "def fsync(number):\n"
        "    calls.append(1)\n"
        "    if len(calls) == 10:\n"  # config.toml, the empty log, and then log and checkpoint, from step 0 on
        "        os.ftruncate(number, 5000); os._exit(9)\n"
        "    whole(number)\n"
        "os.fsync = fsync\n"
    ),
    "between the log and the checkpoint": (
        "import os\nfrom minitorch_alex import train\nwhole = train.Run.save\n"
        "train.Run.save = lambda run: os._exit(9) if run.progress.epoch == 3 else whole(run)\n"
    ),
    "within a line of the log": (
        "import os\nfrom minitorch_alex.run_folder import RunFolder\nwhole = RunFolder.log\n"
        "def log(self, **line):\n"
        "    if line['step'] == 11:\n"
        "        self.log_file.open('a').write('{\"step\": 11, \"ep'); os._exit(9)\n"
        "    whole(self, **line)\n"
        "RunFolder.log = log\n"
    ),
}


@pytest.mark.parametrize("where", KILLED)
def test_killed_at_the_worst_moments(where, images, uninterrupted):
    code = "import sys\n" + KILLED[where] + "from minitorch_alex.train import main\nsys.exit(main(sys.argv[1:]))\n"
    command = [sys.executable, "-c", code, *MANY, "--data", str(images), "--out", "run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (9, "")
    progress = read_checkpoint(Path("run/checkpoint.safetensors"))[1]["progress"]
    assert (progress["epoch"], progress["step"]) == (2, 8)
    assert run("--resume", "run") == 0
    assert_same("run", uninterrupted)
    assert not list(Path("run").glob("*.tmp"))


def test_killed_in_the_first_epoch(images, uninterrupted):
    """There is a checkpoint before the first step, so a run that was killed early is no dead end."""
    process = start(*MANY, "--data", str(images), "--out", "run")
    wait_until(lambda: os.path.exists("run/checkpoint.safetensors"), process)
    process.kill()
    process.communicate()
    assert run("--resume", "run") == 0
    assert_same("run", uninterrupted)


def test_log_lines_are_whole_json(uninterrupted):
    lines = (uninterrupted / "log.jsonl").read_text().splitlines()
    assert len(lines) == 25 * 5
    assert all(isinstance(json.loads(line), dict) for line in lines)
