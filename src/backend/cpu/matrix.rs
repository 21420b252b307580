//! A weight matrix on the CPU: packed for the integer kernels, or as the file has it.

#![allow(clippy::needless_range_loop)] // the index is that of a row or a pair, in registers

use std::arch::x86_64::*;
use std::sync::Arc;

use parking_lot::Mutex;

use super::bf12::{self, Bf12};
use super::features::{Isa, ShortFloat};
use super::float_groups::FloatGroup;
use super::floats::{Float, has_float_kernels};
use super::kernels::kernel;
use super::memory::{AlignedBuf, SharedBytes};
use super::pack::{Layout, ROWS};
use super::packfile::{Key, Store};
use super::pool::Pool;
use super::rows::Rows;
use super::simd::transpose;
use crate::error::{Error, Result};
use crate::load::{TensorBytes, TensorData};
use crate::quant::TensorType;

/// Bytes of the file that are read at a time by each thread: what a core's own cache holds.
const READ: usize = 256 << 10;
/// Packed bytes for which the system finds memory before they are written: enough for all threads, and still in the last
/// cache then.
const PORTION: usize = 16 << 20;
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
    /// Groups of 16 rows of bf16 in 12 bits.
    Bf12(Bf12),
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
        let source = Source { tensor_type, rows, columns, data, pool, store };
        let storage = match (layout, float, pack_for) {
            (Some(layout), _, Some(isa)) => Storage::Packed(pack(layout, isa, &source)?),
            (None, Some(float), Some(isa)) => match pack_bf12(float, isa, &source)? {
                Some(packed) => Storage::Bf12(packed),
                None => Storage::Floats(float, pack_floats(float, isa, &source)?),
            },
            _ => Storage::Plain(source.rows()?),
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
            Storage::Bf12(packed) => packed.bytes(),
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
            Storage::Packed(_) | Storage::Floats(..) | Storage::Bf12(_) => None,
        }
    }

    /// Whether these are packed floats that can be multiplied in 16 bits of this kind.
    pub(super) fn multiplies_in(&self, short: ShortFloat) -> bool {
        match (&self.storage, short) {
            (Storage::Bf12(_) | Storage::Floats(Float::F16, _), _) => true,
            (Storage::Floats(Float::Bf16, _), short) => short == ShortFloat::Bf16,
            _ => false,
        }
    }

    /// Group `group` of packed floats; none if they are not packed.
    pub(super) fn float_group(&self, group: usize) -> Option<FloatGroup<'_>> {
        match &self.storage {
            Storage::Floats(float, packed) => {
                let size = float.group_bytes(self.columns);
                Some(FloatGroup::Floats(*float, &packed.as_slice()[group * size..(group + 1) * size]))
            }
            Storage::Bf12(packed) => Some(FloatGroup::Bf12(packed.group(group))),
            Storage::Packed(_) | Storage::Plain(_) => None,
        }
    }

    /// Bytes of a packed group.
    fn group_bytes(&self, layout: &Layout) -> usize {
        self.columns / self.tensor_type.format().block_elements * layout.block()
    }

    /// Where block `block` of group `group` would lie, and bytes from there to the next group's, to be fetched.
    pub(super) fn ahead(&self, layout: &Layout, group: usize, block: usize) -> (*const u8, usize) {
        let bytes = self.group_bytes(layout);
        let start = match &self.storage {
            Storage::Packed(packed) => packed.as_slice().as_ptr(),
            Storage::Plain(_) | Storage::Floats(..) | Storage::Bf12(_) => std::ptr::null(),
        };
        (start.wrapping_add(group * bytes + block * layout.block()), bytes)
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
        let size = self.group_bytes(layout);
        match &self.storage {
            Storage::Packed(packed) => &packed.as_slice()[group * size..(group + n) * size],
            Storage::Plain(bytes) => {
                scratch.resize(n * size, 0);
                for (i, out) in scratch.chunks_exact_mut(size.max(1)).enumerate() {
                    pack_group(layout, Isa::Scalar, self.rows, self.row_bytes(), group + i, bytes.as_slice(), out);
                }
                scratch
            }
            Storage::Floats(..) | Storage::Bf12(_) => &[],
        }
    }

    /// Row `row`, decoded.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows && out.len() == self.columns);
        let format = self.tensor_type.format();
        let Some(decode) = format.decode else { return out.fill(0.0) };
        match &self.storage {
            Storage::Plain(_) => decode(self.plain_row(row).unwrap_or_default(), out),
            Storage::Bf12(packed) => packed.group(row / ROWS).row(row % ROWS, out),
            Storage::Floats(float, packed) => {
                let size = float.group_bytes(self.columns);
                let group = &packed.as_slice()[row / ROWS * size..(row / ROWS + 1) * size];
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

/// A matrix to be packed or copied.
struct Source<'a> {
    tensor_type: TensorType,
    rows: usize,
    columns: usize,
    data: &'a TensorData<'a>,
    pool: &'a Pool,
    store: &'a Store,
}

impl Source<'_> {
    /// What the matrix is called in a file of packed weights, in the form `layout`.
    fn key(&self, layout: u64) -> Option<Key> {
        self.data.location().map(|(part, offset)| Key {
            part: part as u32,
            tensor_type: self.tensor_type,
            packing: layout,
            offset,
            rows: self.rows as u64,
            columns: self.columns as u64,
        })
    }

    /// The rows as the file has them: where they lie, or in memory of our own.
    fn rows(&self) -> Result<TensorBytes> {
        let len = self.data.len();
        let Some(key) = self.key(ROWS_OF_FILE) else { return self.data.whole() };
        let copy = self.store.place(Some(key), len, || self.copy())?;
        TensorBytes::new(Arc::new(copy), 0, len).ok_or_else(|| Error::Internal("a copy that is shorter".into()))
    }

    /// Reads them all.
    fn copy(&self) -> Result<AlignedBuf> {
        let len = self.data.len();
        let mut copy = self.store.slabs.zeroed(len)?;
        // Whole rows, and so whole blocks.
        let row_bytes = (len / self.rows.max(1)).max(1);
        let [step, portion] = [READ, PORTION].map(|bytes| (bytes / row_bytes).max(1) * row_bytes);
        for (n, out) in copy.as_mut_slice().chunks_mut(portion).enumerate() {
            self.store.slabs.populate(out, self.pool);
            let pieces: Vec<_> = out.chunks_mut(step).map(Mutex::new).collect();
            let read = |i: usize| self.data.read(n * portion + i * step, &mut pieces[i].lock());
            match self.data.any_thread() {
                true => self.pool.try_run(pieces.len(), &read)?,
                false => (0..pieces.len()).try_for_each(read)?,
            }
        }
        Ok(copy)
    }
}

