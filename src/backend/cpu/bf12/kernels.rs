//! Products of weights in 12 bits with float activations, and their unfolding to float32 and to bf16.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;
use std::ops::Range;

use super::super::features::{Isa, ShortFloat};
use super::super::float_groups::Products;
use super::super::pack::ROWS;
use super::super::simd::{Avx2, Avx512Vnni, Fetch, Simd};
use super::{Group, HIGH, HIGHS, MAGNITUDE, PAIR, PAIRS, TILE, TILE_COLUMNS, group_bytes};

/// What unfolding needs of a vector unit besides [`Simd`].
trait Unfold: Simd {
    /// Pair `J` of a tile's columns as bf16, of the rows from `first`. All lanes of `base` are the group's.
    unsafe fn pair<const J: usize>(tile: *const u8, first: usize, base: Self::I) -> Self::I;
    /// 16 bits in all lanes.
    unsafe fn splat_u16(x: u16) -> Self::I;
    /// Each pair's first column as float32.
    unsafe fn even(pair: Self::I) -> Self::F;
    /// Each pair's second.
    unsafe fn odd(pair: Self::I) -> Self::F;
    /// Both of each, beside each other: the first rows, the last.
    unsafe fn wide(pair: Self::I) -> [Self::F; 2];
}

/// All pairs of a tile.
#[inline(always)]
unsafe fn unfold<S: Unfold>(tile: *const u8, first: usize, base: S::I) -> [S::I; PAIRS] {
    // SAFETY: as the caller's.
    unsafe {
        [
            S::pair::<0>(tile, first, base),
            S::pair::<1>(tile, first, base),
            S::pair::<2>(tile, first, base),
            S::pair::<3>(tile, first, base),
        ]
    }
}

impl Unfold for Avx512Vnni {
    #[inline(always)]
    unsafe fn pair<const J: usize>(tile: *const u8, _: usize, base: __m512i) -> __m512i {
        unsafe {
            let (low, high) = (Self::load(tile.add(64 * (J / 2))), Self::load(tile.add(HIGHS)));
            let low = match J % 2 {
                0 => _mm512_and_si512(low, _mm512_set1_epi16(0xff)),
                _ => _mm512_srli_epi16::<8>(low),
            };
            let high = match J {
                0 => high,
                1 => _mm512_rol_epi32::<4>(high),
                2 => _mm512_rol_epi32::<8>(high),
                _ => _mm512_rol_epi32::<12>(high),
            };
            // (high & mask) | low
            let number = _mm512_ternarylogic_epi32::<0xea>(high, _mm512_set1_epi32(HIGH as i32), low);
            let not_zero = _mm512_test_epi16_mask(number, _mm512_set1_epi16(MAGNITUDE as i16));
            _mm512_mask_add_epi16(number, not_zero, number, base)
        }
    }
    #[inline(always)]
    unsafe fn splat_u16(x: u16) -> __m512i {
        unsafe { _mm512_set1_epi16(x as i16) }
    }
    #[inline(always)]
    unsafe fn even(pair: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(pair)) }
    }
    #[inline(always)]
    unsafe fn odd(pair: __m512i) -> __m512 {
        unsafe { _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32(0xffff_0000u32 as i32))) }
    }
    #[inline(always)]
    unsafe fn wide(pair: __m512i) -> [__m512; 2] {
        unsafe {
            let (low, high) = (_mm512_castsi512_si256(pair), _mm512_extracti64x4_epi64::<1>(pair));
            let (low, high) = (_mm512_cvtepu16_epi32(low), _mm512_cvtepu16_epi32(high));
            [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(low)), _mm512_castsi512_ps(_mm512_slli_epi32::<16>(high))]
        }
    }
}

