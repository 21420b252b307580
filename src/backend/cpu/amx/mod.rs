//! Products of many rows of activations on AMX: tiles of bf16, summed in float32.
//!
//! Why bf16 and not int8, which the unit multiplies twice as fast: every format scales its numbers apart in blocks of 16 or
//! 32 columns. A chain of int8 products must end at the border of a block, where half of an int8 tile would be used, and
//! each sum would be converted, scaled and added by the vector unit: about 28 of its cycles for 16 of the tile unit's. With
//! the scales in the weights a chain is as long as the row, and the vector unit is free to unfold the next weights. bf16
//! also rounds activations finer than 8 bits with one scale for 16 of them, but for the greatest of the 16.
//!
//! Weights stay packed in memory. A task unfolds up to [`UNFOLDED`] bytes of them, groups of 16 rows by up to [`CHUNK`]
//! columns, into scratch that its second-level cache holds. Then it takes 32 rows of activations at a time and multiplies
//! them by three of these groups at a time. With no more than 32 rows what is unfolded is used once and never leaves the
//! first-level cache. Unfolding costs about 60 cycles for 16 rows × 32 columns, as much as the products of 60 rows of
//! activations: it is why [`LEAST_ROWS`](rows::LEAST_ROWS) rows are the least.
//!
//! What bounds it, on a Sapphire Rapids core: the unit needs 53 bytes a cycle for its peak with six tiles of sums. It gets
//! about 100 from the first-level cache, 48 from the second, 10 from the third.
//!
//! The gate and the other half of a feed-forward block are multiplied together, and their activation is computed where the
//! sums are still at hand: what leaves the core is a quarter of the bytes.

pub(super) mod attention;
pub(super) mod rows;
mod unfold;
mod unit;

use std::cell::RefCell;
use std::ops::Range;

use rows::Tiles;
use unfold::{Bf12, FEW, Several, bf12_unfolder, round_columns, unfolder};
use unit::{Amx, Block, Configured, TILE_BYTES, TILE_ROWS, Unit};

use super::features::ShortFloat;
use super::float_groups::FloatGroup;
use super::matrix::Matrix;
use super::memory::Line;
use super::pack::{COLUMNS, Layout, ROWS};
use super::rows::Rows;

/// Columns of a chain of products at most; a multiple of every format's block.
const CHUNK: usize = 768;
/// Bytes of unfolded weights: they and 512 rows of activations fit the second-level cache.
const UNFOLDED: usize = 512 << 10;
/// Groups that are multiplied at a time.
pub(super) const GROUPS: usize = 3;
/// Columns of a gated product, which is one chain: unfolded, three groups of both matrices are 768 KiB at most.
const GATED: usize = 4096;

thread_local! {
    /// Unfolded groups, and groups that are packed where they are used.
    static SCRATCH: RefCell<(Vec<Line>, [Vec<u8>; GROUPS])> = const { RefCell::new((Vec::new(), [const { Vec::new() }; GROUPS])) };
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
    matrix.multiplies_in(ShortFloat::Bf16)
        || Layout::of(matrix.tensor_type()).is_some() && unfolder::<Amx>(matrix.tensor_type()).is_some()
}

/// Multiplies `groups` of 16 rows of the matrix by `rows` of activations, the first of which is the first of a tile.
///
/// # Safety
/// [`Isa::Amx`](super::features::Isa::Amx), and nobody else may use these rows' part of the target.
pub(super) unsafe fn multiply(matrix: &Matrix, x: &Tiles, rows: Range<usize>, groups: Range<usize>, target: Target) {
    // SAFETY: as demanded.
    unsafe {
        let _configured = Configured::new();
        multiply_with::<Amx>(matrix, x, rows, groups, target);
    }
}

/// [`multiply`] on a unit that may be an emulated one.
///
/// # Safety
/// AVX-512 with VNNI and BF16, and what [`Unit`] demands.
unsafe fn multiply_with<U: Unit>(matrix: &Matrix, x: &Tiles, rows: Range<usize>, groups: Range<usize>, target: Target) {
    assert!(matrix.columns() == x.columns);
    let columns = matrix.columns();
    let chunk = columns.div_ceil(columns.div_ceil(CHUNK).max(1)).next_multiple_of(256);
    for first in (0..columns).step_by(chunk) {
        let part = first..columns.min(first + chunk);
        // SAFETY: as demanded; the groups of all blocks are among `groups`.
        unsafe {
            each_block::<U, 1>([matrix], x, rows.clone(), &part, groups.clone(), |at, groups, [run]| {
                store(matrix, at..rows.end, groups, part.start == 0, target, run);
            });
        }
    }
}

