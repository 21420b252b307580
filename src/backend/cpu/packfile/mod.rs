//! A file of packed weights, so that a model's second load maps what the first one packed.
//!
//! The file begins with a header and ends with a table; between them lie the packed tensors, each from a multiple of
//! 64 KiB on, so that it can be used where it is mapped and processes share its memory. All numbers are little-endian words of eight bytes:
//!
//! | header | | table entry | |
//! |---|---|---|---|
//! | 0 | `RFPACKED` | 0 | file of the model that has the tensor (low half), tensor type (high half) |
//! | 1 | [`VERSION`] | 1 | how it is packed |
//! | 2 | fingerprint of the model's files | 2 | offset in the model's file |
//! | 3 | entries of the table | 3 | rows |
//! | 4 | offset of the table | 4 | columns |
//! | 5 | hash of the table | 5 | offset in this file |
//! | 6 | 0 | 6 | bytes |
//! | 7 | hash of the words before | 7 | hash of the bytes |
//!
//! Nothing in it is believed: what does not fit the model, this library's packing or its own hashes is not used, and the
//! file is written anew. The hashes find damage, not forgery: who may write the file decides what the model says, as who may
//! write the model does. Whatever it holds, nothing is read outside of it, as long as it is not made shorter while it is mapped; the
//! library itself never changes a file in place, it only renames a new one over it.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use memmap2::Mmap;
use parking_lot::Mutex;

use super::memory::{AlignedBuf, SharedBytes, Slabs};
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::quant::TensorType;
use crate::xxh64::xxh64;

/// To be raised with every change of a packed layout (a test of `pack` tells of one) or of this file's own.
const VERSION: u64 = 2;
const MAGIC: u64 = u64::from_le_bytes(*b"RFPACKED");
/// Tensors begin at multiples of it: the largest page of processors that may map the file.
const ALIGNMENT: u64 = 64 << 10;
/// Words of the header and of an entry, and their bytes.
const WORDS: usize = 8;
const RECORD: usize = WORDS * 8;
/// Bytes that are hashed by one task.
const CHUNK: usize = 1 << 20;

/// Which tensor, or rows of one, and how they are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The model's file that has it.
    pub part: u32,
    /// The type of its elements.
    pub tensor_type: TensorType,
    /// A number for each way to pack.
    pub packing: u64,
    /// Offset of its first byte in the model's file.
    pub offset: u64,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
}

type Record = [u64; WORDS];

/// Where packed weights lie: in memory, or in a [`PackFile`].
#[derive(Default)]
pub struct Store {
    /// Memory of our own.
    pub slabs: Slabs,
    /// The file that keeps what is packed.
    pub file: Option<Arc<PackFile>>,
}

impl Store {
    /// Whether the file has the `len` bytes that `key` stands for.
    pub fn has(&self, key: &Key, len: usize) -> bool {
        self.file.as_ref().and_then(|file| file.found.as_ref()).is_some_and(|found| found.get(key, len).is_some())
    }

    /// The packed form of `len` bytes that `key` stands for: from the file, or what `pack` makes now. Weights without a
    /// key are packed.
    pub fn place(
        &self,
        key: Option<Key>,
        len: usize,
        pack: impl FnOnce() -> Result<AlignedBuf>,
    ) -> Result<SharedBytes> {
        match (&self.file, key) {
            (Some(file), Some(key)) => file.place(key, len, pack),
            _ => pack().map(SharedBytes::from),
        }
    }
}

/// A file of packed weights, there or to be written.
pub struct PackFile {
    path: PathBuf,
    fingerprint: u64,
    found: Option<Found>,
    /// What the model uses, until [`PackFile::finish`].
    used: Mutex<Vec<(Key, SharedBytes)>>,
    /// Something that is used is not in the file.
    incomplete: AtomicBool,
}

/// A file that has passed all checks.
struct Found {
    map: Arc<Mmap>,
    entries: HashMap<Key, (usize, usize)>,
}

