#include "fibers.h"

#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

namespace cuda_on_cpu {

#ifdef SWITCH_BY_ASSEMBLY
// A function may change all registers but six: those, and the stack pointer, are all there is to keep. They go onto the
// stack that is left, and come from the one that is entered; `ret` then returns to where that one was left.
extern "C" void cuda_on_cpu_switch(void** left, void* entered) __attribute__((visibility("hidden")));
asm(".text\n"
    ".p2align 4\n"
    ".globl cuda_on_cpu_switch\n"
    ".hidden cuda_on_cpu_switch\n"
    ".type cuda_on_cpu_switch, @function\n"
    "cuda_on_cpu_switch:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    ret\n");

void switch_context(Context& from, Context& to) { cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer); }

void prepare_context(Context& context, void* stack, size_t bytes, void (*start)()) {
    void** top = reinterpret_cast<void**>(static_cast<char*>(stack) + bytes);
    *--top = nullptr;  // in place of start's return address; it also aligns the stack as a call does
    *--top = reinterpret_cast<void*>(start);
    for (int i = 0; i < 6; ++i) *--top = nullptr;
    context.stack_pointer = top;
}
#else
// The C library's own switch, on any processor. It also saves the signal mask, by a call to the system each time, and
// is some 12 times slower.
void switch_context(Context& from, Context& to) { swapcontext(&from.registers, &to.registers); }

void prepare_context(Context& context, void* stack, size_t bytes, void (*start)()) {
    getcontext(&context.registers);
    context.registers.uc_stack.ss_sp = stack;
    context.registers.uc_stack.ss_size = bytes;
    context.registers.uc_link = nullptr;
    makecontext(&context.registers, start, 0);
}
#endif

Guarded allocate_guarded(size_t bytes) {
    size_t page = size_t(sysconf(_SC_PAGESIZE));
    size_t inner = (bytes + page - 1) / page * page;
    size_t all = inner + 2 * page;
    void* pages = mmap(nullptr, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED) return {nullptr, nullptr, 0};
    unsigned char* memory = static_cast<unsigned char*>(pages) + page;
    if (mprotect(memory, inner, PROT_READ | PROT_WRITE) != 0) {
        munmap(pages, all);
        return {nullptr, nullptr, 0};
    }
    return {memory, static_cast<unsigned char*>(pages), all};
}

void release(const Guarded& guarded) {
    if (guarded.pages) munmap(guarded.pages, guarded.all_bytes);
}

}  // namespace cuda_on_cpu
