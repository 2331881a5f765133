"""How the arrays of a convolution should lie, by measurement: AlexNet's five, forward and both gradients.

The backend makes wide columns (C*R*S, N*P*Q) of as many images as fit a limit, and one product per group. Against it:

    all at once     the same without the limit
    per image       columns (N, C*R*S, P*Q) and batched products, cupy.matmul of three dimensions
    channels last   images (N, H, W, C), columns (G, N*P*Q, R*S*C/G), so that one place of the window is one row
    cuDNN           PyTorch's, where it is installed

What would be kept between steps is prepared beforehand, such as images and weights with channels last.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy

from minitorch_alex.backends import cuda_windows
from minitorch_alex.backends.number_types import BFLOAT16, bfloat16
from minitorch_alex.backends.numpy_backend import BACKEND as REFERENCE
from minitorch_alex.backends.numpy_backend import Window

from . import gpu_timing
from .gpu_kernels import SMALL, distance
from .gpu_timing import WRONG, Row, attempted, set_torch_precision, table, timing, torch_with_gpu

TOLERANCE = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 3e-2}
CHANNELS_LAST = """
// columns[g][n, p, q][r, s, d] = x[n, p*stride - pad + r, q*stride - pad + s, g*D + d], with D = C/G channels a group
template <typename T>
__global__ void im2col_last(const T* x, T* columns, int N, int C, int H, int W, int R, int S, int P, int Q, int stride,
                            int pad, int G)
{
    int D = C / G;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)N * P * Q * R * S * C) return;
    int d = i % D, s = i / D % S, r = i / ((long long)D * S) % R;
    long long row = i / ((long long)D * S * R);
    int q = row % Q, p = row / Q % P, n = row / ((long long)Q * P) % N, g = row / ((long long)Q * P * N);
    int h = p * stride - pad + r, w = q * stride - pad + s;
    bool inside = h >= 0 && h < H && w >= 0 && w < W;
    columns[i] = inside ? x[(((long long)n * H + h) * W + w) * C + g * D + d] : T(0);
}

template <typename T>
__global__ void col2im_last(const T* columns, T* x, int N, int C, int H, int W, int R, int S, int P, int Q, int stride,
                            int pad, int G)
{
    int D = C / G;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)N * H * W * C) return;
    int c = i % C, w = i / C % W, h = i / ((long long)C * W) % H, n = i / ((long long)C * W * H);
    T sum = 0;
    for (int r = (h + pad) % stride; r < R && r <= h + pad; r += stride) {
        for (int s = (w + pad) % stride; s < S && s <= w + pad; s += stride) {
            int p = (h + pad - r) / stride, q = (w + pad - s) / stride;
            if (p >= P || q >= Q) continue;
            long long row = (((long long)(c / D) * N + n) * P + p) * Q + q;
            sum += columns[((row * R + r) * S + s) * D + c % D];
        }
    }
    x[i] = sum;
}
"""


class Layer(NamedTuple):
    """A convolution: channels, side of the images, filters, side of the window, stride, padding, groups."""

    name: str
    C: int
    H: int
    F: int
    R: int
    stride: int
    pad: int
    groups: int

    @property
    def window(self) -> Window:
        return Window((self.R, self.R), (self.stride, self.stride), (self.pad, self.pad))

    def arrays(self, N: int) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """x, w and gy."""
        P, Q = self.window.output_size(self.H, self.H)
        random, shapes = numpy.random.default_rng(0), [(N, self.C, self.H, self.H)]
        shapes += [(self.F, self.C // self.groups, self.R, self.R), (N, self.F, P, Q)]
        x, w, gy = (numpy.resize(random.standard_normal(99_991, "float32"), shape) for shape in shapes)
        return x, w, gy


LAYERS = [
    Layer("conv1", 3, 227, 96, 11, 4, 0, 1),
    Layer("conv2", 96, 27, 256, 5, 1, 2, 2),
    Layer("conv3", 256, 13, 384, 3, 1, 1, 1),
    Layer("conv4", 384, 13, 384, 3, 1, 1, 2),
    Layer("conv5", 384, 13, 256, 3, 1, 1, 2),
]


# -- the variants: each prepares its arrays, and has the three passes ---------------------
class AsItIs:
    """The backend's own."""

    name = "backend"

    def __init__(self, backend: Any, layer: Layer) -> None:
        self.backend, self.xp, self.layer = backend, backend.xp, layer
        self.window, self.groups = layer.window, layer.groups

    def prepare(self, x: Any, w: Any, gy: Any) -> None:
        self.x, self.w, self.gy = x, w, gy

    def forward(self) -> Any:
        return self.backend.conv2d(self.x, self.w, self.window, self.groups)

    def input_gradient(self) -> Any:
        return self.backend.conv2d_input_gradient(self.gy, self.w, self.x.shape, self.window, self.groups)

    def weight_gradient(self) -> Any:
        return self.backend.conv2d_weight_gradient(self.gy, self.x, self.w.shape, self.window, self.groups)

    def as_usual(self, what: str, result: Any) -> numpy.ndarray:
        """The result of a pass as the reference lays it out."""
        return self.backend.to_numpy(result)


