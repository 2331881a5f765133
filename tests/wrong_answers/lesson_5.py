# Wrong answers to the exercises of lesson 5 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import math

import minitorch_alex as mt
import minitorch_alex.functional as F
import numpy as np
from minitorch_alex import nn


# %% 5.1: it overflows: subtract the largest score of each row
def softmax(scores):
    e = np.exp(scores)
    return e / e.sum(axis=1, keepdims=True)


# %% 5.1: one number is subtracted from all rows
def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum(axis=1, keepdims=True)


# %% 5.1: all probabilities together add up to 1
def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


# %% 5.1: stops with ValueError: operands could not be broadcast together
def softmax(scores):
    e = np.exp(scores - scores.max(axis=1))
    return e / e.sum(axis=1)


# %% 5.1: the columns add up to 1
def softmax(scores):
    e = np.exp(scores - scores.max(axis=0))
    return e / e.sum(axis=0)


# %% 5.1: the largest of each column is subtracted
def softmax(scores):
    e = np.exp(scores - scores.max(axis=0))
    return e / e.sum(axis=1, keepdims=True)


# %% 5.1: divide them by their sum
def softmax(scores):
    return np.exp(scores - scores.max(axis=1, keepdims=True))


# %% 5.1: changes what it was given
def softmax(scores):
    scores -= scores.max(axis=1, keepdims=True)
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)


# %% 5.2: the division by N is missing
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[xp.arange(N), labels].mean(), (lambda g: g * (xp.exp(log_p) - one_hot), None)


# %% 5.2: it overflows: subtract the largest score of each row
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    p = xp.exp(scores) / xp.exp(scores).sum(axis=1, keepdims=True)
    one_hot = labels[:, None] == xp.arange(K)
    return -xp.log(p[xp.arange(N), labels]).mean(), (lambda g: g * (p - one_hot) / N, None)


# %% 5.2: a probability rounds to 0 before its logarithm is taken
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    e = xp.exp(scores - scores.max(axis=1, keepdims=True))
    p = e / e.sum(axis=1, keepdims=True)
    one_hot = labels[:, None] == xp.arange(K)
    return -xp.log(p[xp.arange(N), labels]).mean(), (lambda g: g * (p - one_hot) / N, None)


# %% 5.2: this is the surprise at every class
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p.mean(), (lambda g: g * (xp.exp(log_p) - one_hot) / N, None)


# %% 5.2: every row is looked up at every label
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[:, labels].mean(), (lambda g: g * (xp.exp(log_p) - one_hot) / N, None)


# %% 5.2: the surprises are added up
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[xp.arange(N), labels].sum(), (lambda g: g * (xp.exp(log_p) - one_hot), None)


# %% 5.2: the gradient that arrives, g, is not used
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[xp.arange(N), labels].mean(), (lambda g: (xp.exp(log_p) - one_hot) / N, None)


# %% 5.2: the one-hot truth is not subtracted
def cross_entropy(xp, scores, labels):
    N = len(labels)
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    return -log_p[xp.arange(N), labels].mean(), (lambda g: g * xp.exp(log_p) / N, None)


# %% 5.2: there is one entry per input
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[xp.arange(N), labels].mean(), (lambda g: g * (xp.exp(log_p) - one_hot) / N,)


# %% 5.2: this is the gradient itself
def cross_entropy(xp, scores, labels):
    N, K = scores.shape
    shifted = scores - scores.max(axis=1, keepdims=True)
    log_p = shifted - xp.log(xp.exp(shifted).sum(axis=1, keepdims=True))
    one_hot = labels[:, None] == xp.arange(K)
    return -log_p[xp.arange(N), labels].mean(), ((xp.exp(log_p) - one_hot) / N, None)


# %% 5.3: this is w + v with the old velocity
def momentum_step(w, v, g, rate, momentum, decay):
    return w + v, momentum * v - decay * rate * w - rate * g


# %% 5.3: the decay is not multiplied by the learning rate
def momentum_step(w, v, g, rate, momentum, decay):
    v = momentum * v - decay * w - rate * g
    return w + v, v


# %% 5.3: PyTorch's form
def momentum_step(w, v, g, rate, momentum, decay):
    v = momentum * v + g + decay * w
    return w - rate * v, v


