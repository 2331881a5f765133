"""The benchmarks and the proof for a GPU, on the stand-in: what they count, compare and keep. Nothing about speed."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cupy_stand_in
import numpy as np
import pytest

from benchmarks import gpu, gpu_convolution, gpu_kernels, gpu_profile, gpu_proof, gpu_timing, gpu_training
from benchmarks.gpu_kernels import CASES, Draw
from minitorch_alex import backends
from minitorch_alex.backends.cuda_launcher import KERNELS
from minitorch_alex.cuda_on_cpu import kernel_folder, proven, read
from minitorch_alex.cuda_on_cpu import source as cuda_source
from minitorch_alex.cuda_on_cpu.__main__ import main as cuda_on_cpu

TESTS = Path(__file__).parent


@pytest.fixture
def backend(stand_in, monkeypatch):
    """The backend cupy on the stand-in. Every measurement calls what it measures a few times, and no more."""
    monkeypatch.setattr(gpu_timing, "LAUNCHES", 1)
    monkeypatch.setattr(gpu_timing, "deadline", math.inf)
    monkeypatch.setattr(gpu_timing, "gc", SimpleNamespace(collect=lambda: None))  # it takes its time
    return backends.current()


def quiet(what):
    pass


# -- times ------------------------------------------------------------------------------
def test_a_time_is_of_one_call(backend, monkeypatch):
    monkeypatch.setattr(gpu_timing, "LAUNCHES", 8)
    calls = []
    found = gpu_timing.timing(backend, lambda: (calls.append(1), time.sleep(0.01)), repeats=3, least=0.05)
    assert 0.01 <= found.gpu < 0.04
    assert 0.01 <= found.host < 0.04
    assert found.is_launching  # here Python does all the work
    assert 1 + 3 + 3 * 4 <= len(calls) <= 1 + 3 + 3 * 5
    assert not gpu_timing.Timing(gpu=1e-3, host=1e-4).is_launching


def test_a_copy_reads_and_writes(backend, monkeypatch):
    monkeypatch.setattr(gpu_timing, "timing", lambda *_, **__: gpu_timing.Timing(0.001, 0.0))
    assert gpu_timing.copy_speed(backend, 1, most=5_000_000) == {"bytes": 5_000_000, "gb_per_s": pytest.approx(10.0)}
    monkeypatch.setattr(backend, "free_bytes", lambda: 4000, raising=False)
    assert gpu_timing.copy_speed(backend, 1)["bytes"] == 1000  # two of them leave half of the memory


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (MemoryError("5 bytes"), "out of memory"),
        (RuntimeError("CUDA out of memory. Tried to"), "out of memory"),
        (TypeError("not\n  this type"), "TypeError: not this type"),
        (ValueError("wrong: 3 off"), "wrong: 3 off"),
    ],
)
def test_what_fails_is_a_row_that_says_so(backend, error, problem):
    def fails():
        raise error

    assert gpu_timing.attempted(backend, {"a": 1}, fails) == {"a": 1, "problem": problem}
    assert gpu_timing.attempted(backend, {"a": 1}, lambda: {"b": 2}) == {"a": 1, "b": 2}


def test_after_the_deadline_nothing_is_begun(backend, monkeypatch):
    monkeypatch.setattr(gpu_timing, "deadline", time.monotonic())
    assert gpu_timing.attempted(backend, {}, pytest.fail) == {"problem": "not measured: out of time"}


# -- kernels ----------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compared():
    """Each case in float32, compared with the reference: the kernels that it launched."""
    with cupy_stand_in.installed():
        backends.use("cupy")
        return {case.name: gpu_kernels.compare(backends.current(), case, "float32")[1] for case in CASES}


def test_every_kernel_that_the_backend_launches_is_measured(compared):
    launched = {name for names in compared.values() for name in names}
    assert launched >= {f"{file}:{name.split('<')[0]}" for file, names in KERNELS.items() for name in names}
    assert len({case.name for case in CASES}) == len(CASES)
    assert compared["LRN, conv1"] == ["lrn.cu:local_response_norm_walk"]


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("LRN, conv1", [(2, 96, 55, 55)]),
        ("im2col, conv1", [(2, 3, 227, 227)]),
        ("col2im, conv2", [(2, 96 * 25, 27 * 27), None]),
        ("dropout, fc6", [(2, 4096)]),
        ("softmax cross entropy", [(2, 1000), (2,)]),
        ("SGD, PyTorch's", [(61_000_000 * 2 // 128,)] * 3),
        ("augment to 227, mean image", [(2, 3, 256, 256), (2,), (2,), (2,), (2,)]),
    ],
)
def test_sizes_are_those_of_alexnet(name, shapes):
    case = next(one for one in CASES if one.name == name)
    given = [getattr(a, "shape", None) for a in case.arguments(Draw("float32"), 2)]
    assert given[: len(shapes)] == shapes


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("ReLU, conv1", "float32", 2 * 4 * 290_400),  # x and y, of 96 x 55 x 55
        ("ReLU, conv1", "bfloat16", 2 * 2 * 290_400),
        ("LRN, conv1", "float32", 12 * 290_400),  # as lrn.cu says of itself
        ("LRN, gradient", "float32", 16 * 290_400),
        ("max pool, pool1", "float32", 4 * 290_400 + 8 * 96 * 27 * 27),  # x; y and winner
        ("max pool, gradient to ties", "float32", 2 * 4 * 290_400 + 2 * 4 * 96 * 27 * 27),
        ("SGD, the paper's, all weights", "float32", 20 * (61_000_000 // 128)),  # as sgd.cu says of itself
        ("augment to 224", "float32", 3 * 224 * 224 * (1 + 4) + 3 * 4 + (4 + 4 + 4 + 1) + 2 * 3 * 4),
        (
            "batch norm, gradients",
            "float32",
            5 * 4 * 290_400 + 8 * 96 + 4 * 4 * 96,
        ),  # gy and x twice, gx; numbers for channels
    ],
)
def test_bytes_are_those_that_must_be_moved(backend, name, dtype, expected):
    case = next(one for one in CASES if one.name == name)
    arguments = gpu_kernels.on_device(backend, case.arguments(Draw(dtype), 1))
    assert gpu_kernels.least_bytes(case, arguments, getattr(backend, case.method)(*arguments)) == expected


def test_a_row_of_a_kernel(backend, monkeypatch):
    relu = CASES[0]
    monkeypatch.setattr(gpu_kernels, "timing", lambda *_: gpu_timing.Timing(gpu=1e-6, host=1e-7))
    row = gpu_kernels.measure(backend, relu, "float32", batch=1, repeats=1, copy=4000.0)
    speed = 8 * 290_400 / 1e-6 / 1e9
    assert row["gb_per_s"] == pytest.approx(speed)
    assert row["of_copy"] == pytest.approx(speed / 4000)
    assert (row["microseconds"], row["host_microseconds"]) == (pytest.approx(1.0), pytest.approx(0.1))
    assert (row["reaches_goal"], row["is_launching"], row["launches"]) == (False, False, ["bias_relu.cu:relu"])
    assert gpu_kernels.measure(backend, relu, "float32", 1, 1, speed / 0.81)["reaches_goal"]
    assert not gpu_kernels.measure(backend, relu, "float32", 1, 1, speed / 0.79)["reaches_goal"]


def test_a_broken_kernel_is_not_measured(backend, monkeypatch):
    original = type(backend).relu
    monkeypatch.setattr(gpu_kernels, "CASES", CASES[:2])
    monkeypatch.setattr(type(backend), "relu", lambda self, x: original(self, x) + 0.001 * (x > 3))
    rows = gpu_kernels.measure_kernels(backend, 1, 1, 1000.0, quiet)
    assert rows[0]["problem"].startswith("wrong: relu is ")
    assert "microseconds" not in rows[0]
    assert "problem" not in rows[2]  # its gradient
    assert re.search(r"^ReLU, conv1 +float32 +wrong: relu", gpu_kernels.kernel_table(rows, 1000.0), re.M)


def test_nan_in_a_second_result_is_wrong(backend, monkeypatch):
    original = type(backend).max_pool2d

    def max_pool2d(self, *arguments):
        y, winner = original(self, *arguments)
        return y, winner * float("nan")

    monkeypatch.setattr(type(backend), "max_pool2d", max_pool2d)
    (case,) = (one for one in CASES if one.method == "max_pool2d")
    with pytest.raises(ValueError, match=r"^wrong: max_pool2d is nan off"):
        gpu_kernels.compare(backend, case, "float32")


def test_distance():
    assert gpu_kernels.distance(np.array([1.0, 5.0]), np.array([1.5, -10.0])) == 1.5
    assert math.isnan(gpu_kernels.distance(np.array([1.0, np.nan]), np.array([1.5, -10.0])))
    with pytest.raises(ValueError, match="shape"):
        gpu_kernels.distance(np.zeros(2), np.zeros((2, 1)))


# -- convolution ------------------------------------------------------------------------
@pytest.fixture
def torch_on_the_cpu(monkeypatch):
    """PyTorch in the role of PyTorch with a GPU."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for module in (gpu_convolution, gpu_training):
        monkeypatch.setattr(module, "torch_with_gpu", lambda: torch)
    monkeypatch.setattr(gpu_timing, "DEVICE", "cpu")
    yield torch
    gpu_timing.set_torch_precision(torch, "fp32")


