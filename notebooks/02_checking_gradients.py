# %% [markdown]
# # 2. Checking gradients
#
# In section 5 the paper moves 60 million weights by their gradients, step after step for five to six days. It does not
# say how its authors knew that these gradients were right, and one has to know: a wrong gradient raises no error. This
# lesson builds the test that every operation of this engine has passed. It compares a gradient with what happens when
# numbers are moved by a little.
#
# **Afterwards you can** find out whether a gradient is right, read the report of `gradcheck`, and say what such a check
# leaves open.
#
# You need lesson 1 and, for one example, matrix products. The lesson takes about 35 minutes.

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
from minitorch_alex.exercises import check, hint
from minitorch_alex.gradcheck import _agree, _slope, _suspect, gradcheck, separated
from minitorch_alex.source import source
from minitorch_alex.tensor import op

# %% [markdown]
# ## A wrong gradient raises no error
#
# Let us learn two weights $u$ and $w$, so that $u \cdot x_1 + w \cdot x_2$ comes close to given numbers $t$. The data are
# made with $u = 3$ and $w = 1$, so that is what should come out.
#
# Here is the sum of two products as an operation with four inputs. Twice, because the second has a mistake of a very
# common kind: a line was copied and not changed everywhere.


# %%
@op
def two_products(xp, u, x1, w, x2):
    return u * x1 + w * x2, (
        lambda g: g * x1,
        lambda g: g * u,
        lambda g: g * x2,
        lambda g: g * w,
    )


@op
def two_products_wrong(xp, u, x1, w, x2):
    return u * x1 + w * x2, (
        lambda g: g * x1,
        lambda g: g * u,
        lambda g: g * x1,  # copied from two lines above
        lambda g: g * w,
    )


# %% [markdown]
# Now move the weights a little downhill, and repeat. Downhill means: so that the mean squared distance to $t$ falls.
# The gradient says how fast it grows, so we go the other way, by a tenth of the gradient. ($u$ and $w$ are single
# numbers; broadcasting uses them for all 50 pairs.)

# %%
rng = np.random.default_rng(0)
data1, data2 = rng.uniform(0, 2, 50), rng.uniform(-1, 1, 50)
x1, x2, t = mt.tensor(data1), mt.tensor(data2), mt.tensor(3 * data1 + data2)


def learn(operation):
    weights, distances = np.zeros(2), []
    for _ in range(201):
        u = mt.tensor(weights[0], requires_grad=True)
        w = mt.tensor(weights[1], requires_grad=True)
        distance = operation(u, x1, w, x2) - t
        mean_square = (distance * distance).mean()
        mean_square.backward()
        weights = weights - 0.1 * np.array([u.grad.numpy(), w.grad.numpy()])
        distances.append(float(mean_square.numpy()))
    return weights, distances


# %%
for operation in two_products, two_products_wrong:
    (u, w), distances = learn(operation)
    print(f"u = {u:.3f}, w = {w:.3f}; mean squared distance", end=" ")
    print(", ".join(f"{distances[step]:.3f} at step {step}" for step in (0, 10, 200)))
    if operation is two_products:
        assert distances[200] < 1e-4
    else:
        assert 0.1 < distances[200] < distances[0] / 10

# %% [markdown]
# The wrong version learns as well: its distance falls to a tenth, and nothing complains. (After step 10 it rises a
# little, as it does in many a healthy run. And $u = w$, since both are moved by the same gradient.) It ends in the
# wrong place, but who does not know the answer beforehand cannot see that. In a network with many layers such a mistake
# looks like a problem that is hard to learn. So gradients are checked by themselves, before anything is learned.
#
# ## One number
#
# The slope of $f$ at $x$ is what $(f(x + e) - f(x))\,/\,e$ comes close to when $e$ is small. This is the **forward
# difference**. Lesson 1 moved $x$ both ways: $(f(x + e) - f(x - e))\,/\,2e$, the **central difference**. Why both ways?
# For $x^3$ we can work it out, since $(x + e)^3 = x^3 + 3x^2e + 3xe^2 + e^3$:
#
# $$\frac{f(x + e) - f(x)}{e} = 3x^2 + 3xe + e^2 \qquad \frac{f(x + e) - f(x - e)}{2e} = 3x^2 + e^2$$
#
# The slope is $3x^2$, and the rest is error. Forward, the error shrinks like $e$. Central, it shrinks like $e^2$,
# because $3xe$ has opposite signs on the two sides and cancels. Other functions behave alike where they are smooth: no
# jumps, no corners, no sudden change of bend.


