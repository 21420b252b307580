//! What the kernels need of a vector unit. One generic kernel serves all instruction sets: a vector's lanes are
//! consecutive rows of a packed matrix, 8 with AVX2 and AVX-VNNI, 16 with AVX-512, each lane 32 bits wide.
//!
//! All methods are inlined into functions that enable the instruction set, which is why they are `unsafe`: nobody else
//! may call them.
#![allow(clippy::missing_safety_doc)]
#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;
use std::sync::atomic::{AtomicBool, Ordering};

use super::quantize::PRE_SHIFT;

/// How far ahead of their use weights are fetched to the first cache, in bytes: further than the processor looks by itself, and
/// past the end of a group, since the next one follows. What memory sends at 40 GB/s in the 100 ns before the first byte comes are
/// 4 KB; 8 KB were the fastest of 1 to 16.
const AHEAD: usize = 8192;
/// The same where they were fetched to the second cache before, [`AHEAD`] of their use.
const NEAR: usize = 3072;
/// Weights are fetched in two steps.
static TWO_STEPS: AtomicBool = AtomicBool::new(false);

/// Has weights fetched in two steps: a core of Intel's waits for 16 lines at a time for its first cache, which is 10 GB/s, and for 48
/// for its second. (Zen, whose first cache waits for as many, is a tenth slower so.)
pub(super) fn fetch_in_two_steps() {
    TWO_STEPS.store(true, Ordering::Relaxed);
}

/// How weights are fetched, which a kernel asks once.
#[derive(Clone, Copy)]
pub(super) struct Fetch {
    two_steps: bool,
}

impl Fetch {
    #[inline(always)]
    pub fn new() -> Fetch {
        Fetch { two_steps: TWO_STEPS.load(Ordering::Relaxed) }
    }

    /// Asks for the `bytes` of memory that lie some way ahead of `at`.
    #[inline(always)]
    pub unsafe fn ahead_of(self, at: *const u8, bytes: usize) {
        // SAFETY: a prefetch may name any address.
        unsafe {
            if self.two_steps {
                for line in 0..bytes.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(NEAR + 64 * line).cast());
                    _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(AHEAD + 64 * line).cast());
                }
            } else {
                for line in 0..bytes.div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 64 * line).cast());
                }
            }
        }
    }
}

