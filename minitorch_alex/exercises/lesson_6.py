"""Examines the exercises of lesson 6, one program and four backends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy

from .. import cuda_on_cpu
from .. import functional as F
from ..backends import Backend
from ..tensor import Tensor
from .examination import Examination, Mistake, exercise, shown


@exercise(
    "6.1",
    "from block and thread to a place in an array",
    "First the number of the element: i = block * threads + thread.",
    "w is i % W, and i // W counts rows. Go on with that number in the same way: h is what remains of it after // H.",
)
def place(exam: Examination) -> None:
    for block, thread, threads, shape in (
        (0, 5, 8, (1, 1, 3, 4)),
        (3, 1, 4, (1, 2, 3, 5)),
        (1, 7, 64, (2, 3, 4, 5)),
        (5, 17, 32, (4, 3, 5, 7)),
        (2, 0, 256, (3, 2, 13, 11)),
        (0, 0, 128, (2, 2, 2, 2)),
    ):
        i, (_, C, H, W) = block * threads + thread, shape
        answer = exam.call(block, thread, threads, shape)
        title = f"place{(block, thread, threads, shape)}"
        suspects: dict[str, Any] = {
            "the four are in the opposite order: (n, c, h, w)": _at(i, C, H, W)[::-1],
            "the last axis runs fastest: w is i % W, and this lets the first one run fastest": _first_fastest(i, shape),
            "H and W are swapped": _at(i, C, W, H),
            "h and w are swapped": (*_at(i, C, H, W)[:2], *_at(i, C, H, W)[:1:-1]),
            "the block is left out: the element is block * threads + thread": _at(thread, C, H, W),
            "the element is block * threads + thread: there are so many threads in the blocks before": _at(
                block + thread, C, H, W
            ),
            "block and thread are swapped: the element is block * threads + thread": _at(
                thread * threads + block, C, H, W
            ),
            "c counts the channels of all images: what remains after // C is the image's own": (
                i // W // H // C, i // W // H, i // W % H, i % W,
            ),
            "h counts the rows of all channels: take the remainder, % H": (
                i // W // H // C, i // W // H % C, i // W, i % W,
            ),
            "this is the number of the element: now divide": i,
            "/ gives fractions: use //, which rounds down": (i / W / H / C, i / W / H % C, i / W % H, i % W),
        }  # fmt: skip
        exam.compare(title, answer, _at(i, C, H, W), suspects)
        exam.require(
            isinstance(answer, tuple | list),
            title,
            f"gives {type(answer).__name__}, expected a tuple",
            cause="return the four numbers with commas between them",
        )
        exam.require(
            all(isinstance(k, int | numpy.integer) for k in answer),
            title,
            f"gives {shown(answer)}, expected whole numbers",
            cause="/ gives a floating-point number, // a whole one; an index has to be whole",
        )


def _at(i: int, C: int, H: int, W: int) -> tuple[int, int, int, int]:
    return i // W // H // C, i // W // H % C, i // W % H, i % W


def _first_fastest(i: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    where = []
    for length in shape:
        where.append(i % length)
        i //= length
    return tuple(where)


# -- CUDA -------------------------------------------------------------------------
GUARD = (
    "there are more threads than elements, and those too many must be kept from reading and writing: "
    "if (i < the number of elements)"
)
CAUSES = {
    "wait at different barriers": "a __syncthreads() stands where not all threads of the block come by, such as inside "
    "an if: all of them must come to the same one",
    "wait for ever": "a barrier stands where not all threads of the block come by: all must come to the same one",
    "which no thread of its block has written": "shared memory holds nothing at first: every thread must write its "
    "element, those without a number a 0, and none may leave before",
    "is outside of the array": "the index goes beyond the end of the array in shared memory",
    "in shared memory": "a thread touches what another one writes, with nothing between them: a __syncthreads() is "
    "needed behind every writing that others read, in a loop in every round",
    "blocks in no certain order": "threads of two blocks have the same element: it is blockIdx.x * blockDim.x + "
    "threadIdx.x, and each thread writes its own one only",
    "race on": "two threads have the same element, and one of them writes: each thread may write its own one only",
    "touches memory": GUARD,
    "outside of": GUARD,
    "division by zero": "in `a / b % c` the numbers must not be 0: are the parameters in the order of the exercise?",
    "arguments were given": "the parameters are those of the exercise, in that order",
    "argument ": "the parameters have the types of the exercise, in that order: float and int, no double",
}
COMPLAINTS = {  # the compiler's, and what they mean to somebody who comes from Python
    r"expected .?[;,(){}].?.* before": "a semicolon ends every statement, and a condition stands in parentheses",
    r"was not declared|has not been declared": "a name is misspelled, or its type is missing in front of it where it "
    "first occurs: int i = ...",
    r"does not name a type": "a variable is introduced by its type: int, float",
    r"expected '\}'|at end of input": "a brace is not closed",
    r"read-only|assignment of read": "it writes into an array that is const: the result has an array of its own",
    r"invalid types|invalid operands": "an operator is used on what it does not fit, such as an index on a number",
}


@dataclass
class Text:
    """A kernel as the learner wrote it."""

    exam: Examination
    lines: list[str]
    kernel: cuda_on_cpu.Kernel

    def launch(self, title: str, blocks: int, threads: int, arguments: tuple, special: dict[str, str]) -> None:
        """Run it in several orders of the threads, every access watched. (One version to compile, not two.)

        `special` explains what is found by words that occur in it, before CAUSES does.
        """
        before = [value.copy() if isinstance(value, numpy.ndarray) else value for value in arguments]
        for order in cuda_on_cpu.ORDERS:
            for value, old in zip(arguments, before, strict=True):
                if isinstance(value, numpy.ndarray):
                    value[...] = old
            try:
                self.kernel((blocks,), (threads,), arguments, race=True, order=order)
            except cuda_on_cpu.CudaOnCpuError as error:
                message = str(error)
                if "does not compile" in message:
                    raise self._refused(message) from None
                finding = self._most_telling(message)
                causes = (cause for words, cause in {**special, **CAUSES}.items() if words in finding)
                raise self.exam.wrong(title, *self._said(finding), cause=next(causes, "")) from None
        self.exam.require(True)

    def _refused(self, message: str) -> Mistake:
        """What the compiler says, the first of it, and the line that it is about."""
        title = f"{self.exam.exercise.name}() returns a text that does not compile"
        found = re.search(r"kernel\.cu:(\d+)(?::\d+)?: (?:fatal )?error: (.*)", message)
        if not found:
            return self.exam.wrong(title, *message.splitlines()[1:4])
        plain = re.sub("[\u2018\u2019]", "'", found[2])
        cause = next((cause for pattern, cause in COMPLAINTS.items() if re.search(pattern, plain)), "")
        return self.exam.wrong(title, f"line {found[1]}: {plain}", *self._quoted([found[1]]), cause=cause)

    def _most_telling(self, message: str) -> str:
        """One finding of perhaps several: a race, if there is one, since others follow from it."""
        findings = message.removeprefix(f"{self.kernel.name}: ").splitlines() or [""]
        return next((finding for finding in findings if finding.startswith("race on")), findings[0])

    def _said(self, finding: str) -> list[str]:
        """It in lines, and the lines of the text that it names."""
        numbers = re.findall(r"kernel\.cu:(\d+)", finding)
        parts = re.split(r"[:;] (?=kernel\.cu:\d+: )", finding)
        return [re.sub(r"kernel\.cu:(\d+)", r"line \1", part) for part in parts] + self._quoted(numbers)

    def _quoted(self, numbers: list[str]) -> list[str]:
        known = [int(n) for n in dict.fromkeys(numbers) if 0 < int(n) <= len(self.lines)]
        return [f"line {n} is: {self.lines[n - 1].strip()}" for n in sorted(known)]


def _cuda(exam: Examination, name: str, parameters: tuple[str, ...]) -> Text:
    """The kernel of this name in the text that the attempt returns. Nothing is compiled yet."""
    title = f"{exam.exercise.name}()"
    text = exam.call(title=title)
    if not isinstance(text, str):
        cause = "return the text of the kernel, between three quotation marks"
        raise exam.wrong(title, f"gives {type(text).__name__}, expected a text in CUDA", cause=cause)
    text = text.encode("ascii", "replace").decode()  # what C++ cannot read
    if "__global__" not in text:
        cause = f"a kernel begins with __global__ void {name}("
        raise exam.wrong(title, f"gives {text[:60]!r}, in which there is no kernel", cause=cause)
    reason = cuda_on_cpu.why_not()
    if reason is not None:
        raise Mistake(f"{exam.exercise.number} {exam.exercise.name}: this cannot be examined here.\n  {reason}")
    try:
        declared = cuda_on_cpu.load(text).source.declaration(name)
        expression = f"{name}<float>" if declared.template else name
        kernel = cuda_on_cpu.load(text, [expression]).get_function(expression)
    except cuda_on_cpu.CudaOnCpuError as error:
        said = str(error).replace("kernel.cu", "the text")
        cause = f"the kernel is to be called {name}" if "has no kernel" in said else ""
        raise exam.wrong(title, said, cause=cause) from None
    exam.require(
        len(declared.parameters) == len(parameters),
        title,
        f"its kernel takes {len(declared.parameters)} parameters: {', '.join(declared.parameters)}",
        f"expected {len(parameters)}: {', '.join(parameters)}",
        cause="take the line with __global__ as it stands in the exercise",
    )
    return Text(exam, text.splitlines(), kernel)


@exercise(
    "6.2",
    "a CUDA kernel that adds a bias to each channel",
    "Each thread has one element: int i = blockIdx.x * blockDim.x + threadIdx.x. The threads too many have none.",
    "i / pixels says how many channels lie before the element, those of earlier images included: / rounds down between "
    "whole numbers.",
    "The channel is i / pixels % channels. So: if (i < total) y[i] = x[i] + bias[i / pixels % channels];",
)
def add_bias(exam: Examination) -> None:
    kernel = _cuda(exam, "add_bias", ("x", "bias", "y", "channels", "pixels", "total"))
    rng = numpy.random.default_rng(0)
    for N, C, pixels, threads in ((2, 3, 35, 64), (1, 5, 7, 32), (3, 2, 64, 128), (4, 3, 1, 8), (1, 1, 11, 4)):
        total = N * C * pixels
        blocks = -(-total // threads)
        x = rng.standard_normal((N, C, pixels)).astype("float32")
        bias = (3 * rng.standard_normal(C)).astype("float32")
        y = numpy.full(x.shape, numpy.nan, "float32")
        size = "1 block" if blocks == 1 else f"{blocks} blocks"
        title = f"{N} images, {C} channels, {pixels} pixels, {size} of {threads} threads"
        special = {
            "bias[": "the channel of element i is i / pixels % channels: i / pixels goes on counting in the next image",
        }
        kernel.launch(title, blocks, threads, (x, bias, y, C, pixels, total), special)
        _all_written(exam, title, y)
        i = numpy.arange(total).reshape(x.shape)
        channels = {
            "the channel is i % channels here, as if neighbours were of different channels; a channel's pixels lie "
            "together: i / pixels % channels": i % C,
            "the channel comes from the place in the image, i % pixels: it is i / pixels % channels": i % pixels % C,
            "the channel is divided by the number of channels here: the remainder is wanted, %": i // pixels // C % C,
            "the channel is that of the block: a block does not end where a channel ends": i // threads % C,
            "the channel is that of the thread in its block: it is i / pixels % channels": i % threads % C,
            "every channel gets the first bias": 0 * i,
        }
        suspects = {why: x + bias[channel] for why, channel in channels.items()}
        c = i // pixels % C
        suspects |= {
            "the bias is left out": x,
            "x is left out: y[i] = x[i] + ...": bias[c],
            "the bias multiplies: it should be added": x * bias[c],
            "the bias is subtracted": x - bias[c],
            "what is below 0 is set to 0: there is no ReLU in this kernel": numpy.maximum(x + bias[c], 0),
        }
        exam.compare(f"y for {title}", y, x + bias[c], suspects, tolerance=1e-6)


def _all_written(exam: Examination, title: str, y: numpy.ndarray) -> None:
    """`y` was full of NaN."""
    missing = numpy.flatnonzero(numpy.isnan(y))
    if missing.size:
        exam.require(
            False,
            title,
            f"y[{missing[0]}] is not written   ({missing.size} of {y.size} elements are not)",
            cause="no thread has this element: it is blockIdx.x * blockDim.x + threadIdx.x, and all below the number "
            "of elements have to be written",
        )


@exercise(
    "6.3",
    "the same kernel without races",
    "Where does a thread read what another one has written? Between the two there must be a barrier: __syncthreads();",
    "A barrier stands where all threads of the block come by. Inside of `if (t < half)` only some of them do.",
    "Two are missing: one behind the line that fills the buffer, one at the end of each round, behind the if.",
)
def centre(exam: Examination) -> None:
    kernel = _cuda(exam, "centre", ("x", "y", "columns"))
    exam.require(
        any("__shared__" in line for line in kernel.lines),
        "centre() returns a kernel without shared memory",
        cause="then every thread adds up the whole row by itself: keep the buffer and the tree, and add barriers",
    )
    rng = numpy.random.default_rng(0)
    for rows, columns in (3, 50), (2, 64), (4, 1), (2, 33):
        x = (5 + 3 * rng.standard_normal((rows, columns))).astype("float32")
        y = numpy.full(x.shape, numpy.nan, "float32")
        title = f"{rows} rows of {columns} numbers"
        kernel.launch(title, rows, 64, (x, y, columns), {})
        _all_written(exam, title, y)
        wide = x.astype("float64")
        total = wide.sum(axis=1, keepdims=True)
        suspects = {
            "the mean is not subtracted": x,
            "the sum is subtracted: divide it by the number of columns": wide - total,
            "the sum is divided by the number of threads: the mean is over the columns": wide - total / 64,
            "the first number of the row is subtracted in the place of the mean: does the tree add up?": (
                wide - wide[:, :1]
            ),
            "this is the mean itself: subtract it from x": 0 * wide + total / columns,
            "the first number of the row, divided by the columns, is subtracted: does the tree add up?": (
                wide - wide[:, :1] / columns
            ),
            "the sign: x - mean": total / columns - wide,
        }
        exam.compare(f"y for {title}", y, wide - total / columns, suspects, tolerance=1e-5)


# -- a loop -------------------------------------------------------------------------
OLD = -77.0  # what stands in y before


@exercise(
    "6.4",
    "softmax of each row with loops over single numbers",
    "For each row three loops over its columns: the largest score; exponentials, into y, and their sum; the division.",
    "The largest and the sum begin anew in each row. Begin the largest with x[n, 0] and the sum with 0.0.",
)
def softmax_loop(exam: Examination) -> None:
    rng = numpy.random.default_rng(0)
    cases = [
        rng.standard_normal((3, 4)).round(2),
        rng.standard_normal((5, 2)).round(2),
        numpy.array([[0.5], [-2.0]]),
        numpy.array([[3.0, 1.0], [1000.0, 999.0]]),
        numpy.array([[1000.0, 999.0], [3.0, 1.0]]),
        numpy.array([[-900.0, -3000.0, -899.0], [-905.0, -904.0, -906.0]]),
    ]
    stops = {
        "math range error": "the exponential of a large score is too large for a number: subtract the largest of the "
        "row first",
        "division by zero": "all exponentials of a row are 0: subtract the row's own largest score first",
    }
    for scores in cases:
        title = f"softmax_loop(x, y) with x = np.array({scores.tolist()})"
        y = numpy.full(scores.shape, OLD)
        answers: list[Any] = []

        def run(x: numpy.ndarray, y: numpy.ndarray = y, answers: list[Any] = answers) -> numpy.ndarray:
            answers.append(exam.attempt(x, y))
            return y

        exam.call(scores, function=run, title=title, stops=stops)
        returned = "" if answers[0] is None else f"; what it returns, {type(answers[0]).__name__}, nobody looks at"
        exam.require(
            (y != OLD).any(),
            title,
            f"nothing was written into y{returned}",
            cause="a kernel writes into the array that it is given, y[n, k] = ..., and returns nothing",
        )
        expected = _softmax(scores, scores.max(axis=1, keepdims=True))
        exam.compare(f"y after {title}", y, expected, _loop_suspects(scores))


def _softmax(scores: numpy.ndarray, shift: Any, total: Any = None) -> numpy.ndarray:
    with numpy.errstate(all="ignore"):
        e = numpy.exp(scores - shift)
        return e / (e.sum(axis=1, keepdims=True) if total is None else total(e))


def _loop_suspects(scores: numpy.ndarray) -> dict[str, Any]:
    largest = scores.max(axis=1, keepdims=True)
    unwritten, short = numpy.full(scores.shape, OLD), numpy.full(scores.shape, OLD)
    unwritten[:-1] = _softmax(scores, largest)[:-1]
    if scores.shape[1] > 1:
        short[:, :-1] = _softmax(scores[:, :-1], scores[:, :-1].max(axis=1, keepdims=True))
    with numpy.errstate(all="ignore"):
        exponentials = numpy.exp(scores - largest)
    return {
        "the sum goes on from row to row: it has to begin at 0 in each": _softmax(
            scores, largest, lambda e: e.sum(axis=1).cumsum()[:, None]
        ),
        "the largest goes on from row to row, and a row far below it becomes 0/0: it has to begin anew in each": (
            _softmax(scores, numpy.maximum.accumulate(largest, axis=0))
        ),
        "the largest begins with 0, and a row of scores far below 0 becomes 0/0: begin with the row's first score": (
            _softmax(scores, numpy.maximum(largest, 0))
        ),
        "the largest of all rows is subtracted, and the rows far below it become 0/0: each row's own": _softmax(
            scores, scores.max()
        ),
        "nothing is subtracted, and the exponential overflows: the largest of each row first": _softmax(scores, 0.0),
        "the smallest of each row is subtracted: it should be the largest": _softmax(
            scores, scores.min(axis=1, keepdims=True)
        ),
        "these are the exponentials: divide them by their sum": exponentials,
        "each is divided by the sum so far: the division needs the whole sum, so it is a loop of its own": (
            _softmax(scores, largest, lambda e: e.cumsum(axis=1))
        ),
        "the columns add up to 1: each row is to": _softmax(scores, largest, lambda e: e.sum(axis=0, keepdims=True)),
        "all add up to 1: each row is to": _softmax(scores, largest, lambda e: e.sum()),
        "the last row is not written: range(N) goes up to N - 1": unwritten,
        "the last column is not written: range(K) goes up to K - 1": short,
    }


# -- a backend ----------------------------------------------------------------------
@exercise(
    "6.5",
    "a backend that multiplies in half precision",
    "a.astype('float16') rounds. The product itself is that of the reference: super().matrix_product(a, b).",
    "Bring both factors back before they are multiplied: a.astype('float16').astype(a.dtype).",
)
def HalfProducts(exam: Examination) -> None:  # noqa: N802
    backend = exam.call(title="HalfProducts()")
    exam.require(
        isinstance(backend, Backend),
        f"HalfProducts() is of the class {type(backend).__name__}, which is no Backend",
        cause="the class line must read: class HalfProducts(Backend)",
    )
    rng = numpy.random.default_rng(0)
    for (M, K, N), dtype in (((3, 40, 2), "float32"), ((5, 17, 4), "float64"), ((1, 60, 1), "float32")):
        a, b = rng.standard_normal((M, K)).astype(dtype), rng.standard_normal((K, N)).astype(dtype)
        title = f"matrix_product(a, b) for arrays {(M, K)} and {(K, N)} of {dtype}"
        got = exam.call(a, b, function=lambda a, b: _product(backend, a, b), title=title, stops={ENDLESS: AGAIN})
        _compare_product(exam, title, got, a, b)
    exam.require(
        getattr(backend, "name", None) == "half",
        f"its name is {shown(getattr(backend, 'name', None))}",
        cause='the class has a line name = "half"',
    )
    _compare_layer(exam, backend)


ENDLESS = "matrix_product calls itself without end"
AGAIN = "self.matrix_product is this method again: that of the reference is super().matrix_product(a, b)"


def _product(backend: Backend, a: numpy.ndarray, b: numpy.ndarray) -> Any:
    try:
        return backend.matrix_product(a, b)
    except RecursionError:
        raise RuntimeError(ENDLESS) from None


def _half(a: numpy.ndarray) -> numpy.ndarray:
    return a.astype("float16").astype(a.dtype)


def _compare_product(exam: Examination, title: str, got: Any, a: numpy.ndarray, b: numpy.ndarray) -> None:
    right = _half(a) @ _half(b)
    suspects = {
        "nothing is rounded": a @ b,
        "the product is rounded: it should be the factors": _half(a @ b),
        "the product is rounded as well: bring both factors back to their own type before they are multiplied": (
            a.astype("float16") @ b.astype("float16")
        ),
        "only the first factor is rounded": _half(a) @ b,
        "only the second factor is rounded": a @ _half(b),
        "this multiplies element by element": _half(a) * _half(a),
    }
    exam.compare(title, got, right, suspects, tolerance=1e-6)
    kind = getattr(got, "dtype", None)
    exam.require(
        kind == a.dtype,
        title,
        f"gives numbers of {kind}, expected {a.dtype}",
        cause="bring the rounded factors back to the type that they had: .astype(a.dtype)",
    )


def _compare_layer(exam: Examination, backend: Backend) -> None:
    """A linear layer and a ReLU on it, forward and backward."""
    rng = numpy.random.default_rng(1)
    x, w, b = (rng.standard_normal(shape).astype("float32") for shape in ((6, 30), (4, 30), (4,)))
    gy = rng.standard_normal((6, 4)).astype("float32")
    tensors = [Tensor(array, backend=backend, requires_grad=True) for array in (x, w, b)]

    def step(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        y = F.relu(F.linear(x, w, b))
        y.backward(Tensor(gy, backend=backend))
        return y

    title = "a linear layer with a ReLU on this backend"
    y = exam.call(*tensors, function=step, title=title)
    expected = numpy.maximum(_half(x) @ _half(w.T) + b, 0)
    exam.compare(title, y, expected, {"nothing is rounded": numpy.maximum(x @ w.T + b, 0)}, tolerance=1e-5)
    g = numpy.where(expected > 0, gy, 0)
    for name, t, gradient in (
        ("input", tensors[0], _half(g) @ _half(w)),
        ("weight", tensors[1], _half(g.T) @ _half(x)),
        ("bias", tensors[2], g.sum(axis=0)),
    ):
        exam.compare(f"the gradient of the {name} of {title}", t.grad, gradient, tolerance=1e-5)
