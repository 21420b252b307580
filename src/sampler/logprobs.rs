//! Log-probabilities for showing and scoring: of the model's own distribution, before any sampler option.

use crate::{Error, Result};

/// A token and the natural logarithm of its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// The token's id.
    pub token: u32,
    /// ln p, at most 0; negative infinity for a token that is impossible.
    pub logprob: f32,
}

/// The `n` most probable tokens of one row of logits, the best first, of equal ones the lowest id first.
///
/// # Errors
/// [`Error::Argument`] when the logits are no distribution (NaN, positive infinity, or no token possible).
pub fn top_logprobs(logits: &[f32], n: usize) -> Result<Vec<TokenLogprob>> {
    let normalizer = log_sum_exp(logits)?;
    let mut order: Vec<u32> = (0..).take(logits.len()).collect();
    let logit = |token: &u32| logits.get(*token as usize).copied().unwrap_or(f32::NEG_INFINITY);
    let compare = |a: &u32, b: &u32| logit(b).total_cmp(&logit(a)).then(a.cmp(b));
    if n > 0 && n < order.len() {
        order.select_nth_unstable_by(n - 1, compare);
    }
    order.truncate(n);
    order.sort_unstable_by(compare);
    Ok(order.iter().map(|token| TokenLogprob { token: *token, logprob: logprob(logit(token), normalizer) }).collect())
}

/// The log-probability of one token.
///
/// # Errors
/// [`Error::Argument`] when the token is outside the vocabulary or the logits are no distribution.
pub fn token_logprob(logits: &[f32], token: u32) -> Result<f32> {
    let tokens = logits.len();
    let logit = logits.get(token as usize);
    let logit = logit.ok_or_else(|| Error::argument(format!("token {token} is not one of the {tokens} tokens")))?;
    Ok(logprob(*logit, log_sum_exp(logits)?))
}

fn logprob(logit: f32, normalizer: f64) -> f32 {
    ((f64::from(logit) - normalizer) as f32).min(0.0)
}

/// ln Σ exp(logit), in f64 and relative to the highest logit, so that nothing overflows.
///
/// # Errors
/// [`Error::Argument`] when the logits are no distribution.
pub fn log_sum_exp(logits: &[f32]) -> Result<f64> {
    let best = super::best(logits)?;
    let highest = f64::from(logits.get(best as usize).copied().unwrap_or_default());
    let sum: f64 = logits.iter().map(|logit| (f64::from(*logit) - highest).exp()).sum();
    Ok(highest + sum.ln())
}
