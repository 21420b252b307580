//! Many rows of activations: weights are unfolded once for all of them, to the layout of [`panels`](super::super::panels).
//!
//! What bounds it, of four vector ports two of which multiply (Zen 5; three and two on Intel): a tile of 8 rows takes 8 products of
//! bytes, 8 additions, a product of pairs, a conversion and a scaling (19 operations, 9 of them products), with a minimum one more, with
//! scales for halves three. Numbers of eight bits take 16 products and as many additions (34 operations).

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::super::features::Isa;
use super::super::pack::ROWS;
use super::super::panels::{self, Block, NUMBERS, PanelKernel, Panels, SCALES, begin, fetch, tile_bytes};
use super::super::quantize::BLOCK;
use super::super::simd::Avx2;
use super::super::tiles::{self, Tile};
use super::multiples::Multiples;
use super::{Numbers, prepared, scales, splat_pair, splat_word, widened};

/// Rows of activations from which on unfolding pays; and with numbers of eight bits, of which kernels for few rows multiply
/// eight at once.
const LEAST_ROWS: usize = 5;
const WIDE_LEAST_ROWS: usize = 16;
/// Rows of weights of a vector, and vectors of a group.
const LANES: usize = 8;
const VECTORS: usize = ROWS / LANES;
/// Bytes of a tile whose numbers are widened: of each word those of even columns, then of odd ones. Scales follow.
const WIDE_TILE: usize = 2 * NUMBERS + SCALES;

/// An [`Unfold`](super::super::panels::Unfold).
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn unfold<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        let store = |out: *mut u8, vector: __m256i| _mm256_store_si256(out.cast(), vector);
        let store_scales = |out: *mut u8, scales: __m256| _mm256_store_ps(out.cast(), scales);
        for i in 0..count {
            let head = group.add((first + i) / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            let tile = head.add(T::HEAD + (first + i) % T::TILES * T::BYTES);
            for row in (0..ROWS).step_by(LANES) {
                let out = out.add(4 * row);
                let numbers = prepared::<T>(T::numbers::<Avx2>(tile, row));
                let scales = scales::<T>(head, tile, row);
                if T::WIDE {
                    let out = out.add(i * WIDE_TILE);
                    for j in 0..8 {
                        let [even, odd] = widened(numbers[j]);
                        store(out.add(4 * ROWS * 2 * j), even);
                        store(out.add(4 * ROWS * (2 * j + 1)), odd);
                    }
                    store_scales(out.add(2 * NUMBERS), scales.d[0]);
                    continue;
                }
                let out = out.add(i * tile_bytes(T::SPLIT, T::MINIMUM));
                for j in 0..8 {
                    store(out.add(4 * ROWS * j), numbers[j]);
                }
                let halves = if T::SPLIT { 2 } else { 1 };
                for half in 0..halves {
                    store_scales(out.add(NUMBERS + half * SCALES), scales.d[half]);
                    if T::MINIMUM {
                        store_scales(out.add(NUMBERS + (halves + half) * SCALES), scales.m[half]);
                    }
                }
            }
        }
    }
}

/// Sums of `N` rows of activations and `V` vectors of rows.
type Sums<const N: usize, const V: usize> = [[__m256; V]; N];

/// Puts sums where they go, after the last tiles in the activations' units.
#[inline(always)]
unsafe fn end<const N: usize, const V: usize>(block: &Block, first: usize, wide: bool, mut sums: Sums<N, V>) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        if block.last {
            for t in 0..N {
                let unit = _mm256_set1_ps(*block.acts.unit(t, wide));
                for v in 0..V {
                    sums[t][v] = _mm256_mul_ps(sums[t][v], unit);
                }
            }
        }
        panels::end::<Avx2, N, V>(block, first * LANES, &sums);
    }
}

