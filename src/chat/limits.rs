//! The limits on what a template may spend, and the buffers that keep them.

use minijinja::{ErrorKind, State};

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

/// A text that refuses to grow beyond a limit.
pub(super) struct Bounded {
    text: String,
    limit: usize,
}

impl Bounded {
    pub(super) fn new(limit: usize) -> Bounded {
        Bounded { text: String::new(), limit }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), minijinja::Error> {
        if text.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(out_of_fuel());
        }
        self.text.push_str(text);
        Ok(())
    }

    pub(super) fn into_string(self) -> String {
        self.text
    }
}
