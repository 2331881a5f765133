"""What people write by mistake: an error says what to write instead, or the right thing happens.

Wrong shapes, types and settings of the operations are in test_refusals.py, wrong command lines in test_command_line.py,
and what only anomaly() notices is in test_anomaly.py.
"""

import copy
import pickle

import numpy as np
import pytest

from minitorch_alex import Tensor, backends, nn, no_grad, optim, tensor
from minitorch_alex import functional as F
from minitorch_alex.watch import evaluating


@pytest.fixture(autouse=True)
def _backend_as_before():
    before = backends._current
    yield
    backends._current = before


def leaf(*values, dtype="float32"):
    return tensor(np.array(values, dtype), requires_grad=True)


def says(error, *words):
    """Within it, that error is raised with a message of one line that contains the words."""
    return pytest.raises(error, match=r"(?s)\A(?!.*\n)" + "".join(f"(?=.*{word})" for word in words))


# -- changing what the tape needs ----------------------------------------------------
def test_assigning_an_element():
    x = leaf(1.0, 2.0)
    for index in (0, slice(None), x > 1, ...):
        with says(TypeError, "functional.where, cat or stack", r"leaf\.data"):
            x[index] = 1
    with says(TypeError, "functional.where"):
        x[0] += 1
    assert x.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("operator", ["+", "-", "*", "/", "**", "@"])
def test_a_leaf_is_not_changed_by_plus_equals(operator):
    """`for p in parameters: p -= lr * p.grad` would move nothing, and say nothing."""
    names = {"p": leaf([1.0, 2.0], [3.0, 4.0]), "g": tensor(np.ones((2, 2), "float32"))}
    for block in ("", "with no_grad(): "):
        with says(TypeError, "not changed by", r"p\.data = p\.data - lr \* p\.grad\.data"):
            exec(f"{block}p {operator}= g", {"no_grad": no_grad}, names)


def test_the_way_that_the_error_names_moves_a_leaf():
    p = nn.Parameter(np.array([1.0, 2.0]))
    (p * p).sum().backward()
    p.data = p.data - 0.1 * p.grad.data
    np.testing.assert_allclose(p.numpy(), [0.8, 1.6])


def test_plus_equals_of_other_tensors_makes_new_ones():
    """As in total += loss."""
    x = leaf(1.0, 2.0)
    total = start = tensor([0.0, 0.0])
    for _ in range(3):
        total += x * 2
    total *= 10
    total.sum().backward()
    assert x.grad.numpy().tolist() == [60, 60]
    assert start.numpy().tolist() == [0, 0]
    number = 0
    number += x.sum()
    assert isinstance(number, Tensor)


# -- NumPy's functions ------------------------------------------------------------------
UFUNCS = {
    "exp": lambda t: np.exp(t),
    "add": lambda t: np.add(t, 1),
    "add of two": lambda t: np.add(t, t),
    "maximum": lambda t: np.maximum(np.ones(2), t),
    "isnan": lambda t: np.isnan(t),
    "reduce": lambda t: np.add.reduce(t),
    "outer": lambda t: np.multiply.outer(np.ones(2), t),
    "at": lambda t: np.add.at(np.ones(2), [0, 1], t),
    "remainder": lambda t: np.arange(2.0) % t,
    "and": lambda t: np.array([True, False]) & (t > 1),
}


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("name", UFUNCS)
def test_numpy_does_not_compute_with_tensors(name, requires_grad):
    with says(TypeError, r"numpy\.\w+ does not compute", r"minitorch_alex\.functional", r"\.numpy\(\)"):
        UFUNCS[name](tensor([1.0, 2.0], requires_grad=requires_grad))


def test_an_array_is_not_changed_into_a_tensor():
    array = np.ones(2)
    with says(TypeError, r"numpy\.add does not compute", r"\.numpy\(\)"):
        array += tensor([1.0, 2.0])
    assert array.tolist() == [1, 1]


