//! Every kernel of the table against decoded weights in double precision.

use std::sync::Arc;

use super::*;
use crate::backend::cpu::kernels::KERNELS;
use crate::backend::cpu::packfile::Store;
use crate::load::TensorBytes;
use crate::quant::{FORMATS, TensorType};

struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }
}

/// Random blocks: every bit pattern of the numbers, scales that are finite and of moderate size.
fn random_rows(tensor_type: TensorType, rows: usize, columns: usize, noise: &mut Noise) -> Vec<u8> {
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

fn place(
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

fn acts(n: usize, columns: usize, isa: Isa, pool: &Pool, noise: &mut Noise) -> Acts {
    let mut acts = Acts::new(n, columns).expect("acts");
    acts.set_shape(n, columns);
    acts.values_mut().iter_mut().for_each(|x| *x = noise.float() * 3.0);
    acts.quantize(isa, pool);
    acts
}

/// Row `t` as the kernels see it: quantised, or not.
fn row_of(acts: &Acts, t: usize, quantized: bool) -> Vec<f64> {
    let columns = acts.columns();
    (0..columns)
        .map(|i| match quantized {
            true => {
                f64::from(acts.scales()[(t * columns + i) / 32].d[i % 32 / 16]) * f64::from(acts.q()[t * columns + i])
            }
            false => f64::from(acts.values()[t * columns + i]),
        })
        .collect()
}

/// Compares all products with double precision; returns them.
fn check(name: &str, matrix: &Matrix, acts: &Acts, isa: Isa, pool: &Pool, exact: bool) -> Vec<f32> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut out = vec![f32::NAN; acts.rows() * rows];
    matmul(pool, isa, acts, &mut [Job { matrix, out: &mut out, bias: None, accumulate: false }], exact);
    let quantized = !exact && kernel(matrix.tensor_type(), isa).is_some();
    let mut weights = vec![0.0; columns];
    let x: Vec<Vec<f64>> = (0..acts.rows()).map(|t| row_of(acts, t, quantized)).collect();
    for r in 0..rows {
        matrix.row(r, &mut weights);
        for (t, x) in x.iter().enumerate() {
            let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x);
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            let found = f64::from(out[t * rows + r]);
            assert!(
                (found - sum).abs() <= 3e-6 * size + 1e-6,
                "{name}: {rows} × {columns}, {} rows, [{t}][{r}] is {found}, not {sum}",
                acts.rows()
            );
        }
    }
    out
}

#[test]
fn every_kernel_agrees_with_decoded_weights() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(1);
    for kernel in KERNELS.iter().filter(|kernel| Isa::available().any(|isa| isa == kernel.isa)) {
        let block = kernel.tensor_type.format().block_elements;
        for (rows, blocks) in [(1, 1), (16, 2), (21, 3), (40, 9)] {
            let columns = blocks * block;
            let bytes = random_rows(kernel.tensor_type, rows, columns, &mut noise);
            for n in [1, 2, 3, 7, 9, 67] {
                let acts = acts(n, columns, kernel.isa, &pool, &mut noise);
                let packed = place(kernel.tensor_type, rows, columns, &bytes, true, kernel.isa, &pool);
                let plain = place(kernel.tensor_type, rows, columns, &bytes, false, kernel.isa, &pool);
                let a = check(kernel.name, &packed, &acts, kernel.isa, &pool, false);
                let b = check(kernel.name, &plain, &acts, kernel.isa, &pool, false);
                assert_eq!(a, b, "{}: packed and plain differ", kernel.name);
            }
        }
    }
}

#[test]
fn float_and_exact_products_agree_with_decoded_weights() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(2);
    for isa in Isa::available() {
        for format in FORMATS.iter().filter(|format| format.decode.is_some()) {
            let columns = if format.block_elements == 1 { 77 } else { format.block_elements * 2 };
            let bytes = random_rows(format.tensor_type, 19, columns, &mut noise);
            for n in [1, 4, 6] {
                let acts = acts(n, columns, isa, &pool, &mut noise);
                let matrix = place(format.tensor_type, 19, columns, &bytes, true, isa, &pool);
                check(format.name, &matrix, &acts, isa, &pool, true);
            }
        }
    }
}

#[test]
fn products_do_not_depend_on_threads_or_on_the_number_of_rows() {
    let mut noise = Noise(3);
    let (rows, columns, isa) = (200, 512, Isa::detect());
    for tensor_type in [TensorType::Q4_1, TensorType::Q6_K, TensorType::F16] {
        let bytes = random_rows(tensor_type, rows, columns, &mut noise);
        let one = Pool::new(1).expect("a pool");
        let all = acts(11, columns, isa, &one, &mut noise);
        let matrix = place(tensor_type, rows, columns, &bytes, true, isa, &one);
        let product = |pool: &Pool, acts: &Acts| {
            let mut out = vec![0.0; acts.rows() * rows];
            matmul(
                pool,
                isa,
                acts,
                &mut [Job { matrix: &matrix, out: &mut out, bias: None, accumulate: false }],
                false,
            );
            out
        };
        let expected = product(&one, &all);
        assert_eq!(expected, product(&Pool::new(3).expect("a pool"), &all));
        for t in 0..11 {
            let mut single = Acts::new(1, columns).expect("acts");
            single.set_shape(1, columns);
            single.values_mut().copy_from_slice(&all.values()[t * columns..(t + 1) * columns]);
            single.quantize(isa, &one);
            assert_eq!(expected[t * rows..(t + 1) * rows], product(&one, &single), "{}", tensor_type.name());
        }
    }
}

#[test]
fn bias_and_accumulation() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(4);
    let bytes = random_rows(TensorType::Q8_0, 18, 64, &mut noise);
    let acts = acts(2, 64, Isa::detect(), &pool, &mut noise);
    let matrix = place(TensorType::Q8_0, 18, 64, &bytes, true, Isa::detect(), &pool);
    let bias: Vec<f32> = (0..18).map(|i| i as f32).collect();
    let run = |start: f32, bias: Option<&[f32]>, accumulate: bool| {
        let mut out = vec![start; 36];
        matmul(&pool, Isa::detect(), &acts, &mut [Job { matrix: &matrix, out: &mut out, bias, accumulate }], false);
        out
    };
    let plain = run(9.0, None, false);
    for (i, ((with_bias, added), plain)) in
        run(9.0, Some(&bias), false).iter().zip(run(2.0, None, true)).zip(plain).enumerate()
    {
        assert_eq!(*with_bias, plain + (i % 18) as f32);
        assert_eq!(added, 2.0 + plain);
    }
}
