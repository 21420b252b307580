//! Real vocabularies against llama.cpp's ids, and hostile ones.

use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value as JsonValue, json};

use super::*;
use crate::gguf::{Array, Header, MappedSource, Strings, Value};

const VOCABS: [&str; 9] =
    ["bert-bge", "deepseek-coder", "falcon", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "starcoder"];

/// A file of the shared data folder, or a loud line where there is none.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ROCMFORGE_SHARED")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")), PathBuf::from);
    present(root.join(path))
}

/// A downloaded model.
fn cached(name: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    present(cache.join("rocmforge/models").join(name))
}

fn present(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
    eprintln!("SKIPPED: {} is missing", path.display());
    None
}

fn metadata(path: &Path) -> Metadata {
    Header::parse(&MappedSource::open(path).unwrap()).unwrap().metadata
}

fn vocab(name: &str) -> Option<Tokenizer> {
    let path = shared(&format!("vocabs/ggml-vocab-{name}.gguf"))?;
    Some(Tokenizer::from_metadata(&metadata(&path), &Options::default()).unwrap())
}

/// The texts of `name`'s `.inp` file with the ids of its `.out` file.
fn cases(name: &str) -> Option<Vec<(String, Vec<u32>)>> {
    let read =
        |end: &str| Some(std::fs::read_to_string(shared(&format!("vocabs/ggml-vocab-{name}.gguf.{end}"))?).unwrap());
    let (texts, ids) = (read("inp")?, read("out")?);
    let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
    let ids: Vec<&str> = ids.split('\n').collect();
    assert_eq!(texts.len(), ids.len(), "{name}");
    let numbers = |line: &str| line.split_whitespace().map(|n| n.parse().unwrap()).collect();
    Some(texts.into_iter().zip(ids).map(|(t, i)| (t.to_owned(), numbers(i))).collect())
}

/// Metadata of a made-up file.
fn made(entries: Vec<(&str, Value)>) -> Metadata {
    let mut meta = Metadata::new("made.gguf");
    for (key, value) in entries {
        assert!(meta.insert(format!("tokenizer.ggml.{key}"), value));
    }
    meta
}

fn text(s: &str) -> Value {
    Value::String(s.to_owned())
}

fn texts(list: &[&str]) -> Value {
    Value::Array(Array::Strings(list.iter().copied().collect::<Strings>()))
}

fn from(entries: Vec<(&str, Value)>) -> Result<Tokenizer> {
    Tokenizer::from_metadata(&made(entries), &Options::default())
}

/// Byte-level BPE with the 256 bytes in order, then `more`.
fn byte_level(more: &[&str], merges: &[&str]) -> Vec<(&'static str, Value)> {
    let bytes: Vec<String> = bytes::CHARS.iter().map(|c| c.to_string()).collect();
    let all: Vec<&str> = bytes.iter().map(String::as_str).chain(more.iter().copied()).collect();
    vec![("model", text("gpt2")), ("pre", text("gpt-2")), ("tokens", texts(&all)), ("merges", texts(merges))]
}

