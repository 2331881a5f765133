"""Photographs: every kind of file becomes the right pixels or is named, and folders are packed exactly once."""

import errno
import io
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minitorch_alex import pack, progress
from minitorch_alex.data import DataError, packed, photographs
from minitorch_alex.data.packed import open_packed, pack_folder
from minitorch_alex.data.photographs import UnreadableError, find_classes, find_photographs, read_photograph, to_rgb


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """Colours that change gently and differ everywhere, so that no turn or mirror image looks the same."""
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin((c + 2) * x / width + (3 - c) * y / height + seed) for c in range(3)], axis=2)
    return Image.fromarray((127.5 + 120 * waves).astype("uint8"))


def reference(image: Image.Image, side: int = 256) -> np.ndarray:
    """The textbook's way: scale until the shortest side fits, then cut out the middle."""
    scale = side / min(image.size)
    width, height = (round(scale * n) for n in image.size)
    image = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image)[top : top + side, left : left + side].transpose(2, 0, 1)


def assert_near(a, b, mean=0.6, most=4):
    difference = np.abs(a.astype(int) - b.astype(int))
    assert a.shape == b.shape
    assert difference.mean() <= mean
    assert difference.max() <= most


# -- from a file to pixels --------------------------------------------------------
@pytest.mark.parametrize("size", [(300, 300), (640, 480), (375, 500), (64, 48), (256, 256), (3, 2), (1, 1)])
def test_rgb_against_scaling_and_cropping(size, tmp_path):
    picture(*size).save(tmp_path / "a.png")
    ours = read_photograph(tmp_path / "a.png")
    assert ours.shape == (3, 256, 256)
    assert ours.dtype == "uint8"
    assert_near(ours, reference(picture(*size)))


def test_256_pixels_are_left_as_they_are(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (256, 300, 3), "uint8")
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert np.array_equal(read_photograph(tmp_path / "a.png"), noise[:, 22:278].transpose(2, 0, 1))


def test_another_side(tmp_path):
    picture(90, 60).save(tmp_path / "a.png")
    assert_near(read_photograph(str(tmp_path / "a.png"), side=32), reference(picture(90, 60), 32))


def test_large_jpegs_lose_nothing_by_being_read_small(tmp_path, monkeypatch):
    image = picture(2400, 1801)
    image.save(tmp_path / "a.jpg", quality=95)
    assert_near(read_photograph(tmp_path / "a.jpg"), reference(image), mean=1.5, most=8)
    sizes = []
    monkeypatch.setattr(photographs, "to_rgb", lambda image: sizes.append(image.size) or to_rgb(image))
    read_photograph(tmp_path / "a.jpg")
    assert sizes == [(1200, 901)], "half of it, and never below twice what is needed"


@pytest.mark.parametrize("size", [(1, 9000), (1600, 40), (9000, 1)])
def test_extreme_shapes_take_the_middle_and_little_memory(size, tmp_path):
    image = Image.new("RGB", size, "blue")
    middle = [n // 2 - min(size) // 2 - 1 for n in size]
    image.paste((200, 30, 10), (*middle, middle[0] + min(size) + 3, middle[1] + min(size) + 3))
    image.save(tmp_path / "a.png")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (read_photograph(tmp_path / "a.png") == np.array([200, 30, 10]).reshape(3, 1, 1)).all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


SIXTEEN = (np.arange(300 * 280).reshape(280, 300) % 65536).astype("uint16")
SIXTEEN.sort()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "gif"])
def test_simple_modes(mode, suffix, tmp_path):
    image = picture(300, 256).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    with Image.open(tmp_path / f"a.{suffix}") as saved:
        expected = reference(saved.convert("RGB"))
    assert np.array_equal(read_photograph(tmp_path / f"a.{suffix}"), expected)
    if (suffix, mode) != ("gif", "RGB"):  # GIF has no more than 256 colours
        assert np.array_equal(expected, reference(image))


@pytest.mark.parametrize("largest", [65535, 255, 20])
@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_sixteen_bits_keep_their_scale(largest, suffix, tmp_path):
    """A dark picture of 16 bits stays dark, though all of its values would fit into 8."""
    values = np.minimum(SIXTEEN[:256, :256], largest)
    if suffix == "pgm":
        (tmp_path / "a.pgm").write_bytes(b"P5 256 256 65535\n" + values.astype(">u2").tobytes())
    else:
        Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    ours = read_photograph(tmp_path / f"a.{suffix}")
    assert np.array_equal(ours, np.broadcast_to(np.round(values / 257), (3, 256, 256)))


@pytest.mark.parametrize("values", [np.float32([[0.5]]), np.int32([[-1]]), np.int32([[65536]])])
def test_no_guess_where_the_scale_is_unknown(values, tmp_path):
    Image.fromarray(values).save(tmp_path / "a.tif")
    with pytest.raises(UnreadableError, match="scale"):
        read_photograph(tmp_path / "a.tif")