FUNCTIONS = {
    "sum": lambda t: np.sum(t),
    "mean": lambda t: np.mean(t, axis=0),
    "max": lambda t: np.max(t),
    "clip": lambda t: np.clip(t, 0, 1),
    "reshape": lambda t: np.reshape(t, (2, 1)),
    "transpose": lambda t: np.transpose(t),
    "squeeze": lambda t: np.squeeze(t),
    "concatenate": lambda t: np.concatenate([t, t]),
    "where": lambda t: np.where([True, False], t, 0),
    "dot": lambda t: np.dot(t, t),
    "argmax": lambda t: np.argmax(t),
    "norm": lambda t: np.linalg.norm(t),
    "array": lambda t: np.array(t),
    "asarray": lambda t: np.asarray(t, dtype="float64"),
    "array of several": lambda t: np.array([t, t]),
    "allclose": lambda t: np.allclose(t, [1.0, 2.0]),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpy_reads_values_where_no_gradient_is_lost(name):
    function, values = FUNCTIONS[name], np.array([1.0, 2.0], "float32")
    found, expected = function(tensor(values)), function(values)
    assert not isinstance(found, Tensor)
    np.testing.assert_array_equal(found, expected)
    with says(TypeError, "a NumPy function was given a Tensor", r"minitorch_alex\.functional", r"\.numpy\(\)"):
        function(tensor(values, requires_grad=True))


OPERATORS = {
    "+": lambda a, b: a + b, "-": lambda a, b: a - b, "*": lambda a, b: a * b, "/": lambda a, b: a / b,
    "**": lambda a, b: a**b, "@": lambda a, b: a @ b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}  # fmt: skip
NUMPYS = {
    "+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "**": np.power, "@": np.matmul, "==": np.equal,
    "!=": np.not_equal, "<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal,
}  # fmt: skip


@pytest.mark.parametrize("requires_grad", [True, False])
@pytest.mark.parametrize("name", OPERATORS)
def test_an_array_on_the_left_of_an_operator(backend, name, requires_grad):
    array, values = np.array([[1.0, 2.0], [3.0, 0.5]], "float32"), np.array([[2.0, 2.0], [0.5, 1.0]], "float32")
    for operate in (OPERATORS[name], NUMPYS[name]):
        found = operate(array, tensor(values, requires_grad=requires_grad))
        assert isinstance(found, Tensor)
        np.testing.assert_allclose(found.numpy(), OPERATORS[name](array, values), rtol=1e-6)
        assert found.requires_grad == (requires_grad and name in "+-*/**@")
    if name not in "@":
        number = OPERATORS[name](np.float64(2), tensor(values, requires_grad=requires_grad))
        np.testing.assert_allclose(number.numpy(), OPERATORS[name](np.float32(2), values), rtol=1e-6)


# -- backends ----------------------------------------------------------------------------
def test_mixing_backends_names_both_and_the_way_out():
    if backends.why_not("numba") is not None:
        pytest.skip(backends.why_not("numba"))
    backends.use("numpy")
    network = nn.Sequential(nn.Linear(2, 2))
    backends.use("numba")
    with says(ValueError, "0 .Linear", "numba and numpy", r"backends\.use"):
        network(tensor([[1.0, 2.0]]))


# -- backward --------------------------------------------------------------------------------
def test_backward_twice_and_through_a_shared_part():
    x = leaf(1.0)
    loss = (x * 2).sum()
    loss.backward()
    with says(RuntimeError, "consumed by an earlier backward", "compute the value again, or add the losses"):
        loss.backward()
    shared = x.exp()
    (shared * 2).backward()
    with says(RuntimeError, "exp .*consumed", "add the losses"):
        (shared * 3).backward()


def test_backward_of_several_numbers():
    with says(ValueError, "needs a gradient of that shape", r"\.sum\(\) or \.mean\(\)"):
        (leaf(1.0, 2.0) * 2).backward()


def test_backward_from_what_knows_no_gradient():
    with says(RuntimeError, "requires_grad=True", "outside no_grad"):
        tensor([1.0]).sum().backward()


def test_labels_in_place_of_the_loss():
    with says(TypeError, "int64 cannot require a gradient"):
        tensor([1, 2], requires_grad=True)


def test_requires_grad_set_by_hand_on_whole_numbers():
    for compute in (lambda t: t.sum(), lambda t: (t * 0.5).sum(), lambda t: (t * leaf(1.0, 2.0)).sum()):
        t = tensor([1, 2])
        t.requires_grad = True
        with says(TypeError, "int64 cannot require a gradient: make it float32 or float64 first"):
            compute(t).backward()
        assert t.grad is None


# -- modules ---------------------------------------------------------------------------------
class Net(nn.Module):
    """Two layers."""

    def __init__(self):
        self.conv = nn.Conv2d(1, 2, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))


