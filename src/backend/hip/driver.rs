//! The driver, opened at run time: AMD's HIP runtime or NVIDIA's CUDA driver, whose functions that we need have the same
//! shapes. One table of function pointers serves both; nothing is linked.
//!
//! Sources: the HIP runtime API reference (`hip_runtime_api.h`, ROCm 5 to 7) and the CUDA driver API reference.

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::sync::Arc;

/// A device address.
pub type Address = u64;
/// A driver's object: stream, event, module, function, graph.
pub type Object = *mut c_void;
/// What a driver's function returns: 0 is success. HIP took CUDA's numbers.
pub type Code = c_int;

/// Memory could not be had.
pub const OUT_OF_MEMORY: Code = 2;
/// There is no device.
pub const NO_DEVICE: Code = 100;
/// `hipInit`'s way of saying that there is no device.
pub const INVALID_DEVICE: Code = 101;
/// The device cannot run the code object.
pub const NO_BINARY: Code = 209;
/// An event or stream has not completed.
pub const NOT_READY: Code = 600;
/// Faults after which a device answers every call of the process with an error.
const LOST: [Code; 11] = [700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 999];

/// Whether `code` says that the device is of no use any more.
pub fn is_lost(code: Code) -> bool {
    LOST.contains(&code)
}

/// Whose driver it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// AMD's HIP runtime, `libamdhip64.so`.
    Amd,
    /// NVIDIA's CUDA driver, `libcuda.so.1`.
    Nvidia,
}

impl Vendor {
    /// Names under which the driver may be found, the newest first.
    fn libraries(self) -> &'static [&'static str] {
        match self {
            Vendor::Amd => &["libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so"],
            Vendor::Nvidia => &["libcuda.so.1", "libcuda.so"],
        }
    }
}

/// An attribute of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attribute {
    /// Compute units, multiprocessors.
    Multiprocessors,
    /// Lanes of a wave.
    WaveSize,
    /// 1 if it shares the host's memory.
    Integrated,
    /// Shared memory of a block, with opt-in where the driver asks for one.
    SharedMemory,
    /// The first part of NVIDIA's compute capability.
    Major,
    /// The second part.
    Minor,
}

impl Attribute {
    fn number(self, vendor: Vendor) -> c_int {
        match (vendor, self) {
            (Vendor::Amd, Attribute::Multiprocessors) => 63,
            (Vendor::Amd, Attribute::WaveSize) => 87,
            (Vendor::Amd, Attribute::Integrated) => 16,
            (Vendor::Amd, Attribute::SharedMemory) => 74,
            (Vendor::Amd, Attribute::Major) => 23,
            (Vendor::Amd, Attribute::Minor) => 61,
            (Vendor::Nvidia, Attribute::Multiprocessors) => 16,
            (Vendor::Nvidia, Attribute::WaveSize) => 10,
            (Vendor::Nvidia, Attribute::Integrated) => 18,
            (Vendor::Nvidia, Attribute::SharedMemory) => 97,
            (Vendor::Nvidia, Attribute::Major) => 75,
            (Vendor::Nvidia, Attribute::Minor) => 76,
        }
    }
}

/// A dynamically opened library. It stays open as long as anything came from it.
pub struct Library(*mut c_void);

// SAFETY: handles of dlopen may be used from any thread.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library called `name`; the loader's own words if it cannot.
    pub fn open(name: &str) -> Result<Library, String> {
        let name = CString::new(name).map_err(|e| e.to_string())?;
        // SAFETY: a NUL-terminated name. RTLD_LOCAL keeps its symbols from the host's.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failed dlopen, dlerror returns NULL or a text that is valid until the next call.
            let text = unsafe { libc::dlerror() };
            if text.is_null() {
                return Err("it cannot be opened".into());
            }
            // SAFETY: as above.
            return Err(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned());
        }
        Ok(Library(handle))
    }

    /// The address of `symbol`, NULL if the library has none.
    pub fn symbol(&self, symbol: &str) -> *mut c_void {
        match CString::new(symbol) {
            // SAFETY: an open handle and a NUL-terminated name.
            Ok(name) => unsafe { libc::dlsym(self.0, name.as_ptr()) },
            Err(_) => std::ptr::null_mut(),
        }
    }
}

