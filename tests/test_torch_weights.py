"""PyTorch's weight files: what it wrote is read as it is, what we write it reads, and no file makes anything happen."""

from __future__ import annotations

import collections
import io
import os
import pickle
import random
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy
import pytest

from minitorch_alex import nn, tensor, torch_weights
from minitorch_alex.checkpoint import CheckpointError
from minitorch_alex.torch_weights import read_torch_weights, write_torch_weights

WRITABLE = ["float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


def equal(mine, theirs) -> None:
    """The same names in the same order, and the same types, shapes and bits; NaNs included."""
    assert list(mine) == list(theirs)
    for name, a in mine.items():
        b = theirs[name]
        assert type(a) is numpy.ndarray
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), name
        assert a.flags.c_contiguous
        assert a.flags.writeable
        assert a.dtype.isnative


def as_numpy(state) -> dict[str, numpy.ndarray]:
    return {name: t.detach().resolve_neg().numpy() for name, t in state.items()}


# -- what PyTorch wrote ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number_type", WRITABLE)
def test_reads_every_type(torch, path, number_type):
    torch.manual_seed(0)
    state = {
        "matrix": torch.randint(0, 120, (3, 4)).to(getattr(torch, number_type)),
        "scalar": torch.tensor(1).to(getattr(torch, number_type)),
        "empty": torch.zeros(0, dtype=getattr(torch, number_type)),
        "empty matrix": torch.zeros(3, 0, 2, dtype=getattr(torch, number_type)),
    }
    torch.save(state, path)
    equal(read_torch_weights(path), as_numpy(state))


def test_negative_numbers_and_nan(torch, path):
    state = {"f": torch.tensor([-1.5, float("nan"), float("-inf"), -0.0]), "i": torch.tensor([-(2**62), -1])}
    torch.save(state, path)
    equal(read_torch_weights(path), as_numpy(state))


def test_bfloat16_becomes_float32(torch, path):
    torch.manual_seed(0)
    state = {"a": torch.randn(5, 7), "t": torch.randn(3, 4).T, "0-d": torch.tensor(-1e38), "nan": torch.tensor([1e999])}
    state = {name: t.to(torch.bfloat16) for name, t in state.items()} | {"none": torch.zeros(0, dtype=torch.bfloat16)}
    torch.save(state, path)
    equal(read_torch_weights(path), {name: t.contiguous().float().numpy() for name, t in state.items()})


def test_views(torch, path):
    base = torch.arange(60.0).reshape(3, 4, 5)
    state = {
        "transposed": base.transpose(0, 2),
        "slice": base[1:, ::2, 3:],
        "row": base[2],
        "number": base[2, 3, 4],
        "expanded": base[0, :, :1].expand(4, 6),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "empty at the end": base[3:],
        "empty beyond the end": torch.zeros(0, 3)[:, 2:],
        "overlapping": torch.as_strided(base, (5, 3), (2, 1), 7),
        "booleans": (base > 30).transpose(0, 2),
        "doubles": base.double()[2],
        "halves": base.half()[1:, :, 2],
        "stride never stepped": torch.as_strided(base, (1, 2), (10**9, 1), 5),
    }
    torch.save(state, path)
    mine = read_torch_weights(path)
    equal(mine, {name: numpy.array(t.numpy(), order="C") for name, t in state.items()})
    before = {name: a.copy() for name, a in mine.items()}
    mine["transposed"][...] = -1  # copies: what shared a storage does so no longer
    equal({**mine, "transposed": before["transposed"]}, before)
    assert torch.load(path)["stride never stepped"].stride() == (10**9, 1)


def test_random_views(torch, path):
    r = random.Random(0)
    state = {}
    for i in range(200):
        t = torch.arange(float(5 * 6 * 7)).reshape(5, 6, 7)
        for _ in range(3):
            axis = r.randrange(t.ndim)
            start = r.randrange(t.shape[axis])
            t = r.choice([t.transpose(0, axis), t.narrow(axis, start, r.randint(1, t.shape[axis] - start)), t.flip(0)])
            t = t.unsqueeze(r.randrange(3)) if r.random() < 0.2 else t
        state[f"t{i}"] = t
    torch.save(state, path)
    equal(read_torch_weights(path), {name: numpy.array(t.numpy(), order="C") for name, t in state.items()})


def test_tied_weights_come_out_twice(torch, path):
    shared = torch.nn.Linear(300, 100)
    torch.save(torch.nn.Sequential(shared, shared).state_dict(), path)
    mine = read_torch_weights(path)
    assert (mine["0.weight"] == mine["1.weight"]).all()
    assert not numpy.shares_memory(mine["0.weight"], mine["1.weight"])


def test_metadata_parameters_and_size(torch, path):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    state = network.state_dict()
    assert isinstance(state, collections.OrderedDict)
    assert state._metadata
    torch.save(state, path)
    equal(read_torch_weights(path), as_numpy(state))
    torch.save({"weight": network[0].weight, "frozen": torch.nn.Parameter(torch.ones(2), False)}, path)
    equal(read_torch_weights(path), {"weight": network[0].weight.detach().numpy(), "frozen": numpy.ones(2, "float32")})
    torch.save({"weight": torch.ones(2), "size": torch.Size([3, 4])}, path)
    equal(read_torch_weights(path), {"weight": numpy.ones(2, "float32")})


