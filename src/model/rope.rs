//! Frequencies of the rotary embedding: every scaling method folded into one number for each pair.

use std::f32::consts::PI;

use super::config::{Config, RopeScaling};
use super::weights::Weights;
use crate::backend::Rope;

/// Which rope a layer uses: an index into what [`ropes`] returns.
pub(super) fn rope_index(config: &Config, layer: usize) -> usize {
    // Layers with a window keep the frequencies of their own only where the pattern mixes both kinds.
    usize::from(config.window_period > 1 && config.window(layer).is_some())
}

/// The ropes of a network in a context of `capacity` tokens: that of layers without a window, and that of those with.
pub(super) fn ropes(config: &Config, weights: &Weights, capacity: usize) -> Vec<Rope> {
    let rope = &config.rope;
    let mut divisors = weights.rope_freqs.as_deref();
    let mut magnitude = 1.0;
    if let RopeScaling::LongRope { original_context, attn_factor } = rope.scaling {
        let long = capacity > original_context;
        divisors = if long { weights.rope_factors_long.as_deref() } else { weights.rope_factors_short.as_deref() };
        magnitude = attn_factor;
    }
    let mut frequencies = base_frequencies(rope.freq_base, rope.dimension_count);
    for (f, divisor) in frequencies.iter_mut().zip(divisors.unwrap_or_default()) {
        *f /= divisor;
    }
    match rope.scaling {
        RopeScaling::Linear { factor } => frequencies.iter_mut().for_each(|f| *f /= factor),
        RopeScaling::Yarn { factor, original_context, beta_fast, beta_slow, ext_factor, attn_factor } => {
            yarn(&mut frequencies, rope.freq_base, factor, original_context, [beta_fast, beta_slow], ext_factor);
            // The authors' recommended attention temperature, folded into cosine and sine (equation 22 of the paper).
            magnitude = attn_factor * (1.0 + 0.1 * factor.ln());
        }
        RopeScaling::Unscaled | RopeScaling::LongRope { .. } => {}
    }
    vec![
        Rope { style: rope.style, frequencies, magnitude },
        Rope {
            style: rope.style,
            frequencies: base_frequencies(rope.freq_base_swa, rope.dimension_count),
            magnitude: 1.0,
        },
    ]
}

fn base_frequencies(base: f32, dimensions: usize) -> Vec<f32> {
    (0..dimensions / 2).map(|i| base.powf(-2.0 * i as f32 / dimensions as f32)).collect()
}

/// YaRN's "NTK by parts": pairs that turn often in the original context keep their frequency, those that turn seldom
/// are divided, and a ramp lies between.
fn yarn(frequencies: &mut [f32], base: f32, factor: f32, original_context: usize, betas: [f32; 2], ext_factor: f32) {
    let dimensions = 2.0 * frequencies.len() as f32;
    // The pair that makes `rotations` turns in the original context.
    let pair_of =
        |rotations: f32| dimensions * (original_context as f32 / (rotations * 2.0 * PI)).ln() / (2.0 * base.ln());
    let [beta_fast, beta_slow] = betas;
    let low = pair_of(beta_fast).floor().max(0.0);
    let high = pair_of(beta_slow).ceil().min(dimensions - 1.0);
    for (i, f) in frequencies.iter_mut().enumerate() {
        let ramp = ((i as f32 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
        let kept = (1.0 - ramp) * ext_factor;
        *f = *f / factor * (1.0 - kept) + *f * kept;
    }
}