// Not closed: runtimes start threads and register handlers that outlive any use of ours, and unloading them crashes hosts.

macro_rules! driver_table {
    ($($(#[$doc:meta])* $field:ident: $hip:literal | $cuda:literal ($($arg:ty),*);)*) => {
        /// The functions that both drivers have, by HIP's meaning.
        #[allow(missing_docs)]
        pub struct Table { $($(#[$doc])* pub $field: unsafe extern "C" fn($($arg),*) -> Code,)* }

        impl Table {
            fn load(library: &Library, vendor: Vendor) -> Result<Table, String> {
                Ok(Table { $($field: {
                    let name = match vendor { Vendor::Amd => $hip, Vendor::Nvidia => $cuda };
                    let address = library.symbol(name);
                    if address.is_null() {
                        return Err(format!("it has no function {name}"));
                    }
                    // SAFETY: the documented type of this function in both drivers.
                    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) -> Code>(address) }
                },)* })
            }
        }

        /// The names of the functions in HIP, in the table's order.
        pub const HIP_FUNCTIONS: &[&str] = &[$($hip),*];
    };
}

driver_table! {
    init: "hipInit" | "cuInit" (c_uint);
    driver_version: "hipDriverGetVersion" | "cuDriverGetVersion" (*mut c_int);
    device_count: "hipGetDeviceCount" | "cuDeviceGetCount" (*mut c_int);
    device_get: "hipDeviceGet" | "cuDeviceGet" (*mut c_int, c_int);
    device_name: "hipDeviceGetName" | "cuDeviceGetName" (*mut c_char, c_int, c_int);
    device_memory: "hipDeviceTotalMem" | "cuDeviceTotalMem_v2" (*mut usize, c_int);
    device_attribute: "hipDeviceGetAttribute" | "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
    memory_info: "hipMemGetInfo" | "cuMemGetInfo_v2" (*mut usize, *mut usize);
    malloc: "hipMalloc" | "cuMemAlloc_v2" (*mut Address, usize);
    free: "hipFree" | "cuMemFree_v2" (Address);
    host_malloc: "hipHostMalloc" | "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
    host_free: "hipHostFree" | "cuMemFreeHost" (*mut c_void);
    copy_to_device: "hipMemcpyHtoDAsync" | "cuMemcpyHtoDAsync_v2" (Address, *const c_void, usize, Object);
    copy_to_host: "hipMemcpyDtoHAsync" | "cuMemcpyDtoHAsync_v2" (*mut c_void, Address, usize, Object);
    set_bytes: "hipMemsetD8Async" | "cuMemsetD8Async" (Address, u8, usize, Object);
    stream_create: "hipStreamCreateWithFlags" | "cuStreamCreate" (*mut Object, c_uint);
    stream_destroy: "hipStreamDestroy" | "cuStreamDestroy_v2" (Object);
    stream_synchronize: "hipStreamSynchronize" | "cuStreamSynchronize" (Object);
    event_create: "hipEventCreateWithFlags" | "cuEventCreate" (*mut Object, c_uint);
    event_record: "hipEventRecord" | "cuEventRecord" (Object, Object);
    event_synchronize: "hipEventSynchronize" | "cuEventSynchronize" (Object);
    event_destroy: "hipEventDestroy" | "cuEventDestroy_v2" (Object);
    module_load: "hipModuleLoadData" | "cuModuleLoadData" (*mut Object, *const c_void);
    module_unload: "hipModuleUnload" | "cuModuleUnload" (Object);
    module_function: "hipModuleGetFunction" | "cuModuleGetFunction" (*mut Object, Object, *const c_char);
    function_attribute: "hipFuncGetAttribute" | "cuFuncGetAttribute" (*mut c_int, c_int, Object);
    launch: "hipModuleLaunchKernel" | "cuLaunchKernel"
        (Object, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Object, *mut *mut c_void, *mut *mut c_void);
    capture_begin: "hipStreamBeginCapture" | "cuStreamBeginCapture_v2" (Object, c_int);
    capture_end: "hipStreamEndCapture" | "cuStreamEndCapture" (Object, *mut Object);
    graph_instantiate: "hipGraphInstantiateWithFlags" | "cuGraphInstantiateWithFlags" (*mut Object, Object, u64);
    graph_launch: "hipGraphLaunch" | "cuGraphLaunch" (Object, Object);
    graph_exec_destroy: "hipGraphExecDestroy" | "cuGraphExecDestroy" (Object);
    graph_destroy: "hipGraphDestroy" | "cuGraphDestroy" (Object);
}

/// How a thread is bound to a device, which the vendors do differently.
#[derive(Clone, Copy)]
enum Binding {
    Amd {
        get_device: unsafe extern "C" fn(*mut c_int) -> Code,
        set_device: unsafe extern "C" fn(c_int) -> Code,
    },
    Nvidia {
        retain: unsafe extern "C" fn(*mut Object, c_int) -> Code,
        release: unsafe extern "C" fn(c_int) -> Code,
        push: unsafe extern "C" fn(Object) -> Code,
        pop: unsafe extern "C" fn(*mut Object) -> Code,
    },
}

/// `CUlaunchConfig`.
#[repr(C)]
struct LaunchConfig {
    grid: [c_uint; 3],
    block: [c_uint; 3],
    shared: c_uint,
    stream: Object,
    attributes: *mut LaunchAttribute,
    count: c_uint,
}

/// `CUlaunchAttribute`: a number, padding to 8 bytes, a union of 64 bytes.
#[repr(C, align(8))]
struct LaunchAttribute {
    id: c_uint,
    pad: c_uint,
    value: [c_int; 16],
}

/// `CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION`.
const PROGRAMMATIC_SERIALIZATION: c_uint = 6;
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const MAX_DYNAMIC_SHARED: c_int = 8;

type LaunchEx = unsafe extern "C" fn(*const LaunchConfig, Object, *mut *mut c_void, *mut *mut c_void) -> Code;
type SetFunctionAttribute = unsafe extern "C" fn(Object, c_int, c_int) -> Code;

/// An opened driver.
pub struct Driver {
    /// Whose it is.
    pub vendor: Vendor,
    /// Its functions.
    pub table: Table,
    /// The name under which it was found.
    pub library_name: String,
    binding: Binding,
    launch_ex: Option<LaunchEx>,
    set_function_attribute: Option<SetFunctionAttribute>,
    library: Library,
}

/// A grid, its blocks, and what a launch needs besides arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Driver {
    /// Opens the driver of `vendor`, or says why not. `path` (`ROCMFORGE_HIP_LIBRARY`) replaces the usual names.
    pub fn open(vendor: Vendor, path: Option<&str>) -> Result<Arc<Driver>, String> {
        let names: Vec<&str> = path.map_or_else(|| vendor.libraries().to_vec(), |path| vec![path]);
        let mut reason = String::new();
        for name in names {
            match Library::open(name) {
                Ok(library) => return Driver::load(vendor, library, name).map_err(|why| format!("{name}: {why}")),
                Err(why) => reason = why,
            }
        }
        Err(reason)
    }

    fn load(vendor: Vendor, library: Library, name: &str) -> Result<Arc<Driver>, String> {
        let table = Table::load(&library, vendor)?;
        let need = |symbol: &str| match library.symbol(symbol) {
            address if address.is_null() => Err(format!("it has no function {symbol}")),
            address => Ok(address),
        };
        // SAFETY: the documented types of these functions.
        let (binding, launch_ex, set_function_attribute) = unsafe {
            use std::mem::transmute;
            match vendor {
                Vendor::Amd => (
                    Binding::Amd {
                        get_device: transmute::<*mut c_void, unsafe extern "C" fn(*mut c_int) -> Code>(need(
                            "hipGetDevice",
                        )?),
                        set_device: transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> Code>(need(
                            "hipSetDevice",
                        )?),
                    },
                    None,
                    None,
                ),
                Vendor::Nvidia => (
                    Binding::Nvidia {
                        retain: transmute::<*mut c_void, unsafe extern "C" fn(*mut Object, c_int) -> Code>(need(
                            "cuDevicePrimaryCtxRetain",
                        )?),
                        release: transmute::<*mut c_void, unsafe extern "C" fn(c_int) -> Code>(need(
                            "cuDevicePrimaryCtxRelease_v2",
                        )?),
                        push: transmute::<*mut c_void, unsafe extern "C" fn(Object) -> Code>(need(
                            "cuCtxPushCurrent_v2",
                        )?),
                        pop: transmute::<*mut c_void, unsafe extern "C" fn(*mut Object) -> Code>(need(
                            "cuCtxPopCurrent_v2",
                        )?),
                    },
                    transmute::<*mut c_void, Option<LaunchEx>>(library.symbol("cuLaunchKernelEx")),
                    transmute::<*mut c_void, Option<SetFunctionAttribute>>(library.symbol("cuFuncSetAttribute")),
                ),
            }
        };
        Ok(Arc::new(Driver {
            vendor,
            table,
            library_name: name.to_string(),
            binding,
            launch_ex,
            set_function_attribute,
            library,
        }))
    }

    /// What the driver calls an error code.
    pub fn reason(&self, code: Code) -> String {
        let text = match self.vendor {
            Vendor::Amd => {
                let address = self.library.symbol("hipGetErrorString");
                if address.is_null() {
                    return format!("error {code}");
                }
                // SAFETY: hipGetErrorString returns a static text for every code.
                unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Code) -> *const c_char>(address)(code)
                }
            }
            Vendor::Nvidia => {
                let address = self.library.symbol("cuGetErrorString");
                if address.is_null() {
                    return format!("error {code}");
                }
                let mut text = std::ptr::null();
                // SAFETY: cuGetErrorString writes a static text, or NULL for an unknown code.
                unsafe {
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Code, *mut *const c_char) -> Code>(address)(
                        code, &mut text,
                    )
                };
                text
            }
        };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: a static NUL-terminated text.
        format!("{} ({code})", unsafe { CStr::from_ptr(text) }.to_string_lossy())
    }

    /// The value of an attribute; 0 if the driver does not know it.
    pub fn attribute(&self, device: c_int, attribute: Attribute) -> i32 {
        let mut value = 0;
        // SAFETY: writes an integer.
        let code = unsafe { (self.table.device_attribute)(&mut value, attribute.number(self.vendor), device) };
        if code == 0 { value } else { 0 }
    }

    /// AMD's name of the architecture (such as "gfx1100"), from the properties, whose layout differs between releases:
    /// the name is looked for and not its offset. Target features that follow a colon are cut.
    pub fn amd_architecture(&self, ordinal: c_int) -> Option<String> {
        /// More than any release's structure has; the name of the device takes the first 256 bytes.
        const BYTES: usize = 4096;
        const NAME: usize = 256;
        let symbols = ["hipGetDevicePropertiesR0600", "hipGetDeviceProperties"];
        let address = symbols.iter().map(|name| self.library.symbol(name)).find(|address| !address.is_null())?;
        let mut properties = [0u64; BYTES / 8];
        // SAFETY: it fills a structure that is smaller than the buffer.
        let code = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut c_void, c_int) -> Code>(address)(
                properties.as_mut_ptr().cast(),
                ordinal,
            )
        };
        if code != 0 {
            return None;
        }
        let bytes: &[u8] = bytemuck::cast_slice(&properties);
        let at = NAME + bytes.get(NAME..)?.windows(3).position(|w| w == b"gfx")?;
        let name = bytes.get(at..)?.iter().take_while(|b| b.is_ascii_alphanumeric()).map(|&b| b as char);
        Some(name.collect())
    }

    /// Makes `ordinal` usable: NVIDIA's primary context is retained. Returns what [`Driver::enter`] needs.
    pub(super) fn retain(&self, ordinal: c_int) -> Result<Object, Code> {
        match self.binding {
            Binding::Amd { .. } => Ok(std::ptr::null_mut()),
            Binding::Nvidia { retain, .. } => {
                let mut context = std::ptr::null_mut();
                // SAFETY: writes a context.
                match unsafe { retain(&mut context, ordinal) } {
                    0 => Ok(context),
                    code => Err(code),
                }
            }
        }
    }

    /// Undoes [`Driver::retain`].
    pub(super) fn release(&self, ordinal: c_int) {
        if let Binding::Nvidia { release, .. } = self.binding {
            // SAFETY: retained before.
            unsafe { release(ordinal) };
        }
    }

    /// Binds the calling thread to a device; returns the device that it was bound to, for [`Driver::leave`].
    pub(super) fn enter(&self, ordinal: c_int, context: Object) -> Result<c_int, Code> {
        // SAFETY: plain calls; the context was retained.
        unsafe {
            match self.binding {
                Binding::Amd { get_device, set_device } => {
                    let mut before = 0;
                    if get_device(&mut before) != 0 {
                        before = ordinal;
                    }
                    match set_device(ordinal) {
                        0 => Ok(before),
                        code => Err(code),
                    }
                }
                Binding::Nvidia { push, .. } => match push(context) {
                    0 => Ok(0),
                    code => Err(code),
                },
            }
        }
    }

    /// Binds the calling thread to what it was bound to before: the host may use the same driver.
    pub(super) fn leave(&self, ordinal: c_int, before: c_int) {
        // SAFETY: plain calls.
        unsafe {
            match self.binding {
                Binding::Amd { set_device, .. } => {
                    if before != ordinal {
                        set_device(before);
                    }
                }
                Binding::Nvidia { pop, .. } => {
                    let mut context = std::ptr::null_mut();
                    pop(&mut context);
                }
            }
        }
    }

    /// Allows a kernel more dynamic shared memory than drivers grant unasked.
    pub(super) fn allow_shared(&self, function: Object, bytes: u32) -> Code {
        match self.set_function_attribute {
            // SAFETY: a function of a loaded module.
            Some(set) => unsafe { set(function, MAX_DYNAMIC_SHARED, bytes as c_int) },
            None => 0,
        }
    }

    /// Launches `function` with one argument at `argument`, which is copied before this returns. With `dependent` the
    /// kernel may begin before its predecessor in the stream has ended, where the driver can do that.
    ///
    /// # Safety
    /// `function` takes one structure by value, of which `argument` is one, and its addresses are valid on the device.
    pub(super) unsafe fn launch(
        &self,
        function: Object,
        shape: &Shape,
        stream: Object,
        argument: *const u8,
        dependent: bool,
    ) -> Code {
        let mut parameters = [argument.cast_mut().cast::<c_void>()];
        let [x, y, z] = shape.grid;
        // SAFETY: as the caller promises.
        unsafe {
            match self.launch_ex.filter(|_| dependent) {
                Some(launch) => {
                    let mut value = [0; 16];
                    value[0] = 1;
                    let mut attribute = LaunchAttribute { id: PROGRAMMATIC_SERIALIZATION, pad: 0, value };
                    let config = LaunchConfig {
                        grid: shape.grid,
                        block: [shape.threads, 1, 1],
                        shared: shape.shared,
                        stream,
                        attributes: &mut attribute,
                        count: 1,
                    };
                    launch(&config, function, parameters.as_mut_ptr(), std::ptr::null_mut())
                }
                None => (self.table.launch)(
                    function,
                    x,
                    y,
                    z,
                    shape.threads,
                    1,
                    1,
                    shape.shared,
                    stream,
                    parameters.as_mut_ptr(),
                    std::ptr::null_mut(),
                ),
            }
        }
    }
}