impl PackFile {
    /// Opens the file at `path` for the model with `fingerprint`. The text says why a file that is there is not used.
    pub fn open(path: PathBuf, fingerprint: u64, pool: &Pool) -> (PackFile, Option<String>) {
        let (found, complaint) = match Found::open(&path, fingerprint, pool) {
            Ok(found) => (found, None),
            Err(why) => (None, Some(format!("{} {why}", path.display()))),
        };
        let incomplete = AtomicBool::new(false);
        (PackFile { path, fingerprint, found, used: Mutex::default(), incomplete }, complaint)
    }

    /// Where it is, or will be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn place(&self, key: Key, len: usize, pack: impl FnOnce() -> Result<AlignedBuf>) -> Result<SharedBytes> {
        let bytes = match self.found.as_ref().and_then(|found| found.get(&key, len)) {
            Some(bytes) => bytes,
            None => {
                self.incomplete.store(true, Ordering::Relaxed);
                pack()?.into()
            }
        };
        self.used.lock().push((key, bytes.clone()));
        Ok(bytes)
    }

    /// Writes the file if something that was placed is not in it; the bytes that were written. What the file has besides
    /// stays in it: another load may have put other layers on GPUs.
    pub fn finish(&self) -> Result<Option<u64>> {
        let mut all = std::mem::take(&mut *self.used.lock());
        if !self.incomplete.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if let Some(found) = &self.found {
            all.extend(found.entries.iter().filter_map(|(key, &(_, len))| Some((*key, found.get(key, len)?))));
        }
        let mut seen = HashSet::new();
        all.retain(|(key, _)| seen.insert(*key));
        self.write(&all).map(Some).map_err(|e| Error::io(self.path.display().to_string(), e))
    }

    /// Writes a new file beside the old one and renames it over that: whoever maps the old one keeps it, and nobody sees half
    /// of the new one, whatever happens meanwhile.
    fn write(&self, all: &[(Key, SharedBytes)]) -> io::Result<u64> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let name = self.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path.with_file_name(format!(".{name}.{}-{number}.tmp", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let written = fill(&file, self.fingerprint, all).and_then(|len| {
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            Ok(len)
        });
        if written.is_err() {
            // The first error is the one to tell of.
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

impl Found {
    /// Maps and checks the file; `None` if there is none, else why it cannot be used.
    fn open(path: &Path, fingerprint: u64, pool: &Pool) -> Result<Option<Found>, String> {
        let refused = |e: io::Error| format!("cannot be read: {e}");
        match fs::metadata(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(refused(e)),
            Ok(metadata) if !metadata.is_file() => return Err("is not a regular file".into()),
            Ok(_) => {}
        }
        let file = File::open(path).map_err(refused)?;
        // SAFETY: read-only bytes, any of which are valid. That the file does not shrink is the condition of the option.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(refused)?);
        let records = Found::check(&map, fingerprint)?;
        let entries: Option<HashMap<Key, (usize, usize)>> = records.iter().map(entry_of).collect();
        let entries = entries.ok_or("has an entry of an unknown type")?;
        if !contents_are_whole(&map, &records, pool) {
            return Err("is damaged: the hash of a tensor is wrong".into());
        }
        Ok(Some(Found { map, entries }))
    }

    /// The entries of the table, each of which lies within the file.
    fn check(map: &[u8], fingerprint: u64) -> Result<Vec<Record>, String> {
        let [magic, version, of, count, table, table_hash, _, hash] =
            map.first_chunk::<RECORD>().map(record).ok_or("is too short for a header")?;
        if magic != MAGIC {
            return Err("is not a file of packed weights".into());
        }
        if version != VERSION {
            return Err(format!("has version {version}, this library writes {VERSION}"));
        }
        let hashed = map.get(..RECORD - 8).unwrap_or_default();
        if hash != xxh64(hashed, 0) {
            return Err("is damaged: the hash of the header is wrong".into());
        }
        if of != fingerprint {
            return Err("belongs to another model, or to another version of its file".into());
        }
        let records = usize::try_from(table).ok().and_then(|table| map.get(table..)).unwrap_or_default();
        if Some(records.len() as u64) != count.checked_mul(RECORD as u64) || table_hash != xxh64(records, 0) {
            return Err("is damaged: its table is not whole".into());
        }
        let records: Vec<Record> = records.as_chunks::<RECORD>().0.iter().map(record).collect();
        let inside = |&[.., offset, len, _]: &Record| {
            offset.is_multiple_of(ALIGNMENT) && offset.checked_add(len).is_some_and(|end| end <= table)
        };
        match records.iter().all(inside) {
            true => Ok(records),
            false => Err("is damaged: a tensor lies outside of it".into()),
        }
    }

    fn get(&self, key: &Key, len: usize) -> Option<SharedBytes> {
        let &(offset, found) = self.entries.get(key)?;
        (found == len).then(|| SharedBytes::mapped(&self.map, offset, len)).flatten()
    }
}

fn record(bytes: &[u8; RECORD]) -> Record {
    let words = bytes.as_chunks::<8>().0;
    std::array::from_fn(|i| words.get(i).map_or(0, |word| u64::from_le_bytes(*word)))
}

fn entry_of(&[what, packing, source, rows, columns, offset, len, _]: &Record) -> Option<(Key, (usize, usize))> {
    let tensor_type = TensorType::from_id((what >> 32) as u32)?;
    let key = Key { part: what as u32, tensor_type, packing, offset: source, rows, columns };
    Some((key, (usize::try_from(offset).ok()?, usize::try_from(len).ok()?)))
}

/// Hashes of the pieces of a tensor, hashed: pieces, so that threads can share the work.
fn hash_of(pieces: impl Iterator<Item = u64>) -> u64 {
    let pieces: Vec<u8> = pieces.flat_map(u64::to_le_bytes).collect();
    xxh64(&pieces, 0)
}

/// Whether all tensors have the hashes that the table states. This is also what brings the file to memory.
fn contents_are_whole(map: &[u8], records: &[Record], pool: &Pool) -> bool {
    let bytes_of =
        |&[.., offset, len, _]: &Record| map.get(offset as usize..(offset + len) as usize).unwrap_or_default();
    let pieces: Vec<(&[u8], AtomicU64)> =
        records.iter().flat_map(|r| bytes_of(r).chunks(CHUNK)).map(|piece| (piece, AtomicU64::new(0))).collect();
    pool.run(pieces.len(), &|i| {
        if let Some((piece, hash)) = pieces.get(i) {
            hash.store(xxh64(piece, 0), Ordering::Relaxed);
        }
    });
    let mut hashes = pieces.iter().map(|(_, hash)| hash.load(Ordering::Relaxed));
    records.iter().all(|r @ &[.., hash]| {
        let count = bytes_of(r).len().div_ceil(CHUNK);
        hash_of(hashes.by_ref().take(count)) == hash
    })
}

/// Writes tensors, table and header; the length of the file.
fn fill(file: &File, fingerprint: u64, all: &[(Key, SharedBytes)]) -> io::Result<u64> {
    let mut end = ALIGNMENT;
    let mut table = Vec::with_capacity(all.len() * RECORD);
    let put = |out: &mut Vec<u8>, words: &[u64]| out.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    for (key, bytes) in all {
        let bytes = bytes.as_slice();
        file.write_all_at(bytes, end)?;
        let what = u64::from(key.part) | u64::from(key.tensor_type as u32) << 32;
        let hash = hash_of(bytes.chunks(CHUNK).map(|piece| xxh64(piece, 0)));
        put(&mut table, &[what, key.packing, key.offset, key.rows, key.columns, end, bytes.len() as u64, hash]);
        end = (end + bytes.len() as u64).next_multiple_of(ALIGNMENT);
    }
    file.write_all_at(&table, end)?;
    let mut header = Vec::with_capacity(RECORD);
    put(&mut header, &[MAGIC, VERSION, fingerprint, all.len() as u64, end, xxh64(&table, 0), 0]);
    let hash = xxh64(&header, 0);
    put(&mut header, &[hash]);
    file.write_all_at(&header, 0)?;
    Ok(end + table.len() as u64)
}

#[cfg(test)]
mod tests;
