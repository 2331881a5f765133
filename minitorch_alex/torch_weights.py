"""PyTorch's weight files, read and written without PyTorch and without running a pickle.

torch.save writes a zip archive: a pickle (data.pkl) that describes the tensors, and the plain bytes of their storages
(data/0, data/1, ...). A pickle is a program, and the usual unpickler runs whatever it says. Here a machine of our own
follows it instead. It knows the opcodes and the names that a state dict needs, answers each name with a stand-in, calls
nothing, and allocates nothing that the bytes of the file do not pay for.

Opcodes: Lib/pickletools.py of Python. Archive: torch/serialization.py, _save. Tensors: torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy
from safetensors import deserialize
from safetensors.numpy import save

from .checkpoint import CheckpointError, write_whole

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
SAFETENSORS = {
    "F32": "float32",
    "F64": "float64",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
WRITTEN = {number_type: name for name, number_type in STORAGES.items() if number_type != "bfloat16"}

ORDERED_DICT, SIZE = "collections OrderedDict", "torch Size"
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # torch/serialization.py, MAGIC_NUMBER

LONGEST_PICKLE = 4 << 20  # bytes: it describes some 20,000 tensors, and its objects stay within some 300 MiB
TALLEST_STACK = 1 << 14  # values that wait: pickles write dicts and lists in batches of 1000
MOST_DIMENSIONS = 64  # NumPy's limit
ALLOWANCE = 64 << 20  # bytes of tensors for which a file of any size may ask

ADVICE = "With PyTorch, save the weights alone: torch.save(model.state_dict(), path)"


class _RefusedError(Exception):
    """Why a file is not read; the caller knows which file it is."""


def read_torch_weights(path: str | Path) -> dict[str, numpy.ndarray]:
    """The tensors of a state dict by name, from a .pth file of torch.save or a .safetensors file.

    Also from a training script's dict that has the state dict under "state_dict" or "model". What is no tensor is left
    out. The arrays are contiguous copies; bfloat16, which NumPy lacks, becomes float32. CheckpointError if it cannot
    be read or asks for anything that weights do not need.
    """
    path = Path(path)
    try:
        return _read_safetensors(path) if path.suffix == ".safetensors" else _read_archive(path)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: there are no weights there") from None
    except _RefusedError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # a broken archive or pickle can raise anything
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise CheckpointError(f"{path}: not readable as weights, perhaps truncated ({reason})") from None


def write_torch_weights(path: str | Path, state: dict[str, numpy.ndarray]) -> None:
    """Write arrays by name so that torch.load(path, weights_only=True) gives them back as a state dict.

    To a .safetensors file if `path` says so. TypeError for what PyTorch has no tensor for; then nothing is written.
    """
    path = Path(path)
    for name, array in state.items():
        if type(name) is not str:
            raise TypeError(f"write_torch_weights: {name!r} cannot name a tensor: names are strings")
        if not isinstance(array, numpy.ndarray) or array.dtype.name not in WRITTEN:
            kind = array.dtype if isinstance(array, numpy.ndarray) else type(array).__name__
            raise TypeError(f"write_torch_weights: {name} is {kind}; convert it to an array of {', '.join(WRITTEN)}")
    # not ascontiguousarray, which turns 0-d arrays into 1-d ones
    arrays = {name: numpy.asarray(a, a.dtype.newbyteorder("<"), order="C") for name, a in state.items()}
    if path.suffix == ".safetensors":
        write_whole(path, save(arrays))
        return
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        records = {"data.pkl": _pickled(arrays), "byteorder": b"little", "version": b"3\n"}
        for name, record in records.items():
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), record)  # ZipInfo: no date, so equal files
        for number, array in enumerate(arrays.values()):
            archive.writestr(zipfile.ZipInfo(f"archive/data/{number}"), array.tobytes())
    write_whole(path, content.getvalue())


# -- the archive ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Global:
    """A name that the pickle may use, "module name". It stands for itself: nothing is imported."""

    name: str


@dataclass(frozen=True)
class _Storage:
    """A file of the archive: where numbers of one type lie one after another."""

    file: str
    number_type: str
    numel: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage; offset and stride count numbers, not bytes."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def nbytes(self) -> int:
        """What its copy will take."""
        width = 4 if self.storage.number_type == "bfloat16" else _item_size(self.storage.number_type)
        return math.prod(self.size) * width


class _OrderedDict(dict):
    """Stands in for collections.OrderedDict; a class of its own since only these may carry attributes (_metadata)."""


def _read_archive(path: Path) -> dict[str, numpy.ndarray]:
    with path.open("rb") as file:
        _check_is_zip(file.read(32))
        file_size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            entries = _entries(archive, file_size)
            root = _root(entries)
            content = archive.read(entries[f"{root}/data.pkl"])
            tensors = _state(_unpickle(content, lambda identity: _storage(identity, entries, root)))
            wanted = sum(tensor.nbytes() for tensor in tensors.values())
            if wanted > 4 * file_size + ALLOWANCE:
                raise _RefusedError(
                    f"its tensors would take {wanted} bytes, but the file has only {file_size}: refused"
                )
            order = archive.read(f"{root}/byteorder") if f"{root}/byteorder" in entries else b"little"
            if order not in (b"little", b"big"):
                raise _RefusedError(f"its byte order is {order[:20]!r}, neither little nor big")
            arrays: dict[str, numpy.ndarray] = {}
            for storage_file, names in _by_file(tensors).items():  # one storage at a time in memory
                data = archive.read(entries[storage_file])
                for name in names:
                    arrays[name] = _array(data, tensors[name], "<" if order == b"little" else ">")
    return {name: arrays[name] for name in tensors}


def _check_is_zip(start: bytes) -> None:
    if start.startswith(b"PK\x03\x04"):
        return
    if not start:
        raise _RefusedError("an empty file")
    if start[:1] == b"\x80" and LEGACY_MAGIC in start:
        raise _RefusedError(
            "written in the format before PyTorch 1.6, which is not read here. Convert it with PyTorch: "
            "torch.save(torch.load(old_path, weights_only=True), new_path)"
        )
    raise _RefusedError("not a file of torch.save, which would be a zip archive")


def _entries(archive: zipfile.ZipFile, file_size: int) -> dict[str, zipfile.ZipInfo]:
    """What is in the archive, by name, once it is certain that reading it all takes no more than the file's size."""
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        name = entry.filename
        if name in entries:
            raise _RefusedError(f"the archive holds {_short(name)} twice")
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise _RefusedError(f"the archive holds a path that leads out of it, {_short(name)}: refused")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise _RefusedError(f"{_short(name)} is compressed, which torch.save never does: refused. {ADVICE}")
        entries[name] = entry
    total = sum(entry.file_size for entry in entries.values())
    if total > file_size:
        raise _RefusedError(f"the archive claims to hold {total} bytes, but the file has only {file_size}")
    return entries


