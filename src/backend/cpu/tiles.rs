//! How the kernels read a tile of each format: eight vectors of numbers, and the scales of its rows.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::quantize::{JOINED_OFFSET, SUMS_UNIT};
use super::simd::Simd;
use crate::quant::TensorType;
use crate::quant::blocks::{E2M1_DOUBLED, IQ4_VALUES};

/// The scales of a tile's rows: `w = d · (q − OFFSET) + m`, apart for each half of the columns; in super-blocks
/// `w = d · (q − OFFSET) − dmin · m`.
pub(super) struct Scales<S: Simd> {
    pub d: [S::F; 2],
    pub m: [S::F; 2],
}

/// What a super-block says of a tile's rows: `w = d · scale · (q − OFFSET) − dmin · minimum`, integers of up to eight bits, apart for
/// each half of the columns.
pub(super) struct Parts<S: Simd> {
    pub scale: [S::I; 2],
    pub minimum: [S::I; 2],
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
    /// In super-blocks: by how many bits [`Tile::raised`] numbers are higher.
    const RAISED: i32 = 0;
    /// Tiles of a block, bytes before them, and bytes of one: as the format's layout has them.
    const TILES: usize;
    const HEAD: usize;
    const BYTES: usize;

    /// The numbers of columns `4j..4j+4` in vector `j`, for rows from `row`.
    ///
    /// # Safety
    /// The instruction set of `S`, and a whole tile at `tile`.
    unsafe fn numbers<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8];

    /// In super-blocks: the numbers times `2^RAISED`, up to 128, or up to 255 if 128 is subtracted from them.
    ///
    /// # Safety
    /// As [`Tile::numbers`].
    #[inline(always)]
    unsafe fn raised<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8] {
        // SAFETY: as demanded.
        unsafe { Self::numbers::<S>(tile, row) }
    }

    /// In super-blocks: scales and minimums of rows from `row`.
    ///
    /// # Safety
    /// As [`Tile::numbers`].
    #[inline(always)]
    unsafe fn parts<S: Simd>(_tile: *const u8, _row: usize) -> Parts<S> {
        // SAFETY: as demanded.
        unsafe { Parts { scale: [S::splat_i32(0); 2], minimum: [S::splat_i32(0); 2] } }
    }

    /// The scales of rows from `row`.
    ///
    /// # Safety
    /// As [`Tile::numbers`], and the block's head at `head`.
    #[inline(always)]
    unsafe fn scales<S: Simd>(head: *const u8, tile: *const u8, row: usize) -> Scales<S> {
        // SAFETY: as demanded.
        unsafe {
            let (d, parts) = (Self::d::<S>(head, row), Self::parts::<S>(tile, row));
            Scales {
                d: parts.scale.map(|scale| S::mul(d, S::to_float(scale))),
                m: parts.minimum.map(|minimum| S::to_float(minimum)),
            }
        }
    }

    /// Of a super-block: `d` of rows from `row`.
    ///
    /// # Safety
    /// As [`Tile::scales`].
    #[inline(always)]
    unsafe fn d<S: Simd>(head: *const u8, row: usize) -> S::F {
        // SAFETY: as demanded.
        unsafe { S::load_f16(head.add(2 * row)) }
    }

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

/// A scale of 16 bits in each lane, and nothing above it.
#[inline(always)]
pub(super) unsafe fn paired<S: Simd>(scale: S::I) -> S::I {
    // SAFETY: the caller has the instruction set.
    unsafe { S::and(scale, S::splat_i32(0xffff)) }
}

/// The float that scales sums of products of raised numbers: rows from `row`.
#[inline(always)]
pub(super) unsafe fn products_scale<S: Simd, T: Tile>(head: *const u8, row: usize) -> S::F {
    // SAFETY: the caller has the instruction set, and a super-block at `head`.
    unsafe { S::mul(T::d::<S>(head, row), S::splat(1.0 / (1 << T::RAISED) as f32)) }
}

/// The float that scales sums of products of minimums: rows from `row`.
#[inline(always)]
pub(super) unsafe fn minimums_scale<S: Simd, T: Tile>(head: *const u8, row: usize) -> S::F {
    // SAFETY: as above.
    unsafe { S::mul(T::dmin::<S>(head, row), S::splat(-SUMS_UNIT)) }
}

/// Whether the constants of `T` are those of the layout: asked by the kernels' tests.
#[cfg(test)]
pub(super) fn agrees<T: Tile>() -> bool {
    super::pack::Layout::of(T::TYPE).is_some_and(|l| l.tiles == T::TILES && l.head == T::HEAD && l.tile() == T::BYTES)
}

/// The plane of four bits, `UP` bits higher, as all of these.
#[inline(always)]
unsafe fn four_bits<S: Simd, const UP: i32>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mask = S::splat_u8(15 << UP);
        let mut w = [mask; 8];
        for j in 0..4 {
            let z = S::load(plane.add(64 * j + 4 * row));
            w[j] = S::and(S::shift16(z, UP), mask);
            w[j + 4] = S::and(S::shift16(z, UP - 4), mask);
        }
        w
    }
}

