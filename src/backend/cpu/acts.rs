//! Activations: float32 rows, and the same rows quantised to 8 bits for the integer kernels.
//!
//! One quantisation serves every weight format: blocks of 32, each half with a float32 scale `d = max|x| / 127`, so that
//! a product is `d · Σ q·w` with integer sums, and the sum of `q` over each half, by which formats with an offset or a
//! minimum are corrected. A scale for 16 elements and not for 32 costs one more multiplication a tile and row, and
//! rounds an eighth finer.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::amx::{self, Tiles};
use super::features::Isa;
use super::memory::AlignedBuf;
use super::pool::Pool;
use super::rows::Rows;
use crate::error::{Error, Result};

/// Elements of a block of quantised activations.
pub const BLOCK: usize = 32;

/// Rows of activations.
pub struct Acts {
    n: usize,
    columns: usize,
    values: AlignedBuf,
    q: AlignedBuf,
    /// One for each block.
    scales: Vec<BlockScale>,
    /// The rows in bf16, where AMX multiplies them.
    tiles: Option<Tiles>,
    /// The rows are there, and not in `q`.
    in_tiles: bool,
}

/// What goes with a block of quantised activations, for each half of it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct BlockScale {
    /// `x ≈ d · q`.
    pub d: [f32; 2],
    /// `d · Σ q`.
    pub s: [f32; 2],
    /// `Σ q`.
    pub sum: [i32; 2],
}

impl Acts {
    /// Room for `rows` rows of up to `columns` elements, as the products of `isa` want them.
    pub fn new(rows: usize, columns: usize, isa: Isa) -> Result<Acts> {
        let width = columns.next_multiple_of(BLOCK);
        let elements = rows
            .checked_mul(width)
            .filter(|n| isize::try_from(n.saturating_mul(4)).is_ok())
            .ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: "activations".into() })?;
        Ok(Acts {
            n: 0,
            columns: 0,
            values: AlignedBuf::zeroed(elements * 4)?,
            q: AlignedBuf::zeroed(elements)?,
            scales: vec![BlockScale::default(); elements / BLOCK],
            tiles: (isa == Isa::Amx && rows >= amx::LEAST_ROWS).then(|| Tiles::new(rows, columns)).transpose()?,
            in_tiles: false,
        })
    }

    /// Uses the room for `n` rows of `columns` elements; what they hold is then undefined.
    pub fn set_shape(&mut self, n: usize, columns: usize) {
        assert!(n * columns.next_multiple_of(BLOCK) <= self.q.as_slice().len(), "{n} rows of {columns} do not fit");
        self.n = n;
        self.columns = columns;
        self.in_tiles = false;
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `[rows][columns]`.
    pub fn values(&self) -> &[f32] {
        &bytemuck::cast_slice(self.values.as_slice())[..self.n * self.columns]
    }

    /// `[rows][columns]`.
    pub fn values_mut(&mut self) -> &mut [f32] {
        &mut bytemuck::cast_slice_mut(self.values.as_mut_slice())[..self.n * self.columns]
    }

    /// The quantised rows, `[rows][columns]`.
    pub fn q(&self) -> &[i8] {
        &bytemuck::cast_slice(self.q.as_slice())[..self.n * self.columns]
    }

    /// The blocks' scales, `[rows][columns / 32]`.
    pub fn scales(&self) -> &[BlockScale] {
        &self.scales[..self.n * (self.columns / BLOCK)]
    }

    /// The rows in bf16, if they are there.
    pub(super) fn tiles(&self) -> Option<&Tiles> {
        self.tiles.as_ref().filter(|_| self.in_tiles)
    }

    /// Quantises all rows, or rounds them to bf16 where AMX will multiply them. Rows that are no whole number of blocks stay
    /// float32 besides: only float formats have such.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
        if isa == Isa::Amx
            && n >= amx::LEAST_ROWS
            && let Some(tiles) = &mut self.tiles
        {
            let values = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
            // SAFETY: the instruction set was detected.
            unsafe { tiles.round(pool, values, n, columns) };
            self.in_tiles = true;
            return;
        }
        if columns % BLOCK != 0 || isa == Isa::Scalar {
            return;
        }
        let values: &[f32] = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
        let q = Rows::new(&mut bytemuck::cast_slice_mut::<u8, i8>(self.q.as_mut_slice())[..n * columns], columns);
        let scales = Rows::new(&mut self.scales[..n * columns / BLOCK], columns / BLOCK);
        let row = |i: usize| {
            // SAFETY: each row is taken by one task.
            let (q, scales) = unsafe { (q.row(i), scales.row(i)) };
            quantize_row(isa, &values[i * columns..(i + 1) * columns], q, scales);
        };
        if n == 1 {
            return row(0);
        }
        let tile = n.div_ceil(pool.threads()).min(16);
        pool.run(n.div_ceil(tile), &|i| (i * tile..n.min((i + 1) * tile)).for_each(row));
    }
}

