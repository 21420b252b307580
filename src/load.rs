//! A model's files, opened and checked: metadata, tensors, and the bytes of each tensor on demand.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf::{Header, Metadata, Source, open_parts};
use crate::tensor::{Tensor, TensorTable};
use crate::xxh64::xxh64;

/// A GGUF model of one or more files.
pub struct ModelFile<'a> {
    /// The key-value pairs of the first part.
    pub metadata: Metadata,
    /// All tensors of all parts.
    pub tensors: TensorTable,
    /// GGUF version of the first part.
    pub version: u32,
    sources: Vec<Box<dyn Source + 'a>>,
    /// Where the data section of each begins.
    data_offsets: Vec<u64>,
}

/// The bytes of one tensor, in memory that they keep alive.
#[derive(Clone)]
pub struct TensorBytes {
    owner: Arc<dyn AsRef<[u8]> + Send + Sync>,
    offset: usize,
    len: usize,
}

impl TensorBytes {
    /// `len` bytes at `offset` of `owner`; `None` if they are not inside.
    pub fn new(owner: Arc<dyn AsRef<[u8]> + Send + Sync>, offset: usize, len: usize) -> Option<TensorBytes> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= owner.as_ref().as_ref().len());
        inside.then_some(TensorBytes { owner, offset, len })
    }

    /// `len` of these bytes from `offset`; `None` if they are not inside.
    pub fn slice(&self, offset: usize, len: usize) -> Option<TensorBytes> {
        let inside = offset.checked_add(len).is_some_and(|end| end <= self.len);
        inside.then(|| TensorBytes { owner: self.owner.clone(), offset: self.offset + offset, len })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.owner.as_ref().as_ref().get(self.offset..self.offset + self.len).unwrap_or_default()
    }
}

/// The bytes of a tensor, or of some of its rows: where they lie, or to be read piece by piece, so that a large tensor
/// need not be in memory a second time while a backend rearranges it.
pub struct TensorData<'a>(Place<'a>);

enum Place<'a> {
    Resident(TensorBytes),
    File { source: &'a dyn Source, tensor: &'a Tensor, offset: usize, len: usize },
}

impl From<TensorBytes> for TensorData<'_> {
    fn from(bytes: TensorBytes) -> Self {
        TensorData(Place::Resident(bytes))
    }
}

impl<'a> TensorData<'a> {
    /// All of `tensor`, which lies in `source`.
    pub(crate) fn in_file(source: &'a dyn Source, tensor: &'a Tensor) -> TensorData<'a> {
        TensorData(Place::File { source, tensor, offset: 0, len: tensor.bytes })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Resident(bytes) => bytes.len,
            Place::File { len, .. } => *len,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `count` of these bytes from `from`; `None` if they are not inside.
    pub fn slice(&self, from: usize, count: usize) -> Option<Self> {
        match &self.0 {
            Place::Resident(bytes) => bytes.slice(from, count).map(TensorData::from),
            Place::File { source, tensor, offset, len } => {
                let inside = from.checked_add(count).is_some_and(|end| end <= *len);
                inside.then(|| TensorData(Place::File { source: *source, tensor, offset: offset + from, len: count }))
            }
        }
    }

    /// Which of the model's files has the bytes, and where in it; `None` if they are only in memory.
    pub fn location(&self) -> Option<(usize, u64)> {
        match &self.0 {
            Place::Resident(_) => None,
            Place::File { tensor, offset, .. } => Some((tensor.part, tensor.offset + *offset as u64)),
        }
    }

    /// Whether any thread may [`TensorData::read`], several at a time; else only the one that loads.
    pub fn any_thread(&self) -> bool {
        match &self.0 {
            Place::Resident(_) => true,
            Place::File { source, .. } => source.any_thread(),
        }
    }

    /// Fills `buffer` with the bytes from `from`, which begins a block. What is read from a file is checked for scales
    /// that are not finite; of resident bytes that would read all of a file that is mapped so as not to be read before
    /// it is used, and damage shows in the logits.
    pub fn read(&self, from: usize, buffer: &mut [u8]) -> Result<()> {
        let outside = || Error::Internal(format!("{} bytes from {from} of a tensor", buffer.len()));
        let part = self.slice(from, buffer.len()).ok_or_else(outside)?;
        match &part.0 {
            Place::Resident(bytes) => buffer.copy_from_slice(bytes.as_slice()),
            Place::File { source, tensor, offset, .. } => {
                source.read_at(tensor.offset + *offset as u64, buffer)?;
                if let Some(block) = tensor.tensor_type.first_non_finite_scale(buffer) {
                    let block = block + offset / tensor.tensor_type.format().block_bytes;
                    return Err(Error::malformed(
                        source.name(),
                        format!("tensor '{}' holds a scale that is not finite in block {block}", tensor.name),
                    ));
                }
            }
        }
        Ok(())
    }