# %%
def cube(x):
    return x * x * x


x, slope = 1.5, 3 * 1.5**2
for e in 0.1, 0.01, 0.001:
    forward = (cube(x + e) - cube(x)) / e - slope
    central = (cube(x + e) - cube(x - e)) / (2 * e) - slope
    print(f"e = {e:5}: forward is wrong by {forward:.6f}, central by {central:.6f}")
    assert np.isclose(forward, 3 * x * e + e * e) and np.isclose(central, e * e)

# %% [markdown]
# Then why not take $e$ as small as we like? Because computers round. A `float64`, which is Python's usual number, keeps
# about 16 digits. A `float32` keeps about 7, and networks are computed with these, because they take half the memory.
# Below, each type computes the same difference. $f(x + e)$ and $f(x - e)$ agree in almost all of their digits, and only
# the few others are left:

# %%
for number_type in np.float64, np.float32:
    x, e = number_type(1.5), number_type(1e-5)
    up, down = cube(x + e), cube(x - e)
    print(f"{number_type.__name__}:  {up:.15f}")
    print(f"        - {down:.15f}")
    print(f"        = {up - down:.15f}, divided by 2e: {(up - down) / (2 * e):.10f}")
    wrong_by = abs((up - down) / (2 * e) / slope - 1)
    assert (wrong_by < 1e-9) if number_type is np.float64 else (wrong_by > 1e-3)
print(f"the slope: {slope:.10f}")

# %% [markdown]
# So there are two errors. One grows with $e$. The other comes from rounding and grows when $e$ gets smaller, because the
# rounding is divided by $2e$. Let us measure both together: for each $e$, the largest error at 200 places between 1 and
# 2, as a fraction of the slope.

# %%
steps = 10.0 ** np.arange(-13, 0.1, 0.25)
places = np.random.default_rng(0).uniform(1, 2, 200)


def largest_errors(number_type):
    x = places.astype(number_type)
    slope = 3 * x.astype("float64") ** 2
    forward, central = [], []
    for e in steps.astype(number_type):
        one_way = (cube(x + e) - cube(x)) / e
        both_ways = (cube(x + e) - cube(x - e)) / (2 * e)
        forward.append(abs(one_way / slope - 1).max())
        central.append(abs(both_ways / slope - 1).max())
    return np.array(forward), np.array(central)


errors = {"float64": largest_errors("float64"), "float32": largest_errors("float32")}

# %%
figure, axes = plt.subplots(figsize=(9, 3.6), layout="constrained")
for (name, (forward, central)), color in zip(errors.items(), ("#3b6fb6", "#c8553d")):
    axes.loglog(steps, forward, color=color, ls="--", label=f"{name}, forward")
    axes.loglog(steps, central, color=color, label=f"{name}, central")
    axes.plot(steps[central.argmin()], central.min(), "o", color=color)
axes.set(xlabel="e", ylabel="error / slope", ylim=(1e-12, 10))
axes.legend(loc="lower left")
axes.grid(alpha=0.3)
plt.show()

# %%
for name, both in errors.items():
    for title, error in zip(("forward", "central"), both):
        best = steps[error.argmin()]
        print(f"{name}, {title}: best e is {best:.0e}, error {error.min():.1e}")

# %% [markdown]
# Both axes count in powers of ten. Come from the right, with smaller and smaller $e$. The central lines fall twice as
# steeply as the forward ones, until rounding takes over and all of them climb again. The dots mark the best that central
# differences can do. In `float32`, steps that are too small are lost altogether: $x + e$ is $x$ again, the difference is
# 0, and the error is the whole slope.

# %%
forward, central = errors["float64"]
near, far = np.isclose(steps, 1e-3), np.isclose(steps, 1e-2)
assert 9 < forward[far] / forward[near] < 11 and 99 < central[far] / central[near] < 101
assert forward.min() > 1e-9 and central.min() < 1e-9  # float64: central is good enough
assert 1e-6 < steps[central.argmin()] < 1e-4

forward, central = errors["float32"]
assert central.min() > 5e-6  # float32: about five digits at the very best
x = np.float32(1.5)
assert x + np.float32(1e-8) == x  # a step that is lost

