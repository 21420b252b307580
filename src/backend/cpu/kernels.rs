//! The kernels: products of packed rows with several rows of activations, in one text for instruction sets that multiply and add bytes
//! in one instruction, and the table that says which may run where. Those of AVX2 are in `avx2`, those of floats in `floats`.
//!
//! Names are `format_isa`. A kernel's result for a row of activations does not depend on how many rows it is given.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use super::avx2::Numbers;
use super::avx2::kernels as avx2;
use super::features::Isa;
use super::pack::ROWS;
use super::simd::{Avx512Vnni, Simd, fetch};
use super::tiles::{self, Scales, Tile};
use crate::backend::cpu::acts::Acts;
use crate::backend::cpu::multiples::Multiples;
use crate::backend::cpu::quantize::{BLOCK, Halves, Joined};
use crate::quant::TensorType;

/// Rows of activations that a kernel takes at once.
pub(super) const WIDTHS: [usize; 4] = [8, 4, 2, 1];

/// Quantised activations, as a kernel reads them.
#[derive(Clone, Copy)]
pub(super) struct Quantized {
    q: *const i8,
    halves: *const Halves,
    joined: *const Joined,
    multiples: *const Multiples,
    units: *const f32,
    wide: *const i16,
    wide_scales: *const f32,
    columns: usize,
    /// The weights are not in a cache yet: fetch what comes after them.
    pub ahead: bool,
}

impl Quantized {
    /// Rows from `first` on; `ahead` says that nobody has read the weights of this group just now.
    #[inline]
    pub fn rows(acts: &Acts, first: usize, ahead: bool) -> Quantized {
        let columns = acts.columns();
        let blocks = columns / BLOCK;
        Quantized {
            q: acts.q()[first * columns..].as_ptr(),
            // (Of these an instruction set has some or the others.)
            halves: acts.halves().get(first * blocks..).unwrap_or_default().as_ptr(),
            joined: acts.joined().get(first * blocks..).unwrap_or_default().as_ptr(),
            multiples: acts.multiples().get(first * blocks..).unwrap_or_default().as_ptr(),
            units: acts.units().get(first..).unwrap_or_default().as_ptr(),
            wide: acts.wide().get(first * columns..).unwrap_or_default().as_ptr(),
            wide_scales: acts.wide_scales().get(first..).unwrap_or_default().as_ptr(),
            columns,
            ahead,
        }
    }

    /// The same rows from block `block` on.
    pub fn skip_blocks(self, block: usize) -> Quantized {
        Quantized {
            q: self.q.wrapping_add(block * BLOCK),
            halves: self.halves.wrapping_add(block),
            joined: self.joined.wrapping_add(block),
            multiples: self.multiples.wrapping_add(block),
            wide: self.wide.wrapping_add(block * BLOCK),
            ..self
        }
    }

    /// The numbers of block `i` of row `t`.
    #[inline(always)]
    pub fn numbers(&self, t: usize, i: usize) -> *const i8 {
        self.q.wrapping_add(t * self.columns + i * BLOCK)
    }

