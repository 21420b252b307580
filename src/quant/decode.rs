//! Scalar decode of every format: bytes of whole blocks to `f32`, in the plainest form, as the oracle of every kernel.
//!
//! Each function wants what [`Decode`](super::Decode) says: whole blocks, and an `out` of exactly their elements; it
//! panics otherwise, so callers check with [`TensorType::row_bytes`](super::TensorType::row_bytes) first. Products are
//! taken in the order of the formulas in [`blocks`](super::blocks), which makes the results equal those of ggml's reference to the bit.

use super::blocks::*;
use bytemuck::Pod;

/// Calls `decode` for every block of `bytes` with its `N` elements of `out`.
fn each_block<B: Pod, const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn(&B, &mut [f32; N])) {
    let blocks: &[B] = bytemuck::cast_slice(bytes);
    assert_eq!(blocks.len() * N, out.len(), "{} blocks of {N} elements for an output of {}", blocks.len(), out.len());
    for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

/// The 32 integers of 16 bytes of nibbles: low halves first, then high halves.
fn nibbles(qs: &[u8; 16]) -> [u8; 32] {
    std::array::from_fn(|i| qs[i % 16] >> (4 * (i / 16)) & 15)
}

/// The 32 integers of Q5_0 and Q5_1: nibbles, with the fifth bits from `qh`.
fn five_bits(qs: &[u8; 16], qh: [u8; 4]) -> [u8; 32] {
    let (low, high) = (nibbles(qs), u32::from_le_bytes(qh));
    std::array::from_fn(|i| low[i] | ((high >> i & 1) as u8) << 4)
}

/// F32: four little-endian bytes per element.
pub fn f32(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &[u8; 4], [x]| *x = f32::from_le_bytes(*b));
}

/// F16: IEEE half precision, exact.
pub fn f16(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &F16Le, [x]| *x = b.to_f32());
}

/// BF16: the upper half of an `f32`.
pub fn bf16(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &[u8; 2], [x]| *x = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16));
}

/// See [`BlockQ4_0`].
pub fn q4_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ4_0, out: &mut [f32; QK]| {
        let d = b.d.to_f32();
        for (x, q) in out.iter_mut().zip(nibbles(&b.qs)) {
            *x = d * (i32::from(q) - 8) as f32;
        }
    });
}

/// See [`BlockQ4_1`].
pub fn q4_1(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ4_1, out: &mut [f32; QK]| {
        let (d, m) = (b.d.to_f32(), b.m.to_f32());
        for (x, q) in out.iter_mut().zip(nibbles(&b.qs)) {
            *x = d * f32::from(q) + m;
        }
    });
}

/// See [`BlockQ5_0`].
pub fn q5_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ5_0, out: &mut [f32; QK]| {
        let d = b.d.to_f32();
        for (x, q) in out.iter_mut().zip(five_bits(&b.qs, b.qh)) {
            *x = d * (i32::from(q) - 16) as f32;
        }
    });
}

/// See [`BlockQ5_1`].
pub fn q5_1(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ5_1, out: &mut [f32; QK]| {
        let (d, m) = (b.d.to_f32(), b.m.to_f32());
        for (x, q) in out.iter_mut().zip(five_bits(&b.qs, b.qh)) {
            *x = d * f32::from(q) + m;
        }
    });
}

/// See [`BlockQ8_0`].
pub fn q8_0(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ8_0, out: &mut [f32; QK]| {
        let d = b.d.to_f32();
        for (x, &q) in out.iter_mut().zip(&b.qs) {
            *x = d * f32::from(q);
        }
    });
}

/// The two bits that [`BlockQ2K::qs`] holds of element `i` (also the layout of Q3_K's low and Q6_K's upper bits).
fn two_bits(qs: &[u8; QK_K / 4], i: usize) -> u8 {
    qs[i / 128 * 32 + i % 32] >> (2 * (i % 128 / 32)) & 3
}

/// The four bits that [`BlockQ4K::qs`] holds of element `i`.
fn four_bits(qs: &[u8; QK_K / 2], i: usize) -> u8 {
    qs[i / 64 * 32 + i % 32] >> (4 * (i % 64 / 32)) & 15
}

