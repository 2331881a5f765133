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

// What looks strange, here and in the other kernels:
//     __restrict__            promises that what is written through one pointer is not read through another.
//     (long long)blockDim.x   makes the product one of 64 bits: from 2^31 elements on an int would overflow.
//     #pragma unroll          has a loop of known length written out, with no counter and no jump.
//     T(0)                    0 as a T: in `b ? T(0) : x` both must be of one type, and a bare 0 is an int.