    /// The scales of the block's halves.
    #[inline(always)]
    pub fn halves(&self, t: usize, i: usize) -> *const Halves {
        self.halves.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// The block's scale.
    #[inline(always)]
    pub fn joined(&self, t: usize, i: usize) -> *const Joined {
        self.joined.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// The block's scales for AVX2.
    #[inline(always)]
    pub fn multiples(&self, t: usize, i: usize) -> *const Multiples {
        self.multiples.wrapping_add(t * (self.columns / BLOCK) + i)
    }

    /// The numbers of 16 bits of block `i` of row `t`.
    #[inline(always)]
    pub fn wide(&self, t: usize, i: usize) -> *const i16 {
        self.wide.wrapping_add(t * self.columns + i * BLOCK)
    }

    /// By what sums of row `t` are to be multiplied with AVX2: those of numbers of 16 bits, or of bytes.
    #[inline(always)]
    pub fn unit(&self, t: usize, wide: bool) -> *const f32 {
        if wide { self.wide_scales.wrapping_add(t) } else { self.units.wrapping_add(t) }
    }
}

/// Multiplies the 16 rows of a group, `tiles` tiles long, by `N` rows of activations: `out[N][16]`.
///
/// # Safety
/// The instruction set, `tiles` packed tiles at `group`, and `N` rows of as many blocks in the activations.
pub(super) type PackedKernel = unsafe fn(group: *const u8, tiles: usize, acts: Quantized, out: *mut f32);

/// A row of the table.
pub(super) struct Kernel {
    #[cfg_attr(not(test), allow(dead_code))] // what a failing test says
    pub name: &'static str,
    pub tensor_type: TensorType,
    pub isa: Isa,
    /// It takes activations of 16 bits, not of 8.
    pub wide: bool,
    /// For each of [`WIDTHS`].
    pub run: [PackedKernel; 4],
}

#[inline(always)]
unsafe fn packed<S: Simd, T: Tile, const N: usize>(group: *const u8, tiles: usize, acts: Quantized, out: *mut f32) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        // Where there are registers for it, both halves of a tile at once: memory is then read in order.
        match N {
            1 | 2 if S::LANES < ROWS => rows::<S, T, N, 2>(group, 0, tiles, acts, out),
            _ => {
                let mut row = 0;
                while row < ROWS {
                    rows::<S, T, N, 1>(group, row, tiles, acts, out);
                    row += S::LANES;
                }
            }
        }
    }
}

/// `VECTORS` vectors of rows from `row`.
#[inline(always)]
unsafe fn rows<S: Simd, T: Tile, const N: usize, const VECTORS: usize>(
    group: *const u8,
    row: usize,
    tiles: usize,
    acts: Quantized,
    out: *mut f32,
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; VECTORS];
        let mut head = group;
        let mut tile = group.add(T::HEAD);
        let mut left = T::TILES;
        for block in 0..tiles {
            if acts.ahead && row == 0 {
                fetch(tile, T::BYTES);
            }
            for (v, sums) in sums.iter_mut().enumerate() {
                accumulate::<S, T, N>(head, tile, row + v * S::LANES, acts, block, sums);
            }
            tile = tile.add(T::BYTES);
            left -= 1;
            if left == 0 {
                head = tile;
                tile = tile.add(T::HEAD);
                left = T::TILES;
            }
        }
        for (v, sums) in sums.into_iter().enumerate() {
            for (t, sum) in sums.into_iter().enumerate() {
                S::store_f32(out.add(t * ROWS + row + v * S::LANES), sum);
            }
        }
    }
}

/// Adds the products of one tile.
#[inline(always)]
unsafe fn accumulate<S: Simd, T: Tile, const N: usize>(
    head: *const u8,
    tile: *const u8,
    row: usize,
    acts: Quantized,
    block: usize,
    sums: &mut [S::F; N],
) {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let mut w = T::numbers::<S>(tile, row);
        let scales = T::scales::<S>(head, tile, row);
        // What is the same for all rows of activations is done to the weights, if there are enough rows.
        let (prepared, shifted) = (T::JOINED && N > 2, S::LANES == ROWS);
        if prepared {
            w = tiles::joined_numbers::<S, T>(w, shifted);
        }
        for t in 0..N {
            let x = acts.numbers(t, block);
            if !T::JOINED {
                sums[t] = halves::<S, T>(&w, &scales, x, &*acts.halves(t, block), sums[t]);
                continue;
            }
            let scale = &*acts.joined(t, block);
            let start = S::splat_i32(scale.start_of(if prepared { T::JOINED_AS } else { T::OFFSET }));
            let first = match prepared && shifted {
                true => S::dot4::<5>(start, &w[..4], x),
                false => S::dot4_shifted(start, &w[..4], x),
            };
            // (Two chains: the second does not wait for the first.)
            let second = S::dot4::<5>(S::splat_i32(0), &w[4..], x.add(16));
            let both = S::to_float(S::add_i32(S::shift_right(first, scale.shift), second));
            sums[t] = S::fma(S::mul(both, S::splat(scale.d)), scales.d[0], sums[t]);
            if T::MINIMUM {
                sums[t] = S::fma(scales.m[0], S::splat(scale.s), sums[t]);
            }
        }
    }
}

