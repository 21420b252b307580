//! How weights lie on a device: the planes of each format. No format has its layout yet, so no model goes to a device.

use crate::backend::cpu::pool::Pool;
use crate::quant::TensorType;

/// Planes of a matrix at most.
pub const MAX_PLANES: usize = 4;

/// The planes of a matrix.
pub struct Planes {
    /// Where each begins.
    pub offsets: Vec<usize>,
    /// Bytes of a row in each.
    pub row_bytes: Vec<usize>,
    /// Bytes of all.
    pub bytes: usize,
}

impl Planes {
    /// The planes of a matrix of `rows` rows of `columns` elements.
    pub fn of(_: TensorType, _: usize, _: usize) -> Option<Planes> {
        None
    }

    /// Rearranges `n` rows of a file.
    pub fn pack_rows_on(&self, _: &Pool, _: &[u8], _: usize, _: &mut [&mut [u8]]) {}
}
