// The list of a file's kernels, by which Python finds and calls them, with the types of their parameters.
//
// A launch on a GPU takes the bytes of the arguments as they come and checks nothing. So each parameter's type is
// written down as a short code, and Python compares what it is given:
//
//     f4 f8 i1 i2 i4 i8 u1 u2 u4 u8 b1    a number: floating point, signed, unsigned or bool, and its bytes
//     s16                                 some other type passed by value, and its bytes
//     P...                                a pointer to that, for reading and writing
//     C...                                a pointer to const, for reading only
#pragma once

#include <stddef.h>

#include <type_traits>
#include <utility>

namespace cuda_on_cpu {

template <typename T>
struct Letters {
    char text[8] = {};
    constexpr Letters() {
        int n = 0;
        using Plain = std::remove_cv_t<T>;
        using Target = std::remove_pointer_t<Plain>;
        if (std::is_pointer_v<Plain>) text[n++] = std::is_const_v<Target> ? 'C' : 'P';
        using Value = std::remove_cv_t<Target>;
        text[n++] = std::is_same_v<Value, bool>        ? 'b'
                    : std::is_floating_point_v<Value>  ? 'f'
                    : !std::is_integral_v<Value>       ? 's'
                    : std::is_signed_v<Value>          ? 'i'
                                                       : 'u';
        size_t bytes = 1;
        if constexpr (!std::is_void_v<Value>) bytes = sizeof(Value);
        if (bytes >= 100) text[n++] = char('0' + bytes / 100 % 10);
        if (bytes >= 10) text[n++] = char('0' + bytes / 10 % 10);
        text[n++] = char('0' + bytes % 10);
    }
};

template <typename T>
inline const char* code() {
    static constexpr Letters<T> letters;
    return letters.text;
}

struct Entry {
    const char* name;             // such as "im2col<float>"
    const char* const* codes;     // of the parameters
    int parameters;
    void (*run)(void** arguments);  // one thread
};

template <auto KERNEL, typename... Parameters, size_t... I>
inline void run_thread(void (*)(Parameters...), std::index_sequence<I...>, [[maybe_unused]] void** arguments) {
    KERNEL(*static_cast<std::remove_cv_t<Parameters>*>(arguments[I])...);
}

template <auto KERNEL, typename... Parameters>
inline Entry entry_of(const char* name, void (*)(Parameters...)) {
    static const char* const codes[] = {code<Parameters>()..., ""};
    auto run = [](void** arguments) {
        run_thread<KERNEL>(KERNEL, std::index_sequence_for<Parameters...>{}, arguments);
    };
    return {name, codes, sizeof...(Parameters), run};
}

template <auto KERNEL>
inline Entry entry(const char* name) {
    return entry_of<KERNEL>(name, KERNEL);
}

// Defined at the end of each translated file.
extern const Entry kernels[];
extern const int kernel_count;

}  // namespace cuda_on_cpu
