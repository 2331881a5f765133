// col2im: add every entry of the columns to the pixel that im2col read it from. The gradient of im2col.
//
//     columns (N, C*R*S, P*Q)  ->  x (N, C, H, W)
//     x[n, c, h, w] = sum of columns[n, (c*R + r)*S + s, p*Q + q] over all r, s, p, q with
//         h = p*stride_v - pad_v + r*dilation_v   and   w = q*stride_h - pad_h + s*dilation_h
//
// N images, C channels, H x W pixels, R x S taps of the window, P x Q places where it stands; _v is vertical, _h is
// horizontal. It is im2col's adjoint, <im2col(x), c> = <x, col2im(c)>, and not its inverse: a pixel that several
// windows see receives their sum, one that no window sees receives 0.
//
// A gather. The formula reads like a scatter: for each entry, add it to its pixel. Then two threads may add to one
// pixel at the same time, and either one addition is lost or they need atomics, whose order changes from run to run
// and with it the rounding. So each thread owns a pixel and looks for the windows that saw it. It adds them tap by
// tap, (r, s) in scan order, which is the order of the NumPy backend: the sums agree to the last bit.
//
// image_step and row_step: the layout of the columns, see im2col.cu.
// Launch: 256 threads a block, N*C*H*W threads, one for each pixel. No shared memory.
// Bound by memory: each entry read once, each pixel written once (4 bytes each in float).
// Source: the adjoint of Chellapilla, Puri and Simard 2006, section 2; a gather as in Caffe's col2im.

#include "bfloat16.cuh"
#include "window.cuh"

template <typename T>
__global__ void col2im(
    const T* __restrict__ columns, T* __restrict__ x,
    int N, int C, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h,
    long long image_step, long long row_step)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)N * C * H * W;
    if (i >= total) return;

    // Which pixel of which channel of which image is thread i's?
    int pixel = i % (H * W);
    long long plane = i / (H * W);
    int h = pixel / W, w = pixel % W;
    int n = plane / C, c = plane % C;

    const T* channel = columns + n * image_step + (long long)c * R * S * row_step;
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
            sum += channel[(r * S + s) * row_step + p * Q + q];
        }
    }
    x[i] = sum;
}
