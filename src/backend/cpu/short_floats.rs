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

use super::features::{Isa, ShortFloat};
use super::float_groups::{FloatGroup, Products};
use super::floats::{FLOAT_GROUPS, FLOAT_MOST, Float, Lines};
use super::pack::ROWS;
use super::simd::{Avx512Vnni, Fetch, Simd, halves_to_bf16, halves_to_floats, multiply_add_halves};

/// Rows of activations that a kernel takes at once.
pub(super) const WIDTHS: [usize; 4] = [8, 4, 2, 1];
/// Groups that it takes at once: a pair of activations, once it is in all lanes, serves them all.
pub(super) const GROUPS: usize = 2;
// What a kernel writes has room in `Products`.
const _: () = assert!(GROUPS * WIDTHS[0] <= FLOAT_GROUPS * FLOAT_MOST);
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
    /// The kernel for `n` groups and the `width`th of [`WIDTHS`].
    fn kernel(&self, n: usize, width: usize) -> Option<Kernel> {
        let kernels = match self.float {
            ShortFloat::Bf16 => &BF16_KERNELS,
            ShortFloat::F16 => &F16_KERNELS,
        };
        kernels.get(n.checked_sub(1)?)?.get(width).copied()
    }
}

/// Multiplies groups of weights, one behind the other, by rows of activations, `stride` apart, of `pairs` pairs of columns:
/// `out[groups][N][16]`. Meanwhile it asks for `next`: memory would else rest while the products are made.
///
/// # Safety
/// The instruction set; as many groups and rows of activations as the kernel takes.
type Kernel = unsafe fn(groups: *const u8, pairs: usize, x: *const u16, stride: usize, next: Lines, out: *mut f32);

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

/// Groups of weights in 16 bits.
pub(super) struct ShortGroups<'a> {
    groups: [Option<FloatGroup<'a>>; GROUPS],
    n: usize,
    /// Where they lie, one behind the other.
    weights: *const u8,
    /// What the numbers of each are multiples of.
    scales: [f32; GROUPS],
    /// Where those after them begin.
    next: *const u8,
    columns: usize,
}

impl<'a> ShortGroups<'a> {
    /// Up to [`GROUPS`] groups of `columns` columns, one behind the other, in `panel` if not where they are. None if there are none, or one
    /// that has no such form.
    ///
    /// # Safety
    /// The processor multiplies `float`; the panel has room for all groups, which nobody else writes while this lives.
    pub unsafe fn new(
        float: ShortFloat,
        groups: impl Iterator<Item = FloatGroup<'a>>,
        columns: usize,
        panel: *mut u8,
    ) -> Option<ShortGroups<'a>> {
        let null = std::ptr::null();
        let mut all = ShortGroups { groups: [None; _], n: 0, weights: null, scales: [1.0; _], next: null, columns };
        for (i, group) in groups.take(GROUPS).enumerate() {
            // SAFETY: as demanded.
            let (weights, scale) = unsafe { group.in_short(float, columns, panel.add(i * short_bytes(columns)))? };
            if i == 0 {
                all.weights = weights;
            }
            (all.scales[i], all.next, all.n) = (scale, group.bytes().as_ptr_range().end, i + 1);
            all.groups[i] = Some(group);
        }
        (all.n > 0).then_some(all)
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.n
    }

    /// Multiplies by as many rows of activations as there is a kernel for, and says how many that were: `out[groups][rows][16]`. `rows` are
    /// rows `at..end` of `short`, in float32. This is the `nth` time, from 0 on, of about `runs`, in which as many groups that follow are
    /// fetched. None if there are no rows.
    pub fn multiply(
        &self,
        short: &ShortRows,
        (at, end): (usize, usize),
        (nth, runs): (usize, usize),
        rows: &[f32],
        isa: Isa,
        out: &mut Products,
    ) -> Option<usize> {
        let width = WIDTHS.iter().position(|&width| at + width <= end)?;
        let kernel = short.kernel(self.n, width)?;
        let x = &short.values[at * short.stride..(at + WIDTHS[width]) * short.stride];
        let (bytes, pairs) =
            (self.groups.iter().flatten().map(|group| group.bytes().len()).sum::<usize>(), self.columns.div_ceil(2));
        let part = |nth: usize| self.next.wrapping_add(bytes * nth.min(runs) / runs.max(1));
        let next = Lines::new(part(nth)..part(nth + 1), pairs);
        assert!(short.stride >= 2 * pairs);
        // SAFETY: the processor multiplies the float; the groups have all columns, and there are as many rows as the kernel takes.
        unsafe {
            kernel(self.weights, pairs, x.as_ptr(), short.stride, next, out.as_mut_ptr());
        }
        let (width, groups) = (WIDTHS[width], self.groups.iter().flatten());
        for ((group, scale), out) in groups.zip(self.scales).zip(out.chunks_exact_mut(width * ROWS)) {
            for (out, row_scale) in out.chunks_exact_mut(ROWS).zip(&short.scales[at..]) {
                out.iter_mut().for_each(|y| *y *= scale * row_scale);
            }
            group.add_exceptions(rows, out);
            let is_finite = |out: &[f32]| !out.iter().fold(false, |any, y| any | !y.is_finite());
            if !is_finite(out) {
                for (out, row) in out.chunks_exact_mut(ROWS).zip(rows.chunks_exact(self.columns)) {
                    let mut exact: Products = [0.0; _];
                    if !is_finite(out) && group.multiply(isa, self.columns, row, &mut exact).is_some() {
                        out.copy_from_slice(&exact[..ROWS]);
                    }
                }
            }
        }
        Some(width)
    }
}

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
