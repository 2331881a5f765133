"""A strict stand-in for CuPy, so that the whole backend `cupy` runs without a GPU: NumPy behind CuPy's manners.

What CuPy refuses is refused: to mix its arrays with NumPy's, functions and arguments that it does not have. What waits
for the GPU is counted (`waits`). Memory that nobody has written holds NaN. A kernel is the text that a GPU would
compile, compiled by g++ instead (minitorch_alex.cuda_on_cpu). A test compares FUNCTIONS, UFUNCS and METHODS with CuPy
itself, where that is installed.

Streams run as late as they may (or, `Stream.eager`, as early), and who does not wait for them is caught. It tells
nothing about speed, or about the rounding of cuBLAS.

    with cupy_stand_in.installed():
        backends.use("cupy")
"""

import contextlib
import importlib
import importlib.machinery
import inspect
import itertools
import sys
import time
import types

import ml_dtypes
import numpy as np

from minitorch_alex import backends, cuda_on_cpu

__version__ = "14.2.0"
BACKEND, TRANSFER = "minitorch_alex.backends.cupy_backend", "minitorch_alex.backends.cupy_transfer"
# The functions that the backend may use, with the parameters that CuPy gives them (of ufuncs: their inputs).
FUNCTIONS = {
    "arange": "start, stop, step, dtype",
    "ascontiguousarray": "a, dtype",
    "broadcast_to": "array, shape",
    "clip": "a, a_min, a_max, out",
    "concatenate": "tup, axis, out, dtype, casting",
    "copyto": "dst, src, casting, where",
    "expand_dims": "a, axis",
    "full": "shape, fill_value, dtype, order",
    "moveaxis": "a, source, destination",
    "ones": "shape, dtype, order",
    "ones_like": "a, dtype, order, subok, shape",
    "pad": "array, pad_width, mode, kwargs",
    "repeat": "a, repeats, axis",
    "searchsorted": "a, v, side, sorter",
    "sort": "a, axis",
    "stack": "tup, axis, out, dtype, casting",
    "swapaxes": "a, axis1, axis2",
    "take_along_axis": "a, indices, axis",
    "tensordot": "a, b, axes",
    "zeros": "shape, dtype, order",
    "zeros_like": "a, dtype, order, subok, shape",
}
UFUNCS = (  # noqa: SIM905
    "abs absolute add bitwise_and bitwise_or bitwise_xor divide equal exp floor_divide greater greater_equal invert "
    "isfinite isinf isnan less less_equal log logical_and logical_not logical_or logical_xor maximum minimum multiply "
    "negative not_equal positive power remainder sign sqrt square subtract tanh true_divide"
).split()
METHODS = {
    "all": "axis, out, keepdims",
    "any": "axis, out, keepdims",
    "argmax": "axis, out, dtype, keepdims",
    "argmin": "axis, out, dtype, keepdims",
    "astype": "dtype, order, casting, subok, copy",
    "copy": "order",
    "cumsum": "axis, dtype, out",
    "fill": "value",
    "max": "axis, out, keepdims",
    "mean": "axis, dtype, out, keepdims",
    "min": "axis, out, keepdims",
    "prod": "axis, dtype, out, keepdims",
    "ravel": "order",
    "repeat": "repeats, axis",
    "reshape": "shape, order",
    "squeeze": "axis",
    "std": "axis, dtype, out, ddof, keepdims",
    "sum": "axis, dtype, out, keepdims",
    "swapaxes": "axis1, axis2",
    "take": "indices, axis, out",
    "transpose": "axes",
    "var": "axis, dtype, out, ddof, keepdims",
    "view": "dtype, type",
}
TAKES_MANY = ("reshape", "transpose")  # as x.reshape(2, 3)
launched: list[str] = []  # the kernels
waits: list[str] = []  # what has waited for the GPU since someone cleared the list: function and line


def _wait(what):
    frame = sys._getframe(2)
    while frame.f_code.co_filename == __file__:
        frame = frame.f_back
    waits.append(f"{what} in {frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}")


