"""The exercises' graders: nothing, and plausible mistakes, must fail with the right words, and solutions pass."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from minitorch_alex.exercises import EXERCISES, Mistake, Unsolved, check, examination, hint, notebook
from minitorch_alex.exercises.__main__ import main

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSONS = {int(path.name[:2]): path for path in sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))}
NUMBERS = list(EXERCISES)


def wrong_answers():
    """(exercise, words of the explanation, definitions) from wrong_answers/lesson_N.py."""
    for file in sorted(Path(__file__).parent.glob("wrong_answers/lesson_*.py")):
        preface, *cells = re.split(r"^# %% ", file.read_text(), flags=re.MULTILINE)
        for cell in cells:
            title, code = cell.split("\n", 1)
            number, words = title.split(": ", 1)
            yield pytest.param(number, words, preface + code, id=f"{number} {words}")


def lesson_of(number):
    return LESSONS[int(number.split(".")[0])]


@pytest.fixture(scope="session")
def solutions():
    """What each lesson defines, solutions included."""
    return {lesson: notebook.definitions(path) for lesson, path in LESSONS.items()}


def test_there_are_three_to_five_in_every_lesson():
    for lesson in LESSONS:
        assert 3 <= sum(number.startswith(f"{lesson}.") for number in NUMBERS) <= 5
    assert sorted(NUMBERS, key=lambda number: [int(part) for part in number.split(".")]) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_the_lesson_has_the_exercise_and_its_check(number):
    text, name = lesson_of(number).read_text(), EXERCISES[number].name
    assert f'check("{number}", {name})' in text
    assert re.search(rf"^# ### {re.escape(number)} .* \(\d+ minutes\)$", text, re.MULTILINE)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_solution_passes(number, solutions):
    defined, problems = solutions[int(number.split(".")[0])]
    assert not problems
    passed = check(number, defined[EXERCISES[number].name])
    assert passed.checks > 0
    assert repr(passed).startswith(f"{number} {EXERCISES[number].name}: right")


@pytest.mark.parametrize("number", NUMBERS)
def test_the_learners_notebook_is_unsolved(number):
    defined, problems = notebook.definitions(lesson_of(number).with_suffix(".ipynb"))
    assert not problems
    with pytest.raises(Unsolved, match="not solved yet"):
        check(number, defined[EXERCISES[number].name])


@pytest.mark.parametrize("number", NUMBERS)
def test_an_empty_answer_fails(number):
    def empty(*inputs):
        pass

    class Empty:
        def __init__(self, *inputs):
            pass

    for attempt in (empty, Empty):
        with pytest.raises(Mistake) as mistake:
            check(number, attempt)
        assert not isinstance(mistake.value, Unsolved)


@pytest.mark.parametrize(("number", "words", "code"), list(wrong_answers()))
def test_a_wrong_answer_is_explained(number, words, code, tmp_path):
    file = tmp_path / "attempt.py"
    file.write_text(code)
    defined, problems = notebook.definitions(file)
    assert not problems
    with pytest.raises(Mistake) as mistake:
        check(number, defined[EXERCISES[number].name])
    assert words in str(mistake.value)
    assert str(mistake.value).startswith(f"{number} {EXERCISES[number].name}: not right yet.\n")


@pytest.mark.parametrize("number", NUMBERS)
def test_every_exercise_has_wrong_answers_and_hints(number):
    assert sum(param.values[0] == number for param in wrong_answers()) >= 2
    assert len(EXERCISES[number].hints) >= 2


def test_an_exercise_without_checks_is_a_fault(monkeypatch):
    monkeypatch.setitem(EXERCISES, "9.9", examination.Exercise("9.9", "nothing", "", (), lambda exam: None))
    with pytest.raises(RuntimeError, match="nothing that checks it"):
        check("9.9", len)


def test_check_wants_the_function_itself():
    with pytest.raises(Mistake, match=r"check wants the function slope_by_hand itself, not float"):
        check("1.1", 37.0)
    with pytest.raises(Mistake, match=r"there is no exercise '1\.9'; there are 1\.1, "):
        check("1.9", len)


def test_hints_say_more_and_more(capsys):
    hint("1.1")
    assert 'hint("1.1", 2) says more' in capsys.readouterr().out
    hint("1.1", 2)
    assert "says more" not in capsys.readouterr().out
    with pytest.raises(Mistake, match="hints 1 to 2, not 3"):
        hint("1.1", 3)


def test_a_notebook_shows_the_text_of_a_mistake_alone():
    assert Mistake("one\ntwo")._render_traceback_() == ["one", "two"]


# -- the command ----------------------------------------------------------------
def test_check_tells_of_every_exercise(capsys):
    assert main(["check", "1", str(LESSONS[1])]) == 0
    assert "4 of 4 solved" in capsys.readouterr().out
    assert main(["check", "1", str(LESSONS[1].with_suffix(".ipynb"))]) == 1
    out = capsys.readouterr().out
    assert out.count("not solved yet") == 4
    assert "0 of 4 solved" in out


def test_check_finds_the_notebook(monkeypatch, capsys, tmp_path):
    for folder in (NOTEBOOKS, NOTEBOOKS.parent):
        monkeypatch.chdir(folder)
        assert main(["check", "1"]) == 1
    monkeypatch.chdir(tmp_path)
    assert main(["check", "1"]) == 2
    assert "there is no 01_*.ipynb here" in capsys.readouterr().err
    for name in ("01_a.ipynb", "01_a-Copy1.ipynb"):
        (tmp_path / name).write_text("{}")
    assert main(["check", "1"]) == 2
    assert "several notebooks, name one: 01_a-Copy1.ipynb, 01_a.ipynb" in capsys.readouterr().err


def test_check_reads_what_it_can(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(
        "import numpy as np\n%matplotlib inline\n"
        "# %%\ndef broken(:\n"
        "# %%\nraise SystemExit  # a cell's own doings are not carried out\n"
        "# %%\nimport no_such_module\nFACTOR = 18\n\n\ndef slope_by_hand(a):\n    return FACTOR * a + 1\n"
        "# %%\ndef cube(xp, x):\n    raise KeyboardInterrupt if False else ValueError('hm')\n"
    )
    assert main(["check", "1", str(file)]) == 1
    out = capsys.readouterr().out
    assert "mine.py, line 4: invalid syntax: def broken(:" in out
    assert "mine.py, line 8: ModuleNotFoundError: No module named 'no_such_module'" in out
    assert "1.1 slope_by_hand: right" in out
    assert "stops with ValueError: hm" in out
    assert "in cube: raise KeyboardInterrupt if False else ValueError('hm')" in out
    assert "1.3 unbroadcast: not found" in out
    assert "`python -m minitorch_alex.exercises hint 1.2` helps." in out
    assert "1 of 4 solved" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "99"], "there is no lesson 99"),
        (["check", "1", "absent.ipynb"], "absent.ipynb: No such file"),
        (["check", "1", "text.ipynb"], "text.ipynb: this is no Jupyter notebook"),
        (["check", "1", "bytes.ipynb"], "bytes.ipynb: 'utf-8' codec"),
        (["check", "1", "."], ".: Is a directory"),
        (["hint", "7"], "there is no exercise '7'"),
        (["hint", "1.1", "0"], "1.1: there are hints 1 to 2, not 0"),
        (["check", "three"], "argument lesson: invalid int value: 'three'"),
        (["write", "absent.py"], "absent.py: there is no such file"),
    ],
)
def test_refusals_are_one_line(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.ipynb").write_text("hello")
    (tmp_path / "bytes.ipynb").write_bytes(b"\xff\xfe")
    try:
        status = main(arguments)
    except SystemExit as end:  # argparse's own
        status = end.code
    assert status == 2
    err = capsys.readouterr().err
    assert err.startswith(f"exercises: {words}")
    assert err.count("\n") == 1


def test_the_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "minitorch_alex.exercises", "list"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == NUMBERS


def test_writing_keeps_a_learners_work(tmp_path, capsys):
    source = tmp_path / LESSONS[1].name
    source.write_text(LESSONS[1].read_text())
    assert main(["write", str(source)]) == 0
    mine = source.with_suffix(".ipynb")
    mine.write_text(mine.read_text().replace("raise NotImplementedError()", "return 37"))
    kept = mine.read_text()
    capsys.readouterr()
    assert main(["write", str(source)]) == 1
    assert mine.read_text() == kept
    assert "differs and was kept" in capsys.readouterr().out
    assert main(["write", "--force", str(source)]) == 0
    assert mine.read_text() != kept
