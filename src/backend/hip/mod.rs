//! The GPU backend: AMD's devices through HIP, NVIDIA's through CUDA's driver, by the same kernels.
//!
//! [`driver`] opens the driver at run time, [`device`] owns what lives on a device, [`module`] its code, [`weights`]
//! brings matrices there in the layout of [`planes`], [`work`] holds a step's activations, [`plan`] replays steps, and
//! `ops` is the verbs. What [`devices`] lists, [`HipBackend`] runs on.

pub mod args;
pub mod device;
pub mod driver;
pub mod module;
mod ops;
mod pages;
mod plan;
pub mod planes;
mod rtc;
#[cfg(test)]
mod tests;
mod tuning;
mod weights;
mod work;

use std::sync::Arc;

use args::{AttendArgs, GateUpArgs, NormAddArgs, NormQuantizeArgs, RopeAppendArgs};
use device::{Device, DeviceInfo};
use driver::{Driver, Vendor};
use module::{Kernel, Module};
use pages::PagePool;
use tuning::Tuning;
use weights::Uploader;
pub use weights::is_quantized;

use crate::backend::cpu::pool::Pool;
use crate::error::Result;

/// A device that was found, and the driver that found it.
#[derive(Clone)]
pub struct Found {
    /// What it is, and whether it can be used.
    pub info: DeviceInfo,
    driver: Option<Arc<Driver>>,
}

/// The driver's path, where it is not under one of its usual names.
const LIBRARY: &str = "ROCMFORGE_HIP_LIBRARY";

/// All GPUs of this machine, AMD's first. Drivers are opened, no memory is taken; a machine without drivers or devices
/// has none. A driver that is there and fails is listed as a device that cannot be used, with its reason.
pub fn devices() -> Vec<Found> {
    let path = std::env::var(LIBRARY).ok();
    let mut found = Vec::new();
    for vendor in [Vendor::Amd, Vendor::Nvidia] {
        let path = path.as_deref().filter(|_| vendor == Vendor::Amd);
        let Ok(driver) = Driver::open(vendor, path) else { continue };
        match device::list(&driver, &module::why_not) {
            Ok(infos) => {
                found.extend(infos.into_iter().map(|info| Found { info, driver: Some(driver.clone()) }));
            }
            Err(reason) => found.push(Found { info: broken(&driver, reason), driver: None }),
        }
    }
    found
}

/// The entry for a driver that does not work.
fn broken(driver: &Driver, reason: String) -> DeviceInfo {
    DeviceInfo {
        ordinal: -1,
        vendor: driver.vendor,
        name: driver.library_name.clone(),
        architecture: String::new(),
        memory: 0,
        free: 0,
        multiprocessors: 0,
        wave_size: 0,
        shared_memory: 0,
        integrated: false,
        unusable: format!("the driver does not start: {reason}"),
    }
}

impl Found {
    /// Begins to use the device.
    pub fn open(&self) -> Result<Arc<Device>> {
        match &self.driver {
            Some(driver) => Device::open(driver, &self.info),
            None => Err(crate::Error::unsupported(&self.info.name, &self.info.unusable)),
        }
    }
}

/// Kernels that do not depend on a weight format.
struct Kernels {
    norm_quantize: Kernel<NormQuantizeArgs>,
    norm_add: Kernel<NormAddArgs>,
    gate_up: Kernel<GateUpArgs>,
    /// For a cache of f16 and one of f32.
    rope_append: [Kernel<RopeAppendArgs>; 2],
    attend_decode: [Kernel<AttendArgs>; 2],
    attend_prefill: [Kernel<AttendArgs>; 2],
}

/// A kernel for a cache of f16, and one for a cache of f32.
fn both<A>(kernel: &dyn Fn(bool) -> Result<Kernel<A>>) -> Result<[Kernel<A>; 2]> {
    Ok([kernel(false)?, kernel(true)?])
}

impl Kernels {
    fn rope_append(&self, f32_cache: bool) -> &Kernel<RopeAppendArgs> {
        let [f16, f32] = &self.rope_append;
        if f32_cache { f32 } else { f16 }
    }

    fn attend_decode(&self, f32_cache: bool) -> &Kernel<AttendArgs> {
        let [f16, f32] = &self.attend_decode;
        if f32_cache { f32 } else { f16 }
    }

    fn attend_prefill(&self, f32_cache: bool) -> &Kernel<AttendArgs> {
        let [f16, f32] = &self.attend_prefill;
        if f32_cache { f32 } else { f16 }
    }
}

/// Weights in a device's memory, verbs on its compute units.
pub struct HipBackend {
    device: Arc<Device>,
    module: Arc<Module>,
    kernels: Kernels,
    tuning: Tuning,
    pages: Arc<PagePool>,
    uploader: Uploader,
}

impl HipBackend {
    /// A backend on `device` for networks whose heads have `head_dim` elements, `group` of which share keys and values;
    /// `pool` rearranges weights at load.
    pub fn new(device: &Arc<Device>, head_dim: usize, group: usize, pool: &Arc<Pool>) -> Result<HipBackend> {
        if head_dim > tuning::MAX_HEAD || !head_dim.is_multiple_of(8) {
            return Err(crate::Error::unsupported(
                &device.info.name,
                format!("heads of {head_dim} elements; up to {} are served, in eights", tuning::MAX_HEAD),
            ));
        }
        let module = Module::load(device)?;
        let tuning = Tuning::of(&device.info);
        let kernels = Kernels {
            norm_quantize: module.kernel("norm_quantize")?,
            norm_add: module.kernel("norm_add")?,
            gate_up: module.kernel("gate_up")?,
            rope_append: both(&|f32_cache| module.kernel(&tuning::by_cache("rope_append", f32_cache)))?,
            attend_decode: both(&|f32_cache| module.kernel(&tuning::attend_decode_kernel(f32_cache, head_dim, group)))?,
            attend_prefill: both(&|f32_cache| module.kernel(&tuning::attend_prefill_kernel(f32_cache, head_dim)))?,
        };
        Ok(HipBackend {
            uploader: Uploader::new(device, &module, pool),
            pages: PagePool::new(device),
            device: device.clone(),
            module,
            kernels,
            tuning,
        })
    }

    /// The device.
    pub fn device(&self) -> &Arc<Device> {
        &self.device
    }

    /// Where its code came from.
    pub fn origin(&self) -> &str {
        &self.module.origin
    }
}
