//! Devices and their properties.

use std::ffi::{c_char, c_int, c_uint};

use super::error::{Code, INVALID_DEVICE, INVALID_VALUE, NO_DEVICE};
use super::state::{Runtime, put};
use crate::entries;

/// The emulated card: what a mid-range RDNA3 card reports.
pub const COMPUTE_UNITS: i32 = 48;
pub const LDS_PER_BLOCK: u32 = 64 << 10;
pub const MAX_THREADS: u32 = 1024;
/// Waves that one compute unit holds.
const WAVES_PER_UNIT: i32 = 32;
const CLOCK_KHZ: i32 = 2_124_000;
/// HIP 6.2.
const VERSION: c_int = 60_200_000;
const NAME: &str = "rocmforge emulated ";

/// Offsets of `hipDeviceProp_tR0600`, which has many more fields; the others are 0.
mod property {
    pub const SIZE: usize = 1472;
    pub const NAME: usize = 0;
    pub const TOTAL_GLOBAL_MEM: usize = 288;
    pub const SHARED_MEM_PER_BLOCK: usize = 296;
    pub const REGS_PER_BLOCK: usize = 304;
    pub const WARP_SIZE: usize = 308;
    pub const MAX_THREADS_PER_BLOCK: usize = 320;
    pub const MAX_THREADS_DIM: usize = 324;
    pub const MAX_GRID_SIZE: usize = 336;
    pub const CLOCK_RATE: usize = 348;
    pub const TOTAL_CONST_MEM: usize = 352;
    pub const MAJOR: usize = 360;
    pub const MINOR: usize = 364;
    pub const MULTI_PROCESSOR_COUNT: usize = 388;
    pub const INTEGRATED: usize = 396;
    pub const CAN_MAP_HOST_MEMORY: usize = 400;
    pub const CONCURRENT_KERNELS: usize = 576;
    pub const MEMORY_CLOCK_RATE: usize = 608;
    pub const MEMORY_BUS_WIDTH: usize = 612;
    pub const L2_CACHE_SIZE: usize = 616;
    pub const MAX_THREADS_PER_MULTI_PROCESSOR: usize = 624;
    pub const SHARED_MEM_PER_MULTIPROCESSOR: usize = 640;
    pub const COOPERATIVE_LAUNCH: usize = 688;
    pub const SHARED_MEM_PER_BLOCK_OPTIN: usize = 696;
    pub const GCN_ARCH_NAME: usize = 1160;
}

/// `gfx1100` is 11.0, `gfx90a` is 9.0.
fn version_of(arch: &str) -> (i32, i32) {
    let digits = arch.trim_start_matches("gfx");
    let (major, rest) = digits.split_at(digits.len().saturating_sub(2));
    (major.parse().unwrap_or(0), rest[..rest.len().min(1)].parse().unwrap_or(0))
}

impl Runtime {
    fn check_device(&self, device: c_int) -> Result<(), Code> {
        if (0..self.config.devices).contains(&device) { Ok(()) } else { Err(INVALID_DEVICE) }
    }

    /// Lanes of the emulated architecture's waves.
    fn wave_size(&self) -> i32 {
        if self.config.arch.starts_with("gfx9") { 64 } else { 32 }
    }

    /// An attribute by its number in `hipDeviceAttribute_t` of ROCm 6 and 7.
    fn attribute(&self, number: c_int) -> Result<c_int, Code> {
        let (major, minor) = version_of(&self.config.arch);
        Ok(match number {
            2 => 1,         // async engines
            3 => 1,         // can map host memory
            5 => CLOCK_KHZ, // clock rate
            6 => 0,         // compute mode
            8 => 1,         // concurrent kernels
            10 => 1,        // cooperative launch
            11 => 0,        // cooperative launch over several devices
            16 => 0,        // integrated
            18 => 0,        // time limit on kernels
            19 => 6 << 20,  // L2 bytes
            23 => major,    // compute capability
            61 => minor,
            25 => WAVES_PER_UNIT,            // blocks of a multiprocessor
            26..=28 => MAX_THREADS as c_int, // block's dimensions
            29 => i32::MAX,                  // grid's dimensions
            30 | 31 => 65536,
            56 => MAX_THREADS as c_int,              // threads of a block
            57 => WAVES_PER_UNIT * self.wave_size(), // threads of a multiprocessor
            59 => 384,                               // memory bus bits
            60 => 1_249_000,                         // memory clock
            63 | 10015 => COMPUTE_UNITS,             // multiprocessors
            65 | 66 => 0,                            // pageable memory
            67 => 3,                                 // PCI bus
            68 | 69 => 0,
            71 | 72 => 65536, // registers
            74 | 75 | 76 | 10002 => LDS_PER_BLOCK as c_int,
            83 | 84 => self.config.memory.min(i32::MAX as u64) as c_int,
            85 => 1, // unified addressing
            87 => self.wave_size(),
            88 | 89 => 0,             // memory pools, virtual memory
            90 => 1,                  // host registration
            10000 | 10017 => 100_000, // wall clock rate
            10011 => 0,               // large BAR
            0..=91 | 10001..=10017 => 0,
            _ => return Err(INVALID_VALUE),
        })
    }
}

