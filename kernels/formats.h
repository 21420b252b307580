// How weights lie on the device, and how a lane makes numbers of them.
//
// A *unit* is 32 consecutive numbers of a row; every 8 units are one block of a K-quant. A matrix is one allocation of up
// to four *planes*, each beginning at a multiple of 256 bytes; in each plane the rows follow each other without gaps, and
// so do the units of a row. Neighbouring lanes read neighbouring units: every load of 16 bytes by 32 lanes is 512
// consecutive bytes. src/backend/hip/planes.rs packs and unpacks; nothing is lost or added.
//
// Bytes of a unit, or of 8 units (`/8`), in each plane:
//
//   format   plane 0                    plane 1            plane 2        plane 3
//   Q4_0     16 nibbles, ^ 8            2 d
//   Q4_1     16 nibbles                 4 d, m
//   Q5_0     16 nibbles                 4 fifth bits       2 d
//   Q5_1     16 nibbles                 4 fifth bits       4 d, m
//   Q8_0     16 numbers 0–15            16 numbers 16–31   2 d
//   IQ4_NL   16 nibbles                 2 d
//   MXFP4    16 nibbles                 1 e
//   Q2_K     8 pairs of bits            2 scales           4 d, dmin /8
//   Q3_K     8 pairs of bits            4 third bits, ~    12 scales /8   2 d /8
//   Q4_K     16 nibbles                 16 head /8
//   Q5_K     16 nibbles                 4 fifth bits       16 head /8
//   Q6_K     16 nibbles                 8 pairs, ^ 2       2 scales       2 d /8
//   IQ4_XS   16 nibbles                 8 d, scales_h, scales_l /8
//   F16, BF16, F32: as in the file
//
// Nibbles: byte i holds number i in its low half and number 16 + i in its high one.
// Bits: bit j of byte b belongs to number 4j + b. Pairs: bits 2j, 2j + 1 of byte b of the first 4 bytes belong to number
// 4j + b, those of the second 4 bytes to number 16 + 4j + b.
// Head of Q4_K and Q5_K: d, dmin; then three words with a nibble for each group: scales' low bits, minima's low bits,
// and upper two bits of the scale (low) and of the minimum (high).
// Scales of Q3_K: a byte for each unit with the low nibbles of its two scales; then a nibble for each unit with their
// upper two bits.
// `^`, `~`: what makes the expanded byte a signed number without a subtraction, done once at packing.
#pragma once
#include "args.h"
#include "blocks.h"

namespace matmul {

// The planes of a matrix, from some row on.
struct Planes {
    const RF_GLOBAL uint8_t *p0, *p1, *p2, *p3;
};

// A unit's factors: number = d·q + m, where q is what `expand` gives; d0 and m0 for the numbers 0–15, d1 and m1 for 16–31.
struct Factors {
    float d0, d1, m0, m1;
};

// `Bi`: bytes of 8 units in plane i.
template <uint32_t B0, uint32_t B1, uint32_t B2, uint32_t B3>
struct Layout {
    static constexpr uint32_t BYTES = B0 + B1 + B2 + B3;

