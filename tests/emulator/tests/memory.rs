//! Kinds of memory, atomics, barriers and calls; and that wrong programs are found.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use std::ffi::CString;

use amdhip64::hip::controls::*;
use amdhip64::hip::kernel::*;
use amdhip64::hip::memory::*;
use common::{Gpu, Numbers};

#[test]
fn private_arrays() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let (input, n, rounds) = (Numbers::new(1).u32s(24), 100, 50);
    let (dx, out) = (gpu.upload(&input), gpu.buffer(4 * n));
    module.launch(&gpu, "private_array", 2, n as u32 / 2, args![dx, out, rounds]);
    let expected = |thread: u32| {
        let mut table: Vec<u32> = input.iter().map(|x| x.wrapping_add(thread)).collect();
        let mut at = thread;
        for i in 0..rounds {
            let slot = (at + i * 5) as usize % 24;
            table[slot] = table[(slot * 7 + 3) % 24].wrapping_mul(31).wrapping_add(i);
            at = table[slot] & 1023;
        }
        table.iter().fold(0u32, |sum, x| sum.wrapping_mul(3).wrapping_add(*x))
    };
    let expected: Vec<u32> = (0..n as u32).map(|i| expected(i % 50)).collect();
    assert_eq!(gpu.download::<u32>(out), expected);
}

#[test]
fn bytes_and_shorts() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let (input, n): (Vec<u8>, _) = ((0..=255).collect(), 256);
    let (dx, out, shorts, wide) = (gpu.upload(&input), gpu.buffer(n), gpu.buffer(2 * n), gpu.buffer(8 * n));
    module.launch(&gpu, "bytes", 2, 128, args![dx, out, shorts, wide, n as u32]);
    let (out, shorts, wide) = (gpu.download::<u8>(out), gpu.download::<u16>(shorts), gpu.download::<i32>(wide));
    for (i, &x) in input.iter().enumerate() {
        assert_eq!((out[i], shorts[i]), (x ^ 0x55, u16::from(x) * 257));
        assert_eq!((wide[i], wide[i + n]), (i32::from(x as i8), i32::from(shorts[i] as i16) * 3));
    }
}

#[test]
fn vectors() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let input = Numbers::new(2).u32s(4 * 64);
    let (dx, out, three) = (gpu.upload(&input), gpu.buffer(16 * 64), gpu.buffer(16 * 64));
    module.launch(&gpu, "vectors", 1, 64, args![dx, out, three]);
    let (out, three) = (gpu.download::<u32>(out), gpu.download::<u32>(three));
    for (i, x) in input.chunks(4).enumerate() {
        let reversed: Vec<u32> = x.iter().rev().map(|x| x.wrapping_add(1)).collect();
        assert_eq!(out[4 * i..4 * i + 4], reversed);
        let tripled: Vec<u32> = x[..3].iter().map(|x| x.wrapping_mul(3)).collect();
        assert_eq!(three[4 * i..4 * i + 3], tripled);
    }
}

#[test]
fn workgroup_memory_of_all_widths() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let x = Numbers::new(3).u32s(256);
    let (dx, out) = (gpu.upload(&x), gpu.buffer(1024));
    module.launch(&gpu, "local", 1, 256, args![dx, out]);
    let pair = |i: usize| u64::from(x[i]) << 32 | i as u64;
    let expected: Vec<u32> = (0..256)
        .map(|i| {
            let j = 255 - i;
            let wide: [u32; 4] = std::array::from_fn(|k| x[(j & 63) + 64 * k]);
            let p = pair(j & 127) ^ pair((j + 1) & 127);
            let mut sum = (x[j] & 0xff).wrapping_add((x[j] & 0xffff) * 3).wrapping_add(x[i] as i16 as u32);
            for (w, factor) in wide.into_iter().zip([1, 5, 7, 11]) {
                sum = sum.wrapping_add(w.wrapping_mul(factor));
            }
            sum.wrapping_add(p as u32).wrapping_add((p >> 32) as u32)
        })
        .collect();
    assert_eq!(gpu.download::<u32>(out), expected);
}

