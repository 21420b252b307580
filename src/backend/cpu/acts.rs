//! Activations: float32 rows, and the same rows quantised to 8 bits for the integer kernels.
//!
//! One quantisation serves every weight format: blocks of 32 with a float32 scale `d = max|x| / 127`, so that a
//! product is `d · Σ q·w` with integer sums, and the sums of `q` over each half block, by which formats with an offset
//! or a minimum are corrected.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

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
}

/// What goes with a block of quantised activations.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct BlockScale {
    /// `x ≈ d · q`.
    pub d: f32,
    /// `d · Σ q`.
    pub s: f32,
    /// `Σ q` over each half of the block.
    pub halves: [i32; 2],
}

impl Acts {
    /// Room for `rows` rows of up to `columns` elements.
    pub fn new(rows: usize, columns: usize) -> Result<Acts> {
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
        })
    }

    /// Uses the room for `n` rows of `columns` elements; what they hold is then undefined.
    pub fn set_shape(&mut self, n: usize, columns: usize) {
        assert!(n * columns.next_multiple_of(BLOCK) <= self.q.as_slice().len(), "{n} rows of {columns} do not fit");
        self.n = n;
        self.columns = columns;
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

    /// Quantises all rows. Rows that are no whole number of blocks stay float32: only float formats have such.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
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
        Isa::Avx512Vnni => unsafe { quantize_row_avx512(values, q, scales) },
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

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn quantize_row_avx512(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    quantize_row_portable(values, q, scales);
}

/// Written so that the compiler can use vectors: the same result on every instruction set.
#[inline(always)]
fn quantize_row_portable(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    for ((x, q), scale) in values.as_chunks::<BLOCK>().0.iter().zip(q.as_chunks_mut::<BLOCK>().0).zip(scales) {
        // The order of non-negative floats is that of their bits, whose maximum is associative.
        let largest = f32::from_bits(x.iter().fold(0, |m, x| m.max(x.to_bits() & 0x7fff_ffff)));
        let d = largest / 127.0;
        let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
        let mut halves = [0i32; 2];
        for half in 0..2 {
            let mut sum = 0i32;
            for i in half * 16..half * 16 + 16 {
                // Adding 1.5 · 2²³ leaves the number, rounded to nearest even, in the low bits.
                let rounded = ((x[i] * inverse + 12_582_912.0).to_bits() as i32 & 0x007f_ffff) - 0x0040_0000;
                q[i] = rounded as i8;
                sum += rounded;
            }
            halves[half] = sum;
        }
        *scale = BlockScale { d, s: d * (halves[0] + halves[1]) as f32, halves };
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
            let mut acts = Acts::new(5, 96).expect("acts");
            acts.set_shape(5, 96);
            acts.values_mut().copy_from_slice(&values);
            acts.quantize(isa, &pool);
            for (block, scale) in acts.scales().iter().enumerate() {
                let q = &acts.q()[block * 32..(block + 1) * 32];
                let x = &values[block * 32..(block + 1) * 32];
                for (q, x) in q.iter().zip(x) {
                    assert!((f32::from(*q) * scale.d - x).abs() <= scale.d * 0.5001);
                }
                let sums = [0, 16].map(|from| q[from..from + 16].iter().map(|&q| i32::from(q)).sum::<i32>());
                assert_eq!(sums, scale.halves);
            }
            let q = acts.q().to_vec();
            assert_eq!(*first.get_or_insert(q.clone()), q);
        }
    }

    #[test]
    fn a_block_of_zeros_is_zero() {
        let mut scales = [BlockScale { d: 1.0, ..Default::default() }];
        let mut q = [1; 32];
        quantize_row(Isa::detect(), &[0.0; 32], &mut q, &mut scales);
        assert_eq!((q, scales[0].d, scales[0].s), ([0; 32], 0.0, 0.0));
    }
}
