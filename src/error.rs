//! The one error type. Each message is a sentence for the person who has to act: what was wrong,
//! where (file, key, tensor, byte), and what would be accepted.

use std::io;

/// What went wrong, by the kind of remedy that it asks for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system refused: missing file, no permission, a read that failed.
    #[error("{file}: {source}")]
    Io {
        /// The file (or `<memory>`, `<reader>`).
        file: String,
        /// What the operating system says.
        source: io::Error,
    },
    /// The bytes contradict the format that they claim to have.
    #[error("{file}: {what}")]
    Malformed {
        /// The file (or `<memory>`, `<reader>`).
        file: String,
        /// Which field, key or tensor, and what was expected.
        what: String,
    },
    /// A valid file or request that this version does not serve (architecture, tensor type, pre-tokenizer …).
    #[error("{file}: {what}")]
    Unsupported {
        /// The file, or the object that was asked.
        file: String,
        /// What is not supported, by its own name.
        what: String,
    },
    /// The caller's argument is outside what the documentation allows.
    #[error("{0}")]
    Argument(String),
    /// Memory for `what` could not be had.
    #[error("out of memory: {bytes} bytes for {what}")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
        /// What they were for.
        what: String,
    },
    /// A device's memory cannot hold what was asked of it.
    #[error("{device} has too little memory for {what}: {needed} bytes are needed, {free} are free")]
    DeviceMemory {
        /// The device's name.
        device: String,
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        needed: u64,
        /// Bytes that are free, within the budget.
        free: u64,
    },
    /// A device's driver refused a call.
    #[error("{device}: {call} failed: {reason}")]
    Device {
        /// The device's name.
        device: String,
        /// The driver's function.
        call: &'static str,
        /// What the driver says.
        reason: String,
        /// The device cannot be used any more by this process.
        lost: bool,
    },
    /// The session's context cannot hold the tokens; nothing was consumed.
    #[error("the context is full: {used} of {capacity} tokens are used and {asked} more were given")]
    ContextFull {
        /// Tokens held now.
        used: usize,
        /// Tokens that fit.
        capacity: usize,
        /// Tokens that the call wanted to add.
        asked: usize,
    },
    /// The object is in use on another thread.
    #[error("the {0} is in use on another thread")]
    Busy(&'static str),
    /// The cancel token was raised, or a callback asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// A chat template that does not parse, does not render, or calls `raise_exception`.
    #[error("chat template: {0}")]
    Template(String),
    /// The caller's buffer is too small.
    #[error("the buffer has room for {capacity} {unit}, {needed} are needed")]
    Buffer {
        /// What it has room for.
        capacity: usize,
        /// What is needed.
        needed: usize,
        /// Bytes or tokens.
        unit: &'static str,
    },
    /// A defect of this library: please report it.
    #[error("internal error: {0}")]
    Internal(String),
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// A malformed file.
    pub fn malformed(file: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Malformed { file: file.into(), what: what.into() }
    }

    /// A file or request that is valid and not served.
    pub fn unsupported(file: impl Into<String>, what: impl Into<String>) -> Self {
        Error::Unsupported { file: file.into(), what: what.into() }
    }

    /// An argument outside its documented range.
    pub fn argument(what: impl Into<String>) -> Self {
        Error::Argument(what.into())
    }

    /// An input or output error on `file`.
    pub fn io(file: impl Into<String>, source: io::Error) -> Self {
        Error::Io { file: file.into(), source }
    }
}
