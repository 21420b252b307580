//! The vector operations over [`Lanes`]. See [`super`] for what each computes.
//!
//! # Safety
//! Every function demands that the processor has the instruction set of `V`, that the calling function
//! enables it, and that the slices' lengths fit together as [`super`] checks.
//!
//! The closures are `#[inline(always)]` too: out of line, they would not have the features of their caller.
#![allow(clippy::missing_safety_doc)]

use half::f16;

use super::lanes::Lanes;
use super::{GELU_CUBIC, LN_MIN_NORMAL, SQRT_2_OVER_PI, scalar};

/// Calls `body(at, count)` over `0..n` in steps of a register: `count` is `V::N`, and less for the last.
#[inline(always)]
fn sweep<V: Lanes>(n: usize, mut body: impl FnMut(usize, usize)) {
    let whole = n - n % V::N;
    let mut at = 0;
    while at < whole {
        body(at, V::N);
        at += V::N;
    }
    if whole < n {
        body(whole, n - whole);
    }
}

/// `count ≤ N` elements from `p`.
#[inline(always)]
unsafe fn load<V: Lanes>(p: *const f32, count: usize) -> V {
    // SAFETY: as the caller's.
    unsafe { if count == V::N { V::load(p) } else { V::load_first(p, count) } }
}

/// `count ≤ N` elements to `p`.
#[inline(always)]
unsafe fn store<V: Lanes>(v: V, p: *mut f32, count: usize) {
    // SAFETY: as the caller's.
    unsafe { if count == V::N { v.store(p) } else { v.store_first(p, count) } }
}

/// Element by element over up to three inputs: `out = f(a, b)` where all have `n` elements and `out` may be `a` or `b`.
#[inline(always)]
unsafe fn map2<V: Lanes>(a: *const f32, b: *const f32, out: *mut f32, n: usize, f: impl Fn(V, V) -> V) {
    // SAFETY: `sweep` stays within `n`; a register is loaded before its place is stored to.
    sweep::<V>(
        n,
        #[inline(always)]
        |at, count| unsafe {
            store(f(load(a.add(at), count), load(b.add(at), count)), out.add(at), count);
        },
    );
}

/// In place, element by element.
#[inline(always)]
unsafe fn map<V: Lanes>(x: &mut [f32], f: impl Fn(V) -> V) {
    let p = x.as_mut_ptr();
    // SAFETY: `sweep` stays within the slice.
    sweep::<V>(
        x.len(),
        #[inline(always)]
        |at, count| unsafe { store(f(load(p.add(at), count)), p.add(at), count) },
    );
}

#[inline(always)]
pub unsafe fn dot_f32<V: Lanes>(a: &[f32], b: &[f32]) -> f32 {
    let (a, b, n) = (a.as_ptr(), b.as_ptr(), a.len());
    // SAFETY: offsets stay under `n`, the length of both.
    unsafe {
        let mut sums = [V::splat(0.0); 4];
        let mut at = 0;
        while at + 4 * V::N <= n {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = at + i * V::N;
                *sum = V::load(a.add(at)).mul_add(V::load(b.add(at)), *sum);
            }
            at += 4 * V::N;
        }
        while at < n {
            let count = V::N.min(n - at);
            sums[0] = load::<V>(a.add(at), count).mul_add(load(b.add(at), count), sums[0]);
            at += count;
        }
        sums[0].add(sums[1]).add(sums[2].add(sums[3])).reduce_add()
    }
}

/// What the root-mean-square norm multiplies with, in every lane.
#[inline(always)]
unsafe fn rms_factor<V: Lanes>(x: &[f32], eps: f32) -> V {
    // SAFETY: as the caller's.
    unsafe { V::splat(1.0 / (dot_f32::<V>(x, x) / x.len() as f32 + eps).sqrt()) }
}

#[inline(always)]
pub unsafe fn rms_norm<V: Lanes>(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) {
    // SAFETY: as the caller's.
    unsafe {
        let factor = rms_factor::<V>(x, eps);
        map2::<V>(
            x.as_ptr(),
            gain.as_ptr(),
            out.as_mut_ptr(),
            x.len(),
            #[inline(always)]
            |x, gain| x.mul(factor).mul(gain),
        );
    }
}

#[inline(always)]
pub unsafe fn rms_norm_in_place<V: Lanes>(x: &mut [f32], gain: &[f32], eps: f32) {
    // SAFETY: as the caller's.
    unsafe {
        let factor = rms_factor::<V>(x, eps);
        let p = x.as_mut_ptr();
        map2::<V>(
            p,
            gain.as_ptr(),
            p,
            x.len(),
            #[inline(always)]
            |x, gain| x.mul(factor).mul(gain),
        );
    }
}

#[inline(always)]
pub unsafe fn add_assign<V: Lanes>(y: &mut [f32], x: &[f32]) {
    // SAFETY: as the caller's.
    unsafe {
        map2::<V>(
            y.as_ptr(),
            x.as_ptr(),
            y.as_mut_ptr(),
            y.len(),
            #[inline(always)]
            |y, x| y.add(x),
        )
    }
}

