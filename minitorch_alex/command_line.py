"""What the commands have in common."""

from __future__ import annotations

import argparse
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """Errors as one line with the command's name, without the whole usage in front."""

    def error(self, message: str) -> NoReturn:
        name = self.prog.removeprefix("python -m minitorch_alex.").split()[0]
        self.exit(2, f"{name}: {message} (--help explains the options)\n")
