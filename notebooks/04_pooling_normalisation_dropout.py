# %% [markdown]
# # 4. Pooling, normalisation, dropout
#
# Between its convolutions AlexNet does three more things. It keeps the strongest response of each neighbourhood of
# pixels (*pooling*, section 3.4 of the paper), it lets neighbouring channels damp each other (*local response
# normalisation*, section 3.3), and while it learns it switches half of its units off at random (*dropout*, section 4.2).
# Each is a few lines. Each also has a trap that a careless test does not notice, and this lesson walks into all of them.
#
# **Afterwards you can** write all three with their gradients, tell apart the conventions in which other engines and the
# paper give their constants, and draw the same random mask a second time.
#
# You need lesson 3 (stride, output size, `col2im`) and `gradcheck` from lesson 2. The lesson takes about 50 minutes.

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
import matplotlib.pyplot as plt
import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex import philox
from minitorch_alex.backends.numpy_backend import Backend
from minitorch_alex.data import load
from minitorch_alex.exercises import check, hint
from minitorch_alex.functional.dropout import _dropout
from minitorch_alex.gradcheck import gradcheck
from minitorch_alex.source import source
from minitorch_alex.tensor import op

# %% [markdown]
# ## Pooling
#
# A filter answers at every pixel: "what I look for is here, this strongly". For what an image shows it matters little
# whether that is here or one pixel further. So AlexNet keeps only the **largest response of each window**, of every
# channel by itself. Less is left to compute, too.
#
# The windows slide like those of a convolution. AlexNet's are 3 x 3 and 2 apart, so neighbours share a row or a column
# of pixels: they *overlap*. The paper compares them with windows of 2 x 2, 2 apart, which do not. Overlap brings the
# share of images that the network gets wrong down by 0.4 percentage points, and by 0.3 if it may guess five times.


# %%
def max_pool_loops(x, kernel, stride):
    N, C, H, W = x.shape
    P, Q = (H - kernel) // stride + 1, (W - kernel) // stride + 1  # as in lesson 3
    y = np.empty((N, C, P, Q))
    for p in range(P):
        for q in range(Q):
            top, left = p * stride, q * stride
            window = x[:, :, top : top + kernel, left : left + kernel]
            y[:, :, p, q] = window.max(axis=(2, 3))
    return y


rng = np.random.default_rng(0)
x = rng.standard_normal((2, 3, 9, 11))
for kernel, stride in (3, 2), (2, 2), (3, 1):
    library = F.max_pool2d(mt.tensor(x), kernel, stride).numpy()
    assert (max_pool_loops(x, kernel, stride) == library).all()
    print(f"{kernel} x {kernel}, {stride} apart: {x.shape} -> {library.shape}")

# %% [markdown]
# AlexNet pools three times: after its first, second and fifth convolution. The convolutions in between keep the size. So
# the formula of lesson 3 gives all its sizes, and the windows fit without a pixel left over:

# %%
n = 55  # the first convolution's output is 55 x 55
for _ in range(3):
    pooled = F.max_pool2d(mt.tensor(np.zeros((1, 1, n, n))), 3, 2).shape[-1]
    assert pooled == (n - 3) // 2 + 1 and (n - 3) % 2 == 0
    print(f"{n} x {n} -> {pooled} x {pooled}, {pooled**2 / n**2:.0%} of the pixels")
    n = pooled

# %% [markdown]
# How many windows see each pixel? Here for the 8 x 8 pixels of lesson 3's digits. They do not divide as well as 55 x 55,
# so the last row and the last column are seen by none.

# %%
images = load("digits").train_images / 1.0  # (N, 1, 8, 8), from 0 to 255
seen = np.zeros((8, 8), int)
for p in range(3):
    for q in range(3):
        seen[2 * p : 2 * p + 3, 2 * q : 2 * q + 3] += 1
print(seen)
assert (seen[7] == 0).all() and (seen[:, 7] == 0).all()

