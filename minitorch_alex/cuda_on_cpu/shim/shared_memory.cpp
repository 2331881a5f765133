// Where a block's shared memory is: the __shared__ arrays of fixed size, and the dynamic one whose size a launch says.

#include <link.h>
#include <stdio.h>
#include <string.h>

#include <vector>

#include "runtime.h"

namespace cuda_on_cpu {
namespace {

thread_local volatile char in_thread_local_memory;  // so that there is such memory, and by writing it, here and now

struct Stretch {
    unsigned char* start;
    size_t bytes;
};

Stretch static_memory;
Guarded dynamic_pages;
unsigned char* dynamic_start;
std::vector<SharedArray> arrays;  // those that the kernel has declared so far

// Where this library's thread_local variables, that is its __shared__ arrays, lie.
Stretch find_static_memory() {
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

void check_limit() {
    size_t fixed = 0;
    for (const SharedArray& array : arrays) {
        if (array.start != reinterpret_cast<uint64_t>(dynamic_start)) fixed += array.bytes;
    }
    if (fixed + launch->shared_bytes > launch->shared_limit)
        fail({nullptr, 0}, "a block needs %zu + %zu bytes of shared memory (static + dynamic), but may have %zu", fixed,
             size_t(launch->shared_bytes), size_t(launch->shared_limit));
}

}  // namespace

void begin_shared_memory() {
    arrays.clear();
    static_memory = find_static_memory();
    // An array that ends with its pages, or starts with them. Either end is at a multiple of 16.
    dynamic_pages = allocate_guarded(launch->shared_bytes);
    size_t pages = dynamic_pages.all_bytes - 2 * size_t(dynamic_pages.memory - dynamic_pages.pages);
    dynamic_start = dynamic_pages.memory + (launch->guard_start ? 0 : (pages - launch->shared_bytes) / 16 * 16);
}

// All bits set is NaN as a float, -1 as an int: what nobody has written shows.
void fill_shared_memory() {
    memset(static_memory.start, 0xFF, static_memory.bytes);
    if (launch->shared_bytes) memset(dynamic_start, 0xFF, launch->shared_bytes);
}

void end_shared_memory() { release(dynamic_pages); }

// -- what kernels call ------------------------------------------------------------
bool is_declared(const void* start) {
    for (const SharedArray& array : arrays) {
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
    arrays.push_back(array);
    check_limit();
    watch_shared(array);
    in_kernel = 1;
}

void* dynamic_shared_memory() { return dynamic_start; }
size_t dynamic_shared_bytes() { return launch->shared_bytes; }

}  // namespace cuda_on_cpu

// -- what Python calls ------------------------------------------------------------
#define EXPORTED extern "C" __attribute__((visibility("default")))
using namespace cuda_on_cpu;

// Those of the last launch.
EXPORTED int cuda_on_cpu_shared_arrays(const SharedArray** first) {
    *first = arrays.data();
    return int(arrays.size());
}
