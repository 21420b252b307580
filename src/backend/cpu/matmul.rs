//! Matrix products: which kernel, and which part on which thread.
//!
//! All products of a verb are one parallel region. A task is some consecutive groups of 16 rows; it multiplies them by
//! all rows of activations, so that weights are read once and activations stay in the cache. A result does not depend
//! on the number of threads, nor on how many rows of activations there are, but for AMX, which rounds otherwise and
//! multiplies where there are at least `amx::LEAST_ROWS` rows.

use std::cell::RefCell;

use super::acts::Acts;
use super::amx;
use super::features::Isa;
use super::kernels::{FLOAT_WIDTHS, Float, Kernel, Quantized, WIDTHS, float_kernels, float_products, kernel};
use super::matrix::Matrix;
use super::pack::{COLUMNS, Layout, ROWS};
use super::pool::Pool;
use super::rows::Rows;

/// Rows of activations that are multiplied by a task's weights before the next: what the second-level cache holds.
const ACTS_TILE: usize = 64;
/// The same for float activations, which are four times as wide.
const FLOAT_ACTS_TILE: usize = 32;
/// Tasks of each thread: enough to even out a slow core, few enough to be worth their claims.
const TASKS_PER_THREAD: usize = 4;

/// One product: `out = acts · matrixᵀ + bias`.
pub struct Job<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// `[acts.rows()][matrix.rows()]`.
    pub out: &'a mut [f32],
    /// One for each row of the matrix.
    pub bias: Option<&'a [f32]>,
    /// Add to `out` instead of writing it.
    pub accumulate: bool,
}

/// A job as the tasks see it.
struct Part<'a> {
    matrix: &'a Matrix,
    out: Rows<'a, f32>,
    bias: Option<&'a [f32]>,
    accumulate: bool,
    /// Number of its first group among all jobs' groups.
    first: usize,
}

