//! Every architecture on a tiny random model against PyTorch's float32 logits (`tests/data/tiny`, made by
//! `tests/scripts/tiny_models.py` with `transformers`): rotary kinds and scalings, grouped heads, biases, head norms, post
//! norms, windows, fused projections, tied heads, quantised weights.

mod common;

use std::path::{Path, PathBuf};

use common::{argmax, ids, load, numbers};
use rocmforge::session::{Session, SessionOptions};
use serde_json::Value;

fn models() -> Vec<PathBuf> {
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

/// Runs both sequences of every model; `check(name, position, logits, expected logits, expected best)`.
fn run(reference: bool, check: &mut dyn FnMut(&str, usize, &[f32], Option<Vec<f32>>, u32)) {
    for path in models() {
        let name = path.file_stem().and_then(|s| s.to_str()).expect("a name").to_string();
        let text = std::fs::read_to_string(path.with_extension("json")).expect("expected logits");
        let expected: Value = serde_json::from_str(&text).expect("JSON");
        let model = load(&path);
        for sequence in expected["sequences"].as_array().expect("sequences") {
            let tokens = ids(&sequence["tokens"]);
            let best = ids(&sequence["argmax"]);
            let context = sequence["context"].as_u64().expect("a context") as usize;
            let kept = |position: usize| {
                let all = sequence["logits"].as_array().expect("logits");
                all.iter().find(|l| l["position"] == position).map(|l| numbers(&l["values"]))
            };
            // In steps of 7 rows, so that pages, steps and windows do not fall together.
            let options = SessionOptions { context, batch: 7, reference, ..Default::default() };
            let mut session = Session::new(model.clone(), options).expect("a session");
            session
                .decode_each(&tokens, &mut |i, logits| check(&name, i, logits, kept(i), best[i]))
                .expect("decode");
        }
    }
}

#[test]
fn reference_mode_gives_pytorchs_logits() {
    let mut worst = 0.0f32;
    run(true, &mut |name, i, logits, expected, best| {
        assert_eq!(argmax(logits), best, "{name}: best token at {i}");
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            worst = worst.max((found - expected).abs());
            assert!((found - expected).abs() < 2e-3, "{name}: logit {id} at {i} is {found}, not {expected}");
        }
    });
    println!("largest error of a logit: {worst}");
}

#[test]
fn default_kernels_stay_near() {
    let (mut sum, mut n) = (0.0f64, 0usize);
    run(false, &mut |name, i, logits, expected, _| {
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            // Tiny networks of large random weights amplify the rounding of activations.
            assert!((found - expected).abs() < 0.6, "{name}: logit {id} at {i} is {found}, not {expected}");
            sum += f64::from((found - expected).abs());
            n += 1;
        }
    });
    println!("mean error of a logit: {}", sum / n as f64);
}
