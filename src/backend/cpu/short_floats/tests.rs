use super::super::features::Isa;
use super::super::float_groups::{Products, ShortGroups};
use super::super::matmul::noise::{Noise, place, random_halves};
use super::super::matrix::Matrix;
use super::super::memory::Line;
use super::super::pool::Pool;
use super::*;
use crate::quant::TensorType;

/// The 16 bits that this processor multiplies, quickly or not.
fn floats() -> Vec<ShortFloat> {
    let floats = [(Isa::has_bf16(), ShortFloat::Bf16), (Isa::has_f16(), ShortFloat::F16)];
    for (_, float) in floats.iter().filter(|(there, _)| !there) {
        eprintln!("SKIPPED: products of {float:?}, which this processor does not make");
    }
    floats.into_iter().filter(|(there, _)| *there).map(|(_, float)| float).collect()
}

/// Rows of activations in 16 bits, as [`ShortRows`] has them, and their scales.
fn rounded(float: ShortFloat, x: &[f32], columns: usize, stride: usize) -> (Vec<u16>, Vec<f32>) {
    let mut values = vec![0; x.len() / columns * stride];
    let rows = values.chunks_exact_mut(stride).zip(x.chunks_exact(columns));
    // SAFETY: the processor multiplies these.
    let scales = rows.map(|(out, x)| unsafe { round_row(float, x, &mut out[..columns]) }).collect();
    (values, scales)
}

/// Products of all rows of the matrix with those of `x`, `[rows of x][rows of the matrix]`.
fn products(float: ShortFloat, matrix: &Matrix, x: &[f32], columns: usize) -> Vec<f32> {
    let (n, stride) = (x.len() / columns, columns.next_multiple_of(2) + 6);
    let (values, scales) = rounded(float, x, columns, stride);
    let short = ShortRows { float, values: &values, stride, scales: &scales };
    let mut panel = vec![Line([0; 64]); GROUPS * short_bytes(columns) / size_of::<Line>()];
    let mut all = vec![f32::NAN; n * matrix.rows()];
    for first in (0..matrix.groups()).step_by(GROUPS) {
        let groups = (first..matrix.groups()).map_while(|group| matrix.float_group(group));
        // SAFETY: as above; the panel has room for the groups.
        let groups = unsafe { ShortGroups::new(float, groups, columns, panel.as_mut_ptr().cast()) }.expect("a form");
        let (mut at, mut out): (_, Products) = (0, [f32::NAN; _]);
        for nth in 0.. {
            let rows = &x[at * columns..];
            let Some(width) = groups.multiply(&short, (at, n), (nth, n.div_ceil(8)), rows, Isa::detect(), &mut out)
            else {
                break;
            };
            for (i, products) in out.chunks_exact(ROWS).take(groups.count() * width).enumerate() {
                let (t, row) = (at + i % width, (first + i / width) * ROWS);
                let here = products.len().min(matrix.rows() - row);
                all[t * matrix.rows() + row..][..here].copy_from_slice(&products[..here]);
            }
            at += width;
        }
        assert_eq!(at, n);
    }
    all
}

/// What products of the unrounded numbers are, and the root of the sum of their terms' squares.
fn expected(matrix: &Matrix, x: &[f32], columns: usize) -> Vec<(f64, f64)> {
    let mut weights = vec![0.0; columns];
    let mut all = vec![(0.0, 0.0); x.len() / columns * matrix.rows()];
    for r in 0..matrix.rows() {
        matrix.row(r, &mut weights);
        for (t, x) in x.chunks_exact(columns).enumerate() {
            let terms = weights.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x));
            let (sum, squares) = terms.fold((0.0, 0.0), |(sum, squares), term| (sum + term, squares + term * term));
            all[t * matrix.rows() + r] = (sum, squares.sqrt());
        }
    }
    all
}

