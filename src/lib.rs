//! rocmforge: an embeddable engine that runs GGUF language models.
//!
//! The way of the data, each step a module that knows only those before it:
//!
//! 1. [`gguf`]: bytes → metadata and tensor directory; [`quant`]: the tensor types and their scalar decode;
//!    [`tensor`]: the directory, checked; [`load`]: files and the bytes of each tensor.
//! 2. [`backend`]: where weights live and the verbs run; [`model`]: configuration, weights, one forward pass over the
//!    verbs.
//! 3. [`tokenizer`], [`chat`], [`sampler`]: text to tokens, conversations to text, logits to a token.
//! 4. [`engine`]: threads and loaded models; [`session`]: one sequence, the only thing that changes.
//! 5. [`capi`]: the same for C, in `include/rocmforge.h`.
//!
//! Everything fallible returns [`Error`], whose messages name the file, the place and the remedy. The library never
//! aborts, exits or prints.
#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod backend;
pub mod capi;
pub mod chat;
pub mod engine;
pub mod error;
pub mod gguf;
pub mod load;
pub mod model;
pub mod quant;
pub mod sampler;
pub mod session;
pub mod tensor;
pub mod tokenizer;

pub use error::{Error, Result};
