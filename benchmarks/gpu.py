"""What a GPU makes of this: `python -m benchmarks.gpu` (`--quick` for two minutes; `--help` for choosing parts).

    copy         a copy on the device, the speed of light for what is bound by memory
    kernels      each kernel: right? and GB/s, beside the copy
    convolution  several layouts of a convolution's arrays, beside the backend's and cuDNN
    training     images a second of whole training steps, beside PyTorch; and where a step's time goes

The results are kept as gpu.json and gpu.txt in benchmarks/results, or in the folder --out, after every part, so that
what is interrupted leaves what it has. A row that cannot be measured (out of memory, say) tells why. Exit status: 0
measured, 1 something computes other results than the reference, 2 there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from minitorch_alex import backends

from . import gpu_timing
from .gpu_convolution import convolution_table, measure_convolutions
from .gpu_kernels import kernel_table, measure_kernels
from .gpu_profile import where_table
from .gpu_timing import WRONG, copy_speed, gpu_machine
from .gpu_training import measure_training, training_table

RESULTS = Path(__file__).parent / "results"
PARTS = ("copy", "kernels", "convolution", "training")
PRECISIONS = ("fp32", "tf32", "bf16")


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    reason = backends.why_not("cupy")
    if reason is not None:
        print(f"gpu: {reason}", file=sys.stderr)
        return 2
    backends.use("cupy")
    backends.current().prepare()
    gpu_timing.deadline = time.monotonic() + 60 * given.minutes
    result = {"command": "python -m benchmarks.gpu", "machine": gpu_machine(backends.current()), **earlier(given)}
    for part in PARTS:
        if part in given.parts or (part == "copy" and part not in result):
            result[part] = measure(part, given, result)
            keep(result, given.out)
    print(text_of(result))
    wrong = [row for part in PARTS[1:] for row in result.get(part, []) if row.get("problem", "").startswith(WRONG)]
    return 1 if wrong else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)")
    made.add_argument("--batch", type=int, default=128, help="images, for kernels and convolution (default: 128)")
    made.add_argument("--batches", type=int, nargs="+", help="for training (default: 128 512)")
    made.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    made.add_argument("--repeats", type=int, help="of every measurement, of which the median counts (default: 5)")
    made.add_argument("--quick", action="store_true", help="3 repeats, and shorter ones; training at 128 alone")
    made.add_argument("--minutes", type=float, default=8, help="begin no measurement after so many (default: 8)")
    made.add_argument(
        "--add", action="store_true", help="to the results kept in the folder, if they are of this machine"
    )
    made.add_argument("--out", type=Path, default=RESULTS, metavar="FOLDER", help="for the results")
    return made


def measure(part: str, given: argparse.Namespace, result: dict[str, Any]) -> Any:
    """One part."""
    backend, began = backends.current(), time.monotonic()
    repeats = given.repeats or (3 if given.quick else 5)

    def tell(what: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {part}: {what}", file=sys.stderr, flush=True)

    if part == "copy":
        return copy_speed(backend, repeats)
    if part == "kernels":
        return measure_kernels(backend, given.batch, repeats, result["copy"]["gb_per_s"], tell)
    if part == "convolution":
        return measure_convolutions(backend, given.batch, given.precisions, repeats, tell)
    batches = given.batches or ([128] if given.quick else [128, 512])
    return measure_training(batches, given.precisions, repeats, 0.15 if given.quick else 0.5, tell)


# -- keeping ----------------------------------------------------------------------------
def earlier(given: argparse.Namespace) -> dict[str, Any]:
    """The parts that are kept already, if they are to stay and were measured on this machine on this day."""
    file = given.out / "gpu.json"
    if not given.add or not file.is_file():
        return {}
    found = json.loads(file.read_text(encoding="utf-8"))
    same = found["machine"] == gpu_machine(backends.current())
    return {part: found[part] for part in PARTS if part in found} if same else {}


def keep(result: dict[str, Any], folder: Path) -> None:
    """gpu.json and gpu.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (folder / "gpu.txt").write_text(text_of(result), encoding="utf-8")


def text_of(result: dict[str, Any]) -> str:
    """The tables."""
    machine, copy = result["machine"], result["copy"]
    texts = [", ".join(f"{name} {value}" for name, value in machine.items()) + "\n"]
    texts.append(
        f"Copy on the device: {copy['gb_per_s']:,.0f} GB/s ({copy['bytes'] / 1e6:,.0f} MB read, and written)\n"
    )
    if "kernels" in result:
        texts.append(kernel_table(result["kernels"], copy["gb_per_s"]))
    if "convolution" in result:
        texts.append(convolution_table(result["convolution"]))
    if "training" in result:
        texts += [training_table(result["training"]), where_table(result["training"])]
    return "\n".join(texts)


if __name__ == "__main__":
    sys.exit(main())
