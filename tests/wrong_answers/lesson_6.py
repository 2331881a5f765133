# Wrong answers to the exercises of lesson 6 that a learner might give, and what the check must say of each:
# a cell's first line has the exercise and words of the explanation.
import math

import numpy as np
from minitorch_alex.backends import Backend


# %% 6.1: the four are in the opposite order
def place(block, thread, threads, shape):
    i = block * threads + thread
    _, C, H, W = shape
    return i % W, i // W % H, i // W // H % C, i // W // H // C


# %% 6.1: the block is left out
def place(block, thread, threads, shape):
    _, C, H, W = shape
    return thread // W // H // C, thread // W // H % C, thread // W % H, thread % W


# %% 6.1: there are so many threads in the blocks before
def place(block, thread, threads, shape):
    i = block + thread
    _, C, H, W = shape
    return i // W // H // C, i // W // H % C, i // W % H, i % W


# %% 6.1: block and thread are swapped
def place(block, thread, threads, shape):
    i = thread * threads + block
    _, C, H, W = shape
    return i // W // H // C, i // W // H % C, i // W % H, i % W


# %% 6.1: c counts the channels of all images
def place(block, thread, threads, shape):
    i = block * threads + thread
    _, C, H, W = shape
    return i // (C * H * W), i // (H * W), i // W % H, i % W


# %% 6.1: / gives fractions
def place(block, thread, threads, shape):
    i = block * threads + thread
    _, C, H, W = shape
    return i / W / H / C, i / W / H % C, i / W % H, i % W


# %% 6.1: H and W are swapped
def place(block, thread, threads, shape):
    i = block * threads + thread
    _, C, H, W = shape
    return i // H // W // C, i // H // W % C, i // H % W, i % H


# %% 6.1: this lets the first one run fastest
def place(block, thread, threads, shape):
    i = block * threads + thread
    N, C, H, _ = shape
    return i % N, i // N % C, i // N // C % H, i // N // C // H


# %% 6.1: this is the number of the element
def place(block, thread, threads, shape):
    return block * threads + thread


# %% 6.1: return the four numbers with commas between them
def place(block, thread, threads, shape):
    return np.array(np.unravel_index(block * threads + thread, shape))


# %% 6.1: an index has to be whole
def place(block, thread, threads, shape):
    return tuple(np.array(np.unravel_index(block * threads + thread, shape), "float64"))


# %% 6.2: threads of two blocks have the same element
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: those too many must be kept from reading and writing
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: goes on counting in the next image
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i / pixels];
}
"""


# %% 6.2: as if neighbours were of different channels
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i % channels];
}
"""


# %% 6.2: a block does not end where a channel ends
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[blockIdx.x % channels];
}
"""


# %% 6.2: no thread has this element
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total - 1) y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: a semicolon ends every statement
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x
    if (i < total) y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: its type is missing in front of it
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
    i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: float and int, no double
def add_bias():
    return """
__global__ void add_bias(const double* x, const double* bias, double* y, int channels, int pixels, int total) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < total) y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: take the line with __global__ as it stands in the exercise
def add_bias():
    return """
__global__ void add_bias(const float* x, const float* bias, float* y, int channels, int pixels) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    y[i] = x[i] + bias[i / pixels % channels];
}
"""


# %% 6.2: the kernel is to be called add_bias
def add_bias():
    return """
__global__ void bias_add(const float* x, const float* bias, float* y, int channels, int pixels, int total) {
}
"""


# %% 6.2: return the text of the kernel, between three quotation marks
def add_bias():
    return lambda x, bias: x + bias[:, None, None]


# %% 6.2: in which there is no kernel
def add_bias():
    return "y = x + bias"


# %% 6.3: in a loop in every round
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
    }
    __syncthreads();
    if (t < columns) y[i] = x[i] - buffer[0] / columns;
}
"""


# %% 6.3: a __syncthreads() is needed behind every writing
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
        __syncthreads();
    }
    if (t < columns) y[i] = x[i] - buffer[0] / columns;
}
"""


# %% 6.3: not all threads of the block come by
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) {
            buffer[t] += buffer[t + half];
            __syncthreads();
        }
    }
    __syncthreads();
    if (t < columns) y[i] = x[i] - buffer[0] / columns;
}
"""


# %% 6.3: those without a number a 0
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    if (t >= columns) return;
    buffer[t] = x[i];
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
        __syncthreads();
    }
    y[i] = x[i] - buffer[0] / columns;
}
"""


