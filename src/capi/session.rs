//! `rf_session`.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::guard::{Tagged, check_flags, fence, handle, options, out, slice, text, total, write_tagged};
use super::*;
use crate::error::{Error, Result};
use crate::session::{GenerateOptions, OnFull, Piece, Session, SessionOptions};

/// One sequence of tokens over a model. Used by one thread at a time; a second thread gets `RF_E_BUSY`.
pub struct rf_session {
    session: Mutex<Session>,
    /// Bytes that the last `rf_piece` points to. Apart from the session, so that reading them needs no lock.
    piece: Mutex<String>,
    /// A panic left the session half-done: it refuses further work.
    broken: AtomicBool,
}

impl rf_session {
    fn with<T>(&self, work: impl FnOnce(&mut Session) -> Result<T>) -> Result<T> {
        let mut session = self.lock()?;
        match catch_unwind(AssertUnwindSafe(|| work(&mut session))) {
            Ok(result) => result,
            Err(panic) => {
                self.broken.store(true, Ordering::Release);
                resume_unwind(panic)
            }
        }
    }

    /// As [`rf_session::with`], with all of `handles` at once.
    fn with_all<T>(handles: &[&rf_session], work: impl FnOnce(&mut [&mut Session]) -> Result<T>) -> Result<T> {
        let mut locked = handles.iter().map(|session| session.lock()).collect::<Result<Vec<_>>>()?;
        let mut sessions: Vec<&mut Session> = locked.iter_mut().map(|session| &mut **session).collect();
        match catch_unwind(AssertUnwindSafe(|| work(&mut sessions))) {
            Ok(result) => result,
            Err(panic) => {
                handles.iter().for_each(|session| session.broken.store(true, Ordering::Release));
                resume_unwind(panic)
            }
        }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Session>> {
        let session = self.session.try_lock().ok_or(Error::Busy("session"))?;
        match self.broken.load(Ordering::Acquire) {
            true => Err(Error::Internal("an earlier defect broke this session: free it".into())),
            false => Ok(session),
        }
    }
}

/// `rf_session_options.flags`: reference mode. Activations are not quantised and the cache is float32: slower, and as
/// near to the weights' own arithmetic as float32 is.
pub const RF_SESSION_REFERENCE: u32 = 1;

/// How to make a session. Begin with `RF_SESSION_OPTIONS_INIT`; zero means the default in every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_session_options {
    /// `sizeof(rf_session_options)`.
    pub struct_size: u32,
    /// `RF_SESSION_…`, or 0.
    pub flags: u32,
    /// Tokens that fit. 0: as many as the network was trained for. Memory is taken in pages of 32 tokens as it is used.
    pub context: u32,
    /// Tokens of a prompt that are computed at a time: more is quicker and takes more memory. 0: what is best where the
    /// model is (256 on the CPU, 512 on GPUs).
    pub batch: u32,
    /// Stops the session's work when it is raised. NULL: none. The token may be freed before the session.
    pub cancel: *const rf_cancel_token,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_session_options {
    const NAME: &'static str = "rf_session_options";
}

/// `rf_piece.finish`: generation goes on.
pub const RF_FINISH_NONE: i32 = 0;
/// `rf_piece.finish`: the model ended its turn, or a stop token came.
pub const RF_FINISH_END_TOKEN: i32 = 1;
/// `rf_piece.finish`: a stop string came.
pub const RF_FINISH_STOP_STRING: i32 = 2;
/// `rf_piece.finish`: `max_tokens` were generated.
pub const RF_FINISH_MAX_TOKENS: i32 = 3;
/// `rf_piece.finish`: the context is full.
pub const RF_FINISH_FULL: i32 = 4;

/// A generated token and its text. Begin with `RF_PIECE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_piece {
    /// `sizeof(rf_piece)`.
    pub struct_size: u32,
    /// 1 if `token` holds a token.
    pub has_token: u32,
    /// The token.
    pub token: rf_token,
    /// `RF_FINISH_…`: why generation ended, on the last piece.
    pub finish: i32,
    /// Whole UTF-8, NUL-terminated, never NULL, often empty: bytes that may become a character and text that may become
    /// a stop string are held back. The session's, until the next call on it.
    pub text: *const c_char,
    /// Its length in bytes, without the NUL.
    pub text_len: usize,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_piece {
    const NAME: &'static str = "rf_piece";
}

/// Receives the pieces of `rf_session_generate` on the calling thread. `piece` is valid during the call. `RF_CONTINUE`
/// goes on, anything else ends the generation with `RF_CANCELLED`. Must not unwind; calls on the same session get
/// `RF_E_BUSY`.
pub type rf_piece_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, piece: *const rf_piece) -> i32>;

