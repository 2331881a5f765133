"""Which kernels have run on a GPU in their present form.

`python -m benchmarks.gpu_proof` runs them there and writes proven.json into the folder of kernels, with the sha256 of
each file's text, includes and all. A file that has changed since has another, and is unproven again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from .source import kernel_folder, read

RECORD = "proven.json"


def digest(path: Path) -> str:
    """The sha256 of a .cu file's text with what it includes: of what a GPU's compiler is given."""
    return hashlib.sha256(read(path).text.encode()).hexdigest()


def record() -> dict[str, Any]:
    """What has been recorded. Without a record, or with a damaged one, nothing is proven."""
    try:
        found = json.loads((kernel_folder() / RECORD).read_text(encoding="utf-8"))
        files = found["files"].items()
        return found if all(isinstance(f["sha256"], str) and isinstance(f["gpu"], str) for _, f in files) else {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return {}


def proven() -> dict[str, str]:
    """The .cu files whose present text has run on a GPU without an error, and the name of that GPU."""
    files = record().get("files", {})
    every = sorted(kernel_folder().glob("*.cu"))
    return {p.name: files[p.name]["gpu"] for p in every if p.name in files and files[p.name]["sha256"] == digest(p)}


def unproven() -> list[str]:
    """The .cu files that have not run on a GPU, or have changed since, or include what has."""
    known = proven()
    return [path.name for path in sorted(kernel_folder().glob("*.cu")) if path.name not in known]
