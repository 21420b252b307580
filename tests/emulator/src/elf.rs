//! The parts of ELF64 that AMD code objects use, read with checked offsets: a damaged file is an error, not a crash.

/// `e_machine` of AMD GPUs.
const EM_AMDGPU: u16 = 224;
const PT_LOAD: u32 = 1;
const SHT_RELA: u32 = 4;
const SHT_NOTE: u32 = 7;
const SHT_DYNSYM: u32 = 11;
const STT_OBJECT: u8 = 1;
const STT_FUNC: u8 = 2;

/// Little-endian fields at checked offsets.
#[derive(Clone, Copy)]
pub struct Bytes<'a>(pub &'a [u8]);

impl<'a> Bytes<'a> {
    pub fn slice(self, at: u64, len: u64) -> Result<&'a [u8], String> {
        let end = at.checked_add(len).filter(|&end| end <= self.0.len() as u64);
        let end = end.ok_or_else(|| format!("the object ends before byte {}", at.saturating_add(len)))?;
        Ok(&self.0[at as usize..end as usize])
    }

    pub fn u16(self, at: u64) -> Result<u16, String> {
        Ok(u16::from_le_bytes(self.slice(at, 2)?.try_into().expect("two bytes")))
    }

    pub fn u32(self, at: u64) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.slice(at, 4)?.try_into().expect("four bytes")))
    }

    pub fn u64(self, at: u64) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.slice(at, 8)?.try_into().expect("eight bytes")))
    }

    fn name(self, at: u64) -> Result<String, String> {
        let rest = self.slice(at, (self.0.len() as u64).saturating_sub(at))?;
        let end = rest.iter().position(|&b| b == 0).ok_or("a name without an end")?;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }
}

/// A piece of the file and where it lies in the loaded image.
pub struct Segment {
    pub address: u64,
    pub bytes: Vec<u8>,
    /// Size in memory; the bytes beyond the file's are zero.
    pub size: u64,
}

pub struct Symbol {
    pub name: String,
    pub address: u64,
    pub size: u64,
    pub is_function: bool,
    pub is_object: bool,
    pub defined: bool,
}

pub struct Relocation {
    pub address: u64,
    pub kind: u32,
    pub symbol: u32,
    pub addend: i64,
}

pub struct Note {
    pub kind: u32,
    pub owner: Vec<u8>,
    pub description: Vec<u8>,
}

/// What a loader needs of a code object.
pub struct Elf {
    pub flags: u32,
    pub abi_version: u8,
    pub segments: Vec<Segment>,
    pub symbols: Vec<Symbol>,
    pub relocations: Vec<Relocation>,
    pub notes: Vec<Note>,
}

struct Section {
    kind: u32,
    offset: u64,
    size: u64,
    link: u32,
}

/// The size of the ELF file that starts at `header`'s beginning, from its section table: HIP passes images without a
/// length.
pub fn file_size(header: &[u8; 64]) -> Result<u64, String> {
    let bytes = Bytes(header);
    check_identity(bytes)?;
    let sections_end = bytes.u64(40)?.checked_add(u64::from(bytes.u16(58)?) * u64::from(bytes.u16(60)?));
    let segments_end = bytes.u64(32)?.checked_add(u64::from(bytes.u16(54)?) * u64::from(bytes.u16(56)?));
    match (sections_end, segments_end) {
        (Some(a), Some(b)) => Ok(a.max(b).max(64)),
        _ => Err("the section table lies nowhere".into()),
    }
}

fn check_identity(bytes: Bytes) -> Result<(), String> {
    if bytes.slice(0, 4)? != b"\x7fELF" {
        return Err("not an ELF file".into());
    }
    if bytes.slice(4, 2)? != [2, 1] || bytes.u16(18)? != EM_AMDGPU {
        return Err("not a little-endian 64-bit ELF file for AMD GPUs".into());
    }
    Ok(())
}

