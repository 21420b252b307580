//! Products of packed weights with AVX2: by activations whose scales are [multiples] of a unit, if weights have up
//! to six bits.
//!
//! A word of four columns takes `vpmaddubsw` and an addition in 16 bits, and all eight words of a tile, or the four of a half whose
//! scales are its own, one `vpmaddwd` by the activations' scales. Eight bits leave no room for sums of products in 16
//! bits: such weights are widened, and multiplied by [activations of 16](wide), two `vpmaddwd` a word.
//!
//! What is summed is exact until it is scaled by the weights' scales, tile by tile; so however many rows a kernel takes, and
//! whether weights are unfolded before, results are the same.

pub(super) mod kernels;
pub(super) mod multiples;
pub(super) mod panels;
pub(super) mod wide;

use std::arch::x86_64::*;

use super::simd::{Avx2, Simd};
use super::tiles::{self, Scales, Tile};

/// What numbers of a format are, as products in 16 bits want them.
pub(super) trait Numbers: Tile {
    /// Numbers of eight bits, with a sign: multiplied in 16.
    const WIDE: bool = Self::BITS == 8;
    /// What is subtracted from a number by way of the sums' start. Numbers of five bits would be too great without.
    const LESS: i32 = if Self::MINIMUM && Self::BITS == 5 { 16 } else { Self::OFFSET };
    /// The same once numbers are prepared for several rows: that of the start which activations come with.
    const PREPARED: i32 = if Self::SPLIT { 32 } else { 16 };
    /// Sums have a start.
    const START: bool = Self::LESS != 0;
}

impl<T: Tile> Numbers for T {}

/// Numbers less [`Numbers::PREPARED`], which sums of several rows begin with.
///
/// # Safety
/// The instruction set.
#[inline(always)]
unsafe fn prepared<T: Tile>(mut numbers: [__m256i; 8]) -> [__m256i; 8] {
    // SAFETY: as demanded.
    unsafe {
        if T::START && T::PREPARED != T::LESS {
            let add = _mm256_set1_epi8((T::PREPARED - T::LESS) as i8);
            numbers.iter_mut().for_each(|numbers| *numbers = _mm256_add_epi8(*numbers, add));
        }
        numbers
    }
}

/// The scales of rows from `row`: minimums are those of numbers less [`Numbers::LESS`].
///
/// # Safety
/// As [`Tile::scales`].
#[inline(always)]
unsafe fn scales<T: Tile>(head: *const u8, tile: *const u8, row: usize) -> Scales<Avx2> {
    // SAFETY: as demanded.
    unsafe {
        let mut scales = tiles::scales::<Avx2, T>(head, tile, row);
        if T::LESS != T::OFFSET {
            let less = _mm256_set1_ps((T::LESS - T::OFFSET) as f32);
            scales.m = [0, 1].map(|half| Avx2::fma(less, scales.d[half], scales.m[half]));
        }
        scales
    }
}

/// Two numbers of 16 bits in all pairs of lanes.
///
/// # Safety
/// The instruction set.
#[inline(always)]
unsafe fn splat_pair(pair: &[i16; 2]) -> __m256i {
    // SAFETY: as demanded.
    unsafe { _mm256_set1_epi32(i32::from(pair[0]) & 0xffff | i32::from(pair[1]) << 16) }
}

/// Four numbers of a row of activations in all lanes.
///
/// # Safety
/// The instruction set, and four numbers.
#[inline(always)]
unsafe fn splat_word(q: *const i8) -> __m256i {
    // SAFETY: as demanded.
    unsafe { _mm256_set1_epi32(q.cast::<i32>().read_unaligned()) }
}

/// A word of weights that have a sign as two vectors of 16 bits: columns of even number, and of odd.
///
/// # Safety
/// The instruction set.
#[inline(always)]
unsafe fn widened(w: __m256i) -> [__m256i; 2] {
    // SAFETY: as demanded.
    unsafe { [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w)] }
}
