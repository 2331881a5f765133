"""The default training command, five seeds on each CPU backend: accuracy and wall time from a cold start.

    python -m benchmarks.digits

Every run is a process of its own. Each starts with empty caches of compiled kernels and of fonts. The
result goes to benchmarks/results/digits.json.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .machine import machine

SEEDS = range(5)
RESULT = Path(__file__).parent / "results" / "digits.json"


def run(backend: str, seed: int) -> tuple[float, float]:
    """(held-out top-1, seconds) of one `python -m minitorch_alex.train`, compilation and start included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "minitorch_alex.train", "--backend", backend, "--seed", str(seed)]
        environment = {**os.environ, "NUMBA_CACHE_DIR": f"{folder}/numba", "MPLCONFIGDIR": f"{folder}/matplotlib"}
        started = time.perf_counter()
        subprocess.run([*command, "--out", f"{folder}/run"], check=True, env=environment, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        if (backend, seed) == ("numba", 0):
            shutil.copy(Path(folder, "run", "curves.png"), RESULT.with_name("digits-curves.png"))
        last = json.loads(Path(folder, "run", "log.jsonl").read_text().splitlines()[-1])
    return last["test_top1"], seconds


def main() -> None:
    RESULT.parent.mkdir(exist_ok=True)
    results: dict[str, object] = {"command": "python -m minitorch_alex.train", "machine": machine()}
    for backend in ("numba", "numpy"):
        top1, seconds = zip(*(run(backend, seed) for seed in SEEDS), strict=True)
        results[backend] = {
            "test_top1": top1,
            "median_top1": statistics.median(top1),
            "worst_top1": min(top1),
            "seconds": [round(s, 1) for s in seconds],
            "median_seconds": round(statistics.median(seconds), 1),
        }
        print(
            f"{backend}: top-1 median {100 * statistics.median(top1):.2f} %, worst {100 * min(top1):.2f} %; "
            f"{statistics.median(seconds):.1f} s from start to end (slowest {max(seconds):.1f} s)"
        )
    RESULT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
