//! Products of many rows of activations with AVX-512 VNNI: weights are unfolded once for all of them.
//!
//! A *panel* holds some tiles of two groups as bytes and float32 scales. Formats differ in it only by their scales, so a handful
//! of kernels serves them all. A kernel takes a word of four columns at a time: two vectors of weights by a word of each row
//! of activations. The results are those of [`kernels`](super::kernels), bit by bit.
//!
//! What bounds it: of four vector ports two multiply. For a tile, a row and a group they have 8 products of bytes, a
//! multiplication and an addition (10, which leaves 80 % of the peak to products), with a minimum one more (73 %); where halves are
//! scaled apart three (73 %). In [super-blocks](super_blocks) they have an addition and an eighth (88 %), with minimums 1.75 (82 %), with
//! scales for halves 2.125 (79 %).

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::features::Isa;
use super::kernels::Quantized;
use super::pack::ROWS;
use super::quantize::{BLOCK, HALVES_OFFSET, Joined, STARTS_OFFSET, SuperBlock};
use super::simd::Avx512Vnni;
use super::tiles::{self, Tile};
use crate::quant::TensorType;

mod blocks;
mod super_blocks;

/// Rows of activations from which on unfolding pays.
pub(super) const LEAST_ROWS: usize = 12;
/// Groups of a panel.
pub(super) const GROUPS: usize = 2;
/// Bytes of a panel: three quarters of the smallest first-level cache of these processors, 48 KiB.
pub(super) const PANEL: usize = 36 << 10;
/// Bytes of a tile's numbers: those of columns `4j..4j+4` of 16 rows, for each `j`. Scales of the rows follow, and minimums.
const NUMBERS: usize = 8 * 4 * ROWS;
/// Bytes of 16 scales.
const SCALES: usize = 4 * ROWS;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Unfolds `count` blocks from `first` of the packed group at `group`.
///
/// # Safety
/// AVX-512 with VNNI, a group with these blocks, and room for them at `out`, on a cache line.
pub(super) type Unfold = unsafe fn(group: *const u8, first: usize, count: usize, out: *mut u8);

/// What a kernel reads and where its sums go.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// Blocks of the first group; those of the second lie `group` bytes further.
    pub panel: *const u8,
    pub group: usize,
    /// Blocks of each group.
    pub count: usize,
    /// They are the last ones of a row.
    pub last: bool,
    /// Rows of activations, from the first of these blocks.
    pub acts: &'a Quantized,
    /// Sums over the blocks before these, `[rows][GROUPS][16]`; null: none.
    pub sums: *const f32,
    /// Where the sums go: `[rows][out_stride]`, of which 16 for each group are used.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Add to what is there.
    pub accumulate: bool,
    /// Cache lines that are asked for meanwhile, so many for each tile, from any address.
    pub next: *const u8,
    pub lines: usize,
}

/// Multiplies the blocks of one or two groups by `N` rows of activations.
///
/// # Safety
/// AVX-512 with VNNI; as many blocks, groups, rows and sums as the kernel takes.
pub(super) type PanelKernel = unsafe fn(block: &Block);

/// What multiplies a format in panels.
pub(super) struct Panels {
    tensor_type: TensorType,
    pub unfold: Unfold,
    /// Tiles of a block.
    tiles: usize,
    /// Bytes of a block in the panel,
    pub block: usize,
    /// and of as many activations.
    pub acts: usize,
    /// Rows of activations that kernels take at once, from the most to 1.
    pub widths: &'static [usize],
    /// For one group and for two, for each of the widths.
    pub run: [&'static [PanelKernel]; GROUPS],
}

/// Bytes of an unfolded tile; of one in a super-block without its minimums.
const fn tile_bytes(split: bool, minimum: bool) -> usize {
    NUMBERS + SCALES * (1 + split as usize + minimum as usize)
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unfold<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        for i in 0..count {
            let head = group.add((first + i) * (T::HEAD + T::TILES * T::BYTES));
            let out = out.add(i * block_bytes::<T>());
            for j in 0..T::TILES {
                let tile = head.add(T::HEAD + j * T::BYTES);
                let minimum = T::MINIMUM && T::TILES == 1;
                let out = out.add(j * tile_bytes(T::SPLIT, minimum));
                unfold_tile::<T>(head, tile, out);
                if minimum {
                    let scales = T::scales::<Avx512Vnni>(head, tile, 0);
                    _mm512_store_ps(out.add(NUMBERS + SCALES).cast(), scales.m[0]);
                }
            }
            if T::MINIMUM && T::TILES > 1 {
                super_blocks::unfold_minimums::<T>(head, out.add(T::TILES * tile_bytes(T::SPLIT, false)));
            }
        }
    }
}

