"""Every differentiable operation, under PyTorch's names and with PyTorch's meaning. One file per ingredient."""

from . import methods as methods  # attaches the operators and methods to Tensor
from .activation import log_softmax, relu, sigmoid, softmax, tanh
from .arithmetic import abs, add, clamp, div, exp, log, maximum, minimum, mul, neg, pow, sqrt, sub, where
from .convolution import conv2d
from .dropout import dropout
from .linear import linear, matmul
from .loss import cross_entropy, mse_loss, nll_loss
from .normalization import batch_norm, local_response_norm
from .pooling import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from .reduction import amax, amin, argmax, max, mean, sum, var
from .shape import cat, expand, flatten, pad, permute, reshape, squeeze, stack, transpose, unsqueeze

__all__ = [
    "abs", "adaptive_avg_pool2d", "add", "amax", "amin", "argmax", "avg_pool2d", "batch_norm", "cat", "clamp", "conv2d",
    "cross_entropy", "div", "dropout", "exp", "expand", "flatten", "linear", "local_response_norm", "log",
    "log_softmax", "matmul", "max", "max_pool2d", "maximum", "mean", "minimum", "mse_loss", "mul", "neg", "nll_loss",
    "pad", "permute", "pow", "relu", "reshape", "sigmoid", "softmax", "sqrt", "squeeze", "stack", "sub", "sum", "tanh",
    "transpose", "unsqueeze", "var", "where",
]  # fmt: skip
