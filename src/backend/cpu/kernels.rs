//! The kernels: products of packed rows with several rows of activations, in one text for instruction sets that multiply and add bytes
//! in one instruction, and the table that says which may run where. Those of AVX2 are in `avx2`, those of floats in `floats`.
//!
//! Names are `format_isa`. A kernel's result for a row of activations does not depend on how many rows it is given.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::avx2::Numbers;
use super::avx2::kernels as avx2;
use super::features::Isa;
use super::pack::ROWS;
use super::simd::{Avx2, Avx512Vnni, Fetch, SIGNED_OFFSET, Vnni};
use super::tiles::{self, Scales, Tile, minimums_scale, paired, products_scale};
use crate::backend::cpu::acts::{Acts, Form};
use crate::backend::cpu::avx2::multiples::Multiples;
use crate::backend::cpu::quantize::{BLOCK, Halves, Joined, SUPER_BLOCK, SuperBlock};
use crate::quant::TensorType;

/// Rows of activations that a kernel takes at once.
pub(super) const WIDTHS: [usize; 4] = [8, 4, 2, 1];

/// Quantised activations, as a kernel reads them.
#[derive(Clone, Copy)]
pub(super) struct Quantized {
    q: *const i8,
    halves: *const Halves,
    joined: *const Joined,
    super_blocks: *const SuperBlock,
    multiples: *const Multiples,
    units: *const f32,
    wide: *const i16,
    wide_scales: *const f32,
    columns: usize,
}

impl Quantized {
    /// Rows from `first` on.
    #[inline]
    pub fn rows(acts: &Acts, first: usize) -> Quantized {
        let columns = acts.columns();
        let blocks = columns / BLOCK;
        Quantized {
            q: acts.q()[first * columns..].as_ptr(),
            // (Of these an instruction set has some or the others.)
            halves: acts.halves().get(first * blocks..).unwrap_or_default().as_ptr(),
            joined: acts.joined().get(first * blocks..).unwrap_or_default().as_ptr(),
            super_blocks: acts.super_blocks().get(first * (columns / SUPER_BLOCK)..).unwrap_or_default().as_ptr(),
            multiples: acts.multiples().get(first * blocks..).unwrap_or_default().as_ptr(),
            units: acts.units().get(first..).unwrap_or_default().as_ptr(),
            wide: acts.wide().get(first * columns..).unwrap_or_default().as_ptr(),
            wide_scales: acts.wide_scales().get(first..).unwrap_or_default().as_ptr(),
            columns,
        }
    }

    /// The same rows from tile `tile` on, the first of a super-block where there are such.
    pub fn skip_tiles(self, tile: usize) -> Quantized {
        Quantized {
            q: self.q.wrapping_add(tile * BLOCK),
            halves: self.halves.wrapping_add(tile),
            joined: self.joined.wrapping_add(tile),
            super_blocks: self.super_blocks.wrapping_add(tile * BLOCK / SUPER_BLOCK),
            multiples: self.multiples.wrapping_add(tile),
            wide: self.wide.wrapping_add(tile * BLOCK),
            ..self
        }
    }

    /// The rows after `rows` of these.
    #[inline(always)]
    pub fn skip_rows(self, rows: usize) -> Quantized {
        let blocks = rows * (self.columns / BLOCK);
        Quantized {
            q: self.q.wrapping_add(rows * self.columns),
            halves: self.halves.wrapping_add(blocks),
            joined: self.joined.wrapping_add(blocks),
            super_blocks: self.super_blocks.wrapping_add(rows * (self.columns / SUPER_BLOCK)),
            multiples: self.multiples.wrapping_add(blocks),
            units: self.units.wrapping_add(rows),
            wide: self.wide.wrapping_add(rows * self.columns),
            wide_scales: self.wide_scales.wrapping_add(rows),
            ..self
        }
    }

    /// The numbers of block `i` of row `t`.
    #[inline(always)]
    pub fn numbers(&self, t: usize, i: usize) -> *const i8 {
        self.q.wrapping_add(t * self.columns + i * BLOCK)
    }