# %% [markdown]
# From now on: central differences, `float64`, and $e = 10^{-5}$.
#
# ## Arrays
#
# Now $x$ is an array. Every element has a slope of its own, so we move **one element at a time**.
#
# The result may be an array, too. Then there is a slope for every pair of an element of $x$ and an element of $y$, more
# than we want, and `backward` starts from a single number anyway. So make a single number of $y$: multiply it by an
# array $v$ of factors (they are called weights too, but nothing learns them) and add up. Instead of `(y *
# v).sum().backward()` you can write **`y.backward(v)`**. That starts from the gradient `v`, which is the gradient that
# the sum would pass on.

# %%
x = np.array([0.5, -1.0, 2.0])
v = np.array([10.0, 1.0, -3.0])
summed, direct = mt.tensor(x, requires_grad=True), mt.tensor(x, requires_grad=True)
(cube(summed) * mt.tensor(v)).sum().backward()
cube(direct).backward(v)
print(direct.grad)
assert direct.grad.numpy().tolist() == summed.grad.numpy().tolist()
assert direct.grad.numpy().tolist() == (3 * x * x * v).tolist()

# %% [markdown]
# Here is the comparison for a row of numbers. `function` takes a tensor and gives a tensor. `x` is a NumPy array of
# `float64`, and `mt.tensor` keeps that type. (From Python lists such as `[0.5, -1.0]` it makes `float32`.)


# %%
def both_gradients(function, x, v, e=1e-5):
    """From backward(), and from central differences: the gradients of the sum of v * function(x)."""
    leaf = mt.tensor(x, requires_grad=True)
    function(leaf).backward(v)
    numeric = np.zeros(len(x))
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += e
        down[i] -= e
        y_up, y_down = function(mt.tensor(up)), function(mt.tensor(down))
        numeric[i] = (v * (y_up.numpy() - y_down.numpy())).sum() / (2 * e)
    return leaf.grad.numpy(), numeric


analytic, numeric = both_gradients(cube, x, v)
print("backward():        ", analytic)
print("finite differences:", numeric)
assert np.allclose(analytic, numeric, rtol=1e-6)

# %% [markdown]
# The one from `backward()` is called *analytic*, because it comes from formulas. The other is called *numeric*. Methods
# that move numbers by a little are known as *finite differences*.
#
# ### Why v is random
#
# All weights equal to 1 would be easier, and `y.sum().backward()` looks natural. But look at this operation, which moves
# numbers so that their mean is 0. Its gradient function returns nothing but zeros. That is wrong.


# %%
@op
def centred_wrong(xp, x):
    return x - x.mean(), (lambda g: xp.zeros_like(x),)


analytic, numeric = both_gradients(centred_wrong, x, np.ones(3))
print("v = 1:     ", analytic, numeric)
assert np.allclose(analytic, numeric)  # not noticed

v = np.random.default_rng(0).standard_normal(3)
analytic, numeric = both_gradients(centred_wrong, x, v)
print("v random:  ", analytic, numeric)
assert not np.allclose(analytic, numeric)  # noticed

# %% [markdown]
# With weights of 1 the check asks how fast the *sum* of the results grows. That sum is always 0 here, so every slope is
# 0 and the zeros are right. Random weights ask for all results at once, and mistakes do not cancel by accident. (The
# slopes that a check reports are therefore not the plain ones: each contains its weights.)
#
# ## How close is close enough?
#
# The two gradients never agree to the last digit. Here are three cases: one is right and large, one is right and has an
# element whose slope is 0, and one is small and wrong by a factor of 2.


# %%
@op
def square_wrong(xp, x):
    return x * x, (lambda g: x * g,)  # the slope is 2x


cases = {
    "right, large": lambda x: 1e6 * cube(x),
    "right, has a 0": lambda x: cube(x) - 0.27 * x,
    "wrong, small": lambda x: 1e-6 * square_wrong(x),
}
x = np.array([0.3, 0.5, 0.9])
v = np.random.default_rng(0).standard_normal(3)
for title, function in cases.items():
    analytic, numeric = both_gradients(function, x, v)
    distance = abs(analytic - numeric)
    relative = distance / np.maximum(abs(analytic), abs(numeric))
    print(f"{title:15} distance {distance.max():.0e}, relative {relative.max():.0e}")