class AllAtOnce(AsItIs):
    name = "all at once"

    @contextmanager
    def _unlimited(self) -> Iterator[None]:
        before, cuda_windows.COLUMN_BYTES = cuda_windows.COLUMN_BYTES, 1 << 62
        try:
            yield
        finally:
            cuda_windows.COLUMN_BYTES = before

    def forward(self) -> Any:
        with self._unlimited():
            return super().forward()

    def input_gradient(self) -> Any:
        with self._unlimited():
            return super().input_gradient()

    def weight_gradient(self) -> Any:
        with self._unlimited():
            return super().weight_gradient()


class PerImage(AsItIs):
    name = "per image"

    def _groups(self) -> Iterator[tuple[int, slice, slice]]:
        F, K = self.layer.F // self.groups, self.w[0].size
        for g in range(self.groups):
            yield g, slice(g * F, (g + 1) * F), slice(g * K, (g + 1) * K)

    def forward(self) -> Any:
        columns, (N, F, P, Q) = self.backend.im2col(self.x, self.window), self.gy.shape
        y, filters = self.xp.empty((N, F, P * Q), self.x.dtype), self.w.reshape(F, -1)
        for _, f, k in self._groups():
            y[:, f] = self.xp.matmul(filters[f], columns[:, k])
        return y.reshape(N, F, P, Q)

    def input_gradient(self) -> Any:
        N, F = self.gy.shape[:2]
        gy, filters = self.gy.reshape(N, F, -1), self.w.reshape(F, -1)
        columns = self.xp.empty((N, self.groups * filters.shape[1], gy.shape[2]), gy.dtype)
        for _, f, k in self._groups():
            columns[:, k] = self.xp.matmul(filters[f].T, gy[:, f])
        return self.backend.col2im(columns, self.x.shape, self.window)

    def weight_gradient(self) -> Any:
        columns, (N, F) = self.backend.im2col(self.x, self.window), self.gy.shape[:2]
        gy = self.gy.reshape(N, F, -1)
        parts = [self.xp.matmul(gy[:, f], columns[:, k].swapaxes(1, 2)).sum(axis=0) for _, f, k in self._groups()]
        return self.xp.concatenate(parts).reshape(self.w.shape)


