# Wrong answers to the exercises of lesson 1 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import numpy as np


# %% 1.1: a itself adds a slope of 1
def slope_by_hand(a):
    b = 3 * a
    return 3 * (2 * b)


# %% 1.1: c depends on a also through b
def slope_by_hand(a):
    b = 3 * a
    return 2 * b + 1


# %% 1.1: the value of c, not its slope
def slope_by_hand(a):
    b = 3 * a
    return b * b + a


# %% 1.1: 'b' is not known here
def slope_by_hand(a):
    return 6 * b + 1


# %% 1.2: g, is not used
def cube(xp, x):
    return x * x * x, (lambda g: 3 * x * x,)


# %% 1.2: the derivative of x cubed is 3 x squared
def cube(xp, x):
    return x * x * x, (lambda g: x * x * g,)


# %% 1.2: a missing comma
def cube(xp, x):
    return x * x * x, (lambda g: 3 * x * x * g)


# %% 1.2: an op returns two things
def cube(xp, x):
    return x * x * x


# %% 1.3: add them up
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g[0]
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g


# %% 1.3: keepdims
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis)
    return g


# %% 1.3: this is their mean
def unbroadcast(g, shape):
    while g.ndim > len(shape):
        g = g.mean(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.mean(axis=axis, keepdims=True)
    return g


# %% 1.3: changes what it was given
def unbroadcast(g, shape):
    g *= 1.5
    return g


# %% 1.4: this is oldest first
def backward_order(result):
    found, to_visit = {result}, [result]
    while to_visit:
        for parent, _ in to_visit.pop().edges:
            if parent not in found:
                found.add(parent)
                to_visit.append(parent)
    return sorted(found, key=lambda number: number.born)


# %% 1.4: a number occurs twice
def backward_order(result):
    order, to_visit = [], [result]
    while to_visit:
        order.append(to_visit.pop())
        to_visit += [parent for parent, _ in order[-1].edges]
    return order


# %% 1.4: a list of things to do and a loop
def backward_order(result):
    found = {result}

    def visit(number):
        found.add(number)
        for parent, _ in number.edges:
            if parent not in found:
                visit(parent)

    visit(result)
    return sorted(found, key=lambda number: -number.born)


# %% 1.4: sort by `born`
def backward_order(result):
    order = [result]
    for number in order:
        order += [parent for parent, _ in dict(number.edges).items() if parent not in order]
    return order


# %% 1.4: the result itself belongs to the list
def backward_order(result):
    found, to_visit = set(), [result]
    while to_visit:
        for parent, _ in to_visit.pop().edges:
            if parent not in found:
                found.add(parent)
                to_visit.append(parent)
    return sorted(found, key=lambda number: -number.born)


# %% 1.2: the decorator @op is too much
from minitorch_alex.tensor import op


@op
def cube(xp, x):
    return x * x * x, (lambda g: 3 * x * x * g,)


# %% 1.2: this is the gradient itself
def cube(xp, x):
    return x * x * x, (3 * x * x,)


# %% 1.4: the numbers themselves
def backward_order(result):
    found, to_visit = {result}, [result]
    while to_visit:
        for parent, _ in to_visit.pop().edges:
            if parent not in found:
                found.add(parent)
                to_visit.append(parent)
    return sorted((number.born for number in found), reverse=True)


# %% 1.3: has shape
def unbroadcast(g, shape):
    if g.ndim > len(shape):
        g = g.sum(axis=0)
    for axis, n in enumerate(shape):
        if n == 1:
            g = g.sum(axis=axis, keepdims=True)
    return g if shape else g.sum()


# %% 1.4: keep a set of those already found
def backward_order(result):
    order, to_visit = [], [result]
    while to_visit:
        number = to_visit.pop()
        order.append(number)
        to_visit += [parent for parent, _ in number.edges]
    return sorted(set(order), key=lambda number: -number.born)