thread_local! {
    /// A group that is packed, or a row that is decoded, where it is used.
    static SCRATCH: RefCell<(Vec<u8>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Runs all jobs on the same activations. `exact` multiplies by the float activations, not the quantised ones.
pub fn matmul(pool: &Pool, isa: Isa, acts: &Acts, jobs: &mut [Job], exact: bool) {
    let mut groups = 0;
    let parts: Vec<Part> = jobs
        .iter_mut()
        .map(|job| {
            let rows = job.matrix.rows();
            assert!(job.matrix.columns() == acts.columns() && job.out.len() == acts.rows() * rows);
            assert!(job.bias.is_none_or(|bias| bias.len() == rows));
            let first = groups;
            groups += job.matrix.groups();
            Part {
                matrix: job.matrix,
                out: Rows::new(job.out, rows),
                bias: job.bias,
                accumulate: job.accumulate,
                first,
            }
        })
        .collect();
    let tasks = match (pool.threads(), acts.tiles()) {
        (1, _) => 1,
        (threads, None) => threads * TASKS_PER_THREAD,
        (threads, Some(_)) => threads * amx::TASKS_PER_THREAD,
    };
    let tile = groups.div_ceil(tasks).max(1);
    pool.run(groups.div_ceil(tile), &|task| {
        let range = task * tile..groups.min((task + 1) * tile);
        for part in &parts {
            let from = range.start.clamp(part.first, part.first + part.matrix.groups()) - part.first;
            let to = range.end.clamp(part.first, part.first + part.matrix.groups()) - part.first;
            if from < to {
                part.run(isa, acts, from..to, exact);
            }
        }
    });
}

impl Part<'_> {
    fn run(&self, isa: Isa, acts: &Acts, groups: std::ops::Range<usize>, exact: bool) {
        if let Some(tiles) = acts.tiles().filter(|_| !exact && amx::multiplies(self.matrix)) {
            let target = amx::Target { out: &self.out, bias: self.bias, accumulate: self.accumulate };
            // SAFETY: only AMX has activations in tiles; these rows of the matrix belong to one task.
            return unsafe { amx::multiply(self.matrix, tiles, groups, target) };
        }
        if let Some(float) = self.matrix.packed_floats() {
            return self.run_packed_floats(float, isa, acts, groups);
        }
        let tensor_type = self.matrix.tensor_type();
        let layout = Layout::of(tensor_type).filter(|_| !exact);
        match (layout, kernel(tensor_type, isa)) {
            (Some(layout), Some(kernel)) => self.run_packed(layout, kernel, acts, groups),
            _ => self.run_float(isa, acts, groups),
        }
    }

    fn run_packed(&self, layout: &Layout, kernel: &Kernel, acts: &Acts, groups: std::ops::Range<usize>) {
        let tiles = acts.columns() / COLUMNS;
        SCRATCH.with_borrow_mut(|(scratch, _)| {
            for first in (0..acts.rows()).step_by(ACTS_TILE) {
                let end = acts.rows().min(first + ACTS_TILE);
                for group in groups.clone() {
                    let bytes = self.matrix.group(layout, group, scratch);
                    assert!(bytes.len() * layout.tiles >= tiles * layout.block());
                    let mut at = first;
                    while at < end {
                        let width = WIDTHS.iter().position(|&width| width <= end - at).unwrap_or(WIDTHS.len() - 1);
                        let mut out = [0.0; WIDTHS[0] * ROWS];
                        // SAFETY: the kernel is one that this processor runs; the group has all tiles of the columns, and
                        // the activations as many rows as the kernel's width.
                        unsafe {
                            kernel.run[width](
                                bytes.as_ptr(),
                                tiles,
                                Quantized::rows(acts, at, at == 0),
                                out.as_mut_ptr(),
                            )
                        };
                        for (t, products) in out.chunks_exact(ROWS).take(WIDTHS[width]).enumerate() {
                            self.store(at + t, group * ROWS, products);
                        }
                        at += WIDTHS[width];
                    }
                }
            }
        });
    }

    /// Packed float weights, which float activations multiply in any mode.
    fn run_packed_floats(&self, float: Float, isa: Isa, acts: &Acts, groups: std::ops::Range<usize>) {
        let columns = acts.columns();
        for first in (0..acts.rows()).step_by(FLOAT_ACTS_TILE) {
            let end = acts.rows().min(first + FLOAT_ACTS_TILE);
            for group in groups.clone() {
                let bytes = self.matrix.float_group(group);
                assert!(bytes.len() == columns * ROWS * float.bytes());
                let mut at = first;
                while at < end {
                    let x = &acts.values()[at * columns..];
                    let Some((width, run)) = float_kernels(isa).iter().find(|(width, _)| *width <= end - at) else {
                        return;
                    };
                    let mut out = [0.0; WIDTHS[0] * ROWS];
                    // SAFETY: the kernel is one that this processor runs; the group has all columns, and there are as many
                    // rows of activations as the kernel takes.
                    unsafe { run(float, bytes.as_ptr(), columns, x.as_ptr(), out.as_mut_ptr()) };
                    for (t, products) in out.chunks_exact(ROWS).take(*width).enumerate() {
                        self.store(at + t, group * ROWS, products);
                    }
                    at += width;
                }
            }
        }
    }

    /// Plain float weights, formats without a kernel, and exact products: row by row, decoded where need be.
    fn run_float(&self, isa: Isa, acts: &Acts, groups: std::ops::Range<usize>) {
        let columns = acts.columns();
        let float = Float::of(self.matrix.tensor_type());
        SCRATCH.with_borrow_mut(|(_, decoded)| {
            decoded.resize(columns, 0.0);
            for row in groups.start * ROWS..self.matrix.rows().min(groups.end * ROWS) {
                let (float, bytes) = match (float, self.matrix.plain_row(row)) {
                    (Some(float), Some(bytes)) => (float, bytes),
                    _ => {
                        self.matrix.row(row, decoded);
                        (Float::F32, bytemuck::cast_slice(decoded))
                    }
                };
                let mut at = 0;
                while at < acts.rows() {
                    let x = &acts.values()[at * columns..];
                    if acts.rows() - at >= FLOAT_WIDTHS[0] {
                        let products = float_products::<{ FLOAT_WIDTHS[0] }>(isa, float, bytes, columns, x);
                        products.iter().enumerate().for_each(|(t, p)| self.store(at + t, row, &[*p]));
                        at += FLOAT_WIDTHS[0];
                    } else {
                        let products = float_products::<{ FLOAT_WIDTHS[1] }>(isa, float, bytes, columns, x);
                        self.store(at, row, &products);
                        at += FLOAT_WIDTHS[1];
                    }
                }
            }
        });
    }

    /// Writes products of row `t` of the activations with the matrix's rows from `row`; those past its end are padding.
    fn store(&self, t: usize, row: usize, products: &[f32]) {
        let n = products.len().min(self.matrix.rows() - row);
        // SAFETY: these rows of the matrix belong to one task.
        let out = unsafe { self.out.part(t, row, n) };
        for (i, (out, product)) in out.iter_mut().zip(products).enumerate() {
            let y = product + self.bias.map_or(0.0, |bias| bias[row + i]);
            *out = if self.accumulate { *out + y } else { y };
        }
    }
}

#[cfg(test)]
pub(super) mod noise;
#[cfg(test)]
mod tests;
