//! rocmforge
pub mod error;
pub mod gguf;
pub mod load;
pub mod model;
pub mod quant;
pub mod tensor;
pub mod tokenizer;
pub mod chat;
pub mod sampler;
pub mod backend;
pub use error::{Error, Result};
