"""Every command answers to every wrong value in one line, with status 2, and shows a traceback only if asked to.

The options come from the commands' own parsers, so a new one is tried as well.
"""

import argparse
import importlib
import io
import os
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import fields
from pathlib import Path

import pytest
from conftest import photograph
from test_train import _in_an_empty_folder, process_left_alone  # noqa: F401

import minitorch_alex
from minitorch_alex import compare, evaluate, figures, plots, predict, train
from minitorch_alex.command_line import OneLineParser, reported
from minitorch_alex.config import Config, ConfigError
from minitorch_alex.trained import Scores

PACKAGE = Path(minitorch_alex.__file__).parent
COMMANDS = sorted(
    ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
    for file in PACKAGE.rglob("*.py")
    if '\nif __name__ == "__main__":' in file.read_text()
)
NAMES = {command: command.removesuffix(".__main__") for command in COMMANDS}
WORKING = {  # a request that can be obeyed, in which one value at a time is replaced
    "compare": ["numpy", "numpy", "--batch-size=2"],
    "cuda_on_cpu.__main__": ["vector_add"],
    "doctor": [],
    "evaluate": ["run", "--backend=numpy"],
    "exercises.__main__": [],
    "figures": ["--trained=run", "--data=digits", "--among=8"],
    "pack": ["photographs", "packed"],
    "predict": ["picture.png", "--trained=run", "--backend=numpy"],
    "train": ["--backend=numpy"],
}
VALUES = [
    "", " ", "x", "-", "-1", "0", "1", "2", "1.5", "1e400", "nan", "inf", "-inf", "9" * 40, "-" + "9" * 40, "0x10", "ü",
    "\N{GRINNING FACE}", "two\nlines", "\udcff", "\x1b[31m", "%s", "{}", "a" * 300, "a,b", "=", "x=y", "x=nan", "x=-1",
    "nowhere", "nowhere/x.png", "folder", "folder.png", "file", "file.png", "file.toml", "file/x", "dangling", "loop",
    "closed", "/dev/null", "/dev/null/x", "/proc/nowhere", "~", "run", "run/checkpoint.safetensors", "picture.png",
    "photographs", "empty",
]  # fmt: skip


def main_of(command):
    return importlib.import_module(f"minitorch_alex.{command}").main


def parsers_of(command):
    """(words that lead to it, parser) of a command and of its subcommands."""
    found = []

    def stop(parser, *_):
        found.append(parser)
        raise SystemExit

    with pytest.MonkeyPatch.context() as patch, suppress(SystemExit):
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        main_of(command)([])
    (parser,) = found
    yield from below([], parser)


def below(words, parser):
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from below([*words, name], inner)


def requests(command):
    """Every option and argument of a command with every value."""
    for words, parser in parsers_of(command):
        own = {flag for action in parser._actions for flag in action.option_strings}
        positional = [a for a in parser._actions if not a.option_strings]
        if any(isinstance(a, argparse._SubParsersAction) for a in positional):
            yield from ([value] for value in VALUES)
            continue
        working = [word for word in WORKING[command] if not word.startswith("--") or word.partition("=")[0] in own]
        options = [word for word in working if word.startswith("--")]
        given = [word for word in working if not word.startswith("--")]
        for action in parser._actions:
            flags = [flag for flag in action.option_strings if flag.startswith("--")]
            if isinstance(action, argparse._HelpAction):
                continue
            for value in VALUES:
                if not flags:
                    place = positional.index(action)
                    filled = [*given, *["1"] * len(positional)][: len(positional)]
                    yield [*words, *options, "--", *filled[:place], value, *filled[place + 1 :]]
                elif action.nargs == 0:
                    yield [*words, *working, f"{flags[0]}={value}"]
                else:
                    kept = [word for word in options if word.partition("=")[0] != flags[0]]
                    yield [*words, *kept, *given, f"{flags[0]}={value}"]
        yield from ([*words, *working, value] for value in VALUES)


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """Files and folders of all kinds, and a run that has not begun."""
    folder = tmp_path_factory.mktemp("things")
    with pytest.MonkeyPatch.context() as patch, process_left_alone():
        patch.chdir(folder)
        patch.setattr(train, "train", lambda run: 0)
        assert train.main(["--backend", "numpy", "--out", "run"]) == 0
    for name in ("folder", "folder.png", "empty"):
        (folder / name).mkdir()
    (folder / "folder" / "something").write_text("x")
    for name in ("file", "file.png", "file.toml"):
        (folder / name).write_bytes(b"\xff\x00no picture, no text")
    photograph(folder / "picture.png", 3)
    (folder / "closed.cu").symlink_to("closed")
    for name in ("cat", "dog"):
        photograph(folder / "photographs" / name / "1.png", 5)
    (folder / "closed").write_text("x")
    (folder / "closed").chmod(0)
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    return folder


