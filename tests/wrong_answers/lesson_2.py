# Wrong answers to the exercises of lesson 2 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import numpy as np
from minitorch_alex.tensor import op


# %% 2.1: this is the forward difference
def central_difference(f, x, e):
    return (f(x + e) - f(x)) / e


# %% 2.1: the two places are 2 * e apart
def central_difference(f, x, e):
    return (f(x + e) - f(x - e)) / e


# %% 2.1: put the 2 * e in parentheses
def central_difference(f, x, e):
    return (f(x + e) - f(x - e)) / 2 * e


# %% 2.1: put the difference in parentheses
def central_difference(f, x, e):
    return f(x + e) - f(x - e) / (2 * e)


# %% 2.1: for the e that is given
def central_difference(f, x, e):
    e = 1e-6
    return (f(x + e) - f(x - e)) / (2 * e)


# %% 2.2: a whole row is moved at once
def numeric_gradient(f, x, v, e):
    gradient = np.zeros_like(x)
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += e
        down[i] -= e
        gradient[i] = (v * (f(up) - f(down))).sum() / (2 * e)
    return gradient


# %% 2.2: and give the result x's shape
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(len(x))
    for i in range(len(x)):
        up, down = x.copy(), x.copy()
        up[i] += e
        down[i] -= e
        gradient[i] = (v * (f(up) - f(down))).sum() / (2 * e)
    return gradient


# %% 2.2: work on a copy
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        x[place] += e
        up = f(x)
        x[place] -= 2 * e
        gradient[place] = (v * (up - f(x))).sum() / (2 * e)
    return gradient


# %% 2.2: begin with fresh copies
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    up, down = x.copy(), x.copy()
    for place in np.ndindex(x.shape):
        up[place] += e
        down[place] -= e
        gradient[place] = (v * (f(up) - f(down))).sum() / (2 * e)
    return gradient


# %% 2.2: the weights v are not used
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[place] += e
        down[place] -= e
        gradient[place] = (f(up) - f(down)).sum() / (2 * e)
    return gradient


# %% 2.2: this is the forward difference
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up = x.copy()
        up[place] += e
        gradient[place] = (v * (f(up) - f(x))).sum() / e
    return gradient


# %% 2.2: all elements are moved at once
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        gradient[place] = (v * (f(x + e) - f(x - e))).sum() / (2 * e)
    return gradient


# %% 2.3: x does not occur
def mended(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: -g / (y * y))


# %% 2.3: y occurs twice
def mended(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: -g * x / y)


# %% 2.3: the sign
def mended(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: g * x / (y * y))


# %% 2.3: this gradient was right before
def mended(xp, x, y):
    return x / y, (lambda g: g * y, lambda g: -g / (y * y))


# %% 2.3: g, is not used
def mended(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: -x / (y * y))


# %% 2.3: the decorator @op is too much
@op
def mended(xp, x, y):
    return x / y, (lambda g: g / y, lambda g: -g * x / (y * y))


# %% 2.3: the order of the inputs
def mended(xp, x, y):
    return x / y, (lambda g: -g * x / (y * y), lambda g: g / y)


# %% 2.4: 0/0
def largest_relative_error(analytic, numeric):
    return (abs(analytic - numeric) / np.maximum(abs(analytic), abs(numeric))).max()


# %% 2.4: 1e-08 is added before dividing
def largest_relative_error(analytic, numeric):
    return (abs(analytic - numeric) / (np.maximum(abs(analytic), abs(numeric)) + 1e-8)).max()


# %% 2.4: NaN is lost
def largest_relative_error(analytic, numeric):
    size = np.maximum(abs(analytic), abs(numeric))
    return (abs(analytic - numeric) / np.where(size > 0, size, 1.0))[size > 0].max(initial=0.0)


# %% 2.4: divided by the analytic one only
def largest_relative_error(analytic, numeric):
    size = abs(analytic)
    return (abs(analytic - numeric) / np.where(size == 0, 1.0, size)).max()


# %% 2.4: the distance is abs(analytic - numeric)
def largest_relative_error(analytic, numeric):
    size = np.maximum(abs(analytic), abs(numeric))
    return ((analytic - numeric) / np.where(size == 0, 1.0, size)).max()


# %% 2.4: divide each by its own
def largest_relative_error(analytic, numeric):
    size = np.maximum(abs(analytic), abs(numeric)).max()
    return abs(analytic - numeric).max() / (size or 1.0)


# %% 2.4: the largest of them is wanted
def largest_relative_error(analytic, numeric):
    size = np.maximum(abs(analytic), abs(numeric))
    return abs(analytic - numeric) / np.where(size == 0, 1.0, size)


# %% 2.2: x.copy() does
def numeric_gradient(f, x, v, e):
    gradient = np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        up = down = x.copy()
        up[place] += e
        down[place] -= e
        gradient[place] = (v * (f(up) - f(down))).sum() / (2 * e)
    return gradient
