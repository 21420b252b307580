//! Few rows of activations: weights are unpacked in registers.

#![allow(clippy::needless_range_loop)] // the index is that of a word, in several arrays at once

use std::arch::x86_64::*;

use super::super::kernels::Quantized;
use super::super::pack::ROWS;
use super::super::simd::{Avx2, Fetch, Simd};
use super::super::tiles::{Scales, Tile};
use super::multiples::Multiples;
use super::{Numbers, prepared, scales, splat_pair, splat_word, widened};

/// Rows of a vector.
const LANES: usize = 8;

/// A [`PackedKernel`](super::super::kernels::PackedKernel).
///
/// # Safety
/// As that demands.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn packed<T: Tile, const N: usize>(
    group: *const u8,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        // Where there are registers for it, both halves of a tile's rows at once: memory is then read in order.
        match N {
            1 | 2 => rows::<T, N, 2>(group, 0, tiles, acts, unread, out),
            _ => {
                rows::<T, N, 1>(group, 0, tiles, acts, unread, out);
                rows::<T, N, 1>(group, LANES, tiles, acts, unread, out);
            }
        }
    }
}

/// `VECTORS` vectors of rows from `row`.
#[inline(always)]
unsafe fn rows<T: Tile, const N: usize, const VECTORS: usize>(
    group: *const u8,
    row: usize,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut sums = [[_mm256_setzero_ps(); N]; VECTORS];
        let mut head = group;
        let fetch = Fetch::new();
        for block in (0..tiles).step_by(T::TILES) {
            for i in 0..T::TILES {
                let tile = head.add(T::HEAD + i * T::BYTES);
                if unread && row == 0 {
                    fetch.ahead_of(tile, T::BYTES);
                }
                if T::WIDE {
                    wide::<T, N, VECTORS>(head, tile, row, acts, block + i, &mut sums);
                } else {
                    for (v, sums) in sums.iter_mut().enumerate() {
                        accumulate::<T, N>(head, tile, row + v * LANES, acts, block + i, sums);
                    }
                }
            }
            head = head.add(T::HEAD + T::TILES * T::BYTES);
        }
        for (v, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                let sum = _mm256_mul_ps(sum, _mm256_set1_ps(*acts.unit(t, T::WIDE)));
                _mm256_storeu_ps(out.add(t * ROWS + row + v * LANES), sum);
            }
        }
    }
}

/// Adds the products of one tile.
#[inline(always)]
unsafe fn accumulate<T: Tile, const N: usize>(
    head: *const u8,
    tile: *const u8,
    row: usize,
    acts: &Quantized,
    block: usize,
    sums: &mut [__m256; N],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut w = T::numbers::<Avx2>(tile, row);
        let scales = scales::<T>(head, tile, row);
        // What is the same for all rows of activations is done to the weights, if there are enough rows.
        let several = N > 2;
        if several {
            w = prepared::<T>(w);
        }
        for t in 0..N {
            let multiples = &*acts.multiples(t, block);
            sums[t] = products::<T>(&w, several, acts.numbers(t, block), multiples, &scales, sums[t]);
        }
    }
}

/// Adds the products of a tile with numbers of eight bits and blocks of activations of 16. A word of these, once it is in all
/// lanes, serves all vectors.
#[inline(always)]
unsafe fn wide<T: Tile, const N: usize, const VECTORS: usize>(
    head: *const u8,
    tile: *const u8,
    row: usize,
    acts: &Quantized,
    block: usize,
    sums: &mut [[__m256; N]; VECTORS],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut w = [[_mm256_setzero_si256(); 8]; VECTORS];
        for v in 0..VECTORS {
            w[v] = T::numbers::<Avx2>(tile, row + v * LANES);
        }
        let mut products = [[_mm256_setzero_si256(); N]; VECTORS];
        for j in 0..8 {
            let mut pairs = [[_mm256_setzero_si256(); 2]; VECTORS];
            for v in 0..VECTORS {
                pairs[v] = widened(w[v][j]);
            }
            for t in 0..N {
                let x = acts.wide(t, block).add(4 * j);
                let (even, odd) = (splat_word(x.cast()), splat_word(x.add(2).cast()));
                for v in 0..VECTORS {
                    let sum = _mm256_add_epi32(products[v][t], _mm256_madd_epi16(pairs[v][0], even));
                    products[v][t] = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs[v][1], odd));
                }
            }
        }
        for v in 0..VECTORS {
            let scales = scales::<T>(head, tile, row + v * LANES);
            for t in 0..N {
                sums[v][t] = Avx2::fma(Avx2::to_float(products[v][t]), scales.d[0], sums[v][t]);
            }
        }
    }
}

/// Adds the products of a tile with numbers of up to six bits and a block of activations.
#[inline(always)]
unsafe fn products<T: Tile>(
    w: &[__m256i; 8],
    prepared: bool,
    x: *const i8,
    multiples: &Multiples,
    scales: &Scales<Avx2>,
    mut sum: __m256,
) -> __m256 {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let m = splat_pair(&multiples.m);
        let start = |start: &[i16; 2]| match (T::START, prepared) {
            (false, _) => _mm256_setzero_si256(),
            (true, true) => splat_pair(start),
            (true, false) => match T::PREPARED / T::LESS {
                1 => splat_pair(start),
                2 => _mm256_srai_epi16::<1>(splat_pair(start)),
                _ => {
                    const { assert!(!T::START || matches!(T::PREPARED / T::LESS, 1 | 2 | 8)) };
                    _mm256_srai_epi16::<3>(splat_pair(start))
                }
            },
        };
        let word = |j: usize| _mm256_maddubs_epi16(w[j], splat_word(x.add(4 * j)));
        if T::SPLIT {
            for half in 0..2 {
                let mut products = start(&multiples.half_start[half]);
                for j in 4 * half..4 * half + 4 {
                    products = _mm256_add_epi16(products, word(j));
                }
                let products = Avx2::to_float(_mm256_madd_epi16(products, m));
                sum = Avx2::fma(products, scales.d[half], sum);
            }
            if T::MINIMUM {
                for half in 0..2 {
                    sum = Avx2::fma(scales.m[half], Avx2::splat(multiples.half_sum[half]), sum);
                }
            }
            return sum;
        }
        // (Two chains: one does not wait for the other.)
        let (mut a, mut b) = (start(&multiples.start), word(4));
        for j in 0..4 {
            a = _mm256_add_epi16(a, word(j));
        }
        for j in 5..8 {
            b = _mm256_add_epi16(b, word(j));
        }
        let products = Avx2::to_float(_mm256_madd_epi16(_mm256_add_epi16(a, b), m));
        sum = Avx2::fma(products, scales.d[0], sum);
        if T::MINIMUM {
            sum = Avx2::fma(scales.m[0], Avx2::splat(multiples.sum), sum);
        }
        sum
    }
}
