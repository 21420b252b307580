//! Products of many rows of activations: weights are unfolded once for all of them.
//!
//! A *panel* holds some tiles of one or two groups as bytes and float32 scales. Formats differ in it only by their scales, so a handful
//! of kernels serves them all. A kernel takes a word of four columns at a time: vectors of weights by a word of each row
//! of activations. The results are those of [`kernels`](super::kernels), bit by bit.
//!
//! Those for VNNI, of 512 bits and of 256, are one text, here; those for [AVX2](super::avx2) are others.
//!
//! What bounds it: of four vector ports two multiply (Zen 5). For a tile, a row and a group they have 8 products of bytes, a
//! multiplication and an addition (10, which leaves 80 % of the peak to products), with a minimum one more (73 %); where halves are
//! scaled apart three (73 %). In [super-blocks](super_blocks) they have a product of pairs and a quarter (86 %), with minimums 1.9 (81 %),
//! with scales for halves 2.25 (78 %). Intel converts and shifts on these ports too: 8 of 12 to 13 operations are products, in super-blocks
//! 8 of 10.4, with minimums of 11.1, with scales for halves of 12.4.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::avx2::panels as avx2;
use super::features::Isa;
use super::kernels::Quantized;
use super::pack::ROWS;
use super::quantize::{BLOCK, HALVES_OFFSET, Joined, SuperBlock};
use super::simd::{Avx2, Avx512Vnni, Simd, Vnni};
use super::tiles::{self, Tile};
use crate::quant::TensorType;

mod blocks;
mod super_blocks;

/// Rows of activations from which on unfolding pays with VNNI.
pub(super) const LEAST_ROWS: usize = 12;
/// The most groups of a panel.
pub(super) const GROUPS: usize = 2;
/// Bytes of a panel: three quarters of the smallest first-level cache of these processors, 48 KiB.
pub(super) const PANEL: usize = 36 << 10;
/// Bytes of a tile's numbers: those of columns `4j..4j+4` of 16 rows, for each `j`. Scales of the rows follow, and minimums.
pub(super) const NUMBERS: usize = 8 * 4 * ROWS;
/// Bytes of 16 scales.
pub(super) const SCALES: usize = 4 * ROWS;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Tiles by which weights are fetched to the first cache before they are unfolded.
const UNFOLD_AHEAD: usize = 6;

/// Unfolds `count` blocks from `first` of the packed group at `group`.
///
/// # Safety
/// The instruction set, a group with these blocks, and room for them at `out`, on a cache line.
pub(super) type Unfold = unsafe fn(group: *const u8, first: usize, count: usize, out: *mut u8);

/// What a kernel reads and where its sums go.
#[derive(Clone, Copy)]
pub(super) struct Block {
    /// Blocks of the first group; those of the second lie `group` bytes further.
    pub panel: *const u8,
    pub group: usize,
    /// Blocks of each group.
    pub count: usize,
    /// No blocks come after these.
    pub last: bool,
    /// How often the kernel's rows are to be multiplied, one run's after the other's.
    pub runs: usize,
    /// Rows of activations, from the first of these blocks.
    pub acts: Quantized,
    /// Sums over the blocks before these, `[rows][sums_stride]`; null: none.
    pub sums: *const f32,
    pub sums_stride: usize,
    /// Where the sums go: `[rows][out_stride]`, of which 16 for each group are used.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Add to what is there.
    pub accumulate: bool,
    /// What is asked for meanwhile.
    pub next: Next,
}

/// Cache lines at any address, which are asked for one after the other, of one or two groups. They are to arrive shortly before
/// a kernel ends: what comes early is driven out again by activations.
#[derive(Clone, Copy)]
pub(super) struct Next {
    at: *const u8,
    /// Bytes from a group's to the other's.
    group: usize,
    /// Lines of each group for each tile of this run,
    now: usize,
    /// and of later ones,
    of_tile: usize,
    /// after so many.
    wait: usize,
    /// Lines of each group that are left.
    lines: usize,
}

impl Next {
    /// `bytes` at `at`, and as many `group` bytes further if panels have two groups, asked for while `rows` rows of activations
    /// are multiplied by `blocks` blocks.
    pub fn new(at: *const u8, group: usize, bytes: usize, panels: &Panels, rows: usize, blocks: usize) -> Next {
        let runs = rows.div_ceil(panels.widths.first().copied().unwrap_or(1)).max(1);
        let (lines, tiles) = (bytes.div_ceil(LINE), (blocks * panels.tiles).max(1));
        let of_tile = lines.div_ceil(runs * tiles);
        let wait = runs.saturating_sub(lines.div_ceil((of_tile * tiles).max(1)) + 1);
        Next { at, group, now: if wait == 0 { of_tile } else { 0 }, of_tile, wait, lines }
    }

