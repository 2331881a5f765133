"""The tape: what is remembered, in which order gradients flow, when memory is freed, and what is refused."""

import copy
import os
import pickle
import signal
import threading
import time
import weakref

import numpy as np
import pytest

from minitorch_alex import Tensor, backends, nn, no_grad, tensor
from minitorch_alex import functional as F
from minitorch_alex.tensor import op


@pytest.fixture(autouse=True)
def _backend_as_before():
    """The tape is the same on every backend, so the default will do; some tests here change it."""
    before = backends._current
    yield
    backends._current = before


@pytest.fixture
def from_two_backends():
    """One tensor of numpy and one of numba, which is then the current backend."""
    if backends.why_not("numba") is not None:
        pytest.skip(backends.why_not("numba"))
    backends.use("numpy")
    a = leaf(1.0)
    backends.use("numba")
    return a, leaf(2.0)


def leaf(*values, dtype="float64"):
    return tensor(np.array(values, dtype), requires_grad=True)


@op
def watched(xp, x, log, name):
    """The identity, writing down when its gradient function runs."""

    def grad_x(g):
        log.append(name)
        return g

    return x.copy(), (grad_x,)


# -- the order of things ------------------------------------------------------------
def test_diamond():
    """b is used twice, and must have heard from both before it passes anything on to a."""
    a, log = leaf(3.0), []
    b = watched(a * 2, log=log, name="b")
    c, d = b * b, b + 5
    (c * d).backward()  # 4a^2 (2a + 5)
    assert a.grad.item() == 24 * 9 + 40 * 3
    assert log == ["b"]


def test_the_same_tensor_on_both_sides():
    a = leaf(3.0, -2.0)
    (a * a + a / a - (a + a)).sum().backward()
    assert a.grad.numpy().tolist() == [4, -6]


def test_fan_out():
    a = leaf(1.0)
    total = a * 0
    for i in range(100):
        total = total + i * a
    total.backward()
    assert a.grad.item() == 4950


def test_a_lattice_is_walked_once():
    """Paths double at every level, 2^50 of them; gradient functions are called once each."""
    log, a = [], leaf(1.0)
    x = a
    for i in range(50):
        x = watched(x, log=log, name=i)
        x = (x + x) * 0.5
    x.backward()
    assert log == [*range(49, -1, -1)]
    assert a.grad.item() == 1


def test_an_old_tensor_used_late():
    """Birth decides, not distance: here the newest node hangs off the oldest."""
    a, log = leaf(2.0), []
    early = watched(a, log=log, name="early")
    late = watched(early, log=log, name="late")
    (late * late + early).backward()
    assert log == ["late", "early"]
    assert a.grad.item() == 5


def test_work_is_linear_in_depth():
    for depth in (10, 1000):
        log, x = [], leaf(1.0)
        for i in range(depth):
            x = watched(x, log=log, name=i)
        x.backward()
        assert log == [*range(depth)][::-1]


def test_a_chain_20_000_deep():
    a = leaf(1.0)
    x = a
    for _ in range(20_000):
        x = x + 1
    x.backward()
    assert (x.item(), a.grad.item()) == (20_001, 1)
    x = a
    for _ in range(20_000):
        x = x + 1
    del x  # and it can be thrown away unused


def test_two_backward_calls_add_up():
    a = leaf(1.0, 2.0)
    (a * 3).sum().backward()
    first = a.grad
    (a * a).sum().backward()
    assert a.grad.numpy().tolist() == [5, 7]
    assert first.numpy().tolist() == [3, 3]  # added, not written into: someone may have kept it
    a.grad = None
    (a * 4).sum().backward()
    assert a.grad.numpy().tolist() == [4, 4]


def test_every_leaf_has_a_gradient_of_its_own():
    """add hands one array to both, sum a read-only one; yet a gradient may be scaled in place, as clipping does."""
    a, b, c = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(5.0, 6.0)
    (a + b + c.reshape(1, 2)[0]).sum().backward()
    a.grad.data *= 10
    c.grad.data *= 100
    b.sum().backward()
    b.grad.data *= 2
    assert [t.grad.numpy().tolist() for t in (a, b, c)] == [[10, 10], [4, 4], [100, 100]]