# %% [markdown]
# The **distance** cannot be the measure: it is larger in the first case, which is right, than in the last. So divide it by
# the larger of the two. That is the **relative error**. It tells these two apart, but it condemns the case in the middle:
# the first slope is $3 \cdot 0.3^2 - 0.27 = 0$, and from there even the smallest distance is as far as the number itself.
#
# Hence both: the distance may be as large as a small fraction of the number **plus** a very small fraction of the
# array's largest number.


# %%
def agree(analytic, numeric, relative=1e-6, of_largest=1e-8):
    size = np.maximum(abs(analytic), abs(numeric))
    return abs(analytic - numeric) <= relative * size + of_largest * size.max()


def check_gradient(function, x, e=1e-5):
    """Whether backward() through function(x) agrees with central differences."""
    v = np.random.default_rng(0).standard_normal(function(mt.tensor(x)).shape)
    return agree(*both_gradients(function, x, v, e)).all()


for title, function in cases.items():
    print(f"{title:15} {check_gradient(function, x)}")
    assert check_gradient(function, x) == title.startswith("right")

# %% [markdown]
# ## The engine's check
#
# These are twenty lines, and they are a gradient check. The engine's own is called `gradcheck`. It does the same for
# arrays of any shape and for several inputs, and it returns a report, which counts as true if everything agrees.

# %%
report = gradcheck(cube, x)
print(report)
assert report and report.checked == 3

# %%
report = gradcheck(cases["wrong, small"], x)
print(report)
assert not report and len(report.mismatches) == 3

v = np.random.default_rng(0).standard_normal(3)  # the same v that gradcheck draws
analytic, numeric = both_gradients(cases["wrong, small"], x, v)
for mismatch in report.mismatches:
    (i,) = mismatch.index
    assert np.isclose(mismatch.analytic, analytic[i], rtol=1e-9)
    assert np.isclose(mismatch.numeric, numeric[i], rtol=1e-9)

# %% [markdown]
# The numbers are those of our own check. For each of the worst elements the report says in which input it is, at which
# index, what `backward()` claims and what finite differences say. Below stands what the engine suspects. More about
# that in a moment. First two pieces of its code. This is the central difference at one element. `value(i, array)` is
# the weighted sum with input number i replaced by `array`, and `_moved` copies an array and moves the element at
# `place`.

# %%
source(_slope)

# %% [markdown]
# And this is whether two numbers agree. `rtol` and `atol` are our `relative` and `of_largest`, and `largest` is our
# `size.max()`. `rounding` is an estimate of what rounding did to the difference.

# %%
source(_agree)

# %% [markdown]
# An input may also be a **shape**. Then `gradcheck` makes up values of that shape. And a function with large inputs
# would be called very often, twice per element. With `samples=20` only 20 elements of each input are checked by
# themselves, and then all of them together: moved at once, each by a random amount of its own.

# %%
report = gradcheck(lambda x, y: x * y + x, (2, 3), (3,))
print(report)
assert report and report.checked == 6 + 3

report = gradcheck(cube, (100, 100), samples=20)
print(report)
assert report and report.checked == 20

# %% [markdown]
# Now the operation from the beginning. Which of its four inputs is it?

# %%
assert gradcheck(two_products, (3,), (3,), (3,), (3,))
report = gradcheck(two_products_wrong, (3,), (3,), (3,), (3,))
print(report)
assert {mismatch.input for mismatch in report.mismatches} == {2}  # w, counted from 0

# %% [markdown]
# ## Three usual mistakes
#
# Many wrong gradients are of one of three kinds. Here is one of each, so that you have seen what their reports look like.
#
# **A lost factor.** `square_wrong` has it:

# %%
report = gradcheck(square_wrong, (4,))
print(report)
assert len(report.mismatches) == 4
assert "a factor of 0.5 everywhere" in report.mismatches[0].cause

# %% [markdown]
# Each element is wrong by the same factor. That is a strong sign: the arrangement is right, and only a constant is
# missing. The suspicion is right.
#
# **A lost sum.** This operation picks elements by their index, some of them repeatedly. Whoever is picked three times
# gets three gradients, and they add up, like broadcasting's copies. The gradient function below assigns instead, so that
# only the last one stays.

# %%
index = [0, 2, 1, 2, 0, 3, 0, 2]


@op
def picked_wrong(xp, x):
    def grad_x(g):
        gx = xp.zeros_like(x)
        for k, i in enumerate(index):
            gx[i] = g[k]  # += is meant
        return gx

    return x[index], (grad_x,)


