// Compiled so that f32 takes subnormal numbers for zero.
#include "device.h"

KERNEL flushed(const float *a, const float *b, float *out) {
    u32 i = thread();
    out[i] = a[i] * b[i];
    out[i + 6] = a[i] + b[i];
    out[i + 12] = a[i] / b[i];
    out[i + 18] = a[i] != 0.f ? 1.f : 0.f;
}
