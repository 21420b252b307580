//! f16 arithmetic, bit by bit: what f64 arithmetic, rounded once, gives.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use common::{Gpu, Numbers, from_f16, to_f16};

const N: usize = 512;

/// What a row of a kernel's output is called, and how it is computed.
type Operation = (&'static str, fn(u16, u16) -> u16);

/// Pairs of f16, of all magnitudes.
fn pairs(seed: u64) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    let mut half = || {
        let scale = 2f32.powi((numbers.u32() % 24) as i32 - 16);
        u32::from(to_f16(numbers.f32() * scale))
    };
    (0..N).map(|_| half() | half() << 16).collect()
}

fn split(word: u32) -> [f64; 2] {
    [f64::from(from_f16(word as u16)), f64::from(from_f16((word >> 16) as u16))]
}

/// f16 of an f64: rounded to odd as f32 on the way, so that it is rounded once.
fn round(x: f64) -> u16 {
    let near = x as f32;
    let bits = near.to_bits();
    if f64::from(near) == x || !x.is_finite() || bits & 1 == 1 {
        return to_f16(near);
    }
    to_f16(f32::from_bits(if (f64::from(near).abs()) < x.abs() { bits + 1 } else { bits - 1 }))
}

fn join(halves: [f64; 2]) -> u32 {
    u32::from(round(halves[0])) | u32::from(round(halves[1])) << 16
}

#[track_caller]
fn compare(name: &str, got: &[u32], expected: impl Fn(usize) -> u32) {
    for (i, &got) in got.iter().enumerate() {
        assert_eq!(got, expected(i), "{name}, element {i}: {:?} instead of {:?}", split(got), split(expected(i)));
    }
}

#[test]
fn two_at_a_time() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("half") else { return };
    let (a, b, c) = (pairs(1), pairs(2), pairs(3));
    let (da, db, dc, out) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c), gpu.buffer(4 * 8 * N));
    module.launch(&gpu, "packed", N as u32 / 128, 128, args![da, db, dc, out, N as u32]);
    let out = gpu.download::<u32>(out);
    let each = |i: usize, f: &dyn Fn(f64, f64, f64) -> f64| {
        let (a, b, c) = (split(a[i]), split(b[i]), split(c[i]));
        join([f(a[0], b[0], c[0]), f(a[1], b[1], c[1])])
    };
    let row = |k: usize| &out[k * N..(k + 1) * N];
    compare("add", row(0), |i| each(i, &|a, b, _| a + b));
    compare("sub", row(1), |i| each(i, &|a, _, c| a - c));
    compare("mul", row(2), |i| each(i, &|a, b, _| a * b));
    compare("fma", row(3), |i| each(i, &|a, b, c| a * b + c));
    compare("max", row(4), |i| each(i, &|a, b, _| a.max(b)));
    compare("min", row(5), |i| each(i, &|a, b, _| a.min(b)));
    compare("swapped", row(6), |i| {
        let (a, b) = (split(a[i]).map(|x| f64::from(from_f16(round(x * 0.5)))), split(b[i]));
        join([a[1] + b[0], a[0] + b[1]])
    });
    compare("negated", row(7), |i| {
        let (a, b) = (split(a[i]), split(b[i]));
        join([-a[0] + b[1], -a[1] + b[0]])
    });
}

#[test]
fn two_integers_at_a_time() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("half") else { return };
    let mut numbers = Numbers::new(4);
    let (a, b) = (numbers.u32s(N), numbers.u32s(N));
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 9 * N));
    module.launch(&gpu, "packed_integers", N as u32 / 128, 128, args![da, db, out, N as u32]);
    let out = gpu.download::<u32>(out);
    let operations: [Operation; 9] = [
        ("add", |a, b| a.wrapping_add(b)),
        ("sub", |a, b| a.wrapping_sub(b)),
        ("mul", |a, b| a.wrapping_mul(b)),
        ("shl", |a, _| a << 3),
        ("shr", |a, _| a >> 5),
        ("sar", |a, _| (a as i16 >> 2) as u16),
        ("max", |a, b| a.max(b)),
        ("min", |a, b| (a as i16).min(b as i16) as u16),
        ("mad", |a, b| a.wrapping_mul(b).wrapping_add(7)),
    ];
    for (k, (name, f)) in operations.iter().enumerate() {
        for i in 0..N {
            let expected =
                u32::from(f(a[i] as u16, b[i] as u16)) | u32::from(f((a[i] >> 16) as u16, (b[i] >> 16) as u16)) << 16;
            assert_eq!(out[k * N + i], expected, "{name} of {:#x} and {:#x}", a[i], b[i]);
        }
    }
}

