//! SentencePiece BPE as GGUF stores it: tokens with scores and no merges.
//!
//! A pair may be joined if its joined text is a token, and the token with the highest score goes first. What no
//! token covers in the end is spelled in byte tokens.

use super::merge::{Join, Merger, NO_ID, Piece};
use super::vocab::Vocab;
use crate::error::{Error, Result};

/// SentencePiece's visible space, U+2581.
pub(super) const SPACE: &str = "▁";

/// The encoder.
#[derive(Debug)]
pub(super) struct Spm {
    file: String,
    /// By id: the rank of the token's score, as a number whose least comes first.
    order: Vec<u32>,
    bytes: [Option<u32>; 256],
    unknown: Option<u32>,
    /// The characters that some token has in front of a `▁`, sorted; most vocabularies have none.
    before_space: Vec<char>,
    /// Whether text at the start, or after a special token, gets a space in front.
    pub add_space_prefix: bool,
}

impl Spm {
    /// An encoder for `vocab` with one score per token.
    ///
    /// # Errors
    /// A score that is not a number.
    pub fn new(file: &str, vocab: &Vocab, scores: &[f32], unknown: Option<u32>, add_space_prefix: bool) -> Result<Spm> {
        if let Some(id) = scores.iter().position(|s| s.is_nan()) {
            return Err(Error::malformed(file, format!("'tokenizer.ggml.scores' holds no number for token {id}")));
        }
        let order = scores.iter().map(|&s| descending(s)).collect();
        let (bytes, before_space) = (vocab.byte_tokens(), before_space(vocab));
        Ok(Spm { file: file.to_owned(), order, bytes, unknown, before_space, add_space_prefix })
    }

    /// Appends the ids of `text`, which follows a special token or the beginning if `first`.
    pub fn encode(&self, vocab: &Vocab, text: &str, first: bool, ids: &mut Vec<u32>) -> Result<()> {
        let mut escaped = String::with_capacity(text.len() + text.len() / 4);
        if first && self.add_space_prefix {
            escaped.push_str(SPACE);
        }
        text.split(' ').enumerate().for_each(|(i, part)| {
            if i > 0 {
                escaped.push_str(SPACE);
            }
            escaped.push_str(part);
        });

        let mut merger = Merger::default();
        let mut rest = escaped.as_str();
        while !rest.is_empty() {
            let (word, others) = rest.split_at_checked(self.independent(rest)).unwrap_or((rest, ""));
            self.encode_word(vocab, word, &mut merger, ids)?;
            rest = others;
        }
        Ok(())
    }

    /// Bytes of `text` before the first place that no token reaches across: before a `▁`, unless some token has one
    /// after the same character. Merging on either side of it is independent, and many short words are merged faster
    /// than one long one.
    fn independent(&self, text: &str) -> usize {
        let spaces = text.match_indices(SPACE).map(|(at, _)| at);
        let mut cuts = spaces.filter(|&at| match text.get(..at).and_then(|before| before.chars().next_back()) {
            None | Some('▁') => false,
            Some(c) => self.before_space.binary_search(&c).is_err(),
        });
        cuts.next().unwrap_or(text.len())
    }

    fn encode_word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, ids: &mut Vec<u32>) -> Result<()> {
        merger.clear();
        for (start, c) in word.char_indices() {
            let len = c.len_utf8();
            let id = word.get(start..start + len).and_then(|c| vocab.find(c)).unwrap_or(NO_ID);
            merger.push(start as u32, len as u32, id);
        }
        merger.run(|l, r| self.join(vocab, word, l, r));
        for piece in merger.pieces() {
            if piece.id != NO_ID {
                ids.push(piece.id);
            } else {
                let (start, end) = (piece.start as usize, (piece.start + piece.len) as usize);
                self.spell(word.as_bytes().get(start..end).unwrap_or_default(), ids)?;
            }
        }
        Ok(())
    }

    fn join(&self, vocab: &Vocab, text: &str, left: &Piece, right: &Piece) -> Option<Join> {
        let (start, len) = (left.start as usize, (left.len + right.len) as usize);
        if len > vocab.longest() {
            return None;
        }
        let id = vocab.find(text.get(start..start + len)?)?;
        let order = *self.order.get(id as usize)?;
        Some(Join { order, id })
    }

    /// Appends the ids of the bytes of a character, or the unknown token once if not all of them have tokens.
    fn spell(&self, bytes: &[u8], ids: &mut Vec<u32>) -> Result<()> {
        let start = ids.len();
        for &byte in bytes {
            match (self.bytes.get(byte as usize).copied().flatten(), self.unknown) {
                (Some(id), _) => ids.push(id),
                (None, Some(unknown)) => {
                    ids.truncate(start);
                    ids.push(unknown);
                    break;
                }
                (None, None) => {
                    let what = format!("the vocabulary has no token for byte 0x{byte:02X} and no unknown token");
                    return Err(Error::malformed(&self.file, what));
                }
            }
        }
        Ok(())
    }
}

/// The characters other than `▁` that are followed by a `▁` in some token, sorted.
fn before_space(vocab: &Vocab) -> Vec<char> {
    let mut found = Vec::new();
    for text in (0..vocab.len() as u32).filter_map(|id| vocab.text(id)) {
        let mut parts = text.split(SPACE).peekable();
        while let Some(part) = parts.next() {
            found.extend(part.chars().next_back().filter(|_| parts.peek().is_some()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// An integer that is the smaller, the greater the score is; equal for scores that are equal.
fn descending(score: f32) -> u32 {
    let bits = (score + 0.0).to_bits(); // -0.0 becomes 0.0
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gguf::Strings;

    #[test]
    fn words_are_cut_where_no_token_reaches_across() {
        let texts: Strings = ["<unk>", "▁a", "b▁", "▁▁", "c"].into_iter().collect();
        let vocab = Vocab::new("test", texts, None).unwrap();
        let spm = Spm::new("test", &vocab, &[0.0; 5], Some(0), false).unwrap();
        assert_eq!(spm.before_space, ['b']);
        assert_eq!(spm.independent("▁▁ab▁ca▁▁a"), "▁▁ab▁ca".len());
        assert_eq!(spm.independent("▁"), "▁".len());
    }

    #[test]
    fn order_of_scores() {
        let sorted = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -1.0, -31999.0, f32::NEG_INFINITY];
        for pair in sorted.windows(2) {
            assert!(descending(pair[0]) < descending(pair[1]), "{pair:?}");
        }
        assert_eq!(descending(0.0), descending(-0.0));
    }
}
