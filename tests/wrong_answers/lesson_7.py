# Wrong answers to the exercises of lesson 7 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import math

import minitorch_alex.functional as F
import numpy as np
from minitorch_alex import nn


# %% 7.1: `stride` pixels more would give another window
def images_for(outputs, kernel, stride, up):
    exact = (outputs - 1) * stride + kernel
    return (exact - stride, exact) if up else (exact, exact + stride)


# %% 7.1: there are outputs - 1 steps between the windows
def images_for(outputs, kernel, stride, up):
    exact = outputs * stride + kernel
    return (exact - stride + 1, exact) if up else (exact, exact + stride - 1)


# %% 7.1: rounded the other way
def images_for(outputs, kernel, stride, up):
    exact = (outputs - 1) * stride + kernel
    return (exact, exact + stride - 1) if up else (exact - stride + 1, exact)


# %% 7.1: rounded the other way
def images_for(outputs, kernel, stride, up):
    exact = (outputs - 1) * stride + kernel
    return exact, exact + stride - 1


# %% 7.1: the window itself is missing
def images_for(outputs, kernel, stride, up):
    exact = (outputs - 1) * stride
    return (exact - stride + 1, exact) if up else (exact, exact + stride - 1)


# %% 7.1: first the smaller
def images_for(outputs, kernel, stride, up):
    exact = (outputs - 1) * stride + kernel
    return (exact, exact - stride + 1) if up else (exact + stride - 1, exact)


# %% 7.1: a tuple of the smallest and the largest is wanted
def images_for(outputs, kernel, stride, up):
    return (outputs - 1) * stride + kernel


# %% 7.2: the biases are missing
def cost(channels, filters, kernel, outputs, groups):
    weights = filters * channels // groups * kernel**2
    return weights, weights * outputs**2


# %% 7.2: only the channels of its own group
def cost(channels, filters, kernel, outputs, groups):
    taps = channels * kernel**2
    return filters * (taps + 1), filters * taps * outputs**2


# %% 7.2: in the multiply-accumulates a filter sees all channels
def cost(channels, filters, kernel, outputs, groups):
    taps = channels // groups * kernel**2
    return filters * (taps + 1), filters * channels * kernel**2 * outputs**2


# %% 7.2: the filters are shared out among the groups already
def cost(channels, filters, kernel, outputs, groups):
    filters, channels = filters // groups, channels // groups
    taps = channels * kernel**2
    return filters * (taps + 1), filters * taps * outputs**2


# %% 7.2: the taps alone are multiplied
def cost(channels, filters, kernel, outputs, groups):
    parameters = filters * (channels // groups * kernel**2 + 1)
    return parameters, parameters * outputs**2


# %% 7.2: there are outputs x outputs windows
def cost(channels, filters, kernel, outputs, groups):
    taps = channels // groups * kernel**2
    return filters * (taps + 1), filters * taps * outputs


# %% 7.2: a window has kernel x kernel pixels
def cost(channels, filters, kernel, outputs, groups):
    taps = channels // groups * kernel
    return filters * (taps + 1), filters * taps * outputs**2


# %% 7.2: one bias for each filter, not one for the layer
def cost(channels, filters, kernel, outputs, groups):
    taps = channels // groups * kernel**2
    return filters * taps + 1, filters * taps * outputs**2


# %% 7.3: it goes on from the size that it computed
def slips(pixels, table):
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        n = (n + 2 * padding - kernel) // stride + 1
        if n != printed:
            found.append(i)
    return found


# %% 7.3: padding is added on both sides
def slips(pixels, table):
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        if (n + padding - kernel) // stride + 1 != printed:
            found.append(i)
        n = printed
    return found


# %% 7.3: rows are counted from 0
def slips(pixels, table):
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table, start=1):
        if (n + 2 * padding - kernel) // stride + 1 != printed:
            found.append(i)
        n = printed
    return found


# %% 7.3: it stops at the first slip
def slips(pixels, table):
    n = pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        if (n + 2 * padding - kernel) // stride + 1 != printed:
            return [i]
        n = printed
    return []


# %% 7.3: every row is compared with the input
def slips(pixels, table):
    return [
        i
        for i, (printed, kernel, stride, padding) in enumerate(table)
        if (pixels + 2 * padding - kernel) // stride + 1 != printed
    ]


# %% 7.3: the number of windows is rounded up here
def slips(pixels, table):
    found, n = [], pixels
    for i, (printed, kernel, stride, padding) in enumerate(table):
        if math.ceil((n + 2 * padding - kernel) / stride) + 1 != printed:
            found.append(i)
        n = printed
    return found


# %% 7.3: a list of their numbers is wanted
def slips(pixels, table):
    count, n = 0, pixels
    for printed, kernel, stride, padding in table:
        count += (n + 2 * padding - kernel) // stride + 1 != printed
        n = printed
    return count


# %% 7.4: each takes 4 bytes
def training_bytes(image, outputs, parameters, batch):
    return 3 * parameters + batch * sum(math.prod(shape) for shape in [image, *outputs])


# %% 7.4: its gradient and its velocity are missing
def training_bytes(image, outputs, parameters, batch):
    return 4 * (parameters + batch * sum(math.prod(shape) for shape in [image, *outputs]))


# %% 7.4: one of gradient and velocity is missing
def training_bytes(image, outputs, parameters, batch):
    return 4 * (2 * parameters + batch * sum(math.prod(shape) for shape in [image, *outputs]))


# %% 7.4: the weights do not grow with the batch
def training_bytes(image, outputs, parameters, batch):
    return 4 * batch * (3 * parameters + sum(math.prod(shape) for shape in [image, *outputs]))


# %% 7.4: the images themselves are missing
def training_bytes(image, outputs, parameters, batch):
    return 4 * (3 * parameters + batch * sum(math.prod(shape) for shape in outputs))


# %% 7.4: multiply them, do not add
def training_bytes(image, outputs, parameters, batch):
    return 4 * (3 * parameters + batch * sum(sum(shape) for shape in [image, *outputs]))


# %% 7.4: every image has its own outputs
def training_bytes(image, outputs, parameters, batch):
    made = sum(math.prod(shape) for shape in outputs)
    return 4 * (3 * parameters + batch * math.prod(image) + made)


# %% 7.5: dropout stands before fc6 and before fc7
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Linear(256 * 6 * 6, units), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(units, units), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: write nn.MaxPool2d(3, stride=2)
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: expected stride 4 and padding 2
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: this variant has one column: no groups
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1, groups=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: this variant has no normalisation
def one_column(classes, units):
    lrn = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2)
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), lrn, nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: no bend, dropout or softmax behind it
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes), nn.ReLU(),
    )  # fmt: skip


# %% 7.5: it has 64 filters
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(96, 256, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256 * 6 * 6, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip


# %% 7.5: in one nn.Sequential
class one_column(nn.Module):  # noqa: N801
    def __init__(self, classes, units):
        self.weight = nn.Parameter(np.zeros((classes, 3 * 224 * 224), "float32"))

    def forward(self, x):
        return F.linear(F.flatten(x, 1), self.weight)


# %% 7.5: which is no nn.Module
def one_column(classes, units):
    return [nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2)]


# %% 7.5: must have as many inputs as there are numbers behind nn.Flatten()
def one_column(classes, units):
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, stride=2),
        nn.Flatten(),
        nn.Dropout(0.5), nn.Linear(256, units), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(units, units), nn.ReLU(),
        nn.Linear(units, classes),
    )  # fmt: skip
