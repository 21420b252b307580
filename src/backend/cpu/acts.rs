//! Activations: float32 rows, and the same rows quantised to 8 bits for the integer kernels.
//!
//! One quantisation serves every weight format in blocks, another those in super-blocks: see [`quantize`](super::quantize).
//! Where products of 16 bits are quicker than those of float32 ([`Isa::short_float`]), many rows are rounded to these besides, for
//! weights in F16 and BF16. Each form is made once, when the first product asks for it.

use super::amx::rows::{LEAST_ROWS, Tiles};
use super::avx2::multiples::{self, Multiples};
use super::avx2::wide;
use super::features::{Isa, ShortFloat};
use super::memory::AlignedBuf;
use super::pool::Pool;
use super::quantize::{BLOCK, Halves, Joined, SUPER_BLOCK, SuperBlock, quantize_row, quantize_super_blocks};
use super::rows::Rows;
use super::short_floats::{ShortRows, round_row};
use crate::error::{Error, Result};

/// Rows from which on weights in F16 and BF16 are multiplied in 16 bits; fewer are bound by memory, which float32 keeps up with.
pub const SHORT_ROWS: usize = 8;
/// A cache line.
const SPARE: usize = 64;

/// Elements from one row of 16 bits to the next: whole blocks, and no power of two, or eight rows would meet in one set of the
/// first cache.
fn short_stride(columns: usize) -> usize {
    let width = columns.next_multiple_of(BLOCK);
    if width.is_multiple_of(512) { width + SPARE / 2 } else { width }
}

/// Of which 16 bits products of so many rows are made, if `isa` admits them and the processor makes them quickly.
fn short_float(isa: Isa, rows: usize) -> Option<ShortFloat> {
    Isa::short_float().filter(|_| isa == Isa::Avx512Vnni && rows >= SHORT_ROWS)
}

/// How rows are quantised for integer kernels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Form {
    /// [`quantize`](super::quantize): for VNNI.
    Blocks,
    /// [`SuperBlock`]: for VNNI and weights in super-blocks.
    SuperBlocks,
    /// [`multiples`]: for AVX2.
    Multiples,
    /// [`wide`]: for AVX2 and weights of eight bits.
    Wide,
}

/// Rows of activations.
pub struct Acts {
    n: usize,
    columns: usize,
    values: AlignedBuf,
    q: AlignedBuf,
    /// The scales of each block, in both forms.
    halves: AlignedBuf,
    joined: AlignedBuf,
    /// The rows in super-blocks, for weights in such.
    super_blocks: AlignedBuf,
    /// The same for AVX2, which wants these alone, and the unit of each row.
    multiples: AlignedBuf,
    units: AlignedBuf,
    /// The rows in 16 bits and their scales: AVX2 alone.
    wide: AlignedBuf,
    wide_scales: AlignedBuf,
    /// The rows in 16 bits, [`short_stride`] apart, and the scale of each: none where there are no products of them.
    short: AlignedBuf,
    short_scales: AlignedBuf,
    /// The forms of the values that were made since these were written.
    quantized: bool,
    in_super_blocks: bool,
    widened: bool,
    rounded: Option<ShortFloat>,
    /// The same in tiles, where AMX multiplies them, and room for those that are made of them.
    tiles: Option<[Tiles; 2]>,
    tiled: bool,
    /// The rows are in tiles alone.
    only_tiled: bool,
}

