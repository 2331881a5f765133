# %% [markdown]
# # 3. Convolution
#
# AlexNet looks at a picture through small windows. Its first layer, conv1, has 96 *filters* of 11 x 11 pixels and 3
# colours (the paper calls them kernels). Each slides over the picture in steps of 4 pixels and asks everywhere the same
# question: how much does this place look like me? Section 3.5 of the paper lists the filters of all five such layers,
# and section 3.2 tells how they were shared out between two graphics cards. How to compute them it does not say. This
# lesson builds it three times: with loops, as one matrix product, and as an operation with gradients.
#
# **Afterwards you can** write convolution both ways, derive both of its gradients, say why the gradient of a pixel is a
# sum over windows, and tell what the two columns of AlexNet do and do not see.
#
# You need lessons 1 and 2, and matrix products. The lesson takes about 60 minutes.

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
import time

import matplotlib.pyplot as plt
import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex.backends.numpy_backend import Window
from minitorch_alex.data import load
from minitorch_alex.exercises import check, hint
from minitorch_alex.functional.convolution import _conv2d
from minitorch_alex.gradcheck import gradcheck
from minitorch_alex.source import source
from minitorch_alex.tensor import op

# %% [markdown]
# ## Why not one weight for every pair?
#
# The paper's input is a picture of 224 x 224 pixels in 3 colours, and conv1 has 55 x 55 x 96 outputs. With a weight of
# its own for each pair of input and output, this one layer would need a great many weights. Filters look at one small
# window at a time, and use **the same weights in every window**.

# %%
pixels, outputs = 224 * 224 * 3, 55 * 55 * 96
print(f"a weight for each pair: {pixels * outputs:,}")
print(f"96 filters:             {96 * 11 * 11 * 3:,}")

# %% [markdown]
# ## One channel, one filter
#
# We begin with a grey picture: one *channel*, where a coloured picture has three. The engine brings small real ones,
# digits written by hand. Here is one, with values from 0 (black) to 1 (white).

# %%
image = load("digits").train_images[0, 0] / 255
print(image.shape)
print(image.round(1))

# %% [markdown]
# A filter of R x S numbers (its *taps*) is laid on the picture. Every tap is multiplied by the pixel under it, and the
# products are added up. That is one number, for one place of the filter. Then the filter moves on. For the window in
# row $p$ and column $q$:
#
# $$y_{p,q} = \sum_{r} \sum_{s} w_{r,s} \, x_{p+r,\, q+s}$$


# %%
def slide(x, w):
    (H, W), (R, S) = x.shape, w.shape
    y = np.zeros((H - R + 1, W - S + 1))
    for p in range(y.shape[0]):
        for q in range(y.shape[1]):
            y[p, q] = (w * x[p : p + R, q : q + S]).sum()
    return y


# what is on the right, minus what is on the left
edge = np.array([[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]])
result = slide(image, edge)
print(image.shape, "->", result.shape)

# %% [markdown]
# The engine's function for it is `F.conv2d`. It wants four axes, of which the first two have length 1 here. We come to
# them below.

# %%
x, w = mt.tensor(image.reshape(1, 1, 8, 8)), mt.tensor(edge.reshape(1, 1, 3, 3))
y = F.conv2d(x, w)
print(y.shape)
assert np.allclose(y.numpy()[0, 0], result)

# %% [markdown]
# This filter answers to upright edges: white where the picture gets brighter to the right, black where it gets darker,
# grey where nothing changes. Nobody needs to invent such filters. Training finds them: the paper's Figure 3 shows the
# 96 that AlexNet learned, and many of them are edges.

# %%
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
axes[0].imshow(image, cmap="gray")
axes[0].set_title("picture, 8 x 8")
axes[1].imshow(edge, cmap="gray", vmin=-2, vmax=2)
axes[1].set_title("filter, 3 x 3")
for (r, s), tap in np.ndenumerate(edge):
    axes[1].text(s, r, f"{tap:.0f}", ha="center", va="center")
axes[2].imshow(result, cmap="gray", vmin=-2.5, vmax=2.5)
axes[2].set_title("result, 6 x 6")
for ax in axes:
    ax.set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ### A word about the name
#
# In mathematics a convolution turns the filter round before it slides it. What deep learning calls convolution does
# not: strictly, it is a *cross-correlation*. NumPy has both, for a single row. Since the weights are learned, the
# network does not mind: it would learn them turned round.

# %%
row, taps = image[3], np.array([-1.0, 0.0, 2.0])
ours = slide(row.reshape(1, 8), taps.reshape(1, 3))[0]
assert np.allclose(ours, np.correlate(row, taps, mode="valid"))
assert not np.allclose(ours, np.convolve(row, taps, mode="valid"))
assert np.allclose(ours, np.convolve(row, taps[::-1], mode="valid"))  # turned back

