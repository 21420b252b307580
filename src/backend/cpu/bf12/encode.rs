//! Packing: the base of a group, its tiles and its exceptions. All of it is written for one lane and compiled for vectors.

#![allow(clippy::needless_range_loop)] // the index is that of a lane, in several arrays at once

use std::arch::x86_64::*;

use parking_lot::Mutex;

use super::super::features::Isa;
use super::super::floats::Float;
use super::super::pack::ROWS;
use super::super::simd::transpose;
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
            let normal = normal_to_bf16(size);
            if size < 0x0400 { ((small >> 16) as u16, small as u16 != 0) } else { normal }
        }
        _ => (size, size >= 0x7f80),
    }
}

/// [`to_bf16`] of a half that is no subnormal number.
#[inline(always)]
fn normal_to_bf16(size: u16) -> (u16, bool) {
    ((size >> 3) + ((127 - 15) << 7), (size & 7 != 0) | (size >= 0x7c00))
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

/// The numbers of a pair of columns as they are packed, and whether all have room. `NORMAL` says that they are normal halves, or
/// zeros.
#[inline(always)]
fn numbers<const NORMAL: bool>(float: Float, base: u16, pair: &[u16; PAIR]) -> ([u16; PAIR], bool) {
    let (mut packed, mut bad) = ([0; PAIR], 0u16);
    for i in 0..PAIR {
        let (bf16, lost) = match NORMAL {
            // (Zeros come out as the least normal number, and are asked for below.)
            true => normal_to_bf16(pair[i] & 0x7fff),
            false => to_bf16(float, pair[i]),
        };
        let zero = pair[i] & 0x7fff == 0;
        let above = if zero { 0 } else { bf16.wrapping_sub(base) };
        let fits = zero | (!lost & (above <= MAGNITUDE) & (above != 0));
        packed[i] = if fits { pair[i] & 0x8000 | above } else { 0 };
        bad |= u16::from(!fits);
    }
    (packed, bad == 0)
}

/// The numbers of a tile as they are packed, and whether all have room.
#[inline(always)]
fn numbers_of_tile(float: Float, base: u16, pairs: &[[u16; PAIR]; PAIRS]) -> ([[u16; PAIR]; PAIRS], bool) {
    let (mut packed, mut all) = ([[0; PAIR]; PAIRS], true);
    // Few tiles have subnormal halves, which take the most of the time.
    let subnormal = |n: u16, bits: &u16| n | u16::from((bits & 0x7fff).wrapping_sub(1) < 0x03ff);
    let normal = float == Float::F16 && pairs.as_flattened().iter().fold(0, subnormal) == 0;
    for pair in 0..PAIRS {
        let fit;
        (packed[pair], fit) = match normal {
            true => numbers::<true>(float, base, &pairs[pair]),
            false => numbers::<false>(float, base, &pairs[pair]),
        };
        all &= fit;
    }
    (packed, all)
}

/// Packs the numbers of a tile.
#[inline(always)]
fn put(pairs: &[[u16; PAIR]; PAIRS], out: &mut [u8; TILE]) {
    let (lows, highs) = out.split_at_mut(HIGHS);
    for (pairs, out) in pairs.as_chunks::<2>().0.iter().zip(lows.as_chunks_mut::<64>().0) {
        let mut both = [0u16; PAIR];
        for i in 0..PAIR {
            both[i] = (pairs[0][i] & 0xff | pairs[1][i] << 8).to_le();
        }
        *out = bytemuck::cast(both);
    }
    let mut words = [0u32; ROWS];
    for (i, pair) in pairs.iter().enumerate() {
        let rows: [u32; ROWS] = bytemuck::cast(*pair);
        for row in 0..ROWS {
            words[row] |= (rows[row] & HIGH).rotate_right(4 * i as u32);
        }
    }
    highs.copy_from_slice(bytemuck::bytes_of(&words.map(u32::to_le)));
}

/// Tiles whose numbers are brought together before they are packed: a vector is not read right after its lanes were written.
const TILES: usize = 8;

/// Bytes of a row that they are.
const GATHERED: usize = TILES * TILE_COLUMNS * 2;

/// As many pairs of columns of 16 rows.
type Gathered = [[u32; ROWS]; TILES * PAIRS];

/// The pairs of columns from byte `from` of the rows, `row_bytes` long each. (In a function of its own, without vectors: where
/// the compiler has instructions that scatter, it scatters, which takes twice as long.)
#[inline(never)]
fn gather(rows: &[u8], row_bytes: usize, from: usize, words: &mut Gathered) {
    if row_bytes - from < GATHERED {
        *words = [[0; ROWS]; TILES * PAIRS];
    }
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (pairs, last) = row[from..row_bytes.min(from + GATHERED)].as_chunks::<4>();
        let mut places = words.iter_mut();
        places.by_ref().zip(pairs).for_each(|(place, pair)| place[r] = u32::from_le_bytes(*pair));
        // The last of an odd number of columns has a zero beside it.
        places.zip(last.as_chunks::<2>().0).for_each(|(place, last)| place[r] = u16::from_le_bytes(*last).into());
    }
}

