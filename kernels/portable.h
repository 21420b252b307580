// One face for the device languages that the kernels are written in: HIP, by clang's builtins alone, so that no ROCm
// package is needed to compile them, and CUDA C++, by nvcc or NVRTC.
//
// A *wave* is the group of lanes that runs in step: 32 on RDNA and NVIDIA, 64 on GCN and CDNA. Shuffles and reductions
// are written for groups of 32 lanes, which both sizes hold whole.
#pragma once

// ---------------------------------------------------------------------------------------------------------- dialect

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define RF_NVIDIA 1
#else
#define RF_AMD 1
#endif

#if RF_AMD
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define RF_INLINE static __device__ inline __attribute__((always_inline))
// A kernel for blocks of exactly `n` threads, of which `per_unit` should fit a compute unit.
#define RF_KERNEL(n, per_unit) \
    extern "C" __global__ __attribute__((amdgpu_flat_work_group_size(n, n))) __attribute__((visibility("default"))) void
#define RF_GRID_CONSTANT
// What an address that was read from memory points to: without it every access would also look into shared memory.
#define RF_GLOBAL __attribute__((address_space(1)))
typedef _Float16 half_t;
#else
#include <cuda_fp16.h>
#if defined(__CUDACC_RTC__)
typedef unsigned char uint8_t;
typedef signed char int8_t;
typedef unsigned short uint16_t;
typedef short int16_t;
typedef unsigned int uint32_t;
typedef int int32_t;
typedef unsigned long long uint64_t;
typedef long long int64_t;
#else
#include <stdint.h>
#endif
#if defined(__CUDACC_RTC__) // NVRTC has the functions, and not the compiler's names for them
#define __builtin_fmaxf fmaxf
#define __builtin_fminf fminf
#define __builtin_fabsf fabsf
#define __builtin_fmaf fmaf
#define __builtin_rintf rintf
#define __builtin_copysignf copysignf
#define __builtin_ldexpf ldexpf
#define __builtin_inff() __int_as_float(0x7f800000)
#define __builtin_memcpy memcpy
#endif
#define RF_INLINE static __device__ __forceinline__
#define RF_KERNEL(n, per_unit) extern "C" __global__ __launch_bounds__(n, per_unit) void
#define RF_GRID_CONSTANT __grid_constant__
#define RF_GLOBAL
typedef __half half_t;
#endif

#define RF_UNROLL _Pragma("unroll")
#if RF_AMD
#define RF_METHOD __device__ inline __attribute__((always_inline))
#else
#define RF_METHOD __device__ __forceinline__
#endif

#if RF_AMD && defined(__AMDGCN_WAVEFRONT_SIZE__)
#define RF_WAVE __AMDGCN_WAVEFRONT_SIZE__
#elif RF_AMD && defined(__GFX9__)
#define RF_WAVE 64
#else
#define RF_WAVE 32
#endif

// What the architecture has. Kernels ask for these, never for an architecture's name.
#if RF_AMD && (defined(__gfx1100__) || defined(__gfx1101__) || defined(__gfx1102__) || defined(__gfx1103__) || \
               defined(__gfx1150__) || defined(__gfx1151__) || defined(__gfx1152__))
#define RF_WMMA_GFX11 (RF_WAVE == 32) // 16×16×16, operands replicated in both halves of a wave
#define RF_SUDOT4 1
#elif RF_AMD && (defined(__gfx1200__) || defined(__gfx1201__))
#define RF_GFX12 1
#define RF_WMMA_GFX12 (RF_WAVE == 32) // 16×16×16, operands split over both halves
#define RF_SUDOT4 1
#elif RF_AMD && (defined(__gfx940__) || defined(__gfx941__) || defined(__gfx942__) || defined(__gfx950__))
#define RF_MFMA 1
#define RF_MFMA_I8_K32 1 // v_mfma_i32_16x16x32_i8
#define RF_SDOT4 1
#elif RF_AMD && (defined(__gfx908__) || defined(__gfx90a__))
#define RF_MFMA 1
#define RF_MFMA_I8_K16 1 // v_mfma_i32_16x16x16i8
#define RF_SDOT4 1
#elif RF_AMD && (defined(__gfx906__) || defined(__gfx1011__) || defined(__gfx1012__) || defined(__gfx1030__) || \
                 defined(__gfx1031__) || defined(__gfx1032__) || defined(__gfx1033__) || defined(__gfx1034__) ||   \
                 defined(__gfx1035__) || defined(__gfx1036__))
#define RF_SDOT4 1
#elif RF_NVIDIA && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800)
#define RF_MMA_SYNC 1 // m16n8k32 s8, m16n8k16 f16 and bf16
#endif

#if RF_NVIDIA && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900)
#define RF_DEPENDENT_LAUNCH 1
#endif

