//! Vector integer arithmetic and bit operations, 32, 64 and 16 bits wide.

use crate::inst::{Row, Slot, Ty};
use crate::lane::{I16, I32, I64, Lane, U16, U32, U64};
use crate::{valu, versions};

#[inline(always)]
fn sext24(a: i32) -> i32 {
    a << 8 >> 8
}

#[inline(always)]
fn low24(a: u32) -> u32 {
    a & 0xff_ffff
}

/// `width` bits of `a` from `offset` on.
#[inline(always)]
pub fn bfe_u32(a: u32, offset: u32, width: u32) -> u32 {
    let (offset, width) = (offset & 31, width & 31);
    a >> offset & ((1u32 << width) - 1)
}

#[inline(always)]
pub fn bfe_i32(a: i32, offset: u32, width: u32) -> i32 {
    let width = width & 31;
    if width == 0 { 0 } else { bfe_u32(a as u32, offset, width).wrapping_shl(32 - width) as i32 >> (32 - width) }
}

/// Each byte of `selector` picks a byte of the eight bytes `high`, `low`, a sign, 0 or 0xff.
#[inline(always)]
fn perm(high: u32, low: u32, selector: u32) -> u32 {
    let bytes = u64::from(low) | u64::from(high) << 32;
    let mut out = 0;
    for i in 0..4 {
        let select = selector >> (8 * i) & 0xff;
        let byte = match select {
            0..=7 => (bytes >> (8 * select)) as u32 & 0xff,
            8..=11 => ((bytes >> (16 * (select - 8) + 15)) as u32 & 1) * 0xff,
            12 => 0,
            _ => 0xff,
        };
        out |= byte << (8 * i);
    }
    out
}

/// Sum of the differences of four bytes.
#[inline(always)]
fn sad_u8(a: u32, b: u32) -> u32 {
    let (a, b) = (a.to_le_bytes(), b.to_le_bytes());
    (0..4).map(|i| u32::from(a[i].abs_diff(b[i]))).sum()
}

/// How many high bits equal the sign, -1 if all do.
fn cls(a: i32) -> i32 {
    if a == 0 || a == -1 { -1 } else { a.leading_zeros().max((!a).leading_zeros()) as i32 }
}

