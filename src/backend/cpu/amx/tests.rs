//! Products in tiles against decoded weights in double precision: on the unit where there is one, and emulated elsewhere.

use half::bf16;

use super::*;
use crate::backend::cpu::features::Isa;
use crate::backend::cpu::matmul::noise::{Noise, place, random_rows};
use crate::quant::TensorType;

const TYPES: [TensorType; 15] = [
    TensorType::F16,
    TensorType::BF16,
    TensorType::Q4_0,
    TensorType::Q4_1,
    TensorType::Q5_0,
    TensorType::Q5_1,
    TensorType::Q8_0,
    TensorType::Q2_K,
    TensorType::Q3_K,
    TensorType::Q4_K,
    TensorType::Q5_K,
    TensorType::Q6_K,
    TensorType::IQ4_NL,
    TensorType::IQ4_XS,
    TensorType::MXFP4,
];

/// Whether this processor can do everything but, perhaps, multiply tiles.
fn can_unfold() -> bool {
    let can = Isa::detect() >= Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16");
    if !can {
        eprintln!("SKIPPED: weights are unfolded for AMX with AVX-512 BF16, which this processor does not have");
    }
    can
}

/// The units to try, by name.
fn units() -> Vec<(&'static str, Multiply)> {
    let mut units: Vec<(_, Multiply)> = vec![("emulated", unit::emulated)];
    if Isa::detect() == Isa::Amx {
        units.push(("amx", unit::amx));
    } else {
        eprintln!("SKIPPED: AMX itself; the emulated unit runs");
    }
    units
}

fn multiply_on(
    unit: (&str, Multiply),
    matrix: &Matrix,
    tiles: &Tiles,
    out: &mut [f32],
    bias: Option<&[f32]>,
    accumulate: bool,
) {
    let out = Rows::new(out, matrix.rows());
    let target = Target { out: &out, bias, accumulate };
    // SAFETY: `can_unfold`, and the unit is there.
    unsafe {
        let _configured = (unit.0 == "amx").then(|| Configured::new());
        multiply_with(unit.1, matrix, tiles, 0..matrix.rows().div_ceil(ROWS), target);
    }
}

fn rounded(values: &[f32], n: usize, columns: usize, pool: &Pool) -> Tiles {
    let mut tiles = Tiles::new(n, columns).expect("tiles");
    // SAFETY: `can_unfold`.
    unsafe { tiles.round(pool, values, n, columns) };
    tiles
}

#[test]
fn products_of_all_types_agree_with_decoded_weights() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(5);
    for tensor_type in TYPES {
        let block = tensor_type.format().block_elements;
        for (rows, columns, n) in [(1, 2 * block, 12), (16, 512, 16), (21, 768, 33), (40, 2304, 49), (64, 256, 80)] {
            let columns = columns.next_multiple_of(block) + if block == 1 { 7 } else { 0 };
            let bytes = random_rows(tensor_type, rows, columns, &mut noise);
            let packed = place(tensor_type, rows, columns, &bytes, true, Isa::Avx512Vnni, &pool);
            let values: Vec<f32> = (0..n * columns).map(|_| noise.float() * 3.0).collect();
            let tiles = rounded(&values, n, columns, &pool);
            for unit in units() {
                let mut out = vec![f32::NAN; n * rows];
                multiply_on(unit, &packed, &tiles, &mut out, None, false);
                check(&format!("{} {}", unit.0, tensor_type.name()), &packed, &values, &out);
                if block > 1 {
                    let plain = place(tensor_type, rows, columns, &bytes, false, Isa::Avx512Vnni, &pool);
                    let mut other = vec![f32::NAN; n * rows];
                    multiply_on(unit, &plain, &tiles, &mut other, None, false);
                    assert_eq!(out, other, "{}: packed and plain differ", tensor_type.name());
                }
            }
        }
    }
}

