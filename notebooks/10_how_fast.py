# %% [markdown]
# # 10. How fast can it be?
#
# AlexNet owes much to speed. Training took five to six days on two graphics cards, with convolutions that its
# authors had written for them, and section 1 of the paper expects better results from faster cards and more data alone.
# How the convolutions were made fast it does not say. This lesson makes one fast, step by step, on your machine, and
# asks before each step what holds it back.
#
# **Afterwards you can** tell whether arithmetic or memory bounds a piece of code, measure times that deserve belief,
# and say why a compiler, a matrix product, threads and Winograd's formula each make a convolution faster.
#
# You need lesson 3 (convolution with loops and as a matrix product), and a little of lessons 6 and 7. All times are
# those of your machine, so close what else is running. The lesson takes about 60 minutes.

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
import itertools
import math
import statistics
import textwrap
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor

import matplotlib.pyplot as plt
import numba
import numpy as np
from threadpoolctl import ThreadpoolController

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import models, nn, optim
from minitorch_alex.backends.thread_pool import usable_cores
from minitorch_alex.backends.winograd import POINTS, matrices
from minitorch_alex.cuda_on_cpu import kernel_folder, load, why_not
from minitorch_alex.exercises import check, hint
from minitorch_alex.peak import Peak, measure_peak
from minitorch_alex.profiler import profile
from minitorch_alex.source import source

BLUE, RED = "#3b6fb6", "#c8553d"
mt.backends.use("numba")  # the processor, also where there is a graphics card

# %% [markdown]
# ## A convolution, and how much work it is
#
# Our example is conv3, AlexNet's third convolution: 384 filters of 3 x 3 pixels on 256 channels of 13 x 13. To keep the
# code short, the ring of zeros is around the images already. That makes them 15 x 15.

# %%
IMAGES = 16
rng = np.random.default_rng(0)
x = np.zeros((IMAGES, 256, 15, 15), "float32")
x[:, :, 1:-1, 1:-1] = rng.standard_normal((IMAGES, 256, 13, 13))
w = rng.standard_normal((384, 256, 3, 3)).astype("float32")
w /= 48  # the root of 256 * 3 * 3, so that the outputs' spread is about 1

# %% [markdown]
# Speed is work over time, so count the work first. For every product of a pixel and a tap there is one multiplication
# and one addition to a sum. The two together are a *multiply-accumulate*, and count as two operations. One GFLOP is
# $10^9$ operations on floating-point numbers, and one GFLOP/s is that many in a second.


# %%
def operations(x, w):
    """Of a convolution of images (N, C, H, W) with filters (F, C, R, S) at stride 1."""
    (N, C, H, W), (filters, _, R, S) = x.shape, w.shape
    return 2 * N * filters * (H - R + 1) * (W - S + 1) * C * R * S


conv3 = nn.Conv2d(256, 384, 3)  # the engine's layer can count, too
assert operations(x, w) == 2 * IMAGES * conv3.multiply_accumulates((384, 13, 13))
print(f"conv3 on {IMAGES} images: {operations(x, w) / 1e9:.2f} GFLOP")

# %% [markdown]
# ## Loops
#
# Here are the seven loops of lesson 3. They are too slow for all of it, so they get a small part: 1 image, 16 of its
# channels, 2 filters. To a loop one product is like another, so the speed will be that of the whole.


# %%
def conv_loops(x, w):
    (N, C, H, W), (filters, _, R, S) = x.shape, w.shape
    y = np.zeros((N, filters, H - R + 1, W - S + 1), x.dtype)
    for n in range(N):
        for f in range(filters):
            for p in range(H - R + 1):
                for q in range(W - S + 1):
                    for c in range(C):
                        for r in range(R):
                            for s in range(S):
                                tap, pixel = w[f, c, r, s], x[n, c, p + r, q + s]
                                y[n, f, p, q] += tap * pixel
    return y


part = x[:1, :16].copy(), w[:2, :16].copy()
began = time.perf_counter()
by_python = conv_loops(*part)
took = time.perf_counter() - began

python_speed = operations(*part) / took  # operations a second
minutes = operations(x, w) / python_speed / 60
print(f"{python_speed / 1e9:.4f} GFLOP/s: all of it would take {minutes:.0f} minutes")

# %% [markdown]
# ### The same lines, compiled
#
# Why so slow? For every product Python asks anew what `y` is, what its index means, which kinds of number are to be
# multiplied, and makes an object for each result. Numba (lesson 6) looks at the types of the arguments once, and
# translates the same lines into instructions of the processor.

# %%
compiled_loops = numba.njit(conv_loops)
calls = []
for name in "first", "second":
    began = time.perf_counter()
    by_compiler = compiled_loops(*part)
    calls.append(time.perf_counter() - began)
    print(f"{name:6} call: {1000 * calls[-1]:9.3f} ms")
assert np.allclose(by_compiler, by_python, atol=1e-5)
assert calls[0] > 5 * calls[1]

# %% [markdown]
# The first call has to translate. Who times only that one has timed the compiler.
#
# ### How to measure
#
# - **Warm up.** The first call does not count. It may compile, and it gets memory from the system.
# - **Repeat, and take the median**, the time in the middle. What else happens on the machine makes some calls slower.
# - **Take turns.** A processor changes its pace, and a neighbour's program comes and goes. Two things that are to be
#   compared should meet the same conditions, so they alternate. A number of yesterday is not comparable with one of
#   today.
# - **Know the noise.** Measure the same thing twice. A difference as small as that between the two means nothing.


# %%
def in_turns(calls, repeats=7):
    """All times of each call in milliseconds, by its name. The first round warms up."""
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - began))
    return times


def median_time(call, repeats=7):
    """Median milliseconds of one call."""
    return statistics.median(in_turns({"": call}, repeats)[""])


a, b = rng.standard_normal((2, 500, 500)).astype("float32")
twins = in_turns({"a @ b": lambda: a @ b, "a @ b again": lambda: a @ b}, repeats=21)
for name, times in twins.items():
    spread = f"fastest {min(times):.3f} ms, slowest {max(times):.3f} ms"
    print(f"{name:12} median {statistics.median(times):.3f} ms, {spread}")

