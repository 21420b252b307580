//! Weights in blocks of 32.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a group, in several arrays at once

use std::arch::x86_64::*;

use super::{Block, NUMBERS, ROWS, begin, end, fetch, half, tile_bytes};
use crate::backend::cpu::quantize::JOINED_OFFSET;
use crate::backend::cpu::simd::shift_right;

/// The sums of both halves, joined: formats of up to five bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn joined<const N: usize, const G: usize, const MINIMUM: bool>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<N, G>(block);
        for i in 0..block.count {
            fetch(block, i);
            let tile = block.panel.add(i * tile_bytes(false, MINIMUM));
            let mut products = [[_mm512_setzero_si512(); G]; N];
            for t in 0..N {
                let scale = &*block.acts.joined(t, i);
                let start = scale.start_of(if MINIMUM { 0 } else { JOINED_OFFSET });
                products[t] = [_mm512_set1_epi32(start); G];
            }
            half::<N, G, 0>(block, tile, |t| block.acts.numbers(t, i), &mut products);
            for t in 0..N {
                let shift = _mm512_set1_epi32((*block.acts.joined(t, i)).shift);
                for g in 0..G {
                    products[t][g] = shift_right(products[t][g], shift);
                }
            }
            half::<N, G, 1>(block, tile, |t| block.acts.numbers(t, i), &mut products);
            for t in 0..N {
                let scale = &*block.acts.joined(t, i);
                let (d, s) = (_mm512_set1_ps(scale.d), _mm512_set1_ps(scale.s));
                for g in 0..G {
                    let scales = tile.add(g * block.group + NUMBERS).cast::<f32>();
                    let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(products[t][g]), d);
                    sums[t][g] = _mm512_fmadd_ps(scaled, _mm512_load_ps(scales), sums[t][g]);
                    if MINIMUM {
                        sums[t][g] = _mm512_fmadd_ps(_mm512_load_ps(scales.add(ROWS)), s, sums[t][g]);
                    }
                }
            }
        }
        end(block, &sums);
    }
}

/// Each half's sum scaled apart: formats of more bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn halves<const N: usize, const G: usize>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<N, G>(block);
        for i in 0..block.count {
            fetch(block, i);
            let tile = block.panel.add(i * tile_bytes(false, false));
            let x = |t| block.acts.numbers(t, i);
            let start = |t, half: usize| [_mm512_set1_epi32((*block.acts.halves(t, i)).start[half]); G];
            let mut products = std::array::from_fn(|t| start(t, 0));
            half::<N, G, 0>(block, tile, x, &mut products);
            let mut first = [[_mm512_setzero_ps(); G]; N];
            for t in 0..N {
                let d = _mm512_set1_ps((*block.acts.halves(t, i)).d[0]);
                for g in 0..G {
                    first[t][g] = _mm512_mul_ps(_mm512_cvtepi32_ps(products[t][g]), d);
                }
            }
            products = std::array::from_fn(|t| start(t, 1));
            half::<N, G, 1>(block, tile, x, &mut products);
            for t in 0..N {
                let d = _mm512_set1_ps((*block.acts.halves(t, i)).d[1]);
                for g in 0..G {
                    let scales = tile.add(g * block.group + NUMBERS).cast::<f32>();
                    let both = _mm512_fmadd_ps(_mm512_cvtepi32_ps(products[t][g]), d, first[t][g]);
                    sums[t][g] = _mm512_fmadd_ps(both, _mm512_load_ps(scales), sums[t][g]);
                }
            }
        }
        end(block, &sums);
    }
}
