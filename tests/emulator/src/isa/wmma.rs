//! Matrix products of 16x16 tiles by one wave.
//!
//! A row of A is held by the lane of its number, a column of B likewise, and lanes 16 to 31 must hold the same again.
//! Register `r` of C and D holds row `2r` in lanes 0 to 15 and row `2r + 1` in lanes 16 to 31, a column a lane.

use crate::inst::{Inst, Row, Slot, Src, Ty};
use crate::isa::dot::bf16_to_float;
use crate::lane::half_to_float;
use crate::versions;
use crate::wave::{LANES, ROWS, Wave};

const TILE: usize = 16;

/// Whether the wave may run a matrix instruction: all lanes active, A and B there twice.
fn check(wave: &mut Wave, inst: &Inst, registers: u16) -> bool {
    let mut problem = None;
    if wave.exec() != u32::MAX {
        problem = Some("a matrix instruction with inactive lanes");
    }
    for src in &inst.src[..2] {
        let Src::V(first) = *src else { continue };
        for register in first..first + registers {
            let (low, high) = wave.v[register as usize % ROWS].split_at(TILE);
            if low != high {
                problem = Some("a matrix operand whose lanes 16 to 31 differ from 0 to 15");
            }
        }
    }
    if let Some(problem) = problem {
        wave.fail(inst, crate::hip::error::LAUNCH_FAILURE, problem);
    }
    problem.is_none()
}

/// Source `k`'s 32-bit words: `[register][lane]` of the first 16 lanes.
#[inline(always)]
fn words<const N: usize>(wave: &Wave, src: Src) -> [[u32; TILE]; N] {
    let mut out = [[0; TILE]; N];
    for (register, out) in out.iter_mut().enumerate() {
        let row = match src {
            Src::V(first) => wave.v[(first as usize + register) % ROWS],
            constant => wave.row(constant),
        };
        out.copy_from_slice(&row[..TILE]);
    }
    out
}

/// C as a matrix: `[row][column]`.
#[inline(always)]
fn read_c(wave: &Wave, src: Src) -> [[u32; TILE]; TILE] {
    let mut c = [[0; TILE]; TILE];
    for register in 0..8 {
        let row = match src {
            Src::V(first) => wave.v[(first as usize + register) % ROWS],
            constant => wave.row(constant),
        };
        c[2 * register].copy_from_slice(&row[..TILE]);
        c[2 * register + 1].copy_from_slice(&row[TILE..]);
    }
    c
}

#[inline(always)]
fn write_d(wave: &mut Wave, inst: &Inst, d: &[[u32; TILE]; TILE]) {
    for register in 0..8 {
        let row: &mut [u32; LANES] = &mut wave.v[(inst.dst as usize + register) % ROWS];
        row[..TILE].copy_from_slice(&d[2 * register]);
        row[TILE..].copy_from_slice(&d[2 * register + 1]);
    }
}

/// Operand `k` as f32: `[depth][row or column]`.
#[inline(always)]
fn floats(wave: &Wave, inst: &Inst, k: usize, to_float: impl Fn(u32) -> f32) -> [[f32; TILE]; TILE] {
    let words: [[u32; TILE]; 8] = words(wave, inst.src[k]);
    let signs = [u32::from(inst.neg >> k & 1) << 15, u32::from(inst.neg_hi >> k & 1) << 15];
    let mut out = [[0.0; TILE]; TILE];
    for (depth, out) in out.iter_mut().enumerate() {
        for (at, out) in out.iter_mut().enumerate() {
            *out = to_float((words[depth / 2][at] >> (16 * (depth % 2)) & 0xffff) ^ signs[depth % 2]);
        }
    }
    out
}

/// D = A B + C in f32, products added in the order of the depth.
#[inline(always)]
fn multiply_floats(wave: &Wave, inst: &Inst, c: &mut [[f32; TILE]; TILE], to_float: impl Fn(u32) -> f32 + Copy) {
    let (a, b) = (floats(wave, inst, 0, to_float), floats(wave, inst, 1, to_float));
    for (row, c) in c.iter_mut().enumerate() {
        for depth in 0..TILE {
            let a = a[depth][row];
            for (c, b) in c.iter_mut().zip(&b[depth]) {
                *c = a.mul_add(*b, *c);
            }
        }
    }
}