# %% [markdown]
# These two are one and the same, so their difference is noise. Now the compiled loops, on one whole image.

# %%
one_image = x[:1], w
took = median_time(lambda: compiled_loops(*one_image), repeats=3)
compiled_speed = 1000 * operations(*one_image) / took
gain = compiled_speed / python_speed
print(f"{compiled_speed / 1e9:.2f} GFLOP/s, {gain:.0f} times as fast as Python")
assert gain > 5

# %% [markdown]
# ## Where numbers wait
#
# A great gain. Is it much? That depends on what the machine can do, and for that we need to know where numbers come
# from. Main memory is far away: while one number comes from there, a processor could do many multiplications. So it
# keeps what it used last in *caches*, of which it has several: the nearer, the quicker and the smaller. And it never
# fetches one number alone, but always a *line* of neighbours, mostly 64 bytes: 16 numbers of float32.
#
# So it matters in which order one walks through memory. An array lies there row by row. These two functions add up the
# same numbers, one along the rows and one along the columns. (`times` repeats it, so that small arrays take long
# enough to measure. The picture gives sizes in KiB: 1 KiB is 1024 bytes.)


# %%
@numba.njit
def add_along_rows(a, times):
    total = 0.0
    for _ in range(times):
        for i in range(a.shape[0]):
            for j in range(a.shape[1]):
                total += a[i, j]
    return total


@numba.njit
def add_along_columns(a, times):
    total = 0.0
    for _ in range(times):
        for j in range(a.shape[1]):
            for i in range(a.shape[0]):
                total += a[i, j]
    return total


