"""Images: where they come from, that hostile files do nothing, how they are varied, how they reach the network."""

import collections
import functools
import hashlib
import http.server
import io
import itertools
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from minitorch_alex.data import Loader, Preprocessing, cifar10, load
from minitorch_alex.data.augmentation import Augmentation
from minitorch_alex.data.cifar10 import BINARY, PYTHON, find_or_download, unpack
from minitorch_alex.data.dataset import DataError, stratified_split

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


# -- the digits -----------------------------------------------------------------
def test_digits():
    d = load("digits")
    assert d.train_images.shape == (1438, 1, 8, 8)
    assert d.test_images.shape == (359, 1, 8, 8)
    assert d.image_shape == (1, 8, 8)
    assert d.train_images.dtype == d.test_images.dtype == "uint8"
    assert d.train_labels.dtype == d.test_labels.dtype == "int64"
    assert d.classes == list("0123456789")
    assert len(d.train_labels) == 1438
    assert len(d.test_labels) == 359
    assert d.train_images.min() == 0
    assert d.train_images.max() == 255
    assert not d.augmentation.flip, "a mirrored digit is no digit"
    for label, count in enumerate(np.bincount(np.concatenate([d.train_labels, d.test_labels]), minlength=10)):
        assert abs((d.test_labels == label).sum() - 0.2 * count) <= 1


def test_digits_split_is_fixed_and_does_not_overlap():
    a, b = load("digits"), load("digits")
    assert np.array_equal(a.test_images, b.test_images)
    assert np.array_equal(a.train_labels, b.train_labels)
    # whatever the computer and the version: results are only comparable on the same split
    assert hashlib.sha256(a.test_images.tobytes() + a.test_labels.tobytes()).hexdigest()[:16] == "485038a94f60e922"
    with np.load(Path(cifar10.__file__).with_name("digits.npz")) as archive:
        everything = sorted(image.tobytes() for image in (archive["images"] * (255 / 16)).astype("uint8"))
    assert len(everything) == 1797
    assert sorted(image.tobytes() for image in np.concatenate([a.train_images, a.test_images])) == everything


def test_stratified_split():
    labels = np.repeat([7, 3, 5], [10, 50, 3])
    train, test = stratified_split(labels, 0.2, seed=0)
    assert sorted([*train, *test]) == list(range(63))
    assert [(labels[test] == label).sum() for label in (7, 3, 5)] == [2, 10, 1]
    assert np.array_equal(stratified_split(labels, 0.2, seed=0)[1], test)
    assert not np.array_equal(stratified_split(labels, 0.2, seed=1)[1], test)
    assert not np.array_equal(test, [*range(2), *range(10, 20), 60]), "the first ones may be of one writer"


# -- CIFAR-10 from a folder -------------------------------------------------------
def cifar_batches(per_file: int = 4) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random pixels (n, 3072) and labels (n,) for each of the six files."""
    random = np.random.default_rng(0)
    return {
        name: (random.integers(0, 256, (per_file, 3072), "uint8"), random.integers(0, 10, per_file)) for name in NAMES
    }


def write_binary(folder: Path, batches: dict[str, tuple[np.ndarray, np.ndarray]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in batches.items():
        records = np.concatenate([labels[:, None].astype("uint8"), pixels], axis=1)
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    return folder


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 wrote into the official files: byte strings where Python 3 has text, and its opcodes."""

    def save_string(self, text):
        raw = text.encode() if isinstance(text, str) else text
        self.write(pickle.BINSTRING + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_string, bytes: save_string}


def pickled_as_python2(value) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def pickled_as_python3(value) -> bytes:
    return pickle.dumps(value, protocol=2)


def write_python(folder: Path, batches, pickled=pickled_as_python2) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (pixels, labels) in batches.items():
        batch = {
            b"batch_label": b"training batch 1 of 5",
            b"labels": labels.tolist(),
            b"data": pixels,
            b"filenames": [b"dog_s_000001.png"] * len(labels),
        }
        (folder / name).write_bytes(pickled(batch))
    return folder


