"""The gradient check itself: it passes what is right, and finds and names what is wrong. Plants wrong gradients."""

import numpy as np
import pytest

from minitorch_alex import functional as F
from minitorch_alex import manual_seed, nn, tensor
from minitorch_alex.gradcheck import gradcheck, gradcheck_module, separated
from minitorch_alex.tensor import op


def wrong(report, cause, input=0, index=None):
    """The report is a failure that says so; `index` is an element that must be among those named."""
    assert not report
    assert all(cause in m.cause for m in report.mismatches), report
    assert all(m.input == input for m in report.mismatches), report
    if index is not None:
        assert index in [m.index for m in report.mismatches]


@op
def square(xp, x, slip=None):
    return x * x, (lambda g: 2 * g * x if slip is None else slip(2 * g * x),)


@op
def lookup(xp, x, rows, adding):
    """x[rows], with a gradient that adds up what repeated rows receive or, as is easily done, overwrites it."""

    def grad_x(g):
        out = np.zeros_like(x)
        if adding:
            np.add.at(out, rows, g)
        else:
            out[rows] = g
        return out

    return x[rows], (grad_x,)


@op
def product(xp, x, w, transposed=False):
    return x @ w, (lambda g: g @ w.T, lambda g: (g.T @ x if transposed else x.T @ g).reshape(w.shape))


def test_a_right_gradient_passes():
    report = gradcheck(lambda x: square(x), (3, 4))
    assert report
    assert report.checked == 12
    assert report.worst < 1e-6
    assert "12 elements" in repr(report)
    assert "all agree" in repr(report)
    assert gradcheck(product, (3, 4), (4, 2)).checked == 20


def test_float32_is_refused():
    x = np.ones((2, 2), "float32")
    with pytest.raises(TypeError, match=r"float32.*allow_float32"):
        gradcheck(square, x)
    with pytest.raises(TypeError, match="float32"):
        gradcheck(square, tensor(x))
    report = gradcheck(square, x, allow_float32=True, eps=1e-2, rtol=1e-3, atol=1e-3)
    assert report, report


def test_float32_rounding_is_named():
    x = separated((3, 3), np.random.default_rng(0)).astype("float32")
    wrong(gradcheck(lambda x: square(x) + 100, x, allow_float32=True), "float32: differences this small drown")


@pytest.mark.parametrize("factor", [2, 0.5, -1, 12])
def test_a_factor_is_measured(factor):
    report = gradcheck(lambda x: square(x, slip=lambda g: factor * g), (2, 3))
    wrong(report, f"a factor of {factor:.4g} everywhere", index=(1, 2))
    assert len(report.mismatches) == 6
    assert "sign" in report.mismatches[0].cause


def test_a_missing_gradient_is_named():
    wrong(gradcheck(lambda x: square(x, slip=lambda g: 0 * g), (2, 3)), "no gradient arrives", index=(0, 0))
    wrong(gradcheck(lambda x, y: x * y.detach(), (3,), (3,)), "no gradient arrives", input=1, index=(2,))


def test_one_wrong_element_is_found_where_it_is():
    def slip(g):
        g = g.copy()
        g[1, 2] *= 1.5
        return g

    report = gradcheck(lambda x: square(x, slip=slip), (2, 3))
    assert [(m.input, m.index) for m in report.mismatches] == [(0, (1, 2))]
    (m,) = report.mismatches
    assert m.analytic == pytest.approx(1.5 * m.numeric)
    assert m.error == pytest.approx(1 / 3, rel=1e-3)


@pytest.mark.parametrize("adding", [True, False])
def test_overwriting_where_adding_is_meant(adding):
    def weighted(x):  # the weights have one sign, so what is lost makes the gradient smaller
        return (lookup(x, rows=[0, 2, 0, 1, 2, 2], adding=adding) * np.array([1.0, 2, 3, 4, 5, 6])).sum()

    report = gradcheck(weighted, (3,))
    assert bool(report) == adding
    if not adding:
        wrong(report, "too small: a factor is missing, or contributions are lost")
        assert {m.index for m in report.mismatches} == {(0,), (2,)}  # row 1 is read once


def test_a_transposed_gradient():
    """All shapes agree when the matrices are square; only the values tell."""
    assert gradcheck(product, (3, 3), (3, 3))
    report = gradcheck(lambda x, w: product(x, w, transposed=True), (3, 3), (3, 3))
    wrong(report, "some elements are right", input=1)  # those on the diagonal


def test_a_gradient_that_is_right_for_ones_only():
    """It adds up right, so a cotangent of ones would not see it."""
    spread = op(lambda xp, x: (3 * x, (lambda g: np.full_like(x, 3 * g.mean()),)))
    assert not gradcheck(spread, (4,))


