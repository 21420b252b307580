//! Sixteen lanes: AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use half::f16;

use super::lanes::Lanes;

/// Sixteen f32 in a `zmm` register.
#[derive(Clone, Copy)]
pub struct F32x16(pub __m512);

/// A mask of the first `n ≤ 16` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    debug_assert!(n <= 16);
    ((1u32 << n) - 1) as __mmask16
}

// SAFETY: no method reads or writes beyond what `Lanes` states; the instructions are of AVX-512 F and DQ.
#[allow(unsafe_op_in_unsafe_fn)] // each body is one or two intrinsics, under the contract of `Lanes`
unsafe impl Lanes for F32x16 {
    const N: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(_mm512_set1_ps(x))
    }

    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(_mm512_loadu_ps(p))
    }

    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self {
        Self(_mm512_maskz_loadu_ps(first(n), p))
    }

    #[inline(always)]
    unsafe fn load_f16(p: *const f16) -> Self {
        Self(_mm512_cvtph_ps(_mm256_loadu_si256(p.cast())))
    }

    #[inline(always)]
    unsafe fn load_doubled(p: *const f32) -> Self {
        let eight = _mm512_castps256_ps512(_mm256_loadu_ps(p));
        let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        Self(_mm512_permutexvar_ps(twice, eight))
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        _mm512_storeu_ps(p, self.0)
    }

    #[inline(always)]
    unsafe fn store_first(self, p: *mut f32, n: usize) {
        _mm512_mask_storeu_ps(p, first(n), self.0)
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut f16) {
        _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0))
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        Self(_mm512_add_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        Self(_mm512_sub_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        Self(_mm512_mul_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        Self(_mm512_div_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, b.0, c.0))
    }

    #[inline(always)]
    unsafe fn mul_sub_add(self, b: Self, c: Self) -> Self {
        Self(_mm512_fmaddsub_ps(self.0, b.0, c.0))
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        Self(_mm512_max_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        Self(_mm512_min_ps(self.0, b.0))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0))
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        Self(_mm512_abs_ps(self.0))
    }

    #[inline(always)]
    unsafe fn copy_sign(self, sign: Self) -> Self {
        let bit = _mm512_set1_ps(-0.0);
        Self(_mm512_or_ps(_mm512_andnot_ps(bit, self.0), _mm512_and_ps(bit, sign.0)))
    }

    #[inline(always)]
    unsafe fn scale_by_exp2(self, n: Self) -> Self {
        Self(_mm512_scalef_ps(self.0, n.0))
    }

    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        Self(_mm512_permute_ps::<0b10_11_00_01>(self.0))
    }

    #[inline(always)]
    unsafe fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self {
        Self(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a.0, b.0), no.0, yes.0))
    }

    #[inline(always)]
    unsafe fn any_gt(self, b: Self) -> bool {
        _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, b.0) != 0
    }

    #[inline(always)]
    unsafe fn reduce_add(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }

    #[inline(always)]
    unsafe fn reduce_max(self) -> f32 {
        _mm512_reduce_max_ps(self.0)
    }
}
