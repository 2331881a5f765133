# %% [markdown]
# # 1. A tensor that remembers
#
# AlexNet is a program that says what a photograph shows. Krizhevsky, Sutskever and Hinton described it in 2012; "the
# paper" always means theirs. It is a *neural network*: one long formula from the pixels to an answer, arranged in steps
# called *layers*. Its *error* is a number that says how wrong the answers are. An *engine*, such as this one, is the
# library that computes such formulas.
#
# The formula has 60 million numbers to set, its *weights*. The paper sets them in section 5 by *gradient descent*: ask
# of each weight "if you were a little larger, would the network's error rise or fall, and how steeply?", then move
# every weight a little downhill, and repeat. This steepness is the weight's *gradient*. The paper does not say how to
# compute sixty million gradients at once: the method was long known. This lesson builds it from nothing.
#
# **Afterwards you can** compute the gradient of any formula with a *tape*, say why the order of the computation matters,
# and read the heart of this engine, `Tensor.backward`.
#
# You need Python, a little NumPy, and the derivative of a product. The lesson takes about 40 minutes, its exercises as
# long again.

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

import numpy as np

import minitorch_alex as mt
import minitorch_alex.functional as F
from minitorch_alex.exercises import check, hint
from minitorch_alex.graph import graph
from minitorch_alex.source import source
from minitorch_alex.tensor import Tensor, op

# %% [markdown]
# ## How steep is it?
#
# Take a chain of small steps, each so simple that we know its slope:
#
# $$b = 3a, \qquad c = b^2$$
#
# How fast does $c$ grow when $a$ does? One way is to try: move $a$ a little both ways and look.


# %%
def c_of(a):
    b = 3 * a
    return b * b


a, e = 2.0, 1e-6
tried = (c_of(a + e) - c_of(a - e)) / (2 * e)
print(tried)

# %% [markdown]
# Trying needs two evaluations *for every number that we ask about*. With 60 million weights that is 120 million runs of
# the network for a single step. (Lesson 2 uses it all the same, as a check.)
#
# The other way is the **chain rule**: slopes of steps done one after the other multiply. $b = 3a$ has slope 3. $c = b^2$
# has slope $2b$, and $b$ is 6 here, so 12. Together 36.

# %%
b = 3 * a
slope = 3 * (2 * b)
print(slope)
assert abs(slope - tried) < 1e-6

# %% [markdown]
# Note what we needed: the value $b = 6$ from the way forward. Whoever wants slopes on the way back has to remember
# something on the way forward. That memory is the tape.
#
# ## The tape
#
# Let a number remember its **inputs**, the numbers it was computed from, and for each of them how to turn its own
# gradient into that input's. Such a pair (input, function) is an **edge**. "The gradient of x" always means: how fast
# the end result of the whole computation grows when x does.
#
# For a sum `x + y` the gradient passes through unchanged, since raising x by a little raises the sum by just as much.
# For a product `x * y`, raising x by a little raises the product by y times as much. So the input x gets the gradient
# times y, and in the same way y gets it times x.

# %%
births = itertools.count()


class Number:
    """A number that remembers how it was made.

    edges: pairs (input, function that turns this number's gradient into the input's).
    born: 0, 1, 2, ... in the order in which numbers come into being.
    """

    def __init__(self, value, edges=()):
        self.value = value
        self.edges = edges
        self.grad = 0.0
        self.born = next(births)

    def __add__(self, other):
        to_self = lambda g: g
        to_other = lambda g: g
        return Number(self.value + other.value, ((self, to_self), (other, to_other)))

    def __mul__(self, other):
        to_self = lambda g: g * other.value
        to_other = lambda g: g * self.value
        return Number(self.value * other.value, ((self, to_self), (other, to_other)))


# %% [markdown]
# Computing with such numbers looks as usual, and leaves a trail. Here is a small one, in which numbers are used twice:
#
# $$b = a + a, \qquad c = b + b$$
#
# so that $c = 4a$ and the slope we hope for is 4. Why 4? If $a$ grows by a little, $b$ grows once through its first
# input and once through its second: by twice as much. **When a number is used several times, what it does along each
# way is added up.**

