//! Matrix instructions against plain products.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use common::{Gpu, Numbers, from_f16, to_f16};

const K: usize = 48;

fn product<T: Copy>(a: &[T], b: &[T], value: impl Fn(T) -> f64) -> Vec<f64> {
    let dot = |row: &[T], column: &[T]| row.iter().zip(column).map(|(&a, &b)| value(a) * value(b)).sum();
    a.chunks(K).flat_map(|row| b.chunks(K).map(move |column| dot(row, column)).collect::<Vec<_>>()).collect()
}

#[track_caller]
fn check(got: &[f32], expected: &[f64]) {
    for (i, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!((f64::from(g) - e).abs() < 1e-5, "element {i}: {g} instead of {e}");
    }
}

#[test]
fn halves() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("matrix") else { return };
    let mut numbers = Numbers::new(1);
    let mut matrix = || -> Vec<u16> { numbers.f32s(16 * K).into_iter().map(to_f16).collect() };
    let (a, b) = (matrix(), matrix());
    let (da, db, dc) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(1024));
    module.launch(&gpu, "wmma_f16", 1, 32, args![da, db, dc, K as u32]);
    check(&gpu.download::<f32>(dc), &product(&a, &b, |x| f64::from(from_f16(x))));
}

#[test]
fn brain_floats() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("matrix") else { return };
    let mut numbers = Numbers::new(2);
    let mut matrix = || -> Vec<u16> { numbers.f32s(16 * K).into_iter().map(|x| (x.to_bits() >> 16) as u16).collect() };
    let (a, b) = (matrix(), matrix());
    let (da, db, dc) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(1024));
    module.launch(&gpu, "wmma_bf16", 1, 32, args![da, db, dc, K as u32]);
    check(&gpu.download::<f32>(dc), &product(&a, &b, |x| f64::from(f32::from_bits(u32::from(x) << 16))));
}

#[test]
fn bytes() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("matrix") else { return };
    let mut numbers = Numbers::new(3);
    let mut matrix = || -> Vec<u8> { numbers.u32s(16 * K).into_iter().map(|x| x as u8).collect() };
    let (a, b) = (matrix(), matrix());
    let (da, db, dc) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(1024));
    let signed = |x: u8| f64::from(x as i8);
    for (kernel, a_signed) in [("wmma_ii8", true), ("wmma_ui8", false)] {
        module.launch(&gpu, kernel, 1, 32, args![da, db, dc, K as u32]);
        let a: Vec<f64> = a.iter().map(|&x| if a_signed { signed(x) } else { f64::from(x) }).collect();
        let b: Vec<f64> = b.iter().map(|&x| signed(x)).collect();
        let got: Vec<f64> = gpu.download::<i32>(dc).into_iter().map(f64::from).collect();
        assert_eq!(got, product(&a, &b, |x| x), "{kernel}");
    }
}

#[test]
fn operands_that_are_not_there_twice_are_refused() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("matrix") else { return };
    let a: Vec<u16> = (0..512).map(|i| to_f16(i as f32)).collect();
    let (a, c) = (gpu.upload(&a), gpu.buffer(1024));
    let result = module.try_launch("wmma_not_replicated", [1, 1, 1], [32, 1, 1], 0, args![a, a, c]);
    assert_eq!(result, Err(719));
    assert!(gpu.message().contains("v_wmma_f32_16x16x16_f16"), "{}", gpu.message());
}