def _root(entries: dict[str, zipfile.ZipInfo]) -> str:
    """The folder in the archive that has everything in it: torch.save names it after the file."""
    roots = [name.removesuffix("/data.pkl") for name in entries if re.fullmatch(r"[^/]+/data\.pkl", name)]
    if len(roots) != 1:
        raise _RefusedError(f"a zip archive, but not one of torch.save: it has {len(roots)} files data.pkl, not one")
    size = entries[f"{roots[0]}/data.pkl"].file_size
    if size > LONGEST_PICKLE:
        raise _RefusedError(
            f"its data.pkl has {size} bytes, more than the {LONGEST_PICKLE} that weights may need. {ADVICE}"
        )
    return roots[0]


def _storage(identity: Any, entries: dict[str, zipfile.ZipInfo], root: str) -> _Storage:
    """The storage that the pickle names as ("storage", type, key, location, numel)."""
    match identity:
        case ("storage", _Global(name), str(key), str(), int(numel)) if name.removeprefix("torch ") in STORAGES:
            storage = _Storage(f"{root}/data/{key}", STORAGES[name.removeprefix("torch ")], numel)
        case _:
            raise _RefusedError("its pickle names something outside of itself that is no storage: refused")
    if storage.file not in entries:
        raise _RefusedError(f"the storage {_short(storage.file)} is missing")
    there, needed = entries[storage.file].file_size, numel * _item_size(storage.number_type)
    if there != needed:
        raise _RefusedError(
            f"the storage {_short(storage.file)} has {there} bytes, but its {numel} numbers need {needed}"
        )
    return storage


def _state(loaded: Any) -> dict[str, _Tensor]:
    """The tensors of what was saved: of itself, or of the state dict in it."""
    if isinstance(loaded, dict):
        loaded = next((loaded[k] for k in ("state_dict", "model") if isinstance(loaded.get(k), dict)), loaded)
    if not isinstance(loaded, dict):
        raise _RefusedError(f"it holds a {type(loaded).__name__.strip('_')}, not a state dict. {ADVICE}")
    for key in loaded:
        if type(key) is not str:
            raise _RefusedError(f"its state dict has a key that is no string but {type(key).__name__}. {ADVICE}")
    tensors = {name: value for name, value in loaded.items() if isinstance(value, _Tensor)}
    if loaded and not tensors:
        raise _RefusedError(f"no tensors among {', '.join(_short(key) for key in list(loaded)[:5])}. {ADVICE}")
    return tensors