    /// The scales of the block's halves.
    #[inline(always)]
    pub fn halves(&self, t: usize, i: usize) -> *const Halves {
        self.halves.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// The block's scale.
    #[inline(always)]
    pub fn joined(&self, t: usize, i: usize) -> *const Joined {
        self.joined.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// Super-block `i` of row `t`.
    #[inline(always)]
    pub fn super_block(&self, t: usize, i: usize) -> *const SuperBlock {
        self.super_blocks.wrapping_add(t * (self.columns / SUPER_BLOCK) + i)
    }

    /// The block's scales for AVX2.
    #[inline(always)]
    pub fn multiples(&self, t: usize, i: usize) -> *const Multiples {
        self.multiples.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// The numbers of 16 bits of block `i` of row `t`.
    #[inline(always)]
    pub fn wide(&self, t: usize, i: usize) -> *const i16 {
        self.wide.wrapping_add(t * self.columns + i * BLOCK)
    }

    /// By what sums of row `t` are to be multiplied with AVX2: those of numbers of 16 bits, or of bytes.
    #[inline(always)]
    pub fn unit(&self, t: usize, wide: bool) -> *const f32 {
        if wide { self.wide_scales.wrapping_add(t) } else { self.units.wrapping_add(t) }
    }
}

/// Multiplies the 16 rows of a group, `tiles` tiles long, by `N` rows of activations: `out[N][16]`. `unread` says that nobody
/// has read these weights just now: what comes after them is fetched.
///
/// # Safety
/// The instruction set, `tiles` packed tiles at `group`, and `N` rows of as many blocks in the activations.
pub(super) type PackedKernel = unsafe fn(group: *const u8, tiles: usize, acts: &Quantized, unread: bool, out: *mut f32);

/// A row of the table.
pub(super) struct Kernel {
    #[cfg_attr(not(test), allow(dead_code))] // what a failing test says
    pub name: &'static str,
    pub tensor_type: TensorType,
    pub isa: Isa,
    /// The activations that it takes.
    pub form: Form,
    /// For each of [`WIDTHS`].
    pub run: [PackedKernel; 4],
}

#[inline(always)]
unsafe fn packed<S: Vnni, T: Tile, const N: usize>(
    group: *const u8,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        // Where there are registers for it, both halves of a tile at once: memory is then read in order.
        match N {
            1 | 2 if S::LANES < ROWS => rows::<S, T, N, 2>(group, 0, tiles, acts, unread, out),
            _ => {
                let mut row = 0;
                while row < ROWS {
                    rows::<S, T, N, 1>(group, row, tiles, acts, unread, out);
                    row += S::LANES;
                }
            }
        }
    }
}

/// `VECTORS` vectors of rows from `row`.
#[inline(always)]
unsafe fn rows<S: Vnni, T: Tile, const N: usize, const VECTORS: usize>(
    group: *const u8,
    row: usize,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; VECTORS];
        let mut head = group;
        let fetch = Fetch::new();
        for block in 0..tiles / T::TILES {
            let mut products = [[S::splat_i32(0); N]; VECTORS];
            for i in 0..T::TILES {
                let tile = head.add(T::HEAD + i * T::BYTES);
                if unread && row == 0 {
                    fetch.ahead_of(tile, T::BYTES);
                }
                for (v, sums) in sums.iter_mut().enumerate() {
                    let row = row + v * S::LANES;
                    match T::TILES {
                        1 => accumulate::<S, T, N>(head, tile, row, acts, block, sums),
                        _ => accumulate_part::<S, T, N>(tile, row, acts, (block, i), &mut products[v]),
                    }
                }
            }
            if T::TILES > 1 {
                for (v, sums) in sums.iter_mut().enumerate() {
                    let (row, last) = (row + v * S::LANES, (block + 1) * T::TILES == tiles);
                    finish_super_block::<S, T, N>(head, row, acts, (block, last), &products[v], sums);
                }
            }
            head = head.add(T::HEAD + T::TILES * T::BYTES);
        }
        for (v, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                S::store_f32(out.add(t * ROWS + row + v * S::LANES), sum);
            }
        }
    }
}

