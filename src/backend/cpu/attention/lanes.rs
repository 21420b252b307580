//! What attention asks of a register beyond [`Lanes`]: to turn half-precision keys, `[token][element]`,
//! into f32 with the tokens side by side, and to hold the larger kernels in functions of their own.

use std::arch::x86_64::*;

use half::f16;

use super::super::vector::lanes::Lanes;
use super::super::vector::{F32x8, F32x16};
use super::kernels::{self, Block, Element};
use super::{Parts, Running};

/// Elements of each key that are transposed at once: as many halves as fit in 128 bits.
pub const ELEMENTS: usize = 8;

/// A register type that attention is written over.
///
/// # Safety
/// As [`Lanes`].
pub unsafe trait AttentionLanes: Lanes {
    /// Queries whose scores and sums of values fit in the registers: 2 · `BLOCK` accumulators and a few more.
    const BLOCK: usize;

    /// Half precision in as many lanes as two registers of `Self` have.
    type Halves: Copy;

    /// [`ELEMENTS`] elements of each of `2 · N` keys, from `k[token · head_dim + element]`: a register for each
    /// element, with the tokens side by side.
    unsafe fn transpose(k: *const f16, head_dim: usize) -> [Self::Halves; ELEMENTS];

    /// To f32: the first `N` lanes and the second.
    unsafe fn widen(halves: Self::Halves) -> [Self; 2];

    /// [`kernels::attend_block`].
    unsafe fn attend_block<const M: usize>(block: &Block<'_, '_>, parts: &mut Parts<'_>);
    /// [`kernels::softmax`].
    unsafe fn softmax(
        weights: *mut f32,
        rows: (usize, usize),
        softcap: Option<f32>,
        running: &mut Running,
        sums: *mut f32,
        stride: usize,
    );
    /// [`kernels::add_values`] for one query.
    unsafe fn add_values<E: Element>(
        weights: *const f32,
        rows: (usize, usize),
        values: *const E,
        sums: *mut f32,
        stride: usize,
    );
}

/// The kernels that are functions of their own: each enables the instruction set for what is inlined into it. In one
/// piece, all sizes of blocks together would take the compiler a minute.
macro_rules! functions_with_features {
    ($features:literal) => {
        #[inline(always)]
        unsafe fn attend_block<const M: usize>(block: &Block<'_, '_>, parts: &mut Parts<'_>) {
            #[target_feature(enable = $features)]
            unsafe fn enabled<V: AttentionLanes, const M: usize>(block: &Block<'_, '_>, parts: &mut Parts<'_>) {
                kernels::attend_block::<V, M>(block, parts)
            }
            enabled::<Self, M>(block, parts)
        }

        #[inline(always)]
        unsafe fn softmax(
            weights: *mut f32,
            rows: (usize, usize),
            softcap: Option<f32>,
            running: &mut Running,
            sums: *mut f32,
            stride: usize,
        ) {
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn enabled<V: AttentionLanes>(
                weights: *mut f32,
                rows: (usize, usize),
                softcap: Option<f32>,
                running: &mut Running,
                sums: *mut f32,
                stride: usize,
            ) {
                kernels::softmax::<V>(weights, rows, softcap, running, sums, stride)
            }
            enabled::<Self>(weights, rows, softcap, running, sums, stride)
        }

        #[inline(always)]
        unsafe fn add_values<E: Element>(
            weights: *const f32,
            rows: (usize, usize),
            values: *const E,
            sums: *mut f32,
            stride: usize,
        ) {
            #[inline(never)]
            #[target_feature(enable = $features)]
            unsafe fn enabled<V: AttentionLanes, E: Element>(
                weights: *const f32,
                rows: (usize, usize),
                values: *const E,
                sums: *mut f32,
                stride: usize,
            ) {
                kernels::add_values::<V, E, 1>(weights, rows, values, sums, stride)
            }
            enabled::<Self, E>(weights, rows, values, sums, stride)
        }
    };
}

/// Transposes the 8 × 8 halves in each 128-bit lane of eight registers: three rounds of interleaving, of 2, 4 and 8 bytes.
macro_rules! transpose_in_lanes {
    ($v:ident, $lo16:ident $hi16:ident, $lo32:ident $hi32:ident, $lo64:ident $hi64:ident) => {{
        let lo = [$lo16($v[0], $v[1]), $lo16($v[2], $v[3]), $lo16($v[4], $v[5]), $lo16($v[6], $v[7])];
        let hi = [$hi16($v[0], $v[1]), $hi16($v[2], $v[3]), $hi16($v[4], $v[5]), $hi16($v[6], $v[7])];
        // Two elements each, of keys 0 to 3 and of keys 4 to 7.
        let e01 = [$lo32(lo[0], lo[1]), $lo32(lo[2], lo[3])];
        let e23 = [$hi32(lo[0], lo[1]), $hi32(lo[2], lo[3])];
        let e45 = [$lo32(hi[0], hi[1]), $lo32(hi[2], hi[3])];
        let e67 = [$hi32(hi[0], hi[1]), $hi32(hi[2], hi[3])];
        [
            $lo64(e01[0], e01[1]),
            $hi64(e01[0], e01[1]),
            $lo64(e23[0], e23[1]),
            $hi64(e23[0], e23[1]),
            $lo64(e45[0], e45[1]),
            $hi64(e45[0], e45[1]),
            $lo64(e67[0], e67[1]),
            $hi64(e67[0], e67[1]),
        ]
    }};
}

// SAFETY: reads 8 elements of 16 keys; the instructions are of AVX2 and F16C.
#[allow(unsafe_op_in_unsafe_fn)] // intrinsics throughout, under the contract of the trait
unsafe impl AttentionLanes for F32x8 {
    const BLOCK: usize = 6; // of 16 registers

