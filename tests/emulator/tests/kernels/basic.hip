// The kernels of a small language model.
#include "device.h"

KERNEL vadd(const float *a, const float *b, float *c, int n) {
    int i = global_thread();
    if (i < n) c[i] = a[i] + b[i];
}

KERNEL rmsnorm(const float *x, const float *w, float *y, int n, float eps) {
    __shared__ float part[32];
    const float *row = x + (u64)block() * n;
    float sum = 0;
    for (int i = thread(); i < n; i += block_size()) sum += row[i] * row[i];
    sum = wave_sum(sum);
    if (lane() == 0) part[thread() / 32] = sum;
    barrier();
    sum = lane() < block_size() / 32 ? part[lane()] : 0.f;
    sum = wave_sum(sum);
    float scale = __builtin_amdgcn_rsqf(sum / n + eps);
    for (int i = thread(); i < n; i += block_size()) y[(u64)block() * n + i] = row[i] * scale * w[i];
}

struct Q4 {
    f16 d;
    u8 q[16];
};
struct Q8 {
    f16 d;
    i8 q[32];
};

// One wave a row.
KERNEL gemv_q4(const Q4 *w, const Q8 *x, float *y, int rows, int blocks) {
    int row = block() * (block_size() / 32) + thread() / 32;
    if (row >= rows) return;
    const Q4 *wr = w + (u64)row * blocks;
    float acc = 0;
    for (int b = lane(); b < blocks; b += 32) {
        int s = 0, sx = 0;
        for (int k = 0; k < 4; ++k) {
            int q, x0, x1;
            __builtin_memcpy(&q, wr[b].q + 4 * k, 4);
            __builtin_memcpy(&x0, x[b].q + 4 * k, 4);
            __builtin_memcpy(&x1, x[b].q + 16 + 4 * k, 4);
            s = __builtin_amdgcn_sudot4(true, q & 0x0f0f0f0f, true, x0, s, false);
            s = __builtin_amdgcn_sudot4(true, (q >> 4) & 0x0f0f0f0f, true, x1, s, false);
            sx = __builtin_amdgcn_sudot4(true, 0x01010101, true, x0, sx, false);
            sx = __builtin_amdgcn_sudot4(true, 0x01010101, true, x1, sx, false);
        }
        acc += (float)wr[b].d * (float)x[b].d * (float)(s - 8 * sx);
    }
    acc = wave_sum(acc);
    if (lane() == 0) y[row] = acc;
}

extern __shared__ float dynamic[];

KERNEL softmax(const float *x, float *y, int n) {
    float m = -__builtin_inff();
    for (int i = thread(); i < n; i += block_size()) m = __builtin_fmaxf(m, x[i]);
    m = wave_max(m);
    if (lane() == 0) dynamic[thread() / 32] = m;
    barrier();
    m = dynamic[0];
    for (int k = 1; k < block_size() / 32; ++k) m = __builtin_fmaxf(m, dynamic[k]);
    barrier();
    float s = 0;
    for (int i = thread(); i < n; i += block_size()) {
        float e = exp2_fast((x[i] - m) * 1.44269504f);
        y[i] = e;
        s += e;
    }
    s = wave_sum(s);
    if (lane() == 0) dynamic[thread() / 32] = s;
    barrier();
    s = 0;
    for (int k = 0; k < block_size() / 32; ++k) s += dynamic[k];
    for (int i = thread(); i < n; i += block_size()) y[i] /= s;
}

KERNEL rope(float *x, int half, int position, float base) {
    int i = thread();
    float turns = exp2_fast(-(float)i / half * log2_fast(base)) * position * 0.15915494309f;
    turns = __builtin_amdgcn_fractf(turns);
    float c = __builtin_amdgcn_cosf(turns), s = __builtin_amdgcn_sinf(turns);
    float *p = x + block() * 2 * half, a = p[i], b = p[i + half];
    p[i] = a * c - b * s;
    p[i + half] = a * s + b * c;
}

KERNEL ballot(const float *x, u32 *mask, u32 *count) {
    u32 bits = __builtin_amdgcn_ballot_w32(x[thread()] > 0.f);
    mask[thread()] = bits;
    count[thread()] = __builtin_popcount(bits & ((1u << lane()) - 1));
}
