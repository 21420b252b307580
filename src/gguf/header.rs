//! The header: magic, version, metadata, tensor directory.

use std::collections::HashSet;

use super::reader::Reader;
use super::{DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_DIMENSIONS, MAX_KEY_BYTES, MAX_METADATA_ENTRIES};
use super::{MAX_TENSOR_NAME_BYTES, MAX_TENSORS, Metadata, Source};
use crate::error::{Error, Result};

/// An entry of the tensor directory, as the file states it.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorInfo {
    /// GGUF's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Dimensions, the contiguous one first: a matrix is `[columns, rows]`.
    pub dimensions: Vec<u64>,
    /// ggml's number of the tensor type.
    pub type_id: u32,
    /// Offset of the first byte from the beginning of the data section.
    pub offset: u64,
}

/// Everything that stands before the tensor data.
#[derive(Debug, Clone)]
pub struct Header {
    /// 1, 2 or 3.
    pub version: u32,
    /// The key-value pairs.
    pub metadata: Metadata,
    /// The tensor directory, in file order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of every tensor in the data section, in bytes.
    pub alignment: u32,
    /// Offset in the file of the data section.
    pub data_offset: u64,
}

impl Header {
    /// Parses the header of `source`.
    pub fn parse(source: &dyn Source) -> Result<Header> {
        let mut reader = Reader::new(source);
        let version = read_version(&mut reader, source)?;
        reader.wide = version >= 2;

        let n_tensors = reader.count("the tensor count")?;
        let n_entries = reader.count("the metadata count")?;
        for (n, limit, what) in
            [(n_tensors, MAX_TENSORS, "tensors"), (n_entries, MAX_METADATA_ENTRIES, "metadata entries")]
        {
            if n > limit {
                return Err(reader.malformed(format!("claims {n} {what}, the limit is {limit}")));
            }
        }
        // The shortest entry: a key's length, a type and one byte; a name's length, dimensions, type and offset.
        reader.need(n_entries, 9, "the metadata section")?;
        reader.need(n_tensors, 20, "the tensor directory")?;

        let metadata = read_metadata(&mut reader, source, n_entries)?;
        let alignment = metadata.u32("general.alignment")?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(reader.malformed(format!(
                "general.alignment is {alignment}, expected a power of two up to {MAX_ALIGNMENT}"
            )));
        }
        let tensors = read_directory(&mut reader, n_tensors)?;
        let data_offset = reader
            .position()
            .checked_next_multiple_of(u64::from(alignment))
            .ok_or_else(|| reader.malformed("the data section's offset overflows"))?;
        Ok(Header { version, metadata, tensors, alignment, data_offset })
    }
}

fn read_version(reader: &mut Reader, source: &dyn Source) -> Result<u32> {
    if source.is_empty() {
        return Err(reader.malformed("the file is empty"));
    }
    let mut start = [0u8; 24];
    let n = start.len().min(source.len() as usize);
    if let Some(start) = start.get_mut(..n) {
        source.read_at(0, start)?;
    }
    if !start.starts_with(b"GGUF") {
        return Err(reader.malformed(format!("is not a GGUF file: {}", describe_start(start.get(..n).unwrap_or(&[])))));
    }
    reader.take(4, "the magic")?;
    let version = reader.u32("the version")?;
    match version {
        1..=3 => Ok(version),
        _ if (1..=3).contains(&version.swap_bytes()) => Err(Error::unsupported(
            source.name(),
            format!("is a big-endian GGUF file (version {}); convert it to little-endian", version.swap_bytes()),
        )),
        _ => Err(Error::unsupported(source.name(), format!("has GGUF version {version}; versions 1 to 3 are served"))),
    }
}

/// What a file seems to be instead: downloads that went wrong are the usual cause.
fn describe_start(start: &[u8]) -> String {
    let text: String =
        start.iter().take(16).map(|&b| if (0x20..0x7f).contains(&b) { b as char } else { '.' }).collect();
    let lower = start.to_ascii_lowercase();
    let trimmed = lower.trim_ascii_start();
    let hint = if trimmed.starts_with(b"<!doctype") || trimmed.starts_with(b"<html") {
        "an HTML page, so the download failed"
    } else if start.starts_with(b"version https://git") {
        "a Git LFS pointer, so fetch the real file with git lfs"
    } else if start.starts_with(b"PK\x03\x04") {
        "a zip archive (a PyTorch checkpoint?), so convert the model to GGUF"
    } else if matches!(
        start,
        [b't', b'j', b'g', b'g', ..] | [b'f', b'm', b'g', b'g', ..] | [b'l', b'm', b'g', b'g', ..]
    ) {
        "a GGML file from before GGUF, so convert the model again"
    } else if start.get(8) == Some(&b'{') {
        "perhaps a safetensors file, so convert the model to GGUF"
    } else {
        "expected 'GGUF'"
    };
    format!("it begins with '{text}' ({hint})")
}

fn read_metadata(reader: &mut Reader, source: &dyn Source, n: u64) -> Result<Metadata> {
    let mut metadata = Metadata::new(source.name());
    for i in 0..n {
        let key = reader.string(MAX_KEY_BYTES, &format!("metadata key {i}"))?;
        let type_id = reader.u32(&format!("the type of metadata key '{key}'"))?;
        let value = reader.value(type_id, &key)?;
        if !metadata.insert(key.clone(), value) {
            return Err(reader.malformed(format!("metadata key '{key}' occurs twice")));
        }
    }
    Ok(metadata)
}

fn read_directory(reader: &mut Reader, n: u64) -> Result<Vec<TensorInfo>> {
    let mut tensors = Vec::with_capacity(n as usize);
    let mut names = HashSet::with_capacity(n as usize);
    for i in 0..n {
        let name = reader.string(MAX_TENSOR_NAME_BYTES, &format!("the name of tensor {i}"))?;
        let what = format!("the directory entry of tensor '{name}'");
        let n_dimensions = reader.u32(&what)?;
        if n_dimensions > MAX_DIMENSIONS {
            return Err(reader.malformed(format!(
                "tensor '{name}' has {n_dimensions} dimensions, at most {MAX_DIMENSIONS} are allowed"
            )));
        }
        let dimensions = (0..n_dimensions).map(|_| reader.count(&what)).collect::<Result<Vec<u64>>>()?;
        if dimensions.contains(&0) {
            return Err(reader.malformed(format!("tensor '{name}' has a dimension of 0")));
        }
        let type_id = reader.u32(&what)?;
        let offset = reader.u64(&what)?;
        if !names.insert(name.clone()) {
            return Err(reader.malformed(format!("tensor '{name}' occurs twice")));
        }
        tensors.push(TensorInfo { name, dimensions, type_id, offset });
    }
    Ok(tensors)
}
