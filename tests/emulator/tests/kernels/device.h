// What the kernels of these tests use of HIP, by clang's builtins alone.
#pragma once

typedef unsigned char u8;
typedef signed char i8;
typedef unsigned short u16;
typedef short i16;
typedef unsigned u32;
typedef int i32;
typedef unsigned long long u64;
typedef long long i64;
typedef _Float16 f16;
typedef f16 f16x2 __attribute__((ext_vector_type(2)));
typedef u16 u16x2 __attribute__((ext_vector_type(2)));
typedef i16 i16x2 __attribute__((ext_vector_type(2)));
typedef float f32x4 __attribute__((ext_vector_type(4)));
typedef u32 u32x3 __attribute__((ext_vector_type(3)));
typedef u32 u32x4 __attribute__((ext_vector_type(4)));

#define DEVICE static __device__ inline __attribute__((always_inline))
#define NOINLINE static __device__ __attribute__((noinline))
#define KERNEL extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(1, 1024))) void
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))

DEVICE u32 thread() { return __builtin_amdgcn_workitem_id_x(); }
DEVICE u32 block() { return __builtin_amdgcn_workgroup_id_x(); }
DEVICE u32 block_size() { return __builtin_amdgcn_workgroup_size_x(); }
DEVICE u32 global_thread() { return block() * block_size() + thread(); }
DEVICE u32 lane() { return __builtin_amdgcn_mbcnt_lo(~0u, 0); }

DEVICE void barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}

template <typename To, typename From> DEVICE To cast(From from) { return __builtin_bit_cast(To, from); }

DEVICE float shuffle(float value, u32 from) {
    return cast<float>(__builtin_amdgcn_ds_bpermute(from << 2, cast<int>(value)));
}
DEVICE float wave_sum(float value) {
    for (u32 m = 16; m; m >>= 1) value += shuffle(value, lane() ^ m);
    return value;
}
DEVICE float wave_max(float value) {
    for (u32 m = 16; m; m >>= 1) value = __builtin_fmaxf(value, shuffle(value, lane() ^ m));
    return value;
}
DEVICE float exp2_fast(float x) { return __builtin_amdgcn_exp2f(x); }
DEVICE float log2_fast(float x) { return __builtin_amdgcn_logf(x); }