/// `rf_generate_options.flags`: go on after the model's end tokens.
pub const RF_GENERATE_IGNORE_END: u32 = 1;
/// `rf_generate_options.flags`: write control tokens as text.
pub const RF_GENERATE_SPECIAL: u32 = 2;
/// `rf_generate_options.flags`: when the context is full, end with `RF_FULL` and not with `RF_E_CONTEXT_FULL`.
pub const RF_GENERATE_STOP_WHEN_FULL: u32 = 4;

/// How to generate. Begin with `RF_GENERATE_OPTIONS_INIT`; zero means the default in every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_generate_options {
    /// `sizeof(rf_generate_options)`.
    pub struct_size: u32,
    /// `RF_GENERATE_…`, or 0.
    pub flags: u32,
    /// Chooses the tokens. NULL: the default sampler. May be freed before the session.
    pub sampler: *const rf_sampler,
    /// Tokens at most. 0: no limit but the context.
    pub max_tokens: u32,
    /// Number of `stop_tokens`.
    pub n_stop_tokens: u32,
    /// Tokens that end the generation besides the model's own. NULL: none. Copied.
    pub stop_tokens: *const rf_token,
    /// NUL-terminated texts that end the generation and are not returned; `n_stop_strings` of them. NULL: none. Copied.
    pub stop_strings: *const *const c_char,
    /// How many.
    pub n_stop_strings: usize,
    /// Receives the pieces; only `rf_session_generate` uses it.
    pub on_piece: rf_piece_callback,
    /// Given to `on_piece`.
    pub piece_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_generate_options {
    const NAME: &'static str = "rf_generate_options";
}

/// What a session has done. Begin with `RF_SESSION_STATS_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_session_stats {
    /// `sizeof(rf_session_stats)`.
    pub struct_size: u32,
    /// Zero.
    pub reserved: u32,
    /// Tokens computed several at a time, as prompts are.
    pub prefill_tokens: u64,
    /// Time that they took, in microseconds.
    pub prefill_us: u64,
    /// Tokens computed one at a time.
    pub decode_tokens: u64,
    /// Time that they took, in microseconds.
    pub decode_us: u64,
    /// Bytes of the key-value cache now.
    pub kv_bytes: u64,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_session_stats {
    const NAME: &'static str = "rf_session_stats";
}

/// Makes an empty session.
///
/// Ownership: `*session` is the caller's, to be freed by `rf_session_free`; it keeps the model alive. `opts` may be NULL
///     and is not kept.
/// Threads: any; sessions on one model are independent.
/// Errors: `RF_E_ARGUMENT`, `RF_E_OUT_OF_MEMORY`, `RF_E_UNSUPPORTED` (a newer option).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_create(
    model: *const rf_model,
    opts: *const rf_session_options,
    session: *mut *mut rf_session,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        out(session, std::ptr::null_mut(), "session")?;
        let model = handle(model, "model")?;
        let opts = options(opts)?;
        check_flags(opts.flags, RF_SESSION_REFERENCE, "rf_session_options")?;
        let made = Session::new(
            model.0.clone(),
            SessionOptions {
                context: opts.context as usize,
                batch: opts.batch as usize,
                reference: opts.flags & RF_SESSION_REFERENCE != 0,
                cancel: opts.cancel.as_ref().map(|token| token.0.clone()),
            },
        )?;
        let made = rf_session { session: Mutex::new(made), piece: Mutex::default(), broken: AtomicBool::new(false) };
        session.write(Box::into_raw(Box::new(made)));
        Ok(RF_OK)
    })
}

