//! How the kernels read a tile of each format: eight vectors of numbers, and the scales of its rows.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::quantize::JOINED_OFFSET;
use super::simd::Simd;
use crate::quant::TensorType;
use crate::quant::blocks::{E2M1_DOUBLED, IQ4_VALUES};

/// The scales of a tile's rows: `w = d · (q − OFFSET) + m`, apart for each half of the columns; in super-blocks
/// `w = d · (q − OFFSET) − dmin · m`.
pub(super) struct Scales<S: Simd> {
    pub d: [S::F; 2],
    pub m: [S::F; 2],
}

/// A packed format, as a kernel sees it.
pub(super) trait Tile {
    const TYPE: TensorType;
    /// Bits of a number; 8: signed.
    const BITS: u32;
    /// What is subtracted from a number.
    const OFFSET: i32 = 0;
    /// The halves of the columns have scales of their own.
    const SPLIT: bool = false;
    /// Rows have a minimum.
    const MINIMUM: bool = false;
    /// The sums of both halves are joined before they are scaled: see [`Joined`](super::quantize::Joined).
    const JOINED: bool = Self::TILES == 1 && Self::BITS <= 5;
    /// What is subtracted from [`joined_numbers`].
    const JOINED_AS: i32 = if Self::MINIMUM { 0 } else { JOINED_OFFSET };
    /// Tiles of a block, bytes before them, and bytes of one: as the format's layout has them.
    const TILES: usize;
    const HEAD: usize;
    const BYTES: usize;

    /// The numbers of columns `4j..4j+4` in vector `j`, for rows from `row`.
    ///
    /// # Safety
    /// The instruction set of `S`, and a whole tile at `tile`.
    unsafe fn numbers<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8];

    /// The scales of rows from `row`.
    ///
    /// # Safety
    /// As [`Tile::numbers`], and the block's head at `head`.
    unsafe fn scales<S: Simd>(head: *const u8, tile: *const u8, row: usize) -> Scales<S>;

    /// Of a super-block with minimums: `dmin` of rows from `row`.
    ///
    /// # Safety
    /// As [`Tile::scales`].
    #[inline(always)]
    unsafe fn dmin<S: Simd>(head: *const u8, row: usize) -> S::F {
        // SAFETY: as demanded: `d` of 16 rows stands before it.
        unsafe { S::load_f16(head.add(32 + 2 * row)) }
    }
}

/// Numbers as sums of many rows that are joined want them: with one offset for all formats, and those of the first half
/// [`PRE_SHIFT`](super::quantize::PRE_SHIFT) to the left.
///
/// # Safety
/// The instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn joined_numbers<S: Simd, T: Tile>(mut numbers: [S::I; 8]) -> [S::I; 8] {
    unsafe {
        let add = S::splat_u8((T::JOINED_AS - T::OFFSET) as u8);
        for j in 0..8 {
            numbers[j] = if T::JOINED_AS == T::OFFSET { numbers[j] } else { S::add_u8(numbers[j], add) };
            numbers[j] = if j < 4 { S::pre_shifted(numbers[j]) } else { numbers[j] };
        }
        numbers
    }
}

/// `w = d · (q − OFFSET) + m` for all formats.
///
/// # Safety
/// As [`Tile::scales`].
#[inline(always)]
pub(super) unsafe fn scales<S: Simd, T: Tile>(head: *const u8, tile: *const u8, row: usize) -> Scales<S> {
    unsafe {
        let mut scales = T::scales::<S>(head, tile, row);
        if T::MINIMUM && T::TILES > 1 {
            let less_dmin = S::mul(T::dmin::<S>(head, row), S::splat(-1.0));
            scales.m = [S::mul(scales.m[0], less_dmin), S::mul(scales.m[1], less_dmin)];
        }
        scales
    }
}

/// Whether the constants of `T` are those of the layout: asked by the kernels' tests.
#[cfg(test)]
pub(super) fn agrees<T: Tile>() -> bool {
    super::pack::Layout::of(T::TYPE).is_some_and(|l| l.tiles == T::TILES && l.head == T::HEAD && l.tile() == T::BYTES)
}

/// The plane of four bits.
#[inline(always)]
unsafe fn four_bits<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mask = S::splat_u8(15);
        let mut w = [mask; 8];
        for j in 0..4 {
            let z = S::load(plane.add(64 * j + 4 * row));
            w[j] = S::and(z, mask);
            w[j + 4] = S::and(S::shift16(z, -4), mask);
        }
        w
    }
}

