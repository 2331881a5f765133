// Max pooling: the largest value of each window, and its gradient. AlexNet, section 3.4, pools 3 x 3 windows 2
// apart, so that neighbours overlap.
//
//     x (N, C, H, W)  ->  y (N, C, P, Q),  winner (N, C, P, Q)
//     y[n, c, p, q] = the maximum over r, s of x[n, c, h, w]      winner = r*S + s, the tap that held it
//     h = p*stride_v - pad_v + r*dilation_v,   w = q*stride_h - pad_h + s*dilation_h
//
// N images, C channels, H x W pixels, R x S taps of the window, P x Q windows; _v is vertical, _h is horizontal. Every
// channel of every image is pooled alone, so the kernels only know `planes` = N*C planes of H x W pixels.
//
// Of equal values the first in scan order wins. A NaN wins over every number, and of several the last. Padding
// never wins, since it is not there: a tap outside the image is passed over. So is what a partial window
// (ceil_mode) has beyond the edge. A window without a single pixel gives minus infinity and the winner -1. Nothing
// is rounded: the results are exact.
//
// The kernels in this file:
//     max_pool                    the plain one: a thread finds one maximum in global memory
//     max_pool_planes             the same through shared memory, for planes that fit there
//     max_pool_gradient           each window's gradient to its winner
//     max_pool_gradient_to_ties   each window's whole gradient to every pixel that equals the maximum, as the code of
//                                 2012 did
//
// Bound by memory. For 3 x 3 windows 2 apart in float, each output takes four pixels read (16 bytes) and a value and a
// winner written (8 bytes); in the gradient each pixel takes a fourth of those 8 bytes read and 4 bytes written.
// Source: AlexNet, section 3.4; the gradient as a gather as in Caffe's pooling_layer.cu.

#include "bfloat16.cuh"
#include "window.cuh"

// The window at (p, q) of one plane: its maximum and the tap that held it.
template <typename T>
__device__ void find_maximum(
    const T* plane, int p, int q, int H, int W, int R, int S,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h,
    T& maximum, int& winner)
{
    maximum = T(-1) / T(0);  // minus infinity
    winner = -1;
    for (int r = 0; r < R; r++) {
        int h = p * stride_v - pad_v + r * dilation_v;
        if (h < 0 || h >= H) continue;
        for (int s = 0; s < S; s++) {
            int w = q * stride_h - pad_h + s * dilation_h;
            if (w < 0 || w >= W) continue;
            T value = plane[h * W + w];
            bool not_a_number = value != value;  // true for NaN alone
            if (value > maximum || not_a_number || winner < 0) {
                maximum = value;
                winner = r * S + s;
            }
        }
    }
}

// Launch: 256 threads a block, planes*P*Q threads, one for each output. No shared memory.
// Where windows overlap a pixel is read by several threads; the first-level cache answers all but the first.
template <typename T>
__global__ void max_pool(
    const T* __restrict__ x, T* __restrict__ y, int* __restrict__ winner,
    int planes, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)planes * P * Q;
    if (i >= total) return;

    // Which window of which plane is thread i's?
    long long plane = i / (P * Q);
    int place = i % (P * Q);
    int p = place / Q, q = place % Q;

    T maximum;
    int tap;
    find_maximum(x + plane * H * W, p, q, H, W, R, S,
                 stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h, maximum, tap);
    y[i] = maximum;
    winner[i] = tap;
}