def _by_file(tensors: dict[str, _Tensor]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        names.setdefault(tensor.storage.file, []).append(name)
    return names


def _array(data: bytes | bytearray, tensor: _Tensor, order: Literal["<", ">"]) -> numpy.ndarray:
    """A contiguous copy, in this machine's byte order, of what `tensor` sees of its storage's bytes."""
    number_type = tensor.storage.number_type
    # as they lie there: bfloat16 is the upper half of a float32, and bool must not be bytes other than 0 and 1
    raw = numpy.dtype({"bfloat16": "uint16", "bool": "uint8"}.get(number_type, number_type)).newbyteorder(order)
    if math.prod(tensor.size) == 0:
        view = numpy.empty(tensor.size, raw)
    else:
        # PyTorch may leave anything as the stride of a dimension that is never stepped along
        strides = [s * raw.itemsize if n > 1 else 0 for n, s in zip(tensor.size, tensor.stride, strict=True)]
        view = numpy.ndarray(tensor.size, raw, data, tensor.offset * raw.itemsize, strides)
    if number_type == "bool":
        return numpy.array(view != 0, order="C")
    if number_type == "bfloat16":
        bits = numpy.array(view, "uint32", order="C")
        bits <<= 16
        return bits.view("float32")
    return numpy.array(view, number_type, order="C")


def _item_size(number_type: str) -> int:
    return 2 if number_type == "bfloat16" else numpy.dtype(number_type).itemsize


def _short(name: Any) -> str:
    """To show in an error what a stranger wrote: only strings are spelled out, and only their beginnings."""
    return repr(name[:80]) if isinstance(name, str) else type(name).__name__


# -- the pickle ----------------------------------------------------------------------------------------------------


def _unpickle(content: bytes, storage: Callable[[Any], _Storage]) -> Any:
    """What the pickle describes. It is followed by a stack machine without recursion that knows what torch.save writes.

    pickle.Unpickler with a strict find_class would not do: it sizes its memo by an index that the file chooses, hashes
    nested tuples until the stack overflows, lets BUILD change what find_class returned, and keeps the last of two
    equal keys. Every opcode here makes at most one object, so that the pickle's length bounds the memory.
    """
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def since_mark() -> list[Any]:
        mark = marks.pop()
        items = stack[mark:]
        del stack[mark:]
        return items

    for opcode, argument, position in pickletools.genops(content):
        if len(stack) + len(marks) > TALLEST_STACK:
            raise _RefusedError(
                f"its pickle nests deeper than any state dict (more than {TALLEST_STACK} values): refused"
            )
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = 0 if opcode.name == "EMPTY_TUPLE" else int(opcode.name[-1])
                items = [stack.pop() for _ in range(count)]
                stack.append(tuple(reversed(items)))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "APPEND" | "APPENDS":
                items = since_mark() if opcode.name == "APPENDS" else [stack.pop()]
                if type(stack[-1]) is not list:
                    raise _RefusedError(f"its pickle appends to a {type(stack[-1]).__name__}: refused")
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = since_mark() if opcode.name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
                _set_items(stack[-1], items)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_admitted(argument))
            case "BINPERSID":
                stack.append(storage(stack.pop()))
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":  # module.state_dict() carries an attribute _metadata, of which nothing here has need
                stack.pop()
                if type(stack[-1]) is not _OrderedDict:
                    raise _RefusedError(f"its pickle sets attributes of a {_kind(stack[-1])}: refused")
            case _:
                raise _RefusedError(
                    f"its pickle has the opcode {opcode.name} at {position}, which torch.save does not write for "
                    f"weights: refused. {ADVICE}"
                )
    raise AssertionError("genops ends with STOP or raises")


def _set_items(target: Any, items: list[Any]) -> None:
    if not isinstance(target, dict) or len(items) % 2:
        raise _RefusedError(f"its pickle sets items of a {_kind(target)}: refused")
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int, float, bool, type(None)):  # a nested tuple can take forever to hash
            raise _RefusedError(f"its pickle has a dict with a key that is a {_kind(key)}: refused. {ADVICE}")
        if key in target:
            raise _RefusedError(f"its pickle has the key {_short(key)} twice in a dict")
        target[key] = value


def _admitted(name: Any) -> _Global:
    if name in (ORDERED_DICT, SIZE, TENSOR, PARAMETER) or name.removeprefix("torch ") in STORAGES:
        return _Global(name)
    raise _RefusedError(
        f"its pickle asks for {name[:80].replace(' ', '.')}, which weights do not need: refused. {ADVICE}"
    )


