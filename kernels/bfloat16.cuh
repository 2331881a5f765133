// bfloat16: the upper half of a float.
//
//     float      sign, 8 bits of exponent, 23 bits of fraction
//     bfloat16   sign, 8 bits of exponent,  7 bits of fraction: as large and as small, but to two or three digits only
//
// An array of them takes half the memory, and so half the time to read. To compute with one it is widened to float,
// exactly, by 16 zeros behind it; to store a float it is rounded. Both happen by themselves wherever one stands for the
// other. So a kernel written for T also runs with T = bfloat16; what it adds up or keeps for a while it declares as
// Wide<T>, lest it be rounded at every step.

struct bfloat16 {
    unsigned short bits;

    bfloat16() = default;

    // To the nearest, and of two that are equally near to the one whose last bit is 0. Adding half a unit of the last
    // place that stays (a little less where that place holds 0) lets the addition carry exactly when to round up; NaN,
    // whose fraction must not overflow, is set apart.
    __device__ bfloat16(float value) {
        unsigned whole = __float_as_uint(value);
        if (value != value) {
            bits = 0x7FC0;  // NaN
        } else {
            bits = (whole + 0x7FFF + (whole >> 16 & 1)) >> 16;
        }
    }

    __device__ operator float() const { return __uint_as_float((unsigned)bits << 16); }
};

// The type in which to compute with numbers of type T.
template <typename T> struct WideOf { using type = T; };
template <> struct WideOf<bfloat16> { using type = float; };
template <typename T> using Wide = typename WideOf<T>::type;
