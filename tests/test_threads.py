"""Several Python threads at once, Ctrl-C in the middle, a notebook's kernel; and no process is ever forked."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from minitorch_alex import Tensor, backends, manual_seed, nn, philox
from minitorch_alex import functional as F
from minitorch_alex.backends import thread_pool
from minitorch_alex.backends.thread_pool import ThreadPool
from minitorch_alex.optim import SGD
from minitorch_alex.tensor import no_grad

with_numba = pytest.mark.skipif(bool(backends.why_not("numba")), reason=str(backends.why_not("numba")))
with_signals = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such signals")


@pytest.fixture
def everything_is_shared_out(monkeypatch):
    """However small, over three threads beside those that call."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    if backends.why_not("numba") is None:
        monkeypatch.setattr(backends.get("numba").pool, "threads", 3)


# -- several threads that train ---------------------------------------------------------
STEPS = 6


def network_on(backend, seed):
    """All that has a state of its own, or a stream of random numbers."""
    backends.use(backend)
    manual_seed(seed)
    return nn.Sequential(
        {
            "conv1": nn.Conv2d(3, 8, 3, padding=1),
            "norm1": nn.BatchNorm2d(8),
            "relu1": nn.ReLU(),
            "lrn1": nn.LocalResponseNorm(5, alpha=1.0),
            "pool1": nn.MaxPool2d(3, 2),
            "drop1": nn.Dropout(0.4),
            "conv2": nn.Conv2d(8, 6, 3, groups=2),
            "flatten": nn.Flatten(),
            "fc": nn.Linear(6 * 3 * 3, 5),
        }
    )


def trainer(backend, seed):
    """What trains a network and returns all that came of it, as bytes."""
    network = network_on(backend, seed)
    optimizer = SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    random = np.random.default_rng(seed)
    images = Tensor(random.standard_normal((8, 3, 12, 12)).astype("float32"), backend=backends.get(backend))
    labels = random.integers(0, 5, 8)

    def train():
        losses = []
        for step in range(STEPS):
            philox.set_step(step)
            optimizer.zero_grad()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return [np.array(losses).tobytes(), *(a.tobytes() for a in network.state_dict().values())]

    return train


def evaluator(backend, seed):
    """What looks at images again and again, and remembers nothing."""
    network = network_on(backend, seed).eval()
    images = Tensor(np.random.default_rng(seed).standard_normal((8, 3, 12, 12)).astype("float32"))

    def look():
        with no_grad():
            scores = [network(images) for _ in range(2 * STEPS)]
        assert not any(score.requires_grad for score in scores)
        return [score.numpy().tobytes() for score in scores]

    return look


EVERYBODY = [(trainer, "numba", 1), (trainer, "numpy", 2), (evaluator, "numba", 3), (trainer, "numba", 4)]


def everybody():
    """Two who train on one backend, one on another, and one who evaluates beside them."""
    work = [trainer("numba", 1), trainer("numpy", 2), evaluator("numba", 3), trainer("numba", 4)]
    manual_seed(5)  # for the masks
    return work


@with_numba
def test_training_in_several_threads_is_training_alone(everything_is_shared_out, monkeypatch):
    """Nobody's tape, masks, running averages or buffers are another's."""
    monkeypatch.setattr(backends, "_current", None)
    monkeypatch.setattr(philox, "_seed", 0)
    alone = [work() for work in everybody()]
    for _ in range(3):
        assert at_once(everybody()) == alone


def at_once(work):
    """What each function returns, called in threads that begin together."""
    together, found = threading.Barrier(len(work), timeout=60), [None] * len(work)

    def call(i):
        together.wait()
        found[i] = work[i]()

    threads = [threading.Thread(target=call, args=(i,)) for i in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "somebody waits for ever"
    return found


COMPILED_AT_ONCE = """
import threading
import numpy
from minitorch_alex import backends
from minitorch_alex.backends import thread_pool

thread_pool.WORTH_SHARING = 0  # so that helpers meet the kernels for the first time as well
together, found = threading.Barrier(4), []

def first_use():
    together.wait()
    numba = backends.get("numba")
    numba.pool.threads = 3
    found.append(numba.relu(numpy.arange(-3.0, 4)).tolist())

threads = [threading.Thread(target=first_use) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(found == [[0, 0, 0, 0, 1, 2, 3]] * 4)
"""


def python(code, *arguments, folder=None):
    """What a new process says to whom, in a few minutes. Its cache of kernels is in the folder, if there is one."""
    environment = os.environ | ({"NUMBA_CACHE_DIR": str(folder)} if folder else {})
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@with_numba
def test_the_first_use_may_be_in_several_threads_at_once(tmp_path):
    out, err = python(COMPILED_AT_ONCE, folder=tmp_path)
    assert (out, err) == ("True\n", "compiling the kernels for this machine, which happens once\n")


# -- Ctrl-C -------------------------------------------------------------------------------
def send_ctrl_c():
    """To the main thread, which is woken up."""
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)


