//! Allocations and copies.
//!
//! An allocation is pages of the host with inaccessible ones around it, so that allocations never touch and device code
//! that runs over an end is caught, and so that the host's own overruns end the test.

use std::ffi::{c_int, c_uint, c_void};

use super::error::{CAPTURE_IMPLICIT, CAPTURE_UNSUPPORTED, Code, INVALID_VALUE, OUT_OF_MEMORY};
use super::graph::Node;
use super::state::{Handle, Runtime, put};
use crate::entries;
use crate::memory::{Kind, Range};

/// What fresh and freed memory is filled with, so that reading it shows.
const FRESH: u8 = 0xa5;
const DEAD: u8 = 0xdd;
/// Inaccessible bytes before and after an allocation.
const GUARD: usize = 64 << 10;
/// Freed bytes that are kept.
const GRAVEYARD: u64 = 64 << 20;

/// Memory that device code may see.
pub struct Allocation {
    /// The mapping with its guards.
    mapping: *mut u8,
    mapped: usize,
    start: u64,
    len: u64,
    pub kind: Kind,
    pub device: i32,
}

// SAFETY: an allocation is only an address and a length; the lock of the runtime orders what is done with them.
unsafe impl Send for Allocation {}

impl Allocation {
    pub fn new(len: u64, kind: Kind, device: i32) -> Option<Allocation> {
        let mapped = (len as usize).checked_next_multiple_of(4096)?.checked_add(2 * GUARD)?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping; the middle of it is made accessible below.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return None;
        }
        let mapping = mapping.cast::<u8>();
        // SAFETY: inside of the mapping.
        let start = unsafe { mapping.add(GUARD) };
        let allocation = Allocation { mapping, mapped, start: start.expose_provenance() as u64, len, kind, device };
        // SAFETY: these pages are the mapping's own.
        unsafe {
            if libc::mprotect(start.cast(), mapped - 2 * GUARD, libc::PROT_READ | libc::PROT_WRITE) != 0 {
                return None;
            }
            start.write_bytes(FRESH, len as usize);
        }
        Some(allocation)
    }

    pub fn start(&self) -> u64 {
        self.start
    }

    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the program must free it.
    pub fn is_the_callers(&self) -> bool {
        matches!(self.kind, Kind::Device | Kind::Host)
    }

    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: accessible memory of this length, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts_mut(self.mapping.add(GUARD), self.len as usize) }
    }

    pub fn range(&self) -> Range {
        Range { start: self.start, end: self.start + self.len, kind: self.kind }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: the mapping is this allocation's own.
        unsafe { libc::munmap(self.mapping.cast(), self.mapped) };
    }
}

/// The host's pointer to an address of the device.
pub fn pointer(address: u64) -> *mut u8 {
    std::ptr::with_exposed_provenance_mut(address as usize)
}

impl Runtime {
    /// Allocates `len` bytes and returns their address.
    pub fn allocate(&mut self, len: u64, kind: Kind) -> Result<u64, Code> {
        let (memory, device) = (self.config.memory, self.current());
        if kind == Kind::Device {
            let used = self.device()?.used;
            if len > memory - used {
                self.message = format!("{len} bytes asked for, {} of {memory} are left", memory - used);
                return Err(OUT_OF_MEMORY);
            }
        }
        let allocation = Allocation::new(len, kind, device).ok_or(OUT_OF_MEMORY)?;
        if kind == Kind::Device {
            self.device()?.used += len;
        }
        let address = allocation.start();
        self.allocations.insert(address, allocation);
        Ok(address)
    }

    /// Frees the allocation at `address`, which must be of the given kind.
    pub fn release(&mut self, address: u64, kind: Kind) -> Result<(), Code> {
        if self.allocations.get(&address).is_none_or(|allocation| allocation.kind != kind) {
            self.message = format!("{address:#x} is no allocation that could be freed");
            return Err(INVALID_VALUE);
        }
        let Some(mut allocation) = self.allocations.remove(&address) else { return Err(INVALID_VALUE) };
        if kind == Kind::Device
            && let Some(device) = self.devices.get_mut(allocation.device as usize)
        {
            device.used -= allocation.len();
        }
        if allocation.len() > GRAVEYARD {
            return Ok(());
        }
        allocation.bytes().fill(DEAD);
        allocation.kind = Kind::Freed;
        self.graveyard.push(allocation);
        while self.graveyard.iter().map(Allocation::len).sum::<u64>() > GRAVEYARD {
            self.graveyard.remove(0);
        }
        Ok(())
    }

    /// Everything that device code may access, and what it may not but could.
    pub fn ranges(&self) -> Vec<Range> {
        self.allocations.values().chain(&self.graveyard).map(Allocation::range).collect()
    }