/// Frees a session.
///
/// Ownership: takes `session`; NULL is allowed.
/// Threads: any, but no other call may use this handle at the same time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_free(session: *mut rf_session) {
    if !session.is_null() {
        // SAFETY: made by `rf_session_create`, freed once.
        total((), || drop(unsafe { Box::from_raw(session) }));
    }
}

/// Appends tokens and computes the logits that follow the last of them. All or nothing: after any other outcome than
/// `RF_OK` the session holds the tokens that it held before.
///
/// Ownership: `tokens` stays the caller's.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT` (no token, or one outside the vocabulary), `RF_E_CONTEXT_FULL`, `RF_E_OUT_OF_MEMORY`,
///     `RF_E_FORMAT` (a damaged weight made the logits meaningless), `RF_E_BUSY`; `RF_CANCELLED`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_decode(
    session: *mut rf_session,
    tokens: *const rf_token,
    n_tokens: usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let session = handle(session, "session")?;
        let tokens = slice(tokens, n_tokens, "tokens")?;
        session.with(|s| {
            s.flush()?;
            s.decode(tokens)
        })?;
        Ok(RF_OK)
    })
}

/// Appends one token to each of `n_sessions` sessions and computes the logits that follow, all in one step: weights are
/// read once for all sessions, so that eight of them take little longer than one. `tokens[i]` goes to `sessions[i]`. With
/// NULL for `tokens` each session appends the token that `rf_session_next` returned last, if it is not appended yet, so
/// that the next `rf_session_next` only chooses; sessions to which no token is due stay as they are. All or nothing: after
/// any other outcome than `RF_OK` each session holds the tokens that it held before, whichever session it was that failed.
///
/// Ownership: `sessions` and `tokens` stay the caller's.
/// Threads: one at a time on each of the sessions.
/// Errors: `RF_E_ARGUMENT` (no session, sessions of several models, some in reference mode and some not, a token outside
///     the vocabulary), `RF_E_CONTEXT_FULL` (of one session), `RF_E_OUT_OF_MEMORY`, `RF_E_FORMAT`, `RF_E_BUSY` (also a
///     session that is named twice); `RF_CANCELLED` (by the cancel token of any of them).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_sessions_decode(
    sessions: *const *mut rf_session,
    tokens: *const rf_token,
    n_sessions: usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let tokens = (!tokens.is_null()).then(|| slice(tokens, n_sessions, "tokens")).transpose()?;
        let handles = slice(sessions, n_sessions, "sessions")?
            .iter()
            .map(|&session| handle(session, "a session"))
            .collect::<Result<Vec<_>>>()?;
        rf_session::with_all(&handles, |sessions| match tokens {
            None if sessions.is_empty() => Err(Error::argument("no session was given to decode")),
            None => Session::flush_batch(sessions),
            Some(tokens) => {
                Session::flush_batch(sessions)?;
                Session::decode_batch(sessions, tokens)
            }
        })?;
        Ok(RF_OK)
    })
}

/// The logits that follow the last token: `*n_vocab` numbers.
///
/// Ownership: the numbers are the session's, until the next call that changes it.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT` (nothing was decoded since creation or rewinding), `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_logits(
    session: *const rf_session,
    logits: *mut *const f32,
    n_vocab: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        out(logits, std::ptr::null(), "logits")?;
        out(n_vocab, 0, "n_vocab")?;
        handle(session, "session")?.with(|s| {
            let found = s.logits()?;
            logits.write(found.as_ptr());
            n_vocab.write(found.len());
            Ok(RF_OK)
        })
    })
}