/// Packs up to 16 rows of numbers.
#[inline(always)]
fn group(
    float: Float,
    rows: &[u8],
    columns: usize,
    out: &mut [u8],
    whole: impl Fn(&[u8], usize, usize, &mut Gathered),
) -> (u16, Vec<Exception>) {
    let base = base_of(float, rows);
    let mut exceptions = Vec::new();
    let mut words = [[0u32; ROWS]; TILES * PAIRS];
    for (from, out) in (0..2 * columns).step_by(GATHERED).zip(out.chunks_mut(TILES * TILE)) {
        match rows.len() == ROWS * 2 * columns && from + GATHERED <= 2 * columns {
            true => whole(rows, 2 * columns, from, &mut words),
            false => gather(rows, 2 * columns, from, &mut words),
        }
        for (i, (out, words)) in out.as_chunks_mut::<TILE>().0.iter_mut().zip(words.as_chunks::<PAIRS>().0).enumerate()
        {
            let pairs: [[u16; PAIR]; PAIRS] = words.map(bytemuck::cast);
            let (packed, all) = numbers_of_tile(float, base, &pairs);
            put(&packed, out);
            if !all {
                except(float, base, &pairs, from / 2 + i * TILE_COLUMNS, &mut exceptions);
            }
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
        if !numbers::<false>(float, base, &[bits; PAIR]).1 {
            let value = match float {
                Float::F16 => half::f16::from_bits(bits).to_f32(),
                _ => half::bf16::from_bits(bits).to_f32(),
            };
            exceptions.push(Exception { place: (first * ROWS + place) as u32, value });
        }
    }
}

/// [`gather`] where all pairs are there, of 16 rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn transposed(rows: &[u8], row_bytes: usize, from: usize, words: &mut Gathered) {
    assert!(rows.len() == ROWS * row_bytes && from + GATHERED <= row_bytes);
    for (i, words) in words.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        // SAFETY: 64 bytes of each row are read, and as many written for each pair.
        unsafe {
            let mut columns = [_mm512_setzero_si512(); ROWS];
            for r in 0..ROWS {
                columns[r] = _mm512_loadu_si512(rows.as_ptr().add(r * row_bytes + from + 64 * i).cast());
            }
            columns = transpose(columns);
            for c in 0..ROWS {
                _mm512_storeu_si512(words[c].as_mut_ptr().cast(), columns[c]);
            }
        }
    }
}

/// [`transposed`] as [`group`] wants it.
fn gather_avx512(rows: &[u8], row_bytes: usize, from: usize, words: &mut Gathered) {
    // SAFETY: only `group_avx512` comes here.
    unsafe { transposed(rows, row_bytes, from, words) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
fn group_avx512(float: Float, rows: &[u8], columns: usize, out: &mut [u8]) -> (u16, Vec<Exception>) {
    match float {
        Float::F16 => group(Float::F16, rows, columns, out, gather_avx512),
        _ => group(Float::Bf16, rows, columns, out, gather_avx512),
    }
}

#[target_feature(enable = "avx2")]
fn group_avx2(float: Float, rows: &[u8], columns: usize, out: &mut [u8]) -> (u16, Vec<Exception>) {
    match float {
        Float::F16 => group(Float::F16, rows, columns, out, gather),
        _ => group(Float::Bf16, rows, columns, out, gather),
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
            Isa::Avx2 | Isa::AvxVnni => unsafe { group_avx2(float, rows, columns, out) },
            Isa::Scalar => group(float, rows, columns, out, gather),
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
