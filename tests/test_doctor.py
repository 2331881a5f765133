"""The doctor: what it says of machines that are not this one."""

import contextlib
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from minitorch_alex import backends, cuda_on_cpu, doctor
from minitorch_alex.doctor import GPU, Driver, Finding

H200, V100 = GPU("NVIDIA H200", (9, 0), 140 << 30), GPU("Tesla V100", (7, 0), 16 << 30)
NONE = Driver(None, problem="none")
CUDA_13, CUDA_12, CUDA_11 = (Driver((major, 4), (H200,)) for major in (13, 12, 11))
VOLTA = Driver((13, 0), (V100, H200))
PIP = "python -m pip install --upgrade"
NO_NVRTC = "CuPy failed to load libnvrtc.so.12: OSError: libnvrtc.so.12: cannot open shared object file"


class Array(np.ndarray):
    def get(self):
        return np.asarray(self)


def array(values, dtype="float32"):
    return np.array(values, dtype).view(Array)


def working_cupy():
    """What the doctor asks of CuPy, on NumPy."""

    def kernel(code, name):
        assert (code, name) == (doctor.KERNEL, "twice")

        def launch(grid, block, arguments):
            assert grid[0] * block[0] == len(arguments[0])
            arguments[1][:] = 2 * arguments[0]

        return launch

    return SimpleNamespace(
        __version__="14.2.0",
        RawKernel=kernel,
        asarray=array,
        empty_like=lambda a: array(np.full(len(a), np.nan)),
        cuda=SimpleNamespace(
            Device=lambda number: contextlib.nullcontext(),
            runtime=SimpleNamespace(runtimeGetVersion=lambda: 13020, memGetInfo=lambda: (100 << 30, 140 << 30)),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
        ),
    )


def raising(error):
    def work(*arguments, **settings):
        raise error

    return work


def examined(driver, installed, load=working_cupy):
    """The findings about CuPy, the last line of the report, and whether anything is broken."""
    findings = doctor.about_cupy(driver, installed, load)
    return findings, doctor.advice(findings, driver), any(f.broken for f in findings)


# -- which CuPy ---------------------------------------------------------------------
def test_the_wheels_are_those_of_the_extras():
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert doctor.wheel_for(CUDA_12) in extras["cuda12"]
    assert doctor.wheel_for(CUDA_13) in extras["cuda13"]
    assert sorted([*doctor.PACKAGES.values(), "numpy>=2.0"]) == sorted(project["dependencies"])


@pytest.mark.parametrize(
    ("driver", "installed", "text", "to_do", "broken"),
    [
        (CUDA_13, {"cupy-cuda13x": "14.2.0"}, "compiled and run", "nothing", False),
        (CUDA_13, {"cupy-cuda12x": "13.6.0"}, "compiled and run", "nothing", False),  # an older one, as on Colab
        (Driver((14, 0), (H200,)), {"cupy-cuda13x": "14.2.0"}, "compiled and run", "nothing", False),
        (
            CUDA_12, {"cupy-cuda13x": "14.2.0"}, "needs a driver for CUDA 13, and this one is for 12.4",
            f'python -m pip uninstall -y cupy-cuda13x && {PIP} "cupy-cuda12x[ctk]>=14" "ml-dtypes>=0.5"', True,
        ),
        (
            VOLTA, {"cupy-cuda13x": "14.2.0"}, "compute capability 7.5 or more",
            f'python -m pip uninstall -y cupy-cuda13x && {PIP} "cupy-cuda12x[ctk]>=14" "ml-dtypes>=0.5"', True,
        ),
        (
            CUDA_13, {"cupy-rocm-7-0": "14.2.0"}, "AMD",
            f'python -m pip uninstall -y cupy-rocm-7-0 && {PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"', True,
        ),
        (
            CUDA_13, {"cupy": "13.6.0", "cupy-cuda13x": "14.2.0"},
            "cupy 13.6.0 and cupy-cuda13x 14.2.0: each overwrites files of the others",
            f'python -m pip uninstall -y cupy cupy-cuda13x && {PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"', True,
        ),
        (CUDA_11, {"cupy-cuda13x": "14.2.0"}, "driver for CUDA 13", "nothing that pip could do: see CuPy", True),
        (CUDA_11, {"cupy-cuda11x": "13.6.0"}, "compiled and run", "nothing", False),
    ],
)  # fmt: skip
def test_what_is_installed_and_what_the_driver_can_run(driver, installed, text, to_do, broken):
    findings, advice, is_broken = examined(driver, installed)
    assert text in findings[-1].text
    assert (advice, is_broken) == (to_do, broken)


