// Sums: of each row of a matrix, of each column, of everything, and of each channel of a batch of images.
//
//     rows        x (rows, columns)  ->  (rows,)
//     columns     x (rows, columns)  ->  (columns,)           the bias gradient of a linear layer
//     channels    x (N, C, H, W)     ->  (C,)                 the bias gradient of a convolution
//     everything  x of any shape     ->  one number
//
// Two stages. Many threads first add up a part each and leave a partial sum; a second launch adds the partial sums.
// Threads could instead add to one total by atomic operations, but in an order that changes from run to run, and with
// it the rounding: the same training would not give the same bits twice. Here the order is fixed by the shapes (in
// row_sums_fast also by where x starts, to 16 bytes; whole arrays start at a multiple of 256).
//
// Sums are kept in double, whatever T is: with a million terms, float would lose three of its seven digits.
//
// First stage, T -> double:
//     row_sums        one block per piece of a row, a tree in shared memory.
//                     Launch: rows * pieces blocks of a power of two of at most 256 threads. partials (rows, pieces)
//     row_sums_fast   the same result (to the rounding of a double) by one warp, 32 threads, per piece of a row:
//                     16 bytes a load, no shared memory and no barrier.
//                     Launch: 256 threads a block, rows * pieces / 8 blocks, rounded up.     partials (rows, pieces)
//     column_sums     one thread per piece of a column.
//                     Launch: 256 threads a block, columns * pieces / 256 blocks, as above.  partials (pieces, columns)
// Second stage, double -> T:
//     add_partials    partials (N, C, pieces) -> sums (C,), one block per sum.
//                     Launch: C blocks of a power of two of at most 256 threads.
//
// So (N, C, pieces) for the second stage is (1, rows, pieces) after row sums, (pieces, columns, 1) after column sums,
// (N, C, pieces) for channels, whose first stage has N * C rows of H * W columns, and (1, 1, pieces) for everything,
// which is one long row. Few long rows want many pieces, or most of the GPU stands idle: 1,000 warps are not too many.
//
// What bounds it: memory, 4 bytes per element (8 in double); one addition each is nothing.
// Source: Mark Harris, "Optimizing Parallel Reduction in CUDA" (two stages, and the tree of block_sum.cuh). For the
// shuffle see warp.cuh.

#include "block_sum.cuh"
#include "warp.cuh"

// Rows are cut into `pieces` of this many elements each; the last may be shorter, or empty.
__device__ long long piece_length(long long length, int pieces)
{
    return (length + pieces - 1) / pieces;
}

template <typename T>
__global__ void row_sums(const T* __restrict__ x, double* __restrict__ partials, int rows, long long columns,
                         int pieces)
{
    long long row = blockIdx.x / pieces;
    int piece = blockIdx.x % pieces;
    long long length = piece_length(columns, pieces);
    long long begin = piece * length;
    long long end = min(begin + length, columns);

    double sum = 0;
    for (long long j = begin + threadIdx.x; j < end; j += blockDim.x) sum += x[row * columns + j];
    sum = block_sum(sum);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

// ---- the same, faster -----------------------------------------------------------------------------------------------

// As many elements of type T as one load can fetch: 16 bytes, which must start at a multiple of 16.
template <typename T> struct Load;
template <> struct Load<float> { typedef float4 type; };
template <> struct Load<double> { typedef double2 type; };

__device__ double sum_of(float4 v) { return ((double)v.x + v.y) + ((double)v.z + v.w); }
__device__ double sum_of(double2 v) { return v.x + v.y; }

template <typename T>
__global__ void row_sums_fast(const T* __restrict__ x, double* __restrict__ partials, int rows, long long columns,
                              int pieces)
{
    typedef typename Load<T>::type Vector;
    const int PER_LOAD = sizeof(Vector) / sizeof(T);

    long long warp = (blockIdx.x * (long long)blockDim.x + threadIdx.x) / WARP;
    int lane = threadIdx.x % WARP;  // the thread's number in its warp
    if (warp >= (long long)rows * pieces) return;  // the whole warp leaves or stays
    long long row = warp / pieces;
    long long piece = warp % pieces;
    long long length = piece_length(columns, pieces);
    long long begin = min(piece * length, columns);
    long long count = min(length, columns - begin);
    const T* part = x + row * columns + begin;

    // One by one up to the next multiple of 16 bytes, then 16 bytes at a time, then one by one what is left over.
    long long before = (16 - (size_t)part % 16) % 16 / sizeof(T);
    if (before > count) before = count;
    long long loads = (count - before) / PER_LOAD;
    long long after = before + loads * PER_LOAD;
    const Vector* vectors = (const Vector*)(part + before);

    double sum = 0;
    if (lane < before) sum += part[lane];
    for (long long i = lane; i < loads; i += WARP) sum += sum_of(vectors[i]);
    if (after + lane < count) sum += part[after + lane];

    sum = warp_sum(sum);
    if (lane == 0) partials[warp] = sum;
}

// ---- columns --------------------------------------------------------------------------------------------------------

// Neighbouring threads have neighbouring columns, so that in every step they read neighbouring addresses.
template <typename T>
__global__ void column_sums(const T* __restrict__ x, double* __restrict__ partials, int rows, int columns, int pieces)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= (long long)pieces * columns) return;
    int column = i % columns;
    long long length = piece_length(rows, pieces);
    long long begin = i / columns * length;
    long long end = min(begin + length, (long long)rows);

    double sum = 0;
    for (long long row = begin; row < end; row++) sum += x[row * columns + column];
    partials[i] = sum;
}

// ---- the second stage -----------------------------------------------------------------------------------------------

template <typename T>
__global__ void add_partials(const double* __restrict__ partials, T* __restrict__ sums, int N, int C, int pieces)
{
    int c = blockIdx.x;
    double sum = 0;
    for (long long j = threadIdx.x; j < (long long)N * pieces; j += blockDim.x) {
        long long n = j / pieces;
        sum += partials[(n * C + c) * pieces + j % pieces];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) sums[c] = (T)sum;
}