# %% 6.3: the mean is over the columns
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    __shared__ float buffer[64];
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    buffer[t] = t < columns ? x[i] : 0;
    __syncthreads();
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) buffer[t] += buffer[t + half];
        __syncthreads();
    }
    if (t < columns) y[i] = x[i] - buffer[0] / blockDim.x;
}
"""


# %% 6.3: keep the buffer and the tree
def centre():
    return """
__global__ void centre(const float* x, float* y, int columns) {
    int t = threadIdx.x, i = blockIdx.x * columns + t;
    float sum = 0;
    if (t >= columns) return;
    for (int j = 0; j < columns; j++) sum += x[blockIdx.x * columns + j];
    y[i] = x[i] - sum / columns;
}
"""


# %% 6.4: the sum goes on from row to row
def softmax_loop(x, y):
    N, K = x.shape
    total = 0.0
    for n in range(N):
        largest = max(x[n])
        for k in range(K):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total


# %% 6.4: the largest goes on from row to row
def softmax_loop(x, y):
    N, K = x.shape
    largest = -math.inf
    for n in range(N):
        for k in range(K):
            largest = max(largest, x[n, k])
        total = 0.0
        for k in range(K):
            y[n, k] = np.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total


# %% 6.4: begin with the row's first score
def softmax_loop(x, y):
    N, K = x.shape
    for n in range(N):
        largest = 0.0
        for k in range(K):
            largest = max(largest, x[n, k])
        total = 0.0
        for k in range(K):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total


# %% 6.4: is too large for a number
def softmax_loop(x, y):
    N, K = x.shape
    for n in range(N):
        total = 0.0
        for k in range(K):
            y[n, k] = math.exp(x[n, k])
            total += y[n, k]
        for k in range(K):
            y[n, k] /= total


# %% 6.4: the exponential overflows
def softmax_loop(x, y):
    y[:] = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


# %% 6.4: the division needs the whole sum
def softmax_loop(x, y):
    N, K = x.shape
    for n in range(N):
        largest, total = max(x[n]), 0.0
        for k in range(K):
            e = math.exp(x[n, k] - largest)
            total += e
            y[n, k] = e / total


# %% 6.4: nothing was written into y
def softmax_loop(x, y):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    return y


# %% 6.4: divide them by their sum
def softmax_loop(x, y):
    for n in range(x.shape[0]):
        for k in range(x.shape[1]):
            y[n, k] = math.exp(x[n, k] - max(x[n]))


# %% 6.4: the last column is not written
def softmax_loop(x, y):
    N, K = x.shape
    for n in range(N):
        total = 0.0
        largest = max(x[n, : K - 1], default=0.0)
        for k in range(K - 1):
            y[n, k] = math.exp(x[n, k] - largest)
            total += y[n, k]
        for k in range(K - 1):
            y[n, k] /= total


# %% 6.4: changes what it was given
def softmax_loop(x, y):
    N, K = x.shape
    for n in range(N):
        x[n] -= max(x[n])
        for k in range(K):
            y[n, k] = math.exp(x[n, k]) / np.exp(x[n]).sum()


# %% 6.5: nothing is rounded
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        return super().matrix_product(a, b)


# %% 6.5: the product is rounded as well
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        return a.astype("float16") @ b.astype("float16")


# %% 6.5: the product is rounded: it should be the factors
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        return super().matrix_product(a, b).astype("float16").astype(a.dtype)


# %% 6.5: only the first factor is rounded
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        return super().matrix_product(a.astype("float16").astype(a.dtype), b)


# %% 6.5: expected float64
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        a, b = a.astype("float16").astype("float32"), b.astype("float16").astype("float32")
        return super().matrix_product(a, b)


# %% 6.5: changes what it was given
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        a[...] = a.astype("float16")
        b[...] = b.astype("float16")
        return super().matrix_product(a, b)


# %% 6.5: which is no Backend
class HalfProducts:
    name = "half"

    def matrix_product(self, a, b):
        return a.astype("float16").astype(a.dtype) @ b.astype("float16").astype(b.dtype)


# %% 6.5: the class has a line name
class HalfProducts(Backend):
    def matrix_product(self, a, b):
        return super().matrix_product(a.astype("float16").astype(a.dtype), b.astype("float16").astype(b.dtype))


# %% 6.5: self.matrix_product is this method again
class HalfProducts(Backend):
    name = "half"

    def matrix_product(self, a, b):
        return self.matrix_product(a.astype("float16").astype(a.dtype), b.astype("float16").astype(b.dtype))
