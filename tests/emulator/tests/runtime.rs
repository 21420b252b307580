//! The runtime's rules: errors, capture, graphs, and what tests control.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use std::ffi::{CStr, CString, c_void};

use amdhip64::hip::controls::*;
use amdhip64::hip::device::*;
use amdhip64::hip::error::*;
use amdhip64::hip::event::*;
use amdhip64::hip::graph::*;
use amdhip64::hip::kernel::*;
use amdhip64::hip::memory::*;
use amdhip64::hip::stream::*;
use common::{Gpu, compile};

const RELAXED: i32 = 2;

/// Sets environment variables and starts the runtime anew; the variables are gone afterwards.
fn restart(variables: &[(&str, &str)]) {
    for (name, value) in variables {
        // SAFETY: tests that read or write the environment hold the lock of `Gpu`.
        unsafe { std::env::set_var(name, value) };
    }
    rfemu_reset();
    for (name, _) in variables {
        // SAFETY: as above.
        unsafe { std::env::remove_var(name) };
    }
}

fn attribute(number: i32) -> i32 {
    let mut value = -1;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { hipDeviceGetAttribute(&mut value, number, 0) }, 0);
    value
}

fn stream() -> usize {
    let mut stream = 0;
    // SAFETY: a place for the result.
    assert_eq!(unsafe { hipStreamCreateWithFlags(&mut stream, 1) }, 0);
    stream
}

#[test]
fn devices_have_properties() {
    let _gpu = Gpu::new();
    let (mut count, mut properties, mut name) = (0, [0u8; 1472], [0i8; 64]);
    // SAFETY: places for the results.
    unsafe {
        assert_eq!(hipInit(0), 0);
        assert_eq!(hipInit(1), 1);
        assert_eq!((hipGetDeviceCount(&mut count), count), (0, 1));
        assert_eq!(hipGetDevicePropertiesR0600(properties.as_mut_ptr(), 0), 0);
        assert_eq!(hipGetDevicePropertiesR0600(properties.as_mut_ptr(), 1), 101);
        assert_eq!(hipDeviceGetName(name.as_mut_ptr(), 64, 0), 0);
        assert_eq!(hipSetDevice(1), 101);
        assert_eq!(hipGetLastError(), 101);
        assert_eq!(hipGetLastError(), 0);
        assert!(CStr::from_ptr(name.as_ptr()).to_string_lossy().contains("gfx1100"));
        assert_eq!(CStr::from_ptr(hipGetErrorName(700)).to_bytes(), b"hipErrorIllegalAddress");
    }
    let text = |at: usize| CStr::from_bytes_until_nul(&properties[at..]).unwrap().to_str().unwrap();
    assert_eq!(text(1160), "gfx1100");
    assert_eq!((attribute(87), attribute(63), attribute(16), attribute(74)), (32, 48, 0, 65536));
    assert_eq!((attribute(23), attribute(61), attribute(10)), (11, 0, 1));
}

#[test]
fn the_environment_makes_other_machines() {
    let gpu = Gpu::new();
    let mut count = -1;
    restart(&[("RFEMU_DEVICES", "0")]);
    // SAFETY: a place for the result.
    assert_eq!((unsafe { hipGetDeviceCount(&mut count) }, count), (100, 0));
    restart(&[("RFEMU_INIT_CODE", "101")]);
    let mut pointer = std::ptr::null_mut();
    // SAFETY: as above.
    unsafe {
        assert_eq!(hipInit(0), 101);
        assert_eq!(hipMalloc(&mut pointer, 1), 101);
    }
    restart(&[("RFEMU_MEMORY_MIB", "1"), ("RFEMU_DEVICES", "2")]);
    let (mut free, mut total) = (0, 0);
    // SAFETY: as above.
    unsafe {
        assert_eq!(hipMalloc(&mut pointer, (1 << 20) + 1), 2);
        assert_eq!(hipMalloc(&mut pointer, 1 << 19), 0);
        assert_eq!((hipMemGetInfo(&mut free, &mut total), free, total), (0, 1 << 19, 1 << 20));
        assert_eq!(hipSetDevice(1), 0);
        assert_eq!((hipMemGetInfo(&mut free, &mut total), free), (0, 1 << 20));
        assert_eq!(hipSetDevice(0), 0);
        assert_eq!(hipFree(pointer), 0);
        assert_eq!((hipMemGetInfo(&mut free, &mut total), free), (0, 1 << 20));
    }
    restart(&[("RFEMU_ARCH", "gfx942")]);
    assert_eq!(attribute(87), 64);
    if let Some(object) = compile("basic", "gfx1100") {
        assert_eq!(gpu.try_load(&object), Err(209));
    }
}