#[test]
fn sums_lose_no_more_than_is_said() {
    let (pool, mut noise) = (Pool::new(1).expect("a pool"), Noise(21));
    for float in floats() {
        for in_12_bits in [true, false] {
            for (rows, columns, n) in [(1, 1, 1), (16, 2, 3), (35, 77, 8), (64, 640, 15), (16, 2048, 9)] {
                let bytes = random_halves(TensorType::F16, rows, columns, in_12_bits, &mut noise);
                let matrix = place(TensorType::F16, rows, columns, &bytes, true, Isa::detect(), &pool);
                // Rows of any size.
                let size = |t: usize| 10f32.powi(t as i32 % 9 - 4);
                let x: Vec<f32> = (0..n * columns).map(|i| noise.float() * size(i / columns)).collect();
                let (found, expected) = (products(float, &matrix, &x, columns), expected(&matrix, &x, columns));
                let errors = found.iter().zip(&expected).filter(|(_, (_, size))| *size > 0.0);
                let errors: Vec<f64> = errors.map(|(&y, (sum, size))| (f64::from(y) - sum) / size).collect();
                let mean = (errors.iter().map(|e| e * e).sum::<f64>() / errors.len() as f64).sqrt();
                // What the module says.
                let most = match (float, in_12_bits) {
                    (ShortFloat::F16, _) => 0.0009,
                    (ShortFloat::Bf16, true) => 0.0017,
                    (ShortFloat::Bf16, false) => 0.0025,
                };
                let name = format!("{float:?}, 12 bits: {in_12_bits}, {rows} × {columns}, {n} rows");
                assert!(mean <= 1.1 * most, "{name}: {mean}, not {most}");
                assert!(errors.iter().all(|e| e.abs() <= 6.0 * most), "{name}");
            }
        }
    }
}

#[test]
fn sums_that_f16_cannot_hold_are_made_in_float32() {
    let (pool, mut noise) = (Pool::new(1).expect("a pool"), Noise(22));
    let (rows, columns, n) = (40, 96, 11);
    for float in floats() {
        // Weights of up to 60,000 in one row, and that is not all of a group.
        let value = |i: usize, noise: &mut Noise| noise.float() * if i / columns == 3 { 60_000.0 } else { 0.1 };
        let bytes: Vec<u8> =
            (0..rows * columns).flat_map(|i| half::f16::from_f32(value(i, &mut noise)).to_le_bytes()).collect();
        let matrix = place(TensorType::F16, rows, columns, &bytes, true, Isa::detect(), &pool);
        let mut x: Vec<f32> = (0..n * columns).map(|_| noise.float()).collect();
        // The greatest and least numbers, none, and what is no number.
        x[columns..2 * columns].iter_mut().for_each(|x| *x *= 1e36);
        x[2 * columns..3 * columns].iter_mut().for_each(|x| *x *= 1e-36);
        x[3 * columns..4 * columns].fill(0.0);
        (x[4 * columns + 5], x[5 * columns + 6]) = (f32::INFINITY, f32::NAN);
        let found = products(float, &matrix, &x, columns);
        for ((i, y), (sum, size)) in found.iter().enumerate().zip(expected(&matrix, &x, columns)) {
            let (t, y) = (i / rows, f64::from(*y));
            // (What float32 has no numbers for is lost.)
            let same = (y - sum).abs() <= 0.01 * size + 1e-36 || y == sum || sum.abs() > 3e38;
            assert!(same || t == 5 && y.is_nan() || t == 4 && y.is_infinite(), "{float:?}: [{t}][{}] is {y}", i % rows);
        }
    }
}

#[test]
fn rows_keep_the_bits_that_16_have() {
    let mut noise = Noise(23);
    for float in floats() {
        let bits = if float == ShortFloat::F16 { 11 } else { 8 };
        for columns in [1, 15, 16, 33, 100] {
            for size in [1e-30, 1.0, 1e30] {
                let x: Vec<f32> = (0..columns).map(|_| noise.float() * size).collect();
                let (values, scales) = rounded(float, &x, columns, columns);
                let greatest = x.iter().fold(0f32, |greatest, x| greatest.max(x.abs()));
                for (&x, bits_of) in x.iter().zip(values) {
                    let value = match float {
                        ShortFloat::F16 => half::f16::from_bits(bits_of).to_f32(),
                        ShortFloat::Bf16 => half::bf16::from_bits(bits_of).to_f32(),
                    };
                    // A millionth of the greatest has fewer bits.
                    let most = (x.abs() * 0.5f32.powi(bits)).max(greatest * 0.5f32.powi(30));
                    assert!((value * scales[0] - x).abs() <= most, "{float:?}: {x} is {}", value * scales[0]);
                }
            }
        }
    }
}