def _host(value, where):
    """What NumPy computes with: the arrays inside ours. Arrays of NumPy itself are refused."""
    if isinstance(value, ndarray):
        value._touch()
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}: {where} of CuPy was given an array of NumPy")
    if isinstance(value, (list, tuple)):
        return type(value)(_host(one, where) for one in value)
    return value


def _device(value, of=()):
    """NumPy's result as ours; one that is a view of an input knows whose."""
    if isinstance(value, (list, tuple)):
        return type(value)(_device(one, of) for one in value)
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    value = np.asarray(value)  # a sum is an array without dimensions in CuPy, and no number
    owner = next((one for one in of if value.size and np.may_share_memory(value, one._host)), None)
    return ndarray._of(value, None if owner is None else owner if owner.base is None else owner.base)


def _arrays(values):
    for value in values:
        if isinstance(value, ndarray):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _arrays(value)


def _call(function, arguments, settings, where, *others):
    result = function(*_host(arguments, where), **{k: _host(v, where) for k, v in settings.items()})
    if isinstance(settings.get("out"), ndarray):
        return settings["out"]
    return _device(result, tuple(_arrays((*others, *arguments, *settings.values()))))


def _check(where, parameters, settings):
    unknown = set(settings) - set(parameters.split(", "))
    if unknown and "kwargs" not in parameters:
        raise TypeError(f"CuPy's {where}() got an unexpected keyword argument {sorted(unknown)[0]!r}")