def test_backward_with_a_gradient():
    a = leaf(1.0, 2.0)
    (a * a).backward([1.0, 10.0])
    assert a.grad.numpy().tolist() == [2, 40]
    (a * a).backward(tensor([1.0, 10.0]))
    assert a.grad.numpy().tolist() == [4, 80]
    seed = np.ones(2)
    a.backward(seed)  # a leaf is its own graph
    assert a.grad.numpy().tolist() == [5, 81]
    b = leaf(1.0, 2.0, dtype="float32")
    b.backward(seed)
    seed[:] = 99
    assert b.grad.numpy().tolist() == [1, 1]
    assert b.grad.dtype == "float32"


def test_broadcasting_is_undone():
    rows, column, number = leaf([1.0, 2, 3], [4, 5, 6]), leaf([1.0], [2]), leaf(7.0)
    (rows * column * number).sum().backward()
    assert column.grad.numpy().tolist() == [[42], [105]]
    assert rows.grad.numpy().tolist() == [[7, 7, 7], [14, 14, 14]]
    assert (number.grad.shape, number.grad.item()) == ((1,), 36)
    zero_d, one = tensor(2.0, requires_grad=True), tensor(np.ones((1, 1, 1)), requires_grad=True)
    (zero_d * one * tensor(np.ones((2, 3)))).sum().backward()
    assert (zero_d.grad.shape, zero_d.grad.item()) == ((), 6)
    assert (one.grad.shape, one.grad.item()) == ((1, 1, 1), 12)


# -- what is remembered -----------------------------------------------------------------
def test_only_leaves_keep_their_gradient():
    a, constant = leaf(2.0), tensor([1.0])
    b = a * 3
    c = b * b + constant
    c.backward()
    assert a.grad.item() == 36
    assert (b.grad, c.grad, constant.grad) == (None, None, None)


def test_no_grad():
    a = leaf(2.0)
    with no_grad():
        b = a * a
        with no_grad():
            pass
        assert not (a * a).requires_grad  # the inner block's end does not switch recording on
    assert (b.requires_grad, b.edges) == (False, ())
    assert (a * a).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (a * a).requires_grad


def test_no_grad_as_a_decorator():
    @no_grad()
    def predict(x, scale=1):
        """Doc."""
        return x * scale

    a = leaf(2.0)
    for _ in range(2):
        assert not predict(a, scale=3).requires_grad
    assert (a * a).requires_grad
    assert (predict.__name__, predict.__doc__) == ("predict", "Doc.")


def test_no_grad_is_the_threads_own():
    a, found, inside, checked = leaf(2.0), [], threading.Event(), threading.Event()

    def other():
        with no_grad():
            inside.set()
            checked.wait(10)
            found.append((a * a).requires_grad)

    thread = threading.Thread(target=other)
    thread.start()
    inside.wait(10)
    recorded = (a * a).requires_grad
    checked.set()
    thread.join()
    assert recorded
    assert found == [False]


def test_detach():
    a = leaf(2.0)
    b = (a * a).detach()
    assert (b.requires_grad, b.made_by, b.item()) == (False, "leaf", 4)
    (a * b).backward()
    assert a.grad.item() == 4


def test_what_needs_no_gradient_is_neither_kept_nor_called():
    calls = []

    @op
    def times(xp, x, y):
        return x * y, (lambda g: calls.append("x") or g * y, lambda g: calls.append("y") or g * x)

    a, data = leaf(2.0), tensor(np.array([5.0]))
    out = times(a, data)
    assert [t for t, _ in out.edges] == [a]
    out.backward()
    assert calls == ["x"]
    assert not times(data, data).requires_grad


def test_an_input_without_a_gradient_function_is_refused():
    @op
    def lookup(xp, x, places):
        return x[places.astype(int)], (lambda g: g, None)

    with pytest.raises(TypeError, match="lookup: there is no gradient"):
        lookup(leaf(1.0, 2.0), leaf(0.0))
    assert lookup(leaf(1.0, 2.0), tensor([0.0])).requires_grad


def test_saved_arrays_die_during_backward():
    """When the gradient reaches the bottom of the graph, what the top had saved is gone."""
    alive_at_the_bottom = []

    @op
    def look(xp, x):
        return x.copy(), (lambda g: alive_at_the_bottom.append([r() is not None for r in saved]) or g,)

    a, saved = leaf(1.0, 2.0), []
    x = look(a)
    for _ in range(3):
        x = x.exp()  # keeps its own output
        saved.append(weakref.ref(x.data))
    x = x.sum()
    assert [r() is not None for r in saved] == [True] * 3
    x.backward()
    # the lowest exp has just been walked, and the loop's own variables may still hold it
    assert alive_at_the_bottom[0][1:] == [False, False]
    assert [r() for r in saved] == [None] * 3


