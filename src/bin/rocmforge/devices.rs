//! `devices` and `selftest`: which GPUs there are, and whether they compute what the CPU does.

use clap::Args;
use rocmforge::engine::{Engine, EngineOptions};
use rocmforge::placement::GpuChoice;
use rocmforge::selftest;
use rocmforge::{Error, Result};

#[derive(Args)]
pub struct SelftestArgs {
    /// The GPU's number in the list of `devices`
    #[arg(short, long, default_value_t = 0)]
    device: usize,
    /// Smaller steps only
    #[arg(long)]
    quick: bool,
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
    let engine = Engine::new(EngineOptions { gpus, ..Default::default() })?;
    let device = engine.gpus()?.first().ok_or_else(|| Error::argument(format!("there is no GPU {}", args.device)))?;
    println!("{} ({})", device.info.name, device.info.architecture);
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
