//! Weights as the tile unit wants them: 16 rows as pairs of columns in bf16; and roundings to bf16.
//!
//! A packed group of any format becomes, for each 32 columns, a tile of 16 pairs × 16 rows. The formats' scales and minima
//! are applied here, in float32, before bf16: sums then need no scale, and a chain of products may be as
//! long as the row. The work is paid once for all rows of activations of a step.

use std::arch::x86_64::*;

use half::f16;

use super::super::bf12;
use super::super::pack::COLUMNS;
use super::super::simd::{Avx512Vnni, halves_to_bf16, shuffle_into, to_bf16};
use super::super::tiles::{self, Tile};
use super::unit::{Block, TILE_BYTES, TILE_ROWS, TILE_WIDTH, Unit};
use crate::quant::TensorType;

/// A float's upper half is the bf16 next to it on the side of zero, 2⁻⁸·0.72 of it less on the average (over mantissas as
/// they are in nature, of density 1 / (m · ln 2)). Scaled by this before, weights are as good as rounded to nearest: no
/// bias, and a standard deviation that is 5 % greater. Rounding would cost a third of the time. A number that bf16 has stays
/// what it is.
pub const LESS: f32 = 1.0 + 0.721_347_5 / 256.0;

/// Control of a byte permutation that stays within lanes: which byte of a lane comes to each of its places.
#[inline(always)]
unsafe fn within_lanes(bytes: i32) -> __m512i {
    unsafe { _mm512_set4_epi32(bytes + 0x0c0c_0c0c, bytes + 0x0808_0808, bytes + 0x0404_0404, bytes) }
}

/// Two columns of 16 rows, scaled by [`LESS`], as pairs of bf16: the upper halves of `even` move to where the lower ones of
/// `odd` are, in one operation. (A permutation of words would take three on Intel's cores.)
#[inline(always)]
pub unsafe fn pairs(even: __m512, odd: __m512) -> __m512i {
    unsafe {
        let (even, odd) = (_mm512_castps_si512(even), _mm512_castps_si512(odd));
        shuffle_into(odd, 0x3333_3333_3333_3333, even, within_lanes(0x0302))
    }
}

/// Number and bias: the bits of 2¹⁵ with a byte in its mantissa such that the float is 2¹⁵ + the byte.
const BIAS: f32 = 32768.0;
/// The same for four bits, the upper ones of that byte: 2¹¹ + the number.
const UPPER_BIAS: f32 = 2048.0;

/// Byte `byte` of each lane in bits 8 to 15 of `bias`.
#[inline(always)]
unsafe fn moved(lanes: __m512i, byte: i32, bias: __m512i) -> __m512 {
    unsafe { _mm512_castsi512_ps(shuffle_into(bias, 0x2222_2222_2222_2222, lanes, within_lanes(byte << 8))) }
}

/// The four bytes of each lane as floats with a bias. (Byte 1 need not move, and takes another port than the others.)
#[inline(always)]
unsafe fn biased(lanes: __m512i, bias: f32) -> [__m512; 4] {
    unsafe {
        let bias = _mm512_set1_epi32(bias.to_bits() as i32);
        // bias | (lanes & bits 8 to 15)
        let there = _mm512_ternarylogic_epi32::<0xf8>(bias, lanes, _mm512_set1_epi32(0xff00));
        [moved(lanes, 0, bias), _mm512_castsi512_ps(there), moved(lanes, 2, bias), moved(lanes, 3, bias)]
    }
}

/// Two rows of a tile: four columns of 16 rows, `d · number + m`.
#[inline(always)]
unsafe fn store_columns(numbers: [__m512; 4], d: __m512, m: __m512, out: *mut u8) {
    unsafe {
        let [a, b, c, e] = numbers;
        let (a, b) = (_mm512_fmadd_ps(a, d, m), _mm512_fmadd_ps(b, d, m));
        _mm512_store_si512(out.cast(), pairs(a, b));
        let (c, e) = (_mm512_fmadd_ps(c, d, m), _mm512_fmadd_ps(e, d, m));
        _mm512_store_si512(out.add(TILE_WIDTH).cast(), pairs(c, e));
    }
}

/// A group of 16 rows of weights that can be unfolded, 32 columns at a time.
pub trait Folded {
    /// What both halves of a tile need.
    type Scales: Copy;
    /// Cache lines of a tile of 32 columns, about.
    const LINES: usize;

