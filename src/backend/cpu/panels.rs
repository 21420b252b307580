//! Products of many rows of activations, and those with AVX-512 VNNI (others are in [`avx2`] and [`avxvnni`]): weights are unfolded
//! once for all of them.
//!
//! A *panel* holds some tiles of two groups as bytes and float32 scales. Formats differ in it only by their scales, so a handful
//! of kernels serves them all. A kernel takes a word of four columns at a time: two vectors of weights by a word of each row
//! of activations. The results are those of [`kernels`](super::kernels), bit by bit.
//!
//! What bounds it: of four vector ports two multiply. For a tile, a row and a group they have 8 products of bytes, a
//! multiplication and an addition (10, which leaves 80 % of the peak to products), with a minimum one more (73 %); where halves are
//! scaled apart three (73 %), or four (67 %) with scales of their own.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;

use super::avx2::panels as avx2;
use super::avxvnni;
use super::features::Isa;
use super::kernels::Quantized;
use super::pack::ROWS;
use super::quantize::{HALVES_OFFSET, JOINED_OFFSET};
use super::simd::{Avx512Vnni, shift_right};
use super::tiles::{self, Tile};
use crate::quant::TensorType;

/// Rows of activations from which on unfolding pays.
pub(super) const LEAST_ROWS: usize = 12;
/// Groups of a panel.
pub(super) const GROUPS: usize = 2;
/// Bytes of a panel: three quarters of the smallest first-level cache of these processors, 48 KiB.
pub(super) const PANEL: usize = 36 << 10;
/// Bytes of a tile's numbers: those of columns `4j..4j+4` of 16 rows, for each `j`. Scales of the rows follow, and minimums.
pub(super) const NUMBERS: usize = 8 * 4 * ROWS;
/// Bytes of 16 scales.
pub(super) const SCALES: usize = 4 * ROWS;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Unfolds `count` tiles from `first` of the packed group at `group`.
///
/// # Safety
/// The instruction set, a group with these tiles, and room for them at `out`, on a cache line.
pub(super) type Unfold = unsafe fn(group: *const u8, first: usize, count: usize, out: *mut u8);

/// What a kernel reads and where its sums go.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    /// Tiles of the first group; those of the second lie `group` bytes further.
    pub panel: *const u8,
    pub group: usize,
    /// Tiles of each group.
    pub count: usize,
    /// Rows of activations, from the first of these tiles.
    pub acts: &'a Quantized,
    /// Sums over the tiles before these, `[rows][groups of a panel][16]`; null: none.
    pub sums: *const f32,
    /// Where the sums go: `[rows][out_stride]`, of which 16 for each group are used.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Add to what is there.
    pub accumulate: bool,
    /// No tiles come after these.
    pub last: bool,
    /// Cache lines that are asked for meanwhile, so many for each tile, from any address.
    pub next: *const u8,
    pub lines: usize,
}

/// Multiplies the tiles of one or two groups by `N` rows of activations.
///
/// # Safety
/// The instruction set; as many tiles, groups, rows and sums as the kernel takes.
pub(super) type PanelKernel = unsafe fn(block: &Block);

/// What multiplies a format in panels.
pub(super) struct Panels {
    pub tensor_type: TensorType,
    /// The instruction set of these kernels.
    pub isa: Isa,
    /// Rows of activations from which on unfolding pays.
    pub least_rows: usize,
    pub unfold: Unfold,
    /// Bytes of a tile in the panel.
    pub tile: usize,
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

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unfold<T: Tile>(group: *const u8, first: usize, count: usize, out: *mut u8) {
    // SAFETY: as `Unfold` demands.
    unsafe {
        // What makes numbers of halves that are scaled apart positive.
        let add = _mm512_set1_epi8((if T::MINIMUM { 0 } else { HALVES_OFFSET - T::OFFSET }) as i8);
        for i in 0..count {
            let head = group.add((first + i) / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            let tile = head.add(T::HEAD + (first + i) % T::TILES * T::BYTES);
            let out = out.add(i * tile_bytes(T::SPLIT, T::MINIMUM));
            let mut numbers = T::numbers::<Avx512Vnni>(tile, 0);
            if T::JOINED {
                numbers = tiles::joined_numbers::<Avx512Vnni, T>(numbers);
            }
            for j in 0..8 {
                let w = if T::JOINED { numbers[j] } else { _mm512_add_epi8(numbers[j], add) };
                _mm512_store_si512(out.add(64 * j).cast(), w);
            }
            let scales = T::scales::<Avx512Vnni>(head, tile, 0);
            let halves = if T::SPLIT { 2 } else { 1 };
            for half in 0..halves {
                _mm512_store_ps(out.add(NUMBERS + half * SCALES).cast(), scales.d[half]);
                if T::MINIMUM {
                    _mm512_store_ps(out.add(NUMBERS + (halves + half) * SCALES).cast(), scales.m[half]);
                }
            }
        }
    }
}

/// Asks for the lines of tile `i`.
#[inline(always)]
pub(super) unsafe fn fetch(block: &Block, i: usize) {
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

/// Adds the products of words `4 · HALF..` of a tile of each group: a half of its columns.
#[inline(always)]
unsafe fn half<const N: usize, const G: usize, const HALF: usize>(
    block: &Block,
    tile: *const u8,
    i: usize,
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
                let x = _mm512_set1_epi32(block.acts.numbers(t, i).cast::<i32>().add(j).read_unaligned());
                for g in 0..G {
                    products[t][g] = _mm512_dpbusd_epi32(products[t][g], w[g], x);
                }
            }
        }
    }
}

