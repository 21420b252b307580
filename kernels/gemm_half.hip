// Prefill on matrix units for half precision: weights of integer formats, decoded to halves.
//
//   kernel          grid                                                     threads  dynamic shared memory
//   gemm_half_<f>   ⌈most rows of a part / 128⌉, ⌈n / RF_HALF_TILE_N⌉, parts  256      0
//
// Arguments as gemm_<f>'s. There, each 32 columns cost three to five instructions a result for scales and minima, more than
// matrix units need for the products; here scales and minima are in the weights, and only the activations' scale remains.
// Decoding rounds a weight by 2^-11 of its block's largest, an order of magnitude less than what quantising the activations
// does. Weights are multiplied by 2^8, so that small ones are no subnormal halves: the host takes these kernels where a
// matrix's largest weight is between 2^-10 and 250 (planes::suits_halves), and gemm_<f> elsewhere and for few rows.
#include "tile.h"

#if RF_MATRIX_UNITS

#ifndef RF_HALF_TILE_N
#define RF_HALF_TILE_N 128 // rows of activations of a block
#endif

namespace matmul {

constexpr int HG_THREADS = 256, HG_M = 128, HG_K = 64, HG_UNITS = HG_K / 32;
constexpr int HG_STRIDE = HG_K * 2 + 16;                           // bytes of a row in shared memory
constexpr int HG_WAVES = HG_THREADS / RF_WAVE, HG_WAVES_N = 2;     // waves of a block, and along the activations
constexpr int HG_TILES_M = HG_M / 16 / (HG_WAVES / HG_WAVES_N);    // tiles of a wave along the weight rows
constexpr int HG_TILES_N = RF_HALF_TILE_N / 16 / HG_WAVES_N;       // and along the activations
constexpr int HG_TOKENS = RF_HALF_TILE_N * HG_UNITS / HG_THREADS;  // units of activations of a thread
static_assert(HG_M * HG_UNITS == HG_THREADS && HG_TOKENS * HG_THREADS == RF_HALF_TILE_N * HG_UNITS, "threads share evenly");
constexpr float HG_SCALE = 256;

// ----------------------------------------------------------------------------------------------------- pairs of halves

#if RF_NVIDIA
RF_INLINE uint32_t halves_fma(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}
RF_INLINE uint32_t halves_add(uint32_t a, uint32_t b) {
    uint32_t d;
    asm("add.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
    return d;
}
// Bytes 0 and 1, or 2 and 3, below bytes of 0x64.
RF_INLINE uint32_t above_1024(uint32_t v, int high) { return __byte_perm(v, 0x64646464u, high ? 0x4342 : 0x4140); }
#else
typedef half_t f16v2 __attribute__((ext_vector_type(2)));
RF_INLINE uint32_t halves_fma(uint32_t a, uint32_t b, uint32_t c) {
    return bit_cast<uint32_t>(__builtin_elementwise_fma(bit_cast<f16v2>(a), bit_cast<f16v2>(b), bit_cast<f16v2>(c)));
}
RF_INLINE uint32_t halves_add(uint32_t a, uint32_t b) {
    return bit_cast<uint32_t>(bit_cast<f16v2>(a) + bit_cast<f16v2>(b));
}
RF_INLINE uint32_t above_1024(uint32_t v, int high) {
    return byte_permute(0x64646464u, v, high ? 0x04030402u : 0x04010400u);
}
#endif

RF_INLINE uint32_t twice(float v) { return float_to_half(v) * 0x10001u; }

// Two of four signed bytes as halves: with the sign flipped, a byte in the low bits of 1024 is 1152 more than it was.
RF_INLINE uint32_t signed_halves(uint32_t bytes, int high) {
    return halves_add(above_1024(bytes ^ 0x80808080u, high), 0xe480e480u);
}

// ------------------------------------------------------------------------------------------------------------- steps

struct alignas(16) HalvesStep {
    uint8_t w[HG_M * HG_STRIDE];
    uint8_t x[RF_HALF_TILE_N * HG_STRIDE];
    float d[HG_UNITS][RF_HALF_TILE_N];
};

// What a thread brings of a step: a unit of a weight row, and units of activations.
template <typename F>
struct HalvesLoads {
    typename F::Raw raw;
    u32x4 q[HG_TOKENS][2];
    float d[HG_TOKENS];

    // What is behind the end is read as the last; units count for nothing since their activations' scales are 0.
    RF_METHOD void load(const MatmulArgs &a, const MatrixArg &m, uint32_t row0, uint32_t token0, uint32_t unit0) {
        uint32_t units = a.columns / 32, unit = unit0 + thread_index() % HG_UNITS, at = least(unit, units - 1);
        Planes planes = F::planes(m, (uint64_t)row0 * units);
        raw = F::load(planes, least(thread_index() / HG_UNITS, m.rows - 1 - row0) * units + at);
        RF_UNROLL for (int i = 0; i < HG_TOKENS; i++) {
            uint32_t token = least(token0 + (thread_index() + i * HG_THREADS) / HG_UNITS, a.n - 1);
            uint64_t block = (uint64_t)token * units + at;
            const u32x4 *p = (const u32x4 *)a.acts.q + block * 2;
            q[i][0] = read16(p), q[i][1] = read16(p + 1);
            d[i] = unit < units ? a.acts.scales[block].x : 0;
        }
    }

    RF_METHOD void store(HalvesStep &to, uint32_t unit0) const {
        uint32_t k = thread_index() % HG_UNITS, w[8];
        F::expand(raw, w);
        Factors f = F::factors(raw, (unit0 + k) % 8);
        uint32_t d[2] = {twice(f.d0 * HG_SCALE), twice(f.d1 * HG_SCALE)};
        uint32_t m[2] = {twice(f.m0 * HG_SCALE), twice(f.m1 * HG_SCALE)};
        u32x4 *row = (u32x4 *)(to.w + thread_index() / HG_UNITS * HG_STRIDE + k * 64);
        RF_UNROLL for (int j = 0; j < 4; j++) {
            uint32_t h[4];
            RF_UNROLL for (int i = 0; i < 4; i++) {
                uint32_t number = signed_halves(w[2 * j + i / 2], i % 2);
                h[i] = halves_fma(number, d[F::SPLIT && j >= 2], m[F::HALVES && j >= 2]);
            }
            row[j] = {h[0], h[1], h[2], h[3]};
        }
        RF_UNROLL for (int i = 0; i < HG_TOKENS; i++) store_token(to, i);
    }

    RF_METHOD void store_token(HalvesStep &to, int i) const {
        uint32_t token = (thread_index() + (uint32_t)i * HG_THREADS) / HG_UNITS, k = thread_index() % HG_UNITS;
        uint32_t x[8];
        set_words(q[i][0], q[i][1], x);
        u32x4 *row = (u32x4 *)(to.x + token * HG_STRIDE + k * 64);
        RF_UNROLL for (int j = 0; j < 4; j++) {
            row[j] = {signed_halves(x[2 * j], 0), signed_halves(x[2 * j], 1), signed_halves(x[2 * j + 1], 0),
                      signed_halves(x[2 * j + 1], 1)};
        }
        to.d[k][token] = d[i];
    }
};

typedef float HalvesSums[HG_TILES_M][HG_TILES_N][RF_TILE_ELEMENTS];

RF_INLINE void multiply_step(const HalvesStep &from, uint32_t row0, uint32_t token0, HalvesSums &sums) {
    _Pragma("unroll 1") for (uint32_t k = 0; k < HG_UNITS; k++) {
        HalfFragment w[HG_TILES_M][2];
        RF_UNROLL for (int m = 0; m < HG_TILES_M; m++) {
            const uint8_t *p = from.w + (row0 + m * 16) * HG_STRIDE + k * 64;
            w[m][0] = load_half_weights(p, HG_STRIDE);
            w[m][1] = load_half_weights(p + 32, HG_STRIDE);
        }
        RF_UNROLL for (int t = 0; t < HG_TILES_N; t++) {
            const uint8_t *p = from.x + (token0 + t * 16) * HG_STRIDE + k * 64;
            HalfFragment x = load_half_tokens(p, HG_STRIDE), y = load_half_tokens(p + 32, HG_STRIDE);
            float d[LANE_TOKENS];
            lane_values(from.d[k] + token0 + t * 16, d);
            RF_UNROLL for (int m = 0; m < HG_TILES_M; m++) {
                float part[RF_TILE_ELEMENTS] = {};
                multiply_halves<false>(w[m][0], x, part);
                multiply_halves<false>(w[m][1], y, part);
                RF_UNROLL for (int e = 0; e < RF_TILE_ELEMENTS; e++) {
                    sums[m][t][e] = __builtin_fmaf(d[token_of(e)], part[e], sums[m][t][e]);
                }
            }
        }
    }
}

template <typename F>
RF_INLINE void gemm_half_stage(const MatmulArgs &a, uint32_t row_tile, uint32_t token_tile, uint32_t p) {
    __shared__ HalvesStep step;
    const MatmulPart &part = a.part[p];
    uint32_t row0 = row_tile * HG_M, token0 = token_tile * RF_HALF_TILE_N, units = a.columns / 32;
    if (row0 >= part.matrix.rows || token0 >= a.n) return;
    uint32_t wave_row = wave_index() / HG_WAVES_N * HG_TILES_M * 16;
    uint32_t wave_token = wave_index() % HG_WAVES_N * HG_TILES_N * 16;
    bool works = token0 + wave_token < a.n;
    HalvesSums sums = {};
    HalvesLoads<F> loads;
    loads.load(a, part.matrix, row0, token0, 0);
    _Pragma("unroll 1") for (uint32_t unit = 0; unit < units; unit += HG_UNITS) {
        loads.store(step, unit);
        barrier();
        if (unit + HG_UNITS < units) loads.load(a, part.matrix, row0, token0, unit + HG_UNITS);
        if (works) multiply_step(step, wave_row, wave_token, sums);
        barrier();
    }
    RF_UNROLL for (int m = 0; m < HG_TILES_M; m++) {
        RF_UNROLL for (int t = 0; t < HG_TILES_N; t++) {
            RF_UNROLL for (int e = 0; e < RF_TILE_ELEMENTS; e++) {
                uint32_t row = row0 + wave_row + m * 16 + lane_row(row_of(e));
                uint32_t token = token0 + wave_token + t * 16 + lane_token(token_of(e));
                if (row < part.matrix.rows && token < a.n) finish(a, part, token, row, sums[m][t][e] * (1 / HG_SCALE));
            }
        }
    }
}

#define RF_GEMM_HALF(F, name)                                                          \
    RF_KERNEL(HG_THREADS, 2) gemm_half_##name(const RF_GRID_CONSTANT MatmulArgs a) {   \
        release_dependents();                                                          \
        wait_for_inputs();                                                             \
        gemm_half_stage<F>(a, block_x(), block_y(), block_z());                        \
    }
RF_INTEGER_FORMATS(RF_GEMM_HALF)

} // namespace matmul

#endif