class Flags:
    def __init__(self, host):
        self.c_contiguous, self.f_contiguous = host.flags.c_contiguous, host.flags.f_contiguous
        self.owndata = host.flags.owndata


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801, since CuPy calls it so
    """An array on the GPU, so to speak."""

    __hash__ = None

    def __init__(self, shape, dtype=float):
        host = np.empty(shape, dtype)
        host.reshape(-1).view("uint8")[...] = 0xFF  # a NaN, or a very wrong number
        self._host, self.base = host, None
        self._touch()
        stock.take(host.nbytes)

    @classmethod
    def _of(cls, host, base=None):
        made = object.__new__(cls)
        made._host, made.base = host, base
        if base is None:
            made._touch()
            stock.take(host.nbytes)
        return made

    def _touch(self):
        """Something is computed with it, or with memory that it has now, in the null stream."""
        NULL.now += 1
        (self if self.base is None else self.base)._touched = NULL.now

    def __del__(self):
        if getattr(self, "base", self) is None:
            stock.used -= self._host.nbytes

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    nbytes = property(lambda self: self._host.nbytes)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: Flags(self._host))
    T = property(lambda self: _device(self._host.T, (self,)))

    def __array__(self, *_, **__):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_function__(self, function, *_):
        raise TypeError(f"numpy.{function.__name__} was given an array of CuPy: call CuPy's own function")

    def __array_ufunc__(self, ufunc, method, *inputs, **settings):
        inside = sys._getframe(1).f_globals.get("__name__") == np.lib.mixins.__name__
        if method != "__call__" or not (inside or settings.pop("_ours", False)):
            raise TypeError(f"numpy.{ufunc.__name__} was given an array of CuPy: call CuPy's own function")
        return _ufunc(ufunc.__name__, ufunc, inputs, settings)

    def __matmul__(self, other):
        return matmul(self, other)

    def __rmatmul__(self, other):
        return matmul(other, self)

    def __getitem__(self, index):
        _wait_for_a_mask(index)
        return _device(self._host[self._wrapped(_index(index))], (self,))

    def _wrapped(self, index):
        """An index array that goes too far begins again at the start."""
        parts, axis, found = index if isinstance(index, tuple) else (index,), 0, []
        taken = sum(_axes(part) for part in parts)
        for part in parts:
            if isinstance(part, np.ndarray) and part.dtype.kind in "iu" and axis < self.ndim and self.shape[axis]:
                part = part % self.shape[axis]
            axis += self.ndim - taken if part is Ellipsis else _axes(part)
            found.append(part)
        return tuple(found)

    def __setitem__(self, index, value):
        if isinstance(value, np.ndarray):
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if isinstance(value, (list, tuple)):
            raise TypeError("a list cannot be used for fill")
        self._host[_index(index)] = _host(value, "assignment")

    def get(self, stream=None, order="C", out=None, blocking=True):
        _wait("get()")
        self._touch()
        if out is None:
            return self._host.copy(order)
        if not out.flags.c_contiguous or out.shape != self.shape or out.dtype != self.dtype:
            raise ValueError("get(): out is of another shape or type")
        out[...] = self._host
        return out

    def set(self, arr, stream=None):
        if not isinstance(arr, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if arr.shape != self.shape or arr.dtype != self.dtype:
            raise ValueError(f"Shape or dtype mismatch: {arr.shape} {arr.dtype} to {self.shape} {self.dtype}")
        if not arr.flags.c_contiguous or not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        if stream is None or stream.null:
            self._host[...] = arr
        else:
            if (self if self.base is None else self.base)._touched > stream.knows:
                raise RuntimeError("a stream overwrites an array with which another may still compute")
            stream.put(lambda: self._host.__setitem__(..., arr))

    def item(self):
        _wait("item()")
        return self._host.item()

    def __bool__(self):
        _wait("bool()")
        return bool(self._host)

    def __float__(self):
        _wait("float()")
        return float(self._host)

    def __int__(self):
        _wait("int()")
        return int(self._host)

    def __index__(self):
        _wait("index()")
        return self._host.__index__()

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        return repr(self._host)

    def __getattr__(self, name):
        if name not in METHODS:
            raise AttributeError(f"the stand-in for CuPy has no ndarray.{name}: if CuPy has it, add it to METHODS")

        def method(*arguments, **settings):
            _check(name, METHODS[name], settings)
            if name not in TAKES_MANY and len(arguments) > len(METHODS[name].split(", ")):
                raise TypeError(f"CuPy's ndarray.{name}() takes fewer arguments")
            if name == "astype" and not settings.get("copy", True) and self.dtype == np.dtype(*arguments):
                return self
            return _call(getattr(self._host, name), arguments, settings, f"ndarray.{name}", self)

        return method


def _index(index):
    """As CuPy does, arrays of NumPy and lists in an index are copied to the GPU."""
    return tuple(_index(one) for one in index) if isinstance(index, tuple) else getattr(index, "_host", index)


def _axes(part):
    if part is None or part is Ellipsis:
        return 0
    return part.ndim if str(getattr(part, "dtype", "")) == "bool" else 1


def _wait_for_a_mask(index):
    for one in index if isinstance(index, tuple) else (index,):
        if str(getattr(one, "dtype", "")) == "bool" and one.ndim:
            _wait("counting what a mask lets through")


# -- functions ----------------------------------------------------------------------
def array(obj, dtype=None, copy=True, order="K", subok=False, ndmin=0, *, blocking=False):
    if not isinstance(obj, ndarray):
        given = np.asarray(obj, dtype)
        if given.dtype.char not in "?bhilqBHILQefdFD" and given.dtype != ml_dtypes.bfloat16:
            raise ValueError(f"Unsupported dtype {given.dtype}")
    return _device(np.array(getattr(obj, "_host", obj), dtype=dtype, copy=True, order=order, ndmin=ndmin))


def asarray(a, dtype=None, order=None, *, copy=None, blocking=False):
    if isinstance(a, ndarray) and (dtype is None or a.dtype == np.dtype(dtype)) and not copy:
        return a
    return array(a, dtype, order=order or "K")


def asnumpy(a, stream=None, order="C", out=None, *, blocking=True):
    return a.get() if isinstance(a, ndarray) else np.asarray(a, order=order)


def empty(shape, dtype=float, order="C"):
    return ndarray(shape, dtype)


def empty_like(prototype, dtype=None, order="K", subok=None, shape=None):
    return ndarray(prototype.shape if shape is None else shape, dtype or prototype.dtype)


def matmul(*args, axes=None, axis=None, keepdims=False, casting="same_kind", dtype=None, signature=None, order="K",
           out=None):  # fmt: skip
    """Of bfloat16 with sums in float32, as cuBLAS does."""
    a, b = _host(args, "matmul")
    if a.dtype == b.dtype == ml_dtypes.bfloat16:
        if a.ndim != 2 or b.ndim != 2:
            raise TypeError("CuPy's matmul of bfloat16 is for two dimensions")
        result = (a.astype("float32") @ b.astype("float32")).astype(a.dtype)
    else:
        result = a @ b
    if out is not None:
        out._host[...] = result
        return out
    return _device(result)


def dot(a, b, out=None):
    if out is None:
        return matmul(a, b)
    if out.dtype != np.result_type(a.dtype, b.dtype):
        raise ValueError("Not supported dtype combination.")
    if not out.flags.c_contiguous:
        raise ValueError("Output array must be C-contiguous")
    return matmul(a, b, out=out)


def where(condition, x=None, y=None):
    if (x is None) != (y is None):
        raise ValueError("Must provide both 'x' and 'y' or neither.")
    condition = condition.astype("?")  # True and False have no such method
    for value in (x, y):
        if not isinstance(value, (ndarray, bool, int, float, np.generic)):
            raise TypeError(f"Unsupported type {type(value)}")
    return _call(np.where, (condition, x, y), {}, "where")


def _ufunc(name, function, inputs, settings):
    if name not in UFUNCS and name != "matmul":
        raise AttributeError(f"the stand-in for CuPy has no {name}: if CuPy has it, add it to UFUNCS")
    _check(name, "out, casting, dtype", settings)
    outs = settings.get("out")
    if isinstance(outs, tuple):
        settings["out"] = outs[0]
    return _call(function, inputs, settings, name)


def _offered(name):
    if name in FUNCTIONS:

        def function(*arguments, **settings):
            _check(name, FUNCTIONS[name], settings)
            return _call(getattr(np, name), arguments, settings, name)

    else:

        def function(*arguments, **settings):
            return _ufunc(name, getattr(np, name), arguments, settings)

    function.__name__ = name
    return function


def __getattr__(name):
    if name in FUNCTIONS or name in UFUNCS:
        return _offered(name)
    constant = getattr(np, name, None)
    if isinstance(constant, (type, float)):  # float32, inf, ...
        return constant
    raise AttributeError(f"the stand-in for CuPy has no cupy.{name}: if CuPy has it, add it to FUNCTIONS")


class RawModule:
    """A file of kernels. Compiled when the first of them is asked for, as in CuPy."""

    def __init__(self, code=None, *, options=(), name_expressions=None):
        if not isinstance(options, tuple):
            raise TypeError("options must be a tuple")
        if '#include "' in code:
            raise ValueError("NVRTC would not find what is included")
        self._module, self._names = cuda_on_cpu.load(code, name_expressions), list(name_expressions)

    def get_function(self, name):
        if name not in self._names:
            raise KeyError(name)
        function = self._module.get_function(name)

        def launch(grid, block, args, *, shared_mem=0):
            launched.append(name)
            function(grid, block, [_host(one, name) for one in args], shared_mem=shared_mem)

        return launch


class CUDARuntimeError(RuntimeError):
    pass


def _properties(device):
    return {"name": b"a stand-in", "major": 9, "minor": 0}


class Device:
    id = 0
    compute_capability = "90"
    mem_info = (8 << 30, 16 << 30)  # bytes: free, and in all


class Stream:
    """What is put into it waits until somebody waits for it. (With `eager` it is done at once.)

    What is computed, is computed at once, in the null stream.
    """

    eager = False

    def __init__(self, non_blocking=False, null=False):
        self.null, self._waiting, self._done = null, [], 0
        self.now = 0  # of the null stream: how much has been computed
        self.knows = 0  # of another: how much of that it has waited for

    def put(self, action):
        self._waiting.append(action)
        if self.eager:
            self.finish(len(self._waiting))

    def finish(self, count):
        """Do the first `count` things that were ever put into it."""
        while self._done < count:
            self._waiting[self._done]()
            self._done += 1

    def wait_event(self, event):
        if self.null:
            event.finish()
        else:
            self.knows = max(self.knows, event.stamp)

    def synchronize(self):
        _wait("synchronize()")
        self.finish(len(self._waiting))


class Event:
    _numbers = itertools.count(1)
    reached = 0  # the number of the last one that was waited for

    def __init__(self, *_, **__):
        self._stream, self._count, self._number, self._time = None, 0, 0, 0.0
        self.stamp = 0  # how much had been computed when it was recorded

    def record(self, stream=None):
        self._stream = stream or NULL
        self._count, self.stamp = len(self._stream._waiting), NULL.now
        self._number, self._time = next(Event._numbers), time.perf_counter()

    def finish(self):
        if self._stream is not None:
            self._stream.finish(self._count)

    def synchronize(self):
        self.finish()
        Event.reached = max(Event.reached, self._number)


def get_elapsed_time(start_event, end_event):
    """Milliseconds. As CUDA does, both must have been recorded, and somebody have waited for the second."""
    if not start_event._number or not end_event._number:
        raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
    if end_event._number > Event.reached:
        raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return 1000 * (end_event._time - start_event._time)


NULL = Stream(null=True)


class OutOfMemoryError(MemoryError):
    pass


class Pool:
    """CuPy's stock of memory: what an array gives back it keeps for the next one."""

    used = total = 0
    limit = 16 << 30

    def take(self, count):
        if self.used + count > self.limit:
            raise OutOfMemoryError(f"Out of memory allocating {count:,} bytes (allocated so far: {self.used:,} bytes)")
        self.used += count
        self.total = max(self.total, self.used)

    def used_bytes(self):
        return self.used

    def total_bytes(self):
        return self.total

    def free_bytes(self):
        return self.total - self.used

    def free_all_blocks(self):
        self.total = self.used


stock = Pool()


def get_default_memory_pool():
    return stock


_core = types.SimpleNamespace(set_compute_type=lambda dtype, compute_type: compute_types.append(compute_type))
compute_types = []  # of matrix products of float32; the last one counts

cuda = types.SimpleNamespace(
    is_available=lambda: True,
    Device=Device,
    Stream=Stream,
    Event=Event,
    get_current_stream=lambda: NULL,
    get_elapsed_time=get_elapsed_time,
    set_allocator=lambda allocator: None,
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=_properties,
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        CUDARuntimeError=CUDARuntimeError,
    ),
)