@pytest.mark.parametrize("layer", [(4, 9, 6, 3, 1, 1, 2), (3, 11, 4, 3, 2, 0, 1), (2, 8, 2, 5, 3, 2, 1)])
@pytest.mark.parametrize("variant", gpu_convolution.VARIANTS, ids=lambda variant: variant.name)
def test_every_layout_computes_the_same(backend, variant, layer, request):
    if variant is gpu_convolution.CuDNN:
        request.getfixturevalue("torch_on_the_cpu")
    row = gpu_convolution.measure(backend, variant, gpu_convolution.Layer("layer", *layer), "fp32", 3, 1)
    assert all(row[what] > 0 for what in gpu_convolution.PASSES)


@pytest.mark.parametrize("what", gpu_convolution.PASSES)
def test_a_wrong_layout_is_not_measured(backend, what, monkeypatch):
    original = getattr(gpu_convolution.PerImage, what)
    monkeypatch.setattr(gpu_convolution.PerImage, what, lambda self: original(self) * 1.01)
    layer = gpu_convolution.Layer("layer", 4, 9, 6, 3, 1, 1, 2)
    with pytest.raises(ValueError, match=f"^wrong: {what} of layer, per image"):
        gpu_convolution.measure(backend, gpu_convolution.PerImage, layer, "fp32", 3, 1)