report = gradcheck(picked_wrong, (5,))
print(report)
wrong = {mismatch.index for mismatch in report.mismatches}
assert wrong == {(0,), (2,)}  # those picked more than once
assert "= where += is meant" in report.mismatches[0].cause

# %% [markdown]
# Look at which elements are wrong: 0 and 2, those that were picked more than once. Elements 1 and 3 were picked once, and
# are right. Element 4 was never picked, and its 0 is right as well. If no element is picked twice, nobody notices:

# %%
index = [3, 0, 4]
report = gradcheck(picked_wrong, (5,))
print(report)
assert report

# %% [markdown]
# So check the hard case: repeated, overlapping, broadcast.
#
# **A lost transpose.** For a matrix product $ab$ the gradient of $a$ is $g\,b^T$, where $^T$ swaps rows and columns, and
# that of $b$ is $a^T g$. (Lesson 3 derives this. Here it is enough that one transpose is missing.)


# %%
@op
def product_wrong(xp, a, b):
    return a @ b, (lambda g: g @ b, lambda g: a.T @ g)  # the first should be g @ b.T


report = gradcheck(product_wrong, (3, 3), (3, 3))
print(report)
assert {mismatch.input for mismatch in report.mismatches} == {0}
assert len(report.mismatches) == 9
assert "elements in the wrong order" in report.mismatches[0].cause

# %% [markdown]
# No pattern but one: all of input 0 is wrong, and input 1 is right. So it is the first gradient function, and for a formula
# with matrices "elements in the wrong order" should make you look for a transpose.
#
# With square matrices this mistake raises no error. With other shapes it cannot even be computed. (What matters in the
# message is its end: 3 is different from 4.)

# %%
try:
    gradcheck(product_wrong, (2, 3), (3, 4))
except ValueError as error:
    print(error)
else:
    raise AssertionError("this should not have worked")

# %% [markdown]
# So give every axis a length of its own. That finds mistakes before any gradient is compared.
#
# How does the engine come to its suspicions? By looking at what the wrong elements have in common:

# %%
source(_suspect)

# %% [markdown]
# (`detach()` takes a tensor off the tape, and the *mask* of a dropout belongs to lesson 4.) That is a list of patterns,
# no more. The *numbers* of a report are facts: here `backward()` and finite differences disagree. Usually the gradient
# is wrong; the next two sections show when it is the differences that are. The *cause* is a guess.
#
# ## float32
#
# The check refuses numbers that are too coarse for it:

# %%
x = np.linspace(0.5, 1.5, 9)
try:
    gradcheck(cube, x.astype("float32"))
except TypeError as error:
    print(error)
else:
    raise AssertionError("this should have been refused")

# %% [markdown]
# It can be told to go on. Here is how far off it then is, for a gradient that is **right**. (`eps` is the $e$ of the
# differences.)

# %%
good = gradcheck(cube, x)
print(f"float64, eps 1e-05: largest relative error {good.worst:.0e}")
for eps in 1e-2, 1e-3, 1e-4, 1e-5:
    report = gradcheck(cube, x.astype("float32"), eps=eps, allow_float32=True)
    print(f"float32, eps {eps:.0e}: largest relative error {report.worst:.0e}")
    assert not report and report.worst > 1000 * good.worst
print(report.mismatches[0].cause)

# %% [markdown]
# The gradient is not at fault. These errors are the red V of the picture, and whoever does not know it searches the
# formulas for a mistake that is not there. (At `1e-2` it is better than the picture, because the check also tries half
# of $e$. That leaves a quarter of the error in $e^2$, so the two can be combined in such a way that it cancels.) So
# check in `float64`, and compute in `float32` afterwards: the formulas are the same.
#
# ## Kinks
#
# Finite differences need a slope to come close to. $|x|$ has slope $-1$ on the left, $1$ on the right, and at 0 a *kink*,
# where it has none. A difference that reaches across the kink mixes the two:


# %%
def difference_of_abs(x, e):
    return (abs(x + e) - abs(x - e)) / (2 * e)


for x in 0.0, 1e-7, 3e-6, 2e-5:
    print(f"at {x:.0e}: {difference_of_abs(x, 1e-5):.2f}")
