//! rocmforge: an embeddable engine that runs GGUF language models.
//!
//! The way of the data, each step a module that knows only those before it:
//!
//! 1. [`gguf`]: bytes → metadata and tensor directory; [`quant`]: the tensor types and their scalar decode;
//!    [`tensor`]: the directory, checked; [`load`]: files and the bytes of each tensor.
//! 2. [`backend`]: where weights live and the verbs run; [`model`]: configuration, weights, one forward pass over the
//!    verbs.
//! 3. [`tokenizer`], [`chat`], [`sampler`]: text to tokens, conversations to text, logits to a token.
//! 4. [`placement`]: which layers go where; [`engine`]: threads and loaded models; [`session`]: one sequence, the only thing that changes.
//!    [`selftest`]: whether a device computes what the CPU does; [`synth`]: models of random weights.
//! 5. [`capi`]: the same for C, in `include/rocmforge.h`.
//!
//! Everything fallible returns [`Error`], whose messages name the file, the place and the remedy. The library never
//! aborts, exits or prints.
#![warn(missing_docs)]
#![deny(unsafe_op_in_unsafe_fn)]

pub mod backend;
pub mod model;
pub mod quant;
pub mod sampler;
mod xxh64;

// What reads files, or stands before C: nothing in it may panic on what it is given.
macro_rules! careful {
    ($($name:ident)*) => { $(
        #[deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
        pub mod $name;
    )* };
}
careful! { capi chat engine error gguf load placement selftest session synth tensor tokenizer }

pub use error::{Error, Result};
