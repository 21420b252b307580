//! The tile unit: products of tiles of bf16, summed in float32.
//!
//! Rust has no stable intrinsics for AMX, so the instructions are written as assembly, which needs no target feature.
//! In tests `Emulated` computes the same in plain Rust, where there is no unit and as its oracle.
//! (Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.)

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;

/// Rows of a tile: rows of activations, or pairs of columns of weights.
pub const TILE_ROWS: usize = 16;
/// Bytes of a tile's row: 32 columns of activations, or a pair of columns of 16 rows of weights, or 16 float32.
pub const TILE_WIDTH: usize = 64;
/// Bytes of a tile.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_WIDTH;

/// Products of one or two tiles of activations with two tiles of weights, over tiles of columns.
#[derive(Clone, Copy)]
pub struct Block {
    /// Tiles of 16 rows × 32 columns of activations, one after the other.
    pub x: *const u8,
    /// Bytes from there to those of the next 16 rows.
    pub x_next: usize,
    /// Tiles of 16 pairs of columns × 16 rows of weights, one after the other.
    pub w: *const u8,
    /// Bytes from there to those of the next 16 rows.
    pub w_next: usize,
    /// Tiles of activations: one, or two.
    pub rows: Rows,
    /// Where the sums go: a row of activations each, 32 rows of weights.
    pub sums: *mut f32,
    /// Bytes from one of its rows to the next.
    pub sums_stride: usize,
    /// Add to what is there.
    pub add: bool,
}

/// What multiplies tiles.
pub trait Unit {
    /// Clears the sums, or loads those that are added to.
    ///
    /// # Safety
    /// All tiles and sums of the block must be there, and nobody else may use the sums, until [`Unit::end`]. In between nobody
    /// else may use this thread's tiles, which must be [`Configured`] for AMX.
    unsafe fn begin(block: &Block);

    /// Adds the products of tiles `steps` of the columns.
    ///
    /// # Safety
    /// As [`Unit::begin`].
    unsafe fn add(block: &Block, steps: Range<usize>);

    /// Stores the sums.
    ///
    /// # Safety
    /// As [`Unit::begin`].
    unsafe fn end(block: &Block);
}

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

/// The unit of the processor.
///
/// Of eight tiles four are sums, two activations, two weights: each tile that is loaded serves two products. A product
/// takes 16 cycles, a load 8, so that the unit never waits for loads from the first-level cache.
pub struct Amx;

impl Unit for Amx {
    #[inline(always)]
    unsafe fn begin(block: &Block) {
        // SAFETY: as demanded. Tiles 0 to 3 hold the sums from here to `end`; nothing that the compiler makes uses tiles.
        unsafe {
            if !block.add {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    options(nostack, preserves_flags, nomem)
                );
                return;
            }
            asm!(
                "tileloadd tmm0, [{c} + {stride}]", "tileloadd tmm1, [{c} + {stride} + 64]",
                c = in(reg) block.sums, stride = in(reg) block.sums_stride, options(nostack, preserves_flags, readonly)
            );
            if block.rows == Rows::Two {
                let lower = block.sums.byte_add(TILE_ROWS * block.sums_stride);
                asm!(
                    "tileloadd tmm2, [{c} + {stride}]", "tileloadd tmm3, [{c} + {stride} + 64]",
                    c = in(reg) lower, stride = in(reg) block.sums_stride, options(nostack, preserves_flags, readonly)
                );
            }
        }
    }

    #[inline(always)]
    unsafe fn add(block: &Block, steps: Range<usize>) {
        if steps.is_empty() {
            return;
        }
        // SAFETY: as demanded.
        unsafe {
            let (x, w) = (block.x.add(steps.start * TILE_BYTES), block.w.add(steps.start * TILE_BYTES));
            match block.rows {
                Rows::Two => asm!(
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
                    x0 = inout(reg) x => _, x1 = inout(reg) x.add(block.x_next) => _,
                    w0 = inout(reg) w => _, w1 = inout(reg) w.add(block.w_next) => _,
                    steps = inout(reg) steps.len() => _, width = in(reg) TILE_WIDTH, tile = const TILE_BYTES,
                    options(nostack, readonly)
                ),
                Rows::One => asm!(
                    "2:",
                    "tileloadd tmm4, [{x} + {width}]",
                    "tileloadd tmm6, [{w0} + {width}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w1} + {width}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "add {x}, {tile}", "add {w0}, {tile}", "add {w1}, {tile}",
                    "dec {steps}",
                    "jnz 2b",
                    x = inout(reg) x => _,
                    w0 = inout(reg) w => _, w1 = inout(reg) w.add(block.w_next) => _,
                    steps = inout(reg) steps.len() => _, width = in(reg) TILE_WIDTH, tile = const TILE_BYTES,
                    options(nostack, readonly)
                ),
            }
        }
    }

    #[inline(always)]
    unsafe fn end(block: &Block) {
        // SAFETY: as demanded.
        unsafe {
            asm!(
                "tilestored [{c} + {stride}], tmm0", "tilestored [{c} + {stride} + 64], tmm1",
                c = in(reg) block.sums, stride = in(reg) block.sums_stride, options(nostack, preserves_flags)
            );
            if block.rows == Rows::Two {
                let lower = block.sums.byte_add(TILE_ROWS * block.sums_stride);
                asm!(
                    "tilestored [{c} + {stride}], tmm2", "tilestored [{c} + {stride} + 64], tmm3",
                    c = in(reg) lower, stride = in(reg) block.sums_stride, options(nostack, preserves_flags)
                );
            }
        }
    }
}

