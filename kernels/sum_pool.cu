// The sum of each window, and its gradient: average pooling is this and a division, which the caller makes, since
// only it knows which pixels count.
//
//     x (N, C, H, W)  ->  y (N, C, P, Q)
//     y[n, c, p, q] = sum over r, s of x[n, c, h, w]      padding counts as zeros
//     h = p*stride_v - pad_v + r*dilation_v,   w = q*stride_h - pad_h + s*dilation_h
//
// N images, C channels, H x W pixels, R x S taps of the window, P x Q windows; _v is vertical, _h is horizontal.
// Every channel of every image is pooled alone, so the kernels only know `planes` = N*C planes of H x W pixels.
// Sums are taken tap by tap, (r, s) in scan order, as in the NumPy backend: they agree to the last bit.
//
// The kernels in this file: sum_pool and sum_pool_gradient, one plain version each.
//
// Bound by memory: each pixel and each output is touched once (4 bytes each in float); where windows overlap, the
// first-level cache answers all reads of a number but the first.
// Source: LeCun et al. 1998, section II.B (sub-sampling); the gradient as a gather as in Caffe's pooling_layer.cu.

#include "bfloat16.cuh"
#include "window.cuh"

// Launch: 256 threads a block, planes*P*Q threads, one for each output. No shared memory.
template <typename T>
__global__ void sum_pool(
    const T* __restrict__ x, T* __restrict__ y,
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
    const T* pixels = x + plane * H * W;

    Wide<T> sum = 0;
    for (int r = 0; r < R; r++) {
        int h = p * stride_v - pad_v + r * dilation_v;
        if (h < 0 || h >= H) continue;
        for (int s = 0; s < S; s++) {
            int w = q * stride_h - pad_h + s * dilation_h;
            if (w < 0 || w >= W) continue;
            sum += pixels[h * W + w];
        }
    }
    y[i] = sum;
}

// The gradient: every pixel of a window receives the window's gradient, so a pixel receives the sum over the
// windows that saw it. A gather: a thread owns a pixel and looks for those windows. Two threads never add to one
// number, so no atomics.

// gy (N, C, P, Q)  ->  gx (N, C, H, W).
// Launch: 256 threads a block, planes*H*W threads, one for each pixel. No shared memory.
template <typename T>
__global__ void sum_pool_gradient(
    const T* __restrict__ gy, T* __restrict__ gx,
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
    int last_p = min(P - 1, (h + pad_v) / stride_v);  // the last window that starts at h or before it
    int last_q = min(Q - 1, (w + pad_h) / stride_h);

    Wide<T> sum = 0;
    for (int p = last_p; p >= 0; p--) {
        int down = h + pad_v - p * stride_v;
        if (down > (R - 1) * dilation_v) break;  // this window ends above h, and so do all before it
        if (tap_at(down, dilation_v) < 0) continue;
        for (int q = last_q; q >= 0; q--) {
            int right = w + pad_h - q * stride_h;
            if (right > (S - 1) * dilation_h) break;
            if (tap_at(right, dilation_h) < 0) continue;
            sum += gradients[p * Q + q];
        }
    }
    gx[i] = sum;
}
