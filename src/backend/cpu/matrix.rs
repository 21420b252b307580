//! A weight matrix on the CPU: packed for the integer kernels, or as the file has it.

use super::features::Isa;
use super::floats::{Float, has_float_kernels};
use super::kernels::kernel;
use super::memory::AlignedBuf;
use super::pack::{Layout, ROWS};
use super::pool::Pool;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::load::{TensorBytes, TensorData};
use crate::quant::TensorType;

/// Bytes of the file that are read before they are packed: enough for all threads, little beside a tensor.
const PIECE: usize = 8 << 20;

/// `rows × columns` weights.
pub struct Matrix {
    rows: usize,
    columns: usize,
    tensor_type: TensorType,
    storage: Storage,
}

enum Storage {
    /// Groups of 16 rows, each a sequence of packed blocks.
    Packed(AlignedBuf),
    /// Groups of 16 rows of floats, `[columns / 2][16][2]` each.
    Floats(Float, AlignedBuf),
    /// The rows of the file.
    Plain(TensorBytes),
}

impl Matrix {
    /// Places `rows` rows of `columns` elements. With `packed` they are rearranged where a kernel of `isa` wants it;
    /// else the bytes are kept as the file has them.
    pub fn place(
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: &TensorData,
        packed: bool,
        isa: Isa,
        pool: &Pool,
    ) -> Result<Matrix> {
        let row_bytes = tensor_type.row_bytes(columns);
        if row_bytes.and_then(|n| n.checked_mul(rows)) != Some(data.len()) {
            return Err(Error::Internal(format!("{} bytes for {rows} × {columns} {}", data.len(), tensor_type.name())));
        }
        let layout = Layout::of(tensor_type).filter(|_| packed && kernel(tensor_type, isa).is_some());
        let float = Float::of(tensor_type).filter(|_| packed && has_float_kernels(isa));
        let storage = match (layout, float) {
            (Some(layout), _) => Storage::Packed(pack(layout, rows, columns, data, pool)?),
            (None, Some(float)) => Storage::Floats(float, pack_floats(float, rows, columns, data, pool)?),
            (None, None) => Storage::Plain(data.whole()?),
        };
        Ok(Matrix { rows, columns, tensor_type, storage })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The type that the file has.
    pub fn tensor_type(&self) -> TensorType {
        self.tensor_type
    }

    /// Bytes that a multiplication reads.
    pub fn bytes(&self) -> usize {
        match &self.storage {
            Storage::Packed(packed) | Storage::Floats(_, packed) => packed.as_slice().len(),
            Storage::Plain(bytes) => bytes.as_slice().len(),
        }
    }

    /// Groups of 16 rows.
    pub(super) fn groups(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }

    /// Bytes of a row in the file.
    fn row_bytes(&self) -> usize {
        self.tensor_type.row_bytes(self.columns).unwrap_or(0)
    }

    /// The rows of the file, if they are kept.
    pub(super) fn plain_row(&self, row: usize) -> Option<&[u8]> {
        match &self.storage {
            Storage::Plain(bytes) => Some(&bytes.as_slice()[row * self.row_bytes()..(row + 1) * self.row_bytes()]),
            Storage::Packed(_) | Storage::Floats(..) => None,
        }
    }

    /// The type of the floats, if they are packed.
    pub(super) fn packed_floats(&self) -> Option<Float> {
        match &self.storage {
            Storage::Floats(float, _) => Some(*float),
            _ => None,
        }
    }

    /// Group `group` of packed floats.
    pub(super) fn float_group(&self, group: usize) -> &[u8] {
        self.float_groups(group, 1)
    }

    /// `n` groups of packed floats from `group` on, one behind the other.
    pub(super) fn float_groups(&self, group: usize, n: usize) -> &[u8] {
        match &self.storage {
            Storage::Floats(float, packed) => {
                let size = float.group_bytes(self.columns);
                &packed.as_slice()[group * size..(group + n) * size]
            }
            _ => &[],
        }
    }

    /// The packed group `group`: where it lies, or packed now into `scratch`.
    pub(super) fn group<'a>(&'a self, layout: &Layout, group: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.groups_of(layout, group, 1, scratch)
    }

    /// `n` packed groups from `group` on, one behind the other.
    pub(super) fn groups_of<'a>(
        &'a self,
        layout: &Layout,
        group: usize,
        n: usize,
        scratch: &'a mut Vec<u8>,
    ) -> &'a [u8] {
        let blocks = self.columns / self.tensor_type.format().block_elements;
        let size = blocks * layout.block();
        match &self.storage {
            Storage::Packed(packed) => &packed.as_slice()[group * size..(group + n) * size],
            Storage::Plain(bytes) => {
                scratch.resize(n * size, 0);
                for (i, out) in scratch.chunks_exact_mut(size.max(1)).enumerate() {
                    pack_group(layout, self.rows, self.row_bytes(), group + i, bytes.as_slice(), out);
                }
                scratch
            }
            Storage::Floats(..) => &[],
        }
    }

    /// Row `row`, decoded.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let format = self.tensor_type.format();
        let Some(decode) = format.decode else { return out.fill(0.0) };
        match &self.storage {
            Storage::Plain(_) => decode(self.plain_row(row).unwrap_or_default(), out),
            Storage::Floats(float, _) => {
                let group = self.float_group(row / ROWS);
                let pairs = group.chunks_exact(2 * float.bytes()).skip(row % ROWS).step_by(ROWS);
                for (pair, out) in pairs.zip(out.chunks_mut(2)) {
                    decode(&pair[..out.len() * float.bytes()], out);
                }
            }
            Storage::Packed(packed) => {
                let Some(layout) = Layout::of(self.tensor_type) else { return out.fill(0.0) };
                let blocks = self.columns / format.block_elements;
                let group = &packed.as_slice()[row / ROWS * blocks * layout.block()..];
                let mut block = [0u8; 512];
                let block = &mut block[..format.block_bytes];
                for (packed, out) in group.chunks_exact(layout.block()).zip(out.chunks_exact_mut(format.block_elements))
                {
                    layout.unpack(packed, row % ROWS, block);
                    decode(block, out);
                }
            }
        }
    }
}

