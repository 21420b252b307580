//! Packed weights: the blocks of 16 rows interleaved, so that a lane of a vector is a row and no sum crosses lanes.
//!
//! A *tile* is 16 rows × 32 columns. Its numbers lie in planes, whose unit is a word of four columns of one row, the
//! words of the 16 rows side by side:
//!
//! - low four bits: plane of 256 bytes, word `j` (of 4) of a row holds columns `4j..4j+4` in its low halves and
//!   `16+4j..` in its high ones;
//! - one more bit: plane of 64 bytes, bit `k` of a byte belongs to columns `4k..4k+4`;
//! - two bits: plane of 128 bytes, one word for each half of the columns, two bits of each byte for four columns;
//! - eight bits: plane of 512 bytes, word `j` (of 8).
//!
//! Before the planes stand the tile's scales, 16 of each kind; before the tiles of a super-block its own. Packing is
//! lossless: [`unpack`] gives back the blocks of the file.

use super::features::Isa;
use crate::quant::TensorType;
use crate::quant::blocks::{BlockIq4Xs, BlockQ3K, group_scales_mins};

/// Rows of a group.
pub(super) const ROWS: usize = 16;
/// Columns of a tile.
pub(super) const COLUMNS: usize = 32;

/// How a format is packed.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    pub tensor_type: TensorType,
    /// Tiles of a block of the file.
    pub tiles: usize,
    /// Bits of a number.
    bits: u32,
    /// Bytes before the tiles of a block.
    pub head: usize,
    /// Bytes of a tile's scales.
    scales: usize,
    /// Makes the words of a row in the planes of all tiles of some blocks.
    read: fn(blocks: &[u8], words: &mut [u32]),
    /// Writes four numbers, a byte each, as word `i` of a block.
    write: fn(block: &mut [u8], i: usize, numbers: u32),
    /// Copies a row's scales from some blocks.
    read_scales: fn(layout: &Layout, blocks: &[u8], row: usize, packed: &mut [u8]),
    /// The inverse.
    write_scales: fn(block: &mut [u8], row: usize, packed: &View),
}

/// Bytes of a tile's planes for numbers of so many bits.
const fn planes_bytes(bits: u32) -> usize {
    match bits {
        2 => 128,
        3 => 192,
        4 => 256,
        5 => 320,
        6 => 384,
        _ => 512,
    }
}

/// Bytes of a plane's word in all rows: a cache line.
const PLANE: usize = 4 * ROWS;
/// Tiles that are packed together, so that a row has vectors of words; blocks have as many, or one.
const TOGETHER: usize = 8;
/// Most words of a row in the planes of a tile.
const MOST_WORDS: usize = 8;

/// The words of some tiles' planes, row by row.
#[repr(align(64))]
struct RowWords([[u32; TOGETHER * MOST_WORDS]; ROWS]);

/// The packed form of a block in 16 rows.
pub(super) struct Super<'a> {
    bytes: &'a mut [u8],
    head: usize,
    tile: usize,
}

/// The same, to read.
pub(super) struct View<'a> {
    bytes: &'a [u8],
    head: usize,
    tile: usize,
}

impl Super<'_> {
    /// `N` bytes of `row` in array `at` (counted in bytes from the head's beginning) of the head.
    fn head<const N: usize>(&mut self, at: usize, row: usize) -> &mut [u8] {
        &mut self.bytes[at + row * N..][..N]
    }

    /// `N` scales of a byte for each tile, given as arrays over tiles, in the order in which a tile holds them.
    fn tiles<const TILES: usize, const N: usize>(&mut self, row: usize, scales: [[u8; TILES]; N]) {
        for (i, tile) in self.bytes[self.head..].chunks_exact_mut(self.tile).take(TILES).enumerate() {
            let Some((tile, _)) = tile.split_at_mut_checked(ROWS * N) else { return };
            scales.iter().enumerate().for_each(|(n, scales)| tile[ROWS * n + row] = scales[i]);
        }
    }
}

impl Layout {
    /// Bytes of a tile's planes.
    fn planes(&self) -> usize {
        planes_bytes(self.bits)
    }