valu! { TABLE:
    "v_add_nc_u32" (a: U32, b: U32) -> U32 = a.wrapping_add(b);
    "v_sub_nc_u32" (a: U32, b: U32) -> U32 = a.wrapping_sub(b);
    "v_subrev_nc_u32" (a: U32, b: U32) -> U32 = b.wrapping_sub(a);
    "v_add_nc_i32" (a: U32, b: U32) -> U32 = a.wrapping_add(b);
    "v_sub_nc_i32" (a: U32, b: U32) -> U32 = a.wrapping_sub(b);
    "v_add_nc_u32_clamp" (a: U32, b: U32) -> U32 = a.saturating_add(b);
    "v_sub_nc_u32_clamp" (a: U32, b: U32) -> U32 = a.saturating_sub(b);
    "v_add_nc_i32_clamp" (a: I32, b: I32) -> I32 = a.saturating_add(b);
    "v_sub_nc_i32_clamp" (a: I32, b: I32) -> I32 = a.saturating_sub(b);
    "v_add3_u32" (a: U32, b: U32, c: U32) -> U32 = a.wrapping_add(b).wrapping_add(c);
    "v_mul_lo_u32" (a: U32, b: U32) -> U32 = a.wrapping_mul(b);
    "v_mul_hi_u32" (a: U32, b: U32) -> U32 = (u64::from(a) * u64::from(b) >> 32) as u32;
    "v_mul_hi_i32" (a: I32, b: I32) -> I32 = (i64::from(a) * i64::from(b) >> 32) as i32;
    "v_mul_u32_u24" (a: U32, b: U32) -> U32 = low24(a).wrapping_mul(low24(b));
    "v_mul_i32_i24" (a: I32, b: I32) -> I32 = sext24(a).wrapping_mul(sext24(b));
    "v_mul_hi_u32_u24" (a: U32, b: U32) -> U32 = (u64::from(low24(a)) * u64::from(low24(b)) >> 32) as u32;
    "v_mul_hi_i32_i24" (a: I32, b: I32) -> I32 = (i64::from(sext24(a)) * i64::from(sext24(b)) >> 32) as i32;
    "v_mad_u32_u24" (a: U32, b: U32, c: U32) -> U32 = low24(a).wrapping_mul(low24(b)).wrapping_add(c);
    "v_mad_i32_i24" (a: I32, b: I32, c: I32) -> I32 = sext24(a).wrapping_mul(sext24(b)).wrapping_add(c);
    "v_mad_u32_u16" (a: U16, b: U16, c: U32) -> U32 = (u32::from(a) * u32::from(b)).wrapping_add(c);
    "v_mad_i32_i16" (a: I16, b: I16, c: I32) -> I32 = (i32::from(a) * i32::from(b)).wrapping_add(c);
    "v_min_u32" (a: U32, b: U32) -> U32 = a.min(b);
    "v_max_u32" (a: U32, b: U32) -> U32 = a.max(b);
    "v_min_i32" (a: I32, b: I32) -> I32 = a.min(b);
    "v_max_i32" (a: I32, b: I32) -> I32 = a.max(b);
    "v_min3_u32" (a: U32, b: U32, c: U32) -> U32 = a.min(b).min(c);
    "v_max3_u32" (a: U32, b: U32, c: U32) -> U32 = a.max(b).max(c);
    "v_min3_i32" (a: I32, b: I32, c: I32) -> I32 = a.min(b).min(c);
    "v_max3_i32" (a: I32, b: I32, c: I32) -> I32 = a.max(b).max(c);
    "v_med3_u32" (a: U32, b: U32, c: U32) -> U32 = a.min(b).max(a.max(b).min(c));
    "v_med3_i32" (a: I32, b: I32, c: I32) -> I32 = a.min(b).max(a.max(b).min(c));
    "v_minmax_u32" (a: U32, b: U32, c: U32) -> U32 = a.min(b).max(c);
    "v_maxmin_u32" (a: U32, b: U32, c: U32) -> U32 = a.max(b).min(c);
    "v_minmax_i32" (a: I32, b: I32, c: I32) -> I32 = a.min(b).max(c);
    "v_maxmin_i32" (a: I32, b: I32, c: I32) -> I32 = a.max(b).min(c);

    "v_and_b32" (a: U32, b: U32) -> U32 = a & b;
    "v_or_b32" (a: U32, b: U32) -> U32 = a | b;
    "v_xor_b32" (a: U32, b: U32) -> U32 = a ^ b;
    "v_xnor_b32" (a: U32, b: U32) -> U32 = !(a ^ b);
    "v_not_b32" (a: U32) -> U32 = !a;
    "v_or3_b32" (a: U32, b: U32, c: U32) -> U32 = a | b | c;
    "v_xor3_b32" (a: U32, b: U32, c: U32) -> U32 = a ^ b ^ c;
    "v_and_or_b32" (a: U32, b: U32, c: U32) -> U32 = a & b | c;
    "v_xad_u32" (a: U32, b: U32, c: U32) -> U32 = (a ^ b).wrapping_add(c);
    "v_lshlrev_b32" (a: U32, b: U32) -> U32 = b << (a & 31);
    "v_lshrrev_b32" (a: U32, b: U32) -> U32 = b >> (a & 31);
    "v_ashrrev_i32" (a: U32, b: I32) -> I32 = b >> (a & 31);
    "v_lshl_add_u32" (a: U32, b: U32, c: U32) -> U32 = (a << (b & 31)).wrapping_add(c);
    "v_add_lshl_u32" (a: U32, b: U32, c: U32) -> U32 = a.wrapping_add(b) << (c & 31);
    "v_lshl_or_b32" (a: U32, b: U32, c: U32) -> U32 = a << (b & 31) | c;
    "v_bfe_u32" (a: U32, b: U32, c: U32) -> U32 = bfe_u32(a, b, c);
    "v_bfe_i32" (a: I32, b: U32, c: U32) -> I32 = bfe_i32(a, b, c);
    "v_bfi_b32" (a: U32, b: U32, c: U32) -> U32 = a & b | !a & c;
    "v_bfm_b32" (a: U32, b: U32) -> U32 = ((1u32 << (a & 31)) - 1) << (b & 31);
    "v_alignbit_b32" (a: U32, b: U32, c: U32) -> U32 =
        ((u64::from(a) << 32 | u64::from(b)) >> (c & 31)) as u32;
    "v_alignbyte_b32" (a: U32, b: U32, c: U32) -> U32 =
        ((u64::from(a) << 32 | u64::from(b)) >> (8 * (c & 3))) as u32;
    "v_perm_b32" (a: U32, b: U32, c: U32) -> U32 = perm(a, b, c);
    "v_sad_u8" (a: U32, b: U32, c: U32) -> U32 = sad_u8(a, b).wrapping_add(c);
    "v_sad_hi_u8" (a: U32, b: U32, c: U32) -> U32 = (sad_u8(a, b) << 16).wrapping_add(c);
    "v_sad_u16" (a: U32, b: U32, c: U32) -> U32 =
        ((a & 0xffff).abs_diff(b & 0xffff) + (a >> 16).abs_diff(b >> 16)).wrapping_add(c);
    "v_sad_u32" (a: U32, b: U32, c: U32) -> U32 = a.abs_diff(b).wrapping_add(c);
    "v_bfrev_b32" (a: U32) -> U32 = a.reverse_bits();
    "v_bcnt_u32_b32" (a: U32, b: U32) -> U32 = a.count_ones().wrapping_add(b);
    "v_clz_i32_u32" (a: U32) -> I32 = if a == 0 { -1 } else { a.leading_zeros() as i32 };
    "v_ctz_i32_b32" (a: U32) -> I32 = if a == 0 { -1 } else { a.trailing_zeros() as i32 };
    "v_cls_i32" (a: I32) -> I32 = cls(a);
}

