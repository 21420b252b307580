//! `bench`: prefill and decode in tokens per second and gigabytes per second, load time, peak memory.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use rocmforge::backend::stages::{NAMES, Stage, Stages};
use rocmforge::engine::Model;
use rocmforge::session::{MAX_BATCH, Session, SessionOptions};
use rocmforge::{Error, Result};
use serde_json::json;

use crate::ModelArgs;

#[derive(Args)]
pub struct BenchArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Tokens of the prompt
    #[arg(short, long, default_value_t = 512)]
    prompt: usize,
    /// Tokens to generate, one at a time
    #[arg(short, long, default_value_t = 128)]
    generate: usize,
    /// Repetitions; medians are printed
    #[arg(short, long, default_value_t = 5)]
    repeat: usize,
    /// Tokens of a prompt that are computed at a time; 0: the library's default
    #[arg(long, default_value_t = 0)]
    batch: usize,
    /// Sessions that generate as one batch besides; 0: none
    #[arg(short, long, default_value_t = 0)]
    sessions: usize,
    /// Print where the time goes, for models on the CPU
    #[arg(long)]
    stages: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn bench(args: BenchArgs) -> Result<()> {
    if args.prompt == 0 || args.generate == 0 || args.repeat == 0 {
        return Err(Error::argument("--prompt, --generate and --repeat must be above 0"));
    }
    let engine = args.model.engine()?;
    let began = Instant::now();
    let stages = args.stages.then(Arc::<Stages>::default);
    let model = args.model.load_timed(&engine, stages.clone())?;
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let n_vocab = model.network().n_vocab() as u32;
    // Fixed, spread over the vocabulary: neither timing depends on what the tokens say.
    let tokens: Vec<u32> =
        (0..args.prompt.max(args.generate) as u32).map(|i| i.wrapping_mul(2_654_435_761) % n_vocab).collect();
    let context = args.prompt.max(args.generate);
    let mut session = Session::new(model.clone(), SessionOptions { context, batch: args.batch, ..Default::default() })?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    let (mut prefill_stages, mut decode_stages) = Default::default();
    let take = || stages.as_ref().map(|stages| stages.take()).unwrap_or_default();
    for round in 0..=args.repeat {
        session.rewind(0)?;
        let began = Instant::now();
        session.decode(tokens.get(..args.prompt).unwrap_or_default())?;
        let prefill_s = began.elapsed().as_secs_f64();
        prefill_stages = take();
        session.rewind(0)?;
        let began = Instant::now();
        for token in tokens.iter().take(args.generate) {
            session.decode(&[*token])?;
        }
        let decode_s = began.elapsed().as_secs_f64();
        decode_stages = take();
        // The first round warms caches and is not counted.
        if round > 0 {
            prefill.push(args.prompt as f64 / prefill_s);
            decode.push(args.generate as f64 / decode_s);
        }
    }
    let (prefill, decode) = (median(prefill), median(decode));
    let gbps = decode * model.network().bytes_per_token() as f64 / 1e9;
    let batched = match args.sessions {
        0 => None,
        n => Some(decode_batched(&model, &tokens, &args, n)?),
    };
    let rss = peak_rss();
    if args.json {
        let record = json!({
            "model": model.path.file_name().and_then(|n| n.to_str()),
            "threads": engine.threads(),
            "isa": engine.isa().name(),
            "pp_tokens": args.prompt,
            "tg_tokens": args.generate,
            "prefill_tps": prefill,
            "decode_tps": decode,
            "decode_gbps": gbps,
            "sessions": args.sessions,
            "batched_tps": batched,
            "peak_rss_bytes": rss,
            "kv_bytes": session.kv_bytes(),
            "tensor_bytes": model.tensor_bytes,
            "load_ms": load_ms,
        });
        println!("{record}");
    } else {
        println!("{}, {} threads, {}", model.path.display(), engine.threads(), engine.isa().name());
        println!("prefill  {:>10.1} tokens/s  ({} tokens)", prefill, args.prompt);
        println!("decode   {:>10.1} tokens/s  ({} tokens, {gbps:.1} GB/s of weights)", decode, args.generate);
        if let Some(batched) = batched {
            let gain = batched / decode;
            println!("batched  {batched:>10.1} tokens/s  ({} sessions, {gain:.2} times one)", args.sessions);
        }
        println!("load     {load_ms:>10.0} ms");
        println!("memory   {:>10.1} MB at the peak", rss as f64 / 1e6);
        if args.stages {
            print_stages("prefill", &prefill_stages);
            print_stages("decode", &decode_stages);
        }
    }
    Ok(())
}

/// The stages of the last round, and their shares of it.
fn print_stages(what: &str, stages: &[Stage; NAMES.len()]) {
    let total: f64 = stages.iter().map(|stage| stage.time.as_secs_f64()).sum();
    println!("{what:18} {:>10} {:>6} {:>8} {:>8}", "ms", "%", "GB/s", "TOPS");
    for (name, stage) in NAMES.iter().zip(stages) {
        let seconds = stage.time.as_secs_f64().max(1e-9);
        let (rate, tops) = (stage.bytes as f64 / seconds / 1e9, stage.operations as f64 / seconds / 1e12);
        println!(
            "  {name:16} {:>10.2} {:>6.1} {rate:>8.1} {tops:>8.3}",
            seconds * 1e3,
            100.0 * seconds / total.max(1e-9)
        );
    }
}

/// Tokens per second of `n` sessions that are decoded together.
fn decode_batched(model: &Arc<Model>, tokens: &[u32], args: &BenchArgs, n: usize) -> Result<f64> {
    let options = || SessionOptions { context: args.generate, batch: n.min(MAX_BATCH), ..Default::default() };
    let mut sessions = (0..n).map(|_| Session::new(model.clone(), options())).collect::<Result<Vec<_>>>()?;
    let mut rates = Vec::new();
    for round in 0..=args.repeat {
        sessions.iter_mut().try_for_each(|session| session.rewind(0))?;
        let mut together: Vec<&mut Session> = sessions.iter_mut().collect();
        let began = Instant::now();
        for i in 0..args.generate {
            let step: Vec<u32> =
                (0..n).filter_map(|session| tokens.get((i + session) % tokens.len()).copied()).collect();
            Session::decode_batch(&mut together, &step)?;
        }
        if round > 0 {
            rates.push((n * args.generate) as f64 / began.elapsed().as_secs_f64());
        }
    }
    Ok(median(rates))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The largest resident set of this process so far, in bytes; 0 where the system does not tell.
fn peak_rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}
