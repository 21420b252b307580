//! WordPiece, the tokenizer of BERT: cleaned words, each covered by the longest pieces from the left.
//!
//! GGUF marks the pieces that begin a word with `▁`; the others continue one. (In `vocab.txt` it is the others that
//! are marked, with `##`.)

use regex_automata::meta::Regex;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::{NormalizedString, Normalizer};

use super::spm::SPACE;
use super::vocab::Vocab;
use crate::error::{Error, Result};

/// Characters of the longest word that is looked at: a longer one is unknown, as in BERT's own code.
const MAX_WORD_CHARS: usize = 100;

/// The encoder.
#[derive(Debug)]
pub(super) struct WordPiece {
    normalizer: BertNormalizer,
    words: Regex,
    unknown: u32,
}

impl WordPiece {
    /// An encoder that maps to lower case and strips accents as told, and writes `unknown` for words that no pieces
    /// cover.
    pub fn new(lowercase: bool, strip_accents: bool, unknown: u32) -> Result<WordPiece> {
        let words = Regex::new(r"[!-/:-@\[-`{-~\p{P}]|[^\s!-/:-@\[-`{-~\p{P}]+")
            .map_err(|e| Error::Internal(format!("the words of WordPiece: {e}")))?;
        let normalizer = BertNormalizer::new(true, true, Some(strip_accents), lowercase);
        Ok(WordPiece { normalizer, words, unknown })
    }

    /// Appends the ids of `text`.
    pub fn encode(&self, vocab: &Vocab, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut marked = String::new();
        // Cleaning keeps a table of offsets per byte: in parts, it stays small.
        for part in text.split([' ', '\t', '\n', '\r']).filter(|p| !p.is_empty()) {
            let mut clean = NormalizedString::from(part);
            self.normalizer.normalize(&mut clean).map_err(|e| Error::Internal(format!("BERT normalizer: {e}")))?;
            for found in self.words.find_iter(clean.get()) {
                marked.clear();
                marked.push_str(SPACE);
                marked.push_str(clean.get().get(found.range()).unwrap_or_default());
                self.cover(vocab, &marked, ids);
            }
        }
        Ok(())
    }

    /// Appends the longest pieces of `word`, or the unknown token if they do not cover it.
    fn cover(&self, vocab: &Vocab, word: &str, ids: &mut Vec<u32>) {
        let start = ids.len();
        let short = word.chars().nth(SPACE.chars().count() + MAX_WORD_CHARS).is_none();
        let mut rest = word;
        while !rest.is_empty() {
            let ends = rest.char_indices().map(|(at, c)| at + c.len_utf8()).filter(|&end| end <= vocab.longest());
            let piece =
                if short { ends.rev().find_map(|end| Some((vocab.find(rest.get(..end)?)?, end))) } else { None };
            match piece {
                Some((id, end)) => {
                    ids.push(id);
                    rest = rest.get(end..).unwrap_or_default();
                }
                None => {
                    ids.truncate(start);
                    ids.push(self.unknown);
                    return;
                }
            }
        }
    }
}
