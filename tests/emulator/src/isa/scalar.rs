//! Scalar arithmetic: on SGPRs, once for the whole wave.

use crate::hip::error::NOT_SUPPORTED;
use crate::inst::{EXEC, Inst, NULL, Row, Slot, Src, Ty};
use crate::versions;
use crate::wave::Wave;

/// A type of scalar operand.
trait Scalar: Copy {
    const TY: Ty;
    fn read(wave: &Wave, src: Src) -> Self;
    fn write(self, wave: &mut Wave, register: u8);
}

macro_rules! scalar_type {
    ($type:ty, $ty:expr, $read:ident, $write:ident, $bits:ty) => {
        impl Scalar for $type {
            const TY: Ty = $ty;

            #[inline(always)]
            fn read(wave: &Wave, src: Src) -> $type {
                wave.$read(src) as $type
            }

            #[inline(always)]
            fn write(self, wave: &mut Wave, register: u8) {
                wave.$write(register, self as $bits);
            }
        }
    };
}

scalar_type!(u32, Ty::B32, scalar, set_s, u32);
scalar_type!(i32, Ty::B32, scalar, set_s, u32);
scalar_type!(u64, Ty::B64, scalar64, set_s64, u64);
scalar_type!(i64, Ty::I64, scalar64, set_s64, u64);

/// `"name" (a: type, …) -> type, scc = expression`, where the expression may read and assign `scc`.
macro_rules! salu {
    ($table:ident: $($name:literal ($($arg:ident: $ty:ty),*) -> $out:ty, $scc:ident: $body:expr;)+) => {
        pub static $table: &[Row] = &[$(Row {
            name: $name,
            slots: &[Slot::SDst(<$out>::TY), $(Slot::Src(<$ty>::TY)),*],
            code: versions!(|wave, inst| {
                let mut k = 0;
                $(let $arg = <$ty>::read(wave, inst.src[k]); k += 1;)*
                let _ = k;
                #[allow(unused_mut, unused_assignments)]
                let mut $scc = wave.scc;
                let out: $out = $body;
                wave.scc = $scc;
                out.write(wave, inst.sdst);
            }),
        }),+];
    };
}

/// Comparisons, whose result is SCC.
macro_rules! salu_compare {
    ($table:ident: $($name:literal ($($arg:ident: $ty:ty),+) = $body:expr;)+) => {
        static $table: &[Row] = &[$(Row {
            name: $name,
            slots: &[$(Slot::Src(<$ty>::TY)),+],
            code: versions!(|wave, inst| {
                let mut k = 0;
                $(let $arg = <$ty>::read(wave, inst.src[k]); k += 1;)+
                let _ = k;
                wave.scc = $body;
            }),
        }),+];
    };
}

/// Operations on the destination and a 16-bit immediate.
macro_rules! salu_immediate {
    ($table:ident: $($name:literal ($old:ident, $imm:ident, $scc:ident) = $body:expr;)+) => {
        static $table: &[Row] = &[$(Row {
            name: $name,
            slots: &[Slot::SDst(Ty::B32), Slot::Imm],
            code: versions!(|wave, inst| {
                let ($old, $imm) = (wave.s[inst.sdst as usize & 127] as i32, inst.imm as i16 as i32);
                #[allow(unused_mut, unused_assignments)]
                let mut $scc = wave.scc;
                let out: i32 = $body;
                wave.scc = $scc;
                wave.set_s(inst.sdst, out as u32);
            }),
        }),+];
    };
}

/// `value`, with SCC saying whether it is not zero.
macro_rules! nonzero {
    ($scc:ident, $value:expr) => {{
        let value = $value;
        $scc = value != 0;
        value
    }};
}

/// The value of an operation that overflows, with SCC saying whether it did.
macro_rules! overflowing {
    ($scc:ident, $pair:expr) => {{
        let (value, overflow) = $pair;
        $scc = overflow;
        value
    }};
}

fn field_u64(a: u64, control: u32) -> u64 {
    let (offset, width) = (control & 63, (control >> 16 & 127).min(64));
    if width == 64 { a >> offset } else { a >> offset & ((1 << width) - 1) }
}

fn field_i64(a: i64, control: u32) -> i64 {
    let width = (control >> 16 & 127).min(64 - (control & 63));
    if width == 0 { 0 } else { (field_u64(a as u64, control) as i64) << (64 - width) >> (64 - width) }
}

/// How many high bits equal the sign, -1 if all do.
fn cls(a: i32) -> i32 {
    if a == 0 || a == -1 { -1 } else { a.leading_zeros().max((!a).leading_zeros()) as i32 }
}