fn pack(layout: &Layout, rows: usize, columns: usize, data: &TensorData, pool: &Pool) -> Result<AlignedBuf> {
    let format = layout.tensor_type.format();
    let blocks = columns / format.block_elements;
    let (size, row_bytes) = (blocks * layout.block(), blocks * format.block_bytes);
    pack_pieces(rows, row_bytes, size, data, pool, &|rows, group, bytes, out| {
        pack_group(layout, rows, row_bytes, group, bytes, out);
    })
}

fn pack_floats(float: Float, rows: usize, columns: usize, data: &TensorData, pool: &Pool) -> Result<AlignedBuf> {
    let row_bytes = columns * float.bytes();
    pack_pieces(rows, row_bytes, float.group_bytes(columns), data, pool, &|rows, group, bytes, out| {
        let rows = &bytes[group * ROWS * row_bytes..rows.min((group + 1) * ROWS) * row_bytes];
        match float {
            Float::F32 => pack_pairs::<8>(rows, row_bytes, out),
            Float::F16 | Float::Bf16 => pack_pairs::<4>(rows, row_bytes, out),
        }
    })
}

/// Packs up to 16 rows to pairs of columns, `PAIR` bytes each: `[columns / 2][16][2]`.
fn pack_pairs<const PAIR: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    let (places, _) = out.as_chunks_mut::<PAIR>();
    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
        let (pairs, last) = row.as_chunks::<PAIR>();
        let mut places = places.iter_mut().skip(r).step_by(ROWS);
        places.by_ref().zip(pairs).for_each(|(place, pair)| *place = *pair);
        // The last of an odd number of columns has a zero beside it.
        places.zip([last]).for_each(|(place, last)| place[..last.len()].copy_from_slice(last));
    }
}

/// Packs group `group` of some rows, given their number and bytes.
type PackGroup<'a> = dyn Fn(usize, usize, &[u8], &mut [u8]) + Sync + 'a;

/// Reads rows of `row_bytes` and packs them, piece by piece, to `size` bytes for each group of 16.
fn pack_pieces(
    rows: usize,
    row_bytes: usize,
    size: usize,
    data: &TensorData,
    pool: &Pool,
    pack: &PackGroup,
) -> Result<AlignedBuf> {
    let groups = rows.div_ceil(ROWS);
    let total = groups
        .checked_mul(size)
        .ok_or_else(|| Error::OutOfMemory { bytes: u64::MAX, what: format!("{rows} rows of {row_bytes} bytes") })?;
    let mut packed = AlignedBuf::zeroed(total)?;
    if total == 0 {
        return Ok(packed);
    }
    let per_piece = (PIECE / (ROWS * row_bytes)).clamp(1, groups);
    let mut piece = vec![0; per_piece * ROWS * row_bytes];
    for (n, out) in packed.as_mut_slice()[..total].chunks_mut(per_piece * size).enumerate() {
        let first = n * per_piece * ROWS;
        let piece_rows = (rows - first).min(per_piece * ROWS);
        let bytes = &mut piece[..piece_rows * row_bytes];
        data.read(first * row_bytes, bytes)?;
        pack_groups(piece_rows, bytes, Rows::new(out, size), pool, pack);
    }
    Ok(packed)
}

/// Packs `rows` consecutive rows, whose groups go to the rows of `out`.
fn pack_groups(rows: usize, bytes: &[u8], out: Rows<u8>, pool: &Pool, pack: &PackGroup) {
    let groups = rows.div_ceil(ROWS);
    // A few groups a task: packing is quick, and a task should be worth its claim.
    let tile = groups.div_ceil(pool.threads() * 4).max(1);
    pool.run(groups.div_ceil(tile), &|task| {
        for group in task * tile..groups.min((task + 1) * tile) {
            // SAFETY: each group is packed by one task.
            pack(rows, group, bytes, unsafe { out.row(group) });
        }
    });
}

fn pack_group(layout: &Layout, rows: usize, row_bytes: usize, group: usize, bytes: &[u8], out: &mut [u8]) {
    let block_bytes = layout.tensor_type.format().block_bytes;
    let first = group * ROWS;
    let n = ROWS.min(rows - first);
    for (i, packed) in out.chunks_exact_mut(layout.block()).enumerate() {
        let blocks = (first..first + n).map(|row| &bytes[row * row_bytes + i * block_bytes..][..block_bytes]);
        layout.pack(blocks, packed);
    }
}
