//! The limits on what a template may spend, and the buffers that keep them.

use minijinja::{ErrorKind, State};

/// The longest template that is parsed; the longest real one that we know has 17 kB.
pub const MAX_SOURCE_BYTES: usize = 128 << 10;

/// The most words and signs between two marks `{%` or `{{`; the most in a real template that we know is 57.
pub const MAX_TAG_TOKENS: usize = 1_000;

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

/// Bytes of text that one unit of fuel pays for, as the engine has it.
pub(super) const BYTES_PER_FUEL: u64 = 64;

/// Parts of lists and dictionaries, walked or printed, that one unit of fuel pays for.
pub(super) const PARTS_PER_FUEL: u64 = 2;

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

/// A text that refuses to grow beyond what the fuel that is left pays for.
pub(super) struct Bounded {
    text: String,
    limit: usize,
    parts: u64,
}

impl Bounded {
    pub(super) fn new(state: &State) -> Bounded {
        Bounded { text: String::new(), limit: affordable_bytes(state), parts: 0 }
    }

    pub(super) fn push(&mut self, text: &str) -> Result<(), minijinja::Error> {
        if text.len() > self.limit.saturating_sub(self.text.len()) {
            return Err(out_of_fuel());
        }
        self.text.push_str(text);
        Ok(())
    }

    /// Counts a part of a value that is printed.
    pub(super) fn part(&mut self) -> Result<(), minijinja::Error> {
        self.parts += 1;
        self.limit = self.limit.checked_sub((BYTES_PER_FUEL / PARTS_PER_FUEL) as usize).ok_or_else(out_of_fuel)?;
        Ok(())
    }

    /// The text, with its parts paid for; the engine charges for its bytes.
    pub(super) fn finish(self, state: &State) -> Result<String, minijinja::Error> {
        state.consume_fuel(self.parts / PARTS_PER_FUEL)?;
        Ok(self.text)
    }
}
