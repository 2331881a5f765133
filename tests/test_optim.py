"""Optimizers and schedules against loops by hand; what modules contain, save, load and call things; initial weights."""

import math

import numpy as np
import pytest

from minitorch_alex import functional as F
from minitorch_alex import init, manual_seed, nn, no_grad, optim, tensor

RATES = [0.1, 0.1, 0.1, 0.01, 0.01, 0.01]  # a drop after three steps


def parameter(*values, dtype="float64"):
    return nn.Parameter(np.array(values, dtype))


def slope(w):
    """The gradient of a lopsided bowl, so that each step's depends on where the last one led."""
    return w**2 + 3 * w - 1


def run(optimizer, p, rates=RATES):
    """Where p stands after each step."""
    path = []
    for lr in rates:
        for group in optimizer.param_groups:
            group["lr"] = lr
        p.grad = tensor(slope(p.numpy()))
        optimizer.step()
        path.append(p.numpy().copy())
    return np.array(path)


def by_hand(w, form, momentum, decay, dampening=0.0, nesterov=False, rates=RATES):
    path, v = [], None
    for lr in rates:
        g = slope(w)
        if form == "paper":
            v = momentum * (0 if v is None else v) - decay * lr * w - lr * g
            w = w + v
        else:
            g = g + decay * w
            v = g if v is None else momentum * v + (1 - dampening) * g
            w = w - lr * (g + momentum * v if nesterov else v if momentum else g)
        path.append(w)
    return np.array(path)


SETTINGS = [
    {"momentum": 0.0, "weight_decay": 0.0},
    {"momentum": 0.9, "weight_decay": 0.0},
    {"momentum": 0.0, "weight_decay": 0.05},
    {"momentum": 0.9, "weight_decay": 0.05},
]


@pytest.mark.parametrize("form", ["torch", "paper"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_sgd(backend, form, settings):
    start = [0.5, -0.7]
    p = parameter(*start)
    path = run(optim.SGD([p], lr=0.1, form=form, **settings), p)
    expected = by_hand(np.array(start), form, settings["momentum"], settings["weight_decay"])
    np.testing.assert_allclose(path, expected, rtol=1e-12)


@pytest.mark.parametrize(
    "more", [{"dampening": 0.3}, {"nesterov": True}, {"nesterov": True, "weight_decay": 0.05}], ids=str
)
def test_dampening_and_nesterov(more):
    p = parameter(0.5, -0.7)
    path = run(optim.SGD([p], lr=0.1, momentum=0.9, **more), p)
    expected = by_hand(np.array([0.5, -0.7]), "torch", 0.9, more.pop("weight_decay", 0), **more)
    np.testing.assert_allclose(path, expected, rtol=1e-12)


def test_the_two_forms_agree_until_the_rate_drops():
    paths = {}
    for form in ("torch", "paper"):
        p = parameter(0.5, -0.7)
        paths[form] = run(optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.05, form=form), p)
    np.testing.assert_allclose(paths["torch"][:3], paths["paper"][:3], rtol=1e-12)
    assert (abs(paths["torch"][3] - paths["paper"][3]) > 1e-3).all()


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("form", ["torch", "paper"])
def test_sgd_of_a_0_d_parameter(form, settings):
    """Arithmetic on 0-d arrays makes NumPy scalars, which cannot be changed in place."""
    p = nn.Parameter(np.array(0.5))
    path = run(optim.SGD([p], form=form, **settings), p)
    expected = by_hand(np.array(0.5), form, settings["momentum"], settings["weight_decay"])
    np.testing.assert_allclose(path, expected, rtol=1e-12)
    assert p.shape == ()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("form", ["torch", "paper"])
def test_sgd_keeps_the_type_and_leaves_the_gradients_alone(backend, form, decay):
    p = parameter(1.0, 2.0, dtype="float32")
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=decay, form=form)
    gradients = [tensor(np.array([1.0, 2.0], "float32")) for _ in range(3)]
    for p.grad in gradients:
        optimizer.step()
    assert [g.numpy().tolist() for g in gradients] == [[1, 2]] * 3
    assert p.dtype == "float32"
    assert optimizer.velocity[p].dtype == "float32"