    /// Bytes of a tile.
    pub fn tile(&self) -> usize {
        self.scales + self.planes()
    }

    /// Bytes of a block in 16 rows.
    pub fn block(&self) -> usize {
        self.head + self.tiles * self.tile()
    }

    /// The layout of a format that has one.
    pub fn of(tensor_type: TensorType) -> Option<&'static Layout> {
        LAYOUTS.iter().find(|layout| layout.tensor_type == tensor_type)
    }

    /// Packs up to 16 rows, each as many blocks as there is room for; the rest of the rows is zero. Exchanging rows for words takes a
    /// few instructions for a vector of words, where `isa` has vectors for that, and as many for a word where not.
    pub fn pack(&self, isa: Isa, rows: &[&[u8]], packed: &mut [u8]) {
        let together = TOGETHER / self.tiles;
        let mut words = RowWords([[0; _]; ROWS]);
        for (i, packed) in packed.chunks_mut(together * self.block()).enumerate() {
            if rows.len() < ROWS {
                packed.fill(0);
            }
            let blocks = packed.len() / self.block();
            let block_bytes = self.tensor_type.format().block_bytes;
            for (r, (row, words)) in rows.iter().zip(&mut words.0).enumerate() {
                let blocks = &row[i * together * block_bytes..][..blocks * block_bytes];
                (self.read_scales)(self, blocks, r, packed);
                (self.read)(blocks, words);
            }
            match isa.vectors() {
                // SAFETY: the instruction set was detected.
                Isa::Avx512Vnni => unsafe { self.put_512(&words, blocks * self.tiles, packed) },
                _ => self.put(&words, blocks * self.tiles, packed),
            }
        }
    }

    /// Where word `i` of the rows belongs, in packed blocks.
    #[inline(always)]
    fn place(&self, i: usize) -> usize {
        let words = self.planes() / PLANE;
        let (tile, word) = (i / words, i % words);
        tile / self.tiles * self.block() + self.head + tile % self.tiles * self.tile() + self.scales + word * PLANE
    }

    /// Puts all rows' words into the planes of so many tiles.
    fn put(&self, words: &RowWords, tiles: usize, packed: &mut [u8]) {
        for i in 0..tiles * self.planes() / PLANE {
            let plane = packed[self.place(i)..][..PLANE].as_chunks_mut::<4>().0;
            plane.iter_mut().zip(&words.0).for_each(|(out, row)| *out = row[i].to_le_bytes());
        }
    }

    /// The same, by vectors.
    #[target_feature(enable = "avx512f")]
    #[allow(clippy::needless_range_loop)] // the index is that of a row or a word, in registers
    fn put_512(&self, words: &RowWords, tiles: usize, packed: &mut [u8]) {
        use std::arch::x86_64::*;
        let all = tiles * self.planes() / PLANE;
        for from in (0..all).step_by(ROWS) {
            let mut rows = [_mm512_setzero_si512(); ROWS];
            for r in 0..ROWS {
                // SAFETY: rows have whole vectors of words.
                rows[r] = unsafe { _mm512_load_si512(words.0[r][from..from + ROWS].as_ptr().cast()) };
            }
            let columns = super::simd::transpose(rows);
            for i in 0..ROWS {
                if from + i < all {
                    let plane = &mut packed[self.place(from + i)..][..PLANE];
                    // SAFETY: a plane has as many bytes as a vector.
                    unsafe { _mm512_storeu_si512(plane.as_mut_ptr().cast(), columns[i]) };
                }
            }
        }
    }

    /// The block of `row`.
    pub fn unpack(&self, packed: &[u8], row: usize, block: &mut [u8]) {
        block.fill(0);
        let packed = View { bytes: packed, head: self.head, tile: self.tile() };
        (self.write_scales)(block, row, &packed);
        for tile in 0..self.tiles {
            let planes = self.head + tile * self.tile() + self.scales;
            let planes = &packed.bytes[planes..planes + self.planes()];
            for word in 0..8 {
                (self.write)(block, tile * 8 + word, get(self.bits, planes, row, word));
            }
        }
    }
}