    /// What is left after `runs` runs of `tiles` tiles.
    #[inline(always)]
    fn after(self, runs: usize, tiles: usize) -> Next {
        let asked = (runs.saturating_sub(self.wait) * tiles * self.of_tile).min(self.lines);
        let (lines, wait) = (self.lines - asked, self.wait.saturating_sub(runs));
        let now = if wait == 0 && lines > 0 { self.of_tile } else { 0 };
        Next { at: self.at.wrapping_add(asked * LINE), now, wait, lines, ..self }
    }
}

impl Block {
    /// What comes after `runs` runs of `width` rows, in which `tiles` tiles of each group were multiplied.
    #[inline(always)]
    pub fn after(self, runs: usize, width: usize, tiles: usize) -> Block {
        let rows = runs * width;
        Block {
            acts: self.acts.skip_rows(rows),
            // (Null stays null.)
            sums: if self.sums.is_null() { self.sums } else { self.sums.wrapping_add(rows * self.sums_stride) },
            out: self.out.wrapping_add(rows * self.out_stride),
            next: self.next.after(runs, tiles),
            ..self
        }
    }
}

/// Multiplies the blocks of one or two groups by `N` rows of activations, and as many again for each run.
///
/// # Safety
/// The instruction set; as many blocks, groups, rows and sums as the kernel takes.
pub(super) type PanelKernel = unsafe fn(block: &Block);

/// What multiplies a format in panels.
pub(super) struct Panels {
    pub tensor_type: TensorType,
    /// The instruction set of these kernels.
    pub isa: Isa,
    /// Rows of activations from which on unfolding pays.
    pub least_rows: usize,
    pub unfold: Unfold,
    /// Tiles of a block,
    pub tiles: usize,
    /// its bytes in the panel,
    pub block: usize,
    /// and those of as many activations.
    pub acts: usize,
    /// Groups of a panel: up to [`GROUPS`].
    pub groups: usize,
    /// Rows of activations that kernels take at once, from the most to 1.
    pub widths: &'static [usize],
    /// For one group and for two, for each of the widths.
    pub run: [&'static [PanelKernel]; GROUPS],
}

/// Bytes of an unfolded tile.
pub(super) const fn tile_bytes(split: bool, minimum: bool) -> usize {
    NUMBERS + SCALES * (1 + split as usize) * (1 + minimum as usize)
}

/// Bytes of an unfolded block: a tile, or a super-block whose minimums stand behind its tiles.
const fn block_bytes<T: Tile>() -> usize {
    match (T::TILES, T::MINIMUM) {
        (1, minimum) => tile_bytes(T::SPLIT, minimum),
        (tiles, minimum) => tiles * tile_bytes(T::SPLIT, false) + super_blocks::rest_bytes(T::SPLIT, minimum),
    }
}

#[inline(always)]
unsafe fn unfold<S: Vnni, T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        for i in 0..count {
            let head = group.add((first + i) * (T::HEAD + T::TILES * T::BYTES));
            let out = out.add(i * block_bytes::<T>());
            for row in (0..ROWS).step_by(S::LANES) {
                let out = out.add(4 * row);
                for j in 0..T::TILES {
                    let tile = head.add(T::HEAD + j * T::BYTES);
                    if row == 0 {
                        // Each tile waits for the second cache, to which kernels have it fetched.
                        for line in 0..T::BYTES.div_ceil(LINE) {
                            _mm_prefetch::<_MM_HINT_T0>(
                                tile.wrapping_add(UNFOLD_AHEAD * T::BYTES + line * LINE).cast(),
                            );
                        }
                    }
                    match T::TILES {
                        1 => unfold_tile::<S, T>(head, tile, row, out),
                        _ => super_blocks::unfold_tile::<S, T>(tile, row, out.add(j * tile_bytes(T::SPLIT, false))),
                    }
                }
                if T::TILES > 1 {
                    super_blocks::unfold_rest::<S, T>(head, row, out.add(T::TILES * tile_bytes(T::SPLIT, false)));
                }
            }
        }
    }
}

