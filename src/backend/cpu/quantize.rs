//! Rows of activations quantised to 8 bits: one form for every weight format in blocks of 32, another for those in
//! [super-blocks](super_blocks).
//!
//! A row is cut into blocks of 32. Each half of a block has a scale `d ≥ max|x| / 127` of its own, and the two differ by a
//! power of two, `d₀ = 2ᵏ · d₁`. So the integer sums of both halves can be joined, the first one shifted by `k`, before they are
//! scaled as one: `x · w = d₁ · (2ᵏ · Σ q₀·w₀ + Σ q₁·w₁)`. One multiplication less a tile and row than with scales that
//! have nothing to do with each other; the price is that the half of smaller numbers may use only half of its 8 bits. The
//! half of greater numbers, on which the error depends, uses all.
//!
//! A vector shifts either way by one instruction if sums of the first half come [`PRE_SHIFT`] to the left: then they go
//! right by `shift = PRE_SHIFT − k ≥ 0`. That is why `k` is `PRE_SHIFT` at most: a half that is smaller still has
//! an eighth of the other's scale.

#![allow(clippy::needless_range_loop)] // the index is that of a lane, in several arrays at once

use super::features::Isa;
pub use super_blocks::{SUMS_UNIT, SUPER_BLOCK, SuperBlock, quantize_super_blocks};

mod super_blocks;

/// Elements of a block.
pub const BLOCK: usize = 32;
/// Elements of half a block.
const HALF: usize = BLOCK / 2;
/// By how much sums of a block's first half are shifted to the left before they are shifted to the right. (Numbers of five
/// bits may be shifted by it within their byte.)
pub const PRE_SHIFT: i32 = 3;
/// The most by which the scale of the first half is smaller, as a power of two: what keeps sums within 32 bits.
const MOST: i32 = 11;
/// What [`Joined::start`] subtracts from each number of the weights.
pub const JOINED_OFFSET: i32 = 16;
/// What [`Halves::start`] subtracts from each number of the weights.
pub const HALVES_OFFSET: i32 = 128;

/// A block's scales, for products that scale each half's sum.
#[derive(Clone, Copy, Default, PartialEq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub struct Halves {
    /// `x ≈ d · q`.
    pub d: [f32; 2],
    /// `−128 · Σ q`: where sums of products begin, of weights to which 128 was added.
    pub start: [i32; 2],
}

impl Halves {
    /// `Σ q` of a half.
    #[inline(always)]
    pub fn sum(&self, half: usize) -> i32 {
        -(self.start[half] >> HALVES_OFFSET.ilog2())
    }
}

/// A block's scale, for products that scale the sum of both halves:
/// `d · (((2³ · Σ q₀·w₀ + start) >> shift) + Σ q₁·w₁)`, for weights to which [`JOINED_OFFSET`] was added.
#[derive(Clone, Copy, Default, PartialEq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub struct Joined {
    /// The second half's scale.
    pub d: f32,
    /// `PRE_SHIFT − k`, from 0 to 14.
    pub shift: i32,
    /// Half of what is shifted out, so that it is rounded, less [`JOINED_OFFSET`] times the sum of all `q`.
    pub start: i32,
    /// The sum of both halves' `d · Σ q`.
    pub s: f32,
    /// Half of what is shifted out: [`Joined::start`] for weights to which nothing was added.
    pub half: i32,
}

impl Joined {
    /// [`Joined::start`] for weights to which `offset`, 0, 8 or 16, was added instead.
    #[inline(always)]
    pub fn start_of(&self, offset: i32) -> i32 {
        match offset {
            0 => self.half,
            JOINED_OFFSET => self.start,
            _ => (self.start + self.half) >> 1,
        }
    }
}

/// Blocks whose scales are computed together, as vectors.
const TOGETHER: usize = 16;

/// Of some blocks: both halves' scales and their inverses, and the shift.
struct Scales {
    d: [[f32; TOGETHER]; 2],
    inverse: [[f32; TOGETHER]; 2],
    shift: [i32; TOGETHER],
}