class ChannelsLast(AsItIs):
    name = "channels last"

    def prepare(self, x: Any, w: Any, gy: Any) -> None:
        if x.dtype != "float32":
            raise TypeError("these kernels are for float32")
        (F, D, R, S), G, copy = w.shape, self.groups, self.xp.ascontiguousarray
        self.w_shape, self.N, self.F = w.shape, len(x), F
        self.x, self.gy = copy(x.transpose(0, 2, 3, 1)), copy(gy.transpose(0, 2, 3, 1))
        self.w = copy(w.reshape(G, F // G, D, R, S).transpose(0, 3, 4, 2, 1)).reshape(G, R * S * D, F // G)
        names = ["im2col_last<float>", "col2im_last<float>"]
        module = self.xp.RawModule(code=CHANNELS_LAST, options=("-std=c++17",), name_expressions=names)
        self.im2col, self.col2im = (module.get_function(name) for name in names)
        layer, (P, Q) = self.layer, gy.shape[2:]
        sizes = self.N, layer.C, layer.H, layer.H, R, S, P, Q, layer.stride, layer.pad, G
        self.sizes, self.rows = tuple(numpy.int32(n) for n in sizes), self.N * P * Q

    def _columns(self) -> Any:
        columns = self.xp.empty((self.groups, self.rows, self.w.shape[1]), "float32")
        self.im2col((-(-columns.size // 256),), (256,), (self.x, columns, *self.sizes))
        return columns

    def _gradients(self) -> list[Any]:
        """gy (N*P*Q, F/G) of each group."""
        rows, F = self.gy.reshape(self.rows, self.F), self.F // self.groups
        return [self.xp.ascontiguousarray(rows[:, g * F : (g + 1) * F]) for g in range(self.groups)]

    def forward(self) -> Any:
        columns = self._columns()
        parts = [columns[g] @ self.w[g] for g in range(self.groups)]
        y = parts[0] if self.groups == 1 else self.xp.concatenate(parts, axis=1)
        return y.reshape(self.gy.shape)

    def input_gradient(self) -> Any:
        columns = self.xp.empty((self.groups, self.rows, self.w.shape[1]), "float32")
        for g, gy in enumerate(self._gradients()):
            self.xp.matmul(gy, self.w[g].T, out=columns[g])
        gx = self.xp.empty(self.x.shape, "float32")
        self.col2im((-(-gx.size // 256),), (256,), (columns, gx, *self.sizes))
        return gx

    def weight_gradient(self) -> Any:
        columns, gw = self._columns(), self.xp.empty(self.w.shape, "float32")
        for g, gy in enumerate(self._gradients()):
            self.xp.matmul(columns[g].T, gy, out=gw[g])
        return gw

    def as_usual(self, what: str, result: Any) -> numpy.ndarray:
        a = self.backend.to_numpy(result)
        if what != "weight_gradient":
            return a.transpose(0, 3, 1, 2)
        (F, D, R, S), G = self.w_shape, self.groups
        return a.reshape(G, R, S, D, F // G).transpose(0, 4, 3, 1, 2).reshape(F, D, R, S)


class CuDNN(AsItIs):
    name = "cuDNN"

    def prepare(self, x: Any, w: Any, gy: Any) -> None:
        torch = self.torch = torch_with_gpu()
        if torch is None:
            raise ImportError("no PyTorch with a GPU")
        set_torch_precision(torch, self.backend.precision)
        numbers = torch.bfloat16 if x.dtype == BFLOAT16 else torch.float32
        host = (self.backend.to_numpy(a).astype("float32") for a in (x, w, gy))
        self.x, self.w, self.gy = (torch.from_numpy(a).to(gpu_timing.DEVICE, numbers) for a in host)

    def forward(self) -> Any:
        layer = self.layer
        return self.torch.nn.functional.conv2d(self.x, self.w, None, layer.stride, layer.pad, 1, layer.groups)

    def _backward(self, which: int) -> Any:
        layer, wanted = self.layer, [i == which for i in range(3)]
        twice = [[n, n] for n in (layer.stride, layer.pad, 1)]
        arguments = self.gy, self.x, self.w, None, *twice, False, [0, 0], layer.groups, wanted
        return self.torch.ops.aten.convolution_backward(*arguments)[which]

    def input_gradient(self) -> Any:
        return self._backward(0)

    def weight_gradient(self) -> Any:
        return self._backward(1)

    def as_usual(self, what: str, result: Any) -> numpy.ndarray:
        return result.float().cpu().numpy()


VARIANTS = [AsItIs, AllAtOnce, PerImage, ChannelsLast, CuDNN]
PASSES = ("forward", "input_gradient", "weight_gradient")


# -- measuring --------------------------------------------------------------------------
def measure_convolutions(
    backend: Any, batch: int, precisions: list[str], repeats: int, tell: Callable[[str], None]
) -> list[Row]:
    """A row for each layer, precision and variant, with the milliseconds of each pass."""
    rows = []
    try:
        for layer in LAYERS:
            for precision in precisions:
                for variant in VARIANTS:
                    row = {"layer": layer.name, "precision": precision, "variant": variant.name, "batch": batch}
                    task = (variant, layer, precision, batch, repeats)
                    rows.append(attempted(backend, row, lambda task=task: measure(backend, *task)))
                tell(f"{layer.name}, {precision}")
    finally:
        backend.set_precision("fp32")
    return rows


def measure(backend: Any, variant: type[AsItIs], layer: Layer, precision: str, batch: int, repeats: int) -> Row:
    """Compare with the reference on a few images, then take the times of a whole batch."""
    backend.set_precision(precision)
    small = prepared(backend, variant, layer, precision, SMALL)
    for what, expected in expected_results(layer).items():
        error = distance(small.as_usual(what, getattr(small, what)()), expected)
        if not error <= TOLERANCE[precision]:
            raise ValueError(f"{WRONG}{what} of {layer.name}, {variant.name}, is {error:.1e} off the reference's")
    whole = prepared(backend, variant, layer, precision, batch)
    return {what: 1e3 * timing(backend, getattr(whole, what), repeats).gpu for what in PASSES}


def prepared(backend: Any, variant: type[AsItIs], layer: Layer, precision: str, N: int) -> AsItIs:
    numbers = bfloat16() if precision == "bf16" else numpy.dtype("float32")
    made = variant(backend, layer)
    made.prepare(*(backend.xp.array(a.astype(numbers)) for a in layer.arrays(N)))
    return made


@functools.cache
def expected_results(layer: Layer) -> dict[str, numpy.ndarray]:
    """What the reference makes of a few images."""
    (x, w, gy), window, groups = layer.arrays(SMALL), layer.window, layer.groups
    return {
        "forward": REFERENCE.conv2d(x, w, window, groups),
        "input_gradient": REFERENCE.conv2d_input_gradient(gy, w, x.shape, window, groups),
        "weight_gradient": REFERENCE.conv2d_weight_gradient(gy, x, w.shape, window, groups),
    }


def convolution_table(rows: list[Row]) -> str:
    """Milliseconds, and how many times as fast as the backend."""
    columns = {"layer": -6, "prec.": -6, "variant": -14}
    columns |= {"forward": 9, "x": 6, "to x": 9, "x ": 6, "to w": 9, "x  ": 6, "all": 9, "x   ": 6}
    title = "Convolution: milliseconds of forward and of the gradients to images and to weights,\n"
    title += "and beside each (x) how many times as fast as the backend: above 1, the variant is faster."
    own = {(row["layer"], row["precision"]): row for row in rows if row["variant"] == AsItIs.name}
    return table(title, columns, (_cells(row, own[row["layer"], row["precision"]]) for row in rows))


def _cells(row: Row, own: Row) -> list[object]:
    cells = [row["layer"], row["precision"], row["variant"]]
    if "problem" in row:
        return [*cells, row["problem"]]
    for passes in (*((what,) for what in PASSES), PASSES):
        found = math.fsum(row[what] for what in passes)
        ratio = "" if "problem" in own else f"{math.fsum(own[what] for what in passes) / found:.2f}"
        cells += [f"{found:.3f}", ratio]
    return cells


if __name__ == "__main__":
    raise SystemExit("this is a part of python -m benchmarks.gpu")