# %% [markdown]
# And here is a digit, the responses of lesson 3's filter for upright edges (with padding 1), and their maxima. Two
# neighbouring windows are outlined.

# %%
edge = mt.tensor(np.array([[[[-1.0, 0, 1], [-1, 0, 1], [-1, 0, 1]]]]))
digit = images[37:38]
responses = F.conv2d(mt.tensor(digit), edge, padding=1)
maxima = F.max_pool2d(responses, 3, 2)
assert maxima.numpy()[0, 0, 1, 0] == responses.numpy()[0, 0, 2:5, 0:3].max()  # blue

figure, axes = plt.subplots(1, 3, figsize=(9, 3.2), layout="constrained")
axes[0].imshow(digit[0, 0], cmap="gray")
for ax, shown in (axes[1], responses), (axes[2], maxima):
    ax.imshow(shown.numpy()[0, 0], cmap="gray", vmin=-700, vmax=700)
for q, color in (0, "#3b6fb6"), (1, "#c8553d"):
    frame = {"fill": False, "edgecolor": color, "linewidth": 4}
    axes[1].add_patch(plt.Rectangle((2 * q - 0.3, 1.7), 2.6, 2.6, **frame))
    axes[2].add_patch(plt.Rectangle((q - 0.42, 0.58), 0.84, 0.84, **frame))
titles = "a digit", "responses: 8 x 8", "maxima: 3 x 3 of them"
for ax, title in zip(axes, titles, strict=True):
    ax.set(title=title, xticks=[], yticks=[])
plt.show()

# %% [markdown]
# ### The gradient goes to the winner
#
# Raise the largest number of a window by a little, and the maximum rises by as much. Raise any other by a little, and
# nothing happens. So the gradient of a window's maximum goes **to the pixel that won, all of it**, and the others get 0.
#
# Here is that for a row of pixels, as an operation. It has two versions of one line: write the gradient, or add it.
# (Tensors are given by position, settings such as `kernel` by name.)


# %%
@op
def max_of_windows(xp, x, kernel, stride, add):
    starts = range(0, len(x) - kernel + 1, stride)
    winners = [i + int(x[i : i + kernel].argmax()) for i in starts]

    def grad_x(g):
        gx = xp.zeros_like(x)
        for p, winner in enumerate(winners):
            if add:
                gx[winner] += g[p]
            else:
                gx[winner] = g[p]
        return gx

    return x[winners], (grad_x,)


# %% [markdown]
# Try both on windows of 3 pixels, 2 apart. The 5 is in two windows and is the largest in both:

# %%
values = np.array([1.0, 2.0, 5.0, 4.0, 3.0, 0.0, 1.0])
arriving = np.array([10.0, 20.0, 30.0])  # one gradient for each of the three windows
for add in False, True:
    x = mt.tensor(values, requires_grad=True)
    y = max_of_windows(x, kernel=3, stride=2, add=add)
    y.backward(mt.tensor(arriving))
    print("+= gives" if add else " = gives", x.grad.numpy())
    assert x.grad.numpy()[2] == (30 if add else 20)

# %% [markdown]
# Raising the 5 raises two outputs, so its gradients **add up**: 10 + 20. It is the rule of lesson 1 again: what is used
# twice gets both. With `=` the second window overwrites what the first one wrote.
#
# The trap: with windows that do not overlap no pixel can win twice, and `=` is as good as `+=`. Whoever tests only with
# stride = kernel, as most examples have it, never finds the mistake.


# %%
def check_windows(kernel, stride, add):
    def row_pool(x):
        return max_of_windows(x, kernel=kernel, stride=stride, add=add)

    return gradcheck(row_pool, (15,))


assert check_windows(2, 2, add=True) and check_windows(2, 2, add=False)  # hidden
assert check_windows(3, 2, add=True)
report = check_windows(3, 2, add=False)
assert not report
print(report)