#[test]
fn code_of_other_architectures_is_not_for_this_device() {
    let gpu = Gpu::new();
    for arch in ["gfx1030", "gfx1201", "gfx90a", "gfx942"] {
        let Some(object) = compile("portable", arch) else { return };
        assert_eq!(gpu.try_load(&object), Err(209));
        assert!(gpu.message().contains(arch), "{}", gpu.message());
    }
}

#[test]
fn unknown_instructions_are_named() {
    let gpu = Gpu::new();
    let Some(object) = compile("unknown", "gfx1100") else { return };
    assert_eq!(gpu.try_load(&object), Err(200));
    let message = gpu.message();
    assert!(message.contains("v_cubeid_f32") && message.contains("v_cubesc_f32"), "{message}");
    assert!(!message.contains("v_mov_b32"), "{message}");
    assert_eq!(rfemu_live(), 0);
}

#[test]
fn damaged_objects_are_refused() {
    let gpu = Gpu::new();
    let Some(object) = compile("basic", "gfx1100") else { return };
    assert_eq!(gpu.try_load(&[0u8; 64]), Err(200));
    // Nothing behind the sections is read, so the file may end where its tables say.
    for at in (0..1024).step_by(29) {
        let mut damaged = object.clone();
        damaged[at] ^= 0x41;
        // Sizes that lie about the length would be read from the caller's memory: leave those alone.
        if !(32..64).contains(&at) {
            let _ = gpu.try_load(&damaged);
        }
    }
}

#[test]
fn bad_arguments_are_errors() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (a, null) = (gpu.zeros(64), std::ptr::null_mut::<c_void>());
    let mut value = 0;
    // SAFETY: NULL and wrong handles are what is tested.
    unsafe {
        assert_eq!(hipMalloc(std::ptr::null_mut(), 1), 1);
        assert_eq!(hipFree(std::ptr::without_provenance_mut(7)), 1);
        assert_eq!(hipFree(null), 0);
        assert_eq!(hipMemcpyHtoD(a.address + 60, [0u8; 8].as_ptr().cast(), 8), 1, "beyond the end");
        assert_eq!(hipMemcpyHtoD(a.address, std::ptr::null(), 8), 1);
        assert_eq!(hipMemcpyDtoH(null, a.address, 0), 0);
        assert_eq!(hipMemcpyHtoDAsync(a.address, [0u8; 8].as_ptr().cast(), 8, 12345), 400);
        assert_eq!(hipStreamSynchronize(12345), 400);
        assert_eq!(hipStreamDestroy(0), 1);
        assert_eq!(hipEventRecord(99, 0), 400);
        assert_eq!(hipModuleUnload(99), 400);
        assert_eq!(hipModuleLoadData(std::ptr::null_mut(), object_pointer()), 1);
        assert_eq!(hipFuncGetAttribute(&mut value, 0, 99), 400);
    }
    assert_eq!(module.function("nothing"), Err(500));
    let launch = |grid, block, lds| module.try_launch("vadd", grid, block, lds, args![a, a, a, 1]);
    assert_eq!(launch([0, 1, 1], [32, 1, 1], 0), Err(9));
    assert_eq!(launch([1, 1, 1], [1025, 1, 1], 0), Err(9));
    assert_eq!(launch([1, 1, 1], [32, 1, 1], 65537), Err(9));
    assert_eq!(launch([1, 1, 1], [32, 1, 1], 65536), Ok(()));
    assert_eq!(module.try_launch("vadd", [1, 1, 1], [32, 1, 1], 0, &[]), Err(1), "arguments are missing");
    let Some(portable) = gpu.load("portable") else { return };
    assert_eq!(portable.try_launch("bounded", [1, 1, 1], [128, 1, 1], 0, args![a]), Err(719));
    assert_eq!(portable.try_launch("bounded", [1, 1, 1], [64, 1, 1], 0, args![a]), Ok(()));
}

