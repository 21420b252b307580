//! When to stop: at a token, or at a string in the text, which may begin in one token and end in another.

use std::sync::Arc;

use crate::{Error, Result};

/// The stop strings and stop tokens of a generation: immutable, to be shared. The text's state is in [`StopMatcher`].
#[derive(Debug, Clone, Default)]
pub struct Stops {
    strings: Vec<StopString>,
    tokens: Vec<u32>,
}

/// A string with its failure function (Knuth, Morris and Pratt 1977): for each prefix, the length of the longest
/// shorter prefix that is also its suffix.
#[derive(Debug, Clone)]
struct StopString {
    bytes: Box<[u8]>,
    failure: Box<[usize]>,
}

impl Stops {
    /// Prepares the matching.
    ///
    /// # Errors
    /// [`Error::Argument`] for an empty string, which would stop everything at once.
    pub fn new<S: AsRef<str>>(strings: &[S], tokens: &[u32]) -> Result<Stops> {
        if let Some(at) = strings.iter().position(|string| string.as_ref().is_empty()) {
            return Err(Error::argument(format!("stop string {at} is empty; leave it out")));
        }
        let mut tokens = tokens.to_vec();
        tokens.sort_unstable();
        let strings = strings.iter().map(|string| StopString::new(string.as_ref())).collect();
        Ok(Stops { strings, tokens })
    }

    /// Whether the generation ends at this token.
    pub fn is_stop_token(&self, token: u32) -> bool {
        self.tokens.binary_search(&token).is_ok()
    }
}

impl StopString {
    fn new(string: &str) -> StopString {
        let bytes: Box<[u8]> = string.as_bytes().into();
        let mut failure = vec![0; bytes.len()];
        for at in 1..bytes.len() {
            let mut matched: usize = failure[at - 1];
            while matched > 0 && bytes[matched] != bytes[at] {
                matched = failure[matched - 1];
            }
            failure[at] = matched + usize::from(bytes[matched] == bytes[at]);
        }
        StopString { bytes, failure: failure.into() }
    }

    /// How many bytes are matched after one more byte; `matched` is less than the string's length.
    fn advance(&self, mut matched: usize, byte: u8) -> usize {
        while matched > 0 && self.bytes[matched] != byte {
            matched = self.failure[matched - 1];
        }
        matched + usize::from(self.bytes[matched] == byte)
    }
}

/// Follows the text of one generation. Text that could be the beginning of a stop string is held back until it is
/// known not to be one, so that no part of a stop string is ever seen. Each byte costs a few steps per stop string.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stops: Arc<Stops>,
    /// Bytes of each stop string that the text's end matches.
    matched: Vec<usize>,
    /// Text that was not released: as long as the longest of `matched`.
    held: String,
    stopped: Option<usize>,
}

impl StopMatcher {
    /// At the beginning of a text.
    pub fn new(stops: Arc<Stops>) -> StopMatcher {
        StopMatcher { matched: vec![0; stops.strings.len()], stops, held: String::new(), stopped: None }
    }

    /// Takes the next piece of text and appends to `released` what is certainly before any stop string. Returns the
    /// index of the stop string that is complete: the first to be completed, and of several that end together the
    /// longest. From then on nothing is released any more.
    pub fn feed(&mut self, piece: &str, released: &mut String) -> Option<usize> {
        if self.stopped.is_some() {
            return self.stopped;
        }
        let before = self.held.len();
        self.held.push_str(piece);
        for (at, byte) in piece.bytes().enumerate() {
            let mut complete: Option<(usize, usize)> = None;
            for (index, (string, matched)) in self.stops.strings.iter().zip(&mut self.matched).enumerate() {
                *matched = string.advance(*matched, byte);
                if *matched == string.bytes.len() && complete.is_none_or(|(_, length)| *matched > length) {
                    complete = Some((index, *matched));
                }
            }
            if let Some((index, length)) = complete {
                self.release(before + at + 1 - length, released);
                self.held.clear();
                self.stopped = Some(index);
                return self.stopped;
            }
        }
        let possible = self.matched.iter().copied().max().unwrap_or(0);
        self.release(self.held.len().saturating_sub(possible), released);
        None
    }

    /// Ends the text: appends what was held back, since no stop string can be completed any more.
    pub fn finish(&mut self, released: &mut String) {
        self.release(self.held.len(), released);
        self.matched.fill(0);
    }

    /// Moves the first `length` held bytes. A stop string starts with a whole character, so a match in the text does.
    fn release(&mut self, length: usize, released: &mut String) {
        released.extend(self.held.drain(..length));
    }
}