/// The activation of many elements: from the gate's products and the rest's to the results.
pub(super) type Activate<'a> = dyn Fn(&[f32], &[f32], &mut [f32]) + Sync + 'a;

/// A gated product: gate and the rest, whose products are the arguments of the activation.
pub(super) struct Gated<'a> {
    pub gate: &'a Matrix,
    pub gate_bias: Option<&'a [f32]>,
    pub up: &'a Matrix,
    pub up_bias: Option<&'a [f32]>,
    pub activate: &'a Activate<'a>,
}

/// Whether [`multiply_gated`] takes these matrices.
pub(super) fn multiplies_gated(gate: &Matrix, up: &Matrix) -> bool {
    let alike = gate.rows() == up.rows() && gate.columns() == up.columns();
    alike && gate.columns() <= GATED && gate.rows().is_multiple_of(COLUMNS) && multiplies(gate) && multiplies(up)
}

/// Multiplies `groups` of 16 rows of both matrices by `rows` of activations, as [`multiply`] does, and rounds what the activation makes of the
/// products to tiles of `out`, whose rows are those of 16 rows of activations.
///
/// # Safety
/// [`Isa::Amx`](super::features::Isa::Amx), and nobody else may use these columns of `out`.
pub(super) unsafe fn multiply_gated(
    gated: &Gated,
    x: &Tiles,
    rows: Range<usize>,
    groups: Range<usize>,
    out: &Rows<u8>,
) {
    // SAFETY: as demanded.
    unsafe {
        let _configured = Configured::new();
        multiply_gated_with::<Amx>(gated, x, rows, groups, out);
    }
}

/// [`multiply_gated`] on a unit that may be an emulated one.
///
/// # Safety
/// AVX-512 with VNNI and BF16, and what [`Unit`] demands.
unsafe fn multiply_gated_with<U: Unit>(
    gated: &Gated,
    x: &Tiles,
    rows: Range<usize>,
    groups: Range<usize>,
    out: &Rows<u8>,
) {
    let Gated { gate, up, .. } = *gated;
    assert!(multiplies_gated(gate, up) && gate.columns() == x.columns);
    let (mut products, mut activated) = ([Sums::ZERO, Sums::ZERO], Sums::ZERO);
    // SAFETY: as demanded.
    unsafe {
        each_block::<U, 2>([gate, up], x, rows.clone(), &(0..x.columns), groups, |at, groups, runs| {
            for ((sums, run), bias) in products.iter_mut().zip(runs).zip([gated.gate_bias, gated.up_bias]) {
                run(sums.place());
                if let Some(bias) = bias {
                    sums.add(&bias[groups.start * ROWS..groups.end * ROWS]);
                }
            }
            let height = if rows.end - at > TILE_ROWS { 2 * TILE_ROWS } else { TILE_ROWS };
            let len = height * Sums::WIDTH;
            (gated.activate)(&products[0].0[..len], &products[1].0[..len], &mut activated.0[..len]);
            for (i, group) in groups.enumerate() {
                let column = group * ROWS;
                for row in (0..height).step_by(TILE_ROWS) {
                    let place = column / COLUMNS * TILE_BYTES + column % COLUMNS * 2;
                    let from = activated.0[row * Sums::WIDTH + i * ROWS..].as_ptr();
                    round_columns(from, Sums::WIDTH, TILE_ROWS, out.at((at + row) / TILE_ROWS, place));
                }
            }
        });
    }
}

/// Where the sums of a block go.
struct Place {
    sums: *mut f32,
    /// Bytes from one row of them to the next.
    stride: usize,
    /// Add to what is there.
    add: bool,
}

/// Computes the products of a block of up to 32 rows of activations and three groups.
type Run<'a> = &'a dyn Fn(Place);

