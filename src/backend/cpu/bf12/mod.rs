//! Weights in bf16, 12 bits each: what most published models hold, whether their files say BF16 or F16.
//!
//! Of a bf16's 8 bits of exponent the weights of a few rows use four: they lie within 16 powers of two of the greatest. A
//! group of 16 rows has the least of these powers as its *base*; a weight is its sign, its exponent above the base and the 7
//! bits of its mantissa. A number without exponent and mantissa is zero, of either sign. What does not fit (too small, too
//! great, more bits of mantissa, the power of two that the base itself is) is an [`Exception`]: zero in its place, and
//! its value beside. Nothing is rounded. A tensor with more exceptions than one in [`RARE`] stays as it is.
//!
//! A *tile* is 16 rows × 8 columns. With `[row][2]` for a pair of columns, in 16 bits a lane:
//!
//! | bytes | |
//! |---|---|
//! | 0..64 | the numbers' low 8 bits (an exponent's last bit and the mantissa) of pair 0, those of pair 1 above them |
//! | 64..128 | the same of pairs 2 and 3 |
//! | 128..192 | the other four: 32 bits for a row. Turned left by `4 · pair` and masked with [`HIGH`], they are in their places: sign, three bits of exponent |
//!
//! so that a pair is a vector of bf16 after a turn, two masks, an addition of the base and a test for zero.
//!
//! Behind the groups lie a [`Head`] for each and room for all exceptions that a tensor may have.

mod encode;
pub(super) mod kernels;

use super::memory::SharedBytes;
use super::pack::ROWS;

pub(super) use encode::{Found, packable};

/// Columns of a tile.
pub(super) const TILE_COLUMNS: usize = 8;
/// Pairs of columns of a tile.
const PAIRS: usize = TILE_COLUMNS / 2;
/// Numbers of a pair of columns.
const PAIR: usize = 2 * ROWS;
/// Bytes of a tile.
pub(super) const TILE: usize = TILE_COLUMNS * ROWS * 12 / 8;
/// Where a tile's high bits begin.
const HIGHS: usize = 2 * 64;
/// The bits of a row's two numbers that the tile keeps apart: sign, and three of the exponent's.
const HIGH: u32 = 0x8700_8700;
/// Bits below the sign: four of exponent, seven of mantissa.
const MAGNITUDE: u16 = 0x07ff;
/// A tensor with more than one exception in this many weights is not packed like this: they would cost what is won.
const RARE: usize = 2048;

/// How many heads and exceptions further on than they are used they are fetched: meanwhile the weights of so many groups come
/// from memory, and between two tokens no cache keeps them.
const AHEAD: usize = 16;

/// Asks for element `i`, if there is one.
fn prefetch<T>(all: &[T], i: usize) {
    let element = all.as_ptr().wrapping_add(i);
    // SAFETY: a prefetch may name any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(element.cast())
    };
}

/// Bytes of a packed group of rows of `columns`.
pub(super) fn group_bytes(columns: usize) -> usize {
    columns.div_ceil(TILE_COLUMNS) * TILE
}

/// What a group has besides its tiles.
#[derive(Clone, Copy)]
struct Head {
    /// The number that all its exponents are counted from, where a bf16 has it: its bits with a mantissa of 0.
    base: u16,
    /// Where its exceptions end; they begin where those of the group before end.
    end: u32,
}

impl Head {
    const BYTES: usize = 8;

    fn from_bytes(bytes: &[u8; Head::BYTES]) -> Head {
        let [e0, e1, e2, e3, b0, b1, ..] = *bytes;
        Head { base: u16::from_le_bytes([b0, b1]), end: u32::from_le_bytes([e0, e1, e2, e3]) }
    }

    fn to_bytes(self) -> [u8; Head::BYTES] {
        let ([e0, e1, e2, e3], [b0, b1]) = (self.end.to_le_bytes(), self.base.to_le_bytes());
        [e0, e1, e2, e3, b0, b1, 0, 0]
    }
}

/// A weight that its place has no room for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Exception {
    /// Column times 16, plus the row of the group.
    place: u32,
    /// The weight.
    value: f32,
}

impl Exception {
    const BYTES: usize = 8;

    fn column(&self) -> usize {
        self.place as usize / ROWS
    }

    fn row(&self) -> usize {
        self.place as usize % ROWS
    }

