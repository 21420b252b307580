// Products with float32 activations: all of them in reference mode, and those of float formats.
//
//   kernel                grid.x                   dynamic shared memory, bytes
//   gemv_<float f>        blocks that run at once  4 · 256 · ⌈columns / 256⌉
//   gemv_batch_<float f>  blocks that run at once  0
//   exact_<f>             blocks that run at once  0
//
// Threads: RF_BLOCK_SIZE. gemv_<float f> wants n = 1 and normalises if there is a.norm; the others take a.x as it is:
// gemv_batch_ for 2 ≤ n ≤ 8, exact_ for any n, but not a gate with its up: those are two parts, and gate_up joins them.
#include "gemv.h"

namespace matmul {

// The numbers of a unit as float32.
template <typename F>
RF_INLINE void numbers(const typename F::Raw &raw, uint32_t u, float (&out)[F::UNIT]) {
    if constexpr (F::UNIT == 32) decode_unit<F>(raw, u % 8, out);
    else F::decode(raw, out);
}

// Units of R rows times the same units of N rows of float32 in memory.
template <typename F, int R, int N>
struct Exact {
    const float *x;
    uint32_t columns, n;

    RF_METHOD void add(const typename F::Raw (&raw)[R], uint32_t u, float (&sums)[N][R]) const {
        bool inside = u < columns / F::UNIT;
        const f32x4 *at = (const f32x4 *)x + (inside ? u : 0) * (F::UNIT / 4);
        float w[R][F::UNIT];
        RF_UNROLL for (int r = 0; r < R; r++) numbers<F>(raw[r], u, w[r]);
        RF_UNROLL for (int t = 0; t < N; t++) {
            if (t > 0 && (uint32_t)t >= n) continue;
            RF_UNROLL for (int i = 0; i < F::UNIT / 4; i++) {
                f32x4 v = read_floats(at + (uint64_t)t * (columns / 4) + i);
                if (!inside) v = {0, 0, 0, 0};
                RF_UNROLL for (int r = 0; r < R; r++) {
                    float sum = sums[t][r];
                    sum = __builtin_fmaf(w[r][4 * i], v.x, sum);
                    sum = __builtin_fmaf(w[r][4 * i + 1], v.y, sum);
                    sum = __builtin_fmaf(w[r][4 * i + 2], v.z, sum);
                    sums[t][r] = __builtin_fmaf(w[r][4 * i + 3], v.w, sum);
                }
            }
        }
    }
};

// Float rows that are no whole number of units: number by number.
template <typename F>
RF_INLINE void odd_rows(const MatmulArgs &a, float factor, uint32_t block, uint32_t blocks) {
    TileSpan span = {a.part[0].which, RF_GROUPS, paired(a) ? 1 : a.parts};
    uint32_t tiles = tiles_of(a, span);
    for (uint32_t tile = block; tile < tiles; tile += blocks) {
        TilePlace p = place_of(a, span, tile);
        for (uint32_t t = 0; t < a.n; t++) {
            float sums[2] = {0, 0};
            RF_UNROLL for (int r = 0; r < 2; r++) {
                if (r == 1 && !paired(a)) break;
                const MatrixArg &m = a.part[r == 1 ? 1 : p.part].matrix;
                uint64_t row = least(p.row + group32(), m.rows - 1);
                const RF_GLOBAL typename F::Element *w = (const RF_GLOBAL typename F::Element *)m.data + row * a.columns;
                const float *x = a.x + (uint64_t)t * a.columns;
                for (uint32_t i = lane32(); i < a.columns; i += 32) {
                    float v = x[i] * factor;
                    if (a.norm.gain) v *= a.norm.gain[i];
                    sums[r] = __builtin_fmaf(F::number(w[i]), v, sums[r]);
                }
                sums[r] = group_sum(sums[r]);
            }
            uint32_t row = p.row + group32();
            if (lane32() != 0 || row >= a.part[p.part].matrix.rows) continue;
            if (paired(a)) finish_pair(a, t, row, sums[0], sums[1]);
            else finish(a, a.part[p.part], t, row, sums[0]);
        }
    }
}

RF_INLINE float odd_factor(const MatmulArgs &a) {
    float sum = 0;
    for (uint32_t i = thread_index(); i < a.columns; i += RF_BLOCK_SIZE) sum = __builtin_fmaf(a.x[i], a.x[i], sum);
    return norm_factor(a, sum);
}

// N rows of activations at a time; weights are read again for the next.
template <typename F, int R, int N>
RF_INLINE void exact_stage(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    if constexpr (F::UNIT < 32) {
        if (a.columns % F::UNIT != 0) {
            wait_for_inputs();
            return odd_rows<F>(a, 1, block, blocks);
        }
    }
    for (uint32_t first = 0; first < a.n; first += N) {
        Stream<F, R, F::UNIT == 32 ? 1 : F::DEPTH, N, Exact<F, R, N>> stream;
        stream.begin(a, a.part[0].which, block);
        if (first == 0) wait_for_inputs();
        uint32_t count = least(a.n - first, N);
        stream.run(a, {a.x + (uint64_t)first * a.columns, a.columns, count}, block, blocks, first, count);
    }
}

// A row of float32 in shared memory, normalised. Of units of 8, the first halves lie before the second ones, so that lanes that
// read neighbouring units do not meet in a bank.
template <typename F, int R>
struct SingleFloat {
    f32x4 *first, *second;