    /// Where columns `32 · i..` of a group are.
    ///
    /// # Safety
    /// As [`Folded::unfold`].
    unsafe fn place(group: *const u8, i: usize) -> *const u8;

    /// The scales of columns `32 · i..`.
    ///
    /// # Safety
    /// AVX-512 with VNNI and BF16; the columns at `group`.
    unsafe fn scales(group: *const u8, i: usize) -> Self::Scales;

    /// Writes one half of the tile of columns `32 · i..`.
    ///
    /// # Safety
    /// As [`Folded::scales`]; room for the tile at `out`.
    unsafe fn unfold(group: *const u8, columns: usize, i: usize, scales: Self::Scales, half: usize, out: *mut u8);
}

impl<T: Tile> Folded for T {
    /// `d` and `m` of `d · number + m`, with the number's bias in `m`, for each half of the columns.
    type Scales = [(__m512, __m512); 2];
    const LINES: usize = T::BYTES.div_ceil(64);

    #[inline(always)]
    unsafe fn place(group: *const u8, i: usize) -> *const u8 {
        group.wrapping_add(i / T::TILES * (T::HEAD + T::TILES * T::BYTES) + T::HEAD + i % T::TILES * T::BYTES)
    }

    #[inline(always)]
    unsafe fn scales(group: *const u8, i: usize) -> Self::Scales {
        // SAFETY: as demanded.
        unsafe {
            let head = group.add(i / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            let scales = tiles::scales::<Avx512Vnni, T>(head, Self::place(group, i), 0);
            let less = _mm512_set1_ps(LESS);
            let offset = (if T::BITS == 8 { 128 } else { T::OFFSET }) as f32;
            let mut out = [(less, less); 2];
            for (half, out) in out.iter_mut().enumerate() {
                // (Four bits: the halves of the columns have one scale, but biases of their own.)
                let bias = if T::BITS == 4 && half == 1 { UPPER_BIAS } else { BIAS };
                let (d, m) = (_mm512_mul_ps(scales.d[half], less), _mm512_mul_ps(scales.m[half], less));
                let offset = _mm512_set1_ps(-offset - bias);
                *out = (d, if T::MINIMUM { _mm512_fmadd_ps(d, offset, m) } else { _mm512_mul_ps(d, offset) });
            }
            out
        }
    }

    #[inline(always)]
    unsafe fn unfold(group: *const u8, _: usize, i: usize, scales: Self::Scales, half: usize, out: *mut u8) {
        // SAFETY: as demanded.
        unsafe {
            let tile = Self::place(group, i);
            if T::BITS == 4 {
                // The plane is the end of the tile; a byte has columns 4j.. in its lower half and 16 + 4j.. in its upper.
                for j in 2 * half..2 * half + 2 {
                    let lanes = _mm512_loadu_si512(tile.add(T::BYTES - 256 + 64 * j).cast());
                    let lower = biased(_mm512_and_si512(lanes, _mm512_set1_epi8(0x0f)), BIAS);
                    let upper = biased(_mm512_and_si512(lanes, _mm512_set1_epi8(0xf0u8 as i8)), UPPER_BIAS);
                    store_columns(lower, scales[0].0, scales[0].1, out.add(2 * j * TILE_WIDTH));
                    store_columns(upper, scales[1].0, scales[1].1, out.add((8 + 2 * j) * TILE_WIDTH));
                }
                return;
            }
            let numbers = T::numbers::<Avx512Vnni>(tile, 0);
            for (j, &numbers) in numbers.iter().enumerate().skip(4 * half).take(4) {
                // (Signed numbers become those above -128.)
                let flipped = _mm512_xor_si512(numbers, _mm512_set1_epi8(-128));
                let numbers = if T::BITS == 8 { flipped } else { numbers };
                let (d, m) = scales[if T::SPLIT { half } else { 0 }];
                store_columns(biased(numbers, BIAS), d, m, out.add(2 * j * TILE_WIDTH));
            }
        }
    }
}

/// Packed F16: pair `p` of columns is 16 pairs at `group + 64 · p`. What is missing to 32 columns is 0.
pub struct F16;
/// The same for BF16, whose pairs are a tile's rows.
pub struct Bf16;

macro_rules! floats {
    ($($name:ident: |$pair:ident| $tile_row:expr;)*) => {$(
        impl Folded for $name {
            type Scales = ();
            const LINES: usize = TILE_ROWS;

            #[inline(always)]
            unsafe fn place(group: *const u8, i: usize) -> *const u8 {
                group.wrapping_add(i * TILE_BYTES)
            }

            #[inline(always)]
            unsafe fn scales(_: *const u8, _: usize) {}

            #[inline(always)]
            unsafe fn unfold(group: *const u8, columns: usize, i: usize, _: (), half: usize, out: *mut u8) {
                // SAFETY: as demanded; reads the pairs that are there.
                unsafe {
                    for p in half * TILE_ROWS / 2..(half + 1) * TILE_ROWS / 2 {
                        let $pair = group.wrapping_add((i * TILE_ROWS + p) * TILE_WIDTH);
                        let there = i * TILE_ROWS + p < columns.div_ceil(2);
                        let row = if there { $tile_row } else { _mm512_setzero_si512() };
                        _mm512_store_si512(out.add(p * TILE_WIDTH).cast(), row);
                    }
                }
            }
        }
    )*};
}

floats! {
    F16: |pair| halves_to_bf16(_mm512_loadu_si512(pair.cast()));
    Bf16: |pair| _mm512_loadu_si512(pair.cast());
}

/// Columns of a group of weights in 12 bits: where the others have their bytes it lies itself.
pub struct Bf12<'a> {
    /// The group.
    pub group: bf12::Group<'a>,
    /// Its first column.
    pub first: usize,
}

