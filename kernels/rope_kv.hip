// Head norms, rotation, and the append of keys and values to the cache, for steps of several rows.
//
// | kernel | threads | grid | shared memory |
// |---|---|---|---|
// | rope_append_f16, rope_append_f32 (the cache's elements) | 256 | ceil(n · (n_head + 2 · n_head_kv) / 8) | none |
//
// Heads have up to 512 elements.
#include "cache.h"

#define RF_ROPE_THREADS 256

// One head of a row by a group of 32 lanes: queries come first, then keys, then values.
template <typename Cache>
RF_INLINE void rope_append_head(const RopeAppendArgs &a, uint32_t row, uint32_t head) {
    const HeadShape &shape = a.shape;
    uint32_t head_dim = shape.head_dim, n_head = shape.n_head, n_head_kv = shape.n_head_kv;
    Head<512> values;
    if (head < n_head) {
        float *q = a.q + ((uint64_t)row * n_head + head) * head_dim;
        values.load(q, head_dim, a.rope, a.rope.q_norm.gain, true, row);
        values.finish(head_dim, a.rope.q_norm);
        values.each(head_dim, a.rope, [&](int i, Head<512>::Places at) { q[at.a] = values.a[i], q[at.b] = values.b[i]; });
        return;
    }
    uint32_t kind = head < n_head + n_head_kv ? RF_KEYS : RF_VALUES;
    uint32_t kv_head = head - n_head - (kind == RF_VALUES ? n_head_kv : 0);
    uint64_t page = a.step.pages[a.step.first_page[row] + a.step.positions[row] / RF_PAGE_TOKENS];
    NormArg norm = kind == RF_KEYS ? a.rope.k_norm : NormArg{nullptr, 0, 0};
    const float *from = (kind == RF_KEYS ? a.k : a.v) + ((uint64_t)row * n_head_kv + kv_head) * head_dim;
    values.load(from, head_dim, a.rope, norm.gain, kind == RF_KEYS, row);
    values.finish(head_dim, norm);
    auto *out = cache_row<Cache>(page, shape, a.step.positions[row], kind, kv_head);
    values.each(head_dim, a.rope, [&](int i, Head<512>::Places at) {
        out[at.a] = Cache::element(values.a[i]);
        out[at.b] = Cache::element(values.b[i]);
    });
}

template <typename Cache>
RF_INLINE void rope_append_stage(const RopeAppendArgs &a, uint32_t block, uint32_t blocks) {
    uint32_t heads = a.shape.n_head + 2 * a.shape.n_head_kv, groups = RF_ROPE_THREADS / 32;
    for (uint32_t i = block * groups + group32(); i < a.n * heads; i += blocks * groups)
        rope_append_head<Cache>(a, i / heads, i % heads);
}

RF_KERNEL(RF_ROPE_THREADS, 2) rope_append_f16(const RF_GRID_CONSTANT RopeAppendArgs a) {
    release_dependents();
    wait_for_inputs();
    rope_append_stage<HalfCache>(a, block_x(), grid_x());
}

RF_KERNEL(RF_ROPE_THREADS, 2) rope_append_f32(const RF_GRID_CONSTANT RopeAppendArgs a) {
    release_dependents();
    wait_for_inputs();
    rope_append_stage<FloatCache>(a, block_x(), grid_x());
}
