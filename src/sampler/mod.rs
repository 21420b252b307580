//! From logits to a token.
//!
//! The chain, in this order; a stage whose option has its neutral value does nothing:
//!
//! 1. `logit_bias` is added, token by token;
//! 2. repetition, frequency and presence penalties on the tokens in the window;
//! 3. temperature 0 ends here: the highest logit wins, and of equal ones the lowest token id (greedy);
//! 4. `top_k` keeps the k most probable tokens;
//! 5. `typical_p` keeps the locally typical ones (Meister et al. 2022);
//! 6. `top_p` keeps the fewest most probable tokens that together have that probability (Holtzman et al. 2020);
//! 7. `min_p` keeps the tokens at least that fraction as probable as the best (Nguyen et al. 2024);
//! 8. temperature divides the logits that are left;
//! 9. one number of the seeded generator (SplitMix64) draws a token.
//!
//! It is llama.cpp's default order. Each of 5 to 7 sees probabilities that sum to one over the tokens which the stage
//! before has left, and always leaves at least one. The same options, seed, logits and history give the same token on
//! the same build; greedy sampling never touches the generator.

mod chain;
mod logprobs;
mod penalties;
mod rng;
mod stop;
#[cfg(test)]
mod tests;

pub use logprobs::{TokenLogprob, log_sum_exp, token_logprob, top_logprobs};
pub use stop::{StopMatcher, Stops};

use self::chain::Chain;
use self::rng::SplitMix64;
use crate::{Error, Result};

/// How tokens are chosen. The default is llama.cpp's: temperature 0.8, top-k 40, top-p 0.95, min-p 0.05, the rest off.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; above 1 flattens, below 1 sharpens, 0 is greedy. At least 0; default 0.8.
    pub temperature: f32,
    /// Keeps that many most probable tokens; 0 keeps all. Default 40.
    pub top_k: u32,
    /// Keeps the most probable tokens up to this sum of probabilities; 1 keeps all. In (0, 1]; default 0.95.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as probable as the best; 0 keeps all. In [0, 1]; default 0.05.
    pub min_p: f32,
    /// Keeps the locally typical tokens up to this sum of probabilities; 1 keeps all. In (0, 1]; default 1.
    pub typical_p: f32,
    /// Divides positive and multiplies negative logits of tokens in the window; 1 is off. Above 0; default 1.
    pub repetition_penalty: f32,
    /// Subtracted from a token's logit for each time it stands in the window. In [-100, 100]; default 0.
    pub frequency_penalty: f32,
    /// Subtracted once from the logit of each token in the window. In [-100, 100]; default 0.
    pub presence_penalty: f32,
    /// How many of the last tokens the penalties look at; 0 is none. Default 64.
    pub penalty_window: u32,
    /// Added to the logits of these tokens; negative infinity bans a token. No token twice; default empty.
    pub logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers start; any number. Default 0.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> Self {
        SamplerOptions {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            typical_p: 1.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            penalty_window: 64,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl SamplerOptions {
    /// The most probable token, always.
    pub fn greedy() -> Self {
        SamplerOptions { temperature: 0.0, ..SamplerOptions::default() }
    }

    fn validate(&self) -> Result<()> {
        let refuse = |field: &str, value: f32, range: &str| {
            Err(Error::argument(format!("sampler option {field} is {value} and must be {range}")))
        };
        // The comparisons are written so that NaN fails them.
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return refuse("temperature", self.temperature, "finite and at least 0");
        }
        for (field, value) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            if !(value > 0.0 && value <= 1.0) {
                return refuse(field, value, "above 0 and at most 1");
            }
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "from 0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return refuse("repetition_penalty", self.repetition_penalty, "finite and above 0");
        }
        for (field, value) in
            [("frequency_penalty", self.frequency_penalty), ("presence_penalty", self.presence_penalty)]
        {
            if !(-100.0..=100.0).contains(&value) {
                return refuse(field, value, "from -100 to 100");
            }
        }
        if let Some((token, bias)) = self.logit_bias.iter().find(|(_, bias)| bias.is_nan() || *bias == f32::INFINITY) {
            return refuse(&format!("logit_bias of token {token}"), *bias, "a finite number or negative infinity");
        }
        let mut tokens: Vec<u32> = self.logit_bias.iter().map(|(token, _)| *token).collect();
        tokens.sort_unstable();
        match tokens.windows(2).find(|pair| pair.first() == pair.last()) {
            Some(pair) => Err(Error::argument(format!("sampler option logit_bias names token {} twice", pair[0]))),
            None => Ok(()),
        }
    }
}