/// Packs a group, given its number and the bytes of its rows, of which the last group has fewer than 16.
type PackGroup<'a> = dyn Fn(usize, &[u8], &mut [u8]) -> Result<()> + Sync + 'a;

/// How rows are packed: to what, and how long that is.
struct Packing<'a> {
    /// The layout's number in a file of packed weights: one layout for each type, whatever the instruction set, but for those
    /// that depend on the weights.
    layout: u64,
    /// Bytes of a row in the file.
    row_bytes: usize,
    /// Bytes of a group of 16 rows, packed.
    size: usize,
    pack: &'a PackGroup<'a>,
    /// Bytes behind the groups, and what writes them when all are packed.
    tail: usize,
    finish: &'a (dyn Fn(&mut [u8]) + Sync),
}

/// Number of the layout of packed blocks, of floats, of floats in 12 bits, and of rows as the file has them.
const BLOCKS: u64 = 1;
const FLOATS: u64 = 2;
const BF12: u64 = 3;
const ROWS_OF_FILE: u64 = 4;

fn pack(layout: &Layout, isa: Isa, source: &Source) -> Result<SharedBytes> {
    let format = layout.tensor_type.format();
    let blocks = source.columns / format.block_elements;
    let (size, row_bytes) = (blocks * layout.block(), blocks * format.block_bytes);
    let pack = |_: usize, rows: &[u8], out: &mut [u8]| {
        pack_group(layout, isa, rows.len() / row_bytes, row_bytes, 0, rows, out);
        Ok(())
    };
    Packing { layout: BLOCKS, row_bytes, size, pack: &pack, tail: 0, finish: &|_| {} }.place(source)
}

