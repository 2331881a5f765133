"""What is installed, what works, and what to type where something is missing: `python -m minitorch_alex.doctor`.

It asks for nothing that `import minitorch_alex` does not. What is absent is no fault, and neither is a CuPy that has no
GPU to work on. The exit status is 1 only where something is there and does not work: NumPy, Numba, the driver of a GPU,
CuPy on a GPU, the compiler for cuda_on_cpu.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.metadata
import importlib.util
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from . import backends
from .command_line import OneLineParser, reported
from .cuda_on_cpu import compiler

Version = tuple[int, int]

PACKAGES = {  # what the package needs besides NumPy: the name to import, and the one to install
    "numba": "numba>=0.61",
    "threadpoolctl": "threadpoolctl>=3.5",
    "matplotlib": "matplotlib>=3.9",
    "tqdm": "tqdm>=4.66",
    "safetensors": "safetensors>=0.5",
    "PIL": "pillow>=11.0",
    "pooch": "pooch>=1.8.2",
}
BFLOAT16 = "ml-dtypes>=0.5"  # what CuPy's bfloat16 is made of
CUDA = (12, 13)  # the versions for which there is a CuPy 14
TURING = (7, 5)  # the oldest GPUs for which CUDA 13 compiles
LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"  # comes with NVIDIA's driver
NO_DEVICE = 100  # of CUresult, in cuda.h
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute, in cuda.h
GIBIBYTE = 1024**3
PARTS = {"cupy": {"driver", "CuPy", "memory", "kernel"}, "cuda_on_cpu": {"g++"}}  # findings that speak of a backend
KERNEL = """
extern "C" __global__ void twice(const float* x, float* y) {
    y[threadIdx.x] = 2 * x[threadIdx.x];
}"""


class Finding(NamedTuple):
    """A line of the report: about what, what was found, whether it should work and does not; what pip is to do."""

    name: str
    text: str
    broken: bool = False
    install: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()


class GPU(NamedTuple):
    """What the driver says of a GPU; memory in bytes."""

    name: str
    capability: Version
    memory: int


class Driver(NamedTuple):
    """What NVIDIA's driver says: the newest CUDA that it can run (None without a driver), its GPUs, what is wrong."""

    version: Version | None
    gpus: tuple[GPU, ...] = ()
    problem: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py: 1 where something does not work."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.doctor",
        description="Tell what is installed, what works, and what to type where something is missing.",
    )
    given = parser.parse_args(arguments)
    return reported("doctor", report, given.debug)


def report() -> int:
    """Print what is found. Returns 1 where something does not work, else 0."""
    driver = ask_driver()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, of what is told here
        findings = [*about_python(), *about_driver(driver), *about_cupy(driver, cupy_distributions()), about_gxx()]
        findings += about_backends(findings)
    for finding in findings:
        print(f"{finding.name:<11}{finding.text}")
    print(f"{'to do':<11}{advice(findings, driver)}")
    return 1 if any(finding.broken for finding in findings) else 0


def advice(findings: Iterable[Finding], driver: Driver) -> str:
    """One line for pip that installs what is missing and replaces what is broken, or that there is nothing to do."""
    remove = dict.fromkeys(name for finding in findings for name in finding.remove)
    install = dict.fromkeys(name for finding in findings for name in finding.install)
    steps = [f"python -m pip uninstall -y {' '.join(remove)}"] if remove else []
    if install:
        quoted = " ".join(f'"{name}"' for name in install)
        steps.append(f"python -m pip install --upgrade {quoted}")
    if steps:
        return " && ".join(steps)
    broken = [finding.name for finding in findings if finding.broken]
    if broken:
        return f"nothing that pip could do: see {', '.join(broken)}"
    if not driver.gpus:
        return "nothing: cupy needs a GPU of NVIDIA's, and the others work without one"
    computes = any(finding.name == "kernel" for finding in findings)
    return "nothing" if computes else "a newer driver from NVIDIA, then ask again"


def brief(error: BaseException) -> str:
    """An error in one line. CuPy's own account of a failed import is long; what led to it is not."""
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= 300 else f"{text[:300]} ..."


def dotted(version: Iterable[Any]) -> str:
    return ".".join(map(str, version))


def cuda_version(number: int) -> Version:
    """12040, as CUDA writes it, means 12.4."""
    return number // 1000, number % 1000 // 10


# -- Python and its packages --------------------------------------------------------
def about_python() -> list[Finding]:
    """Python, NumPy, Numba, and which of the other packages are missing."""
    lines = [Finding("Python", f"{platform.python_version()}, {platform.system()} on {platform.machine()}")]
    numpy = version_of("numpy")
    old = int(numpy.split(".")[0]) < 2
    wish = "numpy>=2.0"
    lines.append(Finding("NumPy", f"{numpy}, too old: {wish} is needed" if old else numpy, old, (wish,) if old else ()))
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if "numba" in missing:
        lines.append(
            Finding("Numba", "not installed: numpy computes in its place, slowly", False, (PACKAGES["numba"],))
        )
    else:
        lines.append(Finding("Numba", version_of("numba")))
    others = [name for name in missing if name != "numba"]
    if others:
        wishes = tuple(PACKAGES[name] for name in others)
        lines.append(Finding("packages", f"not installed: {', '.join(others)}; some commands need them", False, wishes))
    return lines


