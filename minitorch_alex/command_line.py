"""What the commands have in common: how they say that something is wrong, and their exit status.

    0     done
    1     done, and the answer is no: a run came to NaN, backends differ, an exercise is not solved
    2     something in the request is wrong, or what it needs is not there
    70    a fault of this package
    130   interrupted by Ctrl-C

Whatever goes wrong is told in one line; with --debug Python's traceback stands above it.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

FAULT = 70  # EX_SOFTWARE of sysexits.h


class OneLineParser(argparse.ArgumentParser):
    """Errors as one line with the command's name, without the whole usage in front. Every command has --debug."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        what = "if something goes wrong, show the traceback"
        self.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=what)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """What was given; `debug` is always there."""
        words = sys.argv[1:] if args is None else args
        for word in words:
            if not word or re.fullmatch(r"--[\w-]+=", word):
                self.error(f"{word or 'an argument'} is empty: perhaps a variable that is not set")
        given = super().parse_args(words, namespace)
        given.debug = "debug" in given
        return given

    def error(self, message: str) -> NoReturn:
        name = self.prog.removeprefix("python -m minitorch_alex.").split()[0]
        self.exit(2, f"{name}: {printable(message)} (--help explains the options)\n")


def reported(
    name: str,
    work: Callable[[], int],
    debug: bool = False,
    interrupted: str = "interrupted",
    place: object = "a file",
    also: tuple[type[Exception], ...] = (),
) -> int:
    """The exit status of `work`; where it raises an error, the status that goes with it, and a line on stderr.

    `place` is what to name where the system does not say which file it is about. `also` are further errors that say
    what is wrong with a request, and may take several lines for it.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold letters that the terminal lacks
    try:
        status = work()
        print(end="", flush=True)  # so that a reader who has gone is noticed here
        return status
    except BrokenPipeError:  # the reader, such as head, has seen enough
        sys.stdout = None
        return 1
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            show_traceback(error)
        message, status = verdict(error, interrupted, place, also)
        print(f"{name}: {message}", file=sys.stderr)
        return status


def verdict(
    error: BaseException, interrupted: str, place: object, also: tuple[type[Exception], ...]
) -> tuple[str, int]:
    """What to say of an error, and the exit status that goes with it."""
    if isinstance(error, KeyboardInterrupt):
        return interrupted, 130
    if isinstance(error, also):
        return str(error), 2
    if isinstance(error, refusals()):
        return printable(str(error)), 2
    if isinstance(error, OSError):
        return printable(f"{error.filename or place}: {error.strerror or error}"), 2
    if isinstance(error, MemoryError):
        return printable(f"the memory does not suffice ({error})"), 2
    return printable(fault(error)), FAULT


def refusals() -> tuple[type[Exception], ...]:
    """The errors that say what is wrong with a request. Looked up late: the doctor does without what they need."""
    with suppress(ImportError):
        from .checkpoint import CheckpointError
        from .config import ConfigError
        from .data import DataError

        return CheckpointError, ConfigError, DataError
    return ()


def fault(error: BaseException) -> str:
    """What to say of an error that should not have come as far as here."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{last.filename.rpartition('/')[2]}, line {last.lineno}"
    return f"this is a fault of minitorch_alex: {type(error).__name__}: {error} ({place}); --debug shows the traceback"


def show_traceback(error: BaseException) -> None:
    """With what led to the error, also where the line leaves that out."""
    cause: BaseException | None = error
    while cause is not None:
        cause.__suppress_context__ = False
        cause = cause.__cause__ or cause.__context__
    traceback.print_exception(error)


def printable(text: str) -> str:
    """In one line, even where a file's name holds a line break or bytes that are no text."""
    return text if text.isprintable() else repr(text)