/// Adds the products of one tile.
#[inline(always)]
unsafe fn accumulate<S: Vnni, T: Tile, const N: usize>(
    head: *const u8,
    tile: *const u8,
    row: usize,
    acts: &Quantized,
    block: usize,
    sums: &mut [S::F; N],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut w = T::numbers::<S>(tile, row);
        let scales = T::scales::<S>(head, tile, row);
        // What is the same for all rows of activations is done to the weights, if there are enough rows.
        let prepared = T::JOINED && N > 2;
        if prepared {
            w = tiles::joined_numbers::<S, T>(w);
        }
        for t in 0..N {
            let x = acts.numbers(t, block);
            if !T::JOINED {
                sums[t] = halves::<S, T>(&w, &scales, x, &*acts.halves(t, block), sums[t]);
                continue;
            }
            let scale = &*acts.joined(t, block);
            let start = S::splat_i32(scale.start_of(if prepared { T::JOINED_AS } else { T::OFFSET }));
            let first = match prepared {
                true => S::dot4(start, &w[..4], x),
                false => S::dot4_shifted(start, &w[..4], x),
            };
            // (Two chains: the second does not wait for the first.)
            let second = S::dot4(S::splat_i32(0), &w[4..], x.add(16));
            let both = S::to_float(S::add_i32(S::shift_right(first, scale.shift), second));
            sums[t] = S::fma(S::mul(both, S::splat(scale.d)), scales.d[0], sums[t]);
            if T::MINIMUM {
                sums[t] = S::fma(scales.m[0], S::splat(scale.s), sums[t]);
            }
        }
    }
}

/// Adds the products of a tile and a block, each half of whose activations is scaled apart.
#[inline(always)]
unsafe fn halves<S: Vnni, T: Tile>(w: &[S::I; 8], scales: &Scales<S>, x: *const i8, block: &Halves, sum: S::F) -> S::F {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let offset = if T::BITS == 8 { SIGNED_OFFSET } else { T::OFFSET };
        let start = [0, 1].map(|half| S::splat_i32(-offset * block.sum(half)));
        let [a, b] = match T::BITS {
            8 => [S::dot4_signed(start[0], &w[..4], x), S::dot4_signed(start[1], &w[4..], x.add(16))],
            _ => [S::dot4(start[0], &w[..4], x), S::dot4(start[1], &w[4..], x.add(16))],
        };
        let a = S::mul(S::to_float(a), S::splat(block.d[0]));
        S::fma(S::fma(S::to_float(b), S::splat(block.d[1]), a), scales.d[0], sum)
    }
}

/// Adds the products of tile `i` of a super-block, which its scales have multiplied.
#[inline(always)]
unsafe fn accumulate_part<S: Vnni, T: Tile, const N: usize>(
    tile: *const u8,
    row: usize,
    acts: &Quantized,
    (block, i): (usize, usize),
    sums: &mut [S::I; N],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let w = T::raised::<S>(tile, row);
        let scale = T::parts::<S>(tile, row).scale.map(|scale| paired::<S>(scale));
        for t in 0..N {
            let acts = &*acts.super_block(t, block);
            let (x, shift) = (acts.q.as_ptr().add(i * BLOCK), acts.shift[i]);
            let start = |half: usize| S::splat_i32(acts.start_of(T::MINIMUM, T::SPLIT, i, half));
            if T::SPLIT {
                for half in 0..2 {
                    let products = S::dot4(start(half), &w[4 * half..], x.add(16 * half));
                    sums[t] = S::dot_pairs(sums[t], S::shift_right(products, shift), scale[half]);
                }
            } else {
                let first = S::dot4(start(0), &w[..4], x);
                // (Two chains where few rows leave nothing else to do: the second does not wait for the first.)
                let products = match N {
                    1 | 2 => S::add_i32(first, S::dot4(S::splat_i32(0), &w[4..], x.add(16))),
                    _ => S::dot4(first, &w[4..], x.add(16)),
                };
                sums[t] = S::dot_pairs(sums[t], S::shift_right(products, shift), scale[0]);
            }
        }
    }
}

