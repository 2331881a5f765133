// A sum over all threads of a block, by a tree in shared memory, always in the same order.
//
// Source: Mark Harris, "Optimizing Parallel Reduction in CUDA".

const int MOST_THREADS = 256;  // in a block

// The sum of `value` over the threads of the block, the same in all of them. All must call it, and their number is a
// power of two.
__device__ inline double block_sum(double value) {
    __shared__ double buffer[MOST_THREADS];
    int thread = threadIdx.x;
    buffer[thread] = value;
    __syncthreads();
    // 256 numbers become 128, 64, ... 1: the lower half adds the upper half to itself.
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        if (thread < half) buffer[thread] += buffer[thread + half];
        __syncthreads();
    }
    double sum = buffer[0];
    __syncthreads();  // everyone has read it before the next call overwrites it
    return sum;
}
