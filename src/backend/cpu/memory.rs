//! stub
use crate::error::Result;
pub struct AlignedBuf(Vec<u8>);
impl AlignedBuf {
    pub fn zeroed(n: usize) -> Result<Self> { Ok(AlignedBuf(vec![0; n])) }
    pub fn as_slice(&self) -> &[u8] { &self.0 }
    pub fn as_mut_slice(&mut self) -> &mut [u8] { &mut self.0 }
}
