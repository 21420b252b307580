//! The kernels: products of packed or float rows with several rows of activations, in one text for both instruction
//! sets, and the table that says which may run where.
//!
//! Names are `format_isa`. A kernel's result for a row of activations does not depend on how many rows it is given.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use super::features::Isa;
use super::pack::ROWS;
use super::simd::{Avx2, Avx512Vnni, Simd};
use super::tiles::{self, Tile};
use crate::backend::cpu::acts::{Acts, BLOCK, BlockScale};
use crate::quant::TensorType;

/// Rows of activations that a kernel takes at once.
pub(super) const WIDTHS: [usize; 4] = [8, 4, 2, 1];

/// Quantised activations, as a kernel reads them.
#[derive(Clone, Copy)]
pub(super) struct Quantized {
    q: *const i8,
    scales: *const BlockScale,
    columns: usize,
    /// The weights are not in a cache yet: fetch what comes after them.
    ahead: bool,
}

/// How far ahead of their use weights are fetched, in bytes: further than the processor looks by itself, and past the end
/// of a group, since the next one follows.
const AHEAD: usize = 2048;

impl Quantized {
    /// Rows from `first` on; `ahead` says that nobody has read the weights of this group just now.
    pub fn rows(acts: &Acts, first: usize, ahead: bool) -> Quantized {
        let columns = acts.columns();
        Quantized {
            q: acts.q()[first * columns..].as_ptr(),
            scales: acts.scales()[first * (columns / BLOCK)..].as_ptr(),
            columns,
            ahead,
        }
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
    /// For each of [`WIDTHS`].
    pub run: [PackedKernel; 4],
}

/// Asks for the `bytes` of memory that lie [`AHEAD`] of `at`.
#[inline(always)]
unsafe fn fetch(at: *const u8, bytes: usize) {
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD + 64 * line).cast()) };
    }
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
        let w = T::numbers::<S>(tile, row);
        let scales = T::scales::<S>(head, tile, row);
        let signed = T::BITS == 8;
        let offset = if signed { S::SIGNED_OFFSET } else { T::OFFSET };
        for t in 0..N {
            let x = acts.q.add(t * acts.columns + block * BLOCK);
            let scale = &*acts.scales.add(t * (acts.columns / BLOCK) + block);
            let (a, b) = (S::splat_i32(-offset * scale.sum[0]), S::splat_i32(-offset * scale.sum[1]));
            let (a, b) = if signed {
                (S::dot4_signed(a, &w[..4], x), S::dot4_signed(b, &w[4..], x.add(16)))
            } else {
                (dot4::<S, T>(a, &w[..4], x), dot4::<S, T>(b, &w[4..], x.add(16)))
            };
            let a = S::mul(S::to_float(a), S::splat(scale.d[0]));
            if T::SPLIT {
                let b = S::mul(S::to_float(b), S::splat(scale.d[1]));
                sums[t] = S::fma(b, scales.d[1], S::fma(a, scales.d[0], sums[t]));
                if T::MINIMUM {
                    sums[t] = S::fma(scales.m[0], S::splat(scale.s[0]), sums[t]);
                    sums[t] = S::fma(scales.m[1], S::splat(scale.s[1]), sums[t]);
                }
            } else {
                let sum = S::fma(S::to_float(b), S::splat(scale.d[1]), a);
                sums[t] = S::fma(sum, scales.d[0], sums[t]);
                if T::MINIMUM {
                    sums[t] = S::fma(scales.m[0], S::splat(scale.s[0] + scale.s[1]), sums[t]);
                }
            }
        }
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn packed_avx2<T: Tile, const N: usize>(group: *const u8, tiles: usize, acts: Quantized, out: *mut f32) {
    // SAFETY: as `PackedKernel` demands.
    unsafe { packed::<Avx2, T, N>(group, tiles, acts, out) }
}

