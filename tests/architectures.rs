//! Every architecture on a tiny random model against PyTorch's float32 logits: rotary kinds and scalings, grouped heads,
//! biases, head norms, post norms, windows, fused projections, tied heads, quantised weights.

mod common;
#[path = "common/architectures.rs"]
mod expected;

use common::{argmax, engine, ids, numbers};
use expected::run;

/// Rows of a step: pages, steps and windows do not fall together.
const BATCH: usize = 7;

#[test]
fn reference_mode_gives_pytorchs_logits() {
    let mut worst = 0.0f32;
    run(&engine(), BATCH, true, &mut |name, i, logits, expected, best| {
        assert_eq!(argmax(logits), best, "{name}: best token at {i}");
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            worst = worst.max((found - expected).abs());
            assert!((found - expected).abs() < 2e-3, "{name}: logit {id} at {i} is {found}, not {expected}");
        }
    });
    println!("largest error of a logit: {worst}");
}

#[test]
fn default_kernels_stay_near() {
    let (mut sum, mut n) = (0.0f64, 0usize);
    run(&engine(), BATCH, false, &mut |name, i, logits, expected, _| {
        for (id, (found, expected)) in logits.iter().zip(expected.iter().flatten()).enumerate() {
            // Tiny networks of large random weights amplify the rounding of activations.
            assert!((found - expected).abs() < 0.6, "{name}: logit {id} at {i} is {found}, not {expected}");
            sum += f64::from((found - expected).abs());
            n += 1;
        }
    });
    println!("mean error of a logit: {}", sum / n as f64);
}
