//! Products of many rows of activations with AVX-512 VNNI: weights are unfolded once for all of them.
//!
//! A *panel* holds some tiles of two groups as bytes and float32 scales. All formats look alike there, so a handful of
//! kernels serves them; an activation, once it is in all lanes, serves both groups; and unfolding costs what it costs once,
//! not for every few rows. The order of the operations is that of [`kernels`](super::kernels): so are the results, bit by bit.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::acts::BlockScale;
use super::features::Isa;
use super::kernels::Quantized;
use super::pack::ROWS;
use super::simd::{Avx512Vnni, Simd};
use super::tiles::{self, Tile};
use crate::quant::TensorType;

/// Rows of activations from which on unfolding pays.
pub(super) const LEAST_ROWS: usize = 12;
/// Groups of a panel.
pub(super) const GROUPS: usize = 2;
/// Tiles of each group: what leaves the first-level cache room for activations. Whole super-blocks.
pub(super) const TILES: usize = 24;
/// Rows of activations that a kernel takes at once: with two of them 69 % of the processor's products were reached, of 73 %
/// that scaling leaves, and with four no more than 63 %.
pub(super) const WIDTHS: [usize; 2] = [2, 1];
/// Bytes that are fetched for each tile: a cache line.
const FETCHED: usize = 64;

/// What is added to numbers that have an offset or a sign, so that none is negative.
const BIAS: i32 = 128;

/// A tile, unfolded.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Unfolded {
    /// Numbers of columns `4j..4j+4` of each row; [`BIAS`] too large in formats without a minimum.
    numbers: [[u8; 4 * ROWS]; 8],
    /// Scales and minimums, as in [`tiles::Scales`]: the second ones only if the halves of the columns differ.
    d: [[f32; ROWS]; 2],
    m: [[f32; ROWS]; 2],
}

impl Unfolded {
    /// Nothing yet.
    pub const EMPTY: Unfolded = Unfolded { numbers: [[0; 64]; 8], d: [[0.0; 16]; 2], m: [[0.0; 16]; 2] };
}

/// Unfolds `count` tiles from `first`, a whole number of blocks, of the packed group at `group`.
///
/// # Safety
/// AVX-512 with VNNI, a group with these tiles, and room for them at `out`.
pub(super) type Unfold = unsafe fn(group: *const u8, first: usize, count: usize, out: *mut Unfolded);

/// Adds the products of `count` tiles of one or two groups, [`TILES`] apart, with `N` rows of activations to
/// `sums[N][GROUPS][16]`. Meanwhile it asks for `FETCHED` bytes a tile at `next`: any address will do.
///
/// # Safety
/// AVX-512 with VNNI; as many tiles, groups and rows of blocks as the kernel takes.
pub(super) type PanelKernel =
    unsafe fn(panel: *const Unfolded, count: usize, acts: Quantized, sums: *mut f32, next: *const u8);

/// What multiplies a format in panels.
pub(super) struct Panels {
    tensor_type: TensorType,
    pub unfold: Unfold,
    /// For one group and for two, for each of [`WIDTHS`].
    pub run: [[PanelKernel; 2]; GROUPS],
}

/// Bytes that a kernel fetches in `count` tiles.
pub(super) fn fetched(count: usize) -> usize {
    count * FETCHED
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unfold<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut Unfolded) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        let bias = if T::MINIMUM { 0 } else { BIAS - T::OFFSET };
        let bias = _mm512_set1_epi8(bias as i8);
        for i in 0..count {
            let head = group.add((first + i) / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            let tile = head.add(T::HEAD + (first + i) % T::TILES * T::BYTES);
            let out = &mut *out.add(i);
            let numbers = T::numbers::<Avx512Vnni>(tile, 0);
            for j in 0..8 {
                _mm512_store_si512(out.numbers[j].as_mut_ptr().cast(), _mm512_add_epi8(numbers[j], bias));
            }
            let scales = T::scales::<Avx512Vnni>(head, tile, 0);
            for half in 0..if T::SPLIT { 2 } else { 1 } {
                _mm512_store_ps(out.d[half].as_mut_ptr(), scales.d[half]);
                if T::MINIMUM {
                    _mm512_store_ps(out.m[half].as_mut_ptr(), scales.m[half]);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn multiply<const N: usize, const G: usize, const SPLIT: bool, const MINIMUM: bool>(
    panel: *const Unfolded,
    count: usize,
    acts: Quantized,
    out: *mut f32,
    next: *const u8,
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); G]; N];
        for t in 0..N {
            for g in 0..G {
                sums[t][g] = _mm512_loadu_ps(out.add((t * GROUPS + g) * ROWS));
            }
        }
        for i in 0..count {
            _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(i * FETCHED).cast());
            let mut w = [[_mm512_setzero_si512(); 8]; G];
            for g in 0..G {
                for j in 0..8 {
                    w[g][j] = _mm512_load_si512((*panel.add(g * TILES + i)).numbers[j].as_ptr().cast());
                }
            }
            for t in 0..N {
                let (x, scale) = acts.block(t, i);
                row::<G, SPLIT, MINIMUM>(panel.add(i), &w, x, &*scale, &mut sums[t]);
            }
        }
        for t in 0..N {
            for g in 0..G {
                _mm512_storeu_ps(out.add((t * GROUPS + g) * ROWS), sums[t][g]);
            }
        }
    }
}

