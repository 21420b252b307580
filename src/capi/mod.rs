//! The C API: `extern "C"` faces of the objects, and nothing that computes. A file per object.
//!
//! Every export runs inside [`fence`], which turns errors and panics into a status; every pointer is checked before
//! it is read; option structs are read by the size that the caller states. The comments here are the header's.
#![allow(non_camel_case_types)] // the names are C's
#![allow(clippy::missing_safety_doc)] // the header's comments state what each pointer must be

use std::ffi::{c_char, c_void};

// In the order in which the header tells the story.
mod error;

mod version;

mod engine;

mod device;

mod model;

mod tokenize;

mod chat;

mod sampler;

mod cancel;

mod session;

mod guard;

pub use cancel::*;
pub use chat::*;
pub use device::*;
pub use engine::*;
pub use error::*;
pub use model::*;
pub use sampler::*;
pub use session::*;
pub use tokenize::*;
pub use version::*;

/// Outcome of a call: `RF_OK` (0), a positive normal outcome, or a negative error.
pub type rf_status = i32;
/// A token's number in the vocabulary, from 0 to `rf_model_info.n_vocab - 1`.
pub type rf_token = u32;

/// Done as asked.
pub const RF_OK: rf_status = 0;
/// Work is left: call again.
pub const RF_PENDING: rf_status = 1;
/// Generation has ended; the piece says why.
pub const RF_DONE: rf_status = 2;
/// Stopped by a cancel token or a callback; the object is as it was before the call.
pub const RF_CANCELLED: rf_status = 3;
/// The context is full and the options asked to stop then.
pub const RF_FULL: rf_status = 4;

/// An argument is outside what its function documents (NULL, a bad flag, an unknown token, invalid UTF-8 …).
pub const RF_E_ARGUMENT: rf_status = -1;
/// The operating system or the host's reader refused: missing file, no permission, a failed read.
pub const RF_E_IO: rf_status = -2;
/// The file's bytes contradict their format, or it is damaged or incomplete.
pub const RF_E_FORMAT: rf_status = -3;
/// Valid, but not served by this version: an architecture, a tensor type, a tokenizer, a newer option.
pub const RF_E_UNSUPPORTED: rf_status = -4;
/// Memory could not be had.
pub const RF_E_OUT_OF_MEMORY: rf_status = -5;
/// The tokens do not fit into the session's context; nothing was consumed.
pub const RF_E_CONTEXT_FULL: rf_status = -6;
/// The session is in use on another thread, or in one of its own callbacks.
pub const RF_E_BUSY: rf_status = -7;
/// The chat template is missing, does not parse, or refused the messages.
pub const RF_E_TEMPLATE: rf_status = -8;
/// The caller's buffer is too small; the size that is needed was written.
pub const RF_E_BUFFER: rf_status = -9;
/// A GPU's driver refused a call; the message says which and why.
pub const RF_E_DEVICE: rf_status = -10;
/// A GPU was lost (a fault, a reset, a removal): its models and sessions are of no use any more, the process and other
/// devices go on.
pub const RF_E_DEVICE_LOST: rf_status = -11;
/// A defect of the library. A session that met one refuses further work: free it.
pub const RF_E_INTERNAL: rf_status = -100;

/// As a text's length: the text ends at its first NUL. (The header defines it as SIZE_MAX, which cbindgen cannot.)
pub const RF_STRLEN: usize = usize::MAX;

/// What a callback returns to go on; anything else cancels.
pub const RF_CONTINUE: i32 = 0;