/// The plane of four bits and that of a fifth.
#[inline(always)]
unsafe fn five_bits<S: Simd, const UP: i32>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = four_bits::<S, UP>(planes, row);
        let plane = S::load(planes.add(256 + 4 * row));
        let mask = S::splat_u8(16 << UP);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane, UP + 4 - j as i32), mask));
        }
        w
    }
}

/// The plane of four bits and that of two more.
#[inline(always)]
unsafe fn six_bits<S: Simd, const UP: i32>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = four_bits::<S, UP>(planes, row);
        let plane = [S::load(planes.add(256 + 4 * row)), S::load(planes.add(320 + 4 * row))];
        let mask = S::splat_u8(0x30 << UP);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane[j / 4], UP + 4 - 2 * (j % 4) as i32), mask));
        }
        w
    }
}

/// The plane of two bits.
#[inline(always)]
unsafe fn two_bits<S: Simd, const UP: i32>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let plane = [S::load(planes.add(4 * row)), S::load(planes.add(64 + 4 * row))];
        let mask = S::splat_u8(3 << UP);
        let mut w = [mask; 8];
        for j in 0..8 {
            w[j] = S::and(S::shift16(plane[j / 4], UP - 2 * (j % 4) as i32), mask);
        }
        w
    }
}

/// The plane of two bits and that of a third.
#[inline(always)]
unsafe fn three_bits<S: Simd, const UP: i32>(planes: *const u8, row: usize) -> [S::I; 8] {
    unsafe {
        let mut w = two_bits::<S, UP>(planes, row);
        let plane = S::load(planes.add(128 + 4 * row));
        let mask = S::splat_u8(4 << UP);
        for j in 0..8 {
            w[j] = S::or(w[j], S::and(S::shift16(plane, UP + 2 - j as i32), mask));
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
        let mut w = four_bits::<S, 0>(plane, row);
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

/// The same, from 0 on.
#[inline(always)]
unsafe fn iq4_values_raised<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    const TABLE: [i8; 16] = {
        let (mut table, mut i) = (IQ4_VALUES, 0);
        while i < table.len() {
            table[i] = table[i].wrapping_sub(-128);
            i += 1;
        }
        table
    };
    unsafe { looked_up::<S>(plane, row, &TABLE) }
}

#[inline(always)]
unsafe fn e2m1_values<S: Simd>(plane: *const u8, row: usize) -> [S::I; 8] {
    unsafe { looked_up::<S>(plane, row, &E2M1_DOUBLED) }
}

#[inline(always)]
unsafe fn one<S: Simd>(d: S::F) -> Scales<S> {
    unsafe { Scales { d: [d, d], m: [S::splat(0.0); 2] } }
}

/// A format in blocks: its scales are floats.
macro_rules! block {
    ($name:ident, scales $scales:literal, planes $planes:literal, bits $bits:literal, { $($constant:ident = $value:expr),* },
     $numbers:expr, |$tile:ident, $row:ident| $scale_body:expr) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;
        impl Tile for $name {
            const TYPE: TensorType = TensorType::$name;
            const TILES: usize = 1;
            const HEAD: usize = 0;
            const BYTES: usize = $scales + $planes;
            const BITS: u32 = $bits;
            $(constant!($constant $value);)*
            #[inline(always)]
            unsafe fn numbers<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8] {
                // SAFETY: as the trait demands.
                unsafe { $numbers(tile.add($scales), row) }
            }
            #[inline(always)]
            unsafe fn scales<S: Simd>(_head: *const u8, $tile: *const u8, $row: usize) -> Scales<S> {
                // SAFETY: as the trait demands.
                unsafe { $scale_body }
            }
        }
    };
}

/// A format in super-blocks: their heads are floats, what stands in tiles is integers.
macro_rules! super_block {
    ($name:ident, head $head:literal, scales $scales:literal, planes $planes:literal, bits $bits:literal,
     { $($constant:ident = $value:expr),* }, $numbers:expr, raised $raised:literal $raised_numbers:expr,
     |$tile:ident, $row:ident| $parts_body:expr) => {
        #[allow(non_camel_case_types)]
        pub(super) struct $name;
        impl Tile for $name {
            const TYPE: TensorType = TensorType::$name;
            const TILES: usize = 8;
            const HEAD: usize = $head;
            const BYTES: usize = $scales + $planes;
            const BITS: u32 = $bits;
            const RAISED: i32 = $raised;
            $(constant!($constant $value);)*
            #[inline(always)]
            unsafe fn numbers<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8] {
                // SAFETY: as the trait demands.
                unsafe { $numbers(tile.add($scales), row) }
            }
            #[inline(always)]
            unsafe fn raised<S: Simd>(tile: *const u8, row: usize) -> [S::I; 8] {
                // SAFETY: as the trait demands.
                unsafe { $raised_numbers(tile.add($scales), row) }
            }
            #[inline(always)]
            unsafe fn parts<S: Simd>($tile: *const u8, $row: usize) -> Parts<S> {
                // SAFETY: as the trait demands.
                unsafe { $parts_body }
            }
        }
    };
}

