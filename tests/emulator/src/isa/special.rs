//! Functions of the transcendental unit, and the steps of division.
//!
//! The hardware's results are within one unit in the last place of these, which are rounded correctly or nearly so.
//! In f32 the unit takes subnormal inputs for zero and gives zero for subnormal results; compilers scale around that.

use crate::inst::{Inst, NULL, Row, Slot, Ty, VCC};
use crate::isa::float::{frexp, ldexp, ldexp64};
use crate::lane::{F16, F32, F64, Lane};
use crate::wave::{LANES, Wave};
use crate::{lanewise, versions};

/// Zero of the same sign for a subnormal number.
#[inline(always)]
fn flush(a: f32) -> f32 {
    if a.abs() < f32::MIN_POSITIVE { 0f32.copysign(a) } else { a }
}

/// Sine of so many turns; the hardware gives up beyond 256 of them.
fn sin_turns(turns: f32) -> f32 {
    let turns = f64::from(flush(turns));
    if turns.abs() > 256.0 {
        return 0.0;
    }
    ((turns - turns.round()) * std::f64::consts::TAU).sin() as f32
}

fn cos_turns(turns: f32) -> f32 {
    let turns = f64::from(flush(turns));
    if turns.abs() > 256.0 {
        return 1.0;
    }
    ((turns - turns.round()) * std::f64::consts::TAU).cos() as f32
}

/// The numerator or denominator of a division, scaled by 2^64 where the quotient's steps would leave f32's range, and
/// whether the quotient must be scaled back.
///
/// `value` is the operand that is scaled; it equals one of the other two.
fn div_scale(value: f32, denominator: f32, numerator: f32) -> (f32, bool) {
    let exponent = |x: f32| i32::from((x.to_bits() >> 23 & 255) as u16);
    let (nothing, scaled) = ((f32::NAN, false), |e| ldexp(value, e));
    if denominator == 0.0 || numerator == 0.0 {
        return nothing;
    }
    let is_denominator = value == denominator;
    // Also of quotients that are too small to be told from zero.
    let subnormal = |x: f32| x.abs() < f32::MIN_POSITIVE;
    if exponent(numerator) - exponent(denominator) >= 96 {
        // The quotient is near infinity: the denominator grows, and the quotient with it afterwards.
        (if is_denominator { scaled(64) } else { value }, true)
    } else if subnormal(denominator) {
        (scaled(64), false)
    } else if subnormal(1.0 / denominator) && subnormal(numerator / denominator) {
        (if is_denominator { scaled(64) } else { value }, true)
    } else if subnormal(1.0 / denominator) {
        (scaled(-64), false)
    } else if subnormal(numerator / denominator) {
        (if is_denominator { value } else { scaled(64) }, true)
    } else if exponent(numerator) <= 23 {
        (scaled(64), false)
    } else {
        (value, false)
    }
}

fn div_scale64(value: f64, denominator: f64, numerator: f64) -> (f64, bool) {
    let exponent = |x: f64| i32::from((x.to_bits() >> 52 & 2047) as u16);
    let scaled = |e| ldexp64(value, e);
    if denominator == 0.0 || numerator == 0.0 {
        return (f64::NAN, false);
    }
    let is_denominator = value == denominator;
    let subnormal = |x: f64| x.abs() < f64::MIN_POSITIVE;
    if exponent(numerator) - exponent(denominator) >= 768 {
        (if is_denominator { scaled(128) } else { value }, true)
    } else if subnormal(denominator) {
        (scaled(128), false)
    } else if subnormal(1.0 / denominator) && subnormal(numerator / denominator) {
        (if is_denominator { scaled(128) } else { value }, true)
    } else if subnormal(1.0 / denominator) {
        (scaled(-128), false)
    } else if subnormal(numerator / denominator) {
        (if is_denominator { value } else { scaled(128) }, true)
    } else if exponent(numerator) <= 53 {
        (scaled(128), false)
    } else {
        (value, false)
    }
}

