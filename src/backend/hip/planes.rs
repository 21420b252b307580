//! How weights lie on the device: numbers, their upper bits and their scales in *planes* of their own, so that 32 lanes
//! which read neighbouring units of 32 numbers read 512 consecutive, aligned bytes.
//!
//! `kernels/formats.h` says what each plane holds, and reads it. Packing is lossless and, but for the alignment of the planes,
//! neutral in bytes: [`Planes::unpack_rows`] gives back the rows of the file.

use std::mem::take;

use parking_lot::Mutex;

use crate::backend::cpu::pool::Pool;
use crate::quant::TensorType;
use crate::quant::blocks::{e8m0_half, group_scales_mins};

/// Planes begin at multiples of this many bytes of their allocation.
const ALIGNMENT: usize = 256;
/// Rows of one task take this many bytes at least.
const TASK_BYTES: usize = 256 << 10;

/// Planes of a matrix at most.
pub const MAX_PLANES: usize = 4;

/// The planes of a matrix in one allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planes {
    /// The type that the file has.
    pub tensor_type: TensorType,
    /// Where each plane begins.
    pub offsets: Vec<usize>,
    /// Bytes of a row in each plane.
    pub row_bytes: Vec<usize>,
    /// Bytes of the allocation.
    pub bytes: usize,
    /// Bytes of a row of the file.
    file_row: usize,
}

impl Planes {
    /// The planes of `rows` rows of `columns` numbers; `None` if the type has no kernels, if rows are no whole number of
    /// blocks, or on overflow.
    pub fn of(tensor_type: TensorType, rows: usize, columns: usize) -> Option<Planes> {
        let layout = layout(tensor_type)?;
        let file_row = tensor_type.row_bytes(columns)?;
        file_row.checked_mul(rows)?;
        let blocks = columns / tensor_type.format().block_elements;
        let (mut offsets, mut row_bytes, mut bytes) = (Vec::new(), Vec::new(), 0usize);
        for part in layout.parts.into_iter().filter(|&part| part > 0) {
            offsets.push(bytes);
            row_bytes.push(blocks * part);
            bytes = bytes.checked_add((blocks * part).checked_mul(rows)?)?.checked_next_multiple_of(ALIGNMENT)?;
        }
        Some(Planes { tensor_type, offsets, row_bytes, bytes, file_row })
    }

    /// Writes `n` consecutive rows of the file to their pieces of the planes, each `n` times its `row_bytes`.
    ///
    /// # Panics
    /// If a length is another.
    pub fn pack_rows(&self, file: &[u8], n: usize, planes: &mut [&mut [u8]]) {
        assert_eq!(file.len(), n * self.file_row, "bytes of {n} rows of {:?}", self.tensor_type);
        assert_eq!(planes.len(), self.row_bytes.len(), "planes of {:?}", self.tensor_type);
        let mut pieces: [&mut [u8]; MAX_PLANES] = Default::default();
        for ((piece, plane), row) in pieces.iter_mut().zip(planes).zip(&self.row_bytes) {
            assert_eq!(plane.len(), n * row, "bytes of {n} rows in a plane of {:?}", self.tensor_type);
            *piece = plane;
        }
        if let Some(layout) = layout(self.tensor_type) {
            (layout.pack)(file, pieces);
        }
    }

    /// [`Planes::pack_rows`] by all threads of a pool.
    pub fn pack_rows_on(&self, pool: &Pool, file: &[u8], n: usize, planes: &mut [&mut [u8]]) {
        let per_task = (TASK_BYTES / self.file_row.max(1)).max(n.div_ceil(4 * pool.threads())).max(1);
        let mut rest: Vec<&mut [u8]> = planes.iter_mut().map(|plane| &mut **plane).collect();
        let tasks: Vec<_> = (0..n)
            .step_by(per_task)
            .map(|first| {
                let rows = per_task.min(n - first);
                let pieces = rest.iter_mut().zip(&self.row_bytes).map(|(plane, row)| {
                    let (piece, behind) = take(plane).split_at_mut(rows * row);
                    *plane = behind;
                    piece
                });
                Mutex::new((&file[first * self.file_row..][..rows * self.file_row], rows, pieces.collect::<Vec<_>>()))
            })
            .collect();
        pool.run(tasks.len(), &|i| {
            let (file, rows, pieces) = &mut *tasks[i].lock();
            self.pack_rows(file, *rows, pieces);
        });
    }

