// A launch from its beginning to its end, or to its first error.

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include "runtime.h"
#include "vector_types.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_on_cpu {

const Launch* launch;
Report* report;
void (*run_one)(void** arguments);
volatile sig_atomic_t in_kernel;
volatile sig_atomic_t interrupted;

const void* own_library() {
    Dl_info found = {};
    dladdr(reinterpret_cast<void*>(&own_library), &found);
    return found.dli_fbase;
}

uint64_t code_offset(const void* address) {
    static const char* const loaded_at = static_cast<const char*>(own_library());
    return uint64_t(static_cast<const char*>(address) - loaded_at);
}

// -- errors -----------------------------------------------------------------------
bool begin_report(const Thread* thread) {
    if (report->failed) return false;
    report->failed = 1;
    report->has_thread = thread != nullptr;
    report->block[0] = blockIdx.x, report->block[1] = blockIdx.y, report->block[2] = blockIdx.z;
    if (thread) report->thread[0] = thread->x, report->thread[1] = thread->y, report->thread[2] = thread->z;
    return true;
}

void write_message(const char* format, ...) {
    size_t length = strlen(report->message);
    va_list values;
    va_start(values, format);
    vsnprintf(report->message + length, sizeof report->message - length, format, values);
    va_end(values);
}

void fail(Site site, const char* format, ...) {
    in_kernel = 0;
    if (begin_report(current)) {
        va_list values;
        va_start(values, format);
        vsnprintf(report->message, sizeof report->message, format, values);
        va_end(values);
        if (site.file) write_message(", in %s:%d", site.file, site.line);
    }
    for (;;) go_to_scheduler();  // nobody ever comes back
}

namespace {

// -- signals ----------------------------------------------------------------------
// A bad address would end the whole of Python. Instead the launch ends, by a jump back to where it began.
const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
const int FAULT_COUNT = 4;
struct sigaction before_faults[FAULT_COUNT];
struct sigaction before_interrupt;
sigjmp_buf after_signal;
pthread_t launching_thread;

const void* code_at(void* context) {
    mcontext_t& registers = static_cast<ucontext_t*>(context)->uc_mcontext;
#if defined(__x86_64__)
    return reinterpret_cast<const void*>(registers.gregs[REG_RIP]);
#elif defined(__aarch64__)
    return reinterpret_cast<const void*>(registers.pc);
#endif
}

void on_fault(int signal, siginfo_t* details, void* context) {
    if (!pthread_equal(pthread_self(), launching_thread) || !in_kernel) {  // not ours: as if we were not here
        for (int i = 0; i < FAULT_COUNT; ++i) sigaction(FAULTS[i], &before_faults[i], nullptr);
        return;
    }
    if (begin_report(current)) {
        unsigned char* address = static_cast<unsigned char*>(details->si_addr);
        const Guarded& stack = stack_in_use();
        report->code = code_offset(code_at(context));
        if (signal == SIGFPE) {
            write_message("division by zero");
        } else if (signal == SIGILL) {
            write_message("an instruction that this processor does not have");
        } else if (address >= stack.pages && address < stack.memory) {
            size_t guards = 2 * size_t(stack.memory - stack.pages);
            write_message("a thread's functions and local arrays need more than %zu bytes", stack.all_bytes - guards);
        } else {
            report->faulted = 1;
            report->address = reinterpret_cast<uint64_t>(address);
        }
    }
    siglongjmp(after_signal, 1);
}

// Ctrl-C: at once where the kernel's own code runs, for it may never end; else at the next turn.
void on_interrupt(int, siginfo_t*, void*) {
    if (!pthread_equal(pthread_self(), launching_thread)) {
        pthread_kill(launching_thread, SIGINT);
        return;
    }
    interrupted = 1;
    if (in_kernel) siglongjmp(after_signal, 1);
}

// The handlers run on memory of their own, since the fault may be that a stack is full.
alignas(16) unsigned char signal_stack[64 * 1024];

// -- all blocks -------------------------------------------------------------------
void run_grid() {
    begin_schedule();
    uint64_t blocks = uint64_t(launch->grid[0]) * launch->grid[1] * launch->grid[2];
    for (uint64_t i = 0; i < blocks && !must_stop(); ++i) run_block(block_at(i));
}

void run_under_signals() {
    stack_t fresh = {}, stack_before;
    fresh.ss_sp = signal_stack;
    fresh.ss_size = sizeof signal_stack;
    sigaltstack(&fresh, &stack_before);
    struct sigaction fault = {}, interrupt = {};
    fault.sa_sigaction = on_fault;
    interrupt.sa_sigaction = on_interrupt;
    fault.sa_flags = interrupt.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int i = 0; i < FAULT_COUNT; ++i) sigaction(FAULTS[i], &fault, &before_faults[i]);
    sigaction(SIGINT, &interrupt, &before_interrupt);

    if (sigsetjmp(after_signal, 1) == 0) run_grid();
    in_kernel = 0;

    for (int i = 0; i < FAULT_COUNT; ++i) sigaction(FAULTS[i], &before_faults[i], nullptr);
    sigaction(SIGINT, &before_interrupt, nullptr);
    sigaltstack(&stack_before, nullptr);
}

}  // namespace
}  // namespace cuda_on_cpu

// -- what Python calls ------------------------------------------------------------
#define EXPORTED extern "C" __attribute__((visibility("default")))
using namespace cuda_on_cpu;

EXPORTED int cuda_on_cpu_count() { return kernel_count; }
EXPORTED const char* cuda_on_cpu_name(int kernel) { return kernels[kernel].name; }
EXPORTED int cuda_on_cpu_parameters(int kernel) { return kernels[kernel].parameters; }
EXPORTED const char* cuda_on_cpu_code(int kernel, int parameter) { return kernels[kernel].codes[parameter]; }

// One launch at a time: Python holds a lock.
EXPORTED void cuda_on_cpu_launch(int kernel, const Launch* asked, Report* answer) {
    launch = asked;
    report = answer;
    run_one = kernels[kernel].run;
    launching_thread = pthread_self();
    interrupted = 0;
    current = nullptr;
    gridDim = {asked->grid[0], asked->grid[1], asked->grid[2]};
    blockDim = {asked->block[0], asked->block[1], asked->block[2]};

    begin_shared_memory();
    watch_launch_begins();
    run_under_signals();
    watch_launch_ends();
    end_shared_memory();

    if (interrupted && !answer->failed) answer->failed = 2;
    if (answer->failed) reset_workers();
    fflush(stdout);  // what the kernel printed
}