fn pack_floats(float: Float, isa: Isa, source: &Source) -> Result<SharedBytes> {
    let row_bytes = source.columns * float.bytes();
    let by_vectors = matches!(isa.vectors(), Isa::Avx512Vnni);
    let pack = |_: usize, rows: &[u8], out: &mut [u8]| {
        match float {
            Float::F32 => interleave::<8>(rows, row_bytes, out),
            // SAFETY: the processor has the instruction set.
            _ if by_vectors && rows.len() == ROWS * row_bytes => unsafe { interleave_512(rows, row_bytes, out) },
            Float::F16 | Float::Bf16 => interleave::<4>(rows, row_bytes, out),
        }
        Ok(())
    };
    let size = float.group_bytes(source.columns);
    Packing { layout: FLOATS, row_bytes, size, pack: &pack, tail: 0, finish: &|_| {} }.place(source)
}

/// The weights in 12 bits each; none if that does not suit them, which may turn out when many of them are packed.
fn pack_bf12(float: Float, isa: Isa, source: &Source) -> Result<Option<Bf12>> {
    let Source { rows, columns, .. } = *source;
    let row_bytes = columns * float.bytes();
    let found = bf12::Found::new(rows, columns);
    let pack = |group: usize, rows: &[u8], out: &mut [u8]| found.pack(isa, float, group, rows, columns, out);
    let finish = |tail: &mut [u8]| found.write(tail);
    let (size, tail) = (bf12::group_bytes(columns), bf12::Found::tail_bytes(rows, columns));
    let packing = Packing { layout: BF12, row_bytes, size, pack: &pack, tail, finish: &finish };
    // Whether it suits them is known if they are in the file of packed weights in one form or the other.
    let known = |layout, len| source.key(layout).is_some_and(|key| source.store.has(&key, len));
    let floats = rows.div_ceil(ROWS).saturating_mul(float.group_bytes(columns));
    if float == Float::F32
        || known(FLOATS, floats)
        || !(known(BF12, packing.total(source)?) || bf12::packable(float, source.data)?)
    {
        return Ok(None);
    }
    match packing.place(source) {
        Err(_) if found.unfit() => Ok(None),
        packed => Ok(Some(Bf12::new(packed?, rows, columns))),
    }
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

/// [`interleave`] of 16 rows and pairs of 4 bytes: 16 pairs of each row are exchanged for 16 rows of each pair, in registers.
#[target_feature(enable = "avx512f,avx512bw")]
fn interleave_512(rows: &[u8], row_bytes: usize, out: &mut [u8]) {
    const WIDTH: usize = size_of::<__m512i>();
    assert!(rows.len() == ROWS * row_bytes && out.len() >= row_bytes.next_multiple_of(4) * ROWS);
    for from in (0..row_bytes).step_by(WIDTH) {
        let len = WIDTH.min(row_bytes - from);
        // Each a loop of its own: with a number of pairs that is not known before, they would go by way of memory.
        let (rows, out) = (&rows[from..], &mut out[from * ROWS..]);
        let mut pairs = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            // SAFETY: a load of the row's bytes.
            pairs[r] =
                unsafe { _mm512_maskz_loadu_epi8(u64::MAX >> (WIDTH - len), rows.as_ptr().add(r * row_bytes).cast()) };
        }
        let pairs = transpose(pairs);
        for p in 0..ROWS {
            let mask = if 4 * p < len { u16::MAX } else { 0 };
            // SAFETY: where the mask admits it there is room for the pair of all rows.
            unsafe { _mm512_mask_storeu_epi32(out.as_mut_ptr().wrapping_add(p * WIDTH).cast(), mask, pairs[p]) };
        }
    }
}

