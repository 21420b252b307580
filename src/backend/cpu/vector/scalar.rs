//! The vector operations in plain Rust: what the others are tested against, and what other processors run.

use half::f16;

/// The factor of the root-mean-square norm. Sums in f64: the oracle should not be the one that errs.
fn rms_factor(x: &[f32], eps: f32) -> f32 {
    let sum: f64 = x.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (1.0 / (sum / x.len() as f64 + f64::from(eps)).sqrt()) as f32
}

pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    let factor = rms_factor(x, eps);
    for ((out, x), gain) in out.iter_mut().zip(x).zip(gain) {
        *out = x * factor * gain;
    }
}

pub fn rms_norm_in_place(x: &mut [f32], gain: &[f32], eps: f32) {
    let factor = rms_factor(x, eps);
    for (x, gain) in x.iter_mut().zip(gain) {
        *x *= factor * gain;
    }
}

pub fn add_assign(y: &mut [f32], x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += x;
    }
}

pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * x;
    }
}

pub fn scale(x: &mut [f32], factor: f32) {
    for x in x {
        *x *= factor;
    }
}

pub fn dot_f32(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

pub fn max(x: &[f32]) -> f32 {
    x.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// `eˣ` with results under the least normal f32 flushed to 0, as the vector form has them.
fn exp_one(x: f32) -> f32 {
    if x < super::LN_MIN_NORMAL { 0.0 } else { x.exp() }
}

pub fn exp(x: &mut [f32]) {
    for x in x {
        *x = exp_one(*x);
    }
}

pub fn softmax(x: &mut [f32]) {
    let greatest = max(x);
    let mut sum = 0.0;
    for x in &mut *x {
        *x = exp_one(*x - greatest);
        sum += *x;
    }
    scale(x, 1.0 / sum);
}

pub fn softcap(x: &mut [f32], cap: f32) {
    for x in x {
        *x = cap * (*x / cap).tanh();
    }
}

pub fn mul_silu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + (-gate).exp()) * up;
    }
}

pub fn mul_gelu_tanh(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
        // (1 + tanh u) / 2 is the logistic function of 2u: no cancellation for negative u.
        let u = super::SQRT_2_OVER_PI * (gate + super::GELU_CUBIC * gate * gate * gate);
        *out = gate / (1.0 + (-2.0 * u).exp()) * up;
    }
}

pub fn f32_to_f16(x: &[f32], out: &mut [f16]) {
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(x);
    }
}

pub fn f32_to_f16_saturating(x: &[f32], out: &mut [f16]) {
    let greatest = f16::MAX.to_f32();
    for (out, &x) in out.iter_mut().zip(x) {
        *out = f16::from_f32(x.clamp(-greatest, greatest));
    }
}

pub fn f16_to_f32(x: &[f16], out: &mut [f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = x.to_f32();
    }
}

/// Turns the pair `(a, b)` by an angle.
fn rotate(a: &mut f32, b: &mut f32, cos: f32, sin: f32) {
    (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
}

/// Turns the first pairs of neighbours of a head, as many as there are angles.
pub fn rotate_neighbours(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    for ((pair, &cos), &sin) in head.chunks_exact_mut(2).zip(cos).zip(sin) {
        let [a, b] = pair else { continue };
        rotate(a, b, cos, sin);
    }
}

pub fn rope_norm(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(head_dim) {
        rotate_neighbours(head, cos, sin);
    }
}

pub fn rope_neox(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    for head in row.chunks_exact_mut(head_dim) {
        let (first, second) = head.split_at_mut(cos.len());
        for (((a, b), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
            rotate(a, b, cos, sin);
        }
    }
}
