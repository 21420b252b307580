//! Products of packed floats with activations of 16 bits, where the processor makes more of those than of float32.
//!
//! Weights lie in pairs of columns, `[columns / 2][16][2]` for a group of 16 rows: see [`floats`](super::floats).
//!
//! `vdpbf16ps` multiplies pairs and adds them in float32; weights in F16 and activations lose bits when they are rounded to bf16, of
//! which eight are left. `vfmadd231ph` (AVX512_FP16) multiplies and adds with the eleven bits of F16. Weights keep theirs then, as do those
//! that are [kept in 12 bits](super::bf12). Sums lose some, and become float32 after [`CHAIN`] products. Of sums of any signs, in units of the
//! root of their terms' squares, errors are 0.0009 (the root of their mean square), where they are 0.0025 with weights and activations
//! rounded to bf16 and 0.0017 with activations alone. F16 has five bits of exponent: rows of activations are [scaled](round_row) to fit
//! them, and where a sum does not, as it can only with weights over 31, it is not finite and is made again in float32.

#![allow(clippy::needless_range_loop)] // the index is that of a row and of a group, in several arrays at once

use std::arch::x86_64::*;

use super::features::ShortFloat;
use super::floats::{Float, Lines};
use super::pack::ROWS;
use super::simd::{Avx512Vnni, Fetch, Simd, halves_to_bf16, halves_to_floats, multiply_add_halves};

/// Rows of activations that a kernel takes at once.
pub(super) const WIDTHS: [usize; 4] = [8, 4, 2, 1];
/// Groups that it takes at once: a pair of activations, once it is in all lanes, serves them all.
pub(super) const GROUPS: usize = 2;
/// Products that are added in F16, for each of a pair's columns.
const CHAIN: usize = 32;
/// The exponent of the greatest number of a scaled row: [`CHAIN`] of them times a weight of up to 31 are finite in F16, and what is small
/// beside them keeps its bits.
const GREATEST: i32 = 5;
/// The least exponent of a row's greatest number that is scaled to that.
const LEAST: i32 = -100;

/// Rows of activations in 16 bits.
#[derive(Clone, Copy)]
pub(super) struct ShortRows<'a> {
    pub float: ShortFloat,
    /// `[rows][stride]`, filled up with zeros.
    pub values: &'a [u16],
    pub stride: usize,
    /// What the numbers of each row are multiples of.
    pub scales: &'a [f32],
}

impl ShortRows<'_> {
    /// The kernel for `groups` groups to run next where `left` rows of activations are left, and how many of them it takes.
    pub fn kernel(&self, groups: usize, left: usize) -> Option<(usize, Kernel)> {
        let width = WIDTHS.iter().position(|&width| width <= left)?;
        let kernels = match self.float {
            ShortFloat::Bf16 => &BF16_KERNELS,
            ShortFloat::F16 => &F16_KERNELS,
        };
        Some((WIDTHS[width], kernels.get(groups.checked_sub(1)?)?[width]))
    }
}

