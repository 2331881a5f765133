// Local response normalisation: divide every response by the energy of its neighbours in the other channels.
//
//     scale[n, c, m] = k + alpha / size * sum of x[n, j, m]^2 over the channels j = c - before ... c + after
//     y[n, c, m] = x[n, c, m] * scale[n, c, m]^-beta
//
//     before = size // 2, after = (size - 1) // 2; channels that do not exist count as 0
//
// x, y, scale: (N, C, M), where M = H * W pixels. `size` may be even, and wider than there are channels.
//
// Backward, from gy = dL/dy. x[c] appears in its own y[c] and in the scale of every channel j whose window reaches it:
//
//     gx[c] = gy[c] * scale[c]^-beta - 2 * alpha / size * beta * x[c] * (sum of share[j] over j = c-after ... c+before)
//     share[j] = gy[j] * x[j] * scale[j]^(-beta - 1)
//
// Seen from x[c] the window is mirrored: j's window reaches `after` channels up, so c is reached from `after` down.
//
// Versions:
//     local_response_norm, local_response_norm_gradient             plain: one thread for one element, any size
//     local_response_norm_walk, local_response_norm_gradient_walk   faster: one thread for one pixel, a fixed size
//
// instances: local_response_norm_walk<float, 5>; local_response_norm_gradient_walk<float, 5>
// instances: local_response_norm_walk<double, 5>; local_response_norm_gradient_walk<double, 5>
//
// Launch: 256 threads a block. Plain: N*C*M threads. Walk: `walks` threads, N * ceil(C / CHANNELS_PER_WALK) * M.
// Bound: memory. Forward reads x and writes y and scale, backward reads gy, x and scale and writes gx: 12 and 16 bytes
// an element in float. The plain versions read every element `size` times, all but once from a cache; the walks once,
// and 1 + (size - 1) / 32 times at the ends of their stretches.
// Source: AlexNet, section 3.3 (there alpha is not divided by size); the window of even sizes is cuda-convnet's.

#include "bfloat16.cuh"
#include "shrink.cuh"

// -- plain: one thread for one element --------------------------------------------
template <typename T>
__global__ void local_response_norm(
    const T* __restrict__ x,
    T* __restrict__ y,
    T* __restrict__ scale,
    int C,
    int M,
    long long total,
    int size,
    Wide<T> alpha,
    Wide<T> beta,
    Wide<T> k
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int c = (int)(i / M % C);
    int before = size / 2;
    int after = (size - 1) / 2;
    int first = max(c - before, 0);
    int last = min(c + after, C - 1);

    Wide<T> sum = 0;
    for (int j = first; j <= last; ++j) {
        Wide<T> value = x[i + (j - c) * (long long)M];  // the same pixel, j - c channels on
        sum += value * value;
    }
    Wide<T> s = k + alpha / size * sum;
    scale[i] = s;
    y[i] = x[i] * shrink(s, beta);
}

template <typename T>
__global__ void local_response_norm_gradient(
    const T* __restrict__ gy,
    const T* __restrict__ x,
    const T* __restrict__ scale,
    T* __restrict__ gx,
    int C,
    int M,
    long long total,
    int size,
    Wide<T> alpha,
    Wide<T> beta
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int c = (int)(i / M % C);
    int before = (size - 1) / 2;  // the mirrored window
    int after = size / 2;
    int first = max(c - before, 0);
    int last = min(c + after, C - 1);

    Wide<T> seen_by = 0;
    for (int j = first; j <= last; ++j) {
        long long at = i + (j - c) * (long long)M;
        Wide<T> s = scale[at];
        Wide<T> direct = gy[at] * shrink(s, beta);
        seen_by += direct * x[at] / s;
    }
    Wide<T> s = scale[i];
    Wide<T> direct = gy[i] * shrink(s, beta);
    gx[i] = direct - 2 * alpha / size * beta * x[i] * seen_by;
}

