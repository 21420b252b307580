//! Vector arithmetic in f32 and f64.

use crate::lane::{F32, F64, I32, U32};
use crate::{valu, valu_accumulate};

/// The larger of two numbers as the hardware orders them: NaN loses, and -0 is below +0.
#[inline(always)]
pub fn max(a: f32, b: f32) -> f32 {
    let equal = f32::from_bits(a.to_bits() & b.to_bits());
    let ordered = if a > b {
        a
    } else if a < b {
        b
    } else {
        equal
    };
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        ordered
    }
}

#[inline(always)]
pub fn min(a: f32, b: f32) -> f32 {
    let equal = f32::from_bits(a.to_bits() | b.to_bits());
    let ordered = if a < b {
        a
    } else if a > b {
        b
    } else {
        equal
    };
    if a.is_nan() {
        b
    } else if b.is_nan() {
        a
    } else {
        ordered
    }
}

#[inline(always)]
pub fn med3(a: f32, b: f32, c: f32) -> f32 {
    if a.is_nan() || b.is_nan() || c.is_nan() {
        return min(min(a, b), c);
    }
    max(min(a, b), min(max(a, b), c))
}

/// What is left above the floor, below 1 even where rounding would reach it.
#[inline(always)]
pub fn fract(a: f32) -> f32 {
    min(a - a.floor(), f32::from_bits(0x3f7f_ffff))
}

/// 0 times anything is 0.
#[inline(always)]
fn mul_legacy(a: f32, b: f32) -> f32 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// `a` times 2^`e`, rounded once.
pub fn ldexp(a: f32, e: i32) -> f32 {
    // The product is exact in f64 as long as the exponent is in its range, which 400 more than covers.
    (f64::from(a) * f64::from_bits(((e.clamp(-400, 400) + 1023) as u64) << 52)) as f32
}

pub fn ldexp64(a: f64, e: i32) -> f64 {
    // In steps, of which only the last can round.
    let (mut a, mut e) = (a, e.clamp(-4200, 4200));
    while e > 1000 {
        a *= 2f64.powi(1000);
        e -= 1000;
    }
    while e < -900 && a.abs() > 1.0 {
        a *= 2f64.powi(-900);
        e += 900;
    }
    if e < -1000 {
        // The result is subnormal or zero: scale by powers whose product is exact until the last.
        let steps = (-e) as u32;
        return a * 2f64.powi(-1000) * 2f64.powi(-(steps.saturating_sub(1000).min(1074) as i32));
    }
    a * 2f64.powi(e)
}

/// Exponent and mantissa with 0.5 <= |mantissa| < 1; zero, infinity and NaN have the exponent 0.
pub fn frexp(a: f64) -> (f64, i32) {
    if a == 0.0 || !a.is_finite() {
        return (a, 0);
    }
    let scaled = if a.abs() < f64::MIN_POSITIVE { a * 2f64.powi(64) } else { a };
    let bits = scaled.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32 - 1022 - if scaled == a { 0 } else { 64 };
    (f64::from_bits(bits & !(0x7ff << 52) | 1022 << 52), exponent)
}

valu! { TABLE:
    "v_add_f32" (a: F32, b: F32) -> F32 = a + b;
    "v_sub_f32" (a: F32, b: F32) -> F32 = a - b;
    "v_subrev_f32" (a: F32, b: F32) -> F32 = b - a;
    "v_mul_f32" (a: F32, b: F32) -> F32 = a * b;
    "v_mul_dx9_zero_f32" (a: F32, b: F32) -> F32 = mul_legacy(a, b);
    "v_min_f32" (a: F32, b: F32) -> F32 = min(a, b);
    "v_max_f32" (a: F32, b: F32) -> F32 = max(a, b);
    "v_fma_f32" (a: F32, b: F32, c: F32) -> F32 = a.mul_add(b, c);
    "v_fmamk_f32" (a: F32, b: F32, c: F32) -> F32 = a.mul_add(b, c);
    "v_fmaak_f32" (a: F32, b: F32, c: F32) -> F32 = a.mul_add(b, c);
    "v_fma_dx9_zero_f32" (a: F32, b: F32, c: F32) -> F32 = if a == 0.0 || b == 0.0 { c } else { a.mul_add(b, c) };
    "v_min3_f32" (a: F32, b: F32, c: F32) -> F32 = min(min(a, b), c);
    "v_max3_f32" (a: F32, b: F32, c: F32) -> F32 = max(max(a, b), c);
    "v_med3_f32" (a: F32, b: F32, c: F32) -> F32 = med3(a, b, c);
    "v_minmax_f32" (a: F32, b: F32, c: F32) -> F32 = max(min(a, b), c);
    "v_maxmin_f32" (a: F32, b: F32, c: F32) -> F32 = min(max(a, b), c);
    "v_floor_f32" (a: F32) -> F32 = a.floor();
    "v_ceil_f32" (a: F32) -> F32 = a.ceil();
    "v_trunc_f32" (a: F32) -> F32 = a.trunc();
    "v_rndne_f32" (a: F32) -> F32 = a.round_ties_even();
    "v_fract_f32" (a: F32) -> F32 = fract(a);
    "v_ldexp_f32" (a: F32, e: I32) -> F32 = ldexp(a, e);
    "v_frexp_mant_f32" (a: F32) -> F32 = frexp(f64::from(a)).0 as f32;
    "v_frexp_exp_i32_f32" (a: F32) -> I32 = frexp(f64::from(a)).1;

    "v_add_f64" (a: F64, b: F64) -> F64 = a + b;
    "v_mul_f64" (a: F64, b: F64) -> F64 = a * b;
    "v_fma_f64" (a: F64, b: F64, c: F64) -> F64 = a.mul_add(b, c);
    "v_min_f64" (a: F64, b: F64) -> F64 = a.min(b);
    "v_max_f64" (a: F64, b: F64) -> F64 = a.max(b);
    "v_floor_f64" (a: F64) -> F64 = a.floor();
    "v_ceil_f64" (a: F64) -> F64 = a.ceil();
    "v_trunc_f64" (a: F64) -> F64 = a.trunc();
    "v_rndne_f64" (a: F64) -> F64 = a.round_ties_even();
    "v_fract_f64" (a: F64) -> F64 = (a - a.floor()).min(1.0 - f64::EPSILON / 2.0);
    "v_ldexp_f64" (a: F64, e: I32) -> F64 = ldexp64(a, e);
    "v_frexp_mant_f64" (a: F64) -> F64 = frexp(a).0;
    "v_frexp_exp_i32_f64" (a: F64) -> I32 = frexp(a).1;
    "v_rcp_f64" (a: F64) -> F64 = 1.0 / a;
    "v_rsq_f64" (a: F64) -> F64 = 1.0 / a.sqrt();
    "v_sqrt_f64" (a: F64) -> F64 = a.sqrt();

    "v_mov_b32" (a: U32) -> U32 = a;
}

valu_accumulate! { ACCUMULATING:
    "v_fmac_f32" (a: F32, b: F32; c: F32) = a.mul_add(b, c);
    "v_fmac_dx9_zero_f32" (a: F32, b: F32; c: F32) = if a == 0.0 || b == 0.0 { c } else { a.mul_add(b, c) };
}
