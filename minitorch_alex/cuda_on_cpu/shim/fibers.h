// Stacks that one operating-system thread takes turns on.
//
// A function that is called must return before its caller goes on. A CUDA thread that waits at a barrier cannot: the
// others must run first. So it gets a stack of its own, and to wait is to go on with another stack.
#pragma once

#include <stddef.h>

#if defined(__x86_64__) && !defined(USE_UCONTEXT)
#define SWITCH_BY_ASSEMBLY
#else
#include <ucontext.h>
#endif

namespace cuda_on_cpu {

// Where something that was left goes on.
struct Context {
#ifdef SWITCH_BY_ASSEMBLY
    void* stack_pointer;
#else
    ucontext_t registers;
#endif
};

// Leave here for `to`; returns when somebody switches back to `from`.
void switch_context(Context& from, Context& to);

// The first switch to `context` calls start, which must not return, on the stack that ends at `stack` + `bytes`.
void prepare_context(Context& context, void* stack, size_t bytes, void (*start)());

// `bytes` of fresh memory between two pages that must not be touched.
struct Guarded {
    unsigned char* memory;
    unsigned char* pages;
    size_t all_bytes;
};
Guarded allocate_guarded(size_t bytes);
void release(const Guarded& guarded);

}  // namespace cuda_on_cpu
