// What g++ calls where its checks (-fsanitize=bounds,alignment,shift-exponent,integer-divide-by-zero) find something.
//
// g++ puts a comparison before each index into an array whose size it knows, such as a __shared__ or a local one, and a
// call of one of these functions for when it fails. Normally they come from a library that ends the program.

#include <stdint.h>

#include "barriers.h"

namespace {

struct Source {
    const char* file;
    uint32_t line;
    uint32_t column;
    operator cuda_on_cpu::Site() const { return {file, int(line)}; }
};

struct Type {
    uint16_t kind;
    uint16_t details;
    char name[1];  // such as 'float [256]', with the quotes
};

struct OutOfBounds {
    Source source;
    Type* array;
    Type* index;
};

struct Mismatch {
    Source source;
    Type* type;
    unsigned char log_alignment;
    unsigned char kind;
};

struct Division {
    Source source;
    Type* type;
};

struct Shift {
    Source source;
    Type* left;
    Type* right;
};

}  // namespace

extern "C" {

[[noreturn]] void __ubsan_handle_out_of_bounds_abort(OutOfBounds* what, uintptr_t index) {
    cuda_on_cpu::fail(what->source, "index %lld is outside of the array %s", (long long)index, what->array->name);
}

[[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(Mismatch* what, uintptr_t address) {
    unsigned alignment = 1u << what->log_alignment;
    cuda_on_cpu::fail(what->source, "%s is read or written at an address that is not a multiple of %u, but %u more",
                      what->type->name, alignment, unsigned(address % alignment));
}

[[noreturn]] void __ubsan_handle_divrem_overflow_abort(Division* what, uintptr_t, uintptr_t by) {
    cuda_on_cpu::fail(what->source, by ? "the smallest number is divided by -1" : "division by zero");
}

[[noreturn]] void __ubsan_handle_shift_out_of_bounds_abort(Shift* what, uintptr_t, uintptr_t by) {
    cuda_on_cpu::fail(what->source, "%s is shifted by %lld bits", what->left->name, (long long)by);
}

}  // extern "C"
