//! `hipError_t`: the numbers that this runtime returns, and the functions that name them.

use std::cell::Cell;
use std::ffi::{CStr, c_char};

pub type Code = i32;

macro_rules! codes {
    ($($constant:ident = $number:literal, $name:literal, $text:literal;)+) => {
        $(pub const $constant: Code = $number;)+

        fn describe(code: Code) -> (&'static CStr, &'static CStr) {
            match code {
                $($number => ($name, $text),)+
                _ => (c"hipErrorUnknown", c"unknown error"),
            }
        }
    };
}

codes! {
    SUCCESS = 0, c"hipSuccess", c"no error";
    INVALID_VALUE = 1, c"hipErrorInvalidValue", c"invalid argument";
    OUT_OF_MEMORY = 2, c"hipErrorOutOfMemory", c"out of memory";
    INVALID_CONFIGURATION = 9, c"hipErrorInvalidConfiguration", c"invalid configuration argument";
    NO_DEVICE = 100, c"hipErrorNoDevice", c"no ROCm-capable device is detected";
    INVALID_DEVICE = 101, c"hipErrorInvalidDevice", c"invalid device ordinal";
    INVALID_IMAGE = 200, c"hipErrorInvalidImage", c"device kernel image is invalid";
    NO_BINARY_FOR_GPU = 209, c"hipErrorNoBinaryForGpu", c"no kernel image is available for execution on the device";
    INVALID_HANDLE = 400, c"hipErrorInvalidHandle", c"invalid resource handle";
    ILLEGAL_STATE = 401, c"hipErrorIllegalState", c"the operation cannot be performed in the present state";
    NOT_FOUND = 500, c"hipErrorNotFound", c"named symbol not found";
    NOT_READY = 600, c"hipErrorNotReady", c"device not ready";
    ILLEGAL_ADDRESS = 700, c"hipErrorIllegalAddress", c"an illegal memory access was encountered";
    LAUNCH_TIMEOUT = 702, c"hipErrorLaunchTimeOut", c"the launch timed out and was terminated";
    LAUNCH_FAILURE = 719, c"hipErrorLaunchFailure", c"unspecified launch failure";
    COOPERATIVE_TOO_LARGE = 720, c"hipErrorCooperativeLaunchTooLarge", c"too many blocks in cooperative launch";
    NOT_SUPPORTED = 801, c"hipErrorNotSupported", c"operation not supported";
    CAPTURE_UNSUPPORTED = 900, c"hipErrorStreamCaptureUnsupported",
        c"operation not permitted when stream is capturing";
    CAPTURE_INVALIDATED = 901, c"hipErrorStreamCaptureInvalidated",
        c"operation failed due to a previous error during capture";
    CAPTURE_UNMATCHED = 903, c"hipErrorStreamCaptureUnmatched",
        c"capture was not ended in the same stream as it began";
    CAPTURE_IMPLICIT = 906, c"hipErrorStreamCaptureImplicit",
        c"operation would make the legacy stream depend on a capturing blocking stream";
    CAPTURED_EVENT = 907, c"hipErrorCapturedEvent", c"operation not permitted on an event last recorded in a capturing stream";
    UNKNOWN = 999, c"hipErrorUnknown", c"unknown error";
}

thread_local! {
    static LAST: Cell<Code> = const { Cell::new(SUCCESS) };
}

/// Keeps an error for `hipGetLastError`, as each failing call does for its thread.
pub fn remember(code: Code) -> Code {
    // That something is not ready yet is no error.
    if code != SUCCESS && code != NOT_READY {
        LAST.set(code);
    }
    code
}

/// Forgets this thread's error.
pub fn forget() {
    LAST.set(SUCCESS);
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorName(code: Code) -> *const c_char {
    describe(code).0.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn hipGetErrorString(code: Code) -> *const c_char {
    describe(code).1.as_ptr()
}

/// The last error of this thread, which is forgotten.
#[unsafe(no_mangle)]
pub extern "C" fn hipGetLastError() -> Code {
    LAST.replace(SUCCESS)
}

/// The last error of this thread, which stays.
#[unsafe(no_mangle)]
pub extern "C" fn hipPeekAtLastError() -> Code {
    LAST.get()
}