/// Adds the products of words `from..to` of tile `i`, in 16 bits.
#[inline(always)]
unsafe fn words<const N: usize, const V: usize>(
    block: &Block,
    tile: *const u8,
    i: usize,
    (from, to): (usize, usize),
    products: &mut [[__m256i; V]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for j in from..to {
            let mut w = [_mm256_setzero_si256(); V];
            for v in 0..V {
                w[v] = _mm256_load_si256(tile.add(4 * (ROWS * j + LANES * v)).cast());
            }
            for t in 0..N {
                let x = splat_word(block.acts.numbers(t, i).add(4 * j));
                for v in 0..V {
                    products[t][v] = _mm256_add_epi16(products[t][v], _mm256_maddubs_epi16(w[v], x));
                }
            }
        }
    }
}

/// Scales of a tile's rows.
#[inline(always)]
unsafe fn load_scales(tile: *const u8, n: usize, v: usize) -> __m256 {
    // SAFETY: as `PanelKernel` demands.
    unsafe { _mm256_load_ps(tile.add(NUMBERS + n * SCALES + 4 * LANES * v).cast()) }
}

/// Numbers of up to five bits.
#[inline(always)]
unsafe fn joined_run<const N: usize, const V: usize, const START: bool, const MINIMUM: bool>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for first in (0..VECTORS).step_by(V) {
            let mut sums = begin::<Avx2, N, V>(block, first * LANES);
            for i in 0..block.count {
                if first == 0 {
                    fetch::<1>(block, i);
                }
                let tile = block.panel.add(i * tile_bytes(false, MINIMUM) + 4 * LANES * first);
                let mut products = [[_mm256_setzero_si256(); V]; N];
                if START {
                    for t in 0..N {
                        products[t] = [splat_pair(&(*block.acts.multiples(t, i)).start); V];
                    }
                }
                words(block, tile, i, (0, 8), &mut products);
                for t in 0..N {
                    let multiples = &*block.acts.multiples(t, i);
                    let m = splat_pair(&multiples.m);
                    for v in 0..V {
                        let product = _mm256_cvtepi32_ps(_mm256_madd_epi16(products[t][v], m));
                        sums[t][v] = _mm256_fmadd_ps(product, load_scales(tile, 0, v), sums[t][v]);
                        if MINIMUM {
                            let sum = _mm256_set1_ps(multiples.sum);
                            sums[t][v] = _mm256_fmadd_ps(load_scales(tile, 1, v), sum, sums[t][v]);
                        }
                    }
                }
            }
            end(block, first, false, sums);
        }
    }
}

/// Numbers of up to six bits, with scales for each half.
#[inline(always)]
unsafe fn halves_run<const N: usize, const V: usize, const START: bool, const MINIMUM: bool>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for first in (0..VECTORS).step_by(V) {
            let mut sums = begin::<Avx2, N, V>(block, first * LANES);
            for i in 0..block.count {
                if first == 0 {
                    fetch::<1>(block, i);
                }
                let tile = block.panel.add(i * tile_bytes(true, MINIMUM) + 4 * LANES * first);
                for half in 0..2 {
                    let mut products = [[_mm256_setzero_si256(); V]; N];
                    if START {
                        for t in 0..N {
                            products[t] = [splat_pair(&(*block.acts.multiples(t, i)).half_start[half]); V];
                        }
                    }
                    words(block, tile, i, (4 * half, 4 * half + 4), &mut products);
                    for t in 0..N {
                        let m = splat_pair(&(*block.acts.multiples(t, i)).m);
                        for v in 0..V {
                            let product = _mm256_cvtepi32_ps(_mm256_madd_epi16(products[t][v], m));
                            sums[t][v] = _mm256_fmadd_ps(product, load_scales(tile, half, v), sums[t][v]);
                        }
                    }
                }
                if MINIMUM {
                    for half in 0..2 {
                        for t in 0..N {
                            let sum = _mm256_set1_ps((*block.acts.multiples(t, i)).half_sum[half]);
                            for v in 0..V {
                                sums[t][v] = _mm256_fmadd_ps(load_scales(tile, 2 + half, v), sum, sums[t][v]);
                            }
                        }
                    }
                }
            }
            end(block, first, false, sums);
        }
    }
}

