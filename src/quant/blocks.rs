//! The blocks of the quantised formats, byte for byte as GGUF stores them.
//!
//! Every field is made of bytes, so each struct has alignment 1 and `bytemuck::cast_slice` from any offset of a file
//! cannot fail for alignment, only for a length that is no whole number of blocks. Values are little-endian.
//!
//! In the formulas `x[i]` is the decoded weight, `q` its stored integer, `d` and `dmin` the scales in half precision,
//! `sc` and `m` the small integers that a super-block keeps for each of its groups.

use bytemuck::{Pod, Zeroable};
use half::f16;

/// Elements of a block of the simple formats (Q4_0 … Q8_0, IQ4_NL, MXFP4).
pub const QK: usize = 32;
/// Elements of a super-block of the K and IQ formats.
pub const QK_K: usize = 256;

/// A half-precision number as two little-endian bytes, which may lie at an odd address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Pod, Zeroable)]
#[repr(transparent)]
pub struct F16Le(pub [u8; 2]);

impl F16Le {
    /// The value; exact, also for subnormals and infinities.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }
}

impl From<f32> for F16Le {
    /// Rounds to nearest, ties to even; beyond 65504 it becomes infinite.
    fn from(value: f32) -> Self {
        F16Le(f16::from_f32(value).to_le_bytes())
    }
}

/// What integers 0..16 stand for in IQ4_NL and IQ4_XS: steps that widen away from zero, as weights are distributed.
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// What integers 0..16 stand for in MXFP4: twice the E2M1 numbers (0, ½, 1, 1½, 2, 3, 4, 6 and their negatives).
pub const E2M1_DOUBLED: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Half of the power of two that an E8M0 exponent stands for: 2^(e − 128). Halved, so that it meets
/// [`E2M1_DOUBLED`]. Exponents 0 and 1 give subnormals; 255 (E8M0's NaN) is read as 2^127, as ggml does.
#[inline]
pub fn e8m0_half(e: u8) -> f32 {
    f32::from_bits(match e {
        0 => 1 << 21,
        1 => 1 << 22,
        _ => (u32::from(e) - 1) << 23,
    })
}

