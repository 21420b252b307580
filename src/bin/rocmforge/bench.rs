//! `bench`: prefill and decode in tokens per second and gigabytes per second, load time, peak memory.

use std::sync::Arc;
use std::time::Instant;

use clap::Args;
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
    let model = args.model.load(&engine)?;
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let n_vocab = model.network().n_vocab() as u32;
    // Fixed, spread over the vocabulary: neither timing depends on what the tokens say.
    let tokens: Vec<u32> =
        (0..args.prompt.max(args.generate) as u32).map(|i| i.wrapping_mul(2_654_435_761) % n_vocab).collect();
    let context = args.prompt.max(args.generate);
    let mut session = Session::new(model.clone(), SessionOptions { context, batch: args.batch, ..Default::default() })?;
    let (mut prefill, mut decode) = (Vec::new(), Vec::new());
    for round in 0..=args.repeat {
        session.rewind(0)?;
        let began = Instant::now();
        session.decode(tokens.get(..args.prompt).unwrap_or_default())?;
        let prefill_s = began.elapsed().as_secs_f64();
        session.rewind(0)?;
        let began = Instant::now();
        for token in tokens.iter().take(args.generate) {
            session.decode(&[*token])?;
        }
        let decode_s = began.elapsed().as_secs_f64();
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
    }
    Ok(())
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
