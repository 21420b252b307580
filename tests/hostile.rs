//! Bad input: each gives a negative status and a message that names the file and the cause, and nothing is lost.
//! All of it goes through the C API.

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr::null_mut;

use rocmforge::capi::*;
use tiny::{Gguf, T, V};

/// An engine, and files in a folder of its own.
struct Bench {
    engine: *mut rf_engine,
    folder: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        unsafe { rf_engine_free(self.engine) };
    }
}

impl Bench {
    fn new() -> Bench {
        let mut engine = null_mut();
        assert_eq!(unsafe { rf_engine_create(std::ptr::null(), &mut engine, null_mut()) }, RF_OK);
        Bench { engine, folder: tempfile::tempdir().expect("a folder") }
    }

    /// Status and message of loading `path`; a model that loads is freed.
    fn load_path(&self, path: &Path, flags: u32) -> (rf_status, String) {
        let path = CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        let mut options: rf_model_options = unsafe { std::mem::zeroed() };
        options.struct_size = size_of::<rf_model_options>() as u32;
        options.flags = flags;
        let (mut model, mut err) = (null_mut(), null_mut());
        let status = unsafe { rf_model_load(self.engine, path.as_ptr(), RF_STRLEN, &options, &mut model, &mut err) };
        let message = unsafe { CStr::from_ptr(rf_error_message(err)) }.to_string_lossy().into_owned();
        assert_eq!(status == RF_OK, !model.is_null());
        assert_eq!(status < 0, !err.is_null());
        assert_eq!(unsafe { rf_error_status(err) }, if err.is_null() { RF_OK } else { status });
        unsafe {
            rf_error_free(err);
            rf_model_free(model);
        }
        (status, message)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).expect("write");
        path
    }

    /// Loads `bytes` mapped and read: both must give `status` and a message with all of `words` and the file's name.
    fn refuse(&self, bytes: &[u8], status: rf_status, words: &[&str]) {
        let path = self.file("bad.gguf", bytes);
        for flags in [0, RF_LOAD_MMAP] {
            let (found, message) = self.load_path(&path, flags);
            assert_eq!(found, status, "{message}");
            for word in words.iter().chain(&["bad.gguf"]) {
                assert!(message.contains(word), "'{word}' is not in: {message}");
            }
        }
    }

    /// The engine still works.
    fn still_works(&self) {
        let path = self.file("good.gguf", &tiny::llama().bytes());
        assert_eq!(self.load_path(&path, 0), (RF_OK, String::new()));
    }
}

fn with(change: impl FnOnce(&mut Gguf)) -> Vec<u8> {
    let mut g = tiny::llama();
    change(&mut g);
    g.bytes()
}

#[test]
fn what_is_no_gguf_file() {
    let bench = Bench::new();
    let missing = bench.folder.path().join("missing.gguf");
    let (status, message) = bench.load_path(&missing, 0);
    assert_eq!(status, RF_E_IO);
    assert!(message.contains("missing.gguf"), "{message}");
    let (status, message) = bench.load_path(bench.folder.path(), 0);
    assert_eq!(status, RF_E_FORMAT);
    assert!(message.contains("directory"), "{message}");
    bench.refuse(b"", RF_E_FORMAT, &["empty"]);
    bench.refuse(b"<!DOCTYPE html><html><body>404</body></html>", RF_E_FORMAT, &["HTML"]);
    bench.refuse(b"version https://git-lfs.github.com/spec/v1\n", RF_E_FORMAT, &["Git LFS"]);
    bench.refuse(b"GG", RF_E_FORMAT, &["GGUF"]);
    bench.refuse(b"GGUF", RF_E_FORMAT, &["version"]);
    bench.refuse(b"GGUF\x09\0\0\0", RF_E_UNSUPPORTED, &["version 9"]);
    bench.refuse(b"GGUF\0\0\0\x03", RF_E_UNSUPPORTED, &["big-endian"]);
    bench.still_works();
}

#[test]
fn every_truncation_is_refused() {
    let bench = Bench::new();
    let whole = tiny::llama().bytes();
    // Every byte of the header, then steps through the data.
    let header = whole.len() - tiny::llama().tensors.iter().map(|t| t.bytes.len().next_multiple_of(32)).sum::<usize>();
    let points = (0..header).step_by(7).chain((header..whole.len()).step_by(997)).chain([whole.len() - 1]);
    for n in points {
        let path = bench.file("bad.gguf", &whole[..n]);
        for flags in [0, RF_LOAD_MMAP] {
            let (status, message) = bench.load_path(&path, flags);
            assert!(status == RF_E_FORMAT, "cut at {n}: {status} {message}");
            assert!(message.contains("bad.gguf"), "cut at {n}: {message}");
        }
    }
    bench.still_works();
}

