// Products of tiles of 16 weight rows × 16 rows of activations on whatever an architecture has for it: WMMA, MFMA,
// mma.sync, or integer dot products. Used by gemm.hip.
//
// Tiles lie in shared memory, row by row, each row's bytes along the columns. A *fragment* is 16 rows × 32 bytes: 32 numbers
// of 8 bits or 16 of 16 bits, as a wave holds them. Activations are the rows of the product and weights its columns, except
// on NVIDIA: so a lane has results of one or two weight rows (LANE_ROWS) and of several rows of activations (LANE_TOKENS).
// The order of the columns within a fragment does not matter as long as both sides share it.
#pragma once
#include "matmul.h"

namespace matmul {

#define RF_TILE_ELEMENTS (256 / RF_WAVE)

#if RF_MMA_SYNC || RF_WMMA_GFX11 || RF_WMMA_GFX12 || RF_MFMA
#define RF_MATRIX_UNITS 1
#endif

RF_INLINE uint32_t wave_lane() { return thread_index() % RF_WAVE; }
RF_INLINE uint32_t wave_index() { return thread_index() / RF_WAVE; }

// ---------------------------------------------------------------------------------------- where a lane's results are

#if RF_NVIDIA
constexpr int LANE_ROWS = 2, LANE_TOKENS = 4;
RF_INLINE uint32_t lane_row(int r) { return wave_lane() / 4 + 8 * (uint32_t)r; }
RF_INLINE uint32_t lane_token(int t) { return wave_lane() % 4 * 2 + (uint32_t)(t % 2 + t / 2 * 8); }
RF_INLINE constexpr int row_of(int e) { return e / 2 % 2; }
RF_INLINE constexpr int token_of(int e) { return e / 4 * 2 + e % 2; }
// One number for each of the lane's tokens, from those of a tile.
RF_INLINE void lane_values(const float *tile, float (&out)[LANE_TOKENS]) {
    f32x2 a = *(const f32x2 *)(tile + lane_token(0)), b = *(const f32x2 *)(tile + lane_token(2));
    out[0] = a.x, out[1] = a.y, out[2] = b.x, out[3] = b.y;
}
#else
constexpr int LANE_ROWS = 1, LANE_TOKENS = RF_TILE_ELEMENTS;
RF_INLINE uint32_t lane_row(int) { return wave_lane() % 16; }
RF_INLINE uint32_t lane_token(int t) { return wave_lane() / 16 * RF_TILE_ELEMENTS + (uint32_t)t; }
RF_INLINE constexpr int row_of(int) { return 0; }
RF_INLINE constexpr int token_of(int e) { return e; }
RF_INLINE void lane_values(const float *tile, float (&out)[LANE_TOKENS]) {
    const f32x4 *p = (const f32x4 *)(tile + lane_token(0));
    RF_UNROLL for (int i = 0; i < LANE_TOKENS / 4; i++) {
        f32x4 v = p[i];
        out[4 * i] = v.x, out[4 * i + 1] = v.y, out[4 * i + 2] = v.z, out[4 * i + 3] = v.w;
    }
}
#endif

// ---------------------------------------------------------------------------------------------------------- integers

// Products of fragments of bytes. `Split` keeps the first and the second 16 columns apart.
//   Weights, Tokens: fragments; weights(p, stride), tokens(p, stride): from shared memory, p at the tile's first row
//   multiply(w, x, a, b): a = products, or those of the first half, and b those of the second, as float

#if RF_MMA_SYNC

struct Fragment {
    uint32_t r[4];
};

// Four 8 × 16-byte matrices: lane 8m + i says where row i of matrix m is.
RF_INLINE Fragment load_matrices(const uint8_t *p) {
    Fragment f;
    uint32_t at = (uint32_t)__cvta_generic_to_shared(p);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3])
                 : "r"(at)
                 : "memory");
    return f;
}
// Rows 0–7 and 8–15 of bytes 0–15, then of bytes 16–31.
RF_INLINE Fragment load_weights(const uint8_t *p, uint32_t stride) {
    uint32_t lane = wave_lane();
    return load_matrices(p + (lane % 16) * stride + lane / 16 * 16);
}
// Bytes 0–15 and 16–31 of rows 0–7, then of rows 8–15.
RF_INLINE Fragment load_tokens(const uint8_t *p, uint32_t stride) {
    uint32_t lane = wave_lane();
    return load_matrices(p + (lane % 8 + lane / 16 * 8) * stride + lane / 8 % 2 * 16);
}

