// Rows of the embedding as float32: embed_<f>, one block of RF_EMBED_THREADS threads a token.
#include "formats.h"

namespace matmul {

#define RF_EMBED_THREADS 256

template <typename F>
RF_INLINE void embed_stage(const EmbedArgs &a, uint32_t t) {
    uint32_t columns = a.table.columns;
    uint32_t row = a.tokens[t]; // the host has checked it
    float *x = a.x + (uint64_t)t * columns;
    if constexpr (F::UNIT == 32) {
        uint32_t units = columns / 32;
        Planes at = F::planes(a.table, (uint64_t)row * units);
        for (uint32_t u = thread_index(); u < units; u += RF_EMBED_THREADS) {
            float v[32];
            decode_unit<F>(F::load(at, u), u % 8, v);
            f32x4 *out = (f32x4 *)(x + u * 32);
            RF_UNROLL for (int i = 0; i < 8; i++) {
                out[i] = {v[4 * i] * a.scale, v[4 * i + 1] * a.scale, v[4 * i + 2] * a.scale, v[4 * i + 3] * a.scale};
            }
        }
    } else {
        const typename F::Element *w = (const typename F::Element *)a.table.data + (uint64_t)row * columns;
        for (uint32_t i = thread_index(); i < columns; i += RF_EMBED_THREADS) x[i] = F::number(w[i]) * a.scale;
    }
}

#define RF_EMBED(F, name)                                                           \
    RF_KERNEL(RF_EMBED_THREADS, 1) embed_##name(const RF_GRID_CONSTANT EmbedArgs a) { \
        release_dependents();                                                       \
        wait_for_inputs();                                                          \
        embed_stage<F>(a, block_x());                                               \
    }
RF_INTEGER_FORMATS(RF_EMBED)
RF_FLOAT_FORMATS(RF_EMBED)

} // namespace matmul
