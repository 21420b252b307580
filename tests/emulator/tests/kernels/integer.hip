// Integers of all widths, conversions, division.
#include "device.h"

KERNEL wide(const u64 *a, const u64 *b, u64 *out, int n) {
    int i = global_thread();
    u64 x = a[i], y = b[i];
    i64 sx = x, sy = y;
    out[i] = x + y;
    out[i + n] = x - y;
    out[i + 2 * n] = x * y;
    out[i + 3 * n] = y ? x / y : 0;
    out[i + 4 * n] = y ? x % y : 0;
    out[i + 5 * n] = y ? (u64)(sx / sy) : 0;
    out[i + 6 * n] = x << (y & 63);
    out[i + 7 * n] = x >> (y & 63);
    out[i + 8 * n] = (u64)(sx >> (y & 63));
    out[i + 9 * n] = sx < sy ? x : y;
    out[i + 10 * n] = x < y ? 1 : 2;
    out[i + 11 * n] = (u64)(u32)x * (u32)y + x;
    out[i + 12 * n] = (u64)((i64)(i32)x * (i32)y + sy);
    out[i + 13 * n] = __builtin_popcountll(x) + __builtin_clzll(x | 1) + __builtin_ctzll(y | 1ull << 63);
}

KERNEL narrow(const u32 *a, const u32 *b, u32 *out, int n) {
    int i = global_thread();
    u32 x = a[i], y = b[i];
    i32 sx = x, sy = y;
    out[i] = x * y;
    out[i + n] = (u32)((u64)x * y >> 32);
    out[i + 2 * n] = (u32)((i64)sx * sy >> 32);
    out[i + 3 * n] = y ? x / y : 0;
    out[i + 4 * n] = y ? (u32)(sx % sy) : 0;
    out[i + 5 * n] = (x >> 7) & 0x1ff;
    out[i + 6 * n] = (u32)(sx << 9 >> 21);
    out[i + 7 * n] = (x & 0xff00ff) | (y & ~0xff00ffu);
    out[i + 8 * n] = x << 13 | x >> 19;
    out[i + 9 * n] = __builtin_amdgcn_perm(x, y, 0x07020c05);
    out[i + 10 * n] = __builtin_amdgcn_alignbit(x, y, 11);
    out[i + 11 * n] = __builtin_bitreverse32(x) + __builtin_bswap32(y);
    out[i + 12 * n] = (x << 3) + y;
    out[i + 13 * n] = (x + y) << 5;
    out[i + 14 * n] = (x << 4) | y;
    out[i + 15 * n] = (x & y) | 12345;
    out[i + 16 * n] = x + y + 77;
    out[i + 17 * n] = __builtin_elementwise_add_sat(x, y);
    out[i + 18 * n] = (u32)__builtin_elementwise_sub_sat(sx, sy);
    out[i + 19 * n] = (u32)(sx < sy ? sx : sy) ^ (x > y ? x : y);
    out[i + 20 * n] = __builtin_clz(x | 1) * 100 + __builtin_ctz(y | 0x80000000);
    out[i + 21 * n] = (x & 0xffffff) * (y & 0xffffff) + x;
    out[i + 22 * n] = (u16)((u16)x * (u16)y + (u16)3);
    out[i + 23 * n] = (u32)(i16)((i16)x >> ((u16)y & 15));
    out[i + 24 * n] = (x ^ y) + 99;
    out[i + 25 * n] = __builtin_amdgcn_sad_u8(x, y, 5);
    out[i + 26 * n] = (u32)(sx < 3 ? (sx > -5 ? sx : -5) : 3);
}

KERNEL dots(const u32 *a, const u32 *b, i32 *out, int n) {
    int i = global_thread();
    out[i] = __builtin_amdgcn_sudot4(true, a[i], true, b[i], 7, false);
    out[i + n] = __builtin_amdgcn_sudot4(false, a[i], true, b[i], -9, false);
    out[i + 2 * n] = __builtin_amdgcn_udot4(a[i], b[i], 1, false);
    out[i + 3 * n] = __builtin_amdgcn_sudot4(true, a[i], true, b[i], 0x7ffffff0, true);
    out[i + 4 * n] = __builtin_amdgcn_sudot8(true, a[i], false, b[i], 3, false);
}

KERNEL conversions(const float *a, const u32 *bits, float *out, u32 *words, int n) {
    int i = global_thread();
    float x = a[i];
    u32 w = bits[i];
    out[i] = (float)(i32)w;
    out[i + n] = (float)w;
    out[i + 2 * n] = (float)(w & 255) + (float)(w >> 8 & 255) + (float)(w >> 16 & 255) + (float)(w >> 24);
    out[i + 3 * n] = (float)(i8)w;
    out[i + 4 * n] = __builtin_truncf(x) + __builtin_floorf(x) * 2 + __builtin_ceilf(x) * 4 + __builtin_rintf(x) * 8;
    out[i + 5 * n] = (float)((u64)w * w);
    out[i + 6 * n] = (float)(i64)((u64)w << 31);
    out[i + 7 * n] = (float)((double)x * 3.0 + (double)w);
    words[i] = (u32)(i32)x;
    words[i + n] = x < 0 ? 0 : (u32)x;
    words[i + 2 * n] = (u32)(i64)x;
    words[i + 3 * n] = (u32)(i32)__builtin_floorf(x + 0.5f);
    words[i + 4 * n] = (u32)(i32)((double)x * 1.5);
}

KERNEL float_division(const float *a, const float *b, float *out, int n) {
    int i = global_thread();
    float x = a[i], y = b[i];
    out[i] = x / y;
    out[i + n] = x - y * __builtin_truncf(x / y); // as fmod, for quotients that are exact enough
    out[i + 2 * n] = __builtin_sqrtf(__builtin_fabsf(x));
    out[i + 3 * n] = __builtin_elementwise_max(x, y) - __builtin_elementwise_min(x, y);
    out[i + 4 * n] = __builtin_ldexpf(x, (int)y & 7);
    out[i + 5 * n] = __builtin_fmaf(x, y, -x);
    out[i + 6 * n] = __builtin_amdgcn_fmed3f(x, y, 1.0f);
    out[i + 7 * n] = __builtin_isnan(x) || __builtin_isinf(y) ? 1.f : __builtin_copysignf(2.f, x);
}

KERNEL doubles(const double *a, const double *b, double *out, int n) {
    int i = global_thread();
    out[i] = a[i] + b[i];
    out[i + n] = a[i] * b[i] - a[i];
    out[i + 2 * n] = a[i] / b[i];
    out[i + 3 * n] = __builtin_floor(a[i]) + __builtin_fabs(b[i]);
    out[i + 4 * n] = a[i] < b[i] ? a[i] : b[i];
}