fn object_pointer() -> *const c_void {
    std::ptr::from_ref(b"\x7fELF").cast()
}

#[test]
fn functions_have_attributes() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let function = module.function("rmsnorm").unwrap();
    let get = |attribute| {
        let mut value = -1;
        // SAFETY: a place for the result.
        assert_eq!(unsafe { hipFuncGetAttribute(&mut value, attribute, function) }, 0);
        value
    };
    assert_eq!((get(0), get(1), get(3)), (1024, 128, 0));
    assert!((8..64).contains(&get(4)));
    let mut blocks = 0;
    // SAFETY: a place for the result.
    unsafe {
        assert_eq!(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, 256, 0), 0);
        assert_eq!(blocks, 4);
        assert_eq!(hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, 64, 60_000), 0);
        assert_eq!(blocks, 1);
        assert_eq!(hipFuncSetAttribute(function, 8, 65536 - 128), 0);
        assert_eq!(hipFuncSetAttribute(function, 8, 65536), 1);
    }
}

#[test]
fn arguments_can_be_a_buffer() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (a, b, c) = (gpu.upload(&[1f32, 2.0]), gpu.upload(&[10f32, 20.0]), gpu.zeros(8));
    let mut buffer = [a.address, b.address, c.address, 2];
    let mut size = 28usize;
    let mut extra = [
        std::ptr::without_provenance_mut(1),
        buffer.as_mut_ptr().cast(),
        std::ptr::without_provenance_mut(2),
        (&raw mut size).cast(),
        std::ptr::without_provenance_mut(3),
    ];
    let (function, none) = (module.function("vadd").unwrap(), std::ptr::null_mut());
    // SAFETY: the list ends with 3 and names the buffer.
    let code = unsafe { hipModuleLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, 0, none, extra.as_mut_ptr()) };
    assert_eq!(code, 0, "{}", gpu.message());
    assert_eq!(gpu.download::<f32>(c), [11.0, 22.0]);
}

#[test]
fn fresh_memory_is_poisoned_and_can_be_set() {
    let gpu = Gpu::new();
    let a = gpu.buffer(16);
    assert_eq!(gpu.download::<u8>(a), [0xa5; 16]);
    // SAFETY: inside of the buffer.
    unsafe {
        assert_eq!(hipMemsetD32Async(a.address, 0x01020304, 2, 0), 0);
        assert_eq!(hipMemsetD8Async(a.address + 8, 7, 4, 0), 0);
        assert_eq!(hipMemcpyDtoDAsync(a.address + 12, a.address, 4, 0), 0);
    }
    assert_eq!(gpu.download::<u32>(a), [0x01020304, 0x01020304, 0x07070707, 0x01020304]);
}