/// The plane of four bits and that of a fifth.
#[inline(always)]
unsafe fn five_bits<S: Simd>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = four_bits::<S>(planes, row);
        let plane = S::load(planes.add(256 + 4 * row));
        let mask = S::splat_u8(16);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane, 4 - j as i32), mask));
        }
        w
    }
}

/// The plane of four bits and that of two more.
#[inline(always)]
unsafe fn six_bits<S: Simd>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = four_bits::<S>(planes, row);
        let plane = [S::load(planes.add(256 + 4 * row)), S::load(planes.add(320 + 4 * row))];
        let mask = S::splat_u8(0x30);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane[j / 4], 4 - 2 * (j % 4) as i32), mask));
        }
        w
    }
}

/// The plane of two bits.
#[inline(always)]
unsafe fn two_bits<S: Simd>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let plane = [S::load(planes.add(4 * row)), S::load(planes.add(64 + 4 * row))];
        let mask = S::splat_u8(3);
        let mut w = [mask; 8];
        for j in 0..8 {
            w[j] = S::and(S::shift16(plane[j / 4], -2 * (j % 4) as i32), mask);
        }
        w
    }
}

/// The plane of two bits and that of a third.
#[inline(always)]
unsafe fn three_bits<S: Simd>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = two_bits::<S>(planes, row);
        let plane = S::load(planes.add(128 + 4 * row));
        let mask = S::splat_u8(4);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane, 2 - j as i32), mask));
        }
        w
    }
}

/// The plane of eight bits.
#[inline(always)]
unsafe fn eight_bits<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = [S::splat_u8(0); 8];
        for j in 0..8 {
            w[j] = S::load(plane.add(64 * j + 4 * row));
        }
        w
    }
}

/// Four bits that choose from a table.
#[inline(always)]
unsafe fn looked_up<S: Simd>(plane: *const u8, row: usize, table: &[i8; 16]) -> [S::I; 8] {
    unsafe {
        let mut w = four_bits::<S>(plane, row);
        for w in &mut w {
            *w = S::lookup(table, *w);
        }
        w
    }
}

#[inline(always)]
unsafe fn iq4_values<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe { looked_up::<S>(plane, row, &IQ4_VALUES) }
}

#[inline(always)]
unsafe fn e2m1_values<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe { looked_up::<S>(plane, row, &E2M1_DOUBLED) }
}

#[inline(always)]
unsafe fn one<S: Simd>(d: S::F) -> Scales<S> {
    unsafe { Scales { d: [d, d], m: [S::splat(0.0); 2] } }
}

macro_rules! tile {
    ($name:ident, tiles $tiles:literal, head $head:literal, scales $scales:literal, planes $planes:literal, bits $bits:literal,
     { $($constant:ident = $value:expr),* }, $numbers:expr, |$head_ptr:ident, $tile:ident, $row:ident| $scale_body:expr) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;
        impl Tile for $name {
            const TYPE: TensorType = TensorType::$name;
            const TILES: usize = $tiles;
            const HEAD: usize = $head;
            const BYTES: usize = $scales + $planes;
            const BITS: u32 = $bits;
            $(tile!(@constant $constant $value);)*
            #[inline(always)]
            unsafe fn numbers<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8] {
                // SAFETY: as the trait demands.
                unsafe { $numbers(tile.add($scales), row) }
            }
            #[inline(always)]
            unsafe fn scales<S: Simd>($head_ptr: *const u8, $tile: *const u8, $row: usize) -> Scales<S> {
                // SAFETY: as the trait demands.
                unsafe { $scale_body }
            }
        }
    };
    (@constant OFFSET $value:expr) => { const OFFSET: i32 = $value; };
    (@constant SPLIT $value:expr) => { const SPLIT: bool = $value; };
    (@constant MINIMUM $value:expr) => { const MINIMUM: bool = $value; };
}

/// `d` of each row at the beginning of the tile.
#[inline(always)]
unsafe fn d_only<S: Simd>(tile: *const u8, row: usize) -> Scales<S> {
    unsafe { one(S::load_f16(tile.add(2 * row))) }
}

/// `d`, then `m`.
#[inline(always)]
unsafe fn d_and_m<S: Simd>(tile: *const u8, row: usize) -> Scales<S> {
    unsafe {
        let (d, m) = (S::load_f16(tile.add(2 * row)), S::load_f16(tile.add(32 + 2 * row)));
        Scales { d: [d, d], m: [m, m] }
    }
}

