// Matrix instructions: C[16][16] = A[16][k] * B[16][k]^T.
#include "device.h"

typedef f16 f16x16 __attribute__((ext_vector_type(16)));
typedef short i16x16 __attribute__((ext_vector_type(16)));
typedef float f32x8 __attribute__((ext_vector_type(8)));
typedef int i32x8 __attribute__((ext_vector_type(8)));
typedef int i32x4 __attribute__((ext_vector_type(4)));

KERNEL wmma_f16(const f16 *a, const f16 *b, float *c, int k) {
    u32 row = lane() & 15, high = lane() >> 4;
    f32x8 sum = {};
    for (int at = 0; at < k; at += 16)
        sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(*(const f16x16 *)(a + row * k + at),
                                                         *(const f16x16 *)(b + row * k + at), sum);
    for (int i = 0; i < 8; ++i) c[(2 * i + high) * 16 + row] = sum[i];
}

KERNEL wmma_bf16(const i16 *a, const i16 *b, float *c, int k) {
    u32 row = lane() & 15, high = lane() >> 4;
    f32x8 sum = {};
    for (int at = 0; at < k; at += 16)
        sum = __builtin_amdgcn_wmma_f32_16x16x16_bf16_w32(*(const i16x16 *)(a + row * k + at),
                                                          *(const i16x16 *)(b + row * k + at), sum);
    for (int i = 0; i < 8; ++i) c[(2 * i + high) * 16 + row] = sum[i];
}

template <bool a_signed, bool b_signed> DEVICE void wmma_i8(const u8 *a, const u8 *b, i32 *c, int k) {
    u32 row = lane() & 15, high = lane() >> 4;
    i32x8 sum = {};
    for (int at = 0; at < k; at += 16)
        sum = __builtin_amdgcn_wmma_i32_16x16x16_iu8_w32(a_signed, *(const i32x4 *)(a + row * k + at), b_signed,
                                                         *(const i32x4 *)(b + row * k + at), sum, false);
    for (int i = 0; i < 8; ++i) c[(2 * i + high) * 16 + row] = sum[i];
}

KERNEL wmma_ii8(const u8 *a, const u8 *b, i32 *c, int k) { wmma_i8<true, true>(a, b, c, k); }
KERNEL wmma_ui8(const u8 *a, const u8 *b, i32 *c, int k) { wmma_i8<false, true>(a, b, c, k); }

// Lanes 16 to 31 hold something else: the hardware's result is not defined.
KERNEL wmma_not_replicated(const f16 *a, const f16 *b, float *c) {
    f32x8 sum = {};
    sum = __builtin_amdgcn_wmma_f32_16x16x16_f16_w32(*(const f16x16 *)(a + lane() * 16),
                                                     *(const f16x16 *)(b + (lane() & 15) * 16), sum);
    for (int i = 0; i < 8; ++i) c[i * 32 + lane()] = sum[i];
}
