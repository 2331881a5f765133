// Adding values to an array at places of which one may be named several times: the gradient of y = x[index].
//
//     out[i] += sum of value[j] over all j with place[j] == i
//
// One thread for one value would have threads meet at a place that is named twice, and adding in turns (atomically)
// gives sums that depend on whose turn comes first. So it is turned round: one thread for one place, which gathers.
// For that the host has the places sorted, each together with where it stood: `sorted_key` (count,) of int64 holds
//
//     key = place[j] * count + j        so that place = key / count and j = key % count
//
// in rising order. A thread looks up where its own place begins, and adds in the order in which the values stood, as
// NumPy's add.at does: the same bits every time.
//
// out: `total` elements. value: `count`.
//
// Launch: 256 threads a block, one thread per element of out.
// What bounds it: the look-up, log2(count) reads one after the other, mostly from a cache; then out once in and once
// out, and every value once. A place named by most of the values is added up by one thread alone, slowly.
// Source: NumPy's documentation of ufunc.at (what add.at does); segmented sums by sorting, as usual without atomics.

#include "bfloat16.cuh"

// How many elements of `sorted` (count,) are less than `wanted`: where it stands, if it does.
__device__ inline long long count_less(const long long* sorted, long long count, long long wanted) {
    long long low = 0;
    long long high = count;
    while (low < high) {
        long long middle = (low + high) / 2;
        if (sorted[middle] < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

template <typename T>
__global__ void index_add(
    T* __restrict__ out,
    const long long* __restrict__ sorted_key,
    const T* __restrict__ value,
    long long total,
    long long count
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= total) return;

    Wide<T> sum = out[i];
    for (long long k = count_less(sorted_key, count, i * count); k < count && sorted_key[k] / count == i; ++k) {
        sum += value[sorted_key[k] % count];
    }
    out[i] = sum;
}
