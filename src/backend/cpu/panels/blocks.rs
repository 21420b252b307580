//! Weights in blocks of 32.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a vector, in several arrays at once

use super::{Block, GROUPS, NUMBERS, ROWS, SCALES, begin, end, fetch, half, kernels, tile_bytes, vector};
use crate::backend::cpu::simd::{Avx2, Avx512Vnni, Vnni};

/// The sums of both halves, joined: formats of up to five bits.
#[inline(always)]
unsafe fn joined<S: Vnni, const N: usize, const V: usize, const MINIMUM: bool>(block: &Block, group: usize) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<S, N, V>(block, group * ROWS);
        for i in 0..block.count {
            if group == 0 {
                fetch::<GROUPS>(block, i);
            }
            let tile = block.panel.add(i * tile_bytes(false, MINIMUM));
            let x = std::array::from_fn(|t| block.acts.numbers(t, i));
            let mut products = [[S::splat_i32(0); V]; N];
            for t in 0..N {
                let scale = block.acts.joined(t, i);
                let start = if MINIMUM { (*scale).half } else { (*scale).start };
                products[t] = [S::splat_i32(start); V];
            }
            half::<S, N, V, 0>(block, group, tile, x, &mut products);
            for t in 0..N {
                for v in 0..V {
                    products[t][v] = S::shift_right(products[t][v], (*block.acts.joined(t, i)).shift);
                }
            }
            half::<S, N, V, 1>(block, group, tile, x, &mut products);
            for t in 0..N {
                let scale = &*block.acts.joined(t, i);
                let (d, s) = (S::splat(scale.d), S::splat(scale.s));
                for v in 0..V {
                    let scales = |n: usize| {
                        S::load_f32(vector::<S>(tile.add(NUMBERS + n * SCALES), block.group, group, v).cast())
                    };
                    sums[t][v] = S::fma(S::mul(S::to_float(products[t][v]), d), scales(0), sums[t][v]);
                    if MINIMUM {
                        sums[t][v] = S::fma(scales(1), s, sums[t][v]);
                    }
                }
            }
        }
        end::<S, N, V>(block, group * ROWS, &sums);
    }
}

kernels!(joined, joined_512, joined_256, 1, MINIMUM);

/// Each half's sum scaled apart: formats of more bits.
#[inline(always)]
unsafe fn halves<S: Vnni, const N: usize, const V: usize>(block: &Block, group: usize) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<S, N, V>(block, group * ROWS);
        for i in 0..block.count {
            if group == 0 {
                fetch::<GROUPS>(block, i);
            }
            let tile = block.panel.add(i * tile_bytes(false, false));
            let x = std::array::from_fn(|t| block.acts.numbers(t, i));
            let mut products = [[S::splat_i32(0); V]; N];
            for t in 0..N {
                products[t] = [S::splat_i32((*block.acts.halves(t, i)).start[0]); V];
            }
            half::<S, N, V, 0>(block, group, tile, x, &mut products);
            let mut first = [[S::splat(0.0); V]; N];
            for t in 0..N {
                let halves = &*block.acts.halves(t, i);
                for v in 0..V {
                    first[t][v] = S::mul(S::to_float(products[t][v]), S::splat(halves.d[0]));
                }
                products[t] = [S::splat_i32(halves.start[1]); V];
            }
            half::<S, N, V, 1>(block, group, tile, x, &mut products);
            for t in 0..N {
                let d = S::splat((*block.acts.halves(t, i)).d[1]);
                for v in 0..V {
                    let scales = S::load_f32(vector::<S>(tile.add(NUMBERS), block.group, group, v).cast());
                    let both = S::fma(S::to_float(products[t][v]), d, first[t][v]);
                    sums[t][v] = S::fma(both, scales, sums[t][v]);
                }
            }
        }
        end::<S, N, V>(block, group * ROWS, &sums);
    }
}

kernels!(halves, halves_512, halves_256, 1);
