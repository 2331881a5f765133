"""Convolution by minimal filtering: its matrices, its layout, its three passes, its errors, and when it is chosen."""

import sys
import threading

import numpy as np
import pytest

from minitorch_alex import backends, run, train
from minitorch_alex.backends.window import Window

pytest.importorskip("numba", reason="numba is not installed")

from minitorch_alex.backends.phases import (
    filters_from_phases,
    images_from_phases,
    phases_of_filters,
    phases_of_images,
)
from minitorch_alex.backends.scratch import Scratch
from minitorch_alex.backends.winograd import LARGEST_SHEET, OUTPUTS, best_sheet, matrices

REFERENCE = backends.get("numpy")


@pytest.fixture
def backend():
    """The numba backend; afterwards it chooses for itself again."""
    numba = backends.get("numba")
    yield numba
    numba.set_convolution("auto")


@pytest.fixture(params=[1, 2, 3])
def threads(backend, request, monkeypatch):
    """So many threads, and no work is too small for them."""
    monkeypatch.setattr(backend.pool, "threads", request.param)
    monkeypatch.setattr(sys.modules["minitorch_alex.backends.thread_pool"], "WORTH_SHARING", 0)
    return request.param


def passes(backend, x, w, window, groups, bias, gy):
    """The results of the three passes, by name."""
    return {
        "forward": backend.conv2d(x, w, window, groups, bias),
        "input gradient": backend.conv2d_input_gradient(gy, w, x.shape, window, groups),
        "weight gradient": backend.conv2d_weight_gradient(gy, x, w.shape, window, groups),
    }


def problem(N, G, C, F, H, W, kernel, stride=1, padding=(0, 0), dtype="float64"):
    """Arguments of `passes` of these sizes; F and C are those of one group."""
    random = np.random.default_rng(N + H)
    window = Window((kernel, kernel), (stride, stride), padding)
    x, w = random.standard_normal((N, G * C, H, W)), random.standard_normal((G * F, C, kernel, kernel))
    w /= np.sqrt(C * kernel * kernel)
    gy = random.standard_normal((N, G * F, *window.output_size(H, W)))
    x, w, bias, gy = (a.astype(dtype) for a in (x, w, random.standard_normal(G * F), gy))
    return x, w, window, G, bias, gy


def apart(found, expected):
    """The largest difference, in parts of the largest number; of each pass."""
    return {name: abs(found[name] - e).max() / abs(e).max() for name, e in expected.items()}


# -- the formula ---------------------------------------------------------------------
@pytest.mark.parametrize("r", OUTPUTS)
def test_the_matrices_filter(r):
    A, G, B = matrices(r)
    m, n = OUTPUTS[r], OUTPUTS[r] + r - 1
    assert (A.shape, G.shape, B.shape) == ((n, m), (n, r), (n, n))
    d, g = np.random.default_rng(0).standard_normal((2, n))
    np.testing.assert_allclose(A.T @ ((G @ g[:r]) * (B.T @ d)), np.correlate(d, g[:r], "valid"), atol=1e-13)


@pytest.mark.parametrize(
    ("R", "s", "padding"), [(11, 4, (2, 1)), (5, 2, (0, 0)), (3, 2, (1, 1)), (4, 3, (3, 0)), (2, 2, (0, 1))]
)
def test_phases_make_stride_1(R, s, padding):
    random = np.random.default_rng(1)
    x = random.integers(-9, 9, (2, 3, 17, 14)).astype("float64")
    w = random.integers(-9, 9, (4, 3, R, R)).astype("float64")
    y = REFERENCE.conv2d(x, w, Window((R, R), (s, s), padding), 1)
    filters = phases_of_filters(w[None], s)
    r = filters.shape[-1]
    phases = np.full((2, 3 * s * s, y.shape[2] + r - 1, y.shape[3] + r - 1), np.nan)
    phases_of_images(x, phases, s, padding)
    assert (REFERENCE.conv2d(phases, filters[0], Window((r, r)), 1) == y).all()

    again = np.full(w[None].shape, np.nan)
    filters_from_phases(filters, again, s)
    assert (again == w).all()
    seen = (
        REFERENCE.conv2d_input_gradient(np.ones_like(y), np.ones_like(w), x.shape, Window((R, R), (s, s), padding), 1)
        > 0
    )
    back = np.full(x.shape, np.nan)
    images_from_phases(phases, back, s, padding)
    assert (back[seen] == x[seen]).all()
    assert np.isfinite(back).all()


