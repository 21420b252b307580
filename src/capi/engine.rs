//! `rf_engine`.

use std::sync::Arc;

use once_cell::sync::OnceCell;

use super::device::DeviceTexts;
use super::guard::{Tagged, check_flags, fence, optional_text, options, out, total};
use super::*;
use crate::backend::cpu::features::Isa;
use crate::backend::cpu::pool::ParallelFor;
use crate::engine::{Engine, EngineOptions, Log};
use crate::error::Error;
use crate::placement::GpuChoice;

/// Threads and processor, shared by the models that it loads.
pub struct rf_engine(pub(super) Arc<Engine>, pub(super) OnceCell<Vec<DeviceTexts>>);

/// `rf_engine_options.isa`: the best that the processor has.
pub const RF_ISA_AUTO: u32 = 0;
/// `rf_engine_options.isa`: portable code only.
pub const RF_ISA_SCALAR: u32 = 1;
/// `rf_engine_options.isa`: at most AVX2, FMA and F16C.
pub const RF_ISA_AVX2: u32 = 2;
/// `rf_engine_options.isa`: at most AVX-512 with VNNI.
pub const RF_ISA_AVX512_VNNI: u32 = 3;
/// `rf_engine_options.isa`: at most AMX with bf16, beside AVX-512. An engine that may use AMX asks Linux to permit it to the
/// process. From then on `sigaltstack` demands at least `sysconf(_SC_MINSIGSTKSZ)` bytes in every thread, about 11 KiB: a
/// host that installs smaller alternate stacks caps the engine at `RF_ISA_AVX512_VNNI`.
pub const RF_ISA_AMX: u32 = 4;
/// `rf_engine_options.isa`: at most AVX2 with AVX-VNNI, which is more than `RF_ISA_AVX2` and less than `RF_ISA_AVX512_VNNI`.
pub const RF_ISA_AVX_VNNI: u32 = 5;

/// A log message for those who look into the engine.
pub const RF_LOG_DEBUG: i32 = 1;
/// A log message: what was loaded, and how.
pub const RF_LOG_INFO: i32 = 2;
/// A log message: something works less well than it could.
pub const RF_LOG_WARNING: i32 = 3;
/// A log message: something failed, and the call's error says the same.
pub const RF_LOG_ERROR: i32 = 4;

/// Receives log messages (`level` is one of `RF_LOG_…`; `message` is UTF-8, not NUL-terminated, and the library's).
/// May be called from any thread that uses the engine, also from several at once. Must not unwind.
pub type rf_log_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, level: i32, message: *const c_char, message_len: usize)>;

/// `rf_engine_options.flags`: keep each of the engine's threads on one of the processors that the process may use. The
/// calling thread, which computes too, is not touched. For machines that run nothing else.
pub const RF_ENGINE_PIN_THREADS: u32 = 1;

/// One of the tasks that a host's `rf_parallel_for` runs.
pub type rf_task = Option<unsafe extern "C" fn(task_data: *mut c_void, index: usize)>;

/// A host's job system: calls `task(task_data, i)` exactly once for each `i` from 0 to `n - 1`, on any threads, also on the
/// calling one, several at once or one after the other, and returns when all those calls have returned. Tasks take 10 to
/// 1000 microseconds, never block on each other, and never call back into the host. Called from the threads that use the
/// engine's sessions and load its models, some hundred times a token, also by several at once. Must not unwind.
pub type rf_parallel_for =
    Option<unsafe extern "C" fn(user_data: *mut c_void, n: usize, task: rf_task, task_data: *mut c_void)>;

/// How to make an engine. Begin with `RF_ENGINE_OPTIONS_INIT`; zero means the default in every field.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct rf_engine_options {
    /// `sizeof(rf_engine_options)`.
    pub struct_size: u32,
    /// `RF_ENGINE_…`, or 0.
    pub flags: u32,
    /// Threads in all, the caller's included. 0: as many as the process may use.
    pub threads: u32,
    /// Caps the instruction set: one of `RF_ISA_…`.
    pub isa: u32,
    /// Receives log messages. NULL: the library is silent.
    pub on_log: rf_log_callback,
    /// Given to `on_log`.
    pub log_user_data: *mut c_void,
    /// Which GPUs may be used: "auto" (all that are usable), "none", or their numbers, such as "0" or "0,1" (integrated
    /// ones too). NULL: what the environment variable ROCMFORGE_GPU_DEVICE says, else "auto".
    pub gpus: *const c_char,
    /// Length of `gpus` in bytes. 0: it ends at its NUL.
    pub gpus_len: usize,
    /// Bytes that may be taken on each GPU. 0: what is free.
    pub gpu_memory: u64,
    /// Runs the engine's tasks on the host's threads; the engine then starts none, and `threads` says how many the host has.
    /// NULL: the engine's own threads.
    pub parallel_for: rf_parallel_for,
    /// Given to `parallel_for`.
    pub parallel_for_user_data: *mut c_void,
}

// SAFETY: repr(C), begins with its size, zero is valid in every field.
unsafe impl Tagged for rf_engine_options {
    const NAME: &'static str = "rf_engine_options";
}

/// A host's callback and its data, which the host has promised to be usable from any thread.
struct HostLog {
    call: unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize),
    user_data: *mut c_void,
}

// SAFETY: the header demands that `on_log` may be called from any thread.
unsafe impl Send for HostLog {}
// SAFETY: the header demands that `on_log` may be called from several threads at once.
unsafe impl Sync for HostLog {}

/// A host's job system and its data, which the host has promised to be usable from any thread.
struct HostThreads {
    call: unsafe extern "C" fn(*mut c_void, usize, rf_task, *mut c_void),
    user_data: *mut c_void,
}

// SAFETY: the header demands that `parallel_for` may be called from any thread.
unsafe impl Send for HostThreads {}
// SAFETY: the header demands that `parallel_for` may be called from several threads at once.
unsafe impl Sync for HostThreads {}

impl HostThreads {
    fn run(&self, n: usize, task: &(dyn Fn(usize) + Sync)) {
        // A fat pointer does not fit a `void *`: its address does.
        let data = std::ptr::from_ref(&task).cast_mut().cast::<c_void>();
        // SAFETY: the host's own function, with the data that it asked for; `task` lives until it returns.
        unsafe { (self.call)(self.user_data, n, Some(run_task), data) }
    }
}

unsafe extern "C" fn run_task(task_data: *mut c_void, index: usize) {
    // SAFETY: the pointer that `HostThreads::run` gave to the host, which is inside that call.
    total((), || unsafe { (*task_data.cast::<&(dyn Fn(usize) + Sync)>())(index) });
}

/// Makes an engine: its threads, and nothing global.
///
/// Ownership: `*engine` is the caller's, to be freed by `rf_engine_free`; `opts` may be NULL and is not kept.
/// Threads: any; the engine may be used by any number of threads at once.
/// Errors: `RF_E_ARGUMENT`, `RF_E_UNSUPPORTED` (a newer option), `RF_E_IO` (threads could not be started).
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_create(
    opts: *const rf_engine_options,
    engine: *mut *mut rf_engine,
    err: *mut *mut rf_error,
) -> rf_status {
    fence(err, || {
        // SAFETY: pointers as the comment above demands.
        let opts = unsafe {
            out(engine, std::ptr::null_mut(), "engine")?;
            options(opts)?
        };
        check_flags(opts.flags, RF_ENGINE_PIN_THREADS, "rf_engine_options")?;
        let isa = match opts.isa {
            RF_ISA_AUTO => None,
            RF_ISA_SCALAR => Some(Isa::Scalar),
            RF_ISA_AVX2 => Some(Isa::Avx2),
            RF_ISA_AVX_VNNI => Some(Isa::AvxVnni),
            RF_ISA_AVX512_VNNI => Some(Isa::Avx512Vnni),
            RF_ISA_AMX => Some(Isa::Amx),
            other => {
                return Err(Error::unsupported(
                    "rf_engine_options.isa",
                    format!("{other} is no RF_ISA_ constant of this version"),
                ));
            }
        };
        let log = opts.on_log.map(|call| {
            let host = HostLog { call, user_data: opts.log_user_data };
            let log: Log = Box::new(move |level, message| {
                let host = &host; // the whole, whose thread-safety is promised, and not its parts
                // SAFETY: the host's own function, with the data that it asked for.
                unsafe { (host.call)(host.user_data, level as i32, message.as_ptr().cast(), message.len()) }
            });
            log
        });
        let parallel_for = opts.parallel_for.map(|call| {
            let host = HostThreads { call, user_data: opts.parallel_for_user_data };
            let run: ParallelFor = Box::new(move |n, task| host.run(n, task));
            run
        });
        // SAFETY: a text as the header demands.
        let gpus = unsafe { optional_text(opts.gpus, opts.gpus_len, "gpus") }?.map(GpuChoice::parse).transpose()?;
        let made = Engine::new(EngineOptions {
            threads: opts.threads as usize,
            pin_threads: opts.flags & RF_ENGINE_PIN_THREADS != 0,
            parallel_for,
            isa,
            gpus,
            gpu_memory: opts.gpu_memory,
            log,
        })?;
        // SAFETY: checked above.
        unsafe { engine.write(Box::into_raw(Box::new(rf_engine(Arc::new(made), OnceCell::new())))) };
        Ok(RF_OK)
    })
}

/// Threads that the engine uses, the caller's included; 0 for NULL.
///
/// Ownership: `engine` stays the caller's.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_threads(engine: *const rf_engine) -> u32 {
    // SAFETY: NULL or an engine of this library.
    total(0, || unsafe { engine.as_ref() }.map_or(0, |e| e.0.threads() as u32))
}

/// The instruction set that the engine uses: one of `RF_ISA_…` (not in ascending order); 0 for NULL.
///
/// Ownership: `engine` stays the caller's.
/// Threads: any.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_isa(engine: *const rf_engine) -> u32 {
    // SAFETY: NULL or an engine of this library.
    total(0, || {
        unsafe { engine.as_ref() }.map_or(RF_ISA_AUTO, |e| match e.0.isa() {
            Isa::Scalar => RF_ISA_SCALAR,
            Isa::Avx2 => RF_ISA_AVX2,
            Isa::AvxVnni => RF_ISA_AVX_VNNI,
            Isa::Avx512Vnni => RF_ISA_AVX512_VNNI,
            Isa::Amx => RF_ISA_AMX,
        })
    })
}

/// Frees an engine. Models that it loaded keep what they need of it until they are freed themselves.
///
/// Ownership: takes `engine`; NULL is allowed.
/// Threads: any, but no other call may use this handle at the same time.
/// Errors: none.
/// Since: 0.1
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rf_engine_free(engine: *mut rf_engine) {
    if !engine.is_null() {
        // SAFETY: made by `rf_engine_create`, freed once.
        total((), || drop(unsafe { Box::from_raw(engine) }));
    }
}
