//! The CPU backend: the verbs over kernels that are chosen at run time.

pub mod acts;
mod amx;
pub mod attention;
mod avx2;
mod bf12;
mod cache;
pub mod features;
mod float_groups;
mod floats;
mod kernels;
pub mod matmul;
pub mod matrix;
pub mod memory;
mod ops;
mod pack;
pub mod packfile;
mod panels;
pub mod pool;
mod populate;
mod quantize;
mod rows;
mod short_floats;
mod simd;
mod tiles;
pub mod vector;

use std::sync::Arc;

use features::Isa;
use packfile::{PackFile, Store};
use pool::Pool;

/// Weights in memory, verbs on the threads of a [`Pool`].
pub struct CpuBackend {
    pool: Arc<Pool>,
    isa: Isa,
    /// Rearrange weights at load; else they are used as the file has them.
    packed: bool,
    /// Where the weights lie.
    store: Store,
}

impl CpuBackend {
    /// A backend on `pool` with kernels up to `isa`.
    pub fn new(pool: Arc<Pool>, isa: Isa, packed: bool) -> CpuBackend {
        CpuBackend { pool, isa, packed, store: Store::default() }
    }

    /// The same, which takes packed weights from a file where it has them and keeps in it what it packs.
    pub fn with_pack_file(self, file: Arc<PackFile>) -> CpuBackend {
        CpuBackend { store: Store { file: Some(file), ..self.store }, ..self }
    }
}