    // The planes from unit `first` on, the beginning of a row.
    RF_INLINE Planes planes(const MatrixArg &m, uint64_t first) {
        const RF_GLOBAL uint8_t *p = (const RF_GLOBAL uint8_t *)m.data;
        return {p + first * B0 / 8, p + m.plane[0] + first * B1 / 8, p + m.plane[1] + first * B2 / 8,
                p + m.plane[2] + first * B3 / 8};
    }
};

typedef const RF_GLOBAL uint8_t *Bytes;
RF_INLINE u32x4 load16(Bytes p, uint32_t offset) { return load_stream((const RF_GLOBAL u32x4 *)(p + offset)); }
RF_INLINE u32x2 load8(Bytes p, uint32_t offset) { return load_stream((const RF_GLOBAL u32x2 *)(p + offset)); }
RF_INLINE uint32_t load4(Bytes p, uint32_t offset) { return load_stream((const RF_GLOBAL uint32_t *)(p + offset)); }
RF_INLINE uint16_t load2(Bytes p, uint32_t offset) { return *(const RF_GLOBAL uint16_t *)(p + offset); }
RF_INLINE uint8_t load1(Bytes p, uint32_t offset) { return p[offset]; }

RF_INLINE float low_half(uint32_t pair) { return half_to_float((uint16_t)pair); }
RF_INLINE float high_half(uint32_t pair) { return half_to_float((uint16_t)(pair >> 16)); }

// 32 numbers of 4 bits, a byte each.
RF_INLINE void expand_nibbles(u32x4 q, uint32_t (&w)[8]) {
    uint32_t v[4] = {q.x, q.y, q.z, q.w};
    RF_UNROLL for (int i = 0; i < 4; i++) {
        w[i] = v[i] & 0x0f0f0f0fu;
        w[4 + i] = v[i] >> 4 & 0x0f0f0f0fu;
    }
}

template <int Left>
RF_INLINE uint32_t shifted(uint32_t v) {
    if constexpr (Left >= 0) return v << Left;
    else return v >> -Left;
}

// Puts bit j of each byte of `bits` to bit `To` of the bytes of w[j], which are zero there.
template <int To, int J = 0>
RF_INLINE void merge_bits(uint32_t bits, uint32_t (&w)[8]) {
    w[J] |= shifted<To - J>(bits) & (0x01010101u << To);
    if constexpr (J < 7) merge_bits<To, J + 1>(bits, w);
}
// Puts pair j % 4 of each byte of bits[j / 4] to the bits `To`, `To + 1` of the bytes of w[j].
template <int To, int J = 0>
RF_INLINE void merge_pairs(u32x2 bits, uint32_t (&w)[8]) {
    w[J] |= shifted<To - 2 * J>(bits.x) & (0x03030303u << To);
    w[4 + J] |= shifted<To - 2 * J>(bits.y) & (0x03030303u << To);
    if constexpr (J < 3) merge_pairs<To, J + 1>(bits, w);
}

// Sixteen signed bytes that nibbles stand for.
template <uint32_t T0, uint32_t T1, uint32_t T2, uint32_t T3>
RF_INLINE void look_up_nibbles(u32x4 q, uint32_t (&w)[8]) {
    uint32_t v[4] = {q.x, q.y, q.z, q.w};
    RF_UNROLL for (int i = 0; i < 4; i++) {
        // The low three bits choose in both halves of the table, the fourth between what they gave.
#if RF_NVIDIA
        // A selector is a nibble here, so the low and the high number of a byte are looked up side by side.
        uint32_t s = v[i] & 0x77777777u, pick = (v[i] >> 1 & 0x44444444u) | 0x32103210u;
        uint32_t a = __byte_perm(__byte_perm(T0, T1, s), __byte_perm(T2, T3, s), pick);
        s >>= 16, pick >>= 16;
        uint32_t b = __byte_perm(__byte_perm(T0, T1, s), __byte_perm(T2, T3, s), pick);
        w[i] = __byte_perm(a, b, 0x6420);
        w[4 + i] = __byte_perm(a, b, 0x7531);
#else
        RF_UNROLL for (int high = 0; high < 2; high++) {
            uint32_t s = v[i] >> (4 * high) & 0x07070707u;
            uint32_t pick = (v[i] >> (4 * high + 1) & 0x04040404u) | 0x03020100u;
            w[4 * high + i] = byte_permute(byte_permute(T3, T2, s), byte_permute(T1, T0, s), pick);
        }
#endif
    }
}
RF_INLINE void look_up_iq4(u32x4 q, uint32_t (&w)[8]) {
    look_up_nibbles<0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u>(q, w);
}
RF_INLINE void look_up_e2m1(u32x4 q, uint32_t (&w)[8]) {
    look_up_nibbles<0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu>(q, w);
}

// Every integer format has
//   SPLIT    whether d0 and d1 differ, MINIMUM whether m0 or m1 is not zero, HALVES whether m0 and m1 differ
//   UNIT     numbers of a unit
//   DEPTH    loads of a unit that a lane has registers for, two rows at a time
//   Raw      what a lane loads of a unit, in the types of memory: widened, it would be waited for at once
//   load     unit `u`, counted from where `at` begins
//   expand   32 numbers as signed bytes in order
//   factors  of the unit whose number in its block of 8 is `g`

struct Q4_0 : Layout<128, 16, 0, 0> {
    typedef BlockQ4_0 Block;
    static constexpr bool SPLIT = false, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        uint16_t d;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return {load16(at.p0, u * 16), load2(at.p1, u * 2)}; }
    // 16·(q − 8): the nibble, which was packed as two's complement, at the top of its byte.
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        uint32_t v[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
        RF_UNROLL for (int i = 0; i < 4; i++) {
            w[i] = v[i] << 4 & 0xf0f0f0f0u;
            w[4 + i] = v[i] & 0xf0f0f0f0u;
        }
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.d) * 0.0625f;
        return {d, d, 0, 0};
    }
};

