// The rows' own work around the matrix products: norm and quantisation, norm and addition, activation.
//
// | kernel | threads | grid | shared memory |
// |---|---|---|---|
// | norm_quantize | 256 | n | static |
// | norm_add | 256 | n | static |
// | gate_up | 256 | any, best ceil(n · columns / 1024) | none |
//
// Any other grid works, too: each block then takes every so manieth row.
#include "args.h"

#define RF_ROW_THREADS 256

// 1 / √(mean(x²) + epsilon) of one row; every thread gets it. The row is read again afterwards, from the first-level
// cache: a row of any length may come.
RF_INLINE float row_factor(const float *x, uint32_t columns, float epsilon, float *scratch) {
    float sum = 0;
    if (columns % 4 == 0) {
        const f32x4 *quads = (const f32x4 *)x;
        for (uint32_t i = thread_index(); i < columns / 4; i += RF_ROW_THREADS) {
            f32x4 v = quads[i];
            sum += v.x * v.x + v.y * v.y + (v.z * v.z + v.w * v.w);
        }
    } else {
        for (uint32_t i = thread_index(); i < columns; i += RF_ROW_THREADS) sum += x[i] * x[i];
    }
    sum = block_sum<RF_ROW_THREADS>(sum, scratch);
    return inverse_sqrt(sum / (float)columns + epsilon);
}

RF_INLINE uint32_t byte_of(float x) { return (uint32_t)round_to_int(x) & 0xffu; }

// Four neighbours of a block of 32, which eight neighbouring lanes hold: their share of the quantised block. All lanes
// come here, those with nothing to store, too.
RF_INLINE void quantize_quad(f32x4 v, QuantArg acts, uint64_t quad, bool stores) {
    float most = __builtin_fmaxf(__builtin_fmaxf(__builtin_fabsf(v.x), __builtin_fabsf(v.y)),
                                 __builtin_fmaxf(__builtin_fabsf(v.z), __builtin_fabsf(v.w)));
    most = group_max<8>(most);
    float d = most / 127.0f;
    float inverse = most > 0 ? 127.0f / most : 0.0f;
    uint32_t q = byte_of(v.x * inverse) | byte_of(v.y * inverse) << 8 | byte_of(v.z * inverse) << 16 |
                 byte_of(v.w * inverse) << 24;
    int sum = group_sum<8>(dot4(q, 0x01010101u, 0));
    if (stores) ((uint32_t *)acts.q)[quad] = q;
    if (stores && quad % 8 == 0) acts.scales[quad / 8] = {d, d * (float)sum};
}

RF_INLINE void norm_quantize_row(const NormQuantizeArgs &a, uint64_t row, float *scratch) {
    const float *x = a.x + row * a.columns;
    float factor = a.norm.gain ? row_factor(x, a.columns, a.norm.epsilon, scratch) : 1.0f;
    if (a.columns % RF_ACT_BLOCK != 0) {
        for (uint32_t i = thread_index(); i < a.columns; i += RF_ROW_THREADS)
            if (a.out) a.out[row * a.columns + i] = x[i] * factor * (a.norm.gain ? a.norm.gain[i] : 1.0f);
        return;
    }
    uint32_t quads = a.columns / 4;
    for (uint32_t first = 0; first < quads; first += RF_ROW_THREADS) {
        uint32_t i = first + thread_index();
        bool mine = i < quads;
        f32x4 v = {0, 0, 0, 0};
        if (mine) v = ((const f32x4 *)x)[i];
        if (mine && a.norm.gain) {
            f32x4 gain = ((const f32x4 *)a.norm.gain)[i];
            v = {v.x * factor * gain.x, v.y * factor * gain.y, v.z * factor * gain.z, v.w * factor * gain.w};
        }
        if (mine && a.out) ((f32x4 *)a.out)[row * quads + i] = v;
        if (a.acts.q) quantize_quad(v, a.acts, row * quads + i, mine);
    }
}

RF_INLINE void norm_quantize_stage(const NormQuantizeArgs &a, uint32_t block, uint32_t blocks, float *scratch) {
    for (uint32_t row = block; row < a.n; row += blocks) {
        norm_quantize_row(a, row, scratch);
        barrier();
    }
}

RF_KERNEL(RF_ROW_THREADS, 2) norm_quantize(const RF_GRID_CONSTANT NormQuantizeArgs a) {
    __shared__ float scratch[RF_ROW_THREADS / 32];
    release_dependents();
    wait_for_inputs();
    norm_quantize_stage(a, block_x(), grid_x(), scratch);
}

RF_INLINE void norm_add_stage(const NormAddArgs &a, uint32_t block, uint32_t blocks, float *scratch) {
    for (uint32_t row = block; row < a.n; row += blocks) {
        const float *y = a.y + (uint64_t)row * a.columns;
        float *x = a.x + (uint64_t)row * a.columns;
        float factor = a.norm.gain ? row_factor(y, a.columns, a.norm.epsilon, scratch) : 1.0f;
        for (uint32_t i = thread_index(); i < a.columns; i += RF_ROW_THREADS)
            x[i] += y[i] * factor * (a.norm.gain ? a.norm.gain[i] : 1.0f);
        barrier();
    }
}

RF_KERNEL(RF_ROW_THREADS, 2) norm_add(const RF_GRID_CONSTANT NormAddArgs a) {
    __shared__ float scratch[RF_ROW_THREADS / 32];
    release_dependents();
    wait_for_inputs();
    norm_add_stage(a, block_x(), grid_x(), scratch);
}

// gate · σ(gate) · up, or with the tanh form of GELU, where (1 + tanh u) / 2 is the logistic function of 2u.
RF_INLINE float gated(float gate, float up, bool silu) {
    float u = silu ? gate : 1.5957691216057308f * (gate + 0.044715f * gate * gate * gate);
    return gate * reciprocal(1.0f + exp_fast(-u)) * up;
}

RF_INLINE void gate_up_stage(const GateUpArgs &a, uint32_t block, uint32_t blocks) {
    bool silu = a.epilogue == RF_EPILOGUE_SILU;
    uint64_t elements = (uint64_t)a.n * a.columns, quads = elements / 4;
    uint64_t first = (uint64_t)block * RF_ROW_THREADS + thread_index(), step = (uint64_t)blocks * RF_ROW_THREADS;
    for (uint64_t i = first; i < quads; i += step) {
        f32x4 gate = ((const f32x4 *)a.gate)[i], up = ((const f32x4 *)a.up)[i];
        ((f32x4 *)a.out)[i] = {gated(gate.x, up.x, silu), gated(gate.y, up.y, silu), gated(gate.z, up.z, silu),
                               gated(gate.w, up.w, silu)};
    }
    uint64_t rest = quads * 4 + first;
    if (rest < elements) a.out[rest] = gated(a.gate[rest], a.up[rest], silu);
}

RF_KERNEL(RF_ROW_THREADS, 2) gate_up(const RF_GRID_CONSTANT GateUpArgs a) {
    release_dependents();
    wait_for_inputs();
    gate_up_stage(a, block_x(), grid_x());
}
