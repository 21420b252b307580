//! Packing against the numbers of the file bit by bit, and kernels against decoded numbers.

use half::{bf16, f16};

use super::super::features::{Isa, ShortFloat};
use super::super::float_groups::Products;
use super::super::floats::{FLOAT_MOST, Float};
use super::super::matmul::noise::Noise;
use super::super::memory::AlignedBuf;
use super::*;

/// The file's bytes of a number, as near as it comes.
fn number(float: Float, value: f32) -> [u8; 2] {
    match float {
        Float::F16 => f16::from_f32(value).to_le_bytes(),
        _ => bf16::from_f32(value).to_le_bytes(),
    }
}

fn value(float: Float, bytes: [u8; 2]) -> f32 {
    match float {
        Float::F16 => f16::from_le_bytes(bytes).to_f32(),
        _ => bf16::from_le_bytes(bytes).to_f32(),
    }
}

/// Packs rows with room for any number of exceptions.
fn packed(isa: Isa, float: Float, bytes: &[u8], rows: usize, columns: usize) -> (Vec<u8>, Bf12) {
    // As many exceptions as there are weights are admitted in a matrix that is as many times greater.
    let found = Found::new(rows * RARE, columns);
    let groups = rows.div_ceil(ROWS);
    let size = group_bytes(columns);
    let len = groups * size + groups * Head::BYTES + rows * columns * Exception::BYTES;
    let mut buffer = AlignedBuf::zeroed(len).expect("memory");
    let (tiles, tail) = buffer.as_mut_slice().split_at_mut(groups * size);
    for (group, rows) in bytes.chunks(ROWS * columns * 2).enumerate() {
        // What was there before must not show.
        let out = &mut tiles[group * size..(group + 1) * size];
        out.fill(0xa5);
        found.pack(isa, float, group, rows, columns, out).expect("room for all");
    }
    found.write(tail);
    let bytes = buffer.as_slice().to_vec();
    (bytes, Bf12::new(buffer.into(), rows, columns))
}

/// Zeros of both signs, the ends of the ranges and of the window, numbers with more bits than a bf16 has.
fn edges(float: Float) -> Vec<[u8; 2]> {
    let window = [1.0, -1.992_187_5, 2f32.powi(-15), -(2f32.powi(-15)), 3.0757e-5, 3.0e-5, 1.5e-5, 1e-7, -6e-8];
    let mut edges: Vec<[u8; 2]> = window.iter().map(|&value| number(float, value)).collect();
    // Both zeros, the least subnormal numbers, the greatest of them, the least normal one.
    edges.extend([0u16, 0x8000, 1, 0x8001, 2, 3, 0x007f, 0x0080, 0x03ff, 0x0400].map(u16::to_le_bytes));
    if float == Float::F16 {
        edges.extend([0x3c01u16, 0x3c07, 0xbc04, 0x3c08, 0x7bff, 0x00ff, 0x01ff].map(u16::to_le_bytes));
    }
    edges
}

#[test]
fn nothing_is_rounded() {
    let mut noise = Noise(11);
    for float in [Float::F16, Float::Bf16] {
        for (rows, columns) in [(1, 1), (16, 8), (5, 7), (35, 77), (16, 256)] {
            for special in [0, 2, 30] {
                let edges = edges(float);
                let mut bytes = Vec::new();
                for _ in 0..rows * columns {
                    let edge = edges[noise.next() as usize % edges.len()];
                    let common = number(float, bf16::from_f32(noise.float()).to_f32());
                    bytes.extend(if noise.next() % 100 < special { edge } else { common });
                }
                let mut first = None;
                for isa in Isa::available() {
                    let (all, packed) = packed(isa, float, &bytes, rows, columns);
                    let mut out = vec![f32::NAN; columns];
                    for (r, row) in bytes.chunks_exact(2 * columns).enumerate() {
                        packed.group(r / ROWS).row(r % ROWS, &mut out);
                        for (column, (out, bytes)) in out.iter().zip(row.as_chunks::<2>().0).enumerate() {
                            let expected = value(float, *bytes);
                            assert_eq!(
                                out.to_bits(),
                                expected.to_bits(),
                                "{float:?} {isa:?} [{r}][{column}] {expected}"
                            );
                        }
                    }
                    assert!(*first.get_or_insert(all.clone()) == all, "{float:?}: {isa:?} packs otherwise");
                }
            }
        }
    }
}

