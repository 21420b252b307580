//! What the runtime knows: devices, handles, allocations, and what tests asked to go wrong.
//!
//! One lock serves it all, and a launch holds it to its end: streams run synchronously. Host memory that a running
//! kernel polls can be written by other threads meanwhile.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use super::error::{self, Code, INVALID_DEVICE, INVALID_HANDLE, INVALID_VALUE, NO_DEVICE, UNKNOWN};
use super::event::Event;
use super::graph::{Exec, Graph};
use super::kernel::{Function, Module};
use super::memory::Allocation;
use super::stream::{Capture, Stream};
use crate::launch::Settings;
use crate::object::Program;

/// A `hipStream_t`, `hipEvent_t` and so on: a number, so that a bad one is found instead of followed.
pub type Handle = usize;

/// What the environment sets.
pub struct Config {
    pub devices: i32,
    pub memory: u64,
    pub arch: String,
    pub settings: Settings,
    /// Every launch is treated as a cooperative one.
    pub cooperative: bool,
    /// What `hipInit` returns.
    pub init: Code,
}

impl Config {
    fn from_environment() -> Config {
        fn number(name: &str, default: u64) -> u64 {
            std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
        }
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Config {
            devices: number("RFEMU_DEVICES", 1) as i32,
            memory: number("RFEMU_MEMORY_MIB", 4096) << 20,
            arch: std::env::var("RFEMU_ARCH").unwrap_or_else(|_| crate::object::ARCH.to_string()),
            settings: Settings {
                seed: number("RFEMU_SEED", 1),
                threads: number("RFEMU_THREADS", cores as u64).max(1) as usize,
                limit: number("RFEMU_LIMIT", 100_000_000_000),
            },
            cooperative: number("RFEMU_COOPERATIVE", 0) != 0,
            init: number("RFEMU_INIT_CODE", 0) as Code,
        }
    }
}

/// What a device has lost or used.
#[derive(Default, Clone)]
pub struct Device {
    pub used: u64,
    /// The fault after which it answers every call with this code.
    pub lost: Option<Code>,
}

pub struct Runtime {
    pub config: Config,
    pub devices: Vec<Device>,
    pub allocations: HashMap<u64, Allocation>,
    /// Freed memory, kept for a while so that its use is noticed.
    pub graveyard: Vec<Allocation>,
    pub streams: HashMap<Handle, Stream>,
    pub events: HashMap<Handle, Event>,
    pub modules: HashMap<Handle, Module>,
    pub functions: HashMap<Handle, Function>,
    pub graphs: HashMap<Handle, Graph>,
    pub execs: HashMap<Handle, Exec>,
    pub captures: HashMap<Handle, Capture>,
    /// Decoded programs by their objects, for modules that are loaded again.
    pub programs: HashMap<Vec<u8>, Result<Arc<Program>, String>>,
    pub calls: HashMap<&'static str, u64>,
    /// Calls that shall fail: how many more of them succeed, and the code.
    pub failures: HashMap<String, (u64, Code)>,
    pub message: String,
    pub instructions: u64,
    pub launches: u64,
    next_handle: Handle,
}

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

thread_local! {
    static CURRENT_DEVICE: Cell<i32> = const { Cell::new(0) };
}