def test_the_graph_dies_with_its_end():
    a = leaf(1.0, 2.0)
    b = a.exp()
    dead = weakref.ref(b.data)
    c = b.sum()
    del b
    assert dead() is not None
    del c
    assert dead() is None  # no cycle that would have to wait for the garbage collector


# -- what is refused ----------------------------------------------------------------------
def test_a_second_backward_changes_nothing():
    a, b = leaf(1.0), leaf(2.0)
    c = a * 2
    loss = c * b
    loss.backward()
    with pytest.raises(RuntimeError, match=r"mul of shape \(1,\) was consumed by an earlier backward"):
        loss.backward()
    assert (a.grad.item(), b.grad.item()) == (4, 2)


def test_a_partly_consumed_graph_changes_nothing():
    a, b = leaf(1.0), leaf(2.0)
    shared = a * 3
    (shared * 1).backward()
    young = (b * 5) + shared  # b's part is whole, and younger than the part that is used up
    with pytest.raises(RuntimeError, match=r"mul .*consumed.* add the losses"):
        young.backward()
    assert a.grad.item() == 3
    assert b.grad is None


def test_backward_from_nothing_to_differentiate():
    for t in (tensor([1.0]), tensor([1.0]) * 2, leaf(1.0).detach()):
        with pytest.raises(RuntimeError, match="requires a gradient"):
            t.backward()
    with no_grad():
        out = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="outside no_grad"):
        out.backward()


def test_backward_from_several_numbers_needs_a_gradient():
    a = leaf(1.0, 2.0)
    for out in (a * 2, a[:0]):
        with pytest.raises(ValueError, match=r"from shape \(\d,\) needs a gradient"):
            out.backward()
    assert a.grad is None
    (a * 2)[:1].backward()  # a single number will do, whatever its shape
    assert a.grad.numpy().tolist() == [2, 0]


@pytest.mark.parametrize("gradient", [[1.0], [[1.0, 1.0]], 1.0, np.ones((2, 1))], ids=str)
def test_a_gradient_of_another_shape_is_refused(gradient):
    a = leaf(1.0, 2.0)
    out = a * 2
    with pytest.raises(ValueError, match=r"gradient has shape .*, the tensor \(2,\)"):
        out.backward(gradient)
    assert a.grad is None
    out.backward([1.0, 1.0])  # and nothing has been used up


MIXTURES = {
    "add": lambda a, b: a + b,
    "cat": lambda a, b: F.cat([b, a]),
    "matmul": lambda a, b: a.reshape(1, 1) @ b.reshape(1, 1),
    "compare": lambda a, b: a > b,
    "index": lambda a, b: b[(a * 0).detach().to("int64")],
    "condition": lambda a, b: F.where(a > 0, b, b),
    "labels": lambda a, b: F.cross_entropy(b, (a * 0).detach().to("int64").reshape()),
    "gradient": lambda a, b: (b * 1).backward(a),
}


@pytest.mark.parametrize("mixture", MIXTURES)
def test_backends_do_not_mix(from_two_backends, mixture):
    with pytest.raises(ValueError, match="numpy") as refused:
        MIXTURES[mixture](*from_two_backends)
    assert "numba" in str(refused.value)
    assert "backends.use" in str(refused.value)


def test_results_live_where_their_inputs_do(from_two_backends):
    a, _ = from_two_backends
    (a * 2).backward()
    for t in (a * 2, 2 - a, a > 0, a.detach(), a.grad, a.max(0).indices, F.cross_entropy(a, np.array(0))):
        assert t.backend.name == "numpy"


def test_assignment_is_refused():
    a = leaf(1.0, 2.0)
    with pytest.raises(TypeError, match=r"functional\.where, cat or stack.*leaf\.data"):
        a[0] = 5
    b = c = a * 1
    b += 1  # makes a new tensor
    assert c.numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    "function", [np.exp, np.sum, np.asarray, np.add.reduce, lambda t: np.concatenate([t, t]), lambda t: np.add(t, 1)]
)
def test_numpys_functions_do_not_drop_the_gradient_in_silence(function):
    with pytest.raises(TypeError):
        function(leaf(1.0, 2.0))


