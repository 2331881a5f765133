// Read, change and write back in one step that no other thread can come between.
//
// Here a thread is never interrupted, so every read-and-write is such a step; the race checker has to be told that this
// one is meant to be. On a GPU the order of the threads, and so the rounding of a float sum, differs from run to run.
#pragma once

namespace cuda_on_cpu {

#ifdef CUDA_ON_CPU_WATCH
void atomic_begins();  // watch.cpp
void atomic_ends();
#else
inline void atomic_begins() {}
inline void atomic_ends() {}
#endif

// Inlined, so that an access counts as the line that called atomicAdd.
template <typename T, typename Function>
__attribute__((always_inline)) inline T atomically(T* address, Function change) {
    atomic_begins();
    T old = *address;
    *address = change(old);
    atomic_ends();
    return old;
}

}  // namespace cuda_on_cpu

#define ATOMIC(name, result)                                                                 \
    template <typename T, typename U>                                                        \
    __attribute__((always_inline)) inline T name(T* address, U given) {                      \
        T value = T(given);                                                                  \
        return cuda_on_cpu::atomically(address, [=](T old) { return T(result); });           \
    }

ATOMIC(atomicAdd, old + value)
ATOMIC(atomicSub, old - value)
ATOMIC(atomicMin, value < old ? value : old)
ATOMIC(atomicMax, old < value ? value : old)
ATOMIC(atomicExch, value)
ATOMIC(atomicAnd, old & value)
ATOMIC(atomicOr, old | value)
ATOMIC(atomicXor, old ^ value)
ATOMIC(atomicInc, old >= value ? 0 : old + 1)
ATOMIC(atomicDec, old == 0 || old > value ? value : old - 1)
#undef ATOMIC

template <typename T, typename U, typename V>
__attribute__((always_inline)) inline T atomicCAS(T* address, U compare, V value) {
    return cuda_on_cpu::atomically(address, [=](T old) { return old == T(compare) ? T(value) : old; });
}
