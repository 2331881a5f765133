"""Matrix products on the kernels' threads."""

import numpy as np
import pytest
import threadpoolctl

from minitorch_alex import backends
from minitorch_alex.backends import thread_pool

pytest.importorskip("numba", reason="numba is not installed")

SHAPES = [(5, 7, 3), (3, 7, 5), (1, 4, 9), (9, 4, 1), (1, 1, 1), (0, 3, 4), (3, 0, 4), (4, 3, 0), (64, 100, 90)]


def laid_out(random, rows, columns, order):
    """Whole numbers, so that the order of sums does not matter."""
    a = random.integers(-9, 9, (rows, columns)).astype("float64")
    return {"rows": a, "columns": np.asfortranarray(a), "gaps": np.repeat(a, 2, axis=1)[:, ::2]}[order]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("left", ["rows", "columns", "gaps"])
@pytest.mark.parametrize("right", ["rows", "columns", "gaps"])
def test_products(shape, threads, left, right, monkeypatch):
    numba, random, (M, K, N) = backends.get("numba"), np.random.default_rng(0), shape
    monkeypatch.setattr(numba.pool, "threads", threads)
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    a, b = laid_out(random, M, K, left), laid_out(random, K, N, right)
    found = numba.matrix_product(a, b)
    assert (found == backends.get("numpy").matrix_product(a, b)).all()
    assert found.shape == (M, N)
    assert found.flags.c_contiguous


def test_all_threads_multiply_and_blas_has_one(monkeypatch):
    numba, seen = backends.get("numba"), []
    monkeypatch.setattr(numba.pool, "threads", 3)

    def spy(work, count, cost, share=numba.pool.share):
        seen.append([numba.pool.slices(count, cost), threadpoolctl.threadpool_info()])
        share(work, count, cost)

    monkeypatch.setattr(numba.pool, "share", spy)
    numba.matrix_product(np.ones((30, 20)), np.ones((20, 10)))  # too small
    assert not seen
    numba.matrix_product(np.ones((300, 200)), np.ones((200, 400)))
    [(slices, libraries)] = seen
    assert [stop - start for start, stop in slices] == [133, 133, 134]  # of the longer side
    assert {one["num_threads"] for one in libraries if "numpy" in one["filepath"] and one["user_api"] == "blas"} <= {1}


def test_an_outer_product_is_not_laid_out_twice(monkeypatch):
    """The gradient of AlexNet's fc6 by one image is one: 151 MB, and copying it took longer than making it."""
    monkeypatch.setattr(thread_pool, "WORTH_SHARING", 0)
    column, row = np.arange(4.0)[:, None], np.arange(5.0)[None]
    monkeypatch.setattr(np, "ascontiguousarray", None)
    assert (backends.get("numba").matrix_product(column, row) == column * row).all()


@pytest.mark.parametrize(
    ("wished", "threads"), [(None, 4), ("", 4), ("2", 2), ("0", 1), ("9", 4), ("many", 4), ("2,1", 4)]
)
def test_the_user_may_want_fewer_threads(wished, threads, monkeypatch):
    monkeypatch.setattr(thread_pool, "usable_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if wished is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", wished)
    assert thread_pool.threads_to_use() == threads
