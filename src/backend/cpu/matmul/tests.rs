//! Every kernel of the table against decoded weights in double precision.

use super::noise::{Noise, place, random_halves, random_rows};
use super::*;
use crate::backend::cpu::acts::Form;
use crate::backend::cpu::features::ShortFloat;
use crate::backend::cpu::kernels::KERNELS;
use crate::backend::cpu::memory::AlignedBuf;
use crate::backend::cpu::quantize::{PRE_SHIFT, SUPER_BLOCK};
use crate::quant::{FORMATS, TensorType};

fn acts(n: usize, columns: usize, isa: Isa, noise: &mut Noise) -> Acts {
    let mut acts = Acts::new(n, columns, isa).expect("acts");
    acts.set_shape(n, columns);
    // Half blocks of very different size are beside each other, now and then.
    for half in acts.values_mut().chunks_mut(16) {
        let size = 3.0 * 4f32.powi((noise.float() * 4.0) as i32);
        half.iter_mut().for_each(|x| *x = noise.float() * size);
    }
    acts
}

/// Row `t` as the kernels see it: in a form, or as it is.
fn row_of(acts: &Acts, t: usize, form: Option<Form>) -> Vec<f64> {
    let columns = acts.columns();
    let element = |i: usize| {
        let (at, block) = (t * columns + i, (t * columns + i) / 32);
        match form {
            None => f64::from(acts.values()[at]),
            Some(Form::Blocks) => f64::from(acts.halves()[block].d[i % 32 / 16]) * f64::from(acts.q()[at]),
            Some(Form::SuperBlocks) => {
                let (block, i) = (&acts.super_blocks()[at / SUPER_BLOCK], i % SUPER_BLOCK);
                f64::from(block.d) * f64::from(block.q[i]) * 2f64.powi(-block.shift[i / 32])
            }
            Some(Form::Multiples) => {
                f64::from(acts.units()[t]) * f64::from(acts.multiples()[block].m[i / 2 % 2]) * f64::from(acts.q()[at])
            }
            Some(Form::Wide) => {
                f64::from(acts.wide_scales()[t]) * f64::from(acts.wide()[at - i % 4 + [0, 2, 1, 3][i % 4]])
            }
        }
    };
    (0..columns).map(element).collect()
}

/// What may be lost where sums are rounded. Of a block's first half they are shifted to the right: half a unit of the numbers' product, and
/// so less than half of the greatest weight times the second half's scale. In super-blocks sums of a tile's products, or of both its halves, are rounded, by half
/// a unit of raised numbers, of which the greatest weight has 100 or so; and its sums by half of a 128th, which a minimum multiplies that is
/// not much more than the greatest weight.
fn rounding(acts: &Acts, t: usize, weights: &[f32], form: Option<Form>) -> f64 {
    let greatest = |weights: &[f32]| f64::from(weights.iter().fold(0f32, |most, w| most.max(w.abs())));
    let blocks = acts.columns() / 32;
    let blocks = t * blocks..(t + 1) * blocks;
    match form {
        Some(Form::Blocks) => {
            let scales = acts.joined()[blocks].iter().zip(weights.chunks(32));
            let shifted = scales.filter(|(scale, _)| scale.shift > PRE_SHIFT);
            shifted.map(|(scale, weights)| 0.5 * f64::from(scale.d) * greatest(weights)).sum()
        }
        Some(Form::SuperBlocks) => {
            let unit = |block: usize| f64::from(acts.super_blocks()[block / 8].d);
            blocks.zip(weights.chunks(32)).map(|(block, weights)| unit(block) * 0.03 * greatest(weights)).sum()
        }
        _ => 0.0,
    }
}

