// The 32 threads of a warp ("lanes") read each other's registers.
//
// Each of these functions is a meeting: the lanes named in `mask`, bit by bit, come with a value, and when all are
// there each leaves with what it asked for. Lanes that have left the kernel are not waited for. Asking for the value of
// a lane that did not come is undefined on a GPU and an error here. No meeting but __syncwarp orders memory: what one
// lane wrote, another may read only after a __syncwarp (or a __syncthreads).
#pragma once

#include "barriers.h"

namespace cuda_on_cpu {

struct Lanes {
    uint64_t value[32];
    unsigned came;  // bit i: lane i came
};

// scheduler.cpp: returns when all lanes of `mask` that have not ended are there.
Lanes meet(const char* function, Site site, unsigned mask, uint64_t value);
int my_lane();

template <typename T>
inline uint64_t to_bits(T value) {
    static_assert(sizeof(T) <= 8, "the lanes of a warp can exchange at most 8 bytes at once");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    return bits;
}

template <typename T>
inline T from_bits(uint64_t bits) {
    T value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

// The value of lane `source`, or, where that lies outside of this lane's stretch of `width` lanes, the lane's own.
template <typename T>
inline T shuffle(const char* function, Site site, unsigned mask, T value, int source, bool inside) {
    Lanes lanes = meet(function, site, mask, to_bits(value));
    if (!inside) return value;
    if (!(mask >> source & 1))
        fail(site, "%s reads from lane %d, which its mask 0x%08x leaves out", function, source, mask);
    if (!(lanes.came >> source & 1))
        fail(site, "%s reads from lane %d, which does not exist or has left the kernel", function, source);
    return from_bits<T>(lanes.value[source]);
}

template <typename T, typename Function>
inline T reduce(const char* function, Site site, unsigned mask, T value, Function combine) {
    Lanes lanes = meet(function, site, mask, to_bits(value));
    unsigned left = lanes.came;
    T result = from_bits<T>(lanes.value[__builtin_ctz(left)]);
    for (left &= left - 1; left; left &= left - 1) {
        result = combine(result, from_bits<T>(lanes.value[__builtin_ctz(left)]));
    }
    return result;
}

// Bit i: the predicate of lane i. Lanes that did not come count as no.
inline unsigned ballot(const char* function, Site site, unsigned mask, bool predicate, unsigned* came = nullptr) {
    Lanes lanes = meet(function, site, mask, predicate);
    unsigned result = 0;
    for (int lane = 0; lane < 32; ++lane) {
        if (lanes.came >> lane & 1) result |= unsigned(lanes.value[lane]) << lane;
    }
    if (came) *came = lanes.came;
    return result;
}

}  // namespace cuda_on_cpu

inline void __syncwarp(unsigned mask = 0xffffffff, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    cuda_on_cpu::meet("__syncwarp", site, mask, 0);
}

// -- shuffles: within stretches of `width` lanes, a power of two ------------------
template <typename T>
inline T __shfl_sync(unsigned mask, T value, int lane, int width = 32,
                     cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    int first = cuda_on_cpu::my_lane() & ~(width - 1);
    return cuda_on_cpu::shuffle("__shfl_sync", site, mask, value, first + (lane & (width - 1)), true);
}
template <typename T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32,
                        cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    int first = cuda_on_cpu::my_lane() & ~(width - 1);
    int source = cuda_on_cpu::my_lane() - int(distance);
    return cuda_on_cpu::shuffle("__shfl_up_sync", site, mask, value, source, source >= first);
}
template <typename T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32,
                          cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    int first = cuda_on_cpu::my_lane() & ~(width - 1);
    int source = cuda_on_cpu::my_lane() + int(distance);
    return cuda_on_cpu::shuffle("__shfl_down_sync", site, mask, value, source, source < first + width);
}
template <typename T>
inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32,
                         cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    int first = cuda_on_cpu::my_lane() & ~(width - 1);
    int source = cuda_on_cpu::my_lane() ^ bits;
    return cuda_on_cpu::shuffle("__shfl_xor_sync", site, mask, value, source, source < first + width);
}

// -- votes ------------------------------------------------------------------------
inline unsigned __ballot_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::ballot("__ballot_sync", site, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::ballot("__any_sync", site, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    unsigned came;
    return cuda_on_cpu::ballot("__all_sync", site, mask, predicate != 0, &came) == came;
}

// -- reductions of whole numbers, in one instruction on the GPU -------------------
template <typename T>
inline T __reduce_add_sync(unsigned mask, T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::reduce("__reduce_add_sync", site, mask, value, [](T a, T b) { return T(a + b); });
}
template <typename T>
inline T __reduce_min_sync(unsigned mask, T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::reduce("__reduce_min_sync", site, mask, value, [](T a, T b) { return b < a ? b : a; });
}
template <typename T>
inline T __reduce_max_sync(unsigned mask, T value, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::reduce("__reduce_max_sync", site, mask, value, [](T a, T b) { return a < b ? b : a; });
}
