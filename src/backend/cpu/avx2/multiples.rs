//! Rows of activations quantised to 8 bits for AVX2: scales are whole multiples of one unit for the row.
//!
//! AVX2 multiplies bytes and adds two products in each 16-bit lane (`vpmaddubsw`), then two lanes, each times a number of its own, in
//! a 32-bit one (`vpmaddwd`). So the columns of a block are two *sets* of 16, those of the even lanes (0, 1, 4, 5, 8, …) and
//! those of the odd ones (2, 3, 6, 7, …), each with a scale of its own, and the instruction that adds them
//! scales them as well: `x · w = unit · (m₀ · Σ q₀·w₀ + m₁ · Σ q₁·w₁)`. No number is shifted or rounded on the way, and
//! only a row's sum is multiplied by the unit.
//!
//! Sums in 16 bits may wrap around on the way: what they come to fits if numbers begin at −16 or, of half a block, at −32. For that
//! they begin with [`Multiples::start`].

use super::super::features::Isa;
use super::super::quantize::{BLOCK, ROUNDER};

/// The greatest multiple: the sum of a block, `2 · 16 · 16 · 127` times this, fits 32 bits.
const MOST: i32 = 32767;
/// Blocks whose scales are computed together, as vectors.
const TOGETHER: usize = 16;
/// A row without greater elements is zero: the inverse of its unit would not be finite.
const LEAST: f32 = 1e-30;

/// A block's scales, `x ≈ unit · m · q`, and the sums of its numbers.
#[derive(Clone, Copy, Default, PartialEq, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C)]
pub struct Multiples {
    /// The scale of each set, in units of the row.
    pub m: [i16; 2],
    /// `−16 · Σ q` of each set: where sums begin, of numbers that are 16 too great.
    pub start: [i16; 2],
    /// `−32 · Σ q` of each half's part of each set.
    pub half_start: [[i16; 2]; 2],
    /// `Σ m · q`: of each half, and of the block.
    pub half_sum: [f32; 2],
    pub sum: f32,
}

/// What an instruction set does with a block; the same in all of them.
trait Unit {
    /// The largest element of each set, without its sign: as bits, whose order is that of the floats.
    ///
    /// # Safety
    /// The instruction set.
    unsafe fn largest(x: &[f32; BLOCK]) -> [i32; 2];

    /// Writes the elements, times the inverse of their set's scale, rounded to nearest even; returns the scales and sums.
    ///
    /// # Safety
    /// The instruction set.
    unsafe fn round(x: &[f32; BLOCK], inverse: [f32; 2], m: [i16; 2], q: &mut [i8; BLOCK]) -> Multiples;
}

struct Portable;

impl Unit for Portable {
    unsafe fn largest(x: &[f32; BLOCK]) -> [i32; 2] {
        let mut largest = [0; 2];
        for (i, x) in x.iter().enumerate() {
            let set = i / 2 % 2;
            largest[set] = largest[set].max((x.to_bits() & 0x7fff_ffff) as i32);
        }
        largest
    }

    unsafe fn round(x: &[f32; BLOCK], inverse: [f32; 2], m: [i16; 2], q: &mut [i8; BLOCK]) -> Multiples {
        let mut sums = [[0i16; 2]; 2];
        for (i, (q, x)) in q.iter_mut().zip(x).enumerate() {
            let rounded = ((x * inverse[i / 2 % 2] + ROUNDER).to_bits() as i32 & 0x007f_ffff) - 0x0040_0000;
            *q = rounded as i8;
            sums[i / (BLOCK / 2)][i / 2 % 2] += i16::from(*q);
        }
        let product = |set: usize, sum: i16| i32::from(m[set]) * i32::from(sum);
        let sum = sums.map(|sum| product(0, sum[0]) + product(1, sum[1]));
        Multiples {
            m,
            start: [0, 1].map(|set| -16 * (sums[0][set] + sums[1][set])),
            half_start: sums.map(|sums| sums.map(|sum| -32 * sum)),
            half_sum: sum.map(|sum| sum as f32),
            sum: (sum[0] + sum[1]) as f32,
        }
    }
}

