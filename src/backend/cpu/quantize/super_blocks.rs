//! Activations for weights in super-blocks (the K-quants and IQ4_XS): 256 numbers at a time.
//!
//! A super-block has one scale `d`, and each half of its blocks of 32 a shift: `x ≈ d · 2^shift · q`. What weights scale in
//! tiles is then scaled once for the super-block, since sums of products are shifted as integers, exactly:
//! `Σ x·w = d · Σ s · (2^shift₀ · Σ q·w + 2^shift₁ · Σ q·w)`, `s` being the weights' scale of a tile. The price is that each half but the
//! greatest may have a scale up to twice what it needs; with one scale for all 256, as is usual, it would be as many times that
//! as the greatest number is greater than its own.
//!
//! Sums of products are kept in units of the present super-block's `d`; [`SuperBlock::ratio`] takes them over from the one before.
//!
//! Minimums of the weights are multiplied by the sums of halves or tiles, which are rounded to 16 bits: an eighth of the
//! greatest half's unit. All of these products of a super-block are an integer of 24 bits, which a float32 holds exactly.

use super::{HALF, Unit};
use crate::backend::cpu::features::Isa;

/// Elements of a super-block.
pub const SUPER_BLOCK: usize = 256;
/// Halves of blocks in it.
const HALVES: usize = SUPER_BLOCK / HALF;
/// The shift of the greatest half. Smaller ones have a shift down to 0; what is smaller still has the scale of that.
const MOST: i32 = 11;
/// By how much sums for minimums are shifted to the right, to have 16 bits.
const SUMS_SHIFT: i32 = 8;
/// What the scales of minimums are multiplied by in return.
pub const SUMS_UNIT: f32 = (1 << SUMS_SHIFT) as f32;
/// What [`SuperBlock::start`] subtracts from each number of the weights.
pub const STARTS_OFFSET: i32 = 128;
/// How much less a scale may be than the greatest before it, as a power of two: sums in its units stay far from infinity.
const SPAN: i32 = 32;
/// The bits of the least number that is taken for the greatest of a super-block, 2⁻⁸⁰: the inverse of its scale is finite.
const LEAST: i32 = (127 - 80) << 23;

/// 256 activations.
#[derive(Clone, Copy, PartialEq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub struct SuperBlock {
    pub q: [i8; SUPER_BLOCK],
    /// Of each half, from 0 to 11.
    pub shift: [i32; HALVES],
    /// The sum of both [`SuperBlock::sums`] of each tile.
    pub tile_sums: [i16; HALVES / 2],
    /// The scale.
    pub d: f32,
    /// The scale of the super-block before this one over this one's; 1 for the first.
    pub ratio: f32,
    // (What not all kernels read stands behind the rest.)
    /// `−128 · Σ q` of each half: where sums of products begin, of weights to which 128 was added.
    pub start: [i32; HALVES],
    /// `2^shift · Σ q / 256` of each half, rounded.
    pub sums: [i16; HALVES],
    /// [`SuperBlock::tile_sums`] as floats.
    pub tile_sums_f32: [f32; HALVES / 2],
}

impl SuperBlock {
    /// `Σ q` of a half.
    #[inline(always)]
    pub fn sum(&self, half: usize) -> i32 {
        -(self.start[half] >> STARTS_OFFSET.ilog2())
    }
}

/// Quantises a row of whole super-blocks.
///
/// # Safety
/// The instruction set of `U`.
#[inline(always)]
pub(super) unsafe fn row<U: Unit>(values: &[f32], blocks: &mut [SuperBlock]) {
    let mut greatest = LEAST;
    let mut before = None;
    for (x, block) in values.as_chunks::<SUPER_BLOCK>().0.iter().zip(blocks) {
        let x = x.as_chunks::<HALF>().0;
        let mut largest = [0; HALVES];
        for (x, largest) in x.iter().zip(&mut largest) {
            // SAFETY: as the caller's.
            *largest = unsafe { U::largest(x) };
        }
        let floor = (greatest - (SPAN << 23)).max(LEAST);
        let most = largest.iter().fold(floor, |most, &x| most.max(x));
        greatest = greatest.max(most);
        let d = f32::from_bits(most as u32) / 127.0;
        let inverse = 1.0 / d;
        let mut sums = [0; HALVES];
        for i in 0..HALVES {
            // The greatest number over the half's, rounded down to a power of two.
            let smaller = ((most - largest[i]) >> 23).min(MOST);
            block.shift[i] = MOST - smaller;
            let inverse = inverse * f32::from_bits(((127 + smaller) << 23) as u32);
            // SAFETY: as the caller's.
            sums[i] = unsafe { U::round(&x[i], inverse, &mut block.q.as_chunks_mut::<HALF>().0[i]) };
        }
        for i in 0..HALVES {
            block.start[i] = -STARTS_OFFSET * sums[i];
            block.sums[i] = (((sums[i] << block.shift[i]) + (1 << (SUMS_SHIFT - 1))) >> SUMS_SHIFT) as i16;
        }
        for i in 0..HALVES / 2 {
            block.tile_sums[i] = block.sums[2 * i] + block.sums[2 * i + 1];
            block.tile_sums_f32[i] = f32::from(block.tile_sums[i]);
        }
        block.d = d / (1 << MOST) as f32;
        block.ratio = before.replace(block.d).unwrap_or(block.d) / block.d;
    }
}

