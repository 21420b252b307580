//! How soon a model answers and what it takes: `cargo bench --bench load -- MODEL... [THREADS]`.
//!
//! The first loads read the file into the system's cache: the median is of warm ones. Peak memory is the process's, so that one model
//! at a time says most.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rocmforge::engine::{Engine, EngineOptions, ModelOptions};
use rocmforge::placement::GpuChoice;
use rocmforge::session::{Session, SessionOptions};

/// Loads of each model; the median counts.
const RUNS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(0);
    for path in words.iter().filter(|word| word.parse::<usize>().is_err()) {
        // Not read here: the file's copy would be the peak. The first load reads it into the system's cache.
        let bytes = std::fs::metadata(path).unwrap_or_else(|e| panic!("{path}: {e}")).len();
        let mut times: Vec<(f64, f64)> = (0..RUNS).map(|_| once(Path::new(path), threads)).collect();
        times.sort_by(|a, b| a.1.total_cmp(&b.1));
        let (load, first) = times[RUNS / 2];
        let rate = bytes as f64 / 1e9 / load;
        println!("{path}: loaded in {:.0} ms ({rate:.2} GB/s), first token after {:.0} ms", load * 1e3, first * 1e3);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
        println!("    peak memory {:.2} times the file", peak.unwrap_or(f64::NAN) * 1024.0 / bytes as f64);
    }
}

/// Seconds until the model is there, and until it has computed a token.
fn once(path: &Path, threads: usize) -> (f64, f64) {
    let options = EngineOptions { threads, gpus: Some(GpuChoice::None), ..Default::default() };
    let engine = Arc::new(Engine::new(options).expect("an engine"));
    let began = Instant::now();
    let model = engine.load(path, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    let load = began.elapsed().as_secs_f64();
    let options = SessionOptions { context: 64, ..Default::default() };
    Session::new(model, options).and_then(|mut session| session.decode(&[1])).unwrap_or_else(|e| panic!("{e}"));
    (load, began.elapsed().as_secs_f64())
}