@pytest.mark.parametrize(
    ("size", "padding", "r", "most"), [(13, 1, 3, 64), (15, 0, 3, 64), (27, 2, 5, 64), (8, 1, 3, 64), (1, 1, 3, 3)]
)
def test_a_sheet_holds_its_images(size, padding, r, most):
    outputs, m = size + 2 * padding - r + 1, OUTPUTS[r]
    plan = best_sheet(most, (size, size), (outputs, outputs), (padding, padding), m)
    assert plan.held <= most
    for images, tiles in zip(plan.images, plan.tiles, strict=True):
        first = [i * plan.pitch[0] for i in range(images)]
        assert first[-1] + outputs <= tiles * m < first[-1] + outputs + m  # all of them, and no tile too many
        data = [range(p + padding, p + padding + size) for p in first]
        for p in first:  # what an image's outputs see: its own pixels, and zeros
            seen = set(range(p, p + outputs + r - 1))
            assert sum(bool(seen & set(other)) for other in data) == 1


def test_images_of_13_share_tiles():
    plan = best_sheet(64, (13, 13), (13, 13), (1, 1), 4)
    assert plan.size / plan.held == 12.25  # alone: 16
    assert plan.size <= LARGEST_SHEET


# -- the three passes --------------------------------------------------------------------
SHAPES = {
    "one of everything": problem(1, 1, 1, 1, 3, 3, 3),
    "smaller than a tile": problem(3, 1, 2, 3, 1, 2, 3, padding=(1, 1)),
    "AlexNet's 3 x 3": problem(9, 2, 20, 24, 13, 13, 3, padding=(1, 1)),
    "no padding, no square": problem(5, 1, 3, 4, 15, 22, 3),
    "padding in one direction": problem(7, 2, 7, 5, 6, 11, 5, padding=(0, 3)),
    "as much padding as can be": problem(4, 1, 2, 3, 5, 4, 5, padding=(4, 4)),
    "AlexNet's 5 x 5": problem(6, 2, 6, 35, 27, 27, 5, padding=(2, 2)),
    "a prime number of filters": problem(2, 1, 3, 67, 9, 9, 3),
    "more tiles than a sheet's": problem(2, 1, 2, 3, 50, 41, 3),
    "AlexNet's first layer": problem(5, 1, 3, 8, 43, 40, 11, stride=4, padding=(2, 2)),
    "stride 2": problem(4, 2, 3, 4, 16, 17, 5, stride=2, padding=(1, 2)),
    "no images": problem(0, 1, 3, 4, 13, 13, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_it_agrees_with_the_reference(backend, threads, name):
    backend.set_convolution("winograd")
    arguments = SHAPES[name]
    x, _w, window, _, _, _gy = arguments
    assert backend.winograd.applies(window)
    found, expected = passes(backend, *arguments), passes(REFERENCE, *arguments)
    if not len(x):
        assert all(found[name].shape == e.shape for name, e in expected.items())
        assert not found["weight gradient"].any()
        return
    assert all(distance < 1e-13 * window.kernel[0] ** 2 for distance in apart(found, expected).values())


@pytest.mark.parametrize("method", ["im2col", "winograd"])
def test_bits_do_not_depend_on_who_else_computes(backend, threads, method):
    backend.set_convolution(method)
    problems = [SHAPES[name] for name in ("AlexNet's 3 x 3", "AlexNet's 5 x 5", "AlexNet's first layer")]

    def bits():
        return [found.tobytes() for one in problems for found in passes(backend, *one).values()]

    expected, found = bits(), {}
    callers = [
        threading.Thread(target=lambda i=i: found.update({i: [bits() == expected for _ in range(3)]})) for i in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert found == {i: [True] * 3 for i in range(4)}


@pytest.mark.parametrize("sizes", [(1, 16, 24, 13, 13, 3, 1, (1, 1)), (2, 3, 5, 43, 40, 11, 4, (2, 2))])
def test_memory_does_not_grow_with_the_batch(backend, sizes, monkeypatch):
    """And is as much as it says."""
    monkeypatch.setattr(backend.pool, "threads", 1)
    backend.set_convolution("winograd")
    held = []
    for N in (40, 80):
        backend.scratch.memory = np.empty(0, "uint8")
        x, w, window, groups, bias, gy = problem(N, *sizes, dtype="float32")
        passes(backend, x, w, window, groups, bias, gy)
        held.append(backend.scratch.memory.nbytes)
        kept, _ = backend.conv2d_buffers(x.shape, gy.shape, w.shape, window, groups, x.dtype)
        assert kept == pytest.approx(held[-1], rel=0.01)
    assert held[0] == held[1] > 0


@pytest.mark.parametrize(
    "layer",
    [(2, 2, 48, 128, 27, 27, 5, 1, (2, 2)), (4, 1, 256, 384, 13, 13, 3, 1, (1, 1)), (2, 1, 3, 96, 227, 227, 11, 4)],
)
def test_the_errors_that_float32_makes(backend, layer):
    """winograd.py states them."""
    backend.set_convolution("winograd")
    arguments = problem(*layer, dtype="float32")
    exact = [a.astype("float64") if hasattr(a, "astype") else a for a in arguments]
    right = passes(REFERENCE, *exact)
    distances = apart(passes(backend, *arguments), right)
    assert distances["forward"] < 8e-6
    assert max(distances.values()) < 1.3e-5, distances
    backend.set_convolution("im2col")
    assert max(apart(passes(backend, *arguments), right).values()) < 1e-6


@pytest.mark.parametrize("spoilt", [np.nan, np.inf])
@pytest.mark.parametrize("place", [(0, 0), (3, 3), (4, 4)])
def test_what_is_not_finite_does_not_hide(backend, spoilt, place):
    """All outputs that im2col spoils are spoilt, and those of images on other sheets are not."""
    x, w, window, groups, bias, _ = problem(200, 1, 2, 3, 8, 8, 3, padding=(1, 1), dtype="float32")
    x[0, 0][place] = spoilt
    finite = {}
    for method in ("im2col", "winograd"):
        backend.set_convolution(method)
        with np.errstate(all="ignore"):  # as an operation does
            finite[method] = np.isfinite(backend.conv2d(x, w, window, groups, bias))
    assert not finite["im2col"].all()
    assert (finite["winograd"] <= finite["im2col"]).all()
    assert finite["winograd"][100:].all()


# -- the choice ------------------------------------------------------------------------
def chosen(backend, N, *sizes, **more):
    """The method by which the passes are computed."""
    x, w, window, G, _, gy = problem(N, *sizes, **more)
    filters = (G, w.shape[0] // G, *w.shape[1:])
    return "winograd" if backend._uses_winograd(x.shape, filters, gy.shape, window, x.dtype) else "im2col"


def test_the_cheaper_method_is_chosen(backend, monkeypatch):
    monkeypatch.setattr(backend.pool, "threads", 2)
    conv3 = {"G": 1, "C": 256, "F": 384, "H": 13, "W": 13, "kernel": 3, "padding": (1, 1)}
    sizes = [conv3[key] for key in ("G", "C", "F", "H", "W", "kernel")]
    more = {"padding": (1, 1), "dtype": "float32"}
    assert chosen(backend, 32, *sizes, **more) == "winograd"
    assert chosen(backend, 1, *sizes, **more) == "im2col"  # the filters' values would not pay
    assert chosen(backend, 32, 1, 3, 16, 32, 32, 3, **more) == "im2col"  # nor the tiles', with 3 channels
    assert chosen(backend, 8, 1, 3, 96, 227, 227, 11, stride=4, dtype="float32") == "winograd"
    backend.set_convolution("im2col")
    assert chosen(backend, 32, *sizes, **more) == "im2col"


@pytest.mark.parametrize(
    "window",
    [
        Window((1, 1)),
        Window((3, 5)),
        Window((7, 7)),
        Window((3, 3), (2, 2)),
        Window((5, 5), (2, 1)),
        Window((3, 3), dilation=(2, 2)),
        Window((3, 3), padding=(3, 1)),
        Window((3, 3), (4, 4)),
        Window((3, 3), ceil_mode=True),
    ],
)
def test_where_it_does_not_apply_im2col_does(backend, window):
    backend.set_convolution("winograd")
    assert not backend.winograd.applies(window)
    random = np.random.default_rng(5)
    x, w = random.standard_normal((3, 2, 12, 12)), random.standard_normal((4, 2, *window.kernel))
    np.testing.assert_allclose(backend.conv2d(x, w, window, 1), REFERENCE.conv2d(x, w, window, 1), atol=1e-12)


def test_the_setting_is_checked(backend):
    with pytest.raises(ValueError, match="convolution must be im2col, winograd or auto, not 'fft'"):
        backend.set_convolution("fft")
    with pytest.raises(ValueError, match="the numpy backend computes convolutions by im2col only, not by 'winograd'"):
        REFERENCE.set_convolution("winograd")
    REFERENCE.set_convolution("auto")


# -- im2col on several threads ---------------------------------------------------------------
@pytest.mark.parametrize("N", [1, 2])
def test_a_single_image_is_shared_out_too(backend, monkeypatch, N):
    """N images and 3 threads: rows of the outputs, and channels, are shared out instead."""
    monkeypatch.setattr(backend.pool, "threads", 3)
    monkeypatch.setattr(sys.modules["minitorch_alex.backends.thread_pool"], "WORTH_SHARING", 0)
    slices = []
    monkeypatch.setattr(
        backend.pool,
        "share",
        lambda work, count, cost, share=backend.pool.share: (
            slices.append(backend.pool.slices(count, cost)) or share(work, count, cost)
        ),
    )
    backend.set_convolution("im2col")
    arguments = problem(N, 2, 5, 4, 9, 7, 3, stride=2, padding=(1, 0))
    found, expected = passes(backend, *arguments), passes(REFERENCE, *arguments)
    assert [len(parts) for parts in slices] == [3, 3, 3]
    assert all(distance < 1e-13 for distance in apart(found, expected).values())


def test_scratch_arrays_lie_side_by_side():
    scratch = Scratch()
    a, b = scratch.arrays(np.dtype("float32"), (3, 5), (7,))
    a[...], b[...] = 1, 2
    assert (a == 1).all()
    assert a.ctypes.data % 64 == b.ctypes.data % 64 == 0
    again, _ = scratch.arrays(np.dtype("float64"), (8,), (1,))
    assert again.ctypes.data == a.ctypes.data  # the same memory
    elsewhere = []
    thread = threading.Thread(target=lambda: elsewhere.append(scratch.arrays(np.dtype("float32"), (3, 5))[0]))
    thread.start()
    thread.join()
    assert not np.shares_memory(elsewhere[0], a)


def test_a_run_computes_as_it_is_told(backend, few_digits, tmp_path):
    """And what it learns is nearly the same."""
    learned = {}
    for method in ("im2col", "winograd"):
        settings = {"backend": "numba", "convolution": method, "epochs": 1, "seed": 3}
        prepared = run.prepare_new(settings, str(tmp_path / method), None)
        assert backends.current().convolution == method
        images, labels = next(prepared.loader().epoch(0))
        for _ in range(3):
            train.take_step(prepared, images, labels)
        learned[method] = prepared.network.conv2.weight.numpy()
    assert (learned["im2col"] != learned["winograd"]).any()
    np.testing.assert_allclose(learned["im2col"], learned["winograd"], atol=1e-5)


def test_a_run_that_cannot_is_refused(few_digits, tmp_path):
    settings = {"backend": "numpy", "convolution": "winograd"}
    with pytest.raises(run.ConfigError, match="--convolution winograd: the numpy backend computes convolutions by"):
        run.prepare_new(settings, str(tmp_path / "run"), None)
