// Matrix units for half precision: products of tiles of 16 × 16 with float32 sums, as the makers' lanes hold them.
//
// Attention needs two products, which both are Σₖ rows[i][k] · rows[j][k] over operands with k along a row:
//   scores[query][key]  = Σ over elements of q[query] · k[key]
//   results[query][d]   = Σ over keys     of weights[query] · valuesᵀ[d]
// AMD's units are given the keys (valuesᵀ) on the left, NVIDIA's on the right: in both a lane then holds scores of few
// queries, and those are, rounded, just what the second product wants of this lane (on gfx11: of this and of the lane
// in the other half of the wave).
//
// | | queries of a lane | its scores of a tile |
// |---|---|---|
// | gfx11, gfx12 | lane % 16 | 8 keys, in halves of the wave |
// | gfx90a, gfx942 | lane % 16 | 4 keys, in quarters of the wave |
// | mma.sync | lane / 4 and lane / 4 + 8 | 4 keys of each |
#pragma once
#include "portable.h"

#if RF_WMMA_GFX11 || RF_WMMA_GFX12 || RF_MFMA || RF_MMA_SYNC
#define RF_HALF_TILES 1

#if RF_WMMA_GFX11
#define RF_TILE_WORDS 8 // of two halves that a lane holds of an operand
#define RF_TILE_SUMS 8  // sums that it holds
#elif RF_MFMA
#define RF_TILE_WORDS 2
#define RF_TILE_SUMS 4
#else
#define RF_TILE_WORDS 4
#define RF_TILE_SUMS 8
#endif
#if RF_MMA_SYNC
#define RF_TILE_QUERIES 2
#else
#define RF_TILE_QUERIES 1
#endif

struct OperandTile {
    uint32_t words[RF_TILE_WORDS];
};
struct SumTile {
    float sums[RF_TILE_SUMS];
};

RF_INLINE uint32_t wave_lane() { return thread_index() % RF_WAVE; }

// Where the two halves of a word of an operand are.
RF_INLINE uint32_t operand_row(int word) {
#if RF_MMA_SYNC
    return wave_lane() / 4 + word % 2 * 8;
#else
    return wave_lane() % 16;
#endif
}
RF_INLINE uint32_t operand_column(int word) {
#if RF_MMA_SYNC
    return wave_lane() % 4 * 2 + word / 2 * 8;
#elif RF_WMMA_GFX11
    return word * 2;
#else
    return wave_lane() / 16 * (2 * RF_TILE_WORDS) + word * 2;
#endif
}

// Which of the lane's queries a sum belongs to, and which query of the tile that is.
RF_INLINE constexpr int query_slot(int sum) { return sum / 2 % RF_TILE_QUERIES; }
RF_INLINE uint32_t query_of(int slot) {
#if RF_MMA_SYNC
    return wave_lane() / 4 + slot * 8;
#else
    return wave_lane() % 16;
#endif
}
// Which key of the tile a score belongs to.
RF_INLINE uint32_t key_of(int sum) {
#if RF_MMA_SYNC
    return sum / 4 * 8 + wave_lane() % 4 * 2 + sum % 2;
#else
    return wave_lane() / 16 * RF_TILE_SUMS + sum;
#endif
}
// Which element of the tile a result belongs to.
RF_INLINE uint32_t element_of(int sum) {
#if RF_WMMA_GFX11
    return sum * 2 + wave_lane() / 16;
#else
    return key_of(sum);
#endif
}
// The row of its tile in which a key has to lie, so that `key_of` holds: gfx11 has even rows in one half of a wave and
// odd ones in the other, but the second product needs neighbours.
RF_INLINE uint32_t key_row(uint32_t key) {
#if RF_WMMA_GFX11
    return key % 8 * 2 + key / 8;
#else
    return key;
#endif
}

RF_INLINE uint32_t pack_halves(float low, float high) {
#if RF_MMA_SYNC
    return bit_cast<uint32_t>(__floats2half2_rn(low, high));
#else
    typedef _Float16 half2 __attribute__((ext_vector_type(2)));
    half2 v = {(_Float16)low, (_Float16)high};
    return bit_cast<uint32_t>(v);
#endif
}

