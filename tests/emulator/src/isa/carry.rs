//! Vector instructions that read or write a mask with a bit for each lane: carries, selects and wide products.

use crate::inst::{Inst, Row, Slot, Ty};
use crate::lane::{F32, I32, I64, Lane, U16, U32, U64};
use crate::versions;
use crate::wave::{LANES, Wave};

/// Writes a result and the carries out of it.
#[inline(always)]
fn write_carrying(wave: &mut Wave, inst: &Inst, compute: impl Fn(usize) -> (u32, bool)) {
    let (mut out, mut carries) = ([0; LANES], 0u32);
    for lane in 0..LANES {
        let (value, carry) = compute(lane);
        out[lane] = value;
        carries |= u32::from(carry) << lane;
    }
    let exec = wave.exec();
    wave.set_s(inst.sdst, carries & exec);
    U32::write(wave, inst, &out);
}

#[inline(always)]
fn add(a: u32, b: u32, carry: bool) -> (u32, bool) {
    let sum = u64::from(a) + u64::from(b) + u64::from(carry);
    (sum as u32, sum >> 32 != 0)
}

#[inline(always)]
fn sub(a: u32, b: u32, borrow: bool) -> (u32, bool) {
    let difference = u64::from(a).wrapping_sub(u64::from(b)).wrapping_sub(u64::from(borrow));
    (difference as u32, difference >> 32 != 0)
}

macro_rules! carry_out {
    ($name:literal, |$a:ident, $b:ident| $body:expr) => {
        Row {
            name: $name,
            slots: &[Slot::Dst(Ty::B32), Slot::SDst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32)],
            code: versions!(|wave, inst| {
                let (a, b) = (U32::read(wave, inst, 0), U32::read(wave, inst, 1));
                write_carrying(wave, inst, |l| {
                    let ($a, $b) = (a[l], b[l]);
                    $body
                });
            }),
        }
    };
}

macro_rules! carry_in_out {
    ($name:literal, |$a:ident, $b:ident, $carry:ident| $body:expr) => {
        Row {
            name: $name,
            slots: &[Slot::Dst(Ty::B32), Slot::SDst(Ty::B32), Slot::Src(Ty::B32), Slot::Src(Ty::B32), Slot::MaskSrc],
            code: versions!(|wave, inst| {
                let (a, b) = (U32::read(wave, inst, 0), U32::read(wave, inst, 1));
                let carries = wave.scalar(inst.src[2]);
                write_carrying(wave, inst, |l| {
                    let ($a, $b, $carry) = (a[l], b[l], carries >> l & 1 != 0);
                    $body
                });
            }),
        }
    };
}

macro_rules! select {
    ($name:literal, $lane:ident) => {
        Row {
            name: $name,
            slots: &[Slot::Dst($lane::TY), Slot::Src($lane::TY), Slot::Src($lane::TY), Slot::MaskSrc],
            code: versions!(|wave, inst| {
                let (a, b) = ($lane::read(wave, inst, 0), $lane::read(wave, inst, 1));
                let mask = wave.scalar(inst.src[2]);
                let mut out = a;
                for lane in 0..LANES {
                    out[lane] = if mask >> lane & 1 != 0 { b[lane] } else { a[lane] };
                }
                $lane::write(wave, inst, &out);
            }),
        }
    };
}

macro_rules! wide_mad {
    ($name:literal, $narrow:ident, $wide:ident, $value:ty) => {
        Row {
            name: $name,
            slots: &[
                Slot::Dst($wide::TY),
                Slot::SDst(Ty::B32),
                Slot::Src(Ty::B32),
                Slot::Src(Ty::B32),
                Slot::Src($wide::TY),
            ],
            code: versions!(|wave, inst| {
                let (a, b, c) =
                    ($narrow::read(wave, inst, 0), $narrow::read(wave, inst, 1), $wide::read(wave, inst, 2));
                let (mut out, mut carries) = ([0; LANES], 0u32);
                for lane in 0..LANES {
                    let (sum, carry) =
                        <$value>::from(a[lane]).wrapping_mul(<$value>::from(b[lane])).overflowing_add(c[lane]);
                    out[lane] = sum;
                    carries |= u32::from(carry) << lane;
                }
                let exec = wave.exec();
                wave.set_s(inst.sdst, carries & exec);
                $wide::write(wave, inst, &out);
            }),
        }
    };
}

pub static TABLE: &[Row] = &[
    carry_out!("v_add_co_u32", |a, b| add(a, b, false)),
    carry_out!("v_sub_co_u32", |a, b| sub(a, b, false)),
    carry_out!("v_subrev_co_u32", |a, b| sub(b, a, false)),
    carry_in_out!("v_add_co_ci_u32", |a, b, carry| add(a, b, carry)),
    carry_in_out!("v_sub_co_ci_u32", |a, b, borrow| sub(a, b, borrow)),
    carry_in_out!("v_subrev_co_ci_u32", |a, b, borrow| sub(b, a, borrow)),
    select!("v_cndmask_b32", F32),
    select!("v_cndmask_b16", U16),
    wide_mad!("v_mad_u64_u32", U32, U64, u64),
    wide_mad!("v_mad_i64_i32", I32, I64, i64),
];
