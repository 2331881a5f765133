"""Save and load a run: weights, optimizer, preprocessing and counters in one safetensors file, which cannot execute
anything.

A checkpoint is written to a temporary file, forced to disk and renamed, so that there is a whole one at any moment.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from .data import Preprocessing
from .nn import Module
from .optim import SGD

FORMAT = "minitorch_alex 1"
CHECKPOINT = "checkpoint.safetensors"  # its name in the folder of a run


class CheckpointError(Exception):
    """The file is no checkpoint, is damaged, or does not fit. The message says which."""


def save_checkpoint(
    path: Path,
    network: Module,
    optimizer: SGD | None,
    info: dict[str, Any],
    preprocessing: Preprocessing | None = None,
) -> None:
    """Write the arrays of all that is given, and `info` (anything that JSON can hold), to `path`."""
    arrays = {f"model.{name}": a for name, a in network.state_dict().items()}
    if optimizer is not None:
        arrays |= {f"optimizer.{name}": a for name, a in optimizer.state_dict().items()}
    if preprocessing is not None:
        arrays |= {"preprocessing.mean": preprocessing.mean, "preprocessing.std": preprocessing.std}
    # safetensors writes whatever lies in memory, in the wrong order if an array is not contiguous
    arrays = {name: numpy.ascontiguousarray(a).reshape(a.shape) for name, a in arrays.items()}
    text = json.dumps(info)
    metadata = {"format": FORMAT, "info": text, "sha256": checksum(arrays, text)}
    write_whole(path, save(arrays, metadata=metadata))


def checksum(arrays: dict[str, numpy.ndarray], text: str) -> str:
    """Of names, types, shapes and contents of the arrays, and of the text: notices a single flipped bit."""
    digest = hashlib.sha256(text.encode())
    for name, a in sorted(arrays.items()):
        digest.update(f"{name} {a.dtype} {a.shape}".encode())
        digest.update(numpy.ascontiguousarray(a).reshape(-1).view("uint8"))  # type: ignore[arg-type]
    return digest.hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step: after a crash there is the old file or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_checkpoint(path: Path) -> tuple[dict[str, numpy.ndarray], dict[str, Any]]:
    """(arrays, info) of a checkpoint file."""
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there is no checkpoint there") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: not a readable checkpoint, perhaps truncated ({error})") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: a safetensors file, but not a checkpoint of minitorch_alex")
    if metadata.get("sha256") != checksum(arrays, metadata.get("info", "")):
        raise CheckpointError(f"{path}: a damaged checkpoint: its content does not have its checksum")
    try:
        return arrays, json.loads(metadata["info"])
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the checkpoint's own description is damaged ({error})") from None


def restore(path: Path, arrays: dict[str, numpy.ndarray], network: Module, optimizer: SGD | None = None) -> None:
    """Put a checkpoint's arrays into a network and, if given, its optimizer. Either all fits or nothing changes."""
    velocity = optimizer.velocity if optimizer is not None else {}
    try:
        if optimizer is not None:
            optimizer.load_state_dict(_part(arrays, "optimizer."))
        network.load_state_dict(_part(arrays, "model."))
    except (ValueError, TypeError) as error:
        if optimizer is not None:
            optimizer.velocity = velocity
        raise CheckpointError(f"{path}: this checkpoint belongs to another model: {error}") from None


def is_checkpoint(path: Path) -> bool:
    """Whether this file calls itself one of ours; PyTorch's weights come in safetensors files too."""
    try:
        with safe_open(path, framework="numpy") as file:
            return (file.metadata() or {}).get("format", "").startswith("minitorch_alex")
    except (SafetensorError, OSError, ValueError):
        return False


def preprocessing_in(path: Path, arrays: dict[str, numpy.ndarray], image_shape: Sequence[int]) -> Preprocessing:
    """How pixels are prepared for the network in a checkpoint, which takes images of (C, H, W)."""
    try:
        preprocessing = Preprocessing(**_part(arrays, "preprocessing."))
        C, H, W = image_shape
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: its account of the preprocessing is damaged ({error})") from None
    if preprocessing.mean.shape not in ((C, 1, 1), (C, H, W)):
        shape = preprocessing.mean.shape
        raise CheckpointError(f"{path}: subtracts a mean of {shape} from images of {C} x {H} x {W}")
    return preprocessing


def _part(arrays: dict[str, numpy.ndarray], prefix: str) -> dict[str, numpy.ndarray]:
    return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