@with_signals
@pytest.mark.parametrize("to_whom", ["who works", "who waits"])
def test_ctrl_c_is_seen_when_nobody_writes_any_more(to_whom, monkeypatch):
    """A helper that went on would write into arrays that the next cell of a notebook computes with."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    pool, helper_is_inside, helper_is_done = ThreadPool(2), threading.Event(), threading.Event()

    def work(start, stop):
        if threading.current_thread() is threading.main_thread():
            helper_is_inside.wait(10)
            if to_whom == "who works":
                send_ctrl_c()
        else:
            helper_is_inside.set()
            time.sleep(0.1)
            if to_whom == "who waits":
                send_ctrl_c()
            time.sleep(0.1)
            helper_is_done.set()

    with pytest.raises(KeyboardInterrupt):
        pool.share(work, 2, 1)
    assert helper_is_done.is_set()
    done = []
    pool.share(lambda start, stop: done.append(start), 2, 1)
    assert sorted(done) == [0, 1]


def blas_threads():
    return [library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"]


def interrupted_at(event_number, function):
    """Call it, with Ctrl-C at that event: where Python looks for signals, at the begin of a function of ours (or of
    threadpoolctl's, or of a context manager) and when one written in C has returned. The KeyboardInterrupt, if it came
    to that."""
    count = 0

    def look(frame, event, _):
        nonlocal count
        ours = frame.f_code.co_filename.endswith(("thread_pool.py", "threadpoolctl.py", "contextlib.py"))
        count += ours and event in ("call", "c_return")
        if count == event_number:
            raise KeyboardInterrupt

    try:
        sys.setprofile(look)
        function()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def test_ctrl_c_at_every_step_of_the_pool(monkeypatch):
    """Whatever it interrupts, the next call is as if nothing had been: its results, BLAS's threads, and no deadlock.
    Also where the traceback, and so all that was going on, is kept, as a notebook does."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    with threadpoolctl.threadpool_limits(2, "blas"):
        pool, before = ThreadPool(2), blas_threads()

        def compute():
            y = np.zeros(4)

            def work(start, stop):
                y[start:stop] += np.arange(start, stop)

            with pool.one_blas_thread():
                pool.share(work, 4, 1)
            return y.tolist()

        moment, kept = 1, interrupted_at(1, compute)
        while kept:
            assert compute() == [0, 1, 2, 3], moment
            assert blas_threads() == before, moment
            moment += 1
            kept = interrupted_at(moment, compute)
        assert moment > 20


STOPPED = """
import random, signal, sys, threading
import numpy
import threadpoolctl
from minitorch_alex import Tensor, backends, functional as F, manual_seed, models, philox
from minitorch_alex.backends import thread_pool
from minitorch_alex.optim import SGD

thread_pool.WORTH_SHARING = 0
backends.use("numba")
backends.current().pool.threads = 3
images = Tensor(numpy.random.default_rng(0).standard_normal((12, 1, 16, 16)).astype("float32"))
labels = numpy.arange(12) % 10

def learn(steps):
    manual_seed(1)
    network = models.build("alexnet_small", 10, (1, 16, 16))
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        philox.set_step(step)
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    return b"".join(p.numpy().tobytes() for p in network.parameters())

def blas_threads():
    return [one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"]

expected, before, moments = learn(2), blas_threads(), random.Random(2)
signal.signal(signal.SIGALRM, signal.default_int_handler)
stopped = 0
for _ in range(int(sys.argv[1])):
    try:
        signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.001, 0.03), 2)  # again, should a destructor swallow it
        learn(10**6)
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        stopped += 1
    assert learn(2) == expected
    assert blas_threads() == before
print(stopped, sum(thread.name.startswith("minitorch_alex") for thread in threading.enumerate()))
"""


@with_numba
@with_signals
@pytest.mark.parametrize("times", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_a_cell_that_is_stopped_and_run_again(times):
    """Wherever Ctrl-C hits the training of a network: trained again from the start, it comes to the same bits."""
    assert python(STOPPED, times)[0] == f"{times} 2\n"


STOPPED_WHILE_COMPILING = """
import signal, sys, threading
import numpy
from minitorch_alex import backends

main, moments = threading.main_thread().ident, ["numba.core.typing", "compilation"]

def at(moment):
    if moment in moments:
        moments.remove(moment)
        signal.pthread_kill(main, signal.SIGINT)

def relu():
    try:
        print(backends.get("numba").relu(numpy.arange(-3.0, 4)).tolist())
    except KeyboardInterrupt:
        kernels = sys.modules.get("minitorch_alex.backends.numba_kernels")
        compiled = kernels and kernels.relu.signatures
        print("loaded" if kernels else "in pieces", "compiled" if compiled else "not compiled")

sys.addaudithook(lambda event, arguments: event == "import" and at(arguments[0]))
relu()

from numba.core import event

class Begin(event.Listener):
    on_start = lambda self, event: at("compilation")
    on_end = lambda self, event: None

event.register("numba:compile", Begin())
relu()
relu()
"""


@with_numba
@with_signals
def test_ctrl_c_waits_until_numba_is_loaded_and_has_compiled(tmp_path):
    """It would not survive it: half of what it knows is then missing for good."""
    out, err = python(STOPPED_WHILE_COMPILING, folder=tmp_path)
    assert out.splitlines() == ["loaded not compiled", "loaded compiled", "[0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]"]
    assert err == "compiling the kernels for this machine, which happens once\n"


CELL = """
from minitorch_alex import Tensor, backends, functional as F, manual_seed, models, philox
from minitorch_alex.optim import SGD
import numpy
backends.use("numba")
backends.current().pool.threads = 3
images = Tensor(numpy.random.default_rng(0).standard_normal((64, 3, 32, 32)).astype("float32"))
labels = numpy.arange(64) % 10
def learn(steps):
    manual_seed(1)
    network = models.build("alexnet_small", 10, (3, 32, 32))
    optimizer = SGD(network.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        philox.set_step(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
    return loss.item().hex()
"""


NOTEBOOK = """
import sys, threading
from jupyter_client.manager import start_new_kernel

manager, client = start_new_kernel(startup_timeout=60)

def cell(code):
    said = []
    hook = lambda message: said.append(message["content"].get("text", ""))
    reply = client.execute_interactive(code, timeout=120, output_hook=hook)
    return reply["content"].get("ename", "ok"), "".join(said)

print(cell(sys.argv[1]))
first = cell("print(learn(3))")
for wait in (0.3, 0.7, 1.1):
    timer = threading.Timer(wait, manager.interrupt_kernel)
    timer.start()
    print(cell("learn(10**6)")[0], cell("print(learn(3))") == first)
    timer.join()
client.stop_channels()
manager.shutdown_kernel(now=True)
"""


@pytest.mark.slow
@with_numba
def test_a_notebook_s_kernel_that_is_interrupted_goes_on():
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    out, _ = python(NOTEBOOK, CELL)
    assert out.splitlines() == ["('ok', '')"] + 3 * ["KeyboardInterrupt True"]


# -- processes ----------------------------------------------------------------------------
TRAINS = """
import multiprocessing, sys
import _posixsubprocess

events, made = [], _posixsubprocess.fork_exec

def make(*arguments):
    events.append("a process")
    return made(*arguments)

def hear(event, arguments):
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system", "subprocess.Popen"):
        events.append(event)

multiprocessing.set_start_method("forkserver")  # Linux's from Python 3.14 on, where a lock is enough to start a process
_posixsubprocess.fork_exec = make
sys.addaudithook(hear)

from minitorch_alex import run, train
from minitorch_alex.data import load

def few(source, **_):
    d = load(source)
    d.train_images, d.train_labels = d.train_images[:24], d.train_labels[:24]
    d.test_images, d.test_labels = d.test_images[:8], d.test_labels[:8]
    return d

run.load = few
train.draw = lambda run: None  # Matplotlib asks a program for the system's fonts, the first time
status = train.main([*"--epochs 1 --batch-size 12 --backend numba --workers 2 --out".split(), sys.argv[1]])
print("status", status, "events", events)
"""


@with_numba
@pytest.mark.skipif(sys.platform != "linux", reason="the names of these events are those of Linux")
def test_training_starts_no_process(tmp_path):
    """Neither by os.fork, nor by subprocess, nor by multiprocessing. Threads would not survive it."""
    out, _ = python(TRAINS, tmp_path / "run")
    assert out.splitlines()[-1] == "status 0 events []"
