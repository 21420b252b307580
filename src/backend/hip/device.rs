//! A device, and what lives on it: memory, streams, events. Everything is freed when it is dropped, and every failure
//! is an [`Error`] that names the device and the driver's call.

use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::driver::{self, Address, Attribute, Code, Driver, Object, Vendor};
use crate::error::{Error, Result};

/// What a device is, and whether it can be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number among the devices of its driver.
    pub ordinal: i32,
    /// Whose it is.
    pub vendor: Vendor,
    /// The maker's name for it.
    pub name: String,
    /// The architecture: "gfx1100", "sm_90".
    pub architecture: String,
    /// Bytes of its memory.
    pub memory: u64,
    /// Bytes of it that were free when it was looked at; 0 if it was not asked.
    pub free: u64,
    /// Compute units.
    pub multiprocessors: u32,
    /// Lanes of a wave.
    pub wave_size: u32,
    /// Shared memory of a block in bytes.
    pub shared_memory: u32,
    /// It shares the host's memory.
    pub integrated: bool,
    /// Why it cannot be used; empty if it can.
    pub unusable: String,
}

/// A device in use. Shared by everything that lives on it.
pub struct Device {
    /// What it is.
    pub info: DeviceInfo,
    /// Its driver.
    pub driver: Arc<Driver>,
    context: Object,
    /// Bytes that may be allocated in all.
    budget: AtomicU64,
    allocated: AtomicU64,
    lost: AtomicBool,
}

// SAFETY: contexts may be bound to any thread.
unsafe impl Send for Device {}
// SAFETY: as above; all state is atomic.
unsafe impl Sync for Device {}

/// The calling thread is bound to a device as long as this lives.
pub struct Entered<'d> {
    device: &'d Device,
    before: c_int,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.device.driver.leave(self.device.info.ordinal, self.before);
    }
}

impl Device {
    /// Begins to use the device that `info` describes.
    pub fn open(driver: &Arc<Driver>, info: &DeviceInfo) -> Result<Arc<Device>> {
        let context = driver.retain(info.ordinal).map_err(|code| Error::Device {
            device: info.name.clone(),
            call: "cuDevicePrimaryCtxRetain",
            reason: driver.reason(code),
            lost: driver::is_lost(code),
        })?;
        Ok(Arc::new(Device {
            info: info.clone(),
            driver: driver.clone(),
            context,
            budget: AtomicU64::new(u64::MAX),
            allocated: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        }))
    }

