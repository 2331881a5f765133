"""How good are the tests? One bug at a time is put into a copy of the project: do they see it?

    python tests/mutation.py                                  all that mutation.toml asks for; about an hour
    python tests/mutation.py --area winograd --drawn 20       some of it
    python tests/mutation.py --list                           the bugs, without running anything

Half of the bugs are chosen and stand in mutation.toml; the others are drawn by a seed from every place that an operator
of mutants.py changes. Each is tried first on the few tests that its area names, one that survives these on all others.
Bugs that change nothing, or only how long something takes, are named in mutation.toml with the reason. What is found
is kept in benchmarks/results/mutation.jsonl, where a later run goes on; a changed file's bugs are tried again. Exit
status: 0 enough bugs are seen, 1 too few, 2 something in the request is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

from mutants import Mutant, chosen, drawn_from

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "benchmarks" / "results" / "mutation.jsonl"
WANTED = 0.95  # of the bugs must be seen
LIMIT = 900  # seconds for a run of the few tests: a bug may make them hang
ALL = ("tests",)


def main() -> int:
    given = parser().parse_args()
    asked = tomllib.loads((ROOT / "tests" / "mutation.toml").read_text(encoding="utf-8"))
    areas = [area for area in asked["area"] if given.area in (None, area["name"])]
    if not areas:
        print(f"mutation: there is no area {given.area!r}; there are {', '.join(a['name'] for a in asked['area'])}")
        return 2
    bugs = [bug for area in areas for bug in bugs_of(area, given.drawn, given.seed)]
    if given.list:
        print("\n".join(f"{area['name']}: {told(mutant)}" for area, mutant in bugs))
        return 0
    equivalent = {(one["file"], one["before"], one["after"]): one["why"] for one in asked.get("equivalent", [])}
    found = tried(bugs, earlier(given.out), given.out, given.jobs, not given.few)
    return report(found, equivalent)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--area", help="one area of mutation.toml")
    made.add_argument("--drawn", type=int, help="so many drawn bugs in each area, instead of as many as are chosen")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--jobs", type=int, default=2, help="copies of the project that are tested at the same time")
    made.add_argument("--few", action="store_true", help="survivors of an area's tests are not tried on all tests")
    made.add_argument("--list", action="store_true", help="show the bugs and run nothing")
    made.add_argument("--out", type=Path, default=KEPT)
    return made


def bugs_of(area: dict, count: int | None, seed: int) -> list[tuple[dict, Mutant]]:
    """Those chosen, and as many, or `count`, drawn from all of the area's files."""
    picked = [chosen(ROOT, bug["file"], bug["old"], bug["new"]) for bug in area.get("bug", [])]
    possible = [mutant for file in area["files"] for mutant in drawn_from(ROOT, file)]
    rest = [mutant for mutant in possible if mutant.text not in {one.text for one in picked}]
    wanted = count if count is not None else area.get("drawn", len(picked))
    drawn = random.Random(f"{seed} {area['name']}").sample(rest, min(wanted, len(rest)))
    return [(area, mutant) for mutant in [*picked, *drawn]]


def told(mutant: Mutant) -> str:
    return f"{mutant.file}:{mutant.line}: {mutant.before}  ->  {mutant.after or '(left out)'}"


# -- trying ---------------------------------------------------------------------------
def tried(bugs: list, known: dict[str, dict], out: Path, jobs: int, whole: bool) -> list[dict]:
    """Every bug with what became of it; each is kept as soon as it is known."""
    with tempfile.TemporaryDirectory() as folder:
        copies: Queue[Path] = Queue()
        for number in range(jobs):
            copies.put(copy_of_the_project(Path(folder) / str(number)))
        for tests in {tuple(area["tests"]) for area, mutant in bugs if mutant.name not in known}:
            sound(copies, tests)

        def one(bug: tuple[dict, Mutant]) -> dict:
            area, mutant = bug
            if mutant.name in known:
                return known[mutant.name]
            copy = copies.get()
            try:
                row = judged(copy, area, mutant, whole)
            finally:
                copies.put(copy)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row['seen by'] or 'SURVIVED':60.60}  {told(mutant)}", file=sys.stderr, flush=True)
            return row

        with ThreadPoolExecutor(jobs) as pool:
            return list(pool.map(one, bugs))


def copy_of_the_project(to: Path) -> Path:
    """What git knows of it, or would."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)
    return to


def sound(copies: Queue[Path], tests: tuple[str, ...]) -> None:
    """The tests pass without a bug, or nothing that they say of one would count."""
    copy = copies.get()
    status, last, _ = run(copy, tests)
    copies.put(copy)
    if status:
        sys.exit(f"mutation: without any bug {' '.join(tests)} end with {status}: {last}")


def judged(copy: Path, area: dict, mutant: Mutant, whole: bool) -> dict:
    """Put the bug in, run the tests, and put back what was there, with its date: compiled kernels go by that."""
    file = copy / mutant.file
    before, dates = file.read_text(encoding="utf-8"), file.stat()
    file.write_text(mutant.text, encoding="utf-8")
    began = time.monotonic()
    try:
        status, _, seen_by = run(copy, tuple(area["tests"]))
        if status == 0 and whole:
            status, _, seen_by = run(copy, ALL)
    finally:
        file.write_text(before, encoding="utf-8")
        os.utime(file, ns=(dates.st_atime_ns, dates.st_mtime_ns))
    return {
        "name": mutant.name, "area": area["name"], "file": mutant.file, "line": mutant.line, "before": mutant.before,
        "after": mutant.after, "seen by": seen_by if status else "", "seconds": round(time.monotonic() - began),
    }  # fmt: skip


def run(copy: Path, tests: tuple[str, ...]) -> tuple[int, str, str]:
    """Exit status of pytest on a copy, its last line, and the first test that fails."""
    environment = os.environ | {
        "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "NUMBA_CACHE_DIR": str(copy / ".numba"),
        "XDG_CACHE_HOME": str(copy / ".cache"),
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *tests]
    try:
        done = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True, timeout=LIMIT, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return 124, "", "they hang"
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    last = (done.stdout.strip() or done.stderr.strip()).rpartition("\n")[2]
    return done.returncode, last, failed[1] if failed else last


def earlier(kept: Path) -> dict[str, dict]:
    """What is known already, by the bugs' names."""
    if not kept.is_file():
        return {}
    return {row["name"]: row for row in map(json.loads, kept.read_text(encoding="utf-8").splitlines())}


# -- what was found -------------------------------------------------------------------
def report(found: list[dict], equivalent: dict) -> int:
    """Print it. The exit status."""
    seen = [row for row in found if row["seen by"]]
    explained = 0
    for row in found:
        if row["seen by"]:
            continue
        why = equivalent.get((row["file"], row["before"], row["after"]))
        explained += why is not None
        print(f"{row['file']}:{row['line']}: {row['before']}\n  {row['after'] or '(left out)'}")
        print(f"  survived: {why or 'NOT EXPLAINED'}\n")
    bugs = len(found) - explained
    print(f"{len(found)} changes, of which {explained} are no bugs; {len(seen)} of {bugs} seen: {len(seen) / bugs:.1%}")
    return 0 if len(seen) >= WANTED * bugs else 1


if __name__ == "__main__":
    sys.exit(main())
