//! Versions.

use std::ffi::CStr;

use super::guard::{text, total};
use super::*;

/// Version of this header.
pub const RF_VERSION_MAJOR: u32 = 0;
/// Version of this header.
pub const RF_VERSION_MINOR: u32 = 1;
/// Version of this header.
pub const RF_VERSION_PATCH: u32 = 0;
/// Number of the binary interface that this header describes. It grows when functions or fields are added.
pub const RF_ABI_VERSION: u32 = 1;
/// The oldest binary interface that this library still serves.
const OLDEST_ABI: u32 = 1;

/// The library's version, such as "0.1.0".
///
/// Ownership: static.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn rf_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// The number of the binary interface that the library has.
///
/// Ownership: none.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn rf_abi_version() -> u32 {
    RF_ABI_VERSION
}

/// 1 if the library serves a program that was compiled against the header with this number (give `RF_ABI_VERSION`),
/// else 0. Worth asking once after loading the library at run time.
///
/// Ownership: none.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn rf_abi_compatible(abi_version: u32) -> i32 {
    i32::from((OLDEST_ABI..=RF_ABI_VERSION).contains(&abi_version))
}

/// 1 if the library was built with a feature ("cpu"; "hip" is reserved), else 0.
///
/// Ownership: `name` stays the caller's.
/// Threads: any.
/// Errors: none; NULL and unknown names give 0.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_has_feature(name: *const c_char) -> i32 {
    // SAFETY: NULL or a NUL-terminated text.
    total(0, || match unsafe { text(name, RF_STRLEN, "name") } {
        Ok("cpu") => 1,
        _ => 0,
    })
}

/// The name of a status, such as "RF_E_FORMAT"; "unknown status" for other numbers.
///
/// Ownership: static.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub extern "C" fn rf_status_name(status: rf_status) -> *const c_char {
    let name = match status {
        RF_OK => c"RF_OK",
        RF_PENDING => c"RF_PENDING",
        RF_DONE => c"RF_DONE",
        RF_CANCELLED => c"RF_CANCELLED",
        RF_FULL => c"RF_FULL",
        RF_E_ARGUMENT => c"RF_E_ARGUMENT",
        RF_E_IO => c"RF_E_IO",
        RF_E_FORMAT => c"RF_E_FORMAT",
        RF_E_UNSUPPORTED => c"RF_E_UNSUPPORTED",
        RF_E_OUT_OF_MEMORY => c"RF_E_OUT_OF_MEMORY",
        RF_E_CONTEXT_FULL => c"RF_E_CONTEXT_FULL",
        RF_E_BUSY => c"RF_E_BUSY",
        RF_E_TEMPLATE => c"RF_E_TEMPLATE",
        RF_E_BUFFER => c"RF_E_BUFFER",
        RF_E_INTERNAL => c"RF_E_INTERNAL",
        _ => c"unknown status",
    };
    name.as_ptr()
}