// Sums begin at the bits of 1.5 · 2²³: with them the bits of a sum are those of a float that is larger by that number.
#define RF_SUM_ZERO 0x4b400000
RF_INLINE float sum_to_float(int v) { return bit_cast<float>(v) - 12582912.0f; }

struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(const Fragment &w, const Fragment &x, float (&a)[8], float (&b)[8]) {
        RF_UNROLL for (int h = 0; h < 2; h++) { // rows 0–7 of the activations, rows 8–15
            int z = RF_SUM_ZERO, c[4], d[4];
            if constexpr (Split) {
                asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
                    : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                    : "r"(w.r[0]), "r"(w.r[1]), "r"(x.r[2 * h]), "r"(z));
                asm("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %7, %7, %7};"
                    : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
                    : "r"(w.r[2]), "r"(w.r[3]), "r"(x.r[2 * h + 1]), "r"(z));
                RF_UNROLL for (int i = 0; i < 4; i++) b[4 * h + i] = sum_to_float(d[i]);
            } else {
                asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                    "{%10, %10, %10, %10};"
                    : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
                    : "r"(w.r[0]), "r"(w.r[1]), "r"(w.r[2]), "r"(w.r[3]), "r"(x.r[2 * h]), "r"(x.r[2 * h + 1]), "r"(z));
            }
            RF_UNROLL for (int i = 0; i < 4; i++) a[4 * h + i] = sum_to_float(c[i]);
        }
    }
};

#else // AMD

typedef int i32v2 __attribute__((ext_vector_type(2)));
typedef int i32v4 __attribute__((ext_vector_type(4)));
typedef int i32v8 __attribute__((ext_vector_type(8)));
typedef float f32v4 __attribute__((ext_vector_type(4)));
typedef float f32v8 __attribute__((ext_vector_type(8)));
typedef half_t f16v4 __attribute__((ext_vector_type(4)));
typedef half_t f16v8 __attribute__((ext_vector_type(8)));
typedef half_t f16v16 __attribute__((ext_vector_type(16)));
typedef short i16v4 __attribute__((ext_vector_type(4)));
typedef short i16v8 __attribute__((ext_vector_type(8)));
typedef short i16v16 __attribute__((ext_vector_type(16)));

#if RF_WMMA_GFX11 || !RF_MATRIX_UNITS
// All 32 bytes of a row in each lane; both halves of a wave hold the same.
struct Fragment {
    i32v4 v[2];
};
RF_INLINE Fragment load_row(const uint8_t *p) { return {{*(const i32v4 *)p, *(const i32v4 *)(p + 16)}}; }
RF_INLINE Fragment load_weights(const uint8_t *p, uint32_t stride) { return load_row(p + wave_lane() % 16 * stride); }
#endif