#[test]
fn atomics() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let n = 1024u32;
    let (sums, total) = (gpu.zeros(16), gpu.zeros(4));
    let (bits, wide) = (gpu.upload(&[0, u32::MAX, 0, 0, 0, 0]), gpu.upload(&[0u64, 0, 0]));
    let order = gpu.buffer(4 * n as usize);
    module.launch(&gpu, "atomics", 8, 128, args![sums, bits, wide, total, order]);
    let most = (0..n as i32).map(|i| i * 7 % 1000).max().unwrap();
    assert_eq!(gpu.download::<i32>(sums), [(0..n as i32).sum(), -3 * n as i32, -(n as i32 - 1), most]);
    let xor = (0..n).fold(0, |xor, i| xor ^ i);
    assert_eq!(gpu.download::<u32>(bits), [u32::MAX, 0xffff_0000, xor, n - 1, n, 2 * n]);
    let tripled = (0..n).fold(0u64, |x, _| x.wrapping_mul(3).wrapping_add(1));
    assert_eq!(gpu.download::<u64>(wide), [(0..u64::from(n)).map(|i| i << 20).sum(), u64::from(n - 1) << 33, tripled]);
    assert_eq!(gpu.download::<f32>(total), [n as f32 / 2.0]);
    let mut order = gpu.download::<u32>(order);
    order.sort_unstable();
    assert_eq!(order, (0..n).collect::<Vec<_>>());
}

#[test]
fn atomics_in_workgroup_memory() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let x = Numbers::new(4).u32s(256);
    let (dx, out) = (gpu.upload(&x), gpu.zeros(4 * 19));
    module.launch(&gpu, "local_atomics", 1, 256, args![dx, out]);
    let count = |bin| x.iter().filter(|&&x| x & 15 == bin).count() as u32;
    let mut expected: Vec<u32> = (0..16).map(count).collect();
    expected.extend([256, 256, 0]);
    assert_eq!(gpu.download::<u32>(out), expected);
}

#[test]
fn functions_are_called() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(4 * 128);
    module.launch(&gpu, "calls", 2, 64, args![out]);
    let scramble = |x: u32, rounds: u32| (0..rounds).fold(x, |x, _| x.wrapping_mul(1664525).wrapping_add(1013904223));
    let expected: Vec<u32> = (0..128)
        .map(|i| {
            let mut stack = [1, 2, 3, 4];
            stack[i as usize & 3] += i;
            let x = scramble(i, 2).wrapping_add(stack[(i as usize + 1) & 3]);
            x ^ scramble(x, i % 64 & 7) ^ stack[i as usize & 3]
        })
        .collect();
    assert_eq!(gpu.download::<u32>(out), expected);
}

#[test]
fn global_variables() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(4 * 32);
    for first in [17, 18] {
        module.launch(&gpu, "globals", 1, 32, args![out]);
        let table = [3, 1, 4, 1, 5, 9, 2, 6];
        let expected: Vec<u32> = (0..32).map(|i| table[i & 7] + if i == 0 { first } else { 0 }).collect();
        assert_eq!(gpu.download::<u32>(out), expected);
    }
    let (mut address, mut size, name) = (0, 0, CString::new("counter").unwrap());
    // SAFETY: places for both results.
    assert_eq!(unsafe { hipModuleGetGlobal(&mut address, &mut size, module.handle, name.as_ptr()) }, 0);
    let mut value = 0u32;
    // SAFETY: four bytes on both sides.
    assert_eq!(unsafe { hipMemcpyDtoH((&raw mut value).cast(), address, 4) }, 0);
    assert_eq!((size, value), (4, 18));
}

#[test]
fn grids_of_three_dimensions() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let (w, h, d) = (12, 10, 6);
    let out = gpu.buffer(4 * w * h * d);
    module.launch_shaped(&gpu, "place", ([3, 2, 2], [4, 5, 3], 0), args![out]);
    let out = gpu.download::<u32>(out);
    for (i, got) in out.into_iter().enumerate() {
        assert_eq!(got as usize, i % w | (i / w % h) << 8 | (i / w / h) << 16);
    }
}

