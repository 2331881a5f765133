"""The results of the CPU benchmark as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .cpu_process import OURS
from .cpu_statistics import BEST, Row, bar_of, best_peer, median, ratio, verdict
from .gpu_timing import table

COMPILATION, FROM_CACHE, WAITING = 15.0, 1.0, 0.05  # seconds, seconds, share: the bars
MIB = 1024**2
BESIDE = "ratio: how many times as fast ours is as the peer named, of medians; behind it lowest - highest of a round"


def text_of(result: dict[str, Any]) -> str:
    """All tables, and who is absent."""
    texts = [", ".join(f"{name} {value}" for name, value in result["machine"].items())]
    texts += [f"{name}: " + ", ".join(f"{k} {v}" for k, v in about.items()) for name, about in result["field"].items()]
    texts += [f"{name}: not there ({reason})" for name, reason in result["absent"].items()]
    texts.append("")
    if result.get("validation"):
        texts.append(validation_table(result["validation"]))
    names = [OURS, *(name for name in result["field"] if name != OURS)]
    for part, title in (("training", "Training steps"), ("forward", "Forward passes in evaluation")):
        if part in result:
            texts.append(speed_table(f"{title}: images a second; {BESIDE}", result[part], names))
    for part, lines in LINES.items():
        if part in result:
            found = result[part]
            failed = isinstance(found, dict) and "problem" in found
            texts.append("\n".join([f"{part}: {found['problem']}"] if failed else lines(found)) + "\n")
    return "\n".join(texts)


def validation_table(rows: list[Row]) -> str:
    columns = {"contestant": -11, "network": -20, "batch": 5, "scores": 9, "gradients": 9}
    title = "Validation: float32 beside the reference in float64; |difference| / |right|, the farthest array"
    return table(title, columns, (_validated(row) for row in rows))


def _validated(row: Row) -> list[object]:
    far = [f"{row[what]:.1e}" if what in row else "-" for what in ("scores", "gradients")]
    return [row["contestant"], row["network"], row["batch"], *([row["problem"]] if "problem" in row else far)]


def speed_table(title: str, rows: list[Row], names: list[str]) -> str:
    """Images a second of each contestant, the ratio to the best peer, and the bar with its verdict."""
    columns = {"network": -20, "batch": 5, **dict.fromkeys(names, 9), "best peer": -9, "ratio": 6, "spread": -13,
               "bar": -12}  # fmt: skip
    lines = table(title, columns, (_speeds(row, names) for row in rows)).splitlines()
    for row in rows:
        for name, found in row.get("ways", {}).items():
            tried = ", ".join(f"{way} {1000 * seconds:.4g} ms" for way, seconds in found["tried"].items())
            lines.append(f"  {row['network']}, batch {row['batch']}: {name} as {found['way']} (tried: {tried})")
        for name, reason in row.get("problems", {}).items():
            lines.append(f"  {row['network']}, batch {row['batch']}: {name} not timed: {reason}")
    return "\n".join(lines) + "\n"


def _speeds(row: Row, names: list[str]) -> list[object]:
    cells = [row["network"], row["batch"]]
    if "problem" in row:
        return [*cells, row["problem"]]
    medians = [median(row, name) for name in names]
    speeds = ["-" if m is None else f"{row['batch'] / m:,.1f}" for m in medians]
    return [*cells, *speeds, *_ratio_cells(row, best_peer(row)), _bar(row)]


def _ratio_cells(row: Row, peer: str | None) -> list[str]:
    found = ratio(row, peer) if peer else None
    return [peer or "-", "-", "-"] if found is None else [
        peer or "-", f"{found.median:.2f}", f"{found.low:.2f} - {found.high:.2f}"
    ]  # fmt: skip


def _bar(row: Row) -> str:
    """Such as ">= 3.0 pytorch: 3.21, reached"."""
    bar = bar_of(row)
    if bar is None:
        return ""
    peer = best_peer(row) if bar.peer == BEST else bar.peer
    found = ratio(row, peer) if peer else None
    value = None if found is None else found.median
    aim = "" if bar.aim is None else f" (aim {bar.aim})"
    beside = f"{BEST} peer" if bar.peer == BEST else bar.peer
    return (
        f">= {bar.must}{aim} {beside}: {'' if value is None else f'{value:.2f}, '}{verdict(value, bar.must, bar.aim)}"
    )


def layers_lines(rows: list[Row]) -> list[str]:
    columns = {"network": -20, "batch": 5, "layer": -14, "what": -18, "ours ms": 9, "GFLOP/s": 7, "best peer": -9,
               "ms": 9, "ratio": 6, "spread": -13}  # fmt: skip
    return table(f"Layers alone, forward and backward; {BESIDE}", columns, (_layer(row) for row in rows)).splitlines()


def _layer(row: Row) -> list[object]:
    cells = [row["network"], row["batch"], row["layer"], row["kind"]]
    ours, peer = median(row, OURS), best_peer(row)
    if ours is None:
        return [*cells, row["problem"]]
    flops = 2 * row["multiply_accumulates"] * row["batch"]
    theirs = median(row, peer) if peer else None
    ratio_cells = _ratio_cells(row, peer)
    speed = f"{flops / ours / 1e9:.0f}" if flops else ""
    milliseconds = "-" if theirs is None else f"{1000 * theirs:.2f}"
    return [*cells, f"{1000 * ours:.2f}", speed, ratio_cells[0], milliseconds, *ratio_cells[1:]]


def memory_lines(row: Row) -> Iterator[str]:
    yield f"Memory: peak of a training step, {row['network']}, batch {row['batch']}, less what importing takes"
    for name, size in row["bytes"].items():
        yield f"  {name}: {size / MIB:,.0f} MiB"
    for name, reason in row["problems"].items():
        yield f"  {name}: not measured: {reason}"
    ours, theirs = row["bytes"].get(OURS), row["bytes"].get("pytorch")
    if ours and theirs:
        yield f"  ours / pytorch: {ours / theirs:.2f}; bar <= 1: {verdict(ours / theirs, 1.0, most=True)}"


def scaling_lines(found: dict[str, Row]) -> Iterator[str]:
    titles = {
        "batch": f"Step time against batch size, {found['batch']['network']}",
        "depth": "backward() against the depth of the graph",
    }
    for what, title in titles.items():
        row = found[what]
        medians = ", ".join(f"{size:,}: {1000 * sorted(times)[len(times) // 2]:.4g}" for size, times in _points(row))
        yield f"{title}, milliseconds: {medians}"
        yield (
            f"  a straight line, {1000 * row['intercept']:.4g} + {1000 * row['slope']:.4g} n: R^2 {row['r2']:.5f}, "
            f"largest residual {100 * row['largest_relative_residual']:.1f} %"
        )


def _points(row: Row) -> Iterator[tuple[int, list[float]]]:
    return zip(row["sizes"], row["seconds"], strict=True)


def compilation_lines(row: Row) -> Iterator[str]:
    yield f"Compilation in the first steps of a new process, {row['network']}, batch {row['batch']}, float32"
    for cache, bar in (("empty", COMPILATION), ("full", FROM_CACHE)):
        one = row[cache]
        whole = one["importing"] + one["compiling"]
        first, *_, last = one["steps"]
        said = f"; says: {' / '.join(one['said'])}" if one["said"] else ""
        yield (
            f"  {cache} cache: {whole:.2f} s, of which {one['importing']:.2f} s importing (the first step takes "
            f"{first - last:.2f} s longer than the last); "
            f"bar <= {bar:g} s: {verdict(whole, bar, most=True)}{said}"
        )


def pipeline_lines(rows: list[Row]) -> Iterator[str]:
    yield "Input pipeline: training alexnet on photographs"
    for row in rows:
        if "problem" in row:
            yield f"  {row['images']}: {row['problem']}"
            continue
        yield (
            f"  {row['images']}, batch {row['batch']}: waits {100 * row['waiting_share']:.1f} % of the time; "
            f"{row['images_per_second']:.1f} images/s, "
            f"{row['images_per_second_without_loader']:.1f} with images ready; "
            f"bar <= {100 * WAITING:g} %: {verdict(row['waiting_share'], WAITING, most=True)}"
        )


LINES: dict[str, Callable[[Any], Iterable[str]]] = {
    "layers": layers_lines,
    "memory": memory_lines,
    "scaling": scaling_lines,
    "compilation": compilation_lines,
    "pipeline": pipeline_lines,
}
