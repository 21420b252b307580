//! The CPU backend: the verbs over kernels that are chosen at run time.

pub mod acts;
pub mod attention;
mod cache;
pub mod features;
mod kernels;
pub mod matmul;
pub mod matrix;
pub mod memory;
mod ops;
mod pack;
pub mod pool;
mod rows;
mod simd;
mod tiles;
pub mod vector;

use std::sync::Arc;

use features::Isa;
use memory::Slabs;
use pool::Pool;

/// Weights in memory, verbs on the threads of a [`Pool`].
pub struct CpuBackend {
    pool: Arc<Pool>,
    isa: Isa,
    /// Rearrange weights at load; else they are used as the file has them.
    packed: bool,
    /// Where the weights lie.
    slabs: Slabs,
}

impl CpuBackend {
    /// A backend on `pool` with kernels up to `isa`.
    pub fn new(pool: Arc<Pool>, isa: Isa, packed: bool) -> CpuBackend {
        CpuBackend { pool, isa, packed, slabs: Slabs::default() }
    }
}
