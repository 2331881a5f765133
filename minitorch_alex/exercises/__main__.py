"""The exercises' command: `python -m minitorch_alex.exercises check 3`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..command_line import OneLineParser, printable, reported
from . import EXERCISES, Exercise, Mistake, check, edition, find, hint_of, notebook, of_lesson, paper_map
from .notebook import LessonError


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py: 1 where something is not solved, differs or fails."""
    parser = OneLineParser(prog="python -m minitorch_alex.exercises", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("list", help="the exercises")
    command.set_defaults(run=lambda given: show_list())
    command = commands.add_parser("check", help="examine what you wrote in a lesson's notebook")
    command.add_argument("lesson", type=int)
    command.add_argument("file", type=Path, nargs="?", help="the notebook or .py file (default: notebooks/NN_*.ipynb)")
    command.set_defaults(run=lambda given: check_lesson(given.lesson, given.file))
    command = commands.add_parser("hint", help="a hint for one exercise")
    command.add_argument("number", metavar="EXERCISE", help="such as 3.2")
    command.add_argument("which", type=int, nargs="?", default=1, help="1 (default) says least")
    command.set_defaults(run=lambda given: show_hint(given.number, given.which))
    command = commands.add_parser("write", help="generate a lesson's notebooks from its text")
    command.add_argument("sources", type=Path, nargs="+", metavar="NN_NAME.py")
    command.add_argument("--force", action="store_true", help="replace notebooks that exist and differ")
    command.set_defaults(run=lambda given: write(given.sources, given.force))
    command = commands.add_parser("html", help="write the lessons as web pages, executed")
    command.add_argument("lessons", type=int, nargs="*", metavar="LESSON", help="such as 3 (default: all)")
    command.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"where to (default: {edition.DEFAULT} beside the folder notebooks)"
    )
    command.set_defaults(run=lambda given: html(given.lessons, given.out))
    command = commands.add_parser("map", help="generate notebooks/MAP.md from map.toml")
    command.set_defaults(run=lambda given: write_map())
    given = parser.parse_args(arguments)
    return reported("exercises", lambda: obey(given), given.debug, also=(LessonError, Mistake))


def obey(given: argparse.Namespace) -> int:
    """Do what the command line asks for."""
    try:
        return given.run(given)
    except edition.FailedError as error:
        print(f"exercises: {error}", file=sys.stderr)
        return 1
    except LessonError as error:
        raise LessonError(printable(str(error))) from error
    except ImportError as error:
        raise LessonError(f'{error}; pip install "minitorch_alex[notebooks]" has it') from error


def show_list() -> int:
    """Every exercise, a line each."""
    for e in EXERCISES.values():
        print(f"{e.number}  {e.name:<22}  {e.task}")
    return 0


def show_hint(number: str, which: int) -> int:
    """One hint."""
    hints = find(number).hints
    print(hint_of(number, which))
    if which < len(hints):
        print(f"(`python -m minitorch_alex.exercises hint {number} {which + 1}` says more)")
    return 0


def check_lesson(lesson: int, file: Path | None) -> int:
    """Examine every exercise of a lesson in the learner's notebook."""
    exercises = of_lesson(lesson)
    if not exercises:
        raise LessonError(f"there is no lesson {lesson} with exercises")
    path = file or notebook.locate(lesson)
    print(path)
    defined, problems = notebook.definitions(path)
    for problem in problems:
        print(f"  could not be read: {problem}")
    solved = sum(examine(e, defined) for e in exercises)
    print(f"{solved} of {len(exercises)} solved")
    return 0 if solved == len(exercises) else 1


def examine(e: Exercise, defined: dict[str, object]) -> bool:
    """Examine one exercise and tell the result."""
    if e.name not in defined:
        print(f"  {e.number} {e.name}: not found. It must be defined under that name, at the margin of a cell")
        return False
    try:
        print(f"  {check(e.number, defined[e.name])}")
        return True
    except Mistake as mistake:
        text = str(mistake).replace("\n", "\n  ")
        in_a_shell = f"`python -m minitorch_alex.exercises hint {e.number}` helps."
        text = text.replace(f'hint("{e.number}") helps.', in_a_shell)
        print(f"  {text}")
        return False


def write(sources: list[Path], force: bool) -> int:
    """Generate the learner's notebook beside each source and the solved one in solved/. Returns 1 if one was kept."""
    kept = 0
    for source in sources:
        if not source.is_file():
            raise LessonError(f"{source}: there is no such file")
        if source.suffix != ".py":
            raise LessonError(f"{source}: a notebook is made from the .py file beside it, name that")
        for path, text in notebook.versions(source).items():
            if path.exists() and path.read_bytes().decode("utf-8", "replace") == text:
                continue
            if path.exists() and not force:
                print(f"{path} differs and was kept, since it may hold somebody's work; --force replaces it")
                kept = 1
                continue
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")
    return kept


def html(lessons: list[int], out: Path | None) -> int:
    """Write the pages of all lessons or of some, and say where to begin."""
    notebooks = folder_of_lessons()
    out = out or Path(os.path.relpath(os.path.abspath(notebooks / ".." / edition.DEFAULT)))
    written = edition.build(notebooks, out, lessons)
    print(f"wrote {len(written)} pages: open {written[0]} in a browser")
    return 0


def write_map() -> int:
    """Generate MAP.md."""
    notebooks = folder_of_lessons()
    text = paper_map.markdown(notebooks / "..")
    (notebooks / "MAP.md").write_text(text, encoding="utf-8")
    print(f"wrote {notebooks / 'MAP.md'}")
    return 0


def folder_of_lessons() -> Path:
    """The folder notebooks of a clone, here or below."""
    for folder in (Path("notebooks"), Path()):
        if (folder / "solved").is_dir():
            return folder
    raise LessonError("there is no notebooks/solved here: run this in a clone of the repository")


if __name__ == "__main__":
    sys.exit(main())