    /// Binds the calling thread to this device.
    pub fn enter(&self) -> Result<Entered<'_>> {
        match self.driver.enter(self.info.ordinal, self.context) {
            Ok(before) => Ok(Entered { device: self, before }),
            Err(code) => Err(self.error("hipSetDevice", code)),
        }
    }

    /// The error of a failed call.
    pub fn error(&self, call: &'static str, code: Code) -> Error {
        let lost = driver::is_lost(code);
        if lost {
            self.lost.store(true, Ordering::Relaxed);
        }
        Error::Device { device: self.info.name.clone(), call, reason: self.driver.reason(code), lost }
    }

    /// An error if `code` is one.
    pub fn check(&self, call: &'static str, code: Code) -> Result<()> {
        if code == 0 { Ok(()) } else { Err(self.error(call, code)) }
    }

    /// Whether a call has said that the device is of no use any more.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Allows at most `bytes` of allocations.
    pub fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// Bytes that are allocated through this object.
    pub fn allocated(&self) -> u64 {
        self.allocated.load(Ordering::Relaxed)
    }

    /// Bytes that may be allocated now: free on the device and within the budget.
    pub fn free_memory(&self) -> Result<u64> {
        let _entered = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: writes two sizes.
        self.check("hipMemGetInfo", unsafe { (self.driver.table.memory_info)(&mut free, &mut total) })?;
        Ok((free as u64).min(self.budget.load(Ordering::Relaxed).saturating_sub(self.allocated())))
    }

    /// `bytes` of device memory for `what`; their content is undefined.
    pub fn allocate(self: &Arc<Self>, bytes: usize, what: &str) -> Result<Buffer> {
        let short = |free: u64| Error::DeviceMemory {
            device: self.info.name.clone(),
            what: what.to_string(),
            needed: bytes as u64,
            free,
        };
        let _entered = self.enter()?;
        if self.allocated().saturating_add(bytes as u64) > self.budget.load(Ordering::Relaxed) {
            return Err(short(self.free_memory()?));
        }
        let mut address = 0;
        // SAFETY: writes an address.
        match unsafe { (self.driver.table.malloc)(&mut address, bytes.max(1)) } {
            0 => {
                self.allocated.fetch_add(bytes as u64, Ordering::Relaxed);
                Ok(Buffer { device: self.clone(), address, bytes })
            }
            driver::OUT_OF_MEMORY => Err(short(self.free_memory().unwrap_or(0))),
            code => Err(self.error("hipMalloc", code)),
        }
    }

    /// `bytes` of the host's memory from which the device copies without a detour.
    pub fn allocate_pinned(self: &Arc<Self>, bytes: usize) -> Result<Pinned> {
        let _entered = self.enter()?;
        let mut start = std::ptr::null_mut();
        // SAFETY: writes a pointer.
        match unsafe { (self.driver.table.host_malloc)(&mut start, bytes.max(1), 0) } {
            0 => {
                // SAFETY: `bytes` bytes that are ours alone; Rust wants them initialised.
                unsafe { std::ptr::write_bytes(start.cast::<u8>(), 0, bytes.max(1)) };
                Ok(Pinned { device: self.clone(), start: start.cast(), bytes })
            }
            driver::OUT_OF_MEMORY => {
                Err(Error::OutOfMemory { bytes: bytes as u64, what: "transfers to the device".into() })
            }
            code => Err(self.error("hipHostMalloc", code)),
        }
    }

    /// A queue of work.
    pub fn stream(self: &Arc<Self>) -> Result<Stream> {
        /// It does not wait for the host's own use of the default stream.
        const NON_BLOCKING: u32 = 1;
        let _entered = self.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes a stream.
        self.check("hipStreamCreateWithFlags", unsafe { (self.driver.table.stream_create)(&mut raw, NON_BLOCKING) })?;
        Ok(Stream { device: self.clone(), raw })
    }

    /// A mark in a queue.
    pub fn event(self: &Arc<Self>) -> Result<Event> {
        const DISABLE_TIMING: u32 = 2;
        let _entered = self.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: writes an event.
        self.check("hipEventCreateWithFlags", unsafe { (self.driver.table.event_create)(&mut raw, DISABLE_TIMING) })?;
        Ok(Event { device: self.clone(), raw, recorded: AtomicBool::new(false) })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.driver.release(self.info.ordinal);
    }
}

/// Device memory.
pub struct Buffer {
    device: Arc<Device>,
    address: Address,
    bytes: usize,
}

impl Buffer {
    /// Where it begins.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The device that it is on.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: allocated by the same driver; the driver waits for work that uses it.
            unsafe { (self.device.driver.table.free)(self.address) };
        }
        self.device.allocated.fetch_sub(self.bytes as u64, Ordering::Relaxed);
    }
}

/// Pinned memory of the host.
pub struct Pinned {
    device: Arc<Device>,
    start: *mut u8,
    bytes: usize,
}

// SAFETY: owns its bytes, as a Vec does.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

impl Pinned {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: initialised bytes of ours. Copies that write them are waited for before they are read.
        unsafe { std::slice::from_raw_parts(self.start, self.bytes) }
    }

    /// The bytes.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as above, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: allocated by the same driver.
            unsafe { (self.device.driver.table.host_free)(self.start.cast()) };
        }
    }
}

/// A queue of work on a device. The thread that uses it has entered the device.
pub struct Stream {
    device: Arc<Device>,
    raw: Object,
}

// SAFETY: streams may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: drivers lock them.
unsafe impl Sync for Stream {}

impl Stream {
    /// The driver's object.
    pub fn raw(&self) -> Object {
        self.raw
    }

