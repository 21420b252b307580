//! Penalties on tokens that were there lately: repetition (Keskar et al. 2019, "CTRL"), frequency and presence (as in
//! the OpenAI API).

use super::SamplerOptions;

/// Whether the options leave every logit as it is.
pub(super) fn are_neutral(options: &SamplerOptions) -> bool {
    options.repetition_penalty == 1.0 && options.frequency_penalty == 0.0 && options.presence_penalty == 0.0
}

/// Changes the logits of the tokens in the window, each once. `counted` is a buffer.
pub(super) fn apply(options: &SamplerOptions, window: &[u32], counted: &mut Vec<u32>, logits: &mut [f32]) {
    counted.clear();
    counted.extend_from_slice(window);
    counted.sort_unstable();
    for same in counted.chunk_by(|a, b| a == b) {
        // A token that the vocabulary does not have cannot be drawn, so it needs no penalty.
        let Some(logit) = same.first().and_then(|token| logits.get_mut(*token as usize)) else { continue };
        // Division would make a negative logit more probable.
        if *logit > 0.0 {
            *logit /= options.repetition_penalty;
        } else {
            *logit *= options.repetition_penalty;
        }
        *logit -= same.len() as f32 * options.frequency_penalty + options.presence_penalty;
    }
}
