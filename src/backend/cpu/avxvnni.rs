//! Products of many rows of activations with AVX-VNNI: the [`panels`](super::panels) of AVX-512, whose results these are bit by
//! bit, by vectors of half a group.
//!
//! Six rows by the two vectors of a group are twelve sums of products, which leaves registers for the weights' word and the
//! activations'; what is summed over tiles lies in memory meanwhile. A word of six rows takes eight loads for twelve products. What
//! bounds it: of four vector ports two multiply (Zen 5), so as with AVX-512 it is 8 products of 10 to 13 operations. (Intel converts
//! and shifts on these ports too: 8 of 12 to 16.)

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::features::Isa;
use super::pack::ROWS;
use super::panels::{Block, GROUPS, LEAST_ROWS, NUMBERS, PanelKernel, Panels, SCALES, fetch, tile_bytes};
use super::quantize::{HALVES_OFFSET, JOINED_OFFSET};
use super::simd::{Avx2, Simd};
use super::tiles::{self, Tile};

/// Rows of weights of a vector, and vectors of a group.
const LANES: usize = Avx2::LANES;
const VECTORS: usize = ROWS / LANES;

/// An [`Unfold`](super::panels::Unfold).
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn unfold<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        // What makes numbers of halves that are scaled apart positive.
        let add = _mm256_set1_epi8((if T::MINIMUM { 0 } else { HALVES_OFFSET - T::OFFSET }) as i8);
        let halves = if T::SPLIT { 2 } else { 1 };
        for i in 0..count {
            let head = group.add((first + i) / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            let tile = head.add(T::HEAD + (first + i) % T::TILES * T::BYTES);
            for row in (0..ROWS).step_by(LANES) {
                let out = out.add(i * tile_bytes(T::SPLIT, T::MINIMUM) + 4 * row);
                let mut numbers = T::numbers::<Avx2>(tile, row);
                if T::JOINED {
                    numbers = tiles::joined_numbers::<Avx2, T>(numbers);
                }
                for j in 0..8 {
                    let w = if T::JOINED { numbers[j] } else { _mm256_add_epi8(numbers[j], add) };
                    _mm256_store_si256(out.add(4 * ROWS * j).cast(), w);
                }
                let scales = T::scales::<Avx2>(head, tile, row);
                for half in 0..halves {
                    _mm256_store_ps(out.add(NUMBERS + half * SCALES).cast(), scales.d[half]);
                    if T::MINIMUM {
                        _mm256_store_ps(out.add(NUMBERS + (halves + half) * SCALES).cast(), scales.m[half]);
                    }
                }
            }
        }
    }
}

/// The sums so far of group `g`.
#[inline(always)]
unsafe fn begin<const N: usize>(block: &Block, g: usize) -> [[__m256; VECTORS]; N] {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); VECTORS]; N];
        if !block.sums.is_null() {
            for t in 0..N {
                for v in 0..VECTORS {
                    sums[t][v] = _mm256_loadu_ps(block.sums.add((t * GROUPS + g) * ROWS + v * LANES));
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn end<const N: usize>(block: &Block, g: usize, sums: &[[__m256; VECTORS]; N]) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for t in 0..N {
            for v in 0..VECTORS {
                let out = block.out.add(t * block.out_stride + g * ROWS + v * LANES);
                let sum = if block.accumulate { _mm256_add_ps(_mm256_loadu_ps(out), sums[t][v]) } else { sums[t][v] };
                _mm256_storeu_ps(out, sum);
            }
        }
    }
}

/// Adds the products of words `4 · HALF..` of tile `i`, which is at `tile`: a half of its columns.
#[inline(always)]
unsafe fn half<const N: usize, const HALF: usize>(
    block: &Block,
    tile: *const u8,
    i: usize,
    products: &mut [[__m256i; VECTORS]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for j in 4 * HALF..4 * HALF + 4 {
            let mut w = [_mm256_setzero_si256(); VECTORS];
            for v in 0..VECTORS {
                w[v] = _mm256_load_si256(tile.add(4 * (ROWS * j + LANES * v)).cast());
            }
            for t in 0..N {
                let x = _mm256_set1_epi32(block.acts.numbers(t, i).cast::<i32>().add(j).read_unaligned());
                for v in 0..VECTORS {
                    products[t][v] = _mm256_dpbusd_avx_epi32(products[t][v], w[v], x);
                }
            }
        }
    }
}

/// Scales of a tile's rows, or minimums: those of vector `v` of the `n`th 16.
#[inline(always)]
unsafe fn scales(tile: *const u8, n: usize, v: usize) -> __m256 {
    // SAFETY: as `PanelKernel` demands.
    unsafe { _mm256_load_ps(tile.add(NUMBERS + n * SCALES + 4 * LANES * v).cast()) }
}

/// The sums of both halves, joined: formats of up to five bits.
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn joined_group<const N: usize, const MINIMUM: bool>(block: &Block, g: usize) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<N>(block, g);
        for i in 0..block.count {
            if g == 0 {
                fetch(block, i);
            }
            let tile = block.panel.add(g * block.group + i * tile_bytes(false, MINIMUM));
            let mut products = [[_mm256_setzero_si256(); VECTORS]; N];
            for t in 0..N {
                let scale = &*block.acts.joined(t, i);
                let start = scale.start_of(if MINIMUM { 0 } else { JOINED_OFFSET });
                products[t] = [_mm256_set1_epi32(start); VECTORS];
            }
            half::<N, 0>(block, tile, i, &mut products);
            for t in 0..N {
                for v in 0..VECTORS {
                    products[t][v] = Avx2::shift_right(products[t][v], (*block.acts.joined(t, i)).shift);
                }
            }
            half::<N, 1>(block, tile, i, &mut products);
            for t in 0..N {
                let scale = &*block.acts.joined(t, i);
                let (d, s) = (_mm256_set1_ps(scale.d), _mm256_set1_ps(scale.s));
                for v in 0..VECTORS {
                    let scaled = _mm256_mul_ps(_mm256_cvtepi32_ps(products[t][v]), d);
                    sums[t][v] = _mm256_fmadd_ps(scaled, scales(tile, 0, v), sums[t][v]);
                    if MINIMUM {
                        sums[t][v] = _mm256_fmadd_ps(scales(tile, 1, v), s, sums[t][v]);
                    }
                }
            }
        }
        end(block, g, &sums);
    }
}

/// Each half's sum scaled apart: formats of more bits (one scale for both halves), or with scales of their own.
#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn halves_group<const N: usize, const SPLIT: bool, const MINIMUM: bool>(block: &Block, g: usize) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<N>(block, g);
        for i in 0..block.count {
            if g == 0 {
                fetch(block, i);
            }
            let tile = block.panel.add(g * block.group + i * tile_bytes(SPLIT, MINIMUM));
            let mut first = [[_mm256_setzero_ps(); VECTORS]; N];
            for h in 0..2 {
                let mut products = [[_mm256_setzero_si256(); VECTORS]; N];
                for t in 0..N {
                    let start = if MINIMUM { 0 } else { (*block.acts.halves(t, i)).start[h] };
                    products[t] = [_mm256_set1_epi32(start); VECTORS];
                }
                if h == 0 {
                    half::<N, 0>(block, tile, i, &mut products);
                } else {
                    half::<N, 1>(block, tile, i, &mut products);
                }
                for t in 0..N {
                    let d = _mm256_set1_ps((*block.acts.halves(t, i)).d[h]);
                    for v in 0..VECTORS {
                        let sum = _mm256_cvtepi32_ps(products[t][v]);
                        if SPLIT {
                            sums[t][v] = _mm256_fmadd_ps(_mm256_mul_ps(sum, d), scales(tile, h, v), sums[t][v]);
                        } else if h == 0 {
                            first[t][v] = _mm256_mul_ps(sum, d);
                        } else {
                            let both = _mm256_fmadd_ps(sum, d, first[t][v]);
                            sums[t][v] = _mm256_fmadd_ps(both, scales(tile, 0, v), sums[t][v]);
                        }
                    }
                }
            }
            if MINIMUM {
                for h in 0..2 {
                    for t in 0..N {
                        let s = _mm256_set1_ps((*block.acts.halves(t, i)).scaled_sum(h));
                        for v in 0..VECTORS {
                            sums[t][v] = _mm256_fmadd_ps(scales(tile, 2 + h, v), s, sums[t][v]);
                        }
                    }
                }
            }
        }
        end(block, g, &sums);
    }
}

/// A [`PanelKernel`] for `G` groups, one after the other.
unsafe fn joined<const N: usize, const G: usize, const MINIMUM: bool>(block: &Block) {
    for g in 0..G {
        // SAFETY: as `PanelKernel` demands.
        unsafe { joined_group::<N, MINIMUM>(block, g) };
    }
}

/// As [`joined`].
unsafe fn halves<const N: usize, const G: usize, const SPLIT: bool, const MINIMUM: bool>(block: &Block) {
    for g in 0..G {
        // SAFETY: as `PanelKernel` demands.
        unsafe { halves_group::<N, SPLIT, MINIMUM>(block, g) };
    }
}

const WIDTHS: &[usize] = &[6, 4, 2, 1];

macro_rules! widths {
    ($kernel:ident, $groups:literal $(, $constant:literal)*) => {
        &[
            $kernel::<6, $groups $(, $constant)*>,
            $kernel::<4, $groups $(, $constant)*>,
            $kernel::<2, $groups $(, $constant)*>,
            $kernel::<1, $groups $(, $constant)*>,
        ]
    };
}

const fn of<T: Tile>() -> Panels {
    let run: [&'static [PanelKernel]; GROUPS] = match (T::JOINED, T::SPLIT, T::MINIMUM) {
        (true, _, false) => [widths!(joined, 1, false), widths!(joined, 2, false)],
        (true, _, true) => [widths!(joined, 1, true), widths!(joined, 2, true)],
        (false, false, _) => [widths!(halves, 1, false, false), widths!(halves, 2, false, false)],
        (false, true, false) => [widths!(halves, 1, true, false), widths!(halves, 2, true, false)],
        (false, true, true) => [widths!(halves, 1, true, true), widths!(halves, 2, true, true)],
    };
    Panels {
        tensor_type: T::TYPE,
        isa: Isa::AvxVnni,
        least_rows: LEAST_ROWS,
        groups: GROUPS,
        unfold: unfold::<T>,
        tile: tile_bytes(T::SPLIT, T::MINIMUM),
        widths: WIDTHS,
        run,
    }
}

macro_rules! panels {
    ($($format:ident)*) => {
        /// What multiplies each format.
        pub(super) static PANELS: &[Panels] = &[$(of::<tiles::$format>(),)*];
    };
}

panels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }
