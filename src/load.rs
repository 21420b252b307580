//! A model's files, opened and checked: metadata, tensors, and the bytes of each tensor on demand.

use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gguf::{Header, Metadata, Source, open_parts};
use crate::tensor::{Tensor, TensorTable};

/// A GGUF model of one or more files.
pub struct ModelFile<'a> {
    /// The key-value pairs of the first part.
    pub metadata: Metadata,
    /// All tensors of all parts.
    pub tensors: TensorTable,
    /// GGUF version of the first part.
    pub version: u32,
    sources: Vec<Box<dyn Source + 'a>>,
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
        for (source, header) in parts {
            if metadata.is_none() {
                version = header.version;
                metadata = Some(header.metadata);
            }
            sources.push(source);
        }
        let metadata = metadata.ok_or_else(|| Error::Internal("a model without files".into()))?;
        Ok(ModelFile { metadata, tensors, version, sources })
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

    /// The bytes of `tensor`: where they lie if the file is resident, else read into memory of their own.
    pub fn bytes(&self, tensor: &Tensor) -> Result<TensorBytes> {
        let source = self.sources.get(tensor.part).ok_or_else(|| Error::Internal("a tensor without a file".into()))?;
        let bytes = match source.resident() {
            Some(owner) => TensorBytes::new(owner, tensor.offset as usize, tensor.bytes),
            None => {
                let mut bytes = Vec::new();
                bytes.try_reserve_exact(tensor.bytes).map_err(|_| Error::OutOfMemory {
                    bytes: tensor.bytes as u64,
                    what: format!("tensor '{}'", tensor.name),
                })?;
                bytes.resize(tensor.bytes, 0);
                source.read_at(tensor.offset, &mut bytes)?;
                TensorBytes::new(Arc::new(bytes), 0, tensor.bytes)
            }
        };
        bytes.ok_or_else(|| Error::Internal(format!("tensor '{}' lies outside its file", tensor.name)))
    }
}