impl Packing<'_> {
    /// Bytes of the packed matrix.
    fn total(&self, source: &Source) -> Result<usize> {
        let groups = source.rows.div_ceil(ROWS);
        groups.checked_mul(self.size).and_then(|n| n.checked_add(self.tail)).ok_or_else(|| Error::OutOfMemory {
            bytes: u64::MAX,
            what: format!("{} rows of {} bytes", source.rows, self.row_bytes),
        })
    }

    /// The packed rows: from where they are kept, or packed now.
    fn place(&self, source: &Source) -> Result<SharedBytes> {
        let total = self.total(source)?;
        source.store.place(source.key(self.layout), total, || self.run(total, source))
    }

    /// Reads rows and packs them to `total` bytes.
    fn run(&self, total: usize, source: &Source) -> Result<AlignedBuf> {
        let mut packed = source.store.slabs.zeroed(total)?;
        if total > 0 {
            let (out, tail) = packed.as_mut_slice()[..total].split_at_mut(total - self.tail);
            match source.data.any_thread() {
                true => self.read_and_pack(source, out)?,
                false => self.read_then_pack(source, out)?,
            }
            (self.finish)(tail);
        }
        Ok(packed)
    }

    /// Each task reads what it packs: one thread's reading hides behind another's packing, and what was read is still
    /// in the core's own cache when it is packed.
    fn read_and_pack(&self, source: &Source, out: &mut [u8]) -> Result<()> {
        let portion = (PORTION / self.size.max(1)).max(1);
        let buffers = Mutex::new(Vec::new());
        for (n, out) in out.chunks_mut((portion * self.size).max(1)).enumerate() {
            source.store.slabs.populate(out, source.pool);
            self.read_and_pack_portion(source, n * portion, out, &buffers)?;
        }
        Ok(())
    }

    /// Groups from `first` on, as many as `out` has room for.
    fn read_and_pack_portion(
        &self,
        source: &Source,
        first: usize,
        out: &mut [u8],
        buffers: &Mutex<Vec<Vec<u8>>>,
    ) -> Result<()> {
        let group_bytes = ROWS * self.row_bytes;
        let groups = out.len() / self.size;
        // A few tasks for each thread, if there is enough for that.
        let step = (READ / group_bytes).min(groups.div_ceil(source.pool.threads() * 4)).max(1);
        let out = Rows::new(out, self.size);
        source.pool.try_run(groups.div_ceil(step), &|task| {
            let range = task * step..groups.min((task + 1) * step);
            let from = first + range.start;
            let rows = ((first + range.end) * ROWS).min(source.rows) - from * ROWS;
            let mut buffer = buffers.lock().pop().unwrap_or_default();
            buffer.resize(buffer.len().max(rows * self.row_bytes), 0);
            let bytes = &mut buffer[..rows * self.row_bytes];
            let packed = source.data.read(from * group_bytes, bytes).and_then(|()| {
                range.zip(bytes.chunks(group_bytes)).try_for_each(|(group, rows)| {
                    // SAFETY: each group is packed by one task.
                    (self.pack)(first + group, rows, unsafe { out.row(group) })
                })
            });
            buffers.lock().push(buffer);
            packed
        })
    }

    /// The calling thread reads pieces, and all threads pack each.
    fn read_then_pack(&self, source: &Source, out: &mut [u8]) -> Result<()> {
        let groups = source.rows.div_ceil(ROWS);
        let group_bytes = ROWS * self.row_bytes;
        let step = (PIECE / group_bytes).clamp(1, groups);
        let mut piece = vec![0; step * group_bytes];
        for (n, out) in out.chunks_mut(step * self.size).enumerate() {
            let first = n * step * ROWS;
            let rows = (source.rows - first).min(step * ROWS);
            let bytes = &mut piece[..rows * self.row_bytes];
            source.data.read(first * self.row_bytes, bytes)?;
            source.store.slabs.populate(out, source.pool);
            let (out, groups) = (Rows::new(out, self.size), rows.div_ceil(ROWS));
            // A few groups a task: packing is quick, and a task should be worth its claim.
            let tile = groups.div_ceil(source.pool.threads() * 4).max(1);
            source.pool.try_run(groups.div_ceil(tile), &|task| {
                (task * tile..groups.min((task + 1) * tile)).try_for_each(|group| {
                    let rows = &bytes[group * group_bytes..bytes.len().min((group + 1) * group_bytes)];
                    // SAFETY: each group is packed by one task.
                    (self.pack)(n * step + group, rows, unsafe { out.row(group) })
                })
            })?;
        }
        Ok(())
    }
}

