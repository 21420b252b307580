//! Permutations of lanes.

#![allow(clippy::needless_range_loop, clippy::precedence)] // elements of several arrays; shifts and masks

mod common;

use common::{Gpu, Numbers};

#[test]
fn dpp() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("lanes") else { return };
    let x = Numbers::new(1).u32s(32);
    let (dx, out) = (gpu.upload(&x), gpu.buffer(4 * 12 * 32));
    module.launch(&gpu, "dpp", 1, 32, args![dx, out]);
    let out = gpu.download::<u32>(out);
    let old = u32::MAX;
    for i in 0..32 {
        let (row, at) = (i & 16, i & 15);
        let got: Vec<u32> = (0..12).map(|k| out[32 * k + i]).collect();
        let mirror = x[row | (15 - at)];
        let expected = [
            x[i & !3 | (3 - (i & 3))],
            if at < 15 { x[i + 1] } else { old },
            if at >= 3 { x[i - 3] } else { old },
            if at >= 3 { x[i - 3] } else { 0 },
            x[row | (at + 11) % 16],
            mirror,
            x[i & !7 | (7 - (i & 7))],
            x[row | 7],
            x[row | at ^ 10],
            if row == 16 { mirror } else { old },
            if at / 4 % 2 == 0 { mirror } else { old },
            x[i & !7 | [1, 2, 3, 4, 5, 6, 7, 0][i & 7]],
        ];
        assert_eq!(got, expected, "lane {i}");
    }
}

#[test]
fn sum_by_dpp() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("lanes") else { return };
    let x: Vec<f32> = (0..32).map(|i| (i * i) as f32).collect();
    let (dx, out) = (gpu.upload(&x), gpu.buffer(128));
    module.launch(&gpu, "dpp_sum", 1, 32, args![dx, out]);
    // The last step takes lane 0 of the other row, which has that row's sum as every lane has.
    assert_eq!(gpu.download::<f32>(out), [x.iter().sum::<f32>(); 32]);
}

#[test]
fn other_permutations() {
    let gpu = Gpu::new();
    let Some(module) = gpu.load("lanes") else { return };
    let x = Numbers::new(2).u32s(32);
    let (dx, out) = (gpu.upload(&x), gpu.zeros(4 * 10 * 32));
    module.launch(&gpu, "others", 1, 32, args![dx, out]);
    let out = gpu.download::<u32>(out);
    let mut permuted = [0; 32];
    for i in 0..32 {
        permuted[i * 7 & 31] = x[i];
    }
    for i in 0..32 {
        let (row, at) = (i & 16, i & 15);
        let got: Vec<u32> = (0..10).map(|k| out[32 * k + i]).collect();
        let within = [7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8];
        let odd_below = (0..i).filter(|&l| x[l] & 1 == 1).count() as u32;
        let expected = [
            x[row | within[at]],
            x[row ^ 16 | at],
            x[13],
            x[i ^ 1],
            x[i & !3 | [3, 2, 1, 0][i & 3]],
            permuted[i],
            x[i * 7 & 31],
            if i >= 5 { x[5] } else { 0 },
            if i == 9 { x[3].wrapping_mul(3) } else { x[i] },
            100 + odd_below,
        ];
        assert_eq!(got, expected, "lane {i}");
    }
}