    /// Whether all of `len` bytes at `address` are alive.
    pub fn check_range(&mut self, address: u64, len: u64) -> Result<(), Code> {
        let ranges = crate::memory::Ranges::new(self.ranges());
        if address.checked_add(len).is_some_and(|end| ranges.find(address, end).is_some()) {
            return Ok(());
        }
        self.message = format!("{len} bytes at {address:#x}: {}", ranges.describe(address));
        Err(INVALID_VALUE)
    }

    /// Copies of zero bytes succeed; others need both pointers, and device memory where it is meant.
    fn check_copy(&mut self, device: &[u64], host: Option<*const c_void>, len: usize) -> Result<(), Code> {
        if len == 0 {
            return Ok(());
        }
        if host.is_some_and(|host| host.is_null()) {
            return Err(INVALID_VALUE);
        }
        device.iter().try_for_each(|&address| self.check_range(address, len as u64))
    }

    /// What a call that waits or allocates does while something is captured: modes other than relaxed forbid it.
    fn check_unsafe_call(&mut self) -> Result<(), Code> {
        self.forbid_during_capture(CAPTURE_UNSUPPORTED)
    }
}

/// Copies `len` bytes, as between any two kinds of memory.
pub(crate) fn copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: both were checked, or are the caller's to vouch for. They may overlap.
    unsafe { to.copy_from(from, len) };
}

entries! {
    Device fn hipMalloc(runtime; to: *mut *mut c_void, size: usize) {
        if to.is_null() {
            return Err(INVALID_VALUE);
        }
        runtime.check_unsafe_call()?;
        let address = if size == 0 { 0 } else { runtime.allocate(size as u64, Kind::Device)? };
        put(to, pointer(address).cast())
    }

    Release fn hipFree(runtime; address: *mut c_void) {
        runtime.check_unsafe_call()?;
        if address.is_null() { Ok(()) } else { runtime.release(address as u64, Kind::Device) }
    }

    Device fn hipHostMalloc(runtime; to: *mut *mut c_void, size: usize, flags: c_uint) {
        if to.is_null() || flags & 0x1fff_ff00 != 0 {
            return Err(INVALID_VALUE);
        }
        runtime.check_unsafe_call()?;
        let address = if size == 0 { 0 } else { runtime.allocate(size as u64, Kind::Host)? };
        put(to, pointer(address).cast())
    }

    Release fn hipHostFree(runtime; address: *mut c_void) {
        runtime.check_unsafe_call()?;
        if address.is_null() { Ok(()) } else { runtime.release(address as u64, Kind::Host) }
    }

    Device fn hipMemcpyHtoD(runtime; to: u64, from: *const c_void, len: usize) {
        runtime.forbid_during_capture(CAPTURE_IMPLICIT)?;
        runtime.check_copy(&[to], Some(from), len)?;
        copy(pointer(to), from.cast(), len);
        Ok(())
    }

    Device fn hipMemcpyDtoH(runtime; to: *mut c_void, from: u64, len: usize) {
        runtime.forbid_during_capture(CAPTURE_IMPLICIT)?;
        runtime.check_copy(&[from], Some(to), len)?;
        copy(to.cast(), pointer(from), len);
        Ok(())
    }

    Device fn hipMemcpyHtoDAsync(runtime; to: u64, from: *const c_void, len: usize, stream: Handle) {
        runtime.check_copy(&[to], Some(from), len)?;
        runtime.submit(stream, Node::Copy { to, from: from as u64, len })
    }

    Device fn hipMemcpyDtoHAsync(runtime; to: *mut c_void, from: u64, len: usize, stream: Handle) {
        runtime.check_copy(&[from], Some(to), len)?;
        runtime.submit(stream, Node::Copy { to: to as u64, from, len })
    }

    Device fn hipMemcpyDtoDAsync(runtime; to: u64, from: u64, len: usize, stream: Handle) {
        runtime.check_copy(&[to, from], None, len)?;
        runtime.submit(stream, Node::Copy { to, from, len })
    }

    Device fn hipMemsetD8Async(runtime; to: u64, value: u8, count: usize, stream: Handle) {
        runtime.check_copy(&[to], None, count)?;
        runtime.submit(stream, Node::Fill { to, value: u32::from(value), width: 1, count })
    }

    Device fn hipMemsetD32Async(runtime; to: u64, value: c_int, count: usize, stream: Handle) {
        if !to.is_multiple_of(4) {
            return Err(INVALID_VALUE);
        }
        runtime.check_copy(&[to], None, count.checked_mul(4).ok_or(INVALID_VALUE)?)?;
        runtime.submit(stream, Node::Fill { to, value: value as u32, width: 4, count })
    }
}
