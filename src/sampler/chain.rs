//! The stages that narrow the tokens down, and the draw.
//!
//! A vocabulary has up to 262,144 tokens and a stage mostly keeps a few dozen, so nothing is sorted as a whole: top-k
//! selects in one pass, and the others sort only as far as they read.

use std::cmp::Ordering;

use super::SamplerOptions;
use super::rng::SplitMix64;

/// How many tokens are sorted at first when it is not known how many will be needed.
const FIRST_SORTED: usize = 64;

/// A token that may still be drawn.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    token: u32,
    logit: f32,
    /// What the running stage sorts by or sums up: a weight, or the distance from the typical.
    key: f32,
}

/// The candidates, kept between calls as a buffer.
#[derive(Debug, Clone, Default)]
pub(super) struct Chain {
    candidates: Vec<Candidate>,
    /// Whether the candidates stand in the order of [`by_logit`].
    sorted: bool,
}

/// The highest logit first, of equal ones the lowest token.
fn by_logit(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
}

/// The lowest key first, of equal ones the lowest token.
fn by_key(a: &Candidate, b: &Candidate) -> Ordering {
    a.key.total_cmp(&b.key).then(a.token.cmp(&b.token))
}

impl Chain {
    /// Runs the chain from top-k on. `logits` has no NaN and no positive infinity, and `best` is the token with the
    /// highest one, which is finite.
    pub(super) fn draw(&mut self, options: &SamplerOptions, logits: &[f32], best: u32, rng: &mut SplitMix64) -> u32 {
        let highest = logits.get(best as usize).copied().unwrap_or_default();
        let k = options.top_k as usize;
        if k > 0 && k < logits.len() {
            self.top_k(k, logits);
        } else {
            self.all(logits);
        }
        if options.typical_p < 1.0 {
            self.typical_p(options.typical_p, highest);
        }
        // Typical sampling may drop the best token.
        let highest = self.candidates.iter().map(|candidate| candidate.logit).fold(f32::NEG_INFINITY, f32::max);
        if options.top_p < 1.0 {
            self.top_p(options.top_p, options.min_p, highest);
        }
        if options.min_p > 0.0 {
            let least = highest + options.min_p.ln();
            self.candidates.retain(|candidate| candidate.logit >= least);
        }
        self.pick(options.temperature, highest, rng).unwrap_or(best)
    }

    /// Every token that is possible, in the order of the ids.
    fn all(&mut self, logits: &[f32]) {
        self.candidates.clear();
        let possible = logits.iter().enumerate().filter(|(_, logit)| **logit > f32::NEG_INFINITY);
        self.candidates.extend(possible.map(|(token, &logit)| Candidate { token: token as u32, logit, key: 0.0 }));
        self.sorted = false;
    }

    /// The `k` best tokens, sorted, in one pass: what does not beat the k-th best so far is not looked at again.
    fn top_k(&mut self, k: usize, logits: &[f32]) {
        /// Logits compared at once; most blocks hold nothing that is kept, and that test vectorises.
        const BLOCK: usize = 64;
        let full = k.saturating_mul(2).max(4 * BLOCK);
        let mut least = f32::NEG_INFINITY;
        self.candidates.clear();
        for (block, values) in logits.chunks(BLOCK).enumerate() {
            if !values.iter().fold(false, |any, logit| any | (*logit > least)) {
                continue;
            }
            for (at, &logit) in values.iter().enumerate() {
                // Tokens come in the order of their ids, so of equal logits the first one stays.
                if logit > least {
                    self.candidates.push(Candidate { token: (block * BLOCK + at) as u32, logit, key: 0.0 });
                }
            }
            if self.candidates.len() >= full {
                let (_, kth, _) = self.candidates.select_nth_unstable_by(k - 1, by_logit);
                least = kth.logit;
                self.candidates.truncate(k);
            }
        }
        if self.candidates.len() > k {
            self.candidates.select_nth_unstable_by(k - 1, by_logit);
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(by_logit);
        self.sorted = true;
    }

    /// Keeps the tokens whose information is nearest to the distribution's entropy, up to a sum of probabilities.
    fn typical_p(&mut self, typical_p: f32, highest: f32) {
        let total: f64 = self.candidates.iter().map(|candidate| weight(candidate.logit, highest)).sum();
        let log_total = total.ln();
        // -ln p of a candidate.
        let information = |logit: f32| log_total - (f64::from(logit) - f64::from(highest));
        let entropy: f64 = self
            .candidates
            .iter()
            .map(|candidate| weight(candidate.logit, highest) / total * information(candidate.logit))
            .sum();
        for candidate in &mut self.candidates {
            candidate.key = (information(candidate.logit) - entropy).abs() as f32;
        }
        self.keep_until(f64::from(typical_p) * total, highest, by_key);
        self.sorted = false;
    }

    /// Keeps the fewest best tokens that have the probability `top_p` together. Tokens that min-p will drop afterwards
    /// count for the sum and are dropped here already: both keep a front part of the same order, so that the result
    /// is the same, and fewer tokens are sorted.
    fn top_p(&mut self, top_p: f32, min_p: f32, highest: f32) {
        let total: f64 = self.candidates.iter().map(|candidate| weight(candidate.logit, highest)).sum();
        if min_p > 0.0 {
            let least = highest + min_p.ln();
            self.candidates.retain(|candidate| candidate.logit >= least);
        }
        if self.sorted {
            let kept = self.reaching(0, &mut 0.0, f64::from(top_p) * total, highest);
            self.candidates.truncate(kept.unwrap_or(usize::MAX));
        } else {
            self.keep_until(f64::from(top_p) * total, highest, by_logit);
        }
        self.sorted = true;
    }

    /// Sorts by `order` as far as needed and keeps the front part whose weights reach `target`, or all.
    fn keep_until(&mut self, target: f64, highest: f32, order: fn(&Candidate, &Candidate) -> Ordering) {
        let (mut sum, mut start, mut end) = (0.0, 0, FIRST_SORTED);
        while start < self.candidates.len() {
            end = end.min(self.candidates.len());
            let rest = &mut self.candidates[start..];
            if end - start < rest.len() {
                rest.select_nth_unstable_by(end - start, order);
            }
            self.candidates[start..end].sort_unstable_by(order);
            if let Some(kept) = self.reaching(start, &mut sum, target, highest) {
                self.candidates.truncate(kept);
                return;
            }
            (start, end) = (end, end.saturating_mul(4));
        }
    }

    /// Adds weights to `sum` from the candidate `start` on; how many candidates, from the first, reach `target`.
    fn reaching(&self, start: usize, sum: &mut f64, target: f64, highest: f32) -> Option<usize> {
        for (at, candidate) in self.candidates.iter().enumerate().skip(start) {
            *sum += weight(candidate.logit, highest);
            if *sum >= target {
                return Some(at + 1);
            }
        }
        None
    }

    /// Draws one of the candidates; None only if there are none.
    fn pick(&mut self, temperature: f32, highest: f32, rng: &mut SplitMix64) -> Option<u32> {
        let weight =
            |candidate: &Candidate| ((f64::from(candidate.logit) - f64::from(highest)) / f64::from(temperature)).exp();
        let total: f64 = self.candidates.iter().map(weight).sum();
        let mut left = rng.unit() * total;
        for candidate in &self.candidates {
            left -= weight(candidate);
            if left < 0.0 {
                return Some(candidate.token);
            }
        }
        // Rounding may leave a rest above the last candidate.
        self.candidates.last().map(|candidate| candidate.token)
    }
}

/// A probability that is not divided by the sum yet; the best token's is 1.
fn weight(logit: f32, highest: f32) -> f64 {
    (f64::from(logit) - f64::from(highest)).exp()
}
