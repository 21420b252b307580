// What the gemv kernels are made of: the activations of a row in shared memory, and the ring of loads.
#pragma once
#include "matmul.h"

namespace matmul {

#define RF_ROLLED _Pragma("unroll 1") // loops that may run once: their registers are wanted elsewhere
#define RF_GROUPS (RF_BLOCK_SIZE / 32)

#if RF_AMD
extern __shared__ __attribute__((aligned(16))) uint8_t matmul_shared[];
#else
extern __shared__ __align__(16) uint8_t matmul_shared[];
#endif

// ------------------------------------------------------------------------------------------ activations of one row

// Eight neighbours from element `i`; what is behind the end stays as it is.
RF_INLINE void read_eight(const float *from, uint32_t i, uint32_t columns, float (&to)[8]) {
    RF_UNROLL for (int half = 0; half < 2; half++) {
        if (i + 4 * half >= columns) return;
        f32x4 v = read_floats(from + i + 4 * half);
        to[4 * half] = v.x, to[4 * half + 1] = v.y, to[4 * half + 2] = v.z, to[4 * half + 3] = v.w;
    }
}

// 1 / rms from every thread's share of the sum of squares.
RF_INLINE float norm_factor(const MatmulArgs &a, float sum) {
    __shared__ float scratch[RF_GROUPS];
    sum = group_sum(sum);
    if (lane32() == 0) scratch[group32()] = sum;
    shared_barrier();
    sum = 0;
    RF_UNROLL for (int i = 0; i < RF_GROUPS; i++) sum += scratch[i];
    return inverse_sqrt(sum * reciprocal((float)a.columns) + a.norm.epsilon);
}

constexpr uint32_t TURN = RF_BLOCK_SIZE * 8; // elements that a block takes at a time

// Waits for the row and calls put(i, numbers) for each eight of `padded` elements; `columns` is a multiple of 4.
template <typename Put>
RF_INLINE void take_row(const MatmulArgs &a, uint32_t padded, const Put &to) {
    wait_for_inputs();
    float now[8] = {};
    read_eight(a.x, thread_index() * 8, a.columns, now);
    RF_ROLLED for (uint32_t i = thread_index() * 8; i < padded; i += TURN) {
        float next[8] = {};
        read_eight(a.x, i + TURN, a.columns, next);
        to.put(i, now);
        RF_UNROLL for (int k = 0; k < 8; k++) now[k] = next[k];
    }
    shared_barrier();
}

// The same, normalised. A thread's first eight stay in registers in between, and their gains come before the row.
template <typename Put>
RF_INLINE void normalize_row(const MatmulArgs &a, uint32_t padded, const Put &to) {
    if (!a.norm.gain) return take_row(a, padded, to);
    uint32_t i = thread_index() * 8;
    float v[8] = {}, gain[8] = {}, sum = 0;
    read_eight(a.norm.gain, i, a.columns, gain);
    wait_for_inputs();
    read_eight(a.x, i, a.columns, v);
    RF_UNROLL for (int k = 0; k < 8; k++) {
        sum = __builtin_fmaf(v[k], v[k], sum);
        v[k] *= gain[k];
    }
    RF_ROLLED for (uint32_t j = i + TURN; j < a.columns; j += TURN) {
        float other[8] = {};
        read_eight(a.x, j, a.columns, other);
        RF_UNROLL for (int k = 0; k < 8; k++) sum = __builtin_fmaf(other[k], other[k], sum);
    }
    float factor = norm_factor(a, sum);
    RF_ROLLED while (true) {
        RF_UNROLL for (int k = 0; k < 8; k++) v[k] *= factor;
        if (i < padded) to.put(i, v);
        i += TURN;
        if (i >= padded) break;
        RF_UNROLL for (int k = 0; k < 8; k++) v[k] = gain[k] = 0;
        read_eight(a.norm.gain, i, a.columns, gain);
        read_eight(a.x, i, a.columns, v);
        RF_UNROLL for (int k = 0; k < 8; k++) v[k] *= gain[k];
    }
    shared_barrier();
}

// Shared memory of integer kernels: bytes 0–15 of all units, bytes 16–31 of all units, scales; so lanes that read
// neighbouring units do not meet in a bank. Units are padded with zeros to a multiple of 32.
struct SharedActs {
    u32x4 *first, *second;
    f32x2 *scales;