struct Q4_1 : Layout<128, 32, 0, 0> {
    typedef BlockQ4_1 Block;
    static constexpr bool SPLIT = false, MINIMUM = true, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        uint32_t dm;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return {load16(at.p0, u * 16), load4(at.p1, u * 4)}; }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) { expand_nibbles(r.q, w); }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.dm), m = high_half(r.dm);
        return {d, d, m, m};
    }
};

struct Q5_0 : Layout<128, 32, 16, 0> {
    typedef BlockQ5_0 Block;
    static constexpr bool SPLIT = false, MINIMUM = true, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        uint32_t high;
        uint16_t d;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load16(at.p0, u * 16), load4(at.p1, u * 4), load2(at.p2, u * 2)};
    }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        expand_nibbles(r.q, w);
        merge_bits<4>(r.high, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.d), m = -16.0f * d;
        return {d, d, m, m};
    }
};

struct Q5_1 : Layout<128, 32, 32, 0> {
    typedef BlockQ5_1 Block;
    static constexpr bool SPLIT = false, MINIMUM = true, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        uint32_t high, dm;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load16(at.p0, u * 16), load4(at.p1, u * 4), load4(at.p2, u * 4)};
    }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        expand_nibbles(r.q, w);
        merge_bits<4>(r.high, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.dm), m = high_half(r.dm);
        return {d, d, m, m};
    }
};

struct Q8_0 : Layout<128, 128, 16, 0> {
    typedef BlockQ8_0 Block;
    static constexpr bool SPLIT = false, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 1;
    struct Raw {
        u32x4 a, b;
        uint16_t d;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load16(at.p0, u * 16), load16(at.p1, u * 16), load2(at.p2, u * 2)};
    }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        w[0] = r.a.x, w[1] = r.a.y, w[2] = r.a.z, w[3] = r.a.w;
        w[4] = r.b.x, w[5] = r.b.y, w[6] = r.b.z, w[7] = r.b.w;
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.d);
        return {d, d, 0, 0};
    }
};

struct IQ4_NL : Layout<128, 16, 0, 0> {
    typedef BlockIQ4_NL Block;
    static constexpr bool SPLIT = false, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    typedef Q4_0::Raw Raw;
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return Q4_0::load(at, u); }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) { look_up_iq4(r.q, w); }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.d);
        return {d, d, 0, 0};
    }
};

struct MXFP4 : Layout<128, 8, 0, 0> {
    typedef BlockMXFP4 Block;
    static constexpr bool SPLIT = false, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 1;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        uint8_t e;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return {load16(at.p0, u * 16), load1(at.p1, u)}; }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) { look_up_e2m1(r.q, w); }
    // 2^(e − 128), which meets numbers that are doubled; exponents 0 and 1 are subnormal.
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = bit_cast<float>(r.e < 2 ? 0x200000u << r.e : (uint32_t)(r.e - 1) << 23);
        return {d, d, 0, 0};
    }
};

struct Q2_K : Layout<64, 16, 4, 0> {
    typedef BlockQ2_K Block;
    static constexpr bool SPLIT = true, MINIMUM = true, HALVES = true;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x2 q;
        uint16_t scales;
        uint32_t dm;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load8(at.p0, u * 8), load2(at.p1, u * 2), load4(at.p2, u / 8 * 4)};
    }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        RF_UNROLL for (int j = 0; j < 8; j++) w[j] = 0;
        merge_pairs<0>(r.q, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.dm), m = -high_half(r.dm);
        return {d * (float)(r.scales & 15), d * (float)(r.scales >> 8 & 15), m * (float)(r.scales >> 4 & 15),
                m * (float)(r.scales >> 12)};
    }
};