# %%
a = Number(3.0)
b = a + a
c = b + b
print("c =", c.value)
print("b is number", b.born)
print("c was computed from numbers", [parent.born for parent, _ in c.edges])

# %% [markdown]
# The engine's own numbers, its **tensors**, keep the same kind of trail, and `graph` draws it. Green is what we put in,
# blue what was computed from it, and # is the birth number (the picture counts from 1). Arrows point the way the values
# went, and gradients go against them. Two arrows between two boxes: here the paths part, and meet again. With something
# in the middle of each path the drawing would be a *diamond*, and that is what such a place is called.

# %%
a = mt.tensor(3.0, requires_grad=True)
b = a + a
c = b + b
graph(c, a=a, b=b, c=c)


# %% [markdown]
# ## Back along the tape: a version that looks right
#
# Walk back from the result. At each number add the gradient that arrives to what it has already, then go on to its
# inputs. A few lines of recursion:


# %%
def backward_wrong(number, gradient=1.0):
    number.grad += gradient
    for parent, gradient_of in number.edges:
        backward_wrong(parent, gradient_of(number.grad))


a = Number(3.0)
c = a * a
backward_wrong(c)
print("slope of a * a at 3:", a.grad)
assert a.grad == 6.0  # right

a = Number(3.0)
b = a + a
c = b + b
backward_wrong(c)
print("slope of 4a:", a.grad)
assert a.grad == 6.0  # wrong: it should be 4

# %% [markdown]
# The first result is right, the second is not. Follow it by hand. $c$ passes 1 to $b$ along its first edge, and $b$, which
# has 1 now, passes it on to $a$ twice: $a$ has 2. Then $c$ passes 1 along its second edge. Now $b$ has 2, **and passes on
# 2 though it has passed on 1 of it before**: $a$ gets 4 more and has 6.
#
# The mistake is to pass a gradient on before it is complete. Two ways out come to mind.
#
# **Pass on only what has just arrived.** This is right, since paths add up, and it visits a number once for every
# *path* to it:


# %%
def backward_by_paths(number, gradient=1.0):
    number.grad += gradient
    visits = 1
    for parent, gradient_of in number.edges:
        visits += backward_by_paths(parent, gradient_of(gradient))
    return visits


for depth in 2, 4, 8, 16:
    a = end = Number(3.0)
    for _ in range(depth):
        end = end + end
    visits = backward_by_paths(end)
    print(
        f"{depth:2} doublings: slope {a.grad:6.0f}, {visits:6} visits to {depth + 1} numbers"
    )
    assert a.grad == 2**depth and visits == 2 ** (depth + 1) - 1

# %% [markdown]
# Every doubling doubles the work. A network with 50 such steps would never finish.
#
# ## Youngest first
#
# **Pass a gradient on only when it is complete**, that is, after everything that was computed from the number has been
# dealt with. What was computed from a number is *younger* than the number: it cannot exist before. So if we always
# take the youngest number that is left, whatever was computed from it is younger still, and hence already done.
#
# That is the whole algorithm. Collect what the result was made from, sort by birth, walk from young to old.


# %%
def backward(result):
    found, to_visit = {result}, [result]
    while to_visit:  # collect everything behind the result
        for parent, _ in to_visit.pop().edges:
            if parent not in found:
                found.add(parent)
                to_visit.append(parent)

    result.grad = 1.0
    for number in sorted(found, key=lambda n: n.born, reverse=True):
        for parent, gradient_of in number.edges:
            parent.grad += gradient_of(number.grad)
    return len(found)


a = Number(3.0)
b = a + a
c = b + b
backward(c)
print("slope of 4a:", a.grad)
assert a.grad == 4.0

a = end = Number(3.0)
for _ in range(50):
    end = end + end
visits = backward(end)
print("50 doublings: slope", a.grad, "after", visits, "visits")
assert a.grad == 2.0**50 and visits == 51

