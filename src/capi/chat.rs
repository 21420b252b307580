//! Conversations in the model's own format.

use super::guard::{Tagged, check_flags, fence, handle, optional_text, options, text, write_text};
use super::*;
use crate::chat::RenderOptions;

/// `rf_chat_options.flags`: do not end with the beginning of the assistant's next turn.
pub const RF_CHAT_NO_GENERATION_PROMPT: u32 = 1;

/// How to format a conversation. Begin with `RF_CHAT_OPTIONS_INIT`; zero means the default in every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_chat_options {
    /// `sizeof(rf_chat_options)`.
    pub struct_size: u32,
    /// `RF_CHAT_…`, or 0.
    pub flags: u32,
    /// Tools that the model may call: a JSON array of function definitions, as OpenAI's API takes it. NULL: none.
    pub tools_json: *const c_char,
    /// Length of `tools_json` in bytes. 0: it ends at its NUL.
    pub tools_json_len: usize,
    /// A JSON object of further variables for the template, such as {"enable_thinking": false}. NULL: none.
    pub extra_json: *const c_char,
    /// Length of `extra_json` in bytes. 0: it ends at its NUL.
    pub extra_json_len: usize,
    /// A Jinja template to use this once instead of the model's. NULL: the model's.
    pub chat_template: *const c_char,
    /// Length of `chat_template` in bytes. 0: it ends at its NUL.
    pub chat_template_len: usize,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_chat_options {
    const NAME: &'static str = "rf_chat_options";
}

/// The text of a conversation, as the model's chat template writes it, NUL-terminated in the caller's buffer. Tokenize
/// it with `RF_TOKENIZE_ADD_SPECIAL | RF_TOKENIZE_SPECIAL`.
///
/// `messages_json` is a JSON array such as
/// [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}].
///
/// Ownership: all texts and the buffer stay the caller's; `opts` may be NULL. `*needed` becomes the length without the
///     NUL; with `buffer` NULL that is all.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (not the JSON that is asked for), `RF_E_TEMPLATE` (no template, or it refuses the messages),
///     `RF_E_BUFFER` (nothing written but `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_format_chat(
    model: *const rf_model,
    messages_json: *const c_char,
    messages_json_len: usize,
    opts: *const rf_chat_options,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let model = &handle(model, "model")?.0;
        let messages = text(messages_json, messages_json_len, "messages_json")?;
        let opts = options(opts)?;
        check_flags(opts.flags, RF_CHAT_NO_GENERATION_PROMPT, "rf_chat_options")?;
        let render = RenderOptions {
            tools_json: optional_text(opts.tools_json, opts.tools_json_len, "tools_json")?,
            extra_json: optional_text(opts.extra_json, opts.extra_json_len, "extra_json")?,
            add_generation_prompt: opts.flags & RF_CHAT_NO_GENERATION_PROMPT == 0,
            ..Default::default()
        };
        let formatted = match optional_text(opts.chat_template, opts.chat_template_len, "chat_template")? {
            Some(template) => model.format_chat_with(template, messages, &render)?,
            None => model.format_chat(messages, &render)?,
        };
        write_text(&formatted, buffer, capacity, needed)
    })
}

/// The Jinja source of the model's chat template, NUL-terminated in the caller's buffer.
///
/// Ownership: the buffer stays the caller's. `*needed` becomes the length without the NUL; with `buffer` NULL that is
///     all.
/// Threads: any.
/// Errors: `RF_E_TEMPLATE` (the model has none), `RF_E_BUFFER` (nothing written but `*needed`).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_model_chat_template(
    model: *const rf_model,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(needed);
        let template = handle(model, "model")?.0.chat_template();
        let template = template.ok_or_else(|| crate::error::Error::Template("the model has none".into()))?;
        write_text(template, buffer, capacity, needed)
    })
}