    type Halves = __m256i;

    functions_with_features!("avx2,fma,f16c");

    #[inline(always)]
    unsafe fn transpose(k: *const f16, head_dim: usize) -> [__m256i; ELEMENTS] {
        // Lane L of register j holds key 8 L + j.
        let mut v = [_mm256_setzero_si256(); 8];
        for (j, v) in v.iter_mut().enumerate() {
            *v = _mm256_loadu2_m128i(k.add((8 + j) * head_dim).cast(), k.add(j * head_dim).cast());
        }
        transpose_in_lanes!(
            v,
            _mm256_unpacklo_epi16 _mm256_unpackhi_epi16,
            _mm256_unpacklo_epi32 _mm256_unpackhi_epi32,
            _mm256_unpacklo_epi64 _mm256_unpackhi_epi64
        )
    }

    #[inline(always)]
    unsafe fn widen(halves: __m256i) -> [Self; 2] {
        let second = _mm256_extracti128_si256::<1>(halves);
        [F32x8(_mm256_cvtph_ps(_mm256_castsi256_si128(halves))), F32x8(_mm256_cvtph_ps(second))]
    }
}

// SAFETY: reads 8 elements of 32 keys; the instructions are of AVX-512 F and BW.
#[allow(unsafe_op_in_unsafe_fn)] // intrinsics throughout, under the contract of the trait
unsafe impl AttentionLanes for F32x16 {
    const BLOCK: usize = super::MAX_BLOCK; // of 32 registers

    type Halves = __m512i;

    functions_with_features!("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c");

    #[inline(always)]
    unsafe fn transpose(k: *const f16, head_dim: usize) -> [__m512i; ELEMENTS] {
        // Lane L of register j holds key 8 L + j.
        let mut v = [_mm512_setzero_si512(); 8];
        for (j, v) in v.iter_mut().enumerate() {
            *v = _mm512_castsi128_si512(_mm_loadu_si128(k.add(j * head_dim).cast()));
            *v = _mm512_inserti32x4::<1>(*v, _mm_loadu_si128(k.add((8 + j) * head_dim).cast()));
            *v = _mm512_inserti32x4::<2>(*v, _mm_loadu_si128(k.add((16 + j) * head_dim).cast()));
            *v = _mm512_inserti32x4::<3>(*v, _mm_loadu_si128(k.add((24 + j) * head_dim).cast()));
        }
        transpose_in_lanes!(
            v,
            _mm512_unpacklo_epi16 _mm512_unpackhi_epi16,
            _mm512_unpacklo_epi32 _mm512_unpackhi_epi32,
            _mm512_unpacklo_epi64 _mm512_unpackhi_epi64
        )
    }

    #[inline(always)]
    unsafe fn widen(halves: __m512i) -> [Self; 2] {
        let second = _mm512_extracti64x4_epi64::<1>(halves);
        [F32x16(_mm512_cvtph_ps(_mm512_castsi512_si256(halves))), F32x16(_mm512_cvtph_ps(second))]
    }
}