/// Defines a block and asserts its size, which is the row stride of the file.
macro_rules! block {
    ($(#[$doc:meta])* $name:ident $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);
    };
}

block! {
    /// `x[i] = d · (q[i] − 8)`, 4.5 bits per weight.
    BlockQ4_0 18 {
        /// Scale.
        d: F16Le,
        /// Element `i` is the low nibble of byte `i`, element `i + 16` the high one.
        qs: [u8; QK / 2],
    }
}

block! {
    /// `x[i] = d · q[i] + m`, 5 bits per weight.
    BlockQ4_1 20 {
        /// Scale.
        d: F16Le,
        /// Minimum.
        m: F16Le,
        /// Nibbles as in [`BlockQ4_0`].
        qs: [u8; QK / 2],
    }
}

block! {
    /// `x[i] = d · (q[i] − 16)`, 5.5 bits per weight.
    BlockQ5_0 22 {
        /// Scale.
        d: F16Le,
        /// Bit `i` of this 32-bit number is the fifth bit of element `i`.
        qh: [u8; QK / 8],
        /// Low four bits, nibbles as in [`BlockQ4_0`].
        qs: [u8; QK / 2],
    }
}

block! {
    /// `x[i] = d · q[i] + m`, 6 bits per weight.
    BlockQ5_1 24 {
        /// Scale.
        d: F16Le,
        /// Minimum.
        m: F16Le,
        /// Fifth bits as in [`BlockQ5_0`].
        qh: [u8; QK / 8],
        /// Low four bits, nibbles as in [`BlockQ4_0`].
        qs: [u8; QK / 2],
    }
}

block! {
    /// `x[i] = d · q[i]`, 8.5 bits per weight.
    BlockQ8_0 34 {
        /// Scale.
        d: F16Le,
        /// Elements in order.
        qs: [i8; QK],
    }
}

block! {
    /// `x[i] = d · sc[g] · q[i] − dmin · m[g]`, group `g = i / 16`; 2.625 bits per weight.
    BlockQ2K 84 {
        /// Byte `g`: `sc[g]` in the low nibble, `m[g]` in the high one.
        scales: [u8; QK_K / 16],
        /// Element `128·h + 32·s + l` is the bits `2s, 2s+1` of byte `32·h + l`.
        qs: [u8; QK_K / 4],
        /// Scale of the groups' scales.
        d: F16Le,
        /// Scale of the groups' minima.
        dmin: F16Le,
    }
}

block! {
    /// `x[i] = d · (sc[g] − 32) · (q[i] − 4)`, group `g = i / 16`; 3.4375 bits per weight.
    BlockQ3K 110 {
        /// Bit `i / 32` of byte `i % 32` is the third bit of element `i`.
        hmask: [u8; QK_K / 8],
        /// Low two bits, laid out as in [`BlockQ2K`].
        qs: [u8; QK_K / 4],
        /// Sixteen 6-bit scales; see [`BlockQ3K::group_scales`].
        scales: [u8; 12],
        /// Scale of the groups' scales.
        d: F16Le,
    }
}

impl BlockQ3K {
    /// The groups' scales with their offset taken off: −32..32.
    ///
    /// Bytes 0..8 hold the low nibbles (groups 0..8 in their low halves, 8..16 in their high halves), bytes 8..12 the
    /// upper two bits: group `g` at bits `2·(g / 4)` of byte `8 + g % 4`.
    pub fn group_scales(&self) -> [i8; 16] {
        std::array::from_fn(|g| {
            let low = self.scales[g % 8] >> (4 * (g / 8)) & 15;
            let high = self.scales[8 + g % 4] >> (2 * (g / 4)) & 3;
            (low | high << 4) as i8 - 32
        })
    }
}

block! {
    /// `x[i] = d · sc[g] · q[i] − dmin · m[g]`, group `g = i / 32`; 4.5 bits per weight.
    BlockQ4K 144 {
        /// Scale of the groups' scales.
        d: F16Le,
        /// Scale of the groups' minima.
        dmin: F16Le,
        /// Eight 6-bit scales and eight 6-bit minima; see [`group_scales_mins`].
        scales: [u8; 12],
        /// Byte `32·h + l`: element `64·h + l` in the low nibble, `64·h + 32 + l` in the high one.
        qs: [u8; QK_K / 2],
    }
}

block! {
    /// `x[i] = d · sc[g] · q[i] − dmin · m[g]`, group `g = i / 32`; 5.5 bits per weight.
    BlockQ5K 176 {
        /// Scale of the groups' scales.
        d: F16Le,
        /// Scale of the groups' minima.
        dmin: F16Le,
        /// As in [`BlockQ4K`].
        scales: [u8; 12],
        /// Bit `i / 32` of byte `i % 32` is the fifth bit of element `i`.
        qh: [u8; QK_K / 8],
        /// Low four bits, laid out as in [`BlockQ4K`].
        qs: [u8; QK_K / 2],
    }
}

/// The eight groups' scales and minima (0..64) of [`BlockQ4K`] and [`BlockQ5K`].
///
/// Groups 0..4 are the low six bits of bytes 0..4 (scales) and 4..8 (minima). Groups 4..8 have their low nibbles in bytes
/// 8..12 (scale low, minimum high) and their upper two bits at the top of bytes 0..4 and 4..8.
pub fn group_scales_mins(packed: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for g in 0..4 {
        let (scale, min, low) = (packed[g], packed[4 + g], packed[8 + g]);
        scales[g] = scale & 63;
        mins[g] = min & 63;
        scales[4 + g] = low & 15 | (scale >> 6) << 4;
        mins[4 + g] = low >> 4 | (min >> 6) << 4;
    }
    (scales, mins)
}

block! {
    /// `x[i] = d · sc[g] · (q[i] − 32)`, group `g = i / 16`; 6.5625 bits per weight.
    BlockQ6K 210 {
        /// Low four bits. Byte `64·h + l`: element `128·h + l` in the low nibble, `128·h + 64 + l` in the high one.
        ql: [u8; QK_K / 2],
        /// Upper two bits. Element `128·h + 32·s + l` is the bits `2s, 2s+1` of byte `32·h + l`.
        qh: [u8; QK_K / 4],
        /// The groups' scales.
        scales: [i8; QK_K / 16],
        /// Scale of the groups' scales.
        d: F16Le,
    }
}

block! {
    /// `x[i] = d · IQ4_VALUES[q[i]]`, 4.5 bits per weight.
    BlockIq4Nl 18 {
        /// Scale.
        d: F16Le,
        /// Nibbles as in [`BlockQ4_0`].
        qs: [u8; QK / 2],
    }
}

block! {
    /// `x[i] = d · (sc[g] − 32) · IQ4_VALUES[q[i]]`, group `g = i / 32`; 4.25 bits per weight.
    BlockIq4Xs 136 {
        /// Scale of the groups' scales.
        d: F16Le,
        /// Upper two bits of the groups' scales: group `g` at bit `2·g` of this 16-bit number.
        scales_h: [u8; 2],
        /// Low four bits of the groups' scales: group `g` in nibble `g % 2` of byte `g / 2`.
        scales_l: [u8; QK_K / 64],
        /// Sixteen bytes per group, nibbles as in [`BlockQ4_0`].
        qs: [u8; QK_K / 2],
    }
}

impl BlockIq4Xs {
    /// The groups' scales with their offset taken off: −32..32.
    pub fn group_scales(&self) -> [i8; 8] {
        let high = u16::from_le_bytes(self.scales_h);
        std::array::from_fn(|g| {
            let low = self.scales_l[g / 2] >> (4 * (g % 2)) & 15;
            (low | ((high >> (2 * g) & 3) as u8) << 4) as i8 - 32
        })
    }
}

block! {
    /// `x[i] = 2^(e − 128) · E2M1_DOUBLED[q[i]]`, 4.25 bits per weight (OCP Microscaling, E8M0 scale).
    BlockMxfp4 17 {
        /// The shared exponent; see [`e8m0_half`].
        e: u8,
        /// Nibbles as in [`BlockQ4_0`].
        qs: [u8; QK / 2],
    }
}