    /// The inverse of [`Planes::pack_rows`].
    ///
    /// # Panics
    /// If a length is another.
    pub fn unpack_rows(&self, planes: &[&[u8]], n: usize, file: &mut [u8]) {
        assert_eq!(file.len(), n * self.file_row, "bytes of {n} rows of {:?}", self.tensor_type);
        assert_eq!(planes.len(), self.row_bytes.len(), "planes of {:?}", self.tensor_type);
        let mut pieces: [&[u8]; MAX_PLANES] = Default::default();
        for ((piece, plane), row) in pieces.iter_mut().zip(planes).zip(&self.row_bytes) {
            assert_eq!(plane.len(), n * row, "bytes of {n} rows in a plane of {:?}", self.tensor_type);
            *piece = plane;
        }
        if let Some(layout) = layout(self.tensor_type) {
            (layout.unpack)(pieces, file);
        }
    }
}

/// Whether the kernels that decode weights to half precision (`kernels/gemm_half.hip`) serve a matrix whose largest weight is
/// `largest`: none becomes infinite, and the scales of none of its blocks lose bits that count.
pub fn suits_halves(largest: f32) -> bool {
    (1.0 / 1024.0..250.0).contains(&largest)
}

/// A bound on the weights' magnitude in whole blocks of the file, from their scales.
pub fn largest_weight(tensor_type: TensorType, file: &[u8]) -> f32 {
    // Where a block has its scale and its minimum, and what they are multiplied by at most.
    let (scale, by, min, min_by) = match tensor_type {
        TensorType::Q4_0 => (0, 8.0, 0, 0.0),
        TensorType::Q4_1 => (0, 15.0, 2, 1.0),
        TensorType::Q5_0 => (0, 16.0, 0, 0.0),
        TensorType::Q5_1 => (0, 31.0, 2, 1.0),
        TensorType::Q8_0 => (0, 128.0, 0, 0.0),
        TensorType::IQ4_NL => (0, 127.0, 0, 0.0),
        TensorType::Q2_K => (80, 15.0 * 3.0, 82, 15.0),
        TensorType::Q3_K => (108, 32.0 * 4.0, 0, 0.0),
        TensorType::Q4_K => (0, 63.0 * 15.0, 2, 63.0),
        TensorType::Q5_K => (0, 63.0 * 31.0, 2, 63.0),
        TensorType::Q6_K => (208, 128.0 * 32.0, 0, 0.0),
        TensorType::IQ4_XS => (0, 32.0 * 127.0, 0, 0.0),
        TensorType::MXFP4 => {
            return file.chunks_exact(17).map(|block| e8m0_half(block[0]) * 12.0).fold(0.0, f32::max);
        }
        _ => return f32::INFINITY,
    };
    // Magnitudes of half precision are ordered as their bits are; infinities and NaN are the greatest.
    let magnitude = |block: &[u8], at: usize| u16::from_le_bytes(bytes(block, at)) & 0x7fff;
    let blocks = file.chunks_exact(tensor_type.format().block_bytes);
    let (scale, min) = blocks.fold((0, 0), |(most, most_min), block| {
        (most.max(magnitude(block, scale)), most_min.max(magnitude(block, min)))
    });
    let float = |bits: u16| half::f16::from_bits(bits).to_f32();
    let largest = float(scale) * by + if min_by > 0.0 { float(min) * min_by } else { 0.0 };
    if largest.is_nan() { f32::INFINITY } else { largest }
}

