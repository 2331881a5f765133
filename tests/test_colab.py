"""The lessons' first cell on a machine like Google Colab: it installs this package and nothing else, beside any CuPy.

Colab comes with NumPy, Numba, Matplotlib, an older CuPy and the rest of what the package needs, and with much that must
not be replaced.
"""

import importlib.machinery
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import cupy_stand_in
import numpy as np
import pytest

import minitorch_alex as mt
from minitorch_alex import backends
from minitorch_alex.exercises import EXERCISES, check, notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = ROOT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def first_cell(path):
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return "".join(cells[0]["source"])


@pytest.fixture
def recorded(monkeypatch):
    """What would be run instead of running it."""
    calls = []
    monkeypatch.setattr(subprocess, "run", lambda command, **settings: calls.append((command, settings)))
    return calls


def run_first_cell(path):
    exec(compile(first_cell(path), path.name, "exec"), {})


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_where_the_package_is_missing_it_alone_is_installed(path, recorded, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "minitorch_alex" else found(name, *more)
    )
    run_first_cell(path)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", ".."]
    assert recorded == [(command, {"check": True})]


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_folder_of_that_name_is_not_the_package(path, recorded, monkeypatch):
    """On Colab the clone's own folder lies on the path, and if it is called minitorch_alex, Python takes it for a
    package without a file of its own."""
    folder = importlib.machinery.ModuleSpec("minitorch_alex", None, is_package=True)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: folder if name == "minitorch_alex" else found(name, *more)
    )
    run_first_cell(path)
    assert len(recorded) == 1


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_where_the_package_is_there_nothing_is_installed(path, recorded):
    run_first_cell(path)
    assert recorded == []


def test_the_folder_above_is_the_package():
    project = tomllib.loads((NOTEBOOKS / ".." / "pyproject.toml").read_text())
    assert project["project"]["name"] == "minitorch-alex"


# -- beside what is there -----------------------------------------------------------------
COLABS = {"numpy": "1.26.4", "numba": "0.60.0", "pillow": "10.4.0", "tqdm": "4.60.0"}  # older than what we ask for


def put_package(site, name, version, module=""):
    """As if pip had installed it."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "INSTALLER").write_text("pip\n")
    files = [f"{info.name}/{part}" for part in ("METADATA", "INSTALLER", "RECORD")]
    if module:
        (site / module).mkdir()
        (site / module / "__init__.py").write_text(f"__version__ = {version!r}\n")
        files.append(f"{module}/__init__.py")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))


def contents(site):
    return {str(path.relative_to(site)): path.read_bytes() for path in site.rglob("*") if path.is_file()}


@pytest.mark.parametrize("cupy", ["13.6.0", "14.2.0"])
def test_cupy_and_all_else_stay_as_they_are(cupy, tmp_path, recorded, monkeypatch):
    """The first cell's own command, in an environment with Colab's packages, without a network."""
    with monkeypatch.context() as missing:
        missing.setattr(importlib.util, "find_spec", lambda name: None)
        run_first_cell(LESSONS[0])
    monkeypatch.undo()
    ((command, _),) = recorded
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "colab"], check=True)
    python = tmp_path / "colab" / "bin" / "python"
    site = next((tmp_path / "colab").glob("lib/python*/site-packages"))
    put_package(site, "cupy-cuda12x", cupy, "cupy")
    for name, version in COLABS.items():
        put_package(site, name, version)
    before = contents(site)
    command = [python, *command[1:-1], "--no-index", "--no-build-isolation", "--no-compile", command[-1]]
    environment = {"PYTHONPATH": sysconfig.get_path("purelib"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}  # pip, hatchling
    done = subprocess.run(command, cwd=NOTEBOOKS, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    after = contents(site)
    assert {name: after.get(name) for name in before} == before
    new = {name.split("/")[0].split("-")[0] for name in after.keys() - before.keys()}
    assert new == {"minitorch_alex"}
    assert "minitorch_alex/kernels/lrn.cu" in after


# -- on a machine with a GPU ----------------------------------------------------------------
@pytest.mark.parametrize("version", ["13.6.0", "14.2.0"])
def test_cupy_is_found_and_the_lessons_stay_on_the_cpu(version, monkeypatch):
    """Lessons compare tensors with NumPy's arrays in their cells, and their arrays are small: they run on numba, GPU or
    not. A lesson that wants the GPU asks for it."""
    if backends.why_not("cuda_on_cpu"):
        pytest.skip(backends.why_not("cuda_on_cpu"))
    monkeypatch.setattr(cupy_stand_in, "__version__", version)
    with cupy_stand_in.installed():
        assert "cupy" in backends.available()
        monkeypatch.setattr(backends, "_current", None)  # as in a fresh kernel
        assert backends.current().name == ("numba" if backends.why_not("numba") is None else "numpy")
        assert isinstance(mt.tensor(np.ones(3)).data, np.ndarray)
        defined, problems = notebook.definitions(NOTEBOOKS / "03_convolution.py")
        assert not problems
        for number in (n for n in EXERCISES if n.startswith("3.")):
            assert check(number, defined[EXERCISES[number].name]).checks
        backends.use("cupy")
        assert mt.tensor(np.ones(3, "float32")).sum().item() == 3
        assert f"CuPy {version}" in described()


def described():
    backends.current().prepare()
    return backends.current().description


# -- what the package needs ---------------------------------------------------------------
def test_what_is_needed_at_once_is_what_every_machine_for_notebooks_has():
    """Installed without its requirements, the package must begin without those that Colab might lack."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    late = {"pooch": "pooch"}  # only to download CIFAR-10
    assert set(late) < needed
    blocked = dict.fromkeys(late.values())
    code = (
        f"import sys; sys.modules.update({blocked!r})\n"
        "import minitorch_alex, minitorch_alex.exercises, minitorch_alex.train, minitorch_alex.plots\n"
        "from minitorch_alex import data\ndata.load('digits')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert importlib.metadata.version("minitorch-alex") == mt.__version__