def test_a_misspelt_attribute():
    net = Net()
    with says(AttributeError, "Net has no attribute 'cnov': did you mean 'conv'"):
        net.cnov  # noqa: B018
    with says(AttributeError, "Linear has no attribute 'wieght': did you mean 'weight'"):
        net.fc.wieght  # noqa: B018
    with says(AttributeError, "did you mean 'parameters'"):
        net.paramters()
    with says(AttributeError, r"has no attribute 'zzz'\Z"):
        net.zzz  # noqa: B018
    assert not hasattr(net, "zzz")
    assert getattr(net, "zzz", 3) == 3


def test_a_misspelt_attribute_in_forward():
    class Slip(Net):
        def forward(self, x):
            return self.conv1(x)

    with says(AttributeError, "Slip has no attribute 'conv1': did you mean 'conv'"):
        Slip()(tensor(np.ones((1, 1, 4, 4), "float32")))


def test_a_property_that_fails_says_why_itself():
    class Half(nn.Module):
        @property
        def half(self):
            return self.wieght / 2

    with says(AttributeError, "'wieght'"):
        Half().half  # noqa: B018


def test_tensors_take_no_misspelt_attributes():
    for t in (tensor([1.0]), nn.Parameter(np.ones(1))):
        with says(AttributeError, "require_grad"):
            t.require_grad = True
        with says(AttributeError, "gard"):
            t.gard  # noqa: B018


def test_forward_misspelt_or_missing():
    class Misspelt(nn.Module):
        def foward(self, x):
            return x

    class Missing(nn.Module):
        pass

    with says(NotImplementedError, r"Misspelt has no forward\(\): did you mean 'foward'"):
        Misspelt()(tensor([1.0]))
    with says(NotImplementedError, r"Missing has no forward\(\): define what it computes"):
        Missing()(tensor([1.0]))


def test_super_init_may_be_called_or_not():
    class Early(nn.Module):
        def __init__(self):
            self.a = nn.Parameter(np.ones(1))
            super().__init__()
            self.b = nn.Linear(1, 1)

    assert [name for name, _ in Early().named_parameters()] == ["a", "b.weight", "b.bias"]
    assert [name for name, _ in Net().named_parameters()] == ["conv.weight", "conv.bias", "fc.weight", "fc.bias"]


def test_a_class_in_place_of_a_layer():
    x = tensor([[1.0, 2.0]])
    for kind in (nn.ReLU, nn.Tanh, nn.Sigmoid):
        with says(TypeError, rf"{kind.__name__} takes no settings: {kind.__name__}\(\) makes it"):
            kind(x)
    with says(TypeError, r"0 is the class ReLU, and ReLU\(\.\.\.\) a layer"):
        nn.Sequential(nn.ReLU)
    with says(TypeError, "0 is not a Module but Tensor"):
        nn.Sequential(x)


def test_a_layer_in_place_of_a_tensor():
    x = tensor([[1.0, 2.0]])
    flat = nn.Flatten(x)  # meant: nn.Flatten()(x)
    network = nn.Sequential({"fc": nn.Linear(2, 2)})
    with says(TypeError, "fc .Linear.2, 2..", r"Flatten is a layer, which is to be called: Flatten\(\.\.\.\)\(x\)"):
        network(flat)
    with says(TypeError, r"Flatten is a layer"):
        nn.Linear(2, 2)(flat)
    with says(TypeError, "Linear is to be called"):
        x + network.fc
    with says(TypeError, "parameters is to be called"):
        x * network.parameters


def test_a_tensor_that_nothing_would_train():
    class Forgotten(nn.Module):
        def __init__(self):
            self.inner = nn.Sequential(nn.ReLU())
            self.inner.scale = tensor([1.0], requires_grad=True)

    for ask in (nn.Module.zero_grad, nn.Module.state_dict, lambda m: optim.SGD(m.parameters())):
        with says(TypeError, "Sequential: inner.scale requires a gradient and is no Parameter", r"nn\.Parameter"):
            ask(Forgotten())


