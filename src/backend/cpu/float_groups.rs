//! Packed groups of float weights in whichever form they are, and what is done with them.

use super::bf12;
use super::features::{Isa, ShortFloat};
use super::floats::{FLOAT_GROUPS, FLOAT_MOST, Float, Lines, Meanwhile, float_kernel};
use super::pack::ROWS;
use super::short_floats::{self, ShortRows, round_group, short_bytes};

/// A packed group of 16 rows of floats.
#[derive(Clone, Copy)]
pub(super) enum FloatGroup<'a> {
    /// Pairs of columns, `[columns / 2][16][2]`.
    Floats(Float, &'a [u8]),
    /// Numbers of bf16 in 12 bits each.
    Bf12(bf12::Group<'a>),
}

/// Products of some rows of activations, `[groups][rows][16]`.
pub(super) type Products = [f32; FLOAT_GROUPS * FLOAT_MOST * ROWS];

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
        unsafe { multiply(isa, float, 1, bytes.as_ptr(), columns, x, Meanwhile::FetchOn, out) }
    }

    /// The group in 16 bits, in pairs of columns, `[columns / 2][16][2]`, rounded where need be, and what its numbers are multiples
    /// of: written to `out`, unless it lies like that already. Exceptions are zero. None if there is no such form.
    ///
    /// # Safety
    /// The processor multiplies `float`; there is room for the pairs.
    pub unsafe fn in_short(&self, short: ShortFloat, columns: usize, out: *mut u8) -> Option<(*const u8, f32)> {
        let (float, bytes) = match self {
            FloatGroup::Floats(float, bytes) => (*float, *bytes),
            // SAFETY: as demanded.
            FloatGroup::Bf12(group) => return Some((out, unsafe { group.in_short(short, out) })),
        };
        assert!(bytes.len() >= float.group_bytes(columns));
        match (float, short) {
            (Float::Bf16, ShortFloat::Bf16) | (Float::F16, ShortFloat::F16) => Some((bytes.as_ptr(), 1.0)),
            (Float::F16, ShortFloat::Bf16) => {
                // SAFETY: as demanded; a group of all columns.
                unsafe { round_group(bytes.as_ptr(), columns.div_ceil(2), out) };
                Some((out, 1.0))
            }
            (Float::F32, _) | (Float::Bf16, ShortFloat::F16) => None,
        }
    }

    /// Adds what the exceptions' zeros left out to the products of some rows of activations: `x` is `[rows][columns]`, `out`
    /// `[rows][16]`.
    #[inline]
    pub fn add_exceptions(&self, x: &[f32], out: &mut [f32]) {
        if let FloatGroup::Bf12(group) = self {
            group.add_exceptions(x, out);
        }
    }
}

/// Multiplies up to [`FLOAT_GROUPS`] groups, one behind the other, for the `nth` time, from 0 on, by as many rows of activations as there
/// is a kernel for, and says how many that were: `out[groups][rows][16]`. The first time the groups are decoded to `decoded`, of which
/// later products are made; in these, about `runs`, as many groups that follow are fetched. None if there are no rows.
///
/// # Safety
/// `isa` has kernels; there is room for the groups in float32, `[columns / 2][16][2]`, which nobody else writes.
pub(super) unsafe fn multiply_again(
    groups: &[FloatGroup],
    (nth, runs): (usize, usize),
    decoded: *mut f32,
    isa: Isa,
    columns: usize,
    x: &[f32],
    out: &mut Products,
) -> Option<usize> {
    let (&first, &last) = (groups.first()?, groups.last()?);
    let (n, floats) = (groups.len(), Float::F32.group_bytes(columns) / size_of::<f32>());
    // SAFETY: as demanded; groups of all columns.
    unsafe {
        let decoded = match first {
            FloatGroup::Floats(float, bytes) => {
                assert!(groups.iter().all(|group| group.bytes().len() >= float.group_bytes(columns)));
                match (float, nth) {
                    (Float::F32, 0) => {
                        return multiply(isa, float, n, bytes.as_ptr(), columns, x, Meanwhile::FetchOn, out);
                    }
                    (Float::F32, _) => bytes.as_ptr(),
                    (_, 0) => {
                        return multiply(isa, float, n, bytes.as_ptr(), columns, x, Meanwhile::Decode(decoded), out);
                    }
                    _ => decoded.cast_const().cast(),
                }
            }
            FloatGroup::Bf12(_) => {
                for (i, group) in groups.iter().enumerate().filter(|_| nth == 0) {
                    if let FloatGroup::Bf12(group) = group {
                        group.decode(isa, decoded.add(i * floats));
                    }
                }
                decoded.cast_const().cast()
            }
        };
        // As many bytes as these groups have, in the runs that are left.
        let (here, next) = (n * first.bytes().len(), last.bytes().as_ptr_range().end);
        let lines = Lines::new(next, here, nth.saturating_sub(1)..nth, runs, columns.div_ceil(2));
        let width = multiply(isa, Float::F32, n, decoded, columns, x, Meanwhile::FetchNext(lines), out)?;
        for (group, out) in groups.iter().zip(out.chunks_exact_mut(width * ROWS)) {
            group.add_exceptions(x, out);
        }
        Some(width)
    }
}

