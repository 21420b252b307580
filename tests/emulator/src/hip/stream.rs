//! Streams, which run what they are given at once unless they are captured.

use std::ffi::{c_int, c_uint};

use super::error::{CAPTURE_INVALIDATED, CAPTURE_UNMATCHED, CAPTURE_UNSUPPORTED, Code, ILLEGAL_STATE, INVALID_VALUE};
use super::graph::{Graph, Node};
use super::state::{Handle, Runtime, find, put};
use crate::entries;

/// `hipStreamCaptureModeRelaxed`: calls that are not of the capture are nobody's business.
const RELAXED: c_int = 2;

/// A stream; the handle 0 is the null stream, which has no entry.
#[derive(Default)]
pub struct Stream {
    /// The capture that it is part of.
    pub capture: Option<Handle>,
}

/// A capture under way.
pub struct Capture {
    origin: Handle,
    mode: c_int,
    invalid: bool,
    pub nodes: Vec<Node>,
}

impl Runtime {
    fn is_null_stream(stream: Handle) -> bool {
        // NULL, `hipStreamLegacy` and `hipStreamPerThread`.
        stream <= 2
    }

    pub fn check_stream(&mut self, stream: Handle) -> Result<(), Code> {
        if Runtime::is_null_stream(stream) { Ok(()) } else { find(&mut self.streams, stream).map(|_| ()) }
    }

    /// The capture that `stream` is part of.
    pub fn capture_of(&self, stream: Handle) -> Option<Handle> {
        self.streams.get(&stream)?.capture
    }

    /// Makes `stream` part of a capture, as waiting for an event of it does.
    pub fn join_capture(&mut self, stream: Handle, capture: Handle) -> Result<(), Code> {
        if self.captures.contains_key(&capture) {
            find(&mut self.streams, stream)?.capture = Some(capture);
        }
        Ok(())
    }

    /// Runs `node` now, or records it if `stream` is captured.
    pub fn submit(&mut self, stream: Handle, node: Node) -> Result<(), Code> {
        self.check_stream(stream)?;
        let Some(capture) = self.capture_of(stream) else { return self.perform(&node) };
        let capture = find(&mut self.captures, capture)?;
        if capture.invalid {
            return Err(CAPTURE_INVALIDATED);
        }
        capture.nodes.push(node);
        Ok(())
    }

    /// Refuses a call that waits for `stream`, or for all of them, while it is captured; the capture is void then.
    fn refuse_wait(&mut self, stream: Handle) -> Result<(), Code> {
        self.check_stream(stream)?;
        match self.capture_of(stream) {
            Some(capture) => {
                find(&mut self.captures, capture)?.invalid = true;
                Err(CAPTURE_UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    /// Refuses a call that is not of a stream while a capture is under way whose mode is not relaxed.
    pub fn forbid_during_capture(&mut self, code: Code) -> Result<(), Code> {
        let strict = self.captures.values_mut().find(|capture| capture.mode != RELAXED);
        match strict {
            Some(capture) => {
                capture.invalid = true;
                Err(code)
            }
            None => Ok(()),
        }
    }

    fn drop_capture(&mut self, capture: Handle) -> Option<Capture> {
        for stream in self.streams.values_mut() {
            if stream.capture == Some(capture) {
                stream.capture = None;
            }
        }
        self.captures.remove(&capture)
    }
}

entries! {
    Device fn hipStreamCreateWithFlags(runtime; to: *mut Handle, flags: c_uint) {
        if flags > 1 {
            return Err(INVALID_VALUE);
        }
        let handle = runtime.handle();
        put(to, handle)?;
        runtime.streams.insert(handle, Stream::default());
        Ok(())
    }

    Device fn hipStreamCreate(runtime; to: *mut Handle) {
        let handle = runtime.handle();
        put(to, handle)?;
        runtime.streams.insert(handle, Stream::default());
        Ok(())
    }

    Release fn hipStreamDestroy(runtime; stream: Handle) {
        if Runtime::is_null_stream(stream) {
            return Err(INVALID_VALUE);
        }
        find(&mut runtime.streams, stream)?;
        if let Some(capture) = runtime.capture_of(stream) {
            runtime.drop_capture(capture);
        }
        runtime.streams.remove(&stream);
        Ok(())
    }

    Device fn hipStreamSynchronize(runtime; stream: Handle) {
        runtime.refuse_wait(stream)
    }

    Device fn hipStreamQuery(runtime; stream: Handle) {
        runtime.refuse_wait(stream)
    }

    Device fn hipDeviceSynchronize(runtime) {
        match runtime.captures.values_mut().next() {
            Some(capture) => {
                capture.invalid = true;
                Err(CAPTURE_UNSUPPORTED)
            }
            None => Ok(()),
        }
    }

    Device fn hipStreamBeginCapture(runtime; stream: Handle, mode: c_int) {
        if Runtime::is_null_stream(stream) {
            return Err(CAPTURE_UNSUPPORTED);
        }
        if !(0..=RELAXED).contains(&mode) {
            return Err(INVALID_VALUE);
        }
        if find(&mut runtime.streams, stream)?.capture.is_some() {
            return Err(ILLEGAL_STATE);
        }
        let handle = runtime.handle();
        runtime.captures.insert(handle, Capture { origin: stream, mode, invalid: false, nodes: Vec::new() });
        find(&mut runtime.streams, stream)?.capture = Some(handle);
        Ok(())
    }

    Device fn hipStreamEndCapture(runtime; stream: Handle, to: *mut Handle) {
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        runtime.check_stream(stream)?;
        let capture = runtime.capture_of(stream).ok_or(ILLEGAL_STATE)?;
        if find(&mut runtime.captures, capture)?.origin != stream {
            return Err(CAPTURE_UNMATCHED);
        }
        let capture = runtime.drop_capture(capture).ok_or(ILLEGAL_STATE)?;
        if capture.invalid {
            put(to, 0)?;
            return Err(CAPTURE_INVALIDATED);
        }
        let handle = runtime.handle();
        runtime.graphs.insert(handle, Graph { nodes: capture.nodes.into() });
        put(to, handle)
    }

    Device fn hipStreamIsCapturing(runtime; stream: Handle, status: *mut c_int) {
        runtime.check_stream(stream)?;
        let invalid = runtime.capture_of(stream).and_then(|c| runtime.captures.get(&c)).map(|c| c.invalid);
        put(status, match invalid {
            None => 0,
            Some(false) => 1,
            Some(true) => 2,
        })
    }
}
