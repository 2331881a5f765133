"""The ladder: every rung is right and runs as it says, what is scaled and compared, and what is shown."""

import numpy as np
import pytest
import threadpoolctl
from matplotlib.colors import to_hex

from benchmarks import ladder, ladder_rungs
from benchmarks.gpu_convolution import Layer
from benchmarks.ladder import Found
from benchmarks.ladder_rungs import LADDER, Rung, multiply_accumulates
from minitorch_alex import backends, plots
from minitorch_alex.peak import Peak

GROUPED, WHOLE = Layer("conv2", 6, 7, 4, 5, 1, 2, 2), Layer("conv3", 3, 6, 4, 3, 1, 1, 1)
PEAK = Peak(200e9, 40e9)
RUNGS = {rung.name: rung for rung in LADDER}


@pytest.fixture
def small(monkeypatch):
    """Little to compute, and no waiting."""
    monkeypatch.setattr(ladder, "CHOICES", {"conv2": GROUPED, "conv3": WHOLE})
    monkeypatch.setattr(ladder, "measure_peak", lambda backend: PEAK)
    monkeypatch.setattr(ladder, "PAUSE", 0.0)
    monkeypatch.setattr(ladder_rungs, "SIDE", 5)
    monkeypatch.setattr(ladder_rungs, "MAPS", 4)


# -- the rungs ----------------------------------------------------------------------------
@pytest.mark.parametrize("layer", [GROUPED, WHOLE], ids=["two groups", "one group"])
@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_is_right(name, layer, small):
    if RUNGS[name] not in ladder_rungs.available():
        pytest.skip(f"{RUNGS[name].needs} is not installed")
    found = ladder.checked(RUNGS[name], layer, 3)
    assert 0 < found.error < (ladder.TOLERANCE if name == "Winograd" else 3e-6), "0 would be no reference in float64"
    assert found.operations == 2 * multiply_accumulates(layer, 3)


def test_multiplications_by_hand():
    assert multiply_accumulates(ladder.CHOICES["conv2"], 16) == 3 * 16 * 223_948_800
    assert multiply_accumulates(ladder.CHOICES["conv3"], 1) == 3 * 149_520_384


def test_a_part_counts_as_the_part_that_it_is(small):
    part, images = RUNGS["Python loops"].part(GROUPED, 9)
    assert (part.C, part.H, part.F, part.R, part.groups, images) == (4, 5, 4, 5, 2, 1)
    found = ladder.checked(RUNGS["Python loops"], GROUPED, 9)
    assert found.share == pytest.approx((4 * 25 * 2) / (9 * 4 * 49 * 3))
    assert RUNGS["compiled loops"].part(GROUPED, 9) == (GROUPED, 1)
    assert {rung.name for rung in LADDER if rung.on} == {"Python loops", "compiled loops"}, "all others do all of it"
    assert all(rung.part(GROUPED, 9) == (GROUPED, 9) for rung in LADDER if not rung.on)


def blas_threads():
    return {module["num_threads"] for module in threadpoolctl.threadpool_info() if module["user_api"] == "blas"}


def test_blas_gets_as_many_threads_as_a_rung_says(monkeypatch):
    monkeypatch.setattr(ladder_rungs, "usable_cores", lambda: 2)
    before = blas_threads()
    for name, threads in (("im2col, one BLAS thread", 1), ("im2col, BLAS threads", 2)):
        with RUNGS[name].setting():
            assert blas_threads() == {threads}
        assert blas_threads() == before


@pytest.mark.parametrize(("name", "method"), [("threads over images", "im2col"), ("Winograd", "winograd")])
def test_numba_convolves_as_a_rung_says_and_then_as_before(name, method):
    if backends.why_not("numba"):
        pytest.skip(backends.why_not("numba"))
    backend = backends.get("numba")
    before = backend.convolution
    with RUNGS[name].setting():
        assert backend.convolution == method
    with pytest.raises(ZeroDivisionError), RUNGS[name].setting():
        1 / 0  # noqa: B018
    assert backend.convolution == before


@pytest.mark.parametrize("layer", [GROUPED, WHOLE], ids=["5 x 5", "3 x 3"])
def test_winograd_is_another_computation(layer):
    if backends.why_not("numba"):
        pytest.skip(backends.why_not("numba"))
    results = []
    for name in ("threads over images", "Winograd"):
        with RUNGS[name].setting():
            results.append(RUNGS[name].compute(layer, *layer.arrays(2)))
    assert not any(np.array_equal(a, b) for a, b in zip(*results, strict=True)), "rounding tells"