/// How the blocks of a type are taken apart.
struct Layout {
    /// Bytes of a block in each plane.
    parts: [usize; MAX_PLANES],
    pack: fn(&[u8], [&mut [u8]; MAX_PLANES]),
    unpack: fn([&[u8]; MAX_PLANES], &mut [u8]),
}

/// The layout of a type: bytes of a block in the file and in each plane, and the functions for one block.
macro_rules! layouts {
    ($($name:ident $bytes:literal => $a:literal $b:literal $c:literal $d:literal, $pack:path, $unpack:path;)*) => {
        fn layout(tensor_type: TensorType) -> Option<&'static Layout> {
            match tensor_type {
                $(TensorType::$name => {
                    const {
                        assert!($a + $b + $c + $d == $bytes);
                        assert!(TensorType::$name.format().block_bytes == $bytes);
                    }
                    Some(&Layout {
                        parts: [$a, $b, $c, $d],
                        pack: |file, planes| each_packed::<$bytes, $a, $b, $c, $d>(file, planes, $pack),
                        unpack: |planes, file| each_unpacked::<$bytes, $a, $b, $c, $d>(planes, file, $unpack),
                    })
                })*
                TensorType::F32 | TensorType::F16 | TensorType::BF16 => {
                    static FLOATS: [Layout; 2] = [floats(2), floats(4)];
                    Some(&FLOATS[usize::from(tensor_type == TensorType::F32)])
                }
                _ => None,
            }
        }
    };
}

layouts! {
    Q4_0   18  => 16 2 0 0,      q4_0,        q4_0_back;
    Q4_1   20  => 16 4 0 0,      behind,      behind_back;
    Q5_0   22  => 16 4 2 0,      q5,          q5_back;
    Q5_1   24  => 16 4 4 0,      q5,          q5_back;
    Q8_0   34  => 16 16 2 0,     q8_0,        q8_0_back;
    IQ4_NL 18  => 16 2 0 0,      behind,      behind_back;
    MXFP4  17  => 16 1 0 0,      behind,      behind_back;
    Q2_K   84  => 64 16 4 0,     q2_k,        q2_k_back;
    Q3_K   110 => 64 32 12 2,    q3_k,        q3_k_back;
    Q4_K   144 => 128 16 0 0,    q4_k,        q4_k_back;
    Q5_K   176 => 128 32 16 0,   q5_k,        q5_k_back;
    Q6_K   210 => 128 64 16 2,   q6_k,        q6_k_back;
    IQ4_XS 136 => 128 8 0 0,     behind,      behind_back;
}

/// Floats lie as in the file.
const fn floats(bytes: usize) -> Layout {
    Layout {
        parts: [bytes, 0, 0, 0],
        pack: |file, [plane, ..]| plane.copy_from_slice(file),
        unpack: |[plane, ..], file| file.copy_from_slice(plane),
    }
}

type Pieces<'a, const A: usize, const B: usize, const C: usize, const D: usize> =
    (&'a mut [u8; A], &'a mut [u8; B], &'a mut [u8; C], &'a mut [u8; D]);
type PiecesRead<'a, const A: usize, const B: usize, const C: usize, const D: usize> =
    (&'a [u8; A], &'a [u8; B], &'a [u8; C], &'a [u8; D]);

fn each_packed<const N: usize, const A: usize, const B: usize, const C: usize, const D: usize>(
    file: &[u8],
    planes: [&mut [u8]; MAX_PLANES],
    pack: impl Fn(&[u8; N], Pieces<A, B, C, D>),
) {
    let [mut a, mut b, mut c, mut d] = planes;
    for block in file.as_chunks::<N>().0 {
        if let (Some(a), Some(b), Some(c), Some(d)) =
            (next_mut(&mut a), next_mut(&mut b), next_mut(&mut c), next_mut(&mut d))
        {
            pack(block, (a, b, c, d));
        }
    }
}

