//! Code objects: the one that is embedded for a device's architecture, or one compiled at run time from the embedded
//! sources; and its kernels by name.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, c_int, c_void};
use std::sync::Arc;

use parking_lot::Mutex;

use super::device::{Device, Stream};
use super::driver::{self, Object, Shape, Vendor};
use super::rtc;
use crate::error::{Error, Result};

include!(concat!(env!("OUT_DIR"), "/code_objects.rs"));

/// A kernel of a loaded module, with an argument structure of type `A`.
pub struct Kernel<A> {
    function: Object,
    /// Its name, for messages.
    pub name: Arc<str>,
    argument: std::marker::PhantomData<fn(A)>,
}

impl<A> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        Kernel { function: self.function, name: self.name.clone(), argument: self.argument }
    }
}

// SAFETY: a driver's function handle, usable from any thread; the module outlives it by [`Module`]'s contract.
unsafe impl<A> Send for Kernel<A> {}
// SAFETY: as above.
unsafe impl<A> Sync for Kernel<A> {}

/// A launch that is ready to be sent: which kernel, its shape, its argument.
#[derive(Clone, PartialEq)]
pub struct Launch {
    function: usize,
    name: Arc<str>,
    shape: Shape,
    argument: Vec<u8>,
}

impl<A: bytemuck::NoUninit> Kernel<A> {
    /// A launch of this kernel.
    pub fn launch(&self, grid: [u32; 3], threads: u32, shared: u32, argument: &A) -> Launch {
        Launch {
            function: self.function as usize,
            name: self.name.clone(),
            shape: Shape { grid, threads, shared },
            argument: bytemuck::bytes_of(argument).to_vec(),
        }
    }
}

impl Launch {
    /// Sends it to `stream`, whose device the thread has entered.
    pub fn send(&self, device: &Device, stream: &Stream) -> Result<()> {
        // SAFETY: `Kernel<A>` ties the function to the type of its argument.
        let code = unsafe {
            device.driver.launch(self.function as Object, &self.shape, stream.raw(), self.argument.as_ptr(), true)
        };
        match code {
            0 => Ok(()),
            code => match device.error("hipModuleLaunchKernel", code) {
                Error::Device { device, call, reason, lost } => {
                    Err(Error::Device { device, call, reason: format!("kernel {}: {reason}", self.name), lost })
                }
                other => Err(other),
            },
        }
    }
}

/// The loaded code object of one device. Kernels must not be used after it is dropped: whoever keeps them keeps it.
pub struct Module {
    device: Arc<Device>,
    raw: Object,
    functions: Mutex<HashMap<String, Option<usize>>>,
    /// Where the code came from, for the log.
    pub origin: String,
}

// SAFETY: module handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above; the cache is locked.
unsafe impl Sync for Module {}

/// The code object that is embedded for `architecture`.
fn embedded(architecture: &str) -> Option<&'static [u8]> {
    CODE_OBJECTS.iter().find(|(name, _)| *name == architecture).map(|(_, code)| *code)
}

/// Why nothing here runs on `architecture`; `None` if something does.
pub fn why_not(vendor: Vendor, architecture: &str) -> Option<String> {
    if embedded(architecture).is_some() {
        return None;
    }
    let built: Vec<_> = CODE_OBJECTS.iter().map(|(name, _)| *name).collect();
    let built = if built.is_empty() { "none".to_string() } else { built.join(", ") };
    match rtc::Compiler::open(vendor) {
        Ok(_) => None,
        Err(reason) => Some(format!(
            "this library has no code for {architecture} (it has: {built}) and cannot compile it here: {reason}"
        )),
    }
}

/// A code object that was compiled in this process, and by whom.
type Compiled = Arc<(Vec<u8>, String)>;

