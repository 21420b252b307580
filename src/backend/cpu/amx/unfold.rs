//! Weights as the tile unit wants them: 16 rows as pairs of columns in bf16; and roundings to bf16.
//!
//! A packed group of any format becomes, for each 32 columns, a tile of 16 pairs × 16 rows. The formats' scales and minima
//! are applied here, in float32, before bf16: sums then need no scale, and a chain of products may be as
//! long as the row. The work is paid once for all rows of activations of a step.

use std::arch::x86_64::*;

use half::f16;

use super::super::bf12;
use super::super::simd::{Avx512Vnni, halves_to_bf16, to_bf16};
use super::super::tiles::{self, Tile};
use super::unit::{Block, TILE_BYTES, TILE_ROWS, TILE_WIDTH, Unit};
use crate::quant::TensorType;

/// The order in which the upper halves of two vectors become a vector of pairs.
#[repr(align(64))]
struct UpperHalves([u16; 32]);

static UPPER_HALVES: UpperHalves = {
    let mut order = [0; 32];
    let mut i = 0;
    while i < 32 {
        order[i] = (i / 2 * 2 + 1 + 32 * (i % 2)) as u16;
        i += 1;
    }
    UpperHalves(order)
};

/// A float's upper half is the bf16 next to it on the side of zero, 2⁻⁸·0.72 of it less on the average (over mantissas as
/// they are in nature, of density 1 / (m · ln 2)). Scaled by this before, weights are as good as rounded to nearest: no
/// bias, and a standard deviation that is 5 % greater. Rounding would cost a third of the time. A number that bf16 has stays
/// what it is.
pub const LESS: f32 = 1.0 + 0.721_347_5 / 256.0;

/// Two columns of 16 rows, scaled by [`LESS`], as pairs of bf16.
#[inline(always)]
pub unsafe fn pairs(even: __m512, odd: __m512) -> __m512i {
    unsafe {
        let order = _mm512_load_si512(UPPER_HALVES.0.as_ptr().cast());
        _mm512_permutex2var_epi16(_mm512_castps_si512(even), order, _mm512_castps_si512(odd))
    }
}

/// Number and bias: the bits of 2¹⁵ with a byte in its mantissa such that the float is 2¹⁵ + the byte.
const BIAS: f32 = 32768.0;

/// Bytes `N` of the lanes, as floats with [`BIAS`].
#[inline(always)]
unsafe fn biased<const N: usize>(numbers: __m512i) -> __m512 {
    unsafe {
        let moved = match N {
            0 => _mm512_slli_epi32::<8>(numbers),
            1 => numbers,
            2 => _mm512_srli_epi32::<8>(numbers),
            _ => _mm512_srli_epi32::<16>(numbers),
        };
        // (moved & 0xff00) | bias
        let (mask, bias) = (_mm512_set1_epi32(0xff00), _mm512_set1_epi32(BIAS.to_bits() as i32));
        _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<0xea>(moved, mask, bias))
    }
}

/// One tile of a packed format.
#[inline(always)]
unsafe fn unfold_tile<T: Tile>(head: *const u8, tile: *const u8, out: *mut u8) {
    unsafe {
        let numbers = T::numbers::<Avx512Vnni>(tile, 0);
        let scales = T::scales::<Avx512Vnni>(head, tile, 0);
        let less = _mm512_set1_ps(LESS);
        let signed = T::BITS == 8;
        let offset = if signed { 128 } else { T::OFFSET };
        let offset = _mm512_set1_ps(-(offset as f32) - BIAS);
        for (j, &numbers) in numbers.iter().enumerate() {
            let half = if T::SPLIT { j / 4 } else { 0 };
            let (d, m) = (_mm512_mul_ps(scales.d[half], less), _mm512_mul_ps(scales.m[half], less));
            let m = if T::MINIMUM { _mm512_fmadd_ps(d, offset, m) } else { _mm512_mul_ps(d, offset) };
            let numbers = if signed { _mm512_xor_si512(numbers, _mm512_set1_epi8(-128)) } else { numbers };
            let (a, b) = (_mm512_fmadd_ps(biased::<0>(numbers), d, m), _mm512_fmadd_ps(biased::<1>(numbers), d, m));
            _mm512_store_si512(out.add(2 * j * TILE_WIDTH).cast(), pairs(a, b));
            let (a, b) = (_mm512_fmadd_ps(biased::<2>(numbers), d, m), _mm512_fmadd_ps(biased::<3>(numbers), d, m));
            _mm512_store_si512(out.add((2 * j + 1) * TILE_WIDTH).cast(), pairs(a, b));
        }
    }
}