# %% [markdown]
# ## Stride and padding
#
# The result was smaller than the picture, since the filter must lie inside. And it moved by one pixel at a time. Both
# can be changed:
#
# - **padding**: surround the picture with that many zeros on every side, so that the filter reaches the border too;
# - **stride**: move by that many pixels, which makes the result smaller and the work less.


# %%
def slide(x, w, stride=1, padding=0):
    x = np.pad(x, padding)
    (H, W), (R, S) = x.shape, w.shape
    y = np.zeros(((H - R) // stride + 1, (W - S) // stride + 1))
    for p in range(y.shape[0]):
        for q in range(y.shape[1]):
            top, left = p * stride, q * stride
            y[p, q] = (w * x[top : top + R, left : left + S]).sum()
    return y


x, w = mt.tensor(image.reshape(1, 1, 8, 8)), mt.tensor(edge.reshape(1, 1, 3, 3))
for stride, padding in [(1, 0), (1, 1), (2, 0), (2, 1), (3, 2)]:
    ours = slide(image, edge, stride, padding)
    engines = F.conv2d(x, w, stride=stride, padding=padding)
    print(f"stride {stride}, padding {padding}: {ours.shape}")
    assert np.allclose(ours, engines.numpy()[0, 0])

# %%
settings = [(1, 0), (1, 1), (2, 1)]
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, (stride, padding) in zip(axes, settings):
    y = slide(image, edge, stride, padding)
    ax.imshow(y, cmap="gray", vmin=-2.5, vmax=2.5)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"stride {stride}, padding {padding}: {y.shape[0]} x {y.shape[1]}")
plt.show()

# %% [markdown]
# ### How large is the result?
#
# Along one axis there are $H + 2 \cdot \text{padding}$ pixels, zeros included. The first window takes $R$ of them.
# Every further one needs `stride` pixels more, and what is left over at the end is not used. So there are
#
# $$P = \left\lfloor \frac{H + 2 \cdot \text{padding} - R}{\text{stride}} \right\rfloor + 1$$
#
# windows, where $\lfloor \cdot \rfloor$ means rounded down. In the engine a `Window` knows its size, stride and
# padding, each as a pair (vertical, horizontal), and counts with that formula. Here it is against counting one by one.


# %%
def count_windows(n, kernel, stride, padding):
    count, start = 0, -padding
    while start + kernel <= n + padding:
        count, start = count + 1, start + stride
    return count


for n in range(11, 40):
    for stride in (1, 2, 3, 4):
        for padding in (0, 1, 2):
            window = Window((11, 11), (stride, stride), (padding, padding))
            counted = count_windows(n, 11, stride, padding)
            assert window.output_size(n, n) == (counted, counted)
print("the formula is right, as far as tried")

# %% [markdown]
# ### 224 or 227?
#
# The paper says that the pictures have 224 x 224 pixels and that conv1 has 11 x 11 filters and stride 4. It speaks of
# no padding, and its Figure 2 shows 55 x 55 outputs. Do these numbers meet?


# %%
def conv1_size(n, padding):
    return Window((11, 11), (4, 4), (padding, padding)).output_size(n, n)


print("224, no padding:", conv1_size(224, 0))
print("227, no padding:", conv1_size(227, 0))
print("224, padding 2: ", conv1_size(224, 2))
assert conv1_size(224, 0) == (54, 54)
assert conv1_size(227, 0) == (55, 55)
assert conv1_size(224, 2) == (55, 55)

# %% [markdown]
# They do not: 224 pixels give 54 outputs. (What follows is a riddle that everybody asks about. It may be skipped.) Many
# programs therefore take 227 pixels, others 224 with padding 2. The authors' own program, published since, cuts out 224
# and rounds the number of windows *up*: the last window hangs over the edge, and reads zeros there. So where does the
# last window end?

# %%
cases = [
    ("224", 224, 0, 54),
    ("227", 227, 0, 55),
    ("224, padding 2", 224, 2, 55),
    ("224, rounded up", 224, 0, 55),
]
for name, n, padding, count in cases:
    end = (count - 1) * 4 - padding + 10
    pixels = f"pixels {-padding} to {n - 1 + padding}"
    print(f"{name}: {pixels}, {count} windows from {-padding} to {end}")

# %% [markdown]
# In the first case no window sees the picture's last row and column. With 227 everything fits exactly. With padding 2
# one column of the zeros is left over, and rounded up three more columns are needed. The other three cases have 55
# windows each, and yet no two of them see the same. Here are the rightmost three windows of every case. A line is
# dotted where it reads zeros.

# %%
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
for i, (_, n, padding, count) in enumerate(cases):
    ax.barh(-i, n - 195, left=195, height=0.8, color="#dddddd")
    for k in range(3):
        start, height = (count - 3 + k) * 4 - padding, 0.22 * (1 - k) - i
        inside = min(start + 11, n)
        ax.plot([start, inside], [height, height], color="#3b6fb6", lw=3)
        ax.plot([inside, start + 11], [height, height], ":", color="#c8553d", lw=3)
names = [f"{name}: {count} windows" for name, _, _, count in cases]
ax.set_yticks([0, -1, -2, -3], names)
ax.set_xticks(range(200, 229, 4))
ax.set(xlim=(200, 228.5), xlabel="pixel (grey: the picture)")
ax.set_title("The right edge of conv1: the last three windows")
plt.show()

# %% [markdown]
# ## Channels, filters, images
#
# Three more numbers, and the convolution is complete.
#
# - A picture has C **channels**: red, green and blue, or later on the outputs of the layer before. A filter has taps
#   for each of them, and the products are added up over the channels too.
# - A layer has F **filters**. Each makes one channel of the output.
# - Training works on N images at a time, a **batch**. They have nothing to do with each other.
#
# So x has shape (N, C, H, W), w has shape (F, C, R, S), and y has shape (N, F, P, Q). (In code of your own do not call
# the number of filters F: that is the module with `F.conv2d`. The backends do not use that module, so there it is the
# number.) Written out, without stride and padding, that is seven loops around a single line:


# %%
def conv2d_by_loops(x, w):
    (N, C, H, W), (filters, _, R, S) = x.shape, w.shape
    P, Q = H - R + 1, W - S + 1
    y = np.zeros((N, filters, P, Q))
    for n in range(N):
        for f in range(filters):
            for p in range(P):
                for q in range(Q):
                    for c in range(C):
                        for r in range(R):
                            for s in range(S):
                                tap, pixel = w[f, c, r, s], x[n, c, p + r, q + s]
                                y[n, f, p, q] += tap * pixel
    return y


rng = np.random.default_rng(0)
x, w = rng.standard_normal((2, 3, 20, 20)), rng.standard_normal((8, 3, 5, 5))
began = time.perf_counter()
y = conv2d_by_loops(x, w)
loops_took = time.perf_counter() - began
assert np.allclose(y, F.conv2d(mt.tensor(x), mt.tensor(w)).numpy())
print(y.shape, f"in {1000 * loops_took:.0f} ms")

# %% [markdown]
# The engine needs less. We time it five times and keep the shortest, which is the one that was disturbed least.


# %%
def shortest_time(function, *arguments):
    times = []
    for _ in range(5):
        began = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - began)
    return min(times)