def test_a_function_that_changes_from_call_to_call():
    rng = np.random.default_rng(0)
    wrong(gradcheck(lambda x: x * rng.standard_normal(), (3,)), "another value each time")
    manual_seed(0)
    wrong(gradcheck(lambda x: F.dropout(x, 0.5), (20,)), "mask is not fixed")


def test_kinks_are_named():
    report = gradcheck(F.relu, np.array([-1.0, 0.0, 2.0]))
    assert [m.index for m in report.mismatches] == [(1,)]
    wrong(report, "a kink within eps")
    wrong(gradcheck(lambda x: F.max(x, 0).values, np.array([0.0, 1.0, 1.0])), "a kink within eps", index=(1,))
    assert gradcheck(F.amax, np.array([0.0, 1.0, 1.0]))  # half each is what central differences say, too


def test_nan_is_a_mismatch():
    assert not gradcheck(lambda x: square(x, slip=lambda g: g * np.nan), (3,))


def test_samples():
    assert gradcheck(square, (6, 7), samples=5).checked == 5
    assert gradcheck(square, (6, 7), samples=1000).checked == 42
    chosen = [gradcheck(square, (6, 7), samples=2, seed=s).worst for s in range(4)]
    assert len(set(chosen)) > 1


def test_the_direction_finds_an_element_that_was_not_sampled():
    def slip(g):
        g = g.copy()
        g[13] += 1
        return g

    for seed in range(5):  # one of 40 elements: two samples would most likely miss it
        report = gradcheck(lambda x: square(x, slip=slip), (40,), samples=2, seed=seed)
        assert not report
        assert (report.mismatches[0].index, report.mismatches[0].input) == ((), 0)
        assert "not sampled" in report.mismatches[0].cause


def test_whole_numbers_are_passed_on():
    rows = np.array([1, 1, 0])
    report = gradcheck(lambda x, i: x[i], (2, 3), rows)
    assert report
    assert report.checked == 6
    with pytest.raises(TypeError, match="nothing to check"):
        gradcheck(lambda i: i, rows)
    with pytest.raises(ValueError, match="does not depend"):
        gradcheck(lambda x: x.detach(), (3,))


def test_inputs_are_left_alone():
    x = tensor(np.array([1.0, 2.0]), requires_grad=True)
    before = x.data.copy()
    assert gradcheck(square, x)
    np.testing.assert_array_equal(x.data, before)
    assert x.grad is None


def test_a_gradient_that_cancels_is_not_taken_for_a_kink():
    """x - mean(x) adds up to 0 whatever x is: what finite differences find is rounding."""
    centred = op(lambda xp, x: (x - x.mean(), (lambda g: g - g.mean(),)))
    for n in (2, 5, 100):
        assert gradcheck(lambda x: centred(x).sum(), (n,))
        assert gradcheck(centred, (n,))


def test_a_single_wrong_element_is_no_factor_everywhere():
    skewed = op(lambda xp, x: (x * x, (lambda g: 2 * x * g * np.where(np.arange(4) == 2, 1.4, 1.0),)))
    report = gradcheck(skewed, (4,))
    wrong(report, "some elements are right")


def test_a_gradient_where_there_should_be_none():
    constant = op(lambda xp, x: (x[:2] * 1.0, (lambda g: np.concatenate([g, g]),)))
    wrong(gradcheck(constant, (4,)), "their gradient should be 0")


def test_the_report_shows_the_five_worst():
    report = gradcheck(lambda x: square(x, slip=lambda g: g + np.arange(1.0, 9)), (8,))
    head, *rows, cause = repr(report).splitlines()
    assert "8 elements" in head
    assert "8 disagree" in head
    assert len(rows) == 5
    errors = [float(row.split("error ")[1].split(")")[0]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    for row, m in zip(rows, sorted(report.mismatches, key=lambda m: -m.error), strict=False):
        assert f"input 0 at {m.index}" in row
        assert f"{m.analytic:.8g}" in row
        assert f"{m.numeric:.8g}" in row
    assert cause.startswith("    suspected: ")  # once for all


def test_separated_values():
    """Each at least 1/n from the others and 1/2n from 0, so that no kink lies within reach."""
    for shape in ((), (1,), (7,), (3, 4), (0, 2)):
        values = np.sort(separated(shape, np.random.default_rng(0)).reshape(-1))
        n = max(values.size, 1)
        assert values.shape == (np.prod(shape),)
        assert (np.abs(values) >= 0.5 / n).all()
        assert (np.diff(values) >= 1 / n).all()


class Net(nn.Module):
    def __init__(self):
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2, bias=False)
        self.norm = nn.LocalResponseNorm(3, alpha=1.0)
        self.batch = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(3, 2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.pool(self.norm(self.batch(self.conv(x)).relu())).flatten(1))


def test_a_small_network_passes(backend):
    network = Net()
    named = dict(network.named_parameters())
    report = gradcheck_module(network, (2, 2, 5, 5), rtol=1e-5, samples=6)
    assert report, report
    assert report.function == "Net"
    assert report.checked == 6 + 6 + 4 + 4 + 6 + 3  # input, conv.weight, batch.weight and .bias, fc.weight and .bias
    assert dict(network.named_parameters()) == named  # the parameters themselves are back
    assert network.fc.weight.dtype == "float64"


def test_a_gradient_of_zero_passes():
    """Batch norm takes out what a bias before it adds, so its gradient is 0 up to rounding, analytic and numeric."""
    manual_seed(0)
    report = gradcheck_module(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), (2, 1, 5, 5))
    assert report, report


