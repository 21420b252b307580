// Values between lanes.
#include "device.h"

#define DPP(control, row_mask, bank_mask, bound) \
    __builtin_amdgcn_update_dpp(-1, (int)x, control, row_mask, bank_mask, bound)

KERNEL dpp(const u32 *in, i32 *out) {
    u32 i = lane(), x = in[i];
    out[i] = DPP(0x1b, 15, 15, false);           // quad_perm [3,2,1,0]
    out[i + 32] = DPP(0x101, 15, 15, false);     // row_shl 1
    out[i + 64] = DPP(0x113, 15, 15, false);     // row_shr 3
    out[i + 96] = DPP(0x113, 15, 15, true);      // row_shr 3, zero outside
    out[i + 128] = DPP(0x125, 15, 15, false);    // row_ror 5
    out[i + 160] = DPP(0x140, 15, 15, false);    // row_mirror
    out[i + 192] = DPP(0x141, 15, 15, false);    // row_half_mirror
    out[i + 224] = DPP(0x157, 15, 15, false);    // row_share 7
    out[i + 256] = DPP(0x16a, 15, 15, false);    // row_xmask 10
    out[i + 288] = DPP(0x140, 2, 15, false);     // row_mirror of the second row only
    out[i + 320] = DPP(0x140, 15, 5, false);     // row_mirror of banks 0 and 2 only
    out[i + 352] = __builtin_amdgcn_mov_dpp8(x, 07654321 | 0 << 21);
}

// A sum over 32 lanes as compilers write it: adds whose source is permuted.
KERNEL dpp_sum(const float *in, float *out) {
    float x = in[thread()];
#define ADD(control) x += cast<float>(__builtin_amdgcn_update_dpp(0, cast<int>(x), control, 15, 15, true))
    ADD(0x161);
    ADD(0x162);
    ADD(0x164);
    ADD(0x168);
    x += cast<float>(__builtin_amdgcn_permlanex16(cast<u32>(x), cast<u32>(x), 0, 0, true, false));
    out[thread()] = x;
}

KERNEL others(const u32 *in, u32 *out) {
    u32 i = lane(), x = in[i];
    out[i] = __builtin_amdgcn_permlane16(x, x, 0x01234567, 0x89abcdef, false, false);
    out[i + 32] = __builtin_amdgcn_permlanex16(x, x, 0x76543210, 0xfedcba98, false, false);
    out[i + 64] = __builtin_amdgcn_readlane(x, 13);
    out[i + 96] = __builtin_amdgcn_ds_swizzle(x, 0x041f); // xor 1
    out[i + 128] = __builtin_amdgcn_ds_swizzle(x, 0x80e4 ^ 0xff); // quad
    out[i + 160] = __builtin_amdgcn_ds_permute(((i * 7) & 31) << 2, x);
    out[i + 192] = __builtin_amdgcn_ds_bpermute(((i * 7) & 31) << 2, x);
    if (i >= 5) out[i + 224] = __builtin_amdgcn_readfirstlane(x);
    u32 scalar = __builtin_amdgcn_readlane(x, 3);
    out[i + 256] = i == 9 ? scalar * 3 : x;
    u64 mask = __builtin_amdgcn_ballot_w32(x & 1);
    out[i + 288] = __builtin_amdgcn_mbcnt_lo((u32)mask, 100);
}