/// Numbers of eight bits, widened to 16.
#[inline(always)]
unsafe fn wide_run<const N: usize>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<Avx2, N, VECTORS>(block, 0);
        for i in 0..block.count {
            fetch::<1>(block, i);
            let tile = block.panel.add(i * WIDE_TILE);
            let mut products = [[_mm256_setzero_si256(); VECTORS]; N];
            for j in 0..16 {
                let mut w = [_mm256_setzero_si256(); VECTORS];
                for v in 0..VECTORS {
                    w[v] = _mm256_load_si256(tile.add(4 * (ROWS * j + LANES * v)).cast());
                }
                for t in 0..N {
                    let x = splat_word(block.acts.wide(t, i).add(2 * j).cast());
                    for v in 0..VECTORS {
                        products[t][v] = _mm256_add_epi32(products[t][v], _mm256_madd_epi16(w[v], x));
                    }
                }
            }
            for t in 0..N {
                for v in 0..VECTORS {
                    let scale = _mm256_load_ps(tile.add(WIDE_TILE - SCALES + 4 * LANES * v).cast());
                    sums[t][v] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(products[t][v]), scale, sums[t][v]);
                }
            }
        }
        end(block, 0, true, sums);
    }
}

/// Makes [`PanelKernel`]s of functions that multiply one run.
macro_rules! kernels {
    ($($name:ident, $run:ident $(, $constant:ident: $type:ty)*;)*) => {$(
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn $name<const N: usize $(, const $constant: $type)*>(block: &Block) {
            let mut run = *block;
            for _ in 0..block.runs {
                // SAFETY: as `PanelKernel` demands.
                unsafe { $run::<N $(, $constant)*>(&run) };
                run = run.after(1, N, run.count);
            }
        }
    )*};
}

kernels! {
    joined, joined_run, V: usize, START: bool, MINIMUM: bool;
    halves, halves_run, V: usize, START: bool, MINIMUM: bool;
    wide, wide_run;
}

const WIDTHS: &[usize] = &[6, 4, 2, 1];
const WIDE_WIDTHS: &[usize] = &[4, 2, 1];

macro_rules! joined {
    ($start:literal, $minimum:literal) => {
        &[
            joined::<6, 2, $start, $minimum>,
            joined::<4, 2, $start, $minimum>,
            joined::<2, 2, $start, $minimum>,
            joined::<1, 2, $start, $minimum>,
        ]
    };
}

macro_rules! halves {
    ($start:literal, $minimum:literal) => {
        &[
            halves::<6, 1, $start, $minimum>,
            halves::<4, 1, $start, $minimum>,
            halves::<2, 2, $start, $minimum>,
            halves::<1, 2, $start, $minimum>,
        ]
    };
}

const fn of<T: Tile>() -> Panels {
    let run: &'static [PanelKernel] = match (T::WIDE, T::SPLIT, T::START, T::MINIMUM) {
        (true, _, _, _) => &[wide::<4>, wide::<2>, wide::<1>],
        (_, false, true, false) => joined!(true, false),
        (_, false, true, true) => joined!(true, true),
        (_, false, false, _) => joined!(false, true),
        (_, true, true, _) => halves!(true, false),
        (_, true, false, _) => halves!(false, true),
    };
    assert!(T::WIDE || T::START || T::MINIMUM, "kernels of numbers without offset or minimum");
    assert!(!(T::WIDE && (T::SPLIT || T::MINIMUM)), "kernels of numbers with a sign have one scale");
    assert!(!(T::SPLIT && T::START && T::MINIMUM), "kernels with scales for halves have either");
    Panels {
        tensor_type: T::TYPE,
        isa: Isa::Avx2,
        unfold: unfold::<T>,
        tiles: 1,
        block: if T::WIDE { WIDE_TILE } else { tile_bytes(T::SPLIT, T::MINIMUM) },
        acts: if T::WIDE { 2 * BLOCK } else { BLOCK + size_of::<Multiples>() },
        groups: 1,
        least_rows: if T::WIDE { WIDE_LEAST_ROWS } else { LEAST_ROWS },
        widths: if T::WIDE { WIDE_WIDTHS } else { WIDTHS },
        run: [run, &[]],
    }
}

macro_rules! panels {
    ($($format:ident)*) => {
        /// All formats' panels.
        pub(in super::super) static PANELS: &[Panels] = &[$(of::<tiles::$format>(),)*];
    };
}

panels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }
