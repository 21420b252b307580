// What of sampling is worth doing where the logits are.
//
// | kernel | threads | grid | shared memory |
// |---|---|---|---|
// | argmax | 256 | (splits, n), best ceil(n_vocab / 4096) splits | static |
#include "args.h"

#define RF_ARGMAX_THREADS 256

RF_INLINE bool is_nan(float v) { return v != v; }

// The better of two candidates: no number before any number, then the greater logit, then the lower token.
RF_INLINE Candidate better(Candidate a, Candidate b) {
    if (is_nan(a.logit) || is_nan(b.logit)) return is_nan(a.logit) ? a : b;
    bool first = a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
    return {first ? a.token : b.token, first ? a.logit : b.logit};
}

// The best candidate of a block, in its first thread. `scratch` is of one candidate for each group of 32.
RF_INLINE Candidate best_of_block(Candidate best, Candidate *scratch) {
    for (uint32_t mask = 16; mask > 0; mask /= 2)
        best = better(best, {shuffle_xor(best.token, mask), shuffle_xor(best.logit, mask)});
    if (lane32() == 0) scratch[group32()] = best;
    barrier();
    best = scratch[0];
    for (int i = 1; i < RF_ARGMAX_THREADS / 32; i++) best = better(best, scratch[i]);
    barrier();
    return best;
}

#define RF_NO_CANDIDATE {0xffffffffu, -__builtin_inff()}

struct ArgmaxShared {
    Candidate best[RF_ARGMAX_THREADS / 32];
    uint32_t last;
};

// One of the shares of one row; the block that comes last gathers.
RF_INLINE void argmax_share(const ArgmaxArgs &a, uint32_t row, uint32_t split, ArgmaxShared &shared) {
    const float *logits = a.logits + (uint64_t)row * a.n_vocab;
    uint32_t step = a.splits * RF_ARGMAX_THREADS, first = split * RF_ARGMAX_THREADS + thread_index();
    Candidate best = RF_NO_CANDIDATE;
    if (a.n_vocab % 4 == 0) {
        for (uint32_t i = first; i < a.n_vocab / 4; i += step) {
            f32x4 v = ((const f32x4 *)logits)[i];
            best = better(best, {4 * i, v.x});
            best = better(best, {4 * i + 1, v.y});
            best = better(best, {4 * i + 2, v.z});
            best = better(best, {4 * i + 3, v.w});
        }
    } else {
        for (uint32_t i = first; i < a.n_vocab; i += step) best = better(best, {i, logits[i]});
    }
    best = best_of_block(best, shared.best);
    if (thread_index() == 0) {
        a.partial[(uint64_t)row * a.splits + split] = best;
        shared.last = arrive(a.counters + row) == a.splits - 1;
    }
    barrier();
    if (!shared.last) return;
    acquire_others();
    best = RF_NO_CANDIDATE;
    for (uint32_t i = thread_index(); i < a.splits; i += RF_ARGMAX_THREADS)
        best = better(best, a.partial[(uint64_t)row * a.splits + i]);
    best = best_of_block(best, shared.best);
    if (thread_index() != 0) return;
    a.counters[row] = 0;
    if (is_nan(best.logit)) best.token = 0xffffffffu;
    a.out[row] = best;
}

RF_KERNEL(RF_ARGMAX_THREADS, 2) argmax(const RF_GRID_CONSTANT ArgmaxArgs a) {
    __shared__ ArgmaxShared shared;
    release_dependents();
    wait_for_inputs();
    argmax_share(a, block_y(), block_x(), shared);
}
