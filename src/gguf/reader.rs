//! A cursor over a [`Source`] that never reads, and never allocates, past the file's end.

use super::{Array, Strings, Value};
use super::{MAX_ARRAY_DEPTH, MAX_ARRAY_ELEMENTS, MAX_STRING_BYTES, Source};
use crate::error::{Error, Result};

/// Bytes fetched at a time; one longer string is fetched whole.
const CHUNK: usize = 1 << 18;

pub(super) struct Reader<'a> {
    source: &'a dyn Source,
    /// GGUF 1 writes counts and lengths in 32 bits, later versions in 64.
    pub wide: bool,
    chunk: Vec<u8>,
    /// Position in `chunk` of the next byte.
    at: usize,
    /// File offset of the byte behind `chunk`.
    fetched: u64,
}

impl<'a> Reader<'a> {
    pub fn new(source: &'a dyn Source) -> Reader<'a> {
        Reader { source, wide: true, chunk: Vec::new(), at: 0, fetched: 0 }
    }

    /// Offset in the file of the next byte.
    pub fn position(&self) -> u64 {
        self.fetched - (self.chunk.len() - self.at) as u64
    }

    /// Bytes that are left in the file.
    pub fn remaining(&self) -> u64 {
        self.source.len() - self.position()
    }

    /// An error about the bytes at the cursor.
    pub fn malformed(&self, what: impl Into<String>) -> Error {
        Error::malformed(self.source.name(), what)
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize, what: &str) -> Result<&[u8]> {
        if n as u64 > self.remaining() {
            let position = self.position();
            return Err(self.malformed(format!(
                "the file ends inside {what}: {n} bytes wanted at byte {position}, {} left; the download may be incomplete",
                self.remaining()
            )));
        }
        if self.chunk.len() - self.at < n {
            self.chunk.drain(..self.at);
            self.at = 0;
            let kept = self.chunk.len();
            let wanted = (n.max(CHUNK) - kept) as u64;
            let more = wanted.min(self.source.len() - self.fetched) as usize;
            self.chunk.resize(kept + more, 0);
            let fresh = self.chunk.get_mut(kept..).unwrap_or_default();
            self.source.read_at(self.fetched, fresh)?;
            self.fetched += more as u64;
        }
        let from = self.at;
        self.at += n;
        let position = self.fetched;
        self.chunk.get(from..from + n).ok_or_else(|| Error::Internal(format!("GGUF cursor lost at byte {position}")))
    }

    fn array_of<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N, what)?);
        Ok(bytes)
    }

    pub fn u32(&mut self, what: &str) -> Result<u32> {
        self.array_of(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64> {
        self.array_of(what).map(u64::from_le_bytes)
    }

    /// A count or length: 32 bits wide in version 1, 64 in later ones.
    pub fn count(&mut self, what: &str) -> Result<u64> {
        if self.wide { self.u64(what) } else { self.u32(what).map(u64::from) }
    }

    /// A UTF-8 string of at most `limit` bytes.
    pub fn string(&mut self, limit: u64, what: &str) -> Result<String> {
        let mut text = String::new();
        self.string_into(limit, what, &mut |s| text.push_str(s))?;
        Ok(text)
    }

    fn string_into(&mut self, limit: u64, what: &str, sink: &mut dyn FnMut(&str)) -> Result<()> {
        let len = self.count(what)?;
        if len > limit {
            return Err(self.malformed(format!("{what} has {len} bytes, the limit is {limit}")));
        }
        let position = self.position();
        let valid = match std::str::from_utf8(self.take(len as usize, what)?) {
            Ok(text) => {
                sink(text);
                return Ok(());
            }
            Err(e) => e.valid_up_to() as u64,
        };
        let what = format!("{what} is not valid UTF-8 at byte {}", position + valid);
        Err(Error::malformed(self.source.name(), what))
    }

    /// A metadata value of the type with GGUF's number `type_id`.
    pub fn value(&mut self, type_id: u32, key: &str) -> Result<Value> {
        let what = format!("metadata value '{key}'");
        Ok(match type_id {
            0 => Value::U8(self.array_of(&what).map(u8::from_le_bytes)?),
            1 => Value::I8(self.array_of(&what).map(i8::from_le_bytes)?),
            2 => Value::U16(self.array_of(&what).map(u16::from_le_bytes)?),
            3 => Value::I16(self.array_of(&what).map(i16::from_le_bytes)?),
            4 => Value::U32(self.u32(&what)?),
            5 => Value::I32(self.array_of(&what).map(i32::from_le_bytes)?),
            6 => Value::F32(self.array_of(&what).map(f32::from_le_bytes)?),
            7 => Value::Bool(self.array_of::<1>(&what)? != [0]),
            8 => Value::String(self.string(MAX_STRING_BYTES, &what)?),
            9 => Value::Array(self.array(&what, 1)?),
            10 => Value::U64(self.u64(&what)?),
            11 => Value::I64(self.array_of(&what).map(i64::from_le_bytes)?),
            12 => Value::F64(self.array_of(&what).map(f64::from_le_bytes)?),
            other => return Err(self.malformed(format!("{what} has the unknown type {other}"))),
        })
    }

    fn array(&mut self, what: &str, depth: u32) -> Result<Array> {
        let type_id = self.u32(what)?;
        let n = self.count(what)?;
        if n > MAX_ARRAY_ELEMENTS {
            return Err(self.malformed(format!("{what} has {n} elements, the limit is {MAX_ARRAY_ELEMENTS}")));
        }
        Ok(match type_id {
            0 => Array::U8(self.scalars(n, what, u8::from_le_bytes)?),
            1 => Array::I8(self.scalars(n, what, i8::from_le_bytes)?),
            2 => Array::U16(self.scalars(n, what, u16::from_le_bytes)?),
            3 => Array::I16(self.scalars(n, what, i16::from_le_bytes)?),
            4 => Array::U32(self.scalars(n, what, u32::from_le_bytes)?),
            5 => Array::I32(self.scalars(n, what, i32::from_le_bytes)?),
            6 => Array::F32(self.scalars(n, what, f32::from_le_bytes)?),
            7 => Array::Bool(self.scalars(n, what, |b: [u8; 1]| b != [0])?),
            8 => {
                // Each string has at least its length's bytes: a bound before anything is allocated.
                self.need(n, if self.wide { 8 } else { 4 }, what)?;
                let mut strings = Strings::default();
                for _ in 0..n {
                    self.string_into(MAX_STRING_BYTES, what, &mut |s| strings.push(s))?;
                }
                Array::Strings(strings)
            }
            9 => {
                if depth >= MAX_ARRAY_DEPTH {
                    return Err(self.malformed(format!("{what} nests arrays deeper than {MAX_ARRAY_DEPTH}")));
                }
                self.need(n, if self.wide { 12 } else { 8 }, what)?;
                let mut arrays = Vec::new();
                for _ in 0..n {
                    arrays.push(self.array(what, depth + 1)?);
                }
                Array::Arrays(arrays)
            }
            10 => Array::U64(self.scalars(n, what, u64::from_le_bytes)?),
            11 => Array::I64(self.scalars(n, what, i64::from_le_bytes)?),
            12 => Array::F64(self.scalars(n, what, f64::from_le_bytes)?),
            other => return Err(self.malformed(format!("{what} is an array of the unknown type {other}"))),
        })
    }

    /// Checks that `n` things of at least `bytes` each can still follow.
    pub fn need(&self, n: u64, bytes: u64, what: &str) -> Result<()> {
        match n.checked_mul(bytes) {
            Some(total) if total <= self.remaining() => Ok(()),
            _ => Err(self.malformed(format!(
                "{what} claims {n} elements, but only {} bytes are left in the file",
                self.remaining()
            ))),
        }
    }

    fn scalars<const N: usize, T>(&mut self, n: u64, what: &str, from: fn([u8; N]) -> T) -> Result<Vec<T>> {
        self.need(n, N as u64, what)?;
        let bytes = self.take(n as usize * N, what)?;
        Ok(bytes.as_chunks::<N>().0.iter().map(|c| from(*c)).collect())
    }
}
