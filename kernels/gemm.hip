// Prefill: matrices times many rows of activations, on matrix units where there are.
//
//   kernel     grid                                                       threads  dynamic shared memory
//   gemm_<f>   ⌈most rows of a part / RF_TILE_M⌉, ⌈n / RF_TILE_N⌉, parts  256      0
//
// Integer formats read a.acts, float formats a.x. Epilogues: store and add; a gate and its up are two parts, and gate_up
// (norm.hip) joins them.
//
// A block makes RF_TILE_M weight rows × RF_TILE_N rows of activations, RF_TILE_K columns at a time: weights are
// expanded to bytes once for the block and lie in shared memory beside the activations, while the next step's are on their
// way to registers. Scales belong to 32 columns (16 in some formats), so matrix units add up 32 columns as integers and
// floats add those.
#include "tile.h"

#define RF_TILE_M 128 // weight rows of a block
#ifndef RF_TILE_N
#define RF_TILE_N 64 // rows of activations of a block
#endif
#ifndef RF_TILE_K
#define RF_TILE_K 128 // columns of a step
#endif

namespace matmul {

constexpr int GEMM_THREADS = 256;
constexpr int GEMM_WAVES = GEMM_THREADS / RF_WAVE;
constexpr int WAVE_TILES = RF_TILE_M / 16 / GEMM_WAVES; // tiles of a wave along the weight rows
constexpr int TOKEN_TILES = RF_TILE_N / 16;             // and along the activations
constexpr int STEP_UNITS = RF_TILE_K / 32;
constexpr int STRIDE = RF_TILE_K + 16; // bytes of a row in shared memory: 16 more, so that rows begin in other banks
constexpr int WEIGHT_LOADS = RF_TILE_M * STEP_UNITS / GEMM_THREADS;
constexpr int TOKEN_LOADS = (RF_TILE_N * STEP_UNITS + GEMM_THREADS - 1) / GEMM_THREADS;
static_assert(RF_TILE_N % 16 == 0 && RF_TILE_K % 32 == 0, "tiles are whole");
static_assert(WEIGHT_LOADS * GEMM_THREADS == RF_TILE_M * STEP_UNITS && WAVE_TILES >= 1, "threads share evenly");

// Sums of a wave.
typedef float Sums[WAVE_TILES][TOKEN_TILES][RF_TILE_ELEMENTS];

RF_INLINE void finish_tiles(const MatmulArgs &a, const MatmulPart &part, uint32_t row0, uint32_t token0, const Sums &sums) {
    row0 += wave_index() * WAVE_TILES * 16;
    RF_UNROLL for (int m = 0; m < WAVE_TILES; m++) {
        RF_UNROLL for (int t = 0; t < TOKEN_TILES; t++) {
            RF_UNROLL for (int e = 0; e < RF_TILE_ELEMENTS; e++) {
                uint32_t row = row0 + m * 16 + lane_row(row_of(e));
                uint32_t token = token0 + t * 16 + lane_token(token_of(e));
                if (row < part.matrix.rows && token < a.n) finish(a, part, token, row, sums[m][t][e]);
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------------------- integers

// A step in shared memory. Factors and scales lie apart, each as the lanes read them.
template <typename F>
struct alignas(16) IntegerStep {
    uint8_t w[RF_TILE_M * STRIDE];
    uint8_t x[RF_TILE_N * STRIDE];
    float d0[STEP_UNITS][RF_TILE_M];
    float d1[F::SPLIT ? STEP_UNITS : 1][RF_TILE_M];
    float m0[F::MINIMUM ? STEP_UNITS : 1][RF_TILE_M];
    float m1[F::HALVES ? STEP_UNITS : 1][RF_TILE_M];
    float d[STEP_UNITS][RF_TILE_N];
    float s[F::MINIMUM ? STEP_UNITS : 1][RF_TILE_N];
    float first[F::HALVES ? STEP_UNITS : 1][RF_TILE_N]; // d · Σ of the first 16
};

// What a thread brings of a step.
template <typename F>
struct IntegerLoads {
    typename F::Raw raw[WEIGHT_LOADS];
    u32x4 q[TOKEN_LOADS][2];
    f32x2 scale[TOKEN_LOADS];

    // Units and rows behind the end are read as the last; units count for nothing since their activations' scales are 0.
    RF_METHOD void load(const MatmulArgs &a, const MatrixArg &m, uint32_t row0, uint32_t token0, uint32_t unit0) {
        uint32_t units = a.columns / 32;
        Planes at = F::planes(m, (uint64_t)row0 * units);
        RF_UNROLL for (int i = 0; i < WEIGHT_LOADS; i++) {
            uint32_t row = (thread_index() + i * GEMM_THREADS) / STEP_UNITS;
            uint32_t unit = least(unit0 + thread_index() % STEP_UNITS, units - 1);
            raw[i] = F::load(at, least(row, m.rows - 1 - row0) * units + unit);
        }
        RF_UNROLL for (int i = 0; i < TOKEN_LOADS; i++) {
            uint32_t token = least(token0 + (thread_index() + i * GEMM_THREADS) / STEP_UNITS, a.n - 1);
            uint32_t unit = unit0 + thread_index() % STEP_UNITS;
            uint64_t block = (uint64_t)token * units + least(unit, units - 1);
            const u32x4 *p = (const u32x4 *)a.acts.q + block * 2;
            q[i][0] = read16(p), q[i][1] = read16(p + 1);
            scale[i] = a.acts.scales[block];
            if (unit >= units) scale[i] = {0, 0};
        }
    }

    template <int I = 0>
    RF_METHOD void store_weights(IntegerStep<F> &to, uint32_t unit0) const {
        uint32_t k = thread_index() % STEP_UNITS, row = (thread_index() + I * GEMM_THREADS) / STEP_UNITS;
        uint32_t w[8];
        F::expand(raw[I], w);
        u32x4 *p = (u32x4 *)(to.w + row * STRIDE + k * 32);
        p[0] = {w[0], w[1], w[2], w[3]};
        p[1] = {w[4], w[5], w[6], w[7]};
        Factors f = F::factors(raw[I], (unit0 + k) % 8);
        to.d0[k][row] = f.d0;
        if constexpr (F::SPLIT) to.d1[k][row] = f.d1;
        if constexpr (F::MINIMUM) to.m0[k][row] = f.m0;
        if constexpr (F::HALVES) to.m1[k][row] = f.m1;
        if constexpr (I + 1 < WEIGHT_LOADS) store_weights<I + 1>(to, unit0);
    }

    RF_METHOD void store(IntegerStep<F> &to, uint32_t unit0) const {
        uint32_t k = thread_index() % STEP_UNITS;
        store_weights(to, unit0);
        RF_UNROLL for (int i = 0; i < TOKEN_LOADS; i++) {
            uint32_t token = (thread_index() + i * GEMM_THREADS) / STEP_UNITS;
            if (TOKEN_LOADS * GEMM_THREADS > RF_TILE_N * STEP_UNITS && token >= RF_TILE_N) break;
            u32x4 *p = (u32x4 *)(to.x + token * STRIDE + k * 32);
            p[0] = q[i][0];
            p[1] = q[i][1];
            to.d[k][token] = scale[i].x;
            if constexpr (F::MINIMUM) to.s[k][token] = scale[i].y;
            if constexpr (F::HALVES) {
                const uint32_t ones[4] = {0x01010101u, 0x01010101u, 0x01010101u, 0x01010101u};
                const uint32_t half[4] = {q[i][0].x, q[i][0].y, q[i][0].z, q[i][0].w};
                to.first[k][token] = scale[i].x * (float)dot16(ones, half);
            }
        }
    }
};

// The factors of a lane's weight rows in a unit.
template <typename F>
struct LaneFactors {
    float d0[LANE_ROWS], d1[LANE_ROWS], m0[LANE_ROWS], m1[LANE_ROWS];

    RF_METHOD void read(const IntegerStep<F> &from, uint32_t k, uint32_t row) {
        RF_UNROLL for (int r = 0; r < LANE_ROWS; r++) {
            uint32_t at = row + lane_row(r);
            d0[r] = from.d0[k][at];
            if constexpr (F::SPLIT) d1[r] = from.d1[k][at];
            if constexpr (F::MINIMUM) m0[r] = from.m0[k][at];
            if constexpr (F::HALVES) m1[r] = from.m1[k][at];
        }
    }
};

// sums += a tile's products in a unit.
template <typename F>
RF_INLINE void add_tile(const IntegerStep<F> &from, uint32_t k, uint32_t token, const LaneFactors<F> &f,
                        const float (&a)[RF_TILE_ELEMENTS], const float (&b)[RF_TILE_ELEMENTS],
                        float (&sums)[RF_TILE_ELEMENTS]) {
    float d[LANE_TOKENS], s[LANE_TOKENS], first[LANE_TOKENS];
    lane_values(from.d[k] + token, d);
    if constexpr (F::MINIMUM) lane_values(from.s[k] + token, s);
    if constexpr (F::HALVES) lane_values(from.first[k] + token, first);
    RF_UNROLL for (int e = 0; e < RF_TILE_ELEMENTS; e++) {
        int r = row_of(e), t = token_of(e);
        float v = f.d0[r] * a[e];
        if constexpr (F::SPLIT) v = __builtin_fmaf(f.d1[r], b[e], v);
        float sum = __builtin_fmaf(d[t], v, sums[e]);
        if constexpr (F::HALVES) sum = __builtin_fmaf(f.m0[r], first[t], __builtin_fmaf(f.m1[r], s[t] - first[t], sum));
        else if constexpr (F::MINIMUM) sum = __builtin_fmaf(f.m0[r], s[t], sum);
        sums[e] = sum;
    }
}

template <typename F>
RF_INLINE void multiply_step(const IntegerStep<F> &from, uint32_t tiles, Sums &sums) {
    uint32_t row0 = wave_index() * WAVE_TILES * 16;
    _Pragma("unroll 1") for (uint32_t k = 0; k < STEP_UNITS; k++) {
        RF_UNROLL for (int m = 0; m < WAVE_TILES; m++) {
            uint32_t row = row0 + m * 16;
            auto w = load_weights(from.w + row * STRIDE + k * 32, STRIDE);
            LaneFactors<F> f;
            f.read(from, k, row);
            RF_UNROLL for (int t = 0; t < TOKEN_TILES; t++) {
                if ((uint32_t)t >= tiles) continue;
                auto x = load_tokens(from.x + t * 16 * STRIDE + k * 32, STRIDE);
                float a[RF_TILE_ELEMENTS], b[RF_TILE_ELEMENTS];
                ByteTile::multiply<F::SPLIT>(w, x, a, b);
                add_tile<F>(from, k, t * 16, f, a, b, sums[m][t]);
            }
        }
    }
}

template <typename F>
RF_INLINE void gemm_stage(const MatmulArgs &a, uint32_t row_tile, uint32_t token_tile, uint32_t p) {
    __shared__ IntegerStep<F> step;
    const MatmulPart &part = a.part[p];
    uint32_t row0 = row_tile * RF_TILE_M, token0 = token_tile * RF_TILE_N, units = a.columns / 32;
    if (row0 >= part.matrix.rows || token0 >= a.n) return;
    uint32_t tiles = (a.n - token0 + 15) / 16; // beyond them are no rows of activations
    Sums sums = {};
    IntegerLoads<F> loads;
    loads.load(a, part.matrix, row0, token0, 0);
    for (uint32_t unit = 0; unit < units; unit += STEP_UNITS) {
        loads.store(step, unit);
        barrier();
        if (unit + STEP_UNITS < units) loads.load(a, part.matrix, row0, token0, unit + STEP_UNITS);
        multiply_step(step, tiles, sums);
        barrier();
    }
    finish_tiles(a, part, row0, token0, sums);
}

#define RF_GEMM(F, name)                                                                      \
    RF_KERNEL(GEMM_THREADS, 2) gemm_##name(const RF_GRID_CONSTANT MatmulArgs a) {             \
        release_dependents();                                                                 \
        wait_for_inputs();                                                                    \
        gemm_stage<F>(a, block_x(), block_y(), block_z());                                    \
    }
RF_INTEGER_FORMATS(RF_GEMM)

// ------------------------------------------------------------------------------------------------------------ floats

// Any columns, any architecture: numbers as float32 in shared memory, 8 × 4 results a thread.
constexpr int PLAIN_K = 16;
constexpr int PLAIN_ROWS = RF_TILE_M / 16, PLAIN_TOKENS = RF_TILE_N / 16;

struct alignas(16) PlainStep {
    float w[PLAIN_K][RF_TILE_M + 4];
    float x[PLAIN_K][RF_TILE_N + 4];
};

template <typename F>
RF_INLINE void load_plain(const MatmulArgs &a, const MatrixArg &m, uint32_t row0, uint32_t token0, uint32_t column0,
                          PlainStep &to) {
    uint32_t k = thread_index() % PLAIN_K, column = column0 + k;
    const RF_GLOBAL typename F::Element *w = (const RF_GLOBAL typename F::Element *)m.data;
    for (uint32_t r = thread_index() / PLAIN_K; r < RF_TILE_M; r += GEMM_THREADS / PLAIN_K) {
        bool inside = row0 + r < m.rows && column < a.columns;
        to.w[k][r] = inside ? F::number(w[(uint64_t)(row0 + r) * a.columns + column]) : 0;
    }
    for (uint32_t t = thread_index() / PLAIN_K; t < RF_TILE_N; t += GEMM_THREADS / PLAIN_K) {
        bool inside = token0 + t < a.n && column < a.columns;
        to.x[k][t] = inside ? a.x[(uint64_t)(token0 + t) * a.columns + column] : 0;
    }
}

template <typename F>
RF_INLINE void gemm_plain(const MatmulArgs &a, const MatmulPart &part, uint32_t row0, uint32_t token0, PlainStep &step) {
    float sums[PLAIN_ROWS][PLAIN_TOKENS] = {};
    uint32_t row = thread_index() % 16, token = thread_index() / 16; // and every 16th from there
    for (uint32_t column = 0; column < a.columns; column += PLAIN_K) {
        load_plain<F>(a, part.matrix, row0, token0, column, step);
        barrier();
        _Pragma("unroll 4") for (int k = 0; k < PLAIN_K; k++) {
            float w[PLAIN_ROWS], x[PLAIN_TOKENS];
            RF_UNROLL for (int r = 0; r < PLAIN_ROWS; r++) w[r] = step.w[k][row + 16 * r];
            RF_UNROLL for (int t = 0; t < PLAIN_TOKENS; t++) x[t] = step.x[k][token + 16 * t];
            RF_UNROLL for (int r = 0; r < PLAIN_ROWS; r++) {
                RF_UNROLL for (int t = 0; t < PLAIN_TOKENS; t++) sums[r][t] = __builtin_fmaf(w[r], x[t], sums[r][t]);
            }
        }
        barrier();
    }
    RF_UNROLL for (int r = 0; r < PLAIN_ROWS; r++) {
        RF_UNROLL for (int t = 0; t < PLAIN_TOKENS; t++) {
            uint32_t i = row0 + row + 16 * r, j = token0 + token + 16 * t;
            if (i < part.matrix.rows && j < a.n) finish(a, part, j, i, sums[r][t]);
        }
    }
}

#if RF_MATRIX_UNITS

// Halves: each 32 activations are divided by a power of two that brings them below 2, so that none overflows and none is lost beside
// its neighbours; products of 32 columns are multiplied by it. Bfloats have float32's range but 8 bits: activations
// are the sum of two, and both are multiplied.
constexpr int HALF_K = 64, HALF_BLOCKS = HALF_K / 32, HALF_STRIDE = HALF_K * 2 + 16;
constexpr int HALF_WEIGHT_LOADS = RF_TILE_M * HALF_K / 8 / GEMM_THREADS;
constexpr int HALF_TOKEN_LOADS = (RF_TILE_N * HALF_K / 16 + GEMM_THREADS - 1) / GEMM_THREADS; // 16 numbers a thread

template <bool Bfloat>
struct alignas(16) HalfStep {
    uint8_t w[RF_TILE_M * HALF_STRIDE];
    uint8_t x[RF_TILE_N * HALF_STRIDE];
    uint8_t rest[Bfloat ? RF_TILE_N * HALF_STRIDE : 16];
    float d[HALF_BLOCKS][RF_TILE_N];
};

// The bits of the bfloat nearest to `v`; infinities stay, NaN stays NaN.
RF_INLINE uint32_t to_bfloat(float v) {
    uint32_t bits = bit_cast<uint32_t>(v);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return bits >> 16 | 0x40;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <bool Bfloat>
struct HalfLoads {
    u32x4 raw[HALF_WEIGHT_LOADS];
    f32x4 v[HALF_TOKEN_LOADS][4];

    RF_METHOD void load(const MatmulArgs &a, const MatrixArg &m, uint32_t row0, uint32_t token0, uint32_t column0) {
        RF_UNROLL for (int i = 0; i < HALF_WEIGHT_LOADS; i++) {
            uint32_t index = thread_index() + i * GEMM_THREADS, column = column0 + index % (HALF_K / 8) * 8;
            uint64_t row = least(row0 + index / (HALF_K / 8), m.rows - 1);
            raw[i] = load16((Bytes)m.data + row * a.columns * 2, least(column, a.columns - 8) * 2);
        }
        RF_UNROLL for (int i = 0; i < HALF_TOKEN_LOADS; i++) {
            uint32_t index = thread_index() + i * GEMM_THREADS, column = column0 + index % (HALF_K / 16) * 16;
            uint64_t token = least(token0 + index / (HALF_K / 16), a.n - 1);
            const f32x4 *p = (const f32x4 *)(a.x + token * a.columns + least(column, a.columns - 16));
            RF_UNROLL for (int j = 0; j < 4; j++) {
                v[i][j] = read_floats(p + j);
                if (column >= a.columns) v[i][j] = {0, 0, 0, 0};
            }
        }
    }

    RF_METHOD void store(HalfStep<Bfloat> &to) const {
        RF_UNROLL for (int i = 0; i < HALF_WEIGHT_LOADS; i++) {
            uint32_t index = thread_index() + i * GEMM_THREADS;
            *(u32x4 *)(to.w + index / (HALF_K / 8) * HALF_STRIDE + index % (HALF_K / 8) * 16) = raw[i];
        }
        RF_UNROLL for (int i = 0; i < HALF_TOKEN_LOADS; i++) {
            uint32_t index = thread_index() + i * GEMM_THREADS;
            uint32_t token = index / (HALF_K / 16), piece = index % (HALF_K / 16);
            float x[16];
            RF_UNROLL for (int j = 0; j < 4; j++) {
                x[4 * j] = v[i][j].x, x[4 * j + 1] = v[i][j].y, x[4 * j + 2] = v[i][j].z, x[4 * j + 3] = v[i][j].w;
            }
            float inverse = 1;
            if constexpr (!Bfloat) {
                float most = 0;
                RF_UNROLL for (int j = 0; j < 16; j++) most = __builtin_fmaxf(most, __builtin_fabsf(x[j]));
                // The exponent of the largest of both halves of the block of 32, kept where both powers are normal.
                uint32_t exponent = bit_cast<uint32_t>(group_max<2>(most)) >> 23;
                exponent = exponent < 1 ? 1 : exponent > 253 ? 253 : exponent;
                inverse = bit_cast<float>((254 - exponent) << 23);
                if (token < RF_TILE_N && piece % 2 == 0) to.d[piece / 2][token] = bit_cast<float>(exponent << 23);
            }
            if (HALF_TOKEN_LOADS * GEMM_THREADS > RF_TILE_N * HALF_K / 16 && token >= RF_TILE_N) break;
            uint32_t words[8], rest[8];
            RF_UNROLL for (int j = 0; j < 8; j++) {
                float a = x[2 * j] * inverse, b = x[2 * j + 1] * inverse;
                if constexpr (Bfloat) {
                    uint32_t p = to_bfloat(a), q = to_bfloat(b);
                    words[j] = p | q << 16;
                    rest[j] = to_bfloat(a - bfloat_to_float((uint16_t)p)) | to_bfloat(b - bfloat_to_float((uint16_t)q)) << 16;
                } else {
                    words[j] = float_to_half(a) | (uint32_t)float_to_half(b) << 16;
                }
            }
            uint32_t at = token * HALF_STRIDE + piece * 32;
            RF_UNROLL for (int j = 0; j < 2; j++) {
                *(u32x4 *)(to.x + at + 16 * j) = {words[4 * j], words[4 * j + 1], words[4 * j + 2], words[4 * j + 3]};
                if constexpr (Bfloat) {
                    *(u32x4 *)(to.rest + at + 16 * j) = {rest[4 * j], rest[4 * j + 1], rest[4 * j + 2], rest[4 * j + 3]};
                }
            }
        }
    }
};

template <bool Bfloat>
RF_INLINE void multiply_step(const HalfStep<Bfloat> &from, uint32_t tiles, Sums &sums) {
    uint32_t row0 = wave_index() * WAVE_TILES * 16;
    _Pragma("unroll 1") for (uint32_t block = 0; block < HALF_BLOCKS; block++) {
        RF_UNROLL for (int m = 0; m < WAVE_TILES; m++) {
            const uint8_t *w = from.w + (row0 + m * 16) * HALF_STRIDE + block * 64;
            HalfFragment first = load_half_weights(w, HALF_STRIDE), second = load_half_weights(w + 32, HALF_STRIDE);
            RF_UNROLL for (int t = 0; t < TOKEN_TILES; t++) {
                if ((uint32_t)t >= tiles) continue;
                uint32_t at = t * 16 * HALF_STRIDE + block * 64;
                float(&sum)[RF_TILE_ELEMENTS] = sums[m][t];
                if constexpr (Bfloat) {
                    multiply_halves<true>(first, load_half_tokens(from.x + at, HALF_STRIDE), sum);
                    multiply_halves<true>(second, load_half_tokens(from.x + at + 32, HALF_STRIDE), sum);
                    multiply_halves<true>(first, load_half_tokens(from.rest + at, HALF_STRIDE), sum);
                    multiply_halves<true>(second, load_half_tokens(from.rest + at + 32, HALF_STRIDE), sum);
                } else {
                    float part[RF_TILE_ELEMENTS] = {}, d[LANE_TOKENS];
                    multiply_halves<false>(first, load_half_tokens(from.x + at, HALF_STRIDE), part);
                    multiply_halves<false>(second, load_half_tokens(from.x + at + 32, HALF_STRIDE), part);
                    lane_values(from.d[block] + t * 16, d);
                    RF_UNROLL for (int e = 0; e < RF_TILE_ELEMENTS; e++) {
                        sum[e] = __builtin_fmaf(d[token_of(e)], part[e], sum[e]);
                    }
                }
            }
        }
    }
}

template <bool Bfloat>
RF_INLINE void gemm_halves(const MatmulArgs &a, const MatmulPart &part, uint32_t row0, uint32_t token0,
                           HalfStep<Bfloat> &step) {
    uint32_t tiles = (a.n - token0 + 15) / 16;
    Sums sums = {};
    HalfLoads<Bfloat> loads;
    loads.load(a, part.matrix, row0, token0, 0);
    for (uint32_t column = 0; column < a.columns; column += HALF_K) {
        loads.store(step);
        barrier();
        if (column + HALF_K < a.columns) loads.load(a, part.matrix, row0, token0, column + HALF_K);
        multiply_step(step, tiles, sums);
        barrier();
    }
    finish_tiles(a, part, row0, token0, sums);
}

#else

template <bool Bfloat>
struct HalfStep {};

#endif

template <typename F, bool Half, bool Bfloat>
RF_INLINE void gemm_float_stage(const MatmulArgs &a, uint32_t row_tile, uint32_t token_tile, uint32_t p) {
    __shared__ union {
        PlainStep plain;
        HalfStep<Bfloat> half;
    } step;
    const MatmulPart &part = a.part[p];
    uint32_t row0 = row_tile * RF_TILE_M, token0 = token_tile * RF_TILE_N;
    if (row0 >= part.matrix.rows || token0 >= a.n) return;
#if RF_MATRIX_UNITS
    if constexpr (Half) {
        if (a.columns % 32 == 0) return gemm_halves<Bfloat>(a, part, row0, token0, step.half);
    }
#endif
    gemm_plain<F>(a, part, row0, token0, step.plain);
}

#define RF_GEMM_FLOAT(F, name, half, bfloat)                                                  \
    RF_KERNEL(GEMM_THREADS, 2) gemm_##name(const RF_GRID_CONSTANT MatmulArgs a) {             \
        release_dependents();                                                                 \
        wait_for_inputs();                                                                    \
        gemm_float_stage<F, half, bfloat>(a, block_x(), block_y(), block_z());                \
    }
RF_GEMM_FLOAT(F32, f32, false, false)
RF_GEMM_FLOAT(F16, f16, true, false)
RF_GEMM_FLOAT(BF16, bf16, true, true)

} // namespace matmul
