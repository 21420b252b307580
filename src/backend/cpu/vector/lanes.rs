//! A register of f32 lanes: the few instructions that the kernels are written over.

use half::f16;

/// A SIMD register of [`Lanes::N`] f32.
///
/// # Safety
/// Every method demands that the processor has the instruction set of the implementing type, and is
/// `#[inline(always)]`, so that it becomes one instruction inside a function that enables that set.
/// Pointers must be valid for the elements named; no alignment is demanded.
pub unsafe trait Lanes: Copy {
    /// Lanes.
    const N: usize;

    /// `x` in every lane.
    unsafe fn splat(x: f32) -> Self;
    /// `N` elements from `p`.
    unsafe fn load(p: *const f32) -> Self;
    /// `n ≤ N` elements from `p`, then zeros; touches no memory beyond them.
    unsafe fn load_first(p: *const f32, n: usize) -> Self;
    /// `N` half-precision elements from `p`.
    unsafe fn load_f16(p: *const f16) -> Self;
    /// `N / 2` elements from `p`, each in two neighbouring lanes.
    unsafe fn load_doubled(p: *const f32) -> Self;
    /// All lanes to `p`.
    unsafe fn store(self, p: *mut f32);
    /// The first `n ≤ N` lanes to `p`; touches no memory beyond them.
    unsafe fn store_first(self, p: *mut f32, n: usize);
    /// All lanes to `p` in half precision, rounded to nearest even.
    unsafe fn store_f16(self, p: *mut f16);

    /// `self + b`.
    unsafe fn add(self, b: Self) -> Self;
    /// `self - b`.
    unsafe fn sub(self, b: Self) -> Self;
    /// `self · b`.
    unsafe fn mul(self, b: Self) -> Self;
    /// `self / b`.
    unsafe fn div(self, b: Self) -> Self;
    /// `self · b + c`, rounded once.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self · b - c` in even lanes, `self · b + c` in odd lanes, rounded once.
    unsafe fn mul_sub_add(self, b: Self, c: Self) -> Self;
    /// The greater of both; `b` where either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The lesser of both; `b` where either is NaN.
    unsafe fn min(self, b: Self) -> Self;
    /// To the nearest integer, ties to even.
    unsafe fn round(self) -> Self;
    /// `|self|`.
    unsafe fn abs(self) -> Self;
    /// `|self|` with the sign of `sign`.
    unsafe fn copy_sign(self, sign: Self) -> Self;
    /// `self · 2ⁿ` for integers `n`, where that is a normal number; elsewhere any value.
    unsafe fn scale_by_exp2(self, n: Self) -> Self;
    /// Each even lane exchanged with its right neighbour.
    unsafe fn swap_pairs(self) -> Self;
    /// `yes` in lanes where `a < b`, else `no`.
    unsafe fn select_lt(a: Self, b: Self, yes: Self, no: Self) -> Self;
    /// Whether `self > b` in some lane.
    unsafe fn any_gt(self, b: Self) -> bool;
    /// The sum of all lanes.
    unsafe fn reduce_add(self) -> f32;
    /// The greatest of all lanes.
    unsafe fn reduce_max(self) -> f32;
}
