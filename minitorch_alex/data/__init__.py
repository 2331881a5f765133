"""Images and labels: where they come from, how they are varied, how they reach the network."""

from __future__ import annotations

from pathlib import Path

from . import cifar10, digits
from .dataset import DataError, Dataset, Preprocessing
from .loader import Loader

__all__ = ["DataError", "Dataset", "Loader", "Preprocessing", "load"]


def load(source: str, cache: str | Path | None = None) -> Dataset:
    """'digits' (embedded), 'cifar10' (downloaded once) or a folder with CIFAR-10's files in it."""
    if source == "digits":
        return digits.load()
    if source == "cifar10":
        return cifar10.load(cifar10.find_or_download(cache))
    folder = Path(source)
    if not folder.is_dir():
        kind = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"--data {source}: that folder {kind}. Give digits, cifar10, or a folder with CIFAR-10 in it")
    return cifar10.load(folder)