def test_convolution_tells_how_many_times_as_fast(backend, monkeypatch):
    monkeypatch.setattr(gpu_convolution, "LAYERS", [gpu_convolution.Layer("tiny", 4, 6, 2, 3, 1, 1, 2)])
    monkeypatch.setattr(gpu_convolution, "torch_with_gpu", lambda: None)
    limit = gpu_convolution.cuda_windows.COLUMN_BYTES
    rows = gpu_convolution.measure_convolutions(backend, 2, ["fp32", "tf32"], 1, quiet)
    assert [row["variant"] for row in rows] == 2 * [variant.name for variant in gpu_convolution.VARIANTS]
    assert {row["variant"] for row in rows if "problem" in row} == {"cuDNN"}
    assert (gpu_convolution.cuda_windows.COLUMN_BYTES, backend.precision) == (limit, "fp32")
    passes = dict.fromkeys(gpu_convolution.PASSES, 4.0)
    slow, quick = {**rows[0], **passes}, {**rows[1], **passes, "forward": 1.0}
    last = gpu_convolution.convolution_table([slow, quick]).splitlines()[-1].split()
    assert last[-8:] == ["1.000", "4.00", "4.000", "1.00", "4.000", "1.00", "9.000", "1.33"]


# -- training ---------------------------------------------------------------------------
@pytest.fixture
def small_training(backend, monkeypatch):
    """A network of AlexNet's ingredients for images of 16 pixels, and two batches of stored images."""
    for name, value in {
        "NETWORKS": ("alexnet_small",),
        "CLASSES": 5,
        "STORED": 18,
        "BATCHES": 2,
        "SMALL_IMAGES": (3, 16, 16),
    }.items():
        monkeypatch.setattr(gpu_training, name, value)
    monkeypatch.setattr(gpu_profile, "PROFILED", 1)
    return backend


class ClockEvent:
    """torch.cuda.Event where there is no CUDA."""

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        self.time = time.perf_counter()

    def synchronize(self):
        pass

    def elapsed_time(self, end):
        return 1000 * (end.time - self.time)


def test_training_against_pytorch(small_training, torch_on_the_cpu, monkeypatch):
    torch = torch_on_the_cpu
    monkeypatch.setattr(torch.cuda, "Event", ClockEvent)
    (row,) = gpu_training.measure_training([2], ["tf32"], 1, 0.0, quiet)
    assert "problem" not in row, row
    assert row["ratio"] == pytest.approx(row["ours"] / row["pytorch"])
    assert row["disagreement"] < 1e-4
    assert min(row[name] for name in ("ours", "pytorch", "stored_on_gpu", "sent")) > 0
    assert list(row["where_pytorch"]) == ["forward", "backward", "SGD"]
    assert torch.backends.cuda.matmul.allow_tf32
    assert small_training.precision == "fp32"  # afterwards
    line = gpu_training.training_table([{**row, "ours": 300.0, "pytorch": 200.0, "ratio": 1.5}]).splitlines()[-1]
    assert re.search(r"^alexnet_small +2 +tf32 +300 +200 +1\.50 ", line)


def test_other_weights_would_be_noticed(small_training, torch_on_the_cpu, monkeypatch):
    torch = torch_on_the_cpu
    original = gpu_training.twin

    def other(*arguments):
        network = original(*arguments)
        with torch.no_grad():
            next(network.parameters()).mul_(1.1)
        return network

    monkeypatch.setattr(gpu_training, "twin", other)
    (row,) = gpu_training.measure_training([2], ["fp32"], 1, 0.0, quiet)
    assert row["problem"].startswith("wrong: the scores of the two networks are ")


def test_training_without_pytorch_and_without_memory(small_training, monkeypatch):
    monkeypatch.setattr(gpu_training, "torch_with_gpu", lambda: None)
    original = gpu_training.Contest.step

    def step(self, images, labels):
        if len(images) > 3:
            raise MemoryError("Out of memory allocating 77 bytes")
        return original(self, images, labels)

    monkeypatch.setattr(gpu_training.Contest, "step", step)
    rows = gpu_training.measure_training([4, 2], ["fp32"], 1, 0.0, quiet)
    assert [row.get("problem") for row in rows] == ["out of memory", None]
    assert "pytorch" not in rows[1]
    text = gpu_training.training_table(rows)
    assert re.search(r"^alexnet_small +4 +fp32 +out of memory$", text, re.M)
    assert re.search(r"^alexnet_small +2 +fp32 +[\d,]+ +- +- ", text, re.M)