// ---------------------------------------------------------------------------------------------------------- vectors

struct alignas(16) u32x4 {
    uint32_t x, y, z, w;
};
struct alignas(8) u32x2 {
    uint32_t x, y;
};
struct alignas(16) f32x4 {
    float x, y, z, w;
};
struct alignas(8) f32x2 {
    float x, y;
};

// Reads of weights: 16, 8 or 4 aligned bytes that are used once and should not displace what is used again.
RF_INLINE u32x4 load_stream(const RF_GLOBAL u32x4 *p) {
#if RF_AMD
    typedef uint32_t native __attribute__((ext_vector_type(4)));
    native v = __builtin_nontemporal_load((const RF_GLOBAL native *)p);
    return {v.x, v.y, v.z, v.w};
#else
    uint4 v = __ldcs((const uint4 *)p);
    return {v.x, v.y, v.z, v.w};
#endif
}
RF_INLINE u32x2 load_stream(const RF_GLOBAL u32x2 *p) {
#if RF_AMD
    typedef uint32_t native __attribute__((ext_vector_type(2)));
    native v = __builtin_nontemporal_load((const RF_GLOBAL native *)p);
    return {v.x, v.y};
#else
    uint2 v = __ldcs((const uint2 *)p);
    return {v.x, v.y};
#endif
}
RF_INLINE uint32_t load_stream(const RF_GLOBAL uint32_t *p) {
#if RF_AMD
    return __builtin_nontemporal_load(p);
#else
    return __ldcs(p);
#endif
}

// A read of 16 aligned bytes through an address that was itself read from memory.
RF_INLINE u32x4 load_global(const RF_GLOBAL void *p) {
#if RF_AMD
    typedef uint32_t native __attribute__((ext_vector_type(4)));
    native v = *(const RF_GLOBAL native *)p;
    return {v.x, v.y, v.z, v.w};
#else
    __builtin_assume(__isGlobal(p));
    uint4 v = *(const uint4 *)p;
    return {v.x, v.y, v.z, v.w};
#endif
}

template <typename To, typename From>
RF_INLINE To bit_cast(From from) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To to;
    __builtin_memcpy(&to, &from, sizeof(To));
    return to;
}

// The same number, of which the compiler knows nothing: what is computed from it within a loop is computed there, and not
// kept in registers from before the loop on. For numbers that all lanes share.
RF_INLINE uint32_t opaque(uint32_t v) {
#if RF_AMD
    v = (uint32_t)__builtin_amdgcn_readfirstlane((int)v);
    asm volatile("" : "+s"(v));
#else
    asm volatile("" : "+r"(v));
#endif
    return v;
}

// ------------------------------------------------------------------------------------------------- place in the grid

RF_INLINE uint32_t thread_index() {
#if RF_AMD
    return __builtin_amdgcn_workitem_id_x();
#else
    return threadIdx.x;
#endif
}
RF_INLINE uint32_t block_x() {
#if RF_AMD
    return __builtin_amdgcn_workgroup_id_x();
#else
    return blockIdx.x;
#endif
}
RF_INLINE uint32_t block_y() {
#if RF_AMD
    return __builtin_amdgcn_workgroup_id_y();
#else
    return blockIdx.y;
#endif
}
RF_INLINE uint32_t block_z() {
#if RF_AMD
    return __builtin_amdgcn_workgroup_id_z();
#else
    return blockIdx.z;
#endif
}
// Blocks of the grid: on AMD the first words behind the kernel's arguments (code object version 5).
RF_INLINE uint32_t grid_x() {
#if RF_AMD
    return ((const __attribute__((address_space(4))) uint32_t *)__builtin_amdgcn_implicitarg_ptr())[0];
#else
    return gridDim.x;
#endif
}
// The lane's place in its group of 32, and the group's place in the block (threads are one-dimensional).
RF_INLINE uint32_t lane32() { return thread_index() & 31; }
RF_INLINE uint32_t group32() { return thread_index() >> 5; }

// All threads of the block; orders what they wrote to shared and global memory.
RF_INLINE void barrier() {
#if RF_AMD
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
#else
    __syncthreads();
#endif
}

// The same for shared memory alone: loads from global memory stay on their way, which barrier() waits for on AMD.
RF_INLINE void shared_barrier() {
#if RF_GFX12
    asm volatile("s_wait_dscnt 0x0\n\ts_barrier_signal -1\n\ts_barrier_wait -1" ::: "memory");
#elif RF_AMD
    asm volatile("s_waitcnt lgkmcnt(0)\n\ts_barrier" ::: "memory");
#else
    __syncthreads();
#endif
}

// ------------------------------------------------------------------------------------------------ groups of 32 lanes