def test_a_wrong_layer_is_found():
    class Doubtful(nn.Linear):
        def forward(self, x):
            return F.linear(x, self.weight.detach(), self.bias)

    manual_seed(0)
    wrong(gradcheck_module(nn.Sequential(nn.Tanh(), Doubtful(3, 2)), (4, 3)), "no gradient arrives", input=1)


def test_parameters_in_lists_are_checked():
    class Polynomial(nn.Module):
        def __init__(self):
            self.coefficients = [nn.Parameter(np.array([0.5])), nn.Parameter(np.array([2.0]))]

        def forward(self, x):
            return self.coefficients[0] + self.coefficients[1].detach() * x

    wrong(gradcheck_module(Polynomial(), (3,)), "no gradient arrives", input=2)


@pytest.mark.parametrize("seed", range(6))
def test_two_inputs_of_one_shape_do_not_tie(seed):
    assert gradcheck(lambda x, y: F.relu(x - y), (3, 4), (3, 4), seed=seed)
    assert gradcheck(lambda x, y: F.max_pool2d(x + y, 2), (1, 1, 4, 4), (1, 1, 4, 4), seed=seed)


def test_a_function_that_bends_much_is_still_right():
    assert gradcheck(lambda x: 1 / x, (15, 15))


def test_nan_is_said_to_be_nan():
    with pytest.raises(ValueError, match="NaN"):
        gradcheck(F.log, np.array([-1.0, 2.0]))


# -- tolerances --------------------------------------------------------------------
def stating(gradient, value=lambda x: x * x):
    @op
    def made(xp, x):
        return value(x), (lambda g: gradient(x, g),)

    return made


@pytest.mark.parametrize("odd", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("samples", [None, 5])
def test_what_is_not_finite_hides_nothing(odd, samples):
    place = np.arange(30) == 1
    report = gradcheck(stating(lambda x, g: np.where(place, odd, 2 * x * g)), (30,), samples=samples)
    assert not report
    assert report.worst == np.inf
    assert {m.index for m in report.mismatches} <= {(), (1,)}
    assert not gradcheck(stating(lambda x, g: np.where(place, odd, 3 * x * g)), (30,), samples=samples)


def test_rounding_is_allowed_for_and_no_more():
    def f(x):
        return 1000 + 1e-3 * x

    assert gradcheck(stating(lambda x, g: 1e-3 * g, f), (5,))
    assert len(gradcheck(stating(lambda x, g: 1.01e-3 * g, f), (5,)).mismatches) >= 4


def test_rounding_is_no_kink():
    def f(x):
        return 1000 + 1e-9 * x

    report = gradcheck(stating(lambda x, g: 2e-6 * g, f), (9,))
    assert report.mismatches
    assert "kink" not in repr(report)


def test_a_small_error_that_was_not_sampled():
    f = stating(lambda x, g: 2 * x * g * np.where(np.arange(50) == 17, 1.02, 1))
    assert [m.index for m in gradcheck(f, (50,), samples=1).mismatches] == [()]


@pytest.mark.parametrize(
    ("settings", "words"), [({"samples": 0}, "samples at least 1"), ({"eps": 0.0}, "eps must be above 0")]
)
def test_settings_that_check_nothing_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        gradcheck(lambda x: x, (3,), **settings)


@pytest.mark.parametrize("answer", [None, 3.0, np.zeros(3)])
def test_a_function_must_return_a_tensor(answer):
    with pytest.raises(TypeError, match="the function must return a Tensor, not"):
        gradcheck(lambda x: answer, (3,))
