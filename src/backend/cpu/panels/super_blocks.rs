//! Weights in super-blocks of 256. Sums are kept in units of the activations' scale: see
//! [`SuperBlock`](crate::backend::cpu::quantize::SuperBlock), which says what is shifted and why.
//!
//! Behind a tile's numbers stand its scales as integers, one in each pair of 16 bits, the other being 0. After a block's tiles stand
//! the floats that scale their sums, then its minimums, as the instruction that adds two products of 16 bits wants them: those of two
//! tiles, or of two halves, of each row, for each pair; then `−dmin` of the rows, in the unit of those sums.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a group, in several arrays at once

use super::{Block, GROUPS, NUMBERS, ROWS, SCALES, begin, end, fetch, half, kernels, tile_bytes, vector};
use crate::backend::cpu::quantize::BLOCK;
use crate::backend::cpu::simd::{Avx2, Avx512Vnni, Simd, Vnni};
use crate::backend::cpu::tiles::{Tile, minimums_scale, paired, products_scale};

/// Tiles of a super-block.
const TILES: usize = 8;

/// Pairs of minimums.
const fn pairs(split: bool) -> usize {
    if split { TILES } else { TILES / 2 }
}

/// Bytes of what follows the tiles of a super-block.
pub(super) const fn rest_bytes(split: bool, minimum: bool) -> usize {
    SCALES * if minimum { pairs(split) + 2 } else { 1 }
}

/// Writes numbers and scales of rows from `row` of a tile.
///
/// # Safety
/// As [`Unfold`](super::Unfold).
#[inline(always)]
pub(super) unsafe fn unfold_tile<S: Simd, T: Tile>(tile: *const u8, row: usize, out: *mut u8) {
    // SAFETY: as demanded.
    unsafe {
        for (j, w) in T::raised::<S>(tile, row).into_iter().enumerate() {
            S::store(out.add(4 * ROWS * j), w);
        }
        let scale = T::parts::<S>(tile, row).scale;
        for half in 0..1 + usize::from(T::SPLIT) {
            S::store(out.add(NUMBERS + half * SCALES), paired::<S>(scale[half]));
        }
    }
}

/// Writes what follows the tiles of the packed super-block at `head`, of rows from `row`.
///
/// # Safety
/// As [`Unfold`](super::Unfold).
#[inline(always)]
pub(super) unsafe fn unfold_rest<S: Simd, T: Tile>(head: *const u8, row: usize, out: *mut u8) {
    // SAFETY: as demanded.
    unsafe {
        S::store_f32(out.cast(), products_scale::<S, T>(head, row));
        if T::MINIMUM {
            let minimum = |i: usize, half: usize| T::parts::<S>(head.add(T::HEAD + i * T::BYTES), row).minimum[half];
            for j in 0..pairs(T::SPLIT) {
                let [a, b] = if T::SPLIT { [(j, 0), (j, 1)] } else { [(2 * j, 0), (2 * j + 1, 0)] };
                let pair = S::or(minimum(a.0, a.1), S::shift_left(minimum(b.0, b.1), 16));
                S::store(out.add((1 + j) * SCALES), pair);
            }
            S::store_f32(out.add((1 + pairs(T::SPLIT)) * SCALES).cast(), minimums_scale::<S, T>(head, row));
        }
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
        let bytes = TILES * tile_bytes(SPLIT, false) + rest_bytes(SPLIT, MINIMUM);
        let mut sums = begin::<S, N, V>(block, group * ROWS);
        for b in 0..block.count {
            let panel = block.panel.add(b * bytes);
            let mut products = [[S::splat_i32(0); V]; N];
            for i in 0..TILES {
                if group == 0 {
                    fetch::<GROUPS>(block, b * TILES + i);
                }
                let tile = panel.add(i * tile_bytes(SPLIT, false));
                add_tile::<S, N, V, SPLIT, MINIMUM>(block, group, tile, (b, i), &mut products);
            }
            let rest = panel.add(TILES * tile_bytes(SPLIT, false));
            for t in 0..N {
                let ratio = S::splat((*block.acts.super_block(t, b)).ratio);
                for v in 0..V {
                    let scale = S::load_f32(vector::<S>(rest, block.group, group, v).cast());
                    sums[t][v] = S::fma(S::to_float(products[t][v]), scale, S::mul(sums[t][v], ratio));
                }
            }
            if MINIMUM {
                subtract_minimums::<S, N, V, SPLIT>(block, group, rest.add(SCALES), b, &mut sums);
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
unsafe fn add_tile<S: Vnni, const N: usize, const V: usize, const SPLIT: bool, const MINIMUM: bool>(
    block: &Block,
    group: usize,
    tile: *const u8,
    (b, i): (usize, usize),
    sums: &mut [[S::I; V]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let x = std::array::from_fn(|t| (*block.acts.super_block(t, b)).q.as_ptr().add(i * BLOCK));
        let mut products = [[S::splat_i32(0); V]; N];
        macro_rules! begin {
            ($half:literal) => {
                for t in 0..N {
                    let acts = &*block.acts.super_block(t, b);
                    let start = acts.start_of(MINIMUM, SPLIT, i, $half);
                    products[t] = [S::splat_i32(start); V];
                }
            };
        }
        macro_rules! scale {
            ($half:literal) => {
                for t in 0..N {
                    let shift = (&(*block.acts.super_block(t, b)).shift)[i];
                    for v in 0..V {
                        let scale = tile.add(NUMBERS + $half * SCALES);
                        let scale = S::load(vector::<S>(scale, block.group, group, v));
                        sums[t][v] = S::dot_pairs(sums[t][v], S::shift_right(products[t][v], shift), scale);
                    }
                }
            };
        }
        begin!(0);
        half::<S, N, V, 0>(block, group, tile, x, &mut products);
        if SPLIT {
            scale!(0);
            // What follows stays behind: the compiler would make both halves' sums side by side, for which there are no registers.
            std::arch::asm!("", options(nostack, preserves_flags));
            begin!(1);
        }
        half::<S, N, V, 1>(block, group, tile, x, &mut products);
        if SPLIT {
            scale!(1);
        } else {
            scale!(0);
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
