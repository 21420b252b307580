//! How kernels are launched: blocks, threads and shared memory by device, format and shape.

use super::args::{AttendArgs, MatmulArgs, RopeAppendArgs};
use super::device::DeviceInfo;
use super::module::{Kernel, Launch};
use super::work::{ACT_BLOCK, FEW_ROWS};
use crate::backend::WorkShape;

/// Threads of a block of the matrix-vector kernels; build.rs compiles them for it.
pub const BLOCK_SIZE: u32 = match option_env!("RF_BLOCK_SIZE") {
    Some(text) => parse(text),
    None => 256,
};

const fn parse(text: &str) -> u32 {
    let (bytes, mut i, mut value) = (text.as_bytes(), 0, 0);
    while i < bytes.len() {
        value = value * 10 + (bytes[i] - b'0') as u32;
        i += 1;
    }
    value
}

/// The kernel of a family of attention kernels for heads of `head_dim` elements.
pub fn attention_kernel(family: &str, cache: &str, head_dim: usize) -> String {
    match head_dim {
        64 | 128 | 256 => format!("{family}_{cache}_{head_dim}"),
        _ => format!("{family}_{cache}"),
    }
}

/// What a device wants.
pub struct Tuning {
    multiprocessors: u32,
}

impl Tuning {
    /// For the device that `info` describes.
    pub fn of(info: &DeviceInfo) -> Tuning {
        Tuning { multiprocessors: info.multiprocessors }
    }

    /// A multiplication with `rows` outputs in all.
    pub fn matmul(
        &self,
        kernel: &Kernel<MatmulArgs>,
        args: &MatmulArgs,
        rows: u32,
        exact: bool,
        quantized: bool,
    ) -> Launch {
        let groups = BLOCK_SIZE / 32;
        if args.n as usize > FEW_ROWS && !exact {
            return kernel.launch([rows.div_ceil(64), args.n.div_ceil(64), args.parts], 256, 0, args);
        }
        let blocks = rows.div_ceil(groups).min(self.multiprocessors * 8);
        let columns = args.columns as usize;
        let shared = match (args.n, exact, quantized) {
            (1, false, true) => columns + columns / ACT_BLOCK * 8,
            (1, false, false) => columns * 4,
            _ => 0,
        };
        kernel.launch([blocks, 1, 1], BLOCK_SIZE, shared as u32, args)
    }

    /// Rotation and append for rows.
    pub fn rope_append(&self, kernel: &Kernel<RopeAppendArgs>, s: &WorkShape, args: &RopeAppendArgs) -> Launch {
        kernel.launch([args.n, (s.n_head + 2 * s.n_head_kv) as u32, 1], 128, 0, args)
    }

    /// Attention that divides the cache.
    pub fn attend_decode(
        &self,
        kernel: &Kernel<AttendArgs>,
        grid: [u32; 3],
        _: &WorkShape,
        args: &AttendArgs,
    ) -> Launch {
        kernel.launch(grid, 128, 0, args)
    }

    /// Attention of many rows.
    pub fn attend_prefill(&self, kernel: &Kernel<AttendArgs>, s: &WorkShape, args: &AttendArgs) -> Launch {
        kernel.launch([args.n.div_ceil(16), s.n_head as u32, 1], 128, 0, args)
    }
}
