//! Matrix products: which kernel, and which part on which thread.
//!
//! All products of a verb are one parallel region. A task is some consecutive groups of 16 rows; it multiplies them by
//! all rows of activations, so that weights are read once and activations stay in the cache, or, if there are many, by those
//! that its thread takes for all else ([`Grid`]). A result does not depend on the number of threads, nor on how many rows of
//! activations there are, but where the processor multiplies floats of 16 bits best and there are enough rows: weights in F16
//! and BF16 from [`SHORT_ROWS`](super::acts::SHORT_ROWS) rows on, and on AMX all weights from [`amx::rows::LEAST_ROWS`] on.

use std::cell::RefCell;
use std::ops::Range;

use super::acts::Acts;
use super::amx;
use super::features::Isa;
use super::float_groups::{Products, ShortGroups, multiply_again};
use super::floats::{FLOAT_GROUPS, FLOAT_MOST, FLOAT_WIDTHS, Float, float_products, groups_at_once};
use super::kernels::{Kernel, Quantized, WIDTHS, kernel};
use super::matrix::Matrix;
use super::memory::Line;
use super::pack::{COLUMNS, Layout, ROWS};
use super::panels::{self, Panels, panels};
use super::pool::Pool;
use super::rows::Rows;
use super::short_floats::{self, ShortRows, short_bytes};
use grid::Grid;

/// Rows of activations that are multiplied by a task's weights before the next: what the second-level cache holds.
const ACTS_TILE: usize = 64;
/// The same for panels, in bytes of activations and their scales: of a second-level cache of 1 MiB.
const PANEL_ACTS: usize = 768 << 10;
/// Bytes of sums that are kept while panels that make up one group of rows follow each other.
const PANEL_SUMS: usize = 256 << 10;
/// The same for float activations and those in 16 bits, in bytes.
const FLOAT_ACTS_TILE: usize = 256 << 10;
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
    /// Of which matrix this task multiplies groups next, and which, if not this one's.
    then: Option<(&'a Matrix, usize)>,
}

thread_local! {
    /// A group that is packed, or a row that is decoded, where it is used.
    static SCRATCH: RefCell<(Vec<u8>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
    /// Groups of floats that are decoded or rounded for many rows of activations.
    static PANEL: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
    /// A panel of packed weights, and the sums of its products with a tile of activations.
    static UNFOLDED: RefCell<(Vec<Line>, Vec<f32>)> = const { RefCell::new((Vec::new(), Vec::new())) };
}

/// Room for `bytes` bytes at the beginning of cache lines.
fn panel(lines: &mut Vec<Line>, bytes: usize) -> *mut u8 {
    lines.resize(lines.len().max(bytes.div_ceil(size_of::<Line>())), Line([0; 64]));
    lines.as_mut_ptr().cast()
}

/// Runs all jobs on the same activations, of which it makes the forms that the jobs want. `exact` multiplies by the float
/// activations, not by quantised or rounded ones.
pub fn matmul(pool: &Pool, isa: Isa, acts: &mut Acts, jobs: &mut [Job], exact: bool) {
    let matrices: Vec<&Matrix> = jobs.iter().map(|job| job.matrix).collect();
    let all_tiled = forms(pool, isa, acts, &matrices, exact);
    let acts = &*acts;
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
                then: None,
            }
        })
        .collect();
    let run = |rows: Range<usize>, range: Range<usize>| {
        for part in &parts {
            let from = range.start.clamp(part.first, part.first + part.matrix.groups()) - part.first;
            let to = range.end.clamp(part.first, part.first + part.matrix.groups()) - part.first;
            if from < to {
                part.run(isa, acts, rows.clone(), from..to, exact);
            }
        }
    };
    Grid::new(acts.rows(), groups, unit(acts, all_tiled), pool.threads()).run(pool, &run);
}

/// Groups that are multiplied at once.
fn unit(acts: &Acts, all_tiled: bool) -> usize {
    match all_tiled {
        true => amx::GROUPS,
        false if acts.rows() >= panels::LEAST_ROWS => panels::GROUPS,
        false => 1,
    }
}

