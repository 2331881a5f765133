// Philox: random bits from a counter, the same as minitorch_alex/philox.py, bit for bit.
//
//     counter  four words of 64 bits: (block, step or epoch, call or sample number, 0)
//     key      two words of 64 bits:  (seed, hash of the stream's name)
//     answer   four random words of 64 bits
//
// An ordinary generator is a state that every draw moves on, which a million threads would have to queue for. Philox is
// a function instead: ten rounds scramble a counter under a key. Any thread computes any part of the stream, asking
// twice gives the same answer, and nothing is stored. A stream's blocks are numbered 1, 2, 3, ...: NumPy counts up
// before its first block.
//
// One round multiplies two of the four words by a constant each. The high half of a 128-bit product depends on every
// bit of its factors; it is mixed (^, exclusive or) with a word that was not multiplied and with the key, which itself
// moves on by a constant in every round. The low half, which is what the other place receives, can be undone, so no two
// counters ever give the same answer.
//
// Bound by arithmetic: 20 products of 64 x 64 bits, some 300 instructions for four words. This is philox4x64-10, which
// is also what numpy.random.Philox computes.
// Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

const int PHILOX_ROUNDS = 10;
const unsigned long long MULTIPLIER_A = 0xD2E7470EE14C6C93;
const unsigned long long MULTIPLIER_C = 0xCA5A826395121157;
const unsigned long long KEY_STEP_A = 0x9E3779B97F4A7C15;  // the golden ratio, as a 64-bit fraction
const unsigned long long KEY_STEP_C = 0xBB67AE8584CAA73B;  // sqrt(3) - 1

struct Words {
    unsigned long long a, b, c, d;
};

// philox4x64-10: a counter of four words under a key of two -> four random words.
__device__ inline Words philox(Words counter, unsigned long long key_a, unsigned long long key_c) {
    for (int round = 0; round < PHILOX_ROUNDS; ++round) {
        // __umul64hi is the upper half of the 128-bit product; * keeps the lower half.
        unsigned long long high_a = __umul64hi(counter.a, MULTIPLIER_A);
        unsigned long long high_c = __umul64hi(counter.c, MULTIPLIER_C);
        unsigned long long low_a = counter.a * MULTIPLIER_A;
        unsigned long long low_c = counter.c * MULTIPLIER_C;
        counter.a = high_c ^ counter.b ^ key_a;
        counter.b = low_c;
        counter.c = high_a ^ counter.d ^ key_c;
        counter.d = low_a;
        key_a += KEY_STEP_A;
        key_c += KEY_STEP_C;
    }
    return counter;
}
