//! Packed arithmetic: two 16-bit operations in one register, each of whose sources may be either half.

use crate::inst::{Inst, Row, Slot, Ty};
use crate::isa::float::{max, min};
use crate::isa::half::fma;
use crate::lane::{float_to_half, half_to_float};
use crate::versions;
use crate::wave::{LANES, Wave};

/// Source `k` for the low result and for the high one, each in the low 16 bits.
#[inline(always)]
pub fn halves(wave: &Wave, inst: &Inst, k: usize) -> [[u32; LANES]; 2] {
    let row = wave.row(inst.src[k]);
    let shifts = [(inst.op_sel >> k & 1) * 16, (inst.op_sel_hi >> k & 1) * 16];
    let signs = [u32::from(inst.neg >> k & 1) << 15, u32::from(inst.neg_hi >> k & 1) << 15];
    let mut out = [[0; LANES]; 2];
    for half in 0..2 {
        for lane in 0..LANES {
            out[half][lane] = (row[lane] >> shifts[half] & 0xffff) ^ signs[half];
        }
    }
    out
}

#[inline(always)]
fn write(wave: &mut Wave, inst: &Inst, compute: impl Fn(usize, usize) -> u32) {
    let mut out = [0; LANES];
    for lane in 0..LANES {
        out[lane] = compute(0, lane) & 0xffff | compute(1, lane) << 16;
    }
    wave.set_row(inst.dst, &out);
}

/// As f16, with the clamp modifier applied.
#[inline(always)]
fn to_half(x: f32, clamp: bool) -> u32 {
    float_to_half(if !clamp {
        x
    } else if x > 0.0 {
        x.min(1.0)
    } else {
        0.0
    })
}

macro_rules! packed_float {
    ($name:literal, $dst:ident, ($($arg:ident),+), $body:expr) => {
        packed_float!($name, $dst, ($($arg),+), [$($arg),+], $body)
    };
    ($name:literal, $dst:ident, ($($arg:ident),+), [$($all:ident),+], $body:expr) => {
        Row {
            name: $name,
            slots: &[Slot::$dst(Ty::PackedF16), $({ stringify!($arg); Slot::Src(Ty::PackedF16) }),+],
            code: versions!(|wave, inst| {
                let mut k = 0;
                $(let $all = halves(wave, inst, k); k += 1;)+
                let _ = k;
                write(wave, inst, |half, lane| {
                    $(let $all = half_to_float($all[half][lane]);)+
                    to_half($body, inst.clamp)
                });
            }),
        }
    };
}

macro_rules! packed_integer {
    ($name:literal, $as:ty, ($($arg:ident),+), $body:expr) => {
        Row {
            name: $name,
            slots: &[Slot::Dst(Ty::PackedB16), $({ stringify!($arg); Slot::Src(Ty::PackedB16) }),+],
            code: versions!(|wave, inst| {
                let mut k = 0;
                $(let $arg = halves(wave, inst, k); k += 1;)+
                let _ = k;
                write(wave, inst, |half, lane| {
                    $(let $arg = $arg[half][lane] as $as;)+
                    let result: $as = $body;
                    result as u16 as u32
                });
            }),
        }
    };
}

pub static TABLE: &[Row] = &[
    packed_float!("v_pk_add_f16", Dst, (a, b), a + b),
    packed_float!("v_pk_mul_f16", Dst, (a, b), a * b),
    packed_float!("v_pk_min_f16", Dst, (a, b), min(a, b)),
    packed_float!("v_pk_max_f16", Dst, (a, b), max(a, b)),
    packed_float!("v_pk_fma_f16", Dst, (a, b, c), fma(a, b, c)),
    packed_integer!("v_pk_add_u16", u16, (a, b), a.wrapping_add(b)),
    packed_integer!("v_pk_sub_u16", u16, (a, b), a.wrapping_sub(b)),
    packed_integer!("v_pk_add_i16", u16, (a, b), a.wrapping_add(b)),
    packed_integer!("v_pk_sub_i16", u16, (a, b), a.wrapping_sub(b)),
    packed_integer!("v_pk_add_u16_clamp", u16, (a, b), a.saturating_add(b)),
    packed_integer!("v_pk_sub_u16_clamp", u16, (a, b), a.saturating_sub(b)),
    packed_integer!("v_pk_add_i16_clamp", i16, (a, b), a.saturating_add(b)),
    packed_integer!("v_pk_sub_i16_clamp", i16, (a, b), a.saturating_sub(b)),
    packed_integer!("v_pk_mul_lo_u16", u16, (a, b), a.wrapping_mul(b)),
    packed_integer!("v_pk_mad_u16", u16, (a, b, c), a.wrapping_mul(b).wrapping_add(c)),
    packed_integer!("v_pk_mad_i16", u16, (a, b, c), a.wrapping_mul(b).wrapping_add(c)),
    packed_integer!("v_pk_lshlrev_b16", u16, (a, b), b << (a & 15)),
    packed_integer!("v_pk_lshrrev_b16", u16, (a, b), b >> (a & 15)),
    packed_integer!("v_pk_ashrrev_i16", i16, (a, b), b >> (a & 15)),
    packed_integer!("v_pk_min_u16", u16, (a, b), a.min(b)),
    packed_integer!("v_pk_max_u16", u16, (a, b), a.max(b)),
    packed_integer!("v_pk_min_i16", i16, (a, b), a.min(b)),
    packed_integer!("v_pk_max_i16", i16, (a, b), a.max(b)),
];

pub static ACCUMULATING: &[Row] = &[packed_float!("v_pk_fmac_f16", DstSrc, (a, b), [a, b, c], fma(a, b, c))];
