//! Pages of the key-value cache on a device, cut from slabs: asking the driver for each would cost a wait of its own.

use std::sync::Arc;

use parking_lot::Mutex;

use super::device::{Buffer, Device};
use super::driver::Address;
use crate::backend::KvShape;
use crate::error::{Error, Result};

/// Pages of a slab; fewer where memory does not suffice for as many.
const SLAB_PAGES: usize = 8;

struct Slab {
    buffer: Buffer,
    page_bytes: usize,
    free: Vec<Address>,
    pages: usize,
}

/// The slabs of a device.
pub struct PagePool {
    device: Arc<Device>,
    slabs: Mutex<Vec<Slab>>,
}

/// A page; its place goes back to the pool when it is dropped.
pub struct DevicePage {
    pool: Arc<PagePool>,
    /// Where it begins.
    pub address: Address,
    bytes: usize,
}

impl PagePool {
    /// An empty pool.
    pub fn new(device: &Arc<Device>) -> Arc<PagePool> {
        Arc::new(PagePool { device: device.clone(), slabs: Mutex::new(Vec::new()) })
    }

    /// A page for `shape`.
    pub fn page(self: &Arc<Self>, shape: &KvShape) -> Result<DevicePage> {
        let bytes = shape
            .page_bytes()
            .ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: "a page of the cache".into() })?;
        let mut slabs = self.slabs.lock();
        let taken = slabs.iter_mut().filter(|slab| slab.page_bytes == bytes).find_map(|slab| slab.free.pop());
        let address = match taken {
            Some(address) => address,
            None => {
                let mut slab = self.slab(bytes)?;
                let address = slab.free.pop().ok_or_else(|| Error::Internal("a slab without pages".into()))?;
                slabs.push(slab);
                address
            }
        };
        Ok(DevicePage { pool: self.clone(), address, bytes })
    }

    fn slab(&self, page_bytes: usize) -> Result<Slab> {
        let whole = page_bytes.checked_mul(SLAB_PAGES);
        let attempt = whole.ok_or_else(|| Error::Internal("a slab beyond all memory".into()));
        let attempt = attempt.and_then(|bytes| self.device.allocate(bytes, "the key-value cache"));
        let (buffer, pages) = match attempt {
            Ok(buffer) => (buffer, SLAB_PAGES),
            Err(Error::DeviceMemory { .. }) => (self.device.allocate(page_bytes, "the key-value cache")?, 1),
            Err(error) => return Err(error),
        };
        let first = buffer.address();
        let free = (0..pages).rev().map(|i| first + (i * page_bytes) as u64).collect();
        Ok(Slab { buffer, page_bytes, free, pages })
    }

    fn give_back(&self, address: Address, bytes: usize) {
        let mut slabs = self.slabs.lock();
        let end = |slab: &Slab| slab.buffer.address() + slab.buffer.bytes() as u64;
        let home = slabs.iter().position(|slab| (slab.buffer.address()..end(slab)).contains(&address));
        let Some(home) = home else { return };
        if let Some(slab) = slabs.get_mut(home) {
            slab.free.push(address);
        }
        // A slab that nobody uses goes, unless it is the last of its kind: the next token would ask for it again.
        let unused = |slab: &Slab| slab.page_bytes == bytes && slab.free.len() == slab.pages;
        if slabs.iter().filter(|slab| unused(slab)).count() > 1 {
            slabs.swap_remove(home);
        }
    }
}

impl Drop for DevicePage {
    fn drop(&mut self) {
        self.pool.give_back(self.address, self.bytes);
    }
}
