//! What tests use to steer and to look inside; no HIP program knows these.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};

use super::error::Code;
use super::state::lock;

thread_local! {
    /// The text that [`rfemu_last_message`] returned last, which its caller may still read.
    static MESSAGE: RefCell<CString> = RefCell::default();
}

/// A name, empty for NULL.
fn name(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the caller's text ends with NUL.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}

/// Forgets everything and reads the environment again.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_reset() {
    lock().reset();
}

/// Makes the `nth` next call of `function` fail with `code`; 0 takes that back.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_set_failure(function: *const c_char, nth: u64, code: Code) {
    let mut runtime = lock();
    match nth {
        0 => runtime.failures.remove(&name(function)),
        _ => runtime.failures.insert(name(function), (nth, code)),
    };
}

/// How often `function` was called since the last reset.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_calls(function: *const c_char) -> u64 {
    lock().calls.get(name(function).as_str()).copied().unwrap_or(0)
}

/// Allocations, streams, events, modules and graphs that were not given back.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_live() -> u64 {
    lock().live().0
}

/// Bytes of the allocations among them.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_live_bytes() -> u64 {
    lock().live().1
}

/// Why the last failing call failed, in words; valid until this thread asks again.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_last_message() -> *const c_char {
    let text = lock().message.replace('\0', " ");
    MESSAGE.with(|message| {
        message.replace(CString::new(text).unwrap_or_default());
        message.borrow().as_ptr()
    })
}

/// Instructions that waves have executed.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_instructions() -> u64 {
    lock().instructions
}

#[unsafe(no_mangle)]
pub extern "C" fn rfemu_launches() -> u64 {
    lock().launches
}

/// The seed of later launches.
#[unsafe(no_mangle)]
pub extern "C" fn rfemu_set_seed(seed: u64) {
    lock().config.settings.seed = seed;
}
