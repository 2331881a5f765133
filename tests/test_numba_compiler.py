"""How kernels are compiled: said aloud the first time, kept, and compiled again when what they call has changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="numba is not installed")

from numba.core.dispatcher import Dispatcher

from minitorch_alex.backends import numba_compiler, numba_kernels, thread_pool, winograd_kernels

TWO_KERNELS = """
import numpy
from minitorch_alex import backends

numba = backends.get("numba")
print(numba.relu(numpy.array([-1.0, 2.0])), numba.relu_gradient(numpy.ones(2), numpy.array([0.0, 2.0])))
"""
KERNEL = """
from .numba_compiler import kernel

@kernel
def helper(x):
    return x + 1

@kernel
def twice(x):
    return 2 * helper(x)
"""


def run(script, folder):
    """A new process, whose cache of kernels is in the folder: what it said to whom."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONPATH": str(folder)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_the_first_compilation_is_said_aloud(tmp_path):
    said = [run(TWO_KERNELS, tmp_path) for _ in range(2)]
    assert said[0] == ("[0. 2.] [0. 1.]\n", "compiling the kernels for this machine, which happens once\n")
    assert said[1] == ("[0. 2.] [0. 1.]\n", "")


def test_a_changed_helper_is_noticed(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    for module in (numba_compiler, thread_pool):
        shutil.copy(module.__file__, package)
    found = []
    for text in (KERNEL, KERNEL, KERNEL.replace("x + 1", "x + 10")):
        (package / "kernels.py").write_text(text)
        found.append(run("from package.kernels import twice; print(twice(1))", tmp_path)[0])
    assert found == ["4\n", "4\n", "22\n"]


@pytest.mark.parametrize("module", [numba_kernels, winograd_kernels])
def test_a_kernel_calls_kernels_of_its_own_file_only(module):
    """Numba would not notice a change in another."""
    kernels = [value for value in vars(module).values() if isinstance(value, Dispatcher)]
    assert len(kernels) > 4
    for kernel in kernels:
        function = kernel.py_func
        called = [function.__globals__.get(name) for name in function.__code__.co_names]
        files = {Path(one.py_func.__code__.co_filename) for one in [kernel, *called] if isinstance(one, Dispatcher)}
        assert files == {Path(module.__file__)}, function.__name__