#[inline(always)]
pub unsafe fn axpy<V: Lanes>(a: f32, x: &[f32], y: &mut [f32]) {
    // SAFETY: as the caller's.
    unsafe {
        let a = V::splat(a);
        map2::<V>(
            y.as_ptr(),
            x.as_ptr(),
            y.as_mut_ptr(),
            y.len(),
            #[inline(always)]
            |y, x| x.mul_add(a, y),
        )
    }
}

#[inline(always)]
pub unsafe fn scale<V: Lanes>(x: &mut [f32], factor: f32) {
    // SAFETY: as the caller's.
    unsafe {
        let factor = V::splat(factor);
        map::<V>(
            x,
            #[inline(always)]
            |x| x.mul(factor),
        )
    }
}

#[inline(always)]
pub unsafe fn max<V: Lanes>(x: &[f32]) -> f32 {
    let p = x.as_ptr();
    // SAFETY: the sum of offset and lanes stays within the slice.
    unsafe {
        let mut greatest = V::splat(f32::NEG_INFINITY);
        let whole = x.len() - x.len() % V::N;
        for at in (0..whole).step_by(V::N) {
            greatest = greatest.max(V::load(p.add(at)));
        }
        greatest.reduce_max().max(scalar::max(&x[whole..]))
    }
}

/// `eˣ` where it is at most `f32::MAX`; see [`super::exp`] for the error. Above, any value.
///
/// `eˣ = 2ⁿ eʳ` with `n = round(x / ln 2)` and `|r| ≤ ln 2 / 2`, `ln 2` as an f32 and the rest of it, so
/// that `r` keeps its low bits; `eʳ = 1 + r + r² p(r)` with the coefficients of the Cephes library's `expf`.
#[inline(always)]
pub unsafe fn exp_bounded<V: Lanes>(x: V) -> V {
    // SAFETY: as the caller's.
    unsafe {
        let n = x.mul(V::splat(std::f32::consts::LOG2_E)).round();
        let r = n.mul_add(V::splat(-std::f32::consts::LN_2), x);
        let r = n.mul_add(V::splat(1.904_654_3e-9), r);
        let mut p = V::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, V::splat(coefficient));
        }
        let e = p.mul_add(r.mul(r), r).add(V::splat(1.0)).scale_by_exp2(n);
        V::select_lt(x, V::splat(LN_MIN_NORMAL), V::splat(0.0), e)
    }
}

/// `eˣ`, ∞ where it overflows.
#[inline(always)]
unsafe fn exp_lanes<V: Lanes>(x: V) -> V {
    /// The greatest f32 whose exponential is finite.
    const LN_MAX: f32 = 88.722_83;
    // SAFETY: as the caller's.
    unsafe { V::select_lt(V::splat(LN_MAX), x, V::splat(f32::INFINITY), exp_bounded(x)) }
}

#[inline(always)]
pub unsafe fn exp<V: Lanes>(x: &mut [f32]) {
    // SAFETY: as the caller's.
    unsafe {
        map::<V>(
            x,
            #[inline(always)]
            |x| exp_lanes(x),
        )
    }
}

#[inline(always)]
pub unsafe fn softmax<V: Lanes>(x: &mut [f32]) {
    // SAFETY: as the caller's; the sweep stays within the slice.
    unsafe {
        let greatest = V::splat(max::<V>(x));
        let mut sum = V::splat(0.0);
        let p = x.as_mut_ptr();
        let whole = x.len() - x.len() % V::N;
        for at in (0..whole).step_by(V::N) {
            let e = exp_bounded(V::load(p.add(at)).sub(greatest));
            sum = sum.add(e);
            e.store(p.add(at));
        }
        let rest = x.len() - whole;
        if rest > 0 {
            exp_bounded(V::load_first(p.add(whole), rest).sub(greatest)).store_first(p.add(whole), rest);
            sum = sum.add(V::load_first(p.add(whole), rest));
        }
        scale::<V>(x, 1.0 / sum.reduce_add());
    }
}

/// `tanh x`: an odd polynomial near 0 (Cephes' `tanhf`), where `1 - 2 / (e^2|x| + 1)` would cancel.
#[inline(always)]
unsafe fn tanh_lanes<V: Lanes>(x: V) -> V {
    // SAFETY: as the caller's.
    unsafe {
        let one = V::splat(1.0);
        let size = x.abs();
        let far = one.sub(V::splat(2.0).div(exp_lanes(size.add(size)).add(one)));
        let square = x.mul(x);
        let mut p = V::splat(-5.704_988_7e-3);
        for coefficient in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -0.333_332_8] {
            p = p.mul_add(square, V::splat(coefficient));
        }
        let near = p.mul(square).mul_add(x, x);
        V::select_lt(size, V::splat(0.625), near, far.copy_sign(x))
    }
}

