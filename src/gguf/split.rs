//! Models in several files: `NAME-00001-of-00003.gguf` and its fellows, each with a header of its own.

use std::path::{Path, PathBuf};

use super::{FileSource, Header, MAX_SPLIT_FILES, MappedSource, Source};
use crate::error::{Error, Result};

/// The paths of all parts of the model that `path` belongs to; `path` alone if its name is not that of a part.
pub fn split_paths(path: &Path) -> Result<Vec<PathBuf>> {
    let Some((stem, number, count)) = path.file_name().and_then(|n| n.to_str()).and_then(parse_name) else {
        return Ok(vec![path.to_path_buf()]);
    };
    if number == 0 || count == 0 || number > count || count > MAX_SPLIT_FILES {
        return Err(Error::malformed(
            path.display().to_string(),
            format!("the name says part {number} of {count}; parts are 1 to {MAX_SPLIT_FILES}"),
        ));
    }
    Ok((1..=count).map(|i| path.with_file_name(format!("{stem}-{i:05}-of-{count:05}.gguf"))).collect())
}

fn parse_name(name: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
    let (stem, number) = rest.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok()).flatten();
    Some((stem, digits(number)?, digits(count)?))
}

/// Opens and parses every part of the model at `path`, the first part's metadata being the model's.
pub fn open_parts(path: &Path, mapped: bool) -> Result<Vec<(Box<dyn Source>, Header)>> {
    let paths = split_paths(path)?;
    let mut parts: Vec<(Box<dyn Source>, Header)> = Vec::with_capacity(paths.len());
    for path in &paths {
        let source: Box<dyn Source> =
            if mapped { Box::new(MappedSource::open(path)?) } else { Box::new(FileSource::open(path)?) };
        let header = Header::parse(source.as_ref())?;
        parts.push((source, header));
    }
    check_split(&parts)?;
    Ok(parts)
}

/// Checks `split.no`, `split.count` and `split.tensors.count` of all parts against the files at hand.
fn check_split(parts: &[(Box<dyn Source>, Header)]) -> Result<()> {
    let total: usize = parts.iter().map(|(_, header)| header.tensors.len()).sum();
    for (i, (source, header)) in parts.iter().enumerate() {
        let count = header.metadata.u64("split.count")?.unwrap_or(1).max(1);
        if count != parts.len() as u64 {
            return Err(Error::malformed(
                source.name(),
                format!(
                    "is part of a model in {count} files, but its name tells of {}; keep the names -00001-of-{count:05}.gguf",
                    parts.len()
                ),
            ));
        }
        let number = header.metadata.u64("split.no")?.unwrap_or(0);
        if number != i as u64 {
            return Err(Error::malformed(source.name(), format!("split.no is {number}, its name says {i}")));
        }
        if let Some(n) = header.metadata.u64("split.tensors.count")?
            && parts.len() > 1
            && n != total as u64
        {
            return Err(Error::malformed(source.name(), format!("split.tensors.count is {n}, the parts hold {total}")));
        }
    }
    Ok(())
}
