//! The cache of packed weights: a second load gives the same logits, sooner; whatever is wrong with the file, the model loads.

mod common;
#[path = "common/tiny.rs"]
mod tiny;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rocmforge::Error;
use rocmforge::backend::cpu::features::Isa;
use rocmforge::engine::{Engine, EngineOptions, LogLevel, Model, ModelOptions, PackedCache};
use rocmforge::gguf::{MemorySource, ReaderSource};
use rocmforge::placement::GpuChoice;
use rocmforge::quant::TensorType;
use rocmforge::session::{Session, SessionOptions};
use rocmforge::synth::{Mix, Shape, TINY, write_model};

type Messages = Arc<Mutex<Vec<(LogLevel, String)>>>;

fn engine() -> (Arc<Engine>, Messages) {
    let messages = Messages::default();
    let heard = messages.clone();
    let engine = Engine::new(EngineOptions {
        threads: 2,
        gpus: Some(GpuChoice::None),
        log: Some(Box::new(move |level, text| heard.lock().expect("a log").push((level, text.to_string())))),
        ..Default::default()
    });
    (Arc::new(engine.expect("an engine")), messages)
}

fn options(packed_cache: PackedCache<'_>) -> ModelOptions<'_> {
    ModelOptions { packed_cache, ..Default::default() }
}

fn logits(model: &Arc<Model>) -> Vec<f32> {
    let mut session =
        Session::new(model.clone(), SessionOptions { context: 32, ..Default::default() }).expect("a session");
    session.decode(&[1, 5, 9, 3]).expect("tokens");
    session.logits().expect("logits").to_vec()
}

/// Loads with a cache beside the model; the logits, and what the log says of the cache.
fn load(path: &Path, cache: PackedCache) -> (Vec<f32>, Vec<(LogLevel, String)>) {
    let (engine, messages) = engine();
    let model = engine.load(path, options(cache)).unwrap_or_else(|e| panic!("{e}"));
    let logits = logits(&model);
    let messages = messages.lock().expect("a log").drain(..).filter(|(_, text)| text.contains("pack")).collect();
    (logits, messages)
}

fn said(messages: &[(LogLevel, String)], level: LogLevel, part: &str) -> bool {
    messages.iter().any(|(l, text)| *l == level && text.contains(part))
}

/// A tiny model in a folder of its own.
fn tiny_file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tiny.gguf");
    fs::write(&path, tiny::llama().bytes()).expect("a file");
    (folder, path)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|e| e.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Nothing is packed where there are only portable kernels.
fn packs() -> bool {
    let packs = Isa::detect() > Isa::Scalar;
    if !packs {
        eprintln!("SKIPPED: this processor has no kernels for packed weights");
    }
    packs
}

#[test]
fn without_the_option_nothing_is_written() {
    let (folder, path) = tiny_file();
    load(&path, PackedCache::Off);
    assert_eq!(names(folder.path()), ["tiny.gguf"]);
}

#[test]
fn the_second_load_uses_what_the_first_wrote() {
    if !packs() {
        return;
    }
    let (folder, path) = tiny_file();
    let (plain, _) = load(&path, PackedCache::Off);
    let (first, messages) = load(&path, PackedCache::BesideModel);
    assert!(said(&messages, LogLevel::Info, "wrote"), "{messages:?}");
    assert_eq!(names(folder.path()), ["tiny.gguf", "tiny.gguf.rfpack"]);
    let (second, messages) = load(&path, PackedCache::BesideModel);
    assert!(said(&messages, LogLevel::Info, "packed weights from"), "{messages:?}");
    assert_eq!((&first, &second), (&plain, &plain));

    let elsewhere = tempfile::tempdir().expect("a folder");
    load(&path, PackedCache::Folder(elsewhere.path()));
    assert_eq!(names(elsewhere.path()), ["tiny.gguf.rfpack"]);
}

/// Weights in 16 bits: those that are packed in 12, those that are not, and those of which that turns out late.
#[test]
fn either_form_of_halves_is_found_again() {
    if !packs() {
        return;
    }
    // Tensors begin at multiples of 64 KiB: these are large enough for that not to matter.
    let shape = Shape { layers: 2, n_embd: 512, n_ff: 2048, ..TINY };
    let mut sizes = Vec::new();
    for (tensor_type, odd) in [(TensorType::BF16, false), (TensorType::BF16, true), (TensorType::F16, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("model.gguf");
        let mut bytes = Vec::new();
        write_model(&shape, Mix::Uniform(tensor_type), 1, &mut bytes).expect("a model");
        if odd {
            // A tenth of the weights become as small as can be.
            let from = bytes.len() / 10;
            bytes[from..].chunks_exact_mut(20).for_each(|weights| weights[..2].copy_from_slice(&[1, 0]));
        }
        fs::write(&path, &bytes).expect("a file");
        let (plain, _) = load(&path, PackedCache::Off);
        let (first, messages) = load(&path, PackedCache::BesideModel);
        assert!(said(&messages, LogLevel::Info, "wrote"), "{messages:?}");
        let (second, messages) = load(&path, PackedCache::BesideModel);
        assert!(said(&messages, LogLevel::Info, "packed weights from"), "{messages:?}");
        assert!(!said(&messages, LogLevel::Info, "wrote"), "{messages:?}");
        assert_eq!((&first, &second), (&plain, &plain));
        sizes.push(fs::metadata(folder.path().join("model.gguf.rfpack")).expect("a file").len());
    }
    assert!(sizes[0] * 6 < sizes[1] * 5 && sizes[0] * 6 < sizes[2] * 5, "{sizes:?}");
}

#[test]
fn another_model_of_the_same_name_is_noticed() {
    if !packs() {
        return;
    }
    let (_folder, path) = tiny_file();
    load(&path, PackedCache::BesideModel);
    let time = fs::metadata(&path).and_then(|m| m.modified()).expect("a time");
    // Same length, same header, same time: a weight at the end of a tensor.
    let mut other = fs::read(&path).expect("a file");
    let last = other.len() - 3;
    other[last] ^= 1;
    let write = |bytes: &[u8], time| {
        fs::write(&path, bytes).expect("a file");
        fs::File::options().append(true).open(&path).and_then(|f| f.set_modified(time)).expect("a time");
    };
    write(&other, time);
    let (plain, _) = load(&path, PackedCache::Off);
    let (cached, messages) = load(&path, PackedCache::BesideModel);
    assert!(said(&messages, LogLevel::Warning, "another model"), "{messages:?}");
    assert_eq!(cached, plain);
    // Only the time is another.
    write(&other, time + Duration::from_secs(1));
    let (cached, messages) = load(&path, PackedCache::BesideModel);
    assert!(said(&messages, LogLevel::Warning, "another model"), "{messages:?}");
    assert_eq!(cached, plain);
    assert!(said(&load(&path, PackedCache::BesideModel).1, LogLevel::Info, "packed weights from"));
}

#[test]
fn a_damaged_file_is_noticed_and_written_anew() {
    if !packs() {
        return;
    }
    let (folder, path) = tiny_file();
    let (plain, _) = load(&path, PackedCache::BesideModel);
    let cache = folder.path().join("tiny.gguf.rfpack");
    let good = fs::read(&cache).expect("a file");
    let mut damaged = good.clone();
    damaged[65_536 + 5] ^= 8;
    for bad in [&damaged[..], &good[..good.len() / 2], b"", b"something else"] {
        fs::write(&cache, bad).expect("a file");
        let (found, messages) = load(&path, PackedCache::BesideModel);
        assert!(messages.iter().any(|(level, _)| *level == LogLevel::Warning), "{messages:?}");
        assert_eq!(found, plain);
        assert!(fs::read(&cache).expect("a file") == good);
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_a_warning() {
    if !packs() {
        return;
    }
    let (folder, path) = tiny_file();
    let (plain, _) = load(&path, PackedCache::Off);
    let missing = folder.path().join("missing");
    // Not even root can make files in /proc.
    for nowhere in [Path::new("/proc"), &missing, &path] {
        let (found, messages) = load(&path, PackedCache::Folder(nowhere));
        assert!(said(&messages, LogLevel::Warning, "not kept"), "{}: {messages:?}", nowhere.display());
        assert_eq!(found, plain);
    }
    assert_eq!(names(folder.path()), ["tiny.gguf"]);
}

#[test]
fn loads_at_the_same_time_do_not_disturb_each_other() {
    let (folder, path) = tiny_file();
    let (plain, _) = load(&path, PackedCache::Off);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(load(&path, PackedCache::BesideModel).0, plain);
                    let _ = fs::remove_file(folder.path().join("tiny.gguf.rfpack"));
                }
            });
        }
    });
    let (found, _) = load(&path, PackedCache::BesideModel);
    assert_eq!(found, plain);
    assert!(names(folder.path()).iter().all(|name| !name.ends_with(".tmp")), "{:?}", names(folder.path()));
}

