// Decode: matrices times one row of activations (gemv_…), or times few rows of quantised ones (gemv_batch_…).
//
// A block takes tiles of rows, block by block in turn. Each group of 32 lanes multiplies one or two rows of a tile, lane
// by lane a unit, with D loads of each row on their way: as soon as a unit's registers are used, the load of the
// unit D further on is issued into them, over the ends of rows and tiles. The first are issued before the kernel waits for its
// predecessor, whose results are then normalised and quantised in shared memory by every block for itself.
//
//   kernel              grid.x                       dynamic shared memory, bytes
//   gemv_<f>            blocks that run at once      40 · 32 · ⌈columns / 1024⌉
//   gemv_batch_<f>      blocks that run at once      0
//
// Threads: RF_BLOCK_SIZE. gemv_<f> and gemv_<f>_<g> want n = 1, a.x and, if there is one, a.norm; gemv_batch_<f> wants
// 2 ≤ n ≤ 8 and a.acts. Where a row of floats is too wide for shared memory, exact_<float f> serves (exact.hip).
#include "gemv.h"

namespace matmul {

// A unit of each row times the same 32 activations in shared memory.
template <typename F, int R>
struct Single {
    SharedActs acts;

    RF_METHOD void add(const typename F::Raw (&raw)[R], uint32_t u, float (&sums)[1][R]) const {
        Acts x = acts.unit(u);
        RF_UNROLL for (int r = 0; r < R; r++) {
            uint32_t w[8];
            F::expand(raw[r], w);
            sums[0][r] = multiply<F>(w, F::factors(raw[r], u % 8), x, sums[0][r]);
        }
    }
};

template <typename F, int R>
struct SingleStream {
    typedef Stream<F, R, F::DEPTH * 2 / R, 1, Single<F, R>> Type;
};

// The second format's tiles go on where the first's end, so that blocks get equal shares.
template <typename F, typename G, int R>
RF_INLINE void gemv_rows(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    SharedActs acts = SharedActs::of(a.columns);
    typename SingleStream<F, R>::Type stream;
    stream.begin(a, 0, block);
    normalize_row(a, SharedActs::padded(a.columns), acts);
    stream.run(a, {acts}, block, blocks, 0, 1);
    if constexpr (!SameFormat<F, G>::YES) {
        typename SingleStream<G, R>::Type other;
        uint32_t turn = (block + blocks - stream.tiles % blocks) % blocks;
        other.begin(a, 1, turn);
        other.run(a, {acts}, turn, blocks, 0, 1);
    }
}

template <typename F, typename G>
RF_INLINE void gemv_stage(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    if (two_rows(a, blocks)) gemv_rows<F, G, 2>(a, block, blocks);
    else gemv_rows<F, G, 1>(a, block, blocks);
}

#define RF_GEMV(F, name)                                                                              \
    RF_KERNEL(RF_BLOCK_SIZE, 1024 / RF_BLOCK_SIZE) gemv_##name(const RF_GRID_CONSTANT MatmulArgs a) { \
        release_dependents();                                                                         \
        gemv_stage<F, F>(a, block_x(), grid_x());                                                     \
    }
RF_INTEGER_FORMATS(RF_GEMV)

// The formats that quantisers mix in one layer: part.which says which a part has.
#define RF_GEMV_MIXED(F, G, name)                                                                     \
    RF_KERNEL(RF_BLOCK_SIZE, 1024 / RF_BLOCK_SIZE) gemv_##name(const RF_GRID_CONSTANT MatmulArgs a) { \
        release_dependents();                                                                         \
        gemv_stage<F, G>(a, block_x(), grid_x());                                                     \
    }
RF_GEMV_MIXED(Q4_K, Q6_K, q4_k_q6_k)     // Q4_K_M
RF_GEMV_MIXED(Q5_K, Q6_K, q5_k_q6_k)     // Q5_K_M
RF_GEMV_MIXED(Q4_K, Q5_K, q4_k_q5_k)     // Q4_K_S
RF_GEMV_MIXED(Q3_K, Q5_K, q3_k_q5_k)     // Q3_K_L, Q3_K_M
RF_GEMV_MIXED(Q3_K, Q4_K, q3_k_q4_k)     // Q3_K_M
RF_GEMV_MIXED(Q2_K, Q4_K, q2_k_q4_k)     // Q2_K
RF_GEMV_MIXED(Q5_0, Q8_0, q5_0_q8_0)     // Q4_K_M with rows that are no multiple of 256
RF_GEMV_MIXED(Q5_1, Q8_0, q5_1_q8_0)     // Q5_K_M likewise
RF_GEMV_MIXED(IQ4_XS, Q5_K, iq4_xs_q5_k) // IQ4_XS

// ---------------------------------------------------------------------------------------------------------- batches

// A unit of two rows, expanded once, times 32 quantised activations of N rows, which the caches hold.
template <typename F, int N>
struct Batch {
    const int8_t *q;
    const f32x2 *scales;
    uint32_t columns, n;

    RF_METHOD void add(const typename F::Raw (&raw)[2], uint32_t u, float (&sums)[N][2]) const {
        bool inside = u < columns / 32; // lanes behind the end hold the last unit once more
        uint32_t at = inside ? u : columns / 32 - 1;
        uint32_t w[2][8];
        Factors f[2];
        RF_UNROLL for (int r = 0; r < 2; r++) {
            F::expand(raw[r], w[r]);
            f[r] = F::factors(raw[r], u % 8);
        }
        RF_UNROLL for (int t = 0; t < N; t++) {
            if (t > 0 && (uint32_t)t >= n) continue;
            const u32x4 *p = (const u32x4 *)(q + (uint64_t)t * columns) + at * 2;
            f32x2 scale = (scales + (uint64_t)t * (columns / 32))[at];
            Acts x;
            set_words(read16(p), read16(p + 1), x.q);
            x.d = inside ? scale.x : 0;
            x.s = inside ? scale.y : 0;
            RF_UNROLL for (int r = 0; r < 2; r++) sums[t][r] = multiply<F>(w[r], f[r], x, sums[t][r]);
        }
    }
};

template <typename F, int N>
RF_INLINE void gemv_batch_rows(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    Stream<F, 2, F::DEPTH, N, Batch<F, N>> stream;
    stream.begin(a, a.part[0].which, block);
    wait_for_inputs();
    stream.run(a, {a.acts.q, a.acts.scales, a.columns, a.n}, block, blocks, 0, a.n);
}

template <typename F>
RF_INLINE void gemv_batch_stage(const MatmulArgs &a, uint32_t block, uint32_t blocks) {
    if (a.n <= 4) gemv_batch_rows<F, 4>(a, block, blocks);
    else gemv_batch_rows<F, 8>(a, block, blocks);
}

#define RF_GEMV_BATCH(F, name)                                                           \
    RF_KERNEL(RF_BLOCK_SIZE, 1) gemv_batch_##name(const RF_GRID_CONSTANT MatmulArgs a) { \
        release_dependents();                                                            \
        gemv_batch_stage<F>(a, block_x(), grid_x());                                     \
    }
RF_INTEGER_FORMATS(RF_GEMV_BATCH)

} // namespace matmul
