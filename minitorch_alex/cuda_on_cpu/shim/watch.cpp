// A watched run: every access to memory is looked at before it happens.
//
// g++ -fsanitize=thread puts a call before every load and store (__tsan_read4, __tsan_write8, ...). Those functions
// normally come from a library that looks for races between operating-system threads; here they are our own, at the
// end of this file.
//
// A race: two accesses to the same element, by two threads, one of them a write, not both atomic, and neither certainly
// before the other. On a GPU either may come first, so the result is a matter of luck. What is certain:
//     what a thread does happens in its own order;
//     what comes before a __syncthreads is before what comes after it, in all threads of the block;
//     what comes before a __syncwarp is before what comes after it, in the lanes that took part;
//     between blocks nothing is certain.
// So it does not matter which order the threads really had in this run: a race is found in every one.

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "runtime.h"

namespace cuda_on_cpu {
namespace {

const uint32_t NOBODY = 0xffffffff;
const int MOST_FINDINGS = 16;
const size_t MOST_EVENTS = 100000;

// -- who accessed an element last -------------------------------------------------
struct Access {
    uint32_t block;       // of several readers in several blocks: NOBODY
    uint32_t last_block;  // of the last of them
    uint32_t barrier;  // how many barriers its block had passed
    uint32_t time;     // how many __syncwarps its lane had passed, counted from 1; 0: no access yet
    uint32_t lanes;    // bit i: lane i of the warp; of several readers all
    uint32_t code;
    uint16_t warp;     // of several readers in several warps: MANY
    uint16_t thread;
    bool atomic;
};
const uint16_t MANY = 0xffff;

struct Reader {
    uint32_t block, code;
    uint16_t thread;
};

struct Element {
    Access write;
    Access read;     // of several readers what they have in common
    Reader other;    // one of them that is not the last, to be named if the last is the writer itself
    bool has_other;
};

struct Free {
    void operator()(void* memory) const { free(memory); }
};

// An array that a kernel was given, or one in shared memory.
struct Array {
    uint64_t start, end;
    uint64_t around_start, around_end;  // memory that surrounds it and is nobody else's
    uint32_t element_bytes;
    bool shared;
    int number;  // of the argument, or of the shared array
    std::unique_ptr<Element[], Free> elements;
};
std::vector<Array> arrays;

Array make_array(uint64_t start, uint64_t bytes, uint32_t element_bytes, bool shared, int number) {
    void* zeros = calloc(bytes / element_bytes + 1, sizeof(Element));  // time 0: nobody yet
    Element* elements = static_cast<Element*>(zeros);
    return {start, start + bytes, start, start + bytes, element_bytes, shared, number,
            std::unique_ptr<Element[], Free>(elements)};
}

// -- what is certainly before what ------------------------------------------------
uint32_t barriers;

// knows[a][b]: the accesses of lane b up to which time are before what lane a does now. knows[a][a] is a's own time.
struct WarpClock {
    uint32_t knows[WARP][WARP];
};
std::vector<WarpClock> clocks;
bool atomic_now;

Access this_access(uint64_t code) {
    const Thread& me = *current;
    uint32_t time = clocks[me.warp].knows[me.lane][me.lane];
    Access access = {};
    access.block = access.last_block = uint32_t(block_now);
    access.barrier = barriers;
    access.time = time;
    access.lanes = 1u << me.lane;
    access.code = uint32_t(code);
    access.warp = uint16_t(me.warp);
    access.thread = uint16_t(me.number);
    access.atomic = atomic_now;
    return access;
}

bool is_before_now(const Access& access) {
    if (access.time == 0) return true;
    if (access.block != uint32_t(block_now)) return false;
    if (access.barrier != barriers) return true;
    if (access.warp != current->warp) return false;
    const uint32_t* known = clocks[current->warp].knows[current->lane];
    for (unsigned lane = 0; lane < WARP; ++lane) {
        if (access.lanes >> lane & 1 && known[lane] < access.time) return false;
    }
    return true;
}

// Only the last reader is remembered, another one, and whether there were more: enough to see that a write conflicts
// with one, and to name it.
void add_reader(Element& element, Access now) {
    const Access& reader = element.read;
    if (is_before_now(reader)) {
        element.read = now;
        element.has_other = false;
        return;
    }
    if (reader.thread != now.thread || reader.last_block != now.last_block) {
        element.other = {reader.last_block, reader.code, reader.thread};
        element.has_other = true;
    }
    if (reader.block != now.block) now.block = NOBODY;
    if (reader.warp != now.warp) now.warp = MANY;
    now.lanes |= reader.lanes;
    now.time = std::min(now.time, reader.time);  // rather overlook a race than report what is none
    element.read = now;
}

// A reader other than the thread that writes now.
Access reader_to_name(const Element& element, const Access& now) {
    Access reader = element.read;
    bool is_me = reader.thread == now.thread && reader.last_block == now.last_block;
    if (is_me && element.has_other) {
        reader.thread = element.other.thread;
        reader.code = element.other.code;
        reader.last_block = element.other.block;
    }
    return reader;
}

// -- what is found ----------------------------------------------------------------
enum { RACE, UNWRITTEN, OUTSIDE };

struct Side {
    uint32_t block, thread;
    int32_t writes, atomic;
    uint64_t code;
};

struct Finding {
    int32_t kind;
    int32_t shared, number;  // which array
    int64_t element;
    int64_t bytes;
    Side now, before;
};
std::vector<Finding> findings;

void find(int kind, const Array& array, int64_t element, size_t bytes, const Access& now, bool writes,
          const Access* before = nullptr, bool before_writes = false) {
    uint64_t code_before = before ? before->code : 0;
    for (const Finding& other : findings) {  // once for each pair of places
        if (other.kind == kind && other.now.code == now.code && other.before.code == code_before) return;
    }
    if (findings.size() >= MOST_FINDINGS) return;
    Finding found = {kind, array.shared, array.number, element, int64_t(bytes), {}, {}};
    found.now = {uint32_t(block_now), now.thread, writes, now.atomic, now.code};
    if (before) found.before = {before->last_block, before->thread, before_writes, before->atomic, before->code};
    findings.push_back(found);
}

void check_element(const Array& array, uint64_t number, const Access& now, bool writes, size_t bytes) {
    Element& element = array.elements[number];
    bool both_atomic = now.atomic && element.write.atomic;
    if (!both_atomic && !is_before_now(element.write))
        find(RACE, array, int64_t(number), bytes, now, writes, &element.write, true);
    if (writes) {
        if (!is_before_now(element.read)) {
            Access reader = reader_to_name(element, now);
            find(RACE, array, int64_t(number), bytes, now, true, &reader, false);
        }
        element.write = now;
        element.read = Access();
        element.has_other = false;
    } else {
        if (array.shared && element.write.time == 0) find(UNWRITTEN, array, int64_t(number), bytes, now, false);
        if (!now.atomic) add_reader(element, now);
    }
}

// -- the diary of one thread ------------------------------------------------------
enum { READS, WRITES, WAITS };

struct Event {
    int32_t kind;
    int32_t shared, number;
    int32_t atomic;
    int64_t element;
    int64_t bytes;
    uint64_t code;
    unsigned char value[16];
    char function[24];
    char file[64];
    int32_t line;
};
std::vector<Event> events;
int64_t traced_block = -1, traced_thread = -1;
const void* written;  // the value of a write is there only afterwards: it is looked up at the next event

bool is_traced() {
    if (int64_t(block_now) != traced_block || int64_t(current->number) != traced_thread) return false;
    return events.size() < MOST_EVENTS;
}

void note_written_value() {
    if (!written) return;
    Event& last = events.back();
    memcpy(last.value, written, size_t(std::min<int64_t>(last.bytes, 16)));
    written = nullptr;
}

void note_access(const Array& array, uint64_t address, size_t bytes, bool writes, uint64_t code) {
    Event event = {};
    event.kind = writes ? WRITES : READS;
    event.shared = array.shared;
    event.number = array.number;
    event.atomic = atomic_now;
    event.element = int64_t((address - array.start) / array.element_bytes);
    event.bytes = int64_t(bytes);
    event.code = code;
    const void* place = reinterpret_cast<const void*>(address);
    if (writes) written = place;
    else memcpy(event.value, place, std::min<size_t>(bytes, 16));
    events.push_back(event);
}

// -- one access -------------------------------------------------------------------
void look_at(uint64_t address, size_t bytes, bool writes, uint64_t code) {
    note_written_value();
    for (const Array& array : arrays) {
        if (address < array.around_start || address >= array.around_end) continue;
        Access now = this_access(code);
        int64_t distance = int64_t(address) - int64_t(array.start), size = array.element_bytes;
        int64_t element = distance >= 0 ? distance / size : (distance + 1) / size - 1;
        if (address < array.start || address + bytes > array.end) {
            bool in_another = false;
            for (const Array& other : arrays) in_another |= address >= other.start && address + bytes <= other.end;
            if (in_another) continue;
            find(OUTSIDE, array, element, bytes, now, writes);
            return;
        }
        for (uint64_t at = address; at < address + bytes; at += array.element_bytes) {
            check_element(array, (at - array.start) / array.element_bytes, now, writes, bytes);
        }
        if (is_traced()) note_access(array, address, bytes, writes, code);
        return;
    }
}

void hook(void* address, size_t bytes, bool writes, void* after) {
    int before = in_kernel;
    if (!current || !before) return;  // the shim's own doings
    in_kernel = 0;
    // `after` is where the call of the hook returns to; the byte before it belongs to the line that made the call.
    look_at(reinterpret_cast<uint64_t>(address), bytes, writes, code_offset(static_cast<char*>(after) - 1));
    in_kernel = before;
}

}  // namespace

// -- what the runtime tells -------------------------------------------------------
void watch_launch_begins() {
    findings.clear();
    events.clear();
    written = nullptr;
}

void watch_launch_ends() { note_written_value(); }

void watch_block_begins(unsigned threads) {
    barriers = 0;
    atomic_now = false;
    WarpClock fresh = {};
    for (unsigned lane = 0; lane < WARP; ++lane) fresh.knows[lane][lane] = 1;
    clocks.assign((threads + WARP - 1) / WARP, fresh);
    for (Array& array : arrays) {  // a new block has new shared memory
        size_t elements = (array.end - array.start) / array.element_bytes;
        if (array.shared) std::fill_n(array.elements.get(), elements, Element());
    }
}

void watch_shared(const SharedArray& array) {
    int number = 0;
    for (const Array& other : arrays) number += other.shared;
    uint64_t element_bytes = uint64_t(atoi(array.type + 1));
    arrays.push_back(make_array(array.start, array.bytes, uint32_t(element_bytes), true, number));
}

void watch_barrier() { ++barriers; }

void watch_syncwarp(unsigned warp, unsigned lanes) {
    WarpClock& clock = clocks[warp];
    uint32_t all[WARP] = {};  // what they know together
    for (unsigned a = 0; a < WARP; ++a) {
        for (unsigned b = 0; b < WARP && lanes >> a & 1; ++b) all[b] = std::max(all[b], clock.knows[a][b]);
    }
    for (unsigned a = 0; a < WARP; ++a) {
        if (!(lanes >> a & 1)) continue;
        memcpy(clock.knows[a], all, sizeof all);
        ++clock.knows[a][a];  // a new time begins for it
    }
}

void watch_wait(const char* function, Site site) {
    note_written_value();
    if (!is_traced()) return;
    Event event = {};
    event.kind = WAITS;
    strncpy(event.function, function, sizeof event.function - 1);
    strncpy(event.file, site.file, sizeof event.file - 1);
    event.line = site.line;
    events.push_back(event);
}

void watch_thread_ends() { note_written_value(); }

void atomic_begins() { atomic_now = true; }
void atomic_ends() { atomic_now = false; }

}  // namespace cuda_on_cpu

