//! `rf_cancel_token`.

use super::guard::{fence, out, total};
use super::*;
use crate::session::CancelToken;

/// Stops work from any thread. It has a life of its own, so that a user interface may hold it past a session's end.
pub struct rf_cancel_token(pub(super) CancelToken);

/// Makes a cancel token that is not raised. One token may serve any number of sessions and loads.
///
/// Ownership: `*token` is the caller's, to be freed by `rf_cancel_token_free`.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_cancel_token_create(
    token: *mut *mut rf_cancel_token,
    err: *mut *mut rf_error,
) -> rf_status {
    fence(err, || {
        // SAFETY: NULL or a pointer to a pointer.
        unsafe {
            out(token, std::ptr::null_mut(), "token")?;
            token.write(Box::into_raw(Box::new(rf_cancel_token(CancelToken::new()))));
        }
        Ok(RF_OK)
    })
}

/// Raises the token: running and later calls that heed it return `RF_CANCELLED` until it is reset. A running call
/// returns after the stage of the network that it is in, far less than the time of a token.
///
/// Ownership: `token` stays the caller's; NULL is allowed and does nothing.
/// Threads: any, at any time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_cancel_token_cancel(token: *const rf_cancel_token) {
    // SAFETY: NULL or a token of this library.
    total((), || {
        if let Some(token) = unsafe { token.as_ref() } {
            token.0.cancel();
        }
    });
}

/// Lowers the token, so that work goes on.
///
/// Ownership: `token` stays the caller's; NULL is allowed and does nothing.
/// Threads: any, at any time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_cancel_token_reset(token: *const rf_cancel_token) {
    // SAFETY: NULL or a token of this library.
    total((), || {
        if let Some(token) = unsafe { token.as_ref() } {
            token.0.reset();
        }
    });
}

/// Frees a token. Sessions that were given it keep what they need of it.
///
/// Ownership: takes `token`; NULL is allowed.
/// Threads: any, but no other call may use this handle at the same time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_cancel_token_free(token: *mut rf_cancel_token) {
    if !token.is_null() {
        // SAFETY: made by `rf_cancel_token_create`, freed once.
        total((), || drop(unsafe { Box::from_raw(token) }));
    }
}
