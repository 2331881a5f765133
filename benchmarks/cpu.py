"""How fast this is on a CPU, beside PyTorch, Keras and JAX: `python -m benchmarks.cpu` (`--quick` in three minutes).

    training     images a second of whole training steps
    forward      ... of forward passes in evaluation
    layers       each layer alone, forward and backward, beside PyTorch
    memory       the peak of a training step, less what importing takes
    scaling      step time against batch size, backward against the depth of the graph: straight lines?
    compilation  what a first step takes longer, with an empty cache of kernels and with a full one
    pipeline     how long training waits for its photographs

Every contestant is a process of its own and has all cores when it is its turn. Before anything is timed, scores and
gradients are compared with the reference in float64; where they differ, that is said and no number is given. A peer
that is not installed, or fails, is named. With --python-of a peer may be installed for another Python, which needs
what minitorch_alex needs. The results are kept as cpu.json, cpu.txt and cpu.png in benchmarks/results, or in the folder
--out, after every row. Exit status: 0 measured, 1 something of ours computes other results than the reference or does
not run, 2 something in the request is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from minitorch_alex.command_line import reported
from minitorch_alex.config import ConfigError

from .cpu_networks import NETWORKS
from .cpu_parts import PARTS, PHOTOGRAPHS_IN, QUICK, SKIPPED, THOROUGH, Measuring, Plan
from .cpu_process import OURS, PEERS, Field
from .cpu_rows import Validation
from .cpu_tables import text_of
from .machine import machine

RESULTS = Path(__file__).parent / "results"
KEPT = (*PARTS, "validation", "field", "commands")  # with --add
QUICK_PEERS = ("pytorch", "keras")  # JAX takes long for large networks


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    interrupted = "interrupted; what is measured is kept"
    return reported("cpu", lambda: run(given), interrupted=interrupted, place=given.out)


def run(given: argparse.Namespace) -> int:
    """Measure what the command line asks for. Returns the exit status."""
    began = time.monotonic()

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {what}", file=sys.stderr, flush=True)

    before = earlier(given.out) if given.add else {}
    result: dict[str, Any] = {
        **before,
        "commands": [*before.get("commands", []), command(given)],
        "machine": machine(),
        "load_average_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
    }
    peers = given.peers if given.peers is not None else QUICK_PEERS if given.quick else PEERS
    names = [OURS, *(peer for peer in PEERS if peer in peers)]
    with tempfile.TemporaryDirectory() as folder, Field(names, dict(given.python_of)) as field:
        if OURS in field.absent:
            raise ConfigError(f"ours does not start: {field.absent[OURS]}")
        result["field"] = {**result.get("field", {}), **field.about}
        result["absent"] = field.absent
        validation = Validation(field, Path(folder), tell)
        plan = planned(given)
        measuring = Measuring(plan, field, validation, result, given.out, tell)
        for part in plan.parts:
            measuring.measure(part, given.data)
    print(text_of(result))
    return 1 if failures(result, plan.parts) else 0


def failures(result: dict[str, Any], parts: tuple[str, ...]) -> list[str]:
    """What kept ours from being measured in these parts; a peer's problem is none of them, nor a part skipped."""
    rows = [row for part in parts for row in (result[part] if isinstance(result[part], list) else [result[part]])]
    problems = [row["problem"] for row in rows if "problem" in row]
    return [problem for problem in problems if not problem.startswith(SKIPPED)]


def command(given: argparse.Namespace) -> str:
    """What was asked for, without the paths of this machine."""
    words = ["python -m benchmarks.cpu", *(["--quick"] if given.quick else [])]
    for name in ("only", "networks", "batches", "repeats", "peers"):
        value = getattr(given, name)
        if value is not None:
            words += [f"--{name}", *(map(str, value) if isinstance(value, list) else [str(value)])]
    return " ".join([*words, "--add"] if given.add else words)


def planned(given: argparse.Namespace) -> Plan:
    """--quick or not, with what the command line says more precisely."""
    plan = QUICK if given.quick else THOROUGH
    said = {
        "parts": given.only,
        "networks": given.networks,
        "layers_of": given.networks,
        "batches": given.batches,
        "large": given.batches and given.batches[-1],
        "repeats": given.repeats,
    }
    return plan._replace(**{name: value for name, value in said.items() if value})


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="fewer networks, parts, peers and repeats; smaller batches")
    made.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help="these parts alone")
    made.add_argument("--networks", nargs="+", choices=list(NETWORKS), metavar="NETWORK", help="these networks alone")
    made.add_argument("--batches", nargs="+", type=positive, metavar="N", help="these batch sizes (default: 1 32 128)")
    made.add_argument("--repeats", type=positive, metavar="N", help="rounds, of which the median counts (default: 5)")
    made.add_argument("--peers", nargs="*", choices=PEERS, metavar="PEER", help=f"of {', '.join(PEERS)}")
    made.add_argument(
        "--python-of", nargs="+", type=python_of, default=[], metavar="PEER=PYTHON", help="where a peer is installed"
    )
    made.add_argument("--data", type=Path, metavar="FOLDER", help="photographs for pipeline, as CLASS/IMAGE.jpg; else "
                      f"{PHOTOGRAPHS_IN} in the folder that MINITORCH_ALEX_DATA names")  # fmt: skip
    made.add_argument(
        "--add",
        action="store_true",
        help="to the folder's results, if of this machine and these versions",
    )
    made.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the results")
    return made


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def python_of(text: str) -> tuple[str, str]:
    """keras=/usr/bin/python3 -> (keras, /usr/bin/python3)"""
    peer, _, python = text.partition("=")
    if peer not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"{text!r} is not like keras=/path/to/python; peers are {', '.join(PEERS)}")
    return peer, python


def earlier(folder: Path) -> dict[str, Any]:
    """The parts that are kept in the folder, if they were measured on this machine with the same versions."""
    file = folder / "cpu.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file} is damaged ({error}): remove it, or leave --add out") from None
    same = {**found["machine"], "date": None} == {**machine(), "date": None}  # a row holds its own comparison
    return {name: found[name] for name in KEPT if name in found and same}


if __name__ == "__main__":
    sys.exit(main())