@pytest.mark.parametrize("under", ["state_dict", "model"])
def test_checkpoint_of_a_training_script(torch, path, under):
    network = torch.nn.Linear(3, 2)
    adam = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 3)).sum().backward()
    adam.step()
    rest = {"epoch": 90, "arch": "alexnet", "best": 56.5, "done": True, "none": None, "log": [1, (2, 3)], "big": 2**80}
    torch.save(rest | {under: network.state_dict(), "optimizer": adam.state_dict()}, path)
    equal(read_torch_weights(path), as_numpy(network.state_dict()))
    torch.save(rest | as_tensors(torch, network.state_dict()), path)  # beside each other
    equal(read_torch_weights(path), as_numpy(network.state_dict()))


def as_tensors(torch, state) -> dict:
    return {name: torch.clone(t) for name, t in state.items()}


def test_many_tensors_and_long_names(torch, path):
    state = {f"layer.{i}" + "é" * (i % 300): torch.tensor(float(i)) for i in range(3000)}
    state |= {f"counter.{i}": torch.tensor(i) for i in range(3)}  # a type that comes late, and then again
    torch.save(state, path)
    equal(read_torch_weights(path), as_numpy(state))


def test_empty_state_dict(torch, path):
    torch.save(torch.nn.ReLU().state_dict(), path)
    assert read_torch_weights(path) == {}
    torch.save({"state_dict": {}, "epoch": 1}, path)
    assert read_torch_weights(path) == {}


def test_big_endian(torch, path):
    """As a big-endian machine writes it: PyTorch reads the same from the file that we do."""
    state = {
        "f": torch.randn(3, 4).T,
        "d": torch.randn(5).double(),
        "h": torch.randn(5).half(),
        "i": torch.arange(-2, 3),
        "s": torch.arange(-2, 3).short(),
        "u": torch.arange(5).byte(),
        "o": torch.tensor([True, False]),
    }
    torch.save(state, path)
    widths = {f"weights/data/{i}": t.element_size() for i, t in enumerate(state.values())}

    rewrite(path, lambda name, content: b"big" if name.endswith("byteorder") else swapped(content, widths.get(name, 1)))
    equal(read_torch_weights(path), {name: t.contiguous().numpy() for name, t in torch.load(path).items()})
    equal(read_torch_weights(path), {name: t.contiguous().numpy() for name, t in state.items()})
    state = {"b": torch.randn(6).bfloat16()}
    torch.save(state, path)
    widths = {"weights/data/0": 2}
    rewrite(path, lambda name, content: b"big" if name.endswith("byteorder") else swapped(content, widths.get(name, 1)))
    equal(read_torch_weights(path), {"b": state["b"].float().numpy()})


def swapped(content: bytes, width: int) -> bytes:
    return numpy.frombuffer(content, "uint8").reshape(-1, width)[:, ::-1].tobytes()