fn each_unpacked<const N: usize, const A: usize, const B: usize, const C: usize, const D: usize>(
    planes: [&[u8]; MAX_PLANES],
    file: &mut [u8],
    unpack: impl Fn(PiecesRead<A, B, C, D>, &mut [u8; N]),
) {
    let [mut a, mut b, mut c, mut d] = planes;
    for block in file.as_chunks_mut::<N>().0 {
        if let (Some(a), Some(b), Some(c), Some(d)) = (next(&mut a), next(&mut b), next(&mut c), next(&mut d)) {
            unpack((a, b, c, d), block);
        }
    }
}

/// Takes the next `N` bytes, which may be none.
#[inline(always)]
fn next_mut<'a, const N: usize>(rest: &mut &'a mut [u8]) -> Option<&'a mut [u8; N]> {
    let (piece, behind) = take(rest).split_first_chunk_mut()?;
    *rest = behind;
    Some(piece)
}

#[inline(always)]
fn next<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (piece, behind) = rest.split_first_chunk()?;
    *rest = behind;
    Some(piece)
}

/// `N` bytes of a block from `at`; the functions below name constant places inside of it.
#[inline(always)]
fn bytes<const N: usize>(block: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&block[at..at + N]);
    out
}

/// Eight words of bits at `at`, four numbers each.
#[inline(always)]
fn words<const N: usize>(block: &[u8], at: usize) -> [u32; N] {
    std::array::from_fn(|i| u32::from_le_bytes(bytes(block, at + 4 * i)))
}

fn put_words<const N: usize>(to: &mut [u8], words: [u32; N]) {
    for (to, word) in to.as_chunks_mut().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
}

// ------------------------------------------------------------------------------------------------- blocks of 32

/// Q4_0's nibbles become two's complement.
fn q4_0(b: &[u8; 18], (q, d, _, _): Pieces<16, 2, 0, 0>) {
    *d = bytes(b, 0);
    *q = bytes::<16>(b, 2).map(|q| q ^ 0x88);
}

fn q4_0_back((q, d, _, _): PiecesRead<16, 2, 0, 0>, b: &mut [u8; 18]) {
    b[..2].copy_from_slice(d);
    b[2..].copy_from_slice(&q.map(|q| q ^ 0x88));
}

/// Scales stand before the nibbles, which lie as the device wants them.
fn behind<const N: usize, const A: usize, const B: usize>(b: &[u8; N], (q, scales, _, _): Pieces<A, B, 0, 0>) {
    *scales = bytes(b, 0);
    *q = bytes(b, B);
}

fn behind_back<const N: usize, const A: usize, const B: usize>(
    (q, scales, _, _): PiecesRead<A, B, 0, 0>,
    b: &mut [u8; N],
) {
    b[..B].copy_from_slice(scales);
    b[B..].copy_from_slice(q);
}