// The value of the lane whose number in the group differs by the bits of `mask`.
RF_INLINE uint32_t shuffle_xor(uint32_t v, uint32_t mask) {
#if RF_AMD
    uint32_t lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
    return (uint32_t)__builtin_amdgcn_ds_bpermute((int)((lane ^ mask) << 2), (int)v);
#else
    return __shfl_xor_sync(0xffffffffu, v, (int)mask, 32);
#endif
}
RF_INLINE float shuffle_xor(float v, uint32_t mask) { return bit_cast<float>(shuffle_xor(bit_cast<uint32_t>(v), mask)); }
RF_INLINE int shuffle_xor(int v, uint32_t mask) { return (int)shuffle_xor((uint32_t)v, mask); }

// The value of lane `from` (0 to 31) of the group.
RF_INLINE uint32_t shuffle(uint32_t v, uint32_t from) {
#if RF_AMD
    uint32_t lane = __builtin_amdgcn_mbcnt_hi(~0u, __builtin_amdgcn_mbcnt_lo(~0u, 0));
    return (uint32_t)__builtin_amdgcn_ds_bpermute((int)(((lane & ~31u) | from) << 2), (int)v);
#else
    return __shfl_sync(0xffffffffu, v, (int)from, 32);
#endif
}
RF_INLINE float shuffle(float v, uint32_t from) { return bit_cast<float>(shuffle(bit_cast<uint32_t>(v), from)); }

// The value of the lane whose number differs by one bit that is known beforehand: AMD's vector unit then reads it in
// passing (DPP), where a shuffle by a variable goes through the shared memory's crossbar.
template <int Mask>
RF_INLINE uint32_t shuffle_xor_by(uint32_t v) {
    static_assert(Mask == 1 || Mask == 2 || Mask == 4 || Mask == 8 || Mask == 16, "one bit of a lane's number");
#if RF_AMD && defined(__GFX9__)
    if constexpr (Mask == 1) return (uint32_t)__builtin_amdgcn_mov_dpp((int)v, 0xb1, 0xf, 0xf, true); // quad_perm 1,0,3,2
    if constexpr (Mask == 2) return (uint32_t)__builtin_amdgcn_mov_dpp((int)v, 0x4e, 0xf, 0xf, true); // quad_perm 2,3,0,1
    if constexpr (Mask == 8) return (uint32_t)__builtin_amdgcn_mov_dpp((int)v, 0x128, 0xf, 0xf, true); // row_ror:8
    return (uint32_t)__builtin_amdgcn_ds_swizzle((int)v, Mask << 10 | 0x1f);
#elif RF_AMD
    if constexpr (Mask < 16) return (uint32_t)__builtin_amdgcn_mov_dpp((int)v, 0x160 | Mask, 0xf, 0xf, true); // row_xmask
    // Clang 19 moves it behind branches that end the lanes which it reads, unless something must stay in place.
    uint32_t other = __builtin_amdgcn_permlanex16(v, v, 0x76543210u, 0xfedcba98u, false, false);
    asm volatile("" : "+v"(other));
    return other;
#else
    return __shfl_xor_sync(0xffffffffu, v, Mask, 32);
#endif
}
template <int Mask>
RF_INLINE float shuffle_xor_by(float v) {
    return bit_cast<float>(shuffle_xor_by<Mask>(bit_cast<uint32_t>(v)));
}
template <int Mask>
RF_INLINE int shuffle_xor_by(int v) {
    return (int)shuffle_xor_by<Mask>((uint32_t)v);
}

// Sum, maximum over neighbours: groups of `Width` lanes (a power of two up to 32); every lane gets the result.
template <int Width = 32, typename T>
RF_INLINE T group_sum(T v) {
    if constexpr (Width > 1) v = group_sum<Width / 2>(v + shuffle_xor_by<Width / 2>(v));
    return v;
}
template <int Width = 32>
RF_INLINE float group_max(float v) {
    if constexpr (Width > 1) v = group_max<Width / 2>(__builtin_fmaxf(v, shuffle_xor_by<Width / 2>(v)));
    return v;
}

// Sum and maximum over a block of `Threads` threads; every thread gets the result. `scratch` is shared memory for one
// number of each group of 32; it may be used again after the next barrier.
template <int Threads>
RF_INLINE float block_sum(float v, float *scratch) {
    v = group_sum(v);
    if (lane32() == 0) scratch[group32()] = v;
    barrier();
    float total = 0;
    RF_UNROLL for (int i = 0; i < Threads / 32; i++) total += scratch[i];
    return total;
}
template <int Threads>
RF_INLINE float block_max(float v, float *scratch) {
    v = group_max(v);
    if (lane32() == 0) scratch[group32()] = v;
    barrier();
    float most = scratch[0];
    RF_UNROLL for (int i = 1; i < Threads / 32; i++) most = __builtin_fmaxf(most, scratch[i]);
    return most;
}