impl Acts {
    /// Room for `rows` rows of up to `columns` elements, as the products of `isa` want them.
    pub fn new(rows: usize, columns: usize, isa: Isa) -> Result<Acts> {
        let width = columns.next_multiple_of(BLOCK);
        let on_tiles = isa == Isa::Amx && rows >= LEAST_ROWS;
        let short_rows = if short_float(isa, rows).is_some() { rows } else { 0 };
        let elements = rows
            .checked_mul(width)
            .filter(|n| isize::try_from(n.saturating_mul(4)).is_ok())
            .ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: "activations".into() })?;
        let blocks = elements / BLOCK;
        let (vnni_blocks, avx2_blocks, avx2_rows) = if isa == Isa::Avx2 { (0, blocks, rows) } else { (blocks, 0, 0) };
        Ok(Acts {
            n: 0,
            columns: 0,
            values: AlignedBuf::zeroed(elements * 4)?,
            q: AlignedBuf::zeroed(elements)?,
            halves: AlignedBuf::zeroed(vnni_blocks * size_of::<Halves>())?,
            joined: AlignedBuf::zeroed(vnni_blocks * size_of::<Joined>())?,
            super_blocks: AlignedBuf::zeroed(vnni_blocks * BLOCK / SUPER_BLOCK * size_of::<SuperBlock>())?,
            multiples: AlignedBuf::zeroed(avx2_blocks * size_of::<Multiples>())?,
            units: AlignedBuf::zeroed(avx2_rows * size_of::<f32>())?,
            wide: AlignedBuf::zeroed(avx2_blocks * BLOCK * size_of::<i16>())?,
            wide_scales: AlignedBuf::zeroed(avx2_rows * size_of::<f32>())?,
            short: AlignedBuf::zeroed(short_rows * (2 * width + SPARE))?,
            short_scales: AlignedBuf::zeroed(short_rows * size_of::<f32>())?,
            quantized: false,
            in_super_blocks: false,
            widened: false,
            rounded: None,
            tiles: match on_tiles {
                true => Some([Tiles::new(rows, columns)?, Tiles::new(rows, columns)?]),
                false => None,
            },
            tiled: false,
            only_tiled: false,
        })
    }

    /// Uses the room for `n` rows of `columns` elements; what they hold is then undefined.
    pub fn set_shape(&mut self, n: usize, columns: usize) {
        assert!(n * columns.next_multiple_of(BLOCK) <= self.q.as_slice().len(), "{n} rows of {columns} do not fit");
        self.n = n;
        self.columns = columns;
        self.forget();
    }

    /// No form of the values has been made.
    fn forget(&mut self) {
        (self.quantized, self.in_super_blocks, self.widened, self.rounded) = (false, false, false, None);
        (self.tiled, self.only_tiled) = (false, false);
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.n
    }

    /// Elements of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// `[rows][columns]`.
    pub fn values(&self) -> &[f32] {
        &bytemuck::cast_slice(self.values.as_slice())[..self.n * self.columns]
    }

    /// `[rows][columns]`.
    pub fn values_mut(&mut self) -> &mut [f32] {
        self.forget();
        &mut bytemuck::cast_slice_mut(self.values.as_mut_slice())[..self.n * self.columns]
    }

    /// Bytes of the room for float32 values.
    pub(super) fn values_bytes(&self) -> usize {
        self.values.as_slice().len()
    }

    /// Takes `n` rows of `columns` elements, whose room is as large, in exchange for the present ones.
    pub(super) fn swap_values(&mut self, values: &mut AlignedBuf, n: usize, columns: usize) {
        assert!(values.as_slice().len() == self.values.as_slice().len());
        std::mem::swap(&mut self.values, values);
        self.set_shape(n, columns);
    }

    /// The quantised rows, `[rows][columns]`.
    pub fn q(&self) -> &[i8] {
        &bytemuck::cast_slice(self.q.as_slice())[..self.n * self.columns]
    }

    /// The first `n` of the elements, or nothing where the instruction set does not want them.
    fn first_of<T: bytemuck::Pod>(buffer: &AlignedBuf, n: usize) -> &[T] {
        bytemuck::cast_slice(buffer.as_slice()).get(..n).unwrap_or_default()
    }

    /// The scales of the blocks' halves, `[rows][columns / 32]`; none with AVX2.
    pub fn halves(&self) -> &[Halves] {
        Acts::first_of(&self.halves, self.n * (self.columns / BLOCK))
    }

    /// The scales of the blocks, `[rows][columns / 32]`; none with AVX2.
    pub fn joined(&self) -> &[Joined] {
        Acts::first_of(&self.joined, self.n * (self.columns / BLOCK))
    }

    /// The scales of the blocks with AVX2, `[rows][columns / 32]`.
    pub fn multiples(&self) -> &[Multiples] {
        Acts::first_of(&self.multiples, self.n * (self.columns / BLOCK))
    }

    /// The units of these, `[rows]`.
    pub fn units(&self) -> &[f32] {
        Acts::first_of(&self.units, self.n)
    }

    /// The rows in 16 bits with AVX2, `[rows][columns]`.
    pub fn wide(&self) -> &[i16] {
        Acts::first_of(&self.wide, self.n * self.columns)
    }

    /// The scales of these, `[rows]`.
    pub fn wide_scales(&self) -> &[f32] {
        Acts::first_of(&self.wide_scales, self.n)
    }

    /// The rows in super-blocks, `[rows][columns / 256]`; none with AVX2.
    pub fn super_blocks(&self) -> &[SuperBlock] {
        Acts::first_of(&self.super_blocks, self.n * (self.columns / SUPER_BLOCK))
    }

    /// The rows in tiles of bf16, if [`Acts::tile`] has made them.
    pub(super) fn tiles(&self) -> Option<&Tiles> {
        self.tiles.as_ref().map(|[tiles, _]| tiles).filter(|_| self.tiled)
    }

    /// Rounds all rows to bf16 in tiles, unless that is done, where there are enough of them to be multiplied by AMX.
    pub(super) fn tile(&mut self, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
        if self.tiled || n < LEAST_ROWS {
            return;
        }
        if let Some([tiles, _]) = &mut self.tiles {
            let values = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
            // SAFETY: there are tiles only where AMX was detected.
            unsafe { tiles.round(pool, values, n, columns) };
            self.tiled = true;
        }
    }

    /// Uses the room for `n` rows of `columns` elements that are written in tiles alone, a row of tiles for each 16 rows; `None`
    /// where there is none, or too few rows. All of it has to be written, zeros where there are no rows.
    pub(super) fn written_in_tiles(&mut self, n: usize, columns: usize) -> Option<Rows<'_, u8>> {
        self.set_shape(n, columns);
        let [tiles, _] = self.tiles.as_mut().filter(|_| n >= LEAST_ROWS)?;
        (self.tiled, self.only_tiled) = (true, true);
        Some(tiles.rows_of(n, columns))
    }

    /// Lets `multiply` make rows of `columns` elements, whole tiles of them, of those in tiles: of the tiles that there are, and
    /// in rows of tiles for 16 rows each. False if the rows are not in tiles.
    pub(super) fn multiplied(&mut self, columns: usize, multiply: impl FnOnce(&Tiles, &Rows<u8>)) -> bool {
        let n = self.n;
        let Some([tiles, out]) = self.tiles.as_mut().filter(|_| self.tiled) else { return false };
        multiply(tiles, &out.rows_of(n, columns));
        std::mem::swap(tiles, out);
        self.set_shape(n, columns);
        (self.tiled, self.only_tiled) = (true, true);
        true
    }

    /// Makes the values of rows that are in tiles alone, for a product that takes others: they are rounded to bf16 then.
    pub(super) fn value(&mut self, pool: &Pool) {
        if let Some([tiles, _]) = self.tiles.as_ref().filter(|_| self.only_tiled) {
            let columns = self.columns;
            let values = &mut bytemuck::cast_slice_mut(self.values.as_mut_slice())[..self.n * columns];
            let rows = Rows::new(values, columns);
            // SAFETY: each row is taken by one task.
            pool.each_row(self.n, &|i| tiles.row(i, unsafe { rows.row(i) }));
            self.only_tiled = false;
        }
    }

    /// The rows in 16 bits, if [`Acts::round`] has made them.
    pub(super) fn short(&self) -> Option<ShortRows<'_>> {
        let (float, stride) = (self.rounded?, short_stride(self.columns));
        let values = Acts::first_of(&self.short, self.n * stride);
        Some(ShortRows { float, values, stride, scales: Acts::first_of(&self.short_scales, self.n) })
    }

    /// Quantises all rows, unless that is done. Rows that are no whole number of blocks stay float32: only float formats have
    /// such. `isa` is one that has the form.
    pub fn quantize(&mut self, form: Form, isa: Isa, pool: &Pool) {
        let (n, columns) = (self.n, self.columns);
        let (block, made) = match form {
            Form::Blocks | Form::Multiples => (BLOCK, &mut self.quantized),
            Form::SuperBlocks => (SUPER_BLOCK, &mut self.in_super_blocks),
            Form::Wide => (BLOCK, &mut self.widened),
        };
        if *made || columns % block != 0 {
            return;
        }
        *made = true;
        /// Rows of `width` elements of a form.
        fn rows<T: bytemuck::Pod>(buffer: &mut AlignedBuf, n: usize, width: usize) -> Rows<'_, T> {
            Rows::new(&mut bytemuck::cast_slice_mut(buffer.as_mut_slice())[..n * width], width)
        }
        let values: &[f32] = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
        let value = |i: usize| &values[i * columns..(i + 1) * columns];
        let blocks = columns / block;
        // SAFETY, of all forms: each row is taken by one task.
        match form {
            Form::Blocks => {
                let q = rows(&mut self.q, n, columns);
                let (halves, joined) = (rows(&mut self.halves, n, blocks), rows(&mut self.joined, n, blocks));
                pool.each_row(n, &|i| unsafe { quantize_row(isa, value(i), q.row(i), halves.row(i), joined.row(i)) });
            }
            Form::SuperBlocks => {
                let super_blocks = rows(&mut self.super_blocks, n, blocks);
                pool.each_row(n, &|i| unsafe { quantize_super_blocks(isa, value(i), super_blocks.row(i)) });
            }
            Form::Multiples => {
                let (q, units) = (rows(&mut self.q, n, columns), rows(&mut self.units, n, 1));
                let multiples = rows(&mut self.multiples, n, blocks);
                pool.each_row(n, &|i| unsafe {
                    units.row(i)[0] = multiples::quantize_row(isa, value(i), q.row(i), multiples.row(i));
                });
            }
            Form::Wide => {
                let (wide, scales) = (rows(&mut self.wide, n, columns), rows(&mut self.wide_scales, n, 1));
                pool.each_row(n, &|i| unsafe { scales.row(i)[0] = wide::quantize_row(isa, value(i), wide.row(i)) });
            }
        }
    }

    /// Rounds all rows to 16 bits, filled up with zeros to whole blocks, unless that is done: if there are
    /// [quick products](short_float) of them.
    pub fn round(&mut self, isa: Isa, pool: &Pool) {
        let (n, columns, stride) = (self.n, self.columns, short_stride(self.columns));
        let Some(float) = short_float(isa, n).filter(|_| self.rounded.is_none()) else { return };
        self.rounded = Some(float);
        let values: &[f32] = &bytemuck::cast_slice(self.values.as_slice())[..n * columns];
        let short =
            Rows::new(&mut bytemuck::cast_slice_mut::<u8, u16>(self.short.as_mut_slice())[..n * stride], stride);
        let scales = Rows::new(&mut bytemuck::cast_slice_mut::<u8, f32>(self.short_scales.as_mut_slice())[..n], 1);
        pool.each_row(n, &|i| {
            // SAFETY: each row is taken by one task.
            let (row, scale) = unsafe { (short.row(i), scales.row(i)) };
            let (row, rest) = row.split_at_mut(columns);
            // SAFETY: the processor multiplies these.
            scale[0] = unsafe { round_row(float, &values[i * columns..(i + 1) * columns], row) };
            rest.fill(0);
        });
    }
}