/// Two vectors as one of 32 bf16, in order, rounded to nearest even.
#[inline(always)]
pub(super) unsafe fn to_bf16(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the caller enables AVX-512 BF16; a vector is as well one of bf16 as one of integers.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// 32 numbers in half precision as two vectors, in order.
#[inline(always)]
pub(super) unsafe fn halves_to_floats(halves: __m512i) -> [__m512; 2] {
    // SAFETY: the caller enables AVX-512.
    unsafe {
        let (low, high) = (_mm512_castsi512_si256(halves), _mm512_extracti64x4_epi64::<1>(halves));
        [_mm512_cvtph_ps(low), _mm512_cvtph_ps(high)]
    }
}

/// The same as a vector of bf16.
#[inline(always)]
pub(super) unsafe fn halves_to_bf16(halves: __m512i) -> __m512i {
    // SAFETY: as above.
    unsafe {
        let [low, high] = halves_to_floats(halves);
        to_bf16(low, high)
    }
}

/// Shifts of lanes by those of `by`, written out: of the intrinsic with a broadcast the compiler makes a shift of all lanes by one
/// number, which has a third of the throughput, and clamps the number first.
macro_rules! shifts {
    ($($name:ident, $instruction:literal, $vector:ident, $register:ident, $feature:literal;)*) => {$(
        #[inline]
        #[target_feature(enable = $feature)]
        fn $name(a: $vector, by: $vector) -> $vector {
            let out: $vector;
            // SAFETY: registers alone are touched.
            unsafe {
                std::arch::asm!(concat!($instruction, " {}, {}, {}"), lateout($register) out, in($register) a,
                    in($register) by, options(pure, nomem, nostack, preserves_flags));
            }
            out
        }
    )*};
}

shifts! {
    shift_right_16, "vpsravd", __m512i, zmm_reg, "avx512f";
    shift_left_16, "vpsllvd", __m512i, zmm_reg, "avx512f";
    shift_right_8, "vpsravd", __m256i, ymm_reg, "avx2";
    shift_left_8, "vpsllvd", __m256i, ymm_reg, "avx2";
}

/// `sum + w·x`, written out. (Not `pure`: they stay in order, which keeps the sums of one half of a tile apart from those of the other.)
macro_rules! multiply_add {
    ($($name:ident, $instruction:literal, $vector:ident, $register:ident, $feature:literal;)*) => {$(
        #[inline]
        #[target_feature(enable = $feature)]
        pub(super) fn $name(mut sum: $vector, w: $vector, x: $vector) -> $vector {
            // SAFETY: registers alone are touched.
            unsafe {
                std::arch::asm!(concat!($instruction, " {}, {}, {}"), inout($register) sum, in($register) w,
                    in($register) x, options(nomem, nostack, preserves_flags));
            }
            sum
        }
    )*};
}

multiply_add! {
    // Of pairs of 16 bits: the compiler makes a product and an addition of the intrinsic.
    dot_pairs_16, "vpdpwssd", __m512i, zmm_reg, "avx512f,avx512vnni";
    dot_pairs_8, "{{vex}} vpdpwssd", __m256i, ymm_reg, "avxvnni";
    // Of numbers in half precision: intrinsics are younger than this crate's oldest compiler. Needs AVX512_FP16, too.
    multiply_add_halves, "vfmadd231ph", __m512i, zmm_reg, "avx512f";
}

/// `others`, but where `mask` admits it bytes of `a`, which `control` moves within lanes of 16: one operation. (Written out: the compiler
/// makes two of the intrinsic, or a permutation across lanes, which are three on Intel's cores.)
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
pub(super) fn shuffle_into(others: __m512i, mask: u64, a: __m512i, control: __m512i) -> __m512i {
    let mut out = others;
    // SAFETY: registers alone are touched.
    unsafe {
        std::arch::asm!("vpshufb {}{{{}}}, {}, {}", inout(zmm_reg) out, in(kreg) mask, in(zmm_reg) a,
            in(zmm_reg) control, options(pure, nomem, nostack, preserves_flags));
    }
    out
}

/// Rows and columns of 16 × 16 words of four bytes exchanged: in four rounds, of 4, 8, 16 and 32 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = rows;
    for i in (0..16).step_by(4) {
        let (r0, r1, r2, r3) = (rows[i], rows[i + 1], rows[i + 2], rows[i + 3]);
        let (lo01, hi01) = (_mm512_unpacklo_epi32(r0, r1), _mm512_unpackhi_epi32(r0, r1));
        let (lo23, hi23) = (_mm512_unpacklo_epi32(r2, r3), _mm512_unpackhi_epi32(r2, r3));
        a[i] = _mm512_unpacklo_epi64(lo01, lo23);
        a[i + 1] = _mm512_unpackhi_epi64(lo01, lo23);
        a[i + 2] = _mm512_unpacklo_epi64(hi01, hi23);
        a[i + 3] = _mm512_unpackhi_epi64(hi01, hi23);
    }
    // In each quarter `q` of a[4·i + c] now stand columns 4·q + c of rows 4·i..4·i + 4.
    let mut out = rows;
    for c in 0..4 {
        let (r0, r1, r2, r3) = (a[c], a[4 + c], a[8 + c], a[12 + c]);
        let (even01, odd01) = (_mm512_shuffle_i32x4::<0x88>(r0, r1), _mm512_shuffle_i32x4::<0xdd>(r0, r1));
        let (even23, odd23) = (_mm512_shuffle_i32x4::<0x88>(r2, r3), _mm512_shuffle_i32x4::<0xdd>(r2, r3));
        out[c] = _mm512_shuffle_i32x4::<0x88>(even01, even23);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(even01, even23);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(odd01, odd23);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(odd01, odd23);
    }
    out
}

pub(super) trait Simd: Copy {
    /// Integers: four bytes a lane.
    type I: Copy;
    /// One float a lane.
    type F: Copy;
    /// Lanes.
    const LANES: usize;