def test_what_is_measured_is_training(small_training):
    contest = gpu_training.Contest("alexnet_small", None)
    images, labels = contest.batch(4)
    before = [p.numpy().copy() for p in contest.run.network.parameters()]
    losses = [contest.step(images, labels) for _ in range(2)]
    assert all(math.isfinite(loss) for loss in losses)
    assert contest.run.progress.step == 2
    for p, old in zip(contest.run.network.parameters(), before, strict=True):
        assert not np.array_equal(p.numpy(), old)


def test_where_the_time_goes_is_the_whole_step(small_training):
    contest = gpu_training.Contest("alexnet_small", None)
    images, labels = contest.batch(2)
    images = small_training.asarray(images)
    contest.step(images, labels)
    tape = sys.modules["minitorch_alex.tensor"]
    hooks = "common_backend", "_edges_that_count", "_passed_on"
    before = [getattr(tape, name) for name in hooks]
    rows = gpu_profile.where_time_goes(lambda: contest.step(images, labels), contest.run.optimizer)
    found = {row["what"]: row["milliseconds"] for row in rows}
    first = next(p for p in contest.run.network.parameters() if p.ndim == 4).shape
    assert {f"conv2d {first}", f"gradient of conv2d to {first}", "SGD", "rest"} <= set(found)
    assert any(what.startswith("gradient of softmax_cross_entropy") for what in found)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert all(value > 0 for value in found.values())
    assert found["rest"] < 0.5 * sum(found.values())
    assert [getattr(tape, name) for name in hooks] == before  # nothing is watched any more
    assert "step" not in vars(contest.run.optimizer)


# -- the command ------------------------------------------------------------------------
@pytest.fixture
def tiny(small_training, monkeypatch):
    """The whole command on little: two kernels, one layer, one network."""
    monkeypatch.setattr(gpu_kernels, "CASES", CASES[:1])
    monkeypatch.setattr(gpu_convolution, "LAYERS", [gpu_convolution.Layer("tiny", 4, 6, 2, 3, 1, 1, 2)])
    monkeypatch.setattr(gpu, "copy_speed", lambda backend, repeats: {"bytes": 10, "gb_per_s": 100.0})
    monkeypatch.setattr(gpu_timing, "driver", lambda: "580.1")
    for module in (gpu_convolution, gpu_training, gpu_timing):
        monkeypatch.setattr(module, "torch_with_gpu", lambda: None)


OPTIONS = ["--batch", "1", "--batches", "2", "--repeats", "1", "--precisions", "fp32", "--quick"]


def test_the_command_keeps_everything(tiny, tmp_path, capsys):
    assert gpu.main([*OPTIONS, "--out", str(tmp_path)]) == 0
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert list(kept) == ["command", "machine", *gpu.PARTS]
    assert (kept["machine"]["gpu"], kept["machine"]["driver"], kept["machine"]["cupy"]) == (
        "a stand-in",
        "580.1",
        "14.2.0",
    )
    assert (tmp_path / "gpu.txt").read_text() + "\n" == capsys.readouterr().out
    for start in ("Copy on the device: 100 GB/s", "Kernels. ", "Convolution: ", "Training: ", "alexnet_small, batch 2"):
        assert re.search(f"^{start}", (tmp_path / "gpu.txt").read_text(), re.M)


def test_parts_can_be_added_to_those_of_the_same_machine(tiny, tmp_path, monkeypatch):
    options = [*OPTIONS, "--out", str(tmp_path), "--add", "--parts"]
    assert gpu.main([*options, "kernels"]) == 0
    assert gpu.main([*options, "convolution"]) == 0
    kept = json.loads((tmp_path / "gpu.json").read_text())
    assert {"copy", "kernels", "convolution"} <= set(kept)
    monkeypatch.setattr(gpu_timing, "driver", lambda: "590.2")
    assert gpu.main([*options, "kernels"]) == 0
    assert "convolution" not in json.loads((tmp_path / "gpu.json").read_text())


