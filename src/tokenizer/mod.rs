//! stub
use crate::{gguf::Metadata, Result};
pub struct Tokenizer;
#[derive(Default)]
pub struct Options { pub pre: Option<String> }
#[derive(Default)]
pub struct TextStream;
impl TextStream { pub fn push(&mut self, b: &[u8]) -> String { String::from_utf8_lossy(b).into() } pub fn finish(&mut self) -> String { String::new() } }
impl Tokenizer {
    pub fn from_metadata(_: &Metadata, _: &Options) -> Result<Self> { Ok(Tokenizer) }
    pub fn from_json(_: &str, _: &[u8]) -> Result<Self> { Ok(Tokenizer) }
    pub fn encode(&self, _: &str, _: bool, _: bool) -> Result<Vec<u32>> { Ok(vec![]) }
    pub fn vocab_size(&self) -> usize { 0 }
    pub fn token_text(&self, _: u32) -> Option<&str> { None }
    pub fn token_bytes(&self, _: u32, _: bool, _: &mut Vec<u8>) -> Result<()> { Ok(()) }
    pub fn decode(&self, _: &[u32], _: bool) -> Result<String> { Ok(String::new()) }
    pub fn bos(&self) -> Option<u32> { None }
    pub fn eos(&self) -> Option<u32> { None }
    pub fn eot(&self) -> Option<u32> { None }
    pub fn unk(&self) -> Option<u32> { None }
    pub fn pad(&self) -> Option<u32> { None }
    pub fn add_bos(&self) -> bool { false }
    pub fn is_end_of_generation(&self, _: u32) -> bool { false }
}