/// The tokens of `entries` that follow its bytes become control tokens.
fn control_from(mut entries: Vec<(&'static str, Value)>, first: usize) -> Vec<(&'static str, Value)> {
    let Some((_, Value::Array(tokens))) = entries.iter().find(|e| e.0 == "tokens") else { panic!() };
    let kinds = (0..tokens.len()).map(|id| if id < first { 1 } else { 3 }).collect();
    entries.push(("token_type", Value::Array(Array::I32(kinds))));
    entries
}

#[test]
fn ids_equal_llama_cpp_s_for_all_nine_vocabularies() {
    for name in VOCABS {
        let (Some(tokenizer), Some(cases)) = (vocab(name), cases(name)) else { return };
        assert!(cases.len() > 40);
        for (text, ids) in cases {
            assert_eq!(tokenizer.encode(&text, false, false).unwrap(), ids, "{name}: {text:?}");
        }
    }
}

#[test]
fn decoding_gives_the_text_back() {
    for name in VOCABS {
        let (Some(tokenizer), Some(cases)) = (vocab(name), cases(name)) else { return };
        for (text, ids) in cases {
            let decoded = tokenizer.decode(&ids, false).unwrap();
            let mut stream = TextStream::default();
            let mut streamed = String::new();
            for id in &ids {
                let mut bytes = Vec::new();
                tokenizer.token_bytes(*id, false, &mut bytes).unwrap();
                streamed.push_str(stream.push(&bytes));
            }
            streamed.push_str(stream.finish());
            match name {
                // WordPiece forgets case, accents and spaces: only the words come back.
                "bert-bge" => {
                    let again = tokenizer.encode(&decoded, false, false).unwrap();
                    if !ids.contains(&100) && !text.contains('\'') {
                        assert_eq!(again, ids, "{text:?} → {decoded:?}");
                    }
                }
                "llama-spm" | "phi-3" => {
                    assert_eq!(decoded, text, "{name}");
                    assert_eq!(streamed.strip_prefix(' ').unwrap_or(&streamed), text, "{name}");
                }
                _ => {
                    assert_eq!(decoded, text, "{name}");
                    assert_eq!(streamed, text, "{name}");
                }
            }
        }
    }
}

/// The prompts of the golden files are encoded with BOS as the metadata says and with special tokens parsed.
fn golden(name: &str, model: Option<PathBuf>) {
    let (Some(golden), Some(model)) = (shared(&format!("golden/{name}.float32.json")), model) else { return };
    let golden: JsonValue = serde_json::from_slice(&std::fs::read(golden).unwrap()).unwrap();
    let tokenizer = Tokenizer::from_metadata(&metadata(&model), &Options::default()).unwrap();
    assert_eq!(tokenizer.vocab_size() as u64, golden["n_vocab"].as_u64().unwrap());
    assert_eq!(tokenizer.add_bos(), golden["add_bos"].as_bool().unwrap());
    assert_eq!(tokenizer.add_eos(), golden["add_eos"].as_bool().unwrap());
    assert_eq!(tokenizer.bos().map(u64::from), golden["bos"].as_u64());
    assert_eq!(tokenizer.eos().map(u64::from), golden["eos"].as_u64());
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 6);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = case["prompt_ids"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(text, true, true).unwrap(), ids, "{name}: {text:?}");
        for (id, hex) in ids.iter().zip(case["prompt_pieces_hex"].as_array().unwrap()) {
            let mut bytes = Vec::new();
            tokenizer.token_bytes(*id, true, &mut bytes).unwrap();
            let written: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(written, hex.as_str().unwrap(), "{name}: token {id}");
        }
    }
}

#[test]
fn golden_prompts_of_stories260k() {
    golden("stories260K-f32.v3", shared("models/stories260K-f32.v3.gguf"));
    golden("stories260K-f32.v3", shared("models/tinyllamas-stories-260k-f32.gguf"));
}

#[test]
fn golden_prompts_of_downloaded_models() {
    for name in ["SmolLM2-135M-Instruct.Q4_1", "gemma-3-270m-q4_k_m", "qwen2.5-coder-0.5b-instruct-q4_k_m"] {
        golden(name, cached(&format!("{name}.gguf")));
    }
}

#[test]
fn special_tokens_are_parsed_only_when_asked() {
    let Some(llama3) = vocab("llama-bpe") else { return };
    let text = "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>";
    let parsed = llama3.encode(text, true, true).unwrap();
    assert_eq!(parsed, [128000, 128006, 882, 128007, 271, 13347, 128009]);
    let literal = llama3.encode(text, true, false).unwrap();
    assert!(literal[1..].iter().all(|&id| !llama3.is_control(id)), "{literal:?}");
    assert_eq!(llama3.decode(&literal, false).unwrap(), text);
    assert_eq!(llama3.decode(&parsed, false).unwrap(), "user\n\nHi");
    assert_eq!(llama3.decode(&parsed, true).unwrap(), format!("<|begin_of_text|>{text}"));
}

