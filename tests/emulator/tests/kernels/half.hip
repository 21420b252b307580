// f16: packed, mixed with f32, dot products.
#include "device.h"

KERNEL packed(const f16x2 *a, const f16x2 *b, const f16x2 *c, f16x2 *out, int n) {
    int i = global_thread();
    f16x2 x = a[i], y = b[i], z = c[i];
    out[i] = x + y;
    out[i + n] = x - z;
    out[i + 2 * n] = x * y;
    out[i + 3 * n] = __builtin_elementwise_fma(x, y, z);
    out[i + 4 * n] = __builtin_elementwise_max(x, y);
    out[i + 5 * n] = __builtin_elementwise_min(x, y);
    out[i + 6 * n] = x.yx * (f16)0.5f + y;
    out[i + 7 * n] = -x + y.yx;
}

KERNEL packed_integers(const u16x2 *a, const u16x2 *b, u16x2 *out, int n) {
    int i = global_thread();
    u16x2 x = a[i], y = b[i];
    i16x2 sx = cast<i16x2>(x), sy = cast<i16x2>(y);
    out[i] = x + y;
    out[i + n] = x - y;
    out[i + 2 * n] = x * y;
    out[i + 3 * n] = x << (u16)3;
    out[i + 4 * n] = x >> (u16)5;
    out[i + 5 * n] = cast<u16x2>(sx >> (i16)2);
    out[i + 6 * n] = __builtin_elementwise_max(x, y);
    out[i + 7 * n] = cast<u16x2>(__builtin_elementwise_min(sx, sy));
    out[i + 8 * n] = x * y + (u16)7;
}

// One half at a time, and f32 arithmetic on halves.
KERNEL single(const f16 *a, const f16 *b, f16 *out, float *wide, int n) {
    int i = global_thread();
    f16 x = a[i], y = b[i];
    out[i] = x + y;
    out[i + n] = x * y - x;
    out[i + 2 * n] = __builtin_elementwise_sqrt(__builtin_elementwise_abs(x));
    out[i + 3 * n] = x / y;
    out[i + 4 * n] = (f16)(float)(i32)x;
    out[i + 5 * n] = x > y ? x : (f16)2;
    out[i + 6 * n] = (f16)__builtin_fmaf((float)x, (float)y, 1.5f);
    wide[i] = __builtin_fmaf((float)x, (float)y, (float)x);
    wide[i + n] = (float)x * (float)y + 0.25f;
    wide[i + 2 * n] = (float)-x;
}

KERNEL dot2(const f16x2 *a, const f16x2 *b, const float *c, float *out, int n) {
    int i = global_thread();
    out[i] = __builtin_amdgcn_fdot2(a[i], b[i], c[i], false);
    out[i + n] = __builtin_amdgcn_fdot2(a[i], b[i], 0.5f, false);
}

KERNEL to_half(const float *a, f16 *nearest, u32 *towards_zero) {
    int i = global_thread();
    nearest[i] = (f16)a[i];
    towards_zero[i] = cast<u32>(__builtin_amdgcn_cvt_pkrtz(a[i], -a[i]));
}