/// The quotient with the special cases of division put right; `underflows` if the exponents say that it is zero.
fn div_fixup(quotient: f64, denominator: f64, numerator: f64, underflows: bool) -> f64 {
    let sign = denominator.is_sign_negative() != numerator.is_sign_negative();
    let signed = |x: f64| if sign { -x } else { x };
    if denominator.is_nan() || numerator.is_nan() {
        return f64::NAN;
    }
    match (numerator, denominator) {
        (n, d) if n == 0.0 && d == 0.0 || n.is_infinite() && d.is_infinite() => f64::NAN,
        (n, d) if d == 0.0 || n.is_infinite() => signed(f64::INFINITY),
        (n, d) if n == 0.0 || d.is_infinite() => signed(0.0),
        _ if underflows => signed(0.0),
        // The steps before this overflowed.
        _ if quotient.is_nan() => signed(f64::INFINITY),
        _ => signed(quotient.abs()),
    }
}

/// Whether the quotient of two numbers is below every subnormal one, by their exponents in the encoding.
fn underflows(denominator: f32, numerator: f32) -> bool {
    let exponent = |x: f32| (x.to_bits() >> 23 & 255) as i32;
    exponent(numerator) - exponent(denominator) < -150
}

fn underflows64(denominator: f64, numerator: f64) -> bool {
    let exponent = |x: f64| (x.to_bits() >> 52 & 2047) as i32;
    exponent(numerator) - exponent(denominator) < -1075
}

fn div_fixup32(quotient: f32, denominator: f32, numerator: f32) -> f32 {
    let (q, d, n) = (f64::from(quotient), f64::from(denominator), f64::from(numerator));
    div_fixup(q, d, n, underflows(denominator, numerator)) as f32
}

fn write_div_scale<L: Lane>(wave: &mut Wave, inst: &Inst, scale: impl Fn(usize) -> (L::Value, bool)) {
    let (mut out, mut mask) = ([L::Value::default(); LANES], 0);
    for lane in 0..LANES {
        let (value, scaled_back) = scale(lane);
        out[lane] = value;
        mask |= u32::from(scaled_back) << lane;
    }
    if inst.sdst != NULL {
        wave.set_s(inst.sdst, mask & wave.exec());
    }
    L::write(wave, inst, &out);
}

/// The fused multiply-add of a division's last step, scaled back in the lanes that VCC names: the quotient's exponent
/// shows which way.
fn div_fmas<L: Lane>(wave: &mut Wave, inst: &Inst, compute: impl Fn(usize, bool) -> L::Value) {
    let vcc = wave.s[VCC as usize];
    let mut out = [L::Value::default(); LANES];
    for (lane, out) in out.iter_mut().enumerate() {
        *out = compute(lane, vcc >> lane & 1 != 0);
    }
    L::write(wave, inst, &out);
}

/// `a * b + c` times 2^64 or its inverse, rounded once.
fn scaled_fma(a: f32, b: f32, c: f32) -> f32 {
    let up = c.to_bits() >> 23 & 255 > 127;
    ((f64::from(a) * f64::from(b) + f64::from(c)) * if up { 2f64.powi(64) } else { 2f64.powi(-64) }) as f32
}

