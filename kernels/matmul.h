// What the matrix kernels share: integer dot products of a unit, results, and activations.
#pragma once
#include "formats.h"

namespace matmul {

// Threads of a block of the gemv kernels: a multiple of 32, at most 1024. Every block quantises the activations for
// itself, so few large blocks are better than many small ones.
#ifndef RF_BLOCK_SIZE
#define RF_BLOCK_SIZE 512
#endif

// 32 quantised activations.
struct Acts {
    uint32_t q[8];
    float d, s; // x ≈ d·q; s = d·Σq
};

// 16 aligned bytes of global memory by their words: structures that are only copied would stay in memory.
RF_INLINE u32x4 read16(const void *p) { return load_global((const RF_GLOBAL void *)p); }
RF_INLINE f32x4 read_floats(const void *p) {
    u32x4 v = read16(p);
    return {bit_cast<float>(v.x), bit_cast<float>(v.y), bit_cast<float>(v.z), bit_cast<float>(v.w)};
}

RF_INLINE void set_words(u32x4 a, u32x4 b, uint32_t (&w)[8]) {
    w[0] = a.x, w[1] = a.y, w[2] = a.z, w[3] = a.w;
    w[4] = b.x, w[5] = b.y, w[6] = b.z, w[7] = b.w;
}

RF_INLINE int dot16(const uint32_t *w, const uint32_t *x) {
    int sum = dot4(w[0], x[0], 0);
    RF_UNROLL for (int i = 1; i < 4; i++) sum = dot4(w[i], x[i], sum);
    return sum;
}

// Σ of the first 16 of the activations.
RF_INLINE int first_half(const Acts &x) {
    const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
    return dot16(ones, x.q);
}

// sum + the product of a unit, expanded to `w`, and 32 activations.
template <typename F>
RF_INLINE float multiply(const uint32_t (&w)[8], const Factors &f, const Acts &x, float sum) {
    int a = dot16(w, x.q), b = dot16(w + 4, x.q + 4);
    if constexpr (F::SPLIT) {
        sum = __builtin_fmaf(x.d, __builtin_fmaf(f.d1, (float)b, f.d0 * (float)a), sum);
    } else {
        sum = __builtin_fmaf(f.d0, x.d * (float)(a + b), sum);
    }
    if constexpr (F::HALVES) {
        float first = x.d * (float)first_half(x);
        sum = __builtin_fmaf(f.m0, first, __builtin_fmaf(f.m1, x.s - first, sum));
    } else if constexpr (F::MINIMUM) {
        sum = __builtin_fmaf(f.m0, x.s, sum);
    }
    return sum;
}

RF_INLINE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

RF_INLINE float silu(float x) { return x * reciprocal(1.0f + exp_fast(-x)); }
RF_INLINE float gelu_tanh(float x) {
    float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanh_fast(inner));
}

template <typename F, typename G>
struct SameFormat {
    static constexpr bool YES = false;
};
template <typename F>
struct SameFormat<F, F> {
    static constexpr bool YES = true;
};

RF_INLINE bool paired(const MatmulArgs &a) { return a.epilogue >= RF_EPILOGUE_SILU; }

// The result of `row` of a part for row `t` of the activations, all parts but a gate and its up.
RF_INLINE void finish(const MatmulArgs &a, const MatmulPart &part, uint32_t t, uint32_t row, float y) {
    if (part.bias) y += part.bias[row];
    if (a.softcap != 0) y = a.softcap * tanh_fast(y * reciprocal(a.softcap));
    float *out = part.out + (uint64_t)t * part.out_stride + row;
    *out = a.epilogue == RF_EPILOGUE_ADD ? *out + y : y;
}

// The result of a row of part 0, the gate, and the same row of part 1.
RF_INLINE void finish_pair(const MatmulArgs &a, uint32_t t, uint32_t row, float gate, float up) {
    if (a.part[0].bias) gate += a.part[0].bias[row];
    if (a.part[1].bias) up += a.part[1].bias[row];
    float y = (a.epilogue == RF_EPILOGUE_SILU ? silu(gate) : gelu_tanh(gate)) * up;
    a.part[0].out[(uint64_t)t * a.part[0].out_stride + row] = y;
}

// Which rows a block multiplies: all parts' rows in tiles of TileRows, numbered through; a tile has rows of one part.
// A gate and its up count as one part.
struct TileSpan {
    uint32_t which;  // parts that count, for kernels of two formats
    uint32_t rows;   // of a tile
    uint32_t parts;
};

RF_INLINE uint32_t tiles_of_part(const MatmulArgs &a, const TileSpan &span, uint32_t p) {
    if (p >= span.parts || a.part[p].which != span.which) return 0;
    return (a.part[p].matrix.rows + span.rows - 1) / span.rows;
}
RF_INLINE uint32_t tiles_of(const MatmulArgs &a, const TileSpan &span) {
    return tiles_of_part(a, span, 0) + tiles_of_part(a, span, 1) + tiles_of_part(a, span, 2);
}

struct TilePlace {
    uint32_t part, row;
};
RF_INLINE TilePlace place_of(const MatmulArgs &a, const TileSpan &span, uint32_t tile) {
    uint32_t part = 0, first = tiles_of_part(a, span, 0), second = tiles_of_part(a, span, 1);
    if (tile >= first) {
        tile -= first, part = 1;
        if (tile >= second) tile -= second, part = 2;
    }
    return {part, tile * span.rows};
}

} // namespace matmul