salu! { ARITHMETIC:
    "s_add_u32" (a: u32, b: u32) -> u32, scc: overflowing!(scc, a.overflowing_add(b));
    "s_sub_u32" (a: u32, b: u32) -> u32, scc: overflowing!(scc, a.overflowing_sub(b));
    "s_add_i32" (a: i32, b: i32) -> i32, scc: overflowing!(scc, a.overflowing_add(b));
    "s_sub_i32" (a: i32, b: i32) -> i32, scc: overflowing!(scc, a.overflowing_sub(b));
    "s_addc_u32" (a: u32, b: u32) -> u32, scc: {
        let sum = u64::from(a) + u64::from(b) + u64::from(scc);
        scc = sum >> 32 != 0;
        sum as u32
    };
    "s_subb_u32" (a: u32, b: u32) -> u32, scc: {
        let difference = u64::from(a).wrapping_sub(u64::from(b)).wrapping_sub(u64::from(scc));
        scc = difference >> 32 != 0;
        difference as u32
    };
    "s_mul_i32" (a: u32, b: u32) -> u32, scc: a.wrapping_mul(b);
    "s_mul_hi_u32" (a: u32, b: u32) -> u32, scc: (u64::from(a) * u64::from(b) >> 32) as u32;
    "s_mul_hi_i32" (a: i32, b: i32) -> i32, scc: (i64::from(a) * i64::from(b) >> 32) as i32;
    "s_min_u32" (a: u32, b: u32) -> u32, scc: { scc = a < b; a.min(b) };
    "s_max_u32" (a: u32, b: u32) -> u32, scc: { scc = a >= b; a.max(b) };
    "s_min_i32" (a: i32, b: i32) -> i32, scc: { scc = a < b; a.min(b) };
    "s_max_i32" (a: i32, b: i32) -> i32, scc: { scc = a >= b; a.max(b) };
    "s_abs_i32" (a: i32) -> i32, scc: nonzero!(scc, a.wrapping_abs());
    "s_absdiff_i32" (a: i32, b: i32) -> i32, scc: nonzero!(scc, a.wrapping_sub(b).wrapping_abs());
    "s_lshl1_add_u32" (a: u32, b: u32) -> u32, scc: lshl_add(a, b, 1, &mut scc);
    "s_lshl2_add_u32" (a: u32, b: u32) -> u32, scc: lshl_add(a, b, 2, &mut scc);
    "s_lshl3_add_u32" (a: u32, b: u32) -> u32, scc: lshl_add(a, b, 3, &mut scc);
    "s_lshl4_add_u32" (a: u32, b: u32) -> u32, scc: lshl_add(a, b, 4, &mut scc);
    "s_lshl_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a << (b & 31));
    "s_lshr_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a >> (b & 31));
    "s_ashr_i32" (a: i32, b: u32) -> i32, scc: nonzero!(scc, a >> (b & 31));
    "s_lshl_b64" (a: u64, b: u32) -> u64, scc: nonzero!(scc, a << (b & 63));
    "s_lshr_b64" (a: u64, b: u32) -> u64, scc: nonzero!(scc, a >> (b & 63));
    "s_ashr_i64" (a: i64, b: u32) -> i64, scc: nonzero!(scc, a >> (b & 63));
    "s_bfe_u32" (a: u32, b: u32) -> u32, scc: {
        nonzero!(scc, (u64::from(a) >> (b & 31)) as u32 & (1u64 << (b >> 16 & 127).min(32)).wrapping_sub(1) as u32)
    };
    "s_bfe_i32" (a: i32, b: u32) -> i32, scc: {
        let width = (b >> 16 & 127).min(32 - (b & 31));
        nonzero!(scc, if width == 0 { 0 } else { (a >> (b & 31)) << (32 - width) >> (32 - width) })
    };
    "s_bfe_u64" (a: u64, b: u32) -> u64, scc: nonzero!(scc, field_u64(a, b));
    "s_bfe_i64" (a: i64, b: u32) -> i64, scc: nonzero!(scc, field_i64(a, b));
    "s_bfm_b32" (a: u32, b: u32) -> u32, scc: ((1u32 << (a & 31)) - 1) << (b & 31);
    "s_bfm_b64" (a: u32, b: u32) -> u64, scc: ((1u64 << (a & 63)) - 1) << (b & 63);
    "s_and_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a & b);
    "s_or_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a | b);
    "s_xor_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a ^ b);
    "s_nand_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, !(a & b));
    "s_nor_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, !(a | b));
    "s_xnor_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, !(a ^ b));
    "s_and_not1_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a & !b);
    "s_or_not1_b32" (a: u32, b: u32) -> u32, scc: nonzero!(scc, a | !b);
    "s_and_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, a & b);
    "s_or_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, a | b);
    "s_xor_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, a ^ b);
    "s_nand_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, !(a & b));
    "s_nor_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, !(a | b));
    "s_xnor_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, !(a ^ b));
    "s_and_not1_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, a & !b);
    "s_or_not1_b64" (a: u64, b: u64) -> u64, scc: nonzero!(scc, a | !b);
    "s_not_b32" (a: u32) -> u32, scc: nonzero!(scc, !a);
    "s_not_b64" (a: u64) -> u64, scc: nonzero!(scc, !a);
    "s_bcnt0_i32_b32" (a: u32) -> u32, scc: nonzero!(scc, a.count_zeros());
    "s_bcnt1_i32_b32" (a: u32) -> u32, scc: nonzero!(scc, a.count_ones());
    "s_bcnt0_i32_b64" (a: u64) -> u32, scc: nonzero!(scc, a.count_zeros());
    "s_bcnt1_i32_b64" (a: u64) -> u32, scc: nonzero!(scc, a.count_ones());
}

