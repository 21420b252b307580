//! What stands between C and Rust: the panic fence, and checked reads of pointers, texts and options.

use std::any::Any;
use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use super::*;
use crate::error::{Error, Result};

thread_local! {
    static INSIDE: Cell<u32> = const { Cell::new(0) };
}

/// Keeps the panic message of threads inside the fence off the host's stderr: the status carries it.
fn silence_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let outer = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = INSIDE.with(Cell::get) > 0
                || std::thread::current().name().is_some_and(|name| name.starts_with("rocmforge-"));
            if !ours {
                outer(info);
            }
        }));
    });
}

/// The status of an error.
pub(super) fn status_of(error: &Error) -> rf_status {
    match error {
        Error::Io { .. } => RF_E_IO,
        Error::Malformed { .. } => RF_E_FORMAT,
        Error::Unsupported { .. } => RF_E_UNSUPPORTED,
        Error::Argument(_) => RF_E_ARGUMENT,
        Error::OutOfMemory { .. } | Error::DeviceMemory { .. } => RF_E_OUT_OF_MEMORY,
        Error::Device { lost: true, .. } => RF_E_DEVICE_LOST,
        Error::Device { .. } => RF_E_DEVICE,
        Error::ContextFull { .. } => RF_E_CONTEXT_FULL,
        Error::Busy(_) => RF_E_BUSY,
        Error::Cancelled => RF_CANCELLED,
        Error::Template(_) => RF_E_TEMPLATE,
        Error::Buffer { .. } => RF_E_BUFFER,
        Error::Internal(_) => RF_E_INTERNAL,
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| s.to_string()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".into())
}

/// Runs the body of an export: an error becomes its status and, where the caller wants it, an `rf_error`.
pub(super) fn fence(err: *mut *mut rf_error, body: impl FnOnce() -> Result<rf_status>) -> rf_status {
    let result = quiet(body).unwrap_or_else(|panic| Err(Error::Internal(panic)));
    let (status, error) = match result {
        Ok(status) => (status, None),
        // Stopping on request is an outcome, not an error.
        Err(Error::Cancelled) => (RF_CANCELLED, None),
        Err(error) => (status_of(&error), Some(error)),
    };
    if !err.is_null() {
        let object = error.map_or(std::ptr::null_mut(), |error| rf_error::make(status, &error.to_string()));
        // SAFETY: the header demands that `err` is NULL or points to a pointer.
        unsafe { err.write(object) };
    }
    status
}

/// Runs the body of an export that cannot fail; `fallback` in the case of a panic.
pub(super) fn total<T>(fallback: T, body: impl FnOnce() -> T) -> T {
    quiet(body).unwrap_or(fallback)
}

fn quiet<T>(body: impl FnOnce() -> T) -> std::result::Result<T, String> {
    silence_panics();
    INSIDE.with(|inside| inside.set(inside.get() + 1));
    // The closures capture raw pointers and handles whose own locks say whether a panic left them half-done.
    let result = catch_unwind(AssertUnwindSafe(body));
    INSIDE.with(|inside| inside.set(inside.get() - 1));
    result.map_err(|panic| panic_text(panic.as_ref()))
}

/// The handle behind `pointer`.
pub(super) unsafe fn handle<'a, T>(pointer: *const T, what: &str) -> Result<&'a T> {
    // SAFETY: the header demands a handle of this library that is not freed, or NULL.
    unsafe { pointer.as_ref() }.ok_or_else(|| Error::argument(format!("{what} is NULL")))
}

/// Checks that `pointer` is not NULL and sets what it points to, so that a failed call leaves no garbage.
pub(super) unsafe fn out<T>(pointer: *mut T, initial: T, what: &str) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::argument(format!("{what} is NULL")));
    }
    // SAFETY: the header demands that it points to a `T`.
    unsafe { pointer.write(initial) };
    Ok(())
}

/// Sets an output that may be NULL to zero, so that a failed call leaves no garbage.
pub(super) unsafe fn clear(pointer: *mut usize) {
    // SAFETY: the header demands that it is NULL or points to a size.
    if let Some(value) = unsafe { pointer.as_mut() } {
        *value = 0;
    }
}

/// `len` bytes of text at `pointer`, up to the NUL if `len` is [`RF_STRLEN`].
pub(super) unsafe fn bytes<'a>(pointer: *const c_char, len: usize, what: &str) -> Result<&'a [u8]> {
    match (pointer.is_null(), len) {
        (true, 0) => Ok(&[]),
        (true, _) => Err(Error::argument(format!("{what} is NULL"))),
        // SAFETY: the header demands a NUL-terminated text with RF_STRLEN.
        (false, RF_STRLEN) => Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes()),
        (false, len) if isize::try_from(len).is_err() => {
            Err(Error::argument(format!("the length {len} of {what} is impossible")))
        }
        // SAFETY: the header demands `len` readable bytes.
        (false, len) => Ok(unsafe { std::slice::from_raw_parts(pointer.cast(), len) }),
    }
}

