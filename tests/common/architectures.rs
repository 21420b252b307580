//! The tiny random models of `tests/data/tiny` and PyTorch's float32 logits for them.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{ids, numbers};
use rocmforge::engine::{Engine, ModelOptions};
use rocmforge::session::{Session, SessionOptions};
use serde_json::Value;

/// All models, made by `tests/scripts/tiny_models.py` with `transformers`.
pub fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/tiny");
    let entries = std::fs::read_dir(&folder).expect("tests/data/tiny");
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gguf"))
        .collect();
    found.sort();
    assert!(found.len() >= 14, "{} tiny models", found.len());
    found
}

/// Receives the model's name, a position, the logits there, the expected ones and the expected best token.
pub type Check<'a> = dyn FnMut(&str, usize, &[f32], Option<Vec<f32>>, u32) + 'a;

/// Runs both sequences of every model in steps of `batch` rows.
pub fn run(engine: &Arc<Engine>, batch: usize, reference: bool, check: &mut Check) {
    for path in models() {
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_string();
        let text = std::fs::read_to_string(path.with_extension("json")).expect("expected logits");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let model = engine.load(&path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"));
        for sequence in expected["sequences"].as_array().expect("sequences") {
            let tokens = ids(&sequence["tokens"]);
            let best = ids(&sequence["argmax"]);
            let context = sequence["context"].as_u64().expect("a context") as usize;
            let kept = |position: usize| {
                let all = sequence["logits"].as_array().expect("logits");
                all.iter().find(|l| l["position"] == position).map(|l| numbers(&l["values"]))
            };
            let options = SessionOptions { context, batch, reference, ..Default::default() };
            let mut session = Session::new(model.clone(), options).expect("a session");
            session.decode_each(&tokens, &mut |i, logits| check(&name, i, logits, kept(i), best[i])).expect("decode");
        }
    }
}
