//! Dot products of the bytes, nibbles or halves of two registers.

use crate::inst::{Inst, Row, Slot, Ty};
use crate::isa::packed::halves;
use crate::lane::{F16, F32, I32, Lane, U16, U32, half_to_float};
use crate::versions;
use crate::wave::{LANES, Wave};

/// Element `i` of `bits` bits as a number.
#[inline(always)]
fn element(word: u32, i: u32, bits: u32, signed: bool) -> i32 {
    let top = word << (32 - bits * (i + 1));
    if signed { top as i32 >> (32 - bits) } else { (top >> (32 - bits)) as i32 }
}

/// Dot product of elements of `BITS` bits plus source 2; a source is signed where its bit of `neg_lo` is set.
#[inline(always)]
fn integer_dot<const BITS: u32>(wave: &mut Wave, inst: &Inst, finish: impl Fn(i32, i32) -> i32) {
    let (a, b, c) = (U32::read(wave, inst, 0), U32::read(wave, inst, 1), I32::read(wave, inst, 2));
    let (a_signed, b_signed) = (inst.neg & 1 != 0, inst.neg & 2 != 0);
    let mut out = [0; LANES];
    for lane in 0..LANES {
        let mut sum = 0i32;
        for i in 0..32 / BITS {
            sum += element(a[lane], i, BITS, a_signed) * element(b[lane], i, BITS, b_signed);
        }
        out[lane] = finish(sum, c[lane]);
    }
    I32::write(wave, inst, &out);
}

/// f32 of the bits of a bf16.
#[inline(always)]
pub fn bf16_to_float(bits: u32) -> f32 {
    f32::from_bits(bits << 16)
}

/// `x` rounded to the nearest bf16, ties to even.
#[inline(always)]
pub fn float_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() { bits >> 16 | 0x40 } else { (bits + 0x7fff + (bits >> 16 & 1)) >> 16 }
}

/// Products of the low and the high halves of sources 0 and 1, added to `c` one after the other.
#[inline(always)]
fn dot2(wave: &Wave, inst: &Inst, c: &[f32; LANES], to_float: impl Fn(u32) -> f32) -> [f32; LANES] {
    let (a, b) = (halves(wave, inst, 0), halves(wave, inst, 1));
    let mut out = *c;
    for lane in 0..LANES {
        for half in 0..2 {
            out[lane] = to_float(a[half][lane]).mul_add(to_float(b[half][lane]), out[lane]);
        }
    }
    out
}

const INTEGERS: &[Slot] = &[Slot::Dst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)];

macro_rules! integer_dot {
    ($name:literal, $bits:literal, |$sum:ident, $c:ident| $finish:expr) => {
        Row {
            name: $name,
            slots: INTEGERS,
            code: versions!(|wave, inst| { integer_dot::<$bits>(wave, inst, |$sum, $c| $finish) }),
        }
    };
}

pub static TABLE: &[Row] = &[
    integer_dot!("v_dot4_i32_iu8", 8, |sum, c| sum.wrapping_add(c)),
    integer_dot!("v_dot4_i32_iu8_clamp", 8, |sum, c| sum.saturating_add(c)),
    integer_dot!("v_dot8_i32_iu4", 4, |sum, c| sum.wrapping_add(c)),
    integer_dot!("v_dot8_i32_iu4_clamp", 4, |sum, c| sum.saturating_add(c)),
    integer_dot!("v_dot4_u32_u8", 8, |sum, c| sum.wrapping_add(c)),
    integer_dot!("v_dot4_u32_u8_clamp", 8, |sum, c| (sum as u32).saturating_add(c as u32) as i32),
    integer_dot!("v_dot8_u32_u4", 4, |sum, c| sum.wrapping_add(c)),
    integer_dot!("v_dot8_u32_u4_clamp", 4, |sum, c| (sum as u32).saturating_add(c as u32) as i32),
    Row {
        name: "v_dot2_f32_f16",
        slots: &[Slot::Dst(Ty::F32), Slot::Src(Ty::PackedF16), Slot::Src(Ty::PackedF16), Slot::Src(Ty::F32)],
        code: versions!(|wave, inst| {
            let c = F32::read(wave, inst, 2);
            let out = dot2(wave, inst, &c, half_to_float);
            F32::write(wave, inst, &out);
        }),
    },
    Row {
        name: "v_dot2_f32_bf16",
        slots: &[Slot::Dst(Ty::F32), Slot::Src(Ty::PackedB16), Slot::Src(Ty::PackedB16), Slot::Src(Ty::F32)],
        code: versions!(|wave, inst| {
            let c = F32::read(wave, inst, 2);
            let out = dot2(wave, inst, &c, bf16_to_float);
            F32::write(wave, inst, &out);
        }),
    },
    Row {
        name: "v_dot2_f16_f16",
        slots: &[Slot::Dst(Ty::F16), Slot::Src(Ty::PackedF16), Slot::Src(Ty::PackedF16), Slot::Src(Ty::F16)],
        code: versions!(|wave, inst| {
            let c = F16::read(wave, inst, 2);
            let out = dot2(wave, inst, &c, half_to_float);
            F16::write(wave, inst, &out);
        }),
    },
    Row {
        name: "v_dot2_bf16_bf16",
        slots: &[Slot::Dst(Ty::B16), Slot::Src(Ty::PackedB16), Slot::Src(Ty::PackedB16), Slot::Src(Ty::B16)],
        code: versions!(|wave, inst| {
            let c = crate::lane::each(&U16::read(wave, inst, 2), |x| bf16_to_float(u32::from(x)));
            let out = dot2(wave, inst, &c, bf16_to_float);
            U16::write(wave, inst, &crate::lane::each(&out, |x| float_to_bf16(x) as u16));
        }),
    },
];

macro_rules! accumulating {
    ($name:literal) => {
        Row {
            name: $name,
            slots: &[Slot::DstSrc(Ty::F32), Slot::Src(Ty::PackedF16), Slot::Src(Ty::PackedF16)],
            code: versions!(|wave, inst| {
                let c = F32::read(wave, inst, 2);
                let out = dot2(wave, inst, &c, half_to_float);
                F32::write(wave, inst, &out);
            }),
        }
    };
}

/// The same instruction by its names in its two encodings.
pub static ACCUMULATING: &[Row] = &[accumulating!("v_dot2acc_f32_f16"), accumulating!("v_dot2c_f32_f16")];