def _call(function: Any, arguments: Any) -> Any:
    """What one of the admitted functions would return. `function` and `arguments` may be anything."""
    match function, arguments:
        case _Global(name), () if name == ORDERED_DICT:
            return _OrderedDict()
        case _Global(name), (tuple() | list() as sizes,) if name == SIZE:
            return tuple(sizes)
        case _Global(name), (_Tensor() as tensor, _, _) if name == PARAMETER:  # requires_grad, hooks
            return tensor
        case _Global(name), (_Storage() as storage, offset, size, stride, _, _, *metadata) if name == TENSOR:
            if metadata not in ([], [None], [{}]):
                raise _RefusedError("a tensor with further properties (conjugated, negated): call .resolve_neg() on it")
            return _tensor(storage, offset, size, stride)
    raise _RefusedError(f"its pickle calls a {_kind(function)} in a way that PyTorch does not: refused")


def _tensor(storage: _Storage, offset: Any, size: Any, stride: Any) -> _Tensor:
    """A view that was checked to lie within its storage."""
    if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
        raise _RefusedError("a tensor whose sizes and strides are not two tuples of equal length")
    if len(size) > MOST_DIMENSIONS:
        raise _RefusedError(f"a tensor of {len(size)} dimensions: there can be {MOST_DIMENSIONS}")
    for number in (offset, *size, *stride):
        if type(number) is not int or not 0 <= number < 2**63:
            raise _RefusedError("a tensor whose offset, sizes or strides are not whole numbers from 0 on: refused")
    if math.prod(max(n, 1) for n in size) >= 2**59:  # one without elements can have other sizes that are too large
        raise _RefusedError(f"a tensor of sizes {size}, which no memory holds: refused")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.numel:
        raise _RefusedError(
            f"a tensor of sizes {size} reaches number {last} of {_short(storage.file)}, which has {storage.numel}"
        )
    return _Tensor(storage, offset, size, stride)


def _kind(value: Any) -> str:
    return value.name.replace(" ", ".") if isinstance(value, _Global) else type(value).__name__.strip("_")


def _pickled(arrays: dict[str, numpy.ndarray]) -> bytes:
    """The pickle that torch.save would write for these, whose storages are numbered as they come.

    Opcode by opcode, since pickle.Pickler imports what it names, and that would be PyTorch.
    """
    empty_ordered_dict = _name(ORDERED_DICT) + pickle.EMPTY_TUPLE + pickle.REDUCE
    out = [pickle.PROTO + b"\x02", empty_ordered_dict]
    for number, (name, array) in enumerate(arrays.items()):
        # PyTorch's own strides of a contiguous tensor: as if no size were 0
        strides = [math.prod(max(n, 1) for n in array.shape[axis + 1 :]) for axis in range(array.ndim)]
        kind = _name(f"torch {WRITTEN[array.dtype.name]}")
        storage = _tuple(_text("storage"), kind, _text(str(number)), _text("cpu"), _int(array.size))
        size, stride = (_tuple(*(_int(n) for n in numbers)) for numbers in (array.shape, strides))
        tensor = _tuple(storage + pickle.BINPERSID, _int(0), size, stride, pickle.NEWFALSE, empty_ordered_dict)
        out += [_text(name), _name(TENSOR), tensor, pickle.REDUCE, pickle.SETITEM]
    return b"".join([*out, pickle.STOP])


def _name(name: str) -> bytes:
    return pickle.GLOBAL + name.replace(" ", "\n").encode() + b"\n"


def _text(text: str) -> bytes:
    content = text.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + len(content).to_bytes(4, "little") + content


def _int(number: int) -> bytes:
    if number < 2**31:
        return pickle.BININT + number.to_bytes(4, "little")
    return pickle.LONG1 + b"\x08" + number.to_bytes(8, "little")


def _tuple(*items: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + pickle.TUPLE


# -- safetensors ---------------------------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> dict[str, numpy.ndarray]:
    arrays = {}
    for name, entry in deserialize(path.read_bytes()):
        if entry["dtype"] not in SAFETENSORS:
            raise _RefusedError(f"{_short(name)} is of type {entry['dtype']}: only {', '.join(SAFETENSORS)} are read")
        size, number_type = tuple(entry["shape"]), SAFETENSORS[entry["dtype"]]
        strides = tuple(math.prod(size[axis + 1 :]) for axis in range(len(size)))
        tensor = _Tensor(_Storage(name, number_type, math.prod(size)), 0, size, strides)
        arrays[name] = _array(entry["data"], tensor, "<")
    return arrays