/// A tile's numbers and scales.
#[inline(always)]
unsafe fn unfold_tile<T: Tile>(head: *const u8, tile: *const u8, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        // What makes numbers positive, or as far from it as activations expect.
        let offset = if T::TILES == 1 { HALVES_OFFSET } else { STARTS_OFFSET };
        let add = _mm512_set1_epi8((if T::MINIMUM { 0 } else { offset - T::OFFSET }) as i8);
        let mut numbers = T::numbers::<Avx512Vnni>(tile, 0);
        if T::JOINED {
            numbers = tiles::joined_numbers::<Avx512Vnni, T>(numbers, true);
        }
        for j in 0..8 {
            let w = if T::JOINED { numbers[j] } else { _mm512_add_epi8(numbers[j], add) };
            _mm512_store_si512(out.add(64 * j).cast(), w);
        }
        let scales = T::scales::<Avx512Vnni>(head, tile, 0);
        for half in 0..1 + usize::from(T::SPLIT) {
            _mm512_store_ps(out.add(NUMBERS + half * SCALES).cast(), scales.d[half]);
        }
    }
}

/// Asks for the lines of tile `i`.
#[inline(always)]
unsafe fn fetch(block: &Block, i: usize) {
    for line in 0..block.lines {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(block.next.wrapping_add((i * block.lines + line) * LINE).cast()) };
    }
}

/// The sums so far.
#[inline(always)]
unsafe fn begin<const N: usize, const G: usize>(block: &Block) -> [[__m512; G]; N] {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = [[_mm512_setzero_ps(); G]; N];
        if !block.sums.is_null() {
            for t in 0..N {
                for g in 0..G {
                    sums[t][g] = _mm512_loadu_ps(block.sums.add((t * GROUPS + g) * ROWS));
                }
            }
        }
        sums
    }
}

#[inline(always)]
unsafe fn end<const N: usize, const G: usize>(block: &Block, sums: &[[__m512; G]; N]) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for t in 0..N {
            for g in 0..G {
                let out = block.out.add(t * block.out_stride + g * ROWS);
                let sum = if block.accumulate { _mm512_add_ps(_mm512_loadu_ps(out), sums[t][g]) } else { sums[t][g] };
                _mm512_storeu_ps(out, sum);
            }
        }
    }
}

/// Adds the products of words `4 · HALF..` of a tile of each group with those of each row of activations, whose words begin at `x`.
#[inline(always)]
unsafe fn half<const N: usize, const G: usize, const HALF: usize>(
    block: &Block,
    tile: *const u8,
    x: impl Fn(usize) -> *const i8,
    products: &mut [[__m512i; G]; N],
) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        for j in 4 * HALF..4 * HALF + 4 {
            let mut w = [_mm512_setzero_si512(); G];
            for g in 0..G {
                w[g] = _mm512_load_si512(tile.add(g * block.group + 64 * j).cast());
            }
            for t in 0..N {
                let x = _mm512_set1_epi32(x(t).cast::<i32>().add(j).read_unaligned());
                for g in 0..G {
                    products[t][g] = _mm512_dpbusd_epi32(products[t][g], w[g], x);
                }
            }
        }
    }
}

/// Six rows of two groups are 24 vectors of sums, which leaves room for the weights; halves that are scaled or shifted apart need more.
const JOINED_WIDTHS: &[usize] = &[6, 4, 2, 1];
const HALVES_WIDTHS: &[usize] = &[4, 2, 1];

