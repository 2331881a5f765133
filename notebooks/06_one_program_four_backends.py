# %% [markdown]
# # 6. One program, four backends
#
# The network of 2012 learned for five to six days on two graphics cards (section 1 of the paper). Its authors had
# written every operation for these cards by hand, the convolution above all, and they published that code too. In this
# engine the part that computes can be exchanged: the same network runs on plain NumPy, on compiled loops, on a graphics
# card, and on the text for a graphics card carried out step by step on your processor. This lesson opens the place
# where they are exchanged.
#
# **Afterwards you can** say what a backend is and write one, write a kernel for a graphics card, find out where it goes
# too far or where its threads get in each other's way, and mend it, all of it without such a card.
#
# You need lessons 1 to 5. The lesson takes about 60 minutes.

# %%
# Where the engine is not installed (on Colab, say): install it, and nothing else, from the
# folder above this one.
import importlib.util
import subprocess
import sys

found = importlib.util.find_spec("minitorch_alex")
if found is None or found.origin is None:  # without a file: any folder of that name
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", ".."],
        check=True,
    )

# %%
import inspect
import math
import textwrap
import time

import matplotlib.pyplot as plt
import numba
import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import backends, cuda_on_cpu, nn, optim
from minitorch_alex.backends import Backend
from minitorch_alex.backends.array_module import ArrayModule
from minitorch_alex.backends.cuda_kernels import CudaKernels
from minitorch_alex.backends.numpy_backend import Window
from minitorch_alex.data import Preprocessing, load
from minitorch_alex.exercises import check, hint
from minitorch_alex.source import source
from minitorch_alex.tensor import Tensor

BLUE, RED = "#3b6fb6", "#c8553d"

# %% [markdown]
# ## What a backend is
#
# Here is the engine's ReLU, which sets negative numbers to 0 (lesson 5). `xp` is the backend that the input lives on.
# Whatever works on arrays is asked of it, and no operation names a backend.

# %%
backends.use("numpy")  # the home of new tensors for now; the others come below
source(F.relu)

# %% [markdown]
# What has `xp` to be? NumPy itself would nearly do. It has `exp` and `where` and a few hundred functions more, but no
# `relu`. So a backend is **an array module, and a short list of functions that it lacks**. These are its *kernels*: each
# does one piece of work on whole arrays, and knows nothing of tapes. (The paper says kernel where we say filter. That is
# another thing.)


# %%
class OwnBackend:
    """All that NumPy has, and two kernels that it lacks."""

    def __getattr__(self, name):  # Python asks here for whatever it does not find
        return getattr(np, name)

    def relu(self, x):
        return np.maximum(x, 0)

    def relu_gradient(self, gy, y):
        return np.where(y <= 0, 0, gy)


# %% [markdown]
# (The gradient needs the output `y` only: it is positive where the input was.) With this as `xp` the function above
# works. `inspect.unwrap` gives it without its decorator, so that it takes arrays.