#[test]
fn one_at_a_time_and_mixed() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("half") else { return };
    let halves = |seed| pairs(seed).into_iter().map(|x| x as u16).collect::<Vec<u16>>();
    let (a, b) = (halves(5), halves(6));
    let (da, db, out, wide) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(2 * 7 * N), gpu.buffer(4 * 3 * N));
    module.launch(&gpu, "single", N as u32 / 128, 128, args![da, db, out, wide, N as u32]);
    let (out, wide) = (gpu.download::<u16>(out), gpu.download::<f32>(wide));
    for i in 0..N {
        let (x, y) = (f64::from(from_f16(a[i])), f64::from(from_f16(b[i])));
        let (fx, fy) = (x as f32, y as f32);
        assert_eq!(out[i], round(x + y), "{x} + {y}");
        // The compiler may fuse the multiplication and the subtraction.
        let fused = [round(x * y - x), round(f64::from(from_f16(round(x * y))) - x)];
        assert!(fused.contains(&out[i + N]), "{x} * {y} - {x}");
        assert_eq!(out[i + 2 * N], round(x.abs().sqrt()), "sqrt {x}");
        if y != 0.0 {
            assert_eq!(out[i + 3 * N], round(x / y), "{x} / {y}");
        }
        assert_eq!(out[i + 4 * N], round(x.trunc() + 0.0), "trunc {x}");
        assert_eq!(out[i + 5 * N], if x > y { a[i] } else { to_f16(2.0) }, "select {x} {y}");
        assert_eq!(out[i + 6 * N], to_f16(fx.mul_add(fy, 1.5)), "mixed fma {x} {y}");
        assert_eq!(wide[i], fx.mul_add(fy, fx), "mixed fma {x} {y}");
        assert_eq!(wide[i + N], fx.mul_add(fy, 0.25), "mixed fma {x} {y}");
        assert_eq!(wide[i + 2 * N], -fx);
    }
}

#[test]
fn products_of_pairs() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("half") else { return };
    let (a, b, c) = (pairs(7), pairs(8), Numbers::new(9).f32s(N));
    let (da, db, dc, out) = (gpu.upload(&a), gpu.upload(&b), gpu.upload(&c), gpu.buffer(4 * 2 * N));
    module.launch(&gpu, "dot2", N as u32 / 128, 128, args![da, db, dc, out, N as u32]);
    let out = gpu.download::<f32>(out);
    for i in 0..N {
        let (x, y) = (split(a[i]), split(b[i]));
        let exact = x[0] * y[0] + x[1] * y[1];
        let close = |got: f32, exact: f64| (f64::from(got) - exact).abs() <= 2e-6 * exact.abs().max(1.0);
        assert!(close(out[i], exact + f64::from(c[i])), "element {i}");
        assert!(close(out[i + N], exact + 0.5), "element {i}");
    }
}

#[test]
fn rounding() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("half") else { return };
    let mut numbers = Numbers::new(10);
    let mut values: Vec<f32> = (0..480).map(|_| numbers.f32() * 2f32.powi((numbers.u32() % 44) as i32 - 27)).collect();
    values.extend([0.0, -0.0, 65504.0, 65519.9, 65520.0, 1e9, f32::INFINITY, f32::NAN, 5.96e-8, 2.98e-8, 2.99e-8]);
    values.extend([2.9e-8, 6.1e-5, 6.103e-5, 1.0004883, 1.0014648, 1e-40, -65520.0, 2049.0, 2051.0, 4098.0, 4102.0]);
    values.resize(N, 1.0);
    let (dv, nearest, zero) = (gpu.upload(&values), gpu.buffer(2 * N), gpu.buffer(4 * N));
    module.launch(&gpu, "to_half", N as u32 / 128, 128, args![dv, nearest, zero]);
    let (nearest, zero) = (gpu.download::<u16>(nearest), gpu.download::<u32>(zero));
    for i in 0..N {
        let x = values[i];
        if x.is_nan() {
            assert!(from_f16(nearest[i]).is_nan());
            continue;
        }
        assert_eq!(nearest[i], to_f16(x), "{x}");
        let (towards, other) = (from_f16(zero[i] as u16), from_f16((zero[i] >> 16) as u16));
        assert_eq!(towards, -other);
        assert!(towards.abs() <= x.abs(), "{x} became {towards}");
        let next = from_f16((zero[i] as u16 & 0x7fff) + 1);
        assert!(x.is_infinite() || next > x.abs() || next.is_infinite(), "{x} became {towards}");
    }
}
