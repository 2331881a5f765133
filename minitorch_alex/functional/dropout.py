"""Dropout: switch units off at random while training. AlexNet, section 4.2."""

from __future__ import annotations

from .. import philox
from ..tensor import Tensor, op
from ._arguments import at_least, operation, probability, tensor_of


@operation
def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, *, stream: str = "dropout", form: str = "torch"
) -> Tensor:
    """Set each element to 0 with probability p while training, and keep the expectation in one of two ways.

        form="torch"   training: kept elements times 1/(1-p)      otherwise: nothing
        form="paper"   training: kept elements as they are        otherwise: everything times 1-p

    The mask is a function of the seed, the stream's name, the training step and the number of calls within it, and of
    nothing else: see minitorch_alex/philox.py. p is taken to the nearest 1/65536.
    """
    tensor_of("dropout", "input", input, at_least(0), "of any shape")
    p = probability("dropout", p)
    if form not in ("torch", "paper"):
        raise ValueError(f"dropout: form must be 'torch' or 'paper', not {form!r}")
    if p == 0:
        return input
    if not training:
        return input if form == "torch" else input * (1 - philox.drop_threshold(p) / 65536)
    key, counter = philox.next_call(stream)
    return _dropout(input, p=p, key=key, counter=counter, form=form)


@op
def _dropout(xp, x, p, key, counter, form):
    def masked(a):  # the gradient goes through the same mask, which is made again rather than kept
        return xp.dropout(a, p, key, counter, form)

    return masked(x), (masked,)
