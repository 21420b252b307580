// Attention of single rows over paged keys and values, on the vector units: decoding, and prompts where there are no
// matrix units for the cache's elements (attend_prefill.hip has the others).
//
// | kernel | {d} | {g} | grid |
// |---|---|---|---|
// | attend_decode_f16_{d}_g{g} | 64, 128, 256 | 1, 2, 3, 4, 8 | (n_head_kv · ceil(group / g), splits, n) |
// | attend_decode_f16_512_g4, attend_decode_f32_{d}_g4 | 128, 512 | 4 | (n_head_kv · ceil(group / g), splits, n) |
// | attend_prefill_f16_{d} | 64, 128, 256, 512 | | any; n_head_kv · ceil(n · group / tile) have work |
// | attend_prefill_f32_{d} | 128, 512 | | any; as above |
//
// All have 256 threads and static shared memory. The host takes the least {d} that is not less than head_dim (a multiple
// of 8, up to 512), and the least {g} that is not less than group = n_head / n_head_kv, or the greatest there is. A
// prefill's tile is 4 queries in the forms for f32 and for 512; else 128 where there are
// matrix units for half precision and a wave has 32 lanes (AMD with heads over 128: 64), 64 where it has 64, and 8 where
// there are no such units.
// A split is at least a page; 256 splits are the most.
//
// `attend_decode` with `k` reads positions, pages and the cache before it waits for the kernels ahead of it: between two
// steps there must be a full dependency (a copy, or the border of a graph).
//
// A block has one key-value head of one sequence, a range of positions, and up to G queries which all see each key and
// value that is read. It goes over its range in chunks of 256 positions:
//   1. scores: LANES lanes hold a key, 8 elements each; a slot of LANES lanes takes 4 consecutive keys at a time. The
//      G · 4 partial products of a lane are summed over the lanes by halving: each lane ends with its own scores.
//   2. weights: one group of 32 lanes a query: greatest score, exponentials, sum.
//   3. values: each lane adds up 8 elements of the results of all queries, over the keys of its slot.
// At the end the slots' results are added up. Exponentials are to base 2, log₂e being part of the factor on the scores.
#include "cache.h"
#include "tiles.h"

#define RF_ATTEND_THREADS 256
#define RF_ATTEND_GROUPS (RF_ATTEND_THREADS / 32)
#define RF_CHUNK 256

// Sums v[0..N] over the lanes whose numbers differ in the bits from `Mask` down to `Least`. With each bit a lane keeps
// one half of the sums and hands the other half over, as long as they can be halved. Leaves `Scattered::kept` sums in a
// lane, of which the first is the one whose number is returned.
template <int N, int Mask, int Least>
RF_INLINE uint32_t scatter_sum(float *v, uint32_t place = 0) {
    if constexpr (Mask < Least) {
        return place;
    } else if constexpr (N % 2 == 0) {
        bool upper = lane32() & Mask;
        RF_UNROLL for (int i = 0; i < N / 2; i++) {
            float low = v[i], high = v[i + N / 2]; // choosing between places would put the array in memory
            v[i] = (upper ? high : low) + shuffle_xor_by<Mask>(upper ? low : high);
        }
        return scatter_sum<N / 2, Mask / 2, Least>(v, place + (upper ? N / 2 : 0));
    } else {
        RF_UNROLL for (int i = 0; i < N; i++) v[i] += shuffle_xor_by<Mask>(v[i]);
        return scatter_sum<N, Mask / 2, Least>(v, place);
    }
}
template <int N, int Mask, int Least>
struct Scattered {
    static constexpr int kept = Mask < Least ? N : Scattered<N % 2 ? N : N / 2, Mask < Least ? 0 : Mask / 2, Least>::kept;
};
template <int N, int Least>
struct Scattered<N, 0, Least> {
    static constexpr int kept = N;
};

