// Attention of a prompt's rows on matrix units, over a cache of half precision. Names, sizes and grids: attention.hip.
//
// A block takes 16 queries a wave (the heads of a key-value head's group, row after row) and goes over the pages that
// some of them see. A page's keys lie in shared memory as they are, its values transposed; both are fetched to registers
// while the page before is multiplied. Queries, scaled and rounded to half precision, stay in registers, as do the
// results; scores, softmax and sums are float32.
#include "cache.h"
#include "tiles.h"

#if RF_HALF_TILES

#define RF_PREFILL_THREADS 256
#define RF_PREFILL_WAVES (RF_PREFILL_THREADS / RF_WAVE)

template <int Class>
struct PrefillShape {
    static constexpr int TILES = Class / 16;
    // Waves that share 16 queries: each has all of their scores, and a part of the results, which would not fit the
    // registers otherwise. (Lanes of a wave of 64 hold half as much; NVIDIA's 255 registers just do.)
    static constexpr int PARTS = Class > 128 && RF_TILE_QUERIES == 1 && RF_WAVE == 32 ? 2 : 1;
    static constexpr int RESULTS = TILES / PARTS; // tiles of results of a wave
    static constexpr int QUERIES = 16 * RF_PREFILL_WAVES / PARTS; // of a block
    static constexpr int KEY_STRIDE = Class + 8; // halves: neighbouring rows begin 4 banks apart
    static constexpr int VALUE_STRIDE = RF_PAGE_TOKENS + 8;
    static constexpr int VECTORS = RF_PAGE_TOKENS * Class / 8 / RF_PREFILL_THREADS; // a thread's share of a page's keys
    static constexpr int PAIRS = (VECTORS + 1) / 2; // of tokens' values: a thread's share of a page's values
    static constexpr int KEPT_WORDS = RF_TILE_WORDS == 8 && Class > 128 ? 4 : RF_TILE_WORDS; // of a tile of queries
    struct Shared {
        alignas(16) uint16_t keys[RF_PAGE_TOKENS * KEY_STRIDE];
        alignas(16) uint16_t values[Class * VALUE_STRIDE + Class];
    };
    struct Fetched {
        u32x4 keys[VECTORS], values[PAIRS][2];
    };
    // Halves before element d of the transposed values: 8 rows make room for 8 halves more, so that lanes that store
    // different elements of the same tokens meet different banks.
    static RF_METHOD constexpr uint32_t value_row(uint32_t d) { return d * VALUE_STRIDE + d / 8 * 8; }
};

// What a block works on: queries from `first` on, of one key-value head of one sequence.
struct PrefillTile {
    uint32_t kv_head, first;
    uint32_t group, queries; // a row's queries of this head, and those of all rows
    uint32_t begin, end;     // positions that some query sees
    uint32_t head_dim;
};

RF_INLINE uint32_t seen_end(const AttendArgs &a, uint32_t row) { return a.step.positions[0] + row + 1; }
RF_INLINE uint32_t seen_begin(const AttendArgs &a, uint32_t row) {
    uint32_t end = seen_end(a, row);
    return a.window && end > a.window ? end - a.window : 0;
}

// Reads a page of keys and values. What lies behind the last position that a query sees may never have been written, so
// that position is read in its place, and elements beyond the head's are its first: neither has weight in a result.
template <typename S, int Class>
RF_INLINE void fetch_page(typename S::Fetched &fetched, const AttendArgs &a, const PrefillTile &tile, uint32_t page) {
    uint32_t head_dim = tile.head_dim;
    const RF_GLOBAL uint16_t *data = (const RF_GLOBAL uint16_t *)a.step.pages[a.step.first_page[0] + page];
    const RF_GLOBAL uint16_t *keys = data + head_offset(a.shape, RF_KEYS, tile.kv_head);
    const RF_GLOBAL uint16_t *values = data + head_offset(a.shape, RF_VALUES, tile.kv_head);
    uint32_t last = tile.end - 1 - page * RF_PAGE_TOKENS;
    last = last < RF_PAGE_TOKENS ? last : RF_PAGE_TOKENS - 1;
    RF_UNROLL for (int i = 0; i < S::VECTORS; i++) {
        uint32_t at = thread_index() + i * RF_PREFILL_THREADS, row = at / (Class / 8), d = at % (Class / 8) * 8;
        fetched.keys[i] = load_global(keys + (row < last ? row : last) * head_dim + (d < head_dim ? d : 0));
    }
    RF_UNROLL for (int i = 0; i < S::PAIRS; i++) {
        uint32_t at = thread_index() + i * RF_PREFILL_THREADS, pair = at / (Class / 8), d = at % (Class / 8) * 8;
        RF_UNROLL for (int t = 0; t < 2; t++) {
            uint32_t row = 2 * pair + t;
            fetched.values[i][t] = load_global(values + (row < last ? row : last) * head_dim + (d < head_dim ? d : 0));
        }
    }
}

