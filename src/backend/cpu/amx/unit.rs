//! The tile unit: products of tiles of bf16, summed in float32.
//!
//! Rust has no stable intrinsics for AMX, so the instructions are written as assembly, which needs no target feature.
//! In tests `emulated` computes the same in plain Rust, where there is no unit and as its oracle.
//! (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.)

use std::arch::asm;

/// Rows of a tile: rows of activations, or pairs of columns of weights.
pub const TILE_ROWS: usize = 16;
/// Bytes of a tile's row: 32 columns of activations, or a pair of columns of 16 rows of weights, or 16 float32.
pub const TILE_WIDTH: usize = 64;
/// Bytes of a tile.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_WIDTH;

/// Sums of one or two tiles of activations with two tiles of weights, over `steps` tiles of columns.
#[derive(Clone, Copy)]
pub struct Block {
    /// `[steps]` tiles of 16 rows × 32 columns of activations.
    pub x: *const u8,
    /// Bytes from there to those of the next 16 rows.
    pub x_next: usize,
    /// `[steps]` tiles of 16 pairs of columns × 16 rows of weights.
    pub w: *const u8,
    /// Bytes from there to those of the next 16 rows.
    pub w_next: usize,
    /// Tiles of 32 columns.
    pub steps: usize,
    /// Where the sums go: a row of activations each, 32 rows of weights.
    pub sums: *mut f32,
    /// Bytes from one of its rows to the next.
    pub sums_stride: usize,
    /// Add to what is there.
    pub add: bool,
}

/// Computes a [`Block`] with one tile of rows of activations, or with two.
///
/// # Safety
/// All tiles must be there, and nobody else may use the sums. The unit must be [`Configured`] if it is AMX.
pub type Multiply = unsafe fn(block: &Block, rows: Rows);

/// How many tiles of activations a block has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// 16 rows.
    One,
    /// 32 rows.
    Two,
}

/// The configuration of all tiles: 16 rows of 64 bytes.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static FULL_TILES: Configuration = Configuration {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// While it lives, this thread's tiles are ours. Its end frees them, so that the system does not save them with the thread
/// and the core may sleep deeply.
pub struct Configured(());

impl Configured {
    /// Configures the tiles.
    ///
    /// # Safety
    /// The processor must have AMX, and the system must permit it: [`Isa::Amx`](super::super::features::Isa::Amx).
    pub unsafe fn new() -> Configured {
        // SAFETY: as the caller's; the configuration is 64 bytes.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const FULL_TILES, options(nostack, preserves_flags, readonly)) };
        Configured(())
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: `new` demanded AMX.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) };
    }
}

/// [`Multiply`] by AMX.
///
/// Of eight tiles four are sums, two activations, two weights: each tile that is loaded serves two products. A product
/// takes 16 cycles, a load 8, so that the unit never waits for loads from the first-level cache.
pub unsafe fn amx(block: &Block, rows: Rows) {
    // SAFETY: as `Multiply` demands. Tiles 0 to 3 hold the sums from the first statement to the last; nothing that the
    // compiler may put between them uses tiles.
    unsafe {
        match rows {
            Rows::One => amx_one(block),
            Rows::Two => amx_two(block),
        }
    }
}

unsafe fn amx_two(block: &Block) {
    // SAFETY: as `Multiply` demands.
    unsafe {
        let lower = block.sums.byte_add(TILE_ROWS * block.sums_stride);
        if block.add {
            asm!(
                "tileloadd tmm0, [{c0} + {stride}]", "tileloadd tmm1, [{c0} + {stride} + 64]",
                "tileloadd tmm2, [{c1} + {stride}]", "tileloadd tmm3, [{c1} + {stride} + 64]",
                c0 = in(reg) block.sums, c1 = in(reg) lower, stride = in(reg) block.sums_stride,
                options(nostack, preserves_flags, readonly)
            );
        } else {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                options(nostack, preserves_flags, nomem)
            );
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{x0} + {width}]",
            "tileloadd tmm6, [{w0} + {width}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {width}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x1} + {width}]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x0}, {tile}", "add {x1}, {tile}", "add {w0}, {tile}", "add {w1}, {tile}",
            "dec {steps}",
            "jnz 2b",
            x0 = inout(reg) block.x => _, x1 = inout(reg) block.x.add(block.x_next) => _,
            w0 = inout(reg) block.w => _, w1 = inout(reg) block.w.add(block.w_next) => _,
            steps = inout(reg) block.steps => _, width = in(reg) TILE_WIDTH, tile = const TILE_BYTES,
            options(nostack, readonly)
        );
        asm!(
            "tilestored [{c0} + {stride}], tmm0", "tilestored [{c0} + {stride} + 64], tmm1",
            "tilestored [{c1} + {stride}], tmm2", "tilestored [{c1} + {stride} + 64], tmm3",
            c0 = in(reg) block.sums, c1 = in(reg) lower, stride = in(reg) block.sums_stride,
            options(nostack, preserves_flags)
        );
    }
}

unsafe fn amx_one(block: &Block) {
    // SAFETY: as `Multiply` demands.
    unsafe {
        if block.add {
            asm!(
                "tileloadd tmm0, [{c} + {stride}]", "tileloadd tmm1, [{c} + {stride} + 64]",
                c = in(reg) block.sums, stride = in(reg) block.sums_stride, options(nostack, preserves_flags, readonly)
            );
        } else {
            asm!("tilezero tmm0", "tilezero tmm1", options(nostack, preserves_flags, nomem));
        }
        asm!(
            "2:",
            "tileloadd tmm4, [{x} + {width}]",
            "tileloadd tmm6, [{w0} + {width}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w1} + {width}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "add {x}, {tile}", "add {w0}, {tile}", "add {w1}, {tile}",
            "dec {steps}",
            "jnz 2b",
            x = inout(reg) block.x => _,
            w0 = inout(reg) block.w => _, w1 = inout(reg) block.w.add(block.w_next) => _,
            steps = inout(reg) block.steps => _, width = in(reg) TILE_WIDTH, tile = const TILE_BYTES,
            options(nostack, readonly)
        );
        asm!(
            "tilestored [{c} + {stride}], tmm0", "tilestored [{c} + {stride} + 64], tmm1",
            c = in(reg) block.sums, stride = in(reg) block.sums_stride, options(nostack, preserves_flags)
        );
    }
}

/// [`Multiply`] without the unit.
#[cfg(test)]
pub unsafe fn emulated(block: &Block, rows: Rows) {
    let bf16 = |bits: u16| f32::from_bits(u32::from(bits) << 16);
    let tiles = if rows == Rows::Two { 2 } else { 1 };
    for (row, column) in (0..tiles * TILE_ROWS).flat_map(|row| (0..2 * TILE_ROWS).map(move |column| (row, column))) {
        // SAFETY: as `Multiply` demands: element `i` of a row of activations and of a column of pairs.
        unsafe {
            let x = block.x.add(row / TILE_ROWS * block.x_next + row % TILE_ROWS * TILE_WIDTH).cast::<u16>();
            let w = block.w.add(column / TILE_ROWS * block.w_next + column % TILE_ROWS * 4).cast::<u16>();
            let sum = block.sums.byte_add(row * block.sums_stride).add(column);
            let mut total = if block.add { *sum } else { 0.0 };
            for i in 0..block.steps * 32 {
                let (step, i) = (i / 32 * TILE_BYTES / 2, i % 32);
                total += bf16(*x.add(step + i)) * bf16(*w.add(step + i / 2 * TILE_WIDTH / 2 + i % 2));
            }
            *sum = total;
        }
    }
}