def version_of(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return str(importlib.import_module(package).__version__)


# -- the driver ---------------------------------------------------------------------
def ask_driver(library: str = LIBRARY) -> Driver:
    """What NVIDIA's driver says of itself and of its GPUs, without CuPy. CUDA Driver API: cuda.h."""
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return Driver(None, problem=f"none ({library} is not here)")
    number, count = ctypes.c_int(), ctypes.c_int()
    status = cuda.cuDriverGetVersion(ctypes.byref(number))
    if status:
        return Driver(None, problem=f"{library} is here and answers {error_name(cuda, status)}")
    version = cuda_version(number.value)
    status = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    if status == NO_DEVICE:
        return Driver(version)
    if status:
        return Driver(version, problem=f"it does not start: {error_name(cuda, status)}")
    return Driver(version, tuple(ask_gpu(cuda, i) for i in range(count.value)))


def error_name(cuda: Any, status: int) -> str:
    """Such as "CUDA_ERROR_SYSTEM_NOT_READY (802)"."""
    name = ctypes.c_char_p()
    cuda.cuGetErrorName(status, ctypes.byref(name))
    return f"{(name.value or b'error').decode()} ({status})"


def ask_gpu(cuda: Any, number: int) -> GPU:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), number)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), CAPABILITY_MINOR, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return GPU(name.value.decode(errors="replace"), (major.value, minor.value), memory.value)


def about_driver(driver: Driver) -> list[Finding]:
    """The driver and its GPUs."""
    if driver.version is None:
        hint = ", though there is a GPU of NVIDIA's: install its driver; start a container with its GPUs"
        return [Finding("driver", driver.problem + (hint if gpu_without_driver() else ""))]
    text = f"for CUDA up to {dotted(driver.version)}"
    if driver.problem:
        return [Finding("driver", f"{text}; {driver.problem}", broken=True)]
    if not driver.gpus:
        return [Finding("driver", f"{text}; it finds no GPU")]
    if driver.version[0] < CUDA[0]:
        text += f": too old for CuPy 14, which needs one for CUDA {CUDA[0]}"
    gpus = [
        Finding(f"GPU {i}", f"{g.name}, compute capability {dotted(g.capability)}, {g.memory / GIBIBYTE:.1f} GiB")
        for i, g in enumerate(driver.gpus)
    ]
    return [Finding("driver", text), *gpus]