/// Multiplies groups that lie in pairs of columns, one behind the other.
///
/// # Safety
/// All columns are there.
#[allow(clippy::too_many_arguments)] // as the kernels have, and which of them
#[inline]
unsafe fn multiply(
    isa: Isa,
    float: Float,
    n: usize,
    groups: *const u8,
    columns: usize,
    x: &[f32],
    meanwhile: Meanwhile,
    out: &mut Products,
) -> Option<usize> {
    let (width, run) = float_kernel(isa, n, x.len().checked_div(columns)?)?;
    // SAFETY: the kernel is one that this processor runs; there are as many rows of activations as it takes, and room for the
    // products.
    unsafe { run(float, groups, columns, x.as_ptr(), meanwhile, out.as_mut_ptr()) };
    Some(width)
}

// What a kernel of 16 bits writes has room.
const _: () = assert!(short_floats::GROUPS * short_floats::WIDTHS[0] <= FLOAT_GROUPS * FLOAT_MOST);

/// Groups of weights in 16 bits.
pub(super) struct ShortGroups<'a> {
    groups: [Option<FloatGroup<'a>>; short_floats::GROUPS],
    /// Where they lie, one behind the other.
    weights: *const u8,
    /// What the numbers of each are multiples of.
    scales: [f32; short_floats::GROUPS],
    /// Where those after them begin.
    next: *const u8,
    columns: usize,
}

impl<'a> ShortGroups<'a> {
    /// Up to [`GROUPS`](short_floats::GROUPS) groups of `columns` columns, one behind the other, in `panel` if not where they
    /// are. None if there are none, or one that has no such form.
    ///
    /// # Safety
    /// The processor multiplies `float`; the panel has room for all groups, which nobody else writes while this lives.
    pub unsafe fn new(
        float: ShortFloat,
        groups: impl Iterator<Item = FloatGroup<'a>>,
        columns: usize,
        panel: *mut u8,
    ) -> Option<ShortGroups<'a>> {
        let null = std::ptr::null();
        let mut all = ShortGroups { groups: [None; _], weights: null, scales: [1.0; _], next: null, columns };
        for (i, group) in groups.take(short_floats::GROUPS).enumerate() {
            // SAFETY: as demanded.
            let (weights, scale) = unsafe { group.in_short(float, columns, panel.add(i * short_bytes(columns)))? };
            if i == 0 {
                all.weights = weights;
            }
            (all.scales[i], all.next) = (scale, group.bytes().as_ptr_range().end);
            all.groups[i] = Some(group);
        }
        (all.count() > 0).then_some(all)
    }

    /// How many they are.
    pub fn count(&self) -> usize {
        self.groups.iter().flatten().count()
    }

    /// Multiplies by as many rows of activations as there is a kernel for, and says how many that were: `out[groups][rows][16]`. `rows` are
    /// rows `at..end` of `short`, in float32. This is the `nth` time, from 0 on, of about `runs`, in which as many groups that follow are
    /// fetched. None if there are no rows.
    pub fn multiply(
        &self,
        short: &ShortRows,
        (at, end): (usize, usize),
        (nth, runs): (usize, usize),
        rows: &[f32],
        isa: Isa,
        out: &mut Products,
    ) -> Option<usize> {
        let (width, kernel) = short.kernel(self.count(), end - at)?;
        let x = &short.values[at * short.stride..(at + width) * short.stride];
        let bytes = self.groups.iter().flatten().map(|group| group.bytes().len()).sum();
        let pairs = self.columns.div_ceil(2);
        let next = Lines::new(self.next, bytes, nth..nth + 1, runs, pairs);
        assert!(short.stride >= 2 * pairs);
        // SAFETY: the processor multiplies the float; the groups have all columns, and there are as many rows as the kernel takes.
        unsafe {
            kernel(self.weights, pairs, x.as_ptr(), short.stride, next, out.as_mut_ptr());
        }
        let groups = self.groups.iter().flatten();
        for ((group, scale), out) in groups.zip(self.scales).zip(out.chunks_exact_mut(width * ROWS)) {
            for (out, row_scale) in out.chunks_exact_mut(ROWS).zip(&short.scales[at..]) {
                out.iter_mut().for_each(|y| *y *= scale * row_scale);
            }
            group.add_exceptions(rows, out);
            let is_finite = |out: &[f32]| !out.iter().fold(false, |any, y| any | !y.is_finite());
            if !is_finite(out) {
                for (out, row) in out.chunks_exact_mut(ROWS).zip(rows.chunks_exact(self.columns)) {
                    let mut exact: Products = [0.0; _];
                    if !is_finite(out) && group.multiply(isa, self.columns, row, &mut exact).is_some() {
                        out.copy_from_slice(&exact[..ROWS]);
                    }
                }
            }
        }
        Some(width)
    }
}