#[test]
fn absurd_counts() {
    let bench = Bench::new();
    for huge in [1u64 << 60, u64::MAX, 1 << 40] {
        bench.refuse(&with(|g| g.claimed_tensors = Some(huge)), RF_E_FORMAT, &["tensors"]);
        bench.refuse(&with(|g| g.claimed_entries = Some(huge)), RF_E_FORMAT, &["metadata"]);
        let string = huge.to_le_bytes().to_vec();
        bench.refuse(
            &with(|g| {
                g.set("x.string", V::Raw(8, string));
            }),
            RF_E_FORMAT,
            &["x.string"],
        );
        for element in 0..=12u32 {
            let mut array = element.to_le_bytes().to_vec();
            array.extend(huge.to_le_bytes());
            bench.refuse(
                &with(|g| {
                    g.set("x.array", V::Raw(9, array));
                }),
                RF_E_FORMAT,
                &["x.array"],
            );
        }
    }
    let nested: Vec<u8> =
        (0..9).flat_map(|_| [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()].concat()).collect();
    bench.refuse(
        &with(|g| {
            g.set("x.nested", V::Raw(9, nested));
        }),
        RF_E_FORMAT,
        &["x.nested", "nests"],
    );
    bench.refuse(
        &with(|g| {
            g.set("x.type", V::Raw(77, vec![]));
        }),
        RF_E_FORMAT,
        &["x.type", "77"],
    );
    bench.still_works();
}

#[test]
fn tensors_out_of_place() {
    let bench = Bench::new();
    let q = "blk.0.attn_q.weight";
    bench.refuse(&with(|g| g.tensor(q).offset = Some(0)), RF_E_FORMAT, &["overlap", q]);
    bench.refuse(&with(|g| g.tensor(q).offset = Some(1 << 62)), RF_E_FORMAT, &[q]);
    bench.refuse(&with(|g| g.tensor(q).offset = Some(u64::MAX - 31)), RF_E_FORMAT, &[q]);
    bench.refuse(&with(|g| g.tensor(q).dims = vec![1 << 40, 1 << 40]), RF_E_FORMAT, &[q]);
    bench.refuse(&with(|g| g.tensor(q).dims = vec![0, 32]), RF_E_FORMAT, &[q, "0"]);
    bench.refuse(&with(|g| g.tensor(q).dims = vec![1; 9]), RF_E_FORMAT, &[q, "9 dimensions"]);
    bench.refuse(&with(|g| g.tensor(q).dims = vec![16, 64]), RF_E_FORMAT, &[q, "16 × 64", "32 × 32"]);
    bench.refuse(&with(|g| g.tensor(q).type_id = 4711), RF_E_UNSUPPORTED, &[q, "4711"]);
    bench.refuse(&with(|g| g.tensor("blk.1.attn_q.weight").name = q.into()), RF_E_FORMAT, &[q, "twice"]);
    bench.refuse(&with(|g| g.tensors.retain(|t| t.name != q)), RF_E_FORMAT, &[q, "missing"]);
    let odd = with(|g| {
        let last = g.tensors.last_mut().expect("tensors");
        last.offset = Some(500_001);
    });
    bench.refuse(&odd, RF_E_FORMAT, &["not aligned"]);
    let stray =
        T { name: "blk.0.ffn_gate_exps.weight".into(), dims: vec![32], type_id: 0, offset: None, bytes: vec![0; 128] };
    bench.refuse(&with(|g| g.tensors.push(stray)), RF_E_UNSUPPORTED, &["ffn_gate_exps"]);
    // A type that ggml numbers and that is not served is refused by its name.
    let iq1 = |g: &mut Gguf| {
        let t = g.tensor("token_embd.weight");
        (t.type_id, t.dims, t.bytes) = (19, vec![256, 4], vec![0; 200]);
        g.set("llama.embedding_length", V::U32(256));
    };
    bench.refuse(&with(iq1), RF_E_UNSUPPORTED, &["token_embd.weight", "IQ1_S"]);
    bench.still_works();
}

#[test]
fn weights_that_are_not_finite() {
    let bench = Bench::new();
    for scale in [0x7e00u16, 0x7c00, 0xfc00] {
        let bytes =
            with(|g| tiny::to_q8_0(g.tensor("blk.1.ffn_down.weight"), |block| if block == 3 { scale } else { 0x2000 }));
        let path = bench.file("bad.gguf", &bytes);
        let (status, message) = bench.load_path(&path, 0);
        assert_eq!(status, RF_E_FORMAT, "{message}");
        assert!(message.contains("blk.1.ffn_down.weight") && message.contains("finite"), "{message}");
    }
    let nan = with(|g| g.tensor("output_norm.weight").bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes()));
    bench.refuse(&nan, RF_E_FORMAT, &["output_norm.weight", "finite"]);
    bench.still_works();
}