# %% [markdown]
# The engine does this for images. For every output `max_pool2d` also notes the `winner`: the number of the place in the
# window, counted row by row, that held the maximum. `window.taps` goes over these places as it does in `im2col`, for
# all windows at once. Padding cannot win, because `inside` marks the pixels that exist. The first of them in each
# window wins at first (`winner < 0`), and later ones only if they are larger, so of equal ones the first stays. A NaN
# ("not a number") wins against every number, so that it is not hidden.

# %%
source(Backend.max_pool2d)

# %% [markdown]
# On the way back each output's gradient goes into a column of zeros, at the winner's place. (`None` puts in an axis, so
# that every output is compared with the number of every tap.) Then `col2im` of lesson 3 carries the columns back to the
# image, and it is `col2im` that adds up.

# %%
source(Backend.max_pool2d_gradient)


# %%
def overlapping_pool(x):
    return F.max_pool2d(x, 3, 2)


report = gradcheck(overlapping_pool, (2, 2, 5, 7))
assert report
print(report)

# %% [markdown]
# ### Ties
#
# If the largest number occurs twice in a window, there is a kink (lesson 2): no gradient is the right one, and an engine
# has to choose. This one, like PyTorch and Caffe, gives everything to the **first in reading order**. The 2012 code gave
# the full gradient to *every* tied pixel, so that more went back than had arrived.

# %%
tied = mt.tensor(np.full((1, 1, 3, 3), 7.0), requires_grad=True)
F.max_pool2d(tied, 3).backward(mt.tensor(np.ones((1, 1, 1, 1))))
print("here:")
print(tied.grad.numpy()[0, 0])
assert tied.grad.numpy()[0, 0, 0, 0] == 1 and tied.grad.numpy().sum() == 1

in_2012 = np.where(tied.numpy() == tied.numpy().max(), 1.0, 0.0)
print("in 2012:")
print(in_2012[0, 0])
assert in_2012.sum() == 9

# %% [markdown]
# Ties are no rare thing. In the digits, strokes are often as bright as a pixel can be:

# %%
several = 0
for p in range(3):
    for q in range(3):
        window = images[:, 0, 2 * p : 2 * p + 3, 2 * q : 2 * q + 3]
        largest = window.max(axis=(1, 2), keepdims=True)
        several += ((window == largest).sum(axis=(1, 2)) > 1).sum()
share = several / (9 * len(images))
print(f"windows with more than one winner: {share:.0%}")
assert 0.3 < share < 0.5

# %% [markdown]
# ## Local response normalisation
#
# A nerve cell that fires strongly damps the cells beside it. Biologists call this *lateral inhibition*. AlexNet
# does it **between channels**: at each pixel, a channel's response is divided by a measure
# of how strong the responses of its neighbour channels are there. The paper reports 1.4 percentage points fewer errors,
# and 1.2 with five guesses. (Later networks left it out, and use other kinds of normalisation.)
#
# Let $x_c$ be the response of channel $c$ at one pixel. The window holds the two channels before $c$, $c$ itself and the
# two after it, as far as they exist:
#
# $$y_c = \frac{x_c}{s_c^{\,\beta}}, \qquad s_c = k + a \sum_{j=c-2}^{c+2} x_j^2$$
#
# We call $s_c$ the *scale*. It is at least $k$, and large where the neighbourhood is loud. Pixels do not see each
# other here, so one pixel is enough to write it down:


# %%
def normalise_pixel(x, a, beta, k, before=2, after=2):
    """x: the responses of all channels at one pixel."""
    y = np.empty(len(x))
    for c in range(len(x)):
        first, last = max(0, c - before), min(len(x) - 1, c + after)
        scale = k + a * (x[first : last + 1] ** 2).sum()
        y[c] = x[c] / scale**beta
    return y


def as_image(x):
    return mt.tensor(x.reshape(1, -1, 1, 1))  # one image of one pixel