/// Adds the sums of a super-block's products, and of those with its minimums, in units of the activations' scale; after the last, makes
/// sums of what is in these.
#[inline(always)]
unsafe fn finish_super_block<S: Vnni, T: Tile, const N: usize>(
    head: *const u8,
    row: usize,
    acts: &Quantized,
    (block, last): (usize, bool),
    products: &[S::I; N],
    sums: &mut [S::F; N],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let scale = products_scale::<S, T>(head, row);
        for t in 0..N {
            let ratio = S::splat((*acts.super_block(t, block)).ratio);
            sums[t] = S::fma(S::to_float(products[t]), scale, S::mul(sums[t], ratio));
        }
        if T::MINIMUM {
            let mut minimums = [[S::splat(0.0); 2]; 8];
            for i in 0..T::TILES {
                let parts = T::parts::<S>(head.add(T::HEAD + i * T::BYTES), row);
                minimums[i] = parts.minimum.map(|minimum| S::to_float(minimum));
            }
            let scale = minimums_scale::<S, T>(head, row);
            for t in 0..N {
                let acts = &*acts.super_block(t, block);
                // Integers of 24 bits: exact.
                let mut products = [S::splat(0.0); 2];
                for i in 0..T::TILES {
                    if T::SPLIT {
                        for half in 0..2 {
                            let sum = S::splat(f32::from(acts.sums[2 * i + half]));
                            products[half] = S::fma(minimums[i][half], sum, products[half]);
                        }
                    } else {
                        let sum = S::splat(acts.tile_sums_f32[i]);
                        products[i % 2] = S::fma(minimums[i][0], sum, products[i % 2]);
                    }
                }
                sums[t] = S::fma(S::add(products[0], products[1]), scale, sums[t]);
            }
        }
        if last {
            for t in 0..N {
                sums[t] = S::mul(sums[t], S::splat((*acts.super_block(t, block)).d));
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn packed_avx512<T: Tile, const N: usize>(
    group: *const u8,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe { packed::<Avx512Vnni, T, N>(group, tiles, acts, unread, out) }
}

#[target_feature(enable = "avx2,avxvnni,fma,f16c")]
unsafe fn packed_avxvnni<T: Tile, const N: usize>(
    group: *const u8,
    tiles: usize,
    acts: &Quantized,
    unread: bool,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe { packed::<Avx2, T, N>(group, tiles, acts, unread, out) }
}

const fn vnni_form<T: Tile>() -> Form {
    if T::TILES > 1 { Form::SuperBlocks } else { Form::Blocks }
}

const fn avx2_form<T: Tile>() -> Form {
    if T::WIDE { Form::Wide } else { Form::Multiples }
}

macro_rules! kernels {
    ($($format:ident)*) => {
        /// All kernels of packed formats.
        pub(super) static KERNELS: &[Kernel] = &[$(
            Kernel {
                name: concat!(stringify!($format), "_avx512vnni"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx512Vnni,
                form: vnni_form::<tiles::$format>(),
                run: [
                    packed_avx512::<tiles::$format, 8>, packed_avx512::<tiles::$format, 4>,
                    packed_avx512::<tiles::$format, 2>, packed_avx512::<tiles::$format, 1>,
                ],
            },
            Kernel {
                name: concat!(stringify!($format), "_avxvnni"),
                tensor_type: TensorType::$format,
                isa: Isa::AvxVnni,
                form: vnni_form::<tiles::$format>(),
                run: [
                    packed_avxvnni::<tiles::$format, 8>, packed_avxvnni::<tiles::$format, 4>,
                    packed_avxvnni::<tiles::$format, 2>, packed_avxvnni::<tiles::$format, 1>,
                ],
            },
            Kernel {
                name: concat!(stringify!($format), "_avx2"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx2,
                form: avx2_form::<tiles::$format>(),
                run: [
                    avx2::packed::<tiles::$format, 8>, avx2::packed::<tiles::$format, 4>,
                    avx2::packed::<tiles::$format, 2>, avx2::packed::<tiles::$format, 1>,
                ],
            },
        )*];

        #[cfg(test)]
        #[test]
        fn tiles_agree_with_their_layouts() {
            $(assert!(tiles::agrees::<tiles::$format>(), stringify!($format));)*
        }
    };
}

kernels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// The kernel for a packed format on `isa`.
pub(super) fn kernel(tensor_type: TensorType, isa: Isa) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.tensor_type == tensor_type && kernel.isa == isa.vectors())
}
