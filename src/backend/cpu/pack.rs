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
    /// Puts a row's numbers into the planes of all tiles of its block.
    read: fn(block: &[u8], row: usize, packed: &mut Super),
    /// Writes four numbers, a byte each, as word `i` of a block.
    write: fn(block: &mut [u8], i: usize, numbers: u32),
    /// Copies a row's scales from its block.
    read_scales: fn(block: &[u8], row: usize, packed: &mut Super),
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

/// The packed form of a block in 16 rows.
pub(super) struct Super<'a> {
    bytes: &'a mut [u8],
    head: usize,
    tile: usize,
    scales: usize,
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

    /// Packs one block of each of up to 16 rows; the rest of the rows is zero.
    pub fn pack<'a>(&self, blocks: impl ExactSizeIterator<Item = &'a [u8]>, packed: &mut [u8]) {
        if blocks.len() < ROWS {
            packed.fill(0);
        }
        let mut packed = Super { bytes: packed, head: self.head, tile: self.tile(), scales: self.scales };
        for (row, block) in blocks.take(ROWS).enumerate() {
            (self.read_scales)(block, row, &mut packed);
            (self.read)(block, row, &mut packed);
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

/// Writes the numbers of a row, `BITS` wide, into the planes of `TILES` tiles. Compiled for each format, so that the words
/// of a tile are the elements of a vector: loading a model is as quick as this is.
#[inline(always)]
fn put<const BITS: u32, const TILES: usize>(row: usize, packed: &mut Super, numbers: impl Fn(usize) -> Words) {
    for tile in 0..TILES {
        let planes = &mut packed.bytes[packed.head + tile * packed.tile + packed.scales..];
        let planes = &mut planes[..planes_bytes(BITS)];
        let mut set =
            |plane: usize, word: u32| planes[64 * plane + 4 * row..][..4].copy_from_slice(&word.to_le_bytes());
        let n = numbers(tile);
        // Two bits each of four words.
        let pairs = |n: &[u32], from: u32| (0..4).fold(0, |word, i| word | (n[i] >> from & 0x0303_0303) << (2 * i));
        // A bit each of eight words.
        let bits = |from: u32| (0..8).fold(0, |word, i| word | (n[i] >> from & 0x0101_0101) << i);
        match BITS {
            2 | 3 => (0..2).for_each(|half| set(half, pairs(&n[4 * half..], 0))),
            4..=6 => (0..4).for_each(|i| set(i, n[i] & 0x0f0f_0f0f | (n[i + 4] & 0x0f0f_0f0f) << 4)),
            _ => (0..8).for_each(|i| set(i, n[i])),
        }
        match BITS {
            3 => set(2, bits(2)),
            5 => set(4, bits(4)),
            6 => (0..2).for_each(|half| set(4 + half, pairs(&n[4 * half..], 4))),
            _ => {}
        }
    }
}

/// The inverse of [`put`].
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

/// The fifth bits of numbers: the 32 bits at `at`, in order.
#[inline(always)]
fn fifth_bits(block: &[u8], at: usize) -> Words {
    let bits = u32_at(block, at);
    std::array::from_fn(|i| ((bits >> (4 * i) & 15).wrapping_mul(0x0020_4081) & 0x0101_0101) << 4)
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
    ($type:ident, $bits:literal, $halfs:literal, $read:expr, $write:expr) => {
        Layout {
            tensor_type: TensorType::$type,
            tiles: 1,
            bits: $bits,
            head: 0,
            scales: 32 * $halfs,
            read: |block, row, packed| put::<$bits, 1>(row, packed, |_| $read(block)),
            write: $write,
            read_scales: read_halfs::<$halfs>,
            write_scales: write_halfs::<$halfs>,
        }
    };
}

static LAYOUTS: &[Layout] = &[
    simple!(Q4_0, 4, 1, |b| halves(b, 2), |b, i, n| set_halves(b, 2, i, n)),
    simple!(Q4_1, 4, 2, |b| halves(b, 4), |b, i, n| set_halves(b, 4, i, n)),
    simple!(Q5_0, 5, 1, |b| join(halves(b, 6), fifth_bits(b, 2)), |b, i, n| {
        set_halves(b, 6, i, n);
        set_fifth_bits(b, 2, i, n);
    }),
    simple!(Q5_1, 5, 2, |b| join(halves(b, 8), fifth_bits(b, 4)), |b, i, n| {
        set_halves(b, 8, i, n);
        set_fifth_bits(b, 4, i, n);
    }),
    simple!(Q8_0, 8, 1, |b| words(b, 2), |b, i, n| or_word(b, 2 + 4 * i, n)),
    simple!(IQ4_NL, 4, 1, |b| halves(b, 2), |b, i, n| set_halves(b, 2, i, n)),
    Layout {
        tensor_type: TensorType::MXFP4,
        tiles: 1,
        bits: 4,
        head: 0,
        scales: 16,
        read: |b, row, packed| put::<4, 1>(row, packed, |_| halves(b, 1)),
        write: |b, i, n| set_halves(b, 1, i, n),
        read_scales: |b, row, packed| packed.tiles(row, [[b[0]]]),
        write_scales: |b, row, packed| b[0] = packed.bytes[row],
    },
    Layout {
        tensor_type: TensorType::Q2_K,
        tiles: 8,
        bits: 2,
        head: 64,
        scales: 32,
        read: |b, row, packed| put::<2, 8>(row, packed, |t| k_pairs(b, 16, t, 0)),
        write: |b, i, n| set_k_pairs(b, 16, i, n),
        read_scales: |b, row, packed| read_16::<2>(b, row, packed, 0, 80),
        write_scales: |b, row, packed| write_16::<2>(b, row, packed, 0, 80),
    },
    Layout {
        tensor_type: TensorType::Q3_K,
        tiles: 8,
        bits: 3,
        head: 32,
        scales: 32,
        read: |b, row, packed| put::<3, 8>(row, packed, |t| join(k_pairs(b, 32, t, 0), k_bit(b, 0, t, 2))),
        write: |b, i, n| {
            set_k_pairs(b, 32, i, n);
            set_k_bit(b, 0, i, n >> 2);
        },
        read_scales: read_q3_k,
        write_scales: write_q3_k,
    },
    Layout {
        tensor_type: TensorType::Q4_K,
        tiles: 8,
        bits: 4,
        head: 64,
        scales: 32,
        read: |b, row, packed| put::<4, 8>(row, packed, |t| k_halves(b, 16, t)),
        write: |b, i, n| set_k_halves(b, 16, i, n),
        read_scales: read_k4,
        write_scales: write_k4,
    },
    Layout {
        tensor_type: TensorType::Q5_K,
        tiles: 8,
        bits: 5,
        head: 64,
        scales: 32,
        read: |b, row, packed| put::<5, 8>(row, packed, |t| join(k_halves(b, 48, t), k_bit(b, 16, t, 4))),
        write: |b, i, n| {
            set_k_halves(b, 48, i, n);
            set_k_bit(b, 16, i, n >> 4);
        },
        read_scales: read_k4,
        write_scales: write_k4,
    },
    Layout {
        tensor_type: TensorType::Q6_K,
        tiles: 8,
        bits: 6,
        head: 32,
        scales: 32,
        read: |b, row, packed| put::<6, 8>(row, packed, |t| join(q6_k_halves(b, t), k_pairs(b, 128, t, 4))),
        write: |b, i, n| {
            let (at, shift) = q6_k_low(i);
            or_word(b, at, (n & 0x0f0f_0f0f) << shift);
            set_k_pairs(b, 128, i, n >> 4);
        },
        read_scales: |b, row, packed| read_16::<1>(b, row, packed, 192, 208),
        write_scales: |b, row, packed| write_16::<1>(b, row, packed, 192, 208),
    },
    Layout {
        tensor_type: TensorType::IQ4_XS,
        tiles: 8,
        bits: 4,
        head: 32,
        scales: 16,
        read: |b, row, packed| put::<4, 8>(row, packed, |t| halves(b, 8 + 16 * t)),
        write: |b, i, n| set_halves(b, 8 + 16 * (i / 8), i % 8, n),
        read_scales: read_iq4_xs,
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
            layout.pack(rows.iter().map(Vec::as_slice), &mut all[from..]);
        }
        assert_eq!(crate::xxh64::xxh64(&all, 0), 0xb7c9_2f77_dcb9_9748);
    }

    #[test]
    fn packing_is_lossless() {
        let mut state = 7u32;
        for layout in LAYOUTS {
            let block_bytes = layout.tensor_type.format().block_bytes;
            assert_eq!(layout.tiles * COLUMNS, layout.tensor_type.format().block_elements);
            let rows: Vec<Vec<u8>> = (0..ROWS)
                .map(|_| {
                    let mut byte = || {
                        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        (state >> 24) as u8
                    };
                    (0..block_bytes).map(|_| byte()).collect()
                })
                .collect();
            for n in [1, 5, 16] {
                let mut packed = vec![0xaa; layout.block()];
                layout.pack(rows[..n].iter().map(Vec::as_slice), &mut packed);
                for (i, row) in rows[..n].iter().enumerate() {
                    let mut block = vec![0x55; block_bytes];
                    layout.unpack(&packed, i, &mut block);
                    assert!(block == *row, "{} row {i}", layout.tensor_type.name());
                }
            }
        }
    }
}
