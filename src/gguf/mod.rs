//! GGUF: bytes → [`Header`] (metadata and tensor directory), for versions 1 to 3, from a path, memory or a
//! host's reader, in one file or many.
//!
//! The format is specified at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. A file is hostile until
//! it is parsed: every count is checked against the bytes that are left before anything is allocated, every sum is
//! checked for overflow, and every limit below has a name. This module knows nothing of models or tensor types.

mod header;
mod reader;
mod source;
mod split;
mod value;

pub use header::{Header, TensorInfo};
pub use source::{FileSource, MappedSource, MemorySource, ReaderSource, Source};
pub use split::{open_parts, split_paths};
pub use value::{Array, Metadata, Strings, Value};

/// Key-value pairs of one file.
pub const MAX_METADATA_ENTRIES: u64 = 1 << 16;
/// Tensors of one file.
pub const MAX_TENSORS: u64 = 1 << 20;
/// Bytes of a metadata key.
pub const MAX_KEY_BYTES: u64 = 1 << 16;
/// Bytes of a tensor's name (the specification says 64; some writers exceed it).
pub const MAX_TENSOR_NAME_BYTES: u64 = 1 << 10;
/// Bytes of one metadata string (templates and embedded vocabularies are the longest).
pub const MAX_STRING_BYTES: u64 = 1 << 28;
/// Elements of one metadata array.
pub const MAX_ARRAY_ELEMENTS: u64 = 1 << 28;
/// Arrays in arrays.
pub const MAX_ARRAY_DEPTH: u32 = 4;
/// Dimensions of a tensor.
pub const MAX_DIMENSIONS: u32 = 4;
/// Bytes to which `general.alignment` may align.
pub const MAX_ALIGNMENT: u32 = 1 << 20;
/// Alignment of tensor data where the file names none.
pub const DEFAULT_ALIGNMENT: u32 = 32;
/// Files of one split model.
pub const MAX_SPLIT_FILES: u32 = 1024;