assert difference_of_abs(0.0, 1e-5) == 0
assert np.isclose(difference_of_abs(3e-6, 1e-5), 0.3)
assert np.isclose(difference_of_abs(2e-5, 1e-5), 1)

# %%
e = 0.4
x = np.linspace(-1, 1, 201)
figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
axes[0].plot(x, abs(x), color="#3b6fb6", label="|x|")
ends = np.array([0.12 - e, 0.12 + e])
axes[0].plot(ends, abs(ends), "o-", color="#c8553d", label="from 0.12 - e to 0.12 + e")
axes[0].set(title=f"a difference across the kink, e = {e}", xlabel="x")
slope = np.where(x == 0, np.nan, np.sign(x))
axes[1].plot(x, slope, color="#3b6fb6", lw=4, label="slope")
axes[1].plot(x, difference_of_abs(x, e), color="#c8553d", label="central difference")
axes[1].set(title=f"what it says at each x, e = {e}", xlabel="x")
axes[0].legend(loc="upper center")
axes[1].legend(loc="upper left")
for ax in axes:
    ax.grid(alpha=0.3)
plt.show()

# %% [markdown]
# Everywhere within $e$ of the kink the difference says something in between. The engine's `F.abs` takes 0 for the slope
# at 0, which is a choice. Exactly there the difference says 0 as well, so a check at 0 tells nothing, and beside it the
# check fails though the gradient is right. (The slopes are multiplied by the random weights, so you do not read 1 or
# -1.)

# %%
report = gradcheck(F.abs, np.array([0.0, 1e-7, 3e-6, 2e-5, -0.5]))
print(report)
assert {mismatch.index for mismatch in report.mismatches} == {(1,), (2,)}
assert all("a kink within eps" in mismatch.cause for mismatch in report.mismatches)

# %% [markdown]
# How does it know? It looks at the slope on either side of $x$ by itself. For a smooth function these are nearly the same.
# (The two examples in the report are functions of later lessons: one that sets negative numbers to 0, and one that takes
# the largest of several numbers. That has a kink where two of them are equal.)
#
# When `gradcheck` is given a shape, it makes values that keep away from all this: each keeps a distance from 0 and from
# every other.

# %%
source(separated)

# %%
x = separated((2, 5), np.random.default_rng(0))
print(x.round(3))
gaps = np.diff(np.sort(x, axis=None))
print(f"smallest gap {gaps.min():.3f}, closest to 0 {abs(x).min():.3f}")
assert gaps.min() >= 1 / 10 and abs(x).min() >= 1 / 20  # n is 10
assert gradcheck(F.abs, (2, 5))

# %% [markdown]
# ## What a check cannot see
#
# **A function that is the wrong function.** The *variance* of n numbers is the mean of their squared distances from their
# mean. Let somebody divide by $n - 1$ instead, both in the value and in the gradient:


# %%
@op
def variance_wrong(xp, x):
    distance = x - x.mean()
    n = x.size - 1  # x.size is meant
    return (distance * distance).sum() / n, (lambda g: 2 * distance / n * g,)


report = gradcheck(variance_wrong, (6,))
print(report)
assert report  # the check passes

# %% [markdown]
# The gradient is right: it is the exact gradient of the wrong function. So the *values* need a test of their own. The
# surest is to write the definition down a second time, with plain loops, slowly, and to compare:


# %%
def variance_loops(x):
    mean = 0.0
    for number in x:
        mean += number / len(x)
    result = 0.0
    for number in x:
        result += (number - mean) ** 2 / len(x)
    return result


x = separated((6,), np.random.default_rng(0))
fast, slow = float(variance_wrong(mt.tensor(x)).numpy()), variance_loops(x)
print(f"operation {fast:.6f}, loops {slow:.6f}, ratio {fast / slow:.6f}")
assert np.isclose(fast / slow, 6 / 5)

# %% [markdown]
# All fast code of this engine has both tests: its gradients against finite differences, its values against loops. Lessons
# 3 and 4 do the same.
#
# **A place where nobody looked.** A check speaks of the values that it was given, and of no others. This operation limits
# numbers to 2. Beyond 2 the gradient should be 0, and somebody forgot. The values that `gradcheck` makes up lie between
# about -1 and 1:


# %%
@op
def limited_wrong(xp, x):
    return x.clip(max=2.0), (lambda g: g,)


