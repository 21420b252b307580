//! The tokenizer of a GGUF file: the keys `tokenizer.ggml.*`.

use super::bpe::Bpe;
use super::pre::{self, Alphabet};
use super::render::{Form, Renderer};
use super::special::{Specials, end_of_turn, ends_of_generation, strips};
use super::spm::Spm;
use super::vocab::{Kind, Vocab};
use super::wordpiece::WordPiece;
use super::{Encoder, Ids, Options, Tokenizer};
use crate::error::{Error, Result};
use crate::gguf::{Array, Metadata, Value};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";

/// What a tokenizer model is, and what it means where the metadata is silent.
struct Model {
    encoder: Encoder,
    renderer: Renderer,
    /// Default ids; those beyond the vocabulary count for nothing.
    ids: Ids,
    add_bos: bool,
    add_last: bool,
}

/// Reads the tokenizer that `meta` describes.
pub(super) fn read(meta: &Metadata, options: &Options) -> Result<Tokenizer> {
    let file = meta.file();
    let name = meta.string(MODEL)?.ok_or_else(|| meta.missing(MODEL))?;
    if options.pre.is_some() && !matches!(name, "gpt2" | "gemma4") {
        let what = format!("{file}: the option 'pre' has no meaning for the tokenizer model '{name}'");
        return Err(Error::argument(what));
    }
    let read_model = match name {
        "gpt2" | "gemma4" => bpe,
        "llama" => spm,
        "bert" => wordpiece,
        other => {
            let what = format!(
                "the tokenizer model '{other}' (metadata key '{MODEL}'); 'gpt2' (byte-level BPE), 'llama' \
                 (SentencePiece BPE), 'gemma4' and 'bert' (WordPiece) are served"
            );
            return Err(Error::unsupported(file, what));
        }
    };
    let mut vocab = read_vocab(meta)?;
    let Model { encoder, renderer, ids, add_bos, add_last } = read_model(meta, options, &vocab)?;

    let mut ids = read_ids(meta, &vocab, &ids)?;
    ids.eot = ids.eot.or_else(|| end_of_turn(&vocab));
    let first = edge(meta, "tokenizer.ggml.add_bos_token", add_bos, "bos", ids.bos)?;
    let last = match encoder {
        Encoder::WordPiece(_) => edge(meta, "tokenizer.ggml.add_sep_token", add_last, "seperator", ids.sep)?,
        _ => edge(meta, "tokenizer.ggml.add_eos_token", add_last, "eos", ids.eos)?,
    };

    let ends = ends_of_generation(&mut vocab, &[ids.eos, ids.eot, ids.eom]);
    let text = |key: &str| meta.string(key).map(Option::unwrap_or_default);
    let strips = strips(&vocab, text("general.name")?, text("general.architecture")?, text(PRE)?);
    let specials = Specials::new(&vocab, strips);
    Ok(Tokenizer { file: file.to_owned(), vocab, encoder, renderer, specials, ids, first, last, ends })
}

fn bpe(meta: &Metadata, options: &Options, vocab: &Vocab) -> Result<Model> {
    let gemma4 = meta.string(MODEL)? == Some("gemma4");
    let stored = meta.string(PRE)?.filter(|name| !gemma4 && !name.is_empty());
    let default = if gemma4 { "gemma4" } else { pre::DEFAULT };
    let row = pre::find(meta.file(), options.pre.as_deref().or(stored).unwrap_or(default))?;
    let merges = meta.strings(MERGES)?.ok_or_else(|| meta.missing(MERGES))?;
    let encoder = Encoder::Bpe(Bpe::new(meta.file(), vocab, merges, row)?);
    let form = if row.alphabet == Alphabet::Bytes { Form::Bytes } else { Form::Spaces };
    let renderer = Renderer { form, strip_first_space: false, clean_up: false };
    Ok(Model { encoder, renderer, ids: Ids::default(), add_bos: row.add_bos, add_last: false })
}

fn spm(meta: &Metadata, _: &Options, vocab: &Vocab) -> Result<Model> {
    let ids = Ids { bos: Some(1), eos: Some(2), unk: Some(0), ..Ids::default() };
    let prefix = meta.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let scores = read_scores(meta, vocab.len())?;
    let encoder = Encoder::Spm(Spm::new(meta.file(), vocab, &scores, id(meta, vocab, "unknown", ids.unk)?, prefix)?);
    let renderer = Renderer { form: Form::Spaces, strip_first_space: prefix, clean_up: false };
    Ok(Model { encoder, renderer, ids, add_bos: true, add_last: false })
}

