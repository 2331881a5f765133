"""The CIFAR-10 recipe, once: wall time, curve and accuracy, kept under benchmarks/results.

python -m benchmarks.cifar10 [FOLDER WITH CIFAR-10] ["NOTE ABOUT THE DATA"]
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .machine import machine

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    data, note = [*sys.argv[1:], None, None][:2]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "minitorch_alex.train", "--config", "cifar10"]
        started = time.perf_counter()
        subprocess.run([*command, *(["--data", data] if data else []), "--out", f"{folder}/run"], check=True)
        minutes = (time.perf_counter() - started) / 60
        lines = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
        epochs = [line for line in lines if "test_top1" in line]
        result = {
            "command": "python -m minitorch_alex.train --config cifar10",
            "data": note or "not stated",
            "machine": machine(),
            "minutes": round(minutes, 1),
            "test_top1": epochs[-1]["test_top1"],
            "epochs": epochs,
        }
        (RESULTS / "cifar10.json").write_text(json.dumps(result, indent=1) + "\n")
        for picture in ("curves", "filters"):
            shutil.copy(Path(folder, "run", f"{picture}.png"), RESULTS / f"cifar10-{picture}.png")
    print(f"{100 * result['test_top1']:.2f} % in {minutes:.1f} minutes")


if __name__ == "__main__":
    main()
