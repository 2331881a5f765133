"""A bar that shows how far a loop has come."""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

LOCK = threading.RLock()


def progress_bar(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """tqdm's bar, with tqdm's arguments: text on a terminal or in a notebook, a widget in one that has ipywidgets.

    It is silent where nobody watches, such as when the output goes to a file.
    """
    from tqdm import tqdm

    tqdm.set_lock(LOCK)  # tqdm's own is for processes too, and making it starts one from Python 3.14 on
    if not _in_a_notebook():
        return tqdm(iterable, **{"dynamic_ncols": True, "disable": not sys.stderr.isatty(), **settings})
    if importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm as widget

        return widget(iterable, **settings)
    return _text_in_one_place()(iterable, file=io.StringIO(), ascii=False, ncols=100, **settings)


@contextmanager
def files_bar(description: str) -> Iterator[Callable[[int, int, str | None], None]]:
    """A bar over files, for what tells of each one (looked at, of, ...). How many there are is known at the first."""
    bar: Any = None

    def tell(looked_at: int, of: int, left_out: str | None) -> None:
        nonlocal bar
        if bar is None or bar.n >= bar.total:
            if bar is not None:
                bar.close()
            bar = progress_bar(desc=description, unit=" images", total=of, initial=looked_at - 1)
        bar.update()

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


def _in_a_notebook() -> bool:
    """Whether a Jupyter kernel runs this, and not only IPython in a terminal."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


def _text_in_one_place() -> Any:
    """tqdm whose text is replaced in the notebook's output, so that a saved page holds its last state only."""
    from IPython.display import DisplayHandle
    from tqdm import tqdm

    class Text(str):
        def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
            printer.text(str(self))

    class Bar(tqdm):
        handle = None

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            text = Text(self if msg is None else msg)
            if self.handle is None:
                self.handle = DisplayHandle()
                self.handle.display(text)
            elif text:
                self.handle.update(text)

    return Bar