def test_a_wrong_kernel_shows_in_the_exit_status(tiny, backend, tmp_path, monkeypatch):
    monkeypatch.setattr(type(backend), "relu", lambda self, x: x)
    assert gpu.main([*OPTIONS, "--out", str(tmp_path), "--parts", "kernels"]) == 1


@pytest.mark.parametrize("command", [gpu.main, gpu_proof.main])
def test_without_a_gpu_a_line_says_so(command, monkeypatch, capsys):
    monkeypatch.setattr(backends, "why_not", lambda name: "there is no GPU")
    assert command([]) == 2
    assert re.fullmatch(r"gpu\w*: there is no GPU\n", capsys.readouterr().err)


# -- the proof --------------------------------------------------------------------------
def test_every_kernel_has_run_on_a_gpu():
    files = proven.unproven()
    if files:
        count = sum(len(read(kernel_folder() / file).kernels) for file in files)
        pytest.skip(f"{count} kernels have not run on a GPU in their present form: {', '.join(files)}")


@pytest.fixture
def kernels(tmp_path, monkeypatch):
    """A folder of two kernels, one of which includes a header."""
    for name in ("dropout.cu", "philox.cuh", "bfloat16.cuh", "warp.cuh", "matmul.cu"):
        if (kernel_folder() / name).is_file():
            shutil.copy(kernel_folder() / name, tmp_path)
    for module in (cuda_source, proven, gpu_proof):
        monkeypatch.setattr(module, "kernel_folder", lambda: tmp_path)
    return tmp_path


@pytest.fixture
def proof(backend, kernels, monkeypatch):
    """What surrounds the kernels in a proof, as if it were well. Prove with main(), and change what it holds."""
    monkeypatch.setattr(gpu_proof, "run_tests", lambda seconds: {"ran": 3, "passed": 3})
    monkeypatch.setattr(gpu_proof, "run_sanitizer", lambda tool: f"{tool}: 0 errors")
    return kernels


def test_a_proof_and_what_ends_it(proof, capsys):
    assert proven.unproven() == ["dropout.cu", "matmul.cu"]
    assert gpu_proof.main(["--out", str(proof / "proven.json")]) == 0
    assert proven.unproven() == []
    record = json.loads((proof / "proven.json").read_text())
    assert (record["machine"]["gpu"], record["tests"]["passed"]) == ("a stand-in", 3)
    assert record["sanitizer"] == {"memcheck": "memcheck: 0 errors", "racecheck": "racecheck: 0 errors"}
    assert {"dropout<float>", "dropout<double>", "philox_blocks"} <= set(
        record["files"]["dropout.cu"]["largest_difference"]
    )
    capsys.readouterr()
    assert cuda_on_cpu([]) == 0
    assert re.search(r"^matmul .*\n +matmul +matmul_tiled\n +ran on a stand-in$", capsys.readouterr().out, re.M)

    header, kernel = proof / "philox.cuh", proof / "matmul.cu"
    text = header.read_text()
    header.write_text(text + "// another line\n")
    assert proven.unproven() == ["dropout.cu"]
    header.write_text(text)
    assert proven.unproven() == []
    kernel.write_text(kernel.read_text().replace("sum +=", "sum -="))
    assert proven.unproven() == ["matmul.cu"]
    assert cuda_on_cpu([]) == 0
    assert re.search(r"^matmul .*\n +matmul +matmul_tiled\n +not yet run on a GPU$", capsys.readouterr().out, re.M)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"files": []}', '{"files": {"matmul.cu": "yes"}}', '{"files": {"matmul.cu": {}}}', "\x00"],
)
def test_a_damaged_record_proves_nothing(kernels, text):
    (kernels / "proven.json").write_text(text)
    assert proven.unproven() == ["dropout.cu", "matmul.cu"]


QUICK = ("bias_relu.cu", "matmul.cu", "sgd.cu")  # shared memory, bfloat16, and neither