@pytest.mark.parametrize(
    ("driver", "to_do"),
    [
        (CUDA_13, f'{PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"'),
        (Driver((14, 0), (H200,)), f'{PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"'),
        (CUDA_12, f'{PIP} "cupy-cuda12x[ctk]>=14" "ml-dtypes>=0.5"'),
        (VOLTA, f'{PIP} "cupy-cuda12x[ctk]>=14" "ml-dtypes>=0.5"'),
        (CUDA_11, "a newer driver from NVIDIA, then ask again"),
        (NONE, "nothing: cupy needs a GPU of NVIDIA's, and the others work without one"),
    ],
)
def test_no_cupy_is_no_fault(driver, to_do, monkeypatch):
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    findings, advice, broken = examined(driver, {}, None)
    assert [f.text for f in findings] == ["not installed"]
    assert (advice, broken) == (to_do, False)


@pytest.mark.parametrize("installed", [{"cupy-cuda13x": "14.2.0"}, {"cupy": "1", "cupy-cuda13x": "2"}])
@pytest.mark.parametrize("load", [working_cupy, raising(ImportError("no"))])
@pytest.mark.parametrize("driver", [NONE, Driver((13, 0)), Driver((13, 0), problem="it does not start: 802")])
def test_without_a_gpu_nothing_of_cupy_is_a_fault(driver, installed, load):
    findings, advice, broken = examined(driver, installed, load)
    assert not broken
    assert advice.startswith("nothing")
    assert "kernel" not in [f.name for f in findings]


# -- whether it works -----------------------------------------------------------------
def test_a_failed_import_is_told_by_what_led_to_it():
    def load():
        try:
            raise ImportError("libcudart.so.11: cannot open shared object file")
        except ImportError as error:
            raise ImportError("\n=====\nFailed to import CuPy.\n\nIf you installed ...\n") from error

    findings, advice, broken = examined(CUDA_13, {"cupy-cuda13x": "14.2.0"}, load)
    assert findings[-1].text == (
        "cupy-cuda13x 14.2.0: cannot be imported: ImportError: libcudart.so.11: cannot open shared object file"
    )
    assert advice == f'python -m pip uninstall -y cupy-cuda13x && {PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"'
    assert broken


def without_nvrtc(cupy):
    cupy.RawKernel = cupy.cuda.nvrtc.getVersion = raising(RuntimeError(NO_NVRTC))


def without_headers(cupy):
    class NoHeaders(Array):
        __add__ = raising(RuntimeError("Failed to auto-detect CUDA root directory"))

    cupy.asarray = lambda *a: array(*a).view(NoHeaders)


def without_cublas(cupy):
    class NoProduct(Array):
        __matmul__ = raising(ImportError('Failure finding "libcublasLt.so.13"'))

    cupy.asarray = lambda *a: array(*a).view(NoProduct)


def miscalculating(cupy):
    cupy.RawKernel = lambda *_: lambda *_: None


def without_memory(cupy):
    cupy.cuda.runtime.memGetInfo = raising(RuntimeError("cudaErrorMemoryAllocation: out of memory"))


@pytest.mark.parametrize(
    ("breakage", "name", "text"),
    [
        (without_nvrtc, "kernel", f"three lines of CUDA: RuntimeError: {NO_NVRTC}"),
        (without_headers, "kernel", "CuPy's own kernels: RuntimeError: Failed to auto-detect CUDA root directory"),
        (without_cublas, "kernel", 'matrix products by cuBLAS: ImportError: Failure finding "libcublasLt.so.13"'),
        (miscalculating, "kernel", "three lines of CUDA: [nan, nan] in place of [2.0, 4.0]"),
        (without_memory, "memory", "GPU 0 does not tell: RuntimeError: cudaErrorMemoryAllocation: out of memory"),
    ],
)
def test_what_does_not_work_on_a_gpu_is_named(breakage, name, text):
    def load():
        cupy = working_cupy()
        breakage(cupy)
        return cupy

    findings, advice, broken = examined(CUDA_13, {"cupy-cuda13x": "14.2.0"}, load)
    assert findings[-1][:3] == (name, text, True)
    assert advice == f'{PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"'  # brings CUDA's libraries and headers
    assert broken
    _, advice, _ = examined(CUDA_13, {"cupy-cuda12x": "13.6.0"}, load)
    assert (
        advice == f'python -m pip uninstall -y cupy-cuda12x && {PIP} "cupy-cuda13x[ctk]>=14" "ml-dtypes>=0.5"'
    )  # never two at once


