// The key-value cache and what happens to a head on its way there: norm and rotation.
//
// A page holds 32 tokens: [layer][k | v][n_head_kv][32][head_dim] elements of half or single precision. Its address is
// read from memory, hence RF_GLOBAL. Head sizes are multiples of 8, so that 8 elements are one or two aligned vectors.
#pragma once
#include "args.h"

#define RF_KEYS 0u
#define RF_VALUES 1u

#define RF_LOG2E 1.44269504088896341f
// Less than any score; finite, so that a masked score, which is twice that, differs from it by a number.
#define RF_NO_SCORE (-1e30f)

// Eight neighbouring elements as they lie in the cache, and as numbers.
struct HalfCache {
    typedef uint16_t Element;
    struct Eight {
        u32x4 bits;
    };
    RF_INLINE Eight load(const RF_GLOBAL Element *p) { return {load_global(p)}; }
    RF_INLINE Eight load_shared(const Element *p) { return {*(const u32x4 *)p}; }
    RF_INLINE f32x4 four(const Eight &eight, int half) {
        uint32_t low = half ? eight.bits.z : eight.bits.x, high = half ? eight.bits.w : eight.bits.y;
        return {half_to_float((uint16_t)low), half_to_float((uint16_t)(low >> 16)), half_to_float((uint16_t)high),
                half_to_float((uint16_t)(high >> 16))};
    }
    RF_INLINE Element element(float v) { return float_to_half_clamped(v); }
};

struct FloatCache {
    typedef float Element;
    struct Eight {
        u32x4 low, high;
    };
    RF_INLINE Eight load(const RF_GLOBAL Element *p) { return {load_global(p), load_global(p + 4)}; }
    RF_INLINE Eight load_shared(const Element *p) { return {*(const u32x4 *)p, *(const u32x4 *)(p + 4)}; }
    RF_INLINE f32x4 four(const Eight &eight, int half) { return bit_cast<f32x4>(half ? eight.high : eight.low); }
    RF_INLINE Element element(float v) { return v; }
};

// Elements before the 32 rows of a head in a page.
RF_INLINE uint64_t head_offset(const HeadShape &shape, uint32_t kind, uint32_t kv_head) {
    uint64_t heads = ((uint64_t)shape.layer * 2 + kind) * shape.n_head_kv + kv_head;
    return heads * (RF_PAGE_TOKENS * shape.head_dim);
}

// One token's row of a head in its page.
template <typename Cache>
RF_INLINE RF_GLOBAL typename Cache::Element *cache_row(uint64_t page, const HeadShape &shape, uint32_t position,
                                                       uint32_t kind, uint32_t kv_head) {
    return (RF_GLOBAL typename Cache::Element *)page + head_offset(shape, kind, kv_head) +
           (position % RF_PAGE_TOKENS) * shape.head_dim;
}

// A head of up to `Class` elements in a group of 32 lanes. A lane holds every 32nd rotary pair; what does not rotate
// forms pairs of neighbours, so that every element is in one pair, whatever the style.
template <int Class>
struct Head {
    static constexpr int PAIRS = Class / 64;
    float a[PAIRS], b[PAIRS];
    float gain_a[PAIRS], gain_b[PAIRS], cosine[PAIRS], sine[PAIRS];

    struct Places {
        uint32_t a, b;
    };
    static RF_METHOD Places places(uint32_t pair, uint32_t pairs, uint32_t style) {
        if (style == RF_ROPE_NEOX && pair < pairs) return {pair, pair + pairs};
        return {pair * 2, pair * 2 + 1};
    }
    // Calls visit(i, places) for each of the lane's pairs, as many as the head has.
    template <typename Visit>
    RF_METHOD void each(uint32_t head_dim, const RopeArg &rope, Visit visit) const {
        RF_UNROLL for (int i = 0; i < PAIRS; i++) {
            uint32_t pair = lane32() + 32 * i;
            if (pair < head_dim / 2) visit(i, places(pair, rope.pairs, rope.style));
        }
    }
    // Issues all loads at once: of the head, the norm's gain, and the row's rotation. What a lane has beyond the head is
    // 0, read from its first pair so that no condition comes between the loads.
    RF_METHOD void load(const float *x, uint32_t head_dim, const RopeArg &rope, const float *gain, bool rotates,
                        uint32_t row) {
        Places at[PAIRS];
        RF_UNROLL for (int i = 0; i < PAIRS; i++) {
            uint32_t pair = lane32() + 32 * i;
            at[i] = places(pair < head_dim / 2 ? pair : 0, rope.pairs, rope.style);
            a[i] = x[at[i].a], b[i] = x[at[i].b];
            gain_a[i] = gain_b[i] = cosine[i] = 1, sine[i] = 0;
        }
        if (gain)
            RF_UNROLL for (int i = 0; i < PAIRS; i++) gain_a[i] = gain[at[i].a], gain_b[i] = gain[at[i].b];
        if (rotates && rope.pairs > 0) {
            const float *cosines = rope.rotation + (uint64_t)row * 2 * rope.pairs, *sines = cosines + rope.pairs;
            RF_UNROLL for (int i = 0; i < PAIRS; i++) {
                uint32_t pair = lane32() + 32 * i, place = pair < rope.pairs ? pair : 0;
                cosine[i] = cosines[place], sine[i] = sines[place];
                cosine[i] = pair < rope.pairs ? cosine[i] : 1.0f, sine[i] = pair < rope.pairs ? sine[i] : 0.0f;
            }
        }
    }
    // Norm, if there is one, and rotation.
    RF_METHOD void finish(uint32_t head_dim, const NormArg &norm) {
        if (norm.gain) {
            float sum = 0;
            RF_UNROLL for (int i = 0; i < PAIRS; i++)
                sum += lane32() + 32 * i < head_dim / 2 ? a[i] * a[i] + b[i] * b[i] : 0.0f;
            float factor = inverse_sqrt(group_sum(sum) / (float)head_dim + norm.epsilon);
            RF_UNROLL for (int i = 0; i < PAIRS; i++) a[i] *= factor * gain_a[i], b[i] *= factor * gain_b[i];
        }
        RF_UNROLL for (int i = 0; i < PAIRS; i++) {
            float first = a[i], second = b[i];
            a[i] = first * cosine[i] - second * sine[i];
            b[i] = first * sine[i] + second * cosine[i];
        }
    }
};