@pytest.mark.parametrize("inside", [True, False], ids=["the parent", "the folder itself"])
@pytest.mark.parametrize(
    ("name", "write"),
    [
        (BINARY, write_binary),
        (PYTHON, write_python),
        (PYTHON, lambda folder, batches: write_python(folder, batches, pickled_as_python3)),
    ],
    ids=["binary", "python 2", "python 3"],
)
def test_cifar_in_every_official_form(name, write, inside, tmp_path):
    batches = cifar_batches()
    folder = write(tmp_path / name if inside else tmp_path / "mine", batches)
    d = load(str(tmp_path if inside else folder))
    pixels, labels = (np.concatenate([batches[n][i] for n in NAMES[:5]]) for i in (0, 1))
    assert d.image_shape == (3, 32, 32)
    assert np.array_equal(d.train_images, pixels.reshape(-1, 3, 32, 32))
    assert np.array_equal(d.train_labels, labels)
    assert np.array_equal(d.test_images, batches["test_batch"][0].reshape(-1, 3, 32, 32))
    assert np.array_equal(d.test_labels, batches["test_batch"][1])
    assert d.train_images.dtype == "uint8"
    assert d.train_labels.dtype == "int64"
    assert len(d.classes) == 10
    assert d.classes[3] == "cat"
    assert d.augmentation == Augmentation(shift=4, flip=True, fill=int(pixels.mean()))


def test_pixels_stored_by_columns(tmp_path):
    pixels, labels = cifar_batches()["test_batch"]
    write_python(tmp_path, dict.fromkeys(NAMES, (np.asfortranarray(pixels), labels)))
    assert np.array_equal(load(str(tmp_path)).test_images, pixels.reshape(-1, 3, 32, 32))


def test_the_python_files_are_like_the_official_ones(tmp_path):
    """What these tests write opens as the official files do, and holds no Python 3 text."""
    raw = pickled_as_python2({b"data": np.zeros((1, 3072), "uint8")})
    assert raw.startswith(b"\x80\x02")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in raw
    assert not [code for code, _, _ in pickletools.genops(raw) if "UNICODE" in code.name]