impl Scales {
    /// From the bits of the largest element of each half, without its sign: their order is that of the floats.
    #[inline(always)]
    fn of(largest: &[[i32; TOGETHER]; 2]) -> Scales {
        let mut scales = Scales { d: [[0.0; TOGETHER]; 2], inverse: [[0.0; TOGETHER]; 2], shift: [0; TOGETHER] };
        for i in 0..TOGETHER {
            let (a, b) = (largest[0][i], largest[1][i]);
            // The greater one over the other, rounded down to a power of two.
            let k = ((a - b).abs() >> 23).min(if a >= b { PRE_SHIFT } else { MOST });
            let d = f32::from_bits(a.max(b) as u32) / 127.0;
            let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
            // 2⁻ᵏ and 2ᵏ for the smaller half, 1 for the other.
            let (ka, kb) = if a >= b { (0, k) } else { (k, 0) };
            let power = |k: i32| f32::from_bits(((127 + k) << 23) as u32);
            (scales.d[0][i], scales.d[1][i]) = (d * power(-ka), d * power(-kb));
            (scales.inverse[0][i], scales.inverse[1][i]) = (inverse * power(ka), inverse * power(kb));
            scales.shift[i] = PRE_SHIFT + ka - kb;
        }
        scales
    }

    /// Both forms, from the sums of each half's numbers.
    #[inline(always)]
    fn forms(&self, sum: &[[i32; TOGETHER]; 2], halves: &mut [Halves], joined: &mut [Joined]) {
        for (i, (halves, joined)) in halves.iter_mut().zip(joined).take(TOGETHER).enumerate() {
            let (d, sum, shift) = ([self.d[0][i], self.d[1][i]], [sum[0][i], sum[1][i]], self.shift[i]);
            let total = (sum[0] << PRE_SHIFT) + (sum[1] << shift);
            let half = (1 << shift) >> 1;
            *halves = Halves { d, start: [-HALVES_OFFSET * sum[0], -HALVES_OFFSET * sum[1]] };
            let s = d[0] * sum[0] as f32 + d[1] * sum[1] as f32;
            *joined = Joined { d: d[1], shift, start: half - JOINED_OFFSET * total, s, half };
        }
    }
}

/// What an instruction set does with half a block; the same in all of them.
trait Unit {
    /// The bits of the largest element, without its sign.
    ///
    /// # Safety
    /// The instruction set.
    unsafe fn largest(x: &[f32; HALF]) -> i32;

    /// Writes the elements, times `inverse`, rounded to nearest even; returns their sum.
    ///
    /// # Safety
    /// The instruction set.
    unsafe fn round(x: &[f32; HALF], inverse: f32, q: &mut [i8; HALF]) -> i32;
}

/// Adding 1.5 · 2²³ leaves a number, rounded to nearest even, in the low bits.
pub(super) const ROUNDER: f32 = 12_582_912.0;

struct Portable;

impl Unit for Portable {
    unsafe fn largest(x: &[f32; HALF]) -> i32 {
        x.iter().fold(0, |most, x| most.max((x.to_bits() & 0x7fff_ffff) as i32))
    }

    unsafe fn round(x: &[f32; HALF], inverse: f32, q: &mut [i8; HALF]) -> i32 {
        let mut sum = 0;
        for (q, x) in q.iter_mut().zip(x) {
            let rounded = ((x * inverse + ROUNDER).to_bits() as i32 & 0x007f_ffff) - 0x0040_0000;
            *q = rounded as i8;
            sum += i32::from(*q);
        }
        sum
    }
}

/// Quantises a row of whole blocks.
///
/// # Safety
/// The instruction set of `U`.
#[inline(always)]
unsafe fn row<U: Unit>(values: &[f32], q: &mut [i8], halves: &mut [Halves], joined: &mut [Joined]) {
    let (values, q) = (values.as_chunks::<HALF>().0, q.as_chunks_mut::<HALF>().0);
    let chunks = values.chunks(2 * TOGETHER).zip(q.chunks_mut(2 * TOGETHER));
    let forms = halves.chunks_mut(TOGETHER).zip(joined.chunks_mut(TOGETHER));
    for ((x, q), (halves, joined)) in chunks.zip(forms) {
        let (mut largest, mut sums) = ([[0; TOGETHER]; 2], [[0; TOGETHER]; 2]);
        for (i, x) in x.iter().enumerate() {
            // SAFETY: as the caller's.
            largest[i % 2][i / 2] = unsafe { U::largest(x) };
        }
        let scales = Scales::of(&largest);
        for (i, (x, q)) in x.iter().zip(q).enumerate() {
            // SAFETY: as the caller's.
            sums[i % 2][i / 2] = unsafe { U::round(x, scales.inverse[i % 2][i / 2], q) };
        }
        scales.forms(&sums, halves, joined);
    }
}