/// Q4_K and Q5_K: `d · scale` and `min`.
#[inline(always)]
unsafe fn k4_scales<S: Simd>(head: *const u8, tile: *const u8, row: usize) -> Scales<S> {
    unsafe {
        let d = S::mul(S::load_f16(head.add(2 * row)), S::load_u8(tile.add(row)));
        let m = S::load_u8(tile.add(16 + row));
        Scales { d: [d, d], m: [m, m] }
    }
}

/// Q3_K and Q6_K: `d · scale`, a signed scale for each half.
#[inline(always)]
unsafe fn split_scales<S: Simd>(head: *const u8, tile: *const u8, row: usize) -> Scales<S> {
    unsafe {
        let d = S::load_f16(head.add(2 * row));
        let (first, second) = (S::load_i8(tile.add(row)), S::load_i8(tile.add(16 + row)));
        Scales { d: [S::mul(d, first), S::mul(d, second)], m: [S::splat(0.0); 2] }
    }
}

/// Q2_K: scale and minimum of each half share a byte.
#[inline(always)]
unsafe fn q2_k_scales<S: Simd>(head: *const u8, tile: *const u8, row: usize) -> Scales<S> {
    unsafe {
        let d = S::load_f16(head.add(2 * row));
        let mut scales = Scales { d: [d, d], m: [d, d] };
        for half in 0..2 {
            let [low, high] = S::load_nibbles(tile.add(16 * half + row));
            scales.d[half] = S::mul(d, low);
            scales.m[half] = high;
        }
        scales
    }
}

tile!(Q4_0, tiles 1, head 0, scales 32, planes 256, bits 4, { OFFSET = 8 }, four_bits::<S>,
    |_head, tile, row| d_only::<S>(tile, row));
tile!(Q4_1, tiles 1, head 0, scales 64, planes 256, bits 4, { MINIMUM = true }, four_bits::<S>,
    |_head, tile, row| d_and_m::<S>(tile, row));
tile!(Q5_0, tiles 1, head 0, scales 32, planes 320, bits 5, { OFFSET = 16 }, five_bits::<S>,
    |_head, tile, row| d_only::<S>(tile, row));
tile!(Q5_1, tiles 1, head 0, scales 64, planes 320, bits 5, { MINIMUM = true }, five_bits::<S>,
    |_head, tile, row| d_and_m::<S>(tile, row));
tile!(Q8_0, tiles 1, head 0, scales 32, planes 512, bits 8, {}, eight_bits::<S>,
    |_head, tile, row| d_only::<S>(tile, row));
tile!(IQ4_NL, tiles 1, head 0, scales 32, planes 256, bits 8, {}, iq4_values::<S>,
    |_head, tile, row| d_only::<S>(tile, row));
tile!(MXFP4, tiles 1, head 0, scales 16, planes 256, bits 8, {}, e2m1_values::<S>,
    |_head, tile, row| one(S::load_e8m0_half(tile.add(row))));
tile!(Q2_K, tiles 8, head 64, scales 32, planes 128, bits 2, { SPLIT = true, MINIMUM = true }, two_bits::<S>,
    |head, tile, row| q2_k_scales::<S>(head, tile, row));
tile!(Q3_K, tiles 8, head 32, scales 32, planes 192, bits 3, { OFFSET = 4, SPLIT = true }, three_bits::<S>,
    |head, tile, row| split_scales::<S>(head, tile, row));
tile!(Q4_K, tiles 8, head 64, scales 32, planes 256, bits 4, { MINIMUM = true }, four_bits::<S>,
    |head, tile, row| k4_scales::<S>(head, tile, row));
tile!(Q5_K, tiles 8, head 64, scales 32, planes 320, bits 5, { MINIMUM = true }, five_bits::<S>,
    |head, tile, row| k4_scales::<S>(head, tile, row));
tile!(Q6_K, tiles 8, head 32, scales 32, planes 384, bits 6, { OFFSET = 32, SPLIT = true }, six_bits::<S>,
    |head, tile, row| split_scales::<S>(head, tile, row));
tile!(IQ4_XS, tiles 8, head 32, scales 16, planes 256, bits 8, {}, iq4_values::<S>,
    |head, tile, row| one(S::mul(S::load_f16(head.add(2 * row)), S::load_i8(tile.add(row)))));
