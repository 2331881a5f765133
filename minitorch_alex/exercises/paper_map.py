"""The map of the paper: where a sentence of it stands in this code, and which test holds it there.

It is notebooks/MAP.md, generated from notebooks/map.toml by `python -m minitorch_alex.exercises map`.
"""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from .notebook import LessonError

INTRODUCTION = """\
# Map of the paper

What AlexNet's paper (Krizhevsky, Sutskever and Hinton, 2012) says, in our words; the line that does it here; and the
test that fails if that line does something else. The last section lists what the paper says and nothing here holds.

This page is generated from `map.toml`. A test looks whether every line and every test is still there. A slow one,
`pytest -m slow tests/test_map.py`, changes each line in a copy of the project and sees the test fail.
"""


@dataclass(frozen=True)
class Entry:
    """A sentence of the paper in our words, and the text of a file that does what it says."""

    section: str
    says: str
    file: str
    text: str  # stands in the file, or in its part `inside`, once
    changed: str  # with this in its place, the test fails
    test: str  # tests/FILE.py::NAME
    inside: str = ""  # a function or class, such as alexnet or Loader.epoch


@dataclass(frozen=True)
class PaperMap:
    """What map.toml holds."""

    sections: dict[str, str]  # number -> title
    entries: list[Entry]
    open: list[tuple[str, str]]  # (section, what nothing here holds)


def read(file: Path) -> PaperMap:
    """map.toml. A LessonError names what it lacks."""
    try:
        told = tomllib.loads(file.read_text(encoding="utf-8"))
        entries = [Entry(**entry) for entry in told["entry"]]
        return PaperMap(told["sections"], entries, [(one["section"], one["says"]) for one in told["open"]])
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise LessonError(f"{file}: {error}") from None


def place(root: Path, entry: Entry) -> tuple[int, int]:
    """Where the entry's text begins and ends in its file."""
    whole = (root / entry.file).read_text(encoding="utf-8")
    begin, end = _extent(whole, entry.inside) if entry.inside else (0, len(whole))
    count = whole.count(entry.text, begin, end)
    if count != 1:
        where = f"{entry.inside} of {entry.file}" if entry.inside else entry.file
        raise LessonError(f"map.toml: {entry.text!r} stands in {where} {count} times and not once")
    start = whole.index(entry.text, begin, end)
    return start, start + len(entry.text)


def _extent(whole: str, name: str) -> tuple[int, int]:
    """Where a function or class begins and ends."""
    node: ast.AST = ast.parse(whole)
    for part in name.split("."):
        inner = [n for n in ast.iter_child_nodes(node) if getattr(n, "name", None) == part]
        if len(inner) != 1:
            raise LessonError(f"map.toml: there is no {name}")
        node = inner[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    lines = whole.splitlines(keepends=True)
    return tuple(sum(map(len, lines[:n])) for n in (node.lineno - 1, node.end_lineno or 0))  # type: ignore[return-value]


def line_of_test(root: Path, test: str) -> int:
    """The line on which a test begins; a LessonError if there is no such test."""
    file, _, name = test.partition("::")
    path = root / file
    tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name and name.startswith("test_"):
            return node.lineno
    raise LessonError(f"map.toml: there is no test {test}")


def markdown(root: Path) -> str:
    """The text of MAP.md."""
    told = read(root / "notebooks" / "map.toml")
    for section in [entry.section for entry in told.entries] + [section for section, _ in told.open]:
        if section not in told.sections:
            raise LessonError(f"map.toml: the paper has no section {section}")
    parts = [INTRODUCTION]
    for number, title in told.sections.items():
        rows = [_row(root, entry) for entry in told.entries if entry.section == number]
        if rows:
            parts.append(
                f"## {number} {title}\n\n| the paper | here | held by |\n| --- | --- | --- |\n" + "".join(rows)
            )
    parts.append("## What nothing here holds\n\n" + "".join(f"- **{section}** {says}\n" for section, says in told.open))
    return "\n".join(parts)


def _row(root: Path, entry: Entry) -> str:
    start, _ = place(root, entry)
    line = (root / entry.file).read_text(encoding="utf-8").count("\n", 0, start) + 1
    file, _, test = entry.test.partition("::")
    here = f"[`{entry.file.removeprefix('minitorch_alex/')}`, {line}](../{entry.file}#L{line})"
    held = f"[`{test}`](../{file}#L{line_of_test(root, entry.test)})"
    return f"| {entry.says} | {here} | {held} |\n"