def test_numpy_reads_what_needs_no_gradient():
    assert np.asarray(tensor([1.0, 2.0])).tolist() == [1, 2]
    assert np.asarray(tensor([1.0, 2.0]), dtype="int64").dtype == "int64"
    with pytest.raises(TypeError, match="which it would forget"):
        np.asarray(leaf(1.0))


def test_an_array_on_the_left():
    a = leaf(1.0, 2.0)
    array = np.array([[1.0, 2], [3, 4]])
    for out in (array * a, array + a, array - a, array / a, array @ a, np.float64(3) * a, np.float32(3) - a):
        assert isinstance(out, Tensor)
        assert out.requires_grad
    (array * a).sum().backward()
    assert a.grad.numpy().tolist() == [4, 6]
    assert isinstance(array < a, Tensor)


# -- types ----------------------------------------------------------------------------------
def test_tensor_keeps_or_chooses_the_type():
    assert tensor([1.0, 2.0]).dtype == "float32"
    assert tensor(1.5).dtype == "float32"
    assert tensor([1, 2]).dtype == "int64"
    assert tensor([True]).dtype == "bool"
    assert tensor(np.ones(2)).dtype == "float64"
    assert tensor(np.ones(2, "float32")).dtype == "float32"
    assert tensor([1, 2], dtype="float64").dtype == "float64"
    assert tensor(tensor([1.0], dtype="float64")).dtype == "float64"
    for unfit in (np.ones(2, "float16"), np.ones(2, "complex128"), ["a"]):
        with pytest.raises((TypeError, ValueError), match="tensor"):
            tensor(unfit)
    with pytest.raises(ValueError, match="rectangular"):
        tensor([[1.0], [1.0, 2.0]])


def test_tensor_copies():
    array = np.ones(2)
    t = tensor(array)
    array[:] = 5
    assert t.numpy().tolist() == [1, 1]
    again = tensor(t)
    t.data[:] = 7
    assert again.numpy().tolist() == [1, 1]


@pytest.mark.parametrize("data", [[1, 2], np.array([True]), np.arange(3)], ids=str)
def test_whole_numbers_require_no_gradient(data):
    with pytest.raises(TypeError, match="float32 or float64 first"):
        tensor(data, requires_grad=True)
    assert not (tensor(data) + 1).requires_grad


OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "**": lambda a, b: a**b,
    "maximum": F.maximum,
    "minimum": F.minimum,
    "where": lambda a, b: F.where(np.array([True, False]), a, b),
}
PARTNERS = {
    "int": lambda: 2,
    "float": lambda: 2.5,
    "bool": lambda: True,
    "numpy.float64": lambda: np.float64(2.5),
    "numpy.float32": lambda: np.float32(2.5),
    "numpy.int64": lambda: np.int64(2),
    "int64 tensor": lambda: tensor([2, 3]),
    "0-d int64 tensor": lambda: tensor(2),
    "0-d float64 tensor": lambda: tensor(np.float64(2.5)),
    "0-d float64 tensor with gradient": lambda: tensor(np.float64(2.5), requires_grad=True),
}


