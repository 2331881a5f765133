"""Every kernel compiles for real GPUs and fits on them: asked of NVIDIA's compiler, without a GPU."""

import re

import pytest

from benchmarks import nvrtc_table
from benchmarks.nvrtc_table import CompileError, compile_kernels, instances
from minitorch_alex.cuda_on_cpu import kernel_folder

FILES = sorted(kernel_folder().glob("*.cu"))
THREADS = 256  # the most that a block of these kernels has
REGISTERS = 65536  # of a multiprocessor: a block that wants more cannot start
SHARED = 48 * 1024  # bytes of shared memory that a block gets without asking

needs_compiler = pytest.mark.skipif(nvrtc_table.why_not() is not None, reason=str(nvrtc_table.why_not()))


def check(path, architectures=("sm_80", "sm_90")):
    """Compile one file for these architectures, and refuse what does not fit."""
    for row in nvrtc_table.measure([path], architectures):
        assert row.spills == 0, f"{row.kernel} on {row.architecture} spills {row.spills} bytes"
        assert row.registers * THREADS <= REGISTERS, f"{row.kernel} on {row.architecture}: {row.registers} registers"
        assert row.shared <= SHARED, f"{row.kernel} on {row.architecture}: {row.shared} bytes of shared memory"


@needs_compiler
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fits(path):
    check(path)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_fits_older_and_newer_gpus(path):
    check(path, set(nvrtc_table.architectures()) - {"sm_80", "sm_90"})


@needs_compiler
def test_the_architectures_that_matter_are_known():
    assert {"sm_75", "sm_80", "sm_90"} <= set(nvrtc_table.architectures())


@needs_compiler
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("y[0] = no_such_name;", "no_such_name"),
        (
            "__shared__ T s[8192]; s[threadIdx.x] = y[0]; __syncthreads(); y[0] = s[threadIdx.x ^ 1];",
            "65536 bytes smem",
        ),
        (
            "T a[64]; for (int i = 0; i < 64; i++) a[i] = y[i];"
            "for (int k = 0; k < 99; k++) for (int i = 0; i < 64; i++) a[i] = a[(i * 7 + 1) % 64] * a[i] + y[k];"
            "for (int i = 0; i < 64; i++) y[i] = a[i];",
            "spills",
        ),
    ],
    ids=["a wrong name", "too much shared memory", "too many registers"],
)
def test_what_does_not_fit_is_refused(body, complaint, tmp_path):
    path = tmp_path / "bad.cu"
    bounds = "__launch_bounds__(1024)" if complaint == "spills" else ""
    path.write_text(f"template <typename T> __global__ void {bounds} bad(T* y) {{ {body} }}")
    with pytest.raises((CompileError, AssertionError), match=complaint):
        check(path)


@needs_compiler
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_sgd_rounds_every_product(architecture):
    """A fused multiply-add rounds once where NumPy rounds twice, and the weights would drift apart."""
    path = kernel_folder() / "sgd.cu"
    text = compile_kernels(path, architecture, instances(path.read_text()))[1]
    assert "mul.rn" in text
    assert "fma." not in text


def test_instances_are_found_in_the_source():
    source = """
        // __global__ void in_a_comment(int n)
        __global__ void plain(int n) {}
        template <typename T>
        __global__ void either(const T* x) {}
        template <typename T, int SIZE>
        __global__ void __launch_bounds__(256) sized(T* x) {}
        __device__ void helper(int n) {}
    """
    with pytest.raises(CompileError, match="sized"):
        instances(source)
    named = "// instances: sized<float, 5>; sized<double, 3>\n"
    found = ["plain", "either<float>", "either<double>", "sized<float, 5>", "sized<double, 3>"]
    assert instances(named + source) == found
    with pytest.raises(CompileError, match="no such kernel"):
        instances("// instances: another<float>\n" + named + source)


def test_the_kept_table_has_every_kernel():
    rows = ["|".join(re.split(" {2,}", line)[:2]) for line in nvrtc_table.RESULT.read_text().splitlines()[3:]]
    assert rows == [f"{path.name}|{name}" for path in FILES for name in instances(path.read_text())], (
        "kernels have come or gone: python -m benchmarks.nvrtc_table"
    )