class Sheet:
    """A figure that is quickly drawn."""

    def save(self, path):
        Path(path).write_bytes(b"")


@pytest.fixture
def quick(monkeypatch):
    """What takes long is left out: it comes after all values have been looked at."""
    monkeypatch.setattr(train, "train", lambda run: 0)
    for name in ("estimate", "memory_of_a_step", "profile_of_a_step"):
        monkeypatch.setattr(train, name, lambda *_: "")
    monkeypatch.setattr(evaluate, "evaluate", lambda trained, *_: [Scores(1.0, 0.5, 0.5)] * (len(trained) + 1))
    for name in ("predictions", "filters", "architecture", "neighbours", "activations", "curves"):
        monkeypatch.setattr(plots, name, lambda *_, **__: Sheet())


def answer(command, arguments):
    """(status, stdout, stderr) of a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        try:
            status = main_of(command)(arguments)
        except SystemExit as stop:
            status = stop.code
    return status, out.getvalue(), err.getvalue()


def test_all_commands_are_known():
    assert set(COMMANDS) == set(WORKING)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_wrong_value_is_told_in_one_line(command, things, quick, monkeypatch):
    monkeypatch.chdir(things)
    before = {path: path.read_bytes() if path.is_file() else None for path in things.iterdir()}
    wrong, told, count = [], 0, 0
    for arguments in requests(command):
        count += 1
        try:
            status, _, err = answer(command, arguments)
        except BaseException as error:
            wrong.append(f"{arguments} raises {type(error).__name__}: {error}")
            continue
        finally:
            put_back(things, before)
        told += status == 2
        if status not in (0, 1, 2):
            wrong.append(f"{arguments} ends with status {status}: {err!r}")
        elif status == 2 and not is_a_line(command, err):
            wrong.append(f"{arguments} says {err!r}")
    assert not wrong, f"{len(wrong)} of {count}:\n" + "\n".join(wrong)
    assert told > 0.3 * count


def put_back(folder, before):
    """What a request has left behind goes, and what it wrote over comes back."""
    for path in folder.iterdir():
        if path not in before:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif before[path] is not None and path.stat().st_size != len(before[path]):
            path.write_bytes(before[path])


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("figures", ["predictions", "--seed=-1"], "--seed must be from 0 up"),
        ("figures", ["neighbours", "--held-out=nan"], "--held-out must be from 0 up and below 1"),
        ("figures", ["neighbours", "--among=0"], "--among must be at least 1"),
        ("pack", ["photographs", "packed", "--workers=100000"], "--workers must be from 1 to 1024"),
        ("predict", ["picture.png", "--top=0"], "--top must be at least 1"),
        ("evaluate", ["run", "--workers=0"], "--workers must be at least 1"),
        ("compare", ["numpy", "numba", "--tolerance=inf"], "--tolerance must be a number from 0 up"),
    ],
)
def test_numbers_that_cannot_be_meant(command, arguments, says, things, monkeypatch):
    monkeypatch.chdir(things)
    status, _, err = answer(command, arguments)
    assert status == 2
    assert is_a_line(command, err)
    assert says in err


def is_a_line(command, err):
    return len(err.splitlines()) == 1 and err.startswith(f"{NAMES[command]}: ")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("train", ["--config", "closed"]),
        ("train", ["--init-from", "closed"]),
        ("evaluate", ["closed"]),
        ("predict", ["closed"]),
        ("cuda_on_cpu.__main__", ["./closed"]),
        ("exercises.__main__", ["check", "1", "closed"]),
    ],
)
def test_what_may_not_be_read(command, arguments, things, monkeypatch):
    monkeypatch.chdir(things)
    if os.access("closed", os.R_OK):
        pytest.skip("root may read everything")
    status, _, err = answer(command, arguments)
    assert status == 2
    assert is_a_line(command, err)
    assert "ermission denied" in err or "no picture that can be read" in err


WRONG_IN_A_FILE = [
    "nan", "inf", "-inf", "-1", "0", "1.5", "1e400", "true", '""', '"x"', '"\\u0000"', "[]", "[[]]", "[1, 1]", "[nan]",
    '["x"]', '["x", "x"]', "[true]", "{}", "{a = 1}", "2020-01-01", "12:00:00", "99999999999999999999999999999", "[-1]",
]  # fmt: skip


def test_every_wrong_value_in_a_file_of_settings(tmp_path, monkeypatch):
    """Refused in one line, or a value that can be meant."""
    monkeypatch.setattr(train, "prepare_new", lambda given, out, file, tell: train.settings(given, file))
    monkeypatch.setattr(train, "train", lambda run: 0)
    wrong = []
    for setting in fields(Config):
        for value in WRONG_IN_A_FILE:
            Path("settings.toml").write_text(f"{setting.name} = {value}\n")
            status, _, err = answer("train", ["--config", "settings.toml"])
            if status not in (0, 2) or (status == 2 and not is_a_line("train", err)):
                wrong.append(f"{setting.name} = {value}: {status}, {err!r}")
    assert not wrong, "\n".join(wrong)


# -- what the line says ----------------------------------------------------------------------
REFUSED = {  # a request of every command that is refused while it is obeyed, and one that no parser takes
    "compare": ["numpy", "numpy", "--data", "nowhere"],
    "cuda_on_cpu.__main__": ["nowhere"],
    "evaluate": ["nowhere"],
    "exercises.__main__": ["check", "99"],
    "figures": ["filters", "--trained", "nowhere"],
    "pack": ["nowhere", "packed"],
    "predict": ["nowhere.png"],
    "train": ["--data", "nowhere"],
}


@pytest.mark.parametrize("command", REFUSED)
def test_debug_shows_the_traceback_above_the_line(command):
    status, _, err = answer(command, REFUSED[command])
    assert status == 2
    assert is_a_line(command, err)
    status, _, with_traceback = answer(command, [*REFUSED[command], "--debug"])
    assert status == 2
    assert with_traceback.startswith("Traceback (most recent call last):")
    assert with_traceback.endswith(err)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_debug_and_every_subcommand(command):
    for _, parser in parsers_of(command):
        assert isinstance(parser, OneLineParser)
        assert "--debug" in parser.format_help()


def test_debug_shows_what_led_to_it():
    """Also where the error was raised `from None`, since the line alone is to be short."""

    def work():
        try:
            {}["the first cause"]
        except KeyError:
            raise ConfigError("the line") from None

    err = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", err)
        assert reported("name", work, True) == 2
    assert "KeyError: 'the first cause'" in err.getvalue()
    assert err.getvalue().endswith("ConfigError: the line\nname: the line\n")


def raising(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "says"),
    [
        (ConfigError("two\nlines"), 2, "name: 'two\\nlines'"),
        (FileNotFoundError(2, "No such file", "a\nb"), 2, "name: 'a\\nb: No such file'"),
        (OSError("odd"), 2, "name: there: odd"),
        (OSError(28, "No space left on device"), 2, "name: there: No space left on device"),
        (MemoryError("Unable to allocate 3 PiB"), 2, "name: the memory does not suffice (Unable to allocate 3 PiB)"),
        (KeyboardInterrupt(), 130, "name: stopped"),
        (LookupError("two\nlines"), 2, "name: two\nlines"),
        (ZeroDivisionError("division"), 70, r"name: this is a fault of minitorch_alex: ZeroDivisionError: division "
         r"\(test_command_line\.py, line \d+\); --debug shows the traceback"),
        (RuntimeError("a\nb"), 70, r"name: 'this is a fault of minitorch_alex: RuntimeError: a\\nb .*--debug .*"),
    ],
)  # fmt: skip
def test_errors_and_their_status(error, status, says, capsys):
    assert reported("name", raising(error), False, "stopped", "there", also=(LookupError,)) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.rstrip("\n") == says or re.fullmatch(says, shown.err.rstrip("\n"))


@pytest.mark.parametrize("command", REFUSED)
def test_a_fault_of_our_own_is_called_so(command, monkeypatch):
    for module in (train, evaluate, predict, figures, compare, importlib.import_module("minitorch_alex.pack")):
        for name in ("choose_backend", "obey", "batch_of", "pack"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, lambda *_: [][3])
    monkeypatch.setattr("minitorch_alex.cuda_on_cpu.__main__.why_not", lambda: [][3])
    monkeypatch.setattr("minitorch_alex.exercises.__main__.of_lesson", lambda lesson: [][3])
    status, _, err = answer(command, REFUSED[command])
    assert status == 70
    assert is_a_line(command, err)
    assert "this is a fault of minitorch_alex: IndexError: list index out of range (test_command_line.py, line " in err


@pytest.mark.parametrize("word", ["", "--out=", "--data="])
def test_an_empty_argument_is_told_as_what_it_is(word):
    """As from a script whose variable is not set; --out "" once wrote into the folder runs."""
    status, _, err = answer("train", ["--out", word] if not word else [word])
    assert (status, Path("runs").exists()) == (2, False)
    assert "perhaps a variable that is not set" in err
    assert is_a_line("train", err)


def test_letters_that_the_terminal_lacks(things, tmp_path):
    """They are written as escapes, where Python would raise an error."""
    out = tmp_path / "B\N{LATIN SMALL LETTER A WITH DIAERESIS}r \N{GRINNING FACE}"
    command = [sys.executable, "-m", "minitorch_alex.pack", things / "photographs", out]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "B\\xe4r \\U0001f600: 2 images packed" in done.stdout


def test_a_reader_that_has_seen_enough():
    """As head, which closes the pipe after ten lines."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "minitorch_alex.cuda_on_cpu"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")