def test_sgd_after_a_gradient_that_is_a_read_only_view(backend):
    """sum() hands back a broadcast array."""
    p = parameter(1.0, 2.0)
    optimizer = optim.SGD([p], lr=0.5, momentum=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        p.sum().backward()
        optimizer.step()
    assert p.numpy().tolist() == [1 - 0.5 - 0.75, 2 - 0.5 - 0.75]


def test_groups_have_settings_of_their_own():
    """AlexNet's code: biases at twice the rate and without decay."""
    w, b = parameter(1.0), parameter(1.0)
    groups = [{"params": [w]}, {"params": (p for p in [b]), "lr": 0.2, "weight_decay": 0.0}]
    optimizer = optim.SGD(groups, lr=0.1, weight_decay=0.5)
    w.grad = b.grad = tensor(np.array([1.0]))
    optimizer.step()
    assert (w.item(), b.item()) == pytest.approx((1 - 0.1 * 1.5, 1 - 0.2))
    optimizer.zero_grad()
    assert (w.grad, b.grad) == (None, None)


def test_what_does_not_move():
    frozen, idle, p = parameter(1.0), parameter(2.0), parameter(3.0)
    optimizer = optim.SGD(
        [{"params": [frozen], "lr": 0.0}, {"params": [idle, p]}], lr=0.1, momentum=0.9, weight_decay=0.5
    )
    frozen.grad = p.grad = tensor(np.array([1.0]))  # idle has none
    optimizer.step()
    assert (frozen.item(), idle.item()) == (1, 2)
    assert p.item() != 3
    assert set(optimizer.velocity) == {p}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"lr": -1}, "lr must be at least 0"),
        ({"lr": math.nan}, "lr must be at least 0"),
        ({"momentum": -0.1}, "momentum"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"form": "caffe"}, "'torch' or 'paper'"),
        ({"nesterov": True}, "nesterov needs a momentum"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
        ({"form": "paper", "momentum": 0.9, "nesterov": True}, "neither nesterov nor dampening"),
        ({"form": "paper", "dampening": 0.1}, "neither nesterov nor dampening"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        optim.SGD([parameter(1.0)], **settings)
    with pytest.raises(ValueError, match=problem):
        optim.SGD([{"params": [parameter(1.0)], **settings}])


def test_bad_parameters_are_refused():
    p = parameter(1.0)
    with pytest.raises(ValueError, match="no parameters"):
        optim.SGD([])
    with pytest.raises(ValueError, match="twice"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.raises(ValueError, match="unknown setting learning_rate"):
        optim.SGD([{"params": [p], "learning_rate": 1}])
    for unfit in (p * 2, tensor([1.0]), np.ones(2)):
        with pytest.raises(TypeError, match="only leaves"):
            optim.SGD([p, unfit])


def test_frozen_parameters_stay():
    moving, frozen = parameter(1.0), parameter(2.0)
    frozen.requires_grad = False
    optimizer = optim.SGD([moving, frozen], 0.5, weight_decay=0.1)
    (moving * frozen).backward()
    optimizer.step()
    assert (moving.item(), frozen.item()) == (pytest.approx(1 - 0.5 * (2 + 0.1)), 2.0)


def test_sgd_goes_on_where_it_was_saved(backend):
    settings = {"momentum": 0.9, "weight_decay": 0.05}
    p, never_moved = parameter(0.5, -0.7), parameter(1.0)
    whole = run(optim.SGD([never_moved, p], **settings), p)

    first = parameter(0.5, -0.7)
    optimizer = optim.SGD([parameter(1.0), first], **settings)
    run(optimizer, first, RATES[:2])
    state = optimizer.state_dict()
    assert list(state) == ["1"]

    second = parameter(*first.numpy())
    resumed = optim.SGD([parameter(1.0), second], **settings)
    resumed.load_state_dict(state)
    np.testing.assert_array_equal(run(resumed, second, RATES[2:]), whole[2:])
    for unfit in ({"1": np.zeros(3)}, {"2": np.zeros(2)}, {"1": state["1"], "x": np.zeros(2)}):
        with pytest.raises(ValueError, match="does not fit"):
            resumed.load_state_dict(unfit)
    np.testing.assert_array_equal(backend.to_numpy(resumed.velocity[second]), resumed.state_dict()["1"])


def test_saved_velocities_are_a_snapshot():
    p = parameter(0.5, -0.7)
    optimizer = optim.SGD([p], momentum=0.9)
    run(optimizer, p, [0.1])
    state = optimizer.state_dict()
    before = {name: v.copy() for name, v in state.items()}
    run(optimizer, p, [0.1])
    np.testing.assert_array_equal(state["0"], before["0"])
    optimizer.load_state_dict(state)
    run(optimizer, p, [0.1])
    np.testing.assert_array_equal(state["0"], before["0"])


# -- schedules --------------------------------------------------------------------------
def two_rates():
    return optim.SGD([{"params": [parameter(1.0)], "lr": 1.0}, {"params": [parameter(1.0)], "lr": 20.0}])


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def follow(schedule, epochs):
    """The first group's rate after each epoch's step."""
    return [(schedule.step(), rates(schedule.optimizer)[0])[1] for _ in range(epochs)]


def test_multi_step():
    schedule = optim.MultiStepLR(two_rates(), [4, 2, 2], gamma=0.5)
    assert follow(schedule, 5) == [1, 0.25, 0.25, 0.125, 0.125]
    assert rates(schedule.optimizer) == [0.125, 2.5]


def test_step():
    schedule = optim.StepLR(two_rates(), 2, gamma=0.5)
    assert follow(schedule, 5) == [1, 0.5, 0.5, 0.25, 0.25]


def test_plateau():
    schedule = optim.ReduceLROnPlateau(two_rates(), factor=0.5, patience=1, threshold=0.1, max_reductions=3)
    metrics = [10, 8, 7.5, 7.3, 7.0, 6.9, 6.9, 6.9, 6.9, 6.9]
    #          best best bad bad  best bad  bad  bad  bad ...: 7.5 and 7.3 are not 10 % below 8, 7.0 is
    after = []
    for metric in metrics:
        schedule.step(metric)
        after.append(rates(schedule.optimizer)[0])
    assert after == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125, 0.125]
    for _ in range(10):
        schedule.step(6.9)
    assert rates(schedule.optimizer) == [0.125, 2.5]  # three times at most, as in AlexNet
    unlimited = optim.ReduceLROnPlateau(two_rates(), factor=0.5, patience=0)
    for _ in range(6):
        unlimited.step(1.0)
    assert rates(unlimited.optimizer)[0] == 0.5**5
    for factor in (0, 1, 10):
        with pytest.raises(ValueError, match="between 0 and 1"):
            optim.ReduceLROnPlateau(two_rates(), factor=factor)


def test_a_diverged_metric_is_no_improvement():
    schedule = optim.ReduceLROnPlateau(two_rates(), factor=0.5, patience=0)
    for metric in (math.nan, math.inf):
        schedule.step(metric)
    assert rates(schedule.optimizer)[0] == 0.25


@pytest.mark.parametrize(
    "make",
    [
        lambda o: optim.MultiStepLR(o, [2, 3, 5], 0.5),
        lambda o: optim.StepLR(o, 2, 0.5),
        lambda o: optim.ReduceLROnPlateau(o, 0.5, patience=1, max_reductions=2),
    ],
)
@pytest.mark.parametrize("interrupted", [1, 3, 4])
def test_schedules_go_on_where_they_were_saved(make, interrupted):
    metrics = [5.0, 6, 6, 6, 4, 5, 5, 5]

    def go(schedule, metrics):
        return [(schedule.step(m), *rates(schedule.optimizer))[1:] for m in metrics]

    whole = go(make(two_rates()), metrics)
    first = make(two_rates())
    go(first, metrics[:interrupted])
    second = make(two_rates())
    second.load_state_dict(first.state_dict())
    assert go(second, metrics[interrupted:]) == whole[interrupted:]


# -- modules ----------------------------------------------------------------------------
class Block(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(3, 3)
        self.scale = nn.Parameter(np.ones(3, "float32"))
        self.note = "not a parameter"


class Net(nn.Module):
    def __init__(self):
        self.first = Block()
        self.listed = [nn.Linear(3, 2), nn.ReLU()]
        self.named = {"a": nn.BatchNorm1d(2), "drop": nn.Dropout()}
        self.tied = self.first.fc.weight
        self.pair = (nn.Parameter(np.zeros(1, "float32")), None)

    def forward(self, x):
        x = self.first.fc(x) * self.first.scale
        for layer in self.listed:
            x = layer(x)
        return self.named["drop"](self.named["a"](x))


NAMES = [  # a module's own come before its parts'; `tied` is first.fc.weight once more
    "tied", "pair.0", "first.scale", "first.fc.bias", "listed.0.weight", "listed.0.bias", "named.a.weight",
    "named.a.bias",
]  # fmt: skip
BUFFERS = ["named.a.running_mean", "named.a.running_var", "named.a.num_batches_tracked"]


def names(pairs):
    return [name for name, _ in pairs]


def test_parameters_are_found_in_lists_and_dicts_and_shared_ones_once():
    network = Net()
    assert names(network.named_parameters()) == NAMES
    assert list(network.parameters()) == [p for _, p in network.named_parameters()]
    assert names(network.named_buffers()) == BUFFERS
    assert list(network.state_dict()) == NAMES + BUFFERS
    modules = ["", "first", "first.fc", "listed.0", "listed.1", "named.a", "named.drop"]
    assert names(network.named_modules()) == modules


def test_state_dict_order_and_names():
    network = nn.Sequential({"conv1": nn.Conv2d(1, 2, 3), "norm": nn.BatchNorm2d(2), "fc": nn.Linear(4, 3, bias=False)})
    assert list(network.state_dict()) == [
        "conv1.weight", "conv1.bias", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var",
        "norm.num_batches_tracked", "fc.weight",
    ]  # fmt: skip
    assert names(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)).named_parameters()) == [
        "0.weight", "0.bias", "1.weight", "1.bias",
    ]  # fmt: skip


def test_state_dict_round_trip(backend):
    manual_seed(1)
    network, other = Net(), Net()
    for t in network.parameters():
        t.data = t.data + 1
    network(tensor(np.random.default_rng(0).standard_normal((4, 3)).astype("float32")))
    state = network.state_dict()
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        np.testing.assert_array_equal(value, state[name])
        assert value.dtype == state[name].dtype
    for t in [*network.parameters(), *other.parameters()]:  # a state is a copy, both ways
        t.data[...] = 99
    assert not any((value == 99).any() for value in state.values())
    assert other.tied is other.first.fc.weight
    other.double().load_state_dict(state)
    assert other.first.scale.dtype == "float64"  # values are taken, the type stays


def test_load_state_dict_lists_all_misfits_and_changes_nothing():
    network = nn.Sequential({"a": nn.Linear(2, 2), "b": nn.Linear(2, 1)})
    before = network.state_dict()
    state = {"a.weight": np.zeros((2, 2)), "a.bias": np.zeros(3), "b.weight": np.zeros((1, 2)), "c.bias": np.zeros(1)}
    with pytest.raises(ValueError, match="do not fit") as refused:
        network.load_state_dict(state)
    for misfit in ("missing b.bias", "unexpected c.bias", "a.bias is (3,), expected (2,)"):
        assert misfit in str(refused.value)
    assert "weight" not in str(refused.value).split(":", 1)[1].replace("the weights", "")
    for name, value in network.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_train_and_eval_reach_every_part():
    network = Net()
    assert network.eval() is network
    assert not any(m.training for _, m in network.named_modules())
    assert network.train() is network
    assert all(m.training for _, m in network.named_modules())
    network.train(False)
    assert not network.named["drop"].training


def test_conversion_reaches_every_part_but_counters():
    network = Net().double()
    assert {str(t.dtype) for t in network.parameters()} == {"float64"}
    assert [str(t.dtype) for _, t in network.named_buffers()] == ["float64", "float64", "int64"]
    assert network.float().first.scale.dtype == "float32"
    assert network.tied is network.first.fc.weight


def test_zero_grad():
    network = nn.Linear(2, 1)
    network(tensor([[1.0, 2.0]])).sum().backward()
    assert network.weight.grad.numpy().tolist() == [[1, 2]]
    network.zero_grad()
    assert [p.grad for p in network.parameters()] == [None, None]


def test_a_misspelt_attribute_is_an_error():
    with pytest.raises(AttributeError, match="wieght"):
        _ = nn.Linear(2, 2).wieght
    with pytest.raises(NotImplementedError, match=r"Block has no forward\(\)"):
        Block()(1)


def test_errors_name_the_innermost_layer_once():
    network = nn.Sequential({"body": nn.Sequential({"conv1": nn.Conv2d(3, 4, 3), "relu": nn.ReLU()})})
    with pytest.raises(ValueError, match=r"^body\.conv1 \(Conv2d\(3, 4, .*\)\): conv2d: .*channels") as refused:
        network(tensor(np.ones((1, 2, 5, 5), "float32")))
    assert str(refused.value).count("conv1") == 1
    with pytest.raises(ValueError, match=r"^conv2d"):  # called alone, it has no name to give
        network.body.conv1(tensor(np.ones((1, 2, 5, 5), "float32")))


def test_paths_are_those_of_the_network_called():
    seen = []

    class Probe(nn.Module):
        def forward(self, x):
            seen.append(self.path)
            return x

    probe = Probe()
    network = nn.Sequential({"outer": nn.Sequential(nn.ReLU(), probe)})
    x = tensor([1.0])
    network(x)
    network.outer(x)
    probe(x)
    network(x)
    assert seen == ["outer.1", "1", "", "outer.1"]


def test_a_failed_forward_leaves_the_next_one_alone():
    network = nn.Sequential({"fc": nn.Linear(2, 1)})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"^fc "):
            network(tensor([[1.0]]))
    assert network(tensor([[1.0, 2.0]])).shape == (1, 1)