macro_rules! special {
    ($($name:literal ($a:ident: $ty:ident) -> $out:ident = $body:expr;)+) => {
        &[$(Row {
            name: $name,
            slots: &[Slot::Dst(<$out as Lane>::TY), Slot::Src(<$ty as Lane>::TY)],
            code: lanewise!(($a: $ty) -> $out = $body),
        },)+
        Row {
            name: "v_div_scale_f32",
            slots: &[Slot::Dst(Ty::F32), Slot::SDst(Ty::B32), Slot::Src(Ty::F32), Slot::Src(Ty::F32), Slot::Src(Ty::F32)],
            code: versions!(|wave, inst| {
                let (a, b, c) = (F32::read(wave, inst, 0), F32::read(wave, inst, 1), F32::read(wave, inst, 2));
                write_div_scale::<F32>(wave, inst, |l| div_scale(a[l], b[l], c[l]));
            }),
        },
        Row {
            name: "v_div_scale_f64",
            slots: &[Slot::Dst(Ty::F64), Slot::SDst(Ty::B32), Slot::Src(Ty::F64), Slot::Src(Ty::F64), Slot::Src(Ty::F64)],
            code: versions!(|wave, inst| {
                let (a, b, c) = (F64::read(wave, inst, 0), F64::read(wave, inst, 1), F64::read(wave, inst, 2));
                write_div_scale::<F64>(wave, inst, |l| div_scale64(a[l], b[l], c[l]));
            }),
        },
        Row {
            name: "v_div_fmas_f32",
            slots: &[Slot::Dst(Ty::F32), Slot::Src(Ty::F32), Slot::Src(Ty::F32), Slot::Src(Ty::F32)],
            code: versions!(|wave, inst| {
                let (a, b, c) = (F32::read(wave, inst, 0), F32::read(wave, inst, 1), F32::read(wave, inst, 2));
                div_fmas::<F32>(wave, inst, |l, scale| {
                    if scale { scaled_fma(a[l], b[l], c[l]) } else { a[l].mul_add(b[l], c[l]) }
                });
            }),
        },
        Row {
            name: "v_div_fmas_f64",
            slots: &[Slot::Dst(Ty::F64), Slot::Src(Ty::F64), Slot::Src(Ty::F64), Slot::Src(Ty::F64)],
            code: versions!(|wave, inst| {
                let (a, b, c) = (F64::read(wave, inst, 0), F64::read(wave, inst, 1), F64::read(wave, inst, 2));
                div_fmas::<F64>(wave, inst, |l, scale| {
                    let sum = a[l].mul_add(b[l], c[l]);
                    if scale { ldexp64(sum, if c[l].to_bits() >> 52 & 2047 > 1023 { 128 } else { -128 }) } else { sum }
                });
            }),
        },
        Row {
            name: "v_div_fixup_f32",
            slots: &[Slot::Dst(Ty::F32), Slot::Src(Ty::F32), Slot::Src(Ty::F32), Slot::Src(Ty::F32)],
            code: lanewise!((q: F32, d: F32, n: F32) -> F32 = div_fixup32(q, d, n)),
        },
        Row {
            name: "v_div_fixup_f16",
            slots: &[Slot::Dst(Ty::F16), Slot::Src(Ty::F16), Slot::Src(Ty::F16), Slot::Src(Ty::F16)],
            code: lanewise!((q: F16, d: F16, n: F16) -> F16 = div_fixup(f64::from(q), f64::from(d), f64::from(n), false) as f32),
        },
        Row {
            name: "v_div_fixup_f64",
            slots: &[Slot::Dst(Ty::F64), Slot::Src(Ty::F64), Slot::Src(Ty::F64), Slot::Src(Ty::F64)],
            code: lanewise!((q: F64, d: F64, n: F64) -> F64 = div_fixup(q, d, n, underflows64(d, n))),
        }]
    };
}

pub static TABLE: &[Row] = special! {
    "v_exp_f32" (a: F32) -> F32 = flush(flush(a).exp2());
    "v_log_f32" (a: F32) -> F32 = flush(a).log2();
    "v_rcp_f32" (a: F32) -> F32 = flush(1.0 / flush(a));
    "v_rcp_iflag_f32" (a: F32) -> F32 = flush(1.0 / flush(a));
    "v_rsq_f32" (a: F32) -> F32 = (1.0 / f64::from(flush(a)).sqrt()) as f32;
    "v_sqrt_f32" (a: F32) -> F32 = flush(a).sqrt();
    "v_sin_f32" (a: F32) -> F32 = sin_turns(a);
    "v_cos_f32" (a: F32) -> F32 = cos_turns(a);
    "v_exp_f16" (a: F16) -> F16 = a.exp2();
    "v_log_f16" (a: F16) -> F16 = a.log2();
    "v_rcp_f16" (a: F16) -> F16 = 1.0 / a;
    "v_rsq_f16" (a: F16) -> F16 = 1.0 / a.sqrt();
    "v_sqrt_f16" (a: F16) -> F16 = a.sqrt();
    "v_sin_f16" (a: F16) -> F16 = sin_turns(a);
    "v_cos_f16" (a: F16) -> F16 = cos_turns(a);
    "v_frexp_mant_f16" (a: F16) -> F16 = frexp(f64::from(a)).0 as f32;
};
