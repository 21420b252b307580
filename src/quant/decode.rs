//! Scalar decode of every format: plain, and the oracle of everything faster.
//!
//! All functions take whole blocks and fill as many elements as those hold; bytes that make no whole block are left.

use bytemuck::{AnyBitPattern, cast_slice};
use half::{bf16 as Bf16, f16 as F16};

use super::QK_K;
use super::blocks::*;

/// The values of IQ4_NL and IQ4_XS.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of E2M1 (OCP Microscaling Formats, 2023).
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn half(bytes: F16Bytes) -> f32 {
    F16::from_le_bytes(bytes).to_f32()
}

/// Each block with the `N` elements that it decodes to.
fn each<'a, B: AnyBitPattern + bytemuck::NoUninit, const N: usize>(
    bytes: &'a [u8],
    out: &'a mut [f32],
) -> impl Iterator<Item = (&'a B, &'a mut [f32; N])> {
    let whole = bytes.len() - bytes.len() % size_of::<B>();
    cast_slice::<u8, B>(&bytes[..whole]).iter().zip(out.as_chunks_mut::<N>().0)
}

/// IEEE single precision.
pub fn f32(bytes: &[u8], out: &mut [f32]) {
    for (b, x) in bytes.as_chunks().0.iter().zip(out) {
        *x = f32::from_le_bytes(*b);
    }
}

/// IEEE half precision.
pub fn f16(bytes: &[u8], out: &mut [f32]) {
    for (b, x) in bytes.as_chunks().0.iter().zip(out) {
        *x = half(*b);
    }
}

/// The upper half of single precision.
pub fn bf16(bytes: &[u8], out: &mut [f32]) {
    for (b, x) in bytes.as_chunks().0.iter().zip(out) {
        *x = Bf16::from_le_bytes(*b).to_f32();
    }
}

/// [`BlockQ4_0`].
pub fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ4_0, 32>(bytes, out) {
        let d = half(b.d);
        for (i, q) in b.qs.iter().enumerate() {
            out[i] = d * (f32::from(q & 15) - 8.0);
            out[i + 16] = d * (f32::from(q >> 4) - 8.0);
        }
    }
}

/// [`BlockQ4_1`].
pub fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ4_1, 32>(bytes, out) {
        let (d, m) = (half(b.d), half(b.m));
        for (i, q) in b.qs.iter().enumerate() {
            out[i] = d * f32::from(q & 15) + m;
            out[i + 16] = d * f32::from(q >> 4) + m;
        }
    }
}

/// The 5-bit numbers of weights `i` and `i + 16`.
fn five_bits(qs: &[u8; 16], qh: [u8; 4], i: usize) -> (u8, u8) {
    let qh = u32::from_le_bytes(qh);
    let bit = |n: usize| ((qh >> n & 1) << 4) as u8;
    (qs[i] & 15 | bit(i), qs[i] >> 4 | bit(i + 16))
}

/// [`BlockQ5_0`].
pub fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ5_0, 32>(bytes, out) {
        let d = half(b.d);
        for i in 0..16 {
            let (low, high) = five_bits(&b.qs, b.qh, i);
            out[i] = d * (f32::from(low) - 16.0);
            out[i + 16] = d * (f32::from(high) - 16.0);
        }
    }
}

/// [`BlockQ5_1`].
pub fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ5_1, 32>(bytes, out) {
        let (d, m) = (half(b.d), half(b.m));
        for i in 0..16 {
            let (low, high) = five_bits(&b.qs, b.qh, i);
            out[i] = d * f32::from(low) + m;
            out[i + 16] = d * f32::from(high) + m;
        }
    }
}

/// [`BlockQ8_0`].
pub fn q8_0(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ8_0, 32>(bytes, out) {
        let d = half(b.d);
        for (x, &q) in out.iter_mut().zip(&b.qs) {
            *x = d * f32::from(q as i8);
        }
    }
}

/// [`BlockQ2K`].
pub fn q2_k(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ2K, QK_K>(bytes, out) {
        let (d, dmin) = (half(b.d), half(b.dmin));
        for (i, x) in out.iter_mut().enumerate() {
            // Each half of the block has 32 bytes; within it, 32 consecutive weights share a pair of bits.
            let (part, pair, byte) = (i / 128, i % 128 / 32, i % 32);
            let q = b.qs[part * 32 + byte] >> (2 * pair) & 3;
            let s = b.scales[i / 16];
            *x = d * f32::from(s & 15) * f32::from(q) - dmin * f32::from(s >> 4);
        }
    }
}

/// The sixteen 6-bit scales of [`BlockQ3K`], less 32.
pub fn q3_k_scales(packed: &[u8; 12]) -> [i8; 16] {
    std::array::from_fn(|i| {
        let low = if i < 8 { packed[i] & 15 } else { packed[i - 8] >> 4 };
        let high = packed[8 + i % 4] >> (2 * (i / 4)) & 3;
        (low | high << 4) as i8 - 32
    })
}

