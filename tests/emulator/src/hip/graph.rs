//! Graphs: what a stream would have done, kept to be done later, any number of times.

use std::ffi::{c_char, c_ulonglong, c_void};
use std::sync::Arc;

use super::error::{Code, INVALID_VALUE};
use super::memory::{copy, pointer};
use super::state::{Handle, Runtime, find, put};
use crate::entries;
use crate::launch::Launch;

/// One piece of a stream's work.
#[derive(Clone)]
pub enum Node {
    Launch(Box<Launch>),
    /// Between any memories, the host's among them.
    Copy {
        to: u64,
        from: u64,
        len: usize,
    },
    /// `count` elements of `width` bytes.
    Fill {
        to: u64,
        value: u32,
        width: usize,
        count: usize,
    },
    /// A recorded event.
    Nothing,
}

/// `hipGraph_t`
pub struct Graph {
    pub nodes: Arc<[Node]>,
}

/// `hipGraphExec_t`
pub struct Exec {
    nodes: Arc<[Node]>,
}

impl Runtime {
    pub fn perform(&mut self, node: &Node) -> Result<(), Code> {
        match *node {
            Node::Launch(ref launch) => self.run(launch),
            Node::Copy { to, from, len } => {
                copy(pointer(to), pointer(from), len);
                Ok(())
            }
            Node::Fill { to, value, width, count } => {
                let bytes = value.to_le_bytes();
                for i in 0..count {
                    copy(pointer(to + (i * width) as u64), bytes.as_ptr(), width);
                }
                Ok(())
            }
            Node::Nothing => Ok(()),
        }
    }

    /// Checks that what a graph touches on the device is still there, then does it.
    fn replay(&mut self, nodes: &[Node]) -> Result<(), Code> {
        for node in nodes {
            match *node {
                Node::Fill { to, width, count, .. } if count != 0 => self.check_range(to, (width * count) as u64)?,
                // One of the two is the device's; which, the addresses tell.
                Node::Copy { to, from, len } if len != 0 => {
                    self.check_range(to, len as u64).or_else(|_| self.check_range(from, len as u64))?;
                }
                _ => {}
            }
            self.perform(node)?;
        }
        Ok(())
    }

    fn instantiate(&mut self, to: *mut Handle, graph: Handle) -> Result<(), Code> {
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        let nodes = find(&mut self.graphs, graph)?.nodes.clone();
        let handle = self.handle();
        self.execs.insert(handle, Exec { nodes });
        put(to, handle)
    }
}

entries! {
    Device fn hipGraphInstantiate(
        runtime; to: *mut Handle, graph: Handle, _error_node: *mut Handle, _log: *mut c_char, _log_size: usize
    ) {
        runtime.instantiate(to, graph)
    }

    Device fn hipGraphInstantiateWithFlags(runtime; to: *mut Handle, graph: Handle, _flags: c_ulonglong) {
        runtime.instantiate(to, graph)
    }

    Device fn hipGraphLaunch(runtime; exec: Handle, stream: Handle) {
        runtime.check_stream(stream)?;
        let nodes = find(&mut runtime.execs, exec)?.nodes.clone();
        if runtime.capture_of(stream).is_some() {
            // A child graph: its nodes become part of the capture.
            return nodes.iter().try_for_each(|node| runtime.submit(stream, node.clone()));
        }
        runtime.replay(&nodes)
    }

    Release fn hipGraphExecDestroy(runtime; exec: Handle) {
        find(&mut runtime.execs, exec)?;
        runtime.execs.remove(&exec);
        Ok(())
    }

    Release fn hipGraphDestroy(runtime; graph: Handle) {
        find(&mut runtime.graphs, graph)?;
        runtime.graphs.remove(&graph);
        Ok(())
    }

    /// The number of nodes; with an array, as many of them as it holds.
    Device fn hipGraphGetNodes(runtime; graph: Handle, nodes: *mut *mut c_void, count: *mut usize) {
        let total = find(&mut runtime.graphs, graph)?.nodes.len();
        if count.is_null() {
            return Err(INVALID_VALUE);
        }
        if !nodes.is_null() {
            // SAFETY: `count` says how many the array holds.
            let room = unsafe { *count };
            for i in 0..room {
                let node = if i < total { graph + 1 + i } else { 0 };
                // SAFETY: inside of the array.
                unsafe { nodes.add(i).write(std::ptr::without_provenance_mut(node)) };
            }
            return put(count, total.min(room));
        }
        put(count, total)
    }
}
