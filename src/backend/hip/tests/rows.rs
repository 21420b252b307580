//! Norms, quantisation, activations, and the greatest logit.

use super::{Noise, Rig, difference};
use crate::backend::hip::args::*;

fn rms_norm(x: &[f32], gain: Option<&[f32]>, epsilon: f32) -> Vec<f64> {
    let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
    let factor = 1.0 / (squares / x.len() as f64 + f64::from(epsilon)).sqrt();
    let of = |i: usize| gain.map_or(1.0, |gain| factor * f64::from(gain[i]));
    x.iter().enumerate().map(|(i, &x)| f64::from(x) * of(i)).collect()
}

#[test]
fn rows_are_normalised_and_quantised() {
    let Some(rig) = Rig::new() else { return };
    let (n, epsilon, mut noise) = (3, 1e-5, Noise(1));
    for (columns, normalised) in [(32, true), (96, false), (576, true), (2048, true), (100, true), (4160, false)] {
        let (x, gain) = (noise.floats(n * columns, 3.0), noise.floats(columns, 1.0));
        let (on_device, gain_on_device) = (rig.upload(&x), rig.upload(&gain));
        let (out, q, scales) =
            (rig.room::<f32>(n * columns), rig.room::<i8>(n * columns), rig.room::<f32>(n * columns / 16));
        let blocks = columns % 32 == 0;
        let acts = QuantArg { q: q.address(), scales: scales.address() };
        let args = NormQuantizeArgs {
            x: on_device.address(),
            out: out.address(),
            acts: if blocks { acts } else { QuantArg::default() },
            norm: NormArg { gain: if normalised { gain_on_device.address() } else { 0 }, epsilon, unused: 0 },
            n: n as u32,
            columns: columns as u32,
        };
        rig.run("norm_quantize", [n, 1, 1], &args);
        let out: Vec<f32> = rig.download(&out);
        let expected: Vec<f64> = x
            .chunks_exact(columns)
            .flat_map(|row| rms_norm(row, normalised.then_some(gain.as_slice()), epsilon))
            .collect();
        assert!(difference(&out, &expected) < 1e-5, "{columns} columns: {}", difference(&out, &expected));
        if !blocks {
            continue;
        }
        let (q, scales): (Vec<i8>, Vec<f32>) = (rig.download(&q), rig.download(&scales));
        for ((x, q), scale) in out.chunks_exact(32).zip(q.chunks_exact(32)).zip(scales.chunks_exact(2)) {
            let most = x.iter().fold(0f32, |most, x| most.max(x.abs()));
            assert!((scale[0] - most / 127.0).abs() <= most * 1e-6);
            assert!((scale[1] - scale[0] * q.iter().map(|&q| f32::from(q)).sum::<f32>()).abs() <= most * 1e-5);
            for (x, &q) in x.iter().zip(q) {
                assert!((x - scale[0] * f32::from(q)).abs() <= scale[0] * 0.5001, "{columns} columns: {x} as {q}");
            }
        }
    }
}

#[test]
fn rows_are_normalised_and_added() {
    let Some(rig) = Rig::new() else { return };
    let (n, epsilon, mut noise) = (3, 1e-6, Noise(2));
    for columns in [100, 576] {
        let (x, y, gain) = (noise.floats(n * columns, 1.0), noise.floats(n * columns, 2.0), noise.floats(columns, 1.0));
        let (x_on_device, y_on_device, gain_on_device) = (rig.upload(&x), rig.upload(&y), rig.upload(&gain));
        let args = NormAddArgs {
            y: y_on_device.address(),
            x: x_on_device.address(),
            norm: NormArg { gain: gain_on_device.address(), epsilon, unused: 0 },
            n: n as u32,
            columns: columns as u32,
        };
        rig.run("norm_add", [n, 1, 1], &args);
        let normed = y.chunks_exact(columns).flat_map(|row| rms_norm(row, Some(&gain), epsilon));
        let expected: Vec<f64> = x.iter().zip(normed).map(|(&x, y)| f64::from(x) + y).collect();
        let error = difference(&rig.download(&x_on_device), &expected);
        assert!(error < 1e-5, "{columns} columns: {error}");
    }
}

#[test]
fn gates_are_bent() {
    let Some(rig) = Rig::new() else { return };
    let mut noise = Noise(3);
    for (n, columns) in [(1, 64), (3, 577), (2, 4096)] {
        let (mut gate, up) = (noise.floats(n * columns, 4.0), noise.floats(n * columns, 1.0));
        gate[..2].copy_from_slice(&[-200.0, 200.0]);
        for epilogue in [EPILOGUE_SILU, EPILOGUE_GELU_TANH] {
            let (gate_on_device, up_on_device, out) =
                (rig.upload(&gate), rig.upload(&up), rig.room::<f32>(n * columns));
            let args = GateUpArgs {
                gate: gate_on_device.address(),
                up: up_on_device.address(),
                out: out.address(),
                n: n as u32,
                columns: columns as u32,
                epilogue,
                unused: 0,
            };
            rig.run("gate_up", [2, 1, 1], &args);
            let expected: Vec<f64> = gate
                .iter()
                .zip(&up)
                .map(|(&gate, &up)| {
                    let gate = f64::from(gate);
                    let gelu = 2.0 * (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
                    gate / (1.0 + (if epilogue == EPILOGUE_SILU { -gate } else { -gelu }).exp()) * f64::from(up)
                })
                .collect();
            for (found, expected) in rig.download::<f32>(&out).into_iter().zip(expected) {
                assert!(
                    (f64::from(found) - expected).abs() <= 1e-5 * expected.abs().max(1.0),
                    "{found}, not {expected}"
                );
            }
        }
    }
}

#[test]
fn the_greatest_logit_is_found() {
    let Some(rig) = Rig::new() else { return };
    let (n, splits, mut noise) = (2, 5, Noise(4));
    for n_vocab in [1, 5, 1000, 4099, 32000] {
        for kind in 0..4 {
            let mut logits = noise.floats(n * n_vocab, 1.0);
            match kind {
                1 => [n_vocab / 2, n_vocab - 1].into_iter().for_each(|i| logits[i] = 99.0),
                2 => logits[n_vocab / 3] = f32::NAN,
                3 => logits[..n_vocab].fill(f32::NEG_INFINITY),
                _ => {}
            }
            let (on_device, counters) = (rig.upload(&logits), rig.upload(&[0u32; 2]));
            let (out, partial) = (rig.room::<[u32; 2]>(n), rig.room::<[u32; 2]>(n * splits));
            let args = ArgmaxArgs {
                logits: on_device.address(),
                out: out.address(),
                partial: partial.address(),
                counters: counters.address(),
                n: n as u32,
                n_vocab: n_vocab as u32,
                splits: splits as u32,
                unused: 0,
            };
            rig.run("argmax", [splits, n, 1], &args);
            for (row, [token, _]) in logits.chunks_exact(n_vocab).zip(rig.download::<[u32; 2]>(&out)) {
                let first = |best: usize, i: usize| if row[i] > row[best] { i } else { best };
                let expected =
                    if row.iter().any(|x| x.is_nan()) { u32::MAX } else { (0..n_vocab).fold(0, first) as u32 };
                assert_eq!(token, expected, "vocabulary of {n_vocab}, kind {kind}");
            }
            assert_eq!(rig.download::<u32>(&counters), [0, 0]);
        }
    }
}