def test_alpha_over_white(tmp_path):
    rgba = np.asarray(picture(256, 256).convert("RGBA")).copy()
    rgba[..., 3] = np.arange(256)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    share = rgba[..., 3:] / 255
    expected = rgba[..., :3] * share + 255 * (1 - share)
    assert_near(read_photograph(tmp_path / "a.png"), expected.round().transpose(2, 0, 1), most=1)
    Image.fromarray(rgba).convert("LA").save(tmp_path / "grey.png")
    grey = np.asarray(Image.fromarray(rgba).convert("L"))
    expected = grey * share[..., 0] + 255 * (1 - share[..., 0])
    assert_near(read_photograph(tmp_path / "grey.png"), np.stack([expected.round()] * 3), most=1)


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_a_transparent_colour_of_a_palette(suffix, tmp_path):
    image = Image.new("P", (256, 256), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(0, (0, 0, 128, 256))
    image.save(tmp_path / f"a.{suffix}", transparency=0)
    ours = read_photograph(tmp_path / f"a.{suffix}")
    assert (ours[:, :, :128] == 255).all()
    assert (ours[:, :, 128:] == np.array([0, 0, 255]).reshape(3, 1, 1)).all()


def test_a_transparent_colour_of_rgb(tmp_path):
    image = Image.new("RGB", (256, 256), (1, 2, 3))
    image.paste((9, 9, 9), (0, 0, 256, 100))
    image.save(tmp_path / "a.png", transparency=(1, 2, 3))
    ours = read_photograph(tmp_path / "a.png")
    assert (ours[:, 100:] == 255).all()
    assert (ours[:, :100] == 9).all()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(suffix, tmp_path):
    image = picture(300, 300)
    image.convert("CMYK").save(tmp_path / f"a.{suffix}")
    assert_near(read_photograph(tmp_path / f"a.{suffix}"), reference(image), mean=3, most=20)


def test_other_ways_of_storing(tmp_path):
    image = picture(300, 300)
    image.save(tmp_path / "a.webp", lossless=True)
    image.save(tmp_path / "a.ppm")
    image.save(tmp_path / "png.jpg", format="PNG")  # ImageNet has one
    image.convert("LAB").save(tmp_path / "lab.tif")
    image.save(tmp_path / "two.gif", save_all=True, append_images=[Image.new("RGB", image.size)])
    for name, most in (("a.webp", 4), ("a.ppm", 4), ("png.jpg", 4), ("lab.tif", 60), ("two.gif", 90)):
        assert_near(read_photograph(tmp_path / name), reference(image), mean=most / 4, most=most)


TURNED = {
    1: lambda a: a,
    2: lambda a: a[:, :, ::-1],
    3: lambda a: a[:, ::-1, ::-1],
    4: lambda a: a[:, ::-1],
    5: lambda a: a.transpose(0, 2, 1),
    6: lambda a: np.rot90(a, -1, (1, 2)),
    7: lambda a: a.transpose(0, 2, 1)[:, ::-1, ::-1],
    8: lambda a: np.rot90(a, 1, (1, 2)),
    9: lambda a: a,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation(orientation, suffix, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(400, 300).save(tmp_path / f"plain.{suffix}")
    picture(400, 300).save(tmp_path / f"a.{suffix}", exif=exif)
    expected = TURNED[orientation](read_photograph(tmp_path / f"plain.{suffix}"))
    assert_near(read_photograph(tmp_path / f"a.{suffix}"), expected, most=1)


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II",
        b"II*\0\xff\xff\xff\xff",
        b"MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\0\x02\0\0\xff\xff" * 9,
        b"MM\0*\0\0\0\x08\0\1\x01\x12\0\x02\0\0\0\x03no\0\0\0\0\0\0",
        b"nonsense",
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_does_not_cost_the_picture(exif, tmp_path):
    picture(300, 300).save(tmp_path / "a.jpg", exif=b"Exif\0\0" + exif)
    assert_near(read_photograph(tmp_path / "a.jpg"), reference(picture(300, 300)), mean=3, most=20)


def claim(width: int, height: int) -> bytes:
    """A small PNG file that says it is large."""
    file = io.BytesIO()
    Image.new("RGB", (1, 1)).save(file, "PNG")
    data = file.getvalue()
    head = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def jpeg(width=40, height=30, seed=0) -> bytes:
    file = io.BytesIO()
    picture(width, height, seed).save(file, "JPEG")
    return file.getvalue()


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
BAD = {
    "empty.jpg": (b"", "empty"),
    "text.jpg": (b"this is a text\n", "no picture"),
    "zeros.png": (bytes(1000), "no picture"),
    "truncated.jpg": (jpeg(400, 300)[:-2000], "truncated"),
    "header only.jpg": (jpeg()[:30], ""),
    "truncated.png": (claim(50, 50), ""),
    "bomb.png": (claim(30_000, 30_000), "bomb"),
    "half a bomb.png": (claim(11_000, 10_000), "11,000 x 10,000 pixels are too many"),
    "program.jpg": (EPS, "no picture"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore")
def test_bad_files_say_why(name, tmp_path):
    data, reason = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UnreadableError, match=reason) as caught:
        read_photograph(tmp_path / name)
    assert str(caught.value).isprintable()
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
def test_damage_anywhere_is_no_crash(tmp_path):
    """Whatever the damage, there is a picture or the one kind of exception."""
    random = np.random.default_rng(0)
    for suffix in ("jpg", "png", "tif", "gif", "webp", "bmp", "ppm"):
        picture(30, 20).save(tmp_path / f"a.{suffix}")
        whole = np.frombuffer((tmp_path / f"a.{suffix}").read_bytes(), "uint8")
        for _ in range(25):
            damaged = whole.copy()
            damaged[random.integers(0, min(len(whole), 300), 4)] = random.integers(0, 256, 4)
            (tmp_path / "b.jpg").write_bytes(damaged[: random.integers(1, 2 * len(whole))].tobytes())
            try:
                outcome = read_photograph(tmp_path / "b.jpg", 16)
            except UnreadableError as error:
                outcome = error
            assert str(outcome)


def test_places_that_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    for name, reason in {
        "pipe.jpg": "no regular file",
        "folder.jpg": "no regular file",
        "loop.jpg": "symbolic links",
        "absent.jpg": "No such file",
    }.items():
        with pytest.raises(UnreadableError, match=reason):
            read_photograph(tmp_path / name)


def test_what_may_not_be_read(tmp_path):
    folder(tmp_path / "src", {"a/1.jpg": jpeg(), "a/2.jpg": jpeg(), "a/shut/3.jpg": jpeg()})
    (tmp_path / "src/a/1.jpg").chmod(0)
    if os.access(tmp_path / "src/a/1.jpg", os.R_OK):
        pytest.skip("root may read everything")
    (tmp_path / "src/a/shut").chmod(0)
    assert pack_quietly(tmp_path / "src", tmp_path / "out") == (1, 2)
    assert lines(tmp_path / "out/unreadable.txt") == [
        "a/1.jpg: Permission denied",
        "a/shut: this is no regular file, or a folder that cannot be listed",
    ]
    (tmp_path / "src/a/shut").chmod(0o700)


# -- which files there are --------------------------------------------------------
def folder(root: Path, files: dict[str, bytes]) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_which_files_count(tmp_path):
    names = "b/10.jpeg b/1.Png b/deep/er/x.jpg b/deep/a.jpg b/z.webp a/x.tiff a/x.jpg.txt a/README a/.hidden.jpg"
    names += " a/.thumbnails/x.jpg .git/x.jpg top.jpg c/a\nb.jpg c/.jpg d/notes.txt b/2.JPG b/farther/x.jpg"
    folder(tmp_path, dict.fromkeys(names.split(" "), b""))
    strange = os.fsdecode(b"c/\xff\xfe.jpg")
    folder(tmp_path, {strange: b""})
    (tmp_path / "empty").mkdir()
    (tmp_path / "b/folder.jpg").mkdir()
    (tmp_path / "b/around").symlink_to(tmp_path / "b")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "b/loop.jpg").symlink_to("loop.jpg")
    classes = find_classes(tmp_path)
    assert classes == ["a", "b", "c", "d", "empty"]
    assert list(find_photographs(tmp_path, classes)) == [
        "a/x.tiff",
        *(
            "b/1.Png",
            "b/10.jpeg",
            "b/2.JPG",
            "b/loop.jpg",
            "b/z.webp",
            "b/deep/a.jpg",
            "b/deep/er/x.jpg",
            "b/farther/x.jpg",
        ),
        *("c/a\nb.jpg", strange),
    ]


def test_a_class_may_be_a_link(tmp_path, monkeypatch):
    folder(tmp_path / "elsewhere", {"x.jpg": b""})
    folder(tmp_path / "src/a", {"y.jpg": b""})
    (tmp_path / "src/b").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "src")
    assert list(find_photographs(Path("."), find_classes(Path(".")))) == ["a/y.jpg", "b/x.jpg"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    folder(tmp_path, {"a/1.jpg": b"", "a/shut/2.jpg": b""})
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(photographs.os, "scandir", refuse)
    assert list(find_photographs(tmp_path, ["a"])) == ["a/1.jpg", "a/shut"]


# -- packing ----------------------------------------------------------------------
def nothing(*_):
    """Tell nobody."""


def pack_quietly(source, out, workers=2, tell=nothing, strict=False):
    return pack_folder(source, out, workers, tell, strict)


def lines(file: Path) -> list[str]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


WHOLE = {"images.u8", "labels.npy", "mean.npy", "pack.json", "files.txt", "unreadable.txt"}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """21 files in four classes, one of them without any; three cannot be read."""
    files = {f"{'acd'[i % 3]}/{i:02}.jpg": jpeg(30 + 3 * i, 40 + i % 5, i) for i in range(18)}
    files |= {"a/03a.jpg": b"", "c/nö\n.jpg": b"text", "d/zz.png": claim(9, 9)}
    root = folder(tmp_path_factory.mktemp("photographs") / "src", files)
    (root / "b").mkdir()
    return root


@pytest.fixture(scope="module")
def whole(source, tmp_path_factory):
    """What packing it without interruption gives."""
    out = tmp_path_factory.mktemp("packed") / "out"
    assert pack_quietly(source, out) == (18, 3)
    return out


def test_order_and_labels(source, whole):
    opened = open_packed(whole)
    names = sorted(f"{'acd'[i % 3]}/{i:02}.jpg" for i in range(18))
    assert lines(whole / "files.txt") == names
    assert opened.classes == ["a", "b", "c", "d"]
    assert opened.labels.tolist() == ["abcd".index(name[0]) for name in names]
    assert isinstance(opened.images, np.memmap)
    assert not opened.images.flags.writeable
    assert opened.images.shape == (18, 3, 256, 256)
    for image, name in zip(opened.images, names, strict=True):
        assert np.array_equal(image, read_photograph(source / name))
    assert set(contents(whole)) == WHOLE


def test_what_is_left_out_is_named(whole):
    left_out = [line.split(": ", 1) for line in lines(whole / "unreadable.txt")]
    assert [name for name, _ in left_out] == ["a/03a.jpg", "c/nö\n.jpg", "d/zz.png"]
    assert all(reason for _, reason in left_out)


def test_mean_and_covariance_are_numpys(whole):
    opened = open_packed(whole)
    exact = opened.images.astype("float64")
    assert np.array_equal(opened.statistics.mean, exact.mean(axis=0).astype("float32"))
    pixels = exact.transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(opened.statistics.covariance, np.cov(pixels, bias=True), rtol=1e-10)
    assert opened.statistics.covariance.dtype == "float64"


def test_covariance_is_exact_for_white_and_black(tmp_path):
    for name, colour in (("1", "white"), ("2", "black")):
        (tmp_path / "src/a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (256, 256), colour).save(tmp_path / f"src/a/{name}.png")
    pack_quietly(tmp_path / "src", tmp_path / "out")
    assert (open_packed(tmp_path / "out").statistics.covariance == 127.5**2).all()
    assert (open_packed(tmp_path / "out").statistics.mean == 127.5).all()


@pytest.mark.parametrize("workers", [1, 4, 16])
def test_the_number_of_threads_changes_nothing(workers, source, whole, tmp_path):
    pack_quietly(source, tmp_path / "out", workers)
    assert contents(tmp_path / "out") == contents(whole)


def test_threads_work_in_parallel_and_not_far_ahead(source, tmp_path, monkeypatch):
    begun, told, farthest = 0, 0, 0
    together = threading.Barrier(3, timeout=10)  # nobody passes before three have come

    def watch(path):
        nonlocal begun
        begun += 1
        together.wait()
        return np.zeros((3, 256, 256), "uint8")

    def tell(*_):
        nonlocal told, farthest
        told += 1
        farthest = max(farthest, begun - told)

    monkeypatch.setattr(photographs, "read_photograph", watch)
    pack_quietly(source, tmp_path / "out", workers=3, tell=tell)
    assert farthest <= 6
    assert begun == told == 21


def test_tell_hears_of_every_file(source, tmp_path):
    heard = []
    pack_quietly(source, tmp_path / "out", tell=lambda *told: heard.append(told))
    assert [h[:2] for h in heard] == [(i + 1, 21) for i in range(21)]
    assert [h[2] for h in heard if h[2]] == lines(tmp_path / "out/unreadable.txt")


class Stop(Exception):  # noqa: N818
    """What `tell` raises to interrupt."""


@pytest.mark.parametrize("chunk", [4, 256])
def test_interrupted_and_resumed(chunk, source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", chunk)
    for moment in (1, 4, 5, 8, 13, 20, 21) if chunk < 256 else (7, 21):
        begun_again = []

        def tell(looked_at, of, left_out, moment=moment, heard=begun_again):
            heard.append(looked_at)
            if looked_at == moment:
                raise Stop

        out = tmp_path / f"{moment}"
        with pytest.raises(Stop):
            pack_quietly(source, out, tell=tell)
        with pytest.raises(DataError, match=r"pack\.json"):
            open_packed(out)
        begun_again.clear()
        assert pack_quietly(source, out, tell=lambda i, *_, heard=begun_again: heard.append(i)) == (18, 3)
        recorded = 21 if moment == 21 else moment // chunk * chunk
        assert begun_again == list(range(recorded + 1, 22)), "it goes on after the last record"
        assert contents(out) == contents(whole)


def test_interrupted_again_and_again(source, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 3)
    calls = 0

    def tell(*_):
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise Stop

    for _ in range(20):
        try:
            pack_quietly(source, tmp_path / "out", tell=tell)
            break
        except Stop:
            pass
    assert contents(tmp_path / "out") == contents(whole)


def python(code: str, *arguments, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **settings)


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from minitorch_alex.data import packed
    packed.CHUNK = 4
    left = int(sys.argv[4])
    def kill_before(function):
        def wrapper(*arguments, **settings):
            global left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **settings)
        return wrapper
    tell = lambda *_: None
    match sys.argv[3]:
        case "tell": tell = kill_before(tell)
        case "replace": os.replace = kill_before(os.replace)
        case "fsync": os.fsync = kill_before(os.fsync)
        case "save": packed.numpy.save = kill_before(packed.numpy.save)
        case "unlink": Path.unlink = kill_before(Path.unlink)
    packed.pack_folder(Path(sys.argv[1]), Path(sys.argv[2]), 2, tell)
"""


@pytest.mark.parametrize(
    ("where", "nth"), [("tell", 6), ("replace", 2), ("replace", 7), ("fsync", 7), ("save", 2), ("unlink", 1)]
)
def test_killed_and_resumed(where, nth, source, whole, tmp_path):
    out = tmp_path / "out"
    assert python(KILLED, source, out, where, nth).returncode == -signal.SIGKILL
    with pytest.raises(DataError, match=r"pack\.json"):
        open_packed(out)
    pack_quietly(source, out)
    assert contents(out) == contents(whole)


def test_killed_at_the_very_end_it_is_packed(source, whole, tmp_path):
    out = tmp_path / "out"
    assert python(KILLED, source, out, "unlink", 2).returncode == -signal.SIGKILL
    assert len(open_packed(out).images) == 18
    assert {name: data for name, data in contents(out).items() if name in WHOLE} == contents(whole)


def begun(source, out, monkeypatch, moment=9):
    monkeypatch.setattr(packed, "CHUNK", 4)

    def tell(looked_at, *_):
        if looked_at == moment:
            raise Stop

    with pytest.raises(Stop):
        pack_quietly(source, out, tell=tell)
    return out


@pytest.mark.parametrize("change", ["one more", "one less", "other name", "new class", "class gone"])
def test_other_files_than_before(change, source, tmp_path, monkeypatch):
    changed = shutil.copytree(source, tmp_path / "src")
    out = begun(changed, tmp_path / "out", monkeypatch)
    match change:
        case "one more":
            (changed / "d/zzz.jpg").write_bytes(jpeg())
        case "one less":
            (changed / "d/zz.png").unlink()
        case "other name":
            (changed / "d/zz.png").rename(changed / "d/zy.png")
        case "new class":  # without an image, but the labels of others change
            (changed / "aa").mkdir()
        case "class gone":
            (changed / "b").rmdir()
    with pytest.raises(DataError, match=f"{out}: begun with other files"):
        pack_quietly(changed, out)


@pytest.mark.parametrize("name", ["images.u8", "files.txt"])
def test_lost_bytes_are_noticed(name, source, tmp_path, monkeypatch):
    out = begun(source, tmp_path / "out", monkeypatch)
    os.truncate(out / name, 10)
    with pytest.raises(DataError, match=f"{out / name}: is shorter"):
        pack_quietly(source, out)


@pytest.mark.parametrize("data", [b"", b"PK\3\4nonsense", b"nonsense", "cut"])
def test_damaged_record_of_progress(data, source, tmp_path, monkeypatch):
    out = begun(source, tmp_path / "out", monkeypatch)
    record = out / "progress.npz"
    record.write_bytes(record.read_bytes()[:-1000] if data == "cut" else data)
    with pytest.raises(DataError, match=r"progress\.npz: is damaged"):
        pack_quietly(source, out)


def test_no_images(tmp_path):
    with pytest.raises(DataError, match=r"src: No such file"):
        pack_quietly(tmp_path / "src", tmp_path / "out")
    folder(tmp_path / "src", {"x.jpg": jpeg()})
    with pytest.raises(DataError, match="src: there are no images in folders of their classes"):
        pack_quietly(tmp_path / "src", tmp_path / "out")
    (tmp_path / "src/a").mkdir()
    with pytest.raises(DataError, match="src: there are no images in folders of their classes"):
        pack_quietly(tmp_path / "src", tmp_path / "out")


def test_not_one_can_be_read_and_another_try(tmp_path):
    folder(tmp_path / "src", {"a/1.jpg": b"", "a/2.jpg": b""})
    with pytest.raises(DataError, match=r"not one of 2 files can be read: a/1.jpg: the file is empty"):
        pack_quietly(tmp_path / "src", tmp_path / "out")
    folder(tmp_path / "src", {"a/2.jpg": jpeg()})
    assert pack_quietly(tmp_path / "src", tmp_path / "out") == (1, 1)


@pytest.mark.parametrize("out", ["src/out", "src", "src/a/b"])
def test_the_pack_is_no_part_of_its_source(out, tmp_path):
    folder(tmp_path / "src", {"a/1.jpg": jpeg()})
    (tmp_path / "link").symlink_to("src")
    with pytest.raises(DataError, match="lies inside the folder to be packed"):
        pack_quietly(tmp_path / "src", tmp_path / out.replace("src", "link"))
    with pytest.raises(DataError, match="lies inside the folder to be packed"):
        pack_quietly(tmp_path / "src", tmp_path / out)


def test_strict(source, tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"src/a/03a.jpg: the file is empty"):
        pack_quietly(source, tmp_path / "out", strict=True)
    out = begun(source, tmp_path / "other", monkeypatch)  # not strict, and one was left out
    with pytest.raises(DataError, match="left out before"):
        pack_quietly(source, out, strict=True)
    folder(tmp_path / "good", {"a/1.jpg": jpeg()})
    assert pack_quietly(tmp_path / "good", tmp_path / "fine", strict=True) == (1, 0)


def test_nested_folders_have_the_label_of_their_class(tmp_path):
    folder(tmp_path / "src", {"a/b/c/1.jpg": jpeg(), "b/2.jpg": jpeg(), "b/a/1.jpg": jpeg(), "c/a/b/1.jpg": jpeg()})
    pack_quietly(tmp_path / "src", tmp_path / "out")
    assert open_packed(tmp_path / "out").labels.tolist() == [0, 1, 1, 2]


# -- opening ----------------------------------------------------------------------
def edit_json(file, **changes):
    about = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(about))


DAMAGE = {
    "images cut": (lambda out: os.truncate(out / "images.u8", 1000), r"images\.u8: 18 images need 3,538,944 bytes"),
    "images longer": (lambda out: os.truncate(out / "images.u8", 10**7), r"images\.u8: 18 images need"),
    "no images": (lambda out: (out / "images.u8").unlink(), r"images\.u8: No such file"),
    "no labels": (lambda out: (out / "labels.npy").unlink(), r"labels\.npy: No such file"),
    "labels cut": (lambda out: os.truncate(out / "labels.npy", 150), "damaged"),
    "labels empty": (lambda out: os.truncate(out / "labels.npy", 0), "damaged"),
    "labels a zip": (lambda out: (out / "labels.npy").write_bytes(b"PK\3\4"), "damaged"),
    "labels fewer": (lambda out: np.save(out / "labels.npy", np.zeros(17, "int64")), "do not fit 18 images"),
    "labels of another type": (lambda out: np.save(out / "labels.npy", np.zeros(18)), "do not fit"),
    "labels pickled": (lambda out: np.save(out / "labels.npy", np.array([{}] * 18)), "damaged"),
    "label too large": (lambda out: np.save(out / "labels.npy", np.full(18, 4)), "none of the 4 classes"),
    "label negative": (lambda out: np.save(out / "labels.npy", np.full(18, -1)), "none of the 4 classes"),
    "mean of another shape": (lambda out: np.save(out / "mean.npy", np.zeros((3, 9, 9), "float32")), "do not fit"),
    "mean of another type": (lambda out: np.save(out / "mean.npy", np.zeros((3, 256, 256))), "do not fit"),
    "mean several": (
        lambda out: np.savez(out / "mean.npz", [1]) or (out / "mean.npz").replace(out / "mean.npy"),
        "dam",
    ),
    "another number": (lambda out: edit_json(out / "pack.json", images=17), "17 images need"),
    "no number": (lambda out: edit_json(out / "pack.json", images=None), "damaged"),
    "no covariance": (lambda out: edit_json(out / "pack.json", covariance=[1, 2, 3]), "do not fit"),
    "fewer classes": (lambda out: edit_json(out / "pack.json", classes=["a"]), "none of the 1 classes"),
    "no classes": (lambda out: edit_json(out / "pack.json", classes=None), "damaged"),
    "no JSON": (lambda out: (out / "pack.json").write_text("{"), "damaged"),
    "a list": (lambda out: (out / "pack.json").write_text("[]"), "damaged"),
    "no text": (lambda out: (out / "pack.json").write_bytes(b"\xff\xfe"), "damaged"),
    "never finished": (lambda out: (out / "pack.json").unlink(), r"pack\.json: No such file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_open_packed_refuses(name, whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    damage, reason = DAMAGE[name]
    damage(out)
    with pytest.raises(DataError, match=reason) as caught:
        open_packed(out)
    assert str(caught.value).startswith(str(out))
    assert "\n" not in str(caught.value)


def test_a_pack_without_images_is_refused(whole, tmp_path):
    out = shutil.copytree(whole, tmp_path / "out")
    edit_json(out / "pack.json", images=0)
    os.truncate(out / "images.u8", 0)
    with pytest.raises(DataError, match="damaged"):
        open_packed(out)


# -- the command ------------------------------------------------------------------
def one_line(capsys) -> str:
    error = capsys.readouterr().err
    assert error.startswith("pack: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1
    return error


def test_command(source, whole, tmp_path, capsys):
    assert pack.main([str(source), str(tmp_path / "out"), "--workers", "2"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    left_out, summary = said.out.splitlines()[:-1], said.out.splitlines()[-1]
    assert left_out[0] == "left out a/03a.jpg: the file is empty"
    assert left_out[1].startswith("left out 'c/nö\\n.jpg: ")
    assert len(left_out) == 3
    assert summary == f"{tmp_path}/out: 18 images packed, 3 left out"
    assert contents(tmp_path / "out") == contents(whole)
    assert pack.main([str(source), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/out: packed already\n"
    assert pack.main([str(source), str(tmp_path / "out"), "--strict"]) == 2
    assert "files were left out" in one_line(capsys)
    with pytest.raises(DataError, match="there is a pack in it already"):
        pack_quietly(source, tmp_path / "out")


def test_train_and_val(tmp_path, capsys):
    files = {f"{part}/{name}/1.jpg": jpeg(seed=len(part + name)) for part in ("train", "val") for name in ("a", "bb")}
    src, out = folder(tmp_path / "src", {**files, "val/bb/2.JPEG": jpeg()}), tmp_path / "deep/out"
    assert pack.main([str(src), str(out)]) == 0
    assert open_packed(out / "train").labels.tolist() == [0, 1]
    assert open_packed(out / "val").labels.tolist() == [0, 1, 1]
    assert capsys.readouterr().out.splitlines() == [
        f"{out}/train: 2 images packed, 0 left out",
        f"{out}/val: 3 images packed, 0 left out",
    ]
    (src / "val/c").mkdir()
    assert pack.main([str(src), str(tmp_path / "other")]) == 2
    assert "train and val need the same classes, but 'c'" in one_line(capsys)
    assert not (tmp_path / "other").exists()
    shutil.rmtree(src / "val")
    assert pack.main([str(src), str(tmp_path / "third")]) == 0
    assert [p.name for p in (tmp_path / "third").iterdir()] == ["train"]


def test_requests_that_are_wrong(source, tmp_path, capsys, monkeypatch):
    def refused(*arguments):
        assert pack.main(list(map(str, arguments))) == 2
        return one_line(capsys)

    (tmp_path / "file").write_text("")
    assert f"{tmp_path}/file: File exists" in refused(source, tmp_path / "file")
    assert f"{tmp_path}/file/x: Not a directory" in refused(source, tmp_path / "file/x")
    assert f"{tmp_path}/absent: No such file" in refused(tmp_path / "absent", tmp_path / "out")
    assert f"{tmp_path}/file: Not a directory" in refused(tmp_path / "file", tmp_path / "out")
    assert "03a.jpg: the file is empty" in refused(source, tmp_path / "out", "--strict")
    (tmp_path / "a\nb").mkdir()
    assert "a\\nb: there are no images" in refused(tmp_path / "a\nb", tmp_path / "out")
    for arguments in ([], [source, "out", "--workers", "0"], [source, "out", "--workers", "x"], [source, "out", "-q"]):
        with pytest.raises(SystemExit) as ended:
            pack.main(list(map(str, arguments)))
        assert ended.value.code == 2
        one_line(capsys)


def test_a_folder_that_cannot_be_written(source, tmp_path, capsys):
    (tmp_path / "shut").mkdir(mode=0o500)
    if os.access(tmp_path / "shut", os.W_OK):
        pytest.skip("root may write everywhere")
    assert pack.main([str(source), str(tmp_path / "shut")]) == 2
    assert f"{tmp_path}/shut/found.txt: Permission denied" in one_line(capsys)


@pytest.mark.parametrize(
    ("name", "method"),
    [(n, m) for n in ("images.u8", "files.txt", "progress.tmp") for m in ("write", "flush")] + [("found.txt", "write")],
)
def test_full_disk_and_another_try(name, method, source, whole, tmp_path, capsys, monkeypatch):
    class Full(io.BufferedWriter):
        def _fail(self, *_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        locals()[method] = _fail

        def close(self):
            self.raw.close()

    def open_(path, mode="r", **settings):
        file = open(path, mode, **settings)  # noqa: SIM115
        return Full(file.detach()) if Path(path).name == name and mode != "rb" else file

    with monkeypatch.context() as full:
        full.setattr(packed, "open", open_, raising=False)
        full.setattr(packed, "CHUNK", 4)
        status = pack.main([str(source), str(tmp_path / "out")])
    assert status == 2
    assert one_line(capsys) == f"pack: {tmp_path}/out: No space left on device\n"
    assert pack.main([str(source), str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == contents(whole)


def test_ctrl_c_and_another_try(source, whole, tmp_path, capsys):
    code = """
        import os, signal, sys
        from minitorch_alex import pack
        from minitorch_alex.data import packed, photographs
        packed.CHUNK, read = 4, photographs.read_photograph
        def signalling(path):
            if path.name == "10.jpg":
                os.kill(os.getpid(), signal.SIGINT)
            return read(path)
        photographs.read_photograph = signalling
        sys.exit(pack.main(sys.argv[1:]))
    """
    done = python(code, source, tmp_path / "out")
    assert done.returncode == 130
    assert done.stderr == "pack: interrupted; the same command goes on where it stopped\n"
    assert (tmp_path / "out/progress.npz").exists()
    assert pack.main([str(source), str(tmp_path / "out")]) == 0
    assert contents(tmp_path / "out") == contents(whole)


def test_as_a_program_with_strange_names(tmp_path):
    strange = os.fsdecode(b"\xffsrc\n")
    folder(tmp_path / strange / "a", {"1.jpg": jpeg(), os.fsdecode(b"\xfe.jpg"): b"", "2.jpg": jpeg()})
    command = [sys.executable, "-m", "minitorch_alex.pack", tmp_path / strange, tmp_path / (strange + "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "left out 'a/\\udcfe.jpg: the file is empty'"
    assert done.stdout.splitlines()[1].endswith("out: 2 images packed, 1 left out'")
    assert lines(tmp_path / (strange + "out") / "files.txt") == ["a/1.jpg", "a/2.jpg"]


def test_the_bar_knows_how_many(source, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "CHUNK", 4)
    shown = io.StringIO()
    monkeypatch.setattr(
        progress, "progress_bar", partial(progress.progress_bar, disable=False, file=shown, ncols=80, mininterval=0)
    )
    pack.main([str(source), str(tmp_path / "out")])
    states = shown.getvalue().replace("\n", "").split("\r")
    assert "21/21" in states[-1]
    assert any("0/21" in state for state in states)
    begun(source, tmp_path / "other", monkeypatch)
    shown.truncate(0)
    pack.main([str(source), str(tmp_path / "other")])
    assert " 8/21" in shown.getvalue(), "what was packed before counts"
    assert " 7/21" not in shown.getvalue()
    assert "21/21" in shown.getvalue()


# -- memory -----------------------------------------------------------------------
def test_memory_stays_flat(tmp_path):
    """A thousand photographs, 188 MiB once packed."""
    folder(tmp_path / "src/a", {f"{i}.jpg": jpeg(300, 260, i) for i in range(5)})
    (tmp_path / "src/b").mkdir()
    for i in range(995):
        os.link(tmp_path / f"src/a/{i % 5}.jpg", tmp_path / f"src/b/{i}.jpg")
    code = """
        import resource, sys
        from pathlib import Path
        from PIL import Image
        from minitorch_alex.data.packed import pack_folder
        Image.preinit()
        peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = peak()
        pack_folder(Path(sys.argv[1]), Path(sys.argv[2]), 2, lambda *_: None)
        print(peak() - before)
    """
    done = python(code, tmp_path / "src", tmp_path / "out")
    assert done.stderr == ""
    assert int(done.stdout) < 60_000  # KiB
    shutil.rmtree(tmp_path / "out")


def test_memory_does_not_grow_with_the_number_of_files(tmp_path, monkeypatch):
    """Neither with good ones nor with bad ones: ImageNet has 1.28 million."""
    blank = np.zeros((3, 1, 1), "uint8")  # packed.SIDE is patched to 1

    def read(path):
        if path.name < "5":
            raise UnreadableError("a reason of some length, " * 4)
        return blank

    monkeypatch.setattr(photographs, "read_photograph", read)
    monkeypatch.setattr(packed, "SIDE", 1)
    monkeypatch.setattr(packed, "IMAGE_BYTES", 3)
    peaks = []
    for turn, classes in enumerate((40, 2, 40)):  # at first Python makes room for names, its own and for good
        for label in range(classes):
            folder(tmp_path / f"{turn}/{label}", {f"{i}.jpg": b"" for i in range(200)})
        tracemalloc.start()
        pack_quietly(tmp_path / f"{turn}", tmp_path / f"out{turn}")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    grown = (peaks[2] - peaks[1]) / (38 * 200)
    assert grown < 40, f"{grown:.0f} bytes more for each file"


# -- real ones --------------------------------------------------------------------
def test_real_odd_images(extra_data, tmp_path, capsys):
    if not (extra_data / "odd-images").is_dir():
        pytest.skip(f"{extra_data}/odd-images is not there")
    assert pack.main([str(extra_data / "odd-images"), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said[:-1]] == [
        f"left out oddities/{name}.jpg" for name in ("empty", "not_an_image", "truncated")
    ]
    opened = dict(zip(lines(tmp_path / "out/files.txt"), open_packed(tmp_path / "out").images, strict=True))
    grey = opened["oddities/grayscale.jpg"]
    assert (grey[0] == grey[1]).all()
    assert grey.std() > 10
    for name in ("cmyk.jpg", "palette.png"):  # the same photograph
        assert np.abs(opened[f"oddities/{name}"].mean(axis=0) - grey.mean(axis=0)).mean() < 12, name
    with Image.open(extra_data / "odd-images/oddities/exif_rotated.jpg") as image:
        orientation = image.getexif()[0x0112]
        Image.fromarray(np.asarray(image)).save(tmp_path / "plain.png")
    assert orientation != 1
    assert np.array_equal(
        opened["oddities/exif_rotated.jpg"], TURNED[orientation](read_photograph(tmp_path / "plain.png"))
    )
    with Image.open(extra_data / "odd-images/oddities/gray16.png") as image:
        eight_bits = Image.fromarray((np.asarray(image) / 257).round().astype("uint8"))
    assert_near(opened["oddities/gray16.png"], reference(eight_bits))


def test_real_photographs_have_the_published_colours(extra_data, tmp_path):
    """The directions along which ImageNet's colours vary, as Krizhevsky published them with cuda-convnet."""
    if not (extra_data / "imagenet-1k-sample").is_dir():
        pytest.skip(f"{extra_data}/imagenet-1k-sample is not there")
    published = np.array(
        [
            [0.41795513, -0.71257945, -0.56351045],
            [-0.81698062, -0.02354167, -0.5761844],
            [0.39731118, 0.70119634, -0.59200296],
        ]
    )
    packed_, left_out = pack_quietly(extra_data / "imagenet-1k-sample", tmp_path / "out")
    opened = open_packed(tmp_path / "out")
    assert (packed_, left_out, len(opened.classes)) == (1000, 0, 1000)
    values, vectors = np.linalg.eigh(opened.statistics.covariance)
    assert (np.abs((vectors * published).sum(axis=0)) > 0.99).all()
    assert values[2] > 10 * values[1] > 10 * values[0]
    np.testing.assert_allclose(
        opened.statistics.mean.mean(axis=(1, 2)), [124, 117, 104], atol=6
    )  # ImageNet's published mean
    first = lines(tmp_path / "out/files.txt")[0]
    with Image.open(extra_data / "imagenet-1k-sample" / first) as image:
        assert_near(opened.images[0], reference(image), mean=3, most=255)
    shutil.rmtree(tmp_path / "out")
