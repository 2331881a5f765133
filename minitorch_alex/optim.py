"""Stochastic gradient descent with momentum and weight decay, and schedules for its learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy

from .nn import Parameter
from .tensor import Tensor

SETTINGS_OF_A_STEP = {
    "torch": ("lr", "momentum", "weight_decay", "dampening", "nesterov"),
    "paper": ("lr", "momentum", "weight_decay"),
}


class SGD:
    """Stochastic gradient descent with momentum.

    g is the gradient, w the weight, v the velocity, e the learning rate, m the momentum, d the weight decay:

        form="torch"   v <- m v + (1 - dampening) (g + d w)      w <- w - e v      (nesterov: e (g + d w + m v);
                       at first v = g + d w)
        form="paper"   v <- m v - d e w - e g                    w <- w + v        (AlexNet, section 5)

    The two agree as long as the learning rate stays the same. They part when it drops: in the paper's form the velocity
    was gathered at the old rate and goes on at it, in PyTorch's it is scaled down at once.

    `params` is an iterable of parameters, or of groups {"params": [...], "lr": ...} with settings of their own:
    AlexNet's code has no decay and twice the rate on biases. Frozen parameters have no gradient, and stay.
    """

    SETTINGS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "form")

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        form: str = "torch",
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "form": form,
        }  # fmt: skip
        if callable(params):
            raise TypeError("SGD: network.parameters() is needed, not the network or the method itself")
        if not isinstance(params, Iterable):
            raise TypeError(f"SGD: an iterable of parameters is needed, not {params!r}")
        entries = list(params)
        if not entries:
            raise ValueError("SGD: there are no parameters to train")
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        if any("params" not in group for group in groups):
            raise ValueError("SGD: every group needs its params")
        self.param_groups = [{**defaults, **group, "params": list(group["params"])} for group in groups]
        for group in self.param_groups:
            _check(group)
        every = [p for group in self.param_groups for p in group["params"]]
        if len(set(every)) < len(every):
            raise ValueError("SGD: a parameter occurs twice")
        self.velocity: dict[Parameter, Any] = {}  # by parameter; an array once it has moved

    def zero_grad(self) -> None:
        """Forget the gradients: backward() adds to what is there."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Move every parameter that has a gradient. A group at learning rate 0 is left alone, decay included."""
        if all(p.grad is None for group in self.param_groups for p in group["params"]):
            raise RuntimeError("SGD.step(): there are no gradients: zero_grad(), loss.backward(), step() is the order")
        for group in self.param_groups:
            if group["lr"] == 0:
                continue
            settings = [group[name] for name in SETTINGS_OF_A_STEP[group["form"]]]
            for p in group["params"]:
                if p.grad is None:
                    continue
                move = p.backend.sgd_paper if group["form"] == "paper" else p.backend.sgd_torch
                p.data, v = move(p.data, p.grad.data, self.velocity.get(p), *settings)
                if v is not None:
                    self.velocity[p] = v

    def state_dict(self) -> dict[str, numpy.ndarray]:
        """The velocities as NumPy arrays by the parameters' number, in the order in which they were given."""
        every = [p for group in self.param_groups for p in group["params"]]
        return {
            str(i): numpy.array(p.backend.to_numpy(self.velocity[p])) for i, p in enumerate(every) if p in self.velocity
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up velocities saved by an optimizer over the same parameters."""
        every = {str(i): p for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        for i, v in state.items():
            if i not in every or tuple(v.shape) != every[i].shape:
                raise ValueError(f"SGD: the saved velocity {i} of shape {tuple(v.shape)} does not fit these parameters")
        self.velocity = {
            every[i]: every[i].backend.asarray(v).astype(every[i].dtype, copy=True) for i, v in state.items()
        }


def _check(group: dict[str, Any]) -> None:
    unknown = set(group) - {*SGD.SETTINGS, "params", "name"}
    if unknown:
        raise ValueError(f"SGD: unknown setting {', '.join(sorted(unknown))}; there are {', '.join(SGD.SETTINGS)}")
    for name in ("lr", "momentum", "weight_decay"):
        if not isinstance(group[name], Real):
            raise TypeError(f"SGD: {name} must be a number, not {group[name]!r}")
        if not group[name] >= 0:
            raise ValueError(f"SGD: {name} must be at least 0, got {group[name]!r}")
    if group["form"] not in ("torch", "paper"):
        raise ValueError(f"SGD: form is 'torch' or 'paper', not {group['form']!r}")
    if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
        raise ValueError("SGD: nesterov needs a momentum and no dampening")
    if group["form"] == "paper" and (group["nesterov"] or group["dampening"]):
        raise ValueError("SGD: the paper's form has neither nesterov nor dampening")
    for p in group["params"]:
        if not isinstance(p, Tensor):
            raise TypeError(f"SGD: only leaves that require a gradient can be trained, got {p!r}")
        if p.made_by != "leaf" or not (p.requires_grad or isinstance(p, Parameter)):  # a frozen one has no gradient
            raise TypeError(
                "SGD: only leaves that require a gradient can be trained, got a tensor of shape "
                f"{p.shape} (requires_grad={p.requires_grad}, made by {p.made_by})"
            )


class MultiStepLR:
    """Multiply the learning rate by gamma at each of the epochs named. Call step() once at the end of every epoch."""

    def __init__(self, optimizer: SGD, milestones: Sequence[int], gamma: float = 0.1) -> None:
        if not isinstance(milestones, Sequence) or not all(isinstance(m, int) for m in milestones):
            raise TypeError(f"MultiStepLR: milestones must be a list of epochs, not {milestones!r}")
        self.optimizer, self.milestones, self.gamma = optimizer, sorted(milestones), gamma
        self.last_epoch = 0

    def step(self, metric: float | None = None) -> None:
        """An epoch has ended. (The metric is for schedules that look at it.)"""
        self.last_epoch += 1
        drops = self.milestones.count(self.last_epoch)
        if drops:
            _scale(self.optimizer, self.gamma**drops)

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, and the rates it has led to."""
        return {"last_epoch": self.last_epoch, **_rates(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.last_epoch = state["last_epoch"]
        _set_rates(self.optimizer, state)


class StepLR(MultiStepLR):
    """Multiply the learning rate by gamma every `step_size` epochs."""

    def __init__(self, optimizer: SGD, step_size: int, gamma: float = 0.1) -> None:
        super().__init__(optimizer, [], gamma)
        if not isinstance(step_size, int):
            raise TypeError(f"StepLR: step_size must be a number of epochs, not {step_size!r}")
        if step_size < 1:
            raise ValueError(f"StepLR: step_size must be at least 1, not {step_size}")
        self.step_size = step_size

    def step(self, metric: float | None = None) -> None:
        """An epoch has ended."""
        self.last_epoch += 1
        if self.last_epoch % self.step_size == 0:
            _scale(self.optimizer, self.gamma)


class ReduceLROnPlateau:
    """Multiply the learning rate by `factor` when the metric has not improved for more than `patience` epochs.

    AlexNet, section 5: divided by 10 whenever the validation error stopped improving, three times in all
    (`max_reductions`; None for no limit). An improvement is a drop by more than the fraction `threshold`.
    """

    def __init__(
        self,
        optimizer: SGD,
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        max_reductions: int | None = None,
    ) -> None:
        if not isinstance(factor, (int, float)):
            raise TypeError(f"ReduceLROnPlateau: factor must be a number, not {factor!r}")
        if not 0 < factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor lies between 0 and 1, got {factor!r}")
        self.optimizer, self.factor, self.patience, self.threshold = optimizer, factor, patience, threshold
        self.max_reductions = max_reductions
        self.best, self.bad_epochs, self.reductions = float("inf"), 0, 0

    def step(self, metric: float) -> None:
        """Tell it this epoch's metric, such as the validation error."""
        if metric < self.best * (1 - self.threshold):
            self.best, self.bad_epochs = metric, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs > self.patience and self.reductions != self.max_reductions:
            _scale(self.optimizer, self.factor)
            self.bad_epochs, self.reductions = 0, self.reductions + 1

    def state_dict(self) -> dict[str, Any]:
        """Where the schedule is, and the rates it has led to."""
        names = ("best", "bad_epochs", "reductions")
        return {**{name: getattr(self, name) for name in names}, **_rates(self.optimizer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.bad_epochs, self.reductions = state["best"], state["bad_epochs"], state["reductions"]
        _set_rates(self.optimizer, state)


def _scale(optimizer: SGD, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] *= factor


def _rates(optimizer: SGD) -> dict[str, Any]:
    return {"lr": [group["lr"] for group in optimizer.param_groups]}


def _set_rates(optimizer: SGD, state: dict[str, Any]) -> None:
    for group, lr in zip(optimizer.param_groups, state["lr"], strict=True):
        group["lr"] = lr