template <typename CacheType, int Class, int G>
struct AttendShape {
    typedef CacheType Cache;
    typedef typename Cache::Element Element;
    static constexpr int LANES = Class >= 256 ? 32 : Class / 8; // that hold a key
    static constexpr int VECTORS = Class <= 256 ? 1 : Class / 256; // of 8 elements in a lane
    static constexpr int SLOTS = RF_ATTEND_THREADS / LANES;
    static constexpr int KEYS = 4; // consecutive keys of a slot
    static constexpr int BATCH = SLOTS * KEYS;
    static constexpr int STRIDE = RF_CHUNK + 8; // of the weights: queries in different banks
    static constexpr int TOGETHER = Class >= 512 ? 1 : G < 512 / Class ? G : 512 / Class; // queries gathered at a time
    // Element e of a lane's 8 lies at e · PLANE + lane: neighbouring lanes read and write neighbouring banks.
    static constexpr int PLANE = LANES + 4;

    struct Working {
        float q[G][VECTORS][2][LANES * 4]; // scaled; elements 0 to 3 of each lane, then 4 to 7
        float weights[G][STRIDE];
    };
    struct Shared {
        union {
            Working work;
            float sums[RF_ATTEND_GROUPS][TOGETHER][VECTORS][8 * PLANE];
        };
        alignas(16) Element own_key[Class];
        alignas(16) Element own_value[Class];
        float shrink[G];
        float most[G];
        float total[G];
        uint32_t last;
    };
};

// What the queries of a block have in common.
struct AttendRange {
    const uint64_t *pages; // of the sequence
    uint64_t keys, values; // elements into a page
    uint32_t head_dim;
    uint32_t begin, end;   // positions that some query of the block sees
    uint32_t own;          // the position whose key and value are in shared memory, or RF_NOWHERE
    float softcap;
};
#define RF_NOWHERE 0xffffffffu

// The keys or values that a lane has in flight: of 4 consecutive positions.
template <typename S>
struct Batch {
    typename S::Cache::Eight rows[S::KEYS][S::VECTORS];
};

// The addresses of the eight pages of a chunk, one in each of the first lanes of every group of 32.
struct ChunkPages {
    uint32_t low, high;
};
RF_INLINE ChunkPages chunk_pages(const AttendRange &range, uint32_t chunk) {
    uint32_t last = (range.end - 1) / RF_PAGE_TOKENS, page = chunk / RF_PAGE_TOKENS + lane32() % (RF_CHUNK / 32);
    uint64_t address = range.pages[page < last ? page : last];
    return {(uint32_t)address, (uint32_t)(address >> 32)};
}

RF_INLINE uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

// Issues the loads of a batch. `last` is the last position of the range, relative to the chunk: what lies behind it may
// never have been written, so it is read in place of what would follow.
template <typename S>
RF_INLINE void load_batch(Batch<S> &batch, const AttendRange &range, ChunkPages pages, uint64_t offset, uint32_t last,
                          uint32_t b) {
    typedef typename S::Element Element;
    uint32_t lane = thread_index() % S::LANES, slot = thread_index() / S::LANES;
    uint32_t first = b * S::BATCH + slot * S::KEYS, page = least(first, last) / RF_PAGE_TOKENS;
    uint64_t address = (uint64_t)shuffle(pages.high, page) << 32 | shuffle(pages.low, page);
    const RF_GLOBAL Element *rows = (const RF_GLOBAL Element *)address + offset;
    RF_UNROLL for (int u = 0; u < S::KEYS; u++) {
        uint32_t row = least(first + u, last) % RF_PAGE_TOKENS * range.head_dim;
        RF_UNROLL for (int v = 0; v < S::VECTORS; v++) {
            uint32_t element = lane * 8 + v * 256;
            batch.rows[u][v] = S::Cache::load(rows + row + (element < range.head_dim ? element : 0));
        }
    }
}

// The loads of a chunk in their order: its batches of keys, then its batches of values. Two are in flight at a time, the
// first two from before the queries are there.
template <typename S>
struct Flight {
    ChunkPages pages;
    uint32_t last, batches; // the last position, relative to the chunk, and the batches up to there
    Batch<S> now, next;
};
template <typename S>
RF_INLINE void load_next(Flight<S> &flight, const AttendRange &range, uint32_t i) {
    bool keys = i < flight.batches;
    load_batch<S>(flight.next, range, flight.pages, keys ? range.keys : range.values, flight.last,
                  keys ? i : i - flight.batches);
}
template <typename S>
RF_INLINE Flight<S> begin_chunk(const AttendRange &range, uint32_t chunk) {
    Flight<S> flight;
    flight.last = least(range.end - chunk, RF_CHUNK) - 1;
    flight.batches = flight.last / S::BATCH + 1;
    flight.pages = chunk_pages(range, chunk);
    load_batch<S>(flight.now, range, flight.pages, range.keys, flight.last, 0);
    load_next<S>(flight, range, 1);
    return flight;
}