# %% [markdown]
# There is a reason for a loop in the place of recursion, too: Python allows about a thousand calls inside one another,
# and the tape of a long computation is deeper than that.


# %%
def sum_of_many(a):
    end = a
    for _ in range(20_000):
        end = end + a
    return end


try:
    backward_wrong(sum_of_many(Number(1.0)))
except RecursionError as error:
    print("recursion:", error)

a = Number(1.0)
backward(sum_of_many(a))
print("loop: slope", a.grad)
assert a.grad == 20_001

# %% [markdown]
# ## From numbers to arrays
#
# A network computes with arrays of many numbers at once: *tensors*. Nothing changes, except that a gradient has the
# shape of the tensor that it belongs to: one slope for each element. These are the engine's own tensors:

# %%
x = mt.tensor(
    [1.0, 2.0, 3.0], requires_grad=True
)  # "record what is computed from this"
w = mt.tensor([0.5, -1.0, 2.0], requires_grad=True)
y = (x * w).sum()
y.backward()
print(y)
print("gradient of x:", x.grad)
print("gradient of w:", w.grad)
assert x.grad.numpy().tolist() == w.numpy().tolist()  # the slope in each x is its w
assert w.grad.numpy().tolist() == x.numpy().tolist()

# %% [markdown]
# `requires_grad=True` makes a **leaf** that wants a gradient. Whatever is computed from it is recorded. `backward()`
# starts from a single number and leaves the gradients in `.grad` of the leaves. (`float32 on numba` in the printed
# tensors says how each number is stored, see lesson 2, and which library computes, the *backend*, see lesson 3.
# `.numpy()` gives the values as a NumPy array.) The tape it has walked is used up: that frees the memory. And `.grad`
# is added to, just like `number.grad` above, so that several results can be added up. Set it to `None` to start afresh.

# %%
try:
    y.backward()
except RuntimeError as error:
    print(error)

(x * w).sum().backward()
assert x.grad.numpy().tolist() == [1.0, -2.0, 4.0]  # twice what it was
x.grad = None

# %% [markdown]
# Sometimes nothing should be recorded, for instance when only the value is wanted:

# %%
with mt.no_grad():
    y = (x * w).sum()
print(y, "requires a gradient:", y.requires_grad)
assert not y.requires_grad

# %% [markdown]
# ### Broadcasting copies, so its gradients add up
#
# NumPy lets you add a row to every row of a table: the row is *broadcast*, as if it were copied. Raising one number of
# the row raises it in every copy, so its gradient is the **sum** over the copies.

# %%
table = mt.tensor(np.ones((4, 3)), requires_grad=True)
row = mt.tensor(np.array([10.0, 20.0, 30.0]), requires_grad=True)
(table * row).sum().backward()
print("table's gradient has shape", table.grad.shape, "and row's", row.grad.shape)
print(row.grad)
# four copies, each multiplied by a 1 of the table
assert row.grad.numpy().tolist() == [4.0, 4.0, 4.0]

# %% [markdown]
# ## The engine's own code
#
# You have now seen the idea that the whole engine is built on. This is its multiplication. `xp` is the backend that the
# tensors live on: it has NumPy's functions. The function returns the value and **one gradient function per input**,
# directly below each other, as on a blackboard. (`source` prints a piece of the engine as it stands, with its place.)

# %%
source(F.mul)

# %% [markdown]
# The decorator turns such a function of arrays into an operation on tensors. For two operands it also brings integers
# and floating-point numbers to a common type; the rest is `op`. Its work: unpack the arrays, call the function, and
# keep the edges to those inputs that want a gradient, unless `no_grad` has switched `_recording` off. The rest is
# housekeeping: which backend the inputs have in common, and an error message that names the operation and the shapes.

# %%
source(op)

