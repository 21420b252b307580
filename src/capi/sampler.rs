//! `rf_sampler`.

use std::sync::Arc;

use super::guard::{Tagged, check_flags, fence, options, out, slice, total};
use super::*;
use crate::error::Error;
use crate::sampler::{Sampler, SamplerOptions};

/// A way to choose tokens: immutable, shared by any number of sessions, each of which keeps its own random state.
pub struct rf_sampler(pub(super) Arc<Sampler>);

/// `rf_sampler_options.flags`: always the likeliest token (the lowest id of equals). Penalties and biases still act;
/// the other fields do not.
pub const RF_SAMPLER_GREEDY: u32 = 1;

/// A number to add to a token's logit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_logit_bias {
    /// The token.
    pub token: rf_token,
    /// What to add; minus infinity forbids the token.
    pub bias: f32,
}

/// How to choose tokens. Begin with `RF_SAMPLER_OPTIONS_INIT`; zero means the default in every field.
///
/// The chain, in this order: logit bias, penalties, top-k, typical-p, top-p, min-p, temperature, draw.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_sampler_options {
    /// `sizeof(rf_sampler_options)`.
    pub struct_size: u32,
    /// `RF_SAMPLER_…`, or 0.
    pub flags: u32,
    /// The same seed, session, library and machine give the same text, if the tokens before were computed in the same steps:
    /// on processors that multiply bf16 or F16, many tokens at once are rounded otherwise than few.
    pub seed: u64,
    /// Divides the logits; above 0. 0: 0.8.
    pub temperature: f32,
    /// Keep the k likeliest tokens. 0: 40; negative: all.
    pub top_k: i32,
    /// Keep the likeliest tokens that together reach this probability, up to 1 (all). 0: 0.95.
    pub top_p: f32,
    /// Keep tokens that are at least this fraction as likely as the likeliest, up to 1. 0: 0.05; negative: all.
    pub min_p: f32,
    /// Keep the tokens nearest to the expected surprise that together reach this probability (Meister et al., 2022),
    /// up to 1 (all). 0: 1.
    pub typical_p: f32,
    /// Divides positive logits of tokens in the window and multiplies negative ones; above 0. 0: 1 (off).
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the window, -100 to 100. 0: off.
    pub presence_penalty: f32,
    /// Subtracted for each occurrence in the window, -100 to 100. 0: off.
    pub frequency_penalty: f32,
    /// The last tokens that penalties look at. 0: 64; negative: all of the session.
    pub penalty_window: i32,
    /// Numbers to add to logits; `n_logit_bias` of them. NULL: none. Copied.
    pub logit_bias: *const rf_logit_bias,
    /// How many.
    pub n_logit_bias: usize,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_sampler_options {
    const NAME: &'static str = "rf_sampler_options";
}

/// A field in which zero stands for the default.
fn or_default(value: f32, default: f32) -> f32 {
    if value == 0.0 { default } else { value }
}

/// Makes a sampler.
///
/// Ownership: `*sampler` is the caller's, to be freed by `rf_sampler_free`; `opts` may be NULL and is not kept.
/// Threads: any; the sampler may be used by any number of sessions at once.
/// Errors: `RF_E_ARGUMENT` (a field out of its range, named in the message), `RF_E_UNSUPPORTED` (a newer option).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_sampler_create(
    opts: *const rf_sampler_options,
    sampler: *mut *mut rf_sampler,
    err: *mut *mut rf_error,
) -> rf_status {
    fence(err, || {
        // SAFETY: pointers as the comment above demands.
        let (opts, bias) = unsafe {
            out(sampler, std::ptr::null_mut(), "sampler")?;
            let opts = options(opts)?;
            (opts, slice(opts.logit_bias, opts.n_logit_bias, "logit_bias")?)
        };
        check_flags(opts.flags, RF_SAMPLER_GREEDY, "rf_sampler_options")?;
        let greedy = opts.flags & RF_SAMPLER_GREEDY != 0;
        if opts.temperature < 0.0 {
            return Err(Error::argument(format!("temperature is {}, expected a number above 0", opts.temperature)));
        }
        let rust = SamplerOptions {
            temperature: if greedy { 0.0 } else { or_default(opts.temperature, 0.8) },
            top_k: match opts.top_k {
                0 => 40,
                k => u32::try_from(k).unwrap_or(0),
            },
            top_p: or_default(opts.top_p, 0.95),
            min_p: if opts.min_p < 0.0 { 0.0 } else { or_default(opts.min_p, 0.05) },
            typical_p: or_default(opts.typical_p, 1.0),
            repetition_penalty: or_default(opts.repetition_penalty, 1.0),
            presence_penalty: opts.presence_penalty,
            frequency_penalty: opts.frequency_penalty,
            penalty_window: match opts.penalty_window {
                0 => 64,
                n => u32::try_from(n).unwrap_or(u32::MAX),
            },
            logit_bias: bias.iter().map(|b| (b.token, b.bias)).collect(),
            seed: opts.seed,
        };
        let made = Sampler::new(rust)?;
        // SAFETY: checked above.
        unsafe { sampler.write(Box::into_raw(Box::new(rf_sampler(Arc::new(made))))) };
        Ok(RF_OK)
    })
}

/// Frees a sampler. Sessions that use it keep what they need of it.
///
/// Ownership: takes `sampler`; NULL is allowed.
/// Threads: any, but no other call may use this handle at the same time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_sampler_free(sampler: *mut rf_sampler) {
    if !sampler.is_null() {
        // SAFETY: made by `rf_sampler_create`, freed once.
        total((), || drop(unsafe { Box::from_raw(sampler) }));
    }
}