cupyx = types.ModuleType("cupyx")
cupyx.empty_pinned = lambda shape, dtype=float, order="C": np.empty(shape, dtype)


# -- in CuPy's place ------------------------------------------------------------------
OFFERED = [
    "__version__",
    "_core",
    "array",
    "asarray",
    "asnumpy",
    "copyto",
    "cuda",
    "dot",
    "empty",
    "empty_like",
    "get_default_memory_pool",
    "matmul",
    "ndarray",
    "RawModule",
    "where",
]
cupy = types.ModuleType("cupy")  # what `import cupy` gives: nothing that this file has for itself
cupy.__spec__ = importlib.machinery.ModuleSpec("cupy", None)


def _of_cupy(name):
    return globals()[name] if name in OFFERED else __getattr__(name)


cupy.__getattr__ = _of_cupy
del cupy.__doc__
_kept: dict[str, types.ModuleType] = {}


@contextlib.contextmanager
def installed():
    """Within it `import cupy` gives this module, and the backend cupy computes with it."""
    replaced = {
        "cupy": sys.modules[__name__],
        "cupyx": cupyx,
        **{name: _kept.get(name) for name in (BACKEND, TRANSFER)},
    }
    before = {name: sys.modules.pop(name, None) for name in replaced}
    current = backends._current
    sys.modules.update({name: module for name, module in replaced.items() if module is not None})
    backends.get.cache_clear()
    try:
        _kept.update({name: importlib.import_module(name) for name in (BACKEND, TRANSFER)})
        yield sys.modules[__name__]
    finally:
        backends._current = current
        backends.get.cache_clear()
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def parameters(function):
    """The parameters of one of CuPy's functions or methods, from its signature or the first line of its docstring."""
    with contextlib.suppress(ValueError, TypeError):
        return list(inspect.signature(function).parameters)
    line = function.__doc__.split("\n")[0]
    inside = line[line.index("(") + 1 : line.rindex(")")]
    return [part.split("=")[0].strip(" *").split(" ")[-1] for part in inside.split(",") if part.strip(" *")]
