//! Text to token ids and back, from GGUF metadata or a `tokenizer.json`.
//!
//! From metadata, text is cut at special tokens (`special`), then encoded by one of three algorithms: BPE from merges
//! (`pre` names the ways to cut words, `split` runs them, `bpe` merges), SentencePiece BPE from scores (`spm`), or
//! WordPiece (`wordpiece`). These encoders are our own: they share one merge loop over ids (`merge`), no text makes them
//! slower than `n log n`, and they load and encode about three times as fast as the library that a `tokenizer.json`, which
//! can say much more, is left to (`json`).
//!
//! Ids are those of llama.cpp, except where it departs from the tokenizer that a model was trained with:
//! - special tokens are taken from the left, the longest at each place, not the longest of all first;
//! - `</s>` is a control token only where the vocabulary says so;
//! - patterns keep their own Unicode categories, which `std::regex` cannot express (`tekken`, `gpt-4o`, `kimi-k2`);
//! - WordPiece strips accents but not other marks, and words of more than 100 characters are unknown.
//!
//! [`Tokenizer::token_bytes`] gives the bytes of one token, [`TextStream`] makes text of them as they come, and
//! [`Tokenizer::decode`] does both for a whole sequence.

#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod bpe;
mod bytes;
mod json;
mod merge;
mod metadata;
mod pre;
mod render;
mod special;
mod split;
mod spm;
mod stream;
#[cfg(test)]
mod tests;
mod vocab;
mod wordpiece;

pub use stream::TextStream;

use crate::error::{Error, Result};
use crate::gguf::Metadata;
use bpe::Bpe;
use json::Json;
use render::Renderer;
use special::{Fragment, Specials};
use spm::Spm;
use vocab::{Kind, Vocab};
use wordpiece::WordPiece;

/// Bytes of the longest text that is encoded at once; offsets are 32 bits wide, and a space can become three bytes.
pub const MAX_TEXT_BYTES: usize = 1 << 30;

/// What the file does not decide.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The pre-tokenizer of a byte-level BPE by name, in place of `tokenizer.ggml.pre`: for files that name none or one
    /// that is not known.
    pub pre: Option<String>,
}

/// A vocabulary and the way between text and its ids. Immutable: share it between threads as it is.
#[derive(Debug)]
pub struct Tokenizer {
    file: String,
    vocab: Vocab,
    encoder: Encoder,
    renderer: Renderer,
    specials: Specials,
    ids: Ids,
    /// What `add_special` puts before a text.
    first: Option<u32>,
    /// What `add_special` puts after a text.
    last: Option<u32>,
    /// Sorted.
    ends: Vec<u32>,
}

#[derive(Debug)]
enum Encoder {
    Bpe(Bpe),
    Spm(Spm),
    WordPiece(WordPiece),
    Json(Box<Json>),
}

/// The tokens with a role.
#[derive(Debug, Clone, Default)]
struct Ids {
    bos: Option<u32>,
    eos: Option<u32>,
    eot: Option<u32>,
    eom: Option<u32>,
    unk: Option<u32>,
    sep: Option<u32>,
    pad: Option<u32>,
    mask: Option<u32>,
}

impl Tokenizer {
    /// The tokenizer that the keys `tokenizer.ggml.*` describe.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tokenizer model or pre-tokenizer that is not served, by its name;
    /// [`Error::Malformed`] for keys that are missing, of another type or that contradict each other;
    /// [`Error::Argument`] for an option that means nothing to this tokenizer.
    pub fn from_metadata(meta: &Metadata, options: &Options) -> Result<Tokenizer> {
        metadata::read(meta, options)
    }

    /// The tokenizer of a Hugging Face `tokenizer.json`. `file` is its name for messages.
    ///
    /// The format does not name BOS and EOS: they are found by well-known texts and by what the tokenizer puts around
    /// an empty text. Settings for truncation and padding are ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`] for what is no tokenizer, [`Error::Unsupported`] for a decoder that has no form token by token.
    pub fn from_json(file: &str, json: &[u8]) -> Result<Tokenizer> {
        let json::Parts { json, mut vocab, renderer } = Json::read(file, json)?;
        let around = json.encode("", true, true)?;
        let known = |texts: &[&str]| texts.iter().find_map(|t| vocab.find(t));
        let eos = known(&["</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]"]);
        let (first, last) = match *around.as_slice() {
            [] => (None, None),
            [only] if Some(only) == eos => (None, eos),
            [only] => (Some(only), None),
            [first, .., last] => (Some(first), Some(last)),
        };
        let ids = Ids {
            bos: first.or_else(|| known(&["<s>", "<bos>", "<|begin_of_text|>", "[CLS]"])),
            eos,
            eot: special::end_of_turn(&vocab),
            unk: known(&["<unk>", "[UNK]"]),
            sep: known(&["[SEP]"]),
            pad: known(&["<pad>", "[PAD]", "<|pad|>"]),
            ..Ids::default()
        };
        let ends = special::ends_of_generation(&mut vocab, &[ids.eos, ids.eot]);
        Ok(Tokenizer {
            file: file.to_owned(),
            vocab,
            encoder: Encoder::Json(Box::new(json)),
            renderer,
            specials: Specials::default(),
            ids,
            first,
            last,
            ends,
        })
    }

