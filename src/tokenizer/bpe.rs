//! BPE with a table of merges: byte-level as in GPT-2, or over characters as in Gemma 4.

use std::collections::HashMap;

use ahash::RandomState;

use super::bytes;
use super::merge::{Join, Merger, NO_ID};
use super::pre::{Alphabet, Pre};
use super::split::Splitter;
use super::spm::SPACE;
use super::vocab::{Vocab, excerpt};
use crate::error::{Error, Result};
use crate::gguf::Strings;

/// What pairs of tokens join to. The hash is keyed at random, as that of the vocabulary.
type Merges = HashMap<u64, Join, RandomState>;

/// The encoder.
#[derive(Debug)]
pub(super) struct Bpe {
    splitter: Splitter,
    whole_words: bool,
    alphabet: Alphabet,
    /// What each pair of tokens, as `left << 32 | right`, joins to.
    merges: Merges,
    /// The token of each byte: of the character that stands for it, or of `<0xNN>`.
    bytes: [Option<u32>; 256],
}

impl Bpe {
    /// An encoder for `vocab` with `merges` (two texts and a space between them, best first), which cuts words as
    /// `pre` says.
    ///
    /// # Errors
    /// A merge that is no pair, or whose parts or result are not in the vocabulary.
    pub fn new(file: &str, vocab: &Vocab, merges: &Strings, pre: &Pre) -> Result<Bpe> {
        let bytes = match pre.alphabet {
            Alphabet::Bytes => bytes::CHARS.map(|c| vocab.find(c.encode_utf8(&mut [0; 4]))),
            Alphabet::Text { .. } => vocab.byte_tokens(),
        };
        Ok(Bpe {
            splitter: Splitter::new(pre.steps)?,
            whole_words: pre.whole_words,
            alphabet: pre.alphabet,
            merges: read_merges(file, vocab, merges)?,
            bytes,
        })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut merger = Merger::default();
        let mut written = String::new();
        match self.alphabet {
            Alphabet::Bytes => self.splitter.split(text, &mut |word| {
                if self.whole_words {
                    written.clear();
                    written.extend(word.bytes().map(|b| bytes::CHARS.get(b as usize).copied().unwrap_or_default()));
                    if let Some(id) = vocab.find(&written) {
                        ids.push(id);
                        return Ok(());
                    }
                }
                merger.clear();
                for (at, &byte) in word.as_bytes().iter().enumerate() {
                    merger.push(at as u32, 1, self.bytes.get(byte as usize).copied().flatten().unwrap_or(NO_ID));
                }
                self.join(word, &mut merger, ids);
                Ok(())
            }),
            Alphabet::Text { whole_newlines } => self.splitter.split(&text.replace(' ', SPACE), &mut |word| {
                let whole = self.whole_words || whole_newlines && word.bytes().all(|b| b == b'\n');
                if let Some(id) = vocab.find(word).filter(|_| whole) {
                    ids.push(id);
                    return Ok(());
                }
                merger.clear();
                for (at, c) in word.char_indices() {
                    let id = vocab.find(c.encode_utf8(&mut [0; 4])).unwrap_or(NO_ID);
                    merger.push(at as u32, c.len_utf8() as u32, id);
                }
                self.join(word, &mut merger, ids);
                Ok(())
            }),
        }
    }

    /// Merges the pieces of `word` and appends their ids. A byte that has no token goes: vocabularies trained on text
    /// lack bytes that begin planes of Unicode without characters, and an unknown token, where a file names one, is
    /// often its end of text.
    fn join(&self, word: &str, merger: &mut Merger, ids: &mut Vec<u32>) {
        merger.run(|l, r| self.merges.get(&pair(l.id, r.id)).copied());
        for piece in merger.pieces() {
            if piece.id != NO_ID {
                ids.push(piece.id);
            } else {
                let (start, end) = (piece.start as usize, (piece.start + piece.len) as usize);
                let bytes = word.as_bytes().get(start..end).unwrap_or_default();
                ids.extend(bytes.iter().filter_map(|&byte| self.bytes.get(byte as usize).copied().flatten()));
            }
        }
    }
}

fn pair(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

fn read_merges(file: &str, vocab: &Vocab, merges: &Strings) -> Result<Merges> {
    /// Merges whose tokens are looked up at a time.
    const BATCH: usize = 16;
    let mut table = Merges::with_capacity_and_hasher(merges.len(), RandomState::new());
    let mut joined = String::new();
    // Most vocabularies have the tokens that merges make in the order of the merges: one is looked for behind the last.
    let mut next = 0;
    for first in (0..merges.len()).step_by(BATCH) {
        let batch: [_; BATCH] =
            std::array::from_fn(|i| merges.get(first + i).map(|merge| (merge, parts(merge).unwrap_or_default())));
        let texts = batch.map(|merge| merge.map_or(("", ""), |(_, parts)| parts));
        let ids = vocab.find_all(texts.map(|(left, _)| left)).into_iter().zip(vocab.find_all(texts.map(|(_, right)| right)));
        for ((rank, (merge, (left, right))), ids) in (first..).zip(batch.into_iter().flatten()).zip(ids) {
            joined.clear();
            joined.push_str(left);
            joined.push_str(right);
            let id = if vocab.text(next) == Some(&joined) { Some(next) } else { vocab.find(&joined) };
            let ((Some(left), Some(right)), Some(id)) = (ids, id) else {
                let what = format!(
                    "merge {rank} of 'tokenizer.ggml.merges', '{}', does not name two tokens that make a third",
                    excerpt(merge)
                );
                return Err(Error::malformed(file, what));
            };
            next = id.saturating_add(1);
            table.entry(pair(left, right)).or_insert(Join { order: rank as u32, id });
        }
    }
    Ok(table)
}

/// The two texts of a merge. A space that is the first byte belongs to the left one.
fn parts(merge: &str) -> Option<(&str, &str)> {
    let at = 1 + merge.as_bytes().get(1..)?.iter().position(|&b| b == b' ')?;
    Some((merge.get(..at)?, merge.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn parts_of_a_merge() {
        assert_eq!(parts("Ġ t"), Some(("Ġ", "t")));
        assert_eq!(parts("  a"), Some((" ", "a")));
        assert_eq!([parts("ab"), parts(""), parts(" ")], [None; 3]);
    }
}