#[test]
fn captured_work_runs_when_its_graph_is_launched() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (s, mut graph, mut exec, mut nodes, mut status) = (stream(), 0, 0, 0, -1);
    let (a, b, c) = (gpu.zeros(8), gpu.upload(&[10f32, 20.0]), gpu.zeros(8));
    let (function, mut input, mut output) = (module.function("vadd").unwrap(), [1f32, 2.0], [0f32; 2]);
    let (mut pa, mut pb, mut pc, mut n) = (a.address, b.address, c.address, 2);
    let mut list = [(&raw mut pa).cast(), (&raw mut pb).cast(), (&raw mut pc).cast(), (&raw mut n).cast::<c_void>()];
    // SAFETY: buffers of these sizes, and as many arguments as the kernel has.
    unsafe {
        assert_eq!(hipStreamBeginCapture(s, RELAXED), 0);
        assert_eq!((hipStreamIsCapturing(s, &mut status), status), (0, 1));
        assert_eq!(hipMemcpyHtoDAsync(a.address, input.as_ptr().cast(), 8, s), 0);
        let extra = std::ptr::null_mut();
        assert_eq!(hipModuleLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, s, list.as_mut_ptr(), extra), 0);
        assert_eq!(hipMemcpyDtoHAsync(output.as_mut_ptr().cast(), c.address, 8, s), 0);
        assert_eq!(hipStreamEndCapture(s, &mut graph), 0);
        // Arguments were copied: what the caller does with its own afterwards does not matter.
        (pa, pb, pc, n) = (0, 0, 0, 0);
        assert_eq!((pa, pb, pc, n, output), (0, 0, 0, 0, [0.0; 2]));
        assert_eq!(rfemu_launches(), 0);
        assert_eq!((hipGraphGetNodes(graph, std::ptr::null_mut(), &mut nodes), nodes), (0, 3));
        assert_eq!(hipGraphInstantiateWithFlags(&mut exec, graph, 0), 0);
        assert_eq!(hipGraphDestroy(graph), 0);
        for round in 1..=3 {
            input[0] = round as f32;
            assert_eq!(hipGraphLaunch(exec, s), 0, "{}", gpu.message());
            assert_eq!(hipStreamSynchronize(s), 0);
            assert_eq!(output, [10.0 + round as f32, 22.0]);
        }
        assert_eq!(rfemu_launches(), 3);
        assert_eq!(hipGraphExecDestroy(exec), 0);
        assert_eq!(hipGraphLaunch(exec, s), 400);
        assert_eq!(hipStreamDestroy(s), 0);
    }
}

#[test]
fn capture_forbids_waiting() {
    let _gpu = Gpu::new();
    let (s, mut graph, mut event, mut pointer) = (stream(), 7, 0, std::ptr::null_mut());
    // SAFETY: places for the results.
    unsafe {
        assert_eq!(hipStreamBeginCapture(0, RELAXED), 900, "the null stream cannot be captured");
        assert_eq!(hipStreamEndCapture(s, &mut graph), 401);
        assert_eq!(hipEventCreateWithFlags(&mut event, 2), 0);
        assert_eq!(hipStreamBeginCapture(s, RELAXED), 0);
        assert_eq!(hipStreamBeginCapture(s, RELAXED), 401);
        assert_eq!(hipMalloc(&mut pointer, 4), 0, "relaxed: other calls are allowed");
        assert_eq!(hipEventRecord(event, s), 0);
        assert_eq!(hipEventSynchronize(event), 907);
        assert_eq!(hipStreamSynchronize(s), 900);
        assert_eq!(hipStreamEndCapture(s, &mut graph), 901, "the capture is void");
        assert_eq!(graph, 0);
        assert_eq!(hipStreamBeginCapture(s, 0), 0);
        assert_eq!(hipMalloc(&mut pointer, 4), 900, "global: they are not");
        assert_eq!(hipStreamEndCapture(s, &mut graph), 901);
        assert_eq!(hipEventSynchronize(event), 0);
    }
}

