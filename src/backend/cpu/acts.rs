//! Activations: float32 rows, and the same rows quantised to 8 bits for the integer kernels.
//!
//! One quantisation serves every weight format: blocks of 32, each half with a float32 scale `d = max|x| / 127`, so that
//! a product is `d · Σ q·w` with integer sums, and the sum of `q` over each half, by which formats with an offset or a
//! minimum are corrected. A scale for 16 elements and not for 32 costs one more multiplication a tile and row, and
//! rounds an eighth finer.
//!
//! Where products of bf16 are to be had, many rows are rounded to that besides, for weights in F16 and BF16. Each form is
//! made once, when the first product asks for it.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::amx::rows::{LEAST_ROWS, Tiles};
use super::features::Isa;
use super::floats::round_row;
use super::memory::AlignedBuf;
use super::pool::Pool;
use super::rows::Rows;
use crate::error::{Error, Result};

/// Elements of a block of quantised activations.
pub const BLOCK: usize = 32;
/// Rows from which on weights in F16 and BF16 are multiplied in bf16; fewer are bound by memory, which float32 keeps up with.
pub const BF16_ROWS: usize = 8;
/// A cache line.
const SPARE: usize = 64;

/// Elements from one row of bf16 to the next: whole blocks, and no power of two, or eight rows would meet in one set of the
/// first cache.
fn bf16_stride(columns: usize) -> usize {
    let width = columns.next_multiple_of(BLOCK);
    if width.is_multiple_of(512) { width + SPARE / 2 } else { width }
}

/// Rows of activations.
pub struct Acts {
    n: usize,
    columns: usize,
    values: AlignedBuf,
    q: AlignedBuf,
    /// One for each block.
    scales: Vec<BlockScale>,
    /// The rows in bf16, [`bf16_stride`] apart: none where there are no products of them.
    bf16: AlignedBuf,
    /// The forms of the values that were made since these were written.
    quantized: bool,
    rounded: bool,
    /// The same in tiles, where AMX multiplies them, and room for those that are made of them.
    tiles: Option<[Tiles; 2]>,
    tiled: bool,
    /// The rows are in tiles alone.
    only_tiled: bool,
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
    /// `−128 · Σ q`: where sums of products begin, of weights to which 128 was added.
    pub start: [i32; 2],
}