/// The same on vectors with AVX-512 BF16, for attention on processors without AMX.
pub struct Vectors;

impl Unit for Vectors {
    #[inline(always)]
    unsafe fn begin(block: &Block) {
        let height = if block.rows == Rows::Two { 2 * TILE_ROWS } else { TILE_ROWS };
        for row in (0..height).filter(|_| !block.add) {
            // SAFETY: as demanded.
            unsafe { block.sums.byte_add(row * block.sums_stride).write_bytes(0, 2 * TILE_ROWS) };
        }
    }

    #[inline(always)]
    unsafe fn add(block: &Block, steps: Range<usize>) {
        let height = if block.rows == Rows::Two { 2 * TILE_ROWS } else { TILE_ROWS };
        for row in (0..height).step_by(VECTOR_ROWS) {
            // SAFETY: as demanded.
            unsafe { add_rows(block, row, steps.clone()) };
        }
    }

    #[inline(always)]
    unsafe fn end(_: &Block) {}
}

/// Rows of activations whose sums are in registers at once: two vectors of sums for each, which hide the latency of a product.
const VECTOR_ROWS: usize = 8;

/// Adds the products of [`VECTOR_ROWS`] rows of activations: a pair of them, in all lanes, serves both groups.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_rows(block: &Block, row: usize, steps: Range<usize>) {
    // SAFETY: as `Unit::add` demands.
    unsafe {
        let sums = |i: usize| block.sums.byte_add((row + i) * block.sums_stride);
        let mut totals = [[_mm512_setzero_ps(); 2]; VECTOR_ROWS];
        for (i, totals) in totals.iter_mut().enumerate() {
            *totals = [_mm512_loadu_ps(sums(i)), _mm512_loadu_ps(sums(i).add(TILE_ROWS))];
        }
        let x = block.x.add(row / TILE_ROWS * block.x_next + row % TILE_ROWS * TILE_WIDTH);
        for step in steps {
            let (x, w) = (x.add(step * TILE_BYTES), block.w.add(step * TILE_BYTES));
            for pair in 0..TILE_ROWS {
                let w = w.add(pair * TILE_WIDTH);
                let w = [load_pairs(w), load_pairs(w.add(block.w_next))];
                for (i, totals) in totals.iter_mut().enumerate() {
                    let x = x.add(i * TILE_WIDTH).cast::<i32>().add(pair).read_unaligned();
                    let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x));
                    *totals = [_mm512_dpbf16_ps(totals[0], w[0], x), _mm512_dpbf16_ps(totals[1], w[1], x)];
                }
            }
        }
        for (i, totals) in totals.into_iter().enumerate() {
            _mm512_storeu_ps(sums(i), totals[0]);
            _mm512_storeu_ps(sums(i).add(TILE_ROWS), totals[1]);
        }
    }
}

/// 16 pairs of bf16.
#[inline(always)]
unsafe fn load_pairs(w: *const u8) -> __m512bh {
    // SAFETY: as the caller's; a vector is as well one of bf16 as one of integers.
    unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_si512(w.cast())) }
}

/// The same without the unit.
#[cfg(test)]
pub struct Emulated;

#[cfg(test)]
impl Emulated {
    /// Calls `f` with each sum, and the places of its row of activations and of its row of weights.
    unsafe fn each_sum(block: &Block, mut f: impl FnMut(&mut f32, *const u8, *const u8)) {
        let height = if block.rows == Rows::Two { 2 * TILE_ROWS } else { TILE_ROWS };
        for (row, column) in (0..height).flat_map(|row| (0..2 * TILE_ROWS).map(move |column| (row, column))) {
            // SAFETY: as `Unit::begin` demands.
            unsafe {
                let x = block.x.add(row / TILE_ROWS * block.x_next + row % TILE_ROWS * TILE_WIDTH);
                let w = block.w.add(column / TILE_ROWS * block.w_next + column % TILE_ROWS * 4);
                f(&mut *block.sums.byte_add(row * block.sums_stride).add(column), x, w);
            }
        }
    }
}

#[cfg(test)]
impl Unit for Emulated {
    unsafe fn begin(block: &Block) {
        if !block.add {
            // SAFETY: as demanded.
            unsafe { Emulated::each_sum(block, |sum, _, _| *sum = 0.0) };
        }
    }

    unsafe fn add(block: &Block, steps: Range<usize>) {
        let bf16 = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        // SAFETY: as demanded: elements of a row of activations, and of a column of pairs.
        unsafe {
            Emulated::each_sum(block, |sum, x, w| {
                for (step, i) in steps.clone().flat_map(|step| (0..32).map(move |i| (step, i))) {
                    let x = x.add(step * TILE_BYTES).cast::<u16>().add(i);
                    let w = w.add(step * TILE_BYTES + i / 2 * TILE_WIDTH).cast::<u16>().add(i % 2);
                    *sum += bf16(*x) * bf16(*w);
                }
            });
        }
    }

    unsafe fn end(_: &Block) {}
}