#[test]
fn other_streams_join_a_capture_through_events() {
    let gpu = Gpu::new();
    let (s, t, mut event, mut graph, mut nodes) = (stream(), stream(), 0, 0, 0);
    let a = gpu.zeros(4);
    // SAFETY: places for the results.
    unsafe {
        assert_eq!(hipEventCreateWithFlags(&mut event, 2), 0);
        assert_eq!(hipStreamBeginCapture(s, RELAXED), 0);
        assert_eq!(hipEventRecord(event, s), 0);
        assert_eq!(hipStreamWaitEvent(t, event, 0), 0);
        assert_eq!(hipMemsetD8Async(a.address, 1, 4, t), 0);
        assert_eq!(hipStreamEndCapture(t, &mut graph), 903);
        assert_eq!(hipEventRecord(event, t), 0);
        assert_eq!(hipStreamWaitEvent(s, event, 0), 0);
        assert_eq!(hipStreamEndCapture(s, &mut graph), 0);
        assert_eq!((hipGraphGetNodes(graph, std::ptr::null_mut(), &mut nodes), nodes), (0, 3));
    }
    assert_eq!(gpu.download::<u32>(a), [0]);
}

#[test]
fn events_measure_time() {
    let _gpu = Gpu::new();
    let (mut start, mut stop, mut untimed, mut time) = (0, 0, 0, -1.0);
    // SAFETY: places for the results.
    unsafe {
        assert_eq!(hipEventCreateWithFlags(&mut start, 0), 0);
        assert_eq!(hipEventCreateWithFlags(&mut stop, 0), 0);
        assert_eq!(hipEventCreateWithFlags(&mut untimed, 2), 0);
        assert_eq!(hipEventElapsedTime(&mut time, start, stop), 400, "not recorded");
        for event in [start, untimed, stop] {
            assert_eq!(hipEventRecord(event, 0), 0);
        }
        assert_eq!(hipEventQuery(stop), 0);
        assert_eq!(hipEventElapsedTime(&mut time, start, stop), 0);
        assert_eq!(hipEventElapsedTime(&mut time, start, untimed), 400);
    }
    assert!(time >= 0.0);
}

#[test]
fn calls_fail_and_are_counted_as_tests_ask() {
    let gpu = Gpu::new();
    let (malloc, free) = (CString::new("hipMalloc").unwrap(), CString::new("hipFree").unwrap());
    let mut pointers = [std::ptr::null_mut(); 4];
    rfemu_set_failure(malloc.as_ptr(), 3, 2);
    // SAFETY: places for the results.
    let codes: Vec<i32> = pointers.iter_mut().map(|pointer| unsafe { hipMalloc(pointer, 100) }).collect();
    assert_eq!(codes, [0, 0, 2, 0]);
    assert_eq!(rfemu_calls(malloc.as_ptr()), 4);
    assert_eq!((rfemu_live(), rfemu_live_bytes()), (3, 300));
    rfemu_set_failure(free.as_ptr(), 1, 700);
    for (pointer, code) in pointers.into_iter().zip([700, 0, 0, 0]) {
        // SAFETY: what was allocated, or NULL.
        assert_eq!(unsafe { hipFree(pointer) }, code);
    }
    assert_eq!((rfemu_live(), rfemu_live_bytes()), (0, 0), "a failing call still gives back");
    rfemu_set_failure(malloc.as_ptr(), 1, 2);
    rfemu_set_failure(malloc.as_ptr(), 0, 0);
    gpu.buffer(4);
}

#[test]
fn pinned_memory_is_seen_by_kernels() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let mut pinned = std::ptr::null_mut();
    // SAFETY: a place for the result, and four floats in it.
    let values = unsafe {
        assert_eq!(hipHostMalloc(&mut pinned, 16, 0), 0);
        std::slice::from_raw_parts_mut(pinned.cast::<f32>(), 4)
    };
    values.copy_from_slice(&[1.0, 2.0, 3.0, 4.0]);
    let buffer = common::Buffer { address: pinned as u64, bytes: 16 };
    module.launch(&gpu, "vadd", 1, 32, args![buffer, buffer, buffer, 4]);
    assert_eq!(values, [2.0, 4.0, 6.0, 8.0]);
    // SAFETY: its own allocation; hipFree is for the other kind.
    unsafe {
        assert_eq!(hipFree(pinned), 1);
        assert_eq!(hipHostFree(pinned), 0);
    }
    assert_eq!(rfemu_live(), 1, "the module");
}
