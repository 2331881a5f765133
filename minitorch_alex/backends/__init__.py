"""Find a backend by name: backend `foo` is the file `foo_backend.py` in this folder.

The default is process-wide, a plain module-level name: context variables do not survive between notebook cells.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util

from .numpy_backend import Backend

__all__ = ["Backend", "available", "current", "get", "use", "why_not"]

# What each backend needs, and what to type when it is missing.
NEEDS = {
    "numpy": (None, ""),
    "numba": ("numba", "python -m pip install numba"),
    "cuda_on_cpu": (None, ""),
    "cupy": ("cupy", 'python -m pip install "cupy-cuda13x[ctk]>=14" ml-dtypes (or cupy-cuda12x, for an older driver)'),
}

_current: str | Backend | None = None


def why_not(name: str) -> str | None:
    """Why backend `name` cannot be used here, with the remedy; None if it can. Imports nothing heavy but CuPy,
    which is asked whether it finds a GPU."""
    if name not in NEEDS:
        return f"there is no backend {name!r}: choose one of {', '.join(NEEDS)}"
    module, remedy = NEEDS[name]
    if module is not None and importlib.util.find_spec(module) is None:
        return f"the {name} backend needs the package {module}, which is not installed: {remedy}"
    if name == "cuda_on_cpu":
        return importlib.import_module("minitorch_alex.cuda_on_cpu").why_not()
    if name == "cupy":
        try:
            return importlib.import_module(f"{__name__}.cupy_backend").no_gpu()
        except Exception as error:  # an installation can be broken in any way
            return f"the cupy backend cannot be loaded ({error}): python -m minitorch_alex.doctor says more"
    return None


def available() -> list[str]:
    """The names of the backends that can be used here."""
    return [name for name in NEEDS if why_not(name) is None]


@functools.cache
def get(name: str) -> Backend:
    """The backend called `name`, imported when it is first asked for."""
    reason = why_not(name)
    if reason is not None:
        raise RuntimeError(reason)
    return importlib.import_module(f"{__name__}.{name}_backend").BACKEND


def use(backend: str | Backend) -> None:
    """Make a backend the home of tensors created from now on, by its name, or an object of your own. Existing tensors
    stay where they are."""
    global _current
    _current = get(backend).name if isinstance(backend, str) else backend


def current() -> Backend:
    """The home of new tensors: what `use` chose, else numba where it is installed, else numpy."""
    if _current is None:
        use("numba" if why_not("numba") is None else "numpy")
    return get(_current) if isinstance(_current, str) else _current  # type: ignore[return-value]