struct Q3_K : Layout<64, 32, 12, 2> {
    typedef BlockQ3_K Block;
    static constexpr bool SPLIT = true, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x2 q;
        uint32_t high;
        uint8_t low_scales, high_scales;
        uint16_t d;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        uint32_t scales = u / 8 * 12;
        return {load8(at.p0, u * 8), load4(at.p1, u * 4), load1(at.p2, scales + u % 8),
                load1(at.p2, scales + 8 + u % 8 / 2), load2(at.p3, u / 8 * 2)};
    }
    // 32·(q − 4): q at the top of its byte, the uppermost bit flipped.
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        RF_UNROLL for (int j = 0; j < 8; j++) w[j] = 0;
        merge_pairs<5>(r.q, w);
        merge_bits<7>(r.high, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t g) {
        float d = low_half(r.d) * 0.03125f;
        uint32_t upper = (uint32_t)r.high_scales >> (4 * (g & 1));
        int a = (int)((r.low_scales & 15) | (upper & 3) << 4) - 32;
        int b = (int)((r.low_scales >> 4) | (upper & 12) << 2) - 32;
        return {d * (float)a, d * (float)b, 0, 0};
    }
};

// Group `g` of the head of Q4_K and Q5_K.
RF_INLINE Factors head_factors(const u32x4 &head, uint32_t g) {
    uint32_t upper = head.w >> (4 * g);
    uint32_t scale = (head.y >> (4 * g) & 15) | (upper & 3) << 4;
    uint32_t min = (head.z >> (4 * g) & 15) | (upper & 12) << 2;
    float d = low_half(head.x) * (float)scale, m = -high_half(head.x) * (float)min;
    return {d, d, m, m};
}

struct Q4_K : Layout<128, 16, 0, 0> {
    typedef BlockQ4_K Block;
    static constexpr bool SPLIT = false, MINIMUM = true, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q, head;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return {load16(at.p0, u * 16), load16(at.p1, u / 8 * 16)}; }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) { expand_nibbles(r.q, w); }
    RF_INLINE Factors factors(const Raw &r, uint32_t g) { return head_factors(r.head, g); }
};

struct Q5_K : Layout<128, 32, 16, 0> {
    typedef BlockQ5_K Block;
    static constexpr bool SPLIT = false, MINIMUM = true, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 1;
    struct Raw {
        u32x4 q;
        uint32_t high;
        u32x4 head;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load16(at.p0, u * 16), load4(at.p1, u * 4), load16(at.p2, u / 8 * 16)};
    }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        expand_nibbles(r.q, w);
        merge_bits<4>(r.high, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t g) { return head_factors(r.head, g); }
};

struct Q6_K : Layout<128, 64, 16, 2> {
    typedef BlockQ6_K Block;
    static constexpr bool SPLIT = true, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 1;
    struct Raw {
        u32x4 q;
        u32x2 high;
        uint16_t scales, d;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) {
        return {load16(at.p0, u * 16), load8(at.p1, u * 8), load2(at.p2, u * 2), load2(at.p3, u / 8 * 2)};
    }
    // 4·(q − 32): q at the top of its byte, the uppermost bit flipped.
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) {
        uint32_t v[4] = {r.q.x, r.q.y, r.q.z, r.q.w};
        RF_UNROLL for (int i = 0; i < 4; i++) {
            w[i] = v[i] << 2 & 0x3c3c3c3cu;
            w[4 + i] = v[i] >> 2 & 0x3c3c3c3cu;
        }
        merge_pairs<6>(r.high, w);
    }
    RF_INLINE Factors factors(const Raw &r, uint32_t) {
        float d = low_half(r.d) * 0.25f;
        return {d * (float)(int8_t)r.scales, d * (float)(int8_t)(r.scales >> 8), 0, 0};
    }
};

struct IQ4_XS : Layout<128, 8, 0, 0> {
    typedef BlockIQ4_XS Block;
    static constexpr bool SPLIT = false, MINIMUM = false, HALVES = false;
    static constexpr uint32_t BLOCK_UNITS = 8;
    static constexpr int UNIT = 32, DEPTH = 2;
    struct Raw {
        u32x4 q;
        u32x2 head;
    };
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return {load16(at.p0, u * 16), load8(at.p1, u / 8 * 8)}; }
    RF_INLINE void expand(const Raw &r, uint32_t (&w)[8]) { look_up_iq4(r.q, w); }
    RF_INLINE Factors factors(const Raw &r, uint32_t g) {
        int scale = (int)((r.head.y >> (4 * g) & 15) | (r.head.x >> (16 + 2 * g) & 3) << 4) - 32;
        float d = low_half(r.head.x) * (float)scale;
        return {d, d, 0, 0};
    }
};

