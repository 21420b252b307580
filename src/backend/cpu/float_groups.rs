//! Packed groups of float weights in whichever form they are, and what is done with them.

use super::bf12;
use super::features::Isa;
use super::floats::{Ahead, FLOAT_MOST, Float, decode_group, float_kernel, round_group};
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
        unsafe { multiply(isa, float, bytes.as_ptr(), columns, x, Ahead::Same, out) }
    }

    /// Decodes it to float32 at `out`, if it is something else and several products will be made of it:
    /// `[columns / 2][16][2]`, to be multiplied by [`FloatGroup::multiply_decoded`].
    ///
    /// # Safety
    /// `isa` has kernels, and there is room.
    pub unsafe fn decode(&self, isa: Isa, columns: usize, out: *mut f32) {
        // SAFETY: as demanded; a group of all columns.
        unsafe {
            match self {
                FloatGroup::Floats(float, bytes) => {
                    assert!(bytes.len() >= float.group_bytes(columns));
                    decode_group(isa, *float, bytes.as_ptr(), columns, out);
                }
                FloatGroup::Bf12(group) => group.decode(isa, out),
            }
        }
    }

    /// [`FloatGroup::multiply`] of what [`FloatGroup::decode`] made of it. The `first` time the next group is fetched meanwhile.
    ///
    /// # Safety
    /// That it lies at `decoded`.
    pub unsafe fn multiply_decoded(
        &self,
        decoded: *const f32,
        isa: Isa,
        columns: usize,
        x: &[f32],
        first: bool,
        out: &mut Products,
    ) -> Option<usize> {
        // (A pair of columns of 16 rows is a cache line at most.)
        let ahead = Ahead::Next(self.bytes().as_ptr_range().end, usize::from(first));
        // SAFETY: as demanded.
        let width = unsafe { multiply(isa, Float::F32, decoded.cast(), columns, x, ahead, out)? };
        if let FloatGroup::Bf12(group) = self {
            group.add_exceptions(x, &mut out[..width * ROWS]);
        }
        Some(width)
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
    ahead: Ahead,
    out: &mut Products,
) -> Option<usize> {
    let (width, run) = float_kernel(isa, x.len().checked_div(columns)?)?;
    // SAFETY: the kernel is one that this processor runs; there are as many rows of activations as it takes.
    unsafe { run(float, group, columns, x.as_ptr(), ahead, out.as_mut_ptr()) };
    Some(width)
}
