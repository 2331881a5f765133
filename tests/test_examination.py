"""What a grader is made of: each check must notice, and say what is so."""

import sys

import numpy as np
import pytest

from minitorch_alex import tensor
from minitorch_alex.exercises import EXERCISES, Mistake, Unsolved, examination, notebook, of_lesson
from minitorch_alex.exercises.__main__ import main


def exam(attempt):
    return examination.Examination(examination.Exercise("9.9", "attempt", "", (), lambda exam: None), attempt)


def mistake(call, *arguments, **settings):
    with pytest.raises(Mistake) as caught:
        call(*arguments, **settings)
    return str(caught.value)


def test_an_array_must_be_right_to_the_tolerance():
    e, right = exam(len), np.array([1.0, 2.0])
    e.compare("t", right * (1 + 5e-8), right)
    assert "(2 of 2 elements differ)" in mistake(e.compare, "t", right * (1 + 1e-6), right)
    e.compare("t", np.array([1e9, 1.0]), np.array([1e9, 0.0]))  # 0 but for rounding, beside what is large
    assert "at [0]" in mistake(e.compare, "t", np.array([2e-9]), np.array([1e-9]))
    assert "at [1]" in mistake(e.compare, "t", np.array([1.0, 1e-6]), np.array([1.0, 0.0]))
    e.compare("t", np.array([True, False]), np.array([1, 0]))
    assert e.checks == 3


def test_the_first_wrong_element_is_named():
    assert "at [0, 1]: got 9, expected 2   (2 of 4" in mistake(
        exam(len).compare, "t", np.array([[1.0, 9.0], [9.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]])
    )


def test_a_wrong_border_is_told_from_other_errors():
    right = np.arange(1.0, 26).reshape(5, 5)
    border = right.copy()
    border[[0, -1]], border[:, [0, -1]] = 7.7, 7.7
    assert "only the border" in mistake(exam(len).compare, "t", border, right)
    inner = border.copy()
    inner[1, 1] = 7.7
    assert "only the border" not in mistake(exam(len).compare, "t", inner, right)
    corner = right.copy()
    corner[0, 0] = 7.7
    assert "only the border" not in mistake(exam(len).compare, "t", corner, right)


def test_tensors_must_stay_as_they_are():
    def attempt(t):
        t.data[0] = 5
        return t

    assert "changes what it was given" in mistake(exam(attempt).call, tensor(np.zeros(2)))


def test_gradients_are_checked_and_the_worst_told():
    from minitorch_alex.tensor import op

    @op
    def wrong(xp, x):
        return x * x, (lambda g: 2 * x * g * np.array([1.0, 1.01, 3.0]),)

    e = exam(wrong)
    assert "in input 0 at [2]:" in mistake(e.gradients, wrong, (3,), title="wrong")
    assert e.checks == 0

    def unsolved(x):
        raise NotImplementedError

    with pytest.raises(Unsolved):
        e.gradients(unsolved, (3,), title="t")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((1.0, (abs, abs)), "entry 1 is not None"),
        ((1.0, (abs,)), "1 gradient functions"),
        ((1.0, (None, None)), "this input does have a slope"),
        ((1.0, (3.0, None)), "this is the gradient itself"),
        ((1.0, abs), "a missing comma"),
        (1.0, "gives 1.0"),
    ],
)
def test_the_form_of_an_op(answer, words):
    e = exam(lambda xp, x, y: answer)
    assert words in mistake(e.operation, np.zeros(2), np.zeros(2), without_gradient=(1,))


def test_large_arguments_are_shown_by_their_shape():
    assert examination.shown(np.zeros((2, 3))) == "[[0., 0., 0.], [0., 0., 0.]]"
    assert examination.shown(np.zeros((7,))) == "an array of shape (7,)"
    assert examination.shown((tensor([1.0, 2.0]), np)) == "(a tensor of shape (2,), xp)"


def inner(x):
    return x / 0


def test_the_line_that_stopped_is_the_innermost():
    def attempt(x):
        return inner(x)

    assert "in inner: return x / 0" in mistake(exam(attempt).call, 1)


@pytest.mark.parametrize("error", [SystemExit, SystemExit(0), ValueError("\nmore"), NameError("x")])
def test_whatever_an_attempt_raises_is_a_mistake(error):
    def attempt(x):
        raise error

    assert "None is not known" not in mistake(exam(attempt).call, 1)


def test_a_local_variable_without_value_is_explained():
    def attempt(x):
        total += x  # noqa: F821
        return total

    assert "before it is given a value" in mistake(exam(attempt).call, 1)


# -- the command -------------------------------------------------------------------
OK = "def slope_by_hand(a):\n    return 18 * a + 1\n"


@pytest.mark.parametrize(
    "cell",
    [
        "!ls\n" + OK, "?len\n" + OK, OK + "slope_by_hand?\n", "files = !ls\n" + OK, "%%time\n" + OK,
        "if True:\n    %matplotlib inline\n" + OK, "slope_by_hand = lambda a: 18 * a + 1",
        "K: float = 18\nL, M = 1, 2 * 3\ndef slope_by_hand(a):\n    return K * a + L\n",
        "def slope_by_hand(a):\n    return (18 * a + 1\n        % 2)\n",
        "config = {{}}\n" + OK, "y = undefined + 1\n" + OK,
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: float = 1.0\n" + OK,
        "\ufeff" + OK,
    ],
)  # fmt: skip
def test_notebooks_are_read_as_they_are_written(cell, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(cell, encoding="utf-8")
    defined, problems = notebook.definitions(file)
    assert not problems
    assert defined["slope_by_hand"](2.0) in (37.0, 37)


def test_cells_in_other_languages_are_passed_over(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OK + "# %%\n%%writefile x.py\ndef slope_by_hand(a):\n    return 0\n# %%\n%%bash\ncd there\n")
    defined, problems = notebook.definitions(file)
    assert not problems
    assert defined["slope_by_hand"](2.0) == 37


def test_lessons_are_told_apart_by_their_whole_number(monkeypatch):
    monkeypatch.setitem(EXERCISES, "11.1", EXERCISES["1.1"])
    assert [e.number for e in of_lesson(1)] == ["1.1", "1.2", "1.3", "1.4"]


def test_the_status_of_a_missing_package(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "jupytext", None)
    (tmp_path / "01_a.py").write_text("# %%\n1\n")
    assert main(["write", str(tmp_path / "01_a.py")]) == 2
    assert "minitorch_alex[notebooks]" in capsys.readouterr().err