/// [`BlockQ3K`].
pub fn q3_k(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ3K, QK_K>(bytes, out) {
        let d = half(b.d);
        let scales = q3_k_scales(&b.scales);
        for (i, x) in out.iter_mut().enumerate() {
            let (part, pair, byte) = (i / 128, i % 128 / 32, i % 32);
            let low = b.qs[part * 32 + byte] >> (2 * pair) & 3;
            let high = b.hmask[byte] >> (part * 4 + pair) & 1;
            let q = (low | high << 2) as i8 - 4;
            *x = d * f32::from(scales[i / 16]) * f32::from(q);
        }
    }
}

/// The eight (scale, minimum) pairs of 6 bits of [`BlockQ4K`] and [`BlockQ5K`].
pub fn q4_k_scales(packed: &[u8; 12]) -> [(u8, u8); 8] {
    std::array::from_fn(|g| match g {
        0..4 => (packed[g] & 63, packed[g + 4] & 63),
        _ => (
            packed[g + 4] & 15 | packed[g - 4] >> 6 << 4,
            packed[g + 4] >> 4 | packed[g] >> 6 << 4,
        ),
    })
}

/// [`BlockQ4K`].
pub fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ4K, QK_K>(bytes, out) {
        let (d, dmin) = (half(b.d), half(b.dmin));
        for (g, (scale, min)) in q4_k_scales(&b.scales).into_iter().enumerate() {
            let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
            for i in 0..32 {
                let q = b.qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
                out[g * 32 + i] = d * f32::from(q) - m;
            }
        }
    }
}

/// [`BlockQ5K`].
pub fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ5K, QK_K>(bytes, out) {
        let (d, dmin) = (half(b.d), half(b.dmin));
        for (g, (scale, min)) in q4_k_scales(&b.scales).into_iter().enumerate() {
            let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
            for i in 0..32 {
                let q = b.qs[g / 2 * 32 + i] >> (g % 2 * 4) & 15 | (b.qh[i] >> g & 1) << 4;
                out[g * 32 + i] = d * f32::from(q) - m;
            }
        }
    }
}

/// [`BlockQ6K`].
pub fn q6_k(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockQ6K, QK_K>(bytes, out) {
        let d = half(b.d);
        for (i, x) in out.iter_mut().enumerate() {
            // Within each half of the block: four runs of 32 weights.
            let (part, run, byte) = (i / 128, i % 128 / 32, i % 32);
            let low = b.ql[part * 64 + run % 2 * 32 + byte] >> (run / 2 * 4) & 15;
            let high = b.qh[part * 32 + byte] >> (2 * run) & 3;
            let q = (low | high << 4) as i8 - 32;
            *x = d * f32::from(b.scales[i / 16] as i8) * f32::from(q);
        }
    }
}

/// [`BlockIq4Nl`].
pub fn iq4_nl(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockIq4Nl, 32>(bytes, out) {
        let d = half(b.d);
        for (i, q) in b.qs.iter().enumerate() {
            out[i] = d * f32::from(IQ4_VALUES[usize::from(q & 15)]);
            out[i + 16] = d * f32::from(IQ4_VALUES[usize::from(q >> 4)]);
        }
    }
}

/// The eight 6-bit scales of [`BlockIq4Xs`], less 32.
pub fn iq4_xs_scales(block: &BlockIq4Xs) -> [i8; 8] {
    let high = u16::from_le_bytes(block.scales_h);
    std::array::from_fn(|g| {
        let low = block.scales_l[g / 2] >> (g % 2 * 4) & 15;
        (low | ((high >> (2 * g) & 3) << 4) as u8) as i8 - 32
    })
}

/// [`BlockIq4Xs`].
pub fn iq4_xs(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockIq4Xs, QK_K>(bytes, out) {
        let d = half(b.d);
        for (g, scale) in iq4_xs_scales(b).into_iter().enumerate() {
            let d = d * f32::from(scale);
            for i in 0..16 {
                let q = b.qs[g * 16 + i];
                out[g * 32 + i] = d * f32::from(IQ4_VALUES[usize::from(q & 15)]);
                out[g * 32 + i + 16] = d * f32::from(IQ4_VALUES[usize::from(q >> 4)]);
            }
        }
    }
}

/// `2^(e − 127) / 2`: half of the E8M0 scale, since [`E2M1_DOUBLED`] is doubled.
pub fn e8m0_half(e: u8) -> f32 {
    match e {
        // Below the normal range of single precision.
        0 => f32::from_bits(0x0020_0000),
        1 => f32::from_bits(0x0040_0000),
        e => f32::from_bits(u32::from(e - 1) << 23),
    }
}

/// [`BlockMxfp4`].
pub fn mxfp4(bytes: &[u8], out: &mut [f32]) {
    for (b, out) in each::<BlockMxfp4, 32>(bytes, out) {
        let d = e8m0_half(b.e);
        for (i, q) in b.qs.iter().enumerate() {
            out[i] = d * f32::from(E2M1_DOUBLED[usize::from(q & 15)]);
            out[i + 16] = d * f32::from(E2M1_DOUBLED[usize::from(q >> 4)]);
        }
    }
}
