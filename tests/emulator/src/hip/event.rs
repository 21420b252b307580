//! Events. Work is done when it is submitted, so a recorded event has always happened.

use std::ffi::c_uint;
use std::time::Instant;

use super::error::{CAPTURED_EVENT, Code, INVALID_HANDLE, INVALID_VALUE};
use super::graph::Node;
use super::state::{Handle, Runtime, find, put};
use crate::entries;

/// `hipEventDisableTiming`
const DISABLE_TIMING: c_uint = 2;

pub struct Event {
    flags: c_uint,
    recorded: Option<Instant>,
    /// The capture in which it was recorded last.
    capture: Option<Handle>,
}

impl Runtime {
    fn check_not_captured(&mut self, event: Handle) -> Result<(), Code> {
        match find(&mut self.events, event)?.capture {
            Some(capture) if self.captures.contains_key(&capture) => Err(CAPTURED_EVENT),
            _ => Ok(()),
        }
    }
}

entries! {
    Device fn hipEventCreateWithFlags(runtime; to: *mut Handle, flags: c_uint) {
        // Blocking sync, no timing, interprocess; release flags of AMD's own.
        if flags & !(7 | 0x6000_0000) != 0 {
            return Err(INVALID_VALUE);
        }
        let handle = runtime.handle();
        put(to, handle)?;
        runtime.events.insert(handle, Event { flags, recorded: None, capture: None });
        Ok(())
    }

    Release fn hipEventDestroy(runtime; event: Handle) {
        find(&mut runtime.events, event)?;
        runtime.events.remove(&event);
        Ok(())
    }

    Device fn hipEventRecord(runtime; event: Handle, stream: Handle) {
        runtime.check_stream(stream)?;
        let capture = runtime.capture_of(stream);
        let object = find(&mut runtime.events, event)?;
        object.capture = capture;
        object.recorded = Some(Instant::now());
        if capture.is_some() { runtime.submit(stream, Node::Nothing) } else { Ok(()) }
    }

    Device fn hipEventQuery(runtime; event: Handle) {
        runtime.check_not_captured(event)
    }

    Device fn hipEventSynchronize(runtime; event: Handle) {
        runtime.check_not_captured(event)
    }

    Device fn hipEventElapsedTime(runtime; to: *mut f32, start: Handle, stop: Handle) {
        let mut time = |event| {
            runtime.check_not_captured(event)?;
            let event = find(&mut runtime.events, event)?;
            event.recorded.filter(|_| event.flags & DISABLE_TIMING == 0).ok_or(INVALID_HANDLE)
        };
        let (start, stop) = (time(start)?, time(stop)?);
        put(to, stop.saturating_duration_since(start).as_secs_f32() * 1000.0)
    }

    Device fn hipStreamWaitEvent(runtime; stream: Handle, event: Handle, flags: c_uint) {
        if flags != 0 {
            return Err(INVALID_VALUE);
        }
        runtime.check_stream(stream)?;
        match find(&mut runtime.events, event)?.capture {
            Some(capture) => runtime.join_capture(stream, capture),
            None => Ok(()),
        }
    }
}
