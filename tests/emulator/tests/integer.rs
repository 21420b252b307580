//! Integers, conversions and division, bit by bit.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use common::{Gpu, Numbers};

const N: usize = 1024;

/// What a row of a kernel's output is called, and how it is computed.
type Operation<T> = (&'static str, fn(T, T) -> T);

/// Random words, some of them near the ends of their range.
fn words(seed: u64) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    let special = [0, 1, 2, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0xffff_fffe, 31, 32, 33, 0x00ff_ffff];
    (0..N).map(|i| if i % 5 == 0 { special[numbers.u32() as usize % 11] } else { numbers.u32() >> (i % 29) }).collect()
}

fn wide_words(seed: u64) -> Vec<u64> {
    let (low, high) = (words(seed), words(seed + 100));
    low.iter().zip(high).map(|(&low, high)| u64::from(low) | u64::from(high) << 32).collect()
}

#[test]
fn of_64_bits() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let (a, b) = (wide_words(1), wide_words(2));
    let operations: [Operation<u64>; 14] = [
        ("add", |x, y| x.wrapping_add(y)),
        ("sub", |x, y| x.wrapping_sub(y)),
        ("mul", |x, y| x.wrapping_mul(y)),
        ("div", |x, y| x.checked_div(y).unwrap_or(0)),
        ("rem", |x, y| x.checked_rem(y).unwrap_or(0)),
        ("signed div", |x, y| if y == 0 { 0 } else { (x as i64).wrapping_div(y as i64) as u64 }),
        ("shl", |x, y| x << (y & 63)),
        ("shr", |x, y| x >> (y & 63)),
        ("sar", |x, y| (x as i64 >> (y & 63)) as u64),
        ("min", |x, y| if (x as i64) < y as i64 { x } else { y }),
        ("less", |x, y| if x < y { 1 } else { 2 }),
        ("mad", |x, y| (x & 0xffff_ffff).wrapping_mul(y & 0xffff_ffff).wrapping_add(x)),
        ("signed mad", |x, y| (i64::from(x as i32) * i64::from(y as i32)).wrapping_add(y as i64) as u64),
        ("counts", |x, y| u64::from(x.count_ones() + (x | 1).leading_zeros() + (y | 1 << 63).trailing_zeros())),
    ];
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(8 * N * operations.len()));
    module.launch(&gpu, "wide", N as u32 / 256, 256, args![da, db, out, N as u32]);
    let out = gpu.download::<u64>(out);
    for (k, (name, f)) in operations.iter().enumerate() {
        for i in 0..N {
            assert_eq!(out[k * N + i], f(a[i], b[i]), "{name} of {:#x} and {:#x}", a[i], b[i]);
        }
    }
}

#[test]
fn of_32_bits() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let (a, b) = (words(3), words(4));
    let operations: [Operation<u32>; 27] = [
        ("mul", |x, y| x.wrapping_mul(y)),
        ("mul hi", |x, y| (u64::from(x) * u64::from(y) >> 32) as u32),
        ("signed mul hi", |x, y| (i64::from(x as i32) * i64::from(y as i32) >> 32) as u32),
        ("div", |x, y| x.checked_div(y).unwrap_or(0)),
        ("signed rem", |x, y| if y == 0 { 0 } else { (x as i32).wrapping_rem(y as i32) as u32 }),
        ("field", |x, _| x >> 7 & 0x1ff),
        ("signed field", |x, _| ((x << 9) as i32 >> 21) as u32),
        ("insert", |x, y| x & 0xff00ff | y & !0xff00ff),
        ("rotate", |x, _| x.rotate_left(13)),
        ("perm", |x, y| {
            let bytes = [y.to_le_bytes(), x.to_le_bytes()].concat();
            u32::from_le_bytes([bytes[5], 0, bytes[2], bytes[7]])
        }),
        ("alignbit", |x, y| ((u64::from(x) << 32 | u64::from(y)) >> 11) as u32),
        ("reverse", |x, y| x.reverse_bits().wrapping_add(y.swap_bytes())),
        ("lshl add", |x, y| (x << 3).wrapping_add(y)),
        ("add lshl", |x, y| x.wrapping_add(y) << 5),
        ("lshl or", |x, y| x << 4 | y),
        ("and or", |x, y| x & y | 12345),
        ("add3", |x, y| x.wrapping_add(y).wrapping_add(77)),
        ("saturating add", |x, y| x.saturating_add(y)),
        ("saturating sub", |x, y| (x as i32).saturating_sub(y as i32) as u32),
        ("min and max", |x, y| ((x as i32).min(y as i32) as u32) ^ x.max(y)),
        ("counts", |x, y| (x | 1).leading_zeros() * 100 + (y | 1 << 31).trailing_zeros()),
        ("24 bits", |x, y| (x & 0xffffff).wrapping_mul(y & 0xffffff).wrapping_add(x)),
        ("16 bits", |x, y| u32::from((x as u16).wrapping_mul(y as u16).wrapping_add(3))),
        ("16-bit shift", |x, y| i32::from(x as i16 >> (y & 15)) as u32),
        ("xad", |x, y| (x ^ y).wrapping_add(99)),
        ("sad", |x, y| {
            let (x, y) = (x.to_le_bytes(), y.to_le_bytes());
            5 + (0..4).map(|i| u32::from(x[i].abs_diff(y[i]))).sum::<u32>()
        }),
        ("clamp", |x, _| (x as i32).clamp(-5, 3) as u32),
    ];
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * N * operations.len()));
    module.launch(&gpu, "narrow", N as u32 / 256, 256, args![da, db, out, N as u32]);
    let out = gpu.download::<u32>(out);
    for (k, (name, f)) in operations.iter().enumerate() {
        for i in 0..N {
            assert_eq!(out[k * N + i], f(a[i], b[i]), "{name} of {:#x} and {:#x}", a[i], b[i]);
        }
    }
}

