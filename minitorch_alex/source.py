"""Show the engine's own code, so that a lesson's text cannot drift away from it."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parent
BOX = "background:#f7f7f7; color:#222; border-left:3px solid #bbb; padding:.6em 1em; overflow-x:auto"
TEXT = "white-space:pre; font:11px/1.45 monospace; margin:0; background:none; color:inherit"  # 120 columns


class Source(str):
    """Python text that a notebook shows highlighted, without breaking its lines."""

    __repr__ = str.__str__  # so that a prompt shows it as it is

    def _repr_html_(self) -> str:  # what IPython asks for; IPython brings pygments
        from pygments import highlight
        from pygments.formatters import HtmlFormatter
        from pygments.lexers import PythonLexer

        coloured = highlight(self, PythonLexer(), HtmlFormatter(nowrap=True, noclasses=True))
        return f'<div style="{BOX}"><pre style="{TEXT}">{coloured}</pre></div>'


def source(thing: Any) -> Source:
    """The text of a function, method or class as `inspect` finds it, with its file and line on top."""
    thing = inspect.unwrap(thing)
    try:
        lines, first = inspect.getsourcelines(thing)
    except (TypeError, OSError):
        raise TypeError(f"source: {thing!r:.80} has no Python text to show: pass a function, method or class") from None
    file = Path(inspect.getsourcefile(thing) or "")
    place = file.relative_to(PACKAGE.parent).as_posix() if file.is_relative_to(PACKAGE) else file.name
    return Source(f"# {place}, line {first}\n" + textwrap.dedent("".join(lines)).rstrip())