    RF_INLINE uint32_t padded(uint32_t columns) { return (columns + 1023) / 1024 * 1024; }
    RF_INLINE SharedActs of(uint32_t columns) {
        uint32_t units = padded(columns) / 32;
        u32x4 *q = (u32x4 *)matmul_shared;
        return {q, q + units, (f32x2 *)(q + 2 * units)};
    }
    // Four lanes have a block of 32.
    RF_METHOD void put(uint32_t i, const float (&v)[8]) const {
        float most = 0;
        RF_UNROLL for (int k = 0; k < 8; k++) most = __builtin_fmaxf(most, __builtin_fabsf(v[k]));
        most = group_max<4>(most);
        bool some = most > 1e-30f; // less has no reciprocal that is worth it
        float d = some ? most * (1 / 127.0f) : 0, inverse = some ? 127.0f * reciprocal(most) : 0;
        uint32_t words[2] = {0, 0};
        int sum = 0;
        RF_UNROLL for (int k = 0; k < 8; k++) {
            int q = round_to_int(v[k] * inverse);
            sum += q;
            words[k / 4] |= ((uint32_t)q & 255) << (8 * (k % 4));
        }
        sum = group_sum<4>(sum);
        u32x2 *half = (u32x2 *)(i % 32 < 16 ? first : second);
        half[i / 32 * 2 + i % 16 / 8] = {words[0], words[1]};
        if (i % 32 == 0) scales[i / 32] = {d, d * (float)sum};
    }
    RF_METHOD Acts unit(uint32_t u) const {
        Acts x;
        set_words(first[u], second[u], x.q);
        x.d = scales[u].x;
        x.s = scales[u].y;
        return x;
    }
};

// ------------------------------------------------------------------------------------------------- rows of weights

// Where the rows that a group multiplies begin: planes from a row on that the block shares, and the group's first
// unit from there.
struct RowPlace {
    Planes at;
    uint32_t unit;
};

template <typename F>
RF_INLINE RowPlace row_place(const MatrixArg &m, uint32_t row, uint32_t units) {
    row = least(row, m.rows - 1); // rows behind the end are multiplied, not stored
    return {F::planes(m, (uint64_t)row * units), least(group32(), m.rows - 1 - row) * units};
}

// The ring of loads of a group: D units of R rows.
template <typename F, int R, int D>
struct Ring {
    typename F::Raw raw[D][R];
    RowPlace rows[R];
    uint32_t tile, step; // of the loads that come next

