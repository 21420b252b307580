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
use super::{Part, forms, tile_of, tiled};
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
        let bytes = 2 * size_of::<f32>() * rows.saturating_mul(columns);
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
    if !exact && tiled::gated(pool, isa, acts, &on_tiles) {
        return;
    }
    forms(pool, isa, acts, &[gate.matrix, up.matrix], exact);
    let groups = gate.matrix.groups();
    let tile = tile_of(pool, acts, groups);
    {
        let acts = &*acts;
        let out = Rows::new(&mut bytemuck::cast_slice_mut(values.as_mut_slice())[..n * width], width);
        pool.run_in_order(groups.div_ceil(tile), &|task| {
            let mut room = scratch.0.iter().find_map(Mutex::try_lock).unwrap_or_else(|| scratch.0[0].lock());
            let room: &mut [f32] = bytemuck::cast_slice_mut(room.as_mut_slice());
            let (gates, ups) = room.split_at_mut(room.len() / 2);
            // As many groups as there is room for.
            let some = (gates.len() / (n * ROWS).max(1)).max(1);
            for first in (task * tile..groups.min((task + 1) * tile)).step_by(some) {
                let range = first..groups.min((task + 1) * tile).min(first + some);
                let columns = range.start * ROWS..width.min(range.end * ROWS);
                let (gates, ups) = (&mut gates[..n * columns.len()], &mut ups[..n * columns.len()]);
                product(isa, acts, gate, range.clone(), &columns, gates, exact);
                product(isa, acts, up, range, &columns, ups, exact);
                let rows = gates.chunks_exact(columns.len()).zip(ups.chunks_exact(columns.len()));
                for (t, (gate, up)) in rows.enumerate() {
                    // SAFETY: these columns belong to one task.
                    act(isa, gate, up, unsafe { out.part(t, columns.start, columns.len()) });
                }
            }
        });
    }
    acts.swap_values(values, n, width);
}

/// Multiplies some groups, all in `columns`.
fn product(
    isa: Isa,
    acts: &Acts,
    weights: Weights,
    groups: Range<usize>,
    columns: &Range<usize>,
    out: &mut [f32],
    exact: bool,
) {
    let out = Rows::window(out, columns.clone());
    Part { matrix: weights.matrix, out, bias: weights.bias, accumulate: false, first: 0 }.run(
        isa,
        acts,
        0..acts.rows(),
        groups,
        exact,
    );
}
