//! stub
use super::features::Isa;
use super::pool::Pool;
use crate::error::Result;
use crate::load::TensorBytes;
use crate::quant::TensorType;
pub struct Matrix { pub rows: usize, pub cols: usize, t: TensorType, bytes: TensorBytes }
impl Matrix {
    pub fn place(t: TensorType, rows: usize, cols: usize, bytes: TensorBytes, _: bool, _: Isa, _: &Pool) -> Result<Self> { Ok(Matrix { rows, cols, t, bytes }) }
    pub fn row(&self, r: usize, out: &mut [f32]) {
        let rb = self.t.row_bytes(self.cols).unwrap();
        (self.t.format().decode.unwrap())(&self.bytes.as_slice()[r * rb..(r + 1) * rb], out);
    }
    pub fn bytes(&self) -> usize { self.bytes.as_slice().len() }
}
