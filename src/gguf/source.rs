//! Where the bytes of a file come from. Three ways, one face: read at an offset.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};

/// Random access to the bytes of one file.
pub trait Source: Send + Sync {
    /// The file's name, for messages.
    fn name(&self) -> &str;
    /// Its length in bytes.
    fn len(&self) -> u64;
    /// Whether it has no byte at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Fills `buffer` from `offset`; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// When it was last changed, in nanoseconds since 1970; `None` where that is not known.
    fn modified(&self) -> Option<u64> {
        None
    }
    /// Whether any thread may read, several at a time; else only the one that loads.
    fn any_thread(&self) -> bool {
        true
    }
    /// The whole file, if it lies in memory that may be kept without a copy.
    fn resident(&self) -> Option<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        None
    }
}

/// Opens a regular file; says so when it is a directory.
fn open(path: &Path) -> Result<(String, File, u64)> {
    let name = path.display().to_string();
    let file = File::open(path).map_err(|e| Error::io(&name, e))?;
    let metadata = file.metadata().map_err(|e| Error::io(&name, e))?;
    if metadata.is_dir() {
        return Err(Error::malformed(name, "is a directory, expected a GGUF file"));
    }
    if !metadata.is_file() {
        return Err(Error::malformed(name, "is not a regular file, expected a GGUF file"));
    }
    let len = metadata.len();
    Ok((name, file, len))
}

/// A file that is read by system calls: a file that shrinks under us is an error, never a signal.
pub struct FileSource {
    name: String,
    file: File,
    len: u64,
    modified: Option<u64>,
}

impl FileSource {
    /// Opens `path`.
    pub fn open(path: &Path) -> Result<FileSource> {
        let (name, file, len) = open(path)?;
        let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let modified = modified.and_then(|time| u64::try_from(time.as_nanos()).ok());
        Ok(FileSource { name, file, len, modified })
    }
}

impl Source for FileSource {
    fn name(&self) -> &str {
        &self.name
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read_exact_at(buffer, offset).map_err(|e| Error::io(&self.name, e))
    }
    fn modified(&self) -> Option<u64> {
        self.modified
    }
}

/// A file mapped into memory: tensors are used where they lie.
///
/// The host must not truncate the file while it is mapped: the system would answer an access with SIGBUS. The
/// default way of loading ([`FileSource`]) has no such condition.
pub struct MappedSource {
    name: String,
    map: Arc<memmap2::Mmap>,
}

impl MappedSource {
    /// Maps `path`.
    pub fn open(path: &Path) -> Result<MappedSource> {
        let (name, file, _) = open(path)?;
        // SAFETY: the mapping is private and read-only; a change of the file by others can change weights or raise
        // SIGBUS, which is the documented condition of mapped loading, and no type has invalid bit patterns here.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(&name, e))?;
        Ok(MappedSource { name, map: Arc::new(map) })
    }
}

impl Source for MappedSource {
    fn name(&self) -> &str {
        &self.name
    }
    fn len(&self) -> u64 {
        self.map.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        copy_from(&self.name, &self.map, offset, buffer)
    }
    fn resident(&self) -> Option<Arc<dyn AsRef<[u8]> + Send + Sync>> {
        Some(self.map.clone())
    }
}

/// Bytes that the caller lends for the duration of a load.
pub struct MemorySource<'a> {
    bytes: &'a [u8],
}

impl<'a> MemorySource<'a> {
    /// Wraps `bytes`.
    pub fn new(bytes: &'a [u8]) -> MemorySource<'a> {
        MemorySource { bytes }
    }
}

impl Source for MemorySource<'_> {
    fn name(&self) -> &str {
        "<memory>"
    }
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        copy_from(self.name(), self.bytes, offset, buffer)
    }
}

/// A host's own reader, such as an entry of a game's asset pack.
pub struct ReaderSource<F> {
    len: u64,
    read: F,
}

impl<F: Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync> ReaderSource<F> {
    /// `read(offset, buffer)` fills the buffer or fails; `len` is the file's length in bytes.
    pub fn new(len: u64, read: F) -> ReaderSource<F> {
        ReaderSource { len, read }
    }
}

impl<F: Fn(u64, &mut [u8]) -> io::Result<()> + Send + Sync> Source for ReaderSource<F> {
    fn name(&self) -> &str {
        "<reader>"
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        (self.read)(offset, buffer).map_err(|e| Error::io("<reader>", e))
    }
    fn any_thread(&self) -> bool {
        false // the host's function: it is promised the thread that loads
    }
}

fn copy_from(name: &str, bytes: &[u8], offset: u64, buffer: &mut [u8]) -> Result<()> {
    let from = usize::try_from(offset).ok();
    let range = from.and_then(|from| Some(from..from.checked_add(buffer.len())?));
    match range.and_then(|range| bytes.get(range)) {
        Some(found) => {
            buffer.copy_from_slice(found);
            Ok(())
        }
        None => Err(Error::malformed(name, format!("ends before byte {}", offset.saturating_add(buffer.len() as u64)))),
    }
}