def rewrite(path: Path, change) -> None:
    """The same archive with each file's content replaced by change(name, content); None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if (new := change(name, content)) is not None:
                archive.writestr(name, new)


def test_without_byteorder_it_is_little(torch, path):
    torch.save({"a": torch.arange(3.0)}, path)
    rewrite(path, lambda name, content: None if name.endswith("byteorder") else content)
    equal(read_torch_weights(path), {"a": numpy.arange(3, dtype="float32")})


@pytest.mark.parametrize("name", ["archive", "a b", "x.y", "é"])
def test_root_folder_of_any_name(torch, tmp_path, name):
    torch.save({"a": torch.arange(3.0)}, tmp_path / f"{name}.pth")
    equal(read_torch_weights(str(tmp_path / f"{name}.pth")), {"a": numpy.arange(3, dtype="float32")})


def test_legacy_format_is_refused_with_the_way_out(torch, path):
    torch.save({"a": torch.arange(3.0)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match=r"before PyTorch 1\.6.*torch\.save\(torch\.load\("):
        read_torch_weights(path)
    torch.save(torch.load(path, weights_only=True), path)
    equal(read_torch_weights(path), {"a": numpy.arange(3, dtype="float32")})


def test_what_is_no_state_dict(torch, path):
    for saved, reason in [
        (torch.ones(3), "holds a Tensor, not a state dict"),
        ([torch.ones(3)], "holds a list, not a state dict"),
        ({"a": {"b": torch.ones(3)}}, "no tensors among 'a'"),
        ({0: torch.ones(3)}, "key that is no string but int"),
        ({(1, 2): torch.ones(3)}, "a key that is a tuple"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, r"torch\.ComplexFloatStorage, which weights do not need"),
        ({"a": torch.imag(torch.ones(3, dtype=torch.complex64).conj())}, "ComplexFloatStorage|negated"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear, which weights do not need.*state_dict\(\)"),
    ]:
        torch.save(saved, path)
        with pytest.raises(CheckpointError, match=reason):
            read_torch_weights(path)


# -- what we write ---------------------------------------------------------------------------------------------------


def sample() -> dict[str, numpy.ndarray]:
    rng = numpy.random.default_rng(0)
    state = {f"{t}.matrix": (rng.standard_normal((3, 4)) * 9).astype("int8").astype(t) for t in WRITABLE}
    state |= {f"{t}.0-d": numpy.array(1, t) for t in WRITABLE} | {f"{t}.empty": numpy.zeros(0, t) for t in WRITABLE}
    state |= {"empty": numpy.zeros((3, 0, 2)), "transposed": rng.standard_normal((3, 4, 5)).T, "é": numpy.ones(2)}
    state |= {"big": rng.standard_normal(70_000), "nan": numpy.array([numpy.nan, -numpy.inf, -0.0], "float32")}
    return state


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_round_trip(tmp_path, suffix):
    state = {name: numpy.array(a, order="C") for name, a in sample().items()}
    write_torch_weights(tmp_path / f"w{suffix}", sample())
    mine = read_torch_weights(tmp_path / f"w{suffix}")
    if suffix == ".safetensors":  # it sorts
        state, mine = dict(sorted(state.items())), dict(sorted(mine.items()))
    equal(mine, state)
    write_torch_weights(tmp_path / f"w{suffix}", {})
    assert read_torch_weights(tmp_path / f"w{suffix}") == {}


@pytest.mark.parametrize("mmap", [False, True])
def test_torch_loads_it(torch, path, mmap):
    write_torch_weights(path, sample())
    loaded = torch.load(path, weights_only=True, mmap=mmap)
    assert isinstance(loaded, collections.OrderedDict)
    assert all(t.is_contiguous() and t.stride() == torch.empty(t.shape).stride() for t in loaded.values())
    equal(as_numpy(loaded), {name: numpy.array(a, order="C") for name, a in sample().items()})
    torch.save(loaded, path.with_suffix(".again"))
    equal(
        read_torch_weights(path.with_suffix(".again")),
        {name: numpy.array(a, order="C") for name, a in sample().items()},
    )


def test_torch_loads_many(torch, path):
    state = {f"layer{i}.weight": numpy.array(i) for i in range(20_000)}
    write_torch_weights(path, state)
    assert list(torch.load(path, weights_only=True)) == list(state)
    equal(read_torch_weights(path), state)


def test_foreign_byte_order_in_memory(torch, path):
    write_torch_weights(path, {"a": numpy.arange(5, dtype=">i4"), "b": numpy.array(2.5, ">f8")})
    expected = {"a": numpy.arange(5, dtype="int32"), "b": numpy.array(2.5)}
    equal(read_torch_weights(path), expected)
    equal(as_numpy(torch.load(path, weights_only=True)), expected)


def test_names_that_are_no_proper_text(torch, path):
    """Half of a pair that stands for one character: Python has such strings, and pickles hold them."""
    write_torch_weights(path, {"\ud800": SIX})
    equal(read_torch_weights(path), {"\ud800": SIX})
    assert list(torch.load(path, weights_only=True)) == ["\ud800"]


def test_numbers_beyond_32_bits():
    """In sizes, where no test can afford the storage."""
    for n in (0, 2**31 - 1, 2**31, 2**40, 2**63 - 1):
        assert pickle.loads(torch_weights._int(n) + b".") == n


def test_equal_states_give_equal_files(tmp_path):
    for name in "ab":
        write_torch_weights(tmp_path / name, sample())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    with zipfile.ZipFile(tmp_path / "a") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}  # none, on any day


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"w": numpy.ones(2, "complex64")}, "w is complex64; convert it to an array of float32"),
        ({"w": numpy.ones(2, "uint32")}, "w is uint32"),
        ({"w": [1.0]}, "w is list"),
        ({"w": numpy.array(["text"])}, "w is <U4"),
        ({1: numpy.ones(2)}, "1 cannot name a tensor"),
    ],
)
def test_what_cannot_be_written(path, state, reason):
    path.write_bytes(b"before")
    with pytest.raises(TypeError, match=reason):
        write_torch_weights(path, state)
    assert path.read_bytes() == b"before"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"weights{suffix}"
    write_torch_weights(path, {"a": numpy.ones(2)})
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_torch_weights(path, {"a": numpy.zeros(2)})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_pytorch_is_not_imported(path):
    code = "import sys; from minitorch_alex.torch_weights import *; import numpy\n"
    code += f"write_torch_weights({str(path)!r}, {{'a': numpy.ones(2)}}); read_torch_weights({str(path)!r})\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# -- safetensors -----------------------------------------------------------------------------------------------------


def test_safetensors_of_torch(torch, tmp_path):
    theirs = pytest.importorskip("safetensors.torch", reason="safetensors' own part for PyTorch is not installed")
    torch.manual_seed(0)
    state = {t: (torch.randn(3, 4) * 9).to(getattr(torch, t)) for t in WRITABLE}
    state |= {"0-d": torch.tensor(1.5), "empty": torch.zeros(2, 0), "bf": torch.randn(3, 2).bfloat16()}
    theirs.save_file(state, tmp_path / "w.safetensors")
    mine = read_torch_weights(tmp_path / "w.safetensors")
    expected = {name: t.float() if name == "bf" else t for name, t in state.items()}
    equal(dict(sorted(mine.items())), as_numpy(dict(sorted(expected.items()))))
    write_torch_weights(tmp_path / "v.safetensors", mine)
    assert theirs.load_file(tmp_path / "v.safetensors").keys() == mine.keys()
    theirs.save_file({"c": torch.ones(2, dtype=torch.complex64)}, tmp_path / "w.safetensors")
    with pytest.raises(CheckpointError, match="'c' is of type C64: only F32"):
        read_torch_weights(tmp_path / "w.safetensors")


def test_torn_safetensors(tmp_path):
    path = tmp_path / "w.safetensors"
    write_torch_weights(path, {"a": numpy.ones(20)})
    for length in (0, 5, 40, path.stat().st_size - 1):
        (tmp_path / "torn.safetensors").write_bytes(path.read_bytes()[:length])
        with pytest.raises(CheckpointError, match=r"torn\.safetensors: not readable"):
            read_torch_weights(tmp_path / "torn.safetensors")


# -- hostile and broken files ----------------------------------------------------------------------------------------


class Name:
    """In a pickle made by hand: a name, without importing what it names."""

    def __init__(self, name: str) -> None:
        self.name = name


class Call:
    """In a pickle made by hand: the call of a name, then perhaps BUILD with a state."""

    def __init__(self, name: str, *arguments, state=None) -> None:
        self.name, self.arguments, self.state = name, arguments, state


class Storage:
    def __init__(self, *identity) -> None:
        self.identity = identity


class Pickler(pickle._Pickler):
    """Python's own pickler in Python, which can be told what to write for the three above."""

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(b"c" + obj.name.replace(" ", "\n").encode() + b"\n")
        elif isinstance(obj, Call):
            self.save(Name(obj.name))
            self.save(obj.arguments)
            self.write(b"R")
            if obj.state is not None:
                self.save(obj.state)
                self.write(b"b")
        elif isinstance(obj, Storage):
            self.save(obj.identity)
            self.write(b"Q")
        else:
            super().save(obj, save_persistent_id)