#[test]
fn what_has_no_path_or_is_not_packed_is_refused() {
    let (engine, _) = engine();
    let (_folder, path) = tiny_file();
    let both = ModelOptions { mapped: true, packed_cache: PackedCache::BesideModel, ..Default::default() };
    assert!(matches!(engine.load(&path, both), Err(Error::Argument(_))));
    let bytes = tiny::llama().bytes();
    let loaded = engine.load_source(Box::new(MemorySource::new(&bytes)), options(PackedCache::BesideModel));
    assert!(matches!(loaded, Err(Error::Unsupported { .. })));
}

#[test]
fn weights_are_packed_alike_whoever_may_read_them() {
    let (_folder, path) = tiny_file();
    let (from_file, _) = load(&path, PackedCache::Off);
    let bytes = tiny::llama().bytes();
    let loader = std::thread::current().id();
    let read = |offset: u64, buffer: &mut [u8]| {
        assert_eq!(std::thread::current().id(), loader, "the host's reader runs on a thread that is not its own");
        buffer.copy_from_slice(&bytes[offset as usize..][..buffer.len()]);
        Ok(())
    };
    let source = Box::new(ReaderSource::new(bytes.len() as u64, read));
    let model = engine().0.load_source(source, ModelOptions::default()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(logits(&model), from_file);
}

#[test]
fn the_second_load_of_a_real_model_is_quicker() {
    let Some(path) = common::model_path("SmolLM2-135M-Instruct.Q4_1.gguf") else { return };
    if !packs() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (engine, _) = engine();
    let best = |cache| {
        let once = || {
            let began = Instant::now();
            engine.load(&path, options(cache)).unwrap_or_else(|e| panic!("{e}"));
            began.elapsed()
        };
        (0..5).map(|_| once()).min().unwrap_or_default()
    };
    let packing = best(PackedCache::Off);
    let cache = PackedCache::Folder(folder.path());
    let (written, _) = load(&path, cache);
    let mapping = best(cache);
    println!("packing {packing:?}, mapping {mapping:?}");
    assert!(mapping < packing, "packing takes {packing:?}, mapping what was packed {mapping:?}");
    assert_eq!(load(&path, cache).0, written);
    assert_eq!(load(&path, PackedCache::Off).0, written);
}