impl Folded for Bf12<'_> {
    type Scales = ();
    const LINES: usize = (COLUMNS / bf12::TILE_COLUMNS * bf12::TILE).div_ceil(TILE_WIDTH);

    #[inline(always)]
    unsafe fn place(group: *const u8, i: usize) -> *const u8 {
        // SAFETY: what the caller says to be a group of this form is one.
        let columns = unsafe { &*group.cast::<Bf12>() };
        columns.group.place_of(columns.first + COLUMNS * i)
    }

    #[inline(always)]
    unsafe fn scales(_: *const u8, _: usize) {}

    #[inline(always)]
    unsafe fn unfold(group: *const u8, _: usize, i: usize, _: (), half: usize, out: *mut u8) {
        // SAFETY: as demanded, and as above.
        unsafe {
            let columns = &*group.cast::<Bf12>();
            let first = columns.first + COLUMNS * i + COLUMNS / 2 * half;
            columns.group.in_bf16_16(first, out.add(half * TILE_BYTES / 2));
        }
    }
}

/// How groups of weights in 12 bits are unfolded, given a [`Bf12`] each.
pub fn bf12_unfolder<U: Unit>() -> Unfold {
    unfold::<U, Bf12>
}

/// Up to three groups that are unfolded together.
pub struct Several {
    /// The groups, from the same column: those that there are.
    pub groups: [*const u8; 3],
    /// How many there are.
    pub count: usize,
    /// Columns.
    pub columns: usize,
    /// Where the tiles of the first go; those of the others follow as [`Block::w_next`] says.
    pub w: *mut u8,
    /// Tiles for which there is room: all, or [`FEW`], which are used again and again.
    pub room: usize,
    /// Bytes from a group to the one that will be unfolded in its place next.
    pub next: usize,
}

impl Several {
    /// Which tile of the room the one of step `i` is.
    #[inline(always)]
    fn place(&self, i: usize) -> usize {
        if self.room == FEW { i % FEW } else { i }
    }
}

/// Unfolds some groups and multiplies each tile when the one after the next is unfolded. After each half of a tile comes one
/// product of another: the tile unit works beside the vector units only as far as the reorder buffer reaches, which
/// holds about the operations of two tiles. Meanwhile the groups that follow come to the second-level cache, and the next tile to the first.
///
/// # Safety
/// AVX-512 with VNNI and BF16; all that [`Folded::unfold`] and [`Unit::begin`] demand.
pub type Unfold = unsafe fn(several: &Several, block: &Block);

