//! Tensors by name: the directory of a file joined with the tensor-type table, and checked once, so that
//! everything behind it may trust sizes and places.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::gguf::{Header, Source, TensorInfo};
use crate::quant::TensorType;

/// A checked tensor: its bytes lie inside its file, aligned, and overlap no other's.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// GGUF's name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// The type of its elements.
    pub tensor_type: TensorType,
    /// Dimensions, the contiguous one first: a matrix is `[columns, rows]`.
    pub dimensions: Vec<usize>,
    /// Which of the model's files holds it.
    pub part: usize,
    /// Offset of its first byte in that file.
    pub offset: u64,
    /// Its length in bytes.
    pub bytes: usize,
}

impl Tensor {
    /// Elements of a row: the contiguous dimension.
    pub fn columns(&self) -> usize {
        self.dimensions.first().copied().unwrap_or(1)
    }

    /// Rows: the product of all other dimensions.
    pub fn rows(&self) -> usize {
        self.dimensions.iter().skip(1).product()
    }

    /// The dimensions as people write them: `576 × 49152`.
    pub fn shape_text(&self) -> String {
        shape_text(&self.dimensions)
    }
}

/// Dimensions as people write them: `576 × 49152`.
pub fn shape_text(dimensions: &[usize]) -> String {
    dimensions.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ")
}

/// All tensors of a model, in file order and by name.
#[derive(Debug, Default)]
pub struct TensorTable {
    tensors: Vec<Tensor>,
    index: HashMap<String, usize>,
}

impl TensorTable {
    /// Checks and joins the directories of a model's files.
    pub fn new<'a>(parts: impl IntoIterator<Item = (&'a dyn Source, &'a Header)>) -> Result<TensorTable> {
        let mut table = TensorTable::default();
        for (part, (source, header)) in parts.into_iter().enumerate() {
            let first = table.tensors.len();
            for info in &header.tensors {
                let tensor = check(source, header, part, info)?;
                if table.index.insert(info.name.clone(), table.tensors.len()).is_some() {
                    return Err(Error::malformed(source.name(), format!("tensor '{}' occurs in two parts", info.name)));
                }
                table.tensors.push(tensor);
            }
            check_overlap(source, table.tensors.get(first..).unwrap_or_default())?;
        }
        Ok(table)
    }

    /// The tensor called `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.index.get(name).and_then(|&i| self.tensors.get(i))
    }

    /// All tensors in file order.
    pub fn iter(&self) -> std::slice::Iter<'_, Tensor> {
        self.tensors.iter()
    }
}

fn check(source: &dyn Source, header: &Header, part: usize, info: &TensorInfo) -> Result<Tensor> {
    let name = &info.name;
    let malformed = |what: String| Error::malformed(source.name(), format!("tensor '{name}' {what}"));
    let tensor_type = TensorType::from_id(info.type_id).ok_or_else(|| {
        Error::unsupported(source.name(), format!("tensor '{name}' has the unknown type {}", info.type_id))
    })?;
    let dimensions = info
        .dimensions
        .iter()
        .map(|&d| usize::try_from(d).map_err(|_| malformed(format!("has a dimension of {d}"))))
        .collect::<Result<Vec<usize>>>()?;
    let columns = dimensions.first().copied().unwrap_or(1);
    let row = tensor_type.row_bytes(columns).ok_or_else(|| {
        malformed(format!(
            "has rows of {columns} elements, which is no whole number of {} blocks of {}",
            tensor_type.name(),
            tensor_type.format().block_elements
        ))
    })?;
    let bytes = dimensions
        .iter()
        .skip(1)
        .try_fold(row, |bytes, &d| bytes.checked_mul(d))
        .filter(|&bytes| isize::try_from(bytes).is_ok())
        .ok_or_else(|| malformed(format!("has the impossible shape {}", shape_text(&dimensions))))?;
    if !info.offset.is_multiple_of(u64::from(header.alignment)) {
        return Err(malformed(format!(
            "begins at offset {}, which is not aligned to {}",
            info.offset, header.alignment
        )));
    }
    let offset = header.data_offset.checked_add(info.offset);
    let end = offset.and_then(|offset| offset.checked_add(bytes as u64));
    match (offset, end) {
        (Some(offset), Some(end)) if end <= source.len() => {
            Ok(Tensor { name: name.clone(), tensor_type, dimensions, part, offset, bytes })
        }
        _ => Err(malformed(format!(
            "({} {}) needs {bytes} bytes at offset {} of the data section, which begins at byte {}; the file has {} bytes: \
             it is incomplete",
            tensor_type.name(),
            shape_text(&dimensions),
            info.offset,
            header.data_offset,
            source.len()
        ))),
    }
}

fn check_overlap(source: &dyn Source, tensors: &[Tensor]) -> Result<()> {
    let mut by_offset: Vec<&Tensor> = tensors.iter().collect();
    by_offset.sort_by_key(|t| t.offset);
    for pair in by_offset.windows(2) {
        if let [a, b] = pair
            && a.offset + a.bytes as u64 > b.offset
        {
            return Err(Error::malformed(source.name(), format!("tensors '{}' and '{}' overlap", a.name, b.name)));
        }
    }
    Ok(())
}
