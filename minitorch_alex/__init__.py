"""minitorch_alex: a deep-learning engine to read, built around AlexNet."""

from . import backends, functional, init, nn, optim
from .anomaly import anomaly
from .philox import manual_seed
from .tensor import Tensor, no_grad, tensor

__version__ = "0.1.0"
__all__ = ["Tensor", "anomaly", "backends", "functional", "init", "manual_seed", "nn", "no_grad", "optim", "tensor"]