def nanoseconds_per_number(n):
    """Of both walks through an n x n array."""
    a, times = np.ones((n, n), "float32"), max(1, 2**22 // n**2)
    assert add_along_rows(a, times) == add_along_columns(a, times) == times * n**2
    walks = {
        "rows": lambda: add_along_rows(a, times),
        "columns": lambda: add_along_columns(a, times),
    }
    took = in_turns(walks, repeats=3)
    return [1e6 * statistics.median(took[walk]) / (times * n**2) for walk in walks]


sides = [64, 128, 256, 512, 1024, 2048, 4096]
rows, columns = np.transpose([nanoseconds_per_number(n) for n in sides])

# %%
kibibytes = [4 * n**2 / 1024 for n in sides]
figure, axes = plt.subplots(figsize=(9, 2.8), layout="constrained")
axes.semilogx(kibibytes, rows, "o-", color=BLUE, label="along the rows")
axes.semilogx(kibibytes, columns, "o-", color=RED, label="along the columns")
axes.set_xticks(kibibytes, [f"{size:g}" for size in kibibytes])
axes.minorticks_off()
axes.set(xlabel="size of the array (KiB)", ylabel="ns for a number", ylim=(0, None))
axes.legend(loc="upper left")
plt.show()
print(f"the largest: columns take {columns[-1] / rows[-1]:.1f} times as long as rows")
assert columns[-1] > 1.5 * rows[-1]

# %% [markdown]
# As long as the array fits into a cache, the order matters little. Beyond that, the walk along the columns uses one
# number of every line that it fetches. When it comes back for the next one, the line had to make room for others.
#
# ### Tiles
#
# A product of two n x n matrices uses every number n times. Whether it is still near when it is needed again depends
# on the order, too. Let us count that instead of timing it, with a model of a cache that holds the 256 numbers used
# last. (An `OrderedDict` is a dictionary whose entries can be moved to the end or taken from the front.)


# %%
class SmallCache:
    """Holds the numbers used last, and counts those that had to be fetched."""

    def __init__(self, room):
        self.room, self.held, self.fetched = room, OrderedDict(), 0

    def use(self, number):
        if number not in self.held:
            self.held[number] = True
            self.fetched += 1
        self.held.move_to_end(number)  # the end is what was used last
        if len(self.held) > self.room:
            self.held.popitem(last=False)  # what was not used for longest


def fetches(n, tile, room=256):
    """Of Y = A B, n x n: tile after tile, and within a tile number after number."""
    cache, starts, inside = SmallCache(room), range(0, n, tile), range(tile)
    for top, left, middle in itertools.product(starts, repeat=3):
        for i, j, k in itertools.product(inside, repeat=3):
            cache.use(("Y", top + i, left + j))
            cache.use(("A", top + i, middle + k))
            cache.use(("B", middle + k, left + j))
    return cache.fetched


found = {tile: fetches(32, tile) for tile in (1, 2, 4, 8, 16)}
for tile, count in found.items():
    print(f"tiles of {tile:2} x {tile:2}: {count:6,} numbers fetched")
assert min(found, key=found.get) == 8 and found[1] > 3 * found[8]

# %% [markdown]
# Tiles of 1 x 1 are the plain triple loop: by the time a column of B is needed again, it is gone. With larger tiles, a
# number that was fetched serves more often before it goes. The larger the better, as long as three tiles fit into the
# cache: three of 8 x 8 do, three of 16 x 16 do not.
#
# Programs for matrix products have tiles within tiles: some for the *registers* (the few numbers that the processor has
# in hand), and larger ones for each cache. And they use *vector instructions*, which multiply 4, 8 or 16 numbers at
# once. The collection of such programs that NumPy's `@` calls is known as BLAS.
#
# ## What can this machine do?
#
# Two numbers say a good deal. How many operations does it do in a second, if no number has to be waited for? A large
# matrix product comes near that. And how many bytes come from memory and go back there in a second? Add up two arrays
# that are too large for a cache: two numbers read and one written for a single operation. A peak is what comes out
# when nothing disturbs, so here the fastest time counts. (Each of the $n^2$ numbers of the product takes n
# multiply-accumulates, in all $2 n^3$ operations. Times are in milliseconds and 1 GB is $10^9$ bytes, so a factor of
# $10^{-6}$ makes GFLOP/s and GB/s.)


# %%
def peaks_by_hand(side=1000, count=2**23):
    a, b = rng.standard_normal((2, side, side)).astype("float32")
    u, v, total = np.ones((3, count), "float32")
    calls = {"product": lambda: a @ b, "sum": lambda: np.add(u, v, out=total)}
    best = {name: min(times) for name, times in in_turns(calls, 5).items()}
    print(f"{2e-6 * side**3 / best['product']:,.0f} GFLOP/s in a matrix product")
    print(f"{3e-6 * u.nbytes / best['sum']:,.1f} GB/s in an addition")


peaks_by_hand()

# %% [markdown]
# The engine measures the same, with larger matrices, and with the addition shared out over all cores.

# %%
peak = measure_peak(mt.backends.current())
print(peak)

# %% [markdown]
# A computation must do both, compute and move. The two go on at the same time, so the slower one decides:

# %%
source(Peak.least_milliseconds)

# %% [markdown]
# ### The roofline
#
# Divide the operations of a computation by the bytes that it has to move: the operations per byte, its *arithmetic
# intensity*. If each byte that arrives serves for $i$ operations, memory allows $i$ times as many operations as bytes a
# second. So a computation can reach
#
# $$\min(\text{peak of arithmetic},\; i \cdot \text{peak of memory})$$
#
# operations a second, and not more. Drawn over $i$ with both axes in powers of ten, that is a slanted line up to a
# flat one: the *roofline* (Williams, Waterman and Patterson, 2009). Let us see where parts of AlexNet lie under this
# roof. The bytes are those of the inputs, weights and outputs, each counted once. For max-pooling an output of nine
# pixels takes eight comparisons. The linear layer is AlexNet's seventh, fc7, with 4096 inputs and outputs, for batches
# of 1, 8, 64 and 256 images. For one image each weight, 4 bytes, is fetched for one multiplication and one addition:
# half an operation per byte. With N images it serves N times, which makes about N / 2.


# %%
def measured(function, inputs, work):
    """Operations per byte, and operations a second, of a call that takes `work` of them."""
    with mt.no_grad():
        moved = sum(t.numpy().nbytes for t in (*inputs, function(*inputs)))
        took = median_time(lambda: function(*inputs), 5)
    return work / moved, 1000 * work / took


def random_tensor(*shape):
    return mt.tensor(rng.standard_normal(shape, "float32"))


engine = mt.backends.current()
engine.set_convolution("im2col")  # lesson 3's way; the engine's other one comes below
maps, weight = random_tensor(IMAGES, 96, 55, 55), random_tensor(4096, 4096)
pooled = IMAGES * 96 * 27 * 27
places = {
    "ReLU": measured(F.relu, [maps], math.prod(maps.shape)),
    "max-pooling": measured(lambda t: F.max_pool2d(t, 3, 2), [maps], 8 * pooled),
    "conv3": measured(F.conv2d, [mt.tensor(x), mt.tensor(w)], operations(x, w)),
}
for batch in 1, 8, 64, 256:
    inputs = [random_tensor(batch, 4096), weight]
    places[f"fc7, {batch}"] = measured(F.linear, inputs, 2 * batch * 4096**2)

# %%
figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
intensity = np.logspace(-1.5, 3.5, 200)
roof = np.minimum(peak.operations, intensity * peak.bytes)
axes.loglog(intensity, roof / 1e9, color="gray")
for name, (i, speed) in places.items():
    axes.plot(i, speed / 1e9, "o", color=RED if "fc7" in name else BLUE)
    beside = {"xytext": (6, -11), "textcoords": "offset points"}
    axes.annotate(name, (i, speed / 1e9), **beside)
axes.set(xlabel="operations per byte", ylabel="GFLOP/s")
axes.margins(y=0.15)
axes.xaxis.set_major_formatter("{x:g}")
axes.yaxis.set_major_formatter("{x:g}")
plt.show()

# %%
ridge = peak.operations / peak.bytes
print(f"where slope and flat part meet: {ridge:.1f} operations per byte")
print(f"memory bounds fc7 up to a batch of about {2 * ridge:.0f} images")
for name, (i, speed) in places.items():
    limit = "memory" if i < ridge else "arithmetic"
    share = speed / min(peak.operations, i * peak.bytes)
    print(f"{name:12}{i:8.2f} operations per byte: {limit:10} bounds it", end="")
    print(f"{speed / 1e9:8.1f} GFLOP/s, {share:4.0%} of the roof")
assert places["fc7, 1"][0] < 0.5 and places["fc7, 64"][0] > 20
ratio = 64 * places["fc7, 1"][1] / places["fc7, 64"][1]
print(f"fc7: 64 images take {ratio:.1f} times as long as one")

# %% [markdown]
# - **ReLU and pooling** compute next to nothing with what they fetch, so memory sets their limit. A point above the
#   slanted line has its numbers in a cache. One far below has something else in its way.
# - **A convolution** uses every number many times. Its bound is arithmetic, if it is written well.
# - **A large linear layer** depends on the batch, since N images share each weight that is fetched. So 64 images take far
#   less than 64 times as long as one, and a network that looks at one image at a time waits for its weights.
#
# ## Back to the convolution: one matrix product
#
# The compiled loops are far below this roof. They do not use their numbers again while these are near, and they
# multiply one at a time. Lesson 3's remedy was im2col: unfold the images into columns, and leave the rest to BLAS.


# %%
def unfold(x, R, S):
    """(N, C, H, W) -> columns (N, C*R*S, P*Q), tap by tap as in lesson 3."""
    N, C, H, W = x.shape
    P, Q = H - R + 1, W - S + 1
    columns = np.empty((N, C, R, S, P, Q), x.dtype)
    for r in range(R):
        for s in range(S):
            columns[:, :, r, s] = x[:, :, r : r + P, s : s + Q]
    return columns.reshape(N, C * R * S, P * Q)


def conv_by_columns(x, w):
    N, (filters, _, R, S) = len(x), w.shape
    P, Q = x.shape[2] - R + 1, x.shape[3] - S + 1
    y = w.reshape(filters, -1) @ unfold(x, R, S)
    return y.reshape(N, filters, P, Q)


assert np.allclose(conv_by_columns(*one_image), compiled_loops(*one_image), atol=1e-4)


def gflops(convolution):
    """On all images: the operations of the definition, divided by the time."""
    return operations(x, w) / median_time(lambda: convolution(x, w), 5) / 1e6


print(f"{gflops(conv_by_columns):.1f} GFLOP/s")
mebibytes = unfold(x, 3, 3).nbytes / 2**20
print(f"columns of {IMAGES} images: {mebibytes:.0f} MiB, {mebibytes / IMAGES:.1f} each")

# %% [markdown]
# ## Threads over images
#
# Two things are left to gain. BLAS shares a product out over the cores, but one core alone unfolds. And the columns of
# all images are written to memory, only to be read again a moment later.
#
# So let each core do everything for images of its own. It unfolds one image, multiplies while the columns are still in
# a cache, and goes on to the next. Python runs one thread at a time, but NumPy lets others run while it computes on
# arrays, so threads are enough. BLAS is told to stay on one core, or it would start threads of its own in each of ours.


# %%
CORES, blas = usable_cores(), ThreadpoolController()


def conv_in_threads(x, w, workers):
    N, (filters, _, R, S) = len(x), w.shape
    P, Q = x.shape[2] - R + 1, x.shape[3] - S + 1
    flat, y = w.reshape(filters, -1), np.empty((N, filters, P * Q), x.dtype)

    def work(first):
        for n in range(first, N, workers):
            np.matmul(flat, unfold(x[n : n + 1], R, S)[0], out=y[n])

    with blas.limit(limits=1, user_api="blas"), ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, range(workers)))
    return y.reshape(N, filters, P, Q)


