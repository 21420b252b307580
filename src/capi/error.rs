//! `rf_error`.

use std::ffi::CString;

use super::guard::total;
use super::*;

/// What went wrong, as an object of its own: it belongs to whoever received it, on whichever thread.
pub struct rf_error {
    status: rf_status,
    message: CString,
}

impl rf_error {
    pub(super) fn make(status: rf_status, message: &str) -> *mut rf_error {
        let message = CString::new(message.replace('\0', "\u{fffd}")).unwrap_or_default();
        Box::into_raw(Box::new(rf_error { status, message }))
    }
}

/// The status that the failed call returned.
///
/// Ownership: `err` stays the caller's; NULL gives `RF_OK`.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_error_status(err: *const rf_error) -> rf_status {
    // SAFETY: NULL or an error of this library.
    total(RF_OK, || unsafe { err.as_ref() }.map_or(RF_OK, |e| e.status))
}

/// A sentence that names the file, the place in it and the cause, in English, as NUL-terminated UTF-8.
///
/// Ownership: the text belongs to `err` and lives as long; NULL gives "".
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_error_message(err: *const rf_error) -> *const c_char {
    // SAFETY: NULL or an error of this library.
    total(c"".as_ptr(), || unsafe { err.as_ref() }.map_or(c"".as_ptr(), |e| e.message.as_ptr()))
}

/// Frees an error.
///
/// Ownership: takes `err`; NULL is allowed.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_error_free(err: *mut rf_error) {
    if !err.is_null() {
        // SAFETY: made by `rf_error::make`, freed once.
        total((), || drop(unsafe { Box::from_raw(err) }));
    }
}
