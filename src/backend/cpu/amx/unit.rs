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

/// Products of one or two tiles of activations with two or three tiles of weights, over tiles of columns.
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
    /// Tiles of weights: two, or three.
    pub groups: Groups,
    /// Where the sums go: a row of activations each, 32 or 48 rows of weights.
    pub sums: *mut f32,
    /// Bytes from one of its rows to the next.
    pub sums_stride: usize,
    /// Add to what is there.
    pub add: bool,
}

impl Block {
    /// Products of a tile of columns.
    #[inline(always)]
    pub fn products(&self) -> usize {
        self.rows as usize * self.groups as usize
    }
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

    /// Adds one of the [`Block::products`] of a tile of columns: tile `x` of the activations' and `w` of the weights'. All of
    /// them have to be asked for, in order, before those of another tile: some need what others loaded.
    ///
    /// # Safety
    /// As [`Unit::begin`].
    unsafe fn add_one(block: &Block, x: usize, w: usize, product: usize);

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
    One = 1,
    /// 32 rows.
    Two = 2,
}

/// How many tiles of weights a block has.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Groups {
    /// 32 rows.
    Two = 2,
    /// 48 rows.
    Three = 3,
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
/// A product takes 16 cycles, a load 8 from the first-level cache and 21 from the second. With two groups four tiles are
/// sums, two activations, two weights: four loads for four products. With three groups six tiles are sums; one operand is
/// kept from each product to the next, and what is loaded again is in the first-level cache: five tiles from the second for
/// six products.
pub struct Amx;

/// Loads a tile whose rows are `stride` bytes apart.
macro_rules! load {
    ($tile:literal, $from:expr, $stride:expr) => {
        asm!(
            concat!("tileloadd tmm", $tile, ", [{from} + {stride}]"),
            from = in(reg) $from, stride = in(reg) $stride, options(nostack, preserves_flags, readonly)
        )
    };
}

/// Adds the product of two tiles to a third.
macro_rules! multiply {
    ($sum:literal, $x:literal, $w:literal) => {
        asm!(concat!("tdpbf16ps tmm", $sum, ", tmm", $x, ", tmm", $w), options(nostack, preserves_flags, nomem))
    };
}

/// Stores a tile.
macro_rules! store {
    ($tile:literal, $to:expr, $stride:expr) => {
        asm!(
            concat!("tilestored [{to} + {stride}], tmm", $tile),
            to = in(reg) $to, stride = in(reg) $stride, options(nostack, preserves_flags)
        )
    };
}

/// [`Unit::add_one`] of two groups.
#[inline(always)]
unsafe fn one_of_two(block: &Block, x: usize, w: usize, product: usize) {
    // SAFETY: as demanded there.
    unsafe {
        let (x, w) = (block.x.add(x * TILE_BYTES), block.w.add(w * TILE_BYTES));
        match product {
            0 => {
                load!("4", x, TILE_WIDTH);
                load!("6", w, TILE_WIDTH);
                multiply!("0", "4", "6");
            }
            1 => {
                load!("7", w.add(block.w_next), TILE_WIDTH);
                multiply!("1", "4", "7");
            }
            2 => {
                load!("5", x.add(block.x_next), TILE_WIDTH);
                multiply!("2", "5", "6");
            }
            _ => multiply!("3", "5", "7"),
        }
    }
}

/// The same of three groups and two tiles of activations.
#[inline(always)]
unsafe fn one_of_six(block: &Block, x: usize, w: usize, product: usize) {
    // SAFETY: as demanded there.
    unsafe {
        let (x, w) = (block.x.add(x * TILE_BYTES), block.w.add(w * TILE_BYTES));
        match product {
            0 => {
                load!("6", x, TILE_WIDTH);
                load!("7", w, TILE_WIDTH);
                multiply!("0", "6", "7");
            }
            1 => {
                load!("6", x.add(block.x_next), TILE_WIDTH);
                multiply!("3", "6", "7");
            }
            2 => {
                load!("7", w.add(block.w_next), TILE_WIDTH);
                multiply!("4", "6", "7");
            }
            3 => {
                load!("6", x, TILE_WIDTH);
                multiply!("1", "6", "7");
            }
            4 => {
                load!("7", w.add(2 * block.w_next), TILE_WIDTH);
                multiply!("2", "6", "7");
            }
            _ => {
                load!("6", x.add(block.x_next), TILE_WIDTH);
                multiply!("5", "6", "7");
            }
        }
    }
}

