//! Products of many rows of activations on AMX: tiles of bf16, summed in float32.
//!
//! Why bf16 and not int8, which the unit multiplies twice as fast: every format scales its numbers apart in blocks of 16 or
//! 32 columns. A chain of int8 products must end at the border of a block, where half of an int8 tile would be used, and
//! each sum would be converted, scaled and added by the vector unit: about 28 of its cycles for 16 of the tile unit's. With
//! the scales in the weights a chain is as long as the row, and the vector unit is free to unfold the next weights. bf16
//! also rounds activations finer than 8 bits with one scale for 16 of them, but for the greatest of the 16.
//!
//! Weights stay packed in memory. A task unfolds up to [`UNFOLDED`] bytes of them, groups of 16 rows by up to [`CHUNK`]
//! columns, into scratch that its second-level cache holds. Then it takes 32 rows of activations at a time, which the
//! first-level cache holds, and multiplies them by pairs of these groups. Unfolding costs about 60 cycles for 16 rows × 32
//! columns, as much as the products of 60 rows of activations: it is why [`LEAST_ROWS`](rows::LEAST_ROWS) rows are the least.
//!
//! What bounds it, on a Sapphire Rapids core: the unit needs 64 bytes a cycle for its peak with four tiles of sums. It gets
//! about 100 from the first-level cache, 48 from the second, 10 from the third.

pub(super) mod attention;
pub(super) mod rows;
mod unfold;
mod unit;

use std::cell::RefCell;
use std::ops::Range;

use rows::Tiles;
use unfold::{Bf12, Pair, bf12_unfolder, unfolder};
use unit::{Amx, Block, Configured, TILE_BYTES, TILE_ROWS, Unit};

use super::float_groups::FloatGroup;
use super::matrix::Matrix;
use super::memory::Line;
use super::pack::{COLUMNS, Layout, ROWS};
use super::rows::Rows;

/// Tasks of each thread: a task is the better the more groups it has for 32 rows of activations.
pub(super) const TASKS_PER_THREAD: usize = 2;
/// Columns of a chain of products at most; a multiple of every format's block.
const CHUNK: usize = 768;
/// Bytes of unfolded weights: they and 512 rows of activations fit the second-level cache.
const UNFOLDED: usize = 512 << 10;
/// Rows of weights of a pair of groups.
const PAIR_ROWS: usize = 2 * ROWS;

thread_local! {
    /// Unfolded groups, and two groups that are packed where they are used.
    static SCRATCH: RefCell<(Vec<Line>, [Vec<u8>; 2])> = const { RefCell::new((Vec::new(), [Vec::new(), Vec::new()])) };
}

/// Where products go.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// `[rows of activations][rows of the matrix]`.
    pub out: &'a Rows<'a, f32>,
    /// One for each row of the matrix.
    pub bias: Option<&'a [f32]>,
    /// Add to `out` instead of writing it.
    pub accumulate: bool,
}

/// Whether the matrix has a form that can be unfolded.
pub(super) fn multiplies(matrix: &Matrix) -> bool {
    matrix.has_packed_halves()
        || Layout::of(matrix.tensor_type()).is_some() && unfolder::<Amx>(matrix.tensor_type()).is_some()
}

/// Multiplies `groups` of 16 rows of the matrix by all rows of activations.
///
/// # Safety
/// [`Isa::Amx`](super::features::Isa::Amx), and nobody else may use these rows' part of the target.
pub(super) unsafe fn multiply(matrix: &Matrix, x: &Tiles, groups: Range<usize>, target: Target) {
    // SAFETY: as demanded.
    unsafe {
        let _configured = Configured::new();
        multiply_with::<Amx>(matrix, x, groups, target);
    }
}

