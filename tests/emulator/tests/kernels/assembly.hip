// Instructions and modifiers that the compiler rarely chooses.
#include "device.h"

#define BINARY(k, text) \
    asm volatile(text : "=v"(r) : "v"(x), "v"(y)); \
    out[i + k * n] = r

KERNEL vector(const u32 *a, const u32 *b, u32 *out, int n) {
    u32 i = global_thread(), x = a[i], y = b[i], r;
    BINARY(0, "v_alignbyte_b32 %0, %1, %2, 3");
    BINARY(1, "v_bfm_b32 %0, %1, %2");
    BINARY(2, "v_cls_i32 %0, %1");
    BINARY(3, "v_mul_hi_u32_u24 %0, %1, %2");
    BINARY(4, "v_mul_hi_i32_i24 %0, %1, %2");
    BINARY(5, "v_sat_pk_u8_i16 %0, %1");
    BINARY(6, "v_cvt_pk_i16_i32 %0, %1, %2");
    BINARY(7, "v_cvt_pk_u16_u32 %0, %1, %2");
    BINARY(8, "v_xad_u32 %0, %1, %2, 7");
    BINARY(9, "v_minmax_i32 %0, %1, %2, 100");
    BINARY(10, "v_maxmin_u32 %0, %1, %2, 100");
    BINARY(11, "v_sub_nc_u32_e64 %0, %1, %2 clamp");
    BINARY(12, "v_subrev_nc_u32 %0, %1, %2");
    BINARY(13, "v_med3_i32 %0, %1, %2, -3");
    BINARY(14, "v_mad_u32_u16 %0, %1, %2, 9 op_sel:[1,0,0,0]");
    BINARY(15, "v_cvt_off_f32_i4 %0, %1");
}

KERNEL modifiers(const float *a, const float *b, float *out, int n) {
    u32 i = global_thread();
    float x = a[i], y = b[i], r;
    BINARY(0, "v_add_f32_e64 %0, %1, %2 mul:2");
    BINARY(1, "v_mul_f32_e64 %0, %1, |%2| div:2");
    BINARY(2, "v_fma_f32 %0, -|%1|, %2, 0.5 clamp");
    BINARY(3, "v_max3_f32 %0, %1, -%2, 0");
    BINARY(4, "v_fma_f32 %0, %1, 0.15915494, -%2");
    BINARY(5, "v_sub_f32_dpp %0, %1, %2 row_xmask:1 row_mask:0xf bank_mask:0xf");
    BINARY(6, "v_fmaak_f32 %0, %1, %2, 0x40490fdb");
    BINARY(7, "v_fmamk_f32 %0, %1, 0x40490fdb, %2");
    BINARY(8, "v_mul_legacy_f32 %0, %1, %2");
    BINARY(9, "v_fract_f32 %0, %1");
    BINARY(10, "v_cvt_pk_u8_f32 %0, %1, 1, 0");
}

// Both halves read before either writes.
KERNEL dual(const u32 *in, u32 *out) {
    u32 i = lane(), x = in[i], y = in[i + 32];
    asm volatile("v_mov_b32 v10, %2\n"
                 "v_mov_b32 v11, %3\n"
                 "v_dual_mov_b32 v10, v11 :: v_dual_mov_b32 v11, v10\n"
                 "v_mov_b32 %0, v10\n"
                 "v_mov_b32 %1, v11\n"
                 : "=&v"(x), "=&v"(y)
                 : "v"(x), "v"(y)
                 : "v10", "v11");
    out[i] = x;
    out[i + 32] = y;
    asm volatile("v_mov_b32 v10, %2\n"
                 "v_mov_b32 v11, %3\n"
                 "s_mov_b32 vcc_lo, 0xaaaaaaaa\n"
                 "v_dual_cndmask_b32 v10, v10, v11 :: v_dual_add_nc_u32 v11, v11, v10\n"
                 "v_swap_b32 v10, v11\n"
                 "v_mov_b32 %0, v10\n"
                 "v_mov_b32 %1, v11\n"
                 : "=&v"(x), "=&v"(y)
                 : "v"(x), "v"(y)
                 : "v10", "v11", "vcc");
    out[i + 64] = x;
    out[i + 96] = y;
}

#define SCALAR(k, text) \
    asm volatile(text "\n s_cselect_b32 s5, 1, 0\n s_mov_b32 %0, s4\n s_mov_b32 %1, s5" \
                 : "=&s"(r), "=&s"(c) : "s"(x), "s"(y) : "s4", "s5", "s6", "s7", "scc"); \
    out[2 * (k)] = r, out[2 * (k) + 1] = c

KERNEL scalar(u32 x, u32 y, u32 *out) {
    u32 r, c;
    SCALAR(0, "s_add_u32 s4, %2, %3");
    SCALAR(1, "s_sub_u32 s4, %2, %3");
    SCALAR(2, "s_add_i32 s4, %2, %3");
    SCALAR(3, "s_bfe_i32 s4, %2, 0x70005");
    SCALAR(4, "s_bfe_u32 s4, %2, 0x200000");
    SCALAR(5, "s_pack_hl_b32_b16 s4, %2, %3");
    SCALAR(6, "s_bcnt0_i32_b32 s4, %2");
    SCALAR(7, "s_cls_i32 s4, %2");
    SCALAR(8, "s_absdiff_i32 s4, %2, %3");
    SCALAR(9, "s_lshl3_add_u32 s4, %2, %3");
    SCALAR(10, "s_mov_b32 s4, %3\n s_bitset1_b32 s4, %2");
    SCALAR(11, "s_mov_b32 s4, %2\n s_addk_i32 s4, 0x8000");
    SCALAR(12, "s_mov_b32 s4, %2\n s_cmpk_lt_u32 s4, 0x8000");
    SCALAR(13, "s_mov_b32 s6, %2\n s_mov_b32 s7, %3\n s_ashr_i64 s[4:5], s[6:7], 40");
    SCALAR(14, "s_min_i32 s4, %2, %3");
    SCALAR(15, "s_max_u32 s4, %2, %3");
    SCALAR(16, "s_mul_hi_i32 s4, %2, %3");
    SCALAR(17, "s_or_not1_b32 s4, %2, %3");
    SCALAR(18, "s_sext_i32_i8 s4, %2\n s_cmp_lt_i32 s4, 0");
    SCALAR(19, "s_bfm_b32 s4, 5, 9\n s_bitcmp1_b32 %2, 3");
}
