//! `tokenizer.json`, the format of Hugging Face's `tokenizers`, by that library itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use tokenizers::decoders::DecoderWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::tokenizer::Tokenizer as Reference;

use super::render::{Form, Renderer};
use super::vocab::{Kind, Vocab};
use crate::error::{Error, Result};
use crate::gguf::Strings;

/// Rows that the ids of a vocabulary of `n` texts may leave empty.
fn holes_allowed(n: usize) -> usize {
    n.saturating_mul(4).saturating_add(1 << 16)
}

/// The encoder.
#[derive(Debug)]
pub(super) struct Json {
    file: String,
    /// Finds special tokens in text.
    parsing: Reference,
    /// Takes their texts for text; made when it is first asked for, because the library keeps this choice in the
    /// tokenizer and a copy costs a vocabulary.
    literal: OnceLock<Box<Reference>>,
}

/// What a `tokenizer.json` says: the encoder, the vocabulary and the way back.
pub(super) struct Parts {
    pub json: Json,
    pub vocab: Vocab,
    pub renderer: Renderer,
}

impl Json {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// JSON that is no tokenizer; ids that are far apart; a decoder that has no form byte by byte.
    pub fn read(file: &str, json: &[u8]) -> Result<Parts> {
        let parsed = guard(file, || Reference::from_bytes(json))?;
        let mut parsing = parsed.map_err(|e| Error::malformed(file, format!("no tokenizer.json: {e}")))?;
        // A prompt is encoded as it is; both are settings for training batches.
        parsing.with_padding(None);
        let reset = parsing.with_truncation(None).map(|_| ());
        reset.map_err(|e| Error::malformed(file, format!("tokenizer.json: {e}")))?;
        parsing.set_encode_special_tokens(false);

        let renderer = renderer(file, parsing.get_decoder())?;
        let vocab = vocab(file, &parsing, &renderer)?;
        Ok(Parts { json: Json { file: file.to_owned(), parsing, literal: OnceLock::new() }, vocab, renderer })
    }

    /// The ids of `text`.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        let tokenizer = if parse_special {
            &self.parsing
        } else {
            self.literal.get_or_init(|| {
                let mut literal = Box::new(self.parsing.clone());
                literal.set_encode_special_tokens(true);
                literal
            })
        };
        let encoding = guard(&self.file, || tokenizer.encode_fast(text, add_special))?;
        let encoding = encoding.map_err(|e| Error::malformed(&self.file, format!("encoding failed: {e}")))?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Calls into the library, whose panics on files that it did not foresee become errors.
fn guard<T>(file: &str, call: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| Error::malformed(file, "the tokenizer.json is inconsistent: the library for it gave up"))
}

/// The vocabulary with the added tokens. Ids that no text has are rows that nothing matches.
fn vocab(file: &str, tokenizer: &Reference, renderer: &Renderer) -> Result<Vocab> {
    let mut tokens: Vec<(u32, String)> = tokenizer.get_vocab(true).into_iter().map(|(t, id)| (id, t)).collect();
    tokens.sort_unstable();
    let rows = tokens.last().map_or(0, |t| t.0 as usize + 1);
    if rows > holes_allowed(tokens.len()) {
        let what = format!("token id {} in a vocabulary of {} tokens", rows - 1, tokens.len());
        return Err(Error::malformed(file, what));
    }
    let added = tokenizer.get_added_tokens_decoder();
    let mut texts = Strings::default();
    let mut kinds = Vec::with_capacity(rows);
    for (id, text) in &tokens {
        let row = *id as usize;
        if row < texts.len() {
            return Err(Error::malformed(file, format!("two tokens have id {id}")));
        }
        while texts.len() < row {
            texts.push("");
            kinds.push(Kind::Unused);
        }
        texts.push(text);
        kinds.push(match added.get(id) {
            Some(token) if token.special => Kind::Control,
            Some(_) => Kind::UserDefined,
            None if renderer.form == Form::Spaces && text.starts_with("<0x") => Kind::Byte,
            None => Kind::Normal,
        });
    }
    Vocab::new(file, texts, Some(kinds))
}

/// The form that the tokenizer's decoder amounts to.
fn renderer(file: &str, decoder: Option<&DecoderWrapper>) -> Result<Renderer> {
    let spaces = |strip_first_space| Renderer { form: Form::Spaces, strip_first_space, clean_up: false };
    let unsupported = |name: &str| Error::unsupported(file, format!("tokenizer.json: the decoder '{name}'"));
    Ok(match decoder {
        Some(DecoderWrapper::ByteLevel(_)) => Renderer { form: Form::Bytes, strip_first_space: false, clean_up: false },
        Some(DecoderWrapper::WordPiece(d)) => {
            Renderer { form: Form::Words(d.prefix.clone()), strip_first_space: true, clean_up: d.cleanup }
        }
        Some(DecoderWrapper::Metaspace(d)) => spaces(d.prepend_scheme != PrependScheme::Never),
        Some(DecoderWrapper::Sequence(d)) => {
            let steps = d.get_decoders();
            if let Some(bytes) = steps.iter().find(|s| matches!(s, DecoderWrapper::ByteLevel(_))) {
                return renderer(file, Some(bytes));
            }
            if steps.iter().any(|s| matches!(s, DecoderWrapper::BPE(_) | DecoderWrapper::CTC(_))) {
                return Err(unsupported("Sequence of BPEDecoder or CTC"));
            }
            spaces(steps.iter().any(|s| match s {
                DecoderWrapper::Strip(strip) => strip.content == ' ' && strip.start > 0,
                DecoderWrapper::Metaspace(m) => m.prepend_scheme != PrependScheme::Never,
                _ => false,
            }))
        }
        Some(DecoderWrapper::Fuse(_) | DecoderWrapper::ByteFallback(_) | DecoderWrapper::Replace(_)) => spaces(false),
        Some(DecoderWrapper::Strip(d)) => spaces(d.content == ' ' && d.start > 0),
        // Without a decoder the library puts a space between tokens.
        None => Renderer { form: Form::Words("\0".into()), strip_first_space: true, clean_up: false },
        Some(DecoderWrapper::BPE(_)) => return Err(unsupported("BPEDecoder")),
        Some(DecoderWrapper::CTC(_)) => return Err(unsupported("CTC")),
    })
}