# %%
xp = OwnBackend()
relu = inspect.unwrap(F.relu)
x, g = np.array([-1.0, 2.0, -3.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
value, (gradient,) = relu(xp, x)
print("value", value, "gradient", gradient(g), "and NumPy's exp:", xp.exp(0.0))
try:
    relu(np, x)
except AttributeError as error:
    print("with NumPy alone:", error)

t = mt.tensor(x, requires_grad=True)
y = F.relu(t)
y.backward(mt.tensor(g))
assert (value == y.numpy()).all() and (gradient(g) == t.grad.numpy()).all()

# %% [markdown]
# The engine's backends are made in the same way. This is how they hand on what NumPy has (and keep it, so that the next
# time is quicker), and this is one of the kernels. `self.xp` is the array module: NumPy, or CuPy, a NumPy for graphics
# cards.

# %%
source(ArrayModule.__getattr__)

# %%
source(Backend.relu_gradient)

# %% [markdown]
# `Backend` is the *reference*. It has every kernel in plain array code, to be read and to be trusted; lessons 3 to 5
# showed you some of them. The other backends are subclasses of it and replace a kernel where they have a faster one. A
# kernel that they do not replace works all the same. In the table `own` is a version of the backend's own, and `-` is
# the reference's:

# %%
KINDS = {"numba": type(backends.get("numba")), "CUDA": CudaKernels}
print(f"{'kernel':32}", *(f"{name:>8}" for name in KINDS))
for name, reference in inspect.getmembers(Backend, inspect.isfunction):
    if name[0] != "_" and not hasattr(ArrayModule, name):
        versions = [getattr(kind, name) for kind in KINDS.values()]
        marks = ["-" if version is reference else "own" for version in versions]
        print(f"{name:32}", *(f"{mark:>8}" for mark in marks))

# %% [markdown]
# (A few of these are no kernels: `set_convolution` is a switch, `conv2d_buffers` counts memory, `pad_image` and
# `window_sum` help others.) There are four backends. Two share the column CUDA, since they use the same text:
#
# - **numpy**: the reference;
# - **numba**: NumPy's arrays, kernels written as loops and *compiled*, that is, translated beforehand into the
#   processor's own instructions;
# - **cupy**: arrays in the memory of a graphics card, kernels written in CUDA and run there;
# - **cuda_on_cpu**: NumPy's arrays, the same CUDA text compiled for your processor, the *CPU*, and run under watch.

# %%
for name in "numpy", "numba", "cuda_on_cpu", "cupy":
    reason = backends.why_not(name)
    print(textwrap.fill(f"{name}: {reason or 'can be used here'}", 88))
assert {"numpy", "numba"} <= set(backends.available())

# %% [markdown]
# ## Numba: a loop becomes machine code
#
# In lesson 3 loops in Python were hopelessly slow, and array code was the way out. There is another one. Here is the
# gradient of the ReLU as somebody writes it who has never heard of array code. `gx` is where the result goes.


# %%
def relu_gradient_loop(gy, y, gx):
    """All (n,): gx becomes gy where the output y is positive, and 0 elsewhere."""
    for i in range(y.size):
        gx[i] = 0 if y[i] <= 0 else gy[i]


def shortest_time(function, *arguments):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)


rng = np.random.default_rng(0)
gy, y = rng.standard_normal((2, 200_000)).astype("float32")
gx = np.empty_like(y)
python_took = shortest_time(relu_gradient_loop, gy, y, gx)
assert (gx == backends.get("numpy").relu_gradient(gy, y)).all()
print(f"loop in Python: {1000 * python_took:.2f} ms for {y.size:,} numbers")

# %% [markdown]
# What is slow about it? In every round Python finds out anew what `y` is, what `[i]` means for it, makes an object for
# the number, and asks that object how to compare itself with 0. **Numba** translates the function into *machine code*,
# the processor's own instructions. It does so when the function is first called, since only then it sees what the
# arguments are. With that it knows all types beforehand, and in the loop nothing is left but to load, compare and store.

# %%
compiled = numba.njit(relu_gradient_loop)
gx = np.empty_like(y)
began = time.perf_counter()
compiled(gy, y, gx)
first_took = time.perf_counter() - began
assert (gx == backends.get("numpy").relu_gradient(gy, y)).all()

numba_took = shortest_time(compiled, gy, y, gx)
array_took = shortest_time(backends.get("numpy").relu_gradient, gy, y)
print(f"compiled loop, first call:  {1000 * first_took:8.2f} ms")
print(f"compiled loop, later calls: {1000 * numba_took:8.2f} ms")
print(f"array code:                 {1000 * array_took:8.2f} ms")
print(f"compiled, the loop is {python_took / numba_took:.0f} times as fast")
assert python_took > 10 * numba_took and first_took > numba_took

# %% [markdown]
# For arrays of another type it compiles again, and keeps both. A `signature` is the list of types that a version is
# for. (`1d` is one axis, and `C` says that the numbers lie in memory in one piece.)

# %%
compiled(gy.astype("float64"), y.astype("float64"), np.empty(y.size))
for signature in compiled.signatures:
    print(*signature, sep=", ")
assert len(compiled.signatures) == 2

# %% [markdown]
# The kernel of the backend is the same loop (`@kernel` is `numba.njit` with some settings). A processor has a few
# *cores*, each of which can run a program by itself. So the backend cuts large arrays into slices, one for each core
# (`pool.share_arrays`), and lets each core run the loop over its own slice.

# %%
source(backends.get("numba").kernels.relu_gradient)

# %%
source(type(backends.get("numba"))._elementwise)

# %% [markdown]
# ## The same step on all of them
#
# Now a network: a convolution, pooling and a layer that classifies digits. It takes one step of training, forward,
# backward and the paper's rule. `use` makes a backend the home of all tensors that are created from then on, the
# weights included. Nothing else changes. The weights are the same everywhere, since the random numbers depend on the
# seed alone (lesson 4). `to` converts all weights to another type of number. (In the names 0 and 4 are the places of
# the convolution and of the last layer in the network. The layers between have no weights.)

# %%
digits = load("digits")
preprocessing = Preprocessing.of(digits.train_images)
images, labels = preprocessing(digits.train_images[:32]), digits.train_labels[:32]


def one_step(backend, dtype="float32"):
    """The loss, all gradients and all new weights, as NumPy arrays by name."""
    backends.use(backend)
    mt.manual_seed(0)
    features = nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
    network = nn.Sequential(*features, nn.Flatten(), nn.Linear(128, 10)).to(dtype)
    optimizer = optim.SGD(network.parameters(), 0.1, 0.9, form="paper")
    loss = F.cross_entropy(network(mt.tensor(images.astype(dtype))), labels)
    loss.backward()
    results = {"loss": loss.numpy()}
    for name, parameter in network.named_parameters():
        results[f"gradient of {name}"] = parameter.grad.numpy()
    optimizer.step()
    for name, parameter in network.named_parameters():
        results[f"new {name}"] = parameter.numpy()
    return results


reference = one_step("numpy")
for name, value in reference.items():
    print(f"{name:22}{value.shape}")

# %% [markdown]
# And on every backend that can be used here. (The first time the CUDA kernels have to be compiled, which takes some
# seconds. The result is kept.) For each array we take the largest difference from NumPy's, as a fraction of its largest
# number.


# %%
def largest_difference(results, reference):
    """Over all arrays: the largest difference, relative to the array's largest number."""
    return max(
        np.abs(results[name] - value).max() / np.abs(value).max()
        for name, value in reference.items()
    )


for backend in backends.available():
    results = one_step(backend)
    same = sum((results[name] == value).sum() for name, value in reference.items())
    share = same / sum(value.size for value in reference.values())
    difference = largest_difference(results, reference)
    print(
        f"{backend:12} loss {results['loss']:.9f}, difference {difference:.1e}, "
        f"equal to the last bit {share:.0%}"
    )
    assert difference < 1e-5
backends.use("numpy")

# %% [markdown]
# One program, and nearly the same numbers. Where they differ it is in the last of the seven digits that float32 holds.
#
# ### Why the last digits differ
#
# For a computer $(a + b) + c$ and $a + (b + c)$ are two different things, because each sum is rounded:

# %%
a, b, c = np.float32(1e8), np.float32(-1e8), np.float32(1)
print(f"(a + b) + c = {(a + b) + c}, and a + (b + c) = {a + (b + c)}")
assert (a + b) + c == 1 and a + (b + c) == 0

# %% [markdown]
# A loop adds numbers one by one. NumPy adds up blocks of them and then the blocks' sums. A matrix product does it as
# suits the processor at hand, and where several cores work, each sums up a part of its own. Each order rounds
# elsewhere, and none is "the right one".


# %%
def one_by_one(values):
    total = np.float32(0)
    for value in values:
        total += value
    return total


values = rng.standard_normal(10_000).astype("float32")
exact = math.fsum(values)  # without any rounding on the way
sums = {
    "forward": one_by_one(values),
    "backward": one_by_one(values[::-1]),
    "largest first": one_by_one(values[np.abs(values).argsort()[::-1]]),
    "NumPy's sum": values.sum(),
}
for name, total in sums.items():
    print(f"{name:14}{total:12.6f}   off by {abs(total - exact):.1e}")
    assert abs(total - exact) < 1e-2
assert sums["forward"] != sums["backward"]

# %% [markdown]
# How do you tell rounding from a mistake? **Compute with more digits.** A difference that comes from rounding shrinks
# with them. One that comes from a mistake stays. With float64, which has 16 digits (without cuda_on_cpu, which would
# compile everything once more):

# %%
reference_64 = one_step("numpy", "float64")
for backend in backends.available():
    if backend != "cuda_on_cpu":
        difference = largest_difference(one_step(backend, "float64"), reference_64)
        print(f"{backend:12} in float64: difference {difference:.1e}")
        assert difference < 1e-12
backends.use("numpy")

# %% [markdown]
# ### Not both at once
#
# A tensor remembers its backend, and an operation takes the backend of its inputs. What if two inputs have different
# ones? The engine could carry one over in silence. Between a graphics card and your processor that is slow, and nobody
# would notice where the time goes. So it refuses, and names both:

# %%
here = mt.tensor([1.0, 2.0])
backends.use("numba")
there = mt.tensor([3.0, 4.0])
backends.use("numpy")
refusal = ""
try:
    here + there
except ValueError as error:
    refusal = str(error)
print(refusal)
assert "numpy" in refusal and "numba" in refusal

# %% [markdown]
# ## How a graphics card computes
#
# A processor has a few cores, each of them quick. A graphics card, or *GPU*, has thousands of simple ones. A *thread* is
# one run of a piece of program, step after step. To keep a GPU busy one starts a thread **for every number of the
# result**, a million at a time if need be. All of them run the same text. Here *this text* is called the kernel: what
# one thread does, where a backend's kernel was work on whole arrays. The threads are ordered like this:
#
# - so many threads are a **block**: at most 1024, often 256;
# - so many blocks are the **grid**, which is everything that one *launch* of the kernel starts.
#
# A thread can ask which block it is in, which thread of that block it is, and how large the blocks are. From these three
# it computes the number of the element that it has to do:
#
# $$i = \text{block} \cdot \text{threads per block} + \text{thread}$$
#
# Blocks all have the same size, so there are often more threads than elements. The threads too many must do nothing:
# most kernels begin with the question whether there is something left to do. Plainly, in Python:


# %%
def relu_gradient_thread(block, threads, thread, gy, y, gx, n):
    i = block * threads + thread
    if i < n:
        gx[i] = 0 if y[i] <= 0 else gy[i]


def launch_plainly(kernel, order, threads, *arguments):
    for block, thread in order:
        kernel(block, threads, thread, *arguments)


n, blocks, threads = 10, 3, 4
everyone = [(block, thread) for block in range(blocks) for thread in range(threads)]
gx = np.full(n, np.nan)
launch_plainly(relu_gradient_thread, everyone, threads, gy[:n], y[:n], gx, n)
expected = backends.get("numpy").relu_gradient(gy[:n], y[:n])
assert (gx == expected).all()
print(len(everyone), "threads for", n, "elements")

# %%
figure, axes = plt.subplots(figsize=(9, 1.7), layout="constrained")
for i, (block, thread) in enumerate(everyone):
    colour = (BLUE, "#9bb9dd")[block % 2] if i < n else "white"
    frame = plt.Rectangle((i, 0), 0.95, 1, facecolor=colour, edgecolor="gray")
    axes.add_patch(frame)
    text = f"thread {thread}\ni = {i}" if i < n else f"thread {thread}\nnothing"
    ink = "white" if colour == BLUE else "black"
    middle = i + 0.475, 0.5
    axes.text(*middle, text, color=ink, ha="center", va="center", fontsize=9)
for block in range(blocks):
    axes.text(block * 4 + 2, 1.2, f"block {block}", ha="center", fontsize=10)
axes.set(xlim=(-0.1, 12.1), ylim=(-0.1, 1.6))
axes.axis("off")
plt.show()

# %% [markdown]
# Our launch runs one thread after the other. A GPU runs as many at once as it has room for, **in no certain order**. For
# this kernel any order will do, since each thread writes an element of its own and reads what nobody writes:

# %%
for _ in range(3):
    gx = np.full(n, np.nan)
    order = rng.permutation(everyone).tolist()
    launch_plainly(relu_gradient_thread, order, threads, gy[:n], y[:n], gx, n)
    print("began with (block, thread)", *map(tuple, order[:4]))
    assert (gx == expected).all()

# %% [markdown]
# ## A kernel in CUDA
#
# NVIDIA's language for this is *CUDA*: C++ with a few words more. You can read it:
#
# - `__global__ void` in front of a function says that it is a kernel. It returns nothing.
# - `const float* x` is an array of float32 that is only read, `float* y` one that may be written. `int n` is a whole
#   number. Every variable is introduced by its type, and every statement ends with a semicolon.
# - `blockIdx.x`, `blockDim.x` and `threadIdx.x` are the number of the block, the threads per block and the number of the
#   thread. (There may be `.y` and `.z` too.)
# - `condition ? a : b` is Python's `a if condition else b`, `for (int r = 0; r < 3; r++)` is `for r in range(3)`, `&&` is
#   `and`, and `//` begins a comment. `sum += x` is as in Python. Braces `{ }` hold several statements together, where
#   Python indents them; a single one behind `if` or `for` needs none. `return;` ends the thread's work.
# - **`/` between whole numbers cuts off the fraction**, as Python's `//` does with numbers that are not negative. `%` is
#   the remainder, as in Python.

# %%
RELU_GRADIENT = """
__global__ void relu_gradient(const float* gy, const float* y, float* gx, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) gx[i] = y[i] <= 0 ? 0 : gy[i];
}
"""

# %% [markdown]
# The module `cuda_on_cpu` compiles such text with an ordinary C++ compiler and runs it thread by thread, as
# `launch_plainly` did. It is called as on a GPU: blocks, threads per block, arguments. An array's length is not known to
# the kernel, so it is an argument of its own.
#
# We wrap it in a function that prints what is wrong and returns it, or an empty text. (It needs Linux and g++. Elsewhere
# `launch` says so and returns `None`, and the cells below go on without the result.)


# %%
def launch(text, name, blocks, threads, arguments, **conditions):
    """Run one kernel of a CUDA text. What is wrong with it, or "" if nothing is."""
    if cuda_on_cpu.why_not():
        print(textwrap.shorten(f"{name} is not run: {cuda_on_cpu.why_not()}", 88))
        return None
    kernel, wrong = cuda_on_cpu.load(text, [name]).get_function(name), ""
    try:
        kernel((blocks,), (threads,), arguments, **conditions)
    except cuda_on_cpu.CudaOnCpuError as error:
        wrong = str(error)
    for sentence in (wrong or f"{name}: nothing wrong was found").splitlines():
        print(textwrap.fill(sentence, 88))
    return wrong


# %%
n = 1000
gy, y = rng.standard_normal((2, n)).astype("float32")
gx = np.full(n, np.nan, "float32")
wrong = launch(RELU_GRADIENT, "relu_gradient", 4, 256, (gy, y, gx, n))
expected = backends.get("numpy").relu_gradient(gy, y)
assert wrong is None or (wrong == "" and (gx == expected).all())

# %% [markdown]
# The engine's own CUDA is in text files, in the folder `kernels`. The network above ran on several of them. This is the one
# for our gradient. `template <typename T>` makes versions for several types of number out of one text, and `T(0)` is the
# 0 of such a type. `__restrict__` promises that the arrays do not overlap. `long long` is a whole number of 64 bits, for
# arrays with more than two thousand million elements, and `(long long)` in front of a number turns it into one.


# %%
def kernel_text(file, name):
    """The lines of one kernel, up to its closing brace; long ones are broken."""
    lines = (cuda_on_cpu.kernel_folder() / file).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if f"void {name}(" in line) - 1
    lines = lines[first : lines.index("}", first) + 1]
    return "\n".join(
        textwrap.fill(line, 88, subsequent_indent=8 * " ") for line in lines
    )