y = conv_by_columns(x, w)
assert all(np.allclose(conv_in_threads(x, w, n), y, atol=1e-4) for n in (CORES, 3))
speed = gflops(lambda x, w: conv_in_threads(x, w, CORES))
print(f"{CORES} cores: {speed:.1f} GFLOP/s")
print(f"the large matrix product: {peak.operations / 1e9:.1f} GFLOP/s")

# %% [markdown]
# The nearer these two numbers are, the more of the time goes into matrix products, on all cores. Beyond that the same
# multiplications cannot be done faster. But one can do with fewer.
#
# ## Fewer multiplications: Winograd
#
# ### Four in the place of six
#
# Begin with a row of pixels $d$ and a filter of three taps $g$. Two outputs that lie side by side share two of their
# pixels:
#
# $$y_0 = d_0 g_0 + d_1 g_1 + d_2 g_2, \qquad y_1 = d_1 g_0 + d_2 g_1 + d_3 g_2$$
#
# Six multiplications. Here are four that do:

# %%
d, g = rng.standard_normal(4), rng.standard_normal(3)
y = np.array([d[0:3] @ g, d[1:4] @ g])  # the definition

sum_of_taps, alternating = (g[0] + g[1] + g[2]) / 2, (g[0] - g[1] + g[2]) / 2
m0 = (d[0] - d[2]) * g[0]
m1 = (d[1] + d[2]) * sum_of_taps
m2 = (d[2] - d[1]) * alternating
m3 = (d[3] - d[1]) * g[2]
assert np.allclose(y, [m0 + m1 + m2, m1 - m2 + m3])
print("y from the definition:        ", y)
print("y from four multiplications:  ", np.array([m0 + m1 + m2, m1 - m2 + m3]))

# %% [markdown]
# Multiply it out and see that it is true: $m_1 + m_2$ is $d_1 g_1 + d_2 (g_0 + g_2)$, and so on. There are more
# additions now, but most of them are shared. Those of $g$ are done once, for all places where the filter stands, and in
# all images. Those of $d$ are done once for all 384 filters. This is called F(2, 3): two outputs, three taps. (Winograd
# found in 1980 how few multiplications there must be. Lavin and Gray brought it to neural networks in 2016, after
# AlexNet.)
#
# ### Where the formula comes from
#
# From school: take the numbers as coefficients of polynomials, $a(t) = a_0 + a_1 t$ and $g(t) = g_0 + g_1 t + g_2 t^2$.
# Their product is
#
# $$a_0 g_0 + (a_0 g_1 + a_1 g_0)\, t + (a_0 g_2 + a_1 g_1)\, t^2 + a_1 g_2\, t^3$$
#
# Again six multiplications. But a polynomial with four coefficients is known by its values at four points. The value
# of a product is the product of the values. So: evaluate both at four points, multiply **four times**, and go back
# from the four values to the coefficients (`np.linalg.inv` makes the *inverse* of a matrix, which undoes what the
# matrix does). To evaluate and to go back are products with constant matrices, which hold small numbers if the points
# are well chosen: 0, 1, -1, and "infinity". The last means the highest coefficient, for it alone decides when $t$ is
# very large. For a product, it is the product of the two highest.


# %%
def evaluation(points, count):
    """The matrix from `count` coefficients to the values at the points and at infinity."""
    rows = [[t**k for k in range(count)] for t in points]
    return np.array([*rows, [0] * (count - 1) + [1]], float)


points = (0, 1, -1)
a, g = np.array([2.0, 5.0]), np.array([1.0, 3.0, -2.0])
values = (evaluation(points, 2) @ a) * (evaluation(points, 3) @ g)
coefficients = np.linalg.inv(evaluation(points, 4)) @ values
print("four values:      ", values)
print("four coefficients:", coefficients)
assert np.allclose(coefficients, np.convolve(a, g))  # multiplied out

# %% [markdown]
# The last step: $a_p$ times $g_s$ is added to the coefficient $p + s$. So a polynomial product *spreads* each $a_p$
# over several places. Our filter does the opposite, it *gathers*: $y_p$ is the sum of $g_s\, d_{p+s}$. You know this
# pair from lesson 3, where the gradient of a convolution spreads what the convolution gathers. One is the other's
# adjoint: written as a matrix, its transpose.

# %%
# the matrix that takes a to the coefficients; transposed, it is our filter
spread = np.transpose([np.convolve(a, g) for a in np.eye(2)])
assert np.allclose(spread.T @ d, [d[0:3] @ g, d[1:4] @ g])
print(spread)