    unsafe fn load(p: *const u8) -> Self::I;
    unsafe fn store(p: *mut u8, a: Self::I);
    unsafe fn splat_u8(x: u8) -> Self::I;
    unsafe fn splat_i32(x: i32) -> Self::I;
    unsafe fn and(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn or(a: Self::I, b: Self::I) -> Self::I;
    /// 16-bit lanes to the left by `n`, or to the right by `-n`.
    unsafe fn shift16(a: Self::I, n: i32) -> Self::I;
    /// Bytes of a table of 16 by the low four bits of each byte.
    unsafe fn lookup(table: &[i8; 16], index: Self::I) -> Self::I;
    unsafe fn add_i32(a: Self::I, b: Self::I) -> Self::I;
    /// `a >> shift` of each lane.
    unsafe fn shift_right(a: Self::I, shift: i32) -> Self::I;
    /// `a << shift` of each lane.
    unsafe fn shift_left(a: Self::I, shift: i32) -> Self::I;
    /// Bytes of less than 32 to the left by [`PRE_SHIFT`].
    unsafe fn pre_shifted(a: Self::I) -> Self::I;
    unsafe fn add_u8(a: Self::I, b: Self::I) -> Self::I;
    unsafe fn to_float(a: Self::I) -> Self::F;

    unsafe fn splat(x: f32) -> Self::F;
    unsafe fn load_f32(p: *const f32) -> Self::F;
    unsafe fn store_f32(p: *mut f32, a: Self::F);
    unsafe fn mul(a: Self::F, b: Self::F) -> Self::F;
    unsafe fn add(a: Self::F, b: Self::F) -> Self::F;
    /// `a · b + c`.
    unsafe fn fma(a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    unsafe fn load_f16(p: *const u8) -> Self::F;
    unsafe fn load_bf16(p: *const u8) -> Self::F;
    /// One byte a lane.
    unsafe fn load_u8(p: *const u8) -> Self::I;
    /// One signed byte a lane.
    unsafe fn load_i8(p: *const u8) -> Self::I;
    /// `2^(e − 128)` of one byte a lane: half of an E8M0 scale.
    unsafe fn load_e8m0_half(p: *const u8) -> Self::F;
    /// Two floats, in the even and in the odd lanes.
    unsafe fn splat_pair(p: *const f32) -> Self::F;
    /// The sum of each even lane and the next, those of `a` and then those of `b`.
    unsafe fn add_pairs(a: Self::F, b: Self::F) -> Self::F;
    /// The sum of all lanes.
    unsafe fn sum(a: Self::F) -> f32;
}

/// What [`Vnni::dot4_signed`] adds to each weight, to be corrected by the sum of the activations.
pub(super) const SIGNED_OFFSET: i32 = 128;

/// Products of bytes in one instruction.
pub(super) trait Vnni: Simd {
    /// `sum + Σ w·x` of the four bytes of each lane: `w` are unsigned, `x` signed.
    unsafe fn dot(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// `sum + Σ w·x` of the two signed numbers of 16 bits of each lane.
    unsafe fn dot_pairs(sum: Self::I, w: Self::I, x: Self::I) -> Self::I;
    /// `sum + Σ w·x` over 16 columns: `w` are unsigned bytes, `x` points to 16 signed ones.
    #[inline(always)]
    unsafe fn dot4(mut sum: Self::I, w: &[Self::I], x: *const i8) -> Self::I {
        unsafe {
            for j in 0..4 {
                sum = Self::dot(sum, w[j], Self::splat_i32(x.cast::<i32>().add(j).read_unaligned()));
            }
            sum
        }
    }

    /// As [`Vnni::dot4`], with products times 2^[`PRE_SHIFT`].
    #[inline(always)]
    unsafe fn dot4_shifted(sum: Self::I, w: &[Self::I], x: *const i8) -> Self::I {
        unsafe { Self::add_i32(sum, Self::shift_left(Self::dot4(Self::splat_i32(0), w, x), PRE_SHIFT)) }
    }

    /// As [`Vnni::dot4`] with signed `w`; the result has [`SIGNED_OFFSET`] `· Σ x` too much.
    #[inline(always)]
    unsafe fn dot4_signed(sum: Self::I, w: &[Self::I], x: *const i8) -> Self::I {
        unsafe {
            let (offset, mut unsigned) = (Self::splat_u8(SIGNED_OFFSET as u8), [sum; 4]);
            for j in 0..4 {
                unsigned[j] = Self::add_u8(w[j], offset);
            }
            Self::dot4(sum, &unsigned, x)
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni;

impl Simd for Avx512Vnni {
    type I = __m512i;
    type F = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, a: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn splat_u8(x: u8) -> __m512i {
        unsafe { _mm512_set1_epi8(x as i8) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        unsafe { _mm512_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn and(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn shift16(a: __m512i, n: i32) -> __m512i {
        unsafe {
            match n {
                0 => a,
                1.. => _mm512_sll_epi16(a, _mm_cvtsi32_si128(n)),
                _ => _mm512_srl_epi16(a, _mm_cvtsi32_si128(-n)),
            }
        }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: __m512i) -> __m512i {
        unsafe { _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), index) }
    }
    #[inline(always)]
    unsafe fn add_i32(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right(a: __m512i, shift: i32) -> __m512i {
        unsafe { shift_right_16(a, _mm512_set1_epi32(shift)) }
    }
    #[inline(always)]
    unsafe fn shift_left(a: __m512i, shift: i32) -> __m512i {
        unsafe { shift_left_16(a, _mm512_set1_epi32(shift)) }
    }
    #[inline(always)]
    unsafe fn pre_shifted(a: __m512i) -> __m512i {
        unsafe { _mm512_slli_epi16::<{ PRE_SHIFT as u32 }>(a) }
    }
    #[inline(always)]
    unsafe fn add_u8(a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    unsafe fn to_float(a: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_f32(p: *mut f32, a: __m512) {
        unsafe { _mm512_storeu_ps(p, a) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m512i {
        unsafe { _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_e8m0_half(p: *const u8) -> __m512 {
        unsafe {
            let e = _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast()));
            // Exponents 0 and 1 are below the normal range: 2^-128 and 2^-127.
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
            let tiny = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), e);
            let is_tiny = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
            _mm512_castsi512_ps(_mm512_mask_blend_epi32(is_tiny, normal, tiny))
        }
    }
    #[inline(always)]
    unsafe fn splat_pair(p: *const f32) -> __m512 {
        unsafe { _mm512_castpd_ps(_mm512_set1_pd(p.cast::<f64>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: __m512, b: __m512) -> __m512 {
        unsafe {
            let even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b))
        }
    }
    #[inline(always)]
    unsafe fn sum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
}

impl Vnni for Avx512Vnni {
    #[inline(always)]
    unsafe fn dot(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { _mm512_dpbusd_epi32(sum, w, x) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe { dot_pairs_16(sum, w, x) }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx2 {
    type I = __m256i;
    type F = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn load(p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut u8, a: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), a) }
    }
    #[inline(always)]
    unsafe fn splat_u8(x: u8) -> __m256i {
        unsafe { _mm256_set1_epi8(x as i8) }
    }
    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    unsafe fn and(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn shift16(a: __m256i, n: i32) -> __m256i {
        unsafe {
            match n {
                0 => a,
                1.. => _mm256_sll_epi16(a, _mm_cvtsi32_si128(n)),
                _ => _mm256_srl_epi16(a, _mm_cvtsi32_si128(-n)),
            }
        }
    }
    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], index: __m256i) -> __m256i {
        unsafe { _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast())), index) }
    }
    #[inline(always)]
    unsafe fn add_i32(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    unsafe fn shift_right(a: __m256i, shift: i32) -> __m256i {
        unsafe { shift_right_8(a, _mm256_set1_epi32(shift)) }
    }
    #[inline(always)]
    unsafe fn shift_left(a: __m256i, shift: i32) -> __m256i {
        unsafe { shift_left_8(a, _mm256_set1_epi32(shift)) }
    }
    #[inline(always)]
    unsafe fn pre_shifted(a: __m256i) -> __m256i {
        unsafe { _mm256_slli_epi16::<PRE_SHIFT>(a) }
    }
    #[inline(always)]
    unsafe fn add_u8(a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi8(a, b) }
    }
    #[inline(always)]
    unsafe fn to_float(a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load_f32(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store_f32(p: *mut f32, a: __m256) {
        unsafe { _mm256_storeu_ps(p, a) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_u8(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> __m256i {
        unsafe { _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_e8m0_half(p: *const u8) -> __m256 {
        unsafe {
            let e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast()));
            let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
            let tiny = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
            let is_tiny = _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e);
            _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, is_tiny))
        }
    }
    #[inline(always)]
    unsafe fn splat_pair(p: *const f32) -> __m256 {
        unsafe { _mm256_castpd_ps(_mm256_set1_pd(p.cast::<f64>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn add_pairs(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_castpd_ps(_mm256_permute4x64_pd::<0b11_01_10_00>(_mm256_castps_pd(_mm256_hadd_ps(a, b)))) }
    }
    #[inline(always)]
    unsafe fn sum(a: __m256) -> f32 {
        unsafe {
            let pairs = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let pairs = _mm_add_ps(pairs, _mm_movehl_ps(pairs, pairs));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
        }
    }
}

/// AVX-VNNI, beside AVX2.
impl Vnni for Avx2 {
    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, x) }
    }
    #[inline(always)]
    unsafe fn dot_pairs(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { dot_pairs_8(sum, w, x) }
    }
}