x = rng.standard_normal(16)
naive = normalise_pixel(x, a=0.2, beta=0.75, k=1.0)
library = F.local_response_norm(as_image(x), 5, alpha=1.0, beta=0.75, k=1.0)
print("largest difference:", np.abs(naive - library.numpy().ravel()).max())
assert np.allclose(naive, library.numpy().ravel(), rtol=1e-12)

# %% [markdown]
# The `alpha=1.0` here was `a=0.2` there, and that is no slip. We come to it in a moment. First, what it does. One of 16
# channels responds strongly:

# %%
responses = rng.uniform(1.5, 2.5, 16)
responses[7] = 12.0
normalised = normalise_pixel(responses, a=0.02, beta=0.75, k=1.0)

colors = ["#3b6fb6"] * 16
colors[7] = "#c8553d"
panels = {"before": responses, "after": normalised}
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
for ax, (title, heights) in zip(axes, panels.items(), strict=True):
    ax.bar(range(16), heights, color=colors)
    ax.set(title=title, xlabel="channel", xticks=range(16))
axes[0].set_ylabel("response at one pixel")
plt.show()

kept = normalised / responses
beside = np.array([5, 6, 8, 9])
away = np.delete(np.arange(16), [5, 6, 7, 8, 9])
near, far = kept[beside], kept[away]
print(f"the strong channel keeps {kept[7]:.0%}")
print(f"channels beside the strong one keep {near.min():.0%} to {near.max():.0%}")
print(f"channels further away keep {far.min():.0%} to {far.max():.0%}")
assert near.max() < 0.5 < far.min()
assert normalised[beside].max() < normalised[away].min()

# %% [markdown]
# The strong one is damped, too, since it is in its own window. But its neighbours, which were like all others before, are
# now the weakest. The order of the channels is arbitrary, and fixed before the network learns anything. The paper's idea
# is that filters that happen to be neighbours then compete for large responses.
#
# ### One formula, many conventions
#
# The paper's constants are $n = 5$ channels in a window, $\alpha = 10^{-4}$, $\beta = 0.75$ and $k = 2$. In its formula
# $\alpha$ multiplies the sum, so $a = \alpha$. But the code that its authors published, and after it Caffe and PyTorch,
# divide by the number of channels first: $a = \alpha / n$. TensorFlow does not divide, and counts `depth_radius`
# channels **to each side**. The default of $k$ is 1 in most engines. This engine follows PyTorch. Its documentation has
# the table (what follows the table only checks the arguments):

# %%
source(F.local_response_norm)

# %% [markdown]
# So the same four constants are two different functions. Here are six channels with responses of some hundreds, such as
# the pixels of an image give:

# %%
x = 100.0 * np.arange(1, 7)
as_written = normalise_pixel(x, a=1e-4, beta=0.75, k=2.0)
as_coded = normalise_pixel(x, a=1e-4 / 5, beta=0.75, k=2.0)
print("alpha multiplies the sum: ", as_written.round(2))
print("alpha / 5 multiplies it:  ", as_coded.round(2))
print("the second is larger by:  ", (as_coded / as_written).round(2))
assert (as_coded / as_written > 2).all()

here = F.local_response_norm(as_image(x), 5, alpha=5e-4, beta=0.75, k=2.0)
assert np.allclose(here.numpy().ravel(), as_written)
here = F.local_response_norm(as_image(x), 5, alpha=1e-4, beta=0.75, k=2.0)
assert np.allclose(here.numpy().ravel(), as_coded)

# %% [markdown]
# The paper's formula, read literally, is `alpha=5e-4` here. The network whose errors the paper reports was trained with
# `alpha=1e-4, k=2` in the sense of this engine.
#
# ### How much does it do?
#
# That depends on how large the responses are. If they are about 1, then with $\alpha = 10^{-4}$ it does almost nothing:

# %%
x = rng.standard_normal((8, 16, 6, 6))
y = F.local_response_norm(mt.tensor(x), 5, alpha=1e-4).numpy()
change = np.abs(y / x - 1)
print(f"largest relative change: {change.max():.1e}")
assert change.max() < 1e-3

# %% [markdown]
# AlexNet of 2012 does not see such numbers. Its inputs are pixels from 0 to 255, minus their mean. Take 16 random
# filters, scaled so that their responses are about as large as their inputs, and compare pixels from 0 to 1 with pixels
# from 0 to 255:

# %%
filters = mt.tensor(rng.standard_normal((16, 1, 3, 3)) / 3)
for factor, name in (1 / 255, "0 to   1"), (1, "0 to 255"):
    pixels = (images[:50] - images.mean()) * factor
    responses = F.conv2d(mt.tensor(pixels), filters)
    y = F.local_response_norm(responses, 5, alpha=1e-4).numpy()
    change = np.abs(y / responses.numpy() - 1)
    print(f"pixels {name}: responses change by {100 * change.mean():.2g} % on average")
    assert change.mean() < 1e-4 if factor < 1 else change.mean() > 0.1

# %% [markdown]
# Whoever scales the pixels to 0 ... 1, as is usual today, and keeps $\alpha$, has a normalisation that does next to nothing.
#
# The trap in testing is the same. Take a window that is wrong: the four channels before $c$ and none after it. With
# $\alpha = 10^{-4}$ and numbers near 1, hardly anything differs, and a test with a tolerance of one in a thousand passes.

# %%
x = rng.standard_normal(16)
for alpha in 1e-4, 1.0:
    right = normalise_pixel(x, a=alpha / 5, beta=0.75, k=1.0)
    wrong = normalise_pixel(x, a=alpha / 5, beta=0.75, k=1.0, before=4, after=0)
    difference = np.abs(wrong / right - 1).max()
    print(f"alpha = {alpha}: the wrong window is off by up to {difference:.1e}")
    assert difference < 1e-3 if alpha < 1 else difference > 0.1

# %% [markdown]
# So we test this operation with $\alpha = 1$.
#
# ### The gradient: two ways in
#
# $x_i$ reaches the result in two ways. Let $g_c$ be the gradient that arrives at $y_c = x_c\, s_c^{-\beta}$.
#
# 1. Directly: $y_i$ has the factor $x_i$. That gives $g_i\, s_i^{-\beta}$.
# 2. Through the scales: $x_i^2$ is part of $s_c$ for each channel $c$ **whose window reaches $i$**. Raising $x_i$
#    raises such an $s_c$ by $2 a x_i$ times as much, and $y_c$ changes by $-\beta\, x_c\, s_c^{-\beta-1}$ times that.
#
# Paths add up:
#
# $$\text{gradient of } x_i = g_i\, s_i^{-\beta} - 2 a \beta\, x_i \sum_{c \text{ whose window reaches } i} g_c\, x_c\, s_c^{-\beta-1}$$
#
# Which windows reach $i$? If the window of $c$ goes from $c - 2$ to $c + 1$, then $i$ is reached by $c = i - 1$ up to
# $c = i + 2$: the window **mirrored**. For five channels, two to each side, that makes no difference. For four it does.


# %%
@op
def normalise(xp, x, a, beta, k, before, after, mirror):
    def window_sum(values, before, after):
        sums = [values[max(0, c - before) : c + after + 1].sum() for c in range(len(x))]
        return xp.array(sums)

    s = k + a * window_sum(x * x, before, after)

    def grad_x(g):
        back = (after, before) if mirror else (before, after)
        reached_by = window_sum(g * x * s ** (-beta - 1), *back)
        return g * s**-beta - 2 * a * beta * x * reached_by

    return x * s**-beta, (grad_x,)