/// Quantises a row of whole super-blocks: the same in every instruction set.
pub fn quantize_super_blocks(isa: Isa, values: &[f32], blocks: &mut [SuperBlock]) {
    match isa {
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => unsafe { super::x86::super_blocks_avx512(values, blocks) },
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { super::x86::super_blocks_avx2(values, blocks) },
        // SAFETY: every processor runs it.
        _ => unsafe { row::<super::Portable>(values, blocks) },
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;

    use super::*;

    /// Super-blocks of very different size, halves too, and some zeros.
    fn values() -> Vec<f32> {
        let size = |i: usize| match (i / SUPER_BLOCK % 7, i / HALF % 9) {
            (3, _) | (_, 4) => 0.0,
            (4, _) => 1e30,
            (5, _) => 1e-30,
            (block, half) => 2.1f32.powi(half as i32 - block as i32 * 3),
        };
        (0..15 * SUPER_BLOCK).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.01 * size(i)).collect()
    }

    #[test]
    fn super_blocks_are_the_same_on_every_instruction_set_and_near() {
        let values = values();
        let mut first: Option<Vec<SuperBlock>> = None;
        for isa in Isa::available() {
            let mut blocks = vec![SuperBlock::zeroed(); values.len() / SUPER_BLOCK];
            quantize_super_blocks(isa, &values, &mut blocks);
            let (mut before, mut greatest) = (blocks[0].d, 0f32);
            for (block, x) in blocks.iter().zip(values.chunks(SUPER_BLOCK)) {
                let most = x.iter().fold(greatest / 2f32.powi(SPAN), |m, x| m.max(x.abs()));
                greatest = greatest.max(most);
                assert!(block.d.is_normal() && (block.ratio * block.d / before - 1.0).abs() < 1e-6, "{block:?}");
                before = block.d;
                for (half, (q, x)) in block.q.chunks(HALF).zip(x.chunks(HALF)).enumerate() {
                    let d = block.d * 2f32.powi(block.shift[half]);
                    let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                    // Twice the least scale that will do, or the least one there is.
                    assert!(d < (2.0001 * largest / 127.0).max(most / 127.0 / 2047.0) || most < 1e-20, "{d} {largest}");
                    assert!((0..=MOST).contains(&block.shift[half]));
                    assert!(q.iter().zip(x).all(|(q, x)| (f32::from(*q) * d - x).abs() <= d * 0.5001));
                    let sum: i32 = q.iter().map(|&q| i32::from(q)).sum();
                    assert_eq!((block.sum(half), block.start[half]), (sum, -128 * sum));
                    let exact = f64::from(sum << block.shift[half]) / 256.0;
                    assert!((f64::from(block.sums[half]) - exact).abs() <= 0.5);
                }
                for (tile, halves) in block.sums.chunks(2).enumerate() {
                    assert_eq!(block.tile_sums[tile], halves[0] + halves[1]);
                    assert_eq!(block.tile_sums_f32[tile], f32::from(block.tile_sums[tile]));
                }
            }
            assert!(*first.get_or_insert_with(|| blocks.clone()) == blocks, "{}", isa.name());
        }
    }

    #[test]
    fn sums_of_the_greatest_numbers_have_room() {
        let mut blocks = [SuperBlock::zeroed()];
        for x in [3.0, -3.0] {
            quantize_super_blocks(Isa::detect(), &[x; SUPER_BLOCK], &mut blocks);
            let sum = (127.0 * 32.0 * 2048.0 / 256.0f32).copysign(x);
            assert_eq!((blocks[0].tile_sums_f32, blocks[0].shift), ([sum; 8], [MOST; 16]));
        }
        quantize_super_blocks(Isa::detect(), &[0.0; SUPER_BLOCK], &mut blocks);
        assert_eq!((blocks[0].q, blocks[0].sums, blocks[0].ratio), ([0; 256], [0; 16], 1.0));
    }
}
