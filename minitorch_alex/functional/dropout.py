"""Dropout: switch units off at random while training. AlexNet, section 4.2."""

from __future__ import annotations

from .. import philox
from ..tensor import Tensor, op
from ._arguments import at_least, operation, probability, tensor_of


@operation
def dropout(input: Tensor, p: float = 0.5, training: bool = True, *, stream: str = "dropout") -> Tensor:
    """Set each element to 0 with probability p and multiply the others by 1/(1-p), so that the expectation stays.

    Outside training it does nothing. (The paper scales the other way round: 0 or 1 in training, times 1/2 in testing.)
    The mask is a function of the seed, the stream's name, the training step and the number of calls within it, and of
    nothing else: see minitorch_alex/philox.py. p is taken to the nearest 1/65536.
    """
    tensor_of("dropout", "input", input, at_least(0), "of any shape")
    p = probability("dropout", p)
    if not training or p == 0:
        return input
    key, counter = philox.next_call(stream)
    return _dropout(input, p=p, key=key, counter=counter)


@op
def _dropout(xp, x, p, key, counter):
    mask = xp.dropout_mask(x.shape, p, key, counter, x.dtype)
    return x * mask, (lambda g: g * mask,)