def pickled(value, protocol: int = 2) -> bytes:
    out = io.BytesIO()
    Pickler(out, protocol).dump(value)
    return out.getvalue()


HOOKS = Call("collections OrderedDict")


def storage(numel=6, kind="FloatStorage", key="0") -> Storage:
    return Storage("storage", Name(f"torch {kind}"), key, "cpu", numel)


def tensor_of(size=(2, 3), stride=(3, 1), offset=0, of=None, rest=(False, HOOKS)) -> Call:
    return Call("torch._utils _rebuild_tensor_v2", of or storage(), offset, size, stride, *rest)


SIX = numpy.arange(6, dtype="float32")


def write(path: Path, content: bytes, method: int = zipfile.ZIP_STORED, **files: bytes | None) -> Path:
    """An archive as torch.save makes it, with six floats as its storage; **files replace or remove what is in it."""
    entries = {"r/data.pkl": content, "r/byteorder": b"little", "r/data/0": SIX.tobytes(), "r/version": b"3\n"}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, new in (entries | files).items():
            if new is not None:
                archive.writestr(name, new)
    return path


def refused(path: Path, reason: str) -> str:
    """The file is refused with this reason, in one line that names it, and takes no memory to speak of."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=reason) as caught:
            read_torch_weights(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) < len(str(path)) + 1000
    assert peak < 40e6
    return text


def test_the_handmade_file_is_read(path):
    """Each hostile file differs from this one by what is hostile in it."""
    equal(read_torch_weights(write(path, pickled({"a": tensor_of()}))), {"a": SIX.reshape(2, 3)})
    parameter = Call("torch._utils _rebuild_parameter", tensor_of(), True, HOOKS)
    equal(read_torch_weights(write(path, pickled({"a": parameter}))), {"a": SIX.reshape(2, 3)})
    ordered = pickled({"state_dict": Call("collections OrderedDict", state={"_metadata": 1})})
    assert read_torch_weights(write(path, ordered)) == {}
    most_dimensions = pickled({"a": tensor_of((1,) * 62 + (2, 3), (0,) * 62 + (3, 1))})
    equal(read_torch_weights(write(path, most_dimensions)), {"a": SIX.reshape((1,) * 62 + (2, 3))})
    never_stepped = pickled({"a": tensor_of((1, 6), (2**63 - 1, 1))})
    equal(read_torch_weights(write(path, never_stepped)), {"a": SIX.reshape(1, 6)})
    for metadata in (None, {}):
        content = pickled({"a": tensor_of(rest=(False, HOOKS, metadata))})
        equal(read_torch_weights(write(path, content)), {"a": SIX.reshape(2, 3)})


def test_which_dict_holds_the_weights(path):
    a, b = tensor_of(), tensor_of((6,), (1,))
    for saved, expected in [
        ({"model": "alexnet", "a": a}, {"a": SIX.reshape(2, 3)}),
        ({"model": {"b": b}, "state_dict": "none", "a": a}, {"b": SIX}),
        ({"model": {"b": b}, "state_dict": {"a": a}}, {"a": SIX.reshape(2, 3)}),
    ]:
        equal(read_torch_weights(write(path, pickled(saved))), expected)


def test_which_file_is_the_pickle(path):
    """data.pkl of the outermost folder, whatever else has such a name."""
    content = pickled({"a": tensor_of()})
    for beside in ("r/old/data.pkl", "r/data.pkl.old", "data.pkl"):
        equal(read_torch_weights(write(path, content, **{beside: b""})), {"a": SIX.reshape(2, 3)})
    refused(write(path, b"", **{"r/data.pkl": None, "r/old/data.pkl": content}), "0 files data.pkl")


def test_booleans_are_0_and_1(path):
    content = pickled({"a": tensor_of((3,), (1,), of=storage(3, "BoolStorage"))})
    mine = read_torch_weights(write(path, content, **{"r/data/0": b"\0\1\7"}))["a"]
    assert mine.view("uint8").tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "name",
    [
        "os system", "posix system", "builtins eval", "builtins getattr", "numpy ndarray", "torch load", "torch Tensor",
        "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v2.__globals__", "torch.storage UntypedStorage",
        "collections OrderedDict.fromkeys", "collections defaultdict", "torch ComplexFloatStorage",
        "copyreg _reconstructor", "_codecs encode", "minitorch_alex.torch_weights write_torch_weights",
        "torch FloatStorage.x", "x" * 9000 + " y",
    ],
)  # fmt: skip
def test_names_are_not_admitted(path, tmp_path, name):
    trace = tmp_path / "executed"
    text = refused(write(path, pickled({"a": Call(name, f"touch {trace}")})), "which weights do not need: refused")
    assert name.replace(" ", ".")[:80] in text
    assert not trace.exists()
    refused(write(path, pickled({"a": Name(name)})), "which weights do not need: refused")


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_a_command(path, tmp_path, protocol):
    trace = tmp_path / "executed"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {trace}",)

    refused(write(path, pickle.dumps({"a": Attack()}, protocol)), "refused")
    assert not trace.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x80\x02(cos\nsystem\nX\x04\0\0\0true.", r"os\.system"),
        (b"\x80\x02(X\x04\0\0\0trueios\nsystem\n.", "opcode INST"),
        (b"\x80\x02(cos\nsystem\nX\x04\0\0\0trueo.", r"os\.system"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "opcode NEWOBJ"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "opcode SHORT_BINUNICODE"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x02Pabc\n.", "opcode PERSID"),
        (b"\x80\x02}2.", "opcode DUP"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "not readable"),
        (b"\x80\x02}X\xff\xff\xff\x7fa.", "not readable"),
        (b"\x80\x02h\x05.", "not readable"),
        (b"\x80\x02.", "not readable"),
        (b"\x80\x020.", "opcode POP"),
        (b"\x80\x02t.", "not readable"),
        (b"\x80\x02}X\x01\0\0\0a", "not readable"),
        (b"", "not readable"),
        (b"\xff", "not readable"),
        (b"\x80\x02K\x01Q.", "no storage"),
        (b"\x80\x02K\x01K\x02R.", "calls a int"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", r"calls a torch\.FloatStorage"),
        (b"\x80\x02K\x01]K\x02e.", "not readable"),
        (b"\x80\x02K\x01K\x02a.", "appends to a int"),
        (b"\x80\x02K\x01K\x02K\x03s.", "sets items of a int"),
        (b"\x80\x02](K\x02K\x03u.", "sets items of a list"),
        (b"\x80\x02}(K\x02u.", "sets items of a dict"),
        (b"\x80\x02}K\x02a.", "appends to a dict"),
    ],
)
def test_opcodes(path, content, reason):
    refused(write(path, content), reason)


def test_a_memo_of_two_billion(path):
    tracemalloc.start()
    assert read_torch_weights(write(path, b"\x80\x02}r\xff\xff\xff\x7f.")) == {}
    assert tracemalloc.get_traced_memory()[1] < 40e6
    tracemalloc.stop()


@pytest.mark.parametrize(
    "target",
    [
        Name("torch._utils _rebuild_tensor_v2"), Name("torch FloatStorage"), Name("collections OrderedDict"),
        tensor_of(), storage(), {}, [], (), 5, "text", Call("torch Size", (1, 2)),
    ],
)  # fmt: skip
def test_attributes_are_not_set(path, target):
    out = io.BytesIO()
    pickler = Pickler(out, 2)
    pickler.save(target)
    pickler.save({"numel": 10**9, "size": (10**9,), "name": "os system"})
    refused(write(path, b"\x80\x02" + out.getvalue() + b"b."), "sets attributes of a .*: refused")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (tensor_of((2, 4), (4, 1)), "reaches number 7 of 'r/data/0', which has 6"),
        (tensor_of((2, 3), (4, 1)), "reaches number 6 "),
        (tensor_of((2, 3), (3, 1), 1), "reaches number 6 "),
        (tensor_of((), (), 6), "reaches number 6 "),
        (tensor_of((2, 3), (3, 1), 2**62), "reaches number"),
        (tensor_of((2, 3), (3, 1), 2**64), "not whole numbers"),
        (tensor_of((2, 3), (2**62, 1)), "reaches number"),
        (tensor_of((2, 3), (3, 1), -1), "not whole numbers from 0"),
        (tensor_of((2, 3), (-3, 1), 3), "not whole numbers from 0"),
        (tensor_of((-2, 3), (3, 1)), "not whole numbers from 0"),
        (tensor_of((2.0, 3), (3, 1)), "not whole numbers"),
        (tensor_of((True, 3), (3, 1)), "not whole numbers"),
        (tensor_of((2, 3), (3, 1), None), "not whole numbers"),
        (tensor_of((2, 3), (3,)), "two tuples of equal length"),
        (tensor_of((2,), (3, 1)), "two tuples of equal length"),
        (tensor_of([2, 3], (3, 1)), "two tuples"),
        (tensor_of("23", "31"), "two tuples"),
        (tensor_of((1,) * 65, (1,) * 65), "65 dimensions"),
        (tensor_of((10**12,), (0,)), "would take 4000000000000 bytes, but the file has only"),
        (tensor_of((2**24 + 4096,), (0,)), "would take"),
        (tensor_of((2**40, 2**40), (0, 0)), "which no memory holds"),
        (tensor_of((2**62, 2**62, 0), (0, 0, 0)), "which no memory holds"),
        (tensor_of((2**59, 0), (0, 0)), "which no memory holds"),
        (tensor_of(of=storage(5)), "has 24 bytes, but its 5 numbers need 20"),
        (tensor_of(of=storage(7)), "has 24 bytes, but its 7 numbers need 28"),
        (tensor_of(of=storage(-6)), "has 24 bytes"),
        (tensor_of(of=storage(2**62)), "has 24 bytes"),
        (tensor_of(of=storage(6, "DoubleStorage")), "has 24 bytes, but its 6 numbers need 48"),
        (tensor_of(of=storage(6, key="1")), "'r/data/1' is missing"),
        (tensor_of(of=storage(6, key="../data/0")), "is missing"),
        (tensor_of(of=storage(6, key=0)), "no storage"),
        (tensor_of(of=storage("6")), "no storage"),
        (tensor_of(of=Storage("storage", "torch FloatStorage", "0", "cpu", 6)), "no storage"),
        (tensor_of(of=Storage("storage", Name("torch Size"), "0", "cpu", 6)), "no storage"),
        (tensor_of(of=Storage("module", Name("torch FloatStorage"), "0", "cpu", 6)), "no storage"),
        (tensor_of(of=Storage("storage", Name("torch FloatStorage"), "0", None, 6)), "no storage"),
        (tensor_of(of=Name("torch FloatStorage")), "calls a torch._utils._rebuild_tensor_v2 in a way"),
        (tensor_of(rest=()), "in a way that PyTorch does not"),
        (tensor_of(rest=(False, HOOKS, {"neg": True})), "negated"),
        (tensor_of(rest=(False, HOOKS, None, None)), "further properties"),
        (Call("torch._utils _rebuild_parameter", 5, True, HOOKS), "in a way that PyTorch does not"),
        (Call("collections OrderedDict", [("a", 1)]), "in a way that PyTorch does not"),
        (Call("torch Size", 5), "in a way that PyTorch does not"),
    ],
)
def test_tensors_that_are_none(path, bad, reason):
    refused(write(path, pickled({"a": bad})), reason)


def test_one_byte_less_or_more(path):
    content = pickled({"a": tensor_of()})
    for data in (SIX.tobytes()[:-1], SIX.tobytes() + b"\0", b""):
        refused(write(path, content, **{"r/data/0": data}), f"has {len(data)} bytes, but its 6 numbers need 24")
    refused(write(path, content, **{"r/data/0": None}), "is missing")


def test_a_long_reason_is_cut(path):
    key = "x" * 9000
    content = pickled({"a": tensor_of(of=storage(key=key))})
    write(path, content, **{f"r/data/{key}": b"the six numbers as 24 by"})
    path.write_bytes(path.read_bytes().replace(b"numbers", b"changed"))
    refused(path, "not readable as weights, perhaps truncated .BadZipFile: Bad CRC-32 for file 'r/data/xxx")


def test_many_views_of_one_storage(path):
    """Each small enough, all of them together not."""
    one = tensor_of((2**20,), (0,))
    content = pickled({f"a{i}": one for i in range(64)})
    refused(write(path, content), "would take 268435456 bytes")
    equal(read_torch_weights(write(path, pickled({"a": one}))), {"a": numpy.zeros(2**20, "float32")})


def test_what_a_large_file_may_ask_for(path, monkeypatch):
    """Without the allowance, which small files live on: four times its size."""
    monkeypatch.setattr(torch_weights, "ALLOWANCE", 0)
    padding = bytes(100_000)
    for kilobytes, admitted in ((300, True), (500, False)):
        one = tensor_of((kilobytes * 250,), (0,))
        write(path, pickled({"a": one}), **{"r/padding": padding})
        if admitted:
            equal(read_torch_weights(path), {"a": numpy.zeros(kilobytes * 250, "float32")})
        else:
            refused(path, f"would take {kilobytes}000 bytes, but the file has only")


def test_bfloat16_counts_as_what_it_becomes(path):
    half = tensor_of((2**24 + 4096,), (0,), of=storage(12, "BFloat16Storage"))
    refused(write(path, pickled({"a": half})), "would take")


def test_nested_keys_and_memo_tricks(path):
    laughs: object = ()
    for _ in range(60):
        laughs = (laughs, laughs)
    refused(write(path, b"\x80\x02}" + pickled(laughs)[2:-1] + b"K\x01s."), "a key that is a tuple")
    refused(write(path, pickled(laughs)), "holds a tuple, not a state dict")
    equal(read_torch_weights(write(path, pickled({"x": laughs, "a": tensor_of()}))), {"a": SIX.reshape(2, 3)})
    lists: list = []
    for _ in range(60):
        lists = [lists, lists]
    equal(read_torch_weights(write(path, pickled({"x": lists, "a": tensor_of()}))), {"a": SIX.reshape(2, 3)})
    refused(write(path, pickled({"x": laughs, "a": tensor_of(laughs, laughs)})), "not whole numbers")
    loop: dict = {}
    loop["model"] = loop
    refused(write(path, pickled(loop)), "no tensors among 'model'")


def test_deep_nesting(path):
    depth = 1_000_000
    refused(write(path, b"\x80\x02" + b"]" * depth + b"a" * depth + b"."), "nests deeper")
    refused(write(path, b"\x80\x02" + b"(" * depth + b"t" * depth + b"."), "nests deeper")
    refused(write(path, b"\x80\x02)" + b"\x85" * 100_000 + b"."), "holds a tuple")
    refused(write(path, b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s."), "a key that is a tuple")


def test_a_long_pickle(path):
    refused(write(path, b"\x80\x02" + b"]0" * (3 << 20) + b"."), "data.pkl has 6291459 bytes, more than")


def test_equal_keys(path):
    def key(text: bytes) -> bytes:
        return b"X" + len(text).to_bytes(4, "little") + text + b"K\x01"

    for content in (b"}(" + key(b"a") + key(b"a") + b"u.", b"}" + key(b"a") + b"s" + key(b"a") + b"s."):
        refused(write(path, b"\x80\x02" + content), "the key 'a' twice")
        ordered = b"ccollections\nOrderedDict\n)R"
        refused(write(path, b"\x80\x02" + ordered + content[1:]), "the key 'a' twice")
    refused(write(path, pickled({"a" * 10_000: 1})), "no tensors among 'aaa")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_bombs(path, method):
    content = pickled({"a": tensor_of((10**8,), (1,), of=storage(10**8, "ByteStorage"))})
    write(path, content, method, **{"r/data/0": bytes(10**8)})
    refused(path, "compressed, which torch.save never does")


def test_sizes_that_lie(path):
    """The archive's directory names sizes and places: changed by hand, each is refused."""
    write(path, pickled({"a": tensor_of()}))
    whole = path.read_bytes()
    place = whole.rindex(b"r/data/0") - 46  # its entry in the directory: compressed and whole size at 20 and 24
    assert whole[place : place + 4] == b"PK\1\2"
    for start, size in ((20, 10**9), (24, 10**9), (24, 0), (8, 8 << 16)):  # the last: as if it were deflated
        lying = bytearray(whole)
        lying[place + start : place + start + 4] = size.to_bytes(4, "little")
        path.write_bytes(lying)
        refused(path, "is compressed")
    lying = bytearray(whole)
    lying[place + 20 : place + 28] = (10**9).to_bytes(4, "little") * 2
    path.write_bytes(lying)
    refused(path, "claims to hold 1000000|not readable")
    lying[place + 20 : place + 28] = (28).to_bytes(4, "little") * 2
    path.write_bytes(lying)
    refused(path, "has 28 bytes, but its 6 numbers need 24")