def test_a_cupy_that_was_not_installed_by_pip_is_tried_too():
    findings, advice, broken = examined(CUDA_13, {})
    assert (findings[0].text, findings[-1].name) == ("of no distribution", "kernel")
    assert (advice, broken) == ("nothing", False)


def test_a_working_gpu_is_described():
    findings, _, _ = examined(Driver((13, 0), (H200, H200)), {"cupy-cuda13x": "14.2.0"})
    assert [tuple(f[:2]) for f in findings] == [
        ("CuPy", "cupy-cuda13x 14.2.0"),
        ("runtime", "CUDA 13.2, NVRTC 13.0"),
        ("memory", "100.0 of 140.0 GiB free on GPU 0"),
        ("memory", "100.0 of 140.0 GiB free on GPU 1"),
        ("kernel", "compiled and run: three lines of CUDA, CuPy's own kernels, matrix products by cuBLAS"),
    ]


@pytest.mark.skipif(cuda_on_cpu.why_not() is not None, reason=cuda_on_cpu.why_not() or "")
def test_the_kernel_is_cuda_and_right():
    x, y = np.array([1, 2], "float32"), cuda_on_cpu.empty(2)
    cuda_on_cpu.load(doctor.KERNEL).get_function("twice")((1,), (2,), (x, y))
    assert y.tolist() == [2, 4]


def test_every_distribution_of_cupy_is_found(monkeypatch):
    names = ["CuPy-CUDA12x", "numpy", "cupy", "cupy-xarray", "cupy-rocm-5-0", "amd-cupy", None]
    installed = [SimpleNamespace(metadata={"Name": name}, version="1") for name in names]
    monkeypatch.setattr(doctor.importlib.metadata, "distributions", lambda: installed)
    assert list(doctor.cupy_distributions()) == ["amd-cupy", "cupy", "cupy-cuda12x", "cupy-rocm-5-0"]


# -- the driver -----------------------------------------------------------------------
LIBCUDA = """
#include <cstddef>
#include <cstring>
extern "C" {
int cuDriverGetVersion(int* version) { *version = 12040; return VERSION_STATUS; }
int cuInit(unsigned flags) { return flags ? 1 : INIT_STATUS; }
int cuDeviceGetCount(int* count) { *count = 2; return 0; }
int cuDeviceGet(int* device, int number) { *device = 7 + number; return 0; }
int cuDeviceGetName(char* name, int size, int device)
{ strncpy(name, device == 7 ? "first" : "second", size); return 0; }
int cuDeviceGetAttribute(int* value, int what, int device) { *value = what == 75 ? 9 : what == 76 ? 1 : -1; return 0; }
int cuDeviceTotalMem_v2(size_t* bytes, int device) { *bytes = (size_t)device << 33; return 0; }
int cuGetErrorName(int status, const char** name)
{ *name = status == 802 ? "CUDA_ERROR_SYSTEM_NOT_READY" : 0; return 0; }
}
"""


@pytest.mark.skipif(shutil.which("g++") is None or sys.platform != "linux", reason="needs g++ on Linux")
@pytest.mark.parametrize(
    ("version_status", "init_status", "version", "gpus", "text", "broken"),
    [
        (0, 0, (12, 4), 2, "for CUDA up to 12.4", False),
        (0, 100, (12, 4), 0, "for CUDA up to 12.4; it finds no GPU", False),
        (0, 802, (12, 4), 0, "for CUDA up to 12.4; it does not start: CUDA_ERROR_SYSTEM_NOT_READY (802)", True),
        (34, 0, None, 0, "libcuda.so is here and answers error (34)", False),
    ],
)
def test_the_driver_is_asked_without_cupy(version_status, init_status, version, gpus, text, broken, tmp_path):
    library = tmp_path / "libcuda.so"
    macros = [f"-DVERSION_STATUS={version_status}", f"-DINIT_STATUS={init_status}"]
    command = ["g++", "-shared", "-fPIC", *macros, "-x", "c++", "-", "-o", str(library)]
    subprocess.run(command, input=LIBCUDA, text=True, check=True)
    driver = doctor.ask_driver(str(library))
    assert driver.version == version
    assert driver.gpus == (GPU("first", (9, 1), 7 << 33), GPU("second", (9, 1), 8 << 33))[:gpus]
    first, *others = doctor.about_driver(driver)
    assert (first.text.replace(str(tmp_path) + "/", ""), first.broken) == (text, broken)
    assert [f.text for f in others] == ["first, compute capability 9.1, 56.0 GiB",
                                        "second, compute capability 9.1, 64.0 GiB"][:gpus]  # fmt: skip


