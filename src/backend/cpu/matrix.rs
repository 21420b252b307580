//! A weight matrix on the CPU: packed for the integer kernels, or as the file has it.

use parking_lot::Mutex;

use super::features::Isa;
use super::floats::{Float, has_float_kernels};
use super::kernels::kernel;
use super::memory::{AlignedBuf, SharedBytes, Slabs};
use super::pack::{Layout, ROWS};
use super::packfile::{Key, Store};
use super::pool::Pool;
use super::rows::Rows;
use crate::error::{Error, Result};
use crate::load::{TensorBytes, TensorData};
use crate::quant::TensorType;

/// Bytes of the file that are read at a time by each thread: what a core's own cache holds.
const READ: usize = 256 << 10;
/// Bytes that are read before they are packed where only one thread may read: enough for all threads, little beside a
/// tensor.
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
    Packed(SharedBytes),
    /// Groups of 16 rows of floats, `[columns / 2][16][2]` each.
    Floats(Float, SharedBytes),
    /// The rows of the file.
    Plain(TensorBytes),
}

impl Matrix {
    /// Places `rows` rows of `columns` elements: rearranged where a kernel of the instruction set `pack_for` wants it,
    /// else as the file has them.
    pub fn place(
        tensor_type: TensorType,
        rows: usize,
        columns: usize,
        data: &TensorData,
        pack_for: Option<Isa>,
        pool: &Pool,
        store: &Store,
    ) -> Result<Matrix> {
        let row_bytes = tensor_type.row_bytes(columns);
        if row_bytes.and_then(|n| n.checked_mul(rows)) != Some(data.len()) {
            return Err(Error::Internal(format!("{} bytes for {rows} × {columns} {}", data.len(), tensor_type.name())));
        }
        let layout = Layout::of(tensor_type).filter(|_| pack_for.is_some_and(|isa| kernel(tensor_type, isa).is_some()));
        let float = Float::of(tensor_type).filter(|_| pack_for.is_some_and(has_float_kernels));
        let storage = match (layout, float) {
            (Some(layout), _) => Storage::Packed(pack(layout, rows, columns, data, pool, store)?),
            (None, Some(float)) => {
                Storage::Floats(float, pack_floats(float, tensor_type, rows, columns, data, pool, store)?)
            }
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

/// Packs group `group` of some rows, given their number and bytes.
type PackGroup<'a> = dyn Fn(usize, usize, &[u8], &mut [u8]) + Sync + 'a;

/// How rows are packed: which of them, and to what.
struct Packing<'a> {
    tensor_type: TensorType,
    /// The layout's number in a file of packed weights: one layout for each type, whatever the instruction set.
    layout: u64,
    rows: usize,
    columns: usize,
    /// Bytes of a row in the file.
    row_bytes: usize,
    /// Bytes of a group of 16 rows, packed.
    size: usize,
    pack: &'a PackGroup<'a>,
}

fn pack(
    layout: &Layout,
    rows: usize,
    columns: usize,
    data: &TensorData,
    pool: &Pool,
    store: &Store,
) -> Result<SharedBytes> {
    let tensor_type = layout.tensor_type;
    let format = tensor_type.format();
    let blocks = columns / format.block_elements;
    let (size, row_bytes) = (blocks * layout.block(), blocks * format.block_bytes);
    let pack = |rows: usize, group: usize, bytes: &[u8], out: &mut [u8]| {
        pack_group(layout, rows, row_bytes, group, bytes, out);
    };
    Packing { tensor_type, layout: 1, rows, columns, row_bytes, size, pack: &pack }.place(data, pool, store)
}

fn pack_floats(
    float: Float,
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    data: &TensorData,
    pool: &Pool,
    store: &Store,
) -> Result<SharedBytes> {
    let row_bytes = columns * float.bytes();
    let pack = |rows: usize, group: usize, bytes: &[u8], out: &mut [u8]| {
        let rows = &bytes[group * ROWS * row_bytes..rows.min((group + 1) * ROWS) * row_bytes];
        match float {
            Float::F32 => interleave::<8>(rows, row_bytes, out),
            Float::F16 | Float::Bf16 => interleave::<4>(rows, row_bytes, out),
        }
    };
    let size = float.group_bytes(columns);
    Packing { tensor_type, layout: 2, rows, columns, row_bytes, size, pack: &pack }.place(data, pool, store)
}

/// Up to 16 rows to pairs of columns, `PAIR` bytes each: `[columns / 2][16][2]`. A few pairs of all rows at a time, so that
/// what is written stays in the nearest cache until it is whole.
fn interleave<const PAIR: usize>(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    const PAIRS: usize = 16;
    for (from, out) in (0..row_bytes).step_by(PAIRS * PAIR).zip(out.chunks_mut(PAIRS * ROWS * PAIR)) {
        for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
            let (pairs, last) = row[from..row_bytes.min(from + PAIRS * PAIR)].as_chunks::<PAIR>();
            let mut places = out.as_chunks_mut::<PAIR>().0.iter_mut().skip(r).step_by(ROWS);
            places.by_ref().zip(pairs).for_each(|(place, pair)| *place = *pair);
            // The last of an odd number of columns has a zero beside it.
            places.zip([last]).for_each(|(place, last)| place[..last.len()].copy_from_slice(last));
        }
    }
}

impl Packing<'_> {
    /// The packed rows: from where they are kept, or packed now.
    fn place(&self, data: &TensorData, pool: &Pool, store: &Store) -> Result<SharedBytes> {
        let groups = self.rows.div_ceil(ROWS);
        let total = groups.checked_mul(self.size).ok_or_else(|| Error::OutOfMemory {
            bytes: u64::MAX,
            what: format!("{} rows of {} bytes", self.rows, self.row_bytes),
        })?;
        let key = data.location().map(|(part, offset)| Key {
            part: part as u32,
            tensor_type: self.tensor_type,
            packing: self.layout,
            offset,
            rows: self.rows as u64,
            columns: self.columns as u64,
        });
        store.place(key, total, || self.run(total, data, pool, &store.slabs))
    }

