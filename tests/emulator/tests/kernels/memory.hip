// Kinds of memory, atomics, barriers, calls; and programs that are wrong on purpose.
#include "device.h"

KERNEL private_array(const u32 *in, u32 *out, int rounds) {
    u32 table[24];
    for (int i = 0; i < 24; ++i) table[i] = in[i] + thread();
    u32 at = thread();
    for (int i = 0; i < rounds; ++i) {
        u32 slot = (at + i * 5) % 24;
        table[slot] = table[(slot * 7 + 3) % 24] * 31 + i;
        at = table[slot] & 1023;
    }
    u32 sum = 0;
    for (int i = 0; i < 24; ++i) sum = sum * 3 + table[i];
    out[global_thread()] = sum;
}

KERNEL bytes(const u8 *in, u8 *out, u16 *shorts, i32 *wide, int n) {
    int i = global_thread();
    out[i] = in[i] ^ 0x55;
    shorts[i] = (u16)(in[i] * 257);
    wide[i] = (i8)in[i];
    wide[i + n] = (i16)shorts[i] * 3;
}

KERNEL vectors(const u32x4 *in, u32x4 *out, u32x3 *three) {
    int i = global_thread();
    u32x4 x = in[i];
    out[i] = x.wzyx + 1;
    three[i] = x.xyz * 3u;
}

// Each value passes through workgroup memory in every width.
KERNEL local(const u32 *in, u32 *out) {
    __shared__ u32x4 wide[64];
    __shared__ u64 pairs[128];
    __shared__ u8 bytes[256];
    __shared__ u16 shorts[256];
    u32 i = thread();
    bytes[i] = in[i];
    shorts[i] = in[i];
    pairs[i & 127] = (u64)in[i & 127] << 32 | (i & 127);
    if (i < 64) wide[i] = u32x4{in[i], in[i + 64], in[i + 128], in[i + 192]};
    barrier();
    u32 j = 255 - i;
    u32x4 w = wide[j & 63];
    u64 p = pairs[j & 127] ^ pairs[(j + 1) & 127];
    out[i] = bytes[j] + shorts[j] * 3 + (i16)shorts[i] + w.x + w.y * 5 + w.z * 7 + w.w * 11 + (u32)p + (u32)(p >> 32);
}

#define RELAXED __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT

KERNEL atomics(i32 *sums, u32 *bits, u64 *wide, float *total, u32 *order) {
    u32 i = global_thread();
    __hip_atomic_fetch_add(&sums[0], (i32)i, RELAXED);
    __hip_atomic_fetch_sub(&sums[1], 3, RELAXED);
    __hip_atomic_fetch_min(&sums[2], -(i32)i, RELAXED);
    __hip_atomic_fetch_max(&sums[3], (i32)(i * 7 % 1000), RELAXED);
    __hip_atomic_fetch_or(&bits[0], 1u << (i & 31), RELAXED);
    __hip_atomic_fetch_and(&bits[1], ~(1u << (i & 15)), RELAXED);
    __hip_atomic_fetch_xor(&bits[2], i, RELAXED);
    __hip_atomic_fetch_max(&bits[3], i, RELAXED);
    __hip_atomic_fetch_add(&wide[0], (u64)i << 20, RELAXED);
    __hip_atomic_fetch_max(&wide[1], (u64)i << 33, RELAXED);
    __hip_atomic_fetch_add(total, 0.5f, RELAXED);
    order[i] = __hip_atomic_fetch_add(&bits[4], 1u, RELAXED);
    u32 seen = __hip_atomic_load(&bits[5], RELAXED);
    while (!__hip_atomic_compare_exchange_strong(&bits[5], &seen, seen + 2, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                                 __HIP_MEMORY_SCOPE_AGENT)) {
    }
    u64 had = __hip_atomic_load(&wide[2], RELAXED);
    while (!__hip_atomic_compare_exchange_strong(&wide[2], &had, had * 3 + 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                                 __HIP_MEMORY_SCOPE_AGENT)) {
    }
}

