//! stub
use super::features::Isa;
use super::pool::Pool;
use crate::error::Result;
pub struct Acts { pub v: Vec<f32>, pub n: usize, pub cols: usize }
impl Acts {
    pub fn new(r: usize, c: usize) -> Result<Self> { Ok(Acts { v: vec![0.0; r * c], n: 0, cols: 0 }) }
    pub fn set_shape(&mut self, n: usize, cols: usize) { self.n = n; self.cols = cols; }
    pub fn values_mut(&mut self) -> &mut [f32] { &mut self.v[..self.n * self.cols] }
    pub fn quantize(&mut self, _: Isa, _: &Pool) {}
}
