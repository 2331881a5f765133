"""What the commands have in common."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

from .checkpoint import CheckpointError
from .config import ConfigError
from .data import DataError


class OneLineParser(argparse.ArgumentParser):
    """Errors as one line with the command's name, without the whole usage in front."""

    def error(self, message: str) -> NoReturn:
        name = self.prog.removeprefix("python -m minitorch_alex.").split()[0]
        self.exit(2, f"{name}: {message} (--help explains the options)\n")


def reported(name: str, work: Callable[[], int], interrupted: str = "interrupted", place: object = "a file") -> int:
    """The exit status of `work`; 2 where something in the request is wrong, 130 on Ctrl-C, with a line on stderr.

    `place` is what to name where the system does not say which file it is about.
    """
    try:
        return work()
    except (ConfigError, DataError, CheckpointError) as error:
        message, status = str(error), 2
    except OSError as error:
        message, status = f"{error.filename or place}: {error.strerror or error}", 2
    except KeyboardInterrupt:
        message, status = interrupted, 130
    print(f"{name}: {printable(message)}", file=sys.stderr)
    return status


def printable(text: str) -> str:
    """In one line, even where a file's name holds a line break or bytes that are no text."""
    return text if text.isprintable() else repr(text)
