"""Contestants in processes of their own, of which one computes at a time.

So their thread pools, memory and compilers do not meet, and one that ends unexpectedly does not take the others along.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from minitorch_alex.backends.thread_pool import usable_cores

ROOT = Path(__file__).parents[1]
OURS, REFERENCE = "ours", "reference"
MODULES = {
    OURS: "benchmarks.cpu_ours",
    REFERENCE: "benchmarks.cpu_reference",
    "pytorch": "benchmarks.cpu_torch",
    "keras": "benchmarks.cpu_keras",
    "jax": "benchmarks.cpu_jax",
}
PEERS = ("pytorch", "keras", "jax")
LIMIT = 900.0  # seconds for an answer
FAR_BEHIND = 10  # times as slow as the fastest
REST = 0.05  # seconds between two turns, in which the threads of the one before fall asleep


class ContestantError(Exception):
    """A contestant cannot do what it was asked. The message is one line."""


class Process:
    """A contestant at work elsewhere. `about` is what it says about itself."""

    def __init__(self, name: str, python: str = sys.executable, **environment: str) -> None:
        self.name = name
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 (close() closes it)
        threads = str(usable_cores())
        limits = {f"{library}_NUM_THREADS": threads for library in ("OMP", "OPENBLAS", "MKL")}
        command = [python, "-m", "benchmarks.cpu_worker", MODULES[name]]
        try:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **limits, **environment},
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
            )  # fmt: skip
        except OSError:
            self.said.close()
            raise
        try:
            self.about: dict[str, Any] = self._answer()
        except ContestantError:
            self.close()
            raise

    def ask(self, question: str, **arguments: Any) -> Any:
        """The answer of the contestant's method of that name; ContestantError if there is none."""
        assert self.process.stdin is not None
        try:
            print(json.dumps({"ask": question, "with": arguments}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise ContestantError(self._how_it_ended()) from None
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        impatience = threading.Timer(LIMIT, self.process.kill)
        impatience.start()
        try:
            line = self.process.stdout.readline()
        finally:
            impatience.cancel()
        if not line:
            raise ContestantError(self._how_it_ended())
        answer = json.loads(line)
        if "problem" in answer:
            raise ContestantError(" ".join(answer["problem"].split())[:300])
        return answer["answer"]

    def _how_it_ended(self) -> str:
        status = self.process.wait()
        last = [line for line in self.heard().splitlines() if line.strip()][-1:]
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return " ".join([f"its process ended with {how}", *(f"({line.strip()[:200]})" for line in last)])

    def heard(self) -> str:
        """Everything that it has printed."""
        self.said.seek(0)
        return self.said.read()

    def close(self) -> None:
        """End it, if it has not ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(BrokenPipeError):  # a question that it did not live to read
                pipe.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.said.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Field:
    """All contestants that are there, and why the others are not."""

    def __init__(self, names: list[str], pythons: dict[str, str] | None = None) -> None:
        self.pythons = pythons or {}
        self.about: dict[str, dict[str, Any]] = {}
        self.absent: dict[str, str] = {}
        self.running: dict[str, Process] = {}
        for name in names:
            try:
                self.about[name] = self._process(name).about
            except (ContestantError, OSError) as error:
                self.absent[name] = str(error)

    @property
    def names(self) -> list[str]:
        """Of those that are there."""
        return list(self.about)

    def start(self, name: str, **environment: str) -> Process:
        """A new process for a contestant, which the caller closes."""
        return Process(name, self.pythons.get(name, sys.executable), **environment)

    def _process(self, name: str) -> Process:
        if name not in self.running:
            self.running[name] = self.start(name)
        return self.running[name]

    def ask(self, name: str, question: str, **arguments: Any) -> Any:
        """Of a contestant; one that has ended is started anew for the next question."""
        try:
            return self._process(name).ask(question, **arguments)
        except ContestantError:
            if name in self.running and self.running[name].process.poll() is not None:
                self.running.pop(name).close()
            raise

    def in_turns(self, names: list[str], repeats: int, seconds: float) -> tuple[dict[str, list[float]], dict[str, str]]:
        """Seconds of a call of each that is loaded, once in every round; and who fell out, with the reason.

        Who takes long and is far behind in the first round is not waited for in the others.
        """
        times: dict[str, list[float]] = {name: [] for name in names}
        problems: dict[str, str] = {}
        for number in range(repeats):
            best = min((found[0] for found in times.values() if found), default=0.0)
            for name, found in list(times.items()):
                if number and found[0] > max(FAR_BEHIND * best, 2 * seconds):
                    continue
                time.sleep(REST)
                try:
                    found.append(self.ask(name, "time", seconds=seconds))
                except ContestantError as error:
                    problems[name] = str(error)
                    del times[name]
        return times, problems

    def close(self) -> None:
        while self.running:
            self.running.popitem()[1].close()

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