#[test]
fn blocks_of_a_cooperative_launch_wait_for_each_other() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let (blocks, rounds) = (40u32, 5u32);
    let (arrived, sums) = (gpu.zeros(4), gpu.zeros(4 * 8));
    let function = module.function("grid_barrier").unwrap();
    let (mut a, mut s, mut r, mut b) = (arrived.address, sums.address, rounds, blocks);
    let mut list = [(&raw mut a).cast(), (&raw mut s).cast(), (&raw mut r).cast(), (&raw mut b).cast()];
    // SAFETY: the kernel's four arguments.
    let launch = |blocks, list: *mut _| unsafe {
        hipModuleLaunchCooperativeKernel(function, blocks, 1, 1, 64, 1, 1, 0, 0, list)
    };
    assert_eq!(launch(blocks, list.as_mut_ptr()), 0, "{}", gpu.message());
    let sum = blocks * (blocks + 1) / 2;
    assert_eq!(gpu.download::<u32>(sums), [0, sum, sum, sum, sum, sum, 0, 0]);
    assert_eq!(launch(100_000, list.as_mut_ptr()), 720);
}

#[test]
fn a_missing_barrier_shows_under_some_seed() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let x: Vec<u32> = (0..256).collect();
    let (dx, out) = (gpu.upload(&x), gpu.buffer(1024));
    let expected: Vec<u32> = (0..256).rev().collect();
    let wrong = (1..20).filter(|&seed| {
        rfemu_set_seed(seed);
        module.launch(&gpu, "missing_barrier", 1, 256, args![dx, out]);
        gpu.download::<u32>(out) != expected
    });
    assert!(wrong.count() > 0);
}

#[test]
fn results_repeat_with_the_seed() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(128);
    let run = |seed| {
        rfemu_set_seed(seed);
        module.launch_shaped(&gpu, "uninitialised", ([1, 1, 1], [32, 1, 1], 128), args![out]);
        gpu.download::<u32>(out)
    };
    let first = run(1);
    assert_eq!(run(1), first);
    assert_ne!(run(2), first);
}

#[test]
fn a_store_out_of_bounds_is_named_and_loses_the_device() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(128);
    assert_eq!(module.try_launch("out_of_bounds", [1, 1, 1], [32, 1, 1], 0, args![out]), Err(700));
    let message = gpu.message();
    let parts = ["lane 31", "out_of_bounds", "global_store_b32", &format!("{:#x}", out.address + 128)];
    for part in parts {
        assert!(message.contains(part), "{message}");
    }
    let mut pointer = std::ptr::null_mut();
    // SAFETY: a place for the result.
    assert_eq!(unsafe { hipMalloc(&mut pointer, 16) }, 700, "the device is lost");
    rfemu_reset();
    // SAFETY: as above.
    assert_eq!(unsafe { hipMalloc(&mut pointer, 16) }, 0);
}

#[test]
fn freed_memory_is_named() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(128);
    // SAFETY: its own allocation.
    assert_eq!(unsafe { hipFree(out.address as *mut _) }, 0);
    assert_eq!(module.try_launch("uninitialised", [1, 1, 1], [32, 1, 1], 128, args![out]), Err(700));
    assert!(gpu.message().contains("was freed"), "{}", gpu.message());
}

#[test]
fn workgroup_memory_has_an_end() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.buffer(128);
    module.launch(&gpu, "local_out_of_bounds", 1, 32, args![out, 0]);
    assert_eq!(module.try_launch("local_out_of_bounds", [1, 1, 1], [32, 1, 1], 0, args![out, 1]), Err(700));
    assert!(gpu.message().contains("ds_load_b32") && gpu.message().contains("lane 31"), "{}", gpu.message());
}

#[test]
fn traps_and_endless_loops_end() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.upload(&[1u32]);
    assert_eq!(module.try_launch("trap", [1, 1, 1], [32, 1, 1], 0, args![out]), Err(719));
    assert!(gpu.message().contains("trap"), "{}", gpu.message());
    // SAFETY: only tests that hold the lock read the environment.
    unsafe { std::env::set_var("RFEMU_LIMIT", "1000000") };
    rfemu_reset();
    // SAFETY: as above.
    unsafe { std::env::remove_var("RFEMU_LIMIT") };
    let Some(module) = gpu.load("memory") else { return };
    let out = gpu.zeros(4);
    assert_eq!(module.try_launch("endless", [1, 1, 1], [32, 1, 1], 0, args![out]), Err(702));
}
