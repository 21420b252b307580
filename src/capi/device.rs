//! GPUs: what is there, and what a model would take of them.

use std::ffi::CString;
use std::path::Path;

use super::guard::{Tagged, fence, handle, text, total, write_tagged};
use super::*;
use crate::backend::hip::device::DeviceInfo;
use crate::backend::hip::driver::Vendor;
use crate::error::Error;

/// `rf_device_info.vendor`: AMD, through HIP.
pub const RF_VENDOR_AMD: u32 = 1;
/// `rf_device_info.vendor`: NVIDIA, through CUDA's driver.
pub const RF_VENDOR_NVIDIA: u32 = 2;

/// What a GPU is. Begin with `RF_DEVICE_INFO_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_device_info {
    /// `sizeof(rf_device_info)`.
    pub struct_size: u32,
    /// `RF_VENDOR_…`.
    pub vendor: u32,
    /// The maker's name for it. The engine's.
    pub name: *const c_char,
    /// Its architecture, such as "gfx1100". The engine's.
    pub architecture: *const c_char,
    /// Bytes of its memory.
    pub memory: u64,
    /// 1 if models may be put on it.
    pub usable: u32,
    /// 1 if it shares the host's memory; such a GPU is used only if it is asked for by its number.
    pub integrated: u32,
    /// Why it is not usable: a sentence; empty if it is. The engine's.
    pub reason: *const c_char,
    /// Compute units.
    pub multiprocessors: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_device_info {
    const NAME: &'static str = "rf_device_info";
}

/// What a model would take. Begin with `RF_MEMORY_ESTIMATE_INIT`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_memory_estimate {
    /// `sizeof(rf_memory_estimate)`.
    pub struct_size: u32,
    /// Layers that would be on GPUs.
    pub gpu_layers: u32,
    /// Bytes of weights in the host's memory.
    pub host_bytes: u64,
    /// Bytes of weights on GPUs, all together.
    pub device_bytes: u64,
    /// Bytes of the key-value cache of one token, in all places together.
    pub kv_bytes_per_token: u64,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_memory_estimate {
    const NAME: &'static str = "rf_memory_estimate";
}

/// The texts of a device, as C wants them.
pub(super) struct DeviceTexts {
    name: CString,
    architecture: CString,
    reason: CString,
}

impl DeviceTexts {
    pub(super) fn of(info: &DeviceInfo) -> DeviceTexts {
        // Neither the drivers' texts nor ours hold a NUL.
        let text = |s: &str| CString::new(s.replace('\0', " ")).unwrap_or_default();
        DeviceTexts { name: text(&info.name), architecture: text(&info.architecture), reason: text(&info.unusable) }
    }
}

/// GPUs of this machine, usable or not; 0 for NULL, and where `rf_engine_options.gpus` is "none". The drivers are opened
/// when this is first asked, or the first model is loaded.
///
/// Ownership: `engine` stays the caller's.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_device_count(engine: *const rf_engine) -> u32 {
    // SAFETY: NULL or an engine of this library.
    total(0, || unsafe { engine.as_ref() }.map_or(0, |e| e.0.devices().count() as u32))
}

/// Writes what GPU `index` is to `*info`, and why it is not usable if it is not.
///
/// Ownership: `info` stays the caller's; its `struct_size` must be set (`RF_DEVICE_INFO_INIT`). Its texts are the
///     engine's, until that is freed.
/// Threads: any.
/// Errors: `RF_E_ARGUMENT` (there is no such device).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_device_info(
    engine: *const rf_engine,
    index: u32,
    info: *mut rf_device_info,
    err: *mut *mut rf_error,
) -> rf_status {
    fence(err, || {
        // SAFETY: pointers as the comment above demands.
        let engine = unsafe { handle(engine, "engine") }?;
        let texts = engine.1.get_or_init(|| engine.0.devices().map(DeviceTexts::of).collect());
        let (device, texts) = match (engine.0.devices().nth(index as usize), texts.get(index as usize)) {
            (Some(device), Some(texts)) => (device, texts),
            _ => return Err(Error::argument(format!("there is no GPU {index}; there are {}", texts.len()))),
        };
        let value = rf_device_info {
            struct_size: 0,
            vendor: match device.vendor {
                Vendor::Amd => RF_VENDOR_AMD,
                Vendor::Nvidia => RF_VENDOR_NVIDIA,
            },
            name: texts.name.as_ptr(),
            architecture: texts.architecture.as_ptr(),
            memory: device.memory,
            usable: u32::from(device.unusable.is_empty()),
            integrated: u32::from(device.integrated),
            reason: texts.reason.as_ptr(),
            multiprocessors: device.multiprocessors,
            reserved: 0,
        };
        // SAFETY: as the comment above demands.
        unsafe { write_tagged(info, value) }?;
        Ok(RF_OK)
    })
}

/// Writes to `*estimate` what the model at `path` would take if it were loaded now with `gpu_layers` (as in
/// `rf_model_options`). Only the file's directory is read.
///
/// Ownership: `path` and `estimate` stay the caller's; its `struct_size` must be set (`RF_MEMORY_ESTIMATE_INIT`).
/// Threads: any.
/// Errors: as `rf_model_load`.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_estimate(
    engine: *const rf_engine,
    path: *const c_char,
    path_len: usize,
    gpu_layers: i32,
    estimate: *mut rf_memory_estimate,
    err: *mut *mut rf_error,
) -> rf_status {
    fence(err, || {
        // SAFETY: pointers as the comment above demands.
        let (engine, path) = unsafe { (handle(engine, "engine")?, text(path, path_len, "path")?) };
        let found = engine.0.estimate(Path::new(path), gpu_layers_of(gpu_layers))?;
        let value = rf_memory_estimate {
            struct_size: 0,
            gpu_layers: found.gpu_layers as u32,
            host_bytes: found.host_bytes,
            device_bytes: found.device_bytes,
            kv_bytes_per_token: found.kv_bytes_per_token,
        };
        // SAFETY: as the comment above demands.
        unsafe { write_tagged(estimate, value) }?;
        Ok(RF_OK)
    })
}

/// `rf_model_options.gpu_layers` in Rust's form.
pub(super) fn gpu_layers_of(value: i32) -> Option<usize> {
    match value {
        0 => None,
        n => Some(usize::try_from(n).unwrap_or(0)),
    }
}