    // Rows `group` and `group + RF_GROUPS` of a tile; of a gate and its up the same row.
    RF_METHOD void place(const MatmulArgs &a, const TileSpan &span, uint32_t units) {
        TilePlace p = place_of(a, span, tile);
        RF_UNROLL for (int r = 0; r < R; r++) {
            bool up = r == 1 && paired(a);
            rows[r] = row_place<F>(a.part[up ? 1 : p.part].matrix, p.row + (up ? 0 : r * RF_GROUPS), units);
        }
    }
    // Without `live` one address is read by all lanes: a load to no purpose, but loads then are the same on every path.
    template <int J>
    RF_METHOD void load(uint32_t units, bool live) {
        uint32_t unit = least((step * D + J) * 32 + lane32(), units - 1);
        RF_UNROLL for (int r = 0; r < R; r++) raw[J][r] = F::load(rows[r].at, live ? rows[r].unit + unit : 0);
    }
    // The next D units: of the same rows, or the first of the next tile.
    RF_METHOD void advance(const MatmulArgs &a, const TileSpan &span, uint32_t units, uint32_t steps,
                                   uint32_t tiles, uint32_t blocks) {
        if (++step < steps) return;
        step = 0;
        tile += blocks;
        if (tile < tiles) place(a, span, units);
    }
};

// Two rows a group where there are enough of them to keep all groups busy: the activations are read half as often.
RF_INLINE bool two_rows(const MatmulArgs &a, uint32_t blocks) {
    uint32_t rows = a.part[0].matrix.rows;
    if (a.parts > 1) rows += a.part[1].matrix.rows;
    if (a.parts > 2) rows += a.part[2].matrix.rows;
    return paired(a) || rows >= 3 * RF_GROUPS * blocks;
}

// Sums of K numbers over the lanes of a group, all at once: lane l gets the sum of number l · K / 32.
template <int K, int Mask = 16>
RF_INLINE float reduce(float (&v)[K]) {
    if constexpr (K == 1) {
        return group_sum<2 * Mask>(v[0]);
    } else {
        bool upper = lane32() & Mask;
        float half[K / 2];
        RF_UNROLL for (int i = 0; i < K / 2; i++) {
            half[i] = (upper ? v[i + K / 2] : v[i]) + shuffle_xor_by<Mask>(upper ? v[i] : v[i + K / 2]);
        }
        return reduce<K / 2, Mask / 2>(half);
    }
}

// Stores the sums of R rows for N rows of activations from `first` on, of which `count` exist: `v` is the lane's of `reduce`, number
// r · N + t for row r and activations t.
template <int R, int N>
RF_INLINE void finish_rows(const MatmulArgs &a, const TilePlace &p, uint32_t first, uint32_t count, float v) {
    constexpr uint32_t LANES = 32 / (R * N);
    uint32_t index = lane32() / LANES, t = index % N, row = p.row + group32();
    bool writes = lane32() % LANES == 0 && t < count;
    if (R == 2 && paired(a)) {
        float up = shuffle_xor_by<16>(v);
        if (writes && index < N && row < a.part[0].matrix.rows) finish_pair(a, first + t, row, v, up);
        return;
    }
    row += index / N * RF_GROUPS;
    if (writes && row < a.part[p.part].matrix.rows) finish(a, a.part[p.part], first + t, row, v);
}

// Rows times activations. `Use` adds the products of a unit of R rows with N rows of activations to their sums.
template <typename F, int R, int D, int N, typename Use>
struct Stream {
    Ring<F, R, D> ring;
    TileSpan span;
    uint32_t tiles, units, steps;

    template <int J>
    RF_METHOD void first_loads() {
        ring.template load<J>(units, J * 32 < units);
        if constexpr (J + 1 < D) first_loads<J + 1>();
    }

    // Issues the first loads. `block` is the block's place in the turn.
    RF_METHOD void begin(const MatmulArgs &a, uint32_t which, uint32_t block) {
        span = {which, paired(a) ? RF_GROUPS : RF_GROUPS * (uint32_t)R, paired(a) ? 1 : a.parts};
        tiles = tiles_of(a, span);
        units = a.columns / F::UNIT;
        steps = (units + 32 * D - 1) / (32 * D);
        ring.tile = block;
        ring.step = 0;
        if (ring.tile >= tiles) return;
        ring.place(a, span, units);
        first_loads<0>();
    }

    template <int J>
    RF_METHOD void step(const Use &use, uint32_t s, bool more, float (&sums)[N][R]) {
        uint32_t chunk = (s * D + J) * 32;
        if (chunk < units) use.add(ring.raw[J], chunk + lane32(), sums);
        ring.template load<J>(units, more && (ring.step * D + J) * 32 < units);
        if constexpr (J + 1 < D) step<J + 1>(use, s, more, sums);
    }

    // Rows `first..first + count` of the activations.
    RF_METHOD void run(const MatmulArgs &a, const Use &use, uint32_t block, uint32_t blocks, uint32_t first,
                       uint32_t count) {
        RF_ROLLED for (uint32_t tile = block; tile < tiles; tile += blocks) {
            float sums[N][R] = {};
            RF_ROLLED for (uint32_t s = 0; s < steps; s++) {
                ring.advance(a, span, units, steps, tiles, blocks);
                step<0>(use, s, ring.tile < tiles, sums);
            }
            float v[R * N];
            RF_UNROLL for (int i = 0; i < R * N; i++) v[i] = sums[i % N][i / N];
            finish_rows<R, N>(a, place_of(a, span, tile), first, count, reduce(v));
        }
    }
};

} // namespace matmul