/// [`bytes`] that have to be UTF-8.
pub(super) unsafe fn text<'a>(pointer: *const c_char, len: usize, what: &str) -> Result<&'a str> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { bytes(pointer, len, what) }?;
    std::str::from_utf8(bytes)
        .map_err(|e| Error::argument(format!("{what} is not valid UTF-8 at byte {}", e.valid_up_to())))
}

/// A text in an option struct: NULL is none, a length of 0 means that it ends at its NUL.
pub(super) unsafe fn optional_text<'a>(pointer: *const c_char, len: usize, what: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { text(pointer, if len == 0 { RF_STRLEN } else { len }, what) }.map(Some)
}

/// `n` elements at `pointer`.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, n: usize, what: &str) -> Result<&'a [T]> {
    if n == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(Error::argument(format!("{what} is NULL")));
    }
    if n.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Error::argument(format!("the number {n} of {what} is impossible")));
    }
    // SAFETY: the header demands `n` readable elements.
    Ok(unsafe { std::slice::from_raw_parts(pointer, n) })
}

/// A struct whose first field is its size in the caller's header, and whose other fields may all be zero.
///
/// # Safety
/// `repr(C)`, first field `struct_size: u32`, no field for which zero bytes are invalid.
pub(super) unsafe trait Tagged: Copy {
    const NAME: &'static str;
}

fn tagged_size(size: u32, name: &str) -> Result<usize> {
    match size as usize {
        size if size >= size_of::<u32>() && size <= 4096 => Ok(size),
        size => {
            Err(Error::argument(format!("{name}.struct_size is {size}; begin with {}_INIT", name.to_ascii_uppercase())))
        }
    }
}

/// Reads options by the size that the caller states: fields that an older header lacks are zero, fields of a newer
/// one have to be.
pub(super) unsafe fn options<T: Tagged>(pointer: *const T) -> Result<T> {
    // SAFETY: `Tagged` promises that zero is valid for all fields.
    let mut value: T = unsafe { std::mem::zeroed() };
    if pointer.is_null() {
        return Ok(value);
    }
    // SAFETY: the header demands that the struct begins with its size and is as long as that says.
    let given = unsafe {
        let size = tagged_size(pointer.cast::<u32>().read_unaligned(), T::NAME)?;
        std::slice::from_raw_parts(pointer.cast::<u8>(), size)
    };
    let known = given.len().min(size_of::<T>());
    if given.iter().skip(known).any(|&b| b != 0) {
        return Err(Error::unsupported(T::NAME, "sets a field that this version of the library does not know"));
    }
    // SAFETY: `known` bytes are readable and writable on both sides.
    unsafe { std::ptr::copy_nonoverlapping(given.as_ptr(), std::ptr::from_mut(&mut value).cast::<u8>(), known) };
    Ok(value)
}

/// Writes a struct to a caller whose header may be older: as many bytes as it states, its `struct_size` kept.
pub(super) unsafe fn write_tagged<T: Tagged>(pointer: *mut T, value: T) -> Result<()> {
    if pointer.is_null() {
        return Err(Error::argument(format!("the {} is NULL", T::NAME)));
    }
    // SAFETY: the header demands that the struct begins with its size and is as long as that says.
    unsafe {
        let size = tagged_size(pointer.cast::<u32>().read_unaligned(), T::NAME)?;
        let skip = size_of::<u32>();
        let len = size.min(size_of::<T>()) - skip;
        let from = std::ptr::from_ref(&value).cast::<u8>().add(skip);
        std::ptr::copy_nonoverlapping(from, pointer.cast::<u8>().add(skip), len);
    }
    Ok(())
}

/// Writes `text` and a NUL to the caller's buffer and its length without the NUL to `needed`. Without a buffer only
/// the length is written.
pub(super) unsafe fn write_text(
    text: &str,
    buffer: *mut c_char,
    capacity: usize,
    needed: *mut usize,
) -> Result<rf_status> {
    // SAFETY: the header demands that `needed` is NULL or points to a size.
    if let Some(needed) = unsafe { needed.as_mut() } {
        *needed = text.len();
    } else if buffer.is_null() {
        return Err(Error::argument("both the buffer and needed are NULL"));
    }
    if buffer.is_null() {
        return Ok(RF_OK);
    }
    if capacity <= text.len() {
        return Err(Error::Buffer { capacity, needed: text.len() + 1, unit: "bytes" });
    }
    // SAFETY: the header demands `capacity` writable bytes, and there is room for the text and its NUL.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast::<u8>(), text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(RF_OK)
}

/// Refuses flags that this version does not know.
pub(super) fn check_flags(flags: u32, known: u32, what: &str) -> Result<()> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(Error::unsupported(what, format!("has the unknown flags {unknown:#x}"))),
    }
}