// ------------------------------------------------------------------------------------------------------- arithmetic

// c + Σ aᵢ·bᵢ over the four signed bytes of each.
RF_INLINE int dot4(uint32_t a, uint32_t b, int c) {
#if RF_SUDOT4
    return __builtin_amdgcn_sudot4(true, (int)a, true, (int)b, c, false);
#elif RF_SDOT4
    return __builtin_amdgcn_sdot4((int)a, (int)b, c, false);
#elif RF_NVIDIA
    return __dp4a((int)a, (int)b, c);
#else
    for (int i = 0; i < 32; i += 8) c += (int)(int8_t)(a >> i) * (int)(int8_t)(b >> i);
    return c;
#endif
}

// Bytes of the eight in {high, low}, chosen by the low three bits of each byte of `select`.
RF_INLINE uint32_t byte_permute(uint32_t high, uint32_t low, uint32_t select) {
#if RF_AMD
    return __builtin_amdgcn_perm(high, low, select);
#else
    uint32_t s = select & 0x07070707u; // one selector a nibble
    s = (s | s >> 4) & 0x00ff00ffu;
    return __byte_perm(low, high, (s | s >> 8) & 0xffffu);
#endif
}

RF_INLINE float half_to_float(uint16_t bits) {
#if RF_AMD
    return (float)bit_cast<half_t>(bits);
#else
    return __half2float(__ushort_as_half(bits));
#endif
}
RF_INLINE uint16_t float_to_half(float v) {
#if RF_AMD
    return bit_cast<uint16_t>((half_t)v);
#else
    return __half_as_ushort(__float2half_rn(v));
#endif
}
// The same, but what half precision cannot hold becomes its largest number.
RF_INLINE uint16_t float_to_half_clamped(float v) {
    return float_to_half(__builtin_fminf(__builtin_fmaxf(v, -65504.0f), 65504.0f));
}
RF_INLINE float bfloat_to_float(uint16_t bits) { return bit_cast<float>((uint32_t)bits << 16); }

RF_INLINE float exp2_fast(float x) {
#if RF_AMD
    return __builtin_amdgcn_exp2f(x);
#else
    float y; // exp2f() would also care for results under the least normal number, which are 0 here
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
RF_INLINE float exp_fast(float x) { return exp2_fast(x * 1.44269504088896341f); }
// 1/x within the last bit.
RF_INLINE float reciprocal(float x) {
#if RF_AMD
    return __builtin_amdgcn_rcpf(x);
#else
    float y;
    asm("rcp.approx.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}
// 1/√x to full precision: one Newton step after the hardware's estimate, whose last bits differ between makers.
RF_INLINE float inverse_sqrt(float x) {
#if RF_AMD
    float y = __builtin_amdgcn_rsqf(x);
#else
    float y = rsqrtf(x);
#endif
    return y * (1.5f - 0.5f * x * y * y);
}
RF_INLINE float tanh_fast(float x) {
    // (1 − e) / (1 + e) with e = exp(−2|x|), which cannot overflow.
    float e = exp_fast(-2.0f * __builtin_fabsf(x));
    return __builtin_copysignf((1.0f - e) * reciprocal(1.0f + e), x);
}
RF_INLINE int round_to_int(float x) { return (int)__builtin_rintf(x); }

// ---------------------------------------------------------------------------------------------- between the blocks

// Adds 1 to a counter after everything that the block wrote before (call it from one thread, behind a barrier), and
// returns what it was; the block that reads the last value sees what the others wrote.
RF_INLINE uint32_t arrive(uint32_t *counter) {
#if RF_AMD
    return __hip_atomic_fetch_add(counter, 1u, __ATOMIC_ACQ_REL, __HIP_MEMORY_SCOPE_AGENT);
#else
    __threadfence();
    uint32_t before = atomicAdd(counter, 1u);
    __threadfence();
    return before;
#endif
}

// Before the barrier behind which one thread arrives: what every thread wrote is on its way to the other blocks.
RF_INLINE void release_to_others() {
#if RF_AMD
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "agent");
#else
    __threadfence();
#endif
}

// Orders, for the whole block, what other blocks wrote before they arrived against what this one reads after.
RF_INLINE void acquire_others() {
#if RF_AMD
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "agent");
#else
    __threadfence();
#endif
}

// Waits for the kernels that this one depends on. Before it only weights may be read, which no kernel writes. Without
// dependent launches the hardware has waited already.
RF_INLINE void wait_for_inputs() {
#if RF_DEPENDENT_LAUNCH
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// Lets the next kernel begin as soon as all blocks have said so; it waits for this one's results by itself.
RF_INLINE void release_dependents() {
#if RF_DEPENDENT_LAUNCH
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