/// Tiles that are unfolded before the first is multiplied: what was stored has reached the cache when it is loaded.
const LAG: usize = 2;
/// Tiles that are in use at a time, and a power of two.
pub const FEW: usize = 4;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn unfold<U: Unit, F: Folded>(several: &Several, block: &Block) {
    // SAFETY: as demanded.
    unsafe {
        let steps = several.columns.div_ceil(2 * TILE_ROWS);
        U::begin(block);
        for i in 0..steps + LAG {
            for g in 0..block.groups as usize {
                if i < steps && g < several.count {
                    let group = several.groups[g];
                    let out = several.w.add(g * block.w_next + several.place(i) * TILE_BYTES);
                    let (soon, later) = (F::place(group, i + 1), F::place(group, i).wrapping_add(several.next));
                    for line in 0..F::LINES {
                        _mm_prefetch::<_MM_HINT_T0>(soon.wrapping_add(64 * line).cast());
                        _mm_prefetch::<_MM_HINT_T1>(later.wrapping_add(64 * line).cast());
                    }
                    let scales = F::scales(group, i);
                    F::unfold(group, several.columns, i, scales, 0, out);
                    multiply_one::<U>(several, block, i, 2 * g);
                    F::unfold(group, several.columns, i, scales, 1, out);
                } else {
                    multiply_one::<U>(several, block, i, 2 * g);
                }
                multiply_one::<U>(several, block, i, 2 * g + 1);
            }
        }
        U::end(block);
    }
}

/// The product that is due after half a tile, of those of step `i`: each time one, or with one tile of activations every
/// other time.
#[inline(always)]
unsafe fn multiply_one<U: Unit>(several: &Several, block: &Block, i: usize, half: usize) {
    let halves = 2 / block.rows as usize;
    if i >= LAG && half % halves == halves - 1 {
        // SAFETY: as the caller's.
        unsafe { U::add_one(block, i - LAG, several.place(i - LAG), half / halves) };
    }
}

macro_rules! formats {
    ($($format:ident)*) => {
        /// How groups of a packed format are unfolded.
        pub fn unfolder<U: Unit>(tensor_type: TensorType) -> Option<Unfold> {
            match tensor_type {
                TensorType::F16 => Some(unfold::<U, F16>),
                TensorType::BF16 => Some(unfold::<U, Bf16>),
                $(TensorType::$format => Some(unfold::<U, tiles::$format>),)*
                _ => None,
            }
        }
    };
}

formats! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// Rounds a row of activations, times a factor, to bf16, into tiles of 32 elements, [`TILE_BYTES`] apart; what is missing
/// to a whole tile is 0.
///
/// # Safety
/// AVX-512 with BF16; the row's places in the tiles at `out` are the caller's.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub unsafe fn round_row(row: &[f32], factor: f32, out: *mut u8) {
    // SAFETY: as demanded; reads whole chunks, or the elements that a mask admits.
    unsafe {
        for (i, x) in row.chunks(32).enumerate() {
            let masks = (u32::MAX >> (32 - x.len())) as u64;
            let low = _mm512_maskz_loadu_ps(masks as u16, x.as_ptr());
            let high = _mm512_maskz_loadu_ps((masks >> 16) as u16, x.as_ptr().wrapping_add(16));
            let (low, high) = (_mm512_mul_ps(low, _mm512_set1_ps(factor)), _mm512_mul_ps(high, _mm512_set1_ps(factor)));
            _mm512_store_si512(out.add(i * TILE_BYTES).cast(), to_bf16(low, high));
        }
    }
}

/// The same for half precision.
///
/// # Safety
/// As [`round_row`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
pub unsafe fn round_halves(row: &[f16], out: *mut u8) {
    // SAFETY: as demanded; reads the elements that a mask admits.
    unsafe {
        for (i, x) in row.chunks(32).enumerate() {
            let halves = _mm512_maskz_loadu_epi16(u32::MAX >> (32 - x.len()), x.as_ptr().cast());
            _mm512_store_si512(out.add(i * TILE_BYTES).cast(), halves_to_bf16(halves));
        }
    }
}

/// Rounds rows of 16 activations to bf16, to where they belong in tiles: `out` is the place of the first in its tile.
///
/// # Safety
/// AVX-512 with BF16; the places are the caller's.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma")]
pub unsafe fn round_columns(x: *const f32, stride: usize, rows: usize, out: *mut u8) {
    // SAFETY: as demanded; 16 elements of each of the rows.
    unsafe {
        for row in 0..rows {
            let x = _mm512_loadu_ps(x.add(row * stride));
            let rounded = _mm512_castsi512_si256(to_bf16(x, x));
            _mm256_storeu_si256(out.add(row * TILE_WIDTH).cast(), rounded);
        }
    }
}

/// Two vectors of finite numbers as pairs, rounded to nearest.
#[inline(always)]
pub unsafe fn rounded_pairs(even: __m512, odd: __m512) -> __m512i {
    unsafe {
        let half = _mm512_set1_epi32(0x8000);
        let up = |x: __m512| _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), half));
        pairs(up(even), up(odd))
    }
}
