"""g++: whether it is here, what it is asked for, and where its results are kept.

Results lie in the user's cache folder, each under a key made of everything it depends on: the text with its included
files, the shim, the options and the compiler's version. So a change of any of them compiles anew, and nothing ever has
to be deleted. Several processes may compile the same at the same time: each works in a folder of its own, and the
finished file takes its place in one step.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .error import CudaOnCpuError

SHIM = Path(__file__).parent / "shim"
PROCESSORS = ("x86_64", "aarch64")

FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-gdwarf-4",  # which address belongs to which line; addr2line of binutils 2.40 gets version 5 wrong
    "-g1",
    "-w",
    "-fsigned-char",  # as CUDA; on aarch64 char is unsigned otherwise
    "-ffp-contract=off",  # no fused multiply-add, so that every processor gives the same result
    "-fno-strict-aliasing",  # a float* read through a float4*, as kernels do
    "-fno-threadsafe-statics",
    "-fvisibility=hidden",  # several of these libraries live in one process, each with its own shared memory
    "-fno-gnu-unique",
    "-U_FORTIFY_SOURCE",  # it takes a change of stacks for an attack
]
# For the kernels themselves; see checks.cpp. Unlike the race checker these are cheap enough to be always on.
FLAG_OF = {
    "x86_64": "-fcf-protection=none",
    "aarch64": "-mtls-dialect=trad",  # else the system does not tell where thread_local variables lie
}
CHECKS = [
    "-fsanitize=bounds,alignment,shift-exponent,integer-divide-by-zero",
    "-fno-sanitize-recover=all",
]
# A watched run (watch.cpp). Without optimisation each access in the text is one access of the program, in its order.
WATCHED = ["-O0", "-DCUDA_ON_CPU_WATCH", "-D__restrict__=", "-fsanitize=thread"]
UNWATCHED = ["-O1"]
LINK = ["-shared", "-Wl,-z,defs", "-ldl", "-lpthread"]
UNUSED_FOR = 60  # days, after which a library is deleted


# -- the compiler -----------------------------------------------------------------
def why_not() -> str | None:
    """Why kernels cannot be run on this machine's CPU, with the remedy; None if they can."""
    system, processor = platform.system(), platform.machine()
    if system != "Linux" or processor not in PROCESSORS:
        return (
            f"cuda_on_cpu runs on Linux, on x86-64 and aarch64 processors, and this is {system} on {processor}: "
            "use it in a Linux container or virtual machine; everything else works here"
        )
    command = compiler()
    if not command or shutil.which(command[0]) is None:
        where = "named by CXX" if os.environ.get("CXX") else "not found"
        return (
            f"cuda_on_cpu needs a C++ compiler, and {command[0] if command else 'g++'} is {where}"
            f"{' and not found' if os.environ.get('CXX') else ''}: install g++ "
            "(`sudo apt install g++`, or `sudo dnf install gcc-c++`), or name another in the variable CXX"
        )
    return None


def compiler() -> list[str]:
    """The command that compiles: what the environment variable CXX says, else g++."""
    named = os.environ.get("CXX", "")
    try:
        return shlex.split(named) or ["g++"]
    except ValueError:  # quotes that do not match
        return [named]


@functools.cache
def version(command: tuple[str, ...]) -> str:
    """What the compiler says of itself."""
    return run([*command, "--version"], Path.cwd(), "the compiler does not start")


def run(command: list[str], folder: Path, problem: str) -> str:
    """What a command prints; CudaOnCpuError with its complaint if it fails."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise CudaOnCpuError(f"{problem}: {command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        complaint = done.stderr.strip() or f"{command[0]} ends with status {done.returncode} and says nothing"
        raise CudaOnCpuError(f"{problem}:\n{complaint}")
    return done.stdout


def keep(made: Path, path: Path) -> None:
    """Put what the compiler has made into the cache, whole or not at all."""
    try:
        os.replace(made, path)
    except FileNotFoundError:
        raise CudaOnCpuError(f"{compiler()[0]} has compiled nothing: it is not a C++ compiler") from None


# -- the cache --------------------------------------------------------------------
@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="minitorch_alex-")  # deleted when Python ends


def cache_folder() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME or ~/.cache; if that is not to be written, only this run's."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = home / "minitorch_alex" / "cuda_on_cpu"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        pass
    return Path(_temporary_folder().name)


def key_of(*parts: str) -> str:
    """A name for what these texts determine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]