/// Bit `4j + b` of 32 to bit `j` of byte `b`.
#[inline(always)]
fn gather_bits(bits: u32) -> u32 {
    let byte = |b: u32| {
        let mut x = bits >> b & 0x1111_1111;
        x = (x | x >> 3) & 0x0303_0303;
        x = (x | x >> 6) & 0x000f_000f;
        (x | x >> 12) & 0xff
    };
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

fn scatter_bits(gathered: u32) -> u32 {
    (0..32).fold(0, |bits, i| bits | (gathered >> (i % 4 * 8 + i / 4) & 1) << i)
}

fn q5<const N: usize, const C: usize>(b: &[u8; N], (q, high, scales, _): Pieces<16, 4, C, 0>) {
    *scales = bytes(b, 0);
    *high = gather_bits(u32::from_le_bytes(bytes(b, C))).to_le_bytes();
    *q = bytes(b, C + 4);
}

fn q5_back<const N: usize, const C: usize>((q, high, scales, _): PiecesRead<16, 4, C, 0>, b: &mut [u8; N]) {
    b[..C].copy_from_slice(scales);
    b[C..C + 4].copy_from_slice(&scatter_bits(u32::from_le_bytes(*high)).to_le_bytes());
    b[C + 4..].copy_from_slice(q);
}

fn q8_0(b: &[u8; 34], (first, second, d, _): Pieces<16, 16, 2, 0>) {
    *d = bytes(b, 0);
    *first = bytes(b, 2);
    *second = bytes(b, 18);
}

fn q8_0_back((first, second, d, _): PiecesRead<16, 16, 2, 0>, b: &mut [u8; 34]) {
    b[..2].copy_from_slice(d);
    b[2..18].copy_from_slice(first);
    b[18..].copy_from_slice(second);
}

// ------------------------------------------------------------------------------------------------ blocks of 256

/// The nibbles of 32 numbers in order, from the low or the high halves of 32 bytes.
#[inline(always)]
fn unit_nibbles(half: &[u8; 32], high: bool) -> [u8; 16] {
    std::array::from_fn(|i| match high {
        false => half[i] & 15 | half[16 + i] << 4,
        true => half[i] >> 4 | half[16 + i] & 0xf0,
    })
}

/// The inverse for both halves of 32 bytes.
fn two_units(low: &[u8; 16], high: &[u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| match i {
        0..16 => low[i] & 15 | high[i] << 4,
        _ => low[i - 16] >> 4 | high[i - 16] & 0xf0,
    })
}

/// Units 2i and 2i + 1 are the halves of bytes 32i to 32i + 32.
fn halves(qs: &[u8; 128], q: &mut [u8; 128]) {
    for (qs, q) in qs.as_chunks::<32>().0.iter().zip(q.as_chunks_mut::<32>().0) {
        q[..16].copy_from_slice(&unit_nibbles(qs, false));
        q[16..].copy_from_slice(&unit_nibbles(qs, true));
    }
}

fn halves_back(q: &[u8; 128], qs: &mut [u8]) {
    for (q, qs) in q.as_chunks::<32>().0.iter().zip(qs.as_chunks_mut::<32>().0) {
        *qs = two_units(&bytes(q, 0), &bytes(q, 16));
    }
}

/// Bit `g` of byte `4j + b` to bit `j` of byte `b` of word `g`.
#[inline(always)]
fn bit_planes(file: [u32; 8]) -> [u32; 8] {
    std::array::from_fn(|g| (0..8).fold(0, |word, j| word | (file[j] >> g & 0x0101_0101) << j))
}

/// Pair `s` of byte `32h + 4j + b` to pair `j % 4` of byte `b` of word `j / 4` of unit `4h + s`.
#[inline(always)]
fn pair_planes(file: [u32; 16]) -> [u32; 16] {
    std::array::from_fn(|i| {
        let (h, s, second) = (i / 8, i / 2 % 4, i % 2);
        (0..4).fold(0, |word, j| word | (file[8 * h + 4 * second + j] >> (2 * s) & 0x0303_0303) << (2 * j))
    })
}

fn pair_planes_back(planes: [u32; 16]) -> [u32; 16] {
    std::array::from_fn(|i| {
        let (h, second, j) = (i / 8, i / 4 % 2, i % 4);
        (0..4).fold(0, |word, s| word | (planes[8 * h + 2 * s + second] >> (2 * j) & 0x0303_0303) << (2 * s))
    })
}

fn q2_k(b: &[u8; 84], (q, scales, dm, _): Pieces<64, 16, 4, 0>) {
    *scales = bytes(b, 0);
    put_words(q, pair_planes(words(b, 16)));
    *dm = bytes(b, 80);
}

fn q2_k_back((q, scales, dm, _): PiecesRead<64, 16, 4, 0>, b: &mut [u8; 84]) {
    b[..16].copy_from_slice(scales);
    put_words(&mut b[16..80], pair_planes_back(words(q, 0)));
    b[80..].copy_from_slice(dm);
}

fn q3_k(b: &[u8; 110], (q, high, scales, d): Pieces<64, 32, 12, 2>) {
    put_words(high, bit_planes(words(b, 0)).map(|bits| !bits));
    put_words(q, pair_planes(words(b, 32)));
    let packed: [u8; 12] = bytes(b, 96);
    let low = |group: usize| packed[group % 8] >> (4 * (group / 8)) & 15;
    let upper = |group: usize| packed[8 + group % 4] >> (2 * (group / 4)) & 3;
    *scales = std::array::from_fn(|i| match i {
        0..8 => low(2 * i) | low(2 * i + 1) << 4,
        _ => (0..4).fold(0, |byte, k| byte | upper(4 * (i - 8) + k) << (2 * k)),
    });
    *d = bytes(b, 108);
}

fn q3_k_back((q, high, scales, d): PiecesRead<64, 32, 12, 2>, b: &mut [u8; 110]) {
    put_words(&mut b[..32], bit_planes(words::<8>(high, 0).map(|bits| !bits)));
    put_words(&mut b[32..96], pair_planes_back(words(q, 0)));
    let low = |group: usize| scales[group / 2] >> (4 * (group % 2)) & 15;
    let upper = |group: usize| scales[8 + group / 4] >> (2 * (group % 4)) & 3;
    for (i, byte) in b[96..108].iter_mut().enumerate() {
        *byte = match i {
            0..8 => low(i) | low(i + 8) << 4,
            _ => (0..4).fold(0, |byte, k| byte | upper(i - 8 + 4 * k) << (2 * k)),
        };
    }
    b[108..].copy_from_slice(d);
}

/// `d`, `dmin`, and three words of nibbles: scales' low bits, minima's, and the upper two bits of both.
#[inline(always)]
fn head(b: &[u8]) -> [u8; 16] {
    let (scales, mins) = group_scales_mins(&bytes(b, 4));
    let nibbles = |nibble: &dyn Fn(usize) -> u8| (0..8).fold(0u32, |word, g| word | u32::from(nibble(g)) << (4 * g));
    let mut out = [0; 16];
    let words = [
        u32::from_le_bytes(bytes(b, 0)),
        nibbles(&|g| scales[g] & 15),
        nibbles(&|g| mins[g] & 15),
        nibbles(&|g| scales[g] >> 4 | mins[g] >> 4 << 2),
    ];
    put_words(&mut out, words);
    out
}

fn head_back(head: &[u8; 16], b: &mut [u8]) {
    b[..4].copy_from_slice(&head[..4]);
    let [_, low_scales, low_mins, upper]: [u32; 4] = words(head, 0);
    let nibble = |word: u32, g: usize| (word >> (4 * g) & 15) as u8;
    let scale = |g: usize| nibble(low_scales, g) | (nibble(upper, g) & 3) << 4;
    let min = |g: usize| nibble(low_mins, g) | (nibble(upper, g) >> 2) << 4;
    for g in 0..4 {
        b[4 + g] = scale(g) | scale(4 + g) >> 4 << 6;
        b[8 + g] = min(g) | min(4 + g) >> 4 << 6;
        b[12 + g] = scale(4 + g) & 15 | min(4 + g) << 4;
    }
}

fn q4_k(b: &[u8; 144], (q, scales, _, _): Pieces<128, 16, 0, 0>) {
    *scales = head(b);
    halves(&bytes(b, 16), q);
}

fn q4_k_back((q, scales, _, _): PiecesRead<128, 16, 0, 0>, b: &mut [u8; 144]) {
    head_back(scales, b);
    halves_back(q, &mut b[16..]);
}

fn q5_k(b: &[u8; 176], (q, high, scales, _): Pieces<128, 32, 16, 0>) {
    *scales = head(b);
    put_words(high, bit_planes(words(b, 16)));
    halves(&bytes(b, 48), q);
}

fn q5_k_back((q, high, scales, _): PiecesRead<128, 32, 16, 0>, b: &mut [u8; 176]) {
    head_back(scales, b);
    put_words(&mut b[16..48], bit_planes(words(high, 0)));
    halves_back(q, &mut b[48..]);
}

/// The uppermost bit of Q6_K's numbers is flipped, which makes them two's complement.
const UPPERMOST: u32 = 0xaaaa_aaaa;

fn q6_k(b: &[u8; 210], (q, high, scales, d): Pieces<128, 64, 16, 2>) {
    for (h, q) in q.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        let (first, second) = (bytes(b, 64 * h), bytes(b, 64 * h + 32));
        let units = [(&first, false), (&second, false), (&first, true), (&second, true)];
        for (q, (half, high)) in q.as_chunks_mut::<16>().0.iter_mut().zip(units) {
            *q = unit_nibbles(half, high);
        }
    }
    put_words(high, pair_planes(words(b, 128)).map(|pairs| pairs ^ UPPERMOST));
    *scales = bytes(b, 192);
    *d = bytes(b, 208);
}