# %% [markdown]
# With A and G for evaluating, and B for going back, the polynomial product is $B\,((G g) * (A a))$, where $*$
# multiplies element by element. For a fixed $g$ that is three matrices in a row: A, then one that has the numbers
# $G g$ on its diagonal and 0 elsewhere, then B. The one with the diagonal is its own transpose. So transposed, and in
# reverse order as always with products, they are our filter:
#
# $$y = A^T \left( (G g) * (B^T d) \right)$$
#
# That is the whole method, for m outputs and r taps with $n = m + r - 1$ multiplications. It is named after Cook and
# Toom, who multiplied long whole numbers in this way in the 1960s.


# %%
def cook_toom(m, r, points):
    """A (n, m), G (n, r) and B (n, n), for m outputs and r taps: n = m + r - 1."""
    A, G = evaluation(points, m), evaluation(points, r)
    return A, G, np.linalg.inv(evaluation(points, m + r - 1))


A, G, B = cook_toom(2, 3, points)
for name, matrix in ("B^T", B.T), ("G", G), ("A^T", A.T):
    # + 0 makes 0 of a rounded -0
    print(f"{name}:\n{matrix.round(3) + 0}")
assert np.allclose(A.T @ ((G @ g) * (B.T @ d)), [d[0:3] @ g, d[1:4] @ g])

# %% [markdown]
# Look at the rows of $B^T$: $d_0 - d_2$, half of $d_1 + d_2$, and so on. It is our formula, with the halves at $d$
# instead of $g$. The engine computes 4 outputs of 3 taps with 6 multiplications, from points chosen for small rounding
# errors. It puts the fractions into G instead of B, so what has to agree is the product of the two, at each point:

# %%
theirs = matrices(3)
print(POINTS[6], "and infinity")
A, G, B = cook_toom(4, 3, POINTS[6])
assert np.allclose(A, theirs.A)
for i in range(6):
    assert np.allclose(np.outer(G[i], B[:, i]), np.outer(theirs.G[i], theirs.B[:, i]))
print(f"B^T:\n{theirs.B.T.round(3) + 0}")

# %% [markdown]
# ### Two dimensions
#
# For a tile of an image do the same with rows and with columns: $B^T d\, B$ instead of $B^T d$, and likewise for the
# others. (A matrix on the left combines rows, one on the right columns.) Then 2 x 2 outputs of 3 x 3 taps take
# $4 \times 4 = 16$ multiplications in the place of $4 \times 9 = 36$.

# %%
A, G, B = cook_toom(2, 3, points)
tile, taps = rng.standard_normal((4, 4)), rng.standard_normal((3, 3))
products = (G @ taps @ G.T) * (B.T @ tile @ B)
y = A.T @ products @ A
assert np.allclose(y, conv_loops(tile.reshape(1, 1, 4, 4), taps.reshape(1, 1, 3, 3)))
print(products.size, "multiplications for", y.size, "outputs")

# %% [markdown]
# For whole images it helps to lay a tile out as a column of 16 numbers, row by row. Then "rows and columns" is a single
# matrix, which NumPy calls `kron`, the *Kronecker product*:

# %%
both = np.kron(B.T, B.T)
assert np.allclose(both @ tile.reshape(16), (B.T @ tile @ B).reshape(16))
print(B.T.shape, "for rows and for columns,", both.shape, "for both at once")

# %% [markdown]
# ### A convolution
#
# With channels, the products are added up over the channels. The way back, $A^T$, is the same for all of them, so add
# up before it: at each of the n x n points, filters (F, C) times tiles (C, T) is **a matrix product**. So in the end it
# is BLAS again, 16 smaller products in the place of a large one. Tiles overlap by two pixels, and those at the edge
# hang over into zeros.