using namespace cuda_on_cpu;
#define EXPORTED extern "C" __attribute__((visibility("default")))

// -- what Python calls ------------------------------------------------------------
// Before a launch: the arrays among the arguments, and the thread to keep a diary of (-1: none).
EXPORTED void cuda_on_cpu_watch_nothing() {
    arrays.clear();
    traced_block = traced_thread = -1;
}
EXPORTED void cuda_on_cpu_watch_array(int argument, uint64_t start, uint64_t bytes, uint32_t element_bytes,
                                      uint64_t around_start, uint64_t around_end) {
    Array array = make_array(start, bytes, element_bytes, false, argument);
    array.around_start = around_start;
    array.around_end = around_end;
    arrays.push_back(std::move(array));
}
EXPORTED void cuda_on_cpu_trace(int64_t block, int64_t thread) { traced_block = block, traced_thread = thread; }

// After it.
EXPORTED int cuda_on_cpu_findings(const Finding** first) {
    *first = findings.data();
    return int(findings.size());
}
EXPORTED int cuda_on_cpu_events(const Event** first) {
    *first = events.data();
    return int(events.size());
}

// -- what g++ calls ---------------------------------------------------------------
#define HOOK(name, bytes, writes) \
    extern "C" void name(void* address) { hook(address, bytes, writes, __builtin_return_address(0)); }
#define HOOKS(bytes)                                  \
    HOOK(__tsan_read##bytes, bytes, false)            \
    HOOK(__tsan_write##bytes, bytes, true)            \
    HOOK(__tsan_unaligned_read##bytes, bytes, false)  \
    HOOK(__tsan_unaligned_write##bytes, bytes, true)
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
extern "C" {
void __tsan_read_range(void* p, size_t bytes) { hook(p, bytes, false, __builtin_return_address(0)); }
void __tsan_write_range(void* p, size_t bytes) { hook(p, bytes, true, __builtin_return_address(0)); }
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
}
