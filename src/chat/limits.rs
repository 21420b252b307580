//! The limits on what a template may spend, and the buffers that keep them.

use std::{fmt, io};

use minijinja::{ErrorKind, State};

use crate::{Error, Result};

/// The longest template that is parsed; the longest real one that we know has 17 kB.
pub const MAX_SOURCE_BYTES: usize = 256 << 10;

/// Work that each rendering may do: one unit pays for an instruction or for 64 bytes of text. Real templates spend
/// some hundred units a message.
pub const BASE_FUEL: u64 = 1_000_000;

/// Further work for each byte of messages, tools and extra variables, so that long talks have what they need.
pub const FUEL_PER_INPUT_BYTE: u64 = 2;

/// The longest text that a rendering may give.
pub const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// The deepest nesting of blocks and macro calls; a macro call counts four.
pub const MAX_RECURSION: usize = 400;

/// The deepest nesting of lists and dictionaries that is printed or turned into JSON.
pub const MAX_DEPTH: usize = 128;

/// Bytes of text that one unit of fuel pays for.
const BYTES_PER_FUEL: u64 = 64;

/// The fuel of one rendering with that many bytes of input.
pub(super) fn fuel(input_bytes: usize) -> u64 {
    BASE_FUEL.saturating_add(FUEL_PER_INPUT_BYTE.saturating_mul(input_bytes as u64))
}

/// Bytes of text that the fuel which is left still pays for.
pub(super) fn affordable_bytes(state: &State) -> usize {
    let left = state.fuel_levels().map_or(0, |(_, left)| left);
    usize::try_from(left.saturating_mul(BYTES_PER_FUEL)).unwrap_or(usize::MAX).min(MAX_OUTPUT_BYTES)
}

/// What the engine reports when text would cost more than the fuel that is left.
pub(super) fn out_of_fuel() -> minijinja::Error {
    minijinja::Error::from(ErrorKind::OutOfFuel)
}

/// The error of a rendering whose output is too long.
pub(super) fn output_error() -> Error {
    Error::Template(format!("its output is longer than {MAX_OUTPUT_BYTES} bytes"))
}

/// A text that refuses to grow beyond a limit.
pub(super) struct Bounded {
    text: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Bounded {
        Bounded { text: Vec::new(), limit, full: false }
    }

    /// Whether something was refused.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), minijinja::Error> {
        fmt::Write::write_str(self, text).map_err(|_| out_of_fuel())
    }

    pub(super) fn into_string(self) -> Result<String> {
        String::from_utf8(self.text).map_err(|_| Error::Internal("a template's output is not UTF-8".to_owned()))
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        self.full |= bytes.len() > self.limit.saturating_sub(self.text.len());
        if !self.full {
            self.text.extend_from_slice(bytes);
        }
        !self.full
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.append(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.append(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