/// Calls `each(row of activations, groups, runs)` for all blocks of `rows` and `groups`, over the columns `part`. Every run must be called:
/// the first unfolds what the next blocks use. It writes 16 or 32 rows of sums, whether all are of activations or not, and as
/// many columns as [`width`] says.
///
/// # Safety
/// AVX-512 with VNNI and BF16, and what [`Unit`] demands.
unsafe fn each_block<U: Unit, const MATRICES: usize>(
    matrices: [&Matrix; MATRICES],
    x: &Tiles,
    rows: Range<usize>,
    part: &Range<usize>,
    groups: Range<usize>,
    mut each: impl FnMut(usize, Range<usize>, [Run; MATRICES]),
) {
    let unfolders = matrices.map(|matrix| match matrix.float_group(0) {
        Some(FloatGroup::Bf12(_)) => Some(bf12_unfolder::<U>()),
        _ => unfolder::<U>(matrix.tensor_type()),
    });
    if unfolders.iter().any(Option::is_none) {
        return;
    }
    assert!(rows.start.is_multiple_of(TILE_ROWS) && rows.end <= x.rows);
    let (steps, end) = (part.len().div_ceil(COLUMNS), rows.end);
    // Few rows use what is unfolded once.
    let room = if rows.len() <= 2 * TILE_ROWS { FEW } else { steps };
    let group_bytes = room * TILE_BYTES;
    let together = (UNFOLDED / (group_bytes * MATRICES) / GROUPS * GROUPS).clamp(GROUPS, 10 * GROUPS);
    SCRATCH.with_borrow_mut(|(unfolded, packed)| {
        let lines = MATRICES * together * group_bytes / size_of::<Line>();
        if unfolded.len() < lines {
            unfolded.resize(lines, Line([0; 64]));
        }
        let start: *mut u8 = unfolded.as_mut_ptr().cast();
        let packed = RefCell::new(packed);
        for first in groups.clone().step_by(together) {
            let block = first..groups.end.min(first + together);
            for at in rows.clone().step_by(2 * TILE_ROWS) {
                for group in block.clone().step_by(GROUPS) {
                    let some = group..block.end.min(group + GROUPS);
                    let runs: [_; MATRICES] = std::array::from_fn(|m| {
                        let (some, packed, rows) = (some.clone(), &packed, &rows);
                        let index = (group - first) * MATRICES + m * some.len();
                        let w = start.wrapping_add(if room == FEW { 0 } else { index * group_bytes });
                        move |place: Place| {
                            let matrix = matrices[m];
                            let product = Product { matrix, x, at, end, part, w, group_bytes, groups: some.clone() };
                            let block = product.block(&place);
                            match unfolders[m] {
                                // SAFETY: as demanded; the groups have the columns, and there is room for them unfolded.
                                Some(unfold) if at == rows.start => unsafe {
                                    let mut short = [const { None }; GROUPS];
                                    unfold(&product.several(room, &mut packed.borrow_mut(), &mut short), &block);
                                },
                                // SAFETY: as demanded; the groups were unfolded for the first rows.
                                _ => unsafe {
                                    U::begin(&block);
                                    U::add(&block, 0..steps);
                                    U::end(&block);
                                },
                            }
                        }
                    });
                    each(at, some, std::array::from_fn(|m| &runs[m] as Run));
                }
            }
        }
    });
}

/// A product of up to 32 rows of activations, from row `at` and before `end`, with some groups, over the columns `part`.
struct Product<'a> {
    matrix: &'a Matrix,
    x: &'a Tiles,
    at: usize,
    end: usize,
    part: &'a Range<usize>,
    /// The unfolded groups, and the bytes from one to the next.
    w: *mut u8,
    group_bytes: usize,
    groups: Range<usize>,
}

impl<'a> Product<'a> {
    fn block(&self, place: &Place) -> Block {
        let Product { x, at, part, .. } = self;
        let rows = if self.end - at > TILE_ROWS { unit::Rows::Two } else { unit::Rows::One };
        Block {
            x: x.memory.as_slice()[at / TILE_ROWS * x.block() + part.start / COLUMNS * TILE_BYTES..].as_ptr(),
            x_next: x.block(),
            w: self.w,
            // A group alone is multiplied twice.
            w_next: if self.groups.len() == 1 { 0 } else { self.group_bytes },
            rows,
            groups: if self.groups.len() == GROUPS { unit::Groups::Three } else { unit::Groups::Two },
            sums: place.sums,
            sums_stride: place.stride,
            add: place.add,
        }
    }

