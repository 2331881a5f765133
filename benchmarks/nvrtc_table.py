"""What each CUDA kernel takes of a GPU, asked of NVIDIA's compiler alone: neither a GPU nor a driver is needed.

    pip install nvidia-cuda-nvrtc nvidia-cuda-runtime
    python -m benchmarks.nvrtc_table

prints a table and keeps it in benchmarks/results/kernels.txt: registers of a thread, shared memory of a block, bytes on
the stack, and bytes spilled, which is what found no room in the registers and goes to memory instead.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import importlib.util
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from minitorch_alex.cuda_on_cpu import kernel_folder
from minitorch_alex.cuda_on_cpu.source import read

RESULT = Path(__file__).parent / "results" / "kernels.txt"
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")  # T4, A100, H100 and H200, B200, RTX 50
PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime")  # the compiler, and the headers it reads
MEMORY = ("shared", "stack", "spills")
# What CuPy itself adds, so that the program looked at is the one that runs; and then what it takes.
CUPY_OPTIONS = ("-std=c++17", "-ftz=true", "--device-as-default-execution-space")
OPTIONS = (*CUPY_OPTIONS, "--ptxas-options=-v")


class CompileError(Exception):
    """A kernel that the compiler refuses, or whose instances cannot be told. The message is the compiler's."""


class Resources(NamedTuple):
    """What one instance of a kernel takes on one architecture. Memory is in bytes."""

    file: str
    kernel: str
    architecture: str
    registers: int
    shared: int
    stack: int
    spills: int


# -- which instances there are ------------------------------------------------------
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(
    r"(?:template\s*<([^>]*)>\s*)?"  # its parameters, if it is a template
    r"__global__\s+(?:\w+\s+|__launch_bounds__\s*\([^)]*\)\s*)*"  # void, launch bounds
    r"(\w+)\s*\("  # its name
)
_INSTANCES = re.compile(r"^// *instances: *(.+)$", re.MULTILINE)


def instances(source: str) -> list[str]:
    """The kernels of a .cu file by the names under which CuPy takes them.

    A `template <typename T>` has two instances, float and double. A template of another kind needs a comment with its
    own, `// instances: name<float, 5>; name<double, 5>`, which then stand for this kernel. Where bfloat16.cuh is
    included, there is a third for each of float.
    """
    named = [name.strip() for line in _INSTANCES.findall(source) for name in line.split(";") if name.strip()]
    found = []
    for parameters, kernel in _KERNEL.findall(_COMMENT.sub(" ", source)):
        own = [name for name in named if name.split("<")[0] == kernel]
        if own:
            found += own
        elif not parameters:
            found.append(kernel)
        elif re.fullmatch(r"\s*(typename|class)\s+\w+\s*", parameters):
            found += [f"{kernel}<float>", f"{kernel}<double>"]
        else:
            raise CompileError(f"{kernel} is a template <{parameters}>: name them, // instances: {kernel}<...>; ...")
    if '#include "bfloat16.cuh"' in source:
        found += [name.replace("<float", "<bfloat16") for name in found if "<float" in name]
    lost = {name.split("<")[0] for name in named} - {name.split("<")[0] for name in found}
    if lost:
        raise CompileError(f"instances of {', '.join(sorted(lost))} are named, but there is no such kernel")
    return found


# -- the compiler -------------------------------------------------------------------
def _nvidia(pattern: str) -> Path | None:
    """The first such file of those that NVIDIA's packages have installed."""
    spec = importlib.util.find_spec("nvidia")
    folders = spec.submodule_search_locations if spec else None
    return next((found for folder in folders or () for found in sorted(Path(folder).glob(pattern))), None)


def why_not() -> str | None:
    """Why nothing can be compiled here, or None if it can."""
    missing = [p for p, file in zip(PACKAGES, ("**/libnvrtc.so.*", "**/cuda_fp16.h"), strict=True) if not _nvidia(file)]
    return f"no NVRTC: pip install {' '.join(missing)}" if missing else None


@functools.cache
def _library() -> ctypes.CDLL:
    reason, path = why_not(), _nvidia("**/libnvrtc.so.*")
    if reason is not None:
        raise CompileError(reason)
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def _call(name: str, *arguments: object) -> None:
    code = getattr(_library(), name)(*arguments)
    if code:
        raise CompileError(f"{name}: {_library().nvrtcGetErrorString(code).decode()}")