/// Quantises a row of whole blocks; returns its unit.
///
/// # Safety
/// The instruction set of `U`.
#[inline(always)]
unsafe fn row<U: Unit>(values: &[f32], q: &mut [i8], multiples: &mut [Multiples]) -> f32 {
    let (values, q) = (values.as_chunks::<BLOCK>().0, q.as_chunks_mut::<BLOCK>().0);
    let mut most = 0;
    for (x, multiples) in values.iter().zip(&mut *multiples) {
        // SAFETY: as the caller's.
        let largest = unsafe { U::largest(x) };
        most = most.max(largest[0]).max(largest[1]);
        // (Kept where sums will be.)
        multiples.half_sum = largest.map(|bits| f32::from_bits(bits as u32));
    }
    let most = f32::from_bits(most as u32);
    if most < LEAST {
        q.fill([0; BLOCK]);
        multiples.fill(Multiples::default());
        return 0.0;
    }
    let unit = most / (127 * MOST) as f32;
    let inverse_unit = MOST as f32 / most;
    let chunks = values.chunks(TOGETHER).zip(q.chunks_mut(TOGETHER)).zip(multiples.chunks_mut(TOGETHER));
    for ((x, q), multiples) in chunks {
        let (mut m, mut inverse) = ([[0; TOGETHER]; 2], [[0.0; TOGETHER]; 2]);
        for set in 0..2 {
            let mut largest = [0.0; TOGETHER];
            largest.iter_mut().zip(&*multiples).for_each(|(largest, m)| *largest = m.half_sum[set]);
            for i in 0..TOGETHER {
                // Rounded up, so that the largest element has room.
                m[set][i] = ((largest[i] * inverse_unit).ceil() as i32).min(MOST);
                let scale = m[set][i] as f32 * unit;
                inverse[set][i] = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            }
        }
        for (i, ((x, q), multiples)) in x.iter().zip(q).zip(multiples).enumerate() {
            let m = [m[0][i] as i16, m[1][i] as i16];
            // SAFETY: as the caller's.
            *multiples = unsafe { U::round(x, [inverse[0][i], inverse[1][i]], m, q) };
        }
    }
    unit
}

