//! Each operation of each instruction set against f64, over odd lengths.

use super::*;

/// Lengths around the widths of registers and of unrolled loops.
const LENGTHS: [usize; 16] = [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 130, 577];

/// Numbers in `-range..range`, the same for the same seed (xorshift).
fn noise(seed: u64, n: usize, range: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() * range).collect()
}

/// Calls `f` for every available instruction set and length.
fn for_all(f: impl Fn(Isa, usize)) {
    for isa in Isa::available() {
        for n in LENGTHS {
            f(isa, n);
        }
    }
}

/// Asserts that `got` is within `relative · |want| + absolute` of `want`.
#[track_caller]
fn near(isa: Isa, got: &[f32], want: impl IntoIterator<Item = f64>, relative: f64, absolute: f64) {
    let mut count = 0;
    for (i, want) in want.into_iter().enumerate() {
        let error = (f64::from(got[i]) - want).abs();
        assert!(error <= relative * want.abs() + absolute, "{isa:?} [{i}] of {}: {} is not {want}", got.len(), got[i]);
        count += 1;
    }
    assert_eq!(count, got.len());
}

fn wide(x: &[f32]) -> impl Iterator<Item = f64> + '_ {
    x.iter().map(|&v| f64::from(v))
}

/// Half a unit in the last place of an f32.
const HALF_ULP: f64 = f32::EPSILON as f64 / 2.0;

#[test]
fn norms() {
    for_all(|isa, n| {
        let (x, gain) = (noise(1, n, 3.0), noise(2, n, 2.0));
        let factor = 1.0 / (wide(&x).map(|v| v * v).sum::<f64>() / n as f64 + 1e-5f32 as f64).sqrt();
        let want: Vec<f64> = wide(&x).zip(wide(&gain)).map(|(x, g)| x * factor * g).collect();
        let mut out = vec![f32::NAN; n];
        rms_norm(isa, &x, &gain, 1e-5, &mut out);
        near(isa, &out, want.iter().copied(), 1e-6, 0.0);
        let mut x = x;
        rms_norm_in_place(isa, &mut x, &gain, 1e-5);
        near(isa, &x, want, 1e-6, 0.0);
    });
}

#[test]
fn sums_and_products() {
    for_all(|isa, n| {
        let (a, b) = (noise(3, n, 3.0), noise(4, n, 3.0));
        let mut y = a.clone();
        add_assign(isa, &mut y, &b);
        near(isa, &y, wide(&a).zip(wide(&b)).map(|(a, b)| a + b), HALF_ULP, 0.0);
        let mut y = a.clone();
        axpy(isa, 0.7, &b, &mut y);
        near(isa, &y, wide(&a).zip(wide(&b)).map(|(a, b)| a + 0.7f32 as f64 * b), HALF_ULP, 3e-7);
        let mut y = a.clone();
        scale(isa, &mut y, -1.3);
        near(isa, &y, wide(&a).map(|a| a * -1.3f32 as f64), HALF_ULP, 0.0);
        let sum: f64 = wide(&a).zip(wide(&b)).map(|(a, b)| a * b).sum();
        // The error of a sum in any order: n roundings of terms up to 9.
        near(isa, &[dot_f32(isa, &a, &b)], [sum], 0.0, n as f64 * 9.0 * HALF_ULP);
    });
    for isa in Isa::available() {
        assert_eq!(dot_f32(isa, &[], &[]), 0.0);
    }
}

#[test]
fn greatest() {
    for_all(|isa, n| {
        let mut x = noise(5, n, 3.0);
        for v in &mut x {
            *v -= 10.0; // all negative: a lane that is not an element would win
        }
        for i in [0, n / 2, n - 1] {
            let before = std::mem::replace(&mut x[i], -1.0);
            assert_eq!(max(isa, &x), -1.0, "{isa:?} {i} of {n}");
            x[i] = before;
        }
    });
    for isa in Isa::available() {
        assert_eq!(max(isa, &[]), f32::NEG_INFINITY);
    }
}

#[test]
fn exponentials_are_within_two_ulp() {
    for isa in Isa::available() {
        // 700 000 points over the range of normal results, and the small ones near 0.
        let mut x: Vec<f32> = (0..700_000).map(|i| -87.33 + i as f32 * (176.05 / 700_000.0)).collect();
        x.extend(noise(6, 1001, 1e-3));
        let want: Vec<f64> = wide(&x).map(f64::exp).collect();
        exp(isa, &mut x);
        near(isa, &x, want, 2.0 * f32::EPSILON as f64, 0.0);
        let mut edges = [0.0, -0.0, 88.722_83, 88.7229, 1e30, f32::INFINITY, -87.4, -1e30, f32::NEG_INFINITY, f32::NAN];
        exp(isa, &mut edges);
        assert_eq!(edges[..2], [1.0, 1.0]);
        assert!(edges[2] > 3.4e38 && edges[2].is_finite(), "{isa:?} {}", edges[2]);
        assert_eq!(edges[3..9], [f32::INFINITY, f32::INFINITY, f32::INFINITY, 0.0, 0.0, 0.0], "{isa:?}");
        assert!(edges[9].is_nan(), "{isa:?}");
    }
}

#[test]
fn softmaxes() {
    for_all(|isa, n| {
        for offset in [0.0, 1e4, -1e30] {
            let x: Vec<f32> = noise(7, n, 20.0).iter().map(|v| v + offset).collect();
            let greatest = wide(&x).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = wide(&x).map(|v| (v - greatest).exp()).sum();
            let mut out = x.clone();
            softmax(isa, &mut out);
            near(isa, &out, wide(&x).map(|v| (v - greatest).exp() / sum), 4e-6, 1e-37);
        }
    });
}