fn q6_k_back((q, high, scales, d): PiecesRead<128, 64, 16, 2>, b: &mut [u8; 210]) {
    for (q, ql) in q.as_chunks::<64>().0.iter().zip(b.as_chunks_mut::<64>().0) {
        ql[..32].copy_from_slice(&two_units(&bytes(q, 0), &bytes(q, 32)));
        ql[32..].copy_from_slice(&two_units(&bytes(q, 16), &bytes(q, 48)));
    }
    put_words(&mut b[128..192], pair_planes_back(words::<16>(high, 0).map(|pairs| pairs ^ UPPERMOST)));
    b[192..208].copy_from_slice(scales);
    b[208..].copy_from_slice(d);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::FORMATS;

    fn noise(n: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        (0..n).map(|_| next()).collect()
    }

    fn served() -> impl Iterator<Item = TensorType> {
        FORMATS.iter().filter(|format| format.decode.is_some()).map(|format| format.tensor_type)
    }

    fn packed(planes: &Planes, file: &[u8], n: usize, pool: Option<&Pool>) -> Vec<Vec<u8>> {
        let mut pieces: Vec<Vec<u8>> = planes.row_bytes.iter().map(|row| vec![0xa5; n * row]).collect();
        let mut slices: Vec<&mut [u8]> = pieces.iter_mut().map(Vec::as_mut_slice).collect();
        match pool {
            Some(pool) => planes.pack_rows_on(pool, file, n, &mut slices),
            None => planes.pack_rows(file, n, &mut slices),
        }
        pieces
    }

    #[test]
    fn every_type_comes_back_from_its_planes() {
        let pool = Pool::new(2).expect("a pool");
        for tensor_type in served() {
            for (n, blocks) in [(1, 1), (3, 5), (200, 9)] {
                let columns = blocks * tensor_type.format().block_elements;
                let planes = Planes::of(tensor_type, n, columns).expect("planes");
                let file = noise(n * tensor_type.row_bytes(columns).expect("whole blocks"), n as u64);
                let pieces = packed(&planes, &file, n, None);
                assert_eq!(pieces, packed(&planes, &file, n, Some(&pool)), "{tensor_type:?}");
                let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
                let mut back = vec![0x5a; file.len()];
                planes.unpack_rows(&slices, n, &mut back);
                assert_eq!(back, file, "{tensor_type:?}");
            }
        }
    }

    #[test]
    fn planes_are_aligned_and_neutral_in_bytes() {
        for tensor_type in served() {
            let columns = 3 * tensor_type.format().block_elements;
            let planes = Planes::of(tensor_type, 7, columns).expect("planes");
            assert_eq!(planes.row_bytes.iter().sum::<usize>(), tensor_type.row_bytes(columns).expect("whole blocks"));
            assert!(planes.offsets.iter().all(|offset| offset.is_multiple_of(ALIGNMENT)));
            let ends = planes.offsets.iter().zip(&planes.row_bytes).map(|(offset, row)| offset + 7 * row);
            assert!(ends.zip(planes.offsets.iter().skip(1).chain([&planes.bytes])).all(|(end, &next)| end <= next));
        }
    }

    #[test]
    fn no_weight_is_larger_than_the_bound() {
        for tensor_type in served().filter(|&t| layout(t).is_some_and(|layout| layout.parts[1] > 0)) {
            let format = tensor_type.format();
            let mut file = noise(40 * format.block_bytes, 11);
            for block in file.chunks_exact_mut(format.block_bytes) {
                // Scales of all magnitudes, but neither infinite nor NaN.
                for at in [1, 3, 81, 83, 109, 209] {
                    block.get_mut(at).into_iter().for_each(|byte| *byte &= 0xbb);
                }
            }
            let mut values = vec![0.0; 40 * format.block_elements];
            format.decode.expect("a decode")(&file, &mut values);
            let largest = values.iter().fold(0f32, |most, value| most.max(value.abs()));
            let bound = largest_weight(tensor_type, &file);
            assert!(largest <= bound, "{tensor_type:?}: {largest} > {bound}");
        }
        assert_eq!(largest_weight(TensorType::F16, &[0, 0]), f32::INFINITY);
        assert_eq!(largest_weight(TensorType::Q4_0, &[0xff; 18]), f32::INFINITY);
        assert!(suits_halves(1.0) && !suits_halves(300.0) && !suits_halves(1e-5) && !suits_halves(f32::INFINITY));
    }

    #[test]
    fn what_has_no_planes_has_none() {
        assert_eq!(Planes::of(TensorType::Q4_0, 1, 33), None);
        assert_eq!(Planes::of(TensorType::Q6_K, 1, 128), None);
        assert_eq!(Planes::of(TensorType::IQ2_XXS, 1, 256), None);
        assert_eq!(Planes::of(TensorType::F16, usize::MAX / 4, 1000), None);
    }

    /// Row 0 of the planes, read as `kernels/formats.h` describes them, has the numbers of the scalar decode.
    #[test]
    fn planes_hold_what_the_kernels_expect() {
        let numbers = |planes: &[Vec<u8>], nibbles: bool, i: usize| {
            let (unit, i) = (i / 32, i % 32);
            if nibbles { planes[0][unit * 16 + i % 16] >> (i / 16 * 4) & 15 } else { 0 }
        };
        let bit = |plane: &[u8], i: usize| plane[i / 32 * 4 + i % 4] >> (i % 32 / 4) & 1;
        let pair = |plane: &[u8], i: usize| plane[i / 32 * 8 + i % 32 / 16 * 4 + i % 4] >> (i % 16 / 4 * 2) & 3;
        for (tensor_type, nibbles, offset, d_at) in [
            (TensorType::Q4_0, true, 8, 0),
            (TensorType::Q5_0, true, 16, 0),
            (TensorType::Q6_K, true, 32, 208),
            (TensorType::Q3_K, false, 4, 108),
        ] {
            let format = tensor_type.format();
            let mut file = noise(format.block_bytes, 5);
            file[d_at..d_at + 2].copy_from_slice(&[0, 0x3c]); // 1.0
            if tensor_type == TensorType::Q6_K {
                file[192..208].fill(1);
            }
            if tensor_type == TensorType::Q3_K {
                file[96..104].fill(0x11); // low nibbles 1
                file[104..108].fill(0xaa); // upper bits 2: scale 1 + 32
            }
            let planes = Planes::of(tensor_type, 1, format.block_elements).expect("planes");
            let pieces = packed(&planes, &file, 1, None);
            let mut expected = vec![0.0; format.block_elements];
            format.decode.expect("a decode")(&file, &mut expected);
            for (i, expected) in expected.iter().enumerate() {
                let low = numbers(&pieces, nibbles, i);
                let q = match tensor_type {
                    TensorType::Q4_0 => low ^ 8,
                    TensorType::Q5_0 => low | bit(&pieces[1], i) << 4,
                    TensorType::Q6_K => low | (pair(&pieces[1], i) ^ 2) << 4,
                    _ => pair(&pieces[0], i) | (1 - bit(&pieces[1], i)) << 2,
                };
                assert_eq!(f32::from(q) - f32::from(offset as u8), *expected, "{tensor_type:?} {i}");
            }
        }
    }
}