// Two tokens' halves of one element each from two words of two elements.
RF_INLINE void store_pair(uint16_t *low_row, uint16_t *high_row, uint32_t first, uint32_t second) {
    *(uint32_t *)low_row = (first & 0xffffu) | second << 16;
    *(uint32_t *)high_row = first >> 16 | (second & 0xffff0000u);
}

template <typename S, int Class>
RF_INLINE void store_page(typename S::Shared &shared, const typename S::Fetched &fetched) {
    RF_UNROLL for (int i = 0; i < S::VECTORS; i++) {
        uint32_t at = thread_index() + i * RF_PREFILL_THREADS, row = at / (Class / 8), d = at % (Class / 8) * 8;
        uint32_t place = row / 16 * 16 + key_row(row % 16);
        *(u32x4 *)&shared.keys[place * S::KEY_STRIDE + d] = fetched.keys[i];
    }
    RF_UNROLL for (int i = 0; i < S::PAIRS; i++) {
        uint32_t at = thread_index() + i * RF_PREFILL_THREADS, pair = at / (Class / 8), d = at % (Class / 8) * 8;
        if (pair >= RF_PAGE_TOKENS / 2) continue;
        const u32x4 &first = fetched.values[i][0], &second = fetched.values[i][1];
        uint16_t *out = &shared.values[S::value_row(d) + 2 * pair];
        constexpr int STRIDE = S::VALUE_STRIDE;
        store_pair(out, out + STRIDE, first.x, second.x);
        store_pair(out + 2 * STRIDE, out + 3 * STRIDE, first.y, second.y);
        store_pair(out + 4 * STRIDE, out + 5 * STRIDE, first.z, second.z);
        store_pair(out + 6 * STRIDE, out + 7 * STRIDE, first.w, second.w);
    }
}

// A wave's 16 queries and how far it is with them.
template <typename S>
struct PrefillWave {
    uint32_t queries[S::TILES][S::KEPT_WORDS];
    SumTile results[S::RESULTS];
    float most[RF_TILE_QUERIES], total[RF_TILE_QUERIES]; // total: this lane's share
    uint32_t begin[RF_TILE_QUERIES], end[RF_TILE_QUERIES];
    uint32_t wave_begin, wave_end; // of all 16
    uint32_t first_result;         // element of a head

    // A tile of queries as the matrix unit wants it.
    RF_METHOD OperandTile operand(int tile) const {
#if RF_WMMA_GFX11
        if constexpr (S::KEPT_WORDS == 4) return both_halves(queries[tile]);
#endif
        OperandTile t;
        RF_UNROLL for (int i = 0; i < RF_TILE_WORDS; i++) t.words[i] = queries[tile][i % S::KEPT_WORDS];
        return t;
    }
};

RF_INLINE float clamp_half(float v) { return __builtin_fminf(__builtin_fmaxf(v, -65504.0f), 65504.0f); }