#[test]
fn what_is_no_number_is_an_exception() {
    for (float, bits) in [(Float::F16, [0x7c00u16, 0xfc00, 0x7e01]), (Float::Bf16, [0x7f80, 0xff80, 0x7fc1])] {
        let mut bytes: Vec<u8> = number(float, 0.5).repeat(64);
        bits.iter().enumerate().for_each(|(i, bits)| bytes[20 * i..20 * i + 2].copy_from_slice(&bits.to_le_bytes()));
        let (_, packed) = packed(Isa::detect(), float, &bytes, 1, 64);
        let mut out = [0.0; 64];
        packed.group(0).row(0, &mut out);
        for (out, bytes) in out.iter().zip(bytes.as_chunks().0) {
            assert_eq!(out.to_bits(), value(float, *bytes).to_bits());
        }
    }
}

#[test]
fn bases_leave_out_the_fewer() {
    for float in [Float::F16, Float::Bf16] {
        // All within 16 powers of two; the least has a mantissa, or it would be taken for zero.
        let fit: Vec<u8> = (0..16).flat_map(|i| number(float, 1.5 * (-0.5f32).powi(i))).collect();
        let (_, packed_fit) = packed(Isa::detect(), float, &fit, 1, 16);
        assert_eq!(packed_fit.exceptions, []);
        // One great number, and the least twice: that one is left out.
        let one: Vec<u8> = [&fit[..], &fit[30..], &number(float, 3.0)].concat();
        let (_, packed_one) = packed(Isa::detect(), float, &one, 1, 18);
        assert_eq!(packed_one.exceptions, [Exception { place: 17 * ROWS as u32, value: 3.0 }]);
        // A whole row of great ones: the least is.
        let many: Vec<u8> = [&fit[..], &number(float, 3.0).repeat(16)].concat();
        let (_, packed_many) = packed(Isa::detect(), float, &many, 2, 16);
        let least = value(float, number(float, -1.5 * 0.5f32.powi(15)));
        assert_eq!(packed_many.exceptions, [Exception { place: 15 * ROWS as u32, value: least }]);
    }
}

/// Numbers in bf16, with some exceptions.
fn rows_of(float: Float, rows: usize, columns: usize, noise: &mut Noise) -> Vec<u8> {
    let mut row = || {
        let exponent = if noise.next().is_multiple_of(64) { -20 } else { -((noise.next() % 8) as i32) };
        number(float, bf16::from_f32(noise.float() * 2f32.powi(exponent)).to_f32())
    };
    (0..rows * columns).flat_map(|_| row()).collect()
}

#[test]
fn products_are_those_of_the_numbers_with_exceptions_last() {
    let mut noise = Noise(12);
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        for (float, columns) in [(Float::F16, 1), (Float::Bf16, 8), (Float::F16, 77), (Float::Bf16, 600)] {
            let bytes = rows_of(float, 13, columns, &mut noise);
            let (_, packed) = packed(isa, float, &bytes, 13, columns);
            let group = packed.group(0);
            let mut rows = vec![0.0; ROWS * columns];
            rows.chunks_exact_mut(columns).enumerate().for_each(|(r, row)| group.row(r, row));
            for n in 1..=FLOAT_MOST {
                let x: Vec<f32> = (0..n * columns).map(|_| noise.float()).collect();
                let mut out: Products = [f32::NAN; _];
                let width = group.multiply(isa, &x, &mut out).expect("a kernel");
                assert!((1..=n).contains(&width));
                for (t, x) in x.chunks_exact(columns).take(width).enumerate() {
                    for (r, w) in rows.chunks_exact(columns).enumerate() {
                        // As the kernels add: columns with even numbers, odd ones, both, and exceptions last.
                        let mut sums = [0.0f32; 2];
                        let is_exception = |i: usize| group.exceptions.iter().any(|e| (e.column(), e.row()) == (i, r));
                        for i in (0..columns).filter(|&i| !is_exception(i)) {
                            sums[i % 2] = w[i].mul_add(x[i], sums[i % 2]);
                        }
                        let mut sum = sums[0] + sums[1];
                        (0..columns).filter(|&i| is_exception(i)).for_each(|i| sum += w[i] * x[i]);
                        assert_eq!(out[t * ROWS + r], sum, "{isa:?} {float:?} {columns} columns [{t}][{r}] of {n}");
                    }
                }
            }
        }
    }
}