#[test]
fn ends_of_generation() {
    let ends = |name| vocab(name).map(|t| t.ends_of_generation().to_vec());
    let Some(llama3) = ends("llama-bpe") else { return };
    assert_eq!(llama3, [128001, 128009]);
    assert_eq!(ends("qwen2").unwrap(), [151643, 151645]);
    assert_eq!(ends("phi-3").unwrap(), [32000, 32007]);
    assert_eq!(ends("llama-spm").unwrap(), [2]);
    let qwen = vocab("qwen2").unwrap();
    assert_eq!(qwen.eot(), Some(151645));
    assert!(
        qwen.is_end_of_generation(151645) && !qwen.is_end_of_generation(151644) && !qwen.is_end_of_generation(u32::MAX)
    );
}

#[test]
fn white_space_after_phi_3_s_special_tokens_goes() {
    let Some(phi) = vocab("phi-3") else { return };
    let tight = phi.encode("<|user|>Hi<|end|><|assistant|>", false, true).unwrap();
    assert_eq!(phi.encode("<|user|>\nHi<|end|> \n<|assistant|>", false, true).unwrap(), tight);
    assert_eq!(tight, [32010, 6324, 32007, 32001]);
}

#[test]
fn bos_and_eos_as_the_metadata_says() {
    let ids = |flags: &[(&'static str, Value)]| {
        let mut entries = control_from(byte_level(&["<s>", "</s>"], &[]), 256);
        entries.extend(flags.iter().cloned());
        from(entries)?.encode("a", true, false)
    };
    let (bos, eos) = (("bos_token_id", Value::U32(256)), ("eos_token_id", Value::U32(257)));
    let (add_bos, add_eos) = (("add_bos_token", Value::Bool(true)), ("add_eos_token", Value::Bool(true)));
    assert_eq!(ids(&[bos.clone(), eos.clone()]).unwrap(), [97]);
    assert_eq!(ids(&[bos.clone(), eos.clone(), add_bos.clone()]).unwrap(), [256, 97]);
    assert_eq!(ids(&[bos.clone(), eos, add_bos.clone(), add_eos.clone()]).unwrap(), [256, 97, 257]);
    let e = ids(&[bos, add_eos]).unwrap_err().to_string();
    assert!(e.contains("made.gguf") && e.contains("add_eos_token") && e.contains("eos_token_id"), "{e}");
    assert!(ids(&[add_bos, ("bos_token_id", Value::U32(u32::MAX))]).is_err());

    let Some(bert) = vocab("bert-bge") else { return };
    assert_eq!(bert.encode("Hello", true, false).unwrap(), [101, 7592, 102]);
    assert_eq!((bert.add_bos(), bert.add_eos(), bert.bos()), (true, true, Some(101)));
}

#[test]
fn a_pre_tokenizer_can_be_forced() {
    let forced = |pre: &str| {
        let options = Options { pre: Some(pre.to_owned()) };
        let mut entries = byte_level(&["12"], &["1 2"]);
        entries[1].1 = text("from-the-future");
        Tokenizer::from_metadata(&made(entries), &options)
    };
    assert_eq!(forced("gpt-2").unwrap().encode("12", false, false).unwrap(), [256]);
    assert_eq!(forced("starcoder").unwrap().encode("12", false, false).unwrap(), [49, 50]);
    assert!(forced("nonsense").unwrap_err().to_string().contains("'nonsense'"));

    let mut entries = byte_level(&[], &[]);
    entries[1].1 = text("from-the-future");
    let e = from(entries).unwrap_err();
    assert!(matches!(e, Error::Unsupported { .. }) && e.to_string().contains("'from-the-future'"), "{e}");

    let Some(path) = shared("models/stories260K-f32.v3.gguf") else { return };
    let options = Options { pre: Some("gpt-2".to_owned()) };
    assert!(matches!(Tokenizer::from_metadata(&metadata(&path), &options), Err(Error::Argument(_))));
}

#[test]
fn no_pre_tokenizer_means_default() {
    let mut entries = byte_level(&["12", "123"], &["1 2", "12 3"]);
    entries.retain(|e| e.0 != "pre");
    assert_eq!(from(entries).unwrap().encode("1234", false, false).unwrap(), [257, 52]);
}

#[test]
fn characters_as_the_alphabet_of_merges() {
    let tokens = ["<0xC3>", "<0xA9>", "▁", "a", "b", "▁a", "\n", "\n\n", "<unk>"];
    let entries = vec![("model", text("gemma4")), ("tokens", texts(&tokens)), ("merges", texts(&["▁ a", "a b"]))];
    let e = from(entries.clone()).unwrap_err().to_string();
    assert!(e.contains("merge 1") && e.contains("a b"), "{e}");
    let entries: Vec<_> = entries[..2].iter().cloned().chain([("merges", texts(&["▁ a"]))]).collect();
    let gemma4 = from(entries).unwrap();
    assert_eq!(gemma4.encode(" ab\n\né", false, false).unwrap(), [5, 4, 7, 0, 1]);
    assert_eq!(gemma4.decode(&[5, 4, 7, 0, 1], false).unwrap(), " ab\n\n<0xC3><0xA9>");
}

#[test]
fn metadata_that_contradicts_itself_is_refused() {
    let spm = |tokens: &[&str], scores: Vec<f32>| {
        vec![("model", text("llama")), ("tokens", texts(tokens)), ("scores", Value::Array(Array::F32(scores)))]
    };
    let with = |mut entries: Vec<(&'static str, Value)>, key, value| {
        entries.push((key, value));
        entries
    };
    let good = || spm(&["<unk>", "a", "b"], vec![0.0; 3]);
    assert_eq!(from(good()).unwrap().encode("ab", false, false).unwrap(), [0, 1, 2]);
    let cases: Vec<(Vec<(&str, Value)>, &str)> = vec![
        (vec![], "'tokenizer.ggml.model' is missing"),
        (vec![("model", text("llama"))], "'tokenizer.ggml.tokens' is missing"),
        (vec![("model", text("gpt2")), ("tokens", texts(&["a"]))], "'tokenizer.ggml.merges' is missing"),
        (vec![("model", text("t5")), ("tokens", texts(&["a"]))], "'t5'"),
        (vec![("model", text("rwkv"))], "'rwkv'"),
        (vec![("model", Value::U32(1))], "type uint32"),
        (vec![("model", text("llama")), ("tokens", texts(&["a"]))], "'tokenizer.ggml.scores' is missing"),
        (vec![("model", text("bert")), ("tokens", texts(&["a"]))], "'tokenizer.ggml.unknown_token_id' is missing"),
        (spm(&[], vec![]), "0 tokens"),
        (spm(&["a"], vec![0.0; 2]), "2 elements for the 1"),
        (spm(&["a", "b", "a"], vec![0.0; 3]), "tokens 0 and 2 of the vocabulary are both 'a'"),
        (spm(&["a"], vec![f32::NAN]), "no number for token 0"),
        (with(good(), "token_type", Value::Array(Array::I32(vec![1; 2]))), "2 elements for the 3"),
        (with(good(), "token_type", Value::Array(Array::I32(vec![1, 9, 1]))), "is 9 for token 1"),
        (with(good(), "token_type", Value::Array(Array::F32(vec![1.0; 3]))), "array of int32"),
        (with(good(), "eos_token_id", Value::U32(3)), "'tokenizer.ggml.eos_token_id' is 3"),
        (with(good(), "bos_token_id", text("1")), "type string"),
        (byte_level(&["ab"], &["a b c"]), "merge 0"),
        (byte_level(&[], &["a b"]), "'a b'"),
        (byte_level(&[], &["ab"]), "'ab'"),
        (byte_level(&[], &[""]), "merge 0"),
    ];
    for (entries, part) in cases {
        let e = from(entries).unwrap_err().to_string();
        assert!(e.contains("made.gguf") && e.contains(part), "{e:?} has no {part:?}");
    }
    // What many published files get wrong, and nothing depends on.
    let padded = from(with(good(), "padding_token_id", Value::U32(32000))).unwrap();
    assert_eq!(padded.pad(), None);
    // A character that nothing can spell needs an unknown token.
    let e = from(spm(&["a"], vec![0.0])).unwrap().encode("b", false, false);
    assert_eq!(e.unwrap(), [0, 0]);
    let none = from(with(good(), "unknown_token_id", Value::U32(u32::MAX))).unwrap();
    assert!(none.encode("x", false, false).unwrap_err().to_string().contains("no token for byte 0xE2"));
    assert_eq!(from(with(good(), "eos_token_id", Value::I32(-1))).unwrap().eos(), None);
}

#[test]
fn ids_beyond_the_vocabulary_are_errors() {
    let t = from(byte_level(&[], &[])).unwrap();
    assert_eq!(t.vocab_size(), 256);
    assert!(t.decode(&[0, 256], false).unwrap_err().to_string().contains("token id 256"));
    assert!(t.token_bytes(u32::MAX, true, &mut Vec::new()).is_err());
    assert_eq!((t.token_text(256), t.is_control(256)), (None, false));
}

/// Quadratic time would take minutes here.
#[test]
fn hostile_texts_take_linear_time() {
    let mut long: Vec<String> = ["a", " ", "\n", "\0", "1", "'", "…", "👩‍👧", "é\u{301}", " \n", "\u{3000}", "ab ", "<"]
        .iter()
        .map(|unit| unit.repeat(200_000 / unit.len()))
        .collect();
    long.push(" ".repeat(200_000) + "x");
    long.push(('\u{0}'..='\u{1FFFF}').step_by(7).collect());
    let rare = long.len() - 1;
    let started = Instant::now();
    for name in VOCABS {
        let Some(tokenizer) = vocab(name) else { return };
        for (i, text) in long.iter().enumerate() {
            let ids = tokenizer.encode(text, true, true).unwrap();
            // WordPiece forgets too much; two vocabularies lack bytes of control characters and of empty planes.
            if name != "bert-bge" && !(i == rare && matches!(name, "falcon" | "starcoder")) {
                let again = tokenizer.decode(&ids, false).unwrap();
                assert!(again == *text, "{name}: {:?}…", text.chars().take(20).collect::<String>());
            }
        }
    }
    assert!(started.elapsed().as_secs() < 120, "{:?}", started.elapsed());
}

#[test]
fn every_pre_tokenizer_takes_hostile_texts() {
    let Some(path) = shared("vocabs/ggml-vocab-gpt-2.gguf") else { return };
    let meta = metadata(&path);
    for row in pre::TABLE.iter().filter(|row| row.alphabet == pre::Alphabet::Bytes) {
        let options = Options { pre: Some(row.names[0].to_owned()) };
        let tokenizer = Tokenizer::from_metadata(&meta, &options).unwrap();
        for unit in ["a", " ", "\n", "1", "A", "语", "!", " a", " \n", "\u{301}"] {
            let text = unit.repeat(20_000) + "x";
            let ids = tokenizer.encode(&text, false, false).unwrap();
            assert!(tokenizer.decode(&ids, false).unwrap() == text, "{:?}: {unit:?}", row.names);
        }
    }
}

/// The `tokenizer.json` that says what a byte-level vocabulary's metadata says.
fn byte_level_json(meta: &Metadata) -> Vec<u8> {
    let tokens = meta.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    let merges = meta.strings("tokenizer.ggml.merges").unwrap().unwrap();
    let kinds = meta.i32s("tokenizer.ggml.token_type").unwrap().unwrap();
    let vocab: serde_json::Map<String, JsonValue> =
        tokens.iter().enumerate().map(|(id, t)| (t.to_owned(), id.into())).collect();
    let added: Vec<JsonValue> = (0..tokens.len())
        .filter(|&id| kinds[id] == 3)
        .map(|id| {
            json!({"id": id, "content": tokens.get(id).unwrap(), "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let json = json!({
        "version": "1.0", "added_tokens": added, "normalizer": null, "post_processor": null,
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "!"},
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                  "merges": merges.iter().collect::<Vec<_>>()},
    });
    serde_json::to_vec(&json).unwrap()
}

#[test]
fn tokenizer_json_gives_the_same_ids_as_metadata() {
    let (Some(path), Some(cases)) = (shared("vocabs/ggml-vocab-gpt-2.gguf"), cases("gpt-2")) else { return };
    let meta = metadata(&path);
    let ours = Tokenizer::from_metadata(&meta, &Options::default()).unwrap();
    let theirs = Tokenizer::from_json("tokenizer.json", &byte_level_json(&meta)).unwrap();
    assert_eq!(theirs.vocab_size(), ours.vocab_size());
    assert_eq!(theirs.eos(), ours.eos());
    let mut texts: Vec<String> = cases.into_iter().map(|c| c.0).collect();
    texts.push("He'LL  say \t\t 'tis  ".repeat(50));
    for text in texts {
        let ids = theirs.encode(&text, true, false).unwrap();
        assert_eq!(ids, ours.encode(&text, true, false).unwrap(), "{text:?}");
        assert_eq!(theirs.decode(&ids, false).unwrap(), text);
    }
    let special = "a<|endoftext|>b";
    assert_eq!(theirs.encode(special, false, true).unwrap(), [64, 50256, 65]);
    assert_eq!(theirs.encode(special, false, false).unwrap(), ours.encode(special, false, false).unwrap());
    assert_eq!(theirs.decode(&[64, 50256, 65], false).unwrap(), "ab");
    assert_eq!(theirs.decode(&[64, 50256, 65], true).unwrap(), special);
}

#[test]
fn word_piece_json_gives_the_same_ids_as_metadata() {
    let Some(ours) = vocab("bert-bge") else { return };
    let vocab: serde_json::Map<String, JsonValue> = (0..ours.vocab_size() as u32)
        .map(|id| {
            let text = ours.token_text(id).unwrap();
            let text = match text.strip_prefix('▁') {
                Some(start) => start.to_owned(),
                None if ours.is_control(id) || text.starts_with("[unused") => text.to_owned(),
                None => format!("##{text}"),
            };
            (text, id.into())
        })
        .collect();
    let special = |id: u32, text: &str| {
        json!({"id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let template = |token: &str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let json = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "[PAD]"), special(100, "[UNK]"), special(101, "[CLS]"), special(102, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "TemplateProcessing",
            "single": [template("[CLS]"), {"Sequence": {"id": "A", "type_id": 0}}, template("[SEP]")], "pair": [],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]}}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    });
    let theirs = Tokenizer::from_json("bert.json", &serde_json::to_vec(&json).unwrap()).unwrap();
    assert_eq!((theirs.bos(), theirs.add_bos(), theirs.add_eos()), (Some(101), true, true));
    let mut texts: Vec<String> = cases("bert-bge").unwrap().into_iter().map(|c| c.0).collect();
    texts.extend([
        "Crème BRÛLÉE, 한국어 x^2 中文!".to_owned(),
        "w".repeat(100),
        "w".repeat(101),
        "\u{1}a\u{FFFD}b".into(),
    ]);
    for text in texts {
        let ids = theirs.encode(&text, true, false).unwrap();
        assert_eq!(ids, ours.encode(&text, true, false).unwrap(), "{text:?}");
        assert_eq!(theirs.decode(&ids, false).unwrap(), ours.decode(&ids, false).unwrap(), "{text:?}");
    }
    let ids = ours.encode("Hello, world! It's fine.", true, false).unwrap();
    assert_eq!(ours.decode(&ids, false).unwrap(), "hello, world! it's fine.");
}