macro_rules! constant {
    (OFFSET $value:expr) => {
        const OFFSET: i32 = $value;
    };
    (SPLIT $value:expr) => {
        const SPLIT: bool = $value;
    };
    (MINIMUM $value:expr) => {
        const MINIMUM: bool = $value;
    };
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

/// Q4_K and Q5_K: scale and minimum.
#[inline(always)]
unsafe fn scale_and_minimum<S: Simd>(tile: *const u8, row: usize) -> Parts<S> {
    unsafe {
        let (scale, minimum) = (S::load_u8(tile.add(row)), S::load_u8(tile.add(16 + row)));
        Parts { scale: [scale, scale], minimum: [minimum, minimum] }
    }
}

/// Q3_K and Q6_K: a signed scale for each half.
#[inline(always)]
unsafe fn scale_of_halves<S: Simd>(tile: *const u8, row: usize) -> Parts<S> {
    unsafe {
        let scale = [S::load_i8(tile.add(row)), S::load_i8(tile.add(16 + row))];
        Parts { scale, minimum: [S::splat_i32(0); 2] }
    }
}

/// Q2_K: scale and minimum of each half share a byte.
#[inline(always)]
unsafe fn nibbles_of_halves<S: Simd>(tile: *const u8, row: usize) -> Parts<S> {
    unsafe {
        let bytes = [S::load_u8(tile.add(row)), S::load_u8(tile.add(16 + row))];
        Parts {
            scale: bytes.map(|bytes| S::and(bytes, S::splat_i32(15))),
            minimum: bytes.map(|bytes| S::shift16(bytes, -4)),
        }
    }
}

/// IQ4_XS: a signed scale.
#[inline(always)]
unsafe fn signed_scale<S: Simd>(tile: *const u8, row: usize) -> Parts<S> {
    unsafe {
        let scale = S::load_i8(tile.add(row));
        Parts { scale: [scale, scale], minimum: [S::splat_i32(0); 2] }
    }
}

block!(Q4_0, scales 32, planes 256, bits 4, { OFFSET = 8 }, four_bits::<S, 0>, |tile, row| d_only::<S>(tile, row));
block!(Q4_1, scales 64, planes 256, bits 4, { MINIMUM = true }, four_bits::<S, 0>, |tile, row| d_and_m::<S>(tile, row));
block!(Q5_0, scales 32, planes 320, bits 5, { OFFSET = 16 }, five_bits::<S, 0>, |tile, row| d_only::<S>(tile, row));
block!(Q5_1, scales 64, planes 320, bits 5, { MINIMUM = true }, five_bits::<S, 0>, |tile, row| d_and_m::<S>(tile, row));
block!(Q8_0, scales 32, planes 512, bits 8, {}, eight_bits::<S>, |tile, row| d_only::<S>(tile, row));
block!(IQ4_NL, scales 32, planes 256, bits 8, {}, iq4_values::<S>, |tile, row| d_only::<S>(tile, row));
block!(MXFP4, scales 16, planes 256, bits 8, {}, e2m1_values::<S>, |tile, row| one(S::load_e8m0_half(tile.add(row))));
super_block!(Q2_K, head 64, scales 32, planes 128, bits 2, { SPLIT = true, MINIMUM = true },
    two_bits::<S, 0>, raised 5 two_bits::<S, 5>, |tile, row| nibbles_of_halves::<S>(tile, row));
super_block!(Q3_K, head 32, scales 32, planes 192, bits 3, { OFFSET = 4, SPLIT = true },
    three_bits::<S, 0>, raised 5 three_bits::<S, 5>, |tile, row| scale_of_halves::<S>(tile, row));
super_block!(Q4_K, head 64, scales 32, planes 256, bits 4, { MINIMUM = true },
    four_bits::<S, 0>, raised 3 four_bits::<S, 3>, |tile, row| scale_and_minimum::<S>(tile, row));
super_block!(Q5_K, head 64, scales 32, planes 320, bits 5, { MINIMUM = true },
    five_bits::<S, 0>, raised 2 five_bits::<S, 2>, |tile, row| scale_and_minimum::<S>(tile, row));
super_block!(Q6_K, head 32, scales 32, planes 384, bits 6, { OFFSET = 32, SPLIT = true },
    six_bits::<S, 0>, raised 2 six_bits::<S, 2>, |tile, row| scale_of_halves::<S>(tile, row));
super_block!(IQ4_XS, head 32, scales 16, planes 256, bits 8, {},
    iq4_values::<S>, raised 0 iq4_values_raised::<S>, |tile, row| signed_scale::<S>(tile, row));