print(kernel_text("bias_relu.cu", "relu_gradient"))

# %% [markdown]
# ### Too far
#
# What if the question `if (i < n)` is forgotten? On a GPU the threads too many write into whatever lies behind the
# array. Often nothing seems to happen, until one day another array holds strange numbers. `cuda_on_cpu` puts the arrays in
# front of memory that nobody may touch, and so it notices:

# %%
UNGUARDED = RELU_GRADIENT.replace("if (i < n) ", "")
wrong = launch(UNGUARDED, "relu_gradient", 4, 256, (gy, y, gx, n))
assert wrong is None or "has 1000 elements" in wrong

# %% [markdown]
# It names the element, the line of the text (the first one is empty), the block and the thread: 3 blocks of 256 and 232
# threads more are 1000, the first element that does not exist. (`y` is read before `gx` is written.)
#
# ### From a number to a place
#
# In memory an array is one long row, whatever its shape. The element (n, c, h, w) of an array of the shape (N, C, H, W)
# stands at
#
# $$i = ((n \, C + c) \, H + h) \, W + w$$
#
# and a thread, which knows its $i$, has to find the way back. The last axis runs fastest: $w$ is what remains of $i$
# when divided by $W$. The quotient counts rows, and the rest goes in the same way.

# %%
N, C, H, W = 2, 3, 4, 5
numbered = np.arange(N * C * H * W).reshape(N, C, H, W)
for i in range(N * C * H * W):
    rows, w = i // W, i % W
    channels, h = rows // H, rows % H
    n, c = channels // C, channels % C
    assert numbered[n, c, h, w] == i == ((n * C + c) * H + h) * W + w