/// Chooses a token from the logits. It is not appended: give it to `rf_session_decode`. Only the random state that this
/// session keeps for `sampler` changes; it begins anew when another sampler is used.
///
/// Ownership: `sampler` (NULL: the default sampler) and `token` stay the caller's.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT` (nothing was decoded since creation or rewinding), `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_sample(
    session: *mut rf_session,
    sampler: *const rf_sampler,
    token: *mut rf_token,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        out(token, 0, "token")?;
        let session = handle(session, "session")?;
        let chosen = session.with(|s| match sampler.as_ref() {
            Some(sampler) => s.sample(&sampler.0),
            None => s.sample_by_default(),
        })?;
        token.write(chosen);
        Ok(RF_OK)
    })
}

unsafe fn generate_options(opts: &rf_generate_options) -> Result<GenerateOptions> {
    check_flags(
        opts.flags,
        RF_GENERATE_IGNORE_END | RF_GENERATE_SPECIAL | RF_GENERATE_STOP_WHEN_FULL,
        "rf_generate_options",
    )?;
    // SAFETY: pointers and counts as the struct's comments demand.
    unsafe {
        let stop_strings = slice(opts.stop_strings, opts.n_stop_strings, "stop_strings")?
            .iter()
            .map(|&stop| text(stop, RF_STRLEN, "a stop string").map(str::to_string))
            .collect::<Result<Vec<_>>>()?;
        Ok(GenerateOptions {
            sampler: opts.sampler.as_ref().map(|sampler| sampler.0.clone()),
            max_tokens: opts.max_tokens as usize,
            stop_strings,
            stop_tokens: slice(opts.stop_tokens, opts.n_stop_tokens as usize, "stop_tokens")?.to_vec(),
            ignore_end: opts.flags & RF_GENERATE_IGNORE_END != 0,
            special: opts.flags & RF_GENERATE_SPECIAL != 0,
            on_full: if opts.flags & RF_GENERATE_STOP_WHEN_FULL != 0 { OnFull::Stop } else { OnFull::Error },
        })
    }
}

impl rf_session {
    /// The piece in C's form; its text lives in the session.
    fn export(&self, piece: &Piece) -> rf_piece {
        let mut kept = self.piece.lock();
        kept.clear();
        kept.push_str(&piece.text);
        kept.push('\0');
        rf_piece {
            struct_size: size_of::<rf_piece>() as u32,
            has_token: piece.token.is_some().into(),
            token: piece.token.unwrap_or(0),
            finish: piece.finish.map_or(RF_FINISH_NONE, |finish| finish as i32),
            text: kept.as_ptr().cast(),
            text_len: piece.text.len(),
        }
    }
}

/// What a piece means for the call that made it.
fn outcome(piece: &Piece) -> rf_status {
    match piece.finish.map(|finish| finish as i32) {
        None => RF_OK,
        Some(RF_FINISH_FULL) => RF_FULL,
        Some(_) => RF_DONE,
    }
}

/// Begins a generation for `rf_session_next`, from where the session stands. Without it, `rf_session_next` begins one
/// with the defaults.
///
/// Ownership: `opts` may be NULL and is not kept.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT`, `RF_E_UNSUPPORTED` (a newer option), `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_begin(
    session: *mut rf_session,
    opts: *const rf_generate_options,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let session = handle(session, "session")?;
        let opts = generate_options(&options(opts)?)?;
        session.with(|s| s.begin(opts))?;
        Ok(RF_OK)
    })
}

/// The next token and its text, in `*piece`: `RF_OK` while the generation goes on; `RF_DONE` (or `RF_FULL`) with the
/// last piece, which may have text too, and from then on until `rf_session_begin`. The token is appended to the session
/// by the next call that needs it there.
///
/// Ownership: `piece` stays the caller's; its `struct_size` must be set (`RF_PIECE_INIT`). Its text is the session's,
///     until the next call on it.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT` (nothing was decoded yet), `RF_E_CONTEXT_FULL`, `RF_E_OUT_OF_MEMORY`, `RF_E_FORMAT`,
///     `RF_E_BUSY`; `RF_CANCELLED`, after which the generation can go on.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_next(
    session: *mut rf_session,
    piece: *mut rf_piece,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let session = handle(session, "session")?;
        let empty = rf_piece {
            struct_size: 0,
            has_token: 0,
            token: 0,
            finish: RF_FINISH_NONE,
            text: c"".as_ptr(),
            text_len: 0,
        };
        write_tagged(piece, empty)?;
        let next = session.with(|s| s.next_piece())?;
        write_tagged(piece, session.export(&next))?;
        Ok(outcome(&next))
    })
}