impl Unfold for Avx2 {
    #[inline(always)]
    unsafe fn pair<const J: usize>(tile: *const u8, first: usize, base: __m256i) -> __m256i {
        unsafe {
            let tile = tile.add(4 * first);
            let (low, high) = (Self::load(tile.add(64 * (J / 2))), Self::load(tile.add(HIGHS)));
            let low = match J % 2 {
                0 => _mm256_and_si256(low, _mm256_set1_epi16(0xff)),
                _ => _mm256_srli_epi16::<8>(low),
            };
            // Turned by 4 and by 8 nothing that counts leaves its 32 bits; by 12 it does, but not by 4 after a whole byte.
            let high = match J {
                0 => high,
                1 => _mm256_slli_epi32::<4>(high),
                2 => _mm256_slli_epi32::<8>(high),
                _ => {
                    let by_a_byte = _mm_set_epi64x(0x0e0d_0c0f_0a09_080b, 0x0605_0407_0201_0003);
                    _mm256_slli_epi32::<4>(_mm256_shuffle_epi8(high, _mm256_broadcastsi128_si256(by_a_byte)))
                }
            };
            let number = _mm256_or_si256(_mm256_and_si256(high, _mm256_set1_epi32(HIGH as i32)), low);
            // Doubled it loses its sign: what is left is positive, or zero, and so is what it gives to the base.
            _mm256_add_epi16(number, _mm256_sign_epi16(base, _mm256_add_epi16(number, number)))
        }
    }
    #[inline(always)]
    unsafe fn splat_u16(x: u16) -> __m256i {
        unsafe { _mm256_set1_epi16(x as i16) }
    }
    #[inline(always)]
    unsafe fn even(pair: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pair)) }
    }
    #[inline(always)]
    unsafe fn odd(pair: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32(0xffff_0000u32 as i32))) }
    }
    #[inline(always)]
    unsafe fn wide(pair: __m256i) -> [__m256; 2] {
        unsafe {
            let (low, high) = (_mm256_castsi256_si128(pair), _mm256_extracti128_si256::<1>(pair));
            let (low, high) = (_mm256_cvtepu16_epi32(low), _mm256_cvtepu16_epi32(high));
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(low)), _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high))]
        }
    }
}

/// Multiplies the 16 rows of a group by `N` rows of float activations, `[N][columns]`: `out[N][16]`. The sums are those of the
/// columns with even numbers and those of the odd ones, as of floats that are packed as they are; exceptions count as zero.
///
/// # Safety
/// The instruction set, tiles of all columns at `tiles`, and `N` rows of activations.
type Kernel = unsafe fn(tiles: *const u8, base: u16, columns: usize, x: *const f32, out: *mut f32);

/// Adds the products of pair `J` of a tile's columns with those columns of each row of activations.
#[inline(always)]
unsafe fn multiply_pair<S: Unfold, const N: usize, const VECTORS: usize, const J: usize>(
    tile: *const u8,
    first: usize,
    base: S::I,
    x: &[*const f32; N],
    sums: &mut [[[S::F; 2]; VECTORS]; N],
) {
    // SAFETY: as `Kernel` demands.
    unsafe {
        for v in 0..VECTORS {
            let pair = S::pair::<J>(tile, (first + v) * S::LANES, base);
            let (even, odd) = (S::even(pair), S::odd(pair));
            for t in 0..N {
                sums[t][v][0] = S::fma(even, S::splat(*x[t].add(2 * J)), sums[t][v][0]);
                sums[t][v][1] = S::fma(odd, S::splat(*x[t].add(2 * J + 1)), sums[t][v][1]);
            }
        }
    }
}

/// All pairs of a tile, each used before the next is unfolded: few vectors are alive at a time.
#[inline(always)]
unsafe fn multiply_tile<S: Unfold, const N: usize, const VECTORS: usize>(
    tile: *const u8,
    first: usize,
    base: S::I,
    x: [*const f32; N],
    sums: &mut [[[S::F; 2]; VECTORS]; N],
) {
    // SAFETY: as `Kernel` demands.
    unsafe {
        multiply_pair::<S, N, VECTORS, 0>(tile, first, base, &x, sums);
        multiply_pair::<S, N, VECTORS, 1>(tile, first, base, &x, sums);
        multiply_pair::<S, N, VECTORS, 2>(tile, first, base, &x, sums);
        multiply_pair::<S, N, VECTORS, 3>(tile, first, base, &x, sums);
    }
}