print("the last one is at", (n, c, h, w))

# %% [markdown]
# This is the engine's `im2col` of lesson 3 for a GPU. There is a thread for every window of every channel. It finds its
# window, and copies the pixels under it into a column. Read it with the cell above: `place` is the window, in row `p`
# and column `q`, and `plane` counts the channels of all images. A *pointer*, `image` or `column`, is a place in memory
# where an array or a part of it begins. `*column` is the number there, and `column += row_step` moves the pointer on by
# that many numbers. (`bool` is true or false. `dilation` is 1, as in lesson 3.)

# %%
print(kernel_text("im2col.cu", "im2col"))

# %% [markdown]
# `trace` runs a kernel and keeps a diary of one thread. Two channels of 4 x 4 pixels and windows of 3 x 3 are 2 x 2 x 2
# threads. Thread 6 has channel 1, and its window (1, 0) begins at row 1, column 0. Of the columns it fills the one with
# number 2, since (1, 0) is the third window, from row 9 on, since the 9 taps of channel 0 come before.

# %%
x = np.arange(32, dtype="float32").reshape(1, 2, 4, 4)
columns = np.full((1, 18, 4), np.nan, "float32")
sizes = 1, 2, 4, 4, 3, 3, 2, 2  # N, C, H, W, R, S, P, Q
window = 1, 1, 0, 0, 1, 1  # stride, padding, dilation: each vertical and horizontal
# how far it is to the next image, and to the next row of the columns
steps = np.int64(18 * 4), np.int64(4)