/// `cap · tanh(x / cap)`, given both `cap` and its reciprocal.
#[inline(always)]
pub unsafe fn softcap_lanes<V: Lanes>(x: V, cap: V, reciprocal: V) -> V {
    // SAFETY: as the caller's.
    unsafe { tanh_lanes(x.mul(reciprocal)).mul(cap) }
}

#[inline(always)]
pub unsafe fn softcap<V: Lanes>(x: &mut [f32], cap: f32) {
    // SAFETY: as the caller's.
    unsafe {
        let (cap, reciprocal) = (V::splat(cap), V::splat(1.0 / cap));
        map::<V>(
            x,
            #[inline(always)]
            |x| softcap_lanes(x, cap, reciprocal),
        )
    }
}

#[inline(always)]
pub unsafe fn mul_silu<V: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // SAFETY: as the caller's.
    unsafe {
        map2::<V>(
            gate.as_ptr(),
            up.as_ptr(),
            out.as_mut_ptr(),
            out.len(),
            #[inline(always)]
            |gate, up| {
                let logistic_inverse = V::splat(1.0).add(exp_lanes(V::splat(0.0).sub(gate)));
                gate.div(logistic_inverse).mul(up)
            },
        )
    }
}

#[inline(always)]
pub unsafe fn mul_gelu_tanh<V: Lanes>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    // SAFETY: as the caller's.
    unsafe {
        map2::<V>(
            gate.as_ptr(),
            up.as_ptr(),
            out.as_mut_ptr(),
            out.len(),
            #[inline(always)]
            |gate, up| {
                // (1 + tanh u) / 2 is the logistic function of 2u.
                let cubic = gate.mul(gate).mul(gate).mul_add(V::splat(GELU_CUBIC), gate);
                let logistic_inverse = V::splat(1.0).add(exp_lanes(cubic.mul(V::splat(-2.0 * SQRT_2_OVER_PI))));
                gate.div(logistic_inverse).mul(up)
            },
        )
    }
}

#[inline(always)]
pub unsafe fn f32_to_f16<V: Lanes>(x: &[f32], out: &mut [f16]) {
    let whole = x.len() - x.len() % V::N;
    for at in (0..whole).step_by(V::N) {
        // SAFETY: `at + N` is within both slices.
        unsafe { V::load(x.as_ptr().add(at)).store_f16(out.as_mut_ptr().add(at)) }
    }
    scalar::f32_to_f16(&x[whole..], &mut out[whole..]);
}

#[inline(always)]
pub unsafe fn f32_to_f16_saturating<V: Lanes>(x: &[f32], out: &mut [f16]) {
    let whole = x.len() - x.len() % V::N;
    for at in (0..whole).step_by(V::N) {
        // SAFETY: `at + N` is within both slices.
        unsafe {
            let greatest = f16::MAX.to_f32();
            // In this order a NaN stays one.
            let bounded = V::splat(-greatest).max(V::splat(greatest).min(V::load(x.as_ptr().add(at))));
            bounded.store_f16(out.as_mut_ptr().add(at));
        }
    }
    scalar::f32_to_f16_saturating(&x[whole..], &mut out[whole..]);
}

#[inline(always)]
pub unsafe fn f16_to_f32<V: Lanes>(x: &[f16], out: &mut [f32]) {
    let whole = x.len() - x.len() % V::N;
    for at in (0..whole).step_by(V::N) {
        // SAFETY: `at + N` is within both slices.
        unsafe { V::load_f16(x.as_ptr().add(at)).store(out.as_mut_ptr().add(at)) }
    }
    scalar::f16_to_f32(&x[whole..], &mut out[whole..]);
}

#[inline(always)]
pub unsafe fn rope_norm<V: Lanes>(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let pairs = V::N / 2;
    let whole = cos.len() - cos.len() % pairs;
    for head in row.chunks_exact_mut(head_dim) {
        for i in (0..whole).step_by(pairs) {
            // SAFETY: pairs `i..i + N / 2` are within the head, their angles within `cos` and `sin`.
            unsafe {
                let p = head.as_mut_ptr().add(2 * i);
                let x = V::load(p);
                let across = x.swap_pairs().mul(V::load_doubled(sin.as_ptr().add(i)));
                x.mul_sub_add(V::load_doubled(cos.as_ptr().add(i)), across).store(p);
            }
        }
        scalar::rotate_neighbours(&mut head[2 * whole..], &cos[whole..], &sin[whole..]);
    }
}

#[inline(always)]
pub unsafe fn rope_neox<V: Lanes>(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = cos.len();
    for head in row.chunks_exact_mut(head_dim) {
        let p = head.as_mut_ptr();
        // SAFETY: elements under `2 · half` are within the head.
        sweep::<V>(
            half,
            #[inline(always)]
            |i, count| unsafe {
                let (cos, sin): (V, V) = (load(cos.as_ptr().add(i), count), load(sin.as_ptr().add(i), count));
                let (a, b): (V, V) = (load(p.add(i), count), load(p.add(half + i), count));
                store(a.mul(cos).sub(b.mul(sin)), p.add(i), count);
                store(a.mul_add(sin, b.mul(cos)), p.add(half + i), count);
            },
        );
    }
}