engine_took = shortest_time(F.conv2d, mt.tensor(x), mt.tensor(w))
print(f"loops {1000 * loops_took:.1f} ms, engine {1000 * engine_took:.3f} ms")
print(f"the engine is {loops_took / engine_took:.0f} times as fast")
assert loops_took > 10 * engine_took

# %% [markdown]
# Loops in Python are slow. What does the engine do in the place of seven of them?
#
# ## One matrix product
#
# For the product of two matrices there are programs that people have polished for decades. Can a convolution be one?
# Each output is a sum of products of a filter and a *patch*, the pixels in one window. A matrix product consists of
# nothing but such sums: row times column. So
#
# - write every filter as a **row** of a matrix: F rows of `C*R*S` taps;
# - write every patch as a **column** of another: `P*Q` columns of `C*R*S` pixels.
#
# Then their product has F rows and `P*Q` columns, and its entry $(f, j)$ is filter $f$ on patch $j$. The second matrix
# is known by the name *im2col*, image to columns. For one channel and stride 1:


# %%
def im2col_plainly(x, R, S):
    (H, W) = x.shape
    P, Q = H - R + 1, W - S + 1
    columns = np.zeros((R * S, P * Q))
    for p in range(P):
        for q in range(Q):
            columns[:, p * Q + q] = x[p : p + R, q : q + S].reshape(-1)
    return columns


columns = im2col_plainly(image, 3, 3)
print("columns", columns.shape)
y = edge.reshape(1, 9) @ columns
print("(1 x 9) @ (9 x 36) gives", y.shape)
assert np.allclose(y.reshape(6, 6), slide(image, edge))

# %% [markdown]
# In pictures: one window, the column it becomes (its pixels numbered in reading order), and the matrix of all columns.