if not cuda_on_cpu.why_not():
    module = cuda_on_cpu.load("im2col.cu", ["im2col<float>"])
    arguments = x, columns, *sizes, *window, *steps
    diary = module.get_function("im2col<float>").trace((1,), (8,), arguments, thread=6)
    for step in diary[:8]:
        print(f"{step.line:14}{step.text}")
    engines = backends.get("numpy").im2col(x, Window((3, 3)))
    assert (columns == engines).all() and len(diary) == 18

# %% [markdown]
# ## Two threads, one number
#
# So far every thread had an element of its own. Now add up all numbers of an array. A first attempt: every thread adds
# its number to the same sum.

# %%
SUM_OF_ALL = """
__global__ void sum_of_all(const float* x, float* sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) sum[0] += x[i];
}
"""
x = rng.integers(-9, 10, 1000).astype("float32")  # whole numbers: nothing is rounded
total = np.zeros(1, "float32")
wrong = launch(SUM_OF_ALL, "sum_of_all", 4, 256, (x, total, 1000))
print("the sum is", total[0], "and NumPy says", x.sum())
assert wrong is None or (wrong == "" and total[0] == x.sum())

# %% [markdown]
# It looks right, and it is wrong. Here the threads ran one after another. On a GPU they run at the same time, and `+=`
# is three steps: **read, add, write**. In the worst case all threads read before anyone has written:


# %%
def all_at_once(values):
    total = 0.0
    read = [total for _ in values]  # step 1, in all threads
    added = [before + value for before, value in zip(read, values)]  # step 2
    for value in added:  # step 3: each writes over what the others wrote
        total = value
    return total


print("all at once:", all_at_once(x), "and the last number is", x[-1])
assert all_at_once(x) == x[-1] != x.sum()

# %% [markdown]
# All sums but one are lost. On a real GPU it depends on chance how many are, and the result differs from run to run. This
# is called a **race**: two threads touch the same element, at least one of them writes, and nothing says which comes
# first.
#
# No single result shows a race, as you just saw. But it can be seen in the *accesses*: with `race=True` every read and
# write of every thread is noted down, and two that could meet are reported, even if they did no harm this time.

