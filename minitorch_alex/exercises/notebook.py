"""Lessons as files: read the functions a learner wrote, write the learner's and the solved version of a lesson.

A lesson is one text file, notebooks/NN_name.py, in jupytext's "py:percent" form. Solutions stand between the lines
### BEGIN SOLUTION and ### END SOLUTION. The notebooks are generated from it, without outputs.
"""

from __future__ import annotations

import ast
import json
import linecache
import re
from pathlib import Path
from typing import Any

SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION\n.*?^ *### END SOLUTION\n?", re.DOTALL | re.MULTILINE)
STUB = r"\1# YOUR CODE HERE\n\1raise NotImplementedError()\n"  # nbgrader's words
CHECK = re.compile(r'^check\("([\d.]+)"', re.MULTILINE)
OTHER_LANGUAGE = re.compile(r"(?:\s|#.*\n)*%%(?!(time|timeit|capture|prun)\b)")  # %%bash, %%writefile, ...
COMMAND = re.compile(r"^([ \t]*)(?:(?:[\w, ]+=[ \t]*)?[%!].*|\?.*|[\w.]+\?\??[ \t]*)$", re.MULTILINE)


class LessonError(Exception):
    """A lesson's file is missing or unreadable. The message says what to do."""


# -- reading --------------------------------------------------------------------
def locate(lesson: int) -> Path:
    """The learner's notebook of a lesson, from the folder notebooks/ or its parent."""
    folders = [folder for folder in (Path("notebooks"), Path()) if folder.is_dir()]
    found = [path for folder in folders for path in sorted(folder.glob(f"{lesson:02}_*.ipynb"))]
    if not found:
        raise LessonError(f"there is no {lesson:02}_*.ipynb here or in notebooks/: name the notebook's file")
    if len(found) > 1:
        raise LessonError(f"there are several notebooks, name one: {', '.join(map(str, found))}")
    return found[0]


def definitions(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What a notebook (or .py file) defines, and what could not be read of it.

    Only imports, functions, classes and constants at the margin of a cell are carried out, so this draws and trains
    nothing.
    """
    namespace: dict[str, Any] = {"__name__": path.stem}
    problems = []
    for place, source in _code_cells(path):
        linecache.cache[place] = (len(source), None, source.splitlines(keepends=True), place)  # to quote its lines
        try:
            statements = _statements(source)
        except SyntaxError as error:
            problems.append(f"{place}, line {error.lineno}: {error.msg}: {(error.text or '').strip()}")
            continue
        except (ValueError, RecursionError, MemoryError) as error:  # characters or nesting that Python cannot read
            problems.append(f"{place}: {type(error).__name__}: {error}")
            continue
        for statement in filter(_defines, statements):
            try:
                exec(compile(ast.Module([statement], []), place, "exec", dont_inherit=True), namespace)
            except (Exception, SystemExit) as error:
                if not isinstance(statement, ast.Assign | ast.AnnAssign):  # of something that a cell computes
                    problems.append(f"{place}, line {statement.lineno}: {type(error).__name__}: {error}")
    return namespace, problems


def _code_cells(path: Path) -> list[tuple[str, str]]:
    """(place, text) of each; the line numbers of a .py file are its own."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LessonError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if path.suffix == ".py":
        parts = re.split(r"^(?=# %%)", text, flags=re.MULTILINE)
        before = [sum(part.count("\n") for part in parts[:i]) for i in range(len(parts))]
        return [(path.name, "\n" * lines + part) for lines, part in zip(before, parts, strict=True)]
    try:
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
        return [(f"{path.name}, code cell {i}", "".join(cell["source"])) for i, cell in enumerate(cells, start=1)]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise LessonError(f"{path}: this is no Jupyter notebook") from None


def _statements(source: str) -> list[ast.stmt]:
    """A cell's statements without IPython's own commands: %magic, !command, name?, files = !ls."""
    if OTHER_LANGUAGE.match(source):
        return []
    try:
        return ast.parse(source).body
    except SyntaxError:  # only now, for a line of plain Python may begin with % as well
        return ast.parse(COMMAND.sub(r"\1pass", source)).body


def _defines(statement: ast.stmt) -> bool:
    """Whether it makes names known and calls nothing on the way: constants, lambdas, other names for functions."""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        return statement.value is not None and not _calls(statement.value)
    return isinstance(statement, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef)


def _calls(node: ast.AST) -> bool:
    """Whether evaluating it calls something, comprehensions included. The inside of a lambda is for later."""
    if isinstance(node, ast.Call | ast.Await | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return True
    return not isinstance(node, ast.Lambda) and any(map(_calls, ast.iter_child_nodes(node)))


# -- writing --------------------------------------------------------------------
def versions(source: Path) -> dict[Path, str]:
    """What stands in the learner's and in the solved notebook of a lesson, by their paths."""
    try:
        text = source.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LessonError(f"{source}: {error}") from None
    learner, solved = (_notebook(text, with_solutions=w) for w in (False, True))
    name = f"{source.stem}.ipynb"
    return {source.parent / name: learner, source.parent / "solved" / name: solved}


def _notebook(text: str, with_solutions: bool) -> str:
    import jupytext
    import nbformat

    notebook = jupytext.reads(text, fmt="py:percent")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number}", nbformat.NotebookNode()  # the same each time
        if cell.cell_type != "code":
            continue
        checks = CHECK.search(cell.source)
        if SOLUTION.search(cell.source + "\n"):
            cell.metadata["nbgrader"] = _for_nbgrader(f"solution-{number}", solution=True)
        elif checks:
            cell.metadata["nbgrader"] = _for_nbgrader("check-" + checks[1].replace(".", "-"), solution=False)
        if not with_solutions:
            cell.source = SOLUTION.sub(STUB, cell.source + "\n").rstrip("\n")
            if checks:  # "Run All" is to go on behind an exercise that is not solved yet
                cell.metadata["tags"] = ["raises-exception"]
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return nbformat.writes(notebook) + "\n"


def _for_nbgrader(name: str, solution: bool) -> dict[str, Any]:
    settings = {"grade_id": name, "schema_version": 3, "solution": solution, "task": False, "locked": not solution}
    return {**settings, "grade": False} if solution else {**settings, "grade": True, "points": 1}
