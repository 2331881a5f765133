"""The CPU benchmark on contestants made for the test: what it refuses, names and counts. Nothing about speed."""

import json
import math
import re
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    cpu,
    cpu_alone,
    cpu_compilation,
    cpu_networks,
    cpu_parts,
    cpu_pipeline,
    cpu_process,
    cpu_rows,
    cpu_scaling,
)
from benchmarks.cpu_contestant import distance
from benchmarks.cpu_process import OURS, PEERS, ContestantError, Field, Process
from benchmarks.cpu_statistics import Bar, Ratio, bar_of, best_peer, median, ratio, verdict
from benchmarks.cpu_tables import text_of
from minitorch_alex import backends
from minitorch_alex.data.folder import PhotographFiles

PLAIN = """
from benchmarks import cpu_ours

class Contestant(cpu_ours.Contestant):
    backend = "numpy"  # nothing to compile
"""
SLOWER = (
    PLAIN
    + """
    def ways(self, what):
        return ["slow", "slower"]

    def prepared(self, what, way, images, labels):
        import time
        print("no answer")
        return lambda: time.sleep(0.02 if way == "slow" else 0.03)
"""
)
MISSING = "import a_package_that_nobody_has"
CRASHING = (
    PLAIN
    + """
    def time(self, seconds):
        import os, sys
        print("a library's last words", file=sys.stderr, flush=True)
        os.abort()
"""
)
WRONG_GRADIENT = (
    PLAIN
    + """
    def gradients(self, *arguments):
        found = super().gradients(*arguments)
        found["fc1.bias"] = 1.05 * found["fc1.bias"]
        return found
"""
)
LARGE = (
    PLAIN
    + """
    def prepared(self, what, way, images, labels):
        import numpy
        return lambda: numpy.ones(64 * 2**20, "uint8").sum().item()
"""
)


@pytest.fixture(autouse=True)
def same_backend(monkeypatch):
    monkeypatch.setattr(backends, "_current", backends._current)