/// Numbers, scales and minimums of some rows of a block of one tile.
#[inline(always)]
unsafe fn unfold_tile<S: Vnni, T: Tile>(head: *const u8, tile: *const u8, row: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        // What makes numbers positive, as far as the activations' starts expect.
        let add = S::splat_u8((HALVES_OFFSET - T::OFFSET) as u8);
        let mut numbers = T::numbers::<S>(tile, row);
        if T::JOINED {
            numbers = tiles::joined_numbers::<S, T>(numbers);
        }
        for j in 0..8 {
            let w = if T::JOINED { numbers[j] } else { S::add_u8(numbers[j], add) };
            S::store(out.add(4 * ROWS * j), w);
        }
        let scales = T::scales::<S>(head, tile, row);
        S::store_f32(out.add(NUMBERS).cast(), scales.d[0]);
        if T::MINIMUM {
            S::store_f32(out.add(NUMBERS + SCALES).cast(), scales.m[0]);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unfold_512<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe { unfold::<Avx512Vnni, T>(group, first, count, out) }
}

#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn unfold_256<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe { unfold::<Avx2, T>(group, first, count, out) }
}

/// Asks for the lines of tile `i`, of `GROUPS` groups.
#[inline(always)]
pub(super) unsafe fn fetch<const GROUPS: usize>(block: &Block, i: usize) {
    let next = &block.next;
    for line in 0..next.now {
        let at = next.at.wrapping_add((i * next.now + line) * LINE);
        // SAFETY: a prefetch may name any address.
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(at.cast());
            if GROUPS > 1 {
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(next.group).cast());
            }
        }
    }
}

/// Vectors of products are those of `V` vectors of weights: of the 16 rows of a group from `group`, or, if a vector has 16 lanes, of `V` groups.
/// This is where vector `v` of what lies at `at` for the first group's 16 rows is to be found, bytes between groups being `stride`.
#[inline(always)]
fn vector<S: Simd>(at: *const u8, stride: usize, group: usize, v: usize) -> *const u8 {
    let row = v * S::LANES;
    at.wrapping_add((group + row / ROWS) * stride + row % ROWS * 4)
}

/// The sums so far, of weights' rows from `row` of the panel.
#[inline(always)]
pub(super) unsafe fn begin<S: Simd, const N: usize, const V: usize>(block: &Block, row: usize) -> [[S::F; V]; N] {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; N];
        if !block.sums.is_null() {
            for t in 0..N {
                for v in 0..V {
                    sums[t][v] = S::load_f32(block.sums.add(t * block.sums_stride + row + v * S::LANES));
                }
            }
        }
        sums
    }
}

/// Puts the sums where they go.
#[inline(always)]
pub(super) unsafe fn end<S: Simd, const N: usize, const V: usize>(block: &Block, row: usize, sums: &[[S::F; V]; N]) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for t in 0..N {
            for v in 0..V {
                let out = block.out.add(t * block.out_stride + row + v * S::LANES);
                let sum = if block.accumulate { S::add(S::load_f32(out), sums[t][v]) } else { sums[t][v] };
                S::store_f32(out, sum);
            }
        }
    }
}

/// Adds the products of words `4 · HALF..` of a tile with those of each row of activations, whose words begin at `x`.
#[inline(always)]
unsafe fn half<S: Vnni, const N: usize, const V: usize, const HALF: usize>(
    block: &Block,
    group: usize,
    tile: *const u8,
    x: [*const i8; N],
    products: &mut [[S::I; V]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for j in 4 * HALF..4 * HALF + 4 {
            let mut w = [S::splat_i32(0); V];
            for v in 0..V {
                w[v] = S::load(vector::<S>(tile.add(4 * ROWS * j), block.group, group, v));
            }
            for t in 0..N {
                let x = S::splat_i32(x[t].cast::<i32>().add(j).read_unaligned());
                for v in 0..V {
                    products[t][v] = S::dot(products[t][v], w[v], x);
                }
            }
        }
    }
}

/// Makes [`PanelKernel`]s of a function for each instruction set: `NAME_512`, one vector of each group at once, and
/// `NAME_256`, both vectors of one group after the other.
macro_rules! kernels {
    ($name:ident, $of_512:ident, $of_256:ident, $tiles:literal $(, $constant:ident)*) => {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        pub(super) unsafe fn $of_512<const N: usize, const G: usize $(, const $constant: bool)*>(block: &Block) {
            let mut run = *block;
            for _ in 0..block.runs {
                // SAFETY: as `PanelKernel` demands.
                unsafe { $name::<Avx512Vnni, N, G $(, $constant)*>(&run, 0) };
                run = run.after(1, N, $tiles * run.count);
            }
        }

        #[target_feature(enable = "avx2,avxvnni,fma,f16c")]
        pub(super) unsafe fn $of_256<const N: usize, const G: usize $(, const $constant: bool)*>(block: &Block) {
            let mut run = *block;
            for _ in 0..block.runs {
                for group in 0..G {
                    // SAFETY: as `PanelKernel` demands.
                    unsafe { $name::<Avx2, N, 2 $(, $constant)*>(&run, group) };
                }
                run = run.after(1, N, $tiles * run.count);
            }
        }
    };
}
use kernels;

