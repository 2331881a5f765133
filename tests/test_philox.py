"""Random bits: the published function, the same on every backend, a function of seed, name, step and call alone."""

import threading

import numpy as np
import pytest

from minitorch_alex import functional as F
from minitorch_alex import manual_seed, nn, philox, tensor
from minitorch_alex.backends import available, get

TOP = 2**64 - 1
KNOWN = [  # Random123, tests/kat_vectors, "philox4x64 10": counter, key, answer
    ((0,) * 4, (0,) * 2, (0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B)),
    ((TOP,) * 4, (TOP,) * 2, (0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0)),
    (
        (0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89),  # the digits of pi
        (0x452821E638D01377, 0xBE5466CF34E90C6C),
        (0xA528F45403E61D95, 0x38C72DBD566E9788, 0xA5A1610E72FD18B5, 0x57BD43B5E52B7FE6),
    ),
]
rng = np.random.default_rng(0)
KEYS = [(0, 0), (1, 2), (TOP, 2**63), (2**63 + 1, 5), *map(tuple, rng.integers(0, 2**64, (4, 2), "uint64").tolist())]


def numpys(key, counter, count):
    """NumPy's Philox. As arrays: in a list, words above 2^63 would pass through floating point and lose bits."""
    return np.random.Philox(key=np.array(key, "uint64"), counter=np.array(counter, "uint64")).random_raw(count)


def numbas(key, counter):
    kernels = pytest.importorskip("minitorch_alex.backends.numba_kernels", reason="numba is not installed")
    return tuple(int(w) for w in kernels.philox(*(np.uint64(w) for w in (*key, *counter))))


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter, key, answer):
    assert tuple(int(w) for w in philox.blocks(key, np.array([counter], "uint64"))[0]) == answer
    assert numbas(key, counter) == answer


@pytest.mark.parametrize("key", KEYS)
def test_blocks_are_numpys(key):
    counters = rng.integers(0, 2**64, (6, 4), "uint64")
    counters[0, 0] = 2**63 + 12345
    counters[:, 0] |= np.uint64(1)  # NumPy counts up first: keep the counter before it free of a borrow
    found = philox.blocks(key, counters)
    for counter, block in zip(counters, found, strict=True):
        before = [int(counter[0]) - 1, *(int(w) for w in counter[1:])]
        np.testing.assert_array_equal(block, numpys(key, before, 4))
        assert numbas(key, counter) == tuple(block)


@pytest.mark.parametrize("key", KEYS)
def test_words_are_the_blocks_one_two_and_so_on(key):
    place = (2**63 + 7, TOP)
    counters = np.array([(i, *place, 0) for i in (1, 2, 3)], "uint64")
    np.testing.assert_array_equal(philox.words(key, place, 10), philox.blocks(key, counters).reshape(-1)[:10])
    np.testing.assert_array_equal(philox.generator(key, place).bit_generator.random_raw(3), philox.words(key, place, 3))


def test_each_sample_has_a_stream_of_its_own():
    key, samples = (5, 6), np.array([3, 0, 2**40, 3])
    found = philox.first_words(key, 9, samples)
    for sample, words in zip(samples, found, strict=True):
        np.testing.assert_array_equal(words, philox.words(key, (9, int(sample)), 4))


def test_high_and_low_words_of_a_product():
    for a in (0, 1, TOP, 2**32, 2**32 - 1, 0xDEADBEEFCAFEBABE):
        for b in (0, 1, TOP, *philox.MULTIPLIERS):
            high, low = philox.multiply(np.array([a], "uint64"), b)
            assert (int(high[0]) << 64) + int(low[0]) == a * b


# -- numbers ----------------------------------------------------------------------
def test_below_is_in_range_and_even():
    words = philox.words((1, 2), (0, 0), 60_000)
    for n in (1, 2, 7, 10):
        found = philox.below(n, words)
        assert found.dtype == "int64"
        counts = np.bincount(found, minlength=n)
        assert len(counts) == n
        expected = len(words) / n
        assert ((counts - expected) ** 2 / expected).sum() < n - 1 + 5 * np.sqrt(2 * n)  # chi-squared
    extremes = np.array([0, TOP], "uint64")
    for n in (1, 3, 1000, 2**31, 2**32):
        assert philox.below(n, extremes).tolist() == [0, n - 1]


# -- dropout ----------------------------------------------------------------------
def mask(shape=(33, 21), p=0.5, name="drop", step=0, seed=0, backend="numpy", calls=1):
    manual_seed(seed)
    philox.set_step(step)
    for _ in range(calls):
        key, counter = philox.next_call(name)
    xp = get(backend)
    return np.array(xp.to_numpy(xp.dropout(xp.ones(shape, "float32"), p, key, counter, "torch")))


