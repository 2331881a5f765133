// Vector addition, the first kernel of every course: one thread adds one pair of numbers.
//
//     sum[i] = a[i] + b[i],   i = 0 ... n - 1
//
// Launch: 256 threads a block, as many blocks as it takes, so the last block may have threads too many: they must stop.
// Bound: memory, 12 bytes for one addition (in float).

template <typename T>
__global__ void vector_add(const T* __restrict__ a, const T* __restrict__ b, T* __restrict__ sum, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;  // which of all threads am I?
    if (i >= n) return;
    sum[i] = a[i] + b[i];
}