#if RF_WMMA_GFX11
// Row m of the product comes to register m / 2 of half m % 2: taken from row 8 · (m % 2) + m / 2, neighbours stay together.
RF_INLINE Fragment load_tokens(const uint8_t *p, uint32_t stride) {
    uint32_t m = wave_lane() % 16;
    return load_row(p + (m % 2 * 8 + m / 2) * stride);
}
struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(const Fragment &w, const Fragment &x, float (&a)[8], float (&b)[8]) {
        i32v8 zero = {}, c = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, x.v[0], true, w.v[0], zero, false);
        i32v8 d = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(true, x.v[1], true, w.v[1], Split ? zero : c, false);
        RF_UNROLL for (int i = 0; i < 8; i++) {
            a[i] = (float)(Split ? c[i] : d[i]);
            if (Split) b[i] = (float)d[i];
        }
    }
};
#elif RF_WMMA_GFX12
// Each half of a wave holds half of the columns.
struct Fragment {
    i32v2 v[2];
};
RF_INLINE Fragment load_row(const uint8_t *p) { return {{*(const i32v2 *)p, *(const i32v2 *)(p + 16)}}; }
RF_INLINE Fragment load_weights(const uint8_t *p, uint32_t stride) {
    return load_row(p + wave_lane() % 16 * stride + wave_lane() / 16 * 8);
}
RF_INLINE Fragment load_tokens(const uint8_t *p, uint32_t stride) { return load_weights(p, stride); }
struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(const Fragment &w, const Fragment &x, float (&a)[8], float (&b)[8]) {
        i32v8 zero = {}, c = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, x.v[0], true, w.v[0], zero, false);
        i32v8 d = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32_gfx12(true, x.v[1], true, w.v[1], Split ? zero : c, false);
        RF_UNROLL for (int i = 0; i < 8; i++) {
            a[i] = (float)(Split ? c[i] : d[i]);
            if (Split) b[i] = (float)d[i];
        }
    }
};
#elif RF_MFMA_I8_K32
// Each quarter of a wave holds 8 bytes.
typedef long Fragment;
RF_INLINE Fragment load_weights(const uint8_t *p, uint32_t stride) {
    return *(const Fragment *)(p + wave_lane() % 16 * stride + wave_lane() / 16 * 8);
}
RF_INLINE Fragment load_tokens(const uint8_t *p, uint32_t stride) { return load_weights(p, stride); }
struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(Fragment w, Fragment x, float (&a)[4], float (&b)[4]) {
        bool first = wave_lane() < 32;
        i32v4 zero = {}, d = zero;
        i32v4 c = __builtin_amdgcn_mfma_i32_16x16x32_i8(x, Split && !first ? 0 : w, zero, 0, 0, 0);
        if (Split) d = __builtin_amdgcn_mfma_i32_16x16x32_i8(x, first ? 0 : w, zero, 0, 0, 0);
        RF_UNROLL for (int i = 0; i < 4; i++) a[i] = (float)c[i], b[i] = (float)d[i];
    }
};
#elif RF_MFMA_I8_K16
// Each quarter of a wave holds 4 bytes of each half.
struct Fragment {
    int v[2];
};
RF_INLINE Fragment load_weights(const uint8_t *p, uint32_t stride) {
    p += wave_lane() % 16 * stride + wave_lane() / 16 * 4;
    return {{*(const int *)p, *(const int *)(p + 16)}};
}
RF_INLINE Fragment load_tokens(const uint8_t *p, uint32_t stride) { return load_weights(p, stride); }
struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(const Fragment &w, const Fragment &x, float (&a)[4], float (&b)[4]) {
        i32v4 zero = {}, c = __builtin_amdgcn_mfma_i32_16x16x16i8(x.v[0], w.v[0], zero, 0, 0, 0);
        i32v4 d = __builtin_amdgcn_mfma_i32_16x16x16i8(x.v[1], w.v[1], Split ? zero : c, 0, 0, 0);
        RF_UNROLL for (int i = 0; i < 4; i++) {
            a[i] = (float)(Split ? c[i] : d[i]);
            if (Split) b[i] = (float)d[i];
        }
    }
};
#else
// Without matrix units a lane multiplies its weight row by each of its rows of activations, which it reads on the way.
struct TokenRows {
    const uint8_t *p;
    uint32_t stride;
};
RF_INLINE TokenRows load_tokens(const uint8_t *p, uint32_t stride) { return {p + lane_token(0) * stride, stride}; }
struct ByteTile {
    template <bool Split>
    RF_INLINE void multiply(const Fragment &w, const TokenRows &x, float (&a)[RF_TILE_ELEMENTS],
                            float (&b)[RF_TILE_ELEMENTS]) {
        RF_UNROLL for (int t = 0; t < RF_TILE_ELEMENTS; t++) {
            Fragment row = load_row(x.p + (uint32_t)t * x.stride);
            int sums[2] = {0, 0};
            RF_UNROLL for (int i = 0; i < 8; i++) {
                sums[i / 4] = dot4((uint32_t)w.v[i / 4][i % 4], (uint32_t)row.v[i / 4][i % 4], sums[i / 4]);
            }
            a[t] = (float)(Split ? sums[0] : sums[0] + sums[1]);
            b[t] = (float)sums[1];
        }
    }
};
#endif
#endif