@pytest.mark.parametrize("count", [2, 50])
def test_overlapping_entries(path, count):
    """Several names for the same bytes: what they claim together is more than there is."""
    kilobytes = 400 << 10
    names = [f"r/data/{i}" for i in range(count)]
    content = pickled({f"a{i}": tensor_of((kilobytes,), (1,), of=storage(kilobytes, "ByteStorage", str(i)))
                       for i in range(count)})  # fmt: skip
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("r/data.pkl", content)
        archive.writestr(names[0], bytes(kilobytes))
        first = archive.getinfo(names[0])
        for name in names[1:]:
            entry = zipfile.ZipInfo(name)
            entry.CRC, entry.header_offset = first.CRC, first.header_offset
            entry.file_size = entry.compress_size = kilobytes
            archive.filelist.append(entry)
        archive._didModify = True
    refused(path, "claims to hold .* bytes, but the file has only")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../evil", "leads out of it, '../evil'"),
        ("r/../../evil", "leads out of it"),
        ("/etc/evil", "leads out of it"),
        ("r\\..\\evil", "leads out of it"),
        ("other/data.pkl", "2 files data.pkl"),
    ],
)
def test_names_in_the_archive(path, name, reason):
    refused(write(path, pickled({"a": tensor_of()}), **{name: b""}), reason)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_archives_that_are_none_of_torch(path):
    write(path, pickled({"a": tensor_of()}))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("r/data/0", bytes(24))
    refused(path, "holds 'r/data/0' twice")
    refused(write(path, b"", **{"r/data.pkl": None}), "0 files data.pkl")
    refused(write(path, pickled({"a": tensor_of()}), **{"r/byteorder": b"middle"}), "byte order is b'middle'")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"")
    refused(path, "0 files data.pkl")