def check_normalise(before, after, mirror):
    def normalise_channels(x):
        settings = {"before": before, "after": after, "mirror": mirror}
        return normalise(x, a=1.0, beta=0.75, k=1.0, **settings)

    return gradcheck(normalise_channels, (12,))


assert check_normalise(2, 1, mirror=True)
assert check_normalise(2, 2, mirror=True)
assert check_normalise(2, 2, mirror=False)  # hidden
report = check_normalise(2, 1, mirror=False)
assert not report
print(len(report.mismatches), "of", report.checked, "gradients are wrong")

# %% [markdown]
# Once more a test on a convenient setting, the symmetric window, would have passed a wrong gradient.
#
# The engine's code has both terms on its last line. `window_sum` adds up shifted copies of the whole array, and takes
# how far to go before and after; the gradient calls it the other way round. An even `size` has one channel more before
# than after.

# %%
source(Backend.local_response_norm)

# %%
source(Backend.local_response_norm_gradient)


# %%
def four_channels(x):
    return F.local_response_norm(x, 4, alpha=1.0)


report = gradcheck(four_channels, (2, 7, 2, 3))
assert report
print(report)

# %% [markdown]
# ## Dropout
#
# Call each number that a layer hands on a *unit*. While AlexNet learns (in *training*), every unit of the two large
# layers before its last one is set to 0 with probability 1/2, by a new draw for every image and every step. When it is
# used (in *testing*), all units take part.
#
# Why should that help? A unit can never rely on a particular other one being there to correct it. So each has to
# learn something that is useful by itself, and it is harder to learn the training images by heart.

# %%
x = np.array([1.0, 2.0, 3.0, 0.5, 4.0, 1.5])
p = 0.5
u = rng.random(x.shape)  # evenly between 0 and 1: below p with probability p
kept = u >= p
print("u       ", u.round(2))
print("kept    ", kept)
print("x * kept", x * kept)

# %% [markdown]
# ### What the next layer expects
#
# Half of the units are missing in training. The next layer adds its inputs up, and gets used to sums that are half as
# large. If in testing all units are there, everything is twice as large as it has learned to expect. There are two ways
# to mend that:
#
# - **The paper's**: in training multiply by 0 or 1. In testing multiply all by 1/2, in general by $1 - p$.
# - **This engine's**, and that of most others today: in training multiply by 0 or 2, in general $1/(1-p)$. In testing do
#   nothing.
#
# In both the *expectation*, the mean over all possible masks, is the same in training as in testing. Let us see, with
# many masks. A mean over $n$ masks is not exact. A value that is 0 or $x$, each half of the time, lies $x/2$ from its
# mean, and the mean of $n$ of them typically lies $\sqrt{n}$ times closer (a law of statistics, which we take as
# given). With the factors 0 and 2 it is twice that. To miss by more than five times the spread has a chance below one
# in a million.

# %%
n = 10_000
many = np.tile(x, (n, 1))  # n copies of x: one mask for each
paper = (many * (rng.random(many.shape) >= p)).mean(axis=0)
mt.manual_seed(0)
engine = F.dropout(mt.tensor(many), p).numpy().mean(axis=0)
engine_test = F.dropout(mt.tensor(x), p, training=False).numpy()

print("paper   training, mean of many:", paper.round(2))
print("        testing:               ", x * (1 - p))
print("engine  training, mean of many:", engine.round(2))
print("        testing:               ", engine_test)
spread = x / 2 / np.sqrt(n)
assert (np.abs(paper - x * (1 - p)) < 5 * spread).all()
assert (np.abs(engine - engine_test) < 5 * 2 * spread).all()
assert (engine_test == x).all()

# %% [markdown]
# The two ways differ by a factor of 2 everywhere, in training and in testing. So weights that were trained in the
# paper's way have to be halved in the layer behind the dropout before this engine uses them, and doubled the other way
# round.
#
# ### The gradient: the same mask
#
# A unit that was dropped has no influence on the result: gradient 0. One that was kept was multiplied by 2, and so is
# its gradient. It has to be *the same* mask, not a new one, so the gradient function keeps it. (In the engine's code
# below, `form="paper"` asks for the paper's way, which leaves kept units as they are.)