    fn from_bytes(bytes: &[u8; Exception::BYTES]) -> Exception {
        let [p0, p1, p2, p3, v0, v1, v2, v3] = *bytes;
        Exception { place: u32::from_le_bytes([p0, p1, p2, p3]), value: f32::from_le_bytes([v0, v1, v2, v3]) }
    }

    fn to_bytes(self) -> [u8; Exception::BYTES] {
        let ([p0, p1, p2, p3], [v0, v1, v2, v3]) = (self.place.to_le_bytes(), self.value.to_le_bytes());
        [p0, p1, p2, p3, v0, v1, v2, v3]
    }
}

/// A packed matrix.
pub(super) struct Bf12 {
    bytes: SharedBytes,
    columns: usize,
    heads: Vec<Head>,
    /// Those of all groups, by group and place.
    exceptions: Vec<Exception>,
}

/// A group of 16 rows.
#[derive(Clone, Copy)]
pub(super) struct Group<'a> {
    tiles: &'a [u8],
    columns: usize,
    base: u16,
    exceptions: &'a [Exception],
}

impl Bf12 {
    /// The matrix that `bytes` are, of which [`Found`] made the end.
    pub fn new(bytes: SharedBytes, rows: usize, columns: usize) -> Bf12 {
        let groups = rows.div_ceil(ROWS);
        let tail = bytes.as_slice().get(groups * group_bytes(columns)..).unwrap_or_default();
        let (heads, exceptions) = tail.split_at_checked(groups * Head::BYTES).unwrap_or_default();
        let heads: Vec<Head> = heads.as_chunks().0.iter().map(Head::from_bytes).collect();
        let count = heads.last().map_or(0, |head| head.end as usize);
        let exceptions = exceptions.as_chunks().0.iter().take(count).map(Exception::from_bytes).collect();
        Bf12 { bytes, columns, heads, exceptions }
    }

    /// Bytes that a multiplication reads.
    pub fn bytes(&self) -> usize {
        self.heads.len() * group_bytes(self.columns) + self.exceptions.len() * Exception::BYTES
    }

    /// Group `group`.
    pub fn group(&self, group: usize) -> Group<'_> {
        let size = group_bytes(self.columns);
        let first = group.checked_sub(1).map_or(0, |before| self.heads[before].end as usize);
        let Head { base, end } = self.heads[group];
        prefetch(&self.heads, group + AHEAD);
        prefetch(&self.exceptions, end as usize + AHEAD);
        Group {
            tiles: &self.bytes.as_slice()[group * size..(group + 1) * size],
            columns: self.columns,
            base,
            // (A file of packed weights may say anything.)
            exceptions: self.exceptions.get(first..end as usize).unwrap_or_default(),
        }
    }
}

impl<'a> Group<'a> {
    /// Its tiles: those of the next one follow them.
    pub fn bytes(&self) -> &'a [u8] {
        self.tiles
    }

    /// Row `row`, decoded to as many columns as `out` has.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        for (tile, out) in self.tiles.chunks_exact(TILE).zip(out.chunks_mut(TILE_COLUMNS)) {
            let high = tile[HIGHS..].as_chunks().0[row];
            for (column, out) in out.iter_mut().enumerate() {
                let (pair, lane) = (column / 2, 2 * row + column % 2);
                let low = u16::from(tile[64 * (pair / 2) + 2 * lane + pair % 2]);
                let high = (u32::from_le_bytes(high).rotate_left(4 * pair as u32) & HIGH) >> (16 * (column % 2));
                *out = half::bf16::from_bits(self.bits(high as u16 | low)).to_f32();
            }
        }
        for exception in self.exceptions.iter().filter(|exception| exception.row() == row) {
            if let Some(out) = out.get_mut(exception.column()) {
                *out = exception.value;
            }
        }
    }

    /// The bf16 that a number stands for.
    fn bits(&self, number: u16) -> u16 {
        if number & MAGNITUDE == 0 { number } else { number.wrapping_add(self.base) }
    }

    /// Adds what the exceptions' zeros left out to the products of `out.len() / 16` rows of activations: `x` is
    /// `[rows][columns]`, `out` `[rows][16]`.
    #[inline]
    pub fn add_exceptions(&self, x: &[f32], out: &mut [f32]) {
        for exception in self.exceptions {
            let x = x.iter().skip(exception.column()).step_by(self.columns);
            let out = out.iter_mut().skip(exception.row()).step_by(ROWS);
            out.zip(x).for_each(|(out, x)| *out += exception.value * x);
        }
    }
}

#[cfg(test)]
mod tests;
