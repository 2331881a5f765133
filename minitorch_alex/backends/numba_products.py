"""Large matrix products on the same threads as the kernels; small ones are left to BLAS as it is.

BLAS has threads of its own, which go on looking for work for a while after a product: a convolution that comes next
would share the cores with them, and AlexNet's first two then took twice as long.
"""

from __future__ import annotations

import numpy

from .array_module import Array
from .numpy_backend import Backend
from .thread_pool import ThreadPool, threads_to_use


class NumbaProducts(Backend):
    """The part of the numba backend that multiplies matrices."""

    def __init__(self) -> None:
        self.pool = ThreadPool(threads_to_use())

    def matrix_product(self, a: Array, b: Array) -> Array:
        M, N, cost = a.shape[0], b.shape[1], a.shape[0] * b.size
        if not self.pool.would_share(max(M, N), cost):
            return a @ b
        if not b.flags.c_contiguous and b.T.flags.c_contiguous and M < N:  # the larger one to the left: faster
            return numpy.ascontiguousarray(self.matrix_product(b.T, a.T).T)
        out = numpy.empty((M, N), numpy.result_type(a, b))

        def rows(start: int, stop: int) -> None:
            numpy.matmul(a[start:stop], b, out=out[start:stop])

        def columns(start: int, stop: int) -> None:
            numpy.matmul(a, b[:, start:stop], out=out[:, start:stop])

        with self.pool.one_blas_thread():
            self.pool.share(rows if M >= N else columns, max(M, N), cost)
        return out