def test_sequential():
    layers = [nn.ReLU(), nn.Flatten()]
    network = nn.Sequential(*layers)
    assert (len(network), network[0], network[-1], network.layers()) == (2, layers[0], layers[1], layers)
    assert repr(network) == "Sequential(\n  (0): ReLU()\n  (1): Flatten()\n)"
    with pytest.raises(TypeError, match="1 is not a Module"):
        nn.Sequential(nn.ReLU(), F.relu)
    with pytest.raises(ValueError, match="cannot be called 'train'"):
        nn.Sequential({"train": nn.ReLU()})


def test_layers_are_their_functions(backend):
    """Each layer passes all of its settings on."""
    x = tensor(np.random.default_rng(1).standard_normal((2, 4, 7, 6)).astype("float32"))
    conv = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 2), groups=2)
    settings = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    pairs = [
        (conv, lambda x: F.conv2d(x, conv.weight, conv.bias, **settings)),
        (nn.MaxPool2d(3, 2, 1, 1, True), lambda x: F.max_pool2d(x, 3, 2, 1, 1, True)),
        (nn.MaxPool2d(2, dilation=2), lambda x: F.max_pool2d(x, 2, dilation=2)),
        (nn.AvgPool2d(3, 2, 1, True, False), lambda x: F.avg_pool2d(x, 3, 2, 1, True, False)),
        (nn.AvgPool2d(2, divisor_override=3), lambda x: F.avg_pool2d(x, 2, divisor_override=3)),
        (nn.LocalResponseNorm(3, 1.0, 0.5, 2.0), lambda x: F.local_response_norm(x, 3, 1.0, 0.5, 2.0)),
        (nn.Flatten(), lambda x: F.flatten(x, 1)),
        (nn.Flatten(0, 2), lambda x: F.flatten(x, 0, 2)),
        (nn.Softmax(1), lambda x: F.softmax(x, 1)),
        (nn.Tanh(), F.tanh),
        (nn.Sigmoid(), F.sigmoid),
        (nn.ReLU(), F.relu),
    ]
    for layer, function in pairs:
        np.testing.assert_array_equal(layer(x).numpy(), function(x).numpy(), err_msg=repr(layer))
    with pytest.raises(ValueError, match="groups=3 must divide"):
        nn.Conv2d(4, 6, 3, groups=3)


