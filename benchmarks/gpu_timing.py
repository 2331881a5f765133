"""What the GPU benchmarks share: time between two events, what a GPU is called, and rows of a table that may fail."""

from __future__ import annotations

import gc
import math
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from minitorch_alex.backends import Backend

from .machine import machine

LAUNCHES = 200  # between two events at most: a GPU's queue holds some thousand, and then Python has to wait
WRONG = "wrong: "  # how the problem of a row begins that computed something else than the reference
DEVICE = "cuda"  # of PyTorch
Row = dict[str, Any]
deadline = math.inf  # of time.monotonic(); what has not begun by then is not measured


class Timing(NamedTuple):
    """Seconds of one call in the median: on the GPU, and of Python to launch it."""

    gpu: float
    host: float

    @property
    def is_launching(self) -> bool:
        """Whether the GPU waited for Python."""
        return self.host > 0.8 * self.gpu


def timing(backend: Backend, call: Callable[[], Any], repeats: int, least: float = 0.02) -> Timing:
    """Of a call, by CUDA events around as many of them as take `least` seconds, `repeats` times.

    The caches are as the call before left them, so arrays of less than the GPU's L2 cache may come from there.
    """
    call()  # compiles, and leaves memory in the pool
    once, _ = _between_events(backend.xp, call, 3)
    count = max(1, min(LAUNCHES, round(least / max(once, 1e-7))))
    samples = [_between_events(backend.xp, call, count) for _ in range(repeats)]
    return Timing(*(statistics.median(values) for values in zip(*samples, strict=True)))


def _between_events(cupy: Any, call: Callable[[], Any], count: int) -> tuple[float, float]:
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    began = time.perf_counter()
    start.record()
    for _ in range(count):
        call()
    end.record()
    host = time.perf_counter() - began
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) / 1000 / count, host / count


def copy_speed(backend: Backend, repeats: int, most: int = 1 << 30) -> Row:
    """Of a copy from device to device: bytes read and written in a second. What "memory-bound" is measured against."""
    size = min(most, backend.free_bytes() // 4)  # two arrays, together half of what is free
    source, target = (backend.xp.zeros(size, "uint8") for _ in range(2))
    found = timing(backend, lambda: backend.xp.copyto(target, source), repeats, least=0.05)
    return {"bytes": size, "gb_per_s": 2 * size / found.gpu / 1e9}


# -- rows that may fail ---------------------------------------------------------------
def attempted(backend: Backend, row: Row, measure: Callable[[], Row]) -> Row:
    """The row with what was measured, or with the `problem`. Memory is given back behind it."""
    if time.monotonic() > deadline:
        return {**row, "problem": "not measured: out of time"}
    try:
        return {**row, **measure()}
    except Exception as error:  # the other rows are still worth having
        problem = in_a_line(error)
    finally:
        free_memory(backend)
    return {**row, "problem": problem}


def in_a_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:200]
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "out of memory"
    return text if text.startswith(WRONG) else f"{type(error).__name__}: {text}"


def free_memory(backend: Backend) -> None:
    """Give CuPy's and PyTorch's idle memory back to the GPU, so that each finds it free."""
    gc.collect()
    backend.xp.get_default_memory_pool().free_all_blocks()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def table(title: str, columns: dict[str, int], rows: Iterable[Iterable[object]]) -> str:
    """Lines of text: a title, names of columns with their widths (negative: to the left), rows."""
    lines = [title, "", _line(columns, columns)]
    return "\n".join([*lines, *(_line(columns, row) for row in rows)]) + "\n"


def _line(columns: dict[str, int], cells: Iterable[object]) -> str:
    widths = columns.values()
    texts = (f"{c!s:<{-w}}" if w < 0 else f"{c!s:>{w}}" for c, w in zip(cells, widths, strict=False))
    return "  ".join(texts).rstrip()


# -- the machine ----------------------------------------------------------------------
def gpu_machine(backend: Backend) -> Row:
    """What was measured on: the host as elsewhere, and GPU, driver, CUDA and what computes there."""
    cupy = backend.xp
    runtime, device = cupy.cuda.runtime, cupy.cuda.Device()
    properties = runtime.getDeviceProperties(device.id)
    found = {
        **machine(),
        "gpu": properties["name"].decode(),
        "compute_capability": str(device.compute_capability),
        "gpu_memory_bytes": device.mem_info[1],
        "driver": driver(),
        "driver_cuda": runtime.driverGetVersion(),
        "cuda_runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
    }
    torch = torch_with_gpu()
    if torch is not None:
        found |= {"torch": torch.__version__, "torch_cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version()}  # fmt: skip
    return found


def driver() -> str:
    """The driver's version, such as 580.65.06."""
    if shutil.which("nvidia-smi") is None:
        return "unknown"
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else "unknown"


def torch_with_gpu() -> Any:
    """PyTorch, if it is installed and finds the GPU; else None."""
    try:
        import torch
    except Exception:  # an installation can be broken in any way
        return None
    return torch if torch.cuda.is_available() else None


def set_torch_precision(torch: Any, precision: str) -> None:
    """tf32 or not, for products and convolutions; bf16 is a matter of each step. The fastest convolutions by trying."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True


if __name__ == "__main__":
    raise SystemExit("this is a part of python -m benchmarks.gpu")
