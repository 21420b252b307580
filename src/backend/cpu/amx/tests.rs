//! Products in tiles against decoded weights in double precision: on the unit where there is one, and emulated elsewhere.

use half::bf16;

use super::*;
use crate::backend::cpu::acts::Acts;
use crate::backend::cpu::features::Isa;
use crate::backend::cpu::matmul::noise::{Noise, place, random_halves, random_rows};
use crate::backend::cpu::pool::Pool;
use crate::quant::{FORMATS, TensorType};

/// The types that are unfolded: all of the table but float32.
fn types() -> Vec<TensorType> {
    let types: Vec<_> = FORMATS.iter().filter(|format| format.decode.is_some()).map(|f| f.tensor_type).collect();
    types.into_iter().filter(|&tensor_type| tensor_type != TensorType::F32).collect()
}

/// Whether this processor can do everything but, perhaps, multiply tiles.
fn can_unfold() -> bool {
    let can = Isa::detect() >= Isa::Avx512Vnni && is_x86_feature_detected!("avx512bf16");
    if !can {
        eprintln!("SKIPPED: weights are unfolded for AMX with AVX-512 BF16, which this processor does not have");
    }
    can
}

/// What multiplies: the oracle, or the processor.
#[derive(Debug, Clone, Copy, PartialEq)]
enum On {
    Emulated,
    Vectors,
    Amx,
}

/// The units to try.
fn units() -> Vec<On> {
    if Isa::detect() == Isa::Amx {
        return vec![On::Emulated, On::Vectors, On::Amx];
    }
    eprintln!("SKIPPED: AMX itself; the emulated unit runs, and that on vectors");
    vec![On::Emulated, On::Vectors]
}

fn multiply_on(unit: On, matrix: &Matrix, tiles: &Tiles, out: &mut [f32], bias: Option<&[f32]>, accumulate: bool) {
    multiply_groups_on(unit, matrix, tiles, 0..matrix.rows().div_ceil(ROWS), out, bias, accumulate);
}