// Puts the row that is not in the cache yet in place of what was read for it.
template <typename S>
RF_INLINE void take_own(Batch<S> &batch, const typename S::Element *own_row, uint32_t own, uint32_t last, uint32_t b) {
    uint32_t lane = thread_index() % S::LANES, slot = thread_index() / S::LANES;
    uint32_t first = b * S::BATCH + slot * S::KEYS;
    RF_UNROLL for (int u = 0; u < S::KEYS; u++) {
        if (least(first + u, last) != own) continue;
        RF_UNROLL for (int v = 0; v < S::VECTORS; v++)
            batch.rows[u][v] = S::Cache::load_shared(own_row + lane * 8 + v * 256);
    }
}

// Scores of a batch of keys, to `weights`.
template <typename S, int G>
RF_INLINE void score_batch(const Batch<S> &batch, typename S::Shared &shared, uint32_t b) {
    uint32_t lane = thread_index() % S::LANES, slot = thread_index() / S::LANES;
    float scores[G * S::KEYS];
    RF_UNROLL for (int i = 0; i < G * S::KEYS; i++) scores[i] = 0;
    RF_UNROLL for (int v = 0; v < S::VECTORS; v++) {
        RF_UNROLL for (int half = 0; half < 2; half++) {
            f32x4 keys[S::KEYS];
            RF_UNROLL for (int u = 0; u < S::KEYS; u++) keys[u] = S::Cache::four(batch.rows[u][v], half);
            RF_UNROLL for (int g = 0; g < G; g++) {
                f32x4 q = *(const f32x4 *)&shared.work.q[g][v][half][lane * 4];
                RF_UNROLL for (int u = 0; u < S::KEYS; u++) {
                    float dot = scores[g * S::KEYS + u];
                    dot += q.x * keys[u].x, dot += q.y * keys[u].y, dot += q.z * keys[u].z, dot += q.w * keys[u].w;
                    scores[g * S::KEYS + u] = dot;
                }
            }
        }
    }
    uint32_t place = scatter_sum<G * S::KEYS, S::LANES / 2, 1>(scores);
    RF_UNROLL for (int i = 0; i < Scattered<G * S::KEYS, S::LANES / 2, 1>::kept; i++) {
        uint32_t score = place + i;
        shared.work.weights[score / S::KEYS][b * S::BATCH + slot * S::KEYS + score % S::KEYS] = scores[i];
    }
}

// A query's softmax so far, in its group of 32: the greatest score, and each lane's share of the sum.
struct Running {
    float most, sum;
};

// Scores of a chunk to weights, for the query of this group; `begin` and `end` are what it sees of the chunk.
template <typename S>
RF_INLINE void weigh_chunk(typename S::Shared &shared, Running &running, float softcap, uint32_t begin,
                           uint32_t end) {
    float *weights = shared.work.weights[group32()];
    float scores[RF_CHUNK / 32], most = running.most;
    RF_UNROLL for (int i = 0; i < RF_CHUNK / 32; i++) scores[i] = weights[lane32() + 32 * i]; // anything, behind the end
    if (softcap > 0)
        RF_UNROLL for (int i = 0; i < RF_CHUNK / 32; i++) scores[i] = softcap * RF_LOG2E * tanh_fast(scores[i]);
    RF_UNROLL for (int i = 0; i < RF_CHUNK / 32; i++) {
        uint32_t at = lane32() + 32 * i;
        scores[i] = at >= begin && at < end ? scores[i] : 2 * RF_NO_SCORE;
        most = __builtin_fmaxf(most, scores[i]);
    }
    most = group_max(most);
    float shrink = exp2_fast(running.most - most), sum = running.sum * shrink;
    RF_UNROLL for (int i = 0; i < RF_CHUNK / 32; i++) {
        float weight = exp2_fast(scores[i] - most);
        sum += weight;
        weights[lane32() + 32 * i] = weight;
    }
    running = {most, sum};
    if (lane32() == 0) shared.shrink[group32()] = shrink;
}