impl Acts {
    /// Room for `rows` rows of up to `columns` elements, as the products of `isa` want them.
    pub fn new(rows: usize, columns: usize, isa: Isa) -> Result<Acts> {
        let width = columns.next_multiple_of(BLOCK);
        let on_tiles = isa == Isa::Amx && rows >= LEAST_ROWS;
        let on_vectors = isa == Isa::Avx512Vnni && rows >= BF16_ROWS && Isa::has_bf16();
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
            bf16: AlignedBuf::zeroed(if on_vectors { 2 * elements + rows * SPARE } else { 0 })?,
            quantized: false,
            rounded: false,
            tiles: match on_tiles {
                true => Some([Tiles::new(rows, columns)?, Tiles::new(rows, columns)?]),
                false => None,
            },
            tiled: false,
            only_tiled: false,
        })
    }

    /// Uses the room for `n` rows of `columns` elements; what they hold is then undefined.
    pub fn set_shape(&mut self, n: usize, columns: usize) {
        assert!(n * columns.next_multiple_of(BLOCK) <= self.q.as_slice().len(), "{n} rows of {columns} do not fit");
        self.n = n;
        self.columns = columns;
        self.forget();
    }

    /// No form of the values has been made.
    fn forget(&mut self) {
        (self.quantized, self.rounded, self.tiled, self.only_tiled) = (false, false, false, false);
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
        self.forget();
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

    /// The rows in tiles of bf16, if [`Acts::tile`] has made them.
    pub(super) fn tiles(&self) -> Option<&Tiles> {
        self.tiles.as_ref().map(|[tiles, _]| tiles).filter(|_| self.tiled)
    }

    /// Rounds all rows to bf16 in tiles, unless that is done, where there are enough of them to be multiplied by AMX.
    pub(super) fn tile(&mut self, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
        if self.tiled || n < LEAST_ROWS {
            return;
        }
        if let Some([tiles, _]) = &mut self.tiles {
            let values = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
            // SAFETY: there are tiles only where AMX was detected.
            unsafe { tiles.round(pool, values, n, columns) };
            self.tiled = true;
        }
    }

    /// Uses the room for `n` rows of `columns` elements that are written in tiles alone, a row of tiles for each 16 rows; `None`
    /// where there is none, or too few rows. All of it has to be written, zeros where there are no rows.
    pub(super) fn written_in_tiles(&mut self, n: usize, columns: usize) -> Option<Rows<'_, u8>> {
        self.set_shape(n, columns);
        let [tiles, _] = self.tiles.as_mut().filter(|_| n >= LEAST_ROWS)?;
        (self.tiled, self.only_tiled) = (true, true);
        Some(tiles.rows_of(n, columns))
    }

    /// Lets `multiply` make rows of `columns` elements, whole tiles of them, of those in tiles: of the tiles that there are, and
    /// in rows of tiles for 16 rows each. False if the rows are not in tiles.
    pub(super) fn multiplied(&mut self, columns: usize, multiply: impl FnOnce(&Tiles, &Rows<u8>)) -> bool {
        let n = self.n;
        let Some([tiles, out]) = self.tiles.as_mut().filter(|_| self.tiled) else { return false };
        multiply(tiles, &out.rows_of(n, columns));
        std::mem::swap(tiles, out);
        self.set_shape(n, columns);
        (self.tiled, self.only_tiled) = (true, true);
        true
    }

    /// Makes the values of rows that are in tiles alone, for a product that takes others: they are rounded to bf16 then.
    pub(super) fn value(&mut self, pool: &Pool) {
        if let Some([tiles, _]) = self.tiles.as_ref().filter(|_| self.only_tiled) {
            let columns = self.columns;
            let values = &mut bytemuck::cast_slice_mut(self.values.as_mut_slice())[..self.n * columns];
            let rows = Rows::new(values, columns);
            // SAFETY: each row is taken by one task.
            each_row(pool, self.n, &|i| tiles.row(i, unsafe { rows.row(i) }));
            self.only_tiled = false;
        }
    }

    /// The rows in bf16 and the elements from one to the next, if [`Acts::round`] has made them.
    pub(super) fn bf16(&self) -> Option<(&[u16], usize)> {
        self.rounded.then(|| (bytemuck::cast_slice(self.bf16.as_slice()), bf16_stride(self.columns)))
    }

    /// Quantises all rows, unless that is done. Rows that are no whole number of blocks stay float32: only float formats have
    /// such.
    pub fn quantize(&mut self, isa: Isa, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
        if self.quantized || columns % BLOCK != 0 || isa == Isa::Scalar {
            return;
        }
        self.quantized = true;
        let values: &[f32] = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
        let q = Rows::new(&mut bytemuck::cast_slice_mut::<u8, i8>(self.q.as_mut_slice())[..n * columns], columns);
        let scales = Rows::new(&mut self.scales[..n * columns / BLOCK], columns / BLOCK);
        each_row(pool, n, &|i| {
            // SAFETY: each row is taken by one task.
            let (q, scales) = unsafe { (q.row(i), scales.row(i)) };
            quantize_row(isa, &values[i * columns..(i + 1) * columns], q, scales);
        });
    }

    /// Rounds all rows to bf16, filled up with zeros to whole blocks, unless that is done: if `isa` admits products of bf16,
    /// the processor has them, and there are at least [`BF16_ROWS`] rows.
    pub fn round(&mut self, isa: Isa, pool: &Pool) {
        let (n, columns, stride) = (self.n, self.columns, bf16_stride(self.columns));
        if self.rounded || n < BF16_ROWS || isa != Isa::Avx512Vnni || !Isa::has_bf16() {
            return;
        }
        self.rounded = true;
        let values: &[f32] = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
        let bf16 = Rows::new(&mut bytemuck::cast_slice_mut::<u8, u16>(self.bf16.as_mut_slice())[..n * stride], stride);
        each_row(pool, n, &|i| {
            // SAFETY: each row is taken by one task.
            let (row, rest) = unsafe { bf16.row(i) }.split_at_mut(columns);
            // SAFETY: the processor has bf16.
            unsafe { round_row(&values[i * columns..(i + 1) * columns], row) };
            rest.fill(0);
        });
    }
}