#[test]
fn dot_products() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let (a, b) = (words(5), words(6));
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 5 * N));
    module.launch(&gpu, "dots", N as u32 / 256, 256, args![da, db, out, N as u32]);
    let out = gpu.download::<i32>(out);
    for i in 0..N {
        let (x, y) = (a[i].to_le_bytes(), b[i].to_le_bytes());
        let dot = |f: &dyn Fn(usize) -> i32| (0..4).map(f).sum::<i32>();
        let signed = dot(&|k| i32::from(x[k] as i8) * i32::from(y[k] as i8));
        assert_eq!(out[i], signed + 7);
        assert_eq!(out[i + N], dot(&|k| i32::from(x[k]) * i32::from(y[k] as i8)) - 9);
        assert_eq!(out[i + 2 * N], dot(&|k| i32::from(x[k]) * i32::from(y[k])) + 1);
        assert_eq!(out[i + 3 * N], 0x7ffffff0i32.saturating_add(signed));
        let nibbles = (0..8).map(|k| ((a[i] << (28 - 4 * k)) as i32 >> 28) * (b[i] >> (4 * k) & 15) as i32);
        assert_eq!(out[i + 4 * N], nibbles.sum::<i32>() + 3);
    }
}

#[test]
fn conversions() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let mut numbers = Numbers::new(7);
    let mut floats: Vec<f32> = (0..N).map(|_| numbers.f32() * 2f32.powi((numbers.u32() % 28) as i32)).collect();
    floats[..8].copy_from_slice(&[0.5, 1.5, 2.5, -0.5, -1.5, 0.49999997, -0.0, 8388609.0]);
    let bits = words(8);
    let (da, db) = (gpu.upload(&floats), gpu.upload(&bits));
    let (out, integers) = (gpu.buffer(4 * 8 * N), gpu.buffer(4 * 5 * N));
    module.launch(&gpu, "conversions", N as u32 / 256, 256, args![da, db, out, integers, N as u32]);
    let (out, integers) = (gpu.download::<f32>(out), gpu.download::<u32>(integers));
    for i in 0..N {
        let (x, w) = (floats[i], bits[i]);
        let got: Vec<f32> = (0..8).map(|k| out[k * N + i]).collect();
        let expected = [
            w as i32 as f32,
            w as f32,
            w.to_le_bytes().iter().map(|&b| f32::from(b)).sum(),
            f32::from(w as i8),
            got[4],
            u64::from(w).wrapping_mul(u64::from(w)) as f32,
            (u64::from(w) << 31) as i64 as f32,
            f64::from(x).mul_add(3.0, f64::from(w)) as f32,
        ];
        assert_eq!(got, expected, "{x} {w:#x}");
        // Products with powers of two are exact, the sums are fused or not.
        let rounded = x.trunc() + x.floor() * 2.0 + x.ceil() * 4.0 + x.round_ties_even() * 8.0;
        assert!((got[4] - rounded).abs() <= rounded.abs() * 1e-6, "rounding {x}: {} {rounded}", got[4]);
        let got: Vec<u32> = (0..5).map(|k| integers[k * N + i]).collect();
        let expected = [
            x as i32 as u32,
            if x < 0.0 { 0 } else { x as u32 },
            x as i64 as u32,
            (x + 0.5).floor() as i32 as u32,
            (f64::from(x) * 1.5) as i32 as u32,
        ];
        assert_eq!(got, expected, "{x}");
    }
}