// An operand from shared memory; `row` is that row of it for which the lane fetches (see `fetched_row`), 16-byte aligned.
RF_INLINE uint32_t fetched_row() { return wave_lane() % 16; }
RF_INLINE OperandTile load_operand(const uint16_t *row) {
    OperandTile t;
#if RF_WMMA_GFX11
    u32x4 low = ((const u32x4 *)row)[0], high = ((const u32x4 *)row)[1];
    t = {{low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}};
#elif RF_WMMA_GFX12
    u32x4 v = *(const u32x4 *)(row + wave_lane() / 16 * 8);
    t = {{v.x, v.y, v.z, v.w}};
#elif RF_MFMA
    u32x2 v = *(const u32x2 *)(row + wave_lane() / 16 * 4);
    t = {{v.x, v.y}};
#else
    uint32_t address = (uint32_t)__cvta_generic_to_shared(row + wave_lane() / 16 * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(t.words[0]), "=r"(t.words[1]), "=r"(t.words[2]), "=r"(t.words[3])
                 : "r"(address));
#endif
    return t;
}

// sums += left · rightᵀ in the order that the maker's unit has.
#if RF_MMA_SYNC
RF_INLINE void multiply_eight(float *sums, const OperandTile &left, uint32_t right0, uint32_t right1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
        : "r"(left.words[0]), "r"(left.words[1]), "r"(left.words[2]), "r"(left.words[3]), "r"(right0), "r"(right1));
}
#endif

// Adds to the scores (results) of a tile: `rows` are keys (valuesᵀ), `queries` queries (weights).
RF_INLINE void multiply_tiles(SumTile &tile, const OperandTile &rows, const OperandTile &queries) {
#if RF_MMA_SYNC
    multiply_eight(tile.sums, queries, rows.words[0], rows.words[2]);
    multiply_eight(tile.sums + 4, queries, rows.words[1], rows.words[3]);
#else
    typedef _Float16 halves __attribute__((ext_vector_type(2 * RF_TILE_WORDS)));
    typedef float floats __attribute__((ext_vector_type(RF_TILE_SUMS)));
    halves left = bit_cast<halves>(rows), right = bit_cast<halves>(queries);
    floats sums = bit_cast<floats>(tile);
#if RF_WMMA_GFX11
    sums = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(left, right, sums);
#elif RF_WMMA_GFX12
    sums = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32_gfx12(left, right, sums);
#else
    sums = __builtin_amdgcn_mfma_f32_16x16x16f16(left, right, sums, 0, 0, 0);
#endif
    tile = bit_cast<SumTile>(sums);
#endif
}

// Two halves of an operand of gfx11, which holds each element twice, from one half that the lane's half of the wave has.
#if RF_WMMA_GFX11
RF_INLINE OperandTile both_halves(const uint32_t *own) {
    OperandTile t;
    bool upper = wave_lane() >= 16;
    RF_UNROLL for (int i = 0; i < 4; i++) {
        uint32_t other = shuffle_xor_by<16>(own[i]);
        t.words[i] = upper ? other : own[i];
        t.words[i + 4] = upper ? own[i] : other;
    }
    return t;
}
#endif

// Weights, which stand where the scores stood, as operand of the second product.
RF_INLINE OperandTile weights_operand(const SumTile &weights) {
#if RF_WMMA_GFX11
    uint32_t own[4];
    RF_UNROLL for (int i = 0; i < 4; i++) own[i] = pack_halves(weights.sums[2 * i], weights.sums[2 * i + 1]);
    return both_halves(own);
#else
    OperandTile t;
    RF_UNROLL for (int i = 0; i < RF_TILE_WORDS; i++)
        t.words[i] = pack_halves(weights.sums[2 * i], weights.sums[2 * i + 1]);
    return t;
#endif
}

// Maximum and sum over the lanes that hold scores of the same query.
RF_INLINE float query_max(float v) {
#if RF_MMA_SYNC
    v = __builtin_fmaxf(v, shuffle_xor_by<1>(v));
    return __builtin_fmaxf(v, shuffle_xor_by<2>(v));
#else
    v = __builtin_fmaxf(v, shuffle_xor_by<16>(v));
    return RF_WAVE == 64 ? __builtin_fmaxf(v, shuffle_xor(v, 32)) : v;
#endif
}
RF_INLINE float query_sum(float v) {
#if RF_MMA_SYNC
    v += shuffle_xor_by<1>(v);
    return v + shuffle_xor_by<2>(v);
#else
    v += shuffle_xor_by<16>(v);
    return RF_WAVE == 64 ? v + shuffle_xor(v, 32) : v;
#endif
}
#endif