@pytest.mark.parametrize("partner", PARTNERS)
@pytest.mark.parametrize("name", OPERATIONS)
def test_float32_stays_float32(backend, name, partner):
    a, other = tensor([1.0, 2.0], requires_grad=True), PARTNERS[partner]()
    for x, y in ((a, other), (other, a)):
        out = OPERATIONS[name](x, y)
        assert out.dtype == "float32"
        numbers = [t.numpy() if isinstance(t, Tensor) else t for t in (x, y)]
        expected = {"maximum": np.maximum, "minimum": np.minimum}.get(name, OPERATIONS[name])
        if name == "where":
            expected = lambda a, b: np.where([True, False], a, b)  # noqa: E731
        np.testing.assert_allclose(out.numpy(), expected(*numbers), rtol=1e-6)
        a.grad = None
        out.sum().backward()
        assert a.grad.dtype == "float32"
        if isinstance(other, Tensor) and other.requires_grad:
            assert (other.grad.dtype, other.grad.shape) == ("float64", ())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_and_gradients_keep_the_type(backend, dtype):
    x = tensor(np.linspace(0.1, 1, 2 * 4 * 6 * 6).reshape(2, 4, 6, 6).astype(dtype), requires_grad=True)
    w = tensor(np.ones((4, 2, 3, 3), dtype), requires_grad=True)
    b = tensor(np.ones(4, dtype), requires_grad=True)
    statistics = [tensor(np.ones(4, dtype)), tensor(np.ones(4, dtype))]
    labels = np.zeros((2, 6, 6), "int64")
    results = [
        x.exp(), x.log(), x.sqrt(), abs(x), -x, x.tanh(), x.sigmoid(), x.relu(), x.softmax(1), x.log_softmax(1),
        x.sum(), x.mean(), x.var(), x.amax(), x.amin(1), x.max(2).values, x**2, x**0.5, x**-1, 2**x, x.clamp(0.2, 0.5),
        F.conv2d(x, w, b, groups=2, padding=1), F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 4),
        F.local_response_norm(x, 5), F.batch_norm(x, None, None, b, b, training=True), F.dropout(x),
        F.batch_norm(x, *statistics, b, b), F.linear(x.reshape(-1, 4), tensor(np.ones((3, 4), dtype))),
        x @ x, F.cat([x, x]), F.stack([x, x]), F.pad(x, (1, 1)), x[0], x[[0, 0]], x.T, F.mse_loss(x, x.detach()),
        F.cross_entropy(x, labels), F.cross_entropy(x, labels, np.ones(4), label_smoothing=0.1),
        F.cross_entropy(x, np.ones(x.shape) / 4, reduction="none"), F.nll_loss(x, labels, np.ones(4)),
    ]  # fmt: skip
    for out in results:
        assert out.dtype == dtype, out.made_by
        x.grad = w.grad = b.grad = None
        out.sum().backward()
        for t in (x, w, b):
            assert t.grad is None or (t.grad.dtype, t.grad.shape) == (dtype, t.shape), out.made_by
        assert x.grad is not None


def test_whole_numbers_among_themselves():
    a = tensor([3, 4])
    assert (a + 1).dtype == "int64"
    assert (a * a).dtype == "int64"
    assert (a / 2).dtype == "float32"
    assert (a * 0.5).numpy().tolist() == [1.5, 2]
    assert (a * 0.5).dtype == (a * np.float64(0.5)).dtype == "float32"
    assert a.exp().dtype == "float32"
    assert a.sum().item() == 7
    with pytest.raises(TypeError, match="mean"):
        a.mean()


def test_float64_decides_among_tensors_with_dimensions():
    a, b = leaf(1.0, dtype="float32"), leaf(2.0)
    out = a * b
    assert out.dtype == "float64"
    out.backward()
    assert (a.grad.dtype, b.grad.dtype) == ("float32", "float64")


# -- a box with numbers in it -----------------------------------------------------------------
def test_repr():
    a = tensor([1.0, 2.0], requires_grad=True)
    name = backends.current().name
    assert repr(a) == f"tensor([1., 2.], float32 on {name}, requires_grad=True)"
    assert repr(tensor([1])) == f"tensor([1], int64 on {name})"
    assert repr(a * 2).endswith("made by mul)")
    assert repr(F.softmax(a, 0)).endswith("made by softmax)")
    assert len(repr(tensor(np.zeros(10_000)))) < 200
    assert "consumed" not in repr(a)


def test_item_len_bool_format():
    one = tensor([[2.5]])
    assert (one.item(), float(one), int(one), bool(one)) == (2.5, 2.5, 2, True)
    assert f"{one:.3f}" == "2.500"
    assert f"{tensor([1.0, 2.0])}".startswith("tensor([1., 2.]")
    assert not tensor(0.0)
    assert (len(one), one.numel(), one.ndim, one.shape) == (1, 1, 2, (1, 1))
    several = tensor([1.0, 2.0])
    with pytest.raises(ValueError, match=r"item\(\) needs exactly one element.*\(2,\)"):
        several.item()
    with pytest.raises(ValueError, match="ambiguous"):
        bool(several)
    with pytest.raises(TypeError, match="0-d"):
        len(tensor(1.0))


def test_comparisons_are_of_elements_and_identity_decides_in_sets():
    a, b = leaf(1.0, 2.0), leaf(1.0, 3.0)
    assert (a == b).numpy().tolist() == [True, False]
    assert (a != b).numpy().tolist() == [False, True]
    assert (a < 2).numpy().tolist() == [True, False]
    assert (a >= b).numpy().tolist() == [True, False]
    assert (np.array(3) > a).numpy().tolist() == [True, True]
    assert not (a == b).requires_grad
    assert {a, b, a} == {b, a}
    assert {a: "a", b: "b"}[a] == "a"


