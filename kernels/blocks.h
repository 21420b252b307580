// The blocks of GGUF files, as in src/quant/blocks.rs. Kernels read planes (formats.h), not blocks; the planes' sizes are
// checked against these: packing neither adds nor drops a byte.
#pragma once
#include "portable.h"

#define RF_BLOCK(name, bytes, ...)                  \
    struct name {                                   \
        __VA_ARGS__                                 \
    };                                              \
    static_assert(sizeof(name) == bytes && alignof(name) <= 2, "a block has the size that it has in files")

// Blocks of 32 numbers.
RF_BLOCK(BlockQ4_0, 18, uint16_t d; uint8_t qs[16];);
RF_BLOCK(BlockQ4_1, 20, uint16_t d; uint16_t m; uint8_t qs[16];);
RF_BLOCK(BlockQ5_0, 22, uint16_t d; uint8_t qh[4]; uint8_t qs[16];);
RF_BLOCK(BlockQ5_1, 24, uint16_t d; uint16_t m; uint8_t qh[4]; uint8_t qs[16];);
RF_BLOCK(BlockQ8_0, 34, uint16_t d; int8_t qs[32];);
RF_BLOCK(BlockIQ4_NL, 18, uint16_t d; uint8_t qs[16];);
RF_BLOCK(BlockMXFP4, 17, uint8_t e; uint8_t qs[16];);

// Blocks of 256 numbers.
RF_BLOCK(BlockQ2_K, 84, uint8_t scales[16]; uint8_t qs[64]; uint16_t d; uint16_t dmin;);
RF_BLOCK(BlockQ3_K, 110, uint8_t hmask[32]; uint8_t qs[64]; uint8_t scales[12]; uint16_t d;);
RF_BLOCK(BlockQ4_K, 144, uint16_t d; uint16_t dmin; uint8_t scales[12]; uint8_t qs[128];);
RF_BLOCK(BlockQ5_K, 176, uint16_t d; uint16_t dmin; uint8_t scales[12]; uint8_t qh[32]; uint8_t qs[128];);
RF_BLOCK(BlockQ6_K, 210, uint8_t ql[128]; uint8_t qh[64]; int8_t scales[16]; uint16_t d;);
RF_BLOCK(BlockIQ4_XS, 136, uint16_t d; uint16_t scales_h; uint8_t scales_l[4]; uint8_t qs[128];);

// Floats: blocks of one.
typedef float BlockF32;
typedef uint16_t BlockF16;
typedef uint16_t BlockBF16;