    /// Reads rows and packs them to `total` bytes.
    fn run(&self, total: usize, data: &TensorData, pool: &Pool, slabs: &Slabs) -> Result<AlignedBuf> {
        let mut packed = slabs.zeroed(total)?;
        if total > 0 {
            let out = &mut packed.as_mut_slice()[..total];
            match data.any_thread() {
                true => self.read_and_pack(data, out, pool)?,
                false => self.read_then_pack(data, out, pool)?,
            }
        }
        Ok(packed)
    }

    /// Each task reads what it packs: one thread's reading hides behind another's packing, and what was read is still
    /// in the core's own cache when it is packed.
    fn read_and_pack(&self, data: &TensorData, out: &mut [u8], pool: &Pool) -> Result<()> {
        let groups = self.rows.div_ceil(ROWS);
        let group_bytes = ROWS * self.row_bytes;
        // A few tasks for each thread, if there is enough for that.
        let step = (READ / group_bytes).min(groups.div_ceil(pool.threads() * 4)).max(1);
        let out = Rows::new(out, self.size);
        let buffers = Mutex::new(Vec::new());
        let failed = Mutex::new(None);
        pool.run(groups.div_ceil(step), &|task| {
            if failed.lock().is_some() {
                return;
            }
            let range = task * step..groups.min((task + 1) * step);
            let rows = (range.end * ROWS).min(self.rows) - range.start * ROWS;
            let mut buffer = buffers.lock().pop().unwrap_or_else(|| vec![0; step * group_bytes]);
            let bytes = &mut buffer[..rows * self.row_bytes];
            match data.read(range.start * group_bytes, bytes) {
                Ok(()) => range.enumerate().for_each(|(i, group)| {
                    // SAFETY: each group is packed by one task.
                    (self.pack)(rows, i, bytes, unsafe { out.row(group) });
                }),
                Err(error) => *failed.lock() = Some(error),
            }
            buffers.lock().push(buffer);
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    /// The calling thread reads pieces, and all threads pack each.
    fn read_then_pack(&self, data: &TensorData, out: &mut [u8], pool: &Pool) -> Result<()> {
        let groups = self.rows.div_ceil(ROWS);
        let step = (PIECE / (ROWS * self.row_bytes)).clamp(1, groups);
        let mut piece = vec![0; step * ROWS * self.row_bytes];
        for (n, out) in out.chunks_mut(step * self.size).enumerate() {
            let first = n * step * ROWS;
            let rows = (self.rows - first).min(step * ROWS);
            let bytes = &mut piece[..rows * self.row_bytes];
            data.read(first * self.row_bytes, bytes)?;
            let (out, groups) = (Rows::new(out, self.size), rows.div_ceil(ROWS));
            // A few groups a task: packing is quick, and a task should be worth its claim.
            let tile = groups.div_ceil(pool.threads() * 4).max(1);
            pool.run(groups.div_ceil(tile), &|task| {
                for group in task * tile..groups.min((task + 1) * tile) {
                    // SAFETY: each group is packed by one task.
                    (self.pack)(rows, group, bytes, unsafe { out.row(group) });
                }
            });
        }
        Ok(())
    }
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
