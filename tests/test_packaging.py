"""What is built from this checkout is whole, holds nothing else, and works where it is installed."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from test_data import cifar_batches, write_binary

import minitorch_alex
from minitorch_alex.cuda_on_cpu import kernel_folder

ROOT = Path(__file__).parents[1]
LEFT_BEHIND = {".git", ".venv", "__pycache__", "build", "dist", "runs"}


def checked(*command: object, folder: Path, **environment: str) -> str:
    """The output of a command that must succeed."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    done = subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, cwd=folder, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    checked(sys.executable, "-m", "build", "--no-isolation", f"--{kind}", "--outdir", out, source, folder=out)
    return next(out.glob("*.whl" if kind == "wheel" else "*.tar.gz"))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A copy of the checkout, as the builds may write."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(
        ROOT, copy, ignore=lambda folder, names: [n for n in names if n in LEFT_BEHIND or n.endswith("_cache")]
    )
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory) -> Path:
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory) -> Path:
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A folder to put on PYTHONPATH that holds the wheel, unpacked by pip."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-deps", "--no-index", "--no-compile", "--target", target]
    checked(sys.executable, "-m", "pip", "install", *options, wheel, folder=target)
    return target


def files_of(wheel: Path) -> set[str]:
    """What it installs, without its own description."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def files_in(folder: Path, *parts: str) -> set[str]:
    files = (path for part in parts for path in (folder / part).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)) for path in files if not LEFT_BEHIND & set(path.parts)}


def test_wheel_holds_the_package_and_nothing_else(source, wheel):
    expected = files_in(source, "minitorch_alex") | {f"minitorch_alex/{f}" for f in files_in(source, "kernels")}
    assert files_of(wheel) == expected
    needed = [
        "py.typed",
        "data/digits.npz",
        "recipes/cifar10.toml",
        "pretrained/cifar10.safetensors",
        "functional/convolution.py",
        "kernels/README.md",
    ]
    assert {f"minitorch_alex/{f}" for f in needed} <= expected
    kinds = {Path(file).suffix for file in expected}
    assert kinds <= {".py", ".typed", ".npz", ".toml", ".cu", ".cuh", ".h", ".md", ".json", ".safetensors", ".cpp"}, (
        "what is that?"
    )


def test_sdist_builds_the_same_wheel(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    for needed in ("pyproject.toml", "README.md", "LICENSE", ".ci/run", "benchmarks", "kernels", "notebooks", "tests"):
        assert (folder / needed).exists(), needed
    assert not files_in(folder, "reference", "shared")
    (tmp_path / "out").mkdir()
    again = build("wheel", folder, tmp_path / "out")
    assert again.name == wheel.name
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(wheel) as other:
        assert {i.filename: i.CRC for i in one.infolist()} == {i.filename: i.CRC for i in other.infolist()}


@pytest.fixture(scope="module")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        assert any(n.endswith("licenses/LICENSE") for n in archive.namelist())
        return Parser().parsestr(archive.read(name).decode())


def test_metadata(metadata, wheel):
    assert metadata["Name"] == "minitorch-alex"
    assert metadata["Version"] == minitorch_alex.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_payload().startswith("# minitorch_alex")
    assert wheel.name.endswith("-py3-none-any.whl")


def test_dependencies(metadata):
    requirements = metadata.get_all("Requires-Dist")
    always = [r for r in requirements if "extra ==" not in r]
    names = [re.match(r"[A-Za-z0-9_-]+", r)[0] for r in always]
    assert sorted(names) == ["matplotlib", "numba", "numpy", "pillow", "pooch", "safetensors", "threadpoolctl", "tqdm"]
    for requirement in always:
        assert re.fullmatch(r"[a-z]+>=[\d.]+", requirement), f"{requirement}: a lower bound and nothing else"
    extras = {"cuda12", "cuda13", "notebooks", "tensorboard", "test", "peers"}
    assert extras <= set(metadata.get_all("Provides-Extra"))
    for extra in extras:
        assert any(re.search(rf"extra == ['\"]{extra}['\"]", r) for r in requirements), extra


def test_the_build_backend_is_among_the_test_tools():
    """These tests build without isolation."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tools = {re.match(r"[a-z]+", r)[0] for r in project["project"]["optional-dependencies"]["test"]}
    assert {re.match(r"[a-z]+", r)[0] for r in project["build-system"]["requires"]} | {"build", "pytest"} <= tools


def test_kernels_of_the_checkout_come_first():
    assert kernel_folder() == ROOT / "kernels"
    assert kernel_folder().is_dir()


def run_installed(installed: Path, folder: Path, *arguments: str) -> str:
    return checked(sys.executable, *arguments, folder=folder, PYTHONPATH=str(installed), PYTHONSAFEPATH="1")


def test_installed_package(installed, tmp_path):
    code = """if True:
        import importlib.resources, minitorch_alex
        from minitorch_alex import config, cuda_on_cpu, data
        files = importlib.resources.files("minitorch_alex")
        print(minitorch_alex.__file__)
        print(minitorch_alex.__version__)
        print(cuda_on_cpu.kernel_folder())
        print(len(data.load("digits").train_images))
        print(config.read_file("cifar10")["batch_size"])
        print(files.joinpath("py.typed").is_file())
        print(sorted(path.name for path in cuda_on_cpu.kernel_folder().iterdir()))
    """
    package = installed / "minitorch_alex"
    kernels = sorted(path.name for path in (ROOT / "kernels").iterdir())
    expected = [package / "__init__.py", minitorch_alex.__version__, package / "kernels", 1438, 128, True, kernels]
    assert run_installed(installed, tmp_path, "-c", code).splitlines() == [str(e) for e in expected]


def test_installed_command_trains(installed, tmp_path):
    write_binary(tmp_path / "images", cifar_batches(1))
    options = ["--data", "images", "--epochs", "1", "--backend", "numpy", "--out", "run"]
    before = files_in(installed, "minitorch_alex")
    shown = run_installed(installed, tmp_path, "-m", "minitorch_alex.train", *options)
    assert "held out" in shown
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "checkpoint.safetensors", "config.toml", "curves.png", "filters.png", "log.jsonl"
    ]  # fmt: skip
    assert files_in(installed, "minitorch_alex") == before, "nothing is written beside the code"


def test_the_code_imports_what_is_declared(installed):
    """Every package that the code imports is Python's own, declared, or an extra that is asked for by name."""
    declared = {"numpy", "numba", "threadpoolctl", "matplotlib", "tqdm", "safetensors", "PIL", "pooch"}
    optional = {"cupy", "cupyx", "ml_dtypes", "torch", "tensorboardX", "jupytext", "nbformat"}
    optional |= {"IPython", "pygments", "jupyter_client"}  # notebooks have them
    optional |= {"nbclient", "latex2mathml", "markdown_it", "mdit_py_plugins"}
    found = set()
    for file in (installed / "minitorch_alex").rglob("*.py"):
        code = re.sub(r'"""[\s\S]*?"""', "", file.read_text())
        found |= set(re.findall(r"^\s*(?:import|from)\s+([A-Za-z_]\w*)", code, re.M))
    assert found - set(sys.stdlib_module_names) - {"minitorch_alex"} <= declared | optional
