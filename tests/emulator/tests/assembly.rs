//! Instructions and modifiers that the compiler rarely chooses, written out.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use common::{Gpu, Numbers};

const N: usize = 256;

/// Words of all sizes, signed and not.
fn words(seed: u64) -> Vec<u32> {
    let mut numbers = Numbers::new(seed);
    (0..N).map(|i| ((numbers.u32() as i32) >> (i % 30)) as u32).collect()
}

fn pair(low: u32, high: u32) -> u32 {
    low & 0xffff | high << 16
}

#[test]
fn vector_instructions() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("assembly") else { return };
    let (a, b) = (words(1), words(2));
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 16 * N));
    module.launch(&gpu, "vector", 2, 128, args![da, db, out, N as u32]);
    let out = gpu.download::<u32>(out);
    for i in 0..N {
        let (x, y) = (a[i], b[i]);
        let (sx, sy) = (x as i32, y as i32);
        let (low, signed) = (|x: u32| u64::from(x & 0xffffff), |x: i32| i64::from(x << 8 >> 8));
        let same = (x ^ (sx >> 31) as u32).leading_zeros() as i32;
        let expected = [
            ((u64::from(x) << 32 | u64::from(y)) >> 24) as u32,
            ((1u32 << (x & 31)) - 1) << (y & 31),
            (if same == 32 { -1 } else { same }) as u32,
            (low(x) * low(y) >> 32) as u32,
            (signed(sx) * signed(sy) >> 32) as u32,
            (x as i16).clamp(0, 255) as u32 | ((x >> 16) as i16).clamp(0, 255) as u32 * 256,
            pair(sx.clamp(-32768, 32767) as u32, sy.clamp(-32768, 32767) as u32),
            pair(x.min(65535), y.min(65535)),
            (x ^ y).wrapping_add(7),
            sx.min(sy).max(100) as u32,
            x.max(y).min(100),
            x.saturating_sub(y),
            y.wrapping_sub(x),
            sx.min(sy).max(sx.max(sy).min(-3)) as u32,
            (x >> 16).wrapping_mul(y & 0xffff).wrapping_add(9),
            (((x << 28) as i32 >> 28) as f32 / 16.0).to_bits(),
        ];
        let got: Vec<u32> = (0..16).map(|k| out[k * N + i]).collect();
        assert_eq!(got, expected, "{x:#x} {y:#x}");
    }
}

#[test]
fn modifiers() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("assembly") else { return };
    let mut numbers = Numbers::new(3);
    let (mut a, b) = (numbers.f32s(N), numbers.f32s(N));
    a[5] = 0.0;
    let (da, db, out) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * 11 * N));
    module.launch(&gpu, "modifiers", 2, 128, args![da, db, out, N as u32]);
    let out = gpu.download::<f32>(out);
    let (pi, turn) = (std::f32::consts::PI, 0.15915494f32);
    for i in 0..N {
        let (x, y) = (a[i], b[i]);
        let expected = [
            (x + y) * 2.0,
            x * y.abs() / 2.0,
            (-x.abs()).mul_add(y, 0.5).clamp(0.0, 1.0),
            x.max(-y).max(0.0),
            x.mul_add(turn, -y),
            a[i ^ 1] - y,
            x.mul_add(y, pi),
            x.mul_add(pi, y),
            x * y,
            x - x.floor(),
            f32::from_bits(u32::from(x.round_ties_even() as u8) << 8),
        ];
        let got: Vec<f32> = (0..11).map(|k| out[k * N + i]).collect();
        assert_eq!(got, expected, "{x} {y}");
    }
}

#[test]
fn dual_instructions_read_before_they_write() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("assembly") else { return };
    let x = Numbers::new(4).u32s(64);
    let (dx, out) = (gpu.upload(&x), gpu.buffer(512));
    module.launch(&gpu, "dual", 1, 32, args![dx, out]);
    let out = gpu.download::<u32>(out);
    for i in 0..32 {
        let (a, b) = (x[i], x[i + 32]);
        let got = [out[i], out[i + 32], out[i + 64], out[i + 96]];
        // The second pair starts from the first one's results.
        let selected = if i % 2 == 1 { a } else { b };
        assert_eq!(got, [b, a, a.wrapping_add(b), selected], "lane {i}");
    }
}

#[test]
fn scalar_instructions() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("assembly") else { return };
    let out = gpu.buffer(4 * 40);
    for (x, y) in [(5u32, 7u32), (0x8000_0001, 0x7fff_fff8), (0xffff_fff0, 0x1234_5678), (0, 0xffff_ffff)] {
        module.launch(&gpu, "scalar", 1, 32, args![x, y, out]);
        let (sx, sy) = (x as i32, y as i32);
        let same = (x ^ (sx >> 31) as u32).leading_zeros() as i32;
        let wide = (u64::from(y) << 32 | u64::from(x)) as i64 >> 40;
        // The result and SCC, where the instruction sets it.
        let expected: [(u32, Option<bool>); 20] = [
            (x.wrapping_add(y), Some(x.checked_add(y).is_none())),
            (x.wrapping_sub(y), Some(x < y)),
            (x.wrapping_add(y), Some(sx.checked_add(sy).is_none())),
            ((sx << 20 >> 25) as u32, Some(sx << 20 >> 25 != 0)),
            (x, Some(x != 0)),
            (x >> 16 | y << 16, None),
            (x.count_zeros(), Some(x != u32::MAX)),
            ((if same == 32 { -1 } else { same }) as u32, None),
            (sx.wrapping_sub(sy).wrapping_abs() as u32, Some(x != y)),
            ((x << 3).wrapping_add(y), Some((u64::from(x) << 3) + u64::from(y) >> 32 != 0)),
            (y | 1 << (x & 31), None),
            (sx.wrapping_add(-32768) as u32, Some(sx.checked_add(-32768).is_none())),
            (x, Some(x < 0x8000)),
            (wide as u32, Some(wide != 0)),
            (sx.min(sy) as u32, Some(sx < sy)),
            (x.max(y), Some(x >= y)),
            ((i64::from(sx) * i64::from(sy) >> 32) as u32, None),
            (x | !y, Some(x | !y != 0)),
            (i32::from(x as i8) as u32, Some((x as i8) < 0)),
            (31 << 9, Some(x >> 3 & 1 != 0)),
        ];
        let out = gpu.download::<u32>(out);
        for (k, (value, scc)) in expected.into_iter().enumerate() {
            assert_eq!(out[2 * k], value, "instruction {k} of {x:#x} and {y:#x}");
            if let Some(scc) = scc {
                assert_eq!(out[2 * k + 1], u32::from(scc), "SCC of instruction {k} of {x:#x} and {y:#x}");
            }
        }
    }
}