/// A group of 16 rows of weights that can be unfolded, 32 columns at a time.
pub trait Folded {
    /// Writes the tile of columns `32 · i..`.
    ///
    /// # Safety
    /// AVX-512 with VNNI and BF16; the columns at `group`, and room for the tile at `out`.
    unsafe fn unfold(group: *const u8, columns: usize, i: usize, out: *mut u8);
}

impl<T: Tile> Folded for T {
    #[inline(always)]
    unsafe fn unfold(group: *const u8, _: usize, i: usize, out: *mut u8) {
        // SAFETY: as demanded.
        unsafe {
            let head = group.add(i / T::TILES * (T::HEAD + T::TILES * T::BYTES));
            unfold_tile::<T>(head, head.add(T::HEAD + i % T::TILES * T::BYTES), out);
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
            #[inline(always)]
            unsafe fn unfold(group: *const u8, columns: usize, i: usize, out: *mut u8) {
                // SAFETY: as demanded; reads the pairs that are there.
                unsafe {
                    for p in 0..TILE_ROWS {
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
    #[inline(always)]
    unsafe fn unfold(group: *const u8, _: usize, i: usize, out: *mut u8) {
        // SAFETY: as demanded; what the caller says to be a group of this form is one.
        unsafe {
            let columns = &*group.cast::<Bf12>();
            columns.group.in_bf16_32(columns.first + 2 * TILE_ROWS * i, out);
        }
    }
}

/// How groups of weights in 12 bits are unfolded, given a [`Bf12`] each.
pub fn bf12_unfolder<U: Unit>() -> Unfold {
    unfold::<U, Bf12>
}

/// Two groups that are unfolded, or one.
pub struct Pair {
    /// The groups, from the same column.
    pub groups: [*const u8; 2],
    /// There is a second one.
    pub both: bool,
    /// Columns.
    pub columns: usize,
    /// Where the tiles of the first go; those of the second follow as [`Block::w_next`] says.
    pub w: *mut u8,
}

/// Unfolds a pair, and multiplies each tile when the one after the next is unfolded: the tile unit works beside the vector
/// units, and tiles are not loaded before what was stored has reached the cache.
///
/// # Safety
/// AVX-512 with VNNI and BF16; all that [`Folded::unfold`] and [`Unit::begin`] demand.
pub type Unfold = unsafe fn(pair: &Pair, block: &Block);

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c")]
unsafe fn unfold<U: Unit, F: Folded>(pair: &Pair, block: &Block) {
    // SAFETY: as demanded.
    unsafe {
        let steps = pair.columns.div_ceil(2 * TILE_ROWS);
        U::begin(block);
        for i in 0..steps {
            let out = pair.w.add(i * TILE_BYTES);
            F::unfold(pair.groups[0], pair.columns, i, out);
            if pair.both {
                F::unfold(pair.groups[1], pair.columns, i, out.add(block.w_next));
            }
            if i >= LAG {
                U::add(block, i - LAG..i + 1 - LAG);
            }
        }
        U::add(block, steps.saturating_sub(LAG)..steps);
        U::end(block);
    }
}

/// Tiles that are unfolded before the first is multiplied.
const LAG: usize = 2;

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

/// Two vectors of finite numbers as pairs, rounded to nearest.
#[inline(always)]
pub unsafe fn rounded_pairs(even: __m512, odd: __m512) -> __m512i {
    unsafe {
        let half = _mm512_set1_epi32(0x8000);
        let up = |x: __m512| _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(x), half));
        pairs(up(even), up(odd))
    }
}