fn or_word(planes: &mut [u8], at: usize, bits: u32) {
    let word = u32_at(planes, at) | bits;
    planes[at..at + 4].copy_from_slice(&word.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The numbers of a row in a tile, a byte each, in words of four.
type Words = [u32; 8];

/// Makes a row's words in the planes of all tiles of some blocks of `BYTES` bytes and `TILES` tiles, whose numbers are `BITS` wide. Compiled for each
/// format, so that the words of a tile are the elements of a vector: loading a model is as quick as this is.
#[inline(always)]
fn planes<const BITS: u32, const BYTES: usize, const TILES: usize>(
    blocks: &[u8],
    words: &mut [u32],
    numbers: impl Fn(&[u8; BYTES], usize) -> Words,
) {
    let mut tiles = words.chunks_exact_mut(planes_bytes(BITS) / PLANE);
    for block in blocks.as_chunks::<BYTES>().0 {
        for (tile, words) in tiles.by_ref().take(TILES).enumerate() {
            let n = numbers(block, tile);
            // Two bits each of four words.
            let pairs = |n: &[u32], from: u32| (0..4).fold(0, |word, i| word | (n[i] >> from & 0x0303_0303) << (2 * i));
            // A bit each of eight words.
            let bits = |from: u32| (0..8).fold(0, |word, i| word | (n[i] >> from & 0x0101_0101) << i);
            match BITS {
                2 | 3 => (0..2).for_each(|half| words[half] = pairs(&n[4 * half..], 0)),
                4..=6 => (0..4).for_each(|i| words[i] = n[i] & 0x0f0f_0f0f | (n[i + 4] & 0x0f0f_0f0f) << 4),
                _ => words.copy_from_slice(&n),
            }
            match BITS {
                3 => words[2] = bits(2),
                5 => words[4] = bits(4),
                6 => (0..2).for_each(|half| words[4 + half] = pairs(&n[4 * half..], 4)),
                _ => {}
            }
        }
    }
}

/// [`planes`] of blocks of 32 numbers of five bits: at `at` the fifth ones in order, then the others as the planes have them.
#[inline(always)]
fn planes_of_five<const BYTES: usize>(blocks: &[u8], out: &mut [u32], at: usize) {
    for (block, out) in blocks.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<5>().0) {
        let [a, b, c, d] = words(block, at + 4);
        *out = [a, b, c, d, fifth_bits(u32_at(block, at))];
    }
}

/// What reads the scales of some blocks of so many bytes, of what reads those of one.
macro_rules! each {
    ($bytes:literal, $one:expr) => {
        |layout, blocks, row, packed| {
            let packed = packed.chunks_exact_mut(layout.block());
            for (block, bytes) in blocks.as_chunks::<$bytes>().0.iter().zip(packed) {
                $one(block, row, &mut Super { bytes, head: layout.head, tile: layout.tile() });
            }
        }
    };
}

/// The numbers of word `word` of a row, from a tile's planes.
fn get(bits: u32, planes: &[u8], row: usize, word: usize) -> u32 {
    let place = 4 * row;
    match bits {
        2 | 3 => {
            let low = u32_at(planes, 64 * (word / 4) + place) >> (2 * (word % 4)) & 0x0303_0303;
            match bits {
                2 => low,
                _ => low | (u32_at(planes, 128 + place) >> word & 0x0101_0101) << 2,
            }
        }
        4..=6 => {
            let low = u32_at(planes, 64 * (word % 4) + place) >> (4 * (word / 4)) & 0x0f0f_0f0f;
            match bits {
                5 => low | (u32_at(planes, 256 + place) >> word & 0x0101_0101) << 4,
                6 => {
                    let high = u32_at(planes, 256 + 64 * (word / 4) + place) >> (2 * (word % 4)) & 0x0303_0303;
                    low | high << 4
                }
                _ => low,
            }
        }
        _ => u32_at(planes, 64 * word + place),
    }
}

/// `N` words from `at`.
#[inline(always)]
fn words<const N: usize>(block: &[u8], at: usize) -> [u32; N] {
    let bytes = &block[at..at + 4 * N];
    std::array::from_fn(|i| u32_at(bytes, 4 * i))
}

/// Numbers in half bytes: words 0..4 in the low halves of 16 bytes from `at`, 4..8 in the high ones.
#[inline(always)]
fn halves(block: &[u8], at: usize) -> Words {
    let words = words::<4>(block, at);
    std::array::from_fn(|i| words[i % 4] >> (4 * (i / 4)) & 0x0f0f_0f0f)
}

fn set_halves(block: &mut [u8], at: usize, i: usize, numbers: u32) {
    or_word(block, at + 4 * (i % 4), (numbers & 0x0f0f_0f0f) << (4 * (i / 4)));
}

/// The plane's word of a row's fifth bits, which are `bits` in the order of the columns: every fourth bit of them is a byte.
#[inline(always)]
fn fifth_bits(bits: u32) -> u32 {
    // (Of four words at once, which are a vector.)
    let mut bytes: [u32; 4] = std::array::from_fn(|column| bits >> column & 0x1111_1111);
    bytes = bytes.map(|bits| (bits | bits >> 3) & 0x0303_0303);
    bytes = bytes.map(|bits| (bits | bits >> 6) & 0x000f_000f);
    u32::from_le_bytes(bytes.map(|bits| (bits | bits >> 12) as u8))
}

/// Numbers from their low bits and their high ones.
#[inline(always)]
fn join(low: Words, high: Words) -> Words {
    std::array::from_fn(|i| low[i] | high[i])
}

fn set_fifth_bits(block: &mut [u8], at: usize, i: usize, numbers: u32) {
    let bits = (numbers >> 4 & 0x0101_0101).wrapping_mul(0x0102_0408) >> 24 & 15;
    or_word(block, at, bits << (4 * i));
}

/// Numbers of Q4_K and Q5_K: two groups of 32 share 32 bytes.
#[inline(always)]
fn k_halves(block: &[u8], at: usize, tile: usize) -> Words {
    words::<8>(block, at + 32 * (tile / 2)).map(|word| word >> (4 * (tile % 2)) & 0x0f0f_0f0f)
}

fn set_k_halves(block: &mut [u8], at: usize, i: usize, numbers: u32) {
    or_word(block, at + 32 * (i / 16) + 4 * (i % 8), (numbers & 0x0f0f_0f0f) << (4 * (i / 8 % 2)));
}

/// Two bits a number, shifted by `up`: within each half of the block, 32 bytes hold four runs of 32.
#[inline(always)]
fn k_pairs(block: &[u8], at: usize, tile: usize, up: u32) -> Words {
    words::<8>(block, at + 32 * (tile / 4)).map(|word| (word >> (2 * (tile % 4)) & 0x0303_0303) << up)
}

fn set_k_pairs(block: &mut [u8], at: usize, i: usize, numbers: u32) {
    or_word(block, at + 32 * (i / 32) + 4 * (i % 8), (numbers & 0x0303_0303) << (2 * (i / 8 % 4)));
}

/// One bit a number, shifted by `up`: bit `g` of 32 bytes belongs to group `g` of 32.
#[inline(always)]
fn k_bit(block: &[u8], at: usize, tile: usize, up: u32) -> Words {
    words::<8>(block, at).map(|word| (word >> tile & 0x0101_0101) << up)
}

fn set_k_bit(block: &mut [u8], at: usize, i: usize, bits: u32) {
    or_word(block, at + 4 * (i % 8), (bits & 0x0101_0101) << (i / 8));
}

/// The low four bits of Q6_K.
#[inline(always)]
fn q6_k_halves(block: &[u8], tile: usize) -> Words {
    let (at, shift) = q6_k_low(8 * tile);
    words::<8>(block, at).map(|word| word >> shift & 0x0f0f_0f0f)
}

/// Where word `i` of Q6_K has its low four bits: byte and shift.
fn q6_k_low(i: usize) -> (usize, usize) {
    (64 * (i / 32) + 32 * (i / 8 % 2) + 4 * (i % 8), 4 * (i / 16 % 2))
}

/// `N` half-precision numbers at the beginning of the block, one for each tile of one.
fn read_halfs<const N: usize>(block: &[u8], row: usize, packed: &mut Super) {
    for n in 0..N {
        packed.head::<2>(32 * n, row).copy_from_slice(&block[2 * n..2 * n + 2]);
    }
}

fn write_halfs<const N: usize>(block: &mut [u8], row: usize, packed: &View) {
    for n in 0..N {
        block[2 * n..2 * n + 2].copy_from_slice(&packed.bytes[32 * n + 2 * row..][..2]);
    }
}

/// Scales and minima of Q4_K and Q5_K, from 6 bits to bytes.
fn read_k4(block: &[u8], row: usize, packed: &mut Super) {
    read_halfs::<2>(block, row, packed);
    let mut raw = [0; 12];
    raw.copy_from_slice(&block[4..16]);
    let (scales, mins) = group_scales_mins(&raw);
    packed.tiles(row, [scales, mins]);
}

fn write_k4(block: &mut [u8], row: usize, packed: &View) {
    write_halfs::<2>(block, row, packed);
    let byte = |tile: usize, at: usize| packed.bytes[packed.head + tile * packed.tile + at + row];
    for g in 0..8 {
        let (scale, min) = (byte(g, 0), byte(g, 16));
        if g < 4 {
            block[4 + g] |= scale;
            block[8 + g] |= min;
        } else {
            block[8 + g] |= scale & 15 | min << 4;
            block[g] |= scale >> 4 << 6;
            block[4 + g] |= min >> 4 << 6;
        }
    }
}

/// Sixteen bytes of scales, two to a tile, at `from` of the block, and `N` halfs at `halfs`.
fn read_16<const N: usize>(block: &[u8], row: usize, packed: &mut Super, from: usize, halfs: usize) {
    for n in 0..N {
        packed.head::<2>(32 * n, row).copy_from_slice(&block[halfs + 2 * n..][..2]);
    }
    let scales = &block[from..from + 16];
    packed.tiles::<8, 2>(row, std::array::from_fn(|half| std::array::from_fn(|tile| scales[2 * tile + half])));
}

fn write_16<const N: usize>(block: &mut [u8], row: usize, packed: &View, from: usize, halfs: usize) {
    for n in 0..N {
        block[halfs + 2 * n..][..2].copy_from_slice(&packed.bytes[32 * n + 2 * row..][..2]);
    }
    for i in 0..16 {
        block[from + i] = packed.bytes[packed.head + i / 2 * packed.tile + 16 * (i % 2) + row];
    }
}

fn read_q3_k(block: &[u8], row: usize, packed: &mut Super) {
    packed.head::<2>(0, row).copy_from_slice(&block[108..110]);
    let block: &BlockQ3K = bytemuck::from_bytes(&block[..110]);
    let scales = block.group_scales();
    packed.tiles::<8, 2>(row, std::array::from_fn(|half| std::array::from_fn(|tile| scales[2 * tile + half] as u8)));
}

fn write_q3_k(block: &mut [u8], row: usize, packed: &View) {
    block[108..110].copy_from_slice(&packed.bytes[2 * row..][..2]);
    for i in 0..16 {
        let scale = packed.bytes[packed.head + i / 2 * packed.tile + 16 * (i % 2) + row].wrapping_add(32);
        block[96 + i % 8] |= (scale & 15) << (4 * (i / 8));
        block[104 + i % 4] |= (scale >> 4 & 3) << (2 * (i / 4));
    }
}

fn read_iq4_xs(block: &[u8], row: usize, packed: &mut Super) {
    packed.head::<2>(0, row).copy_from_slice(&block[..2]);
    let block: &BlockIq4Xs = bytemuck::from_bytes(&block[..136]);
    packed.tiles(row, [block.group_scales().map(|scale| scale as u8)]);
}

fn write_iq4_xs(block: &mut [u8], row: usize, packed: &View) {
    block[..2].copy_from_slice(&packed.bytes[2 * row..][..2]);
    for g in 0..8 {
        let scale = packed.bytes[packed.head + g * packed.tile + row].wrapping_add(32);
        block[4 + g / 2] |= (scale & 15) << (4 * (g % 2));
        block[2 + g / 4] |= (scale >> 4 & 3) << (2 * (g % 4));
    }
}

/// A format with one tile to the block and its scales first: they are the tile's.
macro_rules! simple {
    ($type:ident, $bytes:literal, $bits:literal, $halfs:literal, $read:expr, $write:expr) => {
        Layout {
            tensor_type: TensorType::$type,
            tiles: 1,
            bits: $bits,
            head: 0,
            scales: 32 * $halfs,
            read: $read,
            write: $write,
            read_scales: each!($bytes, read_halfs::<$halfs>),
            write_scales: write_halfs::<$halfs>,
        }
    };
}

static LAYOUTS: &[Layout] = &[
    simple!(Q4_0, 18, 4, 1, |blocks, out| planes::<4, 18, 1>(blocks, out, |b, _| halves(b, 2)), |b, i, n| {
        set_halves(b, 2, i, n)
    }),
    simple!(Q4_1, 20, 4, 2, |blocks, out| planes::<4, 20, 1>(blocks, out, |b, _| halves(b, 4)), |b, i, n| {
        set_halves(b, 4, i, n)
    }),
    simple!(Q5_0, 22, 5, 1, |blocks, out| planes_of_five::<22>(blocks, out, 2), |b, i, n| {
        set_halves(b, 6, i, n);
        set_fifth_bits(b, 2, i, n);
    }),
    simple!(Q5_1, 24, 5, 2, |blocks, out| planes_of_five::<24>(blocks, out, 4), |b, i, n| {
        set_halves(b, 8, i, n);
        set_fifth_bits(b, 4, i, n);
    }),
    simple!(Q8_0, 34, 8, 1, |blocks, out| planes::<8, 34, 1>(blocks, out, |b, _| words(b, 2)), |b, i, n| or_word(
        b,
        2 + 4 * i,
        n
    )),
    simple!(IQ4_NL, 18, 4, 1, |blocks, out| planes::<4, 18, 1>(blocks, out, |b, _| halves(b, 2)), |b, i, n| {
        set_halves(b, 2, i, n)
    }),
    Layout {
        tensor_type: TensorType::MXFP4,
        tiles: 1,
        bits: 4,
        head: 0,
        scales: 16,
        read: |blocks, out| planes::<4, 17, 1>(blocks, out, |b, _| halves(b, 1)),
        write: |b, i, n| set_halves(b, 1, i, n),
        read_scales: each!(17, |b: &[u8; 17], row, packed: &mut Super| packed.tiles(row, [[b[0]]])),
        write_scales: |b, row, packed| b[0] = packed.bytes[row],
    },
    Layout {
        tensor_type: TensorType::Q2_K,
        tiles: 8,
        bits: 2,
        head: 64,
        scales: 32,
        read: |blocks, out| planes::<2, 84, 8>(blocks, out, |b, t| k_pairs(b, 16, t, 0)),
        write: |b, i, n| set_k_pairs(b, 16, i, n),
        read_scales: each!(84, |b, row, packed| read_16::<2>(b, row, packed, 0, 80)),
        write_scales: |b, row, packed| write_16::<2>(b, row, packed, 0, 80),
    },
    Layout {
        tensor_type: TensorType::Q3_K,
        tiles: 8,
        bits: 3,
        head: 32,
        scales: 32,
        read: |blocks, out| planes::<3, 110, 8>(blocks, out, |b, t| join(k_pairs(b, 32, t, 0), k_bit(b, 0, t, 2))),
        write: |b, i, n| {
            set_k_pairs(b, 32, i, n);
            set_k_bit(b, 0, i, n >> 2);
        },
        read_scales: each!(110, read_q3_k),
        write_scales: write_q3_k,
    },
    Layout {
        tensor_type: TensorType::Q4_K,
        tiles: 8,
        bits: 4,
        head: 64,
        scales: 32,
        read: |blocks, out| planes::<4, 144, 8>(blocks, out, |b, t| k_halves(b, 16, t)),
        write: |b, i, n| set_k_halves(b, 16, i, n),
        read_scales: each!(144, read_k4),
        write_scales: write_k4,
    },
    Layout {
        tensor_type: TensorType::Q5_K,
        tiles: 8,
        bits: 5,
        head: 64,
        scales: 32,
        read: |blocks, out| planes::<5, 176, 8>(blocks, out, |b, t| join(k_halves(b, 48, t), k_bit(b, 16, t, 4))),
        write: |b, i, n| {
            set_k_halves(b, 48, i, n);
            set_k_bit(b, 16, i, n >> 4);
        },
        read_scales: each!(176, read_k4),
        write_scales: write_k4,
    },
    Layout {
        tensor_type: TensorType::Q6_K,
        tiles: 8,
        bits: 6,
        head: 32,
        scales: 32,
        read: |blocks, out| planes::<6, 210, 8>(blocks, out, |b, t| join(q6_k_halves(b, t), k_pairs(b, 128, t, 4))),
        write: |b, i, n| {
            let (at, shift) = q6_k_low(i);
            or_word(b, at, (n & 0x0f0f_0f0f) << shift);
            set_k_pairs(b, 128, i, n >> 4);
        },
        read_scales: each!(210, |b, row, packed| read_16::<1>(b, row, packed, 192, 208)),
        write_scales: |b, row, packed| write_16::<1>(b, row, packed, 192, 208),
    },
    Layout {
        tensor_type: TensorType::IQ4_XS,
        tiles: 8,
        bits: 4,
        head: 32,
        scales: 16,
        read: |blocks, out| planes::<4, 136, 8>(blocks, out, |b, t| halves(b, 8 + 16 * t)),
        write: |b, i, n| set_halves(b, 8 + 16 * (i / 8), i % 8, n),
        read_scales: each!(136, read_iq4_xs),
        write_scales: write_iq4_xs,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What these bytes are, files of packed weights say: if this fails, raise `VERSION` in `packfile`, and then this hash.
    #[test]
    fn packed_bytes_are_those_of_the_version() {
        let mut all = Vec::new();
        for layout in LAYOUTS {
            let rows: Vec<Vec<u8>> = (0..ROWS)
                .map(|r| {
                    (0..layout.tensor_type.format().block_bytes).map(|i| (i * 29 + r * 83 + i * i) as u8).collect()
                })
                .collect();
            let from = all.len();
            all.resize(from + layout.block(), 0);
            let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
            layout.pack(Isa::Scalar, &rows, &mut all[from..]);
        }
        assert_eq!(crate::xxh64::xxh64(&all, 0), 0xb7c9_2f77_dcb9_9748);
    }

    #[test]
    fn packing_is_lossless_and_the_same_by_vectors() {
        let mut state = 7u32;
        for layout in LAYOUTS {
            let block_bytes = layout.tensor_type.format().block_bytes;
            assert_eq!(layout.tiles * COLUMNS, layout.tensor_type.format().block_elements);
            let mut byte = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            // Fewer blocks than are packed together, as many, and some more.
            for (n, blocks) in [(1, 1), (5, 3), (16, 8), (15, 8), (16, 11)] {
                let rows: Vec<Vec<u8>> = (0..n).map(|_| (0..blocks * block_bytes).map(|_| byte()).collect()).collect();
                let rows: Vec<&[u8]> = rows.iter().map(Vec::as_slice).collect();
                let mut first = None;
                for isa in Isa::available() {
                    let mut packed = vec![0xaa; blocks * layout.block()];
                    layout.pack(isa, &rows, &mut packed);
                    let first = first.get_or_insert_with(|| packed.clone());
                    assert!(*first == packed, "{}: {isa:?} packs otherwise", layout.tensor_type.name());
                }
                for (i, row) in rows.iter().enumerate() {
                    for (row, packed) in
                        row.chunks(block_bytes).zip(first.iter().flat_map(|p| p.chunks(layout.block())))
                    {
                        let mut block = vec![0x55; block_bytes];
                        layout.unpack(packed, i, &mut block);
                        assert!(block == *row, "{} row {i}", layout.tensor_type.name());
                    }
                }
            }
        }
    }
}
