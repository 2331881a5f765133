// A warp: 32 threads of a block that a GPU runs together. And what its threads hold, added up or compared.
//
// Threads 0 ... 31 of a block are its first warp, 32 ... 63 its second; a thread's number in its warp,
// threadIdx.x % 32, is its lane. A shuffle is an instruction by which a lane reads a register of another lane: a number
// changes hands without memory and without a barrier. Every lane that its mask names must take part, so the lanes of a
// warp may leave a kernel early only all together.
//
// Source: CUDA C++ Programming Guide, "Warp Shuffle Functions"; Justin Luitjens, "Faster Parallel Reductions on
// Kepler".

const int WARP = 32;                    // threads in a warp
const unsigned ALL_LANES = 0xFFFFFFFF;  // the mask of a shuffle in which all 32 take part: one bit for each

// What the 32 lanes hold, added up; every lane receives the sum. Each lane adds what the lane 16 away holds, so that 32
// numbers become 16 sums of two, then 8 away, 4, 2, 1: after five steps it has met all of them. `lane ^ distance` is
// the partner: it goes both ways, so the partners add the same two numbers, and all lanes end with the same bits.
template <typename T>
__device__ inline T warp_sum(T value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

// The largest of what the 32 lanes hold, likewise.
template <typename T>
__device__ inline T warp_max(T value) {
    for (int distance = WARP / 2; distance > 0; distance /= 2) {
        T other = __shfl_xor_sync(ALL_LANES, value, distance);
        value = other > value ? other : value;
    }
    return value;
}
