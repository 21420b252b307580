use super::*;
use std::path::PathBuf;

fn data(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/quant").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The blocks of a vector file and the values that the `gguf` Python package decodes them to.
fn vectors(format: &Format) -> (Vec<u8>, Vec<f32>) {
    let file = data(&format!("{}.bin", format.name));
    let per_block = format.block_bytes + 4 * format.block_elements;
    assert_eq!(file.len() % per_block, 0, "{}", format.name);
    let (blocks, values) = file.split_at(file.len() / per_block * format.block_bytes);
    (blocks.to_vec(), values.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Equal to the bit; two NaNs count as equal, because a conversion may set the quiet bit.
fn assert_same(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(g.to_bits() == w.to_bits() || g.is_nan() && w.is_nan(), "{name}[{i}] is {g:e}, expected {w:e}");
    }
}

#[test]
fn every_decode_equals_the_gguf_package() {
    let mut decoded = 0;
    for format in FORMATS {
        let Some(decode) = format.decode else { continue };
        let (blocks, want) = vectors(format);
        let mut got = vec![f32::NAN; want.len()];
        decode(&blocks, &mut got);
        assert_same(format.name, &got, &want);
        decoded += 1;
    }
    assert_eq!(decoded, 16);
}

#[test]
fn decode_takes_bytes_at_any_address() {
    for format in FORMATS {
        let Some(decode) = format.decode else { continue };
        let (blocks, want) = vectors(format);
        for shift in 1..4 {
            let shifted = [vec![0; shift], blocks.clone()].concat();
            let mut got = vec![0.0; want.len()];
            decode(&shifted[shift..], &mut got);
            assert_same(format.name, &got, &want);
        }
    }
}

#[test]
fn decode_of_nothing_is_nothing() {
    for format in FORMATS {
        if let Some(decode) = format.decode {
            decode(&[], &mut []);
        }
    }
}

#[test]
#[should_panic(expected = "blocks of 32 elements")]
fn decode_refuses_an_output_of_another_length() {
    decode::q8_0(&[0; 34], &mut [0.0; 31]);
}

#[test]
fn f16_is_exact_for_every_pattern() {
    for bits in 0..=u16::MAX {
        let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 0x3FF));
        let magnitude = match exponent {
            0 => fraction * 2f64.powi(-24),
            31 if fraction == 0.0 => f64::INFINITY,
            31 => f64::NAN,
            e => (1024.0 + fraction) * 2f64.powi(e - 25),
        };
        let want = if bits >> 15 == 1 { -magnitude } else { magnitude } as f32;
        let mut got = [0.0];
        decode::f16(&bits.to_le_bytes(), &mut got);
        assert_same("F16", &got, &[want]);
    }
}

#[test]
fn f32_rounds_to_f16_as_ieee_says() {
    let round = |x: f32| u16::from_le_bytes(blocks::F16Le::from(x).0);
    for (value, bits) in [
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (1.0, 0x3C00),
        (65504.0, 0x7BFF),
        (65519.9, 0x7BFF), // below the midpoint to 65536
        (65520.0, 0x7C00), // the midpoint rounds to even, which is infinity
        (f32::INFINITY, 0x7C00),
        (f32::NEG_INFINITY, 0xFC00),
        (f32::MAX, 0x7C00),
        (2f32.powi(-14), 0x0400), // smallest normal
        (2f32.powi(-24), 0x0001), // smallest subnormal
        (-(2f32.powi(-24)), 0x8001),
        (2f32.powi(-25), 0x0000), // the midpoint to zero rounds to even
        (1.0001 * 2f32.powi(-25), 0x0001),
        (3.0 * 2f32.powi(-25), 0x0002), // the midpoint of 1 and 2 rounds to even
        (1.0 + 2f32.powi(-11), 0x3C00), // likewise among normal numbers
        (1.0 + 3.0 * 2f32.powi(-11), 0x3C02),
        (f32::from_bits(1), 0x0000),
    ] {
        assert_eq!(round(value), bits, "{value:e}");
    }
    let nan = round(f32::NAN);
    assert!(nan & 0x7C00 == 0x7C00 && nan & 0x03FF != 0, "{nan:#06x}");
    for bits in (0..=u16::MAX).filter(|b| b & 0x7FFF <= 0x7C00) {
        assert_eq!(round(blocks::F16Le(bits.to_le_bytes()).to_f32()), bits);
    }
}

#[test]
fn the_table_agrees_with_the_gguf_package() {
    let table = String::from_utf8(data("types.tsv")).unwrap();
    for line in table.lines() {
        let [id, name, elements, bytes] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let format = TensorType::from_id(id.parse().unwrap()).unwrap_or_else(|| panic!("no row for {name}")).format();
        assert_eq!((format.name, format.block_elements), (name, elements.parse().unwrap()));
        // The package still gives Q8_1 two 4-byte scales; ggml's struct has half-precision ones. Such
        // blocks are intermediate values and in no file.
        if name != "Q8_1" {
            assert_eq!(format.block_bytes, bytes.parse::<usize>().unwrap(), "{name}");
        }
    }
}

#[test]
fn ids_and_rows_find_each_other() {
    assert!(FORMATS.windows(2).all(|pair| (pair[0].tensor_type as u32) < pair[1].tensor_type as u32));
    for format in FORMATS {
        assert_eq!(TensorType::from_id(format.tensor_type as u32), Some(format.tensor_type));
        assert_eq!(format.tensor_type.format().name, format.name);
    }
    for gone in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
        assert_eq!(TensorType::from_id(gone), None);
    }
}

#[test]
fn rows_are_whole_blocks() {
    assert_eq!(TensorType::Q4_K.row_bytes(512), Some(288));
    assert_eq!(TensorType::Q4_K.row_bytes(0), Some(0));
    assert_eq!(TensorType::Q4_K.row_bytes(640), None);
    assert_eq!(TensorType::F32.row_bytes(usize::MAX), None);
}

#[test]
fn a_type_without_decode_is_refused_by_name() {
    assert!(TensorType::Q4_0.decoder("m.gguf", "t").is_ok());
    let message = TensorType::IQ2_XXS.decoder("m.gguf", "blk.0.attn_q.weight").unwrap_err().to_string();
    for part in ["m.gguf", "blk.0.attn_q.weight", "IQ2_XXS", "Q4_K", "MXFP4"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!message.contains("IQ1_S"), "{message}");
}

#[test]
fn what_is_not_finite_is_found_where_it_is() {
    let numbers = [(TensorType::F32, vec![0x00, 0x00, 0x80, 0xff]), (TensorType::F16, vec![0x01, 0x7c])];
    for (tensor_type, infinite) in numbers.into_iter().chain([(TensorType::BF16, vec![0x80, 0x7f])]) {
        let size = infinite.len();
        // The largest finite number: one less in the exponent.
        let finite: Vec<u8> = if size == 4 { vec![0xff, 0xff, 0x7f, 0x7f] } else { vec![0x7f, 0x7b] };
        let good = finite.repeat(2000);
        assert_eq!(tensor_type.first_non_finite_scale(&good), None);
        for at in [0, 1, 511, 512, 1023, 1999] {
            let mut bad = good.clone();
            bad[at * size..(at + 1) * size].copy_from_slice(&infinite);
            bad[1999 * size..].copy_from_slice(&infinite);
            assert_eq!(tensor_type.first_non_finite_scale(&bad), Some(at), "{}", tensor_type.name());
        }
    }
}
