//! How kernels are launched: blocks, threads and shared memory by device, format and shape.

use super::args::{AttendArgs, EPILOGUE_SILU, MatmulArgs, RopeAppendArgs};
use super::device::DeviceInfo;
use super::driver::Vendor;
use super::module::{Kernel, Launch};
use super::work::ACT_BLOCK;
use crate::backend::WorkShape;

/// Threads of a block of the matrix-vector kernels; build.rs compiles them for it.
pub const BLOCK_SIZE: u32 = parse(env!("RF_BLOCK_SIZE"));

/// Lanes of a wave that RDNA's code was compiled for; its matrix units are used with 32.
const RDNA_WAVE: u32 = parse(env!("RF_WARP_SIZE"));
/// Whether decoding keeps a row's activations in shared memory.
const USE_LDS: bool = parse(env!("RF_USE_LDS")) != 0;
/// Shared memory that a launch may take; 0: what the device has.
const LDS_SIZE: u32 = parse(env!("RF_LDS_SIZE"));
/// Bytes that kernels have of their own besides what a launch gives them.
const STATIC_SHARED: u32 = 2048;

/// Weight rows of a block of the matrix-matrix kernels (`RF_TILE_M`).
const TILE_M: u32 = 128;
/// Rows of activations of such a block; build.rs compiles them for it.
const TILE_N: u32 = parse(env!("RF_TILE_N"));

/// Rows of activations of a block of the kernels that decode weights to half precision (`RF_HALF_TILE_N`).
const HALF_TILE_N: u32 = 128;
/// Rows of activations above which those kernels are the quicker ones: half of their tile.
pub const HALF_ROWS: usize = 64;

/// Threads of a block of all other kernels.
pub const ROW_THREADS: u32 = 256;

const fn parse(text: &str) -> u32 {
    let (bytes, mut i, mut value) = (text.as_bytes(), 0, 0);
    while i < bytes.len() {
        value = value * 10 + (bytes[i] - b'0') as u32;
        i += 1;
    }
    value
}

/// The least of `sizes` that is not less than `wanted`; else the greatest.
fn at_least(sizes: &[usize], wanted: usize) -> usize {
    sizes.iter().copied().find(|&size| size >= wanted).unwrap_or_else(|| sizes.last().copied().unwrap_or(wanted))
}

/// Elements of a head that the attention kernels of a cache's type are made for.
fn head_class(f32_cache: bool, head_dim: usize) -> usize {
    at_least(if f32_cache { &[128, 512] } else { &[64, 128, 256, 512] }, head_dim)
}

/// Longest head that the attention kernels serve.
pub const MAX_HEAD: usize = 512;

/// The name of a kernel by the type of the cache.
pub fn by_cache(family: &str, f32_cache: bool) -> String {
    format!("{family}_{}", if f32_cache { "f32" } else { "f16" })
}

/// Query heads that a block of the kernel that divides the cache serves at most.
fn decode_group(f32_cache: bool, head_dim: usize, group: usize) -> usize {
    if f32_cache || head_class(f32_cache, head_dim) == 512 { 4 } else { at_least(&[1, 2, 3, 4, 8], group) }
}

/// Blocks of that kernel that share a key-value head's `group` of query heads.
pub fn attend_decode_parts(f32_cache: bool, head_dim: usize, group: usize) -> usize {
    group.div_ceil(decode_group(f32_cache, head_dim, group))
}

/// The kernel that divides the cache, for heads of `head_dim` elements of which `group` share keys and values.
pub fn attend_decode_kernel(f32_cache: bool, head_dim: usize, group: usize) -> String {
    let class = head_class(f32_cache, head_dim);
    let group = decode_group(f32_cache, head_dim, group);
    format!("{}_{class}_g{group}", by_cache("attend_decode", f32_cache))
}

/// The kernel for many rows of a sequence.
pub fn attend_prefill_kernel(f32_cache: bool, head_dim: usize) -> String {
    format!("{}_{}", by_cache("attend_prefill", f32_cache), head_class(f32_cache, head_dim))
}

/// Bytes of shared memory that a row of activations takes: numbers, scales and sums, or floats.
fn row_bytes(columns: usize, quantized: bool) -> usize {
    match quantized {
        true => columns.next_multiple_of(1024) / ACT_BLOCK * 40,
        false => columns.next_multiple_of(256) * 4,
    }
}