@pytest.fixture
def contestants(tmp_path, monkeypatch):
    """Put the texts of modules in the contestants' places."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def put(**texts):
        for name, text in texts.items():
            (tmp_path / f"made_{name}.py").write_text(text)
            monkeypatch.setitem(cpu_process.MODULES, name, f"made_{name}")

    put(ours=PLAIN)
    return put


def benchmark(out, *arguments):
    """The command on the smallest network. Exit status, what is kept, the text."""
    status = cpu.main(["--quick", "--networks", "mlp", "--repeats", "2", "--out", str(out), *arguments])
    return status, json.loads((out / "cpu.json").read_text()), (out / "cpu.txt").read_text()


# -- the whole command --------------------------------------------------------------------
def test_a_missing_and_a_crashing_peer_are_named_and_the_others_timed(contestants, tmp_path, capsys):
    contestants(pytorch=SLOWER, keras=MISSING, jax=CRASHING)
    status, kept, text = benchmark(tmp_path / "out", "--only", "training", "forward", "--peers", *PEERS)
    assert status == 0
    assert kept["absent"] == {"keras": "ModuleNotFoundError: No module named 'a_package_that_nobody_has'"}
    for part in ("training", "forward"):
        (row,) = kept[part]
        assert (row["network"], row["batch"]) == ("mlp", 32)
        assert {name: len(times) for name, times in row["seconds"].items()} == {"ours": 2, "pytorch": 2}
        assert min(row["seconds"]["pytorch"]) >= 0.02
        assert row["ways"]["pytorch"]["way"] == "slow"
        assert set(row["ways"]["pytorch"]["tried"]) == {"slow", "slower"}
        assert re.search(r"ended with signal 6 \(.*last words", row["problems"]["jax"])
    assert {row["contestant"] for row in kept["validation"]} == {"ours", "pytorch", "jax"}
    assert all(0 < row["scores"] < 1e-6 and row["gradients"] < 1e-6 for row in kept["validation"])
    assert (tmp_path / "out" / "cpu.png").read_bytes().startswith(b"\x89PNG")
    assert "keras: not there (ModuleNotFoundError" in text
    assert "mlp, batch 32: jax not timed: its process ended with signal 6" in text
    assert "mlp, batch 32: pytorch as slow (tried: slow " in text
    assert re.search(r"^mlp +32 .* pytorch +\d+\.\d\d +\d.*>= 2.0 pytorch: \d+\.\d\d, reached$", text, re.M)
    assert capsys.readouterr().out == text + "\n"


def test_a_wrong_gradient_is_refused_and_no_number_is_given(contestants, tmp_path):
    contestants(ours=WRONG_GRADIENT, pytorch=SLOWER)
    status, kept, text = benchmark(tmp_path, "--only", "training", "--peers", "pytorch")
    assert status == 1
    (row,) = kept["training"]
    assert re.search(r"wrong: gradients \(fc1.bias\) are 5.0e-02 apart", row["problem"])
    assert "seconds" not in row
    assert re.search(r"^mlp +32 +wrong: gradients \(fc1.bias\)", text, re.M)


def test_a_peer_with_a_wrong_gradient_is_not_timed(contestants, tmp_path):
    contestants(pytorch=WRONG_GRADIENT)
    status, kept, _ = benchmark(tmp_path, "--only", "training", "--peers", "pytorch")
    assert status == 0
    (row,) = kept["training"]
    assert list(row["seconds"]) == ["ours"]
    assert row["problems"]["pytorch"].startswith("wrong: gradients (fc1.bias)")


def test_ours_that_ends_in_the_middle_is_a_failure(contestants, tmp_path):
    contestants(ours=CRASHING)
    status, kept, _ = benchmark(tmp_path, "--only", "training", "pipeline", "--peers")
    assert status == 1
    assert "signal 6" in kept["training"][0]["problem"]


def test_layers_and_the_pipeline_without_photographs(contestants, tmp_path, monkeypatch):
    monkeypatch.delenv("MINITORCH_ALEX_DATA", raising=False)
    status, kept, text = benchmark(tmp_path, "--only", "layers", "pipeline", "--peers")
    assert status == 0  # what is skipped is no failure
    asked = "--quick --only layers pipeline --networks mlp --repeats 2 --peers"
    assert kept["commands"] == [f"python -m benchmarks.cpu {asked}"]
    assert [row["layer"] for row in kept["layers"]] == ["fc1", "relu1", "fc2"]
    assert [row["multiply_accumulates"] for row in kept["layers"]] == [2 * 64 * 32, 0, 3 * 32 * 10]
    assert all(len(row["seconds"]["ours"]) == 2 for row in kept["layers"])
    assert "photographs: skipped: --data names no photographs" in text
    another = {**kept["machine"], "numpy": "1.0"}
    (tmp_path / "cpu.json").write_text(json.dumps({**kept, "machine": another}))
    assert cpu.earlier(tmp_path) == {}
    _, added, _ = benchmark(tmp_path, "--only", "pipeline", "--peers", "--add")
    assert "layers" not in added
    yesterday = {**kept["machine"], "date": "2000-01-01"}
    (tmp_path / "cpu.json").write_text(json.dumps({**kept, "machine": yesterday}))
    _, added, _ = benchmark(tmp_path, "--only", "pipeline", "--peers", "--add")
    assert added["layers"] == kept["layers"]
    assert added["commands"] == [*kept["commands"], added["commands"][-1]]
    assert added["commands"][-1].endswith("--add")
    assert added["validation"] == kept["validation"]


def test_what_was_measured_of_other_networks_stays(contestants, tmp_path):
    _, kept, _ = benchmark(tmp_path, "--only", "training", "--peers")
    (row,) = kept["training"]
    kept["training"] = [{**row, "network": "alexnet"}, {**row, "seconds": {"ours": [99.0]}}]
    kept["validation"] += [{**kept["validation"][0], "network": "alexnet"}]
    (tmp_path / "cpu.json").write_text(json.dumps(kept))
    _, added, _ = benchmark(tmp_path, "--only", "training", "--peers", "--add")
    assert [found["network"] for found in added["training"]] == ["alexnet", row["network"]]
    assert added["training"][1]["seconds"]["ours"] != [99.0]  # measured anew
    assert sorted(found["network"] for found in added["validation"]) == ["alexnet", row["network"]]


def test_a_file_cut_short_is_not_added_to(contestants, tmp_path, capsys):
    (tmp_path / "cpu.json").write_text('{"training": [')
    assert cpu.main(["--add", "--peers", "--out", str(tmp_path)]) == 2
    assert re.match(r"cpu: .*cpu.json is damaged \(.*\): remove it, or leave --add out\n$", capsys.readouterr().err)
    assert (tmp_path / "cpu.json").read_text() == '{"training": ['


@pytest.mark.parametrize("arguments", [["--batches", "0"], ["--python-of", "keras"], ["--python-of", "tf=python"]])
def test_what_cannot_be_meant_is_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cpu.main(arguments)
    assert ended.value.code == 2
    assert "error: argument " + arguments[0] in capsys.readouterr().err


def test_without_ours_there_is_nothing_to_measure(contestants, tmp_path, capsys):
    contestants(ours=MISSING)
    assert cpu.main(["--peers", "--out", str(tmp_path / "out")]) == 2
    assert re.match(r"cpu: ours does not start: ModuleNotFoundError: .*\n$", capsys.readouterr().err)


def test_the_command_line_changes_the_plan():
    plan = cpu.planned(cpu.parser().parse_args(["--networks", "alexnet", "--batches", "8", "16"]))
    assert plan == cpu_parts.THOROUGH._replace(
        networks=["alexnet"], layers_of=["alexnet"], batches=[8, 16], large=16, repeats=5
    )
    assert cpu.planned(cpu.parser().parse_args(["--quick"])) == cpu_parts.QUICK


# -- processes ----------------------------------------------------------------------------
def test_one_that_does_not_answer_is_ended(contestants, monkeypatch):
    with Process(OURS) as process:
        monkeypatch.setattr(cpu_process, "LIMIT", 0.2)
        process.ask("load", network="mlp", batch=2, what="training")
        with pytest.raises(ContestantError, match="ended with signal 9"):
            process.ask("time", seconds=60)
        with pytest.raises(ContestantError, match="ended with signal 9"):
            process.ask("time", seconds=60)


def test_one_that_has_ended_is_started_anew_for_the_next_row(contestants):
    contestants(jax=CRASHING)
    with Field([OURS, "jax"], {"pytorch": "nowhere"}) as field:
        for _ in range(2):
            field.ask("jax", "load", network="mlp", batch=2, what="training")
            times, problems = field.in_turns([OURS, "jax"], 1, 0.0)
            assert (list(times), list(problems)) == ([OURS], ["jax"])
    assert Field(["pytorch"], {"pytorch": "nowhere"}).absent["pytorch"].endswith("No such file or directory: 'nowhere'")


class Clock(Field):
    """Contestants whose seconds are known."""

    def __init__(self, **seconds):
        self.seconds, self.asked = seconds, []

    def ask(self, name, question, **arguments):
        self.asked.append(name)
        return self.seconds[name]


def test_they_take_turns_and_who_is_far_behind_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(cpu_process, "REST", 0)
    clock = Clock(a=1.0, b=9.9, c=10.1)
    times, problems = clock.in_turns(["a", "b", "c"], 3, seconds=1.0)
    assert clock.asked == ["a", "b", "c", "a", "b", "a", "b"]
    assert (times, problems) == ({"a": [1.0] * 3, "b": [9.9] * 3, "c": [10.1]}, {})
    quick = Clock(a=0.01, b=0.5)
    quick.in_turns(["a", "b"], 2, seconds=1.0)
    assert quick.asked == ["a", "b", "a", "b"]  # far behind, but soon done


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells a process' memory in /proc")
def test_memory_is_that_of_the_step(contestants):
    contestants(pytorch=LARGE, jax=CRASHING)
    with Field([OURS, "pytorch"]) as field:
        row = cpu_alone.measure_memory(field, [OURS, "pytorch"], "mlp", 2)
    small, large = row["bytes"][OURS], row["bytes"]["pytorch"]
    assert 50 * 2**20 < large - small < 80 * 2**20
    assert row["problems"] == {}


def test_first_steps_compile_and_later_processes_read_the_cache(tmp_path, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(cpu_alone.tempfile, "TemporaryDirectory", lambda: nullcontext(str(tmp_path)))
    cached = []

    class Watched(Process):
        def close(self):
            cached.append({file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.nbi")})
            super().close()

    with Field([]) as field:
        monkeypatch.setattr(field, "start", Watched)
        row = cpu_alone.measure_compilation(field, "mlp", 2)
    assert cached[0]
    assert cached[0] == cached[1]
    for cache in ("empty", "full"):
        assert len(row[cache]["steps"]) == cpu_compilation.STEPS
        assert 0 < row[cache]["compiling"] < sum(row[cache]["steps"])


# -- peers ----------------------------------------------------------------------------------
@pytest.mark.parametrize("peer", PEERS)
def test_a_peer_computes_the_same_network(peer, tmp_path):
    with Field([peer]) as field:
        if peer in field.absent:
            pytest.skip(f"{peer}: {field.absent[peer]}")
        validation = cpu_rows.Validation(field, tmp_path, lambda what: None)
        assert validation.problem(peer, "alexnet_small", 32) is None
        assert validation.problem(peer, "alexnet_small", 1) is None  # remembered
        (row,) = validation.rows
        assert row["batch"] == cpu_rows.PEERS_BATCH
        assert row["gradients"] < 1e-4
        losses = field.ask(peer, "load", network="alexnet_small", batch=2, what="training", most=1)
        assert losses["tried"] == {}
        assert field.ask(peer, "time", seconds=0.0) > 0


# -- figures --------------------------------------------------------------------------------
ROW = {
    "part": "training", "network": "alexnet", "batch": 128,
    "seconds": {"ours": [1.0, 2.0, 1.5], "pytorch": [4.0, 5.0, 6.0], "keras": [3.0]},
}  # fmt: skip


def test_medians_and_ratios():
    assert (median(ROW, "ours"), median(ROW, "pytorch"), median(ROW, "jax")) == (1.5, 5.0, None)
    assert ratio(ROW, "pytorch") == Ratio(5.0 / 1.5, 2.5, 4.0)
    assert ratio(ROW, "keras") == Ratio(2.0, 3.0, 3.0)
    assert ratio(ROW, "jax") is None
    assert best_peer(ROW) == "keras"
    assert best_peer({"seconds": {"ours": [1.0]}}) is None
    assert best_peer({"problem": "no"}) is None


def test_bars():
    assert bar_of(ROW) == Bar("training", "alexnet", 128, "pytorch", 3.0)
    assert bar_of({**ROW, "part": "forward"}).peer == "best"
    assert bar_of({**ROW, "network": "alexnet_small"}) is None
    assert verdict(None, 1.0) == "not measured"
    assert [verdict(v, 1.15, 1.3) for v in (1.14, 1.15, 1.3)] == ["MISSED", "reached, below the aim", "aim reached"]
    assert [verdict(v, 15.0, most=True) for v in (15.1, 15.0)] == ["MISSED", "reached"]


@pytest.mark.parametrize(
    ("apart", "problem"),
    [
        ({"scores": 1e-4, "w": 3e-2}, None),
        ({"scores": 1.1e-4, "w": 0.0}, "wrong: scores (scores) are 1.1e-04 apart from float64"),
        ({"scores": 0.0, "scores in evaluation": 1.0, "w": 0.0}, "wrong: scores (scores in evaluation) are 1.0e+00"),
        ({"scores": 0.0, "w": 3.1e-2}, "wrong: gradients (w) are 3.1e-02 apart"),
        ({"scores": 0.0, "w": math.nan, "v": 5.0}, "wrong: gradients (w) are nan"),
    ],
)
def test_what_is_too_far_apart(apart, problem):
    found = cpu_rows.worst(apart).get("problem")
    assert found is None if problem is None else found.startswith(problem)


def test_distance():
    assert distance(np.array([3.0, 4.0]), np.array([0.0, 4.0])) == 0.75
    assert distance(np.array([1.0]), np.array([0.0])) == 1.0
    assert distance(np.zeros(2), np.zeros((2, 1))) == distance(None, np.zeros(2)) == math.inf


def test_a_straight_line():
    line = cpu_scaling.straight_line([1, 2, 3, 10], [5.0, 7.0, 9.0, 23.0])
    assert (line["slope"], line["intercept"], line["r2"]) == pytest.approx((2, 3, 1))
    assert line["largest_relative_residual"] == pytest.approx(0, abs=1e-12)
    bent = cpu_scaling.straight_line([1, 2, 3, 4], [1.0, 4.0, 9.0, 16.0])
    assert bent["largest_relative_residual"] > 0.1
    assert 0.8 < bent["r2"] < 0.97


def test_depths_take_turns():
    found = cpu_scaling.seconds_by_depth([10, 400], 2)
    assert [len(times) for times in found] == [2, 2]
    assert min(found[1]) > min(found[0]) > 0


def test_time_in_the_compiler_counts_once():
    assert cpu_compilation.covered([(1, 1), (2, 1), (3, -1), (6, -1), (8, 1), (8.5, -1)]) == 5.5


def test_he_weights_and_images_are_the_same_for_all():
    one, other = cpu_networks.build("alexnet_small"), cpu_networks.build("alexnet_small")
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        assert np.array_equal(p.numpy(), q.numpy())
    images, labels = cpu_networks.batch("alexnet", 2)
    assert (images.shape, images.dtype, labels.shape) == ((2, 3, 227, 227), np.float32, (2,))
    assert 70 < images.std() < 78  # pixels, as this network wants them
    assert not np.array_equal(images[0], images[1])


def test_the_text_of_everything():
    one = {"importing": 0.5, "compiling": 0.7, "steps": [2.0, 1.0], "said": ["compiling, once"]}
    line = {"sizes": [1, 2], "seconds": [[1.0], [2.0]], "slope": 1.0, "intercept": 0.0, "r2": 1.0}
    line["largest_relative_residual"] = 0.01
    waits = {"batch": 4, "waiting_share": 0.06, "images_per_second": 5.0, "images_per_second_without_loader": 6.0}
    layer = {**ROW, "layer": "conv1", "kind": "Conv2d", "multiply_accumulates": 15e9 / 256}
    text = text_of(
        {
            "machine": {"cores": 2}, "field": {"ours": {}, "pytorch": {"torch": "2"}}, "absent": {},
            "training": [ROW, {**ROW, "problem": "out of memory"}], "layers": [layer],
            "memory": {"network": "mlp", "batch": 1, "bytes": {"ours": 3 * 2**20, "pytorch": 2**20}, "problems": {}},
            "scaling": {"batch": {**line, "network": "alexnet"}, "depth": line},
            "compilation": {"network": "alexnet", "batch": 32, "empty": one, "full": one},
            "pipeline": [{**waits, "images": "packed"}],
        }
    )  # fmt: skip
    assert re.search(r"^alexnet +128 +85.3 +25.6 +keras +2.00 +3.00 - 3.00 +>= 3.0 pytorch: 3.33, reached$", text, re.M)
    assert re.search(r"^alexnet +128 +out of memory$", text, re.M)
    assert re.search(r"^alexnet +128 +conv1 +Conv2d +1500.00 +10 +keras +3000.00 +2.00", text, re.M)
    assert "ours / pytorch: 3.00; bar <= 1: MISSED" in text
    assert "0 + 1000 n: R^2 1.00000, largest residual 1.0 %" in text
    assert "empty cache: 1.20 s, of which 0.50 s importing" in text
    assert "bar <= 15 s: reached; says: compiling, once" in text
    assert "bar <= 1 s: MISSED" in text
    assert "waits 6.0 % of the time; 5.0 images/s, 6.0 with images ready; bar <= 5 %: MISSED" in text
    assert "scaling: out of luck" in text_of(
        {"machine": {}, "field": {}, "absent": {}, "scaling": {"problem": "out of luck"}}
    )


@pytest.mark.parametrize(("reading", "step", "low", "high"), [(0.03, 0.0, 0.5, 1.0), (0.0, 0.05, 0.0, 0.3)])
def test_waiting_is_what_the_loader_takes_longer(plain, monkeypatch, reading, step, low, high):
    read = PhotographFiles._read

    def slow(self, name):
        time.sleep(reading)
        return read(self, name)

    monkeypatch.setattr(PhotographFiles, "_read", slow)
    monkeypatch.setattr(cpu_pipeline, "take_step", lambda *_: time.sleep(step))
    found = cpu_pipeline.waiting(str(plain), batch=2, steps=8, model="alexnet_small")
    assert low <= found["waiting_share"] <= high
    assert len(found["wait_seconds"]) == len(found["step_seconds"]) == 8
