//! As much of MessagePack as the metadata note of a code object uses.

/// A value; integers keep their bits, so negative ones are large.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Nil,
    Bool(bool),
    Int(u64),
    Text(String),
    List(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// Floats, binary data and extensions, which metadata does not use.
    Other,
}

impl Value {
    pub fn parse(bytes: &[u8]) -> Result<Value, String> {
        Reader { bytes, at: 0 }.value(0)
    }

    /// The field of a map, `None` if this is no map or has no such field.
    pub fn get(&self, key: &str) -> Option<&Value> {
        let Value::Map(fields) = self else { return None };
        fields.iter().find(|(k, _)| matches!(k, Value::Text(k) if k == key)).map(|(_, v)| v)
    }

    pub fn int(&self, key: &str) -> Option<u64> {
        if let Some(Value::Int(n)) = self.get(key) { Some(*n) } else { None }
    }

    pub fn text(&self, key: &str) -> Option<&str> {
        if let Some(Value::Text(s)) = self.get(key) { Some(s) } else { None }
    }

    pub fn list(&self, key: &str) -> &[Value] {
        if let Some(Value::List(list)) = self.get(key) { list } else { &[] }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take(&mut self, n: usize) -> Result<&[u8], String> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.bytes.len()).ok_or("the metadata ends early")?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn big_endian(&mut self, n: usize) -> Result<u64, String> {
        Ok(self.take(n)?.iter().fold(0, |value, &b| value << 8 | u64::from(b)))
    }

    fn text(&mut self, n: usize) -> Result<Value, String> {
        Ok(Value::Text(String::from_utf8_lossy(self.take(n)?).into_owned()))
    }

    fn list(&mut self, n: usize, depth: u32) -> Result<Value, String> {
        (0..n).map(|_| self.value(depth + 1)).collect::<Result<_, _>>().map(Value::List)
    }

    fn map(&mut self, n: usize, depth: u32) -> Result<Value, String> {
        let field = |_| Ok((self.value(depth + 1)?, self.value(depth + 1)?));
        (0..n).map(field).collect::<Result<_, String>>().map(Value::Map)
    }

    fn value(&mut self, depth: u32) -> Result<Value, String> {
        if depth > 32 {
            return Err("the metadata is nested too deeply".into());
        }
        let tag = self.take(1)?[0];
        let low = usize::from(tag & 15);
        Ok(match tag {
            0x00..=0x7f => Value::Int(u64::from(tag)),
            0x80..=0x8f => self.map(low, depth)?,
            0x90..=0x9f => self.list(low, depth)?,
            0xa0..=0xbf => self.text(usize::from(tag & 31))?,
            0xc0 => Value::Nil,
            0xc2 | 0xc3 => Value::Bool(tag == 0xc3),
            0xcc..=0xcf => Value::Int(self.big_endian(1 << (tag - 0xcc))?),
            0xd0..=0xd3 => {
                let bytes = 1 << (tag - 0xd0);
                let unused = 64 - 8 * bytes as u32;
                Value::Int(((self.big_endian(bytes)? << unused) as i64 >> unused) as u64)
            }
            0xd9..=0xdb => {
                let n = self.big_endian(1 << (tag - 0xd9))? as usize;
                self.text(n)?
            }
            0xdc | 0xdd => {
                let n = self.big_endian(2 << (tag - 0xdc))? as usize;
                self.list(n.min(self.bytes.len()), depth)?
            }
            0xde | 0xdf => {
                let n = self.big_endian(2 << (tag - 0xde))? as usize;
                self.map(n.min(self.bytes.len()), depth)?
            }
            0xe0..=0xff => Value::Int(i64::from(tag as i8) as u64),
            0xca | 0xcb => {
                self.take(4 << (tag - 0xca))?;
                Value::Other
            }
            _ => return Err(format!("a metadata value of kind {tag:#x}")),
        })
    }
}
