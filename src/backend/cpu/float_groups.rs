//! Packed groups of float weights in whichever form they are, and what is done with them.

use super::bf12;
use super::features::Isa;
use super::floats::{FLOAT_MOST, Float, Meanwhile, float_kernel, round_group};
use super::pack::ROWS;

/// A packed group of 16 rows of floats.
#[derive(Clone, Copy)]
pub(super) enum FloatGroup<'a> {
    /// Pairs of columns, `[columns / 2][16][2]`.
    Floats(Float, &'a [u8]),
    /// Numbers of bf16 in 12 bits each.
    Bf12(bf12::Group<'a>),
}

/// Products of some rows of activations, `[rows][16]`.
pub(super) type Products = [f32; FLOAT_MOST * ROWS];

impl FloatGroup<'_> {
    /// Where it begins, and its bytes: the next one follows it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            FloatGroup::Floats(_, bytes) => bytes,
            FloatGroup::Bf12(group) => group.bytes(),
        }
    }

    /// Multiplies by as many rows of activations as there is a kernel for, and says how many that were; `x` is
    /// `[rows][columns]`. None if there are no rows, or no kernels on `isa`.
    #[inline]
    pub fn multiply(&self, isa: Isa, columns: usize, x: &[f32], out: &mut Products) -> Option<usize> {
        let (float, bytes) = match self {
            FloatGroup::Floats(float, bytes) => (*float, *bytes),
            FloatGroup::Bf12(group) => return group.multiply(isa, x, out),
        };
        assert!(bytes.len() >= float.group_bytes(columns));
        // SAFETY: a group of all columns.
        unsafe { multiply(isa, float, bytes.as_ptr(), columns, x, Meanwhile::FetchOn, out) }
    }

    /// [`FloatGroup::multiply`] for the `nth` time, from 0 on: the first time the group is decoded to `decoded`, of which later products
    /// are made, the second time the next group is fetched.
    ///
    /// # Safety
    /// `isa` has kernels; there is room for the group in float32, `[columns / 2][16][2]`, which nobody else writes.
    pub unsafe fn multiply_again(
        &self,
        nth: usize,
        decoded: *mut f32,
        isa: Isa,
        columns: usize,
        x: &[f32],
        out: &mut Products,
    ) -> Option<usize> {
        // (A pair of columns of 16 rows is a cache line at most.)
        let fetch = Meanwhile::FetchNext(self.bytes().as_ptr_range().end, usize::from(nth == 1));
        // SAFETY: as demanded; a group of all columns.
        unsafe {
            match self {
                FloatGroup::Floats(float, bytes) if nth == 0 => {
                    assert!(bytes.len() >= float.group_bytes(columns));
                    return multiply(isa, *float, bytes.as_ptr(), columns, x, Meanwhile::Decode(decoded), out);
                }
                FloatGroup::Bf12(group) if nth == 0 => group.decode(isa, decoded),
                _ => {}
            }
            let width = multiply(isa, Float::F32, decoded.cast(), columns, x, fetch, out)?;
            if let FloatGroup::Bf12(group) = self {
                group.add_exceptions(x, &mut out[..width * ROWS]);
            }
            Some(width)
        }
    }

    /// The group in bf16, in pairs of columns, `[columns / 2][16][2]`, rounded where need be: written to `out`, unless it lies
    /// like that already.
    ///
    /// # Safety
    /// AVX-512 with BF16, and room for the pairs.
    pub unsafe fn in_bf16(&self, columns: usize, out: *mut u8) -> *const u8 {
        match self {
            FloatGroup::Floats(Float::Bf16, bytes) => return bytes.as_ptr(),
            FloatGroup::Floats(float, bytes) => {
                assert!(bytes.len() >= float.group_bytes(columns));
                // SAFETY: as demanded; a group of all columns.
                unsafe { round_group(bytes.as_ptr(), columns.div_ceil(2), out) };
            }
            // SAFETY: as demanded.
            FloatGroup::Bf12(group) => unsafe { group.in_bf16(out) },
        }
        out
    }
}

/// Multiplies a group that lies in pairs of columns.
///
/// # Safety
/// All columns are there.
#[inline]
unsafe fn multiply(
    isa: Isa,
    float: Float,
    group: *const u8,
    columns: usize,
    x: &[f32],
    meanwhile: Meanwhile,
    out: &mut Products,
) -> Option<usize> {
    let (width, run) = float_kernel(isa, x.len().checked_div(columns)?)?;
    // SAFETY: the kernel is one that this processor runs; there are as many rows of activations as it takes.
    unsafe { run(float, group, columns, x.as_ptr(), meanwhile, out.as_mut_ptr()) };
    Some(width)
}