    /// The groups, packed now if need be; `short` is room for what is said of groups in 12 bits.
    fn several(&self, room: usize, packed: &mut [Vec<u8>; GROUPS], short: &mut [Option<Bf12<'a>>; GROUPS]) -> Several {
        let (mut groups, mut places) = ([std::ptr::null(); GROUPS], [0; GROUPS]);
        for (i, (packed, short)) in packed.iter_mut().zip(short).take(self.groups.len()).enumerate() {
            (groups[i], places[i]) = columns_of(self.matrix, self.groups.start + i, self.part, packed, short);
        }
        // Groups that are packed lie at equal distances.
        let next = if self.groups.len() > 1 { places[1].wrapping_sub(places[0]).wrapping_mul(GROUPS) } else { 0 };
        Several { groups, count: self.groups.len(), columns: self.part.len(), w: self.w, room, next }
    }
}

/// The columns of a group, packed now if need be, as its unfolding wants them, and their address in memory.
fn columns_of<'a>(
    matrix: &'a Matrix,
    group: usize,
    part: &Range<usize>,
    packed: &mut Vec<u8>,
    short: &mut Option<Bf12<'a>>,
) -> (*const u8, usize) {
    let columns = match matrix.float_group(group) {
        Some(FloatGroup::Floats(float, bytes)) => bytes[part.start * ROWS * float.bytes()..].as_ptr(),
        Some(FloatGroup::Bf12(group)) => {
            let place = group.place_of(part.start).addr();
            return (std::ptr::from_ref(short.insert(Bf12 { group, first: part.start })).cast(), place);
        }
        None => {
            let Some(layout) = Layout::of(matrix.tensor_type()) else { return (std::ptr::null(), 0) };
            let (first, blocks) = (part.start / COLUMNS / layout.tiles, part.len() / COLUMNS / layout.tiles);
            matrix.group(layout, group, packed)[first * layout.block()..(first + blocks) * layout.block()].as_ptr()
        }
    };
    (columns, columns.addr())
}

/// Columns of sums that a run writes.
fn width(groups: &Range<usize>) -> usize {
    groups.len().max(2) * ROWS
}

/// Brings the products of a block, the first of `rows`, which `run` computes, to their place.
///
/// # Safety
/// The groups' part of the target is the caller's alone.
unsafe fn store(matrix: &Matrix, rows: Range<usize>, groups: Range<usize>, first: bool, target: Target, run: Run) {
    let (at, row) = (rows.start, groups.start * ROWS);
    let n = (2 * TILE_ROWS).min(rows.len());
    let there = (matrix.rows() - row).min(groups.len() * ROWS);
    let add = target.accumulate || !first;
    if n.is_multiple_of(TILE_ROWS) && there == width(&groups) && target.bias.is_none() {
        // SAFETY: the sums are the caller's: as many elements of each of the rows.
        let sums = unsafe { target.out.at(at, row) };
        return run(Place { sums, stride: target.out.width() * size_of::<f32>(), add });
    }
    // (Added to by the unit here too: a result must not depend on which of both ways it comes.)
    let mut sums = Sums::ZERO;
    for (t, sums) in sums.0.chunks_exact_mut(Sums::WIDTH).take(n).enumerate().filter(|_| add) {
        // SAFETY: as above.
        sums[..there].copy_from_slice(unsafe { target.out.part(at + t, row, there) });
    }
    run(Place { add, ..sums.place() });
    if let Some(bias) = target.bias.filter(|_| first) {
        sums.add(&bias[row..row + there]);
    }
    for (t, sums) in sums.0.chunks_exact(Sums::WIDTH).take(n).enumerate() {
        // SAFETY: as above.
        unsafe { target.out.part(at + t, row, there) }.copy_from_slice(&sums[..there]);
    }
}

/// A block's sums where they cannot go to their place at once.
#[repr(align(64))]
struct Sums([f32; 2 * TILE_ROWS * Sums::WIDTH]);

impl Sums {
    const WIDTH: usize = GROUPS * ROWS;
    const STRIDE: usize = Sums::WIDTH * size_of::<f32>();
    const ZERO: Sums = Sums([0.0; 2 * TILE_ROWS * Sums::WIDTH]);

    fn place(&mut self) -> Place {
        Place { sums: self.0.as_mut_ptr(), stride: Sums::STRIDE, add: false }
    }

    /// Adds a bias to each row.
    fn add(&mut self, bias: &[f32]) {
        for row in self.0.chunks_exact_mut(Sums::WIDTH) {
            row.iter_mut().zip(bias).for_each(|(sum, bias)| *sum += bias);
        }
    }
}

#[cfg(test)]
mod tests;