def test_files_that_are_no_archive(path):
    refused(path, "there are no weights there")
    for content, reason in [
        (b"", "an empty file"),
        (b"<html>404", "not a file of torch.save"),
        (pickle.dumps({"a": 1}), "not a file of torch.save"),
        (b"PK\3\4", "perhaps truncated"),
        (b"PK\5\6" + bytes(18), "not a file of torch.save"),
    ]:
        path.write_bytes(content)
        refused(path, reason)
    refused(path.parent, "not readable")


def test_torn_anywhere(path):
    write_torch_weights(path, {"a": SIX, "b": SIX})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError):
            read_torch_weights(path)


def test_any_flipped_bit_is_noticed_or_harmless(path):
    """No flip gives other numbers or another error: the archive has checksums."""
    write_torch_weights(path, {"a": SIX, "b": SIX.reshape(2, 3)})
    whole = path.read_bytes()
    r = random.Random(0)
    for _ in range(3000):
        torn = bytearray(whole)
        torn[r.randrange(len(whole))] ^= 1 << r.randrange(8)
        path.write_bytes(torn)
        try:
            mine = read_torch_weights(path)
        except CheckpointError:
            continue
        equal(mine, {"a": SIX, "b": SIX.reshape(2, 3)})


def test_any_pickle_is_read_or_refused(path):
    """Without checksums: bytes of the pickle changed before it was packed."""
    ordered = Call("collections OrderedDict", state={"_metadata": {"": 1}})
    whole = pickled({"a": tensor_of(), "b": ordered, "n": [1]})
    r = random.Random(0)
    outcomes = set()
    for _ in range(3000):
        torn = bytearray(whole)
        for _ in range(r.randint(1, 3)):
            torn[r.randrange(len(torn))] = r.choice([r.randrange(256), r.choice(whole)])
        try:
            for a in read_torch_weights(write(path, bytes(torn))).values():
                assert a.size <= 2**24
            outcomes.add("read")
        except CheckpointError:
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# -- a network -------------------------------------------------------------------------------------------------------


