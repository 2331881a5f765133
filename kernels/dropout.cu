// Dropout: switch elements off at random, by a mask that is computed where it is needed and never stored.
//
//     y[i] = x[i] * mask[i]        mask[i] = scale where bits[i] >= threshold (kept), else 0 (dropped)
//
// x, y: `count` elements of any shape. bits[i] is the i-th run of 16 bits of a Philox stream, four runs to a word
// (its lowest bits first) and sixteen to a block of four words. The stream is named by a key (key_a, key_c) and a place
// (step, call); see philox.cuh. threshold = round(p * 65536), scale = 1 / (1 - p), or 1 in the paper's form.
//
// The gradient is gx = gy * mask, which is the same kernel with gy for x: the same key and place give the same mask.
//
// Versions:
//     dropout            one thread for sixteen elements
//     dropout_by_warp    the same result; neighbouring threads touch neighbouring elements
//     philox_blocks      the random words themselves, as philox.blocks() returns them
//
// Launch: 256 threads a block. One thread for every Philox block, ceil(count / 16) threads; philox_blocks: `count`.
// Bound: reading x and writing y, 8 bytes an element in float, and some 20 instructions of Philox an element.
// With the mask stored, forward and backward would move 24 bytes an element and not 16.
// Source: AlexNet, section 4.2; Srivastava and others, "Dropout", 2014 (for the scale).

#include "bfloat16.cuh"
#include "philox.cuh"
#include "warp.cuh"

const int PER_BLOCK = 16;  // elements that one Philox block decides about

// What Philox block number `block` (0, 1, ...) of the stream says: bit e is 1 if its element e is kept.
__device__ inline int kept_elements(
    long long block,
    unsigned long long key_a,
    unsigned long long key_c,
    unsigned long long step,
    unsigned long long call,
    int threshold
) {
    Words counter = {(unsigned long long)block + 1, step, call, 0};
    Words random = philox(counter, key_a, key_c);
    unsigned long long words[4] = {random.a, random.b, random.c, random.d};
    int kept = 0;
#pragma unroll
    for (int e = 0; e < PER_BLOCK; ++e) {
        int bits = (int)(words[e / 4] >> (16 * (e % 4)) & 0xFFFF);
        if (bits >= threshold) kept |= 1 << e;
    }
    return kept;
}

// -- plain: one thread for the sixteen elements of one Philox block ---------------
template <typename T>
__global__ void dropout(
    const T* __restrict__ x,
    T* __restrict__ y,
    long long count,
    unsigned long long key_a,
    unsigned long long key_c,
    unsigned long long step,
    unsigned long long call,
    int threshold,
    Wide<T> scale
) {
    long long block = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    long long start = block * PER_BLOCK;
    if (start >= count) return;

    int kept = kept_elements(block, key_a, key_c, step, call, threshold);
    for (int e = 0; e < PER_BLOCK && start + e < count; ++e) {
        bool keep = kept >> e & 1;
        y[start + e] = x[start + e] * (keep ? scale : 0);  // a product: infinity times 0 is NaN, as on the host
    }
}

// -- faster: a warp for the 512 elements of 32 Philox blocks ----------------------
// Memory is read in pieces of 32 bytes or more, and above neighbouring threads are 16 elements apart, so that each of
// their accesses touches 32 pieces for 32 elements. Here each thread still computes its own Philox block, but then the
// warp walks over its 512 elements together, 32 neighbours at a time, and a thread asks the thread that knows (by a
// shuffle, see warp.cuh) whether to keep its element.
template <typename T>
__global__ void dropout_by_warp(
    const T* __restrict__ x,
    T* __restrict__ y,
    long long count,
    unsigned long long key_a,
    unsigned long long key_c,
    unsigned long long step,
    unsigned long long call,
    int threshold,
    Wide<T> scale
) {
    long long block = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    int lane = threadIdx.x % WARP;
    long long start = (block - lane) * PER_BLOCK;  // the warp's first element
    if (start >= count) return;                    // for all lanes or for none: a shuffle needs all of them

    int kept = kept_elements(block, key_a, key_c, step, call, threshold);
    for (int place = lane; place < WARP * PER_BLOCK; place += WARP) {
        int theirs = __shfl_sync(ALL_LANES, kept, place / PER_BLOCK);
        bool keep = theirs >> (place % PER_BLOCK) & 1;
        if (start + place < count) y[start + place] = x[start + place] * (keep ? scale : 0);
    }
}

// -- the random words: counters (count, 4) -> blocks (count, 4) -------------------
__global__ void philox_blocks(
    const unsigned long long* __restrict__ counters,
    unsigned long long* __restrict__ blocks,
    long long count,
    unsigned long long key_a,
    unsigned long long key_c
) {
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i >= count) return;

    Words counter = {counters[4 * i], counters[4 * i + 1], counters[4 * i + 2], counters[4 * i + 3]};
    Words random = philox(counter, key_a, key_c);
    blocks[4 * i] = random.a;
    blocks[4 * i + 1] = random.b;
    blocks[4 * i + 2] = random.c;
    blocks[4 * i + 3] = random.d;
}
