"""A bar that shows how far a loop has come."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from typing import Any


def progress_bar(iterable: Iterable[Any] | None = None, **settings: Any) -> Any:
    """tqdm's bar, with tqdm's arguments: text on a terminal or in a notebook, a widget in one that has ipywidgets.

    It is silent where nobody watches, such as when the output goes to a file.
    """
    in_notebook = "ipykernel" in sys.modules
    if in_notebook and importlib.util.find_spec("ipywidgets") is not None:
        from tqdm.notebook import tqdm

        return tqdm(iterable, **settings)
    from tqdm import tqdm

    if in_notebook:
        return tqdm(iterable, file=sys.stdout, ncols=100, **settings)  # stderr would be printed on red
    return tqdm(iterable, dynamic_ncols=True, disable=not sys.stderr.isatty(), **settings)