# %%
wrong = launch(SUM_OF_ALL, "sum_of_all", 4, 256, (x, total, 1000), race=True)
assert wrong is None or "race on sum[0]" in wrong

# %% [markdown]
# It names both accesses and the lines where they stand. (*Global memory* is where the arguments lie. What a barrier is
# comes in a moment.)
#
# ### First way out: gather, do not scatter
#
# Recall col2im of lesson 3: every window has gradients, and every pixel gets the sum over the windows that see it. Here
# in one dimension, with windows of 3 pixels. It reads like a recipe for one thread per *window*, which gives its three
# numbers to three pixels. That is a *scatter*, and neighbouring windows meet at the same pixels:

# %%
SCATTER = """
__global__ void scatter(const float* columns, float* gx, int windows) {
    int p = blockIdx.x * blockDim.x + threadIdx.x;
    if (p < windows)
        for (int r = 0; r < 3; r++) gx[p + r] += columns[p * 3 + r];
}
"""
columns = rng.standard_normal((100, 3)).astype("float32")
gx = np.zeros(102, "float32")
wrong = launch(SCATTER, "scatter", 2, 64, (columns, gx, 100), race=True)
assert wrong is None or "race on gx[" in wrong

# %% [markdown]
# Turn it round: one thread per *pixel*, which looks for the windows that see it and adds up what they have for it. That is
# a *gather*. Now each thread writes its own element only, and reading the same one is no harm.

# %%
GATHER = """
__global__ void gather(const float* columns, float* gx, int windows, int pixels) {
    int h = blockIdx.x * blockDim.x + threadIdx.x;
    if (h >= pixels) return;
    float sum = 0;
    for (int r = 0; r < 3; r++) {
        int p = h - r;  // the window whose tap r lies on pixel h
        if (p >= 0 && p < windows) sum += columns[p * 3 + r];
    }
    gx[h] = sum;
}
"""
expected = np.zeros(102, "float32")
for p in range(100):
    expected[p : p + 3] += columns[p]
gx = np.full(102, np.nan, "float32")
wrong = launch(GATHER, "gather", 2, 64, (columns, gx, 100, 102), race=True)
assert wrong is None or (wrong == "" and np.allclose(gx, expected, atol=1e-6))

# %% [markdown]
# All of this engine's kernels gather. (GPUs also have *atomic* additions, which nobody can interrupt. But they happen in
# an order that changes from run to run, and with it the last digits, as we saw above.)
#
# ### Second way out: work together, and wait
#
# For the sum of a million numbers a gather would be a single thread. Here the threads of a block have to work together,
# and they can: a block has a little memory of its own, the *shared memory*, and a **barrier**, a place where every
# thread waits until all threads of its block have come. They add up in a *tree*: in each round the lower half adds the
# upper half to itself.


# %%
def tree_sum(values):
    """The sum of 2, 4, 8, 16, ... numbers."""
    values, half = values.copy(), len(values) // 2
    while half > 0:
        values[:half] += values[half : 2 * half]
        half //= 2
    return values[0]


assert tree_sum(np.arange(256.0)) == np.arange(256.0).sum()

# %%
levels = [np.array([3, 1, 4, 1, 5, 9, 2, 6])]
while len(levels[-1]) > 1:
    half = len(levels[-1]) // 2
    levels.append(levels[-1][:half] + levels[-1][half:])
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
for down, level in enumerate(levels):
    for t, number in enumerate(level):
        axes.text(t, -down, number, ha="center", va="center", fontsize=12)
    if down:
        for t in range(len(level)):
            for above, colour in (t, BLUE), (t + len(level), RED):
                line = [above, t], [0.82 - down, 0.2 - down]
                axes.plot(*line, color=colour, linewidth=1.2)
        axes.text(8, -down, f"{len(level)} at work, then a barrier", va="center")
axes.text(8, 0, "8 threads, a number each", va="center")
axes.set(xlim=(-0.5, 11), ylim=(-3.4, 0.4))
axes.axis("off")
plt.show()

# %% [markdown]
# In CUDA, `__shared__` in front of an array puts it into shared memory, and `__syncthreads()` is the barrier. Threads
# too many may not leave early here: they put in a 0, and come to every barrier like the others. Each block leaves one
# sum, and a second launch of the same kernel adds these up.

# %%
BLOCK_SUMS = """
__global__ void block_sums(const float* x, float* sums, int n) {
    __shared__ float buffer[256];
    int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
    buffer[t] = i < n ? x[i] : 0;
    __syncthreads();  // every number is there
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
        __syncthreads();  // every sum of this round is there
    }
    if (t == 0) sums[blockIdx.x] = buffer[0];
}
"""
x = rng.standard_normal(1000).astype("float32")
parts, total = np.full(4, np.nan, "float32"), np.full(1, np.nan, "float32")
wrong = launch(BLOCK_SUMS, "block_sums", 4, 256, (x, parts, 1000), race=True)
print("the four blocks' sums:", parts)
wrong = launch(BLOCK_SUMS, "block_sums", 1, 256, (parts, total, 4), race=True)
print("the sum is", total[0], "and NumPy says", x.sum())
assert wrong is None or (wrong == "" and np.isclose(total[0], x.sum(), rtol=1e-5))