fn lshl_add(a: u32, b: u32, shift: u32, scc: &mut bool) -> u32 {
    let sum = (u64::from(a) << shift) + u64::from(b);
    *scc = sum >> 32 != 0;
    sum as u32
}

salu! { PLAIN:
    "s_mov_b32" (a: u32) -> u32, scc: a;
    "s_mov_b64" (a: u64) -> u64, scc: a;
    "s_brev_b32" (a: u32) -> u32, scc: a.reverse_bits();
    "s_brev_b64" (a: u64) -> u64, scc: a.reverse_bits();
    "s_ctz_i32_b32" (a: u32) -> i32, scc: if a == 0 { -1 } else { a.trailing_zeros() as i32 };
    "s_ctz_i32_b64" (a: u64) -> i32, scc: if a == 0 { -1 } else { a.trailing_zeros() as i32 };
    "s_clz_i32_u32" (a: u32) -> i32, scc: if a == 0 { -1 } else { a.leading_zeros() as i32 };
    "s_clz_i32_u64" (a: u64) -> i32, scc: if a == 0 { -1 } else { a.leading_zeros() as i32 };
    "s_cls_i32" (a: i32) -> i32, scc: cls(a);
    "s_cls_i32_i64" (a: i64) -> i32, scc: if a == 0 || a == -1 { -1 } else { (a ^ a >> 63).leading_zeros() as i32 };
    "s_sext_i32_i8" (a: i32) -> i32, scc: i32::from(a as i8);
    "s_sext_i32_i16" (a: i32) -> i32, scc: i32::from(a as i16);
    "s_pack_ll_b32_b16" (a: u32, b: u32) -> u32, scc: a & 0xffff | b << 16;
    "s_pack_lh_b32_b16" (a: u32, b: u32) -> u32, scc: a & 0xffff | b & 0xffff_0000;
    "s_pack_hh_b32_b16" (a: u32, b: u32) -> u32, scc: a >> 16 | b & 0xffff_0000;
    "s_pack_hl_b32_b16" (a: u32, b: u32) -> u32, scc: a >> 16 | b << 16;
    "s_cselect_b32" (a: u32, b: u32) -> u32, scc: if scc { a } else { b };
    "s_cselect_b64" (a: u64, b: u64) -> u64, scc: if scc { a } else { b };
}

salu_compare! { COMPARE:
    "s_cmp_eq_i32" (a: i32, b: i32) = a == b;
    "s_cmp_lg_i32" (a: i32, b: i32) = a != b;
    "s_cmp_gt_i32" (a: i32, b: i32) = a > b;
    "s_cmp_ge_i32" (a: i32, b: i32) = a >= b;
    "s_cmp_lt_i32" (a: i32, b: i32) = a < b;
    "s_cmp_le_i32" (a: i32, b: i32) = a <= b;
    "s_cmp_eq_u32" (a: u32, b: u32) = a == b;
    "s_cmp_lg_u32" (a: u32, b: u32) = a != b;
    "s_cmp_gt_u32" (a: u32, b: u32) = a > b;
    "s_cmp_ge_u32" (a: u32, b: u32) = a >= b;
    "s_cmp_lt_u32" (a: u32, b: u32) = a < b;
    "s_cmp_le_u32" (a: u32, b: u32) = a <= b;
    "s_cmp_eq_u64" (a: u64, b: u64) = a == b;
    "s_cmp_lg_u64" (a: u64, b: u64) = a != b;
    "s_bitcmp0_b32" (a: u32, b: u32) = a >> (b & 31) & 1 == 0;
    "s_bitcmp1_b32" (a: u32, b: u32) = a >> (b & 31) & 1 == 1;
    "s_bitcmp0_b64" (a: u64, b: u32) = a >> (b & 63) & 1 == 0;
    "s_bitcmp1_b64" (a: u64, b: u32) = a >> (b & 63) & 1 == 1;
}