fn copy_name(name: &str, to: *mut c_char, len: usize) {
    let bytes = &name.as_bytes()[..name.len().min(len - 1)];
    // SAFETY: the caller has `len` bytes there.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        to.add(bytes.len()).write(0);
    }
}

entries! {
    Always fn hipInit(runtime; flags: c_uint) {
        match runtime.config.init {
            0 if flags != 0 => Err(INVALID_VALUE),
            0 if runtime.devices.is_empty() => Err(NO_DEVICE),
            0 => Ok(()),
            code => Err(code),
        }
    }

    Always fn hipDriverGetVersion(runtime; version: *mut c_int) {
        put(version, VERSION)
    }

    Always fn hipRuntimeGetVersion(runtime; version: *mut c_int) {
        put(version, VERSION)
    }

    Always fn hipGetDeviceCount(runtime; count: *mut c_int) {
        let devices = if runtime.config.init == 0 { runtime.config.devices } else { 0 };
        put(count, devices)?;
        if devices == 0 { Err(NO_DEVICE) } else { Ok(()) }
    }

    Device fn hipDeviceGet(runtime; device: *mut c_int, ordinal: c_int) {
        runtime.check_device(ordinal)?;
        put(device, ordinal)
    }

    Always fn hipSetDevice(runtime; device: c_int) {
        runtime.set_current(device)
    }

    Always fn hipGetDevice(runtime; device: *mut c_int) {
        put(device, runtime.current())
    }

    Device fn hipDeviceGetName(runtime; name: *mut c_char, len: c_int, device: c_int) {
        runtime.check_device(device)?;
        if name.is_null() || len <= 0 {
            return Err(INVALID_VALUE);
        }
        copy_name(&format!("{NAME}{}", runtime.config.arch), name, len as usize);
        Ok(())
    }

    Device fn hipDeviceTotalMem(runtime; bytes: *mut usize, device: c_int) {
        runtime.check_device(device)?;
        put(bytes, runtime.config.memory as usize)
    }

    Device fn hipDeviceGetAttribute(runtime; value: *mut c_int, attribute: c_int, device: c_int) {
        runtime.check_device(device)?;
        put(value, runtime.attribute(attribute)?)
    }

    Device fn hipMemGetInfo(runtime; free: *mut usize, total: *mut usize) {
        let (memory, used) = (runtime.config.memory, runtime.device()?.used);
        put(free, (memory - used) as usize)?;
        put(total, memory as usize)
    }

    Device fn hipGetDevicePropertiesR0600(runtime; properties: *mut u8, device: c_int) {
        runtime.check_device(device)?;
        if properties.is_null() {
            return Err(INVALID_VALUE);
        }
        let filled = fill_properties(runtime);
        // SAFETY: the caller has a hipDeviceProp_tR0600 there.
        unsafe { properties.copy_from_nonoverlapping(filled.as_ptr(), filled.len()) };
        Ok(())
    }
}

fn fill_properties(runtime: &Runtime) -> [u8; property::SIZE] {
    let mut bytes = [0; property::SIZE];
    let (major, minor) = version_of(&runtime.config.arch);
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    put(property::NAME, format!("{NAME}{}", runtime.config.arch).as_bytes());
    put(property::GCN_ARCH_NAME, runtime.config.arch.as_bytes());
    let sizes = [
        (property::TOTAL_GLOBAL_MEM, runtime.config.memory),
        (property::SHARED_MEM_PER_BLOCK, u64::from(LDS_PER_BLOCK)),
        (property::TOTAL_CONST_MEM, runtime.config.memory),
        (property::SHARED_MEM_PER_MULTIPROCESSOR, u64::from(LDS_PER_BLOCK)),
        (property::SHARED_MEM_PER_BLOCK_OPTIN, u64::from(LDS_PER_BLOCK)),
    ];
    for (at, value) in sizes {
        put(at, &value.to_le_bytes());
    }
    let threads = MAX_THREADS as i32;
    let numbers = [
        (property::REGS_PER_BLOCK, 65536),
        (property::WARP_SIZE, runtime.wave_size()),
        (property::MAX_THREADS_PER_BLOCK, threads),
        (property::MAX_THREADS_DIM, threads),
        (property::MAX_THREADS_DIM + 4, threads),
        (property::MAX_THREADS_DIM + 8, threads),
        (property::MAX_GRID_SIZE, i32::MAX),
        (property::MAX_GRID_SIZE + 4, 65536),
        (property::MAX_GRID_SIZE + 8, 65536),
        (property::CLOCK_RATE, CLOCK_KHZ),
        (property::MAJOR, major),
        (property::MINOR, minor),
        (property::MULTI_PROCESSOR_COUNT, COMPUTE_UNITS),
        (property::INTEGRATED, 0),
        (property::CAN_MAP_HOST_MEMORY, 1),
        (property::CONCURRENT_KERNELS, 1),
        (property::MEMORY_CLOCK_RATE, 1_249_000),
        (property::MEMORY_BUS_WIDTH, 384),
        (property::L2_CACHE_SIZE, 6 << 20),
        (property::MAX_THREADS_PER_MULTI_PROCESSOR, WAVES_PER_UNIT * runtime.wave_size()),
        (property::COOPERATIVE_LAUNCH, 1),
    ];
    for (at, value) in numbers {
        put(at, &value.to_le_bytes());
    }
    bytes
}