/// Generates until the end, a piece at a time to `opts->on_piece`. Returns `RF_DONE` (or `RF_FULL`) at the end, and
/// `RF_CANCELLED` if the callback or a cancel token asked for it; the generation can then go on with `rf_session_next`.
///
/// Ownership: `opts` is not kept; it must name a callback.
/// Threads: one at a time; the callback runs on the calling thread.
/// Errors: as `rf_session_begin` and `rf_session_next`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_generate(
    session: *mut rf_session,
    opts: *const rf_generate_options,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        let session = handle(session, "session")?;
        let opts = options(opts)?;
        let on_piece = opts.on_piece.ok_or_else(|| Error::argument("on_piece is NULL"))?;
        let generate = generate_options(&opts)?;
        session.with(|s| {
            s.begin(generate)?;
            loop {
                let next = s.next_piece()?;
                let piece = session.export(&next);
                if on_piece(opts.piece_user_data, &piece) != RF_CONTINUE {
                    return Ok(RF_CANCELLED);
                }
                if next.finish.is_some() {
                    return Ok(outcome(&next));
                }
            }
        })
    })
}

/// Shortens the session to its first `n_tokens` tokens, at once. The logits are gone until the next decode; decode the
/// last token again if you want them.
///
/// Ownership: none.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT` (more than it holds), `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_rewind(
    session: *mut rf_session,
    n_tokens: usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        handle(session, "session")?.with(|s| s.rewind(n_tokens))?;
        Ok(RF_OK)
    })
}

/// Tokens that the session holds now, and tokens that fit. Either output may be NULL.
///
/// Ownership: the outputs stay the caller's.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_usage(
    session: *const rf_session,
    used: *mut usize,
    capacity: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        guard::clear(used);
        guard::clear(capacity);
        handle(session, "session")?.with(|s| {
            if let Some(used) = used.as_mut() {
                *used = s.used();
            }
            if let Some(capacity) = capacity.as_mut() {
                *capacity = s.capacity();
            }
            Ok(RF_OK)
        })
    })
}

/// The tokens that the session holds: `*n_tokens` of them.
///
/// Ownership: the tokens are the session's, until the next call that changes it.
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_tokens(
    session: *const rf_session,
    tokens: *mut *const rf_token,
    n_tokens: *mut usize,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        out(tokens, std::ptr::null(), "tokens")?;
        out(n_tokens, 0, "n_tokens")?;
        handle(session, "session")?.with(|s| {
            tokens.write(s.tokens().as_ptr());
            n_tokens.write(s.tokens().len());
            Ok(RF_OK)
        })
    })
}

/// Writes what the session has done to `*stats`.
///
/// Ownership: `stats` stays the caller's; its `struct_size` must be set (`RF_SESSION_STATS_INIT`).
/// Threads: one at a time.
/// Errors: `RF_E_ARGUMENT`, `RF_E_BUSY`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_session_get_stats(
    session: *const rf_session,
    stats: *mut rf_session_stats,
    err: *mut *mut rf_error,
) -> rf_status {
    // SAFETY: pointers as the comment above demands.
    fence(err, || unsafe {
        handle(session, "session")?.with(|s| {
            let done = s.stats();
            let value = rf_session_stats {
                struct_size: 0,
                reserved: 0,
                prefill_tokens: done.prefill_tokens,
                prefill_us: done.prefill_time.as_micros() as u64,
                decode_tokens: done.decode_tokens,
                decode_us: done.decode_time.as_micros() as u64,
                kv_bytes: s.kv_bytes() as u64,
            };
            write_tagged(stats, value)?;
            Ok(RF_OK)
        })
    })
}