valu! { SHORT:
    "v_add_nc_u16" (a: U16, b: U16) -> U16 = a.wrapping_add(b);
    "v_sub_nc_u16" (a: U16, b: U16) -> U16 = a.wrapping_sub(b);
    "v_add_nc_i16" (a: U16, b: U16) -> U16 = a.wrapping_add(b);
    "v_sub_nc_i16" (a: U16, b: U16) -> U16 = a.wrapping_sub(b);
    "v_add_nc_u16_clamp" (a: U16, b: U16) -> U16 = a.saturating_add(b);
    "v_sub_nc_u16_clamp" (a: U16, b: U16) -> U16 = a.saturating_sub(b);
    "v_add_nc_i16_clamp" (a: I16, b: I16) -> I16 = a.saturating_add(b);
    "v_sub_nc_i16_clamp" (a: I16, b: I16) -> I16 = a.saturating_sub(b);
    "v_mul_lo_u16" (a: U16, b: U16) -> U16 = a.wrapping_mul(b);
    "v_mad_u16" (a: U16, b: U16, c: U16) -> U16 = a.wrapping_mul(b).wrapping_add(c);
    "v_mad_i16" (a: U16, b: U16, c: U16) -> U16 = a.wrapping_mul(b).wrapping_add(c);
    "v_min_u16" (a: U16, b: U16) -> U16 = a.min(b);
    "v_max_u16" (a: U16, b: U16) -> U16 = a.max(b);
    "v_min_i16" (a: I16, b: I16) -> I16 = a.min(b);
    "v_max_i16" (a: I16, b: I16) -> I16 = a.max(b);
    "v_min3_u16" (a: U16, b: U16, c: U16) -> U16 = a.min(b).min(c);
    "v_max3_u16" (a: U16, b: U16, c: U16) -> U16 = a.max(b).max(c);
    "v_min3_i16" (a: I16, b: I16, c: I16) -> I16 = a.min(b).min(c);
    "v_max3_i16" (a: I16, b: I16, c: I16) -> I16 = a.max(b).max(c);
    "v_med3_u16" (a: U16, b: U16, c: U16) -> U16 = a.min(b).max(a.max(b).min(c));
    "v_med3_i16" (a: I16, b: I16, c: I16) -> I16 = a.min(b).max(a.max(b).min(c));
    "v_lshlrev_b16" (a: U16, b: U16) -> U16 = b << (a & 15);
    "v_lshrrev_b16" (a: U16, b: U16) -> U16 = b >> (a & 15);
    "v_ashrrev_i16" (a: U16, b: I16) -> I16 = b >> (a & 15);
    "v_and_b16" (a: U16, b: U16) -> U16 = a & b;
    "v_or_b16" (a: U16, b: U16) -> U16 = a | b;
    "v_xor_b16" (a: U16, b: U16) -> U16 = a ^ b;
    "v_not_b16" (a: U16) -> U16 = !a;
}

/// 64 bits wide; and the one instruction with two results.
pub static WIDE: &[Row] = &[
    Row {
        name: "v_lshlrev_b64",
        slots: &[Slot::Dst(Ty::B64), Slot::Src(Ty::B32), Slot::Src(Ty::B64)],
        code: crate::lanewise!((a: U32, b: U64) -> U64 = b << (a & 63)),
    },
    Row {
        name: "v_lshrrev_b64",
        slots: &[Slot::Dst(Ty::B64), Slot::Src(Ty::B32), Slot::Src(Ty::B64)],
        code: crate::lanewise!((a: U32, b: U64) -> U64 = b >> (a & 63)),
    },
    Row {
        name: "v_ashrrev_i64",
        slots: &[Slot::Dst(Ty::I64), Slot::Src(Ty::B32), Slot::Src(Ty::I64)],
        code: crate::lanewise!((a: U32, b: I64) -> I64 = b >> (a & 63)),
    },
    Row {
        name: "v_swap_b32",
        slots: &[Slot::DstSrc(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| {
            let (new, old) = (U32::read(wave, inst, 0), U32::read(wave, inst, 1));
            wave.set_row(inst.dst, &new);
            if let crate::inst::Src::V(other) = inst.src[0] {
                wave.set_row(other, &old);
            }
        }),
    },
];