# %%
p, q = 1, 3
figure, axes = plt.subplots(
    1, 3, figsize=(9, 3), width_ratios=[3, 1, 6], layout="constrained"
)
patch = columns[:, [p * 6 + q]]
axes[0].imshow(image, cmap="gray")
axes[1].imshow(patch, cmap="gray", vmin=0, vmax=1)
axes[2].imshow(columns, cmap="gray", aspect="auto")
for k, pixel in enumerate(patch[:, 0]):
    colour = "black" if pixel > 0.5 else "white"
    axes[0].text(q + k % 3, p + k // 3, k, color=colour, ha="center", va="center")
    axes[1].text(0, k, k, color=colour, ha="center", va="center")
frame = {"fill": False, "edgecolor": "#c8553d", "lw": 2.5, "clip_on": False}
axes[0].add_patch(plt.Rectangle((q - 0.5, p - 0.5), 3, 3, **frame))
axes[2].add_patch(plt.Rectangle((p * 6 + q - 0.5, -0.5), 1, 9, **frame))
for ax, title in zip(axes, ["picture, 8 x 8", f"column {p * 6 + q}", "all 36 columns"]):
    ax.set(xticks=[], yticks=[], title=title)
plt.show()

# %% [markdown]
# Look at the matrix the other way, along a **row**. Row $k$ holds, for every window, the pixel under tap $k$. As the
# window slides over the picture, so does that pixel: a row of the matrix is the picture itself, shifted and without its
# border.

# %%
for k in range(9):
    r, s = k // 3, k % 3
    assert (columns[k].reshape(6, 6) == image[r : r + 6, s : s + 6]).all()

# %% [markdown]
# That is how the engine fills the matrix: not window by window, but tap by tap, and each tap for all windows in one
# assignment. A *backend* is the part of an engine that does the work on arrays. The one called "numpy" is written to be
# read. Its `im2col` takes a batch, with channels, stride and padding (`pad_image` surrounds it with zeros). Until its
# last line the axes are (N, C, R, S, P, Q), so `columns[:, :, r, s]` is what tap (r, s) meets in all windows:

# %%
backend = mt.backends.get("numpy")
engines = backend.im2col(image.reshape(1, 1, 8, 8), Window((3, 3)))
print(engines.shape)
assert (engines[0] == columns).all()
source(backend.im2col)

# %% [markdown]
# `window.taps` says for each tap which pixels it meets: `slice(a, b, step)` is what Python makes of `a:b:step`.
# (`dilation` would spread the taps apart. It is 1 throughout AlexNet, and can be ignored.)

# %%
source(Window.taps)

# %% [markdown]
# ### In the size of AlexNet
#
# Here is conv1 as one product, on a picture of 227 x 227 random pixels.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 3, 227, 227)).astype("float32")
w = rng.standard_normal((96, 3, 11, 11)).astype("float32")
columns = backend.im2col(x, Window((11, 11), (4, 4)))[0]
filters = w.reshape(96, 3 * 11 * 11)
y = filters @ columns
print(f"{filters.shape} @ {columns.shape} gives {y.shape}")
engines = F.conv2d(mt.tensor(x), mt.tensor(w), stride=4).numpy()
assert np.allclose(y.reshape(1, 96, 55, 55), engines, atol=1e-3)  # float32 rounds
assert filters.shape == (96, 363) and columns.shape == (363, 3025)

# %% [markdown]
# It multiplies as often as the seven loops would, once per output and tap. But it gets through far more of them in a
# second.

# %%
by_loops = 2 * 8 * 16 * 16 * (3 * 5 * 5) / loops_took  # the example above
took = shortest_time(lambda: filters @ columns)
by_product = 96 * 3025 * 363 / took
print(f"conv1: {96 * 3025 * 363:,} multiplications in {1000 * took:.1f} ms")
print(f"a second of loops:          {by_loops:14,.0f} multiplications")
print(f"a second of matrix product: {by_product:14,.0f} multiplications")
assert by_product > 20 * by_loops

# %% [markdown]
# The price is memory. A pixel that lies in many windows is copied many times. (Between the layers the picture is
# halved, 55 to 27 to 13: that is pooling, in lesson 4.)

# %%
conv1 = (1, 3, 227, 227), Window((11, 11), (4, 4))
conv2 = (1, 96, 27, 27), Window((5, 5), padding=(2, 2))
conv3 = (1, 256, 13, 13), Window((3, 3), padding=(1, 1))
for name, (shape, window) in {"conv1": conv1, "conv2": conv2, "conv3": conv3}.items():
    x = np.zeros(shape, "float32")
    columns = backend.im2col(x, window)
    print(
        f"{name}: {window.kernel}, stride {window.stride[0]}: {columns.shape[1:]}, "
        f"{columns.nbytes / 2**20:.1f} MiB, {columns.size / x.size:.1f} times the input"
    )
    if window.stride == (1, 1):  # with padding to match, as here: once for every tap
        assert columns.size == x.size * window.kernel[0] * window.kernel[1]

# %% [markdown]
# This is the whole convolution in the numpy backend. `@` multiplies stacks of matrices, image by image. G is the number
# of *groups*, which come at the end of this lesson. Read it as 1 for now.

# %%
source(backend.conv2d)

# %% [markdown]
# ## The two gradients
#
# Training needs two things of this layer: the gradient of the weights, to improve them, and the gradient of the input,
# to pass on to the layer before. Let `gy` be the gradient that arrives: how fast the network's error grows with each
# output.
#
# Look at the line inside the seven loops. It adds a product $w \cdot x$ to $y$. From lesson 1 we know what a product
# does on the way back: $w$ receives `gy` times $x$, and $x$ receives `gy` times $w$. Both occur in many products, and
# paths add up. Plainly, for one channel and one filter:


# %%
def slide_gradients(gy, x, w):
    gx, gw = np.zeros(x.shape), np.zeros(w.shape)
    R, S = w.shape
    for p, q in np.ndindex(gy.shape):
        gw += gy[p, q] * x[p : p + R, q : q + S]
        gx[p : p + R, q : q + S] += gy[p, q] * w
    return gx, gw


gy = np.random.default_rng(0).standard_normal((6, 6))
gx, gw = slide_gradients(gy, image, edge)

x = mt.tensor(image.reshape(1, 1, 8, 8), requires_grad=True)
w = mt.tensor(edge.reshape(1, 1, 3, 3), requires_grad=True)
(F.conv2d(x, w) * mt.tensor(gy)).sum().backward()  # so that gy is what arrives
assert np.allclose(x.grad.numpy()[0, 0], gx)
assert np.allclose(w.grad.numpy()[0, 0], gw)
print("gradient of the input", gx.shape, "and of the filter", gw.shape)

# %% [markdown]
# ### The same with matrices
#
# How does a gradient go back through a matrix product $Y = A B$? There $Y_{fj} = \sum_k A_{fk} B_{kj}$. The entry
# $A_{fk}$ is multiplied by $B_{kj}$, for every $j$. Write $gY$ for the gradient of $Y$, and $gA$, $gB$ likewise. So the
# gradient of $A_{fk}$ is the sum over $j$ of $gY_{fj} B_{kj}$. That is a matrix product again, with $B$ turned over
# (*transposed*, rows for columns). The same for $B$:
#
# $$gA = gY \, B^T, \qquad gB = A^T \, gY$$
#
# With $A$ the filters and $B$ the columns, the gradient of the weights is done.

# %%
columns, filters = im2col_plainly(image, 3, 3), edge.reshape(1, 9)
g = gy.reshape(1, 36)
gfilters = g @ columns.T
print("gradient of the filter ", g.shape, "@", columns.T.shape, "=", gfilters.shape)
assert np.allclose(gfilters.reshape(3, 3), gw)

gcolumns = filters.T @ g
print("gradient of the columns", filters.T.shape, "@", g.shape, "=", gcolumns.shape)

# %% [markdown]
# For the input we have the gradient of the *columns* now, not yet that of the pixels. im2col copied every pixel into
# several columns. Lesson 1 says what that means on the way back, when broadcasting did it: **what was copied is added
# up**. The function that does it is called *col2im*. It is im2col with the assignment the other way round, and with
# `+=`:


# %%
def col2im_plainly(columns, shape, R, S):
    (H, W) = shape
    P, Q = H - R + 1, W - S + 1
    x = np.zeros(shape)
    for p in range(P):
        for q in range(Q):
            x[p : p + R, q : q + S] += columns[:, p * Q + q].reshape(R, S)
    return x


assert np.allclose(col2im_plainly(gcolumns, (8, 8), 3, 3), gx)
engines = backend.col2im(gcolumns.reshape(1, 9, 36), (1, 1, 8, 8), Window((3, 3)))
assert np.allclose(engines[0, 0], gx)

# %% [markdown]
# ### How many windows see a pixel?
#
# Send a picture of ones through im2col and back. Each pixel then says how often it was copied. With stride 1 it is 9
# times inside and less at the border. With stride 2 the windows overlap in stripes. With stride 3 they do not overlap
# at all, and nothing is added up.

# %%
ones = np.ones((1, 1, 9, 9))
figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
for ax, stride in zip(axes, (1, 2, 3)):
    window = Window((3, 3), (stride, stride))
    seen = backend.col2im(backend.im2col(ones, window), ones.shape, window)[0, 0]
    ax.imshow(seen, cmap="gray", vmin=0, vmax=9)
    for (i, j), times in np.ndenumerate(seen):
        colour = "black" if times > 4 else "white"
        ax.text(j, i, f"{times:.0f}", color=colour, ha="center", va="center")
    ax.set(xticks=[], yticks=[], title=f"3 x 3 windows, stride {stride}")
    P, Q = window.output_size(9, 9)
    assert seen.sum() == 9 * P * Q  # every entry of the columns came from one pixel
assert (seen == 1).all()  # stride 3
plt.show()

# %% [markdown]
# ### Not the inverse
#
# The names suggest that col2im undoes im2col. The counts say that it does not: it gives every pixel back as often as it
# was copied. So what is it, exactly? Let $c$ be the gradient of the columns, and $\langle a, b \rangle$ the sum of the
# products of all elements of $a$ with those of $b$. im2col only copies, so if the picture changes by $x$, the columns
# change by exactly $\text{im2col}(x)$. If many numbers change by a little, the error changes by the sum of gradient
# times change over all of them: here by $\langle \text{im2col}(x), c \rangle$. Seen from the picture, the same change
# is $\langle x, \text{its gradient} \rangle$, and its gradient is $\text{col2im}(c)$. So for **every** $x$ and $c$:
#
# $$\langle \text{im2col}(x),\, c \rangle = \langle x,\, \text{col2im}(c) \rangle$$
#
# A function with this property is called the *adjoint* of the other. To try it with random numbers is the **dot-product
# test**. It needs no derivative and no small steps.


# %%
def dot_product_test(back):
    rng = np.random.default_rng(0)
    x, c = rng.standard_normal((8, 7)), rng.standard_normal((9, 6 * 5))
    of_columns = (im2col_plainly(x, 3, 3) * c).sum()
    of_pixels = (x * back(c, (8, 7), 3, 3)).sum()
    print(f"<im2col(x), c> = {of_columns:.6f}, <x, col2im(c)> = {of_pixels:.6f}")
    return np.isclose(of_columns, of_pixels)


assert dot_product_test(col2im_plainly)

# %% [markdown]
# The engine's col2im goes tap by tap, like its im2col. At the end it cuts off what was padding.

# %%
source(backend.col2im)

# %% [markdown]
# ### A trap
#
# Here is a col2im with `=` in place of `+=`. Somebody who takes col2im for the inverse tests it by a round trip: the
# picture must come back. The wrong function passes that test, and the right one fails. The dot-product test finds out.


# %%
def col2im_wrong(columns, shape, R, S):
    (H, W) = shape
    P, Q = H - R + 1, W - S + 1
    x = np.zeros(shape)
    for p in range(P):
        for q in range(Q):
            x[p : p + R, q : q + S] = columns[:, p * Q + q].reshape(R, S)
    return x


columns = im2col_plainly(image, 3, 3)
wrong, right = (f(columns, (8, 8), 3, 3) for f in (col2im_wrong, col2im_plainly))
print("the wrong one gives the picture back:", (wrong == image).all())
print("the right one gives the picture back:", (right == image).all())
assert (wrong == image).all() and not (right == image).all()
assert not dot_product_test(col2im_wrong)

# %% [markdown]
# The gradient check of lesson 2 sees it too. We make im2col an operation, with either function for its gradient. (These
# two work on NumPy's arrays, so the check is to use that backend.)


# %%
def operation_with(back):
    @op
    def im2col(xp, x):
        return im2col_plainly(x, 3, 3), (lambda g: back(g, x.shape, 3, 3),)

    return im2col


right = gradcheck(operation_with(col2im_plainly), (5, 6), backend="numpy")
wrong = gradcheck(operation_with(col2im_wrong), (5, 6), backend="numpy")
print(right)
print(f"with =: {len(wrong.mismatches)} of {wrong.checked} elements are wrong")
assert right and not wrong
print(
    "those that are right:",
    sorted({*np.ndindex(5, 6)} - {m.index for m in wrong.mismatches}),
)

# %% [markdown]
# Only the corners are right. A single window sees each of them, so there is nothing to add up. Had we tested with
# windows that do not overlap, that would hold for every pixel (the third picture above), and no test would have
# noticed. AlexNet's windows overlap in all five layers.
#
# ## Everything together
#
# Now the operation: im2col and a product on the way forward, two products and col2im on the way back. `xp` is the
# backend here. It has everything that NumPy has, and im2col and col2im. `window` is a *setting*: it is given by name,
# is no tensor and has no gradient, so there are two gradient functions, for x and w. `swapaxes(1, 2)` transposes every
# matrix of a stack. The same filters are used on all N images, so their gradients are added up over the images.


# %%
@op
def conv2d_by_columns(xp, x, w, window):
    P, Q = window.output_size(*x.shape[2:])
    columns = xp.im2col(x, window)  # (N, C*R*S, P*Q)
    filters = w.reshape(len(w), -1)  # (F, C*R*S)
    y = (filters @ columns).reshape(len(x), len(w), P, Q)

    def grad_x(gy):
        gcolumns = filters.T @ gy.reshape(len(x), len(w), P * Q)
        return xp.col2im(gcolumns, x.shape, window)

    def grad_w(gy):
        gfilters = gy.reshape(len(x), len(w), P * Q) @ columns.swapaxes(1, 2)
        return gfilters.sum(axis=0).reshape(w.shape)

    return y, (grad_x, grad_w)


# %% [markdown]
# The check: 2 images, 3 channels, 4 filters of 3 x 2, a stride that lets windows overlap, and padding.


# %%
def strided(x, w):
    return conv2d_by_columns(x, w, window=Window((3, 2), (2, 1), (1, 1)))


report = gradcheck(strided, (2, 3, 6, 5), (4, 3, 3, 2))
print(report)
assert report

# %% [markdown]
# That shows the gradients to be those of the value, not that the value is right. So we compare everything with
# `F.conv2d`, whose value was compared with loops above.


# %%
def value_and_gradients(convolution):
    rng = np.random.default_rng(1)
    x = mt.tensor(rng.standard_normal((2, 3, 9, 8)), requires_grad=True)
    w = mt.tensor(rng.standard_normal((4, 3, 3, 3)), requires_grad=True)
    y = convolution(x, w)
    gy = mt.tensor(rng.standard_normal(y.shape))
    (y * gy).sum().backward()
    return y.numpy(), x.grad.numpy(), w.grad.numpy()


window = Window((3, 3), (2, 2), (1, 1))
ours = value_and_gradients(lambda x, w: conv2d_by_columns(x, w, window=window))
engines = value_and_gradients(lambda x, w: F.conv2d(x, w, stride=2, padding=1))
for a, b in zip(ours, engines):
    print(a.shape, "equal:", np.allclose(a, b))
    assert np.allclose(a, b)

# %% [markdown]
# ### The engine's own code
#
# One thing is new in it: `b`, the *bias*. It is one number per filter, added to all of the filter's outputs.
# Broadcasting copies it, so its gradient is a sum. Everything else you know. Each line of work is a function of the
# backend.

# %%
source(_conv2d)

# %% [markdown]
# And these are the two gradients in the numpy backend. They are ours, with groups. The second computes the columns
# anew, where ours kept them from the way forward: that saves the memory measured above. `tensordot` is the product and
# the sum over the images in one.

# %%
source(backend.conv2d_input_gradient)

# %%
source(backend.conv2d_weight_gradient)

# %% [markdown]
# ## Two columns: groups
#
# In 2012 a network of this size did not fit into the memory of one graphics card. The authors cut it into two columns,
# each on a card of its own with half of the filters of every layer (section 3.2). The cards exchange data only in some
# layers: the filters of conv2, conv4 and conv5 see **only those channels that are on their own card**. So conv2 has 256
# filters of 5 x 5 x 48, though conv1 gives 96 channels.
#
# This is a convolution in two *groups*. Channels and filters are split in the middle, and each half is a convolution of
# its own. `x[:, :48]` is a part of a tensor, and `F.cat` joins tensors end to end along an axis. Both are operations
# with gradients.

# %%
rng = np.random.default_rng(0)
x = mt.tensor(rng.standard_normal((1, 96, 27, 27)))
w = mt.tensor(rng.standard_normal((256, 48, 5, 5)))
first = F.conv2d(x[:, :48], w[:128], padding=2)
second = F.conv2d(x[:, 48:], w[128:], padding=2)
side_by_side = F.cat([first, second], dim=1)  # axis 1: the channels
in_groups = F.conv2d(x, w, padding=2, groups=2)
print(first.shape, "and", second.shape, "joined:", side_by_side.shape)
assert np.allclose(side_by_side.numpy(), in_groups.numpy())

# %% [markdown]
# Half of the weights are gone, and with them half of the multiplications. Another way to say it: this is a convolution
# with all the weights, of which half are 0 and stay 0.

# %%
whole = np.zeros((256, 96, 5, 5))
whole[:128, :48], whole[128:, 48:] = w.numpy()[:128], w.numpy()[128:]
y = F.conv2d(x, mt.tensor(whole), padding=2)
assert np.allclose(y.numpy(), in_groups.numpy())
for name, weights in [("1 group ", whole.size), ("2 groups", w.numpy().size)]:
    print(f"{name}: {weights:,} weights, {weights * 27 * 27:,} multiplications")
assert whole.size == 614_400 and w.numpy().size == 307_200

# %%
figure, ax = plt.subplots(figsize=(9, 3), layout="constrained")
ax.imshow(np.abs(whole).sum(axis=(2, 3)).T > 0, cmap="gray_r", vmax=2, aspect="auto")
ax.set(xlabel="filters of conv2", ylabel="channels from conv1")
ax.set_xticks([0, 127, 255])
ax.set_yticks([0, 47, 95])
for place, text in [((64, 24), "card 1"), ((192, 72), "card 2")]:
    ax.text(*place, text, ha="center", va="center")
ax.set_title("Which filter sees which channel (grey)")
plt.show()

# %% [markdown]
# ## Summary
#
# - A filter slides over the picture with the same weights everywhere. There are
#   $\lfloor (H + 2 \cdot \text{padding} - R) / \text{stride} \rfloor + 1$ windows along an axis.
# - im2col writes every patch as a column. Then a convolution is one matrix product: quick, at the price of memory.
# - The gradient of the weights is $gY$ times the columns transposed. The gradient of the columns is the filters
#   transposed times $gY$, and col2im adds it up into pixels.
# - col2im is the adjoint of im2col, not its inverse. The dot-product test tells, a round trip does not.
# - With groups, filters see only their own part of the channels: AlexNet's two cards.
#
# ## Exercises
#
# As in lesson 1: write each function in the place of `raise NotImplementedError()`, run the cell, then the check below
# it. `hint("3.1")` helps, `hint("3.1", 2)` says more. In 3.2 to 3.4 everything is a NumPy array.
#
# ### 3.1 How many windows? (5 minutes)
#
# Write `output_size(n, kernel, stride, padding)`: the number of windows along one axis of `n` pixels, for a filter of
# `kernel` pixels and `padding` zeros on either side.


# %%
def output_size(n, kernel, stride, padding):
    ### BEGIN SOLUTION
    return (n + 2 * padding - kernel) // stride + 1
    ### END SOLUTION


# %%
check("3.1", output_size)

# %% [markdown]
# ### 3.2 Convolution with loops (20 minutes)
#
# Write `conv2d_loops(x, w, stride, padding)` for one image x of shape (C, H, W) and filters w of shape (F, C, R, S).
# The result has shape (F, P, Q). Stride and padding are whole numbers, the same for both axes. `np.pad(x, ((0, 0), (2,
# 2), (2, 2)))` pads the last two axes only, by 2. There need not be seven loops.


# %%
def conv2d_loops(x, w, stride, padding):
    ### BEGIN SOLUTION
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    (_, H, W), (filters, _, R, S) = x.shape, w.shape
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    y = np.zeros((filters, P, Q))
    for f in range(filters):
        for p in range(P):
            for q in range(Q):
                top, left = p * stride, q * stride
                y[f, p, q] = (w[f] * x[:, top : top + R, left : left + S]).sum()
    return y
    ### END SOLUTION


# %%
check("3.2", conv2d_loops)

# %% [markdown]
# ### 3.3 Image to columns (20 minutes)
#
# Write `im2col(x, kernel, stride)` for one image x of shape (C, H, W), without padding. `kernel` is the pair (R, S),
# and `stride` a whole number. The result has shape `(C*R*S, P*Q)`: column `p*Q + q` is the patch in window (p, q), read
# channel by channel and row by row.


# %%
def im2col(x, kernel, stride):
    ### BEGIN SOLUTION
    (C, H, W), (R, S) = x.shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    columns = np.zeros((C * R * S, P * Q))
    for p in range(P):
        for q in range(Q):
            top, left = p * stride, q * stride
            patch = x[:, top : top + R, left : left + S]
            columns[:, p * Q + q] = patch.reshape(-1)
    return columns
    ### END SOLUTION


# %%
check("3.3", im2col)

# %% [markdown]
# ### 3.4 Columns to image (20 minutes)
#
# Write `col2im(columns, shape, kernel, stride)`, the adjoint of your `im2col`. `shape` is (C, H, W), the shape of the
# result.


# %%
def col2im(columns, shape, kernel, stride):
    ### BEGIN SOLUTION
    (C, H, W), (R, S) = shape, kernel
    P, Q = (H - R) // stride + 1, (W - S) // stride + 1
    x = np.zeros(shape)
    for p in range(P):
        for q in range(Q):
            top, left = p * stride, q * stride
            patch = columns[:, p * Q + q].reshape(C, R, S)
            x[:, top : top + R, left : left + S] += patch
    return x
    ### END SOLUTION


# %%
check("3.4", col2im)

# %% [markdown]
# ### 3.5 Any number of groups (15 minutes)
#
# Write `conv2d_in_groups(x, weight, groups)` on tensors: x has shape (N, C, H, W), and weight (F, C/groups, R, S). Use
# `F.conv2d` without its argument `groups`, parts of tensors, and `F.cat`. Stride is 1 and padding 0. Gradients must
# flow.


# %%
def conv2d_in_groups(x, weight, groups):
    ### BEGIN SOLUTION
    channels, filters = x.shape[1] // groups, weight.shape[0] // groups
    parts = []
    for g in range(groups):
        mine = x[:, g * channels : (g + 1) * channels]
        parts.append(F.conv2d(mine, weight[g * filters : (g + 1) * filters]))
    return F.cat(parts, dim=1)
    ### END SOLUTION


# %%
check("3.5", conv2d_in_groups)

# %% [markdown]
# **Next:** between its convolutions AlexNet pools, normalises and drops. Lesson 4 builds these three.
