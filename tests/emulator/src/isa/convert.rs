//! Conversions between types.

use crate::isa::float::frexp;
use crate::lane::{F16, F32, F64, I16, I32, U16, U32, float_to_half_towards_zero};
use crate::valu;

/// A float in 0..=1 (or -1..=1) as a fraction of the largest integer.
fn unorm16(a: f32) -> u32 {
    (a.clamp(0.0, 1.0) * 65535.0).round_ties_even() as u32
}

fn snorm16(a: f32) -> u32 {
    (a.clamp(-1.0, 1.0) * 32767.0).round_ties_even() as i32 as u32 & 0xffff
}

/// `value` with byte `index` replaced by `a`, rounded and saturated.
fn pack_byte(a: f32, index: u32, value: u32) -> u32 {
    let shift = 8 * (index & 3);
    value & !(0xff << shift) | u32::from(a.round_ties_even() as u8) << shift
}

#[inline(always)]
fn pair(low: u32, high: u32) -> u32 {
    low & 0xffff | high << 16
}

valu! { TABLE:
    "v_cvt_f32_i32" (a: I32) -> F32 = a as f32;
    "v_cvt_f32_u32" (a: U32) -> F32 = a as f32;
    "v_cvt_i32_f32" (a: F32) -> I32 = a as i32;
    "v_cvt_u32_f32" (a: F32) -> U32 = a as u32;
    "v_cvt_nearest_i32_f32" (a: F32) -> I32 = (a + 0.5).floor() as i32;
    "v_cvt_floor_i32_f32" (a: F32) -> I32 = a.floor() as i32;
    "v_cvt_f32_ubyte0" (a: U32) -> F32 = (a & 0xff) as f32;
    "v_cvt_f32_ubyte1" (a: U32) -> F32 = (a >> 8 & 0xff) as f32;
    "v_cvt_f32_ubyte2" (a: U32) -> F32 = (a >> 16 & 0xff) as f32;
    "v_cvt_f32_ubyte3" (a: U32) -> F32 = (a >> 24) as f32;
    "v_cvt_off_f32_i4" (a: U32) -> F32 = ((a << 28) as i32 >> 28) as f32 / 16.0;

    "v_cvt_f32_f16" (a: F16) -> F32 = a;
    "v_cvt_f16_f32" (a: F32) -> F16 = a;
    "v_cvt_f16_u16" (a: U16) -> F16 = f32::from(a);
    "v_cvt_f16_i16" (a: I16) -> F16 = f32::from(a);
    "v_cvt_u16_f16" (a: F16) -> U16 = a as u16;
    "v_cvt_i16_f16" (a: F16) -> I16 = a as i16;
    "v_cvt_i32_i16" (a: I16) -> I32 = i32::from(a);
    "v_cvt_u32_u16" (a: U16) -> U32 = u32::from(a);
    "v_frexp_exp_i16_f16" (a: F16) -> I16 = frexp(f64::from(a)).1 as i16;

    "v_cvt_f64_f32" (a: F32) -> F64 = f64::from(a);
    "v_cvt_f32_f64" (a: F64) -> F32 = a as f32;
    "v_cvt_f64_i32" (a: I32) -> F64 = f64::from(a);
    "v_cvt_f64_u32" (a: U32) -> F64 = f64::from(a);
    "v_cvt_i32_f64" (a: F64) -> I32 = a as i32;
    "v_cvt_u32_f64" (a: F64) -> U32 = a as u32;

    "v_cvt_pk_rtz_f16_f32" (a: F32, b: F32) -> U32 =
        pair(float_to_half_towards_zero(a), float_to_half_towards_zero(b));
    "v_cvt_pk_i16_i32" (a: I32, b: I32) -> U32 =
        pair(a.clamp(-32768, 32767) as u32, b.clamp(-32768, 32767) as u32);
    "v_cvt_pk_u16_u32" (a: U32, b: U32) -> U32 = pair(a.min(65535), b.min(65535));
    "v_cvt_pk_i16_f32" (a: F32, b: F32) -> U32 = pair(a as i16 as u32, b as i16 as u32);
    "v_cvt_pk_u16_f32" (a: F32, b: F32) -> U32 = pair(u32::from(a as u16), u32::from(b as u16));
    "v_cvt_pk_norm_i16_f32" (a: F32, b: F32) -> U32 = pair(snorm16(a), snorm16(b));
    "v_cvt_pk_norm_u16_f32" (a: F32, b: F32) -> U32 = pair(unorm16(a), unorm16(b));
    "v_cvt_pk_u8_f32" (a: F32, index: U32, value: U32) -> U32 = pack_byte(a, index, value);
    "v_sat_pk_u8_i16" (a: U32) -> U32 =
        ((a as i16).clamp(0, 255) as u32) | (((a >> 16) as i16).clamp(0, 255) as u32) << 8;
}
