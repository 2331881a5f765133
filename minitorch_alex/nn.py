"""Layers and networks: objects whose attributes are parameters, buffers, other modules, or lists and dicts of them."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Any, TypeVar

import numpy

from . import functional as F
from . import init
from .array_box import number_type
from .backends.window import Pair
from .functional._arguments import is_whole, pair, probability
from .tensor import Tensor

Self = TypeVar("Self", bound="Module")


class Parameter(Tensor):
    """A tensor that the optimizer may change."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True) -> None:
        super().__init__(data.data if isinstance(data, Tensor) else data, requires_grad=requires_grad)


class Buffer(Tensor):
    """A tensor that belongs to the module's state but is not trained: running statistics."""

    __slots__ = ()


class _Calling(threading.local):
    """Whether this thread is inside a network's forward pass; and that network, until its modules know their paths."""

    inside = False
    unnamed: Module | None = None


_call = _Calling()


def _flattened(prefix: str, pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    """The (name, value) pairs with the prefix before each name, and what is in a list, tuple or dict in its place."""
    for name, value in pairs:
        if isinstance(value, (list, tuple, dict)):
            inside = value.items() if isinstance(value, dict) else enumerate(value)
            yield from _flattened(f"{prefix}{name}.", inside)
        else:
            yield f"{prefix}{name}", value


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    meant = get_close_matches(name, known, n=1)
    return f": did you mean {meant[0]!r}?" if meant else ""


class Module:
    """Base of all layers and networks. Write __init__ and forward; everything else looks at the attributes.

    Parameters, buffers and modules are found as attributes, and in lists, tuples and dicts that are attributes; not in
    sets or objects of other classes.
    """

    training = True
    _path = ""

    @property
    def path(self) -> str:
        """Where it stands in the network being called, such as "features.conv1": names its dropout masks and errors."""
        if _call.unnamed is not None:  # the first in this forward pass to ask
            for path, module in _call.unnamed.named_modules():
                module._path = path
            _call.unnamed = None
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path = path

    def __init__(self, *inputs: Any) -> None:
        if inputs:  # ReLU(x)
            name = type(self).__name__
            raise TypeError(f"{name} takes no settings: {name}() makes it, and {name}()(x) calls it")
        super().__init__()

    def forward(self, *inputs: Any) -> Any:
        """What it computes. Called by calling the module."""
        meant = _did_you_mean("forward", vars(type(self)))
        raise NotImplementedError(f"{type(self).__name__} has no forward(){meant or ': define what it computes'}")

    def __call__(self, *inputs: Any) -> Any:
        if not _call.inside:
            return self._first_call(*inputs)
        try:
            return self.forward(*inputs)
        except (ValueError, TypeError, IndexError) as error:
            if not hasattr(error, "layer"):  # the innermost layer signs it
                self._sign(error, inputs)
            raise

    def _first_call(self, *inputs: Any) -> Any:
        """The call of the whole network; those of its modules come from inside."""
        _call.inside, _call.unnamed = True, self
        try:
            return self(*inputs)
        finally:
            _call.inside, _call.unnamed = False, None

    def _sign(self, error: Exception, inputs: tuple[Any, ...]) -> None:
        """Have an error say in which layer it came up; and what to write, if a layer came in place of a tensor."""
        given = next((type(x).__name__ for x in inputs if isinstance(x, Module)), None)
        if given:
            error.args = (f"{error} ({given} is a layer, which is to be called: {given}(...)(x))",)
        if self.path:
            error.args = (f"{self.in_words()}: {error}",)
            error.layer = self.path  # type: ignore[attr-defined]

    def in_words(self) -> str:
        """Path and settings, in one line; of a module that holds others, its class."""
        what = type(self).__name__ if any(isinstance(m, Module) for _, m in self.members()) else repr(self)
        return f"{self.path} ({what})" if self.path else what

    def __getattr__(self, name: str) -> Any:
        """What Python calls for an attribute that is not there."""
        if hasattr(type(self), name):  # it is a property, in which something else is not there: it is to say what
            return object.__getattribute__(self, name)
        known = [*vars(self), *(n for n in dir(type(self)) if n[0] != "_")]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{_did_you_mean(name, known)}")

    # -- what it is made of ---------------------------------------------------
    def members(self) -> Iterator[tuple[str, Any]]:
        """(name, value) of every attribute in definition order, lists and dicts flattened to name.0, name.key, ..."""
        return _flattened("", vars(self).items())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and every one inside it, by path."""
        yield prefix, self
        for name, value in self.members():
            if isinstance(value, Module):
                yield from value.named_modules(f"{prefix}.{name}" if prefix else name)

    def _named(self, *kinds: type[Tensor]) -> Iterator[tuple[str, Tensor]]:
        seen = set()
        for path, module in self.named_modules():
            for name, value in module.members():
                place = f"{path}.{name}" if path else name
                if isinstance(value, kinds) and value not in seen:
                    seen.add(value)  # a shared parameter counts once
                    yield place, value
                elif type(value) is Tensor and value.requires_grad and value.made_by == "leaf":
                    raise TypeError(
                        f"{type(module).__name__}: {place} requires a gradient and is no Parameter, so that nothing "
                        "would train it: make it an nn.Parameter, or detach() it"
                    )

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(path, parameter) for each parameter, in definition order."""
        yield from self._named(Parameter)  # type: ignore[misc]

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter, in definition order."""
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """(path, buffer) for each buffer, in definition order."""
        yield from self._named(Buffer)  # type: ignore[misc]

    # -- changing it ----------------------------------------------------------
    def train(self: Self, mode: bool = True) -> Self:
        """Training mode: dropout drops, batch norm looks at the batch. Returns itself."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Evaluation mode. Returns itself.

        That it was forgotten cannot be noticed, since dropout may be wanted where nothing is learnt. `with
        evaluating(network):` (minitorch_alex.watch) is eval(), no_grad() and the way back in one.
        """
        return self.train(False)

    def to(self: Self, dtype: Any) -> Self:
        """Convert every floating-point parameter and buffer, in place. Returns itself."""
        if number_type("Module.to", dtype).kind != "f":
            raise TypeError(f"Module.to: {dtype} cannot be trained: use float32 or float64")
        for _, t in self._named(Parameter, Buffer):
            if t.data.dtype.kind == "f":
                t.data = t.data.astype(dtype)
        return self

    def float(self: Self) -> Self:
        return self.to("float32")

    def double(self: Self) -> Self:
        return self.to("float64")

    def zero_grad(self) -> None:
        for parameter in self.parameters():
            parameter.grad = None

    # -- saving it --------------------------------------------------------------
    def state_dict(self) -> dict[str, numpy.ndarray]:
        """Copies of all parameters and buffers as NumPy arrays by path: what one backend saves, any other loads."""
        return {name: numpy.array(t.numpy()) for name, t in self._named(Parameter, Buffer)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the values from `state`. It must fit exactly: otherwise nothing changes and all misfits are listed."""
        if not isinstance(state, dict):
            raise TypeError(f"load_state_dict: a dict of arrays by path is needed, not {state!r}")
        mine = dict(self._named(Parameter, Buffer))
        misfits = [f"missing {name}" for name in mine if name not in state]
        misfits += [f"unexpected {name}" for name in state if name not in mine]
        for name, t in mine.items():
            if name in state:
                shape, dtype = getattr(state[name], "shape", None), getattr(state[name], "dtype", None)
                if shape != t.shape:
                    misfits.append(f"{name} is {shape}, expected {t.shape}")
                elif dtype is None or dtype.kind not in "fiub":
                    misfits.append(f"{name} is {dtype}, expected {t.dtype}")
        if misfits:
            raise ValueError("load_state_dict: the weights do not fit this network: " + "; ".join(misfits))
        for name, t in mine.items():
            value = state[name]
            t.data = t.backend.asarray(value.numpy() if isinstance(value, Tensor) else value).astype(t.dtype, copy=True)

    # -- showing it -------------------------------------------------------------
    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        """How many it takes to make an output of this shape, without the batch. Layers with weights know theirs."""
        return 0

    def extra_repr(self) -> str:
        """The settings to show between the brackets of its repr."""
        return ""

    def __repr__(self) -> str:
        inside = [(name, m) for name, m in self.members() if isinstance(m, Module)]
        if not inside:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [f"  ({name}): " + repr(m).replace("\n", "\n  ") for name, m in inside]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


class Sequential(Module):
    """Modules one after another: Sequential(a, b, ...) names them 0, 1, ...; Sequential({"conv1": a, ...}) as given."""

    def __init__(self, *layers: Any) -> None:
        only = layers[0] if len(layers) == 1 else None
        named = only if isinstance(only, dict) else dict(enumerate(layers))
        for name, layer in named.items():
            if isinstance(layer, type):
                raise TypeError(f"Sequential: {name} is the class {layer.__name__}, and {layer.__name__}(...) a layer")
            if not isinstance(layer, Module):
                raise TypeError(f"Sequential: {name} is not a Module but {type(layer).__name__}")
            if not str(name) or "." in str(name):
                raise ValueError(f"Sequential: {name!r} cannot name a layer, since names are joined by dots in paths")
            if hasattr(self, str(name)):
                raise ValueError(
                    f"Sequential: a layer cannot be called {name!r}, Module already has something of that name"
                )
            setattr(self, str(name), layer)

    def named_layers(self) -> dict[str, Module]:
        """The modules by name, in order."""
        return {name: layer for name, layer in self.members() if isinstance(layer, Module)}

    def layers(self) -> list[Module]:
        """The modules in order."""
        return [layer for _, layer in self.members() if isinstance(layer, Module)]

    def forward(self, x: Any) -> Any:
        for layer in self.layers():
            x = layer(x)
        return x

    def __getitem__(self, index: int) -> Module:
        return self.layers()[index]

    def __len__(self) -> int:
        return len(self.layers())


def _check_sizes(layer: str, **sizes: Any) -> None:
    for name, size in sizes.items():
        if not is_whole(size):
            raise TypeError(f"{layer}: {name} must be a whole number, not {size!r}")
        if size < 0:
            raise ValueError(f"{layer}: {name} must be at least 0, not {size}")


class Linear(Module):
    """y = x w^T + b: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        _check_sizes("Linear", in_features=in_features, out_features=out_features)
        self.in_features, self.out_features = in_features, out_features
        self.weight = Parameter(init.default((out_features, in_features)))
        self.bias = Parameter(init.default((out_features,), fan_in=in_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape) * self.in_features

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}" + ("" if self.bias is not None else ", bias=False")


class Conv2d(Module):
    """Convolution, see functional.conv2d: (N, in_channels, H, W) -> (N, out_channels, P, Q)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair | str = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        _check_sizes("Conv2d", in_channels=in_channels, out_channels=out_channels, groups=groups)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"Conv2d: groups={groups} must divide both {in_channels} channels and {out_channels} filters"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = pair("Conv2d", "kernel_size", kernel_size, 1)
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups
        self.weight = Parameter(init.default((out_channels, in_channels // groups, *self.kernel_size)))
        fan_in = init.fan_in(self.weight.shape)
        self.bias = Parameter(init.default((out_channels,), fan_in=fan_in)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)

    def multiply_accumulates(self, output_shape: tuple[int, ...]) -> int:
        return math.prod(output_shape) * init.fan_in(self.weight.shape)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        for name, usual in (("padding", 0), ("dilation", 1), ("groups", 1)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)!r}"
        return text + ("" if self.bias is not None else ", bias=False")


class MaxPool2d(Module):
    """The largest value of each window, see functional.max_pool2d."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        *,
        ties: str = "first",
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode, self.ties = padding, dilation, ceil_mode, ties

    def forward(self, x: Tensor) -> Tensor:
        window = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
        return F.max_pool2d(x, *window, ties=self.ties)

    def extra_repr(self) -> str:
        window = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return f"{window}, ceil_mode={self.ceil_mode}" + ("" if self.ties == "first" else f", ties={self.ties!r}")


class AvgPool2d(Module):
    """The mean of each window, see functional.avg_pool2d."""

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, x: Tensor) -> Tensor:
        counting = (self.count_include_pad, self.divisor_override)
        return F.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, *counting)

    def extra_repr(self) -> str:
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"
        )


class AdaptiveAvgPool2d(Module):
    """Means over windows chosen so that the output has a given size, see functional.adaptive_avg_pool2d."""

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class ZeroPad2d(Module):
    """Zeros around the image: (left, right, top, bottom) of them, or as many on every side."""

    def __init__(self, padding: int | tuple[int, int, int, int]) -> None:
        self.padding = padding if isinstance(padding, tuple) else (padding, padding, padding, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.padding)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class LocalResponseNorm(Module):
    """Each channel divided by its neighbours' energy, see functional.local_response_norm."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: Tensor) -> Tensor:
        return F.local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class _BatchNorm(Module):
    """Running statistics and settings for functional.batch_norm.

    momentum=None keeps a plain average of all batches instead of a moving one.
    """

    dims: tuple[int, ...]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        _check_sizes(type(self).__name__, num_features=num_features)
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.weight = Parameter(numpy.ones(num_features, "float32")) if affine else None
        self.bias = Parameter(numpy.zeros(num_features, "float32")) if affine else None
        self.running_mean = Buffer(numpy.zeros(num_features, "float32")) if track_running_stats else None
        self.running_var = Buffer(numpy.ones(num_features, "float32")) if track_running_stats else None
        self.num_batches_tracked = Buffer(numpy.zeros((), "int64")) if track_running_stats else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim not in self.dims:
            raise ValueError(
                f"{type(self).__name__} takes inputs of {' or '.join(map(str, self.dims))} dimensions, got {x.shape}"
            )
        momentum = self.momentum
        if self.training and self.num_batches_tracked is not None and momentum is None:
            momentum = 1 / (int(self.num_batches_tracked) + 1)  # the only case in which a GPU is waited for
        out = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or self.running_mean is None, momentum or 0.0, self.eps,
        )  # fmt: skip
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.data = self.num_batches_tracked.data + 1
        return out

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L), see functional.batch_norm."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W), see functional.batch_norm."""

    dims = (4,)


class Dropout(Module):
    """Units switched off with probability p while training, see functional.dropout. Each layer has its own stream."""

    def __init__(self, p: float = 0.5, *, form: str = "torch") -> None:
        self.p, self.form = probability("Dropout", p), form

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, stream=self.path or "dropout", form=self.form)

    def extra_repr(self) -> str:
        return f"p={self.p}" + ("" if self.form == "torch" else f", form={self.form!r}")


class ReLU(Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Tanh(Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.tanh(x)


class Sigmoid(Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.sigmoid(x)


class Softmax(Module):
    """Scores to probabilities along `dim`. Not before cross_entropy, which contains it."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return F.softmax(x, self.dim)

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Flatten(Module):
    """(N, ...) -> (N, everything else)."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return F.flatten(x, self.start_dim, self.end_dim)