/// The families of matrix kernels, by the rows of activations that they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// One, which they normalise and quantise for themselves.
    One,
    /// Up to [`super::work::FEW_ROWS`].
    Few,
    /// More, on matrix units for integers where there are.
    Many,
    /// More than [`HALF_ROWS`], on matrix units for half precision.
    ManyHalf,
    /// Any number, not quantised.
    Exact,
}

/// What a device wants.
pub struct Tuning {
    multiprocessors: u32,
    /// Queries of a tile of the prefill kernels for half precision.
    prefill_tile: usize,
    /// Bytes of shared memory for a row's activations.
    shared: u32,
}

impl Tuning {
    /// For the device that `info` describes.
    pub fn of(info: &DeviceInfo) -> Tuning {
        let matrix_units = match info.vendor {
            Vendor::Nvidia => true,
            Vendor::Amd => ["gfx11", "gfx12", "gfx90a", "gfx94", "gfx95", "gfx908"].iter().any(|family| {
                info.architecture.starts_with(family) && (RDNA_WAVE == 32 || !family.starts_with("gfx1"))
            }),
        };
        let shared = match (USE_LDS, LDS_SIZE) {
            (false, _) => 0,
            (true, 0) => info.shared_memory.saturating_sub(STATIC_SHARED),
            (true, size) => size.min(info.shared_memory).saturating_sub(STATIC_SHARED),
        };
        let prefill_tile = match (matrix_units, info.wave_size) {
            (false, _) => 8,
            (true, 64) => 64,
            (true, _) => 128,
        };
        Tuning { multiprocessors: info.multiprocessors, prefill_tile, shared }
    }

    /// Whether kernels can keep a row of `columns` activations in shared memory.
    pub fn row_fits(&self, columns: usize, quantized: bool) -> bool {
        row_bytes(columns, quantized) <= self.shared as usize
    }

    /// A multiplication by a kernel of `family`, of a format that is `quantized` or not.
    pub fn matmul(&self, kernel: &Kernel<MatmulArgs>, family: Family, args: &MatmulArgs, quantized: bool) -> Launch {
        let parts = args.part.iter().take(args.parts as usize);
        let most = parts.clone().map(|part| part.matrix.rows).max().unwrap_or(0);
        let tiles = |tile_n: u32| [most.div_ceil(TILE_M), args.n.div_ceil(tile_n), args.parts];
        match family {
            Family::Many => return kernel.launch(tiles(TILE_N), ROW_THREADS, 0, args),
            Family::ManyHalf => return kernel.launch(tiles(HALF_TILE_N), ROW_THREADS, 0, args),
            Family::One | Family::Few | Family::Exact => {}
        }
        let gated = args.epilogue >= EPILOGUE_SILU;
        let rows = if gated { most } else { parts.map(|part| part.matrix.rows).sum() };
        // As many blocks as run at once: each goes over its rows, and quantises the activations for itself.
        let at_once = self.multiprocessors * (1024 / BLOCK_SIZE).max(1);
        let blocks = rows.div_ceil(BLOCK_SIZE / 32).min(at_once).max(1);
        let shared = if family == Family::One { row_bytes(args.columns as usize, quantized) } else { 0 };
        kernel.launch([blocks, 1, 1], BLOCK_SIZE, shared as u32, args)
    }

    /// Rotation and append for rows.
    pub fn rope_append(&self, kernel: &Kernel<RopeAppendArgs>, s: &WorkShape, args: &RopeAppendArgs) -> Launch {
        let heads = args.n * (s.n_head + 2 * s.n_head_kv) as u32;
        kernel.launch([heads.div_ceil(ROW_THREADS / 32), 1, 1], ROW_THREADS, 0, args)
    }

    /// Attention that divides the cache.
    pub fn attend_decode(&self, kernel: &Kernel<AttendArgs>, grid: [u32; 3], args: &AttendArgs) -> Launch {
        kernel.launch(grid, ROW_THREADS, 0, args)
    }

    /// Attention of many rows of one sequence.
    pub fn attend_prefill(&self, kernel: &Kernel<AttendArgs>, s: &WorkShape, args: &AttendArgs) -> Launch {
        let tile = match (s.exact, head_class(s.exact, s.head_dim)) {
            (true, _) | (_, 512) => 4,
            // On AMD two waves of 32 lanes share the queries of one.
            (_, 256) => self.prefill_tile.min(64),
            _ => self.prefill_tile,
        };
        let queries = args.n as usize * (s.n_head / s.n_head_kv);
        let blocks = s.n_head_kv * queries.div_ceil(tile);
        kernel.launch([blocks as u32, 1, 1], ROW_THREADS, 0, args)
    }
}