    /// Copies `bytes` from pinned memory at `from` to `to + offset`; they must stay as they are until the copy has run.
    pub fn upload(&self, to: &Buffer, offset: usize, from: &Pinned, at: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > to.bytes)
            || at.checked_add(bytes).is_none_or(|end| end > from.bytes)
        {
            return Err(Error::Internal(format!("a copy of {bytes} bytes to a buffer of {}", to.bytes)));
        }
        if bytes == 0 {
            return Ok(());
        }
        // SAFETY: both ranges were checked.
        let code = unsafe {
            let from = from.start.add(at).cast::<c_void>();
            (self.device.driver.table.copy_to_device)(to.address + offset as u64, from, bytes, self.raw)
        };
        self.device.check("hipMemcpyHtoDAsync", code)
    }

    /// Copies `bytes` from `from + offset` to the beginning of pinned memory, which is not read before the copy has run.
    pub fn download(&self, to: &Pinned, from: &Buffer, offset: usize, bytes: usize) -> Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > from.bytes) || bytes > to.bytes {
            return Err(Error::Internal(format!("a copy of {bytes} bytes from a buffer of {}", from.bytes)));
        }
        // SAFETY: both ranges were checked.
        let code = unsafe {
            (self.device.driver.table.copy_to_host)(to.start.cast(), from.address + offset as u64, bytes, self.raw)
        };
        self.device.check("hipMemcpyDtoHAsync", code)
    }

    /// Sets all bytes of `buffer`.
    pub fn fill(&self, buffer: &Buffer, value: u8) -> Result<()> {
        // SAFETY: the whole buffer.
        let code = unsafe { (self.device.driver.table.set_bytes)(buffer.address, value, buffer.bytes, self.raw) };
        self.device.check("hipMemsetD8Async", code)
    }

    /// Waits until everything in the queue has run.
    pub fn synchronize(&self) -> Result<()> {
        // SAFETY: a live stream.
        self.device.check("hipStreamSynchronize", unsafe { (self.device.driver.table.stream_synchronize)(self.raw) })
    }

    /// Marks this place in the queue.
    pub fn record(&self, event: &Event) -> Result<()> {
        // SAFETY: live objects.
        self.device.check("hipEventRecord", unsafe { (self.device.driver.table.event_record)(event.raw, self.raw) })?;
        event.recorded.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: made by the same driver. What uses our memory must have run before that is freed.
            unsafe {
                (self.device.driver.table.stream_synchronize)(self.raw);
                (self.device.driver.table.stream_destroy)(self.raw);
            }
        }
    }
}

/// A mark in a queue.
pub struct Event {
    device: Arc<Device>,
    raw: Object,
    recorded: AtomicBool,
}

// SAFETY: events may be used from any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// Waits until the queue has passed the mark, if it was ever set.
    pub fn synchronize(&self) -> Result<()> {
        if !self.recorded.load(Ordering::Relaxed) {
            return Ok(());
        }
        // SAFETY: a live event.
        self.device.check("hipEventSynchronize", unsafe { (self.device.driver.table.event_synchronize)(self.raw) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: made by the same driver.
            unsafe { (self.device.driver.table.event_destroy)(self.raw) };
        }
    }
}

/// Looks at every device of `driver`. Nothing is allocated; devices that cannot be used say why.
pub fn list(driver: &Driver, runnable: &dyn Fn(Vendor, &str) -> Option<String>) -> Result<Vec<DeviceInfo>, String> {
    let mut count: c_int = 0;
    // SAFETY: plain calls that write integers.
    let code = unsafe {
        match (driver.table.init)(0) {
            0 => (driver.table.device_count)(&mut count),
            code => code,
        }
    };
    match code {
        0 => Ok((0..count).filter_map(|ordinal| look(driver, ordinal, runnable)).collect()),
        // Both are ways of saying that there is none.
        driver::NO_DEVICE | driver::INVALID_DEVICE => Ok(Vec::new()),
        code => Err(driver.reason(code)),
    }
}

fn look(driver: &Driver, ordinal: c_int, runnable: &dyn Fn(Vendor, &str) -> Option<String>) -> Option<DeviceInfo> {
    let mut handle = 0;
    let mut memory = 0usize;
    let mut name = [0u8; 256];
    // SAFETY: plain calls; the name is written with its NUL within the length given.
    unsafe {
        if (driver.table.device_get)(&mut handle, ordinal) != 0 {
            return None;
        }
        (driver.table.device_memory)(&mut memory, handle);
        (driver.table.device_name)(name.as_mut_ptr().cast(), name.len() as c_int - 1, handle);
    }
    let name = name.split(|&b| b == 0).next().unwrap_or_default();
    let attribute = |a| driver.attribute(handle, a);
    let architecture = match driver.vendor {
        Vendor::Amd => driver.amd_architecture(ordinal).unwrap_or_default(),
        Vendor::Nvidia => format!("sm_{}{}", attribute(Attribute::Major), attribute(Attribute::Minor)),
    };
    let integrated = attribute(Attribute::Integrated) != 0;
    let unusable = match runnable(driver.vendor, &architecture) {
        Some(reason) => reason,
        None if integrated => "it is an integrated GPU, which is used only when it is asked for by its number".into(),
        None => String::new(),
    };
    Some(DeviceInfo {
        ordinal,
        vendor: driver.vendor,
        name: String::from_utf8_lossy(name).trim().to_string(),
        architecture,
        memory: memory as u64,
        free: 0,
        multiprocessors: attribute(Attribute::Multiprocessors).max(1) as u32,
        wave_size: attribute(Attribute::WaveSize).max(1) as u32,
        shared_memory: attribute(Attribute::SharedMemory).max(0) as u32,
        integrated,
        unusable,
    })
}
