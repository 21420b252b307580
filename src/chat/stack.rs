//! A stack of known size for the template engine.

use std::thread;

use crate::{Error, Result};

/// Bytes of stack for parsing and rendering. The engine recurses over chains of operators, over `elif` and over nested
/// values, as deep as [`super::MAX_SOURCE_BYTES`] and [`super::MAX_RECURSION`] allow, which comes to under 8 MiB with
/// optimisation; the rest is for builds without. It is only reserved: a usual rendering touches a few pages of it.
const STACK_BYTES: usize = 64 << 20;

/// Runs `work` on a stack of [`STACK_BYTES`]. The host may call from a thread whose stack is small (a job system, a
/// coroutine), and running off a stack cannot be caught.
///
/// # Errors
/// Those of `work`; [`Error::OutOfMemory`] when the system refuses the thread.
pub(super) fn run<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("rocmforge-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(|_| Error::OutOfMemory {
                bytes: STACK_BYTES as u64,
                what: "the template engine's stack".to_owned(),
            })?;
        match thread.join() {
            Ok(result) => result,
            Err(_) => Err(Error::Internal("the template engine panicked".to_owned())),
        }
    })
}
