//! `perplexity`: how well a model predicts a text.

use std::path::PathBuf;

use clap::Args;
use rocmforge::session::{Session, SessionOptions};
use rocmforge::{Error, Result};

use crate::{ModelArgs, read_text};

#[derive(Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text
    file: PathBuf,
    /// Tokens of a window; those of its second half are scored
    #[arg(short, long, default_value_t = 512)]
    context: usize,
    /// Windows at most; 0: all
    #[arg(short, long, default_value_t = 0)]
    windows: usize,
    /// Compute with unquantised activations
    #[arg(long)]
    reference: bool,
}

pub fn perplexity(args: PerplexityArgs) -> Result<()> {
    if args.context < 4 {
        return Err(Error::argument("--context must be at least 4"));
    }
    let model = args.model.load(&args.model.engine()?)?;
    let text = read_text(&args.file)?;
    let tokens = model.tokenize(&text, true, false)?;
    let n = tokens.len() / args.context;
    let n = if args.windows == 0 { n } else { n.min(args.windows) };
    if n == 0 {
        return Err(Error::argument(format!("the text has {} tokens, a window has {}", tokens.len(), args.context)));
    }
    let options = SessionOptions { context: args.context, reference: args.reference, ..Default::default() };
    let mut session = Session::new(model.clone(), options)?;
    let mut total = 0.0;
    let mut scored = 0usize;
    for (i, window) in tokens.chunks_exact(args.context).take(n).enumerate() {
        let mut window = window.to_vec();
        if let (true, Some(bos), Some(first)) =
            (model.tokenizer().add_bos(), model.tokenizer().bos(), window.first_mut())
        {
            *first = bos;
        }
        session.rewind(0)?;
        let (context, scored_part) = window.split_at(args.context / 2);
        session.decode(context)?;
        session.decode_each(scored_part, &mut |at, logits| {
            if let Some(&next) = scored_part.get(at + 1) {
                total += surprise(logits, next);
                scored += 1;
            }
        })?;
        eprintln!("window {} of {n}: perplexity {:.4}", i + 1, (total / scored as f64).exp());
    }
    println!("{:.4}", (total / scored as f64).exp());
    Ok(())
}

/// `-ln p(token)`.
fn surprise(logits: &[f32], token: u32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&x| f64::from(x - max).exp()).sum();
    let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    sum.ln() - f64::from(own - max)
}
