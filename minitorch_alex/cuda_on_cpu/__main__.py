"""CUDA kernels for the hand: `python -m minitorch_alex.cuda_on_cpu lrn` runs those of lrn.cu on a small example.

    python -m minitorch_alex.cuda_on_cpu                              the kernels there are, and which a GPU has run
    python -m minitorch_alex.cuda_on_cpu lrn                          run the kernels of a file
    python -m minitorch_alex.cuda_on_cpu matmul:matmul_tiled          run one of them
    python -m minitorch_alex.cuda_on_cpu vector_add --trace 3         what does thread 3 do?
    python -m minitorch_alex.cuda_on_cpu mistakes:lost_update --race  do threads get into each other's way?

Change a .cu file and run it again: it is compiled anew.
"""

# ruff: noqa: T201

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path

import numpy

from ..command_line import OneLineParser, reported
from . import CudaOnCpuError, Kernel, compiler, kernel_folder, load, why_not
from .examples import EXAMPLES, Draw, Example
from .proven import proven
from .source import TEACHING, Source, find, read
from .watch import Step

MOST_VALUES = 10  # of an array
MOST_STEPS = 40  # of a thread, where several kernels are traced
NOT_WRITTEN = {"f": -77, "i": -77, "u": 77}  # as Draw.empty


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status, see command_line.py: 1 where a kernel does something wrong."""
    parser = OneLineParser(
        prog="python -m minitorch_alex.cuda_on_cpu", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("kernels", nargs="?", metavar="FILE[:KERNEL]", help="such as lrn, or matmul:matmul_tiled")
    parser.add_argument("--trace", type=position, metavar="[BLOCK:]THREAD", help="tell what one thread does (from 0)")
    parser.add_argument("--race", action="store_true", help="watch every access to memory, for races")
    parser.add_argument("--double", action="store_true", help="double instead of float")
    given = parser.parse_args(arguments)
    if given.kernels is None and (given.trace or given.race or given.double):
        parser.error("say which kernel, such as lrn; without a name they are only listed")
    work = show_list if given.kernels is None else lambda: run(given)
    return reported("cuda_on_cpu", work, given.debug, also=(CudaOnCpuError,))


def position(text: str) -> tuple[int, int]:
    """Block and thread of "3" or "1:3"."""
    if not re.fullmatch(r"(\d+:)?\d+", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a thread's number, such as 3, nor BLOCK:THREAD, such as 1:3"
        )
    block, thread = text.split(":") if ":" in text else ("0", text)
    return int(block), int(thread)


# -- the list -----------------------------------------------------------------------
def show_list() -> int:
    """Every file with its title, its kernels, and whether a GPU has run it in its present form."""
    ran_on = proven()
    for folder in (kernel_folder(), TEACHING):
        for path in sorted(folder.glob("*.cu")):
            source = read(path)
            print(f"{path.stem:<24}{textwrap.shorten(source.title, 96, placeholder=' ...')}")
            names = "  ".join(source.kernels)
            print(textwrap.fill(names, 110, initial_indent=" " * 24, subsequent_indent=" " * 24))
            if folder == kernel_folder():
                gpu = ran_on.get(path.name)
                print(" " * 24 + (f"ran on {gpu}" if gpu else "not yet run on a GPU"))
    return 0


# -- running ------------------------------------------------------------------------
def run(given: argparse.Namespace) -> int:
    """Run the kernels that were asked for."""
    reason = why_not()
    if reason is not None:
        raise CudaOnCpuError(reason)
    path, names = chosen(given.kernels)
    source = read(path)
    if not names:
        raise CudaOnCpuError(f"{path.name} has no kernels: others include it")
    compiler.version(tuple(compiler.compiler()))  # if it does not start, once is enough to say so
    without = [name for name in names if f"{path.name}:{name}" not in EXAMPLES]
    for name in without:
        print(f"{path.name}: {name} has no example yet; minitorch_alex/cuda_on_cpu/examples.py is where to write one")
    names = [name for name in names if name not in without]
    if not names:
        return 2
    print(f"{path.name}: {source.title}")
    dtype = "float64" if given.double else "float32"
    examples = {name: EXAMPLES[f"{path.name}:{name}"](Draw(dtype)) for name in names}
    expressions = {name: expression(source, name, examples[name], given.double) for name in names}
    module = load(path, list(expressions.values()))
    right = True
    for name, example in examples.items():
        kernel = module.get_function(expressions[name])
        print(f"\n{kernel.name}, {launch_in_words(example)} ({path.name}:{kernel.declaration.line})")
        right &= run_one(kernel, example, given.race)
        if given.trace is not None:
            block, thread = given.trace
            most = MOST_STEPS if len(names) > 1 else sys.maxsize
            right &= trace(kernel, example, block, thread, most, path.parent)
    return 0 if right else 1


def chosen(text: str) -> tuple[Path, list[str]]:
    """The file and the kernels that "lrn", "lrn:local_response_norm" or "local_response_norm" mean."""
    file, _, name = text.partition(":")
    try:
        path = find(file)
    except CudaOnCpuError:
        for other in sorted([*kernel_folder().glob("*.cu"), *TEACHING.glob("*.cu")]):
            if not name and file in read(other).kernels:
                return other, [file]
        raise CudaOnCpuError(f"there is no {text!r}: without a name the command lists the kernels") from None
    source = read(path)
    return path, [source.declaration(name).name] if name else list(source.kernels)


def expression(source: Source, name: str, example: Example, double: bool) -> str:
    """The instance of a kernel that an example is for, such as "lrn<float, 5>"."""
    if not source.kernels[name].template:
        return name
    rest = f", {example.template}" if example.template else ""
    return f"{name}<{'double' if double else 'float'}{rest}>"


def run_one(kernel: Kernel, example: Example, race: bool) -> bool:
    """Run a kernel and show what went in and came out. False if something is wrong."""
    before = [value.copy() if isinstance(value, numpy.ndarray) else value for value in example.arguments]
    shape = example.grid, example.block
    try:
        if race:  # alone, so that a race is not hidden behind what else it leads to
            kernel(*shape, [copy_of(value) for value in before], shared_mem=example.shared_mem, race=True)
        kernel.in_every_order(*shape, example.arguments, shared_mem=example.shared_mem)
    except CudaOnCpuError as error:
        print("wrong: " + str(error).removeprefix(f"{kernel.name}: ").replace("\n", "\nwrong: "))
        return False
    for name, code, old, new in zip(
        kernel.declaration.parameters, kernel.codes, before, example.arguments, strict=True
    ):
        for line in argument_lines(code, old, new):
            print(f"    {name:<14} {line}")
    for name in invalid(kernel, before, example.arguments):
        print(f"wrong: {name} holds NaN, though nothing that came in does: has everything been written that is read?")
        return False
    checked = "the same bits in three orders of the threads, nothing outside of the arrays"
    print(f"right: {checked}{', no races' if race else ''}")
    return True


def invalid(kernel: Kernel, before: list, after: list) -> list[str]:
    """The results with NaN in them, if no argument had any."""
    floats = [value for value in before if isinstance(value, numpy.ndarray) and value.dtype.kind == "f"]
    if any(numpy.isnan(value).any() for value in floats):
        return []
    pairs = zip(kernel.declaration.parameters, after, strict=True)
    return [name for name, value in pairs if isinstance(value, numpy.ndarray) and (value != value).any()]


def copy_of(value: object) -> object:
    return value.copy() if isinstance(value, numpy.ndarray) else value


def trace(kernel: Kernel, example: Example, block: int, thread: int, most: int, folder: Path) -> bool:
    """Show what one thread does, below the lines of the source. False if something is wrong."""
    blocks, threads = numpy.prod(example.grid), numpy.prod(example.block)
    if block >= blocks or thread >= threads:
        raise CudaOnCpuError(
            f"there is no thread {thread} in block {block}: {launch_in_words(example)}, counted from 0"
        )
    problem = ""
    try:
        shape = example.grid, example.block, example.arguments
        steps = kernel.trace(*shape, shared_mem=example.shared_mem, thread=thread, in_block=block)
    except CudaOnCpuError as error:
        steps, problem = error.steps, str(error)
    print(f"thread {thread} of block {block}:" + ("" if steps else " touches no memory"))
    show_steps(steps[:most], folder)
    if len(steps) > most:
        print(f"    ... and {len(steps) - most} steps more; name the kernel, as in FILE:KERNEL, to see all")
    if problem:
        print(f"wrong: {problem}")
    return not problem


def show_steps(steps: list[Step], folder: Path) -> None:
    """Steps, those of one line together below its text."""
    last = ""
    for step in steps:
        if step.line != last:
            print(f"  {step.line}  {source_line(step.line, folder)}")
        last = step.line
        print(f"      {step.text}")


def source_line(place: str, folder: Path) -> str:
    """The text at a place such as "lrn.cu:57"."""
    file, _, number = place.rpartition(":")
    if not number.isdigit() or not (folder / file).is_file():
        return ""
    return (folder / file).read_text(encoding="utf-8").splitlines()[int(number) - 1].strip()


# -- showing ------------------------------------------------------------------------
def launch_in_words(example: Example) -> str:
    """Such as "2 blocks of 16 x 16 threads"."""
    blocks, threads = (" x ".join(str(n) for n in shape) for shape in (example.grid, example.block))
    memory = f", {example.shared_mem} bytes of shared memory" if example.shared_mem else ""
    return f"{blocks} block{'' if blocks == '1' else 's'} of {threads} thread{'' if threads == '1' else 's'}{memory}"


def argument_lines(code: str, old: object, new: object) -> list[str]:
    """An argument before and, where the kernel may write it, after the launch."""
    if not isinstance(old, numpy.ndarray) or not isinstance(new, numpy.ndarray):
        return [f"{old}"]
    nothing = NOT_WRITTEN.get(old.dtype.kind)
    lines = [] if code[0] == "P" and (old == nothing).all() else [f"{old.shape}  {values_of(old)}"]
    if code[0] == "P" and not numpy.array_equal(old, new):
        forgotten = int((new == nothing).sum()) if not lines else 0
        note = f"  ({forgotten} elements were not written)" if forgotten else ""
        lines.append(f"{new.shape} -> {values_of(new)}{note}")
    return lines or [f"{new.shape} -> nothing was written"]


def values_of(array: numpy.ndarray) -> str:
    """The first values of an array."""
    values = array.ravel()[:MOST_VALUES]
    texts = [f"{value:.3g}" if array.dtype.kind == "f" else str(value) for value in values]
    return " ".join(texts) + (" ..." if array.size > MOST_VALUES else "")


if __name__ == "__main__":
    sys.exit(main())
