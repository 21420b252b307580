//! Packing: the base of a group, its tiles and its exceptions. All of it is written for one lane and compiled for vectors.

#![allow(clippy::needless_range_loop)] // the index is that of a lane, in several arrays at once

use parking_lot::Mutex;

use super::super::features::Isa;
use super::super::floats::Float;
use super::super::pack::ROWS;
use super::*;
use crate::error::{Error, Result};
use crate::load::TensorData;

/// Bytes that are looked at at the beginning, in the middle and at the end of a tensor before it is packed like this.
const SAMPLE: usize = 4096;
/// Exponents that a base leaves out below it.
const EXPONENTS: u16 = 16;
/// The greatest base: with all its exponents it stays below infinity.
const GREATEST_BASE: u16 = (255 - EXPONENTS) << 7;

/// How many weights of a matrix may be exceptions.
pub fn most_exceptions(rows: usize, columns: usize) -> usize {
    (rows * columns).div_ceil(RARE)
}

/// Whether the weights look as if they were of bf16: to be asked before they are packed like this, which sees all of them.
pub fn packable(float: Float, data: &TensorData) -> Result<bool> {
    if float == Float::Bf16 {
        return Ok(true);
    }
    let mut bytes = vec![0; SAMPLE.min(data.len())];
    let last = data.len() - bytes.len();
    let (mut wide, mut all) = (0, 0);
    for from in [0, last / 2, last] {
        data.read(from / 2 * 2, &mut bytes)?;
        wide += bytes.as_chunks::<2>().0.iter().filter(|bits| to_bf16(float, u16::from_le_bytes(**bits)).1).count();
        all += bytes.len() / 2;
    }
    Ok(wide * RARE <= all * 8)
}

/// The number as a bf16 without its sign, and whether bits of it were lost by that (or it is not finite).
#[inline(always)]
fn to_bf16(float: Float, bits: u16) -> (u16, bool) {
    let size = bits & 0x7fff;
    match float {
        Float::F16 => {
            // Below its normal range a half is a multiple of 2⁻²⁴.
            let small = (f32::from(size) * (1.0 / 16_777_216.0)).to_bits();
            let normal = (size >> 3) + ((127 - 15) << 7);
            let (bf16, lost) = if size < 0x0400 { ((small >> 16) as u16, small as u16) } else { (normal, size & 7) };
            (bf16, (lost != 0) | (size >= 0x7c00))
        }
        _ => (size, size >= 0x7f80),
    }
}

/// The number's own bits of 2 to the power of a bf16 of mantissa 0, or of the next greater power that it has.
fn from_power(float: Float, power: u16) -> u16 {
    match float {
        Float::F16 => half::f16::from_f32(half::bf16::from_bits(power).to_f32()).to_bits(),
        _ => power,
    }
}

/// Bits of the numbers of a group of rows without their signs, whose order is the numbers'.
#[inline(always)]
fn sizes(rows: &[u8]) -> impl Iterator<Item = u16> + '_ {
    rows.as_chunks::<2>().0.iter().map(|bits| u16::from_le_bytes(*bits) & 0x7fff)
}

/// How many numbers lie below `least`, zeros aside.
#[inline(always)]
fn below(rows: &[u8], least: u16) -> u32 {
    let least = least.saturating_sub(1);
    let count = |rows: &[u8]| sizes(rows).fold(0u16, |n, size| n + u16::from(size.wrapping_sub(1) < least));
    rows.chunks(1 << 14).map(|rows| u32::from(count(rows))).sum()
}

/// The base that leaves out fewest numbers: that under the greatest number, or a lower one where a few great numbers have
/// many small ones below them.
#[inline(always)]
fn base_of(float: Float, rows: &[u8]) -> u16 {
    let greatest = to_bf16(float, sizes(rows).fold(0, u16::max)).0 >> 7;
    let mut base = greatest.saturating_sub(EXPONENTS - 1).min(GREATEST_BASE >> 7);
    let mut least = below(rows, from_power(float, base << 7));
    while least > 0 && base > 0 {
        let (lower, too_great) = (base - 1, from_power(float, (base - 1 + EXPONENTS) << 7));
        let above = (rows.len() / 2) as u32 - sizes(rows).fold(0, |n, size| n + u32::from(size < too_great));
        let left_out = below(rows, from_power(float, lower << 7)) + above;
        if left_out >= least {
            break;
        }
        (base, least) = (lower, left_out);
    }
    base << 7
}

/// The numbers of a pair of columns as they are packed, and whether all have room.
#[inline(always)]
fn numbers(float: Float, base: u16, pair: &[u16; PAIR]) -> ([u16; PAIR], bool) {
    let (mut packed, mut bad) = ([0; PAIR], 0u16);
    for i in 0..PAIR {
        let (bf16, lost) = to_bf16(float, pair[i]);
        let above = bf16.wrapping_sub(base);
        let above = if bf16 == 0 { 0 } else { above };
        let fits = !lost & (above <= MAGNITUDE) & ((above != 0) | (bf16 == 0));
        packed[i] = if fits { pair[i] & 0x8000 | above } else { 0 };
        bad |= u16::from(!fits);
    }
    (packed, bad == 0)
}

/// Packs the numbers of a tile.
#[inline(always)]
fn put(pairs: &[[u16; PAIR]; PAIRS], out: &mut [u8]) {
    let (lows, highs) = out.split_at_mut(HIGHS);
    for (pairs, out) in pairs.as_chunks::<2>().0.iter().zip(lows.as_chunks_mut::<64>().0) {
        for i in 0..PAIR {
            let both = pairs[0][i] & 0xff | pairs[1][i] << 8;
            [out[2 * i], out[2 * i + 1]] = both.to_le_bytes();
        }
    }
    for (row, out) in highs.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        let mut word = 0;
        for (i, pair) in pairs.iter().enumerate() {
            let high = u32::from(pair[2 * row]) | u32::from(pair[2 * row + 1]) << 16;
            word |= (high & HIGH).rotate_right(4 * i as u32);
        }
        *out = word.to_le_bytes();
    }
}

/// Packs up to 16 rows of numbers.
#[inline(always)]
fn group(float: Float, rows: &[u8], columns: usize, out: &mut [u8]) -> (u16, Vec<Exception>) {
    let base = base_of(float, rows);
    let mut exceptions = Vec::new();
    let mut pairs = [[0; PAIR]; PAIRS];
    for (i, out) in out.chunks_exact_mut(TILE).enumerate() {
        let first = i * TILE_COLUMNS;
        if columns - first < TILE_COLUMNS {
            pairs = [[0; PAIR]; PAIRS];
        }
        for (r, row) in rows.chunks_exact(2 * columns).enumerate() {
            let row = row[2 * first..].as_chunks::<2>().0;
            match row.first_chunk::<TILE_COLUMNS>() {
                Some(row) => {
                    for column in 0..TILE_COLUMNS {
                        pairs[column / 2][2 * r + column % 2] = u16::from_le_bytes(row[column]);
                    }
                }
                None => {
                    for (column, bits) in row.iter().enumerate() {
                        pairs[column / 2][2 * r + column % 2] = u16::from_le_bytes(*bits);
                    }
                }
            }
        }
        let (mut packed, mut all) = ([[0; PAIR]; PAIRS], true);
        for pair in 0..PAIRS {
            let fit;
            (packed[pair], fit) = numbers(float, base, &pairs[pair]);
            all &= fit;
        }
        put(&packed, out);
        if !all {
            except(float, base, &pairs, first, &mut exceptions);
        }
    }
    (base, exceptions)
}

/// Notes the exceptions of a tile.
#[cold]
fn except(float: Float, base: u16, pairs: &[[u16; PAIR]; PAIRS], first: usize, exceptions: &mut Vec<Exception>) {
    for place in 0..TILE_COLUMNS * ROWS {
        let (column, row) = (place / ROWS, place % ROWS);
        let bits = pairs[column / 2][2 * row + column % 2];
        if !numbers(float, base, &[bits; PAIR]).1 {
            let value = match float {
                Float::F16 => half::f16::from_bits(bits).to_f32(),
                _ => half::bf16::from_bits(bits).to_f32(),
            };
            exceptions.push(Exception { place: (first * ROWS + place) as u32, value });
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn group_avx512(float: Float, rows: &[u8], columns: usize, out: &mut [u8]) -> (u16, Vec<Exception>) {
    match float {
        Float::F16 => group(Float::F16, rows, columns, out),
        _ => group(Float::Bf16, rows, columns, out),
    }
}

#[target_feature(enable = "avx2")]
fn group_avx2(float: Float, rows: &[u8], columns: usize, out: &mut [u8]) -> (u16, Vec<Exception>) {
    match float {
        Float::F16 => group(Float::F16, rows, columns, out),
        _ => group(Float::Bf16, rows, columns, out),
    }
}

/// What the groups of a matrix have besides their tiles, as they are packed.
pub struct Found {
    most: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    groups: Vec<(usize, u16, Vec<Exception>)>,
    count: usize,
}

impl Found {
    /// Of a matrix of that many weights.
    pub fn new(rows: usize, columns: usize) -> Found {
        Found { most: most_exceptions(rows, columns), inner: Mutex::default() }
    }

    /// Bytes behind the groups of a matrix.
    pub fn tail_bytes(rows: usize, columns: usize) -> usize {
        rows.div_ceil(ROWS) * Head::BYTES + most_exceptions(rows, columns) * Exception::BYTES
    }

    /// Packs up to 16 rows, group `number` of the matrix; an error if there are too many exceptions by now.
    pub fn pack(
        &self,
        isa: Isa,
        float: Float,
        number: usize,
        rows: &[u8],
        columns: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let (base, exceptions) = match isa {
            // SAFETY: the instruction set was detected.
            Isa::Avx512Vnni | Isa::Amx => unsafe { group_avx512(float, rows, columns, out) },
            // SAFETY: as above.
            Isa::Avx2 => unsafe { group_avx2(float, rows, columns, out) },
            Isa::Scalar => group(float, rows, columns, out),
        };
        let mut inner = self.inner.lock();
        inner.count += exceptions.len();
        inner.groups.push((number, base, exceptions));
        match self.too_many(&inner) {
            true => Err(Error::Internal("weights with too many exceptions".into())),
            false => Ok(()),
        }
    }

    fn too_many(&self, inner: &Inner) -> bool {
        inner.count > self.most
    }

    /// Whether the matrix cannot be packed like this.
    pub fn unfit(&self) -> bool {
        self.too_many(&self.inner.lock())
    }

    /// Writes it all where [`Bf12::new`] looks for it.
    pub fn write(&self, tail: &mut [u8]) {
        let mut inner = self.inner.lock();
        inner.groups.sort_unstable_by_key(|(number, ..)| *number);
        let (heads, exceptions) = tail.split_at_mut(inner.groups.len() * Head::BYTES);
        let mut places = exceptions.as_chunks_mut::<{ Exception::BYTES }>().0.iter_mut();
        let mut end = 0;
        for (head, (_, base, exceptions)) in heads.as_chunks_mut::<{ Head::BYTES }>().0.iter_mut().zip(&inner.groups) {
            end += exceptions.len() as u32;
            *head = Head { base: *base, end }.to_bytes();
            places.by_ref().zip(exceptions).for_each(|(place, exception)| *place = exception.to_bytes());
        }
    }
}
