//! `perplexity`: how well a model predicts a text.

use std::path::PathBuf;

use clap::Args;
use rocmforge::session::{Session, SessionOptions};
use rocmforge::{Error, Result, sampler};

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
    /// Compare with unquantised activations: the mean Kullback-Leibler divergence of each token's probabilities from
    /// theirs, and how often the likeliest token is the same
    #[arg(long, conflicts_with = "reference")]
    divergence: bool,
}

/// Tokens whose logits in reference mode are kept at a time.
const TOGETHER: usize = 32;

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
    let session = |reference| {
        Session::new(model.clone(), SessionOptions { context: args.context, reference, ..Default::default() })
    };
    let mut exact = args.divergence.then(|| session(true)).transpose()?;
    let mut session = session(args.reference)?;
    let mut score = Score::default();
    for (i, window) in tokens.chunks_exact(args.context).take(n).enumerate() {
        let mut window = window.to_vec();
        if let (true, Some(bos), Some(first)) =
            (model.tokenizer().add_bos(), model.tokenizer().bos(), window.first_mut())
        {
            *first = bos;
        }
        score.window(&mut session, exact.as_mut(), &window)?;
        eprintln!("window {} of {n}: perplexity {score}", i + 1);
    }
    println!("{score}");
    Ok(())
}

/// What was found so far.
#[derive(Default)]
struct Score {
    /// Tokens of which this is the sum of `-ln p`.
    tokens: usize,
    surprise: f64,
    /// Tokens that were compared with reference mode, the sum of the divergences, and how often the likeliest token was the same.
    compared: usize,
    divergence: f64,
    same: usize,
}

impl Score {
    /// Scores the second half of a window; `exact` is the session to compare with.
    fn window(&mut self, session: &mut Session, mut exact: Option<&mut Session>, window: &[u32]) -> Result<()> {
        let (context, scored) = window.split_at(window.len() / 2);
        for session in [Some(&mut *session), exact.as_deref_mut()].into_iter().flatten() {
            session.rewind(0)?;
            session.decode(context)?;
        }
        let together = if exact.is_some() { TOGETHER } else { scored.len() };
        for (i, tokens) in scored.chunks(together).enumerate() {
            let mut references: Vec<Vec<f32>> = Vec::new();
            if let Some(exact) = exact.as_deref_mut() {
                exact.decode_each(tokens, &mut |_, logits| references.push(logits.to_vec()))?;
            }
            session.decode_each(tokens, &mut |at, logits| {
                if let Some(&next) = scored.get(i * together + at + 1) {
                    self.surprise += surprise(logits, next);
                    self.tokens += 1;
                }
                if let Some(reference) = references.get(at) {
                    self.compare(reference, logits);
                }
            })?;
        }
        Ok(())
    }

    /// Adds the Kullback-Leibler divergence of what `logits` say from what `reference` says.
    fn compare(&mut self, reference: &[f32], logits: &[f32]) {
        let (p_norm, q_norm) = (log_sum_exp(reference), log_sum_exp(logits));
        let terms = reference.iter().zip(logits).map(|(&p, &q)| {
            let (p, q) = (f64::from(p) - p_norm, f64::from(q) - q_norm);
            p.exp() * (p - q)
        });
        self.divergence += terms.sum::<f64>();
        self.same += usize::from(sampler::best(reference).ok() == sampler::best(logits).ok());
        self.compared += 1;
    }
}

impl std::fmt::Display for Score {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:.4}", (self.surprise / self.tokens as f64).exp())?;
        if self.compared > 0 {
            let n = self.compared as f64;
            write!(
                f,
                ", divergence {:.6}, likeliest token the same {:.2} %",
                self.divergence / n,
                100.0 * self.same as f64 / n
            )?;
        }
        Ok(())
    }
}

/// `ln Σ exp(x)`; not a number where the logits are no distribution.
fn log_sum_exp(logits: &[f32]) -> f64 {
    sampler::log_sum_exp(logits).unwrap_or(f64::NAN)
}

/// `-ln p(token)`.
fn surprise(logits: &[f32], token: u32) -> f64 {
    log_sum_exp(logits) - f64::from(logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY))
}
