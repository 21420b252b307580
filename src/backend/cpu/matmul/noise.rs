//! Random weights for tests.

use std::sync::Arc;

use crate::backend::cpu::features::Isa;
use crate::backend::cpu::matrix::Matrix;
use crate::backend::cpu::packfile::Store;
use crate::backend::cpu::pool::Pool;
use crate::load::TensorBytes;
use crate::quant::TensorType;

pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    pub fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// Random blocks: every bit pattern of the numbers, scales that are finite and of moderate size.
pub fn random_rows(tensor_type: TensorType, rows: usize, columns: usize, noise: &mut Noise) -> Vec<u8> {
    let format = tensor_type.format();
    let n = rows * tensor_type.row_bytes(columns).expect("whole blocks");
    let mut bytes: Vec<u8> = (0..n).map(|_| noise.next() as u8).collect();
    for block in bytes.chunks_exact_mut(format.block_bytes) {
        let mut half = |at: usize, noise: &mut Noise| {
            let scale = half::f16::from_f32(noise.float() * 0.05);
            block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
        };
        match tensor_type {
            TensorType::F32 => {
                let value = noise.float().to_le_bytes();
                block.copy_from_slice(&value);
            }
            TensorType::F16 => half(0, noise),
            TensorType::BF16 => {
                let value = half::bf16::from_f32(noise.float()).to_le_bytes();
                block.copy_from_slice(&value);
            }
            TensorType::Q2_K => [80, 82].into_iter().for_each(|at| half(at, noise)),
            TensorType::Q3_K => half(108, noise),
            TensorType::Q6_K => half(208, noise),
            TensorType::Q4_1 | TensorType::Q5_1 | TensorType::Q4_K | TensorType::Q5_K => {
                [0, 2].into_iter().for_each(|at| half(at, noise));
            }
            TensorType::MXFP4 => block[0] = 120 + block[0] % 8,
            _ => half(0, noise),
        }
    }
    bytes
}

/// Rows of F16 or BF16 that are packed in 12 bits, with some zeros and with one weight that has no room there; or some that are
/// not: halves with all their bits, or bf16 of many sizes.
pub fn random_halves(
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    in_12_bits: bool,
    noise: &mut Noise,
) -> Vec<u8> {
    let mut weight = |i: usize| {
        let value = noise.float() * if tensor_type == TensorType::F16 { 0.05 } else { 1.0 };
        match (tensor_type, in_12_bits, i % 97) {
            (_, true, 5) => 0.0,
            (_, true, 6) => -0.0,
            (_, true, 7) if i == 7 => 6e-7,
            (TensorType::BF16, false, _) => value * 2f32.powi(-((noise.next() % 40) as i32)),
            (_, true, _) => half::bf16::from_f32(value).to_f32(),
            _ => value,
        }
    };
    let weights = (0..rows * columns).map(&mut weight);
    match tensor_type {
        TensorType::F16 => weights.flat_map(|x| half::f16::from_f32(x).to_le_bytes()).collect(),
        _ => weights.flat_map(|x| half::bf16::from_f32(x).to_le_bytes()).collect(),
    }
}

pub fn place(
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    bytes: &[u8],
    packed: bool,
    isa: Isa,
    pool: &Pool,
) -> Matrix {
    let bytes = TensorBytes::new(Arc::new(bytes.to_vec()), 0, bytes.len()).expect("inside");
    Matrix::place(tensor_type, rows, columns, &bytes.into(), packed.then_some(isa), pool, &Store::default())
        .expect("a matrix")
}