impl Elf {
    pub fn parse(file: &[u8]) -> Result<Elf, String> {
        let bytes = Bytes(file);
        check_identity(bytes)?;
        let sections = sections(bytes)?;
        let mut elf = Elf {
            flags: bytes.u32(48)?,
            abi_version: bytes.slice(8, 1)?[0],
            segments: segments(bytes)?,
            symbols: Vec::new(),
            relocations: Vec::new(),
            notes: Vec::new(),
        };
        for section in &sections {
            match section.kind {
                SHT_DYNSYM => elf.symbols = symbols(bytes, section, &sections)?,
                SHT_RELA => elf.relocations.extend(relocations(bytes, section)?),
                SHT_NOTE => elf.notes.extend(notes(bytes, section)?),
                _ => {}
            }
        }
        Ok(elf)
    }
}

fn sections(bytes: Bytes) -> Result<Vec<Section>, String> {
    let (table, size, count) = (bytes.u64(40)?, u64::from(bytes.u16(58)?), u64::from(bytes.u16(60)?));
    let section = |i: u64| {
        let at = table.checked_add(i * size).ok_or("the section table lies nowhere")?;
        let field = |offset: u64| at.checked_add(offset).ok_or("the section table lies nowhere".to_string());
        Ok(Section {
            kind: bytes.u32(field(4)?)?,
            offset: bytes.u64(field(24)?)?,
            size: bytes.u64(field(32)?)?,
            link: bytes.u32(field(40)?)?,
        })
    };
    (0..count).map(section).collect()
}

fn segments(bytes: Bytes) -> Result<Vec<Segment>, String> {
    let (table, size, count) = (bytes.u64(32)?, u64::from(bytes.u16(54)?), u64::from(bytes.u16(56)?));
    let mut segments = Vec::new();
    for i in 0..count {
        let at = bytes.slice(table.saturating_add(i * size), 56).map(Bytes)?;
        if at.u32(0)? != PT_LOAD {
            continue;
        }
        let (address, in_file, in_memory) = (at.u64(16)?, at.u64(32)?, at.u64(40)?);
        if in_memory < in_file || address.saturating_add(in_memory) > 1 << 30 {
            return Err(format!("a segment of {in_memory} bytes at {address:#x}"));
        }
        segments.push(Segment { address, bytes: bytes.slice(at.u64(8)?, in_file)?.to_vec(), size: in_memory });
    }
    Ok(segments)
}

fn symbols(bytes: Bytes, section: &Section, sections: &[Section]) -> Result<Vec<Symbol>, String> {
    let names = sections.get(section.link as usize).ok_or("a symbol table without names")?;
    let names = Bytes(bytes.slice(names.offset, names.size)?);
    let table = bytes.slice(section.offset, section.size)?;
    let symbol = |entry: &[u8]| {
        let entry = Bytes(entry);
        let kind = entry.0[4] & 15;
        Ok(Symbol {
            name: names.name(u64::from(entry.u32(0)?))?,
            address: entry.u64(8)?,
            size: entry.u64(16)?,
            is_function: kind == STT_FUNC,
            is_object: kind == STT_OBJECT,
            defined: entry.u16(6)? != 0,
        })
    };
    table.chunks_exact(24).map(symbol).collect()
}

fn relocations(bytes: Bytes, section: &Section) -> Result<Vec<Relocation>, String> {
    let table = bytes.slice(section.offset, section.size)?;
    let relocation = |entry: &[u8]| {
        let entry = Bytes(entry);
        let info = entry.u64(8)?;
        Ok(Relocation {
            address: entry.u64(0)?,
            kind: info as u32,
            symbol: (info >> 32) as u32,
            addend: entry.u64(16)? as i64,
        })
    };
    table.chunks_exact(24).map(relocation).collect()
}

fn notes(bytes: Bytes, section: &Section) -> Result<Vec<Note>, String> {
    let table = Bytes(bytes.slice(section.offset, section.size)?);
    let (mut at, mut notes) = (0, Vec::new());
    while at + 12 <= table.0.len() as u64 {
        let (owner, description) = (u64::from(table.u32(at)?), u64::from(table.u32(at + 4)?));
        let start = at + 12 + owner.next_multiple_of(4);
        notes.push(Note {
            kind: table.u32(at + 8)?,
            owner: table.slice(at + 12, owner)?.to_vec(),
            description: table.slice(start, description)?.to_vec(),
        });
        at = start + description.next_multiple_of(4);
    }
    Ok(notes)
}
