"""What the property tests share: how often a property is tried, arrays in every memory layout, what must agree.

    python -m pytest tests/test_properties_*.py                                a few examples, the same ones every time
    MINITORCH_ALEX_EXAMPLES=5000 python -m pytest tests/test_properties_*.py   so many of each, others every time

Most numbers are small whole ones: their products and sums are exact in float32 too, in any order, so that results must
be equal and not just close. Where there are divisions, roots and exponentials, the tests say what rounding may do.
"""

import contextlib
import functools
import os
from unittest import mock

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from minitorch_alex import Tensor, backends
from minitorch_alex.backends import numba_convolution, thread_pool

WANTED = os.environ.get("MINITORCH_ALEX_EXAMPLES", "")
NAMES = ["numpy", "numba", "cuda_on_cpu"]
LAYOUTS = [
    "as NumPy makes them",
    "column-major",
    "first and last axis swapped",
    "backwards",
    "gaps",
    "the first row repeated",
    "the first column repeated",
    "unaligned",
    "read-only",
]
layouts, seeds, dtypes = st.sampled_from(LAYOUTS), st.integers(0, 999), st.sampled_from(["float32", "float64"])


def examples(few):
    """How often a property is tried: `few` times, or as often as MINITORCH_ALEX_EXAMPLES says. Kernels may have to be
    compiled on the way, so no example has a deadline."""
    return settings(
        max_examples=int(WANTED or few),
        derandomize=not WANTED,
        database=None,
        print_blob=bool(WANTED),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


@functools.cache
def every_backend():
    """Those that can be used here and need no GPU."""
    return [backends.get(name) for name in NAMES if backends.why_not(name) is None]


@contextlib.contextmanager
def shared_out(threads):
    """However small, work is shared out over so many threads, and goes through their buffers one image at a time."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(thread_pool, "WORTH_SHARING", 0))
        stack.enter_context(mock.patch.object(numba_convolution, "CACHE_BYTES", 1))
        for backend in every_backend():
            if hasattr(backend, "pool"):
                stack.enter_context(mock.patch.object(backend.pool, "threads", threads))
        yield


def whole_numbers(random, shape, dtype, most=4):
    """From -most to most."""
    return np.asarray(random.integers(-most, most + 1, shape), dtype)


def laid_out(a, layout):
    """The same numbers (but for the repeated ones) in another memory layout."""
    if layout == "read-only":
        a = a.copy()
        a.flags.writeable = False
    elif layout == "unaligned":
        memory = np.zeros(a.nbytes + 1, "uint8")
        unaligned = memory[1:].view(a.dtype).reshape(a.shape)
        unaligned[...] = a
        return unaligned
    elif not a.size or not a.ndim:
        return a
    elif layout == "column-major":
        return np.asfortranarray(a)
    elif layout == "first and last axis swapped":
        return np.ascontiguousarray(a.swapaxes(0, -1)).swapaxes(0, -1)
    elif layout == "backwards":
        turned = (slice(None, None, -1),) * a.ndim
        return a[turned].copy()[turned]
    elif layout == "gaps":
        memory = np.zeros([2 * n for n in a.shape], a.dtype)
        apart = memory[(slice(None, None, 2),) * a.ndim]
        apart[...] = a
        return apart
    elif layout == "the first row repeated":
        return np.broadcast_to(a[:1], a.shape)
    elif layout == "the first column repeated":
        return np.broadcast_to(a[..., :1], a.shape)
    return a


def evaluate(backend, f, inputs, gy):
    """f(*tensors), and what the cotangent gy makes of each input's gradient, as NumPy arrays. None stays None."""
    tensors = [
        None if a is None else Tensor(a, backend=backend, requires_grad=np.asarray(a).dtype.kind == "f") for a in inputs
    ]
    y = f(*tensors)
    if y.requires_grad:
        y.backward(gy)
    return y.numpy(), [None if t is None or t.grad is None else t.grad.numpy() for t in tensors]


def agree(found, expected, dtype, tolerance, what):
    """Two arrays are of the same shape, the first of this dtype, and no further apart than the tolerance."""
    expected = np.asarray(expected)
    assert found.shape == expected.shape, f"{what}: shape {found.shape}, not {expected.shape}"
    assert found.dtype == dtype, f"{what}: {found.dtype}, not {dtype}"
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance, err_msg=what)


def gradients_by_steps(f, inputs, gy):
    """The gradient of each input of f from the cotangent gy, of a function f of complex numbers that has a formula.

    f(x + ih) = f(x) + ih f'(x) + ..., so the imaginary part over h is the slope. Nothing is subtracted, so h may be
    tiny, and the slope is exact to rounding.
    """
    h, found = 1e-30, []
    for i, a in enumerate(inputs):
        gradient = np.zeros(a.shape)
        for place in np.ndindex(a.shape):
            moved = [b.astype(complex) for b in inputs]
            moved[i][place] += 1j * h
            gradient[place] = (np.imag(f(*moved)) * gy).sum() / h
        found.append(gradient)
    return found


def outcome(backend, f):
    """What f(backend) comes to: the shape of the result, or the error's type and words."""
    try:
        return f(backend).shape
    except Exception as error:
        return type(error).__name__, str(error)


def refused_everywhere(name, f, reason):
    """f(backend) is refused in the same words on every backend if there is a reason, and accepted if there is none."""
    outcomes = {backend.name: outcome(backend, f) for backend in every_backend()}
    first = next(iter(outcomes.values()))
    assert all(other == first for other in outcomes.values()), outcomes
    refused = len(first) == 2 and isinstance(first[0], str)
    assert refused == bool(reason), f"{outcomes}, expected {reason or 'no refusal'}"
    if refused:
        kind, words = first
        assert kind in ("ValueError", "TypeError", "IndexError"), first
        assert words.startswith(name), first


def changed(legal, changes):
    """Legal settings of which one or two are drawn again."""
    names = st.sets(st.sampled_from(sorted(changes)), min_size=1, max_size=2)
    drawn = names.flatmap(lambda names: st.fixed_dictionaries({name: changes[name] for name in names}))
    return drawn.map(lambda new: legal | new)


def near(*legal):
    """Shapes of which most sizes are the legal ones; or any of up to five dimensions."""
    sizes = (st.sampled_from([n, n, 0, 1, n + 1]) for n in legal)
    return st.tuples(*sizes) | st.lists(st.integers(0, 3), max_size=5).map(tuple)
