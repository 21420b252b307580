//! Text to tokens and back.

use super::guard::{check_flags, fence, handle, slice, write_text};
use super::*;
use crate::error::Error;

/// `rf_model_tokenize`: add what the model's metadata asks for (BOS before, EOS after). A text that begins with the
/// BOS token already, as chat templates write it, gets no second one.
pub const RF_TOKENIZE_ADD_SPECIAL: u32 = 1;
/// `rf_model_tokenize`: read control tokens such as `<|im_start|>` in the text as tokens. Leave it off for text from
/// users, so that they cannot forge a turn. `rf_model_detokenize`: write control tokens as text.
pub const RF_TOKENIZE_SPECIAL: u32 = 2;

/// The tokens of a text.
///
/// Ownership: `text` and `tokens` stay the caller's. `*n_tokens` becomes the number of tokens; with `tokens` NULL that
///     is all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (not UTF-8), `RF_E_UNSUPPORTED` (a newer flag), `RF_E_BUFFER` (more than `capacity` tokens;
///     nothing written but `*n_tokens`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_tokenize(
    model: *const rf_model,
    text: *const c_char,
    text_len: usize,
    flags: u32,
    tokens: *mut rf_token,
    capacity: usize,
    n_tokens: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::out(n_tokens, 0, "n_tokens")?;
        let model = &handle(model, "model")?.0;
        let text = guard::text(text, text_len, "text")?;
        check_flags(flags, RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL, "rf_model_tokenize")?;
        let ids = model.tokenize(text, flags & RF_TOKENIZE_ADD_SPECIAL != 0, flags & RF_TOKENIZE_SPECIAL != 0)?;
        n_tokens.write(ids.len());
        if tokens.is_null() {
            return Ok(RF_OK);
        }
        if ids.len() > capacity {
            return Err(Error::Buffer { capacity, needed: ids.len(), unit: "tokens" });
        }
        std::ptr::copy_nonoverlapping(ids.as_ptr(), tokens, ids.len());
        Ok(RF_OK)
    })
}

/// The text of tokens, as NUL-terminated whole UTF-8 in the caller's buffer. Bytes that form no character become
/// U+FFFD. `flags` may be `RF_TOKENIZE_SPECIAL`.
///
/// Ownership: `tokens` and the buffer stay the caller's. `*needed` becomes the length without the NUL; with `buffer`
///     NULL that is all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (an unknown token), `RF_E_UNSUPPORTED` (a newer flag), `RF_E_BUFFER` (nothing written but
///     `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_detokenize(
    model: *const rf_model,
    tokens: *const rf_token,
    n_tokens: usize,
    flags: u32,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let model = &handle(model, "model")?.0;
        let tokens = slice(tokens, n_tokens, "tokens")?;
        check_flags(flags, RF_TOKENIZE_SPECIAL, "rf_model_detokenize")?;
        let text = model.tokenizer().decode(tokens, flags & RF_TOKENIZE_SPECIAL != 0)?;
        write_text(&text, buffer, capacity, needed)
    })
}

/// One token as the vocabulary writes it, NUL-terminated in the caller's buffer: for looking at, not for joining to a
/// text (use `rf_model_detokenize`).
///
/// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that is
///     all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (an unknown token), `RF_E_BUFFER` (nothing written but `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_token_text(
    model: *const rf_model,
    token: rf_token,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let tokenizer = handle(model, "model")?.0.tokenizer();
        let text = tokenizer.token_text(token).ok_or_else(|| {
            Error::argument(format!("token {token} is outside the vocabulary of {} tokens", tokenizer.vocab_size()))
        })?;
        write_text(text, buffer, capacity, needed)
    })
}