@pytest.mark.parametrize(
    "file",
    [
        path.name if path.name in QUICK else pytest.param(path.name, marks=pytest.mark.slow)
        for path in sorted(kernel_folder().glob("*.cu"))
    ],
)
def test_every_kernel_can_be_proven(backend, file):
    both = gpu_proof.OnBoth(file)
    assert {instance.split("<")[0] for instance in both.examples} == set(read(file).kernels)
    assert all(both.compare(instance) == 0 for instance in both.examples)  # here both are the CPU


def nothing_is_recorded(folder, capsys, message):
    assert gpu_proof.main(["--out", str(folder / "proven.json")]) == 1
    assert not (folder / "proven.json").exists()
    assert re.search(message, capsys.readouterr().err)


def test_a_kernel_that_differs_on_the_gpu_is_not_recorded(proof, capsys, monkeypatch):
    original = gpu_proof.OnBoth.launch

    def launch(self, instance):
        values = original(self, instance)
        if instance == "matmul_tiled<double>":
            values[2] = values[2] * (1 + 1e-9)
        return values

    monkeypatch.setattr(gpu_proof.OnBoth, "launch", launch)
    nothing_is_recorded(proof, capsys, r"nothing is recorded: matmul.cu: matmul_tiled<double> is 1.0e-09 off")


def test_a_kernel_without_an_example_is_not_recorded(proof, capsys):
    (proof / "matmul.cu").write_text(
        (proof / "matmul.cu").read_text() + "__global__ void extra(int* x) { x[0] = 1; }\n"
    )
    nothing_is_recorded(proof, capsys, "extra has no example")


def test_a_kernel_that_changes_meanwhile_is_not_recorded(proof, capsys, monkeypatch):
    def run_tests(seconds):
        (proof / "matmul.cu").write_text((proof / "matmul.cu").read_text() + "// edited\n")

    monkeypatch.setattr(gpu_proof, "run_tests", run_tests)
    nothing_is_recorded(proof, capsys, "matmul.cu changed meanwhile")


@pytest.mark.parametrize(
    ("body", "passed", "message"),
    [
        pytest.param("assert True", 2, None, marks=pytest.mark.slow),
        ("pytest.skip('of no use here')", 1, None),
        ("assert False", 1, r"'passed': 1, 'failed': 1, 'skipped': 0"),
        pytest.param("undefined", 1, r"'passed': 1, 'failed': 1, 'skipped': 0", marks=pytest.mark.slow),
    ],
)
def test_tests_that_fail_prove_nothing(monkeypatch, tmp_path, body, passed, message):
    (tmp_path / "test_it.py").write_text(
        f"import os, pytest\ndef test_a(): assert os.environ['MINITORCH_ALEX_REQUIRE_GPU']\ndef test_b(): {body}\n"
    )
    monkeypatch.setattr(gpu_proof, "ROOT", tmp_path)
    monkeypatch.setattr(gpu_proof, "TESTS", ["-q", "-p", "no:cacheprovider", "test_it.py"])
    if message is None:
        assert gpu_proof.run_tests(60)["passed"] == passed
    else:
        with pytest.raises(gpu_proof.ProofError, match=message):
            gpu_proof.run_tests(60)


def test_no_tests_prove_nothing_and_neither_do_those_that_take_too_long(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_proof, "ROOT", tmp_path)
    with pytest.raises(gpu_proof.ProofError, match=r"more than 0.01 s"):
        gpu_proof.run_tests(0.01)
    with pytest.raises(gpu_proof.ProofError, match="exit status 5"):
        gpu_proof.run_tests(60)


