//! Whole characters from a stream of bytes.

/// Turns the bytes of tokens, which may end in the middle of a character, into text that never does.
///
/// Bytes that cannot be part of any character become U+FFFD at once, by the same rule as
/// [`String::from_utf8_lossy`]; the beginning of a character waits for the rest of it.
///
/// ```
/// let mut stream = rocmforge::tokenizer::TextStream::default();
/// assert_eq!(stream.push(b"\xF0\x9F"), "");
/// assert_eq!(stream.push(b"\xA6\x99!"), "🦙!");
/// ```
#[derive(Debug, Clone, Default)]
pub struct TextStream {
    tail: Vec<u8>,
    text: String,
}

impl TextStream {
    /// Adds bytes and returns the text that they complete, which may be empty.
    pub fn push(&mut self, bytes: &[u8]) -> &str {
        self.text.clear();
        self.tail.extend_from_slice(bytes);
        let mut rest = self.tail.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(e) => {
                    let (valid, others) = rest.split_at_checked(e.valid_up_to()).unwrap_or((rest, &[]));
                    self.text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = others;
                    let Some(broken) = e.error_len() else { break };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                    rest = rest.get(broken..).unwrap_or_default();
                }
            }
        }
        let done = self.tail.len() - rest.len();
        self.tail.drain(..done);
        &self.text
    }

    /// Ends the stream: what waited for more bytes becomes U+FFFD. The stream is empty afterwards.
    pub fn finish(&mut self) -> &str {
        self.text.clear();
        if !self.tail.is_empty() {
            self.tail.clear();
            self.text.push(char::REPLACEMENT_CHARACTER);
        }
        &self.text
    }

    /// The bytes that wait for the rest of their character: at most three.
    pub fn pending(&self) -> &[u8] {
        &self.tail
    }
}

#[cfg(test)]
mod tests {
    use super::TextStream;
    use proptest::prelude::*;

    #[test]
    fn a_split_emoji_comes_whole() {
        let mut stream = TextStream::default();
        let family = "a👩‍👧é";
        let mut all = String::new();
        for byte in family.as_bytes() {
            all.push_str(stream.push(&[*byte]));
            assert!(stream.pending().len() < 4);
            assert!(family.starts_with(&all), "{all:?}");
        }
        assert_eq!(all, family);
        assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_broken_tail_is_replaced_at_the_end() {
        let mut stream = TextStream::default();
        assert_eq!(stream.push(b"x\xE2\x96"), "x");
        assert_eq!(stream.pending(), b"\xE2\x96");
        assert_eq!(stream.finish(), "\u{FFFD}");
        assert_eq!(stream.push(b"ok"), "ok");
    }

    proptest! {
        #[test]
        fn equals_the_lossy_conversion(bytes: Vec<u8>, text: String, cuts: Vec<u8>) {
            let mut all = text.into_bytes();
            all.extend(&bytes);
            all.extend("🦙".as_bytes().iter().take(cuts.len()));
            let (mut stream, mut out, mut rest) = (TextStream::default(), String::new(), all.as_slice());
            for cut in cuts {
                let (now, later) = rest.split_at(usize::from(cut).min(rest.len()));
                out.push_str(stream.push(now));
                rest = later;
            }
            out.push_str(stream.push(rest));
            out.push_str(stream.finish());
            prop_assert_eq!(out, String::from_utf8_lossy(&all));
        }
    }
}
