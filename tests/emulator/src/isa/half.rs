//! Vector arithmetic in f16, and in f32 with f16 sources or results.

use crate::inst::{Inst, Row, Slot, Ty};
use crate::isa::float::{fract, ldexp, max, med3, min};
use crate::lane::{F16, F32, I16, Lane, U16, U32, float_to_half, half_to_float};
use crate::wave::{LANES, Wave};
use crate::{valu, valu_accumulate, versions};

/// `a * b + c`, rounded so that rounding to f16 afterwards is right: the product is exact in f64, and the sum is far
/// enough from f16's halfway points wherever f64 rounds it. What f32 would make of it is rounded to odd first.
#[inline(always)]
pub fn fma(a: f32, b: f32, c: f32) -> f32 {
    to_odd(f64::from(a) * f64::from(b) + f64::from(c))
}

/// f32 of an f64, with the last bit set if anything was cut off, so that a second rounding does not go wrong.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || !near.is_finite() || near.to_bits() & 1 == 1 {
        return near;
    }
    let away = (back < x) == (x > 0.0);
    f32::from_bits(if away { near.to_bits() + 1 } else { near.to_bits() - 1 })
}

valu! { TABLE:
    "v_add_f16" (a: F16, b: F16) -> F16 = a + b;
    "v_sub_f16" (a: F16, b: F16) -> F16 = a - b;
    "v_subrev_f16" (a: F16, b: F16) -> F16 = b - a;
    "v_mul_f16" (a: F16, b: F16) -> F16 = a * b;
    "v_min_f16" (a: F16, b: F16) -> F16 = min(a, b);
    "v_max_f16" (a: F16, b: F16) -> F16 = max(a, b);
    "v_fma_f16" (a: F16, b: F16, c: F16) -> F16 = fma(a, b, c);
    "v_fmamk_f16" (a: F16, b: F16, c: F16) -> F16 = fma(a, b, c);
    "v_fmaak_f16" (a: F16, b: F16, c: F16) -> F16 = fma(a, b, c);
    "v_min3_f16" (a: F16, b: F16, c: F16) -> F16 = min(min(a, b), c);
    "v_max3_f16" (a: F16, b: F16, c: F16) -> F16 = max(max(a, b), c);
    "v_med3_f16" (a: F16, b: F16, c: F16) -> F16 = med3(a, b, c);
    "v_minmax_f16" (a: F16, b: F16, c: F16) -> F16 = max(min(a, b), c);
    "v_maxmin_f16" (a: F16, b: F16, c: F16) -> F16 = min(max(a, b), c);
    "v_floor_f16" (a: F16) -> F16 = a.floor();
    "v_ceil_f16" (a: F16) -> F16 = a.ceil();
    "v_trunc_f16" (a: F16) -> F16 = a.trunc();
    "v_rndne_f16" (a: F16) -> F16 = a.round_ties_even();
    "v_fract_f16" (a: F16) -> F16 = min(fract(a), half_to_float(0x3bff));
    "v_ldexp_f16" (a: F16, e: I16) -> F16 = ldexp(a, i32::from(e));
    "v_pack_b32_f16" (a: F16, b: F16) -> U32 = float_to_half(a) | float_to_half(b) << 16;
    "v_mov_b16" (a: U16) -> U16 = a;
}

valu_accumulate! { ACCUMULATING:
    "v_fmac_f16" (a: F16, b: F16; c: F16) = fma(a, b, c);
}

/// Source `k` of a mixed-precision operation: f16 from the half that `op_sel` names where `op_sel_hi` says f16.
#[inline(always)]
fn mixed(wave: &Wave, inst: &Inst, k: usize) -> [f32; LANES] {
    let (is_half, high) = (inst.op_sel_hi >> k & 1 != 0, inst.op_sel >> k & 1 != 0);
    let (abs, neg) = (inst.abs >> k & 1 != 0, inst.neg >> k & 1 != 0);
    let row = wave.row(inst.src[k]);
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        let bits = if high { row[lane] >> 16 } else { row[lane] & 0xffff };
        let value = if is_half { half_to_float(bits) } else { f32::from_bits(row[lane]) };
        let value = if abs { value.abs() } else { value };
        out[lane] = if neg { -value } else { value };
    }
    out
}

#[inline(always)]
fn mixed_fma(wave: &Wave, inst: &Inst) -> [f32; LANES] {
    let (a, b, c) = (mixed(wave, inst, 0), mixed(wave, inst, 1), mixed(wave, inst, 2));
    let mut out = [0.0; LANES];
    for lane in 0..LANES {
        out[lane] = a[lane].mul_add(b[lane], c[lane]);
    }
    out
}

const MIX: [Slot; 3] = [Slot::Src(Ty::Mixed); 3];

/// Fused multiply-adds whose sources are f32 or f16 one by one.
pub static MIXED: &[Row] = &[
    Row {
        name: "v_fma_mix_f32",
        slots: &[Slot::Dst(Ty::F32), MIX[0], MIX[1], MIX[2]],
        code: versions!(|wave, inst| {
            let out = mixed_fma(wave, inst);
            F32::write(wave, inst, &out);
        }),
    },
    Row {
        name: "v_fma_mixlo_f16",
        slots: &[Slot::Dst(Ty::F16), MIX[0], MIX[1], MIX[2]],
        code: versions!(|wave, inst| {
            let out = mixed_fma(wave, inst);
            F16::write(wave, inst, &out);
        }),
    },
    Row {
        name: "v_fma_mixhi_f16",
        slots: &[Slot::Dst(Ty::F16), MIX[0], MIX[1], MIX[2]],
        code: versions!(|wave, inst| {
            let (out, mut high) = (mixed_fma(wave, inst), inst.clone());
            high.dst_hi = true;
            F16::write(wave, &high, &out);
        }),
    },
];