template <typename S>
RF_INLINE void load_queries(PrefillWave<S> &wave, const AttendArgs &a, const PrefillTile &tile, uint32_t first) {
    uint32_t head_dim = tile.head_dim, most = tile.queries - 1;
    RF_UNROLL for (int t = 0; t < S::TILES; t++) {
        RF_UNROLL for (int w = 0; w < S::KEPT_WORDS; w++) {
            uint32_t query = first + operand_row(w), d = t * 16 + operand_column(w);
            // A lane that keeps one half of a row: that of its half of the wave.
            if (S::KEPT_WORDS != RF_TILE_WORDS) d += wave_lane() / 16 * 8;
            query = query < most ? query : most;
            uint64_t head = (uint64_t)(query / tile.group) * a.shape.n_head + tile.kv_head * tile.group +
                            query % tile.group;
            // Beyond the head there is 0.
            float scale = d < head_dim ? a.scale : 0;
            f32x2 q = *(const f32x2 *)(a.q + head * head_dim + (d < head_dim ? d : 0));
            wave.queries[t][w] = pack_halves(clamp_half(q.x * scale), clamp_half(q.y * scale));
        }
    }
    RF_UNROLL for (int t = 0; t < S::RESULTS; t++)
        RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) wave.results[t].sums[i] = 0;
    wave.first_result = thread_index() / RF_WAVE % S::PARTS * (S::RESULTS * 16);
    RF_UNROLL for (int slot = 0; slot < RF_TILE_QUERIES; slot++) {
        uint32_t query = first + query_of(slot), row = (query < most ? query : most) / tile.group;
        wave.most[slot] = RF_NO_SCORE, wave.total[slot] = 0;
        wave.begin[slot] = seen_begin(a, row), wave.end[slot] = seen_end(a, row);
    }
    wave.wave_begin = seen_begin(a, (first < most ? first : most) / tile.group);
    wave.wave_end = first > most ? 0 : seen_end(a, (first + 15 < most ? first + 15 : most) / tile.group);
}

// Scores to weights: mask, greatest score, exponentials. Brings what the wave has of its results to the new greatest.
template <typename S>
RF_INLINE void weigh_page(PrefillWave<S> &wave, SumTile *scores, const AttendArgs &a, uint32_t position) {
    if (a.softcap > 0) {
        float inverse = 1.0f / a.softcap, cap = a.softcap * RF_LOG2E;
        RF_UNROLL for (int half = 0; half < 2; half++)
            RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++)
                scores[half].sums[i] = cap * tanh_fast(scores[half].sums[i] * inverse);
    } else {
        RF_UNROLL for (int half = 0; half < 2; half++)
            RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) scores[half].sums[i] *= RF_LOG2E;
    }
    float most[RF_TILE_QUERIES];
    RF_UNROLL for (int slot = 0; slot < RF_TILE_QUERIES; slot++) most[slot] = wave.most[slot];
    RF_UNROLL for (int half = 0; half < 2; half++) {
        RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) {
            int slot = query_slot(i);
            uint32_t at = position + half * 16 + key_of(i);
            bool seen = at >= wave.begin[slot] && at < wave.end[slot];
            float score = seen ? scores[half].sums[i] : 2 * RF_NO_SCORE;
            scores[half].sums[i] = score;
            most[slot] = __builtin_fmaxf(most[slot], score);
        }
    }
    float shrink[RF_TILE_QUERIES];
    RF_UNROLL for (int slot = 0; slot < RF_TILE_QUERIES; slot++) {
        most[slot] = query_max(most[slot]);
        shrink[slot] = exp2_fast(wave.most[slot] - most[slot]);
        wave.most[slot] = most[slot];
        wave.total[slot] *= shrink[slot];
    }
    RF_UNROLL for (int half = 0; half < 2; half++) {
        RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) {
            int slot = query_slot(i);
            float weight = exp2_fast(scores[half].sums[i] - most[slot]);
            scores[half].sums[i] = weight;
            wave.total[slot] += weight;
        }
    }
    RF_UNROLL for (int t = 0; t < S::RESULTS; t++)
        RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) wave.results[t].sums[i] *= shrink[query_slot(i)];
}

// A page for a wave's queries. Tiles beyond head_dim are zeros, and multiplied with the rest: conditions would keep
// the loads of a tile from running ahead of the products of the one before.
template <typename S>
RF_INLINE void attend_page(PrefillWave<S> &wave, const typename S::Shared &shared, const AttendArgs &a,
                           uint32_t position) {
    SumTile scores[2];
    RF_UNROLL for (int half = 0; half < 2; half++)
        RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) scores[half].sums[i] = 0;
    RF_UNROLL for (int t = 0; t < S::TILES; t++) {
        OperandTile queries = wave.operand(t);
        RF_UNROLL for (int half = 0; half < 2; half++) {
            uint32_t row = half * 16 + fetched_row();
            multiply_tiles(scores[half], load_operand(&shared.keys[row * S::KEY_STRIDE + t * 16]), queries);
        }
    }
    weigh_page<S>(wave, scores, a, position);
    const uint16_t *first = &shared.values[S::value_row(wave.first_result + fetched_row())];
    OperandTile weights[2] = {weights_operand(scores[0]), weights_operand(scores[1])};
    RF_UNROLL for (int t = 0; t < S::RESULTS; t++) {
        RF_UNROLL for (int half = 0; half < 2; half++) {
            const uint16_t *values = first + t * S::value_row(16) + half * 16;
            multiply_tiles(wave.results[t], load_operand(values), weights[half]);
        }
    }
}