    /// All bytes: where they lie, or read into memory of their own.
    pub fn whole(&self) -> Result<TensorBytes> {
        if let Place::Resident(bytes) = &self.0 {
            return Ok(bytes.clone());
        }
        let len = self.len();
        let mut bytes = Vec::new();
        bytes
            .try_reserve_exact(len)
            .map_err(|_| Error::OutOfMemory { bytes: len as u64, what: "a tensor of the file".into() })?;
        bytes.resize(len, 0);
        self.read(0, &mut bytes)?;
        TensorBytes::new(Arc::new(bytes), 0, len).ok_or_else(|| Error::Internal("a tensor outside itself".into()))
    }
}

impl<'a> ModelFile<'a> {
    /// Opens the file at `path` and, if its name is that of a part, all its fellows. `mapped` maps the files
    /// instead of reading them; they must then not be truncated while the model lives.
    pub fn open(path: &Path, mapped: bool) -> Result<ModelFile<'static>> {
        ModelFile::from_parts(open_parts(path, mapped)?)
    }

    /// A model in one piece from any source.
    pub fn from_source(source: Box<dyn Source + 'a>) -> Result<ModelFile<'a>> {
        let header = Header::parse(source.as_ref())?;
        let count = header.metadata.u64("split.count")?.unwrap_or(1);
        if count > 1 {
            return Err(Error::unsupported(
                source.name(),
                format!("is part of a model in {count} files; load it by the path of its first file"),
            ));
        }
        ModelFile::from_parts(vec![(source, header)])
    }

    fn from_parts(parts: Vec<(Box<dyn Source + 'a>, Header)>) -> Result<ModelFile<'a>> {
        let tensors = TensorTable::new(parts.iter().map(|(source, header)| (source.as_ref() as &dyn Source, header)))?;
        let mut metadata = None;
        let mut version = 0;
        let mut sources = Vec::with_capacity(parts.len());
        let data_offsets = parts.iter().map(|(_, header)| header.data_offset).collect();
        for (source, header) in parts {
            if metadata.is_none() {
                version = header.version;
                metadata = Some(header.metadata);
            }
            sources.push(source);
        }
        let metadata = metadata.ok_or_else(|| Error::Internal("a model without files".into()))?;
        Ok(ModelFile { metadata, tensors, version, sources, data_offsets })
    }

    /// The name of the file, for messages.
    pub fn name(&self) -> &str {
        self.metadata.file()
    }

    /// Whether tensors lie where the file is mapped, so that using them reads the file.
    pub fn is_mapped(&self) -> bool {
        self.sources.iter().any(|source| source.resident().is_some())
    }

    /// Bytes of all tensors.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|t| t.bytes as u64).sum()
    }

    /// A number that changes when the files do: a hash of each file's length, time of modification, and bytes before the
    /// data section, and of the first, middle and last 4 KiB of each tensor. Reading all of a model to be quite sure would
    /// take longer than packing it: a file that was changed only in between, and whose time was set back, goes unnoticed.
    pub fn fingerprint(&self) -> Result<u64> {
        const SAMPLE: usize = 4096;
        const PIECE: usize = 1 << 20;
        let mut buffer = Vec::new();
        let mut hash = 0;
        let mut add = |source: &dyn Source, offset: u64, len: usize| {
            buffer.resize(len, 0);
            source.read_at(offset, &mut buffer)?;
            hash = xxh64(&buffer, hash);
            Ok::<u64, Error>(hash)
        };
        let mut about = Vec::new();
        for (source, &end) in self.sources.iter().zip(&self.data_offsets) {
            about.extend([source.len(), source.modified().unwrap_or(0)].map(u64::to_le_bytes));
            // A file without tensors may end before its data section would begin.
            let end = end.min(source.len());
            for from in (0..end).step_by(PIECE) {
                add(source.as_ref(), from, (end - from).min(PIECE as u64) as usize)?;
            }
        }
        for tensor in self.tensors.iter() {
            let Some(source) = self.sources.get(tensor.part) else { continue };
            let len = tensor.bytes.min(SAMPLE);
            let last = tensor.bytes - len;
            for from in [0, last / 2, last] {
                add(source.as_ref(), tensor.offset + from as u64, len)?;
            }
        }
        Ok(xxh64(about.as_flattened(), hash))
    }

    /// The bytes of `tensor`.
    pub fn data<'f>(&'f self, tensor: &'f Tensor) -> Result<TensorData<'f>> {
        let source = self.sources.get(tensor.part).ok_or_else(|| Error::Internal("a tensor without a file".into()))?;
        match source.resident() {
            Some(owner) => TensorBytes::new(owner, tensor.offset as usize, tensor.bytes)
                .map(TensorData::from)
                .ok_or_else(|| Error::Internal(format!("tensor '{}' lies outside its file", tensor.name))),
            None => Ok(TensorData::in_file(source.as_ref(), tensor)),
        }
    }
}
