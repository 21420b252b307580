//! How products are distributed over threads; and gated products on AMX.

use std::ops::Range;

use super::super::acts::Acts;
use super::super::amx::{self, Gated};
use super::super::features::Isa;
use super::super::pool::Pool;
use super::TASKS_PER_THREAD;

/// Fewer rows of activations for each thread are not worth that each of them unfolds all weights.
const ROWS_OF_THREAD: usize = 128;

/// Which thread multiplies what. With many rows of activations each thread takes some of them, those that it
/// takes for all else, and nearly nothing goes from one core to another: 12 ns for a cache line, when unfolding
/// weights for one thread's rows again costs a tenth of what multiplying them does. With few rows each thread takes some of
/// the matrices' groups.
pub struct Grid {
    rows: usize,
    groups: usize,
    /// Parts of the rows, and rows of each.
    row_parts: usize,
    height: usize,
    /// Parts of the groups for each part of the rows, and groups of each.
    group_parts: usize,
    part: usize,
    /// Pieces of a part, and groups of each.
    pieces: usize,
    piece: usize,
}

impl Grid {
    /// Parts of `rows` rows of activations, and rows of each, as [`Pool::each_row`] divides them.
    pub fn rows(rows: usize, threads: usize) -> (usize, usize) {
        let parts = threads.min(rows / ROWS_OF_THREAD).max(1);
        (parts, rows.div_ceil(parts).next_multiple_of(2 * amx::rows::LEAST_ROWS))
    }

    /// Pieces are multiples of `unit` groups.
    pub fn new(rows: usize, groups: usize, unit: usize, threads: usize) -> Grid {
        let (row_parts, height) = Grid::rows(rows, threads);
        let group_parts = (threads / row_parts).max(1);
        // A thread alone needs no pieces.
        let pieces = if threads == 1 { 1 } else { TASKS_PER_THREAD };
        let units = groups.div_ceil(unit);
        let part = units.div_ceil(group_parts).max(1);
        let piece = part.div_ceil(pieces);
        Grid {
            rows,
            groups,
            row_parts: rows.div_ceil(height),
            height,
            group_parts: units.div_ceil(part),
            part: part * unit,
            pieces: part.div_ceil(piece),
            piece: piece * unit,
        }
    }

    /// Calls `run(rows, groups)` for each piece.
    pub fn run(&self, pool: &Pool, run: &(dyn Fn(Range<usize>, Range<usize>) + Sync)) {
        pool.run_near(self.row_parts * self.group_parts, self.pieces, &|p, piece| {
            let rows = p % self.row_parts * self.height..self.rows.min((p % self.row_parts + 1) * self.height);
            let part = p / self.row_parts * self.part;
            let start = part + piece * self.piece;
            let groups = start..self.groups.min(part + self.part).min(start + self.piece);
            if !groups.is_empty() {
                run(rows, groups);
            }
        });
    }
}

/// A gated product on AMX: the activations become `activate(acts · gateᵀ + bias, acts · upᵀ + bias)`, rounded to tiles. False
/// if that is not to be had: then they are what they were.
pub fn gated(pool: &Pool, isa: Isa, acts: &mut Acts, gated: &Gated) -> bool {
    if isa != Isa::Amx || !amx::multiplies_gated(gated.gate, gated.up) {
        return false;
    }
    acts.tile(pool);
    let rows = acts.rows();
    acts.multiplied(gated.gate.rows(), |x, out| {
        // Two groups are a tile's columns, and three are multiplied at a time.
        let groups = gated.gate.groups();
        let unit = if groups < 6 * amx::GROUPS * pool.threads() { 2 } else { 2 * amx::GROUPS };
        Grid::new(rows, groups, unit, pool.threads()).run(pool, &|rows, groups| {
            // SAFETY: AMX was asked for above; each piece belongs to one task.
            unsafe { amx::multiply_gated(gated, x, rows, groups, out) };
        });
    })
}
