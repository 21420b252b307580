//! The blocks of the quantised formats, as they lie in a file: bytes only, so that any address will do, little-endian.
//!
//! `w` is a weight, `q` its stored number, `d` a block's scale and `m` its minimum. ggml's `ggml-common.h` defines them.

use bytemuck::{Pod, Zeroable};

macro_rules! block {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* } $bytes:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);
    };
}

/// A half-precision number.
pub type F16Bytes = [u8; 2];

block! {
    /// `w = d · (q − 8)`: 32 weights of 4 bits, 4.5 bits a weight.
    BlockQ4_0 {
        /// Scale.
        d: F16Bytes,
        /// Weights 0..16 in the low halves, 16..32 in the high ones.
        qs: [u8; 16],
    } 18
}
block! {
    /// `w = d · q + m`: 32 weights of 4 bits, 5 bits a weight.
    BlockQ4_1 {
        /// Scale.
        d: F16Bytes,
        /// Minimum.
        m: F16Bytes,
        /// As in [`BlockQ4_0`].
        qs: [u8; 16],
    } 20
}
block! {
    /// `w = d · (q − 16)`: 32 weights of 5 bits, 5.5 bits a weight.
    BlockQ5_0 {
        /// Scale.
        d: F16Bytes,
        /// Bit `i` is the fifth bit of weight `i`.
        qh: [u8; 4],
        /// The low four bits, as in [`BlockQ4_0`].
        qs: [u8; 16],
    } 22
}
block! {
    /// `w = d · q + m`: 32 weights of 5 bits, 6 bits a weight.
    BlockQ5_1 {
        /// Scale.
        d: F16Bytes,
        /// Minimum.
        m: F16Bytes,
        /// As in [`BlockQ5_0`].
        qh: [u8; 4],
        /// As in [`BlockQ5_0`].
        qs: [u8; 16],
    } 24
}
block! {
    /// `w = d · q`: 32 weights of 8 bits, 8.5 bits a weight.
    BlockQ8_0 {
        /// Scale.
        d: F16Bytes,
        /// Signed weights.
        qs: [u8; 32],
    } 34
}
block! {
    /// `w = d · s · q − dmin · n`: 256 weights of 2 bits in groups of 16 with a 4-bit scale `s` and minimum `n` each,
    /// 2.625 bits a weight.
    BlockQ2K {
        /// A group's scale in the low half, its minimum in the high one.
        scales: [u8; 16],
        /// Four weights a byte, 32 apart.
        qs: [u8; 64],
        /// Scale of the scales.
        d: F16Bytes,
        /// Scale of the minima.
        dmin: F16Bytes,
    } 84
}
block! {
    /// `w = d · (s − 32) · (q − 4)`: 256 weights of 3 bits in groups of 16 with a 6-bit scale `s` each, 3.4375 bits a
    /// weight.
    BlockQ3K {
        /// The third bit of each weight (set: nothing is subtracted), 32 apart.
        hmask: [u8; 32],
        /// The low two bits, four weights a byte, 32 apart.
        qs: [u8; 64],
        /// Sixteen 6-bit scales.
        scales: [u8; 12],
        /// Scale of the scales.
        d: F16Bytes,
    } 110
}
block! {
    /// `w = d · s · q − dmin · n`: 256 weights of 4 bits in groups of 32 with a 6-bit scale `s` and minimum `n` each,
    /// 4.5 bits a weight.
    BlockQ4K {
        /// Scale of the scales.
        d: F16Bytes,
        /// Scale of the minima.
        dmin: F16Bytes,
        /// Eight 6-bit scales and eight 6-bit minima.
        scales: [u8; 12],
        /// For each pair of groups 32 bytes, the first group in the low halves.
        qs: [u8; 128],
    } 144
}
block! {
    /// As [`BlockQ4K`] with weights of 5 bits, 5.5 bits a weight.
    BlockQ5K {
        /// Scale of the scales.
        d: F16Bytes,
        /// Scale of the minima.
        dmin: F16Bytes,
        /// As in [`BlockQ4K`].
        scales: [u8; 12],
        /// Bit `g` of byte `i` is the fifth bit of weight `i` of group `g`.
        qh: [u8; 32],
        /// The low four bits, as in [`BlockQ4K`].
        qs: [u8; 128],
    } 176
}
block! {
    /// `w = d · s · (q − 32)`: 256 weights of 6 bits in groups of 16 with a signed 8-bit scale `s` each, 6.5625 bits a
    /// weight.
    BlockQ6K {
        /// The low four bits; for each half of the block 64 bytes, weights 64 apart in one byte.
        ql: [u8; 128],
        /// The high two bits; for each half 32 bytes, weights 32 apart in one byte.
        qh: [u8; 64],
        /// Signed scales.
        scales: [u8; 16],
        /// Scale of the scales.
        d: F16Bytes,
    } 210
}
block! {
    /// `w = d · table[q]`: 32 weights of 4 bits through [`super::decode::IQ4_VALUES`], 4.5 bits a weight.
    BlockIq4Nl {
        /// Scale.
        d: F16Bytes,
        /// As in [`BlockQ4_0`].
        qs: [u8; 16],
    } 18
}
block! {
    /// `w = d · (s − 32) · table[q]`: 256 weights in groups of 32 with a 6-bit scale `s` each, 4.25 bits a weight.
    BlockIq4Xs {
        /// Scale of the scales.
        d: F16Bytes,
        /// The high two bits of the eight scales, two bits each.
        scales_h: [u8; 2],
        /// The low four bits of the eight scales.
        scales_l: [u8; 4],
        /// For each group 16 bytes, as in [`BlockIq4Nl`].
        qs: [u8; 128],
    } 136
}
block! {
    /// `w = 2^(e − 127) · table[q]`: 32 weights of the OCP microscaling format, E2M1 with a shared E8M0 scale, 4.25
    /// bits a weight.
    BlockMxfp4 {
        /// Exponent of the scale.
        e: u8,
        /// As in [`BlockQ4_0`].
        qs: [u8; 16],
    } 17
}
