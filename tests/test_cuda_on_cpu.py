"""CUDA on a CPU: right kernels run and raise no alarm, planted mistakes are found, and the rest says what it lacks."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest

from minitorch_alex import cuda_on_cpu
from minitorch_alex.cuda_on_cpu import CudaOnCpuError, compiler, empty, load, memory, orders, source, why_not
from minitorch_alex.cuda_on_cpu.__main__ import main
from minitorch_alex.cuda_on_cpu.examples import EXAMPLES, Draw

compiles = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

FLOAT = numpy.dtype("float32")
X = numpy.arange(1, 65, dtype=FLOAT)


# -- right kernels --------------------------------------------------------------------------------
RIGHT = """
const int WARP = 32;
const unsigned ALL = 0xffffffff;

template <typename T>
__global__ void tree(const T* x, T* sums, int n) {  // static shared memory, a barrier in a loop
    __shared__ T buffer[64];
    buffer[threadIdx.x] = blockIdx.x * 64 + threadIdx.x < n ? x[blockIdx.x * 64 + threadIdx.x] : T(0);
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (threadIdx.x < half) buffer[threadIdx.x] += buffer[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = buffer[0];
}

template <typename T>
__global__ void transpose(const T* x, T* y) {  // two dimensions, two arrays in one declaration
    __shared__ T tile[8][9], spare[2];
    tile[threadIdx.y][threadIdx.x] = x[threadIdx.y * 8 + threadIdx.x];
    if (threadIdx.x < 2 && threadIdx.y == 0) spare[threadIdx.x] = 1;
    __syncthreads();
    y[threadIdx.y * 8 + threadIdx.x] = tile[threadIdx.x][threadIdx.y] * spare[1];
}

template <typename T>
__global__ void reversed(const T* x, T* y) {  // dynamic shared memory
    extern __shared__ T line[];
    line[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = line[blockDim.x - 1 - threadIdx.x];
}

template <typename T>
__global__ void warps(const T* x, T* y) {  // each row of y another warp function; 64 threads
    int i = threadIdx.x, n = blockDim.x, lane = i % WARP;
    y[i] = __shfl_sync(ALL, x[i], 5);
    y[n + i] = __shfl_up_sync(ALL, x[i], 3);
    y[2 * n + i] = __shfl_down_sync(ALL, x[i], 3, 8);
    y[3 * n + i] = __shfl_xor_sync(ALL, x[i], 1);
    y[4 * n + i] = __popc(__ballot_sync(ALL, x[i] > 10));
    y[5 * n + i] = __any_sync(ALL, x[i] == 40) + 2 * __all_sync(ALL, x[i] < 40);
    y[6 * n + i] = __reduce_add_sync(ALL, (int)x[i]);
    y[7 * n + i] = -1;
    if (lane < 16) y[7 * n + i] = __shfl_sync(0x0000ffff, x[i], 15);  // half of the warp
}

template <typename T>
__global__ void through_memory(const T* x, T* y) {  // within a warp: a __syncwarp is enough
    __shared__ T line[64];
    T* mine = line + threadIdx.x / WARP * WARP;
    int lane = threadIdx.x % WARP;
    for (int round = 0; round < 3; ++round) {
        mine[lane] = x[threadIdx.x] + round;
        __syncwarp();
        T seen = mine[0] + mine[31 - lane];  // several readers of one element, which is then written again
        __syncwarp();
        y[threadIdx.x] = seen;
    }
}

template <typename T>
__global__ void leaving_early(const T* x, T* y, int n) {  // who has left is not waited for
    __shared__ T line[64];
    if (threadIdx.x >= n) return;
    line[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = __popc(__ballot_sync(ALL, 1));
    __syncthreads();
    y[threadIdx.x] += line[n - 1 - threadIdx.x];
}

template <typename T>
__global__ void votes(const T* x, int* y) {
    int count = __syncthreads_count(x[threadIdx.x] > 10);
    int all = __syncthreads_and(x[threadIdx.x] > 0);
    int any = __syncthreads_or(x[threadIdx.x] < 0);
    y[threadIdx.x] = count * 100 + all * 10 + any;
}

template <typename T>
__global__ void histogram(const T* x, int* bins, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) atomicAdd(bins + (int)x[i] % 4, 1);
}

template <typename T>
__global__ void arithmetic(double* y) {
    T nan = T(0) / T(0);
    y[0] = max(nan, T(2)), y[1] = min(3, 4LL), y[2] = rsqrt(T(4)), y[3] = __umul64hi(1ULL << 63, 6), y[4] = __clz(1);
    y[5] = warpSize, y[6] = blockDim.y, y[7] = gridDim.z;
}

struct alignas(8) Pair { float a, b; };
__global__ void odd_parameters(const float4* x, Pair pair, float* nowhere, unsigned char* y) {
    y[0] = nowhere == nullptr ? (unsigned char)(x[1].z + pair.b) : 0;
}
"""


def right(run, dtype="float32"):
    """Run every right kernel by run(name, grid, block, arguments, **more) and compare with NumPy."""
    x = numpy.arange(1, 65, dtype=dtype)
    T = "float" if dtype == "float32" else "double"

    sums = numpy.zeros(2, dtype)
    run(f"tree<{T}>", (2,), (64,), (numpy.append(x, x)[:100], sums, 100))
    assert sums.tolist() == [x.sum(), x[:36].sum()]

    y = numpy.zeros(64, dtype)
    run(f"transpose<{T}>", (1,), (8, 8), (x, y))
    assert (y.reshape(8, 8) == x.reshape(8, 8).T).all()
    run(f"reversed<{T}>", (1,), (64,), (x, y), shared_mem=x.nbytes)
    assert (y == x[::-1]).all()

    rows = numpy.zeros((8, 64), dtype)
    run(f"warps<{T}>", (1,), (64,), (x, rows))
    lane, i = numpy.arange(64) % 32, numpy.arange(64)
    expected = [
        x[i - lane + 5],
        numpy.where(lane < 3, x, x[i - 3]),
        numpy.where(lane % 8 + 3 < 8, x[(i + 3) % 64], x),
        x[i ^ 1],
        numpy.where(i < 32, 22, 32),
        numpy.where(i < 32, 2, 1),
        numpy.where(i < 32, x[:32].sum(), x[32:].sum()),
        numpy.where(lane < 16, x[i - lane + 15], -1),
    ]
    assert (rows == expected).all()

    run(f"through_memory<{T}>", (1,), (64,), (x, y))
    assert (y == x[i - lane] + x[i - lane + 31 - lane] + 4).all()
    y[:] = 0
    run(f"leaving_early<{T}>", (1,), (64,), (x, y, 40))
    assert (y[:40] == numpy.where(i < 32, 32, 8)[:40] + x[:40][::-1]).all()
    assert (y[40:] == 0).all()

    whole = numpy.zeros(64, "int32")
    run(f"votes<{T}>", (1,), (64,), (x, whole))
    assert (whole == 54 * 100 + 10).all()
    bins = numpy.zeros(4, "int32")
    run(f"histogram<{T}>", (2,), (32,), (x, bins, 63))
    assert bins.tolist() == [15, 16, 16, 16]

    numbers = numpy.zeros(8)
    run(f"arithmetic<{T}>", (1,), (1,), (numbers,))
    assert numbers.tolist() == [2, 3, 0.5, 3, 31, 32, 1, 1]
    flag = numpy.zeros(1, "uint8")
    pair = numpy.array([(1, 5)], "f4,f4")[0]
    run("odd_parameters", (1,), (1,), (x.astype("float32"), pair, None, flag))
    assert flag[0] == 12


@pytest.fixture(scope="module")
def right_kernels():
    return load(RIGHT)


@compiles
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_kernels_are_right_and_raise_no_alarm(right_kernels, dtype):
    def run(name, *arguments, **more):
        right_kernels.get_function(name).in_every_order(*arguments, **more, race=True)

    right(run, dtype)


@compiles
def test_without_the_switch_in_assembly():
    """As on processors other than x86-64."""
    names = [
        name for kernel in load(RIGHT).source.kernels.values() for name in kernel.instances if "double" not in name
    ]
    kernels = load(RIGHT, names, options=["-DUSE_UCONTEXT"])
    with orders(7, guard="start"):
        right(lambda name, *arguments, **more: kernels.get_function(name)(*arguments, **more))


@compiles
def test_threads_of_python_do_not_disturb_each_other(right_kernels):
    problems = []

    def work():
        try:
            right(lambda name, *arguments, **more: right_kernels.get_function(name)(*arguments, **more))
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


@compiles
def test_a_template_may_be_asked_for_at_another_type(right_kernels):
    y = numpy.zeros(64, "int32")
    right_kernels.get_function("reversed<int>")((1,), (64,), (numpy.arange(64, dtype="int32"), y), shared_mem=256)
    assert (y == numpy.arange(64)[::-1]).all()
    with pytest.raises(CudaOnCpuError, match="reversed is a template: say for what, such as reversed<float>"):
        right_kernels.get_function("reversed")
    with pytest.raises(CudaOnCpuError, match="no kernel 'forward': it has tree, transpose"):
        right_kernels.get_function("forward<float>")


# -- mistakes -------------------------------------------------------------------------------------
MISTAKES = source.TEACHING / "mistakes.cu"


def line_of(kernel, text):
    """Where in mistakes.cu, within this kernel, a text stands."""
    lines = MISTAKES.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if f"void {kernel}(" in line)
    return next(f"mistakes.cu:{i + 1}" for i in range(start, len(lines)) if text in lines[i])


@pytest.fixture(scope="module")
def mistakes():
    names = source.read(MISTAKES).kernels
    return load(MISTAKES, [name if name == "misaligned" else f"{name}<float>" for name in names])


# kernel, conditions, what the message says, and the lines that it names
FOUND = [
    ("one_past_the_end", {"guard": "end"}, r"x\[64\], and x has 64 elements.*block 0, thread 64", ["y[i] = x[i]"]),
    ("one_past_the_end", {"guard": "start", "race": True}, r"thread 64 of block 0 reads x\[64\], outs", ["= x[i]"]),
    ("one_before_the_start", {"guard": "start"}, r"x\[-1\], and x has 64 elements.*thread 0\]", ["x[i - 1]"]),
    ("one_before_the_start", {"race": True}, r"reads x\[-1\], outside of x, which has 64", ["x[i - 1]"]),
    ("outside_of_shared_memory", {}, r"index 64 is outside of the array 'float \[64\]'.*thread 63", ["x + 1]"]),
    ("missing_barrier", {"race": True, "order": 0}, "no barrier between", ["line[threadIdx.x] =", "= line[N"]),
    ("missing_barrier", {"race": True, "order": 1}, "no barrier between", ["line[threadIdx.x] =", "= line[N"]),
    ("missing_barrier_in_a_loop", {"race": True}, r"race on line\[\d+\] in sh", ["line[threadIdx.x] =", "= line[N"]),
    ("missing_syncwarp", {"race": True}, "no barrier between", ["line[threadIdx.x] =", "= line[31"]),
    ("unwritten_memory", {"race": True}, r"line\[63\] in shared memory, which no thread of its", ["= line["]),
    ("lost_update", {"race": True}, r"race on sum\[0\] in global memory.*thread 1 .*thread 0 ", ["sum[0] +="]),
    ("lost_update_between_blocks", {"race": True}, r"no certain order.*block 1 .*block 0 ", ["sum[0] +="]),
    ("scatter", {"race": True}, r"race on y\[0\] in global memory", ["y[target"]),
    ("different_barriers", {}, "wait at different barriers", ["__syncthreads();"]),
    ("deadlock", {}, "64 threads wait for ever; 1 in .*names lane 1,.*63 in", ["else __syncthreads"]),
    ("shuffle_from_nobody", {}, "reads from lane 20, which does not exist or has left", ["__shfl_down_sync"]),
    ("misaligned", {}, "not a multiple of 16, but 4 more", ["float4 four"]),
]  # fmt: skip


@compiles
@pytest.mark.parametrize(("kernel", "conditions", "says", "texts"), FOUND)
def test_a_mistake_is_found(mistakes, kernel, conditions, says, texts):
    example = EXAMPLES[f"mistakes.cu:{kernel}"](Draw("float32"))
    name = kernel if kernel == "misaligned" else f"{kernel}<float>"
    with pytest.raises(CudaOnCpuError) as error:
        mistakes.get_function(name)(example.grid, example.block, example.arguments, **conditions)
    message = str(error.value)
    assert re.search(says, message, re.S)
    for text in texts:
        assert re.search(rf"{line_of(kernel, text)}\b", message), "the line is named"


RACES = """
__global__ void many_lanes_read(float* y) {  // all lanes read, then the last one writes
    if (threadIdx.x >= 32) return;
    float seen = y[0];
    if (threadIdx.x == 31) y[0] = seen + 1;
}
__global__ void many_warps_read(float* y) {
    float seen = y[0];
    __syncwarp();
    if (threadIdx.x == 63) y[0] = seen + 1;
}
__global__ void second_time(float* y) {  // what came after the __syncwarp is not before anything
    if (threadIdx.x == 0) y[0] = 1;
    __syncwarp();
    if (threadIdx.x == 0) y[0] = 2;
    if (threadIdx.x == 1) y[1] = y[0];
}
__global__ void other_half(float* y) {  // only the lower half of the warp has met
    if (threadIdx.x == 3) y[0] = 1;
    if (threadIdx.x < 16) __syncwarp(0x0000ffff);
    if (threadIdx.x == 20) y[1] = y[0];
}
__global__ void other_warp(float* y) {  // a __syncwarp is not for the whole block
    if (threadIdx.x == 0) y[0] = 1;
    __syncwarp();
    if (threadIdx.x == 32) y[1] = y[0];
}
__global__ void shuffle_is_no_barrier(float* y) {
    if (threadIdx.x == 0) y[0] = 1;
    __shfl_sync(0xffffffff, 1, 0);
    if (threadIdx.x == 1) y[1] = y[0];
}
__global__ void atomic_and_plain(float* y) {
    if (threadIdx.x == 0) atomicAdd(y, 1);
    else y[1 + threadIdx.x] = y[0];
}
"""


@pytest.fixture(scope="module")
def races():
    return load(RACES)


@compiles
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("kernel", re.findall(r"void (\w+)", RACES))
def test_a_race_is_found_in_every_order(races, kernel, order):
    with pytest.raises(CudaOnCpuError, match=r"race on y\[0\] in global memory"):
        races.get_function(kernel)((1,), (64,), (numpy.zeros(70, FLOAT),), race=True, order=order)


@compiles
@pytest.mark.parametrize("order", [0, 1, 7])
def test_a_race_names_two_threads(order):
    """Also where the one that writes was itself the last to read, as in +=, and where many blocks read."""
    text = """
__global__ void half(float* y) { if (threadIdx.x < 32) y[threadIdx.x] += y[threadIdx.x + 32];
    if (threadIdx.x < 16) y[threadIdx.x] += y[threadIdx.x + 16]; }
__global__ void all_read(float* y) { float seen = y[0]; if (blockIdx.x == 1 && threadIdx.x == 3) y[0] = seen + 1; }
"""
    kernels = load(text)
    for name in "half", "all_read":
        with pytest.raises(CudaOnCpuError, match=r"race on") as error:
            kernels.get_function(name)(
                (2,) if name == "all_read" else (1,), (64,), (numpy.ones(64, FLOAT),), race=True, order=order
            )
        for line in str(error.value).splitlines():
            one, other = re.findall(r"thread \d+ of block \d+", line)
            assert one != other


@compiles
@pytest.mark.parametrize("kernel", ["missing_barrier", "missing_barrier_in_a_loop", "missing_syncwarp", "lost_update"])
def test_several_orders_find_much_without_the_race_checker(mistakes, kernel):
    example = EXAMPLES[f"mistakes.cu:{kernel}"](Draw("float32"))
    with pytest.raises(
        CudaOnCpuError, match=r"not always the same: \w+\[0\] is .* in forward order .* in reverse order"
    ):
        mistakes.get_function(f"{kernel}<float>").in_every_order(example.grid, example.block, example.arguments)


@compiles
def test_unwritten_shared_memory_is_nan(mistakes):
    example = EXAMPLES["mistakes.cu:unwritten_memory"](Draw("float32"))
    mistakes.get_function("unwritten_memory<float>")(example.grid, example.block, example.arguments)
    assert numpy.isnan(example.arguments[1]).tolist() == [True] * 32 + [False] * 32


# -- what would end Python ------------------------------------------------------------------------
CRASHES = """
__global__ void divide(int* y, int by) { y[0] = 7 / by; }
__global__ void never_ends(volatile int* y) { while (y[0] == 0) {} }
__device__ int deep(int n, int* y) { volatile int many[256]; many[n % 256] = n; return deep(n + 1, y) + many[y[0]]; }
__global__ void deep_stack(int* y) { y[0] = deep(0, y); }
__global__ void far_away(int* y) { y[1LL << 40] = 1; }
__global__ void asserts(int* y) { assert(y[0] == 1); }
__global__ void traps(int* y) { if (y[0] == 0) __trap(); }
__global__ void prints(int* y) { if (threadIdx.x == 3) printf("thread %d sees %d\\n", threadIdx.x, y[0]); }
__global__ void writes_beside(float* y) { y[3] = 1; }
__global__ void shifts(int* y, int by) { y[0] = 1 << by; }
__global__ void much_shared(float* y) { __shared__ float a[8192]; a[threadIdx.x] = 1; y[0] = a[0]; }
__global__ void __launch_bounds__(64) few_threads(int* y) { y[0] = 1; }
__global__ void dynamic(float* y, int at) { extern __shared__ float line[]; line[at] = 2; y[0] = line[at]; }
"""


@pytest.fixture(scope="module")
def crashes():
    return load(CRASHES)


@compiles
@pytest.mark.parametrize(
    ("kernel", "more", "says"),
    [
        ("divide", [0], r"division by zero, in kernel.cu:2 \[block 0, thread 0\]"),
        ("shifts", [40], "'int' is shifted by 40 bits, in kernel.cu:11"),
        ("deep_stack", [], "local arrays need more than 262144 bytes, in kernel.cu:4"),
        ("far_away", [], "far from every array .*kernel.cu:6"),
        ("asserts", [], r"the assertion y\[0\] == 1 failed, in kernel.cu:7"),
        ("traps", [], "__trap, in kernel.cu:8"),
    ],
)
def test_a_crash_becomes_an_exception(crashes, kernel, more, says):
    y = numpy.zeros(1, "int32")
    with pytest.raises(CudaOnCpuError, match=says):
        crashes.get_function(kernel)((1,), (1,), (y, *more))
    crashes.get_function("divide")((1,), (1,), (y, 2))  # and nothing is left of it
    assert y[0] == 3


@compiles
def test_an_endless_kernel_can_be_interrupted(crashes):
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        crashes.get_function("never_ends")((1,), (1,), (numpy.zeros(1, "int32"),))
    timer.join()


@compiles
def test_a_kernel_can_print(crashes, capfd):
    crashes.get_function("prints")((1,), (32,), (numpy.full(1, 5, "int32"),))
    assert capfd.readouterr().out == "thread 3 sees 5\n"


@compiles
def test_writing_between_an_array_and_its_guard_is_seen(crashes):
    with pytest.raises(CudaOnCpuError, match="a thread wrote next to y, outside of it"):
        crashes.get_function("writes_beside")((1,), (1,), (numpy.zeros(3, FLOAT),))
    with pytest.raises(CudaOnCpuError, match=r"writes y\[3\], outside of y, which has 3 elements"):
        crashes.get_function("writes_beside")((1,), (1,), (numpy.zeros(8, FLOAT)[:3],), guard="off", race=True)


# -- launches that a GPU refuses ------------------------------------------------------------------
@compiles
@pytest.mark.parametrize(
    ("kernel", "grid", "block", "more", "says"),
    [
        ("prints", (1,), (1025,), {}, r"block is \(1025, 1, 1\), but at most"),
        ("prints", (1,), (64, 32), {}, "2048 threads in a block.*at most 1024"),
        ("prints", (1,), (1, 1, 65), {}, "but at most"),
        ("prints", (1, 65536), (1,), {}, "grid is"),
        ("prints", (-1,), (1,), {}, "grid is"),
        ("prints", 4, (1,), {}, "must be a tuple of one to three numbers, not 4"),
        ("prints", (1,), (1,), {"shared_mem": 50000}, "shared_mem=50000 bytes were asked for, but 49152 are allowed"),
        ("prints", (1,), (1,), {"guard": "middle"}, "choose 'end', 'start' or 'off'"),
        ("prints", (1,), (1,), {"order": -1}, "0 is forward, 1 reverse"),
        ("few_threads", (1,), (65,), {}, "65 threads in a block.*its __launch_bounds__ allow at most 64"),
    ],
)
def test_a_launch_is_refused(crashes, kernel, grid, block, more, says):
    with pytest.raises(CudaOnCpuError, match=says):
        crashes.get_function(kernel)(grid, block, (numpy.zeros(1, "int32"),), **more)


@compiles
def test_shared_memory_is_limited(crashes):
    y = numpy.zeros(1, FLOAT)
    kernel = crashes.get_function("much_shared")
    kernel((1,), (32,), (y,), shared_mem=16384)
    with pytest.raises(CudaOnCpuError, match=r"32768 \+ 16385 bytes of shared memory \(static \+ dynamic\).* 49152"):
        kernel((1,), (32,), (y,), shared_mem=16385)
    kernel.max_dynamic_shared_size_bytes = 100 * 1024
    kernel((1,), (32,), (y,), shared_mem=60000)
    kernel.max_dynamic_shared_size_bytes = 200 * 1024
    with pytest.raises(CudaOnCpuError, match="a block can have 166912 bytes"):
        kernel((1,), (32,), (y,))


@compiles
def test_dynamic_shared_memory_has_guards(crashes):
    kernel, y = crashes.get_function("dynamic"), numpy.zeros(1, FLOAT)
    kernel((1,), (1,), (y, 15), shared_mem=64)
    assert y[0] == 2
    for at, guard in ((16, "end"), (-1, "start")):
        with pytest.raises(CudaOnCpuError, match=rf"line\[{at}\], and line has 16 elements"):
            kernel((1,), (1,), (y, at), shared_mem=64, guard=guard)


# -- arguments that a GPU would take wrongly ------------------------------------------------------
ARGUMENTS = """
template <typename T>
__global__ void take(const T* x, T* y, T factor, int n, long long many, bool yes, unsigned char small) {
    if (n == 5 && many == 6 && yes && small == 7) y[0] = x[0] * factor;
}
"""
SQUARE = numpy.ones((2, 2), FLOAT)
GIVEN = [SQUARE, numpy.zeros(1, FLOAT), numpy.float32(2), 5, 6, True, 7]
READ_ONLY = numpy.zeros(1, FLOAT)
READ_ONLY.flags.writeable = False


@pytest.fixture(scope="module")
def take():
    return load(ARGUMENTS, ["take<float>", "take<double>"]).get_function("take<float>")


@compiles
@pytest.mark.parametrize(
    ("number", "value", "says"),
    [
        (0, SQUARE.T, r"argument 0, x, is const float\*, but .*do not lie in order.*transposed"),
        (0, SQUARE.astype("float64"), "an array of float64 was given"),
        (0, SQUARE.astype(">f4"), "an array of >f4 was given"),
        (0, 1.0, "the Python float 1.0 was given"),
        (1, READ_ONLY, r"argument 1, y, is float\*, but .* may not be written"),
        (2, 2.0, r"factor, is float, but the Python float 2.0 was given \(numpy.float32\(...\) is right\)"),
        (2, numpy.float64(2), "numpy.float64 2.0 was given"),
        (2, 2, "the Python int 2 was given"),
        (2, numpy.zeros(()), r"an array of shape \(\) was given"),
        (3, 5.0, r"n, is int, but the Python float 5.0 was given \(numpy.int32"),
        (3, numpy.int64(5), "numpy.int64 5 was given"),
        (3, 2**31, "2147483648 was given, which does not fit"),
        (4, numpy.int32(6), r"many, is long long, but numpy.int32 6 was given \(numpy.int64"),
        (5, 1, "yes, is bool, but the Python int 1"),
        (6, 256, "small, is unsigned char, but 256 was given, which does not fit"),
        (6, "7", "a str was given"),
    ],
)
def test_a_wrong_argument_is_refused(take, number, value, says):
    with pytest.raises(CudaOnCpuError, match=says):
        take((1,), (1,), [*GIVEN[:number], value, *GIVEN[number + 1 :]])


@compiles
def test_right_arguments_are_taken(take):
    y = numpy.zeros(1, FLOAT)
    take((1,), (1,), [SQUARE, y, numpy.float32(2), numpy.int32(5), numpy.int64(6), numpy.bool_(True), numpy.uint8(7)])
    assert y[0] == 2
    take((0,), (1,), [READ_ONLY, y, *GIVEN[2:]])  # what may be read only; 0 blocks are 1, as in CuPy
    assert y[0] == 0
    take.module.get_function("take<double>")((1,), (1,), [numpy.ones(1), numpy.zeros(1), 2.0, *GIVEN[3:]])
    with pytest.raises(
        CudaOnCpuError, match="6 arguments were given, but it takes 7: x, y, factor, n, many, yes, small"
    ):
        take((1,), (1,), GIVEN[:-1])


@compiles
def test_an_array_given_twice_stays_one():
    kernel = load("vector_add.cu", ["vector_add<float>"]).get_function("vector_add<float>")
    x = X.copy()
    kernel((1,), (64,), (x, x, x, 64))
    assert (x == 2 * X).all()
    kernel((1,), (32,), (x[:32], x[32:], x[16:48], 32), order=1)  # parts that overlap


# -- memory ---------------------------------------------------------------------------------------
@compiles
def test_fresh_arrays_are_full_of_nan():
    assert numpy.isnan(empty((3, 5), "float64")).all()
    assert (empty(7, "int32", guard="start") == -1).all()
    assert empty((0, 4)).shape == (0, 4)
    array = empty(1000)
    array[...] = 1
    assert memory.memory_of(array[10:].reshape(2, -1)).untouched
    assert array.ctypes.data % memory.ALIGNMENT == empty(3, "uint8").ctypes.data % memory.ALIGNMENT == 0
    with pytest.raises(CudaOnCpuError, match="choose one of 'end', 'start'"):
        empty(3, guard="both")


# -- one thread's diary ---------------------------------------------------------------------------
@compiles
def test_the_trace_of_a_thread(right_kernels):
    steps = right_kernels.get_function("transpose<float>").trace((1,), (8, 8), (X, numpy.zeros(64, FLOAT)), thread=9)
    assert [step.text for step in steps] == [
        "reads x[9] = 10",
        "writes tile[1][1] = 10",
        "meets the others in __syncthreads",
        "reads tile[1][1] = 10",
        "reads spare[1] = 1",
        "writes y[9] = 10",
    ]
    first = next(i for i, line in enumerate(RIGHT.splitlines(), 1) if "tile[threadIdx.y][threadIdx.x] = x" in line)
    assert [step.line for step in steps] == [f"kernel.cu:{first + n}" for n in (0, 0, 2, 3, 3, 3)]
    bins = numpy.zeros(4, "int32")
    steps = right_kernels.get_function("histogram<float>").trace((2,), (32,), (X, bins, 64), in_block=1, thread=0)
    assert [step.text for step in steps] == [
        "reads x[32] = 33",
        "atomically reads bins[1] = 8",
        "atomically writes bins[1] = 9",
    ]


@compiles
def test_without_addr2line_an_address_is_named(mistakes, monkeypatch):
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    lines = compiler.lines_of(Path("library.so"), [0x1234])
    assert lines == {0x1234: "address 0x1234 of library.so (addr2line, of the package binutils, would name the line)"}


# -- the compiler and its cache -------------------------------------------------------------------
@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test's own, where only the shim is compiled already."""
    if why_not() is None:
        compiler.library(source.parse("__global__ void k() {}", "k.cu", tmp_path).for_cpu(("k",)), "k.cu", False)
    before = compiler.cache_folder()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = compiler.cache_folder()
    assert folder.is_relative_to(tmp_path)
    for file in before.glob("*.o"):
        shutil.copy(file, folder)
    return folder


def value_of(path):
    y = numpy.zeros(1, "int32")
    load(path).get_function("k")((1,), (1,), (y,))
    return y[0]


@compiles
def test_the_cache_knows_included_files(cache, tmp_path):
    (tmp_path / "inner.cuh").write_text("#pragma once\nconst int VALUE = 1;\n")
    (tmp_path / "outer.cuh").write_text('#pragma once\n#include "inner.cuh"\n')
    file = tmp_path / "k.cu"
    file.write_text('#include "outer.cuh"\n#include "inner.cuh"\n__global__ void k(int* y) { y[0] = VALUE; }\n')
    assert value_of(file) == 1
    assert value_of(file) == 1
    assert len(list(cache.glob("*.so"))) == 1
    (tmp_path / "inner.cuh").write_text("#pragma once\nconst int VALUE = 2;\n")
    assert value_of(file) == 2
    assert len(list(cache.glob("*.so"))) == 2
    assert not [path for path in cache.iterdir() if path.is_dir()], "nothing is left over"
    file.write_text('#include "elsewhere.cuh"\n')
    with pytest.raises(CudaOnCpuError, match=r'k.cu:1 includes "elsewhere.cuh", which is not in'):
        load(file)
    file.write_text("__global__ void k(int* y) {\n    y[0] = nothing;\n}\n")
    with pytest.raises(CudaOnCpuError, match=r"(?s)k.cu does not compile:.*k.cu:2.*nothing"):
        value_of(file)


@compiles
def test_the_cache_knows_the_shim_the_options_and_the_compiler(cache, monkeypatch):
    parts = []
    monkeypatch.setattr(compiler, "key_of", lambda *given: parts.append(given) or "key")
    (cache / "key.so").touch()
    compiler.library("text", "k.cu", True, ("-DSOME",))
    compiler.library("text", "k.cu", False, ("-DSOME",))
    assert {"text", compiler.shim_text(), "-DSOME", *compiler.compiler()} <= set(parts[0])
    assert any(re.search(r"\d+\.\d+\.\d+", part) for part in parts[0] if len(part) < 1000), "the compiler's version"
    assert parts[0] != parts[1], "watched or not"


@compiles
def test_two_processes_compile_at_once(cache, tmp_path):
    file = tmp_path / "k.cu"
    file.write_text("__global__ void k(int* y) { y[0] = 3; }\n")
    code = (
        "import numpy; from minitorch_alex.cuda_on_cpu import load; y = numpy.zeros(1, 'int32');"
        f"load({str(file)!r}).get_function('k')((1,), (1,), (y,)); print(y[0])"
    )
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["3\n", "3\n"]
    assert len(list(cache.glob("*.so"))) == 1


def test_the_cache_may_not_be_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert compiler.cache_folder().is_dir()
    assert not compiler.cache_folder().is_relative_to(tmp_path)


def test_what_was_long_unused_is_deleted(tmp_path):
    for name, age in (("old.so", 61), ("young.so", 59)):
        (tmp_path / name).touch()
        then = (tmp_path / name).stat().st_mtime - age * 24 * 3600
        os.utime(tmp_path / name, (then, then))
    compiler.forget_unused(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young.so"]


@compiles
def test_nothing_is_written_into_the_package():
    package = Path(cuda_on_cpu.__file__).parent
    kinds = {path.suffix for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert kinds == {".py", ".h", ".cpp", ".cu"}


# -- where it cannot run --------------------------------------------------------------------------
def test_without_a_compiler_a_sentence_says_so(monkeypatch):
    monkeypatch.setattr(compiler.platform, "system", lambda: "Linux")
    monkeypatch.setattr(compiler.platform, "machine", lambda: "aarch64")
    monkeypatch.setenv("CXX", "no-such-compiler --fast")
    assert "no-such-compiler is named by CXX" in why_not()
    monkeypatch.delenv("CXX")
    monkeypatch.setattr(compiler.shutil, "which", lambda name: None)
    assert why_not().startswith(
        "cuda_on_cpu needs a C++ compiler, and g++ is not found: install g++ (`sudo apt install g++`"
    )
    with pytest.raises(CudaOnCpuError, match="cuda_on_cpu needs a C"):
        load(ARGUMENTS).get_function("take<float>")((1,), (1,), GIVEN)
    assert main(["vector_add"]) == 2
    assert main([]) == 0


@pytest.mark.parametrize(("system", "machine"), [("Darwin", "arm64"), ("Windows", "AMD64"), ("Linux", "riscv64")])
def test_elsewhere_a_sentence_says_so(monkeypatch, system, machine):
    monkeypatch.setattr(compiler.platform, "system", lambda: system)
    monkeypatch.setattr(compiler.platform, "machine", lambda: machine)
    assert f"and this is {system} on {machine}" in why_not()


# -- reading the text -----------------------------------------------------------------------------
def test_what_is_read_from_a_text(tmp_path):
    text = """// One. Two.
// instances: b<float, 5>; b<int, 3>
/* __global__ void c(int n) */
template <typename T> __global__ void a(const T* __restrict__ x, T (&y)[3], int sizes[4]) {}
template <typename T, int SIZE>
__global__ void __launch_bounds__(128) b() {
    __shared__ T s[SIZE][2 * SIZE], t; extern __shared__ __align__(16) double d[];
}
extern "C" __global__ void plain(int n);
"""
    read = source.parse(text, "some.cu", tmp_path)
    assert read.title == "One."
    a, b, plain = read.kernels.values()
    assert (a.name, a.parameters, a.instances, a.line) == ("a", ("x", "y", "sizes"), ("a<float>", "a<double>"), 4)
    assert (b.parameters, b.instances, b.most_threads) == ((), ("b<float, 5>", "b<int, 3>"), "128")
    assert (plain.instances, plain.parameters) == (("plain",), ("n",))
    for_cpu = read.for_cpu(("plain",))
    assert 'declare_shared("s", s); cuda_on_cpu::declare_shared("t", t);' in for_cpu
    assert 'double* d = cuda_on_cpu::dynamic_shared<double>("d");' in for_cpu


def test_the_folder_of_kernels():
    assert cuda_on_cpu.kernel_folder() == Path(__file__).parents[1] / "kernels"
    with pytest.raises(CudaOnCpuError, match=r"there is no nothing.cu, neither in .*kernels nor here"):
        load("nothing")


def test_every_kernel_has_an_example():
    files = [*cuda_on_cpu.kernel_folder().glob("*.cu"), *source.TEACHING.glob("*.cu")]
    assert {f"{file.name}:{kernel}" for file in files for kernel in source.read(file).kernels} == set(EXAMPLES)


# -- the command ----------------------------------------------------------------------------------
def test_the_command_lists(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^lrn +Local response normalisation", out, re.M)
    assert re.search(r"^ +vector_add$", out, re.M)


@compiles
def test_the_command_runs_and_traces(capsys):
    assert main(["vector_add", "--trace", "3", "--race"]) == 0
    out = capsys.readouterr().out
    assert "vector_add<float>, 1 block of 256 threads (vector_add.cu:9)" in out
    assert "sum            (10,) -> -0.49 -0.09" in out
    assert "right: the same bits in three orders of the threads, nothing outside of the arrays, no races" in out
    assert "  vector_add.cu:12  sum[i] = a[i] + b[i];\n      reads a[3] = 0.1\n      reads b[3] = -0.22\n" in out


@compiles
@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["mistakes:lost_update", "--race"], 1, "wrong: race on sum[0]"),
        (["mistakes:unwritten_memory"], 1, "wrong: y holds NaN"),
        (["vector_add:vector_sub"], 2, "vector_add.cu has no kernel 'vector_sub'"),
        (["nothing"], 2, "there is no 'nothing'"),
        (["vector_add", "--trace", "256"], 2, "there is no thread 256 in block 0: 1 block of 256 threads"),
    ],
)
def test_the_command_says_what_is_wrong(capsys, arguments, status, says):
    assert main(arguments) == status
    captured = capsys.readouterr()
    assert says in captured.out + captured.err


def test_the_command_refuses_a_wrong_number(capsys):
    with pytest.raises(SystemExit) as leave:
        main(["vector_add", "--trace", "x"])
    assert leave.value.code == 2
    assert "'x' is neither a thread's number" in capsys.readouterr().err
