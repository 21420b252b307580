//! Products of float weights with float32: packed ones, and plain rows.
//!
//! Packed floats lie in groups of 16 rows as pairs of columns, `[columns / 2][16][2]`, an odd last column filled up with a
//! zero. A lane's neighbour is then the same row's other column: one load of two activations serves two vectors of weights, and
//! what multiplies [16 bits](super::short_floats) takes pairs as they are.

#![allow(clippy::needless_range_loop)] // the index is that of a lane or a word, in several arrays at once

use std::arch::x86_64::*;
use std::ops::Range;

use super::features::Isa;
use super::pack::ROWS;
use super::simd::{Avx2, Avx512Vnni, Fetch, Simd};
use crate::quant::TensorType;

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

    /// Bytes of a packed group of rows of `columns`.
    pub fn group_bytes(self, columns: usize) -> usize {
        columns.next_multiple_of(2) * ROWS * self.bytes()
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

/// What a kernel does while it multiplies.
#[derive(Clone, Copy)]
pub(super) enum Meanwhile {
    /// Asks for what comes after the weights that it reads.
    FetchOn,
    /// The same, and keeps the weights in float32, in the same layout, for those who read them several times.
    Decode(*mut f32),
    /// Asks for cache lines to the second cache: of groups that were decoded, for a part of what comes after them.
    FetchNext(Lines),
}

/// Memory that is asked for evenly while all pairs of columns are multiplied, at one place for each.
#[derive(Clone, Copy)]
pub(super) struct Lines {
    at: *const u8,
    /// Bytes from one place to the next: less than a cache line, and it is asked for again; more, and those between are left to
    /// the processor, which sees where this goes.
    step: usize,
}

impl Lines {
    /// Of `bytes` bytes from `start`, which are asked for in `runs` parts, those of the runs `now`, while `pairs` pairs are multiplied.
    pub fn new(start: *const u8, bytes: usize, now: Range<usize>, runs: usize, pairs: usize) -> Lines {
        let [from, to] = [now.start, now.end].map(|run| bytes * run.min(runs) / runs.max(1));
        Lines { at: start.wrapping_add(from), step: (to - from).div_ceil(pairs.max(1)) }
    }

    /// Asks for the one of pair `c`.
    #[inline(always)]
    pub fn fetch(&self, c: usize) {
        // SAFETY: a prefetch may name any address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(c * self.step).cast()) };
    }
}

/// Multiplies the 16 rows of each of some groups of float weights, one behind the other, by `N` rows of float activations,
/// `[N][columns]`: `out[groups][N][16]`.
///
/// # Safety
/// The instruction set, packed groups of `columns` columns, `N` rows of activations, and room for what is decoded.
pub(super) type FloatKernel =
    unsafe fn(float: Float, groups: *const u8, columns: usize, x: *const f32, meanwhile: Meanwhile, out: *mut f32);

/// Adds the products of pair `c` of columns with vectors of weights from `first`, and decodes them; `x` gives a row's pair in all lanes. (A
/// function, not a closure: a closure would not have the instruction set.)
#[inline(always)]
unsafe fn float_pair<S: Simd, const N: usize, const VECTORS: usize, const GROUPS: usize, const DECODE: bool>(
    float: Float,
    groups: [*const u8; GROUPS],
    (c, first): (usize, usize),
    x: [*const f32; N],
    decoded: [*mut f32; GROUPS],
    sums: &mut [[[S::F; VECTORS]; GROUPS]; N],
) {
    // SAFETY: as `FloatKernel` demands.
    unsafe {
        let mut w = [[S::splat(0.0); VECTORS]; GROUPS];
        for g in 0..GROUPS {
            for v in 0..VECTORS {
                let at = 2 * c * ROWS + (first + v) * S::LANES;
                w[g][v] = load::<S>(float, groups[g], at);
                if DECODE {
                    S::store_f32(decoded[g].add(at), w[g][v]);
                }
            }
        }
        for t in 0..N {
            let x = S::splat_pair(x[t]);
            for g in 0..GROUPS {
                for v in 0..VECTORS {
                    sums[t][g][v] = S::fma(w[g][v], x, sums[t][g][v]);
                }
            }
        }
    }
}

/// `VECTORS` vectors of a pair of columns at a time: half as many rows of each group.
#[inline(always)]
unsafe fn float_groups<S: Simd, const N: usize, const VECTORS: usize, const GROUPS: usize, const DECODE: bool>(
    float: Float,
    groups: *const u8,
    columns: usize,
    x: *const f32,
    meanwhile: Meanwhile,
    out: *mut f32,
) {
    // SAFETY: as `FloatKernel` demands.
    unsafe {
        let (mut weights, mut decoded) = ([groups; GROUPS], [std::ptr::null_mut(); GROUPS]);
        for g in 0..GROUPS {
            weights[g] = groups.add(g * float.group_bytes(columns));
            if let Meanwhile::Decode(room) = meanwhile {
                decoded[g] = room.add(g * Float::F32.group_bytes(columns) / size_of::<f32>());
            }
        }
        let fetch = Fetch::new();
        for first in (0..2 * ROWS / S::LANES).step_by(VECTORS) {
            let mut sums = [[[S::splat(0.0); VECTORS]; GROUPS]; N];
            for c in 0..columns / 2 {
                if first == 0 {
                    match meanwhile {
                        Meanwhile::FetchNext(lines) => lines.fetch(c),
                        Meanwhile::FetchOn | Meanwhile::Decode(_) => {
                            for weights in weights {
                                let pair = 2 * ROWS * float.bytes();
                                fetch.ahead_of(weights.wrapping_add(c * pair), pair);
                            }
                        }
                    }
                }
                let mut at = [x; N];
                for t in 0..N {
                    at[t] = x.add(t * columns + 2 * c);
                }
                float_pair::<S, N, VECTORS, GROUPS, DECODE>(float, weights, (c, first), at, decoded, &mut sums);
            }
            if columns % 2 == 1 {
                let mut last = [[0.0; 2]; N];
                let mut at = [x; N];
                for t in 0..N {
                    last[t][0] = *x.add((t + 1) * columns - 1);
                    at[t] = last[t].as_ptr();
                }
                let place = (columns / 2, first);
                float_pair::<S, N, VECTORS, GROUPS, DECODE>(float, weights, place, at, decoded, &mut sums);
            }
            for t in 0..N {
                for g in 0..GROUPS {
                    for v in (0..VECTORS).step_by(2) {
                        let sums = S::add_pairs(sums[t][g][v], sums[t][g][v + 1]);
                        S::store_f32(out.add((g * N + t) * ROWS + (first + v) * S::LANES / 2), sums);
                    }
                }
            }
        }
    }
}

/// [`float_groups`] of each type, that decodes if it is asked to.
macro_rules! float_kernels {
    ($($name:ident<$($number:ident),*> on $simd:ident with $feature:literal, $vectors:expr, $groups:expr;)*) => {$(
        #[target_feature(enable = $feature)]
        unsafe fn $name<$(const $number: usize),*>(
            float: Float,
            groups: *const u8,
            columns: usize,
            x: *const f32,
            meanwhile: Meanwhile,
            out: *mut f32,
        ) {
            use Float::{Bf16, F16, F32};
            use Meanwhile::Decode;
            // SAFETY: as `FloatKernel` demands.
            unsafe {
                match (float, meanwhile) {
                    (F32, _) => {
                        float_groups::<$simd, N, { $vectors }, { $groups }, false>(F32, groups, columns, x, meanwhile, out)
                    }
                    (F16, Decode(_)) => {
                        float_groups::<$simd, N, { $vectors }, { $groups }, true>(F16, groups, columns, x, meanwhile, out)
                    }
                    (F16, _) => {
                        float_groups::<$simd, N, { $vectors }, { $groups }, false>(F16, groups, columns, x, meanwhile, out)
                    }
                    (Bf16, Decode(_)) => {
                        float_groups::<$simd, N, { $vectors }, { $groups }, true>(Bf16, groups, columns, x, meanwhile, out)
                    }
                    (Bf16, _) => {
                        float_groups::<$simd, N, { $vectors }, { $groups }, false>(Bf16, groups, columns, x, meanwhile, out)
                    }
                }
            }
        }
    )*};
}

float_kernels! {
    float_groups_avx512<N, GROUPS> on Avx512Vnni with "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c", 2, GROUPS;
    float_group_avx2<N, VECTORS> on Avx2 with "avx2,fma,f16c", VECTORS, 1;
}

/// Whether packed floats have kernels.
pub(super) fn has_float_kernels(isa: Isa) -> bool {
    isa != Isa::Scalar
}

/// Most rows of activations that a kernel of packed floats takes.
pub(super) const FLOAT_MOST: usize = 8;
/// Most groups that it takes.
pub(super) const FLOAT_GROUPS: usize = 2;

/// Groups that are multiplied at once by many rows of activations. Two need fewer loads for as many products: where a core's other
/// thread is another's, as machines that are rented have it, those are what counts.
pub(super) fn groups_at_once(isa: Isa) -> usize {
    if isa.vectors() == Isa::Avx512Vnni { FLOAT_GROUPS } else { 1 }
}

/// The kernel of packed floats to run next for so many groups where `left` rows of activations are left, and how many of them it
/// takes.
pub(super) fn float_kernel(isa: Isa, groups: usize, left: usize) -> Option<(usize, FloatKernel)> {
    match (isa.vectors(), groups, left) {
        (Isa::Scalar, ..) | (.., 0) => None,
        (Isa::Avx512Vnni, 1, 8..) => Some((8, float_groups_avx512::<8, 1>)),
        (Isa::Avx512Vnni, 1, 4..) => Some((4, float_groups_avx512::<4, 1>)),
        (Isa::Avx512Vnni, 1, 2..) => Some((2, float_groups_avx512::<2, 1>)),
        (Isa::Avx512Vnni, 1, _) => Some((1, float_groups_avx512::<1, 1>)),
        (Isa::Avx512Vnni, _, 4..=5 | 8) => Some((4, float_groups_avx512::<4, 2>)),
        (Isa::Avx512Vnni, _, 6..) => Some((6, float_groups_avx512::<6, 2>)),
        (Isa::Avx512Vnni, _, 2..) => Some((2, float_groups_avx512::<2, 2>)),
        (Isa::Avx512Vnni, ..) => Some((1, float_groups_avx512::<1, 2>)),
        // With few rows there are registers for all rows of a group at once: memory is then read in order.
        (.., 1) => Some((1, float_group_avx2::<1, 4>)),
        (.., 2..=3) => Some((2, float_group_avx2::<2, 4>)),
        (.., 4..=5 | 8..=9) => Some((4, float_group_avx2::<4, 2>)),
        _ => Some((6, float_group_avx2::<6, 2>)),
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
        Isa::Avx2 | Isa::AvxVnni => unsafe { floats_avx2::<N>(float, row.as_ptr(), columns, x.as_ptr()) },
        Isa::Scalar => std::array::from_fn(|t| {
            // SAFETY: the lengths were checked.
            let product = |i: usize| unsafe { scalar(float, row.as_ptr(), i) } * x[t * columns + i];
            (0..columns).map(product).fold(0.0, |sum, p| sum + p)
        }),
    }
}