// The same result, faster where windows overlap: a block first copies whole planes into shared memory, in one sweep in
// which neighbouring threads read neighbouring addresses, and then looks for the maxima there. So each pixel comes from
// global memory exactly once, however many windows see it, and no read of global memory jumps by the stride.
//
// Launch: 256 threads a block, one block for each `planes_per_block` planes, and planes_per_block*H*W*sizeof(T)
// bytes of shared memory, which must be at most 48 KB (planes of 110 x 110 in float). Take enough small planes to
// give every thread an output: planes_per_block = 256 / (P*Q), at least 1. AlexNet's planes are 55 x 55, 27 x 27
// and 13 x 13.
template <typename T>
__global__ void max_pool_planes(
    const T* __restrict__ x, T* __restrict__ y, int* __restrict__ winner,
    int planes, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h,
    int planes_per_block)
{
    extern __shared__ __align__(8) float memory[];  // of no type T, since one name can have one type only
    T* pixels = reinterpret_cast<T*>(memory);       // (planes_per_block, H, W)

    int first = blockIdx.x * planes_per_block;
    int count = min(planes_per_block, planes - first);  // the last block may have fewer

    // Planes lie one after another, and so do their outputs: both are walked as one stretch of memory.
    const T* source = x + (long long)first * H * W;
    for (int j = threadIdx.x; j < count * H * W; j += blockDim.x) pixels[j] = source[j];
    __syncthreads();  // every pixel must be there before a window is looked at

    long long start = (long long)first * P * Q;
    for (int j = threadIdx.x; j < count * P * Q; j += blockDim.x) {
        int plane = j / (P * Q);
        int place = j % (P * Q);
        int p = place / Q, q = place % Q;

        T maximum;
        int tap;
        find_maximum(pixels + plane * H * W, p, q, H, W, R, S,
                     stride_v, stride_h, pad_v, pad_h, dilation_v, dilation_h, maximum, tap);
        y[start + j] = maximum;
        winner[start + j] = tap;
    }
}

// The gradients are gathers: a thread owns a pixel and asks each window that saw it whether it won there. Two
// threads never add to one number, so no atomics, and the sum has the same order in every run: tap by tap as in the
// NumPy backend.

// gy, winner (N, C, P, Q)  ->  gx (N, C, H, W): each pixel receives the gradient of every window that it won.
// Launch: 256 threads a block, planes*H*W threads, one for each pixel. No shared memory.
template <typename T>
__global__ void max_pool_gradient(
    const T* __restrict__ gy, const int* __restrict__ winner, T* __restrict__ gx,
    int planes, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)planes * H * W;
    if (i >= total) return;

    // Which pixel of which plane is thread i's?
    long long plane = i / (H * W);
    int pixel = i % (H * W);
    int h = pixel / W, w = pixel % W;

    const T* gradients = gy + plane * P * Q;
    const int* winners = winner + plane * P * Q;
    int last_p = min(P - 1, (h + pad_v) / stride_v);  // the last window that starts at h or before it
    int last_q = min(Q - 1, (w + pad_h) / stride_h);

    Wide<T> sum = 0;
    for (int p = last_p; p >= 0; p--) {
        int down = h + pad_v - p * stride_v;
        if (down > (R - 1) * dilation_v) break;  // this window ends above h, and so do all before it
        int r = tap_at(down, dilation_v);
        if (r < 0) continue;
        for (int q = last_q; q >= 0; q--) {
            int right = w + pad_h - q * stride_h;
            if (right > (S - 1) * dilation_h) break;
            int s = tap_at(right, dilation_h);
            if (s < 0) continue;
            if (winners[p * Q + q] == r * S + s) sum += gradients[p * Q + q];
        }
    }
    gx[i] = sum;
}

// gy, y (N, C, P, Q) and x (N, C, H, W)  ->  gx (N, C, H, W): each pixel receives the gradient of every window whose
// maximum it equals. A NaN equals nothing, itself included, and receives 0.
// Launch: 256 threads a block, planes*H*W threads, one for each pixel. No shared memory.
template <typename T>
__global__ void max_pool_gradient_to_ties(
    const T* __restrict__ gy, const T* __restrict__ x, const T* __restrict__ y, T* __restrict__ gx,
    int planes, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)planes * H * W;
    if (i >= total) return;

    long long plane = i / (H * W);
    int pixel = i % (H * W);
    int h = pixel / W, w = pixel % W;

    const T* gradients = gy + plane * P * Q;
    const T* maxima = y + plane * P * Q;
    T value = x[i];
    int last_p = min(P - 1, (h + pad_v) / stride_v);
    int last_q = min(Q - 1, (w + pad_h) / stride_h);

    Wide<T> sum = 0;
    for (int p = last_p; p >= 0; p--) {
        int down = h + pad_v - p * stride_v;
        if (down > (R - 1) * dilation_v) break;
        if (tap_at(down, dilation_v) < 0) continue;
        for (int q = last_q; q >= 0; q--) {
            int right = w + pad_h - q * stride_h;
            if (right > (S - 1) * dilation_h) break;
            if (tap_at(right, dilation_h) < 0) continue;
            if (value == maxima[p * Q + q]) sum += gradients[p * Q + q];
        }
    }
    gx[i] = sum;
}