fn multiply_groups_on(
    unit: On,
    matrix: &Matrix,
    tiles: &Tiles,
    groups: Range<usize>,
    out: &mut [f32],
    bias: Option<&[f32]>,
    accumulate: bool,
) {
    let out = Rows::new(out, matrix.rows());
    let target = Target { out: &out, bias, accumulate };
    // SAFETY: `can_unfold`, and the unit is there.
    unsafe {
        // As two threads might.
        let half = (tiles.rows / 2).next_multiple_of(TILE_ROWS).min(tiles.rows);
        for rows in [0..half, half..tiles.rows].into_iter().filter(|rows| !rows.is_empty()) {
            let groups = groups.clone();
            match unit {
                On::Emulated => multiply_with::<unit::Emulated>(matrix, tiles, rows, groups, target),
                On::Vectors => multiply_with::<unit::Vectors>(matrix, tiles, rows, groups, target),
                On::Amx => multiply(matrix, tiles, rows, groups, target),
            }
        }
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
    for tensor_type in types() {
        assert!(unfolder::<unit::Emulated>(tensor_type).is_some(), "{} is not unfolded", tensor_type.name());
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
                check(&format!("{unit:?} {}", tensor_type.name()), &packed, &values, &out);
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

#[test]
fn halves_in_12_bits_and_in_16_agree_with_decoded_weights() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(8);
    for tensor_type in [TensorType::F16, TensorType::BF16] {
        for in_12_bits in [false, true] {
            for (rows, columns, n) in [(1, 1, 12), (40, 775, 33)] {
                let bytes = random_halves(tensor_type, rows, columns, in_12_bits, &mut noise);
                let packed = place(tensor_type, rows, columns, &bytes, true, Isa::Avx512Vnni, &pool);
                let in_16 = rows.next_multiple_of(ROWS) * columns.next_multiple_of(2) * 2;
                assert!(columns == 1 || (packed.bytes() < in_16) == in_12_bits);
                let values: Vec<f32> = (0..n * columns).map(|_| noise.float() * 3.0).collect();
                let tiles = rounded(&values, n, columns, &pool);
                for unit in units() {
                    let mut out = vec![f32::NAN; n * rows];
                    multiply_on(unit, &packed, &tiles, &mut out, None, false);
                    check(&format!("{unit:?} {} {in_12_bits}", tensor_type.name()), &packed, &values, &out);
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

/// Threads and sessions divide groups as they like: a group alone, or in a matrix's last columns, is stored in another way.
#[test]
fn products_do_not_depend_on_how_groups_are_divided() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(11);
    let (rows, columns, n) = (72, 2304, 49);
    let bytes = random_rows(TensorType::Q8_0, rows, columns, &mut noise);
    let matrix = place(TensorType::Q8_0, rows, columns, &bytes, true, Isa::Avx512Vnni, &pool);
    let values: Vec<f32> = (0..n * columns).map(|_| noise.float() * 3.0).collect();
    let tiles = rounded(&values, n, columns, &pool);
    let bias: Vec<f32> = (0..rows).map(|_| noise.float()).collect();
    for (unit, bias, accumulate) in units().into_iter().flat_map(|unit| {
        [(None, false), (None, true), (Some(&bias[..]), false), (Some(&bias[..]), true)].map(|(b, a)| (unit, b, a))
    }) {
        let product = |together: usize| {
            let mut out = vec![0.25; n * rows];
            let groups = rows.div_ceil(ROWS);
            for first in (0..groups).step_by(together) {
                let groups = first..groups.min(first + together);
                multiply_groups_on(unit, &matrix, &tiles, groups, &mut out, bias, accumulate);
            }
            out
        };
        let expected = product(3);
        for together in [1, 2, 5] {
            assert!(product(together) == expected, "{unit:?}, bias {}, {accumulate}, {together}", bias.is_some());
        }
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
                assert!(near(with_bias[i], plain + (i % rows) as f32) && near(added[i], 2.0 + plain), "{unit:?} {i}");
            }
        }
    }
}

#[test]
fn gated_products_are_activated_and_in_tiles() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(11);
    let activate = |gate: &[f32], up: &[f32], out: &mut [f32]| {
        out.iter_mut().zip(gate.iter().zip(up)).for_each(|(out, (gate, up))| *out = gate.max(0.0) * up);
    };
    for (gate_type, up_type, rows, columns, n) in [
        (TensorType::Q4_0, TensorType::Q4_0, 96, 512, 80),
        (TensorType::Q4_K, TensorType::Q6_K, 64, 1024, 33),
        (TensorType::F16, TensorType::Q8_0, 160, 96, 17),
        (TensorType::Q8_0, TensorType::Q8_0, 32, 64, 16),
    ] {
        let mut matrix = |tensor_type| {
            let bytes = random_rows(tensor_type, rows, columns, &mut noise);
            place(tensor_type, rows, columns, &bytes, true, Isa::Avx512Vnni, &pool)
        };
        let (gate, up) = (matrix(gate_type), matrix(up_type));
        let values: Vec<f32> = (0..n * columns).map(|_| noise.float()).collect();
        let biases: [Vec<f32>; 2] = std::array::from_fn(|_| (0..rows).map(|_| noise.float()).collect());
        let tiles = rounded(&values, n, columns, &pool);
        for unit in units() {
            let product = |matrix: &Matrix, bias: &[f32]| {
                let mut out = vec![f32::NAN; n * rows];
                multiply_on(unit, matrix, &tiles, &mut out, Some(bias), false);
                out
            };
            let (gates, ups) = (product(&gate, &biases[0]), product(&up, &biases[1]));
            let mut wanted = vec![0.0; n * rows];
            activate(&gates, &ups, &mut wanted);
            let gated = Gated {
                gate: &gate,
                gate_bias: Some(&biases[0]),
                up: &up,
                up_bias: Some(&biases[1]),
                activate: &activate,
            };
            let mut out = Tiles::new(n, rows).expect("tiles");
            {
                let out = out.rows_of(n, rows);
                let groups = rows / ROWS;
                let whole = 0..n / TILE_ROWS * TILE_ROWS;
                for (rows, groups) in
                    [(whole.clone(), 0..groups / 2), (whole.clone(), groups / 2..groups), (whole.end..n, 0..groups)]
                {
                    // SAFETY: `can_unfold`, and the unit is there.
                    unsafe {
                        match unit {
                            On::Emulated => multiply_gated_with::<unit::Emulated>(&gated, &tiles, rows, groups, &out),
                            On::Vectors => multiply_gated_with::<unit::Vectors>(&gated, &tiles, rows, groups, &out),
                            On::Amx => multiply_gated(&gated, &tiles, rows, groups, &out),
                        }
                    }
                }
            }
            let mut row = vec![f32::NAN; rows];
            for (i, wanted) in wanted.chunks_exact(rows).enumerate() {
                out.row(i, &mut row);
                for (found, wanted) in row.iter().zip(wanted) {
                    let allowed = wanted.abs() / 128.0 + 1e-4;
                    assert!((found - wanted).abs() <= allowed, "{unit:?} {gate_type:?} {i}: {found}, not {wanted}");
                }
            }
        }
    }
}

#[test]
fn rows_that_were_written_in_tiles_have_values_when_asked_for() {
    if !can_unfold() {
        return;
    }
    let pool = Pool::new(2).expect("a pool");
    let mut noise = Noise(12);
    let (n, columns) = (21, 72);
    let values: Vec<f32> = (0..n * columns).map(|_| noise.float() * 9.0).collect();
    let mut acts = Acts::new(n, columns, Isa::Amx).expect("activations");
    acts.set_shape(n, columns);
    acts.values_mut().fill(f32::NAN);
    {
        let tiles = acts.written_in_tiles(n, columns).expect("enough rows");
        for i in 0..2 * TILE_ROWS {
            // SAFETY: `can_unfold`; the tiles are of 32 rows.
            unsafe { rows::round(&tiles, i, values.chunks_exact(columns).nth(i)) };
        }
    }
    assert!(acts.tiles().is_some_and(|tiles| (tiles.rows, tiles.columns) == (n, columns)));
    acts.value(&pool);
    for (found, value) in acts.values().iter().zip(&values) {
        assert_eq!(*found, bf16::from_f32(*value).to_f32());
    }
    let tiles = acts.tiles().expect("tiles");
    let second = &tiles.memory.as_slice()[tiles.block()..2 * tiles.block()];
    for (i, row) in second.chunks_exact(unit::TILE_WIDTH).enumerate() {
        assert!(i % TILE_ROWS < n - TILE_ROWS || row.iter().all(|&byte| byte == 0), "rows that are none");
    }
    assert!(acts.written_in_tiles(3, columns).is_none(), "too few rows for tiles");
    acts.values_mut().fill(1.0);
    acts.value(&pool);
    assert!(acts.values().iter().all(|&x| x == 1.0), "values that were written last are those that count");
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

mod attending {
    //! Attention on tiles against a plain softmax in double precision.

    use half::f16;

    use super::super::attention::{Scratch, attend, attend_with};
    use super::*;
    use crate::backend::PAGE_TOKENS;
    use crate::backend::cpu::attention::{HeadPage, Query, Scores};

    /// Keys and values of some tokens; what comes after them is not a number.
    struct Cache {
        head_dim: usize,
        k: Vec<f16>,
        v: Vec<f16>,
    }

    impl Cache {
        fn new(noise: &mut Noise, head_dim: usize, tokens: usize) -> Cache {
            let mut part = || {
                let mut part: Vec<f16> = (0..tokens * head_dim).map(|_| f16::from_f32(noise.float())).collect();
                part.resize((tokens.div_ceil(PAGE_TOKENS) + 1) * PAGE_TOKENS * head_dim, f16::NAN);
                part
            };
            Cache { head_dim, k: part(), v: part() }
        }

        fn page(&self, p: usize) -> HeadPage<'_> {
            let size = PAGE_TOKENS * self.head_dim;
            HeadPage::F16 { k: &self.k[p * size..(p + 1) * size], v: &self.v[p * size..(p + 1) * size] }
        }

        fn naive(&self, q: &[f32], (begin, end): (usize, usize), scores: Scores) -> Vec<f64> {
            let element = |part: &[f16], t: usize, i: usize| part[t * self.head_dim + i].to_f64();
            let all: Vec<f64> = (begin..end)
                .map(|t| {
                    let dot: f64 = q.iter().enumerate().map(|(i, q)| f64::from(*q) * element(&self.k, t, i)).sum();
                    let score = dot * f64::from(scores.scale);
                    scores.softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                })
                .collect();
            let max = all.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = all.iter().map(|s| (s - max).exp()).sum();
            let mean = |i| (begin..end).zip(&all).map(|(t, s)| (s - max).exp() / sum * element(&self.v, t, i)).sum();
            (0..self.head_dim).map(mean).collect()
        }
    }

    /// bf16 has 8 bits: the scores' errors are about 0.01 here, and values are in −1..1.
    fn check(noise: &mut Noise, cache: &Cache, ranges: &[(usize, usize)], scores: Scores, capacity: usize) {
        let head_dim = cache.head_dim;
        let q: Vec<f32> = (0..ranges.len() * head_dim).map(|_| noise.float() * 3.0).collect();
        for unit in units() {
            let mut scratch = Scratch::new(head_dim, capacity).expect("scratch");
            let mut out = vec![f32::NAN; q.len()];
            let rows = q.chunks_exact(head_dim).zip(out.chunks_exact_mut(head_dim)).zip(ranges);
            let mut queries: Vec<Query> = rows.map(|((q, out), &(begin, end))| Query { q, out, begin, end }).collect();
            // SAFETY: `can_unfold`, and the unit is there.
            unsafe {
                let pages = |p| cache.page(p);
                match unit {
                    On::Emulated => attend_with::<unit::Emulated>(&mut queries, &pages, scores, &mut scratch),
                    On::Vectors => attend(Isa::Avx512Vnni, &mut queries, &pages, scores, &mut scratch),
                    On::Amx => attend(Isa::Amx, &mut queries, &pages, scores, &mut scratch),
                }
            }
            let mut largest = 0f64;
            for (i, &range) in ranges.iter().enumerate() {
                let row = i * head_dim..(i + 1) * head_dim;
                for (got, want) in out[row.clone()].iter().zip(cache.naive(&q[row], range, scores)) {
                    largest = largest.max((f64::from(*got) - want).abs());
                    assert!(largest < 0.015, "{unit:?}: head {head_dim}, query {i} of {range:?}: {got} is not {want}");
                }
            }
            // Without a tendency: rounding and truncating must not shrink what is long.
            let bias: f64 = ranges
                .iter()
                .enumerate()
                .map(|(i, &range)| {
                    let row = i * head_dim..(i + 1) * head_dim;
                    let want = cache.naive(&q[row.clone()], range, scores);
                    out[row].iter().zip(want).map(|(got, want)| (f64::from(*got) - want) * want.signum()).sum::<f64>()
                })
                .sum();
            let bias = bias / q.len() as f64;
            assert!(bias.abs() < 5e-4, "{unit:?}: head {head_dim}: results are {bias} from zero on the average");
        }
    }

    fn plain(head_dim: usize) -> Scores {
        Scores { scale: 1.0 / (head_dim as f32).sqrt(), softcap: None }
    }

    #[test]
    fn causal_ranges_windows_caps_and_groups() {
        if !can_unfold() {
            return;
        }
        let mut noise = Noise(9);
        for (head_dim, tokens, rows, group) in
            [(64, 300, 64, 3), (64, 40, 40, 1), (128, 129, 17, 2), (256, 70, 33, 4), (80, 200, 12, 1), (40, 33, 20, 1)]
        {
            let cache = Cache::new(&mut noise, head_dim, tokens);
            for (window, softcap) in [(None, None), (Some(50), None), (None, Some(2.0))] {
                let range = |end: usize| (window.map_or(0, |w| end.saturating_sub(w)), end);
                let ranges: Vec<(usize, usize)> =
                    (tokens + 1 - rows..=tokens).flat_map(|end| std::iter::repeat_n(range(end), group)).collect();
                let scores = Scores { softcap, ..plain(head_dim) };
                check(&mut noise, &cache, &ranges, scores, ranges.len());
                check(&mut noise, &cache, &ranges, scores, 40);
            }
        }
    }

    #[test]
    fn empty_ranges_give_zeros_and_great_scores_are_finite() {
        if !can_unfold() {
            return;
        }
        let mut noise = Noise(10);
        let mut cache = Cache::new(&mut noise, 64, 200);
        check(&mut noise, &cache, &[(0, 0), (7, 7), (150, 200), (0, 1), (199, 200), (130, 131)], plain(64), 8);
        // One token's accident stays with those who see it.
        cache.v[199 * 64..].iter_mut().for_each(|v| *v = f16::INFINITY);
        check(&mut noise, &cache, &[(0, 199), (20, 150)], plain(64), 8);
        cache.k.iter_mut().for_each(|k| *k = f16::from_f32(if k.is_nan() { 1.0 } else { k.to_f32() * 3000.0 }));
        let q = [100.0; 64];
        let mut out = [f32::NAN; 64];
        let mut scratch = Scratch::new(64, 1).expect("scratch");
        let mut queries = [Query { q: &q, out: &mut out, begin: 0, end: 180 }];
        // SAFETY: `can_unfold`.
        unsafe { attend_with::<unit::Emulated>(&mut queries, &|p| cache.page(p), plain(64), &mut scratch) };
        assert!(out.iter().all(|x| x.is_finite() && x.abs() <= 1.01), "{out:?}");
    }
}