#[test]
fn configurations_that_cannot_be() {
    let bench = Bench::new();
    for key in ["block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count"] {
        let key = format!("llama.{key}");
        bench.refuse(
            &with(|g| {
                g.remove(&key);
            }),
            RF_E_FORMAT,
            &[&key, "missing"],
        );
        bench.refuse(
            &with(|g| {
                g.set(&key, V::U32(u32::MAX));
            }),
            RF_E_FORMAT,
            &[&key],
        );
        bench.refuse(
            &with(|g| {
                g.set(&key, V::Str("many".into()));
            }),
            RF_E_FORMAT,
            &[&key, "string"],
        );
    }
    bench.refuse(
        &with(|g| {
            g.set("llama.attention.head_count", V::U32(5));
        }),
        RF_E_FORMAT,
        &["head_count"],
    );
    bench.refuse(
        &with(|g| {
            g.set("llama.attention.head_count_kv", V::U32(3));
        }),
        RF_E_FORMAT,
        &["head_count_kv"],
    );
    bench.refuse(
        &with(|g| {
            g.set("llama.rope.dimension_count", V::U32(7));
        }),
        RF_E_FORMAT,
        &["rope.dimension_count"],
    );
    bench.refuse(
        &with(|g| {
            g.set("llama.rope.freq_base", V::F32(f32::NAN));
        }),
        RF_E_FORMAT,
        &["rope.freq_base"],
    );
    bench.refuse(
        &with(|g| {
            g.set("llama.rope.scaling.type", V::Str("magic".into()));
        }),
        RF_E_UNSUPPORTED,
        &["magic"],
    );
    bench.refuse(
        &with(|g| {
            g.set("llama.expert_count", V::U32(8));
        }),
        RF_E_UNSUPPORTED,
        &["expert"],
    );
    bench.refuse(
        &with(|g| {
            g.set("general.architecture", V::Str("mamba".into()));
        }),
        RF_E_UNSUPPORTED,
        &["mamba", "llama"],
    );
    bench.refuse(
        &with(|g| {
            g.remove("general.architecture");
        }),
        RF_E_FORMAT,
        &["general.architecture"],
    );
    bench.refuse(
        &with(|g| {
            g.set("general.alignment", V::U32(33));
        }),
        RF_E_FORMAT,
        &["general.alignment"],
    );
    let twice = with(|g| g.metadata.push(("general.architecture".into(), V::Str("llama".into()))));
    bench.refuse(&twice, RF_E_FORMAT, &["general.architecture", "twice"]);
    bench.still_works();
}

#[test]
fn vocabularies_that_cannot_be() {
    let bench = Bench::new();
    for key in ["tokenizer.ggml.model", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"] {
        bench.refuse(
            &with(|g| {
                g.remove(key);
            }),
            RF_E_FORMAT,
            &[key],
        );
    }
    bench.refuse(
        &with(|g| {
            g.set("tokenizer.ggml.model", V::Str("rwkv".into()));
        }),
        RF_E_UNSUPPORTED,
        &["rwkv"],
    );
    bench.refuse(
        &with(|g| {
            g.set("tokenizer.ggml.scores", V::F32s(vec![0.0; 3]));
        }),
        RF_E_FORMAT,
        &["scores"],
    );
    bench.refuse(
        &with(|g| {
            g.set("tokenizer.ggml.token_type", V::I32s(vec![1; 3]));
        }),
        RF_E_FORMAT,
        &["token_type"],
    );
    bench.refuse(
        &with(|g| {
            g.set("tokenizer.ggml.bos_token_id", V::U32(1 << 30));
        }),
        RF_E_FORMAT,
        &["bos_token_id"],
    );
    let mut invalid = 5u64.to_le_bytes().to_vec();
    invalid.extend(b"ab\xff\xfec");
    bench.refuse(
        &with(|g| {
            g.set("general.name", V::Raw(8, invalid));
        }),
        RF_E_FORMAT,
        &["general.name", "UTF-8"],
    );
    let gpt2 = |g: &mut Gguf| {
        g.set("tokenizer.ggml.model", V::Str("gpt2".into()))
            .set("tokenizer.ggml.pre", V::Str("from-the-future".into()))
            .set("tokenizer.ggml.merges", V::Strs(vec![]));
    };
    bench.refuse(&with(gpt2), RF_E_UNSUPPORTED, &["from-the-future"]);
    bench.still_works();
}

#[test]
fn a_header_without_its_tensors_is_refused() {
    let Some(path) = common::shared_path("vocabs/header-only-qwen2-7b.gguf") else { return };
    let bench = Bench::new();
    for flags in [0, RF_LOAD_MMAP] {
        let (status, message) = bench.load_path(&path, flags);
        assert_eq!(status, RF_E_FORMAT, "{message}");
        assert!(message.contains("header-only-qwen2-7b.gguf") && message.contains("incomplete"), "{message}");
    }
    bench.still_works();
}

/// Single bytes of the header changed at random: whatever comes of it, it is a status.
#[test]
fn damaged_headers_never_do_worse_than_an_error() {
    let bench = Bench::new();
    let whole = tiny::llama().bytes();
    let mut state = 1u64;
    for _ in 0..400 {
        let mut bytes = whole.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 33) as usize % 9000;
            bytes[at] = (state >> 20) as u8;
        }
        let path = bench.file("bad.gguf", &bytes);
        let (status, message) = bench.load_path(&path, 0);
        assert!(status == RF_OK || status < 0, "{status} {message}");
        assert!(status != RF_E_INTERNAL, "{message}");
    }
    bench.still_works();
}
