"""The kernels on a GPU, once, and on record: `python -m benchmarks.gpu_proof`.

    1. Every kernel on its small example, in every type, on the GPU and on the CPU: are the results the same?
    2. All tests that need a GPU, none of which may be skipped for want of one.
    3. The first again under compute-sanitizer: memcheck (what touches memory it must not), racecheck (races in shared
       memory). Where the program is missing or refuses this GPU, that is recorded.

If all is well, kernels/proven.json says which GPU ran which text (minitorch_alex/cuda_on_cpu/proven.py reads it). A
kernel that is changed afterwards counts as unproven again. If anything is wrong, nothing is recorded. Exit status: 0
recorded, 1 something is wrong, 2 there is no GPU, or no g++.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy

from minitorch_alex import backends
from minitorch_alex.backends.number_types import BFLOAT16, bfloat16, is_floating
from minitorch_alex.backends.thread_pool import usable_cores
from minitorch_alex.cuda_on_cpu import kernel_folder, load, why_not
from minitorch_alex.cuda_on_cpu.arguments import check
from minitorch_alex.cuda_on_cpu.examples import EXAMPLES, Draw
from minitorch_alex.cuda_on_cpu.proven import RECORD, digest
from minitorch_alex.cuda_on_cpu.source import read

from .gpu_kernels import distance
from .gpu_timing import gpu_machine

ROOT = Path(__file__).parents[1]
TOLERANCE = {
    "float32": 1e-5,
    "float64": 1e-12,
    BFLOAT16: 1e-2,
}  # of the largest number: exp and pow differ in their last digits
TYPES = {"float32": "float", "float64": "double", BFLOAT16: "bfloat16"}
TESTS = ["-m", "gpu and not slow", "-q", "-p", "no:cacheprovider"]
SANITIZERS = ("memcheck", "racecheck")
SANITIZER_SECONDS = 100  # at most, for each of the two
REFUSAL = re.compile(r"not supported|Error: |no attachable process|internal sanitizer error", re.I)
RAN = "every kernel ran"  # what a run under the sanitizer ends with
PLACES = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")  # of compute-sanitizer, besides PATH


class ProofError(Exception):
    """Something is wrong on the GPU."""


def main(arguments: list[str] | None = None) -> int:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_proof", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, default=kernel_folder() / RECORD, metavar="FILE", help="for the record")
    made.add_argument("--no-sanitizer", action="store_true", help="leave compute-sanitizer out")
    made.add_argument("--test-seconds", type=float, default=300, help="for the tests at most (default: 300)")
    made.add_argument("--only-run", action="store_true", help=argparse.SUPPRESS)  # what runs under the sanitizer
    given = made.parse_args(arguments)
    reason = backends.why_not("cupy") or why_not()
    if reason is not None:
        print(f"gpu_proof: {reason}", file=sys.stderr)
        return 2
    backends.use("cupy")
    if given.only_run:
        return run_under_sanitizer()
    try:
        record = prove(given.test_seconds, given.no_sanitizer)
    except ProofError as error:
        print(f"gpu_proof: nothing is recorded: {error}", file=sys.stderr)
        return 1
    given.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(f"{len(record['files'])} files are recorded in {given.out}; {record['tests']}, {record['sanitizer']}")
    return 0


def prove(test_seconds: float, no_sanitizer: bool) -> dict[str, Any]:
    """Everything; the record, or ProofError."""
    digests = {path.name: digest(path) for path in sorted(kernel_folder().glob("*.cu"))}  # before they run
    every = [OnBoth(file) for file in digests]
    examples = {both.file: {instance: both.compare(instance) for instance in both.examples} for both in every}
    print(f"{sum(map(len, examples.values()))} launches give what they give on the CPU", flush=True)
    tests = run_tests(test_seconds)
    print(f"tests: {tests}", flush=True)
    skipped = dict.fromkeys(SANITIZERS, "left out")
    sanitizer = skipped if no_sanitizer else {name: run_sanitizer(name) for name in SANITIZERS}
    machine = gpu_machine(backends.current())
    changed = [file for file, before in digests.items() if digest(kernel_folder() / file) != before]
    if changed:
        raise ProofError(f"{', '.join(changed)} changed meanwhile")
    files = {
        file: {"sha256": digests[file], "gpu": machine["gpu"], "date": machine["date"], "largest_difference": runs}
        for file, runs in examples.items()
    }
    command = "python -m benchmarks.gpu_proof"
    return {"command": command, "machine": machine, "tests": tests, "sanitizer": sanitizer, "files": files}


# -- 1. every kernel ------------------------------------------------------------------------
class OnBoth:
    """The kernels of a file, compiled for the GPU and for the CPU, with their examples by instance."""

    def __init__(self, file: str) -> None:
        self.file, self.examples = file, {}
        source = read(file)
        types = {name: T for name, T in TYPES.items() if name != BFLOAT16 or "struct bfloat16" in source.text}
        for name, declaration in source.kernels.items():
            if f"{file}:{name}" not in EXAMPLES:
                raise ProofError(f"{file}: {name} has no example in minitorch_alex/cuda_on_cpu/examples.py yet")
            for dtype, T in types.items():
                example = EXAMPLES[f"{file}:{name}"](Draw(bfloat16() if dtype == BFLOAT16 else dtype))
                template = f"<{', '.join(filter(None, (T, example.template)))}>"
                instance = f"{name}{template if declaration.template else ''}"
                self.examples.setdefault(instance, (example, dtype))
        self.cpu = load(file, list(self.examples))
        self.gpu = backends.current().compile(file, list(self.examples))

    def arguments(self, instance: str) -> list[Any]:
        """Those of the example: arrays, and numbers of the widths that the kernel takes."""
        kernel = self.cpu.get_function(instance)
        example, _ = self.examples[instance]
        given = [widened(code, value) for code, value in zip(kernel.codes, example.arguments, strict=True)]
        return check(instance, kernel.declaration.parameters, kernel.codes, given)

    def launch(self, instance: str) -> list[Any]:
        """Run a kernel on the GPU. Its arguments afterwards, arrays as copies; what is given twice is one array."""
        backend, (example, _) = backends.current(), self.examples[instance]
        values = self.arguments(instance)
        arrays = {id(value): backend.xp.array(value) for value in values if isinstance(value, numpy.ndarray)}
        given = tuple(arrays.get(id(value), value) for value in values)
        self.gpu.get_function(instance)(example.grid, example.block, given, shared_mem=example.shared_mem)
        return [backend.to_numpy(arrays[id(v)]) if id(v) in arrays else v for v in values]

    def compare(self, instance: str) -> float:
        """How far what the GPU leaves is from what the CPU leaves, in parts of the largest; ProofError: too far."""
        example, dtype = self.examples[instance]
        found, expected = self.launch(instance), self.arguments(instance)
        self.cpu.get_function(instance)(example.grid, example.block, expected, shared_mem=example.shared_mem)
        pairs = zip(found, expected, strict=True)
        far = float(numpy.max([difference(a, b) for a, b in pairs if isinstance(b, numpy.ndarray)]))  # NaN stays NaN
        if not far <= TOLERANCE[dtype]:
            raise ProofError(f"{self.file}: {instance} is {far:.1e} off what it gives on the CPU")
        return far


def widened(code: str, value: Any) -> Any:
    """What is of bfloat16 as float32, where a kernel takes that: numbers, and sums."""
    return value.astype("float32") if getattr(value, "dtype", None) == BFLOAT16 and code.endswith("f4") else value


def difference(found: numpy.ndarray, expected: numpy.ndarray) -> float:
    """As distance; whole numbers must be equal."""
    if is_floating(expected.dtype):
        return distance(found, expected)
    return 0.0 if numpy.array_equal(found, expected) else math.inf


# -- 2. the tests ---------------------------------------------------------------------------
def run_tests(seconds: float) -> dict[str, Any]:
    """How many tests ran and passed. ProofError if one failed, one found no GPU, or none ran."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", *TESTS, *side_by_side(), f"--junitxml={report}"]
        # Other plugins that happen to be installed may warn, and a warning counts as an error.
        environment = {**os.environ, "MINITORCH_ALEX_REQUIRE_GPU": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            raise ProofError(f"the tests took more than {seconds:g} s: --test-seconds gives them more") from None
        counted = counts(report) if report.is_file() else {"ran": 0, "passed": 0, "failed": 0, "skipped": 0}
    if done.returncode != 0 or not counted["passed"]:
        raise ProofError(f"the tests that need a GPU: {counted}, exit status {done.returncode}")
    return {"command": "MINITORCH_ALEX_REQUIRE_GPU=1 python -m pytest -m 'gpu and not slow'", **counted}


def side_by_side() -> list[str]:
    """What has pytest-xdist, if it is installed, run the tests in several processes.

    Most of their time is CuPy's, which compiles hundreds of small kernels of its own.
    """
    processes = min(8, usable_cores())
    return ["-p", "xdist", "-n", str(processes)] if importlib.util.find_spec("xdist") and processes > 1 else []


def counts(report: Path) -> dict[str, int]:
    """From pytest's own account of its run."""
    suites = list(ElementTree.parse(report).iter("testsuite"))
    ran, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return {"ran": ran, "passed": ran - failed - skipped, "failed": failed, "skipped": skipped}


# -- 3. compute-sanitizer -------------------------------------------------------------------
def run_under_sanitizer() -> int:
    """Every kernel once, each array in memory of its own, so that one index too far is seen."""
    backends.current().xp.cuda.set_allocator(None)  # no pool
    for path in sorted(kernel_folder().glob("*.cu")):
        both = OnBoth(path.name)
        for instance in both.examples:
            both.launch(instance)
    print(RAN)
    return 0


def run_sanitizer(tool: str) -> str:
    """What compute-sanitizer says at its end, or why it was not done. ProofError if it found something."""
    program = shutil.which("compute-sanitizer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))
    if program is None:
        return "not done: compute-sanitizer, of the CUDA toolkit, is not installed"
    options = ["--report-api-errors", "no"] if tool == "memcheck" else []  # CuPy tries and handles what may fail
    command = [program, "--tool", tool, *options, sys.executable, "-m", "benchmarks.gpu_proof", "--only-run"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SANITIZER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return f"not done: it took more than {SANITIZER_SECONDS} s"
    except OSError as error:
        return f"not done: {error.strerror}"
    found = verdict(done.stdout + done.stderr)
    print(f"{tool}: {found}", flush=True)
    return found


def verdict(output: str) -> str:
    """What the sanitizer's output means: its summary without errors, or "not done: ..."; else ProofError."""
    said = [line.removeprefix("=========").strip() for line in output.splitlines() if line.startswith("=========")]
    summary = next((line for line in reversed(said) if "SUMMARY" in line), "")
    counts_of_errors = [int(number) for number in re.findall(r"\d+", summary)]
    refusal = next((line for line in said if REFUSAL.search(line)), "")
    if refusal and not any(counts_of_errors):
        return f"not done: {refusal}"
    if counts_of_errors and not any(counts_of_errors) and RAN in output:
        return summary
    last = output.strip().splitlines()[-1:] or ["nothing"]
    raise ProofError(f"compute-sanitizer says {summary or last[0]!r}:\n" + "\n".join(said[:20]))


if __name__ == "__main__":
    sys.exit(main())