def test_dropout_layer():
    layer, x = nn.Dropout(0.5), tensor(np.ones((30, 30), "float32"))
    assert set(np.unique(layer(x).numpy())) == {0, 2}
    assert layer.eval()(x) is x
    with pytest.raises(ValueError, match="Dropout: p"):
        nn.Dropout(-0.1)


# -- batch normalisation ------------------------------------------------------------------
@pytest.mark.parametrize("momentum", [0.1, 0.5, None])
def test_running_statistics(backend, momentum):
    """The variance is unbiased; momentum=None is a plain average of the batches."""
    layer = nn.BatchNorm2d(3, momentum=momentum).double()
    batches = np.random.default_rng(2).standard_normal((4, 5, 3, 2, 2)) * 3 + 1
    mean, var = np.zeros(3), np.ones(3)
    for i, batch in enumerate(batches, 1):
        y = layer(tensor(batch)).numpy()
        np.testing.assert_allclose(y.mean(axis=(0, 2, 3)), 0, atol=1e-12)
        np.testing.assert_allclose(y.var(axis=(0, 2, 3)), 1, rtol=1e-4)
        m = 1 / i if momentum is None else momentum
        mean = (1 - m) * mean + m * batch.mean(axis=(0, 2, 3))
        var = (1 - m) * var + m * batch.var(axis=(0, 2, 3), ddof=1)
        np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
        assert layer.num_batches_tracked.item() == i
    layer.eval()
    before = layer.state_dict()
    found = layer(tensor(batches[0])).numpy()
    expected = (batches[0] - mean[:, None, None]) / np.sqrt(var[:, None, None] + layer.eps)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])  # evaluation does not move them


