// Shared memory, and the barrier at which all threads of a block wait for each other.
#pragma once

#include <stddef.h>

#include <type_traits>

#include "kernel_table.h"

namespace cuda_on_cpu {

// A place in the source text. As the default of a parameter it is the place of the call.
struct Site {
    const char* file;
    int line;
    static constexpr Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
        return {file, line};
    }
};

// Ends the launch with an error; the message is what printf would say.
[[noreturn]] void fail(Site site, const char* format, ...);

// -- the barrier (scheduler.cpp) --------------------------------------------------
struct Votes {
    int any = 0;
    int all = 1;
    int count = 0;
};

// Returns when every thread of the block that has not ended is here, with how they voted.
Votes wait_for_block(const char* function, Site site, bool vote);

// -- shared memory (shared_memory.cpp) --------------------------------------------
// A __shared__ array exists once per block. Blocks run one after another here, so one array will do for all of them,
// as a static variable is; it is filled with NaN before each block. Being thread_local puts all of them, and nothing
// else, side by side into one stretch of memory that the runtime can find.
#define __shared__ static thread_local

// Text is replaced before it is compiled (source.py), for what a macro cannot do:
//
//     __shared__ T tile[16][16];      __shared__ T tile[16][16]; cuda_on_cpu::declare_shared("tile", tile);
//     extern __shared__ T memory[];   T* memory = cuda_on_cpu::dynamic_shared<T>("memory");
struct SharedArray {
    char name[40];
    char type[8];              // as `code` says it
    unsigned long long start;  // address
    unsigned long long bytes;
    long long shape[3];        // 0: no such dimension
};
bool is_declared(const void* start);
void declare(const char* name, const char* type, const void* start, size_t bytes, size_t a, size_t b, size_t c);
void* dynamic_shared_memory();
size_t dynamic_shared_bytes();

template <typename T>
inline void declare_shared(const char* name, T& array) {
    using Element = std::remove_all_extents_t<T>;
    if (is_declared(&array)) return;
    declare(name, code<Element>(), &array, sizeof array, std::extent_v<T, 0>, std::extent_v<T, 1>, std::extent_v<T, 2>);
}

template <typename T>
inline T* dynamic_shared(const char* name) {
    void* start = dynamic_shared_memory();
    size_t bytes = dynamic_shared_bytes();
    if (!is_declared(start)) declare(name, code<T>(), start, bytes, bytes / sizeof(T), 0, 0);
    return static_cast<T*>(start);
}

}  // namespace cuda_on_cpu

inline void __syncthreads(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    cuda_on_cpu::wait_for_block("__syncthreads", site, false);
}
inline int __syncthreads_count(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::wait_for_block("__syncthreads_count", site, predicate != 0).count;
}
inline int __syncthreads_and(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::wait_for_block("__syncthreads_and", site, predicate != 0).all;
}
inline int __syncthreads_or(int predicate, cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
    return cuda_on_cpu::wait_for_block("__syncthreads_or", site, predicate != 0).any;
}

inline void __trap(cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) { cuda_on_cpu::fail(site, "__trap"); }

#undef assert
#define assert(condition) \
    ((condition) ? (void)0 : cuda_on_cpu::fail(cuda_on_cpu::Site::here(), "the assertion %s failed", #condition))