/// The sums of both halves, joined: formats of up to five bits.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn joined<const N: usize, const G: usize, const MINIMUM: bool>(block: &Block) {
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
            half::<N, G, 0>(block, tile, i, &mut products);
            for t in 0..N {
                let shift = _mm512_set1_epi32((*block.acts.joined(t, i)).shift);
                for g in 0..G {
                    products[t][g] = shift_right(products[t][g], shift);
                }
            }
            half::<N, G, 1>(block, tile, i, &mut products);
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

/// Each half's sum scaled apart: formats of more bits (one scale for both halves), or with scales of their own.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn halves<const N: usize, const G: usize, const SPLIT: bool, const MINIMUM: bool>(block: &Block) {
    // SAFETY: as `PanelKernel` demands.
    unsafe {
        let mut sums = begin::<N, G>(block);
        for i in 0..block.count {
            fetch(block, i);
            let tile = block.panel.add(i * tile_bytes(SPLIT, MINIMUM));
            let scales = |g: usize, n: usize| tile.wrapping_add(g * block.group + NUMBERS + n * SCALES).cast::<f32>();
            let mut first = [[_mm512_setzero_ps(); G]; N];
            for h in 0..2 {
                let mut products = [[_mm512_setzero_si512(); G]; N];
                for t in 0..N {
                    let start = if MINIMUM { 0 } else { (*block.acts.halves(t, i)).start[h] };
                    products[t] = [_mm512_set1_epi32(start); G];
                }
                if h == 0 {
                    half::<N, G, 0>(block, tile, i, &mut products);
                } else {
                    half::<N, G, 1>(block, tile, i, &mut products);
                }
                for t in 0..N {
                    let d = _mm512_set1_ps((*block.acts.halves(t, i)).d[h]);
                    for g in 0..G {
                        let sum = _mm512_cvtepi32_ps(products[t][g]);
                        if SPLIT {
                            let sum = _mm512_mul_ps(sum, d);
                            sums[t][g] = _mm512_fmadd_ps(sum, _mm512_load_ps(scales(g, h)), sums[t][g]);
                        } else if h == 0 {
                            first[t][g] = _mm512_mul_ps(sum, d);
                        } else {
                            let both = _mm512_fmadd_ps(sum, d, first[t][g]);
                            sums[t][g] = _mm512_fmadd_ps(both, _mm512_load_ps(scales(g, 0)), sums[t][g]);
                        }
                    }
                }
            }
            if MINIMUM {
                for h in 0..2 {
                    for t in 0..N {
                        let s = _mm512_set1_ps((*block.acts.halves(t, i)).scaled_sum(h));
                        for g in 0..G {
                            sums[t][g] = _mm512_fmadd_ps(_mm512_load_ps(scales(g, 2 + h)), s, sums[t][g]);
                        }
                    }
                }
            }
        }
        end(block, &sums);
    }
}

/// Six rows of two groups are 24 vectors of sums, which leaves room for the weights; halves that are scaled apart need more.
const JOINED_WIDTHS: &[usize] = &[6, 4, 2, 1];
const HALVES_WIDTHS: &[usize] = &[4, 2, 1];

macro_rules! joined {
    ($groups:literal, $minimum:literal) => {
        &[
            joined::<6, $groups, $minimum>,
            joined::<4, $groups, $minimum>,
            joined::<2, $groups, $minimum>,
            joined::<1, $groups, $minimum>,
        ]
    };
}

macro_rules! halves {
    ($groups:literal, $split:literal, $minimum:literal) => {
        &[
            halves::<4, $groups, $split, $minimum>,
            halves::<2, $groups, $split, $minimum>,
            halves::<1, $groups, $split, $minimum>,
        ]
    };
}

impl Panels {
    const fn new<T: Tile>() -> Panels {
        assert!(T::JOINED || T::SPLIT || !T::MINIMUM, "one minimum for halves that are scaled apart");
        let run: [&'static [PanelKernel]; GROUPS] = match (T::JOINED, T::SPLIT, T::MINIMUM) {
            (true, _, false) => [joined!(1, false), joined!(2, false)],
            (true, _, true) => [joined!(1, true), joined!(2, true)],
            (false, false, _) => [halves!(1, false, false), halves!(2, false, false)],
            (false, true, false) => [halves!(1, true, false), halves!(2, true, false)],
            (false, true, true) => [halves!(1, true, true), halves!(2, true, true)],
        };
        Panels {
            tensor_type: T::TYPE,
            isa: Isa::Avx512Vnni,
            least_rows: LEAST_ROWS,
            groups: GROUPS,
            unfold: unfold::<T>,
            tile: tile_bytes(T::SPLIT, T::MINIMUM),
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
    pub fn lines(&self, bytes: usize, rows: usize, tiles: usize) -> (usize, usize) {
        let runs = rows.div_ceil(self.widths.first().copied().unwrap_or(1)).max(1);
        let lines = bytes.div_ceil(runs * tiles.max(1) * LINE);
        (lines, lines * tiles * LINE)
    }

    /// The tiles of each group that a panel of `tiles` tiles is cut into: equal parts that the first-level cache holds.
    pub fn part(&self, tiles: usize) -> usize {
        let most = PANEL / (self.groups * self.tile);
        tiles.div_ceil(tiles.div_ceil(most).max(1))
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
    let mut all = PANELS.iter().chain(avxvnni::PANELS).chain(avx2::PANELS);
    all.find(|panels| panels.tensor_type == tensor_type && panels.isa == isa.vectors())
}