/// Checked options: immutable, shared by any number of sessions. What changes is in [`SamplerState`].
#[derive(Debug, Clone)]
pub struct Sampler {
    options: SamplerOptions,
}

/// What sampling remembers of one sequence: the random numbers' place. A clone goes on alike. The buffers grow to the vocabulary's size
/// at the first use and are then reused.
#[derive(Debug, Clone)]
pub struct SamplerState {
    rng: SplitMix64,
    /// The window in order of token ids, for counting.
    counted: Vec<u32>,
    /// The logits after bias and penalties.
    adjusted: Vec<f32>,
    chain: Chain,
}

impl Sampler {
    /// Checks the options.
    ///
    /// # Errors
    /// [`Error::Argument`] that names the option which is out of its range.
    pub fn new(options: SamplerOptions) -> Result<Sampler> {
        options.validate()?;
        Ok(Sampler { options })
    }

    /// The options.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// The tokens that the penalties look at.
    fn window<'h>(&self, history: &'h [u32]) -> &'h [u32] {
        if penalties::are_neutral(&self.options) {
            return &[];
        }
        let first = history.len().saturating_sub(self.options.penalty_window as usize);
        history.get(first..).unwrap_or_default()
    }

    /// A fresh state, which starts at the options' seed.
    pub fn state(&self) -> SamplerState {
        SamplerState {
            rng: SplitMix64::new(self.options.seed),
            counted: Vec::new(),
            adjusted: Vec::new(),
            chain: Chain::default(),
        }
    }

    /// Chooses a token by one row of logits, `[vocabulary]`. `history` is the sequence so far, the prompt as well; the
    /// penalties look at its last tokens.
    ///
    /// # Errors
    /// [`Error::Argument`] when a logit is NaN or positive infinity, when no token is possible (no logits, or all
    /// of them negative infinity), or when `logit_bias` names a token outside the vocabulary.
    pub fn sample(&self, state: &mut SamplerState, logits: &[f32], history: &[u32]) -> Result<u32> {
        let options = &self.options;
        let SamplerState { rng, counted, adjusted, chain } = state;
        let window = self.window(history);
        let logits = if options.logit_bias.is_empty() && window.is_empty() {
            logits
        } else {
            adjusted.clear();
            adjusted.extend_from_slice(logits);
            for &(token, bias) in &options.logit_bias {
                let Some(logit) = adjusted.get_mut(token as usize) else {
                    let tokens = logits.len();
                    let what = format!("logit_bias names token {token}, and the vocabulary has {tokens} tokens");
                    return Err(Error::argument(what));
                };
                *logit += bias;
            }
            penalties::apply(options, window, counted, adjusted);
            adjusted
        };
        let best = best(logits)?;
        if options.temperature == 0.0 {
            return Ok(best);
        }
        Ok(chain.draw(options, logits, best, rng))
    }
}

impl SamplerState {
    /// Starts the random numbers again at `seed`.
    pub fn reset(&mut self, seed: u64) {
        self.rng = SplitMix64::new(seed);
    }
}

/// The token with the highest logit, of equal ones the lowest; checks all logits on the way.
///
/// # Errors
/// [`Error::Argument`] when the logits are no distribution.
pub fn best(logits: &[f32]) -> Result<u32> {
    // Two branch-free passes over memory are faster than one that keeps the index: compilers vectorise them.
    let mut highest = f32::NEG_INFINITY;
    let mut sound = true;
    for &logit in logits {
        highest = if logit > highest { logit } else { highest };
        sound &= logit < f32::INFINITY;
    }
    if !sound {
        let token = logits.iter().position(|logit| logit.is_nan() || *logit == f32::INFINITY).unwrap_or_default();
        let logit = logits.get(token).copied().unwrap_or_default();
        return Err(Error::argument(format!("the logit of token {token} is {logit}, so no token can be chosen")));
    }
    if highest == f32::NEG_INFINITY {
        let tokens = logits.len();
        return Err(Error::argument(format!("no token can be chosen: all {tokens} logits are negative infinity")));
    }
    let token = logits.iter().position(|logit| *logit == highest).unwrap_or_default();
    u32::try_from(token).map_err(|_| Error::argument("there are more than 2^32 logits"))
}