@pytest.mark.parametrize("p", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(), (1,), (15,), (16,), (17,), (5, 3, 7), (513, 401)])
def test_masks_are_the_same_on_every_backend(shape, p):
    seed = 2**63 + 9
    masks = {name: mask(shape, p, seed=seed, step=4, backend=name) for name in available()}
    assert {m.tobytes() for m in masks.values()} == {masks["numpy"].tobytes()}
    assert set(np.unique(masks["numpy"])) <= {0, np.float32(philox.keep_scale(p))}


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9, 1.0])
def test_about_p_are_dropped(p):
    n = 40_000
    dropped = (mask((n,), p) == 0).mean()
    assert abs(dropped - p) <= 5 * np.sqrt(p * (1 - p) / n)


def test_masks_depend_on_seed_name_step_and_call():
    ways = [{}, {"name": "other"}, {"step": 1}, {"seed": 1}, {"calls": 2}]
    masks = [mask(**way) for way in ways]
    assert len({m.tobytes() for m in masks}) == len(ways)
    for way, m in zip(ways, masks, strict=True):
        np.testing.assert_array_equal(mask(**way), m)
        agreement = (mask(**way) == mask(step=77)).mean()  # unrelated masks agree on half of their elements
        assert 0.4 < agreement < 0.6


def test_functional_dropout(backend):
    x = tensor(np.ones((40, 50), "float32"), requires_grad=True)
    y = F.dropout(x, 0.25)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.numpy())  # one mask, both ways
    assert (F.dropout(x, 0.25).numpy() != y.numpy()).any()  # the next call draws anew
    philox.set_step(0)
    np.testing.assert_array_equal(F.dropout(x, 0.25).numpy(), y.numpy())
    assert (F.dropout(x, 0.25, stream="another").numpy() != y.numpy()).any()
    assert F.dropout(x, 0.25, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert (F.dropout(x, 1.0).numpy() == 0).all()
    with pytest.raises(ValueError, match="dropout: p is the probability"):
        F.dropout(x, 1.5)


class TwoDropouts(nn.Module):
    def __init__(self):
        self.first, self.second = nn.Dropout(), nn.Dropout()

    def forward(self, x):
        return self.first(x), self.second(x)


def test_layers_draw_by_their_names(backend):
    """Each has a stream named by its path, so a layer added elsewhere changes no mask."""
    x = tensor(np.ones((8, 8), "float32"))
    first, second = (y.numpy() for y in TwoDropouts()(x))
    assert (first != second).any()
    philox.set_step(0)
    np.testing.assert_array_equal(nn.Sequential({"second": nn.Dropout()})(x).numpy(), second)
    philox.set_step(0)
    np.testing.assert_array_equal(F.dropout(x, stream="first").numpy(), first)


# -- whose turn it is -------------------------------------------------------------
def test_calls_are_counted_by_name_and_start_again_at_every_step():
    manual_seed(0)
    counters = [philox.next_call(name)[1] for name in ("a", "a", "b", "a")]
    assert counters == [(0, 0), (0, 1), (0, 0), (0, 2)]
    philox.set_step(5)
    assert philox.next_call("a")[1] == (5, 0)
    manual_seed(0)
    assert philox.next_call("a")[1] == (0, 0)


def test_keys():
    manual_seed(3)
    assert philox.key("crops") == (3, philox.name_hash("crops"))
    assert philox.key("crops", seed=2**64 + 1)[0] == 1
    assert len({philox.name_hash(str(i)) for i in range(1000)}) == 1000
    assert philox.name_hash("crops") == 3264110137894372720  # in every process and version


@pytest.mark.parametrize("seed", [-1, 1.0, "1", True, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ValueError, match="manual_seed"):
        manual_seed(seed)


def test_threads_draw_what_the_main_thread_draws(backend):
    """Each thread has its own step and call counters, and the masks are a function of them."""
    x = tensor(np.ones((50, 30), "float32"))

    def draw(found):
        for step in range(20):
            philox.set_step(step)
            found += [F.dropout(x, 0.5, stream=name).numpy().tobytes() for name in ("a", "b", "a")]

    expected, results = [], [[], []]
    draw(expected)
    threads = [threading.Thread(target=draw, args=(found,)) for found in results]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(set(expected)) == 60
    assert results == [expected, expected]


@pytest.mark.parametrize("p", [0.3, 0.999, 0.9999, 0.99999])
def test_dropout_keeps_the_expectation(p):
    """The scale goes with the probability that 16 bits can express, not with the one asked for."""
    kept = 1 - philox.drop_threshold(p) / 65536
    assert kept * philox.keep_scale(p) == pytest.approx(1)


def test_seeds_are_not_wrapped_around():
    with pytest.raises(ValueError, match="2\\^64"):
        manual_seed(2**64)
