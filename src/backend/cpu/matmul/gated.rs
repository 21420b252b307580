//! The gated half of a feed-forward block: two products whose results become one at once, while a cache holds them.

use std::ops::Range;

use parking_lot::Mutex;

use super::super::acts::Acts;
use super::super::amx::Gated;
use super::super::features::Isa;
use super::super::matrix::Matrix;
use super::super::memory::AlignedBuf;
use super::super::pack::ROWS;
use super::super::pool::Pool;
use super::super::rows::Rows;
use super::grid::{self, Grid};
use super::{Part, forms, unit};
use crate::error::Result;

/// Columns of both products that are computed before they become one: some pairs of groups.
const COLUMNS: usize = 64;
/// The same where tiles multiply, which take the more groups the better.
const TILED_COLUMNS: usize = 256;

/// `out = act(gate, up)`, element by element.
pub type Activate = fn(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]);

/// A matrix and its bias.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// One for each row of the matrix.
    pub bias: Option<&'a [f32]>,
}

/// Room for some columns of both products, one for each thread.
pub struct GateScratch(Vec<Mutex<AlignedBuf>>);

impl GateScratch {
    /// Room for steps of up to `rows` rows on the threads of `pool`.
    pub fn new(rows: usize, isa: Isa, pool: &Pool) -> Result<GateScratch> {
        let columns = if isa == Isa::Amx { TILED_COLUMNS } else { COLUMNS };
        let (_, height) = Grid::rows(rows, pool.threads());
        let bytes = 2 * size_of::<f32>() * height.saturating_mul(columns);
        let room = || AlignedBuf::zeroed(bytes).map(Mutex::new);
        Ok(GateScratch((0..pool.threads()).map(|_| room()).collect::<Result<_>>()?))
    }
}

/// Replaces the activations by `act(gate, up)` of both matrices' products with them. `values` is where the new ones go, unless
/// they go to tiles; it then holds the old ones: it must have as much room.
#[allow(clippy::too_many_arguments)]
pub fn matmul_gated(
    pool: &Pool,
    isa: Isa,
    acts: &mut Acts,
    [gate, up]: [Weights; 2],
    act: Activate,
    values: &mut AlignedBuf,
    scratch: &GateScratch,
    exact: bool,
) {
    let (n, width) = (acts.rows(), gate.matrix.rows());
    assert!(up.matrix.rows() == width);
    for weights in [&gate, &up] {
        assert!(weights.matrix.columns() == acts.columns());
        assert!(weights.bias.is_none_or(|bias| bias.len() == width));
    }
    let on_tiles = Gated {
        gate: gate.matrix,
        gate_bias: gate.bias,
        up: up.matrix,
        up_bias: up.bias,
        activate: &|gate, up, out| act(isa, gate, up, out),
    };
    if !exact && grid::gated(pool, isa, acts, &on_tiles) {
        return;
    }
    let all_tiled = forms(pool, isa, acts, &[gate.matrix, up.matrix], exact);
    {
        let acts = &*acts;
        let out = Rows::new(&mut bytemuck::cast_slice_mut(values.as_mut_slice())[..n * width], width);
        let grid = Grid::new(n, gate.matrix.groups(), unit(acts, all_tiled), pool.threads());
        grid.run(pool, &|rows, groups| {
            let mut room = scratch.0.iter().find_map(Mutex::try_lock).unwrap_or_else(|| scratch.0[0].lock());
            let room: &mut [f32] = bytemuck::cast_slice_mut(room.as_mut_slice());
            let (gates, ups) = room.split_at_mut(room.len() / 2);
            // As many groups as there is room for.
            let some = gates.len() / (rows.len() * ROWS);
            assert!(some > 0, "there is room for parts of fewer rows than {}", rows.len());
            for first in groups.clone().step_by(some) {
                let range = first..groups.end.min(first + some);
                let columns = range.start * ROWS..width.min(range.end * ROWS);
                let len = rows.len() * columns.len();
                let (gates, ups) = (&mut gates[..len], &mut ups[..len]);
                product(isa, acts, gate, (&rows, &range), &columns, gates, exact);
                product(isa, acts, up, (&rows, &range), &columns, ups, exact);
                let products = gates.chunks_exact(columns.len()).zip(ups.chunks_exact(columns.len()));
                for (t, (gate, up)) in rows.clone().zip(products) {
                    // SAFETY: these rows' columns belong to one task.
                    act(isa, gate, up, unsafe { out.part(t, columns.start, columns.len()) });
                }
            }
        });
    }
    acts.swap_values(values, n, width);
}

/// Multiplies some rows of activations by some groups, which are `columns`.
fn product(
    isa: Isa,
    acts: &Acts,
    weights: Weights,
    (rows, groups): (&Range<usize>, &Range<usize>),
    columns: &Range<usize>,
    out: &mut [f32],
    exact: bool,
) {
    let out = Rows::window(out, rows.start, columns.clone());
    let part = Part { matrix: weights.matrix, out, bias: weights.bias, accumulate: false, first: 0 };
    part.run(isa, acts, rows.clone(), groups.clone(), exact);
}
