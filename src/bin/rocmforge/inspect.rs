//! `inspect` and `tokenize`.

use std::path::PathBuf;

use clap::Args;
use rocmforge::Result;
use rocmforge::gguf::Value;
use rocmforge::load::ModelFile;
use rocmforge::tokenizer::{self, Tokenizer};

#[derive(Args)]
pub struct InspectArgs {
    /// A GGUF file; the first part, if it is split
    model: PathBuf,
    /// Print strings and arrays whole
    #[arg(long)]
    full: bool,
    /// Leave out the tensor table
    #[arg(long)]
    no_tensors: bool,
}

#[derive(Args)]
pub struct TokenizeArgs {
    /// A GGUF file
    model: PathBuf,
    /// The text
    text: String,
    /// Split text as this pre-tokenizer, whatever the file says
    #[arg(long)]
    pre: Option<String>,
    /// Add what the metadata asks for (BOS, EOS)
    #[arg(long)]
    add_special: bool,
    /// Read control tokens in the text as tokens
    #[arg(long)]
    parse_special: bool,
    /// Print only the ids
    #[arg(long)]
    ids: bool,
}

/// Elements or characters of a value that are printed unless all are asked for.
const SHOWN: usize = 8;

pub fn inspect(args: InspectArgs) -> Result<()> {
    let file = ModelFile::open(&args.model, false)?;
    println!("{}: GGUF version {}", file.name(), file.version);
    for (key, value) in file.metadata.iter() {
        println!("  {key} ({}) = {}", value.type_name(), shown(value, args.full));
    }
    let bytes = file.tensor_bytes();
    println!("{} tensors, {bytes} bytes", file.tensors.iter().len());
    if !args.no_tensors {
        for t in file.tensors.iter() {
            println!(
                "  {:40} {:8} {:>20} {:>12} bytes at {}",
                t.name,
                t.tensor_type.name(),
                t.shape_text(),
                t.bytes,
                t.offset
            );
        }
    }
    Ok(())
}

fn shown(value: &Value, full: bool) -> String {
    match value {
        Value::String(s) if !full && s.chars().count() > 10 * SHOWN => {
            let head: String = s.chars().take(10 * SHOWN).collect();
            format!("{:?} … ({} bytes)", head, s.len())
        }
        Value::String(s) => format!("{s:?}"),
        Value::Array(a) if !full && a.len() > SHOWN => {
            let json = a.to_json();
            let head: Vec<String> =
                json.as_array().into_iter().flatten().take(SHOWN).map(ToString::to_string).collect();
            format!("[{}, … ({} elements)]", head.join(", "), a.len())
        }
        other => other.to_string(),
    }
}

pub fn tokenize(args: TokenizeArgs) -> Result<()> {
    let file = ModelFile::open(&args.model, false)?;
    let tokenizer = Tokenizer::from_metadata(&file.metadata, &tokenizer::Options { pre: args.pre })?;
    let ids = tokenizer.encode(&args.text, args.add_special, args.parse_special)?;
    if args.ids {
        println!("{}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        return Ok(());
    }
    for id in ids {
        println!("{id:>8}  {:?}", tokenizer.token_text(id).unwrap_or_default());
    }
    Ok(())
}