KERNEL local_atomics(const u32 *in, u32 *out) {
    __shared__ u32 count[16];
    __shared__ float sum;
    __shared__ u64 wide;
    if (thread() < 16) count[thread()] = 0;
    if (thread() == 0) sum = 0, wide = 5;
    barrier();
    u32 x = in[thread()] & 15;
    u32 before = __hip_atomic_fetch_add(&count[x], 1u, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    __hip_atomic_fetch_add(&sum, 1.0f, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    __hip_atomic_fetch_add(&wide, 1ull << 32, __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_WORKGROUP);
    u32 seen = 0;
    __hip_atomic_compare_exchange_strong(&count[x], &seen, 7u, __ATOMIC_RELAXED, __ATOMIC_RELAXED,
                                         __HIP_MEMORY_SCOPE_WORKGROUP);
    barrier();
    if (thread() < 16) out[thread()] = count[thread()];
    if (thread() == 16) out[16] = (u32)sum;
    if (thread() == 17) out[17] = (u32)(wide >> 32);
    if (before > 1000) out[18] = 1;
}

NOINLINE u32 scramble(u32 x, u32 rounds) {
    for (u32 i = 0; i < rounds; ++i) x = x * 1664525u + 1013904223u;
    return x;
}

NOINLINE u32 twice(u32 x, u32 *stack) {
    stack[x & 3] += x;
    return scramble(x, 2) + stack[(x + 1) & 3];
}

KERNEL calls(u32 *out) {
    u32 stack[4] = {1, 2, 3, 4};
    u32 x = twice(global_thread(), stack);
    out[global_thread()] = x ^ scramble(x, thread() & 7) ^ stack[global_thread() & 3];
}

__device__ u32 counter = 17;
__constant__ u32 table[8] = {3, 1, 4, 1, 5, 9, 2, 6};

KERNEL globals(u32 *out) {
    out[thread()] = table[thread() & 7] + (thread() == 0 ? counter : 0);
    if (thread() == 1) counter = 18;
}

// Two-dimensional blocks and grids, and everything that the runtime passes unasked.
KERNEL place(u32 *out) {
    u32 x = __builtin_amdgcn_workgroup_id_x() * __builtin_amdgcn_workgroup_size_x() + __builtin_amdgcn_workitem_id_x();
    u32 y = __builtin_amdgcn_workgroup_id_y() * __builtin_amdgcn_workgroup_size_y() + __builtin_amdgcn_workitem_id_y();
    u32 z = __builtin_amdgcn_workgroup_id_z() * __builtin_amdgcn_workgroup_size_z() + __builtin_amdgcn_workitem_id_z();
    u32 width = __builtin_amdgcn_grid_size_x(), height = __builtin_amdgcn_grid_size_y();
    out[(z * height + y) * width + x] = x | y << 8 | z << 16;
}

// Waits for all blocks, again and again: needs them all to run at the same time.
KERNEL grid_barrier(u32 *arrived, u32 *sums, u32 rounds, u32 blocks) {
    for (u32 round = 1; round <= rounds; ++round) {
        if (thread() == 0) {
            __hip_atomic_fetch_add(&sums[round], block() + 1, RELAXED);
            __hip_atomic_fetch_add(arrived, 1u, __ATOMIC_RELEASE, __HIP_MEMORY_SCOPE_AGENT);
            while (__hip_atomic_load(arrived, __ATOMIC_ACQUIRE, __HIP_MEMORY_SCOPE_AGENT) < round * blocks)
                __builtin_amdgcn_s_sleep(1);
            u32 expected = blocks * (blocks + 1) / 2;
            if (__hip_atomic_load(&sums[round], RELAXED) != expected) sums[0] = round;
        }
        barrier();
    }
}

// Wrong: the last thread writes what all read, without a barrier between.
KERNEL missing_barrier(const u32 *in, u32 *out) {
    __shared__ u32 values[256];
    values[thread()] = in[thread()];
    out[thread()] = values[255 - thread()];
}

// Wrong: the last thread stores one element too far.
KERNEL out_of_bounds(u32 *out) { out[thread() + (thread() == 31)] = thread(); }

KERNEL local_out_of_bounds(u32 *out, u32 at) {
    __shared__ u32 values[32];
    values[thread()] = thread();
    barrier();
    out[thread()] = values[thread() + at];
}

extern __shared__ u32 dynamic[];

// Wrong: nobody wrote it.
KERNEL uninitialised(u32 *out) { out[thread()] = dynamic[thread()]; }

KERNEL endless(u32 *out) {
    while (__hip_atomic_load(out, RELAXED) == 0) {
    }
}

KERNEL trap(u32 *out) {
    if (out[0] != 0) __builtin_trap();
}
