//! Lane types: how an operand of all 32 lanes is read, modified and written.
//!
//! An instruction table names these types; what it computes is then plain Rust on one lane's values, which the compiler
//! turns into vector instructions over the lanes.

use crate::inst::{Inst, Ty};
use crate::wave::{LANES, Wave};

/// `f` of every lane. (`array::map` does the same, but does not become vector instructions.)
#[inline(always)]
pub fn each<T: Copy, U: Copy + Default>(row: &[T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    let mut out = [U::default(); LANES];
    for lane in 0..LANES {
        out[lane] = f(row[lane]);
    }
    out
}

/// A type of operand.
pub trait Lane {
    type Value: Copy + Default;
    const TY: Ty;

    fn read(wave: &Wave, inst: &Inst, k: usize) -> [Self::Value; LANES];
    fn write(wave: &mut Wave, inst: &Inst, out: &[Self::Value; LANES]);
}

/// 32 bits as they are.
pub struct U32;
pub struct I32;
pub struct F32;
pub struct U64;
pub struct I64;
pub struct F64;
/// Half of a VGPR.
pub struct U16;
pub struct I16;
/// Half of a VGPR as f16, computed on as f32: rounding its sums, products and quotients to f16 afterwards gives what
/// f16 arithmetic gives.
pub struct F16;

impl Lane for U32 {
    type Value = u32;
    const TY: Ty = Ty::B32;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [u32; LANES] {
        wave.row(inst.src[k])
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[u32; LANES]) {
        wave.set_row(inst.dst, out);
    }
}

impl Lane for I32 {
    type Value = i32;
    const TY: Ty = Ty::B32;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [i32; LANES] {
        each(&wave.row(inst.src[k]), |x| x as i32)
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[i32; LANES]) {
        wave.set_row(inst.dst, &each(out, |x| x as u32));
    }
}

impl Lane for F32 {
    type Value = f32;
    const TY: Ty = Ty::F32;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [f32; LANES] {
        let mut row = wave.row(inst.src[k]);
        if inst.modifies(k) {
            modify(&mut row, inst, k, 31);
        }
        each(&row, f32::from_bits)
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[f32; LANES]) {
        if inst.clamp || inst.omod != 0 {
            return wave.set_row(inst.dst, &each(&finish(out, inst), f32::to_bits));
        }
        wave.set_row(inst.dst, &each(out, f32::to_bits));
    }
}

/// Applies `-x` and `|x|` to floats whose sign is bit `sign`.
#[inline(never)]
fn modify(row: &mut [u32; LANES], inst: &Inst, k: usize, sign: u32) {
    for x in row {
        if inst.abs >> k & 1 != 0 {
            *x &= !(1 << sign);
        }
        if inst.neg >> k & 1 != 0 {
            *x ^= 1 << sign;
        }
    }
}

/// Applies the output modifiers.
#[inline(never)]
fn finish(out: &[f32; LANES], inst: &Inst) -> [f32; LANES] {
    out.map(|x| {
        let x = x * f32::from(inst.omod).exp2();
        if inst.clamp { clamp(x) } else { x }
    })
}

/// To 0..=1; NaN becomes 0, as the DX10_CLAMP bit asks, which is always set.
fn clamp(x: f32) -> f32 {
    if x > 0.0 { x.min(1.0) } else { 0.0 }
}

macro_rules! wide_lane {
    ($lane:ident, $value:ty, $ty:expr, $sign:expr, |$bits:ident| $from:expr, |$x:ident| $to:expr) => {
        impl Lane for $lane {
            type Value = $value;
            const TY: Ty = $ty;

            #[inline(always)]
            fn read(wave: &Wave, inst: &Inst, k: usize) -> [$value; LANES] {
                let (low, mut high) = (wave.row(inst.src[k]), wave.high_row(inst.src[k]));
                if $sign && inst.modifies(k) {
                    modify(&mut high, inst, k, 31);
                }
                let mut value = [<$value>::default(); LANES];
                for lane in 0..LANES {
                    let $bits = u64::from(low[lane]) | u64::from(high[lane]) << 32;
                    value[lane] = $from;
                }
                value
            }

            #[inline(always)]
            fn write(wave: &mut Wave, inst: &Inst, out: &[$value; LANES]) {
                let bits: [u64; LANES] = each(out, |$x| $to);
                wave.set_row(inst.dst, &each(&bits, |x| x as u32));
                wave.set_row(inst.dst + 1, &each(&bits, |x| (x >> 32) as u32));
            }
        }
    };
}

wide_lane!(U64, u64, Ty::B64, false, |bits| bits, |x| x);
wide_lane!(I64, i64, Ty::I64, false, |bits| bits as i64, |x| x as u64);
wide_lane!(F64, f64, Ty::F64, true, |bits| f64::from_bits(bits), |x| x.to_bits());

/// The half of source `k` that `op_sel` names, in the low bits.
#[inline(always)]
fn halves(wave: &Wave, inst: &Inst, k: usize) -> [u32; LANES] {
    let shift = if inst.op_sel >> k & 1 != 0 { 16 } else { 0 };
    each(&wave.row(inst.src[k]), |x| x >> shift & 0xffff)
}

impl Lane for U16 {
    type Value = u16;
    const TY: Ty = Ty::B16;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [u16; LANES] {
        each(&halves(wave, inst, k), |x| x as u16)
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[u16; LANES]) {
        wave.set_half_row(inst.dst, inst.dst_hi, &each(out, u32::from));
    }
}

impl Lane for I16 {
    type Value = i16;
    const TY: Ty = Ty::B16;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [i16; LANES] {
        each(&halves(wave, inst, k), |x| x as i16)
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[i16; LANES]) {
        wave.set_half_row(inst.dst, inst.dst_hi, &each(out, |x| u32::from(x as u16)));
    }
}

impl Lane for F16 {
    type Value = f32;
    const TY: Ty = Ty::F16;

    #[inline(always)]
    fn read(wave: &Wave, inst: &Inst, k: usize) -> [f32; LANES] {
        let mut bits = halves(wave, inst, k);
        if inst.modifies(k) {
            modify(&mut bits, inst, k, 15);
        }
        each(&bits, half_to_float)
    }

    #[inline(always)]
    fn write(wave: &mut Wave, inst: &Inst, out: &[f32; LANES]) {
        let out = if inst.clamp || inst.omod != 0 { finish(out, inst) } else { *out };
        wave.set_half_row(inst.dst, inst.dst_hi, &each(&out, float_to_half));
    }
}

/// The value of f16 `bits`, without branches, so that it vectorises.
#[inline(always)]
pub fn half_to_float(bits: u32) -> f32 {
    let (sign, magnitude) = ((bits & 0x8000) << 16, bits & 0x7fff);
    let normal = (magnitude << 13).wrapping_add(112 << 23);
    // Subnormal: the mantissa counts units of 2^-24, which integer conversion gets exactly.
    let subnormal = (magnitude as i32 as f32 * 2f32.powi(-24)).to_bits();
    let special = magnitude << 13 | 0xff << 23;
    let value = if magnitude < 0x400 { subnormal } else { normal };
    f32::from_bits(sign | if magnitude >= 0x7c00 { special } else { value })
}

/// `x` rounded to the nearest f16, ties to even.
#[inline(always)]
pub fn float_to_half(x: f32) -> u32 {
    let bits = x.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    // Normal: rebias, and round by adding just under half a unit, or half if that makes the result even.
    let rebiased = magnitude.wrapping_sub(112 << 23);
    let normal = rebiased.wrapping_add(0xfff + (rebiased >> 13 & 1)) >> 13;
    // Subnormal: adding 0.5 leaves units of 2^-24 in the low mantissa bits, rounded by the addition itself.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let special = if magnitude > 0x7f80_0000 { 0x7e00 | magnitude >> 13 & 0x1ff } else { 0x7c00 };
    let value = if magnitude < 0x3880_0000 { subnormal } else { normal };
    // From 65520 on, values round to infinity.
    sign | if magnitude >= 0x477f_f000 { special } else { value }
}

/// `x` as f16, rounded towards zero.
#[inline(always)]
pub fn float_to_half_towards_zero(x: f32) -> u32 {
    let nearest = float_to_half(x);
    let back = half_to_float(nearest);
    // Infinity from a finite number is an overflow, which stops at the largest one: one less in bits, too.
    if back.abs() > x.abs() { nearest - 1 } else { nearest }
}

/// Defines a table of vector instructions: `"name" (a: Type, b: Type) -> Type = expression of a and b;`.
#[macro_export]
macro_rules! valu {
    ($table:ident: $($name:literal ($($arg:ident: $ty:ident),+) -> $out:ident = $body:expr;)+) => {
        pub static $table: &[$crate::inst::Row] = &[$($crate::inst::Row {
            name: $name,
            slots: &[
                $crate::inst::Slot::Dst(<$out as $crate::lane::Lane>::TY),
                $($crate::inst::Slot::Src(<$ty as $crate::lane::Lane>::TY)),+
            ],
            code: $crate::lanewise!(($($arg: $ty),+) -> $out = $body),
        }),+];
    };
}

/// As [`valu`], for instructions whose last argument is the result register's old value.
#[macro_export]
macro_rules! valu_accumulate {
    ($table:ident: $($name:literal ($($arg:ident: $ty:ident),+; $acc:ident: $out:ident) = $body:expr;)+) => {
        pub static $table: &[$crate::inst::Row] = &[$($crate::inst::Row {
            name: $name,
            slots: &[
                $crate::inst::Slot::DstSrc(<$out as $crate::lane::Lane>::TY),
                $($crate::inst::Slot::Src(<$ty as $crate::lane::Lane>::TY)),+
            ],
            code: $crate::lanewise!(($($arg: $ty,)+ $acc: $out) -> $out = $body),
        }),+];
    };
}

/// The code that computes an expression in every lane.
#[macro_export]
macro_rules! lanewise {
    (($($arg:ident: $ty:ident),+) -> $out:ident = $body:expr) => {
        $crate::versions!(|wave, inst| {
            let mut k = 0;
            $(
                let $arg = <$ty as $crate::lane::Lane>::read(wave, inst, k);
                k += 1;
            )+
            let _ = k;
            let mut out = [<$out as $crate::lane::Lane>::Value::default(); $crate::wave::LANES];
            for lane in 0..$crate::wave::LANES {
                $(let $arg = $arg[lane];)+
                out[lane] = $body;
            }
            <$out as $crate::lane::Lane>::write(wave, inst, &out);
        })
    };
}
