//! A step's launches, put off until its result is asked for, and replayed as a recorded graph when they come again.
//!
//! The verbs of a decode step differ between tokens only in what the step's block of positions and pages says, which
//! lies at a fixed address. So the list of launches of one token is that of the next, and one replay of a graph takes
//! the place of some hundred launches: on the host's side, and on the device's, where a recorded kernel follows its
//! predecessor sooner. How the list is made up does not matter here: it is compared as a whole.

use std::sync::Arc;

use super::device::{Device, Stream};
use super::driver::Object;
use super::module::Launch;
use crate::error::Result;

/// Replays of the same list before it is recorded: a recording costs as much as several steps.
const BEFORE_RECORDING: u32 = 2;

/// `hipStreamCaptureModeRelaxed`: other threads of the host go on with their own work.
const CAPTURE_RELAXED: i32 = 2;

/// Launches that wait, and the graph of those that came last.
pub struct Plan {
    device: Arc<Device>,
    waiting: Vec<Launch>,
    last: Vec<Launch>,
    repeated: u32,
    graph: Option<Graph>,
    /// Recording failed once: launches go out one by one from then on.
    unrecordable: bool,
    /// Steps that were replayed as a graph so far.
    pub replays: u64,
}

struct Graph {
    device: Arc<Device>,
    executable: Object,
}

// SAFETY: graphs may be launched from any thread, one at a time: a plan is borrowed mutably.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: instantiated by the same driver.
            unsafe { (self.device.driver.table.graph_exec_destroy)(self.executable) };
        }
    }
}

impl Plan {
    /// An empty plan for `device`.
    pub fn new(device: &Arc<Device>) -> Plan {
        Plan {
            device: device.clone(),
            waiting: Vec::new(),
            last: Vec::new(),
            repeated: 0,
            graph: None,
            unrecordable: false,
            replays: 0,
        }
    }

    /// Puts a launch off.
    pub fn push(&mut self, launch: Launch) {
        self.waiting.push(launch);
    }

    /// Forgets what waits.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }

    /// Sends all that waits: as the recorded graph, if it is that again.
    pub fn flush(&mut self, stream: &Stream) -> Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        if self.waiting != self.last {
            self.graph = None;
            self.repeated = 0;
            std::mem::swap(&mut self.last, &mut self.waiting);
        } else {
            self.repeated = self.repeated.saturating_add(1);
        }
        self.waiting.clear();
        if self.repeated >= BEFORE_RECORDING && self.graph.is_none() && !self.unrecordable {
            match self.record(stream) {
                Ok(graph) => self.graph = Some(graph),
                Err(error) if self.device.is_lost() => return Err(error),
                Err(_) => self.unrecordable = true,
            }
        }
        match &self.graph {
            Some(graph) => {
                self.replays += 1;
                // SAFETY: live objects of this device.
                let code = unsafe { (self.device.driver.table.graph_launch)(graph.executable, stream.raw()) };
                self.device.check("hipGraphLaunch", code)
            }
            None => self.last.iter().try_for_each(|launch| launch.send(&self.device, stream)),
        }
    }

    fn record(&self, stream: &Stream) -> Result<Graph> {
        let table = &self.device.driver.table;
        // SAFETY: a live stream of this device, which nobody else uses.
        let code = unsafe { (table.capture_begin)(stream.raw(), CAPTURE_RELAXED) };
        self.device.check("hipStreamBeginCapture", code)?;
        let sent = self.last.iter().try_for_each(|launch| launch.send(&self.device, stream));
        let mut graph = std::ptr::null_mut();
        // SAFETY: the capture that was begun above; it ends whatever was sent.
        let ended = unsafe { (table.capture_end)(stream.raw(), &mut graph) };
        let mut executable = std::ptr::null_mut();
        let result = sent.and_then(|()| self.device.check("hipStreamEndCapture", ended)).and_then(|()| {
            // SAFETY: the captured graph.
            let code = unsafe { (table.graph_instantiate)(&mut executable, graph, 0) };
            self.device.check("hipGraphInstantiateWithFlags", code)
        });
        if !graph.is_null() {
            // SAFETY: captured above; its executable does not need it.
            unsafe { (table.graph_destroy)(graph) };
        }
        result.map(|()| Graph { device: self.device.clone(), executable })
    }
}
