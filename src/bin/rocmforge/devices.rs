//! `devices` and `selftest`: which GPUs there are, and whether they compute what the CPU does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use rocmforge::engine::{Engine, EngineOptions, Model, ModelOptions};
use rocmforge::placement::GpuChoice;
use rocmforge::selftest;
use rocmforge::session::{CancelToken, Session, SessionOptions};
use rocmforge::{Error, Result};

/// ‖found − expected‖ / ‖expected‖ of logits: float32 on both sides.
const REFERENCE_TOLERANCE: f64 = 2e-3;
/// Quantised activations against float32, through all layers of a network whose weights may be random.
const DEFAULT_TOLERANCE: f64 = 0.1;
/// How long a cancelled call may go on.
const CANCEL_BOUND: Duration = Duration::from_millis(50);

#[derive(Args)]
pub struct SelftestArgs {
    /// The GPU's number in the list of `devices`
    #[arg(short, long, default_value_t = 0)]
    device: usize,
    /// Smaller steps only
    #[arg(long)]
    quick: bool,
    /// Check this model, and how soon its work can be cancelled, instead of single verbs
    #[arg(long)]
    model: Option<PathBuf>,
    /// Print every check and not only those that fail
    #[arg(short, long)]
    verbose: bool,
}

pub fn devices() -> Result<()> {
    let engine = Engine::new(EngineOptions { threads: 1, gpus: Some(GpuChoice::Auto), ..Default::default() })?;
    let mut any = false;
    for (i, device) in engine.devices().enumerate() {
        any = true;
        println!(
            "{i}: {} ({}), {:.1} GB, {} compute units",
            device.name,
            device.architecture,
            device.memory as f64 / 1e9,
            device.multiprocessors
        );
        match device.unusable.as_str() {
            "" => println!("   usable"),
            reason => println!("   not used: {reason}"),
        }
    }
    if !any {
        println!("no GPU: neither AMD's HIP runtime nor NVIDIA's driver lists one; the CPU serves");
    }
    Ok(())
}

pub fn selftest(args: SelftestArgs) -> Result<()> {
    let gpus = Some(GpuChoice::These(vec![args.device]));
    let engine = Arc::new(Engine::new(EngineOptions { gpus, ..Default::default() })?);
    let device = engine.gpus()?.first().ok_or_else(|| Error::argument(format!("there is no GPU {}", args.device)))?;
    println!("{} ({})", device.info.name, device.info.architecture);
    if let Some(path) = &args.model {
        return check_model(&engine, path);
    }
    let (mut passed, mut failed) = (0, 0);
    let mut worst = 0.0f64;
    selftest::run(device, engine.pool(), args.quick, &mut |check| {
        if check.passed() {
            passed += 1;
            worst = worst.max(check.error / check.tolerance);
        } else {
            failed += 1;
        }
        if args.verbose || !check.passed() {
            let verdict = if check.passed() { "ok" } else { "FAILED" };
            println!("{verdict:6} {:.1e} (at most {:.1e})  {}", check.error, check.tolerance, check.name);
        }
    })?;
    println!("{passed} passed, {failed} failed; the largest error is {:.0} % of what is allowed", worst * 100.0);
    match failed {
        0 => Ok(()),
        n => Err(Error::Internal(format!("{n} checks of {} failed: please report them", device.info.name))),
    }
}

/// Logits after a prompt of `n` tokens and after each of `more` tokens that are decoded behind it.
fn logits(model: &Arc<Model>, reference: bool, n: u32, more: u32) -> Result<Vec<Vec<f32>>> {
    let mut session = Session::new(model.clone(), SessionOptions { context: 1024, reference, ..Default::default() })?;
    let n_vocab = model.network().n_vocab() as u32;
    let token = |i: u32| i.wrapping_mul(2_654_435_761) % n_vocab;
    session.decode(&(0..n).map(token).collect::<Vec<_>>())?;
    let mut all = vec![session.logits()?.to_vec()];
    for i in n..n + more {
        session.decode(&[token(i)])?;
        all.push(session.logits()?.to_vec());
    }
    Ok(all)
}

fn check_model(engine: &Arc<Engine>, path: &Path) -> Result<()> {
    let load = |gpu_layers| engine.load(path, ModelOptions { gpu_layers, ..Default::default() });
    let on_gpu = load(None)?;
    println!("{}: {} layers on the GPU", path.display(), on_gpu.gpu_layers);
    let mut failed = 0;
    let mut judge = |what: &str, error: f64, tolerance: f64| {
        let verdict = if error <= tolerance { "ok" } else { "FAILED" };
        println!("{verdict:6} {error:.1e} (at most {tolerance:.1e})  {what}");
        failed += usize::from(error > tolerance);
    };
    let on_cpu = load(Some(0))?;
    let expected = logits(&on_cpu, true, 12, 2)?;
    drop(on_cpu);
    judge(
        "reference mode against the CPU's",
        selftest::worst_error(&logits(&on_gpu, true, 12, 2)?, &expected),
        REFERENCE_TOLERANCE,
    );
    for n in [1, 7, 100, 300] {
        let error = selftest::worst_error(&logits(&on_gpu, false, n, 6)?, &logits(&on_gpu, true, n, 6)?);
        judge(&format!("default kernels against reference mode, {n} tokens and 6 more"), error, DEFAULT_TOLERANCE);
    }
    let late = cancel_latency(&on_gpu)?;
    let bound = CANCEL_BOUND.as_secs_f64();
    judge("seconds that a cancelled prompt goes on", late.as_secs_f64(), bound);
    match failed {
        0 => Ok(()),
        n => Err(Error::Internal(format!("{n} checks failed: please report them"))),
    }
}

/// The longest time that a long prompt went on after its cancellation.
fn cancel_latency(model: &Arc<Model>) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for wait in [3, 10, 25, 40] {
        let cancel = CancelToken::new();
        let options = SessionOptions { context: 1 << 15, cancel: Some(cancel.clone()), ..Default::default() };
        let mut session = Session::new(model.clone(), options)?;
        let tokens: Vec<u32> = (0..30_000).map(|i| i % 97).collect();
        let raised = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(wait));
            cancel.cancel();
            Instant::now()
        });
        let result = session.decode(&tokens);
        let returned = Instant::now();
        let raised = raised.join().map_err(|_| Error::Internal("the thread that cancels".into()))?;
        match result {
            Err(Error::Cancelled) => longest = longest.max(returned.saturating_duration_since(raised)),
            Err(error) => return Err(error),
            Ok(()) => return Err(Error::Internal("a prompt of 30,000 tokens ended before its cancellation".into())),
        }
    }
    Ok(longest)
}