/// Makes the forms of the activations that products with these matrices want. Whether tiles are the only one.
fn forms(pool: &Pool, isa: Isa, acts: &mut Acts, matrices: &[&Matrix], exact: bool) -> bool {
    let on_tiles = |matrix: &&Matrix| isa == Isa::Amx && !exact && amx::multiplies(matrix);
    if matrices.iter().any(on_tiles) {
        acts.tile(pool);
    }
    let tiled = acts.tiles().is_some();
    if tiled && matrices.iter().all(on_tiles) {
        return true;
    }
    acts.value(pool);
    for matrix in matrices.iter().filter(|matrix| !(exact || tiled && on_tiles(matrix))) {
        if let Some(kernel) = kernel(matrix.tensor_type(), isa) {
            acts.quantize(kernel.form, isa, pool);
        }
        if Isa::short_float().is_some_and(|short| matrix.multiplies_in(short)) {
            acts.round(isa, pool);
        }
    }
    false
}

impl Part<'_> {
    /// Products of `rows` of the activations with `groups` of the matrix.
    fn run(&self, isa: Isa, acts: &Acts, rows: Range<usize>, groups: Range<usize>, exact: bool) {
        if let Some(tiles) = acts.tiles().filter(|_| !exact && amx::multiplies(self.matrix)) {
            let target = amx::Target { out: &self.out, bias: self.bias, accumulate: self.accumulate };
            // SAFETY: only AMX has activations in tiles; these rows of the matrix belong to one task.
            return unsafe { amx::multiply(self.matrix, tiles, rows, groups, target) };
        }
        if self.matrix.float_group(groups.start).is_some() {
            return match acts.short().filter(|short| !exact && self.matrix.multiplies_in(short.float)) {
                Some(short) => self.run_short(isa, acts, &short, rows, groups),
                None => self.run_packed_floats(isa, acts, rows, groups),
            };
        }
        let tensor_type = self.matrix.tensor_type();
        let layout = Layout::of(tensor_type).filter(|_| !exact);
        let panels = panels(tensor_type, isa).filter(|panels| acts.rows() >= panels.least_rows);
        match (layout, panels, kernel(tensor_type, isa)) {
            (Some(layout), Some(panels), _) => self.run_panels(layout, panels, acts, rows, groups),
            (Some(layout), None, Some(kernel)) => self.run_packed(layout, kernel, acts, rows, groups),
            _ => self.run_float(isa, acts, rows, groups),
        }
    }

    fn run_packed(&self, layout: &Layout, kernel: &Kernel, acts: &Acts, rows: Range<usize>, groups: Range<usize>) {
        let tiles = acts.columns() / COLUMNS;
        SCRATCH.with_borrow_mut(|(scratch, _)| {
            for first in rows.clone().step_by(ACTS_TILE) {
                let end = rows.end.min(first + ACTS_TILE);
                let quantized = Quantized::rows(acts, first);
                for group in groups.clone() {
                    let bytes = self.matrix.group(layout, group, scratch);
                    assert!(bytes.len() * layout.tiles >= tiles * layout.block());
                    let (mut at, mut quantized) = (first, quantized);
                    while at < end {
                        let width = WIDTHS.iter().position(|&width| width <= end - at).unwrap_or(WIDTHS.len() - 1);
                        let mut out = [0.0; WIDTHS[0] * ROWS];
                        // SAFETY: the kernel is one that this processor runs; the group has all tiles of the columns, and
                        // the activations as many rows as the kernel's width.
                        unsafe {
                            let unread = at == rows.start;
                            kernel.run[width](bytes.as_ptr(), tiles, &quantized, unread, out.as_mut_ptr())
                        };
                        for (t, products) in out.chunks_exact(ROWS).take(WIDTHS[width]).enumerate() {
                            self.store(at + t, group * ROWS, products);
                        }
                        at += WIDTHS[width];
                        if at < end {
                            quantized = quantized.skip_rows(WIDTHS[width]);
                        }
                    }
                }
            }
        });
    }

    /// Many rows of activations: weights are unfolded for all rows of a tile.
    ///
    /// A panel of two groups of long rows is made and multiplied in parts. If the activations of all parts do not fit the cache,
    /// some panels take turns with each part, and their sums are kept meanwhile.
    fn run_panels(&self, layout: &Layout, panels: &Panels, acts: &Acts, rows: Range<usize>, groups: Range<usize>) {
        let all = acts.columns() / COLUMNS / panels.tiles;
        let part = panels.part(all);
        let most = (PANEL_ACTS / (part * panels.acts).max(1)).max(panels.least_rows);
        let height = rows.len().div_ceil(rows.len().div_ceil(most).max(1));
        let pair = panels.groups * ROWS * height;
        let together = if height * all * panels.acts <= PANEL_ACTS { 1 } else { (PANEL_SUMS / (4 * pair)).max(1) };
        // What the next panel is made of, after one of the groups before `end` of a turn.
        let next = |turn: &Range<usize>, end: usize, blocks: &Range<usize>| {
            if end < turn.end {
                self.matrix.ahead(layout, end, blocks.start)
            } else if blocks.end < all {
                self.matrix.ahead(layout, turn.start, blocks.end)
            } else {
                let (matrix, group) = self.then.filter(|_| end == groups.end).unwrap_or((self.matrix, end));
                matrix.ahead(layout, group, 0)
            }
        };
        UNFOLDED.with_borrow_mut(|(panel, sums)| {
            panel.resize(panels::PANEL / size_of::<Line>(), Line([0; 64]));
            sums.resize(sums.len().max(together * pair), 0.0);
            for first in rows.clone().step_by(height) {
                let end = rows.end.min(first + height);
                for start in groups.clone().step_by(together * panels.groups) {
                    let turn = start..groups.end.min(start + together * panels.groups);
                    for block in (0..all).step_by(part) {
                        let blocks = block..all.min(block + part);
                        for (group, sums) in turn.clone().step_by(panels.groups).zip(sums.chunks_exact_mut(pair)) {
                            let groups_of = group..turn.end.min(group + panels.groups);
                            let panel = panel.as_mut_ptr().cast();
                            let next = next(&turn, groups_of.end, &blocks);
                            let blocks = blocks.clone();
                            self.run_panel(layout, panels, acts, first..end, groups_of, blocks, next, panel, sums);
                        }
                    }
                }
            }
        });
    }

    /// Makes a panel of some blocks of one or two groups, and multiplies it by rows of activations. Meanwhile as many blocks are
    /// fetched from `next`, and from as many bytes after that.
    #[allow(clippy::too_many_arguments)] // three ranges, and two places to write
    fn run_panel(
        &self,
        layout: &Layout,
        panels: &Panels,
        acts: &Acts,
        rows: Range<usize>,
        groups: Range<usize>,
        blocks: Range<usize>,
        next: (*const u8, usize),
        panel: *mut u8,
        sums: &mut [f32],
    ) {
        let all = acts.columns() / COLUMNS / panels.tiles;
        let (row, n) = (groups.start * ROWS, groups.len());
        SCRATCH.with_borrow_mut(|(scratch, _)| {
            let bytes = self.matrix.groups_of(layout, groups.start, n, scratch);
            assert!(bytes.len() * layout.tiles == n * all * panels.tiles * layout.block() && blocks.end <= all);
            let group = blocks.len() * panels.block;
            assert!(n * group <= panels::PANEL);
            for (i, bytes) in bytes.chunks_exact(bytes.len() / n).enumerate() {
                // SAFETY: the processor has the instruction set; a group of all blocks, and room for these of each.
                unsafe { (panels.unfold)(bytes.as_ptr(), blocks.start, blocks.len(), panel.add(i * group)) };
            }
            // The last blocks' kernels write where the products belong, unless there is a bias or padding.
            let last = blocks.end == all;
            let direct = last && self.bias.is_none() && row + n * ROWS <= self.matrix.rows();
            let unread = blocks.len() * layout.block();
            let stride = panels.groups * ROWS;
            let mut block = panels::Block {
                panel,
                group,
                count: blocks.len(),
                last,
                runs: 0,
                acts: Quantized::rows(acts, rows.start).skip_tiles(blocks.start * panels.tiles),
                sums: if blocks.start > 0 { sums.as_ptr() } else { std::ptr::null() },
                sums_stride: stride,
                // SAFETY: these rows of the matrix belong to one task.
                out: if direct { unsafe { self.out.at(rows.start, row) } } else { sums.as_mut_ptr() },
                out_stride: if direct { self.out.width() } else { stride },
                accumulate: direct && self.accumulate,
                next: panels::Next::new(next.0, next.1, unread, panels, rows.len(), blocks.len()),
            };
            let mut left = rows.len();
            while let Some((width, runs)) = panels.runs(left) {
                block.runs = runs;
                // SAFETY: as above; there are as many rows of activations and sums as the kernel takes.
                unsafe { panels.run[n - 1][width](&block) };
                block = block.after(runs, panels.widths[width], blocks.len() * panels.tiles);
                left -= panels.widths[width] * runs;
            }
            if last && !direct {
                for (t, products) in sums.chunks_exact(panels.groups * ROWS).take(rows.len()).enumerate() {
                    self.store(rows.start + t, row, &products[..n * ROWS]);
                }
            }
        });
    }

    /// Packed float weights by float activations.
    fn run_packed_floats(&self, isa: Isa, acts: &Acts, rows: Range<usize>, groups: Range<usize>) {
        let columns = acts.columns();
        let tile = (FLOAT_ACTS_TILE / (4 * columns.max(1))).max(1).next_multiple_of(3 * FLOAT_MOST);
        PANEL.with_borrow_mut(|lines| {
            let decoded: *mut f32 = panel(lines, FLOAT_GROUPS * Float::F32.group_bytes(columns)).cast();
            for first in rows.clone().step_by(tile) {
                let end = rows.end.min(first + tile);
                let x = &acts.values()[..end * columns];
                let many = end - first > FLOAT_MOST;
                let (most, runs) = (if many { groups_at_once(isa) } else { 1 }, (end - first).div_ceil(FLOAT_MOST));
                for group in groups.clone().step_by(most) {
                    let Some(weights) = self.matrix.float_group(group) else { continue };
                    let (mut several, n) = ([weights; FLOAT_GROUPS], most.min(groups.end - group));
                    for (place, group) in several.iter_mut().zip(group..group + n) {
                        *place = self.matrix.float_group(group).unwrap_or(weights);
                    }
                    self.run_groups(first, group, n, |nth, at, out| match many {
                        // SAFETY: floats are packed only where there are kernels; the panel has room for the groups.
                        true => unsafe {
                            multiply_again(&several[..n], (nth, runs), decoded, isa, columns, &x[at * columns..], out)
                        },
                        false => weights.multiply(isa, columns, &x[at * columns..], out),
                    });
                }
            }
        });
    }

    /// Packed F16 or BF16 by activations in 16 bits.
    fn run_short(&self, isa: Isa, acts: &Acts, short: &ShortRows, rows: Range<usize>, groups: Range<usize>) {
        let columns = acts.columns();
        let tile = (FLOAT_ACTS_TILE / (2 * short.stride).max(1)).max(1).next_multiple_of(short_floats::WIDTHS[0]);
        PANEL.with_borrow_mut(|lines| {
            let room = panel(lines, short_floats::GROUPS * short_bytes(columns));
            for first in rows.clone().step_by(tile) {
                let end = rows.end.min(first + tile);
                let runs = (end - first).div_ceil(short_floats::WIDTHS[0]);
                for group in groups.clone().step_by(short_floats::GROUPS) {
                    let several = (group..groups.end).map_while(|group| self.matrix.float_group(group));
                    // SAFETY: activations are in 16 bits only where the processor multiplies them; the panel has room for the groups.
                    let Some(several) = (unsafe { ShortGroups::new(short.float, several, columns, room) }) else {
                        continue;
                    };
                    self.run_groups(first, group, several.count(), |nth, at, out| {
                        let x = &acts.values()[at * columns..end * columns];
                        several.multiply(short, (at, end), (nth, runs), x, isa, out)
                    });
                }
            }
        });
    }

    /// Products of `n` groups from `group` on with rows of activations from `at` on: of as many at a time as `multiply(nth, at, products)`
    /// makes and says, until there are no more.
    fn run_groups(
        &self,
        mut at: usize,
        group: usize,
        n: usize,
        multiply: impl Fn(usize, usize, &mut Products) -> Option<usize>,
    ) {
        let mut products: Products = [0.0; _];
        for nth in 0.. {
            let Some(width) = multiply(nth, at, &mut products) else { break };
            for (i, products) in products.chunks_exact(ROWS).take(n * width).enumerate() {
                self.store(at + i % width, (group + i / width) * ROWS, products);
            }
            at += width;
        }
    }

    /// Plain float weights, formats without a kernel, and exact products: row by row, decoded where need be.
    fn run_float(&self, isa: Isa, acts: &Acts, rows: Range<usize>, groups: Range<usize>) {
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
                let mut at = rows.start;
                while at < rows.end {
                    let x = &acts.values()[at * columns..];
                    if rows.end - at >= FLOAT_WIDTHS[0] {
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
        let products = &products[..n];
        // (Each a loop of its own: one that asks at every element is not made of vectors.)
        match (self.bias, self.accumulate) {
            (None, false) => out.copy_from_slice(products),
            (None, true) => out.iter_mut().zip(products).for_each(|(out, product)| *out += product),
            (Some(bias), accumulate) => {
                for ((out, product), bias) in out.iter_mut().zip(products).zip(&bias[row..row + n]) {
                    let y = product + bias;
                    *out = if accumulate { *out + y } else { y };
                }
            }
        }
    }
}

mod gated;
mod grid;
pub(super) use gated::{GateScratch, matmul_gated};

#[cfg(test)]
pub(super) mod noise;
#[cfg(test)]
mod tests;