macro_rules! kernels {
    ($($format:ident)*) => {
        /// All kernels of packed formats.
        pub(super) static KERNELS: &[Kernel] = &[$(
            Kernel {
                name: concat!(stringify!($format), "_avx512vnni"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx512Vnni,
                run: [
                    packed_avx512::<tiles::$format, 8>, packed_avx512::<tiles::$format, 4>,
                    packed_avx512::<tiles::$format, 2>, packed_avx512::<tiles::$format, 1>,
                ],
            },
            Kernel {
                name: concat!(stringify!($format), "_avx2"),
                tensor_type: TensorType::$format,
                isa: Isa::Avx2,
                run: [
                    packed_avx2::<tiles::$format, 8>, packed_avx2::<tiles::$format, 4>,
                    packed_avx2::<tiles::$format, 2>, packed_avx2::<tiles::$format, 1>,
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

/// The element type of a float row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Float {
    F32,
    F16,
    Bf16,
}

impl Float {
    pub fn of(tensor_type: TensorType) -> Option<Float> {
        match tensor_type {
            TensorType::F32 => Some(Float::F32),
            TensorType::F16 => Some(Float::F16),
            TensorType::BF16 => Some(Float::Bf16),
            _ => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Float::F32 => 4,
            Float::F16 | Float::Bf16 => 2,
        }
    }
}

/// Rows of activations that a float kernel takes at once.
pub(super) const FLOAT_WIDTHS: [usize; 2] = [4, 1];

#[inline(always)]
unsafe fn load<S: Simd>(float: Float, row: *const u8, i: usize) -> S::F {
    unsafe {
        match float {
            Float::F32 => S::load_f32(row.cast::<f32>().add(i)),
            Float::F16 => S::load_f16(row.add(2 * i)),
            Float::Bf16 => S::load_bf16(row.add(2 * i)),
        }
    }
}

/// Products of one row of weights with `N` rows of activations, `columns` apart.
#[inline(always)]
unsafe fn floats<S: Simd, const N: usize>(float: Float, row: *const u8, columns: usize, x: *const f32) -> [f32; N] {
    unsafe {
        let mut sums = [[S::splat(0.0); 2]; N];
        let whole = columns - columns % (2 * S::LANES);
        let mut i = 0;
        while i < whole {
            for half in 0..2 {
                let at = i + half * S::LANES;
                let w = load::<S>(float, row, at);
                for t in 0..N {
                    sums[t][half] = S::fma(w, S::load_f32(x.add(t * columns + at)), sums[t][half]);
                }
            }
            i += 2 * S::LANES;
        }
        let mut out = [0.0; N];
        for t in 0..N {
            out[t] = S::sum(S::add(sums[t][0], sums[t][1]));
            for i in whole..columns {
                out[t] += scalar(float, row, i) * *x.add(t * columns + i);
            }
        }
        out
    }
}

/// As [`PackedKernel`], of a group of float weights: `[columns][16]`, by float activations `[N][columns]`.
pub(super) type FloatKernel = unsafe fn(float: Float, group: *const u8, columns: usize, x: *const f32, out: *mut f32);

/// Adds the products of column `c`. (A function, not a closure: a closure would not have the instruction set.)
#[inline(always)]
unsafe fn float_column<S: Simd, const N: usize, const VECTORS: usize>(
    float: Float,
    group: *const u8,
    columns: usize,
    c: usize,
    x: *const f32,
    sums: &mut [[S::F; VECTORS]; N],
) {
    unsafe {
        let mut w = [S::splat(0.0); VECTORS];
        for v in 0..VECTORS {
            w[v] = load::<S>(float, group, c * ROWS + v * S::LANES);
        }
        for t in 0..N {
            let x = S::splat(*x.add(t * columns + c));
            for v in 0..VECTORS {
                sums[t][v] = S::fma(w[v], x, sums[t][v]);
            }
        }
    }
}

/// Every `PHASES`-th column has a sum of its own: a sum is ready for its next term only after the latency of an addition.
#[inline(always)]
unsafe fn float_group<S: Simd, const N: usize, const VECTORS: usize, const PHASES: usize>(
    float: Float,
    group: *const u8,
    columns: usize,
    x: *const f32,
    out: *mut f32,
) {
    unsafe {
        let mut sums = [[[S::splat(0.0); VECTORS]; N]; PHASES];
        let whole = columns - columns % PHASES;
        let mut c = 0;
        while c < whole {
            fetch(group.wrapping_add(c * ROWS * float.bytes()), PHASES * ROWS * float.bytes());
            for phase in 0..PHASES {
                float_column::<S, N, VECTORS>(float, group, columns, c + phase, x, &mut sums[phase]);
            }
            c += PHASES;
        }
        for c in whole..columns {
            float_column::<S, N, VECTORS>(float, group, columns, c, x, &mut sums[0]);
        }
        for t in 0..N {
            for v in 0..VECTORS {
                let mut sum = sums[0][t][v];
                for phase in 1..PHASES {
                    sum = S::add(sum, sums[phase][t][v]);
                }
                S::store_f32(out.add(t * ROWS + v * S::LANES), sum);
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn float_group_avx512<const N: usize>(
    float: Float,
    group: *const u8,
    columns: usize,
    x: *const f32,
    out: *mut f32,
) {
    unsafe {
        match float {
            Float::F32 => float_group::<Avx512Vnni, N, 1, 2>(Float::F32, group, columns, x, out),
            Float::F16 => float_group::<Avx512Vnni, N, 1, 2>(Float::F16, group, columns, x, out),
            Float::Bf16 => float_group::<Avx512Vnni, N, 1, 2>(Float::Bf16, group, columns, x, out),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn float_group_avx2<const N: usize>(
    float: Float,
    group: *const u8,
    columns: usize,
    x: *const f32,
    out: *mut f32,
) {
    unsafe {
        match float {
            Float::F32 => float_group::<Avx2, N, 2, 1>(Float::F32, group, columns, x, out),
            Float::F16 => float_group::<Avx2, N, 2, 1>(Float::F16, group, columns, x, out),
            Float::Bf16 => float_group::<Avx2, N, 2, 1>(Float::Bf16, group, columns, x, out),
        }
    }
}

/// The kernels of packed floats, and the rows of activations that each takes.
pub(super) fn float_kernels(isa: Isa) -> &'static [(usize, FloatKernel)] {
    match isa {
        Isa::Avx512Vnni | Isa::Amx => &[
            (8, float_group_avx512::<8>),
            (4, float_group_avx512::<4>),
            (2, float_group_avx512::<2>),
            (1, float_group_avx512::<1>),
        ],
        Isa::Avx2 => &[(4, float_group_avx2::<4>), (2, float_group_avx2::<2>), (1, float_group_avx2::<1>)],
        Isa::Scalar => &[],
    }
}

/// One element of a float row.
#[inline(always)]
unsafe fn scalar(float: Float, row: *const u8, i: usize) -> f32 {
    unsafe {
        let half = || row.cast::<[u8; 2]>().add(i).read();
        match float {
            Float::F32 => row.cast::<f32>().add(i).read_unaligned(),
            Float::F16 => half::f16::from_le_bytes(half()).to_f32(),
            Float::Bf16 => half::bf16::from_le_bytes(half()).to_f32(),
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn floats_avx512<const N: usize>(float: Float, row: *const u8, columns: usize, x: *const f32) -> [f32; N] {
    unsafe {
        match float {
            Float::F32 => floats::<Avx512Vnni, N>(Float::F32, row, columns, x),
            Float::F16 => floats::<Avx512Vnni, N>(Float::F16, row, columns, x),
            Float::Bf16 => floats::<Avx512Vnni, N>(Float::Bf16, row, columns, x),
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn floats_avx2<const N: usize>(float: Float, row: *const u8, columns: usize, x: *const f32) -> [f32; N] {
    unsafe {
        match float {
            Float::F32 => floats::<Avx2, N>(Float::F32, row, columns, x),
            Float::F16 => floats::<Avx2, N>(Float::F16, row, columns, x),
            Float::Bf16 => floats::<Avx2, N>(Float::Bf16, row, columns, x),
        }
    }
}

/// Products of one row of weights with `N` rows of activations: `x` is `[N][columns]`.
pub(super) fn float_products<const N: usize>(
    isa: Isa,
    float: Float,
    row: &[u8],
    columns: usize,
    x: &[f32],
) -> [f32; N] {
    assert!(row.len() >= columns * float.bytes() && x.len() >= N * columns);
    match isa {
        // SAFETY: the instruction set was detected; the lengths were checked.
        Isa::Avx512Vnni | Isa::Amx => unsafe { floats_avx512::<N>(float, row.as_ptr(), columns, x.as_ptr()) },
        // SAFETY: as above.
        Isa::Avx2 => unsafe { floats_avx2::<N>(float, row.as_ptr(), columns, x.as_ptr()) },
        Isa::Scalar => std::array::from_fn(|t| {
            // SAFETY: the lengths were checked.
            let product = |i: usize| unsafe { scalar(float, row.as_ptr(), i) } * x[t * columns + i];
            (0..columns).map(product).fold(0.0, |sum, p| sum + p)
        }),
    }
}