/// The same of three groups and one tile of activations.
#[inline(always)]
unsafe fn one_of_three(block: &Block, x: usize, w: usize, product: usize) {
    // SAFETY: as demanded there.
    unsafe {
        let (x, w) = (block.x.add(x * TILE_BYTES), block.w.add(w * TILE_BYTES + product * block.w_next));
        load!("7", w, TILE_WIDTH);
        match product {
            0 => {
                load!("6", x, TILE_WIDTH);
                multiply!("0", "6", "7");
            }
            1 => multiply!("1", "6", "7"),
            _ => multiply!("2", "6", "7"),
        }
    }
}

impl Unit for Amx {
    #[inline(always)]
    unsafe fn begin(block: &Block) {
        // SAFETY: as demanded. Tiles 0 to 3, or 5, hold the sums from here to `end`; nothing that the compiler makes uses tiles.
        unsafe {
            if !block.add {
                asm!(
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "tilezero tmm4",
                    "tilezero tmm5",
                    options(nostack, preserves_flags, nomem)
                );
                return;
            }
            let (c, stride) = (block.sums.cast::<u8>(), block.sums_stride);
            let lower = c.wrapping_add(TILE_ROWS * stride);
            load!("0", c, stride);
            load!("1", c.add(TILE_WIDTH), stride);
            match (block.groups, block.rows) {
                (Groups::Two, Rows::One) => {}
                (Groups::Two, Rows::Two) => {
                    load!("2", lower, stride);
                    load!("3", lower.add(TILE_WIDTH), stride);
                }
                (Groups::Three, rows) => {
                    load!("2", c.add(2 * TILE_WIDTH), stride);
                    if rows == Rows::Two {
                        load!("3", lower, stride);
                        load!("4", lower.add(TILE_WIDTH), stride);
                        load!("5", lower.add(2 * TILE_WIDTH), stride);
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add(block: &Block, steps: Range<usize>) {
        for i in steps {
            // SAFETY: as demanded.
            unsafe {
                match (block.groups, block.rows) {
                    (Groups::Two, Rows::One) => (0..2).for_each(|n| one_of_two(block, i, i, n)),
                    (Groups::Two, Rows::Two) => (0..4).for_each(|n| one_of_two(block, i, i, n)),
                    (Groups::Three, Rows::One) => (0..3).for_each(|n| one_of_three(block, i, i, n)),
                    (Groups::Three, Rows::Two) => (0..6).for_each(|n| one_of_six(block, i, i, n)),
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn add_one(block: &Block, x: usize, w: usize, product: usize) {
        // SAFETY: as demanded.
        unsafe {
            match (block.groups, block.rows) {
                (Groups::Two, _) => one_of_two(block, x, w, product),
                (Groups::Three, Rows::One) => one_of_three(block, x, w, product),
                (Groups::Three, Rows::Two) => one_of_six(block, x, w, product),
            }
        }
    }

    #[inline(always)]
    unsafe fn end(block: &Block) {
        // SAFETY: as demanded.
        unsafe {
            let (c, stride) = (block.sums.cast::<u8>(), block.sums_stride);
            let lower = c.wrapping_add(TILE_ROWS * stride);
            store!("0", c, stride);
            store!("1", c.add(TILE_WIDTH), stride);
            match (block.groups, block.rows) {
                (Groups::Two, Rows::One) => {}
                (Groups::Two, Rows::Two) => {
                    store!("2", lower, stride);
                    store!("3", lower.add(TILE_WIDTH), stride);
                }
                (Groups::Three, rows) => {
                    store!("2", c.add(2 * TILE_WIDTH), stride);
                    if rows == Rows::Two {
                        store!("3", lower, stride);
                        store!("4", lower.add(TILE_WIDTH), stride);
                        store!("5", lower.add(2 * TILE_WIDTH), stride);
                    }
                }
            }
        }
    }
}

/// The same on vectors with AVX-512 BF16, for attention on processors without AMX.
pub struct Vectors;

impl Unit for Vectors {
    #[inline(always)]
    unsafe fn begin(block: &Block) {
        let height = block.rows as usize * TILE_ROWS;
        for row in (0..height).filter(|_| !block.add) {
            // SAFETY: as demanded.
            unsafe { block.sums.byte_add(row * block.sums_stride).write_bytes(0, block.groups as usize * TILE_ROWS) };
        }
    }

    #[inline(always)]
    unsafe fn add(block: &Block, steps: Range<usize>) {
        // SAFETY: as demanded.
        unsafe { add_steps(block, steps.start, steps.start, steps.len()) };
    }

    /// All of a tile's products with the last of them.
    #[inline(always)]
    unsafe fn add_one(block: &Block, x: usize, w: usize, product: usize) {
        if product + 1 == block.products() {
            // SAFETY: as demanded.
            unsafe { add_steps(block, x, w, 1) };
        }
    }

    #[inline(always)]
    unsafe fn end(_: &Block) {}
}
/// Rows of activations whose sums are in registers at once: two vectors of sums for each, which hide the latency of a product.
const VECTOR_ROWS: usize = 8;

/// Adds the products of `steps` tiles of columns, from tile `x` of the activations' and `w` of the weights' on.
#[inline(always)]
unsafe fn add_steps(block: &Block, x: usize, w: usize, steps: usize) {
    for row in (0..block.rows as usize * TILE_ROWS).step_by(VECTOR_ROWS) {
        // SAFETY: as `Unit::add` demands.
        unsafe {
            match block.groups {
                Groups::Two => add_rows::<2>(block, row, x, w, steps),
                Groups::Three => add_rows::<3>(block, row, x, w, steps),
            }
        }
    }
}

/// The same of [`VECTOR_ROWS`] rows of activations: a pair of them, in all lanes, serves all groups.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn add_rows<const GROUPS: usize>(block: &Block, row: usize, x: usize, w: usize, steps: usize) {
    // SAFETY: as `Unit::add` demands.
    unsafe {
        let sums = |i: usize| block.sums.byte_add((row + i) * block.sums_stride);
        let mut totals = [[_mm512_setzero_ps(); GROUPS]; VECTOR_ROWS];
        for (i, totals) in totals.iter_mut().enumerate() {
            for (g, total) in totals.iter_mut().enumerate() {
                *total = _mm512_loadu_ps(sums(i).add(g * TILE_ROWS));
            }
        }
        let rows = block.x.add(row / TILE_ROWS * block.x_next + row % TILE_ROWS * TILE_WIDTH);
        for step in 0..steps {
            let (x, w) = (rows.add((x + step) * TILE_BYTES), block.w.add((w + step) * TILE_BYTES));
            for pair in 0..TILE_ROWS {
                let w = w.add(pair * TILE_WIDTH);
                let mut groups = [load_pairs(w); GROUPS];
                for (g, group) in groups.iter_mut().enumerate() {
                    *group = load_pairs(w.add(g * block.w_next));
                }
                for (i, totals) in totals.iter_mut().enumerate() {
                    let x = x.add(i * TILE_WIDTH).cast::<i32>().add(pair).read_unaligned();
                    let x = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(x));
                    for (total, w) in totals.iter_mut().zip(groups) {
                        *total = _mm512_dpbf16_ps(*total, w, x);
                    }
                }
            }
        }
        for (i, totals) in totals.into_iter().enumerate() {
            for (g, total) in totals.into_iter().enumerate() {
                _mm512_storeu_ps(sums(i).add(g * TILE_ROWS), total);
            }
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
        let (height, width) = (block.rows as usize * TILE_ROWS, block.groups as usize * TILE_ROWS);
        for (row, column) in (0..height).flat_map(|row| (0..width).map(move |column| (row, column))) {
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
        for step in steps {
            // SAFETY: as demanded.
            (0..block.products()).for_each(|product| unsafe { Emulated::add_one(block, step, step, product) });
        }
    }

    /// The first of a tile's products stands for all of them; what the unit would keep from one to the next, nothing here does.
    unsafe fn add_one(block: &Block, x: usize, w: usize, product: usize) {
        let bf16 = |bits: u16| f32::from_bits(u32::from(bits) << 16);
        if product > 0 {
            return;
        }
        // SAFETY: as demanded: elements of a row of activations, and of a column of pairs.
        unsafe {
            Emulated::each_sum(block, |sum, x_row, w_column| {
                for i in 0..2 * TILE_ROWS {
                    let x = x_row.add(x * TILE_BYTES).cast::<u16>().add(i);
                    let w = w_column.add(w * TILE_BYTES + i / 2 * TILE_WIDTH).cast::<u16>().add(i % 2);
                    *sum += bf16(*x) * bf16(*w);
                }
            });
        }
    }

    unsafe fn end(_: &Block) {}
}
