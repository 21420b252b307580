//! The emulated GPU: `tests/emulator`, built and opened as the HIP backend opens AMD's runtime.
#![allow(dead_code)] // each test file uses a part

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

use rocmforge::engine::{Engine, EngineOptions};
use rocmforge::placement::GpuChoice;

/// The library that stands for AMD's runtime: `ROCMFORGE_HIP_LIBRARY`, or the emulator, built now.
static LIBRARY: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(path) = std::env::var_os("ROCMFORGE_HIP_LIBRARY") {
        return PathBuf::from(path);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = root.join("target/emulator");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--manifest-path"])
        .arg(root.join("tests/emulator/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the emulator does not build");
    let path = target.join("release/libamdhip64.so");
    // SAFETY: under the lock of `EMULATOR`, before any thread of the library reads the environment.
    unsafe { std::env::set_var("ROCMFORGE_HIP_LIBRARY", &path) };
    path
});

static EMULATOR: Mutex<()> = Mutex::new(());

/// The emulator, to one test at a time, as new.
pub struct Emulator {
    handle: *mut c_void,
    _turn: MutexGuard<'static, ()>,
}

/// The emulator with `settings` (`RFEMU_…`). `None`, loudly, where there is no compiler for AMD's code; in CI there must
/// be one.
pub fn emulator(settings: &[(&str, &str)]) -> Option<Emulator> {
    let turn = EMULATOR.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let library = &*LIBRARY;
    for name in ["RFEMU_DEVICES", "RFEMU_MEMORY_MIB", "RFEMU_ARCH", "RFEMU_SEED", "RFEMU_INIT_CODE"] {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in settings {
        // SAFETY: as above.
        unsafe { std::env::set_var(name, value) };
    }
    let path = CString::new(library.to_str().expect("UTF-8")).expect("no NUL");
    // SAFETY: a NUL-terminated path.
    let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!handle.is_null(), "{} cannot be opened", library.display());
    let emulator = Emulator { handle, _turn: turn };
    emulator.reset();
    let usable = settings.is_empty() && engine(&[]).devices().all(|device| device.unusable.is_empty());
    if settings.is_empty() && !usable {
        assert!(std::env::var_os("CI").is_none(), "this build has no code for gfx1100, and in CI it must have");
        eprintln!("SKIPPED: this build has no code for gfx1100 (clang-19, lld-19 and llvm-19 make it)");
        return None;
    }
    Some(emulator)
}

impl Emulator {
    fn symbol(&self, name: &str) -> *mut c_void {
        let name = CString::new(name).expect("no NUL");
        // SAFETY: an open library.
        let address = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        assert!(!address.is_null(), "the emulator has no {name:?}");
        address
    }

    /// Forgets everything and reads the environment again.
    pub fn reset(&self) {
        // SAFETY: the documented type.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn()>(self.symbol("rfemu_reset"))() }
    }

    /// The `nth` next call of `function` fails with `code`; 0 for none.
    pub fn fail(&self, function: &str, nth: u64, code: c_int) {
        let name = CString::new(function).expect("no NUL");
        type Set = extern "C" fn(*const c_char, u64, c_int);
        // SAFETY: the documented type.
        unsafe { std::mem::transmute::<*mut c_void, Set>(self.symbol("rfemu_set_failure"))(name.as_ptr(), nth, code) }
    }

    /// How often `function` was called.
    pub fn calls(&self, function: &str) -> u64 {
        let name = CString::new(function).expect("no NUL");
        type Calls = extern "C" fn(*const c_char) -> u64;
        // SAFETY: the documented type.
        unsafe { std::mem::transmute::<*mut c_void, Calls>(self.symbol("rfemu_calls"))(name.as_ptr()) }
    }

    fn count(&self, name: &str) -> u64 {
        // SAFETY: the documented type.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> u64>(self.symbol(name))() }
    }

    /// Allocations, streams, events, modules and graphs that are alive.
    pub fn live(&self) -> u64 {
        self.count("rfemu_live")
    }

    /// Bytes of device memory that are allocated.
    pub fn live_bytes(&self) -> u64 {
        self.count("rfemu_live_bytes")
    }

    /// What the emulator last complained of.
    pub fn message(&self) -> String {
        type Message = extern "C" fn() -> *const c_char;
        // SAFETY: the documented type; a NUL-terminated text of the library's.
        unsafe {
            let text = std::mem::transmute::<*mut c_void, Message>(self.symbol("rfemu_last_message"))();
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

/// An engine on GPUs `numbers`; on those that it finds by itself if there are none.
pub fn engine(numbers: &[usize]) -> Arc<Engine> {
    engine_with(numbers, 0)
}

/// The same with a budget in bytes for each GPU.
pub fn engine_with(numbers: &[usize], gpu_memory: u64) -> Arc<Engine> {
    let gpus = if numbers.is_empty() { GpuChoice::Auto } else { GpuChoice::These(numbers.to_vec()) };
    let options = EngineOptions { threads: 2, gpus: Some(gpus), gpu_memory, ..Default::default() };
    Arc::new(Engine::new(options).expect("an engine"))
}