// results += weights · values of a batch.
template <typename S, int G>
RF_INLINE void add_batch(const Batch<S> &batch, typename S::Shared &shared, float *results, uint32_t b) {
    uint32_t slot = thread_index() / S::LANES, first = b * S::BATCH + slot * S::KEYS;
    f32x4 weights[G];
    RF_UNROLL for (int g = 0; g < G; g++) weights[g] = *(const f32x4 *)&shared.work.weights[g][first];
    RF_UNROLL for (int v = 0; v < S::VECTORS; v++) {
        RF_UNROLL for (int u = 0; u < S::KEYS; u++) {
            f32x4 low = S::Cache::four(batch.rows[u][v], 0), high = S::Cache::four(batch.rows[u][v], 1);
            RF_UNROLL for (int g = 0; g < G; g++) {
                float weight = u == 0 ? weights[g].x : u == 1 ? weights[g].y : u == 2 ? weights[g].z : weights[g].w;
                float *sums = results + (g * S::VECTORS + v) * 8;
                sums[0] += weight * low.x, sums[1] += weight * low.y, sums[2] += weight * low.z;
                sums[3] += weight * low.w, sums[4] += weight * high.x, sums[5] += weight * high.y;
                sums[6] += weight * high.z, sums[7] += weight * high.w;
            }
        }
    }
}

// The pass over a range for the queries in shared memory; the query of this group of 32 sees the positions from `begin`
// to `end`. The caller has begun the range's first chunk. Leaves each lane's share of the results, and most and total of
// each query in shared memory.
template <typename S, int G>
RF_INLINE void attend_range(const AttendRange &range, typename S::Shared &shared, Flight<S> flight, uint32_t begin,
                            uint32_t end, float *results) {
    RF_UNROLL for (int i = 0; i < G * S::VECTORS * 8; i++) results[i] = 0;
    Running running = {RF_NO_SCORE, 0};
    bool weighs = group32() < G;
    uint32_t first = range.begin / RF_PAGE_TOKENS * RF_PAGE_TOKENS;
    for (uint32_t chunk = first; chunk < range.end; chunk += RF_CHUNK) {
        if (chunk != first) flight = begin_chunk<S>(range, chunk);
        uint32_t own = range.own - chunk; // wraps, and is found nowhere
        bool has_own = range.own != RF_NOWHERE && own == flight.last;
        for (uint32_t b = 0; b < flight.batches; b++) {
            if (b > 0) {
                flight.now = flight.next;
                load_next<S>(flight, range, b + 1);
            }
            if (has_own) take_own<S>(flight.now, shared.own_key, own, flight.last, b);
            score_batch<S, G>(flight.now, shared, b);
        }
        shared_barrier();
        if (weighs) {
            uint32_t from = begin > chunk ? begin - chunk : 0, to = end > chunk ? end - chunk : 0;
            weigh_chunk<S>(shared, running, range.softcap, from, to);
        }
        shared_barrier();
        RF_UNROLL for (int g = 0; g < G; g++) {
            float shrink = shared.shrink[g];
            RF_UNROLL for (int e = 0; e < S::VECTORS * 8; e++) results[g * S::VECTORS * 8 + e] *= shrink;
        }
        for (uint32_t b = 0; b < flight.batches; b++) {
            flight.now = flight.next;
            if (b + 1 < flight.batches) load_next<S>(flight, range, flight.batches + b + 1);
            if (has_own) take_own<S>(flight.now, shared.own_value, own, flight.last, b);
            add_batch<S, G>(flight.now, shared, results, b);
        }
        shared_barrier();
    }
    if (weighs) {
        float total = group_sum(running.sum);
        if (lane32() == 0) shared.most[group32()] = running.most, shared.total[group32()] = total;
    }
}

// Adds the lanes' shares up over the block and hands each element of each query's result to
// `take(query, element, value)`. Begins and ends with what was written to shared memory in order.
template <typename S, int G, typename Take>
RF_INLINE void gather_results(typename S::Shared &shared, float *results, uint32_t head_dim, Take take) {
    constexpr int N = G * S::VECTORS * 8, KEPT = Scattered<N, 16, S::LANES>::kept, CLASS = S::LANES * S::VECTORS * 8;
    uint32_t place = scatter_sum<N, 16, S::LANES>(results), lane = lane32() % S::LANES;
    RF_UNROLL for (int round = 0; round < G; round += S::TOGETHER) {
        RF_UNROLL for (int i = 0; i < KEPT; i++) {
            uint32_t at = place + i, e = at % 8, v = at / 8 % S::VECTORS, g = at / (8 * S::VECTORS) - round;
            if (g < S::TOGETHER) shared.sums[group32()][g][v][e * S::PLANE + lane] = results[i];
        }
        shared_barrier();
        for (uint32_t i = thread_index(); i < S::TOGETHER * CLASS; i += RF_ATTEND_THREADS) {
            uint32_t g = i / CLASS, d = i % CLASS;
            if (d >= head_dim || round + g >= G) continue;
            float sum = 0;
            RF_UNROLL for (int w = 0; w < RF_ATTEND_GROUPS; w++)
                sum += shared.sums[w][g][d / 256 % S::VECTORS][d % 8 * S::PLANE + d / 8 % S::LANES];
            take(round + g, d, sum);
        }
        shared_barrier();
    }
}

// Element d of query g in shared memory.
template <typename S>
RF_INLINE float &query_element(typename S::Shared &shared, uint32_t g, uint32_t d) {
    uint32_t lane = d / 8 % S::LANES;
    return shared.work.q[g][d / 256 % S::VECTORS][d / 4 % 2][lane * 4 + d % 4];
}

RF_INLINE float score_factor(float scale, float softcap) { return softcap > 0 ? scale / softcap : scale * RF_LOG2E; }

// ------------------------------------------------------------------------------------------------------------ decoding

// A share of the positions of a row, in whole pages, and how many blocks have one.
struct Share {
    uint32_t begin, end, blocks;
};
RF_INLINE Share share_of(const AttendArgs &a, uint32_t position, uint32_t split) {
    uint32_t end = position + 1, begin = a.window && end > a.window ? end - a.window : 0;
    uint32_t first = begin / RF_PAGE_TOKENS, pages = (end + RF_PAGE_TOKENS - 1) / RF_PAGE_TOKENS - first;
    uint32_t each = (pages + a.splits - 1) / a.splits;
    uint32_t from = (first + split * each) * RF_PAGE_TOKENS, to = from + each * RF_PAGE_TOKENS;
    return {from > begin ? from : begin, least(to, end), (pages + each - 1) / each};
}

// Where the new row of the block's key-value head goes.
struct NewRow {
    uint32_t row, kv_head, position;
    uint64_t page;
    bool appends; // to the cache; else some other block does
};

// A query's work before attention, by a group of 32.
template <typename S, int Class>
RF_INLINE void prepare_query(const AttendArgs &a, typename S::Shared &shared, uint32_t row, uint32_t head_number,
                             uint32_t g) {
    uint32_t head_dim = a.shape.head_dim;
    NormArg norm = a.k ? a.rope.q_norm : NormArg{nullptr, 0, 0};
    Head<Class> head;
    head.load(a.q + ((uint64_t)row * a.shape.n_head + head_number) * head_dim, head_dim, a.rope, norm.gain,
              a.k != nullptr, row);
    head.finish(head_dim, norm);
    float factor = score_factor(a.scale, a.softcap);
    head.each(head_dim, a.rope, [&](int i, typename Head<Class>::Places at) {
        query_element<S>(shared, g, at.a) = head.a[i] * factor;
        query_element<S>(shared, g, at.b) = head.b[i] * factor;
    });
}

// The same for the new key or value: it stays in shared memory and goes to the cache.
template <typename S, int Class>
RF_INLINE void prepare_new(const AttendArgs &a, typename S::Shared &shared, const NewRow &to, uint32_t kind) {
    uint32_t head_dim = a.shape.head_dim;
    bool is_key = kind == RF_KEYS;
    typename S::Element *own = is_key ? shared.own_key : shared.own_value;
    NormArg norm = is_key ? a.rope.k_norm : NormArg{nullptr, 0, 0};
    Head<Class> head;
    head.load((is_key ? a.k : a.v) + ((uint64_t)to.row * a.shape.n_head_kv + to.kv_head) * head_dim, head_dim, a.rope,
              norm.gain, is_key, to.row);
    head.finish(head_dim, norm);
    auto *out = cache_row<typename S::Cache>(to.page, a.shape, to.position, kind, to.kv_head);
    head.each(head_dim, a.rope, [&](int i, typename Head<Class>::Places at) {
        own[at.a] = S::Cache::element(head.a[i]);
        own[at.b] = S::Cache::element(head.b[i]);
        if (to.appends) out[at.a] = own[at.a], out[at.b] = own[at.b];
    });
}

// Elements of a class that the head does not have.
template <typename S, int Class, int G>
RF_INLINE void clear_beyond(typename S::Shared &shared, uint32_t head_dim) {
    for (uint32_t i = thread_index(); i < G * (Class - head_dim); i += RF_ATTEND_THREADS) {
        uint32_t d = head_dim + i / G;
        query_element<S>(shared, i % G, d) = 0;
        shared.own_key[d] = shared.own_value[d] = 0;
    }
}

// The results of all shares of a head, in the block that came last.
template <typename S, int G>
RF_INLINE void merge_shares(const AttendArgs &a, typename S::Shared &shared, uint32_t row, uint32_t query,
                            uint32_t queries, uint32_t blocks) {
    uint64_t heads = (uint64_t)row * a.shape.n_head + query;
    uint32_t head_dim = a.shape.head_dim, quads = head_dim / 4;
    const f32x2 *stats = (const f32x2 *)(a.partial + (uint64_t)a.n * a.shape.n_head * a.splits * head_dim);
    for (uint32_t g = group32(); g < queries; g += RF_ATTEND_GROUPS) {
        const f32x2 *stat = stats + (heads + g) * a.splits;
        float most = RF_NO_SCORE, total = 0;
        for (uint32_t s = lane32(); s < blocks; s += 32) most = __builtin_fmaxf(most, stat[s].x);
        most = group_max(most);
        for (uint32_t s = lane32(); s < blocks; s += 32) {
            float factor = exp2_fast(stat[s].x - most);
            total += factor * stat[s].y;
            shared.work.weights[g][s] = factor;
        }
        total = group_sum(total);
        for (uint32_t s = lane32(); s < blocks; s += 32) shared.work.weights[g][s] /= total;
    }
    shared_barrier();
    for (uint32_t i = thread_index(); i < queries * quads; i += RF_ATTEND_THREADS) {
        uint32_t g = i / quads, quad = i % quads;
        const f32x4 *sums = (const f32x4 *)(a.partial + (heads + g) * a.splits * head_dim) + quad;
        f32x4 out = {0, 0, 0, 0};
        _Pragma("unroll 8") for (uint32_t s = 0; s < blocks; s++) {
            f32x4 sum = sums[s * quads];
            float weight = shared.work.weights[g][s];
            out = {out.x + weight * sum.x, out.y + weight * sum.y, out.z + weight * sum.z, out.w + weight * sum.w};
        }
        ((f32x4 *)a.out)[(heads + g) * quads + quad] = out;
    }
}

// One share of the positions of one row, for up to G queries of one key-value head. (Larger groups are divided over
// blocks, not gone through in a loop: everything that does not change in it would be kept in registers.)
template <typename S, int Class, int G>
RF_INLINE void attend_decode_share(const AttendArgs &a, typename S::Shared &shared, uint32_t part, uint32_t split,
                                   uint32_t row) {
    uint32_t head_dim = a.shape.head_dim, group = a.shape.n_head / a.shape.n_head_kv, parts = (group + G - 1) / G;
    uint32_t kv_head = part / parts, done = part % parts * G;
    uint32_t query = kv_head * group + done, queries = least(group - done, G);
    // Rows that are in the cache already were written by a kernel just before; others the cache does not hold yet, and
    // all that it does hold is of earlier steps.
    if (!a.k) wait_for_inputs();
    uint32_t position = a.step.positions[row];
    Share share = share_of(a, position, split);
    bool works = split < share.blocks, owns = a.k && share.end == position + 1;
    AttendRange range = {a.step.pages + a.step.first_page[row],
                         head_offset(a.shape, RF_KEYS, kv_head),
                         head_offset(a.shape, RF_VALUES, kv_head),
                         head_dim,
                         share.begin,
                         share.end,
                         owns ? position : RF_NOWHERE,
                         a.softcap};
    NewRow to = {row, kv_head, position, owns ? range.pages[position / RF_PAGE_TOKENS] : 0, done == 0};
    Flight<S> flight;
    if (works) flight = begin_chunk<S>(range, share.begin / RF_PAGE_TOKENS * RF_PAGE_TOKENS);
    if (a.k) wait_for_inputs();
    if (!works) return;

    for (uint32_t task = group32(); task < (owns ? G + 2 : G); task += RF_ATTEND_GROUPS) {
        // What is beyond the group's end is computed like its first, and dropped.
        if (task < G)
            prepare_query<S, Class>(a, shared, row, query + (task < queries ? task : 0), task);
        else
            prepare_new<S, Class>(a, shared, to, task == G ? RF_KEYS : RF_VALUES);
    }
    if (head_dim != Class) clear_beyond<S, Class, G>(shared, head_dim);
    shared_barrier();
    float results[G * S::VECTORS * 8];
    attend_range<S, G>(range, shared, flight, share.begin, share.end, results);
    shared_barrier();
    uint64_t heads = (uint64_t)row * a.shape.n_head + query;
    gather_results<S, G>(shared, results, head_dim, [&](uint32_t g, uint32_t d, float value) {
        if (g >= queries) return;
        if (share.blocks == 1)
            a.out[(heads + g) * head_dim + d] = value / shared.total[g];
        else
            a.partial[((heads + g) * a.splits + split) * head_dim + d] = value;
    });
    if (share.blocks == 1) return;
    if (thread_index() < queries) {
        uint32_t g = thread_index();
        f32x2 *stats = (f32x2 *)(a.partial + (uint64_t)a.n * a.shape.n_head * a.splits * head_dim);
        stats[(heads + g) * a.splits + split] = {shared.most[g], shared.total[g]};
    }
    release_to_others();
    barrier();
    uint32_t *counter = a.counters + (uint64_t)row * (a.shape.n_head_kv * parts) + part;
    if (thread_index() == 0) shared.last = arrive(counter) == share.blocks - 1;
    shared_barrier();
    if (!shared.last) return;
    acquire_others();
    if (thread_index() == 0) *counter = 0;
    merge_shares<S, G>(a, shared, row, query, queries, share.blocks);
}

#define RF_ATTEND_DECODE(type, Cache, d, g, per_unit)                                                                 \
    RF_KERNEL(RF_ATTEND_THREADS, per_unit) attend_decode_##type##_##d##_g##g(const RF_GRID_CONSTANT AttendArgs a) {   \
        typedef AttendShape<Cache, d, g> S;                                                                           \
        __shared__ typename S::Shared shared;                                                                         \
        release_dependents();                                                                                         \
        attend_decode_share<S, d, g>(a, shared, block_x(), block_y(), block_z());                                     \
    }

#define RF_ATTEND_DECODE_HALF(d)                                                                                      \
    RF_ATTEND_DECODE(f16, HalfCache, d, 1, 2)                                                                         \
    RF_ATTEND_DECODE(f16, HalfCache, d, 2, 2)                                                                         \
    RF_ATTEND_DECODE(f16, HalfCache, d, 3, 2)                                                                         \
    RF_ATTEND_DECODE(f16, HalfCache, d, 4, 2)                                                                         \
    RF_ATTEND_DECODE(f16, HalfCache, d, 8, 1)

RF_ATTEND_DECODE_HALF(64)
RF_ATTEND_DECODE_HALF(128)
RF_ATTEND_DECODE_HALF(256)
RF_ATTEND_DECODE(f16, HalfCache, 512, 4, 1)
RF_ATTEND_DECODE(f32, FloatCache, 128, 4, 1)
RF_ATTEND_DECODE(f32, FloatCache, 512, 4, 1)

// ------------------------------------------------------------------------------------------------------------- prompts