def test_batch_norm_without_statistics_uses_the_batch():
    layer = nn.BatchNorm1d(2, affine=False, track_running_stats=False).eval()
    assert layer.state_dict() == {}
    y = layer(tensor([[0.0, 5.0], [2.0, 9.0]])).numpy()
    np.testing.assert_allclose(y, [[-1, -1], [1, 1]], rtol=1e-4)


def test_batch_norm_refuses():
    with pytest.raises(ValueError, match="BatchNorm2d takes inputs of 4 dimensions"):
        nn.BatchNorm2d(3)(tensor(np.ones((2, 3), "float32")))
    layer = nn.BatchNorm1d(3)
    with pytest.raises(ValueError, match="more than one value per channel"):
        layer(tensor(np.ones((1, 3), "float32")))
    assert layer.num_batches_tracked.item() == 0
    with no_grad(), pytest.raises(ValueError, match=r"running_mean must have shape \(4,\)"):
        nn.BatchNorm1d(3)(tensor(np.ones((2, 4), "float32")))


# -- initial weights ------------------------------------------------------------------------
SHAPE = (50, 40, 3, 3)  # fan in 360, fan out 450


@pytest.mark.parametrize(
    ("fill", "mean", "std", "bound"),
    [
        (lambda t: init.uniform_(t, -1, 3), 1, 4 / math.sqrt(12), (-1, 3)),
        (lambda t: init.normal_(t, 2, 0.5), 2, 0.5, None),
        (lambda t: init.constant_(t, 7), 7, 0, (7, 7)),
        (init.kaiming_normal_, 0, math.sqrt(2 / 360), None),
        (init.xavier_uniform_, 0, math.sqrt(2 / 810), (-math.sqrt(6 / 810), math.sqrt(6 / 810))),
        (
            lambda t: init._fill(t, init.default(t.shape)),
            0,
            1 / math.sqrt(3 * 360),
            (-1 / math.sqrt(360), 1 / math.sqrt(360)),
        ),
    ],
    ids=["uniform_", "normal_", "constant_", "kaiming_normal_", "xavier_uniform_", "default"],
)
def test_statistics_of_initial_weights(fill, mean, std, bound):
    manual_seed(0)
    t = nn.Parameter(np.zeros(SHAPE, "float32"))
    assert fill(t) is t
    assert t.dtype == "float32"
    values, n = t.numpy().astype("float64"), t.numel()
    assert values.mean() == pytest.approx(mean, abs=5 * std / math.sqrt(n) + 1e-12)
    assert values.std() == pytest.approx(std, rel=5 / math.sqrt(n), abs=1e-12)
    if bound is not None:
        low, high = bound
        assert low - 1e-6 <= values.min() <= low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) <= values.max() <= high + 1e-6
    else:
        assert values.max() > mean + 3 * std  # a bell has tails