template <typename F>
struct SameBytes {
    static_assert(F::BYTES * F::BLOCK_UNITS == sizeof(typename F::Block) * 8, "planes hold what the blocks hold");
    static constexpr bool OK = true;
};
static_assert(SameBytes<Q4_0>::OK && SameBytes<Q4_1>::OK && SameBytes<Q5_0>::OK && SameBytes<Q5_1>::OK &&
                  SameBytes<Q8_0>::OK && SameBytes<IQ4_NL>::OK && SameBytes<MXFP4>::OK && SameBytes<Q2_K>::OK &&
                  SameBytes<Q3_K>::OK && SameBytes<Q4_K>::OK && SameBytes<Q5_K>::OK && SameBytes<Q6_K>::OK &&
                  SameBytes<IQ4_XS>::OK,
              "");

// Byte `b` of a word of `expand`.
RF_INLINE float signed_byte(uint32_t w, int b) { return (float)(int8_t)(w >> (8 * b)); }

// The 32 numbers of a unit.
template <typename F>
RF_INLINE void decode_unit(const typename F::Raw &raw, uint32_t g, float (&out)[32]) {
    uint32_t w[8];
    F::expand(raw, w);
    Factors f = F::factors(raw, g);
    RF_UNROLL for (int i = 0; i < 32; i++) {
        float d = F::SPLIT && i >= 16 ? f.d1 : f.d0, q = signed_byte(w[i / 4], i % 4);
        out[i] = F::MINIMUM ? __builtin_fmaf(d, q, F::HALVES && i >= 16 ? f.m1 : f.m0) : d * q;
    }
}

// ------------------------------------------------------------------------------------------------------------ floats

// A unit is what 16 bytes hold: UNIT numbers.
struct F32 : Layout<128, 0, 0, 0> {
    typedef float Element;
    typedef u32x4 Raw;
    static constexpr int UNIT = 4, DEPTH = 2;
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return load16(at.p0, u * 16); }
    RF_INLINE float number(float v) { return v; }
    RF_INLINE void decode(const u32x4 &raw, float (&out)[4]) {
        out[0] = bit_cast<float>(raw.x), out[1] = bit_cast<float>(raw.y);
        out[2] = bit_cast<float>(raw.z), out[3] = bit_cast<float>(raw.w);
    }
};

struct F16 : Layout<128, 0, 0, 0> {
    typedef uint16_t Element;
    typedef u32x4 Raw;
    static constexpr int UNIT = 8, DEPTH = 2;
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return load16(at.p0, u * 16); }
    RF_INLINE float number(uint16_t v) { return half_to_float(v); }
    RF_INLINE void decode(const u32x4 &raw, float (&out)[8]) {
        uint32_t v[4] = {raw.x, raw.y, raw.z, raw.w};
        RF_UNROLL for (int i = 0; i < 4; i++) out[2 * i] = low_half(v[i]), out[2 * i + 1] = high_half(v[i]);
    }
};

struct BF16 : Layout<128, 0, 0, 0> {
    typedef uint16_t Element;
    typedef u32x4 Raw;
    static constexpr int UNIT = 8, DEPTH = 2;
    RF_INLINE Raw load(const Planes &at, uint32_t u) { return load16(at.p0, u * 16); }
    RF_INLINE float number(uint16_t v) { return bfloat_to_float(v); }
    RF_INLINE void decode(const u32x4 &raw, float (&out)[8]) {
        uint32_t v[4] = {raw.x, raw.y, raw.z, raw.w};
        RF_UNROLL for (int i = 0; i < 4; i++) {
            out[2 * i] = bit_cast<float>(v[i] << 16), out[2 * i + 1] = bit_cast<float>(v[i] & 0xffff0000u);
        }
    }
};

// One line for each format: X(type, name in kernels).
#define RF_INTEGER_FORMATS(X)                                                                                        \
    X(Q4_0, q4_0) X(Q4_1, q4_1) X(Q5_0, q5_0) X(Q5_1, q5_1) X(Q8_0, q8_0) X(Q2_K, q2_k) X(Q3_K, q3_k) X(Q4_K, q4_k) \
    X(Q5_K, q5_k) X(Q6_K, q6_k) X(IQ4_NL, iq4_nl) X(IQ4_XS, iq4_xs) X(MXFP4, mxfp4)
#define RF_FLOAT_FORMATS(X) X(F32, f32) X(F16, f16) X(BF16, bf16)

} // namespace matmul
