//! How soon a model answers and what it takes: `cargo bench --bench load -- MODEL... [THREADS]`.
//!
//! Each model is loaded as it is, and with a cache of packed weights, in a process of its own, whose peak of memory is
//! its own too. The first loads read the files into the system's cache: the median is of warm ones.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use rocmforge::engine::{Engine, EngineOptions, ModelOptions, PackedCache};
use rocmforge::placement::GpuChoice;
use rocmforge::session::{Session, SessionOptions};

/// Loads of each model; the median counts.
const RUNS: usize = 7;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [flag, path, threads, folder @ ..] = &words[..]
        && flag == "--one"
    {
        return measure(Path::new(path), threads.parse().expect("a number"), folder.first().map(Path::new));
    }
    let threads = words.iter().find_map(|word| word.parse().ok()).unwrap_or(0).to_string();
    let program = std::env::current_exe().expect("this program");
    let folder = tempfile::tempdir().expect("a folder for the cache");
    for path in words.iter().filter(|word| word.parse::<usize>().is_err()) {
        println!("{path}");
        for cache in [None, Some(folder.path())] {
            let mut command = Command::new(&program);
            let status = command.args(["--one", path, &threads]).args(cache).status().expect("this program again");
            assert!(status.success(), "{path}: {status}");
        }
    }
}

/// Loads a model several times, with a cache in `folder` or without, and prints what that took.
fn measure(path: &Path, threads: usize, folder: Option<&Path>) {
    // Not read here: the file's copy would be the peak.
    let bytes = std::fs::metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).len();
    let cache = folder.map_or(PackedCache::Off, PackedCache::Folder);
    let (written, _) = once(path, threads, cache);
    let mut times: Vec<(f64, f64)> = (0..RUNS).map(|_| once(path, threads, cache)).collect();
    times.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (load, first) = times[RUNS / 2];
    let rate = bytes as f64 / 1e9 / load;
    let what = if folder.is_some() { "packed cache" } else { "packing" };
    print!(
        "    {what:<14} loaded in {:>4.0} ms ({rate:.2} GB/s), first token after {:>4.0} ms",
        load * 1e3,
        first * 1e3
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    print!(", peak memory {:.2} times the file", peak.unwrap_or(f64::NAN) * 1024.0 / bytes as f64);
    println!("; the first load took {:.0} ms", written * 1e3);
}

/// Seconds until the model is there, and until it has computed a token.
fn once(path: &Path, threads: usize, packed_cache: PackedCache) -> (f64, f64) {
    let options = EngineOptions { threads, gpus: Some(GpuChoice::None), ..Default::default() };
    let engine = Arc::new(Engine::new(options).expect("an engine"));
    let began = Instant::now();
    let model =
        engine.load(path, ModelOptions { packed_cache, ..Default::default() }).unwrap_or_else(|e| panic!("{e}"));
    let load = began.elapsed().as_secs_f64();
    let options = SessionOptions { context: 64, ..Default::default() };
    Session::new(model, options).and_then(|mut session| session.decode(&[1])).unwrap_or_else(|e| panic!("{e}"));
    (load, began.elapsed().as_secs_f64())
}