/// Six rows of two vectors are 24 sums, which leaves room for the weights among 32 registers; halves that are scaled
/// apart need more.
const WIDTHS: &[usize] = &[6, 4, 2, 1];
const HALVES_WIDTHS: &[usize] = &[4, 2, 1];

/// A kernel for each width, for one group and for two; its constants follow.
macro_rules! widths {
    ($kernel:path, [$($width:literal)*] $(, $constant:literal)*) => {
        [widths!(@ 1, $kernel, [$($width)*], ($(, $constant)*)), widths!(@ 2, $kernel, [$($width)*], ($(, $constant)*))]
    };
    (@ $groups:literal, $kernel:path, [$($width:literal)*], $constants:tt) => {{
        use $kernel as kernel;
        &[$(widths!(@@ kernel, $width, $groups, $constants)),*]
    }};
    (@@ $kernel:ident, $width:literal, $groups:literal, ($(, $constant:literal)*)) => {
        $kernel::<$width, $groups $(, $constant)*>
    };
}

macro_rules! panels {
    ($name:ident, $isa:ident, $unfold:ident, $joined:ident, $halves:ident, $super_blocks:ident) => {
        const fn $name<T: Tile>() -> Panels {
            assert!(T::TILES == 8 || !T::SPLIT && (T::JOINED || !T::MINIMUM), "there is no kernel for such blocks");
            let run: [&'static [PanelKernel]; GROUPS] = match (T::TILES, T::SPLIT, T::MINIMUM) {
                (1, _, false) if T::JOINED => widths!(blocks::$joined, [6 4 2 1], false),
                (1, _, true) => widths!(blocks::$joined, [6 4 2 1], true),
                (1, _, false) => widths!(blocks::$halves, [4 2 1]),
                (_, false, false) => widths!(super_blocks::$super_blocks, [6 4 2 1], false, false),
                (_, false, true) => widths!(super_blocks::$super_blocks, [6 4 2 1], false, true),
                (_, true, false) => widths!(super_blocks::$super_blocks, [6 4 2 1], true, false),
                (_, true, true) => widths!(super_blocks::$super_blocks, [6 4 2 1], true, true),
            };
            Panels {
                tensor_type: T::TYPE,
                isa: Isa::$isa,
                least_rows: LEAST_ROWS,
                unfold: $unfold::<T>,
                tiles: T::TILES,
                block: block_bytes::<T>(),
                acts: if T::TILES == 1 { BLOCK + size_of::<Joined>() } else { size_of::<SuperBlock>() },
                groups: GROUPS,
                widths: if T::JOINED || T::TILES > 1 { WIDTHS } else { HALVES_WIDTHS },
                run,
            }
        }
    };
}

panels!(of_512, Avx512Vnni, unfold_512, joined_512, halves_512, multiply_512);
panels!(of_256, AvxVnni, unfold_256, joined_256, halves_256, multiply_256);

impl Panels {
    /// Which of the widths to use for the next of `rows` rows, and how often: the greatest, but four and four rather than six and two.
    pub fn runs(&self, rows: usize) -> Option<(usize, usize)> {
        let i = self.widths.iter().position(|&width| width <= rows && !(width == 6 && rows == 8))?;
        let width = *self.widths.get(i)?;
        let runs = rows / width;
        Some((i, if width == 6 && rows % width == 2 { runs - 1 } else { runs }))
    }

    /// The blocks of each group that a panel of `blocks` blocks is cut into: equal parts that the first-level cache holds.
    pub fn part(&self, blocks: usize) -> usize {
        let most = PANEL / (self.groups * self.block);
        blocks.div_ceil(blocks.div_ceil(most).max(1))
    }
}

macro_rules! table {
    ($($format:ident)*) => {
        static PANELS: &[Panels] = &[$(of_512::<tiles::$format>(), of_256::<tiles::$format>(),)*];
    };
}

table! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// What multiplies a packed format in panels on `isa`.
pub(super) fn panels(tensor_type: TensorType, isa: Isa) -> Option<&'static Panels> {
    let mut all = PANELS.iter().chain(avx2::PANELS);
    all.find(|panels| panels.tensor_type == tensor_type && panels.isa == isa.vectors())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_take_all_rows_and_no_two_after_sixes() {
        for panels in PANELS.iter().chain(avx2::PANELS) {
            for rows in 1..100 {
                let mut left = rows;
                while let Some((i, runs)) = panels.runs(left) {
                    assert!(runs > 0 && (panels.widths[i] < 6 || left - 6 * runs != 2));
                    left -= panels.widths[i] * runs;
                }
                assert_eq!(left, 0, "{rows} rows of {}", panels.tensor_type.name());
            }
        }
    }
}