    /// The ids of `text`.
    ///
    /// With `add_special`, BOS, EOS or what else the metadata asks for goes around it, even if the text has it already.
    /// With `parse_special`, the texts of control tokens in `text` become those tokens; without, they are text like any
    /// other, as befits what a user typed.
    ///
    /// # Errors
    /// [`Error::Argument`] beyond [`MAX_TEXT_BYTES`]; [`Error::Malformed`] if the vocabulary has no way to write some
    /// byte of the text.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_BYTES {
            let what = format!("a text of {} bytes; at most {MAX_TEXT_BYTES} are encoded at once", text.len());
            return Err(Error::argument(what));
        }
        if let Encoder::Json(json) = &self.encoder {
            return json.encode(text, add_special, parse_special);
        }
        let mut ids = Vec::with_capacity(text.len() / 4 + 2);
        ids.extend(self.first.filter(|_| add_special));
        let mut after_special = true;
        for fragment in self.specials.partition(&self.vocab, text, parse_special) {
            match (&fragment, &self.encoder) {
                (Fragment::Token(id), _) => ids.push(*id),
                (Fragment::Text(text), Encoder::Bpe(bpe)) => bpe.encode(&self.vocab, text, &mut ids)?,
                (Fragment::Text(text), Encoder::Spm(spm)) => spm.encode(&self.vocab, text, after_special, &mut ids)?,
                (Fragment::Text(text), Encoder::WordPiece(wp)) => wp.encode(&self.vocab, text, &mut ids)?,
                (Fragment::Text(_), Encoder::Json(_)) => {}
            }
            after_special = matches!(fragment, Fragment::Token(_));
        }
        ids.extend(self.last.filter(|_| add_special));
        Ok(ids)
    }

    /// Appends the bytes of token `id` to `out`: possibly a part of a character (see [`TextStream`]). A control or
    /// unknown token gives its text if `special`, else nothing.
    ///
    /// # Errors
    /// [`Error::Argument`] for an id beyond the vocabulary.
    pub fn token_bytes(&self, id: u32, special: bool, out: &mut Vec<u8>) -> Result<()> {
        self.check(id)?;
        self.renderer.push(&self.vocab, id, special, out);
        Ok(())
    }

    /// The text of `ids` as one text: with U+FFFD for what is no UTF-8, and without the space that encoding puts in
    /// front. `special` is that of [`Tokenizer::token_bytes`].
    ///
    /// # Errors
    /// [`Error::Argument`] for an id beyond the vocabulary.
    pub fn decode(&self, ids: &[u32], special: bool) -> Result<String> {
        ids.iter().try_for_each(|&id| self.check(id))?;
        Ok(self.renderer.decode(&self.vocab, ids, special))
    }

    fn check(&self, id: u32) -> Result<()> {
        if (id as usize) < self.vocab.len() {
            return Ok(());
        }
        let n = self.vocab.len();
        Err(Error::argument(format!("token id {id}: the vocabulary of {} has {n} tokens", self.file)))
    }

    /// How many tokens there are; ids are below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The text of token `id` as the vocabulary stores it, with `Ġ` or `▁` for spaces.
    pub fn token_text(&self, id: u32) -> Option<&str> {
        self.vocab.text(id)
    }

    /// The token that is stored as `text`.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.vocab.find(text)
    }

    /// Whether token `id` steers the model and is no text. False beyond the vocabulary.
    pub fn is_control(&self, id: u32) -> bool {
        self.vocab.kind(id) == Some(Kind::Control)
    }

    /// Whether a model that gives token `id` has finished: EOS, end of turn, end of message, and tokens with texts that
    /// are known to mean such.
    pub fn is_end_of_generation(&self, id: u32) -> bool {
        self.ends.binary_search(&id).is_ok()
    }

    /// All tokens for which [`Tokenizer::is_end_of_generation`] holds, in order.
    pub fn ends_of_generation(&self) -> &[u32] {
        &self.ends
    }

    /// Beginning of sequence (`[CLS]` for BERT).
    pub fn bos(&self) -> Option<u32> {
        self.ids.bos
    }

    /// End of sequence.
    pub fn eos(&self) -> Option<u32> {
        self.ids.eos
    }

    /// End of turn.
    pub fn eot(&self) -> Option<u32> {
        self.ids.eot
    }

    /// End of message, where a turn goes on after it.
    pub fn eom(&self) -> Option<u32> {
        self.ids.eom
    }

    /// What stands for text that the vocabulary cannot express.
    pub fn unk(&self) -> Option<u32> {
        self.ids.unk
    }

    /// Separator of texts.
    pub fn sep(&self) -> Option<u32> {
        self.ids.sep
    }

    /// Padding.
    pub fn pad(&self) -> Option<u32> {
        self.ids.pad
    }

    /// The mask of masked language models.
    pub fn mask(&self) -> Option<u32> {
        self.ids.mask
    }

    /// Whether `add_special` puts BOS before a text.
    pub fn add_bos(&self) -> bool {
        self.first.is_some()
    }

    /// Whether `add_special` puts EOS (or the separator) after a text.
    pub fn add_eos(&self) -> bool {
        self.last.is_some()
    }
}