/// `VECTORS` vectors of rows at a time.
#[inline(always)]
unsafe fn multiply<S: Unfold, const N: usize, const VECTORS: usize>(
    tiles: *const u8,
    base: u16,
    columns: usize,
    x: *const f32,
    out: *mut f32,
) {
    // SAFETY: as `Kernel` demands.
    unsafe {
        let base = S::splat_u16(base);
        for first in (0..ROWS / S::LANES).step_by(VECTORS) {
            let mut sums = [[[S::splat(0.0); 2]; VECTORS]; N];
            let (whole, fetch) = (columns / TILE_COLUMNS, Fetch::new());
            for i in 0..whole {
                let tile = tiles.add(i * TILE);
                if first == 0 {
                    fetch.ahead_of(tile, TILE);
                }
                let mut at = [x; N];
                for t in 0..N {
                    at[t] = x.add(t * columns + i * TILE_COLUMNS);
                }
                multiply_tile::<S, N, VECTORS>(tile, first, base, at, &mut sums);
            }
            let rest = columns % TILE_COLUMNS;
            if rest > 0 {
                let mut last = [[0.0; TILE_COLUMNS]; N];
                let mut at = [x; N];
                for t in 0..N {
                    let from = x.add(t * columns + whole * TILE_COLUMNS);
                    std::ptr::copy_nonoverlapping(from, last[t].as_mut_ptr(), rest);
                    at[t] = last[t].as_ptr();
                }
                multiply_tile::<S, N, VECTORS>(tiles.add(whole * TILE), first, base, at, &mut sums);
            }
            for t in 0..N {
                for v in 0..VECTORS {
                    let sum = S::add(sums[t][v][0], sums[t][v][1]);
                    S::store_f32(out.add(t * ROWS + (first + v) * S::LANES), sum);
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn avx512<const N: usize>(tiles: *const u8, base: u16, columns: usize, x: *const f32, out: *mut f32) {
    // SAFETY: as `Kernel` demands.
    unsafe { multiply::<Avx512Vnni, N, 1>(tiles, base, columns, x, out) }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const N: usize, const VECTORS: usize>(
    tiles: *const u8,
    base: u16,
    columns: usize,
    x: *const f32,
    out: *mut f32,
) {
    // SAFETY: as `Kernel` demands.
    unsafe { multiply::<Avx2, N, VECTORS>(tiles, base, columns, x, out) }
}

/// The kernel to run next where `left` rows of activations are left, and how many of them it takes.
fn kernel(isa: Isa, left: usize) -> Option<(usize, Kernel)> {
    match (isa.vectors(), left) {
        (Isa::Scalar, _) | (_, 0) => None,
        (Isa::Avx512Vnni, 8..) => Some((8, avx512::<8>)),
        (Isa::Avx512Vnni, 4..) => Some((4, avx512::<4>)),
        (Isa::Avx512Vnni, 2..) => Some((2, avx512::<2>)),
        (Isa::Avx512Vnni, _) => Some((1, avx512::<1>)),
        (_, 4..) => Some((4, avx2::<4, 1>)),
        (_, 2..) => Some((2, avx2::<2, 2>)),
        (_, _) => Some((1, avx2::<1, 2>)),
    }
}

/// Numbers of a group in F16: of their exponents the least is that of F16.
#[inline(always)]
unsafe fn to_f16(numbers: __m512i) -> __m512i {
    // SAFETY: the caller has AVX-512.
    unsafe {
        let not_zero = _mm512_test_epi16_mask(numbers, _mm512_set1_epi16(MAGNITUDE as i16));
        let magnitudes = _mm512_maskz_add_epi16(not_zero, _mm512_slli_epi16::<3>(numbers), _mm512_set1_epi16(1 << 10));
        // (numbers & sign) | magnitudes
        _mm512_ternarylogic_epi32::<0xea>(numbers, _mm512_set1_epi16(i16::MIN), magnitudes)
    }
}

impl Group<'_> {
    /// Multiplies by as many rows of activations as there is a kernel for, and says how many that were: `x` is
    /// `[rows][columns]`, the products `[rows][16]`. None if there are no rows, or no kernels on `isa`.
    #[inline]
    pub fn multiply(&self, isa: Isa, x: &[f32], out: &mut Products) -> Option<usize> {
        let (width, run) = kernel(isa, x.len().checked_div(self.columns)?)?;
        assert!(self.tiles.len() >= group_bytes(self.columns));
        // SAFETY: the kernel is one that this processor runs; the group has tiles of all columns, and there are as many rows
        // of activations as the kernel takes.
        unsafe { run(self.tiles.as_ptr(), self.base, self.columns, x.as_ptr(), out.as_mut_ptr()) };
        self.add_exceptions(x, &mut out[..width * ROWS]);
        Some(width)
    }

    /// Decodes the group to float32, in pairs of columns, `[columns / 2][16][2]`, for those who read it several times; its
    /// exceptions are zero there, too.
    ///
    /// # Safety
    /// `isa` is there and not scalar, and there is room for all pairs at `out`.
    pub unsafe fn decode(&self, isa: Isa, out: *mut f32) {
        #[inline(always)]
        unsafe fn decode<S: Unfold>(group: &Group, out: *mut f32) {
            let (pairs, fetch) = (group.columns.div_ceil(2), Fetch::new());
            for (i, tile) in group.tiles.chunks_exact(TILE).enumerate() {
                // SAFETY: a tile is read; as many pairs are written as there are.
                unsafe {
                    fetch.ahead_of(tile.as_ptr(), TILE);
                    let base = S::splat_u16(group.base);
                    for first in (0..ROWS).step_by(S::LANES) {
                        let unfolded = unfold::<S>(tile.as_ptr(), first, base);
                        for (j, &pair) in unfolded.iter().enumerate().take(pairs - i * PAIRS) {
                            let out = out.add((i * PAIRS + j) * PAIR + 2 * first);
                            let wide = S::wide(pair);
                            S::store_f32(out, wide[0]);
                            S::store_f32(out.add(S::LANES), wide[1]);
                        }
                    }
                }
            }
        }
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
        unsafe fn avx512(group: &Group, out: *mut f32) {
            // SAFETY: as the caller's.
            unsafe { decode::<Avx512Vnni>(group, out) }
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn avx2(group: &Group, out: *mut f32) {
            // SAFETY: as the caller's.
            unsafe { decode::<Avx2>(group, out) }
        }
        // SAFETY: as the caller's.
        unsafe {
            match isa.vectors() {
                Isa::Avx2 | Isa::AvxVnni => avx2(self, out),
                Isa::Scalar => {}
                _ => avx512(self, out),
            }
        }
    }

    /// Decodes the group to 16 bits, in pairs of columns, `[columns / 2][16][2]`, and gives what these numbers are multiples of; its
    /// exceptions are zero there.
    ///
    /// # Safety
    /// AVX-512, and room for the pairs at `out`.
    pub unsafe fn in_short(&self, short: ShortFloat, out: *mut u8) -> f32 {
        match short {
            ShortFloat::Bf16 => {
                // SAFETY: as demanded.
                unsafe { self.decode_short::<false>(out) };
                1.0
            }
            ShortFloat::F16 => {
                // SAFETY: as demanded.
                unsafe { self.decode_short::<true>(out) };
                // The base's exponent is F16's least. (Below 2⁻¹²⁶, where bf16 has no exponents, numbers as small become others.)
                f32::from_bits((u32::from(self.base >> 7) + 15 - 1).min(254) << 23)
            }
        }
    }

    /// The numbers in bf16, or without their base in `F16`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    unsafe fn decode_short<const F16: bool>(&self, out: *mut u8) {
        let (pairs, fetch) = (self.columns.div_ceil(2), Fetch::new());
        // SAFETY: tiles are read; as many pairs are written as there are.
        unsafe {
            let base = Avx512Vnni::splat_u16(if F16 { 0 } else { self.base });
            for (i, tile) in self.tiles.chunks_exact(TILE).enumerate() {
                fetch.ahead_of(tile.as_ptr(), TILE);
                let unfolded = unfold::<Avx512Vnni>(tile.as_ptr(), 0, base);
                for (j, &pair) in unfolded.iter().enumerate().take(pairs - i * PAIRS) {
                    let pair = if F16 { to_f16(pair) } else { pair };
                    Avx512Vnni::store(out.add(2 * PAIR * (i * PAIRS + j)), pair);
                }
            }
        }
    }

    /// Where the tile of a column lies, or would.
    pub fn place_of(&self, column: usize) -> *const u8 {
        self.tiles.as_ptr().wrapping_add(column / TILE_COLUMNS * TILE)
    }

    /// The same of 16 columns from `first`, which begins a tile of the group's; what is missing to 16 is zero.
    ///
    /// # Safety
    /// AVX-512, and room for eight pairs at `out`.
    #[inline(always)]
    pub unsafe fn in_bf16_16(&self, first: usize, out: *mut u8) {
        // SAFETY: only tiles that are there are read.
        unsafe {
            let base = Avx512Vnni::splat_u16(self.base);
            for i in 0..16 / TILE_COLUMNS {
                let at = (first / TILE_COLUMNS + i) * TILE;
                let unfolded = match at < self.tiles.len() {
                    true => unfold::<Avx512Vnni>(self.tiles.as_ptr().add(at), 0, base),
                    false => [Avx512Vnni::splat_u16(0); PAIRS],
                };
                for j in 0..PAIRS {
                    Avx512Vnni::store(out.add(2 * PAIR * (i * PAIRS + j)), unfolded[j]);
                }
            }
            if !self.exceptions.is_empty() {
                self.put_exceptions(first..first + 16, out);
            }
        }
    }

    /// Puts the exceptions of `columns` to their places in pairs of these columns in bf16.
    ///
    /// # Safety
    /// Room for all pairs at `out`.
    unsafe fn put_exceptions(&self, columns: Range<usize>, out: *mut u8) {
        let first = self.exceptions.partition_point(|exception| exception.column() < columns.start);
        for exception in self.exceptions[first..].iter().take_while(|exception| columns.contains(&exception.column())) {
            let column = exception.column() - columns.start;
            let place = column / 2 * PAIR + 2 * exception.row() + column % 2;
            // SAFETY: a place of one of these pairs.
            unsafe { out.cast::<u16>().add(place).write(half::bf16::from_f32(exception.value).to_bits()) };
        }
    }
}