@functools.cache
def shim_text() -> str:
    """Everything in the shim."""
    return "\0".join(f"{file.name}\0{file.read_text(encoding='utf-8')}" for file in sorted(SHIM.iterdir()))


def forget_unused(folder: Path) -> None:
    """Delete libraries that were not used for a long time, and what an interrupted run left behind."""
    for path in folder.iterdir():
        try:
            if time.time() - path.stat().st_mtime > UNUSED_FOR * 24 * 3600:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError:  # another process was quicker
            continue


# -- compiling --------------------------------------------------------------------
def library(text: str, name: str, watched: bool, options: tuple[str, ...] = ()) -> Path:
    """The compiled library of a translated file (Source.for_cpu), from the cache if it is there."""
    reason = why_not()
    if reason is not None:
        raise CudaOnCpuError(reason)
    command = compiler()
    flags = [*FLAGS, FLAG_OF[platform.machine()], *options]
    wishes = [*CHECKS, *(WATCHED if watched else UNWATCHED)]
    basis = [shim_text(), *command, version(tuple(command)), *flags, *WATCHED, *UNWATCHED, *CHECKS, *LINK]
    folder = cache_folder()
    path = folder / f"{key_of(str(watched), text, *basis)}.so"
    if path.exists():
        os.utime(path)
        return path
    forget_unused(folder)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        work_folder = Path(work)
        runtime = _runtime(folder, work_folder, watched, [*command, *flags], basis)
        (work_folder / "kernels.cpp").write_text(text, encoding="utf-8")
        compile_it = [*command, *flags, *wishes, f"-I{SHIM}", "-c", "kernels.cpp", "-o", "kernels.o"]
        run(compile_it, work_folder, f"{name} does not compile")
        run([*command, "kernels.o", str(runtime), *LINK, "-o", "library.so"], work_folder, f"{name} does not link")
        keep(work_folder / "library.so", path)
    return path


def _runtime(folder: Path, work_folder: Path, watched: bool, command: list[str], basis: list[str]) -> Path:
    """The shim's own part, which is the same for all kernels: compiled once."""
    path = folder / f"{key_of('runtime', str(watched), *basis)}.o"
    if path.exists():
        os.utime(path)
        return path
    files = [
        "launch.cpp",
        "scheduler.cpp",
        "fibers.cpp",
        "shared_memory.cpp",
        "checks.cpp",
        *(["watch.cpp"] if watched else []),
    ]
    wishes = ["-O1", *(["-DCUDA_ON_CPU_WATCH"] if watched else [])]
    run([*command, *wishes, "-c", *(str(SHIM / file) for file in files)], work_folder, "the shim does not compile")
    objects = [file.replace(".cpp", ".o") for file in files]
    run([*command, "-r", "-nostdlib", *objects, "-o", "together.o"], work_folder, "the shim does not link")
    keep(work_folder / "together.o", path)
    return path


# -- which line is that? ----------------------------------------------------------
def lines_of(path: Path, offsets: list[int]) -> dict[int, str]:
    """The places in the source, such as "lrn.cu:31", of places in a library."""
    lines = {offset: f"address {offset:#x} of {path.name}" for offset in offsets}
    tool = shutil.which("addr2line")
    if tool is None:
        return {
            offset: f"{line} (addr2line, of the package binutils, would name the line)"
            for offset, line in lines.items()
        }
    command = [tool, "-a", "-i", "-s", "-e", str(path), *map(hex, offsets)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    # Each address, and then its place: first in the innermost of the functions that were built into one another.
    answers = re.split(r"^0x[0-9a-f]+$", done.stdout, flags=re.M)[1:]
    shim_files = {file.name for file in SHIM.iterdir()}
    for offset, answer in zip(offsets, answers, strict=False):
        for place in re.findall(r"^([^?\n][^\n]*:\d+)", answer, flags=re.M):
            if place.rsplit(":", 1)[0] not in shim_files:
                lines[offset] = place
                break
    return lines