def test_fans():
    assert init.fan_in((7, 3)) == 3
    assert init.fan_in(SHAPE) == 360


def test_layers_start_as_pytorch_has_them():
    manual_seed(0)
    for layer, fan_in in ((nn.Linear(100, 200), 100), (nn.Conv2d(8, 64, 5, groups=2), 4 * 25)):
        for t in layer.parameters():
            assert abs(t.numpy()).max() == pytest.approx(1 / math.sqrt(fan_in), rel=0.1)
            assert abs(t.numpy()).max() <= 1 / math.sqrt(fan_in) + 1e-7
    norm = nn.BatchNorm2d(3)
    assert (norm.weight.numpy().tolist(), norm.bias.numpy().tolist()) == ([1] * 3, [0] * 3)


def test_the_same_seed_gives_the_same_weights(backend):
    def weights(seed):
        manual_seed(seed)
        return [p.numpy() for p in nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4)).parameters()]

    first, again, other = weights(1), weights(1), weights(2)
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert (a != c).all()
    assert (first[0] != first[2]).all()  # two layers of one shape differ


def test_initialise():
    network = nn.Sequential({"conv": nn.Conv2d(1, 4, 3), "norm": nn.BatchNorm2d(4), "fc": nn.Linear(4, 2)})
    init.initialise(network, lambda t: init.constant_(t, 3), bias=0.5)
    found = {name: set(p.numpy().reshape(-1).tolist()) for name, p in network.named_parameters()}
    assert (found["conv.weight"], found["fc.weight"]) == ({3}, {3})
    assert (found["conv.bias"], found["fc.bias"]) == ({0.5}, {0.5})
    assert found["norm.weight"] == {1}  # a gain is no weight matrix


