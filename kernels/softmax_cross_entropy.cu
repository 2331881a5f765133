// Softmax and cross entropy in one: how surprised is the softmax of the scores at the label, and the gradient of that.
//
//     p[n, j] = exp(x[n, j]) / sum of exp(x[n, i]) over i
//     loss[n] = -log p[n, label[n]]
//     gx[n, j] = slope * (p[n, j] - (1 if j == label[n] else 0))
//
// x (scores), gx: (N, K), K classes. label: (N,) of int64. loss: (N,). `slope` is what one row's loss counts in the
// whole: 1 for their sum, 1 / N for their mean. Softmax and logarithm are done together because the gradient is then
// simply "probability minus truth"; apart, the logarithm would also meet probabilities that had rounded to 0.
//
// The largest score is subtracted first: p stays what it is, no exponential overflows, and one of them is 1, so the
// sum is never 0. A row whose label is ignore_index does not count: its loss is 0, and its gradient 0 times p. A label
// that is no class gives NaN in both: a kernel cannot raise an error, and nothing outside the arrays is read.
//
// Launch: 256 threads a block; a warp of 32 threads for one row, N * 32 threads.
// Bound: reading x and writing gx, 8 bytes a score in float; the row is read three times, but comes from a cache
// after the first. For 128 rows of 1000 it is the launch that takes the time.
// Source: AlexNet, section 3.5 (the loss); the rest is calculus.

#include "warp.cuh"

// The largest score of a row and the sum of exp(score - largest), to all lanes; each lane takes every 32nd score.
template <typename T>
__device__ inline void largest_and_sum(const T* row, int K, int lane, T* largest, T* sum) {
    T value = K > 0 ? row[0] : T(0);  // lanes beyond a short row have to start somewhere
    for (int j = lane; j < K; j += WARP) {
        value = row[j] > value ? row[j] : value;
    }
    *largest = warp_max(value);

    T total = 0;
    for (int j = lane; j < K; j += WARP) {
        total += exp(row[j] - *largest);
    }
    *sum = warp_sum(total);
}

template <typename T>
__global__ void softmax_cross_entropy(
    const T* __restrict__ x,
    const long long* __restrict__ label,
    T* __restrict__ loss,
    T* __restrict__ gx,
    int N,
    int K,
    long long ignore_index,
    T slope
) {
    long long n = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;
    if (n >= N) return;  // for all lanes of a warp or for none: a shuffle needs all of them

    const T* row = x + n * K;
    T* gradient = gx + n * K;
    long long truth = label[n];
    bool counts = truth != ignore_index;
    bool is_class = 0 <= truth && truth < K;

    T largest, sum;
    largest_and_sum(row, K, lane, &largest, &sum);
    T weight = !counts ? T(0) : is_class ? slope : T(nan(""));
    for (int j = lane; j < K; j += WARP) {
        T p = exp(row[j] - largest) / sum;
        gradient[j] = weight * (p - (j == truth ? T(1) : T(0)));
    }
    if (lane == 0) loss[n] = !counts ? T(0) : is_class ? log(sum) - (row[truth] - largest) : T(nan(""));
}
