// Batch normalisation: every channel gets mean 0 and variance 1 over the batch, then is scaled and shifted.
//
// x (N, C, H, W), or (N, C) with H * W = 1. mean and var are those of a channel's n = N * H * W values:
//
//     forward      spread = sqrt(var + eps)      z = (x - mean) / spread      y = z * weight + bias
//     backward     grad_bias = sum of gy         grad_weight = sum of gy * z
//                  gx = weight / spread * (gy - grad_bias / n - z * grad_weight / n)
//
// The two subtracted terms are there because mean and var move with x: they take out what a shift and a stretch of the
// whole channel would do. Outside training mean and var are fixed, and the terms are 0.
//
// Why not var = (mean of x^2) - mean^2, which needs only one look at x? Where the mean is large and the spread small,
// two nearly equal numbers are subtracted, and nothing but rounding is left. Here the mean comes first and then the
// squared distances from it. Not over the whole channel at once: its values are spread over N images. So a block takes
// one *row*, the H * W pixels of one channel of one image, and finds the row's own mean and squared distances (the
// second look at the row comes from the cache). Then, exactly, and summing squares of small numbers only,
//
//     mean of the channel = mean of the rows' means
//     squared distances   = sum of the rows' + H * W * squared distances of the rows' means from the channel's mean
//
// (Chan, Golub and LeVeque, 1979.) Both are kept in double.
//
// Launch: blocks of a power of two of at most 256 threads. The kernels in order; `pixels` is H * W:
//     batch_norm_rows                 N * C blocks    mean and squared distances of each row
//     batch_norm_statistics           C blocks        mean, var (biased) and spread of each channel
//     batch_norm                      N * C blocks    y
//     batch_norm_backward_rows        N * C blocks    sums of gy and of gy * z for each row
//     batch_norm_backward_channels    C blocks        grad_bias, grad_weight, and both divided by n
//     batch_norm_backward             N * C blocks    gx
//
// What bounds it: memory. Forward reads x twice and writes y, 12 bytes per element in float; backward reads gy and x
// twice each and writes gx, 20 bytes. z is computed again where it is needed: that costs less than storing it.
//
// Source: Ioffe and Szegedy, 2015, section 3.1 (forward and backward).

#include "block_sum.cuh"

// z of one value. The mean is subtracted in two parts, first what T can hold of it and then its remaining digits.
template <typename T>
__device__ T standardised(T x, double mean, T spread)
{
    T rounded = (T)mean;
    T rest = (T)(mean - rounded);
    return ((x - rounded) - rest) / spread;
}

// ---- forward --------------------------------------------------------------------------------------------------------

template <typename T>
__global__ void batch_norm_rows(const T* __restrict__ x, double* __restrict__ row_means,
                                double* __restrict__ row_squares, int pixels)
{
    const T* row = x + blockIdx.x * (long long)pixels;

    double sum = 0;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) sum += row[i];
    double mean = block_sum(sum) / pixels;

    double squares = 0;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) squares += (row[i] - mean) * (row[i] - mean);
    squares = block_sum(squares);

    if (threadIdx.x == 0) {
        row_means[blockIdx.x] = mean;
        row_squares[blockIdx.x] = squares;
    }
}

// row_means, row_squares (N, C) -> mean, var, spread (C,)
template <typename T>
__global__ void batch_norm_statistics(const double* __restrict__ row_means, const double* __restrict__ row_squares,
                                      double* __restrict__ mean, double* __restrict__ var, T* __restrict__ spread,
                                      int N, int C, int pixels, double eps)
{
    int c = blockIdx.x;

    double sum = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) sum += row_means[(long long)n * C + c];
    double centre = block_sum(sum) / N;  // all rows are equally long

    double squares = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        long long row = (long long)n * C + c;
        double distance = row_means[row] - centre;
        squares += row_squares[row] + pixels * distance * distance;
    }
    squares = block_sum(squares);

    if (threadIdx.x == 0) {
        mean[c] = centre;
        var[c] = squares / ((double)N * pixels);
        spread[c] = (T)sqrt(var[c] + eps);
    }
}

// In training with the batch's mean and spread, otherwise with the running ones.
template <typename T>
__global__ void batch_norm(const T* __restrict__ x, const double* __restrict__ mean, const T* __restrict__ spread,
                           const T* __restrict__ weight, const T* __restrict__ bias, T* __restrict__ y, int C,
                           int pixels)
{
    int c = blockIdx.x % C;
    long long start = blockIdx.x * (long long)pixels;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) {
        y[start + i] = standardised(x[start + i], mean[c], spread[c]) * weight[c] + bias[c];
    }
}

// ---- backward -------------------------------------------------------------------------------------------------------

template <typename T>
__global__ void batch_norm_backward_rows(const T* __restrict__ gy, const T* __restrict__ x,
                                         const double* __restrict__ mean, const T* __restrict__ spread,
                                         double* __restrict__ row_gy, double* __restrict__ row_gy_z, int C, int pixels)
{
    int c = blockIdx.x % C;
    long long start = blockIdx.x * (long long)pixels;

    double sum_gy = 0;
    double sum_gy_z = 0;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) {
        double g = gy[start + i];
        sum_gy += g;
        sum_gy_z += g * standardised(x[start + i], mean[c], spread[c]);
    }
    sum_gy = block_sum(sum_gy);
    sum_gy_z = block_sum(sum_gy_z);

    if (threadIdx.x == 0) {
        row_gy[blockIdx.x] = sum_gy;
        row_gy_z[blockIdx.x] = sum_gy_z;
    }
}

// row_gy, row_gy_z (N, C) -> grad_bias, grad_weight and their shares per value, mean_gy, mean_gy_z (C,)
template <typename T>
__global__ void batch_norm_backward_channels(const double* __restrict__ row_gy, const double* __restrict__ row_gy_z,
                                             T* __restrict__ grad_bias, T* __restrict__ grad_weight,
                                             T* __restrict__ mean_gy, T* __restrict__ mean_gy_z, int N, int C,
                                             int pixels)
{
    int c = blockIdx.x;

    double sum_gy = 0;
    double sum_gy_z = 0;
    for (int n = threadIdx.x; n < N; n += blockDim.x) {
        sum_gy += row_gy[(long long)n * C + c];
        sum_gy_z += row_gy_z[(long long)n * C + c];
    }
    sum_gy = block_sum(sum_gy);
    sum_gy_z = block_sum(sum_gy_z);

    if (threadIdx.x == 0) {
        double values = (double)N * pixels;
        grad_bias[c] = (T)sum_gy;
        grad_weight[c] = (T)sum_gy_z;
        mean_gy[c] = (T)(sum_gy / values);
        mean_gy_z[c] = (T)(sum_gy_z / values);
    }
}

// Outside training mean_gy and mean_gy_z are zeros.
template <typename T>
__global__ void batch_norm_backward(const T* __restrict__ gy, const T* __restrict__ x, const double* __restrict__ mean,
                                    const T* __restrict__ spread, const T* __restrict__ weight,
                                    const T* __restrict__ mean_gy, const T* __restrict__ mean_gy_z, T* __restrict__ gx,
                                    int C, int pixels)
{
    int c = blockIdx.x % C;
    long long start = blockIdx.x * (long long)pixels;
    for (int i = threadIdx.x; i < pixels; i += blockDim.x) {
        T z = standardised(x[start + i], mean[c], spread[c]);
        gx[start + i] = (gy[start + i] - mean_gy[c] - z * mean_gy_z[c]) * weight[c] / spread[c];
    }
}