/// Adds the products of a tile of each group with a block of one row of activations.
#[inline(always)]
unsafe fn row<const G: usize, const SPLIT: bool, const MINIMUM: bool>(
    tile: *const Unfolded,
    w: &[[__m512i; 8]; G],
    x: *const i8,
    scale: &BlockScale,
    sums: &mut [__m512; G],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut halves = [[_mm512_setzero_ps(); G]; 2];
        for half in 0..2 {
            let start = if MINIMUM { 0 } else { scale.start[half] };
            let mut products = [_mm512_set1_epi32(start); G];
            for j in 4 * half..4 * half + 4 {
                let x = _mm512_set1_epi32(x.cast::<i32>().add(j).read_unaligned());
                for g in 0..G {
                    products[g] = _mm512_dpbusd_epi32(products[g], w[g][j], x);
                }
            }
            for g in 0..G {
                halves[half][g] = _mm512_cvtepi32_ps(products[g]);
            }
        }
        let d = [Avx512Vnni::splat(scale.d[0]), Avx512Vnni::splat(scale.d[1])];
        for g in 0..G {
            let tile = &*tile.add(g * TILES);
            let (wd, wm) = (|i: usize| tile.d[i].as_ptr(), |i: usize| tile.m[i].as_ptr());
            let a = _mm512_mul_ps(halves[0][g], d[0]);
            if SPLIT {
                let b = _mm512_mul_ps(halves[1][g], d[1]);
                sums[g] = _mm512_fmadd_ps(a, Avx512Vnni::load_f32(wd(0)), sums[g]);
                sums[g] = _mm512_fmadd_ps(b, Avx512Vnni::load_f32(wd(1)), sums[g]);
                if MINIMUM {
                    for half in 0..2 {
                        let s = Avx512Vnni::splat(scale.s[half]);
                        sums[g] = _mm512_fmadd_ps(Avx512Vnni::load_f32(wm(half)), s, sums[g]);
                    }
                }
            } else {
                let sum = _mm512_fmadd_ps(halves[1][g], d[1], a);
                sums[g] = _mm512_fmadd_ps(sum, Avx512Vnni::load_f32(wd(0)), sums[g]);
                if MINIMUM {
                    let s = Avx512Vnni::splat(scale.s[0] + scale.s[1]);
                    sums[g] = _mm512_fmadd_ps(Avx512Vnni::load_f32(wm(0)), s, sums[g]);
                }
            }
        }
    }
}

macro_rules! run {
    ($split:literal, $minimum:literal) => {
        [
            [multiply::<2, 1, $split, $minimum>, multiply::<1, 1, $split, $minimum>],
            [multiply::<2, 2, $split, $minimum>, multiply::<1, 2, $split, $minimum>],
        ]
    };
}

macro_rules! panels {
    ($($format:ident)*) => {
        static PANELS: &[Panels] = &[$(
            Panels {
                tensor_type: TensorType::$format,
                unfold: unfold::<tiles::$format>,
                run: match (tiles::$format::SPLIT, tiles::$format::MINIMUM) {
                    (false, false) => run!(false, false),
                    (false, true) => run!(false, true),
                    (true, false) => run!(true, false),
                    (true, true) => run!(true, true),
                },
            },
        )*];
    };
}

panels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// What multiplies a packed format in panels on `isa`.
pub(super) fn panels(tensor_type: TensorType, isa: Isa) -> Option<&'static Panels> {
    PANELS.iter().find(|panels| panels.tensor_type == tensor_type && isa >= Isa::Avx512Vnni)
}
