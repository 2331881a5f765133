// Spatial response normalisation: divide every pixel by the energy around it in its own channel. lrn.cu looks at the
// same pixel in other channels; this is its sibling in alexnet_2012.
//
//     scale[h, w] = k + alpha / size^2 * sum of x[i, j]^2 over i = h-before ... h+after and j = w-before ... w+after
//     y[h, w] = x[h, w] * scale[h, w]^-beta
//
//     before = size // 2, after = (size - 1) // 2; pixels outside the image count as 0
//
// x, y, scale: (N, C, H, W); every one of the N * C images is on its own.
//
// Backward, from gy = dL/dy, as in lrn.cu with the window mirrored along both axes:
//
//     gx[h, w] = gy[h, w] * scale[h, w]^-beta
//              - 2 * alpha / size^2 * beta * x[h, w] * sum of share[i, j] over the pixels whose windows reach (h, w)
//     share[i, j] = gy[i, j] * x[i, j] * scale[i, j]^(-beta - 1)
//
// Versions: spatial_norm and spatial_norm_gradient, plain, one thread for one element.
//
// Launch: 256 threads a block, N*C*H*W threads.
// Bound: forward 12 and backward 16 bytes an element in float, the rest of the window coming from a cache; backward is
// nearer to being bound by arithmetic, size^2 times two square roots and two divisions an element.
// Source: "rnorm" of cuda-convnet, used by the network behind the paper's numbers and not mentioned in the paper.

#include "bfloat16.cuh"
#include "shrink.cuh"

template <typename T>
__global__ void spatial_norm(
    const T* __restrict__ x,
    T* __restrict__ y,
    T* __restrict__ scale,
    int H,
    int W,
    long long total,
    int size,
    Wide<T> alpha,
    Wide<T> beta,
    Wide<T> k
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int w = (int)(i % W);
    int h = (int)(i / W % H);
    int before = size / 2;
    int after = (size - 1) / 2;

    Wide<T> sum = 0;
    for (int row = max(h - before, 0); row <= min(h + after, H - 1); ++row) {
        for (int column = max(w - before, 0); column <= min(w + after, W - 1); ++column) {
            Wide<T> value = x[i + (row - h) * (long long)W + (column - w)];
            sum += value * value;
        }
    }
    Wide<T> s = k + alpha / (Wide<T>(size) * size) * sum;
    scale[i] = s;
    y[i] = x[i] * shrink(s, beta);
}

template <typename T>
__global__ void spatial_norm_gradient(
    const T* __restrict__ gy,
    const T* __restrict__ x,
    const T* __restrict__ scale,
    T* __restrict__ gx,
    int H,
    int W,
    long long total,
    int size,
    Wide<T> alpha,
    Wide<T> beta
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int w = (int)(i % W);
    int h = (int)(i / W % H);
    int before = (size - 1) / 2;  // the mirrored window
    int after = size / 2;

    Wide<T> seen_by = 0;
    for (int row = max(h - before, 0); row <= min(h + after, H - 1); ++row) {
        for (int column = max(w - before, 0); column <= min(w + after, W - 1); ++column) {
            long long at = i + (row - h) * (long long)W + (column - w);
            Wide<T> s = scale[at];
            Wide<T> direct = gy[at] * shrink(s, beta);
            seen_by += direct * x[at] / s;
        }
    }
    Wide<T> s = scale[i];
    Wide<T> direct = gy[i] * shrink(s, beta);
    gx[i] = direct - 2 * alpha / (Wide<T>(size) * size) * beta * x[i] * seen_by;
}