/// Multiplies groups of weights, one behind the other, by rows of activations, `stride` apart, of `pairs` pairs of columns:
/// `out[groups][N][16]`. Meanwhile it asks for `next`: memory would else rest while the products are made.
///
/// # Safety
/// The instruction set; as many groups and rows of activations as the kernel takes.
pub(super) type Kernel =
    unsafe fn(groups: *const u8, pairs: usize, x: *const u16, stride: usize, next: Lines, out: *mut f32);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn bf16_groups<const N: usize, const GROUPS: usize>(
    groups: *const u8,
    pairs: usize,
    x: *const u16,
    stride: usize,
    next: Lines,
    out: *mut f32,
) {
    // SAFETY: as `Kernel` demands; a vector is as well one of bf16 as one of integers.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); GROUPS]; N];
        for c in 0..pairs {
            let (w, x) = pair::<N, GROUPS>(groups, pairs, x, stride, next, c);
            for t in 0..N {
                let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x[t].read_unaligned()));
                for g in 0..GROUPS {
                    let w = std::mem::transmute::<__m512i, __m512bh>(w[g]);
                    sums[t][g] = _mm512_dpbf16_ps(sums[t][g], w, x);
                }
            }
        }
        for g in 0..GROUPS {
            for t in 0..N {
                _mm512_storeu_ps(out.add((g * N + t) * ROWS), sums[t][g]);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn f16_groups<const N: usize, const GROUPS: usize>(
    groups: *const u8,
    pairs: usize,
    x: *const u16,
    stride: usize,
    next: Lines,
    out: *mut f32,
) {
    // SAFETY: as `Kernel` demands.
    unsafe {
        let mut totals = [[[_mm512_setzero_ps(); 2]; GROUPS]; N];
        for first in (0..pairs).step_by(CHAIN) {
            let mut sums = [[_mm512_setzero_si512(); GROUPS]; N];
            for c in first..pairs.min(first + CHAIN) {
                let (w, x) = pair::<N, GROUPS>(groups, pairs, x, stride, next, c);
                for t in 0..N {
                    let x = _mm512_set1_epi32(x[t].read_unaligned());
                    for g in 0..GROUPS {
                        sums[t][g] = multiply_add_halves(sums[t][g], w[g], x);
                    }
                }
            }
            for t in 0..N {
                for g in 0..GROUPS {
                    let (total, sum) = (&mut totals[t][g], halves_to_floats(sums[t][g]));
                    *total = [_mm512_add_ps(total[0], sum[0]), _mm512_add_ps(total[1], sum[1])];
                }
            }
        }
        for g in 0..GROUPS {
            for t in 0..N {
                let [low, high] = totals[t][g];
                _mm512_storeu_ps(out.add((g * N + t) * ROWS), Avx512Vnni::add_pairs(low, high));
            }
        }
    }
}

/// Pair `c` of columns of each group, and where it is in each row of activations.
#[inline(always)]
unsafe fn pair<const N: usize, const GROUPS: usize>(
    groups: *const u8,
    pairs: usize,
    x: *const u16,
    stride: usize,
    next: Lines,
    c: usize,
) -> ([__m512i; GROUPS], [*const i32; N]) {
    // SAFETY: as `Kernel` demands.
    unsafe {
        next.fetch(c);
        let (mut w, mut at) = ([_mm512_setzero_si512(); GROUPS], [x.cast(); N]);
        for g in 0..GROUPS {
            w[g] = _mm512_loadu_si512(groups.add((g * pairs + c) * 4 * ROWS).cast());
        }
        for t in 0..N {
            at[t] = x.add(t * stride + 2 * c).cast::<i32>();
        }
        (w, at)
    }
}

/// The kernels for one group and for [`GROUPS`], each for every one of [`WIDTHS`].
static BF16_KERNELS: [[Kernel; 4]; GROUPS] = [
    [bf16_groups::<8, 1>, bf16_groups::<4, 1>, bf16_groups::<2, 1>, bf16_groups::<1, 1>],
    [bf16_groups::<8, 2>, bf16_groups::<4, 2>, bf16_groups::<2, 2>, bf16_groups::<1, 2>],
];
/// The same in F16.
static F16_KERNELS: [[Kernel; 4]; GROUPS] = [
    [f16_groups::<8, 1>, f16_groups::<4, 1>, f16_groups::<2, 1>, f16_groups::<1, 1>],
    [f16_groups::<8, 2>, f16_groups::<4, 2>, f16_groups::<2, 2>, f16_groups::<1, 2>],
];

/// Bytes of a group of `columns` columns.
pub(super) fn short_bytes(columns: usize) -> usize {
    Float::F16.group_bytes(columns)
}

/// Rounds `pairs` pairs of columns of a packed group of F16 to bf16.
///
/// # Safety
/// AVX-512 with BF16, the pairs at `group`, and room for them at `out`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
pub(super) unsafe fn round_group(group: *const u8, pairs: usize, out: *mut u8) {
    // SAFETY: as the caller's.
    unsafe {
        let fetch = Fetch::new();
        for c in 0..pairs {
            let w = group.add(c * 4 * ROWS);
            fetch.ahead_of(w, 4 * ROWS);
            _mm512_storeu_si512(out.add(c * 4 * ROWS).cast(), halves_to_bf16(_mm512_loadu_si512(w.cast())));
        }
    }
}

/// Rounds a row of activations to the nearest numbers of 16 bits, of two to the even one, and gives what they are multiples of: a power of
/// two.
///
/// # Safety
/// The processor multiplies `float`.
pub(super) unsafe fn round_row(float: ShortFloat, values: &[f32], out: &mut [u16]) -> f32 {
    // SAFETY: as demanded.
    unsafe {
        match float {
            ShortFloat::Bf16 => round_row_to_bf16(values, out),
            ShortFloat::F16 => round_row_to_f16(values, out),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
unsafe fn round_row_to_bf16(values: &[f32], out: &mut [u16]) -> f32 {
    for (x, out) in values.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
        let mask = (1u32 << x.len().min(out.len())).wrapping_sub(1) as __mmask16;
        // SAFETY: only what the mask names is read and written; 256 bits are as well integers as bf16.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, x.as_ptr()));
            let rounded = std::mem::transmute::<__m256bh, __m256i>(rounded);
            _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), mask, rounded);
        }
    }
    1.0
}

/// Scaled so that the greatest number's exponent is [`GREATEST`]. What is not finite stays so.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn round_row_to_f16(values: &[f32], out: &mut [u16]) -> f32 {
    // Exponents and mantissas are in the order of their numbers.
    let greatest = values.iter().fold(0, |greatest, x| greatest.max(x.to_bits() & 0x7fff_ffff));
    let exponent = ((greatest >> 23) as i32 - 127).max(LEAST);
    let scale = _mm512_set1_ps((GREATEST - exponent) as f32);
    for (x, out) in values.chunks(ROWS).zip(out.chunks_mut(ROWS)) {
        let mask = (1u32 << x.len().min(out.len())).wrapping_sub(1) as __mmask16;
        // SAFETY: only what the mask names is read and written.
        unsafe {
            let scaled = _mm512_scalef_ps(_mm512_maskz_loadu_ps(mask, x.as_ptr()), scale);
            _mm256_mask_storeu_epi16(
                out.as_mut_ptr().cast(),
                mask,
                _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(scaled),
            );
        }
    }
    2f32.powi(exponent - GREATEST)
}

#[cfg(test)]
mod tests;
