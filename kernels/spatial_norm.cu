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

// scale^-beta. For the paper's 3/4 two square roots do, which cost far less than a power.
template <typename T>
__device__ inline T shrink(T scale, T beta) {
    if (beta == T(0.75)) {
        T root = sqrt(scale);
        return 1 / (root * sqrt(root));
    }
    return pow(scale, -beta);
}

template <typename T>
__global__ void spatial_norm(
    const T* __restrict__ x,
    T* __restrict__ y,
    T* __restrict__ scale,
    int H,
    int W,
    long long total,
    int size,
    T alpha,
    T beta,
    T k
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int w = (int)(i % W);
    int h = (int)(i / W % H);
    int before = size / 2;
    int after = (size - 1) / 2;

    T sum = 0;
    for (int row = max(h - before, 0); row <= min(h + after, H - 1); ++row) {
        for (int column = max(w - before, 0); column <= min(w + after, W - 1); ++column) {
            T value = x[i + (row - h) * (long long)W + (column - w)];
            sum += value * value;
        }
    }
    T s = k + alpha / ((T)size * size) * sum;
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
    T alpha,
    T beta
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;
    int w = (int)(i % W);
    int h = (int)(i / W % H);
    int before = (size - 1) / 2;  // the mirrored window
    int after = size / 2;

    T seen_by = 0;
    for (int row = max(h - before, 0); row <= min(h + after, H - 1); ++row) {
        for (int column = max(w - before, 0); column <= min(w + after, W - 1); ++column) {
            long long at = i + (row - h) * (long long)W + (column - w);
            T direct = gy[at] * shrink(scale[at], beta);
            seen_by += direct * x[at] / scale[at];
        }
    }
    T direct = gy[i] * shrink(scale[i], beta);
    gx[i] = direct - 2 * alpha / ((T)size * size) * beta * x[i] * seen_by;
}
