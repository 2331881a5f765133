// im2col: write out every patch that a convolution's window sees as one column, so that the convolution becomes a
// matrix product, filters (F, C*R*S) times columns (C*R*S, P*Q).
//
//     x (N, C, H, W)  ->  columns (N, C*R*S, P*Q)
//     columns[n, (c*R + r)*S + s, p*Q + q] = x[n, c, h, w]      or 0 where (h, w) lies outside the image
//     h = p*stride_v - pad_v + r*dilation_v,   w = q*stride_h - pad_h + s*dilation_h
//
// N images, C channels, H x W pixels, R x S taps of the window, P x Q places where it stands; _v is vertical, _h is
// horizontal. Nothing is computed, so the result is exact.
//
// Layout. image_step and row_step say how far apart in memory the next image and the next row of a column lie:
//     (N, C*R*S, P*Q)   image_step = C*R*S*P*Q,  row_step = P*Q       one matrix for each image
//     (C*R*S, N, P*Q)   image_step = P*Q,        row_step = N*P*Q     one wide matrix for the whole batch
//
// Launch: 256 threads a block, N*C*P*Q threads. A thread copies the R*S pixels that one window sees in one channel,
// and so divides once to find its place and not once for each pixel. No shared memory.
// Threads that stand side by side write side by side. They read pixels `stride_h` apart and read each of them
// several times, but those are in the first-level cache by then.
// Bound by memory: each entry written once (4 bytes in float), each pixel read once from far away. At AlexNet's
// conv2 an image of 0.28 MB becomes 7 MB of columns: this copy is what a convolution by im2col costs beyond its
// arithmetic. Source: Chellapilla, Puri and Simard 2006, section 2; a thread for each window and channel as in
// Caffe's im2col.cu.

#include "bfloat16.cuh"

template <typename T>
__global__ void im2col(
    const T* __restrict__ x, T* __restrict__ columns,
    int N, int C, int H, int W, int R, int S, int P, int Q,
    int stride_v, int stride_h, int pad_v, int pad_h, int dilation_v, int dilation_h,
    long long image_step, long long row_step)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long total = (long long)N * C * P * Q;
    if (i >= total) return;

    // Which window of which channel of which image is thread i's?
    int place = i % (P * Q);
    long long plane = i / (P * Q);
    int p = place / Q, q = place % Q;
    int n = plane / C, c = plane % C;

    const T* image = x + plane * H * W;
    T* column = columns + n * image_step + (long long)c * R * S * row_step + place;

    for (int r = 0; r < R; r++) {
        int h = p * stride_v - pad_v + r * dilation_v;
        for (int s = 0; s < S; s++) {
            int w = q * stride_h - pad_h + s * dilation_h;
            bool inside = h >= 0 && h < H && w >= 0 && w < W;
            *column = inside ? image[h * W + w] : T(0);
            column += row_step;  // the next tap is the next row
        }
    }
}