/// Packs group `group` of `rows` rows.
fn pack_group(layout: &Layout, isa: Isa, rows: usize, row_bytes: usize, group: usize, bytes: &[u8], out: &mut [u8]) {
    let first = group * ROWS;
    let n = ROWS.min(rows - first);
    let group = std::array::from_fn::<_, ROWS, _>(|i| &bytes[(first + i.min(n - 1)) * row_bytes..][..row_bytes]);
    layout.pack(isa, &group[..n], out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_of_all_rows_are_the_same_by_vectors() {
        if !Isa::available().any(|isa| isa == Isa::Avx512Vnni) {
            eprintln!("SKIPPED: no AVX-512");
            return;
        }
        for columns in [1, 2, 3, 31, 32, 33, 64, 575, 576] {
            let row_bytes = 2 * columns;
            let rows: Vec<u8> = (0..ROWS * row_bytes).map(|i| (i * 7 + i / 251) as u8).collect();
            let [mut by_words, mut by_vectors] = [1, 2].map(|fill| vec![fill; columns.div_ceil(2) * 4 * ROWS]);
            interleave::<4>(&rows, row_bytes, &mut by_words);
            // SAFETY: the processor has AVX-512.
            unsafe { interleave_512(&rows, row_bytes, &mut by_vectors) };
            // The scalar one leaves what is beside an odd number's last column as the memory was.
            for (i, (a, b)) in by_words.chunks_exact(4).zip(by_vectors.chunks_exact(4)).enumerate() {
                let whole = columns % 2 == 0 || i < by_words.len() / 4 - ROWS;
                assert!(
                    if whole { a == b } else { a[..2] == b[..2] && b[2..] == [0, 0] },
                    "{columns} columns, word {i}"
                );
            }
        }
    }

    /// A file that is read, by any thread or by one.
    struct Bytes(Vec<u8>, bool);

    impl crate::gguf::Source for Bytes {
        fn name(&self) -> &str {
            "bytes"
        }
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let bytes = self.0.get(offset as usize..).and_then(|bytes| bytes.get(..buffer.len()));
            buffer.copy_from_slice(bytes.ok_or_else(|| Error::Internal("the end of the file".into()))?);
            Ok(())
        }
        fn any_thread(&self) -> bool {
            self.1
        }
    }

    #[test]
    fn rows_as_the_file_has_them_are_read_in_pieces() {
        // More than is read at a time, and than memory is found for; rows that divide neither.
        let (rows, columns, offset) = (40_011, 416, 7);
        let len = rows * columns / 32 * 34;
        assert!(len > PORTION && len % READ != 0);
        let bytes: Vec<u8> = (0..offset + len).map(|i| ((i * 31 + i / 253) % 120) as u8).collect();
        let tensor = crate::tensor::Tensor {
            name: "token_embd.weight".into(),
            tensor_type: TensorType::Q8_0,
            dimensions: vec![columns, rows],
            part: 0,
            offset: offset as u64,
            bytes: len,
        };
        let pool = Pool::new(2).expect("a pool");
        let place = |bytes: &Bytes| {
            let data = TensorData::in_file(bytes, &tensor);
            Matrix::place(TensorType::Q8_0, rows, columns, &data, None, &pool, &Store::default())
        };
        for any_thread in [true, false] {
            let mut file = Bytes(bytes.clone(), any_thread);
            let matrix = place(&file).expect("a matrix");
            for row in [0, 1, 600, rows - 1] {
                let from = offset + row * columns / 32 * 34;
                assert!(matrix.plain_row(row) == Some(&bytes[from..from + columns / 32 * 34]), "row {row}");
            }
            file.0.pop();
            assert!(place(&file).is_err(), "a file that has become shorter");
        }
    }
}
