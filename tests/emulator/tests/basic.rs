//! The kernels of a small language model, against plain Rust.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use std::time::Instant;

use common::{Gpu, Numbers, assert_close, from_f16, to_f16};

#[test]
fn vectors_are_added() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let mut numbers = Numbers::new(1);
    for n in [1, 31, 32, 1000, 4097] {
        let (a, b) = (numbers.f32s(n), numbers.f32s(n));
        let (da, db, dc) = (gpu.upload(&a), gpu.upload(&b), gpu.buffer(4 * n));
        module.launch(&gpu, "vadd", (n as u32).div_ceil(256), 256, args![da, db, dc, n as u32]);
        let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        assert_eq!(gpu.download::<f32>(dc), expected);
    }
}

#[test]
fn rows_are_normalised() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (mut numbers, rows, n) = (Numbers::new(2), 3, 1000);
    let (x, w) = (numbers.f32s(rows * n), numbers.f32s(n));
    let (dx, dw, dy) = (gpu.upload(&x), gpu.upload(&w), gpu.buffer(4 * rows * n));
    module.launch(&gpu, "rmsnorm", rows as u32, 256, args![dx, dw, dy, n as u32, 1e-5f32]);
    let mut expected = Vec::new();
    for row in x.chunks(n) {
        let mean = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n as f64;
        let scale = 1.0 / (mean + 1e-5).sqrt();
        expected.extend(row.iter().zip(&w).map(|(&x, &w)| (f64::from(x) * scale * f64::from(w)) as f32));
    }
    assert_close(&gpu.download::<f32>(dy), &expected, 1e-6);
}

/// Blocks of Q4_0 weights and Q8_0 activations, as bytes.
struct Product {
    weights: Vec<u8>,
    activations: Vec<u8>,
    rows: usize,
    blocks: usize,
}

impl Product {
    fn new(rows: usize, blocks: usize) -> Product {
        let mut numbers = Numbers::new(3);
        let mut block = |bytes: usize| {
            let mut block = to_f16(numbers.f32() * 0.1).to_le_bytes().to_vec();
            block.extend((0..bytes).map(|_| numbers.u32() as u8));
            block
        };
        let weights = (0..rows * blocks).flat_map(|_| block(16)).collect();
        let activations = (0..blocks).flat_map(|_| block(32)).collect();
        Product { weights, activations, rows, blocks }
    }

    fn row(&self, row: usize) -> f32 {
        let weights = self.weights.chunks(18).skip(row * self.blocks);
        let mut sum = 0.0;
        for (w, x) in weights.zip(self.activations.chunks(34)) {
            let scale = |block: &[u8]| f64::from(from_f16(u16::from_le_bytes([block[0], block[1]])));
            let nibble = |i: usize| i32::from(if i < 16 { w[2 + i] & 15 } else { w[2 + i - 16] >> 4 }) - 8;
            let dot: i32 = (0..32).map(|i| nibble(i) * i32::from(x[2 + i] as i8)).sum();
            sum += scale(w) * scale(x) * f64::from(dot);
        }
        sum as f32
    }
}

#[test]
fn quantised_rows_are_multiplied() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let product = Product::new(70, 40);
    let (w, x, y) = (gpu.upload(&product.weights), gpu.upload(&product.activations), gpu.buffer(4 * 70));
    module.launch(&gpu, "gemv_q4", 18, 128, args![w, x, y, 70, 40]);
    let expected: Vec<f32> = (0..70).map(|row| product.row(row)).collect();
    assert_close(&gpu.download::<f32>(y), &expected, 1e-5);
}

/// Prints the speed; on one thread it is 100 million weights a second or more where nothing else runs.
#[test]
fn quantised_rows_are_fast() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let product = Product::new(2048, 64);
    let weights = product.rows * product.blocks * 32;
    let (w, x, y) = (gpu.upload(&product.weights), gpu.upload(&product.activations), gpu.buffer(4 * 2048));
    let mut best = f64::MAX;
    for _ in 0..5 {
        let start = Instant::now();
        module.launch(&gpu, "gemv_q4", 512, 128, args![w, x, y, 2048, 64]);
        best = best.min(start.elapsed().as_secs_f64());
    }
    let (before, launches) = (amdhip64::hip::controls::rfemu_instructions(), amdhip64::hip::controls::rfemu_launches());
    let rate = before as f64 / launches as f64 / best / 1e6;
    println!("q4 gemv: {:.0} M weights/s, {rate:.0} M wave instructions/s", weights as f64 / best / 1e6);
}

#[test]
fn softmax_of_a_row() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (mut numbers, n) = (Numbers::new(4), 777);
    let x: Vec<f32> = numbers.f32s(n).iter().map(|x| x * 10.0).collect();
    let (dx, dy) = (gpu.upload(&x), gpu.buffer(4 * n));
    module.launch_shaped(&gpu, "softmax", ([1, 1, 1], [128, 1, 1], 128), args![dx, dy, n as u32]);
    let max = x.iter().copied().fold(f32::MIN, f32::max);
    let exp: Vec<f64> = x.iter().map(|&x| f64::from(x - max).exp()).collect();
    let sum: f64 = exp.iter().sum();
    let expected: Vec<f32> = exp.iter().map(|e| (e / sum) as f32).collect();
    assert_close(&gpu.download::<f32>(dy), &expected, 1e-6);
}

#[test]
fn rotary_positions() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let (mut numbers, heads, half, position) = (Numbers::new(5), 3, 32, 777);
    let x = numbers.f32s(heads * 2 * half);
    let dx = gpu.upload(&x);
    module.launch(&gpu, "rope", heads as u32, half as u32, args![dx, half as u32, position, 10000f32]);
    let mut expected = x.clone();
    for head in expected.chunks_mut(2 * half) {
        for i in 0..half {
            let angle = 10000f64.powf(-(i as f64) / half as f64) * f64::from(position);
            let (s, c) = angle.sin_cos();
            let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
            head[i] = (a * c - b * s) as f32;
            head[i + half] = (a * s + b * c) as f32;
        }
    }
    assert_close(&gpu.download::<f32>(dx), &expected, 5e-4);
}

#[test]
fn lanes_vote() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("basic") else { return };
    let x = Numbers::new(6).f32s(32);
    let (dx, mask, count) = (gpu.upload(&x), gpu.buffer(128), gpu.buffer(128));
    module.launch(&gpu, "ballot", 1, 32, args![dx, mask, count]);
    let bits = (0..32).fold(0u32, |bits, i| bits | u32::from(x[i] > 0.0) << i);
    assert_eq!(gpu.download::<u32>(mask), [bits; 32]);
    let below: Vec<u32> = (0..32).map(|i| (bits & ((1u32 << i) - 1)).count_ones()).collect();
    assert_eq!(gpu.download::<u32>(count), below);
}
