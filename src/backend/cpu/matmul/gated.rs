//! The gated half of a feed-forward block: two products whose results become one at once, while a cache holds them.

use parking_lot::Mutex;

use super::super::acts::Acts;
use super::super::amx::Gated;
use super::super::features::Isa;
use super::super::memory::AlignedBuf;
use super::super::pack::ROWS;
use super::super::pool::{Pool, free};
use super::super::rows::Rows;
use super::grid::{self, Grid};
use super::{Part, forms, unit};
use crate::error::Result;

/// Columns of both products that are computed before they become one: some pairs of groups.
const COLUMNS: usize = 64;
/// The same where tiles multiply, which take the more groups the better.
const TILED_COLUMNS: usize = 256;

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

/// Replaces the activations by the gated product with them. `values` is where the new ones go, unless they go to tiles; it
/// then holds the old ones: it must have as much room.
pub fn matmul_gated(
    pool: &Pool,
    isa: Isa,
    acts: &mut Acts,
    gated: &Gated,
    values: &mut AlignedBuf,
    scratch: &GateScratch,
    exact: bool,
) {
    let Gated { gate, gate_bias, up, up_bias, activate } = *gated;
    let (n, width) = (acts.rows(), gate.rows());
    assert!(up.rows() == width && gate.columns() == acts.columns() && up.columns() == acts.columns());
    assert!([gate_bias, up_bias].iter().flatten().all(|bias| bias.len() == width));
    if !exact && grid::gated(pool, isa, acts, gated) {
        return;
    }
    let all_tiled = forms(pool, isa, acts, &[gate, up], exact);
    {
        let acts = &*acts;
        let out = Rows::new(&mut bytemuck::cast_slice_mut(values.as_mut_slice())[..n * width], width);
        let grid = Grid::new(n, gate.groups(), unit(acts, all_tiled), pool.threads());
        grid.run(pool, &|rows, groups| {
            let mut room = free(&scratch.0);
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
                let products =
                    [(gate, gate_bias, &mut *gates, (up, range.start)), (up, up_bias, &mut *ups, (gate, range.end))];
                for (matrix, bias, out, then) in products {
                    let out = Rows::window(out, rows.start, columns.clone());
                    let part = Part { matrix, out, bias, accumulate: false, first: 0, then: Some(then) };
                    part.run(isa, acts, rows.clone(), range.clone(), exact);
                }
                let products = gates.chunks_exact(columns.len()).zip(ups.chunks_exact(columns.len()));
                for (t, (gate, up)) in rows.clone().zip(products) {
                    // SAFETY: these rows' columns belong to one task.
                    activate(gate, up, unsafe { out.part(t, columns.start, columns.len()) });
                }
            }
        });
    }
    acts.swap_values(values, n, width);
}
