//! Rows of activations as the tile unit wants them.

use half::bf16;

use super::super::memory::AlignedBuf;
use super::super::pack::COLUMNS;
use super::super::pool::Pool;
use super::super::rows::Rows;
use super::unfold::round_row;
use super::unit::{TILE_BYTES, TILE_ROWS, TILE_WIDTH};
use crate::error::Result;

/// Fewer rows of activations are faster on vectors.
pub(in super::super) const LEAST_ROWS: usize = 16;

/// Rounds row `i` to its place in [`Tiles::rows_of`]; `None`: fills it with zeros.
///
/// # Safety
/// AVX-512 with BF16; the row's places are the caller's, and there are as many as it has elements.
pub(in super::super) unsafe fn round(tiles: &Rows<u8>, i: usize, row: Option<&[f32]>) {
    // SAFETY: as demanded.
    unsafe {
        let out = tiles.at(i / TILE_ROWS, i % TILE_ROWS * TILE_WIDTH);
        match row {
            Some(row) => round_row(row, 1.0, out),
            None => (0..tiles.width()).step_by(TILE_BYTES).for_each(|at| out.add(at).write_bytes(0, TILE_WIDTH)),
        }
    }
}

/// Rows of activations in bf16: `[rows / 16][columns / 32]` tiles of 16 × 32, filled up with zeros.
pub(in super::super) struct Tiles {
    pub(super) memory: AlignedBuf,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl Tiles {
    /// Room for `rows` rows of `columns` elements, or fewer rows of more.
    pub fn new(rows: usize, columns: usize) -> Result<Tiles> {
        let bytes =
            rows.next_multiple_of(TILE_ROWS).saturating_mul(columns.next_multiple_of(COLUMNS)).saturating_mul(2);
        Ok(Tiles { memory: AlignedBuf::zeroed(bytes)?, rows: 0, columns: 0 })
    }

    /// Rounds `[rows][columns]` values.
    ///
    /// # Safety
    /// AVX-512 with BF16.
    pub unsafe fn round(&mut self, pool: &Pool, values: &[f32], rows: usize, columns: usize) {
        (self.rows, self.columns) = (rows, columns);
        let (blocks, block) = (rows.div_ceil(TILE_ROWS), columns.div_ceil(COLUMNS) * TILE_BYTES);
        let tiles = Rows::new(&mut self.memory.as_mut_slice()[..blocks * block], block);
        pool.run_in_order(blocks, &|i| {
            // SAFETY: each block is written by one task.
            let out = unsafe { tiles.row(i) };
            if (i + 1) * TILE_ROWS > rows {
                out.fill(0);
            }
            for (r, row) in values.chunks_exact(columns).skip(i * TILE_ROWS).take(TILE_ROWS).enumerate() {
                // SAFETY: row `r` of each of the block's tiles; the instruction set as demanded.
                unsafe { round_row(row, 1.0, out.as_mut_ptr().add(r * TILE_WIDTH)) };
            }
        });
    }

    /// Room for the tiles of `rows` rows of `columns` elements: a row for each 16 of them. All of it has to be written, zeros
    /// where there are no elements.
    pub fn rows_of(&mut self, rows: usize, columns: usize) -> Rows<'_, u8> {
        (self.rows, self.columns) = (rows, columns);
        let block = self.block();
        Rows::new(&mut self.memory.as_mut_slice()[..rows.div_ceil(TILE_ROWS) * block], block)
    }

    /// The elements of row `i`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        let block = &self.memory.as_slice()[i / TILE_ROWS * self.block()..][..self.block()];
        let rows = block.chunks_exact(TILE_WIDTH).skip(i % TILE_ROWS).step_by(TILE_ROWS);
        for (row, out) in rows.zip(out.chunks_mut(COLUMNS)) {
            for (x, out) in row.as_chunks::<2>().0.iter().zip(out) {
                *out = bf16::from_le_bytes(*x).to_f32();
            }
        }
    }

    /// Bytes of 16 rows.
    pub(super) fn block(&self) -> usize {
        self.columns.div_ceil(COLUMNS) * TILE_BYTES
    }
}