MEMCHECK = "========= COMPUTE-SANITIZER\nevery kernel ran\n========= ERROR SUMMARY: {} errors\n"
RACECHECK = "every kernel ran\n========= RACECHECK SUMMARY: {0} hazards displayed ({0} errors, 0 warnings)\n"
REFUSED = (
    '========= COMPUTE-SANITIZER\n========= Error: Device not supported. Please refer to the "Supported Devices"\n'
)


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (MEMCHECK.format(0), "ERROR SUMMARY: 0 errors"),
        (RACECHECK.format(0), "RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)"),
        (REFUSED, "not done: Error: Device not supported."),
        (REFUSED + MEMCHECK.format(0), "not done: Error: Device not supported."),  # it ran, but unwatched
        (MEMCHECK.format(2), None),
        (RACECHECK.format(1), None),
        (MEMCHECK.format(0).replace("every kernel ran", "Traceback"), None),
        ("========= COMPUTE-SANITIZER\nTraceback (most recent call last):\nImportError", None),
        ("", None),
    ],
)
def test_what_the_sanitizer_says(output, expected):
    if expected is None:
        with pytest.raises(gpu_proof.ProofError, match="compute-sanitizer says"):
            gpu_proof.verdict(output)
    else:
        assert gpu_proof.verdict(output).startswith(expected)


def test_the_sanitizer_is_given_every_kernel(backend, kernels, capsys, tmp_path, monkeypatch):
    launched = []
    original = gpu_proof.OnBoth.launch
    monkeypatch.setattr(
        gpu_proof.OnBoth, "launch", lambda self, instance: (launched.append(instance), original(self, instance))
    )
    assert gpu_proof.main(["--only-run"]) == 0
    assert capsys.readouterr().out == "every kernel ran\n"
    assert {"matmul<float>", "matmul_tiled<double>", "dropout<float>", "philox_blocks"} <= set(launched)


def test_where_there_is_no_sanitizer_that_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpu_proof, "PLACES", ())
    assert gpu_proof.run_sanitizer("memcheck").startswith("not done: compute-sanitizer, of the CUDA toolkit, is not")
    program = tmp_path / "compute-sanitizer"
    program.write_text(
        '#!/bin/sh\necho "========= $1 $2"\necho every kernel ran\necho "========= ERROR SUMMARY: 0 errors"\n'
    )
    program.chmod(0o755)
    assert gpu_proof.run_sanitizer("memcheck") == "ERROR SUMMARY: 0 errors"


# -- skips for want of a GPU ----------------------------------------------------------------
WANTS_A_GPU = """
import pytest
from minitorch_alex import backends
backends.why_not = lambda name: None if name == "numpy" else f"{name} is not here"

def test_something(backend):
    assert backend.name == "numpy"
"""
HAS_A_GPU = """
import pytest
from minitorch_alex import backends
backends.why_not = lambda name: None

@pytest.mark.gpu
def test_something():
    pytest.skip("of no use here")
"""


def suite(folder, text, **environment):
    """This suite's conftest.py with another test."""
    shutil.copy(TESTS / "conftest.py", folder)
    (folder / "test_it.py").write_text(text)
    python_path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    environment = {**os.environ, "PYTHONPATH": python_path, "MINITORCH_ALEX_REQUIRE_GPU": "", **environment}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--strict-markers", "-rs"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_skips_for_want_of_a_gpu_are_counted(tmp_path):
    done = suite(tmp_path, WANTS_A_GPU)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 3 skipped" in done.stdout
    assert "\n1 test was skipped for want of a GPU; MINITORCH_ALEX_REQUIRE_GPU=1 makes that a failure\n" in done.stdout


def test_or_are_failures(tmp_path):
    done = suite(tmp_path, WANTS_A_GPU, MINITORCH_ALEX_REQUIRE_GPU="1")
    assert done.returncode == 1
    assert "1 passed, 2 skipped, 1 error" in done.stdout
    assert "MINITORCH_ALEX_REQUIRE_GPU is set, but cupy is not here" in done.stdout
    assert "for want of" not in done.stdout


def test_where_there_is_a_gpu_other_skips_stay(tmp_path):
    done = suite(tmp_path, HAS_A_GPU, MINITORCH_ALEX_REQUIRE_GPU="1")
    assert done.returncode == 0
    assert "for want of" not in done.stdout
