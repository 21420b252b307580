//! GGUF: bytes → [`Header`]. Knows nothing of models.
mod value;
pub use value::{Array, Metadata, Strings, Value};