fn quantize_row(isa: Isa, values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    match isa {
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => unsafe { quantize_row_avx512(values, q, scales) },
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { quantize_row_avx2(values, q, scales) },
        _ => quantize_row_portable(values, q, scales),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn quantize_row_avx2(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    quantize_row_portable(values, q, scales);
}

/// The same result as [`quantize_row_portable`]'s: the same operations, in another order where order does not matter.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn quantize_row_avx512(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    use std::arch::x86_64::*;

    for ((x, q), scale) in values.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0).zip(scales) {
        for half in 0..2 {
            // SAFETY: 16 elements of a block of 32, each.
            let x = unsafe { _mm512_loadu_ps(x.as_ptr().add(half * 16)) };
            let largest = _mm512_reduce_max_epi32(_mm512_castps_si512(_mm512_abs_ps(x)));
            let d = f32::from_bits(largest as u32) / 127.0;
            let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
            // To nearest even, as every processor does it unless told otherwise; what was not a number becomes 0.
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(x, _mm512_set1_ps(inverse)));
            // SAFETY: as above.
            unsafe { _mm_storeu_si128(q.as_mut_ptr().add(half * 16).cast(), _mm512_cvtepi32_epi8(rounded)) };
            let sum = _mm512_reduce_add_epi32(rounded);
            scale.d[half] = d;
            scale.s[half] = d * sum as f32;
            scale.sum[half] = sum;
        }
    }
}

/// Written so that the compiler can use vectors: the same result on every instruction set.
#[inline(always)]
fn quantize_row_portable(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    for ((x, q), scale) in values.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0).zip(scales) {
        for half in 0..2 {
            let range = half * BLOCK / 2..(half + 1) * BLOCK / 2;
            let (x, q) = (&x[range.clone()], &mut q[range]);
            // The order of non-negative floats is that of their bits, whose maximum is associative.
            let largest = f32::from_bits(x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff)));
            let d = largest / 127.0;
            let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
            let mut sum = 0i32;
            for (q, x) in q.iter_mut().zip(x) {
                // Adding 1.5 · 2²³ leaves the number, rounded to nearest even, in the low bits.
                let rounded = ((x * inverse + 12_582_912.0).to_bits() as i32 & 0x007f_ffff) - 0x0040_0000;
                *q = rounded as i8;
                sum += rounded;
            }
            scale.d[half] = d;
            scale.s[half] = d * sum as f32;
            scale.sum[half] = sum;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisation_is_the_same_on_every_instruction_set_and_near() {
        let pool = Pool::new(2).expect("a pool");
        let values: Vec<f32> = (0..5 * 96).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.01).collect();
        let mut first: Option<Vec<i8>> = None;
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            let mut acts = Acts::new(5, 96, isa).expect("acts");
            acts.set_shape(5, 96);
            acts.values_mut().copy_from_slice(&values);
            acts.quantize(isa, &pool);
            for (block, scale) in acts.scales().iter().enumerate() {
                for half in 0..2 {
                    let range = block * 32 + half * 16..block * 32 + half * 16 + 16;
                    let (q, d) = (&acts.q()[range.clone()], scale.d[half]);
                    for (q, x) in q.iter().zip(&values[range]) {
                        assert!((f32::from(*q) * d - x).abs() <= d * 0.5001);
                    }
                    assert_eq!(q.iter().map(|&q| i32::from(q)).sum::<i32>(), scale.sum[half]);
                }
            }
            let q = acts.q().to_vec();
            assert_eq!(*first.get_or_insert(q.clone()), q);
        }
    }

    #[test]
    fn a_block_of_zeros_is_zero() {
        let mut scales = [BlockScale { d: [1.0; 2], ..Default::default() }];
        let mut q = [1; 32];
        quantize_row(Isa::detect(), &[0.0; 32], &mut q, &mut scales);
        assert_eq!((q, scales[0].d, scales[0].s), ([0; 32], [0.0; 2], [0.0; 2]));
    }
}
