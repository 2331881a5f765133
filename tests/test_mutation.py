"""The bugs that mutation.py plants: that they are there to be planted, and that it tells seen ones from survivors."""

import ast
import tomllib
from pathlib import Path

import mutants
import mutation
import pytest

ASKED = tomllib.loads((Path(__file__).parent / "mutation.toml").read_text())


def all_changes(text, changes):
    return {text[:start] + new + text[stop:] for start, stop, new in changes(text)}


@pytest.mark.parametrize("area", ASKED["area"], ids=lambda area: area["name"])
def test_every_chosen_bug_can_be_planted(area):
    bugs = mutation.bugs_of(area, None, 0)
    assert len(bugs) >= 2 * len(area["bug"])
    assert len({mutant.name for _, mutant in bugs}) == len(bugs)
    for _, mutant in bugs:
        assert mutant.before != mutant.after
        if mutant.file.endswith(".py"):
            ast.parse(mutant.text)
    assert all((mutation.ROOT / file).is_file() for file in [*area["files"], *area["tests"]])


def test_there_are_a_hundred_and_half_of_them_are_drawn():
    bugs = [bug for area in ASKED["area"] for bug in mutation.bugs_of(area, None, 0)]
    chosen = sum(len(area["bug"]) for area in ASKED["area"])
    assert len(bugs) >= 100
    assert len(bugs) - chosen >= len(bugs) / 2


def test_explained_survivors_are_still_there():
    for one in ASKED.get("equivalent", []):
        lines = [line.strip() for line in (mutation.ROOT / one["file"]).read_text().splitlines()]
        assert one["before"] in lines, one


def test_what_python_code_is_changed_to():
    text = 'def f(x: int = 3) -> int:\n    """1 < 2"""\n    y[0] = x\n'
    text += "    return -x if x < 2 and not é(x) else max(x, 1.5)\n"
    made = all_changes(text, mutants.python_changes)
    for old, new in (
        ("= 3", "= 4"), ("y[0] = x", "pass"), ("y[0]", "y[1]"), ("-x if", "(x) if"), ("x < 2", "x <= 2"),
        ("< 2 and", "< 3 and"), ("2 and", "2 or"), ("not é(x)", "(é(x))"), ("max(", "min("), ("1.5", "3.0"),
    ):  # fmt: skip
        assert text.replace(old, new) in made, new
    assert len(made) == 10


def test_what_is_no_code_is_left_alone():
    text = 'if TYPE_CHECKING:\n    a = 1\nx: int | 1 = y\nassert 1 < 2\nraise E(f"{1}")\n'
    text += "import a\n@g(1)\ndef f(a: 1): ...\n"
    assert not all_changes(text, mutants.python_changes)


def test_what_cuda_code_is_changed_to():
    text = "// a < b\ntemplate <int N = 1>\n#include <1>\n    if (i < n && 0 <= j) __syncthreads();  // i + 1\n"
    line = "    if (i < n && 0 <= j) __syncthreads();"
    changed = {
        line.replace(old, new) for old, new in ((" < ", " <= "), ("&&", "||"), ("<= ", "< "), ("__syncthreads();", ""))
    }
    assert all_changes(text, mutants.cuda_changes) == {text.replace(line, new) for new in changed}


# -- trying -----------------------------------------------------------------------------
@pytest.fixture
def project(tmp_path):
    """A project of one function and its test, as its own copy."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "code.cu").write_text("a")
    (tmp_path / "largest.py").write_text("def largest(x, y):\n    spare = 1\n    return x if x > y else y\n")
    (tmp_path / "tests" / "test_few.py").write_text("from largest import largest\ndef test_it():\n    largest(1, 2)\n")
    (tmp_path / "tests" / "test_rest.py").write_text(
        "from largest import largest\ndef test_all():\n    assert largest(1, 2) == 2\n"
    )
    return tmp_path


AREA = {"name": "an area", "tests": ["tests/test_few.py"]}


def test_a_bug_is_seen_by_the_few_by_all_or_by_none(project, monkeypatch):
    monkeypatch.setattr(mutation, "ROOT", project)
    text = (project / "largest.py").read_text()

    def judged(old, new):
        return mutation.judged(project, AREA, mutants.chosen(project, "largest.py", old, new), whole=True)["seen by"]

    assert judged("x > y", "x > z") == "tests/test_few.py::test_it"
    assert judged("x > y", "x < y") == "tests/test_rest.py::test_all"
    assert judged("spare = 1", "spare = 2") == ""
    assert (project / "largest.py").read_text() == text


def test_a_bug_that_hangs_is_seen(project, monkeypatch):
    monkeypatch.setattr(mutation, "LIMIT", 2)
    mutant = mutants.chosen(project, "largest.py", "spare = 1", "while True: pass")
    assert mutation.judged(project, AREA, mutant, whole=False)["seen by"] == "they hang"


def test_survivors_need_an_explanation(capsys):
    row = {"file": "a.py", "line": 3, "before": "x < y", "after": "x <= y", "seen by": ""}
    seen = {**row, "seen by": "a test"}
    explained = {("a.py", "x < y", "x <= y"): "they are never equal"}
    assert mutation.report([row, *[seen] * 3], explained) == 0
    said = capsys.readouterr().out
    assert "survived: they are never equal" in said
    assert "4 changes, of which 1 are no bugs; 3 of 3 seen: 100.0%" in said
    assert mutation.report([row, *[seen] * 19], {}) == 0
    assert "NOT EXPLAINED" in (said := capsys.readouterr().out)
    assert "19 of 20 seen: 95.0%" in said
    assert mutation.report([row, *[seen] * 18], {}) == 1


def test_it_goes_on_where_it_stopped(project, monkeypatch, tmp_path):
    monkeypatch.setattr(mutation, "ROOT", project)
    monkeypatch.setattr(mutation, "copy_of_the_project", lambda to: project)
    mutant = mutants.chosen(project, "largest.py", "x > y", "x > z")
    kept = tmp_path / "kept.jsonl"
    first = mutation.tried([(AREA, mutant)], {}, kept, 1, whole=False)
    monkeypatch.setattr(mutation, "judged", None)
    assert mutation.tried([(AREA, mutant)], mutation.earlier(kept), kept, 1, whole=False) == first
    assert len(kept.read_text().splitlines()) == 1