/// Adds the products of a tile and a block, each half scaled apart.
#[inline(always)]
unsafe fn halves<S: Simd, T: Tile>(w: &[S::I; 8], scales: &Scales<S>, x: *const i8, block: &Halves, sum: S::F) -> S::F {
    // SAFETY: as `PackedKernel` demands.
    unsafe {
        let signed = T::BITS == 8;
        let offset = if signed { S::SIGNED_OFFSET } else { T::OFFSET };
        let (a, b) = (S::splat_i32(-offset * block.sum(0)), S::splat_i32(-offset * block.sum(1)));
        let (a, b) = if signed {
            (S::dot4_signed(a, &w[..4], x), S::dot4_signed(b, &w[4..], x.add(16)))
        } else {
            (dot4::<S, T>(a, &w[..4], x), dot4::<S, T>(b, &w[4..], x.add(16)))
        };
        let a = S::mul(S::to_float(a), S::splat(block.d[0]));
        if !T::SPLIT {
            let both = S::fma(S::to_float(b), S::splat(block.d[1]), a);
            return S::fma(both, scales.d[0], sum);
        }
        let b = S::mul(S::to_float(b), S::splat(block.d[1]));
        let mut sum = S::fma(b, scales.d[1], S::fma(a, scales.d[0], sum));
        if T::MINIMUM {
            sum = S::fma(scales.m[0], S::splat(block.scaled_sum(0)), sum);
            sum = S::fma(scales.m[1], S::splat(block.scaled_sum(1)), sum);
        }
        sum
    }
}

#[inline(always)]
unsafe fn dot4<S: Simd, T: Tile>(sum: S::I, w: &[S::I], x: *const i8) -> S::I {
    // SAFETY: as the caller's.
    unsafe {
        match T::BITS {
            6 => S::dot4::<6>(sum, w, x),
            _ => S::dot4::<5>(sum, w, x),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn packed_avx512<T: Tile, const N: usize>(group: *const u8, tiles: usize, acts: Quantized, out: *mut f32) {
    // SAFETY: as `PackedKernel` demands.
    unsafe { packed::<Avx512Vnni, T, N>(group, tiles, acts, out) }
}

macro_rules! kernels {
    ($($format:ident)*) => {
        /// All kernels of packed formats.
        pub(super) static KERNELS: &[Kernel] = &[$(
            Kernel {
                name: concat!(stringify!($format), "_avx512vnni"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx512Vnni,
                wide: false,
                run: [
                    packed_avx512::<tiles::$format, 8>, packed_avx512::<tiles::$format, 4>,
                    packed_avx512::<tiles::$format, 2>, packed_avx512::<tiles::$format, 1>,
                ],
            },
            Kernel {
                name: concat!(stringify!($format), "_avx2"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx2,
                wide: <tiles::$format as Numbers>::WIDE,
                run: [
                    avx2::packed::<tiles::$format, 8>, avx2::packed::<tiles::$format, 4>,
                    avx2::packed::<tiles::$format, 2>, avx2::packed::<tiles::$format, 1>,
                ],
            },
        )*];

        #[cfg(test)]
        #[test]
        fn tiles_agree_with_their_layouts() {
            $(assert!(tiles::agrees::<tiles::$format>(), stringify!($format));)*
        }
    };
}

kernels! { Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4 }

/// The kernel for a packed format on `isa`.
pub(super) fn kernel(tensor_type: TensorType, isa: Isa) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.tensor_type == tensor_type && kernel.isa == isa.vectors())
}
