//! Where tests find models and golden data, and what they do without.
#![allow(dead_code)] // each test file uses a part

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rocmforge::engine::{Engine, EngineOptions, Model, ModelOptions};
use rocmforge::placement::GpuChoice;

/// The folder of data that is too large, or not ours, to commit.
pub fn shared() -> PathBuf {
    match std::env::var_os("ROCMFORGE_SHARED") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"),
    }
}

/// The folder of models that `scripts/fetch_models.py` fills.
pub fn model_cache() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"));
    cache.join("rocmforge/models")
}

/// `path` if it is there. Else the test is skipped loudly, or fails where it must not be (CI).
pub fn need(path: PathBuf) -> Option<PathBuf> {
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing, and in CI it must be there", path.display());
    eprintln!("SKIPPED: {} is missing (make models fetches the models)", path.display());
    None
}

/// A file of the model cache.
pub fn model_path(name: &str) -> Option<PathBuf> {
    need(model_cache().join(name))
}

/// A file of the shared folder.
pub fn shared_path(name: &str) -> Option<PathBuf> {
    need(shared().join(name))
}

pub fn engine() -> Arc<Engine> {
    Arc::new(Engine::new(EngineOptions::default()).expect("an engine"))
}

/// An engine that keeps to the CPU, for what only the CPU's kernels promise.
pub fn cpu_engine() -> Arc<Engine> {
    let options = EngineOptions { gpus: Some(GpuChoice::None), ..Default::default() };
    Arc::new(Engine::new(options).expect("an engine"))
}

pub fn load(path: &Path) -> Arc<Model> {
    engine().load(path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The real models that golden data exists for: the name in `golden/`, and where the file is.
pub fn golden_models() -> Vec<(&'static str, PathBuf)> {
    let cached = ["SmolLM2-135M-Instruct.Q4_1", "gemma-3-270m-q4_k_m", "qwen2.5-coder-0.5b-instruct-q4_k_m"];
    let mut found: Vec<(&str, PathBuf)> =
        cached.iter().filter_map(|name| Some((*name, model_path(&format!("{name}.gguf"))?))).collect();
    found.extend(shared_path("models/stories260K-f32.v3.gguf").map(|path| ("stories260K-f32.v3", path)));
    found
}

/// A golden file of llama.cpp.
pub fn golden(name: &str) -> Option<serde_json::Value> {
    let path = shared_path(&format!("golden/{name}.json"))?;
    let text = std::fs::read_to_string(path).expect("a readable golden file");
    Some(serde_json::from_str(&text).expect("JSON"))
}

pub fn ids(value: &serde_json::Value) -> Vec<u32> {
    value.as_array().expect("ids").iter().map(|v| v.as_u64().expect("an id") as u32).collect()
}

pub fn numbers(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().expect("numbers").iter().map(|v| v.as_f64().expect("a number") as f32).collect()
}

/// The ten best (id, logit) of a golden case.
pub fn top10(case: &serde_json::Value) -> Vec<(u32, f32)> {
    let best = case["top10_last_prompt"].as_array().expect("top10");
    best.iter().map(|v| (v["id"].as_u64().expect("id") as u32, v["logit"].as_f64().expect("logit") as f32)).collect()
}

/// The lowest of the largest.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, &x) in logits.iter().enumerate() {
        if x > logits[best] {
            best = i;
        }
    }
    best as u32
}
