// Mistakes that a GPU does not report: run one of these and see what is said of it.
//
//     python -m minitorch_alex.cuda_on_cpu mistakes                         all, one after another
//     python -m minitorch_alex.cuda_on_cpu mistakes:missing_barrier         run one
//     python -m minitorch_alex.cuda_on_cpu mistakes:lost_update --race      some show only to the race checker
//
// Each kernel says in its comment what is wrong with it. N is the number of elements, and of threads.

const int N = 64;

// -- too far -------------------------------------------------------------------------------------------------------
// The threads that are too many must be kept from reading and writing: i < n, and here it says <=.
template <typename T>
__global__ void one_past_the_end(const T* x, T* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i <= n) y[i] = x[i];
}

// The left neighbour of element 0 does not exist. It is only read, so nothing crashes; the sum is wrong.
template <typename T>
__global__ void one_before_the_start(const T* x, T* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = x[i - 1] + x[i];
}

// The right neighbour of the last thread lies outside of the shared array.
template <typename T>
__global__ void outside_of_shared_memory(const T* x, T* y) {
    __shared__ T line[N];
    line[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = line[threadIdx.x + 1];
}

// -- too early -----------------------------------------------------------------------------------------------------
// Each thread reads what another one writes, and nothing makes it wait for that.
template <typename T>
__global__ void missing_barrier(const T* x, T* y) {
    __shared__ T line[N];
    line[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = line[N - 1 - threadIdx.x];
}

// The barrier is there, but when the loop comes round, a quick thread overwrites what a slow one has still to read.
template <typename T>
__global__ void missing_barrier_in_a_loop(const T* x, T* y, int rows) {
    __shared__ T line[N];
    for (int row = 0; row < rows; ++row) {
        line[threadIdx.x] = x[row * N + threadIdx.x];
        __syncthreads();
        y[row * N + threadIdx.x] = line[N - 1 - threadIdx.x];
    }
}

// The 32 threads of a warp once ran in step, and old code relies on it. Since 2017 they need a __syncwarp.
template <typename T>
__global__ void missing_syncwarp(const T* x, T* y) {
    __shared__ T line[32];
    line[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = line[31 - threadIdx.x];
}

// Half of the array is never filled: shared memory holds what some earlier kernel left there.
template <typename T>
__global__ void unwritten_memory(const T* x, T* y) {
    __shared__ T line[N];
    if (threadIdx.x < N / 2) line[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    y[threadIdx.x] = line[N - 1 - threadIdx.x];
}

// -- at the same time ----------------------------------------------------------------------------------------------
// Read, add, write: between a thread's read and its write another thread's sum gets lost.
template <typename T>
__global__ void lost_update(const T* x, T* sum) {
    sum[0] += x[threadIdx.x];
}

// The same between blocks, where no barrier can help: each block adds its part to one sum.
template <typename T>
__global__ void lost_update_between_blocks(const T* x, T* sum, int n) {
    if (threadIdx.x != 0) return;
    for (int i = 0; i < n; ++i) sum[0] += x[blockIdx.x * n + i];
}

// Scattering: two threads have the same target. (An atomicAdd is no race, but its rounding changes from run to run.)
template <typename T>
__global__ void scatter(const T* x, const int* target, T* y) {
    y[target[threadIdx.x]] += x[threadIdx.x];
}

// -- for ever ------------------------------------------------------------------------------------------------------
// One barrier for some threads, another one for the others: a barrier is one place, where all must come.
template <typename T>
__global__ void different_barriers(T* y) {
    if (threadIdx.x < 16) {
        y[threadIdx.x] = 1;
        __syncthreads();
    } else {
        y[threadIdx.x] = 2;
        __syncthreads();
    }
}

// Lane 0 waits for its warp, the rest of the warp waits for the block: neither comes.
template <typename T>
__global__ void deadlock(T* y) {
    if (threadIdx.x == 0) __syncwarp();
    else __syncthreads();
    y[threadIdx.x] = 1;
}

// The last lanes have left, so nobody has the value that the others ask for.
template <typename T>
__global__ void shuffle_from_nobody(const T* x, T* y, int n) {
    if (threadIdx.x >= n) return;
    y[threadIdx.x] = __shfl_down_sync(0xffffffff, x[threadIdx.x], 1);
}

// -- crooked -------------------------------------------------------------------------------------------------------
// A float4 must begin at a multiple of 16 bytes; x + 1 is 4 bytes after one.
__global__ void misaligned(const float* x, float* y) {
    float4 four = *(const float4*)(x + 1);
    y[threadIdx.x] = four.x + four.y + four.z + four.w;
}
