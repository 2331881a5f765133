// Matrix product: A (rows, inner) times B (inner, columns) gives Y (rows, columns), all row by row in memory.
//
//     Y[i, j] = sum over k of  A[i, k] * B[k, j]
//
// Here to learn from: training leaves its matrix products to cuBLAS, NVIDIA's own library, which is many times faster.
//
// Versions, equal to the last bit, because both add the same products in the same order:
//     matmul          one thread per element of Y, straight from the formula.
//                     Launch: 256 threads a block, as many blocks as rows * columns / 256, rounded up.
//     matmul_tiled    one block of 16 x 16 threads per tile of 16 x 16 elements of Y.
//                     Launch: blockDim (16, 16), grid (columns / 16, rows / 16), rounded up; at most 1,048,560 rows.
//
// What bounds it: every multiplication needs two numbers. `matmul` fetches both from memory (or its cache) each time;
// `matmul_tiled` fetches a number once for the 16 threads that need it, so 1/16 of that. Libraries go on in the same
// spirit: every thread keeps a small tile of its own in registers, and tensor cores multiply tiles at once.
//
// Source: CUDA C++ Programming Guide, "Shared Memory", has both.

template <typename T>
__global__ void matmul(const T* __restrict__ A, const T* __restrict__ B, T* __restrict__ Y, int rows, int inner,
                       int columns)
{
    long long element = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (element >= (long long)rows * columns) return;
    long long i = element / columns;
    long long j = element % columns;

    T sum = 0;
    for (int k = 0; k < inner; k++) sum += A[i * inner + k] * B[(long long)k * columns + j];
    Y[element] = sum;
}

const int TILE = 16;

// The block walks along k, 16 steps at a time. Each time its threads together copy one tile of A and one of B into
// shared memory, one element each; then every thread multiplies its row of the one with its column of the other.
template <typename T>
__global__ void matmul_tiled(const T* __restrict__ A, const T* __restrict__ B, T* __restrict__ Y, int rows, int inner,
                             int columns)
{
    __shared__ T tile_of_A[TILE][TILE];
    __shared__ T tile_of_B[TILE][TILE];
    int down = threadIdx.y;
    int right = threadIdx.x;  // neighbouring threads read neighbouring addresses
    long long i = (long long)blockIdx.y * TILE + down;
    long long j = (long long)blockIdx.x * TILE + right;

    T sum = 0;
    for (int start = 0; start < inner; start += TILE) {
        // What lies beyond an edge counts as 0, in both tiles: 0 * 0 adds nothing, not even next to an infinity.
        int k_of_A = start + right;
        int k_of_B = start + down;
        tile_of_A[down][right] = i < rows && k_of_A < inner ? A[i * inner + k_of_A] : T(0);
        tile_of_B[down][right] = k_of_B < inner && j < columns ? B[(long long)k_of_B * columns + j] : T(0);
        __syncthreads();  // both tiles are complete before anyone reads them

        for (int k = 0; k < TILE; k++) sum += tile_of_A[down][k] * tile_of_B[k][right];
        __syncthreads();  // everyone has read them before the next two overwrite them
    }
    // Threads beyond the edges have helped to copy until here, so only now may they leave.
    if (i < rows && j < columns) Y[i * columns + j] = sum;
}