#[test]
fn softcaps() {
    for_all(|isa, n| {
        for range in [1e-3, 40.0, 1000.0] {
            let x = noise(8, n, range);
            let mut out = x.clone();
            softcap(isa, &mut out, 30.0);
            near(isa, &out, wide(&x).map(|v| 30.0 * (v / 30.0).tanh()), 4e-7, 0.0);
        }
    });
    for isa in Isa::available() {
        let mut edges = [0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX];
        softcap(isa, &mut edges, 30.0);
        assert_eq!(edges, [0.0, 30.0, -30.0, 30.0], "{isa:?}");
    }
}

#[test]
fn gated_activations() {
    for_all(|isa, n| {
        for range in [0.1, 5.0, 120.0] {
            let (gate, up) = (noise(9, n, range), noise(10, n, 3.0));
            let mut out = vec![f32::NAN; n];
            mul_silu(isa, &gate, &up, &mut out);
            near(isa, &out, wide(&gate).zip(wide(&up)).map(|(g, u)| g / (1.0 + (-g).exp()) * u), 1e-6, 1e-35);
            mul_gelu_tanh(isa, &gate, &up, &mut out);
            let gelu = |g: f64| {
                let u = (2.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g * g * g);
                g / (1.0 + (-2.0 * u).exp())
            };
            // The exponent reaches 88, so its own rounding shows in the last bits of small results.
            near(isa, &out, wide(&gate).zip(wide(&up)).map(|(g, u)| gelu(g) * u), 4e-5, 1e-35);
        }
    });
    for isa in Isa::available() {
        let mut out = [f32::NAN; 4];
        mul_silu(isa, &[-1e30, 1e30, -100.0, 0.0], &[1.0; 4], &mut out);
        assert_eq!(out[..2], [0.0, 1e30], "{isa:?}");
        assert!(out[2].abs() < 1e-36 && out[3] == 0.0, "{isa:?}");
        mul_gelu_tanh(isa, &[-1e10, 1e10, -100.0, 0.0], &[1.0; 4], &mut out);
        assert_eq!(out, [0.0, 1e10, 0.0, 0.0], "{isa:?}");
    }
}

#[test]
fn half_precision_round_trips_and_rounds_to_even() {
    for_all(|isa, n| {
        let x = noise(11, n, 7e4); // some beyond the range
        let mut halves = vec![f16::NAN; n];
        f32_to_f16(isa, &x, &mut halves);
        assert!(halves.iter().zip(&x).all(|(h, &x)| h.to_bits() == f16::from_f32(x).to_bits()), "{isa:?} {n}");
        let mut bounded = vec![f16::NAN; n];
        f32_to_f16_saturating(isa, &x, &mut bounded);
        for (b, h) in bounded.iter().zip(&halves) {
            let want = if h.is_infinite() { f16::MAX.copysign(*h) } else { *h };
            assert_eq!(b.to_bits(), want.to_bits(), "{isa:?} {n}");
        }
        let mut back = vec![f32::NAN; n];
        f16_to_f32(isa, &halves, &mut back);
        assert!(back.iter().zip(&halves).all(|(b, h)| *b == h.to_f32()), "{isa:?} {n}");
    });
    for isa in Isa::available() {
        let mut out = [f16::ZERO; 17];
        f32_to_f16_saturating(isa, &[f32::NAN; 17], &mut out);
        assert!(out.iter().all(|v| v.is_nan()), "{isa:?}");
        f32_to_f16_saturating(isa, &[f32::NEG_INFINITY; 17], &mut out);
        assert!(out.iter().all(|v| *v == f16::MIN), "{isa:?}");
        let every: Vec<f16> = (0..0x7c00).map(f16::from_bits).collect();
        let mut as_f32 = vec![0.0; every.len()];
        f16_to_f32(isa, &every, &mut as_f32);
        let mut back = vec![f16::NAN; every.len()];
        f32_to_f16(isa, &as_f32, &mut back);
        assert!(back == every, "{isa:?}: subnormals included");
    }
}

#[test]
fn ropes() {
    // (head_dim, rotated pairs): whole, partial, nothing, and no multiple of a register.
    for (head_dim, pairs) in [(64, 32), (80, 40), (80, 16), (128, 64), (96, 13), (10, 5), (7, 2), (4, 0), (64, 3)] {
        for isa in Isa::available() {
            let row = noise(12, 3 * head_dim, 2.0);
            let angles = noise(13, pairs, 6.0);
            let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
            for neox in [false, true] {
                let mut want: Vec<f64> = wide(&row).collect();
                for head in want.chunks_mut(head_dim) {
                    for i in 0..pairs {
                        let (a, b) = if neox { (i, i + pairs) } else { (2 * i, 2 * i + 1) };
                        let (x, y, c, s) = (head[a], head[b], f64::from(cos[i]), f64::from(sin[i]));
                        (head[a], head[b]) = (x * c - y * s, x * s + y * c);
                    }
                }
                let mut got = row.clone();
                let rope = if neox { rope_neox } else { rope_norm };
                rope(isa, &mut got, head_dim, &cos, &sin);
                near(isa, &got, want, 0.0, 4.0 * f32::EPSILON as f64);
            }
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    for isa in Isa::available() {
        assert!(refused(&|| add_assign(isa, &mut [0.0; 3], &[0.0; 4])));
        assert!(refused(&|| rope_neox(isa, &mut [0.0; 8], 4, &[0.0; 3], &[0.0; 3])));
        assert!(refused(&|| rope_norm(isa, &mut [0.0; 9], 4, &[0.0; 2], &[0.0; 2])));
        assert!(refused(&|| mul_silu(isa, &[0.0; 8], &[0.0; 8], &mut [0.0; 9])));
    }
}