fn wordpiece(meta: &Metadata, _: &Options, vocab: &Vocab) -> Result<Model> {
    let cls = id(meta, vocab, "cls", Some(101))?;
    let ids = Ids { bos: cls, sep: Some(102), unk: Some(100), pad: Some(0), ..Ids::default() };
    let lowercase = meta.bool("tokenizer.ggml.normalizer.lowercase")?.unwrap_or(true);
    let accents = meta.bool("tokenizer.ggml.normalizer.strip_accents")?.unwrap_or(lowercase);
    let unknown = id(meta, vocab, "unknown", ids.unk)?.ok_or_else(|| meta.missing(&id_key("unknown")))?;
    let encoder = Encoder::WordPiece(WordPiece::new(lowercase, accents, unknown)?);
    let renderer = Renderer { form: Form::Spaces, strip_first_space: true, clean_up: true };
    Ok(Model { encoder, renderer, ids, add_bos: true, add_last: true })
}

fn read_vocab(meta: &Metadata) -> Result<Vocab> {
    let texts = meta.strings(TOKENS)?.ok_or_else(|| meta.missing(TOKENS))?;
    let kinds = match meta.i32s(TOKEN_TYPE)? {
        None => None,
        Some(numbers) => {
            same_length(meta, TOKEN_TYPE, numbers.len(), texts.len())?;
            let kind = |(id, &n): (usize, &i32)| {
                let what = || format!("'{TOKEN_TYPE}' is {n} for token {id}; 1 to 6 are defined");
                Kind::from_number(n).ok_or_else(|| Error::malformed(meta.file(), what()))
            };
            Some(numbers.iter().enumerate().map(kind).collect::<Result<_>>()?)
        }
    };
    Vocab::new(meta.file(), texts.clone(), kinds)
}

/// One score per token; writers use float32, and int32 for ranks.
fn read_scores(meta: &Metadata, n: usize) -> Result<Vec<f32>> {
    let scores = match meta.array(SCORES)?.ok_or_else(|| meta.missing(SCORES))? {
        Array::F32(scores) => scores.clone(),
        Array::I32(scores) => scores.iter().map(|&s| s as f32).collect(),
        _ => return Err(Error::malformed(meta.file(), format!("'{SCORES}' is no array of float32 or int32"))),
    };
    same_length(meta, SCORES, scores.len(), n)?;
    Ok(scores)
}

fn same_length(meta: &Metadata, key: &str, n: usize, tokens: usize) -> Result<()> {
    if n == tokens {
        return Ok(());
    }
    Err(Error::malformed(meta.file(), format!("'{key}' has {n} elements for the {tokens} of '{TOKENS}'")))
}

fn read_ids(meta: &Metadata, vocab: &Vocab, defaults: &Ids) -> Result<Ids> {
    let strict = |name, default| id(meta, vocab, name, default);
    // Nothing that this library does depends on these, and published files carry ids of tokens that a resized
    // vocabulary no longer has: such an id counts for nothing.
    let lenient = |name, default| id(meta, vocab, name, default).unwrap_or(None);
    Ok(Ids {
        bos: strict("bos", defaults.bos)?,
        eos: strict("eos", defaults.eos)?,
        eot: strict("eot", defaults.eot)?,
        eom: strict("eom", defaults.eom)?,
        unk: strict("unknown", defaults.unk)?,
        sep: lenient("seperator", defaults.sep),
        pad: lenient("padding", defaults.pad),
        mask: lenient("mask", defaults.mask),
    })
}

fn id_key(name: &str) -> String {
    format!("tokenizer.ggml.{name}_token_id")
}

/// The token id that `tokenizer.ggml.{name}_token_id` names; -1 of either signedness means none.
fn id(meta: &Metadata, vocab: &Vocab, name: &str, default: Option<u32>) -> Result<Option<u32>> {
    let in_vocab = |id: u64| u32::try_from(id).ok().filter(|&id| (id as usize) < vocab.len());
    let key = id_key(name);
    let Some(value) = meta.get(&key) else { return Ok(default.and_then(|id| in_vocab(id.into()))) };
    match (value.as_u64(), value) {
        (Some(id), _) if id == u64::from(u32::MAX) => Ok(None),
        (Some(id), _) => in_vocab(id).map(Some).ok_or_else(|| {
            let what = format!("'{key}' is {id}, but the vocabulary has {} tokens", vocab.len());
            Error::malformed(meta.file(), what)
        }),
        (None, Value::I8(_) | Value::I16(_) | Value::I32(_) | Value::I64(_)) => Ok(None),
        (None, other) => {
            let what = format!("metadata key '{key}' has type {}, expected an unsigned integer", other.type_name());
            Err(Error::malformed(meta.file(), what))
        }
    }
}

/// The token that goes before or after every text: `id` if the flag says so. A flag that is absent, `default`,
/// needs a token to act on; one that is set has to be met or refused.
fn edge(meta: &Metadata, flag: &str, default: bool, name: &str, id: Option<u32>) -> Result<Option<u32>> {
    match meta.bool(flag)? {
        Some(true) if id.is_none() => {
            let what = format!("'{flag}' is true, but '{}' names no token", id_key(name));
            Err(Error::malformed(meta.file(), what))
        }
        flag => Ok(id.filter(|_| flag.unwrap_or(default))),
    }
}