assert gradcheck(limited_wrong, (6,))  # passes
report = gradcheck(limited_wrong, np.array([0.5, 1.5, 2.5]))
print(report.mismatches[0])
assert [mismatch.index for mismatch in report.mismatches] == [(2,)]

# %% [markdown]
# So where a function has several parts, check each of them.
#
# **A function that draws at random.** If it answers differently each time, then the difference of two answers says nothing
# about the slope. `gradcheck` calls the function twice with the same input to find out:

# %%
rng = np.random.default_rng(0)


def noisy(x):
    return x * rng.uniform(0.9, 1.1, x.shape)


report = gradcheck(noisy, (2,))
print(report)
assert "gives another value each time" in report.mismatches[0].cause

# %% [markdown]
# AlexNet has a part of this kind, dropout. Lesson 4 shows how it can be checked all the same.
#
# ## Summary
#
# - A wrong gradient raises no error, and what it moves may even learn. So check it by itself.
# - Central differences err like $e^2$ until rounding takes over. In `float64` with $e = 10^{-5}$ they are good enough, in
#   `float32` they are not.
# - Weight an array of results with a random $v$: `y.backward(v)`. With weights of 1 a wrong gradient may pass.
# - Compare by relative error, and allow a little more for what should be 0. Keep away from kinks.
# - A report's numbers say that the two disagree. In `float64` and away from kinks that means a wrong gradient. The
#   cause it names is a guess.
# - A check cannot see a wrong value, nor a place where it did not look. Compare values with plain loops.
#
# ## Exercises
#
# They work as in lesson 1: write, run the cell, run the check below it. `hint("2.1")` helps.
#
# ### 2.1 Both ways (5 minutes)
#
# Write `central_difference(f, x, e)`: about how fast `f` grows at the number `x`. Move `x` by `e` both ways.


# %%
def central_difference(f, x, e):
    ### BEGIN SOLUTION
    return (f(x + e) - f(x - e)) / (2 * e)
    ### END SOLUTION


# %%
check("2.1", central_difference)

# %% [markdown]
# ### 2.2 Arrays of any shape (15 minutes)
#
# `both_gradients` above can do rows of numbers only. Write the numeric half of it for every shape. `f` takes an array and
# gives an array, perhaps of another shape, which is that of the weights `v`. `numeric_gradient(f, x, v, e)` is an array
# shaped like `x`: how fast the sum of `v * f(x)` grows with each element of `x`, by central differences. Leave `x` itself
# as it is. `np.ndindex(x.shape)` runs through all indices of an array.


# %%
def numeric_gradient(f, x, v, e):
    ### BEGIN SOLUTION
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += e
        down[place] -= e
        gradient[place] = (v * (f(up) - f(down))).sum() / (2 * e)
    return gradient
    ### END SOLUTION


# %%
check("2.2", numeric_gradient)

# %% [markdown]
# ### 2.3 Find it and mend it (10 minutes)
#
# Here is a division, and one of its two gradients is wrong.


# %%
@op
def quotient_wrong(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: -g / (y * y))


# %% [markdown]
# Find out which one with `gradcheck`, in a cell of your own (give it a shape for each input). Then write `mended(xp, x,
# y)`: the same operation with both gradients right, without the decorator.


# %%
def mended(xp, x, y):
    ### BEGIN SOLUTION
    return x / y, (lambda g: g / y, lambda g: -g * x / (y * y))
    ### END SOLUTION


# %%
check("2.3", mended)

# %% [markdown]
# ### 2.4 The largest relative error (10 minutes)
#
# Write `largest_relative_error(analytic, numeric)` for two arrays of the same shape: the largest of the elements'
# relative errors, as a number. Two things can go wrong. Where both elements are 0 they agree, so the error there is 0,
# and not 0/0. And a gradient can be NaN, "not a number". That must never look right: then the answer is NaN. Add
# nothing for small elements, as `agree` did: they count like large ones. `np.where(condition, a, b)` takes a where the
# condition holds and b elsewhere.


# %%
def largest_relative_error(analytic, numeric):
    ### BEGIN SOLUTION
    size = np.maximum(abs(analytic), abs(numeric))
    safe = np.where(size == 0, 1.0, size)
    return (abs(analytic - numeric) / safe).max()
    ### END SOLUTION


# %%
check("2.4", largest_relative_error)

# %% [markdown]
# **Next:** the operation that most of AlexNet's arithmetic goes into, and the first gradient that is hard to write:
# lesson 3, convolution.
