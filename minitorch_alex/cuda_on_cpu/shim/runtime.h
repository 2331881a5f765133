// What the parts of the shim know of each other, and of Python (library.py has the same structs).
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

#include "barriers.h"
#include "fibers.h"
#include "kernel_table.h"

namespace cuda_on_cpu {

const unsigned WARP = 32;

struct Thread {
    unsigned x, y, z;  // threadIdx
    unsigned number;   // in its block
    unsigned warp;
    unsigned lane;
    const char* waits_in;  // the function it waits in, or nullptr
    Site waits_at;
};
extern Thread* current;     // the thread whose turn it is
extern uint64_t block_now;  // the number of its block

// -- a launch (launch.cpp) --------------------------------------------------------
// What Python asks for.
struct Launch {
    void** arguments;
    uint32_t grid[3];
    uint32_t block[3];
    uint64_t shared_bytes;  // dynamic
    uint64_t shared_limit;  // dynamic and static
    int32_t order;          // 0 forward, 1 reverse, else random with this seed
    int32_t guard_start;    // dynamic shared memory: 1 the guard lies before it, 0 behind it
};
extern const Launch* launch;
extern void (*run_one)(void** arguments);  // the kernel, for the thread whose turn it is

// What went wrong, where.
struct Report {
    int32_t failed;   // 0 no, 1 an error, 2 interrupted from the keyboard
    int32_t faulted;  // 1: by an access to `address`
    int32_t has_thread;
    uint32_t block[3];
    uint32_t thread[3];
    uint64_t address;
    uint64_t code;  // where in the library, 0: see the message
    char message[600];
};
extern Report* report;
bool begin_report(const Thread* thread);  // false: there is an error already, and the first one counts
void write_message(const char* format, ...);

// A signal may strike in the middle of anything. Only while in_kernel is set does it strike the kernel's own code, and
// can be answered at once.
extern volatile sig_atomic_t in_kernel;
extern volatile sig_atomic_t interrupted;
inline bool must_stop() { return report->failed || interrupted; }

// Code addresses as distances from where the library was loaded, the same in every run; addr2line wants them so.
const void* own_library();
uint64_t code_offset(const void* address);

// -- blocks and threads (scheduler.cpp) -------------------------------------------
void begin_schedule();           // before the first block
void run_block(uint64_t number);
uint64_t block_at(uint64_t i);   // the number of the block that comes as i-th
const Guarded& stack_in_use();
void go_to_scheduler();          // leave the current thread
void reset_workers();            // after an error

// -- shared memory (shared_memory.cpp) --------------------------------------------
void begin_shared_memory();
void fill_shared_memory();  // with NaN, for a new block
void end_shared_memory();

// -- what a watched run is told (watch.cpp), nothing otherwise --------------------
#ifdef CUDA_ON_CPU_WATCH
void watch_launch_begins();
void watch_launch_ends();
void watch_block_begins(unsigned threads);
void watch_shared(const SharedArray& array);
void watch_thread_ends();
void watch_wait(const char* function, Site site);
void watch_barrier();
void watch_syncwarp(unsigned warp, unsigned lanes);
#else
inline void watch_launch_begins() {}
inline void watch_launch_ends() {}
inline void watch_block_begins(unsigned) {}
inline void watch_shared(const SharedArray&) {}
inline void watch_thread_ends() {}
inline void watch_wait(const char*, Site) {}
inline void watch_barrier() {}
inline void watch_syncwarp(unsigned, unsigned) {}
#endif

}  // namespace cuda_on_cpu