# %% [markdown]
# No race. And the order of the additions is fixed by the text, whichever thread comes first. So the result has the same
# bits in whatever order the threads begin: here forward, backward and shuffled. Even `tree_sum` in Python gives the same
# bits.

# %%
padded = np.append(x, np.zeros(24, "float32")).reshape(4, 256)
in_python = [tree_sum(block) for block in padded]
for order in cuda_on_cpu.ORDERS:
    again = np.full(4, np.nan, "float32")
    wrong = launch(BLOCK_SUMS, "block_sums", 4, 256, (x, again, 1000), order=order)
    assert wrong is None or again.tolist() == parts.tolist() == in_python

# %% [markdown]
# Now take the second barrier away. A quick thread begins the next round and reads what a slow one has not written yet.
# (`order=1`: the threads begin in reverse order.)

# %%
WITHOUT_BARRIER = BLOCK_SUMS.replace("__syncthreads();  // every sum", "// every sum")
arguments = x, parts, 1000
wrong = launch(WITHOUT_BARRIER, "block_sums", 4, 256, arguments, race=True, order=1)
assert wrong is None or "race on buffer[" in wrong

# %% [markdown]
# ### On a real one
#
# The text is CUDA, and CuPy takes it as it is. Where there is a GPU, the next cell runs our first kernel on it. Numbers go
# in with their type there, since a GPU checks nothing: `np.int32(n)` for an `int`.

# %%
reason = backends.why_not("cupy")
if reason:
    print(textwrap.shorten(f"No GPU is used here: {reason}", 88))
else:
    import cupy

    module = cupy.RawModule(
        code=RELU_GRADIENT,
        options=("-std=c++17",),
        name_expressions=["relu_gradient"],
    )
    gx = cupy.empty(1000, "float32")
    arguments = cupy.asarray(gy), cupy.asarray(y), gx, np.int32(1000)
    module.get_function("relu_gradient")((4,), (256,), arguments)
    assert (cupy.asnumpy(gx) == np.where(y <= 0, 0, gy)).all()
    print("the same numbers from", backends.get("cupy").description)

# %% [markdown]
# ### What this shows, and what it does not
#
# `cuda_on_cpu` shows indices that go too far, missing barriers, races, memory that nobody has written, and arguments of
# the wrong type. It says **nothing about speed**: what takes long here may be quick on a GPU, and the other way round. Nor
# can it show what depends on a GPU's own rounding, or on when one thread's writing becomes visible to another. A kernel
# that passes here is fit to be tried on a GPU. It is not proven there.
#
# In a shell `python -m minitorch_alex.cuda_on_cpu` lists all kernels of the engine and runs any of them on a small
# example, with `--trace 3` and `--race`. `mistakes` in the place of a kernel's name shows many ways to go wrong.
#
# ## A backend of your own
#
# A new backend is a class that replaces some kernels. Here is one in a few lines. It computes as the reference does, and
# notes the shape of every matrix product.


# %%
class WatchingBackend(Backend):
    """The reference, which keeps a list of its matrix products."""

    name = "watching"

    def __init__(self):
        self.products = []

    def matrix_product(self, a, b):  # a (M, K) @ b (K, N)
        self.products.append((a.shape, b.shape))
        return super().matrix_product(a, b)


watching = WatchingBackend()

# %% [markdown]
# `backends.use` knows the four by their names. A backend that is an object of your own is given to the tensors
# themselves: to the input, and to the weights of a network, which is the one of lesson 5. (To have a name of its own, it
# would be a file `watching_backend.py` beside the others with `BACKEND = WatchingBackend()` as its last line, and a line
# in the list `NEEDS` of the module `backends`.)


# %%
def step_on(backend):
    """The loss and the gradients of one step of lesson 5's network."""
    mt.manual_seed(0)
    first, last = nn.Linear(64, 64), nn.Linear(64, 10)
    network = nn.Sequential(nn.Flatten(), first, nn.ReLU(), last)
    for parameter in network.parameters():
        parameter.backend = backend
    loss = F.cross_entropy(network(Tensor(images, backend=backend)), labels)
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in network.parameters()]


loss, gradients = step_on(watching)
loss_there, gradients_there = step_on(backends.get("numpy"))
assert loss == loss_there
assert all((a == b).all() for a, b in zip(gradients, gradients_there))
for (M, K), (_, N) in watching.products:
    print(f"({M}, {K}) @ ({K}, {N}): {M * K * N:,} multiplications")

# %% [markdown]
# The network knows nothing of all this, and here is what it does. Two products lead forward. Three lead back: the last
# layer needs the gradient of its input and that of its weight, the first only that of its weight, since nobody asks for
# the gradient of the images. Each of them takes as many multiplications as its layer did forward. So **on the way back a
# layer costs twice what it cost on the way forward**, and the first one once.