def test_no_driver(monkeypatch):
    driver = doctor.ask_driver("libnothing.so.1")
    assert driver == Driver(None, problem="none (libnothing.so.1 is not here)")
    monkeypatch.setattr(doctor, "gpu_without_driver", lambda: True)
    (finding,) = doctor.about_driver(driver)
    assert "though there is a GPU of NVIDIA's: install its driver" in finding.text
    assert not finding.broken


@pytest.mark.parametrize(("vendor", "kind", "expected"), [
    ("0x10de\n", "0x030200\n", True), ("0x10de\n", "0x040300\n", False), ("0x8086\n", "0x030000\n", False),
])  # fmt: skip
def test_a_gpu_on_the_bus_is_seen(vendor, kind, expected, tmp_path):
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:01:00.0" / "vendor").write_text(vendor)
    (tmp_path / "0000:01:00.0" / "class").write_text(kind)
    assert doctor.gpu_without_driver(tmp_path) is expected
    assert not doctor.gpu_without_driver(tmp_path / "nowhere")


def test_an_old_driver_is_told(monkeypatch):
    assert "too old for CuPy 14, which needs one for CUDA 12" in doctor.about_driver(CUDA_11)[0].text


# -- the whole report -------------------------------------------------------------------
@pytest.fixture
def without_driver(monkeypatch):
    monkeypatch.setattr(doctor, "ask_driver", lambda: NONE)


def test_a_backend_that_does_not_load_is_a_fault(without_driver, monkeypatch, capsys):
    class Broken:
        prepare = staticmethod(raising(ImportError("Numba needs NumPy 2.3 or less. Got NumPy 2.9.")))

    monkeypatch.setattr(backends, "why_not", lambda name: None if name in ("numpy", "numba") else "no")
    monkeypatch.setattr(backends, "get", lambda name: Broken() if name == "numba" else backends.Backend())
    assert doctor.main([]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "numba      is installed and does not load: ImportError: Numba needs NumPy 2.3" in "\n".join(lines)
    assert lines[-2:] == ["works      numpy", f'to do      {PIP} "numba>=0.61"']


def test_what_is_broken_is_not_said_to_work(monkeypatch):
    monkeypatch.setattr(backends, "why_not", lambda name: None)
    monkeypatch.setattr(backends, "get", lambda name: backends.Backend())
    for finding in (Finding("kernel", "", True), Finding("driver", "", True), Finding("CuPy", "", True)):
        assert doctor.about_backends([finding])[-1].text == "numpy, numba, cuda_on_cpu"
    assert doctor.about_backends([Finding("g++", "", True)])[-1].text == "numpy, numba, cupy"


def test_it_runs_where_hardly_anything_is_installed(tmp_path):
    names = [name for name in doctor.PACKAGES if name != "threadpoolctl"]
    code = f"import sys; sys.modules.update(dict.fromkeys({names}))\nfrom minitorch_alex import doctor\n"
    code += "doctor.ask_driver = lambda: doctor.Driver(None, problem='none')\nsys.exit(doctor.main([]))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if not line.startswith("to do"))
    assert lines["Numba"].startswith("not installed")
    assert lines["packages"].startswith("not installed: matplotlib, tqdm, safetensors, PIL, pooch;")
    assert lines["works"].startswith("numpy")
    assert "numba" not in lines["works"]
    wishes = " ".join(f'"{doctor.PACKAGES[name]}"' for name in names)
    assert done.stdout.splitlines()[-1].split("to do", 1)[1].strip() == f"{PIP} {wishes}"


def test_a_wrong_argument_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        doctor.main(["--gpu"])
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