/// Runs `row(i)` for `n` rows; a single one on the calling thread.
fn each_row(pool: &Pool, n: usize, row: &(dyn Fn(usize) + Sync)) {
    if n == 1 {
        return row(0);
    }
    let tile = n.div_ceil(pool.threads()).clamp(1, 16);
    pool.run(n.div_ceil(tile), &|i| (i * tile..n.min((i + 1) * tile)).for_each(row));
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
mod halves {
    //! Half a block of 16 elements, as the portable code has it.

    use std::arch::x86_64::*;

    /// Quantises half a block.
    ///
    /// # Safety
    /// The instruction set of the function's name.
    pub type Quantize = unsafe fn(x: &[f32; 16], q: &mut [i8; 16]) -> (f32, i32);

    /// The scale, and its inverse.
    #[inline(always)]
    fn scale(largest: u32) -> (f32, f32) {
        let d = f32::from_bits(largest) / 127.0;
        (d, if d > 0.0 { 1.0 / d } else { 0.0 })
    }

    /// The sum of 16 numbers.
    #[inline(always)]
    unsafe fn sum(q: __m128i) -> i32 {
        // SAFETY: every x86-64 has SSE2.
        unsafe {
            let sums = _mm_sad_epu8(_mm_xor_si128(q, _mm_set1_epi8(-128)), _mm_setzero_si128());
            _mm_cvtsi128_si32(_mm_add_epi32(sums, _mm_unpackhi_epi64(sums, sums))) - 16 * 128
        }
    }

    /// The largest of four.
    #[inline(always)]
    unsafe fn largest(four: __m128i) -> u32 {
        // SAFETY: who comes here has AVX2.
        unsafe {
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two))) as u32
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub unsafe fn avx512(x: &[f32; 16], q: &mut [i8; 16]) -> (f32, i32) {
        // SAFETY: 16 elements are read and written.
        unsafe {
            let x = _mm512_loadu_ps(x.as_ptr());
            let size = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fff_ffff));
            let size = _mm256_max_epu32(_mm512_castsi512_si256(size), _mm512_extracti64x4_epi64::<1>(size));
            let size = _mm_max_epu32(_mm256_castsi256_si128(size), _mm256_extracti128_si256::<1>(size));
            let (d, inverse) = scale(largest(size));
            let rounded = _mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(inverse)), _mm512_set1_ps(12_582_912.0));
            let number = _mm512_and_si512(_mm512_castps_si512(rounded), _mm512_set1_epi32(0x007f_ffff));
            let numbers = _mm512_cvtepi32_epi8(_mm512_sub_epi32(number, _mm512_set1_epi32(0x0040_0000)));
            _mm_storeu_si128(q.as_mut_ptr().cast(), numbers);
            (d, sum(numbers))
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(x: &[f32; 16], q: &mut [i8; 16]) -> (f32, i32) {
        // SAFETY: 16 elements are read and written.
        unsafe {
            let x = [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))];
            let size = x.map(|x| _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7fff_ffff)));
            let size = _mm256_max_epu32(size[0], size[1]);
            let size = _mm_max_epu32(_mm256_castsi256_si128(size), _mm256_extracti128_si256::<1>(size));
            let (d, inverse) = scale(largest(size));
            let numbers = x.map(|x| {
                let rounded = _mm256_add_ps(_mm256_mul_ps(x, _mm256_set1_ps(inverse)), _mm256_set1_ps(12_582_912.0));
                let number = _mm256_and_si256(_mm256_castps_si256(rounded), _mm256_set1_epi32(0x007f_ffff));
                _mm256_sub_epi32(number, _mm256_set1_epi32(0x0040_0000))
            });
            // Words of the first half, of the second, of the first, of the second: in order again.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(numbers[0], numbers[1]));
            let numbers = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(q.as_mut_ptr().cast(), numbers);
            (d, sum(numbers))
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn quantize_row_avx2(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    // SAFETY: the instruction set is the function's.
    unsafe { quantize_row_halves(values, q, scales, halves::avx2) }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn quantize_row_avx512(values: &[f32], q: &mut [i8], scales: &mut [BlockScale]) {
    // SAFETY: the instruction set is the function's.
    unsafe { quantize_row_halves(values, q, scales, halves::avx512) }
}

/// # Safety
/// The instruction set of `half`.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
unsafe fn quantize_row_halves(values: &[f32], q: &mut [i8], scales: &mut [BlockScale], quantize: halves::Quantize) {
    let halves = values.as_chunks::<16>().0.iter().zip(q.as_chunks_mut::<16>().0);
    for (i, (x, q)) in halves.enumerate() {
        let (scale, half) = (&mut scales[i / 2], i % 2);
        // SAFETY: as the caller's.
        let (d, sum) = unsafe { quantize(x, q) };
        (scale.d[half], scale.s[half]) = (d, d * sum as f32);
        (scale.sum[half], scale.start[half]) = (sum, -128 * sum);
    }
}

/// The same result as that of every instruction set.
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
            scale.start[half] = -128 * sum;
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
