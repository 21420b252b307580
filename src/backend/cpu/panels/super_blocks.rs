//! Weights in super-blocks of 256. Sums are kept in units of the activations' scale: see
//! [`SuperBlock`](crate::backend::cpu::quantize::SuperBlock).
//!
//! After a block's tiles stand its minimums, as the instruction that adds two products of 16 bits wants them: those of two tiles, or of
//! two halves, of each row, for each pair; then `−256 · dmin` of the rows.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a group, in several arrays at once

use super::{Block, GROUPS, NUMBERS, ROWS, SCALES, begin, end, fetch, half, kernels, tile_bytes, vector};
use crate::backend::cpu::quantize::{BLOCK, SUMS_UNIT};
use crate::backend::cpu::simd::{Avx2, Avx512Vnni, Vnni};
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

/// Writes the minimums of rows from `row` of the packed super-block at `head`.
///
/// # Safety
/// As [`Unfold`](super::Unfold).
#[inline(always)]
pub(super) unsafe fn unfold_minimums<S: Vnni, T: Tile>(head: *const u8, row: usize, out: *mut u8) {
    // SAFETY: as demanded.
    unsafe {
        let minimum =
            |i: usize, half: usize| S::to_int(T::scales::<S>(head, head.add(T::HEAD + i * T::BYTES), row).m[half]);
        for j in 0..pairs(T::SPLIT) {
            let [a, b] = if T::SPLIT { [(j, 0), (j, 1)] } else { [(2 * j, 0), (2 * j + 1, 0)] };
            S::store(out.add(j * SCALES), S::or(minimum(a.0, a.1), S::shift_left(minimum(b.0, b.1), 16)));
        }
        let scale = S::mul(T::dmin::<S>(head, row), S::splat(-SUMS_UNIT));
        S::store_f32(out.add(pairs(T::SPLIT) * SCALES).cast(), scale);
    }
}

/// Multiplies super-blocks: with scales for halves of tiles (`SPLIT`) or for tiles, with minimums or without.
#[inline(always)]
unsafe fn multiply<S: Vnni, const N: usize, const V: usize, const SPLIT: bool, const MINIMUM: bool>(
    block: &Block,
    group: usize,
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let bytes = TILES * tile_bytes(SPLIT, false) + minimums_bytes(SPLIT, MINIMUM);
        let mut sums = begin::<S, N, V>(block, group * ROWS);
        for b in 0..block.count {
            for t in 0..N {
                let ratio = S::splat((*block.acts.super_block(t, b)).ratio);
                for v in 0..V {
                    sums[t][v] = S::mul(sums[t][v], ratio);
                }
            }
            let panel = block.panel.add(b * bytes);
            for i in 0..TILES {
                if group == 0 {
                    fetch::<GROUPS>(block, b * TILES + i);
                }
                tile::<S, N, V, SPLIT, MINIMUM>(
                    block,
                    group,
                    panel.add(i * tile_bytes(SPLIT, false)),
                    (b, i),
                    &mut sums,
                );
            }
            if MINIMUM {
                let minimums = panel.add(TILES * tile_bytes(SPLIT, false));
                subtract_minimums::<S, N, V, SPLIT>(block, group, minimums, b, &mut sums);
            }
        }
        if block.last {
            for t in 0..N {
                let d = S::splat((*block.acts.super_block(t, block.count - 1)).d);
                for v in 0..V {
                    sums[t][v] = S::mul(sums[t][v], d);
                }
            }
        }
        end::<S, N, V>(block, group * ROWS, &sums);
    }
}

kernels!(multiply, multiply_512, multiply_256, 8, SPLIT, MINIMUM);

/// Adds the products of tile `i` of super-block `b`.
#[inline(always)]
unsafe fn tile<S: Vnni, const N: usize, const V: usize, const SPLIT: bool, const MINIMUM: bool>(
    block: &Block,
    group: usize,
    tile: *const u8,
    (b, i): (usize, usize),
    sums: &mut [[S::F; V]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let x = std::array::from_fn(|t| (*block.acts.super_block(t, b)).q.as_ptr().add(i * BLOCK));
        let scale = |half: usize, v: usize| {
            S::load_f32(vector::<S>(tile.add(NUMBERS + half * SCALES), block.group, group, v).cast())
        };
        let (mut products, mut first) = ([[S::splat_i32(0); V]; N], [[S::splat_i32(0); V]; N]);
        if !MINIMUM {
            for t in 0..N {
                products[t] = [S::splat_i32((&(*block.acts.super_block(t, b)).start)[2 * i]); V];
            }
        }
        half::<S, N, V, 0>(block, group, tile, x, &mut products);
        for t in 0..N {
            let acts = &*block.acts.super_block(t, b);
            for v in 0..V {
                first[t][v] = S::shift_left(products[t][v], acts.shift[2 * i]);
                if SPLIT {
                    sums[t][v] = S::fma(S::to_float(first[t][v]), scale(0, v), sums[t][v]);
                }
                products[t][v] = S::splat_i32(if MINIMUM { 0 } else { acts.start[2 * i + 1] });
            }
        }
        half::<S, N, V, 1>(block, group, tile, x, &mut products);
        for t in 0..N {
            let shift = (&(*block.acts.super_block(t, b)).shift)[2 * i + 1];
            for v in 0..V {
                let second = S::shift_left(products[t][v], shift);
                let sum = if SPLIT { second } else { S::add_i32(first[t][v], second) };
                sums[t][v] = S::fma(S::to_float(sum), scale(usize::from(SPLIT), v), sums[t][v]);
            }
        }
    }
}

/// Adds the products of super-block `b`'s minimums, which are at `minimums` with their scale, with the activations' sums.
#[inline(always)]
unsafe fn subtract_minimums<S: Vnni, const N: usize, const V: usize, const SPLIT: bool>(
    block: &Block,
    group: usize,
    minimums: *const u8,
    b: usize,
    sums: &mut [[S::F; V]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut products = [[S::splat_i32(0); V]; N];
        for j in 0..pairs(SPLIT) {
            for t in 0..N {
                let acts = &*block.acts.super_block(t, b);
                let all = if SPLIT { acts.sums.as_ptr() } else { acts.tile_sums.as_ptr() };
                let pair = S::splat_i32(all.cast::<i32>().add(j).read_unaligned());
                for v in 0..V {
                    let minimums = S::load(vector::<S>(minimums.add(j * SCALES), block.group, group, v));
                    products[t][v] = S::dot_pairs(products[t][v], minimums, pair);
                }
            }
        }
        for t in 0..N {
            for v in 0..V {
                let scale = vector::<S>(minimums.add(pairs(SPLIT) * SCALES), block.group, group, v);
                sums[t][v] = S::fma(S::to_float(products[t][v]), S::load_f32(scale.cast()), sums[t][v]);
            }
        }
    }
}
