//! Weights in super-blocks of 256. Sums are kept in units of the activations' scale: see
//! [`SuperBlock`](crate::backend::cpu::quantize::SuperBlock).
//!
//! After a block's tiles stand its minimums, as the instruction that adds two products of 16 bits wants them: those of two tiles, or of
//! two halves, of each row, for each pair; then `−256 · dmin` of the rows.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a group, in several arrays at once

use std::arch::x86_64::*;

use super::{Block, NUMBERS, SCALES, begin, end, fetch, half, tile_bytes};
use crate::backend::cpu::quantize::{BLOCK, SUMS_UNIT};
use crate::backend::cpu::simd::{Avx512Vnni, shift_left};
use crate::backend::cpu::tiles::Tile;

/// Tiles of a super-block.
const TILES: usize = 8;

/// Pairs of minimums.
const fn pairs(split: bool) -> usize {
    if split { TILES } else { TILES / 2 }
}

/// Bytes of the minimums of a super-block.
pub(super) const fn minimums_bytes(split: bool, minimum: bool) -> usize {
    if minimum { (pairs(split) + 1) * SCALES } else { 0 }
}

/// Writes the minimums of the packed super-block at `head`.
///
/// # Safety
/// As [`Unfold`](super::Unfold).
#[inline(always)]
pub(super) unsafe fn unfold_minimums<T: Tile>(head: *const u8, out: *mut u8) {
    // SAFETY: as demanded.
    unsafe {
        let minimum = |i: usize, half: usize| {
            let tile = head.add(T::HEAD + i * T::BYTES);
            _mm512_cvtps_epi32(T::scales::<Avx512Vnni>(head, tile, 0).m[half])
        };
        for j in 0..pairs(T::SPLIT) {
            let (a, b) =
                if T::SPLIT { (minimum(j, 0), minimum(j, 1)) } else { (minimum(2 * j, 0), minimum(2 * j + 1, 0)) };
            _mm512_store_si512(out.add(j * SCALES).cast(), _mm512_or_si512(a, _mm512_slli_epi32::<16>(b)));
        }
        let scale = _mm512_mul_ps(T::dmin::<Avx512Vnni>(head, 0), _mm512_set1_ps(-SUMS_UNIT));
        _mm512_store_ps(out.add(pairs(T::SPLIT) * SCALES).cast(), scale);
    }
}

/// Multiplies super-blocks: with scales for halves of tiles (`SPLIT`) or for tiles, with minimums or without.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn multiply<const N: usize, const G: usize, const SPLIT: bool, const MINIMUM: bool>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let bytes = TILES * tile_bytes(SPLIT, false) + minimums_bytes(SPLIT, MINIMUM);
        let mut sums = begin::<N, G>(block);
        for b in 0..block.count {
            let acts: [_; N] = std::array::from_fn(|t| block.acts.super_block(t, b));
            for t in 0..N {
                let ratio = _mm512_set1_ps((*acts[t]).ratio);
                for g in 0..G {
                    sums[t][g] = _mm512_mul_ps(sums[t][g], ratio);
                }
            }
            let panel = block.panel.add(b * bytes);
            for i in 0..TILES {
                fetch(block, b * TILES + i);
                let tile = panel.add(i * tile_bytes(SPLIT, false));
                let x = |t: usize| (*acts[t]).q.as_ptr().add(i * BLOCK);
                let start = |t: usize, half: usize| match MINIMUM {
                    true => [_mm512_setzero_si512(); G],
                    false => [_mm512_set1_epi32((&(*acts[t]).start)[2 * i + half]); G],
                };
                let shifted = |product: __m512i, t: usize, half: usize| {
                    shift_left(product, _mm512_set1_epi32((&(*acts[t]).shift)[2 * i + half]))
                };
                let scale =
                    |g: usize, half: usize| _mm512_load_ps(tile.add(g * block.group + NUMBERS + half * SCALES).cast());
                let mut products = std::array::from_fn(|t| start(t, 0));
                half::<N, G, 0>(block, tile, x, &mut products);
                let mut first = [[_mm512_setzero_si512(); G]; N];
                for t in 0..N {
                    for g in 0..G {
                        first[t][g] = shifted(products[t][g], t, 0);
                        if SPLIT {
                            sums[t][g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(first[t][g]), scale(g, 0), sums[t][g]);
                        }
                    }
                }
                products = std::array::from_fn(|t| start(t, 1));
                half::<N, G, 1>(block, tile, x, &mut products);
                for t in 0..N {
                    for g in 0..G {
                        let second = shifted(products[t][g], t, 1);
                        let sum = if SPLIT { second } else { _mm512_add_epi32(first[t][g], second) };
                        sums[t][g] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale(g, usize::from(SPLIT)), sums[t][g]);
                    }
                }
            }
            if MINIMUM {
                let minimums = panel.add(TILES * tile_bytes(SPLIT, false));
                let mut products = [[_mm512_setzero_si512(); G]; N];
                for j in 0..pairs(SPLIT) {
                    for t in 0..N {
                        let all = if SPLIT { (*acts[t]).sums.as_ptr() } else { (*acts[t]).tile_sums.as_ptr() };
                        let pair = _mm512_set1_epi32(all.cast::<i32>().add(j).read_unaligned());
                        for g in 0..G {
                            let minimums = _mm512_load_si512(minimums.add(g * block.group + j * SCALES).cast());
                            products[t][g] = _mm512_dpwssd_epi32(products[t][g], minimums, pair);
                        }
                    }
                }
                for t in 0..N {
                    for g in 0..G {
                        let scale = minimums.add(g * block.group + pairs(SPLIT) * SCALES).cast();
                        let product = _mm512_cvtepi32_ps(products[t][g]);
                        sums[t][g] = _mm512_fmadd_ps(product, _mm512_load_ps(scale), sums[t][g]);
                    }
                }
            }
        }
        if block.last {
            for t in 0..N {
                let d = _mm512_set1_ps((*block.acts.super_block(t, block.count - 1)).d);
                for g in 0..G {
                    sums[t][g] = _mm512_mul_ps(sums[t][g], d);
                }
            }
        }
        end(block, &sums);
    }
}