template <typename S>
RF_INLINE void store_results(const PrefillWave<S> &wave, const AttendArgs &a, const PrefillTile &tile,
                             uint32_t first) {
    uint32_t head_dim = tile.head_dim;
    RF_UNROLL for (int slot = 0; slot < RF_TILE_QUERIES; slot++) {
        uint32_t query = first + query_of(slot);
        uint64_t head = (uint64_t)(query / tile.group) * a.shape.n_head + tile.kv_head * tile.group + query % tile.group;
        float inverse = 1.0f / query_sum(wave.total[slot]);
        if (query >= tile.queries) continue;
        float *out = a.out + head * head_dim;
        RF_UNROLL for (int t = 0; t < S::RESULTS; t++) {
            RF_UNROLL for (int i = 0; i < RF_TILE_SUMS; i++) {
                uint32_t d = wave.first_result + t * 16 + element_of(i);
                if (query_slot(i) == slot && d < head_dim) out[d] = wave.results[t].sums[i] * inverse;
            }
        }
    }
}

template <typename S, int Class>
RF_INLINE void attend_prefill_tile(const AttendArgs &a, const PrefillTile &tile, typename S::Shared &shared) {
    uint32_t first = tile.first + thread_index() / RF_WAVE / S::PARTS * 16;
    uint32_t page = tile.begin / RF_PAGE_TOKENS, pages = (tile.end + RF_PAGE_TOKENS - 1) / RF_PAGE_TOKENS;
    typename S::Fetched fetched;
    fetch_page<S, Class>(fetched, a, tile, page);
    PrefillWave<S> wave;
    load_queries<S>(wave, a, tile, first);
    for (; page < pages; page++) {
        shared_barrier();
        store_page<S, Class>(shared, fetched);
        shared_barrier();
        if (page + 1 < pages) fetch_page<S, Class>(fetched, a, tile, page + 1);
        uint32_t position = page * RF_PAGE_TOKENS;
        if (position < wave.wave_end && position + RF_PAGE_TOKENS > wave.wave_begin)
            attend_page<S>(wave, shared, a, position);
    }
    store_results<S>(wave, a, tile, first);
}

// The tiles of all key-value heads; the last rows, which see most, come first.
template <int Class>
RF_INLINE void attend_prefill_stage(const AttendArgs &a, typename PrefillShape<Class>::Shared &shared, uint32_t block,
                                    uint32_t blocks) {
    uint32_t n_head_kv = a.shape.n_head_kv, group = a.shape.n_head / n_head_kv, queries = a.n * group;
    constexpr uint32_t QUERIES = PrefillShape<Class>::QUERIES;
    uint32_t tiles = (queries + QUERIES - 1) / QUERIES;
    for (uint32_t i = block; i < tiles * n_head_kv; i += blocks) {
        uint32_t first = (tiles - 1 - i / n_head_kv) * QUERIES, end = first + QUERIES;
        uint32_t last_row = ((end < queries ? end : queries) - 1) / group;
        PrefillTile tile = {i % n_head_kv, first, group, queries, seen_begin(a, first / group), seen_end(a, last_row),
                            opaque(a.shape.head_dim)};
        attend_prefill_tile<PrefillShape<Class>, Class>(a, tile, shared);
    }
}

#define RF_ATTEND_PREFILL_TILES(d)                                                                                    \
    RF_KERNEL(RF_PREFILL_THREADS, 1) attend_prefill_f16_##d(const RF_GRID_CONSTANT AttendArgs a) {                    \
        __shared__ PrefillShape<d>::Shared shared;                                                                    \
        release_dependents();                                                                                         \
        wait_for_inputs();                                                                                            \
        attend_prefill_stage<d>(a, shared, block_x(), grid_x());                                                      \
    }

RF_ATTEND_PREFILL_TILES(64)
RF_ATTEND_PREFILL_TILES(128)
RF_ATTEND_PREFILL_TILES(256)

#endif