def test_a_tensor_is_a_sequence_of_its_rows():
    rows = list(leaf([1.0, 2], [3, 4]))
    assert [r.numpy().tolist() for r in rows] == [[1, 2], [3, 4]]
    assert all(r.requires_grad for r in rows)


def test_empty_and_zero_dimensional_tensors(backend):
    empty = tensor(np.zeros((0, 3)), requires_grad=True)
    ((empty * 2 + tensor(np.ones(3))).relu() @ tensor(np.ones((3, 2)))).sum().backward()
    assert empty.grad.shape == (0, 3)
    assert len(empty) == 0
    with pytest.raises(ValueError, match="no largest"):
        empty.amax()
    with pytest.raises(ValueError, match="no elements"):
        empty.argmax()
    x = tensor(np.float64(3), requires_grad=True)
    y = (x.sum() * x.mean() + x.amax() + x.max(0).values + x.reshape(1)[0] + x.softmax(0) + x.T + x.relu()) * 1.0
    y.backward()
    assert (y.shape, x.grad.shape, x.grad.item()) == ((), (), 11)


def test_errors_name_the_operation_and_the_shapes():
    with pytest.raises(ValueError, match=r"add of \(2,\) and \(3,\)"):
        tensor([1.0, 2.0]) + tensor([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"matmul: shapes \(1, 2\) and \(3, 1\) do not fit"):
        tensor(np.ones((1, 2))) @ tensor(np.ones((3, 1)))
    with pytest.raises(IndexError, match="getitem"):
        tensor([1.0])[3]


# -- small things that people do ------------------------------------------------------
def test_networks_can_be_copied_and_pickled(backend):
    layer = nn.Linear(2, 3)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.weight.backend is backend
        assert twin.weight is not layer.weight
        np.testing.assert_array_equal(twin.weight.numpy(), layer.weight.numpy())


def test_python_floats_become_float32():
    mask = tensor([True, False])
    assert F.where(mask, 1.0, 2.0).dtype == F.where(mask, 1, 2.5).dtype == "float32"
    assert F.where(mask, 1, 2).dtype == "int64"
    assert (tensor([1.0, 2.0]) * [0.5, 1.5]).dtype == "float32"
    assert F.where(mask, 1.0, tensor([1.0, 2.0], dtype="float64")).dtype == "float64"


@pytest.mark.parametrize(
    "gradient", [lambda g: g @ np.ones((5, 5)), lambda g: np.ones((7, 2)), lambda g: None, lambda g: g[9]]
)
def test_an_error_in_a_gradient_function_names_the_operation(gradient):
    slip = op(lambda xp, x: (x * 2, (gradient,)))
    x = tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises((ValueError, AttributeError, TypeError, IndexError), match=r"the gradient of .* of \(2, 3\): "):
        slip(x).backward(np.ones((2, 3)))


def test_inputs_by_keyword_are_refused_clearly():
    with pytest.raises(TypeError, match="pow: takes 2 inputs, by position"):
        F.pow(tensor([1.0], requires_grad=True), exponent=2)


def test_a_copy_is_a_leaf_of_its_own(backend):
    """It once had the birth number of its original, and the walk took the two for one."""
    a = tensor([1.0, 2.0], requires_grad=True)
    for b in (copy.deepcopy(a), copy.copy(a), pickle.loads(pickle.dumps(a))):
        a.grad = None
        (a * a * b).sum().backward()
        assert a.grad.numpy().tolist() == [2.0, 8.0]
        assert b.grad.numpy().tolist() == [1.0, 4.0]
        b.data[...] = 7.0
        assert a.numpy().tolist() == [1.0, 2.0]


def test_long_float32_sums_do_not_stick():
    """Added one by one in float32, ones stop counting at 2^24."""
    x = tensor(np.ones((2**24 + 2**10, 1), "float32"))
    assert x.sum(0).item() == 2**24 + 2**10
    assert x.mean(0).item() == 1.0
    assert x.sum().dtype == "float32"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("backend", ["numpy", "numba", "cupy_stand_in"], indirect=True)  # CUDA itself does not
def test_kernels_work_after_a_fork(backend):
    images, weight = tensor(np.ones((8, 3, 32, 32), "float32")), tensor(np.ones((16, 3, 3, 3), "float32"))
    expected = F.conv2d(images, weight).numpy()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if np.array_equal(F.conv2d(images, weight).numpy(), expected) else 1)
        finally:
            os._exit(2)
    for _ in range(200):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert status == 0
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs: threads do not survive a fork")
