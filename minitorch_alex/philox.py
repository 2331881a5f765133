"""Random bits from a counter: philox4x64-10, the same on every backend, in any order, from any thread.

An ordinary generator is a state that every draw moves on, so what you get depends on who drew before you. Philox
(Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011) is a function instead: it scrambles
a counter of four 64-bit words under a key of two. Asking twice gives the same answer, so masks are the same on every
backend, a crop does not depend on which thread cut it, and a checkpoint needs no generator state.

    key     = (seed, hash of the stream's name: "crops", a layer's path, ...)
    counter = (block, step or epoch, call or sample index, 0)
"""

from __future__ import annotations

import functools
import hashlib
import threading

import numpy

Key = tuple[int, int]
Counter = tuple[int, int]  # (step or epoch, call or sample index)

MULTIPLIERS = 0xD2E7470EE14C6C93, 0xCA5A826395121157
KEY_STEPS = 0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B  # the golden ratio and sqrt(3) - 1, as 64-bit fractions
ROUNDS = 10
WORD = (1 << 64) - 1


# -- the function -------------------------------------------------------------
def multiply(a: numpy.ndarray, b: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The high and the low 64 bits of the 128-bit product of each a with b, from four products of 32-bit halves."""
    half, low = numpy.uint64(32), numpy.uint64(0xFFFFFFFF)
    b_high, b_low = numpy.uint64(b >> 32), numpy.uint64(b & 0xFFFFFFFF)
    a_high, a_low = a >> half, a & low
    middle = a_high * b_low + (a_low * b_low >> half)
    middle_2 = a_low * b_high + (middle & low)
    return a_high * b_high + (middle >> half) + (middle_2 >> half), a * numpy.uint64(b)


def blocks(key: Key, counters: numpy.ndarray) -> numpy.ndarray:
    """philox4x64-10: counters (n, 4) of uint64 -> n blocks of four random words (n, 4)."""
    a, b, c, d = numpy.ascontiguousarray(counters, "uint64").T
    for i in range(ROUNDS):
        round_key = [numpy.uint64((k + i * step) & WORD) for k, step in zip(key, KEY_STEPS, strict=True)]
        high_a, low_a = multiply(a, MULTIPLIERS[0])
        high_c, low_c = multiply(c, MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ round_key[0], low_c, high_a ^ d ^ round_key[1], low_a
    return numpy.stack([a, b, c, d], axis=1)


def _bit_generator(key: Key, counter: Counter) -> numpy.random.Philox:
    """NumPy's own, which counts up before its first block, so the blocks are 1, 2, ...

    The words go in as uint64 arrays: from a list, NumPy would round those above 2^63 through floating point.
    """
    return numpy.random.Philox(key=numpy.array(key, "uint64"), counter=numpy.array([0, *counter, 0], "uint64"))


def words(key: Key, counter: Counter, count: int) -> numpy.ndarray:
    """The first `count` words of a stream."""
    return _bit_generator(key, counter).random_raw(count)


def generator(key: Key, counter: Counter = (0, 0)) -> numpy.random.Generator:
    """A NumPy generator on a stream, for Gaussians and permutations. Host only: log and cos differ elsewhere."""
    return numpy.random.Generator(_bit_generator(key, counter))


def first_words(key: Key, epoch: int, samples: numpy.ndarray) -> numpy.ndarray:
    """The first block of each sample's own stream in this epoch: (len(samples), 4) words."""
    counters = numpy.zeros((len(samples), 4), "uint64")
    counters[:, 0], counters[:, 1], counters[:, 2] = 1, epoch, samples
    return blocks(key, counters)


def below(n: int, word: numpy.ndarray) -> numpy.ndarray:
    """Whole numbers 0 ... n-1 from the upper halves of random words, evenly to within n / 2^32."""
    return ((word >> numpy.uint64(32)) * numpy.uint64(n) >> numpy.uint64(32)).astype("int64")


def drop_threshold(p: float) -> int:
    """16 random bits below this drop an element: p to the nearest 1/65536."""
    return round(p * 65536)


def keep_scale(p: float) -> float:
    """What a kept element is multiplied by so that the expectation stays: 1/(1-p), p as the threshold has it."""
    kept = 65536 - drop_threshold(p)
    return 65536 / kept if kept else 0.0


# -- whose turn it is -----------------------------------------------------------
class _Place(threading.local):
    """Where this thread is: the training step, and how often each stream was asked within it."""

    def __init__(self) -> None:
        self.step = 0
        self.calls: dict[str, int] = {}


_seed = 0
_place = _Place()


@functools.lru_cache(maxsize=4096)
def name_hash(name: str) -> int:
    """64 bits that stand for a stream's name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def key(name: str, seed: int | None = None) -> Key:
    """The key of the stream called `name`."""
    return (_seed if seed is None else seed) & WORD, name_hash(name)


def manual_seed(seed: int) -> None:
    """Start again from `seed`, 0 to 2^64 - 1: initial weights, dropout masks.

    The seed is process-wide, the place in the streams each thread's own, and every thread starts at the beginning: two
    threads that build networks build the same one. This thread is put back to step 0.
    """
    global _seed
    if not isinstance(seed, (int, numpy.integer)) or isinstance(seed, bool) or not 0 <= seed <= WORD:
        raise ValueError(f"manual_seed(): a seed is a whole number from 0 to 2^64 - 1, not {seed!r}")
    _seed = int(seed)
    set_step(0)


def set_step(step: int) -> None:
    """Say which training step this thread is at, so that its dropout masks depend on the step and nothing before it."""
    _place.step = step
    _place.calls.clear()


def next_call(name: str) -> tuple[Key, Counter]:
    """Key and counter for the next draw from the stream `name` in this thread's current step."""
    call = _place.calls.get(name, 0)
    _place.calls[name] = call + 1
    return key(name), (_place.step, call)
