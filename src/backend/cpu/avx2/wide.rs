//! Rows of activations quantised to 16 bits, for weights of 8 bits with AVX2: `vpmaddwd` multiplies both as they are, where
//! products of bytes want one factor without a sign. One scale serves a row: an element that is 256 times smaller than the greatest
//! still has 8 bits.
//!
//! Of each four columns those of even number come first: a word of four weights is made of them by two shifts.

use super::super::features::Isa;
use super::super::quantize::ROUNDER;

/// Elements that are written together.
pub const WORD: usize = 4;
/// Where the elements of a word lie.
const ORDER: [usize; WORD] = [0, 2, 1, 3];
/// The greatest number.
const MOST: f32 = 32767.0;
/// A row without greater elements is zero: the inverse of its scale would not be finite.
const LEAST: f32 = 1e-30;

/// Quantises a row of whole words, `x ≈ scale · q`: the same in every instruction set. Returns the scale.
pub fn quantize_row(isa: Isa, values: &[f32], q: &mut [i16]) -> f32 {
    let most = f32::from_bits(largest(isa, values));
    if most < LEAST {
        q.fill(0);
        return 0.0;
    }
    let inverse = MOST / most;
    #[cfg(target_arch = "x86_64")]
    let done = match isa {
        Isa::Scalar => 0,
        // SAFETY: all others have AVX2, and were detected.
        _ => unsafe { x86::round(values, inverse, q) },
    };
    #[cfg(not(target_arch = "x86_64"))]
    let done = 0;
    let words = q[done..].as_chunks_mut::<WORD>().0;
    for (x, q) in values[done..].as_chunks::<WORD>().0.iter().zip(words) {
        // Rounded to nearest even, in the low bits.
        let numbers = x.map(|x| (((x * inverse + ROUNDER).to_bits() as i32 & 0x007f_ffff) - 0x0040_0000) as i16);
        *q = ORDER.map(|i| numbers[i]);
    }
    most / MOST
}

/// The bits of the largest element, without its sign: their order is that of the floats.
fn largest(isa: Isa, values: &[f32]) -> u32 {
    #[inline(always)]
    fn of(values: &[f32]) -> u32 {
        let largest = |most: u32, x: &f32| most.max(x.to_bits() & 0x7fff_ffff);
        let (chunks, rest) = values.as_chunks::<32>();
        let mut lanes = [0; 32];
        for x in chunks {
            lanes.iter_mut().zip(x).for_each(|(most, x)| *most = largest(*most, x));
        }
        rest.iter().fold(lanes.into_iter().fold(0, u32::max), largest)
    }
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        #[target_feature(enable = "avx2")]
        fn avx2(values: &[f32]) -> u32 {
            of(values)
        }
        // SAFETY: all others have AVX2, and were detected.
        return unsafe { avx2(values) };
    }
    of(values)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::ROUNDER;

    /// Elements that are rounded at once.
    const TOGETHER: usize = 16;

    /// Rounds as many elements as there are whole vectors, and says how many those were.
    #[target_feature(enable = "avx2")]
    pub fn round(values: &[f32], inverse: f32, q: &mut [i16]) -> usize {
        let inverse = _mm256_set1_ps(inverse);
        let number = |x: &[f32; TOGETHER / 2]| {
            // SAFETY: eight elements are read.
            let x = _mm256_mul_ps(unsafe { _mm256_loadu_ps(x.as_ptr()) }, inverse);
            let rounded = _mm256_castps_si256(_mm256_add_ps(x, _mm256_set1_ps(ROUNDER)));
            let number = _mm256_and_si256(rounded, _mm256_set1_epi32(0x007f_ffff));
            _mm256_sub_epi32(number, _mm256_set1_epi32(0x0040_0000))
        };
        // Of each word, elements 0, 2, 1 and 3.
        let order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
        let order = _mm256_broadcastsi128_si256(order);
        let (values, _) = values.as_chunks::<{ TOGETHER / 2 }>();
        let (pairs, _) = values.as_chunks::<2>();
        let (words, _) = q.as_chunks_mut::<TOGETHER>();
        for ([a, b], q) in pairs.iter().zip(words) {
            // Words 0, 2, 1 and 3; in order again.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(number(a), number(b)));
            // SAFETY: 16 elements are written.
            unsafe { _mm256_storeu_si256(q.as_mut_ptr().cast(), _mm256_shuffle_epi8(words, order)) };
        }
        pairs.len() * TOGETHER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantisation_is_the_same_on_every_instruction_set_and_near() {
        let values: Vec<f32> = (0..1236).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 0.013).collect();
        let mut first: Option<(Vec<i16>, f32)> = None;
        for isa in Isa::available() {
            let mut q = vec![1; values.len()];
            let scale = quantize_row(isa, &values, &mut q);
            for (i, x) in values.iter().enumerate() {
                let q = q[i / WORD * WORD + [0, 2, 1, 3][i % WORD]];
                assert!((f32::from(q) * scale - x).abs() <= 0.501 * scale);
            }
            assert!(scale < 509.0 * 0.013 / 32767.0);
            let all = (q, scale);
            assert!(*first.get_or_insert_with(|| all.clone()) == all, "{}", isa.name());
        }
    }

    #[test]
    fn rows_of_nothing_are_zero_and_what_is_not_finite_stays_so() {
        for isa in Isa::available() {
            let mut q = [1; 8];
            assert_eq!((quantize_row(isa, &[1e-31; 8], &mut q), q), (0.0, [0; 8]));
            for value in [f32::NAN, f32::NEG_INFINITY] {
                let values = [1.0, 2.0, value, 4.0, 5.0, 6.0, 7.0, 8.0];
                assert!(!quantize_row(isa, &values, &mut q).is_finite());
            }
        }
    }
}