# %%
ones = mt.tensor(np.ones(8), requires_grad=True)
y = F.dropout(ones, p)
y.sum().backward()
print("value   ", y.numpy())
print("gradient", ones.grad.numpy())
assert (y.numpy() == ones.grad.numpy()).all() and set(y.numpy()) == {0.0, 2.0}

# %%
source(_dropout)

# %% [markdown]
# ### A mask that can be drawn again
#
# An ordinary random generator has a state, and every draw moves it on. What you get depends on everything that was drawn
# before. In this engine random numbers are a *function*, called Philox: it scrambles
#
# - the seed, from `mt.manual_seed`,
# - the name of the stream, so that two layers with streams of their own get different masks,
# - the number of the training step, from `philox.set_step`,
# - and how often that stream was asked since `set_step`, which begins to count anew,
#
# and returns bits that look random. `next_call` puts the four together (`key` combines seed and name, `_place` keeps
# step and counts):

# %%
source(philox.next_call)

# %% [markdown]
# The same four give the same mask, whatever happened in between. So the mask of step 1000 can be had without the steps
# before it, for instance to continue a training that was interrupted.


# %%
def mask(step, stream="dropout"):
    philox.set_step(step)
    kept = F.dropout(mt.tensor(np.ones(40)), stream=stream).numpy() > 0
    return "".join("x" if unit else "." for unit in kept)


mt.manual_seed(0)
first = mask(step=1000)
print("step 1000           ", first)
print("step 1001           ", mask(step=1001))
print("step 1000, stream b ", mask(step=1000, stream="b"))
print("step 1000 again     ", mask(step=1000))
assert mask(1000) == first
assert len({first, mask(1001), mask(1000, "b")}) == 3

# %% [markdown]
# Within a step every call has a mask of its own, as the first lines of the next cell show. A network wants
# that, and `gradcheck` cannot bear it. It calls the function many times and compares the values, but a function that
# answers differently at each call has no slope:

# %%
philox.set_step(0)
assert (F.dropout(ones).numpy() != F.dropout(ones).numpy()).any()

report = gradcheck(F.dropout, (3,))
assert not report
print(report)

# %% [markdown]
# The last line says it. Going back to the start of the same step *inside* the function freezes the mask:


# %%
def frozen_dropout(x):
    philox.set_step(0)
    return F.dropout(x)


report = gradcheck(frozen_dropout, (4, 5))
assert report
print(report)

# %% [markdown]
# ## Summary
#
# - Max pooling hands the gradient to the pixel that won. Where windows overlap a pixel can win several times, and its
#   gradients add up. A test with stride = kernel does not notice if they do not.
# - Local response normalisation divides a response by the energy of the channels around it. Ask of every `alpha`
#   whether it is divided by the number of channels, and of every size whether it is a radius.
# - At $\alpha = 10^{-4}$ and responses near 1 it does next to nothing, right or wrong. Test it with $\alpha = 1$ and a
#   window that is not symmetric.
# - Dropout sets units to 0 at random in training. Either the kept ones are scaled up in training, or all are scaled
#   down in testing. The gradient goes through the same mask.
# - Random numbers as a function of seed, name, step and call can be had again. A gradient check needs that.
#
# ## Exercises
#
# They work as in lesson 1: write the function, run the cell, run the check below it. `hint("4.1")` helps.
#
# ### 4.1 Who sees a pixel? (5 minutes)
#
# Along one axis there are `n` pixels, 0 to n - 1, and windows of `kernel` pixels that start at 0, `stride`,
# 2 * `stride`, ... as far as they fit. Write `windows_that_see(i, n, kernel, stride)`: how many of them contain
# pixel `i`?


