//! A small host program for the tests: compiles kernels, and calls the runtime's C functions as any program would.

#![allow(dead_code)] // each test file uses a part
#![allow(clippy::precedence)] // shifts and masks, as instruction sets write them

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

use amdhip64::hip::controls::*;
use amdhip64::hip::kernel::*;
use amdhip64::hip::memory::*;

/// Compiles `tests/kernels/<name>.hip` for `arch`; `None` if there is no compiler, which CI does not accept.
pub fn compile(name: &str, arch: &str) -> Option<Vec<u8>> {
    type Objects = HashMap<(String, String), Vec<u8>>;
    static DONE: Mutex<Option<Objects>> = Mutex::new(None);
    let mut done = DONE.lock().unwrap_or_else(|e| e.into_inner());
    let done = done.get_or_insert_default();
    let key = (name.to_string(), arch.to_string());
    if let Some(object) = done.get(&key) {
        return Some(object.clone());
    }
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/kernels/{name}.hip"));
    let target = std::env::temp_dir().join(format!("rfemu-test-{}-{name}-{arch}.hsaco", std::process::id()));
    let output = Command::new(std::env::var("RFEMU_CLANG").unwrap_or_else(|_| "clang-19".into()))
        .args(["-x", "hip", "--offload-device-only", "--no-gpu-bundle-output", "-O3", "-nogpuinc", "-nogpulib"])
        .args(["-fdeclspec", &format!("--offload-arch={arch}")])
        .args((name == "flushed").then_some("-fgpu-flush-denormals-to-zero"))
        .arg(&source)
        .arg("-o")
        .arg(&target)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(e) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "no clang-19: {e}");
            println!("SKIPPED: no clang-19 ({e})");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let object = std::fs::read(&target).expect("the compiler wrote it");
    let _ = std::fs::remove_file(&target);
    done.insert(key, object.clone());
    Some(object)
}

/// The runtime for one test: others wait, and it starts from nothing.
pub struct Gpu {
    _alone: MutexGuard<'static, ()>,
}

/// A buffer on the device.
#[derive(Clone, Copy)]
pub struct Buffer {
    pub address: u64,
    pub bytes: usize,
}

/// A kernel's argument.
pub enum Arg {
    Pointer(u64),
    U32(u32),
    F32(f32),
}

impl From<Buffer> for Arg {
    fn from(buffer: Buffer) -> Arg {
        Arg::Pointer(buffer.address)
    }
}

impl From<u32> for Arg {
    fn from(value: u32) -> Arg {
        Arg::U32(value)
    }
}

impl From<i32> for Arg {
    fn from(value: i32) -> Arg {
        Arg::U32(value as u32)
    }
}

impl From<f32> for Arg {
    fn from(value: f32) -> Arg {
        Arg::F32(value)
    }
}

/// Arguments of a launch.
#[macro_export]
macro_rules! args {
    ($($arg:expr),*) => { &[$($crate::common::Arg::from($arg)),*] };
}

/// Types whose bytes are copied.
pub trait Plain: Copy + Default {}
impl<T: Copy + Default> Plain for T {}

impl Gpu {
    pub fn new() -> Gpu {
        static ONE: Mutex<()> = Mutex::new(());
        let alone = ONE.lock().unwrap_or_else(|e| e.into_inner());
        rfemu_reset();
        Gpu { _alone: alone }
    }

    pub fn message(&self) -> String {
        // SAFETY: valid until this thread asks again.
        unsafe { CStr::from_ptr(rfemu_last_message()) }.to_string_lossy().into_owned()
    }

    #[track_caller]
    fn expect(&self, code: i32) {
        assert_eq!(code, 0, "{}", self.message());
    }

    pub fn try_load(&self, object: &[u8]) -> Result<usize, i32> {
        let mut module = 0;
        // SAFETY: a whole ELF file.
        match unsafe { hipModuleLoadData(&mut module, object.as_ptr().cast()) } {
            0 => Ok(module),
            code => Err(code),
        }
    }

    /// The module of a kernel file, or `None` without a compiler.
    #[track_caller]
    pub fn load(&self, name: &str) -> Option<Module> {
        let object = compile(name, "gfx1100")?;
        match self.try_load(&object) {
            Ok(handle) => Some(Module { handle }),
            Err(code) => panic!("{code}: {}", self.message()),
        }
    }

    #[track_caller]
    pub fn buffer(&self, bytes: usize) -> Buffer {
        let mut pointer = std::ptr::null_mut::<c_void>();
        // SAFETY: a place for the result.
        self.expect(unsafe { hipMalloc(&mut pointer, bytes) });
        Buffer { address: pointer as u64, bytes }
    }

    #[track_caller]
    pub fn upload<T: Plain>(&self, data: &[T]) -> Buffer {
        let buffer = self.buffer(size_of_val(data));
        // SAFETY: as many bytes on both sides.
        self.expect(unsafe { hipMemcpyHtoD(buffer.address, data.as_ptr().cast(), buffer.bytes) });
        buffer
    }

    #[track_caller]
    pub fn zeros(&self, bytes: usize) -> Buffer {
        self.upload(&vec![0u8; bytes])
    }

