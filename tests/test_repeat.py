"""Same seed, same bits; and how far apart results may be where they need not be the same.

On one machine, with the same versions and number of threads, every result repeats bit for bit, whoever else computes.
Between backends and between numbers of threads sums are added up in another order. So float32 results differ, by no
more than this, in the largest number of the result times 2^-23 (one in the last of its digits):

    kernel                                       numpy and numba    1, 2, 3 and 4 threads
    masks, crops, max-pooling, ReLU, SGD                       0                        0
    sums over channels (convolution's bias)                    8                        0
    softmax cross entropy                                      8                        0
    local response normalisation                              16                        4
    matrix products                                           16                       16
    convolution by im2col                                     32                       16
    convolution by minimal filtering                         250                      250

These are bounds, for any BLAS. Measured in AlexNet's second layer, in its three passes: up to 4 and 2 by im2col, up to
82 and 95 by minimal filtering, which winograd.py explains.

`test_the_table` holds it up.
"""

import ast
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import keep_digits
from test_train import _in_an_empty_folder, run  # noqa: F401

from minitorch_alex import backends, train
from minitorch_alex.backends import numba_convolution, thread_pool
from minitorch_alex.backends.numpy_backend import BACKEND as REFERENCE
from minitorch_alex.backends.window import Window
from minitorch_alex.checkpoint import read_checkpoint

reason = backends.why_not("numba")
if reason is not None:
    pytest.skip(reason, allow_module_level=True)
NUMBA = backends.get("numba")
FOLDER = Path(backends.__file__).parent


# -- every kernel that is shared out ----------------------------------------------------
random = np.random.default_rng(0)


def numbers(*shape):
    return random.standard_normal(shape).astype("float32")


IMAGES, FILTERS, BIAS = numbers(9, 6, 13, 12), numbers(8, 3, 3, 3), numbers(8)
OUTPUTS = numbers(9, 8, 13, 12)
SLIDING, POOL = Window((3, 3), padding=(1, 1)), Window((3, 3), (2, 2), (1, 1))
ROWS, LABELS = 5 * numbers(40, 33), random.integers(0, 33, 40)
LEFT, RIGHT = numbers(57, 300), numbers(300, 41)
MASK = (0.3, (1, 2), (3, 4))


def pooled(b):
    y, winner = b.max_pool2d(IMAGES, POOL)
    return y, winner.astype("int32"), b.max_pool2d_gradient(y, winner, IMAGES.shape, POOL)


def responses(b):
    y, scale = b.local_response_norm(IMAGES, 5, 1.0, 0.75, 2.0)
    return y, scale, b.local_response_norm_gradient(IMAGES, IMAGES, scale, 5, 1.0, 0.75)


# what each line of the table computes, and the kernels of the backend that it calls
KERNELS = {
    "masks": (
        ["dropout", "dropout_mask"],
        lambda b: (b.dropout(IMAGES, *MASK, "torch"), b.dropout_mask(IMAGES.shape, *MASK, "float32")),
    ),
    "max-pooling": (["max_pool2d", "max_pool2d_gradient"], pooled),
    "ReLU": (["relu", "relu_gradient"], lambda b: (b.relu(IMAGES), b.relu_gradient(IMAGES, IMAGES))),
    "SGD": (
        ["sgd_paper", "sgd_torch"],
        lambda b: (
            *b.sgd_paper(LEFT, LEFT, LEFT.copy(), 0.1, 0.9, 5e-4),
            *b.sgd_torch(LEFT, LEFT, LEFT.copy(), 0.1, 0.9, 5e-4, 0.0, True),
        ),
    ),
    "sums over channels": (["channel_sums"], lambda b: (b.channel_sums(OUTPUTS),)),
    "softmax cross entropy": (
        ["softmax_cross_entropy"],
        lambda b: b.softmax_cross_entropy(ROWS, LABELS, -100, 1.0),
    ),
    "local response normalisation": (["local_response_norm", "local_response_norm_gradient"], responses),
    "matrix products": (["matrix_product"], lambda b: (b.matrix_product(LEFT, RIGHT),)),
}
PASSES = {
    "conv2d": (IMAGES, FILTERS, SLIDING, 2, BIAS),
    "conv2d_input_gradient": (OUTPUTS, FILTERS, IMAGES.shape, SLIDING, 2),
    "conv2d_weight_gradient": (OUTPUTS, IMAGES, FILTERS.shape, SLIDING, 2),
}


def one_pass(kernel):
    return [kernel], lambda b: (getattr(b, kernel)(*PASSES[kernel]),)


for method in ("im2col", "winograd"):
    KERNELS |= {f"convolution by {method}: {kernel}": one_pass(kernel) for kernel in PASSES}