#[test]
fn unfolded_groups_are_the_numbers() {
    let mut noise = Noise(13);
    for (float, columns) in [(Float::F16, 3), (Float::Bf16, 77), (Float::F16, 520)] {
        let bytes = rows_of(float, 16, columns, &mut noise);
        let (_, packed) = packed(Isa::detect(), float, &bytes, 16, columns);
        let group = packed.group(0);
        let at = |r: usize, i: usize| i / 2 * PAIR + 2 * r + i % 2;
        let pairs = columns.div_ceil(2) * PAIR;
        let mut row = vec![0.0; columns];
        for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
            // One number more: nothing may be written there.
            let mut out = vec![7.0f32; pairs + 1];
            // SAFETY: the instruction set is there, and room.
            unsafe { group.decode(isa, out.as_mut_ptr()) };
            assert_eq!(out[pairs], 7.0);
            for r in 0..ROWS {
                group.row(r, &mut row);
                group.exceptions.iter().filter(|e| e.row() == r).for_each(|e| row[e.column()] = 0.0);
                assert!((0..columns).all(|i| out[at(r, i)] == row[i]), "{isa:?} {float:?} row {r}");
            }
        }
        if Isa::detect() < Isa::Avx512Vnni {
            eprintln!("SKIPPED: unfolding to 16 bits, which needs AVX-512");
            continue;
        }
        let mut whole = vec![7u16; pairs + 1];
        for short in [ShortFloat::F16, ShortFloat::Bf16] {
            // SAFETY: as above.
            let scale = unsafe { group.in_short(short, whole.as_mut_ptr().cast()) };
            assert_eq!(whole[pairs], 7);
            for r in 0..ROWS {
                group.row(r, &mut row);
                let is_exception = |i: usize| group.exceptions.iter().any(|e| (e.row(), e.column()) == (r, i));
                let value = |bits: u16| match short {
                    ShortFloat::F16 => f16::from_bits(bits).to_f32() * scale,
                    ShortFloat::Bf16 => bf16::from_bits(bits).to_f32() * scale,
                };
                let same = |i: usize| match value(whole[at(r, i)]) {
                    found if is_exception(i) => found == 0.0,
                    found => found.to_bits() == row[i].to_bits(),
                };
                assert!((0..columns).all(same), "{short:?} of {float:?} row {r}");
            }
        }
        whole.truncate(pairs);
        for exception in group.exceptions {
            whole[at(exception.row(), exception.column())] = bf16::from_f32(exception.value).to_bits();
        }
        for first in (0..columns).step_by(16) {
            let mut part = [7u16; 8 * PAIR];
            // SAFETY: as above.
            unsafe { in_bf16_16(&group, first, part.as_mut_ptr().cast()) };
            let (there, missing) = part.split_at(part.len().min(pairs - first / 2 * PAIR));
            assert!(there == &whole[first / 2 * PAIR..][..there.len()] && missing.iter().all(|&bits| bits == 0));
        }
    }
}

/// [`Group::in_bf16_16`] in a function that has the instruction set.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn in_bf16_16(group: &Group, first: usize, out: *mut u8) {
    // SAFETY: as the caller's.
    unsafe { group.in_bf16_16(first, out) };
}

/// What these bytes are, files of packed weights say: if this fails, raise `VERSION` in `packfile`, and then this hash.
#[test]
fn packed_bytes_are_those_of_the_version() {
    let bytes: Vec<u8> = (0..20 * 9).flat_map(|i| number(Float::Bf16, (i * i % 251) as f32 - 100.0)).collect();
    let (all, packed) = packed(Isa::Scalar, Float::Bf16, &bytes, 20, 9);
    assert_eq!(packed.exceptions.len(), 0);
    assert_eq!(crate::xxh64::xxh64(&all, 0), 0x1d00_9ce8_57fd_7272);
}