/// [`multiply`] on a unit that may be an emulated one.
///
/// # Safety
/// AVX-512 with VNNI and BF16, and what [`Unit`] demands.
unsafe fn multiply_with<U: Unit>(matrix: &Matrix, x: &Tiles, groups: Range<usize>, target: Target) {
    assert!(matrix.columns() == x.columns);
    let in_12_bits = matches!(matrix.float_group(groups.start), Some(FloatGroup::Bf12(_)));
    let unfold = if in_12_bits { Some(bf12_unfolder::<U>()) } else { unfolder::<U>(matrix.tensor_type()) };
    let Some(unfold) = unfold else { return };
    let columns = matrix.columns();
    let chunk = columns.div_ceil(columns.div_ceil(CHUNK).max(1)).next_multiple_of(256);
    // Lines of an unfolded group, and groups that are unfolded together: whole pairs.
    let lines = chunk / COLUMNS * TILE_ROWS;
    let together = (UNFOLDED / (lines * size_of::<Line>())).clamp(2, 32) & !1;
    SCRATCH.with_borrow_mut(|(unfolded, packed)| {
        unfolded.resize(together * lines, Line([0; 64]));
        for first in (0..columns).step_by(chunk) {
            let part = first..columns.min(first + chunk);
            let steps = part.len().div_ceil(COLUMNS);
            for start in groups.clone().step_by(together) {
                let block = start..groups.end.min(start + together);
                for at in (0..x.rows).step_by(2 * TILE_ROWS) {
                    for (i, group) in block.clone().step_by(2).enumerate() {
                        let both = group + 1 < block.end;
                        // Few rows use what is unfolded once: it need not leave the first-level cache.
                        let place = if x.rows <= 2 * TILE_ROWS { 0 } else { i * 2 * lines };
                        let w = unfolded[place..place + 2 * lines].as_mut_ptr().cast();
                        let w_next = if both { lines * size_of::<Line>() } else { 0 };
                        let product = Product { matrix, x, at, part: &part, w, w_next, row: group * ROWS };
                        // SAFETY: as demanded; the groups have the columns, and there is room for them unfolded.
                        unsafe {
                            if at == 0 {
                                let ([first, second], mut places) = (&mut *packed, [None, None]);
                                let [place, next] = &mut places;
                                let second = match both {
                                    true => columns_of(matrix, group + 1, &part, second, next),
                                    false => std::ptr::null(),
                                };
                                let groups = [columns_of(matrix, group, &part, first, place), second];
                                let pair = Pair { groups, both, columns: part.len(), w };
                                product.into(target, |block| unfold(&pair, block));
                            } else {
                                product.into(target, |block| {
                                    U::begin(block);
                                    U::add(block, 0..steps);
                                    U::end(block);
                                });
                            }
                        }
                    }
                }
            }
        }
    });
}

/// Where the columns of a group begin, packed now if need be; of weights in 12 bits, where it is put down which they are.
fn columns_of<'a>(
    matrix: &'a Matrix,
    group: usize,
    part: &Range<usize>,
    packed: &mut Vec<u8>,
    place: &mut Option<Bf12<'a>>,
) -> *const u8 {
    match matrix.float_group(group) {
        Some(FloatGroup::Floats(float, bytes)) => return bytes[part.start * ROWS * float.bytes()..].as_ptr(),
        Some(FloatGroup::Bf12(group)) => {
            return std::ptr::from_ref(place.insert(Bf12 { group, first: part.start })).cast();
        }
        None => {}
    }
    let Some(layout) = Layout::of(matrix.tensor_type()) else { return std::ptr::null() };
    let (first, blocks) = (part.start / COLUMNS / layout.tiles, part.len() / COLUMNS / layout.tiles);
    matrix.group(layout, group, packed)[first * layout.block()..(first + blocks) * layout.block()].as_ptr()
}

/// Products of up to 32 rows of activations, from row `at`, with a pair of groups, over the columns `part`.
struct Product<'a> {
    matrix: &'a Matrix,
    x: &'a Tiles,
    at: usize,
    part: &'a Range<usize>,
    /// The unfolded groups.
    w: *const u8,
    /// Bytes from the first to the second; 0: there is none.
    w_next: usize,
    /// Their first row of the matrix.
    row: usize,
}

impl Product<'_> {
    /// Adds what `run` makes of the block.
    ///
    /// # Safety
    /// As [`multiply_with`].
    unsafe fn into(self, target: Target, run: impl Fn(&Block)) {
        let Product { x, at, part, row, .. } = self;
        let width = (self.matrix.rows() - row).min(if self.w_next == 0 { ROWS } else { PAIR_ROWS });
        let rows = if x.rows - at > TILE_ROWS { unit::Rows::Two } else { unit::Rows::One };
        let height = if rows == unit::Rows::Two { 2 * TILE_ROWS } else { TILE_ROWS };
        let n = height.min(x.rows - at);
        let first_part = part.start == 0;
        let mut block = Block {
            x: x.memory.as_slice()[at / TILE_ROWS * x.block() + part.start / COLUMNS * TILE_BYTES..].as_ptr(),
            x_next: x.block(),
            w: self.w,
            w_next: self.w_next,
            rows,
            sums: std::ptr::null_mut(),
            sums_stride: target.out.width() * size_of::<f32>(),
            add: target.accumulate || !first_part,
        };
        if n == height && width == PAIR_ROWS && target.bias.is_none() {
            // SAFETY: the sums are the caller's: 32 elements of each of the rows.
            block.sums = unsafe { target.out.at(at, row) };
            return run(&block);
        }
        let mut sums = Sums([[0.0; PAIR_ROWS]; 2 * TILE_ROWS]);
        block.sums = sums.0.as_mut_ptr().cast();
        (block.sums_stride, block.add) = (PAIR_ROWS * size_of::<f32>(), false);
        run(&block);
        let bias = if first_part { target.bias } else { None };
        for (t, sums) in sums.0.iter().take(n).enumerate() {
            // SAFETY: as above.
            let out = unsafe { target.out.part(at + t, row, width) };
            for (i, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
                let sum = sum + bias.map_or(0.0, |bias| bias[row + i]);
                *out = if target.accumulate || !first_part { *out + sum } else { sum };
            }
        }
    }
}

/// A block's sums where they cannot go to their place at once.
#[repr(align(64))]
struct Sums([[f32; PAIR_ROWS]; 2 * TILE_ROWS]);

#[cfg(test)]
mod tests;