/// SentencePiece as `tokenizer.json` says it: a normalizer that writes `▁`, byte fallback, a sequence of decoders.
#[test]
fn sentence_piece_json() {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..256).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁", "a", "b", "▁a", "▁ab"].map(str::to_owned));
    let vocab: serde_json::Map<String, JsonValue> =
        tokens.iter().enumerate().map(|(id, t)| (t.clone(), id.into())).collect();
    let special = |id: u32| {
        json!({"id": id, "content": tokens[id as usize], "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    let json = |decoder: JsonValue| {
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "pre_tokenizer": null,
            "added_tokens": [special(0), special(1), special(2)],
            "normalizer": {"type": "Sequence", "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
                "pair": [], "special_tokens": {"</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}},
            "decoder": decoder,
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>", "continuing_subword_prefix": null,
                      "end_of_word_suffix": null, "fuse_unk": true, "byte_fallback": true, "vocab": vocab,
                      "merges": ["▁ a", "▁a b"]},
        });
        Tokenizer::from_json("spm.json", &serde_json::to_vec(&json).unwrap())
    };
    let t = json(json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}))
    .unwrap();
    let ids = t.encode("ab aé", true, false).unwrap();
    assert_eq!(ids, [263, 262, 3 + 0xC3, 3 + 0xA9, 2]);
    assert_eq!(t.decode(&ids, false).unwrap(), "ab aé");
    assert_eq!((t.add_bos(), t.add_eos(), t.bos(), t.eos()), (false, true, Some(1), Some(2)));
    let e = json(json!({"type": "BPEDecoder", "suffix": "</w>"})).unwrap_err();
    assert!(matches!(e, Error::Unsupported { .. }) && e.to_string().contains("BPEDecoder"), "{e}");
}

