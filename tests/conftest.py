"""Fixtures: each backend in turn, the folder of extra data, and small data."""

import functools
import os
from contextlib import suppress
from pathlib import Path

import cupy_stand_in
import numpy as np
import pytest
from PIL import Image

from minitorch_alex import backends, manual_seed, run
from minitorch_alex.data import load
from minitorch_alex.data.packed import pack_folder

REQUIRE_GPU = "MINITORCH_ALEX_REQUIRE_GPU"

with suppress(ImportError):  # without Numba there is nothing to announce
    from minitorch_alex.backends import numba_compiler

    numba_compiler.ANNOUNCEMENT.told = True  # what a test finds on stderr does not depend on what ran before it


def pytest_configure(config):
    config.addinivalue_line("markers", "gpu: needs CuPy and a GPU of NVIDIA's")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that is skipped for want of a GPU is counted, and fails where MINITORCH_ALEX_REQUIRE_GPU is set."""
    report = yield
    slow = item.get_closest_marker("slow") and not item.config.option.markexpr
    if report.skipped and item.get_closest_marker("gpu") and no_gpu() and not slow:
        report.wants_gpu = True
        if os.environ.get(REQUIRE_GPU):
            report.outcome, report.longrepr = "failed", f"{REQUIRE_GPU} is set, but {no_gpu()}"
    return report


@functools.cache
def no_gpu():
    """Why the backend cupy cannot be used here, or None: there what a GPU test skips, it skips for another reason."""
    return backends.why_not("cupy")


def pytest_terminal_summary(terminalreporter):
    count = sum(hasattr(report, "wants_gpu") for report in terminalreporter.getreports("skipped"))
    if count:
        were = "1 test was" if count == 1 else f"{count} tests were"
        terminalreporter.write_line(f"{were} skipped for want of a GPU; {REQUIRE_GPU}=1 makes that a failure")


def pytest_collection_modifyitems(config, items):
    """What is marked slow waits until it is asked for."""
    if not config.option.markexpr:
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(pytest.mark.skip(reason="slow: run with -m slow"))


@pytest.fixture(params=["numpy", "numba", pytest.param("cupy", marks=pytest.mark.gpu), "cupy_stand_in"])
def backend(request):
    """Each backend in turn, made current and seeded; one that cannot be used here is skipped with the reason."""
    if request.param == "cupy_stand_in":
        request.getfixturevalue("stand_in")
        yield backends.current()
        return
    reason = backends.why_not(request.param)
    if reason is not None:
        pytest.skip(reason)
    before = backends._current
    backends.use(request.param)
    manual_seed(0)
    yield backends.current()
    backends._current = before


@pytest.fixture
def stand_in():
    """The backend cupy, made current and seeded, on a stand-in for CuPy that needs no GPU."""
    reason = backends.why_not("cuda_on_cpu")
    if reason is not None:
        pytest.skip(reason)
    with cupy_stand_in.installed() as cupy:
        backends.use("cupy")
        manual_seed(0)
        yield cupy


@pytest.fixture(scope="session")
def extra_data():
    """The folder with the data that is too large for the repository."""
    if "MINITORCH_ALEX_DATA" not in os.environ:
        pytest.skip("set MINITORCH_ALEX_DATA to the folder with the extra data")
    return Path(os.environ["MINITORCH_ALEX_DATA"])


# -- small data -----------------------------------------------------------------------
def photograph(path: Path, shade: int) -> None:
    """A picture of 300 x 260 pixels, smooth, so that JPEG keeps it."""
    y, x = np.mgrid[:260, :300]
    pixels = np.stack([(x + shade) % 256, (y + 2 * shade) % 256, np.full_like(x, shade)], axis=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype("uint8")).save(path, quality=95)


@pytest.fixture(scope="session")
def plain(tmp_path_factory):
    """cats and dogs, six photographs of each, one of which cannot be read."""
    root = tmp_path_factory.mktemp("animals")
    for label, name in enumerate(("cat", "dog")):
        for i in range(6):
            photograph(root / name / f"{i}.jpg", 40 * i + 10 * label)
    (root / "cat" / "3.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture(scope="session")
def packed(plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "animals"
    pack_folder(plain, out, 2, lambda *_: None)
    return out


def keep_digits(monkeypatch, train_count: int, test_count: int) -> None:
    """Let runs see only so many of the digits."""

    def few(source, **_):
        d = load(source)
        d.train_images, d.train_labels = d.train_images[:train_count], d.train_labels[:train_count]
        d.test_images, d.test_labels = d.test_images[:test_count], d.test_labels[:test_count]
        return d

    monkeypatch.setattr(run, "load", few)


@pytest.fixture
def few_digits(monkeypatch):
    """160 digits to learn from, 80 to test on."""
    keep_digits(monkeypatch, 160, 80)