/// Quantises a row of whole blocks: the same in every instruction set. Returns its unit.
pub fn quantize_row(isa: Isa, values: &[f32], q: &mut [i8], multiples: &mut [Multiples]) -> f32 {
    match isa {
        // SAFETY: every processor runs it.
        Isa::Scalar => unsafe { row::<Portable>(values, q, multiples) },
        // SAFETY: all others have AVX2, and were detected.
        #[cfg(target_arch = "x86_64")]
        _ => unsafe { x86::row_avx2(values, q, multiples) },
        // SAFETY: as the first.
        #[cfg(not(target_arch = "x86_64"))]
        _ => unsafe { row::<Portable>(values, q, multiples) },
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{BLOCK, Multiples, ROUNDER, Unit, row};

    struct Avx2;

    impl Unit for Avx2 {
        #[inline(always)]
        unsafe fn largest(x: &[f32; BLOCK]) -> [i32; 2] {
            // SAFETY: as demanded; 32 elements are read.
            unsafe {
                let mask = _mm256_set1_epi32(0x7fff_ffff);
                let size = |i: usize| _mm256_and_si256(_mm256_loadu_si256(x.as_ptr().add(8 * i).cast()), mask);
                let most = _mm256_max_epu32(_mm256_max_epu32(size(0), size(1)), _mm256_max_epu32(size(2), size(3)));
                let most = _mm_max_epu32(_mm256_castsi256_si128(most), _mm256_extracti128_si256::<1>(most));
                // Lanes 0 and 1 are of the first set, 2 and 3 of the second.
                let most = _mm_max_epu32(most, _mm_shuffle_epi32::<0b10_11_00_01>(most));
                [_mm_cvtsi128_si32(most), _mm_extract_epi32::<2>(most)]
            }
        }

        #[inline(always)]
        unsafe fn round(x: &[f32; BLOCK], inverse: [f32; 2], m: [i16; 2], q: &mut [i8; BLOCK]) -> Multiples {
            // SAFETY: as demanded; 32 elements are read and written.
            unsafe {
                let inverse = _mm256_castpd_ps(_mm256_set1_pd(f64::from_bits(
                    u64::from(inverse[0].to_bits()) | u64::from(inverse[1].to_bits()) << 32,
                )));
                // In the even lanes that of the first set, in the odd ones that of the second; two of each.
                let inverse = _mm256_permute_ps::<0b01_01_00_00>(inverse);
                let number = |i: usize| {
                    let x = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(8 * i)), inverse);
                    let rounded = _mm256_castps_si256(_mm256_add_ps(x, _mm256_set1_ps(ROUNDER)));
                    let number = _mm256_and_si256(rounded, _mm256_set1_epi32(0x007f_ffff));
                    _mm256_sub_epi32(number, _mm256_set1_epi32(0x0040_0000))
                };
                let words = _mm256_packs_epi16(
                    _mm256_packs_epi32(number(0), number(1)),
                    _mm256_packs_epi32(number(2), number(3)),
                );
                // Words of the first half of each vector, then those of the second: in order again.
                let numbers = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
                _mm256_storeu_si256(q.as_mut_ptr().cast(), numbers);
                // Sums of two, of each set in turn; then of four and of eight.
                let sums = _mm256_maddubs_epi16(_mm256_set1_epi8(1), numbers);
                let sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32::<0b01_00_11_10>(sums));
                let sums = _mm256_add_epi16(sums, _mm256_shuffle_epi32::<0b10_11_00_01>(sums));
                let (first, second) = (_mm256_castsi256_si128(sums), _mm256_extracti128_si256::<1>(sums));
                let (each, both) = (_mm_unpacklo_epi32(first, second), _mm_add_epi16(first, second));
                let negative = |sums: __m128i| _mm_sub_epi16(_mm_setzero_si128(), sums);
                let half_sum = _mm_madd_epi16(each, _mm_set1_epi32(bytemuck::cast(m)));
                let sum = _mm_add_epi32(half_sum, _mm_shuffle_epi32::<0b01>(half_sum));
                let low = |vector: __m128i| _mm_cvtsi128_si64(vector);
                Multiples {
                    m,
                    start: bytemuck::cast(low(_mm_slli_epi16::<4>(negative(both))) as i32),
                    half_start: bytemuck::cast(low(_mm_slli_epi16::<5>(negative(each)))),
                    half_sum: bytemuck::cast(low(_mm_castps_si128(_mm_cvtepi32_ps(half_sum)))),
                    sum: _mm_cvtss_f32(_mm_cvtepi32_ps(sum)),
                }
            }
        }
    }

    /// # Safety
    /// The instruction set.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn row_avx2(values: &[f32], q: &mut [i8], multiples: &mut [Multiples]) -> f32 {
        // SAFETY: the instruction set is the function's.
        unsafe { row::<Avx2>(values, q, multiples) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sets whose largest elements are very different, some of them zero.
    fn values() -> Vec<f32> {
        let size = |block: usize, set: usize| match block % 6 {
            0 => 1.0,
            1 => [1.0, 1.9][set],
            2 => [2.1, 1e-4][set],
            3 => [1e-9, 1.0][set],
            4 => [0.0, 3.0][set],
            _ => [3.0, 0.0][set],
        };
        (0..70 * BLOCK).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.01 * size(i / BLOCK, i / 2 % 2)).collect()
    }

    #[test]
    fn quantisation_is_the_same_on_every_instruction_set_and_near() {
        let values = values();
        let mut first: Option<(Vec<i8>, Vec<Multiples>, f32)> = None;
        for isa in Isa::available() {
            let (mut q, mut multiples) = (vec![0; values.len()], vec![Multiples::default(); values.len() / BLOCK]);
            let unit = quantize_row(isa, &values, &mut q, &mut multiples);
            for (i, block) in multiples.iter().enumerate() {
                let mut sums = [[0i32; 2]; 2];
                for (set, start) in block.start.into_iter().enumerate() {
                    let columns = (i * BLOCK..(i + 1) * BLOCK).filter(|column| column / 2 % 2 == set);
                    let largest = columns.clone().fold(0f32, |most, column| most.max(values[column].abs()));
                    let m = i32::from(block.m[set]);
                    let scale = unit * m as f32;
                    assert!((0..=MOST).contains(&m) && (m == 0) == (largest == 0.0), "{block:?}");
                    // The least multiple that will do.
                    assert!(scale * 127.0 < largest * 1.0001 + unit * 127.0);
                    for column in columns {
                        assert!((f32::from(q[column]) * scale - values[column]).abs() <= scale * 0.5001);
                        sums[column % BLOCK / 16][set] += i32::from(q[column]);
                    }
                    assert_eq!(i32::from(start), -16 * (sums[0][set] + sums[1][set]));
                }
                assert_eq!(block.half_start.map(|start| start.map(i32::from)), sums.map(|sums| sums.map(|s| -32 * s)));
                let sum = sums.map(|sums| i32::from(block.m[0]) * sums[0] + i32::from(block.m[1]) * sums[1]);
                assert_eq!(block.half_sum, sum.map(|sum| sum as f32));
                assert_eq!(block.sum, (sum[0] + sum[1]) as f32);
            }
            let all = (q, multiples, unit);
            assert!(*first.get_or_insert_with(|| all.clone()) == all, "{}", isa.name());
        }
    }

    #[test]
    fn rows_of_nothing_are_zero() {
        for isa in Isa::available() {
            for value in [0.0, 1e-31, -1e-40] {
                let (mut q, mut multiples) = ([1; BLOCK], [Multiples { sum: 1.0, ..Default::default() }]);
                let unit = quantize_row(isa, &[value; BLOCK], &mut q, &mut multiples);
                assert_eq!((q, multiples[0], unit), ([0; BLOCK], Multiples::default(), 0.0));
            }
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for value in [f32::NAN, f32::INFINITY] {
            let mut values = [1.0; BLOCK];
            values[7] = value;
            let (mut q, mut multiples) = ([0; BLOCK], [Multiples::default()]);
            assert!(!quantize_row(Isa::detect(), &values, &mut q, &mut multiples).is_finite());
        }
    }
}