/// See [`BlockQ2K`].
pub fn q2_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ2K, out: &mut [f32; QK_K]| {
        let (d, dmin) = (b.d.to_f32(), b.dmin.to_f32());
        for (i, x) in out.iter_mut().enumerate() {
            let group = b.scales[i / 16];
            let (scale, min) = (d * f32::from(group & 15), dmin * f32::from(group >> 4));
            *x = scale * f32::from(two_bits(&b.qs, i)) - min;
        }
    });
}

/// See [`BlockQ3K`].
pub fn q3_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ3K, out: &mut [f32; QK_K]| {
        let (d, scales) = (b.d.to_f32(), b.group_scales());
        for (i, x) in out.iter_mut().enumerate() {
            let high = b.hmask[i % 32] >> (i / 32) & 1;
            let q = (two_bits(&b.qs, i) | high << 2) as i8 - 4;
            *x = d * f32::from(scales[i / 16]) * f32::from(q);
        }
    });
}

/// See [`BlockQ4K`].
pub fn q4_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ4K, out: &mut [f32; QK_K]| {
        let (d, dmin) = (b.d.to_f32(), b.dmin.to_f32());
        let (scales, mins) = group_scales_mins(&b.scales);
        for (i, x) in out.iter_mut().enumerate() {
            let (scale, min) = (d * f32::from(scales[i / 32]), dmin * f32::from(mins[i / 32]));
            *x = scale * f32::from(four_bits(&b.qs, i)) - min;
        }
    });
}

/// See [`BlockQ5K`].
pub fn q5_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ5K, out: &mut [f32; QK_K]| {
        let (d, dmin) = (b.d.to_f32(), b.dmin.to_f32());
        let (scales, mins) = group_scales_mins(&b.scales);
        for (i, x) in out.iter_mut().enumerate() {
            let (scale, min) = (d * f32::from(scales[i / 32]), dmin * f32::from(mins[i / 32]));
            let q = four_bits(&b.qs, i) | (b.qh[i % 32] >> (i / 32) & 1) << 4;
            *x = scale * f32::from(q) - min;
        }
    });
}

/// See [`BlockQ6K`].
pub fn q6_k(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockQ6K, out: &mut [f32; QK_K]| {
        let d = b.d.to_f32();
        for (i, x) in out.iter_mut().enumerate() {
            let low = b.ql[i / 128 * 64 + i % 64] >> (4 * (i % 128 / 64)) & 15;
            let q = (low | two_bits(&b.qh, i) << 4) as i8 - 32;
            *x = d * f32::from(b.scales[i / 16]) * f32::from(q);
        }
    });
}

/// See [`BlockIq4Nl`].
pub fn iq4_nl(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockIq4Nl, out: &mut [f32; QK]| {
        let d = b.d.to_f32();
        for (x, q) in out.iter_mut().zip(nibbles(&b.qs)) {
            *x = d * f32::from(IQ4_VALUES[usize::from(q)]);
        }
    });
}

/// See [`BlockIq4Xs`].
pub fn iq4_xs(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockIq4Xs, out: &mut [f32; QK_K]| {
        let d = b.d.to_f32();
        for ((out, qs), scale) in out.as_chunks_mut::<32>().0.iter_mut().zip(b.qs.as_chunks().0).zip(b.group_scales()) {
            for (x, q) in out.iter_mut().zip(nibbles(qs)) {
                *x = d * f32::from(scale) * f32::from(IQ4_VALUES[usize::from(q)]);
            }
        }
    });
}

/// See [`BlockMxfp4`].
pub fn mxfp4(bytes: &[u8], out: &mut [f32]) {
    each_block(bytes, out, |b: &BlockMxfp4, out: &mut [f32; QK]| {
        let d = e8m0_half(b.e);
        for (x, q) in out.iter_mut().zip(nibbles(&b.qs)) {
            *x = d * f32::from(E2M1_DOUBLED[usize::from(q)]);
        }
    });
}
