// float2, float3, float4 and their kin: a few numbers side by side, which a GPU loads at once.
//
// Two and four are aligned to their size, up to 16 bytes, as on the GPU: a float4 at another address is an error there,
// and is reported here too.
#pragma once

#define VECTORS(type, name)                                                                                  \
    struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                                  \
    struct name##3 { type x, y, z; };                                                                         \
    struct alignas(4 * sizeof(type) < 16 ? 4 * sizeof(type) : 16) name##4 { type x, y, z, w; };               \
    inline name##2 make_##name##2(type x, type y) { return {x, y}; }                                          \
    inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; }                               \
    inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }

VECTORS(signed char, char)
VECTORS(unsigned char, uchar)
VECTORS(short, short)
VECTORS(unsigned short, ushort)
VECTORS(int, int)
VECTORS(unsigned int, uint)
VECTORS(long long, longlong)
VECTORS(unsigned long long, ulonglong)
VECTORS(float, float)
VECTORS(double, double)
#undef VECTORS

// A size in up to three dimensions.
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
