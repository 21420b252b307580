//! The command line, run as a user runs it: perplexity against llama.cpp's, load time and memory, and every command.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{model_path, need, shared_path};
use rocmforge::backend::cpu::features::Isa;
use rocmforge::quant::TensorType;
use rocmforge::synth::{Mix, Shape, write_model};
use serde_json::Value;

fn rocmforge(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rocmforge")).args(args).output().expect("rocmforge runs")
}

/// Standard output of a run that must succeed.
fn run(args: &[&str]) -> String {
    let output = rocmforge(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

const SMOLLM2: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const MODELS: [&str; 3] = [SMOLLM2, "gemma-3-270m-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"];

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn perplexity_is_llama_cpps() {
    let (Some(file), Some(golden)) = (shared_path("golden/perplexity.txt"), shared_path("golden/perplexity.json"))
    else {
        return;
    };
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(golden).expect("readable")).expect("JSON");
    for name in MODELS {
        let Some(model) = model_path(name) else { continue };
        let peers = golden["perplexity"][name].as_object().expect("golden perplexities");
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar).map(Isa::name) {
            let args =
                ["perplexity", text(&model), text(&file), "-c", "512", "-w", "16", "--gpu", "none", "--isa", isa];
            let found: f64 = run(&args).trim().parse().expect("a number");
            for (kernels, peer) in peers {
                let peer = peer.as_f64().expect("a number");
                println!(
                    "{name}, {isa}: perplexity {found}, llama.cpp's {peer} ({kernels}), {:+.2} %",
                    (found / peer - 1.0) * 100.0
                );
                assert!(
                    (found / peer - 1.0).abs() < 0.005,
                    "{name}, {isa}: perplexity {found}, llama.cpp's {kernels} give {peer}"
                );
            }
        }
    }
}

/// What quantising activations costs, in every instruction set. One scale for 256 activations of K-quants, as is usual, would be at 0.02.
#[test]
fn probabilities_are_near_those_of_reference_mode() {
    let Some(file) = shared_path("golden/perplexity.txt") else { return };
    for name in MODELS {
        let Some(model) = model_path(name) else { continue };
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar).map(Isa::name) {
            let args =
                ["perplexity", text(&model), text(&file), "-c", "128", "-w", "1", "--divergence", "--gpu", "none"];
            let found = run(&[&args[..], &["--isa", isa]].concat());
            println!("{name}, {isa}: {}", found.trim());
            let number = |after: &str| -> f64 {
                let rest = found.split(after).nth(1).and_then(|rest| rest.split_whitespace().next());
                rest.and_then(|number| number.trim_end_matches(',').parse().ok()).expect("a number")
            };
            let (divergence, same) = (number("divergence "), number("the same "));
            assert!((1e-6..0.006).contains(&divergence) && same > 90.0, "{name}, {isa}: {found}");
        }
    }
}

fn bench(model: &Path, more: &[&str]) -> Value {
    let args = [&["bench", text(model), "-p", "64", "-g", "4", "-r", "1", "--json"], more].concat();
    serde_json::from_str(&run(&args)).expect("JSON")
}

/// Issued limit: 1.15 times the file, the cache of keys and values, and 64 MiB. Packed weights are as large as the file's, so
/// that the file counts once here, which is stricter. A process for each: the peak is its own.
#[test]
fn memory_stays_within_the_file_the_cache_and_64_mib() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut models: Vec<PathBuf> = MODELS.iter().filter_map(|name| model_path(name)).collect();
    let f16 = folder.path().join("f16.gguf");
    let shape = Shape { layers: 8, n_embd: 1024, n_ff: 2816, n_head: 16, n_head_kv: 4, n_vocab: 32_000, tied: false };
    let mut file = std::io::BufWriter::new(std::fs::File::create(&f16).expect("a file"));
    write_model(&shape, Mix::Uniform(TensorType::F16), 1, &mut file).expect("a model");
    drop(file);
    models.push(f16);
    for model in models {
        let file = std::fs::metadata(&model).expect("a file").len();
        let name = model.file_name().expect("a name").to_string_lossy();
        let cached = format!("--packed-cache={}", text(folder.path()));
        // With a cache twice: what writes it, and what maps it.
        for mode in [&[][..], &["--mmap"], &[&cached], &[&cached]] {
            let record = bench(&model, mode);
            let peak = record["peak_rss_bytes"].as_u64().expect("peak");
            let limit = file + record["kv_bytes"].as_u64().expect("kv") + (64 << 20);
            println!("{name} {mode:?}: {} MiB at the peak, {} MiB allowed", peak >> 20, limit >> 20);
            assert!(peak <= limit, "{name} {mode:?}: {peak} bytes, {limit} allowed");
        }
    }
}

#[test]
fn a_mapped_model_loads_in_an_instant() {
    let Some(model) = model_path(SMOLLM2) else { return };
    let best =
        (0..5).map(|_| bench(&model, &["--mmap"])["load_ms"].as_f64().expect("ms")).fold(f64::INFINITY, f64::min);
    println!("{SMOLLM2} mapped: {best:.1} ms");
    assert!(best < 150.0, "{best} ms");
}

#[test]
fn generate_and_chat_and_tokenize_and_inspect() {
    let Some(model) = model_path(SMOLLM2) else { return };
    let model = text(&model);
    let greedy = ["--temperature", "0", "-n", "8", "-c", "256"];
    let generated = run(&[&["generate", model, "-p", "The capital of France is"], &greedy[..]].concat());
    assert!(generated.starts_with("The capital of France is Paris."), "{generated}");
    let chat = run(&[&["chat", model, "-p", "Say hello.", "--system", "Be brief."], &greedy[..]].concat());
    assert!(chat.contains("Hello"), "{chat}");
    let seeded = || run(&["generate", model, "-p", "Once", "-n", "12", "--seed", "7", "-c", "256"]);
    assert_eq!(seeded(), seeded());
    assert_eq!(run(&["tokenize", model, "The capital of France is", "--ids"]).trim(), "504 3575 282 4649 314");
    let inspected = run(&["inspect", model]);
    for part in ["GGUF version", "general.architecture (string) = \"llama\"", "blk.0.attn_q.weight", "576 × 49152"] {
        assert!(inspected.contains(part), "{part} is not in {inspected}");
    }
}

#[test]
fn errors_are_one_sentence_and_a_status() {
    let output = rocmforge(&["generate", "no-such-file.gguf", "-p", "x"]);
    assert!(!output.status.success());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(message.contains("no-such-file.gguf") && message.trim().lines().count() == 1, "{message}");
    assert!(output.stdout.is_empty());
}

#[test]
fn a_model_that_cannot_be_made_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.gguf");
    // Rows of 576 are no whole blocks of 256.
    let output = rocmforge(&["synth", "--shape", "135m", "--types", "q4_k_m", text(&file)]);
    assert!(!output.status.success() && !file.exists(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_first_gguf_version_is_read() {
    let Some(v1) = need(common::shared().join("models/tinyllamas-stories-260k-f32.gguf")) else { return };
    let Some(v3) = shared_path("models/stories260K-f32.v3.gguf") else { return };
    assert!(run(&["inspect", text(&v1)]).contains("GGUF version 1"));
    let story =
        |path: &Path| run(&["generate", text(path), "-p", "Once upon a time", "--temperature", "0", "-n", "40"]);
    assert_eq!(story(&v1), story(&v3));
}