/// Compares all products with double precision; returns them.
fn check(name: &str, matrix: &Matrix, acts: &mut Acts, isa: Isa, pool: &Pool, exact: bool) -> Vec<f32> {
    let (rows, columns) = (matrix.rows(), matrix.columns());
    let mut out = vec![f32::NAN; acts.rows() * rows];
    matmul(pool, isa, acts, &mut [Job { matrix, out: &mut out, bias: None, accumulate: false }], exact);
    let form = kernel(matrix.tensor_type(), isa).filter(|_| !exact).map(|kernel| kernel.form);
    let mut weights = vec![0.0; columns];
    let x: Vec<Vec<f64>> = (0..acts.rows()).map(|t| row_of(acts, t, form)).collect();
    for r in 0..rows {
        matrix.row(r, &mut weights);
        for (t, x) in x.iter().enumerate() {
            let terms = weights.iter().zip(x).map(|(w, x)| f64::from(*w) * x);
            let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
            let found = f64::from(out[t * rows + r]);
            let slack = rounding(acts, t, &weights, form);
            assert!(
                (found - sum).abs() <= 3e-6 * size + slack + 1e-6,
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
                let mut acts = acts(n, columns, kernel.isa, &mut noise);
                let packed = place(kernel.tensor_type, rows, columns, &bytes, true, kernel.isa, &pool);
                let plain = place(kernel.tensor_type, rows, columns, &bytes, false, kernel.isa, &pool);
                let a = check(kernel.name, &packed, &mut acts, kernel.isa, &pool, false);
                let b = check(kernel.name, &plain, &mut acts, kernel.isa, &pool, false);
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
            for n in [1, 4, 6, 17, 27] {
                let mut acts = acts(n, columns, isa, &mut noise);
                let matrix = place(format.tensor_type, 19, columns, &bytes, true, isa, &pool);
                check(format.name, &matrix, &mut acts, isa, &pool, true);
            }
        }
    }
}

/// Weights that are packed in 12 bits, and that are not.
const HALVES: [(TensorType, bool); 4] =
    [(TensorType::F16, false), (TensorType::F16, true), (TensorType::BF16, false), (TensorType::BF16, true)];

#[test]
fn halves_are_packed_in_12_bits_where_that_suits_them() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(7);
    let (rows, columns) = (80, 520);
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        for (tensor_type, in_12_bits) in HALVES {
            let mut bytes = random_halves(tensor_type, rows, columns, in_12_bits, &mut noise);
            let bits = |matrix: &Matrix| (8 * matrix.bytes()).div_euclid(rows * columns);
            let matrix = place(tensor_type, rows, columns, &bytes, true, isa, &pool);
            assert_eq!(bits(&matrix), if in_12_bits { 12 } else { 16 }, "{tensor_type:?} {in_12_bits}");
            check(tensor_type.name(), &matrix, &mut acts(3, columns, isa, &mut noise), isa, &pool, true);
            // What the sample does not show: a row in the middle that has too many exceptions.
            for weight in bytes.chunks_exact_mut(2).skip(60 * columns).take(100) {
                weight.copy_from_slice(&1u16.to_le_bytes());
            }
            let matrix = place(tensor_type, rows, columns, &bytes, true, isa, &pool);
            assert_eq!(bits(&matrix), 16, "{tensor_type:?} {in_12_bits}");
            check(tensor_type.name(), &matrix, &mut acts(3, columns, isa, &mut noise), isa, &pool, true);
        }
    }
}

