// ReLU, and a layer's bias and ReLU in one pass. AlexNet, section 3.1: f(x) = max(0, x).
//
//     relu                 y = max(x, 0), NaN stays NaN
//     relu_gradient        gx = 0 where y <= 0, else gy
//     bias_relu            x (N, F, P, Q), bias (F,)  ->  y = max(x + bias, 0)
//     bias_relu_gradient   gy, y (N, F, P, Q)  ->  gx as relu_gradient, and parts (F, blocks_per_channel),
//                          the sums of gx over N, P, Q, each block's apart
//     add_parts            parts (F, blocks_per_channel)  ->  gbias (F,), the gradient of the bias
//
// N images, F filters (channels), P x Q outputs of a convolution. For a linear layer P = Q = 1.
//
// Bound by memory: there is one comparison for each number moved. Apart, adding the bias and taking the maximum
// would each read and write the whole array: 16 bytes for each element in float. In one pass it is 8, forward.
// Backward it is 12 with the bias gradient, since the sum is taken while gx is at hand and not in a second reading.
// The maxima and masks are exact; y is exact too, being one addition. The sums are rounded, always in the same way.
// A bias is a Wide<T>: float32 beside bfloat16, and so is its gradient.
// Source: AlexNet, section 3.1; the sum of a block in two steps, within warps and then over them: warp.cuh.

#include "bfloat16.cuh"
#include "warp.cuh"

// `value <= 0` is false for NaN, which therefore passes: a NaN must be seen, not turned into a zero.
template <typename T>
__device__ T rectify(T value)
{
    return value <= 0 ? T(0) : value;
}

// Launch: 256 threads a block, one thread for each element. No shared memory.
template <typename T>
__global__ void relu(const T* __restrict__ x, T* __restrict__ y, long long total)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    y[i] = rectify(x[i]);
}

// Launch: 256 threads a block, one thread for each element. No shared memory.
template <typename T>
__global__ void relu_gradient(const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, long long total)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    gx[i] = y[i] <= 0 ? T(0) : gy[i];
}

// Launch: 256 threads a block, N*F*P*Q threads, one for each element. No shared memory.
template <typename T>
__global__ void bias_relu(
    const T* __restrict__ x, const Wide<T>* __restrict__ bias, T* __restrict__ y, int N, int F, int P, int Q)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)N * F * P * Q;
    if (i >= total) return;
    int f = i / (P * Q) % F;
    y[i] = rectify(x[i] + bias[f]);
}

// The gradient of bias_relu. A bias is added at N*P*Q places, so its gradient is the sum of gx over all of them.
//
// Launch: F*blocks_per_channel blocks of 256 threads; the blocks of a channel take turns at stretches of 256 of its
// elements. The sum is taken in three steps, none of which depends on which thread comes first, so it has the same
// bits in every run:
//     1. each thread adds up its own elements, 256*blocks_per_channel apart, in ascending order
//     2. the 32 threads of a warp add up theirs, by shuffles (warp.cuh)
//     3. the first warp adds up the 8 warps' sums, which pass through shared memory (8 numbers)
// With one block a channel `parts` is the gradient already. But 96 channels are 96 blocks, and a large GPU works on a
// thousand at a time: blocks_per_channel = max(1, 1024 / F) gives it enough. That depends on F alone and not on the
// GPU at hand, since another number of blocks means another order of addition and so another rounding.
// For a linear layer a block's threads read numbers F apart, which wastes most of each read; its arrays are small.
const int THREADS = 256;           // of a block of bias_relu_gradient
const int WARPS = THREADS / WARP;  // of a block

template <typename T>
__global__ void bias_relu_gradient(
    const T* __restrict__ gy, const T* __restrict__ y, T* __restrict__ gx, Wide<T>* __restrict__ parts,
    int N, int F, int P, int Q, int blocks_per_channel)
{
    __shared__ Wide<T> sums[WARPS];
    int f = blockIdx.x / blocks_per_channel;      // whose channel this is
    int block = blockIdx.x % blocks_per_channel;  // which of its blocks
    int image = P * Q;                            // elements of the channel in one image
    long long count = (long long)N * image;       // and in the whole batch

    Wide<T> sum = 0;
    for (long long j = block * THREADS + threadIdx.x; j < count; j += blocks_per_channel * THREADS) {
        long long n = j / image;
        long long i = (n * F + f) * image + j % image;
        T gradient = y[i] <= 0 ? T(0) : gy[i];
        gx[i] = gradient;
        sum += gradient;
    }

    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    sum = warp_sum(sum);
    if (lane == 0) sums[warp] = sum;
    __syncthreads();  // every warp's sum must be there before the first warp reads them

    if (warp == 0) {
        sum = warp_sum(lane < WARPS ? sums[lane] : Wide<T>(0));
        if (lane == 0) parts[blockIdx.x] = sum;
    }
}

// Launch: 256 threads a block, F threads, one for each channel, which adds up its parts in ascending order.
template <typename T>
__global__ void add_parts(
    const Wide<T>* __restrict__ parts, Wide<T>* __restrict__ gbias, int F, int blocks_per_channel)
{
    int f = blockIdx.x * blockDim.x + threadIdx.x;
    if (f >= F) return;
    Wide<T> sum = 0;
    for (int block = 0; block < blocks_per_channel; block++) sum += parts[f * blocks_per_channel + block];
    gbias[f] = sum;
}
