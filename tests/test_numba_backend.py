"""What the numba backend alone has: kernels that equal the reference's bit for bit, its threads, the memory it keeps.

tests/test_kernels.py holds every backend's kernels against loops.
"""

import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref

import numpy as np
import pytest

from minitorch_alex import backends
from minitorch_alex.backends import host_memory, thread_pool
from minitorch_alex.backends.numpy_backend import BACKEND as REFERENCE
from minitorch_alex.backends.numpy_backend import Window
from minitorch_alex.backends.thread_pool import ThreadPool

reason = backends.why_not("numba")
if reason is not None:
    pytest.skip(reason, allow_module_level=True)
NUMBA = backends.get("numba")


def numbers(seed, *shape, dtype="float32"):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def same(found, expected):
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    """However small the work is."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    monkeypatch.setattr(NUMBA, "pool", ThreadPool(request.param))


# -- kernels ----------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 3, 13, 11), Window((3, 3), (2, 2))),
        ((1, 2, 14, 9), Window((3, 2), (3, 4), (1, 1), (2, 1), ceil_mode=True)),
        ((2, 1, 5, 40), Window((2, 3), (1, 5), (1, 0), (3, 2))),
        ((1, 1, 20, 17), Window((12, 11), (3, 2), (6, 5))),  # 132 taps
        ((1, 2, 9, 9), Window((2, 2), (5, 7))),
    ],
)
def test_max_pool2d_equals_the_reference(threads, shape, window, dtype):
    x = np.round(3 * numbers(1, *shape, dtype=dtype))  # ties
    x[numbers(2, *shape) > -0.8], x[numbers(3, *shape) > 1.5] = -np.inf, np.nan
    (y, winner), (expected, expected_winner) = NUMBA.max_pool2d(x, window), REFERENCE.max_pool2d(x, window)
    same(y, expected)
    np.testing.assert_array_equal(winner, expected_winner)
    gy = np.round(9 * numbers(4, *y.shape, dtype=dtype))  # whole numbers add up exactly in any order
    found = NUMBA.max_pool2d_gradient(gy, winner, shape, window)
    same(found, REFERENCE.max_pool2d_gradient(gy, expected_winner, shape, window))
    same(NUMBA.max_pool2d_gradient(gy, expected_winner, shape, window), found)  # winners of the reference's type


def test_winners_take_one_byte_each_as_long_as_they_fit():
    x = np.zeros((1, 1, 16, 16), "float32")
    x[0, 0, 15, 15] = 1
    for kernel, last in (((8, 16), 127), ((16, 16), 255)):
        _, winner = NUMBA.max_pool2d(x[:, :, 16 - kernel[0] :], Window(kernel))
        assert (winner.item(), winner.itemsize) == (last, 1 if last < 128 else 4)


@pytest.mark.parametrize("beta", [0.75, 0.6])
@pytest.mark.parametrize("shape", [(1, 7, 13), (2, 5, 3, 9), (5, 6, 1, 2)])
def test_local_response_norm_does_not_depend_on_how_it_is_shared(monkeypatch, shape, beta):
    x, gy, found = 9 * numbers(5, *shape), numbers(6, *shape), []
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    for threads in (1, 2, 3, 5):
        monkeypatch.setattr(NUMBA, "pool", ThreadPool(threads))
        y, scale = NUMBA.local_response_norm(x, 4, 0.5, beta, 2.0)
        found.append([y, scale, NUMBA.local_response_norm_gradient(gy, x, scale, 4, 0.5, beta)])
    exact, exact_scale = REFERENCE.local_response_norm(x.astype("float64"), 4, 0.5, beta, 2.0)
    exact_gradient = REFERENCE.local_response_norm_gradient(gy.astype("float64"), x, exact_scale, 4, 0.5, beta)
    for result, expected in zip(found[0], (exact, exact_scale, exact_gradient), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=2e-6)
    for others in found[1:]:
        np.testing.assert_allclose(np.stack(others), np.stack(found[0]), rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 11), (1, 1, 1, 1), (4, 2, 60, 50), (0, 3, 2, 2), (2, 3, 0, 2)])
def test_channel_sums(threads, shape, dtype):
    gy = numbers(7, *shape, dtype=dtype)
    exact = [math.fsum(gy[:, f].ravel()) for f in range(shape[1])]
    for backend in (NUMBA, REFERENCE):
        found = backend.channel_sums(gy)
        assert found.dtype == dtype
        tolerance = 1e-4 if dtype == "float32" else 1e-12
        np.testing.assert_allclose(found, exact, rtol=tolerance, atol=tolerance)
    if dtype == "float32":  # the sum itself is made in float64
        same(NUMBA.channel_sums(gy), np.array(exact, "float32"))
    same(NUMBA.channel_sums(np.swapaxes(gy, 2, 3)[:, ::-1]), NUMBA.channel_sums(np.swapaxes(gy, 2, 3)[:, ::-1].copy()))


def test_channel_sums_of_infinities_and_nan():
    gy = np.zeros((2, 4, 3, 3), "float32")
    gy[0, 0, 1, 1], gy[1, 1, 2, 2], gy[1, 2, 0, 0], gy[0, 2, 0, 0] = np.inf, np.nan, np.inf, -np.inf
    same(NUMBA.channel_sums(gy), np.array([np.inf, np.nan, np.nan, 0], "float32"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(), (1,), (7, 3), (300, 41), (0, 2)])
def test_sgd_equals_the_reference(threads, shape, dtype):
    w, g, v = (numbers(seed, *shape, dtype=dtype) for seed in (8, 9, 10))
    steps = [("sgd_paper", 0.01, 0.9, 5e-4), ("sgd_paper", 0.3, 0.0, 0.0)]
    steps += [("sgd_torch", 0.01, m, d, 0.0, n) for m in (0.9, 0.0) for d in (5e-4, 0.0) for n in (False, m > 0)]
    steps.append(("sgd_torch", 0.01, 0.9, 5e-4, 0.3, False))
    for name, *settings in steps:
        for velocity in (v, None):
            given = [None if velocity is None else velocity.copy() for _ in range(2)]
            (new, moved), (expected, expected_v) = (
                getattr(backend, name)(w, g, mine, *settings)
                for backend, mine in zip((NUMBA, REFERENCE), given, strict=True)
            )
            np.testing.assert_array_equal(new, expected, err_msg=f"{name} {settings}")
            assert new is not w
            if expected_v is None:
                assert moved is None
            else:
                np.testing.assert_array_equal(moved, expected_v, err_msg=f"{name} {settings}")
                assert velocity is None or moved is given[0]  # changed in place
    same(w, numbers(8, *shape, dtype=dtype))


def test_sgd_where_the_arrays_do_not_match():
    """A kernel that walked through them all would read beyond the smaller one."""
    w, g = numbers(11, 6, 5), numbers(12, 5)
    same(NUMBA.sgd_paper(w, g, None, 0.1, 0.9, 0.1)[0], REFERENCE.sgd_paper(w, g, None, 0.1, 0.9, 0.1)[0])
    settings = (0.1, 0.9, 0.1, 0.0, False)
    same(NUMBA.sgd_torch(w, g, w.copy(), *settings)[0], REFERENCE.sgd_torch(w, g, w.copy(), *settings)[0])
    v = numbers(13, 5, 6).T  # not in one piece, and yet changed in place
    expected = REFERENCE.sgd_paper(w, w, v.copy(), 0.1, 0.9, 0.1)
    found = NUMBA.sgd_paper(w, w, v, 0.1, 0.9, 0.1)
    same(found[0], expected[0])
    same(v, expected[1])


@pytest.mark.parametrize("form", ["torch", "paper"])
def test_dropout_equals_the_reference(threads, form):
    for shape in ((), (5, 7), (3, 33), (0, 2), (16,)):
        x = numbers(14, *shape)
        arguments = (0.3, (2**64 - 1, 7), (3, 4), form)
        same(NUMBA.dropout(x, *arguments), REFERENCE.dropout(x, *arguments))
    x = numbers(15, 6, 70)[::-1, ::2]
    same(NUMBA.dropout(x, *arguments), REFERENCE.dropout(x, *arguments))


def test_softmax_cross_entropy_of_rows_that_are_no_numbers(threads):
    x = numbers(16, 7, 5)
    x[1, 2], x[2, 0], x[3, 4], x[4] = np.nan, np.inf, -np.inf, -np.inf
    labels = np.array([0, 1, 0, 4, 2, -1, 3])
    loss, gradient = NUMBA.softmax_cross_entropy(x, labels, -1, 0.5)
    with np.errstate(all="ignore"):
        exact_loss, exact_gradient = REFERENCE.softmax_cross_entropy(x.astype("float64"), labels, -1, 0.5)
    np.testing.assert_allclose(loss, exact_loss, rtol=1e-6)
    np.testing.assert_allclose(gradient, exact_gradient, rtol=1e-6, atol=1e-7)
    assert loss.dtype == gradient.dtype == "float32"
    ignored = NUMBA.softmax_cross_entropy(x, labels, 3, 0.5)  # a class that does not count
    assert (ignored[0][6], ignored[1][6].any()) == (0, False)


def test_the_sum_of_many_classes_is_as_exact_as_their_type():
    x = numbers(17, 3, 100_000)
    loss, _ = NUMBA.softmax_cross_entropy(x, np.array([0, 1, 2]), -1, 1.0)
    exact, _ = REFERENCE.softmax_cross_entropy(x.astype("float64"), np.array([0, 1, 2]), -1, 1.0)
    np.testing.assert_allclose(loss, exact, rtol=1e-7)


# -- threads ------------------------------------------------------------------------
def test_a_caller_does_the_slices_that_nobody_has_time_for(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, hold, held = ThreadPool(2), threading.Event(), threading.Event()

    def wait_for_it(start, stop):
        if threading.current_thread().name.startswith("minitorch_alex"):
            held.set()
            hold.wait(10)
        else:
            held.wait(10)  # until the helper is inside

    first = threading.Thread(target=lambda: pool.share(wait_for_it, 2, 1))
    first.start()
    assert held.wait(10)
    done = []  # the only helper is busy
    pool.share(lambda start, stop: done.append((start, stop, threading.current_thread())), 2, 1)
    assert done == [(0, 1, threading.current_thread()), (1, 2, threading.current_thread())]
    hold.set()
    first.join(10)
    assert not first.is_alive()


def test_work_may_share_its_own_work(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, done = ThreadPool(2), []
    pool.share(lambda *_: pool.share(lambda start, stop: done.append(start), 2, 1), 2, 1)
    assert sorted(done) == [0, 0, 1, 1]


def test_what_was_shared_is_let_go(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, a = ThreadPool(3), np.ones(3)
    gone = weakref.ref(a)
    pool.share(lambda start, stop, a=a: a[start:stop].sum(), 3, 1)
    del a
    deadline = time.monotonic() + 5
    while gone() is not None and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.01)
    assert gone() is None


def test_a_helper_knows_no_warnings(monkeypatch):
    """The operation that calls a kernel has switched them off, for its own thread."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, together, seen = ThreadPool(2), threading.Barrier(2, timeout=10), {}

    def work(start, stop):
        together.wait()
        seen[start] = np.geterr()["divide"]

    with np.errstate(divide="ignore"):
        pool.share(work, 2, 1)
    assert seen == {0: "ignore", 1: "ignore"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_threads_start_anew_in_a_forked_process(monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, parent = ThreadPool(2), os.getpid()
    pool.share(lambda start, stop: None, 2, 1)
    child = os.fork()
    if not child:
        together = threading.Barrier(2, timeout=10)
        try:
            pool.share(lambda start, stop: together.wait(), 2, 1)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.getpid() == parent
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# -- memory --------------------------------------------------------------------------
FAULTS = """
import resource, sys
import numpy
from minitorch_alex.backends import host_memory

above = []  # so that the heap does not end with the large array

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    arrays = [numpy.ones(40 << 20, "uint8")]
    above.append(bytes(300_000))
    arrays += [numpy.ones(3 << 20, "uint8"), numpy.ones(700 << 10, "uint8")]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return 4096 * int(open("/proc/self/statm").read().split()[1])

for name in sys.argv[1:]:
    getattr(host_memory, name)()
faults()
print(faults(), end=" ")
before = resident()
host_memory.give_back_freed_memory()
print((before - resident()) >> 20)
"""


def faults_and_given_back(*choices, **variables):
    """Page faults of taking 44 MiB of arrays for the second time; and the MiB that giving back then gives."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))} | variables
    command = [sys.executable, "-c", FAULTS, *choices]
    return map(int, subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split())


glibc_only = pytest.mark.skipif(not host_memory._is_glibc() or sys.platform != "linux", reason="this is not glibc")


@glibc_only
def test_freed_memory_is_kept_and_can_be_given_back():
    faults, given_back = faults_and_given_back("keep_freed_memory")
    assert faults < 200  # of 4 KiB each: what is taken for the first time, above
    assert given_back >= 40


@glibc_only
@pytest.mark.parametrize(
    ("choices", "variables"),
    [
        ([], {}),  # or the test above would show nothing
        (["keep_freed_memory"], {"MALLOC_TRIM_THRESHOLD_": "1000000"}),
        (["keep_freed_memory"], {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1000000"}),
        (["give_back_at_once", "keep_freed_memory"], {}),
        (["keep_freed_memory", "give_back_at_once"], {}),
    ],
)
def test_freed_memory_goes_back_at_once(choices, variables):
    faults, given_back = faults_and_given_back(*choices, **variables)
    assert faults > 15  # of 2 MiB each, where the system has such pages
    assert given_back < 20


@pytest.mark.parametrize("confstr", [None, "musl 1.2", ValueError("unrecognized configuration name")])
def test_another_c_library_is_left_alone(monkeypatch, confstr):
    def answer(name):
        if isinstance(confstr, Exception):
            raise confstr
        return confstr

    monkeypatch.setattr(host_memory.os, "confstr", answer)
    monkeypatch.setattr(host_memory, "_chosen", False)
    monkeypatch.setattr(host_memory.ctypes, "CDLL", None)
    host_memory.keep_freed_memory()
    host_memory.give_back_at_once()
    host_memory.give_back_freed_memory()
    monkeypatch.delattr(host_memory.os, "confstr")  # as on Windows
    host_memory.keep_freed_memory()


def test_the_backend_keeps_memory_from_its_first_kernel_on(monkeypatch):
    calls = []
    monkeypatch.setattr(host_memory, "keep_freed_memory", lambda: calls.append("keep"))
    monkeypatch.setattr(host_memory, "give_back_freed_memory", lambda: calls.append("give back"))
    backend = type(NUMBA)()
    assert calls == []
    backend.relu(np.ones(3))
    backend.relu(np.ones(3))
    assert calls == ["keep"]
    backend.give_back()
    assert calls == ["keep", "give back"]
