//! Operations on rows of f32: norms, activations, rotary embedding, conversions.
//!
//! Each has a scalar form in [`scalar`], which is the oracle, and one form written over a register of
//! [`lanes::Lanes`] width in [`kernels`], of which AVX2 and AVX-512 are instances. The table below is
//! the face: it checks the lengths, then runs the instance that the [`Isa`] argument names (or the
//! best one that this processor may run, if that is less). Slices may have any length.

use half::f16;

use super::features::Isa;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) mod kernels;
#[cfg(target_arch = "x86_64")]
pub(crate) mod lanes;
mod scalar;

#[cfg(target_arch = "x86_64")]
pub(crate) use {avx2::F32x8, avx512::F32x16};

/// The natural logarithm of the least normal f32: under it, [`exp`] gives 0. Subnormal results would
/// cost some processors a hundred cycles each, and no caller can tell them from 0.
const LN_MIN_NORMAL: f32 = -87.336_54;
/// √(2/π), of the tanh form of GELU.
const SQRT_2_OVER_PI: f32 = 0.797_884_6;
/// The cubic coefficient of the tanh form of GELU.
const GELU_CUBIC: f32 = 0.044_715;

/// Declares each operation with its checks and its choice of instance.
macro_rules! vector_operations {
    ($(
        $(#[$doc:meta])*
        pub fn $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)? where $holds:expr;
    )*) => {$(
        $(#[$doc])*
        ///
        /// # Panics
        /// If the lengths do not fit together.
        pub fn $name(isa: Isa, $($arg: $type),*) $(-> $result)? {
            assert!($holds, "{}: {}", stringify!($name), stringify!($holds));
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma,f16c")]
                fn avx2($($arg: $type),*) $(-> $result)? {
                    // SAFETY: these are the features of F32x8; the lengths are checked above.
                    unsafe { kernels::$name::<F32x8>($($arg),*) }
                }
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
                fn avx512($($arg: $type),*) $(-> $result)? {
                    // SAFETY: these are the features of F32x16; the lengths are checked above.
                    unsafe { kernels::$name::<F32x16>($($arg),*) }
                }
                match Isa::up_to(isa.vectors()) {
                    Isa::Scalar => scalar::$name($($arg),*),
                    // SAFETY: `Isa::up_to` has found the features.
                    Isa::Avx2 | Isa::AvxVnni => unsafe { avx2($($arg),*) },
                    // SAFETY: as above.
                    _ => unsafe { avx512($($arg),*) },
                }
            }
            #[cfg(not(target_arch = "x86_64"))]
            {
                let _ = isa;
                scalar::$name($($arg),*)
            }
        }
    )*};
}

vector_operations! {
    /// Root-mean-square norm: `out = x / sqrt(mean(x²) + eps) · gain`, element by element.
    pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32])
    where x.len() == gain.len() && x.len() == out.len();

    /// [`rms_norm`] in place, as the norms of single query and key heads want it.
    pub fn rms_norm_in_place(x: &mut [f32], gain: &[f32], eps: f32)
    where x.len() == gain.len();

    /// `y += x`.
    pub fn add_assign(y: &mut [f32], x: &[f32])
    where y.len() == x.len();

    /// `y += a · x`.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32])
    where x.len() == y.len();

    /// `x *= factor`.
    pub fn scale(x: &mut [f32], factor: f32)
    where true;

    /// `Σ a · b`; 0 for empty slices. Sums in several lanes, so the order of additions depends on the instance.
    pub fn dot_f32(a: &[f32], b: &[f32]) -> f32
    where a.len() == b.len();

    /// The greatest element; -∞ for an empty slice. What a NaN among them gives is not defined.
    pub fn max(x: &[f32]) -> f32
    where true;

    /// `x = eˣ`, within 2 units in the last place. Results under the least normal f32 are 0.
    pub fn exp(x: &mut [f32])
    where true;

    /// `x = e^(x - max) / Σ e^(x - max)`.
    pub fn softmax(x: &mut [f32])
    where true;

    /// Logit soft-capping of Gemma: `x = cap · tanh(x / cap)`, with `cap` over 0.
    pub fn softcap(x: &mut [f32], cap: f32)
    where true;

    /// SwiGLU: `out = silu(gate) · up`, with `silu(x) = x / (1 + e^-x)`.
    pub fn mul_silu(gate: &[f32], up: &[f32], out: &mut [f32])
    where gate.len() == out.len() && up.len() == out.len();

    /// GeGLU: `out = gelu(gate) · up`, with the tanh form `gelu(x) = x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    pub fn mul_gelu_tanh(gate: &[f32], up: &[f32], out: &mut [f32])
    where gate.len() == out.len() && up.len() == out.len();

    /// To half precision, to nearest even; beyond its range ±∞.
    pub fn f32_to_f16(x: &[f32], out: &mut [f16])
    where x.len() == out.len();

    /// To half precision, to nearest even; beyond its range the greatest finite number of the same sign. NaN stays NaN.
    pub fn f32_to_f16_saturating(x: &[f32], out: &mut [f16])
    where x.len() == out.len();

    /// From half precision, exactly.
    pub fn f16_to_f32(x: &[f16], out: &mut [f32])
    where x.len() == out.len();

    /// Rotary embedding over neighbours, as GGUF's Llama tensors are permuted for: in each head of `head_dim` elements
    /// of `row`, the pair `(2i, 2i + 1)` is turned by the angle whose cosine and sine are `cos[i]` and `sin[i]`.
    /// Elements from `2 · cos.len()` on stay as they are.
    pub fn rope_norm(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32])
    where rope_fits(row, head_dim, cos, sin);

    /// Rotary embedding over halves, as in GPT-NeoX: the pairs are `(i, i + cos.len())`, all else is as in [`rope_norm`].
    pub fn rope_neox(row: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32])
    where rope_fits(row, head_dim, cos, sin);
}

/// Whether `row` is whole heads and the rotated part fits in one.
fn rope_fits(row: &[f32], head_dim: usize, cos: &[f32], sin: &[f32]) -> bool {
    head_dim > 0 && row.len().is_multiple_of(head_dim) && cos.len() == sin.len() && 2 * cos.len() <= head_dim
}

#[cfg(test)]
mod tests;
