//! The command line: what the library does, at a prompt.

mod bench;
mod describe;
mod devices;
mod generate;
mod inspect;
mod perplexity;
mod synth;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use rocmforge::backend::cpu::features::Isa;
use rocmforge::backend::stages::Stages;
use rocmforge::engine::{Engine, EngineOptions, Model, ModelOptions, PackedCache};
use rocmforge::placement::GpuChoice;
use rocmforge::{Error, Result};

/// Runs GGUF language models.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Continue a text
    Generate(generate::GenerateArgs),
    /// Talk with the model in its own chat format
    Chat(generate::ChatArgs),
    /// Print the tokens of a text
    Tokenize(inspect::TokenizeArgs),
    /// Print a file's metadata and tensor table
    Inspect(inspect::InspectArgs),
    /// Score a text
    Perplexity(perplexity::PerplexityArgs),
    /// Measure prefill, decode, load and memory
    Bench(bench::BenchArgs),
    /// List the GPUs, and why one is not used
    Devices,
    /// Write a model of random weights, for measuring
    Synth(synth::SynthArgs),
    /// Check that a GPU computes what the CPU does
    Selftest(devices::SelftestArgs),
    /// Print the completions for a shell
    #[command(hide = true)]
    Completions(describe::CompletionsArgs),
    /// Print the man page
    #[command(hide = true)]
    Man,
}

/// An instruction set to stay within.
#[derive(Clone, Copy, ValueEnum)]
enum IsaCap {
    Scalar,
    Avx2,
    #[value(name = "avx-vnni")]
    AvxVnni,
    #[value(name = "avx512-vnni")]
    Avx512Vnni,
    Amx,
}

/// Which model, and how to run it.
#[derive(Args)]
struct ModelArgs {
    /// A GGUF file; the first part, if it is split
    model: PathBuf,
    /// Threads; 0: all
    #[arg(short, long, default_value_t = 0)]
    threads: usize,
    /// Use the weights where the file is mapped
    #[arg(long)]
    mmap: bool,
    /// Keep packed weights in a file beside the model, or in DIR: the next load is quicker
    #[arg(long, value_name = "DIR", num_args = 0..=1, require_equals = true, conflicts_with = "mmap")]
    packed_cache: Option<Option<PathBuf>>,
    /// Use no newer instructions than these
    #[arg(long, value_enum)]
    isa: Option<IsaCap>,
    /// Split text as this pre-tokenizer, whatever the file says
    #[arg(long)]
    pre: Option<String>,
    /// GPUs to use: auto, none, or numbers such as 0,1 (default: $ROCMFORGE_GPU_DEVICE, else auto)
    #[arg(long)]
    gpu: Option<String>,
    /// Layers to put on GPUs, from the last one (default: as many as fit)
    #[arg(long)]
    gpu_layers: Option<usize>,
    /// MiB that may be taken on each GPU; 0: what is free
    #[arg(long, default_value_t = 0)]
    gpu_memory: u64,
    /// Print the library's log
    #[arg(short, long)]
    verbose: bool,
}

impl ModelArgs {
    fn engine(&self) -> Result<Arc<Engine>> {
        let isa = self.isa.map(|cap| match cap {
            IsaCap::Scalar => Isa::Scalar,
            IsaCap::Avx2 => Isa::Avx2,
            IsaCap::AvxVnni => Isa::AvxVnni,
            IsaCap::Avx512Vnni => Isa::Avx512Vnni,
            IsaCap::Amx => Isa::Amx,
        });
        let log: Option<rocmforge::engine::Log> = match self.verbose {
            true => Some(Box::new(|level, message| eprintln!("{level:?}: {message}"))),
            false => None,
        };
        let gpus = self.gpu.as_deref().map(GpuChoice::parse).transpose()?;
        let gpu_memory = self.gpu_memory << 20;
        Ok(Arc::new(Engine::new(EngineOptions {
            threads: self.threads,
            isa,
            gpus,
            gpu_memory,
            log,
            ..Default::default()
        })?))
    }

    /// Loads the model, with a progress bar where someone is looking.
    fn load(&self, engine: &Arc<Engine>) -> Result<Arc<Model>> {
        self.load_timed(engine, None)
    }

    /// Loads the model; `stages` receive what its verbs take.
    fn load_timed(&self, engine: &Arc<Engine>, stages: Option<Arc<Stages>>) -> Result<Arc<Model>> {
        let style = ProgressStyle::with_template("loading {bar:40} {percent}%").unwrap_or(ProgressStyle::default_bar());
        let bar = ProgressBar::new(1000).with_style(style);
        let mut progress = |fraction: f32| {
            bar.set_position((fraction * 1000.0) as u64);
            true
        };
        let options = ModelOptions {
            mapped: self.mmap,
            packed_cache: match &self.packed_cache {
                None => PackedCache::Off,
                Some(None) => PackedCache::BesideModel,
                Some(Some(folder)) => PackedCache::Folder(folder),
            },
            pre: self.pre.as_deref(),
            gpu_layers: self.gpu_layers,
            stages,
            progress: Some(&mut progress),
            ..Default::default()
        };
        let model = engine.load(&self.model, options);
        bar.finish_and_clear();
        model
    }
}

/// A file's text, or an error that names it.
fn read_text(path: &PathBuf) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| Error::io(path.display().to_string(), e))
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::generate(args),
        Command::Chat(args) => generate::chat(args),
        Command::Tokenize(args) => inspect::tokenize(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Perplexity(args) => perplexity::perplexity(args),
        Command::Bench(args) => bench::bench(args),
        Command::Synth(args) => synth::synth(args),
        Command::Devices => devices::devices(),
        Command::Selftest(args) => devices::selftest(args),
        Command::Completions(args) => describe::completions(args),
        Command::Man => describe::man(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rocmforge: {error}");
            ExitCode::FAILURE
        }
    }
}
