//! Comparisons, whose results are masks with a bit for each lane: in an SGPR, or for `v_cmpx_*` in EXEC.
//!
//! A row serves both forms; the decoder makes EXEC the result of the second.

#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::double_comparisons)] // "not less" is not "greater or equal" with NaN

use crate::inst::{Inst, Row, Slot, Ty};
use crate::lane::{F16, F32, F64, I16, I32, I64, Lane, U16, U32, U64};
use crate::versions;
use crate::wave::{LANES, Wave};

#[inline(always)]
fn write_mask(wave: &mut Wave, inst: &Inst, compute: impl Fn(usize) -> bool) {
    let mut mask = 0u32;
    for lane in 0..LANES {
        mask |= u32::from(compute(lane)) << lane;
    }
    let exec = wave.exec();
    wave.set_s(inst.sdst, mask & exec);
}

/// Whether a number is in one of the classes that `mask` names: signalling NaN, quiet NaN, -infinity, -normal,
/// -subnormal, -0, +0, +subnormal, +normal, +infinity.
fn is_class(bits: u64, mantissa_bits: u32, exponent_bits: u32, mask: u32) -> bool {
    let negative = bits >> (mantissa_bits + exponent_bits) & 1 != 0;
    let exponent = bits >> mantissa_bits & ((1 << exponent_bits) - 1);
    let mantissa = bits & ((1 << mantissa_bits) - 1);
    let class = if exponent == (1 << exponent_bits) - 1 && mantissa != 0 {
        (mantissa >> (mantissa_bits - 1) & 1) as u32
    } else {
        let magnitude = match (exponent, mantissa) {
            (0, 0) => 0,
            (0, _) => 1,
            (e, _) if e == (1 << exponent_bits) - 1 => 3,
            _ => 2,
        };
        if negative { 5 - magnitude } else { 6 + magnitude }
    };
    mask >> class & 1 != 0
}

macro_rules! compare {
    ($lane:ident $suffix:literal: $($op:literal |$a:ident, $b:ident| $body:expr;)+) => {
        &[$(Row {
            name: concat!("v_cmp_", $op, "_", $suffix),
            slots: &[Slot::SDst(Ty::B32), Slot::Src($lane::TY), Slot::Src($lane::TY)],
            code: versions!(|wave, inst| {
                let (a, b) = ($lane::read(wave, inst, 0), $lane::read(wave, inst, 1));
                write_mask(wave, inst, |l| {
                    let ($a, $b) = (a[l], b[l]);
                    $body
                });
            }),
        }),+]
    };
}

macro_rules! compare_integers {
    ($($table:ident $lane:ident $suffix:literal;)+) => {
        $(static $table: &[Row] = compare! { $lane $suffix:
            "lt" |a, b| a < b;
            "eq" |a, b| a == b;
            "le" |a, b| a <= b;
            "gt" |a, b| a > b;
            "f" |_a, _b| false;
            "t" |_a, _b| true;
            "ne" |a, b| a != b;
            "ge" |a, b| a >= b;
        };)+
    };
}

macro_rules! compare_floats {
    ($($table:ident $lane:ident $suffix:literal;)+) => {
        $(static $table: &[Row] = compare! { $lane $suffix:
            "f" |_a, _b| false;
            "t" |_a, _b| true;
            "lt" |a, b| a < b;
            "eq" |a, b| a == b;
            "le" |a, b| a <= b;
            "gt" |a, b| a > b;
            "lg" |a, b| a < b || a > b;
            "ge" |a, b| a >= b;
            "o" |a, b| !a.is_nan() && !b.is_nan();
            "u" |a, b| a.is_nan() || b.is_nan();
            "nge" |a, b| !(a >= b);
            "nlg" |a, b| !(a < b || a > b);
            "ngt" |a, b| !(a > b);
            "nle" |a, b| !(a <= b);
            "neq" |a, b| a != b;
            "nlt" |a, b| !(a < b);
        };)+
    };
}

compare_integers! {
    COMPARE_I32 I32 "i32";
    COMPARE_U32 U32 "u32";
    COMPARE_I16 I16 "i16";
    COMPARE_U16 U16 "u16";
    COMPARE_I64 I64 "i64";
    COMPARE_U64 U64 "u64";
}

compare_floats! {
    COMPARE_F32 F32 "f32";
    COMPARE_F16 F16 "f16";
    COMPARE_F64 F64 "f64";
}

macro_rules! class {
    ($name:literal, $lane:ident, $mantissa:literal, $exponent:literal, |$x:ident| $bits:expr) => {
        Row {
            name: $name,
            slots: &[Slot::SDst(Ty::B32), Slot::Src($lane::TY), Slot::Src(Ty::B32)],
            code: versions!(|wave, inst| {
                let (a, mask) = ($lane::read(wave, inst, 0), U32::read(wave, inst, 1));
                write_mask(wave, inst, |l| {
                    let $x = a[l];
                    is_class($bits, $mantissa, $exponent, mask[l])
                });
            }),
        }
    };
}

static CLASSES: &[Row] = &[
    class!("v_cmp_class_f32", F32, 23, 8, |x| u64::from(x.to_bits())),
    class!("v_cmp_class_f16", F16, 10, 5, |x| u64::from(crate::lane::float_to_half(x))),
    class!("v_cmp_class_f64", F64, 52, 11, |x| x.to_bits()),
];

pub static TABLES: &[&[Row]] = &[
    COMPARE_I32,
    COMPARE_U32,
    COMPARE_I16,
    COMPARE_U16,
    COMPARE_I64,
    COMPARE_U64,
    COMPARE_F32,
    COMPARE_F16,
    COMPARE_F64,
    CLASSES,
];
