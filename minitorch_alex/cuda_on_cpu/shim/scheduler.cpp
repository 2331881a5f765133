// Blocks and threads: who runs when, who waits for whom.
//
// Blocks run one after another, and within a block one thread at a time, each until it ends or must wait. On a GPU all
// of this happens at once in no certain order, so a right kernel gives the same result in any order: launch.order says
// in which threads and blocks begin here, and a kernel is tried in several.
//
// Most threads never wait, and a stack costs memory. So a stack is not given to a thread but to a worker, which runs
// one thread after another; only when a thread waits is its worker held up, and the next thread gets another worker.

#include <string.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "runtime.h"
#include "vector_types.h"
#include "warps.h"

extern uint3 threadIdx;
extern uint3 blockIdx;

namespace cuda_on_cpu {

Thread* current;
uint64_t block_now;

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

    bool is_complete(unsigned living) const { return !(mask & living & ~lanes.came); }
};

struct Warp {
    unsigned living;  // bit i: lane i exists and has not ended
    std::vector<std::shared_ptr<Meeting>> meetings;
};

Context scheduler;
Worker* worker;  // whose stack is in use
std::vector<Worker*> all_workers;
std::vector<Worker*> idle;        // have no thread
std::vector<Worker*> turn;        // go on now, one after another
std::vector<Worker*> ready;       // go on after those
std::vector<Worker*> at_barrier;

std::vector<Thread> threads;  // of the block
std::vector<Warp> warps;
std::vector<unsigned> block_order;
std::vector<unsigned> thread_order;
size_t begun;   // how many threads of the block have begun
size_t living;  // how many have not ended
Votes votes;    // of those at the barrier so far
Votes result;   // of the last barrier
uint64_t random_state;

// -- taking turns -----------------------------------------------------------------
void take_turn(Thread* thread) {
    current = thread;
    threadIdx = {thread->x, thread->y, thread->z};
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

bool is_same(Site a, Site b) { return a.line == b.line && !strcmp(a.file, b.file); }

// -- the barrier ------------------------------------------------------------------
void open_barrier_if_complete() {
    if (at_barrier.empty() || at_barrier.size() < living) return;
    const Thread* first = at_barrier[0]->thread;
    for (Worker* other : at_barrier) {
        const Thread* thread = other->thread;
        if (is_same(thread->waits_at, first->waits_at)) continue;
        if (!begin_report(thread)) return;
        write_message("threads of one block wait at different barriers: this one in %s:%d, ", thread->waits_at.file,
                      thread->waits_at.line);
        write_message("thread (%u, %u, %u) in %s:%d", first->x, first->y, first->z, first->waits_at.file,
                      first->waits_at.line);
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
void close(Warp& warp, const std::shared_ptr<Meeting>& meeting) {
    auto& open = warp.meetings;
    open.erase(std::find(open.begin(), open.end(), meeting));
    for (Worker* other : meeting->waiting) wake(other);
    bool orders_memory = !strcmp(meeting->function, "__syncwarp");
    if (orders_memory) watch_syncwarp(unsigned(&warp - warps.data()), meeting->lanes.came);
}

void leave_kernel() {
    Thread* thread = worker->thread;
    --living;
    open_barrier_if_complete();
    Warp& warp = warps[thread->warp];
    warp.living &= ~(1u << thread->lane);
    auto open = warp.meetings;  // a copy, since closing removes
    for (auto& meeting : open) {
        if (meeting->is_complete(warp.living)) close(warp, meeting);
    }
    watch_thread_ends();
}

// -- workers ----------------------------------------------------------------------
void work() {
    for (;;) {
        while (begun < threads.size() && !must_stop()) {
            worker->thread = &threads[thread_order[begun++]];
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
            write_message(", whose mask 0x%08x names lane %d", meeting->mask, __builtin_ctz(missing));
            write_message(", which does not come");
        }
        write_message(")");
    }
}

// -- a block ----------------------------------------------------------------------
void prepare_block(uint64_t number) {
    block_now = number;
    unsigned across = launch->grid[0], down = launch->grid[1];
    blockIdx = {unsigned(number % across), unsigned(number / across % down), unsigned(number / across / down)};
    unsigned x = launch->block[0], y = launch->block[1];
    for (unsigned i = 0; i < threads.size(); ++i) {
        threads[i] = {i % x, i / x % y, i / x / y, i, i / WARP, i % WARP, nullptr, {nullptr, 0}};
    }
    warps.assign((threads.size() + WARP - 1) / WARP, Warp());
    for (const Thread& thread : threads) warps[thread.warp].living |= 1u << thread.lane;
    thread_order = in_order(threads.size());
    begun = 0;
    living = threads.size();
    votes = Votes();
    fill_shared_memory();
    watch_block_begins(unsigned(threads.size()));
}

}  // namespace

// -- what a launch calls ----------------------------------------------------------
void begin_schedule() {
    random_state = uint64_t(launch->order) * 0x9E3779B97F4A7C15u;
    block_order = in_order(size_t(launch->grid[0]) * launch->grid[1] * launch->grid[2]);
    threads.resize(size_t(launch->block[0]) * launch->block[1] * launch->block[2]);
}

uint64_t block_at(uint64_t i) { return block_order[i]; }

void run_block(uint64_t number) {
    prepare_block(number);
    while (!must_stop()) {
        if (!ready.empty()) {
            turn.swap(ready);
            for (size_t i = 0; i < turn.size() && !must_stop(); ++i) resume(turn[i]);
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

void go_to_scheduler() { switch_context(worker->context, scheduler); }

const Guarded& stack_in_use() { return worker->stack; }

// After an error some workers are held up in the middle of a thread, for ever: let them start anew.
void reset_workers() {
    idle.clear();
    turn.clear();
    ready.clear();
    at_barrier.clear();
    warps.clear();
    for (Worker* one : all_workers) {
        prepare_context(one->context, one->stack.memory, STACK_BYTES, work);
        idle.push_back(one);
    }
}

// -- what kernels call ------------------------------------------------------------
// in_kernel is cleared first and set again last.
Votes wait_for_block(const char* function, Site site, bool vote) {
    in_kernel = 0;
    watch_wait(function, site);
    votes.any |= vote;
    votes.all &= vote;
    votes.count += vote;
    current->waits_in = function;
    current->waits_at = site;
    at_barrier.push_back(worker);
    open_barrier_if_complete();  // the last one opens it, and then waits for its turn as all others
    go_to_scheduler();
    in_kernel = 1;
    return result;
}

Lanes meet(const char* function, Site site, unsigned mask, uint64_t value) {
    in_kernel = 0;
    watch_wait(function, site);
    unsigned lane = current->lane;
    Warp& warp = warps[current->warp];
    if (!(mask >> lane & 1)) fail(site, "%s: the mask 0x%08x leaves out the calling lane, %u", function, mask, lane);

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
    if (!is_same(meeting->site, site) || strcmp(meeting->function, function))
        fail(site, "lanes of one warp meet in different functions, %s in %s:%d and %s", meeting->function,
             meeting->site.file, meeting->site.line, function);
    meeting->lanes.came |= 1u << lane;
    meeting->lanes.value[lane] = value;
    if (meeting->is_complete(warp.living)) {
        close(warp, meeting);
    } else {
        meeting->waiting.push_back(worker);
        current->waits_in = function;
        current->waits_at = site;
        go_to_scheduler();
    }
    in_kernel = 1;
    return meeting->lanes;
}

int my_lane() { return int(current->lane); }

}  // namespace cuda_on_cpu