def gpu_without_driver(devices: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Whether Linux sees a display controller (class 03) by NVIDIA (vendor 10de)."""
    for vendor in devices.glob("*/vendor"):
        try:
            kind = vendor.with_name("class").read_text()
            if vendor.read_text().startswith("0x10de") and kind.startswith("0x03"):
                return True
        except OSError:
            continue
    return False


# -- CuPy -----------------------------------------------------------------------------
def cupy_distributions() -> dict[str, str]:
    """Every installed distribution of CuPy with its version."""
    found = {}
    for distribution in importlib.metadata.distributions():
        name = (distribution.metadata["Name"] or "").lower()
        if re.fullmatch(r"cupy(-(cuda|rocm).*)?|amd-cupy", name):
            found[name] = distribution.version
    return dict(sorted(found.items()))


def wheel_for(driver: Driver) -> str | None:
    """The CuPy that this driver and these GPUs can run, with CUDA's libraries; None if there is none to run it on."""
    if not driver.gpus or driver.version is None or driver.version[0] < CUDA[0]:
        return None
    old = any(gpu.capability < TURING for gpu in driver.gpus)
    major = CUDA[0] if old else min(driver.version[0], CUDA[-1])
    return f"cupy-cuda{major}x[ctk]>=14"


def about_cupy(driver: Driver, installed: dict[str, str], load: Callable[[], Any] | None = None) -> list[Finding]:
    """CuPy: which, whether it can be imported (by `load`), and whether it computes where there is a GPU."""
    wheel = wheel_for(driver)
    install = (wheel, BFLOAT16) if wheel else ()
    anew = tuple(installed) if wheel else ()  # to be removed first, where its files are in doubt
    needed = bool(driver.gpus)  # without a GPU nothing of CuPy's is a fault
    names = " and ".join(f"{name} {version}" for name, version in installed.items()) or "of no distribution"
    if not installed and load is None and importlib.util.find_spec("cupy") is None:
        return [Finding("CuPy", "not installed", False, install)]
    problem = "each overwrites files of the others" if len(installed) > 1 else misfit_of(names, driver)
    if problem:
        return [Finding("CuPy", f"{names}: {problem}", needed, install, anew)]
    try:
        cupy = (load or import_cupy)()
    except Exception as error:  # an installation can be broken in any way
        return [Finding("CuPy", f"{names}: cannot be imported: {brief(error)}", needed, install, anew)]
    lines = [Finding("CuPy", names), Finding("runtime", runtime_of(cupy))]
    if not driver.gpus:
        return lines
    others = tuple(name for name in anew if wheel and not wheel.startswith(f"{name}["))
    gpus = about_gpus(cupy, len(driver.gpus))
    return lines + [f._replace(install=install, remove=others) if f.broken else f for f in gpus]


def import_cupy() -> Any:
    return importlib.import_module("cupy")


def misfit_of(name: str, driver: Driver) -> str:
    """Why this CuPy cannot work with this driver and these GPUs, if its name says so."""
    if not driver.gpus or driver.version is None:
        return ""
    if "rocm" in name or name.startswith("amd"):
        return "it is for GPUs of AMD's"
    made_for = re.search(r"cuda(\d\d)", name)
    major = int(made_for[1]) if made_for else 0
    if major > driver.version[0]:
        return f"it needs a driver for CUDA {major}, and this one is for {dotted(driver.version)}"
    if major >= CUDA[-1] and any(gpu.capability < TURING for gpu in driver.gpus):
        return f"CUDA {major} is for GPUs of compute capability {dotted(TURING)} or more"
    return ""


def runtime_of(cupy: Any) -> str:
    """The CUDA runtime that is part of CuPy, and the compiler NVRTC, which is a library of its own."""
    try:
        text = f"CUDA {dotted(cuda_version(cupy.cuda.runtime.runtimeGetVersion()))}"
    except Exception as error:
        text = brief(error)
    try:
        return f"{text}, NVRTC {dotted(cupy.cuda.nvrtc.getVersion())}"
    except Exception as error:
        return f"{text}; NVRTC, which compiles kernels, does not load: {brief(error)}"


def about_gpus(cupy: Any, count: int) -> list[Finding]:
    """The memory of each GPU, and whether the first one computes."""
    lines: list[Finding] = []
    for i in range(count):
        try:
            with cupy.cuda.Device(i):
                free, total = cupy.cuda.runtime.memGetInfo()
        except Exception as error:
            return [*lines, Finding("memory", f"GPU {i} does not tell: {brief(error)}", broken=True)]
        lines.append(Finding("memory", f"{free / GIBIBYTE:.1f} of {total / GIBIBYTE:.1f} GiB free on GPU {i}"))
    for what, compute in ATTEMPTS.items():
        try:
            result = compute(cupy)
        except Exception as error:
            return [*lines, Finding("kernel", f"{what}: {brief(error)}", broken=True)]
        if result != [2.0, 4.0]:
            return [*lines, Finding("kernel", f"{what}: {result} in place of [2.0, 4.0]", broken=True)]
    return [*lines, Finding("kernel", f"compiled and run: {', '.join(ATTEMPTS)}")]


def own_kernel(cupy: Any) -> list[float]:
    """KERNEL: by NVRTC."""
    x = cupy.asarray([1, 2], "float32")
    y = cupy.empty_like(x)
    cupy.RawKernel(KERNEL, "twice")((1,), (2,), (x, y))
    return y.get().tolist()


def element_by_element(cupy: Any) -> list[float]:
    """A kernel of CuPy's, which includes CUDA's header files."""
    x = cupy.asarray([1, 2], "float32")
    return (x + x).get().tolist()


def matrix_product(cupy: Any) -> list[float]:
    """By cuBLAS."""
    a = cupy.asarray([[2, 0], [0, 2]], "float32")
    return (a @ cupy.asarray([[1, 0], [2, 0]], "float32"))[:, 0].get().tolist()


ATTEMPTS: dict[str, Callable[[Any], list[float]]] = {
    "three lines of CUDA": own_kernel,
    "CuPy's own kernels": element_by_element,
    "matrix products by cuBLAS": matrix_product,
}


# -- what can compute -----------------------------------------------------------------
def about_gxx() -> Finding:
    """The compiler that cuda_on_cpu needs."""
    reason = compiler.why_not()
    if reason is not None:
        return Finding("g++", reason)
    command = compiler.compiler()
    try:
        version = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        return Finding("g++", f"does not start: {brief(error)}", broken=True)
    return Finding("g++", version.partition("\n")[0] or " ".join(command))


def about_backends(findings: Iterable[Finding]) -> list[Finding]:
    """The backends that work, each having been started; and those that should and do not."""
    works: list[str] = []
    lines: list[Finding] = []
    broken = {finding.name for finding in findings if finding.broken}
    for name in backends.NEEDS:
        if broken & PARTS.get(name, set()) or backends.why_not(name) is not None:
            continue
        try:
            backends.get(name).prepare()
        except Exception as error:
            install = (PACKAGES[name],) if name in PACKAGES else ()
            lines.append(Finding(name, f"is installed and does not load: {brief(error)}", True, install))
        else:
            works.append(name)
    return [*lines, Finding("works", ", ".join(works))]


if __name__ == "__main__":
    sys.exit(main())