/// Quantises a row of whole blocks: the same in every instruction set.
pub fn quantize_row(isa: Isa, values: &[f32], q: &mut [i8], halves: &mut [Halves], joined: &mut [Joined]) {
    match isa {
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Amx => unsafe { x86::row_avx512(values, q, halves, joined) },
        // SAFETY: the instruction set was detected.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::AvxVnni => unsafe { x86::row_avx2(values, q, halves, joined) },
        // SAFETY: every processor runs it.
        _ => unsafe { row::<Portable>(values, q, halves, joined) },
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{HALF, Halves, Joined, ROUNDER, SuperBlock, Unit, row, super_blocks};

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
    unsafe fn largest(four: __m128i) -> i32 {
        // SAFETY: who comes here has AVX2.
        unsafe {
            let two = _mm_max_epu32(four, _mm_shuffle_epi32::<0b01_00_11_10>(four));
            _mm_cvtsi128_si32(_mm_max_epu32(two, _mm_shuffle_epi32::<0b10_11_00_01>(two)))
        }
    }

    struct Avx512;

    impl Unit for Avx512 {
        #[inline(always)]
        unsafe fn largest(x: &[f32; HALF]) -> i32 {
            // SAFETY: as demanded; 16 elements are read.
            unsafe {
                let size = _mm512_and_si512(_mm512_loadu_si512(x.as_ptr().cast()), _mm512_set1_epi32(0x7fff_ffff));
                let size = _mm256_max_epu32(_mm512_castsi512_si256(size), _mm512_extracti64x4_epi64::<1>(size));
                largest(_mm_max_epu32(_mm256_castsi256_si128(size), _mm256_extracti128_si256::<1>(size)))
            }
        }

        #[inline(always)]
        unsafe fn round(x: &[f32; HALF], inverse: f32, q: &mut [i8; HALF]) -> i32 {
            // SAFETY: as demanded; 16 elements are read and written.
            unsafe {
                let x = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_set1_ps(inverse));
                let rounded = _mm512_castps_si512(_mm512_add_ps(x, _mm512_set1_ps(ROUNDER)));
                let number = _mm512_and_si512(rounded, _mm512_set1_epi32(0x007f_ffff));
                let numbers = _mm512_cvtepi32_epi8(_mm512_sub_epi32(number, _mm512_set1_epi32(0x0040_0000)));
                _mm_storeu_si128(q.as_mut_ptr().cast(), numbers);
                sum(numbers)
            }
        }
    }

    struct Avx2;

    impl Unit for Avx2 {
        #[inline(always)]
        unsafe fn largest(x: &[f32; HALF]) -> i32 {
            // SAFETY: as demanded; 16 elements are read.
            unsafe {
                let mask = _mm256_set1_epi32(0x7fff_ffff);
                let size = _mm256_max_epu32(
                    _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().cast()), mask),
                    _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().add(8).cast()), mask),
                );
                largest(_mm_max_epu32(_mm256_castsi256_si128(size), _mm256_extracti128_si256::<1>(size)))
            }
        }

        #[inline(always)]
        unsafe fn round(x: &[f32; HALF], inverse: f32, q: &mut [i8; HALF]) -> i32 {
            // SAFETY: as demanded; 16 elements are read and written.
            unsafe {
                let mut numbers = [_mm256_setzero_si256(); 2];
                for (i, numbers) in numbers.iter_mut().enumerate() {
                    let x = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(8 * i)), _mm256_set1_ps(inverse));
                    let rounded = _mm256_castps_si256(_mm256_add_ps(x, _mm256_set1_ps(ROUNDER)));
                    let number = _mm256_and_si256(rounded, _mm256_set1_epi32(0x007f_ffff));
                    *numbers = _mm256_sub_epi32(number, _mm256_set1_epi32(0x0040_0000));
                }
                // Words of the first half, of the second, of the first, of the second: in order again.
                let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(numbers[0], numbers[1]));
                let numbers = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
                _mm_storeu_si128(q.as_mut_ptr().cast(), numbers);
                sum(numbers)
            }
        }
    }

    /// # Safety
    /// The instruction set.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub unsafe fn row_avx512(values: &[f32], q: &mut [i8], halves: &mut [Halves], joined: &mut [Joined]) {
        // SAFETY: the instruction set is the function's.
        unsafe { row::<Avx512>(values, q, halves, joined) }
    }

    /// # Safety
    /// The instruction set.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn row_avx2(values: &[f32], q: &mut [i8], halves: &mut [Halves], joined: &mut [Joined]) {
        // SAFETY: the instruction set is the function's.
        unsafe { row::<Avx2>(values, q, halves, joined) }
    }

    /// # Safety
    /// The instruction set.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub unsafe fn super_blocks_avx512(values: &[f32], blocks: &mut [SuperBlock]) {
        // SAFETY: the instruction set is the function's.
        unsafe { super_blocks::row::<Avx512>(values, blocks) }
    }

    /// # Safety
    /// The instruction set.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn super_blocks_avx2(values: &[f32], blocks: &mut [SuperBlock]) {
        // SAFETY: the instruction set is the function's.
        unsafe { super_blocks::row::<Avx2>(values, blocks) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Halves whose largest elements are as far from each other as may be, either way.
    fn values() -> Vec<f32> {
        let size = |block: usize, half: usize| match block % 7 {
            0 => 1.0,
            1 => [1.0, 1.9][half],
            2 => [2.1, 1.0][half],
            3 => [1.0, 1e-4][half],
            4 => [1e-6, 1.0][half],
            5 => [0.0, 3.0][half],
            _ => [3.0, 0.0][half],
        };
        (0..70 * BLOCK).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.01 * size(i / BLOCK, i % BLOCK / HALF)).collect()
    }

    #[test]
    fn quantisation_is_the_same_on_every_instruction_set_and_near() {
        let values = values();
        let mut first: Option<(Vec<i8>, Vec<Halves>, Vec<Joined>)> = None;
        for isa in Isa::available() {
            let blocks = values.len() / BLOCK;
            let mut q = vec![0; values.len()];
            let (mut halves, mut joined) = (vec![Halves::default(); blocks], vec![Joined::default(); blocks]);
            quantize_row(isa, &values, &mut q, &mut halves, &mut joined);
            for (i, (h, j)) in halves.iter().zip(&joined).enumerate() {
                assert!((0..=PRE_SHIFT + MOST).contains(&j.shift), "{j:?}");
                let ratio = 2f32.powi(PRE_SHIFT - j.shift);
                assert!((j.d, h.d[0]) == (h.d[1], h.d[1] * ratio), "{h:?} {j:?}");
                let mut sums = [0, 0];
                for half in 0..2 {
                    let range = i * BLOCK + half * HALF..i * BLOCK + (half + 1) * HALF;
                    let largest = values[range.clone()].iter().fold(0f32, |m, x| m.max(x.abs()));
                    let other =
                        values[i * BLOCK + (1 - half) * HALF..][..HALF].iter().fold(0f32, |m, x| m.max(x.abs()));
                    // Twice the least scale that will do, or the least that the other half's admits.
                    let admitted = other / 127.0 / 2f32.powi(if half == 0 { MOST } else { PRE_SHIFT });
                    assert!(h.d[half] < (2.0001 * largest / 127.0).max(1.0001 * admitted) || largest + other == 0.0);
                    for (q, x) in q[range.clone()].iter().zip(&values[range]) {
                        assert!((f32::from(*q) * h.d[half] - x).abs() <= h.d[half] * 0.5001);
                        sums[half] += i32::from(*q);
                    }
                    assert_eq!(h.sum(half), sums[half]);
                }
                let total = (sums[0] << PRE_SHIFT) + (sums[1] << j.shift);
                let half = if j.shift > 0 { 1 << (j.shift - 1) } else { 0 };
                assert_eq!([16, 8, 0].map(|offset| j.start_of(offset)), [16, 8, 0].map(|offset| half - offset * total));
                assert_eq!(j.s, h.d[0] * sums[0] as f32 + h.d[1] * sums[1] as f32);
            }
            let all = (q, halves, joined);
            assert!(*first.get_or_insert_with(|| all.clone()) == all, "{}", isa.name());
        }
    }

    #[test]
    fn a_block_of_zeros_is_zero() {
        let mut halves = [Halves { d: [1.0; 2], start: [1; 2] }];
        let mut joined = [Joined { d: 1.0, shift: 0, start: 1, s: 1.0, half: 1 }];
        let mut q = [1; 32];
        quantize_row(Isa::detect(), &[0.0; 32], &mut q, &mut halves, &mut joined);
        assert_eq!((q, halves[0], joined[0].d, joined[0].s), ([0; 32], Halves::default(), 0.0, 0.0));
        assert_eq!(joined[0].start_of(0), joined[0].start);
    }
}