// -- faster: one thread for one pixel ---------------------------------------------
// A thread walks through the channels of its pixel and keeps the window in registers: at every step the window moves up
// by one channel, and only the channel that enters it is read. Each sum is formed anew, in the plain version's order:
// adding what enters and subtracting what leaves would be quicker and would let rounding errors pile up.
//
// The channels are cut into stretches of CHANNELS_PER_WALK, each with a thread of its own, so that there are enough
// threads to keep the memory busy. Neighbouring threads hold neighbouring pixels and so read neighbouring addresses.
// Registers have no numbers to index by, so SIZE must be known when this is compiled; beyond some 16 channels there are
// too few registers, and the plain version is the better one.
const int CHANNELS_PER_WALK = 32;

template <typename T, int SIZE>
__global__ void local_response_norm_walk(
    const T* __restrict__ x,
    T* __restrict__ y,
    T* __restrict__ scale,
    int C,
    int M,
    long long walks,
    Wide<T> alpha,
    Wide<T> beta,
    Wide<T> k
) {
    const int before = SIZE / 2;
    const int after = (SIZE - 1) / 2;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= walks) return;
    int stretches = (C + CHANNELS_PER_WALK - 1) / CHANNELS_PER_WALK;
    long long n = i / M / stretches;
    int begin = (int)(i / M % stretches) * CHANNELS_PER_WALK;
    int end = min(begin + CHANNELS_PER_WALK, C);
    long long pixel = n * C * M + i % M;  // where its channel 0 lies; channel c is c * M further

    Wide<T> window[SIZE];  // x of the channels c - before ... c + after
#pragma unroll
    for (int j = 0; j < SIZE; ++j) window[j] = 0;

    for (int entering = begin - before; entering < end + after; ++entering) {
#pragma unroll
        for (int j = 0; j + 1 < SIZE; ++j) window[j] = window[j + 1];
        bool exists = 0 <= entering && entering < C;
        window[SIZE - 1] = exists ? Wide<T>(x[pixel + entering * (long long)M]) : 0;

        int c = entering - after;
        if (c < begin) continue;  // the window is still filling
        Wide<T> sum = 0;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) sum += window[j] * window[j];
        Wide<T> s = k + alpha / SIZE * sum;
        scale[pixel + c * (long long)M] = s;
        y[pixel + c * (long long)M] = window[before] * shrink(s, beta);
    }
}

template <typename T, int SIZE>
__global__ void local_response_norm_gradient_walk(
    const T* __restrict__ gy,
    const T* __restrict__ x,
    const T* __restrict__ scale,
    T* __restrict__ gx,
    int C,
    int M,
    long long walks,
    Wide<T> alpha,
    Wide<T> beta
) {
    const int before = (SIZE - 1) / 2;  // the mirrored window
    const int after = SIZE / 2;
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= walks) return;
    int stretches = (C + CHANNELS_PER_WALK - 1) / CHANNELS_PER_WALK;
    long long n = i / M / stretches;
    int begin = (int)(i / M % stretches) * CHANNELS_PER_WALK;
    int end = min(begin + CHANNELS_PER_WALK, C);
    long long pixel = n * C * M + i % M;

    Wide<T> share[SIZE];        // of the channels c - before ... c + after
    Wide<T> direct[after + 1];  // gy * scale^-beta of the channels c ... c + after
    Wide<T> value[after + 1];   // x of the same
#pragma unroll
    for (int j = 0; j < SIZE; ++j) share[j] = 0;
#pragma unroll
    for (int j = 0; j <= after; ++j) direct[j] = value[j] = 0;

    for (int entering = begin - before; entering < end + after; ++entering) {
#pragma unroll
        for (int j = 0; j + 1 < SIZE; ++j) share[j] = share[j + 1];
#pragma unroll
        for (int j = 0; j < after; ++j) {
            direct[j] = direct[j + 1];
            value[j] = value[j + 1];
        }
        share[SIZE - 1] = 0;
        if (0 <= entering && entering < C) {
            long long at = pixel + entering * (long long)M;
            Wide<T> s = scale[at];
            value[after] = x[at];
            direct[after] = gy[at] * shrink(s, beta);
            share[SIZE - 1] = direct[after] * value[after] / s;
        }

        int c = entering - after;
        if (c < begin) continue;  // the window is still filling
        Wide<T> seen_by = 0;
#pragma unroll
        for (int j = 0; j < SIZE; ++j) seen_by += share[j];
        gx[pixel + c * (long long)M] = direct[0] - 2 * alpha / SIZE * beta * value[0] * seen_by;
    }
}