#[test]
fn json_that_is_no_tokenizer_is_refused() {
    for json in ["", "{", "null", "[]", "{}", r#"{"model": {"type": "BPE", "vocab": {}, "merges": ["a b"]}}"#] {
        let e = Tokenizer::from_json("x.json", json.as_bytes()).unwrap_err().to_string();
        assert!(e.starts_with("x.json"), "{json}: {e}");
    }
    let far = r#"{"added_tokens": [], "model": {"type": "WordLevel", "vocab": {"a": 4294967294}, "unk_token": "a"}}"#;
    let e = Tokenizer::from_json("x.json", far.as_bytes()).unwrap_err().to_string();
    assert!(e.contains("4294967294"), "{e}");
}

#[test]
fn the_tokenizer_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let t = from(byte_level(&["ab"], &["a b"])).unwrap();
    shared(&t);
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..4).map(|_| s.spawn(|| t.encode("abab", false, false).unwrap())).collect();
        workers.into_iter().for_each(|w| assert_eq!(w.join().unwrap(), [256, 256]));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever a file says, reading it gives a tokenizer or an error, and so does encoding with it.
    #[test]
    fn hostile_metadata_never_panics(
        model in 0..4usize,
        tokens in proptest::collection::vec("[ab▁Ġ \\n]{0,3}|<0x[0-9A-F]{2}>|</s>|<.>|\\PC{0,2}", 0..40),
        merges in proptest::collection::vec("[abĠ▁]{0,2} [ab]{0,2}", 0..3),
        numbers in proptest::collection::vec(0..7i32, 1..40),
        scores in proptest::collection::vec(-2.0..2.0f32, 1..40),
        ids in proptest::collection::vec(proptest::option::weighted(0.2, 0..12u32), 8),
        flags in proptest::collection::vec(proptest::option::of(proptest::bool::ANY), 4),
        (trim, lengths) in (proptest::bool::weighted(0.9), proptest::bool::weighted(0.9)),
        input in "[ab▁ \\n<>/s]{0,20}\\PC{0,5}",
    ) {
        let mut tokens = tokens;
        if trim {
            tokens.sort_unstable();
            tokens.dedup();
        }
        let fit = |n: usize| if lengths { tokens.len() } else { n };
        let cycle = |v: &[i32], n: usize| v.iter().copied().cycle().take(n).collect::<Vec<_>>();
        let mut entries = vec![
            ("model", text(["gpt2", "llama", "bert", "gemma4"][model])),
            ("tokens", texts(&tokens.iter().map(String::as_str).collect::<Vec<_>>())),
            ("merges", texts(&merges.iter().map(String::as_str).collect::<Vec<_>>())),
            ("token_type", Value::Array(Array::I32(cycle(&numbers, fit(numbers.len()))))),
            ("scores", Value::Array(Array::F32(scores.iter().copied().cycle().take(fit(scores.len())).collect()))),
        ];
        let names = ["bos", "eos", "eot", "eom", "unknown", "seperator", "padding", "cls"];
        let names = names.map(|n| format!("{n}_token_id"));
        entries.extend(names.iter().zip(ids).filter_map(|(n, id)| Some((n.as_str(), Value::U32(id?)))));
        let switches = ["add_bos_token", "add_eos_token", "add_sep_token", "add_space_prefix"];
        entries.extend(switches.into_iter().zip(flags).filter_map(|(n, flag)| Some((n, Value::Bool(flag?)))));
        if let Ok(tokenizer) = from(entries) {
            for parse in [false, true] {
                if let Ok(ids) = tokenizer.encode(&input, true, parse) {
                    prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
                    tokenizer.decode(&ids, parse).unwrap();
                }
            }
        }
    }
}