/// The code for `device`, compiled now or before: it takes half a minute.
fn compiled(device: &Device) -> Result<Compiled> {
    static KEPT: Mutex<BTreeMap<String, Compiled>> = Mutex::new(BTreeMap::new());
    let architecture = &device.info.architecture;
    let refused = |what: String| Error::unsupported(&device.info.name, what);
    // Held while compiling: whoever asks meanwhile wants the same.
    let mut kept = KEPT.lock();
    if let Some(code) = kept.get(architecture) {
        return Ok(code.clone());
    }
    let compiler = rtc::Compiler::open(device.info.vendor)
        .map_err(|reason| refused(format!("no code for {architecture} is embedded: {reason}")))?;
    let code = compiler
        .compile(KERNEL_SOURCES, KERNEL_DEFINES, architecture)
        .map_err(|reason| refused(format!("compiling for {architecture}: {reason}")))?;
    let code = Arc::new((code, compiler.name));
    kept.insert(architecture.clone(), code.clone());
    Ok(code)
}

impl Module {
    /// Loads what is there for `device`.
    pub fn load(device: &Arc<Device>) -> Result<Arc<Module>> {
        let architecture = &device.info.architecture;
        let (code, origin) = match embedded(architecture) {
            Some(code) => (Cow::Borrowed(code), format!("embedded code for {architecture}")),
            None => {
                let compiled = compiled(device)?;
                (Cow::Owned(compiled.0.clone()), format!("code compiled for {architecture} by {}", compiled.1))
            }
        };
        let _entered = device.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: a whole code object.
        let loaded = unsafe { (device.driver.table.module_load)(&mut raw, code.as_ptr().cast::<c_void>()) };
        match loaded {
            0 => Ok(Arc::new(Module { device: device.clone(), raw, functions: Mutex::new(HashMap::new()), origin })),
            driver::OUT_OF_MEMORY => Err(Error::DeviceMemory {
                device: device.info.name.clone(),
                what: "the kernels".into(),
                needed: code.len() as u64,
                free: device.free_memory().unwrap_or(0),
            }),
            driver::NO_BINARY => Err(Error::unsupported(
                &device.info.name,
                format!("the driver does not accept the {origin}: {}", device.driver.reason(loaded)),
            )),
            code => Err(device.error("hipModuleLoadData", code)),
        }
    }

    /// The kernel called `name`, if the module has it.
    pub fn find<A>(&self, name: &str) -> Result<Option<Kernel<A>>> {
        let mut functions = self.functions.lock();
        if !functions.contains_key(name) {
            let found = self.function(name)?;
            functions.insert(name.to_string(), found);
        }
        let function = functions.get(name).copied().flatten();
        Ok(function.map(|function| Kernel {
            function: function as Object,
            name: name.into(),
            argument: std::marker::PhantomData,
        }))
    }

    /// The kernel called `name`.
    pub fn kernel<A>(&self, name: &str) -> Result<Kernel<A>> {
        self.find(name)?.ok_or_else(|| Error::Internal(format!("there is no kernel {name} in the {}", self.origin)))
    }

    fn function(&self, name: &str) -> Result<Option<usize>> {
        /// The driver's code for a name that the module does not have.
        const NOT_FOUND: c_int = 500;
        let symbol = CString::new(name).map_err(|_| Error::Internal(format!("kernel {name:?}")))?;
        let _entered = self.device.enter()?;
        let mut function = std::ptr::null_mut();
        // SAFETY: a live module and a NUL-terminated name.
        match unsafe { (self.device.driver.table.module_function)(&mut function, self.raw, symbol.as_ptr()) } {
            0 => {}
            NOT_FOUND => return Ok(None),
            code => return Err(self.device.error("hipModuleGetFunction", code)),
        }
        // As much shared memory as a block may have: which launch needs how much depends on the model.
        let shared = self.device.info.shared_memory.saturating_sub(self.static_shared(function));
        self.device.check("cuFuncSetAttribute", self.device.driver.allow_shared(function, shared))?;
        Ok(Some(function as usize))
    }

    /// Bytes of shared memory that a kernel has of its own.
    fn static_shared(&self, function: Object) -> u32 {
        /// `HIP_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES` and CUDA's.
        const SHARED_SIZE: c_int = 1;
        let mut bytes = 0;
        // SAFETY: writes an integer.
        let code = unsafe { (self.device.driver.table.function_attribute)(&mut bytes, SHARED_SIZE, function) };
        if code == 0 { bytes.max(0) as u32 } else { 0 }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(_entered) = self.device.enter() {
            // SAFETY: loaded by the same driver.
            unsafe { (self.device.driver.table.module_unload)(self.raw) };
        }
    }
}
