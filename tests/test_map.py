"""The map of the paper, notebooks/MAP.md: no entry is dead, and each test would see its line changed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from minitorch_alex.exercises import paper_map
from minitorch_alex.exercises.notebook import LessonError

ROOT = Path(__file__).parents[1]
MAP = paper_map.read(ROOT / "notebooks" / "map.toml")
SECTIONS = ["1", "2", "3.1", "3.2", "3.3", "3.4", "3.5", "4.1", "4.2", "5", "6", "6.1", "7"]


def test_the_page_is_what_the_entries_say():
    found = (ROOT / "notebooks" / "MAP.md").read_text()
    assert found == paper_map.markdown(ROOT), "run: python -m minitorch_alex.exercises map"


def test_every_section_is_there():
    assert list(MAP.sections) == SECTIONS
    assert {entry.section for entry in MAP.entries} | {section for section, _ in MAP.open} == set(SECTIONS)
    assert 40 <= len(MAP.entries) <= 70
    order = [SECTIONS.index(entry.section) for entry in MAP.entries]
    assert order == sorted(order)


@pytest.mark.parametrize("entry", MAP.entries, ids=lambda entry: f"{entry.section} {entry.says}"[:60])
def test_no_entry_is_dead(entry):
    paper_map.place(ROOT, entry)
    paper_map.line_of_test(ROOT, entry.test)
    assert entry.changed != entry.text


def test_links_lead_to_the_line():
    page = (ROOT / "notebooks" / "MAP.md").read_text()
    rows = re.findall(
        r"^\| .* \| \[`.*?`, (\d+)\]\((.*?)#L(\d+)\) \| \[`(\w+)`\]\((.*?)#L(\d+)\) \|$", page, re.MULTILINE
    )
    assert len(rows) == len(MAP.entries)
    for entry, (says, file, line, test, test_file, test_line) in zip(MAP.entries, rows, strict=True):
        assert says == line
        lines = (ROOT / "notebooks" / file).read_text().splitlines()
        assert entry.text.splitlines()[0].strip() in lines[int(line) - 1]
        assert (ROOT / "notebooks" / test_file).read_text().splitlines()[int(test_line) - 1].startswith(f"def {test}(")


ENTRY = paper_map.Entry("1", "", "a.py", "x = 1", "x = 2", "tests/test_a.py::test_a")


@pytest.mark.parametrize(
    ("text", "inside", "words"),
    [
        ("x = 3", "", "'x = 3' stands in a.py 0 times"),
        ("x = 1", "", "'x = 1' stands in a.py 2 times"),
        ("x = 1", "g", "there is no g"),
        ("x = 2", "f", "'x = 2' stands in f of a.py 0 times"),
    ],
)
def test_dead_entries_are_named(text, inside, words, tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    x = 1\n\n\ndef h():\n    x = 1\n    x = 2\n")
    entry = paper_map.Entry("1", "", "a.py", text, "", "", inside)
    with pytest.raises(LessonError, match=words):
        paper_map.place(tmp_path, entry)


@pytest.mark.parametrize("test", ["tests/test_a.py::test_b", "tests/test_b.py::test_a", "tests/test_a.py::helper", "x"])
def test_dead_tests_are_named(test, tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text(
        "def test_a():\n    def test_b():\n        pass\n\n\ndef helper(): ...\n"
    )
    assert paper_map.line_of_test(tmp_path, "tests/test_a.py::test_a") == 1
    with pytest.raises(LessonError, match=f"there is no test {test}"):
        paper_map.line_of_test(tmp_path, test)


def test_a_place_inside_a_method(tmp_path):
    text = "class A:\n    def f(self):\n        x = 1\n\n    def g(self):\n        x = 1\n"
    (tmp_path / "a.py").write_text(text)
    entry = paper_map.Entry("1", "", "a.py", "x = 1", "", "", "A.g")
    assert paper_map.place(tmp_path, entry) == (text.rindex("x = 1"), text.rindex("x = 1") + 5)


# -- would the tests see it? ----------------------------------------------------------------
@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the project to put bugs into."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("minitorch_alex", "kernels", "benchmarks", "tests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    return root


def run(copy, *tests):
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=1200)


@pytest.mark.slow
def test_without_a_change_they_pass(copy):
    done = run(copy, *{entry.test: None for entry in MAP.entries})
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("entry", MAP.entries, ids=lambda entry: f"{entry.section} {entry.says}"[:60])
def test_the_test_sees_a_change(entry, copy):
    file = copy / entry.file
    whole = file.read_text()
    begin, end = paper_map.place(copy, entry)
    try:
        file.write_text(whole[:begin] + entry.changed + whole[end:])
        done = run(copy, entry.test)
    finally:
        file.write_text(whole)
    assert done.returncode == 1, done.stdout
    assert "SyntaxError" not in done.stdout
    assert "ImportError" not in done.stdout