def test_a_small_fit(backend):
    """Everything together: a line through four points."""
    manual_seed(0)
    layer, x = nn.Linear(1, 1), tensor([[0.0], [1.0], [2.0], [3.0]])
    optimizer = optim.SGD(layer.parameters(), lr=0.05, momentum=0.9)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(layer(x), 2 * x - 1).backward()
        optimizer.step()
    assert (layer.weight.item(), layer.bias.item()) == pytest.approx((2, -1), abs=1e-3)


def test_a_step_leaves_an_older_tape_its_weights(backend):
    """The gradient of a loss computed before the step is that at the weights of before the step."""
    mine = np.array([1.0, 2.0], "float32")
    p = nn.Parameter(mine)
    first, second = (p * 3).sum(), (p * p).sum()
    for form in ("torch", "paper"):
        optimizer = optim.SGD([p], lr=0.5, momentum=0.9, form=form)
        if form == "torch":
            first.backward()
        optimizer.step()
    p.grad = None
    second.backward()
    assert p.grad.numpy().tolist() == [2.0, 4.0]
    assert mine.tolist() == [1.0, 2.0], "the caller's array stays the caller's"


def test_parameters_in_lists_of_lists_are_found():
    class Deep(nn.Module):
        def __init__(self):
            self.blocks = [[nn.Linear(1, 1)], {"a": (nn.Linear(1, 1),)}]

    assert names(Deep().named_parameters()) == [
        "blocks.0.0.weight", "blocks.0.0.bias", "blocks.1.a.0.weight", "blocks.1.a.0.bias",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.b", ""])
def test_names_that_would_collide_in_paths_are_refused(name):
    with pytest.raises(ValueError, match="cannot name a layer"):
        nn.Sequential({name: nn.ReLU()})


def test_a_numpy_number_for_momentum_keeps_the_statistics_type():
    layer = nn.BatchNorm1d(2, momentum=np.float64(0.1))
    for _ in range(2):
        layer(tensor(np.arange(8.0, dtype="float32").reshape(4, 2)))
    assert layer.running_mean.dtype == layer.running_var.dtype == "float32"


def test_batch_norm_of_an_empty_batch(backend):
    layer = nn.BatchNorm2d(3)
    x = tensor(np.ones((0, 3, 2, 2), "float32"), requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert y.shape == x.grad.shape == (0, 3, 2, 2)
    assert layer.running_mean.numpy().tolist() == [0.0] * 3
    assert layer.weight.grad.numpy().tolist() == [0.0] * 3