/// Weights are rounded to 8 bits, an error of 1/512 on the average and 1/256 at most, and errors do not conspire: they grow as
/// the root of their number.
fn check(name: &str, matrix: &Matrix, values: &[f32], out: &[f32]) {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut weights = vec![0.0; columns];
    for r in 0..rows {
        matrix.row(r, &mut weights);
        let greatest = weights.iter().fold(0.0, |m: f64, w| m.max(f64::from(w.abs())));
        for (t, x) in values.chunks_exact(columns).enumerate() {
            let (mut sum, mut squares) = (0.0, 0.0);
            for (w, x) in weights.iter().zip(x) {
                let (w, x) = (f64::from(*w), f64::from(bf16::from_f32(*x).to_f32()));
                sum += w * x;
                squares += x * x * (w * w + greatest * greatest / 64.0);
            }
            let found = f64::from(out[t * rows + r]);
            let allowed = squares.sqrt() / 64.0 + 1e-6;
            assert!(
                (found - sum).abs() <= allowed,
                "{name}: {rows} × {columns}, [{t}][{r}] is {found}, not {sum} ± {allowed}"
            );
        }
    }
}

#[test]
fn the_unit_agrees_with_its_emulation() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(1).expect("a pool");
    let mut noise = Noise(6);
    let bytes = random_rows(TensorType::Q4_K, 48, 512, &mut noise);
    let matrix = place(TensorType::Q4_K, 48, 512, &bytes, true, Isa::Avx512Vnni, &pool);
    let values: Vec<f32> = (0..40 * 512).map(|_| noise.float()).collect();
    let tiles = rounded(&values, 40, 512, &pool);
    let results: Vec<Vec<f32>> = units()
        .into_iter()
        .map(|unit| {
            let mut out = vec![0.0; 40 * 48];
            multiply_on(unit, &matrix, &tiles, &mut out, None, false);
            out
        })
        .collect();
    for other in &results[1..] {
        // The unit adds pairs in another order, and takes subnormal numbers for zero.
        results[0].iter().zip(other).for_each(|(a, b)| assert!((a - b).abs() <= 1e-4 * (1.0 + a.abs()), "{a} and {b}"));
    }
}

#[test]
fn bias_and_accumulation() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(7);
    // Three chunks of columns; whole panels, and rows that are none.
    for (rows, n) in [(64, 32), (50, 19)] {
        let bytes = random_rows(TensorType::Q8_0, rows, 2304, &mut noise);
        let matrix = place(TensorType::Q8_0, rows, 2304, &bytes, true, Isa::Avx512Vnni, &pool);
        let values: Vec<f32> = (0..n * 2304).map(|_| noise.float()).collect();
        let tiles = rounded(&values, n, 2304, &pool);
        let bias: Vec<f32> = (0..rows).map(|i| i as f32).collect();
        for unit in units() {
            let run = |start: f32, bias: Option<&[f32]>, accumulate: bool| {
                let mut out = vec![start; n * rows];
                multiply_on(unit, &matrix, &tiles, &mut out, bias, accumulate);
                out
            };
            let plain = run(9.0, None, false);
            let (with_bias, added) = (run(9.0, Some(&bias), false), run(2.0, None, true));
            for (i, plain) in plain.iter().enumerate() {
                let near = |a: f32, b: f32| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
                assert!(near(with_bias[i], plain + (i % rows) as f32) && near(added[i], 2.0 + plain), "{} {i}", unit.0);
            }
        }
    }
}

#[test]
fn activations_are_rounded_to_nearest_even() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(1).expect("a pool");
    let mut noise = Noise(8);
    let values: Vec<f32> = (0..13 * 77).map(|_| noise.float() * 100.0).collect();
    let tiles = rounded(&values, 13, 77, &pool);
    let halves: &[u16] = bytemuck::cast_slice(tiles.memory.as_slice());
    for row in 0..16 {
        for column in 0..96 {
            let value = if row < 13 && column < 77 { values[row * 77 + column] } else { 0.0 };
            let found = halves[column / 32 * 512 + row * 32 + column % 32];
            assert_eq!(found, bf16::from_f32(value).to_bits(), "{row} {column}");
        }
    }
}
