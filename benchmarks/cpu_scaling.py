"""Whether time grows in a straight line, with the batch and with the graph's depth: for the CPU benchmark."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy

from minitorch_alex.tensor import Tensor


def seconds_by_depth(depths: list[int], repeats: int) -> list[list[float]]:
    """Of backward() through a chain of so many operations on 8 numbers: for each depth, `repeats` times in turns."""
    found: list[list[float]] = [[] for _ in depths]
    for _ in range(repeats):
        for times, depth in zip(found, depths, strict=True):
            y = x = Tensor(numpy.ones(8, "float32"), requires_grad=True)
            for _ in range(depth):
                y = y * 1.0
            end = y.sum()
            began = time.perf_counter()
            end.backward()
            times.append(time.perf_counter() - began)
            assert x.grad is not None
    return found


def straight_line(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """y = intercept + slope x by least squares of the relative residuals; R^2, and the largest relative residual.

    Relative, since a point of a tenth of the size is timed a tenth as exactly.
    """
    at, values = numpy.array(x, "float64"), numpy.array(y, "float64")
    slope, intercept = numpy.polyfit(at, values, 1, w=1 / values)
    residuals = values - (intercept + slope * at)
    r2 = 1 - float((residuals**2).sum() / ((values - values.mean()) ** 2).sum())
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "r2": r2,
        "largest_relative_residual": float(abs(residuals / values).max()),
    }