#[test]
fn floats_are_divided_exactly() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let mut numbers = Numbers::new(9);
    let mut float = |spread: u32| numbers.f32() * 2f32.powi((numbers.u32() % (2 * spread)) as i32 - spread as i32);
    let mut a: Vec<f32> = (0..N).map(|i| float(if i % 2 == 0 { 126 } else { 8 })).collect();
    let mut b: Vec<f32> = (0..N).map(|i| float(if i % 2 == 0 { 126 } else { 8 })).collect();
    let (inf, nan, tiny) = (f32::INFINITY, f32::NAN, f32::from_bits(3));
    a[..12].copy_from_slice(&[0.0, 1.0, -1.0, inf, inf, nan, 1.0, tiny, 1.0, 3e38, 1e-38, tiny]);
    b[..12].copy_from_slice(&[1.0, 0.0, 0.0, inf, 2.0, 1.0, inf, 2.0, tiny, 1e-5, 3e38, tiny]);
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 8 * N));
    module.launch(&gpu, "float_division", N as u32 / 256, 256, args![da, db, out, N as u32]);
    let out = gpu.download::<f32>(out);
    let same = |a: f32, b: f32| a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan();
    for i in 0..N {
        let (x, y) = (a[i], b[i]);
        let got: Vec<f32> = (0..8).map(|k| out[k * N + i]).collect();
        assert!(same(got[0], x / y), "{x:e} / {y:e}: {:e} instead of {:e}", got[0], x / y);
        if i % 2 == 1 && i > 12 {
            assert_eq!(got[1], (-y).mul_add((x / y).trunc(), x), "{x} {y}");
        }
        assert!(same(got[2], x.abs().sqrt()), "sqrt {x:e}: {:e}", got[2]);
        assert!(same(got[4], x * 2f32.powi(y as i32 & 7)), "ldexp {x:e} {y:e}");
        assert!(same(got[5], x.mul_add(y, -x)), "fma {x:e} {y:e}");
        if i > 12 {
            assert_eq!(got[3], x.max(y) - x.min(y));
            assert_eq!(got[6], x.min(y).max(x.max(y).min(1.0)));
        }
        let class = if x.is_nan() || y.is_infinite() { 1.0 } else { 2f32.copysign(x) };
        assert_eq!(got[7], class, "class {x:e} {y:e}");
    }
}

#[test]
fn subnormal_numbers_are_zero_if_the_kernel_says_so() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("flushed") else { return };
    let (a, b) = ([1e-38f32, 1e-39, -1e-20, 3.0, 6.0, 1e-39], [0.5f32, 1.0, 1e-20, 1e-39, -1.5, 1e-39]);
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 24));
    module.launch(&gpu, "flushed", 1, 6, args![da, db, out]);
    let out = gpu.download::<f32>(out);
    assert_eq!(out[..6], [0.0, 0.0, 0.0, 0.0, -9.0, 0.0]);
    assert_eq!(out[6..12], [0.5, 1.0, 0.0, 3.0, 4.5, 0.0]);
    assert_eq!(out[14..17], [-1.0, f32::INFINITY, -4.0]);
    assert_eq!(out[18..], [0.0, 0.0, 1.0, 1.0, 1.0, 0.0], "comparisons with zero");
    assert_eq!(std::hint::black_box(1e-38f32) * std::hint::black_box(0.5), 5e-39, "the host's mode is as it was");
}

#[test]
fn doubles() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("integer") else { return };
    let mut numbers = Numbers::new(11);
    let mut double = || f64::from(numbers.f32()) * 1000.0 + f64::from(numbers.f32()) * 1e-6;
    let a: Vec<f64> = (0..N).map(|_| double()).collect();
    let b: Vec<f64> = (0..N).map(|_| double()).collect();
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(8 * 5 * N));
    module.launch(&gpu, "doubles", N as u32 / 256, 256, args![da, db, out, N as u32]);
    let out = gpu.download::<f64>(out);
    for i in 0..N {
        let (x, y) = (a[i], b[i]);
        let got: Vec<f64> = (0..5).map(|k| out[k * N + i]).collect();
        assert_eq!(got, [x + y, x.mul_add(y, -x), x / y, x.floor() + y.abs(), x.min(y)]);
    }
}