# %% 5.3: the sign of the gradient
def momentum_step(w, v, g, rate, momentum, decay):
    v = momentum * v - decay * rate * w + rate * g
    return w + v, v


# %% 5.3: the two results are swapped
def momentum_step(w, v, g, rate, momentum, decay):
    v = momentum * v - decay * rate * w - rate * g
    return v, w + v


# %% 5.3: changes what it was given
def momentum_step(w, v, g, rate, momentum, decay):
    v *= momentum
    v -= decay * rate * w + rate * g
    return w + v, v


# %% 5.3: return both
def momentum_step(w, v, g, rate, momentum, decay):
    return w + momentum * v - decay * rate * w - rate * g


# %% 5.3: the rate is in the velocity already
def momentum_step(w, v, g, rate, momentum, decay):
    v = momentum * v - decay * rate * w - rate * g
    return w + rate * v, v


# %% 5.4: shape[0] counts the outputs
def he_std(shape):
    return math.sqrt(2 / shape[0])


# %% 5.4: the filter's size is missing
def he_std(shape):
    return math.sqrt(2 / shape[1])


# %% 5.4: the 2 is missing
def he_std(shape):
    return 1 / math.sqrt(math.prod(shape[1:]))


# %% 5.4: take its square root
def he_std(shape):
    return 2 / math.prod(shape[1:])


# %% 5.4: Glorot's rule
def he_std(shape):
    return math.sqrt(2 / (math.prod(shape[1:]) + shape[0] * math.prod(shape[2:])))


# %% 5.5: the windows do not overlap
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.layers = nn.Sequential(nn.Conv2d(channels, filters, size, padding=size // 2), nn.ReLU(), nn.MaxPool2d(3))

    def forward(self, x):
        return self.layers(x)


# %% 5.5: the convolution shrinks the image
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.5: the padding fits filters of 3 x 3 only
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=1)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.5: the ReLU is missing
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2)

    def forward(self, x):
        return F.max_pool2d(self.conv(x), 3, 2)


# %% 5.5: made with nn.Parameter
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.size = size
        self.weight = mt.tensor(0.1 * np.random.standard_normal((filters, channels, size, size)))
        self.bias = mt.tensor(np.zeros(filters))

    def forward(self, x):
        return F.max_pool2d(F.relu(F.conv2d(x, self.weight, self.bias, padding=self.size // 2)), 3, 2)


# %% 5.5: make the layer in __init__
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.sizes = (channels, filters, size)

    def forward(self, x):
        channels, filters, size = self.sizes
        conv = nn.Conv2d(channels, filters, size, padding=size // 2)
        return F.max_pool2d(F.relu(conv(x)), 3, 2)


# %% 5.5: channels and filters are swapped
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(filters, channels, size, padding=size // 2)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.5: which is no nn.Module
class ConvBlock:
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.5: the tape is cut
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2)

    def forward(self, x):
        y = np.maximum(self.conv(x).numpy(), 0)
        return F.max_pool2d(mt.tensor(y), 3, 2)


# %% 5.5: the bias is missing
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2, bias=False)

    def forward(self, x):
        return F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.5: the first weights must be random
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.size = size
        self.weight = nn.Parameter(np.zeros((filters, channels, size, size)))
        self.bias = nn.Parameter(np.zeros(filters))

    def forward(self, x):
        return F.max_pool2d(F.relu(F.conv2d(x, self.weight, self.bias, padding=self.size // 2)), 3, 2)


# %% 5.5: the bias is not used
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.size = size
        self.weight = nn.Parameter(np.random.standard_normal((filters, channels, size, size)))
        self.bias = nn.Parameter(np.zeros(filters))

    def forward(self, x):
        return F.max_pool2d(F.relu(F.conv2d(x, self.weight, padding=self.size // 2)), 3, 2)


# %% 5.5: no return at its end
class ConvBlock(nn.Module):
    def __init__(self, channels, filters, size):
        self.conv = nn.Conv2d(channels, filters, size, padding=size // 2)

    def forward(self, x):
        F.max_pool2d(F.relu(self.conv(x)), 3, 2)


# %% 5.1: the smallest of each row is subtracted
def softmax(scores):
    e = np.exp(scores - scores.min(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