def refused(folder: Path, mentions: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(str(folder))
    message = str(caught.value)
    assert str(mentions) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("write", [write_binary, write_python])
@pytest.mark.parametrize("name", ["data_batch_3", "test_batch"])
def test_missing_and_truncated_files(write, name, tmp_path):
    folder = write(tmp_path, cifar_batches())
    file = next(folder.glob(f"{name}*"))
    whole = file.read_bytes()
    for length in (0, 1, 3072, len(whole) // 2 + 1, len(whole) - 1):
        file.write_bytes(whole[:length])
        refused(folder, file)
    file.unlink()
    assert "missing" in refused(folder, file)
    file.mkdir()
    refused(folder, file)


@pytest.mark.parametrize("write", [write_binary, write_python])
def test_bad_labels(write, tmp_path):
    batches = cifar_batches()
    batches["data_batch_2"][1][2] = 10
    folder = write(tmp_path, batches)
    assert "10" in refused(folder, next(folder.glob("data_batch_2*")))


def test_places_without_images(tmp_path):
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path / "nowhere")
    refused(tmp_path, tmp_path)
    file = tmp_path / "file.bin"
    file.write_bytes(b"")
    assert "not a folder" in refused(file, file)
    (tmp_path / BINARY).mkdir()
    refused(tmp_path, tmp_path)


PIXELS, LABELS = np.zeros((2, 3072), "uint8"), [0, 1]


@pytest.mark.parametrize(
    "batch",
    [
        {b"data": PIXELS, b"labels": [0]},
        {b"data": PIXELS, b"labels": [0, -1]},
        {b"data": PIXELS, b"labels": 3},
        {b"data": PIXELS, b"labels": [[0], [1]]},
        {b"data": PIXELS, b"labels": [0.5, 1]},
        {b"data": PIXELS, b"labels": [b"cat", b"dog"]},
        {b"data": PIXELS, b"labels": [10**30, 1]},
        {b"data": PIXELS, b"fine_labels": LABELS},
        {b"data": PIXELS[:, :3071], b"labels": LABELS},
        {b"data": PIXELS.reshape(2, 3, 32, 32), b"labels": LABELS},
        {b"data": PIXELS.astype("int64"), b"labels": LABELS},
        {b"data": PIXELS.tobytes(), b"labels": LABELS},
        {b"data": [[0] * 3072] * 2, b"labels": LABELS},
        {b"data": PIXELS[:0], b"labels": []},
        {b"labels": LABELS},
        {},
        [PIXELS, LABELS],
        None,
        7,
    ],
    ids=lambda batch: None if isinstance(batch, dict) else repr(type(batch)),
)
def test_python_files_with_other_things_in_them(batch, tmp_path):
    folder = write_python(tmp_path, cifar_batches())
    (folder / "data_batch_4").write_bytes(pickled_as_python2(batch))
    refused(folder, folder / "data_batch_4")


# -- hostile files ----------------------------------------------------------------
class Calls:
    """Unpickled carelessly, this calls function(*arguments)."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def text(content: str) -> bytes:
    return pickle.BINSTRING + struct.pack("<i", len(content)) + content.encode()


def call(name: str, *arguments: bytes) -> bytes:
    """A pickle of {"data": module.name(arguments)}, where the name need not exist here."""
    module, _, attribute = name.rpartition(".")
    return b"\x80\x02}" + text("data") + f"c{module}\n{attribute}\n(".encode() + b"".join(arguments) + b"tRs."


def hostile(mark: str) -> dict[str, bytes]:
    """Pickles that would leave a file `mark` behind, or do other harm."""
    shell, python = f"touch {mark}", f"open({mark!r}, 'w')"
    objects = np.array([Calls(os.system, shell), None], object)
    return {
        "os.system": pickle.dumps(Calls(os.system, shell), 2),
        "posix.system": call("posix.system", text(shell)),
        "subprocess": call("subprocess.getoutput", text(shell)),
        "eval": call("builtins.eval", text(python)),
        "eval of Python 2": call("__builtin__.eval", text(python)),
        "exec, protocol 4": pickle.dumps({b"data": Calls(exec, python), b"labels": [1]}, 4),
        "open": call("io.open", text(mark), text("w")),
        "partial": pickle.dumps({b"data": functools.partial(os.system, shell)}, 2),
        "called partial": pickle.dumps(Calls(functools.partial(os.system, shell)), 2),
        "in an array of objects": pickle.dumps({b"data": objects, b"labels": [1, 2]}, 2),
        "in a list": pickle.dumps({b"data": PIXELS, b"labels": [Calls(os.system, shell), 1]}, 2),
        "beside a good one": pickle.dumps({b"data": PIXELS, b"labels": LABELS, b"x": Calls(eval, python)}, 2),
        "numpy.load": call("numpy.load", text(mark)),
        "by way of numpy": call("numpy.f2py.os.system", text(shell)),
        "dotted, protocol 4": b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.",
        "numpy.testing": call("numpy.testing._private.utils.runstring", text(python), b"}"),
        "codecs": call("_codecs.decode", text(shell), text("rot13")),
        "getattr": call("builtins.getattr", text(shell), text("upper")),
        "import": call("importlib.import_module", text("this")),
    }


@pytest.mark.parametrize("name", hostile("x"))
def test_hostile_pickles_execute_nothing(name, tmp_path, monkeypatch):
    mark = tmp_path / "executed"
    folder = write_python(tmp_path / "data", cifar_batches())
    (folder / "data_batch_2").write_bytes(hostile(str(mark))[name])
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("executed"))
    before = set(sys.modules)
    refused(folder, folder / "data_batch_2")
    assert not mark.exists()
    assert "this" not in set(sys.modules) - before


def false_pointers() -> bytes:
    """An array over raw bytes whose type says that they are pointers to objects, without owning up to it."""
    fields = b"}" + text("a") + b"cnumpy\ndtype\n" + text("O") + b"\x85RK\x00\x86s"
    state = b"(K\x03" + text("|") + b"N" + text("a") + b"\x85" + fields + b"K\x08K\x01K\x00t"
    kind = b"cnumpy\ndtype\n" + text("V8") + b"\x89\x88\x87R" + state + b"b"
    array = b"cnumpy\nndarray\n(K\x01\x85" + kind + text("AAAAAAAA") + b"tR"
    return b"\x80\x02}(" + text("data") + array + text("labels") + array + b"u."


HARMFUL = {
    "false pointers": false_pointers(),
    "terabytes": call("numpy.ndarray", b"\x8a\x06" + (10**13).to_bytes(6, "little") + b"\x85", text("u1")),
    "another int64": call("numpy.dtype", text("i8"), b"\x89\x89")[:-2]
    + (b"(K\x03" + text(">") + b"NNN" + 2 * b"J\xff\xff\xff\xff" + b"K\x00tbs."),
    "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_crafted_arrays_do_not_crash_python(name, tmp_path):
    folder = write_python(tmp_path, cifar_batches())
    (folder / "data_batch_1").write_bytes(HARMFUL[name])
    code = (
        "import sys, numpy\nfrom minitorch_alex.data import load\n"
        "try: load(sys.argv[1])\n"
        "except Exception as error: print(type(error).__name__, numpy.dtype('int64') == '<i8')"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "DataError True\n"), done.stderr


# -- the download -----------------------------------------------------------------
class Server(http.server.ThreadingHTTPServer):
    """Hands out `pages` ({path: bytes}) on 127.0.0.1 and remembers what was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages, self.asked = {}, []
        self.thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        content = self.server.pages.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    running = Server()
    yield running
    running.shutdown()
    running.server_close()
    running.thread.join()


def archive(members: dict[str, bytes | str]) -> bytes:
    """A .tar.gz: bytes make a file, a str makes a symbolic link to that."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


def cifar_members(tmp_path: Path) -> dict[str, bytes | str]:
    folder = write_binary(tmp_path / "original", cifar_batches(2))
    return {f"{BINARY}/{file.name}": file.read_bytes() for file in sorted(folder.iterdir())}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_below(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())


def test_download_from_the_first_good_mirror(server, tmp_path):
    content = archive(cifar_members(tmp_path))
    server.pages = {"/wrong": b"not what was asked for" * 100, "/right": content, "/never": content}
    mirrors = [server.url(path) for path in ("/gone", "/wrong", "/right", "/never")]
    cache = tmp_path / "cache"
    assert find_or_download(cache, mirrors, sha256(content)) == cache
    assert server.asked == ["/gone", "/wrong", "/right"]
    d = cifar10.load(cache)
    assert np.array_equal(d.train_images, load(str(tmp_path / "original")).train_images)
    assert not list(cache.glob("*.partial"))

    assert find_or_download(cache, mirrors, sha256(content)) == cache
    assert find_or_download(cache, ["http://127.0.0.1:1/"], "") == cache
    assert len(server.asked) == 3, "what is there is not downloaded again"


def test_no_mirror_helps_and_later_one_does(server, tmp_path):
    content = archive(cifar_members(tmp_path))
    server.pages = {"/wrong": b"not what was asked for" * 100}
    mirrors = [server.url("/gone"), server.url("/wrong"), "http://127.0.0.1:1/refused"]
    cache = tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            find_or_download(cache, mirrors, sha256(content))
        for mirror in mirrors:
            assert mirror in str(caught.value)
        assert "--data" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not files_below(cache)
    server.pages["/wrong"] = content
    assert cifar10.load(find_or_download(cache, mirrors, sha256(content))).name == "cifar10"


def test_shared_folder_spares_the_download(server, tmp_path, monkeypatch):
    write_binary(tmp_path / "shared" / BINARY, cifar_batches(1))
    monkeypatch.setenv("MINITORCH_ALEX_DATA", str(tmp_path / "shared"))
    assert find_or_download(None, [server.url("/right")]) == tmp_path / "shared"
    assert server.asked == []


def test_interrupted_unpacking(server, tmp_path, monkeypatch):
    content = archive(cifar_members(tmp_path))
    server.pages = {"/right": content}
    cache = tmp_path / "cache"
    written = Path.write_bytes

    def killed_in_the_third_file(path, data):
        if path.name == "data_batch_3.bin":
            written(path, data[:100])
            raise KeyboardInterrupt
        return written(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed_in_the_third_file)
        with pytest.raises(KeyboardInterrupt):
            find_or_download(cache, [server.url("/right")], sha256(content))
    assert not (cache / BINARY).exists(), "a folder of that name means that all of it is there"
    assert [path.name for path in cache.iterdir()] == [cifar10.ARCHIVE], "and nothing else is left lying about"
    assert len(cifar10.load(find_or_download(cache, [server.url("/right")], sha256(content))).train_images) == 10
    assert server.asked == ["/right"], "the archive was whole"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../secret", "data_batch_2.bin/../../../x", f"{BINARY}"])
def test_links_in_the_archive_lead_nowhere(target, server, tmp_path):
    content = archive({**cifar_members(tmp_path), f"{BINARY}/data_batch_1.bin": target})
    server.pages = {"/right": content}
    cache = tmp_path / "cache"
    with pytest.raises(DataError):
        find_or_download(cache, [server.url("/right")], sha256(content))
    assert not (cache / BINARY).exists()


@pytest.mark.parametrize("lacking", ["data_batch_5.bin", "test_batch.bin"])
def test_archive_without_a_file(lacking, server, tmp_path):
    members = cifar_members(tmp_path)
    del members[f"{BINARY}/{lacking}"]
    content = archive(members)
    server.pages = {"/right": content}
    with pytest.raises(DataError):
        find_or_download(tmp_path / "cache", [server.url("/right")], sha256(content))
    assert not (tmp_path / "cache" / BINARY).exists()


def test_archive_writes_nothing_outside(tmp_path):
    bad = {
        "../outside": b"x", f"{BINARY}/../../outside": b"x", str(tmp_path / "outside"): b"x", f"{BINARY}/extra": b"x",
        f"{BINARY}.partial/extra": b"x", f"{BINARY}/readme.html": str(tmp_path / "outside"),
    }  # fmt: skip
    members = cifar_members(tmp_path)
    (tmp_path / "a.tar.gz").write_bytes(archive({**bad, **members, **bad}))
    unpack(tmp_path / "a.tar.gz", tmp_path / "cache")
    assert files_below(tmp_path / "cache") == sorted(members)
    assert {path.name for path in tmp_path.iterdir()} == {"a.tar.gz", "cache", "original"}


def test_real_images(extra_data, tmp_path):
    script = extra_data / "cifar10_bin.py"
    if not script.is_file():
        pytest.skip(f"{script} is not there")
    subprocess.run([sys.executable, script, tmp_path, "--per-class", "20"], check=True, capture_output=True)
    d = load(str(tmp_path))
    assert d.train_images.shape == d.test_images.shape == (200, 3, 32, 32)
    assert np.bincount(d.train_labels).tolist() == np.bincount(d.test_labels).tolist() == [20] * 10
    # neighbouring pixels of photographs are alike; in the wrong order of axes they are not
    for axis in (2, 3):
        assert np.abs(np.diff(d.train_images.astype(float), axis=axis)).mean() < 20
    assert np.corrcoef(d.train_images[:, 0].ravel(), d.train_images[:, 1].ravel())[0, 1] > 0.8
    assert np.allclose(Preprocessing.of(d.train_images).mean[:, 0, 0], [125, 123, 114], atol=8)


# -- augmentation -------------------------------------------------------------------
def slowly(augmentation: Augmentation, images: np.ndarray, seed: int, epoch: int, indices: np.ndarray) -> np.ndarray:
    """What Augmentation means, one pixel after another."""
    N, C, H, W = images.shape
    out = np.full_like(images, augmentation.fill)
    down, right, mirrored = augmentation.draw(seed, epoch, indices)
    for n, c, h, w in itertools.product(range(N), range(C), range(H), range(W)):
        to_h, to_w = h + down[n], w + right[n]
        if mirrored[n]:
            to_w = W - 1 - to_w
        if 0 <= to_h < H and 0 <= to_w < W:
            out[n, c, to_h, to_w] = images[n, c, h, w]
    return out


@pytest.mark.parametrize(("shift", "flip"), [(0, False), (1, False), (0, True), (2, True), (9, True)])
@pytest.mark.parametrize("shape", [(30, 3, 6, 5), (30, 1, 1, 8)])
def test_augmentation_against_loops(shift, flip, shape):
    images = np.random.default_rng(1).integers(0, 256, shape, "uint8")
    augmentation = Augmentation(shift, flip, fill=77)
    indices = np.arange(100, 130)
    out = augmentation(images, 3, 5, indices)
    assert out.dtype == "uint8"
    assert out.shape == shape
    assert np.array_equal(out, slowly(augmentation, images, 3, 5, indices))


def test_augmentation_is_a_function_of_seed_epoch_and_index():
    images = np.random.default_rng(2).integers(0, 256, (200, 1, 8, 8), "uint8")
    augmentation, indices = Augmentation(2, flip=True), np.arange(200)
    whole = augmentation(images, 0, 1, indices)
    order = np.random.default_rng(3).permutation(200)
    assert np.array_equal(augmentation(images[order], 0, 1, order), whole[order]), "the order changes nothing"
    for part in (slice(0, 1), slice(17, 40)):
        assert np.array_equal(augmentation(images[part], 0, 1, indices[part]), whole[part]), "nor does the company"
    np.random.seed(0)
    assert np.array_equal(augmentation(images, 0, 1, indices), whole), "nor does NumPy's own state"
    draws = {
        (seed, epoch): tuple(np.stack(augmentation.draw(seed, epoch, indices)).ravel())
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    assert len(set(draws.values())) == 6, "each seed and each epoch has its own"


@pytest.mark.parametrize("shift", [1, 4])
def test_offsets_are_even(shift):
    down, right, mirrored = Augmentation(shift, flip=True).draw(0, 0, np.arange(40_000))
    places = (2 * shift + 1) ** 2 * 2
    counts = collections.Counter(zip(down.tolist(), right.tolist(), mirrored.tolist(), strict=True))
    assert set(down) == set(right) == set(range(-shift, shift + 1))
    assert len(counts) == places
    expected = 40_000 / places
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    assert abs(chi_square - (places - 1)) < 5 * (2 * places) ** 0.5, "all combinations are equally likely"
    assert not Augmentation(shift).draw(0, 0, np.arange(500))[2].any()


def test_offsets_of_neighbouring_epochs_and_images_are_unrelated():
    draws = np.stack([Augmentation(4).draw(0, epoch, np.arange(5000))[0] for epoch in range(4)]).astype(float)
    assert np.abs(np.corrcoef(draws) - np.eye(4)).max() < 0.06
    assert abs(np.corrcoef(draws[0, 1:], draws[0, :-1])[0, 1]) < 0.06


# -- preprocessing ------------------------------------------------------------------
def test_preprocessing_statistics():
    images = np.random.default_rng(4).integers(0, 200, (300, 3, 7, 5), "uint8")
    images[:, 1] //= 3
    images[:, 2] = 9
    p = Preprocessing.of(images)
    assert np.allclose(p.mean[:, 0, 0], images.mean((0, 2, 3)), atol=1e-4)
    assert np.allclose(p.std[:2, 0, 0], images.std((0, 2, 3))[:2], atol=1e-4)
    assert p.std[2] == 1, "a channel that never changes is left at its scale"
    out = p(images)
    assert out.dtype == "float32"
    assert np.allclose(out.mean((0, 2, 3)), 0, atol=1e-4)
    assert np.allclose(out.std((0, 2, 3)), [1, 1, 0], atol=1e-4)
    assert np.array_equal(Preprocessing(p.mean, p.std)(images), out)
    one = (images[0, 0, 0, 0] - p.mean[0, 0, 0]) / p.std[0, 0, 0]
    assert out[0, 0, 0, 0] == pytest.approx(one, rel=1e-5)


# -- the loader -----------------------------------------------------------------------
def make_loader(count=100, batch_size=16, workers=1, seed=0, augmentation=None, **more) -> Loader:
    images = np.random.default_rng(5).integers(0, 256, (count, 1, 4, 4), "uint8")
    augmentation = augmentation or Augmentation(shift=1, flip=True)
    return Loader(
        images, np.arange(count), batch_size, Preprocessing([9.0], [2.0]), augmentation, seed, workers, **more
    )


def same(batches, others) -> bool:
    pairs = list(itertools.zip_longest(batches, others))
    return all(a and b and np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("prefetch", [1, 5])
def test_threads_change_nothing(prefetch):
    one = list(make_loader(workers=1).epoch(3))
    for _ in range(3):
        assert same(make_loader(workers=8, prefetch=prefetch).epoch(3), one)


def test_a_batch_holds_what_it_says():
    loader = make_loader()
    order = loader.order(2)
    for number, (images, labels) in enumerate(loader.epoch(2)):
        expected = order[16 * number : 16 * (number + 1)]
        assert np.array_equal(labels, expected), "labels are the image numbers here"
        varied = slowly(loader.augmentation, loader.images[expected], 0, 2, expected)
        assert images.dtype == "float32"
        assert np.allclose(images, (varied - 9.0) / 2.0)


@pytest.mark.parametrize("start", [0, 1, 4, 6, 7, 8])
def test_start_gives_the_tail(start):
    everything = list(make_loader().epoch(1))
    assert len(everything) == len(make_loader()) == 7
    assert same(make_loader(workers=2).epoch(1, start=start), everything[start:])


@pytest.mark.parametrize(
    ("count", "batch_size", "sizes"), [(5, 2, [2, 2, 1]), (3, 10, [3]), (1, 1, [1]), (4, 2, [2, 2])]
)
def test_every_image_once_an_epoch(count, batch_size, sizes):
    loader = make_loader(count, batch_size, workers=3)
    for epoch in range(3):
        batches = [labels for _, labels in loader.epoch(epoch)]
        assert [len(labels) for labels in batches] == sizes
        assert sorted(np.concatenate(batches)) == list(range(count))
    assert len(loader) == len(sizes)


def test_epochs_and_seeds_differ_and_repeat():
    orders = {(seed, epoch): tuple(make_loader(seed=seed).order(epoch)) for seed in range(3) for epoch in range(4)}
    assert len(set(orders.values())) == 12
    assert all(order != tuple(range(100)) for order in orders.values())
    assert tuple(make_loader(seed=2).order(3)) == orders[2, 3]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.parametrize("how", ["closed", "forgotten", "interrupted"])
def test_abandoned_epochs_leave_no_threads(how):
    batches = make_loader(workers=8, batch_size=2).epoch(0)
    next(batches)
    assert loader_threads()
    if how == "closed":
        batches.close()
    elif how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            batches.throw(KeyboardInterrupt)
    del batches
    assert not loader_threads()


def test_few_batches_are_prepared_in_advance(monkeypatch):
    prepared = []
    whole = Loader.batch
    monkeypatch.setattr(Loader, "batch", lambda *arguments: prepared.append(1) or whole(*arguments))
    batches = make_loader(batch_size=2, workers=2, prefetch=2).epoch(0)
    next(batches)
    time.sleep(0.05)
    assert 1 <= len(prepared) <= 3, "a data set does not fit into memory twice"
    batches.close()


class Broken(Augmentation):
    def __call__(self, images, seed, epoch, indices):
        if 42 in indices:
            raise ZeroDivisionError("image 42")
        return images


def test_trouble_in_a_thread_reaches_the_caller():
    with pytest.raises(ZeroDivisionError, match="image 42"):
        list(make_loader(workers=4, augmentation=Broken()).epoch(0))
    assert not loader_threads()


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"workers": 0}, {"prefetch": 0}, {"batch_size": -3}])
def test_loader_refuses_nonsense(bad):
    with pytest.raises(ValueError, match="at least 1"):
        make_loader(**bad)