def test_time_is_taken_inside_of_the_setting_without_its_own(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ladder.time, "perf_counter", lambda: now[0])

    def passes(seconds):
        now[0] += seconds

    class Setting:
        def __enter__(self):
            passes(100.0)

        def __exit__(self, *_):
            passes(1000.0)

    rung = Rung("slow", "", lambda *_: passes(7.0), Setting)
    assert ladder.timed(rung, WHOLE, 2) == 7.0


# -- errors -------------------------------------------------------------------------------
def test_an_error_is_a_part_of_its_own_result():
    right = (np.array([1.0, -1000.0]), np.array([0.5, 0.1]), np.array([1.0]))
    results = (np.array([2.0, -1000.0]), np.array([0.5, 0.101]), np.array([1.0]))
    assert ladder.error(results, right) == pytest.approx(0.002)
    assert ladder.error((right[0], right[1], np.array([np.nan])), right) == np.inf


def test_a_wrong_rung_is_not_timed_and_the_exit_status_says_so(small, monkeypatch, capsys, tmp_path):
    calls = []

    def doubled(layer, *arrays):
        calls.append(layer)
        y, gx, gw = ladder_rungs.on_numpy(layer, *arrays)
        return y, gx, 2 * gw

    rungs = [RUNGS["Python loops"], Rung("doubled", "It is not.", doubled), RUNGS["im2col, BLAS threads"]]
    monkeypatch.setattr(ladder, "available", lambda: rungs)
    assert ladder.main(["--batch", "2", "--repeats", "1", "--out", str(tmp_path)]) == 1
    assert len(calls) == 1
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("doubled "))
    assert " ".join(line.split()) == "doubled 1e+00 wrong, so it is not timed"


# -- what is shown ------------------------------------------------------------------------
def found(name, seconds, share=1.0, error=1e-6):
    return Found(RUNGS[name], 8_000_000_000, share, error, list(seconds))


@pytest.fixture
def results():
    return [
        found("Python loops", [0.3, 0.2, 90.0], share=1e-4),  # 3000 s
        found("compiled loops", [3.0]),
        found("im2col, one BLAS thread", [], error=0.5),
        found("threads over images", [0.1]),
        found("PyTorch", [0.05]),
    ]


def test_the_table_compares_with_the_rung_before_and_with_the_first(results):
    text = ladder.text_of(WHOLE, 4, results, PEAK)
    lines = {line[:24].strip(): line[24:].split() for line in text.splitlines()}
    assert lines["Python loops"][:4] == ["3,000,000.0", "0.002667", "x", "1"]
    assert lines["compiled loops"][:6] == ["3,000.0", "2.667", "x", "1,000", "x", "1,000"]
    assert lines["threads over images"][:6] == ["100.0", "80", "x", "30", "x", "30,000"], "over what was timed"
    assert lines["PyTorch"][:4] == ["50.0", "160", "x", "60,000"], "which is no rung"
    assert "conv3: 3 channels of 6 x 6, 4 filters of 3 x 3; output and both gradients, 4 images" in text
    assert "Not installed here: im2col, BLAS threads, Winograd." in text
    assert all(f"{one.rung.name}: {one.rung.why}" in text for one in results)


def test_the_figure(results):
    picture = ladder.draw(GROUPED, 4, results, PEAK)
    (axes,) = picture.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "Python loops", "compiled loops", "threads over images", "PyTorch",
    ]  # fmt: skip
    assert [bar.get_width() for bar in axes.patches] == pytest.approx([8 / 3000, 8 / 3, 80, 160])
    assert [to_hex(bar.get_facecolor()) for bar in axes.patches] == 3 * [plots.TRAIN] + [plots.GREY]
    beside = [text.get_text() for text in axes.texts]
    assert beside[:8] == ["0.00267", "", "2.67", "x 1,000", "80", "x 30", "160", ""]
    assert axes.get_ylim()[0] > axes.get_ylim()[1], "the first rung is on top"
    assert axes.get_xlim()[1] > 200
    assert "2 groups" in axes.get_title()


def test_the_command(small, capsys, tmp_path):
    assert ladder.main(["--layer", "conv3", "--batch", "2", "--repeats", "2", "--out", str(tmp_path / "new")]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "new" / "ladder.txt").read_text() == shown
    assert (tmp_path / "new" / "ladder.png").stat().st_size > 10_000
    for rung in ladder_rungs.available():
        assert rung.name in shown
    assert "At most, here: 200 GFLOP/s" in shown
    assert "processor" in shown


def test_a_batch_of_nothing_is_refused(capsys):
    with pytest.raises(SystemExit) as stopped:
        ladder.main(["--batch", "0"])
    assert stopped.value.code == 2
    assert "--batch and --repeats must be at least 1" in capsys.readouterr().err
