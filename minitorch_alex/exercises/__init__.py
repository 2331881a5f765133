"""Exercises of the lessons in notebooks/, which grade themselves on your own machine.

In a notebook `check("3.3", im2col)` examines your function and `hint("3.3")` helps. In a shell
`python -m minitorch_alex.exercises check 3` examines all of lesson 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from . import (  # noqa: F401  (each enters its exercises)
    lesson_1,
    lesson_2,
    lesson_3,
    lesson_4,
    lesson_5,
    lesson_6,
    lesson_7,
    lesson_8,
    lesson_9,
    lesson_10,
)
from .examination import EXERCISES, Examination, Exercise, Mistake, Unsolved

__all__ = ["EXERCISES", "Exercise", "Mistake", "Unsolved", "check", "find", "hint", "hint_of", "of_lesson"]


@dataclass(frozen=True)
class Passed:
    """An exercise that is solved."""

    exercise: Exercise
    checks: int

    def __repr__(self) -> str:
        return f"{self.exercise.number} {self.exercise.name}: right ({self.checks} checks)."


def check(number: str, attempt: Any) -> Passed:
    """Examine a solution of exercise `number`, such as "3.2". Raises a Mistake that explains what is wrong."""
    exercise = find(number)
    if not callable(attempt):
        raise Mistake(f"{number}: check wants the function {exercise.name} itself, not {type(attempt).__name__}")
    examination = Examination(exercise, attempt)
    exercise.examine(examination)
    if not examination.checks:
        raise RuntimeError(f"exercise {number} has nothing that checks it: that is a fault of the lesson, not yours")
    return Passed(exercise, examination.checks)


def hint(number: str, which: int = 1) -> None:
    """Print a hint for an exercise; hint(number, 2) says more than hint(number)."""
    print(hint_of(number, which))
    if which < len(find(number).hints):
        print(f'(hint("{number}", {which + 1}) says more)')


def hint_of(number: str, which: int) -> str:
    """One of the hints, counted from 1."""
    hints = find(number).hints
    if which not in range(1, len(hints) + 1):
        raise Mistake(f"{number}: there are hints 1 to {len(hints)}, not {which}")
    return hints[which - 1]


def find(number: str) -> Exercise:
    """The exercise of that number."""
    if str(number) not in EXERCISES:
        raise Mistake(f"there is no exercise {number!r}; there are {', '.join(EXERCISES)}")
    return EXERCISES[str(number)]


def of_lesson(lesson: int) -> list[Exercise]:
    """The exercises of one lesson, in order."""
    return [e for number, e in EXERCISES.items() if number.split(".")[0] == str(lesson)]