# %%
first, last = 32 * 64 * 64, 32 * 64 * 10
counted = [M * K * N for (M, K), (_, N) in watching.products]
assert counted[:2] == [first, last] and sorted(counted[2:]) == [last, last, first]
print(f"forward {first + last:,}, backward {sum(counted[2:]):,}")

# %% [markdown]
# ## Summary
#
# - A backend is an array module and a short list of kernels. The reference has all of them in plain array code; others
#   replace what they do faster. No operation names a backend, and two backends in one operation are an error.
# - Numba compiles a loop when it is first called, for the types that it sees.
# - Backends agree up to rounding, because they add in different orders. Rounding shrinks with more digits. A mistake does
#   not.
# - On a GPU every element has a thread. It finds its element from block and thread, and stops if there is none left.
# - Two threads that touch one element, one of them writing, are a race, even where the result is right. Give every
#   output a thread of its own (gather), or share memory within a block and wait at barriers.
# - The same CUDA text runs on your processor under watch. That shows mistakes. It shows nothing about speed.
#
# ## Exercises
#
# As in lesson 1: write each function, run the cell, then the check below it. `hint("6.1")` helps. Two of them want CUDA:
# there the function returns the text of a kernel, and the check compiles and runs it under watch (on Linux with g++).
#
# ### 6.1 Where am I? (5 minutes)
#
# Write `place(block, thread, threads, shape)`: the tuple (n, c, h, w) of the element that belongs to this thread of this
# block. There are `threads` threads in a block, one for each element of an array of the shape `shape`, (N, C, H, W). You
# will not be asked about threads too many.


# %%
def place(block, thread, threads, shape):
    ### BEGIN SOLUTION
    i = block * threads + thread
    _, C, H, W = shape
    return i // W // H // C, i // W // H % C, i // W % H, i % W
    ### END SOLUTION


# %%
check("6.1", place)

# %% [markdown]
# ### 6.2 A kernel with a bias (15 minutes)
#
# A convolution adds a bias to all pixels of a channel. `x` and `y` have the shape (N, channels, H, W) with H * W = `pixels`
# and `total` elements in all, and `bias` has one number for each channel. Write the function `add_bias()` that returns the
# text of this kernel, one thread for each element. Blocks have any size, and the last one may be too large.
#
# ```
# __global__ void add_bias(const float* x, const float* bias, float* y,
#                          int channels, int pixels, int total)
# ```


# %%
def add_bias():
    ### BEGIN SOLUTION
    return """
__global__ void add_bias(const float* x, const float* bias, float* y,
                         int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i / pixels % channels];
}
"""
    ### END SOLUTION


# %%
check("6.2", add_bias)

# %% [markdown]
# ### 6.3 Mend a race (15 minutes)
#
# This kernel subtracts from each row of a table its mean. Every row has a block of 64 threads, and `columns` is at most
# 64. It has races. Look at what is said of them, then write `centre()`, which returns the text of a `centre` without
# races. Keep the shared memory and the tree.

# %%
CENTRE = """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
    }
    if (t < columns) y[i] = x[i] - buffer[0] / columns;
}
"""
table = rng.standard_normal((3, 50)).astype("float32")
wrong = launch(CENTRE, "centre", 3, 64, (table, np.empty_like(table), 50), race=True)


# %%
def centre():
    ### BEGIN SOLUTION
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
        __syncthreads();
    }
    if (t < columns) y[i] = x[i] - buffer[0] / columns;
}
"""
    ### END SOLUTION


# %%
check("6.3", centre)

# %% [markdown]
# ### 6.4 Softmax as a loop (15 minutes)
#
# Write `softmax_loop(x, y)` in the way that a compiled kernel is written: loops over single numbers, no new arrays. `x` is
# (N, K), and the softmax of each of its rows goes into `y`, an array of the same shape, whose old contents mean nothing.
# It should be right for scores of any size (lesson 5). `math.exp` takes one number. Afterwards try
# `numba.njit(softmax_loop)`.


# %%
def softmax_loop(x, y):
    ### BEGIN SOLUTION
    N, K = x.shape
    for n in range(N):
        largest = x[n, 0]
        for k in range(1, K):
            largest = max(largest, x[n, k])
        total = 0.0
        for k in range(K):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total
    ### END SOLUTION


# %%
check("6.4", softmax_loop)

# %% [markdown]
# ### 6.5 A backend with half as many bits (15 minutes)
#
# Newer graphics cards multiply numbers of 16 bits several times as fast as numbers of 32, and add up the products with 32.
# Write a backend that imitates it: `HalfProducts`, named `"half"`, is the reference in everything but `matrix_product`.
# There both factors are rounded to `float16` and brought back to their own type. Then they are multiplied as usual, so
# that the result has that type too.


# %%
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        ### BEGIN SOLUTION
        a = a.astype("float16").astype(a.dtype)
        b = b.astype("float16").astype(b.dtype)
        return super().matrix_product(a, b)
        ### END SOLUTION


# %%
check("6.5", HalfProducts)

# %% [markdown]
# **Next:** all the parts are there, and they run anywhere. Lesson 7 puts them together to AlexNet.