    #[track_caller]
    pub fn download<T: Plain>(&self, buffer: Buffer) -> Vec<T> {
        let mut data = vec![T::default(); buffer.bytes / size_of::<T>()];
        // SAFETY: as many bytes on both sides.
        self.expect(unsafe { hipMemcpyDtoH(data.as_mut_ptr().cast(), buffer.address, size_of_val(&data[..])) });
        data
    }
}

/// Blocks, threads of each, bytes of dynamic workgroup memory.
pub type Shape = ([u32; 3], [u32; 3], u32);

pub struct Module {
    pub handle: usize,
}

impl Module {
    pub fn function(&self, name: &str) -> Result<usize, i32> {
        let (mut function, name) = (0, CString::new(name).unwrap());
        // SAFETY: a place for the result, and a name.
        match unsafe { hipModuleGetFunction(&mut function, self.handle, name.as_ptr()) } {
            0 => Ok(function),
            code => Err(code),
        }
    }

    pub fn try_launch(&self, name: &str, grid: [u32; 3], block: [u32; 3], lds: u32, args: &[Arg]) -> Result<(), i32> {
        let function = self.function(name)?;
        let mut values: Vec<u64> = args
            .iter()
            .map(|arg| match *arg {
                Arg::Pointer(address) => address,
                Arg::U32(value) => u64::from(value),
                Arg::F32(value) => u64::from(value.to_bits()),
            })
            .collect();
        let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| (value as *mut u64).cast()).collect();
        let ([gx, gy, gz], [bx, by, bz]) = (grid, block);
        let list = if args.is_empty() { std::ptr::null_mut() } else { pointers.as_mut_ptr() };
        let extra = std::ptr::null_mut();
        // SAFETY: as many arguments as the kernel has.
        match unsafe { hipModuleLaunchKernel(function, gx, gy, gz, bx, by, bz, lds, 0, list, extra) } {
            0 => Ok(()),
            code => Err(code),
        }
    }

    /// Launches `blocks` blocks of `threads` threads.
    #[track_caller]
    pub fn launch(&self, gpu: &Gpu, name: &str, blocks: u32, threads: u32, args: &[Arg]) {
        self.launch_shaped(gpu, name, ([blocks, 1, 1], [threads, 1, 1], 0), args);
    }

    /// Launches a grid of blocks, with dynamic workgroup memory.
    #[track_caller]
    pub fn launch_shaped(&self, gpu: &Gpu, name: &str, (grid, block, lds): Shape, args: &[Arg]) {
        if let Err(code) = self.try_launch(name, grid, block, lds, args) {
            panic!("{code}: {}", gpu.message());
        }
    }
}

/// Repeatable numbers.
pub struct Numbers(amdhip64::random::Random);

impl Numbers {
    pub fn new(seed: u64) -> Numbers {
        Numbers(amdhip64::random::Random::new(seed))
    }

    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub fn u32(&mut self) -> u32 {
        (self.u64() >> 32) as u32
    }

    /// In -1..1.
    pub fn f32(&mut self) -> f32 {
        self.u32() as i32 as f32 / 2147483648.0
    }

    pub fn f32s(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.f32()).collect()
    }

    pub fn u32s(&mut self, n: usize) -> Vec<u32> {
        (0..n).map(|_| self.u32()).collect()
    }
}

/// The bits of the f16 nearest to `x`, by its definition: every f16 is tried.
pub fn to_f16(x: f32) -> u16 {
    if x.is_nan() {
        return 0x7e00;
    }
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    let x = f64::from(x.abs());
    // Halfway between the largest and what would follow it.
    if x >= 65520.0 {
        return sign | 0x7c00;
    }
    let (mut low, mut high) = (0u16, 0x7c00u16);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if from_f16_bits(middle) <= x { low = middle } else { high = middle }
    }
    let above = if high == 0x7c00 { 65536.0 } else { from_f16_bits(high) };
    let (down, up) = (x - from_f16_bits(low), above - x);
    sign | if down < up || down == up && low & 1 == 0 { low } else { high }
}

fn from_f16_bits(magnitude: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(magnitude >> 10), f64::from(magnitude & 0x3ff));
    if exponent == 0 { mantissa * 2f64.powi(-24) } else { (1024.0 + mantissa) * 2f64.powi(exponent - 25) }
}

pub fn from_f16(bits: u16) -> f32 {
    let value = match bits & 0x7fff {
        0x7c00 => f64::INFINITY,
        m if m > 0x7c00 => f64::NAN,
        m => from_f16_bits(m),
    };
    (if bits & 0x8000 != 0 { -value } else { value }) as f32
}

/// Asserts that all values are within `tolerance` of what is expected, relative to values above 1.
#[track_caller]
pub fn assert_close(got: &[f32], expected: &[f32], tolerance: f32) {
    assert_eq!(got.len(), expected.len());
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        let close = (g - e).abs() <= tolerance * e.abs().max(1.0) || g == e || g.is_nan() && e.is_nan();
        assert!(close, "element {i}: {g} instead of {e}");
    }
}