    RF_INLINE uint32_t padded(uint32_t columns) { return (columns + 255) / 256 * 256; }
    RF_INLINE SingleFloat of(uint32_t columns) {
        f32x4 *x = (f32x4 *)matmul_shared;
        return {x, x + padded(columns) / F::UNIT};
    }
    RF_METHOD void add(const typename F::Raw (&raw)[R], uint32_t u, float (&sums)[1][R]) const {
        f32x4 a = first[u], b = a;
        if (F::UNIT == 8) b = second[u];
        RF_UNROLL for (int r = 0; r < R; r++) {
            float w[F::UNIT], sum = sums[0][r];
            F::decode(raw[r], w);
            sum = __builtin_fmaf(w[0], a.x, sum), sum = __builtin_fmaf(w[1], a.y, sum);
            sum = __builtin_fmaf(w[2], a.z, sum), sum = __builtin_fmaf(w[3], a.w, sum);
            if constexpr (F::UNIT == 8) {
                sum = __builtin_fmaf(w[4], b.x, sum), sum = __builtin_fmaf(w[5], b.y, sum);
                sum = __builtin_fmaf(w[6], b.z, sum), sum = __builtin_fmaf(w[7], b.w, sum);
            }
            sums[0][r] = sum;
        }
    }
    RF_METHOD void put(uint32_t i, const float (&v)[8]) const {
        f32x4 a = {v[0], v[1], v[2], v[3]}, b = {v[4], v[5], v[6], v[7]};
        uint32_t u = i / F::UNIT;
        first[u] = a;
        if (F::UNIT == 8) second[u] = b;
        else first[u + 1] = b;
    }
};

template <typename F, int R>
RF_INLINE void gemv_float_rows(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    SingleFloat<F, R> x = SingleFloat<F, R>::of(a.columns);
    Stream<F, R, F::DEPTH * 2 / R, 1, SingleFloat<F, R>> stream;
    stream.begin(a, a.part[0].which, block);
    normalize_row(a, SingleFloat<F, R>::padded(a.columns), x);
    stream.run(a, x, block, blocks, 0, 1);
}

template <typename F>
RF_INLINE void gemv_float_stage(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    if (a.columns % F::UNIT != 0) {
        wait_for_inputs();
        return odd_rows<F>(a, a.norm.gain ? odd_factor(a) : 1, block, blocks);
    }
    if (two_rows(a, blocks)) gemv_float_rows<F, 2>(a, block, blocks);
    else gemv_float_rows<F, 1>(a, block, blocks);
}

#define RF_EXACT(F, name)                                                            \
    RF_KERNEL(RF_BLOCK_SIZE, 1) exact_##name(const RF_GRID_CONSTANT MatmulArgs a) {  \
        release_dependents();                                                        \
        exact_stage<F, 1, 8>(a, block_x(), grid_x());                              \
    }
RF_INTEGER_FORMATS(RF_EXACT)
RF_FLOAT_FORMATS(RF_EXACT)

#define RF_GEMV_FLOAT(F, name)                                                                          \
    RF_KERNEL(RF_BLOCK_SIZE, 1024 / RF_BLOCK_SIZE) gemv_##name(const RF_GRID_CONSTANT MatmulArgs a) {   \
        release_dependents();                                                                           \
        gemv_float_stage<F>(a, block_x(), grid_x());                                                  \
    }                                                                                                   \
    RF_KERNEL(RF_BLOCK_SIZE, 1) gemv_batch_##name(const RF_GRID_CONSTANT MatmulArgs a) {                \
        release_dependents();                                                                           \
        exact_stage<F, 2, 8>(a, block_x(), grid_x());                                                 \
    }
RF_FLOAT_FORMATS(RF_GEMV_FLOAT)

} // namespace matmul