# %% [markdown]
# And this is the walk. Compare it with `backward` above: collect (in `ancestors`), sort by birth, take the youngest
# (`pop()` takes the last of a list), pass on. The gradients on the way are kept in `gradients`, by birth number, and
# only a leaf keeps its own, in `.grad`. (The docstring writes d(self)/d(leaf) for the gradient of the leaf.)
# `_passed_on` calls the gradient function and adds up the copies that broadcasting made. `_take_edges` removes the
# edges, so that memory is freed on the way. `_first_gradient` is the 1 that everything begins with.

# %%
source(Tensor.backward)


# %% [markdown]
# ### An operation of your own
#
# Anyone can write one. Here is $x^2$, with the gradient $2x \cdot g$: the slope of the operation times the gradient that
# arrives. The comma makes a tuple of one.


# %%
@op
def square(xp, x):
    return x * x, (lambda g: 2 * x * g,)


x = mt.tensor([1.0, -2.0, 3.0], requires_grad=True)
y = square(x).sum()
y.backward()
print(x.grad)
assert x.grad.numpy().tolist() == [2.0, -4.0, 6.0]

# %% [markdown]
# ## Summary
#
# - The gradient of x says how fast the result grows when x does. Slopes of steps multiply, and paths add up.
# - A tape keeps, for every number, edges: its inputs, and how to turn its gradient into theirs.
# - A gradient may be passed on only when it is complete. Youngest first guarantees that, in one visit per tensor.
# - What broadcasting copied on the way forward is added up on the way back.
#
# ## Exercises
#
# Write each function in the place of `raise NotImplementedError()`, run the cell, then run the check below it. The
# check tells what is wrong. `hint("1.1")` helps, `hint("1.1", 2)` says more. Or save the notebook and, in a shell in
# this folder, let `python -m minitorch_alex.exercises check 1` examine all of them. The folder `solved` has this
# notebook with solutions.
#
# ### 1.1 By hand (5 minutes)
#
# With $b = 3a$ and $c = b \cdot b + a$, write `slope_by_hand(a)`: how fast $c$ grows when $a$ does. Use only ordinary
# numbers, no tape.


# %%
def slope_by_hand(a):
    ### BEGIN SOLUTION
    b = 3 * a
    return 3 * (2 * b) + 1
    ### END SOLUTION


# %%
check("1.1", slope_by_hand)

# %% [markdown]
# ### 1.2 An operation (5 minutes)
#
# Write $x^3$ as an operation, in the form of `square` but without the decorator: a function `cube(xp, x)` of arrays that
# returns the value and a tuple with one gradient function.


# %%
def cube(xp, x):
    ### BEGIN SOLUTION
    return x * x * x, (lambda g: 3 * x * x * g,)
    ### END SOLUTION


# %%
check("1.2", cube)

# %% [markdown]
# ### 1.3 Add up the copies (15 minutes)
#
# An array of shape `shape` was broadcast, as `row` was above, and `g` is the gradient of the broadcast version. Write
# `unbroadcast(g, shape)`: the gradient of the original, an array of that shape. Broadcasting does two things: it puts
# new axes in front, and it repeats along axes of length 1. `g.sum(axis=0)` adds up along the first axis and removes it.
# `g.sum(axis=k, keepdims=True)` adds up along axis k and keeps it, with length 1. You need both.


# %%
def unbroadcast(g, shape):
    ### BEGIN SOLUTION
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g
    ### END SOLUTION


# %%
check("1.3", unbroadcast)

# %% [markdown]
# ### 1.4 The order of the walk (15 minutes)
#
# Write `backward_order(result)`: a list of `result` and all numbers that it was computed from, each once, in an order
# in which `backward` may pass their gradients on: no number before one that was computed from it. They have `edges` and
# `born`, like `Number` above.


# %%
def backward_order(result):
    ### BEGIN SOLUTION
    found, to_visit = {result}, [result]
    while to_visit:
        for parent, _ in to_visit.pop().edges:
            if parent not in found:
                found.add(parent)
                to_visit.append(parent)
    return sorted(found, key=lambda number: -number.born)
    ### END SOLUTION


# %%
check("1.4", backward_order)

# %% [markdown]
# **Next:** how do we know that a gradient is right? Lesson 2 builds the check that everything in this engine has passed.