# %%
def conv_by_winograd(x, w, m=2, points=(0, 1, -1)):
    """x (N, C, H, W), w (F, C, 3, 3) -> y (N, F, P, Q) by tiles of m x m outputs."""
    A, G, B = (np.kron(M, M).astype(x.dtype) for M in cook_toom(m, 3, points))
    (N, C, H, W), filters, n = x.shape, len(w), m + 2
    down, across = -(-(H - 2) // m), -(-(W - 2) // m)  # tiles, rounded up
    over = (0, m * down + 2 - H), (0, m * across + 2 - W)
    x = np.pad(x, ((0, 0), (0, 0), *over))
    tiles = np.empty((n, n, C, N, down, across), x.dtype)
    for i, j in np.ndindex(n, n):  # a pixel of all tiles at a time
        pixel = x[:, :, i : i + m * down : m, j : j + m * across : m]
        tiles[i, j] = pixel.swapaxes(0, 1)

    values = (B.T @ tiles.reshape(n * n, -1)).reshape(n * n, C, -1)
    taps = (G @ w.reshape(-1, 9).T).reshape(n * n, filters, C)
    products = taps @ values  # one matrix product for each of the n * n points

    y = A.T @ products.reshape(n * n, -1)
    # from (m, m, F, N, down, across) to (N, F, down, m, across, m), tile beside tile
    y = y.reshape(m, m, filters, N, down, across).transpose(3, 2, 4, 0, 5, 1)
    return y.reshape(N, filters, m * down, m * across)[:, :, : H - 2, : W - 2]


assert np.allclose(conv_by_winograd(x, w), conv_by_columns(x, w), atol=1e-4)
print(f"{gflops(conv_by_winograd):.1f} GFLOP/s, in effect")

# %% [markdown]
# "In effect" means that we count the operations of the definition, as before, though fewer were done. Now the parts
# around the products count: to bring tiles to the points and outputs back is many operations on numbers that are used
# once or twice, and memory bounds those. In NumPy each of these steps goes through memory, and they can eat up the
# gain.
#
# ### The price: rounding
#
# Larger tiles need fewer multiplications for an output: $(m + 2)^2 / m^2$. But the more points, the larger the numbers
# in the matrices. Large values are computed, which almost cancel in the end, and what was rounded off from them stays.
# Here is the largest error in float32 as a part of the largest output, on two images; the truth is computed in
# float64. The points are 0, 1, -1 for 2 x 2, the engine's own for 4 x 4 and 6 x 6 (`POINTS` has them by the number of
# multiplications, 6 and 8), and whole numbers for 6 x 6 once more.

# %%
exact = conv_by_columns(x[:2].astype("float64"), w.astype("float64"))


def error(found, exact):
    """The largest difference, as a part of the largest number."""
    return np.abs(found - exact).max() / np.abs(exact).max()


whole_numbers = (0, 1, -1, 2, -2, 3, -3)
choices = [(2, (0, 1, -1)), (4, POINTS[6]), (6, POINTS[8]), (6, whole_numbers)]
rows = [("im2col", 9, 1, error(conv_by_columns(x[:2], w), exact))]
for m, chosen in choices:
    largest = max(np.abs(matrix).max() for matrix in cook_toom(m, 3, chosen))
    found = error(conv_by_winograd(x[:2], w, m, chosen), exact)
    rows.append((f"{m} x {m}", (m + 2) ** 2 / m**2, largest, found))
print("tiles     products for an output  largest in matrices     error")
for name, count, largest, found in rows:
    print(f"{name:10}{count:22.2f}{largest:21.0f}{found:12.1e}")
print("the last one from the points", whole_numbers)
errors = [found for *_, found in rows[1:]]
assert errors == sorted(errors) and errors[-1] < 0.01

# %% [markdown]
# The engine takes 4 x 4. `backends/winograd.py` says how large the errors are in AlexNet's layers. Whether they matter
# can only be measured by training, and who wants to do without them trains with `--convolution im2col`.
#
# ### The gradients
#
# They are convolutions again. Lesson 3's input gradient spreads `gy` over the pixels. One can just as well say that
# each pixel gathers: the `gy` around it, surrounded by zeros, with the filter turned by 180 degrees, and with channels
# and filters in each other's place.

# %%
gy = rng.standard_normal((2, 384, 13, 13)).astype("float32")
images, filters = mt.tensor(x[:2], requires_grad=True), mt.tensor(w, requires_grad=True)
F.conv2d(images, filters).backward(mt.tensor(gy))

around = np.pad(gy, ((0, 0), (0, 0), (2, 2), (2, 2)))
turned = w.swapaxes(0, 1)[:, :, ::-1, ::-1]
gx = conv_by_winograd(around, turned, 4, POINTS[6])
assert np.allclose(gx, images.grad.numpy(), atol=1e-3)
print("gradient of the input:", gx.shape)

# %% [markdown]
# And the gradient of the weights is the formula with its matrices in other roles: $g$ goes to the points by G, so what
# arrives there comes back by $G^T$. For one tile:

# %%
g_out = rng.standard_normal((2, 2))
g_taps = G.T @ ((A @ g_out @ A.T) * (B.T @ tile @ B)) @ G
by_definition = conv_loops(tile.reshape(1, 1, 4, 4), g_out.reshape(1, 1, 2, 2))
assert np.allclose(g_taps, by_definition)
print("gradient of the taps:", g_taps.shape)

# %% [markdown]
# ## The whole ladder
#
# Now all speeds side by side. Those of the two loops are from above, measured on a part. The others take turns, so
# that the comparison is fair. The last is the engine's own: the same formula, with compiled loops for the way there
# and back, and a few images at a time, so that everything stays in a cache.

# %%
engine.set_convolution("winograd")
x_tensor, w_tensor = mt.tensor(x), mt.tensor(w)


def by_the_engine():
    with mt.no_grad():
        return F.conv2d(x_tensor, w_tensor)


speeds = {"Python loops": python_speed, "compiled loops": compiled_speed}
rungs = {
    "im2col": lambda: conv_by_columns(x, w),
    "threads over images": lambda: conv_in_threads(x, w, CORES),
    "Winograd in NumPy, 4 x 4": lambda: conv_by_winograd(x, w, 4, POINTS[6]),
    "the engine's Winograd": by_the_engine,
}
assert np.allclose(by_the_engine().numpy(), conv_by_columns(x, w), atol=1e-3)
for name, times in in_turns(rungs).items():
    speeds[name] = 1000 * operations(x, w) / statistics.median(times)
engine.set_convolution("auto")  # the cheaper way for each layer, as usual

# %%
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
axes.barh(list(speeds), [speed / 1e9 for speed in speeds.values()], color=BLUE)
axes.axvline(peak.operations / 1e9, color=RED, linestyle="--", label="peak, measured")
to_the_right = axes.get_yaxis_transform()
for place, speed in enumerate(speeds.values()):
    label = f" {speed / 1e9:.3g}   x {speed / python_speed:,.0f}"
    axes.text(1.0, place, label, transform=to_the_right, va="center")
axes.set(xscale="log", xlabel="GFLOP/s in effect, and times as fast as Python loops")
axes.xaxis.set_major_formatter("{x:g}")
axes.invert_yaxis()
axes.legend(loc="upper center")
plt.show()
assert speeds["the engine's Winograd"] > 100 * python_speed

# %% [markdown]
# Each rung has a reason: instructions settled once; numbers used again while they are near, and several at once; all
# cores, each within its cache; fewer multiplications, if the steps around them stay out of memory. The last rung can
# lie above the peak, since the peak counts multiplications that are done, and for Winograd we count those that the
# definition asks for.
#
# ## On a graphics card
#
# A GPU has the same two bounds, and the same remedies. **No line of this lesson says how fast one is: this engine's
# kernels have not been measured on a GPU yet.** But they can be read. A GPU runs a function, a *kernel*, many times at
# once, in *blocks* of threads (lesson 6). In `kernels/matmul.cu` a block does by hand what a cache does by itself. Its
# 16 x 16 threads copy a tile of each matrix into *shared memory*, a little memory close to them, wait for one another
# (`__syncthreads`), and multiply from there. So each number that was fetched serves 16 threads. (`T` is the type of
# the numbers, and `TILE` is 16. Lines that are too long for the page are broken.)

# %%
text = (kernel_folder() / "matmul.cu").read_text()
for line in text[text.index("__global__ void matmul_tiled") :].splitlines():
    print(textwrap.fill(line, 88, subsequent_indent=8 * " "))

# %% [markdown]
# Where there is a C++ compiler, the same text runs on your processor, thread by thread:

# %%
a, b = rng.standard_normal((2, 32, 32), "float32")
y = np.empty((32, 32), "float32")
if why_not() is None:
    name = "matmul_tiled<float>"
    kernel = load("matmul.cu", [name]).get_function(name)
    kernel((2, 2), (16, 16), (a, b, y, 32, 32, 32))  # 2 x 2 blocks of 16 x 16 threads
    print("largest difference:", np.abs(y - a @ b).max())
    assert np.allclose(y, a @ b, atol=1e-4)
else:
    print(why_not())

# %% [markdown]
# ### Smaller numbers: tensor cores
#
# Numbers of 16 bits need half the room, so twice as many come from memory in the same time. And NVIDIA's GPUs since
# 2017 have *tensor cores*, whose instruction is the tile itself: it multiplies two small matrices, for example 16 x 16,
# and adds the result to a third. The factors have 16 bits, and **the sums should have 32**. Why not as few?

# %%
half = np.float16
print("float16: 2048 + 1 =", int(half(2048) + half(1)))
print("the largest float16:", int(np.finfo(half).max))
assert half(2048) + half(1) == 2048

# %% [markdown]
# float16 keeps 11 binary digits. A sum that has grown large no longer notices what is added. There are two kinds of 16
# bits. float16 spends 5 of them on the size of a number, which ends at 65,504 and loses what is far below 1.
# *bfloat16* spends 8 on it, as float32 does, so it reaches as far, but only 8 digits are left. NumPy has no bfloat16.
# It is a float32 whose lower half is rounded away. (`view` reads the same 32 bits as a whole number. To round, nearly
# half of $2^{16}$ is added before the lower 16 bits are cut off. The last term decides in the case exactly between
# two: for the even one, as Python's `round` does.)


# %%
def to_bfloat16(values):
    """float32 with the upper 16 bits only, rounded to the nearest, ties to even."""
    bits = np.asarray(values, "float32").view("uint32")
    bits = bits + 0x7FFF + ((bits >> 16) & 1)
    return (bits & 0xFFFF0000).view("float32")


for value in 1 / 3, 257.0, 70000.0, 1e-8:
    with np.errstate(over="ignore"):
        short = half(value)
    print(f"{value:.6g}: float16 {short:.6g}, bfloat16 {to_bfloat16([value])[0]:.6g}")
assert half(1e-8) == 0 and to_bfloat16([1e-8])[0] > 0

# %% [markdown]
# A gradient of $10^{-8}$ is 0 in float16. Now 500 sums of 4096 products each, with the factors rounded in either way
# and the sum in float32, and one with the sum in float16, too. Errors are parts of the largest sum.

# %%
a, b = rng.standard_normal((2, 4096, 500)).astype("float32")
exact = (a.astype("float64") * b).sum(axis=0)
a16, b16 = a.astype(half), b.astype(half)
short_sums = np.zeros(500, half)
for k in range(4096):
    short_sums = short_sums + a16[k] * b16[k]  # rounded to float16 at every step
errors = {
    "float32, sum float32": (a * b).sum(axis=0),
    "float16, sum float32": (a16.astype("float32") * b16).sum(axis=0),
    "bfloat16, sum float32": (to_bfloat16(a) * to_bfloat16(b)).sum(axis=0),
    "float16, sum float16": short_sums,
}
for name, sums in errors.items():
    errors[name] = error(sums, exact)
    print(f"{name:22} error {errors[name]:.1e}")
exactly, float16, bfloat16, short = errors.values()
assert exactly < float16 < bfloat16 and short > 5 * float16

# %% [markdown]
# Short factors cost digits once. Short sums cost some at every step. That is why one lets tensor cores add in float32.
# The engine is written to use them, through NVIDIA's library for matrix products: `--backend cupy --precision bf16`.
#
# ## A whole step
#
# A convolution is not a network. The engine can tell where the time of a training step goes: `profile` takes some
# steps, and times every layer, forward and backward. Here is a small AlexNet for images of 32 x 32, with random ones.
# The last column is the least time in which this machine could do the layer, by the roofline, as a share of the time
# that it took.

# %%
BATCH = 64
mt.manual_seed(0)
network = models.build("alexnet_small", 10, (3, 32, 32))
optimizer = optim.SGD(network.parameters(), 0.001, 0.9, form="paper")
photographs = rng.standard_normal((BATCH, 3, 32, 32)).astype("float32")
step = profile(network, optimizer, photographs, rng.integers(0, 10, BATCH))

print(f"{'layer':10}{'':19}{'ms':>8}{'of step':>9}{'GFLOP/s':>9}{'of peak':>9}")
for row in step.rows:
    took = max(row.milliseconds, 1e-6)
    cells = f"{took:8.2f}{took / step.milliseconds:9.1%}"
    cells += f"{row.operations / took / 1e6:9.1f}" if row.operations else 9 * " "
    cells += f"{step.least(row) / took:9.0%}" if step.least(row) else ""
    print(f"{row.path:10}{row.kind:19}{cells}")

# %% [markdown]
# More than 100 % is no mistake. Winograd does fewer multiplications than are counted here, and what lies in a cache
# need not come from memory. Where the share is small, there is something to gain, and where the time is large, it is
# worth the trouble.
#
# ### Amdahl's law
#
# Suppose that convolutions took no time at all. The step would still take the rest. If a share $p$ of the time becomes
# $s$ times as fast, the whole becomes
#
# $$\frac{1}{(1 - p) + p / s}$$
#
# times as fast, and never more than $1 / (1 - p)$. This is Amdahl's law, of 1967.


# %%
def whole_speedup(p, s):
    return 1 / ((1 - p) + p / s)


convolutions = sum(row.milliseconds for row in step.rows if row.kind == "Conv2d")
p = convolutions / step.milliseconds
print(f"convolutions take {p:.0%} of this step")
for s in 2, 10, 1000, math.inf:
    whole = whole_speedup(p, s)
    print(f"if they were {s} times as fast, the step would be {whole:.2f} times")
    assert whole <= 1 / (1 - p)

# %%
s = np.logspace(0, 4, 200)
figure, axes = plt.subplots(figsize=(9, 3), layout="constrained")
for share in 0.5, 0.9, 0.99:
    speedups = whole_speedup(share, s)
    axes.loglog(s, speedups, color="gray", linewidth=0.8)
    axes.text(1.2e4, speedups[-1], f"{share:.0%}", va="center", color="gray")
axes.loglog(s, whole_speedup(p, s), color=RED, label=f"your step: {p:.0%} convolutions")
axes.set(xlabel="how much faster a part becomes", ylabel="... and the whole")
axes.set_xlim(0.8, 3e4)
axes.xaxis.set_major_formatter("{x:g}")
axes.yaxis.set_major_formatter("{x:g}")
axes.legend()
plt.show()

# %% [markdown]
# After every gain something else is in the way, and the next profile says what. So profile first, and then improve what
# the profile shows, not what is most fun.
#
# In a shell you can go on with AlexNet itself. The first of these shows its profile, the second this ladder with both
# gradients, the third a comparison with PyTorch and Keras, where they are installed. (The last two want a clone of the
# repository.)
#
# ```sh
# python -m minitorch_alex.train --config alexnet --profile
# python -m benchmarks.ladder
# python -m benchmarks.cpu --quick
# ```
#
# ## Summary
#
# - Measure warm, repeatedly, in turns, and know the noise. The first call of a compiled function measures the compiler.
# - Arithmetic bounds a computation that does many operations per byte, memory one that does few: ReLU, pooling, and
#   large linear layers on small batches.
# - Memory comes in lines and is kept in caches. Walk along rows, and work in tiles that fit.
# - Convolution climbs by compiled loops, by one matrix product, by threads that stay within their caches, and by
#   Winograd's formula, which multiplies less and rounds more.
# - Tensor cores multiply tiles of short numbers. The sums must be longer.
# - The part that is not improved limits the whole.
#
# ## Exercises
#
# As in lesson 1: write each function, run the cell, then the check below it. `hint("10.1")` helps.
#
# ### 10.1 The roof (5 minutes)
#
# Write `roofline(operations, moved, peak_operations, peak_bytes)`: how many operations a second a computation can reach
# at most, if it does `operations` operations and moves `moved` bytes, on a machine that does `peak_operations`
# operations and moves `peak_bytes` bytes in a second.


# %%
def roofline(operations, moved, peak_operations, peak_bytes):
    ### BEGIN SOLUTION
    return min(peak_operations, operations / moved * peak_bytes)
    ### END SOLUTION


# %%
check("10.1", roofline)

# %% [markdown]
# ### 10.2 Three outputs, four multiplications (15 minutes)
#
# Write `filter_of_two(d, g)`: the three outputs $y_p = g_0 d_p + g_1 d_{p+1}$ of four pixels `d` and two taps `g`, as a
# list, with **four** multiplications of something made of `d` by something made of `g`. Additions and halves are free.
# `cook_toom(3, 2, (0, 1, -1))` knows the matrices. The check hands in numbers that count how often they are multiplied.


# %%
def filter_of_two(d, g):
    ### BEGIN SOLUTION
    m0 = (d[0] - d[2]) * g[0]
    m1 = (d[1] + d[2]) * ((g[0] + g[1]) / 2)
    m2 = (d[2] - d[1]) * ((g[0] - g[1]) / 2)
    m3 = (d[3] - d[1]) * g[1]
    return [m0 + m1 + m2, m1 - m2, m1 + m2 + m3]
    ### END SOLUTION


# %%
check("10.2", filter_of_two)

# %% [markdown]
# ### 10.3 Which tiles? (10 minutes)
#
# Write `winograd_multiplications(P, Q, m, r)`: how many multiplications an output of P x Q takes, for one channel and
# one filter of r x r taps, by tiles of m x m outputs. Tiles at the lower and right edge that hang over count in full.
# Then compare 2, 4 and 6 for AlexNet's 13 x 13 outputs and 3 x 3 taps. Why does 6 gain nothing over 4 there?


# %%
def winograd_multiplications(P, Q, m, r):
    ### BEGIN SOLUTION
    tiles = math.ceil(P / m) * math.ceil(Q / m)
    return tiles * (m + r - 1) ** 2
    ### END SOLUTION


# %%
check("10.3", winograd_multiplications)

# %% [markdown]
# ### 10.4 Amdahl's law for several parts (10 minutes)
#
# Write `amdahl(shares, speedups)`: how many times as fast the whole becomes, if part $i$, which took the share
# `shares[i]` of the time, becomes `speedups[i]` times as fast. Both are lists of equal length. What the shares leave
# over stays as it is. A speed-up may be `math.inf`.


# %%
def amdahl(shares, speedups):
    ### BEGIN SOLUTION
    improved = sum(share / speedup for share, speedup in zip(shares, speedups))
    return 1 / (1 - sum(shares) + improved)
    ### END SOLUTION


# %%
check("10.4", amdahl)

# %% [markdown]
# ### 10.5 A product of tiles (20 minutes)
#
# Write `blocked_matmul(a, b, tile)`: the product of `a` (M, K) and `b` (K, L), put together from products of tiles.
# Each factor is a tile of `tile` x `tile` numbers, or what is left of it at an edge. Cut tiles out with slices, and
# multiply them with `@`. The check watches which shapes are multiplied.


# %%
def blocked_matmul(a, b, tile):
    ### BEGIN SOLUTION
    (M, K), L = a.shape, b.shape[1]
    y = np.zeros((M, L))
    for i in range(0, M, tile):
        for j in range(0, L, tile):
            for k in range(0, K, tile):
                left = a[i : i + tile, k : k + tile]
                y[i : i + tile, j : j + tile] += left @ b[k : k + tile, j : j + tile]
    return y
    ### END SOLUTION


# %%
check("10.5", blocked_matmul)

# %% [markdown]
# **Next:** this was the last lesson. Now read the engine itself: the README's "How to read it" gives an order for its
# files, and you have met most of what is in them.