/// A kernel for each of [`JOINED_WIDTHS`], for one group and for two; its constants follow those numbers.
macro_rules! joined {
    ($minimum:literal) => {
        [joined!(1, $minimum), joined!(2, $minimum)]
    };
    ($groups:literal, $minimum:literal) => {
        &[
            blocks::joined::<6, $groups, $minimum>,
            blocks::joined::<4, $groups, $minimum>,
            blocks::joined::<2, $groups, $minimum>,
            blocks::joined::<1, $groups, $minimum>,
        ]
    };
}

/// The same for each of [`HALVES_WIDTHS`].
macro_rules! halves {
    ($kernel:path $(, $constant:literal)*) => {
        [halves!(@groups $kernel, 1 $(, $constant)*), halves!(@groups $kernel, 2 $(, $constant)*)]
    };
    (@groups $kernel:path, $groups:literal $(, $constant:literal)*) => {{
        use $kernel as kernel;
        &[kernel::<4, $groups $(, $constant)*>, kernel::<2, $groups $(, $constant)*>, kernel::<1, $groups $(, $constant)*>]
    }};
}

/// Bytes of an unfolded block.
const fn block_bytes<T: Tile>() -> usize {
    match (T::TILES, T::MINIMUM) {
        (1, minimum) => tile_bytes(T::SPLIT, minimum),
        (tiles, minimum) => tiles * tile_bytes(T::SPLIT, false) + super_blocks::minimums_bytes(T::SPLIT, minimum),
    }
}

impl Panels {
    const fn new<T: Tile>() -> Panels {
        assert!(T::TILES == 8 || !T::SPLIT && (T::JOINED || !T::MINIMUM), "there is no kernel for such blocks");
        let run: [&'static [PanelKernel]; GROUPS] = match (T::TILES, T::SPLIT, T::MINIMUM) {
            (1, _, false) if T::JOINED => joined!(false),
            (1, _, true) => joined!(true),
            (1, _, false) => halves!(blocks::halves),
            (_, false, false) => halves!(super_blocks::multiply, false, false),
            (_, false, true) => halves!(super_blocks::multiply, false, true),
            (_, true, false) => halves!(super_blocks::multiply, true, false),
            (_, true, true) => halves!(super_blocks::multiply, true, true),
        };
        Panels {
            tensor_type: T::TYPE,
            unfold: unfold::<T>,
            tiles: T::TILES,
            block: block_bytes::<T>(),
            acts: if T::TILES == 1 { BLOCK + size_of::<Joined>() } else { size_of::<SuperBlock>() },
            widths: if T::JOINED { JOINED_WIDTHS } else { HALVES_WIDTHS },
            run,
        }
    }

    /// Which of the widths to use for the next of `rows` rows: the greatest, but four and four rather than six and two.
    pub fn width(&self, rows: usize) -> Option<usize> {
        self.widths.iter().position(|&width| width <= rows && !(width == 6 && rows == 8))
    }

    /// Cache lines that each tile of a kernel has to ask for, so that `bytes` are fetched while `rows` rows of
    /// activations are multiplied; and the bytes that a kernel's tiles then ask for.
    pub fn lines(&self, bytes: usize, rows: usize, blocks: usize) -> (usize, usize) {
        let tiles = blocks * self.tiles;
        let runs = rows.div_ceil(self.widths.first().copied().unwrap_or(1)).max(1);
        let lines = bytes.div_ceil(runs * tiles.max(1) * LINE);
        (lines, lines * tiles * LINE)
    }

    /// The blocks of each group that a panel of `blocks` blocks is cut into: equal parts that the first-level cache holds.
    pub fn part(&self, blocks: usize) -> usize {
        let most = PANEL / (GROUPS * self.block);
        blocks.div_ceil(blocks.div_ceil(most).max(1))
    }
}

macro_rules! panels {
    ($($format:ident)*) => {
        static PANELS: &[Panels] = &[$(Panels::new::<tiles::$format>(),)*];
    };
}

panels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// What multiplies a packed format in panels on `isa`.
pub(super) fn panels(tensor_type: TensorType, isa: Isa) -> Option<&'static Panels> {
    PANELS.iter().find(|panels| panels.tensor_type == tensor_type && isa >= Isa::Avx512Vnni)
}
