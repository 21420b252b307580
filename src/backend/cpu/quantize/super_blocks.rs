//! Activations for weights in super-blocks (the K-quants and IQ4_XS): 256 numbers at a time.
//!
//! A super-block has one scale, that of its greatest tile of 32, and each tile a power of two by which its own is smaller:
//! `x ≈ scale · 2⁻ᵏ · q`. Sums of a tile's products, integers, go `k` bits to the right, and as many more as they need to have 16
//! bits: from none, if a few numbers are much greater than all others, to 4. So they are multiplied by the weights' scale, which is an
//! integer too, and added to those of the other tiles by one instruction (`vpdpwssd`, whose pairs are the sum and nothing).
//! Once in a super-block this becomes a float and is scaled. Numbers of the weights are
//! [raised](crate::backend::cpu::tiles::Tile::RAISED) before: what is rounded away is less than the error of the activations.
//!
//! The price is that each tile but the greatest may have a scale up to twice what it needs; with one scale for all 256, as is usual, it
//! would be as many times that as the greatest number is greater than its own.
//!
//! Sums of products are kept in units of the present super-block's `d`; [`SuperBlock::ratio`] takes them over from the one before.
//!
//! Minimums of the weights are multiplied by the sums of halves or tiles, in the same 16 bits. All of these products of a super-block
//! are an integer of 24 bits, which a float32 holds exactly.

use super::{BLOCK, HALF, Unit};
use crate::backend::cpu::features::Isa;

/// Elements of a super-block.
pub const SUPER_BLOCK: usize = 256;
/// Tiles in it, and halves of tiles.
const TILES: usize = SUPER_BLOCK / BLOCK;
const HALVES: usize = SUPER_BLOCK / HALF;
/// The most by which a tile's scale is smaller than the greatest's, as a power of two; a tile that is smaller still has the scale of that.
const MOST: i32 = 11;
/// What raised numbers of the weights have at most; less this, where something is subtracted from them.
const GREATEST: i32 = 128;
/// What the scales of minimums are multiplied by: sums of activations are those of as many products.
pub const SUMS_UNIT: f32 = 1.0 / GREATEST as f32;
/// How much less a scale may be than the greatest before it, as a power of two: sums in its units stay far from infinity.
const SPAN: i32 = 32;
/// The bits of the least number that is taken for the greatest of a super-block, 2⁻⁸⁰: the inverse of its scale is finite.
const LEAST: i32 = (127 - 80) << 23;

/// 256 activations.
#[derive(Clone, Copy, PartialEq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub struct SuperBlock {
    pub q: [i8; SUPER_BLOCK],
    /// By how much sums of products go to the right, 0 to 15: each tile's.
    pub shift: [i32; TILES],
    /// Half of what is shifted out then, so that it is rounded: where sums of products begin.
    pub half: [i32; TILES],
    /// `128 · Σ q` of each tile, shifted and rounded in the same way.
    pub tile_sums: [i16; TILES],
    /// The unit of what was shifted: `x ≈ d · 2^−shift · q`.
    pub d: f32,
    /// The scale of the super-block before this one over this one's; 1 for the first.
    pub ratio: f32,
    // (What not all kernels read stands behind the rest.)
    /// [`SuperBlock::half`] for weights to which 128 was added: less `128 · Σ q`, of each half of a tile,
    pub start: [i32; HALVES],
    /// and of tiles.
    pub tile_start: [i32; TILES],
    /// [`SuperBlock::tile_sums`] of each half.
    pub sums: [i16; HALVES],
    /// [`SuperBlock::tile_sums`] as floats.
    pub tile_sums_f32: [f32; TILES],
}