#[test]
fn halves_of_many_rows_agree_with_weights_and_activations_in_16_bits_or_float32() {
    let isa = Isa::detect().vectors();
    if isa == Isa::Scalar {
        eprintln!("SKIPPED: this processor has no kernels of packed floats");
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(5);
    for (tensor_type, in_12_bits) in HALVES {
        for (rows, columns) in [(1, 1), (19, 77), (80, 512)] {
            let bytes = random_halves(tensor_type, rows, columns, in_12_bits, &mut noise);
            let matrix = place(tensor_type, rows, columns, &bytes, true, isa, &pool);
            let short = Isa::short_float().filter(|&short| matrix.multiplies_in(short));
            let rounded = |x: f32| match short {
                Some(ShortFloat::Bf16) => half::bf16::from_f32(x).to_f32(),
                _ => x,
            };
            // (How exact F16 is, its own tests say.)
            let exact = if short == Some(ShortFloat::F16) { 4e-3 } else { 3e-6 };
            let mut weights = vec![0.0; columns];
            for n in [8, 9, 15, 300] {
                let mut acts = acts(n, columns, isa, &mut noise);
                let mut out = vec![0.0; n * rows];
                let job = Job { matrix: &matrix, out: &mut out, bias: None, accumulate: false };
                matmul(&pool, isa, &mut acts, &mut [job], false);
                for r in 0..rows {
                    matrix.row(r, &mut weights);
                    for (t, x) in acts.values().chunks_exact(columns).enumerate() {
                        let terms = weights.iter().zip(x).map(|(&w, &x)| f64::from(rounded(w)) * f64::from(rounded(x)));
                        let (sum, size) = terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs()));
                        let found = f64::from(out[t * rows + r]);
                        let name = tensor_type.name();
                        assert!(
                            (found - sum).abs() <= exact * size + 1e-6,
                            "{name}: {rows} × {columns}, {n} rows, [{t}][{r}] is {found}, not {sum}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn packed_floats_are_the_rows_of_the_file() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(6);
    for (tensor_type, in_12_bits) in HALVES.into_iter().chain([(TensorType::F32, false)]) {
        for (rows, columns) in [(1, 1), (16, 2), (35, 77)] {
            let bytes = match tensor_type {
                TensorType::F32 => random_rows(tensor_type, rows, columns, &mut noise),
                _ => random_halves(tensor_type, rows, columns, in_12_bits, &mut noise),
            };
            let matrix = place(tensor_type, rows, columns, &bytes, true, Isa::detect(), &pool);
            let (mut found, mut expected) = (vec![0.0; columns], vec![0.0; columns]);
            let decode = tensor_type.format().decode.expect("a decoder");
            for (r, row) in bytes.chunks_exact(tensor_type.row_bytes(columns).expect("whole blocks")).enumerate() {
                matrix.row(r, &mut found);
                decode(row, &mut expected);
                assert_eq!(found, expected, "{}: row {r} of {rows} × {columns}", tensor_type.name());
            }
        }
    }
}

#[test]
fn products_do_not_depend_on_threads_or_on_the_number_of_rows() {
    let all = |isa| {
        let mut products = Vec::new();
        products_of_19_rows(isa, &mut |tensor_type, product| products.push((tensor_type, product)));
        products
    };
    let vectors = Isa::available().filter(|&isa| isa != Isa::Scalar && isa == isa.vectors());
    let products: Vec<_> = vectors.map(|isa| (isa, all(isa))).collect();
    let of = |isa| products.iter().find(|(found, _)| *found == isa).map(|(_, products)| products);
    // The numbers of both are the same, and they are scaled in the same order; floats are not.
    let (Some(few), Some(many)) = (of(Isa::AvxVnni), of(Isa::Avx512Vnni)) else {
        eprintln!("SKIPPED: comparing AVX-VNNI with AVX-512, which this processor does not have both");
        return;
    };
    for ((tensor_type, few), (_, many)) in few.iter().zip(many).filter(|((t, _), _)| Layout::of(*t).is_some()) {
        assert_eq!(few, many, "{}: AVX-VNNI and AVX-512", tensor_type.name());
    }
}

/// Gives the products of 19 rows of activations with weights of each type; asserts that threads and rows do not matter.
fn products_of_19_rows(isa: Isa, each: &mut dyn FnMut(TensorType, Vec<f32>)) {
    /// Enough for panels of unfolded weights, and odd.
    const N: usize = 19;
    let mut noise = Noise(3);
    // Enough columns for panels to be made in parts.
    let (rows, columns) = (200, 2048);
    let kernels = KERNELS.iter().filter(|kernel| kernel.isa == isa).map(|kernel| kernel.tensor_type);
    let types = kernels.chain([TensorType::F32]).map(|tensor_type| (tensor_type, None));
    for (tensor_type, in_12_bits) in
        types.chain(HALVES.map(|(tensor_type, in_12_bits)| (tensor_type, Some(in_12_bits))))
    {
        // Halves of many rows are multiplied in 16 bits.
        let exact = in_12_bits.is_some();
        let bytes = match in_12_bits {
            Some(in_12_bits) => random_halves(tensor_type, rows, columns, in_12_bits, &mut noise),
            None => random_rows(tensor_type, rows, columns, &mut noise),
        };
        let one = Pool::new(1).expect("a pool");
        let mut all = acts(N, columns, isa, &mut noise);
        let matrix = place(tensor_type, rows, columns, &bytes, true, isa, &one);
        let product = |pool: &Pool, acts: &mut Acts| {
            let mut out = vec![0.0; acts.rows() * rows];
            matmul(
                pool,
                isa,
                acts,
                &mut [Job { matrix: &matrix, out: &mut out, bias: None, accumulate: false }],
                exact,
            );
            out
        };
        let expected = product(&one, &mut all);
        assert_eq!(expected, product(&Pool::new(3).expect("a pool"), &mut all));
        for t in 0..N {
            let mut single = Acts::new(1, columns, isa).expect("acts");
            single.set_shape(1, columns);
            single.values_mut().copy_from_slice(&all.values()[t * columns..(t + 1) * columns]);
            assert_eq!(expected[t * rows..(t + 1) * rows], product(&one, &mut single), "{}", tensor_type.name());
        }
        each(tensor_type, expected);
    }
}

#[test]
fn bias_and_accumulation() {
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(4);
    let bytes = random_rows(TensorType::Q8_0, 18, 64, &mut noise);
    let mut acts = acts(2, 64, Isa::detect(), &mut noise);
    let matrix = place(TensorType::Q8_0, 18, 64, &bytes, true, Isa::detect(), &pool);
    let bias: Vec<f32> = (0..18).map(|i| i as f32).collect();
    let mut run = |start: f32, bias: Option<&[f32]>, accumulate: bool| {
        let mut out = vec![start; 36];
        matmul(&pool, Isa::detect(), &mut acts, &mut [Job { matrix: &matrix, out: &mut out, bias, accumulate }], false);
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

#[test]
fn gated_products_are_those_of_two_products() {
    let mut noise = Noise(7);
    for (tensor_type, rows, columns) in [
        (TensorType::Q4_K, 640, 512),
        (TensorType::Q8_0, 83, 96),
        (TensorType::Q5_0, 200, 2048),
        (TensorType::F16, 75, 77),
    ] {
        let bytes = [0, 1].map(|_| random_rows(tensor_type, rows, columns, &mut noise));
        for isa in Isa::available() {
            for (threads, n, with_bias, exact) in [
                (1, 1, true, false),
                (2, 15, false, false),
                (3, 70, true, false),
                (2, 5, false, true),
                (4, 255, false, false),
                (2, 257, true, false),
            ] {
                let pool = Pool::new(threads).expect("a pool");
                let [gate, up] = [0, 1].map(|i| place(tensor_type, rows, columns, &bytes[i], true, isa, &pool));
                let bias: Vec<f32> = (0..rows).map(|i| i as f32).collect();
                let bias = with_bias.then_some(&bias[..]);
                let mut acts = Acts::new(n, columns.max(rows), isa).expect("acts");
                acts.set_shape(n, columns);
                acts.values_mut().iter_mut().for_each(|x| *x = noise.float());
                let (mut a, mut b) = (vec![0.0; n * rows], vec![0.0; n * rows]);
                let mut jobs = [
                    Job { matrix: &gate, out: &mut a, bias, accumulate: false },
                    Job { matrix: &up, out: &mut b, bias: None, accumulate: false },
                ];
                matmul(&pool, isa, &mut acts, &mut jobs, exact);
                let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| a - b).collect();
                // (As in a session, whose steps may have more rows.)
                let scratch = GateScratch::new(n.next_multiple_of(256), isa, &pool).expect("scratch");
                let mut values = AlignedBuf::zeroed(acts.values_bytes()).expect("values");
                let activate = |gate: &[f32], up: &[f32], out: &mut [f32]| {
                    out.iter_mut().zip(gate).zip(up).for_each(|((out, gate), up)| *out = gate - up)
                };
                let gated = amx::Gated { gate: &gate, gate_bias: bias, up: &up, up_bias: None, activate: &activate };
                matmul_gated(&pool, isa, &mut acts, &gated, &mut values, &scratch, exact);
                // (On AMX they are in tiles.)
                let in_tiles = acts.tiles().is_some();
                acts.value(&pool);
                let bf16 = |x: &f32| half::bf16::from_f32(*x).to_f32();
                let expected = if in_tiles { expected.iter().map(bf16).collect() } else { expected };
                assert!(acts.values() == expected, "{}, {}, {n} rows", tensor_type.name(), isa.name());
            }
        }
    }
}

#[test]
fn pieces_cover_all_products_once() {
    for threads in [1, 2, 3, 4, 8] {
        let pool = Pool::new(threads).expect("a pool");
        for (rows, groups, unit) in [
            (1, 36, 1),
            (12, 36, 2),
            (16, 1, 3),
            (31, 2, 2),
            (32, 36, 3),
            (100, 60, 3),
            (256, 60, 3),
            (300, 96, 6),
            (512, 97, 3),
            (1000, 5, 6),
        ] {
            let seen = parking_lot::Mutex::new(vec![0u32; rows * groups]);
            Grid::new(rows, groups, unit, threads).run(&pool, &|some, range| {
                assert!(some.start.is_multiple_of(16), "tiles of activations are not divided");
                assert!(range.start.is_multiple_of(unit));
                let mut seen = seen.lock();
                for row in some {
                    range.clone().for_each(|group| seen[row * groups + group] += 1);
                }
            });
            let once = seen.into_inner().iter().all(|&n| n == 1);
            assert!(once, "{rows} rows and {groups} groups on {threads} threads");
        }
    }
}
