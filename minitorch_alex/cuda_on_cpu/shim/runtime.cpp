// Blocks and threads: who runs when, who waits for whom.
//
// Blocks run one after another, and within a block one thread at a time, each until it ends or must wait. On a GPU all
// of this happens at once in no certain order, so a right kernel gives the same result in any order: launch.order says
// in which threads and blocks begin here, and a kernel is tried in several.
//
// Most threads never wait, and a stack costs memory. So a stack is not given to a thread but to a worker, which runs one
// thread after another; only when a thread waits is its worker held up, and the next thread gets another worker.

#include "runtime.h"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "fibers.h"
#include "vector_types.h"
#include "warps.h"

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_on_cpu {

Thread* current;
uint64_t block_now;
volatile sig_atomic_t in_kernel;

namespace {

const size_t STACK_BYTES = 256 * 1024;

struct Worker {
    Context context;
    Guarded stack;
    Thread* thread;
};

// Lanes of one warp on their way into one warp function.
struct Meeting {
    const char* function;
    Site site;
    unsigned mask;
    Lanes lanes = {};
    std::vector<Worker*> waiting;
};

struct Warp {
    unsigned living;  // bit i: lane i exists and has not ended
    std::vector<std::shared_ptr<Meeting>> meetings;
};

const Launch* launch;
Report* report;
void (*run_one)(void** arguments);

Context scheduler;
Worker* worker;                 // whose stack is in use
std::vector<Worker*> all_workers;
std::vector<Worker*> idle;      // workers without a thread
std::vector<Worker*> ready;     // their threads may go on
std::vector<Worker*> at_barrier;

std::vector<Thread> threads;
std::vector<Warp> warps;
std::vector<Worker*> turn;          // those that go on now
std::vector<unsigned> block_order;
std::vector<unsigned> begin_order;  // of the threads in a block
size_t begun;                       // threads of the block that have begun
size_t living;                      // threads of the block that have not ended
Votes votes;   // of those at the barrier so far
Votes result;  // of the last barrier
uint64_t random_state;

Guarded dynamic_memory;
unsigned char* dynamic_start;
std::vector<SharedArray> shared_arrays;

volatile sig_atomic_t interrupted;
sigjmp_buf after_signal;
pthread_t launching_thread;

// -- errors -----------------------------------------------------------------------
// Only the first error counts.
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

// -- taking turns -----------------------------------------------------------------
void wait_for_turn() {
    switch_context(worker->context, scheduler);
    in_kernel = 1;
}

void take_turn(Thread* thread) {
    current = thread;
    threadIdx = {thread->x, thread->y, thread->z};
}

void suspend(const char* function, Site site) {
    current->waits_in = function;
    current->waits_at = site;
    wait_for_turn();
}

void wake(Worker* other) {
    other->thread->waits_in = nullptr;
    ready.push_back(other);
}

// A linear congruential generator (Knuth's constants): the upper half of its state is random enough to shuffle with.
unsigned random_below(size_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return unsigned((random_state >> 33) % n);
}

template <typename T>
void shuffle_all(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[random_below(i)]);
}

std::vector<unsigned> in_order(size_t n) {
    std::vector<unsigned> numbers(n);
    for (size_t i = 0; i < n; ++i) numbers[i] = unsigned(launch->order == 1 ? n - 1 - i : i);
    if (launch->order > 1) shuffle_all(numbers);
    return numbers;
}

// -- the barrier ------------------------------------------------------------------
void open_barrier_if_complete() {
    if (at_barrier.empty() || at_barrier.size() < living) return;
    const Thread* first = at_barrier[0]->thread;
    for (Worker* other : at_barrier) {
        const Thread* thread = other->thread;
        if (thread->waits_at.line == first->waits_at.line && !strcmp(thread->waits_at.file, first->waits_at.file)) continue;
        if (!begin_report(thread)) return;
        write_message("threads of one block wait at different barriers: this one in %s:%d, thread (%u, %u, %u) in %s:%d",
                      thread->waits_at.file, thread->waits_at.line, first->x, first->y, first->z,
                      first->waits_at.file, first->waits_at.line);
        return;
    }
    result = votes;
    votes = Votes();
    if (launch->order > 1) shuffle_all(at_barrier);
    for (Worker* other : at_barrier) wake(other);
    at_barrier.clear();
    watch_barrier();
}

// -- meetings of a warp -----------------------------------------------------------
void close_if_complete(Warp& warp, const std::shared_ptr<Meeting>& meeting) {
    if (meeting->mask & warp.living & ~meeting->lanes.came) return;  // somebody is still to come
    auto& open = warp.meetings;
    open.erase(std::find(open.begin(), open.end(), meeting));
    for (Worker* other : meeting->waiting) wake(other);
    if (!strcmp(meeting->function, "__syncwarp")) watch_syncwarp(unsigned(&warp - warps.data()), meeting->lanes.came);
}

void leave_kernel() {
    Thread* thread = worker->thread;
    thread->ended = true;
    --living;
    open_barrier_if_complete();
    Warp& warp = warps[thread->warp];
    warp.living &= ~(1u << thread->lane);
    auto open = warp.meetings;  // a copy, since closing removes
    for (auto& meeting : open) close_if_complete(warp, meeting);
    watch_thread_ends();
}

// -- workers ----------------------------------------------------------------------
void work() {
    for (;;) {
        while (begun < begin_order.size() && !report->failed && !interrupted) {
            worker->thread = &threads[begin_order[begun++]];
            take_turn(worker->thread);
            in_kernel = 1;
            run_one(launch->arguments);
            in_kernel = 0;
            leave_kernel();
            if (!ready.empty()) break;  // first those that already hold a worker
        }
        idle.push_back(worker);
        switch_context(worker->context, scheduler);
    }
}

Worker* idle_worker() {
    if (idle.empty()) {
        Guarded stack = allocate_guarded(STACK_BYTES);
        if (!stack.memory) {
            if (begin_report(nullptr)) write_message("there is no memory for the threads' stacks");
            return nullptr;
        }
        Worker* fresh = new Worker{{}, stack, nullptr};
        prepare_context(fresh->context, stack.memory, STACK_BYTES, work);
        all_workers.push_back(fresh);
        idle.push_back(fresh);
    }
    Worker* one = idle.back();
    idle.pop_back();
    one->thread = nullptr;
    return one;
}

// After an error some workers are held up in the middle of a thread, for ever: let them start anew.
void reset_workers() {
    idle.clear();
    ready.clear();
    turn.clear();
    at_barrier.clear();
    warps.clear();
    for (Worker* one : all_workers) {
        prepare_context(one->context, one->stack.memory, STACK_BYTES, work);
        idle.push_back(one);
    }
}

void resume(Worker* one) {
    worker = one;
    if (one->thread) take_turn(one->thread);
    switch_context(scheduler, one->context);
    in_kernel = 0;
}

void report_deadlock() {
    if (!begin_report(nullptr)) return;
    size_t waiting = 0;
    for (Thread& thread : threads) waiting += thread.waits_in != nullptr;
    write_message("deadlock: %zu thread%s wait%s for ever", waiting, waiting == 1 ? "" : "s", waiting == 1 ? "s" : "");
    std::vector<bool> told(threads.size());
    for (size_t i = 0; i < threads.size(); ++i) {  // one line for all that wait in the same place
        const Thread& first = threads[i];
        if (!first.waits_in || told[i]) continue;
        size_t count = 0;
        for (size_t j = i; j < threads.size(); ++j) {
            if (!threads[j].waits_in || threads[j].waits_at.line != first.waits_at.line) continue;
            told[j] = true;
            ++count;
        }
        write_message("; %zu in %s, %s:%d (first thread (%u, %u, %u)", count, first.waits_in, first.waits_at.file,
                      first.waits_at.line, first.x, first.y, first.z);
        for (auto& meeting : warps[first.warp].meetings) {
            if (!(meeting->lanes.came >> first.lane & 1)) continue;
            unsigned missing = meeting->mask & warps[first.warp].living & ~meeting->lanes.came;
            write_message(", whose mask 0x%08x names lane %d, which does not come", meeting->mask, __builtin_ctz(missing));
        }
        write_message(")");
    }
}

// -- shared memory ----------------------------------------------------------------
thread_local volatile char in_thread_local_memory;  // so that there is such memory, and by writing it, here and now

struct Stretch {
    unsigned char* start;
    size_t bytes;
};

const void* own_library() {  // where it was loaded
    Dl_info found = {};
    dladdr(reinterpret_cast<void*>(&own_library), &found);
    return found.dli_fbase;
}

// Where this library's thread_local variables, that is its __shared__ arrays, lie.
Stretch static_shared_memory() {
    struct Search {
        const void* library;
        Stretch found;
    };
    in_thread_local_memory = 0;
    Search search = {own_library(), {nullptr, 0}};
    dl_iterate_phdr(
        [](dl_phdr_info* library, size_t, void* data) {
            Search* search = static_cast<Search*>(data);
            if (reinterpret_cast<const void*>(library->dlpi_addr) != search->library) return 0;
            for (int i = 0; i < library->dlpi_phnum; ++i) {
                if (library->dlpi_phdr[i].p_type != PT_TLS) continue;
                search->found = {static_cast<unsigned char*>(library->dlpi_tls_data), library->dlpi_phdr[i].p_memsz};
            }
            return 1;
        },
        &search);
    return search.found;
}

void check_shared_bytes() {
    size_t fixed = 0;
    for (const SharedArray& array : shared_arrays) {
        if (array.start != reinterpret_cast<uint64_t>(dynamic_start)) fixed += array.bytes;
    }
    if (fixed + launch->shared_bytes > launch->shared_limit)
        fail({nullptr, 0}, "a block needs %zu + %zu bytes of shared memory (static + dynamic), but may have %zu", fixed,
             size_t(launch->shared_bytes), size_t(launch->shared_limit));
}

// -- a block, a grid --------------------------------------------------------------
void prepare_block(uint64_t number, Stretch static_memory) {
    block_now = number;
    unsigned across = launch->grid[0], down = launch->grid[1];
    blockIdx = {unsigned(number % across), unsigned(number / across % down), unsigned(number / across / down)};
    unsigned x = launch->block[0], y = launch->block[1];
    for (unsigned i = 0; i < threads.size(); ++i) {
        threads[i] = {i % x, i / x % y, i / x / y, i, i / WARP, i % WARP, false, nullptr, {nullptr, 0}};
    }
    warps.assign((threads.size() + WARP - 1) / WARP, Warp());
    for (const Thread& thread : threads) warps[thread.warp].living |= 1u << thread.lane;
    begin_order = in_order(threads.size());
    begun = 0;
    living = threads.size();
    votes = Votes();
    // All bits set is NaN as a float, -1 as an int: what nobody has written shows.
    memset(static_memory.start, 0xFF, static_memory.bytes);
    if (launch->shared_bytes) memset(dynamic_start, 0xFF, launch->shared_bytes);
    watch_block_begins(unsigned(threads.size()));
}

void run_block() {
    while (!report->failed && !interrupted) {
        if (!ready.empty()) {
            turn.swap(ready);
            for (size_t i = 0; i < turn.size() && !report->failed && !interrupted; ++i) resume(turn[i]);
            turn.clear();
        } else if (begun < threads.size()) {
            Worker* one = idle_worker();
            if (one) resume(one);
        } else if (living == 0) {
            return;
        } else {
            report_deadlock();
        }
    }
}

void run_grid() {
    Stretch static_memory = static_shared_memory();
    random_state = uint64_t(launch->order) * 0x9E3779B97F4A7C15u;
    uint64_t blocks = uint64_t(launch->grid[0]) * launch->grid[1] * launch->grid[2];
    block_order = in_order(blocks);
    for (unsigned number : block_order) {
        prepare_block(number, static_memory);
        run_block();
        if (report->failed || interrupted) return;
    }
}

// -- signals ----------------------------------------------------------------------
// A bad address would end the whole of Python. Instead the launch ends, by a jump back to where it began.
const int FAULTS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
const int FAULT_COUNT = 4;
struct sigaction before_faults[FAULT_COUNT];
struct sigaction before_interrupt;

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
        unsigned char* stack = worker->stack.memory;
        report->code = code_offset(code_at(context));
        if (signal == SIGFPE) write_message("division by zero");
        else if (signal == SIGILL) write_message("an instruction that this processor does not have");
        else if (address < stack && address >= worker->stack.pages) write_message("local arrays of more than %zu bytes", STACK_BYTES);
        else {
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

void run_guarded() {
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

// -- what kernels call ------------------------------------------------------------
// in_kernel is cleared first and set again last.
void fail(Site site, const char* format, ...) {
    in_kernel = 0;
    if (begin_report(current)) {
        va_list values;
        va_start(values, format);
        vsnprintf(report->message, sizeof report->message, format, values);
        va_end(values);
        if (site.file) write_message(", in %s:%d", site.file, site.line);
    }
    for (;;) switch_context(worker->context, scheduler);  // nobody ever switches back
}

Votes wait_for_block(const char* function, Site site, bool vote) {
    in_kernel = 0;
    watch_wait(function, site);
    votes.any |= vote;
    votes.all &= vote;
    votes.count += vote;
    current->waits_in = function;
    current->waits_at = site;
    at_barrier.push_back(worker);
    open_barrier_if_complete();
    wait_for_turn();
    return result;
}

Lanes meet(const char* function, Site site, unsigned mask, uint64_t value) {
    in_kernel = 0;
    watch_wait(function, site);
    unsigned lane = current->lane;
    Warp& warp = warps[current->warp];
    if (!(mask >> lane & 1)) fail(site, "%s: lane %u calls with the mask 0x%08x, which leaves itself out", function, lane, mask);

    std::shared_ptr<Meeting> meeting;
    for (auto& open : warp.meetings) {
        if (open->mask == mask) meeting = open;
    }
    if (!meeting) {
        meeting = std::make_shared<Meeting>();
        meeting->function = function;
        meeting->site = site;
        meeting->mask = mask;
        warp.meetings.push_back(meeting);
    }
    if (meeting->site.line != site.line || strcmp(meeting->site.file, site.file) || strcmp(meeting->function, function))
        fail(site, "lanes of one warp meet in different functions, %s in %s:%d and %s", meeting->function,
             meeting->site.file, meeting->site.line, function);
    meeting->lanes.came |= 1u << lane;
    meeting->lanes.value[lane] = value;
    close_if_complete(warp, meeting);
    if (meeting->mask & warp.living & ~meeting->lanes.came) {
        meeting->waiting.push_back(worker);
        suspend(function, site);
    }
    in_kernel = 1;
    return meeting->lanes;
}

int my_lane() { return int(current->lane); }

bool is_declared(const void* start) {
    for (const SharedArray& array : shared_arrays) {
        if (array.start == reinterpret_cast<uint64_t>(start)) return true;
    }
    return false;
}

void declare(const char* name, const char* type, const void* start, size_t bytes, size_t a, size_t b, size_t c) {
    in_kernel = 0;
    SharedArray array = {};
    snprintf(array.name, sizeof array.name, "%s", name);
    snprintf(array.type, sizeof array.type, "%s", type);
    array.start = reinterpret_cast<uint64_t>(start);
    array.bytes = bytes;
    array.shape[0] = (long long)a, array.shape[1] = (long long)b, array.shape[2] = (long long)c;
    shared_arrays.push_back(array);
    check_shared_bytes();
    watch_shared(array);
    in_kernel = 1;
}

void* dynamic_shared_memory() { return dynamic_start; }
size_t dynamic_shared_bytes() { return launch->shared_bytes; }

uint64_t code_offset(const void* address) {
    static const char* const loaded_at = static_cast<const char*>(own_library());
    return uint64_t(static_cast<const char*>(address) - loaded_at);
}

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
    threads.resize(size_t(asked->block[0]) * asked->block[1] * asked->block[2]);
    shared_arrays.clear();
    // An array that ends with its pages, or starts with them. Both ends are at multiples of 16.
    dynamic_memory = allocate_guarded(asked->shared_bytes);
    size_t pages = dynamic_memory.all_bytes - 2 * size_t(dynamic_memory.memory - dynamic_memory.pages);
    dynamic_start = dynamic_memory.memory + (asked->guard_start ? 0 : (pages - asked->shared_bytes) / 16 * 16);

    watch_launch_begins();
    run_guarded();
    watch_launch_ends();

    release(dynamic_memory);
    if (interrupted && !answer->failed) answer->failed = 2;
    if (answer->failed) reset_workers();
    fflush(stdout);  // what the kernel printed
}

EXPORTED int cuda_on_cpu_shared_arrays(const SharedArray** first) {
    *first = shared_arrays.data();
    return int(shared_arrays.size());
}
