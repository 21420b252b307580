//! `synth`: a model of random weights with the shape and the size of a known one.

use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use rocmforge::quant::{FORMATS, TensorType};
use rocmforge::synth::{LLAMA_1B, LLAMA_8B, Mix, QWEN2_1_5B, SMOLLM2_135M, TINY, write_model};
use rocmforge::{Error, Result};

#[derive(Clone, Copy, ValueEnum)]
enum ShapeName {
    /// A model for tests
    Tiny,
    /// As SmolLM2 135M
    #[value(name = "135m")]
    Smol,
    /// As Qwen2.5 1.5B
    #[value(name = "1.5b")]
    Qwen,
    /// As Llama 3.2 1B
    #[value(name = "1b")]
    OneB,
    /// As Llama 3.1 8B
    #[value(name = "8b")]
    EightB,
}

#[derive(Args)]
pub struct SynthArgs {
    /// The file to write
    output: PathBuf,
    /// The model's shape
    #[arg(long, value_enum, default_value = "1b")]
    shape: ShapeName,
    /// Tensor types: q4_k_m, or one type for all, such as q8_0 or f16
    #[arg(long, default_value = "q4_k_m")]
    types: String,
    /// The same seed gives the same file
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn mix_of(name: &str) -> Result<Mix> {
    if name.eq_ignore_ascii_case("q4_k_m") {
        return Ok(Mix::Q4KM);
    }
    let served = || FORMATS.iter().filter(|f| f.decode.is_some());
    let found = served().find(|f| f.name.eq_ignore_ascii_case(name)).map(|f| f.tensor_type);
    found.map(Mix::Uniform).ok_or_else(|| {
        let names: Vec<_> = served().map(|f| TensorType::name(f.tensor_type).to_lowercase()).collect();
        Error::argument(format!("there are no types called '{name}'; there are q4_k_m, {}", names.join(", ")))
    })
}

pub fn synth(args: SynthArgs) -> Result<()> {
    let shape = match args.shape {
        ShapeName::Tiny => TINY,
        ShapeName::Smol => SMOLLM2_135M,
        ShapeName::Qwen => QWEN2_1_5B,
        ShapeName::OneB => LLAMA_1B,
        ShapeName::EightB => LLAMA_8B,
    };
    let mix = mix_of(&args.types)?;
    let file = File::create(&args.output).map_err(|e| Error::io(args.output.display().to_string(), e))?;
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let written = write_model(&shape, mix, args.seed, &mut BufWriter::with_capacity(1 << 20, file));
    // Half a model is none.
    if written.is_err() && regular {
        let _ = std::fs::remove_file(&args.output);
    }
    written
}