@pytest.fixture
def with_threads(monkeypatch):
    """with_threads(count, name): the results of that line of KERNELS, shared out over so many threads, however little
    work it is."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    monkeypatch.setattr(numba_convolution, "CACHE_BYTES", 1)

    def compute(count, name):
        monkeypatch.setattr(NUMBA.pool, "threads", count)
        if name.startswith("convolution"):
            NUMBA.set_convolution(name.split()[2].rstrip(":"))
        return KERNELS[name][1](NUMBA)

    yield compute
    NUMBA.set_convolution("auto")


def test_every_kernel_that_is_shared_out_is_in_the_list():
    """Found in the text of the files: methods that come to ThreadPool.share, by way of others or not."""
    mentions = {}
    for file in FOLDER.glob("numba_*.py"):
        for function in ast.walk(ast.parse(file.read_text())):
            if isinstance(function, ast.FunctionDef):
                names = {node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)}
                mentions.setdefault(function.name, set()).update(names)
    sharing, before = {"share", "share_arrays"}, set()
    while sharing != before:
        before = set(sharing)
        sharing |= {name for name, names in mentions.items() if names & sharing}
    found = {name for name in sharing if hasattr(REFERENCE, name) and not name.startswith("_")}
    assert len(found) > 12
    assert found == {name for kernels, _ in KERNELS.values() for name in kernels}


def bits(arrays):
    return [np.ascontiguousarray(a).tobytes() for a in arrays]


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_repeat_bit_for_bit(name, with_threads, monkeypatch):
    """20 times on 1 to 4 threads, however few cores there are."""
    for count in (1, 2, 3, 4):
        first = bits(with_threads(count, name))
        calls = []
        share = NUMBA.pool.share
        monkeypatch.setattr(NUMBA.pool, "share", lambda *a, share=share, calls=calls: calls.append(a) or share(*a))
        for _ in range(19):
            assert bits(with_threads(count, name)) == first, f"{count} threads"
        assert len(calls) >= 19 or count == 1, "it is not shared out at all"


# -- the table ------------------------------------------------------------------------------
def table():
    """From the docstring: for each line so many last digits between backends, and between numbers of threads."""
    rows = [line for line in __doc__.splitlines() if line.startswith("    ") and line[-1].isdigit()]
    lines = [row.rsplit(maxsplit=2) for row in rows]
    return {name.strip(): (int(between), int(threads)) for name, between, threads in lines}


def apart(found, expected):
    """The largest difference, in last digits of the largest number."""
    return max(
        float(np.abs(a.astype("float64") - b).max() / (np.abs(b).max() * 2.0**-23))
        for a, b in zip(found, expected, strict=True)
    )


def line_of(name):
    """The numbers of the table for this line of KERNELS."""
    stem = name.split(":")[0].replace("winograd", "minimal filtering")
    (found,) = [numbers for line, numbers in table().items() if stem in line]
    return found


@pytest.mark.parametrize("name", KERNELS)
def test_the_table(name, with_threads):
    between, threads = line_of(name)
    alone = with_threads(1, name)
    assert apart(alone, KERNELS[name][1](REFERENCE)) <= between
    for count in (2, 3, 4):
        assert apart(with_threads(count, name), alone) <= threads


# -- what is drawn --------------------------------------------------------------------------
DRAWN = """
import hashlib
import numpy as np
from minitorch_alex import backends, manual_seed, models, philox
from minitorch_alex.backends import thread_pool
from minitorch_alex.data import Augmentation, ColourNoise, Loader, Preprocessing, RandomCrop

thread_pool.WORTH_SHARING = 0
digest, images = hashlib.sha256(), np.arange(40 * 3 * 12 * 12, dtype="uint8").reshape(40, 3, 12, 12)
for augmentation in (Augmentation(2, flip=True), RandomCrop(9)):
    colour = ColourNoise.of(np.diag([9.0, 7.0, 5.0]))
    loader = Loader(images, np.arange(40), 7, Preprocessing([9.0] * 3, [2.0] * 3), augmentation, 5, 3, colour=colour)
    for x, labels in loader.epoch(2):
        digest.update(x.tobytes() + labels.tobytes())
x = np.ones((70, 33), "float32")
for name in ("numpy", "numba"):
    backends.use(name)
    manual_seed(3)
    for step in range(3):
        philox.set_step(step)
        digest.update(backends.current().dropout(x, 0.3, *philox.next_call("a layer"), "torch").tobytes())
    for p in models.build("alexnet_small", 10, (3, 12, 12)).parameters():
        digest.update(p.numpy().tobytes())
print(thread_pool.threads_to_use(), digest.hexdigest())
"""


def test_crops_and_masks_and_weights_are_the_same_for_any_number_of_threads():
    """In processes that are told how many to use; BLAS obeys as well."""
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DRAWN],
            env=os.environ | {"OMP_NUM_THREADS": count},
            stdout=subprocess.PIPE,
            text=True,
        )
        for count in ("1", "4")
    ]
    printed = [process.communicate(timeout=120)[0].split() for process in started]
    cores = thread_pool.usable_cores()
    assert [int(threads) for threads, _ in printed] == [min(cores, count) for count in (1, 4)]
    assert len({digest for _, digest in printed}) == 1


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_masks_are_the_same_on_every_number_of_threads(backend, monkeypatch):
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    found = set()
    for count in (1, 2, 3, 4, 7):
        monkeypatch.setattr(NUMBA.pool, "threads", count)
        found.add(backends.get(backend).dropout_mask((5, 7, 11), 0.3, (1, 2), (3, 4), "float32").tobytes())
    assert found == {REFERENCE.dropout_mask((5, 7, 11), 0.3, (1, 2), (3, 4), "float32").tobytes()}


# -- a run ------------------------------------------------------------------------------------
def test_a_run_repeats_with_1_and_with_8_loader_threads(monkeypatch):
    """With minimal filtering, whose sums depend on how the images are shared out, on three threads."""
    keep_digits(monkeypatch, 40, 16)
    monkeypatch.setattr(train, "draw", lambda run: None)
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    monkeypatch.setattr(NUMBA.pool, "threads", 3)
    found = []
    for out, workers in (("a", 1), ("b", 8), ("c", 8)):
        options = ["--epochs", 1, "--batch-size", 12, "--backend", "numba", "--convolution", "winograd", "--seed", 4]
        assert run(*options, "--workers", workers, "--out", out) == 0
        arrays, _ = read_checkpoint(Path(out) / "checkpoint.safetensors")
        found.append({name: a.tobytes() for name, a in arrays.items()})
    assert found[0] == found[1] == found[2]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]
