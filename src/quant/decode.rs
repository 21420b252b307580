//! Scalar decode of every format.
pub fn f32(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn f16(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q4_0(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q4_1(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q5_0(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q5_1(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q8_0(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q2_k(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q3_k(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q4_k(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q5_k(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn q6_k(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn iq4_nl(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn iq4_xs(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn bf16(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
pub fn mxfp4(_bytes: &[u8], _out: &mut [f32]) { unimplemented!() }