/// The runtime, locked.
pub struct Locked(MutexGuard<'static, Option<Runtime>>);

impl std::ops::Deref for Locked {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("made by `lock`")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut Runtime {
        self.0.as_mut().expect("made by `lock`")
    }
}

pub fn lock() -> Locked {
    let mut guard = RUNTIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    guard.get_or_insert_with(Runtime::new);
    Locked(guard)
}

impl Runtime {
    fn new() -> Runtime {
        let config = Config::from_environment();
        Runtime {
            devices: vec![Device::default(); config.devices.max(0) as usize],
            config,
            allocations: HashMap::new(),
            graveyard: Vec::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            graphs: HashMap::new(),
            execs: HashMap::new(),
            captures: HashMap::new(),
            programs: HashMap::new(),
            calls: HashMap::new(),
            failures: HashMap::new(),
            message: String::new(),
            instructions: 0,
            launches: 0,
            next_handle: 0x5f00_0000_0010,
        }
    }

    /// Forgets everything but decoded programs, and reads the environment again.
    pub fn reset(&mut self) {
        let programs = std::mem::take(&mut self.programs);
        *self = Runtime { programs, ..Runtime::new() };
        CURRENT_DEVICE.set(0);
        error::forget();
    }

    pub fn handle(&mut self) -> Handle {
        self.next_handle += 16;
        self.next_handle
    }

    /// The calling thread's device.
    pub fn current(&self) -> i32 {
        CURRENT_DEVICE.get()
    }

    pub fn set_current(&mut self, device: i32) -> Result<(), Code> {
        if !(0..self.config.devices).contains(&device) {
            return Err(INVALID_DEVICE);
        }
        CURRENT_DEVICE.set(device);
        Ok(())
    }

    pub fn device(&mut self) -> Result<&mut Device, Code> {
        self.devices.get_mut(CURRENT_DEVICE.get() as usize).ok_or(INVALID_DEVICE)
    }

    /// Objects that a program has not given back: `(count, bytes of memory)`.
    pub fn live(&self) -> (u64, u64) {
        let objects = self.allocations.values().filter(|a| a.is_the_callers()).count()
            + self.streams.len()
            + self.events.len()
            + self.modules.len()
            + self.graphs.len()
            + self.execs.len();
        let bytes = self.allocations.values().filter(|a| a.is_the_callers()).map(Allocation::len).sum();
        (objects as u64, bytes)
    }
}

/// Looks up a handle.
pub fn find<T>(objects: &mut HashMap<Handle, T>, handle: Handle) -> Result<&mut T, Code> {
    objects.get_mut(&handle).ok_or(if handle == 0 { INVALID_VALUE } else { INVALID_HANDLE })
}

/// What a function needs of the runtime before it does anything, and what it still does when it is made to fail.
#[derive(Clone, Copy, PartialEq)]
pub enum Guard {
    /// Answers even when there is no device or it is lost.
    Always,
    /// Needs a device that is not lost.
    Device,
    /// As `Device`, but gives an object back even if it then answers with an error, so that a test of failures can
    /// still count leaks.
    Release,
}

/// Runs the body of an entry point: counts it, fails it where a test or a lost device wants that, keeps the error.
pub fn call(name: &'static str, guard: Guard, body: impl FnOnce(&mut Runtime) -> Result<(), Code>) -> Code {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut runtime = lock();
        match runtime.obstacle(name, guard) {
            Some(code) => {
                if guard == Guard::Release {
                    let _ = body(&mut runtime);
                }
                Err(code)
            }
            None => body(&mut runtime),
        }
    }));
    error::remember(match result {
        Ok(Ok(())) => error::SUCCESS,
        Ok(Err(code)) => code,
        Err(_) => UNKNOWN,
    })
}

impl Runtime {
    /// Why this call fails before it is looked at.
    fn obstacle(&mut self, name: &'static str, guard: Guard) -> Option<Code> {
        *self.calls.entry(name).or_default() += 1;
        if let Some((left, code)) = self.failures.get_mut(name) {
            *left -= 1;
            if *left == 0 {
                let code = *code;
                self.failures.remove(name);
                self.message = format!("{name} was made to fail with {code}");
                return Some(code);
            }
        }
        if guard == Guard::Always {
            return None;
        }
        if self.config.init != 0 || self.devices.is_empty() {
            return Some(if self.config.init == 0 { NO_DEVICE } else { INVALID_DEVICE });
        }
        self.device().map_or_else(Some, |device| device.lost)
    }
}

/// Defines entry points: `Guard fn name(runtime; arguments) { body }`.
#[macro_export]
macro_rules! entries {
    ($($(#[$doc:meta])* $guard:ident fn $name:ident($runtime:ident $(; $($arg:ident: $ty:ty),+)?) $body:block)+) => {
        $($(#[$doc])*
        ///
        /// # Safety
        /// As HIP documents: pointers are NULL or point to what their types and lengths say.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($($arg: $ty),+)?) -> $crate::hip::error::Code {
            #[allow(unused_variables)]
            let body = |$runtime: &mut $crate::hip::state::Runtime| -> Result<(), $crate::hip::error::Code> { $body };
            $crate::hip::state::call(stringify!($name), $crate::hip::state::Guard::$guard, body)
        })+
    };
}

/// Writes a result through a caller's pointer.
pub(crate) fn put<T>(to: *mut T, value: T) -> Result<(), Code> {
    if to.is_null() {
        return Err(INVALID_VALUE);
    }
    // SAFETY: the caller's pointer, which the entry points' contract covers.
    unsafe { to.write(value) };
    Ok(())
}