def version() -> str:
    """The compiler's: that of the CUDA toolkit it belongs to."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _call("nvrtcVersion", ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def architectures() -> list[str]:
    """Those of ARCHITECTURES that this compiler knows."""
    count = ctypes.c_int()
    _call("nvrtcGetNumSupportedArchs", ctypes.byref(count))
    known = (ctypes.c_int * count.value)()
    _call("nvrtcGetSupportedArchs", known)
    return [a for a in ARCHITECTURES if int(a.removeprefix("sm_")) in list(known)]


def _text(what: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(f"nvrtcGet{what}", program, buffer)
    return buffer.value.decode()


def compile_kernels(path: Path, architecture: str, names: Iterable[str]) -> tuple[list[Resources], str]:
    """Compile these instances of the kernels in a .cu file: what each takes, and the assembly text (PTX) of all.

    What is compiled is the text that CuPy is given, with the included files in it.
    """
    names = list(names)
    headers = _nvidia("**/cuda_fp16.h").parent  # type: ignore[union-attr]
    options = [f"-arch={architecture}", *OPTIONS, f"-I{headers}"]
    program = ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), read(path).text.encode(), path.name.encode(), 0, None, None)
    try:
        for name in names:
            _call("nvrtcAddNameExpression", program, name.encode())
        arguments = (ctypes.c_char_p * len(options))(*[o.encode() for o in options])
        try:
            _call("nvrtcCompileProgram", program, len(options), arguments)
        except CompileError as error:
            raise CompileError(f"{path.name} for {architecture}: {error}\n{_text('ProgramLog', program)}") from None
        used, rows = _used(_text("ProgramLog", program)), []
        for name in names:
            lowered = ctypes.c_char_p()
            _call("nvrtcGetLoweredName", program, name.encode(), ctypes.byref(lowered))
            if lowered.value is None or lowered.value.decode() not in used:
                raise CompileError(f"{path.name} for {architecture}: the compiler says nothing about {name}")
            rows.append(Resources(path.name, name, architecture, *used[lowered.value.decode()]))
        return rows, _text("PTX", program)
    finally:
        _call("nvrtcDestroyProgram", ctypes.byref(program))


def _used(log: str) -> dict[str, tuple[int, int, int, int]]:
    """Registers, shared memory, stack and spills by the compiler's own names of the kernels."""
    found = {}
    for part in log.split("Compiling entry function '")[1:]:
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        stack = sum(int(n) for n in re.findall(r"(\d+) bytes stack frame", part))
        spills = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))  # stores and loads
        if registers:
            found[part.split("'")[0]] = (int(registers[1]), int(shared[1]) if shared else 0, stack, spills)
    return found


# -- the table ----------------------------------------------------------------------
def measure(files: Iterable[Path], wanted: Collection[str] = ARCHITECTURES) -> list[Resources]:
    """Every instance of every kernel in these files, for those of the wanted architectures that the compiler knows."""
    return [
        row
        for path in files
        for architecture in architectures()
        if architecture in wanted
        for row in compile_kernels(path, architecture, instances(path.read_text()))[0]
    ]


def table(rows: Iterable[Resources]) -> str:
    """One line per kernel: registers on each architecture; of the rest the largest on any."""
    kernels: dict[tuple[str, str], list[Resources]] = {}
    for row in rows:
        kernels.setdefault((row.file, row.kernel), []).append(row)
    names = architectures()
    widths = [max(len(text) for text in column) + 2 for column in zip(*kernels, strict=True)] or [6, 8]
    lines = [
        f"NVRTC {version()}, {' '.join(CUPY_OPTIONS)}",
        "registers of a thread on each GPU; bytes of a block's shared memory, of a thread's stack, and spilled",
        f"{'file':<{widths[0]}}{'kernel':<{widths[1]}}" + "".join(f"{n:>8}" for n in (*names, *MEMORY)),
    ]
    for (file, kernel), found in kernels.items():
        registers = {row.architecture: row.registers for row in found}
        most = [max(getattr(row, what) for row in found) for what in MEMORY]
        numbers = "".join(f"{n:>8}" for n in (*(registers[name] for name in names), *most))
        lines.append(f"{file:<{widths[0]}}{kernel:<{widths[1]}}{numbers}")
    return "\n".join(lines) + "\n"


def main() -> None:
    argparse.ArgumentParser(prog="python -m benchmarks.nvrtc_table", description=__doc__).parse_args()
    reason = why_not()
    if reason is not None:
        raise SystemExit(reason)
    text = table(measure(sorted(kernel_folder().glob("*.cu"))))
    RESULT.write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