#[inline(always)]
fn float_product(wave: &mut Wave, inst: &Inst, to_float: impl Fn(u32) -> f32 + Copy) {
    if !check(wave, inst, 8) {
        return;
    }
    let c = read_c(wave, inst.src[2]);
    let mut d = [[0.0; TILE]; TILE];
    for row in 0..TILE {
        for column in 0..TILE {
            let value = f32::from_bits(c[row][column]);
            let value = if inst.neg_hi & 4 != 0 { value.abs() } else { value };
            d[row][column] = if inst.neg & 4 != 0 { -value } else { value };
        }
    }
    multiply_floats(wave, inst, &mut d, to_float);
    let mut bits = [[0; TILE]; TILE];
    for row in 0..TILE {
        for column in 0..TILE {
            bits[row][column] = d[row][column].to_bits();
        }
    }
    write_d(wave, inst, &bits);
}

/// The form whose C and D are f16, in the low halves of eight registers, or in the high ones if `op_sel` says so.
#[inline(always)]
fn half_product(wave: &mut Wave, inst: &Inst) {
    if !check(wave, inst, 8) {
        return;
    }
    let high = inst.op_sel & 4 != 0;
    let shift = if high { 16 } else { 0 };
    let c = read_c(wave, inst.src[2]);
    let mut d = [[0.0; TILE]; TILE];
    for row in 0..TILE {
        for column in 0..TILE {
            d[row][column] = half_to_float(c[row][column] >> shift & 0xffff);
        }
    }
    multiply_floats(wave, inst, &mut d, half_to_float);
    let old = read_c(wave, Src::V(inst.dst));
    let mut bits = old;
    for row in 0..TILE {
        for column in 0..TILE {
            let half = crate::lane::float_to_half(d[row][column]);
            bits[row][column] = old[row][column] & !(0xffff << shift) | half << shift;
        }
    }
    write_d(wave, inst, &bits);
}

/// D = A B + C in i32 of elements of `BITS` bits, signed where the source's bit of `neg_lo` is set.
#[inline(always)]
fn integer_product<const BITS: usize, const N: usize>(wave: &mut Wave, inst: &Inst) {
    if !check(wave, inst, N as u16) {
        return;
    }
    let (a, b): ([[u32; TILE]; N], [[u32; TILE]; N]) = (words(wave, inst.src[0]), words(wave, inst.src[1]));
    let element = |words: &[[u32; TILE]; N], k: u8, depth: usize, at: usize| {
        let per_word = 32 / BITS;
        let top = words[depth / per_word][at] << (32 - BITS * (depth % per_word + 1));
        if inst.neg >> k & 1 != 0 { top as i32 >> (32 - BITS) } else { (top >> (32 - BITS)) as i32 }
    };
    let mut d = read_c(wave, inst.src[2]);
    for depth in 0..TILE {
        let mut column = [0; TILE];
        for (at, column) in column.iter_mut().enumerate() {
            *column = element(&b, 1, depth, at);
        }
        for (row, d) in d.iter_mut().enumerate() {
            let a = element(&a, 0, depth, row);
            for (d, b) in d.iter_mut().zip(&column) {
                // 16 products of bytes stay far inside i64, and clamping is at the end of them only.
                *d = d.wrapping_add((a * b) as u32);
            }
        }
    }
    write_d(wave, inst, &d);
}

const HALVES: &[Slot] =
    &[Slot::Dst(Ty::Rows(8)), Slot::Src(Ty::Rows(8)), Slot::Src(Ty::Rows(8)), Slot::Src(Ty::Rows(8))];
const BYTES: &[Slot] =
    &[Slot::Dst(Ty::Rows(8)), Slot::Src(Ty::Rows(4)), Slot::Src(Ty::Rows(4)), Slot::Src(Ty::Rows(8))];
const NIBBLES: &[Slot] =
    &[Slot::Dst(Ty::Rows(8)), Slot::Src(Ty::Rows(2)), Slot::Src(Ty::Rows(2)), Slot::Src(Ty::Rows(8))];

pub static TABLE: &[Row] = &[
    Row {
        name: "v_wmma_f32_16x16x16_f16",
        slots: HALVES,
        code: versions!(|wave, inst| { float_product(wave, inst, half_to_float) }),
    },
    Row {
        name: "v_wmma_f32_16x16x16_bf16",
        slots: HALVES,
        code: versions!(|wave, inst| { float_product(wave, inst, bf16_to_float) }),
    },
    Row { name: "v_wmma_f16_16x16x16_f16", slots: HALVES, code: versions!(|wave, inst| { half_product(wave, inst) }) },
    Row {
        name: "v_wmma_i32_16x16x16_iu8",
        slots: BYTES,
        code: versions!(|wave, inst| { integer_product::<8, 4>(wave, inst) }),
    },
    Row {
        name: "v_wmma_i32_16x16x16_iu4",
        slots: NIBBLES,
        code: versions!(|wave, inst| { integer_product::<4, 2>(wave, inst) }),
    },
];