salu_immediate! { IMMEDIATE:
    "s_movk_i32" (old, imm, scc) = { let _ = old; imm };
    "s_cmovk_i32" (old, imm, scc) = if scc { imm } else { old };
    "s_addk_i32" (old, imm, scc) = overflowing!(scc, old.overflowing_add(imm));
    "s_mulk_i32" (old, imm, scc) = old.wrapping_mul(imm);
    "s_cmpk_eq_i32" (old, imm, scc) = { scc = old == imm; old };
    "s_cmpk_lg_i32" (old, imm, scc) = { scc = old != imm; old };
    "s_cmpk_gt_i32" (old, imm, scc) = { scc = old > imm; old };
    "s_cmpk_ge_i32" (old, imm, scc) = { scc = old >= imm; old };
    "s_cmpk_lt_i32" (old, imm, scc) = { scc = old < imm; old };
    "s_cmpk_le_i32" (old, imm, scc) = { scc = old <= imm; old };
    "s_cmpk_eq_u32" (old, imm, scc) = { scc = old as u32 == imm as u32 & 0xffff; old };
    "s_cmpk_lg_u32" (old, imm, scc) = { scc = old as u32 != imm as u32 & 0xffff; old };
    "s_cmpk_gt_u32" (old, imm, scc) = { scc = old as u32 > imm as u32 & 0xffff; old };
    "s_cmpk_ge_u32" (old, imm, scc) = { scc = old as u32 >= imm as u32 & 0xffff; old };
    "s_cmpk_lt_u32" (old, imm, scc) = { scc = (old as u32) < (imm as u32 & 0xffff); old };
    "s_cmpk_le_u32" (old, imm, scc) = { scc = old as u32 <= imm as u32 & 0xffff; old };
}

/// EXEC becomes a function of the source and EXEC; the result register gets the old one.
macro_rules! save_exec {
    ($name:literal, |$src:ident, $exec:ident| $body:expr) => {
        Row {
            name: $name,
            slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32)],
            code: versions!(|wave, inst| {
                let ($src, $exec) = (wave.scalar(inst.src[0]), wave.exec());
                let new: u32 = $body;
                wave.set_s(inst.sdst, $exec);
                wave.s[EXEC as usize] = new;
                wave.scc = new != 0;
            }),
        }
    };
}

/// What does not fit the patterns above.
static OTHERS: &[Row] = &[
    save_exec!("s_and_saveexec_b32", |src, exec| src & exec),
    save_exec!("s_or_saveexec_b32", |src, exec| src | exec),
    save_exec!("s_xor_saveexec_b32", |src, exec| src ^ exec),
    save_exec!("s_nand_saveexec_b32", |src, exec| !(src & exec)),
    save_exec!("s_nor_saveexec_b32", |src, exec| !(src | exec)),
    save_exec!("s_xnor_saveexec_b32", |src, exec| !(src ^ exec)),
    save_exec!("s_and_not0_saveexec_b32", |src, exec| !src & exec),
    save_exec!("s_and_not1_saveexec_b32", |src, exec| src & !exec),
    save_exec!("s_or_not0_saveexec_b32", |src, exec| !src | exec),
    save_exec!("s_or_not1_saveexec_b32", |src, exec| src | !exec),
    Row {
        name: "s_cmov_b32",
        slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| {
            if wave.scc {
                let value = wave.scalar(inst.src[0]);
                wave.set_s(inst.sdst, value);
            }
        }),
    },
    Row {
        name: "s_cmov_b64",
        slots: &[Slot::SDst(Ty::B64), Slot::Src(Ty::B64)],
        code: versions!(|wave, inst| {
            if wave.scc {
                let value = wave.scalar64(inst.src[0]);
                wave.set_s64(inst.sdst, value);
            }
        }),
    },
    Row {
        name: "s_denorm_mode",
        slots: &[Slot::Imm],
        code: versions!(|wave, inst| {
            // Bits 0 and 1 are of f32, 2 and 3 of f16 and f64.
            match inst.imm {
                12 => wave.set_flushing(true),
                15 => wave.set_flushing(false),
                mode => wave.fail(inst, NOT_SUPPORTED, &format!("mode {mode} of subnormal numbers")),
            }
        }),
    },
    Row {
        name: "s_bitset0_b32",
        slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| { set_bit(wave, inst, false) }),
    },
    Row {
        name: "s_bitset1_b32",
        slots: &[Slot::SDst(Ty::B32), Slot::Src(Ty::B32)],
        code: versions!(|wave, inst| { set_bit(wave, inst, true) }),
    },
];

fn set_bit(wave: &mut Wave, inst: &Inst, value: bool) {
    let bit = 1 << (wave.scalar(inst.src[0]) & 31);
    let old = if inst.sdst == NULL { 0 } else { wave.s[inst.sdst as usize & 127] };
    wave.set_s(inst.sdst, if value { old | bit } else { old & !bit });
}

pub static TABLES: &[&[Row]] = &[ARITHMETIC, PLAIN, COMPARE, IMMEDIATE, OTHERS];