// ------------------------------------------------------------------------------------------------------------ floats

// sums += products of fragments of 16 halves, or of bfloats.
#if RF_MATRIX_UNITS

#if RF_WMMA_GFX12
// Each half of a wave holds 8 of the 16 columns.
typedef i32v4 HalfFragment;
RF_INLINE HalfFragment load_half_weights(const uint8_t *p, uint32_t stride) {
    return *(const i32v4 *)(p + wave_lane() % 16 * stride + wave_lane() / 16 * 16);
}
RF_INLINE HalfFragment load_half_tokens(const uint8_t *p, uint32_t stride) { return load_half_weights(p, stride); }
#elif RF_MFMA
typedef i32v2 HalfFragment;
RF_INLINE HalfFragment load_half_weights(const uint8_t *p, uint32_t stride) {
    return *(const i32v2 *)(p + wave_lane() % 16 * stride + wave_lane() / 16 * 8);
}
RF_INLINE HalfFragment load_half_tokens(const uint8_t *p, uint32_t stride) { return load_half_weights(p, stride); }
#else
typedef Fragment HalfFragment;
RF_INLINE HalfFragment load_half_weights(const uint8_t *p, uint32_t stride) { return load_weights(p, stride); }
RF_INLINE HalfFragment load_half_tokens(const uint8_t *p, uint32_t stride) { return load_tokens(p, stride); }
#endif

template <bool Bfloat>
RF_INLINE void multiply_halves(const HalfFragment &w, const HalfFragment &x, float (&sums)[RF_TILE_ELEMENTS]) {
#if RF_MMA_SYNC
    RF_UNROLL for (int h = 0; h < 2; h++) {
        float *c = sums + 4 * h;
        if constexpr (Bfloat) {
            asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(w.r[0]), "r"(w.r[1]), "r"(w.r[2]), "r"(w.r[3]), "r"(x.r[2 * h]), "r"(x.r[2 * h + 1]));
        } else {
            asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                "{%0, %1, %2, %3};"
                : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                : "r"(w.r[0]), "r"(w.r[1]), "r"(w.r[2]), "r"(w.r[3]), "r"(x.r[2 * h]), "r"(x.r[2 * h + 1]));
        }
    }
#else
#if RF_WMMA_GFX11
    f32v8 c;
    RF_UNROLL for (int i = 0; i < 8; i++) c[i] = sums[i];
    if constexpr (Bfloat) c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(bit_cast<i16v16>(x), bit_cast<i16v16>(w), c);
    else c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(bit_cast<f16v16>(x), bit_cast<f16v16>(w), c);
#elif RF_WMMA_GFX12
    f32v8 c;
    RF_UNROLL for (int i = 0; i < 8; i++) c[i] = sums[i];
    if constexpr (Bfloat) c = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32_gfx12(bit_cast<i16v8>(x), bit_cast<i16v8>(w), c);
    else c = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(bit_cast<f16v8>(x), bit_cast<f16v8>(w), c);
#else
    f32v4 c;
    RF_UNROLL for (int i = 0; i < 4; i++) c[i] = sums[i];
    if constexpr (Bfloat) c = __builtin_amdgcn_mfma_f32_16x16x16bf16_1k(bit_cast<i16v4>(x), bit_cast<i16v4>(w), c, 0, 0, 0);
    else c = __builtin_amdgcn_mfma_f32_16x16x16f16(bit_cast<f16v4>(x), bit_cast<f16v4>(w), c, 0, 0, 0);
#endif
    RF_UNROLL for (int i = 0; i < RF_TILE_ELEMENTS; i++) sums[i] = c[i];
#endif
}

#endif

} // namespace matmul
