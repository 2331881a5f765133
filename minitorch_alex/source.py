"""Show the engine's own code, so that a lesson's text cannot drift away from it."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent


class Source(str):
    """Python text that a notebook shows highlighted."""

    def _repr_markdown_(self) -> str:  # what IPython asks for
        return f"```python\n{self}\n```"


def source(thing: Any) -> Source:
    """The text of a function, method or class as `inspect` finds it, with its file and line on top."""
    thing = inspect.unwrap(thing)
    lines, first = inspect.getsourcelines(thing)
    file = Path(inspect.getsourcefile(thing) or "")
    place = file.relative_to(PACKAGE.parent).as_posix() if file.is_relative_to(PACKAGE) else file.name
    return Source(f"# {place}, line {first}\n" + textwrap.dedent("".join(lines)).rstrip())