def networks(torch) -> tuple[nn.Module, object]:
    """The same small network twice, of ours and of PyTorch, with different weights."""
    torch.manual_seed(0)
    pair = [
        n.Sequential(
            n.Conv2d(3, 4, 3, padding=1), n.BatchNorm2d(4), n.ReLU(), n.MaxPool2d(2), n.Flatten(), n.Linear(64, 5)
        )
        for n in (nn, torch.nn)
    ]
    pair[1](torch.randn(6, 3, 8, 8))  # running statistics that are not 0 and 1
    return pair[0].eval(), pair[1].eval()


def test_our_network_with_their_weights(torch, path, backend):
    mine, theirs = networks(torch)
    x = torch.randn(2, 3, 8, 8)
    torch.save({"epoch": 3, "state_dict": theirs.state_dict()}, path)
    mine.load_state_dict(read_torch_weights(path))
    with torch.no_grad():
        numpy.testing.assert_allclose(mine(tensor(x.numpy())).numpy(), theirs(x).numpy(), rtol=1e-4, atol=1e-5)


def test_their_network_with_our_weights(torch, path, backend):
    mine, theirs = networks(torch)
    x = torch.randn(2, 3, 8, 8)
    write_torch_weights(path, mine.state_dict())
    with torch.no_grad():
        assert abs(mine(tensor(x.numpy())).numpy() - theirs(x).numpy()).max() > 0.01
        theirs.load_state_dict(torch.load(path, weights_only=True))
        numpy.testing.assert_allclose(mine(tensor(x.numpy())).numpy(), theirs(x).numpy(), rtol=1e-4, atol=1e-5)