def test_what_may_be_kept_in_a_module():
    class Keeps(nn.Module):
        def __init__(self):
            self.constant = tensor([1.0])
            self.listed = [nn.Parameter(np.ones(1)), (nn.Linear(1, 1, bias=False),)]
            self.by_name = {"a": nn.ReLU(), "b": {"c": nn.Parameter(np.ones(1))}}

        def forward(self, x):
            self.seen = x * self.listed[0]  # computed: no leaf
            return self.seen

    module = Keeps()
    module(tensor([1.0]))
    assert [name for name, _ in module.named_parameters()] == ["listed.0", "by_name.b.c", "listed.1.0.weight"]


def test_networks_are_copied_and_pickled_as_before():
    net = Net()
    for twin in (copy.deepcopy(net), copy.copy(net), pickle.loads(pickle.dumps(net))):
        assert [name for name, _ in twin.named_parameters()] == [name for name, _ in net.named_parameters()]


# -- the optimizer -----------------------------------------------------------------------------
def test_a_generator_that_is_used_up():
    parameters = nn.Linear(1, 1).parameters()
    optim.SGD(parameters)
    with says(ValueError, "SGD: there are no parameters to train"):
        optim.SGD(parameters)


def test_step_before_backward():
    layer = nn.Linear(1, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    with says(RuntimeError, r"SGD\.step\(\): there are no gradients", r"loss\.backward\(\)"):
        optimizer.step()
    layer(tensor([[1.0]])).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    with says(RuntimeError, r"zero_grad\(\)"):  # between backward() and step()
        optimizer.step()


def test_parameters_not_called():
    network = nn.Sequential(nn.Linear(1, 1))
    for given in (network.parameters, network):
        with says(TypeError, r"SGD: network\.parameters\(\) is needed"):
            optim.SGD(given)


# -- train() and eval() --------------------------------------------------------------------------
def test_evaluating_cannot_be_forgotten_half():
    network = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.BatchNorm1d(4)))
    x = tensor(np.ones((2, 4), "float32"), requires_grad=True)
    with evaluating(network):
        assert not network(x).requires_grad
        np.testing.assert_allclose(network(x).numpy(), 1, rtol=1e-4)
    assert network.training
    assert network[1][0].training


def test_one_image_in_training():
    with says(ValueError, "norm .BatchNorm2d", "more than one value per channel", r"network\.eval\(\)"):
        nn.Sequential({"norm": nn.BatchNorm2d(3)})(tensor(np.ones((1, 3, 1, 1), "float32")))


# -- data -----------------------------------------------------------------------------------------
IMAGES = {
    "bytes": (np.zeros((2, 1, 4, 4), "uint8"), TypeError, ["conv .Conv2d", "uint8", r"\.float\(\)"]),
    "channels last": (
        np.zeros((2, 4, 4, 1), "float32"),
        ValueError,
        ["conv .Conv2d", "1 channels", r"x\.permute\(0, 3, 1, 2\)"],
    ),
    "float64": (np.zeros((2, 1, 4, 4)), TypeError, ["conv .Conv2d", "float64", r"\.float\(\)"]),
    "another size": (np.zeros((2, 1, 5, 5), "float32"), ValueError, ["fc .Linear", "18 features", "takes 8"]),
    "an array": (None, TypeError, ["conv .Conv2d", "ndarray", r"tensor\(\.\.\.\) makes one"]),
}


@pytest.mark.parametrize("name", IMAGES)
def test_images_that_do_not_fit_name_the_layer(name):
    images, error, words = IMAGES[name]
    with says(error, *words):
        Net()(np.zeros((2, 1, 4, 4), "float32") if images is None else Tensor(images))


LABELS = {
    "one-hot": (np.eye(3, dtype="int64")[:2], ValueError, [r"labels of shape \(2,\)", r"got \(2, 3\)"]),
    "floats": (np.array([0.0, 1.0]), ValueError, ["means probabilities", "labels are whole numbers"]),
    "out of range": (np.array([0, 3]), IndexError, ["label 3", "3 classes, 0 to 2"]),
    "from 1": (np.array([1, 3]), IndexError, ["label 3", "0 to 2"]),
    "names": (np.array(["cat", "dog"]), TypeError, ["whole numbers"]),
}