# %%
def windows_that_see(i, n, kernel, stride):
    ### BEGIN SOLUTION
    starts = range(0, n - kernel + 1, stride)
    return sum(start <= i < start + kernel for start in starts)
    ### END SOLUTION


# %%
check("4.1", windows_that_see)

# %% [markdown]
# ### 4.2 The gradient of max pooling (20 minutes)
#
# `x` (H, W) is one channel of one image, pooled in windows of `kernel` x `kernel` pixels, `stride` apart, without
# padding. `gy` (P, Q) holds the gradients that arrive, one for each window. Write `max_pool_gradient(x, gy, kernel,
# stride)`, the gradient of x, with NumPy and loops. In a tie the first pixel in reading order wins.
#
# (`argmax` of a two-dimensional array numbers its elements row by row, and finds the first of equal ones.)


# %%
def max_pool_gradient(x, gy, kernel, stride):
    ### BEGIN SOLUTION
    gx = np.zeros(x.shape)
    for p in range(gy.shape[0]):
        for q in range(gy.shape[1]):
            top, left = p * stride, q * stride
            window = x[top : top + kernel, left : left + kernel]
            r, s = divmod(int(window.argmax()), kernel)
            gx[top + r, left + s] += gy[p, q]
    return gx
    ### END SOLUTION


# %%
check("4.2", max_pool_gradient)

# %% [markdown]
# ### 4.3 Normalisation as the paper writes it (15 minutes)
#
# Write `lrn(x, n, alpha, beta, k)` for x (N, C, H, W), with the paper's reading of the constants: `alpha` multiplies the
# sum, and the window holds the `n // 2` channels before, the channel itself, and the `n // 2` after, as far as they
# exist. `n` is odd. A loop over channels is fine. A loop over pixels is not needed.


# %%
def lrn(x, n, alpha, beta, k):
    ### BEGIN SOLUTION
    y = np.empty(x.shape)
    for c in range(x.shape[1]):
        window = x[:, max(0, c - n // 2) : c + n // 2 + 1]
        scale = k + alpha * (window**2).sum(axis=1)
        y[:, c] = x[:, c] / scale**beta
    return y
    ### END SOLUTION


# %%
check("4.3", lrn)

# %% [markdown]
# ### 4.4 Somebody else's constants (10 minutes)
#
# You find constants for this normalisation in another place, and want the same numbers from `F.local_response_norm`.
# Write `settings_here(who, size, alpha, k)`, which returns the tuple `(size, alpha, k)` to use here. `who` is
#
# - `"paper"`: alpha multiplies the sum over `size` channels;
# - `"caffe"`: alpha is divided by `size` first;
# - `"tensorflow"`: alpha multiplies the sum, and `size` is the `depth_radius`.


# %%
def settings_here(who, size, alpha, k):
    ### BEGIN SOLUTION
    if who == "caffe":
        return size, alpha, k
    if who == "tensorflow":
        size = 2 * size + 1
    return size, alpha * size, k
    ### END SOLUTION


# %%
check("4.4", settings_here)

# %% [markdown]
# ### 4.5 Dropout as in 2012 (10 minutes)
#
# Write the paper's dropout in the form of an operation, without the decorator: `paper_dropout(xp, x, u, p, training)`. `u`
# has the shape of x and holds random numbers between 0 and 1. In training a unit is dropped where u is below p, and
# nothing is scaled up. In testing (`training` is False) all units are kept and scaled down. Return the value and a tuple
# with one gradient function, that of x. It has to be right in testing, too.


# %%
def paper_dropout(xp, x, u, p, training):
    ### BEGIN SOLUTION
    factor = (u >= p).astype(x.dtype) if training else 1 - p
    return x * factor, (lambda g: g * factor,)
    ### END SOLUTION


# %%
check("4.5", paper_dropout)

# %% [markdown]
# **Next:** all parts are there. In lesson 5 a network made of them learns to read handwritten digits.