// G queries of one key-value head: the heads of its group, row after row.
template <typename S, int Class, int G>
RF_INLINE void attend_tile(const AttendArgs &a, typename S::Shared &shared, uint32_t kv_head, uint32_t tile) {
    uint32_t head_dim = a.shape.head_dim, group = a.shape.n_head / a.shape.n_head_kv, queries = a.n * group;
    RopeArg as_it_is = {};
    float factor = score_factor(a.scale, a.softcap);
    uint32_t begin = 0, end = 0;
    for (uint32_t g = group32(); g < G; g += RF_ATTEND_GROUPS) {
        uint32_t query = least(tile * G + g, queries - 1), row = query / group;
        Head<Class> head;
        head.load(a.q + ((uint64_t)row * a.shape.n_head + kv_head * group + query % group) * head_dim, head_dim,
                  as_it_is, nullptr, false, row);
        head.each(head_dim, as_it_is, [&](int i, typename Head<Class>::Places at) {
            query_element<S>(shared, g, at.a) = head.a[i] * factor;
            query_element<S>(shared, g, at.b) = head.b[i] * factor;
        });
        end = a.step.positions[0] + row + 1;
        begin = a.window && end > a.window ? end - a.window : 0;
    }
    if (head_dim != Class) clear_beyond<S, Class, G>(shared, head_dim);
    uint32_t first_row = tile * G / group, last_row = least(tile * G + G, queries) - 1;
    uint32_t first_end = a.step.positions[0] + first_row + 1;
    AttendRange range = {a.step.pages + a.step.first_page[0],
                         head_offset(a.shape, RF_KEYS, kv_head),
                         head_offset(a.shape, RF_VALUES, kv_head),
                         head_dim,
                         a.window && first_end > a.window ? first_end - a.window : 0,
                         a.step.positions[0] + last_row / group + 1,
                         RF_NOWHERE,
                         a.softcap};
    uint32_t first = range.begin / RF_PAGE_TOKENS * RF_PAGE_TOKENS;
    Flight<S> flight = begin_chunk<S>(range, first);
    shared_barrier();
    float results[G * S::VECTORS * 8];
    attend_range<S, G>(range, shared, flight, begin, end, results);
    shared_barrier();
    gather_results<S, G>(shared, results, head_dim, [&](uint32_t g, uint32_t d, float value) {
        uint32_t query = tile * G + g;
        if (query >= queries) return;
        uint64_t head = (uint64_t)(query / group) * a.shape.n_head + kv_head * group + query % group;
        a.out[head * head_dim + d] = value / shared.total[g];
    });
}

// The tiles of all key-value heads; the last rows, which see most, come first.
template <typename S, int Class, int G>
RF_INLINE void attend_tiles_stage(const AttendArgs &a, typename S::Shared &shared, uint32_t block, uint32_t blocks) {
    uint32_t n_head_kv = a.shape.n_head_kv, tiles = (a.n * (a.shape.n_head / n_head_kv) + G - 1) / G;
    for (uint32_t i = block; i < tiles * n_head_kv; i += blocks)
        attend_tile<S, Class, G>(a, shared, i % n_head_kv, tiles - 1 - i / n_head_kv);
}

#define RF_ATTEND_PREFILL(type, Cache, d, g)                                                                          \
    RF_KERNEL(RF_ATTEND_THREADS, 1) attend_prefill_##type##_##d(const RF_GRID_CONSTANT AttendArgs a) {                \
        typedef AttendShape<Cache, d, g> S;                                                                           \
        __shared__ typename S::Shared shared;                                                                         \
        release_dependents();                                                                                         \
        wait_for_inputs();                                                                                            \
        attend_tiles_stage<S, d, g>(a, shared, block_x(), grid_x());                                                  \
    }

#if !RF_HALF_TILES
RF_ATTEND_PREFILL(f16, HalfCache, 64, 8)
RF_ATTEND_PREFILL(f16, HalfCache, 128, 8)
RF_ATTEND_PREFILL(f16, HalfCache, 256, 8)
#endif
RF_ATTEND_PREFILL(f16, HalfCache, 512, 4)
RF_ATTEND_PREFILL(f32, FloatCache, 128, 4)
RF_ATTEND_PREFILL(f32, FloatCache, 512, 4)