@pytest.mark.parametrize("name", LABELS)
def test_labels(backend, name):
    labels, error, words = LABELS[name]
    with says(error, "cross_entropy", *words):
        F.cross_entropy(leaf([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), labels)


def test_one_hot_labels_as_floats_are_probabilities(backend):
    scores = leaf([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    by_label = F.cross_entropy(scores, np.array([0, 2]))
    assert F.cross_entropy(scores, np.eye(3)[[0, 2]]).item() == pytest.approx(by_label.item())


# -- a tensor as Python sees it ---------------------------------------------------------------------
def test_a_truth_that_is_none():
    x = leaf(1.0, -1.0)
    for ask in (lambda: bool(x), lambda: 1 if x > 0 else 2, lambda: x > 0 and x, lambda: not x, lambda: x in [x * 2]):
        with says(ValueError, "truth value", r"\(2,\)", r"\.any\(\) or \.all\(\)"):
            ask()
    for convert in (float, int, Tensor.item):
        with says(ValueError, "exactly one element", r"\(2,\)"):
            convert(x)


def test_what_works_as_everywhere():
    x = leaf([1.0, 2.0], [3.0, 4.0])
    assert len(x) == 2
    assert [row.numpy().tolist() for row in x] == [[1, 2], [3, 4]]
    assert hash(x) == hash(x)
    assert x in {x}
    assert "requires_grad" in f"{x}"
    twin = pickle.loads(pickle.dumps(copy.deepcopy(x)))
    assert twin.requires_grad
    assert twin.numpy().tolist() == x.numpy().tolist()
    assert float(x.sum()) == 10
    assert (x * -np.inf).numpy().tolist() == [[-np.inf] * 2] * 2
    assert F.where(x > 2, x, -np.inf).dtype == "float32"


def test_indices_that_go_too_far(backend):
    x = leaf([1.0, 2.0], [3.0, 4.0])
    for index in (2, -3, (0, 2), [0, 2]):
        with says(IndexError, "getitem", r"\(2, 2\)"):
            x[index]


# -- the path of a layer in its errors -----------------------------------------------------------
class Wrong(nn.Module):
    """Refuses everything."""

    def forward(self, x):
        return x.reshape(7)


def failing(network):
    with pytest.raises(ValueError, match="reshape") as caught:
        network(tensor([1.0, 2.0]))
    return str(caught.value).partition(": ")[0]


def test_paths_in_nested_networks():
    assert failing(nn.Sequential({"a": nn.Sequential(nn.ReLU(), nn.Sequential({"b": Wrong()}))})) == "a.1.b (Wrong())"
    assert failing(nn.Sequential(Wrong())) == "0 (Wrong())"


def test_a_module_that_computes_beside_its_layers_is_named_in_one_line():
    class Holder(Wrong):
        def __init__(self):
            self.inside = nn.Sequential(nn.ReLU(), nn.ReLU())

    assert failing(nn.Sequential({"holder": Holder()})) == "holder (Holder)"


def test_a_layer_in_two_places_and_one_by_itself():
    shared = Wrong()
    assert failing(nn.Sequential({"a": nn.Sequential(shared), "b": shared})) in ("a.0 (Wrong())", "b (Wrong())")
    assert failing(Wrong()).startswith("reshape")  # which has no path
    network = nn.Sequential({"a": shared})
    assert failing(network) == "a (Wrong())"
    assert failing(shared).startswith("reshape")  # though it has stood in a network before


def test_a_network_called_inside_another():
    class Outer(nn.Module):
        def __init__(self, other):
            self.held = [nn.ReLU()]
            self.call = lambda x: other(x)

        def forward(self, x):
            return self.call(self.held[0](x))

    other = nn.Sequential({"a": Wrong()})
    assert failing(nn.Sequential({"outer": Outer(other)})).startswith("outer (Outer)")


def test_after_an_error_the_next_network_is_named_rightly():
    failing(nn.Sequential({"a": Wrong()}))
    assert failing(nn.Sequential({"b": Wrong()})) == "b (Wrong())"
    network = nn.Sequential({"drop": nn.Dropout(0.5)})
    network(tensor([1.0]))
    assert network.drop.path == "drop"