impl SuperBlock {
    /// Where sums of products of tile `i` begin, or of one half of it if halves are scaled apart (`split`): weights that have a minimum
    /// are as they are, to others 128 was added.
    #[inline(always)]
    pub fn start_of(&self, minimum: bool, split: bool, i: usize, half: usize) -> i32 {
        match (minimum, split) {
            (true, _) => self.half[i],
            (false, true) => self.start[2 * i + half],
            (false, false) => self.tile_start[i],
        }
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
        let mut largest = [0; TILES];
        for (x, largest) in x.as_chunks::<2>().0.iter().zip(&mut largest) {
            // SAFETY: as the caller's.
            *largest = unsafe { U::largest(&x[0]).max(U::largest(&x[1])) };
        }
        let floor = (greatest - (SPAN << 23)).max(LEAST);
        let most = largest.iter().fold(floor, |most, &x| most.max(x));
        greatest = greatest.max(most);
        let scale = f32::from_bits(most as u32) / 127.0;
        let inverse = 1.0 / scale;
        let mut sums = [0; HALVES];
        for i in 0..TILES {
            // The greatest number over the tile's, rounded down to a power of two.
            let smaller = ((most - largest[i]) >> 23).min(MOST);
            block.shift[i] = smaller;
            let inverse = inverse * f32::from_bits(((127 + smaller) << 23) as u32);
            for half in 2 * i..2 * i + 2 {
                // SAFETY: as the caller's.
                sums[half] = unsafe { U::round(&x[half], inverse, &mut block.q.as_chunks_mut::<HALF>().0[half]) };
            }
        }
        // What sums of products have at most, before they are shifted to 16 bits.
        let mut size = 0;
        for (q, smaller) in block.q.as_chunks::<BLOCK>().0.iter().zip(block.shift) {
            let all: i32 = q.iter().map(|q| i32::from(q.unsigned_abs())).sum();
            size = size.max((GREATEST * all + (1 << smaller >> 1)) >> smaller);
        }
        let spare = (0..4).find(|&spare| size + (1 << spare) < 1 << (15 + spare)).unwrap_or(4);
        for i in 0..TILES {
            block.shift[i] += spare;
            let shift = block.shift[i];
            block.half[i] = 1 << shift >> 1;
            let rounded = |sum: i32| ((GREATEST * sum + (1 << shift >> 1)) >> shift) as i16;
            for half in 2 * i..2 * i + 2 {
                block.start[half] = block.half[i] - GREATEST * sums[half];
                block.sums[half] = rounded(sums[half]);
            }
            let sum = sums[2 * i] + sums[2 * i + 1];
            block.tile_start[i] = block.half[i] - GREATEST * sum;
            block.tile_sums[i] = rounded(sum);
            block.tile_sums_f32[i] = f32::from(block.tile_sums[i]);
        }
        block.d = scale * (1 << spare) as f32;
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
                for (tile, (q, x)) in block.q.chunks(BLOCK).zip(x.chunks(BLOCK)).enumerate() {
                    let shift = block.shift[tile];
                    let d = block.d * 2f32.powi(-shift);
                    let largest = x.iter().fold(0f32, |m, x| m.max(x.abs()));
                    // Twice the least scale that will do, or the least one there is.
                    assert!(d < (2.0001 * largest / 127.0).max(most / 127.0 / 2047.0) || most < 1e-20, "{d} {largest}");
                    assert!((0..=MOST + 4).contains(&shift));
                    assert!(q.iter().zip(x).all(|(q, x)| (f32::from(*q) * d - x).abs() <= d * 0.5001));
                    let unit = f64::from(1 << shift);
                    let size: i32 = q.iter().map(|q| i32::from(q.unsigned_abs())).sum();
                    assert!(f64::from(128 * size) / unit + 0.5 < 32768.0, "no room for {size} with {shift}");
                    let sums = [0, 1].map(|half| q[half * HALF..][..HALF].iter().map(|&q| i32::from(q)).sum::<i32>());
                    let sum = sums[0] + sums[1];
                    let half_unit = 1 << shift >> 1;
                    assert_eq!((block.half[tile], block.tile_start[tile]), (half_unit, half_unit - 128 * sum));
                    assert!((f64::from(block.tile_sums[tile]) - 128.0 * f64::from(sum) / unit).abs() <= 0.5);
                    assert_eq!(block.tile_sums_f32[tile], f32::from(block.tile_sums[tile]));
                    for half in 0..2 {
                        assert_eq!(block.start[2 * tile + half], half_unit - 128 * sums[half]);
                        let exact = 128.0 * f64::from(sums[half]) / unit;
                        assert!((f64::from(block.sums[2 * tile + half]) - exact).abs() <= 0.5);
                    }
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
            let sum = (127.0 * 32.0 * 8.0f32).copysign(x);
            assert_eq!((blocks[0].tile_sums_f32, blocks[0].shift), ([sum; 8], [4; 8]));
            let mut few = [0.0; SUPER_BLOCK];
            few[7] = x;
            quantize_super_blocks(Isa::detect(), &few, &mut blocks);
            assert_eq!(
                (blocks[0].tile_sums[0], blocks[0].shift[0], blocks[0].half[0]),
                (if x > 0.0 { 16256 } else { -16256 }, 0, 0)
            );
        }
        quantize_super_blocks(Isa::detect(), &[0.0; SUPER_BLOCK], &mut blocks);
        assert_eq!((blocks[0].q, blocks[0].sums, blocks[0].ratio), ([0; 256], [0; 16], 1.0));
    }
}
